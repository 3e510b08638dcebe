// Package pace lets long work rest now and then, for what is short and waits beside it.
//
// Whoever loads a policy of a million lines has a core for seconds. A request that comes
// meanwhile waits until the core is taken away, which Go's scheduler does after 10 ms and
// Linux's after 3 ms. Work that rests by itself has it wait for [burst] at most.
package pace

import (
	"iter"
	"runtime"
	"time"
)

const (
	// burst is for how long work goes on without a rest.
	burst = 500 * time.Microsecond
	// looks is after how many steps the clock is looked at.
	looks = 32
)

// A Pace is that of one long work, in one goroutine: it rests for as long as it works where
// there are two cores, and less where there are more. It never rests longer in all, even
// where all cores are busy and it is woken late. Its zero value is ready; nil is the pace
// of work that nobody waits beside, and never rests.
type Pace struct {
	steps uint
	began time.Time     // when it went on after the last rest
	owed  time.Duration // of rest; less than nothing after a rest that was too long
}

// Step is called after each small part of the work, of some microseconds at most.
func (p *Pace) Step() {
	if p == nil {
		return
	}
	if p.steps++; p.steps%looks != 0 {
		return
	}
	now := time.Now()
	if p.began.IsZero() {
		p.began = now
	}
	worked := now.Sub(p.began)
	if worked < burst {
		return
	}
	// It may have had no core for most of that time.
	p.owed += min(worked, 4*burst) * 2 / time.Duration(max(2, runtime.GOMAXPROCS(0)))
	if p.owed > 0 {
		time.Sleep(p.owed)
	}
	p.began = time.Now()
	p.owed -= p.began.Sub(now)
}

// Over goes over items as range does, with a step after each.
func Over[T any](p *Pace, items []T) iter.Seq2[int, T] {
	return func(yield func(int, T) bool) {
		for i, item := range items {
			if !yield(i, item) {
				return
			}
			p.Step()
		}
	}
}
