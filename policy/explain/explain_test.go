package explain

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"securefiles/authz"
	"securefiles/policy"
	"securefiles/policy/internal/finding"
	"securefiles/policy/internal/model"
	"securefiles/policy/internal/storetest"
	"securefiles/policy/internal/world"

	"github.com/google/go-cmp/cmp"
)

func explained(t *testing.T, s *policy.Store, q authz.Query) *Explanation {
	t.Helper()
	x, err := Decision(t.Context(), s, q)
	if err != nil {
		t.Fatal(err)
	}
	return x
}

func TestExplainShowsWhatMatches(t *testing.T) {
	s, _ := storetest.Open(t, `# from line 2 on
p, staff, /a/**, read, allow
p, "a ""b""", "/a/x,y", read, deny
p, everybody, /**, read, allow
g, alice, interns
g, interns, staff
g, staff, everybody
g, "a ""b""", staff
g, @temps, interns
`, nil)
	want := &Explanation{
		Subject: "alice", Groups: []string{}, Roles: []string{"interns", "staff", "everybody"}, Object: "/a/x", Action: "read",
		Allowed: true, Decision: "g1:policy.csv:2", Reason: "policy", Why: "line 2 allows it, and no line that matches denies it",
		Matches: []Line{
			{File: "policy.csv", Line: 2, Text: "p, staff, /a/**, read, allow", Effect: "allow", Chain: []Step{{"alice", 0}, {"interns", 5}, {"staff", 6}}},
			{File: "policy.csv", Line: 4, Text: "p, everybody, /**, read, allow", Effect: "allow", Chain: []Step{{"alice", 0}, {"interns", 5}, {"staff", 6}, {"everybody", 7}}},
		},
	}
	want.Deciding = &want.Matches[0]
	if diff := cmp.Diff(want, explained(t, s, world.Query("alice", "/a/x"))); diff != "" {
		t.Error(diff)
	}
	x := explained(t, s, world.Query(`a "b"`, "/a/x,y"))
	if x.Allowed || x.Deciding == nil || x.Deciding.Text != `p, "a ""b""", "/a/x,y", read, deny` || x.Deciding.Chain != nil || len(x.Matches) != 3 {
		t.Errorf("a line with quotes: %+v", x)
	}
	x = explained(t, s, world.Query("bob", "/a/x", "@temps"))
	if diff := cmp.Diff([]Step{{"bob", 0}, {"@temps", 0}, {"interns", 9}, {"staff", 6}}, x.Deciding.Chain); diff != "" {
		t.Errorf("through a group: %s", diff)
	}
}

// Each effect says in its own words why it came out so.
func TestExplainSaysWhy(t *testing.T) {
	for _, tt := range []struct {
		model, policy, subject, want string
	}{
		{"default", "p, alice, /**, read, allow\n", "alice", "line 1 allows it, and no line that matches denies it"},
		{"default", "p, alice, /b, read, allow\n", "alice", "no line matches, and the model denies what no line allows"},
		{"default", "p, alice, /b, read, allow\np, alice, /a/*, read, deny\n", "alice", "the explicit deny at line 2 decides, and no line allows it either"},
		{"default", "p, alice, /**, read, allow\np, alice, /a/*, read, deny\n", "alice", "the explicit deny at line 2 wins over the allow at line 1"},
		{"default", "p, alice, /a/*, read, deny\np, alice, /**, read, allow\np, alice, /a/**, read, allow\n", "alice", "the explicit deny at line 1 wins over 2 allows, the first at line 2"},
		{"allow", "p, alice, /**, read, allow\n", "alice", "line 1 allows it, and the model asks for no more than one that does"},
		{"allow", "p, alice, /**, read, allow\np, alice, /a/*, read, allow\n", "alice", "line 1 is the first that matches and allows, and the model asks for no more"},
		{"open", "p, alice, /**, read, deny\n", "alice", "line 1 denies it, and the model asks for no more than one that does"},
		{"open", "p, alice, /**, read, deny\n", "bob", "no line that matches denies it, and the model allows what no line denies"},
		{"open", "p, alice, /**, read, allow\n", "alice", "no line that matches denies it, and the model allows what no line denies"},
		{"priority", "p, 10, alice, /**, read, allow\np, 1, alice, /a/*, read, deny\n", "alice", "line 2 is the first match by priority: 1, before 10 of line 1"},
		{"priority", "p, 10, alice, /**, read, allow\n", "alice", "line 1 is the only one that matches"},
		{"subject", "p, staff, /**, read, deny\np, alice, /a/*, read, allow\ng, alice, staff\n", "alice", "line 2 is the first of those that match by its subject's place in the tree of roles: the nearest to the user goes first"},
		{"superuser", "p, alice, /a/*, read, allow\ng, carol, operators\n", "root", "line 1 allows it, and no line that matches denies it"},
	} {
		x := explained(t, storetest.OpenModel(t, tt.model, tt.policy), world.Query(tt.subject, "/a/x"))
		if x.Why != tt.want {
			t.Errorf("%s, %s: %s, want %s\n%s", tt.model, tt.subject, x.Why, tt.want, tt.policy)
		}
	}
}

