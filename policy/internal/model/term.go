package model

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"securefiles/policy/internal/finding"
	"securefiles/policy/internal/pattern"

	"github.com/casbin/casbin/v2/util"
	"github.com/casbin/govaluate"
)

// asParsed returns tokens as they were before govaluate compiled the patterns
// among them: it refuses to take some of those again.
func asParsed(tokens []govaluate.ExpressionToken) []govaluate.ExpressionToken {
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
	// Calls are the calls and the comparisons in it, however deep, in order.
	Calls []Call
	// What it is where it is one value, perhaps in parentheses: a field of r
	// (or ""), a field of p (or -1), or a text.
	Request string
	Column  int
	Text    string // of a pattern behind =~ too, which is no value
	IsText  bool
	// Texts are what it may be as far as they stand in it: of "a" + "b" that is
	// one, of (r.act == "x" ? "a" : "b") all three.
	Texts []string
}

// Asks reports whether a part asks a field of r.
func (p *Part) Asks(field string) bool { return slices.Contains(p.Requests, field) }

// LooksAtLine reports whether a part asks anything of the policy: what does not
// holds for every line, or for none.
func (p *Part) LooksAtLine() bool { return len(p.Columns) > 0 || p.Evaluates }

// A Call is one call of a function in a matcher, or in a rule of the policy, or
// one comparison, however deep it stands there.
type Call struct {
	// Function is its name, or the operator of a comparison: ==, !=, =~, !~, <, in.
	Function string
	Operands []Part
	at       int // its token
}

// IsComparison reports whether a call is r.sub == p.sub or r.sub != p.sub.
func (c *Call) IsComparison() bool { return c.Function == "==" || c.Function == "!=" }

// A RoleCall is a call of a role function: it asks whether a name has a role. In
// g(r.sub, p.sub) the subject has a role that the line names; in g(p.act, r.act)
// what the line names has the action for a role.
type RoleCall struct {
	Kind       string // of roles: g, g2, …
	Name, Role *Part
	Domain     *Part // nil where there is none
}

// A Term is a matcher taken apart at its &&, || and !. What is left between
// them are atoms.
type Term struct {
	Part
	Op   Operator
	Kids []*Term
	Atom *Atom
}

// MayHoldForNothing reports whether a term may hold where every field of p is
// empty, as Casbin evaluates it where there is no line: r.obj != p.obj does, and
// regexMatch(r.obj, p.obj), for an empty expression matches everything.
func (m *Model) MayHoldForNothing(t *Term) bool {
	mayHold := func(kid *Term) bool { return m.MayHoldForNothing(kid) }
	switch {
	case t.Op == Or:
		return slices.ContainsFunc(t.Kids, mayHold)
	case t.Op == And:
		return !slices.ContainsFunc(t.Kids, func(kid *Term) bool { return !mayHold(kid) })
	case t.Op == Not:
		return true
	case t.Atom.Kind == Constant:
		return t.Atom.Text == ""
	case t.Atom.Kind == Equal, t.Atom.Kind == Role, t.Atom.Kind == Pattern && t.Atom.Function != "regexMatch" && t.Atom.Function != "=~":
		// Nobody and no path is called nothing; an address may be unknown.
		return !slices.Contains([]string{"sub", "obj", "act"}, m.Request[t.Atom.Request])
	}
	return true
}

// Clauses are what must all hold: those that && joins.
func (c *Term) Clauses() []*Term { return c.operands(And) }

// operands returns what an operator joins, parentheses left out: the term alone
// where it is of another.
func (c *Term) operands(op Operator) []*Term {
	if c.Op != op {
		return []*Term{c}
	}
	var all []*Term
	for _, kid := range c.Kids {
		all = append(all, kid.operands(op)...)
	}
	return all
}

// An Operator joins terms.
type Operator uint8

const (
	Leaf Operator = iota
	And
	Or
	Not
)

// A Kind says what the index and the evaluator understand of an atom.
type Kind uint8

const (
	// Opaque is left to govaluate, for each row.
	Opaque Kind = iota
	// RequestOnly looks at the request only: govaluate, once a decision.
	RequestOnly
	// Equal is r.x == p.y.
	Equal
	// Constant is p.y == "text".
	Constant
	// Role is g(r.x, p.y), or with a domain g(r.x, p.y, r.z) or g(r.x, p.y, p.z).
	Role
	// Pattern is a function of Casbin's that matches r.x against the
	// pattern p.y, or r.x =~ p.y.
	Pattern
	// Period is timeMatch(p.x, p.y), of which one may be "_".
	Period
)

