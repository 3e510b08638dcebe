package watch

import (
	"context"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// long is longer than anything waits by itself.
const long = 2 * patience

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A watched is files that are watched by a clock that the test holds.
type watched struct {
	t     *testing.T
	ticks chan time.Time
	now   time.Time
	told  chan string // what the files held at each call
	idle  chan struct{}
	slow  chan string // whose writer took long
	asked chan func(bool)
}

// begin watches files, blindly if no event is to come, and lets the first call
// pass.
func begin(t *testing.T, blind bool, files ...string) *watched {
	t.Helper()
	w := &watched{
		t: t, ticks: make(chan time.Time), now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC),
		told: make(chan string, 1000), idle: make(chan struct{}, 100_000), slow: make(chan string, 1000), asked: make(chan func(bool)),
	}
	var n *notifier
	if !blind {
		if runtime.GOOS != "linux" {
			t.Skip("there is no inotify")
		}
		var err error
		if n, err = newNotifier(); err != nil {
			t.Fatal(err)
		}
	}
	watch := &Watch{
		Files: files,
		Changed: func() {
			var texts []string
			for _, f := range files {
				text, err := os.ReadFile(f)
				if err != nil {
					text = []byte("missing")
				}
				texts = append(texts, string(text))
			}
			w.told <- strings.Join(texts, "+")
		},
		Idle:    func() { w.idle <- struct{}{} },
		Waiting: func(file string) { w.slow <- file },
		Asked:   w.asked,
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		watch.run(t.Context(), newState(watch.Files, n), w.ticks)
	}()
	t.Cleanup(func() { // the context has ended
		<-done
		if n != nil {
			n.close()
		}
	})
	w.pass(2 * quiet)
	if got := w.calls(); len(got) != 1 {
		t.Fatalf("at the start it was told %q, want once", got)
	}
	return w
}

// pass lets time pass, second by second, and all that comes of it.
func (w *watched) pass(d time.Duration) {
	for range d / interval {
		w.now = w.now.Add(interval)
		w.ticks <- w.now
	}
	w.ticks <- time.Time{} // no time: it is received once all before has had its effect
}

// calls returns what was told so far.
func (w *watched) calls() []string {
	var all []string
	for {
		select {
		case text := <-w.told:
			all = append(all, text)
		default:
			return all
		}
	}
}

// atOnce waits for what is told, while no time passes.
func (w *watched) atOnce(want string) {
	w.t.Helper()
	select {
	case got := <-w.told:
		if got != want {
			w.t.Errorf("told %q, want %q", got, want)
		}
	case <-time.After(time.Minute):
		w.t.Fatalf("%q was not told at once", want)
	}
}

// notYet lets time pass in which nothing may be told.
func (w *watched) notYet(d time.Duration) {
	w.t.Helper()
	w.pass(d)
	if got := w.calls(); len(got) != 0 {
		w.t.Errorf("told %q", got)
	}
}

// afterQuiet lets just so much time pass that something is told once.
func (w *watched) afterQuiet(want string) {
	w.t.Helper()
	w.notYet(quiet - interval)
	w.pass(2 * interval)
	if got := w.calls(); !slices.Equal(got, []string{want}) {
		w.t.Errorf("told %q, want %q", got, want)
	}
}

// must ends the test where something about its files went wrong.
func must(t *testing.T, errs ...error) {
	t.Helper()
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
}

func write(t *testing.T, file, text string) {
	t.Helper()
	must(t, os.WriteFile(file, []byte(text), 0o600))
}

func replace(t *testing.T, file, text string) {
	t.Helper()
	write(t, file+".new", text)
	must(t, os.Rename(file+".new", file))
}

// A writer has a file open.
type writer struct {
	t *testing.T
	f *os.File
}

func open(t *testing.T, file string, how int) writer {
	t.Helper()
	f, err := os.OpenFile(file, os.O_WRONLY|how, 0o600)
	must(t, err)
	t.Cleanup(func() { _ = f.Close() }) // again, in most tests
	return writer{t, f}
}

func (w writer) write(text string) {
	w.t.Helper()
	_, err := w.f.WriteString(text)
	must(w.t, err)
}

func (w writer) close() {
	w.t.Helper()
	must(w.t, w.f.Close())
}

// newFile returns the name of a file in a directory of its own.
func newFile(t *testing.T, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "policy.csv")
	write(t, file, text)
	return file
}

