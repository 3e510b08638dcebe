package engine

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"securefiles/authz"
	"securefiles/policy/internal/model"
	"securefiles/policy/internal/pattern"
	"securefiles/policy/internal/table"
	"securefiles/policy/internal/world"
)

// namedEngine indexes lines under a model that asks a function for the path.
func namedEngine(t testing.TB, function, lines string, opts Options) *Engine {
	t.Helper()
	m, err := model.Parse("model.conf", strings.ReplaceAll(model.Default, "globMatch", function))
	if err != nil {
		t.Fatal(err)
	}
	tab, _, err := table.Read(context.Background(), "policy.csv", strings.NewReader(lines), m, table.Options{})
	if err != nil {
		t.Fatal(err)
	}
	e, err := New(m, tab, opts)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// visited is how many rows a decision looks at, and how many keys it looks up.
func visited(t testing.TB, e *Engine, q authz.Query) (rows, keys int) {
	t.Helper()
	ev, err := e.Begin(&q)
	if err != nil {
		t.Fatal(err)
	}
	defer e.End(ev)
	found, all := ev.Candidates()
	if all {
		return e.Rows.Len(), 0
	}
	return len(found), len(ev.keys.all)
}

// Lines with $sub and $group are found like lines with the name itself: a decision
// looks at as many, and looks up as many keys.
func TestNamesAreIndexedLikeLiterals(t *testing.T) {
	lines := 20_000
	if testing.Short() {
		lines /= 10
	}
	for _, tt := range []struct{ function, named, literal, object string }{
		{"globMatch", "/$sub/docs%d/**", "/alice/docs%d/**", "/alice/docs777/x"},
		{"globMatch", "/home/%d/$sub/**", "/home/%d/alice/**", "/home/777/alice/x"},
		{"globMatch", "/tenants/$group/p%d/**", "/tenants/acme/p%d/**", "/tenants/acme/p777/a/b"},
		{"globMatch", "/$group/$sub/p%d/**", "/acme/alice/p%d/**", "/acme/alice/p777/a/b"},
		{"globMatch", "/**/$sub/f%d.pdf", "/**/alice/f%d.pdf", "/a/b/alice/f777.pdf"},
		{"globMatch", "/$sub/f%d.pdf", "/alice/f%d.pdf", "/alice/f777.pdf"},
		{"keyMatch", "/$sub/docs%d/*", "/alice/docs%d/*", "/alice/docs777/x"},
		{"keyMatch2", "/$sub/docs%d/*", "/alice/docs%d/*", "/alice/docs777/x"},
		{"keyMatch2", "/v1.2/$sub/docs%d/*", "/v1.2/alice/docs%d/*", "/v1.2/alice/docs777/x"},
		{"keyMatch3", "/{t}/$sub/f%d.pdf", "/{t}/alice/f%d.pdf", "/t/alice/f777.pdf"},
		{"keyMatch4", "/$group/$sub/f%d", "/acme/alice/f%d", "/acme/alice/f777"},
		{"keyMatch5", "/$sub/docs%d/*", "/alice/docs%d/*", "/alice/docs777/x?y"},
		{"regexMatch", "^/$sub/docs%d/", "^/alice/docs%d/", "/alice/docs777/x"},
	} {
		var counts, keys [2]int
		for i, pattern := range []string{tt.named, tt.literal} {
			var csv strings.Builder
			for n := range lines {
				fmt.Fprintf(&csv, "p, @authenticated, "+pattern+", read, allow\n", n)
			}
			q := world.Query("alice", tt.object, "@acme", authz.GroupAuthenticated)
			e := namedEngine(t, tt.function, csv.String(), Options{})
			counts[i], keys[i] = visited(t, e, q)
			if allowed, _, err := e.decide(&q, e.Lookup("alice")); err != nil || !allowed {
				t.Errorf("%s %s: %t, %v", tt.function, pattern, allowed, err)
			}
			q.Principal.Subject, q.Principal.Groups = "bob", []string{authz.GroupAuthenticated}
			if allowed, _, err := e.decide(&q, e.Lookup("bob")); i == 0 && (err != nil || allowed) {
				t.Errorf("%s %s for bob: %t, %v", tt.function, pattern, allowed, err)
			}
		}
		if counts[0] > counts[1] || counts[0] == 0 {
			t.Errorf("%s %s looks at %d lines, %s at %d", tt.function, tt.named, counts[0], tt.literal, counts[1])
		}
		if keys[0] > keys[1] || keys[0] == 0 {
			t.Errorf("%s %s looks up %d keys, %s %d", tt.function, tt.named, keys[0], tt.literal, keys[1])
		}
	}
}

// However many names stand in a pattern, and in however many places, the index finds
// what a look at every line finds.
func TestTheIndexFindsNamesInAllPlaces(t *testing.T) {
	matched, seeds := 0, uint64(300)
	if testing.Short() {
		seeds /= 3
	}
	for seed := range seeds {
		random := rand.New(rand.NewPCG(seed, 3))
		pick := func(texts ...string) string { return texts[random.IntN(len(texts))] }
		function := indexedFunctions()[seed%uint64(len(indexedFunctions()))]
		var csv strings.Builder
		for range 1 + random.IntN(80) {
			pattern := pick("", "", "^")
			if function != "regexMatch" {
				pattern = ""
			}
			for range 1 + random.IntN(9) {
				pattern += "/" + pick("$sub", "$sub", "$group", "a", "b", "a.b", "a.b", "x*", "*", "a...b", "{x}")
			}
			fmt.Fprintf(&csv, "p, @authenticated, %s%s, read, %s\n", pattern, pick("", "/**", "/*", "$"), pick("allow", "allow", "deny"))
		}
		text := csv.String()
		if function != "regexMatch" {
			text = strings.ReplaceAll(text, "$, ", ", ")
		}
		var engines [2]*Engine
		for i := range engines {
			m, err := model.Parse("model.conf", strings.ReplaceAll(model.Default, "globMatch", function))
			if err != nil {
				t.Fatal(err)
			}
			lines := text
			var tab *table.Table
			for {
				if tab, _, err = table.Read(t.Context(), "policy.csv", strings.NewReader(lines), m, table.Options{}); err == nil {
					break
				}
				var ok bool
				if lines, ok = world.WithoutRefused(lines, err); !ok {
					t.Fatal(err)
				}
			}
			tuned := tuning{fewValues: random.IntN(3), searchFrom: random.IntN(3), fewRows: random.IntN(3)}
			if engines[i], err = New(m, tab, Options{scan: i == 1, tuning: &tuned}); err != nil {
				t.Fatal(err)
			}
		}
		for range 60 {
			q := world.Query(pick("a", "alice", "a.b", "x*"), "", "@"+pick("a", "b", "team"), authz.GroupAuthenticated, "@team")
			for range 1 + random.IntN(9) {
				q.Object += "/" + pick(q.Principal.Subject, q.Principal.Subject, "team", "a", "b", "aXb", "a.b", "a/b", "x")
			}
			q.Object += pick("", "", "?q", "?q/a", "/")
			got, row, err := engines[0].decide(&q, engines[0].Lookup(q.Principal.Subject))
			want, wantRow, wantErr := engines[1].decide(&q, engines[1].Lookup(q.Principal.Subject))
			if got != want || row != wantRow || err != nil || wantErr != nil {
				t.Fatalf("%s %+v: %t by %d, not %t by %d: %v %v\n%s", function, q, got, row, want, wantRow, err, wantErr, text)
			}
			if row >= 0 {
				matched++
			}
		}
	}
	if matched < 10*int(seeds)/3 {
		t.Errorf("%d decisions by a line, which says little", matched)
	}
}

// Who may be $sub, and what may be $group.
func TestWhoMayBeAName(t *testing.T) {
	const lines = `p, @anyone, /home/$sub/**, read, allow
p, @anyone, /tenants/$group/**, read, allow
p, @anyone, /home/$sub/hr/**, read, deny
g, alice, editor
`
	e := namedEngine(t, "globMatch", lines+"p, editor, /x, read, allow\n", Options{})
	for _, tt := range []struct {
		principal authz.Principal
		object    string
		want      bool
	}{
		{authz.Principal{Subject: "alice"}.WithBuiltinGroups(), "/home/alice/x", true},
		{authz.Principal{Subject: "alice"}.WithBuiltinGroups(), "/home/alice/hr/x", false},
		{authz.Principal{Subject: "alice"}.WithBuiltinGroups(), "/home/bob/x", false},
		{authz.AnonymousPrincipal(), "/home/anonymous/x", false},
		{authz.AnonymousPrincipal(), "/tenants/anyone/x", false},
		{authz.Principal{Subject: "a/b"}.WithBuiltinGroups(), "/home/a/b/x", false},
		{authz.Principal{Subject: ".."}.WithBuiltinGroups(), "/home/../x", false},
		{authz.Principal{Subject: "."}.WithBuiltinGroups(), "/home/./x", false},
		{authz.Principal{Subject: "alice", Groups: []string{"@acme", "@x"}}.WithBuiltinGroups(), "/tenants/x/y", true},
		{authz.Principal{Subject: "alice", Groups: []string{"@acme"}}.WithBuiltinGroups(), "/tenants/@acme/y", false},
		{authz.Principal{Subject: "alice"}.WithBuiltinGroups(), "/tenants/authenticated/y", false},
		{authz.Principal{Subject: "alice"}.WithBuiltinGroups(), "/tenants/anyone/y", false},
		{authz.Principal{Subject: "alice"}.WithBuiltinGroups(), "/tenants/editor/y", false}, // a role
		{authz.Principal{Subject: "alice"}.WithBuiltinGroups(), "/tenants/alice/y", false},
		{authz.Principal{Subject: "alice", Groups: []string{"acme"}}.WithBuiltinGroups(), "/tenants/acme/y", false},
		{authz.Principal{Subject: "alice", Groups: []string{"@..", "@."}}.WithBuiltinGroups(), "/tenants/../y", false},
		{authz.Principal{Subject: "alice", Groups: []string{"@..", "@."}}.WithBuiltinGroups(), "/tenants/./y", false},
		{authz.Principal{Subject: "e\u0301"}.WithBuiltinGroups(), "/home/\u00e9/y", false},
	} {
		q := authz.Query{Principal: tt.principal, Object: tt.object, Action: authz.ActionRead}
		if got, _, err := e.decide(&q, e.Lookup(tt.principal.Subject)); err != nil || got != tt.want {
			t.Errorf("%+v %s: %t, %v", tt.principal, tt.object, got, err)
		}
	}
}

// $sub means the same wherever a model asks the function for the path, and is a text
// like any other for what is not the path.
func TestNamesInOtherModels(t *testing.T) {
	head := "[request_definition]\nr = sub, dom, obj, act\n[policy_definition]\np = sub, dom, obj, act\n[policy_effect]\ne = some(where (p.eft == allow))\n[matchers]\nm = "
	for _, tt := range []struct {
		matcher, line, object, domain string
		want                          bool
	}{
		{"(globMatch(r.obj, p.obj)) == true", "p, x, main, /home/$sub/*, read", "/home/alice/x", "main", true},
		{"(globMatch(r.obj, p.obj)) == true", "p, x, main, /home/$sub/*, read", "/home/bob/x", "main", false},
		{`globMatch(r.obj, "/home/$sub/*") && p.act == r.act`, "p, x, main, /x, read", "/home/alice/x", "main", true},
		{`globMatch(r.obj, "/home/$sub/*") && p.act == r.act`, "p, x, main, /x, read", "/home/$sub/x", "main", false},
		{"globMatch(r.dom, p.dom) && globMatch(r.obj, p.obj)", "p, x, /$sub, /home/$sub/*, read", "/home/alice/x", "/$sub", true},
		{"globMatch(r.dom, p.dom) && globMatch(r.obj, p.obj)", "p, x, /$sub, /home/$sub/*, read", "/home/alice/x", "/alice", false},
		{"globMatch(r.dom, p.dom) && r.act == p.act", "p, x, /$sub, /x, read", "/home/alice/x", "/$sub", true},
		{"globMatch(r.dom, p.dom) && r.act == p.act", "p, x, /$sub, /x, read", "/alice", "/alice", false},
		{"globMatch(r.obj, p.obj)", "p, x, main, /x//$sub/y, read", "/x//alice/y", "main", true},
		{"globMatch(r.obj, p.obj)", "p, x, main, /*/$sub/, read", "/x/alice/", "main", true},
		{"globMatch(r.obj, p.obj)", "p, x, main, /*/$sub/, read", "/x/alice", "main", false},
		{"keyMatch5(r.obj, p.obj)", "p, x, main, /*/$sub/b, read", "/x/alice/b", "main", true},
		{"keyMatch5(r.obj, p.obj)", "p, x, main, /*/$sub/b, read\np, x, main, /*/q, read\np, x, main, /*/r, read", "/x/alice/b?c/d", "main", true},
		{"keyMatch5(r.obj, p.obj)", "p, x, main, /*/$sub/b, read", "/x/bob/b?c/d", "main", false},
		{"keyMatch2(r.obj, p.obj)", "p, x, main, /*/$sub/b, read", "/x/alice/b?c/d", "main", false},
		{"r.obj == p.obj", "p, x, main, /home/$sub, read", "/home/alice", "main", false},
		{"!globMatch(r.obj, p.obj)", "p, x, main, /home/$sub/*, read", "/home/alice/x", "main", false},
		{"!globMatch(r.obj, p.obj)", "p, x, main, /home/$sub/*, read", "/home/bob/x", "main", true},
	} {
		m, err := model.Parse("model.conf", head+tt.matcher+"\n")
		if err != nil {
			t.Fatal(err)
		}
		tab, _, err := table.Read(t.Context(), "policy.csv", strings.NewReader(tt.line), m, table.Options{})
		if err != nil {
			t.Fatal(err)
		}
		e, err := New(m, tab, Options{})
		if err != nil {
			t.Fatal(err)
		}
		q := world.Query("alice", tt.object)
		q.Domain = tt.domain
		if got, _, err := e.decide(&q, e.Lookup("alice")); err != nil || got != tt.want {
			t.Errorf("%s, %s, %s in %s: %t, %v", tt.matcher, tt.line, tt.object, tt.domain, got, err)
		}
	}
}

// Inside of another expression, the path alone is asked for names, by patterns that
// have them; any other field is compared to the pattern as it stands.
func TestNamesInsideOfOtherExpressions(t *testing.T) {
	for _, tt := range []struct {
		request, matcher, line, object string
		want                           bool
	}{
		{"sub, obj, act", "(globMatch(r.act, p.act) ? globMatch(r.obj, p.obj) : false)", "p, x, /home/$sub/*, re*", "/home/alice/x", true},
		{"sub, obj, act", "(globMatch(r.act, p.act) ? globMatch(r.obj, p.obj) : false)", "p, x, /home/$sub/*, li*", "/home/alice/x", false},
		{"sub, obj, act", "(globMatch(r.sub, p.obj) ? true : false)", "p, x, /$sub, read", "/alice", false},
		{"sub, obj, act", "(globMatch(r.obj, p.obj) ? true : false)", "p, x, /t/$group/*, read", "/t/acme/x", true},
		{"sub, obj, act", "(globMatch(r.obj, p.obj) ? true : false)", "p, x, /t/$group/*, read", "/t/$group/x", false},
		{"sub, obj, act", "(globMatch(r.obj, p.obj) ? true : false)", "p, x, /t/x*, read", "/t/xy", true},
		{"obj, sub, act", "(globMatch(r.obj, p.obj) ? true : false)", "p, x, /home/$sub/*, read", "/home/alice/x", true},
		{"obj, sub, act", "globMatch(r.obj, p.obj)", "p, x, /home/$sub/*, read", "/home/alice/x", true},
		{"obj, sub, act", "globMatch(r.obj, p.obj)", "p, x, /home/$sub/*, read", "/home/bob/x", false},
		{"sub, act", "(globMatch(r.act, p.act) ? true : false)", "p, x, /y, re*", "/home/alice/x", true},
		{"sub, act", "globMatch(r.sub, p.obj)", "p, x, /$sub, read", "/alice", false},
	} {
		m, tab := read(t, "[request_definition]\nr = "+tt.request+"\n[policy_definition]\np = sub, obj, act\n[policy_effect]\ne = some(where (p.eft == allow))\n[matchers]\nm = "+tt.matcher+"\n", tt.line)
		e, err := New(m, tab, Options{})
		if err != nil {
			t.Fatal(err)
		}
		q := world.Query("alice", tt.object, "@acme")
		if got, _, err := e.decide(&q, e.Lookup("alice")); err != nil || got != tt.want {
			t.Errorf("r = %s, %s, %s, %s: %t, %v", tt.request, tt.matcher, tt.line, tt.object, got, err)
		}
	}
}

// Where no path is asked about, it holds no names.
func TestNamesOfARequestWithoutAPath(t *testing.T) {
	m, tab := read(t, "[request_definition]\nr = sub, act\n[policy_definition]\np = sub, obj, act\n[policy_effect]\ne = some(where (p.eft == allow))\n[matchers]\nm = r.sub == p.sub && r.act == p.act\n", "p, alice, /$sub, read\n")
	e, err := New(m, tab, Options{})
	if err != nil {
		t.Fatal(err)
	}
	q := world.Query("alice", "/alice")
	ev, err := e.Begin(&q)
	if err != nil {
		t.Fatal(err)
	}
	defer e.End(ev)
	if names := ev.Names(); names.Subject != "" || len(names.Groups) > 0 {
		t.Errorf("%+v", names)
	}
}

// Where names stand in more places than the index takes, or in more of one pattern, it
// finds the lines all the same.
func TestNamesInManyPlaces(t *testing.T) {
	var csv strings.Builder
	for depth := range 2 * maxSides {
		fmt.Fprintf(&csv, "p, @authenticated, %s/$sub/d%d/*, read, allow\n", strings.Repeat("/x", depth), depth)
	}
	csv.WriteString("p, @authenticated, /**/$sub/last.pdf, read, allow\np, @authenticated, /*/b/$sub, read, allow\np, @authenticated, /$sub/$sub/$sub, read, allow\np, @authenticated, /q/$group/$sub/$sub/z, read, allow\n")
	e := namedEngine(t, "globMatch", csv.String(), Options{})
	for _, tt := range []struct {
		object string
		want   bool
	}{
		{"/alice/d0/f", true}, {"/x/alice/d1/f", true}, {"/x/bob/d1/f", false}, {strings.Repeat("/x", 63) + "/alice/d63/f", true}, {strings.Repeat("/x", 62) + "/alice/d63/f", false},
		{"/a/b/c/alice/last.pdf", true}, {"/a/b/c/bob/last.pdf", false}, {"/a/b/alice", true}, {"/a/b/bob", false},
		{"/alice/alice/alice", true}, {"/alice/alice/bob", false}, {"/alice/alice", false}, {"/q/acme/alice/alice/z", true}, {"/q/acme/alice/bob/z", false},
	} {
		q := world.Query("alice", tt.object, "@acme", authz.GroupAuthenticated)
		if got, _, err := e.decide(&q, e.Lookup("alice")); err != nil || got != tt.want {
			t.Errorf("%s: %t, %v", tt.object, got, err)
		}
	}
	few := namedEngine(t, "globMatch", "p, @authenticated, /$sub/$sub/$sub, read, allow\n", Options{})
	q := world.Query("alice", "/alice/alice/alice", authz.GroupAuthenticated)
	if got, _, err := few.decide(&q, few.Lookup("alice")); err != nil || !got {
		t.Errorf("three names: %t, %v", got, err)
	}
}

// Where a function reads a path up to its query, no place is counted from the end of
// the path.
func TestPlacesOfNamesInPathsThatAreCut(t *testing.T) {
	const named = "/\x01/b"
	for _, cuts := range []bool{false, true} {
		k, want := newAnchorKeys(), newAnchorKeys()
		prefix, suffix := k.add(pattern.Anchors{Prefix: "/a", Suffix: "x" + named}, cuts)
		counted, side := "x"+named, 2
		if cuts {
			counted, side = "/b", 1
		}
		if prefix != addAnchor(&want.sides[0].masks, []byte("/a"), true) || suffix != addAnchor(&want.sides[1].masks, []byte(counted), false) || len(k.sides) != side+1 {
			t.Errorf("cut: %t: other anchors than /a and %q, or not on side %d of %d", cuts, counted, side, len(k.sides))
		}
	}
	k := newAnchorKeys()
	k.add(pattern.Anchors{Prefix: "/a", Suffix: "/\x01/\x02/b"}, false)
	if last := k.sides[len(k.sides)-1]; last.count != 2 {
		t.Errorf("of two names from the end %d count", last.count)
	}
	for name, want := range map[string]int{"globMatch": 3, "keyMatch3": 3, "keyMatch5": 2} {
		f, _ := pattern.ByName(name)
		syms := table.NewSymbols()
		x := newAnchorIndex(syms, []table.Symbol{syms.Intern("/*/$sub/b")}, f, true, nil)
		if len(x.keysOf.sides) != want {
			t.Errorf("%s: %d sides", name, len(x.keysOf.sides))
		}
	}
}

// A decision about a path in which names stand allocates nothing, however many
// conjunctions ask for them.
func TestNamesOfAPathAllocateNothing(t *testing.T) {
	if raceDetector {
		t.Skip("the race detector has pools forget: make test runs this without it")
	}
	lines := manyLines(100, "p, @authenticated, /home/$sub/docs%d/**, read, allow\n") + manyLines(100, "p, @authenticated, /home/$sub/docs%d/**, *, allow\n")
	m, tab := read(t, model.Default, lines)
	v, err := NewVersion(m, tab, Options{})
	if err != nil {
		t.Fatal(err)
	}
	q := authz.Query{Principal: authz.Principal{Subject: "alice"}.WithBuiltinGroups(), Object: "/home/alice/docs7/a.pdf", Action: "read"}
	if n := testing.AllocsPerRun(200, func() {
		if d, err := v.Decide(&q); err != nil || d.Effect != authz.Allow {
			t.Fatal(d, err)
		}
	}); n > 0 {
		t.Errorf("a decision allocates %.1f times", n)
	}
}
