package integration_test

import (
	"cmp"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"maps"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"securefiles/internal/freeport"
	"securefiles/internal/postgrestest"
)

// A plight is what befalls a site under load: a row of the table of docs/resilience.md. All
// the time its requests ask for what is allowed and what is not; what is no answer of a calm
// day must be one that the request names for meanwhile, with nothing of a file in it.
type plight struct {
	name string
	// answers is what docs/resilience.md says of the requests meanwhile.
	answers string
	// setup brings up the site. What is struck once a round is mended before the next.
	setup func(*testing.T) *chaos
	// long is left out of a short round.
	long bool
}

// A chaos is a site and what befalls it.
type chaos struct {
	*site
	asks []troubled
	// shows says that requests are harmed each time, or there was no fault.
	shows        bool
	strike, mend func()
	// after looks at what must hold when all is over.
	after func()

	l *load
}

// troubled is a request of a load with what it may be answered with while there is
// trouble, beside what is right; 0 is no answer.
type troubled struct {
	loadRequest
	meanwhile []int
	edit      []func(*http.Request)
}

// A trouble is the time between a fault and when all is well again.
type trouble struct {
	is      bool
	mended  time.Time
	over    time.Time // of the last one: answers to what was asked before may still show it
	harmed  map[int]int
	last    time.Time // when the last answer came that showed it
	streaks [loadClients]int
}

// excuses reports whether there is trouble that explains an answer. The load is locked.
func (f *trouble) excuses(client int, q troubled, r reply, err error, began time.Time) bool {
	status := r.status
	if err != nil {
		status = 0
	}
	right := slices.Contains(q.right, status) && (status == 200) == (r.body == q.body)
	if right {
		if f.is && began.After(f.mended) {
			f.streaks[client]++
		}
		return false
	}
	if !f.is && began.After(f.over) || !slices.Contains(q.meanwhile, status) || strings.Contains(r.body, strings.TrimSpace(q.body)) {
		return false
	}
	f.streaks[client] = 0
	f.harmed[status]++
	f.last = time.Now()
	return true
}

// begin says that from now on there is trouble.
func (l *load) begin() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.trouble = trouble{is: true, mended: time.Now().Add(time.Hour), harmed: map[int]int{}}
}

// harmed counts the answers that showed the trouble.
func (l *load) harmed() (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, m := range l.trouble.harmed {
		n += m
	}
	return n
}

// recovered waits until each client has got the right answer to each request, and none
// that shows trouble since. It returns how long after the mending the last one of those came.
func (l *load) recovered(s *site, mended time.Time, requests int) time.Duration {
	s.t.Helper()
	l.mu.Lock()
	l.trouble.mended, l.trouble.streaks = mended, [loadClients]int{}
	l.mu.Unlock()
	s.eventually("all is well again", func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return slices.Min(l.trouble.streaks[:]) >= requests
	})
	l.mu.Lock()
	defer l.mu.Unlock()
	l.trouble.is, l.trouble.over = false, time.Now()
	return max(0, l.trouble.last.Sub(mended))
}

// everyday is what most sites are asked: files that are allowed, files that are not, and
// what is no path.
func everyday(meanwhile ...int) []troubled {
	var all []troubled
	for _, q := range []loadRequest{
		{"alice", plan1, []int{200}, "0123456789\n"},
		{"bob", plan1, []int{404}, "0123456789\n"},
		{"", welcome, []int{200}, "welcome\n"},
		{"", "/downloads/private/secret.txt", []int{401}, "CANARY DENY secret\n"},
		{"alice", hrFile, []int{404}, "CANARY DENY pay\n"},
		{"alice", "/downloads/project//plan.txt", []int{400}, "0123456789\n"},
	} {
		all = append(all, troubled{loadRequest: q, meanwhile: meanwhile})
	}
	return all
}

