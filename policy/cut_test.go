package policy_test

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"securefiles/policy"
	"securefiles/policy/internal/storetest"
	"securefiles/policy/internal/world"
)

// A file in place that is the beginning of what is served, without lines that
// deny, is held: it is being written, or was cut short. One that only takes access
// away is not.
func TestFileThatLooksCutIsHeld(t *testing.T) {
	const (
		allow  = "p, editor, /project/**, read, allow\n"
		deny   = "p, editor, /project/hr/**, read, deny\n"
		others = "p, @anyone, /public/**, read, allow\np, bob, /b/**, read, allow\n"
		alice  = "g, alice, editor\n"
	)
	const effect = "[policy_effect]\ne = some(where (p.eft == allow)) && !some(where (p.eft == deny))\n"
	models := map[string]string{
		"negation": "[request_definition]\nr = sub, obj, act\n[policy_definition]\np = sub, obj, act, eft\n[role_definition]\ng = _, _\n" + effect +
			"[matchers]\nm = g(r.sub, p.sub) && !g(r.sub, \"banned\") && keyMatch(r.obj, p.obj) && r.act == p.act\n",
		"rule": "[request_definition]\nr = sub, obj, act\n[policy_definition]\np = sub_rule, obj, act, eft\n[role_definition]\ng = _, _\n" + effect +
			"[matchers]\nm = eval(p.sub_rule) && keyMatch(r.obj, p.obj) && r.act == p.act\n",
		"path last": "[request_definition]\nr = sub, obj, act\n[policy_definition]\np = sub, eft, act, obj\n[role_definition]\ng = _, _\n" + effect +
			"[matchers]\nm = g(r.sub, p.sub) && globMatch(r.obj, p.obj) && r.act == p.act\n",
	}
	for _, row := range []struct {
		name, model   string
		before, after string
		held          string // what the refusal says, or empty
	}{
		{"a deny line is lost", "", others + alice + allow + deny, others + alice + allow, "4 of 5 lines: without line 5"},
		{"and the line's end before it", "", others + alice + allow + deny, others + alice + strings.TrimSpace(allow), "4 of 5 lines: without line 5"},
		{"a deny line is lost among others", "", others + alice + allow + deny + "p, carol, /c, read, allow\n", others + alice + allow, "4 of 6 lines: without line 5"},
		{"an allow line is lost", "", others + alice + deny + allow, others + alice + deny, ""},
		{"a comment is lost", "", others + alice + allow + deny + "# deny\n", others + alice + allow + deny, ""},
		{"the last line's end is lost", "", others + alice + allow + deny, others + alice + allow + strings.TrimSpace(deny), ""},
		{"another line stands in its place", "", others + alice + allow + deny, others + alice + allow + "p, carol, /c, read, allow\n", ""},
		{"another beginning", "", others + alice + allow + deny, "# x\n" + others + alice + allow, ""},
		{"a deny line is lost in the middle", "", others + alice + deny + allow, others + alice + allow, ""},
		{"a role that a line denies, to somebody who has the like by name", "", others + allow + deny + "p, alice, /project/**, read, allow\n" + alice,
			others + allow + deny + "p, alice, /project/**, read, allow\n", "5 of 6 lines: without line 6"},
		{"or by a group", "", others + allow + deny + "p, @staff, /project/hr/pay, read, allow\n" + alice,
			others + allow + deny + "p, @staff, /project/hr/pay, read, allow\n", "5 of 6 lines: without line 6"},
		{"or by a group's role", "", others + deny + "p, clerk, /project/**, read, allow\ng, @staff, clerk\n" + alice,
			others + deny + "p, clerk, /project/**, read, allow\ng, @staff, clerk\n", "5 of 6 lines: without line 6"},
		{"or by being below the one that has it", "", others + deny + "p, carol, /project/**, read, allow\np, clerk, /c, read, allow\ng, carol, clerk\ng, clerk, editor\n",
			others + deny + "p, carol, /project/**, read, allow\np, clerk, /c, read, allow\ng, carol, clerk\n", "6 of 7 lines: without line 7"},
		{"a role that gives and denies, to somebody who has nothing else", "", others + allow + deny + "g, @staff, editor\n" + alice, others + allow + deny + "g, @staff, editor\n", ""},
		{"and who has other paths", "", others + allow + deny + "p, alice, /other/**, read, allow\n" + alice, others + allow + deny + "p, alice, /other/**, read, allow\n", ""},
		{"another than the one that the model asks nobody to have", "negation", "p, editor, /a, read, allow\np, bob, /b, read, allow\ng, carol, banned\ng, alice, editor\n",
			"p, editor, /a, read, allow\np, bob, /b, read, allow\ng, carol, banned\n", ""},
		{"a role that is evaluated", "rule", "p, r.sub == 'alice', /a, read, allow\np, \"g(r.sub, 'editor')\", /b, read, allow\n" + alice,
			"p, r.sub == 'alice', /a, read, allow\np, \"g(r.sub, 'editor')\", /b, read, allow\n", "2 of 3 lines: without line 3"},
		{"a role that nothing denies", "", others + "p, editor, /project/**, read, allow\np, carol, /c, read, deny\n" + alice, others + "p, editor, /project/**, read, allow\np, carol, /c, read, deny\n", ""},
		{"a role below one that a line denies", "", others + "p, alice, /s, read, allow\np, staff, /s, read, deny\ng, editor, staff\n" + alice, others + "p, alice, /s, read, allow\np, staff, /s, read, deny\ng, editor, staff\n", "5 of 6 lines: without line 6"},
		{"a line is torn, and reads as another", "path last", "p, a, allow, read, /a/**\np, b, allow, read, /b/**\np, b, deny, read, /b/hr/**\n",
			"p, a, allow, read, /a/**\np, b, allow, read, /b/*", "1 of 3 lines: without line 3"},
		{"a line is torn behind another beginning", "path last", "p, a, allow, read, /a/**\np, b, allow, read, /b/**\np, b, deny, read, /b/hr/**\n",
			"p, a, allow, read, /a/*\np, b, allow, read, /b/*", ""},
		{"a role that the model asks nobody to have", "negation", "p, alice, /a, read, allow\np, bob, /b, read, allow\ng, alice, banned\n",
			"p, alice, /a, read, allow\np, bob, /b, read, allow\n", "2 of 3 lines: without line 3"},
	} {
		t.Run(row.name, func(t *testing.T) {
			model := ""
			if row.model != "" {
				model = filepath.Join(t.TempDir(), "model.conf")
				world.Write(t, model, models[row.model])
			}
			file := filepath.Join(t.TempDir(), "policy.csv")
			world.Write(t, file, row.before)
			s, err := policy.Open(t.Context(), policy.Files{Model: model, Policy: file}, nil)
			if err != nil {
				t.Fatal(err)
			}
			world.Write(t, file, row.after)
			err = s.Reload(t.Context())
			var refused *policy.LoadError
			switch {
			case row.held == "" && err != nil:
				t.Fatalf("it was held: %v", err)
			case row.held == "":
				return
			case !errors.As(err, &refused) || !strings.Contains(err.Error(), row.held):
				t.Fatalf("got %v, want %s", err, row.held)
			}
			if st := s.Status(); st.Generation != 1 || !st.Stale {
				t.Errorf("status %+v", st)
			}
			if err := s.Reload(t.Context()); err == nil {
				t.Error("it was taken the second time")
			}
			// It grows.
			world.Write(t, file, row.before+"# and more\n")
			if err := s.Reload(t.Context()); err != nil || s.Status().Generation != 2 || s.Status().Stale {
				t.Errorf("it grew: %v", err)
			}
			// Somebody means it.
			world.Write(t, file, row.after)
			if err := s.Reload(t.Context()); err == nil {
				t.Error("it was not held again")
			}
			if err := s.ReloadConfirmed(t.Context()); err != nil || s.Status().Generation != 3 || s.Status().Stale {
				t.Errorf("it is meant: %v", err)
			}
			// It is renamed into place.
			world.Write(t, file, row.before)
			if err := s.Reload(t.Context()); err != nil {
				t.Fatal(err)
			}
			world.Write(t, file+".new", row.after)
			rename(t, file+".new", file)
			if err := s.Reload(t.Context()); err != nil || s.Status().Generation != 5 {
				t.Errorf("a whole file was renamed into place: %v", err)
			}
		})
	}
}

