package model

import (
	"fmt"

	casbinmodel "github.com/casbin/casbin/v2/model"
	"github.com/casbin/casbin/v2/util"
	"github.com/casbin/govaluate"
)

// A Prober evaluates parts of a matcher for requests that are made up.
type Prober struct {
	compiler  *Compiler
	functions map[string]govaluate.ExpressionFunction
	values    parameters // of the evaluation that goes on
}

// NewProber returns a prober. The function answers for role functions: whether a
// name has a role, in a domain where there is a third argument.
func NewProber(m *Model, hasRole func(kind string, args []string) bool) (*Prober, error) {
	casbins := casbinmodel.LoadFunctionMap()
	p := &Prober{functions: casbins.GetFunctions()}
	for kind, takes := range m.Roles {
		p.functions[kind] = func(args ...any) (any, error) {
			if len(args) != takes {
				return nil, fmt.Errorf("%s takes %d arguments, not %d", kind, takes, len(args))
			}
			var texts []string
			for _, a := range args {
				texts = append(texts, fmt.Sprint(a))
			}
			return hasRole(kind, texts), nil
		}
	}
	p.functions["eval"] = p.rule
	p.functions[TimeMatch] = func(...any) (any, error) { return true, nil } // at some moment it is
	var err error
	p.compiler, err = m.Compiler(p.functions)
	return p, err
}

// rule evaluates a rule of the policy.
func (p *Prober) rule(args ...any) (any, error) {
	if len(args) != 1 {
		return nil, fmt.Errorf("eval takes 1 argument, not %d", len(args))
	}
	rule, err := compile(util.EscapeAssertion(fmt.Sprint(args[0])), p.functions)
	if err != nil {
		return nil, err
	}
	return rule.Eval(p.values)
}

// A Probe is a part of a matcher that can be evaluated.
type Probe struct {
	prober *Prober
	expr   *govaluate.EvaluableExpression
}

// Probe compiles a part.
func (p *Prober) Probe(part *Part) (*Probe, error) {
	expr, err := p.compiler.Compile(part)
	if err != nil {
		return nil, err
	}
	return &Probe{p, expr}, nil
}

// Eval evaluates the part. The values are those of r and p: of r the fields that a
// request has, of p the text of a line. It is not ok where the evaluation fails.
func (p *Probe) Eval(request func(field string) string, line func(field string) string) (holds, ok bool) {
	defer func() {
		if recover() != nil { // Casbin's functions panic on a bad pattern
			holds, ok = false, false
		}
	}()
	p.prober.values = func(name string) (any, error) {
		if len(name) < 3 {
			return nil, fmt.Errorf("no parameter %q", name)
		}
		switch field := name[2:]; name[:2] {
		case "r_":
			return request(field), nil
		case "p_":
			return line(field), nil
		}
		return nil, fmt.Errorf("no parameter %q", name)
	}
	result, err := p.expr.Eval(p.prober.values)
	holds, ok = result.(bool)
	return holds, ok && err == nil
}
