package authz

import (
	"context"
	"errors"
	"fmt"
	"testing"
)

// A fakeLimiter takes, or refuses with its error.
type fakeLimiter struct {
	name string
	err  error
	log  *[]string
}

func (f fakeLimiter) Limit(_ context.Context, out *Outcome) error {
	if f.err != nil {
		return f.err
	}
	*f.log = append(*f.log, "+"+f.name)
	out.Quotas = append(out.Quotas, Quota{Name: f.name})
	out.Release = func(context.Context) { *f.log = append(*f.log, "-"+f.name) }
	return nil
}

func TestLimitersAreAskedInOrder(t *testing.T) {
	var log []string
	a, b, over := fakeLimiter{"a", nil, &log}, fakeLimiter{"b", nil, &log}, fakeLimiter{"c", &LimitError{Reason: ReasonBusy}, &log}
	if AllLimits() != nil || AllLimits(nil, nil) != nil {
		t.Error("no limiters are one")
	}
	out := &Outcome{}
	if err := AllLimits(a, nil, b).Limit(t.Context(), out); err != nil {
		t.Fatal(err)
	}
	out.Release(t.Context())
	if err := AllLimits(a, b, over).Limit(t.Context(), out); err == nil || out.Release != nil {
		t.Errorf("%v, %t", err, out.Release != nil)
	}
	if got := fmt.Sprint(log); got != "[+a +b -a -b +a +b -a -b]" {
		t.Error(got)
	}
}

// Limits are asked about what policy has allowed, and what they cannot tell is no allow.
func TestLimitsComeAfterPolicy(t *testing.T) {
	var log []string
	for _, row := range []struct {
		name   string
		early  error
		late   error
		allow  bool
		reason Reason
		asked  string
	}{
		{"allowed", nil, nil, true, ReasonPolicy, "[+early +late]"},
		{"refused by policy", nil, nil, false, ReasonDefaultDeny, "[+early]"},
		{"too many", nil, &LimitError{Reason: ReasonRate}, true, ReasonRate, "[+early]"},
		{"too many from an address", &LimitError{Reason: ReasonRate}, nil, true, ReasonRate, "[]"},
		{"nobody can tell", nil, errors.New("away"), true, ReasonUnavailable, "[+early]"},
		{"nobody can tell early", errors.New("away"), nil, true, ReasonUnavailable, "[]"},
		{"a link that is used up", nil, &LinkError{Reason: ReasonUsedUp, Page: PageEnded}, true, ReasonUsedUp, "[+early]"},
	} {
		log = nil
		policy := fakePolicy(func(Query) (Decision, error) {
			if row.allow {
				return Decision{Effect: Allow, Generation: 1, File: "p.csv", Line: 1}, nil
			}
			return Decision{Generation: 1}, nil
		})
		g := newTestGuard(t, known("alice"), policy, &Options{Early: fakeLimiter{"early", row.early, &log}, Limits: fakeLimiter{"late", row.late, &log}})
		out := g.Check(t.Context(), question("/downloads/a"))
		var quotas []string
		for _, q := range out.Quotas {
			quotas = append(quotas, "+"+q.Name)
		}
		if fmt.Sprint(quotas) != row.asked {
			t.Errorf("%s: quotas %v, want %s", row.name, quotas, row.asked)
		}
		if out.Reason != row.reason || out.Allowed() != (row.allow && row.early == nil && row.late == nil) || fmt.Sprint(log) != row.asked {
			t.Errorf("%s: %s, %t, %v", row.name, out.Reason, out.Allowed(), log)
		}
	}
}
