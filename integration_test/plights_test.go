package integration_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"securefiles/internal/freeport"
	"securefiles/internal/postgrestest"
	"securefiles/schema"
)

// link makes a link to the plan, for programs.
func (s *site) link(more ...string) string {
	s.t.Helper()
	var made struct{ URL string }
	if err := json.Unmarshal([]byte(s.run(0, append([]string{"link", "create", "/project/plan.txt", "--as", "alice", "--json"}, more...)...)), &made); err != nil {
		s.t.Fatal(err)
	}
	return made.URL + "&direct=1"
}

// linksToo is what counted links take, beside a state.
const linksToo = "links: {keys_file: link-keys.json}\nadmin_token_file: token\ndownloads: [{name: main, url: /downloads/, internal: /protected/, root: /var/www/securefiles}]\n"

// hasLinks makes what they are signed with.
func (s *site) hasLinks() {
	s.t.Helper()
	s.write("token", linkToken)
	s.run(0, "link", "key", "new")
}

// fullState has the file of the state on a disk that is full: links that are counted cannot
// be used then, and none was used twice when all is over.
func fullState(t *testing.T) *chaos {
	var disk string
	s := start(t, plan{printed: true, policy: alicesPolicy + "p, editor, /project/**, share, allow\n",
		extra: linksToo + "state: {file: disk/state.db}\naudit: {file: audit.jsonl}\nnginx: {delivery_log: 'LOGS/deliveries.log', access_log: 'off'}\nlimits: [{name: much, of: [alice], per: subject, bytes: 1TiB/24h}]\n",
		before: func(s *site) {
			disk = s.mounted("disk", 64<<20)
			s.logsDeliveries()
			s.hasLinks()
		}})
	counted, used := s.link("--uses", "10000"), s.link("--uses", "1")
	s.status("", used, 200)
	ballast := filepath.Join(disk, "ballast")
	var fresh string
	served := 0
	ask := func() int {
		r := s.get("", fresh)
		if r.status == 200 {
			served++
		}
		return r.status
	}
	return &chaos{site: s, shows: true,
		asks: append(everyday(),
			troubled{loadRequest: loadRequest{"", counted, []int{200}, "0123456789\n"}, meanwhile: []int{503}},
			troubled{loadRequest: loadRequest{"", used, []int{410}, "0123456789\n"}}),
		strike: func() {
			fresh, served = s.link("--uses", "1"), 0
			s.run(0, "state", "compact") // or there is room in the file itself
			fill(t, ballast)
			for range 3 {
				ask()
			}
		},
		mend: func() {
			if err := os.Remove(ballast); err != nil {
				t.Fatal(err)
			}
			s.eventually("the link is told to be used up", func() bool { return ask() == http.StatusGone })
			if served != 1 {
				t.Errorf("a link for one use was used %d times", served)
			}
		},
		after: func() { stopService(t, s) }} // or its disk cannot be unmounted
}

// nginxNoDescriptors has an nginx that may have few descriptors, and clients who hold them.
func nginxNoDescriptors(t *testing.T) *chaos {
	s := start(t, plan{policy: alicesPolicy, edit: func(_ *site, conf string) string {
		return strings.NewReplacer("worker_processes auto;", "worker_processes 1;", "worker_rlimit_nofile 8192;", "worker_rlimit_nofile 64;").Replace(conf)
	}})
	come, leave := crowd(t, s.web, "GET / HTTP/1.1\r\n") // and go on some day
	c := &chaos{site: s, asks: everyday(0, 503), shows: true, strike: come, mend: leave}
	for i := range c.asks {
		c.asks[i].edit = []func(*http.Request){within(2 * time.Second)}
	}
	return c
}

// within is for how long a client waits.
func within(d time.Duration) func(*http.Request) {
	return func(r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), d)
		context.AfterFunc(ctx, cancel)
		*r = *r.WithContext(ctx)
	}
}

