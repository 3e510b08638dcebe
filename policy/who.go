package policy

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/casbin/casbin/v2/constant"

	"securefiles/authz"
)

// Who says who may have a path: each name of the policy, by the line that
// decides.
type Who struct {
	Object string `json:"object"`
	Action string `json:"action"`
	Domain string `json:"domain,omitempty"`
	// Exact says that a user whom the policy does not name comes out as
	// @authenticated does. Where it is false, NotExact says why, and only the
	// names that are listed are answered for.
	Exact    bool   `json:"exact"`
	NotExact string `json:"not_exact,omitempty"`
	// Allowed and Denied are in the order of the policy's names; Denied are
	// those whom a line denies, not those whom none allows.
	Allowed []Holder `json:"allowed"`
	Denied  []Holder `json:"denied"`
}

// Kinds of names.
const (
	KindUser      = "user"
	KindGroup     = "group"
	KindAnonymous = "anonymous" // whoever has no credentials
)

// A Holder is a name of the policy, with the line that decides for it: a user
// with no groups but the built-in ones, or an unnamed user with one group.
type Holder struct {
	Name string `json:"name"`
	Kind string `json:"kind"`
	// Line is nil where the model allows what no line denies.
	Line *Line `json:"line,omitempty"`
}

// Who asks the policy about one path for each name that it has, by the code
// that serves. The query's principal makes no difference.
func (s *Store) Who(ctx context.Context, q authz.Query) (*Who, error) {
	a, err := s.newAsker()
	if err != nil {
		return nil, err
	}
	defer a.end()
	w := &Who{Object: q.Object, Action: q.Action, Domain: q.Domain, Allowed: []Holder{}, Denied: []Holder{}}
	w.NotExact = a.snap.engine.def.namesUnlisted()
	w.Exact = w.NotExact == ""
	for i, p := range a.principals() {
		if i%64 == 0 && ctx.Err() != nil {
			return nil, ctx.Err()
		}
		q.Principal = p.principal
		d, line, err := a.ask(&q)
		switch {
		case err != nil: // denied, and no line says so
		case d.Effect == authz.Allow:
			w.Allowed = append(w.Allowed, Holder{p.name, p.kind, line})
		case line != nil:
			w.Denied = append(w.Denied, Holder{p.name, p.kind, line})
		}
	}
	a.findLinks()
	return w, nil
}

// What says what a principal may have: the patterns of the policy that reach
// it.
type What struct {
	Subject string   `json:"subject"`
	Groups  []string `json:"groups"`
	Action  string   `json:"action"`
	Domain  string   `json:"domain,omitempty"`
	// Exact says that the lines are all that there is. Where it is false,
	// NotExact says why.
	Exact    bool   `json:"exact"`
	NotExact string `json:"not_exact,omitempty"`
	// Everything says that the model allows what no line denies.
	Everything bool `json:"everything,omitempty"`
	// Ordered says that among the lines, as they are listed, the first that
	// matches a path decides.
	Ordered bool `json:"ordered,omitempty"`
	// Grants are in the order of their evaluation.
	Grants []Grant `json:"grants"`
}

// A Grant is a line that reaches a principal, with the paths that it is about.
type Grant struct {
	Pattern string `json:"pattern"`
	Line    Line   `json:"line"`
	// Example is a path that the line matches and for which its effect comes
	// out; empty where none was found.
	Example string `json:"example,omitempty"`
	// Overridden is the line that decides instead, for every path that was
	// tried.
	Overridden *Line `json:"overridden,omitempty"`
}

// What lists the lines that reach a principal. The query's object makes no
// difference.
func (s *Store) What(ctx context.Context, q authz.Query) (*What, error) {
	a, err := s.newAsker()
	if err != nil {
		return nil, err
	}
	defer a.end()
	e := a.snap.engine
	if q.Principal, err = a.asRole(q.Principal); err != nil {
		return nil, err
	}
	w := &What{
		Subject: q.Principal.Subject, Groups: q.Principal.Groups, Action: q.Action, Domain: q.Domain, Grants: []Grant{},
		Everything: e.def.effect == constant.DenyOverrideEffect,
		Ordered:    e.def.effect == constant.PriorityEffect || e.def.effect == constant.SubjectPriorityEffect,
	}
	a.bind(&q)
	for _, reached := range a.reached() {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		a.bind(&q)
		g := Grant{Pattern: "any path", Line: a.line(reached.row)}
		tries := []string{"/x"}
		switch cl := reached.clause; {
		case cl != nil && reached.path.function != "":
			g.Pattern = e.syms.text(e.rules.cols[reached.path.col][reached.row])
			tries = samplePaths(reached.path.function, g.Pattern)
		case cl != nil:
			g.Pattern, tries = cl.source, nil
		}
		for _, path := range tries {
			q.Object = path
			a.bind(&q)
			if reached.clause != nil {
				if a.ev.verdict(reached.clause, reached.row) != holds {
					continue
				}
			}
			if a.try(&q, &g) {
				break
			}
		}
		w.Grants = append(w.Grants, g)
	}
	w.NotExact = a.ev.notByPath()
	w.Exact = w.NotExact == ""
	a.findLinks()
	return w, nil
}

