package pattern

import (
	"fmt"
	"regexp"
	"regexp/syntax"
	"slices"
	"strconv"
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
	// Segments says that (?m:$) in Text holds where a segment of a path ends, as
	// package regexp does not have it: before a slash, and at the end of a path that
	// is not cut.
	Segments bool
	// Wider says that Text matches more than the pattern does: no regular
	// expression says what it means.
	Wider bool
}

// Nothing matches no path.
func Nothing() Expression { return Expression{Text: nothing} }

// Expression returns what a pattern means as a regular expression, for whom $sub and
// $group stand for names. It is for paths as package pathguard accepts them, and for
// patterns that compile.
func (f Func) Expression(pattern string, names Names) Expression {
	var holes []hole
	if MayAskNames(pattern) {
		holes = f.of.holes(pattern, nil)
	}
	if len(holes) == 0 {
		return f.of.expression(pattern)
	}
	_, group := f.AsksNames(pattern)
	if !group || len(names.Groups) == 0 {
		return f.of.expressionOf(pattern, holes, one{subject: names.Subject})
	}
	var either Expression
	for i, g := range names.Groups {
		e := f.of.expressionOf(pattern, holes, one{names.Subject, g})
		if i > 0 {
			e = Expression{either.Text + "|(?:" + e.Text + ")", either.Cuts || e.Cuts, either.Segments || e.Segments, either.Wider || e.Wider}
		}
		either = e
	}
	return either
}

// quoted returns what a hole matches: a name as it stands, or nothing.
func (n one) quoted(h hole) string {
	if n.of(h) == "" {
		return nothing
	}
	return regexp.QuoteMeta(n.of(h))
}

func (*traits) expressionOf(string, []hole, one) Expression { return Nothing() }

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

func (k *firstStar) expressionOf(pattern string, holes []hole, names one) Expression {
	before, _, star := strings.Cut(pattern, "*")
	text, done := "^", 0
	for _, h := range holes {
		text += regexp.QuoteMeta(meantLiterally(before[done:h.at])) + names.quoted(h)
		done = h.at + h.length()
	}
	if text += regexp.QuoteMeta(meantLiterally(before[done:])); !star {
		text += "$"
	}
	return Expression{Text: text}
}

func (k *keys) expression(pattern string) Expression {
	e, err := k.compile(pattern, nil)
	if err != nil {
		return Expression{Text: ".*", Wider: true}
	}
	return Expression{Text: e.regex.String(), Cuts: k.cuts, Wider: isTwice(e.names)}
}

// isTwice reports whether one of some names stands there twice.
func isTwice(names []string) bool {
	sorted := slices.Clone(names)
	slices.Sort(sorted)
	return len(slices.Compact(sorted)) != len(names)
}

func (k *keys) expressionOf(pattern string, holes []hole, names one) Expression {
	if k.cuts && strings.Contains(names.subject+names.group, "?") { // a name is not cut
		marked := fill(pattern, holes, func(_ int, h hole) string { return string(rune(h.mark)) })
		e := k.expression(k.anyName(marked))
		e.Wider = true
		return e
	}
	text, braces := k.asRegex(holeGroups(pattern, holes))
	e := ofNames(text, holes, names)
	e.Cuts, e.Wider = k.cuts, e.Wider || isTwice(braces)
	return e
}

func (*regex) expression(pattern string) Expression { return Expression{Text: pattern} }

func (*regex) expressionOf(pattern string, holes []hole, names one) Expression {
	return ofNames(holeGroups(pattern, holes), holes, names)
}

// ofNames returns an expression with names in the place of the groups that stand for
// holes, each up to the end of its segment.
func ofNames(text string, holes []hole, names one) Expression {
	if !utf8.ValidString(names.subject + names.group) {
		return Expression{Text: ".*", Wider: true}
	}
	parsed, err := syntax.Parse(text, syntax.Perl)
	if err != nil {
		return Nothing() // nor does it compile to be matched
	}
	fillGroups(parsed, holes, names)
	return Expression{Text: parsed.String(), Segments: true}
}

// fillGroups fills the groups of an expression that stand for holes. No path has a
// line end, so that a line ends where the path does.
func fillGroups(re *syntax.Regexp, holes []hole, names one) {
	for _, sub := range re.Sub {
		fillGroups(sub, holes, names)
	}
	switch re.Op {
	case syntax.OpEndLine:
		re.Op = syntax.OpEndText
	case syntax.OpCapture:
		number, isHole := strings.CutPrefix(re.Name, holeGroup)
		if !isHole {
			return
		}
		_, number, _ = strings.Cut(number, "_")
		i, _ := strconv.Atoi(number)
		name := names.of(holes[i])
		if name == "" {
			*re = syntax.Regexp{Op: syntax.OpNoMatch}
			return
		}
		*re = syntax.Regexp{Op: syntax.OpConcat, Sub: []*syntax.Regexp{{Op: syntax.OpLiteral, Rune: []rune(name)}, {Op: syntax.OpEndLine}}}
	}
}

// maxExpandedWays bounds the globs that one with braces is written as.
const maxExpandedWays = 64

func (*glob) expression(pattern string) Expression {
	text, ok := expandedGlob(pattern)
	if !ok {
		return widerGlob(pattern)
	}
	return Expression{Text: "^" + text + "$"}
}

// widerGlob matches what begins as a glob does.
func widerGlob(pattern string) Expression {
	prefix := pattern[:max(0, strings.IndexAny(pattern, globSpecial))]
	return Expression{Text: "^" + regexp.QuoteMeta(strings.TrimSuffix(prefix, "/")), Wider: true}
}

// expandedGlob writes a glob as a regular expression.
func expandedGlob(pattern string) (text string, ok bool) {
	ways, ok := expandBraces(pattern)
	var texts []string
	for _, way := range ways {
		text, exact := globExpression(way)
		texts, ok = append(texts, text), ok && exact
	}
	return "(?:" + strings.Join(texts, "|") + ")", ok
}

// expressionOf writes what stands between the holes piece by piece, as it is matched.
func (g *glob) expressionOf(pattern string, holes []hole, names one) Expression {
	text, done := "^", 0
	for _, h := range holes {
		mark := string(rune(h.mark))
		piece, ok := expandedGlob(pattern[done:h.at] + mark)
		if !ok {
			return widerGlob(pattern[:holes[0].at] + "*")
		}
		text += strings.ReplaceAll(piece, mark, names.quoted(h))
		done = h.at + h.length()
	}
	piece, ok := expandedGlob(pattern[done:])
	if !ok {
		return widerGlob(pattern[:holes[0].at] + "*")
	}
	return Expression{Text: text + piece + "$"}
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
