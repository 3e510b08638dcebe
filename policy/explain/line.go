package explain

import "securefiles/policy/internal/engine"

// A Line is one line of the policy, as far as it concerns a request.
type Line struct {
	File   string `json:"file"`
	Line   int    `json:"line"`
	Text   string `json:"text"`
	Effect string `json:"effect"`
	// Names says what $sub and $group stand for: `$sub is "alice"`; empty where
	// the line has neither.
	Names string `json:"names,omitempty"`
	// Chain leads from the subject to the line's subject by way of groups and
	// roles; empty where they are the same.
	Chain []Step `json:"chain,omitempty"`
	// Clauses are the parts of the matcher, of a line that does not match.
	Clauses []Clause `json:"clauses,omitempty"`
}

// A Step is a name in a chain of roles.
type Step struct {
	Name string `json:"name"`
	// Line is the g line that leads here; 0 for the subject itself and for a
	// group of the request.
	Line int `json:"line,omitempty"`
}

// A Clause is a part of a matcher, joined to the others by &&.
type Clause struct {
	Text  string `json:"text"`
	Holds bool   `json:"holds"`
	// Detail says so with values: `"read" is not "list"`.
	Detail string `json:"detail"`
}

// lineOf describes a row for nobody.
func lineOf(v *engine.Version, row int) Line {
	l := Line{File: v.File, Line: int(v.Table.Rows.Lines[row]), Text: v.Text(row), Effect: "allow"}
	switch v.Engine.EffectOf(row) {
	case engine.RowDenies:
		l.Effect = "deny"
	case engine.RowSilent:
		l.Effect = "none"
	}
	return l
}
