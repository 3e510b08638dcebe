package pattern

import (
	"fmt"
	"regexp/syntax"
	"strings"
	"unicode/utf8"
)

// regex is regexMatch, and =~. That is an operator, which govaluate evaluates by
// itself where it stands inside of another expression: it knows no names.
type regex struct{ traits }

func (r *regex) match(m *Cache, text, pattern string, id uint32) (bool, error) {
	e, err := m.made(r, pattern, id, nil)
	if err != nil {
		return false, err
	}
	return e.matches(m, text)
}

func (r *regex) holes(pattern string, into []hole) []hole {
	if r.noNames {
		return into
	}
	return regexHoles(pattern, into)
}

func (r *regex) matchNames(m *Cache, path, pattern string, id uint32, holes []hole, names one) (bool, error) {
	e, err := m.made(r, pattern, id, holes)
	if err != nil {
		return false, err
	}
	return e.matches(m, names.mark(path))
}

func (*regex) anyName(marked string) string { return replaceMarks(marked, "[^/]+") }

// compile compiles an expression; one with holes matches marked paths.
func (r *regex) compile(pattern string, holes []hole) (*expression, error) {
	text := pattern
	if len(holes) > 0 {
		var err error
		if text, err = marked(holeGroups(pattern, holes), false); err != nil {
			return nil, fmt.Errorf("is not a regular expression: %w", err)
		}
	}
	e, err := newExpression(r.inCache(holes), text)
	if err != nil {
		return nil, fmt.Errorf("is not a regular expression: %w", err)
	}
	return e, nil
}

func (r *regex) check(pattern string) error {
	_, err := r.compile(pattern, nil)
	if holes := r.holes(pattern, nil); len(holes) > 0 && err == nil {
		_, err = r.compile(pattern, holes)
	}
	return err
}

func (*regex) needsMemory(string) bool { return true }

func (*regex) steps(pattern string) int { return stepsOfRegex(pattern) }

func (*regex) anchors(pattern string) Anchors {
	body, begins := strings.CutPrefix(pattern, "^")
	body, ends := strings.CutSuffix(body, "$")
	return regexAnchors(body, regexForm{begins: begins, ends: ends})
}

func (*regex) literal(pattern string) (string, bool) {
	body, begins := strings.CutPrefix(pattern, "^")
	if !begins {
		return "", false
	}
	prefix, _ := regexLiteral(body, 0)
	return prefix, false
}

func (*regex) covers(string, string) bool          { return false }
func (*regex) isPlain(string, bool) bool           { return false }
func (r *regex) unmatchable(pattern string) string { return noPathBegins(r.literal(pattern)) }

