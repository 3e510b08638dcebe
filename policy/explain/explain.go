// Package explain answers what people ask of a policy.
//
// [Decision] says why a request is allowed or not, [Who] who may have a path,
// [What] what somebody may have, [Compare] what a change of policy changes, and a
// [Coverage] which lines a number of requests meet. Each asks by the code that
// serves.
//
// explain does not say what a policy was meant to do; package lint guesses.
package explain

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"

	"securefiles/authz"
	"securefiles/policy"
	"securefiles/policy/internal/engine"
	"securefiles/policy/internal/finding"
	"securefiles/policy/internal/model"
)

// An Explanation says how a decision came about. Its lists are never nil in
// JSON where they have no omitempty.
type Explanation struct {
	Subject string   `json:"subject"`
	Groups  []string `json:"groups"`
	// Roles are the names that the subject reaches beside its groups.
	Roles   []string `json:"roles,omitempty"`
	Object  string   `json:"object"`
	Action  string   `json:"action"`
	Domain  string   `json:"domain,omitempty"`
	IP      string   `json:"ip,omitempty"`
	Host    string   `json:"host,omitempty"`
	Allowed bool     `json:"allowed"`
	// Decision is what nginx's log shows: `g42:policy.csv:17`.
	Decision string `json:"decision"`
	// Reason is the word that the service would answer with.
	Reason authz.Reason `json:"reason"`
	// Why says in words why the effect came out so.
	Why string `json:"why"`
	// Error is what kept the policy from deciding, which denies.
	Error string `json:"error,omitempty"`
	// Deciding is the line that decided; nil where none did.
	Deciding *Line `json:"deciding,omitempty"`
	// Matches are the lines that match, in the order of their evaluation;
	// MoreMatches counts those left out.
	Matches     []Line `json:"matches"`
	MoreMatches int    `json:"more_matches,omitempty"`
	// Failing are lines that cannot be evaluated for this request.
	Failing []Line `json:"failing,omitempty"`
	// Nearest are the lines that allow and lack least, where nothing allows
	// or denies.
	Nearest []Line `json:"nearest,omitempty"`
}

// Bounds of what an explanation shows: after so many, the rest is like them.
const (
	maxMatches = 50
	maxNearest = 5
	maxFailing = 5
	maxRoles   = 50
)

// Decision decides as the store does, on the version that is being served, and says
// how. Where deciding is an error, which denies, the explanation says which.
// It looks at every line; the error is that of a context that ends meanwhile.
func Decision(ctx context.Context, s *policy.Store, q authz.Query) (x *Explanation, err error) {
	defer func() {
		if r := recover(); r != nil { // Casbin's own functions panic
			x, err = nil, fmt.Errorf("explain: %v", r)
		}
	}()
	version := s.Version()
	if version == nil {
		return nil, errors.New("explain: no policy has been loaded")
	}
	return explain(ctx, version, &q)
}

