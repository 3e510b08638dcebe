package table

import (
	"slices"
	"strings"
	"time"
)

// DefaultDepth is how many roles deep Casbin's own role manager follows a
// chain before it stops without a word.
const DefaultDepth = 10

// A Node is a name in a domain, as a role graph numbers it.
type Node struct{ Name, Domain Symbol }

// A Graph holds the edges of one role definition. It is immutable: reading
// it takes no lock, and nothing in it grows with what is asked.
type Graph struct {
	depth int
	Nodes []Node
	ids   hashTable // of the nodes
	First []int32   // the roles of node i are roles[First[i]:First[i+1]]
	roles []roleEnd
	// when are the numbers of the periods in which the roles are had; nil where
	// that is always.
	when    []uint32
	periods *Periods

	// Where domains are patterns: the domains of edges, and those of them that hold in
	// every domain which begins with a text.
	domains  map[Symbol]bool
	byPrefix map[string][]Symbol
}

// A roleEnd is a node at the end of an edge, with its name beside it.
type roleEnd struct {
	node int32
	name Symbol
}

// NewGraph returns the graph of a role definition, whose chains are followed so
// many roles deep. Without periods each role is had always.
func NewGraph(ls []Edge, periods *Periods, depth int) *Graph {
	g := &Graph{depth: depth}
	from, to := make([]int32, len(ls)), make([]int32, len(ls))
	for i, l := range ls {
		from[i], to[i] = g.add(Node{l.Name, l.Domain}), g.add(Node{l.Role, l.Domain})
	}
	g.Nodes = slices.Clip(g.Nodes)
	var order []int32
	g.First, order = GroupBy(from, len(g.Nodes))
	g.roles = make([]roleEnd, len(ls))
	for k, i := range order {
		g.roles[k] = roleEnd{to[i], ls[i].Role}
		if id := ls[i].Period; id != 0 && periods != nil {
			if g.when == nil {
				g.when, g.periods = make([]uint32, len(ls)), periods
			}
			g.when[k] = id
		}
	}
	return g
}

// MatchDomains makes patterns of the domains of edges, as Casbin does by itself where a
// matcher has keyMatch(r.dom, p.dom): what holds in a domain holds in each that keyMatch
// matches with it. It comes before any walk.
func (g *Graph) MatchDomains(syms *Symbols) {
	g.domains, g.byPrefix = map[Symbol]bool{}, map[string][]Symbol{}
	for _, n := range g.Nodes {
		if g.domains[n.Domain] {
			continue
		}
		g.domains[n.Domain] = true
		if prefix, _, ok := strings.Cut(syms.Text(n.Domain), "*"); ok {
			g.byPrefix[prefix] = append(g.byPrefix[prefix], n.Domain)
		}
	}
}

// Domain returns the symbol of a domain in which roles are asked, or NoSymbol. For one
// that no edge has, where domains are patterns, it is the longest pattern that matches
// it: in that one, the same edges hold.
func (g *Graph) Domain(syms *Symbols, text string) Symbol {
	domain, ok := syms.Lookup(text)
	switch {
	case !ok:
		domain = NoSymbol
	case g.domains[domain]:
		return domain
	}
	for end := len(text); end >= 0 && len(g.byPrefix) > 0; end-- {
		if matching := g.byPrefix[text[:end]]; len(matching) > 0 {
			return matching[0]
		}
	}
	return domain
}

// HasPeriods reports whether a role is not had always, so that the moment of a
// walk matters.
func (g *Graph) HasPeriods() bool { return g.when != nil }

// Ever returns the graph in which each role is had always.
func (g *Graph) Ever() *Graph {
	ever := *g
	ever.when = nil
	return &ever
}

