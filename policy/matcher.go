package policy

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/casbin/casbin/v2/util"
	"github.com/casbin/govaluate"
)

// A part is a piece of a matcher, and what it asks.
type part struct {
	from, to  int      // its tokens
	source    string   // as a model has it
	requests  []string // the fields of r that it asks, each once
	columns   []int    // those of p
	evaluates bool     // rules of the policy, which may ask for anything
	address   bool     // it asks ipMatch, which fails where the request has none
}

// asks reports whether a part asks a field of r.
func (p *part) asks(field string) bool { return slices.Contains(p.requests, field) }

// A term is a matcher taken apart at its &&, || and !. What is left between
// them are atoms.
type term struct {
	part
	op   operator
	kids []*term
	atom *atom
}

// operands returns what an operator joins: the term alone where it is of
// another.
func (c *term) operands(op operator) []*term {
	if c.op == op {
		return c.kids
	}
	return []*term{c}
}

type operator uint8

const (
	opAtom operator = iota
	opAnd
	opOr
	opNot
)

// An atomKind says what the index and the evaluator understand of an atom.
type atomKind uint8

const (
	// atomOpaque is left to govaluate, for each row.
	atomOpaque atomKind = iota
	// atomRequest looks at the request only: govaluate, once a decision.
	atomRequest
	// atomEqual is r.x == p.y.
	atomEqual
	// atomConstant is p.y == "text".
	atomConstant
	// atomRole is g(r.x, p.y), or with a domain g(r.x, p.y, r.z) or g(r.x, p.y, p.z).
	atomRole
	// atomPattern is a function of Casbin's that matches r.x against the
	// pattern p.y, or r.x =~ p.y.
	atomPattern
)

// An atom is a part of a matcher without &&, || and !. Fields are columns, those
// of the request and of the policy definition.
type atom struct {
	part
	kind   atomKind
	number int // counts the atoms of the matcher
	// function is a call's, or one of ==, !=, =~ and !~; operands are what it
	// takes, none where the atom is something else. Of atomPattern it is always
	// a function of Casbin's.
	function string
	operands []part
	request  int    // the field of r
	policy   int    // the field of p
	text     string // of atomConstant
	// domain says where the third argument of atomRole comes from: a field of r or p.
	domain      domainOrigin
	domainField int
}

type domainOrigin uint8

const (
	domainNone domainOrigin = iota
	domainRequest
	domainPolicy
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
	def    *definition
	tokens []govaluate.ExpressionToken
	names  map[int]string // of the functions, by their token
	atoms  []*atom
}

// A functionCall is one call of a function in a matcher, or in a rule of the policy,
// however deep it stands there.
type functionCall struct {
	function  string
	arguments []part
	// texts are what each argument is whoever asks ("a" + "b"), or else the
	// literals in it.
	texts [][]string
}

// parseMatcher takes the matcher of a definition apart, which must have been
// found to compile. The atoms are returned in their order as well.
func parseMatcher(def *definition) (root *term, atoms []*atom, calls []functionCall, err error) {
	p, err := newMatcherParser(def, def.matcher, def.evaluates)
	if err != nil {
		return nil, nil, nil, err
	}
	root = p.parse(0, len(p.tokens))
	return root, p.atoms, p.calls(), nil
}

// ruleCalls returns the calls in a rule of the policy, as it is written.
func ruleCalls(def *definition, rule string) ([]functionCall, error) {
	p, err := newMatcherParser(def, util.EscapeAssertion(rule), false)
	if err != nil {
		return nil, err
	}
	return p.calls(), nil
}

func newMatcherParser(def *definition, expr string, mayEval bool) (*matcherParser, error) {
	verdict := true
	tokens, names, err := namedTokens(expr, knownFunctions(def, mayEval, &verdict))
	if err != nil {
		return nil, err
	}
	return &matcherParser{def: def, tokens: tokens, names: names}, nil
}

