package pattern

import (
	"errors"
	"fmt"
	"net"
	"regexp"
	"strings"

	"github.com/bmatcuk/doublestar/v4"
	"github.com/casbin/casbin/v2/util"
)

// Check compiles a pattern as a function of Casbin's does.
func Check(function, pattern string) error {
	switch function {
	case "keyMatch": // any text is a pattern
	case "globMatch":
		return checkGlob(pattern)
	case "ipMatch":
		if net.ParseIP(pattern) == nil {
			if _, _, err := net.ParseCIDR(pattern); err != nil {
				return errors.New("is neither an IP address nor a range such as 192.0.2.0/24")
			}
		}
	case "regexMatch":
		if _, err := regexp.Compile(pattern); err != nil {
			return fmt.Errorf("is not a regular expression: %w", err)
		}
	case "keyMatch4":
		return checkKeyMatch4(pattern)
	default: // keyMatch2, keyMatch3 and keyMatch5 make a regular expression of it
		return tryKeyMatch(function, pattern)
	}
	return nil
}

// isPlainKey reports whether a pattern of keyMatch2, keyMatch3 or keyMatch5 holds nothing
// that a regular expression could fail on: most do, and compiling a million
// would take long.
func isPlainKey(pattern string) bool {
	for i := range len(pattern) {
		c := pattern[i]
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '/', c == '-', c == '_', c == '.', c == ' ', c == ',':
		case c == '*' && i > 0 && pattern[i-1] == '/':
		default:
			return false
		}
	}
	return true
}

// maxWays is how many patterns the braces of a glob may stand for. globMatch
// tries one after another, from where they begin.
const maxWays = 1024

// checkGlob refuses what globMatch cannot read. It reads a pattern as far as a
// path matches, and looks for the rest of a class or of braces as if it stood
// alone, so that some brackets in a class fail for some paths.
func checkGlob(pattern string) error {
	if !doublestar.ValidatePattern(pattern) {
		return errors.New("is not a pattern: a [, { or \\ is not closed; put \\ before it to mean it literally")
	}
	class, braces, ways := false, []int(nil), 1
	for i := 0; i < len(pattern); i++ {
		c := pattern[i]
		switch {
		case c == '\\':
			i++
		case class && (strings.IndexByte("[{}", c) >= 0 || c == ',' && len(braces) > 0):
			return fmt.Errorf("has a %q inside [ ], which fails for some paths: put \\ before it", c)
		case class:
			class = c != ']'
		case c == '[':
			class = true
		case c == '{':
			braces = append(braces, 1)
		case c == ',' && len(braces) > 0:
			braces[len(braces)-1]++
		case c == '}' && len(braces) > 0:
			if ways *= braces[len(braces)-1]; ways > maxWays {
				return fmt.Errorf("stands for over %d patterns by its braces, and each could be tried: write several lines", maxWays)
			}
			braces = braces[:len(braces)-1]
		}
	}
	return nil
}

// checkKeyMatch4 compiles a pattern as keyMatch4 does, which panics where it
// captures more than its braces.
func checkKeyMatch4(pattern string) error {
	braces := 0
	text := regexp.MustCompile(`\{([^/]+)\}`).ReplaceAllStringFunc(strings.ReplaceAll(pattern, "/*", "/.*"), func(string) string {
		braces++
		return "([^/]+)"
	})
	compiled, err := regexp.Compile("^" + text + "$")
	if err != nil {
		return fmt.Errorf("cannot be compiled, keyMatch4 reads it as a regular expression: %w", err)
	}
	if compiled.NumSubexp() != braces {
		return errors.New("( counts as a name to keyMatch4: put \\ before it to mean it literally")
	}
	return nil
}

// tryKeyMatch asks Casbin itself; its functions panic on a bad pattern.
func tryKeyMatch(function, pattern string) (err error) {
	if isPlainKey(pattern) {
		return nil
	}
	defer func() {
		if r := recover(); r != nil {
			text, _, _ := strings.Cut(fmt.Sprint(r), "\n")
			err = fmt.Errorf("cannot be compiled, %s reads it as a regular expression: %s", function, text)
		}
	}()
	match := map[string]func(string, string) bool{
		"keyMatch2": util.KeyMatch2, "keyMatch3": util.KeyMatch3, "keyMatch5": util.KeyMatch5,
	}[function]
	match("", pattern)
	return nil
}
