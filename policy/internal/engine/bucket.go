package engine

import (
	"cmp"
	"slices"
	"time"

	"securefiles/authz"
	"securefiles/policy/internal/model"
	"securefiles/policy/internal/table"
)

// A bucket is rows that one decision may have to look at together.
type bucket struct {
	size int
	row  uint32       // one of them
	of   table.Symbol // whose roles they are for, or NoSymbol
}

// countBucket finds the largest: each alternative of the matcher has its own, and
// a decision looks at all of these.
func (p *Plan) countBucket(e *Engine) {
	if p.Scan != "" {
		return
	}
	largest := 0
	for i := range p.conjunctions {
		b := p.conjunctions[i].bucket(e)
		p.Bucket += b.size
		if b.size > largest {
			largest, p.BucketRow, p.BucketOf = b.size, b.row, b.of
		}
	}
	p.Bucket = min(p.Bucket, e.Rows.Len())
}

// bucket returns the most rows that a conjunction may find.
func (c *conjunction) bucket(e *Engine) bucket {
	if len(c.lookups) == 0 && c.anchors != nil {
		return longestRun(c.anchors.keys, c.anchors.rows)
	}
	var least bucket
	for i := range c.lookups {
		b := c.lookups[i].bucket(e)
		if i == 0 || b.size < least.size {
			least = b
		}
	}
	return least
}

// longestRun returns the most rows that share a key; those that ask nothing are
// with each of the others. The keys ascend.
func longestRun(keys []anchorKey, rows []uint32) bucket {
	b, run, asking := bucket{of: table.NoSymbol}, 0, 0
	for asking < len(keys) && keys[asking] == 0 {
		asking++
	}
	if asking > 0 {
		b.size, b.row = asking, rows[0]
	}
	for i := asking; i < len(keys); i++ {
		if i == asking || keys[i] != keys[i-1] {
			run = 0
		}
		if run++; asking+run > b.size {
			b.size, b.row = asking+run, rows[i-run+1]
		}
	}
	return b
}

// run is longestRun for the rows of a value.
func (x *valueIndex) run(value table.Symbol) bucket {
	rows := x.Rows[x.First[value]:x.First[value+1]]
	if x.keys == nil {
		b := bucket{size: len(rows), of: table.NoSymbol}
		if len(rows) > 0 {
			b.row = rows[0]
		}
		return b
	}
	return longestRun(x.keys[x.First[value]:x.First[value+1]], rows)
}

// bucket returns the most rows that a lookup may find: of the value that it asks
// for, of any that a request may have, or of all roles that a name has.
func (l *lookup) bucket(e *Engine) bucket {
	if l.atom.Kind == model.Constant {
		if value := e.constants[l.atom.Number]; value != table.NoSymbol {
			return l.index.run(value)
		}
		return bucket{of: table.NoSymbol}
	}
	most := bucket{of: table.NoSymbol}
	runs := make([]uint32, len(l.index.First)-1)
	for value := range runs {
		b := l.index.run(table.Symbol(value))
		if runs[value] = uint32(b.size); b.size > most.size {
			most = b
		}
	}
	if l.atom.Kind == model.Role {
		return l.union(e, runs, most)
	}
	return most
}

// maxUnion bounds how many rows and roles are looked at to find the largest union,
// to some hundredths of a second. What may be the largest comes first.
const maxUnion = 1 << 19

// union returns the most rows that the roles of one name find together, or most
// where that is more.
func (l *lookup) union(e *Engine, runs []uint32, most bucket) bucket {
	graph := e.Graphs[l.atom.Function].Ever()
	var everybodys []string // groups, which nobody is without
	if l.atom.Function == "g" && e.Model.Request[l.atom.Request] == "sub" {
		everybodys = []string{authz.GroupAnyone, authz.GroupAuthenticated}
	}
	sums := graph.Sums(func(n table.Node) int { return int(runs[n.Name]) }, e.Rows.Len())
	// A name without a role may be everybody too.
	starts := []table.Node{{Name: table.NoSymbol, Domain: e.empty}}
	for _, n := range graph.Nodes {
		if n.Domain != e.empty && !slices.Contains(starts, table.Node{Name: table.NoSymbol, Domain: n.Domain}) && len(starts) < maxWalks {
			starts = append(starts, table.Node{Name: table.NoSymbol, Domain: n.Domain})
		}
	}
	base := map[table.Symbol]int{} // by domain
	for _, s := range starts {
		for _, group := range everybodys {
			if name, ok := e.Symbols.Lookup(group); ok {
				if id := graph.ID(table.Node{Name: name, Domain: s.Domain}); id >= 0 {
					base[s.Domain] += sums[id]
				} else {
					base[s.Domain] += int(runs[name])
				}
			}
		}
	}
	type candidate struct {
		start table.Node
		bound int
	}
	var candidates []candidate
	for _, s := range starts {
		candidates = append(candidates, candidate{s, base[s.Domain]})
	}
	for i, n := range graph.Nodes {
		if graph.First[i] < graph.First[i+1] || base[n.Domain] > 0 {
			candidates = append(candidates, candidate{n, sums[i] + base[n.Domain]})
		}
	}
	candidates = slices.DeleteFunc(candidates, func(c candidate) bool { return c.bound <= most.size })
	slices.SortFunc(candidates, func(a, b candidate) int { return cmp.Compare(b.bound, a.bound) })
	var walk table.Walk
	var pairs []uint64
	for work := 0; len(candidates) > 0 && work < maxUnion && candidates[0].bound > most.size; candidates = candidates[1:] {
		start := candidates[0].start
		graph.Begin(&walk, e.Symbols, start.Name, everybodys, start.Domain, time.Time{})
		values := walk.All()
		pairs = pairs[:0]
		for _, v := range values {
			for i := l.index.First[v]; i < l.index.First[v+1]; i++ {
				key := anchorKey(0)
				if l.index.keys != nil {
					key = l.index.keys[i]
				}
				pairs = append(pairs, uint64(key)<<32|uint64(l.index.Rows[i]))
			}
		}
		work += len(values) + len(pairs)
		slices.Sort(pairs)
		keys, rows := make([]anchorKey, len(pairs)), make([]uint32, len(pairs))
		for i, pair := range pairs {
			keys[i], rows[i] = anchorKey(pair>>32), uint32(pair)
		}
		if b := longestRun(keys, rows); b.size > most.size {
			most = b
			most.of = start.Name
		}
	}
	return most
}
