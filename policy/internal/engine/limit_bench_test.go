package engine

import (
	"testing"

	"securefiles/authz"
)

// BenchmarkUnindexedLines says what a line costs that no index tells from the
// others, by what compares it.
func BenchmarkUnindexedLines(b *testing.B) {
	const lines = 2000
	rbac := func(compares string) string {
		return matcherModel("g(r.sub, p.sub) && " + compares + " && r.act == p.act")
	}
	for _, bb := range []struct{ name, model, policy string }{
		{"globMatch", rbac("globMatch(r.obj, p.obj)"), manyLines(lines, "p, alice, /**/f%d/*, read\n")},
		{"keyMatch2", rbac("keyMatch2(r.obj, p.obj)"), manyLines(lines, "p, alice, /:a/f%d/:b, read\n")},
		{"keyMatch4", rbac("keyMatch4(r.obj, p.obj)"), manyLines(lines, "p, alice, /{a}/f%d/{b}, read\n")},
		{"keyMatch4 with a name twice", rbac("keyMatch4(r.obj, p.obj)"), manyLines(lines, "p, alice, /{a}/f%d/{a}, read\n")},
		{"regexMatch", rbac("regexMatch(r.obj, p.obj)"), manyLines(lines, "p, alice, ^/d/[a-z]+/f%d/[a-z]+$, read\n")},
		{"roles of one user", rbac("keyMatch2(r.obj, p.obj)"), manyLines(lines, "g, alice, r%d\n") + manyLines(lines, "p, r%d, /d/*/x, read\n")},
		{"a rule in each line", matcherModel("eval(p.obj) && r.act == p.act"), manyLines(lines, "p, alice, r.sub == 'user%d', read\n")},
	} {
		b.Run(bb.name, func(b *testing.B) {
			v := load(b, bb.model, bb.policy, Options{})
			q := &authz.Query{Principal: authz.Principal{Subject: "alice"}, Object: "/d/reports/g/y", Action: "read"}
			if _, err := v.Decide(q); err != nil { // compiles what is compiled once
				b.Fatal(err)
			}
			for b.Loop() {
				if d, err := v.Decide(q); err != nil || d.Effect == authz.Allow {
					b.Fatal(d, err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*lines), "ns/line")
		})
	}
}
