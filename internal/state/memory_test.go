package state

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

var noon = time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)

// A bench is a store with a clock of its own.
type bench struct {
	t *testing.T
	*Memory
	now time.Time
}

func newBench(t *testing.T, opts MemoryOptions) *bench {
	b := &bench{t: t, now: noon}
	opts.Now = func() time.Time { return b.now }
	b.Memory = NewMemory(&opts)
	return b
}

func (b *bench) reserve(id string, charges ...Charge) []Quota {
	b.t.Helper()
	quotas, err := b.Reserve(b.t.Context(), id, charges)
	if err != nil || len(quotas) != len(charges) {
		b.t.Fatalf("%v, %v", quotas, err)
	}
	return quotas
}

// allowed is how many of n requests were not over the charge.
func (b *bench) allowed(n int, c Charge) (allowed int) {
	b.t.Helper()
	for i := range n {
		if !b.reserve(fmt.Sprintf("%s-%d-%d", c.Key, b.now.UnixNano(), i), c)[0].Over {
			allowed++
		}
	}
	return allowed
}

func requests(key string, limit int64, period time.Duration) Charge {
	return Charge{Kind: Rate, Key: key, Limit: limit, Period: period, Cost: 1}
}

func TestRequestsAreAsManyAtOnceAndThenEven(t *testing.T) {
	b := newBench(t, MemoryOptions{})
	c := requests("alice", 100, time.Minute)
	if got := b.allowed(300, c); got != 100 {
		t.Errorf("at once: %d", got)
	}
	q := b.reserve("x", c)[0]
	if !q.Over || q.Retry != 600*time.Millisecond || q.Remaining != 0 || q.Reset != time.Minute {
		t.Errorf("%+v", q)
	}
	b.now = b.now.Add(q.Retry)
	if got := b.allowed(10, c); got != 1 {
		t.Errorf("when it said: %d", got)
	}
	b.now = b.now.Add(30 * time.Second)
	if got := b.allowed(100, c); got != 50 {
		t.Errorf("after half: %d", got)
	}
	if got := b.allowed(200, requests("bob", 100, time.Minute)); got != 100 {
		t.Errorf("another: %d", got)
	}
	b.now = b.now.Add(time.Hour)
	if got := b.allowed(200, c); got != 100 {
		t.Errorf("after an hour: %d", got)
	}
}

// Under load for a minute, each moment: the first hundred, and one each 600 ms.
func TestRateHoldsUnderLoad(t *testing.T) {
	b := newBench(t, MemoryOptions{})
	c, allowed := requests("alice", 100, time.Minute), 0
	for range 60_000 {
		allowed += b.allowed(1, c)
		b.now = b.now.Add(time.Millisecond)
	}
	if allowed < 199 || allowed > 201 {
		t.Errorf("%d in the first minute, want 200", allowed)
	}
	for range 60_000 {
		allowed += b.allowed(1, c)
		b.now = b.now.Add(time.Millisecond)
	}
	if allowed < 299 || allowed > 301 {
		t.Errorf("%d in two minutes, want 300", allowed)
	}
}

func TestBytesAreReservedAndSettled(t *testing.T) {
	b := newBench(t, MemoryOptions{})
	c := func(cost int64) Charge {
		return Charge{Kind: Bytes, Key: "alice", Limit: 1000, Period: 1000 * time.Second, Cost: cost}
	}
	if q := b.reserve("a", c(600))[0]; q.Over || q.Remaining != 400 {
		t.Errorf("%+v", q)
	}
	if q := b.reserve("b", c(600))[0]; !q.Over || q.Remaining != 400 || q.Retry != 200*time.Second {
		t.Errorf("over: %+v", q)
	}
	if err := b.Settle(t.Context(), "a", 100); err != nil { // it was aborted
		t.Fatal(err)
	}
	if q := b.reserve("b", c(600))[0]; q.Over || q.Remaining != 300 {
		t.Errorf("settled: %+v", q)
	}
	if err := b.Settle(t.Context(), "b", 900); err != nil { // it took more
		t.Fatal(err)
	}
	if q := b.reserve("c", c(1))[0]; !q.Over {
		t.Errorf("took more: %+v", q)
	}
	for range 3 { // settled once
		if err := b.Settle(t.Context(), "a", 0); err != nil {
			t.Fatal(err)
		}
	}
	if q := b.reserve("c", c(1))[0]; !q.Over {
		t.Errorf("settled again: %+v", q)
	}
	b.now = b.now.Add(1000 * time.Second)
	if q := b.reserve("d", c(5000))[0]; q.Over || q.Remaining != 0 {
		t.Errorf("more than the limit holds, and nothing was taken: %+v", q)
	}
	b.now = b.now.Add(1000 * time.Second)
	if q := b.reserve("e", c(1))[0]; !q.Over || q.Retry != 3001*time.Second {
		t.Errorf("that is paid off: %+v", q)
	}
}

