package table

import (
	"strings"
	"testing"
	"time"
	_ "time/tzdata"

	"securefiles/policy/internal/model"
	"securefiles/policy/internal/world"
)

func zone(t testing.TB, name string) *time.Location {
	t.Helper()
	z, err := time.LoadLocation(name)
	if err != nil {
		t.Fatal(err)
	}
	return z
}

func TestPeriod(t *testing.T) {
	for _, tt := range []struct{ name, zone, begin, end, first, last, before, after string }{
		{"through a day", "UTC", "_", "2026-12-31", "", "2026-12-31T23:59:59.999999999Z", "", "2027-01-01T00:00:00Z"},
		{"from a day on", "UTC", "2026-12-31", "_", "2026-12-31T00:00:00Z", "", "2026-12-30T23:59:59.999999999Z", ""},
		{"one day", "UTC", "2026-12-31", "2026-12-31", "2026-12-31T00:00:00Z", "2026-12-31T23:59:59.999999999Z", "2026-12-30T23:59:59.999999999Z", "2027-01-01T00:00:00Z"},
		{"a day elsewhere", "Europe/Berlin", "2026-12-31", "2026-12-31", "2026-12-30T23:00:00Z", "2026-12-31T22:59:59Z", "2026-12-30T22:59:59Z", "2026-12-31T23:00:00Z"},
		{"a day of 23 hours", "Europe/Berlin", "2026-03-29", "2026-03-29", "2026-03-28T23:00:00Z", "2026-03-29T21:59:59Z", "2026-03-28T22:59:59Z", "2026-03-29T22:00:00Z"},
		{"a day of 25 hours", "Europe/Berlin", "2026-10-25", "2026-10-25", "2026-10-24T22:00:00Z", "2026-10-25T22:59:59Z", "2026-10-24T21:59:59Z", "2026-10-25T23:00:00Z"},
		{"a day without midnight", "America/Sao_Paulo", "2018-11-04", "2018-11-04", "2018-11-04T03:00:00Z", "2018-11-05T01:59:59Z", "2018-11-04T02:59:59Z", "2018-11-05T02:00:00Z"},
		{"the day before one without midnight", "America/Sao_Paulo", "_", "2018-11-03", "", "2018-11-04T02:59:59Z", "", "2018-11-04T03:00:00Z"},
		{"the day before one that a place left out", "Pacific/Apia", "2011-12-29", "2011-12-29", "2011-12-29T10:00:00Z", "2011-12-30T09:59:59Z", "2011-12-29T09:59:59Z", "2011-12-30T10:00:00Z"},
		{"a new year without midnight", "Africa/Bissau", "1975-01-01", "1975-01-01", "1975-01-01T01:00:00Z", "1975-01-01T23:59:59Z", "1975-01-01T00:59:59Z", "1975-01-02T00:00:00Z"},
		{"a leap day", "UTC", "2028-02-29", "2028-02-29", "2028-02-29T00:00:00Z", "2028-02-29T23:59:59Z", "2028-02-28T23:59:59Z", "2028-03-01T00:00:00Z"},
		{"moments, as Casbin's TimeMatch", "UTC", "2026-01-01 00:00:00", "2026-01-01 12:00:00", "2026-01-01T00:00:00.000000001Z", "2026-01-01T11:59:59.999999999Z", "2026-01-01T00:00:00Z", "2026-01-01T12:00:00Z"},
		{"a moment elsewhere", "America/New_York", "_", "2026-01-01 12:00:00", "", "2026-01-01T16:59:59Z", "", "2026-01-01T17:00:00Z"},
		{"a moment with an offset", "America/New_York", "_", "2026-01-01T12:00:00+01:00", "", "2026-01-01T10:59:59Z", "", "2026-01-01T11:00:00Z"},
		{"the year 0", "UTC", "0000-01-01 00:00:00", "0000-01-02 00:00:00", "0000-01-01T00:00:01Z", "0000-01-01T23:59:59Z", "0000-01-01T00:00:00Z", "2026-01-01T00:00:00Z"},
		{"an end when time began", "UTC", "_", "0001-01-01 00:00:00", "0000-01-01T00:00:00Z", "", "", "2026-01-01T00:00:00Z"},
		{"a day's end when time began", "UTC", "_", "0000-12-31", "0000-01-01T00:00:00Z", "", "", "2026-01-01T00:00:00Z"},
		{"the last day that there is", "UTC", "_", "9999-12-31", "", "9999-12-31T23:59:59Z", "", "+10000"},
		{"always", "UTC", "_", "_", "0000-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p, err := ParsePeriod(tt.begin, tt.end, zone(t, tt.zone))
			if err != nil {
				t.Fatal(err)
			}
			check := func(text string, holds, ended bool) {
				at, err := time.Parse(time.RFC3339Nano, text)
				if text == "+10000" {
					at, err = time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC), nil
				}
				switch {
				case text == "":
				case err != nil:
					t.Fatal(err)
				case p.Holds(at) != holds || p.Ended(at) != ended:
					t.Errorf("%s: holds %t, ended %t", text, p.Holds(at), p.Ended(at))
				}
			}
			check(tt.first, true, false)
			check(tt.last, true, false)
			check(tt.before, false, false)
			check(tt.after, false, true)
		})
	}
}

