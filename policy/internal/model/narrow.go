package model

import "slices"

// OnlyNarrows reports whether a line that allows matches less where a column has a
// text that nobody and nothing is called. Where the text is empty, it may be what a
// request without an address has, and as an expression it matches everything.
func (m *Model) OnlyNarrows(column int, empty bool) bool {
	if m.Evaluates {
		return false // a rule may ask any column
	}
	var narrows func(t *Term, negated bool) bool
	narrows = func(t *Term, negated bool) bool {
		for _, kid := range t.Kids {
			if !narrows(kid, negated != (t.Op == Not)) {
				return false
			}
		}
		if t.Op != Leaf || !slices.Contains(t.Columns, column) {
			return true
		}
		switch a := t.Atom; {
		case negated || a.Kind == Opaque:
			return false
		case a.Kind == Constant:
			return !empty || a.Text != ""
		default:
			return !empty || !m.MayHoldForNothing(t)
		}
	}
	return narrows(m.Root, false)
}

// RolesAsked reports whether the matcher asks for roles of a kind, and whether it
// names each role that it asks for, in a line or in a text of its own. It does not
// where the role is the request's, as in g(p.act, r.act), or is joined from parts.
func (m *Model) RolesAsked(kind string) (asked, named bool) {
	named = true
	for _, c := range m.RoleCalls(&m.Root.Part) {
		if c.Kind == kind {
			asked = true
			named = named && (c.Role.Column >= 0 || c.Role.IsText)
		}
	}
	return asked, named
}

// A RoleColumn is a column that holds names of roles, or of subjects.
type RoleColumn struct {
	Column int
	// MayTake says that a line may match for whoever has the role not.
	MayTake bool
}

// RoleColumns are the columns whose names the matcher asks somebody to have, or to
// be.
func (m *Model) RoleColumns() []RoleColumn {
	var columns []RoleColumn
	for _, column := range m.SubjectColumns() {
		columns = append(columns, RoleColumn{column, false})
	}
	m.eachRole(func(c RoleCall, mayTake bool) {
		if c.Role.Column >= 0 {
			columns = append(columns, RoleColumn{c.Role.Column, mayTake})
		}
	})
	return columns
}

// TakingRoles are the roles that the matcher asks by name, and may ask nobody to
// have.
func (m *Model) TakingRoles() []string {
	var texts []string
	m.eachRole(func(c RoleCall, mayTake bool) {
		if mayTake {
			texts = append(texts, c.Role.Texts...)
		}
	})
	return texts
}

// eachRole visits the calls of role functions. A call may take something away from
// whoever has the role where it is negated, or part of what is not understood.
func (m *Model) eachRole(visit func(c RoleCall, mayTake bool)) {
	var walk func(t *Term, negated bool)
	walk = func(t *Term, negated bool) {
		for _, kid := range t.Kids {
			walk(kid, negated != (t.Op == Not))
		}
		if t.Op == Leaf {
			_, plain := m.Roles[t.Atom.Function]
			for _, c := range m.RoleCalls(&t.Part) {
				visit(c, negated || !plain)
			}
		}
	}
	walk(m.Root, false)
}
