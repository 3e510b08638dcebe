package engine

import (
	"context"
	"fmt"
	"time"
)

// A LateError says that a decision was given up.
type LateError struct {
	// After is the time that it had.
	After time.Duration
	// Line is the line of the policy that it had come to, from 1; 0 where it
	// was still looking for lines.
	Line int
	// Looked is how many lines it had looked at, Of how many there were to
	// look at.
	Looked, Of int
}

func (e *LateError) Error() string {
	if e.Line == 0 {
		return fmt.Sprintf("given up after %s, while looking for lines: `securefiles check` tells what is slow", e.After)
	}
	return fmt.Sprintf("given up after %s at line %d, with %d of %d lines looked at: `securefiles check` tells what is slow", e.After, e.Line, e.Looked, e.Of)
}

// What work counts, in the steps of package pattern: some ten nanoseconds each
// at most.
const (
	stepsOfRow     = 16
	stepsOfCall    = 128  // of an atom that govaluate evaluates
	stepsOfSubrule = 4096 // which govaluate compiles
	stepsOfRole    = 8
	// stepsToLook is how much work is done between two looks at the clock. Most
	// decisions end before the first.
	stepsToLook = 128 << 10
)

// A limit is how long a decision may go on. The zero limit is none.
type limit struct {
	ctx      context.Context
	timeout  time.Duration
	now      func() time.Time
	deadline time.Time // once it has been asked
	left     int       // steps until it is asked again
	err      error     // it has been reached
}

func newLimit(ctx context.Context, o *Options) limit {
	return limit{ctx: ctx, timeout: o.Timeout, now: o.Now, left: stepsToLook}
}

// spend counts work that is about to be done. Once it has returned an error it
// goes on to do so.
func (ev *Evaluator) spend(steps int) error {
	l := &ev.limit
	if l.ctx == nil {
		return nil
	}
	if l.left -= steps; l.left > 0 {
		return nil
	}
	if l.left = stepsToLook; l.err == nil {
		l.err = ev.look()
	}
	if l.err != nil {
		l.left = 0
	}
	return l.err
}

// look looks at the clock. The time begins with the first look, which is a
// millisecond late, and costs those nothing that end before.
func (ev *Evaluator) look() error {
	l := &ev.limit
	if err := l.ctx.Err(); err != nil {
		return fmt.Errorf("given up: %w", err)
	}
	if l.timeout <= 0 {
		return nil
	}
	now := l.now()
	if l.deadline.IsZero() {
		l.deadline = now.Add(l.timeout)
	}
	if now.Before(l.deadline) {
		return nil
	}
	late := &LateError{After: l.timeout, Looked: ev.looked, Of: ev.toLookAt}
	if ev.row >= 0 && ev.toLookAt > 0 {
		late.Line = int(ev.engine.Rows.Lines[ev.row])
	}
	return late
}
