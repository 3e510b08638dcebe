// Package state keeps what limits and links count.
//
// A [Memory] counts in this process, a [Disk] keeps what must outlast it, and in a [Redis]
// several processes count together. What they count by is a key that a limit makes; what
// is counted is one of four kinds, each with a rule of its own: see [Kind]. All charges
// of one request are taken together or not at all, and twice the same request takes them
// once.
//
// state does not check who asks, nor what a limit is.
package state

import (
	"time"
)

// A Kind says how something is counted.
type Kind uint8

// The kinds.
const (
	// Rate counts requests by the generic cell rate algorithm: as many at once as the
	// limit, and then one each Period/Limit.
	Rate Kind = iota
	// Bytes counts bytes in the same way. What a request will take is not known before it
	// ends: its Cost is reserved, and Settle corrects it.
	Bytes
	// Places counts what is going on at a time. A place is free again when its request is
	// settled or released, or its lease has ended.
	Places
)

// A Charge is what a request takes of one limit.
type Charge struct {
	Kind Kind
	// Key names what is counted.
	Key string
	// Limit is how many requests or bytes there may be in a Period, or places at a time.
	Limit  int64
	Period time.Duration
	// Cost is what the request takes: 1, or bytes.
	Cost int64
	// Observe says that the charge refuses nothing; it is taken all the same.
	Observe bool
}

// A Quota is what is left of a charge after a request.
type Quota struct {
	// Over says that the charge was not to be had.
	Over bool
	// Remaining is what is left now, and Reset when all will be.
	Remaining int64
	Reset     time.Duration
	// Retry is when the charge could be had; zero where it was, and where nobody knows.
	Retry time.Duration
}

// A Count is what one key counts.
type Count struct {
	Key string `json:"key"`
	// Full is when all of it is there again; zero for places, of which Taken are.
	Full  time.Time `json:"full,omitzero"`
	Taken int       `json:"taken,omitempty"`
}

// gcra is the generic cell rate algorithm: a bucket that holds limit, and fills evenly in
// a period. The time at which it will be full again is all that it is (tat); the zero
// time is a full one. It returns that time after the cost is taken, and what is left.
//
// A cost over what the bucket can ever hold is had where the bucket is full: whoever asks
// for a file that is larger than the limit waits until nothing else was taken, and then
// for longer.
func gcra(tat, now time.Time, limit int64, period time.Duration, cost int64) (time.Time, Quota) {
	if tat.Before(now) {
		tat = now
	}
	after := tat.Add(span(limit, period, cost))
	q := Quota{Over: after.Sub(now) > period && tat.After(now)}
	if q.Over {
		q.Retry = min(after.Sub(now)-period, tat.Sub(now))
		after = tat
	}
	q.Reset = after.Sub(now)
	q.Remaining = max(0, int64(float64(period-q.Reset)/float64(period)*float64(limit)+1e-6))
	return after, q
}

// within bounds when a bucket is full: of requests it is within a period, unless the clock
// was put back, or the period was longer. What bytes were taken can be more than there are.
func (c Charge) within(tat, now time.Time) time.Time {
	if most := now.Add(c.Period); c.Kind == Rate && tat.After(most) {
		return most
	}
	return tat
}

// maxSpan bounds what one request can make others wait, beyond what any can reserve: a
// longer time.Duration would begin anew, below zero.
const maxSpan = 100 * 366 * 24 * time.Hour

// span is how long a bucket takes to fill by a cost; less than nothing is taken back.
func span(limit int64, period time.Duration, cost int64) time.Duration {
	long := float64(period) / float64(limit) * float64(cost)
	return time.Duration(min(max(long, -float64(maxSpan)), float64(maxSpan)))
}
