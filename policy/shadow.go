package policy

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/casbin/casbin/v2"
	casbinmodel "github.com/casbin/casbin/v2/model"
	"github.com/casbin/casbin/v2/persist"
	"github.com/casbin/casbin/v2/rbac"
	defaultrolemanager "github.com/casbin/casbin/v2/rbac/default-role-manager"

	"securefiles/authz"
)

// A Shadow decides as its store does, and has a share of the decisions made
// again, in the background, by the stock Casbin enforcer that looks at every
// line. The answers must not differ: it is there to show that they do not.
//
// Stock Casbin holds the policy a second time, in some six times the memory, and
// takes up to a second for a decision among a million lines. One is made at a
// time; those that come meanwhile are not made again.
type Shadow struct {
	store *Store
	share float64
	tasks chan shadowTask
}

type shadowTask struct {
	snap     *snapshot
	query    authz.Query
	decision authz.Decision
	err      error
}

// A Comparison is what came of a decision that was made again.
type Comparison struct {
	Query authz.Query
	// Ours and Stocks are the two decisions, each with the line that decided,
	// as a policy has it.
	Ours, Stocks ComparedDecision
	// Same says that there is no difference. A request for which stock Casbin
	// fails is the same where we do not allow it.
	Same bool
}

// A ComparedDecision is an effect, and the text of the line that decided; empty
// where none did.
type ComparedDecision struct {
	Effect authz.Effect
	Line   string
	Err    error
}

// String returns the decision for a log.
func (d ComparedDecision) String() string {
	switch {
	case d.Err != nil:
		return "error: " + d.Err.Error()
	case d.Line == "":
		return d.Effect.String() + " by default"
	}
	return d.Effect.String() + " by " + d.Line
}

// NewShadow returns a Shadow of a store for a share of its decisions, from 0 to
// 1. Nothing is made again until Run runs.
func NewShadow(s *Store, share float64) (*Shadow, error) {
	if s == nil || !(share >= 0 && share <= 1) {
		return nil, errors.New("a shadow needs a store and a share from 0 to 1")
	}
	return &Shadow{store: s, share: share, tasks: make(chan shadowTask, 1)}, nil
}

// Decide is the store's.
func (s *Shadow) Decide(ctx context.Context, q authz.Query) (authz.Decision, error) {
	snap, d, err := s.store.decide(q)
	if rand.Float64() < s.share {
		select {
		case s.tasks <- shadowTask{snap, q, d, err}:
		default: // busy with another
		}
	}
	return d, err
}

// Run makes decisions again until ctx ends, and reports each. An error of report's
// is an outcome that could not be compared: stock Casbin did not load.
func (s *Shadow) Run(ctx context.Context, report func(Comparison, error)) error {
	var stock *stockEnforcer
	for {
		select {
		case <-ctx.Done():
			return nil
		case task := <-s.tasks:
			if stock == nil || stock.snap != task.snap {
				stock = nil // before the next one needs its memory
				next, err := newStockEnforcer(task.snap)
				if err != nil {
					report(Comparison{Query: task.query}, fmt.Errorf("load the policy into stock Casbin: %w", err))
					continue
				}
				stock = next
			}
			report(stock.compare(task), nil)
		}
	}
}

// compare makes a decision again.
func (e *stockEnforcer) compare(task shadowTask) Comparison {
	c := Comparison{Query: task.query, Ours: ComparedDecision{Effect: task.decision.Effect, Err: task.err}}
	if errors.Is(task.err, authz.ErrReservedSubject) {
		c.Stocks, c.Same = c.Ours, true // refused before policy is asked
		return c
	}
	if row := task.snap.rowAt(task.decision.Line); row >= 0 {
		c.Ours.Line = task.snap.text(row)
	}
	c.Stocks = e.decide(&task.query)
	if c.Stocks.Err != nil {
		c.Same = task.decision.Effect != authz.Allow
		return c
	}
	c.Same = task.err == nil && c.Ours.Effect == c.Stocks.Effect && c.Ours.Line == c.Stocks.Line
	return c
}

// rowAt returns the row of a line of the policy, or -1.
func (s *snapshot) rowAt(line int) int {
	if line == 0 {
		return -1
	}
	return slices.Index(s.table.rules.lines, uint32(line))
}

// A stockEnforcer is stock Casbin over the policy of a snapshot.
type stockEnforcer struct {
	snap     *snapshot
	enforcer *casbin.Enforcer
	roles    []*stockRoles
}