// try reports whether the effect of a grant's line comes out for a path that it
// matches.
func (a *asker) try(q *authz.Query, g *Grant) bool {
	d, line, err := a.ask(q)
	switch {
	case err != nil:
	case d.Effect.String() == g.Line.Effect:
		g.Example, g.Overridden = q.Object, nil
		return true
	case g.Overridden == nil:
		g.Overridden = line
	}
	return false
}

// A reach is a row all of whose clauses hold that do not ask for the path.
type reach struct {
	row    int
	clause *term // that asks for the path; nil where none does
	path   pathClause
}

// reached returns the rows that reach the principal for some path.
func (a *asker) reached() []reach {
	var out []reach
	for row := range a.snap.engine.rules.len() {
		for _, alternative := range a.snap.engine.def.alternatives() {
			ok, at := true, reach{row: row}
			for _, cl := range alternative.clauses() {
				if cl.asks("obj") || cl.evaluates {
					at.clause = cl
					at.path, _ = a.snap.engine.def.pathClauseOf(cl)
					continue
				}
				ok = ok && a.ev.verdict(cl, row) == holds
			}
			if ok && len(alternative.columns) > 0 {
				out = append(out, at)
				break
			}
		}
	}
	return out
}

// notByPath says why the lines alone do not tell what a principal may have, or
// returns "".
func (ev *evaluator) notByPath() string {
	for _, alternative := range ev.engine.def.alternatives() {
		paths := 0
		for _, cl := range alternative.clauses() {
			if cl.evaluates {
				return "the matcher evaluates rules of the policy, which may ask for anything"
			}
			if !cl.asks("obj") {
				continue
			}
			paths++
			if _, ok := ev.engine.def.pathClauseOf(cl); !ok || paths > 1 {
				return fmt.Sprintf("the matcher compares the path in a way that cannot be listed: %s", cl.source)
			}
		}
		if len(alternative.columns) == 0 && ev.alone(alternative) != fails {
			return "a part of the matcher asks nothing of the policy, and may hold whatever the lines say"
		}
	}
	return ""
}

// alone evaluates the clauses that ask nothing of the path, of an alternative
// that asks nothing of the policy.
func (ev *evaluator) alone(alternative *term) verdict {
	for _, cl := range alternative.clauses() {
		if cl.asks("obj") {
			continue
		}
		if v := ev.verdict(cl, -1); v != holds {
			return v
		}
	}
	return holds
}

// listable finds the comparisons of a subject to what the policy or the model
// names, for which all other subjects are the same.
var listable = regexp.MustCompile(`\bg\d*\(\s*r_sub\s*,\s*(?:p_\w+|"[^"]*"|'[^']*')\s*(?:,\s*(?:[rp]_\w+|"[^"]*"|'[^']*')\s*)?\)|\br_sub\s*[=!]=\s*(?:p_\w+|"[^"]*"|'[^']*')|(?:\bp_\w+|"[^"]*"|'[^']*')\s*[=!]=\s*r_sub\b`)

// namesUnlisted says why subjects that the policy does not name may differ from
// each other, or returns "".
func (d *definition) namesUnlisted() string {
	switch {
	case d.evaluates:
		return "the matcher evaluates rules of the policy, which may ask for any subject: cannot enumerate, falls back to listed subjects"
	case strings.Contains(listable.ReplaceAllString(d.matcher, ""), "r_sub"):
		return "the matcher compares r.sub by more than g and ==: cannot enumerate, falls back to listed subjects"
	}
	return ""
}

// An asker asks one version of the policy many questions.
type asker struct {
	*witness
	rows map[int]int     // line -> row
	own  map[string]bool // of ownNames
}

func (s *Store) newAsker() (*asker, error) {
	snap := s.current.Load()
	if snap == nil {
		return nil, errors.New("no policy has been loaded")
	}
	w, err := snap.newWitness(&authz.Query{})
	if err != nil {
		return nil, err
	}
	return &asker{witness: w, rows: map[int]int{}}, nil
}

// bind makes the asker's evaluator see a query.
func (a *asker) bind(q *authz.Query) {
	for i, name := range a.snap.engine.def.requestFields {
		a.ev.request[i], _ = requestValue(q, name) // begin has found them all
	}
	clear(a.ev.found)
	clear(a.ev.verdicts)
	a.ev.query, a.ev.walks = *q, a.ev.walks[:0]
}

