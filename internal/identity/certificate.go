package identity

import (
	"context"
	"crypto/x509"
	"encoding/asn1"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"securefiles/authz"
)

// sourceCertificate names the source in metrics.
const sourceCertificate = "certificate"

// certificateAuthority is who names the users of all client certificates.
const certificateAuthority = "the authorities of nginx's ssl_client_certificate"

// The headers in which nginx tells of the client's certificate. It must
// overwrite all of them, and send the last two only of a verified one.
const (
	// HeaderVerify is $ssl_client_verify.
	HeaderVerify = "X-Securefiles-Client-Verify"
	// HeaderDN is $ssl_client_s_dn: RFC 2253, from nginx 1.11.6.
	HeaderDN = "X-Securefiles-Client-Dn"
	// HeaderCertificate is $ssl_client_escaped_cert, from nginx 1.13.5.
	HeaderCertificate = "X-Securefiles-Client-Certificate"
)

const (
	maxDNBytes          = 4096
	maxCertificateBytes = 32 << 10 // escaped
)

// What of a certificate can be the subject. The last three are alternative
// names, of which the certificate must have exactly one of the kind.
const (
	SubjectCN    = "cn"    // the common name
	SubjectDN    = "dn"    // the whole distinguished name, as RFC 2253 writes it
	SubjectEmail = "email" // rfc822Name
	SubjectDNS   = "dns"   // dNSName
	SubjectURI   = "uri"   // uniformResourceIdentifier: a SPIFFE ID, for one
)

// GroupsOU says that the organizational units are the groups.
const GroupsOU = "ou"

// CertificateOptions say what of a certificate names the caller.
type CertificateOptions struct {
	// Subject is one of the constants above; empty means SubjectCN.
	Subject string
	// Groups is GroupsOU, or empty for none.
	Groups string
	// GroupsOptional says that a certificate without organizational units has no
	// groups.
	GroupsOptional bool
}

// A Certificate takes the caller from a TLS client certificate that nginx has
// verified. It trusts nginx's word and every authority that nginx trusts: all
// of them can name any user. It is safe for concurrent use. The zero
// Certificate refuses everybody who has a certificate.
type Certificate struct{ opts CertificateOptions }

// NewCertificate returns an error that joins an *OptionError for each option that
// cannot be.
func NewCertificate(opts CertificateOptions) (*Certificate, error) {
	var p problems
	switch opts.Subject {
	case "":
		opts.Subject = SubjectCN
	case SubjectCN, SubjectDN, SubjectEmail, SubjectDNS, SubjectURI:
	default:
		p.add("subject", "%q is not one of cn, dn, email, dns, uri", opts.Subject)
	}
	if opts.Groups != "" && opts.Groups != GroupsOU {
		p.add("groups", "%q is not one of ou", opts.Groups)
	}
	if err := p.err(); err != nil {
		return nil, err
	}
	return &Certificate{opts}, nil
}

// NewCertificateSource returns NewCertificate's with all that others need to
// know of it.
func NewCertificateSource(opts CertificateOptions) (*Source, error) {
	c, err := NewCertificate(opts)
	if err != nil {
		return nil, err
	}
	s := &Source{
		Authenticator: c, Name: sourceCertificate, Place: "what nginx says of the client's certificate", Reads: []string{HeaderVerify}, Authority: certificateAuthority,
		Headers: []RequestHeader{{Name: HeaderVerify, Value: "$ssl_client_verify"}},
	}
	if c.needsDN() {
		s.Headers = append(s.Headers, RequestHeader{Name: HeaderDN, Value: "$ssl_client_s_dn"})
	}
	if !c.isDN() {
		s.Headers = append(s.Headers, RequestHeader{Name: HeaderCertificate, Value: "$ssl_client_escaped_cert"})
	}
	return s, nil
}

