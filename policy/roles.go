package policy

import (
	"slices"
	"strings"
)

// defaultRoleDepth is how many roles deep Casbin's own role manager follows a
// chain before it stops without a word.
const defaultRoleDepth = 10

// A node is a name in a domain, as a role graph numbers it.
type node struct{ name, domain symbol }

// A roleGraph holds the links of one role definition. It is immutable: reading
// it takes no lock, and nothing in it grows with what is asked.
type roleGraph struct {
	depth int
	nodes []node
	ids   hashTable // of the nodes
	first []int32   // the roles of node i are roles[first[i]:first[i+1]]
	roles []roleEnd
}

// A roleEnd is a node at the end of a link, with its name beside it.
type roleEnd struct {
	node int32
	name symbol
}

func newRoleGraph(ls []roleLink, depth int) *roleGraph {
	g := &roleGraph{depth: depth}
	from, to := make([]int32, len(ls)), make([]int32, len(ls))
	for i, l := range ls {
		from[i], to[i] = g.add(node{l.name, l.domain}), g.add(node{l.role, l.domain})
	}
	g.nodes = slices.Clip(g.nodes)
	var order []int32
	g.first, order = groupBy(from, len(g.nodes))
	g.roles = make([]roleEnd, len(ls))
	for k, i := range order {
		g.roles[k] = roleEnd{to[i], ls[i].role}
	}
	return g
}

// groupBy puts the places of a list into the order of their groups, which count
// from 0: those of group g are order[first[g]:first[g+1]], ascending.
func groupBy(groups []int32, count int) (first, order []int32) {
	first = make([]int32, count+1)
	for _, g := range groups {
		first[g+1]++
	}
	for g := range count {
		first[g+1] += first[g]
	}
	order = make([]int32, len(groups))
	next := slices.Clone(first)
	for i, g := range groups {
		order[next[g]] = int32(i)
		next[g]++
	}
	return first, order
}

// longest returns how many roles the longest chain has, that of a group counted
// with the group itself. Chains that run into a cycle are left out.
func (g *roleGraph) longest(syms *symbols) int {
	// Backwards, from the roles that have none of their own.
	left := make([]int32, len(g.nodes))
	ends, holders := make([]int32, len(g.roles)), make([]int32, len(g.roles)) // of each link
	for i := range g.nodes {
		left[i] = g.first[i+1] - g.first[i]
		for k := g.first[i]; k < g.first[i+1]; k++ {
			ends[k], holders[k] = g.roles[k].node, int32(i)
		}
	}
	first, order := groupBy(ends, len(g.nodes))
	height, longest := make([]int, len(g.nodes)), 0
	var ready []int32
	for i := range g.nodes {
		if left[i] == 0 {
			ready = append(ready, int32(i))
		}
	}
	for len(ready) > 0 {
		role := ready[len(ready)-1]
		ready = ready[:len(ready)-1]
		chain := height[role]
		if strings.HasPrefix(syms.text(g.nodes[role].name), "@") {
			chain++
		}
		longest = max(longest, chain)
		for _, k := range order[first[role]:first[role+1]] {
			holder := holders[k]
			height[holder] = max(height[holder], height[role]+1)
			if left[holder]--; left[holder] == 0 {
				ready = append(ready, holder)
			}
		}
	}
	return longest
}

// id returns the number of a node, or -1.
func (g *roleGraph) id(n node) int32 {
	id, ok := g.ids.find(hashSymbols(n.name, n.domain), func(id uint32) bool { return g.nodes[id] == n })
	if !ok {
		return -1
	}
	return int32(id)
}

func (g *roleGraph) add(n node) int32 {
	id := g.id(n)
	if id < 0 {
		id = int32(len(g.nodes))
		g.ids.insert(hashSymbols(n.name, n.domain), uint32(id))
		g.nodes = append(g.nodes, n)
	}
	return id
}

// noSymbol stands for a name that the policy does not have.
const noSymbol = symbol(1<<32 - 1)

