package audit

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"
)

// A shipTest is an audit file that is shipped to a sink.
type shipTest struct {
	*testing.T
	path    string
	written int
	log     safeBuffer
	*Shipper
}

type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *safeBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *safeBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func newShipTest(t *testing.T) *shipTest {
	return &shipTest{T: t, path: filepath.Join(t.TempDir(), "audit.jsonl")}
}

// record is the record of a number: no two are alike.
func record(n int) *Record {
	return &Record{
		Type: TypeDecision, Time: time.UnixMicro(1764198000000000 + int64(n)).UTC(), Request: fmt.Sprintf("%032x", n),
		Download: "main", Path: fmt.Sprintf("/ä/%d.pdf", n), Subject: "alice", Decision: "allow", Reason: "policy", Status: 204,
	}
}

// write appends n records.
func (s *shipTest) write(n int) {
	s.Helper()
	out, err := os.OpenFile(s.path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		s.Fatal(err)
	}
	defer out.Close()
	for range n {
		if _, err := out.Write(append(record(s.written).Append(nil), '\n')); err != nil {
			s.Fatal(err)
		}
		s.written++
	}
}

// ship runs a shipper until stop is called, or the test ends.
func (s *shipTest) ship(sink Sink) (stop func()) {
	s.Helper()
	var err error
	s.Shipper, err = NewShipper("test", s.path, s.path+".test.state", sink, &ShipperOptions{
		Follow: FollowerOptions{Poll: time.Millisecond}, Gather: 5 * time.Millisecond,
		MinBackoff: time.Millisecond, MaxBackoff: 20 * time.Millisecond, Log: slog.New(slog.NewTextHandler(&s.log, nil)),
	})
	if err != nil {
		s.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- s.Shipper.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			s.Errorf("Run: %v", err)
		}
	})
	s.Cleanup(stop)
	return stop
}

// eventually waits until ok, which says what is missing.
func (s *shipTest) eventually(ok func() (missing string)) {
	s.Helper()
	missing := ""
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(2 * time.Millisecond) {
		if missing = ok(); missing == "" {
			return
		}
	}
	s.Fatalf("%s; log:\n%s", missing, s.log.String())
}

// A memorySink keeps what it is sent, unless it is away.
type memorySink struct {
	mu   sync.Mutex
	away bool
	got  []string
}

func (m *memorySink) Send(_ context.Context, entries []Entry) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.away {
		return 0, fmt.Errorf("it is away")
	}
	for _, e := range entries {
		m.got = append(m.got, string(e.Line))
	}
	return 0, nil
}

func (m *memorySink) set(away bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.away = away
}

func (m *memorySink) count() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.got)
}

func TestShipperSendsAllWhenTheSinkIsBack(t *testing.T) {
	s, sink := newShipTest(t), &memorySink{away: true}
	s.write(3)
	stop := s.ship(sink)
	s.eventually(func() string { return missing(s.Failures() >= 2, "it does not try again") })
	if behind := s.Behind(record(0).Time.Add(time.Hour)); behind != time.Hour {
		t.Errorf("it says that it is %v behind", behind)
	}
	if lag, err := s.Follower().Lag(); err != nil || lag == 0 {
		t.Errorf("it lags %d, %v", lag, err)
	}
	if err := os.Rename(s.path, s.path+".1"); err != nil {
		t.Fatal(err)
	}
	s.write(5000)
	sink.set(false)
	s.eventually(func() string { return missing(s.Sent() == 5003, fmt.Sprint("sent ", s.Sent())) })
	s.eventually(func() string {
		lag, err := s.Follower().Lag()
		return missing(err == nil && lag == 0 && s.Behind(time.Now()) == 0, fmt.Sprintf("it lags %d, %v, %v", lag, err, s.Behind(time.Now())))
	})
	stop()

	// Another process goes on behind it.
	s.write(2)
	s.ship(sink)
	s.eventually(func() string { return missing(s.Sent() == 2, fmt.Sprint("sent ", s.Sent())) })
	for i, line := range sink.got {
		if want := string(record(i).Append(nil)); line != want {
			t.Fatalf("%d: %s\nwant %s", i, line, want)
		}
	}
	if len(sink.got) != s.written || s.Refused() != 0 {
		t.Errorf("%d of %d, %d refused", len(sink.got), s.written, s.Refused())
	}
}

func TestShipperPassesOverWhatIsNoRecordAndCountsIt(t *testing.T) {
	s, sink := newShipTest(t), &memorySink{}
	if err := os.WriteFile(s.path, []byte("{\"v\":1,\"type\":\"dec\n\n{}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.write(1)
	s.ship(sink)
	s.eventually(func() string {
		return missing(sink.count() == 1 && s.Refused() == 3, fmt.Sprint(s.Refused(), " refused"))
	})
}

// A slowSink takes few records at a time, and one never.
type slowSink struct {
	memorySink
	most   int
	poison string
}

func (s *slowSink) Send(ctx context.Context, entries []Entry) (int, error) {
	if len(entries) > s.most {
		return 0, fmt.Errorf("%d are too many", len(entries))
	}
	if i := slices.IndexFunc(entries, func(e Entry) bool { return e.Record.Request == s.poison }); i >= 0 {
		if len(entries) == 1 {
			return 1, nil
		}
		return 0, fmt.Errorf("%s cannot be taken", s.poison)
	}
	return s.memorySink.Send(ctx, entries)
}

func TestShipperGetsOnWithASinkThatTakesFewAndOneNever(t *testing.T) {
	s, sink := newShipTest(t), &slowSink{most: 7, poison: record(50).Request}
	s.write(100)
	s.ship(sink)
	s.eventually(func() string {
		return missing(s.Sent() == 99 && s.Refused() == 1, fmt.Sprint(s.Sent(), " sent ", s.Refused(), " refused"))
	})
	if sink.count() != 99 {
		t.Errorf("%d of 99", sink.count())
	}
}

func missing(ok bool, what string) string {
	if ok {
		return ""
	}
	return what
}
