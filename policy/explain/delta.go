package explain

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"securefiles/authz"
	"securefiles/policy/internal/model"
	"securefiles/policy/internal/table"
)

// A delta is what differs between two policies, by rows and names. Names that
// both have are one number.
type delta struct {
	sides   [2]*inquiry
	numbers [2][]uint32 // by symbol
	names   int         // how many numbers there are
	at      time.Time   // the moment that is compared

	// everything says that nothing is known to be the same.
	everything bool
	// pairs hold, by row, the row of the other side that is the same line in the
	// same order, or -1; touched are rows with a pair that no longer match the
	// same paths.
	pairs   [2][]int32
	touched [2]map[int32]bool
	unpaired,
	touches int // how many there are, on both sides
	// affected are names, by number, that reach others, or may no longer ask;
	// lent are the names that they reach, or did. Both are nil where no name is
	// affected.
	affected, lent []bool
	// freed says that one of the names may ask on one side alone.
	freed bool
}

// newDelta compares two policies. Names are those that may ask, on one side at
// least; at the moment of a comparison. Where the days are of two zones, equal lines
// may hold at other times.
func newDelta(before, after *inquiry, names []string, at time.Time, zones bool) *delta {
	d := &delta{sides: [2]*inquiry{before, after}, at: at}
	d.number()
	a, b := before.version.Engine, after.version.Engine
	d.everything = !sameModel(a.Model, b.Model) || zones && a.Model.HasPeriods() || a.RoleDepth != b.RoleDepth || (a.Rows.Len() == 0) != (b.Rows.Len() == 0)
	if d.everything {
		for s := range d.sides {
			d.pairs[s] = slices.Repeat([]int32{-1}, d.sides[s].version.Engine.Rows.Len())
			d.unpaired += len(d.pairs[s])
		}
		return d
	}
	d.pairRows()
	d.findEdges(names)
	return d
}

// sameModel reports whether two models decide alike. What they look like, and
// their comments, make no difference.
func sameModel(a, b *model.Model) bool {
	return slices.Equal(a.Request, b.Request) && slices.Equal(a.Policy, b.Policy) && a.Effect == b.Effect && a.Root.Source == b.Root.Source && maps.Equal(a.Roles, b.Roles)
}

// number gives the names of both sides their numbers.
func (d *delta) number() {
	first := d.sides[0].version.Table.Symbols
	d.names = first.Len()
	for s, side := range d.sides {
		symbols := side.version.Table.Symbols
		d.numbers[s] = make([]uint32, symbols.Len())
		for i := range d.numbers[s] {
			if s == 0 {
				d.numbers[s][i] = uint32(i)
			} else if known, ok := first.Lookup(symbols.Text(table.Symbol(i))); ok {
				d.numbers[s][i] = uint32(known)
			} else {
				d.numbers[s][i] = uint32(d.names)
				d.names++
			}
		}
	}
}

// compareRows orders rows, of whatever side, by what they say.
func (d *delta) compareRows(s int, row int32, t int, other int32) int {
	a, b := d.sides[s].version.Engine.Rows, d.sides[t].version.Engine.Rows
	for c := range a.Cols {
		if n := cmp.Compare(d.numbers[s][a.Cols[c][row]], d.numbers[t][b.Cols[c][other]]); n != 0 {
			return n
		}
	}
	return 0
}

