package limit

import (
	"context"
	"fmt"
	"io"
	"slices"
	"time"

	"securefiles/authz"
	"securefiles/internal/state"
)

// A Standing is a limit that applies to somebody, in one thing that it bounds.
type Standing struct {
	Name string `json:"name"`
	Per  string `json:"per"`
	// Most is how much there is, as the configuration says it.
	Most     string `json:"most"`
	Observed bool   `json:"observed,omitempty"`
	// Left is what is left, and Full in how many seconds all will be again; nil where
	// nobody knows.
	Left *int64   `json:"left,omitempty"`
	Full *float64 `json:"full_in,omitempty"`
}

// A Looker says what is left of charges, and takes nothing.
type Looker interface {
	Look(context.Context, []state.Charge) ([]state.Quota, error)
}

// Standing returns the limits that apply to whom an outcome is about, in order. Without a
// Looker nobody knows what is left, nor of an address that is not known.
func (l *Limits) Standing(ctx context.Context, out *authz.Outcome, look Looker) ([]Standing, error) {
	var all []Standing
	var charges []state.Charge
	var of []int // the place of each charge
	for _, r := range l.list {
		if !r.applies(out) {
			continue
		}
		add := func(most string) {
			all = append(all, Standing{Name: r.name, Per: r.per, Most: most, Observed: r.observe})
		}
		for _, who := range r.shares(out) {
			known := who != "address:unknown"
			for _, k := range []struct {
				kind state.Kind
				most int64
				text string
			}{
				{state.Rate, r.requests, r.text.Requests + " requests"},
				{state.Places, r.places, fmt.Sprintf("%d downloads at a time", r.places)},
				{state.Bytes, r.bytes, r.text.Bytes},
			} {
				if k.most == 0 {
					continue
				}
				add(k.text)
				if known {
					charges, of = append(charges, r.charge(k.kind, who, 0)), append(of, len(all)-1)
				}
			}
		}
		if r.rate > 0 {
			add(r.text.Rate + " each")
		}
	}
	if look == nil || len(charges) == 0 {
		return all, nil
	}
	quotas, err := look.Look(ctx, charges)
	if err != nil {
		return all, fmt.Errorf("ask what is left of the limits: %w", err)
	}
	for i, q := range quotas {
		one := &all[of[i]]
		one.Left = &q.Remaining
		if charges[i].Kind != state.Places {
			full := q.Reset.Seconds()
			one.Full = &full
		}
	}
	return all, nil
}

// Told takes what is left from what somebody else says of the same limits.
func Told(own, others []Standing) {
	for i := range own {
		at := slices.IndexFunc(others, func(o Standing) bool {
			return o.Name == own[i].Name && o.Per == own[i].Per && o.Most == own[i].Most && o.Observed == own[i].Observed
		})
		if at >= 0 {
			own[i].Left, own[i].Full = others[at].Left, others[at].Full
			others = slices.Delete(others, at, at+1)
		}
	}
}

// Render writes limits for people, one a line.
func Render(w io.Writer, all []Standing) {
	for _, s := range all {
		fmt.Fprintf(w, "limit: %s, per %s: %s", s.Name, s.Per, s.Most)
		if s.Observed {
			fmt.Fprint(w, ", observed")
		}
		if s.Left != nil {
			fmt.Fprintf(w, ", %d left", *s.Left)
		}
		if s.Full != nil && *s.Full > 0 {
			fmt.Fprintf(w, ", all in %s", (time.Duration(*s.Full * float64(time.Second))).Round(time.Second))
		}
		fmt.Fprintln(w)
	}
}
