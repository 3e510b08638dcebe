package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"securefiles/internal/config"
	"securefiles/policy"
	"securefiles/policy/lint"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"securefiles": main})
}

// One script a subcommand, usage errors included.
func TestCommands(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script", RequireExplicitExec: true, RequireUniqueNames: true,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"status": status},
	})
}

// status N COMMAND… runs a command that must exit with N.
func status(ts *testscript.TestScript, neg bool, args []string) {
	want, err := strconv.Atoi(args[0])
	if neg || err != nil {
		ts.Fatalf("usage: status N COMMAND…")
	}
	err = ts.Exec(args[1], args[2:]...)
	got := 0
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		got = exit.ExitCode()
	} else if err != nil {
		ts.Fatalf("%v", err)
	}
	if got != want {
		ts.Fatalf("exit status %d, want %d", got, want)
	}
}

// The arrows of docs/design.md: the core imports nothing of internal, no
// package of internal imports another, and each heavy dependency has one home.
func TestDependenciesPointOneWay(t *testing.T) {
	type pkg struct {
		ImportPath string
		Imports    []string
	}
	out, err := exec.Command("go", "list", "-json=ImportPath,Imports", "./...").Output()
	if err != nil {
		t.Fatal(err)
	}
	imports := map[string][]string{}
	for dec := json.NewDecoder(bytes.NewReader(out)); dec.More(); {
		var p pkg
		if err := dec.Decode(&p); err != nil {
			t.Fatal(err)
		}
		imports[p.ImportPath] = p.Imports
	}
	policyRooms := []string{
		"securefiles/authz", "securefiles/policy", "securefiles/policy/internal/finding", "securefiles/policy/internal/pattern",
		"securefiles/policy/internal/model", "securefiles/policy/internal/table", "securefiles/policy/internal/engine",
	}
	allowed := map[string][]string{
		"securefiles/pathguard": nil,
		"securefiles/authz":     {"securefiles/pathguard"},
		"securefiles/policy":    {"securefiles/authz", "securefiles/policy/internal/engine", "securefiles/policy/internal/table", "securefiles/policy/internal/model", "securefiles/policy/internal/finding"},

		"securefiles/policy/internal/finding": nil,
		"securefiles/policy/internal/pattern": {"securefiles/pathguard", "securefiles/policy/internal/finding"},
		"securefiles/policy/internal/model":   {"securefiles/authz", "securefiles/policy/internal/finding", "securefiles/policy/internal/pattern"},
		"securefiles/policy/internal/table":   {"securefiles/authz", "securefiles/policy/internal/finding", "securefiles/policy/internal/model"},
		"securefiles/policy/internal/engine":  {"securefiles/authz", "securefiles/policy/internal/finding", "securefiles/policy/internal/model", "securefiles/policy/internal/pattern", "securefiles/policy/internal/table"},
		"securefiles/policy/explain":          policyRooms,
		"securefiles/policy/lint":             policyRooms,
		"securefiles/policy/shadow":           policyRooms,
		// For tests alone.
		"securefiles/policy/internal/world":     {"securefiles/authz", "securefiles/policy/internal/finding", "securefiles/policy/internal/model"},
		"securefiles/policy/internal/storetest": {"securefiles/authz", "securefiles/policy", "securefiles/policy/internal/world"},

		"securefiles/internal/config":   {"securefiles/internal/regular"},
		"securefiles/internal/frontend": {"securefiles/authz", "securefiles/pathguard"},
		"securefiles/internal/identity": {"securefiles/authz", "securefiles/internal/regular"},
		"securefiles/internal/metrics":  {"securefiles/authz"},
		"securefiles/internal/nginx":    nil,
		"securefiles/internal/regular":  nil,
		"securefiles/internal/server":   {"securefiles/internal/watch"},
		"securefiles/internal/watch":    nil,
	}
	for name, may := range allowed {
		list, ok := imports[name]
		if !ok {
			t.Errorf("%s is gone: mend this test", name)
		}
		for _, i := range list {
			if strings.HasPrefix(i, "securefiles") && !slices.Contains(may, i) {
				t.Errorf("%s imports %s", name, i)
			}
			if (name == "securefiles/pathguard" || name == "securefiles/authz") && strings.Contains(i, ".") {
				t.Errorf("%s imports %s: it needs the standard library alone", name, i)
			}
		}
	}
	for name := range imports {
		if _, ok := allowed[name]; !ok && (strings.HasPrefix(name, "securefiles/internal/") || strings.HasPrefix(name, "securefiles/policy/")) {
			t.Errorf("%s is not in the list of what may import what", name)
		}
	}
	const models, patterns, engines = "securefiles/policy/internal/model", "securefiles/policy/internal/pattern", "securefiles/policy/internal/engine"
	for dependency, homes := range map[string][]string{
		"github.com/casbin/casbin":    {models, patterns, engines, "securefiles/policy/shadow"},
		"github.com/casbin/govaluate": {models, engines},
		"github.com/prometheus/":      {"securefiles/internal/metrics"},
		"github.com/tg123/":           {"securefiles/internal/identity"},
		"github.com/go-jose/":         {"securefiles/internal/identity"},
		"github.com/sony/":            {"securefiles/internal/identity"},
		"github.com/goccy/":           {"securefiles/internal/config"},
	} {
		found := false
		for name, list := range imports {
			for _, i := range list {
				if !strings.HasPrefix(i, dependency) || name == "securefiles/policy/internal/world" { // which tests import
					continue
				}
				found = true
				if !slices.Contains(homes, name) {
					t.Errorf("%s imports %s, whose home is %s", name, i, strings.Join(homes, ", "))
				}
				if i == "github.com/casbin/casbin/v2" && name != "securefiles/policy/shadow" {
					t.Errorf("%s imports Casbin's enforcer, which decides in the shadow alone", name)
				}
			}
		}
		if !found {
			t.Errorf("nobody imports %s: mend this test", dependency)
		}
	}
	for name, list := range imports {
		if list := list; slices.Contains(list, "securefiles/policy/internal/world") && name != "securefiles/policy/internal/storetest" {
			t.Errorf("%s imports what tests alone may", name)
		}
	}
}

