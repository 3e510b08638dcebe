package shadow

import (
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"securefiles/authz"
	"securefiles/policy"
	"securefiles/policy/internal/engine"
	"securefiles/policy/internal/storetest"
	"securefiles/policy/internal/world"

	"pgregory.net/rapid"
)

// again makes a decision again, as Run does.
func again(t testing.TB, version *engine.Version, q authz.Query, d authz.Decision) Comparison {
	t.Helper()
	stock, err := newStock(version, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return stock.compare(task{version: version, query: q, decision: d})
}

// A decision that was given up is none, and no difference.
func TestDecisionThatWasGivenUpIsNotCompared(t *testing.T) {
	var text strings.Builder
	for i := range 20000 {
		fmt.Fprintf(&text, "p, alice, /**/f%d/*, read, allow\n", i)
	}
	now := time.Unix(0, 0)
	store, _ := storetest.Open(t, text.String(), &policy.Options{DecisionTimeout: time.Second, Now: func() time.Time {
		now = now.Add(100 * time.Millisecond)
		return now
	}})
	s, err := New(store, 1)
	if err != nil {
		t.Fatal(err)
	}
	q := authz.Query{Principal: authz.Principal{Subject: "alice"}, Object: "/" + strings.Repeat("ab/", 1000) + "f", Action: "read"}
	late := new(*policy.LateError)
	if d, err := s.Decide(t.Context(), q); d.Effect != authz.Deny || !errors.As(err, late) {
		t.Errorf("%s, %v", d.Effect, err)
	}
	if len(s.tasks) != 0 {
		t.Error("it is to be compared")
	}
	q.Object = "/a"
	if _, err := s.Decide(t.Context(), q); err != nil || len(s.tasks) != 1 {
		t.Errorf("another one is not: %v", err)
	}
}

func TestShadowComparesTheDecidingLine(t *testing.T) {
	s, _ := storetest.Open(t, storetest.ContractPolicy, nil)
	version := s.Version()
	for _, q := range []authz.Query{
		world.Query("alice", "/project/plan.pdf"), world.Query("alice", "/project/hr/pay.pdf"), world.Query("bob", "/project/x", "@contractors"),
		world.Query("bob", "/shared/x", "@anyone", "@authenticated"), world.Query("bob", "/nowhere"), world.Query("project_member", "/project/plan.pdf"),
	} {
		d, err := version.Decide(&q)
		stock, stockErr := newStock(version, time.Now())
		if stockErr != nil {
			t.Fatal(stockErr)
		}
		if c := stock.compare(task{version, q, d, err}); !c.Same {
			t.Errorf("%+v: ours %s, stock %s", q, c.Ours, c.Stocks)
		}
	}
	for _, tt := range []struct {
		name         string
		q            authz.Query
		d            authz.Decision
		ours, stocks string
	}{
		{"another effect", world.Query("bob", "/nowhere"), authz.Decision{Effect: authz.Allow, Line: 2}, "allow by p, project_member, /project/**, read, allow", "deny by default"},
		{"another line", world.Query("alice", "/project/hr/x"), authz.Decision{Line: 1}, "deny by p, @authenticated, /shared/**, read, allow", "deny by p, project_member, /project/hr/**, read, deny"},
	} {
		if c := again(t, version, tt.q, tt.d); c.Same || c.Ours.String() != tt.ours || c.Stocks.String() != tt.stocks {
			t.Errorf("%s: %t, ours %s, stock %s", tt.name, c.Same, c.Ours, c.Stocks)
		}
	}
}

// The shadow's stock Casbin is the one of the other tests, which is built from
// the files, with the groups as lines: for any model, policy and request.
func TestShadowIsStockCasbin(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := world.DrawShape(t)
		matcher := s.WithPeriods(t, s.DrawMatcher(t))
		store, policy := storetest.OpenDrawn(t, s.Model(matcher), s.DrawPolicy(t, matcher))
		if store == nil {
			return
		}
		version := store.Version()
		enforcer, err := newStock(version, time.Now())
		if err != nil {
			t.Fatalf("%v\nmodel:\n%s\npolicy:\n%s", err, s.Model(matcher), policy)
		}
		stock, err := world.NewStock(version.Engine.Model, policy)
		if err != nil {
			t.Fatal(err)
		}
		for range 5 {
			q := world.DrawQuery(t, matcher)
			if s.Effect == world.SubjectPriority {
				q.Principal.Groups = nil
			}
			if !enforcer.steady.Holds(q.At) {
				if enforcer, err = newStock(version, q.At); err != nil {
					t.Fatal(err)
				}
			}
			want, wantErr := stock.Decide(q)
			if want.Line != "" {
				fields := strings.Split(strings.TrimSuffix(want.Line, "\x00"), "\x00")
				want.Line = strings.Join(version.Engine.Model.Written(fields), "\x00") + "\x00"
			}
			got := enforcer.decide(q)
			if (got.Err != nil) != (wantErr != nil) {
				t.Fatalf("%+v: %v, want %v", q, got.Err, wantErr)
			}
			if wantErr == nil && (got.Effect == authz.Allow != want.Allowed || (got.Line == "") != (want.Line == "") || plain(got.Line) != "p\x00"+want.Line && want.Line != "") {
				t.Fatalf("%+v: %+v, want %+v\nmodel:\n%s\npolicy:\n%s", q, got, want, s.Model(matcher), policy)
			}
		}
	})
}

