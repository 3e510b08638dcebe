package model

import (
	"regexp"
	"strings"
)

// Alternatives are joined by ||; the clauses of each by &&.
func (m *Model) Alternatives() []*Term { return m.Root.operands(Or) }

// Clauses are joined by &&.
func (c *Term) Clauses() []*Term { return c.operands(And) }

// A RoleCall is a call of a role function by which a matcher asks for the
// subject: g(r.sub, p.sub).
type RoleCall struct {
	Kind   string
	Col    int    // of the role
	Domain string // an expression, or empty
}

var subjectCall = regexp.MustCompile(`\b(g\d*)\(\s*r_sub\s*,\s*p_(\w+)\s*(?:,\s*([rp]_\w+|"[^"]*"|'[^']*')\s*)?\)`)

// RoleCalls returns the calls in a matcher.
func (m *Model) RoleCalls() []RoleCall {
	var calls []RoleCall
	for _, found := range subjectCall.FindAllStringSubmatch(m.Matcher, -1) {
		if _, ok := m.Roles[found[1]]; ok {
			calls = append(calls, RoleCall{found[1], m.PolicyField(found[2]), found[3]})
		}
	}
	return calls
}

// listable finds the comparisons of a subject to what the policy or the model
// names, for which all other subjects are the same.
var listable = regexp.MustCompile(`\bg\d*\(\s*r_sub\s*,\s*(?:p_\w+|"[^"]*"|'[^']*')\s*(?:,\s*(?:[rp]_\w+|"[^"]*"|'[^']*')\s*)?\)|\br_sub\s*[=!]=\s*(?:p_\w+|"[^"]*"|'[^']*')|(?:\bp_\w+|"[^"]*"|'[^']*')\s*[=!]=\s*r_sub\b`)

// NamesUnlisted says why subjects that the policy does not name may differ from
// each other, or returns "".
func (m *Model) NamesUnlisted() string {
	switch {
	case m.Evaluates:
		return "the matcher evaluates rules of the policy, which may ask for any subject: cannot enumerate, falls back to listed subjects"
	case strings.Contains(listable.ReplaceAllString(m.Matcher, ""), "r_sub"):
		return "the matcher compares r.sub by more than g and ==: cannot enumerate, falls back to listed subjects"
	}
	return ""
}
