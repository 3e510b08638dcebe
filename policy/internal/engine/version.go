package engine

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"securefiles/authz"
	"securefiles/policy/internal/finding"
	"securefiles/policy/internal/model"
	"securefiles/policy/internal/table"
)

// A Version is one version of a policy, ready to decide. It is immutable. Its
// zero value, and nil, deny.
type Version struct {
	// Generation counts the versions, from 1.
	Generation uint64
	Digest     [sha256.Size]byte // of model and policy as they are written
	File       string            // the policy's base name
	LoadedAt   time.Time
	Took       time.Duration // to load it
	Table      *table.Table
	Engine     *Engine
	Findings   []finding.Finding

	// Kept are names that were roles before the file was cut, and are reserved
	// until it is whole.
	Kept map[string]bool

	reserved []uint64 // a bit for each symbol: roles, which no subject may be called
}

// NewVersion indexes a policy. The error says that its matcher cannot be
// evaluated.
func NewVersion(m *model.Model, t *table.Table, opts Options) (*Version, error) {
	reserved, err := reservedNames(m, t) // it interns, so it comes first
	if err != nil {
		return nil, err
	}
	e, err := New(m, t, opts)
	if err != nil {
		return nil, err
	}
	return &Version{Table: t, Engine: e, reserved: reserved}, nil
}

// FixMoment gives a query the moment of now where it asks about none.
func (v *Version) FixMoment(q *authz.Query) {
	if v != nil && v.Engine != nil {
		v.Engine.FixMoment(q)
	}
}

// Decide asks the policy, however long that takes. An error denies, whatever is
// beside it.
func (v *Version) Decide(q *authz.Query) (authz.Decision, error) { return v.answer(limit{}, q) }

// DecideWithin is Decide until the context ends, or the engine's timeout has
// passed: then the error is a *LateError.
func (v *Version) DecideWithin(ctx context.Context, q *authz.Query) (authz.Decision, error) {
	if v == nil || v.Engine == nil {
		return v.answer(limit{}, q)
	}
	return v.answer(newLimit(ctx, &v.Engine.limited), q)
}

func (v *Version) answer(l limit, q *authz.Query) (d authz.Decision, err error) {
	defer func() {
		if r := recover(); r != nil { // Casbin's own functions panic
			d, err = authz.Decision{}, fmt.Errorf("decide: %v", r)
		}
	}()
	if v == nil || v.Engine == nil {
		return authz.Decision{}, errors.New("decide: no policy has been loaded")
	}
	return v.decide(l, q)
}

func (v *Version) decide(l limit, q *authz.Query) (authz.Decision, error) {
	d := authz.Decision{Generation: v.Generation}
	if q.Principal.Subject == "" || q.Principal.Subject[0] == '@' || strings.HasPrefix(q.Principal.Subject, authz.RolePrefix) {
		return d, fmt.Errorf("%w: %q is no name of a subject", authz.ErrReservedSubject, q.Principal.Subject)
	}
	subject := v.Engine.Lookup(q.Principal.Subject)
	if subject != table.NoSymbol && v.IsReserved(subject) || v.Kept[q.Principal.Subject] {
		return d, fmt.Errorf("%w: %q is a role", authz.ErrReservedSubject, q.Principal.Subject)
	}
	allowed, row, err := v.Engine.decideWithin(l, q, subject)
	if err != nil {
		return d, fmt.Errorf("decide: %w", err)
	}
	if allowed {
		d.Effect = authz.Allow
	}
	if row >= 0 {
		d.File, d.Line = v.File, int(v.Table.Rows.Lines[row])
	}
	return d, nil
}

// LargestBucket returns the most lines that no index tells apart, and one of
// them; 0 where there is none.
func (v *Version) LargestBucket() (size, line int) {
	if v.Table.Rows.Len() == 0 {
		return 0, 0
	}
	return v.Engine.Plan.Bucket, int(v.Table.Rows.Lines[v.Engine.Plan.BucketRow])
}

// RowAt returns the row of a line of the policy, or -1.
func (v *Version) RowAt(line int) int {
	if line == 0 {
		return -1
	}
	return slices.Index(v.Table.Rows.Lines, uint32(line))
}

