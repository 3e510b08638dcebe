package model_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"securefiles/policy/internal/model"
	"securefiles/policy/internal/pattern"
	"securefiles/policy/internal/world"
)

// outline writes a term with its atoms in brackets, each with its kind.
func outline(c *model.Term) string {
	if c.Op == model.Leaf {
		kind := []string{"opaque", "request", "equal", "constant", "role", "pattern", "period"}[c.Atom.Kind]
		return fmt.Sprintf("[%s: %s]", kind, c.Atom.Source)
	}
	var kids []string
	for _, kid := range c.Kids {
		kids = append(kids, outline(kid))
	}
	switch c.Op {
	case model.Not:
		return "!" + kids[0]
	case model.Or:
		return "(" + strings.Join(kids, " || ") + ")"
	default:
		return "(" + strings.Join(kids, " && ") + ")"
	}
}

func TestMatchersAreTakenApart(t *testing.T) {
	s := world.Shape{
		Request: []string{"sub", "dom", "obj", "act"}, Policy: []string{"sub", "dom", "obj", "act", "eft"},
		Roles: []string{"g = _, _, _", "g2 = _, _"}, Effect: world.AllowAndDeny,
	}
	for _, tt := range []struct{ matcher, want string }{
		{"r.sub == p.sub", "[equal: r.sub == p.sub]"},
		{"p.sub == r.sub", "[equal: p.sub == r.sub]"},
		{`p.act == "*"`, `[constant: p.act == "*"]`},
		{`"*" == p.act`, `[constant: "*" == p.act]`},
		{`r.sub == "root"`, `[request: r.sub == "root"]`},
		{"g(r.sub, p.sub, r.dom)", "[role: g(r.sub, p.sub, r.dom)]"},
		{"g(r.sub, p.sub, p.dom)", "[role: g(r.sub, p.sub, p.dom)]"},
		{`g(r.sub, p.sub, "x")`, `[opaque: g(r.sub, p.sub, "x")]`},
		{`g(p.sub, r.sub, r.dom)`, `[opaque: g(p.sub, r.sub, r.dom)]`},
		{`g(r.sub, "staff", r.dom)`, `[request: g(r.sub, "staff", r.dom)]`},
		{"g2(r.obj, p.obj) && g(r.sub, p.sub, r.dom)", "([role: g2(r.obj, p.obj)] && [role: g(r.sub, p.sub, r.dom)])"},
		{"keyMatch2(r.obj, p.obj)", "[pattern: keyMatch2(r.obj, p.obj)]"},
		{"r.obj =~ p.obj", "[pattern: r.obj =~ p.obj]"},
		{"r.obj !~ p.obj", "[opaque: r.obj !~ p.obj]"},
		{"r.sub == p.sub ? r.act == p.act : false", "[opaque: r.sub == p.sub ? r.act == p.act : false]"},
		{`r.act == "x && ?y" && r.sub == p.sub`, `([request: r.act == "x && ?y"] && [equal: r.sub == p.sub])`},
		{`(r.act == ")") && (r.sub == p.sub)`, `([request: r.act == ")"] && [equal: r.sub == p.sub])`},
		{`keyMatch2(r.obj + "", p.obj)`, `[opaque: keyMatch2(r.obj + "", p.obj)]`},
		{`r.obj == p.obj && (r.act == p.act || p.act == "*")`, `([equal: r.obj == p.obj] && ([equal: r.act == p.act] || [constant: p.act == "*"]))`},
		{"r.obj == p.obj && r.act == p.act || r.sub == p.sub", "(([equal: r.obj == p.obj] && [equal: r.act == p.act]) || [equal: r.sub == p.sub])"},
		{"!(r.obj == p.obj && r.act == p.act)", "!([equal: r.obj == p.obj] && [equal: r.act == p.act])"},
		{"!g(r.obj, p.obj, r.dom)", "![role: g(r.obj, p.obj, r.dom)]"},
		{"!g(r.obj, p.obj, r.dom) == true", "[opaque: !g(r.obj, p.obj, r.dom) == true]"},
		{"((r.sub == p.sub))", "[equal: r.sub == p.sub]"},
		{"(r.sub == p.sub) == (r.act == p.act)", "[opaque: (r.sub == p.sub) == (r.act == p.act)]"},
		{`p.act in ("read", "list")`, `[opaque: p.act in ("read", "list")]`},
		{`r.act in ("read", "list") && r.sub == p.sub`, `([request: r.act in ("read", "list")] && [equal: r.sub == p.sub])`},
		{"r.sub == p.sub ? true : r.act == p.act || false", "[opaque: r.sub == p.sub ? true : r.act == p.act || false]"},
		{"r.sub == p.sub && true", "([equal: r.sub == p.sub] && [request: true])"},
		{"p.sub == p.obj", "[opaque: p.sub == p.obj]"},
		{`r.act == "p_sub" || r.sub == p.sub`, `([request: r.act == "p_sub"] || [equal: r.sub == p.sub])`},
		{`p.act == "r_sub"`, `[constant: p.act == "r_sub"]`},
		{`r.act == "&&" && r.sub == p.sub`, `([request: r.act == "&&"] && [equal: r.sub == p.sub])`},
		{`r.act == "||" || r.sub == p.sub`, `([request: r.act == "||"] || [equal: r.sub == p.sub])`},
		{`"==" == p.act`, `[constant: "==" == p.act]`},
		{`"=~" != p.act`, `[opaque: "=~" != p.act]`},
		{"timeMatch(p.sub, p.obj)", "[period: timeMatch(p.sub, p.obj)]"},
		{"!true || r.sub == p.sub", "(![request: true] || [equal: r.sub == p.sub])"},
		{"keyMatch(p.obj, p.act)", "[opaque: keyMatch(p.obj, p.act)]"},
		{`keyMatch("/x", p.obj)`, `[opaque: keyMatch("/x", p.obj)]`},
		{`"x" =~ p.act`, `[opaque: "x" =~ p.act]`},
		{`p.act != "*"`, `[opaque: p.act != "*"]`},
		{"r.act != p.act", "[opaque: r.act != p.act]"},
		{"r.act == r.sub", "[request: r.act == r.sub]"},
		{"keyMatch((r.obj), ((p.obj)))", "[pattern: keyMatch((r.obj), ((p.obj)))]"},
		{"(r.sub) == ((p.sub))", "[equal: (r.sub) == ((p.sub))]"},
		{`("*") == (p.act)`, `[constant: ("*") == (p.act)]`},
		{"g((r.sub), (p.sub), (r.dom))", "[role: g((r.sub), (p.sub), (r.dom))]"},
		{"g(r.sub, p.sub, r.dom) == true", "[opaque: g(r.sub, p.sub, r.dom) == true]"},
		{"g(r.sub, p.sub, p.dom + r.dom)", "[opaque: g(r.sub, p.sub, p.dom + r.dom)]"},
		{"g(r.sub, p.sub + p.obj, r.dom)", "[opaque: g(r.sub, p.sub + p.obj, r.dom)]"},
		{"r.sub == p.sub + p.obj", "[opaque: r.sub == p.sub + p.obj]"},
		{"r.sub + r.act == p.sub", "[opaque: r.sub + r.act == p.sub]"},
		{"p.sub + p.obj == r.sub", "[opaque: p.sub + p.obj == r.sub]"},
		{`r.sub == (r.act == "x" ? p.sub : p.obj)`, `[opaque: r.sub == (r.act == "x" ? p.sub : p.obj)]`},
		{"r.sub == p.sub == true", "[opaque: r.sub == p.sub == true]"},
		{"(r.sub == p.sub || r.act == p.act) == true", "[opaque: (r.sub == p.sub || r.act == p.act) == true]"},
		{"!(r.sub == p.sub) && r.act == p.act", "(![equal: r.sub == p.sub] && [equal: r.act == p.act])"},
		{"!((r.sub == p.sub))", "![equal: r.sub == p.sub]"},
		{"!(r.sub == p.sub) == (r.act == p.act)", "[opaque: !(r.sub == p.sub) == (r.act == p.act)]"},
		{"!(g(r.sub, p.sub, r.dom) && r.act == p.act)", "!([role: g(r.sub, p.sub, r.dom)] && [equal: r.act == p.act])"},
		{"(r.sub == p.sub) && (r.act == p.act)", "([equal: r.sub == p.sub] && [equal: r.act == p.act])"},
		{"((r.sub == p.sub) || (r.act == p.act))", "([equal: r.sub == p.sub] || [equal: r.act == p.act])"},
		{"r.sub == p.sub || r.obj == p.obj || r.act == p.act", "([equal: r.sub == p.sub] || [equal: r.obj == p.obj] || [equal: r.act == p.act])"},
		{"r.sub == p.sub && r.obj == p.obj && r.act == p.act", "([equal: r.sub == p.sub] && [equal: r.obj == p.obj] && [equal: r.act == p.act])"},
		{"(r.sub == p.sub ? true : false) || r.act == p.act", "([opaque: r.sub == p.sub ? true : false] || [equal: r.act == p.act])"},
		{`(r.sub == p.sub || p.act in ("a", "b")) && r.act == p.act`, `(([equal: r.sub == p.sub] || [opaque: p.act in ("a", "b")]) && [equal: r.act == p.act])`},
	} {
		// The roles that this matcher does not ask are left out.
		def, err := model.Parse("model.conf", s.Model(tt.matcher))
		if err != nil {
			t.Errorf("%s: %v", tt.matcher, err)
			continue
		}
		if got := outline(def.Root); got != tt.want {
			t.Errorf("%s\n got %s\nwant %s", tt.matcher, got, tt.want)
		}
		if !slices.IsSortedFunc(def.Atoms, func(a, b *model.Atom) int { return a.Number - b.Number }) {
			t.Errorf("%s: the atoms are out of order", tt.matcher)
		}
	}
}

