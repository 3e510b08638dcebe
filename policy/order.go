package policy

import (
	"slices"
	"strconv"
)

// sortByPriority orders rows by a priority column, as Casbin does: stable, the
// smallest number first.
func (t *table) sortByPriority(col int) {
	if col < 0 {
		return
	}
	priority := make([]int, t.rules.len())
	for row := range priority {
		priority[row], _ = strconv.Atoi(t.syms.text(t.rules.cols[col][row])) // checked line by line
	}
	t.sortRows(priority)
}

// sortRows orders rows by a rank for each, the smallest first.
func (t *table) sortRows(rank []int) {
	order := make([]int, len(rank))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int {
		if rank[a] < rank[b] {
			return -1
		}
		if rank[a] > rank[b] {
			return 1
		}
		return 0
	})
	t.rules.reorder(order)
}

// sortBySubject orders rows by how deep their subject stands below the roots of
// the role tree, the deepest first, as Casbin does. Anything but a tree is
// refused: a cycle would keep Casbin busy for ever, and elsewhere its order is
// a matter of luck.
func (l *loader) sortBySubject() {
	t := l.out
	// Casbin knows a name in a domain by this text.
	key := func(name, domain symbol) string { return t.syms.text(domain) + "::" + t.syms.text(name) }
	parent := make(map[string]string)
	for _, link := range t.links["g"] {
		child, up := key(link.name, link.domain), key(link.role, link.domain)
		if _, ok := parent[child]; ok {
			l.fail(int(link.line), "role-tree", "gives %q a second role: with subjectPriority roles must form a tree", shorten(t.syms.text(link.name)))
			return
		}
		parent[child] = up
	}
	depth := make(map[string]int, len(parent))
	for _, link := range t.links["g"] {
		var below []string // names whose depth is not known yet, the lowest first
		name := key(link.name, link.domain)
		for {
			up, ok := parent[name]
			if _, known := depth[name]; known || !ok {
				break
			}
			if len(below) > len(parent) {
				l.fail(int(link.line), "role-tree", "is part of a cycle of roles: with subjectPriority roles must form a tree")
				return
			}
			below, name = append(below, name), up
		}
		for i, d := len(below)-1, depth[name]+1; i >= 0; i, d = i-1, d+1 {
			depth[below[i]] = d
		}
	}
	subject, domain := l.def.policyField("sub"), l.def.policyField("dom")
	rank := make([]int, t.rules.len())
	for row := range rank {
		var dom symbol // "" where p has no domain
		if domain >= 0 {
			dom = t.rules.cols[domain][row]
		}
		rank[row] = -depth[key(t.rules.cols[subject][row], dom)]
	}
	t.sortRows(rank)
}
