package engine

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"securefiles/authz"
	"securefiles/policy/internal/model"
	"securefiles/policy/internal/table"
)

// load makes a version of a model and a policy.
func load(t testing.TB, modelText, policy string, opts Options) *Version {
	t.Helper()
	m, tab := read(t, modelText, policy)
	v, err := NewVersion(m, tab, opts)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// read reads a model and a policy, with no line twice.
func read(t testing.TB, modelText, policy string) (*model.Model, *table.Table) {
	t.Helper()
	m, err := model.Parse("model.conf", modelText)
	if err != nil {
		t.Fatal(err)
	}
	tab, _, err := table.Read(t.Context(), "policy.csv", strings.NewReader(policy), m, table.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return m, tab
}

// manyLines repeats a line for each number that there is.
func manyLines(n int, format string) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, format, i)
	}
	return b.String()
}

// A ticking clock moves by so much with each look at it.
type ticking struct {
	at    time.Time
	by    time.Duration
	looks int
}

func (c *ticking) now() time.Time {
	c.looks++
	c.at = c.at.Add(c.by)
	return c.at
}

// matcherModel is a model of subjects, paths and actions with a matcher.
func matcherModel(matcher string) string {
	roles := ""
	if strings.Contains(matcher, "g(") {
		roles = "[role_definition]\ng = _, _\n"
	}
	return "[request_definition]\nr = sub, obj, act\n[policy_definition]\np = sub, obj, act\n" + roles + "[policy_effect]\ne = some(where (p.eft == allow))\n[matchers]\nm = " + matcher + "\n"
}

// No line, and no number of lines, can hold a core: a decision is given up in time,
// wherever it is, and names the line that it had come to.
func TestDecisionThatTakesTooLongIsGivenUp(t *testing.T) {
	path := "/" + strings.Repeat("ab/", 1300) + "xz/y"
	domains := strings.NewReplacer("p = sub, obj", "p = sub, dom", "g = _, _", "g = _, _, _").Replace(matcherModel("g(r.sub, p.sub, p.dom) && r.act == p.act"))
	rbac := func(compares string) string {
		return matcherModel("g(r.sub, p.sub) && " + compares + " && r.act == p.act")
	}
	for _, tt := range []struct {
		name, model, policy string
		line                bool // the error names one
	}{
		{"lines that no index tells apart", rbac("keyMatch4(r.obj, p.obj)"), manyLines(20000, "p, alice, /{a}/f%d/{b}, read\n"), true},
		{"with names that stand twice", rbac("keyMatch4(r.obj, p.obj)"), manyLines(20000, "p, alice, /{a}/f%d/{a}, read\n"), true},
		{"globs with many alternatives", rbac("globMatch(r.obj, p.obj)"), manyLines(2000, "p, alice, \"/**/{a,b,c}/{a,b,c}/{a,b,c}/f%d/*\", read\n"), true},
		{"one regular expression", rbac("regexMatch(r.obj, p.obj)"), `p, alice, "` + strings.Repeat("[a-z/]{0,1000}", 7) + `$1", read`, true},
		{"one, compared by an operator", rbac("r.obj =~ p.obj"), `p, alice, "` + strings.Repeat("[a-z/]{0,1000}", 7) + `$1", read`, true},
		{"one that is joined", rbac(`regexMatch(r.obj, p.obj + "$1")`), `p, alice, "` + strings.Repeat("[a-z/]{0,1000}", 7) + `", read`, true},
		{"one in a matcher that asks no line", matcherModel(`regexMatch(r.obj, "` + strings.Repeat("(a*b*/*)*x?", 300) + `$1") && r.sub == p.sub`), "p, alice, /x, read", false},
		{"many regular expressions", rbac("regexMatch(r.obj, p.obj)"), manyLines(3000, "p, alice, [a-z/]*/f%d/?$, read\n"), true},
		{"rules of the policy", matcherModel("eval(p.obj) && r.act == p.act"), manyLines(3000, "p, alice, r.sub == 'user%d', read\n"), true},
		{"a model without an index", matcherModel("!(p.obj == r.obj) && !(p.sub == r.sub)"), manyLines(60000, "p, alice, /f%d, read\n"), true},
		{"a subject with many roles on one path", rbac("keyMatch2(r.obj, p.obj)"), manyLines(20000, "g, alice, r%d\n") + manyLines(20000, "p, r%d, /*/z/y, read\n"), true},
		{"on as many paths", rbac("keyMatch2(r.obj, p.obj)"), manyLines(90000, "g, alice, r%d\n") + manyLines(90000, "p, r%d, /zz/*, read\n") + manyLines(95000, "p, u%d, /*, read\n"), false},
		{"roles of a domain for each line", domains, rolesIn(300) + manyLines(300, "p, owner, t%d, read\n") + manyLines(300, "p, r%d, t0, list\n"), true},
	} {
		clock := &ticking{at: time.Unix(0, 0), by: 30 * time.Millisecond}
		v := load(t, tt.model, tt.policy, Options{Timeout: 100 * time.Millisecond, Now: clock.now})
		q := &authz.Query{Principal: authz.Principal{Subject: "alice"}, Object: path, Action: "read"}
		d, err := v.DecideWithin(t.Context(), q)
		late := new(*LateError)
		if d.Effect != authz.Deny || !errors.As(err, late) {
			t.Errorf("%s: %s, %v, after %d looks", tt.name, d.Effect, err, clock.looks)
			continue
		}
		// It began with the first look, and ended with the fifth.
		if clock.looks != 5 || (*late).After != 100*time.Millisecond || ((*late).Line > 0) != tt.line || tt.line && (*late).Looked == 0 || (*late).Looked > (*late).Of {
			t.Errorf("%s: %v, after %d looks", tt.name, err, clock.looks)
		}
		if !tt.line { // nor has it looked at what an earlier one did
			_, err := v.DecideWithin(t.Context(), q)
			if !errors.As(err, late) || (*late).Looked != 0 || (*late).Of != 0 {
				t.Errorf("%s, a second time: %v, with %d of %d lines", tt.name, err, (*late).Looked, (*late).Of)
			}
			clock.looks = 5
		}
		if _, err := v.DecideWithin(t.Context(), &authz.Query{Principal: authz.Principal{Subject: "nobody"}, Object: "/x", Action: "list"}); errors.As(err, late) && clock.looks == 5 {
			t.Errorf("%s: the next decision has not its own time: %v", tt.name, err)
		}
	}
}

