package model_test

import (
	"fmt"
	"strings"
	"testing"

	"securefiles/policy/internal/model"
	"securefiles/policy/internal/world"
)

// narrowModel is a model with a matcher, whose columns are sub, obj, act, eft and rule.
func narrowModel(t *testing.T, matcher string) *model.Model {
	t.Helper()
	shape := world.Shape{Request: []string{"sub", "obj", "act", "ip"}, Policy: []string{"sub", "obj", "act", "eft", "rule"}, Roles: []string{"g = _, _", "g2 = _, _"}, Effect: world.AllowAndDeny}
	m, err := model.Parse("model.conf", shape.Model(matcher))
	if err != nil {
		t.Fatalf("%s: %v", matcher, err)
	}
	return m
}

// A line about nobody and nothing only locks out where the matcher asks for more by
// asking for the column: an error of its author's lets nobody in.
func TestColumnsThatOnlyNarrow(t *testing.T) {
	for _, tt := range []struct {
		matcher      string
		column       int
		named, empty bool // it is a text that nobody is called; it is empty
	}{
		{"r.sub == p.sub", 0, true, true},
		{"r.sub == p.sub", 1, true, true}, // nobody asks
		{"r.ip == p.sub && r.obj == p.obj", 0, true, false},
		{"r.ip == p.sub && r.obj == p.obj", 1, true, true},
		{`p.sub == "x"`, 0, true, true},
		{`p.sub == ""`, 0, true, false},
		{`p.sub == "" && r.obj == p.obj`, 1, true, true},
		{"r.sub != p.sub", 0, false, false},
		{"r.sub != p.sub && r.obj == p.obj", 1, true, true},
		{"!(r.sub == p.sub)", 0, false, false},
		{"!(r.act == p.act || !(r.sub == p.sub))", 0, true, true},
		{"!(r.act == p.act || !(r.sub == p.sub))", 2, false, false},
		{"!(r.act == p.act) && r.sub == p.sub", 0, true, true},
		{"!(r.act == p.act) && r.sub == p.sub", 2, false, false},
		{"g(r.sub, p.sub) || r.obj == p.obj", 0, true, true},
		{"globMatch(r.obj, p.obj)", 1, true, true},
		{"regexMatch(r.obj, p.obj)", 1, true, false},
		{"r.obj =~ p.obj", 1, true, false},
		{"r.sub == p.sub && eval(p.rule)", 0, false, false},
		{"r.sub == p.sub && eval(p.rule)", 1, false, false},
	} {
		m := narrowModel(t, tt.matcher)
		if named, empty := m.OnlyNarrows(tt.column, false), m.OnlyNarrows(tt.column, true); named != tt.named || empty != tt.empty {
			t.Errorf("%s, column %d: %t, and %t where it is empty", tt.matcher, tt.column, named, empty)
		}
	}
}

// Which roles a matcher asks for, and which of them may take something from whoever
// has them.
func TestWhichRolesAMatcherAsksFor(t *testing.T) {
	for matcher, want := range map[string]string{
		"r.sub == p.sub":                                    "g: false true, columns: 0, texts: ",
		"g(r.sub, p.sub)":                                   "g: true true, columns: 0 0, texts: ",
		"r.obj == p.obj && g(r.sub, p.act)":                 "g: true true, columns: 0 2 2, texts: ",
		`g(r.sub, "staff") && r.obj == p.obj`:               "g: true true, columns: 0, texts: ",
		`!g(r.sub, "staff") && r.obj == p.obj`:              "g: true true, columns: 0, texts: staff",
		`!(!g(r.sub, "staff")) && r.obj == p.obj`:           "g: true true, columns: 0, texts: ",
		"!g(r.sub, p.act) && r.obj == p.obj":                "g: true true, columns: 0 2 2!, texts: ",
		"(r.act == p.act ? g(r.sub, p.obj) : false)":        "g: true true, columns: 0 1 1!, texts: ",
		"g(p.act, r.act)":                                   "g: true false, columns: 0, texts: ",
		`g(r.sub, "team-" + p.sub)`:                         "g: true false, columns: 0, texts: ",
		"g(p.act, r.act) && g(r.sub, p.sub)":                "g: true false, columns: 0 0, texts: ",
		"g(r.sub, p.sub) && g(p.act, r.act)":                "g: true false, columns: 0 0, texts: ",
		`g2(p.obj, r.obj) && g(r.sub, p.sub)`:               "g: true true, columns: 0 0, texts: ",
		`!(g(r.sub, "a") || g(r.sub, "b")) && p.sub != "x"`: "g: true true, columns: 0, texts: a b",
	} {
		m := narrowModel(t, matcher)
		asked, named := m.RolesAsked("g")
		if other, _ := m.RolesAsked("g3"); other {
			t.Errorf("%s asks for roles of a kind that it does not name", matcher)
		}
		var columns []string
		for _, c := range m.RoleColumns() {
			columns = append(columns, fmt.Sprint(c.Column)+map[bool]string{true: "!"}[c.MayTake])
		}
		got := fmt.Sprintf("g: %t %t, columns: %s, texts: %s", asked, named, strings.Join(columns, " "), strings.Join(m.TakingRoles(), " "))
		if got != want {
			t.Errorf("%s\n got %s\nwant %s", matcher, got, want)
		}
	}
}

// A line may leave out the columns at its end in which nothing but one timeMatch looks.
func TestColumnsThatALineMayLeaveOut(t *testing.T) {
	for _, tt := range []struct {
		definition, matcher string
		want                int
	}{
		{"sub, obj, act, from, until", "r.sub == p.sub && timeMatch(p.from, p.until)", 2},
		{"sub, obj, act, until, from", "r.sub == p.sub && timeMatch(p.from, p.until)", 2},
		{"sub, obj, act, until", `r.sub == p.sub && timeMatch("_", p.until)`, 1},
		{"sub, obj, act, from", `r.sub == p.sub && timeMatch(p.from, "_")`, 1},
		{"sub, until, obj, act", `r.sub == p.sub && timeMatch("_", p.until)`, 0},
		{"sub, from, until, act", "r.sub == p.sub && timeMatch(p.from, p.until)", 0},
		{"sub, obj, from, until", `r.sub == p.sub && timeMatch(p.from, p.until) && p.until != "x"`, 0},
		{"sub, obj, act, eft", "r.sub == p.sub", 0},
	} {
		m, err := model.Parse("model.conf", "[request_definition]\nr = sub, obj, act\n[policy_definition]\np = "+tt.definition+"\n[policy_effect]\ne = "+world.AllowOverride+"\n[matchers]\nm = "+tt.matcher+"\n")
		if err != nil {
			t.Errorf("%s: %v", tt.definition, err)
			continue
		}
		if m.Optional != tt.want {
			t.Errorf("p = %s with %s: %d", tt.definition, tt.matcher, m.Optional)
		}
	}
}
