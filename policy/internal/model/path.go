package model

import "securefiles/policy/internal/pattern"

// A PathClause is a clause that compares the path of a request to a field of
// the policy.
type PathClause struct {
	Func pattern.Func
	Col  int // of the pattern
}

// PathClauseOf returns what a clause compares the path to, if it does nothing
// else.
func (m *Model) PathClauseOf(c *Term) (PathClause, bool) {
	a := c.Atom
	switch {
	case a == nil:
	case a.Kind == Pattern && m.Request[a.Request] == "obj":
		return PathClause{a.Func, a.Policy}, true
	case (a.Kind == Equal || a.Kind == Role && a.Domain == DomainNone) && m.Request[a.Request] == "obj":
		return PathClause{pattern.Equal(), a.Policy}, true // of a role, g2(r.obj, p.obj), the path is a name
	}
	return PathClause{}, false
}

// PathFunctions are the functions by which the matcher compares the path to a
// column of the policy, wherever in it.
func (m *Model) PathFunctions(column int) []pattern.Func {
	var out []pattern.Func
	for i := range m.Root.Calls {
		c := &m.Root.Calls[i]
		if f, ok := pattern.ByName(c.Function); ok && len(c.Operands) == 2 && c.Operands[0].Request == "obj" && c.Operands[1].Column == column {
			out = append(out, f)
		}
	}
	return out
}

// Variables are the names by which somebody may mean whoever asks, where they are
// names like any other: of a subject.
func Variables() []string {
	return []string{pattern.SubjectName, pattern.GroupName, "@" + pattern.GroupName}
}