// calls returns every call, in the order of their functions.
func (p *matcherParser) calls() []functionCall {
	var calls []functionCall
	for i := range p.tokens {
		name, ok := p.names[i]
		if !ok {
			continue
		}
		c := functionCall{function: name}
		for _, span := range argumentSpans(p.tokens, i) {
			c.arguments = append(c.arguments, p.part(span[0], span[1]))
			c.texts = append(c.texts, p.texts(span[0], span[1]))
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
	expr, err := govaluate.NewEvaluableExpressionFromTokens(asParsed(p.tokens[i:j]))
	if err != nil {
		return literals
	}
	if text, err := expr.Evaluate(nil); err == nil {
		return []string{fmt.Sprint(text)}
	}
	return literals
}

// namedTokens returns the tokens of an expression, and the names of its
// functions by their token, which holds a function and not its name.
func namedTokens(expr string, functions map[string]govaluate.ExpressionFunction) ([]govaluate.ExpressionToken, map[int]string, error) {
	tellers := map[string]govaluate.ExpressionFunction{}
	for name := range functions {
		tellers[name] = func(...any) (any, error) { return name, nil }
	}
	compiled, err := compile(expr, tellers)
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
func (p *matcherParser) parse(i, j int) *term {
	for j-i > 2 && p.closes(i, j) == j-1 {
		i, j = i+1, j-1 // parentheses around everything
	}
	t := &term{part: p.part(i, j)}
	ors, ok := p.split(i, j, "||")
	ands, _ := p.split(i, j, "&&")
	switch {
	case ok && len(ors) > 1:
		t.op, t.kids = opOr, p.parseAll(ors)
	case ok && len(ands) > 1:
		t.op, t.kids = opAnd, p.parseAll(ands)
	case ok && p.tokens[i].Kind == govaluate.PREFIX && p.tokens[i].Value == "!" && p.isValue(i+1, j):
		t.op, t.kids = opNot, []*term{p.parse(i+1, j)}
	default:
		t.atom = &atom{part: t.part, number: len(p.atoms)}
		p.classify(t.atom)
		p.atoms = append(p.atoms, t.atom)
	}
	return t
}

func (p *matcherParser) parseAll(spans [][2]int) []*term {
	kids := make([]*term, len(spans))
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
func (p *matcherParser) part(i, j int) part {
	out := part{from: i, to: j, source: p.source(i, j)}
	for k, t := range p.tokens[i:j] {
		if f := p.requestField(t); f >= 0 && !out.asks(p.def.requestFields[f]) {
			out.requests = append(out.requests, p.def.requestFields[f])
		}
		if f := p.policyField(t); f >= 0 && !slices.Contains(out.columns, f) {
			out.columns = append(out.columns, f)
		}
		out.evaluates = out.evaluates || t.Kind == govaluate.FUNCTION && p.names[i+k] == "eval"
		out.address = out.address || t.Kind == govaluate.FUNCTION && p.names[i+k] == "ipMatch"
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
func (p *matcherParser) operands(i, j int) (function string, operands []part) {
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
func (p *matcherParser) classify(a *atom) {
	a.function, a.operands = p.operands(a.from, a.to)
	if len(a.columns) == 0 {
		a.kind = atomRequest
	}
	if len(a.columns) == 0 || len(a.operands) < 2 {
		return
	}
	left, right := p.value(a.operands[0]), p.value(a.operands[1])
	if a.function == "==" && p.policyField(left) >= 0 {
		left, right = right, left
	}
	a.request, a.policy = p.requestField(left), p.policyField(right)
	if a.policy < 0 {
		return
	}
	_, isRole := p.def.roles[a.function]
	switch {
	case a.function == "==" && left.Kind == govaluate.STRING:
		a.kind, a.text = atomConstant, fmt.Sprint(left.Value)
	case a.request < 0:
	case a.function == "==":
		a.kind = atomEqual
	case a.function == "=~":
		a.kind, a.function = atomPattern, "regexMatch"
	case isPatternFunction(a.function) && len(a.operands) == 2:
		a.kind = atomPattern
	case isRole && len(a.operands) == 2:
		a.kind = atomRole
	case isRole && len(a.operands) == 3:
		domain := p.value(a.operands[2])
		if a.domainField = p.requestField(domain); a.domainField >= 0 {
			a.kind, a.domain = atomRole, domainRequest
		} else if a.domainField = p.policyField(domain); a.domainField >= 0 {
			a.kind, a.domain = atomRole, domainPolicy
		}
	}
}

// value returns the only token of an operand, or none.
func (p *matcherParser) value(operand part) govaluate.ExpressionToken {
	if operand.to-operand.from != 1 {
		return govaluate.ExpressionToken{}
	}
	return p.tokens[operand.from]
}

// requestField returns the column of a variable r_x, or -1.
func (p *matcherParser) requestField(t govaluate.ExpressionToken) int {
	return fieldOf(t, "r_", p.def.requestFields)
}

// policyField returns the column of a variable p_x, or -1.
func (p *matcherParser) policyField(t govaluate.ExpressionToken) int {
	return fieldOf(t, "p_", p.def.policyFields)
}

func fieldOf(t govaluate.ExpressionToken, prefix string, fields []string) int {
	name, ok := t.Value.(string)
	if !ok || t.Kind != govaluate.VARIABLE || !strings.HasPrefix(name, prefix) {
		return -1
	}
	return slices.Index(fields, name[len(prefix):])
}

// A literal is an atom, or its negation.
type literal struct {
	*atom
	negated bool
}

// maxConjunctions bounds the normal form of a matcher.
const maxConjunctions = 64

// conjunctions brings a term, or its negation, into disjunctive normal
// form. It is false where that would take more than maxConjunctions.
func (c *term) conjunctions(negate bool) ([][]literal, bool) {
	switch {
	case c.op == opAtom:
		return [][]literal{{{c.atom, negate}}}, true
	case c.op == opNot:
		return c.kids[0].conjunctions(!negate)
	case (c.op == opOr) != negate: // !(a && b) is !a || !b
		var union [][]literal
		for _, kid := range c.kids {
			terms, ok := kid.conjunctions(negate)
			if !ok || len(union)+len(terms) > maxConjunctions {
				return nil, false
			}
			union = append(union, terms...)
		}
		return union, true
	}
	product := [][]literal{nil}
	for _, kid := range c.kids {
		terms, ok := kid.conjunctions(negate)
		if !ok || len(product)*len(terms) > maxConjunctions {
			return nil, false
		}
		var next [][]literal
		for _, left := range product {
			for _, right := range terms {
				next = append(next, slices.Concat(left, right))
			}
		}
		product = next
	}
	return product, true
}
