// Package integration_test drives the built service behind real nginx, run
// with nginx.conf.example itself.
package integration_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"securefiles/internal/freeport"
)

// patience is how long a test waits for what a process does. A machine with
// other work to do takes its time; a test that passes does not wait.
const patience = time.Minute

// slack is what such a machine may add to what must happen within some time.
const slack = 30 * time.Second

// binary is the service, built once, and demoBucket is the demo's.
var binary, demoBucket string

func TestMain(m *testing.M) {
	if address := os.Getenv(applicationVariable); address != "" {
		os.Exit(runApplication(address)) // this process is what a test kills
	}
	os.Exit(build(m))
}

func build(m *testing.M) int {
	if _, err := exec.LookPath("nginx"); err != nil {
		fmt.Fprintln(os.Stderr, "nginx is not installed: `make test` installs it")
		return 1
	}
	dir, err := os.MkdirTemp("", "securefiles-integration")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir) // temporary
	binary, demoBucket = filepath.Join(dir, "securefiles"), filepath.Join(dir, "bucket")
	if out, err := exec.Command("go", "build", "-o", dir+"/", "..", "../examples/demo/bucket").CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build the service: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

// A site is nginx, the service and a tree of files, in a directory of its own.
type site struct {
	t       *testing.T
	dir     string // configuration, logs
	root    string // the files
	web     string // nginx's address
	admin   string // the service's admin address
	service string // where nginx asks: host:port or unix:/path
	daemon  *exec.Cmd
	nginx   *exec.Cmd
	log     *logBuffer        // the service's
	texts   map[string]string // what the files hold

	sentTo      string // the store that clients are sent to, if they are: http://HOST:PORT
	descriptors int
	direct      []string // what `serve` is told beside the configuration
	program     string   // the service's
	conf        string   // its configuration
	environment []string // the service's, beside the test's
	preloaded   []string // nginx's
}

// directDownload is the download of the defaults, at another root. A test that has its own
// writes no second one.
const directDownload = "downloads: [{name: main, url: /downloads/, internal: /protected/, root: %s}]\n"

// plan says what a site is like.
type plan struct {
	policy   string            // policy.csv
	files    map[string]string // below the root; nil means a few
	identity string            // YAML; empty means users alice and bob with their names as passwords
	extra    string            // more YAML
	unix     bool              // ask over a unix socket
	edit     func(s *site, nginxConf string) string
	before   func(*site) // called before anything starts
	front    string      // the web server, if it is not nginx: apache, lighttpd or caddy
	upstream string      // an address to ask instead of the service, which is not started
	stored   bool        // the files are in a store, not below the root
	printed  bool        // nginx runs what `securefiles nginx --complete` prints, not the example
	direct   bool        // there is no nginx: the service serves the files itself
	// environment is the service's, beside the test's.
	environment []string
	upgrades    bool // nginx is in the background: only there it starts another program in its place
	// descriptors is how many files the service may have open; 0 means as many as
	// the test may.
	descriptors int
}

// alicesPolicy is what most tests use.
const alicesPolicy = `
p, @anyone, /public/**, read, allow
p, editor, /project/**, read, allow
p, editor, /project/hr/**, read, deny
g, alice, editor
`

func someFiles() map[string]string {
	return map[string]string{
		"public/welcome.txt":     "welcome\n",
		"project/plan.txt":       "0123456789\n",
		"project/page.html":      "<script>alert(1)</script>\n",
		"project/hr/pay.txt":     "CANARY DENY pay\n",
		"private/secret.txt":     "CANARY DENY secret\n",
		"project/sub/index.html": "index\n",
	}
}

// cheapUsers are alice and bob, their names as passwords, hashed at bcrypt's
// lowest cost so that tests spend their time elsewhere.
const cheapUsers = `alice:$2y$04$nkim0fThe/Pn3GFBi5EmJOYgC4E8WURfewEgi9yzQ8ohnOhe6ggPm
bob:$2y$04$NtisaL5/eEq29CkhP3bxWesCwRI2ggXEyKIzN7T/60Nwh9FLWA5YS
`

