package table

import (
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// A set holds what was added since it was last cleared, as a map does, however it
// grows.
func TestSet(t *testing.T) {
	random := rand.New(rand.NewPCG(7, 8))
	var s Set
	if s.Has(1) {
		t.Error("an empty set has something")
	}
	for round := range 200 {
		if round == 100 { // before the rounds begin anew
			s.round = 1<<32 - 50
		}
		s.Clear()
		want := map[Symbol]bool{}
		for range random.IntN([]int{3, 33, 34, 65, 2000}[round%5]) {
			name := Symbol(random.IntN(3000))
			if round%2 == 0 {
				name <<= 9 // many have the same slot
			}
			if added := s.Add(name); added == want[name] {
				t.Fatalf("round %d: %d is new: %t", round, name, added)
			}
			want[name] = true
		}
		for _, name := range slices.Concat(slices.Collect(maps.Keys(want)), []Symbol{0, 1, 2, 512, 1024, 2999, NoSymbol}) {
			if s.Has(name) != want[name] {
				t.Fatalf("round %d: %d is there: %t", round, name, s.Has(name))
			}
		}
	}
}

// A set grows when half of it is taken, and not before.
func TestSetGrowsByHalf(t *testing.T) {
	var s Set
	for i := range Symbol(300) {
		s.Add(i)
		if len(s.slots) < 2*s.used || s.used > 32 && len(s.slots) > 4*s.used {
			t.Fatalf("%d slots for %d", len(s.slots), s.used)
		}
	}
}

// When the rounds begin anew, what an old one left behind is not there.
func TestSetForgetsWhenRoundsBeginAnew(t *testing.T) {
	var s Set
	s.Clear()
	s.Add(5) // in round 1
	s.round = 1<<32 - 1
	s.Clear() // again round 1
	if s.Has(5) {
		t.Error("what was there before the rounds began anew is there")
	}
}

func TestGroupBy(t *testing.T) {
	first, order := GroupBy([]int32{2, 0, 2, 3}, 4)
	if !slices.Equal(first, []int32{0, 1, 1, 3, 4}) || !slices.Equal(order, []int32{1, 0, 2, 3}) {
		t.Errorf("%v, %v", first, order)
	}
}

// A chain is followed as deep as the graph says, a group being the first hop, and
// each name knows from which it was reached.
func TestWalksEndAtADepth(t *testing.T) {
	syms := NewSymbols()
	empty, alice, a, b, team, c := syms.Intern(""), syms.Intern("alice"), syms.Intern("a"), syms.Intern("b"), syms.Intern("@team"), syms.Intern("c")
	edges := []Edge{{alice, a, empty, 1, 0}, {a, b, empty, 2, 0}, {team, c, empty, 3, 0}, {a, c, 99, 4, 0}}
	for depth, want := range [][]Symbol{{alice}, {alice, team, a}, {alice, team, a, c, b}, {alice, team, a, c, b}} {
		var w Walk
		NewGraph(edges, nil, depth).Begin(&w, syms, alice, []string{"@team", "@unknown"}, empty, time.Time{})
		if got := w.All(); !slices.Equal(got, want) {
			t.Errorf("depth %d: %v, not %v", depth, got, want)
		}
		for _, name := range []Symbol{alice, a, b, team, c} {
			at := w.Find(name)
			if (at >= 0) != slices.Contains(want, name) || w.Has(name) != (at >= 0) || at >= 0 && w.Reached[at].Name != name {
				t.Errorf("depth %d: %d is found at %d", depth, name, at)
			}
		}
		for name, from := range map[Symbol]Symbol{a: alice, team: alice, b: a, c: team} {
			if at := w.Find(name); at >= 0 && w.Reached[w.Reached[at].Parent].Name != from {
				t.Errorf("depth %d: %d is reached from another than %d", depth, name, from)
			}
		}
		if w.Reached[0].Parent != -1 {
			t.Errorf("the start is reached from %d", w.Reached[0].Parent)
		}
	}
}

// Whoever no line names reaches his groups' roles, and is no symbol himself.
func TestWalkOfSomebodyWhomNoLineNames(t *testing.T) {
	syms := NewSymbols()
	empty, team, editor := syms.Intern(""), syms.Intern("@team"), syms.Intern("editor")
	g := NewGraph([]Edge{{team, editor, empty, 1, 0}}, nil, DefaultDepth)
	var w Walk
	g.Begin(&w, syms, NoSymbol, []string{"@team", "@other"}, empty, time.Time{})
	if got := w.All(); !slices.Equal(got, []Symbol{team, editor}) {
		t.Errorf("he reaches %v", got)
	}
}

// An edge whose domain is a pattern holds in the domains that match it, and in its
// period; one that does not hold costs its time all the same.
func TestWalksInPatternsOfDomainsAndPeriods(t *testing.T) {
	syms := NewSymbols()
	syms.Intern("")
	alice, a, b := syms.Intern("alice"), syms.Intern("a"), syms.Intern("b")
	d1, all := syms.Intern("d1"), syms.Intern("d*")
	noon := time.Date(2026, 12, 31, 12, 0, 0, 0, time.UTC)
	var periods Periods
	periods.add(Period{Begin: 90, End: 90})
	until := periods.add(Period{Begin: 90, End: 91, Until: noon})
	g := NewGraph([]Edge{{alice, a, all, 1, until}, {a, b, d1, 2, 0}, {alice, b, all, 3, until}}, &periods, DefaultDepth)
	g.MatchDomains(syms)
	for _, tt := range []struct {
		at   time.Time
		want []Symbol
		idle int
	}{
		{noon.Add(-1), []Symbol{alice, a, b}, 0},
		{noon, []Symbol{alice}, 2},
	} {
		var w Walk
		g.Begin(&w, syms, alice, nil, d1, tt.at)
		if got := w.All(); !slices.Equal(got, tt.want) || w.Idle != tt.idle {
			t.Errorf("at %v: %v and %d idle, not %v and %d", tt.at, got, w.Idle, tt.want, tt.idle)
		}
	}
}

// Where domains are patterns, a role is asked in the longest that matches; one that
// edges have is asked as it is.
func TestDomainInWhichRolesAreAsked(t *testing.T) {
	for _, tt := range []struct {
		edges []string // domains of edges
		asked string
		want  string // none is NoSymbol
	}{
		{[]string{"d1", "d*", "d1*", "*"}, "d1", "d1"},
		{[]string{"d1", "d*", "d1*", "*"}, "d1x", "d1*"},
		{[]string{"d1", "d*", "d1*", "*"}, "d1*", "d1*"},
		{[]string{"d1", "d*", "d1*", "*"}, "dx", "d*"},
		{[]string{"d1", "d*", "d1*", "*"}, "x", "*"},
		{[]string{"d1", "d*", "d1*", "*"}, "", "*"},
		{[]string{"d1", "d*"}, "d", "d*"},
		{[]string{"d1", "d*"}, "x", "none"},
		{[]string{"d1", "x*y"}, "xz", "x*y"},
		{[]string{"d1"}, "d1", "d1"},
		{[]string{"d1"}, "known", "known"}, // to the policy, and no edge has it
		{[]string{"d1"}, "unknown", "none"},
		{[]string{"d1", "k*"}, "known", "k*"},
		{[]string{"d*a", "d*b"}, "dx", "d*a"}, // both hold in it
	} {
		syms := NewSymbols()
		alice, role := syms.Intern("alice"), syms.Intern("role")
		syms.Intern("known")
		var edges []Edge
		for _, d := range tt.edges {
			edges = append(edges, Edge{Name: alice, Role: role, Domain: syms.Intern(d)})
		}
		g := NewGraph(edges, nil, DefaultDepth)
		g.MatchDomains(syms)
		got := "none"
		if s := g.Domain(syms, tt.asked); s != NoSymbol {
			got = syms.Text(s)
		}
		if got != tt.want {
			t.Errorf("among %q, %q is asked in %q, not %q", tt.edges, tt.asked, got, tt.want)
		}
	}
}

// Edges of all domains that match are followed, and each once; those of others are
// not.
func TestWalksGoThroughDomainsThatMatch(t *testing.T) {
	syms := NewSymbols()
	s := syms.Intern
	empty := s("")
	edges := []Edge{
		{s("alice"), s("a"), s("d*"), 1, 0}, {s("a"), s("b"), s("d1"), 2, 0}, {s("b"), s("c"), s("*"), 3, 0}, {s("alice"), s("x"), s("e*"), 4, 0}, {s("c"), s("y"), s("d2"), 5, 0},
		{s("alice"), s("p"), s("d1*"), 6, 0}, {s("p"), s("q"), s("d1"), 7, 0}, {s("alice"), s("r"), empty, 8, 0}, {s("@team"), s("t"), s("d*"), 9, 0},
	}
	g := NewGraph(edges, nil, DefaultDepth)
	g.MatchDomains(syms)
	for domain, want := range map[string]string{
		"d1": "alice @team a p t b q c ", "d2": "alice @team a t ", "e*": "alice @team x ", "*": "alice @team ", "d*": "alice @team a t ", "d1*": "alice @team p a t ", "": "alice @team r ", "nobody's": "alice @team ",
	} {
		id := NoSymbol
		if known, ok := syms.Lookup(domain); ok {
			id = known
		}
		var w Walk
		for range 2 {
			g.Begin(&w, syms, s("alice"), []string{"@team"}, id, time.Time{})
			got := ""
			for _, name := range w.All() {
				got += syms.Text(name) + " "
			}
			if got != want {
				t.Errorf("in %q: %s, not %s", domain, got, want)
			}
		}
		for _, r := range w.Reached[1:] {
			if r.Name == s("a") && (syms.Text(r.Domain) != "d*" || w.Reached[r.Parent].Name != s("alice")) {
				t.Errorf("in %q: a is reached in %q", domain, syms.Text(r.Domain))
			}
		}
	}
}

// Without periods, and for ever, each role is had always.
func TestRolesThatAreHadAlways(t *testing.T) {
	syms := NewSymbols()
	empty, alice, a := syms.Intern(""), syms.Intern("alice"), syms.Intern("a")
	noon := time.Date(2026, 12, 31, 12, 0, 0, 0, time.UTC)
	var periods Periods
	until := periods.add(Period{Begin: 90, End: 91, Until: noon})
	edges := []Edge{{alice, a, empty, 1, until}}
	for _, tt := range []struct {
		graph *Graph
		has   bool
		dated bool
	}{
		{NewGraph(edges, &periods, DefaultDepth), false, true}, {NewGraph(edges, nil, DefaultDepth), true, false}, {NewGraph(edges, &periods, DefaultDepth).Ever(), true, false},
		{NewGraph([]Edge{{alice, a, empty, 1, 0}}, &periods, DefaultDepth), true, false},
	} {
		var w Walk
		if tt.graph.Begin(&w, syms, alice, nil, empty, noon); w.Has(a) != tt.has || tt.graph.HasPeriods() != tt.dated {
			t.Errorf("alice has the role: %t, sometimes: %t", w.Has(a), tt.graph.HasPeriods())
		}
	}
}
