package integration_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"
)

// A load is clients that download all the time.
type load struct {
	stop    chan struct{}
	clients sync.WaitGroup
	began   time.Time

	mu       sync.Mutex
	answers  int
	statuses map[int]int
	wrong    []string
	slowest  time.Duration
	trouble  trouble
}

// A request of a load, and the statuses that are right for it, with what the
// body of a 200 must be.
type loadRequest struct {
	user, path string
	right      []int
	body       string
}

// load starts clients that ask for each of the requests in turn, about 300
// times a second in all. Each client keeps its connections.
func (s *site) load(requests ...loadRequest) *load {
	all := make([]troubled, len(requests))
	for i, q := range requests {
		all[i].loadRequest = q
	}
	return s.troubledLoad(all)
}

const loadClients = 6

func (s *site) troubledLoad(requests []troubled) *load {
	const pause = loadClients * time.Second / 300
	l := &load{stop: make(chan struct{}), began: time.Now(), statuses: map[int]int{}}
	for n := range loadClients {
		l.clients.Go(func() {
			client := newClient()
			defer client.CloseIdleConnections()
			tick := time.NewTicker(pause)
			defer tick.Stop()
			for i := n; ; i++ {
				select {
				case <-l.stop:
					return
				case <-tick.C:
				}
				q := requests[i%len(requests)]
				start := time.Now()
				r, err := s.try(client, q.user, q.path, q.edit...)
				l.note(n, q, r, err, start)
			}
		})
	}
	return l
}

func (l *load) note(client int, q troubled, r reply, err error, began time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.answers++
	l.slowest = max(l.slowest, time.Since(began))
	if l.trouble.excuses(client, q, r, err, began) {
		return
	}
	if err != nil {
		l.wrong = append(l.wrong, fmt.Sprintf("%s as %s: %v", q.path, q.user, err))
		return
	}
	l.statuses[r.status]++
	for _, status := range q.right {
		if r.status == status && (status != 200 || r.body == q.body) && (status == 200 || !strings.Contains(r.body, q.body)) {
			return
		}
	}
	l.wrong = append(l.wrong, fmt.Sprintf("%s as %s: status %d, body %q", q.path, q.user, r.status, r.body))
}

func (l *load) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.answers
}

// goOn waits until so many more answers came.
func (l *load) goOn(s *site, more int) {
	s.t.Helper()
	from := l.count()
	s.eventually("the clients get answers", func() bool { return l.count() >= from+more })
}

// end stops the clients and reports what was wrong.
func (l *load) end(t *testing.T) {
	t.Helper()
	close(l.stop)
	l.clients.Wait()
	rate := float64(l.answers) / time.Since(l.began).Seconds()
	t.Logf("%d requests, %.0f a second, the slowest %v: %v", l.answers, rate, l.slowest.Round(time.Millisecond), l.statuses)
	for i, w := range l.wrong {
		if i == 10 {
			t.Errorf("and %d more", len(l.wrong)-i)
			break
		}
		t.Error(w)
	}
}

// A delivery is a line of nginx's log for people.
type delivery struct {
	Decision, Reason, User, URI, Status, Location string
}

func (s *site) deliveries() []delivery {
	s.t.Helper()
	f, err := os.Open(filepath.Join(s.dir, "logs/access.log"))
	if err != nil {
		s.t.Fatal(err)
	}
	defer f.Close() // read-only
	var all []delivery
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var d delivery
		if err := json.Unmarshal(lines.Bytes(), &d); err != nil {
			s.t.Fatalf("%v: %s", err, lines.Bytes())
		}
		all = append(all, d)
	}
	return all
}

// bigPolicy is a policy of 10,000 lines and a few: the given ones behind them.
func bigPolicy(lines string) string {
	var b strings.Builder
	for i := range 10_000 {
		fmt.Fprintf(&b, "p, user%d, /u/%d/**, read, allow\n", i, i)
	}
	return b.String() + lines
}

