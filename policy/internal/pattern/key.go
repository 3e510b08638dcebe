package pattern

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"securefiles/policy/internal/finding"

	"github.com/casbin/casbin/v2/util"
)

// firstStar is keyMatch, which looks at nothing behind the first *.
type firstStar struct{ traits }

func (*firstStar) match(_ *Cache, text, pattern string, _ uint32) (bool, error) {
	return util.KeyMatch(text, meantLiterally(pattern)), nil
}

// meantLiterally returns a pattern without the backslash by which \$sub means itself:
// keyMatch has no other way to say so, and no path a backslash.
func meantLiterally(pattern string) string {
	if !strings.Contains(pattern, `/\$`) {
		return pattern
	}
	return strings.ReplaceAll(pattern, `/\$`, "/$")
}

// matchNames compares what stands before the first star piece by piece.
func (k *firstStar) matchNames(_ *Cache, path, pattern string, _ uint32, holes []hole, names one) (bool, error) {
	before, _, star := strings.Cut(pattern, "*")
	done := 0
	for _, h := range holes {
		literal := meantLiterally(before[done:h.at])
		if !strings.HasPrefix(path, literal) {
			return false, nil
		}
		end, ok := standsFor(path, len(literal), names.of(h))
		if !ok {
			return false, nil
		}
		path, done = path[end:], h.at+h.length()
	}
	rest := meantLiterally(before[done:])
	return path == rest || star && strings.HasPrefix(path, rest), nil
}

func (*firstStar) anyName(marked string) string {
	if before := beforeNames(marked); before != marked {
		return before + "*"
	}
	return marked
}

// holes are those before the first star.
func (*firstStar) holes(pattern string, into []hole) []hole {
	holes := plainHoles(pattern, into)
	if star := strings.IndexByte(pattern, '*'); star >= 0 {
		holes = slices.DeleteFunc(holes, func(h hole) bool { return h.at > star })
	}
	return holes
}

func (*firstStar) check(string) error                  { return nil } // any text is a pattern
func (*firstStar) needsMemory(string) bool             { return false }
func (*firstStar) steps(string) int                    { return 0 }
func (k *firstStar) anchors(pattern string) Anchors    { return literalAnchors(k.literal(pattern)) }
func (k *firstStar) unmatchable(pattern string) string { return noPathBegins(k.literal(pattern)) }
func (*firstStar) isPlain(pattern string, _ bool) bool {
	return isPlainTree(pattern, "/*", true, false)
}

func (*firstStar) literal(pattern string) (string, bool) {
	before, _, star := strings.Cut(pattern, "*")
	return meantLiterally(before), !star
}

func (k *firstStar) samples(pattern string) []string {
	before, whole := k.literal(pattern)
	if whole {
		return []string{before}
	}
	return []string{before + "x", before + "x/y", strings.TrimSuffix(before, "/")}
}

func (k *firstStar) covers(a, b string) bool {
	before, whole := k.literal(a)
	other, _ := k.literal(b)
	return !whole && strings.HasPrefix(other, before)
}

func (*firstStar) coversEverything(pattern string) bool {
	return pattern == "*" || strings.HasPrefix(pattern, "/*")
}

func (*firstStar) problems(pattern string, all bool) []Problem {
	var found []Problem
	if all {
		found = append(escapeProblems(pattern), queryProblems(pattern)...)
	}
	star := strings.IndexByte(pattern, '*')
	if star >= 0 && strings.Trim(pattern[star:], "*") != "" {
		found = append(found, tooWide("pattern-rest", "keyMatch takes everything after the first * for covered, so %q counts for nothing: end the pattern with the *, or use globMatch in the model", finding.Shorten(pattern[star+1:])))
	}
	if star > 0 && pattern[star-1] != '/' {
		found = append(found, unusual("pattern-prefix", "the * also covers what goes on after the name, such as %q: write %q for what is below it", finding.Shorten(pattern[:star]+"x/y"), finding.Shorten(pattern[:star]+"/*")))
	}
	return found
}

