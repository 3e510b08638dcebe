package policy

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/casbin/govaluate"
)

// A condition is a matcher taken apart, to find out which part of it does not
// hold. It decides nothing. It is for one query and one goroutine.
type condition struct {
	ev *evaluator
	// alternatives are joined by ||, the clauses of each by &&.
	alternatives [][]*clause
}

// A clause is a part of a matcher.
type clause struct {
	text string // as Casbin rewrote it
	expr *govaluate.EvaluableExpression
	// request and policy are the fields of r and p that it asks.
	request, policy []string
	// col is the column of p's only field that it asks; -1 where it asks
	// several, or rules of the policy. memo holds what was found, by symbol.
	col  int
	memo []verdict
}

// A verdict says what became of a clause. Its zero value says that nobody has
// asked yet.
type verdict uint8

const (
	unknown verdict = iota
	holds
	fails
	broken // it cannot be evaluated
)

var fieldName = regexp.MustCompile(`\b([rp])_(\w+)`)

// takeApart splits the engine's matcher for an evaluator that has begun.
func takeApart(ev *evaluator) (*condition, error) {
	def := ev.engine.def
	c := &condition{ev: ev}
	functions := ev.functions()
	for _, alternative := range splitAt(bare(def.matcher), "||") {
		var clauses []*clause
		for _, text := range splitAt(bare(alternative), "&&") {
			expr, err := govaluate.NewEvaluableExpressionWithFunctions(text, functions)
			if err != nil {
				return nil, fmt.Errorf("compile %q: %w", text, err)
			}
			cl := &clause{text: text, expr: expr, col: -1}
			cl.request, cl.policy = fieldsOf(text)
			if len(cl.policy) == 1 && !anyEval.MatchString(text) {
				cl.col = def.policyField(cl.policy[0])
			}
			clauses = append(clauses, cl)
		}
		c.alternatives = append(c.alternatives, clauses)
	}
	return c, nil
}

// fieldsOf returns the fields of r and p that an expression asks, each once.
func fieldsOf(expr string) (request, policy []string) {
	for _, l := range literals(expr) {
		expr = strings.Replace(expr, l, `""`, 1)
	}
	for _, m := range fieldName.FindAllStringSubmatch(expr, -1) {
		list := &request
		if m[1] == "p" {
			list = &policy
		}
		if !slices.Contains(*list, m[2]) {
			*list = append(*list, m[2])
		}
	}
	return request, policy
}

// evaluate says what becomes of a clause in a row.
func (c *condition) evaluate(cl *clause, row int) verdict {
	var remembered *verdict
	switch {
	case row < 0:
	case len(cl.policy) == 0 && !anyEval.MatchString(cl.text):
		if cl.memo == nil {
			cl.memo = make([]verdict, 1)
		}
		remembered = &cl.memo[0]
	case cl.col >= 0:
		if cl.memo == nil {
			cl.memo = make([]verdict, c.ev.engine.syms.len())
		}
		remembered = &cl.memo[c.ev.engine.rules.cols[cl.col][row]]
	}
	if remembered != nil && *remembered != unknown {
		return *remembered
	}
	v := fails
	if ok, err := c.truth(cl.expr, row); err != nil {
		v = broken
	} else if ok {
		v = holds
	}
	if remembered != nil {
		*remembered = v
	}
	return v
}

// truth evaluates an expression in a row; Casbin's own functions panic.
func (c *condition) truth(expr *govaluate.EvaluableExpression, row int) (ok bool, err error) {
	value, err := c.value(expr, row)
	if err != nil {
		return false, err
	}
	switch value := value.(type) {
	case bool:
		return value, nil
	case float64:
		return value != 0, nil
	}
	return false, fmt.Errorf("gives neither true nor false")
}

func (c *condition) value(expr *govaluate.EvaluableExpression, row int) (value any, err error) {
	defer func() {
		if r := recover(); r != nil {
			value, err = nil, fmt.Errorf("%v", r)
		}
	}()
	c.ev.row = row
	return expr.Eval(c.ev)
}

// match says what becomes of the whole matcher in a row, as govaluate goes
// through it: the first clause that fails ends its alternative, the first
// alternative that holds, or the first clause that cannot be evaluated, ends it
// all.
func (c *condition) match(row int) verdict { return c.matchSome(row, false) }

// matchSome is match; with asking, only alternatives that ask something of the
// policy can hold.
func (c *condition) matchSome(row int, asking bool) verdict {
	for _, clauses := range c.alternatives {
		if asking && !slices.ContainsFunc(clauses, func(cl *clause) bool { return len(cl.policy) > 0 }) {
			continue
		}
		v := holds
		for _, cl := range clauses {
			if v = c.evaluate(cl, row); v != holds {
				break
			}
		}
		if v != fails {
			return v
		}
	}
	return fails
}

