package server

import (
	"bytes"
	"cmp"
	"errors"
	"io"
	"log/slog"
	"math"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"testing"
	"time"

	"github.com/KimMachineGun/automemlimit/memlimit"
	"golang.org/x/sys/unix"
)

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
	if got := say(request + strings.Repeat("c", MaxHeaderBytes/2) + "\r\n\r\n"); !strings.HasPrefix(got, "HTTP/1.1 200") {
		t.Errorf("half the limit: %q", got)
	}
	if got := say(request + strings.Repeat("c", MaxHeaderBytes+8192) + "\r\n\r\n"); strings.Contains(got, "200") {
		t.Errorf("over the limit: %q", got)
	}
	if got := say("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"); strings.HasPrefix(got, "\x00\x00") {
		t.Errorf("HTTP/2 was answered: %q", got)
	}
}

// net/http answers OPTIONS * by itself, past whoever asks for a secret.
func TestOptionsAsteriskIsTheHandlersToAnswer(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := newServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) }), slog.New(slog.DiscardHandler))
	go func() { _ = serve(server, l) }()
	defer server.Close() //nolint:errcheck // the test is over
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close() //nolint:errcheck // the answer has been read
	if _, err := io.WriteString(conn, "OPTIONS * HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	answer, err := io.ReadAll(conn)
	if err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 403") {
		t.Errorf("got %q, %v", answer, err)
	}
}

func TestUnixSocketIsForOwnerAndGroup(t *testing.T) {
	path := filepath.Join(t.TempDir(), "auth.sock")
	l, err := listen(Address{"unix", path})
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != socketMode {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if _, err := listen(Address{"unix", path}); err == nil || !strings.Contains(err.Error(), "another process") {
		t.Errorf("a socket in use was taken: %v", err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false) // as after SIGKILL
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l, err = listen(Address{"unix", path})
	if err != nil {
		t.Fatalf("a stale socket was not replaced: %v", err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestASocketWithoutADirectoryIsToldHowToGetOne(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "run")
	_, err := listen(Address{"unix", filepath.Join(dir, "auth.sock")})
	if want := "there is no directory " + dir + ": make it as root"; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestFileInTheSocketsPlaceIsNotRemoved(t *testing.T) {
	path := filepath.Join(t.TempDir(), "precious")
	if err := os.WriteFile(path, []byte("data"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := listen(Address{"unix", path}); err == nil {
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
			inner, err := listen(Address{"unix", path})
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

// In a container of 64 MiB the ballast would be half of what there is.
func TestTheBallastLeavesRoomUnderAMemoryLimit(t *testing.T) {
	for limit, want := range map[int64]int64{math.MaxInt64: 32 << 20, 1 << 30: 32 << 20, 64 << 20: 8 << 20, 1 << 20: 128 << 10} {
		if got := ballastWithin(limit); got != want {
			t.Errorf("%d beside a limit of %d, want %d", got, limit, want)
		}
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
