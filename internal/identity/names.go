package identity

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"securefiles/authz"
)

// prefixForm keeps prefixes from running into each other: a name has one colon that
// ends a prefix, its first.
var prefixForm = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,31}:$`)

// ValidPrefix says why the names of a source cannot have a prefix, or returns nil.
// Empty is none. The message is a predicate.
func ValidPrefix(prefix string) error {
	switch {
	case strings.EqualFold(prefix, authz.RolePrefix):
		return errors.New("is what roles of a policy begin with: use another, such as \"users:\"")
	case prefix != "" && !prefixForm.MatchString(prefix):
		return errors.New("is not a prefix: a letter or digit, then letters, digits and ._- up to 32 in all, and a colon, such as \"forum:\"")
	}
	return nil
}

// named has a source's names stand in policies under its prefix, and refuses those
// under a prefix of another source: whoever may choose a name there, as in a forum,
// would be whom he likes here.
type named struct {
	*Source
	others []string // prefixes
}

// Authenticate is the source's. A name that it may not give is
// authz.ErrReservedSubject.
func (n named) Authenticate(ctx context.Context, q *authz.Question) (authz.Principal, error) {
	p, err := n.Authenticator.Authenticate(ctx, q)
	if err != nil {
		return authz.Principal{}, err
	}
	if n.belongsToAnother(p.Subject) {
		return n.refuse("the subject")
	}
	groups := make([]string, len(p.Groups)) // those that are remembered stay as they are
	for i, g := range p.Groups {
		name, isGroup := strings.CutPrefix(g, "@")
		if n.belongsToAnother(name) {
			return n.refuse("a group")
		}
		if groups[i] = g; isGroup { // what is none is refused by authz
			groups[i] = "@" + n.Prefix + name
		}
	}
	p.Subject = n.Prefix + p.Subject
	if p.Groups != nil {
		p.Groups = groups
	}
	return p, nil
}

// belongsToAnother reports whether a name, once it has the source's own prefix, begins
// with another's.
func (n named) belongsToAnother(name string) bool {
	for _, prefix := range n.others {
		if strings.HasPrefix(n.Prefix+name, prefix) {
			return true
		}
	}
	return false
}

func (n named) refuse(what string) (authz.Principal, error) {
	return authz.Principal{}, unfit(n.Name, errors.New(what+" begins with the prefix of another source"))
}

// named returns the source as the list has it.
func (s Sources) named(source *Source) authz.Authenticator {
	n := named{Source: source}
	for _, other := range s {
		if other.Prefix != "" && other.Prefix != source.Prefix {
			n.others = append(n.others, other.Prefix)
		}
	}
	if source.Prefix == "" && n.others == nil {
		return source
	}
	return n
}

// SharedNames returns of each source that gives names in the name space of an earlier
// one, and is of another authority, that it does so: `alice` of the one is `alice` of
// the other, whoever they are. Sources of one prefix share names because somebody
// wrote it twice.
func (s Sources) SharedNames() []*ConflictError {
	var shared []*ConflictError
	for i, source := range s {
		for k, earlier := range s[:i] {
			if source.Prefix == "" && earlier.Prefix == "" && source.Authority != earlier.Authority {
				shared = append(shared, &ConflictError{Index: i, Problem: fmt.Sprintf(
					"its users and groups are named by %s, those of identity[%d] by %s, in one name space: who is alice there is alice here; "+
						"give one of the two a prefix, such as prefix: \"app:\", unless both name the same people", source.Authority, k, earlier.Authority)})
				break
			}
		}
	}
	return shared
}
