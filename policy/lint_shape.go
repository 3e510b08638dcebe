package policy

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	casbinmodel "github.com/casbin/casbin/v2/model"
	"github.com/casbin/govaluate"
)

// A shape is what the linter understands of a matcher: parts that must all hold
// for a line to match.
type shape struct {
	parts []part
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

// A part is a clause of a matcher, as far as the linter knows it.
type part struct {
	kind     partKind
	column   int    // of p; -1 where there is none
	columns  []int  // all columns that it asks
	function string // of a pattern
	star     bool   // "*" in the column matches everything
}

type partKind uint8

const (
	partOther   partKind = iota // holds for a line if it holds for one with the same columns
	partRequest                 // asks nothing of p
	partEqual                   // r.x == p.y
	partPattern                 // function(r.x, p.y)
	partRole                    // g(r.sub, p.y)
	partDomain                  // g(r.sub, p.y, r.dom)
)

type actionClause struct {
	column int
	expr   *govaluate.EvaluableExpression
}

var (
	equalClause   = regexp.MustCompile(`^(?:r_(\w+)\s*==\s*p_(\w+)|p_(\w+)\s*==\s*r_(\w+))$`)
	patternClause = regexp.MustCompile(`^(keyMatch[2345]?|globMatch|regexMatch|ipMatch)\(\s*r_(\w+)\s*,\s*p_(\w+)\s*\)$|^r_(\w+)\s*=~\s*p_(\w+)$`)
	roleClause    = regexp.MustCompile(`^g\(\s*r_sub\s*,\s*p_(\w+)\s*(?:,\s*([rp]_dom)\s*)?\)$`)
	starClause    = regexp.MustCompile(`^p_(\w+)\s*==\s*["']\*["']$`)
)

func newShape(d *definition) *shape {
	s := &shape{subject: -1, object: -1, domain: -1}
	parts := []string{d.matcher}
	if len(splitAt(bare(d.matcher), "||")) == 1 {
		parts = splitAt(bare(d.matcher), "&&")
	}
	for _, text := range parts {
		s.add(d, bare(text))
	}
	s.asksDomain = slices.ContainsFunc(s.parts, func(c part) bool { return c.kind == partDomain })
	s.inDomain = s.asksDomain && s.domain >= 0
	return s
}

// add takes one part in. What it does not recognise is left as a part of
// which only the columns are known.
func (s *shape) add(d *definition, text string) {
	c := part{column: -1}
	asked, policy := fieldsOf(text)
	for _, name := range policy {
		c.columns = append(c.columns, d.policyField(name))
	}
	if len(c.columns) == 0 {
		c.kind = partRequest
	}
	core := text
	if either := splitAt(text, "||"); len(either) == 2 {
		for i, part := range either {
			if m := starClause.FindStringSubmatch(bare(part)); m != nil && len(c.columns) == 1 {
				c.star, c.column, core = true, c.columns[0], bare(either[1-i])
			}
		}
	}
	request := ""
	if m := equalClause.FindStringSubmatch(core); m != nil {
		c.kind, request, c.column = partEqual, m[1]+m[4], d.policyField(m[2]+m[3])
	} else if m := patternClause.FindStringSubmatch(core); m != nil {
		c.kind, c.function, request, c.column = partPattern, m[1], m[2]+m[4], d.policyField(m[3]+m[5])
		if c.function == "" {
			c.function = "regexMatch"
		}
	} else if m := roleClause.FindStringSubmatch(core); m != nil {
		request, c.column = "sub", d.policyField(m[1])
		switch {
		case m[2] == "":
			c.kind = partRole
		case m[2] == "r_dom":
			c.kind = partDomain
		default: // the line's own domain counts, whatever the request's
			c.column = -1
		}
	}
	s.parts = append(s.parts, c)
	s.note(c, request)
	s.noteAction(c, asked, text)
}

// note keeps what a part says of the subject, the object and the domain.
func (s *shape) note(c part, request string) {
	if c.column < 0 {
		return
	}
	switch {
	case request == "sub" && !c.star && c.kind != partPattern:
		s.subject, s.role = c.column, c.kind != partEqual
	case request == "obj" && !c.star && (c.kind == partPattern || c.kind == partEqual):
		s.object, s.function = c.column, c.function
		if c.kind == partEqual {
			s.function = "=="
		}
	case request == "dom" && c.kind == partEqual && !c.star:
		s.domain = c.column
	}
}

// noteAction keeps a part about which r.act alone decides, to try it.
func (s *shape) noteAction(c part, asked []string, text string) {
	if len(c.columns) != 1 || !slices.Equal(asked, []string{"act"}) {
		return
	}
	casbins := casbinmodel.LoadFunctionMap()
	if expr, err := compile(text, casbins.GetFunctions()); err == nil { // it asks neither g nor eval
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
