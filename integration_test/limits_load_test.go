package integration_test

import (
	"cmp"
	"io"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// Over all the time that two instances on one Redis are asked for much more than there is,
// through nginx, as much is let through as the limits say, of requests, bytes and downloads
// at a time: nothing more, though one of the two is killed and one ends meanwhile, and no
// less than 99 of 100. SECUREFILES_LIMITS_SECONDS says for how long; how much is had in a short
// round goes by how much a busy machine asks for.
func TestLimitsUnderLoad(t *testing.T) {
	seconds, least := 4, 0.0
	if text := os.Getenv("SECUREFILES_LIMITS_SECONDS"); text != "" {
		var err error
		if seconds, err = strconv.Atoi(text); err != nil {
			t.Fatal(err)
		}
		least = 0.99
	} else {
		t.Parallel()
	}
	length := time.Duration(seconds) * time.Second
	const year, refilled = 100 << 30, 4 << 10 // bytes, and those of a second of 366 days
	p := deliveredPlan("", map[string]string{
		"public/welcome.txt": "welcome\n", "project/plan.txt": "0123456789\n", // what links are made to
		"public/small.bin": strings.Repeat("x", 250_000), "public/large.bin": strings.Repeat("x", 1<<20),
	})
	p.identity = "identity: [{header: X-Remote-User, nginx_value: $remote_user}]\n" // whoever says so: passwords are another test's
	p.extra += `limits:
  - {name: guests, of: [anonymous], per: subject, requests: 240/2s}
  - {name: users, of: [alice], per: subject, requests: 600/1m}
  - {name: window, of: [bob], per: subject, bytes: 4MiB/2s, rate: 256KiB/s}
  - {name: year, of: [bob], per: subject, bytes: 100GiB/366d}
  - {name: places, of: [carol], per: subject, downloads: 4, rate: 512KiB/s}
`
	p.edit = unhurried("30s")
	s, _, _ := pair{plan: p}.start(t)
	s.run(0, "state", "accept")
	const welcome, small, large = "/downloads/public/welcome.txt", "/downloads/public/small.bin", "/downloads/public/large.bin"
	etag := s.get("dave", small).header.Get("Etag")

	rows := map[string]*burden{
		"": {path: welcome, clients: 6}, "alice": {path: welcome, clients: 6},
		"bob": {path: small, clients: 6, edit: func(i int, r *http.Request) (abort bool) {
			switch i % 16 {
			case 3:
				r.Header.Set("If-None-Match", etag)
			case 6:
				r.Method = http.MethodHead
			case 9:
				return true
			case 12, 14:
				r.Header.Set("Range", "bytes=1000-99999")
			}
			return false
		}},
		"carol": {path: large, clients: 8, edit: func(i int, _ *http.Request) (abort bool) { return i%4 == 3 }},
	}
	stop := make(chan struct{})
	begin := time.Now()
	for user, row := range rows {
		for range row.clients {
			row.running.Go(func() { row.load(s, user, stop) })
		}
	}
	later := func(part time.Duration) { time.Sleep(time.Until(begin.Add(part))) } // the load is all that goes on meanwhile
	later(length / 3)
	end(s.daemon)
	s.startService()
	later(length * 2 / 3)
	if err := s.daemon.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	_ = s.daemon.Wait() // it was told to
	s.startService()
	later(length)
	close(stop)
	asked := time.Since(begin).Seconds()
	took := map[*burden]float64{} // until the last answer
	for _, user := range []string{"", "alice", "bob", "carol"} {
		rows[user].running.Wait()
		took[rows[user]] = time.Since(begin).Seconds()
	}

	within := func(what string, row *burden, is, limit, period, over float64) {
		t.Helper()
		there := limit + limit/period*asked
		t.Logf("%s: %.0f in %.1f s, of %.1f that were to be had (%.2f%%)", what, is, asked, there, is/there*100)
		if most := limit + limit/period*took[row] + over; is > most || is < there*least {
			t.Errorf("%s: %.0f were let through, and it is %.1f at most and %.1f at least", what, is, most, there*least)
		}
	}
	for user, row := range rows {
		if n := row.failed.Load(); n > 0 {
			t.Logf("%q: %d were answered with 503", user, n)
		}
	}
	within("requests of guests", rows[""], float64(len(rows[""].allowed)), 240, 2, 1)
	within("requests of a user", rows["alice"], float64(len(rows["alice"].allowed)), 600, 60, 1)

	// Bytes, as nginx reports them: until then, and of each download, what is counted.
	var reported map[string]nginxDelivery
	s.eventually("nginx reports each download", func() bool {
		reported = map[string]nginxDelivery{}
		for _, d := range s.nginxDeliveries("logs/deliveries.log") {
			reported[d.Request] = d
		}
		for _, row := range rows {
			for id := range row.allowed {
				if _, ok := reported[id]; !ok {
					return false
				}
			}
		}
		return true
	})
	var sent int64
	for id := range rows["bob"].allowed {
		sent += reported[id].Body
	}
	within("bytes", rows["bob"], float64(sent), 4<<20, 2, 0)
	left := regexp.MustCompile(`"year";r=(\d+)`)
	var counted int64
	s.eventually("what was reserved is replaced by what was sent", func() bool {
		r := s.get("bob", small, with("Range", "bytes=0-0"))
		got := left.FindStringSubmatch(r.header.Get("RateLimit"))
		if got == nil {
			return false // the other limit has nothing left
		}
		counted = year - must(strconv.ParseInt(got[1], 10, 64))
		return counted < sent+sent/100
	})
	t.Logf("bytes: nginx reports %d, and %d are counted (%.2f%%)", sent, counted, float64(counted)/float64(sent)*100)
	if least := sent - refilled*int64(time.Since(begin)/time.Second+1); counted < least {
		t.Errorf("nginx reports %d bytes, and %d are counted", sent, counted)
	}

	// A place is taken when its client has the head of the answer, and until nginx reports.
	type change struct {
		at float64
		by int
	}
	var changes []change
	for id, at := range rows["carol"].allowed {
		if began := float64(at.UnixMicro()) / 1e6; began < reported[id].Ended {
			changes = append(changes, change{began, 1}, change{reported[id].Ended, -1})
		}
	}
	slices.SortFunc(changes, func(a, b change) int { return cmp.Or(cmp.Compare(a.at, b.at), a.by-b.by) })
	now, most := 0, 0
	for _, c := range changes {
		now += c.by
		most = max(most, now)
	}
	t.Logf("at a time: %d downloads, at most %d together, and %d refused", len(rows["carol"].allowed), most, rows["carol"].refused.Load())
	if most > 4 {
		t.Errorf("%d downloads at a time", most)
	}
	s.eventually("all places are free again", func() bool {
		out, _ := s.command(binary, "state", "list", "places/", "--config", "securefiles.yaml").Output() // it exits 1 where there is nothing
		return len(out) == 0
	})
}

// A burden is what a user asks for all the while, and gets.
type burden struct {
	path    string
	clients int
	running sync.WaitGroup
	edit    func(i int, r *http.Request) (abort bool) // the i-th request of a client
	refused atomic.Int64
	failed  atomic.Int64

	mu      sync.Mutex
	allowed map[string]time.Time // ids of requests, when the head of their answer was there
}

// load asks until it is to stop.
func (l *burden) load(s *site, user string, stop <-chan struct{}) {
	client := newClient()
	defer client.CloseIdleConnections()
	for i := 0; ; i++ {
		select {
		case <-stop:
			return
		default:
		}
		req, err := http.NewRequestWithContext(s.t.Context(), http.MethodGet, "http://"+s.web+l.path, nil)
		if err != nil {
			s.t.Error(err)
			return
		}
		if user != "" {
			req.SetBasicAuth(user, user)
		}
		abort := l.edit != nil && l.edit(i, req)
		resp, err := client.Do(req)
		if err != nil {
			s.t.Error(err)
			return
		}
		at := time.Now()
		switch resp.StatusCode {
		case http.StatusOK, http.StatusPartialContent, http.StatusNotModified:
			l.mu.Lock()
			if l.allowed == nil {
				l.allowed = map[string]time.Time{}
			}
			l.allowed[resp.Header.Get("X-Request-Id")] = at
			l.mu.Unlock()
		case http.StatusTooManyRequests:
			l.refused.Add(1)
		case http.StatusServiceUnavailable: // Redis did not answer a busy machine in time
			l.failed.Add(1)
		default:
			s.t.Errorf("%q: status %d", user, resp.StatusCode)
		}
		if !abort {
			if _, err := io.Copy(io.Discard, resp.Body); err != nil {
				s.t.Error(err)
			}
		}
		_ = resp.Body.Close() // which ends the download where not all was read
	}
}