// The operands of an atom are known where it is one call or one comparison for
// equality or by a pattern, with nothing in an operand that could decide.
func TestOfWhichAtomsTheOperandsAreKnown(t *testing.T) {
	s := world.Shape{Request: []string{"sub", "obj", "act"}, Policy: []string{"sub", "obj", "act"}, Roles: []string{"g = _, _"}, Effect: world.AllowOverride}
	for matcher, want := range map[string]string{
		"r.sub == p.sub": "== r.sub, p.sub", "(r.sub) != (p.sub)": "!= (r.sub), (p.sub)", "r.obj !~ p.obj": "!~ r.obj, p.obj", "g(r.sub, p.sub)": "g r.sub, p.sub",
		"keyMatch(r.obj, p.obj + \"*\")":                                `keyMatch r.obj, p.obj + "*"`,
		"r.sub > p.sub":                                                 "",
		`p.sub in ("a", "b")`:                                           "",
		`keyMatch((r.obj + "x"), p.obj)`:                                "",
		`keyMatch(r.obj, (p.obj + "x"))`:                                "",
		`(r.obj + "x") == p.obj`:                                        "",
		`keyMatch(r.obj, p.act == "x" ? p.obj : "y")`:                   "",
		`keyMatch(r.obj, p.obj) == true`:                                "",
		"r.sub == p.sub == true":                                        "",
		`keyMatch(r.obj, p.act == "x" ? p.obj : "y") == (r.act == "x")`: "",
	} {
		m, err := model.Parse("model.conf", s.Model(matcher))
		if err != nil {
			t.Errorf("%s: %v", matcher, err)
			continue
		}
		a := m.Root.Atom
		var operands []string
		for _, o := range a.Operands {
			operands = append(operands, o.Source)
		}
		if got := strings.TrimSpace(a.Function + " " + strings.Join(operands, ", ")); got != want {
			t.Errorf("%s: %q, not %q", matcher, got, want)
		}
	}
}

