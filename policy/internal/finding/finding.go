// Package finding has what is wrong with a model or a policy, and words for it.
//
// A [Report] collects findings about one file. Findings quote files: what they
// quote is shortened and escaped here, so that none acts on a terminal.
package finding

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Severity says whether a finding keeps a policy from being served. Its zero
// value does.
type Severity uint8

// The severities.
const (
	SeverityError Severity = iota
	SeverityWarning
)

// String returns "warning", or "error" for everything else.
func (s Severity) String() string {
	if s == SeverityWarning {
		return "warning"
	}
	return "error"
}

// MarshalJSON returns the severity's word.
func (s Severity) MarshalJSON() ([]byte, error) { return json.Marshal(s.String()) }

// A Finding is one thing that is wrong with a model or a policy. Line and
// Column count from 1, in bytes, and are 0 where there is no place.
type Finding struct {
	File     string   `json:"file"`
	Line     int      `json:"line,omitempty"`
	Column   int      `json:"column,omitempty"`
	Severity Severity `json:"severity"`
	// Rule names the check, in lower case with hyphens.
	Rule string `json:"rule"`
	// Message says what is wrong and what to do. What it quotes from a file
	// is escaped.
	Message string `json:"message"`
	// Remedy says how to mend what the rule finds, whatever the line.
	Remedy string `json:"remedy,omitempty"`

	// Field is that of the line, where the column is not known yet; 1 is the
	// first after the type.
	Field int `json:"-"`
	// Character is the column in characters, from 1.
	Character int `json:"-"`
	// TakenBack says that a comment above the line takes it back.
	TakenBack bool `json:"-"`
}

// String returns the finding on one line:
// `policy.csv:3: error: message [rule-id]`.
func (f Finding) String() string {
	place := f.File
	if f.Line > 0 {
		place = fmt.Sprintf("%s:%d", f.File, f.Line)
	}
	return fmt.Sprintf("%s: %s: %s [%s]", place, f.Severity, f.Message, f.Rule)
}

// MaxFindings bounds the errors of a report, and its warnings: after so many, the
// rest is like them.
const MaxFindings = 100

// A LoadError says why a version is not served.
type LoadError struct{ Findings []Finding }

// Error returns the findings of severity error, one a line.
func (e *LoadError) Error() string {
	var lines []string
	for _, f := range e.Findings {
		if f.Severity == SeverityError {
			lines = append(lines, f.String())
		}
	}
	return strings.Join(lines, "\n")
}

// Report collects findings about one file.
type Report struct {
	File     string
	Ignores  Ignores // comments that take findings back
	findings []Finding
	Errors   int
	warnings int
	dropped  int
}

// Add adds a finding about a place of the file; a line or column of 0 is none.
func (r *Report) Add(severity Severity, line, column int, rule, format string, args ...any) {
	count := &r.Errors
	if severity == SeverityWarning {
		count = &r.warnings
	}
	if *count++; *count > MaxFindings { // warnings hide no error
		r.dropped++
		return
	}
	r.findings = append(r.findings, Finding{
		File: r.File, Line: line, Column: column, Severity: severity, Rule: rule, Message: fmt.Sprintf(format, args...),
		TakenBack: slices.Contains(r.Ignores.at[line], rule),
	})
}

// Fail adds an error.
func (r *Report) Fail(line int, rule, format string, args ...any) {
	r.Add(SeverityError, line, 0, rule, format, args...)
}

// Judge adds an error that is a judgement about what somebody meant: a comment
// above the line makes a warning of it, and what the line says is served.
func (r *Report) Judge(line, column int, rule, format string, args ...any) {
	severity := SeverityError
	if slices.Contains(r.Ignores.at[line], rule) {
		severity = SeverityWarning
	}
	r.Add(severity, line, column, rule, format, args...)
}

// Warn adds a warning.
func (r *Report) Warn(line int, rule, format string, args ...any) {
	r.Add(SeverityWarning, line, 0, rule, format, args...)
}

// All returns the findings in the order of their lines, what has none last, and
// behind them one that counts those left out.
func (r *Report) All() []Finding {
	slices.SortStableFunc(r.findings, func(a, b Finding) int { return cmp.Compare(uint(a.Line)-1, uint(b.Line)-1) })
	if r.dropped == 0 {
		return r.findings
	}
	severity := SeverityWarning
	if r.Errors > 0 {
		severity = SeverityError
	}
	return append(r.findings, Finding{File: r.File, Severity: severity, Rule: "too-many", Message: fmt.Sprintf("%d more findings are not shown", r.dropped)})
}

// Shorten keeps messages readable.
func Shorten[T string | []byte](s T) string {
	if len(s) > 60 {
		return string(s[:60]) + "…"
	}
	return string(s)
}

// Quoted shortens a text for a message that has quotes of its own.
func Quoted(s string) string { return Escape(Shorten(s)) }

// Escape replaces what a terminal would not show as it is.
func Escape(s string) string {
	if utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return !strconv.IsPrint(r) }) {
		return s
	}
	q := strconv.Quote(s)
	return q[1 : len(q)-1]
}
