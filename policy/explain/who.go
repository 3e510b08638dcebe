package explain

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"securefiles/authz"
	"securefiles/policy"
	"securefiles/policy/internal/engine"
	"securefiles/policy/internal/model"
	"securefiles/policy/internal/pattern"
)

// Holders says who may have a path: each name of the policy, by the line that
// decides.
type Holders struct {
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
	Allowed []Access `json:"allowed"`
	Denied  []Access `json:"denied"`
}

// Kinds of names.
const (
	KindUser      = "user"
	KindGroup     = "group"
	KindAnonymous = "anonymous" // whoever has no credentials
)

// A Access is a name of the policy, with the line that decides for it: a user
// with no groups but the built-in ones, or an unnamed user with one group.
type Access struct {
	Name string `json:"name"`
	Kind string `json:"kind"`
	// Groups are those that the user must be in beside, where a line asks for
	// $sub or $group.
	Groups []string `json:"groups,omitempty"`
	// Line is nil where the model allows what no line denies.
	Line *Line `json:"line,omitempty"`
}

// Who asks the policy about one path for each name that it has, by the code
// that serves. The query's principal makes no difference.
func Who(ctx context.Context, s *policy.Store, q authz.Query) (*Holders, error) {
	a, err := newInquiry(s)
	if err != nil {
		return nil, err
	}
	defer a.end()
	w := &Holders{Object: q.Object, Action: q.Action, Domain: q.Domain, Allowed: []Access{}, Denied: []Access{}}
	w.NotExact = a.version.Engine.Model.NamesUnlisted()
	w.Exact = w.NotExact == ""
	a.version.Engine.FixMoment(&q)
	for i, p := range a.principals() {
		if i%64 == 0 && ctx.Err() != nil {
			return nil, ctx.Err()
		}
		q.Principal = p.principal
		d, line, err := a.ask(&q)
		switch {
		case err != nil: // denied, and no line says so
		case d.Effect == authz.Allow:
			w.Allowed = append(w.Allowed, Access{p.name, p.kind, nil, line})
		case line != nil:
			w.Denied = append(w.Denied, Access{p.name, p.kind, nil, line})
		}
	}
	if err := a.addNamed(ctx, w, q); err != nil {
		return nil, err
	}
	a.findEdges()
	return w, nil
}

