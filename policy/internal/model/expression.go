package model

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"securefiles/policy/internal/finding"
	"securefiles/policy/internal/pattern"

	casbinmodel "github.com/casbin/casbin/v2/model"
	"github.com/casbin/casbin/v2/util"
	"github.com/casbin/govaluate"
)

// literals returns the string literals of an expression, with their quotes. It
// finds them as govaluate does: from one quote to the next, of either kind.
func literals(expr string) []string {
	var found []string
	for {
		begin := strings.IndexAny(expr, `"'`)
		if begin < 0 {
			return found
		}
		length := strings.IndexAny(expr[begin+1:], `"'`)
		if length < 0 {
			return append(found, expr[begin:])
		}
		found = append(found, expr[begin:begin+length+2])
		expr = expr[begin+length+2:]
	}
}

// expressionProblems says what is wrong with a matcher, or with a rule that a
// matcher evaluates: what Casbin or govaluate would pass over, or fail on in
// each request. The source is the expression before Casbin rewrote it.
func expressionProblems(m *Model, expr, source string, mayEval bool) []string {
	var problems []string
	add := func(format string, args ...any) { problems = append(problems, fmt.Sprintf(format, args...)) }

	for _, l := range literals(source) {
		if len(l) < 2 || l[0] != l[len(l)-1] {
			add("the literal %s does not end at a quote of its own kind: a literal cannot hold quotes", finding.Quoted(l))
		}
		if util.EscapeAssertion(l) != l {
			add("Casbin rewrites the literal %s, because it looks like a field of r or p inside", finding.Quoted(l))
		}
	}
	// Casbin has doubled those inside a matcher's literals.
	if strings.Contains(strings.ReplaceAll(expr, `\\`, ""), `\`) {
		add(`a single backslash hides the character behind it: write two inside a literal, none outside`)
	}
	verdict := true
	functions := knownFunctions(m, mayEval, &verdict)
	compiled, err := compile(expr, functions)
	if err != nil {
		text := err.Error()
		name, undefined := strings.CutPrefix(text, "Undefined function ")
		switch {
		case undefined:
			if !m.Evaluates { // Casbin finds no eval here
				delete(functions, "eval")
			}
			add("%s is not a function: there are %s, and what [role_definition] defines", finding.Quoted(name), strings.Join(slices.Sorted(maps.Keys(functions)), ", "))
		case strings.HasPrefix(text, "Cannot transition"): // its rest tells addresses in memory
			add("two parts do not fit together: an operator such as && is missing, or one is too many")
		default:
			add("cannot be compiled: %s", finding.Quoted(text))
		}
		return problems
	}
	p, err := newMatcherParser(m, expr, mayEval)
	if err != nil { // it compiled before
		add("cannot be compiled: %s", finding.Quoted(err.Error()))
		return problems
	}
	problems = append(problems, tokenProblems(m, p.tokens)...)
	problems = append(problems, callProblems(m, expr, p.calls(0, len(p.tokens)))...)
	if len(problems) > 0 {
		return problems
	}
	for i := range 4 {
		verdict = i&1 == 0
		if err := try(compiled, trial{differ: i&2 != 0}); err != nil {
			add("fails: %s", finding.Quoted(err.Error()))
			break
		}
	}
	return problems
}

// compile turns a panic of govaluate's into an error.
func compile(expr string, functions map[string]govaluate.ExpressionFunction) (compiled *govaluate.EvaluableExpression, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%v", r)
		}
	}()
	return govaluate.NewEvaluableExpressionWithFunctions(expr, functions)
}

// A Compiler compiles parts of a matcher, with functions of its own.
type Compiler struct {
	model  *Model
	tokens []govaluate.ExpressionToken
}

// Compiler returns a compiler with functions for each that the matcher calls.
func (m *Model) Compiler(functions map[string]govaluate.ExpressionFunction) (*Compiler, error) {
	matcher, err := compile(m.Matcher, functions)
	if err != nil {
		return nil, fmt.Errorf("compile the matcher of %s: %w", m.File, err)
	}
	return &Compiler{m, matcher.Tokens()}, nil
}

// Compile compiles a part.
func (c *Compiler) Compile(p *Part) (*govaluate.EvaluableExpression, error) {
	compiled, err := govaluate.NewEvaluableExpressionFromTokens(asParsed(c.tokens[p.From:p.To]))
	if err != nil {
		return nil, fmt.Errorf("compile %q of the matcher of %s: %w", p.Source, c.model.File, err)
	}
	return compiled, nil
}

// CheckSubrule says what is wrong with a rule of the policy, as eval would
// evaluate it. A rule cannot eval: it could go on for ever.
func (m *Model) CheckSubrule(rule string) error {
	if problems := expressionProblems(m, util.EscapeAssertion(rule), rule, false); len(problems) > 0 {
		return errors.New(problems[0])
	}
	return nil
}

// knownFunctions are the functions of a matcher, or of a rule, which may ask fewer.
// They check their arguments and then give the verdict.
func knownFunctions(m *Model, mayEval bool, verdict *bool) map[string]govaluate.ExpressionFunction {
	casbins := casbinmodel.LoadFunctionMap()
	functions := casbins.GetFunctions()
	for name, function := range functions {
		functions[name] = func(args ...any) (any, error) {
			result, err := function(args...)
			if _, ok := result.(bool); ok && err == nil {
				return *verdict, nil
			}
			return result, err
		}
	}
	takes := func(name string, count int) {
		functions[name] = func(args ...any) (any, error) {
			if len(args) != count {
				return nil, fmt.Errorf("%s takes %d arguments, not %d", name, count, len(args))
			}
			for _, a := range args {
				if _, ok := a.(string); !ok {
					return nil, fmt.Errorf("%s takes strings, not %T", name, a)
				}
			}
			return *verdict, nil
		}
	}
	for name, count := range m.Roles {
		takes(name, count)
	}
	if mayEval {
		takes("eval", 1)
		takes(TimeMatch, 2)
	}
	return functions
}

// A trial has a value for each name, the same for r and p or another one. It is
// an address, which all functions take, as a pattern too.
type trial struct{ differ bool }

// Get is govaluate's.
func (t trial) Get(name string) (any, error) {
	if t.differ && strings.HasPrefix(name, "p_") {
		return "192.0.2.2", nil
	}
	return "192.0.2.1", nil
}

// try evaluates an expression, to find what fails whoever asks.
func try(compiled *govaluate.EvaluableExpression, t trial) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%v", r)
		}
	}()
	result, err := compiled.Eval(t)
	if err != nil {
		return err
	}
	switch result.(type) {
	case bool, float64:
		return nil
	}
	return errors.New("it gives neither true nor false")
}

// tokenProblems finds what govaluate passes over: a name that nothing defines
// is an error only when it is reached, and after a complete expression the rest
// is ignored, so a forgotten && or a ) too early lets everybody in.
func tokenProblems(m *Model, tokens []govaluate.ExpressionToken) []string {
	var problems []string
	add := func(format string, args ...any) { problems = append(problems, fmt.Sprintf(format, args...)) }
	depth := 0
	for i, t := range tokens {
		switch t.Kind {
		case govaluate.CLAUSE:
			depth++
		case govaluate.CLAUSE_CLOSE:
			if depth--; depth < 0 {
				add("a ) closes nothing: everything after it would count for nothing")
				return problems
			}
		case govaluate.VARIABLE:
			name := fmt.Sprint(t.Value)
			field, isRequest := strings.CutPrefix(name, "r_")
			if isRequest && !slices.Contains(m.Request, field) {
				add("r.%s is not in request_definition", finding.Quoted(field))
			}
			field, isPolicy := strings.CutPrefix(name, "p_")
			if isPolicy && !slices.Contains(m.Policy, field) {
				add("p.%s is not in policy_definition", finding.Quoted(field))
			}
			if !isRequest && !isPolicy {
				add("%q is neither a field of r or p nor a literal in quotes", finding.Shorten(name))
			}
		case govaluate.ACCESSOR:
			add("%q has a field: every value of a request is a string without fields", finding.Shorten(fmt.Sprint(t.Value)))
		case govaluate.TIME:
			add("a literal that looks like a date is read as a number, which equals no string")
		}
		if i > 0 && endsOperand(tokens[i-1].Kind) && beginsOperand(t.Kind) {
			add("an operator such as && is missing before %s: everything after it would count for nothing", describe(t))
		}
	}
	return problems
}

// callProblems finds calls that a trial may not reach: roles asked with a domain
// too many or too few, patterns in which the client has a say, and eval of
// something else than a field of p, which could come from the client or which
// Casbin would not find.
func callProblems(m *Model, expr string, calls []Call) []string {
	var problems []string
	var evals []string
	for _, c := range calls {
		takes, isRole := m.Roles[c.Function]
		switch {
		case isRole && len(c.Operands) != takes:
			problems = append(problems, fmt.Sprintf("%s takes %d arguments, not %d", c.Function, takes, len(c.Operands)))
		case takesPattern(c.Function) && slices.ContainsFunc(c.Operands[1:], func(p Part) bool { return len(p.Requests) > 0 }):
			problems = append(problems, fmt.Sprintf("the pattern of %s comes from the client: put r first and p second, and join nothing of r to a pattern", c.Function))
		case c.tooLarge() != nil:
			problems = append(problems, fmt.Sprintf("the pattern %q %s", finding.Shorten(c.Operands[1].Text), c.tooLarge()))
		case c.Function == TimeMatch && slices.ContainsFunc(c.Operands, func(p Part) bool { return p.Column < 0 && p.Text != "_" }):
			problems = append(problems, fmt.Sprintf(`%s takes two fields of p, a beginning and an end, of which one may be "_"`, TimeMatch))
		case c.Function == TimeMatch && len(c.Operands) == 2 && (m.called(c.Operands[0], "until") || m.called(c.Operands[1], "from")):
			problems = append(problems, fmt.Sprintf("%s takes the beginning first, then the end: a line would begin when it is to end", TimeMatch))
		case c.Function == "eval" && len(c.Operands) == 1 && c.Operands[0].Column >= 0:
			evals = append(evals, "p_"+m.Policy[c.Operands[0].Column])
		case c.Function == "eval":
			evals = append(evals, "")
		}
	}
	if !slices.Equal(evals, util.GetEvalValue(expr)) { // Casbin reads the text
		problems = append(problems, evalProblem)
	}
	slices.Sort(problems)
	return slices.Compact(problems)
}

// Literal returns the pattern of a call that has one of its own, and its function.
func (c *Call) Literal() (compares pattern.Func, text string, ok bool) {
	function := c.Function
	if function == "!~" {
		function = "=~"
	}
	compares, ok = pattern.ByName(function)
	if !ok || compares == pattern.Equal() || len(c.Operands) != 2 || c.Operands[1].Text == "" {
		return pattern.Func{}, "", false
	}
	return compares, c.Operands[1].Text, true
}

// tooLarge says that a pattern of the call's own is too large. Whether it is one at
// all, a trial tells.
func (c *Call) tooLarge() error {
	if compares, text, ok := c.Literal(); ok {
		if large := new(*pattern.TooLargeError); errors.As(compares.Check(text), large) {
			return *large
		}
	}
	return nil
}

const evalProblem = "eval takes one field of p: anything else could come from the client"

// takesPattern reports whether the second operand of a function is a pattern.
func takesPattern(name string) bool {
	_, ok := pattern.Checker(name)
	return ok || name == "!~" || strings.HasPrefix(name, "keyGet")
}

func endsOperand(k govaluate.TokenKind) bool {
	switch k {
	case govaluate.NUMERIC, govaluate.BOOLEAN, govaluate.STRING, govaluate.PATTERN, govaluate.TIME, govaluate.VARIABLE, govaluate.ACCESSOR, govaluate.CLAUSE_CLOSE:
		return true
	}
	return false
}

func beginsOperand(k govaluate.TokenKind) bool {
	switch k {
	case govaluate.NUMERIC, govaluate.BOOLEAN, govaluate.STRING, govaluate.PATTERN, govaluate.TIME, govaluate.VARIABLE, govaluate.ACCESSOR, govaluate.FUNCTION, govaluate.CLAUSE, govaluate.PREFIX:
		return true
	}
	return false
}

func describe(t govaluate.ExpressionToken) string {
	if t.Kind == govaluate.CLAUSE {
		return `"("`
	}
	return fmt.Sprintf("%q", finding.Shorten(fmt.Sprint(t.Value)))
}

// called reports whether an operand is the column of a name.
func (m *Model) called(operand Part, name string) bool {
	return operand.Column >= 0 && m.Policy[operand.Column] == name
}
