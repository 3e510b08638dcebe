package state

import (
	"cmp"
	"context"
	"errors"
	"hash/maphash"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Bounds of a Memory.
const (
	shards = 64
	// defaultMaxKeys is how many keys are told apart: some 150 MB.
	defaultMaxKeys = 1 << 20
	// sharedKeys is how many are shared by what comes beyond, in each shard.
	sharedKeys         = 64
	defaultMaxReserved = 1 << 20
	// retryWindow is how long a request that has nothing to settle is known, so that a web
	// server that asks again takes nothing twice.
	retryWindow  = 10 * time.Second
	defaultLease = time.Hour
	defaultWait  = 24 * time.Hour
	// sweepEach is after how many new keys a shard looks for those that are over.
	sweepEach = 1024
)

// MemoryOptions are what a Memory can do without.
type MemoryOptions struct {
	// MaxKeys is how many keys are told apart; zero means about a million. More share
	// theirs with others, by their hash: they get less than their limit, never more.
	MaxKeys int
	// Lease is how long a request that is not settled holds its places. Zero means an hour.
	Lease time.Duration
	// Wait is how long a request can be settled, if that is longer: then its bytes are
	// taken as they were reserved. Zero means 24 hours.
	Wait time.Duration
	// MaxReserved is how many requests can wait to be settled; zero means about a
	// million. One more is an error, for what it takes would never be known.
	MaxReserved int
	// Now is the clock; nil means time.Now.
	Now func() time.Time
	// Logger is told what a [Disk] cannot keep.
	Logger *slog.Logger
}

// A Memory counts in this process, and forgets when that ends. It is safe for
// concurrent use.
type Memory struct {
	opts    MemoryOptions
	seed    maphash.Seed
	counts  [shards]shard
	taken   [shards]ledger
	seeds   [2]maphash.Seed // of what requests are known by
	nobodys atomic.Uint64   // requests without an id
	keeps   bool            // a Disk keeps what waits to be settled
}

// A shard holds the counts of some keys.
type shard struct {
	mu     sync.Mutex
	counts map[string]*count
	fresh  int // keys since the last sweep
	swept  time.Time
}

// A count is what one key counts.
type count struct {
	tat    time.Time            // of Rate and Bytes
	kept   bool                 // it is of Bytes, and a Disk keeps it
	dirty  bool                 // and has not written it yet
	places map[string]time.Time // of Places: request, end of its lease
}

func (c *count) isOver(now time.Time) bool { return !c.tat.After(now) && len(c.places) == 0 }

// A ledger holds what some requests have taken, until they are settled.
type ledger struct {
	mu    sync.Mutex
	taken map[string]*reservation
	swept time.Time
	// known are requests that have nothing to settle.
	known memo
	// fresh are those that a Disk has not written yet, gone those that it has, and that
	// are settled.
	fresh, gone []string
}

// A reservation is what one request has taken that has to be settled.
type reservation struct {
	charges []Charge
	quotas  []Quota
	until   time.Time
	kept    bool // a Disk has written it
}

// NewMemory returns a Memory that has counted nothing.
func NewMemory(opts *MemoryOptions) *Memory {
	m := &Memory{seed: maphash.MakeSeed(), seeds: [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()}}
	if opts != nil {
		m.opts = *opts
	}
	if m.opts.MaxKeys == 0 {
		m.opts.MaxKeys = defaultMaxKeys
	}
	m.opts.Lease, m.opts.Wait = spans(m.opts.Lease, m.opts.Wait)
	if m.opts.MaxReserved == 0 {
		m.opts.MaxReserved = defaultMaxReserved
	}
	if m.opts.Now == nil {
		m.opts.Now = time.Now
	}
	if m.opts.Logger == nil {
		m.opts.Logger = slog.New(slog.DiscardHandler)
	}
	for i := range m.counts {
		m.counts[i].counts = map[string]*count{}
		m.taken[i].taken = map[string]*reservation{}
	}
	return m
}

// spans are for how long places are held, and how long a request can be settled: never less.
func spans(lease, wait time.Duration) (time.Duration, time.Duration) {
	lease = cmp.Or(lease, defaultLease)
	return lease, max(cmp.Or(wait, defaultWait), lease)
}

// Reserve takes the charges of a request, all of them or none: none where the quota of one
// says that it is Over and the charge does not only observe. What is Over is not taken. The quotas stand in the order
// of the charges. A request whose id has taken its charges already gets the same answer,
// and takes nothing. An empty id is nobody's: what it takes is never settled.
func (m *Memory) Reserve(_ context.Context, id string, charges []Charge) ([]Quota, error) {
	now := m.opts.Now()
	book := &m.taken[m.shardOf(id)]
	book.mu.Lock()
	defer book.mu.Unlock()
	if id != "" {
		if r, ok := book.taken[id]; ok {
			return r.quotas, nil
		}
		if quotas, ok := book.known.find(m.known(id)); ok {
			return quotas, nil
		}
	}
	settled := slices.ContainsFunc(charges, func(c Charge) bool { return c.Kind != Rate })
	most := max(1, m.opts.MaxReserved/shards)
	book.sweep(now, most)
	if settled && id != "" && len(book.taken) >= most {
		return nil, errFull
	}
	owner := id
	if id == "" {
		owner = "\x00" + strconv.FormatUint(m.nobodys.Add(1), 10)
	}
	quotas := make([]Quota, len(charges))
	for i, c := range charges {
		quotas[i] = m.take(owner, c, now)
		if quotas[i].Over && !c.Observe {
			m.settle(owner, charges[:i], quotas, -1, now)
			return quotas, nil
		}
	}
	switch {
	case id == "":
	case !settled:
		book.known.add(m.known(id), quotas, now, most)
	default:
		book.taken[id] = &reservation{charges: charges, quotas: quotas, until: now.Add(m.opts.Wait)}
		if m.keeps && slices.ContainsFunc(charges, func(c Charge) bool { return c.Kind == Bytes }) {
			book.fresh = append(book.fresh, id)
		}
	}
	return quotas, nil
}

// known is what a request that has nothing to settle is known by.
func (m *Memory) known(id string) identifier {
	return identifier{maphash.String(m.seeds[0], id), maphash.String(m.seeds[1], id)}
}

// errFull says that nothing can be reserved: to let it be taken all the same would be to
// count what nobody corrects.
var errFull = errors.New("as many requests as can wait to be told of do: does the web server report what it delivers?")

// Settle says that a request has ended, and how many bytes it took: its places are free,
// and bytes are corrected. A request that is not known has been settled already, or was
// waited for too long.
func (m *Memory) Settle(_ context.Context, id string, bytes int64) error {
	m.end(id, max(0, bytes))
	return nil
}

// Forget says that nobody will tell what a request took: what was reserved counts, and
// its places are free when their lease ends.
func (m *Memory) Forget(_ context.Context, id string) error {
	book := &m.taken[m.shardOf(id)]
	book.mu.Lock()
	defer book.mu.Unlock()
	book.drop(id)
	book.known.drop(m.known(id))
	return nil
}

// Release gives back all that a request has taken, of the charges that it came with.
func (m *Memory) Release(_ context.Context, id string, charges []Charge) error {
	m.release(id, charges)
	return nil
}

func (m *Memory) release(id string, charges []Charge) {
	book := &m.taken[m.shardOf(id)]
	book.mu.Lock()
	quotas, ok := book.known.find(m.known(id))
	book.known.drop(m.known(id))
	book.mu.Unlock()
	if ok {
		m.settle(id, charges, quotas, -1, m.opts.Now())
		return
	}
	m.end(id, -1)
}

// end settles a request; less than no bytes give everything back.
func (m *Memory) end(id string, bytes int64) {
	book := &m.taken[m.shardOf(id)]
	book.mu.Lock()
	r := book.drop(id)
	book.known.drop(m.known(id))
	book.mu.Unlock()
	if r != nil {
		m.settle(id, r.charges, r.quotas, bytes, m.opts.Now())
	}
}

// settle gives back what a request has taken, and does not take.
func (m *Memory) settle(id string, charges []Charge, quotas []Quota, bytes int64, now time.Time) {
	for i, c := range charges {
		switch {
		case quotas[i].Over: // nothing was taken
		case c.Kind == Bytes && bytes >= 0:
			m.giveBack(id, c, c.Cost-bytes, now)
		case c.Kind == Places || bytes < 0:
			m.giveBack(id, c, c.Cost, now)
		}
	}
}

// take takes one charge, if it is to be had.
func (m *Memory) take(id string, c Charge, now time.Time) Quota {
	s, one := m.find(c.Key, now)
	defer s.mu.Unlock()
	if c.Kind == Places {
		for other, until := range one.places {
			if !until.After(now) {
				delete(one.places, other)
			}
		}
		q := Quota{Remaining: max(0, c.Limit-int64(len(one.places)))}
		if q.Over = q.Remaining == 0; q.Over {
			return q
		}
		if one.places == nil {
			one.places = map[string]time.Time{}
		}
		one.places[id] = now.Add(m.opts.Lease)
		q.Remaining = max(0, q.Remaining-1)
		return q
	}
	tat, q := gcra(c.within(one.tat, now), now, c.Limit, c.Period, c.Cost)
	one.tat, one.kept, one.dirty = tat, c.Kind == Bytes, one.dirty || c.Kind == Bytes && !q.Over
	return q
}

// giveBack gives back some of a charge; less than nothing takes more.
func (m *Memory) giveBack(id string, c Charge, cost int64, now time.Time) {
	s, one := m.find(c.Key, now)
	defer s.mu.Unlock()
	if c.Kind == Places {
		delete(one.places, id)
		return
	}
	if one.tat.Before(now) {
		one.tat = now
	}
	one.kept = c.Kind == Bytes // it may have been forgotten meanwhile
	one.dirty = one.dirty || one.kept
	one.tat = one.tat.Add(-span(c.Limit, c.Period, cost))
}

// find returns what a key counts, and its shard, which is locked.
func (m *Memory) find(key string, now time.Time) (*shard, *count) {
	s := &m.counts[m.shardOf(key)]
	s.mu.Lock()
	one, ok := s.counts[key]
	if ok {
		return s, one
	}
	most := max(1, m.opts.MaxKeys/shards)
	if s.fresh++; s.fresh >= sweepEach || len(s.counts) >= most && now.Sub(s.swept) >= time.Second {
		s.sweep(now)
	}
	if len(s.counts) >= most { // their number bounds those that are shared too
		key = "\x00" + strconv.FormatUint(maphash.String(m.seed, key)/shards%sharedKeys, 10)
		if one, ok = s.counts[key]; ok {
			return s, one
		}
	}
	one = &count{}
	s.counts[key] = one
	return s, one
}

// Look returns what is left of charges, and takes nothing.
func (m *Memory) Look(_ context.Context, charges []Charge) ([]Quota, error) {
	now := m.opts.Now()
	quotas := make([]Quota, len(charges))
	for i, c := range charges {
		s, one := m.find(c.Key, now)
		if c.Kind == Places {
			quotas[i].Remaining = c.Limit
			for _, until := range one.places {
				if until.After(now) {
					quotas[i].Remaining = max(0, quotas[i].Remaining-1)
				}
			}
			quotas[i].Over = quotas[i].Remaining == 0
		} else {
			_, quotas[i] = gcra(c.within(one.tat, now), now, c.Limit, c.Period, 0)
		}
		s.mu.Unlock()
	}
	return quotas, nil
}

// Counts returns what is counted now, by key; not what keys share that came beyond the
// bound.
func (m *Memory) Counts(context.Context) ([]Count, error) {
	now := m.opts.Now()
	var list []Count
	for i := range m.counts {
		s := &m.counts[i]
		s.mu.Lock()
		for key, one := range s.counts {
			c := Count{Key: key}
			for _, until := range one.places {
				if until.After(now) {
					c.Taken++
				}
			}
			if one.tat.After(now) {
				c.Full = one.tat
			}
			if key[0] != 0 && (c.Taken > 0 || !c.Full.IsZero()) {
				list = append(list, c)
			}
		}
		s.mu.Unlock()
	}
	slices.SortFunc(list, func(a, b Count) int { return cmp.Compare(a.Key, b.Key) })
	return list, nil
}

// Reset forgets what a key counts. It reports whether that was anything.
func (m *Memory) Reset(_ context.Context, key string) (bool, error) {
	s := &m.counts[m.shardOf(key)]
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.counts[key]
	delete(s.counts, key)
	return ok, nil
}

// Drop forgets what keys count that begin with a prefix.
func (m *Memory) Drop(_ context.Context, prefix string) error {
	for i := range m.counts {
		s := &m.counts[i]
		s.mu.Lock()
		maps.DeleteFunc(s.counts, func(key string, _ *count) bool { return strings.HasPrefix(key, prefix) })
		s.mu.Unlock()
	}
	return nil
}

// changed returns the byte counts that have changed since it was called last.
func (m *Memory) changed() map[string]time.Time {
	changed := map[string]time.Time{}
	for i := range m.counts {
		s := &m.counts[i]
		s.mu.Lock()
		for key, one := range s.counts {
			if one.dirty {
				changed[key], one.dirty = one.tat, false
			}
		}
		s.mu.Unlock()
	}
	return changed
}

// sweep forgets keys that count nothing any more.
func (s *shard) sweep(now time.Time) {
	s.fresh, s.swept = 0, now
	for key, one := range s.counts {
		for id, until := range one.places {
			if !until.After(now) {
				delete(one.places, id)
			}
		}
		if one.isOver(now) {
			delete(s.counts, key)
		}
	}
}

// sweep forgets requests that nobody waits for any more: each minute, and each second where
// there are as many as there can be.
func (l *ledger) sweep(now time.Time, most int) {
	if since := now.Sub(l.swept); since < time.Second || since < time.Minute && len(l.taken) < most {
		return
	}
	l.swept = now
	for id, r := range l.taken {
		if !r.until.After(now) {
			l.drop(id)
		}
	}
}

// drop forgets a request.
func (l *ledger) drop(id string) *reservation {
	r := l.taken[id]
	if r != nil && r.kept {
		l.gone = append(l.gone, id)
	}
	delete(l.taken, id)
	return r
}

// waiting returns the requests that take bytes and wait to be settled, but for those that
// it has returned before, and of those the ones that wait no more.
func (m *Memory) waiting() (fresh map[string]*reservation, gone []string) {
	fresh = map[string]*reservation{}
	for i := range m.taken {
		book := &m.taken[i]
		book.mu.Lock()
		for _, id := range book.fresh {
			if r := book.taken[id]; r != nil && !r.kept {
				fresh[id], r.kept = r, true
			}
		}
		gone = append(gone, book.gone...)
		book.fresh, book.gone = nil, nil
		book.mu.Unlock()
	}
	return fresh, gone
}

// unkept has what changed and waiting returned wait once more: it could not be written.
func (m *Memory) unkept(changed map[string]time.Time, fresh map[string]*reservation, gone []string) {
	for key := range changed {
		s := &m.counts[m.shardOf(key)]
		s.mu.Lock()
		if one, ok := s.counts[key]; ok {
			one.dirty = true
		}
		s.mu.Unlock()
	}
	for id, r := range fresh {
		book := &m.taken[m.shardOf(id)]
		book.mu.Lock()
		r.kept = false
		book.fresh = append(book.fresh, id)
		book.mu.Unlock()
	}
	for _, id := range gone {
		book := &m.taken[m.shardOf(id)]
		book.mu.Lock()
		book.gone = append(book.gone, id)
		book.mu.Unlock()
	}
}

// await has a request wait to be settled that another process let in.
func (m *Memory) await(id string, r *reservation) {
	book := &m.taken[m.shardOf(id)]
	book.mu.Lock()
	defer book.mu.Unlock()
	r.kept = true
	book.taken[id] = r
}

func (m *Memory) shardOf(key string) uint64 { return maphash.String(m.seed, key) % shards }

// Run forgets nothing and keeps nothing: it waits until the context ends.
func (m *Memory) Run(ctx context.Context) error {
	<-ctx.Done()
	return nil
}

// Close ends nothing.
func (m *Memory) Close() error { return nil }
