package policy

import (
	"fmt"
	"slices"
	"strings"

	casbinmodel "github.com/casbin/casbin/v2/model"
	"github.com/casbin/casbin/v2/util"
	"github.com/casbin/govaluate"
)

// A shape is what the linter understands of a matcher: parts that must all hold
// for a line to match.
type shape struct {
	asked map[int]int // by column of p: how many parts ask it
	stars []int       // the columns in which "*" matches everything
	// What the parts say of single columns; -1 where none does, or where
	// the column may match in another way too.
	subject, object, domain int
	// role says that the subject is reached by way of g, asksDomain that g is
	// asked within a domain, inDomain that this is the line's own.
	role, asksDomain, inDomain bool
	// function matches the object: one of Casbin's, or "==".
	function string
	// actions hold the columns of the policy that r.act alone decides about.
	actions []actionClause
}

type actionClause struct {
	column int
	expr   *govaluate.EvaluableExpression
}

func newShape(d *definition) *shape {
	s := &shape{asked: map[int]int{}, subject: -1, object: -1, domain: -1}
	for _, c := range d.root.clauses() {
		for _, col := range c.columns {
			s.asked[col]++
		}
		s.noteAction(c)
		core, star := withoutStar(c)
		if star {
			s.stars = append(s.stars, c.columns[0])
		}
		if core.atom != nil {
			s.note(d, core.atom, star)
		}
	}
	s.inDomain = s.asksDomain && s.domain >= 0
	return s
}

// withoutStar returns what else holds of a column in which "*" matches
// everything: X of X || p.y == "*".
func withoutStar(c *term) (core *term, star bool) {
	if c.op != opOr || len(c.kids) != 2 || len(c.columns) != 1 {
		return c, false
	}
	for i, kid := range c.kids {
		if kid.atom != nil && kid.atom.kind == atomConstant && kid.atom.text == "*" {
			return c.kids[1-i], true
		}
	}
	return c, false
}

// note keeps what an atom says of the subject, the object and the domain.
func (s *shape) note(d *definition, a *atom, star bool) {
	request := func(field int, name string) bool { return field >= 0 && d.requestFields[field] == name }
	asksG := a.kind == atomRole && a.function == "g" && request(a.request, "sub")
	inDomain := asksG && a.domain == domainRequest && request(a.domainField, "dom")
	s.asksDomain = s.asksDomain || inDomain
	switch {
	case star:
	case asksG && (a.domain == domainNone || inDomain): // otherwise another domain counts than the request's
		s.subject, s.role = a.policy, true
	case a.kind == atomPattern && request(a.request, "obj"):
		s.object, s.function = a.policy, a.function
	case a.kind != atomEqual:
	case request(a.request, "sub"):
		s.subject, s.role = a.policy, false
	case request(a.request, "obj"):
		s.object, s.function = a.policy, "=="
	case request(a.request, "dom"):
		s.domain = a.policy
	}
}

// noteAction keeps a clause about which r.act alone decides, to try it.
func (s *shape) noteAction(c *term) {
	if len(c.columns) != 1 || !slices.Equal(c.requests, []string{"act"}) {
		return
	}
	casbins := casbinmodel.LoadFunctionMap()
	if expr, err := compile(util.EscapeAssertion(c.source), casbins.GetFunctions()); err == nil { // it asks neither g nor eval
		s.actions = append(s.actions, actionClause{c.columns[0], expr})
	}
}

// accepts reports whether a line with this value matches a request for action,
// as far as the part goes. What fails is accepted: another rule tells of it.
func (a actionClause) accepts(action, value string) bool {
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
