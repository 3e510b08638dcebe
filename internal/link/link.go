// Package link makes and verifies links: the URL of a file with one parameter,
// `?link=TOKEN`, by which whoever has it gets what its maker may have.
//
// The token is a signed JWT in its compact form (RFC 7515, RFC 7519), of a type of its
// own, so that an application makes one with the library that it has. A link is a
// credential: its principal is the maker, its scope what it names, and policy is asked
// about both at each use.
//
// link does not protect a link from whoever gets to see it, nor against whoever has a
// key to sign with.
package link

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/maypok86/otter/v2"

	"securefiles/authz"
)

// Parameter is the query parameter that holds the token.
const Parameter = "link"

// Limits of what a link may say.
const (
	// MaxToken is how long a token may be, in bytes: nginx reads 8 KiB of a request line.
	MaxToken = 4096
	// DefaultMaxTTL is how long a link lasts at most where nothing else is configured.
	DefaultMaxTTL = 7 * 24 * time.Hour
	// skew is by how much the clock of whoever makes links may be ahead.
	skew = time.Minute
	// maxRemembered is how many verified tokens are kept.
	maxRemembered = 10_000
)

// Options are what Links can do without.
type Options struct {
	// MaxTTL is the longest that a link may last, from `iat` to `exp`; zero means
	// DefaultMaxTTL.
	MaxTTL time.Duration
	// Unreported are the downloads whose web servers tell nothing of what they send, and
	// hold to no rate, by name: no link for them is counted, or has a rate.
	Unreported []string
	// Store keeps which links were ended, and what counted ones were used for. Nil ends
	// none, and a link that is counted or has a password opens nothing.
	Store Store
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// Links find out who made the link that a request carries. They are safe for
// concurrent use.
type Links struct {
	keys       *Keys
	opts       Options
	remembered *otter.Cache[[sha256.Size]byte, remembered]
}

// A remembered token was verified with the keys of a generation.
type remembered struct {
	claims     *Claims
	principal  authz.Principal
	generation uint64
}

// New returns links that are signed with the keys.
func New(keys *Keys, opts *Options) (*Links, error) {
	if keys == nil {
		return nil, errors.New("links need keys")
	}
	l := &Links{keys: keys}
	if opts != nil {
		l.opts = *opts
	}
	if l.opts.MaxTTL == 0 {
		l.opts.MaxTTL = DefaultMaxTTL
	}
	if l.opts.Now == nil {
		l.opts.Now = time.Now
	}
	var err error
	l.remembered, err = otter.New(&otter.Options[[sha256.Size]byte, remembered]{MaximumSize: maxRemembered})
	if err != nil {
		return nil, fmt.Errorf("make the cache of verified links: %w", err)
	}
	return l, nil
}

// With returns the same links, with a store for what they are used for.
func (l *Links) With(store Store) *Links {
	other := *l
	other.opts.Store = store
	return &other
}

// Authenticate returns who made the link, with what it opens as the principal's scope.
// No link is authz.ErrNoCredentials; one that is none, or none at this time, is an
// *authz.LinkError.
func (l *Links) Authenticate(ctx context.Context, q *authz.Question) (authz.Principal, error) {
	token, err := Token(q.Target)
	if err != nil {
		return authz.Principal{}, err
	}
	claims, principal, err := l.verify(token)
	if err != nil {
		return authz.Principal{}, err
	}
	if err := l.check(ctx, claims); err != nil {
		return authz.Principal{}, err
	}
	return principal, nil
}

// Read returns what a token claims whose signature is good, whatever time it is.
func (l *Links) Read(token string) (*Claims, error) {
	claims, _, err := l.verify(token)
	return claims, err
}

func (l *Links) verify(token string) (*Claims, authz.Principal, error) {
	set := l.keys.set.Load()
	if set == nil {
		return nil, authz.Principal{}, &authz.UnavailableError{Source: authz.SourceLink, Err: errors.New("the keys of links are not loaded")}
	}
	sum := sha256.Sum256([]byte(token))
	if r, ok := l.remembered.GetIfPresent(sum); ok && r.generation == set.generation {
		return r.claims, r.principal, nil
	}
	claims, err := set.verify(token)
	if err != nil {
		return nil, authz.Principal{}, err
	}
	if ttl := claims.Expires.Sub(claims.Issued); ttl > l.opts.MaxTTL {
		return nil, authz.Principal{}, refused(claims.ID, "it lasts longer (%s) than links.max_ttl permits (%s)", ttl, l.opts.MaxTTL)
	}
	principal := authz.Principal{Subject: claims.Subject, Source: authz.SourceLink, Scope: claims.scope()}
	for _, g := range claims.Groups {
		principal.Groups = append(principal.Groups, "@"+g)
	}
	l.remembered.Set(sum, remembered{claims, principal, set.generation})
	if l.opts.Store != nil {
		l.opts.Store.Seen(claims.Kept())
	}
	return claims, principal, nil
}

// check says why a link is none at this time.
func (l *Links) check(ctx context.Context, c *Claims) error {
	now := l.opts.Now()
	switch {
	case !now.Before(c.Expires):
		return &authz.LinkError{Reason: authz.ReasonExpired, ID: c.ID, Page: authz.PageEnded, Problem: "it has expired"}
	case now.Before(c.NotBefore):
		return &authz.LinkError{Reason: authz.ReasonNotYet, ID: c.ID, Problem: "its time has not come"}
	case c.Issued.After(now.Add(skew)):
		return &authz.LinkError{Reason: authz.ReasonNotYet, ID: c.ID, Problem: "it was made in the future: is the clock of whoever makes links ahead?"}
	case l.opts.Store == nil:
		return nil
	}
	revoked, err := l.opts.Store.IsRevoked(ctx, c.Kept())
	if err != nil {
		return &authz.UnavailableError{Source: authz.SourceLink, Err: fmt.Errorf("ask whether the link was ended: %w", err)}
	}
	if revoked {
		return &authz.LinkError{Reason: authz.ReasonRevoked, ID: c.ID, Page: authz.PageEnded, Problem: "it was revoked"}
	}
	return nil
}

// refused says that a token is no link.
func refused(id, format string, args ...any) error {
	return &authz.LinkError{Reason: authz.ReasonSignature, ID: id, Problem: fmt.Sprintf(format, args...)}
}

// Token returns the token of a raw request target: the value of its parameter `link`,
// as it stands. None is authz.ErrNoCredentials; two are an *authz.LinkError. Other
// parameters are nobody's business, and so is one whose name is written in another way.
func Token(target string) (string, error) {
	_, query, _ := strings.Cut(target, "?")
	token, found := "", false
	for query != "" {
		var one string
		one, query, _ = strings.Cut(query, "&")
		name, value, _ := strings.Cut(one, "=")
		if name != Parameter {
			continue
		}
		if found {
			return "", refused("", "the parameter link is there twice")
		}
		token, found = value, true
	}
	if !found {
		return "", authz.ErrNoCredentials
	}
	return token, nil
}