func newStockEnforcer(snap *snapshot) (*stockEnforcer, error) {
	m, err := casbinmodel.NewModelFromString(snap.engine.def.text)
	if err != nil {
		return nil, err
	}
	e, err := casbin.NewEnforcer(m)
	if err != nil {
		return nil, err
	}
	depth := snap.engine.roleDepth
	for name, fields := range snap.engine.def.roles {
		var manager rbac.RoleManager = defaultrolemanager.NewRoleManagerImpl(depth)
		if fields == 3 {
			manager = defaultrolemanager.NewRoleManager(depth)
		}
		e.SetNamedRoleManager(name, manager)
	}
	e.SetAdapter(tableAdapter{snap.table})
	if err := e.LoadPolicy(); err != nil {
		return nil, err
	}
	out := &stockEnforcer{snap: snap, enforcer: e}
	for name, assertion := range e.GetModel()["g"] {
		roles := &stockRoles{RoleManager: assertion.RM, depth: depth, grouped: name == "g"}
		// In this place Casbin keeps no memo of the names that it was asked for.
		assertion.RM, assertion.CondRM = nil, roles
		out.roles = append(out.roles, roles)
	}
	return out, nil
}

func (e *stockEnforcer) decide(q *authz.Query) ComparedDecision {
	for _, r := range e.roles {
		r.query = q
	}
	var request []any
	for _, name := range e.snap.engine.def.requestFields {
		value, _ := requestValue(q, name) // the definition names no other
		request = append(request, value)
	}
	allowed, line, err := e.enforcer.EnforceEx(request...)
	d := ComparedDecision{Err: err}
	if allowed {
		d.Effect = authz.Allow
	}
	if len(line) > 0 {
		fields := []string{"p"}
		for _, f := range line {
			fields = append(fields, quoteField(f))
		}
		d.Line = strings.Join(fields, ", ")
	}
	return d
}

// stockRoles are Casbin's own roles, to which the groups of a query are roles of
// its subject.
type stockRoles struct {
	rbac.RoleManager
	depth   int
	grouped bool
	query   *authz.Query
}

// HasLink is Casbin's.
func (r *stockRoles) HasLink(name, role string, domain ...string) (bool, error) {
	if !r.grouped || name != r.query.Principal.Subject || len(r.query.Principal.Groups) == 0 || name == role {
		return r.RoleManager.HasLink(name, role, domain...)
	}
	seen, level := map[string]bool{name: true}, []string{name}
	for hop := range r.depth {
		var next []string
		if hop == 0 {
			next = append(next, r.query.Principal.Groups...)
		}
		for _, n := range level {
			roles, err := r.GetRoles(n, domain...)
			if err != nil {
				return false, err
			}
			next = append(next, roles...)
		}
		if slices.Contains(next, role) {
			return true, nil
		}
		level = slices.DeleteFunc(next, func(n string) bool { known := seen[n]; seen[n] = true; return known })
	}
	return false, nil
}

// What follows makes it a rbac.ConditionalRoleManager; no role has a condition.

func (r *stockRoles) AddLinkConditionFunc(string, string, rbac.LinkConditionFunc)               {}
func (r *stockRoles) SetLinkConditionFuncParams(string, string, ...string)                      {}
func (r *stockRoles) AddDomainLinkConditionFunc(string, string, string, rbac.LinkConditionFunc) {}
func (r *stockRoles) SetDomainLinkConditionFuncParams(string, string, string, ...string)        {}

// A tableAdapter hands a loaded policy to Casbin.
type tableAdapter struct{ *table }

// LoadPolicy is persist.Adapter's.
func (a tableAdapter) LoadPolicy(m casbinmodel.Model) error {
	for row := range a.rules.len() {
		line := []string{"p"}
		for _, col := range a.rules.cols {
			line = append(line, a.syms.text(col[row]))
		}
		if err := persist.LoadPolicyArray(line, m); err != nil {
			return err
		}
	}
	for name, links := range a.links {
		for _, l := range links {
			line := []string{name, a.syms.text(l.name), a.syms.text(l.role)}
			if m["g"][name] != nil && len(m["g"][name].Tokens) == 3 {
				line = append(line, a.syms.text(l.domain))
			}
			if err := persist.LoadPolicyArray(line, m); err != nil {
				return err
			}
		}
	}
	return nil
}

var errReadOnly = errors.New("the policy of a shadow is only read")

// SavePolicy and the rest of persist.Adapter change nothing.
func (tableAdapter) SavePolicy(casbinmodel.Model) error          { return errReadOnly }
func (tableAdapter) AddPolicy(string, string, []string) error    { return errReadOnly }
func (tableAdapter) RemovePolicy(string, string, []string) error { return errReadOnly }
func (tableAdapter) RemoveFilteredPolicy(string, string, int, ...string) error {
	return errReadOnly
}
