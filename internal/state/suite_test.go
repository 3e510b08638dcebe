package state

import (
	"context"
	"fmt"
	"iter"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

var noon = time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)

// A counter is what each store does, and a keeper what those do that outlast the process.
type counter interface {
	Reserve(ctx context.Context, id string, charges []Charge) ([]Quota, error)
	Settle(ctx context.Context, id string, bytes int64) error
	Release(ctx context.Context, id string, charges []Charge) error
	Forget(ctx context.Context, id string) error
	Drop(ctx context.Context, prefix string) error
	Look(context.Context, []Charge) ([]Quota, error)
	Counts(context.Context) ([]Count, error)
	Reset(ctx context.Context, key string) (bool, error)
	Close() error
}

type keeper interface {
	counter
	Use(context.Context, Use) (ok bool, left int, err error)
	Short(ctx context.Context, request string) error
	Revoke(context.Context, Revocation) error
	IsRevoked(context.Context, Link) (bool, error)
	Made(context.Context, Link) error
	Seen(Link)
	Links(context.Context) ([]Link, error)
	PasswordOf(ctx context.Context, id string) (string, error)
	Secret() []byte
}

// A transferrer is what tells and takes all that is known.
type transferrer interface {
	Export(ctx context.Context, passwords bool) iter.Seq2[Entry, error]
	Restore(context.Context, iter.Seq2[Entry, error]) (int, error)
}

// A bench is a store with a clock of its own, that is opened again and again.
type bench struct {
	t *testing.T
	counter
	keeper
	now  time.Time
	open func() (counter, error)
}

func (b *bench) Reserve(ctx context.Context, id string, charges []Charge) ([]Quota, error) {
	return b.counter.Reserve(ctx, id, charges)
}

func (b *bench) Settle(ctx context.Context, id string, bytes int64) error {
	return b.counter.Settle(ctx, id, bytes)
}

func (b *bench) Release(ctx context.Context, id string, charges []Charge) error {
	return b.counter.Release(ctx, id, charges)
}

func (b *bench) Forget(ctx context.Context, id string) error { return b.counter.Forget(ctx, id) }

func (b *bench) Drop(ctx context.Context, prefix string) error { return b.counter.Drop(ctx, prefix) }

func (b *bench) Look(ctx context.Context, charges []Charge) ([]Quota, error) {
	return b.counter.Look(ctx, charges)
}

func (b *bench) Counts(ctx context.Context) ([]Count, error) { return b.counter.Counts(ctx) }

func (b *bench) Reset(ctx context.Context, key string) (bool, error) {
	return b.counter.Reset(ctx, key)
}

func (b *bench) Close() error { return b.counter.Close() }

func (b *bench) begin() {
	b.t.Helper()
	made, err := b.open()
	if err != nil {
		b.t.Fatal(err)
	}
	b.counter = made
	b.keeper, _ = made.(keeper)
}

// reopen is another process after this one was killed, with nothing written at its end.
func (b *bench) reopen() {
	b.t.Helper()
	var err error
	switch s := b.counter.(type) {
	case *Disk:
		err = s.db.Close()
	case *Redis:
		err = s.client.Close()
	}
	if err != nil {
		b.t.Fatal(err)
	}
	b.begin()
}

// flush is what Run does each second, and forget what it does each minute.
func (b *bench) flush() error {
	switch s := b.counter.(type) {
	case *Disk:
		return s.flush()
	case *Redis:
		return s.flush(b.t.Context())
	}
	return nil
}

func (b *bench) forget() error {
	switch s := b.counter.(type) {
	case *Disk:
		return s.forgetSurely(s.forget)
	case *Redis:
		return s.forgetSurely(func() error { return s.forget(b.t.Context()) })
	}
	return nil
}

// forgetSurely is what becomes of a clock that goes on to say the same.
func (m *memoir) forgetSurely(forget func() error) error {
	ran := m.running()
	m.running = func() time.Duration { return ran }
	if err := forget(); err != nil {
		return err
	}
	m.running = func() time.Duration { return ran + forgetAfter }
	return forget()
}

