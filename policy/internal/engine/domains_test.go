package engine

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"securefiles/authz"
)

// Where a matcher has keyMatch(r.dom, p.dom), Casbin matches the domains of g lines as
// patterns too, by itself. So does this.
func TestDomainsAreMatchedAsPatternsAsInStockCasbin(t *testing.T) {
	const head = "[request_definition]\nr = sub, dom, obj, act\n[policy_definition]\np = sub, dom, obj, act, eft\n[role_definition]\ng = _, _, _\ng2 = _, _, _\n[policy_effect]\ne = some(where (p.eft == allow)) && !some(where (p.eft == deny))\n[matchers]\nm = "
	random := rand.New(rand.NewPCG(11, 12))
	pick := func(list ...string) string { return list[random.IntN(len(list))] }
	domain := func() string {
		return pick("d1", "d2", "d", "d*", "*", "d1*", "d*x", "e", "/t/a", "/t/*", "/t/*/b", "d1*", "")
	}
	var n tally
	byPattern := 0
	worlds := 1500
	if testing.Short() {
		worlds /= 3
	}
	for range worlds {
		matcher := pick(
			"g(r.sub, p.sub, r.dom) && keyMatch(r.dom, p.dom) && r.obj == p.obj",
			"g(r.sub, p.sub, p.dom) && keyMatch(r.dom, p.dom) && r.obj == p.obj",
			"g(r.sub, p.sub, p.dom) && r.dom == p.dom && r.obj == p.obj || keyMatch(r.dom, p.dom) && r.act == p.act && r.sub == p.sub",
			"g(r.sub, p.sub, r.dom) && g2(r.obj, p.obj, r.dom) && keyMatch(r.dom, p.dom)",
			`g(r.sub, p.sub, r.dom + "1") && keyMatch(r.dom, p.dom)`,
			"!g(r.sub, p.sub, r.dom) && keyMatch(r.dom, p.dom) && r.obj == p.obj",
		)
		if !strings.Contains(matcher, "g2(") && random.IntN(2) == 0 {
			matcher += " && r.act == p.act"
		}
		var policy strings.Builder
		for range 1 + random.IntN(6) {
			fmt.Fprintf(&policy, "p, %s, %s, %s, %s, %s\n", pick("r1", "r2", "r3", "u1"), domain(), pick("/a", "/b", "files"), pick("read", "list"), pick("allow", "allow", "deny"))
		}
		for range random.IntN(9) {
			fmt.Fprintf(&policy, "g, %s, %s, %s\n", pick("u1", "u2", "r1", "r2", "@g"), pick("r1", "r2", "r3"), domain())
			if strings.Contains(matcher, "g2(") {
				fmt.Fprintf(&policy, "g2, %s, %s, %s\n", pick("/a", "/b"), pick("files", "/b"), domain())
			}
		}
		w := newPair(t, head+matcher+"\n", policy.String(), Options{})
		if w == nil {
			continue
		}
		for range 20 {
			q := &authz.Query{Principal: authz.Principal{Subject: pick("u1", "u2", "u3")}, Object: pick("/a", "/b"), Action: pick("read", "list"), Domain: pick("d1", "d2", "d", "dx", "d1y", "e", "f", "/t/a", "/t/c", "*", "d*", "d*z")}
			before := n.allowed
			n.compare(t, w, q)
			if n.allowed > before && !strings.Contains(w.policy, ", "+q.Domain+"\n") {
				byPattern++
			}
		}
	}
	if n.compared < 40*worlds/3 || n.allowed < worlds/3 || byPattern < 2*worlds/15 || n.indexed < 10*worlds/3 {
		t.Errorf("%+v, %d by patterns", n, byPattern)
	}
}
