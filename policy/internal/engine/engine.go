// Package engine decides: it evaluates a policy under a model, on those rows alone
// that an index finds.
//
// A [Version] is a policy ready to decide. Its answer is stock Casbin's, the
// deciding row included.
//
// engine does not say whether a policy should be served; package table refuses
// what must not be.
package engine

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"securefiles/authz"
	"securefiles/policy/internal/model"
	"securefiles/policy/internal/pace"
	"securefiles/policy/internal/pattern"
	"securefiles/policy/internal/table"

	casbinmodel "github.com/casbin/casbin/v2/model"
	"github.com/casbin/casbin/v2/util"
	"github.com/casbin/govaluate"
)

// An Engine evaluates one policy under one model. It is immutable and safe for
// concurrent use.
//
// It does what Casbin's enforcer does, with Casbin's own parts: the matcher as
// govaluate reads it, Casbin's functions, the meaning of Casbin's effects. What
// it leaves out is the enforcer's work for each request (a map of functions,
// arrays as long as the policy, a memo that grows for ever), and the rows that
// could not match.
type Engine struct {
	Model      *model.Model
	Symbols    *table.Symbols
	Rows       *table.Rows
	cells      []table.Symbol // the rules row by row: what one decision looks at lies together
	Graphs     map[string]*table.Graph
	RoleDepth  int
	Chain      int            // how many roles the longest chain has
	empty      table.Symbol   // of the empty text, the domain of edges that have none
	eft        int            // the column of eft, or -1
	sub        int            // the field of r that is the subject, or -1
	obj        int            // the field of r that is the path, or -1
	constants  []table.Symbol // by atom: of atomConstant
	Plan       *Plan
	Patterns   *pattern.Cache
	limited    Options // Timeout and Now
	periods    *table.Periods
	edges      table.Edges
	open       table.Symbol // of table.Open
	evaluators sync.Pool
}

// Options are what an Engine can do without.
type Options struct {
	RoleDepth int // how many roles deep a chain is followed; 0 means Casbin's 10
	// Timeout is how long a decision within a context may take; 0 means for ever.
	Timeout time.Duration
	Now     func() time.Time // the clock; nil means time.Now
	Pace    *pace.Pace       // of the indexing; nil does not rest
	scan    bool             // look at every row; for comparisons
	tuning  *tuning          // nil means defaultTuning
}

