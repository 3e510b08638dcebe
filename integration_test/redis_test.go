package integration_test

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
)

// A redisServer is what several instances count in.
type redisServer struct {
	s    *site
	dir  string
	args []string // more of them
	cmd  *exec.Cmd
}

func (r *redisServer) socket() string { return filepath.Join(r.dir, "redis.sock") }

func (r *redisServer) start() {
	r.s.t.Helper()
	args := []string{"--port", "0", "--unixsocket", r.socket(), "--dir", r.dir, "--save", "", "--appendonly", "yes", "--appendfsync", "always", "--daemonize", "no"}
	r.cmd = r.s.command("redis-server", append(args, r.args...)...)
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

// onRedis is a site with two instances that nginx asks in turn, on one Redis.
func onRedis(t *testing.T, extra string) (s *site, redis *redisServer, second *exec.Cmd) {
	t.Helper()
	return onRedisBy(t, extra, func(r *redisServer) string { return fmt.Sprintf("address: ['unix:%s']", r.socket()) })
}

// onRedisBy is onRedis with a Redis that is set up, and reached by what is returned.
func onRedisBy(t *testing.T, extra string, by func(*redisServer) string) (s *site, redis *redisServer, second *exec.Cmd) {
	t.Helper()
	listen, admin := freeAddress(t), freeAddress(t)
	redis = newRedis(t)
	s = withLinks(t, plan{
		printed: true, policy: sharing + "p, @anyone, /public/**, read, allow\n",
		extra: fmt.Sprintf("state: {redis: {%s}}\nadmin_token_file: token\n%s", by(redis), extra),
		before: func(s *site) {
			s.write("token", linkToken)
			redis.s = s
			redis.start()
		},
		edit: func(s *site, conf string) string {
			return strings.Replace(conf, "server "+s.service+";", "server "+s.service+" max_fails=0; server "+listen+" max_fails=0;", 1)
		},
	})
	text, err := os.ReadFile(filepath.Join(s.dir, "securefiles.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	s.write("second.yaml", strings.NewReplacer(s.service, listen, s.admin, admin).Replace(string(text)))
	second = s.command(binary, "serve", "--config", "second.yaml")
	second.Stderr = s.log
	if err := second.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { end(second) })
	s.eventually("the second instance listens", func() bool {
		conn, err := net.Dial("tcp", listen)
		return err == nil && conn.Close() == nil
	})
	return s, redis, second
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

	race := func(link string) int64 {
		var served atomic.Int64
		var group sync.WaitGroup
		client := newClient()
		for range 200 {
			group.Go(func() {
				if r, err := s.try(client, "", link); err == nil && r.status == http.StatusOK {
					served.Add(1)
				}
			})
		}
		group.Wait()
		return served.Load()
	}
	if n := race(link); n != 1 {
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
	end(second)
	if n := race(link); n != 1 {
		t.Errorf("%d downloads of one instance", n)
	}
	link = made()
	s.run(0, "link", "revoke", "--subject", "alice")
	s.status("", link, 410)
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
	address := freeAddress(t)
	_, port, _ := net.SplitHostPort(address)
	s, _, second := onRedisBy(t, "limits: [{name: all, of: [anonymous], per: subject, requests: 3/1h}]\n", func(r *redisServer) string {
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
	})
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
	end(second)
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