// Each package says what it is for, in one place.
func TestEveryPackageHasOneComment(t *testing.T) {
	out, err := exec.Command("go", "list", "-f", "{{.Dir}}", "./...").Output()
	if err != nil {
		t.Fatal(err)
	}
	for dir := range strings.FieldsSeq(string(out)) {
		files, err := filepath.Glob(filepath.Join(dir, "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		comments, sources := 0, 0
		for _, file := range files {
			if strings.HasSuffix(file, "_test.go") {
				continue
			}
			sources++
			parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.PackageClauseOnly|parser.ParseComments)
			if err != nil {
				t.Fatal(err)
			}
			if parsed.Doc != nil {
				comments++
			}
		}
		if sources > 0 && comments != 1 {
			t.Errorf("%s has %d package comments", dir, comments)
		}
	}
}

// What decides knows the names of no web server: net/http is there for the type
// of headers, and no header of an exchange is named.
func TestAuthzKnowsNoWebServer(t *testing.T) {
	files, err := filepath.Glob("authz/*.go")
	if err != nil {
		t.Fatal(err)
	}
	types := 0
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(parsed, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.SelectorExpr:
				if of, ok := n.X.(*ast.Ident); ok && of.Name == "http" {
					types++
					if n.Sel.Name != "Header" {
						t.Errorf("%s uses http.%s", file, n.Sel.Name)
					}
				}
			case *ast.BasicLit:
				if n.Kind == token.STRING && strings.HasPrefix(strings.ToLower(n.Value), `"x-`) {
					t.Errorf("%s names the header %s", file, n.Value)
				}
			}
			return true
		})
	}
	if types == 0 {
		t.Error("http.Header is not used any more: mend this test")
	}
}

