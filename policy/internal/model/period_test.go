package model_test

import (
	"slices"
	"strings"
	"testing"

	"securefiles/policy/internal/model"
)

func datedModel(t *testing.T, policy, roles, matcher string) *model.Model {
	t.Helper()
	m, err := model.Parse("model.conf", "[request_definition]\nr = sub, obj, act\n[policy_definition]\np = "+policy+"\n[role_definition]\ng = "+roles+"\n[policy_effect]\ne = some(where (p.eft == allow))\n[matchers]\nm = "+matcher+"\n")
	if err != nil {
		t.Fatalf("%s: %v", matcher, err)
	}
	return m
}

// Which models have lines with a beginning and an end, which of their columns a line
// may leave out, and which nothing looks at.
func TestColumnsOfDates(t *testing.T) {
	const plain, dated, usual = "_, _", "_, _, (_, _)", "g(r.sub, p.sub) && r.obj == p.obj && r.act == p.act"
	for _, tt := range []struct {
		policy, roles, matcher string
		has                    bool
		optional               int
		idle                   []int
	}{
		{"sub, obj, act", plain, usual, false, 0, nil},
		{"sub, obj, act", dated, usual, true, 0, nil},
		{"sub, obj, act, from, until", plain, usual, false, 0, []int{3, 4}},
		{"sub, obj, act, until", plain, usual, false, 0, []int{3}},
		{"sub, obj, act, rule, until", plain, usual + " && eval(p.rule)", false, 0, nil}, // a rule may look there
		{"from, sub, obj, act", plain, usual, false, 0, []int{0}},
		{"sub, obj, act, from, until", plain, usual + " && timeMatch(p.from, p.until)", true, 2, nil},
		{"sub, obj, act, until, from", plain, usual + " && timeMatch(p.from, p.until)", true, 2, nil},
		{"sub, obj, act, from, until", plain, usual + ` && timeMatch("_", p.until)`, true, 1, []int{3}},
		{"sub, obj, act, from, until", plain, usual + ` && timeMatch(p.from, "_")`, true, 0, []int{4}},
		{"sub, obj, act, until", plain, usual + ` && timeMatch("_", p.until)`, true, 1, nil},
		{"sub, obj, act, from, until, eft", plain, usual + " && timeMatch(p.from, p.until)", true, 0, nil},
		{"sub, obj, act, from, until", plain, usual + ` && timeMatch(p.from, p.until) && p.until != "x"`, true, 0, nil},
		{"sub, obj, act, from, until", plain, usual + ` && timeMatch(p.from, p.until) && p.from != "x"`, true, 0, nil},
		{"sub, obj, act, from, until", plain, usual + " && timeMatch(p.from, p.until) && timeMatch(p.from, p.until)", true, 0, nil},
		{"x, y, sub, obj, act, from, until", plain, usual + " && timeMatch(p.x, p.y) && timeMatch(p.from, p.until)", true, 2, nil},
		{"sub, obj, act, eft, until", plain, usual + " && timeMatch(p.eft, p.until)", true, 0, nil},
		{"sub, obj, act, priority, until", plain, usual + " && timeMatch(p.priority, p.until)", true, 0, nil},
		{"obj, act, sub, until", plain, strings.Replace(usual, "g(r.sub, p.sub) && ", "", 1) + " && timeMatch(p.sub, p.until)", true, 0, nil},
	} {
		m := datedModel(t, tt.policy, tt.roles, tt.matcher)
		if m.HasPeriods() != tt.has || m.Optional != tt.optional || !slices.Equal(m.IdleDates(), tt.idle) {
			t.Errorf("%s with %s: dates %t, %d to leave out, %v idle", tt.policy, tt.matcher, m.HasPeriods(), m.Optional, m.IdleDates())
		}
	}
}