// matchAll returns the rows that match, and those that cannot be evaluated.
func (e *engine) matchAll(ev *evaluator, c *condition, stop func() error) (matching, failing []int, err error) {
	for row := range e.rules.len() {
		if row%8192 == 0 {
			if err := stop(); err != nil {
				return nil, nil, err
			}
		}
		switch c.match(row) {
		case holds:
			matching = append(matching, row)
		case broken:
			failing = append(failing, row)
		}
	}
	return matching, failing, nil
}

// splitAt splits an expression at an operator outside parentheses and literals.
// One with a ternary operator is left whole.
func splitAt(expr, operator string) []string {
	var parts []string
	depth, start := 0, 0
	var quote byte
	for i := 0; i < len(expr); i++ {
		c := expr[i]
		switch {
		case quote != 0:
			if c == '\\' {
				i++
			} else if c == quote {
				quote = 0
			}
		case c == '"' || c == '\'':
			quote = c
		case c == '(':
			depth++
		case c == ')':
			depth--
		case depth == 0 && c == '?':
			return []string{strings.TrimSpace(expr)}
		case depth == 0 && strings.HasPrefix(expr[i:], operator):
			parts = append(parts, strings.TrimSpace(expr[start:i]))
			start = i + len(operator)
			i = start - 1
		}
	}
	return append(parts, strings.TrimSpace(expr[start:]))
}

// bare removes parentheses around the whole of an expression.
func bare(expr string) string {
	for {
		expr = strings.TrimSpace(expr)
		if len(expr) < 2 || expr[0] != '(' || expr[len(expr)-1] != ')' {
			return expr
		}
		inner := expr[1 : len(expr)-1]
		depth, quote := 0, byte(0)
		for i := 0; i < len(inner) && depth >= 0; i++ {
			c := inner[i]
			switch {
			case quote != 0:
				if c == '\\' {
					i++
				} else if c == quote {
					quote = 0
				}
			case c == '"' || c == '\'':
				quote = c
			case c == '(':
				depth++
			case c == ')':
				depth--
			}
		}
		if depth != 0 || quote != 0 { // the first ( closes before the end
			return expr
		}
		expr = inner
	}
}

// aCall is a function with its arguments, comparison two operands.
var (
	aCall      = regexp.MustCompile(`^(\w+)\s*\(((?:[^()"']|"[^"]*"|'[^']*')*)\)$`)
	comparison = regexp.MustCompile(`^((?:[^()"'=!<>~&|]|"[^"]*"|'[^']*')+)(==|!=|=~|!~)((?:[^()"'=!<>~&|]|"[^"]*"|'[^']*')+)$`)
)

// detail says in words, with values, why an expression holds in a row or does
// not.
func (c *condition) detail(text string, row int) string {
	text = bare(text)
	if alternatives := splitAt(text, "||"); len(alternatives) > 1 {
		var all []string
		for _, a := range alternatives {
			said := c.detail(a, row)
			if ok, err := c.eval(a, row); err == nil && ok {
				return said
			}
			all = append(all, said)
		}
		return strings.Join(all, "; ")
	}
	if parts := splitAt(text, "&&"); len(parts) > 1 {
		var all []string
		for _, p := range parts {
			said := c.detail(p, row)
			if ok, err := c.eval(p, row); err != nil || !ok {
				return said
			}
			all = append(all, said)
		}
		return strings.Join(all, "; ")
	}
	ok, err := c.eval(text, row)
	if err != nil {
		return "cannot be evaluated: " + escape(err.Error())
	}
	if inner, negated := strings.CutPrefix(text, "!"); negated {
		inner = strings.TrimSpace(inner)
		if b := bare(inner); b != inner || aCall.MatchString(inner) {
			return c.detail(b, row)
		}
	}
	if m := comparison.FindStringSubmatch(text); m != nil {
		left, right := c.quote(m[1], row), c.quote(m[3], row)
		switch {
		case m[2] == "=~" || m[2] == "!~":
			return matchWords(left, right, ok == (m[2] == "=~"))
		case ok == (m[2] == "==") && strings.ContainsAny(m[3], `"'`):
			return source(strings.TrimSpace(m[1])) + " is " + left
		case ok == (m[2] == "=="):
			return "both are " + left
		default:
			return left + " is not " + right
		}
	}
	if m := aCall.FindStringSubmatch(text); m != nil {
		return c.callDetail(m[1], splitAt(m[2], ","), row, ok)
	}
	return c.values(text, row)
}

// callDetail is detail for a call of a function.
func (c *condition) callDetail(function string, args []string, row int, ok bool) string {
	_, isRole := c.ev.engine.def.roles[function]
	switch {
	case isRole && len(args) >= 2:
		name, role := c.quote(args[0], row), c.quote(args[1], row)
		in := ""
		if len(args) == 3 {
			in = " in " + c.quote(args[2], row)
		}
		switch {
		case name == role:
			return "both are " + name
		case ok && strings.HasPrefix(role, `"@`):
			return name + " is in the group " + role
		case ok:
			return fmt.Sprintf("%s has the role %s%s", name, role, in)
		case strings.HasPrefix(role, `"@`):
			return name + " is not in the group " + role
		}
		return fmt.Sprintf("%s is not %s and has no role%s that leads to it", name, role, in)
	case function == "eval" && len(args) == 1:
		if ok {
			return "the rule " + c.quote(args[0], row) + " holds"
		}
		return "the rule " + c.quote(args[0], row) + " does not hold"
	case len(args) == 2:
		return matchWords(c.quote(args[0], row), c.quote(args[1], row), ok)
	}
	return c.values(function+"("+strings.Join(args, ",")+")", row)
}

