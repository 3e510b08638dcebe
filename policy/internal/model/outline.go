package model

import (
	"fmt"
	"slices"
	"strings"

	"securefiles/policy/internal/pattern"

	casbinmodel "github.com/casbin/casbin/v2/model"
	"github.com/casbin/govaluate"
)

// RequestActions are the actions that requests have.
func RequestActions() []string { return []string{"read", "list", "share"} }

// MatchesAny reports whether a request can have an action that a line with this
// value matches.
func (a ActionClause) MatchesAny(value string) bool {
	return slices.ContainsFunc(RequestActions(), func(action string) bool { return a.Accepts(action, value) })
}

// A Outline is what the linter understands of a matcher: parts that must all hold
// for a line to match.
type Outline struct {
	Asked map[int]int // by column of p: how many parts ask it
	Stars []int       // the columns in which "*" matches everything
	// What the parts say of single columns; -1 where none does, or where
	// the column may match in another way too.
	Subject, Object, Domain int
	// role says that the subject is reached by way of g, asksDomain that g is
	// asked within a domain, inDomain that this is the line's own.
	Role, AsksDomain, InDomain bool
	// Func matches the object.
	Func pattern.Func
	// actions hold the columns of the policy that r.act alone decides about.
	Actions []ActionClause
}

// An ActionClause is a part of a matcher about which r.act alone decides.
type ActionClause struct {
	Column int
	expr   *govaluate.EvaluableExpression
}

// NewOutline returns the outline of a model.
func NewOutline(m *Model) *Outline {
	s := &Outline{Asked: map[int]int{}, Subject: -1, Object: -1, Domain: -1}
	for _, c := range m.Root.Clauses() {
		for _, col := range c.Columns {
			s.Asked[col]++
		}
		s.noteAction(m, c)
		core, star := withoutStar(c)
		if star {
			s.Stars = append(s.Stars, c.Columns[0])
		}
		if core.Atom != nil {
			s.note(m, core.Atom, star)
		}
	}
	s.InDomain = s.AsksDomain && s.Domain >= 0
	return s
}

// withoutStar returns what else holds of a column in which "*" matches
// everything: X of X || p.y == "*".
func withoutStar(c *Term) (core *Term, star bool) {
	if c.Op != Or || len(c.Kids) != 2 || len(c.Columns) != 1 {
		return c, false
	}
	for i, kid := range c.Kids {
		if kid.Atom != nil && kid.Atom.Kind == Constant && kid.Atom.Text == "*" {
			return c.Kids[1-i], true
		}
	}
	return c, false
}

// note keeps what an atom says of the subject, the object and the domain.
func (s *Outline) note(m *Model, a *Atom, star bool) {
	request := func(field int, name string) bool { return field >= 0 && m.Request[field] == name }
	asksG := a.Kind == Role && a.Function == "g" && request(a.Request, "sub")
	inDomain := asksG && a.Domain == DomainRequest && request(a.DomainField, "dom")
	s.AsksDomain = s.AsksDomain || inDomain
	switch {
	case star:
	case asksG && (a.Domain == DomainNone || inDomain): // otherwise another domain counts than the request's
		s.Subject, s.Role = a.Policy, true
	case a.Kind == Pattern && request(a.Request, "obj"):
		s.Object, s.Func = a.Policy, a.Func
	case a.Kind != Equal:
	case request(a.Request, "sub"):
		s.Subject, s.Role = a.Policy, false
	case request(a.Request, "obj"):
		s.Object, s.Func = a.Policy, a.Func
	case request(a.Request, "dom"):
		s.Domain = a.Policy
	}
}

// noteAction keeps a clause about which r.act alone decides, to try it.
func (s *Outline) noteAction(m *Model, c *Term) {
	if len(c.Columns) != 1 || !slices.Equal(c.Requests, []string{"act"}) {
		return
	}
	casbins := casbinmodel.LoadFunctionMap()
	functions := casbins.GetFunctions()
	for _, call := range m.Root.Calls {
		if _, ok := functions[call.Function]; !ok { // of a role, or eval
			functions[call.Function] = func(...any) (any, error) { return nil, fmt.Errorf("%s is not to be had here", call.Function) }
		}
	}
	compiler, err := m.Compiler(functions)
	if err != nil {
		return
	}
	if expr, err := compiler.Compile(&c.Part); err == nil {
		s.Actions = append(s.Actions, ActionClause{c.Columns[0], expr})
	}
}

// Accepts reports whether a line with this value matches a request for action,
// as far as the part goes. What fails is accepted: another rule tells of it.
func (a ActionClause) Accepts(action, value string) bool {
	defer func() { _ = recover() }() // Casbin's functions panic on a bad pattern
	result, err := a.expr.Eval(parameters(func(name string) (any, error) {
		switch {
		case name == "r_act":
			return action, nil
		case strings.HasPrefix(name, "p_"):
			return value, nil
		}
		return nil, fmt.Errorf("no parameter %q", name)
	}))
	ok, isBool := result.(bool)
	return err != nil || !isBool || ok
}

// parameters is govaluate's interface as a function.
type parameters func(name string) (any, error)

// Get is govaluate's.
func (p parameters) Get(name string) (any, error) { return p(name) }
