package identity

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"securefiles/authz"
)

// fromAddress is a request of a session from an address.
func fromAddress(address, cookie string) *authz.Question {
	q := withCookie(cookie)
	q.IP = netip.MustParseAddr(address)
	return q
}

// uneven is an application that is slow for sessions that begin so, until release is
// called, answers 503 to others, and is quick for all the rest.
func uneven(t *testing.T) (app http.Handler, release func()) {
	hang := make(chan struct{})
	release = sync.OnceFunc(func() { close(hang) })
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := r.Cookie("sessionid")
		switch {
		case err != nil:
			w.WriteHeader(http.StatusUnauthorized)
		case strings.HasPrefix(c.Value, "slow"):
			<-hang
		case strings.HasPrefix(c.Value, "overloaded"):
			w.WriteHeader(http.StatusServiceUnavailable)
		default:
			answerJSON(`{"subject": "alice", "groups": []}`)(w, r)
		}
	}), release
}

// S36: slow sessions of one caller, or sessions that the application answers with 503,
// however many they are, leave the application to all others.
func TestSlowSessionsOfOneCallerShutNobodyOut(t *testing.T) {
	for _, kind := range []string{"slow", "overloaded"} {
		for _, sessions := range []int{5, 20} {
			t.Run(fmt.Sprint(sessions, kind), func(t *testing.T) {
				t.Parallel()
				app, release := uneven(t)
				var opened atomic.Int64
				s := newSession(t, app, func(o *SessionOptions) {
					o.Timeout = 3 * time.Second // enough for a busy machine
					o.OnBreaker = func(bool) { opened.Add(1) }
				})
				t.Cleanup(release) // before the server's, which waits for all that hang
				for round := range 2 {
					var all sync.WaitGroup
					for i := range sessions {
						all.Go(func() {
							got := verdict(s.Authenticate(t.Context(), fromAddress("192.0.2.1", fmt.Sprintf("sessionid=%s%d.%d", kind, round, i))))
							if got != "unavailable" {
								t.Errorf("a slow session: %s", got)
							}
						})
					}
					all.Wait()
					var refused atomic.Int64
					for i := range 60 {
						all.Go(func() {
							if _, err := s.Authenticate(t.Context(), fromAddress("198.51.100.7", fmt.Sprintf("sessionid=%d.%d", round, i))); err != nil {
								refused.Add(1)
								t.Log(err)
							}
						})
					}
					all.Wait()
					if n := refused.Load(); n != 0 {
						t.Errorf("round %d: %d of 60 others were refused", round, n)
					}
				}
				if opened.Load() != 0 || s.Stats().Open {
					t.Error("the application was left alone")
				}
			})
		}
	}
}

// What a call takes is counted from its start: a burst on a healthy application that
// takes its time is no outage.
func TestBurstOnASlowApplicationIsNoOutage(t *testing.T) {
	var opened atomic.Int64
	s := newSession(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(350 * time.Millisecond) // the application is slow: that is what is tested
		answerJSON(`{"subject": "alice", "groups": []}`)(w, r)
	}), func(o *SessionOptions) {
		o.Timeout = 0 // the default
		o.OnBreaker = func(bool) { opened.Add(1) }
	})
	var known, busy atomic.Int64
	var all sync.WaitGroup
	for i := range 300 {
		all.Go(func() {
			switch _, err := s.Authenticate(t.Context(), withCookie(fmt.Sprintf("sessionid=%d", i))); {
			case err == nil:
				known.Add(1)
			case errors.Is(err, ErrBusy): // on a machine that is too slow for the test
				busy.Add(1)
			default:
				t.Error(err)
			}
		})
	}
	all.Wait()
	t.Logf("%d were answered, %d had no turn in time", known.Load(), busy.Load())
	if opened.Load() != 0 || known.Load() < 200 {
		t.Errorf("counted as away %d times; %d of 300 were answered", opened.Load(), known.Load())
	}
}

// Whoever waits for a turn has the whole time for the call once it has come.
func TestWaitingIsNotTheApplicationsTime(t *testing.T) {
	s := newSession(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(100 * time.Millisecond) // the application is slow: that is what is tested
		answerJSON(`{"subject": "alice", "groups": []}`)(w, r)
	}), func(o *SessionOptions) { o.Timeout, o.MaxCalls = 950*time.Millisecond, 1 })
	var all sync.WaitGroup
	for i := range 11 { // the last waits for a second
		all.Go(func() {
			if got := verdict(s.Authenticate(t.Context(), withCookie(fmt.Sprintf("sessionid=%d", i)))); got != "known" {
				t.Error(got)
			}
		})
	}
	all.Wait()
}

