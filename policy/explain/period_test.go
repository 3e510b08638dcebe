package explain

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"securefiles/authz"
	"securefiles/policy"
	"securefiles/policy/internal/storetest"
	"securefiles/policy/internal/world"

	"github.com/google/go-cmp/cmp"
)

const datedPolicy = `p, editor, /project/**, read, allow
p, alice, /own/**, read, allow, _, 2026-12-31
p, alice, /later, read, allow, 2027-02-01 08:00:00, _
p, staff, /project/hr, read, deny, 2026-01-01, 2026-12-31
g, bob, editor, _, 2026-12-31
g, carol, trainee, 2027-03-01, _
g, carol, trainee, 2027-01-01, 2027-01-31
g, trainee, editor
g, @contractors, editor, _, 2026-06-30
g, editor, staff
`

func moment(t testing.TB, text string) time.Time {
	t.Helper()
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		t.Fatal(err)
	}
	return at
}

// For a default deny, explain says of the nearest lines what has ended or not begun.
func TestExplainSaysEndedOn(t *testing.T) {
	s, _ := storetest.Open(t, datedPolicy, nil)
	for _, tt := range []struct {
		name, subject, path, at string
		want                    string // "" where it is allowed
		groups                  []string
	}{
		{"a line that holds", "alice", "/own/x", "2026-12-31T23:59:59Z", "", nil},
		{"a line that has ended", "alice", "/own/x", "2027-01-01T00:00:00Z", "fails  timeMatch(p.from, p.until): ended on 2026-12-31", nil},
		{"a line that has not begun", "alice", "/later", "2027-02-01T08:00:00Z", "fails  timeMatch(p.from, p.until): begins at 2027-02-01 08:00:00", nil},
		{"a role that has ended", "bob", "/project/x", "2027-01-01T00:00:00Z", `fails  g(r.sub, p.sub): line 5, by which "bob" has the role "editor", ended on 2026-12-31`, nil},
		{"a role that has not begun", "carol", "/project/x", "2026-12-01T00:00:00Z", `fails  g(r.sub, p.sub): line 7, by which "carol" has the role "trainee", begins on 2027-01-01`, nil},
		{"a role between two times", "carol", "/project/x", "2027-02-15T00:00:00Z", `line 7, by which "carol" has the role "trainee", ended on 2027-01-31`, nil},
		{"a role of a group", "dave", "/project/x", "2026-07-01T00:00:00Z", `line 9, by which "@contractors" has the role "editor", ended on 2026-06-30`, []string{"@contractors"}},
		{"a role that nobody gave", "eve", "/project/x", "2027-01-01T00:00:00Z", `"eve" is not "editor" and has no role that leads to it`, nil},
	} {
		q := world.Query(tt.subject, tt.path, tt.groups...)
		q.At = moment(t, tt.at)
		x := explained(t, s, q)
		switch text := x.String(); {
		case x.Allowed != (tt.want == ""):
			t.Errorf("%s: %s", tt.name, text)
		case !strings.Contains(text, tt.want):
			t.Errorf("%s: want %s in\n%s", tt.name, tt.want, text)
		}
	}
}

// A chain goes by the lines that hold, and a line without dates says nothing of them.
func TestExplainNamesTheLineThatHolds(t *testing.T) {
	s, _ := storetest.Open(t, datedPolicy, nil)
	q := world.Query("carol", "/project/x")
	for at, line := range map[string]int{"2027-01-15T00:00:00Z": 7, "2027-03-15T00:00:00Z": 6} {
		q.At = moment(t, at)
		x := explained(t, s, q)
		if diff := cmp.Diff([]Step{{"carol", 0}, {"trainee", line}, {"editor", 8}}, x.Deciding.Chain); diff != "" {
			t.Errorf("%s: %s", at, diff)
		}
		if x.Deciding.Text != "p, editor, /project/**, read, allow" {
			t.Errorf("%s: %s", at, x.Deciding.Text)
		}
	}
	q = world.Query("alice", "/own/x")
	q.At = moment(t, "2026-01-01T00:00:00Z")
	if x := explained(t, s, q); x.Deciding.Text != "p, alice, /own/**, read, allow, _, 2026-12-31" {
		t.Error(x.Deciding.Text)
	}
	q = world.Query("eve", "/project/x")
	if text := explained(t, s, q).String(); strings.Contains(text, "timeMatch") {
		t.Errorf("a line without dates is asked for them:\n%s", text)
	}
}

