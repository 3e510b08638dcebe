package cli

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/rogpeppe/go-internal/testscript"
	"github.com/rogpeppe/go-internal/txtar"
)

// The commands of the examples for continuous integration do what they say, in
// a repository with the files of `securefiles init`, but for the users, whose hashes are
// nobody's business there, and with tests in a second file.
func TestExamplesForContinuousIntegration(t *testing.T) {
	var hooks struct {
		Repos []struct {
			Repo  string
			Hooks []struct{ ID, Name, Entry, Language, Files string }
		}
	}
	var workflow struct {
		On   map[string]any
		Jobs map[string]struct {
			Steps []struct {
				Name, Run, Uses string
				Env             map[string]string
			}
		}
	}
	for file, into := range map[string]any{"examples/ci/pre-commit-config.yaml": &hooks, "examples/ci/github-actions.yaml": &workflow} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if err := yaml.Unmarshal(text, into); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
	}
	var script strings.Builder
	script.WriteString("[!exec:git] skip\nexec securefiles init .\nrm users.htpasswd\ncp second more_test.yaml\nenv RUNNER_TEMP=$WORK/tmp\nmkdir tmp\nenv BASE=origin/main\n" +
		"exec git init -q\nexec git add .\nexec git -c user.name=a -c user.email=a@example.org commit -qm policy\nexec git update-ref refs/remotes/origin/main HEAD\n")
	archive := &txtar.Archive{}
	run := func(commands string) string { // a line of the script that runs them
		name := fmt.Sprintf("run%d.sh", len(archive.Files))
		archive.Files = append(archive.Files, txtar.File{Name: name, Data: []byte(commands + "\n")})
		return "exec sh -e " + name
	}
	commands := 0
	for _, r := range hooks.Repos {
		for _, h := range r.Hooks {
			fmt.Fprintln(&script, run(h.Entry))
			commands++
		}
	}
	var diff string
	for name, job := range workflow.Jobs {
		for _, s := range job.Steps {
			switch {
			case !strings.Contains(s.Run, "securefiles ") || s.Name == "Install securefiles":
			case name == "access":
				diff = s.Run
				if s.Env["BASE"] != "origin/${{ github.base_ref }}" {
					t.Errorf("the base is %q", s.Env["BASE"])
				}
			default:
				fmt.Fprintln(&script, run(s.Run))
				commands++
			}
		}
	}
	if commands != 4 || diff == "" {
		t.Fatalf("found %d commands, and %q", commands, diff)
	}
	// The same policy gives nobody anything, another one does.
	fmt.Fprintf(&script, "grep testcase policy-report.xml\ngrep 'of the second file' policy-report.xml\n%s\nstdout '0 gained'\ncp bob policy.csv\n! %[1]s\nstdout '^\\+ bob may now read'\n", run(diff))
	policy, err := os.ReadFile("examples/starter/policy.csv")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	archive.Comment = []byte(script.String())
	archive.Files = append(archive.Files, txtar.File{Name: "second", Data: []byte("tests:\n  - {name: of the second file, subject: bob, path: /downloads/drafts/x, want: deny}\n")})
	archive.Files = append(archive.Files, txtar.File{Name: "bob", Data: append(policy, "g, bob, editor\n"...)})
	if err := os.WriteFile(filepath.Join(dir, "ci.txtar"), txtar.Format(archive), 0o600); err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{Setup: onPath, Dir: dir, RequireExplicitExec: true})
}