// S15: two policies of 10,000 lines that disagree are swapped under load, in every
// way that files change: each answer is that of the version which nginx's log
// names, and none is an error.
func TestPolicySwapsUnderLoad(t *testing.T) {
	t.Parallel()
	const planFile, page, plain = "/downloads/project/plan.txt", "/downloads/project/page.html", "/downloads/public/welcome.txt"
	a := bigPolicy("p, @anyone, /public/*, read, allow\np, alice, /project/plan.txt, read, allow\n")
	b := bigPolicy("p, @anyone, /public/*, read, allow\np, alice, /project/plan.txt, read, deny\np, alice, /project/*, read, allow\n")
	s := start(t, plan{policy: a, before: func(s *site) {
		// The layout of a ConfigMap: the file is a link through a link.
		s.write("map/..1/policy.csv", a)
		for link, target := range map[string]string{"map/..data": "..1", "map/policy.csv": "..data/policy.csv"} {
			if err := os.Symlink(target, filepath.Join(s.dir, link)); err != nil {
				s.t.Fatal(err)
			}
		}
		s.edit("securefiles.yaml", "policy.csv", "map/policy.csv")
	}})
	clients := s.load(
		loadRequest{"alice", planFile, []int{200, 404}, "0123456789\n"},
		loadRequest{"alice", page, []int{200, 404}, someFiles()["project/page.html"]},
		loadRequest{"", plain, []int{200}, "welcome\n"},
		loadRequest{"bob", planFile, []int{404}, "0123456789\n"},
	)
	generation := 1
	loaded := func(what string) {
		t.Helper()
		generation++
		s.eventually(what+" takes effect", func() bool { return s.metric("securefiles_policy_generation") == fmt.Sprint(generation) })
		clients.goOn(s, 60)
	}
	for round := range 2 {
		for _, text := range []string{b, a} {
			if round == 0 { // a new directory, and one link swapped
				name := fmt.Sprintf("..%d", generation+1)
				s.write("map/"+name+"/policy.csv", text)
				s.relink("map/..data", name)
				loaded("a ConfigMap's swap")
				continue
			}
			s.write("map/policy.csv", text) // truncated and written in place
			loaded("a write in place")
		}
	}
	for _, text := range []string{b, a} { // an editor's rename, in place of the link
		s.replace("map/policy.csv", text)
		loaded("a rename")
	}
	for _, text := range []string{b, a} {
		s.replace("map/policy.csv", text)
		if err := s.daemon.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		loaded("SIGHUP")
	}

	// A broken version changes no answer, and everybody is told.
	broken := strings.Replace(a, "p, user7000, /u/7000/**, read, allow", "p, user7000, /u/7000/**, read, Deny", 1)
	s.replace("map/policy.csv", broken)
	s.eventually("the broken version is refused", func() bool { return s.metric("securefiles_policy_stale") == "1" })
	clients.goOn(s, 60)
	if got := s.metric("securefiles_policy_generation"); got != fmt.Sprint(generation) {
		t.Errorf("generation %s is served", got)
	}
	place := filepath.Join("map", "policy.csv") + ":7001: error:"
	if code, body := s.adminGet("/readyz"); code != http.StatusOK || !strings.Contains(body, place) {
		t.Errorf("/readyz: %d %s", code, body)
	}
	if !strings.Contains(s.log.String(), `"level":"ERROR"`) || !strings.Contains(s.log.String(), place) {
		t.Error("the log does not name file and line")
	}
	for _, text := range []string{"", "p, alice, /project/plan.txt, read, allow\n"} { // empty, then shrunken
		s.replace("map/policy.csv", text)
		clients.goOn(s, 60)
	}
	s.replace("map/policy.csv", b)
	loaded("the mended version")
	if got := s.metric("securefiles_policy_stale"); got != "0" {
		t.Errorf("stale is %s", got)
	}
	clients.end(t)
	if clients.statuses[200] == 0 || clients.statuses[404] == 0 || len(clients.statuses) != 2 {
		t.Errorf("statuses %v", clients.statuses)
	}

	// Odd generations are A's, even ones B's.
	seen := map[string]int{}
	for _, d := range s.deliveries() {
		name, place, _ := strings.Cut(d.Decision, ":")
		seen[name]++
		isA := strings.ContainsAny(name[len(name)-1:], "13579")
		want := map[string]map[bool]string{
			"alice " + planFile:  {true: "200 policy.csv:10002", false: "404 policy.csv:10002"},
			"alice " + page:      {true: "404 -", false: "200 policy.csv:10003"},
			"anonymous " + plain: {true: "200 policy.csv:10001", false: "200 policy.csv:10001"},
			"bob " + planFile:    {true: "404 -", false: "404 -"},
		}[d.User+" "+d.URI][isA]
		if got := d.Status + " " + place; got != want {
			t.Errorf("%+v: %s, want %s", d, got, want)
		}
	}
	if len(seen) != generation {
		t.Errorf("%d generations, the log names %v", generation, seen)
	}
}