func explain(ctx context.Context, v *engine.Version, q *authz.Query) (*Explanation, error) {
	v.Engine.FixMoment(q)
	d, decideErr := v.Decide(q)
	x := &Explanation{
		Subject: q.Principal.Subject, Groups: q.Principal.Groups, Object: q.Object, Action: q.Action,
		Domain: q.Domain, IP: q.IP, Host: q.Host,
		Allowed: d.Effect == authz.Allow && decideErr == nil, Decision: d.String(), Matches: []Line{},
	}
	if x.Groups == nil {
		x.Groups = []string{}
	}
	x.Reason = authz.ReasonOf(q.Principal, d, decideErr)
	if decideErr != nil {
		x.Error = decideErr.Error()
	}
	if errors.Is(decideErr, authz.ErrReservedSubject) {
		x.Why = whyReserved(v, q.Principal.Subject)
		return x, nil
	}

	w, err := newExplainer(v, q)
	if err != nil {
		if decideErr == nil {
			return nil, fmt.Errorf("explain: %w", err)
		}
		x.Why = whyError
		return x, nil
	}
	defer w.end()
	x.Roles = w.roles()
	var matching, failing []int
	if v.Engine.Model.AsksPolicy {
		matching, failing, err = w.ev.MatchAll(ctx.Err)
		if err != nil {
			return nil, fmt.Errorf("explain: %w", err)
		}
	}
	for _, row := range matching[:min(len(matching), maxMatches)] {
		x.Matches = append(x.Matches, w.line(row))
	}
	x.MoreMatches = len(matching) - len(x.Matches)
	for _, row := range failing[:min(len(failing), maxFailing)] {
		x.Failing = append(x.Failing, w.explained(row, v.Engine.Model.Alternatives()[0]))
	}
	deciding := -1
	if d.Line > 0 {
		deciding = slices.Index(v.Table.Rows.Lines, uint32(d.Line))
		line := w.line(deciding)
		x.Deciding = &line
	}
	if d.Line == 0 && !x.Allowed && len(matching) == 0 && decideErr == nil {
		if x.Nearest, err = w.nearest(ctx); err != nil {
			return nil, fmt.Errorf("find the nearest lines: %w", err)
		}
	}
	w.findEdges()
	switch {
	case decideErr != nil:
		x.Why = whyError
	default:
		x.Why = why(v, x.Allowed, deciding, matching)
	}
	return x, nil
}

const whyError = "the matcher cannot be evaluated for this request, and what cannot be decided is denied"

// whyReserved says which line makes a role of a name.
func whyReserved(v *engine.Version, subject string) string {
	if strings.HasPrefix(subject, authz.RolePrefix) {
		return fmt.Sprintf("a name that begins with %s is a role's, whatever the lines say, and no user's", authz.RolePrefix)
	}
	name, ok := v.Table.Symbols.Lookup(subject)
	if ok && v.IsReserved(name) {
		for _, edges := range v.Table.Edges {
			for _, edge := range edges {
				if edge.Role == name {
					return fmt.Sprintf("line %d makes %s a role, and no user may be called like a role: rename one of them", edge.Line, finding.Escape(strconv.Quote(subject)))
				}
			}
		}
		return fmt.Sprintf("the model or a rule asks for a role called %s, and no user may be called like a role: rename one of them", finding.Escape(strconv.Quote(subject)))
	}
	return "a user's name is not empty and does not begin with @, which marks groups"
}

// why says how the effect of the model made one decision of the rows that
// match, in the words of the effect.
func why(v *engine.Version, allowed bool, deciding int, matching []int) string {
	e := v.Engine
	if !e.Model.AsksPolicy || e.Rows.Len() == 0 {
		switch {
		case e.Model.Effect == model.DenyOverride:
			return "no line denies it, and the model allows what no line denies"
		case allowed:
			return "the matcher holds for this request, whatever the lines say"
		}
		return "the matcher does not hold for this request, whatever the lines say"
	}
	line := func(row int) string { return fmt.Sprintf("line %d", e.Rows.Lines[row]) }
	if deciding < 0 {
		switch {
		case allowed:
			return "no line that matches denies it, and the model allows what no line denies"
		case len(matching) == 0:
			return "no line matches, and the model denies what no line allows"
		}
		return "no line that matches allows it, and the model denies what no line allows"
	}
	others := slices.DeleteFunc(slices.Clone(matching), func(row int) bool { return row == deciding })
	allows := slices.DeleteFunc(slices.Clone(others), func(row int) bool { return e.EffectOf(row) != engine.RowAllows })
	switch e.Model.Effect {
	case model.AllowOverride:
		if len(others) == 0 {
			return line(deciding) + " allows it, and the model asks for no more than one that does"
		}
		return line(deciding) + " is the first that matches and allows, and the model asks for no more"
	case model.DenyOverride:
		return line(deciding) + " denies it, and the model asks for no more than one that does"
	case model.AllowAndDeny:
		switch {
		case allowed:
			return line(deciding) + " allows it, and no line that matches denies it"
		case len(allows) == 0:
			return "the explicit deny at " + line(deciding) + " decides, and no line allows it either"
		case len(allows) == 1:
			return "the explicit deny at " + line(deciding) + " wins over the allow at " + line(allows[0])
		}
		return fmt.Sprintf("the explicit deny at %s wins over %d allows, the first at %s", line(deciding), len(allows), line(allows[0]))
	case model.SubjectPriority:
		if len(others) == 0 {
			return line(deciding) + " is the only one that matches"
		}
		return line(deciding) + " is the first of those that match by its subject's place in the tree of roles: the nearest to the user goes first"
	}
	switch col := e.Model.PolicyField("priority"); {
	case len(others) == 0:
		return line(deciding) + " is the only one that matches"
	case col >= 0:
		return fmt.Sprintf("%s is the first match by priority: %s, before %s of %s", line(deciding),
			e.Symbols.Text(e.Rows.Cols[col][deciding]), e.Symbols.Text(e.Rows.Cols[col][others[0]]), line(others[0]))
	}
	return line(deciding) + " is the first match in the file's order, which is the model's priority"
}