func TestPlacesAreFreeAgain(t *testing.T) {
	b := newBench(t, MemoryOptions{Lease: time.Minute})
	c := Charge{Kind: Places, Key: "alice", Limit: 2, Cost: 1}
	if b.reserve("a", c)[0].Over || b.reserve("b", c)[0].Over || !b.reserve("c", c)[0].Over {
		t.Error("not two places")
	}
	if b.reserve("a", c)[0].Over {
		t.Error("the same request has its place")
	}
	if err := b.Settle(t.Context(), "a", 10); err != nil {
		t.Fatal(err)
	}
	if b.reserve("c", c)[0].Over || !b.reserve("d", c)[0].Over {
		t.Error("a place that is free")
	}
	b.now = b.now.Add(time.Minute)
	if b.reserve("e", c)[0].Over {
		t.Error("leases do not end")
	}
	// Without an id each is a request of its own.
	b.now = b.now.Add(time.Hour)
	for i, want := range []bool{false, false, true} {
		if b.reserve("", c)[0].Over != want {
			t.Errorf("request %d without an id: over %t", i, !want)
		}
	}
}

// What is refused takes nothing from anybody's share, and twice the same request takes
// once.
func TestAllOrNothing(t *testing.T) {
	b := newBench(t, MemoryOptions{})
	plenty, none := requests("plenty", 10, time.Minute), requests("none", 1, time.Minute)
	place := Charge{Kind: Places, Key: "place", Limit: 1, Cost: 1}
	b.reserve("first", none)
	for i := range 50 {
		if q := b.reserve(strconv.Itoa(i), plenty, place, none); q[0].Over || !q[2].Over {
			t.Fatalf("%+v", q)
		}
	}
	if q := b.reserve("last", plenty, place); q[0].Remaining != 9 || q[1].Over {
		t.Errorf("refused requests took something: %+v", q)
	}
	for range 5 { // nginx asks again
		b.reserve("last", plenty, place)
	}
	if q := b.reserve("another", plenty)[0]; q.Remaining != 8 {
		t.Errorf("the same request took more than once: %+v", q)
	}
	if err := b.Release(t.Context(), "last"); err != nil {
		t.Fatal(err)
	}
	if q := b.reserve("again", plenty, place); q[0].Remaining != 8 || q[1].Over {
		t.Errorf("released: %+v", q)
	}
	observed := none
	observed.Observe = true
	if q := b.reserve("observed", observed, plenty); !q[0].Over || q[1].Over {
		t.Errorf("observed: %+v", q)
	}
}

// Past the bound keys share, so that nobody gets more than the limit; what is over is
// forgotten.
func TestMemoryIsBounded(t *testing.T) {
	b := newBench(t, MemoryOptions{MaxKeys: 6400})
	sum := func() (n int) {
		for i := range b.counts {
			n += len(b.counts[i].counts)
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

// A range can claim more bytes than a time.Duration has room for.
func TestNoCostGivesAnythingBack(t *testing.T) {
	for _, cost := range []int64{1 << 49, 1 << 52, 3 << 60, 1<<63 - 1} {
		b := newBench(t, MemoryOptions{})
		c := Charge{Kind: Bytes, Key: "alice", Limit: 1000, Period: 366 * 24 * time.Hour, Cost: 900}
		b.reserve("before", c)
		huge := c
		huge.Cost = cost
		if !b.reserve("huge", huge)[0].Over || !b.reserve("after", c)[0].Over {
			t.Errorf("%d bytes: what was taken is forgotten", cost)
		}
		if err := b.Settle(t.Context(), "before", cost); err != nil {
			t.Fatal(err)
		}
		if !b.reserve("settled", Charge{Kind: Bytes, Key: "alice", Limit: 1000, Period: c.Period, Cost: 1})[0].Over {
			t.Errorf("%d bytes were delivered, and forgotten", cost)
		}
	}
}

// A download of hours gives its place back by its lease, and its bytes count when it ends.
func TestBytesOfALongDownloadCount(t *testing.T) {
	b := newBench(t, MemoryOptions{})
	place := Charge{Kind: Places, Key: "place", Limit: 1, Cost: 1}
	quota := Charge{Kind: Bytes, Key: "alice", Limit: 1000, Period: 100 * time.Hour, Cost: 1}
	b.reserve("long", place, quota)
	b.now = b.now.Add(2 * time.Hour)
	if b.reserve("another", place)[0].Over {
		t.Error("the place is not free")
	}
	for i := range 20 * shards { // it looks for what is over
		b.reserve(fmt.Sprint(i), requests("bob", 1<<40, time.Hour))
	}
	if err := b.Settle(t.Context(), "long", 5000); err != nil {
		t.Fatal(err)
	}
	if !b.reserve("next", quota)[0].Over {
		t.Error("its bytes are forgotten")
	}
	if !b.reserve("a third", place)[0].Over {
		t.Error("the place of another was given back")
	}
}

// What nobody can be told of is not let through without being counted; what waits for
// nothing never is.
func TestReservationsAreBounded(t *testing.T) {
	b := newBench(t, MemoryOptions{MaxReserved: shards})
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
