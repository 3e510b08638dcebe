package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"io"
	"log/slog"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
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
	writeFile(t, file, two)
	if err := s.Reload(t.Context()); err != nil || s.Is(one) || !s.Is(two) {
		t.Errorf("another one: %v", err)
	}
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
