// Package policytest runs policy tests: what somebody may and may not have, in YAML,
// asked by the code that serves.
//
// [Load] reads a file of cases, [Run] asks them, and a [Report] prints what came of
// it, as text, JUnit or TAP. That all pass says nothing of what no case asks; the
// coverage says which lines those are.
package policytest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"securefiles/authz"
	"securefiles/internal/terminal"
	"securefiles/policy"
	"securefiles/policy/explain"
)

// A Report is what `securefiles test --json` prints.
type Report struct {
	Passed   int       `json:"passed"`
	Failed   int       `json:"failed"`
	Suites   []*Suite  `json:"files"`
	Coverage *Coverage `json:"coverage,omitempty"`
}

// A Suite is one file of cases.
type Suite struct {
	File   string    `json:"file"`
	Failed int       `json:"failed"`
	Cases  []*Result `json:"cases"`

	cases []*Case
	took  time.Duration
}

// A Result is what became of one case.
type Result struct {
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

// Coverage says how much of a policy the cases reach.
type Coverage struct {
	Lines   int            `json:"lines"`
	Reached int            `json:"reached"`
	Percent float64        `json:"percent"`
	Minimum float64        `json:"minimum,omitempty"`
	Missed  []explain.Line `json:"missed"`
}

// TooSmall reports whether less is reached than the minimum.
func (c *Coverage) TooSmall() bool { return c != nil && c.Percent < c.Minimum }

// A tester asks one policy.
type tester struct {
	downloads *authz.Downloads
	store     *policy.Store
	coverage  *explain.Coverage // nil where nobody asks for it
}

// run asks one case. The error says that the case cannot be asked.
func (t *tester) run(ctx context.Context, c *Case) (*Result, error) {
	action := c.Action
	if action == "" {
		action = authz.ActionRead
	}
	r := &Result{Line: c.Line, Name: c.Name, Want: c.Want, Got: "deny"}
	if r.Name == "" {
		r.Name = strings.Join([]string{c.Subject, action, c.Path}, " ")
	}
	begin := time.Now()
	defer func() { r.took = time.Since(begin) }()
	ask := explain.Ask{Subject: c.Subject, Groups: c.Groups, Path: c.Path, Action: action, Download: c.Download, IP: c.IP, Host: c.Host, At: c.At}
	q, err := ask.Query(t.downloads, t.store.Zone())
	if errors.Is(err, authz.ErrPath) {
		r.refused(c, err)
		return r, nil
	}
	if errors.Is(err, authz.ErrSeveral) {
		err = fmt.Errorf("%w: add download: %s", err, strings.Join(t.downloads.Names(), " or "))
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
func (r *Result) refused(c *Case, err error) {
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

// WriteText prints what go test would.
func (r *Report) WriteText(w io.Writer, verbose bool) {
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

// Write prints the coverage, each line after a prefix.
func (c *Coverage) Write(w io.Writer, prefix string) {
	if c == nil {
		return
	}
	text := fmt.Sprintf("coverage: %.1f%% of %d policy lines\n", c.Percent, c.Lines)
	for _, l := range c.Missed {
		text += fmt.Sprintf("  no case reaches %s:%d  %s\n", l.File, l.Line, terminal.Printable(l.Text))
	}
	if c.TooSmall() {
		text += fmt.Sprintf("FAIL\tcoverage %.1f%% is below %g%%\n", c.Percent, c.Minimum)
	}
	for line := range strings.Lines(text) {
		fmt.Fprint(w, prefix, line)
	}
}

// Run asks the cases of each file. With coverage, it notes which lines of the policy
// they reach, of which at least so many percent shall be. The error says that a case
// cannot be asked.
func Run(ctx context.Context, suites []*Suite, downloads *authz.Downloads, store *policy.Store, withCoverage bool, minimum float64) (*Report, error) {
	t := &tester{downloads: downloads, store: store}
	if withCoverage {
		t.coverage = explain.NewCoverage(store)
	}
	report := &Report{Suites: suites}
	for _, s := range suites {
		begin := time.Now()
		for _, one := range s.cases {
			result, err := t.run(ctx, one)
			if err != nil {
				return nil, err
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
		report.Coverage = &Coverage{Lines: lines, Reached: lines - len(missed), Percent: 100, Missed: append([]explain.Line{}, missed...), Minimum: minimum}
		if lines > 0 {
			report.Coverage.Percent = 100 * float64(lines-len(missed)) / float64(lines)
		}
	}
	return report, nil
}

// LoadSuites reads files of cases. The error joins one for each problem.
func LoadSuites(files ...string) ([]*Suite, error) {
	var suites []*Suite
	var problems []error
	for _, file := range files {
		cases, err := Load(file)
		suites, problems = append(suites, &Suite{File: file, cases: cases}), append(problems, err)
	}
	return suites, errors.Join(problems...)
}