func (c *Certificate) isDN() bool    { return c.opts.Subject == SubjectCN || c.opts.Subject == SubjectDN }
func (c *Certificate) needsDN() bool { return c.isDN() || c.opts.Groups != "" }

// Authenticate returns the subject of the certificate. A client that showed
// none is authz.ErrNoCredentials. A certificate that nginx has not verified, or
// whose names are not what the options ask for, is an *authz.CredentialsError, and final. One
// that names no groups, where it should, is an *authz.UnavailableError.
func (c *Certificate) Authenticate(_ context.Context, q *authz.Question) (authz.Principal, error) {
	verify, err := onlyValue(q.Header, HeaderVerify)
	if err != nil {
		return c.refuse(err)
	}
	switch {
	case verify == "SUCCESS":
	case verify == "", verify == "NONE":
		return authz.Principal{}, authz.ErrNoCredentials
	default: // FAILED:reason
		return c.refuse(errors.New("nginx has not verified the certificate"))
	}
	p, err := c.principal(q.Header)
	if errors.As(err, new(*authz.UnavailableError)) {
		return authz.Principal{}, err
	}
	if err != nil {
		return c.refuse(err)
	}
	return p, nil
}

func (c *Certificate) refuse(err error) (authz.Principal, error) {
	bad := refused(sourceCertificate, err)
	bad.Final = true // no login page changes a certificate
	return authz.Principal{}, bad
}

// principal reads the names of a verified certificate.
func (c *Certificate) principal(h http.Header) (authz.Principal, error) {
	var text string
	var names []attribute
	var err error
	if c.needsDN() {
		if text, err = required(h, HeaderDN, maxDNBytes); err != nil {
			return authz.Principal{}, err
		}
		if names, err = parseDN(text); err != nil {
			return authz.Principal{}, fmt.Errorf("the distinguished name %w", err)
		}
	}
	var subject string
	switch c.opts.Subject {
	case SubjectDN:
		subject = text
	case SubjectCN:
		subject, err = only("common name", valuesOf(names, "CN"))
	case SubjectEmail, SubjectDNS, SubjectURI:
		subject, err = alternativeName(h, c.opts.Subject)
	default:
		err = errors.New("nothing says what of a certificate names the user")
	}
	if err != nil {
		return authz.Principal{}, err
	}
	if err := authz.ValidSubject(subject); err != nil {
		return authz.Principal{}, fmt.Errorf("the subject %w", err)
	}
	p := authz.Principal{Subject: subject, Source: sourceCertificate}
	if c.opts.Groups == GroupsOU {
		units := valuesOf(names, "OU")
		if len(units) == 0 && !c.opts.GroupsOptional {
			return authz.Principal{}, noGroups(sourceCertificate, "the certificate has no organizational unit (OU)")
		}
		if p.Groups, err = groupNames(units); err != nil {
			return authz.Principal{}, err
		}
	}
	return p, nil
}

// required returns the value of a header that nginx sends of every verified
// certificate.
func required(h http.Header, name string, maxBytes int) (string, error) {
	value, err := onlyValue(h, name)
	switch {
	case err != nil:
		return "", err
	case value == "":
		return "", fmt.Errorf("nginx did not send %s: print its configuration again with `securefiles nginx`", name)
	case len(value) > maxBytes:
		return "", fmt.Errorf("%s is longer than %d bytes", name, maxBytes)
	}
	return value, nil
}

// only returns the one value of its kind: with two, issuers and readers differ
// in which one counts.
func only(what string, values []string) (string, error) {
	if len(values) != 1 {
		return "", fmt.Errorf("the certificate has %d of the kind %s, not one", len(values), what)
	}
	return values[0], nil
}

