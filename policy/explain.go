package policy

import (
	"context"
	"encoding/csv"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/casbin/govaluate"

	"securefiles/authz"
)

// An Explanation says how a decision came about.
type Explanation struct {
	Subject  string   `json:"subject"`
	Groups   []string `json:"groups"`
	Object   string   `json:"object"`
	Action   string   `json:"action"`
	Allowed  bool     `json:"allowed"`
	Decision string   `json:"decision"` // as nginx's log shows it
	// Deciding is the line that decided; nil where none did.
	Deciding *Line `json:"deciding,omitempty"`
	// Matches are all lines that match, in the order of their evaluation.
	Matches []Line `json:"matches"`
	// Nearest are lines that would allow but for one clause, where nothing
	// matches.
	Nearest []Line `json:"nearest,omitempty"`
}

// A Line is one line of the policy, as far as it concerns a request.
type Line struct {
	File string `json:"file"`
	Line int    `json:"line"`
	Text string `json:"text"`
	// Chain leads from the subject to the line's subject by way of groups and
	// roles; empty where they are the same.
	Chain []string `json:"chain,omitempty"`
	// Failed is the clause of the matcher that does not hold.
	Failed string `json:"failed,omitempty"`
}

// maxNearest bounds the lines that are shown for a default deny.
const maxNearest = 5

// Explain decides as Decide does, on the version that is being served, and says
// how. It looks at every line. Errors are those of Decide.
func (s *Store) Explain(ctx context.Context, q authz.Query) (x *Explanation, err error) {
	defer func() {
		if r := recover(); r != nil { // Casbin's own functions panic
			x, err = nil, fmt.Errorf("explain: %v", r)
		}
	}()
	snap := s.current.Load()
	d, err := snap.decide(&q)
	if err != nil {
		return nil, err
	}
	x = &Explanation{
		Subject: q.Principal.Subject, Groups: q.Principal.Groups, Object: q.Object, Action: q.Action,
		Allowed: d.Effect == authz.Allow, Decision: d.String(), Matches: []Line{},
	}
	rows, err := snap.engine.matches(&q, nil)
	if err != nil {
		return nil, fmt.Errorf("find the lines that match: %w", err)
	}
	for _, row := range rows {
		line := snap.line(&q, row)
		x.Matches = append(x.Matches, line)
		if line.Line == d.Line {
			x.Deciding = &line
		}
	}
	if len(rows) == 0 && !x.Allowed {
		if x.Nearest, err = snap.nearest(ctx, &q); err != nil {
			return nil, fmt.Errorf("find the nearest lines: %w", err)
		}
	}
	return x, nil
}

// line describes a row for a query.
func (s *snapshot) line(q *authz.Query, row int) Line {
	return Line{File: s.file, Line: int(s.table.rules.lines[row]), Text: s.text(row), Chain: s.engine.chain(q, row)}
}

// text renders a row as a policy line.
func (s *snapshot) text(row int) string {
	fields := []string{"p"}
	for _, col := range s.table.rules.cols {
		fields = append(fields, quoteField(s.table.syms.text(col[row])))
	}
	return strings.Join(fields, ", ")
}

// quoteField quotes a field of a policy line where it must be.
func quoteField(text string) string {
	if !strings.ContainsAny(text, `",`) {
		return text
	}
	var b strings.Builder
	w := csv.NewWriter(&b)
	_ = w.Write([]string{text}) // a Builder takes everything
	w.Flush()
	return strings.TrimSuffix(b.String(), "\n")
}