func matchWords(value, pattern string, ok bool) string {
	if ok {
		return value + " matches " + pattern
	}
	return value + " does not match " + pattern
}

// values lists what the fields in an expression are.
func (c *condition) values(text string, row int) string {
	var all []string
	request, policy := fieldsOf(text)
	for _, f := range request {
		all = append(all, fmt.Sprintf("r.%s is %s", f, c.quote("r_"+f, row)))
	}
	for _, f := range policy {
		all = append(all, fmt.Sprintf("p.%s is %s", f, c.quote("p_"+f, row)))
	}
	return strings.Join(all, "; ")
}

func (c *condition) eval(text string, row int) (bool, error) {
	expr, err := govaluate.NewEvaluableExpressionWithFunctions(text, c.ev.functions())
	if err != nil {
		return false, err
	}
	return c.truth(expr, row)
}

// quote returns the value of an operand, quoted and bounded.
func (c *condition) quote(operand string, row int) string {
	expr, err := govaluate.NewEvaluableExpressionWithFunctions(operand, c.ev.functions())
	if err != nil {
		return source(operand)
	}
	value, err := c.value(expr, row)
	if err != nil {
		return source(operand)
	}
	text, ok := value.(string)
	if !ok {
		return fmt.Sprint(value)
	}
	if len(text) > 256 {
		text = text[:256] + "…"
	}
	return strconv.Quote(text)
}

// source writes an expression as models have it.
func source(expr string) string { return fieldName.ReplaceAllString(expr, "$1.$2") }

// A roleCall is a call of a role function by which a matcher asks for the
// subject: g(r.sub, p.sub).
type roleCall struct {
	definition string
	col        int    // of the role
	domain     string // an expression, or empty
}

var subjectCall = regexp.MustCompile(`\b(g\d*)\(\s*r_sub\s*,\s*p_(\w+)\s*(?:,\s*([rp]_\w+|"[^"]*"|'[^']*')\s*)?\)`)

// roleCalls returns the calls in a matcher.
func (d *definition) roleCalls() []roleCall {
	var calls []roleCall
	for _, m := range subjectCall.FindAllStringSubmatch(d.matcher, -1) {
		if _, ok := d.roles[m[1]]; ok {
			calls = append(calls, roleCall{m[1], d.policyField(m[2]), m[3]})
		}
	}
	return calls
}

// A hop is one step of a chain of roles: the g line `definition, from, to`.
// Groups of a request have none.
type hop struct {
	name string
	link linkKey
	ok   bool // there is a g line
}

// A linkKey is what a g line says.
type linkKey struct {
	definition         string
	name, role, domain symbol
}

// chain returns the names from the subject of the query to the one that a row
// asks for; nil where they are the same, or where nothing leads there.
func (c *condition) chain(calls []roleCall, row int) []hop {
	e, subject := c.ev.engine, c.ev.query.Principal.Subject
	for _, rc := range calls {
		domain, ok := c.domain(rc, row)
		if !ok {
			domain = noSymbol
		}
		walked := c.ev.walk(rc.definition, subject, c.ev.lookup(subject), domain)
		at := walked.find(e.rules.cols[rc.col][row])
		if at <= 0 {
			continue
		}
		var hops []hop
		for ; at > 0; at = int(walked.reached[at].parent) {
			h := hop{name: e.syms.text(walked.reached[at].name)}
			parent := walked.reached[walked.reached[at].parent]
			if parent.name != noSymbol && !(walked.reached[at].parent == 0 && slices.Contains(c.ev.query.Principal.Groups, h.name)) {
				h.link, h.ok = linkKey{rc.definition, parent.name, walked.reached[at].name, domain}, true
			}
			hops = append(hops, h)
		}
		hops = append(hops, hop{name: subject})
		slices.Reverse(hops)
		return hops
	}
	return nil
}

// domain returns the domain that a call asks for in a row.
func (c *condition) domain(rc roleCall, row int) (symbol, bool) {
	e := c.ev.engine
	if rc.domain == "" || e.def.roles[rc.definition] != 3 {
		return e.syms.lookup("")
	}
	if field, ok := strings.CutPrefix(rc.domain, "p_"); ok {
		return e.rules.cols[e.def.policyField(field)][row], true
	}
	if field, ok := strings.CutPrefix(rc.domain, "r_"); ok {
		value, _ := requestValue(&c.ev.query, field)
		return e.syms.lookup(value)
	}
	return e.syms.lookup(strings.Trim(rc.domain, `"'`))
}
