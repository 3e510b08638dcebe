package pattern

import (
	"fmt"
	"regexp"
	"strings"
	"unicode"

	"securefiles/policy/internal/finding"
)

// A Problem is what is wrong with a pattern of an object. Where it makes
// a line allow more, or deny less, than it seems to, it is an error.
type Problem struct {
	Rule, Message string
	Allow, Deny   finding.Severity // in a line that allows, or denies
}

// Severities of a pattern that covers less than it seems to, more, or either.
func tooNarrow(rule, format string, args ...any) Problem {
	return Problem{rule, fmt.Sprintf(format, args...), finding.SeverityWarning, finding.SeverityError}
}

func tooWide(rule, format string, args ...any) Problem {
	return Problem{rule, fmt.Sprintf(format, args...), finding.SeverityError, finding.SeverityWarning}
}

func unusual(rule, format string, args ...any) Problem {
	return Problem{rule, fmt.Sprintf(format, args...), finding.SeverityWarning, finding.SeverityWarning}
}

// Limits of a path and of a segment, in bytes: pathguard's.
const (
	maxObject = 4096
	maxName   = 255
)

// isPlainTree is isPlainPath for a pattern that may end with what stands for all
// below a path, or below the root.
func isPlainTree(pattern, tree string, dots, colons bool) bool {
	path, ok := strings.CutSuffix(pattern, tree)
	return ok && path == "" || isPlainPath(path, dots, colons)
}

// isPlainPath reports whether a pattern is a path without anything that a
// pattern function or pathguard could mind. Most are, and a million must not take
// long. Dots are fine where they are no more than that, and where it is no error
// that they are; colons are where they begin names.
func isPlainPath(path string, dots, colons bool) bool {
	if path == "" || len(path) > maxObject {
		return false
	}
	slash := -1 // where the last one is
	for i := range len(path) {
		switch c := path[i]; {
		case c == '/':
			if i > 0 && slash == i-1 {
				return false
			}
			slash = i
		case i == 0 || i-slash > maxName:
			return false
		case isNameByte(c):
		case c == '.' && dots && slash < i-1:
		case c == ':' && colons && slash == i-1:
			dots = false // one would belong to the name
		default:
			return false
		}
	}
	return slash < len(path)-1
}

// isNameByte reports whether a character means itself to every function.
func isNameByte(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '_'
}

var (
	percentEscape = regexp.MustCompile(`%[0-9A-Fa-f]{2}`)
	query         = regexp.MustCompile(`\?[A-Za-z0-9_]+=.*`)
	// plainGroup is a group that a regular expression could do without,
	// plainClass a class of one letter or digit: both stand in file names.
	plainGroup = regexp.MustCompile(`(^|[^\\])\([A-Za-z0-9 ,_-]+\)($|[^*+?{])`)
	plainClass = regexp.MustCompile(`(^|[^\\])\[[A-Za-z0-9 ]\]($|[^*+?{])`)
	// letterStar is a letter that may stand there any number of times.
	letterStar = regexp.MustCompile(`[A-Za-z0-9_-]\*`)
	// plainEscape is an escape of what means itself.
	plainEscape = regexp.MustCompile(`(^|[^\\])(\\\\)*\\[A-Za-z0-9]`)
	plainDot    = regexp.MustCompile(`[A-Za-z0-9_-]\.[A-Za-z0-9_-]`)
)

// escapeProblems looks for what is encoded as in a URL.
func escapeProblems(pattern string) []Problem {
	if !strings.Contains(pattern, "%") || !percentEscape.MatchString(pattern) {
		return nil
	}
	return []Problem{unusual("pattern-encoded", "policies see decoded paths, so %q stands for these three characters and not for what they encode: write the character itself", percentEscape.FindString(pattern))}
}

// queryProblems looks for the query of a URL.
func queryProblems(pattern string) []Problem {
	if !strings.Contains(pattern, "?") || !query.MatchString(pattern) {
		return nil
	}
	return []Problem{unusual("pattern-encoded", "policies see the path without its query: leave out %q", finding.Shorten(query.FindString(pattern)))}
}

// noPathBegins says why no path begins with a text, or is it as a whole; it
// returns "" where one may.
func noPathBegins(prefix string, whole bool) string {
	if prefix == "" {
		return ""
	}
	if prefix[0] != '/' {
		return "every path begins with a slash"
	}
	if len(prefix) > maxObject {
		return "a path has at most 4,096 bytes"
	}
	segments := strings.Split(prefix[1:], "/")
	for i, segment := range segments {
		last := i == len(segments)-1
		if why := badSegment(segment, last, !last || whole); why != "" {
			return why
		}
	}
	return ""
}

// badSegment says why no path has a segment. One that is not complete may go
// on; last is the path's last.
func badSegment(segment string, last, complete bool) string {
	switch {
	case complete && segment == "" && last:
		return "no path ends with a slash"
	case complete && segment == "":
		return "no path has // inside"
	case complete && (segment == "." || segment == ".."):
		return "no path has a segment . or .."
	case len(segment) > maxName:
		return "a segment has at most 255 bytes"
	case strings.IndexByte(segment, '\\') >= 0:
		return "no path has a backslash"
	case strings.IndexFunc(segment, unicode.IsControl) >= 0:
		return "no path has a control character, such as a tab"
	case segment != strings.TrimLeftFunc(segment, unicode.IsSpace):
		return "no segment begins with a blank"
	case complete && segment != strings.TrimRightFunc(segment, unicode.IsSpace):
		return "no segment ends with a blank"
	}
	return ""
}