func TestEveryWayOfChangingAFileIsTold(t *testing.T) {
	file := newFile(t, "one")
	w := begin(t, false, file)

	write(t, file, "two") // truncate, write, close
	w.atOnce("two")
	replace(t, file, "three") // an editor's rename
	w.atOnce("three")
	must(t, os.Remove(file)) // gone, and back
	w.afterQuiet("missing")
	write(t, file, "four")
	w.atOnce("four")
	must(t, os.Link(newFile(t, "five"), file+".new"), os.Remove(file), os.Link(file+".new", file))
	w.afterQuiet("five") // nobody opened it
	appending := open(t, file, os.O_APPEND)
	appending.write(", six")
	appending.close()
	w.atOnce("five, six")
	w.notYet(long)
}

// What is told some seconds after the start, for the time before it was watched,
// holds up no change.
func TestChangeSoonAfterTheStartIsTold(t *testing.T) {
	model, policy := newFile(t, "model"), newFile(t, "policy")
	n, err := newNotifier()
	if err != nil {
		t.Skip(err)
	}
	defer n.close()
	s := newState([]string{model, policy}, n)
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	s.look(now)
	if s.ready(now) {
		t.Error("told at once")
	}
	write(t, policy, "another")
	s.look(time.Time{})
	if !s.ready(time.Time{}) {
		t.Error("a change was not told")
	}
	s.tell()
	s.look(now.Add(long))
	if s.ready(now.Add(long)) {
		t.Error("told once more")
	}
}

// What changes between the reading of files and their watch is no other change than
// one that comes later: it waits for no clock.
func TestWhatChangesBeforeTheWatchRunsIsTold(t *testing.T) {
	for name, change := range map[string]func(file string){
		"written in place": func(file string) { write(t, file, "another") },
		"renamed into place": func(file string) {
			write(t, file+".new", "another")
			if err := os.Rename(file+".new", file); err != nil {
				t.Fatal(err)
			}
		},
	} {
		file := newFile(t, "policy")
		begun := Begin([]string{file})
		if begun.state.notifier == nil {
			t.Skip("there are no events")
		}
		change(file)
		told := make(chan struct{}, 1)
		w := &Watch{Files: []string{file}, Changed: func() { told <- struct{}{} }}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			w.run(ctx, begun.state, nil)
		}()
		select {
		case <-told:
		case <-time.After(time.Minute):
			t.Errorf("%s: not told", name)
		}
		cancel()
		<-done
		begun.Close()
	}
}

// A file that is removed and written anew, as by an editor that keeps the old
// one under another name, is not told of in between.
func TestFileThatIsMadeAnewIsToldOnceItIsClosed(t *testing.T) {
	file := newFile(t, "one")
	w := begin(t, false, file)
	must(t, os.Rename(file, file+"~"))
	again := open(t, file, os.O_CREATE|os.O_EXCL)
	w.notYet(long) // empty: whoever made it is about to write
	again.write("tw")
	w.notYet(long)
	again.write("o")
	again.close()
	w.atOnce("two")
}

// An allow line, a pause, the deny line below it: however long the pause, the
// half is never told.
func TestOpenWriterIsWaitedFor(t *testing.T) {
	file := newFile(t, "allow\ndeny\n")
	w := begin(t, false, file)
	for _, how := range []int{os.O_TRUNC, os.O_APPEND, 0} {
		writing := open(t, file, how)
		writing.write("allow\n")
		w.notYet(long)
		writing.write("deny\n")
		w.notYet(long)
		writing.close()
		text, err := os.ReadFile(file)
		must(t, err)
		w.atOnce(string(text))
	}
	// A writer that is killed has closed it.
	writing := open(t, file, os.O_TRUNC)
	w.notYet(long)
	writing.close()
	w.atOnce("")
}

// A change that waits for its writer does not go unnoticed.
func TestWriterThatTakesLongIsNamedOnce(t *testing.T) {
	file := newFile(t, "one")
	w := begin(t, false, file)
	for _, text := range []string{"two", "three"} {
		writing := open(t, file, os.O_TRUNC)
		writing.write(text)
		w.notYet(patience - interval)
		if len(w.slow) != 0 {
			t.Fatalf("%q was named too early", <-w.slow)
		}
		w.notYet(long)
		if len(w.slow) != 1 || <-w.slow != file {
			t.Fatalf("it was named %d times more, want once", len(w.slow))
		}
		writing.close()
		w.atOnce(text)
	}
}

