// Package pattern knows what Casbin's pattern functions mean: what they match,
// which patterns they cannot read, and what can be told of a pattern without a
// path to match.
//
// pattern knows the functions of paths, keyMatch to keyMatch5, globMatch and
// regexMatch, and equality. It does not say what the author of a pattern meant.
package pattern

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"unicode/utf8"

	"github.com/casbin/casbin/v2/util"
)

// A Cache answers as Casbin's pattern functions do, without compiling a
// regular expression for each question as they do.
type Cache struct {
	// compiled remembers patterns by their symbols: a later one takes the
	// place of an earlier one, so that memory stays as it is.
	compiled [1024]atomic.Pointer[compiledPattern]
}

type compiledPattern struct {
	function string
	pattern  uint32
	regex    *regexp.Regexp
	names    []string // of keyMatch4, by group
}

// What keyMatch2 and its like take for names, as Casbin has it.
var (
	keyMatch2Name = regexp.MustCompile(`:[^/]+`)
	keyMatch3Name = regexp.MustCompile(`\{[^/]+\}`)
	keyMatch4Name = regexp.MustCompile(`\{([^/]+)\}`)
)

// Match panics, as Casbin does, where a pattern cannot be compiled.
func (m *Cache) Match(function, text, pattern string, id uint32) (bool, error) {
	switch function {
	case "keyMatch":
		return util.KeyMatch(text, pattern), nil
	case "keyMatch4":
		return m.compile(function, pattern, id).sameNamesMatch(text)
	case "globMatch":
		return util.GlobMatch(text, pattern)
	case "keyMatch5":
		text, _, _ = strings.Cut(text, "?")
	}
	if name, ok := nameStart(function); ok && isPlainKeyPattern(pattern, name) && isPlainText(text) {
		return matchPlainKey(text, pattern, name), nil
	}
	return m.compile(function, pattern, id).regex.MatchString(text), nil
}

// nameStart returns the character that begins a name in a pattern.
func nameStart(function string) (byte, bool) {
	switch function {
	case "keyMatch2":
		return ':', true
	case "keyMatch3", "keyMatch5":
		return '{', true
	}
	return 0, false
}

func (m *Cache) compile(function, pattern string, id uint32) *compiledPattern {
	slot := &m.compiled[int(id)%len(m.compiled)]
	if c := slot.Load(); c != nil && c.pattern == id && c.function == function {
		return c
	}
	c := &compiledPattern{function: function, pattern: id, regex: regexp.MustCompile(regexOf(function, pattern))}
	if function == "keyMatch4" {
		for _, name := range keyMatch4Name.FindAllStringSubmatch(pattern, -1) {
			c.names = append(c.names, name[1])
		}
	}
	slot.Store(c)
	return c
}

// sameNamesMatch matches as keyMatch4 does: where a name stands twice, so must
// what it stands for. Casbin's own remembers each pattern for ever.
func (c *compiledPattern) sameNamesMatch(text string) (bool, error) {
	groups := c.regex.FindStringSubmatch(text)
	if groups == nil {
		return false, nil
	}
	if len(groups) != len(c.names)+1 {
		return false, fmt.Errorf("keyMatch4 finds %d values for %d names", len(groups)-1, len(c.names))
	}
	for i, name := range c.names {
		if groups[slices.Index(c.names, name)+1] != groups[i+1] {
			return false, nil
		}
	}
	return true, nil
}

// regexOf returns the regular expression that Casbin makes of a pattern.
func regexOf(function, pattern string) string {
	name, value := keyMatch2Name, "[^/]+"
	switch function {
	case "regexMatch":
		return pattern
	case "keyMatch3", "keyMatch5":
		name = keyMatch3Name
	case "keyMatch4":
		name, value = keyMatch4Name, "([^/]+)"
	}
	return "^" + name.ReplaceAllString(strings.ReplaceAll(pattern, "/*", "/.*"), value) + "$"
}

// isPlainText reports whether no character is one that regular expressions read
// in a way of their own.
func isPlainText(text string) bool {
	ascii := true
	for i := range len(text) {
		if text[i] == '\n' {
			return false
		}
		ascii = ascii && text[i] < utf8.RuneSelf
	}
	return ascii || utf8.ValidString(text)
}

// isPlainKeyPattern reports whether a pattern of keyMatch2 and its like holds
// nothing but letters, dots, names that fill the rest of a segment, and stars
// that begin one.
func isPlainKeyPattern(pattern string, name byte) bool {
	if validPrefix(pattern) != len(pattern) {
		return false
	}
	for i := 0; i < len(pattern); i++ {
		switch c := pattern[i]; {
		case c == '*':
			if i == 0 || pattern[i-1] != '/' {
				return false
			}
		case c == name && name == ':':
			if i+1 < len(pattern) && pattern[i+1] != '/' {
				i = segmentEnd(pattern, i) - 1
			}
		case c == name: // a brace
			end := segmentEnd(pattern, i)
			if end-i < 3 || pattern[end-1] != '}' {
				return false
			}
			i = end - 1
		case c < ' ' || isRegexMeta(c):
			return false
		}
	}
	return true
}

// segmentEnd returns where the segment of i ends.
func segmentEnd(s string, i int) int {
	if slash := strings.IndexByte(s[i:], '/'); slash >= 0 {
		return i + slash
	}
	return len(s)
}

// matchPlainKey matches as keyMatch2 does: a dot is any character, a name at
// least one up to the next slash, a star any number of any. Only the last star
// is ever tried again: what stands before it matches as early as it can, and
// nothing could come of matching it later.
func matchPlainKey(text, pattern string, name byte) bool {
	at, i := 0, 0          // in text and pattern
	starAt, star := -1, -1 // where the last star's part begins
	for {
		matched := true
		switch {
		case i == len(pattern):
			if at == len(text) {
				return true
			}
			matched = false
		case pattern[i] == '*':
			i++
			star, starAt = i, at
		case pattern[i] == name && i+1 < len(pattern) && pattern[i+1] != '/':
			end := segmentEnd(text, at)
			matched = end > at
			at, i = end, segmentEnd(pattern, i)
		case at == len(text):
			return false // the rest of the pattern wants more, and a later start leaves less
		case pattern[i] == '.':
			_, size := utf8.DecodeRuneInString(text[at:])
			at, i = at+size, i+1
		default:
			matched = pattern[i] == text[at]
			at, i = at+1, i+1
		}
		if matched {
			continue
		}
		if star < 0 || starAt == len(text) {
			return false
		}
		_, size := utf8.DecodeRuneInString(text[starAt:])
		starAt += size
		at, i = starAt, star
	}
}
