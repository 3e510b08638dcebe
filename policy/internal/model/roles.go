package model

import (
	"slices"

	"securefiles/policy/internal/pattern"
)

// Alternatives are the ways in which a line can match: those that || joins.
func (m *Model) Alternatives() []*Term { return m.Root.operands(Or) }

// RoleCalls returns the calls of role functions in a part of the matcher, or in a
// rule of the policy.
func (m *Model) RoleCalls(p *Part) []RoleCall {
	var calls []RoleCall
	for i := range p.Calls {
		c := &p.Calls[i]
		fields, ok := m.Roles[c.Function]
		if !ok || len(c.Operands) != fields {
			continue
		}
		rc := RoleCall{Kind: c.Function, Name: &c.Operands[0], Role: &c.Operands[1]}
		if fields == 3 {
			rc.Domain = &c.Operands[2]
		}
		calls = append(calls, rc)
	}
	return calls
}

// SubjectRoles returns the calls by which the matcher asks for a role of the
// subject that a line names: g(r.sub, p.sub), within a domain or without.
func (m *Model) SubjectRoles() []RoleCall {
	return slices.DeleteFunc(m.RoleCalls(&m.Root.Part), func(c RoleCall) bool {
		return c.Name.Request != "sub" || c.Role.Column < 0 || c.Domain != nil && !c.Domain.isValue()
	})
}

// isValue reports whether a part is a field or a text.
func (p *Part) isValue() bool { return p.Request != "" || p.Column >= 0 || p.IsText }

// SubjectColumns are the columns that the matcher compares the subject to, by a
// role or as it is, in their order; sub is always among them.
func (m *Model) SubjectColumns() []int {
	columns := []int{m.PolicyField("sub")}
	for _, c := range m.SubjectRoles() {
		columns = append(columns, c.Role.Column)
	}
	for _, other := range m.subjectComparisons() {
		columns = append(columns, other.Column)
	}
	slices.Sort(columns)
	return slices.DeleteFunc(slices.Compact(columns), func(column int) bool { return column < 0 })
}

// SubjectTexts are the names that the matcher compares the subject to, by a role
// or as it is, in its order.
func (m *Model) SubjectTexts() []string {
	var texts []string
	for i := range m.Root.Calls {
		c := &m.Root.Calls[i]
		switch _, isRole := m.Roles[c.Function]; {
		case isRole && c.Operands[0].Request == "sub" && c.Operands[1].IsText:
			texts = append(texts, c.Operands[1].Text)
		case c.IsComparison():
			if other := c.comparedTo("sub"); other != nil && other.IsText {
				texts = append(texts, other.Text)
			}
		}
	}
	return texts
}

// subjectComparisons are what the matcher compares the subject to by == and !=.
func (m *Model) subjectComparisons() []*Part {
	var others []*Part
	for i := range m.Root.Calls {
		c := &m.Root.Calls[i]
		if other := c.comparedTo("sub"); c.IsComparison() && other != nil {
			others = append(others, other)
		}
	}
	return others
}

// comparedTo returns what a field of r is compared to, or nil.
func (c *Call) comparedTo(request string) *Part {
	switch {
	case len(c.Operands) != 2:
		return nil
	case c.Operands[0].Request == request:
		return &c.Operands[1]
	case c.Operands[1].Request == request:
		return &c.Operands[0]
	}
	return nil
}

// NamesUnlisted says why subjects that the policy does not name may differ from
// each other, or returns "". They do not where the subject is compared by == and
// by roles alone, to what the policy or the model names.
func (m *Model) NamesUnlisted() string {
	if m.Evaluates {
		return "the matcher evaluates rules of the policy, which may ask for any subject: cannot enumerate, falls back to listed subjects"
	}
	listed := 0
	for i := range m.Root.Calls {
		c := &m.Root.Calls[i]
		switch _, isRole := m.Roles[c.Function]; {
		case isRole && c.Operands[0].Request == "sub" && (c.Operands[1].Column >= 0 || c.Operands[1].IsText) && (len(c.Operands) < 3 || c.Operands[2].isValue() && c.Operands[2].Request != "sub"):
			listed++
		case c.IsComparison():
			if other := c.comparedTo("sub"); other != nil && (other.Column >= 0 || other.IsText) {
				listed++
			}
		}
	}
	if listed < m.subjects {
		return "the matcher compares r.sub by more than g and ==: cannot enumerate, falls back to listed subjects"
	}
	return ""
}

// Patterns are the columns that a function of Casbin's takes for patterns, each
// with the call that does.
func (m *Model) Patterns() []PatternColumn {
	var out []PatternColumn
	for i := range m.Root.Calls {
		c := &m.Root.Calls[i]
		function := c.Function
		if function == "=~" || function == "!~" {
			function = "regexMatch"
		}
		if check, ok := pattern.Checker(function); ok && len(c.Operands) == 2 && c.Operands[1].Column >= 0 {
			out = append(out, PatternColumn{function, c.Operands[1].Column, check, func(line func(column int) string) bool { return m.Reaches(c, line) }})
		}
	}
	return out
}

// A PatternColumn is a column that holds patterns of a function of Casbin's, but
// in lines that do not come to the function.
type PatternColumn struct {
	Function string
	Column   int
	Check    func(text string) error                 // says why a text is no pattern
	Reached  func(line func(column int) string) bool // whether a line comes to the function
}

// Subrules are the columns that hold rules which the matcher evaluates.
func (m *Model) Subrules() []int {
	var columns []int
	for i := range m.Root.Calls {
		if c := &m.Root.Calls[i]; c.Function == "eval" && c.Operands[0].Column >= 0 {
			columns = append(columns, c.Operands[0].Column)
		}
	}
	return columns
}
