package engine

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"

	"securefiles/authz"
	"securefiles/policy/internal/world"
)

// Casbin's keyMatch4 remembers each pattern that it was ever given.
func TestKeyMatch4ForgetsPatterns(t *testing.T) {
	s := world.Shape{Request: []string{"sub", "obj", "act"}, Policy: []string{"sub", "obj", "act", "eft"}, Effect: world.AllowAndDeny}
	heap := func() int {
		runtime.GC()
		runtime.GC() // what a pool holds goes with the second
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int(m.HeapAlloc)
	}
	for i, matcher := range []string{"keyMatch4(r.obj, p.obj) && r.act != p.act", "keyMatch4(r.obj, (p.obj)) && r.act != p.act"} {
		var policy strings.Builder
		const patterns = 4000
		for line := range patterns {
			fmt.Fprintf(&policy, "p, alice, /{a}/{b}/{a}/%d-%d, read, allow\n", i, line)
		}
		before := heap()
		w := newPair(t, s.Model(matcher), policy.String(), Options{})
		if w == nil {
			t.Fatal("the model or the policy is refused")
		}
		for line := range patterns {
			if got, err := w.ours(&authz.Query{Object: fmt.Sprintf("/x/y/x/%d-%d", i, line), Action: "read"}); err != nil || got.Allowed {
				t.Fatal(got, err)
			}
			if i == 1 { // it has looked at all
				break
			}
		}
		w = nil // the next version of the policy is served
		if grown := heap() - before; grown > patterns*500 {
			t.Errorf("%s: %d bytes are remembered", matcher, grown)
		}
	}
}