// Somebody who was told may have read the file as it was. What is written after
// that is named too.
func TestWriterThatGoesOnIsNamedAgain(t *testing.T) {
	file := newFile(t, "one")
	w := begin(t, false, file)
	writing := open(t, file, os.O_TRUNC)
	for _, text := range []string{"two", "three"} {
		writing.write(text)
		w.notYet(patience)
		w.notYet(interval)
		if len(w.slow) != 1 {
			t.Fatalf("after %q it was named %d times, want once", text, len(w.slow))
		}
		<-w.slow
	}
	w.notYet(long)
	if len(w.slow) != 0 {
		t.Error("it was named again, though nothing more was written")
	}
}

// Where no writer can be seen, a file that is never quiet does not go unnoticed.
func TestFileThatIsNeverQuietIsNamed(t *testing.T) {
	for name, blind := range map[string]bool{"by an event": false, "by looking": true} {
		t.Run(name, func(t *testing.T) {
			file := newFile(t, "one")
			w := begin(t, blind, file)
			for i := range patience / (quiet - interval) {
				if len(w.slow) != 0 {
					t.Fatalf("it was named after %s", i*(quiet-interval))
				}
				must(t, os.Chtimes(file, w.now, w.now.Add(i))) // no event tells of it
				w.notYet(quiet - interval)
			}
			must(t, os.Chtimes(file, w.now, w.now))
			w.notYet(2 * interval)
			if len(w.slow) != 1 || <-w.slow != file {
				t.Fatalf("it was named %d times more, want once", len(w.slow))
			}
			w.pass(quiet)
			if got := w.calls(); !slices.Equal(got, []string{"one"}) {
				t.Errorf("told %q", got)
			}
		})
	}
}

// Files that decisions need together are told together.
func TestNoFileIsToldWhileAnotherIsWritten(t *testing.T) {
	model, policy := newFile(t, "model"), newFile(t, "policy")
	w := begin(t, false, model, policy)
	writing := open(t, model, os.O_TRUNC)
	writing.write("new mo")
	replace(t, policy, "new policy")
	w.notYet(long)
	writing.write("del")
	writing.close()
	w.atOnce("new model+new policy")
}

// Whoever still writes to the file that was there before is waited for no more.
func TestWriterOfAReplacedFileIsForgotten(t *testing.T) {
	file := newFile(t, "one")
	w := begin(t, false, file)
	old := open(t, file, os.O_APPEND)
	old.write(" more")
	replace(t, file, "two")
	w.atOnce("two")
	old.write(" and more")
	w.notYet(long)
	replace(t, file, "three")
	old.write(" and more")
	w.atOnce("three")
	writing := open(t, file, os.O_TRUNC)
	writing.write("fo")
	old.close()
	w.notYet(long)
	writing.write("ur")
	writing.close()
	w.atOnce("four")
}

// All at once, before anything of it has been heard.
func TestWriterOfAFileThatIsBeingReplacedIsForgotten(t *testing.T) {
	file := newFile(t, "one")
	s := listening(t, file)
	old := open(t, file, os.O_APPEND)
	old.write(" more")
	replace(t, file, "two")
	old.write(" and more")
	s.look(time.Time{})
	if !s.ready(time.Time{}) {
		t.Error("the new file waits for whoever writes to the old one")
	}
}

// A file that is mounted alone, as into a container, is written to through a
// name in a directory that nobody watches: like a hard link.
func TestWriterElsewhereIsWaitedFor(t *testing.T) {
	elsewhere := newFile(t, "one")
	file := filepath.Join(t.TempDir(), "policy.csv")
	must(t, os.Link(elsewhere, file))
	w := begin(t, false, file)
	writing := open(t, elsewhere, os.O_TRUNC)
	writing.write("tw")
	w.notYet(long)
	writing.write("o")
	writing.close()
	w.atOnce("two")
}