// pairRows finds the lines that both sides have, each as often as both do, and in
// one order where the order decides.
func (d *delta) pairRows() {
	n := [2]int32{}
	for s, side := range d.sides {
		n[s] = int32(side.version.Engine.Rows.Len())
		d.pairs[s] = make([]int32, n[s])
	}
	head, tail := int32(0), int32(0)
	for head < min(n[0], n[1]) && d.compareRows(0, head, 1, head) == 0 {
		d.pairs[0][head], d.pairs[1][head] = head, head
		head++
	}
	for tail < min(n[0], n[1])-head && d.compareRows(0, n[0]-1-tail, 1, n[1]-1-tail) == 0 {
		tail++
		d.pairs[0][n[0]-tail], d.pairs[1][n[1]-tail] = n[1]-tail, n[0]-tail
	}
	var order [2][]int32 // what is between, by what it says
	for s := range d.sides {
		for row := head; row < n[s]-tail; row++ {
			d.pairs[s][row] = -1
			order[s] = append(order[s], row)
		}
		slices.SortStableFunc(order[s], func(a, b int32) int { return d.compareRows(s, a, s, b) })
	}
	for i, k := 0, 0; i < len(order[0]) && k < len(order[1]); {
		a, b := order[0][i], order[1][k]
		switch n := d.compareRows(0, a, 1, b); {
		case n < 0:
			i++
		case n > 0:
			k++
		default:
			d.pairs[0][a], d.pairs[1][b] = b, a
			i, k = i+1, k+1
		}
	}
	switch d.sides[0].version.Engine.Model.Effect {
	case model.Priority, model.SubjectPriority:
		kept := ascending(d.pairs[0][head : n[0]-tail])
		for i, row := range d.pairs[0][head : n[0]-tail] {
			if row >= 0 && !kept[i] { // it has moved: gone here, and come there
				d.pairs[0][head+int32(i)], d.pairs[1][row] = -1, -1
			}
		}
	}
	for s := range d.sides {
		for _, row := range d.pairs[s] {
			if row < 0 {
				d.unpaired++
			}
		}
	}
}

// ascending chooses the most places of a list whose values ascend. Values below 0
// count for nothing.
func ascending(list []int32) []bool {
	var ends []int32 // by length, where a run of that length ends lowest
	before := make([]int32, len(list))
	for i, v := range list {
		if v < 0 {
			continue
		}
		k, _ := slices.BinarySearchFunc(ends, v, func(end, v int32) int { return cmp.Compare(list[end], v) })
		before[i] = -1
		if k > 0 {
			before[i] = ends[k-1]
		}
		if k == len(ends) {
			ends = append(ends, int32(i))
		} else {
			ends[k] = int32(i)
		}
	}
	chosen := make([]bool, len(list))
	if len(ends) > 0 {
		for i := ends[len(ends)-1]; i >= 0; i = before[i] {
			chosen[i] = true
		}
	}
	return chosen
}

// An edge is one of either side, by numbers.
type edge struct{ name, role, domain uint32 }

func (e edge) compare(other edge) int {
	return cmp.Or(cmp.Compare(e.name, other.name), cmp.Compare(e.role, other.role), cmp.Compare(e.domain, other.domain))
}

// findEdges finds what the edges change that only one side has.
func (d *delta) findEdges(names []string) {
	subjects, paths := map[edge]bool{}, map[string]map[edge]bool{} // that differ
	for kind := range d.sides[0].version.Engine.Model.Roles {
		differ := d.edgesThatDiffer(kind)
		if len(differ) == 0 {
			continue
		}
		ofSubjects, ofPaths, ok := d.sides[0].asksRoles(kind)
		if !ok {
			d.everything = true
			return
		}
		if ofSubjects {
			maps.Copy(subjects, differ)
		}
		if ofPaths {
			paths[kind] = differ
		}
	}
	var open []int32
	for e := range subjects {
		open = append(open, int32(e.name))
	}
	flipped := d.flipped(names)
	d.freed = len(flipped) > 0
	if open = append(open, flipped...); len(open) > 0 {
		d.affected = d.reach(open, "", true)
		var roles []int32
		for e := range subjects {
			roles = append(roles, int32(e.role))
		}
		d.lent = d.reach(roles, "", false)
	}
	for kind, differ := range paths {
		var roles []int32
		for e := range differ {
			roles = append(roles, int32(e.role))
		}
		lent := d.reach(roles, kind, false)
		for _, col := range d.sides[0].pathRoleColumns(kind) {
			for s, side := range d.sides {
				for row, sym := range side.version.Engine.Rows.Cols[col] {
					if lent[d.numbers[s][sym]] && d.pairs[s][row] >= 0 {
						if d.touched[s] == nil {
							d.touched[s] = map[int32]bool{}
						}
						d.touched[s][int32(row)] = true
						d.touches++
					}
				}
			}
		}
	}
}