// SIGHUP reads policy and users again, though no file has changed.
func TestHangupReloads(t *testing.T) {
	t.Parallel()
	s := start(t, plan{policy: alicesPolicy})
	refusals := func() string { return s.metric(`securefiles_policy_reloads_total{result="refused"}`) }
	s.write("policy.csv", "p, alice, /a, read, Deny\n")
	s.eventually("the change is refused", func() bool { return refusals() == "1" })
	loaded := strings.Count(s.log.String(), "users loaded")
	if err := s.daemon.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	s.eventually("it is refused again", func() bool { return refusals() == "2" })
	s.eventually("the users are read again", func() bool { return strings.Count(s.log.String(), "users loaded") > loaded })
}

// S11: the service is killed and comes back, again and again: clients get the
// file or 503, those who may not have it never do, and all is well at the end.
func TestServiceKilledUnderLoad(t *testing.T) {
	for name, unix := range map[string]bool{"tcp": false, "unix": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := start(t, plan{policy: alicesPolicy, unix: unix})
			clients := s.load(
				loadRequest{"alice", "/downloads/project/plan.txt", []int{200, 503}, "0123456789\n"},
				loadRequest{"bob", "/downloads/project/plan.txt", []int{404, 503}, "0123456789\n"},
				loadRequest{"", "/downloads/public/welcome.txt", []int{200, 503}, "welcome\n"},
				loadRequest{"", "/downloads/private/secret.txt", []int{401, 503}, "CANARY"},
				loadRequest{"alice", "/downloads/project//plan.txt", []int{400, 503}, "0123456789\n"},
			)
			for range 3 {
				clients.goOn(s, 50)
				end(s.daemon) // SIGKILL
				clients.goOn(s, 50)
				s.startService()
				s.eventually("downloads work again", func() bool { return s.get("alice", "/downloads/project/plan.txt").status == 200 })
			}
			clients.goOn(s, 50)
			clients.end(t)
			if clients.statuses[503] == 0 || clients.statuses[200] == 0 {
				t.Errorf("statuses %v: the service was never away, or always", clients.statuses)
			}
		})
	}
}

// A reload of nginx under load fails no request.
func TestNginxReloadedUnderLoad(t *testing.T) {
	t.Parallel()
	s := start(t, plan{policy: alicesPolicy})
	clients := s.load(
		loadRequest{"alice", "/downloads/project/plan.txt", []int{200}, "0123456789\n"},
		loadRequest{"bob", "/downloads/project/plan.txt", []int{404}, "0123456789\n"},
	)
	for range 3 {
		s.reloadNginx()
		clients.goOn(s, 50)
	}
	clients.end(t)
}

