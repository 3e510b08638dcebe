package lint

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"securefiles/policy"
	"securefiles/policy/internal/world"

	"github.com/google/go-cmp/cmp"
)

// checkAt returns what is found at a moment.
func checkAt(t *testing.T, model, text string, at time.Time) []string {
	t.Helper()
	source := policy.Files{Model: model, Policy: filepath.Join(t.TempDir(), "policy.csv")}
	world.Write(t, source.Policy, text)
	var got []string
	for _, f := range Check(t.Context(), source, &Options{Options: policy.Options{Now: func() time.Time { return at }}}) {
		got = append(got, strings.TrimPrefix(f.String(), source.Policy+":"))
	}
	return got
}

func TestLinesThatHaveEnded(t *testing.T) {
	const text = `p, alice, /own/**, read, allow, _, 2026-06-30
p, editor, /project/**, read, allow
p, editor, /project/hr/**, read, deny, _, 2026-06-30 12:00:00
p, editor, /project/board/**, read, deny, 2027-01-01, _
g, bob, editor, _, 2026-06-30
g, carol, editor
p, trainee, /courses/**, read, allow
g, dave, trainee, 2026-01-01, 2026-06-30
`
	for _, tt := range []struct {
		at   time.Time
		want []string
	}{
		{time.Date(2026, 6, 30, 11, 0, 0, 0, time.UTC), nil},
		{time.Date(2026, 6, 30, 12, 0, 0, 0, time.UTC), []string{"3: warning: ended at 2026-06-30 12:00:00, and denies nothing any more: remove it [ended]"}},
		{time.Date(2026, 7, 1, 0, 0, 0, 0, time.UTC), []string{
			"1: warning: ended on 2026-06-30, and allows nothing any more: remove it [ended]",
			"3: warning: ended at 2026-06-30 12:00:00, and denies nothing any more: remove it [ended]",
			"5: warning: ended on 2026-06-30, and gives nothing any more: remove it [ended]",
			"8: warning: ended on 2026-06-30, and gives nothing any more: remove it, and with it the lines of \"trainee\", which nobody else has: without this line a user who is called so would have them [ended]",
		}},
	} {
		if diff := cmp.Diff(tt.want, checkAt(t, "", text, tt.at)); diff != "" {
			t.Errorf("%s: %s", tt.at, diff)
		}
	}
}

// An end beside a line that has none ends nothing: the contractor keeps the role.
func TestAnEndOfARoleThatAnotherLineOutlasts(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	const lines = "p, editor, /a/**, read, allow\n"
	for _, tt := range []struct{ name, text, want string }{
		{"a line without an end", "g, carol, editor\ng, carol, editor, _, 2026-12-31\n", "3: warning: makes no difference: line 2 gives the same at all of that time [redundant]"},
		{"below it", "g, carol, editor, _, 2026-12-31\ng, carol, editor\n", "2: warning: makes no difference: line 3 gives the same at all of that time [redundant]"},
		{"a later end", "g, carol, editor, _, 2027-12-31\ng, carol, editor, 2026-06-01, 2026-12-31\n", "3: warning: makes no difference: line 2 gives the same at all of that time [redundant]"},
		{"the same day in two spellings", "g, carol, editor, _, 2026-12-31\ng, carol, editor, _, 2027-01-01 00:00:00\n", "3: warning: makes no difference: line 2 gives the same at all of that time [redundant]"},
		{"two times", "g, carol, editor, _, 2026-03-31\ng, carol, editor, 2026-06-01, 2026-12-31\n", ""},
		{"two times that meet", "g, carol, editor, _, 2026-07-31\ng, carol, editor, 2026-06-01, 2026-12-31\n", ""},
		{"somebody else", "g, carol, editor\ng, dave, editor, _, 2026-12-31\n", ""},
	} {
		if got := strings.Join(checkAt(t, "", lines+tt.text, now), "\n"); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
	}
}

