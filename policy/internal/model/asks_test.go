package model_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"securefiles/policy/internal/model"
	"securefiles/policy/internal/world"
)

func askModel(t *testing.T, matcher string) *model.Model {
	t.Helper()
	m, err := model.Parse("model.conf", "[request_definition]\nr = sub, obj, act, dom, ip\n[policy_definition]\np = sub, obj, act, rule, eft\n"+
		"[role_definition]\ng = _, _\ng2 = _, _\ng3 = _, _, _\n[policy_effect]\ne = "+world.AllowAndDeny+"\n[matchers]\n"+
		`m = `+matcher+` || r.act == "never" && g(r.obj, p.obj) && g2(r.obj, p.obj) && g3(r.obj, p.obj, r.dom)`+"\n")
	if err != nil {
		t.Fatalf("%s: %v", matcher, err)
	}
	return m
}

// However a matcher writes it, it asks the same of the subject.
func TestWhomAMatcherAsksAbout(t *testing.T) {
	for _, tt := range []struct {
		matcher string
		roles   string // of the subject, by kind and column
		columns string
		texts   string
		listed  bool
	}{
		{"g(r.sub, p.sub)", "g0", "0", "", true},
		{"g (r.sub, p.sub)", "g0", "0", "", true},
		{"g((r.sub), ((p.sub)))", "g0", "0", "", true},
		{"!(g(r.sub, p.sub))", "g0", "0", "", true},
		{"(r.act == \"x\" ? g2(r.sub, p.obj) : false)", "g21", "0 1", "", true},
		{"g3(r.sub, p.sub, r.dom)", "g30", "0", "", true},
		{"g3(r.sub, p.sub, (p.obj))", "g30", "0", "", true},
		{`g3(r.sub, p.sub, "x")`, "g30", "0", "", true},
		{"g3(r.sub, p.sub, r.sub)", "g30", "0", "", false},
		{"g3(r.sub, p.sub, p.obj + p.act)", "", "0", "", false},
		{`g(r.sub + "", p.sub)`, "", "0", "", false},
		{`g(r.sub, p.sub + "x")`, "", "0", "", false},
		{"g(p.sub, r.sub)", "", "0", "", false},
		{`g(r.sub, "staff")`, "", "0", "staff", true},
		{`g(r.sub, ("staff"))`, "", "0", "staff", true},
		{"r.sub == p.sub", "", "0", "", true},
		{"(p.obj) != (r.sub)", "", "0 1", "", true},
		{`"root" == r.sub`, "", "0", "root", true},
		{`r.sub == p.sub + "x"`, "", "0", "", false},
		{"(r.sub == p.obj ? true : false)", "", "0 1", "", true},
		{`(r.act == "x" ? r.sub == p.obj : false)`, "", "0 1", "", true},
		{`(r.act == "x" ? false : p.obj == r.sub)`, "", "0 1", "", true},
		{"(r.sub == p.obj == true)", "", "0 1", "", true},
		{"(true == p.obj == r.sub)", "", "0 1", "", true},
		{`(r.sub == "root") == (r.act == p.act)`, "", "0", "root", true},
		{`!r.sub == "root"`, "", "0", "", false},
		{"keyMatch(r.sub, p.sub)", "", "0", "", false},
		{`r.sub in ("a", "b")`, "", "0", "", false},
		{"r.sub == r.obj", "", "0", "", false},
		{"r.sub == p.sub && keyMatch(r.obj, p.obj)", "", "0", "", true},
		{"r.sub == p.sub && keyMatch(r.sub, p.obj)", "", "0", "", false},
		{"r.obj == p.obj", "", "0", "", true},
		{"eval(p.rule)", "", "0", "", false},
	} {
		if strings.HasPrefix(tt.matcher, "!r.sub") { // it fails for whoever asks
			continue
		}
		m := askModel(t, tt.matcher)
		var roles, columns []string
		for _, c := range m.SubjectRoles() {
			roles = append(roles, fmt.Sprint(c.Kind, c.Role.Column))
		}
		for _, c := range m.SubjectColumns() {
			columns = append(columns, fmt.Sprint(c))
		}
		got := []string{strings.Join(roles, " "), strings.Join(columns, " "), strings.Join(m.SubjectTexts(), " "), fmt.Sprint(m.NamesUnlisted() == "")}
		if want := []string{tt.roles, tt.columns, tt.texts, fmt.Sprint(tt.listed)}; !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", tt.matcher, got, want)
		}
	}
}

