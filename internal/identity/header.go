package identity

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"

	"securefiles/authz"
)

// sourceHeader names the source in metrics.
const sourceHeader = "header"

// HeaderOptions name the headers that nginx sets. Names are letters, digits
// and `-`, because nginx drops others from clients by default
// (underscores_in_headers, ignore_invalid_headers), and are none that HTTP or
// the exchange with nginx gives a meaning.
type HeaderOptions struct {
	// Header carries the subject.
	Header string
	// GroupsHeader carries the subject's groups, separated by commas and
	// without the leading `@`; empty for none. A group that holds a comma,
	// as an LDAP name does, cannot be sent.
	GroupsHeader string
	// Value and GroupsValue are the web server's variables that hold the two,
	// for the configuration that is printed for it: `$ssl_client_s_dn`. Empty
	// means none: the header is cleared there.
	Value, GroupsValue string
	// GroupsOptional says that a caller without a GroupsHeader has no groups.
	// nginx sends no header that is empty.
	GroupsOptional bool
}

// A Header takes the subject from a request header that nginx has set. It
// trusts it: nginx must overwrite what the client sent, also where it has
// nothing to say. The zero Header never finds credentials.
type Header struct {
	subject, groups string // canonical names
	groupsOptional  bool
}

// variableForm is the form of a web server's variable.
var variableForm = regexp.MustCompile(`^\$[a-z][a-z0-9_]*$`)

// NewHeader returns an error that joins an *OptionError for each option that
// cannot be.
func NewHeader(opts HeaderOptions) (*Header, error) {
	var p problems
	if err := validHeaderName(opts.Header); err != nil {
		p.add("header", "%q %v", opts.Header, err)
	}
	h := &Header{subject: http.CanonicalHeaderKey(opts.Header), groupsOptional: opts.GroupsOptional}
	if opts.GroupsHeader != "" {
		h.groups = http.CanonicalHeaderKey(opts.GroupsHeader)
		if err := validHeaderName(opts.GroupsHeader); err != nil {
			p.add("groups_header", "%q %v", opts.GroupsHeader, err)
		} else if h.groups == h.subject {
			p.add("groups_header", "%q is the header of the subject: use two", opts.GroupsHeader)
		}
	}
	for _, v := range [][2]string{{"nginx_value", opts.Value}, {"nginx_groups_value", opts.GroupsValue}} {
		if v[1] == "" {
			continue
		}
		switch name, _ := strings.CutPrefix(v[1], "$"); {
		case !variableForm.MatchString(v[1]):
			p.add(v[0], "%q is not an nginx variable such as $ssl_client_s_dn", v[1])
		case isNginxVariable(name) && !slices.Contains(verifiedVariables(), name):
			p.add(v[0], "%q is what the client says, or says nothing of who asks: name what nginx has verified ($%s), or a variable of your own, made with a map as docs/identity.md shows",
				v[1], strings.Join(verifiedVariables(), ", $"))
		}
	}
	if err := p.err(); err != nil {
		return nil, err
	}
	return h, nil
}

// NewHeaderSource returns NewHeader's with all that others need to know of it.
func NewHeaderSource(opts HeaderOptions) (*Source, error) {
	h, err := NewHeader(opts)
	if err != nil {
		return nil, err
	}
	s := &Source{
		Authenticator: h, Name: sourceHeader, Place: opts.Header, Reads: []string{h.subject},
		Headers: []RequestHeader{{Name: opts.Header, Value: opts.Value}},
	}
	switch {
	case strings.HasPrefix(opts.Value, "$ssl_client_"):
		s.Authority = certificateAuthority
	case opts.Value != "":
		s.Authority = "whoever sets nginx's " + opts.Value
	default:
		s.Authority = "whoever sets " + h.subject
	}
	if h.groups != "" {
		s.Headers = append(s.Headers, RequestHeader{Name: opts.GroupsHeader, Value: opts.GroupsValue})
	}
	return s, nil
}