// A line without an end makes one with an end redundant, never the other way round.
func TestLinesThatOutlastOthers(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, tt := range []struct{ name, text, want string }{
		{"a line that lasts", "p, alice, /a/**, read, allow\np, alice, /a/b, read, allow, _, 2026-12-31\n", "2: warning: makes no difference: line 1 allows all of it [redundant]"},
		{"a line that ends", "p, alice, /a/**, read, allow, _, 2026-12-31\np, alice, /a/b, read, allow\n", ""},
		{"a longer time", "p, alice, /a/**, read, allow, _, 2026-12-31\np, alice, /a/b, read, allow, 2026-12-01, 2026-12-31\n", "2: warning: makes no difference: line 1 allows all of it [redundant]"},
		{"another time", "p, alice, /a/**, read, allow, _, 2026-06-30\np, alice, /a/b, read, allow, 2026-06-01, 2026-12-31\n", ""},
		{"the same lines at other times", "p, alice, /a/**, read, allow, _, 2026-06-30\np, alice, /a/**, read, allow, 2026-06-01, _\n", ""},
		{"a deny that lasts", "p, alice, /a/**, read, deny\np, alice, /a/b, read, allow, _, 2026-12-31\np, alice, /c, read, allow\n", "2: warning: never decides: line 1 denies all of it, and wins [overruled]"},
		{"a deny that ends", "p, alice, /a/**, read, deny, _, 2026-12-31\np, alice, /a/b, read, allow\n", ""},
		{"a role that ends", "p, editor, /a/**, read, allow\np, alice, /a/b, read, allow\ng, alice, editor, _, 2026-12-31\n", ""},
		{"a role that lasts", "p, editor, /a/**, read, allow\np, alice, /a/b, read, allow\ng, alice, editor\n", "2: warning: makes no difference: line 1 allows all of it [redundant]"},
		{"everybody's deny that ends", "p, @anyone, /**, read, deny, _, 2026-12-31\np, alice, /a, read, allow\n", ""},
		{"everybody's by a role that ends", "p, all, /**, read, deny\np, alice, /a, read, allow\ng, @anyone, all, _, 2026-12-31\n", ""},
		{"a line of anonymous that everybody with credentials has", "p, @authenticated, /a, read, allow\np, staff, /a, read, allow\ng, @anyone, staff, _, 2026-12-31\n", ""},
		{"a deny of one level at another time", "p, alice, /a/**, read, allow, 2026-07-01, _\np, alice, /a/*, read, deny, _, 2026-06-30\n", ""},
		{"a deny of one level", "p, alice, /a/**, read, allow, 2026-07-01, _\np, alice, /a/*, read, deny, _, 2026-12-31\n", `2: warning: obj "/a/*" denies one part only: line 1 allows what is deeper [pattern-level]`},
		{"everything to everybody for a time", "p, @anyone, /**, read, allow, _, 2026-12-31\n", "1: warning: lets everybody have everything, without credentials too: name the part that is public, or say @authenticated [open-to-anyone]"},
	} {
		if got := strings.Join(checkAt(t, "", tt.text, now), "\n"); got != tt.want {
			t.Errorf("%s: %s", tt.name, got)
		}
	}
}

// What the matcher asks in another way says nothing of a line's end.
func TestEndsThatDoNotDecideAlone(t *testing.T) {
	text := world.ModelText(t, "default")
	at := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	for matcher, want := range map[string]int{
		"timeMatch(p.from, p.until)":                   1,
		`timeMatch("_", p.until)`:                      1,
		"!timeMatch(p.from, p.until)":                  0,
		`(timeMatch(p.from, p.until) || r.act == "x")`: 0,
		`timeMatch(p.from, p.until) && p.until != "x"`: 0,
		"timeMatch(p.from, p.until) || r.sub == p.sub && r.obj == p.obj && timeMatch(p.from, p.until)": 1,
		"timeMatch(p.from, p.until) || r.sub == p.sub && r.obj == p.obj":                               0,
	} {
		model := filepath.Join(t.TempDir(), "model.conf")
		world.Write(t, model, strings.Replace(text, "timeMatch(p.from, p.until)", matcher, 1))
		got := 0
		for _, f := range checkAt(t, model, "p, alice, /a, read, allow, _, 2026-12-31\n", at) {
			if strings.Contains(f, "[ended]") {
				got++
			} else if !strings.Contains(f, "[model-unused]") {
				t.Errorf("%s: %s", matcher, f)
			}
		}
		if got != want {
			t.Errorf("%s: %d", matcher, got)
		}
	}
}