// ask decides by the serving code, and describes the line that decided.
func (a *asker) ask(q *authz.Query) (authz.Decision, *Line, error) {
	d, err := a.snap.decideSafely(q)
	if err != nil || d.Line == 0 {
		return d, nil, err
	}
	row, ok := a.rows[d.Line]
	if !ok {
		row = slices.Index(a.snap.table.rules.lines, uint32(d.Line))
		a.rows[d.Line] = row
	}
	a.bind(q)
	line := a.line(row)
	return d, &line, nil
}

// A named principal is how a name of the policy asks.
type named struct {
	name, kind string
	principal  authz.Principal
}

// principals returns the names of the policy, in its order: whoever has no
// credentials, whoever has some, then groups and users.
func (a *asker) principals() []named {
	stranger := strangerTo(a.snap)
	list := []named{
		{authz.Anonymous, KindAnonymous, authz.AnonymousPrincipal()},
		{authz.GroupAuthenticated, KindGroup, authz.Principal{Subject: stranger}.WithBuiltinGroups()},
	}
	for _, name := range a.snap.names() {
		if name[0] == '@' {
			list = append(list, named{name, KindGroup, authz.Principal{Subject: stranger, Groups: []string{name}}.WithBuiltinGroups()})
		} else {
			list = append(list, named{name, KindUser, authz.Principal{Subject: name}.WithBuiltinGroups()})
		}
	}
	return list
}

// strangerTo is a subject that no policy names.
func strangerTo(snaps ...*snapshot) string {
	name := "someone"
	for slices.ContainsFunc(snaps, func(s *snapshot) bool { _, ok := s.table.syms.lookup(name); return ok }) {
		name += "'"
	}
	return name
}

// asRole makes of a role or a group, which cannot ask, an unnamed user who has
// it.
func (a *asker) asRole(p authz.Principal) (authz.Principal, error) {
	if p.Subject == "" {
		return p, fmt.Errorf("%w: it is empty", authz.ErrReservedSubject)
	}
	name, ok := a.snap.table.syms.lookup(p.Subject)
	if p.Subject[0] == '@' || ok && a.snap.isReserved(name) {
		return authz.Principal{Subject: strangerTo(a.snap), Groups: append([]string{p.Subject}, p.Groups...)}.WithBuiltinGroups(), nil
	}
	return p, nil
}

var subjectLiteral = regexp.MustCompile(`(?:\br_sub\s*[=!]=|\bg\d*\(\s*r_sub\s*,)\s*["']([^"']*)["']|["']([^"']*)["']\s*[=!]=\s*r_sub\b`)

// names returns the users and groups that the policy or the model names, each
// once, in the policy's order. Roles, anonymous and the built-in groups are not
// among them.
func (s *snapshot) names() []string {
	seen := make([]bool, s.table.syms.len())
	var names []string
	add := func(sym symbol) {
		if seen[sym] {
			return
		}
		seen[sym] = true
		text := s.table.syms.text(sym)
		if text != "" && !s.isReserved(sym) && text != authz.Anonymous && text != authz.GroupAnyone && text != authz.GroupAuthenticated {
			names = append(names, text)
		}
	}
	definitions := map[string]bool{"g": true}
	for _, rc := range s.engine.def.roleCalls() {
		definitions[rc.definition] = true
	}
	for _, col := range s.subjectColumns() {
		for _, sym := range s.table.rules.cols[col] {
			add(sym)
		}
	}
	for _, definition := range slices.Sorted(maps.Keys(definitions)) {
		for _, link := range s.table.links[definition] {
			add(link.name)
		}
	}
	for _, m := range subjectLiteral.FindAllStringSubmatch(s.engine.def.matcher, -1) {
		name := m[1] + m[2]
		if sym, ok := s.table.syms.lookup(name); ok {
			add(sym)
		} else if name != "" && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

// subjectColumns are the columns that the matcher compares the subject to, and
// sub.
func (s *snapshot) subjectColumns() []int {
	var columns []int
	for _, rc := range s.engine.def.roleCalls() {
		columns = append(columns, rc.col)
	}
	for _, m := range subjectField.FindAllStringSubmatch(s.engine.def.matcher, -1) {
		columns = append(columns, s.engine.def.policyField(m[1]+m[2]))
	}
	columns = append(columns, s.engine.def.policyField("sub"))
	slices.Sort(columns)
	return slices.DeleteFunc(slices.Compact(columns), func(col int) bool { return col < 0 })
}

// subjectField finds a field of p that the subject is compared to.
var subjectField = regexp.MustCompile(`\br_sub\s*[=!]=\s*p_(\w+)|\bp_(\w+)\s*[=!]=\s*r_sub\b`)
