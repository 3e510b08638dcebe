package model

import (
	"fmt"
	"slices"
	"strings"

	"securefiles/policy/internal/pattern"

	"github.com/casbin/govaluate"
)

// RequestActions are the actions that requests have.
func RequestActions() []string { return []string{"read", "list", "share"} }

// MatchesAny reports whether a request can have an action that a line with this
// value matches.
func (a ActionClause) MatchesAny(value string) bool {
	return slices.ContainsFunc(RequestActions(), func(action string) bool { return a.Accepts(action, value) })
}

// PathProblems says what is wrong with a pattern of a path, as pattern.Func.Problems
// does. One of a line that is for listings alone is of directories, whose paths end with
// a slash: what is before it is a path. The values are the line's, by column.
func (s *Outline) PathProblems(text string, all bool, value func(col int) string) []pattern.Problem {
	directory, ok := strings.CutSuffix(text, "/")
	if !ok || !slices.ContainsFunc(s.Actions, func(a ActionClause) bool {
		v := value(a.Column)
		return a.Accepts("list", v) && !a.Accepts("read", v)
	}) {
		return s.Func.Problems(text, all)
	}
	if directory == "" {
		return nil // the whole download
	}
	return s.Func.Problems(directory, all)
}

// An Outline is what the linter understands of a matcher: parts that must all
// hold for a line to match. Alternatives that ask nothing of a line are left out,
// such as || r.sub == "root": they hold for every line or for none.
type Outline struct {
	Asked map[int]int // by column of p: how many parts ask it
	Stars []int       // the columns in which "*" matches everything
	// What the parts say of single columns; -1 where none does, or where
	// the column may match in another way too.
	Subject, Object, Domain int
	// Names and Paths are Subject and Object, and the same of columns of which
	// the values in Spared match in another way: p.sub == "public".
	Names, Paths int
	Spared       map[int][]string
	// Period are the columns in which timeMatch looks for a beginning and an end, and
	// HasPeriod says that it does and that nothing else looks there.
	Period    PeriodColumns
	HasPeriod bool
	// role says that the subject is reached by way of g, asksDomain that g is
	// asked within a domain, inDomain that this is the line's own.
	Role, AsksDomain, InDomain bool
	// Func matches the object.
	Func pattern.Func
	// actions hold the columns of the policy that r.act alone decides about.
	Actions []ActionClause
	// Single says that one alternative alone asks lines.
	Single bool
}

// An ActionClause is a part of a matcher about which r.act alone decides.
type ActionClause struct {
	Column int
	source string
	expr   *govaluate.EvaluableExpression
}

// AsksLine reports whether a term asks more of a line than its effect.
func (m *Model) AsksLine(t *Term) bool {
	eft := m.PolicyField("eft")
	return t.Evaluates || slices.ContainsFunc(t.Columns, func(col int) bool { return col != eft })
}

// NewOutline returns the outline of a model. Of several alternatives that ask a
// line it has what they agree about.
func NewOutline(m *Model) *Outline {
	var ways []*Outline
	for _, a := range m.Alternatives() {
		if m.AsksLine(a) {
			ways = append(ways, outlineOf(m, a))
		}
	}
	var s *Outline
	switch len(ways) {
	case 0:
		return outlineOf(m, m.Root)
	case 1:
		s = ways[0]
		s.Single = true
	default:
		s = merge(ways)
	}
	for _, col := range m.Root.Columns {
		s.Asked[col] = max(s.Asked[col], 1)
	}
	return s
}

// merge returns what outlines agree about that ask it at all. A line may match by
// one or by another, so of no column they say all.
func merge(ways []*Outline) *Outline {
	s := emptyOutline()
	agree := func(column func(*Outline) *int, same func(a, b *Outline) bool) *Outline {
		var of *Outline
		for _, w := range ways {
			switch col := *column(w); {
			case col < 0:
			case of == nil:
				of = w
			case col != *column(of) || !same(of, w):
				return nil
			}
		}
		if of != nil {
			*column(s) = *column(of)
		}
		return of
	}
	names := func(o *Outline) *int { return &o.Names }
	if of := agree(names, func(a, b *Outline) bool { return a.Role == b.Role && a.AsksDomain == b.AsksDomain }); of != nil {
		s.Role, s.AsksDomain = of.Role, of.AsksDomain
	}
	paths := func(o *Outline) *int { return &o.Paths }
	if of := agree(paths, func(a, b *Outline) bool { return a.Func == b.Func }); of != nil {
		s.Func = of.Func
	}
	s.Period = ways[0].Period
	s.HasPeriod = !slices.ContainsFunc(ways, func(w *Outline) bool { return !w.HasPeriod || w.Period != s.Period })
	for _, a := range ways[0].Actions {
		if !slices.ContainsFunc(ways[1:], func(w *Outline) bool {
			return !slices.ContainsFunc(w.Actions, func(b ActionClause) bool { return b.source == a.source })
		}) {
			s.Actions = append(s.Actions, a)
		}
	}
	for _, w := range ways {
		for col, texts := range w.Spared {
			s.Spared[col] = append(s.Spared[col], texts...)
		}
	}
	return s
}

