package integration_test

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"securefiles/internal/freeport"
)

// A redisServer is what several instances count in.
type redisServer struct {
	s    *site
	dir  string
	args []string // more of them
	env  []string // beside the test's
	cmd  *exec.Cmd
}

func (r *redisServer) socket() string { return filepath.Join(r.dir, "redis.sock") }

func (r *redisServer) start() {
	r.s.t.Helper()
	args := []string{"--port", "0", "--unixsocket", r.socket(), "--dir", r.dir, "--save", "", "--appendonly", "yes", "--appendfsync", "always", "--daemonize", "no"}
	r.cmd = r.s.command("redis-server", append(args, r.args...)...)
	r.cmd.Env = append(os.Environ(), r.env...)
	if err := r.cmd.Start(); err != nil {
		r.s.t.Fatalf("%v: `make test` installs it", err)
	}
	cmd := r.cmd
	r.s.t.Cleanup(func() { end(cmd) })
	r.s.eventually("Redis listens", func() bool {
		conn, err := net.Dial("unix", r.socket())
		return err == nil && conn.Close() == nil
	})
}

// newRedis is one that is not started.
func newRedis(t *testing.T) *redisServer {
	t.Helper()
	dir, err := os.MkdirTemp("", "redis") // short: sockets have names of at most 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return &redisServer{dir: dir}
}

// An instance is one beside the site's own.
type instance struct {
	s      *site
	listen string
	cmd    *exec.Cmd
}

func (i *instance) start() {
	i.s.t.Helper()
	cmd := i.s.command(binary, "serve", "--config", "second.yaml")
	cmd.Stderr = i.s.log
	if err := cmd.Start(); err != nil {
		i.s.t.Fatal(err)
	}
	i.cmd = cmd
	i.s.t.Cleanup(func() { end(cmd) })
	i.s.eventually("the second instance listens", func() bool {
		conn, err := net.Dial("tcp", i.listen)
		return err == nil && conn.Close() == nil
	})
}

// A pair says what is different of a site with two instances on one Redis.
type pair struct {
	plan plan
	// redis sets a Redis up, and returns how it is reached.
	redis func(*redisServer) string
	// servers are whom nginx asks; nil means both in turn.
	servers func(first, second string) string
}

// onRedis is a site with two instances that nginx asks in turn, on one Redis.
func onRedis(t *testing.T, extra string) (s *site, redis *redisServer, second *instance) {
	t.Helper()
	return pair{plan: plan{extra: extra}}.start(t)
}