// Credentials by which the application did not answer are not tried again at once:
// one slow session takes one turn now and then, however often it is asked for.
func TestSessionThatFailedRests(t *testing.T) {
	var asked atomic.Int64
	now := time.Unix(1_000_000, 0)
	s := newSession(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		w.WriteHeader(http.StatusServiceUnavailable)
	}), func(o *SessionOptions) { o.Now = func() time.Time { return now } })
	for _, step := range []struct {
		after time.Duration
		asked int64
	}{{0, 1}, {0, 1}, {time.Second - 1, 1}, {1, 2}, {0, 2}} {
		now = now.Add(step.after)
		if got := verdict(s.Authenticate(t.Context(), withCookie("sessionid=x"))); got != "unavailable" || asked.Load() != step.asked {
			t.Errorf("%+v: %s, asked %d times", step, got, asked.Load())
		}
	}
}

func TestBreaker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var changes []bool
		var answers error // to the question without credentials
		asked := 0
		newBreaker := func() *breaker {
			synctest.Wait()
			changes, asked = nil, 0
			return &breaker{now: time.Now, failed: map[digest]bool{}, onChange: func(open bool) { changes = append(changes, open) }, ask: func() error { asked++; return answers }}
		}
		call := func(b *breaker, key byte, away bool) bool {
			t.Helper()
			trial, ok := b.allow()
			if ok {
				b.done(digest{key}, trial, away)
			}
			synctest.Wait()
			return ok
		}
		down := errors.New("down")

		answers = down
		b := newBreaker()
		for range 100 { // one cookie
			call(b, 1, true)
		}
		if b.isOpen() || asked != 0 {
			t.Errorf("one cookie: open %v, asked %d times", b.isOpen(), asked)
		}
		for key := range byte(breakerFailures) {
			if b.isOpen() {
				t.Errorf("open after %d", key)
			}
			call(b, key, true)
		}
		if !b.isOpen() || asked != 1 || len(changes) != 1 || !changes[0] {
			t.Fatalf("several cookies: open %v, asked %d times, told %v", b.isOpen(), asked, changes)
		}
		if call(b, 50, false) {
			t.Error("asked in the pause")
		}
		time.Sleep(breakerPause)
		// Several try at once; one that is answered is enough, whatever the others get.
		var trials []bool
		for range breakerTrials + 2 {
			trial, ok := b.allow()
			trials = append(trials, ok)
			if ok != trial {
				t.Error("a call that is no trial")
			}
		}
		if fmt.Sprint(trials) != "[true true true true false false]" {
			t.Errorf("trials: %v", trials)
		}
		b.done(digest{60}, true, true)
		b.done(digest{61}, true, false)
		b.done(digest{62}, true, true)
		b.done(digest{63}, true, true)
		if b.isOpen() || len(changes) != 2 || changes[1] || b.trials != 0 {
			t.Errorf("a trial was answered: open %v, told %v", b.isOpen(), changes)
		}

		// Where all trials fail, it is left alone for another moment.
		b = newBreaker()
		for key := range byte(10) {
			call(b, key, true)
		}
		time.Sleep(breakerPause)
		if !call(b, 70, true) || call(b, 71, false) || !b.isOpen() {
			t.Error("a trial that failed does not close the way")
		}
		time.Sleep(breakerPause)
		if !call(b, 72, false) || b.isOpen() {
			t.Error("it does not recover")
		}

		// An application that answers, if not these, is not away.
		answers = nil
		b = newBreaker()
		for key := range byte(100) {
			call(b, key, true)
		}
		if b.isOpen() || asked == 0 || changes != nil {
			t.Errorf("answers without credentials: open %v, asked %d times", b.isOpen(), asked)
		}
		// An answer to anybody starts anew.
		answers = down
		b = newBreaker()
		for key := range byte(100) {
			call(b, key, true)
			if key%5 == 4 {
				call(b, 200, false)
			}
		}
		if b.isOpen() {
			t.Error("open though every sixth is answered")
		}
	})
}

