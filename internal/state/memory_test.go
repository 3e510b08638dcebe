package state

import (
	"fmt"
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
