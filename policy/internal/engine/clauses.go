package engine

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"securefiles/policy/internal/finding"
	"securefiles/policy/internal/model"
	"securefiles/policy/internal/pattern"
	"securefiles/policy/internal/table"
)

// A Verdict says what became of a part of the matcher.
type Verdict uint8

const (
	Holds Verdict = iota
	fails
	broken // it cannot be evaluated
)

// Verdict says what becomes of a term in a row.
func (ev *Evaluator) Verdict(c *model.Term, row int) Verdict {
	ok, err := ev.truth(c, row)
	switch {
	case err != nil:
		return broken
	case ok:
		return Holds
	}
	return fails
}

// Failure says why a term cannot be evaluated in a row; nil where it can.
func (ev *Evaluator) Failure(c *model.Term, row int) error {
	_, err := ev.truth(c, row)
	return err
}

// truth evaluates a term in a row; Casbin's own functions panic.
func (ev *Evaluator) truth(c *model.Term, row int) (ok bool, err error) {
	defer func() {
		if r := recover(); r != nil {
			ok, err = false, fmt.Errorf("%v", r)
		}
	}()
	ev.row = row
	return ev.holds(c, c == ev.engine.Model.Root)
}

// Asked reports whether a row matches by an alternative that asks something of
// the policy.
func (ev *Evaluator) Asked(row int) bool {
	for _, alternative := range ev.engine.Model.Alternatives() {
		if len(alternative.Columns) == 0 {
			continue
		}
		if v := ev.Verdict(alternative, row); v != fails {
			return v == Holds
		}
	}
	return false
}

// MatchAll returns the rows that match, and those that cannot be evaluated.
func (ev *Evaluator) MatchAll(stop func() error) (matching, failing []int, err error) {
	for row := range ev.engine.Rows.Len() {
		if row%8192 == 0 {
			if err := stop(); err != nil {
				return nil, nil, err
			}
		}
		switch ev.Verdict(ev.engine.Model.Root, row) {
		case Holds:
			matching = append(matching, row)
		case broken:
			failing = append(failing, row)
		}
	}
	return matching, failing, nil
}

// Detail says in words, with values, why a term holds in a row or does not.
func (ev *Evaluator) Detail(c *model.Term, row int) string {
	if c.Op == model.Or || c.Op == model.And {
		var all []string
		for _, kid := range c.Kids {
			said, v := ev.Detail(kid, row), ev.Verdict(kid, row)
			if c.Op == model.Or && v == Holds || c.Op == model.And && v != Holds {
				return said
			}
			all = append(all, said)
		}
		return strings.Join(all, "; ")
	}
	ok, err := ev.truth(c, row)
	if err != nil {
		return "cannot be evaluated: " + finding.Escape(err.Error())
	}
	if c.Op == model.Not {
		return ev.Detail(c.Kids[0], row)
	}
	a, args := c.Atom, make([]string, len(c.Atom.Operands))
	for i := range args {
		args[i] = ev.quote(&a.Operands[i], row)
	}
	_, isRole := ev.engine.Model.Roles[a.Function]
	switch {
	case a.Kind == model.Period:
		ev.row = row
		p, _ := ev.engine.periods.Of(ev.timeOf(&a.Operands[0]), ev.timeOf(&a.Operands[1]))
		return ev.periodWords(p)
	case a.Function == "==" || a.Function == "!=":
		switch {
		case ok != (a.Function == "=="):
			return args[0] + " is not " + args[1]
		case len(a.Operands[1].Texts) > 0:
			return a.Operands[0].Source + " is " + args[0]
		}
		return "both are " + args[0]
	case isRole && len(args) >= 2:
		if said := ev.otherTime(a, row); said != "" && !ok {
			return said
		}
		return roleWords(args, ok)
	case a.Function == "eval" && len(args) == 1 && ok:
		return "the rule " + args[0] + " holds"
	case a.Function == "eval" && len(args) == 1:
		return "the rule " + args[0] + " does not hold"
	case len(args) == 2 && ok == (a.Function != "!~"):
		return args[0] + " matches " + args[1] + ev.namesOfClause(a, row)
	case len(args) == 2:
		return args[0] + " does not match " + args[1] + ev.namesOfClause(a, row)
	}
	return ev.fieldValues(c)
}

