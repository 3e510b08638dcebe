package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// says is a handler that answers with its name, once it may.
func says(name string, may <-chan struct{}) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if may != nil {
			<-may
		}
		_, _ = io.WriteString(w, name)
	})
}

func asked(h http.Handler) string {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
	return w.Body.String()
}

// numbered are generations that say their number and have a row each, whose rows' runs
// are counted.
type numbered struct {
	*Generations
	file    string
	made    atomic.Int64
	running atomic.Int64
	err     atomic.Pointer[error] // what the next one fails with
	loads   sync.Map              // by number, how often its row was loaded
}

func newNumbered(t *testing.T) *numbered {
	t.Helper()
	n := &numbered{file: filepath.Join(t.TempDir(), "configuration")}
	last := "1"
	write(t, n.file, last)
	n.Generations = NewGenerations(n.make(), Reloader{Name: "configuration", Files: []string{n.file}, State: func() Loaded { return Loaded{Generation: uint64(n.made.Load())} }},
		func(_ context.Context, confirmed bool) (*Generation, error) {
			if err := n.err.Load(); err != nil {
				return nil, *err
			}
			text, err := os.ReadFile(n.file)
			if err != nil || last == string(text) && !confirmed {
				return nil, err
			}
			last = string(text)
			return n.make(), nil
		}, nil)
	return n
}

func (n *numbered) users(number int64) string { return fmt.Sprintf("%s.users-%d", n.file, number) }

func (n *numbered) make() *Generation {
	number := n.made.Add(1)
	count := new(atomic.Int64)
	n.loads.Store(number, count)
	row := Reloader{
		Name: "users", Files: []string{n.users(number)}, Reload: func(context.Context) error { count.Add(1); return nil },
		Run: func(ctx context.Context, _ func(error)) error {
			n.running.Add(1)
			defer n.running.Add(-1)
			<-ctx.Done()
			return nil
		},
	}
	name := fmt.Sprint(number)
	return &Generation{Nginx: says(name, nil), Admin: says("admin "+name, nil), Reload: NewReloaders([]Reloader{row}, nil), Beside: func(ctx context.Context) error { <-ctx.Done(); return nil }}
}

func (n *numbered) loaded(number int64) int64 {
	count, _ := n.loads.Load(number)
	return count.(*atomic.Int64).Load()
}

// start runs them; stop ends them and waits until all has ended.
func (n *numbered) start(t *testing.T) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- n.Run(ctx) }()
	return func() {
		t.Helper()
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}

func write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(name+".new", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(name+".new", name); err != nil {
		t.Fatal(err)
	}
}

func until(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("it never came about that %s", what)
		}
	}
}

// A request in progress ends with the generation that it began with, and the next one
// has the new.
func TestARequestEndsWithTheGenerationThatItBeganWith(t *testing.T) {
	may := make(chan struct{})
	first := &Generation{Nginx: says("first", may), Admin: says("", nil), Reload: NewReloaders(nil, nil)}
	second := &Generation{Nginx: says("second", nil), Admin: says("", nil), Reload: NewReloaders(nil, nil)}
	g := NewGenerations(first, Reloader{Name: "configuration", Files: []string{"/nonexistent"}}, func(context.Context, bool) (*Generation, error) { return second, nil }, nil)
	answer := make(chan string)
	go func() { answer <- asked(g.Nginx()) }()
	may <- struct{}{} // it is being answered; it waits for no more
	close(may)
	if got := <-answer; got != "first" {
		t.Errorf("before: %q", got)
	}
	may = make(chan struct{})
	first.Nginx = says("first", may)
	go func() { answer <- asked(g.Nginx()) }()
	began := make(chan struct{})
	go func() { may <- struct{}{}; close(began) }()
	<-began
	g.All(t.Context())
	if got := asked(g.Nginx()); got != "second" {
		t.Errorf("after: %q", got)
	}
	if got := <-answer; got != "first" {
		t.Errorf("what began before: %q", got)
	}
}

// What ran beside a generation ends with it; its files are watched no more, and those of
// the next one are.
func TestAGenerationEndsAsAWhole(t *testing.T) {
	n := newNumbered(t)
	stop := n.start(t)
	for range 20 {
		before := n.made.Load()
		write(t, n.file, fmt.Sprint("after ", before))
		until(t, "there is another generation", func() bool { return asked(n.Nginx()) != fmt.Sprint(before) })
		until(t, "one runs", func() bool { return n.running.Load() == 1 })
	}
	last := n.made.Load()
	if got := asked(n.Admin()); got != fmt.Sprint("admin ", last) {
		t.Errorf("admin: %q", got)
	}
	once := n.loaded(1)
	write(t, n.users(1), "alice")
	until(t, "the last one's file is watched", func() bool {
		write(t, n.users(last), fmt.Sprint(time.Now()))
		return n.loaded(last) > 0
	})
	if n.loaded(1) != once {
		t.Error("a file of the first one is still watched")
	}
	stop() // TestMain looks for goroutines that are left
	if n.running.Load() != 0 {
		t.Error("something runs")
	}
}