// onEachStore runs a test on each store; no lease is the usual one.
func onEachStore(t *testing.T, lease time.Duration, test func(*testing.T, *bench)) {
	t.Run("memory", func(t *testing.T) {
		b := &bench{t: t, now: noon}
		b.open = func() (counter, error) {
			return NewMemory(&MemoryOptions{Lease: lease, Now: func() time.Time { return b.now }}), nil
		}
		b.begin()
		test(t, b)
	})
	onKeepers(t, lease, test)
}

// onEachKeeper runs a test on each store that outlasts the process.
func onEachKeeper(t *testing.T, test func(*testing.T, *bench)) { onKeepers(t, 0, test) }

func onKeepers(t *testing.T, lease time.Duration, test func(*testing.T, *bench)) {
	t.Run("disk", func(t *testing.T) {
		b := &bench{t: t, now: noon}
		file := filepath.Join(t.TempDir(), "state.db")
		b.open = func() (counter, error) {
			return OpenDisk(file, &MemoryOptions{Lease: lease, Now: func() time.Time { return b.now }})
		}
		b.begin()
		t.Cleanup(func() { _ = b.Close() })
		test(t, b)
	})
	t.Run("redis", func(t *testing.T) {
		b := &bench{t: t, now: noon}
		server := startRedis(t)
		b.open = func() (counter, error) {
			return OpenRedis(t.Context(), &RedisOptions{Addresses: server.addresses(), Prefix: "p", Lease: lease, Timeout: 10 * time.Second, Now: func() time.Time { return b.now }})
		}
		b.begin()
		t.Cleanup(func() { _ = b.Close() })
		if err := b.counter.(*Redis).Accept(t.Context()); err != nil {
			t.Fatal(err)
		}
		test(t, b)
	})
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

func (b *bench) use(u Use) string {
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

func requests(key string, limit int64, period time.Duration) Charge {
	return Charge{Kind: Rate, Key: key, Limit: limit, Period: period, Cost: 1}
}

// request is a request about a link; none has no id.
func request(link, id string) string {
	if id == "" {
		return ""
	}
	return link + "-" + id
}

func TestRequestsAreAsManyAtOnceAndThenEven(t *testing.T) {
	onEachStore(t, 0, func(t *testing.T, b *bench) {
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
	})
}

// Under load for a minute, each moment: the first hundred, and one each 600 ms.
func TestRateHoldsUnderLoad(t *testing.T) {
	onEachStore(t, 0, func(t *testing.T, b *bench) {
		c, allowed := requests("alice", 100, time.Minute), 0
		for range 6000 {
			allowed += b.allowed(1, c)
			b.now = b.now.Add(10 * time.Millisecond)
		}
		if allowed < 199 || allowed > 201 {
			t.Errorf("%d in the first minute, want 200", allowed)
		}
		for range 6000 {
			allowed += b.allowed(1, c)
			b.now = b.now.Add(10 * time.Millisecond)
		}
		if allowed < 299 || allowed > 301 {
			t.Errorf("%d in two minutes, want 300", allowed)
		}
	})
}

func TestBytesAreReservedAndSettled(t *testing.T) {
	onEachStore(t, 0, func(t *testing.T, b *bench) {
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
	})
}

func TestPlacesAreFreeAgain(t *testing.T) {
	onEachStore(t, time.Minute, func(t *testing.T, b *bench) {
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
	})
}

// What is refused takes nothing from anybody's share, and twice the same request takes
// once.
func TestAllOrNothing(t *testing.T) {
	onEachStore(t, 0, func(t *testing.T, b *bench) {
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
		if err := b.Release(t.Context(), "last", []Charge{plenty, place}); err != nil {
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
	})
}

// A web server asks again within seconds, about a request that nobody tells the end of.
func TestARequestAskedAboutAgainTakesNothing(t *testing.T) {
	onEachStore(t, 0, func(t *testing.T, b *bench) {
		alice, bob := requests("alice", 10, time.Hour), requests("bob", 1, time.Hour)
		first := b.reserve("a", alice)
		b.reserve("b", bob)
		observed := bob
		observed.Observe = true
		seen := b.reserve("c", observed, alice)
		for range 3 {
			b.now = b.now.Add(3 * time.Second)
			if again := b.reserve("a", alice); again[0] != first[0] {
				t.Errorf("%v later it was told %+v, and %+v before", b.now.Sub(noon), again[0], first[0])
			}
			if again := b.reserve("c", observed, alice); again[0] != seen[0] || again[1] != seen[1] {
				t.Errorf("%v later it was told %+v, and %+v before", b.now.Sub(noon), again, seen)
			}
		}
		for range 3 { // given back once
			if err := b.Release(t.Context(), "c", []Charge{observed, alice}); err != nil {
				t.Fatal(err)
			}
		}
		if q := b.reserve("d", alice)[0]; q.Remaining != 8 {
			t.Errorf("given back, one other was taken: %+v", q)
		}
		if q := b.reserve("e", bob)[0]; !q.Over {
			t.Errorf("what was over is given back: %+v", q)
		}
	})
}

// A range can claim more bytes than a time.Duration has room for.
func TestNoCostGivesAnythingBack(t *testing.T) {
	onEachStore(t, 0, func(t *testing.T, b *bench) {
		for _, cost := range []int64{1 << 49, 1 << 52, 3 << 60, 1<<63 - 1} {
			c := Charge{Kind: Bytes, Key: fmt.Sprint("alice", cost), Limit: 1000, Period: 366 * 24 * time.Hour, Cost: 900}
			b.reserve(fmt.Sprint("before", cost), c)
			huge := c
			huge.Cost = cost
			if !b.reserve(fmt.Sprint("huge", cost), huge)[0].Over || !b.reserve(fmt.Sprint("after", cost), c)[0].Over {
				t.Errorf("%d bytes: what was taken is forgotten", cost)
			}
			if err := b.Settle(t.Context(), fmt.Sprint("before", cost), cost); err != nil {
				t.Fatal(err)
			}
			if !b.reserve(fmt.Sprint("settled", cost), Charge{Kind: Bytes, Key: c.Key, Limit: 1000, Period: c.Period, Cost: 1})[0].Over {
				t.Errorf("%d bytes were delivered, and forgotten", cost)
			}
		}
	})
}

// A download of hours gives its place back by its lease, and its bytes count when it ends.
func TestBytesOfALongDownloadCount(t *testing.T) {
	onEachStore(t, 0, func(t *testing.T, b *bench) {
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
	})
}

// What a limit counted that is gone is forgotten, on the disk too; its neighbour's is not.
func TestCountsAreDropped(t *testing.T) {
	onEachKeeper(t, func(t *testing.T, b *bench) {
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
	})
}

// What is left is told as the next request would have it, of what was never asked for too,
// and nothing is taken by asking.
func TestLookTellsWhatIsLeft(t *testing.T) {
	onEachStore(t, 2*time.Minute, func(t *testing.T, b *bench) {
		r, place := requests("a", 4, time.Hour), Charge{Kind: Places, Key: "p", Limit: 2, Cost: 1}
		bytes := Charge{Kind: Bytes, Key: "b", Limit: 100, Period: 100 * time.Second, Cost: 60}
		never := requests("never", 7, time.Minute)
		all := []Charge{r, place, bytes, never}
		look := func(want string) {
			t.Helper()
			for range 3 {
				got, err := b.Look(t.Context(), all)
				text := ""
				for _, q := range got {
					text += fmt.Sprint(q.Remaining, q.Reset, q.Over, q.Retry, "; ")
				}
				if err != nil || text != want {
					t.Errorf("%s, %v\nwant %s", text, err, want)
				}
			}
		}
		look("4 0s false 0s; 2 0s false 0s; 100 0s false 0s; 7 0s false 0s; ")
		b.reserve("1", r, place, bytes)
		look("3 15m0s false 0s; 1 0s false 0s; 40 1m0s false 0s; 7 0s false 0s; ")
		b.reserve("2", place)
		if err := b.Settle(t.Context(), "1", 150); err != nil { // more than there is
			t.Fatal(err)
		}
		b.reserve("3", place)
		look("3 15m0s false 0s; 0 0s true 0s; 0 2m30s true 50s; 7 0s false 0s; ")
		if list, err := b.Look(t.Context(), nil); err != nil || len(list) != 0 {
			t.Errorf("of nothing: %v, %v", list, err)
		}
	})
}

// What is counted is listed, and forgotten when somebody says so.
func TestCountsAreListedAndReset(t *testing.T) {
	onEachStore(t, 0, func(t *testing.T, b *bench) {
		r, place := requests("a", 2, time.Hour), Charge{Kind: Places, Key: "p", Limit: 3, Cost: 1}
		bytes := Charge{Kind: Bytes, Key: "b", Limit: 10, Period: time.Hour, Cost: 10}
		b.reserve("1", r, place, bytes)
		b.reserve("2", place)
		list, err := b.Counts(t.Context())
		if err != nil || len(list) != 3 || list[0].Key != "a" || !list[0].Full.Equal(noon.Add(30*time.Minute)) || list[1].Key != "b" || list[2].Key != "p" || list[2].Taken != 2 {
			t.Errorf("%+v, %v", list, err)
		}
		if !b.reserve("3", bytes)[0].Over {
			t.Error("there is something left")
		}
		for i := range 2 {
			if ok, err := b.Reset(t.Context(), "b"); err != nil || ok != (i == 0) {
				t.Errorf("%t, %v", ok, err)
			}
		}
		if b.keeper != nil {
			b.reopen()
		}
		if b.reserve("4", bytes)[0].Over {
			t.Error("it was not reset")
		}
	})
}

func TestUseIsADownload(t *testing.T) {
	onEachKeeper(t, func(t *testing.T, b *bench) {
		for i, row := range []struct {
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
			got, link := "", fmt.Sprint("l", i)
			for i, u := range row.uses {
				u.Link, u.Request = link, request(link, u.Request)
				if i == len(row.uses)-1 && row.short != "" {
					if err := b.Short(t.Context(), request(link, row.short)); err != nil {
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
	})
}

func TestUseHasAWindow(t *testing.T) {
	onEachKeeper(t, func(t *testing.T, b *bench) {
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
	})
}

// One use raced by 200 clients is one download, and stays one when the process ends.
func TestUseIsRaced(t *testing.T) {
	onEachKeeper(t, func(t *testing.T, b *bench) {
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
	})
}

func TestLinksAreRevoked(t *testing.T) {
	onEachKeeper(t, func(t *testing.T, b *bench) {
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
				link Link
				want bool
			}{
				{Link{ID: "one", Issued: noon.Add(time.Hour)}, true},
				{Link{ID: "two", Subject: "alice", Download: "main", Path: "/b", Key: "other", Issued: noon}, false},
				{Link{ID: "two", Subject: "bob", Issued: noon}, true},
				{Link{ID: "two", Subject: "bob", Issued: noon.Add(1)}, false},
				{Link{ID: "two", Download: "main", Path: "/a", Issued: noon}, true},
				{Link{ID: "two", Download: "main", Path: "/a/b", Issued: noon}, true},
				{Link{ID: "two", Download: "main", Path: "/ab", Issued: noon}, false},
				{Link{ID: "two", Download: "other", Path: "/a", Issued: noon}, false},
				{Link{ID: "two", Download: "main", Path: "/tree/x", Issued: noon}, true},
				{Link{ID: "two", Download: "main", Path: "/tree/", Issued: noon}, true},
				{Link{ID: "two", Download: "main", Path: "/tree", Issued: noon}, false},
				{Link{ID: "two", Key: "k", Issued: noon}, true},
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
		if got, err := b.IsRevoked(t.Context(), Link{ID: "one"}); err != nil || got {
			t.Errorf("after its links have ended: %t, %v", got, err)
		}
	})
}

// What was made is kept at once, what was seen within a second; none tells its password.
func TestLinksAreListed(t *testing.T) {
	onEachKeeper(t, func(t *testing.T, b *bench) {
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
	})
}
