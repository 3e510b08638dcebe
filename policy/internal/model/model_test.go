package model_test

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"securefiles/policy/internal/finding"
	"securefiles/policy/internal/model"
	"securefiles/policy/internal/world"

	casbinmodel "github.com/casbin/casbin/v2/model"
	"github.com/google/go-cmp/cmp"
)

// S15: each file has one mistake that stock Casbin reads silently, or finds
// only when somebody asks.
func TestBadModelsAreRefused(t *testing.T) {
	files, err := filepath.Glob("testdata/badmodel/*.conf")
	if err != nil {
		t.Fatal(err)
	}
	var all []finding.Finding
	for _, file := range files {
		_, err := model.Parse(filepath.Base(file), world.File(t, file))
		var refused *finding.LoadError
		if !errors.As(err, &refused) {
			t.Errorf("%s is accepted: %v", file, err)
			continue
		}
		all = append(all, refused.Findings...)
	}
	world.CompareFindings(t, "testdata/badmodel", 83, all)
}

// What Casbin passes over, and what changes nothing, keeps no model from being
// served. What is read of it is what Casbin reads.
func TestModelsThatWorkAreAccepted(t *testing.T) {
	undated := world.ModelText(t, "undated")
	plain, err := model.Parse("model.conf", undated)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ name, old, new, want string }{
		{"a comment behind the request", "r = sub, obj, act", "r = sub, obj, act # who, what, how", ""},
		{"a comment behind the policy", "p = sub, obj, act, eft", "p = sub, obj, act, eft ; allow or deny", ""},
		{"a comment behind the roles", "g = _, _", "g = _, _ # user, role", ""},
		{"a comment behind the effect", "(p.eft == deny))", "(p.eft == deny)) # a deny wins", ""},
		{"a comment behind the matcher", `p.act == "*")`, `p.act == "*") # the administrator's star`, ""},
		{"a part of the matcher behind #", ` && (r.act == p.act || p.act == "*")`, ` # && r.act == p.act`, "error model-comment"},
		{"a part of the matcher behind ;", ` && (r.act == p.act || p.act == "*")`, ` ; && r.act == p.act`, "error model-comment"},
		{"a negation behind #", ` && (r.act`, ` # !g(r.sub, p.act) (r.act`, "error model-comment"},
		{"a # in a literal", `p.act == "*")`, `p.act == "a#b")`, "error model-comment"},
		{"a deny behind #", " && !some(where (p.eft == deny))", " # && !some(where (p.eft == deny))", "error model-comment"},
		{"a column behind #", "p = sub, obj, act, eft", "p = sub, obj, act #, eft", "error model-comment"},
		{"a comment that goes on", "g(r.sub, p.sub) &&", "g(r.sub, p.sub) && \\\n globMatch(r.obj, p.obj) # && \\\n &&", "error model-comment"},
		{"that is taken back", "[matchers]\nm = g(r.sub, p.sub) && globMatch(r.obj, p.obj) && (", "[matchers]\n# securefiles:ignore model-comment: for now\nm = g(r.sub, p.sub) && globMatch(r.obj, p.obj) # && (", "warning model-comment warning model-unused warning model-unused"},
		{"a name that no request has and nobody asks", "r = sub, obj, act", "r = sub, obj, act, env", "warning model-request"},
		{"a name that no request has, asked", "&& (r.act", "&& r.env != \"x\" && (r.act", "error model-matcher"},
		{"another request", "r = sub, obj, act", "r = sub, obj, act\nr2 = sub, act", ""},
		{"another policy", "act, eft\n", "act, eft\np2 = sub, act\n", ""},
		{"another effect", "[matchers]", "e2 = some(where (p.eft == allow))\n[matchers]", ""},
		{"another matcher", "[matchers]\n", "[matchers]\nm2 = r2.sub == p2.sub\n", ""},
		{"another matcher, twice", "[matchers]\n", "[matchers]\nm2 = true\nm2 = false\n", "error model-duplicate"},
		{"a matcher in capitals beside it", "[matchers]\n", "[matchers]\nM = true\n", "warning model-section"},
		{"a matcher in capitals", "\nm = ", "\nM = ", "warning model-section error model-section"},
		{"a section that nobody knows", "[matchers]", "[notes]\nby = alice\n[matchers]", "warning model-section"},
		{"a role definition behind a gap", "g = _, _", "g = _, _\ng3 = _, _", "warning model-roles"},
		{"a role definition that nobody asks", "g = _, _", "g = _, _\ng2 = _, _", ""},
		{"no effect in the lines", "act, eft\n", "act\n", "warning model-effect"},
		{"no effect in the lines, where denials count alone", "act, eft\n\n[role_definition]\ng = _, _\n\n[policy_effect]\ne = some(where (p.eft == allow)) && ", "act\n\n[role_definition]\ng = _, _\n\n[policy_effect]\ne = ", "error model-effect warning model-effect"},
		{"a priority in capitals where none is asked", "act, eft\n", "act, eft, Priority\n", "warning model-unused"},
	} {
		text := strings.Replace(undated, tt.old, tt.new, 1)
		if text == undated {
			t.Errorf("%s: nothing is changed", tt.name)
		}
		m, err := model.Parse("model.conf", text)
		var findings []finding.Finding
		var refused *finding.LoadError
		if errors.As(err, &refused) {
			findings = refused.Findings
		} else {
			findings = m.Warnings
			stock, err := casbinmodel.NewModelFromString(text)
			if err != nil || stock["m"]["m"].Value != m.Matcher || stock["e"]["e"].Value != m.Effect {
				t.Errorf("%s: Casbin reads something else: %v", tt.name, err)
			}
		}
		var got []string
		for _, f := range findings {
			got = append(got, f.Severity.String()+" "+f.Rule)
		}
		if got := strings.Join(got, " "); got != tt.want {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
		}
		if tt.want == "" && m.Matcher != plain.Matcher {
			t.Errorf("%s: the matcher is %s", tt.name, m.Matcher)
		}
	}
}