// Where an index can go wrong, one case each: a request whose answer changes
// when the rule in its name is forgotten.
func TestPruningTraps(t *testing.T) {
	chain := func(hops int) string { // from alice to staff
		var b strings.Builder
		from := "alice"
		for i := 1; i < hops; i++ {
			fmt.Fprintf(&b, "g, %s, c%d\n", from, i)
			from = fmt.Sprintf("c%d", i)
		}
		return b.String() + "g, " + from + ", staff\np, staff, /x, read, allow\n"
	}
	rbac := world.Shape{Request: []string{"sub", "obj", "act"}, Policy: []string{"sub", "obj", "act", "eft"}, Roles: []string{"g = _, _"}, Effect: world.AllowAndDeny}
	with := func(effect string) world.Shape { s := rbac; s.Effect = effect; return s }
	domain := world.Shape{Request: []string{"sub", "dom", "obj", "act"}, Policy: []string{"sub", "dom", "obj", "act", "eft"}, Roles: []string{"g = _, _, _"}, Effect: world.AllowAndDeny}
	domainFirst := domain
	domainFirst.Request = []string{"dom", "sub", "obj", "act"}
	subjectless := rbac
	subjectless.Request = []string{"obj", "act"}
	kinds := rbac
	kinds.Roles = []string{"g = _, _", "g2 = _, _", "g3 = _, _"}
	resources := rbac
	resources.Roles = []string{"g = _, _", "g2 = _, _"}
	const usual = "g(r.sub, p.sub) && globMatch(r.obj, p.obj) && r.act == p.act"
	alice := func(object string) authz.Query {
		return authz.Query{Principal: authz.Principal{Subject: "alice"}, Object: object, Action: "read", Domain: "d1"}
	}
	as := func(subject, object string) authz.Query {
		q := alice(object)
		q.Principal.Subject = subject
		return q
	}
	in := func(q authz.Query, groups ...string) authz.Query {
		q.Principal.Groups = groups
		return q
	}
	address := rbac
	address.Request = []string{"sub", "obj", "act", "ip"}
	openAddress := address
	openAddress.Effect = world.DenyOverride
	rule := rbac
	rule.Policy = []string{"sub", "obj", "act", "eft", "rule"}
	many := func(n int, line string) string { // lines that look alike
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, line, i)
		}
		return b.String()
	}
	for _, tt := range []struct {
		name    string
		shape   world.Shape
		matcher string
		policy  string
		query   authz.Query
		allowed bool
	}{
		{"an empty policy evaluates the matcher once", with(world.AllowOverride), `r.sub == p.sub || r.sub == "root"`, "", as("root", "/x"), true},
		{"an empty policy allows where only a deny counts", with(world.DenyOverride), usual, "", alice("/x"), true},
		{"no candidate is not an empty policy", rbac, usual, "p, bob, /y, read, allow\n", alice("/x"), false},
		{"no candidate allows where only a deny counts", with(world.DenyOverride), usual, "p, bob, /y, read, deny\n", alice("/x"), true},
		{"a superuser clause takes the first line that allows", rbac, usual + ` || r.sub == "root"`, "p, bob, /y, read, allow\n", as("root", "/x"), true},
		{"and one line that denies refuses the superuser", rbac, usual + ` || r.sub == "root"`, "p, bob, /y, read, allow\np, bob, /z, read, deny\n", as("root", "/x"), false},
		{"a superuser clause that is false adds nothing", rbac, usual + ` || r.sub == "root"`, "p, bob, /y, read, allow\n", as("bob", "/y"), true},
		{"a matcher that asks nothing of the policy is evaluated once", rbac, `r.sub == "root" && r.obj == "/x"`, "p, bob, /y, read, deny\n", as("root", "/x"), true},
		{"and is false for others", rbac, `r.sub == "root" && r.obj == "/x"`, "p, bob, /y, read, allow\n", alice("/x"), false},
		{"an empty policy equals what is empty", with(world.AllowOverride), `r.obj == p.obj && r.sub == "alice"`, "", alice(""), true},
		{"and nothing else", with(world.AllowOverride), `r.obj == p.obj && r.sub == "alice"`, "", alice("/x"), false},
		{"an empty policy has no text", with(world.AllowOverride), `p.obj == "/x" || r.sub == "root"`, "", alice("/x"), false},
		{"but the empty one", with(world.AllowOverride), `p.obj == "" && r.sub == "alice"`, "", alice("/x"), true},
		{"the empty text is no other", rbac, `(p.obj == "" || p.obj != "/x") && r.sub == p.sub`, "p, alice, /x, read, allow\n", alice("/x"), false},
		{"nor is an empty request", rbac, `(r.obj == p.obj || p.obj != "/x") && r.sub == p.sub`, "p, alice, /x, read, allow\n", alice(""), false},
		{"a number is an answer", rbac, "r.sub == p.sub ? 1 : 0", "p, alice, /x, read, allow\n", alice("/x"), true},
		{"nought is another", rbac, "r.sub == p.sub ? 1 : 0", "p, bob, /x, read, allow\n", alice("/x"), false},
		{"somebody has the role of that name, which no line has", rbac, "g(r.sub, r.obj) && r.act == p.act", "p, bob, /x, read, allow\n", as("/y", "/y"), true},
		{"a text is a role in a domain", domain, `g(r.sub, "staff", r.dom) && r.obj == p.obj`, "p, bob, d1, /x, read, allow\np, staff, d1, /z, read, allow\ng, alice, staff, d1\n", alice("/x"), true},
		{"and not in another", domain, `g(r.sub, "staff", r.dom) && r.obj == p.obj`, "p, bob, d1, /x, read, allow\np, staff, d2, /z, read, allow\ng, alice, staff, d2\n", alice("/x"), false},
		{"roles of two kinds of one name", kinds, "g(r.sub, p.sub) && g2(r.sub, p.obj) && g3(r.act, p.act)", "p, staff, res, all, allow\ng, alice, staff\ng2, alice, res\ng3, read, all\n", alice("/x"), true},
		{"roles of one name in two domains", domain, "g(r.sub, p.sub, p.dom) && r.obj == p.obj && r.act == p.act", "p, staff, d1, /x, list, allow\np, staff, d2, /x, read, allow\ng, alice, staff, d1\ng, bob, staff, d2\n", alice("/x"), false},
		{"roles of one name in two domains, the second of which counts", domain, "g(r.sub, p.sub, p.dom) && r.obj == p.obj && r.act == p.act", "p, staff, d1, /x, list, allow\np, staff, d2, /x, read, allow\ng, bob, staff, d1\ng, alice, staff, d2\n", alice("/x"), true},
		{"no subject is asked", subjectless, "r.obj == p.obj && r.act == p.act", "p, bob, /x, read, allow\n", alice("/x"), true},
		{"ten hops are followed", rbac, usual, chain(10), alice("/x"), true},
		{"eleven hops are not", rbac, usual, chain(11), alice("/x"), false},
		{"a negated part tells nothing", rbac, "!g(r.sub, p.sub) && globMatch(r.obj, p.obj)", "p, bob, /x, read, allow\n", alice("/x"), true},
		{"a part that only its negation holds", rbac, "globMatch(r.obj, p.obj) && !(r.sub == p.sub && r.act == p.act)", "p, alice, /x, list, allow\n", alice("/x"), true},
		{"a negated && is a ||", rbac, "!(r.sub != p.sub && r.act != p.act) && globMatch(r.obj, p.obj)", "p, bob, /x, read, allow\n", alice("/x"), true},
		{"! binds to one value", rbac, `!g(r.sub, p.sub) == true && globMatch(r.obj, p.obj)`, "p, bob, /x, read, allow\n", alice("/x"), true},
		{"a ternary is not taken apart", rbac, `(r.sub == p.sub ? false : g(p.sub, r.sub) || r.act == p.act) && globMatch(r.obj, p.obj)`, "p, bob, /x, read, allow\n", alice("/x"), true},
		{"nor is a pattern in it", rbac, `(r.sub == p.sub ? r.act =~ "^r" : false) && globMatch(r.obj, p.obj)`, "p, alice, /x, read, allow\n", alice("/x"), true},
		{"nor is what stands behind it", rbac, `(r.sub == p.sub ? false : g(p.sub, r.sub) || r.act == p.act) && globMatch(r.obj, p.obj)`, "p, alice, /x, read, allow\n", alice("/x"), false},
		{"! ends before &&", rbac, `!g(r.sub, p.sub) && r.act == p.act && globMatch(r.obj, p.obj)`, "p, bob, /x, list, allow\n", alice("/x"), false},
		{"a || is two ways in", rbac, "(g(r.sub, p.sub) || r.obj == p.obj) && r.act == p.act", "p, bob, /x, read, allow\n", alice("/x"), true},
		{"a domain of the policy binds nothing alone", domain, "g(r.sub, p.sub, p.dom) && globMatch(r.obj, p.obj)", "p, staff, d2, /x, read, allow\ng, alice, staff, d2\n", alice("/x"), true},
		{"roles hold in their domain", domain, "g(r.sub, p.sub, r.dom) && r.dom == p.dom && globMatch(r.obj, p.obj)", "p, staff, d1, /x, read, allow\ng, alice, staff, d2\n", alice("/x"), false},
		{"the domain comes first in the request", domainFirst, "g(r.sub, p.sub, r.dom) && r.dom == p.dom && r.obj == p.obj", "p, staff, d1, /x, read, allow\ng, alice, staff, d1\n", alice("/x"), true},
		{"and is asked in the policy's", domainFirst, "g(r.sub, p.sub, p.dom) && r.obj == p.obj && r.dom == p.dom", "p, staff, d1, /x, read, allow\ng, alice, staff, d1\n", alice("/x"), true},
		{"the object is not the domain", domain, "g(r.sub, p.sub, p.dom) && r.obj == p.obj && r.dom == p.dom", "p, staff, d1, /x, read, allow\ng, alice, staff, d1\n", alice("/x"), true},
		{"a domain that must differ is not the one to look in", domain, "g(r.sub, p.sub, p.dom) && !(r.dom == p.dom) && r.obj == p.obj", "p, staff, d2, /x, read, allow\ng, alice, staff, d2\n", alice("/x"), true},
		{"a domain that a text names is not the request's", domain, `g(r.sub, p.sub, p.dom) && p.dom == "d2" && r.obj == p.obj`, "p, staff, d2, /x, read, allow\ng, alice, staff, d2\n", alice("/x"), true},
		{"of two functions, the second reads the pattern in its own way", rbac, "g(r.sub, p.sub) && (globMatch(r.obj, p.obj) || keyMatch2(r.obj, p.obj))", "p, alice, /a/:x, read, allow\n", alice("/a/b"), true},
		{"and so does the first", rbac, "g(r.sub, p.sub) && (keyMatch2(r.obj, p.obj) || globMatch(r.obj, p.obj))", "p, alice, \"/a/{b,c}\", read, allow\n", alice("/a/b"), true},
		{"what one function made of a text is not the other's", rbac, "g(r.sub, p.sub) && (keyMatch2(r.obj, p.obj) || regexMatch(r.obj, p.obj))", "p, alice, /a(b)?, read, allow\n", alice("/x/a"), true},
		{"nor is what the other made the one's", rbac, "g(r.sub, p.sub) && !regexMatch(r.obj, p.obj) && !keyMatch2(r.obj, p.obj) || g(r.sub, p.sub) && keyMatch3(r.obj, p.obj)", "p, alice, /a(b)?, read, allow\n", alice("/x/a"), false},
		{"a subject of forty roles", rbac, usual, many(40, "g, alice, q%d\n") + "p, q0, /y, read, allow\np, q31, /y, read, allow\np, q39, /x, read, allow\n", alice("/x"), true},
		{"a subject of a hundred and forty roles, the last of which has its own", rbac, usual, many(140, "g, alice, q%d\n") + "g, q139, staff\np, staff, /x, read, allow\n", alice("/x"), true},
		{"a group of forty roles", rbac, usual, many(40, "g, @team, q%d\n") + "p, q39, /x, read, allow\n", in(alice("/x"), "@team"), true},
		{"a group is the first of ten hops", rbac, usual, strings.Replace(chain(9), "alice", "@team", 1), in(alice("/x"), "@team"), true},
		{"and the eleventh is not followed", rbac, usual, strings.Replace(chain(10), "alice", "@team", 1), in(alice("/x"), "@team"), false},
		{"a group holds in g, not in g2", kinds, "(g2(r.sub, p.sub) || g(r.sub, p.sub) && r.act == \"list\") && r.obj == p.obj || g3(r.act, p.act) && r.sub == p.sub", "p, @team, /x, write, allow\ng2, bob, @team\ng3, x, write\n", in(alice("/x"), "@team"), false},
		{"nor do its roles", kinds, "g2(r.sub, p.sub) && r.obj == p.obj || g(r.sub, p.sub) && g3(r.act, p.act) && r.act == \"list\"", "p, staff, /x, read, allow\ng2, @team, staff\n", in(alice("/x"), "@team"), false},
		{"an action has roles of a third kind", kinds, "g(r.sub, p.sub) && g3(r.act, p.act) && (g2(r.obj, p.obj) || r.obj == p.obj)", "p, @team, /x, all, allow\ng3, read, all\n", in(alice("/x"), "@team"), true},
		{"an object has roles too", resources, "g(r.sub, p.sub) && g2(r.obj, p.obj) && r.act == p.act", "p, alice, res, read, allow\ng2, /x, res\n", alice("/x"), true},
		{"the first by priority decides", with(world.FirstPriority), usual + ` || p.sub == "*" && globMatch(r.obj, p.obj)`, "p, *, /x, read, deny\np, alice, /x, read, allow\n", alice("/x"), false},
		{"the first by priority, found the other way round", with(world.FirstPriority), `p.sub == "*" && globMatch(r.obj, p.obj) || ` + usual, "p, alice, /x, read, allow\np, *, /x, read, deny\n", alice("/x"), true},
		{"keyMatch5 cuts the query", rbac, "g(r.sub, p.sub) && keyMatch5(r.obj, p.obj)", "p, alice, /x, read, allow\n", alice("/x?y=1"), true},
		{"among many lines of one subject", rbac, usual, many(3000, "p, alice, /d%d/**, read, allow\n"), alice("/d1234/x"), true},
		{"among many lines, none", rbac, usual, many(3000, "p, alice, /d%d/**, read, allow\n"), alice("/d3001/x"), false},
		{"among many lines, the first and the last", rbac, usual, "p, alice, /a/**, read, allow\n" + many(3000, "p, alice, /d%d/**, read, allow\n") + "p, alice, /a/**, read, deny\n", alice("/a/x"), false},
		{"by two keys of one subject", rbac, usual, many(3000, "p, alice, /d%d/**, read, allow\n") + "p, alice, /a/**, read, allow\np, alice, /a/b/x, read, deny\n", alice("/a/b/x"), false},
		{"by two keys, the other way round", rbac, usual, many(3000, "p, alice, /d%d/**, read, allow\n") + "p, alice, /a/**, read, deny\np, alice, /a/b/x, read, allow\n", alice("/a/b/x"), false},
		{"among many alike, by the end of the path", rbac, usual, many(3000, "p, alice, /**/f%d.pdf, read, allow\n"), alice("/a/b/f1234.pdf"), true},
		{"among many lines of one path", rbac, usual, many(3000, "p, u%d, /x/**, read, allow\n"), as("u77", "/x/y"), true},
		{"a group that no line names", rbac, usual + ` || g(r.sub, "@team")`, "p, bob, /x, read, allow\n", in(alice("/x"), "@team"), true},
		{"a group that no line names, kept out", rbac, usual + ` && !g(r.sub, "@team")`, "p, alice, /x, read, allow\n", in(alice("/x"), "@team"), false},
		{"a group that a rule alone names, kept out", rule, "eval(p.rule) && g(r.sub, p.sub)", "p, alice, /x, read, allow, \"!g(r.sub, '@team')\"\n", in(alice("/x"), "@team"), false},
		{"another one's group", rbac, `g("bob", "@team") || ` + usual, "p, bob, /x, read, allow\n", in(alice("/x"), "@team"), false},
		{"a part of the request that fails, and no row comes to it", address, usual + ` || ipMatch(r.ip, "10.0.0.0/8") && p.sub == "*"`, "p, alice, /x, read, allow\n", alice("/x"), true},
		{"one behind what is looked up", openAddress, `r.sub == p.sub && ipMatch(r.ip, "10.0.0.0/8")`, "p, bob, /x, read, deny\n", alice("/x"), true},
		{"one behind what is looked up, before one that is false", openAddress, `r.sub == p.sub && ipMatch(r.ip, "10.0.0.0/8") && r.act == "list"`, "p, bob, /x, read, deny\n", alice("/x"), true},
		{"a few values find what a pattern cannot", rbac, "r.act == p.act && p.sub != r.sub", "p, bob, /x, read, allow\n", alice("/x"), true},
		{"nothing can be looked up", rbac, "p.sub != r.sub", "p, bob, /x, read, allow\n", alice("/x"), true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			// As a policy of this size is indexed, and as a large one is.
			for _, tuned := range []tuning{defaultTuning(), {}} {
				w := newPair(t, tt.shape.Model(tt.matcher), tt.policy, Options{tuning: &tuned})
				if w == nil {
					t.Fatal("the model or the policy is refused")
				}
				var n tally
				n.compare(t, w, &tt.query)
				if n.compared != 1 || (n.allowed == 1) != tt.allowed {
					t.Errorf("stock says %+v, the case %t", n, tt.allowed)
				}
			}
		})
	}
}