// reservedNames are the roles of the policy, all names that are marked as roles,
// and those that the matcher or a rule asks for, which nobody may have. Those get
// their symbols here, so that it must come before any index.
//
// A role definition counts where it is asked anything of the subject, in
// whatever way that is written: g(r.sub, …), g((r.sub), …), g(r.sub + "", …).
func reservedNames(m *model.Model, t *table.Table) ([]uint64, error) {
	kinds, roles := map[string]bool{"g": true}, []table.Symbol(nil)
	read := func(p *model.Part) {
		for _, c := range m.RoleCalls(p) {
			if !c.Name.Asks("sub") {
				continue
			}
			kinds[c.Kind] = true
			for _, text := range c.Role.Texts {
				if text != "" && text[0] != '@' { // no subject is called so
					roles = append(roles, t.Symbols.Intern(text))
				}
			}
		}
	}
	read(&m.Root.Part)
	seen := make([]bool, t.Symbols.Len())
	for _, column := range m.Subrules() {
		for _, rule := range t.Rows.Cols[column] {
			if seen[rule] {
				continue
			}
			seen[rule] = true
			part, err := model.ParseSubrule(m, t.Symbols.Text(rule))
			if err != nil { // it compiled before
				return nil, fmt.Errorf("read the rule %q: %w", t.Symbols.Text(rule), err)
			}
			read(&part)
		}
	}
	for kind := range kinds {
		for _, edge := range t.Edges[kind] {
			roles = append(roles, edge.Role)
		}
	}
	names := make([]uint64, t.Symbols.Len()/64+1)
	for s := range table.Symbol(t.Symbols.Len()) {
		if strings.HasPrefix(t.Symbols.Text(s), authz.RolePrefix) {
			roles = append(roles, s)
		}
	}
	for _, role := range roles {
		if t.Symbols.Text(role) == authz.Anonymous { // who it is is not free for the taking
			continue
		}
		names[role/64] |= 1 << (role % 64)
	}
	return names, nil
}

// IsReserved reports whether a name is a role, which no subject may be called.
func (v *Version) IsReserved(name table.Symbol) bool { return v.reserved[name/64]>>(name%64)&1 == 1 }

// NotByPath says why the lines alone do not tell what a principal may have, or
// returns "".
func (ev *Evaluator) NotByPath() string {
	for _, alternative := range ev.engine.Model.Alternatives() {
		paths := 0
		for _, cl := range alternative.Clauses() {
			if cl.Evaluates {
				return "the matcher evaluates rules of the policy, which may ask for anything"
			}
			if !cl.Asks("obj") {
				continue
			}
			paths++
			if _, ok := ev.engine.Model.PathClauseOf(cl); !ok || paths > 1 {
				return fmt.Sprintf("the matcher compares the path in a way that cannot be listed: %s", cl.Source)
			}
		}
		if len(alternative.Columns) == 0 && ev.alone(alternative) != fails {
			return "a part of the matcher asks nothing of the policy, and may hold whatever the lines say"
		}
	}
	return ""
}

// alone evaluates the clauses that ask nothing of the path, of an alternative
// that asks nothing of the policy.
func (ev *Evaluator) alone(alternative *model.Term) Verdict {
	for _, cl := range alternative.Clauses() {
		if cl.Asks("obj") {
			continue
		}
		if v := ev.Verdict(cl, -1); v != Holds {
			return v
		}
	}
	return Holds
}

// Names returns the users and groups that the policy or the model names, each
// once, in the policy's order. Roles, anonymous and the built-in groups are not
// among them.
func (v *Version) Names() []string {
	seen := make([]bool, v.Table.Symbols.Len())
	var names []string
	add := func(sym table.Symbol) {
		if seen[sym] {
			return
		}
		seen[sym] = true
		text := v.Table.Symbols.Text(sym)
		if text != "" && !v.IsReserved(sym) && text != authz.Anonymous && text != authz.GroupAnyone && text != authz.GroupAuthenticated {
			names = append(names, text)
		}
	}
	kinds := map[string]bool{"g": true}
	for _, c := range v.Engine.Model.SubjectRoles() {
		kinds[c.Kind] = true
	}
	for _, column := range v.Engine.Model.SubjectColumns() {
		for _, sym := range v.Table.Rows.Cols[column] {
			add(sym)
		}
	}
	for _, kind := range slices.Sorted(maps.Keys(kinds)) {
		for _, edge := range v.Table.Edges[kind] {
			add(edge.Name)
		}
	}
	for _, name := range v.Engine.Model.SubjectTexts() {
		if sym, ok := v.Table.Symbols.Lookup(name); ok {
			add(sym)
		} else if name != "" && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

// Text renders a row as a policy line.
func (v *Version) Text(row int) string {
	var fields []string
	for _, col := range v.Table.Rows.Cols {
		fields = append(fields, v.Table.Symbols.Text(col[row]))
	}
	return v.LineText(fields)
}

// LineText renders the fields of a row as a policy line.
func (v *Version) LineText(fields []string) string {
	line := []string{"p"}
	for _, f := range v.Engine.Model.Written(fields) {
		line = append(line, table.QuoteField(f))
	}
	return strings.Join(line, ", ")
}
