// Package server keeps a service running: its listeners and their bounds, what it
// reads again while it serves, how it starts and ends under systemd.
//
// [Run] does it all. [Reloaders] are the files, and whatever else, that decisions depend on, one row
// each. They are read again when they change and when an operator says so. What
// cannot be used is never a reason to stop serving: the row is stale until it is
// mended, and says why.
package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"securefiles/internal/access"
	"securefiles/internal/watch"
)

// A read that failed for a reason that passes is tried again after firstRetry,
// then after twice as long, and so on.
const (
	firstRetry = time.Second
	lastRetry  = 30 * time.Second
)

// A Reloader is one row: something that is loaded, and may be loaded anew.
type Reloader struct {
	// Name is what is loaded: `users`. It stands in the log, in metrics and in
	// what /readyz answers, and is of a closed list.
	Name string
	// Files are watched: Reload is called once they have changed and are whole.
	Files []string
	// Also returns files that are watched beside them, after each attempt anew; it may
	// be nil.
	Also func() []string
	// Reload loads what is there now. After an error, what was loaded last goes
	// on serving, unless Meanwhile says otherwise.
	Reload func(context.Context) error
	// Confirm is Reload where an operator says that what is there is meant,
	// though it does not look so; nil means Reload.
	Confirm func(context.Context) error
	// Run loads again and again what does not come from files, until the context
	// ends, and reports each attempt. It may be nil.
	Run func(ctx context.Context, report func(error)) error
	// State says what is loaded; nil means that each Reload without an error is a
	// version, and the first was before the row was made.
	State func() Loaded
	// Taken is called after each new version, to tell more of it; it may be nil.
	Taken func()
	// Meanwhile says what goes on after an error; empty means that the last good
	// version serves.
	Meanwhile string

	begun *watch.Begun // see Watching; nil for rows whose files are watched once they run
}

// Watching watches the files of rows that are about to be loaded for the first time, so
// that what changes while they are read, and before anybody runs, is loaded like any
// other change. Rows that come to nothing are given to Unwatch.
func Watching(rows []Reloader) []Reloader {
	rows = slices.Clone(rows)
	for i := range rows {
		if len(rows[i].Files) > 0 && rows[i].Also == nil {
			rows[i].begun = watch.Begin(rows[i].Files)
		}
	}
	return rows
}

// Unwatch ends what Watching has begun.
func Unwatch(rows []Reloader) {
	for _, r := range rows {
		if r.begun != nil {
			r.begun.Close()
		}
	}
}

// Loaded is what a row has loaded.
type Loaded struct {
	// Generation counts the versions, from 1; 0 is none yet.
	Generation uint64
	// Err is why the last attempt to load a version failed, or nil.
	Err error
	// Attrs say in the log what is in it, as slog takes them.
	Attrs []any
}

// A ReloadState is a row at one moment.
type ReloadState struct {
	Name string
	// Generation counts the versions that were taken, from 1; 0 is none yet.
	Generation uint64
	// LoadedAt is when the last of them was taken; zero if none was.
	LoadedAt time.Time
	// Stale says that there is something newer, or nothing any more, which
	// cannot be used; Err says why.
	Stale bool
	Err   error
}