func (s *site) signalService(sig syscall.Signal) {
	s.t.Helper()
	if err := s.daemon.Process.Signal(sig); err != nil {
		s.t.Fatal(err)
	}
}

const only503 = "503 with `Retry-After`"

// plights is the table.
var plights = []plight{
	{name: "the service is killed (SIGKILL) and started, on TCP", answers: only503, setup: func(t *testing.T) *chaos { return killed(t, false) }},
	{name: "the service is killed (SIGKILL) and started, on a unix socket", answers: only503, setup: func(t *testing.T) *chaos { return killed(t, true) }},
	{name: "the service hangs (SIGSTOP) and goes on", answers: only503 + ", after 2 s", setup: hanging},
	{name: "ten restarts at once, each before the one before is ready", answers: only503, setup: restartStorm},
	{name: "of two instances one is killed", answers: "as ever", setup: func(t *testing.T) *chaos { return oneOfTwo(t, syscall.SIGKILL) }},
	{name: "of two instances one hangs", answers: "as ever, some after nginx's `proxy_read_timeout`", setup: func(t *testing.T) *chaos { return oneOfTwo(t, syscall.SIGSTOP) }},
	{name: "nginx is reloaded", answers: "as ever", setup: nginxReloaded},
	{name: "nginx is replaced by another program (USR2, WINCH, QUIT)", answers: "as ever", setup: nginxUpgraded},
	{name: "a worker of nginx is killed", answers: "no answer to what it was answering", setup: workerKilled},
	{name: "the policy is broken", answers: "as ever", setup: brokenPolicy(func(s *site) { s.replace("policy.csv", alicesPolicy+"p, bob, /**, read, Deny\n") })},
	{name: "the policy is empty", answers: "as ever", setup: brokenPolicy(func(s *site) { s.replace("policy.csv", "") })},
	{name: "the policy is removed", answers: "as ever", setup: brokenPolicy(func(s *site) {
		if err := os.Remove(filepath.Join(s.dir, "policy.csv")); err != nil {
			s.t.Fatal(err)
		}
	})},
	{name: "the policy is cut before the line that denies", answers: "as ever", setup: brokenPolicy(func(s *site) {
		s.write("policy.csv", strings.Split(alicesPolicy, "p, editor, /project/hr/")[0])
	})},
	{name: "the policy is half written, and SIGHUP comes", answers: "as ever", setup: halfWritten},
	{name: "the policy becomes huge, and then broken at its end", answers: "as ever", setup: hugePolicy},
	{name: "the disk of the audit file is full", answers: only503, setup: fullDisk},
	{name: "the disk of `state.file` is full", answers: only503 + " for links that are counted; as ever for all else", setup: fullState},
	{name: "the service has no descriptors", answers: only503 + ", after 2 s", setup: noDescriptors},
	{name: "nginx has no descriptors", answers: only503 + ", or no answer", setup: nginxNoDescriptors},
	{name: "the clock is put a year ahead, the service started, two years back, and right", answers: "as ever, but for links and tokens whose time is not that of the clock: 401, 403, 410; and 503 while the service starts", long: true, setup: clockJumps},
	{name: "nginx's clock is put a year ahead, two years back, and right", answers: "as ever", setup: nginxClock},
	{name: "Redis's clock is put a year ahead, two years back, and right", answers: "as ever, but 429 where a limit is used up by what was asked while it was ahead, for a period at most", setup: redisClock},
	{name: "PostgreSQL's clock is put a year ahead, two years back, and right", answers: "as ever; each record arrives", setup: postgresClock},
	{name: "Redis is killed and started", answers: only503 + " for what is counted; as ever for all else", setup: func(t *testing.T) *chaos { return redisAway(t, false) }},
	{name: "Redis hangs and goes on", answers: only503 + " for what is counted, within a second; as ever for all else", setup: func(t *testing.T) *chaos { return redisAway(t, true) }},
	{name: "Redis is slow", answers: "as ever, later; " + only503 + " for what is counted, after a second", setup: redisSlow},
	{name: "PostgreSQL is killed and started", answers: "as ever; each record arrives", setup: func(t *testing.T) *chaos { return postgresAway(t, false) }},
	{name: "PostgreSQL hangs and goes on", answers: "as ever; each record arrives", setup: func(t *testing.T) *chaos { return postgresAway(t, true) }},
	{name: "PostgreSQL is slow", answers: "as ever; each record arrives", setup: postgresSlow},
	{name: "the store dies and comes back", answers: only503 + " for what is allowed; as ever for what is not", setup: func(t *testing.T) *chaos { return storeAway(t, false) }},
	{name: "the store does not answer", answers: only503 + " for what is allowed, after nginx's `proxy_read_timeout`; as ever for what is not", setup: func(t *testing.T) *chaos { return storeAway(t, true) }},
	{name: "the store is slow", answers: "as ever, later", setup: storeSlow},
	{name: "the token issuer is killed and started", answers: "as ever for tokens of known keys; " + only503 + " for those of others", setup: func(t *testing.T) *chaos { return issuerAway(t, false) }},
	{name: "the token issuer hangs and goes on", answers: "as ever for tokens of known keys; " + only503 + " for those of others", setup: func(t *testing.T) *chaos { return issuerAway(t, true) }},
	{name: "the token issuer is slow", answers: "as ever", setup: issuerSlow},
	{name: "the application is killed and started", answers: "as ever for sessions that are remembered; " + only503 + " for others", setup: func(t *testing.T) *chaos { return applicationAway(t, false) }},
	{name: "the application hangs and goes on", answers: "as ever for sessions that are remembered; " + only503 + " for others", setup: func(t *testing.T) *chaos { return applicationAway(t, true) }},
	{name: "the application is slow", answers: "as ever, later; " + only503 + " for sessions that are not remembered, after its `timeout`", setup: applicationSlow},
}

