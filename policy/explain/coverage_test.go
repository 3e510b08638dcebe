package explain

import (
	"context"
	"errors"
	"math/rand/v2"
	"testing"

	"securefiles/authz"
	"securefiles/policy/internal/storetest"
	"securefiles/policy/internal/world"

	"github.com/google/go-cmp/cmp"
)

func TestCoverage(t *testing.T) {
	s, _ := storetest.Open(t, "p, alice, /a/**, read, allow\np, staff, /a/x, read, deny\np, bob, /b, read, allow\ng, alice, staff\ng, root, staff\n", nil)
	missed := func(c *Coverage) []int {
		lines, all := c.Missed()
		if all != 3 {
			t.Errorf("%d lines in all", all)
		}
		var numbers []int
		for _, l := range lines {
			numbers = append(numbers, l.Line)
		}
		return numbers
	}
	for _, tt := range []struct {
		name string
		ask  []authz.Query
		want []int
	}{
		{"nothing", nil, []int{1, 2, 3}},
		{"one line", []authz.Query{world.Query("alice", "/a/y")}, []int{2, 3}},
		{"a line that another overrides", []authz.Query{world.Query("alice", "/a/x")}, []int{3}},
		{"who may not ask", []authz.Query{world.Query("staff", "/a/x"), world.Query("@x", "/b")}, []int{1, 2, 3}},
		{"all", []authz.Query{world.Query("alice", "/a/x"), world.Query("bob", "/b")}, nil},
	} {
		c := NewCoverage(s)
		for _, q := range tt.ask {
			if err := c.Add(t.Context(), q); err != nil {
				t.Fatal(err)
			}
		}
		if diff := cmp.Diff(tt.want, missed(c)); diff != "" {
			t.Errorf("%s: %s", tt.name, diff)
		}
	}
	s = storetest.OpenModel(t, "superuser", "p, alice, /a, read, allow\np, bob, /b, read, allow\np, alice, /c, read, allow\ng, carol, operators\n")
	c := NewCoverage(s)
	for _, q := range []authz.Query{world.Query("root", "/a"), world.Query("carol", "/a"), world.Query("bob", "/b")} {
		if err := c.Add(t.Context(), q); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff([]int{1, 3}, missed(c)); diff != "" {
		t.Errorf("who may anything: %s", diff)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := NewCoverage(s).Add(ctx, world.Query("alice", "/a")); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// A line is reached exactly if explain shows it as one that matches.
func TestCoverageAgreesWithExplain(t *testing.T) {
	random := rand.New(rand.NewPCG(51, 52))
	reached := 0
	for i := range world.Share(1000, 40) {
		model := world.Models()[i%len(world.Models())]
		if model == "superuser" { // whose every line matches for root, by nothing that it says
			continue
		}
		s, files := storetest.OpenRandom(t, random, model, 12)
		c, want := NewCoverage(s), map[int]bool{}
		for range 6 {
			q := world.RandomQuery(random)
			if err := c.Add(t.Context(), q); err != nil {
				t.Fatal(err)
			}
			x := explained(t, s, q)
			for _, l := range x.Matches {
				want[l.Line] = want[l.Line] || x.Error == ""
			}
		}
		missed, all := c.Missed()
		for _, l := range missed {
			if want[l.Line] {
				t.Fatalf("line %d is missed\n%s", l.Line, world.File(t, files.Policy))
			}
			delete(want, l.Line)
		}
		if len(missed)+len(want) != all {
			t.Fatalf("%d missed, %d reached, %d in all\n%s", len(missed), len(want), all, world.File(t, files.Policy))
		}
		reached += len(want)
	}
	if reached < 20 {
		t.Errorf("only %d lines were reached", reached)
	}
}
