package lint

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"securefiles/authz"
	"securefiles/policy/internal/finding"
	"securefiles/policy/internal/model"
	"securefiles/policy/internal/table"
)

// A symbolSet is a set of symbols, and their list.
type symbolSet struct {
	table.Set
	list []table.Symbol
}

func (s *symbolSet) clear() {
	s.Clear()
	s.list = s.list[:0]
}

func (s *symbolSet) add(name table.Symbol) {
	if s.Add(name) {
		s.list = append(s.list, name)
	}
}

// A graph is that of one role definition, as the linter asks it.
type graph struct {
	*table.Graph
	syms  *table.Symbols
	edges []table.Edge
	ends  []int32 // by edge: the node at which it ends
	order []int32 // the edges from node i are order[First[i]:First[i+1]]
	held  []bool  // by node: some edge grants it

	cycles [][]int32 // nodes that reach each other
	group  []int32   // by node: the same for nodes that reach each other
	cyclic []bool    // by node: it is part of a cycle
	height []int32   // by node: at least as many roles as are reached one after another
	safe   bool      // no chain is longer than is followed
	known  map[closureKey][]table.Symbol
	all    *graph // the graph that this one is a part of, or itself
}

type closureKey struct {
	name   string
	domain table.Symbol
}

func newGraph(syms *table.Symbols, edges []table.Edge, depth int) *graph {
	g := &graph{Graph: table.NewGraph(edges, nil, depth), syms: syms, edges: edges, ends: make([]int32, len(edges)), known: map[closureKey][]table.Symbol{}}
	g.all = g
	g.held = make([]bool, len(g.Nodes))
	from := make([]int32, len(edges))
	for i, e := range edges {
		from[i], g.ends[i] = g.ID(table.Node{Name: e.Name, Domain: e.Domain}), g.ID(table.Node{Name: e.Role, Domain: e.Domain})
		g.held[g.ends[i]] = true
	}
	_, g.order = table.GroupBy(from, len(g.Nodes))
	g.measure()
	g.safe = true
	for _, h := range g.height {
		g.safe = g.safe && int(h)+1 <= depth // a group of the request comes first
	}
	return g
}

// out returns the edges that begin at a node.
func (g *graph) out(n int32) []int32 { return g.order[g.First[n]:g.First[n+1]] }

// measure finds cycles and heights: Tarjan's algorithm, without recursion, for a
// chain may be long.
func (g *graph) measure() {
	const unseen = -1
	n := len(g.Nodes)
	index, low, at := make([]int32, n), make([]int32, n), slices.Clone(g.First[:n])
	g.height, g.group, g.cyclic = make([]int32, n), make([]int32, n), make([]bool, n)
	onStack := make([]bool, n)
	for i := range index {
		index[i] = unseen
	}
	var stack, path []int32
	count := int32(0)
	for root := range int32(n) {
		if index[root] != unseen {
			continue
		}
		path = append(path, root)
		for len(path) > 0 {
			v := path[len(path)-1]
			if index[v] == unseen {
				index[v], low[v] = count, count
				count++
				stack = append(stack, v)
				onStack[v] = true
			}
			if at[v] < g.First[v+1] {
				w := g.ends[g.order[at[v]]]
				at[v]++
				if index[w] == unseen {
					path = append(path, w)
				} else if onStack[w] {
					low[v] = min(low[v], index[w])
				}
				continue
			}
			path = path[:len(path)-1]
			if len(path) > 0 {
				up := path[len(path)-1]
				low[up] = min(low[up], low[v])
			}
			if low[v] == index[v] {
				begin := len(stack) - 1
				for stack[begin] != v {
					begin--
				}
				g.component(slices.Clone(stack[begin:]))
				for _, w := range stack[begin:] {
					onStack[w] = false
				}
				stack = stack[:begin]
			}
		}
	}
}

// component takes in nodes that reach each other, or one alone. All that they
// reach has been taken in before.
func (g *graph) component(nodes []int32) {
	height, cycle := int32(0), len(nodes) > 1
	for _, v := range nodes {
		g.group[v] = nodes[0] + 1
	}
	for _, v := range nodes {
		for _, edge := range g.out(v) {
			if w := g.ends[edge]; g.group[w] != g.group[v] {
				height = max(height, g.height[w]+1)
			} else if w == v {
				cycle = true
			}
		}
	}
	for _, v := range nodes {
		g.height[v], g.cyclic[v] = height+int32(len(nodes))-1, cycle
	}
	if cycle {
		g.cycles = append(g.cycles, nodes)
	}
}

