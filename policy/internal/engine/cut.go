package engine

import (
	"maps"
	"slices"
	"strings"

	"securefiles/policy/internal/model"
	"securefiles/policy/internal/pattern"
	"securefiles/policy/internal/table"
)

// maxLooks bounds how many pairs of lines, and names, are looked at: somebody waits
// for the answer, and a policy may have a million lines.
const maxLooks = 1 << 20

// LostDeny returns a line of a policy behind its first so many without which
// somebody may have more access; 0 where there is none. It may name one that makes
// no difference, for one where it would take long to tell, and never misses one that
// does.
func LostDeny(m *model.Model, t *table.Table, left int) int {
	c := &cut{
		model: m, table: t, plain: isPlain(m), subjects: m.SubjectColumns(),
		allows: rowsOf{}, denies: rowsOf{}, before: roles{}, now: roles{}, always: roles{}, below: roles{}, looks: maxLooks,
	}
	eft := m.PolicyField("eft")
	for row, line := range t.Rows.Lines {
		lost := int(line) > left
		switch {
		case eft < 0 || c.text(eft, row) == "allow":
			if !lost {
				c.allows.add(c, row)
			}
		case c.text(eft, row) == "deny" && lost:
			return int(line)
		case c.text(eft, row) == "deny":
			c.denies.add(c, row)
			c.denied = true
		}
	}
	var lost []table.Edge
	for _, edges := range t.Edges {
		for _, e := range edges {
			c.before[e.Name] = append(c.before[e.Name], e.Role)
			if int(e.Line) > left {
				lost = append(lost, e)
				continue
			}
			c.now[e.Name] = append(c.now[e.Name], e.Role)
			if e.Period == 0 {
				c.always[e.Name] = append(c.always[e.Name], e.Role)
			}
			c.below[e.Role] = append(c.below[e.Role], e.Name)
		}
	}
	// Whatever groups somebody comes with.
	for _, names := range [][]table.Symbol{slices.Collect(maps.Keys(c.allows)), slices.Collect(maps.Keys(c.now))} {
		for _, name := range names {
			if strings.HasPrefix(t.Symbols.Text(name), "@") {
				c.groups = append(c.groups, name)
			}
		}
	}
	for _, e := range lost {
		if c.gives(e) {
			return int(e.Line)
		}
	}
	return 0
}

// A cut is a policy of which some lines are left.
type cut struct {
	model              *model.Model
	table              *table.Table
	plain              bool
	subjects           []int  // columns
	allows, denies     rowsOf // that are left
	denied             bool   // is anything by those
	before, now, below roles  // above a name, whole and of what is left; and below it
	always             roles  // above a name, of what is left and holds at any time
	groups             []table.Symbol
	looks              int // that may still be taken
}

// rowsOf are the lines that speak of a name.
type rowsOf map[table.Symbol][]int

func (r rowsOf) add(c *cut, row int) {
	for _, column := range c.subjects {
		name := c.table.Rows.Cols[column][row]
		r[name] = append(r[name], row)
	}
}

// roles are the names that a name leads to.
type roles map[table.Symbol][]table.Symbol

// from returns these names and all that they lead to.
func (r roles) from(names ...table.Symbol) map[table.Symbol]bool {
	seen := map[table.Symbol]bool{}
	for len(names) > 0 {
		at := names[len(names)-1]
		names = names[:len(names)-1]
		if !seen[at] {
			seen[at] = true
			names = append(names, r[at]...)
		}
	}
	return seen
}

func (c *cut) text(column, row int) string {
	return c.table.Symbols.Text(c.table.Rows.Cols[column][row])
}

// isPlain reports whether whom a line is of stands in the line: the matcher asks
// r.sub for a role that p has, or for being what p has, and in no other way; and
// without a line that allows there is no access.
func isPlain(m *model.Model) bool {
	subjects := m.SubjectColumns()
	var plain func(*model.Term) bool
	plain = func(t *model.Term) bool {
		switch {
		case t.Op == model.Not:
			return !t.LooksAtLine() && !t.Asks("sub")
		case t.Op != model.Leaf:
			return !slices.ContainsFunc(t.Kids, func(kid *model.Term) bool { return !plain(kid) })
		case t.Asks("sub") || len(m.RoleCalls(&t.Part)) > 0 || slices.ContainsFunc(t.Columns, func(column int) bool { return slices.Contains(subjects, column) }):
			return (t.Atom.Kind == model.Role || t.Atom.Kind == model.Equal) && m.Request[t.Atom.Request] == "sub"
		}
		return true
	}
	return len(subjects) > 0 && m.Effect != model.DenyOverride && m.Effect != model.SubjectPriority && len(m.Roles) == 1 && !m.Evaluates && plain(m.Root)
}