// Holdings says what a principal may have: the patterns of the policy that reach
// it.
type Holdings struct {
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
func What(ctx context.Context, s *policy.Store, q authz.Query) (*Holdings, error) {
	a, err := newInquiry(s)
	if err != nil {
		return nil, err
	}
	defer a.end()
	e := a.version.Engine
	asked := q.Principal.Subject
	e.FixMoment(&q)
	if q.Principal, err = a.asRole(q.Principal); err != nil {
		return nil, err
	}
	unnamed := asked != q.Principal.Subject
	w := &Holdings{
		Subject: q.Principal.Subject, Groups: q.Principal.Groups, Action: q.Action, Domain: q.Domain, Grants: []Grant{},
		Everything: e.Model.Effect == model.DenyOverride,
		Ordered:    e.Model.Effect == model.Priority || e.Model.Effect == model.SubjectPriority,
	}
	a.ev.Bind(&q)
	for _, reached := range a.reachedRows() {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		a.ev.Bind(&q)
		g, ok := Grant{Pattern: "any path", Line: a.line(reached.row)}, false
		tries := []string{"/x"}
		switch cl := reached.clause; {
		case cl != nil && reached.path.Func != pattern.Func{}:
			g.Pattern = e.Symbols.Text(e.Rows.Cols[reached.path.Col][reached.row])
			tries = nil
			for _, path := range reached.path.Func.Samples(g.Pattern) {
				tries = append(tries, filled(path, q.Principal)...)
			}
			if g.Pattern, ok = filledPattern(reached.path.Func, g.Pattern, q.Principal, unnamed); !ok {
				continue // it is nobody's
			}
		case cl != nil:
			g.Pattern, tries = cl.Source, nil
		}
		for _, path := range tries {
			q.Object = path
			a.ev.Bind(&q)
			if reached.clause != nil {
				if a.ev.Verdict(reached.clause, reached.row) != engine.Holds {
					continue
				}
			}
			if a.try(&q, &g) {
				break
			}
		}
		w.Grants = append(w.Grants, g)
	}
	w.NotExact = a.ev.NotByPath()
	w.Exact = w.NotExact == ""
	a.findEdges()
	return w, nil
}

// try reports whether the effect of a grant's line comes out for a path that it
// matches.
func (a *inquiry) try(q *authz.Query, g *Grant) bool {
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

// A reachedRow is a row all of whose clauses hold that do not ask for the path.
type reachedRow struct {
	row    int
	clause *model.Term // that asks for the path; nil where none does
	path   model.PathClause
}

// reachedRows returns the rows that reach the principal for some path.
func (a *inquiry) reachedRows() []reachedRow {
	var out []reachedRow
	for row := range a.version.Engine.Rows.Len() {
		for _, alternative := range a.version.Engine.Model.Alternatives() {
			ok, at := true, reachedRow{row: row}
			for _, cl := range alternative.Clauses() {
				if cl.Asks("obj") || cl.Evaluates {
					at.clause = cl
					at.path, _ = a.version.Engine.Model.PathClauseOf(cl)
					continue
				}
				ok = ok && a.ev.Verdict(cl, row) == engine.Holds
			}
			if ok && len(alternative.Columns) > 0 {
				out = append(out, at)
				break
			}
		}
	}
	return out
}

// An inquiry asks one version of the policy many questions.
type inquiry struct {
	*explainer
	rows map[int]int // line -> row
}

func newInquiry(s *policy.Store) (*inquiry, error) {
	version := s.Version()
	if version == nil {
		return nil, errors.New("no policy has been loaded")
	}
	w, err := newExplainer(version, &authz.Query{})
	if err != nil {
		return nil, err
	}
	return &inquiry{explainer: w, rows: map[int]int{}}, nil
}

// ask decides by the serving code, and describes the line that decided.
func (a *inquiry) ask(q *authz.Query) (authz.Decision, *Line, error) {
	d, err := a.version.Decide(q)
	if err != nil || d.Line == 0 {
		return d, nil, err
	}
	row, ok := a.rows[d.Line]
	if !ok {
		row = a.version.RowAt(d.Line)
		a.rows[d.Line] = row
	}
	a.ev.Bind(q)
	line := a.line(row)
	return d, &line, nil
}

// A subject principal is how a name of the policy asks.
type subject struct {
	name, kind string
	principal  authz.Principal
}

// principals returns the names of the policy, in its order: whoever has no
// credentials, whoever has some, then groups and users.
func (a *inquiry) principals() []subject {
	stranger := strangerTo(a.version)
	list := unnamed(stranger)
	for _, name := range a.version.Names() {
		list = append(list, principalOf(name, stranger))
	}
	return list
}

// unnamed are those whom no policy names: whoever has no credentials, and whoever has
// some.
func unnamed(stranger string) []subject {
	return []subject{
		{authz.Anonymous, KindAnonymous, authz.AnonymousPrincipal()},
		{authz.GroupAuthenticated, KindGroup, authz.Principal{Subject: stranger}.WithBuiltinGroups()},
	}
}

// principalOf is how a user asks, or a stranger who has a group.
func principalOf(name, stranger string) subject {
	if name[0] == '@' {
		return subject{name, KindGroup, authz.Principal{Subject: stranger, Groups: []string{name}}.WithBuiltinGroups()}
	}
	return subject{name, KindUser, authz.Principal{Subject: name}.WithBuiltinGroups()}
}

// strangerTo is a subject that no policy names.
func strangerTo(snaps ...*engine.Version) string {
	name := "someone"
	for slices.ContainsFunc(snaps, func(s *engine.Version) bool { _, ok := s.Table.Symbols.Lookup(name); return ok }) {
		name += "'"
	}
	return name
}

// asRole makes of a role or a group, which cannot ask, an unnamed user who has
// it.
func (a *inquiry) asRole(p authz.Principal) (authz.Principal, error) {
	if p.Subject == "" {
		return p, fmt.Errorf("%w: it is empty", authz.ErrReservedSubject)
	}
	name, ok := a.version.Table.Symbols.Lookup(p.Subject)
	if p.Subject[0] == '@' || strings.HasPrefix(p.Subject, authz.RolePrefix) || ok && a.version.IsReserved(name) {
		return authz.Principal{Subject: strangerTo(a.version), Groups: append([]string{p.Subject}, p.Groups...)}.WithBuiltinGroups(), nil
	}
	return p, nil
}