// addRoles adds all that a name has in a domain.
func (g *graph) addRoles(set *symbolSet, name, domain table.Symbol) {
	from := len(set.list)
	if set.Has(name) {
		from = slices.Index(set.list, name)
	}
	set.add(name)
	for i := from; i < len(set.list); i++ {
		v := g.ID(table.Node{Name: set.list[i], Domain: domain})
		if v < 0 {
			continue
		}
		for _, edge := range g.out(v) {
			set.add(g.edges[edge].Role)
		}
	}
}

// closure returns what a name that requests have has in a domain.
func (g *graph) closure(name string, domain table.Symbol) []table.Symbol {
	key := closureKey{name, domain}
	list, ok := g.known[key]
	if !ok {
		if id, ok := g.syms.Lookup(name); ok {
			set := symbolSet{}
			g.addRoles(&set, id, domain)
			list = set.list
		}
		g.known[key] = list
	}
	return list
}

// everybody reports whether every request has a name.
func (g *graph) everybody(name table.Symbol) bool {
	return slices.Contains(g.closure(authz.GroupAnyone, 0), name)
}

// addSupers adds to a set the names that whoever has a subject has.
func (g *graph) addSupers(set *symbolSet, s *model.Outline, subject, domain table.Symbol) {
	if !s.AsksDomain {
		domain = 0
	}
	follow := g.safe && (!s.AsksDomain || s.InDomain)
	set.add(subject)
	if follow {
		g.addRoles(set, subject, domain)
	}
	for _, name := range []string{authz.GroupAnyone, authz.GroupAuthenticated} {
		if name == authz.GroupAuthenticated && (!follow || g.maybeAnonymous(subject, domain)) {
			continue
		}
		if follow {
			for _, role := range g.closure(name, domain) {
				set.add(role)
			}
		} else if id, ok := g.syms.Lookup(name); ok {
			set.add(id)
		}
	}
}

// maybeAnonymous reports whether someone without credentials may have a subject
// in a domain, at some time.
func (g *graph) maybeAnonymous(subject, domain table.Symbol) bool {
	name := g.syms.Text(subject)
	return name == authz.GroupAnyone || name == authz.Anonymous ||
		slices.Contains(g.all.closure(authz.GroupAnyone, domain), subject) || slices.Contains(g.all.closure(authz.Anonymous, domain), subject)
}

// lintRoles looks for cycles of roles, and for chains that are longer than is
// followed.
func (l *linter) lintRoles() {
	for _, kind := range slices.Sorted(maps.Keys(l.model.Roles)) {
		g := l.roles
		if kind != "g" {
			g = newGraph(l.table.Symbols, l.table.Edges[kind], l.depth())
		}
		for _, nodes := range g.cycles {
			l.cycle(g, nodes)
		}
		l.chains(g, kind)
	}
}

// depth is how many roles deep a chain is followed.
func (l *linter) depth() int {
	if d := l.check.opts.RoleDepth; d != 0 {
		return d
	}
	return table.DefaultDepth
}

func (l *linter) cycle(g *graph, nodes []int32) {
	inside := map[int32]bool{}
	for _, v := range nodes {
		inside[v] = true
	}
	line := ^uint32(0)
	var names []string
	for _, v := range nodes {
		for _, edge := range g.out(v) {
			if inside[g.ends[edge]] {
				line = min(line, g.edges[edge].Line)
			}
		}
		names = append(names, fmt.Sprintf("%q", finding.Shorten(g.syms.Text(g.Nodes[v].Name))))
	}
	if len(names) == 1 {
		l.warn(line, 0, "role-cycle", "%s is given to itself: remove the line", names[0])
		return
	}
	slices.Sort(names)
	if len(names) > 5 {
		names = append(names[:5], "…")
	}
	l.warn(line, 0, "role-cycle", "%s have each other, so all of them have the same rights: is one link the wrong way round?", strings.Join(names, ", "))
}

// chainBudget bounds how many nodes are visited to find out who cannot reach a
// role.
const chainBudget = 5_000_000