var fence = regexp.MustCompile("(?ms)^```([a-z]+)\n(.*?)^```$")

// Every configuration and policy that the documentation shows is accepted.
func TestDocumentedSnippetsAreAccepted(t *testing.T) {
	files, err := filepath.Glob("docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	checked := map[string]int{}
	for _, file := range append(files, "README.md") {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		model := "" // of the next policy, if the page shows one of its own
		for _, m := range fence.FindAllStringSubmatch(string(text), -1) {
			language, snippet := m[1], m[2]
			checked[language]++
			dir := t.TempDir()
			target := filepath.Join(dir, "snippet")
			if err := os.WriteFile(target, []byte(snippet), 0o600); err != nil {
				t.Fatal(err)
			}
			switch language {
			case "yaml":
				if strings.HasPrefix(snippet, "tests:") {
					if _, err := config.LoadCases(target); err != nil {
						t.Errorf("%s: %v\n%s", file, err, snippet)
					}
					continue
				}
				c, err := config.Load(target, nil)
				if err == nil {
					_, err = arrange(c, slog.New(slog.DiscardHandler))
				}
				if err != nil {
					t.Errorf("%s: %v\n%s", file, err, snippet)
				}
			case "ini":
				model = target
			case "csv":
				for _, f := range lint.Check(t.Context(), policy.Files{Model: model, Policy: target}, nil) {
					t.Errorf("%s: %v\n%s", file, f, snippet)
				}
				model = ""
			case "json":
				if !json.Valid([]byte(snippet)) {
					t.Errorf("%s: not JSON:\n%s", file, snippet)
				}
			}
		}
	}
	if checked["yaml"] < 2 || checked["csv"] < 3 {
		t.Errorf("found too few snippets: %v", checked)
	}
}

// Every key that the configuration has stands in docs/configuration.md.
func TestEveryConfigurationKeyIsDocumented(t *testing.T) {
	text, err := os.ReadFile("docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	source, err := os.ReadFile("internal/config/config.go")
	if err != nil {
		t.Fatal(err)
	}
	keys := regexp.MustCompile("`yaml:\"([a-z_]+)\"").FindAllStringSubmatch(string(source), -1)
	if len(keys) < 30 {
		t.Fatalf("found %d keys", len(keys))
	}
	for _, k := range keys {
		if !regexp.MustCompile("\\b" + k[1] + "\\b").Match(text) {
			t.Errorf("%s is not documented", k[1])
		}
	}
}

func TestStarterModelIsTheEmbeddedOne(t *testing.T) {
	text, err := os.ReadFile("examples/starter/model.conf")
	if err != nil {
		t.Fatal(err)
	}
	defaultModel, err := os.ReadFile("policy/internal/model/default_model.conf")
	if err != nil {
		t.Fatal(err)
	}
	if strings.TrimSpace(string(text)) != strings.TrimSpace(string(defaultModel)) {
		t.Error("examples/starter/model.conf and the built-in model differ")
	}
}

func TestUnitsAreRightAndHardened(t *testing.T) { // S23
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("systemd-analyze is not here")
	}
	// verify wants the binary to be there: this one.
	binary, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	var units []string
	for _, name := range []string{"securefiles.service", "securefiles.socket"} {
		text, err := os.ReadFile("examples/systemd/" + name)
		if err != nil {
			t.Fatal(err)
		}
		unit := filepath.Join(dir, name)
		units = append(units, unit)
		if err := os.WriteFile(unit, bytes.ReplaceAll(text, []byte("/usr/local/bin/securefiles"), []byte(binary)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	out, err := exec.Command(analyze, append([]string{"verify", "--man=no"}, units...)...).CombinedOutput()
	if err != nil || len(out) != 0 {
		t.Errorf("verify: %v\n%s", err, out)
	}
	out, err = exec.Command(analyze, "security", "--offline=true", "--threshold=20", units[0]).CombinedOutput()
	if err != nil {
		t.Errorf("security: %v\n%s", err, out)
	}
}
