package engine

import "securefiles/policy/internal/model"

// A Chance says for which paths a row matches.
type Chance uint8

const (
	ForNone Chance = iota
	ForSome        // it depends on the path
	ForAll         // whatever the path is
	Unknown        // it may fail to be evaluated, which denies
)

// WithoutPath evaluates the matcher in a row, or without one where row is -1, but
// for the atoms that are hidden. It appends to said what becomes of the others:
// rows of which the same is said match alike, as far as it is not hidden.
func (ev *Evaluator) WithoutPath(row int, hidden func(*model.Atom) bool, said []byte) (Chance, []byte) {
	b := ev.bounds(ev.engine.Model.Root, row, hidden, &said)
	switch {
	case b.broken:
		return Unknown, said
	case b.low:
		return ForAll, said
	case b.high:
		return ForSome, said
	}
	return ForNone, said
}

// bounds are what a term comes out as at least and at most, whatever becomes of
// what is hidden. Broken says that it may not come out at all.
type bounds struct{ low, high, broken bool }

// bounds evaluates a term from the left, and no further than the answer takes.
func (ev *Evaluator) bounds(c *model.Term, row int, hidden func(*model.Atom) bool, said *[]byte) bounds {
	switch c.Op {
	case model.Leaf:
		if hidden(c.Atom) {
			return bounds{high: true}
		}
		v := ev.Verdict(c, row)
		*said = append(*said, byte(v))
		return bounds{low: v == Holds, high: v != fails, broken: v == broken}
	case model.Not:
		b := ev.bounds(c.Kids[0], row, hidden, said)
		return bounds{low: !b.high, high: !b.low, broken: b.broken}
	}
	all := c.Op == model.And
	out := bounds{low: all, high: all}
	for _, kid := range c.Kids {
		if all && !out.high || !all && out.low {
			break
		}
		b := ev.bounds(kid, row, hidden, said)
		out.broken = out.broken || b.broken
		if all {
			out.low, out.high = out.low && b.low, out.high && b.high
		} else {
			out.low, out.high = out.low || b.low, out.high || b.high
		}
	}
	return out
}

// Guard says for which rows a literal holds that asks for the request alone.
func (ev *Evaluator) Guard(l model.Literal) Chance {
	switch v := ev.Verdict(&model.Term{Part: l.Part, Atom: l.Atom}, -1); {
	case v == broken:
		return Unknown
	case (v == Holds) == l.Negated:
		return ForNone
	}
	return ForAll
}
