package state

import (
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
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

func (b *diskBench) use(u Use) string {
	b.t.Helper()
	if u.Link == "" {
		u.Link = "l"
	}
	if u.Until.IsZero() {
		u.Until = b.now.Add(time.Hour)
	}
	ok, left, err := b.Use(b.t.Context(), u)
	if err != nil {
		b.t.Fatal(err)
	}
	return fmt.Sprint(ok, " ", left)
}

func TestUseIsADownload(t *testing.T) {
	for _, row := range []struct {
		name  string
		uses  []Use
		short string // a request that was not answered whole, before the last use
		want  string // of the last one
	}{
		{"the first", []Use{{Max: 1, Client: "a", Request: "1"}}, "", "true 0"},
		{"nginx asks twice", []Use{{Max: 1, Client: "a", Request: "1"}, {Max: 1, Client: "a", Request: "1"}}, "", "true 0"},
		{"another client", []Use{{Max: 1, Client: "a", Request: "1"}, {Max: 1, Client: "b", Request: "2"}}, "", "false 0"},
		{"another whole download of an address", []Use{{Max: 1, Client: "a", Request: "1"}, {Max: 1, Client: "a", Request: "2"}}, "", "false 0"},
		{"and with two uses", []Use{{Max: 2, Client: "a", Request: "1"}, {Max: 2, Client: "a", Request: "2"}}, "", "true 0"},
		{"an address goes on", []Use{{Max: 1, Client: "a", Request: "1"}, {Max: 1, Client: "a", Request: "2", Continues: true}}, "", "true 0"},
		{"another address does not", []Use{{Max: 1, Client: "a", Request: "1"}, {Max: 1, Client: "b", Request: "2", Continues: true}}, "", "false 0"},
		{"an address tries again after it was cut short", []Use{{Max: 1, Client: "a", Request: "1"}, {Max: 1, Client: "a", Request: "2"}}, "1", "true 0"},
		{"another address does not", []Use{{Max: 1, Client: "a", Request: "1"}, {Max: 1, Client: "b", Request: "2"}}, "1", "false 0"},
		{"once", []Use{{Max: 1, Client: "a", Request: "1"}, {Max: 1, Client: "a", Request: "2", Continues: true}, {Max: 1, Client: "a", Request: "3"}}, "2", "false 0"},
		{"a browser goes on as it likes", []Use{{Max: 1, Client: "c", Sure: true, Request: "1"}, {Max: 1, Client: "c", Sure: true, Request: "2"}}, "", "true 0"},
		{"and is no address that is called so", []Use{{Max: 1, Client: "c", Sure: true, Request: "1"}, {Max: 1, Client: "c", Request: "2", Continues: true}}, "", "false 0"},
		{"whoever looks takes nothing", []Use{{Max: 1, Client: "a", Look: true}, {Max: 1, Client: "b", Request: "1"}}, "", "true 0"},
		{"and sees when nothing is left", []Use{{Max: 1, Client: "a", Request: "1"}, {Max: 1, Client: "b", Look: true}}, "", "false 0"},
		{"a range that begins elsewhere is a use where none was begun", []Use{{Max: 1, Client: "a", Request: "1", Continues: true}, {Max: 1, Client: "b", Request: "2"}}, "", "false 0"},
	} {
		b := newDiskBench(t)
		got := ""
		for i, u := range row.uses {
			if i == len(row.uses)-1 && row.short != "" {
				if err := b.Short(t.Context(), row.short); err != nil {
					t.Fatal(err)
				}
			}
			if got = b.use(u); i == len(row.uses)-1 {
				break
			}
			b.reopen() // whatever happens, what was answered is kept
		}
		if got != row.want {
			t.Errorf("%s: %s, want %s", row.name, got, row.want)
		}
	}
}

func TestUseHasAWindow(t *testing.T) {
	b := newDiskBench(t)
	u := Use{Max: 1, Client: "c", Sure: true, Request: "1", Until: noon.Add(100 * time.Hour)}
	b.use(u)
	b.now = b.now.Add(useWindow - 1)
	u.Request = "2"
	if got := b.use(u); got != "true 0" {
		t.Errorf("within the window: %s", got)
	}
	b.now = b.now.Add(useWindow)
	u.Request = "3"
	if got := b.use(u); got != "false 0" {
		t.Errorf("after it: %s", got)
	}
}

// One use raced by 200 clients is one download, and stays one when the process ends.
func TestUseIsRaced(t *testing.T) {
	b := newDiskBench(t)
	var allowed atomic.Int64
	var group sync.WaitGroup
	for i := range 200 {
		group.Go(func() {
			ok, _, err := b.Use(t.Context(), Use{Link: "l", Max: 1, Client: "a", Request: fmt.Sprint(i), Until: noon.Add(time.Hour)})
			if err != nil {
				t.Error(err)
			}
			if ok {
				allowed.Add(1)
			}
		})
	}
	group.Wait()
	if n := allowed.Load(); n != 1 {
		t.Errorf("%d downloads", n)
	}
	b.reopen()
	if got := b.use(Use{Max: 1, Client: "a", Request: "later"}); got != "false 0" {
		t.Errorf("after it was killed: %s", got)
	}
}

func TestLinksAreRevoked(t *testing.T) {
	b := newDiskBench(t)
	until := noon.Add(time.Hour)
	for _, r := range []Revocation{
		{ID: "one", Until: until}, {Subject: "bob", Before: noon, Until: until}, {Download: "main", Path: "/a", Before: noon, Until: until},
		{Download: "main", Path: "/tree/", Before: noon, Until: until}, {Key: "k", Before: noon, Until: until},
	} {
		if err := b.Revoke(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		b.now = b.now.Add(1)
	}
	for range 2 {
		for _, row := range []struct {
			link LinkFact
			want bool
		}{
			{LinkFact{ID: "one", Issued: noon.Add(time.Hour)}, true},
			{LinkFact{ID: "two", Subject: "alice", Download: "main", Path: "/b", Key: "other", Issued: noon}, false},
			{LinkFact{ID: "two", Subject: "bob", Issued: noon}, true},
			{LinkFact{ID: "two", Subject: "bob", Issued: noon.Add(1)}, false},
			{LinkFact{ID: "two", Download: "main", Path: "/a", Issued: noon}, true},
			{LinkFact{ID: "two", Download: "main", Path: "/a/b", Issued: noon}, true},
			{LinkFact{ID: "two", Download: "main", Path: "/ab", Issued: noon}, false},
			{LinkFact{ID: "two", Download: "other", Path: "/a", Issued: noon}, false},
			{LinkFact{ID: "two", Download: "main", Path: "/tree/x", Issued: noon}, true},
			{LinkFact{ID: "two", Download: "main", Path: "/tree/", Issued: noon}, true},
			{LinkFact{ID: "two", Download: "main", Path: "/tree", Issued: noon}, false},
			{LinkFact{ID: "two", Key: "k", Issued: noon}, true},
		} {
			if got, err := b.IsRevoked(t.Context(), row.link); err != nil || got != row.want {
				t.Errorf("%+v: %t, %v", row.link, got, err)
			}
		}
		b.reopen()
	}
	b.now = until
	if err := b.forget(); err != nil {
		t.Fatal(err)
	}
	if got, err := b.IsRevoked(t.Context(), LinkFact{ID: "one"}); err != nil || got {
		t.Errorf("after its links have ended: %t, %v", got, err)
	}
}

// What was made is kept at once, what was seen within a second; none tells its password.
func TestLinksAreListed(t *testing.T) {
	b := newDiskBench(t)
	made := Link{ID: "made", Subject: "alice", Path: "/a", Expires: noon.Add(2 * time.Hour), Uses: 2, PasswordHash: "hash"}
	if err := b.Made(t.Context(), made); err != nil {
		t.Fatal(err)
	}
	b.Seen(Link{ID: "made", Subject: "other", Expires: noon.Add(time.Hour)})
	b.Seen(Link{ID: "seen", Subject: "bob", Expires: noon.Add(time.Hour)})
	b.use(Use{Link: "made", Max: 2, Client: "a", Request: "1"})
	if err := b.Revoke(t.Context(), Revocation{Subject: "bob", Before: noon, Until: noon.Add(time.Hour)}); err != nil {
		t.Fatal(err)
	}
	if err := b.flush(); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		list, err := b.Links(t.Context())
		if err != nil || len(list) != 2 || list[0].ID != "seen" || !list[0].Revoked || list[0].Made || list[1].Subject != "alice" || list[1].Used != 1 || !list[1].Made || list[1].Revoked {
			t.Errorf("%+v, %v", list, err)
		}
		for _, l := range list {
			if l.PasswordHash != "" {
				t.Errorf("%s tells its password", l.ID)
			}
		}
		if hash, err := b.PasswordOf(t.Context(), "made"); err != nil || hash != "hash" {
			t.Errorf("%q, %v", hash, err)
		}
		b.reopen()
	}
	b.now = noon.Add(time.Hour)
	if err := b.forget(); err != nil {
		t.Fatal(err)
	}
	if list, err := b.Links(t.Context()); err != nil || len(list) != 1 {
		t.Errorf("later: %+v, %v", list, err)
	}
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

// What a limit counted that is gone is forgotten, on the disk too; its neighbour's is not.
func TestCountsAreDropped(t *testing.T) {
	b := newDiskBench(t)
	c := func(key string) Charge {
		return Charge{Kind: Bytes, Key: key, Limit: 1000, Period: 1000 * time.Second, Cost: 1000}
	}
	over := func(id, key string) bool {
		q, err := b.Reserve(t.Context(), id, []Charge{c(key)})
		if err != nil {
			t.Fatal(err)
		}
		return q[0].Over
	}
	for _, key := range []string{"day/bytes/alice", "day/bytes/bob", "days/bytes/alice", "da/bytes/alice"} {
		over("1 "+key, key)
	}
	if err := b.flush(); err != nil {
		t.Fatal(err)
	}
	if err := b.Drop(t.Context(), "day/bytes/"); err != nil {
		t.Fatal(err)
	}
	b.reopen()
	if over("2", "day/bytes/alice") || over("3", "day/bytes/bob") || !over("4", "days/bytes/alice") || !over("5", "da/bytes/alice") {
		t.Error("not what was dropped, and nothing else")
	}
}
