package pattern

import (
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"unicode/utf8"

	casbinmodel "github.com/casbin/casbin/v2/model"
	"pgregory.net/rapid"
)

func patternFunctions() []string {
	return []string{"globMatch", "regexMatch", "ipMatch", "keyMatch2", "keyMatch3", "keyMatch4", "keyMatch5"}
}

// A pattern that is accepted fails no request, and one that is refused would
// fail each that reaches it.
func FuzzPattern(f *testing.F) {
	for i := range patternFunctions() {
		for _, pattern := range []string{
			"/a/**", "/a/*.pdf", "/a/{b,c}", "/a/[x", "/a/[^]", "/a/[]]", "/a/[a-]", "/a/{x", "/a/}", `/a/\`, `/a/\[`, "", "*", "**",
			"/a/:id/x", "/a/{id}/{id}", "/a/(x|y)/{id}", "/a/(?:x)/{id}", `/a/\(x\)/{id}`, "/c++", "/a|/b", "(?i)x", "{a}{b}", "{a/b}", "/{", "{}", "/*{x}*",
			"10.0.0.0/8", "192.0.2.1", "2001:db8::/32", "10.0.0.0/33", "x", "a{1001}", "/a/\\Q(\\E{id}", "(?P<n>x)", "/a/{[}",
			"[^/a/[^]", "[^/{]", "[^/}]", "{[,],b}", "{a[}],b}", `[^/\[]`, `{[\,],b}`, "{[a-b]c,d}", "[!/]{", "{a,{b,c}}x",
		} {
			for _, path := range []string{"/a/x", "/a/x/1", "", "192.0.2.1"} {
				f.Add(uint8(i), pattern, path)
			}
		}
	}
	casbins := casbinmodel.LoadFunctionMap()
	functions := casbins.GetFunctions()
	f.Fuzz(func(t *testing.T, function uint8, pattern, path string) {
		if !utf8.ValidString(pattern) {
			return // the loader refuses it
		}
		name := patternFunctions()[int(function)%len(patternFunctions())]
		if name == "ipMatch" {
			path = "192.0.2.1" // what is no address fails, whatever the pattern
		}
		check, ok := Checker(name)
		if !ok {
			t.Fatalf("%s takes no patterns", name)
		}
		err := check(pattern)
		failure := call(functions[name], path, pattern)
		if err == nil && failure != nil {
			t.Errorf("%s(%q, %q) is accepted and fails: %v", name, path, pattern, failure)
		}
		// A glob is compiled as far as it is compared, and a group counts in
		// keyMatch4 where it matches: there a request may find nothing. What is too
		// large works, slowly.
		if large := new(*TooLargeError); err != nil && failure == nil && !errors.As(err, large) && name != "globMatch" && name != "keyMatch4" {
			t.Errorf("%s(%q, %q) is refused and works: %v", name, path, pattern, err)
		}
	})
}

func call(function func(...any) (any, error), args ...any) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("panic: %v", r)
		}
	}()
	_, err = function(args...)
	return err
}

// The reason why keys.check counts groups.
func TestKeyMatch4PanicsOnGroups(t *testing.T) {
	casbins := casbinmodel.LoadFunctionMap()
	err := call(casbins.GetFunctions()["keyMatch4"], "/a/x/1", "/a/(x|y)/{id}")
	if err == nil {
		t.Error("it does not: keys.check need not count")
	}
}

// Plain patterns have a matcher of our own: the same, on texts made to match.
func TestPlainKeysMatchAsCasbinSays(t *testing.T) {
	asked, matched := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		asked++
		function := rapid.SampledFrom([]string{"keyMatch2", "keyMatch3", "keyMatch4", "keyMatch5"}).Draw(t, "function")
		name := map[string]string{"keyMatch2": ":id", "keyMatch3": "x{id}", "keyMatch4": "{id}", "keyMatch5": "{id}"}[function]
		var p, x strings.Builder
		for range rapid.IntRange(1, 5).Draw(t, "segments") {
			p.WriteByte('/')
			x.WriteByte('/')
			switch rapid.IntRange(0, 4).Draw(t, "kind") {
			case 0:
				p.WriteString(name)
				x.WriteString(rapid.SampledFrom([]string{"", "a", "xa", "x", "é.b"}).Draw(t, "value"))
			case 1:
				p.WriteString("*" + rapid.SampledFrom([]string{"", "", "b", ".c"}).Draw(t, "rest"))
				x.WriteString(rapid.SampledFrom([]string{"", "b", "b/b", "a/b/c", "éc/b", "/c"}).Draw(t, "value"))
			default:
				s := rapid.SampledFrom([]string{"a", "b", "a.b", "é", "c"}).Draw(t, "literal")
				p.WriteString(s)
				x.WriteString(rapid.SampledFrom([]string{s, s, s, "axb", "a"}).Draw(t, "value"))
			}
		}
		pattern, text := p.String(), x.String()
		f := named(t, function)
		if !isPlainKey(pattern, f.of.(*keys).begins) {
			t.Fatalf("%q is not plain", pattern)
		}
		var m Cache
		got, err := m.Match(f, text, pattern, 0)
		if want, ok := matchPattern(function, text, pattern); err != nil || !ok || got != want {
			t.Fatalf("%s(%q, %q): Casbin %t, ours %t, %v", function, text, pattern, want, got, err)
		}
		if got {
			matched++
		}
	})
	if matched < asked/10 {
		t.Errorf("only %d of %d match", matched, asked)
	}
}

func TestFunctionsHaveOneName(t *testing.T) {
	for name, want := range map[string]string{"=~": "=~", "==": "==", "globMatch": "globMatch", "keyMatch4": "keyMatch4"} {
		if f := named(t, name); f.String() != want || f != named(t, want) {
			t.Errorf("%s is %s", name, f)
		}
	}
	for _, name := range []string{"", "!=", "!~", "g", "ipMatch", "keyGet2", "KeyMatch", "keyMatch6"} {
		if f, ok := ByName(name); ok || f.String() != "" {
			t.Errorf("%q is a function: %s", name, f)
		}
	}
	if named(t, "keyMatch3") == named(t, "keyMatch4") || Equal() != named(t, "==") {
		t.Error("functions are the same that are not, or are not that are")
	}
}

// One cache has the patterns of all functions: what takes turns in a place of it,
// and what two functions read in two ways.
func TestCacheTellsPatternsApart(t *testing.T) {
	one := &Cache{compiled: &compiled{places: make([]atomic.Pointer[expression], 1)}} // which all take turns in
	for _, m := range []*Cache{{}, one, one, NewCache(1), NewCache(10)} {
		for _, tt := range []struct {
			function, text, pattern string
			id                      uint32
			want                    bool
		}{
			{"keyMatch4", "/1/1", "/{a}/{a}", 3, true},
			{"keyMatch4", "/1/2", "/{a}/{a}", 3, false},
			{"keyMatch3", "/1/2", "/{a}/{a}", 3, true},
			{"keyMatch4", "/1/2", "/{a}/{b}", 3 + 1024, true},
			{"keyMatch2", "/b", "/(a|b)", 5, true},
			{"regexMatch", "/x/b/y", "/(a|b)", 5, true},
			{"keyMatch2", "/x/b/y", "/(a|b)", 5, false},
			{"regexMatch", "/x/b/y", "/(a|c)", 5 + 1024, false},
		} {
			if got, err := m.Match(named(t, tt.function), tt.text, tt.pattern, tt.id); err != nil || got != tt.want {
				t.Errorf("%s(%q, %q) is %t, %v", tt.function, tt.text, tt.pattern, got, err)
			}
			if stock, ok := matchPattern(tt.function, tt.text, tt.pattern); !ok || stock != tt.want {
				t.Errorf("%s(%q, %q) is %t to Casbin: mend this test", tt.function, tt.text, tt.pattern, stock)
			}
		}
	}
}

// Casbin panics on such a pattern, in whichever request comes to it.
func TestPatternsThatCannotBeCompiledAreErrors(t *testing.T) {
	for function, pattern := range map[string]string{"keyMatch2": "/a(", "keyMatch3": "/a(", "keyMatch4": "/a(", "keyMatch5": "/a(", "regexMatch": "/a("} {
		f := named(t, function)
		want := f.Check(pattern)
		if want == nil {
			t.Fatalf("%s takes %q: mend this test", function, pattern)
		}
		if _, ok := matchPattern(function, "/a", pattern); ok {
			t.Errorf("%s(%q) does not fail: mend this test", function, pattern)
		}
		var m Cache
		for range 2 {
			if ok, err := m.Match(f, "/a", pattern, 0); ok || err == nil || err.Error() != want.Error() {
				t.Errorf("%s(%q): %t, %v, and not: %v", function, pattern, ok, err, want)
			}
		}
		if f.Covers(pattern, "/a") {
			t.Errorf("%s(%q) covers something", function, pattern)
		}
	}
}

// A decision compares many patterns, and leaves nothing to the collector.
func TestMatchingAllocatesNothing(t *testing.T) {
	for function, pattern := range map[string]string{"==": "/a/b", "keyMatch": "/a/*", "keyMatch2": "/a/:x", "keyMatch3": "/a/{x}", "keyMatch4": "/{x}/b", "keyMatch5": "/a/*", "globMatch": "/a/**", "regexMatch": "^/a/"} {
		f, m := named(t, function), NewCache(1)
		if n := testing.AllocsPerRun(100, func() {
			if ok, err := m.Match(f, "/a/b", pattern, 3); !ok || err != nil {
				t.Fatalf("%s: %t, %v", function, ok, err)
			}
		}); n != 0 {
			t.Errorf("%s allocates %v times", function, n)
		}
	}
}
