package policy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"securefiles/authz"
)

func explain(t *testing.T, s *Store, q authz.Query) *Explanation {
	t.Helper()
	x, err := s.Explain(t.Context(), q)
	if err != nil {
		t.Fatal(err)
	}
	return x
}

func TestExplainShowsWhatMatches(t *testing.T) {
	s, _ := open(t, `# from line 2 on
p, staff, /a/**, read, allow
p, "a ""b""", "/a/x,y", read, deny
p, everybody, /**, read, allow
g, alice, interns
g, interns, staff
g, staff, everybody
g, "a ""b""", staff
`, nil)
	want := &Explanation{
		Subject: "alice", Object: "/a/x", Action: "read", Allowed: true, Decision: "g1:policy.csv:2",
		Deciding: &Line{File: "policy.csv", Line: 2, Text: "p, staff, /a/**, read, allow", Chain: []string{"alice", "interns", "staff"}},
		Matches: []Line{
			{File: "policy.csv", Line: 2, Text: "p, staff, /a/**, read, allow", Chain: []string{"alice", "interns", "staff"}},
			{File: "policy.csv", Line: 4, Text: "p, everybody, /**, read, allow", Chain: []string{"alice", "interns", "staff", "everybody"}},
		},
	}
	if diff := cmp.Diff(want, explain(t, s, read("alice", "/a/x"))); diff != "" {
		t.Error(diff)
	}
	x := explain(t, s, read(`a "b"`, "/a/x,y"))
	if x.Allowed || x.Deciding == nil || x.Deciding.Text != `p, "a ""b""", "/a/x,y", read, deny` || x.Deciding.Chain != nil || len(x.Matches) != 3 {
		t.Errorf("a line with quotes: %+v", x)
	}
}

