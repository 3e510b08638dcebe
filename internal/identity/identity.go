// Package identity finds out who asks for a download.
//
// Each source is an [authz.Authenticator]: [Header] takes the word of nginx,
// [Basic] checks a password against an htpasswd file. A [Chain] asks them in
// order. A source tells three things apart, as authz asks of it: not mine,
// mine and wrong, could not tell.
//
// identity does not protect against whoever reaches the listener without
// nginx: they can write any header. It does not protect against guessing: a
// weak password falls to patience, and limits belong before it.
package identity

import (
	"context"
	"errors"
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
	for _, source := range c {
		p, err := source.Authenticate(ctx, r)
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

// isUnseen reports whether r shows nothing. Go's IsPrint refuses
// control and format characters and every blank but U+0020; the tables add
// letters and marks that Unicode asks renderers to ignore (Hangul fillers,
// U+034F, variation selectors).
func isUnseen(r rune) bool {
	return !unicode.IsPrint(r) || unicode.In(r, unicode.Other_Default_Ignorable_Code_Point, unicode.Variation_Selector)
}