// Whatever befalls the service, nginx or what they need, under load: never is a file sent
// that policy does not allow, each answer is one that docs/resilience.md has for it, and when
// the cause has gone all is well again, by itself. SECUREFILES_CHAOS_ROUNDS says how often
// each fault strikes; the table of results is written to SECUREFILES_CHAOS_TABLE.
func TestChaos(t *testing.T) {
	rounds := often(t, "SECUREFILES_CHAOS_ROUNDS", 1)
	if rounds == 1 {
		t.Parallel()
	}
	rows := make([]string, len(plights))
	atOnce := make(chan struct{}, often(t, "SECUREFILES_CHAOS_AT_ONCE", 8)) // most wait most of the time
	var all sync.WaitGroup
	for i, f := range plights {
		if f.long && rounds == 1 {
			continue
		}
		all.Go(func() {
			atOnce <- struct{}{}
			defer func() { <-atOnce }()
			t.Run(f.name, func(t *testing.T) { rows[i] = f.run(t, rounds) })
		})
	}
	all.Wait()
	if file := os.Getenv("SECUREFILES_CHAOS_TABLE"); file != "" && !t.Failed() {
		writeTable(t, file, rows)
	}
}

// run has a fault strike, and returns its row.
func (f plight) run(t *testing.T, rounds int) string {
	c := f.setup(t)
	c.l = c.troubledLoad(c.asks)
	calm := 3 * len(c.asks)
	var took []time.Duration
	answers := map[int]int{}
	for range rounds {
		c.l.goOn(c.site, calm)
		c.l.begin()
		c.strike()
		if c.shows {
			c.eventually("the fault shows", func() bool { return c.l.harmed() > 0 })
		}
		c.l.goOn(c.site, len(c.asks))
		mended := time.Now()
		c.mend()
		took = append(took, c.l.recovered(c.site, mended, len(c.asks)))
		for status, n := range c.l.trouble.harmed {
			answers[status] += n
		}
		if t.Failed() {
			break
		}
	}
	c.l.goOn(c.site, calm)
	c.l.end(t)
	if c.after != nil && !t.Failed() {
		c.after()
	}
	slices.Sort(took)
	seen := "none"
	for _, status := range slices.Sorted(maps.Keys(answers)) {
		seen = strings.TrimPrefix(fmt.Sprintf("%s, %d × %s", strings.TrimPrefix(seen, "none"), answers[status], cmp.Or(strings.TrimPrefix(fmt.Sprint(status), "0"), "no answer")), ", ")
	}
	row := fmt.Sprintf("| %s | %s | %d | %d | %s | %.2f s | %.2f s |", f.name, f.answers, rounds, c.l.answers, seen, took[len(took)/2].Seconds(), took[len(took)-1].Seconds())
	t.Log(row)
	return row
}

