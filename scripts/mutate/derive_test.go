package main

import (
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func weaverOf(t *testing.T, text string) *weaver {
	t.Helper()
	fset := token.NewFileSet()
	file, err := parser.ParseFile(fset, "code.go", text, 0)
	if err != nil {
		t.Fatal(err)
	}
	info := &types.Info{Types: map[ast.Expr]types.TypeAndValue{}}
	pkg, err := (&types.Config{Importer: importer.Default()}).Check("code", fset, []*ast.File{file}, info)
	if err != nil {
		t.Fatal(err)
	}
	return &weaver{fset: fset, file: file, text: []byte(text), pkg: pkg, info: info, skip: regexp.MustCompile(`\.skipped$`), next: new(int), keys: map[string]int{}}
}

// What can be wrong about each kind of code; what a constant, a name of an
// enumeration or a mark such as -1 is, is none of it.
func TestMistakesAreDerivedFromTheCode(t *testing.T) {
	for _, tt := range []struct {
		name, code string
		want       []string
	}{
		{"a comparison is turned, and one that orders is moved by one", "ok := a < b || a == b; _ = ok", []string{
			"a < b || a == b without a < b", "a < b || a == b without a == b", "a < b turned", "a < b is <=", "a == b turned",
		}},
		{"a condition holds always, or never; what only returns is left out with it", "if ok() { return }; a = 2", []string{
			"ok() is true", "ok() is false", "a = 2, of which 2 is one more", "a = 2, of which 2 is one less",
		}},
		{"a return behind something else is left out", "if ok() { a = b; return }; b = a", []string{
			"ok() is true", "ok() is false", "if ok(): return left out",
		}},
		{"so is a way out of a loop", "for range s { if ok() { a = b; continue }; b = a }", []string{
			"ok() is true", "ok() is false", "if ok(): continue left out",
		}},
		{"bounds are off by one", "for range a { s = s[b:] }", []string{
			"a as a bound is one more", "a as a bound is one less", "b as a bound is one more", "b as a bound is one less",
		}},
		{"a number in a comparison that orders is off by one where it is not moved already", "ok := a < 5; _ = ok", []string{
			"a < 5 turned", "a < 5 is <=", "a < 5, of which 5 is one less",
		}},
		{"a choice is never taken", "switch k { case one: a = b }", []string{"case one never"}},
		{"a choice without a value is a condition", "switch { case ok(): a = b }", []string{"ok() is true", "ok() is false"}},
		{"a number that is equal or not is no bound", "ok := a == 5; _ = ok", []string{"a == 5 turned"}},
		{"no mistake", "const c = 3; a = -1; k = one; var list [4]int; a = 0xff; _ = list", nil},
	} {
		w := weaverOf(t, "package code\ntype kind int\nconst one kind = 1\nfunc ok() bool\nfunc skipped(a, b int) bool { return a < b }\nfunc f(a, b int, s []int, k kind) {\n"+tt.code+"\n}\n")
		var got []string
		for _, m := range w.derive() {
			got = append(got, strings.TrimPrefix(m.key, "code.f: "))
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s: -want +got\n%s", tt.name, diff)
		}
	}
}

// A mistake keeps its key where lines move, and no two have the same.
func TestKeysTellMistakesApart(t *testing.T) {
	w := weaverOf(t, "package code\nfunc f(a, b int) bool {\n\tif a < b {\n\t\treturn true\n\t}\n\n\treturn a < b\n}\n")
	seen := map[string]bool{}
	for _, m := range w.derive() {
		if seen[m.key] {
			t.Errorf("%q twice", m.key)
		}
		seen[m.key] = true
	}
	if !seen["code.f: a < b turned"] || !seen["code.f: a < b turned (2)"] {
		t.Errorf("keys: %v", seen)
	}
}

// What is woven in leaves lines where they were, and is Go.
func TestWovenCodeCompiles(t *testing.T) {
	text := "package code\n\nimport \"strings\"\n\nfunc f(s string, n uint32) bool {\n\tfor i := range len(s) {\n\t\tif s[i] == 'a' && n>>(i&3)&1 != 0 || strings.HasPrefix(s[i:], \"b\") {\n\t\t\treturn i > 0\n\t\t}\n\t}\n\treturn false\n}\n"
	w := weaverOf(t, text)
	woven := string(w.weave(w.derive()))
	if got, want := strings.Count(woven[:strings.Index(woven, "return false")], "\n"), strings.Count(text[:strings.Index(text, "return false")], "\n"); got != want {
		t.Errorf("line %d became %d", want, got)
	}
	fset := token.NewFileSet()
	file, err := parser.ParseFile(fset, "code.go", woven, 0)
	if err != nil {
		t.Fatalf("%v\n%s", err, woven)
	}
	exports, err := exportData()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := (&types.Config{Importer: importing(fset, exports)}).Check("code", fset, []*ast.File{file}, nil); err != nil {
		t.Errorf("%v\n%s", err, woven)
	}
}

// What is woven around || does not take its left side alone.
func TestConditionsAreWovenAsAWhole(t *testing.T) {
	w := weaverOf(t, "package code\nfunc f(a, b bool) {\n\tif a || b {\n\t\treturn\n\t}\n}\n")
	w.found = slices.DeleteFunc(w.derive(), func(m *mistake) bool { return !strings.HasSuffix(m.key, "a || b is false") })
	if woven := string(w.weave(w.found)); !strings.Contains(woven, "&& (a || b))") {
		t.Error(woven)
	}
}

// Each mistake that is accepted has a reason.
func TestAcceptedMistakesHaveReasons(t *testing.T) {
	if _, err := readAccepted(accepted); err != nil {
		t.Error(err)
	}
	for text, want := range map[string]string{"f: a < b turned\n": "no reason", "f: x\tslower\nf: x\tslower\n": "twice"} {
		if _, err := readAccepted(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}

// Nine of ten are to be noticed, and the rest explained.
func TestWhenItFails(t *testing.T) {
	for _, tt := range []struct {
		killed, tried, open int
		fair, fails         bool
	}{
		{90, 100, 0, true, false}, {89, 100, 0, true, true}, {89, 100, 0, false, false}, {99, 100, 1, true, true}, {99, 100, 1, false, true}, {0, 0, 0, true, false},
	} {
		if err := verdict(tt.killed, tt.tried, tt.open, tt.fair); (err != nil) != tt.fails {
			t.Errorf("%+v: %v", tt, err)
		}
	}
}