// A explainer looks at the rows of a snapshot for one query.
type explainer struct {
	version *engine.Version
	ev      *engine.Evaluator
	calls   []model.RoleCall
	edges   map[engine.EdgeKey][]*Step // steps whose g line is looked for
}

func newExplainer(v *engine.Version, q *authz.Query) (*explainer, error) {
	ev, err := v.Engine.Begin(q)
	if err != nil {
		return nil, err
	}
	return &explainer{version: v, ev: ev, calls: v.Engine.Model.SubjectRoles(), edges: map[engine.EdgeKey][]*Step{}}, nil
}

func (w *explainer) end() { w.version.Engine.End(w.ev) }

// roles returns the names that the subject reaches beside its groups.
func (w *explainer) roles() []string {
	var names []string
	seen := map[string]bool{}
	for _, rc := range w.calls {
		if rc.Domain != nil && rc.Domain.Column >= 0 {
			continue // each line has its own
		}
		domain, ok := w.ev.RoleDomain(rc, -1)
		if !ok {
			continue
		}
		walked := w.ev.Walk(rc.Kind, w.ev.Query.Principal.Subject, w.ev.Lookup(w.ev.Query.Principal.Subject), domain)
		walked.All()
		for _, r := range walked.Reached[1:] {
			name := w.version.Table.Symbols.Text(r.Name)
			if !seen[name] && !slices.Contains(w.ev.Query.Principal.Groups, name) && len(names) < maxRoles {
				seen[name] = true
				names = append(names, name)
			}
		}
	}
	return names
}

// line describes a row. The g lines of its chain are found by findLinks.
func (w *explainer) line(row int) Line {
	l := lineOf(w.version, row)
	l.Names = w.ev.NamesIn(row)
	hops := w.ev.Chain(w.calls, row)
	l.Chain = make([]Step, len(hops))
	for i, h := range hops {
		l.Chain[i].Name = h.Name
		if h.Given {
			w.edges[h.Edge] = append(w.edges[h.Edge], &l.Chain[i])
		}
	}
	if len(hops) == 0 {
		l.Chain = nil
	}
	return l
}

// explained is line with what each clause of an alternative says.
func (w *explainer) explained(row int, alternative *model.Term) Line {
	l := w.line(row)
	for _, cl := range alternative.Clauses() {
		if w.ev.IsAlways(cl, row) {
			continue
		}
		l.Clauses = append(l.Clauses, Clause{Text: cl.Source, Holds: w.ev.Verdict(cl, row) == engine.Holds, Detail: w.ev.Detail(cl, row)})
	}
	return l
}

// findLinks fills in the g lines of all chains, in one pass.
func (w *explainer) findEdges() {
	for kind, list := range w.version.Table.Edges {
		for _, edge := range list {
			if !w.version.Table.Holds(edge, w.ev.Moment()) {
				continue
			}
			key := engine.EdgeKey{Kind: kind, Name: edge.Name, Role: edge.Role, Domain: edge.Domain}
			for _, step := range w.edges[key] {
				step.Line = int(edge.Line)
			}
			delete(w.edges, key)
			if len(w.edges) == 0 {
				return
			}
		}
	}
}