const tableHead, tableEnd = "<!-- make chaos -->\n", "<!-- end -->\n"

// writeTable puts rows into the table of a page. Those that were not run stay as they are.
func writeTable(t *testing.T, file string, rows []string) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(text), tableHead)
	was, after, ok2 := strings.Cut(rest, tableEnd)
	if !ok || !ok2 {
		t.Fatalf("%s has no table", file)
	}
	for i, row := range rows {
		for line := range strings.Lines(was) {
			if row == "" && strings.HasPrefix(line, "| "+plights[i].name+" | ") {
				rows[i] = strings.TrimSuffix(line, "\n")
			}
		}
	}
	rows = slices.DeleteFunc(rows, func(row string) bool { return row == "" })
	table := "| fault | requests meanwhile | times | requests in all | answers that showed it | recovery: median | longest |\n|---|---|---|---|---|---|---|\n" + strings.Join(rows, "\n") + "\n"
	if err := os.WriteFile(file, []byte(before+tableHead+table+tableEnd+after), 0o644); err != nil {
		t.Fatal(err)
	}
}

// The page has each fault, with what is promised for it, and no other.
func TestEachFaultStandsInTheDocs(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../docs/resilience.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(text), tableHead)
	table, _, _ = strings.Cut(table, tableEnd)
	for _, p := range plights {
		if !strings.Contains(table, fmt.Sprintf("\n| %s | %s |", p.name, p.answers)) {
			t.Errorf("%s is not there: make chaos writes the table", p.name)
		}
	}
	if rows := strings.Count(table, "\n") - 2; rows != len(plights) {
		t.Errorf("%d rows for %d faults", rows, len(plights))
	}
}

func killed(t *testing.T, unix bool) *chaos {
	s := start(t, plan{policy: alicesPolicy, unix: unix})
	return &chaos{site: s, asks: everyday(503), shows: true, strike: func() { end(s.daemon) }, mend: s.startService}
}

func hanging(t *testing.T) *chaos {
	s := start(t, plan{policy: alicesPolicy})
	return &chaos{site: s, asks: everyday(503), shows: true,
		strike: func() { s.signalService(syscall.SIGSTOP) }, mend: func() { s.signalService(syscall.SIGCONT) }}
}

// restartStorm ends the service by one signal or the other, as soon as it was started or
// up to 30 ms later.
func restartStorm(t *testing.T) *chaos {
	s := start(t, plan{policy: alicesPolicy, before: func(s *site) { s.edit("securefiles.yaml", "shutdown_delay: 100ms", "shutdown_delay: 1ms") }})
	return &chaos{site: s, asks: everyday(503), shows: true,
		strike: func() {
			for i := range 10 {
				s.signalService([]syscall.Signal{syscall.SIGKILL, syscall.SIGTERM}[i%2])
				_ = s.daemon.Wait() // it was told to
				s.launchService()
				time.Sleep(time.Duration(mathrand.IntN(30_000)) * time.Microsecond) // a random moment is what is tested
			}
			end(s.daemon)
		},
		mend: s.startService}
}

