package integration_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"securefiles/internal/audit"
)

// records reads the records of a file of the site; torn counts the lines that are
// none.
func (s *site) records(name string) (all []*audit.Record, torn int) {
	s.t.Helper()
	text, err := os.ReadFile(filepath.Join(s.dir, name))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		s.t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		r, err := audit.Parse([]byte(line))
		if err != nil || !strings.HasSuffix(line, "\n") {
			torn++
			continue
		}
		all = append(all, r)
	}
	return all, torn
}

// mounted puts a file system of a size into a directory of the site.
func (s *site) mounted(name string, size int) string {
	s.t.Helper()
	dir := filepath.Join(s.dir, name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		s.t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d", size)); errors.Is(err, syscall.EPERM) {
		s.t.Skip("only root may mount; internal/audit fills a disk in a namespace of its own")
	} else if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) }) // a failed test may have files open there
	return dir
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }

// Each answer, whatever it is, has left its record before it came.
func TestAuditRecordsEachDecisionBeforeItsAnswer(t *testing.T) {
	t.Parallel()
	s := start(t, plan{policy: alicesPolicy, extra: "audit: {file: audit.jsonl}\n"})
	for i, row := range []struct {
		user, path string
		status     int
		want       audit.Record
	}{
		{"alice", "/downloads/project/plan.txt?link=CANARY", 200, audit.Record{Download: "main", Path: "/project/plan.txt", Subject: "alice", Source: "htpasswd", Decision: "allow", Reason: "policy", Line: "policy.csv:3", Status: 204}},
		{"bob", "/downloads/project/plan.txt", 404, audit.Record{Download: "main", Path: "/project/plan.txt", Subject: "bob", Source: "htpasswd", Decision: "deny", Reason: "default-deny", Status: 404}},
		{"", "/downloads/public/welcome.txt", 200, audit.Record{Download: "main", Path: "/public/welcome.txt", Subject: "anonymous", Decision: "allow", Reason: "policy", Line: "policy.csv:2", Status: 204}},
		{"", "/downloads/a%5Cb?token=CANARY", 400, audit.Record{Download: "main", Path: "/downloads/a%5Cb", Decision: "deny", Reason: "path", Status: 400}},
		{"Bearer CANARY", "/downloads/project/plan.txt", 401, audit.Record{Download: "main", Path: "/project/plan.txt", Decision: "deny", Reason: "anonymous", Status: 401, Subject: "anonymous"}},
	} {
		r := s.get(row.user, row.path, func(r *http.Request) {
			r.Header.Set("User-Agent", "Mozilla/5.0")
			r.Header.Set("Cookie", "session=CANARY")
			r.Header.Set("Referer", "https://app.example/CANARY?token=CANARY")
		})
		all, torn := s.records("audit.jsonl")
		if len(all) != i+1 || torn != 0 {
			t.Fatalf("%s as %q: %d records, %d torn", row.path, row.user, len(all), torn)
		}
		got := all[i]
		if r.status != row.status || got.Request != r.header.Get("X-Request-Id") || got.Client != "127.0.0.1" || got.Agent != "Mozilla/5.0" || got.Referrer != "https://app.example" ||
			got.Duration <= 0 || got.Method != "GET" || got.Action != "read" {
			t.Errorf("%s as %q: status %d, %+v", row.path, row.user, r.status, got)
		}
		if is := (audit.Record{Download: got.Download, Path: got.Path, Subject: got.Subject, Source: got.Source, Decision: got.Decision, Reason: got.Reason, Line: got.Line, Status: got.Status}); fmt.Sprint(is) != fmt.Sprint(row.want) {
			t.Errorf("%s as %q:\ngot  %+v\nwant %+v", row.path, row.user, is, row.want)
		}
	}
	if text, err := os.ReadFile(filepath.Join(s.dir, "audit.jsonl")); err != nil || strings.Contains(string(text), "CANARY") {
		t.Errorf("%v: a secret stands in %s", err, text)
	}
}

