package table

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"securefiles/policy/internal/finding"
	"securefiles/policy/internal/model"
	"securefiles/policy/internal/world"
)

const judgedHead = "[request_definition]\nr = sub, obj, act\n[policy_definition]\np = sub, obj, act, eft\n"

// judgedModels are models beside those of testdata.
func judgedModels(t *testing.T, name string) *model.Model {
	t.Helper()
	effect, roles := "some(where (p.eft == allow)) && !some(where (p.eft == deny))", "[role_definition]\ng = _, _\n"
	matcher, ok := map[string]string{
		"unasked":     "r.sub == p.sub && keyMatch(r.obj, p.obj) && r.act == p.act",
		"reverse":     "r.sub == p.sub && keyMatch(r.obj, p.obj) && g(p.act, r.act)",
		"joined":      `g(r.sub, "team-" + p.sub) && keyMatch(r.obj, p.obj) && r.act == p.act`,
		"relation":    "g(r.sub, r.obj, p.sub) && r.act == p.act",
		"negated":     `g(r.sub, p.sub) && keyMatch(r.obj, p.obj) && !g(r.sub, "suspended")`,
		"contexts":    "g(r.sub, p.sub) && keyMatch(r.obj, p.obj) && r.act == p.act\nm2 = g(r2.sub, p2.sub)",
		"withoutdeny": "g(r.sub, p.sub) && !(keyMatch(r.obj, p.obj)) && r.act == p.act",
		"guarded":     `g(r.sub, p.sub) && keyMatch(r.obj, p.obj) && (p.act == "*" || regexMatch(r.act, p.act))`,
	}[name]
	if !ok {
		return world.Model(t, name)
	}
	if name == "relation" {
		roles = "[role_definition]\ng = _, _, _\n"
	}
	head := judgedHead
	if name == "contexts" {
		head += "p2 = sub, act\n"
	}
	m, err := model.Parse(name+".conf", head+roles+"[policy_effect]\ne = "+effect+"\n[matchers]\nm = "+matcher+"\n")
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// An error keeps a version from being served only where it could let in more than
// its author meant: the old version would go on serving, and with it what has just
// been taken away.
func TestWhatOnlyLocksOutIsServed(t *testing.T) {
	const editors = "p, editor, /docs/**, read, allow\n"
	for _, tt := range []struct{ name, model, text, want string }{
		{"a role whose last line is gone", "default", editors + "g, alice, chief\n", "warning role-unused"},
		{"a role whose last line is gone, where others are denied things", "default", editors + "p, intern, /docs/hr/**, read, deny\ng, alice, chief\n", "warning role-unused"},
		{"a role whose last line is gone, of somebody who is denied things", "default", editors + "p, alice, /docs/hr/**, read, deny\ng, alice, chief\n", "warning role-unused"},
		{"a role without a line yet, of another", "default", "p, Guest, /a/**, read, allow\ng, Admin, Owner\ng, Guest, Admin\n", "warning role-unused"},
		{"a role that takes something away, misspelt", "default", editors + "p, banned, /**, read, deny\ng, bob, baned\n", "error role-unused"},
		{"a role that takes something away, in capitals", "default", editors + "p, banned, /**, read, deny\ng, bob, Banned\n", "error role-unused"},
		{"a role that the model asks nobody to have, misspelt", "negated", "p, editor, /docs/*, read, allow\ng, bob, suspendd\n", "error role-unused"},
		{"a role that the model asks nobody to have", "negated", "p, editor, /docs/*, read, allow\ng, bob, suspended\n", ""},
		{"numbered roles", "default", editors + "p, group1, /**, read, deny\ng, bob, group2\n", "warning role-unused"},
		{"a blank in a line that allows", "default", "p, alice , /docs/**, read, allow\n", "warning blank"},
		{"a blank in a line that denies", "default", editors + "p, alice , /docs/**, read, deny\n", "error blank"},
		{"a blank in a line that allows all but a path", "withoutdeny", "p, alice, /docs/* , read, allow\n", "error blank"},
		{"a control character in a line that allows all but a path", "withoutdeny", "p, alice, /docs/\x01*, read, allow\n", "error character"},
		{"a no-break space in a line that allows", "default", "p, \u00a0alice, /docs/**, read, allow\n", "warning blank"},
		{"a blank in a role that allows", "default", editors + "g, alice , editor\n", "warning blank"},
		{"a blank in a role that takes something away", "default", editors + "p, banned, /docs/**, read, deny\ng, \"banned \", banned\n", "error blank"},
		{"a blank behind a role that takes something away", "default", editors + "p, banned, /docs/**, read, deny\ng, alice, \"banned \"\n", "error blank"},
		{"a blank beside a role that leads to one that takes something away", "default", editors + "p, banned, /docs/**, read, deny\ng, \"alice \", x\ng, x, banned\n", "error blank"},
		{"quotes in a line that allows", "default", "p, 'alice', /docs/**, read, allow\n", "warning quotes"},
		{"quotes in a line that denies", "default", editors + "p, 'alice', /docs/**, read, deny\n", "error quotes"},
		{"quotes that end nowhere", "default", "p, \"alice, /docs/**, read, allow\n", "error quotes"},
		{"a control character in a line that allows", "default", "p, alice, /docs/\x01, read, allow\n", "warning character"},
		{"a control character in a line that denies", "default", editors + "p, alice, /docs/\x01, read, deny\n", "error character"},
		{"another encoding in a line that allows", "default", "p, alice, /docs/\xe9, read, allow\n", "warning encoding"},
		{"another encoding in a line that denies", "default", editors + "p, alice, /docs/\xe9, read, deny\n", "error encoding"},
		{"no subject in a line that allows", "default", "p, , /docs/**, read, allow\n", "warning empty"},
		{"an empty field in a line that allows", "default", "p, alice, , read, allow\n", "warning empty"},
		{"an empty field in a line that denies", "default", editors + "p, alice, , read, deny\n", "error empty"},
		{"an empty expression", "regex", "p, alice, , read, allow\n", "error empty"},
		{"a comment behind a role", "default", editors + "g, alice, editor # until June\n", "warning comment"},
		{"a comment behind a role that takes something away", "default", editors + "p, banned, /docs/**, read, deny\ng, alice, banned # until June\n", "error comment"},
		{"commas in a line that allows", "default", "p, \"alice,/f\", x, read, allow\np, alice, \"/f,x\", read, allow\n", "warning comma"},
		{"commas in a line that denies", "default", editors + "p, \"alice,/f\", /x, read, deny\np, alice, \"/f,/x\", read, deny\n", "error comma"},
		{"an effect in capitals, that allows", "default", "p, alice, /docs/**, read, Allow\n", "warning effect"},
		{"an effect in capitals, that denies", "default", editors + "p, alice, /docs/**, read, Deny\n", "error effect"},
		{"an effect that says neither", "default", editors + "p, alice, /docs/**, read, no\n", "error effect"},
		{"a bar under keyMatch2, that allows", "keymatch2", "p, alice, /docs/*|/plans/*, read, allow\n", "error pattern-alternative"},
		{"a bar under keyMatch2, that denies", "keymatch2", "p, alice, /docs/*|/plans/*, read, deny\n", ""},
		{"roles asked the other way round", "reverse", "p, alice, /project/*, owner, allow\ng, owner, read\n", ""},
		{"roles that are joined", "joined", "p, red, /docs/*, read, allow\ng, alice, team-red\n", ""},
		{"roles that the request names", "relation", "p, owner, any, read, allow\ng, alice, /docs/a, owner\n", ""},
		{"a resource group above one that has a line", "resource", "p, alice, reports, read, allow\ng2, /a/x.pdf, reports\ng2, reports, papers\n", "warning role-unused"},
		{"roles that the matcher never asks", "unasked", "p, alice, /docs/*, read, allow\ng, alice, editor\ng, bob, editor\n", "warning role-unused"},
		{"roles that the matcher never asks and lines deny things to", "unasked", "p, alice, /docs/*, read, allow\np, banned, /docs/*, read, deny\ng, alice, editor\ng, alice, banned\n", "warning role-unused, error role-unused"},
		{"a deny for the resource of an application", "default", "p, alice, data1, read, allow\np, bob, data2, read, deny\np, carol, /**, read, allow\n", ""},
		{"a deny for the resource of an application, alone", "default", editors + "p, bob, data2, read, deny\n", ""},
		{"a deny without its slash", "default", editors + "p, editor, docs, read, deny\n", "error pattern-unmatchable"},
		{"a deny without its slash, of a path", "default", editors + "p, editor, docs/hr, read, deny\n", "error pattern-unmatchable"},
		{"a deny of a directory's page", "default", editors + "p, editor, /docs/, list, deny\n", ""},
		{"a deny of a directory and nothing in it", "default", editors + "p, editor, /docs/, *, deny\n", "error pattern-unmatchable"},
		{"a deny of a directory that reads nothing", "default", editors + "p, editor, /docs/, read, deny\n", "error pattern-unmatchable"},
		{"lines of another context", "contexts", "p, alice, /docs/*, read, allow\np2, alice, read\np2, bob, write\n", "warning line-type"},
		{"lines of a context that the model has not", "contexts", "p, alice, /docs/*, read, allow\np3, alice, read\n", "error line-type"},
		{"a value that a guard keeps away", "guarded", "p, alice, /docs/*, *, allow\n", ""},
		{"a value that nothing keeps away", "guarded", "p, alice, /docs/*, **, allow\n", "error pattern"},
	} {
		_, findings := load(t, judgedModels(t, tt.model), tt.text)
		var got []string
		for _, f := range findings {
			got = append(got, f.Severity.String()+" "+f.Rule)
		}
		if got := strings.Join(got, ", "); got != tt.want {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
		}
	}
}

// A comment above the line takes back what is a judgement, and the line is served
// as it stands; it takes back nothing else, and nothing in other lines.
func TestErrorsThatAreJudgementsAreTakenBack(t *testing.T) {
	const allows = "p, alice, /docs/**, read, allow\n"
	for _, tt := range []struct{ name, text, want string }{
		{"a judgement", allows + "# securefiles:ignore action: a word of our application\np, alice, /docs/**, READ, deny\n", "warning action"},
		{"with a line between", allows + "# securefiles:ignore action: why\n\n# more\np, alice, /docs/**, READ, deny\n", "warning action"},
		{"another rule", allows + "# securefiles:ignore effect: why\np, alice, /docs/**, READ, deny\n", "error action"},
		{"another line", allows + "# securefiles:ignore action: why\np, alice, /docs/hr/**, read, deny\np, alice, /docs/**, READ, deny\n", "error action"},
		{"without a reason", allows + "# securefiles:ignore action\np, alice, /docs/**, READ, deny\n", "error action"},
		{"an effect that Casbin ignores", allows + "# securefiles:ignore effect: switched off\np, alice, /docs/hr/**, read, off\n", "warning effect"},
		{"a role", allows + "p, banned, /**, read, deny\n# securefiles:ignore role-unused: banned is another one\ng, bob, band\n", "warning role-unused"},
		{"a role that is a group", allows + "# securefiles:ignore role-name: our own\ng, alice, @staff\np, @staff, /a/**, read, allow\n", "warning role-name"},
		{"what cannot be read", allows + "# securefiles:ignore field-count: why\np, alice, /docs/**, read\n", "error field-count"},
		{"quotes that end nowhere", allows + "# securefiles:ignore quotes: why\np, \"alice, /docs/**, read, deny\n", "error quotes"},
		{"what cannot be compiled", allows + "# securefiles:ignore pattern: why\np, alice, /docs/[, read, deny\n", "error pattern"},
	} {
		tab, findings, err := Read(t.Context(), "policy.csv", strings.NewReader(tt.text), world.Model(t, "default"), Options{})
		var refused *finding.LoadError
		if errors.As(err, &refused) {
			findings = refused.Findings
		}
		if got := findings[0].Severity.String() + " " + findings[0].Rule; len(findings) != 1 || got != tt.want {
			t.Errorf("%s: %v", tt.name, findings)
		}
		if served := tab != nil; served != strings.HasPrefix(tt.want, "warning") {
			t.Errorf("%s: served: %t", tt.name, served)
		}
	}
}

// Warnings hide no error, however many there are.
func TestWarningsHideNoError(t *testing.T) {
	_, findings := load(t, world.Model(t, "default"), strings.Repeat("p, a, /, read, allow\n", 250)+"p, a, /, read, Deny\n")
	if n := len(findings); n != finding.MaxFindings+2 || findings[n-2].Rule != "effect" || findings[n-2].Line != 251 {
		t.Errorf("%d findings, the last %v", n, findings[n-2:])
	}
}

// Two names that one letter tells apart, wherever it stands, or two that have changed
// places.
func TestNamesThatDifferByOneLetter(t *testing.T) {
	for _, tt := range []struct {
		a, b string
		want bool
	}{
		{"", "", true}, {"abcd", "abcd", true}, {"", "a", true}, {"", "ab", false}, {"", "😀", true}, {"a", "b", true}, {"ab", "cd", false},
		{"abcd", "xbcd", true}, {"abcd", "abxd", true}, {"abcd", "abcx", true}, {"abcd", "xbcx", false}, {"abcd", "axxd", false},
		{"abcd", "xabcd", true}, {"abcd", "abxcd", true}, {"abcd", "abcdx", true}, {"abcd", "axbcxd", false}, {"abcd", "abcdxx", false}, {"abcd", "abxxcd", false},
		{"abcd", "bacd", true}, {"abcd", "acbd", true}, {"abcd", "abdc", true}, {"abcd", "cbad", false}, {"abcd", "dbca", false}, {"abc", "bca", false}, {"abcd", "badc", false},
		{"ab", "ca", false}, {"ab", "bc", false}, {"bac", "ab", false}, {"ab", "c", false}, {"aab", "aba", true}, {"aaa", "aa", true}, {"abab", "aba", true},
		{"abcd", "abc😀d", true}, {"abcd", "abc😀", true}, {"ab😀", "ab", true}, {"é", "e", true}, {"né", "én", true}, {"abcd", "efgh", false}, {"abcdefgh", "ab", false}, {"abcde", "", false},
	} {
		if got := OneEdit(tt.a, tt.b); got != tt.want {
			t.Errorf("%s and %s: %t", tt.a, tt.b, got)
		}
		if got := OneEdit(tt.b, tt.a); got != tt.want {
			t.Errorf("%s and %s: %t", tt.b, tt.a, got)
		}
	}
}

func TestNamesThatLookAlike(t *testing.T) {
	for name, want := range map[string]string{
		"alice": "alice", "Alice": "alice", "ALICE": "alice", "aliceZ": "alicez", "[a]": "[a]", "a{": "a{", "É": "é", "e\u0301": "é", "\uff21": "a", "\u007f": "\u007f",
	} {
		if got := Fold(name); got != want {
			t.Errorf("%q is %q", name, got)
		}
	}
	for name, want := range map[string]string{
		" a ": "a", "'a'": "a", `"A"`: "a", "a #b": "a", "a# b": "a# b", "a\t# b": "a", " 'a' # b": "a",
	} {
		if got := looks(name); got != want {
			t.Errorf("%q looks like %q", name, got)
		}
	}
}

// A role may be meant for one that takes something away: it is spelt nearly so, or
// leads to it.
func TestWhatARoleIsMeantFor(t *testing.T) {
	const deny = "p, alice, /a, read, allow\np, banned, /**, read, deny\np, hr, /**, read, deny\np, team7, /**, read, deny\np, boss, /**, read, deny\np, vip, /**, read, deny\n"
	for _, tt := range []struct{ role, lines, want string }{
		{"banned", "", "banned"}, {"Banned", "", "banned"}, {"baned", "", "banned"}, {"bnaned", "", "banned"}, {"bannned", "", "banned"}, {"band", "", ""}, {"editor", "", ""},
		{"HR", "", "hr"}, {"hrx", "", ""}, {"hrxx", "", ""}, {"h", "", ""}, {"team8", "", ""}, {"Team7", "", "team7"}, {"team", "", "team7"}, {"bosss", "", "boss"}, {"bos", "", ""}, {"vips", "", ""},
		{"x", "g, x, banned\n", "banned"}, {"x", "g, x, y\ng, y, banned\n", "banned"}, {"x", "g, x, y\ng, y, x\n", ""}, {"x", "g, x, y\ng, y, z\ng, x, hr\n", "hr"}, {"x", "g, y, banned\n", ""},
	} {
		m := world.Model(t, "default")
		tab, _, err := Read(t.Context(), "policy.csv", strings.NewReader(deny+tt.lines), m, Options{})
		if err != nil {
			t.Fatalf("%s: %v", tt.lines, err)
		}
		roles := map[Symbol][]Symbol{}
		for _, e := range tab.Edges["g"] {
			roles[e.Name] = append(roles[e.Name], e.Role)
		}
		if got := NewTaking(m, tab).meant(tab.Symbols.Intern(tt.role), roles); got != tt.want {
			t.Errorf("%s with %q is meant for %q, not %q", tt.role, tt.lines, got, tt.want)
		}
	}
}

// A search for names letter by letter ends when it has compared so many.
func TestLookingForLikeNamesIsBounded(t *testing.T) {
	m := world.Model(t, "default")
	tab, _, err := Read(t.Context(), "policy.csv", strings.NewReader("p, alice, /a, read, allow\np, aaaa, /**, read, deny\np, banned, /**, read, deny\n"), m, Options{})
	if err != nil {
		t.Fatal(err)
	}
	k := NewTaking(m, tab)
	if k.budget != likeBudget {
		t.Errorf("a budget of %d", k.budget)
	}
	if name, ok := k.Like(tab.Symbols.Intern("banned")); ok {
		t.Errorf("banned is like %q, which it is", tab.Symbols.Text(name))
	}
	k.budget = likeBudget
	baned := tab.Symbols.Intern("baned")
	for budget, want := range []bool{false, false, true} {
		k.budget = budget
		if _, ok := k.Like(baned); ok != want {
			t.Errorf("of %d comparisons: %t", budget, ok)
		}
	}
}

// Some subjects no source of identities may vouch for. A line that denies them
// something is refused; one that allows is told of.
func TestSubjectsThatNobodyCanBe(t *testing.T) {
	const more = "p, alice, /docs/**, read, allow\n"
	for _, tt := range []struct{ name, lines, want string }{
		{"a name of the service", "p, anonymous, /a, read, allow\np, @anyone, /a, read, allow\np, @authenticated, /a, read, allow\n", ""},
		{"a reserved group", "p, @, /a, read, allow\n", "warning subject-impossible"},
		{"a reserved group that is denied something", "p, @, /docs/a, read, deny\n", "error subject-impossible"},
		{"two lines of it", "p, @, /a, read, allow\np, @, /b, read, allow\n", "warning subject-impossible, warning subject-impossible"},
		{"a marked role", "p, role:x, /a, read, allow\ng, alice, role:x\n", ""},
		{"somebody who has a role", "p, editor, /a, read, allow\ng, @, editor\n", "warning subject-impossible"},
		{"somebody who has a role that is denied something", "p, editor, /docs/a, read, deny\ng, @, editor\n", "error subject-impossible"},
		{"somebody who has a role of such a role", "p, editor, /docs/a, read, deny\ng, writer, editor\ng, @, writer\n", "error subject-impossible"},
		{"somebody who has a role beside such a role", "p, editor, /docs/a, read, deny\np, writer, /a, read, allow\ng, bob, editor\ng, @, writer\n", "warning subject-impossible"},
		{"groups without their @", "p, anyone, /a, read, allow\np, authenticated, /a, read, allow\n", ""},
		{"a marked role that nobody has", "p, role:x, /a, read, allow\n", ""},
		{"a role may be called as it likes", "p, a\u200bb, /docs/a, read, deny\ng, bob, a\u200bb\n", ""},
	} {
		_, findings := load(t, world.Model(t, "default"), more+tt.lines)
		var got []string
		for _, f := range findings {
			got = append(got, f.Severity.String()+" "+f.Rule)
			if f.Column != 0 || f.Line < 2 {
				t.Errorf("%s: in line %d, column %d", tt.name, f.Line, f.Column)
			}
		}
		if got := strings.Join(got, ", "); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}

// Where the matcher asks for no roles, a g line makes none, and says nothing of
// subjects.
func TestSubjectsThatNobodyCanBeWithoutRoles(t *testing.T) {
	const more = "p, alice, /docs/*, read, allow\n"
	for lines, want := range map[string]string{
		"p, a\u200bb, /docs/a, read, allow\ng, bob, a\u200bb\n": "warning 3 role-unused, warning 2 subject-impossible",
		"p, bob, /docs/a, read, allow\ng, @, bob\n":             "warning 3 role-unused",
	} {
		_, findings := load(t, judgedModels(t, "unasked"), more+lines)
		var got []string
		for _, f := range findings {
			got = append(got, fmt.Sprintf("%s %d %s", f.Severity, f.Line, f.Rule))
		}
		slices.Sort(got)
		wanted := strings.Split(want, ", ")
		slices.Sort(wanted)
		if !slices.Equal(got, wanted) {
			t.Errorf("%q: %q, want %q", lines, got, wanted)
		}
	}
}

// A value that matches everybody is no subject.
func TestValuesThatMatchEverybodyAreNoSubjects(t *testing.T) {
	m, err := model.Parse("model.conf", judgedHead+"[role_definition]\ng = _, _\n[policy_effect]\ne = "+world.AllowAndDeny+"\n[matchers]\nm = (p.sub == \"@\" || g(r.sub, p.sub)) && keyMatch(r.obj, p.obj) && r.act == p.act\n")
	if err != nil {
		t.Fatal(err)
	}
	if _, findings := load(t, m, "p, @, /docs/*, read, allow\n"); len(findings) > 0 {
		t.Errorf("%v", findings)
	}
	if _, findings := load(t, m, "p, @@, /docs/*, read, allow\n"); len(findings) != 1 {
		t.Errorf("another value: %v", findings)
	}
}

// The effect may stand in any column, and a role may take something away without one.
func TestWhatTakesAwayInOtherModels(t *testing.T) {
	parse := func(definition, effect, matcher string) *model.Model {
		m, err := model.Parse("model.conf", "[request_definition]\nr = sub, obj, act\n[policy_definition]\np = "+definition+"\n[role_definition]\ng = _, _\n[policy_effect]\ne = "+effect+"\n[matchers]\nm = "+matcher+"\n")
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	first := parse("eft, sub, obj, act", world.AllowAndDeny, "g(r.sub, p.sub) && keyMatch(r.obj, p.obj) && r.act == p.act")
	unless := parse("sub, obj, act, unless", world.AllowOverride, "g(r.sub, p.sub) && !g(r.sub, p.unless) && keyMatch(r.obj, p.obj) && r.act == p.act")
	const editors = "p, allow, editor, /docs/*, read\n"
	for _, tt := range []struct {
		name  string
		model *model.Model
		text  string
		want  string
	}{
		{"a blank in a line that allows", first, "p, allow, alice , /docs/*, read\n", "warning blank"},
		{"a blank in a line that denies", first, editors + "p, deny, alice , /docs/*, read\n", "error blank"},
		{"a subject that nobody can be, in a line that denies", first, editors + "p, deny, @, /docs/*, read\n", "error subject-impossible"},
		{"a role that is denied things, misspelt", first, editors + "p, deny, banned, /docs/*, read\ng, bob, baned\n", "error role-unused"},
		{"a role that a line asks nobody to have, misspelt", unless, "p, alice, /docs/*, read, banned\ng, bob, baned\n", "error role-unused"},
		{"a role that a line asks nobody to have", unless, "p, alice, /docs/*, read, banned\ng, bob, banned\n", ""},
	} {
		_, findings := load(t, tt.model, tt.text)
		var got []string
		for _, f := range findings {
			got = append(got, f.Severity.String()+" "+f.Rule)
		}
		if got := strings.Join(got, ", "); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}

// What is said of a role names the one that it may be meant for.
func TestMessagesAboutRolesNameTheOneThatTakesAway(t *testing.T) {
	for _, tt := range []struct{ model, text, want string }{
		{"default", "p, alice, /docs/**, read, allow\np, banned, /**, read, deny\ng, bob, baned\n", `or is it meant for "banned", which takes access away?`},
		{"default", "p, alice, /docs/**, read, allow\ng, bob, chief\n", "the wrong way round?"},
		{"default", "p, alice, /docs/**, read, allow\np, banned, /**, read, deny\ng, bob, \"banned \"\n", "remove it"},
		{"unasked", "p, alice, /docs/*, read, allow\np, banned, /docs/*, read, deny\ng, alice, banned\n", `remove them; "banned" takes access away`},
		{"unasked", "p, alice, /docs/*, read, allow\ng, alice, editor\n", "or remove them"},
	} {
		_, findings := load(t, judgedModels(t, tt.model), tt.text)
		if len(findings) != 1 || !strings.HasSuffix(findings[0].Message, tt.want) {
			t.Errorf("%s: %v, which does not end in %s", tt.text, findings, tt.want)
		}
	}
}