// The domain of a role may stand first.
func TestRolesOfADomainThatStandsFirst(t *testing.T) {
	s := world.Shape{Request: []string{"dom", "sub", "obj", "act"}, Policy: []string{"dom", "sub", "obj", "act"}, Roles: []string{"g = _, _, _"}, Effect: world.AllowOverride}
	for matcher, ofRequest := range map[string]bool{"g(r.sub, p.sub, r.dom)": true, "g(r.sub, p.sub, p.dom)": false} {
		m, err := model.Parse("model.conf", s.Model(matcher))
		if err != nil {
			t.Fatal(err)
		}
		if a := m.Root.Atom; a.Kind != model.Role || (a.Domain == model.DomainRequest) != ofRequest || (a.Domain == model.DomainPolicy) == ofRequest || a.DomainField != 0 {
			t.Errorf("%s: %+v", matcher, a)
		}
	}
}

// What a part may be as far as its texts stand in it, and that of a pattern.
func TestTextsInAPart(t *testing.T) {
	s := world.Shape{Request: []string{"sub", "obj", "act"}, Policy: []string{"sub", "obj", "act"}, Roles: []string{"g = _, _"}, Effect: world.AllowOverride}
	for matcher, want := range map[string]string{
		`r.sub == "a" && r.act == p.act`:                               `a`,
		`r.sub == ("a" + "b") && r.act == p.act`:                       `ab`,
		`r.sub == ("a" =~ "b+(" + "c)" ? "x" : "y") && r.act == p.act`: ``,
		`r.sub == ("a" =~ "b+" ? "x" : "y") && r.act == p.act`:         `y`,
		`r.sub == ("b" =~ "b+" ? "x" : "y") && r.act == p.act`:         `x`,
		`r.sub == (r.act == "x" ? "a" : "b") && r.act == p.act`:        `x, a, b`,
		`r.sub == p.sub && r.act == p.act`:                             ``,
	} {
		m, err := model.Parse("model.conf", s.Model(matcher))
		if err != nil {
			if want != "" {
				t.Errorf("%s: %v", matcher, err)
			}
			continue
		}
		if got := strings.Join(m.Root.Calls[0].Operands[1].Texts, ", "); got != want {
			t.Errorf("%s: %q, not %q", matcher, got, want)
		}
	}
	m, err := model.Parse("model.conf", s.Model(`r.obj =~ "^/a+" && r.sub == p.sub`))
	if err != nil {
		t.Fatal(err)
	}
	if o := m.Root.Calls[0].Operands[1]; o.Text != "^/a+" || o.IsText || o.Column != -1 {
		t.Errorf("a pattern: %+v", o)
	}
}

