package table

import (
	"cmp"
	"slices"
	"strconv"

	"securefiles/policy/internal/finding"
)

// sortByPriority orders rows by a priority column, as Casbin does: stable, the
// smallest number first.
func (t *Table) sortByPriority(col int) {
	if col < 0 {
		return
	}
	priority := make([]int, t.Rows.Len())
	for row := range priority {
		priority[row], _ = strconv.Atoi(t.Symbols.Text(t.Rows.Cols[col][row])) // checked line by line
	}
	t.sortRows(priority)
}

// sortRows orders rows by a rank for each, the smallest first.
func (t *Table) sortRows(rank []int) {
	order := make([]int, len(rank))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(rank[a], rank[b]) })
	t.Rows.reorder(order)
}

// sortBySubject orders rows by how deep their subject stands below the roots of
// the role tree, the deepest first, as Casbin does. Anything but a tree is
// refused: a cycle would keep Casbin busy for ever, and elsewhere its order is
// a matter of luck.
func (l *loader) sortBySubject() {
	t := l.out
	// Casbin knows a name in a domain by this text.
	key := func(name, domain Symbol) string { return t.Symbols.Text(domain) + "::" + t.Symbols.Text(name) }
	parent := make(map[string]string)
	for _, edge := range t.Edges["g"] {
		child, up := key(edge.Name, edge.Domain), key(edge.Role, edge.Domain)
		if other, ok := parent[child]; ok && other != up { // the same may be had at several times
			l.Fail(int(edge.Line), "role-tree", "gives %q a second role: with subjectPriority roles must form a tree", finding.Shorten(t.Symbols.Text(edge.Name)))
			return
		}
		parent[child] = up
	}
	depth := make(map[string]int, len(parent))
	for _, edge := range t.Edges["g"] {
		var below []string // names whose depth is not known yet, the lowest first
		name := key(edge.Name, edge.Domain)
		for {
			up, ok := parent[name]
			if _, known := depth[name]; known || !ok {
				break
			}
			if len(below) > len(parent) {
				l.Fail(int(edge.Line), "role-tree", "is part of a cycle of roles: with subjectPriority roles must form a tree")
				return
			}
			below, name = append(below, name), up
		}
		for i, d := len(below)-1, depth[name]+1; i >= 0; i, d = i-1, d+1 {
			depth[below[i]] = d
		}
	}
	subject, domain := l.model.PolicyField("sub"), l.model.PolicyField("dom")
	rank := make([]int, t.Rows.Len())
	for row := range rank {
		var dom Symbol // "" where p has no domain
		if domain >= 0 {
			dom = t.Rows.Cols[domain][row]
		}
		rank[row] = -depth[key(t.Rows.Cols[subject][row], dom)]
	}
	t.sortRows(rank)
}