func TestWhoAndWhatAtAMoment(t *testing.T) {
	now := moment(t, "2026-06-30T23:59:59Z")
	s, _ := storetest.Open(t, datedPolicy, &policy.Options{Now: func() time.Time { return now }})
	who := func(q authz.Query) string {
		w, err := Who(t.Context(), s, q)
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, a := range w.Allowed {
			names = append(names, a.Name)
		}
		return strings.Join(names, " ")
	}
	q := world.Query("", "/project/x")
	if got := who(q); got != "bob @contractors" {
		t.Errorf("now: %s", got)
	}
	q.At = moment(t, "2027-01-01T00:00:00Z")
	if got := who(q); got != "carol" {
		t.Errorf("later: %s", got)
	}
	what := func(subject string, at time.Time) string {
		q := authz.Query{Principal: authz.Principal{Subject: subject}.WithBuiltinGroups(), Action: "read", At: at}
		w, err := What(t.Context(), s, q)
		if err != nil {
			t.Fatal(err)
		}
		var patterns []string
		for _, g := range w.Grants {
			patterns = append(patterns, g.Line.Effect+" "+g.Pattern)
		}
		return strings.Join(patterns, ", ")
	}
	for _, tt := range []struct{ subject, at, want string }{
		{"alice", "2026-01-01T00:00:00Z", "allow /own/**"},
		{"alice", "2027-01-01T00:00:00Z", ""},
		{"alice", "2027-02-01T09:00:00Z", "allow /later"},
		{"bob", "2026-01-01T00:00:00Z", "allow /project/**, deny /project/hr"},
		{"bob", "2027-01-01T00:00:00Z", ""},
		{"carol", "2027-01-01T00:00:00Z", "allow /project/**"},
	} {
		if got := what(tt.subject, moment(t, tt.at)); got != tt.want {
			t.Errorf("%s at %s: %q, want %q", tt.subject, tt.at, got, tt.want)
		}
	}
}

// A longer time is a change, of the moments at which it is one.
func TestCompareAtAMoment(t *testing.T) {
	opts := &policy.Options{Now: func() time.Time { return moment(t, "2028-01-01T00:00:00Z") }}
	before, _ := storetest.Open(t, datedPolicy, opts)
	after, _ := storetest.Open(t, strings.NewReplacer("g, bob, editor, _, 2026-12-31", "g, bob, editor, _, 2027-12-31", "/own/**, read, allow, _, 2026-12-31", "/own/**, read, allow").Replace(datedPolicy), opts)
	for at, want := range map[string]string{"2026-12-31T00:00:00Z": "", "2027-06-01T00:00:00Z": "alice /own/x, bob /project/x", "": "alice /own/x"} {
		opts := &DiffOptions{}
		if at != "" {
			opts.At = moment(t, at)
		}
		d, err := Compare(t.Context(), before, after, opts)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, c := range d.Gained {
			got = append(got, strings.Join(c.Names, "+")+" "+c.Path)
		}
		if strings.Join(got, ", ") != want || len(d.Lost) > 0 {
			t.Errorf("%s: gained %v, want %s; lost %v", at, got, want, d.Lost)
		}
	}
}

// Where no moment is given, diff says who gains by a date that is moved, or is to
// come: "0 gained" holds for all moments.
func TestDiffFindsWhatIsGainedLater(t *testing.T) {
	now := &policy.Options{Now: func() time.Time { return moment(t, "2026-12-01T12:00:00Z") }}
	const hidden = "p, bob, /a/x, read, deny, _, 2027-03-31\n"
	for _, tt := range []struct {
		name, before, after string
		want                string
	}{
		{"an end that is gone", "p, bob, /a, read, allow, _, 2026-12-31", "p, bob, /a, read, allow", "+bob /a 2027-01-01"},
		{"a later end", "p, ed, /a, read, allow\ng, bob, ed, _, 2026-12-31", "p, ed, /a, read, allow\ng, bob, ed, _, 2027-12-31", "+bob /a 2027-01-01"},
		{"an end that comes sooner", "p, bob, /a, read, allow", "p, bob, /a, read, allow, _, 2026-12-31", "-bob /a 2027-01-01"},
		{"a line that begins later", "p, bob, /a, read, allow", "p, bob, /a, read, allow\np, bob, /b, read, allow, 2027-02-01, _", "+bob /b 2027-02-01"},
		{"a role that begins later", "p, ed, /a, read, allow\ng, carl, ed", "p, ed, /a, read, allow\ng, carl, ed\ng, bob, ed, 2027-02-01, _", "+bob /a 2027-02-01"},
		{"a deny that ends", "p, bob, /a/**, read, allow\np, bob, /a/x, read, deny", "p, bob, /a/**, read, allow\n" + hidden, "+bob /a/x 2027-04-01"},
		{"hidden by a deny that ends", hidden + "p, carl, /b, read, allow", hidden + "p, carl, /b, read, allow\np, bob, /a/x, read, allow", "+bob /a/x 2027-04-01"},
		{"now, and told once", "p, carl, /b, read, allow", "p, carl, /b, read, allow, _, 2030-12-31\np, bob, /a, read, allow, _, 2028-12-31", "+bob /a now, -carl /b 2031-01-01"},
		{"at all moments, and told once", "p, carl, /b, read, allow, _, 2030-12-31", "p, carl, /b, read, allow, _, 2030-12-31\np, bob, /a, read, allow", "+bob /a now"},
		{"at several that are to come, and told of the first", "p, carl, /b, read, allow, _, 2030-12-31", "p, carl, /b, read, allow, _, 2030-12-31\np, bob, /a, read, allow, 2027-02-01, _", "+bob /a 2027-02-01"},
		{"of another name later", "p, carl, /b, read, allow", "p, carl, /b, read, allow\np, ed, /a, read, allow\ng, bob, ed\ng, carl, ed, 2027-02-01, _", "+bob /a now, +carl /a 2027-02-01"},
		{"dates that are over", "p, bob, /a, read, allow\np, bob, /b, read, allow, _, 2020-01-01", "p, bob, /a, read, allow\np, bob, /b, read, allow, _, 2021-01-01", ""},
		{"the same", hidden, hidden, ""},
	} {
		before, _ := storetest.Open(t, tt.before+"\n", now)
		after, _ := storetest.Open(t, tt.after+"\n", now)
		d, err := Compare(t.Context(), before, after, nil)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for sign, list := range map[string][]Change{"+": d.Gained, "-": d.Lost} {
			for _, c := range list {
				when := "now"
				if !c.From.IsZero() {
					when = c.From.Format(time.DateOnly)
				}
				got = append(got, sign+strings.Join(c.Names, "+")+" "+c.Path+" "+when)
			}
		}
		slices.Sort(got)
		if strings.Join(got, ", ") != tt.want || len(d.Untried) > 0 {
			t.Errorf("%s: %v, want %s; untried %v", tt.name, got, tt.want, d.Untried)
		}
	}
}