// The operands of a comparison end where a comma does.
func TestComparisonsInAList(t *testing.T) {
	s := world.Shape{Request: []string{"sub", "obj", "act"}, Policy: []string{"sub", "obj", "act"}, Roles: []string{"g = _, _"}, Effect: world.AllowOverride}
	m, err := model.Parse("model.conf", s.Model(`r.sub == p.sub && (r.act == p.act) in ("x", r.obj == p.obj, "y")`))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, c := range m.Root.Calls {
		if c.Function == "==" {
			got = append(got, c.Operands[0].Source+" == "+c.Operands[1].Source)
		}
	}
	if want := []string{"r.sub == p.sub", "r.act == p.act", "r.obj == p.obj"}; !slices.Equal(got, want) {
		t.Errorf("%q, not %q", got, want)
	}
}

func TestConjunctions(t *testing.T) {
	s := world.Shape{Request: []string{"sub", "obj", "act"}, Policy: []string{"sub", "obj", "act", "eft"}, Effect: world.AllowAndDeny}
	for _, tt := range []struct {
		matcher string
		want    []string // "" where there are too many
	}{
		{"r.sub == p.sub && r.obj == p.obj", []string{"r.sub == p.sub && r.obj == p.obj"}},
		{"(r.sub == p.sub || r.obj == p.obj) && r.act == p.act", []string{"r.sub == p.sub && r.act == p.act", "r.obj == p.obj && r.act == p.act"}},
		{"!(r.sub == p.sub || r.obj == p.obj)", []string{"!(r.sub == p.sub) && !(r.obj == p.obj)"}},
		{"!(r.sub == p.sub && !(r.obj == p.obj))", []string{"!(r.sub == p.sub)", "r.obj == p.obj"}},
		{strings.Repeat("(r.sub == p.sub || r.obj == p.obj) && ", 6) + "r.act == p.act", nil},
		{strings.Repeat("(r.sub == p.sub || r.obj == p.obj) && ", 7) + "r.act == p.act", []string{""}},
		{strings.Repeat("(r.sub == p.sub || r.obj == p.obj) && ", 7) + "r.act == p.act || r.sub == p.sub", []string{""}},
		{"r.act == p.act && (r.sub == p.sub || " + strings.Repeat("(r.sub == p.sub || r.obj == p.obj) && ", 7) + "r.act == p.act)", []string{""}},
		{"(" + strings.Repeat("r.sub == p.sub || ", 12) + "r.act == p.act) && (" + strings.Repeat("r.sub == p.sub || ", 4) + "r.act == p.act)", []string{""}},
		{strings.Repeat("r.sub == p.sub || ", 63) + "r.act == p.act", nil},
		{strings.Repeat("r.sub == p.sub || ", 64) + "r.act == p.act", []string{""}},
	} {
		def, err := model.Parse("model.conf", s.Model(tt.matcher))
		if err != nil {
			t.Errorf("%s: %v", tt.matcher, err)
			continue
		}
		terms, ok := def.Root.Conjunctions(false)
		if tooMany := len(tt.want) == 1 && tt.want[0] == ""; ok == tooMany {
			t.Errorf("%s: %d terms, %t", tt.matcher, len(terms), ok)
			continue
		}
		if len(tt.want) == 0 || !ok {
			continue
		}
		var got []string
		for _, literals := range terms {
			got = append(got, strings.Trim(model.DescribeConjunction(literals), "`"))
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("%s\n got %q\nwant %q", tt.matcher, got, tt.want)
		}
	}
}

