package server

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// What systemd passes follows the rules of what is configured: it may be a port on
// every address, two sockets for one purpose, or one that does not know its peers.
func TestSocketsThatSystemdPassesFollowTheRulesOfListen(t *testing.T) {
	open := func(network, address string) net.Listener {
		t.Helper()
		l, err := net.Listen(network, address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = l.Close() }) // it may be closed already
		return l
	}
	socket := func(name string) net.Listener { return open("unix", filepath.Join(t.TempDir(), name)) }
	loopback := func() net.Listener { return open("tcp", "127.0.0.1:0") }
	everywhere := func() net.Listener { return open("tcp", "0.0.0.0:0") }
	for _, row := range []struct {
		name    string
		passed  map[string][]net.Listener
		options Options
		wrong   string
	}{
		{"a socket for nginx, without a name", map[string][]net.Listener{"LISTEN_FD_3": {socket("a")}}, Options{}, ""},
		{"two of different purposes", map[string][]net.Listener{"nginx": {socket("a")}, "admin": {socket("b")}}, Options{}, ""},
		{"a port of loopback", map[string][]net.Listener{"nginx": {loopback()}}, Options{}, ""},
		{"peers of a socket", map[string][]net.Listener{"nginx": {socket("a")}}, Options{PeerUIDs: []int{33}}, ""},
		{"a socket without a file", map[string][]net.Listener{"nginx": {open("unix", fmt.Sprintf("@securefiles-test-%d", os.Getpid()))}}, Options{PeerUIDs: []int{33}}, "a socket without a file"},
		{"a port on every address", map[string][]net.Listener{"nginx": {everywhere()}}, Options{}, "which other hosts reach and the service would trust as it trusts nginx"},
		{"the same, insecurely", map[string][]net.Listener{"nginx": {everywhere()}}, Options{ListenInsecure: true}, ""},
		{"metrics on every address", map[string][]net.Listener{"admin": {everywhere()}}, Options{}, "for metrics and health, which other hosts reach"},
		{"metrics on every address, which is said of nginx's", map[string][]net.Listener{"admin": {everywhere()}}, Options{ListenInsecure: true}, "set admin_insecure"},
		{"the same, insecurely for metrics", map[string][]net.Listener{"admin": {everywhere()}}, Options{AdminInsecure: true}, ""},
		{"two for nginx by one name", map[string][]net.Listener{"nginx": {socket("a"), socket("b")}}, Options{}, "systemd passes two sockets for nginx"},
		{"two for nginx by two names", map[string][]net.Listener{"nginx": {socket("a")}, "other": {loopback()}}, Options{}, "systemd passes two sockets for nginx"},
		{"two for metrics", map[string][]net.Listener{"admin": {socket("a"), socket("b")}}, Options{}, "systemd passes two sockets for metrics and health"},
		{"peers of a port", map[string][]net.Listener{"nginx": {loopback()}}, Options{PeerUIDs: []int{33}}, "does not know its peer's user"},
	} {
		t.Run(row.name, func(t *testing.T) {
			row.options.Listen = Address{"unix", filepath.Join(t.TempDir(), "listen.sock")}
			row.options.Admin = Address{"unix", filepath.Join(t.TempDir(), "admin.sock")}
			nginx, admin, err := takeListeners(&row.options, row.passed)
			if row.wrong != "" {
				if err == nil || !strings.Contains(err.Error(), row.wrong) || nginx != nil || admin != nil {
					t.Fatalf("got %v, %v, %v, want %s", nginx, admin, err, row.wrong)
				}
				for _, list := range row.passed { // nobody may wait in the queue of one that is not served
					for _, l := range list {
						if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
							t.Errorf("%s is open", l.Addr())
						}
					}
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			_, _ = nginx.Close(), admin.Close() // they were not used
		})
	}
}

// Whoever takes the service's port while it is down is believed, so the log says so
// of a port, and of the network even if answers are proved.
func TestAListenerThatOthersMayTakeIsWarnedOf(t *testing.T) {
	for _, row := range []struct{ network, address, want string }{
		{"unix", filepath.Join(t.TempDir(), "s"), ""},
		{"tcp", "127.0.0.1:0", "which any user of this machine may take while the service is down"},
		{"tcp", "0.0.0.0:0", "over the network, in clear text"},
	} {
		l, err := net.Listen(row.network, row.address)
		if err != nil {
			t.Fatal(err)
		}
		var log bytes.Buffer
		warnOfListener(l, slog.New(slog.NewTextHandler(&log, nil)))
		if got := log.String(); (got == "") != (row.want == "") || !strings.Contains(got, row.want) {
			t.Errorf("%s: the log says %q", row.address, got)
		}
		_ = l.Close() // it was not used
	}
}

// systemd's sockets are for everybody, unless SocketMode= is set.
func TestASocketThatOthersMayAskIsWarnedOf(t *testing.T) {
	for _, row := range []struct {
		name string
		mode os.FileMode
		uids []int
		want bool
	}{{"as configured", 0o660, nil, false}, {"for everybody", 0o666, nil, true}, {"for everybody, of whom some are let in", 0o666, []int{33}, false}} {
		path := filepath.Join(t.TempDir(), "s")
		l, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, row.mode); err != nil {
			t.Fatal(err)
		}
		nginx, admin, err := takeListeners(&Options{PeerUIDs: row.uids, Admin: Address{"unix", path + ".admin"}}, map[string][]net.Listener{"nginx": {l}})
		if err != nil {
			t.Fatal(err)
		}
		var log bytes.Buffer
		warnOfAskers(nginx, slog.New(slog.NewTextHandler(&log, nil)))
		if got := log.String(); strings.Contains(got, "SocketMode=0660") != row.want || (got != "") != row.want {
			t.Errorf("%s: the log says %q", row.name, got)
		}
		_, _ = nginx.Close(), admin.Close() // they were not used
	}
}

// Who starts a second service, or has another program on 8080, is told what to write.
func TestAPortThatIsTakenIsToldWithWhatToWrite(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() //nolint:errcheck // it is not used
	there, free := Address{"tcp", l.Addr().String()}, Address{"tcp", "127.0.0.1:0"}
	for want, opts := range map[string]*Options{
		"listen for nginx: .* name another port with `listen`$":             {Listen: there, Admin: free},
		"listen for clients: .* name another port with --listen HOST:PORT$": {Listen: there, Admin: free, Direct: true},
		"listen for metrics and health: .* name another port with `admin`$": {Listen: free, Admin: there},
	} {
		if _, _, err := takeListeners(opts, nil); err == nil || !regexp.MustCompile(want).MatchString(err.Error()) {
			t.Errorf("%v, not %s", err, want)
		}
	}
}