// keys are keyMatch2 to keyMatch5. They make a regular expression of a pattern
// without escaping it: /* becomes /.*, a name the rest of a segment.
type keys struct {
	traits
	begins byte // a name: : up to the next slash, { up to the last } before it
	same   bool // keyMatch4: where a name stands twice, so must what it stands for
	cuts   bool // keyMatch5: passes over a query
}

// What keyMatch2 and its like take for names, as Casbin has it.
var (
	colonName = regexp.MustCompile(`:[^/]+`)
	braceName = regexp.MustCompile(`\{([^/]+)\}`)
)

func (k *keys) names() *regexp.Regexp {
	if k.begins == ':' {
		return colonName
	}
	return braceName
}

func (k *keys) reads(text []byte) []byte {
	if k.cuts {
		text, _, _ = bytes.Cut(text, []byte("?"))
	}
	return text
}

func (k *keys) match(m *Cache, text, pattern string, id uint32) (bool, error) {
	if k.cuts {
		text, _, _ = strings.Cut(text, "?")
	}
	if err := m.spend(len(text) / 4); err != nil { // a plain one's
		return false, err
	}
	if !k.needsMemory(pattern) && isPlainText(text) {
		return (&plainKey{name: k.begins}).match(text, pattern), nil
	}
	return k.matchMade(m, text, pattern, id, nil)
}

// matchMade matches by the regular expression; where there are holes, a marked path.
func (k *keys) matchMade(m *Cache, text, pattern string, id uint32, holes []hole) (bool, error) {
	e, err := m.made(k, pattern, id, holes)
	if err != nil {
		return false, err
	}
	if k.same {
		return e.sameNamesMatch(m, text)
	}
	return e.matches(m, text)
}

func (*keys) holes(pattern string, into []hole) []hole { return regexHoles(pattern, into) }
func (k *keys) takesName(segment string) bool {
	return len(segment) > 2 && segment[0] == k.begins && (k.begins == ':' || segment[1] != '{' && segment[len(segment)-1] == '}')
}

func (k *keys) matchNames(m *Cache, path, pattern string, id uint32, holes []hole, names one) (bool, error) {
	if k.isPlainWith(pattern, holes) && isPlainText(path) {
		return (&plainKey{name: k.begins, cuts: k.cuts, names: names}).match(path, pattern), nil
	}
	return k.matchMade(m, names.mark(path), pattern, id, holes)
}

func (k *keys) anyName(marked string) string {
	if k.begins == ':' {
		return replaceMarks(marked, ":name")
	}
	return replaceMarks(marked, "{securefiles name}")
}

// needsMemory is true of a few patterns only: most are plain.
func (k *keys) needsMemory(pattern string) bool { return !k.isPlainWith(pattern, nil) }

// isPlainWith reports whether a plainKey does what a pattern with holes means.
func (k *keys) isPlainWith(pattern string, holes []hole) bool {
	return isPlainKeyWith(pattern, k.begins, holes) && !(k.same && hasNameTwice(pattern))
}

// hasNameTwice reports whether a name stands twice in a plain pattern of
// keyMatch4, or there are more names than it looks at.
func hasNameTwice(pattern string) bool {
	var names [8]string
	count := 0
	for i := strings.IndexByte(pattern, '{'); i >= 0 && i < len(pattern); {
		end := segmentEnd(pattern, i)
		name := pattern[i:end]
		if count == len(names) || slices.Contains(names[:count], name) {
			return true
		}
		names[count] = name
		count++
		next := strings.IndexByte(pattern[end:], '{')
		if next < 0 {
			return false
		}
		i = end + next
	}
	return false
}

func (k *keys) steps(pattern string) int {
	if !k.needsMemory(pattern) {
		return 0
	}
	text, _ := k.asRegex(pattern)
	return stepsOfRegex(text)
}

// asRegex returns the regular expression that Casbin makes of a pattern, and the
// names in it where they count.
func (k *keys) asRegex(pattern string) (text string, names []string) {
	value := "[^/]+"
	if k.same {
		value = "([^/]+)"
		for _, name := range braceName.FindAllStringSubmatch(pattern, -1) {
			names = append(names, name[1])
		}
	}
	return "^" + k.names().ReplaceAllString(strings.ReplaceAll(pattern, "/*", "/.*"), value) + "$", names
}