func (*regex) coversEverything(pattern string) bool {
	switch strings.TrimSuffix(strings.TrimPrefix(pattern, "^"), "$") {
	case ".*", "/.*", ".+", "/.+":
		return true
	}
	return pattern == "" || pattern == "/" || pattern == "^/"
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
		return literalAnchors(pattern, true)
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

// anchoredPrefix returns what stands before the first special character. A
// quantifier behind an atom that leaves nothing of its own, as in A(?s)? or
// A\Q\E?, takes the character before that.
func anchoredPrefix(pattern string, end int, slashStar bool) string {
	prefix := before(pattern, end, `*?+{(\`, slashStar)
	return dotsToAny(prefix[:validPrefix(prefix)])
}

// before returns what stands before the special character at end. The last
// character of that is taken away by a quantifier, which may ask for none of it:
// by those of quantifiers, but for the star of a /* that becomes /.*.
func before(pattern string, end int, quantifiers string, slashStar bool) string {
	prefix := pattern[:end]
	if end == len(pattern) || strings.IndexByte(quantifiers, pattern[end]) < 0 {
		return prefix
	}
	if slashStar && pattern[end] == '*' && strings.HasSuffix(prefix, "/") {
		return prefix
	}
	_, size := utf8.DecodeLastRuneInString(prefix)
	return prefix[:len(prefix)-size]
}

// regexLiteral returns the literal beginning of a pattern that becomes a regular
// expression, and whether there is nothing else; name is what begins a name of
// keyMatch2 and its like, or 0.
func regexLiteral(pattern string, name byte) (prefix string, whole bool) {
	if strings.IndexByte(pattern, '|') >= 0 || validPrefix(pattern) < len(pattern) {
		return "", false
	}
	end := 0
	for end < len(pattern) && pattern[end] != '.' && !isRegexMeta(pattern[end]) && (name == 0 || pattern[end] != name) {
		end++
	}
	if end == len(pattern) {
		return pattern, true
	}
	quantifiers := `*?+{`
	if name == '{' {
		quantifiers = `*?+`
	}
	return before(pattern, end, quantifiers, name != 0), false
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

// samples fill in a regular expression, which may match anywhere in a path.
func (*regex) samples(pattern string) []string {
	parsed, err := syntax.Parse(pattern, syntax.Perl)
	if err != nil {
		return nil
	}
	var out []string
	for _, s := range sampleSyntax(parsed.Simplify()) {
		out = append(out, s, strings.TrimSuffix(s, "/")+"/x", "/"+s, "/x/"+s, "/x"+s)
	}
	return out
}

func sampleSyntax(re *syntax.Regexp) []string {
	switch re.Op {
	case syntax.OpLiteral:
		return []string{string(re.Rune)}
	case syntax.OpCharClass:
		var out []string
		for i := 0; i+1 < len(re.Rune) && len(out) < 3; i += 2 { // some of a few, one of a range
			for r := re.Rune[i]; r <= min(re.Rune[i+1], re.Rune[i]+2); r++ {
				if re.Rune[i] <= 'x' && 'x' <= re.Rune[i+1] {
					r = 'x'
				}
				out = append(out, string(r))
			}
		}
		return out
	case syntax.OpAnyChar, syntax.OpAnyCharNotNL:
		return []string{"x"}
	case syntax.OpCapture, syntax.OpPlus:
		return sampleSyntax(re.Sub[0])
	case syntax.OpStar, syntax.OpQuest:
		return append(sampleSyntax(re.Sub[0]), "")
	case syntax.OpRepeat:
		var out []string
		for _, s := range sampleSyntax(re.Sub[0]) {
			out = append(out, strings.Repeat(s, max(1, re.Min)))
		}
		return out
	case syntax.OpAlternate:
		var out []string
		for _, sub := range re.Sub {
			out = append(out, sampleSyntax(sub)...)
		}
		return out[:min(len(out), maxSamples)]
	case syntax.OpConcat:
		out := []string{""}
		for _, sub := range re.Sub {
			var next []string
			for _, o := range out {
				for _, s := range sampleSyntax(sub) {
					if len(next) < maxSamples {
						next = append(next, o+s)
					}
				}
			}
			out = next
		}
		return out
	}
	return []string{""} // anchors, and what matches nothing
}

func (*regex) problems(pattern string, all bool) []Problem {
	if !all {
		return nil
	}
	found := queryProblems(pattern)
	re, err := syntax.Parse(pattern, syntax.Perl)
	if err != nil {
		return found // it is refused elsewhere
	}
	switch {
	case !anchored(re, true):
		found = append(found, unusual("regex-unanchored", "matches anywhere in a path, for it does not begin with ^ in each of its branches: begin it with ^"))
	case !anchored(re, false) && !openEnd(pattern):
		found = append(found, unusual("regex-unanchored", "covers all that goes on after it: end it with $, or with / or .* to mean that"))
	}
	if plainDot.MatchString(pattern) && !strings.ContainsAny(pattern, "[") {
		found = append(found, unusual("pattern-dot", `regexMatch reads . as any character: write \. to mean a dot`))
	}
	return found
}

// anchored reports whether every text that an expression matches begins at the
// beginning of a path, or ends at its end.
func anchored(re *syntax.Regexp, begin bool) bool {
	switch re.Op {
	case syntax.OpBeginText:
		return begin
	case syntax.OpEndText:
		return !begin
	case syntax.OpCapture:
		return anchored(re.Sub[0], begin)
	case syntax.OpConcat:
		i := 0
		if !begin {
			i = len(re.Sub) - 1
		}
		return anchored(re.Sub[i], begin)
	case syntax.OpAlternate:
		for _, sub := range re.Sub {
			if !anchored(sub, begin) {
				return false
			}
		}
		return true
	}
	return false
}

// openEnd reports whether an expression says by its end that it goes on.
func openEnd(pattern string) bool {
	return strings.HasSuffix(pattern, "/") || strings.HasSuffix(pattern, ".*") || strings.HasSuffix(pattern, ".*)")
}
