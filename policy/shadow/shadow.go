// Package shadow has stock Casbin make decisions again, beside the service.
//
// A [Shadow] takes the place of its store; [Shadow.Run] reports each comparison.
// What differs is a fault of ours, or of Casbin's, and is to be reported.
//
// shadow does not protect against a difference in a decision that was not made
// again, nor before it was: the store's answer stands.
package shadow

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"regexp"
	"slices"
	"time"

	"securefiles/authz"
	"securefiles/policy"
	"securefiles/policy/internal/engine"
	"securefiles/policy/internal/model"
	"securefiles/policy/internal/pattern"
	"securefiles/policy/internal/table"

	"github.com/casbin/casbin/v2"
	casbinmodel "github.com/casbin/casbin/v2/model"
	"github.com/casbin/casbin/v2/persist"
	"github.com/casbin/casbin/v2/rbac"
	defaultrolemanager "github.com/casbin/casbin/v2/rbac/default-role-manager"
	"github.com/casbin/casbin/v2/util"
)

// A Shadow decides as its store does, and has a share of the decisions made
// again, in the background, by the stock Casbin enforcer that looks at every
// line. The answers must not differ: it is there to show that they do not.
//
// Stock Casbin holds the policy a second time, in some six times the memory, and
// takes up to a second for a decision among a million lines. One is made at a
// time; those that come meanwhile are not made again.
type Shadow struct {
	store *policy.Store
	share float64
	tasks chan task
}

