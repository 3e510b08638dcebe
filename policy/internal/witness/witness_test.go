package witness

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"securefiles/pathguard"
	"securefiles/policy/internal/pattern"
)

// shortPaths are all paths of a few characters.
func shortPaths(alphabet string, length int) []string {
	var paths []string
	level := []string{"/"}
	for range length {
		var next []string
		for _, p := range level {
			for _, c := range alphabet {
				next = append(next, p+string(c))
			}
		}
		for _, p := range next {
			if pattern.IsPath(p) {
				paths = append(paths, p)
			}
		}
		level = next
	}
	return paths
}

// matches returns the patterns that a path matches, ascending.
func (f *Finder) matches(path string) []int {
	at := f.first()
	for _, r := range path {
		at = f.step(&at, r)
	}
	return f.ends(&at)
}

// Each set of patterns that a short path matches is found, and each path that is
// found matches what it is said to: against trying all of them.
func TestFindAgreesWithTryingAllPaths(t *testing.T) {
	paths := shortPaths("ab/.? ", 4)
	functions := map[string][]string{
		"==":         {"/a", "/a/b", "/a.b", "/b", "/$sub"},
		"keyMatch":   {"/a*", "/a/*", "/*", "/a/b", "*", "/$sub", "/$sub/*", "/a/$group"},
		"keyMatch2":  {"/a/:x", "/:x/b", "/a/*", "/a.b", `/a\.b`, "/a?b", "/a|/b", "/:x/*", "/[ab]", "/$sub", "/$sub/*", "/:x/$sub", "/$group/b", "/$sub(/b)?", "(/$sub|/b)", "/.*/$group"},
		"keyMatch5":  {"/{x}", "/a/{x}", "/a/*", "/{x}/b", "/a|b", "/.b", "/$sub", "/{x}/$sub", "/$group/*", "/$sub/b"},
		"globMatch":  {"/**", "/a/**", "/**/b", "/*", "/?", "/a?", "/[ab]", "/[^a]", "/{a,b}/*", "/a/?", "/*.b", `/\a`, "/**/a/**", "/$sub", "/$sub/**", "/**/$sub", "/**/$group/**", "/$group/*", "/*/$sub", "/$sub/$group", "/{a,b}/$sub", "/[^a]/$sub/**", `/\$sub`},
		"regexMatch": {"^/a", "b$", "^/[ab]$", "a/", `\.`, "^/(a|b)/", "(?i)A", `\bb`, `b\B`, "^/.{2}$", "", "(?m)^a", "(?m)a$", "^/$sub", "/$sub$", "^/$sub/", "^/$group(/b)?$", "(?i)^/$sub(/|$)", "^(/$sub|/b/$group)", "a/$sub|b$", "(?m)/$sub$"},
	}
	var names []string
	for name := range functions {
		names = append(names, name)
	}
	slices.Sort(names)
	searched, sets, wider := 0, 0, 0
	rapid.Check(t, func(t *rapid.T) {
		who := pattern.Names{Subject: rapid.SampledFrom([]string{"", "a", "b", "a.b", "x", ".b", "B", "b?"}).Draw(t, "subject")}
		who.Groups = rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"a", "b", "ab", "?"}), 0, 2, rapid.ID).Draw(t, "groups")
		var functionsOf []pattern.Func
		var texts []string
		var expressions []pattern.Expression
		for range rapid.IntRange(1, 5).Draw(t, "patterns") {
			f, _ := pattern.ByName(rapid.SampledFrom(names).Draw(t, "function"))
			text := rapid.SampledFrom(functions[f.String()]).Draw(t, "pattern")
			e := f.Expression(text, who)
			if e.Wider { // no set that is found is certain then
				wider++
				continue
			}
			functionsOf, texts, expressions = append(functionsOf, f), append(texts, text), append(expressions, e)
		}
		finder, err := New(expressions)
		if err != nil {
			t.Fatal(err)
		}
		matches := func(path string) []int {
			var out []int
			for i, f := range functionsOf {
				if ok, err := f.MatchPath(path, texts[i], who); ok && err == nil {
					out = append(out, i)
				}
			}
			return out
		}
		var oneOf []int
		if rapid.Bool().Draw(t, "one of") && len(expressions) > 0 {
			oneOf = []int{0}
		}
		found, all, err := finder.Find(t.Context(), oneOf, &Budget{1 << 24})
		if err != nil || !all {
			t.Fatalf("%q: all %t, %v", texts, all, err)
		}
		have := map[string]bool{}
		for _, w := range found {
			if _, err := pathguard.New(w.Path); err != nil {
				t.Fatalf("%q: %q: %v", texts, w.Path, err)
			}
			if want := matches(w.Path); !slices.Equal(want, w.Matches) || !slices.Equal(finder.matches(w.Path), want) {
				t.Fatalf("%v %q: %s is said to match %v and %v, and matches %v", functionsOf, texts, w.Path, w.Matches, finder.matches(w.Path), want)
			}
			have[fmt.Sprint(w.Matches)] = true
		}
		searched++
		sets += len(found)
		for _, path := range paths {
			set := matches(path)
			if (oneOf == nil || slices.Contains(set, 0)) && !have[fmt.Sprint(set)] {
				t.Fatalf("%v %q: %s matches %v, which was not found", functionsOf, texts, path, set)
			}
		}
	})
	if t.Logf("%d searches, %d sets, %d wider", searched, sets, wider); sets < 2*searched || wider > searched {
		t.Errorf("%d searches found %d sets, %d patterns are wider", searched, sets, wider)
	}
}

// The character that stands for others is one that a path may have.
func TestFindReadsOddCharacters(t *testing.T) {
	for _, tt := range []struct{ expression, want string }{
		{`^/a\x{a0}b$`, "/a\u00a0b"},
		{`^/[\x{0}-\x{2e}]$`, "/-"},
		{`^/[.]$`, ""},
		{`^/[.]+$`, "/..."},
		{`^/ $`, ""},
		{`^/a\x{0}$`, ""},
		{`^/\\$`, ""},
		{`^/é[^/]日$`, "/éx日"},
		{`^/a//b$`, ""},
		{`^/a/$`, ""},
	} {
		f, err := New([]pattern.Expression{{Text: tt.expression}})
		if err != nil {
			t.Fatal(err)
		}
		found, all, err := f.Find(t.Context(), []int{0}, &Budget{1 << 20})
		if err != nil || !all {
			t.Fatal(all, err)
		}
		got := ""
		for _, w := range found {
			if len(w.Matches) > 0 {
				got = w.Path
			}
		}
		if got != tt.want {
			t.Errorf("%s: %q, want %q", tt.expression, got, tt.want)
		}
	}
}

// What would take too long is not looked for to the end, and said so.
func TestFindIsBounded(t *testing.T) {
	var expressions []pattern.Expression
	for i := range 40 {
		expressions = append(expressions, pattern.Expression{Text: strings.Repeat(".", i) + "a"})
	}
	f, err := New(expressions)
	if err != nil {
		t.Fatal(err)
	}
	budget := &Budget{100_000}
	if _, all, err := f.Find(t.Context(), nil, budget); all || err != nil || budget.Left >= 0 {
		t.Errorf("all %t, %v, %d left", all, err, budget.Left)
	}
}