// plain returns a line as an outcome has it.
func plain(line string) string {
	r := csv.NewReader(strings.NewReader(line))
	r.TrimLeadingSpace = true
	fields, err := r.Read()
	if err != nil {
		return ""
	}
	return strings.Join(fields, "\x00") + "\x00"
}

// What has ended in the meantime has ended for stock Casbin too.
func TestShadowOfLinesThatEnd(t *testing.T) {
	var now atomic.Pointer[time.Time]
	set := func(day int) {
		at := time.Date(2026, 12, day, 12, 0, 0, 0, time.UTC)
		now.Store(&at)
	}
	set(30)
	s, _ := storetest.Open(t, "p, editor, /project/**, read, allow\np, bob, /own, read, allow, _, 2026-12-30\ng, bob, editor, _, 2026-12-30\n", &policy.Options{Now: func() time.Time { return *now.Load() }})
	shadow, err := New(s, 1)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	reports := make(chan Comparison)
	go func() {
		_ = shadow.Run(ctx, func(c Comparison, err error) {
			if err != nil {
				t.Error(err)
			}
			reports <- c
		})
	}()
	for _, step := range []struct {
		day  int
		want authz.Effect
	}{{30, authz.Allow}, {31, authz.Deny}, {29, authz.Allow}} {
		set(step.day)
		for _, path := range []string{"/project/plan", "/own"} {
			d, err := shadow.Decide(ctx, world.Query("bob", path))
			if err != nil || d.Effect != step.want {
				t.Fatalf("%d %s: %v, %v", step.day, path, d, err)
			}
			if c := <-reports; !c.Same || c.Stocks.Effect != step.want {
				t.Errorf("%d %s: ours %s, stock %s", step.day, path, c.Ours, c.Stocks)
			}
		}
	}
}

// Stock Casbin is told that domains are patterns, and given no role that has ended.
func TestShadowOfDomainsThatArePatterns(t *testing.T) {
	s := storetest.OpenText(t, `[request_definition]
r = sub, dom, obj, act
[policy_definition]
p = sub, dom, obj, act
[role_definition]
g = _, _, _, (_, _)
[policy_effect]
e = some(where (p.eft == allow))
[matchers]
m = g(r.sub, p.sub, r.dom) && keyMatch(r.dom, p.dom) && r.obj == p.obj && r.act == p.act
`, "p, admin, ma*, /a, read\ng, alice, admin, ma*, _, 2026-12-31\n")
	for day, want := range map[int]authz.Effect{31: authz.Allow, 32: authz.Deny} {
		q := authz.Query{Principal: authz.Principal{Subject: "alice"}, Domain: "main", Object: "/a", Action: "read", At: time.Date(2026, 12, day, 12, 0, 0, 0, time.UTC)}
		e, err := newStock(s.Version(), q.At)
		if err != nil {
			t.Fatal(err)
		}
		d, err := s.Version().Decide(&q)
		if got := e.decide(&q); err != nil || d.Effect != want || got.Effect != want {
			t.Errorf("%d: ours %s, stock %s %v, want %s", day, d.Effect, got.Effect, got.Err, want)
		}
	}
}

func TestShadowRunsBesideDecisions(t *testing.T) {
	s, _ := storetest.Open(t, storetest.ContractPolicy, nil)
	shadow, err := New(s, 1)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	reports := make(chan Comparison)
	done := make(chan error)
	go func() {
		done <- shadow.Run(ctx, func(c Comparison, err error) {
			if err != nil {
				t.Error(err)
			}
			reports <- c
		})
	}()
	for range 3 { // however busy the shadow is, no decision waits
		for range 100 {
			if d, err := shadow.Decide(ctx, world.Query("alice", "/project/plan.pdf")); err != nil || d.Effect != authz.Allow {
				t.Fatalf("%v, %v", d, err)
			}
		}
		if c := <-reports; !c.Same || c.Query.Object != "/project/plan.pdf" {
			t.Errorf("%+v", c)
		}
	}
	go func() {
		for range reports { // what is still being made again
		}
	}()
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
	close(reports)
}

func TestShadowShare(t *testing.T) {
	s, _ := storetest.Open(t, storetest.ContractPolicy, nil)
	for _, share := range []float64{-0.1, 1.1} {
		if _, err := New(s, share); err == nil {
			t.Errorf("a share of %g is accepted", share)
		}
	}
	if _, err := New(nil, 1); err == nil {
		t.Error("a shadow of nothing is accepted")
	}
	shadow, err := New(s, 0)
	if err != nil {
		t.Fatal(err)
	}
	for range 1000 {
		if _, err := shadow.Decide(t.Context(), world.Query("alice", "/project/plan.pdf")); err != nil {
			t.Fatal(err)
		}
	}
	if len(shadow.tasks) != 0 {
		t.Error("a share of 0 makes decisions again")
	}
}
