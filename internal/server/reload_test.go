package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A loader is a Reload whose end the test decides, by a clock that it holds.
type loader struct {
	err        error
	attempts   int
	now        time.Time
	log        bytes.Buffer
	reloaders  *Reloaders
	generation uint64
}

func newLoader(edit func(*Reloader)) *loader {
	l := &loader{now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), generation: 1}
	one := Reloader{Name: "users", Reload: func(context.Context) error { l.attempts++; return l.err }}
	if edit != nil {
		edit(&one)
	}
	l.reloaders = NewReloaders([]Reloader{one}, &ReloadOptions{
		Now:    func() time.Time { return l.now },
		Logger: slog.New(slog.NewTextHandler(&l.log, nil)),
	})
	return l
}

func (l *loader) row() *row { return l.reloaders.rows[0] }

// change is what the watcher does once the files have changed.
func (l *loader) change(t *testing.T) {
	l.reloaders.load(t.Context(), l.row(), l.row().Reload, false)
}

func (l *loader) state() ReloadState { return l.reloaders.State()[0] }

// logged returns the messages since it was last asked.
func (l *loader) logged() []string {
	var all []string
	for line := range strings.Lines(l.log.String()) {
		_, rest, _ := strings.Cut(line, `msg="`)
		message, _, _ := strings.Cut(rest, `"`)
		all = append(all, message)
	}
	l.log.Reset()
	return all
}

const (
	usersLoaded  = "users loaded"
	usersWell    = "users loaded, and well again"
	usersRefused = "users refused, the last good version goes on serving"
)

var errNoDescriptors = fmt.Errorf("read users: %w", &fs.PathError{Op: "open", Path: "users", Err: syscall.EMFILE})

// A read that fails for a reason that passes is tried again until it succeeds,
// less and less often, and told of once.
func TestReadThatFailsInPassingIsTriedAgain(t *testing.T) {
	l := newLoader(nil)
	l.err = errNoDescriptors
	l.change(t)
	if got := l.logged(); !slices.Equal(got, []string{usersRefused}) {
		t.Errorf("logged %q", got)
	}
	for i, pause := range []time.Duration{1, 2, 4, 8, 16, 30, 30, 30} {
		pause *= time.Second
		tried := l.attempts
		l.now = l.now.Add(pause - 1)
		l.reloaders.again(t.Context(), l.row())
		if l.attempts != tried {
			t.Fatalf("attempt %d came before %v", i, pause)
		}
		l.now = l.now.Add(1)
		l.reloaders.again(t.Context(), l.row())
		if l.attempts != tried+1 {
			t.Fatalf("attempt %d did not come after %v", i, pause)
		}
	}
	if got := l.logged(); len(got) != 0 {
		t.Errorf("the same error was logged again: %q", got)
	}
	if s := l.state(); !s.Stale || !errors.Is(s.Err, syscall.EMFILE) || s.Generation != 1 {
		t.Errorf("state %+v", s)
	}
	l.err = errors.Join(errors.New("another"), syscall.ENFILE)
	l.now = l.now.Add(lastRetry)
	l.reloaders.again(t.Context(), l.row())
	l.err = nil
	l.now = l.now.Add(lastRetry)
	l.reloaders.again(t.Context(), l.row())
	if got := l.logged(); !slices.Equal(got, []string{usersRefused, usersWell}) {
		t.Errorf("logged %q", got)
	}
	if s := l.state(); s.Stale || s.Err != nil || s.Generation != 2 || s.LoadedAt != l.now {
		t.Errorf("state %+v", s)
	}
	tried := l.attempts
	l.now = l.now.Add(time.Hour)
	l.reloaders.again(t.Context(), l.row())
	if l.attempts != tried {
		t.Error("it was read again, though all is well")
	}
}

// What was read and refused stays refused until somebody changes it: reading it
// again alters nothing.
func TestVerdictIsNotTriedAgain(t *testing.T) {
	l := newLoader(nil)
	l.err = errors.New("users:3: no colon")
	l.change(t)
	l.now = l.now.Add(time.Hour)
	l.reloaders.again(t.Context(), l.row())
	if l.attempts != 1 || !l.state().Stale {
		t.Errorf("%d attempts, state %+v", l.attempts, l.state())
	}
	l.change(t) // to another that is refused for the same
	if got := l.logged(); !slices.Equal(got, []string{usersRefused}) {
		t.Errorf("logged %q", got)
	}
	l.reloaders.All(t.Context()) // an operator asks
	if got := l.logged(); !slices.Equal(got, []string{usersRefused}) {
		t.Errorf("logged %q", got)
	}
	l.err = nil
	l.change(t)
	if got := l.logged(); !slices.Equal(got, []string{usersWell}) || l.state().Stale {
		t.Errorf("logged %q, state %+v", got, l.state())
	}
}