// alternativeName returns the subject's alternative name of a kind.
func alternativeName(h http.Header, kind string) (string, error) {
	escaped, err := required(h, HeaderCertificate, maxCertificateBytes)
	if err != nil {
		return "", err
	}
	text, err := url.PathUnescape(escaped)
	if err != nil {
		return "", errors.New("the certificate is not percent-encoded")
	}
	block, rest := pem.Decode([]byte(text))
	if block == nil || block.Type != "CERTIFICATE" || strings.TrimSpace(string(rest)) != "" {
		return "", errors.New("the certificate is not one in PEM form")
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return "", errors.New("the certificate cannot be read")
	}
	switch kind {
	case SubjectEmail:
		return only("email", cert.EmailAddresses)
	case SubjectDNS:
		return only("DNS name", cert.DNSNames)
	}
	var uris []string
	for _, u := range cert.URIs {
		uris = append(uris, u.String())
	}
	return only("URI", uris)
}

// An attribute is one part of a distinguished name: CN=alice.
type attribute struct{ kind, value string }

// valuesOf returns the values of a kind, in the order of the name.
func valuesOf(names []attribute, kind string) []string {
	var values []string
	for _, a := range names {
		if a.kind == kind {
			values = append(values, a.value)
		}
	}
	return values
}

// parseDN reads a distinguished name as OpenSSL writes it with
// XN_FLAG_RFC2253: no blanks between, `\` before what would be syntax, `\C3`
// for bytes beyond ASCII and control bytes, `#` and DER in hexadecimal for
// values that are no text, `+` between the parts of one RDN. Its errors are
// predicates that quote nothing.
func parseDN(text string) ([]attribute, error) {
	var names []attribute
	for text != "" {
		kind, rest, found := strings.Cut(text, "=")
		if !found || !isAttributeType(kind) {
			return nil, errors.New("has a part that is not TYPE=VALUE")
		}
		value, n, err := parseDNValue(rest)
		if err != nil {
			return nil, err
		}
		names = append(names, attribute{attributeType(kind), value})
		if n == len(rest) {
			return names, nil
		}
		if text = rest[n+1:]; text == "" { // behind a comma or a plus
			break
		}
	}
	return nil, errors.New("is empty, or ends before its time")
}

// parseDNValue returns the value at the beginning, and where it ends: at an
// unescaped comma or plus, or with the text.
func parseDNValue(text string) (string, int, error) {
	var value []byte
	isHex := strings.HasPrefix(text, "#")
	i := 0
scan:
	for i < len(text) {
		c := text[i]
		i++
		switch c {
		case ',', '+':
			i--
			break scan
		case '"', '<', '>', ';':
			return "", 0, errors.New("has a special character that is not escaped")
		case '\\':
			switch {
			case i < len(text) && strings.IndexByte(`,+"\<>;= #`, text[i]) >= 0:
				value = append(value, text[i])
				i++
			case i+1 < len(text):
				b, err := hex.DecodeString(text[i : i+2])
				if err != nil {
					return "", 0, errors.New("has a backslash that escapes nothing")
				}
				value = append(value, b...)
				i += 2
			default:
				return "", 0, errors.New("has a backslash that escapes nothing")
			}
		default:
			value = append(value, c)
		}
	}
	if !isHex {
		return string(value), i, nil
	}
	der, err := hex.DecodeString(text[1:i])
	if err != nil {
		return "", 0, errors.New("has a value that is not hexadecimal")
	}
	var decoded string
	if rest, err := asn1.Unmarshal(der, &decoded); err != nil || len(rest) > 0 {
		return "", 0, errors.New("has a value that is no text")
	}
	return decoded, i, nil
}

func isAttributeType(kind string) bool {
	return kind != "" && !strings.ContainsFunc(kind, func(r rune) bool {
		return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || r == '-' || r == '.')
	})
}

// attributeType returns the type under its usual name.
func attributeType(kind string) string {
	switch kind = strings.ToUpper(kind); kind {
	case "2.5.4.3", "COMMONNAME":
		return "CN"
	case "2.5.4.11", "ORGANIZATIONALUNITNAME":
		return "OU"
	}
	return kind
}