func TestExplainShowsWhatIsNearest(t *testing.T) {
	s, _ := storetest.Open(t, `p, bob, /a/**, read, allow
p, alice, /a/b/**, read, allow
p, alice, /a/x, share, allow
p, alice, /z/**, read, allow
p, alice, /c/**, share, allow
p, alice, /a/x, share, deny
`, nil)
	x := explained(t, s, world.Query("alice", "/a/x"))
	notAct := Clause{`r.act == p.act || p.act == "*"`, false, `"read" is not "share"; "share" is not "*"`}
	act := Clause{`r.act == p.act || p.act == "*"`, true, `both are "read"`}
	sub := Clause{"g(r.sub, p.sub)", true, `both are "alice"`}
	obj := func(holds bool, detail string) Clause {
		return Clause{"globMatch(r.obj, p.obj)", holds, detail}
	}
	line := func(n int, text string, clauses ...Clause) Line {
		return Line{File: "policy.csv", Line: n, Text: text, Effect: "allow", Clauses: clauses}
	}
	want := []Line{
		line(3, "p, alice, /a/x, share, allow", sub, obj(true, `"/a/x" matches "/a/x"`), notAct),
		line(2, "p, alice, /a/b/**, read, allow", sub, obj(false, `"/a/x" does not match "/a/b/**"`), act),
		line(1, "p, bob, /a/**, read, allow", Clause{"g(r.sub, p.sub)", false, `"alice" is not "bob" and has no role that leads to it`}, obj(true, `"/a/x" matches "/a/**"`), act),
	}
	if x.Allowed || x.Deciding != nil || len(x.Matches) != 0 {
		t.Errorf("%+v", x)
	}
	if diff := cmp.Diff(want, x.Nearest); diff != "" {
		t.Error(diff)
	}

	// Neither kind crowds the other out.
	var many strings.Builder
	for i := range 20 {
		fmt.Fprintf(&many, "p, bob, /a/%d, read, allow\np, alice, /ab/%d, read, allow\n", i, i)
	}
	s, _ = storetest.Open(t, many.String(), nil)
	var lines []int
	for _, l := range explained(t, s, world.Query("alice", "/a/19")).Nearest {
		lines = append(lines, l.Line)
	}
	if diff := cmp.Diff([]int{39, 2, 4, 6, 8}, lines); diff != "" {
		t.Error(diff)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Decision(ctx, s, world.Query("alice", "/a/1")); !errors.Is(err, context.Canceled) {
		t.Errorf("nobody waits for it: %v", err)
	}
}

// What a clause says, with its values.
func TestClauseDetails(t *testing.T) {
	for _, tt := range []struct{ model, policy, subject, want string }{
		{"basic", "p, alice, /b/*, read\n", "alice", `holds r.sub == p.sub: both are "alice"; fails keyMatch(r.obj, p.obj): "/a/x" does not match "/b/*"; holds r.act == p.act: both are "read"`},
		{"basic", "p, alice, /a/*, list\n", "bob", `fails r.sub == p.sub: "bob" is not "alice"; holds keyMatch(r.obj, p.obj): "/a/x" matches "/a/*"; fails r.act == p.act: "read" is not "list"`},
		{"operator", "p, alice, ^/b/, read, allow\n", "alice", `holds g(r.sub, p.sub): both are "alice"; fails r.obj =~ p.obj: "/a/x" does not match "^/b/"; holds r.act == p.act: both are "read"`},
		{"rule", `p, "r.sub == ""alice""", /a/*, read, allow` + "\n", "bob", `fails eval(p.rule): the rule "r.sub == \"alice\"" does not hold; holds globMatch(r.obj, p.obj): "/a/x" matches "/a/*"; holds r.act == p.act: both are "read"`},
		{"superuser", "p, alice, /b/*, read, allow\np, alice, /c, read, allow\ng, bob, operators\n", "alice", `holds g(r.sub, p.sub): both are "alice"; fails globMatch(r.obj, p.obj): "/a/x" does not match "/b/*"; holds r.act in ("read", "list"): r.act is "read"; holds p.act != "": "read" is not ""`},
		{"default", "p, staff, /b/*, read, allow\ng, alice, staff\n", "alice", `holds g(r.sub, p.sub): "alice" has the role "staff"; fails globMatch(r.obj, p.obj): "/a/x" does not match "/b/*"; holds r.act == p.act || p.act == "*": both are "read"`},
	} {
		x := explained(t, storetest.OpenModel(t, tt.model, tt.policy), world.Query(tt.subject, "/a/x"))
		if len(x.Nearest) == 0 {
			t.Errorf("%s: nothing is near: %s", tt.model, x)
			continue
		}
		var got []string
		for _, c := range x.Nearest[0].Clauses {
			word := "fails "
			if c.Holds {
				word = "holds "
			}
			got = append(got, word+c.Text+": "+c.Detail)
		}
		if diff := cmp.Diff(tt.want, strings.Join(got, "; ")); diff != "" {
			t.Errorf("%s: %s", tt.model, diff)
		}
	}
}

func TestClausesOfAnyKindAreDetailed(t *testing.T) {
	shape := world.Shape{Request: []string{"sub", "obj", "act"}, Policy: []string{"sub", "obj", "act", "eft"}, Effect: world.AllowAndDeny}
	source := policy.Files{Model: filepath.Join(t.TempDir(), "model.conf"), Policy: filepath.Join(t.TempDir(), "policy.csv")}
	world.Write(t, source.Policy, "p, alice, ^/b/, read, allow\n")
	for matcher, want := range map[string]string{
		"!(r.act == p.act && p.obj == r.obj)":           `"^/b/" is not "/a/x"`,
		"!keyMatch(r.obj, p.obj)":                       `"/a/x" does not match "^/b/"`,
		"!(r.sub != p.sub)":                             `both are "alice"`,
		"r.obj !~ p.obj":                                `"/a/x" does not match "^/b/"`,
		`r.act != "list"`:                               `"read" is not "list"`,
		`p.act == "read"`:                               `p.act is "read"`,
		`(r.act == p.act ? r.act == p.act : false)`:     `r.act is "read"; p.act is "read"`,
		`(r.act == p.act ? true : false)`:               `r.act is "read"; p.act is "read"`,
		`(r.act + "") == p.act`:                         `r.act is "read"; p.act is "read"`,
		`p.act in ("read", "list")`:                     `p.act is "read"`,
		`keyGet(r.obj, "/a/*") == p.act + ""`:           `r.obj is "/a/x"; p.act is "read"`,
		`r.act + "x" == p.act + "x"`:                    `r.act + "x" is "readx"`,
		`(r.act == "list" || (r.act == p.act && true))`: `both are "read"; `,
	} {
		world.Write(t, source.Model, shape.Model("r.sub == p.sub && r.obj =~ p.obj && "+matcher))
		s, err := policy.Open(t.Context(), source, nil)
		if err != nil {
			t.Errorf("%s: %v", matcher, err)
			continue
		}
		x := explained(t, s, world.Query("alice", "/a/x"))
		if len(x.Nearest) == 0 || len(x.Nearest[0].Clauses) != 3 || x.Nearest[0].Clauses[2].Detail != want {
			t.Errorf("%s: want %s in\n%s", matcher, want, x)
		}
	}
}

func TestExplainFollowsRolesInTheirDomain(t *testing.T) {
	s := storetest.OpenModel(t, "domain", "p, admin, main, /**, read, allow\np, admin, other, /**, read, allow\ng, alice, boss, main\ng, boss, admin, main\n")
	for domain, want := range map[string][]Step{"main": {{"alice", 0}, {"boss", 3}, {"admin", 4}}, "other": nil, "nowhere": nil} {
		q := world.Query("alice", "/x")
		q.Domain = domain
		x := explained(t, s, q)
		if x.Allowed != (want != nil) {
			t.Errorf("%s: allowed: %t", domain, x.Allowed)
		}
		if want != nil {
			if diff := cmp.Diff(want, x.Deciding.Chain); diff != "" {
				t.Errorf("%s: %s", domain, diff)
			}
		}
	}
}

// Domains that are patterns are explained by the lines that have them.
func TestExplainFollowsRolesThroughPatternsOfDomains(t *testing.T) {
	model := strings.Replace(world.ModelText(t, "domain"), "r.dom == p.dom", "keyMatch(r.dom, p.dom)", 1)
	s := storetest.OpenText(t, model, "p, admin, *, /**, read, allow\ng, alice, boss, *\ng, boss, admin, main*\n")
	for domain, want := range map[string][]Step{"main": {{"alice", 0}, {"boss", 2}, {"admin", 3}}, "mainland": {{"alice", 0}, {"boss", 2}, {"admin", 3}}, "other": nil} {
		q := world.Query("alice", "/x")
		q.Domain = domain
		x := explained(t, s, q)
		var got []Step
		if x.Allowed {
			got = x.Deciding.Chain
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", domain, diff)
		}
	}
}

// What the service answers with an error is explained as the denial that it is.
func TestExplainErrors(t *testing.T) {
	s := storetest.OpenModel(t, "address", "p, alice, /**, read, 10.0.0.0/8, allow\np, bob, /**, read, 10.0.0.0/8, allow\n")
	x := explained(t, s, world.Query("alice", "/x")) // without an address, on which ipMatch panics
	if x.Allowed || x.Reason != authz.ReasonUnavailable || x.Error == "" || !strings.Contains(x.Why, "what cannot be decided is denied") {
		t.Errorf("%+v", x)
	}
	if len(x.Failing) != 1 || x.Failing[0].Line != 1 || !strings.Contains(x.Failing[0].Clauses[1].Detail, "cannot be evaluated") {
		t.Errorf("the line that fails: %+v", x.Failing)
	}

	s, _ = storetest.Open(t, storetest.ContractPolicy, nil)
	x = explained(t, s, world.Query("project_member", "/project/plan.pdf"))
	if x.Allowed || x.Reason != authz.ReasonSubject || x.Why != `line 4 makes "project_member" a role, and no user may be called like a role: rename one of them` {
		t.Errorf("a role that asks: %+v", x)
	}
	var zero policy.Store
	if _, err := Decision(t.Context(), &zero, world.Query("alice", "/")); err == nil {
		t.Error("a zero store explains")
	}
}

// Models without roles, clauses to name or a default deny are explained too.
func TestExplanationText(t *testing.T) {
	for _, tt := range []struct{ model, policy, subject, want string }{
		{"basic", "p, alice, /a/*, read\n", "alice", `allow: alice may read /a/x
  why: line 1 allows it, and the model asks for no more than one that does
  decided by policy.csv:1
lines that match:
  policy.csv:1  p, alice, /a/*, read
`},
		{"basic", "p, alice, /a/*, read\n", "bob", `deny: bob may not read /a/x
  why: no line matches, and the model denies what no line allows
nearest lines:
  policy.csv:1  p, alice, /a/*, read
      fails  r.sub == p.sub: "bob" is not "alice"
      holds  keyMatch(r.obj, p.obj): "/a/x" matches "/a/*"
      holds  r.act == p.act: both are "read"
`},
		{"open", "p, alice, /a/*, read, deny\n", "bob", "allow: bob may read /a/x\n  why: no line that matches denies it, and the model allows what no line denies\n"},
	} {
		if diff := cmp.Diff(tt.want, explained(t, storetest.OpenModel(t, tt.model, tt.policy), world.Query(tt.subject, "/a/x")).String()); diff != "" {
			t.Errorf("%s, %s: %s", tt.model, tt.subject, diff)
		}
	}
	var many strings.Builder
	for i := range 70 {
		fmt.Fprintf(&many, "p, alice, /a/[x%d]*, read, allow\n", i)
	}
	s, _ := storetest.Open(t, many.String(), nil)
	x := explained(t, s, world.Query("alice", "/a/x"))
	if len(x.Matches) != maxMatches || x.MoreMatches != 20 || !strings.HasSuffix(x.String(), "  and 20 more\n") {
		t.Errorf("%d lines and %d more", len(x.Matches), x.MoreMatches)
	}
}

// Explain says what Decide says, and its lines are those that make it so:
// merged by the words of the effect they give the same answer and line.
func TestExplainAgreesWithDecide(t *testing.T) {
	random := rand.New(rand.NewPCG(11, 12))
	policies, requests := world.Share(1000, 20), 100
	allowed, failed := 0, 0
	for i := range policies {
		model := world.Models()[i%len(world.Models())]
		s, files := storetest.OpenRandom(t, random, model, 12)
		def := s.Version().Engine.Model
		for range requests {
			q := world.RandomQuery(random)
			d, err := s.Decide(t.Context(), q)
			x := explained(t, s, q)
			problem := ""
			deciding := 0
			if x.Deciding != nil {
				deciding = x.Deciding.Line
			}
			switch {
			case err != nil && (x.Allowed || x.Error != err.Error()):
				problem = "the error"
			case err != nil:
				failed++
			case x.Allowed != (d.Effect == authz.Allow), x.Decision != d.String(), deciding != d.Line:
				problem = "the decision"
			case !strings.Contains(def.Matcher, "root"): // where Casbin picks a line of its own
				if allow, line := merge(def.Effect, x.Matches); allow != x.Allowed || line != deciding {
					problem = fmt.Sprintf("the lines give %t by line %d", allow, line)
				}
			}
			if rows := bruteMatches(t, s, q); err == nil && problem == "" && !slices.EqualFunc(rows, x.Matches, func(line int, l Line) bool { return line == l.Line }) {
				problem = fmt.Sprintf("the matcher itself holds in lines %v", rows)
			}
			if problem != "" {
				t.Fatalf("%s: %s: %+v\ndecide: %v %v\n%s\n%s", model, problem, q, d, err, x, world.File(t, files.Policy))
			}
			if x.Allowed {
				allowed++
			}
		}
	}
	t.Logf("%d requests, %d allowed, %d with an error", policies*requests, allowed, failed)
	if allowed < policies*requests/10 || failed == 0 {
		t.Errorf("%d of %d were allowed, %d failed", allowed, policies*requests, failed)
	}
}

// merge reads an effect off the lines that match, as CONTRACT says.
func merge(effect string, matches []Line) (allowed bool, line int) {
	first := func(word string) int {
		i := slices.IndexFunc(matches, func(l Line) bool { return l.Effect == word })
		if i < 0 {
			return 0
		}
		return matches[i].Line
	}
	allow, deny := first("allow"), first("deny")
	switch effect {
	case model.AllowOverride:
		return allow > 0, allow
	case model.DenyOverride:
		return deny == 0, deny
	case model.AllowAndDeny:
		if deny > 0 {
			return false, deny
		}
		return allow > 0, allow
	}
	if len(matches) == 0 {
		return false, 0
	}
	return matches[0].Effect == "allow", matches[0].Line
}

// bruteMatches evaluates the whole matcher for each line.
func bruteMatches(t *testing.T, s *policy.Store, q authz.Query) []int {
	t.Helper()
	e := s.Version().Engine
	ev, err := e.Begin(&q)
	if err != nil {
		t.Fatal(err)
	}
	defer e.End(ev)
	lines := []int{}
	for row := range e.Rows.Len() {
		func() {
			defer func() { _ = recover() }()
			if ok, err := ev.Matches(row); err == nil && ok {
				lines = append(lines, int(e.Rows.Lines[row]))
			}
		}()
	}
	return lines
}

// S14: what is asked reaches no terminal as it is.
func TestExplanationIsEscaped(t *testing.T) {
	s, _ := storetest.Open(t, "p, al\u202eice, /\u202e/**, read, allow\np, ro\u202ele, /role/**, read, allow\ng, alice, ro\u202ele\n", nil)
	for _, q := range []authz.Query{
		world.Query("al\u202eice", "/\u202e/x"),
		world.Query("alice", "/role/x"),
		world.Query("alice", "/role\u202e/x"),
		world.Query("ro\u202ele", "/role/x"),
		world.Query("\x1b[2J", "/\x1b[31m\xff\n", "@\u202e"),
		{Principal: authz.Principal{Subject: "alice"}, Object: "/", Action: "\x07"},
	} {
		text := explained(t, s, q).String()
		for line := range strings.Lines(text) {
			if line = strings.TrimSuffix(line, "\n"); line != finding.Escape(line) {
				t.Errorf("%q", line)
			}
		}
	}
}

// However a matcher writes that it asks for a role, the explanation is the same.
func TestExplainSeesThroughSpelling(t *testing.T) {
	const policy = "p, editor, /a/**, read, allow\np, bob, /b/**, read, allow\np, editor, /c/**, list, allow\ng, alice, editor\ng, editor, staff\np, staff, /a/x, read, allow\n"
	shape := world.Shape{Request: []string{"sub", "obj", "act"}, Policy: []string{"sub", "obj", "act", "eft"}, Roles: []string{"g = _, _"}, Effect: world.AllowAndDeny}
	const rest = " && globMatch(r.obj, p.obj) && r.act == p.act"
	plain := storetest.OpenText(t, shape.Model("g(r.sub, p.sub)"+rest), policy)
	for _, asks := range []string{"g (r.sub, p.sub)", "g((r.sub), p.sub)", "g(r.sub, (p.sub))", "(g(((r.sub)),p.sub))"} {
		model := strings.Replace(shape.Model("g(r.sub, p.sub)"+rest), "g(r.sub, p.sub)", asks, 1)
		s := storetest.OpenText(t, model, policy)
		for _, q := range []authz.Query{world.Query("alice", "/a/x"), world.Query("alice", "/b/x"), world.Query("alice", "/c/x"), world.Query("carol", "/a/x"), world.Query("carol", "/a/x", "@team")} {
			want, got := explained(t, plain, q), explained(t, s, q)
			for _, x := range []*Explanation{want, got} {
				for _, l := range x.Nearest {
					l.Clauses[0].Text = "g(r.sub, p.sub)" // the clause itself stands as it is written
				}
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s: %+v: -plain +spelt\n%s", asks, q, diff)
			}
		}
		for _, object := range []string{"/a/x", "/b/x"} {
			want, err := Who(t.Context(), plain, authz.Query{Object: object, Action: authz.ActionRead})
			if err != nil {
				t.Fatal(err)
			}
			got, err := Who(t.Context(), s, authz.Query{Object: object, Action: authz.ActionRead})
			if diff := cmp.Diff(want, got); err != nil || diff != "" {
				t.Errorf("who %s under %s: %v -plain +spelt\n%s", object, asks, err, diff)
			}
		}
		if indexed := s.Status(); !indexed.Indexed {
			t.Errorf("%s: not indexed: %s", asks, indexed.NotIndexed)
		}
	}
}