// Where stock Casbin fails for what the request is, or for an empty policy, so
// do we, though no line could match.
func TestErrorsDeny(t *testing.T) {
	shape := world.Shape{Request: []string{"sub", "obj", "act", "ip"}, Policy: []string{"sub", "obj", "act", "eft", "rule"}, Roles: []string{"g = _, _"}, Effect: world.DenyOverride}
	for _, tt := range []struct{ name, matcher, policy string }{
		{"no rule to evaluate", "g(r.sub, p.sub) && eval(p.rule)", ""},
		{"no rule to evaluate, nor a need", `r.sub == "alice" || eval(p.rule)`, ""},
		{"a part of the request, before what is looked up", `ipMatch(r.ip, "10.0.0.0/8") && r.sub == p.sub`, "p, bob, /x, read, deny, true\n"},
		{"without a line", `ipMatch(r.ip, "10.0.0.0/8") && r.sub == p.sub`, ""},
		{"behind what is looked up", `r.sub == p.sub && ipMatch(r.ip, "10.0.0.0/8")`, "p, alice, /x, read, deny, true\n"},
		{"behind what is looked up, before one that is false", `r.sub == p.sub && ipMatch(r.ip, "10.0.0.0/8") && r.act == "list"`, "p, alice, /x, read, deny, true\n"},
		{"an alternative, which rows come to that no other finds", `r.sub == p.sub || ipMatch(r.ip, "10.0.0.0/8")`, "p, alice, /x, read, allow, true\np, bob, /x, read, allow, true\n"},
		{"in a row, before what is looked up", `ipMatch(r.ip, p.obj) && r.sub == p.sub`, "p, bob, 10.0.0.0/8, read, deny, true\n"},
		{"in a row, before a part that is false", `!ipMatch(r.ip, p.obj) && r.act == "list"`, "p, bob, 10.0.0.0/8, read, deny, true\n"},
		{"in a row, before what is looked up and a part that cannot be", `ipMatch(r.ip, p.obj) && r.sub == p.sub && p.act != r.act`, "p, bob, 10.0.0.0/8, list, deny, true\n"},
		{"in a row, before a part that cannot be looked up and one that is", `ipMatch(r.ip, p.obj) && p.act != r.act && r.sub == p.sub`, "p, bob, 10.0.0.0/8, list, deny, true\n"},
		{"in a row", "r.sub == p.sub && ipMatch(r.ip, p.obj)", "p, alice, 10.0.0.0/8, read, deny, true\n"},
	} {
		w := newPair(t, shape.Model(tt.matcher), tt.policy, Options{})
		if w == nil {
			t.Fatalf("%s: the model or the policy is refused", tt.name)
		}
		q := authz.Query{Principal: authz.Principal{Subject: "alice"}, Object: "/x", Action: "read"}
		if _, err := w.stock.Decide(&q); err == nil {
			t.Errorf("%s: stock does not fail", tt.name)
		}
		if got, err := w.ours(&q); err == nil || got.Allowed {
			t.Errorf("%s: %+v, %v", tt.name, got, err)
		}
		// What a failure leaves behind is in nobody's way.
		q.IP = "10.1.2.3"
		new(tally).compare(t, w, &q)
	}
}

