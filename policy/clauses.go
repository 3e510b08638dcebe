package policy

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// A verdict says what became of a part of the matcher.
type verdict uint8

const (
	holds verdict = iota
	fails
	broken // it cannot be evaluated
)

// alternatives are joined by ||; the clauses of each by &&.
func (d *definition) alternatives() []*term { return d.root.operands(opOr) }

func (c *term) clauses() []*term { return c.operands(opAnd) }

// verdict says what becomes of a term in a row.
func (ev *evaluator) verdict(c *term, row int) verdict {
	ok, err := ev.truth(c, row)
	switch {
	case err != nil:
		return broken
	case ok:
		return holds
	}
	return fails
}

// truth evaluates a term in a row; Casbin's own functions panic.
func (ev *evaluator) truth(c *term, row int) (ok bool, err error) {
	defer func() {
		if r := recover(); r != nil {
			ok, err = false, fmt.Errorf("%v", r)
		}
	}()
	ev.row = row
	return ev.holds(c, c == ev.engine.def.root)
}

// asked reports whether a row matches by an alternative that asks something of
// the policy.
func (ev *evaluator) asked(row int) bool {
	for _, alternative := range ev.engine.def.alternatives() {
		if len(alternative.columns) == 0 {
			continue
		}
		if v := ev.verdict(alternative, row); v != fails {
			return v == holds
		}
	}
	return false
}

// matchAll returns the rows that match, and those that cannot be evaluated.
func (ev *evaluator) matchAll(stop func() error) (matching, failing []int, err error) {
	for row := range ev.engine.rules.len() {
		if row%8192 == 0 {
			if err := stop(); err != nil {
				return nil, nil, err
			}
		}
		switch ev.verdict(ev.engine.def.root, row) {
		case holds:
			matching = append(matching, row)
		case broken:
			failing = append(failing, row)
		}
	}
	return matching, failing, nil
}

// detail says in words, with values, why a term holds in a row or does not.
func (ev *evaluator) detail(c *term, row int) string {
	if c.op == opOr || c.op == opAnd {
		var all []string
		for _, kid := range c.kids {
			said, v := ev.detail(kid, row), ev.verdict(kid, row)
			if c.op == opOr && v == holds || c.op == opAnd && v != holds {
				return said
			}
			all = append(all, said)
		}
		return strings.Join(all, "; ")
	}
	ok, err := ev.truth(c, row)
	if err != nil {
		return "cannot be evaluated: " + escape(err.Error())
	}
	if c.op == opNot {
		return ev.detail(c.kids[0], row)
	}
	a, args := c.atom, make([]string, len(c.atom.operands))
	for i := range args {
		args[i] = ev.quote(&a.operands[i], row)
	}
	_, isRole := ev.engine.def.roles[a.function]
	switch {
	case a.function == "==" || a.function == "!=":
		switch {
		case ok != (a.function == "=="):
			return args[0] + " is not " + args[1]
		case strings.Contains(a.operands[1].source, `"`):
			return a.operands[0].source + " is " + args[0]
		}
		return "both are " + args[0]
	case isRole && len(args) >= 2:
		return roleWords(args, ok)
	case a.function == "eval" && len(args) == 1 && ok:
		return "the rule " + args[0] + " holds"
	case a.function == "eval" && len(args) == 1:
		return "the rule " + args[0] + " does not hold"
	case len(args) == 2 && ok == (a.function != "!~"):
		return args[0] + " matches " + args[1]
	case len(args) == 2:
		return args[0] + " does not match " + args[1]
	}
	return ev.fieldValues(c)
}

// roleWords is detail for a call of a role function.
func roleWords(args []string, ok bool) string {
	name, role, in := args[0], args[1], ""
	if len(args) == 3 {
		in = " in " + args[2]
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
}

// fieldValues lists what the fields in a term are, in the row.
func (ev *evaluator) fieldValues(c *term) string {
	var all []string
	list := func(definition, field string) {
		value, _ := ev.Get(definition + "_" + field) // the model has it
		all = append(all, fmt.Sprintf("%s.%s is %s", definition, field, quoteValue(value)))
	}
	for _, f := range c.requests {
		list("r", f)
	}
	for _, col := range c.columns {
		list("p", ev.engine.def.policyFields[col])
	}
	return strings.Join(all, "; ")
}

// quote returns the value of an operand, or else its source.
func (ev *evaluator) quote(operand *part, row int) (text string) {
	defer func() {
		if recover() != nil { // Casbin's own functions panic
			text = operand.source
		}
	}()
	expr, err := ev.compile(operand)
	if err != nil {
		return operand.source
	}
	ev.row = row
	value, err := expr.Eval(ev)
	if err != nil {
		return operand.source
	}
	return quoteValue(value)
}

// quoteValue quotes a text and bounds it.
func quoteValue(value any) string {
	text, ok := value.(string)
	if !ok {
		return fmt.Sprint(value)
	}
	if len(text) > 256 {
		text = text[:256] + "…"
	}
	return strconv.Quote(text)
}

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
func (ev *evaluator) chain(calls []roleCall, row int) []hop {
	e, subject := ev.engine, ev.query.Principal.Subject
	for _, rc := range calls {
		domain, ok := ev.roleDomain(rc, row)
		if !ok {
			domain = noSymbol
		}
		walked := ev.walk(rc.definition, subject, ev.lookup(subject), domain)
		at := walked.find(e.rules.cols[rc.col][row])
		if at <= 0 {
			continue
		}
		var hops []hop
		for ; at > 0; at = int(walked.reached[at].parent) {
			h := hop{name: e.syms.text(walked.reached[at].name)}
			parent := walked.reached[walked.reached[at].parent]
			if parent.name != noSymbol && !(walked.reached[at].parent == 0 && slices.Contains(ev.query.Principal.Groups, h.name)) {
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

// roleDomain returns the domain that a call asks for in a row.
func (ev *evaluator) roleDomain(rc roleCall, row int) (symbol, bool) {
	e := ev.engine
	if rc.domain == "" || e.def.roles[rc.definition] != 3 {
		return e.syms.lookup("")
	}
	if field, ok := strings.CutPrefix(rc.domain, "p_"); ok {
		return e.rules.cols[e.def.policyField(field)][row], true
	}
	if field, ok := strings.CutPrefix(rc.domain, "r_"); ok {
		value, _ := requestValue(&ev.query, field)
		return e.syms.lookup(value)
	}
	return e.syms.lookup(strings.Trim(rc.domain, `"'`))
}
