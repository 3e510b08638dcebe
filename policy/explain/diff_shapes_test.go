package explain

import (
	"strings"
	"testing"

	"securefiles/policy/internal/storetest"
)

// What is easily missed: each of these gives access, and is told.
func TestCompareFindsWhatIsHardToSee(t *testing.T) {
	model := func(request, policy, roles, effect, matcher string) string {
		if roles != "" {
			roles = "[role_definition]\n" + roles + "\n"
		}
		return "[request_definition]\nr = " + request + "\n[policy_definition]\np = " + policy + "\n" + roles + "[policy_effect]\ne = " + effect + "\n[matchers]\nm = " + matcher + "\n"
	}
	const allow, both, first = "some(where (p.eft == allow))", "some(where (p.eft == allow)) && !some(where (p.eft == deny))", "priority(p.eft) || deny"
	usual := func(function string) string {
		return model("sub, obj, act", "sub, obj, act, eft", "g = _, _", both, "g(r.sub, p.sub) && "+function+"(r.obj, p.obj) && r.act == p.act")
	}
	resources := model("sub, obj, act", "sub, obj, act", "g = _, _\ng2 = _, _", allow, "g(r.sub, p.sub) && g2(r.obj, p.obj) && r.act == p.act")
	for _, tt := range []struct {
		name, model, before, after, gained string
	}{
		{"an escaped dot", usual("keyMatch2"), "p, bob, /x, read, allow\n", "p, bob, /x, read, allow\np, @anyone, /hr/salaries\\.pdf, read, allow\n", "/hr/salaries.pdf"},
		{"an escaped dot in braces", usual("keyMatch5"), "p, bob, /x, read, allow\n", "p, bob, /x, read, allow\np, bob, /{id}/salaries\\.pdf, read, allow\n", "/x/salaries.pdf"},
		{"a regular expression", usual("regexMatch"), "p, bob, ^/x$, read, allow\n", "p, bob, ^/x$, read, allow\np, bob, ^/hr/[0-9]{4}/(a|b)\\.pdf$, read, allow\n", "/hr/0000/a.pdf"},
		{"a resource that gets a role", resources, "p, alice, reports, read\ng2, /a, reports\n", "p, alice, reports, read\ng2, /a, reports\ng2, /hr/salaries.pdf, reports\n", "/hr/salaries.pdf"},
		{"a role of resources in another", resources, "p, alice, all, read\np, bob, hr, read\ng2, /hr/pay.pdf, hr\n", "p, alice, all, read\np, bob, hr, read\ng2, /hr/pay.pdf, hr\ng2, hr, all\n", "/hr/pay.pdf"},
		{"a role of resources that is no path", resources, "p, alice, \xff, read\n", "p, alice, \xff, read\ng2, /a, \xff\n", "/a"},
		{"behind a deny of one letter", usual("globMatch"), "p, bob, /a/?, read, deny\n", "p, bob, /a/?, read, deny\np, bob, /a/*, read, allow\n", "/a/xx"},
		{"behind denies of all lengths but one", usual("globMatch"), "p, bob, /a/?, read, deny\np, bob, /a/???*, read, deny\n", "p, bob, /a/?, read, deny\np, bob, /a/???*, read, deny\np, bob, /a/*, read, allow\n", "/a/xx"},
		{"behind denies of a letter", usual("globMatch"), "p, bob, /a/x*, read, deny\np, bob, /a/**/y, read, deny\n", "p, bob, /a/x*, read, deny\np, bob, /a/**/y, read, deny\np, bob, /a/**, read, allow\n", "/a"},
		{"what three patterns share", usual("globMatch"), "p, bob, /a/**, read, allow\np, bob, /**/b/**, read, deny\n", "p, bob, /a/**, read, allow\np, bob, /**/b/**, read, deny\np, bob, /**/c, read, allow\n", "/c"},
		{"a deny that three patterns share", usual("globMatch"), "p, bob, /*/b/*, read, allow\np, bob, /a/**, read, deny\np, bob, /**/c, read, deny\n", "p, bob, /*/b/*, read, allow\np, bob, /a/**, read, deny\n", "/x/b/c"},
		{"a model that never asks for the path", model("sub, act", "sub, act", "", allow, "r.sub == p.sub && r.act == p.act"), "p, bob, list\n", "p, bob, list\np, bob, read\n", "/x"},
		{"the order of lines", model("sub, obj, act", "sub, obj, act, eft", "", first, "r.sub == p.sub && keyMatch(r.obj, p.obj) && r.act == p.act"), "p, bob, /a/b*, read, deny\np, bob, /a/*, read, allow\n", "p, bob, /a/*, read, allow\np, bob, /a/b*, read, deny\n", "/a/bx"},
		{"a priority", model("sub, obj, act", "priority, sub, obj, act, eft", "", first, "r.sub == p.sub && keyMatch(r.obj, p.obj) && r.act == p.act"), "p, 1, bob, /a/b, read, deny\np, 2, bob, /a/*, read, allow\n", "p, 3, bob, /a/b, read, deny\np, 2, bob, /a/*, read, allow\n", "/a/b"},
		{"a deny and an allow the other way round", usual("keyMatch2"), "p, bob, /a/*, read, allow\np, bob, /a/:x/c, read, deny\n", "p, bob, /a/*, read, allow\np, bob, /a/b/c, read, deny\n", "/a/x/c"},
		{"a role that nobody has any more", usual("globMatch"), "p, @authenticated, /shared/**, read, allow\ng, alice, staff\np, staff, /hr/**, read, allow\n", "p, @authenticated, /shared/**, read, allow\np, staff, /hr/**, read, allow\n", "/hr/x"},
		{"in a class of characters", usual("globMatch"), "p, bob, /[a-y], read, deny\n", "p, bob, /[a-y], read, deny\np, bob, /[x-z], read, allow\n", "/z"},
	} {
		before, after := storetest.OpenText(t, tt.model, tt.before), storetest.OpenText(t, tt.model, tt.after)
		d, err := Compare(t.Context(), before, after, nil)
		if err != nil {
			t.Fatal(err)
		}
		var paths []string
		for _, c := range d.Gained {
			paths = append(paths, c.Path)
		}
		if got := strings.Join(paths, " "); !strings.Contains(" "+got+" ", " "+tt.gained+" ") || len(d.Untried) > 0 {
			t.Errorf("%s: gained %s, want %s; untried %v", tt.name, got, tt.gained, d.Untried)
		}
	}
}

