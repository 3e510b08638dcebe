package engine

import (
	"net"
	"slices"

	"securefiles/policy/internal/model"
	"securefiles/policy/internal/pattern"
	"securefiles/policy/internal/table"
)

// A Plan says how to find the rows that could match a request, so that the
// matcher is evaluated on these alone. It is immutable.
//
// A row that does not match has no influence on any of Casbin's effects. So an
// evaluation that sees every row that matches, in the order of all rows, comes
// to the same decision, by the same row. What the plan finds may be too many
// rows, never too few.
type Plan struct {
	// conjunctions are the matcher in disjunctive normal form: a row that
	// matches makes every literal of one of them true.
	conjunctions []conjunction
	// scan says why every row must be looked at; empty where an index helps.
	Scan   string
	tuning tuning
	// marks are the first row of each effect.
	marks []uint32
	// Bucket is the most rows that a decision may have to look at because no index
	// tells them apart, and BucketRow one of them. BucketOf is whose roles they
	// are for; NoSymbol where they are for one role or subject.
	Bucket    int
	BucketRow uint32
	BucketOf  table.Symbol
}

// A conjunction is one term of the normal form.
type conjunction struct {
	// guards look at the request only: where one is false no row matches. The
	// first early of them stand before a literal that is looked up, or alone.
	guards []model.Literal
	early  int
	// address says that rows come to an ipMatch before a guard or a lookup.
	address bool
	// always says that there is nothing but guards: every row matches.
	always bool
	// scan says that no literal can be looked up.
	scan bool
	// lookups find rows by a value.
	lookups []lookup
	// pattern and anchors find rows by their pattern; nil where none can.
	pattern *model.Atom
	anchors *anchorIndex
}

// A lookup is an atom that a valueIndex answers.
type lookup struct {
	atom  *model.Atom
	index *valueIndex
	// domain is the field of r that holds the domain of atomRole, or -1.
	domain int
}

// A tuning decides between ways to the same rows.
type tuning struct {
	// fewValues is up to how many values a field is not worth an index of its
	// own, where another one is.
	fewValues int
	// searchFrom is from how many rows a key on a value's rows are searched
	// and not looked through.
	searchFrom int
	// fewRows is up to how many rows that the patterns leave are not worth a
	// look at the values.
	fewRows int
}

func defaultTuning() tuning { return tuning{fewValues: 16, searchFrom: 16, fewRows: 8} }

type planner struct {
	engine  *Engine
	tuning  tuning
	anchors map[anchorsOn]*anchorIndex
	values  map[valuesOn]*valueIndex
	few     map[int]bool // fields with few values
}

type anchorsOn struct {
	compares pattern.Func
	field    int
	path     bool // the field is compared to the path
}

type valuesOn struct {
	field   int
	anchors *anchorIndex
}

// newPlan analyses the matcher of an engine and indexes its rows.
func newPlan(e *Engine, t tuning) *Plan {
	p := &planner{engine: e, tuning: t, anchors: map[anchorsOn]*anchorIndex{}, values: map[valuesOn]*valueIndex{}, few: map[int]bool{}}
	out := &Plan{tuning: t, marks: e.firstEffects(), BucketOf: table.NoSymbol}
	terms, ok := e.Model.Root.Conjunctions(false)
	if !ok {
		return &Plan{Scan: "the matcher has too many alternatives", Bucket: e.Rows.Len(), BucketOf: table.NoSymbol}
	}
	for _, literals := range terms {
		c := p.conjunction(literals)
		if c.scan {
			out.Scan = "no part of " + model.DescribeConjunction(literals) + " can be looked up"
			out.Bucket = e.Rows.Len()
		}
		out.conjunctions = append(out.conjunctions, c)
	}
	out.countBucket(e)
	return out
}