// A name that is marked as a role is among nobody's names, though no line gives it.
func TestMarkedRolesAreReserved(t *testing.T) {
	shape := world.Shape{Request: []string{"sub", "obj", "act"}, Policy: []string{"sub", "obj", "act"}, Roles: []string{"g = _, _"}, Effect: world.AllowOverride}
	w := newPair(t, shape.Model("g(r.sub, p.sub) && r.obj == p.obj && r.act == p.act"), "p, role:editor, /x, read\np, editor, /x, read\n", Options{})
	v, err := NewVersion(w.engine.Model, w.table, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if got := v.Names(); !slices.Equal(got, []string{"editor"}) {
		t.Errorf("names: %q", got)
	}
}

// What check recommends for a superuser: p.eft keeps to lines that allow, in stock
// Casbin too.
func TestASuperuserIsNotDeniedWhereTheMatcherAsksTheEffect(t *testing.T) {
	const lines = "p, bob, /x, read, deny\np, alice, /x, read, allow\n"
	for _, effect := range []string{world.AllowAndDeny, world.FirstPriority} {
		shape := world.Shape{Request: []string{"sub", "obj", "act"}, Policy: []string{"sub", "obj", "act", "eft"}, Effect: effect}
		for matcher, want := range map[string]bool{
			`r.sub == p.sub && globMatch(r.obj, p.obj) && r.act == p.act || r.sub == "root"`:                     false,
			`r.sub == p.sub && globMatch(r.obj, p.obj) && r.act == p.act || r.sub == "root" && p.eft == "allow"`: true,
		} {
			w := newPair(t, shape.Model(matcher), lines, Options{})
			if w == nil {
				t.Fatalf("%s: the model or the policy is refused", matcher)
			}
			q := authz.Query{Principal: authz.Principal{Subject: "root"}, Object: "/y", Action: "read"}
			new(tally).compare(t, w, &q)
			if got, err := w.ours(&q); err != nil || got.Allowed != want {
				t.Errorf("%s under %s: %+v, %v", matcher, effect, got, err)
			}
		}
	}
}

// A matcher that asks for another name in each row costs no more for each, and
// remembers no more of them.
func TestWalksAreBounded(t *testing.T) {
	shape := world.Shape{Request: []string{"sub", "obj", "act"}, Policy: []string{"sub", "obj", "act", "eft"}, Roles: []string{"g = _, _"}, Effect: world.AllowAndDeny}
	var policy strings.Builder
	const names = 2 * maxWalks
	for i := range names {
		fmt.Fprintf(&policy, "p, u%d, /x, read, allow\ng, u%d, r%d\n", i, i, i)
		fmt.Fprintf(&policy, "p, r%d, /y, read, allow\n", i)
	}
	w := newPair(t, shape.Model("g(p.sub, r.sub) && r.obj == p.obj"), policy.String(), Options{})
	if w == nil {
		t.Fatal("the model or the policy is refused")
	}
	for i := range names {
		new(tally).compare(t, w, &authz.Query{Principal: authz.Principal{Subject: fmt.Sprintf("r%d", i)}, Object: "/x", Action: "read"})
	}
	ev, err := w.engine.Begin(&authz.Query{Principal: authz.Principal{Subject: "r0"}, Object: "/x", Action: "read"})
	if err != nil {
		t.Fatal(err)
	}
	for row := range w.engine.Rows.Len() {
		if _, err := ev.Matches(row); err != nil {
			t.Fatal(err)
		}
	}
	if len(ev.Walks) > maxWalks {
		t.Errorf("%d walks are remembered", len(ev.Walks))
	}
}

// What a model's matcher looks like decides whether an index helps, and if not,
// the operator is told why.
func TestPlanSaysWhyItScans(t *testing.T) {
	s := world.Shape{Request: []string{"sub", "obj", "act"}, Policy: []string{"sub", "obj", "act", "eft"}, Roles: []string{"g = _, _"}, Effect: world.AllowAndDeny}
	var huge []string
	for range 7 {
		huge = append(huge, `(r.sub == p.sub || r.obj == p.obj)`)
	}
	for _, tt := range []struct{ matcher, want string }{
		{"g(r.sub, p.sub) && globMatch(r.obj, p.obj)", ""},
		{"p.sub != r.sub", "no part of `p.sub != r.sub` can be looked up"},
		{`g(r.sub, p.sub) || r.act == "read" && p.sub != r.sub`, "no part of `r.act == \"read\" && p.sub != r.sub` can be looked up"},
		{strings.Join(huge, " && "), "the matcher has too many alternatives"},
	} {
		w := newPair(t, s.Model(tt.matcher), "p, alice, /x, read, allow\n", Options{})
		if w == nil {
			t.Errorf("%s is refused", tt.matcher)
			continue
		}
		indexed, why := w.engine.Indexed()
		if why != tt.want || indexed != (tt.want == "") {
			t.Errorf("%s: %t, %s", tt.matcher, indexed, why)
		}
	}
}