func TestGoodModels(t *testing.T) {
	names := world.ModelNames(t)
	if len(names) < 20 {
		t.Fatal(names)
	}
	for _, name := range names {
		m, err := model.Parse(name+".conf", world.ModelText(t, name))
		switch {
		case err != nil:
			t.Error(err)
		case len(m.Warnings) > 0 && name != "open":
			t.Errorf("%s: %v", name, m.Warnings)
		}
	}
}

func TestDefinitionOfTheBuiltInModel(t *testing.T) {
	def, err := model.Parse("model.conf", model.Default)
	if err != nil {
		t.Fatal(err)
	}
	got := []any{def.Request, def.Policy, def.Roles, def.Conditional, def.Optional, def.Effect, def.Matcher, def.Texts, def.Evaluates, def.Warnings}
	want := []any{
		[]string{"sub", "obj", "act"}, []string{"sub", "obj", "act", "eft", "from", "until"}, map[string]int{"g": 2}, map[string]bool{"g": true}, 2,
		"some(where (p_eft == allow)) && !some(where (p_eft == deny))",
		`g(r_sub, p_sub) && globMatch(r_obj, p_obj) && (r_act == p_act || p_act == "*") && timeMatch(p_from, p_until)`,
		[]string{"*"}, false, []finding.Finding(nil),
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestModelWarnings(t *testing.T) {
	for _, tt := range []struct{ name, old, new, want string }{
		{"everything is allowed", "some(where (p.eft == allow)) && !some", "!some", "model.conf:14: warning: everybody, without credentials too, may have everything that no line denies [model-effect]"},
		{"the path makes no difference", "globMatch(r.obj, p.obj)", "p.obj != \"\"", "model.conf:17: warning: the matcher never asks r.obj: it makes no difference [model-unused]"},
		{"a column makes no difference", "p = sub,", "p = note, sub,", "model.conf:17: warning: the matcher never asks p.note: it makes no difference [model-unused]"},
	} {
		text := strings.Replace(model.Default, tt.old, tt.new, 1)
		if tt.old != "p = sub," {
			text = strings.Replace(text, tt.old, tt.new, 1)
		}
		def, err := model.Parse("model.conf", text)
		if err != nil {
			t.Fatal(err)
		}
		if len(def.Warnings) != 1 || def.Warnings[0].String() != tt.want {
			t.Errorf("%s: %v", tt.name, def.Warnings)
		}
	}
}

// Casbin reads a line in pieces of 4,096 bytes: what it would cut is refused.
func TestLongModelLinesAreRefused(t *testing.T) {
	const maxLine = 4095 // bytes
	cut := false
	for _, end := range []string{"\n", "\r\n"} {
		for length := maxLine - 2; length <= maxLine+2; length++ {
			head, tail := "m = g(r.sub, p.sub)", "&& globMatch(r.obj, p.obj) && r.act == p.act"
			i := strings.Index(model.Default, "m = ")
			line := head + strings.Repeat(" ", length-len(head)-len(tail)) + tail
			text := model.Default[:i] + line + end
			m, err := casbinmodel.NewModelFromString(text)
			whole := err == nil && strings.HasSuffix(m["m"]["m"].Value, "p_act")
			_, err = model.Parse("model.conf", text)
			if err == nil && !whole || (err == nil) != (length+len(end)-1 <= maxLine) {
				t.Errorf("%d bytes, end %q: Casbin reads it whole: %t, ours: %v", length, end, whole, err)
			}
			cut = cut || !whole
		}
	}
	if !cut {
		t.Error("Casbin has cut nothing: mend this test")
	}
}