// GroupBy puts the places of a list into the order of their groups, which count
// from 0: those of group g are order[first[g]:first[g+1]], ascending.
func GroupBy(groups []int32, count int) (first, order []int32) {
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

// Reach says which of so many names some names lead to, by edges from tails to heads;
// the names themselves are among them.
func Reach(names []int32, tails, heads []int32, count int) []bool {
	first, order := GroupBy(tails, count)
	reached, open := make([]bool, count), slices.Clone(names)
	for _, name := range open {
		reached[name] = true
	}
	for len(open) > 0 {
		name := open[len(open)-1]
		open = open[:len(open)-1]
		for _, k := range order[first[name]:first[name+1]] {
			if next := heads[k]; !reached[next] {
				reached[next] = true
				open = append(open, next)
			}
		}
	}
	return reached
}

// Longest returns how many roles the longest chain has, that of a group counted
// with the group itself. Chains that run into a cycle are left out.
func (g *Graph) Longest(syms *Symbols) int {
	height, longest := make([]int, len(g.Nodes)), 0
	g.backwards(func(role int32) {
		chain := height[role]
		if strings.HasPrefix(syms.Text(g.Nodes[role].Name), "@") {
			chain++
		}
		longest = max(longest, chain)
	}, func(holder, role int32) { height[holder] = max(height[holder], height[role]+1) })
	return longest
}

// Sums returns for each node the sum of the weights of all that it reaches, with
// its own. What is reached in two ways counts twice, and no sum is over most. A
// node that runs into a cycle has the sum of what does not.
func (g *Graph) Sums(weight func(Node) int, most int) []int {
	sums := make([]int, len(g.Nodes))
	for i, n := range g.Nodes {
		sums[i] = min(most, weight(n))
	}
	g.backwards(func(int32) {}, func(holder, role int32) { sums[holder] = min(most, sums[holder]+sums[role]) })
	return sums
}

// backwards goes from the roles that have none of their own to those who hold
// them: a node is done when all of its roles are, and then its holders hear of it.
// Nodes that run into a cycle are never done.
func (g *Graph) backwards(done func(node int32), heard func(holder, role int32)) {
	left := make([]int32, len(g.Nodes))
	ends, holders := make([]int32, len(g.roles)), make([]int32, len(g.roles)) // of each edge
	for i := range g.Nodes {
		left[i] = g.First[i+1] - g.First[i]
		for k := g.First[i]; k < g.First[i+1]; k++ {
			ends[k], holders[k] = g.roles[k].node, int32(i)
		}
	}
	first, order := GroupBy(ends, len(g.Nodes))
	var ready []int32
	for i := range g.Nodes {
		if left[i] == 0 {
			ready = append(ready, int32(i))
		}
	}
	for len(ready) > 0 {
		role := ready[len(ready)-1]
		ready = ready[:len(ready)-1]
		done(role)
		for _, k := range order[first[role]:first[role+1]] {
			heard(holders[k], role)
			if left[holders[k]]--; left[holders[k]] == 0 {
				ready = append(ready, holders[k])
			}
		}
	}
}

// ID returns the number of a node, or -1.
func (g *Graph) ID(n Node) int32 {
	id, ok := g.ids.find(hashSymbols(n.Name, n.Domain), func(id uint32) bool { return g.Nodes[id] == n })
	if !ok {
		return -1
	}
	return int32(id)
}

func (g *Graph) add(n Node) int32 {
	id := g.ID(n)
	if id < 0 {
		id = int32(len(g.Nodes))
		g.ids.insert(hashSymbols(n.Name, n.Domain), uint32(id))
		g.Nodes = append(g.Nodes, n)
	}
	return id
}

// NoSymbol stands for a name that the policy does not have.
const NoSymbol = Symbol(1<<32 - 1)

// A reached name, and the place in its list from which it was reached; -1 for
// the name that the walk started from.
type reached struct {
	Name   Symbol
	node   int32 // -1 where no edge begins or ends
	Parent int32
	Domain Symbol // of the edge that leads to it
}

// A Walk is the names that one name reaches. It goes on as far as it is asked,
// and is used again for other names.
type Walk struct {
	graph   *Graph
	Reached []reached
	// Idle is how many edges that do not hold at the moment it came to.
	Idle int
	// symbols are the names among them that the policy has.
	symbols []Symbol
	seen    Set
	domains []Symbol // in which edges are followed
	// at is the place whose roles come next, end where the level of them ends
	// that are level edges away from the start.
	at, end, level int
	moment         time.Time
}

// Begin makes w a walk from a start, NoSymbol where the policy does not have it.
// The start is the first name reached, and each name is reached once. The groups
// count as roles of the start. Within the graph's depth, Casbin's manager reaches
// the same names, where it is given what holds at the moment.
func (g *Graph) Begin(w *Walk, syms *Symbols, start Symbol, groups []string, domain Symbol, moment time.Time) {
	w.graph, w.Reached, w.symbols, w.moment = g, w.Reached[:0], w.symbols[:0], moment
	w.at, w.end, w.level, w.Idle = 0, 1, 0, 0
	w.seen.Clear()
	w.domains = append(w.domains[:0], domain)
	if len(g.byPrefix) > 0 && domain != NoSymbol {
		text := syms.Text(domain)
		for end := range len(text) + 1 {
			for _, other := range g.byPrefix[text[:end]] {
				if other != domain {
					w.domains = append(w.domains, other)
				}
			}
		}
	}
	w.add(start, g.ID(Node{start, domain}), -1, domain)
	if g.depth > 0 {
		for _, group := range groups {
			if s, ok := syms.Lookup(group); ok {
				w.add(s, g.ID(Node{s, domain}), 0, domain)
			}
		}
	}
}

// step takes the roles of one more name in, and is false where there is none.
func (w *Walk) step() bool {
	if w.at == w.end { // the next level
		if w.level++; w.end == len(w.Reached) {
			return false
		}
		w.end = len(w.Reached)
	}
	if w.level >= w.graph.depth {
		return false
	}
	w.follow(w.Reached[w.at].node, w.domains[0])
	for _, domain := range w.domains[1:] {
		w.follow(w.graph.ID(Node{w.Reached[w.at].Name, domain}), domain)
	}
	w.at++
	return true
}

// follow takes in the roles of a node that are had at the moment.
func (w *Walk) follow(node int32, domain Symbol) {
	if node < 0 {
		return
	}
	first := w.graph.First[node]
	for k, role := range w.graph.roles[first:w.graph.First[node+1]] {
		if w.graph.when != nil && !w.graph.periods.At(w.graph.when[int(first)+k]).Holds(w.moment) {
			w.Idle++
			continue
		}
		id := role.node
		if domain != w.domains[0] {
			id = w.graph.ID(Node{role.name, w.domains[0]})
		}
		w.add(role.name, id, int32(w.at), domain)
	}
}

// All goes to the end and returns every name that the policy has.
func (w *Walk) All() []Symbol {
	for w.step() {
	}
	return w.symbols
}

// Has goes on until a name is reached, or to the end.
func (w *Walk) Has(name Symbol) bool {
	for !w.seen.Has(name) {
		if !w.step() {
			return false
		}
	}
	return true
}

func (w *Walk) add(name Symbol, node, parent int32, domain Symbol) {
	if !w.seen.Add(name) {
		return
	}
	w.Reached = append(w.Reached, reached{name, node, parent, domain})
	if name != NoSymbol {
		w.symbols = append(w.symbols, name)
	}
}

// Find goes to the end and returns the place of a name, or -1.
func (w *Walk) Find(name Symbol) int {
	w.All()
	return slices.IndexFunc(w.Reached, func(r reached) bool { return r.Name == name })
}
