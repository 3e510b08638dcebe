// Package postgrestest runs a PostgreSQL server for a test: Debian's, in a temporary
// directory, on a free port, as a user that is not root.
package postgrestest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"securefiles/internal/freeport"
)

// A Server is a PostgreSQL server with one superuser, postgres, who needs a password.
type Server struct {
	t         *testing.T
	bin, dir  string
	port      string
	attr      *syscall.SysProcAttr
	cmd       *exec.Cmd
	log       safeBuffer
	ended     chan struct{}
	passwords string
	env       []string
}

type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *safeBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *safeBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

const password = "planted-password-of-postgres"

// Start makes a server and starts it; it ends with the test. Its environment has more than
// the test's.
func Start(t *testing.T, env ...string) *Server {
	t.Helper()
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if err != nil || len(found) == 0 {
		t.Fatalf("PostgreSQL is needed: scripts/install.sh postgresql: %v", err)
	}
	slices.Sort(found)
	s := &Server{t: t, bin: filepath.Dir(found[len(found)-1]), env: env}
	if s.dir, err = os.MkdirTemp("", "postgres-"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Kill(); os.RemoveAll(s.dir) })
	if os.Geteuid() == 0 { // which it refuses
		uid, gid, err := other()
		if err == nil {
			err = os.Chown(s.dir, uid, gid)
		}
		if err != nil {
			t.Fatal(err)
		}
		s.attr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
	}
	s.passwords = filepath.Join(s.dir, "password")
	if err := os.WriteFile(s.passwords, []byte(password+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	init := exec.Command(filepath.Join(s.bin, "initdb"), "-D", filepath.Join(s.dir, "data"), "-U", "postgres", "-A", "scram-sha-256",
		"--pwfile", s.passwords, "-E", "UTF8", "--locale", "C", "--no-sync")
	init.SysProcAttr, init.Dir = s.attr, s.dir
	if out, err := init.CombinedOutput(); err != nil {
		t.Fatalf("initdb: %v\n%s", err, out)
	}
	s.port = fmt.Sprint(freeport.Port(t))
	s.Start()
	return s
}

// other is a user that is not root.
func other() (uid, gid int, err error) {
	u, err := user.Lookup("postgres")
	if err != nil {
		u, err = user.Lookup("nobody")
	}
	if err == nil {
		uid, err = strconv.Atoi(u.Uid)
	}
	if err == nil {
		gid, err = strconv.Atoi(u.Gid)
	}
	return uid, gid, err
}

// URL is where a user of the server connects, with its password.
func (s *Server) URL() string {
	u := url.URL{Scheme: "postgres", User: url.UserPassword("postgres", password), Host: net.JoinHostPort("127.0.0.1", s.port), Path: "/postgres"}
	return u.String()
}

// Start starts the server that is not running.
func (s *Server) Start() {
	s.t.Helper()
	// What is left of one that was killed ends by itself, and holds the directory until then.
	for deadline := time.Now().Add(30 * time.Second); ; {
		s.cmd = exec.Command(filepath.Join(s.bin, "postgres"), "-D", filepath.Join(s.dir, "data"), "-p", s.port, "-k", s.dir,
			"-c", "listen_addresses=127.0.0.1", "-c", "fsync=off")
		s.cmd.Env = append(os.Environ(), s.env...)
		s.cmd.SysProcAttr, s.cmd.Dir, s.cmd.Stdout, s.cmd.Stderr = s.attr, s.dir, &s.log, &s.log
		if err := s.cmd.Start(); err != nil {
			s.t.Fatal(err)
		}
		ended := make(chan struct{})
		s.ended = ended
		go func(cmd *exec.Cmd) { cmd.Wait(); close(ended) }(s.cmd)
		for running := true; running; {
			if s.ready() == nil {
				return
			}
			select {
			case <-ended:
				running = false
			case <-time.After(20 * time.Millisecond):
			}
			if time.Now().After(deadline) {
				s.t.Fatalf("PostgreSQL does not start:\n%s", s.log.String())
			}
		}
	}
}

func (s *Server) ready() error {
	_, err := s.query("SELECT 1")
	return err
}

// Query runs SQL by psql and returns what it prints: rows by lines, columns by `|`.
func (s *Server) Query(sql string) string {
	s.t.Helper()
	out, err := s.query(sql)
	if err != nil {
		s.t.Fatal(err)
	}
	return out
}

func (s *Server) query(sql string) (string, error) {
	ctx, cancel := context.WithTimeout(s.t.Context(), 30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(s.bin, "psql"), "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", s.URL())
	cmd.Stdin = bytes.NewReader([]byte(sql))
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", errors.Join(fmt.Errorf("%s: %w", sql, err), errors.New(stderr.String()))
	}
	return string(bytes.TrimSpace(out)), nil
}

// Kill ends the server as a crash does.
func (s *Server) Kill() {
	if s.cmd != nil {
		s.cmd.Process.Kill()
		<-s.ended
		s.cmd = nil
	}
}

// Freeze stops the server, and all that serves its connections, as a machine does that
// hangs; or has them go on.
func (s *Server) Freeze(frozen bool) {
	s.t.Helper()
	sig := syscall.SIGCONT
	if frozen {
		sig = syscall.SIGSTOP
	}
	if err := s.cmd.Process.Signal(sig); err != nil {
		s.t.Fatal(err)
	}
	pid := s.cmd.Process.Pid
	children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if err != nil {
		s.t.Fatal(err)
	}
	for _, child := range bytes.Fields(children) {
		if pid, err = strconv.Atoi(string(child)); err == nil {
			_ = syscall.Kill(pid, sig) // a connection may have ended
		}
	}
}
