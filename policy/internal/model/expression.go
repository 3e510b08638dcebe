package model

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"securefiles/policy/internal/finding"

	casbinmodel "github.com/casbin/casbin/v2/model"
	"github.com/casbin/casbin/v2/util"
	"github.com/casbin/govaluate"
)

// What to look for in an expression, as Casbin rewrote it.
var (
	// evalCall is an eval of a field of the policy, anyEval any other too.
	EvalCall = regexp.MustCompile(`\beval\(\s*p_(\w+)\s*\)`)
	anyEval  = regexp.MustCompile(`\beval\s*\(`)
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

// ExpressionProblems says what is wrong with a matcher, or with a rule that a
// matcher evaluates: what Casbin or govaluate would pass over, or fail on in
// each request. The source is the expression before Casbin rewrote it.
func ExpressionProblems(m *Model, expr, source string, mayEval bool) []string {
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
	if len(anyEval.FindAllString(expr, -1)) != len(EvalCall.FindAllString(expr, -1)) {
		add("eval takes one field of p: anything else could come from the client")
	}

	verdict := true
	functions := KnownFunctions(m, mayEval, &verdict)
	compiled, err := Compile(expr, functions)
	if err != nil {
		text := err.Error()
		name, undefined := strings.CutPrefix(text, "Undefined function ")
		switch {
		case undefined:
			add("%s is not a function: there are %s, and what [role_definition] defines", finding.Quoted(name), strings.Join(slices.Sorted(maps.Keys(functions)), ", "))
		case strings.HasPrefix(text, "Cannot transition"): // its rest tells addresses in memory
			add("two parts do not fit together: an operator such as && is missing, or one is too many")
		default:
			add("cannot be compiled: %s", finding.Quoted(text))
		}
		return problems
	}
	tokens, names, err := NamedTokens(expr, functions)
	if err != nil { // it compiled before
		add("cannot be compiled: %s", finding.Quoted(err.Error()))
		return problems
	}
	problems = append(problems, tokenProblems(m, tokens)...)
	problems = append(problems, callProblems(m, tokens, names)...)
	problems = append(problems, operatorProblems(tokens)...)
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

// Compile turns a panic of govaluate's into an error.
func Compile(expr string, functions map[string]govaluate.ExpressionFunction) (compiled *govaluate.EvaluableExpression, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%v", r)
		}
	}()
	return govaluate.NewEvaluableExpressionWithFunctions(expr, functions)
}

// KnownFunctions are the functions of an expression, which check their
// arguments and then give the verdict.
func KnownFunctions(m *Model, mayEval bool, verdict *bool) map[string]govaluate.ExpressionFunction {
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
// too many or too few, and patterns made of what the client writes.
func callProblems(m *Model, tokens []govaluate.ExpressionToken, names map[int]string) []string {
	var problems []string
	for i, name := range names {
		arguments := ArgumentsOf(tokens, i)
		takes, isRole := m.Roles[name]
		switch {
		case isRole && len(arguments) != takes:
			problems = append(problems, fmt.Sprintf("%s takes %d arguments, not %d", name, takes, len(arguments)))
		case TakesPattern(name) && slices.ContainsFunc(slices.Concat(arguments[1:]...), isOfRequest):
			problems = append(problems, fmt.Sprintf("the pattern of %s comes from the client: put r first and p second, and join nothing of r to a pattern", name))
		}
	}
	slices.Sort(problems)
	return slices.Compact(problems)
}

// ArgumentsOf returns the arguments of a function, one at least.
func ArgumentsOf(tokens []govaluate.ExpressionToken, function int) [][]govaluate.ExpressionToken {
	var arguments [][]govaluate.ExpressionToken
	for _, span := range argumentSpans(tokens, function) {
		arguments = append(arguments, tokens[span[0]:span[1]])
	}
	return arguments
}

// argumentSpans returns where the arguments of a function begin and end.
func argumentSpans(tokens []govaluate.ExpressionToken, function int) [][2]int {
	var spans [][2]int
	depth, begin := 0, function+2
	for i := function + 1; i < len(tokens); i++ {
		switch kind := tokens[i].Kind; {
		case kind == govaluate.CLAUSE:
			depth++
		case kind == govaluate.CLAUSE_CLOSE:
			if depth--; depth == 0 {
				return append(spans, [2]int{begin, i})
			}
		case kind == govaluate.SEPARATOR && depth == 1:
			spans, begin = append(spans, [2]int{begin, i}), i+1
		}
	}
	return append(spans, [2]int{}) // no call; it does not compile
}

func isOfRequest(t govaluate.ExpressionToken) bool {
	return t.Kind == govaluate.VARIABLE && strings.HasPrefix(fmt.Sprint(t.Value), "r_")
}

// operatorProblems finds patterns of =~ and !~ in which the client has a say.
func operatorProblems(tokens []govaluate.ExpressionToken) []string {
	for i, t := range tokens {
		if operator := fmt.Sprint(t.Value); t.Kind == govaluate.COMPARATOR && (operator == "=~" || operator == "!~") && slices.ContainsFunc(operand(tokens[i+1:]), isOfRequest) {
			return []string{fmt.Sprintf("the pattern of %s comes from the client: put r first and p second, and join nothing of r to a pattern", operator)}
		}
	}
	return nil
}

// operand returns the tokens up to the next operator that binds less than + and
// its like: what stands there belongs to the operand before it.
func operand(tokens []govaluate.ExpressionToken) []govaluate.ExpressionToken {
	depth := 0
	for i, t := range tokens {
		switch t.Kind {
		case govaluate.CLAUSE:
			depth++
		case govaluate.CLAUSE_CLOSE:
			depth--
		case govaluate.LOGICALOP, govaluate.TERNARY, govaluate.SEPARATOR:
			if depth == 0 {
				return tokens[:i]
			}
		}
		if depth < 0 {
			return tokens[:i]
		}
	}
	return tokens
}

// TakesPattern reports whether the second argument of a function is a pattern.
func TakesPattern(name string) bool {
	return isPatternFunction(name) || name == "ipMatch" || strings.HasPrefix(name, "keyGet")
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
