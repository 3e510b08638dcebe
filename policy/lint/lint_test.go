package lint

import (
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"securefiles/authz"
	"securefiles/policy"
	"securefiles/policy/internal/model"
	"securefiles/policy/internal/world"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the golden files of findings")

// lintSource is a policy of testdata: its directory names the model.
func lintSource(t *testing.T, file string) policy.Files {
	t.Helper()
	return policy.Files{Model: world.ModelFile(t, filepath.Base(filepath.Dir(file))), Policy: file}
}

// lintOptions are what the policies of testdata/lint and testdata/clean are
// checked with.
func lintOptions() *Options {
	return &Options{Downloads: []*authz.Download{{Name: "main", URL: "/downloads/"}, {Name: "other", URL: "/other/"}}}
}

// policyFindings are those that are not the model's.
func policyFindings(findings []policy.Finding) []policy.Finding {
	return slices.DeleteFunc(findings, func(f policy.Finding) bool { return strings.HasPrefix(f.Rule, "model-") })
}

// Each file has one mistake that a person could make, and its name begins with
// the rule that catches it. No other rule says anything.
func TestLint(t *testing.T) {
	files, err := filepath.Glob("testdata/lint/*/*.csv")
	if err != nil || len(files) < 100 {
		t.Fatal(len(files), err)
	}
	var got strings.Builder
	for _, file := range files {
		rule, _, _ := strings.Cut(strings.TrimSuffix(filepath.Base(file), ".csv"), "--")
		findings := policyFindings(Check(t.Context(), lintSource(t, file), lintOptions()))
		if len(findings) == 0 {
			t.Errorf("%s: nothing is found", file)
		}
		for _, f := range findings {
			if f.Rule != rule {
				t.Errorf("%s: %s", file, f)
			}
			if f.Remedy == "" {
				t.Errorf("%s has no remedy", f.Rule)
			}
			got.WriteString(strings.TrimPrefix(f.String(), "testdata/lint/") + "\n")
		}
	}
	golden := "testdata/lint/want.txt"
	if *update {
		if err := os.WriteFile(golden, []byte(got.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(world.File(t, golden), got.String()); diff != "" {
		t.Errorf("findings: -want +got\n%s", diff)
	}
}

// Casbin's own examples and policies of known projects, rewritten for downloads,
// have no finding at all.
func TestCleanPolicies(t *testing.T) {
	dirs, err := filepath.Glob("testdata/clean/*")
	if err != nil || len(dirs) < 30 {
		t.Fatal(len(dirs), err)
	}
	for _, dir := range dirs {
		source := policy.Files{Policy: filepath.Join(dir, "policy.csv")}
		if model := filepath.Join(dir, "model.conf"); exists(model) {
			source.Model = model
		}
		for _, f := range Check(t.Context(), source, lintOptions()) {
			t.Error(f)
		}
	}
}

// What is left out is a warning, what is taken back one or a judgement; other errors
// stay.
func TestWarningsAreTakenBack(t *testing.T) {
	const broad = "p, alice, /docs/**, read, allow\n"
	for _, tt := range []struct {
		name, text string
		disable    []string
		want       []string
	}{
		{"ignored", broad + "# securefiles:ignore redundant: why not\np, alice, /docs/a, read, allow\n", nil, nil},
		{"ignored with others, an empty line and a comment between", broad + "# securefiles:ignore action, redundant: why not\n\n# more\np, alice, /docs/a, list, allow\n#securefiles:ignore redundant: why not\np, alice, /docs/a, read, allow\n", nil,
			[]string{"2 suppression", "2 suppression"}},
		{"ignored elsewhere", "# securefiles:ignore redundant: why not\n" + broad + "p, alice, /docs/a, read, allow\n", nil, []string{"1 suppression", "3 redundant"}},
		{"disabled", broad + "p, alice, /docs/a, read, allow\n", []string{"redundant"}, nil},
		{"disabled and ignored", broad + "# securefiles:ignore redundant: why not\np, alice, /docs/a, read, allow\n", []string{"redundant"}, nil},
		{"the comment's own rule disabled", "# securefiles:ignore redundant: why not\n" + broad, []string{"suppression"}, nil},
		{"an error that is a judgement, ignored", broad + "# securefiles:ignore action: why not\np, alice, /docs/hr/**, READ, deny\n", nil, nil},
		{"an error that is none, ignored", broad + "# securefiles:ignore pattern: why not\np, alice, /docs/[, read, deny\n", nil, []string{"2 suppression", "3 pattern"}},
		{"an error of a rule that warns elsewhere, disabled", broad + "p, alice, /docs/hr/**, READ, deny\n", []string{"action"}, []string{"2 action"}},
		{"a warning of a rule that is an error elsewhere, ignored", broad + "# securefiles:ignore action: why not\np, alice, /docs/hr/**, READ, allow\n", nil, nil},
		{"an error kept the rest from being checked", broad + "# securefiles:ignore redundant: why not\np, alice, /docs/a, read, allow\np, alice, /docs/b, read, Deny\n", nil, []string{"4 effect"}},
		{"no reason", broad + "# securefiles:ignore redundant:  \np, alice, /docs/a, read, allow\n", nil, []string{"2 suppression", "3 redundant"}},
		{"an error's rule", "# securefiles:ignore effect: why not\n" + broad, nil, []string{"1 suppression"}},
		{"a comment about the tool", "# securefiles reads this; securefiles:ignore redundant: no\n" + broad, nil, nil},
	} {
		file := filepath.Join(t.TempDir(), "policy.csv")
		world.Write(t, file, tt.text)
		var got []string
		for _, f := range Check(t.Context(), policy.Files{Policy: file}, &Options{Disable: tt.disable}) {
			got = append(got, fmt.Sprintf("%d %s", f.Line, f.Rule))
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
		}
	}
}

// In a model it works the same.
func TestModelWarningsAreTakenBack(t *testing.T) {
	dir := t.TempDir()
	source := policy.Files{Model: filepath.Join(dir, "model.conf"), Policy: filepath.Join(dir, "policy.csv")}
	world.Write(t, source.Policy, "p, alice, /docs/**, read, allow\n")
	model := strings.Replace(model.Default, "[matchers]\n", "[matchers]\n# securefiles:ignore model-unused: every action\n", 1)
	world.Write(t, source.Model, strings.Replace(model, ` && (r.act == p.act || p.act == "*")`, "", 1))
	if findings := Check(t.Context(), source, nil); len(findings) > 0 {
		t.Error(findings)
	}
	world.Write(t, source.Model, model)
	if findings := Check(t.Context(), source, nil); len(findings) != 1 || findings[0].Rule != "suppression" || findings[0].File != source.Model {
		t.Error(findings)
	}
}

// One rule hides no other, and what a rule finds among many lines it finds.
func TestManyFindings(t *testing.T) {
	var text strings.Builder
	for i := range 300 {
		fmt.Fprintf(&text, "p, editor, /team/p%d/**, read, allow\n", i)
	}
	for i := range 150 {
		fmt.Fprintf(&text, "p, alice, /team/p%d/x, read, allow\n", 2*i)
	}
	text.WriteString("p, bob, /docs/**, GET, allow\ng, alice, editor\n")
	file := filepath.Join(t.TempDir(), "policy.csv")
	world.Write(t, file, text.String())
	findings := Check(t.Context(), policy.Files{Policy: file}, nil)
	if len(findings) != maxPerRule+2 {
		t.Fatalf("%d findings, the last %v", len(findings), findings[len(findings)-1])
	}
	if f := findings[0]; f.Line != 301 || f.Rule != "redundant" {
		t.Error(f)
	}
	if f := findings[maxPerRule]; f.Line != 451 || f.Rule != "action" {
		t.Error(f)
	}
	if f := findings[maxPerRule+1]; f.Rule != "too-many" || f.Message != "50 more findings of redundant are not shown" {
		t.Error(f)
	}
}

func exists(file string) bool {
	_, err := os.Stat(file)
	return err == nil
}

var ruleID = regexp.MustCompile(`^[a-z]+(-[a-z0-9]+)*$`)

// Whatever reports a finding names a rule that Rules has, and each rule is
// reported by something.
func TestEveryFindingHasARule(t *testing.T) {
	var files []string
	for _, glob := range []string{"../*.go", "../*/*.go", "../internal/*/*.go"} {
		found, err := filepath.Glob(glob)
		if err != nil || len(found) == 0 {
			t.Fatal(glob, err)
		}
		files = append(files, found...)
	}
	reporters := map[string]bool{
		"Fail": true, "Judge": true, "doubt": true, "Warn": true, "Add": true, "warn": true, "refuse": true, "add": true, "tooNarrow": true, "tooWide": true, "unusual": true,
	}
	used := map[string]bool{}
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") || filepath.Base(file) == "rules.go" {
			continue
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		rule := func(e ast.Expr) {
			if lit, ok := e.(*ast.BasicLit); ok && lit.Kind == token.STRING {
				id, _ := strconv.Unquote(lit.Value)
				if ruleID.MatchString(id) { // and no message
					used[id] = true
				}
			}
		}
		ast.Inspect(parsed, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.CallExpr:
				name := ""
				switch f := n.Fun.(type) {
				case *ast.Ident:
					name = f.Name
				case *ast.SelectorExpr:
					name = f.Sel.Name
				}
				if reporters[name] || name == "checkColumn" {
					// The rule is the first literal; what follows is the message.
					if i := slices.IndexFunc(n.Args, func(e ast.Expr) bool { _, ok := e.(*ast.BasicLit); return ok && e.(*ast.BasicLit).Kind == token.STRING }); i >= 0 && i < len(n.Args)-1 {
						rule(n.Args[i])
					}
				}
			case *ast.KeyValueExpr:
				if key, ok := n.Key.(*ast.Ident); ok && (key.Name == "Rule" || key.Name == "rule") {
					rule(n.Value)
				}
			}
			return true
		})
	}
	var known []string
	for _, r := range Rules() {
		known = append(known, r.ID)
		if !used[r.ID] {
			t.Errorf("nothing reports %s", r.ID)
		}
	}
	for id := range used {
		if !slices.Contains(known, id) {
			t.Errorf("%q is reported and no rule", id)
		}
	}
}