// An error leaves all as it was, and shows.
func TestAGenerationThatCannotBeMadeLeavesTheLast(t *testing.T) {
	n := newNumbered(t)
	failure := errors.New("securefiles.yaml:3:1: error: there")
	n.err.Store(&failure)
	n.All(t.Context())
	s := n.State()
	if asked(n.Nginx()) != "1" || len(s) != 2 || s[0].Name != "configuration" || !s[0].Stale || !errors.Is(s[0].Err, failure) || s[1].Stale || s[1].Generation != 2 {
		t.Errorf("%q %+v", asked(n.Nginx()), s)
	}
	n.err.Store(nil)
	n.All(t.Context())
	if s := n.State(); asked(n.Nginx()) != "2" || s[0].Stale || s[0].Generation != 2 || s[1].Generation < 3 {
		t.Errorf("%q %+v", asked(n.Nginx()), s)
	}
}

// While the next generation is made nothing of the running one is loaded, nor is it
// afterwards: two would count on from one version.
func TestNothingIsLoadedBesideTheConfiguration(t *testing.T) {
	making, goOn := make(chan struct{}), make(chan struct{})
	var loads atomic.Int64
	var once atomic.Bool
	row := Reloader{Name: "policy", Reload: func(context.Context) error { loads.Add(1); return nil }}
	first := &Generation{Nginx: says("1", nil), Reload: NewReloaders([]Reloader{row}, nil)}
	second := &Generation{Nginx: says("2", nil), Reload: NewReloaders(nil, nil)}
	g := NewGenerations(first, Reloader{Name: "configuration", Files: []string{"/nonexistent"}}, func(context.Context, bool) (*Generation, error) {
		if !once.CompareAndSwap(false, true) {
			return nil, nil // it is as it was
		}
		close(making)
		<-goOn
		return second, nil
	}, nil)
	var both sync.WaitGroup
	both.Go(func() { g.All(t.Context()) })
	<-making
	if first.Reload.rows[0].turn.TryLock() {
		t.Error("a row has its turn while the next generation is made")
		first.Reload.rows[0].turn.Unlock()
	}
	both.Go(func() { first.Reload.load(t.Context(), first.Reload.rows[0], row.Reload, true) })
	close(goOn)
	both.Wait()
	if loads.Load() != 0 {
		t.Error("a row of the generation before was loaded")
	}
}

// Whoever asks for everything to be loaded while generations come and go waits for
// nobody who is gone.
func TestGenerationsWhileEverythingIsAskedFor(t *testing.T) {
	n := newNumbered(t)
	stop := n.start(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for range 50 {
				n.All(ctx)
				if got := asked(n.Nginx()); got == "" {
					t.Error("nobody answers")
				}
				n.State()
			}
		})
	}
	all.Wait()
	if ctx.Err() != nil {
		t.Error("somebody waited for ever")
	}
	stop()
}