// An Atom is a part of a matcher without &&, || and !. Fields are columns, those
// of the request and of the policy definition.
type Atom struct {
	Part
	Kind   Kind
	Number int // counts the atoms of the matcher
	// Function is a call's, or one of ==, !=, =~ and !~; Operands are what it
	// takes, none where the atom is something else.
	Function string
	Operands []Part
	Func     pattern.Func // of Equal and Pattern
	Request  int          // the field of r
	Policy   int          // the field of p
	Text     string       // of Constant
	// Domain says where the third argument of Role comes from: a field of r or p.
	Domain      domainOrigin
	DomainField int
}

type domainOrigin uint8

const (
	DomainNone domainOrigin = iota
	DomainRequest
	DomainPolicy
)

// A matcherParser splits the tokens of a matcher at its operators, in the order
// in which govaluate binds them: ! to one value, && before ||, everything else
// inside the operands of these. Whatever it does not know becomes an opaque atom.
type matcherParser struct {
	model  *Model
	tokens []govaluate.ExpressionToken
	depths []int          // of the tokens: how many parentheses are around it
	names  map[int]string // of the functions, by their token
	atoms  []*Atom
}

// parseMatcher takes the matcher of a model apart, which must have been found to
// compile. The atoms are returned in their order as well.
func parseMatcher(m *Model) (root *Term, atoms []*Atom, err error) {
	p, err := newMatcherParser(m, m.Matcher, true)
	if err != nil {
		return nil, nil, err
	}
	for _, t := range p.tokens {
		if f := p.requestField(t); f >= 0 && m.Request[f] == "sub" {
			m.subjects++
		}
	}
	root = p.parse(0, len(p.tokens))
	return root, p.atoms, nil
}

// ParseSubrule says what a rule of the policy asks, as it is written there.
func ParseSubrule(m *Model, rule string) (Part, error) {
	p, err := newMatcherParser(m, util.EscapeAssertion(rule), false)
	if err != nil {
		return Part{}, err
	}
	return p.part(0, len(p.tokens)), nil
}

func newMatcherParser(m *Model, expr string, mayEval bool) (*matcherParser, error) {
	verdict := true
	tokens, names, err := namedTokens(expr, knownFunctions(m, mayEval, &verdict))
	if err != nil {
		return nil, err
	}
	p := &matcherParser{model: m, tokens: tokens, depths: make([]int, len(tokens)), names: names}
	depth := 0
	for k, t := range tokens {
		if t.Kind == govaluate.CLAUSE_CLOSE {
			depth--
		}
		p.depths[k] = depth
		if t.Kind == govaluate.CLAUSE {
			depth++
		}
	}
	return p, nil
}

// calls returns the calls and comparisons among tokens, in their order.
func (p *matcherParser) calls(i, j int) []Call {
	var calls []Call
	for k := i; k < j; k++ {
		c := Call{at: k}
		var spans [][2]int
		switch t := p.tokens[k]; t.Kind {
		case govaluate.FUNCTION:
			c.Function, spans = p.names[k], p.arguments(k)
		case govaluate.COMPARATOR:
			c.Function, spans = fmt.Sprint(t.Value), [][2]int{{p.operandBefore(k), k}, {k + 1, p.operandBehind(k)}}
		default:
			continue
		}
		for _, span := range spans {
			c.Operands = append(c.Operands, p.part(span[0], span[1]))
		}
		calls = append(calls, c)
	}
	return calls
}

// operandBefore returns where the left operand of a comparison begins, and
// operandBehind where its right one ends: whatever binds closer belongs to it.
func (p *matcherParser) operandBefore(comparator int) int {
	k := comparator
	for k > 0 && !p.isBorder(k-1, p.depths[comparator]) {
		k--
	}
	return k
}

func (p *matcherParser) operandBehind(comparator int) int {
	k := comparator + 1
	for k < len(p.tokens) && !p.isBorder(k, p.depths[comparator]) {
		k++
	}
	return k
}

// isBorder reports whether a token ends an operand of a comparison at a depth.
func (p *matcherParser) isBorder(k, depth int) bool {
	switch p.tokens[k].Kind {
	case govaluate.LOGICALOP, govaluate.TERNARY, govaluate.SEPARATOR, govaluate.COMPARATOR:
		return p.depths[k] == depth
	}
	return p.depths[k] < depth
}

// arguments returns where the arguments of a function begin and end.
func (p *matcherParser) arguments(function int) [][2]int {
	end := p.closes(function+1, len(p.tokens))
	if end < 0 {
		return [][2]int{{}} // no call; it does not compile
	}
	var spans [][2]int
	begin := function + 2
	for k := begin; k < end; k++ {
		if p.tokens[k].Kind == govaluate.SEPARATOR && p.depths[k] == p.depths[function]+1 {
			spans, begin = append(spans, [2]int{begin, k}), k+1
		}
	}
	return append(spans, [2]int{begin, end})
}