type task struct {
	version  *engine.Version
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

// New returns a Shadow of a store for a share of its decisions, from 0 to
// 1. Nothing is made again until Run runs.
func New(s *policy.Store, share float64) (*Shadow, error) {
	if s == nil || !(share >= 0 && share <= 1) {
		return nil, errors.New("a shadow needs a store and a share from 0 to 1")
	}
	return &Shadow{store: s, share: share, tasks: make(chan task, 1)}, nil
}

// Decide is the store's.
func (s *Shadow) Decide(ctx context.Context, q authz.Query) (authz.Decision, error) {
	version := s.store.Version()
	version.FixMoment(&q)
	d, err := version.DecideWithin(ctx, &q)
	if late := new(*policy.LateError); errors.As(err, late) || ctx.Err() != nil {
		return d, err // there is no decision to compare
	}
	if rand.Float64() < s.share {
		select {
		case s.tasks <- task{version, q, d, err}:
		default: // busy with another
		}
	}
	return d, err
}

// Run makes decisions again until ctx ends, and reports each. An error of report's
// is an outcome that could not be compared: stock Casbin did not load.
func (s *Shadow) Run(ctx context.Context, report func(Comparison, error)) error {
	var enforcer *stock
	for {
		select {
		case <-ctx.Done():
			return nil
		case task := <-s.tasks:
			if enforcer == nil || enforcer.version != task.version || !enforcer.steady.Holds(task.query.At) {
				enforcer = nil // before the next one needs its memory
				next, err := newStock(task.version, task.query.At)
				if err != nil {
					report(Comparison{Query: task.query}, fmt.Errorf("load the policy into stock Casbin: %w", err))
					continue
				}
				enforcer = next
			}
			report(enforcer.compare(task), nil)
		}
	}
}

// compare makes a decision again.
func (e *stock) compare(task task) Comparison {
	c := Comparison{Query: task.query, Ours: ComparedDecision{Effect: task.decision.Effect, Err: task.err}}
	if errors.Is(task.err, authz.ErrReservedSubject) {
		c.Stocks, c.Same = c.Ours, true // refused before policy is asked
		return c
	}
	if row := task.version.RowAt(task.decision.Line); row >= 0 {
		c.Ours.Line = task.version.Text(row)
	}
	c.Stocks = e.decide(&task.query)
	if c.Stocks.Err != nil {
		c.Same = task.decision.Effect != authz.Allow
		return c
	}
	c.Same = task.err == nil && c.Ours.Effect == c.Stocks.Effect && c.Ours.Line == c.Stocks.Line
	return c
}

// A stock is stock Casbin over the policy of a snapshot.
type stock struct {
	version  *engine.Version
	steady   table.Period // while the same lines hold
	enforcer *casbin.Enforcer
	roles    []*stockRoles
	query    *authz.Query // that is being decided
}

// pathFunction is a call of one of Casbin's functions in a model, which asks what
// tellNames adds instead: Casbin does not let its own be replaced.
var pathFunction = regexp.MustCompile(`\b(keyMatch[2-5]?|globMatch|regexMatch)\s*\(`)

// tellNames lets Casbin's functions answer, but for patterns of the path in which
// $sub or $group stands, of which Casbin knows nothing.
func (e *stock) tellNames() {
	casbins := casbinmodel.LoadFunctionMap()
	for name, function := range casbins.GetFunctions() {
		f, ok := pattern.ByName(name)
		if !ok {
			continue
		}
		e.enforcer.AddFunction(name+"OfNames", func(args ...any) (any, error) {
			if len(args) == 2 && e.query != nil && args[0] == e.query.Object {
				if text, ok := args[1].(string); ok {
					if subject, group := f.AsksNames(text); subject || group {
						return f.MatchPath(e.query.Object, text, engine.NamesOf(e.query))
					}
				}
			}
			return function(args...)
		})
	}
}

// newStock gives stock Casbin what holds at a moment. Its own conditions are asked of
// the first role alone, and of none after a load, until somebody registers them again.
func newStock(version *engine.Version, at time.Time) (*stock, error) {
	m, err := version.Engine.Model.Stock(pathFunction.ReplaceAllString(version.Engine.Model.Text, "${1}OfNames("))
	if err != nil {
		return nil, err
	}
	e, err := casbin.NewEnforcer(m)
	if err != nil {
		return nil, err
	}
	out := &stock{version: version, steady: version.Table.Periods.Steady(at), enforcer: e}
	out.tellNames()
	depth := version.Engine.RoleDepth
	for name, fields := range version.Engine.Model.Roles {
		var manager rbac.RoleManager = defaultrolemanager.NewRoleManagerImpl(depth)
		if fields == 3 {
			manager = defaultrolemanager.NewRoleManager(depth)
			if version.Engine.Model.DomainPatterns { // Casbin looks for keyMatch in the matcher, and in its own managers
				manager.AddDomainMatchingFunc("keyMatch", util.KeyMatch)
			}
		}
		e.SetNamedRoleManager(name, manager)
	}
	e.AddFunction(model.TimeMatch, func(args ...any) (any, error) { return timeMatch(version.Table, at, args) })
	e.SetAdapter(adapter{version.Table, at})
	if err := e.LoadPolicy(); err != nil {
		return nil, err
	}
	for name, assertion := range e.GetModel()["g"] {
		roles := &stockRoles{RoleManager: assertion.RM, depth: depth, grouped: name == "g"}
		// In this place Casbin keeps no memo of the names that it was asked for.
		assertion.RM, assertion.CondRM = nil, roles
		out.roles = append(out.roles, roles)
	}
	return out, nil
}

func (e *stock) decide(q *authz.Query) ComparedDecision {
	e.query = q
	for _, r := range e.roles {
		r.query = q
	}
	var request []any
	for _, name := range e.version.Engine.Model.Request {
		value, _ := model.RequestValue(q, name) // what no request has is not asked
		request = append(request, value)
	}
	allowed, line, err := e.enforcer.EnforceEx(request...)
	d := ComparedDecision{Err: err}
	if allowed {
		d.Effect = authz.Allow
	}
	if len(line) > 0 {
		d.Line = e.version.LineText(line)
	}
	return d
}

// timeMatch is Casbin's TimeMatch at a moment, in the zone of the policy.
func timeMatch(t *table.Table, at time.Time, args []any) (any, error) {
	var times [2]table.Symbol
	for i, arg := range args {
		text, ok := arg.(string)
		if ok && i < len(times) {
			times[i], ok = t.Symbols.Lookup(text)
		}
		if !ok || len(args) != len(times) {
			return false, errors.New("timeMatch takes a beginning and an end of the policy")
		}
	}
	p, ok := t.Periods.Of(times[0], times[1])
	if !ok {
		return false, errors.New("timeMatch is asked about what is no time of the policy")
	}
	return p.Holds(at), nil
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

func (r *stockRoles) AddLinkConditionFunc(string, string, rbac.LinkConditionFunc) {}

func (r *stockRoles) SetLinkConditionFuncParams(string, string, ...string) {}

func (r *stockRoles) AddDomainLinkConditionFunc(string, string, string, rbac.LinkConditionFunc) {}

func (r *stockRoles) SetDomainLinkConditionFuncParams(string, string, string, ...string) {}

// A adapter hands a loaded policy to Casbin.
type adapter struct {
	*table.Table
	at time.Time
}

// LoadPolicy is persist.Adapter's.
func (a adapter) LoadPolicy(m casbinmodel.Model) error {
	for row := range a.Rows.Len() {
		line := []string{"p"}
		for _, col := range a.Rows.Cols {
			line = append(line, a.Symbols.Text(col[row]))
		}
		if err := persist.LoadPolicyArray(line, m); err != nil {
			return err
		}
	}
	for name, edges := range a.Edges {
		for _, l := range edges {
			if !a.Holds(l, a.at) {
				continue
			}
			line := []string{name, a.Symbols.Text(l.Name), a.Symbols.Text(l.Role)}
			if m["g"][name] != nil && len(m["g"][name].Tokens) == 3 {
				line = append(line, a.Symbols.Text(l.Domain))
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
func (adapter) SavePolicy(casbinmodel.Model) error { return errReadOnly }

func (adapter) AddPolicy(string, string, []string) error { return errReadOnly }

func (adapter) RemovePolicy(string, string, []string) error { return errReadOnly }

func (adapter) RemoveFilteredPolicy(string, string, int, ...string) error {
	return errReadOnly
}
