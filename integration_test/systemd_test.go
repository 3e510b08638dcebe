package integration_test

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"securefiles/internal/freeport"
)

// The service takes the sockets that systemd holds for it, by their names, and
// tells how it fares; while it restarts, questions wait in the socket's queue
// and no download fails.
func TestSystemdSocketsAndNotification(t *testing.T) {
	t.Parallel()
	listen := func(network, address string) *os.File {
		t.Helper()
		l, err := net.Listen(network, address)
		if err != nil {
			t.Fatal(err)
		}
		if u, ok := l.(*net.UnixListener); ok {
			u.SetUnlinkOnClose(false)
		}
		f, err := l.(interface{ File() (*os.File, error) }).File()
		if err != nil {
			t.Fatal(err)
		}
		if err := l.Close(); err != nil { // f keeps it open
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = f.Close() }) // the test is over
		return f
	}
	dir := publicDir(t)
	socket := filepath.Join(dir, "auth.sock")
	passed := listen("unix", socket)
	if err := os.Chmod(socket, 0o666); err != nil { // as root, nginx's workers run as another user
		t.Fatal(err)
	}
	admin := freeport.Address(t)
	passedAdmin := listen("tcp", admin)
	messages, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dir, "notify.sock"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = messages.Close() }) // the test is over
	told := make(chan string, 100)
	go func() {
		buf := make([]byte, 4096)
		for {
			n, err := messages.Read(buf)
			if err != nil {
				close(told)
				return
			}
			told <- string(buf[:n])
		}
	}()

	// nginx asks the socket; the configured addresses are others, and unused.
	s := start(t, plan{policy: alicesPolicy, upstream: "unix:" + socket})
	s.edit("securefiles.yaml", "listen: unix:"+socket, "listen: "+freeport.Address(t))
	s.edit("securefiles.yaml", "admin: "+s.admin, "admin: "+freeport.Address(t))
	s.admin = admin
	serve := func() *exec.Cmd {
		t.Helper()
		// systemd sets LISTEN_PID to the service's own.
		cmd := s.command("bash", "-c", `LISTEN_PID=$$ exec "$0" serve --config securefiles.yaml`, binary)
		cmd.Env = append(os.Environ(), "LISTEN_FDS=2", "LISTEN_FDNAMES=nginx:admin", "NOTIFY_SOCKET="+filepath.Join(dir, "notify.sock"))
		cmd.ExtraFiles = []*os.File{passed, passedAdmin}
		cmd.Stderr = s.log
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { end(cmd) })
		return cmd
	}
	hear := func(want string) {
		t.Helper()
		s.eventually("systemd is told "+want, func() bool {
			select {
			case m := <-told:
				return strings.Contains(m, want)
			default:
				return false
			}
		})
	}
	service := serve()
	hear("READY=1")
	s.status("alice", "/downloads/project/plan.txt", 200)
	s.status("bob", "/downloads/project/plan.txt", 404)
	if code, body := s.adminGet("/readyz"); code != 200 {
		t.Errorf("the admin socket: %d %s", code, body)
	}
	if err := service.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	hear("RELOADING=1")
	hear("READY=1")

	clients := s.load(
		loadRequest{"alice", "/downloads/project/plan.txt", []int{200}, "0123456789\n"},
		loadRequest{"bob", "/downloads/project/plan.txt", []int{404}, "0123456789\n"},
	)
	for range 2 {
		clients.goOn(s, 30)
		if err := service.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		hear("STOPPING=1")
		if err := service.Wait(); err != nil {
			t.Errorf("it ended with %v", err)
		}
		service = serve()
		hear("READY=1")
	}
	clients.goOn(s, 30)
	clients.end(t)
	if _, err := os.Stat(socket); err != nil {
		t.Errorf("the socket is gone: %v", err)
	}
}
