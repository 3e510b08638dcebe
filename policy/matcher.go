package policy

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/casbin/govaluate"
)

// A term is a matcher taken apart at its &&, || and !. What is left between
// them are atoms.
type term struct {
	op   operator
	kids []*term
	atom *atom
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
	// pattern p.y.
	atomPattern
)

// An atom is a part of a matcher without &&, || and !. Fields are columns, those
// of the request and of the policy definition.
type atom struct {
	kind     atomKind
	number   int    // counts the atoms of the matcher
	source   string // for messages
	from, to int    // its tokens
	function string // of atomRole and atomPattern
	request  int    // the field of r
	policy   int    // the field of p
	text     string // of atomConstant
	// domain says where the third argument of atomRole comes from: a field of r or p.
	domain      domainOrigin
	domainField int
	// address says that the atom asks ipMatch, which fails where the request has
	// no address.
	address bool
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

// parseMatcher takes the matcher of a definition apart, which must have been
// found to compile. The atoms are returned in their order as well.
func parseMatcher(def *definition) (*term, []*atom, error) {
	verdict := true
	tokens, names, err := namedTokens(def.matcher, knownFunctions(def, def.evaluates, &verdict))
	if err != nil {
		return nil, nil, err
	}
	p := &matcherParser{def: def, tokens: tokens, names: names}
	return p.parse(0, len(tokens)), p.atoms, nil
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
	ors, ok := p.split(i, j, "||")
	if !ok {
		return p.leaf(i, j)
	}
	if len(ors) > 1 {
		return &term{op: opOr, kids: p.parseAll(ors)}
	}
	if ands, _ := p.split(i, j, "&&"); len(ands) > 1 {
		return &term{op: opAnd, kids: p.parseAll(ands)}
	}
	if t := p.tokens[i]; t.Kind == govaluate.PREFIX && t.Value == "!" && p.isValue(i+1, j) {
		return &term{op: opNot, kids: []*term{p.parse(i+1, j)}}
	}
	return p.leaf(i, j)
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

func (p *matcherParser) leaf(i, j int) *term {
	a := &atom{number: len(p.atoms), from: i, to: j}
	p.classify(a)
	p.atoms = append(p.atoms, a)
	return &term{op: opAtom, atom: a}
}

func (p *matcherParser) classify(a *atom) {
	tokens := p.tokens[a.from:a.to]
	asksPolicy := false
	for i, t := range tokens {
		switch t.Kind {
		case govaluate.VARIABLE:
			asksPolicy = asksPolicy || !strings.HasPrefix(fmt.Sprint(t.Value), "r_")
		case govaluate.FUNCTION:
			asksPolicy = asksPolicy || p.names[a.from+i] == "eval"
			a.address = a.address || p.names[a.from+i] == "ipMatch"
		case govaluate.ACCESSOR:
			asksPolicy = true
		}
	}
	a.source = p.source(a.from, a.to)
	switch {
	case !asksPolicy:
		a.kind = atomRequest
	case len(tokens) == 3 && tokens[1].Kind == govaluate.COMPARATOR && tokens[1].Value == "==":
		p.classifyEqual(a, tokens[0], tokens[2])
	default:
		p.classifyCall(a)
	}
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

func (p *matcherParser) classifyEqual(a *atom, left, right govaluate.ExpressionToken) {
	if p.policyField(left) >= 0 {
		left, right = right, left
	}
	if a.policy = p.policyField(right); a.policy < 0 {
		return
	}
	if a.request = p.requestField(left); a.request >= 0 {
		a.kind = atomEqual
	} else if text, ok := left.Value.(string); ok && left.Kind == govaluate.STRING {
		a.kind, a.text = atomConstant, text
	}
}

// classifyCall knows f(r.x, p.y) and f(r.x, p.y, z).
func (p *matcherParser) classifyCall(a *atom) {
	tokens := p.tokens[a.from:a.to]
	if tokens[0].Kind != govaluate.FUNCTION || len(tokens) < 6 || p.closes(a.from+1, a.to) != a.to-1 {
		return
	}
	var arguments []govaluate.ExpressionToken
	for i, t := range tokens[2 : len(tokens)-1] {
		if i%2 == 0 {
			arguments = append(arguments, t)
		} else if t.Kind != govaluate.SEPARATOR {
			return
		}
	}
	if len(tokens) != 2*len(arguments)+2 {
		return
	}
	a.function = p.names[a.from]
	a.request, a.policy = p.requestField(arguments[0]), p.policyField(arguments[1])
	if a.request < 0 || a.policy < 0 {
		return
	}
	_, isRole := p.def.roles[a.function]
	switch {
	case isPatternFunction(a.function) && len(arguments) == 2:
		a.kind = atomPattern
	case isRole && len(arguments) == 2:
		a.kind = atomRole
	case isRole && len(arguments) == 3:
		if a.domainField = p.requestField(arguments[2]); a.domainField >= 0 {
			a.kind, a.domain = atomRole, domainRequest
		} else if a.domainField = p.policyField(arguments[2]); a.domainField >= 0 {
			a.kind, a.domain = atomRole, domainPolicy
		}
	}
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