// namesOfClause says what $sub and $group stand for in a comparison of the path.
func (ev *Evaluator) namesOfClause(a *model.Atom, row int) string {
	f, ok := pattern.ByName(a.Function)
	if column := a.Operands[1].Column; ok && row >= 0 && a.Operands[0].Request == "obj" && column >= 0 {
		if said := ev.namesIn(f, ev.engine.Symbols.Text(ev.engine.cell(row, column))); said != "" {
			return ", where " + said
		}
	}
	return ""
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

// periodWords says whether a period is over at the moment that is asked about, or
// when it is.
func (ev *Evaluator) periodWords(p table.Period) string {
	begin, end := ev.text(p.Begin), ev.text(p.End)
	switch at := ev.Moment(); {
	case p.Ended(at):
		return "ended " + table.AtOrOn(end)
	case !p.Holds(at):
		return "begins " + table.AtOrOn(begin)
	case !p.Until.IsZero():
		return "ends " + table.AtOrOn(end)
	}
	return "it has no end"
}

// IsAlways reports whether a term asks a row for a period that has neither beginning
// nor end.
func (ev *Evaluator) IsAlways(t *model.Term, row int) bool {
	if t.Atom == nil || t.Atom.Kind != model.Period {
		return false
	}
	ev.row = row
	begin, end := &t.Atom.Operands[0], &t.Atom.Operands[1]
	return ev.timeOf(begin) == ev.engine.open && ev.timeOf(end) == ev.engine.open
}

// otherTime says which role, on the way to the one that a row asks for, is not had at
// the moment that is asked about though it is at another; "" where there is none.
func (ev *Evaluator) otherTime(a *model.Atom, row int) string {
	e := ev.engine
	graph, known := e.Graphs[a.Function]
	if !known || !graph.HasPeriods() || a.Kind != model.Role || row < 0 {
		return ""
	}
	ev.row = row
	var w table.Walk
	graph.Ever().Begin(&w, e.Symbols, ev.symbol(a.Request), ev.groups(a.Function, ev.Request[a.Request]), ev.domainAsked(a), time.Time{})
	for at := w.Find(e.cell(row, a.Policy)); at > 0; at = int(w.Reached[at].Parent) {
		parent := w.Reached[w.Reached[at].Parent].Name
		var best *table.Edge
		for i, edge := range e.edges[a.Function] {
			if edge.Name != parent || edge.Role != w.Reached[at].Name || edge.Domain != w.Reached[at].Domain {
				continue
			}
			if e.periods.At(edge.Period).Holds(ev.Moment()) {
				best = nil
				break
			}
			best = &e.edges[a.Function][i] // the last of them
		}
		if best != nil {
			return fmt.Sprintf("line %d, by which %s has the role %s, %s", best.Line, quoteValue(ev.text(best.Name)), quoteValue(ev.text(best.Role)), ev.periodWords(e.periods.At(best.Period)))
		}
	}
	return ""
}

// fieldValues lists what the fields in a term are, in the row.
func (ev *Evaluator) fieldValues(c *model.Term) string {
	var all []string
	list := func(kind, field string) {
		value, _ := ev.Get(kind + "_" + field) // the model has it
		all = append(all, fmt.Sprintf("%s.%s is %s", kind, field, quoteValue(value)))
	}
	for _, f := range c.Requests {
		list("r", f)
	}
	for _, col := range c.Columns {
		list("p", ev.engine.Model.Policy[col])
	}
	return strings.Join(all, "; ")
}

// quote returns the value of an operand, or else its source.
func (ev *Evaluator) quote(operand *model.Part, row int) (text string) {
	defer func() {
		if recover() != nil { // Casbin's own functions panic
			text = operand.Source
		}
	}()
	expr, err := ev.compile(operand)
	if err != nil {
		return operand.Source
	}
	ev.row = row
	value, err := expr.Eval(ev)
	if err != nil {
		return operand.Source
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

// A Hop is one step of a chain of roles: the g line `definition, from, to`.
// Groups of a request have none.
type Hop struct {
	Name  string
	Edge  EdgeKey
	Given bool // there is a g line
}

// A EdgeKey is what a g line says.
type EdgeKey struct {
	Kind               string
	Name, Role, Domain table.Symbol
}

// Chain returns the names from the subject of the query to the one that a row
// asks for; nil where they are the same, or where nothing leads there.
func (ev *Evaluator) Chain(calls []model.RoleCall, row int) []Hop {
	e, subject := ev.engine, ev.Query.Principal.Subject
	for _, rc := range calls {
		domain, ok := ev.RoleDomain(rc, row)
		if !ok {
			domain = table.NoSymbol
		}
		walked := ev.Walk(rc.Kind, subject, ev.Lookup(subject), domain)
		at := walked.Find(e.Rows.Cols[rc.Role.Column][row])
		if at <= 0 {
			continue
		}
		var hops []Hop
		for ; at > 0; at = int(walked.Reached[at].Parent) {
			h := Hop{Name: e.Symbols.Text(walked.Reached[at].Name)}
			parent := walked.Reached[walked.Reached[at].Parent]
			if parent.Name != table.NoSymbol && !(walked.Reached[at].Parent == 0 && slices.Contains(ev.Query.Principal.Groups, h.Name)) {
				h.Edge, h.Given = EdgeKey{rc.Kind, parent.Name, walked.Reached[at].Name, walked.Reached[at].Domain}, true
			}
			hops = append(hops, h)
		}
		hops = append(hops, Hop{Name: subject})
		slices.Reverse(hops)
		return hops
	}
	return nil
}

// RoleDomain returns the domain that a call asks for in a row.
func (ev *Evaluator) RoleDomain(c model.RoleCall, row int) (table.Symbol, bool) {
	e, text := ev.engine, ""
	switch {
	case c.Domain == nil:
		return e.Symbols.Lookup("")
	case c.Domain.Column >= 0:
		text = e.Symbols.Text(e.Rows.Cols[c.Domain.Column][row])
	case c.Domain.Request != "":
		text, _ = model.RequestValue(&ev.Query, c.Domain.Request)
	default:
		text = c.Domain.Text
	}
	domain := ev.domainSymbol(c.Kind, text, ev.Lookup(text))
	return domain, domain != table.NoSymbol
}
