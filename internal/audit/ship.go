package audit

import (
	"cmp"
	"context"
	"log/slog"
	"math/rand/v2"
	"sync/atomic"
	"time"
)

// A Sink takes records elsewhere.
type Sink interface {
	// Send returns when all entries have arrived, or an error: then all of them are
	// sent again, and what has arrived is passed over, if the sink can tell. Refused
	// says how many it can never take.
	Send(ctx context.Context, entries []Entry) (refused int, err error)
}

// An Entry is a record as it stands in the file.
type Entry struct {
	Line   []byte // without a line feed
	Record *Record
	Position
}

// A Shipper follows the audit file and sends its records to a sink: each at least
// once, in the order of the file. A sink that is away holds up nobody: what it has
// not got stands in the files, and how far it came beside them.
type Shipper struct {
	name     string
	follower *Follower
	sink     Sink
	opts     ShipperOptions

	sent, failures, refused atomic.Uint64
	oldest                  atomic.Int64 // of what waits, Unix microseconds; 0 is nothing
}

// ShipperOptions are what a Shipper need not be told.
type ShipperOptions struct {
	Follow FollowerOptions
	// Gather is how long records are waited for that can be sent together; 1 s if zero.
	Gather time.Duration
	// MinBackoff and MaxBackoff are how long is waited after the first failure, and
	// at most; 1 s and 30 s if zero.
	MinBackoff, MaxBackoff time.Duration
	// Log is told of failures; nobody if nil.
	Log *slog.Logger
}

// What is sent together at most.
const (
	shipEntries = 2000
	shipBytes   = 1 << 20
)

// NewShipper sends what is appended to the audit file at path to the sink; the name is
// for logs. How far it came is kept in the state file.
func NewShipper(name, path, state string, sink Sink, opts *ShipperOptions) (*Shipper, error) {
	if opts == nil {
		opts = &ShipperOptions{}
	}
	s := &Shipper{name: name, sink: sink, opts: *opts}
	s.opts.Gather = cmp.Or(s.opts.Gather, time.Second)
	s.opts.MinBackoff = cmp.Or(s.opts.MinBackoff, time.Second)
	s.opts.MaxBackoff = cmp.Or(s.opts.MaxBackoff, 30*time.Second)
	if s.opts.Log == nil {
		s.opts.Log = slog.New(slog.DiscardHandler)
	}
	s.opts.Log = s.opts.Log.With("sink", name)
	if s.opts.Follow.Log == nil {
		s.opts.Follow.Log = s.opts.Log
	}
	var err error
	if s.follower, err = NewFollower(path, state, &s.opts.Follow); err != nil {
		return nil, err
	}
	return s, nil
}

// Run sends records until ctx is done. What was not sent then is sent after the next
// start. Nothing that a sink does ends it: its error is always nil.
func (s *Shipper) Run(ctx context.Context) error {
	defer s.follower.Close()
	for {
		entries, pos, err := s.gather(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			s.failures.Add(1)
			s.opts.Log.Error("the audit file cannot be followed: it is tried again", "error", err)
			if !s.wait(ctx, s.opts.MaxBackoff) {
				return nil
			}
			continue
		}
		if !s.deliver(ctx, entries) {
			return nil
		}
		s.oldest.Store(0)
		s.commit(pos)
	}
}

func (s *Shipper) commit(pos Position) {
	if err := s.follower.Commit(pos); err != nil {
		s.failures.Add(1)
		s.opts.Log.Error("it is not stored how far records were sent: a restart sends them again", "error", err)
	}
}

// gather waits for a record, and takes those that come soon after. Without an error
// there is a position, but there may be no entry that can be sent.
func (s *Shipper) gather(ctx context.Context) (entries []Entry, pos Position, err error) {
	line, pos, err := s.follower.Next(ctx)
	if err != nil {
		return nil, pos, err
	}
	size := 0
	for until := time.Now().Add(s.opts.Gather); ; {
		size += len(line)
		r, err := Parse(line)
		switch {
		case err != nil:
			s.refused.Add(1)
			s.opts.Log.Warn("a line of the audit file is no record and is passed over", "offset", pos.Offset, "error", err)
		default:
			if len(entries) == 0 {
				s.oldest.Store(r.Time.UnixMicro())
			}
			entries = append(entries, Entry{Line: append([]byte(nil), line...), Record: r, Position: pos})
		}
		if len(entries) >= shipEntries || size >= shipBytes {
			return entries, pos, nil
		}
		short, cancel := context.WithDeadline(ctx, until)
		next, behind, err := s.follower.Next(short)
		cancel()
		switch {
		case err == nil:
			line, pos = next, behind
		case ctx.Err() != nil:
			return nil, pos, ctx.Err()
		default: // it is time; or an error, which is told of when this has been sent
			return entries, pos, nil
		}
	}
}

// deliver sends until all have arrived; false means that ctx is done. What is not taken
// is sent in ever smaller parts, so that a slow sink gets on, and one record that it
// cannot take is alone in the end.
func (s *Shipper) deliver(ctx context.Context, entries []Entry) bool {
	part := len(entries)
	backoff := s.opts.MinBackoff
	var told, failed time.Time
	for len(entries) > 0 {
		part = min(part, len(entries))
		refused, err := s.sink.Send(ctx, entries[:part])
		if err == nil {
			s.sent.Add(uint64(part - refused))
			if refused > 0 {
				s.refused.Add(uint64(refused))
				s.opts.Log.Error("the sink cannot take records: they are passed over, and stay in the audit file", "records", refused,
					"from", entries[0].Record.Time, "to", entries[part-1].Record.Time)
			}
			if !failed.IsZero() {
				s.opts.Log.Info("the sink takes records again", "after", time.Since(failed).Round(time.Second))
				failed, told, backoff = time.Time{}, time.Time{}, s.opts.MinBackoff
			}
			if part < len(entries) {
				s.commit(entries[part-1].Position)
				s.oldest.Store(entries[part].Record.Time.UnixMicro())
			}
			entries = entries[part:]
			continue
		}
		if ctx.Err() != nil {
			return false
		}
		s.failures.Add(1)
		if failed.IsZero() {
			failed = time.Now()
		}
		if time.Since(told) >= time.Minute {
			told = time.Now()
			s.opts.Log.Error("the sink takes no records: they stay in the audit file and are sent again", "records", part, "error", err)
		}
		part = max(part/2, 1)
		// Some come back all at once: each at a time of its own.
		if !s.wait(ctx, backoff/2+rand.N(backoff/2+1)) {
			return false
		}
		backoff = min(2*backoff, s.opts.MaxBackoff)
	}
	return true
}

// wait waits; false means that ctx is done.
func (s *Shipper) wait(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// Follower is what the Shipper follows the file by.
func (s *Shipper) Follower() *Follower { return s.follower }

// Sent is how many records have arrived, Failures how often they did not, Refused how
// many lines were passed over: they are no records, or nothing that the sink can take.
// All since the start.
func (s *Shipper) Sent() uint64     { return s.sent.Load() }
func (s *Shipper) Failures() uint64 { return s.failures.Load() }
func (s *Shipper) Refused() uint64  { return s.refused.Load() }

// Behind is the age of the oldest record that is being sent and has not arrived, 0 if
// there is none.
func (s *Shipper) Behind(now time.Time) time.Duration {
	oldest := s.oldest.Load()
	if oldest == 0 {
		return 0
	}
	return max(now.Sub(time.UnixMicro(oldest)), 0)
}
