package lint

import (
	"path/filepath"
	"strings"
	"testing"

	"securefiles/policy"
	"securefiles/policy/internal/model"
	"securefiles/policy/internal/world"
)

// Where $sub stands for nobody, and where {user} stands for anybody, check says so:
// in each field, and in models that compare the path in another way.
func TestWhereSubStandsForNobody(t *testing.T) {
	for _, tt := range []struct{ function, line, want string }{
		{"globMatch", "p, @authenticated, /home/$sub/**, read, allow", ""},
		{"globMatch", "p, @authenticated, /home/$user/**, read, allow", "warning field 2"},
		{"globMatch", "p, @authenticated, /home/$user/**, read, deny", "error field 0"},
		{"globMatch", "p, $sub, /home/x/**, read, allow", "warning field 1"},
		{"globMatch", "p, @$group, /home/x/**, read, allow", "warning field 1"},
		{"globMatch", "p, $sub, /home/x/**, read, deny", "error field 0"},
		{"globMatch", "p, role, /x, read, allow\ng, $sub, role", "warning field 1"},
		{"keyMatch3", "p, @authenticated, /home/{user}/*, read, allow", "warning field 2"},
		{"keyMatch2", "p, @anyone, /home/:username/*, read, allow", "warning field 2"},
		{"keyMatch3", "p, bob, /home/{user}/*, read, allow", ""},
		{"keyMatch3", "p, @authenticated, /home/{user}/*, read, deny", ""},
		{"keyMatch3", "p, @authenticated, /projects/{id}/*, read, allow", ""},
		{"keyMatch2", "p, @authenticated, /home/$sub/*, read, allow", ""},
		{"==", "p, @authenticated, /home/$sub, read, allow", "warning field 2"},
	} {
		dir := t.TempDir()
		files := policy.Files{Model: filepath.Join(dir, "model.conf"), Policy: filepath.Join(dir, "policy.csv")}
		text := strings.ReplaceAll(model.Default, "globMatch(", tt.function+"(")
		if tt.function == "==" {
			text = strings.ReplaceAll(model.Default, "globMatch(r.obj, p.obj)", "r.obj == p.obj")
		}
		world.Write(t, files.Model, text)
		world.Write(t, files.Policy, tt.line+"\n")
		got := ""
		for _, f := range Check(t.Context(), files, nil) {
			if f.Rule == "pattern-variable" && got == "" {
				got = f.Severity.String() + " field " + string(rune('0'+f.Field))
				if !strings.Contains(f.Message, "$sub") && !strings.Contains(f.Message, "$group") && f.Severity != policy.SeverityError {
					t.Errorf("%s: %s names no variable", tt.line, f.Message)
				}
			} else if f.Severity == policy.SeverityError {
				t.Errorf("%s: %s", tt.line, f)
			}
		}
		if got != tt.want {
			t.Errorf("%s %s: %q, want %q", tt.function, tt.line, got, tt.want)
		}
	}
}

// A folder of everybody's own makes no finding, and one for all covers it.
func TestHomeDirectoriesAmongOtherLines(t *testing.T) {
	for _, tt := range []struct{ lines, want string }{
		{"p, @authenticated, /home/$sub/**, read, allow\np, alice, /home/alice/**, read, allow\n", ""},
		{"p, @authenticated, /home/**, read, allow\np, @authenticated, /home/$sub/**, read, allow\n", "redundant"},
		{"p, @authenticated, /home/$sub/**, read, allow\np, @anyone, /home/**, read, deny\n", "overruled"},
		{"p, @authenticated, /home/**, read, allow\np, @authenticated, /home/$sub/**, read, deny\n", ""},
		{"p, @authenticated, /home/$sub/**, read, allow\np, @authenticated, /home/$sub/hr/**, read, deny\n", ""},
	} {
		files := policy.Files{Policy: filepath.Join(t.TempDir(), "policy.csv")}
		world.Write(t, files.Policy, tt.lines)
		var got []string
		for _, f := range Check(t.Context(), files, nil) {
			got = append(got, f.Rule)
		}
		if strings.Join(got, " ") != tt.want {
			t.Errorf("%s: %s, want %s", tt.lines, got, tt.want)
		}
	}
}