// start brings a site up; the test's end takes it down.
func start(t *testing.T, p plan) *site {
	t.Helper()
	s := &site{t: t, dir: publicDir(t), web: freeport.Address(t), admin: freeport.Address(t), log: &logBuffer{}, program: binary, conf: "securefiles.yaml"}
	s.root = filepath.Join(s.dir, "files")
	if p.files == nil {
		p.files = someFiles()
	}
	s.texts = p.files
	for name, text := range p.files {
		s.write(filepath.Join("files", name), text)
	}
	s.service = freeport.Address(t)
	switch {
	case p.upstream != "":
		s.service = p.upstream
	case p.unix:
		s.service = "unix:" + filepath.Join(s.dir, "auth.sock")
	}
	s.write("policy.csv", p.policy)
	s.write("users.htpasswd", cheapUsers)
	if p.identity == "" {
		p.identity = "identity:\n  - htpasswd: users.htpasswd\n"
	}
	s.write("securefiles.yaml", fmt.Sprintf("listen: %s\nadmin: %s\nshutdown_delay: 100ms\npolicy: {file: policy.csv}\nlog: {format: json, level: info}\n%s%s", s.service, s.admin, p.identity, p.extra))
	if p.before != nil {
		p.before(s)
	}
	s.descriptors, s.environment = p.descriptors, append(s.environment, p.environment...)
	if p.direct {
		s.direct = []string{"--direct", "--listen", s.web}
		if !strings.Contains(p.extra, "downloads:") {
			s.edit("securefiles.yaml", "policy: {file: policy.csv}\n", "policy: {file: policy.csv}\n"+fmt.Sprintf(directDownload, s.root))
		}
	}
	if p.upstream == "" {
		s.startService()
	}
	switch {
	case p.front != "":
		s.startFront(p)
	case !p.direct:
		s.startNginx(p)
	}
	t.Cleanup(func() {
		if t.Failed() {
			errors, _ := os.ReadFile(filepath.Join(s.dir, "logs", "error.log")) // there may be none
			t.Logf("service log:\n%s\nnginx error log:\n%s", tail(s.log.String()), tail(string(errors)))
		}
	})
	return s
}

func tail(s string) string { return s[max(0, len(s)-4000):] }

// publicDir makes a temporary directory that nginx's workers, which run as
// another user when a test runs as root, may enter.
func publicDir(t *testing.T) string {
	t.Helper()
	made := t.TempDir()
	for dir := made; len(dir) > len(os.TempDir()); dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return made
}

func (s *site) write(name, text string) {
	s.t.Helper()
	file := filepath.Join(s.dir, name)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		s.t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		s.t.Fatal(err)
	}
}

// replace puts a new version into a file's place, as an editor does.
func (s *site) replace(name, text string) {
	s.t.Helper()
	s.write(name+".new", text)
	if err := os.Rename(filepath.Join(s.dir, name+".new"), filepath.Join(s.dir, name)); err != nil {
		s.t.Fatal(err)
	}
}

// edit replaces the one occurrence of a text in a file.
func (s *site) edit(name, old, new string) {
	s.t.Helper()
	text, err := os.ReadFile(filepath.Join(s.dir, name))
	if err != nil {
		s.t.Fatal(err)
	}
	if n := strings.Count(string(text), old); n != 1 {
		s.t.Fatalf("%s holds %q %d times", name, old, n)
	}
	s.write(name, strings.Replace(string(text), old, new, 1))
}

// relink makes a symbolic link name another target, in one step.
func (s *site) relink(name, target string) {
	s.t.Helper()
	link := filepath.Join(s.dir, name)
	if err := os.Symlink(target, link+"_tmp"); err != nil {
		s.t.Fatal(err)
	}
	if err := os.Rename(link+"_tmp", link); err != nil {
		s.t.Fatal(err)
	}
}

// command prepares a process that dies with the test.
func (s *site) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(name, args...)
	cmd.Dir = s.dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return cmd
}

// end kills what is left of a process and its children.
func end(cmd *exec.Cmd) {
	_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // it may be gone
	_ = cmd.Wait()                                      // it was killed
}

func (s *site) startService() {
	s.t.Helper()
	s.launchService()
	if s.service != "" && strings.HasPrefix(s.service, "unix:") {
		defer s.openSocket()
	}
	s.eventually("the service is ready", func() bool {
		code, _ := s.adminGet("/readyz")
		return code == http.StatusOK
	})
}

// launchService does not wait until it is ready.
func (s *site) launchService() {
	s.t.Helper()
	cmd := s.command(s.program, append([]string{"serve", "--config", s.conf}, s.direct...)...)
	if s.descriptors > 0 {
		cmd = s.command("sh", "-c", fmt.Sprintf(`ulimit -n %d && exec "$@"`, s.descriptors), "sh", s.program, "serve", "--config", s.conf)
	}
	cmd.Stderr = s.log
	cmd.Env = append(append(os.Environ(), "NOTIFY_SOCKET="), s.environment...)
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.daemon = cmd
	s.t.Cleanup(func() { end(cmd) })
}

// openSocket lets nginx's workers connect when the test runs as root and they
// do not.
func (s *site) openSocket() {
	if os.Getuid() == 0 {
		if err := os.Chmod(strings.TrimPrefix(s.service, "unix:"), 0o666); err != nil {
			s.t.Fatal(err)
		}
	}
}