// ReloadOptions are what Reloaders can do without.
type ReloadOptions struct {
	// Logger is told of each version and of what is refused; nil means nobody.
	Logger *slog.Logger
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// Reloaders are what is loaded again while the service runs. They are safe for
// concurrent use.
type Reloaders struct {
	rows  []*row
	log   *slog.Logger
	now   func() time.Time
	ended chan struct{} // closed once nothing is loaded any more
	// first is called before a row is loaded because something has changed; nil is
	// nothing.
	first func(context.Context)
}

// A row is a Reloader and what became of it.
type row struct {
	Reloader

	turn sync.Mutex // one attempt at a time

	first   atomic.Pointer[watch.Begun] // of the first watch, until that runs
	watched atomic.Bool
	asked   chan func(writing bool) // by whoever watches
	also    chan struct{}           // that there are other files to watch

	mu         sync.Mutex
	before     uint64 // versions of the row whose place it has taken
	generation uint64
	loadedAt   time.Time
	err        error         // of the last attempt
	waiting    error         // for a file that is being written
	pause      time.Duration // before the next attempt, if the last one failed for a reason that passes
	retry      time.Time     // when that is
}

// NewReloaders takes rows that have been loaded once. Of rows with the same name
// the second is NAME-2, and so on.
func NewReloaders(rows []Reloader, opts *ReloadOptions) *Reloaders {
	r := &Reloaders{log: slog.New(slog.DiscardHandler), now: time.Now, ended: make(chan struct{})}
	if opts != nil && opts.Logger != nil {
		r.log = opts.Logger
	}
	if opts != nil && opts.Now != nil {
		r.now = opts.Now
	}
	seen := map[string]int{}
	for _, given := range rows {
		one := &row{Reloader: given, asked: make(chan func(bool)), also: make(chan struct{}, 1)}
		one.first.Store(given.begun)
		if seen[given.Name]++; seen[given.Name] > 1 {
			one.Name = fmt.Sprintf("%s-%d", given.Name, seen[given.Name])
		}
		if one.Confirm == nil {
			one.Confirm = one.Reload
		}
		one.Meanwhile = cmp.Or(one.Meanwhile, "the last good version goes on serving")
		one.generation = 1
		if one.State != nil {
			loaded := one.State()
			one.generation, one.err = loaded.Generation, loaded.Err
		}
		if one.generation > 0 {
			one.loadedAt = r.now()
		}
		r.rows = append(r.rows, one)
	}
	return r
}

// State returns the rows as they are now, in their order.
func (r *Reloaders) State() []ReloadState {
	var all []ReloadState
	for _, row := range r.rows {
		row.mu.Lock()
		s := ReloadState{Name: row.Name, Generation: row.count(), LoadedAt: row.loadedAt, Err: row.err}
		if s.Err == nil {
			s.Err = row.waiting
		}
		row.mu.Unlock()
		s.Stale = s.Err != nil
		all = append(all, s)
	}
	return all
}

// Run watches the files of all rows until ctx ends, and loads what has changed.
func (r *Reloaders) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, row := range r.rows {
		if row.Run != nil {
			group.Go(func() error {
				return row.Run(ctx, func(err error) { r.note(row, err, false) })
			})
		}
		if len(row.Files) > 0 {
			group.Go(func() error {
				row.watched.Store(true)
				for ctx.Err() == nil {
					r.watchRow(ctx, row)
				}
				return nil
			})
		}
	}
	return group.Wait()
}

// watchRow watches the files of a row until there are others to watch.
func (r *Reloaders) watchRow(ctx context.Context, row *row) {
	files := row.files()
	watching, cancel := context.WithCancel(ctx)
	var others sync.WaitGroup
	defer others.Wait()
	defer cancel()
	others.Go(func() {
		for {
			select {
			case <-watching.Done():
				return
			case <-row.also:
				if !slices.Equal(row.files(), files) {
					cancel()
				}
			}
		}
	})
	r.watch(ctx, row, files).Run(watching)
}

// count is how many versions were loaded. The caller holds mu.
func (row *row) count() uint64 {
	if row.generation == 0 {
		return 0
	}
	return row.before + row.generation
}

func (row *row) files() []string {
	if row.Also == nil {
		return row.Files
	}
	return slices.Concat(row.Files, row.Also())
}

// watch says what is to be done about the files of a row.
func (r *Reloaders) watch(ctx context.Context, row *row, files []string) *watch.Watch {
	return &watch.Watch{
		Files:   files,
		Begun:   row.first.Swap(nil),
		Changed: func() { r.load(ctx, row, row.Reload, false) },
		Idle:    func() { r.again(ctx, row) },
		Waiting: func(file string) { r.wait(row, file) },
		Asked:   row.asked,
	}
}

// All loads all rows, one after the other, whether anything has changed or not.
// It is what an operator asks for, who means what is there; but not the half that
// somebody is writing. Those are loaded once they are closed, or if asked for again
// after their writer has been told of.
func (r *Reloaders) All(ctx context.Context) {
	for _, row := range r.rows {
		if r.isWritten(ctx, row) {
			r.log.Info(row.Name + " is being written: it is loaded once its writer has closed it")
			continue
		}
		r.load(ctx, row, row.Confirm, true)
	}
}

// isWritten asks whoever watches the row's files whether somebody writes to one.
func (r *Reloaders) isWritten(ctx context.Context, row *row) bool {
	if !row.watched.Load() {
		return false
	}
	answer := make(chan bool, 1)
	select {
	case row.asked <- func(writing bool) { answer <- writing }:
		return <-answer
	case <-r.ended:
	case <-ctx.Done():
	}
	return false // and nothing is loaded any more
}

