package table

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"securefiles/authz"
	"securefiles/policy/internal/finding"
	"securefiles/policy/internal/model"
	"securefiles/policy/internal/pattern"

	"github.com/casbin/casbin/v2/util"
	"github.com/casbin/govaluate"
)

// refuseMeanings refuses lines that deny less, or allow more, than they seem
// to. It is part of loading, so it is quick about lines with nothing special.
func (l *loader) refuseMeanings() {
	shape := model.NewOutline(l.model)
	rows := l.out.Rows
	denies := func(row int) bool { return l.eft >= 0 && l.out.Symbols.Text(rows.Cols[l.eft][row]) == "deny" }
	if col := shape.Object; col >= 0 {
		for row, s := range rows.Cols[col] {
			for _, p := range pattern.Problems(shape.Function, l.out.Symbols.Text(s), false) {
				if denies(row) && p.Deny == finding.SeverityError || !denies(row) && p.Allow == finding.SeverityError {
					l.Fail(int(rows.Lines[row]), p.Rule, "%s %q: %s", l.model.Policy[col], finding.Shorten(l.out.Symbols.Text(s)), p.Message)
				}
			}
		}
	}
	for _, a := range shape.Actions {
		bad := map[Symbol]string{}
		for row, s := range rows.Cols[a.Column] {
			why, ok := bad[s]
			if !ok {
				if text := l.out.Symbols.Text(s); !a.MatchesAny(text) && isMeantAction(text) {
					why = text
				}
				bad[s] = why
			}
			if why != "" && denies(row) {
				l.Fail(int(rows.Lines[row]), "action", "%s", ActionMessage(l.model, a.Column, why))
			}
		}
	}
	if star, ok := l.out.Symbols.Lookup("*"); ok && shape.Subject >= 0 {
		for row, s := range rows.Cols[shape.Subject] {
			if s == star && denies(row) {
				l.Fail(int(rows.Lines[row]), "subject-everyone", "%q is nobody's name, so this denies nothing: everybody is %s", "*", authz.GroupAnyone)
			}
		}
	}
}

// isMeantAction reports whether a value that matches no action is meant for one.
func isMeantAction(value string) bool {
	return value == "*" || slices.ContainsFunc(model.RequestActions(), func(action string) bool { return strings.EqualFold(action, strings.TrimSpace(value)) })
}

func ActionMessage(m *model.Model, col int, value string) string {
	field := m.Policy[col]
	switch {
	case value == "*":
		return field + ` "*" matches no request, for the matcher compares it like any other: add || p.` + field + ` == "*" to it`
	case isMeantAction(value):
		return field + " \"" + finding.Quoted(value) + "\" matches no request: write \"" + strings.ToLower(value) + "\""
	}
	return field + " \"" + finding.Quoted(value) + "\" matches no request: requests are " + strings.Join(model.RequestActions(), ", ")
}

// patternOperand finds where an operator takes a pattern from a field of the
// policy.
var patternOperand = regexp.MustCompile(`[=!]~[\s(]*p_(\w+)`)

// checkPatterns compiles every pattern and rule of the policy. Stock Casbin
// would fail each request that reaches a bad one.
func (l *loader) checkPatterns() {
	verdict := true
	tokens, names, err := model.NamedTokens(l.model.Matcher, model.KnownFunctions(l.model, l.model.Evaluates, &verdict))
	if err != nil {
		l.Fail(0, "pattern", "the matcher cannot be compiled: %s", finding.Escape(err.Error())) // it compiled before
		return
	}
	for i := range tokens {
		if !model.TakesPattern(names[i]) || strings.HasPrefix(names[i], "keyGet") {
			continue
		}
		operand := slices.DeleteFunc(slices.Concat(model.ArgumentsOf(tokens, i)[1:]...), func(t govaluate.ExpressionToken) bool {
			return t.Kind == govaluate.CLAUSE || t.Kind == govaluate.CLAUSE_CLOSE
		})
		if len(operand) == 1 && operand[0].Kind == govaluate.VARIABLE {
			field := strings.TrimPrefix(fmt.Sprint(operand[0].Value), "p_")
			l.checkColumn(field, "pattern", func(text string) error { return pattern.Check(names[i], text) })
		}
	}
	for _, operand := range patternOperand.FindAllStringSubmatch(l.model.Matcher, -1) {
		l.checkColumn(operand[1], "pattern", func(text string) error { return pattern.Check("regexMatch", text) })
	}
	for _, call := range model.EvalCall.FindAllStringSubmatch(l.model.Matcher, -1) {
		l.checkColumn(call[1], "rule", func(text string) error { return checkSubrule(l.model, text) })
	}
}

// checkColumn checks each value of a column once.
func (l *loader) checkColumn(field, rule string, check func(string) error) {
	col := l.model.PolicyField(field)
	if col < 0 {
		return
	}
	checked := make([]bool, l.out.Symbols.Len())
	for row, s := range l.out.Rows.Cols[col] {
		if checked[s] {
			continue
		}
		checked[s] = true
		if err := check(l.out.Symbols.Text(s)); err != nil {
			l.Fail(int(l.out.Rows.Lines[row]), rule, "%s %q: %s", field, finding.Shorten(l.out.Symbols.Text(s)), finding.Escape(err.Error()))
		}
	}
}

// checkSubrule checks a rule of the policy as eval would evaluate it. A rule
// cannot eval: it could go on for ever.
func checkSubrule(m *model.Model, rule string) error {
	if problems := model.ExpressionProblems(m, util.EscapeAssertion(rule), rule, false); len(problems) > 0 {
		return errors.New(problems[0])
	}
	return nil
}
