package policy

import (
	"errors"
	"fmt"
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
// It does what Casbin's enforcer does, with Casbin's own parts: the matcher
// compiled by govaluate, Casbin's functions, the meaning of Casbin's effects.
// What it leaves out is the enforcer's work for each request (a map of
// functions, arrays as long as the policy, a memo that grows for ever).
type engine struct {
	def        *definition
	syms       *symbols
	rules      *rules
	graphs     map[string]*roleGraph
	eft        int  // the column of eft, or -1
	asksPolicy bool // the matcher looks at p; otherwise Casbin evaluates it once
	evaluators sync.Pool
}

// links are the g lines, by role definition (g, g2, …).
type links map[string][]roleLink

type engineOptions struct {
	roleDepth int // how many roles deep a chain is followed; 0 means Casbin's 10
}

// newEngine returns an error where the matcher, or a pattern of the policy,
// cannot be compiled.
func newEngine(def *definition, syms *symbols, rs *rules, ls links, opts engineOptions) (*engine, error) {
	if opts.roleDepth == 0 {
		opts.roleDepth = defaultRoleDepth
	}
	e := &engine{
		def: def, syms: syms, rules: rs, graphs: make(map[string]*roleGraph, len(def.roles)),
		eft: def.policyField("eft"), asksPolicy: strings.Contains(def.matcher, "p_"),
	}
	for name := range def.roles {
		e.graphs[name] = newRoleGraph(ls[name], opts.roleDepth)
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

// decide evaluates the policy for one query: the effect, and the row that
// decided or -1. An error denies.
func (e *engine) decide(q *authz.Query) (allowed bool, row int, err error) {
	ev, err := e.begin(q)
	if err != nil {
		return false, -1, err
	}
	defer e.end(ev)
	if !e.asksPolicy || e.rules.len() == 0 {
		return ev.decideWithoutRows()
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
	ev.query = q
	return ev, nil
}

func (e *engine) end(ev *evaluator) {
	ev.query = nil
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

// An evaluator holds what one decision needs. Its matcher is compiled with
// functions that see its query.
type evaluator struct {
	engine  *engine
	matcher *govaluate.EvaluableExpression
	query   *authz.Query
	request []string
	row     int // -1 where Casbin evaluates the matcher without a row
	walks   []walkResult
}

// A walkResult is the names that one name reaches, found once a decision.
type walkResult struct {
	definition, start string
	domain            symbol
	names             []reached
}

func (e *engine) newEvaluator() (*evaluator, error) {
	ev := &evaluator{engine: e, request: make([]string, len(e.def.requestFields))}
	matcher, err := govaluate.NewEvaluableExpressionWithFunctions(e.def.matcher, ev.functions())
	if err != nil {
		return nil, fmt.Errorf("compile the matcher of %s: %w", e.def.file, err)
	}
	ev.matcher = matcher
	return ev, nil
}

// functions are Casbin's own, and those that see the evaluator's query.
func (ev *evaluator) functions() map[string]govaluate.ExpressionFunction {
	casbins := casbinmodel.LoadFunctionMap()
	functions := casbins.GetFunctions()
	for name := range ev.engine.def.roles {
		functions[name] = func(args ...any) (any, error) { return ev.hasRole(name, args) }
	}
	functions["eval"] = func(args ...any) (any, error) { return ev.evalRule(functions, args) }
	return functions
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
			return ev.engine.syms.text(ev.engine.rules.cols[col][ev.row]), nil
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
	var domain symbol
	if len(names) == 3 && ev.engine.def.roles[definition] == 3 {
		var ok bool
		if domain, ok = ev.engine.syms.lookup(names[2]); !ok {
			domain = noSymbol // only the groups of the request hold here
		}
	} else {
		domain, _ = ev.engine.syms.lookup("")
	}
	role, ok := ev.engine.syms.lookup(names[1])
	if !ok {
		return false, nil
	}
	return find(ev.walk(definition, names[0], domain), role) >= 0, nil
}

// walk returns the names that start reaches. The groups of the request are
// roles of its subject, in the role definition g.
func (ev *evaluator) walk(definition, start string, domain symbol) []reached {
	for i := range ev.walks {
		if w := &ev.walks[i]; w.definition == definition && w.start == start && w.domain == domain {
			return w.names
		}
	}
	var groups []string
	if definition == "g" && start == ev.query.Principal.Subject {
		groups = ev.query.Principal.Groups
	}
	var buf []reached
	if n := len(ev.walks); n < cap(ev.walks) {
		buf = ev.walks[:n+1][n].names[:0] // its last use is over
	}
	names := ev.engine.graphs[definition].walk(ev.engine.syms, start, groups, domain, buf)
	ev.walks = append(ev.walks, walkResult{definition, start, domain, names})
	return names
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
	result, err := ev.matcher.Eval(ev)
	if err != nil {
		return false, fmt.Errorf("evaluate the matcher: %w", err)
	}
	switch result := result.(type) {
	case bool:
		return result, nil
	case float64:
		return result != 0, nil
	default:
		return false, errors.New("the matcher gives neither true nor false")
	}
}

// rowEffect is what a row says when it matches.
type rowEffect uint8

const (
	rowSilent rowEffect = iota
	rowAllows
	rowDenies
)

func (ev *evaluator) effectOf(row int) rowEffect {
	if ev.engine.eft < 0 {
		return rowAllows
	}
	switch ev.engine.syms.text(ev.engine.rules.cols[ev.engine.eft][row]) {
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
		effect := ev.effectOf(row)
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
	ev.row = -1
	result, err := ev.matcher.Eval(ev)
	if err != nil {
		return false, -1, fmt.Errorf("evaluate the matcher: %w", err)
	}
	ok, isBool := result.(bool)
	switch {
	case !isBool:
		return false, -1, errors.New("the matcher gives neither true nor false")
	case ev.engine.def.effect == constant.DenyOverrideEffect:
		return true, -1, nil
	case !ok || ev.engine.rules.len() == 0:
		return ok, -1, nil
	}
	return true, 0, nil
}

// indexed reports whether decisions look at some rows only, or why not.
func (e *engine) indexed() (bool, string) { return false, "" }

// largestBucket is the most rows that one decision may look at.
func (e *engine) largestBucket() int { return e.rules.len() }
