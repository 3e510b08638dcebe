package pattern

import (
	"fmt"
	"strings"
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
		// keyMatch4 where it matches: there a request may find nothing.
		if err != nil && failure == nil && name != "globMatch" && name != "keyMatch4" {
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
	matched := 0
	rapid.Check(t, func(t *rapid.T) {
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
	if matched < 10 {
		t.Errorf("only %d matches", matched)
	}
}