// nearness says how far a row is from matching.
type nearness struct {
	row         int
	alternative *model.Term
	failed      int  // clauses
	foreign     bool // one of them asks for the subject
	common      int  // how much of the path is the object's, in bytes
	elsewhere   bool // a path that fails has less than half of the object's first segment in common
}

// compare orders the nearest first: the fewest clauses that fail, then the path
// that has most in common with the object, then the subject's own.
func (a nearness) compare(b nearness) int {
	own := func(n nearness) int {
		if n.foreign {
			return 1
		}
		return 0
	}
	return cmp.Or(cmp.Compare(a.failed, b.failed), cmp.Compare(b.common, a.common), cmp.Compare(own(a), own(b)), cmp.Compare(a.row, b.row))
}

// keepNearest inserts a row into a list of the nearest.
func keepNearest(best []nearness, n nearness) []nearness {
	i, _ := slices.BinarySearchFunc(best, n, nearness.compare)
	if i == maxNearest {
		return best
	}
	best = slices.Insert(best, i, n)
	return best[:min(len(best), maxNearest)]
}

// nearest returns the rows that would allow and lack least. Neither the lines
// of other subjects crowd out the subject's own, nor the other way round.
func (w *explainer) nearest(ctx context.Context) ([]Line, error) {
	var own, foreign []nearness
	for row := range w.version.Table.Rows.Len() {
		if row%8192 == 0 && ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if w.version.Engine.EffectOf(row) != engine.RowAllows {
			continue
		}
		n, ok := w.distance(row)
		switch {
		case !ok:
		case n.foreign:
			foreign = keepNearest(foreign, n)
		default:
			own = keepNearest(own, n)
		}
	}
	fewest := math.MaxInt
	for _, list := range [][]nearness{own, foreign} {
		if len(list) > 0 {
			fewest = min(fewest, list[0].failed)
		}
	}
	more := func(n nearness) bool { return n.failed > fewest }
	own, foreign = slices.DeleteFunc(own, more), slices.DeleteFunc(foreign, more)
	// Where both are many, the larger half is the subject's own; where one kind
	// is few, the other has its places.
	own = own[:min(len(own), max(maxNearest-len(foreign), (maxNearest+1)/2))]
	best := append(own, foreign[:min(len(foreign), maxNearest-len(own))]...)
	slices.SortFunc(best, nearness.compare)
	var lines []Line
	for _, n := range best {
		if n.elsewhere && !best[0].elsewhere {
			continue
		}
		lines = append(lines, w.explained(n.row, n.alternative))
	}
	return lines, nil
}

// distance measures the alternative of the matcher that is nearest in a row. A
// row that fails in all that it asks is near to nothing.
func (w *explainer) distance(row int) (nearest nearness, ok bool) {
	rules, object := w.version.Table.Rows, w.ev.Query.Object
	firstSegment := len(object)
	if len(object) > 1 {
		if i := strings.IndexByte(object[1:], '/'); i >= 0 {
			firstSegment = i + 1
		}
	}
	for _, alternative := range w.version.Engine.Model.Alternatives() {
		n, clauses := nearness{row: row, alternative: alternative}, alternative.Clauses()
		for _, cl := range clauses {
			held := w.ev.Verdict(cl, row) == engine.Holds
			if !held {
				n.failed++
				n.foreign = n.foreign || cl.Asks("sub")
			}
			if cl.Asks("obj") && len(cl.Columns) == 1 && !cl.Evaluates {
				common := commonPrefix(w.version.Table.Symbols.Text(rules.Cols[cl.Columns[0]][row]), object)
				n.common, n.elsewhere = max(n.common, common), n.elsewhere || !held && common <= firstSegment/2
			}
		}
		nothing := len(clauses) > 1 && n.failed == len(clauses)
		if len(alternative.Columns) > 0 && !nothing && (!ok || n.compare(nearest) < 0) {
			nearest, ok = n, true
		}
	}
	return nearest, ok
}

