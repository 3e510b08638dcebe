package model

// A PathClause is a clause that compares the path of a request to a field of
// the policy.
type PathClause struct {
	Function string // of Casbin; "==" for equality
	Col      int    // of the pattern
}

// PathClauseOf returns what a clause compares the path to, if it does nothing
// else.
func (m *Model) PathClauseOf(c *Term) (PathClause, bool) {
	a := c.Atom
	switch {
	case a == nil:
	case a.Kind == Pattern && m.Request[a.Request] == "obj":
		return PathClause{a.Function, a.Policy}, true
	case (a.Kind == Equal || a.Kind == Role && a.Domain == DomainNone) && m.Request[a.Request] == "obj":
		return PathClause{"==", a.Policy}, true // of a role, g2(r.obj, p.obj), the path is a name
	}
	return PathClause{}, false
}
