package policy

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/casbin/casbin/v2/constant"
	casbinmodel "github.com/casbin/casbin/v2/model"
	"github.com/casbin/casbin/v2/util"
	"github.com/casbin/govaluate"

	"securefiles/authz"
)

// An engine evaluates one policy under one model. It is immutable and safe for
// concurrent use.
//
// It does what Casbin's enforcer does, with Casbin's own parts: the matcher as
// govaluate reads it, Casbin's functions, the meaning of Casbin's effects. What
// it leaves out is the enforcer's work for each request (a map of functions,
// arrays as long as the policy, a memo that grows for ever), and the rows that
// could not match.
type engine struct {
	def        *definition
	syms       *symbols
	rules      *rules
	cells      []symbol // the rules row by row: what one decision looks at lies together
	graphs     map[string]*roleGraph
	roleDepth  int
	chain      int      // how many roles the longest chain has
	empty      symbol   // of the empty text, the domain of links that have none
	eft        int      // the column of eft, or -1
	sub        int      // the field of r that is the subject, or -1
	asksPolicy bool     // the matcher looks at p; otherwise Casbin evaluates it once
	constants  []symbol // by atom: of atomConstant
	plan       *plan
	patterns   *patternMatcher
	evaluators sync.Pool
}

// links are the g lines, by role definition (g, g2, …).
type links map[string][]roleLink

type engineOptions struct {
	roleDepth int     // how many roles deep a chain is followed; 0 means Casbin's 10
	scan      bool    // look at every row; for comparisons
	tuning    *tuning // nil means defaultTuning
}

