package state

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.etcd.io/bbolt"
)

// A diskBench is a disk with a clock of its own, that is opened again and again.
type diskBench struct {
	t    *testing.T
	file string
	now  time.Time
	*Disk
}

func newDiskBench(t *testing.T) *diskBench {
	t.Helper()
	b := &diskBench{t: t, file: filepath.Join(t.TempDir(), "state.db"), now: noon}
	b.open()
	t.Cleanup(func() { _ = b.db.Close() })
	return b
}

func (b *diskBench) open() {
	b.t.Helper()
	var err error
	if b.Disk, err = OpenDisk(b.file, &MemoryOptions{Now: func() time.Time { return b.now }}); err != nil {
		b.t.Fatal(err)
	}
}

// reopen is another process after this one was killed, with nothing written at its end.
func (b *diskBench) reopen() {
	b.t.Helper()
	if err := b.db.Close(); err != nil {
		b.t.Fatal(err)
	}
	b.open()
}

// Byte counts outlast the process; windows of requests do not.
func TestBytesAreKept(t *testing.T) {
	b := newDiskBench(t)
	c := Charge{Kind: Bytes, Key: "alice", Limit: 1000, Period: 1000 * time.Second, Cost: 900}
	r := requests("requests of alice", 1, time.Hour)
	if _, err := b.Reserve(t.Context(), "1", []Charge{c, r}); err != nil {
		t.Fatal(err)
	}
	if err := b.Settle(t.Context(), "1", 700); err != nil {
		t.Fatal(err)
	}
	if err := b.flush(); err != nil {
		t.Fatal(err)
	}
	b.reopen()
	c.Cost = 301
	q, err := b.Reserve(t.Context(), "2", []Charge{c})
	if err != nil || !q[0].Over || q[0].Remaining != 300 {
		t.Errorf("%+v, %v", q, err)
	}
	if q, err = b.Reserve(t.Context(), "3", []Charge{r}); err != nil || q[0].Over {
		t.Errorf("%+v, %v", q, err)
	}
	b.now = b.now.Add(2000 * time.Second)
	b.reopen()
	if q, err = b.Reserve(t.Context(), "4", []Charge{c}); err != nil || q[0].Over {
		t.Errorf("over: %+v, %v", q, err)
	}
}

