package policy_test

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"securefiles/authz"
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
		"ternary": "[request_definition]\nr = sub, obj, act\n[policy_definition]\np = sub, obj, act, eft\n[role_definition]\ng = _, _\n" + effect +
			"[matchers]\nm = g(r.sub, p.sub) && (g(r.sub, \"banned\") ? false : true) && keyMatch(r.obj, p.obj) && r.act == p.act\n",
		"comparison": "[request_definition]\nr = sub, obj, act\n[policy_definition]\np = sub, obj, act, eft\n[role_definition]\ng = _, _\n" + effect +
			"[matchers]\nm = g(r.sub, p.sub) && g(r.sub, \"banned\") == false && keyMatch(r.obj, p.obj) && r.act == p.act\n",
		"literal": "[request_definition]\nr = sub, obj, act\n[policy_definition]\np = sub, obj, act, eft\n[role_definition]\ng = _, _\n" + effect +
			"[matchers]\nm = (p.sub == \"all\" || p.sub == \"some\" && g(r.sub, \"banned\") || r.sub == p.sub) && globMatch(r.obj, p.obj) && r.act == p.act\n",
		"rank": "[request_definition]\nr = sub, obj, act\n[policy_definition]\np = sub, obj, act, eft\n[role_definition]\ng = _, _\n" +
			"[policy_effect]\ne = subjectPriority(p.eft) || deny\n[matchers]\nm = g(r.sub, p.sub) && keyMatch(r.obj, p.obj) && r.act == p.act\n",
		"domains": "[request_definition]\nr = sub, dom, obj, act\n[policy_definition]\np = sub, dom, obj, act, eft\n[role_definition]\ng = _, _, _\n" + effect +
			"[matchers]\nm = g(r.sub, p.sub, r.dom) && r.dom == p.dom && globMatch(r.obj, p.obj) && r.act == p.act\n",
		"objects": "[request_definition]\nr = sub, obj, act\n[policy_definition]\np = sub, obj, act, eft\n[role_definition]\ng = _, _\ng2 = _, _\n" + effect +
			"[matchers]\nm = g(r.sub, p.sub) && (g2(r.obj, p.obj) || globMatch(r.obj, p.obj)) && r.act == p.act\n",
		"actions": "[request_definition]\nr = sub, obj, act\n[policy_definition]\np = sub, obj, act, eft\n[role_definition]\ng = _, _\n" + effect +
			"[matchers]\nm = r.sub == p.sub && globMatch(r.obj, p.obj) && (r.act == p.act || g(r.act, p.act))\n",
		"subjects by pattern": "[request_definition]\nr = sub, obj, act\n[policy_definition]\np = sub, obj, act, eft\n[role_definition]\ng = _, _\n" + effect +
			"[matchers]\nm = (g(r.sub, p.sub) || keyMatch(r.sub, p.sub)) && globMatch(r.obj, p.obj) && r.act == p.act\n",
		"not the path": "[request_definition]\nr = sub, obj, act\n[policy_definition]\np = sub, obj, act, eft\n[role_definition]\ng = _, _\n" + effect +
			"[matchers]\nm = g(r.sub, p.sub) && (r.obj == p.obj || !globMatch(r.obj, p.obj)) && r.act == p.act\n",
		"what is not denied": "[request_definition]\nr = sub, obj, act\n[policy_definition]\np = sub, obj, act, eft\n[role_definition]\ng = _, _\n" +
			"[policy_effect]\ne = !some(where (p.eft == deny))\n[matchers]\nm = g(r.sub, p.sub) && globMatch(r.obj, p.obj) && r.act == p.act\n",
		"unequal": "[request_definition]\nr = sub, obj, act\n[policy_definition]\np = sub, obj, act, eft\n[role_definition]\ng = _, _\n" + effect +
			"[matchers]\nm = g(r.sub, p.sub) && !keyMatch(r.obj, \"/never\") && r.obj == p.obj && r.act == p.act\n",
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
		{"another beginning", "", others + alice + allow + deny, "p, zoe, /z, read, allow\n" + others + alice + allow, ""},
		{"another comment before it", "", "# of Monday\n" + others + alice + allow + deny, "# of Tuesday\n\n" + others + alice + allow, "5 of 6 lines: without line 6"},
		{"a comment and blank lines in its place", "", others + alice + allow + deny, others + alice + allow + "# to be written\n \n", "4 of 5 lines: without line 5"},
		{"with other ends of lines", "", others + alice + allow + deny, strings.ReplaceAll(others+alice+allow, "\n", "\r\n"), "4 of 5 lines: without line 5"},
		{"a file with other ends of lines is cut", "", strings.ReplaceAll(others+alice+allow+deny, "\n", "\r\n"), strings.TrimSuffix(strings.ReplaceAll(others+alice+allow, "\n", "\r\n"), "\n"), "4 of 5 lines: without line 5"},
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
		{"the only line that is left is torn", "path last", "p, b, allow, read, /b/**\np, b, deny, read, /b/hr/**\n",
			"p, b, allow, read, /b/*", "0 of 2 lines: without line 2"},
		{"the only line that is left is another one", "path last", "p, b, allow, read, /b/**\np, b, deny, read, /b/hr/**\n",
			"p, b, allow, read, /c/*", ""},
		{"a role that the model asks nobody to have, in other words", "ternary", "p, alice, /a, read, allow\np, bob, /b, read, allow\ng, alice, banned\n",
			"p, alice, /a, read, allow\np, bob, /b, read, allow\n", "2 of 3 lines: without line 3"},
		{"and in others", "comparison", "p, alice, /a, read, allow\np, bob, /b, read, allow\ng, alice, banned\n",
			"p, alice, /a, read, allow\np, bob, /b, read, allow\n", "2 of 3 lines: without line 3"},
		{"a role that the model says whom a line denies by", "literal", "p, all, /**, read, allow\np, some, /**, read, deny\ng, alice, banned\n",
			"p, all, /**, read, allow\np, some, /**, read, deny\n", "2 of 3 lines: without line 3"},
		{"a role that is a rank", "rank", "p, @a, /a, read, allow\np, b, /a, read, deny\ng, @b, b\ng, b, top\n",
			"p, @a, /a, read, allow\np, b, /a, read, deny\ng, @b, b\n", "3 of 4 lines: without line 4"},
		{"a role that is left in another domain", "domains", "p, alice, one, /a, read, allow\np, alice, two, /a, read, allow\np, editor, one, /a, read, deny\np, editor, two, /a, read, deny\ng, alice, editor, one\ng, alice, editor, two\n",
			"p, alice, one, /a, read, allow\np, alice, two, /a, read, allow\np, editor, one, /a, read, deny\np, editor, two, /a, read, deny\ng, alice, editor, one\n", "5 of 6 lines: without line 6"},
		{"what a path is among", "objects", "p, @anyone, /**, read, allow\np, @anyone, secrets, read, deny\ng2, /b, secrets\ng2, /a, secrets\n",
			"p, @anyone, /**, read, allow\np, @anyone, secrets, read, deny\ng2, /b, secrets\n", "3 of 4 lines: without line 4"},
		{"what an action is among", "actions", "p, alice, /**, read, allow\np, alice, /a, any, deny\ng, write, any\ng, read, any\n",
			"p, alice, /**, read, allow\np, alice, /a, any, deny\ng, write, any\n", "3 of 4 lines: without line 4"},
		{"a role of whom a pattern allows", "subjects by pattern", "p, al*, /**, read, allow\np, editor, /a, read, deny\ng, bob, editor\ng, alice, editor\n",
			"p, al*, /**, read, allow\np, editor, /a, read, deny\ng, bob, editor\n", "3 of 4 lines: without line 4"},
		{"a role that another path is denied", "not the path", "p, alice, /b, read, allow\np, editor, /a, read, deny\ng, bob, editor\ng, alice, editor\n",
			"p, alice, /b, read, allow\np, editor, /a, read, deny\ng, bob, editor\n", "3 of 4 lines: without line 4"},
		{"a role, where no line need allow", "what is not denied", "p, bob, /b, read, deny\np, editor, /a, read, deny\ng, bob, editor\ng, alice, editor\n",
			"p, bob, /b, read, deny\np, editor, /a, read, deny\ng, bob, editor\n", "3 of 4 lines: without line 4"},
		{"somebody's role, where something else is not to be", "unequal", "p, editor, /a, read, allow\np, bob, /b, read, deny\ng, alice, editor\n",
			"p, editor, /a, read, allow\np, bob, /b, read, deny\n", ""},
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
			for _, subject := range []string{"alice", "bob", "carol", "editor", "staff"} { // two are called like roles
				for _, path := range []string{"/public/a", "/project/plan", "/project/hr/pay", "/project/board/minutes"} {
					all[subject+" "+path] = strings.HasPrefix(storetest.Answer(t, s, world.Query(subject, path)), "allow")
				}
			}
			return all
		}
		full, taken, held := decide(), 0, 0
		for n := range len(whole) {
			// It is cut, grows, and is cut again, in the same file.
			for _, text := range []string{"# a\n# b\n" + whole[:n], whole[:n], whole[:min(n+45, len(whole)-1)], "# c\n" + whole[:max(0, n-45)]} {
				world.Write(t, file, text)
				if err := s.Reload(t.Context()); err == nil {
					taken++
				} else {
					held++
				}
				for what, allowed := range decide() {
					if allowed && !full[what] {
						t.Errorf("%s, cut to %d bytes: %s is allowed: …%q", name, len(text), what, text[max(0, len(text)-30):])
					}
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

// Whoever is called like a role was refused. That the lines are gone that made it
// one gives them what it may only where somebody means it.
func TestNameOfALostRoleStaysReserved(t *testing.T) {
	const roles, whole = "g, alice, editor\n", "p, editor, /project/**, read, allow\np, @anyone, /public/**, read, allow\n"
	editor := world.Query("editor", "/project/plan")
	reserved := func(t *testing.T, s *policy.Store) bool {
		t.Helper()
		_, err := s.Decide(t.Context(), editor)
		return errors.Is(err, authz.ErrReservedSubject)
	}
	for _, row := range []struct {
		name     string
		then     func(s *policy.Store, file string) error
		reserved bool
	}{
		{"nothing happens", func(s *policy.Store, _ string) error { return s.Reload(t.Context()) }, true},
		{"a comment is added", func(s *policy.Store, file string) error {
			world.Write(t, file, whole+"# roles:\n")
			return s.Reload(t.Context())
		}, true},
		{"it grows to the whole", func(s *policy.Store, file string) error {
			world.Write(t, file, whole+roles)
			return s.Reload(t.Context())
		}, true},
		{"it grows to another one", func(s *policy.Store, file string) error {
			world.Write(t, file, whole+"p, carol, /c, read, allow\n")
			return s.Reload(t.Context())
		}, false},
		{"somebody means it", func(s *policy.Store, _ string) error { return s.ReloadConfirmed(t.Context()) }, false},
		{"it is renamed into place", func(s *policy.Store, file string) error {
			world.Write(t, file+".new", whole)
			rename(t, file+".new", file)
			return s.Reload(t.Context())
		}, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			s, file := storetest.Open(t, whole+roles, nil)
			if !reserved(t, s) {
				t.Fatal("it is not reserved at the start")
			}
			world.Write(t, file, whole)
			if err := s.Reload(t.Context()); err != nil || !reserved(t, s) || s.Status().Generation != 2 {
				t.Fatalf("cut: %v", err)
			}
			if err := row.then(s, file); err != nil || reserved(t, s) != row.reserved {
				t.Errorf("reserved: %t, error: %v", reserved(t, s), err)
			}
			if err := s.Reload(t.Context()); err != nil || reserved(t, s) != row.reserved {
				t.Errorf("and again: reserved: %t, error: %v", reserved(t, s), err)
			}
		})
	}
}

// Where there is no line, Casbin evaluates the matcher for empty ones. What may
// hold then is not served, whatever the options say.
func TestEmptyPolicyLetsNobodyIn(t *testing.T) {
	for _, row := range []struct {
		name, matcher string
		refused       bool
	}{
		{"compared", "r.sub == p.sub && keyMatch(r.obj, p.obj) && r.act == p.act", false},
		{"roles", "g(r.sub, p.sub) && regexMatch(r.obj, p.obj) && r.act == p.act", false},
		{"a value of its own", `p.sub == "*" && regexMatch(r.obj, p.obj) && regexMatch(r.act, p.act) && g(r.act, p.act)`, false},
		{"expressions", "regexMatch(r.sub, p.sub) && regexMatch(r.obj, p.obj) && regexMatch(r.act, p.act)", true},
		{"expressions by operator", "r.sub =~ p.sub && r.obj =~ p.obj && r.act =~ p.act", true},
		{"unequal", "r.sub != p.sub && r.obj != p.obj && r.act != p.act", true},
		{"negated", "!(r.sub == p.sub) && !keyMatch(r.obj, p.obj) && r.act != p.act", true},
		{"one of two", "g(r.sub, p.sub) && r.act == p.act || regexMatch(r.obj, p.obj)", true},
		{"an empty value", `p.sub == "" && regexMatch(r.obj, p.obj) && regexMatch(r.act, p.act)`, true},
	} {
		t.Run(row.name, func(t *testing.T) {
			dir := t.TempDir()
			source := policy.Files{Model: filepath.Join(dir, "model.conf"), Policy: filepath.Join(dir, "policy.csv")}
			matcher := row.matcher
			if !strings.Contains(matcher, "g(") {
				matcher = `(` + matcher + `) && !g(r.act, "never")`
			}
			world.Write(t, source.Model, "[request_definition]\nr = sub, obj, act\n[policy_definition]\np = sub, obj, act\n[role_definition]\ng = _, _\n"+
				"[policy_effect]\ne = some(where (p.eft == allow))\n[matchers]\nm = "+matcher+"\n")
			world.Write(t, source.Policy, "p, ^$, ^$, ^$\n")
			s, err := policy.Open(t.Context(), source, &policy.Options{AllowShrink: true})
			if err != nil {
				t.Fatal(err)
			}
			for _, text := range []string{"", "\n", "# nothing\n"} {
				world.Write(t, source.Policy, text)
				if err := s.Reload(t.Context()); (err != nil) != row.refused || err != nil && !strings.Contains(err.Error(), "[policy-empty]") {
					t.Errorf("%q: %v", text, err)
				}
				if row.refused {
					continue // what is served has a line
				}
				if got := storetest.Answer(t, s, world.Query("mallory", "/x")); strings.HasPrefix(got, "allow") {
					t.Errorf("%q: %s", text, got)
				}
			}
			if _, err := policy.Open(t.Context(), source, &policy.Options{AllowShrink: true}); (err != nil) != row.refused {
				t.Errorf("at the start: %v", err)
			}
		})
	}
}

// What is cut may be cut again: it is compared to the whole, whose lines have other
// numbers, and what it had lost before is not forgotten.
func TestCutOfACutIsOneOfTheWhole(t *testing.T) {
	const first, deny, more = "p, @anyone, /public/**, read, allow\n", "p, @anyone, /public/hr/**, read, deny\n", "p, alice, /a, read, allow\np, bob, /b, read, allow\n"
	s, file := storetest.Open(t, "# one\n# two\n# three\n"+first+deny+more, &policy.Options{AllowShrink: true})
	world.Write(t, file, first+deny+"p, alice, /a, read, allow\n")
	if err := s.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	world.Write(t, file, first)
	if err := s.Reload(t.Context()); err == nil || !strings.Contains(err.Error(), "1 of 3 lines: without line 2") {
		t.Errorf("the lost deny was not seen: %v", err)
	}

	const lines, editors, staff = "p, editor, /e, read, allow\np, staff, /s, read, allow\np, carol, /c, read, allow\n", "g, alice, editor\n", "g, bob, staff\n"
	s, file = storetest.Open(t, lines+editors+staff, nil)
	for _, text := range []string{lines + editors, lines} {
		world.Write(t, file, text)
		if err := s.Reload(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	for subject, object := range map[string]string{"editor": "/e", "staff": "/s"} {
		if _, err := s.Decide(t.Context(), world.Query(subject, object)); !errors.Is(err, authz.ErrReservedSubject) {
			t.Errorf("%s may be a subject: %v", subject, err)
		}
	}
}

// What would take long to tell is held: whoever asks for all files, or writes the
// rest, waits for the answer.
func TestCutThatTakesLongToTellIsHeld(t *testing.T) {
	const role = "g, alice, auditor\n"
	for _, row := range []struct {
		lines int // of each kind
		held  bool
	}{{100, false}, {1100, true}} {
		var b strings.Builder
		for i := range row.lines {
			fmt.Fprintf(&b, "p, alice, /a/%d/**, read, allow\np, auditor, /b/%d/**, read, deny\n", i, i)
		}
		s, file := storetest.Open(t, "p, auditor, /c/**, read, allow\n"+b.String()+role, nil)
		world.Write(t, file, "p, auditor, /c/**, read, allow\n"+b.String())
		if err := s.Reload(t.Context()); (err != nil) != row.held || row.held && !strings.Contains(err.Error(), "[policy-cut]") {
			t.Errorf("%d lines: %v", row.lines, err)
		}
	}
}