func TestErrorsThatPass(t *testing.T) {
	for _, row := range []struct {
		err    error
		passes bool
	}{
		{nil, false},
		{errors.New("users:3: no colon"), false},
		{errNoDescriptors, true},
		{&fs.PathError{Op: "open", Path: "users", Err: syscall.ENOENT}, true},
		{fmt.Errorf("read model: %w", os.NewSyscallError("read", syscall.EIO)), true},
		{errors.Join(errors.New("one"), syscall.ENFILE), true},
		{&fs.PathError{Op: "open", Path: "users", Err: errors.New("not a regular file")}, false},
		{context.DeadlineExceeded, true},
	} {
		if got := passes(row.err); got != row.passes {
			t.Errorf("%v: %t", row.err, got)
		}
	}
}

// SIGHUP leaves no row out, and is told of each.
func TestAllLoadsEveryRow(t *testing.T) {
	var loaded []string
	var log bytes.Buffer
	one := func(name string, err error) Reloader {
		return Reloader{Name: name, Reload: func(context.Context) error {
			loaded = append(loaded, name)
			return err
		}}
	}
	meant := one("policy", nil)
	meant.Confirm = func(context.Context) error {
		loaded = append(loaded, "policy as it is meant")
		return nil
	}
	token := one("admin token", errors.New("gone"))
	token.Meanwhile = "none is accepted"
	r := NewReloaders([]Reloader{meant, one("users", errors.New("bad")), one("users", nil), token, one("keys", nil)},
		&ReloadOptions{Logger: slog.New(slog.NewTextHandler(&log, nil))})
	r.All(t.Context())
	if want := []string{"policy as it is meant", "users", "users", "admin token", "keys"}; !slices.Equal(loaded, want) {
		t.Errorf("loaded %q, want %q", loaded, want)
	}
	for _, want := range []string{
		`msg="policy loaded" generation=2`, `msg="users refused, the last good version goes on serving" generation=1 error=bad`,
		`msg="users-2 loaded" generation=2`, `msg="admin token refused, none is accepted" generation=1 error=gone`, `msg="keys loaded"`,
	} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("%s is not in the log:\n%s", want, &log)
		}
	}
	var names, stale []string
	for _, s := range r.State() {
		names = append(names, s.Name)
		if s.Stale {
			stale = append(stale, s.Name)
		}
	}
	if want := []string{"policy", "users", "users-2", "admin token", "keys"}; !slices.Equal(names, want) {
		t.Errorf("rows are %q, want %q", names, want)
	}
	if want := []string{"users", "admin token"}; !slices.Equal(stale, want) {
		t.Errorf("%q are stale, want %q", stale, want)
	}
}

// A source that counts its versions itself is believed: what is the same is no
// new version, and not told.
func TestVersionsAreTheSourcesOwn(t *testing.T) {
	taken := 0
	var loaded Loaded
	l := newLoader(func(r *Reloader) {
		r.State = func() Loaded { return loaded }
		r.Taken = func() { taken++ }
	})
	if s := l.state(); s.Generation != 0 || !s.LoadedAt.IsZero() || s.Stale {
		t.Errorf("nothing yet: %+v", s)
	}
	l.err = errors.New("the issuer is away")
	l.change(t)
	if got := l.logged(); !slices.Equal(got, []string{"users refused, there are none: what needs them is refused until there are"}) {
		t.Errorf("logged %q", got)
	}
	l.err = nil
	for _, generation := range []uint64{1, 1, 2, 2, 2} {
		l.now = l.now.Add(time.Hour)
		loaded = Loaded{Generation: generation, Attrs: []any{"lines", 7}}
		l.change(t)
	}
	if !strings.Contains(l.log.String(), "generation=2 lines=7") {
		t.Errorf("logged %s", &l.log)
	}
	if got := l.logged(); !slices.Equal(got, []string{usersLoaded, usersLoaded}) || taken != 2 {
		t.Errorf("logged %q, told %d times", got, taken)
	}
	if s := l.state(); s.Generation != 2 || s.LoadedAt != l.now.Add(-2*time.Hour) {
		t.Errorf("state %+v", s)
	}
	// One that could not be loaded at the start is stale from the start.
	r := NewReloaders([]Reloader{{Name: "keys", State: func() Loaded { return Loaded{Err: errors.New("away")} }}}, nil)
	if s := r.State()[0]; !s.Stale || s.Generation != 0 {
		t.Errorf("state %+v", s)
	}
}

