package model

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"securefiles/policy/internal/finding"

	"github.com/casbin/casbin/v2/util"
	"github.com/casbin/govaluate"
)

// AsParsed returns tokens as they were before govaluate compiled the patterns
// among them: it refuses to take some of those again.
func AsParsed(tokens []govaluate.ExpressionToken) []govaluate.ExpressionToken {
	tokens = slices.Clone(tokens)
	for i, t := range tokens {
		if pattern, ok := t.Value.(*regexp.Regexp); ok {
			tokens[i] = govaluate.ExpressionToken{Kind: govaluate.STRING, Value: pattern.String()}
		}
	}
	return tokens
}

// A Part is a piece of a matcher, and what it asks.
type Part struct {
	From, To  int      // its tokens
	Source    string   // as a model has it
	Requests  []string // the fields of r that it asks, each once
	Columns   []int    // those of p
	Evaluates bool     // rules of the policy, which may ask for anything
	Address   bool     // it asks ipMatch, which fails where the request has none
}

// Asks reports whether a part asks a field of r.
func (p *Part) Asks(field string) bool { return slices.Contains(p.Requests, field) }

// A Term is a matcher taken apart at its &&, || and !. What is left between
// them are atoms.
type Term struct {
	Part
	Op   Operator
	Kids []*Term
	Atom *Atom
}

// operands returns what an operator joins: the term alone where it is of
// another.
func (c *Term) operands(op Operator) []*Term {
	if c.Op == op {
		return c.Kids
	}
	return []*Term{c}
}

// An Operator joins terms.
type Operator uint8

const (
	Leaf Operator = iota
	And
	Or
	Not
)

// An Kind says what the index and the evaluator understand of an atom.
type Kind uint8

const (
	// atomOpaque is left to govaluate, for each row.
	Opaque Kind = iota
	// atomRequest looks at the request only: govaluate, once a decision.
	RequestOnly
	// atomEqual is r.x == p.y.
	Equal
	// atomConstant is p.y == "text".
	Constant
	// atomRole is g(r.x, p.y), or with a domain g(r.x, p.y, r.z) or g(r.x, p.y, p.z).
	Role
	// atomPattern is a function of Casbin's that matches r.x against the
	// pattern p.y, or r.x =~ p.y.
	Pattern
)

// An Atom is a part of a matcher without &&, || and !. Fields are columns, those
// of the request and of the policy definition.
type Atom struct {
	Part
	Kind   Kind
	Number int // counts the atoms of the matcher
	// function is a call's, or one of ==, !=, =~ and !~; operands are what it
	// takes, none where the atom is something else. Of atomPattern it is always
	// a function of Casbin's.
	Function string
	Operands []Part
	Request  int    // the field of r
	Policy   int    // the field of p
	Text     string // of atomConstant
	// domain says where the third argument of atomRole comes from: a field of r or p.
	Domain      domainOrigin
	DomainField int
}

type domainOrigin uint8

const (
	DomainNone domainOrigin = iota
	DomainRequest
	DomainPolicy
)

// patternFunctions are those that take a path and a pattern.
func isPatternFunction(name string) bool {
	switch name {
	case "keyMatch", "keyMatch2", "keyMatch3", "keyMatch4", "keyMatch5", "globMatch", "regexMatch":
		return true
	}
	return false
}

// A matcherParser splits the tokens of a matcher at its operators, in the order
// in which govaluate binds them: ! to one value, && before ||, everything else
// inside the operands of these. Whatever it does not know becomes an opaque atom.
type matcherParser struct {
	model  *Model
	tokens []govaluate.ExpressionToken
	names  map[int]string // of the functions, by their token
	atoms  []*Atom
}

// A Call is one call of a function in a matcher, or in a rule of the policy,
// however deep it stands there.
type Call struct {
	Function  string
	Arguments []Part
	// texts are what each argument is whoever asks ("a" + "b"), or else the
	// literals in it.
	Texts [][]string
}

// ParseMatcher takes the matcher of a definition apart, which must have been
// found to compile. The atoms are returned in their order as well.
func ParseMatcher(m *Model) (root *Term, atoms []*Atom, calls []Call, err error) {
	p, err := newMatcherParser(m, m.Matcher, m.Evaluates)
	if err != nil {
		return nil, nil, nil, err
	}
	root = p.parse(0, len(p.tokens))
	return root, p.atoms, p.calls(), nil
}

