package explain

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"securefiles/authz"
	"securefiles/policy"
	"securefiles/policy/internal/storetest"
	"securefiles/policy/internal/world"

	"github.com/google/go-cmp/cmp"
)

// summary writes holders as name@line.
func summary(holders []Access) string {
	var out []string
	for _, h := range holders {
		line := 0
		if h.Line != nil {
			line = h.Line.Line
		}
		out = append(out, fmt.Sprintf("%s:%d", h.Name, line))
	}
	return strings.Join(out, " ")
}

const whoPolicy = `p, @anyone, /public/**, read, allow
p, @authenticated, /shared/**, read, allow
p, editor, /project/**, read, allow
p, editor, /project/hr/**, read, deny
p, dave, /project/hr/**, read, deny
g, alice, senior
g, senior, editor
g, @contractors, editor
`

func TestWho(t *testing.T) {
	s, _ := storetest.Open(t, whoPolicy, nil)
	for _, tt := range []struct{ object, allowed, denied string }{
		{"/project/plan.pdf", "@contractors:3 alice:3", ""},
		{"/project/hr/pay.pdf", "", "dave:5 @contractors:4 alice:4"},
		{"/shared/x", "@authenticated:2 dave:2 @contractors:2 alice:2", ""},
		{"/public/x", "anonymous:1 @authenticated:1 dave:1 @contractors:1 alice:1", ""},
		{"/elsewhere", "", ""},
	} {
		w, err := Who(t.Context(), s, authz.Query{Object: tt.object, Action: authz.ActionRead})
		if err != nil {
			t.Fatal(err)
		}
		sorted := func(text string) string {
			list := strings.Fields(text)
			slices.Sort(list)
			return strings.Join(list, " ")
		}
		if !w.Exact || sorted(summary(w.Allowed)) != sorted(tt.allowed) || sorted(summary(w.Denied)) != sorted(tt.denied) {
			t.Errorf("%s: exact %t, allowed %s, denied %s", tt.object, w.Exact, summary(w.Allowed), summary(w.Denied))
		}
	}
	w, err := Who(t.Context(), s, authz.Query{Object: "/project/x", Action: authz.ActionRead})
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(w.Allowed, func(h Access) bool { return h.Name == "alice" })
	if diff := cmp.Diff([]Step{{"alice", 0}, {"senior", 6}, {"editor", 7}}, w.Allowed[i].Line.Chain); diff != "" {
		t.Error(diff)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Who(ctx, s, authz.Query{Object: "/x"}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	var zero policy.Store
	if _, err := Who(t.Context(), &zero, authz.Query{}); err == nil {
		t.Error("a zero store answers")
	}
}

// Names that stand in the model alone are asked for, too.
func TestWhoNamesThoseOfTheModel(t *testing.T) {
	model := world.Shape{Request: []string{"sub", "obj", "act"}, Policy: []string{"sub", "obj", "act", "eft"}, Roles: []string{"g = _, _"}, Effect: world.AllowAndDeny}
	s := storetest.OpenText(t, model.Model(`g(r.sub, p.sub) && globMatch(r.obj, p.obj) || g(r.sub, "@team") || r.sub == "root"`), "p, alice, /a, read, allow\n")
	w, err := Who(t.Context(), s, authz.Query{Object: "/a", Action: authz.ActionRead})
	if err != nil {
		t.Fatal(err)
	}
	if got := summary(w.Allowed); !w.Exact || got != "alice:1 @team:1 root:1" {
		t.Errorf("exact %t, %s", w.Exact, got)
	}
}

func TestWhat(t *testing.T) {
	s, _ := storetest.Open(t, whoPolicy, nil)
	for _, tt := range []struct {
		subject, want string
		groups        []string
	}{
		{"alice", "allow:1:/public/x allow:2:/shared/x allow:3:/project/x deny:4:/project/hr/x", nil},
		{"bob", "allow:1:/public/x allow:2:/shared/x", nil},
		{"bob", "allow:1:/public/x allow:2:/shared/x allow:3:/project/x deny:4:/project/hr/x", []string{"@contractors"}},
		{"@contractors", "allow:1:/public/x allow:2:/shared/x allow:3:/project/x deny:4:/project/hr/x", nil},
		{"senior", "allow:1:/public/x allow:2:/shared/x allow:3:/project/x deny:4:/project/hr/x", nil},
		{"dave", "allow:1:/public/x allow:2:/shared/x deny:5:/project/hr/x", nil},
		{authz.Anonymous, "allow:1:/public/x", nil},
	} {
		q := authz.Query{Principal: authz.Principal{Subject: tt.subject, Groups: tt.groups}.WithBuiltinGroups(), Action: authz.ActionRead}
		if tt.subject == authz.Anonymous {
			q.Principal = authz.AnonymousPrincipal()
		}
		w, err := What(t.Context(), s, q)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, g := range w.Grants {
			got = append(got, fmt.Sprintf("%s:%d:%s", g.Line.Effect, g.Line.Line, g.Example))
		}
		if diff := cmp.Diff(tt.want, strings.Join(got, " ")); diff != "" || !w.Exact {
			t.Errorf("%s: exact %t: %s", tt.subject, w.Exact, diff)
		}
	}
	if _, err := What(t.Context(), s, authz.Query{}); !errors.Is(err, authz.ErrReservedSubject) {
		t.Errorf("nobody: %v", err)
	}

	// A line that another overrides for every path is said to be.
	s, _ = storetest.Open(t, "p, alice, /a/**, read, allow\np, alice, /**, read, deny\n", nil)
	w, err := What(t.Context(), s, world.Query("alice", ""))
	if err != nil {
		t.Fatal(err)
	}
	if g := w.Grants[0]; g.Example != "" || g.Overridden == nil || g.Overridden.Line != 2 {
		t.Errorf("%+v", g)
	}
}

// Where the names of a policy cannot tell all, the answer says so.
func TestWhoIsHonest(t *testing.T) {
	for _, tt := range []struct {
		model, policy string
		who, what     bool
	}{
		{"default", "p, alice, /a, read, allow\n", true, true},
		{"basic", "p, alice, /a, read\n", true, true},
		{"keymatch2", "p, alice, /a, read, allow\n", true, true},
		{"priority", "p, 1, alice, /a, read, allow\n", true, true},
		{"domain", "p, alice, main, /a, read, allow\n", true, true},
		{"resource", "p, alice, /a, read, allow\n", true, false},
		{"superuser", "p, alice, /a, read, allow\n", true, true},
		{"rule", `p, "r.sub == ""alice""", /a, read, allow` + "\n", false, false},
		{"anonymous", "", false, false},
	} {
		def := world.ModelText(t, "priority")
		s := (*policy.Store)(nil)
		if tt.model == "anonymous" { // a home directory for each subject
			s = storetest.OpenText(t, strings.NewReplacer("p = priority, sub", "p = sub", "priority(p.eft) || deny", "some(where (p.eft == allow))",
				"globMatch(r.obj, p.obj)", "keyMatch(r.obj, p.obj) && keyMatch(r.sub, p.sub) && r.obj != r.sub").Replace(def), "p, alice, /a, read, allow\n")
		} else {
			s = storetest.OpenModel(t, tt.model, tt.policy)
		}
		who, err := Who(t.Context(), s, authz.Query{Object: "/a", Action: "read"})
		if err != nil {
			t.Fatal(err)
		}
		what, err := What(t.Context(), s, world.Query("alice", ""))
		if err != nil {
			t.Fatal(err)
		}
		if who.Exact != tt.who || what.Exact != tt.what || who.Exact == (who.NotExact != "") || what.Exact == (what.NotExact != "") {
			t.Errorf("%s: who %t (%s), what %t (%s)", tt.model, who.Exact, who.NotExact, what.Exact, what.NotExact)
		}
	}
}

// For random policies, who says yes for exactly those names for whom Decide
// allows, and what it lists as allowed is allowed.
func TestWhoAndWhatAgreeWithDecide(t *testing.T) {
	random := rand.New(rand.NewPCG(31, 32))
	allowed, grants := 0, 0
	for i := range world.Share(2000, 40) {
		model := world.Models()[i%len(world.Models())]
		s, files := storetest.OpenRandom(t, random, model, 12)
		text := world.File(t, files.Policy)
		for range 5 {
			q := world.RandomQuery(random)
			w, err := Who(t.Context(), s, q)
			if err != nil {
				t.Fatal(err)
			}
			want := map[string]bool{}
			for name, p := range listed(s) {
				q.Principal = p
				d, err := s.Decide(t.Context(), q)
				if err == nil && d.Effect == authz.Allow {
					want[name] = true
				}
			}
			got := map[string]bool{}
			for _, h := range w.Allowed {
				got[h.Name] = true
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Fatalf("%s: who %s %s: %s\n%s", model, q.Action, q.Object, diff, text)
			}
			allowed += len(got)
			if w.Exact {
				q.Principal = authz.Principal{Subject: "another stranger"}.WithBuiltinGroups()
				d, err := s.Decide(t.Context(), q)
				if (err == nil && d.Effect == authz.Allow) != got[authz.GroupAuthenticated] {
					t.Fatalf("%s: an unnamed user comes out otherwise: %v, %v\n%s", model, d, err, text)
				}
			}
		}
		for range 5 {
			q := world.RandomQuery(random)
			if _, err := s.Decide(t.Context(), q); errors.Is(err, authz.ErrReservedSubject) {
				continue
			}
			w, err := What(t.Context(), s, q)
			if err != nil {
				t.Fatal(err)
			}
			lines := map[int]bool{}
			for _, g := range w.Grants {
				lines[g.Line.Line] = true
				if g.Example == "" {
					continue
				}
				q.Object = g.Example
				if d, err := s.Decide(t.Context(), q); err != nil || d.Effect.String() != g.Line.Effect {
					t.Fatalf("%s: %s may not have %s: %v %v, %+v\n%s", model, q.Principal.Subject, g.Example, d, err, g, text)
				}
				if g.Line.Effect == "allow" {
					grants++
				}
			}
			if !w.Exact {
				continue
			}
			for range 20 { // no line decides that is not listed
				q.Object = world.RandomPath(random)
				if d, err := s.Decide(t.Context(), q); err == nil && d.Line > 0 && !lines[d.Line] {
					t.Fatalf("%s: line %d decides about %+v, and is not listed: %v\n%s", model, d.Line, q, lines, text)
				}
			}
		}
	}
	if allowed < 100 || grants < 20 {
		t.Errorf("too little came out: %d allowed, %d grants", allowed, grants)
	}
}

// listed returns the names of a policy, from its lines.
func listed(s *policy.Store) map[string]authz.Principal {
	version := s.Version()
	names := map[string]authz.Principal{
		authz.Anonymous:          authz.AnonymousPrincipal(),
		authz.GroupAuthenticated: authz.Principal{Subject: "a stranger"}.WithBuiltinGroups(),
	}
	roles := map[string]bool{}
	rows, text := version.Table.Rows, version.Table.Symbols.Text
	for _, edge := range version.Table.Edges["g"] {
		roles[text(edge.Role)] = true
	}
	add := func(name string) {
		switch {
		case roles[name] || name == authz.GroupAnyone || name == authz.GroupAuthenticated:
		case name[0] == '@':
			names[name] = authz.Principal{Subject: "a stranger", Groups: []string{name}}.WithBuiltinGroups()
		default:
			names[name] = authz.Principal{Subject: name}.WithBuiltinGroups()
		}
	}
	for _, edge := range version.Table.Edges["g"] {
		add(text(edge.Name))
	}
	if col := version.Engine.Model.PolicyField("sub"); col >= 0 {
		for _, subject := range rows.Cols[col] {
			add(text(subject))
		}
	}
	if strings.Contains(version.Engine.Model.Matcher, `"root"`) {
		add("root")
	}
	return names
}