// oneOfTwo has two instances, as docs/operations.md has them: one, in turn, is killed or hangs.
func oneOfTwo(t *testing.T, by syscall.Signal) *chaos {
	listen, admin := freeport.Address(t), freeport.Address(t)
	s := start(t, plan{policy: alicesPolicy, before: func(s *site) {
		s.write("securefiles.yaml", s.configuration(s.rooted(oneDownload))+fmt.Sprintf("nginx: {service: ['%s', '%s']}\n", s.service, listen))
	}, edit: func(s *site, _ string) string { return s.printedHere() }})
	conf, err := os.ReadFile(filepath.Join(s.dir, "securefiles.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	s.write("second.yaml", strings.NewReplacer("listen: "+s.service, "listen: "+listen, s.admin, admin).Replace(string(conf)))
	first, second := s, &site{t: t, dir: s.dir, admin: admin, log: s.log, program: s.program, conf: "second.yaml"}
	second.startService()
	struck := second
	var mended time.Time
	var c *chaos
	c = &chaos{site: s, asks: everyday(),
		strike: func() {
			// Each worker of nginx leaves the first alone for up to two seconds; the page says five.
			for time.Since(mended) < 4*time.Second {
				c.l.goOn(s, 1)
			}
			if struck == first {
				struck = second
			} else {
				struck = first
			}
			if struck.signalService(by); by == syscall.SIGKILL {
				_ = struck.daemon.Wait() // it was killed
			}
		},
		mend: func() {
			if by == syscall.SIGKILL {
				struck.startService()
			} else {
				struck.signalService(syscall.SIGCONT)
			}
			mended = time.Now()
		}}
	return c
}

func nginxReloaded(t *testing.T) *chaos {
	s := start(t, plan{policy: alicesPolicy})
	return &chaos{site: s, asks: everyday(), strike: s.reloadNginx, mend: func() {}}
}

// nginxUpgraded is what nginx's documentation says to do when its program is replaced.
func nginxUpgraded(t *testing.T) *chaos {
	s := start(t, plan{policy: alicesPolicy, upgrades: true})
	old := 0
	signal := func(sig syscall.Signal) {
		if err := syscall.Kill(old, sig); err != nil {
			t.Fatal(err)
		}
	}
	return &chaos{site: s, asks: everyday(),
		strike: func() {
			old = s.nginxMaster()
			signal(syscall.SIGUSR2)
			s.eventually("the new program has workers", func() bool {
				now := s.nginxMaster()
				return now != old && len(s.workersOf(now)) > 0
			})
		},
		mend: func() {
			signal(syscall.SIGWINCH)
			s.eventually("the old workers have ended", func() bool { return len(s.workersOf(old)) == 0 })
			signal(syscall.SIGQUIT)
			s.eventually("the old program has ended", func() bool { return errors.Is(syscall.Kill(old, 0), syscall.ESRCH) || isZombie(old) })
		}}
}

// isZombie reports whether a process has ended, and nobody has asked how.
func isZombie(pid int) bool {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid)) // it may be gone
	_, state, _ := strings.Cut(string(text), ") ")
	return state == "" || state[0] == 'Z'
}

func workerKilled(t *testing.T) *chaos {
	s := start(t, plan{policy: alicesPolicy})
	return &chaos{site: s, asks: everyday(0),
		strike: func() {
			for pid := range s.workers() {
				if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
					t.Fatal(err)
				}
			}
		}, mend: func() {}}
}

// brokenPolicy has a policy that must not be served in the place of the one that is.
func brokenPolicy(spoil func(*site)) func(*testing.T) *chaos {
	return func(t *testing.T) *chaos {
		s := start(t, plan{policy: alicesPolicy})
		stale := func(is string) {
			s.eventually("the policy is stale: "+is, func() bool { return s.metric("securefiles_policy_stale") == is })
		}
		return &chaos{site: s, asks: everyday(), strike: func() { spoil(s); stale("1") }, mend: func() { s.replace("policy.csv", alicesPolicy); stale("0") }}
	}
}

