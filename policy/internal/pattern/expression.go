package pattern

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"
)

// An Expression is a regular expression that matches the paths that a pattern
// does.
type Expression struct {
	// Text is for package regexp; it may match anywhere in a path.
	Text string
	// Cuts says that a path is read up to its first question mark.
	Cuts bool
	// Wider says that Text matches more than the pattern does: no regular
	// expression says what it means.
	Wider bool
}

// Expression returns what a pattern means as a regular expression. It is for
// paths as package pathguard accepts them, and for patterns that compile.
// Where $sub or $group stands for a name, Text matches any.
func (f Func) Expression(pattern string) Expression {
	pattern, asks := f.marked(pattern)
	if !asks {
		return f.of.expression(pattern)
	}
	e := f.of.expression(f.of.anyName(pattern))
	e.Wider = true
	return e
}

func (*equality) expression(pattern string) Expression {
	return Expression{Text: "^" + regexp.QuoteMeta(pattern) + "$"}
}

func (k *firstStar) expression(pattern string) Expression {
	before, whole := k.literal(pattern)
	e := Expression{Text: "^" + regexp.QuoteMeta(before)}
	if whole {
		e.Text += "$"
	}
	return e
}

func (k *keys) expression(pattern string) Expression {
	e, err := k.compile(pattern, nil)
	if err != nil {
		return Expression{Text: ".*", Wider: true}
	}
	named := slices.Clone(e.names)
	slices.Sort(named)
	return Expression{Text: e.regex.String(), Cuts: k.cuts, Wider: len(slices.Compact(named)) != len(e.names)}
}

func (*regex) expression(pattern string) Expression { return Expression{Text: pattern} }

// maxExpandedWays bounds the globs that one with braces is written as.
const maxExpandedWays = 64

func (*glob) expression(pattern string) Expression {
	ways, ok := expandBraces(pattern)
	var texts []string
	for _, way := range ways {
		text, exact := globExpression(way)
		texts, ok = append(texts, text), ok && exact
	}
	if !ok {
		prefix := pattern[:max(0, strings.IndexAny(pattern, globSpecial))]
		return Expression{Text: "^" + regexp.QuoteMeta(strings.TrimSuffix(prefix, "/")), Wider: true}
	}
	return Expression{Text: "^(?:" + strings.Join(texts, "|") + ")$"}
}

// expandBraces writes a glob without braces. It is false where globMatch does not
// read the braces as what they stand for: it takes what begins them for the
// beginning of a segment, and compares an empty rest to a few patterns only.
func expandBraces(pattern string) (ways []string, ok bool) {
	begin := 0
	for begin < len(pattern) && pattern[begin] != '{' {
		begin += escapedLength(pattern[begin:])
	}
	if begin >= len(pattern) {
		return []string{pattern}, true
	}
	end, alternatives := braces(pattern, begin)
	if end == len(pattern) {
		return nil, false
	}
	rest := pattern[end+1:]
	if strings.HasPrefix(rest, "**") {
		return nil, false
	}
	for _, a := range alternatives {
		wild := strings.HasPrefix(a, "*") || strings.HasPrefix(a, "{") || strings.Contains(a, "**") || strings.HasSuffix(a, "*") && rest != ""
		nothing := a == "" && (begin == 0 || strings.IndexByte("/*", pattern[begin-1]) >= 0)
		if wild || nothing || strings.HasPrefix(a, "/") || strings.HasSuffix(a, "/") {
			return nil, false
		}
		more, ok := expandBraces(pattern[:begin] + a + rest)
		if ways = append(ways, more...); !ok || len(ways) > maxExpandedWays {
			return nil, false
		}
	}
	return ways, true
}

func escapedLength(pattern string) int {
	if pattern[0] == '\\' && len(pattern) > 1 {
		return 2
	}
	return 1
}

// globExpression writes a glob without braces as a regular expression.
func globExpression(pattern string) (text string, ok bool) {
	var b strings.Builder
	begins := true // a segment
	for i := 0; i < len(pattern); {
		rest := pattern[i:]
		switch {
		case rest == "/**" || rest == "/**/": // the directory itself, too
			if rest == "/**/" { // the last ** alone is tried again
				return b.String() + "(?:/(?:.*/)?)?", !strings.Contains(pattern[:i], "**/")
			}
			return b.String() + "(?:/.*)?", true
		case begins && rest == "**":
			return b.String() + ".*", true
		case begins && strings.HasPrefix(rest, "**/"):
			b.WriteString("(?:.*/)?")
			i += 3
			continue
		case rest[0] == '*':
			stars := len(rest) - len(strings.TrimLeft(rest, "*"))
			after := rest[stars:]
			switch {
			case stars > 2 || stars == 2 && after == "/": // as the end of a path is compared, no regular expression
				return "", false
			case after == "/**": // something must be left where a star begins
				return b.String() + "(?:[^/]+|[^/]*/.*)", true
			case after == "/**/":
				return b.String() + "(?:[^/]+|[^/]*/(?:.*/)?)", !strings.Contains(pattern[:i], "**/")
			}
			b.WriteString("[^/]*")
			i += stars
		case rest[0] == '?':
			b.WriteString("[^/]")
			i++
		case rest[0] == '[':
			class, slash, length := globClass(rest)
			if length == 0 || slash && strings.Contains(pattern[:i], "*") && strings.Contains(rest[length:], "*") {
				return "", false // globMatch tries the last star alone again, which suffices within a segment
			}
			b.WriteString(class)
			i += length
		default:
			if rest[0] == '\\' {
				i++
			}
			r, size := utf8.DecodeRuneInString(pattern[i:])
			b.WriteString(regexp.QuoteMeta(string(r)))
			i += size
			begins = r == '/'
			continue
		}
		begins = false
	}
	return b.String(), true
}

// globClass reads the class with which a glob begins as globMatch does, and
// whether it matches a slash: where it is negated it does. The length is 0 where
// it does not end.
func globClass(pattern string) (text string, slash bool, length int) {
	i, negated := 1, ""
	if i < len(pattern) && (pattern[i] == '!' || pattern[i] == '^') {
		i, negated = i+1, "^"
	}
	next := func() rune {
		r, size := utf8.DecodeRuneInString(pattern[i:])
		i += size
		return r
	}
	var ranges strings.Builder
	add := func(low, high rune) {
		if low <= high {
			slash = slash || low <= '/' && '/' <= high
			fmt.Fprintf(&ranges, `\x{%x}-\x{%x}`, low, high)
		}
	}
	last := rune(utf8.MaxRune)
	for i < len(pattern) && pattern[i] != ']' {
		r := next()
		if last < utf8.MaxRune && r == '-' && i < len(pattern) && pattern[i] != ']' {
			if pattern[i] == '\\' {
				i++
			}
			add(last, next())
			last = utf8.MaxRune
			continue
		}
		if r == '\\' {
			r = next()
		}
		add(r, r)
		last = r
	}
	switch {
	case i >= len(pattern):
		return "", false, 0
	case ranges.Len() == 0 && negated == "":
		return `[^\x{0}-\x{10ffff}]`, false, i + 1
	case ranges.Len() == 0:
		return `[\x{0}-\x{10ffff}]`, true, i + 1
	}
	return "[" + negated + ranges.String() + "]", slash != (negated != ""), i + 1
}