// newEngine returns an error where the matcher, or a pattern of the policy,
// cannot be compiled.
func newEngine(def *definition, syms *symbols, rs *rules, ls links, opts engineOptions) (*engine, error) {
	if opts.roleDepth == 0 {
		opts.roleDepth = defaultRoleDepth
	}
	e := &engine{
		def: def, syms: syms, rules: rs, graphs: make(map[string]*roleGraph, len(def.roles)),
		eft: def.policyField("eft"), sub: slices.Index(def.requestFields, "sub"), asksPolicy: strings.Contains(def.matcher, "p_"),
		patterns: &patternMatcher{}, roleDepth: opts.roleDepth,
	}
	e.empty = syms.intern("")
	for name := range def.roles {
		e.graphs[name] = newRoleGraph(ls[name], opts.roleDepth)
		e.chain = max(e.chain, e.graphs[name].longest(syms))
	}
	for _, a := range def.atoms {
		e.constants = append(e.constants, e.lookup(a.text))
	}
	e.cells = rowByRow(rs)
	e.plan = &plan{scan: "it was asked to look at every line", bucket: rs.len()}
	if !opts.scan {
		tuned := defaultTuning()
		if opts.tuning != nil {
			tuned = *opts.tuning
		}
		e.plan = newPlan(e, tuned)
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

func rowByRow(rs *rules) []symbol {
	cells := make([]symbol, len(rs.cols)*rs.len())
	for c, col := range rs.cols {
		for row, s := range col {
			cells[row*len(rs.cols)+c] = s
		}
	}
	return cells
}

// cell returns a field of a row.
func (e *engine) cell(row, column int) symbol { return e.cells[row*len(e.rules.cols)+column] }

// decide evaluates the policy for one query, with the symbol of its subject: the
// effect, and the row that decided or -1. An error denies.
func (e *engine) decide(q *authz.Query, subject symbol) (allowed bool, row int, err error) {
	ev, err := e.begin(q)
	if err != nil {
		return false, -1, err
	}
	defer e.end(ev)
	if e.sub >= 0 {
		ev.symbols[e.sub], ev.found[e.sub] = subject, true
	}
	if !e.asksPolicy || e.rules.len() == 0 {
		return ev.decideWithoutRows()
	}
	if rows, all := ev.candidates(); !all {
		return ev.decideRows(len(rows), func(i int) int { return int(rows[i]) })
	}
	return ev.decideRows(e.rules.len(), func(i int) int { return i })
}

// begin takes an evaluator for a query; end gives it back.
func (e *engine) begin(q *authz.Query) (*evaluator, error) {
	ev := e.evaluators.Get().(*evaluator)
	for i, name := range e.def.requestFields {
		value, ok := requestValue(q, name)
		if !ok {
			return nil, fmt.Errorf("the model asks for r.%s, which no request has", name)
		}
		ev.request[i] = value
	}
	ev.query = *q
	return ev, nil
}

// end forgets the query, whatever came of it.
func (e *engine) end(ev *evaluator) {
	ev.query = authz.Query{}
	clear(ev.request)
	clear(ev.found)
	clear(ev.verdicts)
	ev.walks = ev.walks[:0]
	e.evaluators.Put(ev)
}

// requestValue binds a name of the request definition.
func requestValue(q *authz.Query, name string) (string, bool) {
	switch name {
	case "sub":
		return q.Principal.Subject, true
	case "obj":
		return q.Object, true
	case "act":
		return q.Action, true
	case "dom":
		return q.Domain, true
	case "ip":
		return q.IP, true
	case "host":
		return q.Host, true
	}
	return "", false
}

// An evaluator holds what one decision needs.
type evaluator struct {
	engine *engine
	// compiled are the atoms that govaluate evaluates, by their number, with
	// functions that see the evaluator's query.
	compiled []*govaluate.EvaluableExpression
	tokens   []govaluate.ExpressionToken // of the matcher, with the same functions

	query   authz.Query
	request []string
	row     int // for Get; -1 where Casbin evaluates the matcher without a row

	symbols  []symbol // of the request, where found says so
	found    []bool
	verdicts []atomVerdict // of the atoms that look at the request only
	walks    []walkResult

	// The candidates, and what leads to them.
	rows   []uint32
	keys   keySet
	single [1]symbol
}

// A atomVerdict is remembered for a decision. The zero atomVerdict is none.
type atomVerdict struct {
	known, holds bool
	err          error
}

// A walkResult is the names that one name reaches, found once a decision.
type walkResult struct {
	definition, start string
	domain            symbol
	walk
}

func (e *engine) newEvaluator() (*evaluator, error) {
	n := len(e.def.requestFields)
	ev := &evaluator{
		engine: e, compiled: make([]*govaluate.EvaluableExpression, len(e.def.atoms)),
		request: make([]string, n), symbols: make([]symbol, n), found: make([]bool, n),
		verdicts: make([]atomVerdict, len(e.def.atoms)),
	}
	for _, a := range e.def.atoms {
		if a.kind != atomOpaque && a.kind != atomRequest {
			continue
		}
		var err error
		if ev.compiled[a.number], err = ev.compile(&a.part); err != nil {
			return nil, err
		}
	}
	return ev, nil
}

// compile compiles a part of the matcher.
func (ev *evaluator) compile(p *part) (*govaluate.EvaluableExpression, error) {
	def := ev.engine.def
	if ev.tokens == nil {
		matcher, err := compile(def.matcher, ev.functions())
		if err != nil {
			return nil, fmt.Errorf("compile the matcher of %s: %w", def.file, err)
		}
		ev.tokens = matcher.Tokens()
	}
	compiled, err := govaluate.NewEvaluableExpressionFromTokens(asParsed(ev.tokens[p.from:p.to]))
	if err != nil {
		return nil, fmt.Errorf("compile %q of the matcher of %s: %w", p.source, def.file, err)
	}
	return compiled, nil
}

// asParsed returns tokens as they were before govaluate compiled the patterns
// among them: it refuses to take some of those again.
func asParsed(tokens []govaluate.ExpressionToken) []govaluate.ExpressionToken {
	tokens = slices.Clone(tokens)
	for i, t := range tokens {
		if pattern, ok := t.Value.(*regexp.Regexp); ok {
			tokens[i] = govaluate.ExpressionToken{Kind: govaluate.STRING, Value: pattern.String()}
		}
	}
	return tokens
}

// functions are Casbin's own, and those that see the evaluator's query.
func (ev *evaluator) functions() map[string]govaluate.ExpressionFunction {
	casbins := casbinmodel.LoadFunctionMap()
	functions := casbins.GetFunctions()
	for name := range ev.engine.def.roles {
		functions[name] = func(args ...any) (any, error) { return ev.hasRole(name, args) }
	}
	functions["keyMatch4"] = ev.keyMatch4
	functions["eval"] = func(args ...any) (any, error) { return ev.evalRule(functions, args) }
	return functions
}

// keyMatch4 is Casbin's, which would remember each pattern of the policy for
// ever.
func (ev *evaluator) keyMatch4(args ...any) (any, error) {
	if len(args) == 2 {
		text, isText := args[0].(string)
		pattern, isPattern := args[1].(string)
		if id := ev.lookup(pattern); isText && isPattern && id != noSymbol {
			return ev.engine.patterns.match("keyMatch4", text, pattern, id)
		}
	}
	return util.KeyMatch4Func(args...)
}

// Get returns a parameter of the matcher: r_sub, p_obj. It is govaluate's.
func (ev *evaluator) Get(name string) (any, error) {
	if field, ok := strings.CutPrefix(name, "r_"); ok {
		for i, f := range ev.engine.def.requestFields {
			if f == field {
				return ev.request[i], nil
			}
		}
	}
	if field, ok := strings.CutPrefix(name, "p_"); ok {
		if col := ev.engine.def.policyField(field); col >= 0 {
			if ev.row < 0 {
				return "", nil
			}
			return ev.engine.syms.text(ev.engine.cell(ev.row, col)), nil
		}
	}
	return nil, fmt.Errorf("no parameter %q", name)
}

// hasRole is the g function of a role definition.
func (ev *evaluator) hasRole(definition string, args []any) (any, error) {
	names := make([]string, len(args))
	for i, a := range args {
		text, ok := a.(string)
		if !ok {
			return nil, fmt.Errorf("%s takes names, not %T", definition, a)
		}
		names[i] = text
	}
	if len(names) != 2 && len(names) != 3 {
		return nil, fmt.Errorf("%s takes two names, and a domain where the definition has one", definition)
	}
	if names[0] == names[1] {
		return true, nil
	}
	domain := ev.engine.empty
	if len(names) == 3 {
		domain = ev.domainSymbol(definition, ev.lookup(names[2]))
	}
	role := ev.lookup(names[1])
	if role == noSymbol { // not in the policy; a group of the request may be
		return slices.Contains(ev.groups(definition, names[0]), names[1]), nil
	}
	return ev.walk(definition, names[0], ev.lookup(names[0]), domain).has(role), nil
}

// lookup returns the symbol of a name, or noSymbol.
func (e *engine) lookup(name string) symbol {
	if s, ok := e.syms.lookup(name); ok {
		return s
	}
	return noSymbol
}

func (ev *evaluator) lookup(name string) symbol { return ev.engine.lookup(name) }

// symbol returns the symbol of a field of the request, or noSymbol.
func (ev *evaluator) symbol(field int) symbol {
	if !ev.found[field] {
		ev.symbols[field], ev.found[field] = ev.lookup(ev.request[field]), true
	}
	return ev.symbols[field]
}

// domainSymbol returns the domain in which a role definition is asked. Where it
// has none, none counts. In a domain that the policy does not have, only the
// groups of the request hold.
func (ev *evaluator) domainSymbol(definition string, domain symbol) symbol {
	if ev.engine.def.roles[definition] == 3 {
		return domain
	}
	return ev.engine.empty
}

// groups returns the groups of the request where they are roles of a name: of
// its subject, in the role definition g.
func (ev *evaluator) groups(definition, name string) []string {
	if definition == "g" && name == ev.query.Principal.Subject {
		return ev.query.Principal.Groups
	}
	return nil
}

// maxWalks is how many walks are remembered for a decision. A matcher that asks
// for another name or domain in each row would remember as many as there are
// rows.
const maxWalks = 64

// walk returns the names that start reaches, until the next call of it.
func (ev *evaluator) walk(definition, start string, id, domain symbol) *walk {
	for i := range ev.walks {
		if w := &ev.walks[i]; w.domain == domain && w.start == start && w.definition == definition {
			return &w.walk
		}
	}
	if len(ev.walks) == maxWalks {
		ev.walks = ev.walks[:maxWalks-1] // the last takes turns
	}
	if len(ev.walks) < cap(ev.walks) {
		ev.walks = ev.walks[:len(ev.walks)+1] // with the memory of an earlier decision's
	} else {
		ev.walks = append(ev.walks, walkResult{})
	}
	w := &ev.walks[len(ev.walks)-1]
	w.definition, w.start, w.domain = definition, start, domain
	ev.engine.graphs[definition].begin(&w.walk, ev.engine.syms, id, ev.groups(definition, start), domain)
	return &w.walk
}

// evalRule is Casbin's eval: it evaluates a rule that stands in the policy.
func (ev *evaluator) evalRule(functions map[string]govaluate.ExpressionFunction, args []any) (any, error) {
	if len(args) != 1 {
		return nil, errors.New("eval takes one rule")
	}
	rule, ok := args[0].(string)
	if !ok {
		return nil, errors.New("eval takes a rule of the policy")
	}
	expr, err := govaluate.NewEvaluableExpressionWithFunctions(util.EscapeAssertion(rule), functions)
	if err != nil {
		return nil, fmt.Errorf("compile the rule %q: %w", rule, err)
	}
	return expr.Eval(ev)
}

// matches evaluates the matcher for a row.
func (ev *evaluator) matches(row int) (bool, error) {
	ev.row = row
	holds, err := ev.holds(ev.engine.def.root, true)
	if err != nil {
		return false, fmt.Errorf("evaluate the matcher: %w", err)
	}
	return holds, nil
}

// holds evaluates a term for the row, as govaluate does: from the left, and
// no further than the answer takes.
func (ev *evaluator) holds(c *term, whole bool) (bool, error) {
	switch c.op {
	case opAtom:
		return ev.atomHolds(c.atom, whole)
	case opNot:
		holds, err := ev.holds(c.kids[0], false)
		return !holds, err
	}
	for _, kid := range c.kids {
		holds, err := ev.holds(kid, false)
		if err != nil {
			return false, err
		}
		if holds == (c.op == opOr) {
			return holds, nil
		}
	}
	return c.op == opAnd, nil
}

// atomHolds evaluates an atom; whole says that it is all of the matcher.
func (ev *evaluator) atomHolds(a *atom, whole bool) (bool, error) {
	e := ev.engine
	if a.kind == atomRequest && !whole {
		return ev.holdsForRequest(a)
	}
	if a.kind == atomOpaque || a.kind == atomRequest {
		return ev.evaluate(a, whole)
	}
	value := noSymbol // where there is no row, the empty text
	if ev.row >= 0 {
		value = e.cell(ev.row, a.policy)
	}
	switch a.kind {
	case atomEqual:
		return value == ev.symbol(a.request) && value != noSymbol || value == noSymbol && ev.request[a.request] == "", nil
	case atomConstant:
		return value == e.constants[a.number] && value != noSymbol || value == noSymbol && a.text == "", nil
	case atomPattern:
		return e.patterns.match(a.function, ev.request[a.request], ev.text(value), value)
	default: // atomRole
		name := ev.request[a.request]
		if value == noSymbol {
			value = ev.engine.empty
		}
		domain := ev.engine.empty
		switch {
		case a.domain == domainRequest:
			domain = ev.domainSymbol(a.function, ev.symbol(a.domainField))
		case a.domain == domainPolicy && ev.row >= 0:
			domain = ev.domainSymbol(a.function, e.cell(ev.row, a.domainField))
		}
		return ev.walk(a.function, name, ev.symbol(a.request), domain).has(value), nil
	}
}

// text returns the text of a symbol, empty for noSymbol.
func (ev *evaluator) text(s symbol) string {
	if s == noSymbol {
		return ""
	}
	return ev.engine.syms.text(s)
}

// holdsForRequest evaluates an atom that looks at the request only, once a
// decision.
func (ev *evaluator) holdsForRequest(a *atom) (bool, error) {
	v := &ev.verdicts[a.number]
	if !v.known {
		v.holds, v.err = ev.evaluateSafely(a)
		v.known = true
	}
	return v.holds, v.err
}

// evaluateSafely turns a panic into an error: Casbin's own functions panic, and
// the rows may never ask what a plan asks before them.
func (ev *evaluator) evaluateSafely(a *atom) (holds bool, err error) {
	defer func() {
		if r := recover(); r != nil {
			holds, err = false, fmt.Errorf("%v", r)
		}
	}()
	return ev.evaluate(a, false)
}

// evaluate has govaluate evaluate an atom. A matcher as a whole may be a number;
// an operand of && and its like may not.
func (ev *evaluator) evaluate(a *atom, whole bool) (bool, error) {
	result, err := ev.compiled[a.number].Eval(ev)
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
	return false, fmt.Errorf("%q is neither true nor false", a.source)
}

// rowEffect is what a row says when it matches.
type rowEffect uint8

const (
	rowSilent rowEffect = iota
	rowAllows
	rowDenies
)

func (e *engine) effectOf(row int) rowEffect {
	if e.eft < 0 {
		return rowAllows
	}
	switch e.syms.text(e.cell(row, e.eft)) {
	case "allow":
		return rowAllows
	case "deny":
		return rowDenies
	}
	return rowSilent
}

// decideRows merges the effects of n rows as Casbin's effector does: a row that
// does not match has no influence, and the deciding row is the one that
// EnforceEx names.
func (ev *evaluator) decideRows(n int, at func(int) int) (allowed bool, row int, err error) {
	firstAllow := -1
	for i := range n {
		row := at(i)
		ok, err := ev.matches(row)
		if err != nil {
			return false, -1, err
		}
		if !ok {
			continue
		}
		effect := ev.engine.effectOf(row)
		switch ev.engine.def.effect {
		case constant.AllowOverrideEffect:
			if effect == rowAllows {
				return true, row, nil
			}
		case constant.DenyOverrideEffect:
			if effect == rowDenies {
				return false, row, nil
			}
		case constant.AllowAndDenyEffect:
			if effect == rowDenies {
				return false, row, nil
			}
			if effect == rowAllows && firstAllow < 0 {
				firstAllow = row
			}
		case constant.PriorityEffect, constant.SubjectPriorityEffect:
			if effect != rowSilent {
				return effect == rowAllows, row, nil
			}
		default:
			return false, -1, errors.New("unsupported effect")
		}
	}
	switch ev.engine.def.effect {
	case constant.DenyOverrideEffect:
		return true, -1, nil
	case constant.AllowAndDenyEffect:
		return firstAllow >= 0, firstAllow, nil
	}
	return false, -1, nil
}

// decideWithoutRows is Casbin's other path: a matcher that asks nothing of p, or
// an empty policy, is evaluated once with every field of p empty.
func (ev *evaluator) decideWithoutRows() (allowed bool, row int, err error) {
	if ev.engine.def.evaluates {
		return false, -1, errors.New("the matcher evaluates rules of the policy, and there are none")
	}
	ev.row = -1
	ok, err := ev.holds(ev.engine.def.root, false)
	switch {
	case err != nil:
		return false, -1, fmt.Errorf("evaluate the matcher: %w", err)
	case ev.engine.def.effect == constant.DenyOverrideEffect:
		return true, -1, nil
	case !ok || ev.engine.rules.len() == 0:
		return ok, -1, nil
	}
	return true, 0, nil
}

// indexed reports whether decisions look at some rows only, or why not.
func (e *engine) indexed() (bool, string) { return e.plan.scan == "", e.plan.scan }
