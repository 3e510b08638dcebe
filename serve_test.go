package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/KimMachineGun/automemlimit/memlimit"
	"golang.org/x/sys/unix"

	"securefiles/authz"
	"securefiles/internal/config"
	"securefiles/internal/frontend"
	"securefiles/internal/identity"
	"securefiles/internal/metrics"
)

func testCounters() *metrics.Metrics {
	return metrics.New("", "", nil, nil, func() metrics.Policy { return metrics.Policy{} })
}

// S1: the listener for nginx answers one route; nothing else is there, by any
// method or user agent. S28: GHSA-5hvv-m4w4-gf6v (a health check's user agent was
// let in everywhere), CVE-2022-24797 (metrics on the public listener).
func TestDecisionListenerHasOneRoute(t *testing.T) {
	asked := 0
	routes := guardRoutes(t, func() { asked++ }, &frontend.Options{})
	for _, row := range []struct {
		method, target string
		status         int
	}{
		{"GET", "/", 404},
		{"GET", "/metrics", 404},
		{"GET", "/healthz", 404},
		{"GET", "/readyz", 404},
		{"GET", "/ping", 404},
		{"GET", "/version", 404},
		{"GET", "/debug/pprof/", 404},
		{"GET", "/authorize/", 404},
		{"GET", "//authorize", 404},
		{"GET", "/authorize/../metrics", 404},
		{"GET", "/Authorize", 404},
		{"POST", "/authorize", 405},
		{"HEAD", "/authorize", 405},
		{"PUT", "/authorize", 405},
		{"OPTIONS", "/authorize", 405},
		{"GET", "/authorize", 204},
		{"GET", "/authorize?x=y", 204},
	} {
		for _, agent := range []string{"", "kube-probe/1.31", "GoogleHC/1.0", "ELB-HealthChecker/2.0"} {
			before := asked
			r := httptest.NewRequest(row.method, row.target, nil)
			r.Header.Set("User-Agent", agent)
			r.Header.Set("X-Original-URI", "/downloads/a")
			r.Header.Set("X-Original-Method", "GET")
			w := httptest.NewRecorder()
			routes.ServeHTTP(w, r)
			if w.Code != row.status || w.Body.Len() != 0 || (asked > before) != (row.status == 204) {
				t.Errorf("%s %s as %q: status %d, want %d; body %q", row.method, row.target, agent, w.Code, row.status, w.Body)
			}
		}
	}
}

// guardRoutes is what nginx reaches, over a guard that lets everybody have
// everything and tells when it is asked.
func guardRoutes(t *testing.T, asked func(), opts *frontend.Options) http.Handler {
	t.Helper()
	downloads, err := guardedDownloads(config.Default().Downloads)
	if err != nil {
		t.Fatal(err)
	}
	return testRoutes(t, downloads, identity.Chain{}, everything(asked), testCounters(), opts)
}

type everything func()

func (e everything) Decide(context.Context, authz.Query) (authz.Decision, error) {
	e()
	return authz.Decision{Effect: authz.Allow, Generation: 1, File: "policy.csv", Line: 1}, nil
}

func TestOnlyTheProxySecretOpensTheListener(t *testing.T) {
	text := strings.Repeat("s", 32)
	secret, err := newSecret(t.Context(), "proxy secret", "", "SECRET", []string{"SECRET=" + text})
	if err != nil {
		t.Fatal(err)
	}
	routes := guardRoutes(t, func() {}, &frontend.Options{Secret: secret.Is})
	for _, row := range []struct {
		name   string
		values []string
		status int
	}{
		{"none", nil, 403},
		{"empty", []string{""}, 403},
		{"wrong", []string{strings.Repeat("t", 32)}, 403},
		{"a prefix", []string{text[:31]}, 403},
		{"one byte more", []string{text + "s"}, 403},
		{"twice", []string{text, text}, 403},
		{"right", []string{text}, 204},
	} {
		r := httptest.NewRequest(http.MethodGet, "/authorize", nil)
		r.Header.Set("X-Original-URI", "/downloads/a")
		r.Header.Set("X-Original-Method", "GET")
		if row.values != nil {
			r.Header["X-Securefiles-Proxy-Secret"] = row.values
		}
		w := httptest.NewRecorder()
		routes.ServeHTTP(w, r)
		if w.Code != row.status {
			t.Errorf("%s: status %d, want %d", row.name, w.Code, row.status)
		}
	}
}