// exampleService is where nginx.conf.example asks.
const exampleService = "server unix:/run/securefiles/auth.sock max_conns=512;"

// startNginx runs nginx.conf.example: the file itself, but for its three
// literals (where nginx listens, where the service does, the directory). A plan
// can ask for what `securefiles nginx` prints for its configuration instead.
func (s *site) startNginx(p plan) {
	s.t.Helper()
	text, err := os.ReadFile("../nginx.conf.example")
	if err != nil {
		s.t.Fatal(err)
	}
	conf := string(text)
	if p.printed {
		conf = strings.Replace(s.printedConf(), "server "+s.service+" max_conns=512;", exampleService, 1)
	}
	// Where nginx opens files, from where on links are looked for, and where it looks for files before.
	roots := 1 + strings.Count(conf, "disable_symlinks on from=/var/www/securefiles;") + strings.Count(conf, `if (!-f "/var/www/securefiles/`)
	if p.stored {
		roots = 0
	}
	for _, l := range []struct {
		literal, value string
		count          int
	}{{"127.0.0.1:8080", s.web, 1}, {exampleService, "server " + s.service + " max_conns=512;", 1}, {"/var/www/securefiles", s.root, roots}} {
		if n := strings.Count(conf, l.literal); n != l.count {
			s.t.Fatalf("nginx.conf.example holds %s %d times, not %d", l.literal, n, l.count)
		}
		conf = strings.ReplaceAll(conf, l.literal, l.value)
	}
	if p.edit != nil {
		conf = p.edit(s, conf)
	}
	s.write("nginx.conf", conf)
	for _, dir := range []string{"run", "logs"} {
		if err := os.MkdirAll(filepath.Join(s.dir, dir), 0o755); err != nil {
			s.t.Fatal(err)
		}
	}
	daemon := "daemon off;"
	if p.upgrades {
		daemon = "daemon on;"
	}
	program, err := exec.LookPath("nginx") // which starts itself again by this name
	if err != nil {
		s.t.Fatal(err)
	}
	cmd := s.command(program, "-p", s.dir, "-e", "logs/error.log", "-c", filepath.Join(s.dir, "nginx.conf"), "-g", daemon)
	cmd.Env = append(os.Environ(), s.preloaded...)
	var out bytes.Buffer
	cmd.Stderr = &out
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.nginx = cmd
	if !p.upgrades {
		s.t.Cleanup(func() { end(cmd) })
	} else {
		if err := cmd.Wait(); err != nil {
			s.t.Fatalf("nginx: %v: %s", err, out.String())
		}
		group := s.nginxMaster()
		s.t.Cleanup(func() { _ = syscall.Kill(-group, syscall.SIGKILL) }) // what it starts is of its group
	}
	s.eventually("nginx listens", func() bool {
		conn, err := net.Dial("tcp", s.web)
		if err != nil {
			if s.t.Failed() || cmd.ProcessState != nil {
				s.t.Fatalf("nginx: %s", out.String())
			}
			return false
		}
		return conn.Close() == nil
	})
	// It listens before it has handlers for signals: a SIGHUP would end it.
	master := cmd.Process.Pid
	if p.upgrades {
		master = s.nginxMaster()
	}
	s.eventually("nginx has workers", func() bool { return len(s.workersOf(master)) > 0 })
}

// workers are nginx's worker processes, those that are shutting down among them.
func (s *site) workers() map[int]worker {
	s.t.Helper()
	return s.workersOf(s.nginx.Process.Pid)
}

func (s *site) workersOf(pid int) map[int]worker {
	s.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", pid))
	if err != nil {
		s.t.Fatal(err)
	}
	all := map[int]worker{}
	for _, field := range strings.Fields(string(text)) {
		title, err := os.ReadFile("/proc/" + field + "/cmdline")
		info, statErr := os.Stat("/proc/" + field)
		if err != nil || statErr != nil || !bytes.HasPrefix(title, []byte("nginx: worker process")) {
			continue // it is not one yet, or not any more
		}
		all[must(strconv.Atoi(field))] = worker{
			unprivileged: info.Sys().(*syscall.Stat_t).Uid != 0,
			goes:         bytes.HasPrefix(title, []byte("nginx: worker process is shutting down")),
		}
	}
	return all
}

// A worker of nginx says of itself whether it is shutting down.
type worker struct{ unprivileged, goes bool }

// reloadNginx sends SIGHUP and waits until other workers are there, and those of before take
// no more requests. Some of these may stay until a connection that was never used ends.
func (s *site) reloadNginx() {
	s.t.Helper()
	before := s.workers()
	if err := s.nginx.Process.Signal(syscall.SIGHUP); err != nil {
		s.t.Fatal(err)
	}
	s.eventually("nginx has other workers", func() bool {
		others := 0
		for pid, w := range s.workers() {
			if _, old := before[pid]; !old {
				others++
			} else if !w.goes {
				return false
			}
		}
		return others > 0
	})
}