// In which direction a role goes: the subject has what the line names, or what
// the line names has what is asked for.
func TestInWhichDirectionARoleGoes(t *testing.T) {
	for matcher, want := range map[string]string{
		"g(r.sub, p.sub)":                              "r.sub has p.sub",
		"g((p.act), r.act)":                            "p.act has r.act",
		`!g2(r.obj, "secret")`:                         `r.obj has "secret"`,
		`g3(r.sub, p.sub, keyGet2(r.obj, p.obj, "x"))`: `r.sub has p.sub in keyGet2(r.obj, p.obj, "x")`,
		"g3(r.sub, p.sub + r.act, r.dom)":              "r.sub has p.sub + r.act in r.dom",
		"(g(r.sub, p.sub) ? r.sub : r.act) == p.sub":   "r.sub has p.sub",
	} {
		c := func() model.RoleCall {
			m := askModel(t, matcher)
			return m.RoleCalls(&m.Root.Part)[0]
		}()
		got := strings.Trim(c.Name.Source, "()") + " has " + c.Role.Source
		if c.Domain != nil {
			got += " in " + c.Domain.Source
		}
		if got != want {
			t.Errorf("%s: %s, want %s", matcher, got, want)
		}
	}
}

// Which alternative looks at the line at all.
func TestAlternativesThatLookAtTheLine(t *testing.T) {
	for matcher, want := range map[string]string{
		`r.sub == "root" || r.sub == p.sub`:           "false true true",
		`(r.sub == "root" || r.sub == p.sub)`:         "false true true",
		`eval(p.rule) || g(r.sub, "x")`:               "true false true",
		`r.sub == "root" && (r.act == p.act || true)`: "true true",
		`eval(p.rule) || p.act == "x"`:                "true true true",
		`r.sub == "root" || r.act == "x"`:             "false false true",
	} {
		var looks []string
		for _, alternative := range askModel(t, matcher).Alternatives() {
			looks = append(looks, fmt.Sprint(alternative.LooksAtLine()))
		}
		if got := strings.Join(looks, " "); got != want {
			t.Errorf("%s: %s, want %s", matcher, got, want)
		}
	}
}

// What stands before a function keeps values away from it.
func TestWhatIsKeptFromAPatternFunction(t *testing.T) {
	for matcher, want := range map[string]string{
		"regexMatch(r.act, p.act)":                                         "regexMatch 2: ",
		`p.act == "*" || regexMatch(r.act, p.act)`:                         "regexMatch 2: *",
		`(("*") == (p.act) || p.act == "any" || r.act =~ p.act)`:           "regexMatch 2: * any",
		`p.act != "*" && regexMatch(r.act, p.act)`:                         "regexMatch 2: *",
		`!(p.act == "*") && regexMatch(r.act, p.act)`:                      "regexMatch 2: *",
		`r.sub == p.sub && (p.act == "*" || regexMatch(r.act, p.act))`:     "regexMatch 2: *",
		`!(p.act == "*" || regexMatch(r.act, p.act))`:                      "regexMatch 2: *",
		`regexMatch(r.act, p.act) || p.act == "*"`:                         "regexMatch 2: ",
		`p.act == "*" && regexMatch(r.act, p.act)`:                         "regexMatch 2: any x",
		`p.act != "*" || regexMatch(r.act, p.act)`:                         "regexMatch 2: any x",
		`p.act in ("*", "any") || regexMatch(r.act, p.act)`:                "regexMatch 2: * any",
		`p.obj == "regex" && regexMatch(r.act, p.act)`:                     "regexMatch 2: * any x",
		`p.obj == "other" && regexMatch(r.act, p.act)`:                     "regexMatch 2: ",
		`r.act == "x" && regexMatch(r.act, p.act)`:                         "regexMatch 2: ",
		`r.act == p.act || regexMatch(r.act, p.act)`:                       "regexMatch 2: ",
		`(r.act == p.act && p.act == "x") || regexMatch(r.act, p.act)`:     "regexMatch 2: ",
		`(r.sub == p.sub || p.act == "x") || regexMatch(r.act, p.act)`:     "regexMatch 2: x",
		`(p.act == "x" && p.obj == "other") || regexMatch(r.act, p.act)`:   "regexMatch 2: x",
		`(p.act == "x" && p.obj == "glob") || regexMatch(r.act, p.act)`:    "regexMatch 2: ",
		`(p.act == "*" ? true : r.act == "x") || regexMatch(r.act, p.act)`: "regexMatch 2: ",
		`p.obj == "*" || regexMatch(r.act, p.act)`:                         "regexMatch 2: ",
		`(p.act == "*" ? true : regexMatch(r.act, p.act))`:                 "regexMatch 2: ",
		`p.act == "*" || ipMatch(r.ip, p.obj) && globMatch(r.obj, p.obj)`:  "ipMatch 1:  / globMatch 1: ",
		`globMatch(r.obj, p.obj + "/**")`:                                  "",
		`(regexMatch(r.act, p.act) && p.act == "x") && r.sub == p.sub`:     "regexMatch 2: ",
		`keyMatch(p.act, "x*") || regexMatch(r.act, p.act)`:                "regexMatch 2: ",
		`p.sub == "x" || regexMatch(r.act, p.sub)`:                         "regexMatch 0: x",
	} {
		var got []string
		for _, c := range askModel(t, matcher).Patterns() {
			var kept []string
			for _, value := range []string{"*", "any", "x"} {
				line := func(column int) string { return map[bool]string{true: value, false: "other"}[column == c.Column] }
				if !c.Reached(line) {
					kept = append(kept, value)
				}
			}
			got = append(got, fmt.Sprintf("%s %d: %s", c.Function, c.Column, strings.Join(kept, " ")))
		}
		if got := strings.Join(got, " / "); got != want {
			t.Errorf("%s: %q, want %q", matcher, got, want)
		}
	}
}

