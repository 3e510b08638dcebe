package policy

import (
	"strings"
	"unicode/utf8"
)

// anchors are what every text that a pattern matches must hold: prefix at its
// beginning and suffix at its end, or prefix and nothing else (exact). Empty
// texts ask nothing. The byte anyRune stands for one character, whichever it is.
//
// They may ask too little, which costs time, and never too much.
type anchors struct {
	prefix, suffix string
	exact          bool
}

// anyRune occurs in no valid UTF-8.
const anyRune = 0xff

// anchorsOf returns the anchors of a pattern of one of the pattern functions.
func anchorsOf(function, pattern string) anchors {
	switch function {
	case "keyMatch":
		return keyMatchAnchors(pattern)
	case "keyMatch2":
		return regexAnchors(pattern, regexForm{begins: true, ends: true, slashStar: true, names: ":"})
	case "keyMatch3", "keyMatch4", "keyMatch5":
		return regexAnchors(pattern, regexForm{begins: true, ends: true, slashStar: true})
	case "globMatch":
		return globAnchors(pattern)
	case "regexMatch":
		body, begins := strings.CutPrefix(pattern, "^")
		body, ends := strings.CutSuffix(body, "$")
		return regexAnchors(body, regexForm{begins: begins, ends: ends})
	}
	return anchors{}
}

// keyMatchAnchors: keyMatch looks at nothing behind the first *.
func keyMatchAnchors(pattern string) anchors {
	prefix, _, star := strings.Cut(pattern, "*")
	valid := validPrefix(prefix)
	return anchors{prefix: prefix[:valid], exact: !star && valid == len(pattern)}
}

// globAnchors reads a glob. A ** between slashes stands for no directory at all
// too, so a slash beside what is no letter need not be there: /a/** matches /a.
func globAnchors(pattern string) anchors {
	first := strings.IndexAny(pattern, `*?[{\`)
	if first < 0 {
		valid := validPrefix(pattern)
		return anchors{prefix: pattern[:valid], exact: valid == len(pattern)}
	}
	prefix := strings.TrimSuffix(pattern[:first], "/")
	last := strings.LastIndexAny(pattern, `*?[]{}\`)
	suffix := pattern[last+1:]
	if pattern[last] == '\\' { // the character behind it is not what it seems
		_, size := utf8.DecodeRuneInString(suffix)
		suffix = suffix[size:]
	}
	suffix = strings.TrimPrefix(suffix, "/")
	return anchors{prefix: prefix[:validPrefix(prefix)], suffix: suffix[validSuffix(suffix):]}
}

// regexMeta are the characters that stand for something else in a regular
// expression, without the dot.
const regexMeta = `\+*?()[]{}^$|`

// A regexForm says how a pattern becomes a regular expression.
type regexForm struct {
	begins, ends bool   // it stands behind ^, before $
	slashStar    bool   // /* becomes /.*
	names        string // the character that begins a name, which goes on up to a slash
}

// regexAnchors reads a pattern that becomes a regular expression. The {name} of
// keyMatch3 needs no care of its own: braces end an anchor anyway.
func regexAnchors(pattern string, form regexForm) anchors {
	if strings.IndexByte(pattern, '|') >= 0 {
		return anchors{} // ^a|b$ is anchored at neither end
	}
	var a anchors
	if !strings.ContainsAny(pattern, regexMeta+"."+form.names) && form.begins && form.ends {
		valid := validPrefix(pattern)
		return anchors{prefix: pattern[:valid], exact: valid == len(pattern)}
	}
	if form.begins {
		a.prefix = anchoredPrefix(pattern, form)
	}
	// (?i) would make every letter behind it another one, and a backslash can
	// do anything.
	if form.ends && !strings.ContainsAny(pattern, `(\`) {
		a.suffix = anchoredSuffix(pattern, form)
	}
	return a
}

func anchoredPrefix(pattern string, form regexForm) string {
	end := strings.IndexAny(pattern, regexMeta+form.names)
	if end < 0 {
		end = len(pattern)
	}
	prefix := pattern[:end]
	if end < len(pattern) && strings.IndexByte(`*?+{(\`, pattern[end]) >= 0 {
		// A quantifier takes the last character away. So does one behind an
		// atom that leaves nothing of its own, as in A(?s)? or A\Q\E?.
		if !form.slashStar || pattern[end] != '*' || !strings.HasSuffix(prefix, "/") {
			_, size := utf8.DecodeLastRuneInString(prefix)
			prefix = prefix[:len(prefix)-size]
		}
	}
	return dotsToAny(prefix[:validPrefix(prefix)])
}

func anchoredSuffix(pattern string, form regexForm) string {
	begin := strings.LastIndexAny(pattern, regexMeta) + 1
	if i := strings.LastIndexAny(pattern, form.names); form.names != "" && i >= 0 {
		end := len(pattern) // of the name
		if slash := strings.IndexByte(pattern[i:], '/'); slash >= 0 {
			end = i + slash
		}
		begin = max(begin, end)
	}
	suffix := pattern[begin:]
	return dotsToAny(suffix[validSuffix(suffix):])
}

func dotsToAny(s string) string {
	if strings.IndexByte(s, '.') < 0 {
		return s
	}
	return strings.ReplaceAll(s, ".", string([]byte{anyRune}))
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
