package table

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// Open is what a line has in the place of a beginning or an end that there is not,
// as Casbin's TimeMatch has it.
const Open = "_"

// A Period says when a line holds: from a beginning on, until an end.
type Period struct {
	Begin, End Symbol // as they are written
	// From is the first moment and Until the one behind the last; the zero time
	// where that side is open.
	From, Until time.Time
}

// Holds reports whether a moment is in the period.
func (p Period) Holds(at time.Time) bool { return !p.Ended(at) && !p.begins(at) }

// begins reports whether a moment is before the period.
func (p Period) begins(at time.Time) bool { return !p.From.IsZero() && at.Before(p.From) }

// Ended reports whether a moment is behind the period.
func (p Period) Ended(at time.Time) bool { return !p.Until.IsZero() && !at.Before(p.Until) }

// Covers reports whether all of another period is in this one.
func (p Period) Covers(q Period) bool {
	return (p.From.IsZero() || !q.From.IsZero() && !q.From.Before(p.From)) && (p.Until.IsZero() || !q.Until.IsZero() && !q.Until.After(p.Until))
}

// Meets reports whether a moment is in both periods.
func (p Period) Meets(q Period) bool {
	return (p.Until.IsZero() || q.From.IsZero() || q.From.Before(p.Until)) && (q.Until.IsZero() || p.From.IsZero() || p.From.Before(q.Until))
}

// Periods are those of a policy's lines, each once. The first is open on both
// sides. Its zero value, and nil, have no other. They are changed while a policy
// loads, and only read afterwards.
type Periods struct {
	list []Period
	ids  map[[2]Symbol]uint32
}

// Len returns how many there are.
func (ps *Periods) Len() int {
	if ps == nil {
		return 1
	}
	return max(1, len(ps.list))
}

// At returns a period by its number.
func (ps *Periods) At(id uint32) Period {
	if id == 0 {
		return Period{}
	}
	return ps.list[id]
}

// Of returns the period that a line with these two texts has; false where no line
// has them.
func (ps *Periods) Of(begin, end Symbol) (Period, bool) {
	id, ok := ps.find(begin, end)
	if !ok {
		return Period{}, false
	}
	return ps.At(id), true
}

func (ps *Periods) find(begin, end Symbol) (id uint32, ok bool) {
	if ps == nil {
		return 0, false
	}
	id, ok = ps.ids[[2]Symbol{begin, end}]
	return id, ok
}

// add keeps a period.
func (ps *Periods) add(p Period) uint32 {
	if ps.ids == nil {
		ps.list, ps.ids = []Period{{}}, map[[2]Symbol]uint32{}
	}
	id := uint32(0)
	if !p.From.IsZero() || !p.Until.IsZero() {
		id = uint32(len(ps.list))
		ps.list = append(ps.list, p)
	}
	ps.ids[[2]Symbol{p.Begin, p.End}] = id
	return id
}

// Steady returns the time around a moment in which no line begins or ends: what is
// decided at one moment of it is decided at each. The zero time is an open side.
func (ps *Periods) Steady(at time.Time) Period {
	var p Period
	for id := range ps.Len() {
		q := ps.At(uint32(id))
		for _, t := range []time.Time{q.From, q.Until} {
			switch {
			case t.IsZero():
			case t.After(at):
				if p.Until.IsZero() || t.Before(p.Until) {
					p.Until = t
				}
			case p.From.IsZero() || t.After(p.From):
				p.From = t
			}
		}
	}
	return p
}

// Layouts of moments. The second is Casbin's own.
const (
	dayLayout    = "2006-01-02"
	secondLayout = "2006-01-02 15:04:05"
)

var errNoTime = errors.New("write 2026-12-31 for a day, 2026-12-31 18:00:00 or 2026-12-31T18:00:00+01:00 for a moment")

// ParsePeriod reads a beginning and an end. A day is a whole day of the zone, which
// belongs to the period; of a moment that is given to the second, what comes after
// a beginning and before an end belongs to it, as Casbin's TimeMatch has it.
func ParsePeriod(begin, end string, zone *time.Location) (Period, error) {
	var p Period
	if begin != Open {
		t, day, err := parse(begin, zone)
		switch {
		case err != nil:
			return p, fmt.Errorf("the beginning %q %w, or _ for none", begin, err)
		case day:
			t = startOfDay(t, zone)
		default:
			t = t.Add(1)
		}
		p.From = t
	}
	if end != Open {
		t, day, err := parse(end, zone)
		switch {
		case err != nil:
			return p, fmt.Errorf("the end %q %w, or _ for none", end, err)
		case day:
			t = startOfDay(t.AddDate(0, 0, 1), zone)
		}
		if t.IsZero() { // which would be no end
			t = t.Add(-1)
		}
		p.Until = t
	}
	if !p.Until.IsZero() && !p.From.IsZero() && !p.From.Before(p.Until) {
		return p, fmt.Errorf("begins at %s and ends at %s, so it never holds: the beginning comes first", begin, end)
	}
	return p, nil
}

// ParseMoment reads a moment as ParsePeriod does; of a day it is the first one.
func ParseMoment(text string, zone *time.Location) (time.Time, error) {
	t, day, err := parse(text, zone)
	switch {
	case err != nil:
		return t, fmt.Errorf("%q %w", text, err)
	case day:
		t = startOfDay(t, zone)
	}
	if t.IsZero() { // which would be no moment
		t = t.Add(1)
	}
	return t, nil
}

// IsTime reports whether a field of a line looks like a beginning or an end.
func IsTime(field []byte) bool {
	if len(field) < len(dayLayout) || field[0] < '0' || field[0] > '9' {
		return string(field) == Open
	}
	_, _, err := parse(string(field), time.UTC)
	return err == nil
}

// parse reads a day, which it returns as that of UTC, or a moment.
func parse(text string, zone *time.Location) (t time.Time, day bool, err error) {
	if strings.Contains(text, "T") {
		t, err = time.Parse(time.RFC3339, text)
		return t, false, problem(err)
	}
	if t, err = time.Parse(dayLayout, text); err == nil || impossible(err) {
		return t, true, problem(err)
	}
	wall, err := time.Parse(secondLayout, text)
	if err != nil {
		return wall, false, problem(err)
	}
	t = time.Date(wall.Year(), wall.Month(), wall.Day(), wall.Hour(), wall.Minute(), wall.Second(), wall.Nanosecond(), zone)
	if t.Format(time.DateTime) != wall.Format(time.DateTime) {
		return t, false, fmt.Errorf("is a time that the clocks of %s skip: %w", zone, errNoTime)
	}
	return t, false, nil
}

func impossible(err error) bool {
	var at *time.ParseError
	return errors.As(err, &at) && strings.HasSuffix(at.Message, "out of range")
}

func problem(err error) error {
	switch {
	case err == nil:
		return nil
	case impossible(err):
		return fmt.Errorf("does not exist: %w", errNoTime)
	}
	return fmt.Errorf("is no time: %w", errNoTime)
}

// startOfDay returns the first moment of a day, which need not be midnight: some
// clocks go from 23:59 to 1:00.
func startOfDay(day time.Time, zone *time.Location) time.Time {
	t := time.Date(day.Year(), day.Month(), day.Day(), 0, 0, 0, 0, zone)
	if t.Year() < day.Year() || t.Year() == day.Year() && t.YearDay() < day.YearDay() {
		_, t = t.ZoneBounds()
	}
	return t
}

// AtOrOn puts the preposition before a day or a moment, as it is written.
func AtOrOn(text string) string {
	if strings.Contains(text, ":") {
		return "at " + text
	}
	return "on " + text
}