func TestProxySecretIsReadFromFileOrEnvironment(t *testing.T) {
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, []byte(strings.Repeat("f", 32)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := unix.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	fromFile := &config.Config{ProxySecretFile: file}
	for _, row := range []struct {
		name    string
		c       *config.Config
		environ []string
		want    string
		refused bool
	}{
		{"none configured", &config.Config{}, nil, "", false},
		{"file", fromFile, nil, strings.Repeat("f", 32), false},
		{"environment wins", fromFile, []string{"SECUREFILES_PROXY_SECRET=" + strings.Repeat("e", 40)}, strings.Repeat("e", 40), false},
		{"too short", &config.Config{}, []string{"SECUREFILES_PROXY_SECRET=short"}, "", true},
		{"empty in the environment", &config.Config{}, []string{"SECUREFILES_PROXY_SECRET="}, "", true},
		{"file is gone", &config.Config{ProxySecretFile: file + ".none"}, nil, "", true},
		{"a pipe", &config.Config{ProxySecretFile: pipe}, nil, "", true},
	} {
		got, err := newSecret(t.Context(), "proxy secret", row.c.ProxySecretFile, config.ProxySecretVariable, row.environ)
		if (err != nil) != row.refused || (got != nil) != (row.want != "") || got != nil && (!got.Is(row.want) || got.Is(row.want+"x") || got.Is("")) {
			t.Errorf("%s: got %v, %v", row.name, got, err)
		}
	}
}

// After a change that cannot be read, the last secret stays.
func TestSecretOutlivesAFileThatCannotBeRead(t *testing.T) {
	file := filepath.Join(t.TempDir(), "secret")
	one, two := strings.Repeat("1", 32), strings.Repeat("2", 32)
	writeFile(t, file, one)
	s, err := newSecret(t.Context(), "proxy secret", file, "SECRET", nil)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, file, "short")
	if err := s.Reload(t.Context()); err == nil || !s.Is(one) || s.Is("short") {
		t.Errorf("a short one: %v", err)
	}
	if err := errors.Join(syscall.Mkfifo(file+".pipe", 0o600), os.Rename(file+".pipe", file)); err != nil {
		t.Fatal(err)
	}
	if err := s.Reload(t.Context()); err == nil || !strings.Contains(err.Error(), "not a regular file") || !s.Is(one) {
		t.Errorf("a pipe: %v", err)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	writeFile(t, file, two)
	if err := s.Reload(t.Context()); err != nil || s.Is(one) || !s.Is(two) {
		t.Errorf("another one: %v", err)
	}
}

// Every file that a configuration can name is in the list that SIGHUP and the
// watcher walk.
func TestEveryFileIsLoadedAgain(t *testing.T) {
	dir := t.TempDir()
	model, err := os.ReadFile("examples/starter/model.conf")
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewTLSServer(nil)
	defer server.Close()
	var want []string
	for name, text := range map[string]string{
		"policy.csv": "p, alice, /a, read, allow\n", "model.conf": string(model), "users": bobsHash,
		"keys":  `{"keys":[{"kty":"oct","k":"` + strings.Repeat("A", 43) + `"}]}`,
		"ca":    string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})),
		"token": testToken, "secret": testToken,
	} {
		want = append(want, writeFile(t, filepath.Join(dir, name), text))
	}
	file := writeFile(t, filepath.Join(dir, "securefiles.yaml"), `policy: {file: policy.csv, model: model.conf}
proxy_secret_file: secret
admin_token_file: token
identity:
  - htpasswd: users
  - jwt: {issuer: here, audience: [downloads], jwks_file: keys, algorithms: [HS256]}
  - session: {url: "https://127.0.0.1/", cookies: [id], ca_file: ca}
`)
	c, err := config.Load(file, nil)
	if err != nil {
		t.Fatal(err)
	}
	p, err := open(t.Context(), c, nil, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, row := range (&service{parts: p}).reloaders() {
		got = append(got, row.Files...)
		if row.Reload == nil {
			t.Errorf("%s cannot be loaded again", row.Name)
		}
	}
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if n := filesOf(reflect.TypeFor[config.Config]()); n != len(want) {
		t.Errorf("the configuration names %d files, and %d are in this test: add what is new", n, len(want))
	}
}

