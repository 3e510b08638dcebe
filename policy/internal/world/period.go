package world

import (
	"encoding/csv"
	"errors"
	"fmt"
	"strings"
	"time"

	"securefiles/policy/internal/model"

	"pgregory.net/rapid"
)

// A drawnTime is a day or a moment of drawn policies, with the first moment that it
// begins and the first behind it, in UTC: written down and not computed, for the code
// that computes is tested against it.
type drawnTime struct{ text, begins, ends string }

func drawnTimes() []drawnTime {
	return []drawnTime{
		{"0000-01-01 00:00:00", "0000-01-01T00:00:00.000000001Z", "0000-01-01T00:00:00Z"},
		{"2024-02-29", "2024-02-29T00:00:00Z", "2024-03-01T00:00:00Z"},
		{"2026-06-30", "2026-06-30T00:00:00Z", "2026-07-01T00:00:00Z"},
		{"2026-06-30 12:00:00", "2026-06-30T12:00:00.000000001Z", "2026-06-30T12:00:00Z"},
		{"2026-09-01T00:00:00+02:00", "2026-08-31T22:00:00.000000001Z", "2026-08-31T22:00:00Z"},
		{"2026-12-31", "2026-12-31T00:00:00Z", "2027-01-01T00:00:00Z"},
		{"9999-12-30 00:00:00", "9999-12-30T00:00:00.000000001Z", "9999-12-30T00:00:00Z"},
	}
}

// moments are those at which the answer may change, and one before each.
func moments() []time.Time {
	var all []time.Time
	for _, d := range drawnTimes() {
		for _, text := range []string{d.begins, d.ends} {
			t := instant(text)
			all = append(all, t.Add(-1), t)
		}
	}
	return all
}

func instant(text string) time.Time {
	t, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		panic(err) // it stands above
	}
	return t
}

// DrawMoment draws one that matters to a drawn policy.
func DrawMoment(t *rapid.T) time.Time { return rapid.SampledFrom(moments()).Draw(t, "moment") }

func drawTime(t *rapid.T) string {
	texts := []string{"_", "_"}
	for _, d := range drawnTimes() {
		texts = append(texts, d.text)
	}
	return OneOf(t, texts...)
}

// drawPeriods gives the lines of a shape a beginning and an end, some of the time.
func (s *Shape) drawPeriods(t *rapid.T) {
	if Chance(t, 3) {
		s.Policy = append(s.Policy, "from", "until")
	}
	for i, role := range s.Roles {
		ranks := s.Effect == SubjectPriority && strings.HasPrefix(role, "g ") // by the lines, whether or not they hold
		if Chance(t, 3) && !ranks {
			s.Roles[i] += ", (_, _)"
		}
	}
}

// WithPeriods makes a matcher ask for the beginning and the end of a line, in any way,
// where lines have them.
func (s *Shape) WithPeriods(t *rapid.T, matcher string) string {
	if s.Policy[len(s.Policy)-1] != "until" {
		return matcher
	}
	const asks = "timeMatch(p.from, p.until)"
	return OneOf(t,
		"("+matcher+") && "+asks, "("+matcher+") && "+asks, asks+" && ("+matcher+")", "("+matcher+") && !"+asks, "("+matcher+") || "+asks+" && r.sub == p.sub",
		"("+matcher+`) && timeMatch("_", p.until)`, asks+" ? ("+matcher+") : r.sub == p.sub", "("+matcher+") && ("+asks+" == true)", `(p.until == "_" || `+asks+") && ("+matcher+")")
}

// isTime is Casbin's TimeMatch at a moment, for the times of drawn policies.
func isTime(begin, end string, at time.Time) (bool, error) {
	for _, text := range []string{begin, end} {
		known := text == "_"
		for _, d := range drawnTimes() {
			if d.text != text {
				continue
			}
			known = true
			if text == begin && at.Before(instant(d.begins)) || text == end && !at.Before(instant(d.ends)) {
				return false, nil
			}
		}
		if !known {
			return casbins(begin, end, at)
		}
	}
	return true, nil
}

// casbins is Casbin's own, with another moment than now.
func casbins(begin, end string, at time.Time) (bool, error) {
	for _, text := range []string{begin, end} {
		t, err := time.Parse("2006-01-02 15:04:05", text)
		switch {
		case text == "_":
		case err != nil:
			return false, fmt.Errorf("no time of drawn policies: %w", err)
		case text == begin && !at.After(t) || text == end && !at.Before(t):
			return false, nil
		}
	}
	return true, nil
}

// held is what a policy says at a moment: its p lines with the fields that they leave
// out, and the g lines that hold, without their conditions.
func held(m *model.Model, policy string, at time.Time) (string, error) {
	if !m.HasPeriods() {
		return policy, nil
	}
	var b strings.Builder
	for line := range strings.Lines(policy) {
		if text := strings.TrimSpace(line); text == "" || text[0] == '#' {
			continue
		}
		in := csv.NewReader(strings.NewReader(line))
		in.TrimLeadingSpace = true
		fields, err := in.Read()
		if err != nil {
			return "", fmt.Errorf("read the line %q: %w", line, err)
		}
		kind := fields[0]
		for kind == "p" && len(fields)-1 < len(m.Policy) {
			fields = append(fields, "_")
		}
		if names := 1 + m.Roles[kind]; kind != "p" && len(fields) > names {
			ok, err := isTime(fields[names], fields[names+1], at)
			if err != nil {
				return "", err
			}
			if !ok {
				continue
			}
			fields = fields[:names]
		}
		for i, f := range fields {
			if i > 0 {
				b.WriteString(", ")
			}
			b.WriteString(quoted(f))
		}
		b.WriteByte('\n')
	}
	return b.String(), nil
}

// timeMatch is isTime as a function of a matcher.
func timeMatch(at time.Time) func(args ...any) (any, error) {
	return func(args ...any) (any, error) {
		if len(args) != 2 {
			return false, errors.New("timeMatch takes a beginning and an end")
		}
		begin, _ := args[0].(string)
		end, _ := args[1].(string)
		return isTime(begin, end, at)
	}
}