func (p pair) start(t *testing.T) (s *site, redis *redisServer, second *instance) {
	t.Helper()
	if p.redis == nil {
		p.redis = func(r *redisServer) string { return fmt.Sprintf("address: ['unix:%s']", r.socket()) }
	}
	if p.servers == nil {
		p.servers = func(first, second string) string {
			return fmt.Sprintf("server %s max_fails=0; server %s max_fails=0;", first, second)
		}
	}
	second = &instance{listen: freeport.Address(t)}
	admin := freeport.Address(t)
	redis = newRedis(t)
	before := p.plan.before
	p.plan.printed, p.plan.policy = true, sharing+"p, @anyone, /public/**, read, allow\n"
	p.plan.extra = fmt.Sprintf("state: {redis: {%s}}\nadmin_token_file: token\nlinks: {keys_file: link-keys.json}\n%s", p.redis(redis), p.plan.extra)
	p.plan.before = func(s *site) {
		if before != nil {
			before(s)
		}
		s.write("token", linkToken)
		s.run(0, "link", "key", "new")
		redis.s = s
		redis.start()
	}
	edit := p.plan.edit
	p.plan.edit = func(s *site, conf string) string {
		if edit != nil {
			conf = edit(s, conf)
		}
		return strings.Replace(conf, "server "+s.service+" max_conns=512;", p.servers(s.service, second.listen), 1)
	}
	s = start(t, p.plan)
	text, err := os.ReadFile(filepath.Join(s.dir, "securefiles.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	s.write("second.yaml", strings.NewReplacer(s.service, second.listen, s.admin, admin, "audit.jsonl", "second.jsonl").Replace(string(text)))
	second.s = s
	second.start()
	return s, redis, second
}

// unhurried gives instances more time to answer than nginx does, as printed, and nginx to ask
// the other one: a busy machine may need it.
func unhurried(wait string) func(*site, string) string {
	return func(s *site, conf string) string {
		for _, line := range []string{"proxy_read_timeout      2s;", "proxy_next_upstream_timeout 3s;"} {
			if !strings.Contains(conf, line) {
				s.t.Fatalf("nginx's configuration has no %s", line)
			}
		}
		return strings.NewReplacer("proxy_read_timeout      2s;", "proxy_read_timeout      "+wait+";", "proxy_next_upstream_timeout 3s;", "proxy_next_upstream_timeout 60s;").Replace(conf)
	}
}

// raced is how many of 200 clients have the file of a link who want it at once. Who gets
// no answer, or is told to come again, does. What happens meanwhile is told how many have
// been answered.
func (s *site) raced(link string, happens func(answered *atomic.Int64)) int64 {
	var answered, served atomic.Int64
	var group sync.WaitGroup
	client := newClient()
	defer client.CloseIdleConnections()
	for range 200 {
		group.Go(func() {
			for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
				r, err := s.try(client, "", link)
				answered.Add(1)
				switch {
				case err == nil && r.status == http.StatusOK:
					served.Add(1)
					return
				case err == nil && r.status == http.StatusGone:
					return
				case err == nil && r.status < 500:
					s.t.Errorf("status %d", r.status)
				}
				time.Sleep(time.Duration(rand.IntN(20)) * time.Millisecond) // as clients do that try again
			}
			s.t.Error("a client was told nothing in all that time")
		})
	}
	if happens != nil {
		happens(&answered)
	}
	group.Wait()
	return served.Load()
}

// One use raced by 200 clients over two instances is one download, whatever is killed
// then; and a limit is one for both.
func TestTwoInstancesOnOneRedis(t *testing.T) {
	t.Parallel()
	s, redis, second := onRedis(t, "limits: [{name: all, of: [anonymous], per: subject, requests: 3/1h}]\n")
	made := func() string {
		return s.run(0, "link", "create", "/project/plan.txt", "--as", "alice", "--uses", "1") + "&direct=1"
	}
	link := made()
	s.status("", link, 503) // nobody has accepted a Redis that holds nothing
	s.run(0, "state", "accept")

	if n := s.raced(link, nil); n != 1 {
		t.Errorf("%d downloads", n)
	}
	s.status("", link, 410)

	for i := range 6 {
		s.status("", "/downloads/public/welcome.txt", []int{200, 200, 200, 429, 429, 429}[i])
	}

	const key = "all/requests/address:127.0.0.1"
	if list := s.run(0, "state", "list", "all/"); !strings.Contains(list, key) {
		t.Errorf("state list: %s", list)
	}
	left := func(want string) {
		t.Helper()
		if got := s.run(0, "explain", "anonymous", "/public/welcome.txt", "--ip", "127.0.0.1"); !strings.Contains(got, "limit: all, per subject: 3/1h requests, "+want+" left") {
			t.Errorf("%s left? %s", want, got)
		}
	}
	left("0")
	s.run(0, "state", "reset", key)
	left("3")
	s.run(1, "state", "reset", key)
	s.status("", "/downloads/public/welcome.txt", 200)
	s.status("", "/downloads/public/welcome.txt", 200)
	s.status("", "/downloads/public/welcome.txt", 200)
	s.run(2, "state", "backup", "copy.db") // Redis has its own ways
	if _, err := os.Stat(filepath.Join(s.dir, "copy.db")); err == nil {
		t.Error("an empty copy is left")
	}

	answered := func() bool { // by both
		for range 2 {
			if s.get("", link).status != http.StatusGone {
				return false
			}
		}
		return true
	}
	end(redis.cmd)
	s.status("", link, 503)
	s.status("", "/downloads/public/welcome.txt", 503)
	s.status("alice", "/downloads/public/welcome.txt", 200) // is counted by nobody
	redis.start()
	s.eventually("links are answered again", answered)
	s.status("", "/downloads/public/welcome.txt", 429)

	if err := redis.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	s.status("", link, 503)
	if err := redis.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	s.eventually("links are answered again", answered)

	link = made()
	end(second.cmd)
	if n := s.raced(link, nil); n != 1 {
		t.Errorf("%d downloads of one instance", n)
	}
	link = made()
	s.run(0, "link", "revoke", "--subject", "alice")
	s.status("", link, 410)
}

// Whatever is killed while 200 clients want the one use that there is, an instance or
// Redis, and starts again while they go on asking, nobody has the file beside the one who
// has it; and that is nobody where an answer was lost on its way.
func TestOneUseWhileAnInstanceOrRedisIsKilled(t *testing.T) {
	t.Parallel()
	kills := 4
	if text := os.Getenv("SECUREFILES_LINK_KILLS"); text != "" {
		kills = must(strconv.Atoi(text))
	}
	s, redis, second := onRedis(t, "")
	s.run(0, "state", "accept")
	for _, row := range []struct {
		what string
		kill func()
	}{
		{"an instance", func() { end(second.cmd); second.start() }},
		{"Redis", func() { end(redis.cmd); redis.start() }},
	} {
		lost := 0
		for i := range kills {
			var link string
			s.eventually("a link is kept", func() bool {
				cmd := s.command(binary, "link", "create", "/project/plan.txt", "--as", "alice", "--uses", "1", "--config", "securefiles.yaml")
				out, err := cmd.Output()
				link = strings.TrimSpace(string(out)) + "&direct=1"
				return err == nil
			})
			// At a moment while the use is taken, or when some have been told that it is.
			after, wait := int64(0), time.Duration(rand.IntN(20_000))*time.Microsecond
			if i%2 == 1 {
				after, wait = 1+rand.Int64N(200), 0
			}
			n := s.raced(link, func(answered *atomic.Int64) {
				time.Sleep(wait) // a random moment is what is tested
				for answered.Load() < after {
					runtime.Gosched()
				}
				row.kill()
			})
			switch n {
			case 0:
				lost++
			case 1:
			default:
				t.Errorf("%s was killed after %s, or %d answers: %d downloads of a link that is good for one", row.what, wait, after, n)
			}
			s.eventually("the link is told to be used up", func() bool {
				status := s.get("", link).status
				if status == http.StatusOK {
					t.Errorf("%s was killed after %s, or %d answers: the link opens once more", row.what, wait, after)
				}
				return status == http.StatusGone
			})
		}
		t.Logf("%s was killed %d times: the use was had by one in %d, and its answer lost in %d", row.what, kills, kills-lost, lost)
	}
	if problems := s.log.String(); strings.Contains(problems, "older copy") {
		t.Errorf("Redis lost what it has acknowledged: %s", tail(problems))
	}
}

// A lossyNetwork is before a service. When that has answered what it is asked, something
// happens, and no answer comes out: the connection is closed, or stays as it is.
type lossyNetwork struct {
	service string
	happens func()
	hangs   bool
}

// lossy makes a network, which waits until it is told before what it is.
func lossy(t *testing.T) (address string, before chan<- lossyNetwork) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	over, told := make(chan struct{}), make(chan lossyNetwork, 1)
	t.Cleanup(func() {
		close(over)
		_ = l.Close()
	})
	go func() {
		n := <-told
		for {
			conn, err := l.Accept()
			if err != nil {
				return // the test is over
			}
			go func() {
				defer conn.Close()
				there, err := net.Dial("tcp", n.service)
				if err != nil {
					return
				}
				defer there.Close()
				go func() { _, _ = io.Copy(there, conn) }()
				if _, err := there.Read(make([]byte, 1)); err != nil {
					return
				}
				n.happens()
				if n.hangs {
					<-over
				}
			}()
		}
	}()
	return l.Addr().String(), told
}