// SubruleCalls returns the calls in a rule of the policy, as it is written.
func SubruleCalls(m *Model, rule string) ([]Call, error) {
	p, err := newMatcherParser(m, util.EscapeAssertion(rule), false)
	if err != nil {
		return nil, err
	}
	return p.calls(), nil
}

func newMatcherParser(m *Model, expr string, mayEval bool) (*matcherParser, error) {
	verdict := true
	tokens, names, err := NamedTokens(expr, KnownFunctions(m, mayEval, &verdict))
	if err != nil {
		return nil, err
	}
	return &matcherParser{model: m, tokens: tokens, names: names}, nil
}

// calls returns every call, in the order of their functions.
func (p *matcherParser) calls() []Call {
	var calls []Call
	for i := range p.tokens {
		name, ok := p.names[i]
		if !ok {
			continue
		}
		c := Call{Function: name}
		for _, span := range argumentSpans(p.tokens, i) {
			c.Arguments = append(c.Arguments, p.part(span[0], span[1]))
			c.Texts = append(c.Texts, p.texts(span[0], span[1]))
		}
		calls = append(calls, c)
	}
	return calls
}

// texts returns the text that tokens are which ask nothing, or else the literals
// among them.
func (p *matcherParser) texts(i, j int) []string {
	var literals []string
	asks := false
	for _, t := range p.tokens[i:j] {
		switch t.Kind {
		case govaluate.STRING:
			literals = append(literals, fmt.Sprint(t.Value))
		case govaluate.VARIABLE, govaluate.ACCESSOR, govaluate.FUNCTION:
			asks = true
		}
	}
	if asks || len(literals) < 2 {
		return literals
	}
	expr, err := govaluate.NewEvaluableExpressionFromTokens(AsParsed(p.tokens[i:j]))
	if err != nil {
		return literals
	}
	if text, err := expr.Evaluate(nil); err == nil {
		return []string{fmt.Sprint(text)}
	}
	return literals
}

// NamedTokens returns the tokens of an expression, and the names of its
// functions by their token, which holds a function and not its name.
func NamedTokens(expr string, functions map[string]govaluate.ExpressionFunction) ([]govaluate.ExpressionToken, map[int]string, error) {
	tellers := map[string]govaluate.ExpressionFunction{}
	for name := range functions {
		tellers[name] = func(...any) (any, error) { return name, nil }
	}
	compiled, err := Compile(expr, tellers)
	if err != nil {
		return nil, nil, err
	}
	names := map[int]string{}
	for i, t := range compiled.Tokens() {
		if t.Kind != govaluate.FUNCTION {
			continue
		}
		function, ok := t.Value.(govaluate.ExpressionFunction)
		if !ok {
			return nil, nil, fmt.Errorf("a function is a %T", t.Value)
		}
		name, _ := function() // it cannot fail
		names[i] = fmt.Sprint(name)
	}
	return compiled.Tokens(), names, nil
}

// parse reads the tokens from i up to j.
func (p *matcherParser) parse(i, j int) *Term {
	for j-i > 2 && p.closes(i, j) == j-1 {
		i, j = i+1, j-1 // parentheses around everything
	}
	t := &Term{Part: p.part(i, j)}
	ors, ok := p.split(i, j, "||")
	ands, _ := p.split(i, j, "&&")
	switch {
	case ok && len(ors) > 1:
		t.Op, t.Kids = Or, p.parseAll(ors)
	case ok && len(ands) > 1:
		t.Op, t.Kids = And, p.parseAll(ands)
	case ok && p.tokens[i].Kind == govaluate.PREFIX && p.tokens[i].Value == "!" && p.isValue(i+1, j):
		t.Op, t.Kids = Not, []*Term{p.parse(i+1, j)}
	default:
		t.Atom = &Atom{Part: t.Part, Number: len(p.atoms)}
		p.classify(t.Atom)
		p.atoms = append(p.atoms, t.Atom)
	}
	return t
}

func (p *matcherParser) parseAll(spans [][2]int) []*Term {
	kids := make([]*Term, len(spans))
	for k, s := range spans {
		kids[k] = p.parse(s[0], s[1])
	}
	return kids
}

