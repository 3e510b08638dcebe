package pattern

import (
	"math/rand/v2"
	"strings"
	"testing"

	"securefiles/pathguard"
	"securefiles/policy/internal/finding"

	"github.com/casbin/casbin/v2/util"
)

// named returns the function of a name that there is.
func named(t interface{ Fatalf(string, ...any) }, name string) Func {
	f, ok := ByName(name)
	if !ok {
		t.Fatalf("no function is called %s", name)
	}
	return f
}

// lintFunctions are those that may match an object.
func lintFunctions() []string {
	return []string{"==", "keyMatch", "keyMatch2", "keyMatch3", "keyMatch4", "keyMatch5", "globMatch", "regexMatch"}
}

// matchPattern asks Casbin's own function; ok is false where it fails.
func matchPattern(function, path, pattern string) (matches, ok bool) {
	defer func() {
		if recover() != nil {
			matches, ok = false, false
		}
	}()
	switch function {
	case "==":
		return path == pattern, true
	case "keyMatch":
		return util.KeyMatch(path, pattern), true
	case "regexMatch":
		return util.RegexMatch(path, pattern), true
	case "globMatch":
		matches, err := util.GlobMatch(path, pattern)
		return matches, err == nil
	}
	return map[string]func(string, string) bool{
		"keyMatch2": util.KeyMatch2, "keyMatch3": util.KeyMatch3, "keyMatch4": util.KeyMatch4, "keyMatch5": util.KeyMatch5,
	}[function](path, pattern), true
}