// nginx that hears no answer of an instance, which has counted and then dies or hangs, asks
// the other one: that is the same use, and the same request of a limit.
func TestNginxAskingAnotherInstanceIsOneUse(t *testing.T) {
	t.Parallel()
	backup := func(first, second string) string { return "server " + first + "; server " + second + " backup;" } // as `securefiles nginx` prints two
	turns := func(first, second string) string { return "server " + first + "; server " + second + ";" }
	for name, row := range map[string]struct {
		servers func(first, second string) string
		signal  syscall.Signal
	}{
		"killed":           {backup, syscall.SIGKILL},
		"killed, in turn":  {turns, syscall.SIGKILL},
		"hanging":          {backup, syscall.SIGSTOP},
		"hanging, in turn": {turns, syscall.SIGSTOP},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			address, before := lossy(t)
			s, _, _ := pair{
				plan: plan{
					identity: "identity: [{header: X-Remote-User, nginx_value: $remote_user}]\n",
					extra:    "limits: [{name: links, of: ['@link'], per: link, requests: 3/1h}]\n",
					edit:     unhurried("5s"),
				},
				servers: func(_, second string) string { return row.servers(address, second) },
			}.start(t)
			s.run(0, "state", "accept")
			link := s.run(0, "link", "create", "/project/plan.txt", "--as", "alice", "--uses", "1") + "&direct=1"
			var answered atomic.Int64
			process := s.daemon.Process
			before <- lossyNetwork{s.service, func() {
				answered.Add(1)
				_ = process.Signal(row.signal) // the second time it is gone
			}, row.signal == syscall.SIGSTOP}
			r := s.status("", link, 200)
			if r.body != s.texts["project/plan.txt"] || !strings.HasPrefix(r.header.Get("RateLimit"), `"links";r=2;`) {
				t.Errorf("%q, and of the limit of three is left: %s", r.body, r.header.Get("RateLimit"))
			}
			if n := answered.Load(); n != 1 {
				t.Errorf("the first instance has answered %d times, not once before it was gone", n)
			}
			s.status("", link, 410)
		})
	}
}