// rolesIn are three hundred roles of alice's in each of some domains.
func rolesIn(domains int) string {
	var b strings.Builder
	for i := range domains {
		for j := range 300 {
			fmt.Fprintf(&b, "g, alice, r%d, t%d\n", j, i)
		}
	}
	return b.String()
}

// Whoever has gone away needs no answer.
func TestDecisionEndsWithItsContext(t *testing.T) {
	v := load(t, matcherModel("g(r.sub, p.sub) && keyMatch4(r.obj, p.obj)"), manyLines(20000, "p, alice, /{a}/f%d/{b}, read\n"), Options{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	q := &authz.Query{Principal: authz.Principal{Subject: "alice"}, Object: "/x/y/z", Action: "read"}
	if d, err := v.DecideWithin(ctx, q); d.Effect != authz.Deny || !errors.Is(err, context.Canceled) {
		t.Errorf("%s, %v", d.Effect, err)
	}
	if _, err := v.DecideWithin(t.Context(), q); err != nil {
		t.Errorf("without a timeout, as long as it takes: %v", err)
	}
	if _, err := v.Decide(q); err != nil {
		t.Error(err)
	}
}

// Nearly every decision ends before it would look at the clock.
func TestUsualDecisionNeverLooksAtTheClock(t *testing.T) {
	clock := &ticking{by: time.Hour}
	policy := manyLines(1000, "g, alice, r%d\n") + manyLines(1000, "p, r%d, /d/*, read\n") + manyLines(20000, "p, bob, /d%d/*, read\n")
	v := load(t, matcherModel("g(r.sub, p.sub) && keyMatch2(r.obj, p.obj) && r.act == p.act"), policy, Options{Timeout: time.Millisecond, Now: clock.now})
	for range 100 {
		for _, subject := range []string{"alice", "bob", "carol"} {
			if _, err := v.DecideWithin(t.Context(), &authz.Query{Principal: authz.Principal{Subject: subject}, Object: "/d7/f", Action: "read"}); err != nil {
				t.Fatal(err)
			}
		}
	}
	if clock.looks > 0 {
		t.Errorf("%d looks at the clock", clock.looks)
	}
}

// Without a clock of its own a decision goes by the system's.
func TestClockIsTheSystemsWhereNoneIsGiven(t *testing.T) {
	v := load(t, matcherModel("!(p.obj == r.obj) && !(p.sub == r.sub)"), manyLines(60000, "p, alice, /f%d, read\n"), Options{Timeout: time.Nanosecond})
	q := &authz.Query{Principal: authz.Principal{Subject: "alice"}, Object: "/x", Action: "read"}
	d, err := v.DecideWithin(t.Context(), q)
	if late := new(*LateError); d.Effect != authz.Deny || !errors.As(err, late) {
		t.Errorf("%s, %v", d.Effect, err)
	}
}

// What ends is over by the clock of the service, where a query asks about no moment.
func TestWhatHasEndedGoesByTheClock(t *testing.T) {
	const policy = "p, alice, /a, read, allow, _, 2026-06-30\np, staff, /b, read, allow\ng, alice, staff, 2026-06-01, _\n"
	for day, want := range map[int]string{-10: "/a", 5: "/a /b", 40: "/b"} {
		now := time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC).AddDate(0, 0, day)
		v := load(t, model.Default, policy, Options{Now: func() time.Time { return now }})
		var got []string
		for _, object := range []string{"/a", "/b"} {
			d, err := v.DecideWithin(t.Context(), &authz.Query{Principal: authz.Principal{Subject: "alice"}, Object: object, Action: "read"})
			if err != nil {
				t.Fatal(err)
			}
			if d.Effect == authz.Allow {
				got = append(got, object)
			}
		}
		if got := strings.Join(got, " "); got != want {
			t.Errorf("on %s alice has %q, not %q", now.Format(time.DateOnly), got, want)
		}
	}
}

// An empty policy has no beginning and no end to ask about: that is an error, as it is
// to stock Casbin, and denies where otherwise nothing would.
func TestPeriodsOfAnEmptyPolicyAreAnError(t *testing.T) {
	text := strings.NewReplacer("some(where (p.eft == allow)) && !some(", "!some(", "g(r.sub, p.sub) && globMatch(r.obj, p.obj) && (r.act == p.act || p.act == \"*\") && ", `r.act == "read" && `).Replace(model.Default)
	for policy, want := range map[string]authz.Effect{"": authz.Deny, "p, alice, /a, read, allow\n": authz.Allow, "p, alice, /a, read, deny, _, 2026-01-01\n": authz.Allow} {
		v := load(t, text, policy, Options{})
		d, err := v.DecideWithin(t.Context(), &authz.Query{Principal: authz.Principal{Subject: "alice"}, Object: "/a", Action: "read"})
		if d.Effect != want || (err != nil) != (policy == "") || err != nil && !strings.Contains(err.Error(), "no time of the policy") {
			t.Errorf("%q: %s, %v", policy, d.Effect, err)
		}
	}
}

// The end of a line may stand in any column.
func TestAnEndInTheFirstColumn(t *testing.T) {
	const text = "[request_definition]\nr = sub, obj, act\n[policy_definition]\np = until, sub, obj, act\n[policy_effect]\ne = some(where (p.eft == allow))\n[matchers]\nm = r.sub == p.sub && r.obj == p.obj && timeMatch(\"_\", p.until)\n"
	v := load(t, text, "p, 2026-06-30, alice, /a, read\n", Options{})
	for day, want := range map[int]authz.Effect{30: authz.Allow, 31: authz.Deny} {
		q := &authz.Query{Principal: authz.Principal{Subject: "alice"}, Object: "/a", Action: "read", At: time.Date(2026, 6, day, 12, 0, 0, 0, time.UTC)}
		if d, err := v.DecideWithin(t.Context(), q); err != nil || d.Effect != want {
			t.Errorf("on the %d. of June: %s, %v", day, d.Effect, err)
		}
	}
}

// A decision comes to a role that has ended as it does to one that holds, and that
// counts: lines of domains in which alice had three hundred roles each.
func TestRolesThatHaveEndedCountAsWork(t *testing.T) {
	text := strings.NewReplacer("p = sub, obj", "p = sub, dom", "g = _, _", "g = _, _, _, (_, _)").Replace(matcherModel("g(r.sub, p.sub, p.dom) && r.act == p.act"))
	ended := strings.ReplaceAll(rolesIn(300), "\n", ", _, 2020-01-01\n")
	clock := &ticking{at: time.Unix(0, 0), by: 30 * time.Millisecond}
	v := load(t, text, ended+manyLines(300, "p, owner, t%d, read\n")+manyLines(300, "p, r%d, t0, list\n"), Options{Timeout: 100 * time.Millisecond, Now: clock.now})
	q := &authz.Query{Principal: authz.Principal{Subject: "alice"}, Object: "/x", Action: "read", At: time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)}
	d, err := v.DecideWithin(t.Context(), q)
	if late := new(*LateError); d.Effect != authz.Deny || !errors.As(err, late) || clock.looks != 5 {
		t.Errorf("%s, %v, after %d looks at the clock", d.Effect, err, clock.looks)
	}
	q.At, clock.looks = time.Date(2019, 6, 1, 12, 0, 0, 0, time.UTC), 0 // they held
	if _, err := v.DecideWithin(t.Context(), q); !errors.As(err, new(*LateError)) || clock.looks != 5 {
		t.Errorf("before they ended: %v, after %d looks at the clock", err, clock.looks)
	}
}