// again loads a row whose last attempt failed for a reason that may have passed.
// Nobody may be writing to its files now.
func (r *Reloaders) again(ctx context.Context, row *row) {
	row.mu.Lock()
	due := row.pause > 0 && !r.now().Before(row.retry)
	row.mu.Unlock()
	if due {
		r.load(ctx, row, row.Reload, false)
	}
}

func (r *Reloaders) load(ctx context.Context, row *row, load func(context.Context) error, asked bool) {
	if r.first != nil && !asked {
		r.first(ctx)
	}
	row.turn.Lock()
	defer row.turn.Unlock()
	select {
	case <-r.ended:
		return
	default:
	}
	err := load(ctx)
	if ctx.Err() != nil {
		return // the end of the service is no fault of the file
	}
	r.note(row, err, asked)
	if row.Also != nil {
		select {
		case row.also <- struct{}{}:
		default: // whoever watches has yet to look
		}
	}
}

// hold keeps everything from being loaded until release is called.
func (r *Reloaders) hold() (release func()) {
	for _, row := range r.rows {
		row.turn.Lock()
	}
	return func() {
		for _, row := range r.rows {
			row.turn.Unlock()
		}
	}
}

// follow counts the versions on of the rows that these take the place of.
func (r *Reloaders) follow(earlier *Reloaders) {
	was := map[string]uint64{}
	for _, s := range earlier.State() {
		was[s.Name] = s.Generation
	}
	for _, row := range r.rows {
		row.mu.Lock()
		if last := was[row.Name]; row.generation < last { // it begins anew, which is a version
			row.before = last
		}
		row.mu.Unlock()
	}
}

// end has nothing be loaded any more. Whoever calls it holds. Rows that nobody ever ran
// are watched no more.
func (r *Reloaders) end() {
	close(r.ended)
	for _, row := range r.rows {
		if begun := row.first.Swap(nil); begun != nil {
			begun.Close()
		}
	}
}

// note keeps how an attempt ended, and tells of it: of a version, and of an error
// that is not the last one again, unless somebody asked.
func (r *Reloaders) note(row *row, err error, asked bool) {
	loaded := Loaded{Err: err}
	if row.State != nil {
		loaded = row.State()
	}
	row.mu.Lock()
	before, last := row.generation, row.err
	row.err, row.waiting = err, nil
	if row.State != nil {
		row.generation = loaded.Generation
	} else if err == nil {
		row.generation++
	}
	taken := row.generation != before
	if taken {
		row.loadedAt = r.now()
	}
	row.pause = nextPause(row.pause, err)
	row.retry = r.now().Add(row.pause)
	generation, pause := row.count(), row.pause
	row.mu.Unlock()

	switch {
	case err == nil && (asked || taken || last != nil):
		loadedAs := " loaded"
		if last != nil && before > 0 {
			loadedAs = " loaded, and well again"
		}
		r.log.Info(row.Name+loadedAs, append([]any{"generation", generation}, loaded.Attrs...)...)
		if taken && row.Taken != nil {
			row.Taken()
		}
	case err != nil && (asked || last == nil || last.Error() != err.Error()):
		meanwhile := row.Meanwhile
		if generation == 0 {
			meanwhile = "there are none: what needs them is refused until there are"
		}
		attrs := []any{"generation", generation, "error", err}
		if pause > 0 && row.Run == nil {
			attrs = append(attrs, "again_in", pause)
		}
		if advice := access.Advice(err); advice != "" {
			attrs = append(attrs, "remedy", advice)
		}
		r.log.Error(row.Name+" refused, "+meanwhile, append(attrs, loaded.Attrs...)...)
	}
}

// wait tells of a change that is not taken because its writer has not closed it,
// or does not leave it alone.
func (r *Reloaders) wait(row *row, file string) {
	err := fmt.Errorf("%s has been open for writing, or has not stopped changing, for a minute: close it, or rename a whole file into its place; SIGHUP takes it as it is", file)
	row.mu.Lock()
	row.waiting = err
	row.mu.Unlock()
	r.log.Warn(row.Name+" waits for its writer, "+row.Meanwhile, "error", err)
}

// nextPause returns how long to wait after an attempt; 0 is until something
// changes.
func nextPause(last time.Duration, err error) time.Duration {
	if !passes(err) {
		return 0
	}
	return max(firstRetry, min(2*last, lastRetry))
}

// passes reports whether an error says that what is there could not be read, as
// for want of file descriptors, or while a directory is being replaced. Any other
// is a verdict on what was read, and only a change can alter that.
func passes(err error) bool {
	var system syscall.Errno
	return errors.As(err, &system) || errors.Is(err, context.DeadlineExceeded)
}
