package pattern

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"regexp"
	"regexp/syntax"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"unicode/utf8"
)

// A pattern that one request can use to hold a core is refused, one that takes
// some milliseconds is told of, and what people write is neither.
func TestRegularExpressionThatIsTooLarge(t *testing.T) {
	repeated := func(what string, n int) string { return strings.Repeat(what, n) }
	names := func(n int) string {
		var all []string
		for i := range n {
			all = append(all, fmt.Sprintf("%dproject", i*7919%10007))
		}
		return strings.Join(all, "|")
	}
	const fine, slow, refused = "fine", "slow", "refused"
	for _, tt := range []struct{ function, pattern, want string }{
		{"regexMatch", `^/docs/[^/]+/report-\d{4}-\d{2}\.pdf$`, fine},
		{"regexMatch", `^/(` + names(200) + `)/.*$`, fine},
		{"regexMatch", `^/[a-f0-9]{64}/[a-f0-9]{64}$`, fine},
		{"regexMatch", `^/[a-z]{1,1000}$`, fine},
		{"regexMatch", `.*\.(jpg|jpeg|png|gif|webp|svg|tiff|bmp)$`, fine},
		{"regexMatch", `(` + names(200) + `)`, slow},
		{"regexMatch", `[a-z/]{0,1000}`, slow},
		{"regexMatch", repeated(`[a-z/]{0,1000}`, 40), refused},
		{"regexMatch", `^` + repeated(`[a-z/]{0,1000}`, 40), refused},
		{"regexMatch", `(` + repeated(`[a-z/]{0,500}`, 80) + `)`, refused},
		{"regexMatch", `^(` + repeated("a", 100) + `){1000}$`, refused},
		{"keyMatch2", repeated(`/[a-z/]{0,1000}`, 40), refused},
		{"keyMatch2", `/docs/:id/x[0-9]{1,4}`, fine},
		{"keyMatch3", repeated(`/[a-z/]{0,1000}`, 40), fine}, // braces are names
		{"keyMatch3", repeated(`([a-z/]*)*x?`, 4000), refused},
		{"keyMatch4", `/{id}/x/{id}`, fine},
		{"keyMatch4", repeated(`([a-z/]*)*x?`, 4000), refused},
		{"keyMatch5", repeated(`([a-z/]*)*x?`, 4000), refused},
		{"globMatch", `/**/*.{jpg,jpeg,png,gif,webp,svg,tiff,bmp}`, fine},
		{"globMatch", `/**/{drafts,archive,old}/**/*.{jpg,jpeg,png}`, fine},
		{"globMatch", "/{" + strings.ReplaceAll(names(900), "|", ",") + "}/report.pdf", fine},
		{"globMatch", "/**/{" + strings.ReplaceAll(names(100), "|", ",") + "}/report.pdf", slow},
		{"globMatch", "/**/" + repeated("{a/,a/}", 10) + repeated("a/", 1000) + "b", refused},
		{"keyMatch", repeated("/a*", 1000), fine},
		{"==", repeated("/a", 1000), fine},
	} {
		f, got := named(t, tt.function), fine
		large := new(*TooLargeError)
		switch err := f.Check(tt.pattern); {
		case errors.As(err, large):
			got = refused
		case err != nil:
			t.Errorf("%s %.60q: %v", tt.function, tt.pattern, err)
		case f.Steps(tt.pattern) >= SlowSteps:
			got = slow
		}
		if got != tt.want {
			t.Errorf("%s %.60q is %s, want %s: %d steps", tt.function, tt.pattern, got, tt.want, f.Steps(tt.pattern))
		}
		if tt.want == refused {
			if _, err := f.Match("/a", tt.pattern); !errors.As(err, large) {
				t.Errorf("%s %.60q, where nobody has checked it: %v", tt.function, tt.pattern, err)
			}
		}
	}
}

// drawRegex builds a regular expression of what there is.
func drawRegex(random *rand.Rand, depth int) string {
	pieces := []string{"a", "b", "/", "ab/a", ".", "[ab]", "[^/]", "^", "$", `\b`, "", "é"}
	if depth == 0 || random.IntN(3) == 0 {
		return pieces[random.IntN(len(pieces))]
	}
	one := func() string { return drawRegex(random, depth-1) }
	switch random.IntN(4) {
	case 0:
		return one() + one() + one()
	case 1:
		return "(" + one() + "|" + one() + ")"
	}
	quantifiers := []string{"*", "+", "?", "*?", "{2}", "{0,3}", "{1,9}", "{2,}", "{0}", "{0,}", "{5,7}?"}
	return "(?:" + one() + ")" + quantifiers[random.IntN(len(quantifiers))]
}

