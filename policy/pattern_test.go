package policy

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"unicode/utf8"

	casbinmodel "github.com/casbin/casbin/v2/model"

	"securefiles/authz"
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
		err := checkPattern(name, pattern)
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

// The reason why checkKeyMatch4 counts groups.
func TestKeyMatch4PanicsOnGroups(t *testing.T) {
	casbins := casbinmodel.LoadFunctionMap()
	err := call(casbins.GetFunctions()["keyMatch4"], "/a/x/1", "/a/(x|y)/{id}")
	if err == nil {
		t.Error("it does not: checkKeyMatch4 can go")
	}
}

// However a matcher writes it, a pattern that cannot be compiled is refused.
func TestPatternsAreFoundInMatchers(t *testing.T) {
	s := modelShape{request: []string{"sub", "obj", "act"}, policy: []string{"sub", "obj", "act", "eft"}, effect: allowAndDeny}
	for _, matcher := range []string{
		"keyMatch2(r.obj, p.obj)", "keyMatch2( (r.obj) , (p.obj))", "r.act == p.act && keyMatch3 (r.obj, ((p.obj)))", "r.obj =~ p.obj", "r.obj =~ (p.obj)",
		`keyMatch2(keyGet2(r.obj, "/a/:x", "x"), p.obj)`, `regexMatch("a,b", p.obj)`, `regexMatch("a,b", (p.obj))`, `globMatch("a,b", p.act) || keyMatch4(r.obj, p.obj)`,
	} {
		def, err := parseDefinition("model.conf", s.model(matcher))
		if err != nil {
			t.Errorf("%s: %v", matcher, err)
			continue
		}
		if _, _, err := loadTable(t.Context(), "policy.csv", strings.NewReader("p, alice, /a(?<x, read, allow\n"), def); err == nil {
			t.Errorf("%s: the pattern is accepted", matcher)
		}
	}
}

// Casbin's keyMatch4 remembers each pattern that it was ever given.
func TestKeyMatch4ForgetsPatterns(t *testing.T) {
	s := modelShape{request: []string{"sub", "obj", "act"}, policy: []string{"sub", "obj", "act", "eft"}, effect: allowAndDeny}
	heap := func() int {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int(m.HeapAlloc)
	}
	for i, matcher := range []string{"keyMatch4(r.obj, p.obj) && r.act != p.act", "keyMatch4(r.obj, (p.obj)) && r.act != p.act"} {
		var policy strings.Builder
		const patterns = 4000
		for line := range patterns {
			fmt.Fprintf(&policy, "p, alice, /{a}/{b}/{a}/%d-%d, read, allow\n", i, line)
		}
		w := newWorld(t, s.model(matcher), policy.String(), engineOptions{})
		if w == nil {
			t.Fatal("the model or the policy is refused")
		}
		before := heap()
		for line := range patterns {
			if got, err := w.ours(&authz.Query{Object: fmt.Sprintf("/x/y/x/%d-%d", i, line), Action: "read"}); err != nil || got.allowed {
				t.Fatal(got, err)
			}
			if i == 1 { // it has looked at all
				break
			}
		}
		if grown := heap() - before; grown > patterns*2500 {
			t.Errorf("%s: %d bytes are remembered", matcher, grown)
		}
		runtime.KeepAlive(w)
	}
}
