package state

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/metrics"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Past the bound keys share, so that nobody gets more than the limit; what is over is
// forgotten.
func TestMemoryIsBounded(t *testing.T) {
	b := &bench{t: t, now: noon}
	m := NewMemory(&MemoryOptions{MaxKeys: 6400, Now: func() time.Time { return b.now }})
	b.counter = m
	sum := func() (n int) {
		for i := range m.counts {
			n += len(m.counts[i].counts)
		}
		return n
	}
	for i := range 200_000 {
		b.reserve("", requests(fmt.Sprintf("%d", i), 2, time.Minute))
	}
	if n := sum(); n > 6400+shards*sharedKeys {
		t.Errorf("%d keys", n)
	}
	b.reserve("", requests("newcomer", 2, time.Minute))
	b.reserve("", requests("newcomer", 2, time.Minute))
	if !b.reserve("", requests("newcomer", 2, time.Minute))[0].Over {
		t.Error("more than its limit")
	}
	b.now = b.now.Add(time.Hour)
	for i := range 64 * 50 {
		b.reserve("", requests(fmt.Sprintf("new %d", i), 2, time.Minute))
	}
	if q := b.reserve("", requests("newcomer", 2, time.Minute))[0]; q.Over {
		t.Errorf("after an hour: %+v", q)
	}
}