// firstEffects returns the first row of each effect. Where every row matches, no
// decision depends on any other.
func (e *Engine) firstEffects() []uint32 {
	var rows []uint32
	var seen [RowDenies + 1]bool
	for row := range e.Rows.Len() {
		if effect := e.EffectOf(row); !seen[effect] {
			seen[effect] = true
			rows = append(rows, uint32(row))
		}
	}
	return rows
}

// conjunction decides how the rows of one term are found.
func (p *planner) conjunction(literals []model.Literal) conjunction {
	var c conjunction
	var values []lookup
	address := false
	for _, l := range literals {
		c.address = c.address || address && l.Kind != model.Opaque
		address = address || l.Kind == model.Opaque && l.Address
		if l.Kind == model.RequestOnly {
			c.guards = append(c.guards, l)
			continue
		}
		if l.Negated {
			continue // what does not hold tells nothing of what could
		}
		switch l.Kind {
		case model.Equal, model.Constant, model.Role:
			if domain, ok := domainOf(l.Atom, literals); ok {
				values = append(values, lookup{atom: l.Atom, domain: domain})
				c.early = len(c.guards)
			}
		case model.Pattern:
			if c.pattern == nil || p.engine.Model.Request[l.Request] == "obj" {
				c.pattern, c.early = l.Atom, len(c.guards)
			}
		}
	}
	if c.always = len(c.guards) == len(literals); c.always {
		c.early = len(c.guards)
	}
	if c.pattern != nil {
		c.anchors = p.anchorIndex(c.pattern)
	}
	// A field with few values is no help where another one is.
	worth := slices.DeleteFunc(slices.Clone(values), func(l lookup) bool { return p.hasFewValues(l.atom.Policy) })
	if len(worth) > 0 || c.pattern != nil {
		values = worth
	}
	for _, l := range values {
		l.index = p.valueIndex(l.atom.Policy, c.anchors)
		c.lookups = append(c.lookups, l)
	}
	c.scan = !c.always && len(c.lookups) == 0 && c.pattern == nil
	return c
}

// domainOf returns the field of r that holds the domain of a role, or -1 where
// there is none. A domain that stands in the policy is known only where the same
// term demands r.z == p.z.
func domainOf(a *model.Atom, literals []model.Literal) (field int, ok bool) {
	switch {
	case a.Kind != model.Role || a.Domain == model.DomainNone:
		return -1, true
	case a.Domain == model.DomainRequest:
		return a.DomainField, true
	}
	for _, l := range literals {
		if l.Kind == model.Equal && !l.Negated && l.Policy == a.DomainField {
			return l.Request, true
		}
	}
	return -1, false
}

func (p *planner) anchorIndex(a *model.Atom) *anchorIndex {
	on := anchorsOn{a.Func, a.Policy, a.Request == p.engine.obj}
	if p.anchors[on] == nil {
		p.anchors[on] = newAnchorIndex(p.engine.Symbols, p.engine.Rows.Cols[a.Policy], a.Func, on.path, p.engine.limited.Pace)
	}
	return p.anchors[on]
}

func (p *planner) valueIndex(field int, anchors *anchorIndex) *valueIndex {
	on := valuesOn{field, anchors}
	if p.values[on] == nil {
		p.values[on] = newValueIndex(p.engine.Symbols.Len(), p.engine.Rows.Cols[field], anchors, p.engine.limited.Pace)
	}
	return p.values[on]
}

func (p *planner) hasFewValues(field int) bool {
	few, known := p.few[field]
	if !known {
		var seen []table.Symbol
		few = true
		for _, s := range p.engine.Rows.Cols[field] {
			if !slices.Contains(seen, s) {
				if seen = append(seen, s); len(seen) > p.tuning.fewValues {
					few = false
					break
				}
			}
		}
		p.few[field] = few
	}
	return few
}