// What a refusal depended on is watched, whichever files that are.
func TestFilesOfARefusalAreWatched(t *testing.T) {
	dir := t.TempDir()
	conf, policy := filepath.Join(dir, "securefiles.yaml"), filepath.Join(dir, "policy.csv")
	write(t, conf, "1")
	var also atomic.Pointer[[]string]
	var loads atomic.Int64
	r := NewReloaders([]Reloader{{
		Name: "configuration", Files: []string{conf},
		Reload: func(context.Context) error {
			loads.Add(1)
			text, err := os.ReadFile(conf)
			if err != nil || strings.HasPrefix(string(text), "1") {
				also.Store(nil)
				return err
			}
			also.Store(&[]string{policy})
			_, err = os.ReadFile(policy)
			if err != nil {
				return errors.New("no policy") // whoever says so tries no more
			}
			also.Store(nil)
			return nil
		},
		Also: func() []string {
			if files := also.Load(); files != nil {
				return *files
			}
			return nil
		},
	}}, nil)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- r.Run(ctx) }()
	for range 2 { // what has just begun to be watched is read once more anyway
		write(t, conf, "2")
		until(t, "it is refused", func() bool { return r.State()[0].Stale })
		write(t, policy, "p, alice, /a, read, allow\n")
		until(t, "it is taken", func() bool { return !r.State()[0].Stale })
		if err := os.Remove(policy); err != nil {
			t.Fatal(err)
		}
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// What changes after a generation has read it, and before its watchers run, is loaded
// like any other change: not only once they look at everything again, after some seconds.
func TestNothingIsLostBetweenReadingAndWatching(t *testing.T) {
	// Everything is looked at again after five seconds. A busy machine makes times longer,
	// never shorter.
	shortest := time.Hour
	for tries := 0; tries < 4 && shortest > 4*time.Second; tries++ {
		shortest = min(shortest, takesAfterReading(t))
	}
	if shortest > 4*time.Second {
		t.Errorf("loaded after %v: that is when everything is looked at again", shortest)
	}
}

// takesAfterReading is how long it takes until what changed before watchers run is loaded.
func takesAfterReading(t *testing.T) time.Duration {
	t.Helper()
	file := filepath.Join(t.TempDir(), "policy")
	write(t, file, "1")
	loaded := make(chan struct{}, 1)
	rows := Watching([]Reloader{{Name: "policy", Files: []string{file}, Reload: func(context.Context) error { loaded <- struct{}{}; return nil }}})
	r := NewReloaders(rows, nil)
	write(t, file, "2")
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	begin := time.Now()
	go func() { ended <- r.Run(ctx) }()
	<-loaded
	took := time.Since(begin)
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	return took
}

// What is watched, and never served, is watched no more.
func TestWatchersThatNobodyRunsEnd(t *testing.T) {
	before := goleak.IgnoreCurrent()
	row := Reloader{Name: "policy", Files: []string{filepath.Join(t.TempDir(), "policy")}}
	Unwatch(Watching([]Reloader{row}))
	NewReloaders(Watching([]Reloader{row}), nil).end()
	goleak.VerifyNone(t, before)
}

// Whoever asks a generation that has just ended, and whose watchers are gone, does not
// wait for them.
func TestNobodyWaitsForTheWatchersOfTheGenerationBefore(t *testing.T) {
	loads := 0
	r := NewReloaders([]Reloader{{Name: "users", Files: []string{"/nonexistent"}, Reload: func(context.Context) error { loads++; return nil }}}, nil)
	r.rows[0].watched.Store(true)
	r.end()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	r.All(ctx)
	if ctx.Err() != nil || loads != 0 {
		t.Errorf("%v, %d loads", ctx.Err(), loads)
	}
}

// What is swapped together, configuration and policy behind one link, is taken together:
// the policy of the next configuration is never loaded beside the last one.
func TestWhatChangesWithTheConfigurationIsTakenWithIt(t *testing.T) {
	dir := t.TempDir()
	swap := func(version int) {
		t.Helper()
		sub := filepath.Join(dir, fmt.Sprint(version))
		if err := os.Mkdir(sub, 0o755); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(sub, "configuration"), fmt.Sprint(version))
		write(t, filepath.Join(sub, "policy"), fmt.Sprint(version))
		if err := os.Symlink(sub, filepath.Join(dir, "next")); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(filepath.Join(dir, "next"), filepath.Join(dir, "data")); err != nil {
			t.Fatal(err)
		}
	}
	swap(1)
	read := func(name string) string {
		text, err := os.ReadFile(filepath.Join(dir, "data", name))
		if err != nil {
			t.Error(err)
		}
		return string(text)
	}
	var running atomic.Pointer[string]
	next := func(context.Context, bool) (*Generation, error) {
		version := read("configuration")
		if now := running.Load(); now != nil && *now == version {
			return nil, nil
		}
		running.Store(&version)
		policy := Reloader{Name: "policy", Files: []string{filepath.Join(dir, "data", "policy")}, Reload: func(context.Context) error {
			if got := read("policy"); got != version {
				t.Errorf("the policy of %s is loaded beside the configuration of %s", got, version)
			}
			return nil
		}}
		return &Generation{Nginx: says(version, nil), Reload: NewReloaders([]Reloader{policy}, nil)}, nil
	}
	first, err := next(t.Context(), false)
	if err != nil {
		t.Fatal(err)
	}
	g := NewGenerations(first, Reloader{Name: "configuration", Files: []string{filepath.Join(dir, "data", "configuration")}, State: func() Loaded { return Loaded{Generation: 1} }}, next, nil)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- g.Run(ctx) }()
	for version := 2; version < 40; version++ {
		swap(version)
		until(t, "the next one serves", func() bool { return asked(g.Nginx()) == fmt.Sprint(version) })
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
