package state

import (
	"fmt"
	"os"
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

// Ten million clients and what they have under way take no more memory than docs/limits.md
// says; SECUREFILES_TEST_LONG=1 has as many come.
func TestMemoryOfManyClients(t *testing.T) {
	clients, opts := 400_000, MemoryOptions{MaxKeys: defaultMaxKeys / 25, MaxReserved: defaultMaxReserved / 25}
	if os.Getenv("SECUREFILES_TEST_LONG") != "" {
		clients, opts = 10_000_000, MemoryOptions{}
	}
	most := uint64(512 << 20 / (10_000_000 / clients))
	heap := func() uint64 {
		runtime.GC()
		var s runtime.MemStats
		runtime.ReadMemStats(&s)
		return s.HeapAlloc
	}
	before := heap()
	m := NewMemory(&opts)
	for i := range clients {
		key := fmt.Sprintf("everybody/requests/address:2001:db8:%x:%x::/64", i>>16, i&0xffff)
		if _, err := m.Reserve(t.Context(), fmt.Sprintf("early:%032x", i), []Charge{requests(key, 100, time.Hour)}); err != nil {
			t.Fatal(err)
		}
	}
	took := heap() - before
	t.Logf("%d clients: %d MiB", clients, took>>20)
	if took > most {
		t.Errorf("%d clients take %d bytes, more than %d", clients, took, most)
	}
	runtime.KeepAlive(m)
}