// A day begins at the first moment that the clocks of the place show it, and ends
// where the next one begins.
func TestDaysAreThoseOfTheClocks(t *testing.T) {
	for _, name := range []string{"UTC", "Europe/Berlin", "America/New_York", "America/Sao_Paulo", "Africa/Cairo", "Asia/Beirut", "America/Havana", "Australia/Lord_Howe", "Asia/Kolkata", "Etc/GMT+12", "Pacific/Kiritimati"} {
		z := zone(t, name)
		for day := time.Date(1995, 1, 1, 0, 0, 0, 0, time.UTC); day.Year() < 2030; day = day.AddDate(0, 0, 1) {
			text := day.Format(time.DateOnly)
			p, err := ParsePeriod(text, text, z)
			if err != nil {
				t.Fatal(err)
			}
			before, first, last, after := p.From.Add(-1).In(z), p.From.In(z), p.Until.Add(-1).In(z), p.Until.In(z)
			if before.Format(time.DateOnly) >= text || first.Format(time.DateOnly) != text || last.Format(time.DateOnly) != text || after.Format(time.DateOnly) <= text {
				t.Fatalf("%s in %s: %s to %s", text, name, first, last)
			}
		}
	}
}

func TestNoPeriod(t *testing.T) {
	berlin := zone(t, "Europe/Berlin")
	for _, tt := range []struct{ begin, end, want string }{
		{"2026-12-31", "2026-12-30", "begins at 2026-12-31 and ends at 2026-12-30, so it never holds"},
		{"2026-12-31 10:00:00", "2026-12-31 10:00:00", "so it never holds"},
		{"2026-12-31T10:00:00Z", "2026-12-31 11:00:00", "so it never holds"}, // an hour behind in Berlin
		{"_", "2026-02-29", `the end "2026-02-29" does not exist`},
		{"_", "2100-02-29", "does not exist"},
		{"2026-13-01", "_", `the beginning "2026-13-01" does not exist`},
		{"2026-00-01", "_", "does not exist"},
		{"_", "2026-12-31 24:00:00", "does not exist"},
		{"_", "2026-12-31 23:59:60", "does not exist"},
		{"_", "2026-03-29 02:30:00", "is a time that the clocks of Europe/Berlin skip"},
		{"_", "2026-12-31T23:59:59", "is no time"},
		{"_", "2026-12-31 18:00:00 ", "is no time"},
		{"_", " 2026-12-31", "is no time"},
		{"_", `"2026-12-31"`, "is no time"},
		{"_", "20261231", "is no time"},
		{"_", "2026-W53-4", "is no time"},
		{"_", "-001-12-31", "is no time"},
		{"_", "1798675200", "is no time"},
		{"_", "Infinity", "is no time"},
		{"_", "", "is no time"},
		{"__", "_", "is no time"},
		{"allow", "_", "is no time"},
	} {
		if p, err := ParsePeriod(tt.begin, tt.end, berlin); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s, %s: %+v, %v", tt.begin, tt.end, p, err)
		}
	}
}

func FuzzPeriod(f *testing.F) {
	f.Add("_", "2026-12-31")
	f.Add("2026-12-31 18:00:00", "2026-12-31T18:00:00+01:00")
	berlin := zone(f, "Europe/Berlin")
	f.Fuzz(func(t *testing.T, begin, end string) {
		p, err := ParsePeriod(begin, end, berlin)
		switch {
		case err != nil:
		case (end == Open) != p.Until.IsZero():
			t.Errorf("%q ends at %s", end, p.Until)
		case !p.Until.IsZero() && (p.Holds(p.Until) || !p.Ended(p.Until)):
			t.Error("it holds behind its end")
		case !p.From.IsZero() && (!p.Holds(p.From) || p.Holds(p.From.Add(-1))):
			t.Error("it does not begin with its beginning")
		}
	})
}

// The same names with other dates are no duplicate: the role is had in each period.
func TestTheSameRoleAtSeveralTimes(t *testing.T) {
	tab, findings := load(t, world.Model(t, "default"), "p, editor, /a, read, allow\ng, bob, editor, _, 2026-01-31\ng, bob, editor, 2026-03-01, _\ng, bob, editor, _, 2026-01-31\np, editor, /a, read, allow, _, _\n")
	if len(findings) != 2 || findings[0].Rule != "duplicate" || findings[0].Line != 4 || findings[1].Rule != "duplicate" || findings[1].Line != 5 {
		t.Fatal(findings)
	}
	edges := tab.Edges["g"]
	for day, want := range map[string]bool{"2026-01-31": true, "2026-02-01": false, "2026-02-28": false, "2026-03-01": true} {
		at, err := ParseMoment(day, time.UTC)
		if err != nil {
			t.Fatal(err)
		}
		if got := tab.Holds(edges[0], at) || tab.Holds(edges[1], at); got != want {
			t.Errorf("%s: %t", day, got)
		}
	}
}

// Whoever copies the built-in model and forgets timeMatch has lines that never end.
func TestDatesThatNothingAsks(t *testing.T) {
	for matcher, refused := range map[string]bool{
		"r.act == p.act": true,
		"r.act == p.act && timeMatch(p.from, \"_\")":  true,
		"r.act == p.act && timeMatch(\"_\", p.until)": false,
		"r.act == p.act && p.until != \"x\"":          false,
	} {
		text := strings.Replace(model.Default, `(r.act == p.act || p.act == "*") && timeMatch(p.from, p.until)`, matcher, 1)
		m, err := model.Parse("model.conf", text)
		if err != nil {
			t.Fatal(err)
		}
		if _, findings := load(t, m, "p, alice, /a/x, read, allow, _, _\n"); len(findings) > 0 {
			t.Errorf("%s: no dates: %v", matcher, findings)
		}
		_, findings := load(t, m, "p, alice, /a/x, read, allow, _, 2026-12-31\n")
		if refused != (len(findings) == 1) || refused && (findings[0].Rule != "date" || findings[0].Column != 33 || !strings.Contains(findings[0].Message, `until "2026-12-31" has no effect, and the line would hold at any time`)) {
			t.Errorf("%s: %+v", matcher, findings)
		}
	}
}
