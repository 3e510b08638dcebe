package explain

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"securefiles/authz"
	"securefiles/policy"
	"securefiles/policy/internal/engine"
	"securefiles/policy/internal/table"
)

// maxLaterLines bounds the lines that are looked at for later moments, over all of
// them: a policy of a thousand lines is compared at thousands of moments, one of a
// million at some.
const maxLaterLines = 10_000_000

// Compare finds what a change of policy changes, for each name that one of the
// policies has, by itself: a user without groups, a group of an unnamed user.
// Which lines match a path is a matter of which patterns do; so it finds a path
// for each set of patterns that a path can match together, and asks both policies
// about it. Where it cannot, or there are too many, Untried says so.
//
// Where no moment is given, all that are to come are compared: a line that no longer
// ends, or that begins later, is access that somebody gains. What shows at several
// is told of the first.
func Compare(ctx context.Context, before, after *policy.Store, opts *DiffOptions) (*Diff, error) {
	var o DiffOptions
	if opts != nil {
		o = *opts
	}
	if !o.At.IsZero() {
		d, _, err := compare(ctx, before, after, o)
		return d, err
	}
	var q authz.Query
	after.Version().FixMoment(&q)
	o.At = q.At
	var later []time.Time
	left := 0
	if a, b := before.Version(), after.Version(); a != nil && b != nil && (before.Zone().String() != after.Zone().String() || !sameLines(a, b)) {
		later = laterMoments(o.At, a, b)
		lines := 1
		for _, v := range []*engine.Version{a, b} {
			lines += v.Engine.Rows.Len()
			for _, edges := range v.Table.Edges {
				lines += len(edges)
			}
		}
		if n := max(1, cmp.Or(o.laterLines, maxLaterLines)/lines); len(later) > n {
			later, left = later[:n], len(later)-n
		}
	}
	progress, moments := o.Progress, 1+len(later)
	during := func(moment int) {
		if progress != nil {
			o.Progress = func(names, all int) { progress(moment*all+names, moments*all) }
		}
	}
	during(0)
	d, steps, err := compare(ctx, before, after, o)
	if err != nil {
		return nil, err
	}
	m := newMerger(d)
	for i, at := range later {
		during(i + 1)
		o.At, o.Steps = at, max(1, steps)
		var next *Diff
		if next, steps, err = compare(ctx, before, after, o); err != nil {
			return nil, err
		}
		m.merge(next, at.In(after.Zone()))
	}
	if left > 0 {
		m.untried(Untried{Why: fmt.Sprintf("lines begin or end at more moments than were compared, %d later ones were left out: compare at one of them with --at", left)})
	}
	return d, nil
}

// laterMoments returns the moments behind one at which a line of a policy begins or
// ends.
func laterMoments(at time.Time, versions ...*engine.Version) []time.Time {
	var later []time.Time
	for _, v := range versions {
		for id := range v.Table.Periods.Len() {
			p := v.Table.Periods.At(uint32(id))
			for _, t := range []time.Time{p.From, p.Until} {
				if t.After(at) {
					later = append(later, t)
				}
			}
		}
	}
	slices.SortFunc(later, time.Time.Compare)
	return slices.CompactFunc(later, time.Time.Equal)
}

// sameLines reports whether two policies have the same lines, in the same order,
// under models that decide alike.
func sameLines(a, b *engine.Version) bool {
	if !sameModel(a.Engine.Model, b.Engine.Model) || a.Engine.RoleDepth != b.Engine.RoleDepth || a.Engine.Rows.Len() != b.Engine.Rows.Len() {
		return false
	}
	same := func(x, y table.Symbol) bool { return a.Table.Symbols.Text(x) == b.Table.Symbols.Text(y) }
	for col, cells := range a.Engine.Rows.Cols {
		if !slices.EqualFunc(cells, b.Engine.Rows.Cols[col], same) {
			return false
		}
	}
	for kind, edges := range a.Table.Edges {
		if !slices.EqualFunc(edges, b.Table.Edges[kind], func(x, y table.Edge) bool {
			p, q := a.Table.Periods.At(x.Period), b.Table.Periods.At(y.Period)
			return same(x.Name, y.Name) && same(x.Role, y.Role) && same(x.Domain, y.Domain) && p.From.Equal(q.From) && p.Until.Equal(q.Until)
		}) {
			return false
		}
	}
	return true
}

// A merger adds what shows at later moments to what showed before.
type merger struct {
	out  *Diff
	told map[string]bool // changes, by name
}

func newMerger(d *Diff) *merger {
	m := &merger{out: d, told: map[string]bool{}}
	for sign, list := range map[string][]Change{"+": d.Gained, "-": d.Lost} {
		for _, c := range list {
			m.news(sign, &c)
		}
	}
	return m
}

// news returns the names of a change of which it has not been told.
func (m *merger) news(sign string, c *Change) (names []string) {
	line := c.After
	if sign == "-" {
		line = c.Before
	}
	number := 0
	if line != nil {
		number = line.Line
	}
	for _, name := range c.Names {
		key := strings.Join([]string{sign, name, c.Action, c.Domain, c.Pattern, c.Path, fmt.Sprint(number)}, "\x00")
		if !m.told[key] {
			m.told[key] = true
			names = append(names, name)
		}
	}
	return names
}

// merge adds what shows at a moment.
func (m *merger) merge(d *Diff, at time.Time) {
	add := func(sign string, to *[]Change, list []Change) {
		for _, c := range list {
			if c.Names = m.news(sign, &c); len(c.Names) > 0 {
				c.From = at
				*to = append(*to, c)
			}
		}
	}
	add("+", &m.out.Gained, d.Gained)
	add("-", &m.out.Lost, d.Lost)
	for _, u := range d.Untried {
		m.untried(u)
	}
	for _, note := range d.Notes {
		if !slices.Contains(m.out.Notes, note) {
			m.out.Notes = append(m.out.Notes, note)
		}
	}
	m.out.Paths, m.out.Names = max(m.out.Paths, d.Paths), max(m.out.Names, d.Names)
}

func (m *merger) untried(u Untried) {
	if len(m.out.Untried) < maxUntried && !slices.ContainsFunc(m.out.Untried, func(o Untried) bool {
		return o.Why == u.Why && (o.Line == nil) == (u.Line == nil) && (o.Line == nil || o.Line.File == u.Line.File && o.Line.Line == u.Line.Line)
	}) {
		m.out.Untried = append(m.out.Untried, u)
	}
}
