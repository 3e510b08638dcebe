package pattern

import (
	"strings"
	"unicode/utf8"
)

// Anchors are what every text that a pattern matches must hold: prefix at its
// beginning and suffix at its end, or prefix and nothing else (exact). Empty
// texts ask nothing. The byte anyRune stands for one character, whichever it is.
//
// They may ask too little, which costs time, and never too much.
type Anchors struct {
	Prefix, Suffix string
	Exact          bool
}

// AnyRune occurs in no valid UTF-8.
const AnyRune = 0xff

// AnchorsOf returns the anchors of a pattern of one of the pattern functions.
func AnchorsOf(function, pattern string) Anchors {
	switch function {
	case "keyMatch":
		return keyMatchAnchors(pattern)
	case "keyMatch2":
		return regexAnchors(pattern, regexForm{begins: true, ends: true, slashStar: true, name: ':'})
	case "keyMatch3", "keyMatch4", "keyMatch5":
		return regexAnchors(pattern, regexForm{begins: true, ends: true, slashStar: true})
	case "globMatch":
		return globAnchors(pattern)
	case "regexMatch":
		body, begins := strings.CutPrefix(pattern, "^")
		body, ends := strings.CutSuffix(body, "$")
		return regexAnchors(body, regexForm{begins: begins, ends: ends})
	}
	return Anchors{}
}

// keyMatchAnchors: keyMatch looks at nothing behind the first *.
func keyMatchAnchors(pattern string) Anchors {
	prefix, _, star := strings.Cut(pattern, "*")
	valid := validPrefix(prefix)
	return Anchors{Prefix: prefix[:valid], Exact: !star && valid == len(pattern)}
}

// globAnchors reads a glob. A ** between slashes stands for no directory at all
// too, so a slash beside what is no letter need not be there: /a/** matches /a.
func globAnchors(pattern string) Anchors {
	first := strings.IndexAny(pattern, `*?[{\`)
	if first < 0 {
		valid := validPrefix(pattern)
		return Anchors{Prefix: pattern[:valid], Exact: valid == len(pattern)}
	}
	prefix := strings.TrimSuffix(pattern[:first], "/")
	last := strings.LastIndexAny(pattern, `*?[]{}\`)
	suffix := pattern[last+1:]
	if pattern[last] == '\\' { // the character behind it is not what it seems
		_, size := utf8.DecodeRuneInString(suffix)
		suffix = suffix[size:]
	}
	suffix = strings.TrimPrefix(suffix, "/")
	return Anchors{Prefix: prefix[:validPrefix(prefix)], Suffix: suffix[validSuffix(suffix):]}
}

// isRegexMeta reports whether a character stands for something else in a regular
// expression; the dot, which stands for one character, is not among them.
func isRegexMeta(c byte) bool {
	switch c {
	case '\\', '+', '*', '?', '(', ')', '[', ']', '{', '}', '^', '$', '|':
		return true
	}
	return false
}

// A regexForm says how a pattern becomes a regular expression.
type regexForm struct {
	begins, ends bool // it stands behind ^, before $
	slashStar    bool // /* becomes /.*
	name         byte // the character that begins a name, which goes on up to a slash; 0 is none
}

// regexAnchors reads a pattern that becomes a regular expression. The {name} of
// keyMatch3 needs no care of its own: braces end an anchor anyway.
func regexAnchors(pattern string, form regexForm) Anchors {
	first, last, lastName := len(pattern), -1, -1 // places of what is special
	dots, opaque := false, false
	for i := range len(pattern) {
		c := pattern[i]
		switch {
		case c == '|':
			return Anchors{} // ^a|b$ is anchored at neither end
		case c == '.':
			dots = true
			continue
		case c == form.name && c != 0:
			lastName = i
		case isRegexMeta(c):
			last = i
			// (?i) would make every letter behind it another one, and a
			// backslash can do anything.
			opaque = opaque || c == '(' || c == '\\'
		default:
			continue
		}
		first = min(first, i)
	}
	if first == len(pattern) && !dots && form.begins && form.ends {
		valid := validPrefix(pattern)
		return Anchors{Prefix: pattern[:valid], Exact: valid == len(pattern)}
	}
	var a Anchors
	if form.begins {
		a.Prefix = anchoredPrefix(pattern, first, form.slashStar)
	}
	if form.ends && !opaque {
		a.Suffix = anchoredSuffix(pattern, last, lastName)
	}
	return a
}

// anchoredPrefix returns what stands before the first special character.
func anchoredPrefix(pattern string, end int, slashStar bool) string {
	prefix := pattern[:end]
	if end < len(pattern) && strings.IndexByte(`*?+{(\`, pattern[end]) >= 0 {
		// A quantifier takes the last character away. So does one behind an
		// atom that leaves nothing of its own, as in A(?s)? or A\Q\E?.
		if !slashStar || pattern[end] != '*' || !strings.HasSuffix(prefix, "/") {
			_, size := utf8.DecodeLastRuneInString(prefix)
			prefix = prefix[:len(prefix)-size]
		}
	}
	return dotsToAny(prefix[:validPrefix(prefix)])
}

// anchoredSuffix returns what stands behind the last special character, and
// behind the last name.
func anchoredSuffix(pattern string, last, lastName int) string {
	begin := last + 1
	if lastName >= 0 {
		begin = max(begin, segmentEnd(pattern, lastName))
	}
	suffix := pattern[begin:]
	return dotsToAny(suffix[validSuffix(suffix):])
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
