package audit

import (
	"cmp"
	"container/list"
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"securefiles/authz"
)

// Options are what a trail can do without.
type Options struct {
	WriterOptions
	// DeliveryLog is nginx's log of deliveries, which is followed; empty for none.
	DeliveryLog string
	// Wait is how long nginx may take to tell of an allowed request; zero means 24 h.
	Wait time.Duration
	// Delivered is told of what came of each allowed request, once it is recorded: of
	// the record before Transform changed it. It must not keep the caller waiting.
	Delivered func(*Record)
	// Stored says that a download's files come from a store. Nobody knows whether all of
	// one came of which the store told no length. Nil means that none does.
	Stored func(download string) bool
	// Restore undoes what it can of Transform, in a record that was read again after a
	// restart.
	Restore func(*Record)
	// Logger is told of what cannot be opened, read or stored; nil means nobody.
	Logger *slog.Logger
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// A Trail is the record of what was decided and of what came of it. It is safe for
// concurrent use.
type Trail struct {
	writer *Writer
	joiner *joiner       // nil where nginx does not tell
	every  time.Duration // between checkpoints; 0 for none
	log    *slog.Logger
	now    func() time.Time
}

// Open opens the file that the records are written to. Where nginx's log is followed,
// how far it was read stands beside the file, in NAME.nginx.state, and what is awaited
// of it in NAME.awaited. Beside standard output there is no such place: of what was
// allowed before a restart nothing more is told.
func Open(name string, opts *Options) (*Trail, error) {
	if opts == nil {
		opts = &Options{}
	}
	t := &Trail{log: opts.Logger, now: opts.Now}
	if t.log == nil {
		t.log = slog.New(slog.DiscardHandler)
	}
	if t.now == nil {
		t.now = time.Now
	}
	var err error
	writing := opts.WriterOptions
	writing.Now = t.now
	if opts.Chain != nil {
		chain := *opts.Chain
		chain.Signed = func(h Head) {
			t.log.Info("audit checkpoint", "head", h.String())
			if opts.Chain.Signed != nil {
				opts.Chain.Signed(h)
			}
		}
		writing.Chain = &chain
		t.every = cmp.Or(chain.Every, time.Minute)
	}
	if t.writer, err = OpenWriter(name, &writing); err != nil {
		return nil, err
	}
	if opts.DeliveryLog == "" {
		return t, nil
	}
	j := &joiner{
		writer: t.writer, transform: opts.Transform, restore: opts.Restore, delivered: opts.Delivered, stored: opts.Stored, wait: cmp.Or(opts.Wait, 24*time.Hour),
		most: maxAwaited, log: t.log, now: t.now, byID: map[string]*list.Element{}, order: list.New(),
	}
	if j.delivered == nil {
		j.delivered = func(*Record) {}
	}
	if j.stored == nil {
		j.stored = func(string) bool { return false }
	}
	followed := ""
	if name != Stdout {
		j.state, followed = name+".awaited", name+".nginx.state"
	}
	err = j.recover(name)
	if err == nil {
		j.follower, err = NewFollower(opts.DeliveryLog, followed, &FollowerOptions{MaxLine: maxDelivery, AtEnd: true, Log: t.log})
	}
	if err != nil {
		return nil, errors.Join(err, t.writer.Close())
	}
	t.joiner = j
	return t, nil
}

// Record keeps the record of an outcome that is to be answered with a status. After
// an error there is none, and nothing may be allowed.
func (t *Trail) Record(_ context.Context, out *authz.Outcome, status int, took time.Duration) error {
	r := Decision(out, status, t.now(), took)
	if t.joiner == nil || !isAwaited(r) {
		return t.writer.Write(r)
	}
	before := t.joiner.await(r)
	err := t.writer.Write(r)
	if err != nil {
		t.joiner.forget([]*Record{r}, before)
	}
	return err
}

// RecordAll is Record of all files of an archive. After an error some may be recorded, and
// of those nothing was delivered either.
func (t *Trail) RecordAll(_ context.Context, outs []*authz.Outcome, status int, took time.Duration) error {
	if len(outs) == 0 {
		return nil
	}
	records := make([]*Record, len(outs))
	for i, out := range outs {
		records[i] = Decision(out, status, t.now(), took)
	}
	if t.joiner == nil || !isAwaited(records[0]) {
		_, err := t.writer.WriteAll(records...)
		return err
	}
	before := t.joiner.await(records...)
	n, err := t.writer.WriteAll(records...)
	if err != nil && n == 0 {
		t.joiner.forget(records, before)
	}
	return err
}

// Run records what nginx delivers, and signs the head of the chain, until the context
// ends.
func (t *Trail) Run(ctx context.Context) error {
	var group sync.WaitGroup
	defer group.Wait()
	if t.every > 0 {
		group.Go(func() { t.sign(ctx) })
	}
	if t.joiner == nil {
		<-ctx.Done()
		return nil
	}
	return t.joiner.run(ctx)
}

// sign writes checkpoints. One that cannot be written is in the state, and due again.
func (t *Trail) sign(ctx context.Context) {
	tick := time.NewTicker(t.every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if err := t.writer.Checkpoint(); err != nil {
				t.log.Error("the head of the audit trail's chain is not signed now, and is later", "error", err)
			}
		}
	}
}

// Reopen opens the file anew once it was rotated. A nil trail has none.
func (t *Trail) Reopen() {
	if t == nil {
		return
	}
	if err := t.writer.Reopen(); err != nil {
		t.log.Error("the audit file is not opened anew: records go on into the one that was rotated away, where that is open", "error", err)
	}
}

// State is what became of the records, since the start.
type State struct {
	WriterState
	// Awaited is how many allowed requests nginx has not told of.
	Awaited int
	// Refused are lines of nginx's that were passed over, Overflowed requests that were
	// given up because too many were awaited.
	Refused, Overflowed uint64
}

// State returns what became of the records.
func (t *Trail) State() State {
	s := State{WriterState: t.writer.State()}
	if j := t.joiner; j != nil {
		s.Awaited = j.awaited()
		s.Refused, s.Overflowed = j.refused.Load(), j.overflow.Load()
	}
	return s
}

// Nginx is who follows nginx's log; nil where nobody does.
func (t *Trail) Nginx() *Follower {
	if t.joiner == nil {
		return nil
	}
	return t.joiner.follower
}

// Close stores what is awaited, and closes the file. Run must have ended.
func (t *Trail) Close() error {
	var err error
	if t.joiner != nil && !t.joiner.broken {
		err = t.joiner.save(nil)
	}
	return errors.Join(err, t.writer.Close())
}
