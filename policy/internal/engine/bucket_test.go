package engine

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"securefiles/authz"
	"securefiles/policy/internal/table"
)

// The gauge of lines that no index tells apart counts what one decision may have to
// look at: for all roles of a subject together.
func TestLinesOfAllRolesOfOneSubjectCountTogether(t *testing.T) {
	rbac := matcherModel("g(r.sub, p.sub) && keyMatch2(r.obj, p.obj) && r.act == p.act")
	lines := manyLines
	for _, tt := range []struct {
		name, model, policy string
		size                int
		of                  string
	}{
		{"one role", rbac, lines(30, "p, r, /d/*, list%d\n") + "g, alice, r\n", 1, ""}, // the actions tell them apart
		{"one role of many, with ten lines", rbac, lines(10, "p, r, /d/*, list%d\n") + "g, alice, r\n" + lines(20, "p, u%d, /d/*, read\n"), 10, ""},
		{"forty roles, one line each", rbac, lines(40, "p, r%d, /d/*, read\n") + lines(40, "g, alice, r%d\n"), 40, "alice"},
		{"forty roles, of as many users", rbac, lines(40, "p, r%d, /d/*, read\n") + lines(40, "g, u%[1]d, r%[1]d\n"), 1, ""},
		{"forty roles in a chain, as far as it is followed", rbac, lines(40, "p, r%d, /d/*, read\n") + chainOf(40), 11, "r0"},
		{"what two ways lead to counts once", rbac, lines(5, "p, top, /d/*, list%d\n") + "p, a, /d/*, read\np, b, /d/*, read\ng, a, top\ng, b, top\ng, alice, a\ng, alice, b\n" + lines(20, "p, u%d, /d/*, read\n"), 7, "alice"},
		{"roles on different paths", rbac, lines(40, "p, r%[1]d, /d%[1]d/*, read\n") + lines(40, "g, alice, r%d\n"), 1, ""},
		{"lines for everybody are with those of each role", rbac, lines(6, "p, @anyone, /d/*, list%d\n") + lines(3, "p, @authenticated, /d/*, list%d\n") + lines(2, "p, r, /d/*, list%d\n") + "g, alice, r\n" + lines(20, "p, u%d, /x/*, read\n"), 11, "alice"},
		{"a role that everybody has", rbac, lines(6, "p, r, /d/*, list%d\n") + "p, s, /d/*, read\ng, @anyone, r\ng, @authenticated, s\n" + lines(20, "p, u%d, /x/*, read\n"), 7, "@anyone"},
		{"lines that ask nothing of the path are with each other", rbac, lines(4, "p, r, */a/*, list%d\n") + lines(3, "p, r, /d/*, list%d\n") + "g, alice, r\n", 7, ""},
		{"each alternative finds lines of its own", matcherModel("(r.sub == p.sub || p.sub == \"public\") && keyMatch2(r.obj, p.obj)"), lines(5, "p, alice, /d/*, list%d\n") + lines(4, "p, public, /d/*, list%d\n"), 9, ""},
		{"a text of the matcher finds its own lines alone", matcherModel("p.sub == \"public\" && keyMatch2(r.obj, p.obj)"), lines(20, "p, alice, /d/*, list%d\n") + lines(17, "p, u%d, /x/*, list\n") + lines(2, "p, public, /d/*, list%d\n"), 2, ""},
		{"a circle of roles does not hide another", rbac, lines(40, "p, r%d, /d/*, read\n") + lines(40, "g, alice, r%d\n") + "p, x, /x, read\np, y, /y, read\ng, x, y\ng, y, x\n", 40, "alice"},
	} {
		v := load(t, tt.model, tt.policy, Options{})
		p, of := v.Engine.Plan, ""
		if p.BucketOf != table.NoSymbol {
			of = v.Table.Symbols.Text(p.BucketOf)
		}
		if p.Bucket != tt.size || of != tt.of {
			t.Errorf("%s: %d of %q, want %d of %q", tt.name, p.Bucket, of, tt.size, tt.of)
		}
	}
}

func chainOf(n int) string {
	var b strings.Builder
	for i := range n - 1 {
		fmt.Fprintf(&b, "g, r%d, r%d\n", i, i+1)
	}
	return b.String()
}

// On paths that no other path begins like, no decision looks at more lines than the
// gauge says, and one looks at as many.
func TestNoDecisionLooksAtMoreLinesThanTheGaugeSays(t *testing.T) {
	model := matcherModel("g(r.sub, p.sub) && keyMatch2(r.obj, p.obj) && r.act == p.act")
	for seed := range uint64(200) {
		random := rand.New(rand.NewPCG(seed, 5))
		var b strings.Builder
		names := []string{"alice", "bob", "carol"}
		for i := range 12 {
			fmt.Fprintf(&b, "p, r%d, /zz/*, list\n", i) // each is used
		}
		for range random.IntN(30) {
			fmt.Fprintf(&b, "g, %s, r%d\n", names[random.IntN(3)], random.IntN(6))
			fmt.Fprintf(&b, "g, r%d, r%d\n", random.IntN(6), 6+random.IntN(6))
		}
		for range random.IntN(200) {
			fmt.Fprintf(&b, "p, r%d, /d%d/*, read%d\n", random.IntN(12), random.IntN(3), random.IntN(1000))
		}
		if random.IntN(2) == 0 {
			b.WriteString("p, @anyone, /d1/*, read\np, bob, /d1/*, read\n")
		}
		m, tab := read(t, model, b.String())
		e, err := New(m, tab, Options{})
		if err != nil {
			t.Fatal(err)
		}
		e.Plan.tuning.fewRows = 0 // or the patterns alone may be few enough
		most := 0
		for _, name := range append(names, "r0", "r1", "nobody") {
			for _, path := range []string{"/d0/x", "/d1/x", "/d2/x", "/zz/x"} {
				ev, err := e.Begin(&authz.Query{Principal: authz.Principal{Subject: name, Groups: []string{"@anyone", "@authenticated"}}, Object: path, Action: "read"})
				if err != nil {
					t.Fatal(err)
				}
				rows, _ := ev.Candidates()
				most = max(most, len(rows))
				e.End(ev)
			}
		}
		// A look by the pattern finds no more than there are roles to look up.
		if most > max(e.Plan.Bucket, 12) || e.Plan.Bucket > 12 && most < e.Plan.Bucket {
			t.Errorf("seed %d: a decision looks at %d lines, the gauge says %d\n%s", seed, most, e.Plan.Bucket, b.String())
		}
	}
}