// While the disk is full everybody gets 503, and nobody a file without a record; with
// room again all is well without a restart.
func TestAuditOnAFullDiskDeniesUntilThereIsRoom(t *testing.T) {
	t.Parallel()
	var disk string
	s := start(t, plan{policy: alicesPolicy, extra: "audit: {file: disk/audit.jsonl}\n", before: func(s *site) { disk = s.mounted("disk", 64<<10) }})
	const file = "/downloads/project/plan.txt"
	if r := s.get("alice", file); r.status != 200 {
		t.Fatalf("status %d", r.status)
	}
	ballast := filepath.Join(disk, "ballast")
	f, err := os.Create(ballast)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(f, zeros{}); !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	served, refused := 1, 0
	for refused < 20 {
		switch r := s.get("alice", file); {
		case r.status == 200 && refused == 0: // what is left of a page
			served++
		case r.status == 503 && r.header.Get("Retry-After") != "" && !strings.Contains(r.body, s.texts["project/plan.txt"]):
			refused++
		default:
			t.Fatalf("on a full disk: status %d after %d refusals", r.status, refused)
		}
	}
	if got := s.metric("securefiles_audit_failing"); got != "1" {
		t.Errorf("failing: %s", got)
	}
	if got := s.metric("securefiles_audit_write_failures_total"); got != "20" {
		t.Errorf("failures: %s", got)
	}
	if !strings.Contains(s.log.String(), "no space left on device") {
		t.Errorf("the log does not say why: %s", s.log.String())
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	if r := s.get("alice", file); r.status != 200 || s.metric("securefiles_audit_failing") != "0" {
		t.Errorf("with room again: status %d", r.status)
	}
	allowed := 0
	all, torn := s.records("disk/audit.jsonl")
	for _, r := range all {
		if r.Decision == "allow" {
			allowed++
		}
	}
	if allowed < served+1 || torn > 1 {
		t.Errorf("%d files were served, %d allows are recorded, %d lines are torn", served+1, allowed, torn)
	}
	stop(t, s)
}

// stop ends the service and waits for it.
func stop(t *testing.T, s *site) {
	t.Helper()
	if err := s.daemon.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := s.daemon.Wait(); err != nil {
		t.Errorf("the service ended with %v", err)
	}
}

func TestAuditOnAReadOnlyFileSystem(t *testing.T) {
	t.Parallel()
	var disk string
	s := start(t, plan{policy: alicesPolicy, extra: "audit: {file: disk/audit.jsonl}\n", before: func(s *site) { disk = s.mounted("disk", 64<<10) }})
	const file = "/downloads/project/plan.txt"
	if r := s.get("alice", file); r.status != 200 {
		t.Fatalf("status %d", r.status)
	}
	stop(t, s)
	if err := syscall.Mount("", disk, "", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	out, err := s.command(binary, "serve", "--config", "securefiles.yaml").CombinedOutput()
	var status *exec.ExitError
	if !errors.As(err, &status) || status.ExitCode() != 2 || !strings.Contains(string(out), "securefiles.yaml:") || !strings.Contains(string(out), "audit.file: open the audit file: open disk/audit.jsonl: read-only file system") {
		t.Errorf("started with a file that cannot be written to: %v\n%s", err, out)
	}
	if r := s.get("alice", file); r.status != 503 {
		t.Errorf("without the service: status %d", r.status)
	}
}

// Rotated as logrotate does it, by either signal, under load: no record is lost.
func TestAuditFileIsRotatedUnderLoad(t *testing.T) {
	t.Parallel()
	s := start(t, plan{policy: alicesPolicy, extra: "audit: {file: audit.jsonl}\n"})
	const file = "/downloads/project/plan.txt"
	l := s.load(loadRequest{user: "alice", path: file, right: []int{200}, body: s.texts["project/plan.txt"]})
	for i, signal := range []syscall.Signal{syscall.SIGUSR1, syscall.SIGHUP, syscall.SIGUSR1} {
		l.goOn(s, 100)
		if err := os.Rename(filepath.Join(s.dir, "audit.jsonl"), filepath.Join(s.dir, fmt.Sprint("audit.jsonl.", i))); err != nil {
			t.Fatal(err)
		}
		if err := s.daemon.Process.Signal(signal); err != nil {
			t.Fatal(err)
		}
		s.eventually("there is a new file", func() bool {
			_, err := os.Stat(filepath.Join(s.dir, "audit.jsonl"))
			return err == nil
		})
	}
	l.end(t)
	n := 0
	for _, name := range []string{"audit.jsonl.0", "audit.jsonl.1", "audit.jsonl.2", "audit.jsonl"} {
		all, torn := s.records(name)
		if n += len(all); torn != 0 {
			t.Errorf("%s: %d torn lines", name, torn)
		}
	}
	if n != l.answers {
		t.Errorf("%d answers, %d records", l.answers, n)
	}
}