// A copy that is made while the file is in use is a file as it was then.
func TestACopyIsAFile(t *testing.T) {
	b := newDiskBench(t)
	if err := b.Revoke(t.Context(), Revocation{ID: "one", Until: noon.Add(time.Hour)}); err != nil {
		t.Fatal(err)
	}
	var copied bytes.Buffer
	if err := b.Backup(&copied); err != nil {
		t.Fatal(err)
	}
	b.file = filepath.Join(t.TempDir(), "copy.db")
	if err := os.WriteFile(b.file, copied.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	b.reopen()
	if ended, err := b.IsRevoked(t.Context(), Link{ID: "one"}); err != nil || !ended {
		t.Errorf("%t, %v", ended, err)
	}
}

func TestAFileIsOneProcess(t *testing.T) {
	b := newDiskBench(t)
	_, err := OpenDisk(b.file, nil)
	if err == nil || !strings.Contains(err.Error(), "is open in another process: an instance needs a file of its own") {
		t.Errorf("%v", err)
	}
	if len(b.Secret()) != 32 {
		t.Errorf("a secret of %d bytes", len(b.Secret()))
	}
	before := string(b.Secret())
	b.reopen()
	if string(b.Secret()) != before {
		t.Error("the secret is another one after a restart")
	}
}

// What was let in before a restart, and is told of after it, takes what was told: neither
// what was reserved nor nothing. What is settled, or nobody waits for any more, is not kept.
func TestDownloadsGoOnOverARestart(t *testing.T) {
	b := newDiskBench(t)
	c := Charge{Kind: Bytes, Key: "b", Limit: 1000, Period: 1000 * time.Second, Cost: 100}
	seen := Charge{Kind: Bytes, Key: "seen", Limit: 1, Period: time.Hour, Cost: 1, Observe: true}
	reserve := func(id string, charges ...Charge) {
		t.Helper()
		if _, err := b.Reserve(t.Context(), id, charges); err != nil {
			t.Fatal(err)
		}
	}
	left := func(want int64) {
		t.Helper()
		q, err := b.Look(t.Context(), []Charge{c})
		if err != nil || q[0].Remaining != want {
			t.Errorf("%+v left, want %d, %v", q, want, err)
		}
	}
	flushed := func(err error) {
		t.Helper()
		if err = errors.Join(err, b.flush()); err != nil {
			t.Fatal(err)
		}
	}
	kept := func(want int) {
		t.Helper()
		err := b.db.View(func(tx *bbolt.Tx) error {
			if n := tx.Bucket(bucketTaken).Stats().KeyN; n != want {
				t.Errorf("%d are kept, not %d", n, want)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	reserve("", seen)
	reserve("large", c, seen) // which is over what is observed
	reserve("small", c)
	reserve("gone", c)
	reserve("soon", c)
	flushed(b.Settle(t.Context(), "soon", 50))
	kept(3)
	left(650)
	b.reopen()
	left(650)
	reserve("large", c) // the web server asks again
	left(650)
	flushed(errors.Join(b.Settle(t.Context(), "large", 400), b.Settle(t.Context(), "small", 1), b.Settle(t.Context(), "soon", 1000)))
	left(449)
	kept(1)
	flushed(b.Settle(t.Context(), "large", 400)) // twice is once
	b.reopen()
	left(449)
	flushed(b.Release(t.Context(), "gone", []Charge{c}))
	left(549)
	kept(0)

	reserve("never", c)
	flushed(nil)
	b.now = b.now.Add(25 * time.Hour)
	b.reopen()
	kept(0)
	left(1000)
}

func TestAStateInADirectoryThatIsNotThereSaysHowToMakeIt(t *testing.T) {
	_, err := OpenDisk(filepath.Join(t.TempDir(), "none", "state.db"), nil)
	if err == nil || !strings.HasSuffix(err.Error(), "no such file or directory: make the directory, of mode 0700 and the service's user; the unit of systemd makes /var/lib/securefiles (StateDirectory)") {
		t.Error(err)
	}
}

// Places are free when the service has restarted, as docs/limits.md says: who held them is
// not known to be there still.
func TestPlacesAreFreeAfterARestart(t *testing.T) {
	b := newDiskBench(t)
	place := []Charge{{Kind: Places, Key: "alice", Limit: 1, Cost: 1}}
	for i, want := range []bool{false, true} {
		if q, err := b.Reserve(t.Context(), string(rune('a'+i)), place); err != nil || q[0].Over != want {
			t.Errorf("%+v, %v", q, err)
		}
	}
	b.reopen()
	if q, err := b.Reserve(t.Context(), "c", place); err != nil || q[0].Over {
		t.Errorf("after a restart: %+v, %v", q, err)
	}
}

// Where nothing can be written, as on a disk that is full, Run goes on; and what was to be
// written is, once it can be.
func TestWhatCannotBeWrittenIsWrittenLater(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "state.db")
	lines := make(chan string, 10)
	d, err := OpenDisk(file, &MemoryOptions{Logger: slog.New(slog.NewTextHandler(sender(lines), nil))})
	if err != nil {
		t.Fatal(err)
	}
	takes := func(id string) {
		t.Helper()
		if _, err := d.Reserve(t.Context(), id, []Charge{{Kind: Bytes, Key: "b", Limit: 100, Period: time.Hour, Cost: 20}}); err != nil {
			t.Fatal(err)
		}
	}
	takes("settled")
	if err := errors.Join(d.flush(), d.db.Close()); err != nil {
		t.Fatal(err)
	}
	takes("waiting")
	d.Seen(Link{ID: "seen", Expires: time.Now().Add(time.Hour)})
	if err := d.Settle(t.Context(), "settled", 30); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- d.Run(ctx) }()
	tells := func(want string) {
		t.Helper()
		select {
		case line := <-lines:
			if !strings.Contains(line, want) {
				t.Error(line)
			}
		case err := <-ended:
			t.Fatalf("it has ended: %v", err)
		}
	}
	tells("cannot be written")
	d.mu.Lock()
	d.db, err = open(file)
	d.mu.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	tells("written again")
	cancel()
	if err := errors.Join(<-ended, d.db.Close()); err != nil {
		t.Fatal(err)
	}
	if d, err = OpenDisk(file, nil); err != nil {
		t.Fatal(err)
	}
	defer d.Close() //nolint:errcheck // it was only read
	list, err := d.Links(t.Context())
	if err != nil || len(list) != 1 {
		t.Errorf("%+v, %v", list, err)
	}
	left := func(want int64) {
		t.Helper()
		if q, err := d.Look(t.Context(), []Charge{{Kind: Bytes, Key: "b", Limit: 100, Period: time.Hour}}); err != nil || q[0].Remaining != want {
			t.Errorf("%+v, %v", q, err)
		}
	}
	left(50)
	for _, id := range []string{"settled", "waiting"} { // the one was, before
		if err := d.Settle(t.Context(), id, 0); err != nil {
			t.Fatal(err)
		}
	}
	left(70)
}

// A sender sends what is written to it.
type sender chan<- string

func (s sender) Write(line []byte) (int, error) {
	s <- string(line)
	return len(line), nil
}

// A clock that is put a year ahead, and right again, opens nothing: whether the service runs
// meanwhile, is started there, or both.
func TestAClockThatJumpsOpensNoLinkThatWasUsedOrRevoked(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "state.db")
	now := noon
	var d *Disk
	reopen := func() {
		t.Helper()
		var err error
		if d != nil {
			err = d.Close()
		}
		if err == nil {
			d, err = OpenDisk(file, &MemoryOptions{Now: func() time.Time { return now }})
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	reopen()
	t.Cleanup(func() { _ = d.Close() })
	until := noon.Add(time.Hour)
	use := Use{Link: "used", Max: 1, Until: until, Client: "a", Request: "1"}
	if ok, _, err := d.Use(t.Context(), use); err != nil || !ok {
		t.Fatal(ok, err)
	}
	if err := d.Revoke(t.Context(), Revocation{ID: "revoked", Until: until}); err != nil {
		t.Fatal(err)
	}
	closed := func(when string, want bool) {
		t.Helper()
		again := use
		again.Client, again.Request, again.Look = "b", "2", true
		ok, _, err := d.Use(t.Context(), again)
		revoked, err2 := d.IsRevoked(t.Context(), Link{ID: "revoked", Expires: until})
		if err = errors.Join(err, err2); err != nil || ok == want || revoked != want {
			t.Errorf("%s: the used one opens: %t, the other is revoked: %t; %v", when, ok, revoked, err)
		}
	}
	ran := time.Duration(0)
	minutes := func(n int) {
		t.Helper()
		d.running = func() time.Duration { return ran }
		for range n {
			ran += time.Minute
			now = now.Add(time.Minute)
			if err := d.forget(); err != nil {
				t.Fatal(err)
			}
		}
	}
	minutes(10)
	now = noon.AddDate(1, 0, 0)
	minutes(50)
	now = noon.Add(20 * time.Minute)
	closed("it was ahead while the service ran", true)
	now = noon.AddDate(1, 0, 0)
	reopen()
	minutes(50)
	now = noon.Add(20 * time.Minute)
	closed("the service was started there", true)
	reopen()
	closed("and started again", true)
	now = noon.Add(90 * time.Minute)
	minutes(120)
	closed("they are over", false)
}