// A ConfigMap volume: policy.csv -> ..data/policy.csv, ..data -> a directory of
// the version; an update renames a new ..data over the old one.
func TestConfigMapSwapIsTold(t *testing.T) {
	for name, blind := range map[string]bool{"by an event": false, "by looking": true} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			version := func(name, text string) {
				must(t, os.Mkdir(filepath.Join(dir, name), 0o700))
				write(t, filepath.Join(dir, name, "policy.csv"), text)
				must(t, os.Symlink(name, filepath.Join(dir, "..data_tmp")),
					os.Rename(filepath.Join(dir, "..data_tmp"), filepath.Join(dir, "..data")))
			}
			version("..1", "one")
			file := filepath.Join(dir, "policy.csv")
			must(t, os.Symlink(filepath.Join("..data", "policy.csv"), file))
			w := begin(t, blind, file)
			atOnce := func(want string) {
				t.Helper()
				if blind {
					w.pass(interval) // a link has no halves to wait for
				}
				w.atOnce(want)
			}
			version("..2", "two")
			atOnce("two")
			must(t, os.RemoveAll(filepath.Join(dir, "..1")))
			version("..3", "two") // it may be the same: whoever reads compares
			atOnce("two")
			must(t, os.Remove(filepath.Join(dir, "..data"))) // half of it is mounted
			w.afterQuiet("missing")
			version("..4", "four")
			atOnce("four")
			w.pass(long) // it may be told twice: seen, and heard of
			if got := w.calls(); slices.ContainsFunc(got, func(text string) bool { return text != "four" }) {
				t.Errorf("told %q", got)
			}
		})
	}
}

// A link into another directory: what it leads to is watched too.
func TestTargetOfALinkElsewhereIsWatched(t *testing.T) {
	target := newFile(t, "one")
	file := filepath.Join(t.TempDir(), "policy.csv")
	must(t, os.Symlink(target, file))
	w := begin(t, false, file)
	write(t, target, "two")
	w.atOnce("two")
	replace(t, target, "three")
	w.atOnce("three")

	next := newFile(t, "four") // the link is made anew, into a third directory
	must(t, os.Remove(file), os.Symlink(next, file))
	w.atOnce("four")
	replace(t, next, "five")
	w.atOnce("five")
	write(t, target, "of no interest any more")
	w.notYet(long)

	// A writer of the file that a link led to before is of no interest either.
	// A link that leads nowhere may lead somewhere in a moment.
	old := open(t, next, os.O_APPEND)
	old.write(" and more")
	must(t, os.Symlink(target, file+".new"), os.Rename(file+".new", file))
	w.atOnce("of no interest any more")
	w.pass(long)
	w.calls() // it may be told twice: seen, and heard of
	must(t, os.Remove(file), os.Symlink("nothing", file))
	w.afterQuiet("missing")
	must(t, os.Remove(file), os.Symlink(target, file))
	w.atOnce("of no interest any more")
	w.pass(long)
	w.calls()
	replace(t, next, "five")

	// A file in the link's place, which is still being written, and a link to
	// one that is there before it.
	must(t, os.Remove(file))
	writing := open(t, file, os.O_CREATE|os.O_EXCL)
	writing.write("si")
	w.notYet(long)
	writing.write("x")
	writing.close()
	w.atOnce("six")
	must(t, os.Symlink(next, file+".new"), os.Rename(file+".new", file))
	w.atOnce("five")
}

func TestDirectoryThatIsReplacedIsWatchedAnew(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "conf")
	file := filepath.Join(dir, "policy.csv")
	must(t, os.Mkdir(dir, 0o700))
	write(t, file, "one")
	w := begin(t, false, file)
	for _, away := range []func(string) error{
		os.RemoveAll,
		func(dir string) error { return os.Rename(dir, dir+".old") },
	} {
		must(t, away(dir), os.Mkdir(dir, 0o700))
		write(t, file, "two")
		w.pass(2 * quiet) // nothing above the directory is watched
		if got := w.calls(); !slices.Equal(got, []string{"two"}) {
			t.Fatalf("told %q", got)
		}
		replace(t, file, "three")
		w.atOnce("three")
		writing := open(t, file, os.O_TRUNC)
		writing.write("fo")
		w.notYet(long)
		writing.write("ur")
		writing.close()
		w.atOnce("four")
	}
}

