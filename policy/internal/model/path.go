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