func TestMemoryUnderRace(t *testing.T) {
	m := NewMemory(nil)
	var allowed atomic.Int64
	var group sync.WaitGroup
	for g := range 8 {
		group.Go(func() {
			for i := range 500 {
				id := fmt.Sprintf("%d-%d", g, i)
				q, err := m.Reserve(t.Context(), id, []Charge{requests("all", 1000, time.Hour), {Kind: Places, Key: "p", Limit: 1 << 30, Cost: 1}})
				if err != nil {
					t.Error(err)
				}
				if !q[0].Over {
					allowed.Add(1)
				}
				if err := m.Settle(t.Context(), id, 1); err != nil {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
	if n := allowed.Load(); n < 1000 || n > 1001 {
		t.Errorf("%d of 1000", n)
	}
}

func BenchmarkReserve(b *testing.B) {
	m := NewMemory(nil)
	c := []Charge{requests("all", 1<<40, time.Hour)}
	i := 0
	for b.Loop() {
		i++
		if _, err := m.Reserve(b.Context(), strconv.Itoa(i), c); err != nil {
			b.Fatal(err)
		}
	}
}

// What nobody can be told of is not let through without being counted; what waits for
// nothing never is.
func TestReservationsAreBounded(t *testing.T) {
	b := &bench{t: t, now: noon}
	b.counter = NewMemory(&MemoryOptions{MaxReserved: shards, Now: func() time.Time { return b.now }})
	quota := Charge{Kind: Bytes, Key: "alice", Limit: 1 << 40, Period: time.Hour, Cost: 1}
	refused := 0
	for i := range 50 * shards {
		if _, err := b.Reserve(t.Context(), fmt.Sprint(i), []Charge{quota}); err != nil {
			refused++
		}
	}
	if refused < 48*shards {
		t.Errorf("%d of %d were refused", refused, 50*shards)
	}
	if b.reserve("request", requests("bob", 10, time.Minute))[0].Over {
		t.Error("requests are refused as well")
	}
	for i := range 50 * shards {
		if err := b.Forget(t.Context(), fmt.Sprint(i)); err != nil {
			t.Fatal(err)
		}
	}
	b.reserve("there is room", quota)
}

// What requests without anything to settle are known by is as much as they are many, so
// it is nothing that the garbage collector looks through.
func TestKnownRequestsCostTheGarbageCollectorNothing(t *testing.T) {
	scanned := func() uint64 {
		runtime.GC()
		s := []metrics.Sample{{Name: "/gc/scan/heap:bytes"}}
		metrics.Read(s)
		return s[0].Value.Uint64()
	}
	m := NewMemory(nil)
	alice := []Charge{requests("alice", 1<<40, time.Hour), requests("everybody", 1<<40, time.Hour)}
	before := scanned()
	for i := range 200_000 {
		if _, err := m.Reserve(t.Context(), fmt.Sprintf("early:%032x", i), alice); err != nil {
			t.Fatal(err)
		}
	}
	if more := int64(scanned() - before); more > 2<<20 {
		t.Errorf("200,000 requests have it look through %d bytes more", more)
	}
	runtime.KeepAlive(m)
}

// Ten million addresses, subjects or links, and what they have under way, take no more memory
// than docs/limits.md says; SECUREFILES_TEST_LONG=1 has as many come.
func TestMemoryOfManyClients(t *testing.T) {
	clients, opts := 100_000, MemoryOptions{MaxKeys: defaultMaxKeys / 100, MaxReserved: defaultMaxReserved / 100}
	if os.Getenv("SECUREFILES_TEST_LONG") != "" {
		clients, opts = 10_000_000, MemoryOptions{}
	}
	most := uint64(512 << 20 / (10_000_000 / clients))
	for _, of := range []struct {
		name string
		key  func(i int) string
		id   string
	}{
		{"addresses", func(i int) string {
			return fmt.Sprintf("everybody/requests/address:2001:db8:%x:%x::/64", i>>16, i&0xffff)
		}, "early:%032x"},
		{"subjects", func(i int) string { return fmt.Sprintf("everybody/requests/subject:somebody-%08d@example.org", i) }, "%032x"},
		{"links", func(i int) string { return fmt.Sprintf("everybody/requests/link:QZ3KJ7VYB2MPT5XHN6%08d", i) }, "%032x"},
	} {
		before := heap()
		m := NewMemory(&opts)
		for i := range clients {
			if _, err := m.Reserve(t.Context(), fmt.Sprintf(of.id, i), []Charge{requests(of.key(i), 100, time.Hour)}); err != nil {
				t.Fatal(err)
			}
		}
		took := heap() - before
		t.Logf("%d %s: %d MiB", clients, of.name, took>>20)
		if took > most {
			t.Errorf("%d %s take %d bytes, more than %d", clients, of.name, took, most)
		}
		runtime.KeepAlive(m)
	}
}

// heap is how much memory is in use.
func heap() uint64 {
	runtime.GC()
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	return s.HeapAlloc
}

// Of ten million links that people come with a million are known, and a million are counted:
// another one of these is refused, and no other is forgotten for it. SECUREFILES_TEST_LONG=1
// has as many come.
func TestDiskOfManyLinks(t *testing.T) {
	links, counted := 20_000, 0
	if os.Getenv("SECUREFILES_TEST_LONG") != "" {
		links, counted = 10_000_000, maxCounted
	}
	before := heap()
	d, err := OpenDisk(filepath.Join(t.TempDir(), "state.db"), &MemoryOptions{})
	if err != nil {
		t.Fatal(err)
	}
	soon := time.Now().Add(time.Hour)
	for i := range links {
		d.Seen(Link{ID: fmt.Sprintf("QZ3KJ7VYB2MPT5XHN6%08d", i), Subject: "alice", Download: "main", Path: "/reports/q3.pdf", Key: "2026-11-26-x7Qp", Expires: soon})
	}
	known := heap()
	for i := range counted { // without the disk: that is a write each
		d.hold(fmt.Sprint(i), &Uses{List: []*OneUse{{Client: "192.0.2.1", Last: soon, Request: fmt.Sprintf("%032x", i)}}, Until: soon})
	}
	all := heap()
	t.Logf("%d links: %d are known, %d MiB; %d are counted, %d MiB", links, len(d.links), int64(known-before)>>20, len(d.uses), int64(all-known)>>20)
	if len(d.links) != min(links, maxCounted) || all > before+1<<30 {
		t.Errorf("%d links are known, in %d bytes", len(d.links), all-before)
	}
	if counted > 0 {
		if ok, _, err := d.Use(t.Context(), one("another", "another")); ok || !errors.Is(err, errManyUses) {
			t.Errorf("one more: %t, %v", ok, err)
		}
		if ok, _, err := d.Use(t.Context(), one("0", "another")); ok || err != nil {
			t.Errorf("one that is used up: %t, %v", ok, err)
		}
	}
	runtime.KeepAlive(d)
}