// What is measured without compiling is no less than what compiling makes of it,
// and no less than what matching then does, as long as no path is longer.
func TestMeasuredStepsAreEnough(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	tried := 0
	for range 4000 {
		text := drawRegex(random, 4)
		if random.IntN(2) == 0 { // then places count
			text = "^" + text + drawRegex(random, 3)
		}
		re, err := syntax.Parse(text, syntax.Perl)
		if err != nil {
			continue
		}
		tried++
		parts := []string{"a", "b", "/", "ab/a", "é"}
		var path strings.Builder
		for range random.IntN(40) {
			path.WriteString(parts[random.IntN(len(parts))])
		}
		program, err := syntax.Compile(re.Simplify())
		if err != nil {
			t.Fatal(err)
		}
		m := sizeOfRegex(text)
		// Beside the parts of the expression there are one to fail, one to end,
		// and one for an empty alternative or copy here and there.
		if slack := 3; len(program.Inst) > m.instructions+slack {
			t.Fatalf("%q is measured to have %d instructions, and has %d", text, m.instructions, len(program.Inst))
		}
		if did, slack := walkProgram(program, path.String()), 3*(path.Len()+1); did > m.steps+slack {
			t.Fatalf("%q on %q is measured to take %d steps, and takes %d", text, path.String(), m.steps, did)
		}
	}
	// And on the longest path, of what begins at few places at first and then at all.
	long := strings.Repeat("ab", maxObject/2)
	for _, text := range []string{`^[ab]*(abcx|(a|b)y|[ab][ab]z)$`, `^([ab]?[ab]){40}(ax|bx|[ab]y)(ax)?$`, `^(a|b|ab|[ab])*x`, `^a.+b(a|b)?(c|[ab]+d)`} {
		re, err := syntax.Parse(text, syntax.Perl)
		if err != nil {
			t.Fatal(err)
		}
		program, err := syntax.Compile(re.Simplify())
		if err != nil {
			t.Fatal(err)
		}
		if did, most := walkProgram(program, long), sizeOfRegex(text).steps+3*len(long); did > most {
			t.Errorf("%q is measured to take %d steps, and takes %d", text, most, did)
		}
	}
	if tried < 3000 {
		t.Errorf("only %d expressions could be read", tried)
	}
}

// walkProgram counts the instructions that a match tries, each once at each place
// of a text, as Go's own does, which ends no later.
func walkProgram(p *syntax.Prog, text string) (steps int) {
	at, before := map[uint32]bool{}, rune(-1)
	for i := 0; i <= len(text); {
		r, size := rune(-1), 1
		if i < len(text) {
			r, size = utf8.DecodeRuneInString(text[i:])
		}
		here := syntax.EmptyOpContext(before, r)
		seen := map[uint32]bool{}
		var add func(pc uint32)
		add = func(pc uint32) {
			if seen[pc] {
				return
			}
			seen[pc] = true
			switch in := &p.Inst[pc]; in.Op {
			case syntax.InstAlt, syntax.InstAltMatch:
				add(in.Out)
				add(in.Arg)
			case syntax.InstEmptyWidth:
				if syntax.EmptyOp(in.Arg)&^here == 0 {
					add(in.Out)
				}
			case syntax.InstCapture, syntax.InstNop:
				add(in.Out)
			}
		}
		for pc := range at {
			add(pc)
		}
		add(uint32(p.Start))
		at = map[uint32]bool{}
		for pc := range seen {
			steps++
			if in := &p.Inst[pc]; r >= 0 && in.Op >= syntax.InstRune && in.MatchRune(r) {
				at[in.Out] = true
			}
		}
		before, i = r, i+size
	}
	return steps
}

// A match that has begun goes on until its meter has had enough, and no further.
func TestMatchOfOneLargeExpressionCanBeStopped(t *testing.T) {
	enough := errors.New("enough")
	path := "/" + strings.Repeat("ab/", 1300)
	for function, pattern := range map[string]string{
		"regexMatch": strings.Repeat("[a-z/]{0,1000}", 6) + "$x",
		"keyMatch2":  "/(x|[a-z/]{0,900}){1}[a-z/]{0,900}1",
		"keyMatch4":  "/{a}" + strings.Repeat("[a-z/]*b?", 400) + "1",
	} {
		f := named(t, function)
		asked, steps := 0, 0
		m := NewCache(1).Metered(func(n int) error {
			if n > 10*atOnce && asked > 0 {
				t.Errorf("%s: %d steps at once", function, n)
			}
			if asked++; asked > 5 {
				return enough
			}
			steps += n
			return nil
		})
		if ok, err := m.Match(f, path, pattern, 1); ok || !errors.Is(err, enough) {
			t.Errorf("%s: %t, %v", function, ok, err)
		}
		if asked != 6 {
			t.Errorf("%s: asked %d times, five of which let it go on", function, asked)
		}
	}
}

// Whether a text is matched at once or piece by piece makes no difference.
func TestMeteredMatchesAreTheSame(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	texts := []string{"a", "b", "/", "é", "\xff", "ab", "x"}
	for range 300 {
		pattern := drawRegex(random, 4)
		re, err := regexp.Compile(pattern)
		if err != nil {
			continue
		}
		var b strings.Builder
		for range random.IntN(30) {
			b.WriteString(texts[random.IntN(len(texts))])
		}
		text := b.String()
		e := &expression{function: "regexMatch", regex: re, instructions: atOnce} // however short the text
		if got, err := e.matches(nil, text); err != nil || got != re.MatchString(text) {
			t.Errorf("%q on %q: %t, %v", pattern, text, got, err)
		}
		if got, err := e.find(nil, text); err != nil || fmt.Sprintf("%q", got) != fmt.Sprintf("%q", re.FindStringSubmatch(text)) {
			t.Errorf("%q on %q: %q, %v", pattern, text, got, err)
		}
	}
}