func TestEndOfTheServiceIsNoFault(t *testing.T) {
	l := newLoader(nil)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	l.err = ctx.Err()
	l.reloaders.All(ctx)
	if got := l.logged(); len(got) != 0 || l.state().Stale {
		t.Errorf("logged %q, state %+v", got, l.state())
	}
}

// A change that waits for its writer is not silent.
func TestFileThatIsBeingWrittenIsVisible(t *testing.T) {
	l := newLoader(nil)
	l.reloaders.watch(t.Context(), l.row(), l.row().Files).Waiting("/etc/users")
	if got := l.logged(); !slices.Equal(got, []string{"users waits for its writer, the last good version goes on serving"}) {
		t.Errorf("logged %q", got)
	}
	if s := l.state(); !s.Stale || !strings.Contains(s.Err.Error(), "/etc/users has been open for writing, or has not stopped changing, for a minute: close it") {
		t.Errorf("state %+v", s)
	}
	l.reloaders.All(t.Context())
	if s := l.state(); s.Stale || s.Generation != 2 {
		t.Errorf("state %+v", s)
	}
}

// One attempt at a time, whoever asks: the last one's end is the row's state.
func TestAttemptsDoNotOverlap(t *testing.T) {
	var running, most atomic.Int32
	r := NewReloaders([]Reloader{{Name: "users", Reload: func(context.Context) error {
		most.Store(max(most.Load(), running.Add(1)))
		defer running.Add(-1)
		runtime.Gosched() // long enough to meet another
		return nil
	}}}, nil)
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() { r.All(t.Context()) })
		all.Go(func() { r.load(t.Context(), r.rows[0], r.rows[0].Reload, false) })
		all.Go(func() { r.State() })
	}
	all.Wait()
	if most.Load() != 1 || r.State()[0].Generation != 41 {
		t.Errorf("%d at a time, %+v", most.Load(), r.State())
	}
}

// Real files, a real clock: what is renamed into place is loaded, and a read that
// failed is made again. Rows that ask for themselves report.
func TestRunLoadsWhatHasChanged(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "users")
	replace := func(text string) {
		t.Helper()
		if err := errors.Join(os.WriteFile(file+".new", []byte(text), 0o600), os.Rename(file+".new", file)); err != nil {
			t.Fatal(err)
		}
	}
	replace("one")
	texts, failing := make(chan string, 100), &atomic.Bool{}
	reported := make(chan struct{})
	r := NewReloaders([]Reloader{
		{Name: "users", Files: []string{file}, Reload: func(context.Context) error {
			if failing.CompareAndSwap(true, false) {
				texts <- "failed"
				return syscall.EMFILE
			}
			text, err := os.ReadFile(file)
			texts <- string(text)
			return err
		}},
		{Name: "keys", Run: func(ctx context.Context, report func(error)) error {
			report(errors.New("away"))
			close(reported)
			<-ctx.Done()
			return nil
		}},
	}, nil)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- r.Run(ctx) }()
	want := func(text string) {
		t.Helper()
		select {
		case got := <-texts:
			if got != text {
				t.Errorf("loaded %q, want %q", got, text)
			}
		case <-time.After(30 * time.Second):
			t.Fatalf("%q was not loaded", text)
		}
	}
	want("one") // what may have changed before it was watched
	failing.Store(true)
	replace("two")
	want("failed")
	want("two") // nothing has changed since
	<-reported
	if s := r.State()[1]; !s.Stale || s.Err.Error() != "away" {
		t.Errorf("state %+v", s)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// What somebody is writing is not loaded by whoever asks for all, but when it is
// closed.
func TestAllLeavesAWriterAlone(t *testing.T) {
	file := filepath.Join(t.TempDir(), "users")
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	loaded := make(chan string, 100)
	load := func(context.Context) error {
		text, err := os.ReadFile(file)
		loaded <- string(text)
		return err
	}
	var log bytes.Buffer
	r := NewReloaders([]Reloader{{Name: "users", Files: []string{file}, Reload: load}}, &ReloadOptions{Logger: slog.New(slog.NewTextHandler(&log, nil))})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- r.Run(ctx) }()
	if got := <-loaded; got != "" { // some seconds after it has begun to watch
		t.Fatalf("loaded %q", got)
	}
	if _, err := f.WriteString("alice"); err != nil {
		t.Fatal(err)
	}
	for range 20 {
		r.All(ctx)
	}
	select {
	case got := <-loaded:
		t.Errorf("loaded %q while it was written", got)
	default:
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if got := <-loaded; got != "alice" {
		t.Errorf("loaded %q", got)
	}
	r.All(ctx)
	if got := <-loaded; got != "alice" {
		t.Errorf("loaded %q", got)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if !strings.Contains(log.String(), `msg="users is being written: it is loaded once its writer has closed it"`) {
		t.Errorf("logged %s", &log)
	}
}
