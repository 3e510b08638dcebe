package authz

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxNameBytes bounds subjects and groups.
const maxNameBytes = 256

// ValidSubject says why a source may not vouch for the subject, or returns
// nil. The message is a predicate (`is empty`) and quotes nothing.
//
// A subject is 1 to 256 bytes of UTF-8 in printable characters and inner
// blanks. What cannot be seen is refused (control, format, bidirectional and
// zero-width characters, blanks other than U+0020): two subjects must not
// differ in that alone. It does not begin with `@`, which marks groups, nor with
// `role:`, which marks roles, and is not `anonymous`. Subjects are compared byte for byte: no case folding
// and no Unicode normalisation, here or in policy.
func ValidSubject(subject string) error {
	if subject == Anonymous {
		return errors.New("is the name of callers without credentials")
	}
	return validName(subject)
}

// ValidGroup says why a source may not give the group, which has no leading `@`
// yet, or returns nil. What holds for a subject holds for a group, but it may be
// called `anonymous`, and is none of the built-in groups.
func ValidGroup(name string) error {
	if IsBuiltinGroup("@" + name) {
		return errors.New("is one that the service gives out itself")
	}
	return validName(name)
}

// IsBuiltinGroup reports whether the service itself gives out the group.
func IsBuiltinGroup(group string) bool {
	return group == GroupAnyone || group == GroupAuthenticated || group == GroupLink
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
	case strings.HasPrefix(name, RolePrefix):
		return errors.New("begins with role:, which marks roles")
	case name[0] == ' ' || name[len(name)-1] == ' ':
		return errors.New("begins or ends with a blank")
	case strings.ContainsFunc(name, IsUnseen):
		return errors.New("holds a character that cannot be seen")
	}
	return nil
}

// IsUnseen reports whether r shows nothing, so that no name may hold it. Go's IsPrint refuses
// control and format characters and every blank but U+0020; the tables add
// letters and marks that Unicode asks renderers to ignore (Hangul fillers,
// U+034F, variation selectors).
func IsUnseen(r rune) bool {
	if r < 0x7f {
		return r < ' '
	}
	return !unicode.IsPrint(r) || unicode.In(r, unicode.Other_Default_Ignorable_Code_Point, unicode.Variation_Selector)
}

// NewPrincipal returns whom the service would ask for when a source vouches for
// the subject with these groups, with or without `@`: the built-in groups are
// added. The subject may be Anonymous, which has no groups of its own.
func NewPrincipal(subject string, groups []string) (Principal, error) {
	if subject == Anonymous {
		if len(groups) > 0 {
			return Principal{}, errors.New("anonymous has no groups beside @anyone: leave them out")
		}
		return AnonymousPrincipal(), nil
	}
	if err := ValidSubject(subject); err != nil {
		return Principal{}, fmt.Errorf("subject %q: %w", subject, err)
	}
	p := Principal{Subject: subject}
	for _, g := range groups {
		name := strings.TrimPrefix(g, "@")
		if err := validName(name); err != nil {
			return Principal{}, fmt.Errorf("group %q: %w", g, err)
		}
		p.Groups = append(p.Groups, "@"+name)
	}
	return p.WithBuiltinGroups(), nil
}

// AnonymousPrincipal returns the principal of a request without credentials.
func AnonymousPrincipal() Principal {
	return Principal{Subject: Anonymous, Groups: []string{GroupAnyone}}
}

// WithBuiltinGroups returns the principal of a verified subject with the groups
// that every such principal has.
func (p Principal) WithBuiltinGroups() Principal {
	groups := make([]string, 0, len(p.Groups)+3)
	p.Groups = append(append(groups, p.Groups...), GroupAnyone, GroupAuthenticated)
	if p.Scope != nil {
		p.Groups = append(p.Groups, GroupLink)
	}
	return p
}
