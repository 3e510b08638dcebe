package cli

import (
	"context"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/bmatcuk/doublestar/v4"

	"securefiles/authz"
	"securefiles/internal/config"
	"securefiles/internal/terminal"
	"securefiles/policy"
	"securefiles/policy/explain"
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
	var suites []*suite
	var problems []error
	for _, file := range files {
		cases, err := config.LoadCases(file)
		suites, problems = append(suites, &suite{File: file, cases: cases}), append(problems, err)
	}
	if err := errors.Join(problems...); err != nil {
		return err
	}
	downloads, store, err := all.openPolicy(ctx, env)
	if err != nil {
		return err
	}
	t := &tester{downloads: downloads, store: store}
	if cmd.Coverage || cmd.CoverageMin > 0 {
		t.coverage = explain.NewCoverage(store)
	}
	report := &testReport{Suites: suites}
	for _, s := range suites {
		begin := time.Now()
		for _, one := range s.cases {
			result, err := t.run(ctx, one)
			if err != nil {
				return err
			}
			s.Cases = append(s.Cases, result)
			if !result.Passed {
				s.Failed++
				report.Failed++
			}
		}
		s.took = time.Since(begin)
		report.Passed += len(s.Cases) - s.Failed
	}
	if t.coverage != nil {
		missed, lines := t.coverage.Missed()
		report.Coverage = &coverage{Lines: lines, Reached: lines - len(missed), Percent: 100, Missed: append([]explain.Line{}, missed...), Minimum: cmd.CoverageMin}
		if lines > 0 {
			report.Coverage.Percent = 100 * float64(lines-len(missed)) / float64(lines)
		}
	}
	switch {
	case cmd.Format == "json":
		err = terminal.WriteJSON(env.Stdout, report)
	case cmd.Format == "junit":
		err = report.writeJUnit(env.Stdout)
		report.Coverage.write(env.Stderr, "")
	case cmd.Format == "tap":
		err = report.writeTAP(env.Stdout)
		report.Coverage.write(env.Stdout, "# ")
	default:
		report.write(env.Stdout, cmd.Verbose)
		report.Coverage.write(env.Stdout, "")
	}
	if err != nil {
		return err
	}
	if report.Failed > 0 || report.Coverage.tooSmall() {
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

// A testReport is what `securefiles test --json` prints.
type testReport struct {
	Passed   int       `json:"passed"`
	Failed   int       `json:"failed"`
	Suites   []*suite  `json:"files"`
	Coverage *coverage `json:"coverage,omitempty"`
}

// A suite is one file of cases.
type suite struct {
	File   string        `json:"file"`
	Failed int           `json:"failed"`
	Cases  []*caseResult `json:"cases"`

	cases []*config.Case
	took  time.Duration
}

// A caseResult is what became of one case.
type caseResult struct {
	Line     int    `json:"line"`
	Name     string `json:"name"`
	Passed   bool   `json:"passed"`
	Want     string `json:"want"`
	Got      string `json:"got"`
	Decision string `json:"decision,omitempty"`
	// Problem says what is not as wanted, Detail how it came about.
	Problem string `json:"problem,omitempty"`
	Detail  string `json:"detail,omitempty"`

	took time.Duration
}

// coverage says how much of a policy the cases reach.
type coverage struct {
	Lines   int            `json:"lines"`
	Reached int            `json:"reached"`
	Percent float64        `json:"percent"`
	Minimum float64        `json:"minimum,omitempty"`
	Missed  []explain.Line `json:"missed"`
}

func (c *coverage) tooSmall() bool { return c != nil && c.Percent < c.Minimum }

// A tester asks one policy.
type tester struct {
	downloads *authz.Downloads
	store     *policy.Store
	coverage  *explain.Coverage // nil where nobody asks for it
}

// run asks one case. The error says that the case cannot be asked.
func (t *tester) run(ctx context.Context, c *config.Case) (*caseResult, error) {
	action := c.Action
	if action == "" {
		action = authz.ActionRead
	}
	r := &caseResult{Line: c.Line, Name: c.Name, Want: c.Want, Got: "deny"}
	if r.Name == "" {
		r.Name = strings.Join([]string{c.Subject, action, c.Path}, " ")
	}
	begin := time.Now()
	defer func() { r.took = time.Since(begin) }()
	ask := explain.Ask{Subject: c.Subject, Groups: c.Groups, Path: c.Path, Action: action, Download: c.Download, IP: c.IP, Host: c.Host}
	q, err := ask.Query(t.downloads)
	if errors.Is(err, authz.ErrPath) {
		r.refused(c, err)
		return r, nil
	}
	if err != nil {
		return nil, fmt.Errorf("%s:%d:%d: error: %w", c.File, c.Line, c.Column, err)
	}
	d, err := t.store.Decide(ctx, q)
	r.Decision = d.String()
	if err == nil {
		r.Got = d.Effect.String()
	}
	if t.coverage != nil {
		if err := t.coverage.Add(ctx, q); err != nil {
			return nil, err
		}
	}
	if err == nil && r.Got == c.Want && c.Role == "" && c.Reason == "" && (c.DecidingLine == 0 || c.DecidingLine == d.Line) {
		r.Passed = true
		return r, nil
	}
	x, err := explain.Decision(ctx, t.store, q)
	if err != nil {
		return nil, err
	}
	got := "no line"
	if d.Line > 0 {
		got = fmt.Sprintf("%s:%d", d.File, d.Line)
	}
	switch {
	case r.Got != c.Want && d.Line > 0:
		r.Problem = fmt.Sprintf("want %s, got %s by %s", c.Want, r.Got, got)
	case r.Got != c.Want:
		r.Problem = fmt.Sprintf("want %s, got %s (%s)", c.Want, r.Got, x.Reason)
	case x.Error != "" && c.Reason == "":
		r.Problem = fmt.Sprintf("%s: if that is meant, add reason: %s", x.Error, x.Reason)
	case c.DecidingLine != 0 && c.DecidingLine != d.Line:
		r.Problem = fmt.Sprintf("want line %d to decide, got %s", c.DecidingLine, got)
	case c.Reason != "" && c.Reason != string(x.Reason):
		r.Problem = fmt.Sprintf("want the reason %s, got %s", c.Reason, x.Reason)
	case c.Role != "" && !leadsThrough(x.Deciding, c.Role):
		r.Problem = fmt.Sprintf("want the role %s to lead to the line that decides, got %s", c.Role, got)
	}
	r.Passed = r.Problem == ""
	if !r.Passed {
		_, r.Detail, _ = strings.Cut(x.String(), "\n")
	}
	return r, nil
}

// refused is the result of a case whose path never reaches the policy.
func (r *caseResult) refused(c *config.Case, err error) {
	r.Passed = c.Want == r.Got && c.Reason == string(authz.ReasonPath) && c.DecidingLine == 0 && c.Role == ""
	switch {
	case r.Passed:
	case c.Want == r.Got && c.Reason == "":
		r.Problem = fmt.Sprintf("%v: if that is meant, add reason: path", err)
	default:
		r.Problem = fmt.Sprintf("want %s, got deny (path): %v", c.Want, err)
	}
}

func leadsThrough(l *explain.Line, role string) bool {
	if l == nil {
		return false
	}
	for i, step := range l.Chain {
		if i > 0 && step.Name == role {
			return true
		}
	}
	return false
}

// write prints what go test would.
func (r *testReport) write(w io.Writer, verbose bool) {
	for _, s := range r.Suites {
		for _, c := range s.Cases {
			switch {
			case !c.Passed:
				fmt.Fprintf(w, "--- FAIL: %s:%d: %s: %s\n", s.File, c.Line, terminal.Printable(c.Name), terminal.Printable(c.Problem))
				for line := range strings.Lines(c.Detail) {
					fmt.Fprint(w, "    ", line)
				}
			case verbose:
				fmt.Fprintf(w, "--- PASS: %s:%d: %s: %s\n", s.File, c.Line, terminal.Printable(c.Name), c.Got)
			}
		}
		if s.Failed > 0 {
			fmt.Fprintf(w, "FAIL\t%s\t%d of %d cases\n", s.File, s.Failed, len(s.Cases))
		} else {
			fmt.Fprintf(w, "ok  \t%s\t%d cases\t%.3fs\n", s.File, len(s.Cases), s.took.Seconds())
		}
	}
}

// write prints the coverage, each line after a prefix.
func (c *coverage) write(w io.Writer, prefix string) {
	if c == nil {
		return
	}
	text := fmt.Sprintf("coverage: %.1f%% of %d policy lines\n", c.Percent, c.Lines)
	for _, l := range c.Missed {
		text += fmt.Sprintf("  no case reaches %s:%d  %s\n", l.File, l.Line, terminal.Printable(l.Text))
	}
	if c.tooSmall() {
		text += fmt.Sprintf("FAIL\tcoverage %.1f%% is below %g%%\n", c.Percent, c.Minimum)
	}
	for line := range strings.Lines(text) {
		fmt.Fprint(w, prefix, line)
	}
}

// The XML that JUnit's consumers read: GitHub, GitLab, Jenkins.
type (
	junitSuites struct {
		XMLName  xml.Name     `xml:"testsuites"`
		Tests    int          `xml:"tests,attr"`
		Failures int          `xml:"failures,attr"`
		Suites   []junitSuite `xml:"testsuite"`
	}
	junitSuite struct {
		Name     string      `xml:"name,attr"`
		Tests    int         `xml:"tests,attr"`
		Failures int         `xml:"failures,attr"`
		Errors   int         `xml:"errors,attr"`
		Time     string      `xml:"time,attr"`
		Cases    []junitCase `xml:"testcase"`
	}
	junitCase struct {
		Class   string        `xml:"classname,attr"`
		Name    string        `xml:"name,attr"`
		File    string        `xml:"file,attr"`
		Line    int           `xml:"line,attr"`
		Time    string        `xml:"time,attr"`
		Failure *junitFailure `xml:"failure"`
	}
	junitFailure struct {
		Message string `xml:"message,attr"`
		Type    string `xml:"type,attr"`
		Text    string `xml:",chardata"`
	}
)

func (r *testReport) writeJUnit(w io.Writer) error {
	seconds := func(d time.Duration) string { return fmt.Sprintf("%.6f", d.Seconds()) }
	out := junitSuites{Tests: r.Passed + r.Failed, Failures: r.Failed}
	for _, s := range r.Suites {
		suite := junitSuite{Name: s.File, Tests: len(s.Cases), Failures: s.Failed, Time: seconds(s.took)}
		for _, c := range s.Cases {
			one := junitCase{Class: s.File, Name: fmt.Sprintf("line %d: %s", c.Line, c.Name), File: s.File, Line: c.Line, Time: seconds(c.took)}
			if !c.Passed {
				one.Failure = &junitFailure{Message: c.Problem, Type: "policy", Text: c.Detail}
			}
			suite.Cases = append(suite.Cases, one)
		}
		out.Suites = append(out.Suites, suite)
	}
	if _, err := io.WriteString(w, xml.Header); err != nil {
		return err
	}
	enc := xml.NewEncoder(w)
	enc.Indent("", "  ")
	if err := enc.Encode(out); err != nil {
		return err
	}
	_, err := io.WriteString(w, "\n")
	return err
}

// writeTAP prints the Test Anything Protocol, version 13.
func (r *testReport) writeTAP(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "TAP version 13\n1..%d\n", r.Passed+r.Failed)
	escape := strings.NewReplacer(`\`, `\\`, "#", `\#`)
	n := 0
	for _, s := range r.Suites {
		for _, c := range s.Cases {
			n++
			word := "ok"
			if !c.Passed {
				word = "not ok"
			}
			fmt.Fprintf(&b, "%s %d - %s\n", word, n, escape.Replace(terminal.Printable(fmt.Sprintf("%s:%d: %s", s.File, c.Line, c.Name))))
			if !c.Passed {
				b.WriteString("  ---\n")
				for _, field := range [][2]string{{"message", c.Problem}, {"wanted", c.Want}, {"found", c.Got}, {"detail", c.Detail}} {
					value, err := json.Marshal(field[1]) // a JSON string is YAML too
					if err != nil {
						return err
					}
					fmt.Fprintf(&b, "  %s: %s\n", field[0], value)
				}
				b.WriteString("  ...\n")
			}
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}