// split returns what stands between the operators of one kind outside
// parentheses. It is false where a ternary or a list swallows the whole, or an
// operand is empty.
func (p *matcherParser) split(i, j int, operator string) (spans [][2]int, ok bool) {
	depth, begin := 0, i
	for k := i; k < j; k++ {
		switch t := p.tokens[k]; {
		case t.Kind == govaluate.CLAUSE:
			depth++
		case t.Kind == govaluate.CLAUSE_CLOSE:
			depth--
		case depth > 0:
		case t.Kind == govaluate.TERNARY || t.Kind == govaluate.SEPARATOR:
			return nil, false
		case t.Kind == govaluate.LOGICALOP && t.Value == operator:
			if k == begin {
				return nil, false
			}
			spans, begin = append(spans, [2]int{begin, k}), k+1
		}
	}
	return append(spans, [2]int{begin, j}), begin < j
}

// closes returns the place of the parenthesis that closes the one at i, or -1.
func (p *matcherParser) closes(i, j int) int {
	if p.tokens[i].Kind != govaluate.CLAUSE {
		return -1
	}
	depth := 0
	for k := i; k < j; k++ {
		switch p.tokens[k].Kind {
		case govaluate.CLAUSE:
			depth++
		case govaluate.CLAUSE_CLOSE:
			if depth--; depth == 0 {
				return k
			}
		}
	}
	return -1
}

// isValue reports whether ! in front of these tokens negates all of them: one
// value, one call, or parentheses. In !a == b it negates a.
func (p *matcherParser) isValue(i, j int) bool {
	switch {
	case i >= j || p.tokens[i].Kind == govaluate.PREFIX:
		return false
	case j-i == 1:
		return true
	case p.tokens[i].Kind == govaluate.FUNCTION:
		i++
	}
	return i < j && p.closes(i, j) == j-1
}

// part describes the tokens from i up to j.
func (p *matcherParser) part(i, j int) Part {
	out := Part{From: i, To: j, Source: p.source(i, j)}
	for k, t := range p.tokens[i:j] {
		if f := p.requestField(t); f >= 0 && !out.Asks(p.model.Request[f]) {
			out.Requests = append(out.Requests, p.model.Request[f])
		}
		if f := p.policyField(t); f >= 0 && !slices.Contains(out.Columns, f) {
			out.Columns = append(out.Columns, f)
		}
		out.Evaluates = out.Evaluates || t.Kind == govaluate.FUNCTION && p.names[i+k] == "eval"
		out.Address = out.Address || t.Kind == govaluate.FUNCTION && p.names[i+k] == "ipMatch"
	}
	return out
}

// source writes tokens as a model has them.
func (p *matcherParser) source(i, j int) string {
	var b strings.Builder
	tight := true // no blank before the next
	for ; i < j; i++ {
		t := p.tokens[i]
		text := fmt.Sprint(t.Value)
		switch t.Kind {
		case govaluate.VARIABLE:
			text = strings.Replace(text, "_", ".", 1)
		case govaluate.FUNCTION:
			text = p.names[i]
		case govaluate.STRING, govaluate.PATTERN:
			text = strconv.Quote(text)
		case govaluate.CLAUSE:
			text = "("
			tight = tight || p.tokens[i-1].Kind == govaluate.FUNCTION
		case govaluate.CLAUSE_CLOSE:
			text, tight = ")", true
		case govaluate.SEPARATOR:
			text, tight = ",", true
		}
		if !tight {
			b.WriteByte(' ')
		}
		b.WriteString(text)
		tight = t.Kind == govaluate.CLAUSE || t.Kind == govaluate.PREFIX
	}
	return b.String()
}

// operands takes a call apart that has no parentheses inside, or a comparison of
// two such operands. Of anything else there are none.
func (p *matcherParser) operands(i, j int) (function string, operands []Part) {
	call := p.tokens[i].Kind == govaluate.FUNCTION && p.closes(i+1, j) == j-1
	if call {
		function, i, j = p.names[i], i+2, j-1
	}
	for k := i; k < j; k++ {
		switch t := p.tokens[k]; {
		case t.Kind == govaluate.CLAUSE || t.Kind == govaluate.TERNARY || t.Kind == govaluate.SEPARATOR && !call:
			return "", nil
		case t.Kind == govaluate.COMPARATOR && !call:
			name, _ := t.Value.(string)
			if function != "" || !slices.Contains([]string{"==", "!=", "=~", "!~"}, name) {
				return "", nil
			}
			function = name
			fallthrough
		case t.Kind == govaluate.SEPARATOR:
			operands, i = append(operands, p.part(i, k)), k+1
		}
	}
	if function == "" {
		return "", nil
	}
	return function, append(operands, p.part(i, j))
}