// edgesThatDiffer returns the edges of a role definition that hold on one side only.
func (d *delta) edgesThatDiffer(kind string) map[edge]bool {
	var lists [2][]edge
	for s, side := range d.sides {
		for _, e := range side.version.Table.Edges[kind] {
			if !side.version.Table.Holds(e, d.at) {
				continue
			}
			lists[s] = append(lists[s], edge{d.numbers[s][e.Name], d.numbers[s][e.Role], d.numbers[s][e.Domain]})
		}
	}
	if slices.Equal(lists[0], lists[1]) {
		return nil
	}
	for s := range lists {
		slices.SortFunc(lists[s], edge.compare)
		lists[s] = slices.Compact(lists[s])
	}
	differ := map[edge]bool{}
	for i, k := 0, 0; i < len(lists[0]) || k < len(lists[1]); {
		n := 0
		switch {
		case i == len(lists[0]):
			n = 1
		case k == len(lists[1]):
			n = -1
		default:
			n = lists[0][i].compare(lists[1][k])
		}
		if n < 0 {
			differ[lists[0][i]] = true
		} else if n > 0 {
			differ[lists[1][k]] = true
		}
		if n <= 0 {
			i++
		}
		if n >= 0 {
			k++
		}
	}
	return differ
}

// flipped are those of the names that are roles on one side, and may not ask there.
func (d *delta) flipped(names []string) []int32 {
	var out []int32
	for _, name := range names {
		for s, side := range d.sides {
			if sym, ok := side.version.Table.Symbols.Lookup(name); ok && side.version.IsReserved(sym) {
				out = append(out, int32(d.numbers[s][sym]))
			}
		}
	}
	return out
}

// reach returns the names that lead to some names by the edges of both sides, or,
// where up is false, those that these lead to; the names themselves are among
// them. All edges that are asked of subjects count where kind is empty.
func (d *delta) reach(from []int32, kind string, up bool) []bool {
	var tails, heads []int32
	for s, side := range d.sides {
		for k, list := range side.version.Table.Edges {
			if kind != "" && k != kind {
				continue
			}
			for _, e := range list {
				tail, head := int32(d.numbers[s][e.Name]), int32(d.numbers[s][e.Role])
				if up {
					tail, head = head, tail
				}
				tails, heads = append(tails, tail), append(heads, head)
			}
		}
	}
	return table.Reach(from, tails, heads, d.names)
}

// isAffected reports whether a principal reaches other names than before, or may
// ask on one side alone.
func (d *delta) isAffected(p *authz.Principal) bool {
	if d.everything {
		return true
	}
	if d.affected == nil {
		return false
	}
	is := func(name string) bool {
		for s, side := range d.sides {
			if sym, ok := side.version.Table.Symbols.Lookup(name); ok {
				return d.affected[d.numbers[s][sym]]
			}
		}
		return false
	}
	return is(p.Subject) || slices.ContainsFunc(p.Groups, is)
}

// changedRows are the rows of a side that may decide otherwise than before.
func (d *delta) changedRows(s int) []int32 {
	engine := d.sides[s].version.Engine
	var rows []int32
	columns := engine.Model.SubjectColumns()
	asked := d.freed || d.affected != nil && slices.ContainsFunc(engine.Model.SubjectTexts(), func(text string) bool {
		sym, ok := engine.Symbols.Lookup(text)
		return ok && d.lent[d.numbers[s][sym]]
	})
	lent := func(row int) bool {
		return slices.ContainsFunc(columns, func(col int) bool { return d.lent[d.numbers[s][engine.Rows.Cols[col][row]]] })
	}
	for row, pair := range d.pairs[s] {
		if d.everything || pair < 0 || d.touched[s][int32(row)] || asked || d.affected != nil && lent(row) {
			rows = append(rows, int32(row))
		}
	}
	return rows
}

// ownChange reports whether a row has changed for everybody who comes to it.
func (d *delta) ownChange(s int, row int32) bool {
	return row < 0 || d.everything || d.pairs[s][row] < 0 || d.touched[s][row]
}