// randomPattern builds a pattern of pieces that mean something to one function
// or another.
func randomPattern(random *rand.Rand) string {
	pieces := []string{"/", "/", "/", "/", "a", "b", "ab", ".", "..", "*", "**", "/*", "/**", ":x", "{x}", "{a,b}", "?", "[a]", "[ab]", "[^a]", `\`, `\*`, " ", "|", "(a)", "+", "%20", "^", "$", ".*", "é", "\t", "//"}
	var b strings.Builder
	if random.IntN(4) > 0 {
		b.WriteByte('/')
	}
	for range 1 + random.IntN(6) {
		b.WriteString(pieces[random.IntN(len(pieces))])
	}
	return b.String()
}

// pathLikePattern builds a path as pathguard accepts them.
func pathLikePattern(random *rand.Rand) string {
	pieces := []string{"a", "b", "a", "b", "ab", ".a", "a.", "..a", "...", "*", ":x", "{x}", "?", "[a]", "|", "(a)", "+", "%20", "^", "$", "é", "a b", "a?b", "?a", ",", "#"}
	var b strings.Builder
	for range 1 + random.IntN(4) {
		b.WriteByte('/')
		for i := range 1 + random.IntN(2) {
			_ = i
			b.WriteString(pieces[random.IntN(len(pieces))])
		}
	}
	return b.String()
}

// What the linter says of patterns holds for every path that is tried: no
// finding is a false alarm.
func TestClaimsAboutPatternsHold(t *testing.T) {
	claims := map[string]int{}
	for seed := range uint64(1000) {
		tryPatterns(t, seed, claims)
	}
	for _, function := range lintFunctions() {
		if claims["impossible "+function] < 10 {
			t.Errorf("%s is called unmatchable %d times only", function, claims["impossible "+function])
		}
		if claims["plain "+function] < 100 && function != "regexMatch" {
			t.Errorf("%s has %d plain patterns only", function, claims["plain "+function])
		}
		if n := claims["cover "+function]; n < 10 && function != "==" && function != "regexMatch" {
			t.Errorf("%s covers %d times only", function, n)
		}
	}
}

func FuzzClaimsAboutPatterns(f *testing.F) {
	f.Add(uint64(1))
	f.Fuzz(func(t *testing.T, seed uint64) { tryPatterns(t, seed, map[string]int{}) })
}

func tryPatterns(t *testing.T, seed uint64, claims map[string]int) {
	random := rand.New(rand.NewPCG(seed, 8))
	a, b := randomPattern(random), randomPattern(random)
	switch random.IntN(4) {
	case 0: // related ones
		b = strings.TrimRight(a, "*") + b
	case 1:
		trees := []string{"/*", "/**", "/a/*", "/a/**", "/a/b/*", "/:x/b", "/{x}/*", "/a*", "/a/{x}", "/*/b", "/a/b", "/a"}
		a, b = trees[random.IntN(len(trees))], trees[random.IntN(len(trees))]
	case 2:
		a = "^" + a
	}
	var paths []string
	for range 40 {
		paths = append(paths, pathLikePattern(random))
	}
	// A pattern is often a path that it matches.
	for _, p := range []string{a, b} {
		if p = strings.NewReplacer("**", "a", "*", "b", `\`, "").Replace(p); accepted(p) {
			paths = append(paths, p, p+"/a", p+"/a/b", p+"a")
		}
	}
	for _, function := range lintFunctions() {
		f := named(t, function)
		for _, pattern := range append([]string{a, b}, paths...) {
			for _, p := range f.lookAt(pattern, true) {
				bad := p.Allow == finding.SeverityError || p.Deny == finding.SeverityError
				if f.of.isPlain(pattern, false) || bad && f.of.isPlain(pattern, true) {
					t.Fatalf("%s %q is called plain, but %s", function, pattern, p.Message)
				}
			}
			if f.of.isPlain(pattern, false) {
				claims["plain "+function]++
			}
		}
		if f.Check(a) != nil || f.Check(b) != nil {
			continue
		}
		impossible, everything, cover := f.of.unmatchable(a) != "", f.CoversEverything(a), f.Covers(a, b)
		if cover && a != b && !f.CoversOthers() {
			t.Fatalf("%s: %q covers %q, and is said to cover itself alone", function, a, b)
		}
		prefix, whole := f.Literal(a)
		for _, path := range paths {
			byA, okA := matchPattern(function, path, a)
			byB, okB := matchPattern(function, path, b)
			if !okA || !okB {
				continue
			}
			if impossible && byA {
				t.Fatalf("%s %q is called unmatchable and matches %q", function, a, path)
			}
			if everything && !byA {
				t.Fatalf("%s %q does not match %q", function, a, path)
			}
			if cover && byB && !byA {
				t.Fatalf("%s: %q does not cover %q: it does not match %q", function, a, b, path)
			}
			if byA && !strings.HasPrefix(path, prefix) {
				t.Fatalf("%s %q matches %q without %q", function, a, path, prefix)
			}
			if whole && byA && path != prefix {
				t.Fatalf("%s %q matches %q", function, a, path)
			}
			if cover && byB && a != b {
				claims["cover "+function]++
			}
		}
		if impossible {
			claims["impossible "+function]++
		}
	}
}

// accepted asks pathguard, which is what no request gets past.
func accepted(path string) bool {
	_, err := pathguard.New(path)
	return err == nil
}

// What is called no path is none to pathguard, limits included.
func TestPathguardRefusesWhatNoPathHas(t *testing.T) {
	long := strings.Repeat("/"+strings.Repeat("n", maxName), maxObject/(maxName+1))
	for _, tt := range []struct {
		path string
		fine bool
	}{
		{"/a/b", true},
		{"/a/.b", true},
		{"/a/b.", true},
		{"/a b/...", true},
		{"/" + strings.Repeat("n", maxName), true},
		{"/" + strings.Repeat("n", maxName+1), false},
		{long, true},
		{long + "/n", false},
		{"/a//b", false},
		{"/a/", false},
		{"/a/./b", false},
		{"/a/..", false},
		{"/a/b\\c", false},
		{"/a/b\tc", false},
		{"/a/b\u0085c", false},
		{"/a/ b", false},
		{"/a /b", false},
		{"/a/\u00a0b", false},
		{"a/b", false},
	} {
		if why := noPathBegins(tt.path, true); (why == "") != tt.fine {
			t.Errorf("%.40q: %q", tt.path, why)
		}
		if accepted(tt.path) != tt.fine {
			t.Errorf("%.40q: pathguard takes it: %t", tt.path, !tt.fine)
		}
	}
}

// Where doubt is, nothing is said.
func TestPatternsThatMayMatch(t *testing.T) {
	for _, tt := range []struct{ function, pattern, path string }{
		{"globMatch", "/a/**/", "/a"},
		{"globMatch", "**", "/a/b"},
		{"globMatch", "**/a", "/a"},
		{"globMatch", "*/a", "/a"},
		{"globMatch", "/{a,b}", "/a"},
		{"globMatch", "/[ab]/.*", "/a/.x"},
		{"globMatch", `/\a`, "/a"},
		{"globMatch", "/...", "/..."},
		{"keyMatch", "/a/.*", "/a/.x"},
		{"keyMatch", "/a/..*", "/a/..x"},
		{"keyMatch", "*", "/a"},
		{"keyMatch2", "/a/../b", "/a/xy/b"},
		{"keyMatch5", "/a/", "/a/?x"},
		{"regexMatch", "^//*a", "/a"},
		{"regexMatch", "a", "/a"},
		{"regexMatch", "^a?/b", "/b"},
	} {
		if matches, ok := matchPattern(tt.function, tt.path, tt.pattern); !matches || !ok {
			t.Errorf("%s %q does not match %q: mend this test", tt.function, tt.pattern, tt.path)
		}
		if why := named(t, tt.function).of.unmatchable(tt.pattern); why != "" {
			t.Errorf("%s %q: %s", tt.function, tt.pattern, why)
		}
	}
}
