package policy

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"securefiles/authz"
)

// summary writes holders as name@line.
func summary(holders []Holder) string {
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
	s, _ := open(t, whoPolicy, nil)
	for _, tt := range []struct{ object, allowed, denied string }{
		{"/project/plan.pdf", "@contractors:3 alice:3", ""},
		{"/project/hr/pay.pdf", "", "dave:5 @contractors:4 alice:4"},
		{"/shared/x", "@authenticated:2 dave:2 @contractors:2 alice:2", ""},
		{"/public/x", "anonymous:1 @authenticated:1 dave:1 @contractors:1 alice:1", ""},
		{"/elsewhere", "", ""},
	} {
		w, err := s.Who(t.Context(), authz.Query{Object: tt.object, Action: authz.ActionRead})
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
	w, err := s.Who(t.Context(), authz.Query{Object: "/project/x", Action: authz.ActionRead})
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(w.Allowed, func(h Holder) bool { return h.Name == "alice" })
	if diff := cmp.Diff([]Step{{"alice", 0}, {"senior", 6}, {"editor", 7}}, w.Allowed[i].Line.Chain); diff != "" {
		t.Error(diff)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Who(ctx, authz.Query{Object: "/x"}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	var zero Store
	if _, err := zero.Who(t.Context(), authz.Query{}); err == nil {
		t.Error("a zero store answers")
	}
}

// Names that stand in the model alone are asked for, too.
func TestWhoNamesThoseOfTheModel(t *testing.T) {
	model := modelShape{request: []string{"sub", "obj", "act"}, policy: []string{"sub", "obj", "act", "eft"}, roles: []string{"g = _, _"}, effect: allowAndDeny}
	s := openText(t, model.model(`g(r.sub, p.sub) && globMatch(r.obj, p.obj) || g(r.sub, "@team") || r.sub == "root"`), "p, alice, /a, read, allow\n")
	w, err := s.Who(t.Context(), authz.Query{Object: "/a", Action: authz.ActionRead})
	if err != nil {
		t.Fatal(err)
	}
	if got := summary(w.Allowed); !w.Exact || got != "alice:1 @team:1 root:1" {
		t.Errorf("exact %t, %s", w.Exact, got)
	}
}

func TestWhat(t *testing.T) {
	s, _ := open(t, whoPolicy, nil)
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
		w, err := s.What(t.Context(), q)
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
	if _, err := s.What(t.Context(), authz.Query{}); !errors.Is(err, authz.ErrReservedSubject) {
		t.Errorf("nobody: %v", err)
	}

	// A line that another overrides for every path is said to be.
	s, _ = open(t, "p, alice, /a/**, read, allow\np, alice, /**, read, deny\n", nil)
	w, err := s.What(t.Context(), read("alice", ""))
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
		def := readFile(t, "testdata/model/priority.conf")
		s := (*Store)(nil)
		if tt.model == "anonymous" { // a home directory for each subject
			s = openText(t, strings.NewReplacer("p = priority, sub", "p = sub", "priority(p.eft) || deny", "some(where (p.eft == allow))",
				"globMatch(r.obj, p.obj)", "keyMatch(r.obj, p.obj) && keyMatch(r.sub, p.sub) && r.obj != r.sub").Replace(def), "p, alice, /a, read, allow\n")
		} else {
			s = openModel(t, tt.model, tt.policy)
		}
		who, err := s.Who(t.Context(), authz.Query{Object: "/a", Action: "read"})
		if err != nil {
			t.Fatal(err)
		}
		what, err := s.What(t.Context(), read("alice", ""))
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
	for i := range share(2000, 40) {
		model := randomModels()[i%len(randomModels())]
		s := openRandom(t, random, model, 12)
		text := readFile(t, s.source.Policy)
		for range 5 {
			q := randomQuery(random)
			w, err := s.Who(t.Context(), q)
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
			q := randomQuery(random)
			if _, err := s.Decide(t.Context(), q); errors.Is(err, authz.ErrReservedSubject) {
				continue
			}
			w, err := s.What(t.Context(), q)
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
				q.Object = randomPath(random)
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
func listed(s *Store) map[string]authz.Principal {
	snap := s.current.Load()
	names := map[string]authz.Principal{
		authz.Anonymous:          authz.AnonymousPrincipal(),
		authz.GroupAuthenticated: authz.Principal{Subject: "a stranger"}.WithBuiltinGroups(),
	}
	roles := map[string]bool{}
	render := snap.table.render()
	for _, link := range render["g"] {
		roles[link[1]] = true
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
	for _, link := range render["g"] {
		add(link[0])
	}
	if col := snap.engine.def.policyField("sub"); col >= 0 {
		for _, row := range render["p"] {
			add(row[col])
		}
	}
	if strings.Contains(snap.engine.def.matcher, `"root"`) {
		add("root")
	}
	return names
}

func openText(t *testing.T, model, text string) *Store {
	t.Helper()
	dir := t.TempDir()
	source := Source{Model: dir + "/model.conf", Policy: dir + "/policy.csv"}
	write(t, source.Model, model)
	write(t, source.Policy, text)
	s, err := Open(t.Context(), source, nil)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// Samples of a pattern are paths, and the pattern matches some of them.
func TestSamplePaths(t *testing.T) {
	for _, tt := range []struct{ function, pattern, want string }{
		{"==", "/a/b", "/a/b"},
		{"keyMatch", "/a/*", "/a/x /a/x/y /a"},
		{"keyMatch", "/a", "/a"},
		{"keyMatch2", "/a/:id/b", "/a/x/b"},
		{"keyMatch2", "/a/*", "/a/x /a/x/y /a"},
		{"keyMatch3", "/a/{id}", "/a/x"},
		{"keyMatch4", "/{a}/{a}", "/x/x"},
		{"keyMatch5", "/{a}/*", "/x/x /x/x/y /x"},
		{"globMatch", "/a/**", "/a/x /a/x/y /a"},
		{"globMatch", "/a/*", "/a/x"},
		{"globMatch", "/**/secret", "/secret /x/secret /x/y/secret"},
		{"globMatch", "/a/*.pdf", "/a/x.pdf"},
		{"globMatch", `/a/\[1\].{pdf,t?t}`, "/a/[1].pdf /a/[1].txt"},
		{"globMatch", "/[ab]", "/a /x /0 /_"},
		{"globMatch", "/**.pdf", "/x.pdf"},
		{"globMatch", "/{a,b/{c,d}}/**", "/a/x /a/x/y /a /b/c/x /b/c/x/y /b/c /b/d/x /b/d/x/y /b/d"},
		{"regexMatch", "^/a/(b|c)$", "/a/b /a/b/x /x/a/b /x/a/c /a/c"},
		{"regexMatch", "c$", "/c /x/c /xc"},
		{"regexMatch", "^/[0-9]{4}/", "/0000/x"},
	} {
		got := strings.Join(samplePaths(tt.function, tt.pattern), " ")
		if tt.function == "regexMatch" {
			for _, path := range strings.Fields(tt.want) {
				if !slices.Contains(strings.Fields(got), path) {
					t.Errorf("%s %s: %s is missing in %s", tt.function, tt.pattern, path, got)
				}
			}
			continue
		}
		if got != tt.want {
			t.Errorf("%s %s: %s, want %s", tt.function, tt.pattern, got, tt.want)
		}
	}
}

// Whatever the pattern, samples are few and look like paths.
func FuzzSamplePaths(f *testing.F) {
	for _, pattern := range []string{"/a/**", "/{a,b}/[^c]*", `\`, "[", "{", "/:x/*", "^/(a|b)+/[^/]{2,}$", "**", "/{,}/x"} {
		f.Add(pattern)
	}
	f.Fuzz(func(t *testing.T, pattern string) {
		if len(pattern) > 200 {
			return
		}
		for _, function := range []string{"==", "keyMatch", "keyMatch2", "keyMatch3", "keyMatch4", "keyMatch5", "globMatch", "regexMatch"} {
			paths := samplePaths(function, pattern)
			if len(paths) > maxSamples {
				t.Fatalf("%d samples", len(paths))
			}
			for _, p := range paths {
				if !isPath(p) {
					t.Fatalf("%q is no path", p)
				}
			}
		}
	})
}

func TestPathClauses(t *testing.T) {
	shape := modelShape{request: []string{"sub", "obj", "act"}, policy: []string{"sub", "obj", "act", "eft"}, roles: []string{"g = _, _"}, effect: allowAndDeny}
	for matcher, want := range map[string]pathClause{
		"globMatch(r.obj, p.obj)":          {"globMatch", 1},
		"(r.obj =~ p.obj)":                 {"regexMatch", 1},
		"r.obj == p.obj":                   {"==", 1},
		"p.sub == r.obj":                   {"==", 0},
		"g(r.obj, p.obj)":                  {"==", 1},
		"g(r.sub, p.sub)":                  {},
		"keyMatch(r.act, p.act)":           {},
		"r.obj != p.obj":                   {},
		"!(r.obj == p.obj)":                {},
		`p.obj == "/a"`:                    {},
		"r.obj == p.obj || r.act == p.act": {},
		`globMatch(r.obj, p.obj + "/**")`:  {},
	} {
		def, err := parseDefinition("model.conf", shape.model(matcher))
		if err != nil {
			t.Errorf("%s: %v", matcher, err)
			continue
		}
		if got, ok := def.pathClauseOf(def.root); got != want || ok != (want.function != "") {
			t.Errorf("%s: %v, %t", matcher, got, ok)
		}
	}
}