// Without events, as of a file on a server, all is found by looking, once it is
// quiet.
func TestChangesWithoutEventsAreFound(t *testing.T) {
	file := newFile(t, "one")
	w := begin(t, true, file)
	write(t, file, "two")
	w.afterQuiet("two")
	replace(t, file, "three")
	w.afterQuiet("three")

	writing := open(t, file, os.O_TRUNC) // a writer that pauses for less
	for _, text := range []string{"f", "o", "u", "r"} {
		writing.write(text)
		w.notYet(quiet - interval)
	}
	writing.close()
	w.pass(2 * interval)
	if got := w.calls(); !slices.Equal(got, []string{"four"}) {
		t.Errorf("told %q", got)
	}

	must(t, os.Remove(file))
	w.afterQuiet("missing")
	write(t, file, "five")
	w.afterQuiet("five")
	w.notYet(long)
}

// Somebody sets the time back and keeps the size: the kernel's own time tells.
func TestChangeThatHidesItsTimeIsFound(t *testing.T) {
	file := newFile(t, "allow")
	was := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	must(t, os.Chtimes(file, was, was))
	w := begin(t, true, file)
	write(t, file, "denys")
	must(t, os.Chtimes(file, was, was))
	w.afterQuiet("denys")
}

// Whoever writes to a file that a link led to before holds nothing up, though
// nothing was heard of the swap.
func TestSwapThatIsOnlySeenForgetsTheWriter(t *testing.T) {
	file := filepath.Join(t.TempDir(), "policy.csv")
	must(t, os.Symlink(newFile(t, "one"), file))
	s := listening(t, file)
	s.files[0].note(written)
	must(t, os.Remove(file), os.Symlink(newFile(t, "two"), file))
	s.see()
	if !s.ready(time.Time{}) {
		t.Error("the new file waits for the writer of the old one")
	}
}

// listening returns the state of files that are watched, and were told.
func listening(t *testing.T, files ...string) *state {
	t.Helper()
	n, err := newNotifier()
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(n.close)
	s := newState(files, n)
	s.tell()
	return s
}

// Two writes can fall into one tick of the file system's clock, and look the
// same: what was written after it was told is told again.
func TestWriteThatChangesNoTimeIsTold(t *testing.T) {
	file := newFile(t, "allow")
	s := listening(t, file)
	f := s.files[0]
	write(t, file, "denys")
	s.look(time.Time{})
	f.told = f.view // as if they had looked the same
	if !s.ready(time.Time{}) {
		t.Error("it was not told")
	}
}

// Where events are lost nobody knows who still writes: quiet decides.
func TestLostEventsLeaveItToQuiet(t *testing.T) {
	for name, watch := range map[string]func(*state) int{
		"some, somewhere": func(*state) int { return everywhere },
		"a directory's own": func(s *state) int {
			for at := range s.places {
				if at.name != "" {
					return at.watch
				}
			}
			return 0
		},
	} {
		file := newFile(t, "one")
		s := listening(t, file)
		writing := open(t, file, os.O_TRUNC)
		writing.write("two")
		now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
		s.look(now)
		s.look(now.Add(long))
		if s.ready(now.Add(long)) || s.idle() {
			t.Errorf("%s: an open writer was not waited for", name)
		}
		s.note(event{place{1 << 20, ""}, lost}) // another directory's
		s.look(now.Add(long))
		if s.ready(now.Add(2 * long)) {
			t.Errorf("%s: an open writer was not waited for after an event of no interest", name)
		}
		s.note(event{place{watch(s), ""}, lost})
		s.look(now)
		s.look(now.Add(quiet))
		if s.ready(now.Add(quiet-1)) || !s.ready(now.Add(quiet)) {
			t.Errorf("%s: quiet does not decide", name)
		}
	}
}

// Idle is the time for reading again: not while a change waits.
func TestIdleIsWhileNobodyWrites(t *testing.T) {
	file := newFile(t, "one")
	w := begin(t, false, file)
	passed := func(d time.Duration) int {
		for len(w.idle) > 0 {
			<-w.idle
		}
		w.pass(d)
		return len(w.idle)
	}
	if n := passed(10 * interval); n < 10 {
		t.Errorf("called %d times in 10 s", n)
	}
	writing := open(t, file, os.O_TRUNC)
	writing.write("two")
	if n := passed(long); n != 0 {
		t.Errorf("called %d times while somebody wrote", n)
	}
	writing.close()
	w.atOnce("two")
	must(t, os.Remove(file))
	if n := passed(quiet - interval); n != 0 {
		t.Errorf("called %d times while a change waits", n)
	}
	w.pass(2 * quiet)
	if n := passed(10 * interval); n < 10 {
		t.Errorf("called %d times after all", n)
	}
}

