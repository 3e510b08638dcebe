package pattern

import (
	"strings"
	"unicode/utf8"
)

// Anchors are what every text that a pattern matches must hold: prefix at its
// beginning and suffix at its end, or prefix and nothing else (exact). Empty
// texts ask nothing. The byte [AnyRune] stands for one character, whichever it is.
//
// They may ask too little, which costs time, and never too much.
type Anchors struct {
	Prefix, Suffix string
	Exact          bool
}

// AnyRune occurs in no valid UTF-8.
const AnyRune = 0xff

// AnySubject and AnyGroup stand in the anchors of a path for a segment that is the
// subject, or one of the groups. They occur in no path.
const (
	AnySubject = subjectMark
	AnyGroup   = groupMark
)

// unnamed returns what is left of anchors between their ends and the names.
func (a Anchors) unnamed() Anchors {
	prefix, suffix := beforeNames(a.Prefix), a.Suffix
	if i := strings.LastIndexAny(suffix, string([]byte{AnySubject, AnyGroup})); i >= 0 {
		suffix = suffix[i+1:]
	}
	return Anchors{Prefix: prefix, Suffix: suffix, Exact: a.Exact && len(prefix) == len(a.Prefix)}
}

// beforeNames returns what stands before the first mark.
func beforeNames(marked string) string {
	if i := strings.IndexAny(marked, string([]byte{AnySubject, AnyGroup})); i >= 0 {
		return marked[:i]
	}
	return marked
}

// literalAnchors are those of a pattern that begins with a text, or is one as a
// whole.
func literalAnchors(prefix string, whole bool) Anchors {
	valid := validPrefix(prefix)
	return Anchors{Prefix: prefix[:valid], Exact: whole && valid == len(prefix)}
}

func dotsToAny(s string) string {
	if strings.IndexByte(s, '.') < 0 {
		return s
	}
	return strings.ReplaceAll(s, ".", string([]byte{AnyRune}))
}

// validPrefix returns how far s is valid UTF-8 without U+FFFD: to regular
// expressions and globs alike, each byte that is not valid equals U+FFFD.
func validPrefix(s string) int {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			for j, r := range s[i:] {
				if r == utf8.RuneError {
					return i + j
				}
			}
			break
		}
	}
	return len(s)
}

// validSuffix returns from where on s is valid UTF-8 without U+FFFD.
func validSuffix(s string) int {
	valid := validPrefix(s)
	if valid == len(s) {
		return 0
	}
	_, size := utf8.DecodeRuneInString(s[valid:])
	return valid + size + validSuffix(s[valid+size:])
}