func commonPrefix(a, b string) int {
	n := 0
	for n < len(a) && n < len(b) && a[n] == b[n] {
		n++
	}
	return n
}

// A Style says what a piece of an explanation's text tells.
type Style uint8

// The moods.
const (
	Plain Style = iota
	Good
	Bad
	Strong
)

// String renders the explanation as plain text, several lines, what cannot be
// printed escaped.
func (x *Explanation) String() string {
	var b strings.Builder
	_ = x.Render(&b, func(_ Style, text string) string { return text }) // a Builder takes everything
	return b.String()
}

// Render writes the explanation's text; paint may put the colours of a terminal
// around pieces of it.
func (x *Explanation) Render(w io.Writer, paint func(Style, string) string) error {
	var b strings.Builder
	mood, verdict, may := Bad, "deny", "may not"
	if x.Allowed {
		mood, verdict, may = Good, "allow", "may"
	}
	fmt.Fprintf(&b, "%s %s %s %s %s\n", paint(mood, verdict+":"), finding.Escape(x.Subject), may, finding.Escape(x.Action), finding.Escape(x.Object))
	if len(x.Groups) > 0 {
		fmt.Fprintf(&b, "  groups: %s\n", finding.Escape(strings.Join(x.Groups, ", ")))
	}
	if len(x.Roles) > 0 {
		fmt.Fprintf(&b, "  roles: %s\n", finding.Escape(strings.Join(x.Roles, ", ")))
	}
	fmt.Fprintf(&b, "  why: %s\n", x.Why)
	if x.Error != "" {
		fmt.Fprintf(&b, "  error: %s\n", finding.Escape(x.Error))
	}
	if x.Deciding != nil {
		fmt.Fprintf(&b, "  decided by %s\n", paint(Strong, fmt.Sprintf("%s:%d", finding.Escape(x.Deciding.File), x.Deciding.Line)))
	}
	section := func(title string, lines []Line) {
		if len(lines) == 0 {
			return
		}
		fmt.Fprintln(&b, title)
		for _, l := range lines {
			l.render(&b, paint)
		}
	}
	section("lines that match:", x.Matches)
	if x.MoreMatches > 0 {
		fmt.Fprintf(&b, "  and %d more\n", x.MoreMatches)
	}
	section("lines that cannot be evaluated:", x.Failing)
	section("nearest lines:", x.Nearest)
	_, err := io.WriteString(w, b.String())
	return err
}

func (l *Line) render(b *strings.Builder, paint func(Style, string) string) {
	fmt.Fprintf(b, "  %s  %s\n", paint(Strong, fmt.Sprintf("%s:%d", finding.Escape(l.File), l.Line)), finding.Escape(l.Text))
	if len(l.Chain) > 0 {
		fmt.Fprintf(b, "      by way of %s\n", finding.Escape(ChainText(l.Chain)))
	}
	if l.Names != "" && len(l.Clauses) == 0 {
		fmt.Fprintf(b, "      where %s\n", finding.Escape(l.Names))
	}
	for _, c := range l.Clauses {
		word := paint(Bad, "fails")
		if c.Holds {
			word = paint(Good, "holds")
		}
		fmt.Fprintf(b, "      %s  %s: %s\n", word, finding.Escape(c.Text), c.Detail)
	}
}

// ChainText writes a chain with the g lines that lead on:
// `bob -> @contractors -> editor (line 5)`. Nothing in it is escaped.
func ChainText(chain []Step) string {
	var parts []string
	for _, s := range chain {
		if s.Line > 0 {
			s.Name = fmt.Sprintf("%s (line %d)", s.Name, s.Line)
		}
		parts = append(parts, s.Name)
	}
	return strings.Join(parts, " -> ")
}
