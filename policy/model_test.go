package policy

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/casbin/casbin/v2/effector"
	casbinmodel "github.com/casbin/casbin/v2/model"
	defaultrolemanager "github.com/casbin/casbin/v2/rbac/default-role-manager"
	"github.com/casbin/casbin/v2/util"
	"github.com/casbin/govaluate"
	"github.com/google/go-cmp/cmp"

	"securefiles/authz"
)

// S15: each file has one mistake that stock Casbin reads silently, or finds
// only when somebody asks.
func TestBadModelsAreRefused(t *testing.T) {
	files, err := filepath.Glob("testdata/badmodel/*.conf")
	if err != nil {
		t.Fatal(err)
	}
	var all []Finding
	for _, file := range files {
		_, err := parseDefinition(filepath.Base(file), readFile(t, file))
		var refused *LoadError
		if !errors.As(err, &refused) {
			t.Errorf("%s is accepted: %v", file, err)
			continue
		}
		all = append(all, refused.Findings...)
	}
	compareFindings(t, "testdata/badmodel", 87, all)
}

func TestGoodModels(t *testing.T) {
	files, err := filepath.Glob("testdata/model/*.conf")
	if err != nil || len(files) < 20 {
		t.Fatal(len(files), err)
	}
	for _, file := range files {
		def, err := parseDefinition(file, readFile(t, file))
		switch {
		case err != nil:
			t.Error(err)
		case len(def.warnings) > 0 && filepath.Base(file) != "open.conf":
			t.Errorf("%s: %v", file, def.warnings)
		}
	}
}

func TestDefinitionOfTheBuiltInModel(t *testing.T) {
	def, err := parseDefinition("model.conf", DefaultModel())
	if err != nil {
		t.Fatal(err)
	}
	got := []any{def.requestFields, def.policyFields, def.roles, def.effect, def.matcher, def.literals, def.evaluates, def.warnings}
	want := []any{
		[]string{"sub", "obj", "act"}, []string{"sub", "obj", "act", "eft"}, map[string]int{"g": 2},
		"some(where (p_eft == allow)) && !some(where (p_eft == deny))",
		`g(r_sub, p_sub) && globMatch(r_obj, p_obj) && (r_act == p_act || p_act == "*")`,
		[]string{"*"}, false, []Finding(nil),
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
		text := strings.Replace(DefaultModel(), tt.old, tt.new, 1)
		if tt.old != "p = sub," {
			text = strings.Replace(text, tt.old, tt.new, 1)
		}
		def, err := parseDefinition("model.conf", text)
		if err != nil {
			t.Fatal(err)
		}
		if len(def.warnings) != 1 || def.warnings[0].String() != tt.want {
			t.Errorf("%s: %v", tt.name, def.warnings)
		}
	}
}

// Casbin reads a line in pieces of 4,096 bytes: what it would cut is refused.
func TestLongModelLinesAreRefused(t *testing.T) {
	cut := false
	for _, end := range []string{"\n", "\r\n"} {
		for length := maxModelLine - 2; length <= maxModelLine+2; length++ {
			head, tail := "m = g(r.sub, p.sub)", "&& globMatch(r.obj, p.obj) && r.act == p.act"
			i := strings.Index(DefaultModel(), "m = ")
			line := head + strings.Repeat(" ", length-len(head)-len(tail)) + tail
			text := DefaultModel()[:i] + line + end
			m, err := casbinmodel.NewModelFromString(text)
			whole := err == nil && strings.HasSuffix(m["m"]["m"].Value, "p_act")
			_, err = parseDefinition("model.conf", text)
			if err == nil && !whole || (err == nil) != (length+len(end)-1 <= maxModelLine) {
				t.Errorf("%d bytes, end %q: Casbin reads it whole: %t, ours: %v", length, end, whole, err)
			}
			cut = cut || !whole
		}
	}
	if !cut {
		t.Error("Casbin has cut nothing: mend this test")
	}
}

func TestLiterals(t *testing.T) {
	for _, tt := range []struct {
		expr string
		want []string
	}{
		{`r.sub == p.sub`, nil},
		{`r.act in ("a", 'b')`, []string{`"a"`, `'b'`}},
		{`r.sub == "it's" || x`, []string{`"it'`, `" || x`}},
		{`"a\"b`, []string{`"a\"`}},
		{`""`, []string{`""`}},
		{`"`, []string{`"`}},
	} {
		if got := literals(tt.expr); !slices.Equal(got, tt.want) {
			t.Errorf("%s: %q", tt.expr, got)
		}
	}
}

