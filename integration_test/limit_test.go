package integration_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// Who has taken all that there is gets 429, when to come again and what is left; nobody
// else does.
func TestLimitOfRequests(t *testing.T) {
	t.Parallel()
	s := start(t, plan{printed: true, policy: "p, @anyone, /public/**, read, allow\np, @authenticated, /project/**, read, allow\n", extra: `limits:
  - {name: guests, of: [anonymous], per: subject, requests: 3/1h}
  - {name: users, of: ["@authenticated"], per: subject, requests: 2/1h}
  - {name: eyes, per: download, requests: 1/1h, mode: observe}
`})
	for i := range 3 {
		r := s.status("", "/downloads/public/welcome.txt", 200)
		if got, want := r.header.Get("RateLimit"), []string{`"guests";r=2;t=1200`, `"guests";r=1;t=2400`, `"guests";r=0;t=3600`}[i]; i == 0 && got != want || i > 0 && len(got) < len(want) {
			t.Errorf("RateLimit: %q, want %q", got, want)
		}
		if got := r.header.Get("RateLimit-Policy"); got != `"guests";q=3;w=3600` { // not of what refuses nothing
			t.Errorf("RateLimit-Policy: %q", got)
		}
	}
	r := s.status("", "/downloads/public/welcome.txt", 429)
	if r.header.Get("Retry-After") < "1100" || r.header.Get("RateLimit") == "" {
		t.Errorf("refused: %v", r.header)
	}
	// Another address makes no difference to whom nginx knows.
	s.status("", "/downloads/public/welcome.txt", 429, with("X-Forwarded-For", "192.0.2.1"), with("X-Real-IP", "192.0.2.1"), with("Forwarded", "for=192.0.2.1"), with("X-Request-Id", "other"))
	s.status("alice", "/downloads/public/welcome.txt", 200)
	s.status("alice", "/downloads/private/secret.txt", 404) // takes nothing
	s.status("alice", "/downloads/private/secret.txt", 404)
	s.status("alice", "/downloads/public/welcome.txt", 200, func(r *http.Request) { r.Method = "HEAD" })
	s.status("alice", "/downloads/public/welcome.txt", 429)
	s.status("bob", "/downloads/public/welcome.txt", 200)
	if got := s.metric(`securefiles_limits_total{limit="guests",result="refused"}`); got != "2" {
		t.Errorf("refused: %s", got)
	}
	if got := s.metric(`securefiles_decisions_total{decision="deny",download="main",reason="rate"}`); got != "3" {
		t.Errorf("decisions: %s", got)
	}
}

// What is per address, for everybody, is asked before a password costs anything.
func TestEarlyLimitComesBeforePasswords(t *testing.T) {
	t.Parallel()
	s := start(t, plan{printed: true, policy: alicesPolicy, extra: "limits: [{name: all, per: address, requests: 2/1h}]\n"})
	wrong := func(r *http.Request) { r.SetBasicAuth("alice", "guess") }
	s.status("", "/downloads/project/plan.txt", 401, wrong)
	s.status("", "/downloads/project/plan.txt", 401, wrong)
	s.status("", "/downloads/project/plan.txt", 429, wrong)
	s.status("alice", "/downloads/project/plan.txt", 429)
	if got := s.metric(`securefiles_identity_total{result="refused",source="htpasswd"}`); got != "2" {
		t.Errorf("passwords that were checked: %s", got)
	}
}

// nginx sends no faster than a limit says, after the first second's worth.
func TestLimitOfRate(t *testing.T) {
	t.Parallel()
	const size, rate = 3 << 20, 1 << 20
	s := start(t, plan{printed: true, policy: alicesPolicy, files: map[string]string{"public/large.bin": strings.Repeat("x", size)},
		extra: "limits: [{name: slow, per: subject, rate: 1MiB/s}]\n"})
	begin := time.Now()
	if r := s.status("", "/downloads/public/large.bin", 200); len(r.body) != size {
		t.Errorf("%d bytes", len(r.body))
	}
	const want = (size - rate) * time.Second / rate
	if took := time.Since(begin); took < want*9/10 || took > want+slack {
		t.Errorf("%d bytes at %d a second in %s, want %s", size, rate, took, want)
	}
}

// reporting is a site whose nginx reports what it delivers.
func reporting(t *testing.T, limits string, files map[string]string) *site {
	t.Helper()
	p := deliveredPlan("", files)
	p.extra += "limits:\n" + limits
	return start(t, p)
}

// An opened download reads nothing of its body until it is told to.
type opened struct {
	*http.Response
	id string
}

// open asks for a file, and reads no more than the head of the answer.
func (s *site) open(path string, edit ...func(*http.Request)) *opened {
	s.t.Helper()
	req, err := http.NewRequestWithContext(s.t.Context(), http.MethodGet, "http://"+s.web+path, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	for _, e := range edit {
		e(req)
	}
	// A connection of its own: closing it before the end is what kills the download.
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true, DisableCompression: true}}).Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = resp.Body.Close() })
	return &opened{resp, resp.Header.Get("X-Request-Id")}
}