func TestPathClauses(t *testing.T) {
	shape := world.Shape{Request: []string{"sub", "obj", "act"}, Policy: []string{"sub", "obj", "act", "eft"}, Roles: []string{"g = _, _"}, Effect: world.AllowAndDeny}
	named := func(name string) pattern.Func {
		f, ok := pattern.ByName(name)
		if !ok {
			t.Fatalf("no function is called %s", name)
		}
		return f
	}
	for matcher, want := range map[string]model.PathClause{
		"globMatch(r.obj, p.obj)":          {named("globMatch"), 1},
		"(r.obj =~ p.obj)":                 {named("=~"), 1},
		"r.obj == p.obj":                   {named("=="), 1},
		"p.sub == r.obj":                   {named("=="), 0},
		"g(r.obj, p.obj)":                  {named("=="), 1},
		"g(r.sub, p.sub)":                  {},
		"keyMatch(r.act, p.act)":           {},
		"r.obj != p.obj":                   {},
		"!(r.obj == p.obj)":                {},
		`p.obj == "/a"`:                    {},
		"r.obj == p.obj || r.act == p.act": {},
		`globMatch(r.obj, p.obj + "/**")`:  {},
	} {
		def, err := model.Parse("model.conf", shape.Model(matcher))
		if err != nil {
			t.Errorf("%s: %v", matcher, err)
			continue
		}
		if got, ok := def.PathClauseOf(def.Root); got != want || ok != (want.Func != pattern.Func{}) {
			t.Errorf("%s: %v, %t", matcher, got, ok)
		}
	}
}
