package model

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	casbinmodel "github.com/casbin/casbin/v2/model"
	"github.com/casbin/govaluate"
)

// Reaches reports whether a line may bring the matcher to a call, whoever asks for
// what: it does not where something before the call decides by the line alone. In
// p.act == "*" || regexMatch(r.act, p.act) that is where act is "*".
func (m *Model) Reaches(call *Call, line func(column int) string) bool {
	var reaches func(t *Term) bool
	reaches = func(t *Term) bool {
		for i, kid := range t.Kids {
			if call.at < kid.From || kid.To <= call.at {
				continue
			}
			for _, before := range t.Kids[:i] {
				if holds, known := m.decidedBy(before, line); known && holds == (t.Op == Or) {
					return false
				}
			}
			return reaches(kid)
		}
		return true
	}
	return reaches(m.Root)
}

// decidedBy returns how a term comes out of a line, where nothing else matters.
func (m *Model) decidedBy(t *Term, line func(column int) string) (holds, known bool) {
	switch t.Op {
	case Leaf:
		return m.holdsAlone(t, line)
	case Not:
		holds, known = m.decidedBy(t.Kids[0], line)
		return !holds, known
	}
	all := true
	for _, kid := range t.Kids {
		holds, ok := m.decidedBy(kid, line)
		if ok && holds == (t.Op == Or) {
			return holds, true
		}
		all = all && ok
	}
	return t.Op == And, all
}

// holdsAlone evaluates a term that asks a line and calls no function.
func (m *Model) holdsAlone(t *Term, line func(column int) string) (holds, known bool) {
	if len(t.Requests) > 0 || t.Evaluates {
		return false, false
	}
	for i := range t.Calls {
		switch t.Calls[i].Function {
		case "==", "!=", "in":
		default:
			return false, false
		}
	}
	compiler, err := m.Compiler(m.casbinsFunctions())
	if err != nil {
		return false, false
	}
	expr, err := compiler.Compile(&t.Part)
	if err != nil {
		return false, false
	}
	result, err := expr.Eval(parameters(func(name string) (any, error) {
		if field, ok := strings.CutPrefix(name, "p_"); ok && m.PolicyField(field) >= 0 {
			return line(m.PolicyField(field)), nil
		}
		return nil, fmt.Errorf("no parameter %q", name)
	}))
	holds, isBool := result.(bool)
	return holds, err == nil && isBool
}

// casbinsFunctions are Casbin's own; those of roles, eval and timeMatch fail.
func (m *Model) casbinsFunctions() map[string]govaluate.ExpressionFunction {
	casbins := casbinmodel.LoadFunctionMap()
	functions := casbins.GetFunctions()
	for _, name := range append(slices.Collect(maps.Keys(m.Roles)), "eval", TimeMatch) {
		functions[name] = func(...any) (any, error) { return nil, fmt.Errorf("%s is not to be had here", name) }
	}
	return functions
}