// Two at a time: a third is refused, until one of the two is killed or ends.
func TestLimitOfDownloadsAtATime(t *testing.T) {
	t.Parallel()
	const size = 8 << 20 // more than buffers between nginx and here hold
	s := reporting(t, "  - {name: two, per: subject, downloads: 2, rate: 1MiB/s}\n", map[string]string{"public/large.bin": strings.Repeat("x", size), "public/small.txt": "small\n"})
	first, second := s.open("/downloads/public/large.bin"), s.open("/downloads/public/large.bin")
	if first.StatusCode != 200 || second.StatusCode != 200 {
		t.Fatalf("status %d and %d", first.StatusCode, second.StatusCode)
	}
	r := s.status("", "/downloads/public/small.txt", 429)
	if r.header.Get("Retry-After") == "" || r.header.Get("RateLimit") != `"two";r=0` || r.header.Get("RateLimit-Policy") != `"two";q=2;qu="concurrent-requests"` {
		t.Errorf("refused: %v", r.header)
	}
	s.status("", "/downloads/public/small.txt", 429, with("Range", "bytes=0-0"))
	s.status("", "/downloads/public/small.txt", 200, func(r *http.Request) { r.Method = "HEAD" })
	s.status("alice", "/downloads/public/small.txt", 200)
	if err := first.Body.Close(); err != nil {
		t.Fatal(err)
	}
	killed := time.Now()
	s.eventually("the place of the one that was killed is free", func() bool { return s.get("", "/downloads/public/small.txt").status == 200 })
	if took := time.Since(killed); took > time.Second+slack {
		t.Errorf("that took %s", took)
	}
	s.eventually("the place of the one that has ended is free", func() bool { return s.get("", "/downloads/public/small.txt").status == 200 })
	if err := second.Body.Close(); err != nil {
		t.Fatal(err)
	}
	// Many at once, all the while: two at a time, and each that ends lets another in.
	var served atomic.Int64
	var group sync.WaitGroup
	for range 12 {
		group.Go(func() {
			client := newClient()
			for deadline := time.Now().Add(patience); served.Load() < 20 && time.Now().Before(deadline); {
				if r, err := s.try(client, "", "/downloads/public/small.txt"); err != nil {
					t.Error(err)
				} else if r.status == 200 {
					served.Add(1)
				} else if r.status != 429 {
					t.Errorf("status %d", r.status)
				}
			}
		})
	}
	group.Wait()
	if served.Load() < 20 {
		t.Errorf("%d were served in all that time", served.Load())
	}
}

// What was delivered counts, in ranges and to the byte, whether it ended or not; 304 and
// HEAD take nothing.
func TestLimitOfBytesIsWhatNginxReports(t *testing.T) {
	t.Parallel()
	const size, limit = 4 << 20, 100 << 20
	s := reporting(t, "  - {name: day, per: subject, bytes: 100MiB/24h}\n", map[string]string{"public/large.bin": strings.Repeat("x", size), "public/one.txt": "1"})
	const large = "/downloads/public/large.bin"
	whole := s.status("", large, 200)
	var ids []string
	note := func(r reply) { ids = append(ids, r.header.Get("X-Request-Id")) }
	note(whole)
	note(s.status("", large, 206, with("Range", "bytes=0-999999")))
	note(s.status("", large, 206, with("Range", "bytes=-9999999")))
	s.status("", large, 429, with("Range", "bytes=-562949953421311")) // claims more than there is left
	note(s.status("", large, 206, with("Range", "bytes=0-99,200-299,4000000-")))
	note(s.status("", large, 416, with("Range", "bytes=99999999-")))
	note(s.status("", large, 200, with("Range", "bytes=0-0"), with("If-Range", `"another"`)))
	note(s.status("", large, 304, with("If-None-Match", whole.header.Get("Etag"))))
	note(s.status("", large, 200, func(r *http.Request) { r.Method = "HEAD" }))
	note(s.status("", "/downloads/public/none.txt", 404))
	aborted := s.open(large)
	if _, err := io.CopyN(io.Discard, aborted.Body, 100_000); err != nil {
		t.Fatal(err)
	}
	if err := aborted.Body.Close(); err != nil {
		t.Fatal(err)
	}
	ids = append(ids, aborted.id)
	var sum int64
	for _, r := range s.delivered(ids...) {
		sum += r.Bytes
	}
	if sum < 3*size || sum > limit {
		t.Fatalf("nginx reports %d bytes", sum)
	}
	var left int64
	s.eventually("what was delivered is counted", func() bool {
		r := s.get("", "/downloads/public/one.txt", with("Range", "bytes=0-0"))
		if _, err := fmt.Sscanf(r.header.Get("RateLimit"), `"day";r=%d`, &left); err != nil {
			t.Fatalf("%v: %d %v", err, r.status, r.header)
		}
		return limit-left-sum < 1<<20 // all is settled: no reservation is left
	})
	if counted := limit - left; counted < sum*995/1000 || counted > sum*1010/1000 { // a little flows back all the while
		t.Errorf("nginx reports %d bytes, and %d are counted", sum, counted)
	}
}

