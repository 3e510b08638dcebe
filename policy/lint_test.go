package policy

import (
	"flag"
	"os"
	"path/filepath"
	"slices"
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
