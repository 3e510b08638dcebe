package audit

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"securefiles/authz"
	"securefiles/pathguard"
)

// A joinTest is a trail beside a log that the test writes in nginx's place.
type joinTest struct {
	t          *testing.T
	name, logs string
	opts       Options
	trail      *Trail
	end        func()

	mu   sync.Mutex
	told []*Record
}

func newJoinTest(t *testing.T) *joinTest {
	dir := t.TempDir()
	j := &joinTest{t: t, name: filepath.Join(dir, "audit.jsonl"), logs: filepath.Join(dir, "delivery.log")}
	j.opts.DeliveryLog = j.logs
	j.opts.Delivered = func(r *Record) {
		j.mu.Lock()
		defer j.mu.Unlock()
		j.told = append(j.told, r)
	}
	j.start()
	t.Cleanup(func() { j.stop() })
	return j
}

func (j *joinTest) start() {
	j.t.Helper()
	var err error
	if j.trail, err = Open(j.name, &j.opts); err != nil {
		j.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func(trail *Trail) { ended <- trail.Run(ctx) }(j.trail)
	j.end = func() {
		cancel()
		if err := errors.Join(<-ended, j.trail.Close()); err != nil {
			j.t.Error(err)
		}
	}
}

func (j *joinTest) stop() {
	if j.end != nil {
		j.end()
		j.end = nil
	}
}

// id is a request id of nginx's.
func id(n int) string { return fmt.Sprintf("%032x", n) }

// decide records that a request was allowed, or was not.
func (j *joinTest) decide(n int, allowed bool) error {
	j.t.Helper()
	path, err := pathguard.New("/a.txt")
	if err != nil {
		j.t.Fatal(err)
	}
	out := &authz.Outcome{
		Question: &authz.Question{ID: id(n), Method: http.MethodGet, Action: "read", Header: http.Header{}, Download: &authz.Download{Name: "main"}, Path: path},
		Reason:   authz.ReasonDefaultDeny, Principal: authz.Principal{Subject: "alice"},
	}
	if allowed {
		out.Reason, out.Decision = authz.ReasonPolicy, authz.Decision{Effect: authz.Allow, Generation: 1, File: "policy.csv", Line: 1}
	}
	return j.trail.Record(j.t.Context(), out, 204, time.Millisecond)
}

func (j *joinTest) allow(n int) {
	j.t.Helper()
	if err := j.decide(n, true); err != nil {
		j.t.Fatal(err)
	}
}

// deliver has nginx tell of a request.
func (j *joinTest) deliver(n int, change string) {
	j.t.Helper()
	f, err := os.OpenFile(j.logs, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		j.t.Fatal(err)
	}
	line := lineOfNginx(j.t, strings.TrimSuffix(fmt.Sprintf(`"request_id": %q, %s`, id(n), change), ", ")) + "\n"
	if _, err := f.WriteString(line); err != nil {
		j.t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		j.t.Fatal(err)
	}
}

// deliveries are the records of deliveries in the audit file, by request.
func (j *joinTest) deliveries(names ...string) map[string][]string {
	j.t.Helper()
	all := map[string][]string{}
	for _, name := range append(names, j.name) {
		text, err := os.ReadFile(name)
		if err != nil {
			j.t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			if r, err := Parse([]byte(line)); err == nil && r.Type == TypeDelivery {
				all[r.Request] = append(all[r.Request], r.Delivery)
			}
		}
	}
	return all
}

func (j *joinTest) eventually(what string, holds func() bool) {
	j.t.Helper()
	for deadline := time.Now().Add(time.Minute); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			j.t.Fatalf("it never came about that %s: %+v, %v", what, j.trail.State(), j.deliveries())
		}
	}
}

func (j *joinTest) none() bool { return j.trail.State().Awaited == 0 }

func TestEachAllowedRequestHasOneDelivery(t *testing.T) {
	j := newJoinTest(t)
	for n := range 5 {
		j.allow(n)
	}
	j.allow(1) // nginx asked twice with one id
	if err := j.decide(9, false); err != nil {
		t.Fatal(err)
	}
	if got := j.trail.State().Awaited; got != 5 {
		t.Errorf("%d are awaited", got)
	}
	j.deliver(0, "")
	j.deliver(9, `"status": "404"`)                           // it was denied
	j.deliver(77, "")                                         // another service's
	j.deliver(1, `"body_bytes": 7, "completion": ""`)         // aborted
	j.deliver(1, "")                                          // there is no second one
	j.deliver(2, `"status": "404", "content_length": "1000"`) // the file is not there
	j.deliver(3, `"method": "HEAD", "body_bytes": 0`)
	j.deliver(4, `"v": 7`) // not known
	j.deliver(4, "")
	j.eventually("all are delivered", j.none)
	want := map[string][]string{id(0): {Complete}, id(1): {Aborted}, id(2): {None}, id(3): {Complete}, id(4): {Complete}}
	if got := j.deliveries(); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if s := j.trail.State(); s.Refused != 1 || s.Records[TypeDelivery] != 5 || len(j.told) != 5 || j.told[0].Subject != "alice" {
		t.Errorf("%+v, told %d", s, len(j.told))
	}
}

