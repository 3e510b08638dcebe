// Package identity finds out who asks for a download.
//
// Each source is an [authz.Authenticator]: [Header] takes the word of nginx,
// [Basic] checks a password against an htpasswd file, [JWT] a signed token
// against an issuer's [Keys], [Session] asks an application who is logged in. A
// [Chain] asks them in order. A source tells three things apart, as authz asks of it: not mine,
// mine and wrong, could not tell.
//
// identity does not protect against whoever reaches the listener without
// nginx: they can write any header. It does not protect against guessing: a
// weak password falls to patience, and limits belong before it.
package identity

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"unicode"
	"unicode/utf8"

	"securefiles/authz"
)

// A Chain asks its sources in order. The first that finds credentials decides,
// whether they are right, wrong or cannot be checked: bad credentials never
// fall through to the next source. An empty Chain finds none.
type Chain []authz.Authenticator

// Authenticate returns what the first source says that finds credentials, or
// authz.ErrNoCredentials if none does.
func (c Chain) Authenticate(ctx context.Context, r *http.Request) (authz.Principal, error) {
	return c.Trace(ctx, r, func(int, authz.Principal, error) {})
}

// Trace is Authenticate, and tells saw what each source said that was asked, by
// its place in the chain.
func (c Chain) Trace(ctx context.Context, r *http.Request, saw func(int, authz.Principal, error)) (authz.Principal, error) {
	for i, source := range c {
		p, err := source.Authenticate(ctx, r)
		saw(i, p, err)
		if errors.Is(err, authz.ErrNoCredentials) {
			continue
		}
		if err != nil {
			return authz.Principal{}, err
		}
		return p, nil
	}
	return authz.Principal{}, authz.ErrNoCredentials
}

// A wrong says what is wrong with credentials, for the operator's log: it
// quotes no byte of them.
type wrong string

func (w wrong) Error() string { return string(w) }

// schemeValue returns what stands in an Authorization header behind the name of
// a scheme, or authz.ErrNoCredentials where there is none or another scheme
// (RFC 9110 section 11.4). Its other errors quote nothing.
func schemeValue(value, name string) (string, error) {
	if value == "" {
		return "", authz.ErrNoCredentials
	}
	scheme, rest := value, ""
	if end := strings.IndexFunc(value, func(r rune) bool { return !isSchemeRune(r) }); end >= 0 {
		scheme, rest = value[:end], value[end:]
	}
	switch {
	case scheme == "":
		// Nobody's credentials, but meant as some: not for anonymous.
		return "", errors.New("the Authorization header has no scheme")
	case !strings.EqualFold(scheme, name):
		return "", authz.ErrNoCredentials
	case !strings.HasPrefix(rest, " "):
		return "", errors.New("the scheme is not followed by a blank and credentials")
	}
	return strings.TrimLeft(rest, " "), nil
}

// isSchemeRune reports whether the name of a scheme may hold r. RFC 9110 allows
// more, but no registered name uses it.
func isSchemeRune(r rune) bool {
	return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || r == '-'
}

// maxNameBytes bounds subjects and groups.
const maxNameBytes = 256

// ValidSubject says why a source may not vouch for the subject, or returns
// nil. The message is a predicate (`is empty`) and quotes nothing.
//
// A subject is 1 to 256 bytes of UTF-8 in printable characters and inner
// blanks. What cannot be seen is refused (control, format, bidirectional and
// zero-width characters, blanks other than U+0020): two subjects must not
// differ in that alone. It does not begin with `@`, which marks groups,
// and is not `anonymous`. Subjects are compared byte for byte: no case folding
// and no Unicode normalisation, here or in policy.
func ValidSubject(subject string) error {
	if subject == authz.Anonymous {
		return errors.New("is the name of callers without credentials")
	}
	return validName(subject)
}

// validName checks what subjects and groups have in common.
func validName(name string) error {
	switch {
	case name == "":
		return errors.New("is empty")
	case len(name) > maxNameBytes:
		return errors.New("is longer than 256 bytes")
	case !utf8.ValidString(name):
		return errors.New("is not valid UTF-8")
	case name[0] == '@':
		return errors.New("begins with @, which marks groups")
	case name[0] == ' ' || name[len(name)-1] == ' ':
		return errors.New("begins or ends with a blank")
	case strings.ContainsFunc(name, isUnseen):
		return errors.New("holds a character that cannot be seen")
	}
	return nil
}

// maxGroups bounds the groups of one request.
const maxGroups = 256

var errTooManyGroups = errors.New("there are more than 256 groups")

// groupNames returns the groups as policies have them, `@staff` for `staff`.
// The error quotes nothing.
func groupNames(names []string) ([]string, error) {
	if len(names) > maxGroups {
		return nil, errTooManyGroups
	}
	var groups []string
	for _, name := range names {
		if err := validName(name); err != nil {
			return nil, fmt.Errorf("a group %w", err)
		}
		group := "@" + name
		if group == authz.GroupAnyone || group == authz.GroupAuthenticated {
			return nil, errors.New("a group is one that the service gives out itself")
		}
		groups = append(groups, group)
	}
	return groups, nil
}

// isUnseen reports whether r shows nothing. Go's IsPrint refuses
// control and format characters and every blank but U+0020; the tables add
// letters and marks that Unicode asks renderers to ignore (Hangul fillers,
// U+034F, variation selectors).
func isUnseen(r rune) bool {
	return !unicode.IsPrint(r) || unicode.In(r, unicode.Other_Default_Ignorable_Code_Point, unicode.Variation_Selector)
}