// Two thousand patterns in one directory are compiled once each, whatever their
// numbers, and under each function that they have.
func TestCacheOfTwoThousandPatterns(t *testing.T) {
	const patterns = 2000
	for _, apart := range []uint32{1, 2, 3, 4, 1024, 4096} {
		m := NewCache(2 * patterns)
		for round := range 2 {
			compiled := 0
			for i := range uint32(patterns) {
				for _, function := range []string{"regexMatch", "keyMatch3"} {
					f, text := named(t, function), fmt.Sprintf("/d/f[0-9]%d", i)
					if m.recall(function, i*apart) == nil {
						compiled++
					}
					if ok, err := m.Match(f, fmt.Sprintf("/d/f7%d", i), text, i*apart); !ok || err != nil {
						t.Fatalf("%s(%q): %t, %v", function, text, ok, err)
					}
				}
			}
			if want := 2 * patterns * (1 - round); compiled != want {
				t.Errorf("numbers %d apart, round %d: %d are compiled, want %d", apart, round, compiled, want)
			}
		}
	}
}

// However many patterns there are, and however large, no more is remembered than
// the bound says; what is made of a request is not remembered at all.
func TestCacheIsBounded(t *testing.T) {
	m := NewCache(1 << 20)
	regex := named(t, "regexMatch")
	for i := range uint32(200) {
		e := &expression{function: "regexMatch", instructions: 1 + int(i%5)*5000}
		if err := m.keep(e, i); err != nil {
			t.Fatal(err)
		}
		if n := m.compiled.remembered.Load(); n > maxRemembered {
			t.Fatalf("%d instructions are remembered, over %d", n, maxRemembered)
		}
		if m.recall("regexMatch", i) != e {
			t.Fatalf("the latest is forgotten")
		}
	}
	there := 0
	for i := range m.compiled.places {
		if e := m.compiled.places[i].Load(); e != nil {
			there += e.instructions
		}
	}
	if there != int(m.compiled.remembered.Load()) || there < maxRemembered/2 {
		t.Errorf("%d instructions are there, %d are accounted for", there, m.compiled.remembered.Load())
	}
	m = NewCache(100)
	for i := range 100 {
		if ok, err := m.Match(regex, fmt.Sprint("/", i), fmt.Sprintf("^/%d$", i), NoNumber); !ok || err != nil {
			t.Fatal(ok, err)
		}
	}
	if n := m.compiled.remembered.Load(); n != 0 {
		t.Errorf("%d instructions of patterns without a number are remembered", n)
	}
}

// BenchmarkStep says what a step takes at worst: SlowSteps, maxSteps and atOnce are
// chosen by it.
func BenchmarkStep(b *testing.B) {
	paths := []string{"/" + strings.Repeat("a", maxObject-1), strings.Repeat("/abcdefg", maxObject/8)}
	for name, pattern := range map[string]string{
		"repeat": strings.Repeat(`[a-z/]{0,100}`, 2) + `$x`, "nested": `((a*)*){100}x`, "stars": `(.*a){20}x`, "words": `(?:\b|\B|^|$|a?){200}x`, "unicode": `(?i)[\p{L}/]{0,200}x`,
	} {
		re, steps := regexp.MustCompile(pattern), sizeOfRegex(pattern).steps
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				for _, path := range paths {
					if re.MatchString(path) {
						b.Fatal("it matches")
					}
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(paths)*steps), "ns/step")
		})
	}
	glob := "/**/" + strings.Repeat("{a/,a/}", 4) + strings.Repeat("a/", 200) + "b"
	b.Run("glob", func(b *testing.B) {
		f, path := named(b, "globMatch"), strings.Repeat("/a", maxObject/2)
		for b.Loop() {
			if ok, err := f.Match(path, glob); ok || err != nil {
				b.Fatal(ok, err)
			}
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*f.Steps(glob)), "ns/step")
	})
}

// Decisions share what is remembered, also while patterns take each other's place.
func TestCacheIsSharedByDecisions(t *testing.T) {
	regex := named(t, "regexMatch")
	shared := &Cache{compiled: &compiled{places: make([]atomic.Pointer[expression], 4)}}
	var all sync.WaitGroup
	for range 4 {
		m := shared.Metered(func(int) error { return nil })
		all.Go(func() {
			for i := range uint32(2000) {
				id := i % 37
				if ok, err := m.Match(regex, fmt.Sprint("/", id), fmt.Sprintf("^/%d$", id), id); !ok || err != nil {
					t.Errorf("%d: %t, %v", id, ok, err)
					return
				}
				if ok, err := m.Match(regex, "/x", fmt.Sprintf("^/%d$", id), id); ok || err != nil {
					t.Errorf("%d matches another path: %v", id, err)
					return
				}
			}
		})
	}
	all.Wait()
}
