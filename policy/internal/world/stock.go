package world

import (
	"errors"
	"fmt"
	"strings"

	"github.com/casbin/casbin/v2"
	casbinmodel "github.com/casbin/casbin/v2/model"
	stringadapter "github.com/casbin/casbin/v2/persist/string-adapter"

	"securefiles/authz"
	"securefiles/policy/internal/finding"
	"securefiles/policy/internal/model"
)

// A Stock is stock Casbin, with a model and a policy.
type Stock struct {
	model    *model.Model
	policy   string
	enforcer *casbin.Enforcer
	query    *authz.Query // that is being decided
}

// An Outcome is a decision and the line that decided, its fields each with a NUL
// behind it.
type Outcome struct {
	Allowed bool
	Line    string
}

// NewStock gives a policy to stock Casbin.
func NewStock(m *model.Model, policy string) (*Stock, error) {
	parsed, err := casbinmodel.NewModelFromString(ofNames(m.Text))
	if err != nil {
		return nil, err
	}
	e, err := casbin.NewEnforcer(parsed, stringadapter.NewAdapter("# policy\n"+policy))
	if err != nil {
		return nil, err
	}
	s := &Stock{model: m, policy: policy, enforcer: e}
	s.standInForNames()
	return s, nil
}

// withGroups returns stock Casbin to which the groups of a query are roles of its
// subject.
func (s *Stock) withGroups(q *authz.Query) (*Stock, error) {
	fields, ok := s.model.Roles["g"]
	if len(q.Principal.Groups) == 0 || !ok {
		return s, nil
	}
	var lines strings.Builder
	for _, g := range q.Principal.Groups {
		line := fmt.Sprintf("\ng, %s, %s", quoted(q.Principal.Subject), quoted(g))
		if fields == 2 {
			lines.WriteString(line)
			continue
		}
		for _, domain := range Domains() { // they hold in each
			lines.WriteString(line + ", " + domain)
		}
	}
	return NewStock(s.model, s.policy+lines.String()+"\n")
}

// Decide is what stock Casbin answers.
func (s *Stock) Decide(q *authz.Query) (Outcome, error) {
	s, err := s.withGroups(q)
	if err != nil {
		return Outcome{}, err
	}
	s.query = q
	var request []any
	for _, name := range s.model.Request {
		value, _ := model.RequestValue(q, name) // what no request has is not asked
		request = append(request, value)
	}
	allowed, line, err := s.enforcer.EnforceEx(request...)
	out := Outcome{Allowed: allowed}
	for _, field := range line {
		out.Line += field + "\x00"
	}
	return out, err
}

// WithoutRefused returns a policy without the lines that err refuses, a line
// empty in the place of each; ok is false where err is about something else.
func WithoutRefused(policy string, err error) (rest string, ok bool) {
	var refused *finding.LoadError
	if !errors.As(err, &refused) {
		return policy, false
	}
	lines := strings.Split(policy, "\n")
	for _, f := range refused.Findings {
		if f.Severity == finding.SeverityError && strings.HasSuffix(f.File, ".csv") && f.Line > 0 && lines[f.Line-1] != "" {
			lines[f.Line-1], ok = "", true
		}
	}
	return strings.Join(lines, "\n"), ok
}
