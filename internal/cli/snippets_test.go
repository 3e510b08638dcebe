package cli

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"securefiles/internal/policytest"
	"securefiles/policy"
	"securefiles/policy/lint"
)

var fence = regexp.MustCompile("(?ms)^```([a-z]+)\n(.*?)^```$")

// withDownload is a line of the starter's model.
var withDownload = regexp.MustCompile(`(?m)^p, *[^,]+, *(?:main|media|\*), */`)

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
				if strings.HasPrefix(snippet, "scrape_configs:") {
					continue // integration_test reads it
				}
				if strings.HasPrefix(snippet, "tests:") {
					if _, err := policytest.Load(target); err != nil {
						t.Errorf("%s: %v\n%s", file, err, snippet)
					}
					continue
				}
				// It opens the configuration and reads none of its files.
				if status, _, stderr := command(t, "nginx", "--config", target); status != exitYes && !strings.Contains(stderr, "has no root") {
					t.Errorf("%s: %s\n%s", file, stderr, snippet)
				}
			case "ini":
				model = target
			case "csv":
				if followed[file] {
					continue // these are lines to add
				}
				if model == "" && withDownload.MatchString(snippet) {
					model = "examples/starter/model.conf"
				}
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

// The starter's model is the built-in one, and asks which download beside.
func TestStarterModelIsTheBuiltInOneWithDownloads(t *testing.T) {
	text, err := os.ReadFile("examples/starter/model.conf")
	if err != nil {
		t.Fatal(err)
	}
	builtIn, err := os.ReadFile("policy/internal/model/default_model.conf")
	if err != nil {
		t.Fatal(err)
	}
	lines := func(text string) string { return text[strings.Index(text, "["):] }
	got := lines(string(text))
	for _, part := range []string{"r = sub, dom, ", "p = sub, dom, "} {
		if strings.Count(got, part) != 1 {
			t.Errorf("%q is not there", part)
		}
		got = strings.Replace(got, part, strings.Replace(part, "dom, ", "", 1), 1)
	}
	got = strings.Replace(got, `(r.dom == p.dom || p.dom == "*") && `, "", 1)
	if diff := cmp.Diff(lines(string(builtIn)), got); diff != "" {
		t.Errorf("-built-in +starter\n%s", diff)
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