// gives reports whether somebody may have more without a role: where a line that
// is left denies the role, or one above it, and another allows something of that
// to whom the role was taken from; and where the model asks who has it not. Of a
// model that is not plain, whatever is denied may be of the role.
func (c *cut) gives(lost table.Edge) bool {
	taken := c.before.from(lost.Role)
	if c.asksWhoHasNot(c.model.Root, false, taken) || !c.plain && (c.denied || c.model.Effect == model.SubjectPriority) {
		return true
	}
	var denies []int
	for name := range taken {
		denies = append(denies, c.denies[name]...)
	}
	if len(denies) == 0 {
		return false
	}
	// Whoever had it, by whatever name.
	names := slices.Clone(c.groups)
	for name := range c.below.from(lost.Name) {
		names = append(names, name)
	}
	for name := range c.now.from(names...) {
		for _, allow := range c.allows[name] {
			for _, deny := range denies {
				if c.looks--; c.looks < 0 || c.overlap(allow, deny) && !c.goesWith(allow, deny) {
					return true
				}
			}
		}
		c.looks--
	}
	return c.looks < 0
}

// goesWith reports whether whoever an allow line speaks of is denied by another. A
// longer chain of roles may be longer than is followed, and one that holds in a
// domain does not hold in others.
func (c *cut) goesWith(allow, deny int) bool {
	if len(c.subjects) != 1 || c.model.Roles["g"] != 2 {
		return false
	}
	column := c.table.Rows.Cols[c.subjects[0]]
	return column[allow] == column[deny] || slices.Contains(c.always[column[allow]], column[deny])
}

// overlap reports whether a path may be of two lines.
func (c *cut) overlap(a, b int) bool {
	met, clauses := false, 0
	var walk func(*model.Term)
	walk = func(t *model.Term) {
		for _, kid := range t.Kids {
			walk(kid)
		}
		clause, ok := c.model.PathClauseOf(t)
		if !ok {
			return
		}
		clauses++
		met = met || t.Atom.Kind == model.Role ||
			meet(clause.Func.Anchors(c.text(clause.Col, a)), clause.Func.Anchors(c.text(clause.Col, b)))
	}
	walk(c.model.Root)
	return met || clauses == 0
}

// meet reports whether a text may have the anchors of two patterns.
func meet(a, b pattern.Anchors) bool {
	for i := range min(len(a.Prefix), len(b.Prefix)) {
		switch {
		case a.Prefix[i] == pattern.AnyRune || b.Prefix[i] == pattern.AnyRune:
			return true
		case a.Prefix[i] != b.Prefix[i]:
			return false
		}
	}
	return (!a.Exact || len(a.Prefix) >= len(b.Prefix)) && (!b.Exact || len(b.Prefix) >= len(a.Prefix))
}

// asksWhoHasNot reports whether a matcher holds for whoever has one of these roles
// not, or may: it does so by a ! before the question, or by whatever is not
// understood.
func (c *cut) asksWhoHasNot(t *model.Term, negated bool, roles map[table.Symbol]bool) bool {
	if t.Op != model.Leaf {
		for _, kid := range t.Kids {
			if c.asksWhoHasNot(kid, negated != (t.Op == model.Not), roles) {
				return true
			}
		}
		return false
	}
	if t.Evaluates {
		return true
	}
	_, plain := c.model.Roles[t.Atom.Function]
	for _, call := range c.model.RoleCalls(&t.Part) {
		if plain && !negated {
			continue
		}
		role, known := c.table.Symbols.Lookup(call.Role.Text)
		if !call.Role.IsText || known && roles[role] {
			return true
		}
	}
	return false
}