// jumps puts a clock ahead, back, and right again, with requests in between.
func (c *chaos) jumps(is clock, look func(by time.Duration)) {
	c.strike = func() {
		for _, by := range []time.Duration{year, -year} {
			is.set(by)
			look(by)
			c.l.goOn(c.site, 3*len(c.asks))
		}
	}
	c.mend = func() { is.set(0) }
}

// says reports whether a time is of a clock that is off.
func (c *chaos) says(what string, when time.Time, by time.Duration) {
	c.t.Helper()
	if off := time.Until(when) - by; off.Abs() > time.Hour {
		c.t.Errorf("%s says %s: its clock was not put off by %s", what, when, by)
	}
}

// nginxClock has nginx's clock jump, where open files are kept, and deliveries recorded.
func nginxClock(t *testing.T) *chaos {
	var is clock
	s := start(t, plan{printed: true, policy: alicesPolicy + "p, editor, /project/**, share, allow\n",
		extra: linksToo + "state: {file: state.db}\naudit: {file: audit.jsonl}\nnginx: {delivery_log: 'LOGS/deliveries.log', access_log: 'off', open_file_cache: 1000}\n",
		before: func(s *site) {
			s.logsDeliveries()
			s.hasLinks()
			is = newClock(t, s.dir)
			s.preloaded = is.preloaded()
		}})
	open, used := s.link(), s.link("--uses", "1")
	s.status("", used, 200)
	c := &chaos{site: s, asks: append(everyday(),
		troubled{loadRequest: loadRequest{"", open, []int{200}, "0123456789\n"}},
		troubled{loadRequest: loadRequest{"", used, []int{410}, "0123456789\n"}})}
	c.jumps(is, func(by time.Duration) {
		when, err := http.ParseTime(s.get("", welcome).header.Get("Date"))
		if err != nil {
			t.Fatal(err)
		}
		c.says("nginx", when, by)
	})
	return c
}

// redisClock has the clock of Redis jump, where two instances count.
func redisClock(t *testing.T) *chaos {
	var is clock
	s, redis, _ := pair{plan: plan{extra: "limits: [{name: all, of: [anonymous], per: subject, requests: 1000000000/1h}]\n"}, redis: func(r *redisServer) string {
		is = newClock(t, r.dir)
		r.env = is.preloaded()
		return fmt.Sprintf("address: ['unix:%s']", r.socket())
	}}.start(t)
	s.run(0, "state", "accept")
	c := countedLinks(s).asEver()
	for i, q := range c.asks {
		if q.path == welcome {
			c.asks[i].meanwhile = []int{http.StatusTooManyRequests}
		}
	}
	c.jumps(is, func(by time.Duration) { c.says("Redis", redis.time(), by) })
	return c
}

// time is what Redis says that it is.
func (r *redisServer) time() time.Time {
	r.s.t.Helper()
	conn, err := net.Dial("unix", r.socket())
	if err != nil {
		r.s.t.Fatal(err)
	}
	defer conn.Close() // it was only asked
	var n, seconds int64
	if _, err = io.WriteString(conn, "TIME\r\n"); err == nil {
		_, err = fmt.Fscanf(conn, "*2\r\n$%d\r\n%d\r\n", &n, &seconds)
	}
	if err != nil {
		r.s.t.Fatal(err)
	}
	return time.Unix(seconds, 0)
}

// postgresClock has the clock of the database jump that records are sent to.
func postgresClock(t *testing.T) *chaos {
	dir := publicDir(t)
	is := newClock(t, dir)
	database := postgrestest.Start(t, is.preloaded()...)
	c := recorded(t, database, database.URL())
	c.jumps(is, func(by time.Duration) {
		var now float64
		if _, err := fmt.Sscan(database.Query("SELECT extract(epoch FROM now())"), &now); err != nil {
			t.Fatal(err)
		}
		c.says("PostgreSQL", time.Unix(int64(now), 0), by)
	})
	return c
}

