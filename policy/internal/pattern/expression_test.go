package pattern

import (
	"regexp"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// Every path of a few short segments.
func shortPaths() []string {
	segments := []string{"a", "b", "ab", "a.b", "b?a"}
	paths := []string{}
	for level, below := 0, []string{""}; level < 3; level++ {
		var next []string
		for _, dir := range below {
			for _, s := range segments {
				next = append(next, dir+"/"+s)
			}
		}
		paths, below = append(paths, next...), next
	}
	return paths
}

// matchesExpression reads a path as an Expression says.
func matchesExpression(compiled *regexp.Regexp, e Expression, path string) bool {
	if e.Cuts {
		path, _, _ = strings.Cut(path, "?")
	}
	return compiled.MatchString(path)
}

// What a pattern means as a regular expression is what the function means, for
// any pattern that it accepts.
func TestExpressionMeansWhatTheFunctionMeans(t *testing.T) {
	paths := shortPaths()
	pieces := map[string][]string{
		"==":         {"/", "a", "b", ".", "*", "(", "[ab]"},
		"keyMatch":   {"/", "a", "b", "*", "/*", ".", "("},
		"keyMatch2":  {"/", "a", "b", "/*", ":x", "*", "a?", "[ab]", "(a|b)", "|", ".", `\.`, "+", "$", "^"},
		"keyMatch3":  {"/", "a", "b", "/*", "{x}", "{y}", "*", "a?", "[ab]", "(a|b)", "|", ".", `\.`},
		"keyMatch4":  {"/", "a", "b", "/*", "{x}", "{y}", "*", "a?", "[ab]", "|", ".", `\.`},
		"keyMatch5":  {"/", "a", "b", "/*", "{x}", "{y}", "*", "[ab]", "(a|b)", "|", ".", `\?`, "a"},
		"globMatch":  {"/", "/", "/", "a", "b", "*", "**", "/**", "**/", "?", "[ab]", "[^a]", "[!b-x]", "[a-]", `[\]-b]`, "{a,b}", "{,a}", "{a,b/x}", "{a*,b}", "{a,{b,x}}", `\a`, ".", "{a,**}", "{/a,b}", "{a/,b}"},
		"regexMatch": {"/", "^", "$", "a", "b", "[ab]", "(a|b)", ".*", "a+", "|", `\.`, "(?i)A", "[^/]+", `\b`, `\B`, "(?m)^", "?"},
	}
	for name, pieces := range pieces {
		f := named(t, name)
		exact, wider, matched := 0, 0, 0
		rapid.Check(t, func(t *rapid.T) {
			pattern := strings.Join(rapid.SliceOfN(rapid.SampledFrom(pieces), 1, 7).Draw(t, "pieces"), "")
			if rapid.Bool().Draw(t, "rooted") && name != "regexMatch" {
				pattern = "/" + pattern
			}
			if f.Check(pattern) != nil {
				t.Skip()
			}
			e := f.Expression(pattern, Names{})
			compiled, err := regexp.Compile(e.Text)
			if err != nil {
				t.Fatalf("%s %q: %q: %v", name, pattern, e.Text, err)
			}
			if exact++; e.Wider {
				wider++
			}
			for _, path := range paths {
				want, err := f.Match(path, pattern)
				if err != nil {
					t.Fatalf("%s %q: %v", name, pattern, err)
				}
				got := matchesExpression(compiled, e, path)
				if want && !got || got && !want && !e.Wider {
					t.Fatalf("%s %q: %q says %t of %s, the function %t", name, pattern, e.Text, got, path, want)
				}
				if want {
					matched++
				}
			}
		})
		if t.Logf("%s: %d patterns, %d wider, %d matches", name, exact, wider, matched); matched == 0 || wider*5 > exact*4 { // else the comparisons say little
			t.Errorf("%s: %d patterns, %d wider, %d matches", name, exact, wider, matched)
		}
	}
}