// A reached name, and the place in its list from which it was reached; -1 for
// the name that the walk started from.
type reached struct {
	name   symbol
	node   int32 // -1 where no link begins or ends
	parent int32
}

// A walk is the names that one name reaches. It goes on as far as it is asked,
// and is used again for other names.
type walk struct {
	graph   *roleGraph
	reached []reached
	// symbols are the names among them that the policy has.
	symbols []symbol
	seen    nameSet
	// at is the place whose roles come next, end where the level of them ends
	// that are level links away from the start.
	at, end, level int
}

// begin makes w a walk from a start, noSymbol where the policy does not have it,
// which is the first name reached, each name
// once. The groups count as roles of the start. Within the graph's depth,
// Casbin's manager reaches the same names.
func (g *roleGraph) begin(w *walk, syms *symbols, start symbol, groups []string, domain symbol) {
	w.graph, w.reached, w.symbols = g, w.reached[:0], w.symbols[:0]
	w.at, w.end, w.level = 0, 1, 0
	w.seen.clear()
	w.add(start, g.id(node{start, domain}), -1)
	if g.depth > 0 {
		for _, group := range groups {
			if s, ok := syms.lookup(group); ok {
				w.add(s, g.id(node{s, domain}), 0)
			}
		}
	}
}

// step takes the roles of one more name in, and is false where there is none.
func (w *walk) step() bool {
	if w.at == w.end { // the next level
		if w.level++; w.end == len(w.reached) {
			return false
		}
		w.end = len(w.reached)
	}
	if w.level >= w.graph.depth {
		return false
	}
	if id := w.reached[w.at].node; id >= 0 {
		for _, role := range w.graph.roles[w.graph.first[id]:w.graph.first[id+1]] {
			w.add(role.name, role.node, int32(w.at))
		}
	}
	w.at++
	return true
}

// all goes to the end and returns every name that the policy has.
func (w *walk) all() []symbol {
	for w.step() {
	}
	return w.symbols
}

// has goes on until a name is reached, or to the end.
func (w *walk) has(name symbol) bool {
	for !w.seen.has(name) {
		if !w.step() {
			return false
		}
	}
	return true
}

func (w *walk) add(name symbol, node, parent int32) {
	if !w.seen.add(name) {
		return
	}
	w.reached = append(w.reached, reached{name, node, parent})
	if name != noSymbol {
		w.symbols = append(w.symbols, name)
	}
}

// find goes to the end and returns the place of a name, or -1.
func (w *walk) find(name symbol) int {
	w.all()
	return slices.IndexFunc(w.reached, func(r reached) bool { return r.name == name })
}

// A nameSet is a set that is cleared at no cost. Its memory is that of the
// largest set that it held.
type nameSet struct {
	slots []uint64 // the round in the upper half, the symbol in the lower
	round uint32
	used  int
}

func (s *nameSet) clear() {
	s.used = 0
	if s.round++; s.round == 0 {
		clear(s.slots)
		s.round = 1
	}
}

// place returns the slot that holds a symbol, or would.
func (s *nameSet) place(name symbol) int {
	mask := len(s.slots) - 1
	i := int(uint32(name)*0x9e3779b1>>7) & mask
	for s.slots[i]>>32 == uint64(s.round) && uint32(s.slots[i]) != uint32(name) {
		i = (i + 1) & mask
	}
	return i
}

// add reports whether the symbol was not there before.
func (s *nameSet) add(name symbol) bool {
	if 2*(s.used+1) > len(s.slots) {
		old := s.slots
		s.slots = make([]uint64, max(64, 2*len(old)))
		for _, slot := range old {
			if slot>>32 == uint64(s.round) {
				s.slots[s.place(symbol(slot))] = slot
			}
		}
	}
	slot, entry := &s.slots[s.place(name)], uint64(s.round)<<32|uint64(name)
	if *slot == entry {
		return false
	}
	*slot = entry
	s.used++
	return true
}

func (s *nameSet) has(name symbol) bool {
	return len(s.slots) > 0 && s.slots[s.place(name)] == uint64(s.round)<<32|uint64(name)
}
