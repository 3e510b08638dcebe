package policy_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	_ "time/tzdata"

	"securefiles/authz"
	"securefiles/policy"
	"securefiles/policy/internal/storetest"
	"securefiles/policy/internal/world"
)

// A clock is set by a test.
type clock struct{ at time.Time }

func (c *clock) set(t testing.TB, text string) {
	t.Helper()
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		t.Fatal(err)
	}
	c.at = at
}

func (c *clock) now() time.Time { return c.at }

// The clock of the service decides at each request: nothing is loaded again, and
// nothing is remembered.
func TestAccessUntilADate(t *testing.T) {
	const whole = "p, editor, /project/**, read, allow, _, 2026-12-31\np, carol, /project/**, read, allow\np, @team, /team, read, allow, 2026-06-01, 2026-06-30\n" +
		"p, editor, /project/hr, read, deny, _, 2026-06-30\np, @staff, /staff, read, allow\n" +
		"g, bob, editor\ng, carol, editor, _, 2026-06-30\ng, dave, editor, 2026-07-01, _\ng, @contractors, editor, _, 2026-06-30\n"
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	c := &clock{}
	c.set(t, "2026-01-01T00:00:00Z")
	s, _ := storetest.Open(t, whole, &policy.Options{Now: c.now, Zone: berlin})
	for _, step := range []struct{ at, want string }{
		{"2026-05-31T21:59:59Z", "bob carol contractor; team: no; hr: carol no"},
		{"2026-05-31T22:00:00Z", "bob carol contractor; team: yes; hr: carol no"},
		{"2026-06-30T21:59:59Z", "bob carol contractor; team: yes; hr: carol no"},
		{"2026-06-30T22:00:00Z", "bob carol dave; team: no; hr: carol yes"}, // carol by her own line
		{"2026-12-31T22:59:59Z", "bob carol dave; team: no; hr: carol yes"},
		{"2026-12-31T23:00:00Z", "carol; team: no; hr: carol yes"},
		{"2026-06-30T21:59:59Z", "bob carol contractor; team: yes; hr: carol no"}, // a clock that is put back
	} {
		c.set(t, step.at)
		allowed := func(subject, path string, groups ...string) bool {
			d, err := s.Decide(t.Context(), world.Query(subject, path, groups...))
			return err == nil && d.Effect == authz.Allow
		}
		var names []string
		for _, name := range []string{"bob", "carol", "dave"} {
			if allowed(name, "/project/plan") {
				names = append(names, name)
			}
		}
		if allowed("zoe", "/project/plan", "@contractors") {
			names = append(names, "contractor")
		}
		word := map[bool]string{true: "yes", false: "no"}
		got := fmt.Sprintf("%s; team: %s; hr: carol %s", strings.Join(names, " "), word[allowed("zoe", "/team", "@team")], word[allowed("carol", "/project/hr")])
		if got != step.want {
			t.Errorf("%s: %s, want %s", step.at, got, step.want)
		}
		if got := storetest.Answer(t, s, world.Query("editor", "/project/plan")); !strings.Contains(got, `"editor" is a role`) {
			t.Errorf("%s: a name that was a role is free: %s", step.at, got)
		}
	}
	if s.Status().Generation != 1 {
		t.Error("it was loaded again")
	}
}