// halfWritten has a writer that pauses before the line that denies, while somebody else has
// all files read again.
func halfWritten(t *testing.T) *chaos {
	s := start(t, plan{policy: alicesPolicy})
	first, rest, _ := strings.Cut(alicesPolicy, "p, editor, /project/hr/")
	var f *os.File
	round := 0
	return &chaos{site: s, asks: everyday(),
		strike: func() {
			var err error
			round++
			if f, err = os.OpenFile(filepath.Join(s.dir, "policy.csv"), os.O_WRONLY|os.O_TRUNC, 0); err == nil {
				_, err = fmt.Fprintf(f, "# round %d\n%sg, alice, editor\n", round, first)
			}
			if err != nil {
				t.Fatal(err)
			}
			before := strings.Count(s.log.String(), "users loaded")
			s.hangup()
			s.eventually("all else is read again", func() bool { return strings.Count(s.log.String(), "users loaded") > before })
		},
		mend: func() {
			generation := s.metric("securefiles_policy_generation")
			_, err := io.WriteString(f, "p, editor, /project/hr/"+rest)
			if err = errors.Join(err, f.Close()); err != nil {
				t.Fatal(err)
			}
			s.eventually("the whole is served", func() bool { return s.metric("securefiles_policy_generation") != generation })
		}}
}

// hugePolicy has 300,000 lines come, and go.
func hugePolicy(t *testing.T) *chaos {
	s := start(t, plan{policy: alicesPolicy, before: func(s *site) { s.edit("securefiles.yaml", "policy.csv}", "policy.csv, allow_shrink: true}") }})
	huge := strings.Repeat(bigPolicy(""), 30) + alicesPolicy
	return &chaos{site: s, asks: everyday(),
		strike: func() {
			generation := s.metric("securefiles_policy_generation")
			s.replace("policy.csv", huge)
			s.eventually("the huge one is served", func() bool { return s.metric("securefiles_policy_generation") != generation })
			s.replace("policy.csv", huge+"p, bob, /**, read, Deny\n")
			s.eventually("the broken one is refused", func() bool { return s.metric("securefiles_policy_stale") == "1" })
		},
		mend: func() {
			s.replace("policy.csv", alicesPolicy)
			s.eventually("the small one is served", func() bool { return s.metric("securefiles_policy_stale") == "0" })
		}}
}

func fullDisk(t *testing.T) *chaos {
	var disk string
	s := start(t, plan{policy: alicesPolicy, extra: "audit: {file: disk/audit.jsonl}\n", before: func(s *site) { disk = s.mounted("disk", 64<<20) }})
	ballast := filepath.Join(disk, "ballast")
	return &chaos{site: s, asks: everyday(503), shows: true,
		strike: func() { fill(t, ballast) },
		mend: func() {
			if err := os.Remove(ballast); err != nil {
				t.Fatal(err)
			}
		},
		after: func() { stopService(t, s) }} // or its disk cannot be unmounted
}

func noDescriptors(t *testing.T) *chaos {
	s := start(t, plan{policy: alicesPolicy, descriptors: 64})
	come, leave := crowd(t, s.service, "")
	return &chaos{site: s, asks: everyday(503), shows: true,
		strike: func() {
			come()
			// nginx's own connections, which are there already, are the ones that end.
			s.reloadNginx()
		}, mend: leave}
}

// crowd are 200 connections that come, say something, and are held until they leave.
func crowd(t *testing.T, address, says string) (come, leave func()) {
	var held []net.Conn
	come = func() {
		for range 200 {
			conn, err := net.Dial("tcp", address)
			if err == nil {
				_, err = io.WriteString(conn, says)
			}
			if err != nil {
				t.Fatal(err)
			}
			held = append(held, conn)
		}
	}
	leave = func() {
		for _, conn := range held {
			_ = conn.Close()
		}
		held = nil
	}
	t.Cleanup(leave)
	return come, leave
}

