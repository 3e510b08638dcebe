package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/bmatcuk/doublestar/v4"

	"securefiles/internal/policytest"
	"securefiles/internal/terminal"
)

type testCommand struct {
	Files       []string `arg:"" name:"file" help:"Policy tests; a pattern such as 'tests/**/*.yaml' finds several."`
	Verbose     bool     `short:"v" help:"Print the cases that pass too."`
	Format      string   `default:"text" enum:"text,junit,tap,json" help:"How to print: text, junit (XML), tap (version 13) or json."`
	JSON        bool     `name:"json" help:"The same as --format json."`
	Coverage    bool     `help:"Print which policy lines no case reaches."`
	CoverageMin float64  `placeholder:"PERCENT" help:"Fail where the cases reach less of the policy's lines."`
}

// Help shows an example.
func (testCommand) Help() string {
	return `Asks the policy each question of the files, by the code that serves, and compares. Exits 0 where all pass, 1 where one fails or the coverage is too small.

A file holds YAML; line, role and reason are what the answer must rest on, and may be left out:
  tests:
    - {subject: alice, groups: [staff], path: /project/plan.pdf, want: allow, role: editor}
    - {subject: bob, path: /project/plan.pdf, want: deny, reason: default-deny}

Examples:
  securefiles test policy_test.yaml
  securefiles test --coverage-min 80 --format junit 'tests/**/*.yaml' > report.xml`
}

func (cmd *testCommand) Run(ctx context.Context, env Env, all *commands) error {
	if cmd.JSON {
		if cmd.Format != "text" && cmd.Format != "json" {
			return fmt.Errorf("--json and --format %s: choose one", cmd.Format)
		}
		cmd.Format = "json"
	}
	files, err := expand(cmd.Files)
	if err != nil {
		return err
	}
	suites, err := policytest.LoadSuites(files...)
	if err != nil {
		return err
	}
	downloads, store, err := all.openPolicy(ctx, env)
	if err != nil {
		return err
	}
	report, err := policytest.Run(ctx, suites, downloads, store, cmd.Coverage || cmd.CoverageMin > 0, cmd.CoverageMin)
	if err != nil {
		return err
	}
	switch {
	case cmd.Format == "json":
		err = terminal.WriteJSON(env.Stdout, report)
	case cmd.Format == "junit":
		err = report.WriteJUnit(env.Stdout)
		report.Coverage.Write(env.Stderr, "")
	case cmd.Format == "tap":
		err = report.WriteTAP(env.Stdout)
		report.Coverage.Write(env.Stdout, "# ")
	default:
		report.WriteText(env.Stdout, cmd.Verbose)
		report.Coverage.Write(env.Stdout, "")
	}
	if err != nil {
		return err
	}
	if report.Failed > 0 || report.Coverage.TooSmall() {
		return errNo
	}
	return nil
}

// expand finds the files that patterns mean. One that finds none is a mistake.
func expand(patterns []string) ([]string, error) {
	var files []string
	for _, p := range patterns {
		if !strings.ContainsAny(p, `*?[{`) {
			files = append(files, p)
			continue
		}
		found, err := doublestar.FilepathGlob(p, doublestar.WithFilesOnly())
		if err != nil {
			return nil, fmt.Errorf("%s: %w", p, err)
		}
		if len(found) == 0 {
			return nil, fmt.Errorf("%s: there is no such file", p)
		}
		files = append(files, found...)
	}
	return files, nil
}