// Candidates returns the rows that could match, in order, or all: every row.
func (ev *Evaluator) Candidates() (rows []uint32, all bool) {
	ev.rows = ev.rows[:0]
	plan := ev.engine.Plan
	if plan.conjunctions == nil {
		return nil, true
	}
	for i := range plan.conjunctions {
		c := &plan.conjunctions[i]
		if c.address && !ev.hasAddress() {
			return nil, true // any row could fail
		}
		hold, err := ev.guardsHold(c)
		if err == nil && !hold {
			continue
		}
		switch {
		case err != nil || c.scan:
			return nil, true
		case c.always:
			ev.rows = append(ev.rows, plan.marks...)
		default:
			ev.find(c)
		}
	}
	slices.Sort(ev.rows)
	ev.rows = slices.Compact(ev.rows)
	return ev.rows, false
}

// guardsHold reports whether no guard is known to be false. A row that comes to
// a guard that cannot be evaluated fails the decision. Where something is looked
// up that stands before the guard, no other row can come to it; otherwise any
// could, and the guard's error is returned.
func (ev *Evaluator) guardsHold(c *conjunction) (bool, error) {
	for i, g := range c.guards {
		holds, err := ev.holdsForRequest(g.Atom)
		switch {
		case err != nil && i < c.early:
			return false, err
		case err != nil:
			return true, nil
		case holds == g.Negated:
			return false, nil
		}
	}
	return true, nil
}

func (ev *Evaluator) hasAddress() bool { return net.ParseIP(ev.Query.IP) != nil }

// find appends the rows that could make a conjunction true.
func (ev *Evaluator) find(c *conjunction) {
	ev.keys.reset()
	byPattern := 0
	if c.anchors != nil {
		ev.fillKeys(c)
		before, few := len(ev.rows), ev.engine.Plan.tuning.fewRows
		for _, key := range ev.keys.keys {
			rows := c.anchors.find(key)
			if byPattern += len(rows); byPattern <= few {
				ev.rows = append(ev.rows, rows...)
			}
		}
		if byPattern <= few {
			return
		}
		ev.rows = ev.rows[:before]
		if len(c.lookups) == 0 {
			ev.findByPattern(c)
			return
		}
	}
	var best *lookup
	var size int
	for i := range c.lookups {
		l := &c.lookups[i]
		var rows int
		all := ev.values(l)
		if ev.spend(stepsOfRole*len(all)) != nil {
			return // decide tells
		}
		for _, v := range all {
			rows += l.index.size(v)
		}
		if best == nil || rows < size {
			best, size = l, rows
		}
	}
	// The patterns are as good as the values where they leave no more rows than
	// there are values to look up: each costs a search.
	values := ev.values(best)
	if c.anchors != nil && byPattern <= min(size, len(values)) {
		ev.findByPattern(c)
		return
	}
	for _, v := range values {
		if ev.spend(stepsOfRole) != nil {
			return // decide tells
		}
		ev.rows = best.index.find(v, &ev.keys, ev.rows, ev.engine.Plan.tuning.searchFrom)
	}
}

func (ev *Evaluator) findByPattern(c *conjunction) {
	for _, key := range ev.keys.keys {
		ev.rows = append(ev.rows, c.anchors.find(key)...)
	}
}

// values returns the values of a field for which an atom holds, until the next
// call of it or of walk.
func (ev *Evaluator) values(l *lookup) []table.Symbol {
	place := &ev.single
	switch l.atom.Kind {
	case model.Role:
		domain := ev.engine.empty
		if l.domain >= 0 {
			domain = ev.domainSymbol(l.atom.Function, ev.Request[l.domain], ev.symbol(l.domain))
		}
		w := ev.Walk(l.atom.Function, ev.Request[l.atom.Request], ev.symbol(l.atom.Request), domain)
		before := w.Idle
		all := w.All()
		_ = ev.spend(stepsOfRole * (w.Idle - before)) // decide tells
		return all
	case model.Constant:
		place[0] = ev.engine.constants[l.atom.Number]
	default:
		place[0] = ev.symbol(l.atom.Request)
	}
	if place[0] == table.NoSymbol {
		return nil
	}
	return place[:]
}