// redisAway has two instances on one Redis, where links and anonymous are counted.
func redisAway(t *testing.T, hangs bool) *chaos {
	s, redis, _ := onRedis(t, "limits: [{name: all, of: [anonymous], per: subject, requests: 1000000000/1h}]\n")
	s.run(0, "state", "accept")
	c := countedLinks(s)
	c.shows = true
	if hangs {
		signal := func(sig syscall.Signal) {
			if err := redis.cmd.Process.Signal(sig); err != nil {
				t.Fatal(err)
			}
		}
		c.strike, c.mend = func() { signal(syscall.SIGSTOP) }, func() { signal(syscall.SIGCONT) }
	} else {
		c.strike, c.mend = func() { end(redis.cmd) }, redis.start
	}
	return c
}

// countedLinks has what two instances count: links, and anonymous.
func countedLinks(s *site) *chaos {
	s.t.Helper()
	used, revoked, open := s.link("--uses", "1"), s.link("--ttl", "1h"), s.link()
	s.status("", used, 200)
	s.run(0, "link", "revoke", revoked)
	return &chaos{site: s, asks: []troubled{
		{loadRequest: loadRequest{"alice", plan1, []int{200}, "0123456789\n"}},
		{loadRequest: loadRequest{"bob", plan1, []int{404}, "0123456789\n"}},
		{loadRequest: loadRequest{"", welcome, []int{200}, "welcome\n"}, meanwhile: []int{503}},
		{loadRequest: loadRequest{"", open, []int{200}, "0123456789\n"}, meanwhile: []int{503}},
		{loadRequest: loadRequest{"", used, []int{410}, "0123456789\n"}, meanwhile: []int{503}},
		{loadRequest: loadRequest{"", revoked, []int{410}, "0123456789\n"}, meanwhile: []int{503}},
		{loadRequest: loadRequest{"", plan1, []int{401}, "0123456789\n"}, meanwhile: []int{503}},
	}}
}

// asEver has no request answered otherwise meanwhile.
func (c *chaos) asEver() *chaos {
	for i := range c.asks {
		c.asks[i].meanwhile = nil
	}
	return c
}

// postgresAway has a database that the audit's records are sent to: nobody waits for it.
func postgresAway(t *testing.T, hangs bool) *chaos {
	database := postgrestest.Start(t)
	c := recorded(t, database, database.URL())
	s := c.site
	waits := func() {
		s.eventually("records wait", func() bool { return s.metric(`securefiles_audit_lag_bytes{follower="postgres"}`) != "0" })
	}
	if hangs {
		c.strike, c.mend = func() { database.Freeze(true); waits() }, func() { database.Freeze(false) }
	} else {
		failures := func() string { return s.metric(`securefiles_audit_send_failures_total{sink="postgres"}`) }
		c.strike = func() {
			was := failures()
			database.Kill()
			s.eventually("the failure is counted", func() bool { return failures() != was })
			waits()
		}
		c.mend = database.Start
	}
	return c
}

// storeAway has its files in a bucket.
func storeAway(t *testing.T, hangs bool) *chaos {
	b := newBucket(t)
	s := startStored(t, b, "", func(p *plan) {
		p.edit = func(_ *site, conf string) string { // but for how long it waits
			return strings.ReplaceAll(conf, "proxy_read_timeout      30s;", "proxy_read_timeout      500ms;")
		}
	})
	c := &chaos{site: s, asks: everyday(), shows: true}
	for i, q := range c.asks {
		if slices.Contains(q.right, 200) {
			c.asks[i].meanwhile = []int{503}
		}
	}
	if hangs {
		c.strike = func() { b.answer(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }) }
		c.mend = func() { b.answer(nil) }
		return c
	}
	address, handler := b.server.Listener.Addr().String(), b.server.Config.Handler
	c.strike = func() { b.server.CloseClientConnections(); b.server.Close() }
	c.mend = func() {
		b.server = httptest.NewUnstartedServer(handler)
		_ = b.server.Listener.Close() // of another address
		s.eventually("the store listens", func() (ok bool) {
			var err error
			b.server.Listener, err = net.Listen("tcp", address)
			return err == nil
		})
		b.server.Start()
		t.Cleanup(b.server.Close)
	}
	return c
}

