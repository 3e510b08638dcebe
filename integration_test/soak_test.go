package integration_test

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A gauge is something that must not grow while the service runs: by no more than a tenth,
// and what is given here, over the second half, by the line through what was measured then.
type gauge struct {
	name    string
	allowed float64
	read    func() float64
	seen    []float64
}

// growth is how much the line through the second half rises.
func (g *gauge) growth() (rise, mean float64) {
	half := g.seen[len(g.seen)/2:]
	n := float64(len(half))
	var x, y, xy, xx float64
	for i, v := range half {
		x, y, xy, xx = x+float64(i), y+v, xy+float64(i)*v, xx+float64(i)*float64(i)
	}
	return (n*xy - x*y) / (n*xx - x*x) * (n - 1), y / n
}

// For an hour at half of what it can take (SECUREFILES_SOAK_SECONDS), with all that comes and
// goes mixed in, neither memory nor goroutines, descriptors and files grow.
func TestSoak(t *testing.T) {
	seconds := often(t, "SECUREFILES_SOAK_SECONDS", 0)
	if seconds == 0 {
		t.Skip("make soak runs it")
	}
	p := linkedPlan(map[string]string{"public/welcome.txt": "welcome\n", "project/plan.txt": "0123456789\n", "project/hr/pay.txt": "CANARY DENY pay\n", "private/secret.txt": "CANARY DENY secret\n", "public/big.bin": strings.Repeat("x", 16<<20)})
	p.policy = alicesPolicy + "p, editor, /project/**, share, allow\n"
	p.extra += "limits:\n  - {name: strangers, of: ['@authenticated'], per: subject, requests: 1000000/1m, bytes: 1TiB/1h}\n"
	s := start(t, p)
	measure := func(rate int, length time.Duration) float64 {
		d := s.download(welcome, rate)
		time.Sleep(length) // the load is all that goes on
		close(d.stop)
		d.clients.Wait()
		return float64(d.served.Load()) / time.Since(d.began).Seconds()
	}
	measure(500, time.Second)
	most := measure(100_000, 5*time.Second)
	t.Logf("%.0f downloads a second at most; half of it for %d s", most, seconds)

	process := func(path string) string { return fmt.Sprintf("/proc/%d/%s", s.daemon.Process.Pid, path) }
	number := func(series string) float64 {
		v, err := strconv.ParseFloat(s.metric(series), 64)
		if err != nil {
			t.Fatalf("%s: %v", series, err)
		}
		return v
	}
	gauges := []*gauge{
		{name: "memory of the process (RSS)", allowed: 8 << 20, read: func() float64 { return number("process_resident_memory_bytes") }},
		{name: "heap in use", allowed: 8 << 20, read: func() float64 { return number("go_memstats_heap_inuse_bytes") }},
		{name: "goroutines", allowed: 20, read: func() float64 { return number("go_goroutines") }},
		{name: "descriptors", allowed: 20, read: func() float64 { return float64(len(must(os.ReadDir(process("fd"))))) }},
		{name: "files and directories", allowed: 2, read: func() float64 {
			n := 0
			if err := filepath.WalkDir(s.dir, func(string, os.DirEntry, error) error { n++; return nil }); err != nil {
				t.Fatal(err)
			}
			return float64(n)
		}},
	}
	bulk := s.download(welcome, max(1, int(most/2)))
	l := s.load(everydayRequests()...)
	begin, every := time.Now(), max(time.Second, time.Duration(seconds)*time.Second/120)
	reloads := int64(0)
	for round := 0; time.Since(begin) < time.Duration(seconds)*time.Second; round++ {
		next := time.Now().Add(every)
		s.churn(round)
		if round%5 == 1 {
			reloads++
		}
		for _, g := range gauges {
			g.seen = append(g.seen, g.read())
		}
		if t.Failed() {
			break
		}
		time.Sleep(time.Until(next)) // the load is all that goes on
	}
	close(bulk.stop)
	bulk.clients.Wait()
	l.end(t)
	// nginx that is reloaded closes connections that its clients may be about to use; these do not try again.
	if refused, broken := bulk.refused.Load(), bulk.broken.Load(); refused > 0 || broken > 16*reloads {
		t.Errorf("beside %d downloads %d were refused, and %d not answered, with %d reloads of nginx", bulk.served.Load(), refused, broken, reloads)
	}
	t.Logf("%d downloads, %.0f a second, and %d other requests", bulk.served.Load(), float64(bulk.served.Load())/time.Since(begin).Seconds(), l.answers)
	for _, g := range gauges {
		rise, mean := g.growth()
		t.Logf("| %s | %.0f | %.0f | %+.0f | %.0f |", g.name, g.seen[0], mean, rise, mean/10+g.allowed)
		if rise > mean/10+g.allowed {
			t.Errorf("%s grow: by %.0f over the second half, of %.0f; all: %.0f", g.name, rise, mean, g.seen)
		}
	}
}

func everydayRequests() (all []loadRequest) {
	for _, q := range everyday() {
		all = append(all, q.loadRequest)
	}
	return all
}

// churn is what comes and goes: users, lines, links, paths, errors, clients that hang up,
// logs that are rotated, and reloads.
func (s *site) churn(round int) {
	s.t.Helper()
	name := fmt.Sprintf("user%d", round)
	s.replace("users.htpasswd", cheapUsers+strings.Replace(mallory, "mallory", name, 1)) // the password is alice
	s.replace("policy.csv", alicesPolicy+"p, editor, /project/**, share, allow\n"+fmt.Sprintf("p, %s, /private/none%d.txt, read, allow\n", name, round))
	as := func(r *http.Request) { r.SetBasicAuth(name, "alice") }
	s.eventually("the new user is let in by the new line, to what is not there", func() bool {
		return s.get("", fmt.Sprintf("/downloads/private/none%d.txt", round), as, once).status == 404
	})
	s.status("", welcome, 401, func(r *http.Request) { r.SetBasicAuth("alice", fmt.Sprint("wrong", round)) }, once)
	s.status("", fmt.Sprintf("/downloads/public/%d.txt", round), 404, once)
	s.status("", welcome, 416, with("Range", "bytes=100-"), once)
	link := s.run(0, "link", "create", "/project/plan.txt", "--as", "alice", "--uses", "1", "--ttl", "1m") + "&direct=1"
	s.status("", link, 200, once)
	s.status("", link, 410, once)
	if resp, err := newClient().Get("http://" + s.web + "/downloads/public/big.bin"); err != nil {
		s.t.Error(err)
	} else {
		_, _ = io.CopyN(io.Discard, resp.Body, 1<<16)
		_ = resp.Body.Close() // before its end
	}
	switch round % 5 {
	case 0:
		s.hangup()
	case 1:
		s.reloadNginx()
	case 2: // what logrotate does
		for _, file := range []string{"audit.jsonl", "logs/deliveries.log"} {
			if err := os.Rename(filepath.Join(s.dir, file), filepath.Join(s.dir, file+".1")); err != nil {
				s.t.Fatal(err)
			}
		}
		if err := s.nginx.Process.Signal(syscall.SIGUSR1); err != nil {
			s.t.Fatal(err)
		}
		s.hangup()
	}
}