func emptyOutline() *Outline {
	return &Outline{Asked: map[int]int{}, Spared: map[int][]string{}, Subject: -1, Object: -1, Domain: -1, Names: -1, Paths: -1}
}

// outlineOf returns the outline of parts that && joins.
func outlineOf(m *Model, t *Term) *Outline {
	s := emptyOutline()
	for _, c := range t.Clauses() {
		for _, col := range c.Columns {
			s.Asked[col]++
		}
		s.noteAction(m, c)
		if period, ok := PeriodOf(c); ok {
			s.Period, s.HasPeriod = period, true
		}
		core, others := withoutConstants(c)
		star := slices.Contains(others, "*")
		if star {
			s.Stars = append(s.Stars, c.Columns[0])
		}
		if a := core.Atom; a != nil {
			s.note(m, a, c, len(others) > 0)
			if a.Kind == Constant {
				s.Spared[a.Policy] = append(s.Spared[a.Policy], a.Text)
			}
		}
		if len(c.Columns) == 1 {
			s.Spared[c.Columns[0]] = append(s.Spared[c.Columns[0]], others...)
		}
	}
	s.InDomain = s.AsksDomain && s.Domain >= 0 && !m.DomainPatterns
	s.HasPeriod = s.HasPeriod && s.Asked[s.Period.Begin] <= 1 && s.Asked[s.Period.End] <= 1
	return s
}

// withoutConstants returns what else holds of a column of which some values match
// in a way of their own, X of X || p.y == "*", and these values. What asks nothing
// of the line is left out too.
func withoutConstants(c *Term) (core *Term, values []string) {
	if c.Op != Or || len(c.Columns) != 1 {
		return c, nil
	}
	var rest []*Term
	for _, kid := range c.operands(Or) {
		switch {
		case kid.Atom != nil && kid.Atom.Kind == Constant:
			values = append(values, kid.Atom.Text)
		case kid.LooksAtLine():
			rest = append(rest, kid)
		}
	}
	if len(rest) != 1 {
		return c, nil
	}
	return rest[0], values
}

// note keeps what an atom of a clause says of the subject, the object and the
// domain. It is loose where some values of the column match in another way.
func (s *Outline) note(m *Model, a *Atom, c *Term, loose bool) {
	request := func(field int, name string) bool { return field >= 0 && m.Request[field] == name }
	asksG := a.Kind == Role && a.Function == "g" && request(a.Request, "sub")
	inDomain := asksG && a.Domain == DomainRequest && request(a.DomainField, "dom")
	s.AsksDomain = s.AsksDomain || inDomain
	switch {
	case asksG && (a.Domain == DomainNone || inDomain), a.Kind == Equal && request(a.Request, "sub"): // in another domain than the request's, others have it
		s.Names, s.Role = a.Policy, asksG
		if !loose {
			s.Subject = a.Policy
		}
	case (a.Kind == Pattern || a.Kind == Equal) && request(a.Request, "obj"):
		s.Paths, s.Func = a.Policy, a.Func
		if !loose {
			s.Object = a.Policy
		}
	case a.Kind == Equal && request(a.Request, "dom") && c.Atom == a:
		s.Domain = a.Policy
	}
}

// noteAction keeps a clause about which r.act alone decides, to try it.
func (s *Outline) noteAction(m *Model, c *Term) {
	if len(c.Columns) != 1 || !slices.Equal(c.Requests, []string{"act"}) {
		return
	}
	compiler, err := m.Compiler(m.casbinsFunctions())
	if err != nil {
		return
	}
	if expr, err := compiler.Compile(&c.Part); err == nil {
		s.Actions = append(s.Actions, ActionClause{c.Columns[0], c.Source, expr})
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
