package identity

import (
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"securefiles/authz"
)

// escaped returns a certificate as $ssl_client_escaped_cert has it.
func escaped(t testing.TB, template x509.Certificate) string {
	t.Helper()
	template.SerialNumber = big.NewInt(1)
	template.NotAfter = time.Now().Add(time.Hour)
	key := signers()["p256"]
	der, err := x509.CreateCertificate(rand.Reader, &template, &template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	return strings.ReplaceAll(url.QueryEscape(string(text)), "+", "%20")
}

func uri(t testing.TB, text string) *url.URL {
	t.Helper()
	u, err := url.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

const success = "X-Securefiles-Client-Verify: SUCCESS"

func dn(text string) []string { return []string{success, "X-Securefiles-Client-Dn: " + text} }

func TestCertificate(t *testing.T) {
	names := x509.Certificate{
		Subject:        pkix.Name{CommonName: "somebody"},
		EmailAddresses: []string{"alice@example.org"}, DNSNames: []string{"laptop.example.org"}, URIs: []*url.URL{uri(t, "spiffe://example.org/alice")},
	}
	cert := []string{success, "X-Securefiles-Client-Certificate: " + escaped(t, names)}
	for _, test := range []struct {
		name    string
		opts    CertificateOptions
		lines   []string
		subject string
		groups  []string
	}{
		{"the common name", CertificateOptions{}, dn("CN=alice,OU=staff,O=Example"), "alice", nil},
		{"the common name, last", CertificateOptions{}, dn("O=Example,CN=alice"), "alice", nil},
		{"an escaped comma", CertificateOptions{}, dn(`CN=Doe\, Jane,O=x\,CN=root`), "Doe, Jane", nil},
		{"an escaped plus and equals", CertificateOptions{}, dn(`CN=a\+CN\=b`), "a+CN=b", nil},
		{"an equals that is not escaped", CertificateOptions{}, dn(`CN=a=b`), "a=b", nil},
		{"UTF-8 in hexadecimal", CertificateOptions{}, dn(`CN=Carol M\C3\BCller`), "Carol Müller", nil},
		{"a value in DER", CertificateOptions{}, dn("CN=#0C05616C696365,O=x"), "alice", nil},
		{"an RDN of several values", CertificateOptions{}, dn("O=x+CN=alice+UID=7,C=DE"), "alice", nil},
		{"the whole name", CertificateOptions{Subject: "dn"}, dn(`CN=alice,O=x\, y`), `CN=alice,O=x\, y`, nil},
		{"units as groups", CertificateOptions{Groups: "ou"}, dn("CN=alice,OU=staff+OU=sales,OU=big team,O=x"), "alice", []string{"@staff", "@sales", "@big team"}},
		{"no units", CertificateOptions{Groups: "ou", GroupsOptional: true}, dn("CN=alice"), "alice", nil},
		{"an email", CertificateOptions{Subject: "email"}, cert, "alice@example.org", nil},
		{"a DNS name", CertificateOptions{Subject: "dns"}, cert, "laptop.example.org", nil},
		{"a URI", CertificateOptions{Subject: "uri"}, cert, "spiffe://example.org/alice", nil},
		{"a URI and units", CertificateOptions{Subject: "uri", Groups: "ou"}, append(dn("OU=staff"), cert[1]), "spiffe://example.org/alice", []string{"@staff"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			c, err := NewCertificateSource(test.opts)
			if err != nil {
				t.Fatal(err)
			}
			got, err := c.Authenticate(t.Context(), request(t, test.lines...))
			if diff := cmp.Diff(authz.Principal{Subject: test.subject, Groups: test.groups, Source: "certificate"}, got); diff != "" || err != nil {
				t.Errorf("%v, -want +got:\n%s", err, diff)
			}
			// What it reads is what it asks nginx for.
			for _, line := range test.lines {
				if name, _, _ := strings.Cut(line, ":"); !slices.ContainsFunc(c.Headers, func(h RequestHeader) bool { return h.Name == name }) {
					t.Errorf("%s is not among %+v", name, c.Headers)
				}
			}
		})
	}
}

func TestCertificateFindsNothing(t *testing.T) {
	c, err := NewCertificate(CertificateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name  string
		lines []string
	}{
		{"no TLS", nil},
		{"no certificate", []string{"X-Securefiles-Client-Verify: NONE"}},
		{"names without a verdict", []string{"X-Securefiles-Client-Dn: CN=root"}},
		{"a verdict with underscores", []string{"X_Securefiles_Client_Verify: SUCCESS", "X-Securefiles-Client-Dn: CN=root"}},
		{"a name with no certificate", []string{"X-Securefiles-Client-Verify: NONE", "X-Securefiles-Client-Dn: CN=root"}},
	} {
		if p, err := c.Authenticate(t.Context(), request(t, test.lines...)); !errors.Is(err, authz.ErrNoCredentials) || p.Subject != "" {
			t.Errorf("%s: got %+v, %v", test.name, p, err)
		}
	}
}

// S9, S16, S21
func TestCertificateRefuses(t *testing.T) {
	const again = ": print its configuration again with `securefiles nginx`"
	const dnSays, notPart = "the distinguished name ", "has a part that is not TYPE=VALUE"
	cert := func(c x509.Certificate) []string {
		return []string{success, "X-Securefiles-Client-Certificate: " + escaped(t, c)}
	}
	one := cert(x509.Certificate{EmailAddresses: []string{"alice@example.org"}})
	email := CertificateOptions{Subject: "email"}
	for _, test := range []struct {
		name  string
		opts  CertificateOptions
		lines []string
		want  string
	}{
		{"one that is not verified", CertificateOptions{}, []string{"X-Securefiles-Client-Verify: FAILED:unable to get local issuer certificate", "X-Securefiles-Client-Dn: CN=root"}, "nginx has not verified the certificate"},
		{"a verdict in another case", CertificateOptions{}, []string{"X-Securefiles-Client-Verify: success", "X-Securefiles-Client-Dn: CN=root"}, "nginx has not verified the certificate"},
		{"two verdicts", CertificateOptions{}, append(dn("CN=root"), "X-Securefiles-Client-Verify: SUCCESS"), HeaderVerify + " came more than once"},
		{"two verdicts in two spellings", CertificateOptions{}, append(dn("CN=root"), "X_Securefiles_Client_Verify: NONE"), HeaderVerify + " came more than once"},
		{"two names", CertificateOptions{}, append(dn("CN=alice"), "X-Securefiles-Client-Dn: CN=root"), HeaderDN + " came more than once"},
		{"no name", CertificateOptions{}, []string{success}, "nginx did not send " + HeaderDN + again},
		{"no certificate", email, []string{success}, "nginx did not send " + HeaderCertificate + again},
		{"a long name", CertificateOptions{}, dn("CN=" + strings.Repeat("a", 4096)), HeaderDN + " is longer than 4096 bytes"},
		{"a long certificate", email, []string{success, "X-Securefiles-Client-Certificate: " + strings.Repeat("a", 32769)}, HeaderCertificate + " is longer than 32768 bytes"},
		{"no common name", CertificateOptions{}, dn("O=x"), "the certificate has 0 of the kind common name, not one"},
		{"two common names", CertificateOptions{}, dn("CN=alice,CN=root"), "the certificate has 2 of the kind common name, not one"},
		{"two common names, one by number", CertificateOptions{}, dn("CN=alice+2.5.4.3=root"), "the certificate has 2 of the kind common name, not one"},
		{"two common names, one in small letters", CertificateOptions{}, dn("CN=alice,cn=root"), "the certificate has 2 of the kind common name, not one"},
		{"two emails", email, cert(x509.Certificate{EmailAddresses: []string{"a@x", "b@x"}}), "the certificate has 2 of the kind email, not one"},
		{"no DNS name", CertificateOptions{Subject: "dns"}, one, "the certificate has 0 of the kind DNS name, not one"},
		{"no URI", CertificateOptions{Subject: "uri"}, one, "the certificate has 0 of the kind URI, not one"},
		{"an empty common name", CertificateOptions{}, dn("CN=,O=x"), "the subject is empty"},
		{"a group for a common name", CertificateOptions{}, dn("CN=@staff"), "the subject begins with @, which marks groups"},
		{"anonymous", CertificateOptions{}, dn("CN=anonymous"), "the subject is the name of callers without credentials"},
		{"NUL", CertificateOptions{}, dn(`CN=alice\00.example.org`), "the subject " + unseen},
		{"a line break", CertificateOptions{}, dn(`CN=alice\0D\0AX-Accel-Redirect: x`), "the subject " + unseen},
		{"a right-to-left override", CertificateOptions{}, dn(`CN=alice\E2\80\AE`), "the subject " + unseen},
		{"ISO 8859-1", CertificateOptions{}, dn(`CN=Andr\E9`), "the subject is not valid UTF-8"},
		{"a blank at the end", CertificateOptions{}, dn(`CN=alice\ ,O=x`), "the subject " + edges},
		{"a unit with @", CertificateOptions{Groups: "ou"}, dn("CN=alice,OU=@admin"), "a group begins with @, which marks groups"},
		{"a unit that is a built-in group", CertificateOptions{Groups: "ou"}, dn("CN=alice,OU=anyone"), "a group is one that the service gives out itself"},
		{"the old form with slashes", CertificateOptions{}, dn("/C=DE/CN=root"), dnSays + notPart},
		{"no type", CertificateOptions{}, dn("=alice"), dnSays + notPart},
		{"no equals", CertificateOptions{}, dn("alice"), dnSays + notPart},
		{"a blank behind the comma", CertificateOptions{}, dn("O=x, CN=alice"), dnSays + notPart},
		{"a comma at the end", CertificateOptions{}, dn("CN=alice,"), dnSays + "is empty, or ends before its time"},
		{"a plus at the end", CertificateOptions{}, dn("CN=alice+"), dnSays + "is empty, or ends before its time"},
		{"quotes", CertificateOptions{}, dn(`CN="alice"`), dnSays + "has a special character that is not escaped"},
		{"a semicolon", CertificateOptions{}, dn(`O=x;CN=alice`), dnSays + "has a special character that is not escaped"},
		{"a backslash at the end", CertificateOptions{}, dn(`CN=alice\`), dnSays + "has a backslash that escapes nothing"},
		{"half an escape", CertificateOptions{}, dn(`CN=alice\4`), dnSays + "has a backslash that escapes nothing"},
		{"a wrong escape", CertificateOptions{}, dn(`CN=al\zzice`), dnSays + "has a backslash that escapes nothing"},
		{"DER that is cut", CertificateOptions{}, dn(`CN=#0C05616C`), dnSays + "has a value that is no text"},
		{"DER of a number", CertificateOptions{}, dn(`CN=#020101`), dnSays + "has a value that is no text"},
		{"DER and more", CertificateOptions{}, dn(`CN=#0C0161020101`), dnSays + "has a value that is no text"},
		{"hexadecimal that is none", CertificateOptions{}, dn(`CN=#0C0`), dnSays + "has a value that is not hexadecimal"},
		{"a certificate that is not escaped", email, []string{success, "X-Securefiles-Client-Certificate: %zz"}, "the certificate is not percent-encoded"},
		{"a certificate that is none", email, []string{success, "X-Securefiles-Client-Certificate: hello"}, "the certificate is not one in PEM form"},
		{"two certificates", email, []string{success, one[1] + one[1][len("X-Securefiles-Client-Certificate: "):]}, "the certificate is not one in PEM form"},
		{"a key for a certificate", email, []string{success, strings.ReplaceAll(one[1], "CERTIFICATE", "PRIVATE%20KEY")}, "the certificate is not one in PEM form"},
		{"a certificate that cannot be read", email, []string{success, "X-Securefiles-Client-Certificate: " + strings.ReplaceAll(url.QueryEscape("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), "+", "%20")}, "the certificate cannot be read"},
	} {
		t.Run(test.name, func(t *testing.T) {
			c, err := NewCertificate(test.opts)
			if err != nil {
				t.Fatal(err)
			}
			got, err := c.Authenticate(t.Context(), request(t, test.lines...))
			wantRefused(t, got, err, authz.CredentialsError{Source: "certificate", Problem: test.want})
		})
	}
	if p, err := (&Certificate{}).Authenticate(t.Context(), request(t, dn("CN=root")...)); err == nil {
		t.Errorf("a zero Certificate accepts %v", p)
	}
}

func TestNewCertificateRefuses(t *testing.T) {
	for _, test := range []struct {
		opts CertificateOptions
		want string
	}{
		{CertificateOptions{Subject: "CN"}, `subject: "CN" is not one of cn, dn, email, dns, uri`},
		{CertificateOptions{Groups: "o"}, `groups: "o" is not one of ou`},
	} {
		if c, err := NewCertificate(test.opts); c != nil || message(err) != test.want {
			t.Errorf("got %v, %v, want %s", c, err, test.want)
		}
	}
}

// A name that is read and written plainly reads the same.
func FuzzDN(f *testing.F) {
	for _, seed := range []string{
		"CN=alice,O=Example", `CN=Doe\, Jane+UID=7,O=x`, "CN=#0C05616C696365", `CN=M\C3\BCller`, `CN=a\`, "CN=a,", ",", "=", `CN=\#x`, `CN=a\ `, "2.5.4.3=x", `CN=\00`, "/CN=x",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		names, err := parseDN(text)
		if err != nil {
			if names != nil {
				t.Fatalf("%q: an error beside %q", text, names)
			}
			return
		}
		var parts []string
		for _, a := range names {
			if a.kind == "" || strings.ContainsAny(a.kind, ",+=\\") {
				t.Fatalf("%q has the type %q", text, a.kind)
			}
			var value strings.Builder
			for _, b := range []byte(a.value) {
				fmt.Fprintf(&value, `\%02X`, b)
			}
			parts = append(parts, a.kind+"="+value.String())
		}
		again, err := parseDN(strings.Join(parts, ","))
		if err != nil || fmt.Sprint(again) != fmt.Sprint(names) {
			t.Fatalf("%q became %q, then %q: %v", text, names, again, err)
		}
	})
}

func BenchmarkCertificate(b *testing.B) {
	lines := append(dn("CN=alice,OU=staff,O=Example"), "X-Securefiles-Client-Certificate: "+escaped(b, x509.Certificate{EmailAddresses: []string{"alice@example.org"}}))
	r := request(b, lines...)
	for _, subject := range []string{SubjectCN, SubjectEmail} {
		b.Run(subject, func(b *testing.B) {
			c, err := NewCertificate(CertificateOptions{Subject: subject, Groups: GroupsOU})
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				if _, err := c.Authenticate(b.Context(), r); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