// Matchers with texts of their own: what they give is told.
func TestCompareFindsWhatAMatcherNames(t *testing.T) {
	const shape = "[request_definition]\nr = sub, obj, act\n[policy_definition]\np = sub, obj, act\n[policy_effect]\ne = some(where (p.eft == allow))\n[matchers]\nm = r.sub == p.sub && keyMatch(r.obj, p.obj) && r.act == p.act"
	for _, tt := range []struct{ more, gained string }{
		{` || r.obj == "/y/z"`, "anonymous,@authenticated,bob:/y/z:/y/z"},
		{` || r.obj in ("/y", "/z")`, "anonymous,@authenticated,bob:/y:/y anonymous,@authenticated,bob:/z:/z"},
		{` || r.sub == "root"`, "root:/x:any path"},
		{` || keyMatch2(r.obj, "/pub/:x")`, "anonymous,@authenticated,bob:/pub/x:/pub/:x"},
		{` || r.sub == "carol" && r.obj =~ "^/[ab]{3}$"`, "carol:/aaa:^/[ab]{3}$"},
	} {
		d, err := Compare(t.Context(), storetest.OpenText(t, shape+"\n", "p, bob, /b, read\n"), storetest.OpenText(t, shape+tt.more+"\n", "p, bob, /b, read\n"), nil)
		if err != nil {
			t.Fatal(err)
		}
		if changes(d.Gained) != tt.gained || len(d.Untried) > 0 {
			t.Errorf("%s: gained %s, want %s; untried %v", tt.more, changes(d.Gained), tt.gained, d.Untried)
		}
	}
}

// What cannot be tried is told, by line where it is one.
func TestCompareSaysWhatItCannotTry(t *testing.T) {
	shape := func(request, matcher string) string {
		return "[request_definition]\nr = " + request + "\n[policy_definition]\np = sub, obj, act\n[policy_effect]\ne = some(where (p.eft == allow))\n[matchers]\nm = " + matcher + "\n"
	}
	for _, tt := range []struct {
		name, model, line, why string
		number                 int
	}{
		{"a comparison that is not known", shape("sub, obj, act", `r.sub == p.sub && keyGet(r.obj, p.obj) == "b" && r.act == p.act`), "p, bob, /b/*, read\n", "cannot be listed", 2},
		{"a name that stands twice", shape("sub, obj, act", "r.sub == p.sub && keyMatch4(r.obj, p.obj) && r.act == p.act"), "p, bob, /{a}/{a}, read\n", "no regular expression", 2},
		{"a path in another encoding", shape("sub, obj, act", "r.sub == p.sub && r.obj == p.obj && r.act == p.act"), "p, bob, /a\xff, read\n", "no regular expression", 2},
		{"a pattern in another encoding", shape("sub, obj, act", "r.sub == p.sub && keyMatch(r.obj, p.obj) && r.act == p.act"), "p, bob, /a\xff/*, read\n", "no regular expression", 2},
		{"an address", shape("sub, obj, act, ip", `r.sub == p.sub && r.obj == p.obj && r.act == p.act && ipMatch(r.ip, "10.0.0.0/8")`), "p, bob, /b, read\n", "--ip", 0},
		{"a host", shape("sub, obj, act, host", `r.sub == p.sub && r.obj == p.obj && r.act == p.act && r.host == "x"`), "p, bob, /b, read\n", "--host", 0},
		{"names by pattern", shape("sub, obj, act", "keyMatch(r.sub, p.sub) && r.obj == p.obj && r.act == p.act"), "p, b*, /b, read\n", "listed subjects", 0},
	} {
		before := storetest.OpenText(t, tt.model, "p, alice, /a, read\n")
		d, err := Compare(t.Context(), before, storetest.OpenText(t, tt.model, "p, alice, /a, read\n"+tt.line), nil)
		if err != nil {
			t.Fatal(err)
		}
		if len(d.Untried) != 1 || !strings.Contains(d.Untried[0].Why, tt.why) || (d.Untried[0].Line != nil) != (tt.number > 0) || tt.number > 0 && d.Untried[0].Line.Line != tt.number {
			t.Errorf("%s: %+v", tt.name, d.Untried)
		}
		// Where nothing has changed there is nothing to try.
		if d, err := Compare(t.Context(), before, storetest.OpenText(t, "# here\n"+tt.model, "# there\np,alice,/a,read\n"), nil); err != nil || len(d.Untried)+len(d.Gained)+len(d.Lost) > 0 {
			t.Errorf("%s: %+v, %v", tt.name, d, err)
		}
	}
}