// A download that goes on while the service restarts counts with what nginx reports of it
// afterwards: not with what was reserved when it began.
func TestLimitOfBytesOverARestart(t *testing.T) {
	t.Parallel()
	const size, limit = 12 << 20, 100 << 20
	s := reporting(t, "  - {name: day, per: subject, bytes: 100MiB/24h, rate: 4MiB/s}\nstate: {file: state.db}\n", map[string]string{"public/large.bin": strings.Repeat("x", size), "public/one.txt": "1"})
	goes := s.open("/downloads/public/large.bin")
	if err := s.daemon.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := s.daemon.Wait(); err != nil {
		t.Fatal(err)
	}
	s.startService()
	left := func() (n int64) {
		r := s.status("", "/downloads/public/one.txt", 206, with("Range", "bytes=0-0"))
		if _, err := fmt.Sscanf(r.header.Get("RateLimit"), `"day";r=%d`, &n); err != nil {
			t.Fatalf("%v: %v", err, r.header)
		}
		return n
	}
	if n := limit - left(); n < 3<<20 || n > 5<<20 {
		t.Errorf("%d bytes are reserved, and it was the rate of a second", n)
	}
	if n, err := io.Copy(io.Discard, goes.Body); err != nil || n != size {
		t.Fatalf("%d bytes, %v", n, err)
	}
	var sum int64
	for _, r := range s.delivered(goes.id) {
		sum += r.Bytes
	}
	s.eventually("what was delivered is counted", func() bool { n := limit - left(); return n > sum*99/100 && n < sum*101/100 })
}

// By ranges nobody gets more than the bytes of a span, and a second span's share in it.
func TestLimitOfBytesHoldsAgainstManyRanges(t *testing.T) {
	t.Parallel()
	s := reporting(t, "  - {name: band, per: subject, bytes: 2MiB/1h}\n", map[string]string{"public/large.bin": strings.Repeat("x", 8<<20)})
	var taken atomic.Int64
	var group sync.WaitGroup
	for g := range 8 {
		group.Go(func() {
			client := newClient()
			for i := range 20 {
				from := (g*20 + i) * 50_000 % (8 << 20)
				r, err := s.try(client, "", "/downloads/public/large.bin", with("Range", fmt.Sprintf("bytes=%d-%d", from, from+49_999)), with("X-Request-Id", strings.Repeat("a", 32)), with("X-Real-IP", fmt.Sprintf("192.0.2.%d", i)), with("X-Forwarded-For", fmt.Sprintf("192.0.2.%d", i)))
				switch {
				case err != nil:
					t.Error(err)
				case r.status == 206:
					taken.Add(int64(len(r.body)))
				case r.status != 429:
					t.Errorf("status %d", r.status)
				}
			}
		})
	}
	group.Wait()
	if n := taken.Load(); n > 2<<20+100_000 || n < 2<<20-100_000 { // a little flows back
		t.Errorf("%d bytes of %d", n, 2<<20)
	}
}

// explain and whoami tell which limits apply, and what is left where the running service
// can be asked.
func TestExplainTellsWhatIsLeft(t *testing.T) {
	t.Parallel()
	s := start(t, plan{printed: true, policy: "p, @anyone, /public/**, read, allow\n", before: func(s *site) { s.write("token", linkToken) }, extra: `admin_token_file: token
limits:
  - {name: all, per: subject, requests: 5/1h, rate: 2MiB/s}
  - {name: of-bob, of: [bob], per: subject, requests: 3/1h, mode: observe}
`})
	offline := s.run(0, "explain", "alice", "/public/welcome.txt")
	s.status("alice", "/downloads/public/welcome.txt", 200)
	for range 3 { // asking takes nothing
		for _, args := range [][]string{{"explain", "alice", "/public/welcome.txt"}, {"whoami", "-u", "alice:alice"}} {
			if got := s.run(0, args...); !strings.Contains(got, "limit: all, per subject: 5/1h requests, 4 left, all in 12m0s\nlimit: all, per subject: 2MiB/s each") || strings.Contains(got, "of-bob") {
				t.Errorf("%v: %s", args, got)
			}
		}
	}
	if got := s.run(0, "explain", "bob", "/public/welcome.txt", "--json"); !strings.Contains(got, `"most": "3/1h requests"`) || !strings.Contains(got, `"left": 3`) || !strings.Contains(got, `"left": 5`) {
		t.Errorf("bob: %s", got)
	}
	if got := s.run(1, "whoami"); !strings.Contains(got, "limit: all, per subject: 5/1h requests\n") { // of an address that nobody named
		t.Errorf("nobody: %s", got)
	}
	if got := s.run(0, "explain", "anonymous", "/public/welcome.txt", "--ip", "127.0.0.1"); !strings.Contains(got, "5 left") {
		t.Errorf("nobody, from here: %s", got)
	}
	end(s.daemon)
	if got := s.run(0, "explain", "alice", "/public/welcome.txt"); got != strings.ReplaceAll(offline, ", 5 left", "") || strings.Contains(got, "left") || !strings.Contains(got, "limit: all, per subject: 5/1h requests") {
		t.Errorf("without the service: %s\nwith it: %s", got, offline)
	}
}