// stockDecision decides with Casbin's own parts, as its enforcer puts them
// together, over a policy of one line.
func stockDecision(m casbinmodel.Model, line, request []string) (allowed bool, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("panic: %v", r)
		}
	}()
	parameters := map[string]any{}
	for i, name := range m["r"]["r"].Tokens {
		parameters[name] = request[i]
	}
	for i, name := range m["p"]["p"].Tokens {
		parameters[name] = line[i]
	}
	casbins := casbinmodel.LoadFunctionMap()
	functions := casbins.GetFunctions()
	for name := range m["g"] {
		functions[name] = util.GenerateGFunction(defaultrolemanager.NewRoleManager(10))
	}
	matcher := m["m"]["m"].Value
	if util.HasEval(matcher) {
		functions["eval"] = func(args ...any) (any, error) {
			rule, err := govaluate.NewEvaluableExpressionWithFunctions(util.EscapeAssertion(args[0].(string)), functions)
			if err != nil {
				return nil, err
			}
			return rule.Evaluate(parameters)
		}
	}
	expr, err := govaluate.NewEvaluableExpressionWithFunctions(matcher, functions)
	if err != nil {
		return false, err
	}
	result, err := expr.Evaluate(parameters)
	if err != nil {
		return false, err
	}
	matches := 0.0
	switch result := result.(type) {
	case bool:
		if result {
			matches = 1
		}
	case float64:
		matches = result
	default:
		return false, errors.New("neither true nor false")
	}
	effect := effector.Allow
	if i := slices.Index(m["p"]["p"].Tokens, "p_eft"); i >= 0 && line[i] != "allow" {
		effect = effector.Indeterminate
	}
	merged, _, err := effector.NewDefaultEffector().MergeEffects(m["e"]["e"].Value, []effector.Effect{effect}, []float64{matches}, 0, 1)
	return merged == effector.Allow, err
}

// Whatever is read never panics, and a model that is accepted is the same to
// stock Casbin, whose parts answer as the engine does wherever they answer.
func FuzzModel(f *testing.F) {
	seeds := 0
	for _, pattern := range []string{"testdata/model/*.conf", "testdata/badmodel/*.conf"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			f.Fatal(err)
		}
		for _, file := range files {
			if text := readFile(f, file); len(text) < 8192 {
				f.Add(text)
				seeds++
			}
		}
	}
	if seeds < 90 {
		f.Fatalf("only %d seeds", seeds)
	}
	f.Fuzz(func(t *testing.T, text string) {
		def, err := parseDefinition("model.conf", text)
		if err != nil {
			return
		}
		m, err := casbinmodel.NewModelFromString(text)
		if err != nil {
			t.Fatalf("accepted, but stock refuses: %v", err)
		}
		for kind, fields := range map[string][]string{"r": def.requestFields, "p": def.policyFields} {
			if tokens := m[kind][kind].Tokens; strings.Join(tokens, ",") != kind+"_"+strings.Join(fields, ","+kind+"_") {
				t.Fatalf("%s: stock %q, ours %q", kind, tokens, fields)
			}
		}
		if len(m["g"]) != len(def.roles) {
			t.Fatalf("roles: stock %v, ours %v", m["g"], def.roles)
		}

		// One line and one request, in which every value is the address that
		// all functions take.
		const value = "192.0.2.1"
		line := make([]string, len(def.policyFields))
		tab := &table{syms: newSymbols(), rules: &rules{lines: []uint32{1}}}
		tab.syms.intern("")
		for i, name := range def.policyFields {
			line[i] = value
			switch {
			case name == "eft":
				line[i] = "allow"
			case def.evaluates:
				line[i] = "true"
			}
			tab.rules.cols = append(tab.rules.cols, []symbol{tab.syms.intern(line[i])})
		}
		engine, err := newEngine(def, tab.syms, tab.rules, nil, engineOptions{})
		if err != nil {
			t.Fatal(err)
		}
		want, stockErr := stockDecision(m, line, slices.Repeat([]string{value}, len(def.requestFields)))
		got, _, err := decideSafely(engine, &authz.Query{Principal: authz.Principal{Subject: value}, Object: value, Action: value, Domain: value, IP: value, Host: value})
		if stockErr == nil && (err != nil || got != want) {
			t.Errorf("stock %t, ours %t, %v", want, got, err)
		}
		if stockErr != nil && got {
			t.Errorf("stock fails, ours allows: %v", stockErr)
		}
	})
}

func decideSafely(e *engine, q *authz.Query) (allowed bool, row int, err error) {
	defer func() {
		if r := recover(); r != nil {
			allowed, row, err = false, -1, fmt.Errorf("panic: %v", r)
		}
	}()
	return e.decide(q, e.lookup(q.Principal.Subject))
}
