package policy

import (
	"cmp"
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/casbin/casbin/v2/constant"

	"securefiles/authz"
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

// A Line is one line of the policy, as far as it concerns a request.
type Line struct {
	File   string `json:"file"`
	Line   int    `json:"line"`
	Text   string `json:"text"`
	Effect string `json:"effect"`
	// Chain leads from the subject to the line's subject by way of groups and
	// roles; empty where they are the same.
	Chain []Step `json:"chain,omitempty"`
	// Clauses are the parts of the matcher, of a line that does not match.
	Clauses []Clause `json:"clauses,omitempty"`
}

// A Step is a name in a chain of roles.
type Step struct {
	Name string `json:"name"`
	// Line is the g line that leads here; 0 for the subject itself and for a
	// group of the request.
	Line int `json:"line,omitempty"`
}

// A Clause is a part of a matcher, joined to the others by &&.
type Clause struct {
	Text  string `json:"text"`
	Holds bool   `json:"holds"`
	// Detail says so with values: `"read" is not "list"`.
	Detail string `json:"detail"`
}

// Bounds of what an explanation shows: after so many, the rest is like them.
const (
	maxMatches = 50
	maxNearest = 5
	maxFailing = 5
	maxRoles   = 50
)

// Explain decides as Decide does, on the version that is being served, and says
// how. Where Decide returns an error, which denies, the explanation says which.
// It looks at every line; the error is that of a context that ends meanwhile.
func (s *Store) Explain(ctx context.Context, q authz.Query) (x *Explanation, err error) {
	defer func() {
		if r := recover(); r != nil { // Casbin's own functions panic
			x, err = nil, fmt.Errorf("explain: %v", r)
		}
	}()
	snap := s.current.Load()
	if snap == nil {
		return nil, errors.New("explain: no policy has been loaded")
	}
	return snap.explain(ctx, &q)
}

func (s *snapshot) explain(ctx context.Context, q *authz.Query) (*Explanation, error) {
	d, decideErr := s.decideSafely(q)
	x := &Explanation{
		Subject: q.Principal.Subject, Groups: q.Principal.Groups, Object: q.Object, Action: q.Action,
		Domain: q.Domain, IP: q.IP, Host: q.Host,
		Allowed: d.Effect == authz.Allow && decideErr == nil, Decision: d.String(), Matches: []Line{},
	}
	if x.Groups == nil {
		x.Groups = []string{}
	}
	x.Reason = reason(q, d, decideErr)
	if decideErr != nil {
		x.Error = decideErr.Error()
	}
	if errors.Is(decideErr, authz.ErrReservedSubject) {
		x.Why = s.whyReserved(q.Principal.Subject)
		return x, nil
	}

	w, err := s.newWitness(q)
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
	if s.engine.asksPolicy {
		matching, failing, err = w.ev.matchAll(ctx.Err)
		if err != nil {
			return nil, fmt.Errorf("explain: %w", err)
		}
	}
	for _, row := range matching[:min(len(matching), maxMatches)] {
		x.Matches = append(x.Matches, w.line(row))
	}
	x.MoreMatches = len(matching) - len(x.Matches)
	for _, row := range failing[:min(len(failing), maxFailing)] {
		x.Failing = append(x.Failing, w.explained(row, s.engine.def.alternatives()[0]))
	}
	deciding := -1
	if d.Line > 0 {
		deciding = slices.Index(s.table.rules.lines, uint32(d.Line))
		line := w.line(deciding)
		x.Deciding = &line
	}
	if d.Line == 0 && !x.Allowed && len(matching) == 0 && decideErr == nil {
		if x.Nearest, err = w.nearest(ctx); err != nil {
			return nil, fmt.Errorf("find the nearest lines: %w", err)
		}
	}
	w.findLinks()
	switch {
	case decideErr != nil:
		x.Why = whyError
	default:
		x.Why = s.why(x.Allowed, deciding, matching)
	}
	return x, nil
}

// decideSafely is what Store.Decide answers.
func (s *snapshot) decideSafely(q *authz.Query) (d authz.Decision, err error) {
	defer func() {
		if r := recover(); r != nil { // Casbin's own functions panic
			d, err = authz.Decision{}, fmt.Errorf("decide: %v", r)
		}
	}()
	return s.decide(q)
}

// reason is the word that authz.Guard answers with.
func reason(q *authz.Query, d authz.Decision, err error) authz.Reason {
	switch {
	case errors.Is(err, authz.ErrReservedSubject):
		return authz.ReasonSubject
	case err != nil:
		return authz.ReasonUnavailable
	case d.Effect == authz.Allow:
		return authz.ReasonPolicy
	case q.Principal.IsAnonymous():
		return authz.ReasonAnonymous
	case d.Line == 0:
		return authz.ReasonDefaultDeny
	}
	return authz.ReasonPolicy
}

const whyError = "the matcher cannot be evaluated for this request, and what cannot be decided is denied"

// whyReserved says which line makes a role of a name.
func (s *snapshot) whyReserved(subject string) string {
	name, ok := s.table.syms.lookup(subject)
	if ok && s.isReserved(name) {
		for _, links := range s.table.links {
			for _, link := range links {
				if link.role == name {
					return fmt.Sprintf("line %d makes %s a role, and no user may be called like a role: rename one of them", link.line, escape(strconv.Quote(subject)))
				}
			}
		}
		return fmt.Sprintf("the model or a rule asks for a role called %s, and no user may be called like a role: rename one of them", escape(strconv.Quote(subject)))
	}
	return "a user's name is not empty and does not begin with @, which marks groups"
}

// why says how the effect of the model made one decision of the rows that
// match, in the words of the effect.
func (s *snapshot) why(allowed bool, deciding int, matching []int) string {
	e := s.engine
	if !e.asksPolicy || e.rules.len() == 0 {
		switch {
		case e.def.effect == constant.DenyOverrideEffect:
			return "no line denies it, and the model allows what no line denies"
		case allowed:
			return "the matcher holds for this request, whatever the lines say"
		}
		return "the matcher does not hold for this request, whatever the lines say"
	}
	line := func(row int) string { return fmt.Sprintf("line %d", e.rules.lines[row]) }
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
	allows := slices.DeleteFunc(slices.Clone(others), func(row int) bool { return e.effectOf(row) != rowAllows })
	switch e.def.effect {
	case constant.AllowOverrideEffect:
		if len(others) == 0 {
			return line(deciding) + " allows it, and the model asks for no more than one that does"
		}
		return line(deciding) + " is the first that matches and allows, and the model asks for no more"
	case constant.DenyOverrideEffect:
		return line(deciding) + " denies it, and the model asks for no more than one that does"
	case constant.AllowAndDenyEffect:
		switch {
		case allowed:
			return line(deciding) + " allows it, and no line that matches denies it"
		case len(allows) == 0:
			return "the explicit deny at " + line(deciding) + " decides, and no line allows it either"
		case len(allows) == 1:
			return "the explicit deny at " + line(deciding) + " wins over the allow at " + line(allows[0])
		}
		return fmt.Sprintf("the explicit deny at %s wins over %d allows, the first at %s", line(deciding), len(allows), line(allows[0]))
	case constant.SubjectPriorityEffect:
		if len(others) == 0 {
			return line(deciding) + " is the only one that matches"
		}
		return line(deciding) + " is the first of those that match by its subject's place in the tree of roles: the nearest to the user goes first"
	}
	switch col := e.def.policyField("priority"); {
	case len(others) == 0:
		return line(deciding) + " is the only one that matches"
	case col >= 0:
		return fmt.Sprintf("%s is the first match by priority: %s, before %s of %s", line(deciding),
			e.syms.text(e.rules.cols[col][deciding]), e.syms.text(e.rules.cols[col][others[0]]), line(others[0]))
	}
	return line(deciding) + " is the first match in the file's order, which is the model's priority"
}

// A witness looks at the rows of a snapshot for one query.
type witness struct {
	snap  *snapshot
	ev    *evaluator
	calls []roleCall
	links map[linkKey][]*Step // steps whose g line is looked for
}

func (s *snapshot) newWitness(q *authz.Query) (*witness, error) {
	ev, err := s.engine.begin(q)
	if err != nil {
		return nil, err
	}
	return &witness{snap: s, ev: ev, calls: s.engine.def.roleCalls(), links: map[linkKey][]*Step{}}, nil
}

func (w *witness) end() { w.snap.engine.end(w.ev) }

// roles returns the names that the subject reaches beside its groups.
func (w *witness) roles() []string {
	var names []string
	seen := map[string]bool{}
	for _, rc := range w.calls {
		if strings.HasPrefix(rc.domain, "p_") {
			continue // each line has its own
		}
		domain, ok := w.ev.roleDomain(rc, -1)
		if !ok {
			continue
		}
		walked := w.ev.walk(rc.definition, w.ev.query.Principal.Subject, w.ev.lookup(w.ev.query.Principal.Subject), domain)
		walked.all()
		for _, r := range walked.reached[1:] {
			name := w.snap.table.syms.text(r.name)
			if !seen[name] && !slices.Contains(w.ev.query.Principal.Groups, name) && len(names) < maxRoles {
				seen[name] = true
				names = append(names, name)
			}
		}
	}
	return names
}

// line describes a row. The g lines of its chain are found by findLinks.
func (w *witness) line(row int) Line {
	l := w.snap.line(row)
	hops := w.ev.chain(w.calls, row)
	l.Chain = make([]Step, len(hops))
	for i, h := range hops {
		l.Chain[i].Name = h.name
		if h.ok {
			w.links[h.link] = append(w.links[h.link], &l.Chain[i])
		}
	}
	if len(hops) == 0 {
		l.Chain = nil
	}
	return l
}

// line describes a row for nobody.
func (s *snapshot) line(row int) Line {
	l := Line{File: s.file, Line: int(s.table.rules.lines[row]), Text: s.text(row), Effect: "allow"}
	switch s.engine.effectOf(row) {
	case rowDenies:
		l.Effect = "deny"
	case rowSilent:
		l.Effect = "none"
	}
	return l
}

// explained is line with what each clause of an alternative says.
func (w *witness) explained(row int, alternative *term) Line {
	l := w.line(row)
	for _, cl := range alternative.clauses() {
		l.Clauses = append(l.Clauses, Clause{Text: cl.source, Holds: w.ev.verdict(cl, row) == holds, Detail: w.ev.detail(cl, row)})
	}
	return l
}

// findLinks fills in the g lines of all chains, in one pass.
func (w *witness) findLinks() {
	for definition, list := range w.snap.table.links {
		for _, link := range list {
			key := linkKey{definition, link.name, link.role, link.domain}
			for _, step := range w.links[key] {
				step.Line = int(link.line)
			}
			delete(w.links, key)
			if len(w.links) == 0 {
				return
			}
		}
	}
}

// nearness says how far a row is from matching.
type nearness struct {
	row         int
	alternative *term
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
func (w *witness) nearest(ctx context.Context) ([]Line, error) {
	var own, foreign []nearness
	for row := range w.snap.table.rules.len() {
		if row%8192 == 0 && ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if w.snap.engine.effectOf(row) != rowAllows {
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
func (w *witness) distance(row int) (nearest nearness, ok bool) {
	rules, object := w.snap.table.rules, w.ev.query.Object
	firstSegment := len(object)
	if len(object) > 1 {
		if i := strings.IndexByte(object[1:], '/'); i >= 0 {
			firstSegment = i + 1
		}
	}
	for _, alternative := range w.snap.engine.def.alternatives() {
		n, clauses := nearness{row: row, alternative: alternative}, alternative.clauses()
		for _, cl := range clauses {
			held := w.ev.verdict(cl, row) == holds
			if !held {
				n.failed++
				n.foreign = n.foreign || cl.asks("sub")
			}
			if cl.asks("obj") && len(cl.columns) == 1 && !cl.evaluates {
				common := commonPrefix(w.snap.table.syms.text(rules.cols[cl.columns[0]][row]), object)
				n.common, n.elsewhere = max(n.common, common), n.elsewhere || !held && common <= firstSegment/2
			}
		}
		nothing := len(clauses) > 1 && n.failed == len(clauses)
		if len(alternative.columns) > 0 && !nothing && (!ok || n.compare(nearest) < 0) {
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

// A Mood says what a piece of an explanation's text tells.
type Mood uint8

// The moods.
const (
	Plain Mood = iota
	Good
	Bad
	Strong
)

// String renders the explanation as plain text, several lines, what cannot be
// printed escaped.
func (x *Explanation) String() string {
	var b strings.Builder
	_ = x.Render(&b, func(_ Mood, text string) string { return text }) // a Builder takes everything
	return b.String()
}

// Render writes the explanation's text; paint may put the colours of a terminal
// around pieces of it.
func (x *Explanation) Render(w io.Writer, paint func(Mood, string) string) error {
	var b strings.Builder
	mood, verdict, may := Bad, "deny", "may not"
	if x.Allowed {
		mood, verdict, may = Good, "allow", "may"
	}
	fmt.Fprintf(&b, "%s %s %s %s %s\n", paint(mood, verdict+":"), escape(x.Subject), may, escape(x.Action), escape(x.Object))
	if len(x.Groups) > 0 {
		fmt.Fprintf(&b, "  groups: %s\n", escape(strings.Join(x.Groups, ", ")))
	}
	if len(x.Roles) > 0 {
		fmt.Fprintf(&b, "  roles: %s\n", escape(strings.Join(x.Roles, ", ")))
	}
	fmt.Fprintf(&b, "  why: %s\n", x.Why)
	if x.Error != "" {
		fmt.Fprintf(&b, "  error: %s\n", escape(x.Error))
	}
	if x.Deciding != nil {
		fmt.Fprintf(&b, "  decided by %s\n", paint(Strong, fmt.Sprintf("%s:%d", escape(x.Deciding.File), x.Deciding.Line)))
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

func (l *Line) render(b *strings.Builder, paint func(Mood, string) string) {
	fmt.Fprintf(b, "  %s  %s\n", paint(Strong, fmt.Sprintf("%s:%d", escape(l.File), l.Line)), escape(l.Text))
	if len(l.Chain) > 0 {
		fmt.Fprintf(b, "      by way of %s\n", escape(ChainText(l.Chain)))
	}
	for _, c := range l.Clauses {
		word := paint(Bad, "fails")
		if c.Holds {
			word = paint(Good, "holds")
		}
		fmt.Fprintf(b, "      %s  %s: %s\n", word, escape(c.Text), c.Detail)
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
