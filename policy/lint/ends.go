package lint

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"securefiles/authz"
	"securefiles/policy/internal/finding"
	"securefiles/policy/internal/table"
)

// periodOf returns the time in which a row holds; open on both sides where the
// matcher does not ask for it, or asks for something else as well.
func (l *linter) periodOf(row int) table.Period {
	if !l.shape.HasPeriod || l.table.Periods.Len() == 1 {
		return table.Period{}
	}
	at := func(column int) table.Symbol {
		if column < 0 {
			open, _ := l.table.Symbols.Lookup(table.Open) // a policy with periods has it
			return open
		}
		return l.table.Rows.Cols[column][row]
	}
	p, _ := l.table.Periods.Of(at(l.shape.Period.Begin), at(l.shape.Period.End)) // it was loaded
	return p
}

// lasting returns the graph of the roles that are had at any time.
func (l *linter) lasting() *graph {
	edges := slices.DeleteFunc(slices.Clone(l.table.Edges["g"]), func(e table.Edge) bool { return e.Period != 0 })
	if len(edges) == len(l.table.Edges["g"]) {
		return l.roles
	}
	g := newGraph(l.table.Symbols, edges, l.depth())
	g.all = l.roles
	return g
}

// lintEnds looks for lines that are over.
func (l *linter) lintEnds() {
	now := time.Now
	if l.check.opts.Now != nil {
		now = l.check.opts.Now
	}
	at := now()
	for row := range l.table.Rows.Len() {
		if p := l.periodOf(row); p.Ended(at) {
			gone := "denies"
			if l.allows(row) {
				gone = "allows"
			}
			l.warn(l.table.Rows.Lines[row], l.shape.Period.End+1, "ended", "ended %s, and %s nothing any more: remove it", table.AtOrOn(l.table.Symbols.Text(p.End)), gone)
		}
	}
	for _, kind := range slices.Sorted(maps.Keys(l.model.Conditional)) {
		l.lintOutlasted(kind, at)
		gives := map[table.Symbol]int{} // lines, by role
		for _, e := range l.table.Edges[kind] {
			gives[e.Role]++
		}
		for _, e := range l.table.Edges[kind] {
			p := l.table.Periods.At(e.Period)
			if !p.Ended(at) {
				continue
			}
			also := ""
			role := l.table.Symbols.Text(e.Role)
			if kind == "g" && gives[e.Role] == 1 && !strings.HasPrefix(role, authz.RolePrefix) {
				also = fmt.Sprintf(", and with it the lines of %q, which nobody else has: without this line a user who is called so would have them", finding.Shorten(role))
			}
			l.warn(e.Line, l.model.Roles[kind]+2, "ended", "ended %s, and gives nothing any more: remove it%s", table.AtOrOn(l.table.Symbols.Text(p.End)), also)
		}
	}
}

// maxTimesOfALink bounds the lines that are compared which give the same.
const maxTimesOfALink = 100

// lintOutlasted looks for g lines of a time that another one has all of: whoever
// writes an end beside a line that has none ends nothing.
func (l *linter) lintOutlasted(kind string, at time.Time) {
	keyOf := func(e table.Edge) [3]table.Symbol { return [3]table.Symbol{e.Name, e.Role, e.Domain} }
	same := map[[3]table.Symbol][]table.Edge{} // of lines with dates
	for _, e := range l.table.Edges[kind] {
		if e.Period != 0 {
			same[keyOf(e)] = nil
		}
	}
	for _, e := range l.table.Edges[kind] {
		if list, ok := same[keyOf(e)]; ok && len(list) < maxTimesOfALink {
			same[keyOf(e)] = append(list, e)
		}
	}
	for _, e := range l.table.Edges[kind] {
		p := l.table.Periods.At(e.Period)
		if e.Period == 0 || p.Ended(at) {
			continue
		}
		for _, other := range same[keyOf(e)] {
			if q := l.table.Periods.At(other.Period); other.Line != e.Line && q.Covers(p) && (!p.Covers(q) || other.Line < e.Line) {
				l.warn(e.Line, 0, "redundant", "makes no difference: line %d gives the same at all of that time", other.Line)
				break
			}
		}
	}
}