// New returns an error where the matcher, or a pattern of the policy,
// cannot be compiled.
func New(m *model.Model, t *table.Table, opts Options) (*Engine, error) {
	if opts.RoleDepth == 0 {
		opts.RoleDepth = table.DefaultDepth
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	e := &Engine{
		Model: m, Symbols: t.Symbols, Rows: t.Rows, Graphs: make(map[string]*table.Graph, len(m.Roles)),
		eft: m.PolicyField("eft"), sub: slices.Index(m.Request, "sub"), obj: slices.Index(m.Request, "obj"),
		Patterns: pattern.NewCache(countPatterns(m, t, opts.Pace)), RoleDepth: opts.RoleDepth, limited: opts, periods: t.Periods, edges: t.Edges,
	}
	e.open = e.Lookup(table.Open)
	e.empty = t.Symbols.Intern("")
	for kind := range m.Roles {
		e.Graphs[kind] = table.NewGraph(t.Edges[kind], t.Periods, opts.RoleDepth)
		chains := e.Graphs[kind]
		if m.DomainPatterns && m.Roles[kind] == 3 {
			e.Graphs[kind].MatchDomains(t.Symbols)
			chains = table.NewGraph(withoutDomains(t.Edges[kind]), nil, opts.RoleDepth) // one goes through several
		}
		e.Chain = max(e.Chain, chains.Longest(t.Symbols))
	}
	for _, a := range m.Atoms {
		e.constants = append(e.constants, e.Lookup(a.Text))
	}
	e.cells = rowByRow(t.Rows)
	e.Plan = &Plan{Scan: "it was asked to look at every line", Bucket: t.Rows.Len(), BucketOf: table.NoSymbol}
	if !opts.scan {
		tuned := defaultTuning()
		if opts.tuning != nil {
			tuned = *opts.tuning
		}
		e.Plan = newPlan(e, tuned)
	}
	ev, err := e.newEvaluator()
	if err != nil {
		return nil, err
	}
	e.evaluators.New = func() any {
		ev, err := e.newEvaluator()
		if err != nil {
			panic(err) // it compiled before
		}
		return ev
	}
	e.evaluators.Put(ev)
	return e, nil
}

// countPatterns counts the patterns of a policy that need memory to be matched.
func countPatterns(m *model.Model, t *table.Table, resting *pace.Pace) int {
	type use struct {
		compares pattern.Func
		column   int
	}
	var uses []use
	for _, c := range m.Patterns() {
		if f, ok := pattern.ByName(c.Function); ok && !slices.Contains(uses, use{f, c.Column}) {
			uses = append(uses, use{f, c.Column})
		}
	}
	count := 0
	for _, u := range uses {
		seen := make([]bool, t.Symbols.Len())
		for _, s := range pace.Over(resting, t.Rows.Cols[u.column]) {
			if !seen[s] && u.compares.NeedsMemory(t.Symbols.Text(s)) {
				count++
			}
			seen[s] = true
		}
	}
	return count
}

// withoutDomains are edges as if they held in every domain.
func withoutDomains(edges []table.Edge) []table.Edge {
	edges = slices.Clone(edges)
	for i := range edges {
		edges[i].Domain = 0
	}
	return edges
}

func rowByRow(rs *table.Rows) []table.Symbol {
	cells := make([]table.Symbol, len(rs.Cols)*rs.Len())
	for c, col := range rs.Cols {
		for row, s := range col {
			cells[row*len(rs.Cols)+c] = s
		}
	}
	return cells
}

// cell returns a field of a row.
func (e *Engine) cell(row, column int) table.Symbol { return e.cells[row*len(e.Rows.Cols)+column] }

// decideWithin evaluates the policy for one query, with the symbol of its subject:
// the effect, and the row that decided or -1. An error denies.
func (e *Engine) decideWithin(l limit, q *authz.Query, subject table.Symbol) (allowed bool, row int, err error) {
	ev, err := e.Begin(q)
	if err != nil {
		return false, -1, err
	}
	defer e.End(ev)
	ev.limit = l
	allowed, row, err = ev.decide(subject)
	if ev.limit.err != nil { // whatever else was made of it
		return false, -1, ev.limit.err
	}
	return allowed, row, err
}

func (ev *Evaluator) decide(subject table.Symbol) (allowed bool, row int, err error) {
	e := ev.engine
	if e.sub >= 0 {
		ev.symbols[e.sub], ev.Found[e.sub] = subject, true
	}
	if !e.Model.AsksPolicy || e.Rows.Len() == 0 {
		return ev.decideWithoutRows()
	}
	if rows, all := ev.Candidates(); !all {
		return ev.decideRows(len(rows), func(i int) int { return int(rows[i]) })
	}
	return ev.decideRows(e.Rows.Len(), func(i int) int { return i })
}

// Begin takes an evaluator for a query; end gives it back.
func (e *Engine) Begin(q *authz.Query) (*Evaluator, error) {
	ev := e.evaluators.Get().(*Evaluator)
	for i, name := range e.Model.Request {
		value, ok := model.RequestValue(q, name)
		if !ok && (e.Model.Evaluates || e.Model.Root.Asks(name)) {
			return nil, fmt.Errorf("the model asks for r.%s, which no request has", name)
		}
		ev.Request[i] = value
	}
	ev.Query = *q
	return ev, nil
}

// End forgets the query, whatever came of it.
func (e *Engine) End(ev *Evaluator) {
	ev.Query, ev.limit, ev.row, ev.looked, ev.toLookAt = authz.Query{}, limit{}, -1, 0, 0
	clear(ev.Request)
	ev.forget()
	e.evaluators.Put(ev)
}

// An Evaluator holds what one decision needs.
type Evaluator struct {
	engine *Engine
	// compiled are the atoms that govaluate evaluates, by their number, with
	// functions that see the evaluator's query.
	compiled []*govaluate.EvaluableExpression
	compiler *model.Compiler // with the same functions

	Query   authz.Query
	Request []string
	row     int // for Get; -1 where Casbin evaluates the matcher without a row

	limit            limit
	looked, toLookAt int            // rows
	patterns         *pattern.Cache // the engine's, metered by limit

	symbols  []table.Symbol // of the request, where found says so
	Found    []bool
	Verdicts []atomVerdict // of the atoms that look at the request only
	Walks    []walkResult

	// The candidates, and what leads to them.
	rows   []uint32
	keys   keySet
	path   namedPath
	single [1]table.Symbol
}

// An atomVerdict is remembered for a decision. The zero atomVerdict is none.
type atomVerdict struct {
	known, holds bool
	err          error
}

// A walkResult is the names that one name reaches, found once a decision.
type walkResult struct {
	kind, start string
	domain      table.Symbol
	table.Walk
}

func (e *Engine) newEvaluator() (*Evaluator, error) {
	n := len(e.Model.Request)
	ev := &Evaluator{
		engine: e, compiled: make([]*govaluate.EvaluableExpression, len(e.Model.Atoms)),
		Request: make([]string, n), symbols: make([]table.Symbol, n), Found: make([]bool, n),
		Verdicts: make([]atomVerdict, len(e.Model.Atoms)), row: -1,
	}
	ev.patterns = e.Patterns.Metered(ev.spend)
	for _, a := range e.Model.Atoms {
		if a.Kind != model.Opaque && a.Kind != model.RequestOnly {
			continue
		}
		var err error
		if ev.compiled[a.Number], err = ev.compile(&a.Part); err != nil {
			return nil, err
		}
	}
	return ev, nil
}

// compile compiles a part of the matcher.
func (ev *Evaluator) compile(p *model.Part) (*govaluate.EvaluableExpression, error) {
	if ev.compiler == nil {
		var err error
		if ev.compiler, err = ev.engine.Model.Compiler(ev.functions()); err != nil {
			return nil, err
		}
	}
	return ev.compiler.Compile(p)
}

// functions are Casbin's own, and those that see the evaluator's query or what
// has been compiled already.
func (ev *Evaluator) functions() map[string]govaluate.ExpressionFunction {
	casbins := casbinmodel.LoadFunctionMap()
	functions := casbins.GetFunctions()
	for name := range ev.engine.Model.Roles {
		functions[name] = func(args ...any) (any, error) { return ev.hasRole(name, args) }
	}
	for name, casbins := range functions {
		if f, ok := pattern.ByName(name); ok {
			functions[name] = func(args ...any) (any, error) { return ev.match(f, casbins, args) }
		}
	}
	functions[model.TimeMatch] = ev.timeMatch
	functions["eval"] = func(args ...any) (any, error) { return ev.evalSubrule(functions, args) }
	return functions
}

// match is a function of Casbin's, which would compile each pattern of the policy
// in each row, or remember all of them for ever, as keyMatch4 does. A pattern that
// is joined is no text of the policy, and is not remembered.
func (ev *Evaluator) match(f pattern.Func, casbins govaluate.ExpressionFunction, args []any) (any, error) {
	if len(args) == 2 {
		text, isText := args[0].(string)
		pattern, isPattern := args[1].(string)
		if isText && isPattern && ev.asksNames(f, text, pattern) {
			return ev.matchNames(f, pattern, ev.Lookup(pattern))
		}
		if isText && isPattern {
			return ev.patterns.Match(f, text, pattern, uint32(ev.Lookup(pattern)))
		}
	}
	return casbins(args...)
}

// asksNames reports whether a text is the path of the request, and a pattern asks
// for names. No other field begins with a slash, but for a subject, which then stands
// for nothing.
func (ev *Evaluator) asksNames(f pattern.Func, text, of string) bool {
	if ev.engine.obj < 0 || text != ev.Request[ev.engine.obj] {
		return false
	}
	subject, group := f.AsksNames(of)
	return subject || group
}

// matchNames matches the path by a pattern in which $sub or $group may stand for
// names.
func (ev *Evaluator) matchNames(f pattern.Func, text string, id table.Symbol) (bool, error) {
	return ev.patterns.MatchPath(f, ev.Request[ev.engine.obj], text, uint32(id), &ev.named().names)
}

// Moment is the one that is asked about: the same all through a decision.
func (ev *Evaluator) Moment() time.Time {
	ev.engine.FixMoment(&ev.Query)
	return ev.Query.At
}

// FixMoment gives a query the moment of now where it asks about none, so that several
// decisions are of the same one.
func (e *Engine) FixMoment(q *authz.Query) {
	if q.At.IsZero() {
		q.At = e.limited.Now()
	}
}

// timeMatch is Casbin's TimeMatch at the moment that is asked about.
func (ev *Evaluator) timeMatch(args ...any) (any, error) {
	if len(args) != 2 {
		return nil, errors.New("timeMatch takes a beginning and an end")
	}
	begin, isText := args[0].(string)
	end, isToo := args[1].(string)
	if !isText || !isToo {
		return nil, errors.New("timeMatch takes texts")
	}
	return ev.isTime(ev.Lookup(begin), ev.Lookup(end))
}

// isTime reports whether the moment that is asked about is in a period of the policy.
func (ev *Evaluator) isTime(begin, end table.Symbol) (bool, error) {
	if begin == ev.engine.open && end == begin && begin != table.NoSymbol {
		return true, nil
	}
	p, ok := ev.engine.periods.Of(begin, end)
	if !ok {
		return false, errors.New("timeMatch is asked about what is no time of the policy")
	}
	return p.Holds(ev.Moment()), nil
}

// Get returns a parameter of the matcher: r_sub, p_obj. It is govaluate's.
func (ev *Evaluator) Get(name string) (any, error) {
	if field, ok := strings.CutPrefix(name, "r_"); ok {
		for i, f := range ev.engine.Model.Request {
			if f == field {
				return ev.Request[i], nil
			}
		}
	}
	if field, ok := strings.CutPrefix(name, "p_"); ok {
		if col := ev.engine.Model.PolicyField(field); col >= 0 {
			if ev.row < 0 {
				return "", nil
			}
			return ev.engine.Symbols.Text(ev.engine.cell(ev.row, col)), nil
		}
	}
	return nil, fmt.Errorf("no parameter %q", name)
}

// hasRole is the g function of a role definition.
func (ev *Evaluator) hasRole(kind string, args []any) (any, error) {
	names := make([]string, len(args))
	for i, a := range args {
		text, ok := a.(string)
		if !ok {
			return nil, fmt.Errorf("%s takes names, not %T", kind, a)
		}
		names[i] = text
	}
	if len(names) != 2 && len(names) != 3 {
		return nil, fmt.Errorf("%s takes two names, and a domain where the definition has one", kind)
	}
	if names[0] == names[1] {
		return true, nil
	}
	domain := ev.engine.empty
	if len(names) == 3 {
		domain = ev.domainSymbol(kind, names[2], ev.Lookup(names[2]))
	}
	role := ev.Lookup(names[1])
	if role == table.NoSymbol { // not in the policy; a group of the request may be
		return slices.Contains(ev.groups(kind, names[0]), names[1]), nil
	}
	return ev.reaches(ev.Walk(kind, names[0], ev.Lookup(names[0]), domain), role)
}

// reaches reports whether a walk reaches a role, which can take it far.
func (ev *Evaluator) reaches(w *table.Walk, role table.Symbol) (bool, error) {
	before := len(w.Reached) + w.Idle
	has := w.Has(role)
	return has, ev.spend(stepsOfRole * (len(w.Reached) + w.Idle - before))
}

// Lookup returns the symbol of a name, or table.NoSymbol.
func (e *Engine) Lookup(name string) table.Symbol {
	if s, ok := e.Symbols.Lookup(name); ok {
		return s
	}
	return table.NoSymbol
}

func (ev *Evaluator) Lookup(name string) table.Symbol { return ev.engine.Lookup(name) }

// symbol returns the symbol of a field of the request, or table.NoSymbol.
func (ev *Evaluator) symbol(field int) table.Symbol {
	if !ev.Found[field] {
		ev.symbols[field], ev.Found[field] = ev.Lookup(ev.Request[field]), true
	}
	return ev.symbols[field]
}

// domainSymbol returns the domain in which a role definition is asked. Where it
// has none, none counts. In a domain that the policy does not have, only the
// groups of the request hold.
func (ev *Evaluator) domainSymbol(kind, text string, domain table.Symbol) table.Symbol {
	switch {
	case ev.engine.Model.Roles[kind] != 3:
		return ev.engine.empty
	case ev.engine.Model.DomainPatterns:
		return ev.engine.Graphs[kind].Domain(ev.engine.Symbols, text)
	}
	return domain
}

// groups returns the groups of the request where they are roles of a name: of
// its subject, in the role definition g.
func (ev *Evaluator) groups(kind, name string) []string {
	if kind == "g" && name == ev.Query.Principal.Subject {
		return ev.Query.Principal.Groups
	}
	return nil
}

// maxWalks is how many walks are remembered for a decision. A matcher that asks
// for another name or domain in each row would remember as many as there are
// rows.
const maxWalks = 64

// Walk returns the names that start reaches, until the next call of it.
func (ev *Evaluator) Walk(kind, start string, id, domain table.Symbol) *table.Walk {
	for i := range ev.Walks {
		if w := &ev.Walks[i]; w.domain == domain && w.start == start && w.kind == kind {
			return &w.Walk
		}
	}
	if len(ev.Walks) == maxWalks {
		ev.Walks = ev.Walks[:maxWalks-1] // the last takes turns
	}
	if len(ev.Walks) < cap(ev.Walks) {
		ev.Walks = ev.Walks[:len(ev.Walks)+1] // with the memory of an earlier decision's
	} else {
		ev.Walks = append(ev.Walks, walkResult{})
	}
	w := &ev.Walks[len(ev.Walks)-1]
	w.kind, w.start, w.domain = kind, start, domain
	graph, moment := ev.engine.Graphs[kind], time.Time{}
	if graph.HasPeriods() {
		moment = ev.Moment()
	}
	graph.Begin(&w.Walk, ev.engine.Symbols, id, ev.groups(kind, start), domain, moment)
	return &w.Walk
}

// evalSubrule is Casbin's eval: it evaluates a rule that stands in the policy.
func (ev *Evaluator) evalSubrule(functions map[string]govaluate.ExpressionFunction, args []any) (any, error) {
	if len(args) != 1 {
		return nil, errors.New("eval takes one rule")
	}
	rule, ok := args[0].(string)
	if !ok {
		return nil, errors.New("eval takes a rule of the policy")
	}
	if err := ev.spend(stepsOfSubrule); err != nil {
		return nil, err
	}
	expr, err := govaluate.NewEvaluableExpressionWithFunctions(util.EscapeAssertion(rule), functions)
	if err != nil {
		return nil, fmt.Errorf("compile the rule %q: %w", rule, err)
	}
	return expr.Eval(ev)
}

// Matches evaluates the matcher for a row.
func (ev *Evaluator) Matches(row int) (bool, error) {
	ev.row = row
	if err := ev.spend(stepsOfRow); err != nil {
		return false, err
	}
	holds, err := ev.holds(ev.engine.Model.Root, true)
	if err != nil {
		return false, fmt.Errorf("evaluate the matcher: %w", err)
	}
	return holds, nil
}

// holds evaluates a term for the row, as govaluate does: from the left, and
// no further than the answer takes.
func (ev *Evaluator) holds(c *model.Term, whole bool) (bool, error) {
	switch c.Op {
	case model.Leaf:
		return ev.atomHolds(c.Atom, whole)
	case model.Not:
		holds, err := ev.holds(c.Kids[0], false)
		return !holds, err
	}
	for _, kid := range c.Kids {
		holds, err := ev.holds(kid, false)
		if err != nil {
			return false, err
		}
		if holds == (c.Op == model.Or) {
			return holds, nil
		}
	}
	return c.Op == model.And, nil
}

// atomHolds evaluates an atom; whole says that it is all of the matcher.
func (ev *Evaluator) atomHolds(a *model.Atom, whole bool) (bool, error) {
	e := ev.engine
	switch a.Kind {
	case model.RequestOnly:
		return ev.holdsForRequest(a)
	case model.Opaque:
		return ev.evaluate(a, whole)
	case model.Period:
		return ev.isTime(ev.timeOf(&a.Operands[0]), ev.timeOf(&a.Operands[1]))
	}
	value := table.NoSymbol // where there is no row, the empty text
	if ev.row >= 0 {
		value = e.cell(ev.row, a.Policy)
	}
	switch a.Kind {
	case model.Equal:
		return value == ev.symbol(a.Request) && value != table.NoSymbol || value == table.NoSymbol && ev.Request[a.Request] == "", nil
	case model.Constant:
		return value == e.constants[a.Number] && value != table.NoSymbol || value == table.NoSymbol && a.Text == "", nil
	case model.Pattern:
		text := ev.text(value)
		if a.Request == e.obj && pattern.MayAskNames(text) {
			return ev.matchNames(a.Func, text, value)
		}
		return ev.patterns.Match(a.Func, ev.Request[a.Request], text, uint32(value))
	default: // atomRole
		if value == table.NoSymbol {
			value = e.empty
		}
		return ev.reaches(ev.Walk(a.Function, ev.Request[a.Request], ev.symbol(a.Request), ev.domainAsked(a)), value)
	}
}

// domainAsked returns the domain in which an atom asks for a role, in the row.
func (ev *Evaluator) domainAsked(a *model.Atom) table.Symbol {
	switch {
	case a.Domain == model.DomainRequest:
		return ev.domainSymbol(a.Function, ev.Request[a.DomainField], ev.symbol(a.DomainField))
	case a.Domain == model.DomainPolicy && ev.row >= 0:
		in := ev.engine.cell(ev.row, a.DomainField)
		return ev.domainSymbol(a.Function, ev.engine.Symbols.Text(in), in)
	}
	return ev.engine.empty
}

// timeOf returns a beginning or an end of the row: that in a column, or an open one.
func (ev *Evaluator) timeOf(operand *model.Part) table.Symbol {
	switch {
	case operand.Column < 0:
		return ev.engine.open
	case ev.row < 0:
		return table.NoSymbol
	}
	return ev.engine.cell(ev.row, operand.Column)
}

// text returns the text of a symbol, empty for table.NoSymbol.
func (ev *Evaluator) text(s table.Symbol) string {
	if s == table.NoSymbol {
		return ""
	}
	return ev.engine.Symbols.Text(s)
}

// holdsForRequest evaluates an atom that looks at the request only, once a
// decision.
func (ev *Evaluator) holdsForRequest(a *model.Atom) (bool, error) {
	v := &ev.Verdicts[a.Number]
	if !v.known {
		v.holds, v.err = ev.evaluateSafely(a)
		v.known = true
	}
	return v.holds, v.err
}

// evaluateSafely turns a panic into an error: Casbin's own functions panic, and
// the rows may never ask what a plan asks before them.
func (ev *Evaluator) evaluateSafely(a *model.Atom) (holds bool, err error) {
	defer func() {
		if r := recover(); r != nil {
			holds, err = false, fmt.Errorf("%v", r)
		}
	}()
	return ev.evaluate(a, false)
}

// evaluate has govaluate evaluate an atom. A matcher as a whole may be a number;
// an operand of && and its like may not.
func (ev *Evaluator) evaluate(a *model.Atom, whole bool) (bool, error) {
	if err := ev.spend(stepsOfCall); err != nil {
		return false, err
	}
	result, err := ev.compiled[a.Number].Eval(ev)
	if err != nil {
		return false, err
	}
	switch result := result.(type) {
	case bool:
		return result, nil
	case float64:
		if whole {
			return result != 0, nil
		}
	}
	return false, fmt.Errorf("%q is neither true nor false", a.Source)
}

// RowEffect is what a row says when it matches.
type RowEffect uint8

const (
	RowSilent RowEffect = iota
	RowAllows
	RowDenies
)

// EffectOf returns what a row says when it matches.
func (e *Engine) EffectOf(row int) RowEffect {
	if e.eft < 0 {
		return RowAllows
	}
	switch e.Symbols.Text(e.cell(row, e.eft)) {
	case "allow":
		return RowAllows
	case "deny":
		return RowDenies
	}
	return RowSilent
}

// decideRows merges the effects of n rows as Casbin's effector does: a row that
// does not match has no influence, and the deciding row is the one that
// EnforceEx names.
func (ev *Evaluator) decideRows(n int, at func(int) int) (allowed bool, row int, err error) {
	firstAllow := -1
	ev.toLookAt = n
	for i := range n {
		row := at(i)
		ev.looked = i + 1
		ok, err := ev.Matches(row)
		if err != nil {
			return false, -1, err
		}
		if !ok {
			continue
		}
		effect := ev.engine.EffectOf(row)
		switch ev.engine.Model.Effect {
		case model.AllowOverride:
			if effect == RowAllows {
				return true, row, nil
			}
		case model.DenyOverride:
			if effect == RowDenies {
				return false, row, nil
			}
		case model.AllowAndDeny:
			if effect == RowDenies {
				return false, row, nil
			}
			if effect == RowAllows && firstAllow < 0 {
				firstAllow = row
			}
		case model.Priority, model.SubjectPriority:
			if effect != RowSilent {
				return effect == RowAllows, row, nil
			}
		default:
			return false, -1, errors.New("unsupported effect")
		}
	}
	switch ev.engine.Model.Effect {
	case model.DenyOverride:
		return true, -1, nil
	case model.AllowAndDeny:
		return firstAllow >= 0, firstAllow, nil
	}
	return false, -1, nil
}

// decideWithoutRows is Casbin's other path: a matcher that asks nothing of p, or
// an empty policy, is evaluated once with every field of p empty.
func (ev *Evaluator) decideWithoutRows() (allowed bool, row int, err error) {
	if ev.engine.Model.Evaluates {
		return false, -1, errors.New("the matcher evaluates rules of the policy, and there are none")
	}
	ev.row = -1
	ok, err := ev.holds(ev.engine.Model.Root, false)
	switch {
	case err != nil:
		return false, -1, fmt.Errorf("evaluate the matcher: %w", err)
	case ev.engine.Model.Effect == model.DenyOverride:
		return true, -1, nil
	case !ok || ev.engine.Rows.Len() == 0:
		return ok, -1, nil
	}
	return true, 0, nil
}

// Indexed reports whether decisions look at some rows only, or why not.
func (e *Engine) Indexed() (bool, string) { return e.Plan.Scan == "", e.Plan.Scan }
