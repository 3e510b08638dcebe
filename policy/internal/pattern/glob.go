package pattern

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"securefiles/policy/internal/finding"

	"github.com/bmatcuk/doublestar/v4"
	"github.com/casbin/casbin/v2/util"
)

// glob is globMatch.
type glob struct{ traits }

// globSpecial are the characters that a glob reads in a way of its own.
const globSpecial = `*?[{\`

func (g *glob) match(m *Cache, text, pattern string, id uint32) (bool, error) {
	if err := g.checkSteps(pattern, id); err != nil {
		return false, err
	}
	return g.matchChecked(m, text, pattern)
}

// checkSteps is for what nobody has checked.
func (g *glob) checkSteps(pattern string, id uint32) error {
	if id != NoNumber {
		return nil
	}
	return size{steps: g.steps(pattern)}.check()
}

func (*glob) matchChecked(m *Cache, text, pattern string) (bool, error) {
	// Each comma may stand for another pattern to try.
	if err := m.spend(len(text) * (1 + strings.Count(pattern, ","))); err != nil {
		return false, err
	}
	return util.GlobMatch(text, pattern)
}

// holes stand between slashes, outside of braces and classes.
func (*glob) holes(pattern string, holes []hole) []hole {
	depth := 0
	for i := 0; i < len(pattern); i++ {
		switch pattern[i] {
		case '\\':
			i++
		case '{':
			depth++
		case '}':
			depth--
		case '[':
			i = globClassEnd(pattern, i)
		case '$':
			if h, ok := holeAt(pattern, i, ""); ok && depth == 0 {
				holes = append(holes, h)
			}
		}
	}
	return holes
}

// globClassEnd returns where the class of a glob ends that begins at i. A regular
// expression's is another: there a ] in the first place does not end it.
func globClassEnd(pattern string, i int) int {
	for i++; i < len(pattern) && pattern[i] != ']'; i++ {
		if pattern[i] == '\\' {
			i++
		}
	}
	return i
}

// maxTries bounds how many segments of a path are tried for names behind a **.
const maxTries = 1024

func (g *glob) matchNames(m *Cache, path, pattern string, id uint32, holes []hole, names one) (bool, error) {
	if err := g.checkSteps(pattern, id); err != nil {
		return false, err
	}
	return g.matchHoles(m, path, pattern, 0, holes, names, nil)
}

// matchHoles matches what stands before the first hole for each segment that is its
// name, and then the rest. Each part is a pattern by itself: a name never is. So
// much of the pattern is done already.
func (g *glob) matchHoles(m *Cache, path, pattern string, done int, holes []hole, names one, tries *int) (bool, error) {
	if len(holes) == 0 {
		return g.matchChecked(m, path, pattern[done:])
	}
	h := holes[0]
	before, behind := pattern[done:h.at], h.at+h.length()
	if !strings.ContainsAny(before, globSpecial) { // nearly every pattern
		if !strings.HasPrefix(path, before) {
			return false, nil
		}
		end, ok := standsFor(path, len(before), names.of(h))
		if !ok {
			return false, nil
		}
		return g.matchHoles(m, path[end:], pattern, behind, holes[1:], names, tries)
	}
	if tries == nil {
		tries = new(int)
	}
	return g.tryHole(m, path, pattern, done, holes, names, tries)
}

// tryHole is matchHoles for one segment after another.
func (g *glob) tryHole(m *Cache, path, pattern string, done int, holes []hole, names one, tries *int) (bool, error) {
	h := holes[0]
	before, behind, mark := pattern[done:h.at], h.at+h.length(), string(rune(h.mark))
	for segment, at := range segments(path) {
		if segment != names.of(h) {
			continue
		}
		if *tries++; *tries > maxTries {
			return false, errTries
		}
		ok, err := g.matchChecked(m, path[:at]+mark, before+mark)
		if ok && err == nil {
			ok, err = g.matchHoles(m, path[at+len(segment):], pattern, behind, holes[1:], names, tries)
		}
		if ok || err != nil {
			return ok, err
		}
	}
	return false, nil
}

func (*glob) anyName(marked string) string { return replaceMarks(marked, "*") }

func (*glob) needsMemory(string) bool { return false }

// steps counts that globMatch may begin anew at each place of a path, behind its
// last wildcard, and does so for each pattern that its braces stand for. A third
// of what a step of a regular expression takes is enough for one.
func (*glob) steps(pattern string) int {
	if !strings.ContainsAny(pattern, "*") {
		return 0
	}
	type group struct{ begin, longest, ways int }
	ways, run, longest, open := 1, 0, 0, []group(nil)
	for i := 0; i < len(pattern); i++ {
		c := pattern[i]
		switch last := len(open) - 1; {
		case c == '*':
			run = 0
		case c == '{':
			open = append(open, group{run, run, 1})
		case c == ',' && last >= 0:
			open[last].longest, open[last].ways = max(open[last].longest, run), open[last].ways+1
			run = open[last].begin
		case c == '}' && last >= 0:
			run, ways = max(open[last].longest, run), min(maxWays, ways*open[last].ways)
			open = open[:last]
		default:
			if run++; c == '\\' {
				i++
			}
		}
		longest = max(longest, run)
	}
	return ways * places * (1 + min(longest, places)) / 3
}

// maxWays is how many patterns the braces of a glob may stand for. globMatch
// tries one after another, from where they begin.
const maxWays = 1024

// check refuses what globMatch cannot read. It reads a pattern as far as a
// path matches, and looks for the rest of a class or of braces as if it stood
// alone, so that some brackets in a class fail for some paths.
func (g *glob) check(pattern string) error {
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
	return size{steps: g.steps(pattern)}.check()
}

// anchors leave out a slash beside what is no letter: a ** between slashes stands
// for no directory at all too, so it need not be there. /a/** matches /a.
func (*glob) anchors(pattern string) Anchors {
	first := strings.IndexAny(pattern, globSpecial)
	if first < 0 {
		return literalAnchors(pattern, true)
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

func (*glob) literal(pattern string) (string, bool) {
	first := strings.IndexAny(pattern, globSpecial)
	if first < 0 {
		return pattern, true
	}
	prefix := pattern[:first]
	if pattern[first] == '{' || strings.HasPrefix(pattern[first:], "**") {
		prefix = strings.TrimSuffix(prefix, "/") // /a/** covers /a
	}
	return prefix, false
}

func (g *glob) covers(a, b string) bool {
	prefix, whole := g.literal(b)
	if dir, ok := strings.CutSuffix(a, "/**"); ok && !strings.ContainsAny(dir, globSpecial) {
		return strings.HasPrefix(prefix, dir+"/") || b == dir || dir == "" && strings.HasPrefix(b, "/")
	}
	if dir, ok := strings.CutSuffix(a, "/*"); ok && !strings.ContainsAny(dir, globSpecial) {
		name, ok := strings.CutPrefix(b, dir+"/")
		return ok && name != "" && !strings.ContainsAny(name, `/[{\`) && !strings.Contains(name, "**")
	}
	if !whole || g.check(a) != nil {
		return false
	}
	ok, err := g.match(nil, b, a, 0)
	return ok && err == nil
}

func (*glob) coversEverything(pattern string) bool { return pattern == "/**" || pattern == "**" }

func (*glob) isPlain(pattern string, _ bool) bool {
	if strings.HasSuffix(pattern, "/**") {
		return isPlainTree(pattern, "/**", true, false)
	}
	return isPlainTree(pattern, "/*", true, false)
}

func (*glob) samples(pattern string) []string { return sampleGlob(pattern) }

// sampleGlob fills in a pattern of globMatch.
func sampleGlob(pattern string) []string {
	out := []string{""}
	add := func(texts ...string) {
		var next []string
		for _, o := range out {
			for _, t := range texts {
				if len(next) < maxSamples {
					next = append(next, o+t)
				}
			}
		}
		out = next
	}
	for i := 0; i < len(pattern); i++ {
		switch c := pattern[i]; {
		case c == '\\' && i+1 < len(pattern):
			i++
			add(pattern[i : i+1])
		case strings.HasPrefix(pattern[i:], "/**/"): // no level at all, too
			add("/", "/x/", "/x/y/")
			i += len("/**/") - 1
		case pattern[i:] == "/**":
			add("/x", "/x/y", "")
			i = len(pattern)
		case strings.HasPrefix(pattern[i:], "**"):
			add("x")
			i++
		case c == '*' || c == '?':
			add("x")
		case c == '[':
			end := globClassEnd(pattern, i)
			texts := []string{"x", "0", "_"}
			for _, first := range strings.TrimLeft(pattern[i+1:min(end, len(pattern))], `^!\`) {
				texts = append([]string{string(first)}, texts...)
				break
			}
			add(texts...)
			i = end
		case c == '{':
			end, alternatives := braces(pattern, i)
			var texts []string
			for _, a := range alternatives {
				texts = append(texts, sampleGlob(a)...)
			}
			add(texts...)
			i = end
		default:
			add(pattern[i : i+1])
		}
	}
	return out
}

// braces returns where the braces that begin at i end, and what they hold.
func braces(pattern string, i int) (end int, alternatives []string) {
	depth, start := 0, i+1
	for j := i; j < len(pattern); j++ {
		switch pattern[j] {
		case '\\':
			j++
		case '{':
			depth++
		case ',':
			if depth == 1 {
				alternatives, start = append(alternatives, pattern[start:j]), j+1
			}
		case '}':
			if depth--; depth == 0 {
				return j, append(alternatives, pattern[start:j])
			}
		}
	}
	return len(pattern), append(alternatives, pattern[start:])
}

func (*glob) problems(pattern string, all bool) []Problem {
	var found []Problem
	if all {
		found = append(escapeProblems(pattern), queryProblems(pattern)...)
	}
	if strings.Contains(pattern, `\`) && plainEscape.MatchString(pattern) {
		found = append(found, tooNarrow("pattern-backslash", `globMatch passes over a \ before a letter, and no path has one: separate directories by /`))
	}
	if strings.ContainsRune(pattern, '{') {
		return found // alternatives may hold anything
	}
	if strings.Contains(pattern, "[") && plainClass.MatchString(pattern) {
		found = append(found, tooNarrow("pattern-brackets", `globMatch reads [ ] as one of the characters inside, so the pattern does not cover a name with these brackets: write \[ and \]`))
	} else if p, ok := wordClassProblem("globMatch", pattern); ok {
		found = append(found, p)
	}
	if strings.Count(pattern, "**") == 0 {
		return found
	}
	if strings.HasSuffix(pattern, "/**/") {
		found = append(found, tooNarrow("pattern-double-star", "/**/ at the end is the directory itself and nothing below it: write /**"))
	}
	for segment := range strings.SplitSeq(pattern, "/") {
		if len(segment) > 2 && strings.Trim(segment, "*") == "" {
			found = append(found, tooNarrow("pattern-double-star", "%s is any number of characters on one level: write ** for any depth", segment))
			break
		}
		if i := strings.Index(segment, "**"); i >= 0 && strings.Trim(segment, "*") != "" && !strings.ContainsAny(segment, `\[`) {
			found = append(found, tooNarrow("pattern-double-star", "** is any depth only between slashes, in %q it stays on one level: write **/%s", finding.Shorten(segment), finding.Quoted(strings.ReplaceAll(segment, "**", "*"))))
			break
		}
	}
	return found
}

// unmatchable looks at each segment as far as no class, no alternative and no
// escape comes.
func (*glob) unmatchable(pattern string) string {
	if i := strings.Index(pattern, `\\`); i >= 0 && !strings.ContainsAny(pattern[:i], `[{\`) {
		return "no path has a backslash"
	}
	segments := strings.Split(pattern, "/")
	if i := strings.IndexAny(pattern, `[{\`); i >= 0 {
		segments = strings.Split(pattern[:i], "/")
		segments = segments[:len(segments)-1]
	}
	if len(segments) == 0 {
		return ""
	}
	if strings.Trim(segments[0], "*") != "" || segments[0] == "" && pattern == "" {
		return "every path begins with a slash"
	}
	if len(segments) == 1 && pattern == segments[0] && pattern != "**" {
		return "every path begins with a slash, which * does not cover"
	}
	whole := len(segments) == strings.Count(pattern, "/")+1
	for i, segment := range segments[1:] {
		if segments[i] == "**" && segment == "" {
			return "" // ** takes such a slash in
		}
		last := whole && i == len(segments)-2
		if why := badGlobSegment(segment, last); why != "" {
			return why
		}
	}
	return ""
}

func badGlobSegment(segment string, last bool) string {
	star := strings.IndexAny(segment, "*?")
	if star < 0 {
		return badSegment(segment, last, true)
	}
	if why := badSegment(segment[:star], last, false); why != "" {
		return why
	}
	rest := segment[strings.LastIndexAny(segment, "*?")+1:]
	if rest != strings.TrimRightFunc(rest, unicode.IsSpace) {
		return "no segment ends with a blank"
	}
	return ""
}
