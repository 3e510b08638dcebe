package state

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
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