// filesOf counts the keys of a configuration that name files.
func filesOf(t reflect.Type) (n int) {
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct {
		return 0
	}
	for i := range t.NumField() {
		f := t.Field(i)
		if f.Tag.Get("path") == "file" {
			n++
		}
		if name, ok := f.Tag.Lookup("yaml"); ok && name != "-" {
			n += filesOf(f.Type)
		}
	}
	return n
}

// S12: more requests than may be served at once are turned away, not queued.
func TestCrowdIsTurnedAway(t *testing.T) {
	release, entered := make(chan struct{}), make(chan struct{}, maxConcurrent)
	routes := guardRoutes(t, func() { entered <- struct{}{}; <-release }, &frontend.Options{MaxConcurrent: maxConcurrent})
	ask := func() *httptest.ResponseRecorder {
		r := httptest.NewRequest(http.MethodGet, "/authorize", nil)
		r.Header.Set("X-Original-URI", "/downloads/a")
		r.Header.Set("X-Original-Method", "GET")
		w := httptest.NewRecorder()
		routes.ServeHTTP(w, r)
		return w
	}
	done := make(chan struct{}, maxConcurrent)
	for range maxConcurrent {
		go func() {
			ask()
			done <- struct{}{}
		}()
	}
	for range maxConcurrent {
		<-entered
	}
	w := ask()
	if w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") == "" {
		t.Errorf("status %d, headers %v", w.Code, w.Header())
	}
	close(release)
	for range maxConcurrent {
		<-done
	}
}

// S12, S26, S28 (CVE-2026-56853): header bytes are bounded, and cleartext HTTP/2 is not spoken.
func TestServerBoundsWhatAClientSends(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := newServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}), slog.New(slog.DiscardHandler))
	if server.ReadHeaderTimeout <= 0 || server.ReadTimeout <= 0 || server.WriteTimeout <= 0 || server.IdleTimeout <= time.Minute {
		t.Errorf("timeouts are %v %v %v %v", server.ReadHeaderTimeout, server.ReadTimeout, server.WriteTimeout, server.IdleTimeout)
	}
	go func() { _ = serve(server, l) }()
	defer server.Close() //nolint:errcheck // the test is over
	say := func(text string) string {
		conn, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close() //nolint:errcheck // the answer has been read
		if _, err := io.WriteString(conn, text); err != nil {
			return ""
		}
		answer := make([]byte, 64)
		n, _ := io.ReadAtLeast(conn, answer, 12) // a short answer is compared below
		return string(answer[:n])
	}
	request := "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nCookie: "
	if got := say(request + strings.Repeat("c", maxHeaderBytes/2) + "\r\n\r\n"); !strings.HasPrefix(got, "HTTP/1.1 200") {
		t.Errorf("half the limit: %q", got)
	}
	if got := say(request + strings.Repeat("c", maxHeaderBytes+8192) + "\r\n\r\n"); strings.Contains(got, "200") {
		t.Errorf("over the limit: %q", got)
	}
	if got := say("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"); strings.HasPrefix(got, "\x00\x00") {
		t.Errorf("HTTP/2 was answered: %q", got)
	}
}

