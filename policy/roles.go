package policy

// defaultRoleDepth is how many roles deep Casbin's own role manager follows a
// chain before it stops without a word.
const defaultRoleDepth = 10

// A node is a name in a domain, as a role graph numbers it.
type node struct{ name, domain symbol }

// A roleGraph holds the links of one role definition. It is immutable: reading
// it takes no lock, and nothing in it grows with what is asked.
type roleGraph struct {
	depth int
	ids   map[node]int32
	names []symbol // of each node
	first []int32  // the roles of node i are roles[first[i]:first[i+1]]
	roles []int32
}

func newRoleGraph(ls []roleLink, depth int) *roleGraph {
	g := &roleGraph{depth: depth, ids: make(map[node]int32, len(ls))}
	id := func(n node) int32 {
		i, ok := g.ids[n]
		if !ok {
			i = int32(len(g.names))
			g.ids[n] = i
			g.names = append(g.names, n.name)
		}
		return i
	}
	from, to := make([]int32, len(ls)), make([]int32, len(ls))
	for i, l := range ls {
		from[i], to[i] = id(node{l.name, l.domain}), id(node{l.role, l.domain})
	}
	g.first = make([]int32, len(g.names)+1)
	for _, f := range from {
		g.first[f+1]++
	}
	for i := range g.names {
		g.first[i+1] += g.first[i]
	}
	g.roles = make([]int32, len(ls))
	next := append([]int32(nil), g.first...)
	for i, f := range from {
		g.roles[next[f]] = to[i]
		next[f]++
	}
	return g
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

// walk appends to buf every name that is reached from a start within the
// graph's depth, the start first, each name once. The groups count as roles of
// the start. Casbin's manager reaches the same names.
func (g *roleGraph) walk(syms *symbols, start string, groups []string, domain symbol, buf []reached) []reached {
	var marked map[symbol]struct{} // takes over where there are many
	add := func(name symbol, parent int32) {
		if marked == nil && len(buf) >= 64 {
			marked = make(map[symbol]struct{}, 256)
			for _, r := range buf {
				marked[r.name] = struct{}{}
			}
		}
		if marked != nil {
			if _, ok := marked[name]; ok {
				return
			}
			marked[name] = struct{}{}
		} else {
			for _, r := range buf {
				if r.name == name {
					return
				}
			}
		}
		id, ok := g.ids[node{name, domain}]
		if !ok {
			id = -1
		}
		buf = append(buf, reached{name, id, parent})
	}
	name, ok := syms.lookup(start)
	if !ok {
		name = noSymbol
	}
	add(name, -1)
	lo := 0
	for level := range g.depth {
		if level == 0 {
			for _, group := range groups {
				if s, ok := syms.lookup(group); ok {
					add(s, 0)
				}
			}
		}
		hi := len(buf)
		if level == 0 {
			hi = 1
		}
		for ; lo < hi; lo++ {
			if buf[lo].node < 0 {
				continue
			}
			for _, role := range g.roles[g.first[buf[lo].node]:g.first[buf[lo].node+1]] {
				add(g.names[role], int32(lo))
			}
		}
		if lo == len(buf) {
			break
		}
	}
	return buf
}

// find returns the place of a name in a walk, or -1.
func find(walked []reached, name symbol) int {
	for i, r := range walked {
		if r.name == name {
			return i
		}
	}
	return -1
}