// nearest returns the rows that would allow, did all clauses of the matcher hold
// and not all but one; those of the subject's own first.
func (s *snapshot) nearest(ctx context.Context, q *authz.Query) ([]Line, error) {
	clauses := splitClauses(s.engine.def.matcher)
	if len(clauses) < 2 {
		return nil, nil
	}
	ev, err := s.engine.begin(q)
	if err != nil {
		return nil, err
	}
	defer s.engine.end(ev)
	var compiled []*govaluate.EvaluableExpression
	for _, c := range clauses {
		expr, err := govaluate.NewEvaluableExpressionWithFunctions(c, ev.functions())
		if err != nil {
			return nil, err
		}
		compiled = append(compiled, expr)
	}
	field := regexp.MustCompile(`\b([rp])_`) // as Casbin rewrote it
	var own, others []Line
	for row := range s.table.rules.len() {
		if row%8192 == 0 && ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if ev.effectOf(row) != rowAllows {
			continue
		}
		ev.row = row
		failed := -1
		for i, expr := range compiled {
			result, err := expr.Eval(ev)
			if ok, _ := result.(bool); err == nil && ok {
				continue
			}
			if failed >= 0 {
				failed = -1
				break
			}
			failed = i
		}
		if failed < 0 {
			continue
		}
		line := s.line(q, row)
		line.Failed = field.ReplaceAllString(clauses[failed], "$1.")
		if strings.Contains(clauses[failed], "r_sub") {
			if len(others) < maxNearest {
				others = append(others, line)
			}
		} else if own = append(own, line); len(own) == maxNearest {
			break
		}
	}
	lines := append(own, others...)
	return lines[:min(len(lines), maxNearest)], nil
}

// splitClauses splits a matcher at the && outside parentheses and literals; one
// that is joined by || as well is left whole.
func splitClauses(matcher string) []string {
	var clauses []string
	depth, start := 0, 0
	var quote byte
	for i := 0; i < len(matcher); i++ {
		c := matcher[i]
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
		case depth == 0 && strings.HasPrefix(matcher[i:], "||"):
			return []string{matcher}
		case depth == 0 && strings.HasPrefix(matcher[i:], "&&"):
			clauses = append(clauses, strings.TrimSpace(matcher[start:i]))
			start = i + 2
		}
	}
	return append(clauses, strings.TrimSpace(matcher[start:]))
}

// chain returns the names from the subject of a query to that of a row.
func (e *engine) chain(q *authz.Query, row int) []string {
	col, graph := e.def.policyField("sub"), e.graphs["g"]
	if col < 0 || graph == nil {
		return nil
	}
	var domain symbol // "" where links have none
	if e.def.roles["g"] == 3 {
		var ok bool
		if domain, ok = e.syms.lookup(q.Domain); !ok {
			domain = noSymbol
		}
	}
	walked := graph.walk(e.syms, q.Principal.Subject, q.Principal.Groups, domain, nil)
	at := find(walked, e.rules.cols[col][row])
	if at <= 0 {
		return nil
	}
	var names []string
	for ; at > 0; at = int(walked[at].parent) {
		names = append(names, e.syms.text(walked[at].name))
	}
	slices.Reverse(names)
	return append([]string{q.Principal.Subject}, names...)
}

// String renders the explanation for a terminal: plain text, several lines, what
// cannot be printed escaped.
func (x *Explanation) String() string {
	var b strings.Builder
	verdict, may := "deny", "may not"
	if x.Allowed {
		verdict, may = "allow", "may"
	}
	fmt.Fprintf(&b, "%s: %s %s %s %s\n", verdict, escape(x.Subject), may, escape(x.Action), escape(x.Object))
	if len(x.Groups) > 0 {
		fmt.Fprintf(&b, "  groups: %s\n", escape(strings.Join(x.Groups, ", ")))
	}
	switch {
	case x.Deciding != nil:
		fmt.Fprintf(&b, "  decided by %s:%d\n", x.Deciding.File, x.Deciding.Line)
	case x.Allowed:
		b.WriteString("  no line denies it, and the model allows what no line denies\n")
	default:
		b.WriteString("  no line allows it\n")
	}
	writeLines(&b, "lines that match:", x.Matches)
	writeLines(&b, "nearest lines:", x.Nearest)
	return b.String()
}

func writeLines(b *strings.Builder, title string, lines []Line) {
	if len(lines) == 0 {
		return
	}
	fmt.Fprintln(b, title)
	for _, l := range lines {
		fmt.Fprintf(b, "  %s:%d  %s\n", l.File, l.Line, escape(l.Text))
		if len(l.Chain) > 0 {
			fmt.Fprintf(b, "      by way of %s\n", escape(strings.Join(l.Chain, " -> ")))
		}
		if l.Failed != "" {
			fmt.Fprintf(b, "      does not hold: %s\n", l.Failed)
		}
	}
}