// Wherever a file is cut: what is served gives nobody more than the whole, until
// somebody says that it is meant.
func TestNoCutGivesAnybodyMore(t *testing.T) {
	const (
		public  = "p, @anyone, /public/**, read, allow\n"
		roles   = "g, alice, editor\ng, editor, staff\ng, bob, staff\n"
		allowed = "p, editor, /project/**, read, allow\np, bob, /project/**, read, allow\n"
		denied  = "p, editor, /project/hr/**, read, deny\np, staff, /project/board/**, read, deny\n"
	)
	for name, whole := range map[string]string{"lines that deny at the end": public + roles + allowed + denied, "roles at the end": public + denied + allowed + roles} {
		s, file := storetest.Open(t, whole, &policy.Options{AllowShrink: true})
		decide := func() map[string]bool {
			all := map[string]bool{}
			for _, subject := range []string{"alice", "bob", "carol"} {
				for _, path := range []string{"/public/a", "/project/plan", "/project/hr/pay", "/project/board/minutes"} {
					all[subject+" "+path] = strings.HasPrefix(storetest.Answer(t, s, world.Query(subject, path)), "allow")
				}
			}
			return all
		}
		full, taken, held := decide(), 0, 0
		for n := range len(whole) {
			world.Write(t, file, whole[:n])
			if err := s.Reload(t.Context()); err == nil {
				taken++
			} else {
				held++
			}
			for what, allowed := range decide() {
				if allowed && !full[what] {
					t.Errorf("%s, cut to %d bytes: %s is allowed: …%q", name, n, what, whole[max(0, n-30):n])
				}
			}
			world.Write(t, file, whole)
			if err := s.Reload(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if taken == 0 || held == 0 {
			t.Errorf("%s: %d cuts were taken, %d held", name, taken, held)
		}
	}
}
