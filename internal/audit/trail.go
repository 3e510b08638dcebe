package audit

import (
	"context"
	"log/slog"
	"time"

	"securefiles/authz"
)

// Options are what a trail can do without.
type Options struct {
	WriterOptions
	// Logger is told of a file that cannot be opened anew; nil means nobody.
	Logger *slog.Logger
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// A Trail is the record of what was decided and of what came of it. It is safe for
// concurrent use.
type Trail struct {
	writer *Writer
	log    *slog.Logger
	now    func() time.Time
}

// Open opens the file that the records are written to.
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
	if t.writer, err = OpenWriter(name, &opts.WriterOptions); err != nil {
		return nil, err
	}
	return t, nil
}

// Record keeps the record of an outcome that is to be answered with a status. After
// an error there is none, and nothing may be allowed.
func (t *Trail) Record(_ context.Context, out *authz.Outcome, status int, took time.Duration) error {
	return t.writer.Write(Decision(out, status, t.now(), took))
}

// Reopen opens the file anew once it was rotated. A nil trail has none.
func (t *Trail) Reopen() {
	if t == nil {
		return
	}
	if err := t.writer.Reopen(); err != nil {
		t.log.Error("the audit file is not opened anew: records go on into the one that was rotated away", "error", err)
	}
}

// State is what became of the records, since the start.
type State struct {
	WriterState
}

// State returns what became of the records.
func (t *Trail) State() State { return State{WriterState: t.writer.State()} }

// Close closes the file.
func (t *Trail) Close() error { return t.writer.Close() }