// Addresses have their turns one after the other, and where there is no room the one
// with most gives way.
func TestTurnsAreFair(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		flood, other, third := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("192.0.2.3")
		g := newSemaphore(1, 6)
		if err := g.enter(t.Context(), flood); err != nil {
			t.Fatal(err)
		}
		var mu sync.Mutex
		var order []string
		wait := func(from netip.Addr) {
			go func() {
				err := g.enter(t.Context(), from)
				mu.Lock()
				defer mu.Unlock()
				order = append(order, fmt.Sprint(from.As4()[3], " ", err == nil))
			}()
			synctest.Wait()
		}
		for range 8 { // two too many
			wait(flood)
		}
		wait(other) // the flood gives way
		wait(third)
		wait(other)
		wait(other) // two each are left of the flood's six, of which it gave three
		for range 6 {
			g.leave()
			synctest.Wait()
		}
		want := "[1 false 1 false 1 false 1 false 1 false 2 false 1 true 2 true 3 true 1 true 2 true 1 true]"
		if got := fmt.Sprint(order); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
		g.leave()
		if g.free != 1 || g.waiting != 0 || len(g.queues) != 0 || len(g.next) != 0 {
			t.Errorf("left over: %+v", g)
		}
		// Who gives up leaves nothing behind, and takes no turn along.
		if err := g.enter(t.Context(), flood); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := g.enter(ctx, other); !errors.Is(err, ErrBusy) || g.waiting != 0 || len(g.queues) != 0 {
			t.Errorf("gave up: %v, %+v", err, g)
		}
		g.leave()
		if err := g.enter(t.Context(), other); err != nil || g.free != 0 {
			t.Errorf("afterwards: %v", err)
		}
	})
}

// Run with -race.
func TestTurnsUnderLoad(t *testing.T) {
	g := newSemaphore(3, 20)
	var running, most atomic.Int64
	var all sync.WaitGroup
	for i := range 200 {
		all.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i%7)*time.Millisecond+time.Microsecond)
			defer cancel()
			if g.enter(ctx, netip.AddrFrom4([4]byte{192, 0, 2, byte(i % 5)})) != nil {
				return
			}
			defer g.leave()
			n := running.Add(1)
			defer running.Add(-1)
			for old := most.Load(); n > old && !most.CompareAndSwap(old, n); old = most.Load() {
			}
		})
	}
	all.Wait()
	if most.Load() > 3 || g.free != 3 || g.waiting != 0 || len(g.queues) != 0 || len(g.next) != 0 {
		t.Errorf("%d at a time; left over: %+v", most.Load(), g)
	}
}

// Requests of one address that wait leave places to others.
func TestOneAddressLeavesPlaces(t *testing.T) {
	c := newWaiters(8)
	one, network := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")
	enter := func(n int, from netip.Addr) (entered int) {
		for range n {
			if _, err := c.enter(caller(from)); err == nil {
				entered++
			}
		}
		return entered
	}
	if n := enter(8, one); n != 6 {
		t.Errorf("one address has %d of 8 places", n)
	}
	if n := enter(1, netip.MustParseAddr("::ffff:192.0.2.1")); n != 0 {
		t.Error("the address in another form is another")
	}
	if n := enter(3, network); n != 2 {
		t.Errorf("another has %d of the two that are left", n)
	}
	c = newWaiters(8)
	if n := enter(4, network) + enter(4, netip.MustParseAddr("2001:db8::2")); n != 6 {
		t.Errorf("one network has %d of 8 places", n)
	}
	c = newWaiters(8)
	if n := enter(9, netip.Addr{}); n != 8 {
		t.Errorf("where no address is known, %d of 8 places are used", n)
	}
}

// Whatever the sources are, requests that wait for them leave places of the listener.
func TestSourcesShareThePlacesOfTheListener(t *testing.T) {
	const places = 1024
	session := func() *Source {
		return must(NewSessionSource(SessionOptions{URL: "http://127.0.0.1:1/", Cookies: []string{"a"}}))(t)
	}
	basic := func() *Source { return must(NewBasicSource(usersFile, nil))(t) }
	token := func(earlier Sources) *Source {
		return must(NewJWTSource(earlier, KeysOptions{Issuer: "https://id.example"}, JWTOptions{Audiences: []string{"files"}}))(t)
	}
	first := token(nil)
	for _, row := range []struct {
		name    string
		sources Sources
		want    []int
	}{
		{"one application", Sources{session()}, []int{512}},
		{"an application and passwords", Sources{session(), basic()}, []int{512, 256}},
		{"two applications", Sources{session(), session()}, []int{384, 384}},
		{"all kinds", Sources{session(), basic(), first, session(), must(NewHeaderSource(HeaderOptions{Header: "X-User"}))(t)}, []int{292, 146, 36, 292, 0}},
		{"two of one issuer, after others were taken away", Sources{first, token(Sources{first})}, []int{64, 0}},
	} {
		row.sources.Share(places)
		total := 0
		for i, s := range row.sources {
			got := 0
			switch a := s.Authenticator.(type) {
			case *Session:
				got = a.waiters.most
			case *Basic:
				got = a.waiters.most
			case *JWT:
				if s.resize != nil {
					got = a.keys.waiting
				}
			}
			total += got
			if got != row.want[i] {
				t.Errorf("%s: source %d has %d places, want %d", row.name, i, got, row.want[i])
			}
		}
		if total > places*3/4 {
			t.Errorf("%s: %d of %d places", row.name, total, places)
		}
	}
}