// tokens has users who come with tokens of an issuer, and a token of a key that nobody knows.
func tokens(t *testing.T, p *openID, identity string) *chaos {
	t.Helper()
	s := start(t, plan{policy: tokenPolicy, identity: identity})
	alice, bob := p.login("alice", "files"), p.login("bob", "files")
	return &chaos{site: s, asks: []troubled{
		{loadRequest: loadRequest{"Bearer " + alice, plan1, []int{200}, "0123456789\n"}},
		{loadRequest: loadRequest{"Bearer " + bob, plan1, []int{404}, "0123456789\n"}},
		{loadRequest: loadRequest{"", welcome, []int{200}, "welcome\n"}},
		{loadRequest: loadRequest{"", plan1, []int{401}, "0123456789\n"}},
		{loadRequest: loadRequest{"Bearer " + unknownKey(), welcome, []int{401}, "welcome\n"}, meanwhile: []int{503}},
	}}
}

// issuerAway has an issuer that is asked for its keys: when they are due, for an unknown one
// once a minute, and on SIGHUP.
func issuerAway(t *testing.T, hangs bool) *chaos {
	p := startOpenID(t)
	c := tokens(t, p, tokenRecipe(t, p))
	c.shows = true
	if hangs {
		c.strike, c.mend = func() { p.hang(); c.hangup() }, func() { p.signal(syscall.SIGCONT) }
	} else {
		c.strike, c.mend = func() { p.signal(syscall.SIGKILL); c.hangup() }, p.start
	}
	return c
}

// sessions has an application that is asked at an address who is logged in.
func sessions(t *testing.T, asked, address string) (*chaos, *exec.Cmd) {
	t.Helper()
	s := start(t, plan{policy: "p, @authenticated, /public/**, read, allow\n", identity: fmt.Sprintf(
		"identity:\n  - session: {url: 'http://%s/', cookies: [sessionid], timeout: 800ms, remember: 1h, remember_refused: 100ms}\n", asked)})
	process := s.startApplication(address)
	known := []func(*http.Request){with("Cookie", "sessionid=known")}
	s.eventually("the application answers", func() bool { return s.get("", welcome, known[0], once).status == 200 })
	stranger := func(r *http.Request) { r.Header.Set("Cookie", "sessionid="+rand.Text()) }
	return &chaos{site: s, asks: []troubled{
		{loadRequest: loadRequest{"", welcome, []int{200}, "welcome\n"}, edit: known},
		{loadRequest: loadRequest{"", plan1, []int{404}, "0123456789\n"}, edit: known},
		{loadRequest: loadRequest{"", welcome, []int{401}, "welcome\n"}},
		{loadRequest: loadRequest{"", welcome, []int{401}, "welcome\n"}, edit: []func(*http.Request){stranger}, meanwhile: []int{503}},
	}}, process
}

// applicationAway has an application that is asked who is logged in.
func applicationAway(t *testing.T, hangs bool) *chaos {
	address := freeport.Address(t)
	c, process := sessions(t, address, address)
	c.shows = true
	s := c.site
	signal := func(sig syscall.Signal) {
		if err := process.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
	}
	if hangs {
		c.strike, c.mend = func() { signal(syscall.SIGSTOP) }, func() { signal(syscall.SIGCONT) }
	} else {
		c.strike, c.mend = func() { end(process) }, func() { process = s.startApplication(address) }
	}
	return c
}