func TestExplainShowsWhatIsNearest(t *testing.T) {
	s, _ := open(t, `p, bob, /a/**, read, allow
p, alice, /b/**, read, allow
p, alice, /a/x, share, allow
p, alice, /c/**, share, allow
p, alice, /a/x, share, deny
`, nil)
	x := explain(t, s, read("alice", "/a/x"))
	want := []Line{
		{File: "policy.csv", Line: 2, Text: "p, alice, /b/**, read, allow", Failed: "globMatch(r.obj, p.obj)"},
		{File: "policy.csv", Line: 3, Text: "p, alice, /a/x, share, allow", Failed: `(r.act == p.act || p.act == "*")`},
		{File: "policy.csv", Line: 1, Text: "p, bob, /a/**, read, allow", Failed: "g(r.sub, p.sub)"},
	}
	if x.Allowed || x.Deciding != nil || len(x.Matches) != 0 {
		t.Errorf("%+v", x)
	}
	if diff := cmp.Diff(want, x.Nearest); diff != "" {
		t.Error(diff)
	}

	var many strings.Builder
	for i := range 20 {
		fmt.Fprintf(&many, "p, bob, /a/%d, read, allow\np, alice, /b/%d, read, allow\n", i, i)
	}
	s, _ = open(t, many.String(), nil)
	if x := explain(t, s, read("alice", "/a/1")); len(x.Nearest) != maxNearest || x.Nearest[4].Line != 10 {
		t.Errorf("%+v", x.Nearest)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Explain(ctx, read("alice", "/a/1")); !errors.Is(err, context.Canceled) {
		t.Errorf("nobody waits for it: %v", err)
	}
}

func TestExplainFollowsRolesInTheirDomain(t *testing.T) {
	file := filepath.Join(t.TempDir(), "policy.csv")
	write(t, file, "p, admin, main, /**, read, allow\np, admin, other, /**, read, allow\ng, alice, boss, main\ng, boss, admin, main\n")
	s, err := Open(t.Context(), Source{Model: "testdata/model/domain.conf", Policy: file}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for domain, want := range map[string][]string{"main": {"alice", "boss", "admin"}, "other": nil, "nowhere": nil} {
		q := read("alice", "/x")
		q.Domain = domain
		x := explain(t, s, q)
		if x.Allowed != (want != nil) {
			t.Errorf("%s: allowed: %t", domain, x.Allowed)
		}
		if want != nil {
			if diff := cmp.Diff(want, x.Deciding.Chain); diff != "" {
				t.Errorf("%s: %s", domain, diff)
			}
		}
	}
}

// Models without roles, clauses to name or a default deny are explained too.
func TestExplainOtherModels(t *testing.T) {
	for _, tt := range []struct{ model, policy, subject, want string }{
		{"basic", "p, alice, /a/*, read\n", "alice", "allow: alice may read /a/x\n  decided by policy.csv:1\nlines that match:\n  policy.csv:1  p, alice, /a/*, read\n"},
		{"basic", "p, alice, /a/*, read\n", "bob", "deny: bob may not read /a/x\n  no line allows it\nnearest lines:\n  policy.csv:1  p, alice, /a/*, read\n      does not hold: r.sub == p.sub\n"},
		{"superuser", "p, alice, /a/*, read, allow\ng, carol, operators\n", "bob", "deny: bob may not read /a/x\n  no line allows it\n"},
		{"open", "p, alice, /a/*, read, deny\n", "bob", "allow: bob may read /a/x\n  no line denies it, and the model allows what no line denies\n"},
	} {
		file := filepath.Join(t.TempDir(), "policy.csv")
		write(t, file, tt.policy)
		s, err := Open(t.Context(), Source{Model: "testdata/model/" + tt.model + ".conf", Policy: file}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(tt.want, explain(t, s, read(tt.subject, "/a/x")).String()); diff != "" {
			t.Errorf("%s, %s: %s", tt.model, tt.subject, diff)
		}
	}
}

// Explain says what Decide says.
func TestExplainAgreesWithDecide(t *testing.T) {
	var text bytes.Buffer
	if err := generate(&text, 100, 20, 8); err != nil {
		t.Fatal(err)
	}
	s, _ := open(t, text.String(), nil)
	allowed := 0
	for user := range 20 {
		for i := range 100 {
			object := fmt.Sprintf("/data/d0/f%d.pdf", i)
			if i%2 == 0 {
				object = fmt.Sprintf("/team%d/project0/x", i)
			}
			q := read(fmt.Sprintf("user%d", user), object)
			d, err := s.Decide(t.Context(), q)
			if err != nil {
				t.Fatal(err)
			}
			if user > 1 && d.Effect == authz.Deny && d.Line == 0 {
				continue // looks at each line for the nearest
			}
			x := explain(t, s, q)
			if x.Allowed != (d.Effect == authz.Allow) || x.Decision != d.String() || (x.Deciding != nil) != (d.Line > 0) || x.Deciding != nil && x.Deciding.Line != d.Line {
				t.Fatalf("%+v: %v, %+v", q, d, x)
			}
			if x.Allowed {
				allowed++
			}
		}
	}
	if allowed < 100 {
		t.Errorf("only %d were allowed", allowed)
	}
}

// S14: what is asked reaches no terminal as it is.
func TestExplanationIsEscaped(t *testing.T) {
	s, _ := open(t, "p, al\u202eice, /\u202e/**, read, allow\np, ro\u202ele, /role/**, read, allow\ng, alice, ro\u202ele\n", nil)
	for _, q := range []authz.Query{
		read("al\u202eice", "/\u202e/x"),
		read("alice", "/role/x"),
		read("\x1b[2J", "/\x1b[31m\xff\n", "@\u202e"),
		{Principal: authz.Principal{Subject: "alice"}, Object: "/", Action: "\x07"},
	} {
		text := explain(t, s, q).String()
		for line := range strings.Lines(text) {
			if line = strings.TrimSuffix(line, "\n"); line != escape(line) {
				t.Errorf("%q", line)
			}
		}
	}
}

func TestSplitClauses(t *testing.T) {
	for _, tt := range []struct {
		matcher string
		want    []string
	}{
		{"a", []string{"a"}},
		{"a && b", []string{"a", "b"}},
		{"f(a && b) && (c || d)", []string{"f(a && b)", "(c || d)"}},
		{"a && b || c", []string{"a && b || c"}},
		{`a == "x && y" && b`, []string{`a == "x && y"`, "b"}},
		{`a == 'x\\' && b`, []string{`a == 'x\\'`, "b"}},
	} {
		if diff := cmp.Diff(tt.want, splitClauses(tt.matcher)); diff != "" {
			t.Errorf("%s: %s", tt.matcher, diff)
		}
	}
}
