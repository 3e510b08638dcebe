package world

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/casbin/casbin/v2"
	stringadapter "github.com/casbin/casbin/v2/persist/string-adapter"

	"securefiles/authz"
	"securefiles/policy/internal/finding"
	"securefiles/policy/internal/model"
)

// A Stock is stock Casbin, with a model and a policy.
type Stock struct {
	model    *model.Model
	policy   string // as a whole
	at       time.Time
	enforcer *casbin.Enforcer
	query    *authz.Query // that is being decided
}

// An Outcome is a decision and the line that decided, its fields each with a NUL
// behind it.
type Outcome struct {
	Allowed bool
	Line    string
}

// NewStock gives a policy to stock Casbin: what of it holds now, until it is asked
// about another moment.
func NewStock(m *model.Model, policy string) (*Stock, error) {
	return stockAt(m, policy, time.Now())
}

// stockAt gives stock Casbin what of a policy holds at a moment.
func stockAt(m *model.Model, policy string, at time.Time) (*Stock, error) {
	text, err := held(m, policy, at)
	if err != nil {
		return nil, err
	}
	parsed, err := m.Stock(ofNames(m.Text))
	if err != nil {
		return nil, err
	}
	e, err := casbin.NewEnforcer(parsed)
	if err != nil {
		return nil, err
	}
	e.AddFunction(model.TimeMatch, timeMatch(at))
	e.SetAdapter(stringadapter.NewAdapter("# policy\n" + text))
	s := &Stock{model: m, policy: policy, at: at, enforcer: e}
	s.standInForNames()
	return s, e.LoadPolicy()
}

// atMoment returns stock Casbin at the moment that a query asks about.
func (s *Stock) atMoment(q *authz.Query) (*Stock, error) {
	if q.At.IsZero() || q.At.Equal(s.at) || !s.model.HasPeriods() {
		return s, nil
	}
	return stockAt(s.model, s.policy, q.At)
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
	return stockAt(s.model, s.policy+lines.String()+"\n", s.at)
}

// Decide is what stock Casbin answers.
func (s *Stock) Decide(q *authz.Query) (Outcome, error) {
	s, err := s.atMoment(q)
	if err == nil {
		s, err = s.withGroups(q)
	}
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
