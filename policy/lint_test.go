package policy

import (
	"flag"
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

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the golden files of findings")

// lintSource is a policy of testdata: its directory names the model.
func lintSource(file string) Source {
	s := Source{Policy: file}
	if model := filepath.Base(filepath.Dir(file)); model != "default" {
		s.Model = filepath.Join("testdata", "model", model+".conf")
	}
	return s
}

// lintOptions are what the policies of testdata/lint and testdata/clean are
// checked with.
func lintOptions() *CheckOptions {
	return &CheckOptions{Downloads: []Download{{Name: "main", URL: "/downloads/"}, {Name: "other", URL: "/other/"}}}
}

// policyFindings are those that are not the model's.
func policyFindings(findings []Finding) []Finding {
	return slices.DeleteFunc(findings, func(f Finding) bool { return strings.HasPrefix(f.Rule, "model-") })
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
		findings := policyFindings(Check(t.Context(), lintSource(file), lintOptions()))
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
	if diff := cmp.Diff(readFile(t, golden), got.String()); diff != "" {
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
		source := Source{Policy: filepath.Join(dir, "policy.csv")}
		if model := filepath.Join(dir, "model.conf"); exists(model) {
			source.Model = model
		}
		for _, f := range Check(t.Context(), source, lintOptions()) {
			t.Error(f)
		}
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
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	reporters := map[string]bool{"fail": true, "warn": true, "refuse": true, "add": true, "less": true, "more": true, "hint": true}
	used := map[string]bool{}
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") || file == "lint_rules.go" {
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
				if key, ok := n.Key.(*ast.Ident); ok && key.Name == "Rule" {
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