// texts are those of a part.
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
func (p *matcherParser) parse(i, j int) *Term {
	i, j = p.inside(i, j)
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
	begin := i
	for k := i; k < j; k++ {
		switch t := p.tokens[k]; {
		case p.depths[k] > p.depths[i]:
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
	if i >= j || p.tokens[i].Kind != govaluate.CLAUSE {
		return -1
	}
	for k := i + 1; k < j; k++ {
		if p.depths[k] == p.depths[i] {
			return k
		}
	}
	return -1
}

// isValue reports whether ! in front of these tokens negates all of them: one
// value, one call, or parentheses. In !a == b it negates a.
func (p *matcherParser) isValue(i, j int) bool {
	if p.tokens[i].Kind == govaluate.FUNCTION {
		i++
	}
	return j-i == 1 || p.closes(i, j) == j-1
}

// part describes the tokens from i up to j.
func (p *matcherParser) part(i, j int) Part {
	out := Part{From: i, To: j, Source: p.source(i, j), Column: -1, Calls: p.calls(i, j), Texts: p.texts(i, j)}
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
	if i, j = p.inside(i, j); j-i != 1 {
		return out
	}
	t := p.tokens[i]
	if f := p.requestField(t); f >= 0 {
		out.Request = p.model.Request[f]
	}
	out.Column = p.policyField(t)
	switch t.Kind {
	case govaluate.STRING:
		out.Text, out.IsText = fmt.Sprint(t.Value), true
	case govaluate.PATTERN: // a text behind =~, compiled
		out.Text = fmt.Sprint(t.Value)
	}
	return out
}

// inside leaves out parentheses around everything.
func (p *matcherParser) inside(i, j int) (int, int) {
	for j-i > 2 && p.closes(i, j) == j-1 {
		i, j = i+1, j-1
	}
	return i, j
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

// operands takes a call apart that has no parentheses inside, but around an
// operand, or a comparison of two such operands. Of anything else there are none.
func (p *matcherParser) operands(i, j int) (function string, operands []Part) {
	var spans [][2]int
	switch {
	case p.tokens[i].Kind == govaluate.FUNCTION && p.closes(i+1, j) == j-1:
		function, spans = p.names[i], p.arguments(i)
	default:
		k := slices.IndexFunc(p.tokens[i:j], func(t govaluate.ExpressionToken) bool {
			return t.Kind == govaluate.COMPARATOR && slices.Contains([]string{"==", "!=", "=~", "!~"}, fmt.Sprint(t.Value))
		}) + i
		if k < i || p.operandBefore(k) != i || p.operandBehind(k) != j {
			return "", nil
		}
		function, spans = fmt.Sprint(p.tokens[k].Value), [][2]int{{i, k}, {k + 1, j}}
	}
	for _, span := range spans {
		from, to := p.inside(span[0], span[1])
		if to-from != 1 {
			from, to = span[0], span[1]
		}
		if slices.ContainsFunc(p.tokens[from:to], func(t govaluate.ExpressionToken) bool {
			return t.Kind == govaluate.CLAUSE || t.Kind == govaluate.TERNARY || t.Kind == govaluate.COMPARATOR
		}) {
			return "", nil
		}
		operands = append(operands, p.part(span[0], span[1]))
	}
	return function, operands
}

// classify knows r.x == p.y, p.y == "text", r.x =~ p.y, f(r.x, p.y),
// f(r.x, p.y, z) and timeMatch(p.x, p.y).
func (p *matcherParser) classify(a *Atom) {
	a.Function, a.Operands = p.operands(a.From, a.To)
	if len(a.Columns) == 0 {
		a.Kind = RequestOnly
	}
	if len(a.Columns) == 0 || len(a.Operands) < 2 {
		return
	}
	if a.Function == TimeMatch {
		a.Kind = Period
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
	compares, isPattern := pattern.ByName(a.Function)
	switch {
	case a.Function == "==" && left.Kind == govaluate.STRING:
		a.Kind, a.Text = Constant, fmt.Sprint(left.Value)
	case a.Request < 0:
	case a.Function == "==":
		a.Kind, a.Func = Equal, compares
	case isPattern && len(a.Operands) == 2:
		a.Kind, a.Func = Pattern, compares
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
	i, j := p.inside(operand.From, operand.To)
	if j-i != 1 {
		return govaluate.ExpressionToken{}
	}
	return p.tokens[i]
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

// DescribeConjunction writes one term of a normal form, as a model has it.
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