// nginxMaster is the process that nginx.pid names.
func (s *site) nginxMaster() (pid int) {
	s.t.Helper()
	s.eventually("nginx has its pid file", func() bool {
		text, err := os.ReadFile(filepath.Join(s.dir, "run/nginx.pid"))
		if err == nil {
			_, err = fmt.Sscan(string(text), &pid)
		}
		return err == nil
	})
	return pid
}

// printedConf is the whole nginx configuration for securefiles.yaml.
func (s *site) printedConf() string {
	s.t.Helper()
	out, err := s.command(binary, "nginx", "--complete", "--config", "securefiles.yaml").CombinedOutput()
	if err != nil {
		s.t.Fatalf("securefiles nginx: %v\n%s", err, out)
	}
	return string(out)
}

// eventually polls until a condition holds, or fails the test.
func (s *site) eventually(what string, holds func() bool) {
	s.t.Helper()
	deadline := time.Now().Add(patience)
	for !holds() {
		if time.Now().After(deadline) {
			s.t.Fatalf("it never came about that %s\n%s", what, tail(s.log.String()))
		}
		time.Sleep(5 * time.Millisecond) // between polls
	}
}

// logBuffer is what a process wrote so far.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// A reply is what came back.
type reply struct {
	status int
	header http.Header
	body   string
}

// client follows no redirect, decodes nothing, and reuses connections.
func newClient() *http.Client {
	return &http.Client{
		Timeout:       patience,
		Transport:     &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 64},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// get asks nginx for a path as a user; "" is nobody. The user's name is the
// password, unless it is `Bearer TOKEN`.
func (s *site) get(user, path string, edit ...func(*http.Request)) reply {
	s.t.Helper()
	r, err := s.try(newClient(), user, path, edit...)
	if err != nil {
		s.t.Fatalf("GET %s: %v", path, err)
	}
	return r
}

func (s *site) try(client *http.Client, user, path string, edit ...func(*http.Request)) (reply, error) {
	req, err := http.NewRequestWithContext(context.Background(), http.MethodGet, "http://"+s.web+path, nil)
	if err != nil {
		return reply{}, err
	}
	switch {
	case strings.HasPrefix(user, "Bearer "):
		req.Header.Set("Authorization", user)
	case user != "":
		req.SetBasicAuth(user, user)
	}
	for _, e := range edit {
		e(req)
	}
	return do(client, req)
}

func do(client *http.Client, req *http.Request) (reply, error) {
	resp, err := client.Do(req)
	if err != nil {
		return reply{}, err
	}
	body, err := io.ReadAll(resp.Body)
	if err := errors.Join(err, resp.Body.Close()); err != nil {
		return reply{}, err
	}
	return reply{resp.StatusCode, resp.Header, string(body)}, nil
}

func with(name, value string) func(*http.Request) {
	return func(r *http.Request) { r.Header.Set(name, value) }
}

// adminGet asks the admin listener; a status of 0 means that it did not answer.
func (s *site) adminGet(path string) (int, string) {
	req, err := http.NewRequest(http.MethodGet, "http://"+s.admin+path, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	req.Close = true // tests poll
	r, err := do(newClient(), req)
	if err != nil {
		return 0, ""
	}
	return r.status, r.body
}

// metric returns the value of a series, as Prometheus writes it.
func (s *site) metric(series string) string {
	s.t.Helper()
	_, body := s.adminGet("/metrics")
	for line := range strings.Lines(body) {
		if value, ok := strings.CutPrefix(line, series+" "); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// raw sends bytes to an address and reads one response. Nothing else touches
// the bytes on their way.
func raw(address, method string, request []byte) (*reply, error) {
	conn, err := net.DialTimeout("tcp", address, patience)
	if err != nil {
		return nil, err
	}
	defer conn.Close() // one request a connection
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return nil, err
	}
	if _, err := conn.Write(request); err != nil {
		return nil, err
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: method})
	if err != nil {
		return nil, err
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err := errors.Join(err, resp.Body.Close()); err != nil {
		return nil, err
	}
	return &reply{resp.StatusCode, resp.Header, string(body)}, nil
}

func (s *site) status(user, path string, want int, edit ...func(*http.Request)) reply {
	s.t.Helper()
	r := s.get(user, path, edit...)
	if r.status != want {
		s.t.Errorf("%s as %q: status %d, want %d", path, user, r.status, want)
	}
	if want >= 400 && strings.Contains(r.body, "CANARY") {
		s.t.Errorf("%s as %q: a refusal carries a file: %q", path, user, r.body)
	}
	return r
}