// compile compiles what Casbin makes of a pattern; one with holes matches marked
// paths.
func (k *keys) compile(pattern string, holes []hole) (*expression, error) {
	text, names := k.asRegex(holeGroups(pattern, holes))
	var err error
	if len(holes) > 0 {
		if text, err = marked(text, k.cuts); err != nil {
			return nil, fmt.Errorf("cannot be compiled, %s reads it as a regular expression: %w", k.name, err)
		}
	}
	e, err := newExpression(k.inCache(holes), text)
	if err != nil {
		return nil, fmt.Errorf("cannot be compiled, %s reads it as a regular expression: %w", k.name, err)
	}
	e.names = names
	return e, nil
}

// check compiles a pattern, but for a plain one: most are, and a million would
// take long. Of keyMatch4 Casbin panics where more is captured than its braces.
func (k *keys) check(pattern string) error {
	if isPlainHoles(pattern, k.begins) {
		return nil
	}
	e, err := k.compile(pattern, nil)
	if holes := k.holes(pattern, nil); len(holes) > 0 && err == nil {
		e, err = k.compile(pattern, holes)
	}
	if err == nil && k.same && e.regex.NumSubexp() != len(e.names) {
		err = errors.New("( counts as a name to keyMatch4: put \\ before it to mean it literally")
	}
	return err
}