// A rule that cannot be compiled asks nothing that is known.
func TestRulesThatCannotBeRead(t *testing.T) {
	m := askModel(t, "eval(p.rule)")
	for rule, ok := range map[string]bool{"r.sub == 'alice'": true, "r.sub ==": false, "(r.sub == 'a'": false, "unknown(r.sub)": false, "": false} {
		if _, err := model.ParseSubrule(m, rule); (err == nil) != ok {
			t.Errorf("%q: %v", rule, err)
		}
	}
}

// What is asked twice counts once.
func TestColumnsOfAPart(t *testing.T) {
	root := askModel(t, "p.sub == r.sub && p.act == r.act && g(r.act, p.sub)").Root
	if !slices.Equal(root.Columns, []int{0, 2, 1}) {
		t.Errorf("columns %v", root.Columns)
	}
}

// Casbin finds no eval that is written in another way than eval(p.rule), and
// what is no field of p could come from the client.
func TestEvalTakesOneField(t *testing.T) {
	for matcher, ok := range map[string]bool{
		"eval(p.rule)":                  true,
		"eval( p.rule )":                false,
		"eval (p.rule)":                 false,
		"eval((p.rule))":                false,
		"eval(r.sub)":                   false,
		`eval("true")`:                  false,
		"eval(p.rule + p.sub)":          false,
		"eval(p.rule) && eval (p.rule)": false,
		"eval(p.rule) && eval(p.obj)":   true,
	} {
		text := strings.Replace(model.Default, "m = g(r.sub, p.sub)", "m = g(r.sub, p.sub) && "+matcher, 1)
		text = strings.Replace(text, "p = sub, obj, act, eft", "p = sub, obj, act, eft, rule", 1)
		if _, err := model.Parse("model.conf", text); (err == nil) != ok {
			t.Errorf("%s: %v", matcher, err)
		}
	}
}

// A part asks what any piece of it does, wherever that stands.
func TestWhatAPartAsks(t *testing.T) {
	for matcher, want := range map[string]string{
		"eval(p.rule) && r.sub == p.sub":           "true false sub act obj dom",
		"r.sub == p.sub && eval(p.rule)":           "true false sub act obj dom",
		"ipMatch(r.ip, p.obj) && r.sub == p.sub":   "false true ip sub act obj dom",
		"r.sub == p.sub && ipMatch(r.ip, p.obj)":   "false true sub ip act obj dom",
		`r.sub == p.sub && p.act != "ipMatch"`:     "false false sub act obj dom",
		`r.sub == p.sub && r.sub != "r_ip"`:        "false false sub act obj dom",
		"r.act == p.act && keyMatch(r.act, p.act)": "false false act obj dom",
	} {
		root := askModel(t, matcher).Root
		if got := fmt.Sprint(root.Evaluates, root.Address, " "+strings.Join(root.Requests, " ")); strings.ReplaceAll(got, "  ", " ") != want {
			t.Errorf("%s asks %s, not %s", matcher, got, want)
		}
	}
}