// Over TLS, as the user that docs/operations.md makes: all that there is works with what
// that user may, and neither another certificate nor another password opens anything.
func TestRedisByTLSAsTheUserOfTheDocs(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	_, user, ok := strings.Cut(string(text), "\nuser files ")
	if user, _, _ = strings.Cut(user, "\n"); !ok || !strings.Contains(user, ">PASSWORD ") {
		t.Fatal("docs/operations.md makes no user")
	}
	address := freeport.Address(t)
	_, port, _ := net.SplitHostPort(address)
	s, _, second := pair{plan: plan{extra: "limits: [{name: all, of: [anonymous], per: subject, requests: 3/1h}]\n"}, redis: func(r *redisServer) string {
		certify := func(name string, more ...string) {
			cmd := exec.Command("openssl", append([]string{"req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1", "-subj", "/CN=" + name, "-keyout", filepath.Join(r.dir, name+".key"), "-out", filepath.Join(r.dir, name+".pem")}, more...)...)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
		}
		certify("redis", "-addext", "subjectAltName=IP:127.0.0.1")
		certify("other", "-addext", "subjectAltName=IP:127.0.0.1")
		acl := "user default off\nuser files " + strings.Replace(user, ">PASSWORD", ">"+linkToken, 1) + "\n"
		for name, text := range map[string]string{"users.acl": acl, "password": linkToken + "\n", "wrong": "wrong\n"} {
			if err := os.WriteFile(filepath.Join(r.dir, name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		r.args = []string{"--tls-port", port, "--bind", "127.0.0.1", "--tls-cert-file", filepath.Join(r.dir, "redis.pem"), "--tls-key-file", filepath.Join(r.dir, "redis.key"),
			"--tls-ca-cert-file", filepath.Join(r.dir, "redis.pem"), "--tls-auth-clients", "no", "--aclfile", filepath.Join(r.dir, "users.acl")}
		return fmt.Sprintf("address: ['%s'], username: files, password_file: %s, tls: true, ca_file: %s", address, filepath.Join(r.dir, "password"), filepath.Join(r.dir, "redis.pem"))
	}}.start(t)
	made := func() string {
		return s.run(0, "link", "create", "/project/plan.txt", "--as", "alice", "--uses", "1") + "&direct=1"
	}
	used, revoked := made(), made()
	s.status("", used, 503)
	s.run(0, "state", "accept")
	s.status("", used, 200)
	s.status("", used, 410)
	s.run(0, "link", "revoke", "--subject", "alice")
	s.status("", revoked, 410)
	for i := range 4 {
		s.status("", "/downloads/public/welcome.txt", []int{200, 200, 200, 429}[i])
	}
	if got := s.run(0, "explain", "anonymous", "/public/welcome.txt", "--ip", "127.0.0.1"); !strings.Contains(got, "0 left") {
		t.Errorf("explain: %s", got)
	}
	if list := s.run(0, "link", "list"); !strings.Contains(list, "1 of 1") {
		t.Errorf("link list: %s", list)
	}
	s.run(0, "state", "list")
	s.write("state.jsonl", s.run(0, "state", "export")+"\n")
	s.run(0, "state", "restore", "state.jsonl")
	s.run(0, "state", "reset", "all/requests/address:127.0.0.1")
	s.status("", "/downloads/public/welcome.txt", 200)
	if problems := s.log.String(); strings.Contains(problems, "NOPERM") || strings.Contains(problems, "nobody has checked") {
		t.Errorf("the user may not do something: %s", problems)
	}
	conf, err := os.ReadFile(filepath.Join(s.dir, "securefiles.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	end(second.cmd)
	for name, edit := range map[string]*strings.Replacer{
		"another certificate": strings.NewReplacer("/redis.pem", "/other.pem"),
		"another password":    strings.NewReplacer("/password", "/wrong"),
	} {
		end(s.daemon)
		s.write("securefiles.yaml", edit.Replace(string(conf)))
		s.startService()
		if r := s.get("", "/downloads/public/welcome.txt"); r.status != 503 {
			t.Errorf("%s: status %d", name, r.status)
		}
		if r := s.get("", used); r.status != 503 {
			t.Errorf("%s: of a link: status %d", name, r.status)
		}
	}
}
