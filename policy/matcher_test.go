package policy

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// outline writes a term with its atoms in brackets, each with its kind.
func (c *term) outline() string {
	if c.op == opAtom {
		kind := []string{"opaque", "request", "equal", "constant", "role", "pattern"}[c.atom.kind]
		return fmt.Sprintf("[%s: %s]", kind, c.atom.source)
	}
	var kids []string
	for _, kid := range c.kids {
		kids = append(kids, kid.outline())
	}
	switch c.op {
	case opNot:
		return "!" + kids[0]
	case opOr:
		return "(" + strings.Join(kids, " || ") + ")"
	default:
		return "(" + strings.Join(kids, " && ") + ")"
	}
}

func TestMatchersAreTakenApart(t *testing.T) {
	s := modelShape{
		request: []string{"sub", "dom", "obj", "act"}, policy: []string{"sub", "dom", "obj", "act", "eft"},
		roles: []string{"g = _, _, _", "g2 = _, _"}, effect: allowAndDeny,
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
	} {
		// The roles that this matcher does not ask are left out.
		def, err := parseDefinition("model.conf", s.model(tt.matcher))
		if err != nil {
			t.Errorf("%s: %v", tt.matcher, err)
			continue
		}
		root, atoms, _, err := parseMatcher(def)
		if err != nil || root.outline() != tt.want {
			t.Errorf("%s\n got %s, %v\nwant %s", tt.matcher, root.outline(), err, tt.want)
		}
		if !slices.IsSortedFunc(atoms, func(a, b *atom) int { return a.number - b.number }) {
			t.Errorf("%s: the atoms are out of order", tt.matcher)
		}
	}
}

func TestConjunctions(t *testing.T) {
	s := modelShape{request: []string{"sub", "obj", "act"}, policy: []string{"sub", "obj", "act", "eft"}, effect: allowAndDeny}
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
	} {
		def, err := parseDefinition("model.conf", s.model(tt.matcher))
		if err != nil {
			t.Errorf("%s: %v", tt.matcher, err)
			continue
		}
		root, _, _, err := parseMatcher(def)
		if err != nil {
			t.Fatal(err)
		}
		terms, ok := root.conjunctions(false)
		if tooMany := len(tt.want) == 1 && tt.want[0] == ""; ok == tooMany {
			t.Errorf("%s: %d terms, %t", tt.matcher, len(terms), ok)
			continue
		}
		if len(tt.want) == 0 || !ok {
			continue
		}
		var got []string
		for _, literals := range terms {
			got = append(got, strings.Trim(describeConjunction(literals), "`"))
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("%s\n got %q\nwant %q", tt.matcher, got, tt.want)
		}
	}
}