// A million dates cost no more than some comparisons, and diff says what it left out.
func TestDiffSaysWhichMomentsItLeftOut(t *testing.T) {
	var text strings.Builder
	for day := 1; day <= 28; day++ {
		fmt.Fprintf(&text, "p, u%d, /a, read, allow, _, 2099-02-%02d\n", day, day)
	}
	before, _ := storetest.Open(t, text.String(), nil)
	after, _ := storetest.Open(t, text.String()+"p, bob, /a, read, allow, _, 2099-01-01\n", nil)
	for at, want := range map[string]int{"": 1, "2098-01-01T00:00:00Z": 0} {
		opts := &DiffOptions{laterLines: 10}
		if at != "" {
			opts.At = moment(t, at)
		}
		if d, err := Compare(t.Context(), before, after, opts); err != nil || len(d.Untried) != want {
			t.Errorf("at %q: %v, %v", at, d.Untried, err)
		}
	}
}

// The same lines in another zone end at another moment.
func TestCompareZones(t *testing.T) {
	before, _ := storetest.Open(t, datedPolicy, nil)
	after, _ := storetest.Open(t, datedPolicy, &policy.Options{Zone: time.FixedZone("west", -3600)})
	for at, want := range map[string]int{"2026-12-31T23:30:00Z": 0, "2027-01-01T00:30:00Z": 2, "2027-01-01T01:30:00Z": 0} {
		d, err := Compare(t.Context(), before, after, &DiffOptions{At: moment(t, at)})
		if err != nil {
			t.Fatal(err)
		}
		if len(d.Gained) != want {
			t.Errorf("%s: gained %+v", at, d.Gained)
		}
	}
}

func TestAskAtAMoment(t *testing.T) {
	downloads, err := authz.NewDownloads(&authz.Download{Name: "main", URL: "/downloads/", Internal: "/protected/"})
	if err != nil {
		t.Fatal(err)
	}
	east := time.FixedZone("east", 3600)
	for text, want := range map[string]string{"": "0001-01-01T00:00:00Z", "2026-12-31": "2026-12-30T23:00:00Z", "2026-12-31 18:00:00": "2026-12-31T17:00:00Z", "2026-12-31T18:00:00Z": "2026-12-31T18:00:00Z"} {
		q, err := (&Ask{Subject: "bob", Path: "/a", Action: "read", At: text}).Query(downloads, east)
		if err != nil || !q.At.Equal(moment(t, want)) {
			t.Errorf("%q: %s, %v", text, q.At, err)
		}
	}
	for _, text := range []string{"tomorrow", "2026-02-30", "_", "18:00"} {
		if _, err := (&Ask{Subject: "bob", Path: "/a", Action: "read", At: text}).Query(downloads, east); err == nil || !strings.HasPrefix(err.Error(), "at: ") {
			t.Errorf("%q: %v", text, err)
		}
	}
}