func TestUnixSocketIsForOwnerAndGroup(t *testing.T) {
	path := filepath.Join(t.TempDir(), "auth.sock")
	l, err := listen(config.UnixPrefix + path)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != socketMode {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if _, err := listen(config.UnixPrefix + path); err == nil || !strings.Contains(err.Error(), "another process") {
		t.Errorf("a socket in use was taken: %v", err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false) // as after SIGKILL
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l, err = listen(config.UnixPrefix + path)
	if err != nil {
		t.Fatalf("a stale socket was not replaced: %v", err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestFileInTheSocketsPlaceIsNotRemoved(t *testing.T) {
	path := filepath.Join(t.TempDir(), "precious")
	if err := os.WriteFile(path, []byte("data"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := listen(config.UnixPrefix + path); err == nil {
		t.Error("listened in a file's place")
	}
	if text, err := os.ReadFile(path); err != nil || string(text) != "data" {
		t.Errorf("the file is now %q, %v", text, err)
	}
}

func TestOnlyListedPeersConnect(t *testing.T) {
	for _, row := range []struct {
		name string
		uid  int
		want string
	}{
		{"the test's own user", os.Getuid(), "hello"},
		{"somebody else", os.Getuid() + 1, ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "auth.sock")
			inner, err := listen(config.UnixPrefix + path)
			if err != nil {
				t.Fatal(err)
			}
			l := &peerListener{Listener: inner, uids: []int{row.uid}}
			go func() {
				for {
					conn, err := l.Accept()
					if err != nil {
						return
					}
					_, _ = io.WriteString(conn, "hello") // read below
					_ = conn.Close()
				}
			}()
			conn, err := net.Dial("unix", path)
			if err != nil {
				t.Fatal(err)
			}
			got, _ := io.ReadAll(conn) // a reset reads as nothing
			if string(got) != row.want {
				t.Errorf("read %q, want %q", got, row.want)
			}
			if err := l.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestLoggerHonoursFormatAndLevel(t *testing.T) {
	var buf bytes.Buffer
	newLogger(&buf, config.Log{Format: "json", Level: "warn"}).Info("hidden")
	newLogger(&buf, config.Log{Format: "json", Level: "warn"}).Warn("shown")
	newLogger(&buf, config.Log{Format: "text", Level: "info"}).Info("text")
	if got := buf.String(); strings.Contains(got, "hidden") || !strings.Contains(got, `"msg":"shown"`) || !strings.Contains(got, "msg=text") {
		t.Errorf("logged %s", got)
	}
}

// A socket whose listener is too busy to answer is not taken from it.
func TestBusySocketIsNotStale(t *testing.T) {
	path := filepath.Join(t.TempDir(), "auth.sock")
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd) //nolint:errcheck // temporary
	if err := errors.Join(unix.Bind(fd, &unix.SockaddrUnix{Name: path}), unix.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	for { // fill its queue
		conn, err := net.DialTimeout("unix", path, 100*time.Millisecond)
		if err != nil {
			break
		}
		defer conn.Close() //nolint:errcheck // temporary
	}
	if err := removeStale(path); err == nil || !strings.Contains(err.Error(), "may be listening") {
		t.Errorf("got %v", err)
	}
	if _, err := os.Lstat(path); err != nil {
		t.Error(err)
	}
}

// Where no cgroup limits memory, nobody is alarmed; a limit is heeded and told
// of; a setting that means nothing is told of.
func TestMemoryLimit(t *testing.T) {
	const none = math.MaxInt64
	for name, row := range map[string]struct {
		setting  string // AUTOMEMLIMIT
		found    uint64
		err      error
		limit    int64
		level    string // of what is logged
		contains string
	}{
		"no cgroup":              {err: memlimit.ErrNoCgroup, limit: none, level: "DEBUG", contains: "process is not in cgroup"},
		"no memory cgroup":       {err: errors.New("no usable cgroup v2 memory mount found"), limit: none, level: "DEBUG", contains: "no usable cgroup"},
		"cgroup without a limit": {err: memlimit.ErrNoLimit, limit: none},
		"a limit":                {found: 1e9, limit: 9e8, level: "INFO", contains: "GOMEMLIMIT=900000000"},
		"half of it":             {setting: "0.5", found: 1 << 30, limit: 1 << 29, level: "INFO", contains: "GOMEMLIMIT=536870912"},
		"switched off":           {setting: "off", found: 1 << 30, limit: none},
		"nonsense":               {setting: "half", found: 1 << 30, limit: none, level: "WARN", contains: "AUTOMEMLIMIT: half"},
		"more than all":          {setting: "90", found: 1 << 30, limit: none, level: "WARN", contains: "invalid ratio: 90"},
	} {
		t.Run(name, func(t *testing.T) {
			before := debug.SetMemoryLimit(none)
			defer debug.SetMemoryLimit(before)
			t.Setenv("GOMEMLIMIT", "") // to be restored
			if err := os.Unsetenv("GOMEMLIMIT"); err != nil {
				t.Fatal(err)
			}
			t.Setenv("AUTOMEMLIMIT", cmp.Or(row.setting, "0.9"))
			var logged bytes.Buffer
			limitMemory(slog.New(slog.NewTextHandler(&logged, &slog.HandlerOptions{Level: slog.LevelDebug})), func() (uint64, error) { return row.found, row.err })
			if got := debug.SetMemoryLimit(-1); got != row.limit {
				t.Errorf("the limit is %d, want %d", got, row.limit)
			}
			if log := logged.String(); row.level == "" && log != "" || !strings.Contains(log, row.contains) || strings.Count(log, "level=") != strings.Count(log, "level="+row.level) {
				t.Errorf("logged %s", log)
			}
		})
	}
}
