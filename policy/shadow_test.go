package policy

import (
	"context"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"securefiles/authz"
)

// again makes a decision again, as Run does.
func again(t testing.TB, snap *snapshot, q authz.Query, d authz.Decision) Comparison {
	t.Helper()
	stock, err := newStockEnforcer(snap)
	if err != nil {
		t.Fatal(err)
	}
	return stock.compare(shadowTask{snap: snap, query: q, decision: d})
}

func TestShadowComparesTheDecidingLine(t *testing.T) {
	s, _ := open(t, contractPolicy, nil)
	snap := s.current.Load()
	for _, q := range []authz.Query{
		read("alice", "/project/plan.pdf"), read("alice", "/project/hr/pay.pdf"), read("bob", "/project/x", "@contractors"),
		read("bob", "/shared/x", "@anyone", "@authenticated"), read("bob", "/nowhere"), read("project_member", "/project/plan.pdf"),
	} {
		_, d, err := s.decide(q)
		stock, stockErr := newStockEnforcer(snap)
		if stockErr != nil {
			t.Fatal(stockErr)
		}
		if c := stock.compare(shadowTask{snap, q, d, err}); !c.Same {
			t.Errorf("%+v: ours %s, stock %s", q, c.Ours, c.Stocks)
		}
	}
	for _, tt := range []struct {
		name         string
		q            authz.Query
		d            authz.Decision
		ours, stocks string
	}{
		{"another effect", read("bob", "/nowhere"), authz.Decision{Effect: authz.Allow, Line: 2}, "allow by p, project_member, /project/**, read, allow", "deny by default"},
		{"another line", read("alice", "/project/hr/x"), authz.Decision{Line: 1}, "deny by p, @authenticated, /shared/**, read, allow", "deny by p, project_member, /project/hr/**, read, deny"},
	} {
		if c := again(t, snap, tt.q, tt.d); c.Same || c.Ours.String() != tt.ours || c.Stocks.String() != tt.stocks {
			t.Errorf("%s: %t, ours %s, stock %s", tt.name, c.Same, c.Ours, c.Stocks)
		}
	}
}

// The shadow's stock Casbin is the one of the other tests, which is built from
// the files, with the groups as lines: for any model, policy and request.
func TestShadowIsStockCasbin(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := drawShape(t)
		matcher := s.drawMatcher(t)
		w := newWorld(t, s.model(matcher), s.drawPolicy(t, matcher), engineOptions{})
		if w == nil {
			return
		}
		snap := &snapshot{engine: w.engine, table: w.table}
		stock, err := newStockEnforcer(snap)
		if err != nil {
			t.Fatalf("%v\nmodel:\n%s\npolicy:\n%s", err, w.model, w.policy)
		}
		for range 5 {
			q := drawQuery(t, matcher)
			if s.effect == subjectPriority {
				q.Principal.Groups = nil
			}
			want, wantErr := w.stocks(q)
			got := stock.decide(q)
			if (got.Err != nil) != (wantErr != nil) {
				t.Fatalf("%+v: %v, want %v", q, got.Err, wantErr)
			}
			if wantErr == nil && (got.Effect == authz.Allow != want.allowed || (got.Line == "") != (want.line == "") || plain(got.Line) != "p\x00"+want.line && want.line != "") {
				t.Fatalf("%+v: %+v, want %+v\nmodel:\n%s\npolicy:\n%s", q, got, want, w.model, w.policy)
			}
		}
	})
}

// plain returns a line as an outcome has it.
func plain(line string) string {
	l := loader{}
	if line == "" || !l.split([]byte(line)) {
		return ""
	}
	var b strings.Builder
	for _, f := range l.fields {
		b.Write(f)
		b.WriteByte(0)
	}
	return b.String()
}

func TestShadowRunsBesideDecisions(t *testing.T) {
	s, _ := open(t, contractPolicy, nil)
	shadow, err := NewShadow(s, 1)
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
			if d, err := shadow.Decide(ctx, read("alice", "/project/plan.pdf")); err != nil || d.Effect != authz.Allow {
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
	s, _ := open(t, contractPolicy, nil)
	for _, share := range []float64{-0.1, 1.1} {
		if _, err := NewShadow(s, share); err == nil {
			t.Errorf("a share of %g is accepted", share)
		}
	}
	if _, err := NewShadow(nil, 1); err == nil {
		t.Error("a shadow of nothing is accepted")
	}
	shadow, err := NewShadow(s, 0)
	if err != nil {
		t.Fatal(err)
	}
	for range 1000 {
		if _, err := shadow.Decide(t.Context(), read("alice", "/project/plan.pdf")); err != nil {
			t.Fatal(err)
		}
	}
	if len(shadow.tasks) != 0 {
		t.Error("a share of 0 makes decisions again")
	}
}