// Whoever opened it and wrote nothing has said nothing of the next change.
func TestCloseIsOfTheChangeBeforeIt(t *testing.T) {
	file := newFile(t, "one")
	w := begin(t, false, file)
	open(t, file, 0).close()
	w.notYet(long)
	must(t, os.Chmod(file, 0o640)) // a change that no event tells of
	w.afterQuiet("one")
}

// Neighbours in the directory are none of the caller's business.
func TestOtherFilesAreNotTold(t *testing.T) {
	file := newFile(t, "one")
	w := begin(t, false, file)
	for range 10 {
		write(t, filepath.Join(filepath.Dir(file), "other"), "x")
	}
	w.notYet(long)
	write(t, file, "two")
	w.atOnce("two")
}

func TestBurstOfWritesIsToldOnceItIsOver(t *testing.T) {
	file := newFile(t, "0")
	w := begin(t, false, file)
	for range 50 {
		write(t, file, "partial")
	}
	write(t, file, "whole")
	deadline := time.After(time.Minute)
	for {
		select {
		case got := <-w.told:
			if got == "whole" {
				return
			}
		case <-deadline:
			t.Fatal("it was never told")
		}
	}
}

// Links that lead in a circle, or nowhere, are files that are missing.
func TestLinksThatLeadNowhere(t *testing.T) {
	dir := t.TempDir()
	a, b, c := filepath.Join(dir, "a"), filepath.Join(dir, "b"), filepath.Join(dir, "c")
	must(t, os.Symlink("b", a), os.Symlink("a", b), os.Symlink(filepath.Join("..", "..", "..", "..", "none", "x"), c))
	w := begin(t, false, a, c)
	must(t, os.Remove(b))
	write(t, b, "found")
	w.atOnce("found+missing")
}

// Run has a clock and events of its own.
func TestRunLooksAndListens(t *testing.T) {
	t.Parallel()
	file := newFile(t, "one")
	told, done := make(chan string, 10), make(chan struct{})
	go func() {
		defer close(done)
		(&Watch{Files: []string{file}, Changed: func() {
			text, _ := os.ReadFile(file) // missing reads as empty
			told <- string(text)
		}}).Run(t.Context())
	}()
	t.Cleanup(func() { <-done })
	for _, row := range []struct {
		change func()
		want   string
	}{
		{func() {}, "one"}, // only the clock tells of this
		{func() { replace(t, file, "two") }, "two"},
	} {
		row.change()
		select {
		case got := <-told:
			if got != row.want {
				t.Errorf("told %q, want %q", got, row.want)
			}
		case <-time.After(time.Minute):
			t.Fatalf("%q was not told", row.want)
		}
	}
}

// Whoever asks learns of a writer at once, though no event was looked at yet, and
// until the writer is told of.
func TestWhoAsksLearnsOfAWriter(t *testing.T) {
	file := filepath.Join(t.TempDir(), "policy.csv")
	must(t, os.WriteFile(file, []byte("old"), 0o600))
	w := begin(t, false, file)
	ask := func(want bool, when string) {
		t.Helper()
		answer := make(chan bool, 1)
		w.asked <- func(writing bool) { answer <- writing }
		if got := <-answer; got != want {
			t.Errorf("%s: %t", when, got)
		}
	}
	ask(false, "nobody writes")
	for range 3 {
		f, err := os.OpenFile(file, os.O_WRONLY|os.O_TRUNC, 0)
		must(t, err)
		ask(true, "somebody has emptied it")
		_, err = f.WriteString("half")
		must(t, err)
		ask(true, "somebody has written half")
		must(t, f.Close())
		ask(false, "it is closed")
		w.pass(2 * interval)
		if got := w.calls(); !slices.Equal(got, []string{"half"}) {
			t.Errorf("told %q", got)
		}
	}
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_APPEND, 0)
	must(t, err)
	defer f.Close() //nolint:errcheck // nothing more is written
	_, err = f.WriteString(" and more")
	must(t, err)
	w.pass(patience + 2*interval)
	if got := <-w.slow; got != file {
		t.Errorf("told of %s", got)
	}
	ask(false, "its writer was told of")
	_, err = f.WriteString(" and more")
	must(t, err)
	ask(true, "who goes on")
}