// recorded has a database that the audit's records are sent to: nobody waits for it.
func recorded(t *testing.T, database *postgrestest.Server, url string) *chaos {
	sql, err := schema.FS.ReadFile("postgres.sql")
	if err != nil {
		t.Fatal(err)
	}
	database.Query(string(sql))
	s := start(t, plan{policy: alicesPolicy, extra: "audit: {file: audit.jsonl, postgres: {url_file: database-url}}\n", before: func(s *site) { s.write("database-url", url) }})
	return &chaos{site: s, asks: everyday(), after: func() {
		all, torn := s.records("audit.jsonl")
		s.eventually("each record has arrived", func() bool {
			return database.Query("SELECT count(*) FROM securefiles_audit") == fmt.Sprint(len(all)-torn)
		})
	}}
}

// A slowRoad leads to a server, whose answers come later when it is slow.
type slowRoad struct {
	address string
	slow    atomic.Bool
	late    atomic.Int64 // how many came later
}

// late is by how much: less than anybody waits who asks, where the machine is not slow too.
const late = 150 * time.Millisecond

// leadTo is a road to a server.
func leadTo(t *testing.T, network, server string) *slowRoad {
	t.Helper()
	r := &slowRoad{}
	r.address = answering(t, func(conn net.Conn) {
		defer conn.Close() // both ends end together
		there, err := net.Dial(network, server)
		if err != nil {
			return
		}
		defer there.Close()
		go func() { _, _ = io.Copy(there, conn); _ = there.Close() }()
		buf := make([]byte, 64<<10)
		for {
			n, err := there.Read(buf)
			if n > 0 {
				r.wait()
				if _, err := conn.Write(buf[:n]); err != nil {
					return
				}
			}
			if err != nil {
				return
			}
		}
	})
	return r
}

func (r *slowRoad) wait() {
	if r.slow.Load() {
		time.Sleep(late) // it is what is tested
		r.late.Add(1)
	}
}

// slows makes a road slow, until some answers came late.
func (c *chaos) slows(r *slowRoad) *chaos {
	c.strike = func() {
		before := r.late.Load()
		r.slow.Store(true)
		c.eventually("answers are late", func() bool { return r.late.Load() >= before+5 })
	}
	c.mend = func() { r.slow.Store(false) }
	return c
}

func redisSlow(t *testing.T) *chaos {
	var road *slowRoad
	s, _, _ := pair{plan: plan{extra: "limits: [{name: all, of: [anonymous], per: subject, requests: 1000000000/1h}]\n"}, redis: func(r *redisServer) string {
		road = leadTo(t, "unix", r.socket())
		return fmt.Sprintf("address: ['%s']", road.address)
	}}.start(t)
	s.run(0, "state", "accept")
	return countedLinks(s).slows(road)
}

func postgresSlow(t *testing.T) *chaos {
	database := postgrestest.Start(t)
	_, rest, _ := strings.Cut(database.URL(), "@")
	host, _, _ := strings.Cut(rest, "/")
	road := leadTo(t, "tcp", host)
	return recorded(t, database, strings.Replace(database.URL(), host, road.address, 1)).slows(road)
}

func storeSlow(t *testing.T) *chaos {
	b, road := newBucket(t), &slowRoad{}
	store := b.server.Config.Handler
	b.server.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		road.wait()
		store.ServeHTTP(w, r)
	})
	return (&chaos{site: startStored(t, b, ""), asks: everyday()}).slows(road)
}

func issuerSlow(t *testing.T) *chaos {
	p := startOpenID(t)
	road := leadTo(t, "tcp", p.address)
	c := tokens(t, p, tokenRecipe(t, p)+"      jwks_url: http://"+road.address+"/keys\n")
	c.strike = func() {
		before := road.late.Load()
		road.slow.Store(true)
		c.hangup()
		c.eventually("the issuer's answer is late", func() bool { return road.late.Load() > before })
	}
	c.mend = func() { road.slow.Store(false) }
	return c
}

func applicationSlow(t *testing.T) *chaos {
	address := freeport.Address(t)
	road := leadTo(t, "tcp", address)
	c, _ := sessions(t, road.address, address)
	return c.slows(road)
}