// Casbin asks the condition of the first role alone, and of none after a load.
func TestConditionalRolesAtEveryHopAndAfterEveryReload(t *testing.T) {
	const model = `[request_definition]
r = sub, dom, obj, act
[policy_definition]
p = sub, dom, obj, act, eft
[role_definition]
g = _, _, _, (_, _)
g2 = _, _, (_, _)
g3 = _, _
[policy_effect]
e = priority(p.eft) || deny
[matchers]
m = g(r.sub, p.sub, r.dom) && r.dom == p.dom && g2(r.obj, p.obj) && (g3(r.act, p.act) || r.act == p.act)
`
	for hop := range 10 {
		var text strings.Builder
		text.WriteString("p, c9, main, reports, any, deny\np, c9, main, papers, any, allow\np, alice, other, papers, any, allow\ng2, /b, papers\ng2, /a, papers, 0000-01-01 00:00:00, 2026-06-30 12:00:00\ng2, /a, reports, 2026-08-01 00:00:00, _\ng3, read, any\n")
		previous := "alice"
		for i := range 10 {
			next := fmt.Sprintf("c%d", i)
			fmt.Fprintf(&text, "g, %s, %s, main", previous, next)
			if i == hop {
				text.WriteString(", _, 2026-09-01 00:00:00")
			}
			text.WriteString("\n")
			previous = next
		}
		c := &clock{}
		c.set(t, "2026-01-01T00:00:00Z")
		dir := t.TempDir()
		files := policy.Files{Model: filepath.Join(dir, "model.conf"), Policy: filepath.Join(dir, "policy.csv")}
		world.Write(t, files.Model, model)
		world.Write(t, files.Policy, text.String())
		s, err := policy.Open(t.Context(), files, &policy.Options{Now: c.now})
		if err != nil {
			t.Fatal(err)
		}
		for generation := range 2 {
			for _, tt := range []struct{ at, path, domain, want string }{
				{"2026-06-30T11:59:59Z", "/a", "main", "allow policy.csv:2"},
				{"2026-06-30T12:00:00Z", "/a", "main", "deny -"},
				{"2026-08-01T00:00:00Z", "/a", "main", "deny -"}, // after that moment, as TimeMatch
				{"2026-08-01T00:00:01Z", "/a", "main", "deny policy.csv:1"},
				{"2026-08-31T23:59:59Z", "/b", "main", "allow policy.csv:2"},
				{"2026-09-01T00:00:00Z", "/b", "main", "deny -"},
				{"2027-09-01T00:00:00Z", "/b", "other", "allow policy.csv:3"},
			} {
				c.set(t, tt.at)
				q := world.Query("alice", tt.path)
				q.Domain = tt.domain
				got := storetest.Answer(t, s, q)
				if want := strings.Replace(tt.want, " ", fmt.Sprintf(" g%d:", generation+1), 1); got != want {
					t.Errorf("hop %d, load %d, %s %s: %s, want %s", hop, generation+1, tt.at, tt.path, got, want)
				}
			}
			world.Write(t, files.Policy, text.String()+"# again\n")
			if err := s.Reload(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// With subjectPriority a role has its rank whether or not it is had at the moment.
func TestRanksOfRolesThatEnd(t *testing.T) {
	model := strings.NewReplacer("g = _, _", "g = _, _, (_, _)").Replace(world.ModelText(t, "subject"))
	s := storetest.OpenText(t, model, "p, staff, /a/**, read, deny\np, editor, /a/**, read, allow\np, alice, /a/x, read, deny\ng, alice, editor, 2024-01-01, 2024-12-31\ng, alice, editor, 2026-01-01, 2026-12-31\ng, editor, staff, _, 2026-06-30\n")
	for _, tt := range []struct{ at, path, want string }{
		{"2026-02-01", "/a/x", "deny g1:policy.csv:3"}, {"2026-02-01", "/a/y", "allow g1:policy.csv:2"},
		{"2025-02-01", "/a/y", "deny g1:-"}, {"2024-02-01", "/a/y", "allow g1:policy.csv:2"}, {"2026-08-01", "/a/y", "allow g1:policy.csv:2"}, {"2027-01-01", "/a/x", "deny g1:policy.csv:3"},
	} {
		q := world.Query("alice", tt.path)
		at, err := time.Parse(time.DateOnly, tt.at)
		if err != nil {
			t.Fatal(err)
		}
		q.At = at
		if got := storetest.Answer(t, s, q); got != tt.want {
			t.Errorf("%s %s: %s, want %s", tt.at, tt.path, got, tt.want)
		}
	}
}

// A line that is cut may lose its end, and would hold at any time.
func TestCutThatLosesAnEndIsHeld(t *testing.T) {
	for _, last := range []string{"g, bob, editor, _, 2020-12-31", "p, bob, /project/**, read, allow, _, 2020-12-31", "g, bob, editor, _, 2020-06-30 12:00:00", `p, bob, /project/**, read, allow, "_", "2020-12-31"`} {
		begin := "p, editor, /project/**, read, allow\np, zoe, /z, read, allow\ng, zoe, editor\n"
		s, file := storetest.Open(t, begin+last+"\n", nil)
		q := world.Query("bob", "/project/plan")
		q.At = time.Date(2020, 6, 30, 18, 0, 0, 0, time.UTC)
		before := storetest.Answer(t, s, q)
		for _, first := range []string{"", begin[:45]} { // of what was cut before
			for n := 1; n < len(last); n++ {
				if first != "" {
					world.Write(t, file, first)
					_ = s.Reload(t.Context()) // it may be held
				}
				world.Write(t, file, begin+last[:n])
				err := s.Reload(t.Context())
				q.At = time.Now()
				if d, _ := s.Decide(t.Context(), q); d.Effect == authz.Allow {
					t.Errorf("%q gives more than the whole: %v", last[:n], err)
				}
				q.At = time.Date(2020, 6, 30, 18, 0, 0, 0, time.UTC)
				if d, _ := s.Decide(t.Context(), q); d.Effect == authz.Allow && strings.HasPrefix(before, "deny") {
					t.Errorf("%q lasts longer than the whole: %v", last[:n], err)
				}
				world.Write(t, file, begin+last+"\n")
				if err := s.Reload(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
		}
		world.Write(t, file, begin+strings.Replace(strings.Replace(last, ", _, 2020-12-31", "", 1), ", _, 2020-06-30 12:00:00", "", 1))
		var refused *policy.LoadError
		if err := s.Reload(t.Context()); !strings.Contains(last, `"`) && (!errors.As(err, &refused) || !strings.Contains(err.Error(), "cut in line 4, which has a beginning or an end")) {
			t.Errorf("%s: %v", last, err)
		}
	}
}

// What is left of a policy whose lines end gives nobody more, whenever it is asked.
func TestNoCutOfLinesThatEndGivesAnybodyMore(t *testing.T) {
	whole := "p, carol, /project/**, read, allow\np, clerk, /project/**, read, allow\np, editor, /project/hr/**, read, deny, _, 2026-06-30\np, staff, /project/board/**, read, deny\n" +
		"g, clerk, staff, _, 2026-06-30\ng, carol, staff, 2026-07-01, _\ng, alice, clerk\ng, alice, staff\ng, bob, clerk, _, 2026-03-31\ng, bob, editor\n"
	moments := []time.Time{time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(2026, 5, 1, 0, 0, 0, 0, time.UTC), time.Date(2026, 8, 1, 0, 0, 0, 0, time.UTC)}
	s, file := storetest.Open(t, whole, &policy.Options{AllowShrink: true})
	decide := func() map[string]bool {
		all := map[string]bool{}
		for _, subject := range []string{"alice", "bob", "carol", "clerk", "editor", "staff"} {
			for _, path := range []string{"/project/plan", "/project/hr/pay", "/project/board/minutes"} {
				for _, at := range moments {
					q := world.Query(subject, path)
					q.At = at
					d, err := s.Decide(t.Context(), q)
					all[fmt.Sprint(subject, " ", path, " ", at)] = err == nil && d.Effect == authz.Allow
				}
			}
		}
		return all
	}
	full, taken, held := decide(), 0, 0
	for n := range len(whole) {
		for _, text := range []string{whole[:n], whole[:max(0, n-30)]} {
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := s.Reload(t.Context()); err == nil {
				taken++
			} else {
				held++
			}
			for what, allowed := range decide() {
				if allowed && !full[what] {
					t.Errorf("cut to …%q: %s is allowed", text[max(0, len(text)-30):], what)
				}
			}
		}
		world.Write(t, file, whole)
		if err := s.Reload(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if taken == 0 || held == 0 {
		t.Errorf("%d cuts were taken, %d held", taken, held)
	}
}

// What belongs to one answer is decided at one moment.
func TestQuestionsThatBelongTogetherAreOfOneMoment(t *testing.T) {
	c := &clock{}
	c.set(t, "2026-06-30T12:00:00Z")
	s, _ := storetest.Open(t, "p, bob, /a, read, allow, _, 2026-06-30\n", &policy.Options{Now: c.now, Zone: time.UTC})
	batch := s.Now()
	c.set(t, "2026-07-01T00:00:00Z")
	for _, one := range []struct {
		by   authz.Decider
		want authz.Effect
	}{{batch, authz.Allow}, {s.Now(), authz.Deny}, {s, authz.Deny}} {
		if d, err := one.by.Decide(t.Context(), world.Query("bob", "/a")); err != nil || d.Effect != one.want {
			t.Errorf("%T: %+v %v", one.by, d, err)
		}
	}
}
