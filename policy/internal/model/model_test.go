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
	world.CompareFindings(t, "testdata/badmodel", 87, all)
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
	got := []any{def.Request, def.Policy, def.Roles, def.Effect, def.Matcher, def.Texts, def.Evaluates, def.Warnings}
	want := []any{
		[]string{"sub", "obj", "act"}, []string{"sub", "obj", "act", "eft"}, map[string]int{"g": 2},
		"some(where (p_eft == allow)) && !some(where (p_eft == deny))",
		`g(r_sub, p_sub) && globMatch(r_obj, p_obj) && (r_act == p_act || p_act == "*")`,
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
