// Package identity finds out who asks for a download.
//
// Each source is an [authz.Authenticator]: [Header] takes the word of nginx, and
// [Certificate] what it says of a client's certificate; [Basic] checks a password
// against an htpasswd file, [JWT] a signed token against an issuer's [Keys];
// [Session] asks an application who is logged in. A source tells three things
// apart, as authz asks of it: not mine, mine and wrong, could not tell. [Sources]
// is the list of them, each a [Source] with all that the rest of the service
// needs to know; a [Chain] asks them in order.
//
// identity does not protect against whoever reaches the listener without
// nginx: they can write any header. It does not protect against guessing: a
// weak password falls to patience, and limits belong before it.
package identity

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"securefiles/authz"
)

// A Chain asks its sources in order. The first that finds credentials decides,
// whether they are right, wrong or cannot be checked: bad credentials never
// fall through to the next source. An empty Chain finds none.
type Chain []authz.Authenticator

// Authenticate returns what the first source says that finds credentials, or
// authz.ErrNoCredentials if none does.
func (c Chain) Authenticate(ctx context.Context, q *authz.Question) (authz.Principal, error) {
	return c.Traced(func(int, error) {}).Authenticate(ctx, q)
}

// Traced returns the chain as it is, but it tells saw how each source ended that
// was asked, by its place in the chain.
func (c Chain) Traced(saw func(i int, err error)) authz.Authenticator { return traced{c, saw} }

type traced struct {
	chain Chain
	saw   func(int, error)
}

// Authenticate is Chain's.
func (t traced) Authenticate(ctx context.Context, q *authz.Question) (authz.Principal, error) {
	for i, source := range t.chain {
		p, err := source.Authenticate(ctx, q)
		t.saw(i, err)
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

// truth is a truth as a number.
func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// badCredentials say what is wrong with credentials, for the operator's log: it
// quotes no byte of them.
type badCredentials string

func (b badCredentials) Error() string { return string(b) }

// tooLarge says which credentials are. It quotes no byte of them.
type tooLarge string

func (t tooLarge) Error() string { return string(t) }

// errCookieTwice is final: a login sets one of the two anew, and the other stays.
var errCookieTwice = errors.New("the cookie came more than once")

// refused makes of what is wrong with credentials what authz asks for.
func refused(source string, err error) *authz.CredentialsError {
	large := errors.As(err, new(tooLarge))
	return &authz.CredentialsError{Source: source, Problem: err.Error(), Final: large || errors.Is(err, errCookieTwice), Forbidden: large}
}

// unfit says that the credentials are right, and that the subject or a group that
// they name is none that a source may give.
func unfit(source string, problem error) error {
	return &unfitError{authz.CredentialsError{Source: source, Problem: problem.Error()}}
}

// An unfitError is authz.ErrReservedSubject, and says where and why.
type unfitError struct{ bad authz.CredentialsError }

func (e *unfitError) Error() string   { return e.bad.Error() }
func (e *unfitError) Unwrap() []error { return []error{authz.ErrReservedSubject, &e.bad} }

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

// maxGroups bounds the groups of one request.
const maxGroups = 256

var errTooManyGroups = errors.New("there are more than 256 groups")

// GroupsOptional says that whose groups are missing has none. It is what a source
// may be told of credentials, or of an answer, that do not say which groups their
// owner has: without it nobody can tell, because a line of the policy that denies a
// group would miss somebody of it.
const GroupsOptional = "optional"

// noGroups says that the groups are missing, and where they should be. It quotes
// nothing.
func noGroups(source, where string) error {
	return &authz.UnavailableError{Source: source, Err: fmt.Errorf("nobody can tell which groups the caller has: %s; set groups: optional if that means none", where)}
}

// groupNames returns the groups as policies have them, `@staff` for `staff`.
// The error quotes nothing.
func groupNames(names []string) ([]string, error) {
	if len(names) > maxGroups {
		return nil, errTooManyGroups
	}
	var groups []string
	for _, name := range names {
		if err := authz.ValidGroup(name); err != nil {
			return nil, fmt.Errorf("a group %w", err)
		}
		groups = append(groups, "@"+name)
	}
	return groups, nil
}