// chains looks for roles that are given, but too many edges away.
func (l *linter) chains(g *graph, kind string) {
	told, budget := map[int32]bool{}, chainBudget
	for v := range int32(len(g.Nodes)) {
		limit := l.depth()
		name := g.syms.Text(g.Nodes[v].Name)
		if kind == "g" && strings.HasPrefix(name, "@") {
			limit-- // the group itself comes first
		}
		if int(g.height[v]) <= limit || budget < 0 || g.held[v] && !g.cyclic[v] {
			continue
		}
		distance := map[int32]int{v: 0}
		queue := []int32{v}
		for len(queue) > 0 && budget >= 0 {
			w := queue[0]
			queue = queue[1:]
			for _, edge := range g.out(w) {
				budget--
				to := g.ends[edge]
				if _, ok := distance[to]; ok {
					continue
				}
				distance[to] = distance[w] + 1
				if distance[to] <= limit {
					queue = append(queue, to)
				} else if !told[edge] {
					told[edge] = true
					l.warn(g.edges[edge].Line, 0, "role-depth", "%q does not get the role %q: it is the %dth in a row, and %d are followed; shorten the chain, or set policy.role_depth",
						finding.Shorten(name), finding.Shorten(g.syms.Text(g.Nodes[to].Name)), distance[to], limit)
				}
			}
		}
	}
	if budget < 0 {
		l.warn(0, 0, "not-checked", "the roles are too entangled to find all chains that are longer than is followed")
	}
}

// lintGrants looks for subjects that are denied things and that nothing allows
// anything.
func (l *linter) lintGrants() {
	sub := l.shape.Subject
	if sub < 0 || l.model.PolicyField("eft") < 0 || l.model.Effect == model.DenyOverride {
		return
	}
	// A group of the request adds to what a subject has, so no allow may be
	// reached from one.
	allowed, denied := make([]bool, l.table.Symbols.Len()), make([]bool, l.table.Symbols.Len())
	for row, name := range l.table.Rows.Cols[sub] {
		if l.allows(row) {
			allowed[name] = true
		} else {
			denied[name] = true
		}
	}
	for _, text := range l.model.SubjectTexts() { // the matcher itself may allow them something
		if s, ok := l.table.Symbols.Lookup(text); ok {
			allowed[s] = true
		}
	}
	holders, _ := links(l.table.Edges["g"]) // who has a marked name has what it has
	spread(allowed, holders)
	spread(denied, holders)
	for name, ok := range allowed {
		text := l.table.Symbols.Text(table.Symbol(name))
		if ok && (strings.HasPrefix(text, "@")) {
			return
		}
	}
	held := l.heldNames()
	told := map[table.Symbol]bool{}
	tell := func(line uint32, name table.Symbol) {
		if !allowed[name] && denied[name] && !held[name] && !told[name] && !strings.HasPrefix(l.table.Symbols.Text(name), "@") {
			told[name] = true
			l.warn(line, 1, "no-grant", "no line allows %q anything, so what denies it something makes no difference", finding.Shorten(l.table.Symbols.Text(name)))
		}
	}
	for row, name := range l.table.Rows.Cols[sub] {
		tell(l.table.Rows.Lines[row], name)
	}
	for _, edge := range l.table.Edges["g"] {
		tell(edge.Line, edge.Name)
	}
}

// links returns who holds what, by role and by name, in whatever domain.
func links(edges []table.Edge) (holders, roles map[table.Symbol][]table.Symbol) {
	holders, roles = map[table.Symbol][]table.Symbol{}, map[table.Symbol][]table.Symbol{}
	for _, e := range edges {
		holders[e.Role] = append(holders[e.Role], e.Name)
		roles[e.Name] = append(roles[e.Name], e.Role)
	}
	return holders, roles
}

// spread marks all names that links lead to from a marked one.
func spread(marked []bool, links map[table.Symbol][]table.Symbol) {
	var queue []table.Symbol
	for name, ok := range marked {
		if ok {
			queue = append(queue, table.Symbol(name))
		}
	}
	for len(queue) > 0 {
		name := queue[len(queue)-1]
		queue = queue[:len(queue)-1]
		for _, next := range links[name] {
			if !marked[next] {
				marked[next] = true
				queue = append(queue, next)
			}
		}
	}
}

// heldNames are the names that an edge grants, by symbol.
func (l *linter) heldNames() []bool {
	if l.given == nil {
		l.given = make([]bool, l.table.Symbols.Len())
		for _, edge := range l.table.Edges["g"] {
			l.given[edge.Role] = true
		}
	}
	return l.given
}