// classify knows r.x == p.y, p.y == "text", r.x =~ p.y, f(r.x, p.y) and
// f(r.x, p.y, z).
func (p *matcherParser) classify(a *Atom) {
	a.Function, a.Operands = p.operands(a.From, a.To)
	if len(a.Columns) == 0 {
		a.Kind = RequestOnly
	}
	if len(a.Columns) == 0 || len(a.Operands) < 2 {
		return
	}
	left, right := p.value(a.Operands[0]), p.value(a.Operands[1])
	if a.Function == "==" && p.policyField(left) >= 0 {
		left, right = right, left
	}
	a.Request, a.Policy = p.requestField(left), p.policyField(right)
	if a.Policy < 0 {
		return
	}
	_, isRole := p.model.Roles[a.Function]
	switch {
	case a.Function == "==" && left.Kind == govaluate.STRING:
		a.Kind, a.Text = Constant, fmt.Sprint(left.Value)
	case a.Request < 0:
	case a.Function == "==":
		a.Kind = Equal
	case a.Function == "=~":
		a.Kind, a.Function = Pattern, "regexMatch"
	case isPatternFunction(a.Function) && len(a.Operands) == 2:
		a.Kind = Pattern
	case isRole && len(a.Operands) == 2:
		a.Kind = Role
	case isRole && len(a.Operands) == 3:
		domain := p.value(a.Operands[2])
		if a.DomainField = p.requestField(domain); a.DomainField >= 0 {
			a.Kind, a.Domain = Role, DomainRequest
		} else if a.DomainField = p.policyField(domain); a.DomainField >= 0 {
			a.Kind, a.Domain = Role, DomainPolicy
		}
	}
}

// value returns the only token of an operand, or none.
func (p *matcherParser) value(operand Part) govaluate.ExpressionToken {
	if operand.To-operand.From != 1 {
		return govaluate.ExpressionToken{}
	}
	return p.tokens[operand.From]
}

// requestField returns the column of a variable r_x, or -1.
func (p *matcherParser) requestField(t govaluate.ExpressionToken) int {
	return fieldOf(t, "r_", p.model.Request)
}

// policyField returns the column of a variable p_x, or -1.
func (p *matcherParser) policyField(t govaluate.ExpressionToken) int {
	return fieldOf(t, "p_", p.model.Policy)
}

func fieldOf(t govaluate.ExpressionToken, prefix string, fields []string) int {
	name, ok := t.Value.(string)
	if !ok || t.Kind != govaluate.VARIABLE || !strings.HasPrefix(name, prefix) {
		return -1
	}
	return slices.Index(fields, name[len(prefix):])
}

// A Literal is an atom, or its negation.
type Literal struct {
	*Atom
	Negated bool
}

// maxConjunctions bounds the normal form of a matcher.
const maxConjunctions = 64

// Conjunctions brings a term, or its negation, into disjunctive normal
// form. It is false where that would take more than maxConjunctions.
func (c *Term) Conjunctions(negate bool) ([][]Literal, bool) {
	switch {
	case c.Op == Leaf:
		return [][]Literal{{{c.Atom, negate}}}, true
	case c.Op == Not:
		return c.Kids[0].Conjunctions(!negate)
	case (c.Op == Or) != negate: // !(a && b) is !a || !b
		var union [][]Literal
		for _, kid := range c.Kids {
			terms, ok := kid.Conjunctions(negate)
			if !ok || len(union)+len(terms) > maxConjunctions {
				return nil, false
			}
			union = append(union, terms...)
		}
		return union, true
	}
	product := [][]Literal{nil}
	for _, kid := range c.Kids {
		terms, ok := kid.Conjunctions(negate)
		if !ok || len(product)*len(terms) > maxConjunctions {
			return nil, false
		}
		var next [][]Literal
		for _, left := range product {
			for _, right := range terms {
				next = append(next, slices.Concat(left, right))
			}
		}
		product = next
	}
	return product, true
}

func DescribeConjunction(literals []Literal) string {
	var parts []string
	for _, l := range literals {
		source := l.Source
		if l.Negated {
			source = "!(" + source + ")"
		}
		parts = append(parts, source)
	}
	return "`" + finding.Shorten(strings.Join(parts, " && ")) + "`"
}