// Authenticate returns the subject and groups of the headers. No header, or an
// empty one, is authz.ErrNoCredentials; groups without a subject count for
// nothing. A second value, also under another spelling that some server folds
// into the same name, is an *authz.CredentialsError: it came past nginx. So is
// a subject that ValidSubject refuses and a list of groups that does not parse. All
// are final. No header of groups, where one is expected, is an *authz.UnavailableError.
func (h *Header) Authenticate(_ context.Context, q *authz.Question) (authz.Principal, error) {
	subject, err := onlyValue(q.Header, h.subject)
	if err != nil {
		return h.refuse(err)
	}
	if subject == "" {
		return authz.Principal{}, authz.ErrNoCredentials
	}
	if err := authz.ValidSubject(subject); err != nil {
		return h.refuse(fmt.Errorf("the subject %w", err))
	}
	list, err := onlyValue(q.Header, h.groups)
	if err != nil {
		return h.refuse(err)
	}
	if h.groups != "" && len(q.Header[h.groups]) == 0 && !h.groupsOptional {
		return authz.Principal{}, noGroups(sourceHeader, h.groups+" did not come (nginx sends none that is empty)")
	}
	groups, err := parseGroups(list)
	if err != nil {
		return h.refuse(err)
	}
	return authz.Principal{Subject: subject, Groups: groups, Source: sourceHeader}, nil
}

func (h *Header) refuse(err error) (authz.Principal, error) {
	bad := refused(sourceHeader, err)
	bad.Final = true // the web server would say the same again
	return authz.Principal{}, bad
}

// parseGroups takes `staff, sales` apart into `@staff` and `@sales`.
func parseGroups(list string) ([]string, error) {
	if list == "" {
		return nil, nil
	}
	if strings.Count(list, ",") >= maxGroups {
		return nil, errTooManyGroups
	}
	names := strings.Split(list, ",")
	for i := range names {
		names[i] = strings.Trim(names[i], " \t")
	}
	return groupNames(names)
}

// onlyValue returns the value of a header that must come once, or "" where it
// did not come. It counts every spelling that differs in case or in `_` for
// `-`: applications behind CGI-like gateways cannot tell them apart, so a
// second one is a forgery even if nobody here would read it. A wrong spelling
// alone has no effect. The name is canonical.
func onlyValue(h http.Header, name string) (string, error) {
	values := h[name]
	if len(values) == 0 {
		return "", nil
	}
	count := 0
	for key, v := range h {
		if sameHeader(key, name) {
			count += len(v)
		}
	}
	if count > 1 {
		return "", fmt.Errorf("%s came more than once", name)
	}
	return values[0], nil
}

// sameHeader reports whether two header names fold to one. Both are ASCII:
// net/http accepts nothing else.
func sameHeader(a, b string) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range len(a) {
		if foldHeaderByte(a[i]) != foldHeaderByte(b[i]) {
			return false
		}
	}
	return true
}

func foldHeaderByte(c byte) byte {
	switch {
	case c == '_':
		return '-'
	case 'A' <= c && c <= 'Z':
		return c + ('a' - 'A')
	}
	return c
}

// validHeaderName says why a header cannot carry an identity, or returns nil.
func validHeaderName(name string) error {
	if name == "" {
		return errors.New("is missing")
	}
	for i := range len(name) {
		c := foldHeaderByte(name[i])
		isLetter := 'a' <= c && c <= 'z'
		isInner := '0' <= c && c <= '9' || name[i] == '-'
		if !isLetter && (!isInner || i == 0) {
			return errors.New("is not a header name that nginx passes on: a letter, then letters, digits and -")
		}
	}
	if isReservedHeader(strings.ToLower(name)) {
		return errors.New("has another meaning: use one of its own, such as X-Remote-User")
	}
	return nil
}

// isReservedHeader reports whether HTTP, browsers, proxies or the exchange
// with nginx use the header: its value is not nginx's word on who asks, or
// nginx sends it with every request. The name is in lower case.
func isReservedHeader(name string) bool {
	for _, prefix := range []string{
		"x-original-", "x-securefiles-", "x-accel-", "x-forwarded-",
		"accept", "access-control-", "content-", "if-", "proxy-", "sec-",
	} {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	switch name {
	case "x-real-ip", "x-request-id", "forwarded", "via",
		"authorization", "cookie", "host", "origin", "referer", "user-agent", "from",
		"connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade",
		"cache-control", "date", "expect", "max-forwards", "pragma", "range":
		return true
	}
	return false
}