// sameNamesMatch matches as keyMatch4 does: where a name stands twice, so must
// what it stands for. Casbin's own remembers each pattern for ever.
func (e *expression) sameNamesMatch(m *Cache, text string) (bool, error) {
	groups, err := e.find(m, text)
	if groups == nil || err != nil {
		return false, err
	}
	for i := range groups {
		groups[i] = withoutMarks(groups[i])
	}
	if len(groups) != len(e.names)+1 {
		return false, fmt.Errorf("keyMatch4 finds %d values for %d names", len(groups)-1, len(e.names))
	}
	for i, name := range e.names {
		if groups[slices.Index(e.names, name)+1] != groups[i+1] {
			return false, nil
		}
	}
	return true, nil
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

// isPlainKey reports whether a pattern of keyMatch2 and its like holds
// nothing but letters, dots, names that fill the rest of a segment, and stars
// that begin one.
func isPlainKey(pattern string, name byte) bool { return isPlainKeyWith(pattern, name, nil) }

// isPlainKeyWith is isPlainKey for a pattern with holes, which are plain between
// slashes.
func isPlainKeyWith(pattern string, name byte, holes []hole) bool {
	if validPrefix(pattern) != len(pattern) {
		return false
	}
	for i := 0; i < len(pattern); i++ {
		switch c := pattern[i]; {
		case len(holes) > 0 && i == holes[0].at:
			i += holes[0].length() - 1
			if holes = holes[1:]; i+1 < len(pattern) && pattern[i+1] != '/' {
				return false
			}
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

// isPlainHoles is isPlainKey for a pattern that may have holes between slashes.
func isPlainHoles(pattern string, name byte) bool {
	if !MayAskNames(pattern) {
		return isPlainKey(pattern, name)
	}
	return isPlainKeyWith(pattern, name, plainHoles(pattern, nil))
}

// segmentEnd returns where the segment of i ends.
func segmentEnd(s string, i int) int {
	if slash := strings.IndexByte(s[i:], '/'); slash >= 0 {
		return i + slash
	}
	return len(s)
}

// A plainKey matches plain patterns as keyMatch2 does.
type plainKey struct {
	name byte
	// Of patterns with holes: cuts says that a path ends before a question mark,
	// but for those in names.
	cuts  bool
	names one
}

// ends reports whether nothing but a name goes on at a place.
func (k *plainKey) ends(text string, at int) bool {
	return at == len(text) || k.cuts && text[at] == '?'
}

// match takes a dot for any character, a name for at least one up to the next
// slash, a star for any number of any. Only the last star is ever tried again:
// what stands before it matches as early as it can, and nothing could come of
// matching it later.
func (k *plainKey) match(text, pattern string) bool {
	name := k.name
	at, i := 0, 0          // in text and pattern
	starAt, star := -1, -1 // where the last star's part begins
	for {
		matched := true
		switch {
		case i == len(pattern):
			if k.ends(text, at) {
				return true
			}
			matched = false
		case pattern[i] == '*':
			i++
			star, starAt = i, at
		case pattern[i] == name && i+1 < len(pattern) && pattern[i+1] != '/':
			end := segmentEnd(text, at)
			if question := strings.IndexByte(text[at:end], '?'); k.cuts && question >= 0 {
				end = at + question
			}
			matched = end > at
			at, i = end, segmentEnd(pattern, i)
		case pattern[i] == '$':
			h, _ := holeAt(pattern, i, "") // nothing else is plain
			var end int
			if end, matched = standsFor(text, at, k.names.of(h)); matched {
				at, i = end, i+h.length()
			}
		case k.ends(text, at):
			if at == len(text) {
				return false // the rest of the pattern wants more, and a later start leaves less
			}
			matched = false
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
		if star < 0 || k.ends(text, starAt) {
			return false
		}
		_, size := utf8.DecodeRuneInString(text[starAt:])
		starAt += size
		at, i = starAt, star
	}
}

func (k *keys) anchors(pattern string) Anchors {
	form := regexForm{begins: true, ends: true, slashStar: true}
	if k.begins == ':' {
		form.name = ':'
	}
	return regexAnchors(pattern, form)
}

func (k *keys) literal(pattern string) (string, bool) {
	prefix, whole := regexLiteral(pattern, k.begins)
	return prefix, whole && !k.cuts // many paths are the same without a query
}

// samples fill in /*, which stands for any depth.
func (k *keys) samples(pattern string) []string {
	pattern = k.names().ReplaceAllString(pattern, "x")
	if !strings.Contains(pattern, "*") {
		return []string{pattern}
	}
	return []string{strings.ReplaceAll(pattern, "*", "x"), strings.ReplaceAll(pattern, "*", "x/y"), strings.ReplaceAll(pattern, "/*", "")}
}

func (k *keys) covers(a, b string) bool {
	prefix, whole := k.literal(b)
	if dir, ok := strings.CutSuffix(a, "/*"); ok && isNamePath(dir) {
		return strings.HasPrefix(prefix, dir+"/")
	}
	if !whole || !isNamePath(b) {
		return false
	}
	ok, err := k.match(nil, b, a, 0)
	return ok && err == nil
}

// isNamePath reports whether a pattern holds nothing but /*, ASCII letters and
// digits, and what often stands between them in a file's name.
func isNamePath(pattern string) bool {
	for i := range len(pattern) {
		c := pattern[i]
		if c == '*' && i > 0 && pattern[i-1] == '/' {
			continue
		}
		if !isNameByte(c) && strings.IndexByte("/. ,", c) < 0 {
			return false
		}
	}
	return true
}

func (*keys) coversEverything(pattern string) bool {
	return pattern == "/*" || pattern == "/.*" || pattern == ".*" || pattern == "*"
}

func (k *keys) isPlain(pattern string, dots bool) bool {
	return isPlainTree(pattern, "/*", dots, k.begins == ':')
}

func (k *keys) unmatchable(pattern string) string { return noPathBegins(k.literal(pattern)) }

func (k *keys) problems(pattern string, all bool) []Problem {
	var found []Problem
	add := func(p Problem) { found = append(found, p) }
	if all {
		found = append(escapeProblems(pattern), queryProblems(pattern)...)
	}
	if all && strings.HasPrefix(pattern, "*") {
		add(unusual("pattern-start", "%s reads a * in the first place as nothing at all and forgets that a path begins there, so it matches in the middle of a path too: begin it with /", k.name))
	}
	text, rest := k.withoutNames(pattern)
	if rest != "" {
		add(tooWide("pattern-rest", "%s reads all of %q as one name, which covers the whole of a directory or file name", k.name, finding.Shorten(rest)))
	}
	if !strings.ContainsAny(text, `|()[]*+?^$\{}:`) {
		if all && wildDot(text) >= 0 {
			add(unusual("pattern-dot", `%s reads . as any character: write \. to mean a dot`, k.name))
		}
		return found
	}
	brackets := false
	if i := alternation(text); i >= 0 {
		add(tooWide("pattern-alternative", "%s reads it as the two halves around |, the first covering all that begins with it and the second all that ends with it: write two lines", k.name))
	}
	if m := plainGroup.FindString(text); m != "" {
		brackets = true
		add(tooNarrow("pattern-brackets", `%s reads (…) as a group, so the pattern does not cover a name with these brackets: write \( and \)`, k.name))
	}
	if m := plainClass.FindString(text); m != "" {
		brackets = true
		add(tooNarrow("pattern-brackets", `%s reads [ ] as one of the characters inside, so the pattern does not cover a name with these brackets: write \[ and \]`, k.name))
	}
	if p, ok := wordClassProblem(k.name, text); ok && !brackets {
		brackets = true
		add(p)
	}
	if m := letterStar.FindString(text); m != "" {
		add(tooNarrow("pattern-star", "%s reads %q as any number of %q: only /* stands for everything below", k.name, m, m[:1]))
	}
	if i := k.metacharacter(text, brackets); i >= 0 {
		c := text[i : i+1]
		escaped := `\` + c
		if strings.Contains(":{}", c) { // an escape would not keep it from being a name
			escaped = fmt.Sprintf(`\x%x`, c)
		}
		add(unusual("pattern-metacharacter", `%s reads %q as part of a pattern: write %s to mean the character`, k.name, c, escaped))
	}
	if i := wildDot(text); i >= 0 {
		add(unusual("pattern-dot", `%s reads . as any character: write \. to mean a dot`, k.name))
	}
	return found
}

// withoutNames puts an underscore in the place of each name and of each /*. The
// rest is a name that goes further than it seems to; empty where none does.
func (k *keys) withoutNames(pattern string) (text, rest string) {
	var b strings.Builder
	for i := 0; i < len(pattern); i++ {
		segment := pattern[i:]
		if n := strings.IndexByte(segment, '/'); n > 0 {
			segment = segment[:n]
		}
		length := 0
		switch {
		case i > 0 && pattern[i-1] == '/' && segment[0] == '*':
			length = 1
		case k.begins == ':' && segment[0] == ':' && i > 0 && pattern[i-1] == '/' && len(segment) > 1:
			length = len(segment)
			if strings.Trim(segment[1:], "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-") != "" {
				rest = segment
			}
		case k.begins == '{' && segment[0] == '{':
			if n := strings.LastIndexByte(segment, '}'); n > 1 {
				length = n + 1
				if strings.IndexByte(segment[:n], '}') >= 0 {
					rest = segment[:length]
				}
			}
		}
		if length == 0 {
			b.WriteByte(pattern[i])
			continue
		}
		b.WriteByte('_')
		i += length - 1
	}
	return b.String(), rest
}

// alternation returns where a | stands outside brackets, or -1.
func alternation(pattern string) int {
	depth, class := 0, false
	for i := 0; i < len(pattern); i++ {
		switch c := pattern[i]; {
		case c == '\\':
			i++
		case class:
			class = c != ']'
		case c == '[':
			class = true
		case c == '(':
			depth++
		case c == ')':
			depth--
		case c == '|' && depth == 0:
			return i
		}
	}
	return -1
}

// metacharacter returns where one stands that no other rule tells of, or -1.
func (k *keys) metacharacter(pattern string, brackets bool) int {
	for i := 0; i < len(pattern); i++ {
		switch c := pattern[i]; c {
		case '\\':
			i++
		case '(', ')', '[', ']':
			if !brackets {
				return i
			}
		case '+', '?', '^', '$', '{', '}':
			return i
		case ':':
			if k.begins == ':' && i+1 < len(pattern) && pattern[i+1] != '/' { // in the middle of a segment
				return i
			}
		}
	}
	return -1
}

// wildDot returns where a dot stands that is neither escaped nor repeated, or
// -1.
func wildDot(pattern string) int {
	class := false
	for i := 0; i < len(pattern); i++ {
		switch c := pattern[i]; {
		case c == '\\':
			i++
		case class:
			class = c != ']'
		case c == '[':
			class = true
		case c == '.' && (i+1 == len(pattern) || strings.IndexByte("*+?{", pattern[i+1]) < 0):
			return i
		}
	}
	return -1
}