func TestDeliveriesGoOnAfterARestartNoneTwiceAndNoneLost(t *testing.T) {
	j := newJoinTest(t)
	n := 0
	for round := range 12 {
		for range 20 {
			j.allow(n)
			n++
		}
		for i := n - 20; i < n-5; i++ {
			j.deliver(i, "")
		}
		if round%3 > 0 {
			j.eventually("they are delivered", func() bool { return j.trail.State().Awaited <= 5*(round+1) })
		}
		j.stop()
		switch round % 4 {
		case 1: // nginx goes on, and its log is rotated, while nobody follows
			j.deliver(n-5, "")
			if err := os.Rename(j.logs, fmt.Sprint(j.logs, ".", round)); err != nil {
				t.Fatal(err)
			}
			j.deliver(n-4, "")
		case 2: // the audit file is rotated while nobody writes
			if err := os.Rename(j.name, fmt.Sprint(j.name, ".", round)); err != nil {
				t.Fatal(err)
			}
		case 3: // a crash has torn a line
			f, err := os.OpenFile(j.name, os.O_APPEND|os.O_WRONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := f.WriteString(`{"v":1,"type":"decision","time":"2026`); err != nil {
				t.Fatal(err)
			}
			if err := f.Close(); err != nil {
				t.Fatal(err)
			}
		}
		j.start()
	}
	for i := range n {
		j.deliver(i, "") // again, or at last
	}
	j.eventually("all are delivered", j.none)
	rotated, err := filepath.Glob(j.name + ".[0-9]*")
	if err != nil || len(rotated) != 3 {
		t.Fatal(rotated, err)
	}
	got := j.deliveries(rotated...)
	for i := range n {
		if len(got[id(i)]) != 1 {
			t.Errorf("request %d: %v", i, got[id(i)])
		}
	}
	if len(got) != n {
		t.Errorf("%d deliveries of %d", len(got), n)
	}
}

// What the process had not stored when it was killed stands in the audit file.
func TestWhatWasNotStoredIsReadInTheAuditFile(t *testing.T) {
	for _, kept := range []string{"all is stored", "nothing of what is awaited is stored", "what was awaited before is stored"} {
		t.Run(kept, func(t *testing.T) {
			j := newJoinTest(t)
			j.allow(1)
			j.allow(2)
			j.deliver(1, "")
			j.eventually("one is delivered", func() bool { return j.trail.State().Awaited == 1 })
			j.stop()
			before, err := os.ReadFile(j.name + ".awaited")
			if err != nil {
				t.Fatal(err)
			}
			followed, err := os.ReadFile(j.name + ".nginx.state")
			if err != nil {
				t.Fatal(err)
			}
			j.start()
			j.allow(3)
			j.allow(4)
			j.deliver(3, "")
			j.eventually("another is delivered", func() bool { return j.trail.State().Awaited == 2 })
			j.stop()
			switch kept {
			case "nothing of what is awaited is stored":
				if err := os.Remove(j.name + ".awaited"); err != nil {
					t.Fatal(err)
				}
			case "what was awaited before is stored":
				if err := errors.Join(os.WriteFile(j.name+".awaited", before, 0o600), os.WriteFile(j.name+".nginx.state", followed, 0o600)); err != nil {
					t.Fatal(err)
				}
			}
			j.start()
			if got := j.trail.State().Awaited; got != 2 {
				t.Errorf("%d are awaited", got)
			}
			j.deliver(2, "")
			j.deliver(4, "")
			j.eventually("all are delivered", j.none)
			if got := j.deliveries(); len(got) != 4 || len(got[id(1)])+len(got[id(2)])+len(got[id(3)])+len(got[id(4)]) != 4 {
				t.Errorf("%v", got)
			}
		})
	}
}

// So it is in one that was compressed meanwhile; what is no whole file yet, or is
// compressed by what is not read here, holds nobody up.
func TestWhatWasNotStoredIsReadInACompressedAuditFile(t *testing.T) {
	for _, extension := range []string{".gz", ".zst"} {
		t.Run(extension, func(t *testing.T) {
			j := newJoinTest(t)
			j.allow(1)
			j.allow(2)
			j.stop()
			text, err := os.ReadFile(j.name)
			if err != nil {
				t.Fatal(err)
			}
			writeCompressed(t, j.name+".1"+extension, text)
			whole, err := os.ReadFile(j.name + ".1" + extension)
			if err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(os.WriteFile(j.name+".2"+extension, nil, 0o600), os.WriteFile(j.name+".3"+extension, whole[:5], 0o600),
				os.WriteFile(j.name+".4.xz", []byte("?"), 0o600)); err != nil {
				t.Fatal(err)
			}
			// What is stored is of before anything was awaited.
			saved := fmt.Sprintf(`{"v":1,"saved":%q}`+"\n", time.Now().Format(time.RFC3339))
			if err := errors.Join(os.Remove(j.name), os.WriteFile(j.name+".awaited", []byte(saved), 0o600)); err != nil {
				t.Fatal(err)
			}
			j.start()
			if got := j.trail.State().Awaited; got != 2 {
				t.Errorf("%d are awaited", got)
			}
		})
	}
}

func TestWhatNginxNeverTellsIsUnknownAfterAWhile(t *testing.T) {
	j := newJoinTest(t)
	j.stop()
	var late atomic.Int64 // seconds
	begin := time.Now()
	j.opts.Now = func() time.Time { return begin.Add(time.Duration(late.Load()) * time.Second) }
	j.opts.Wait = time.Hour
	j.start()
	j.allow(1)
	late.Store(1800)
	j.allow(2)
	late.Store(3599)
	j.deliver(77, "") // read, and then there is nothing more
	j.eventually("the log is read", func() bool { lag, err := j.trail.Nginx().Lag(); return err == nil && lag == 0 })
	if got := j.trail.State().Awaited; got != 2 {
		t.Errorf("%d are awaited", got)
	}
	late.Store(3600)
	j.eventually("the first is given up", func() bool { return j.trail.State().Awaited == 1 })
	j.stop()
	// While the service was away nginx has told: that is read first.
	j.deliver(2, "")
	late.Store(36000)
	j.start()
	j.deliver(1, "") // too late
	j.eventually("all are delivered", j.none)
	if got, want := j.deliveries(), (map[string][]string{id(1): {Unknown}, id(2): {Complete}}); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
}

// Who sees that nothing is awaited finds all records in the file.
func TestWhatIsNotWrittenYetIsAwaited(t *testing.T) {
	j := newJoinTest(t)
	j.stop()
	awaited := make(chan int, 1)
	j.opts.Delivered = func(*Record) { awaited <- j.trail.State().Awaited }
	j.start()
	j.allow(1)
	j.deliver(1, "")
	if n := <-awaited; n != 1 {
		t.Errorf("%d are awaited while one is written", n)
	}
	j.eventually("it is told", j.none)
	j.stop()
	j.start()
	if n := j.trail.State().Awaited; n != 0 {
		t.Errorf("%d are awaited after a restart", n)
	}
}

func TestTooManyAwaitedAreGivenUpFromTheOldest(t *testing.T) {
	j := newJoinTest(t)
	j.trail.joiner.most = 3
	for n := range 5 {
		j.allow(n)
	}
	if s := j.trail.State(); s.Awaited != 3 || s.Overflowed != 2 {
		t.Errorf("%+v", s)
	}
	for n := range 5 {
		j.deliver(n, "")
	}
	j.eventually("all are delivered", j.none)
	want := map[string][]string{id(0): {Unknown}, id(1): {Unknown}, id(2): {Complete}, id(3): {Complete}, id(4): {Complete}}
	if got := j.deliveries(); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
}

func TestADecisionThatIsNotRecordedIsNotAwaited(t *testing.T) {
	var out short
	out.left = 1 << 20
	j := newJoinTest(t)
	j.stop()
	j.name, j.opts.Output = Stdout, &out
	j.start()
	j.allow(1)
	out.left = 10
	if err := j.decide(2, true); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("%v", err)
	}
	if err := j.decide(1, true); !errors.Is(err, syscall.ENOSPC) { // asked again
		t.Errorf("%v", err)
	}
	if got := j.trail.State().Awaited; got != 1 || j.trail.joiner.take(id(1)) == nil {
		t.Errorf("%d are awaited", got)
	}
}

// What was taken out of the log while the disk is full is written once there is room.
func TestDeliveriesWaitForRoomOnTheDisk(t *testing.T) {
	dir := smallDisk(t, 64<<10)
	j := newJoinTest(t)
	j.stop()
	j.name = filepath.Join(dir, "audit.jsonl")
	j.start()
	j.allow(1)
	ballast := filepath.Join(dir, "ballast")
	fill(t, ballast)
	for j.decide(2, false) == nil { // what is left of the last page
	}
	failures := j.trail.State().Failures
	j.deliver(1, "")
	j.eventually("the delivery cannot be written", func() bool { return j.trail.State().Failures > failures })
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	j.eventually("it is written", func() bool { return len(j.deliveries()) == 1 })
	j.stop()
}

// Of a page nginx tells nothing that anybody waits for.
func TestAListingIsNotAwaited(t *testing.T) {
	for action, want := range map[string]bool{authz.ActionRead: true, authz.ActionList: false} {
		if got := isAwaited(&Record{Decision: "allow", Request: "0123456789abcdef0123456789abcdef", Action: action}); got != want {
			t.Errorf("%s: awaited %t", action, got)
		}
	}
}