// SIGTERM: readiness turns first, requests are served until the listener
// closes, and the process ends by itself with 0.
func TestTermDrains(t *testing.T) {
	t.Parallel()
	s := start(t, plan{policy: alicesPolicy, before: func(s *site) {
		s.edit("securefiles.yaml", "shutdown_delay: 100ms", "shutdown_delay: 500ms")
	}})
	clients := s.load(loadRequest{"alice", "/downloads/project/plan.txt", []int{200, 503}, "0123456789\n"})
	clients.goOn(s, 20)
	ended := make(chan error, 1)
	go func() { ended <- s.daemon.Wait() }()
	if err := s.daemon.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	s.eventually("readiness turns", func() bool { code, _ := s.adminGet("/readyz"); return code == http.StatusServiceUnavailable })
	if r := s.get("alice", "/downloads/project/plan.txt"); r.status != 200 {
		t.Errorf("not ready any more, and already away: %d", r.status)
	}
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("it ended with %v", err)
		}
	case <-time.After(patience):
		t.Error("it does not end")
	}
	clients.end(t)
	s.status("alice", "/downloads/project/plan.txt", 503)
}

// SIGTERM while a password is being checked: that request gets its answer.
func TestTermWaitsForRequestsInProgress(t *testing.T) {
	t.Parallel()
	s := start(t, plan{policy: alicesPolicy, edit: func(_ *site, conf string) string {
		return strings.Replace(conf, "proxy_read_timeout      2s", "proxy_read_timeout 30s", 1) // a busy machine takes longer
	}, before: func(s *site) {
		s.edit("securefiles.yaml", "shutdown_delay: 100ms", "shutdown_delay: 1ms")
		// bcrypt at a cost that takes half a second or more.
		s.write("users.htpasswd", "alice:$2y$13$SrcoiwY9iVJbEqWEjGCaTO.pa0n89QCAOtMNm.HG0I6qWABXN8IU6\n")
	}})
	answer := make(chan reply, 1)
	go func() { answer <- s.get("alice", "/downloads/project/plan.txt") }()
	s.eventually("the request is in progress", func() bool { return s.metric("securefiles_requests_in_flight") == "1" })
	if err := s.daemon.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if r := <-answer; r.status != 200 {
		t.Errorf("status %d", r.status)
	}
	if err := s.daemon.Wait(); err != nil {
		t.Errorf("it ended with %v", err)
	}
}

// Twelve users who log in at once, each for the first time, at bcrypt's cost 12: nginx
// waits for them, and others download meanwhile.
func TestTwelveFirstLoginsAtOnce(t *testing.T) {
	t.Parallel()
	const users, pass = 12, "correct horse"
	hash := must(bcrypt.GenerateFromPassword([]byte(pass), 12))
	// The machine may be too slow for it, at the beginning or later.
	tooSlow := func() time.Duration {
		begin := time.Now()
		if err := bcrypt.CompareHashAndPassword(hash, []byte(pass)); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(begin); users*took > 6*time.Second {
			return took
		}
		return 0
	}
	if took := tooSlow(); took > 0 {
		t.Skipf("a check takes %v here: %d of them are more than nginx waits for", took, users)
	}
	var file strings.Builder
	for i := range users {
		fmt.Fprintf(&file, "user%d:%s\n", i, hash)
	}
	s := start(t, plan{policy: "p, @authenticated, /project/**, read, allow\np, @anyone, /public/**, read, allow\n", printed: true,
		before: func(s *site) { s.write("users.htpasswd", file.String()) }})
	others := s.load(loadRequest{path: "/downloads/public/welcome.txt", right: []int{200}, body: "welcome\n"})
	var logins sync.WaitGroup
	begin, unanswered := time.Now(), make(chan string, users)
	for i := range users {
		logins.Go(func() {
			r := s.get("", "/downloads/project/plan.txt", func(r *http.Request) { r.SetBasicAuth(fmt.Sprint("user", i), pass) })
			if r.status != 200 {
				unanswered <- fmt.Sprintf("user%d: status %d", i, r.status)
			}
		})
	}
	logins.Wait()
	t.Logf("all were answered after %v", time.Since(begin))
	others.end(t)
	close(unanswered)
	if took := tooSlow(); took > 0 && len(unanswered) > 0 {
		t.Skipf("a check takes %v by now", took)
	}
	for one := range unanswered {
		t.Error(one)
	}
	// Each of the six clients that had to wait for the logins would have had one answer.
	if others.answers < 20 {
		t.Errorf("others had %d downloads meanwhile", others.answers)
	}
}
