package integration_test

import (
	"bufio"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"securefiles/internal/audit"
	"securefiles/internal/freeport"
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

// fill has a file take all the room that its disk has.
func fill(t *testing.T, file string) {
	t.Helper()
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(f, zeros{}); !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

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
	fill(t, ballast)
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
	stopService(t, s)
}

// stopService ends the service and waits for it.
func stopService(t *testing.T, s *site) {
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
	stopService(t, s)
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

// A disk on which the kernel meets an error turns read-only under the service, as Debian
// mounts ext4 (errors=remount-ro): from then on everybody gets 503. The service does not
// keep it from being unmounted, mended and mounted again, and goes on by itself then. Each
// file that was sent has its record, which was on the disk before the answer: but for what
// the kernel was told to write at the moment of its error.
func TestAuditOnADiskThatTurnsReadOnlyUnderLoad(t *testing.T) {
	t.Parallel()
	var disk *failingDisk
	p := plan{policy: alicesPolicy, extra: "audit: {file: disk/audit.jsonl, durability: fsync, chain: {key_file: audit.key}}\n", before: func(s *site) {
		disk = s.failingDisk("disk")
		s.auditKey()
	}}
	s := start(t, p)
	const file = "/downloads/public/welcome.txt"
	var mu sync.Mutex
	var sent []string // request ids
	served, refused := 0, 0
	stop := make(chan struct{})
	var clients sync.WaitGroup
	for range 8 {
		clients.Go(func() {
			client := newClient()
			defer client.CloseIdleConnections()
			for {
				select {
				case <-stop:
					return
				default:
				}
				r, err := s.try(client, "", file)
				mu.Lock()
				switch {
				case err == nil && r.status == 200:
					served++
					sent = append(sent, r.header.Get("X-Request-Id"))
				case err == nil && r.status == 503 && r.header.Get("Retry-After") != "":
					refused++
				default:
					t.Errorf("%d, %v", r.status, err)
				}
				mu.Unlock()
			}
		})
	}
	count := func() (int, int) {
		mu.Lock()
		defer mu.Unlock()
		return served, refused
	}
	s.eventually("files are served", func() bool { n, _ := count(); return n > 50 })
	disk.fail()
	s.eventually("requests are refused", func() bool { _, n := count(); return n > 0 })
	was, _ := count()
	_, from := count()
	s.eventually("more are refused", func() bool { _, n := count(); return n > from+50 })
	if now, _ := count(); now > was+8 { // those that were under way
		t.Errorf("%d files were served on a disk that is read-only", now-was)
	}
	if got := s.metric("securefiles_audit_failing"); got != "1" {
		t.Errorf("failing: %s", got)
	}
	if !strings.Contains(s.log.String(), "read-only file system") {
		t.Errorf("the log does not say why: %s", s.log.String())
	}
	failed, _ := count()
	was = failed
	disk.unmount()
	_, from = count()
	s.eventually("more are refused", func() bool { _, n := count(); return n > from+50 })
	if now, _ := count(); now != was {
		t.Errorf("%d files were served without a disk", now-was)
	}
	disk.mend()
	s.eventually("files are served again", func() bool { n, _ := count(); return n > was+50 })
	close(stop)
	clients.Wait()
	if got := s.metric("securefiles_audit_failing"); got != "0" {
		t.Errorf("failing: %s", got)
	}
	allowed := map[string]bool{}
	all, torn := s.records("disk/audit.jsonl")
	for _, r := range all {
		if r.Type == audit.TypeDecision && r.Decision == "allow" {
			allowed[r.Request] = true
		}
	}
	// Of the last few before the failure the kernel may have said that they are on the disk
	// while it gave up the journal.
	missing := 0
	for i, id := range sent {
		if allowed[id] {
			continue
		}
		if missing++; i >= failed || i < failed-16 {
			t.Errorf("%s was sent, the %d. of %d, and has no record; %d were sent before the failure", id, i+1, len(sent), failed)
		}
	}
	stopService(t, s)
	out, err := s.command(binary, "audit", "verify", "--config", "securefiles.yaml").CombinedOutput()
	if err != nil {
		t.Errorf("the chain is not whole: %v\n%s", err, out)
	}
	t.Logf("%d files sent, %d refused, %d records missing of the last before the failure, %d lines torn; %s", served, refused, missing, torn, out)
}

// A failingDisk is an ext4 of its own, in a file.
type failingDisk struct {
	s           *site
	image, into string
	device      string
}

// failingDisk mounts one into a directory of the site.
func (s *site) failingDisk(name string) *failingDisk {
	s.t.Helper()
	if os.Getuid() != 0 {
		s.t.Skip("only root may mount; internal/audit has a file whose disk fails")
	}
	d := &failingDisk{s: s, image: filepath.Join(s.dir, name+".img"), into: filepath.Join(s.dir, name)}
	s.write(name+".img", "")
	if err := os.Truncate(d.image, 32<<20); err != nil {
		s.t.Fatal(err)
	}
	if out, err := exec.Command("mkfs.ext4", "-q", "-F", d.image).CombinedOutput(); err != nil {
		s.t.Fatalf("mkfs.ext4: %v\n%s", err, out)
	}
	if err := os.MkdirAll(d.into, 0o755); err != nil {
		s.t.Fatal(err)
	}
	if out, err := exec.Command("losetup", "--find").CombinedOutput(); err != nil {
		s.t.Skipf("there are no loop devices here: %s", out)
	}
	d.mount()
	s.t.Cleanup(func() { _ = syscall.Unmount(d.into, syscall.MNT_DETACH) }) // a failed test may have files open there
	return d
}

func (d *failingDisk) mount() {
	d.s.t.Helper()
	if out, err := exec.Command("mount", "-o", "loop,errors=remount-ro", d.image, d.into).CombinedOutput(); err != nil {
		d.s.t.Fatalf("mount: %v\n%s", err, out)
	}
	out, err := exec.Command("findmnt", "-n", "-o", "SOURCE", d.into).Output()
	if err != nil {
		d.s.t.Fatal(err)
	}
	d.device = filepath.Base(strings.TrimSpace(string(out)))
}

// fail has the kernel meet an error.
func (d *failingDisk) fail() {
	d.s.t.Helper()
	if err := os.WriteFile("/sys/fs/ext4/"+d.device+"/trigger_fs_error", []byte("a test"), 0o200); err != nil {
		d.s.t.Fatal(err)
	}
}

func (d *failingDisk) unmount() {
	d.s.t.Helper()
	d.s.eventually("the disk is unmounted", func() bool { return syscall.Unmount(d.into, 0) == nil })
}

// mend repairs the disk, as one does who is asked by the kernel to, and mounts it again.
func (d *failingDisk) mend() {
	d.s.t.Helper()
	var status *exec.ExitError
	if out, err := exec.Command("e2fsck", "-p", d.image).CombinedOutput(); err != nil && (!errors.As(err, &status) || status.ExitCode() != 1) { // 1 is: mended
		d.s.t.Fatalf("e2fsck: %v\n%s", err, out)
	}
	d.mount()
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

// deliveredPlan is a site whose service follows nginx's own log.
func deliveredPlan(more string, files map[string]string) plan {
	return plan{policy: alicesPolicy, printed: true, files: files,
		extra:  "audit: {file: audit.jsonl" + more + "}\nnginx: {delivery_log: LOGS/deliveries.log, access_log: 'off'}\ndownloads: [{name: main, url: /downloads/, internal: /protected/, root: /var/www/securefiles}]\n",
		before: (*site).logsDeliveries}
}

// logsDeliveries has nginx's log of deliveries where its others are.
func (s *site) logsDeliveries() {
	s.t.Helper()
	s.edit("securefiles.yaml", "LOGS", filepath.Join(s.dir, "logs"))
	if err := os.MkdirAll(filepath.Join(s.dir, "logs"), 0o755); err != nil {
		s.t.Fatal(err)
	}
}

// delivered waits for the delivery of each request, and returns them by it.
func (s *site) delivered(ids ...string) map[string]*audit.Record {
	s.t.Helper()
	found := map[string]*audit.Record{}
	defer func() {
		for _, id := range ids {
			if found[id] == nil {
				s.t.Logf("%q has no delivery", id)
			}
		}
	}()
	s.eventually("each delivery is recorded", func() bool {
		clear(found)
		all, _ := s.records("audit.jsonl")
		for _, r := range all {
			if r.Type != audit.TypeDelivery {
				continue
			}
			if found[r.Request] != nil {
				s.t.Fatalf("the delivery of %s is recorded twice", r.Request)
			}
			found[r.Request] = r
		}
		for _, id := range ids {
			if found[id] == nil {
				return false
			}
		}
		return true
	})
	return found
}

// What really came of it, through nginx, stands in the record.
func TestAuditDeliveriesAreWhatNginxDelivered(t *testing.T) {
	t.Parallel()
	const size = 20 << 20
	big := strings.Repeat("0123456789abcdef", size/16)
	http2 := freeport.Address(t)
	p := deliveredPlan("", map[string]string{"project/big.bin": big, "project/plan.txt": "0123456789", "project/empty.txt": ""})
	p.edit = func(s *site, conf string) string {
		return strings.Replace(conf, "listen "+s.web+";", "listen "+s.web+";\nlisten "+http2+" http2;", 1)
	}
	s := start(t, p)
	const small, large = "/downloads/project/plan.txt", "/downloads/project/big.bin"
	// ask begins a request, and returns its id and its body.
	ask := func(client *http.Client, address, method, path string, header ...string) (string, *http.Response) {
		t.Helper()
		r, err := http.NewRequest(method, "http://"+address+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.SetBasicAuth("alice", "alice")
		for i := 0; i < len(header); i += 2 {
			r.Header.Set(header[i], header[i+1])
		}
		resp, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		return resp.Header.Get("X-Request-Id"), resp
	}
	drain := func(resp *http.Response) {
		t.Helper()
		_, err := io.Copy(io.Discard, resp.Body)
		if err := errors.Join(err, resp.Body.Close()); err != nil {
			t.Error(err)
		}
	}
	want := map[string]audit.Record{}
	whole := func(id string, r audit.Record) { want[id] = r }

	kept := newClient() // one connection
	for range 3 {
		id, resp := ask(kept, s.web, "GET", small)
		drain(resp)
		whole(id, audit.Record{Delivery: audit.Complete, Status: 200, Bytes: 10, Length: 10, Size: 10, Protocol: "1.1"})
	}
	id, resp := ask(kept, s.web, "GET", large)
	drain(resp)
	whole(id, audit.Record{Delivery: audit.Complete, Status: 200, Bytes: size, Length: size, Size: size, Protocol: "1.1"})
	id, resp = ask(kept, s.web, "GET", "/downloads/project/empty.txt")
	drain(resp)
	whole(id, audit.Record{Delivery: audit.Complete, Status: 200, Protocol: "1.1"})
	id, resp = ask(kept, s.web, "HEAD", large)
	drain(resp)
	whole(id, audit.Record{Delivery: audit.Complete, Status: 200, Length: size, Size: size, Protocol: "1.1"})
	etag := resp.Header.Get("Etag")
	id, resp = ask(kept, s.web, "GET", large, "If-None-Match", etag)
	drain(resp)
	whole(id, audit.Record{Delivery: audit.Complete, Status: 304, Protocol: "1.1"})
	id, resp = ask(kept, s.web, "GET", large, "Range", "bytes=100-199")
	drain(resp)
	whole(id, audit.Record{Delivery: audit.Complete, Status: 206, Bytes: 100, Length: 100, Size: size, Range: fmt.Sprintf("bytes 100-199/%d", size), Protocol: "1.1"})
	id, resp = ask(kept, s.web, "GET", large, "Range", "bytes=0-9,100-109")
	drain(resp)
	whole(id, audit.Record{Delivery: audit.Complete, Status: 206, Bytes: resp.ContentLength, Length: resp.ContentLength, Protocol: "1.1"})
	id, resp = ask(kept, s.web, "GET", small, "Range", "bytes=100-")
	drain(resp)
	whole(id, audit.Record{Delivery: audit.None, Status: 416, Protocol: "1.1"})
	id, resp = ask(kept, s.web, "GET", "/downloads/project/none.txt")
	drain(resp)
	whole(id, audit.Record{Delivery: audit.None, Status: 404, Protocol: "1.1"})

	// A client that takes its time gets all of it, and nginx is reloaded meanwhile.
	id, resp = ask(newClient(), s.web, "GET", large)
	s.reloadNginx()
	for {
		_, err := io.CopyN(io.Discard, resp.Body, 1<<20)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Millisecond) // a slow client
	}
	drain(resp)
	whole(id, audit.Record{Delivery: audit.Complete, Status: 200, Bytes: size, Length: size, Size: size, Protocol: "1.1"})

	two := newClient()
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	two.Transport = &http.Transport{Protocols: protocols, DisableCompression: true}
	id, resp = ask(two, http2, "GET", large)
	drain(resp)
	whole(id, audit.Record{Delivery: audit.Complete, Status: 200, Bytes: size, Length: size, Size: size, Protocol: "2"})

	// Those who hang up.
	aborted := map[string]bool{}
	for _, c := range []struct {
		client  *http.Client
		address string
		header  []string
	}{{newClient(), s.web, nil}, {two, http2, nil}, {newClient(), s.web, []string{"Range", "bytes=1000-"}}} {
		id, resp := ask(c.client, c.address, "GET", large, c.header...)
		if _, err := io.CopyN(io.Discard, resp.Body, 100_000); err != nil {
			t.Fatal(err)
		}
		if err := resp.Body.Close(); err != nil {
			t.Error(err)
		}
		aborted[id] = true
	}
	// And one who was refused has no delivery.
	refused := s.get("bob", small).header.Get("X-Request-Id")

	var ids []string
	for id := range want {
		ids = append(ids, id)
	}
	for id := range aborted {
		ids = append(ids, id)
	}
	got := s.delivered(ids...)
	if len(got) != len(ids) || got[refused] != nil {
		t.Errorf("%d deliveries of %d", len(got), len(ids))
	}
	for id, w := range want {
		g := got[id]
		if g.Delivery != w.Delivery || g.Status != w.Status || g.Bytes != w.Bytes || g.Length != w.Length || g.Size != w.Size || g.Range != w.Range || g.Protocol != w.Protocol ||
			g.Subject != "alice" || g.Client != "127.0.0.1" || g.Decision != "" {
			t.Errorf("got  %+v\nwant %+v", *g, w)
		}
	}
	for id := range aborted {
		if g := got[id]; g.Delivery != audit.Aborted || g.Bytes < 100_000 || g.Bytes >= g.Length || g.Size != size {
			t.Errorf("hung up: %+v", *g)
		}
	}
	if got, want := s.metric(`securefiles_deliveries_total{delivery="aborted",download="main"}`), "3"; got != want {
		t.Errorf("%s were aborted", got)
	}
	s.eventually("nothing is awaited any more", func() bool { return s.metric("securefiles_audit_awaited") == "0" })
}

// What nginx sends slowly, because a limit says so, is recorded as what was sent and how
// long it took; of who hangs up, what was sent until then.
func TestAuditDeliveryOfAThrottledDownload(t *testing.T) {
	t.Parallel()
	const size, rate = 3 << 20, 1 << 20
	p := deliveredPlan("", map[string]string{"project/big.bin": strings.Repeat("0123456789abcdef", size/16)})
	p.extra += "limits: [{name: slow, per: subject, rate: 1MiB/s}]\n"
	s := start(t, p)
	begin := func() (string, *http.Response) {
		t.Helper()
		r, err := http.NewRequest("GET", "http://"+s.web+"/downloads/project/big.bin", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.SetBasicAuth("alice", "alice")
		resp, err := newClient().Do(r)
		if err != nil {
			t.Fatal(err)
		}
		return resp.Header.Get("X-Request-Id"), resp
	}
	whole, resp := begin()
	part, other := begin()
	if _, err := io.CopyN(io.Discard, other.Body, rate/2); err != nil {
		t.Fatal(err)
	}
	if err := other.Body.Close(); err != nil {
		t.Error(err)
	}
	_, err := io.Copy(io.Discard, resp.Body)
	if err = errors.Join(err, resp.Body.Close()); err != nil {
		t.Fatal(err)
	}
	got := s.delivered(whole, part)
	if g := got[whole]; g.Delivery != audit.Complete || g.Bytes != size || g.Length != size || g.Duration < 1.5 {
		t.Errorf("complete: %+v", *g)
	}
	if g := got[part]; g.Delivery != audit.Aborted || g.Bytes < rate/2 || g.Bytes >= size || g.Length != size {
		t.Errorf("hung up: %+v", *g)
	}
}

// While the service runs, and bob's requests stand in the file, in one that was rotated and
// in one that is compressed, bob is erased: nothing of his is found any more, the chain is
// whole, others are found, and what he does next is recorded.
func TestAuditErasesASubjectWhileTheServiceRuns(t *testing.T) {
	t.Parallel()
	p := deliveredPlan(", chain: {key_file: audit.key}, privacy: {erasable: true, keys: audit.keys}", map[string]string{"erika/plan.txt": "0123456789\n", "public/welcome.txt": "welcome\n"})
	p.policy = "p, bob, /erika/**, read, allow\np, alice, /public/**, read, allow\n"
	before := p.before
	p.before = func(s *site) {
		before(s)
		s.auditKey()
	}
	s := start(t, p)
	const agent, file = "BrowserOfBob/1.0", "/downloads/erika/plan.txt"
	downloads := func() {
		t.Helper()
		var ids []string
		for range 3 {
			ids = append(ids, s.status("bob", file, 200, with("User-Agent", agent), with("Referer", "https://bobs.example/x")).header.Get("X-Request-Id"), s.status("alice", "/downloads/public/welcome.txt", 200).header.Get("X-Request-Id"))
		}
		s.delivered(ids...)
	}
	rotate := func(to string) {
		t.Helper()
		if err := os.Rename(filepath.Join(s.dir, "audit.jsonl"), filepath.Join(s.dir, to)); err != nil {
			t.Fatal(err)
		}
		if err := s.daemon.Process.Signal(syscall.SIGUSR1); err != nil {
			t.Fatal(err)
		}
		s.eventually("there is a new file", func() bool { _, err := os.Stat(filepath.Join(s.dir, "audit.jsonl")); return err == nil })
	}
	downloads()
	rotate("audit.jsonl.2")
	if out, err := s.command("gzip", "audit.jsonl.2").CombinedOutput(); err != nil {
		t.Fatal(err, string(out))
	}
	downloads()
	rotate("audit.jsonl.1")
	downloads()
	if out := s.run(0, "audit", "--subject", "bob", "--by", "path"); !strings.Contains(out, "/erika/plan.txt") || !strings.Contains(out, "9 requests") {
		t.Errorf("before: %s", out)
	}
	if out := s.run(0, "audit", "erase", "bob"); !strings.Contains(out, "bob: erased") {
		t.Error(out)
	}
	s.run(1, "audit", "--subject", "bob")
	s.run(1, "audit", "--path", "/erika/plan.txt")
	if out := s.run(0, "audit", "--subject", "alice", "--by", "path"); !strings.Contains(out, "9 requests") {
		t.Errorf("alice: %s", out)
	}
	files, err := filepath.Glob(filepath.Join(s.dir, "audit*"))
	if err != nil || len(files) < 6 {
		t.Errorf("%v, %v", files, err)
	}
	for _, name := range files {
		for _, secret := range []string{`"bob`, "/erika", agent, "bobs.example"} {
			out, err := exec.Command("zgrep", "-a", "-c", "-F", "-e", secret, name).CombinedOutput()
			if strings.TrimSpace(string(out)) != "0" {
				t.Errorf("%s is in %s: %s, %v", secret, name, out, err)
			}
		}
	}
	if out := s.run(0, "audit", "verify"); !strings.Contains(out, "the head is") {
		t.Errorf("the chain: %s", out)
	}
	downloads()
	if out := s.run(0, "audit", "--subject", "bob", "--by", "path"); !strings.Contains(out, "3 requests") {
		t.Errorf("after: %s", out)
	}
}

// Of what a killed worker was sending nginx tells nothing: it is unknown in the end.
func TestAuditDeliveryOfAKilledWorkerIsUnknown(t *testing.T) {
	t.Parallel()
	p := deliveredPlan(", wait: 2s", map[string]string{"project/big.bin": strings.Repeat("x", 20<<20)})
	s := start(t, p)
	r, err := http.NewRequest("GET", "http://"+s.web+"/downloads/project/big.bin", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.SetBasicAuth("alice", "alice")
	resp, err := newClient().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	for pid := range s.workers() {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	_, err = io.Copy(io.Discard, resp.Body)
	if err = errors.Join(err, resp.Body.Close()); err == nil {
		t.Error("the file came whole")
	}
	id := resp.Header.Get("X-Request-Id")
	if g := s.delivered(id)[id]; g.Delivery != audit.Unknown || g.Bytes != 0 || g.Subject != "alice" {
		t.Errorf("%+v", g)
	}
}

// auditKey makes the key of a chain.
func (s *site) auditKey() {
	s.t.Helper()
	key, err := s.command(binary, "audit", "key", "files.example.org").Output()
	if err != nil {
		s.t.Fatal(err)
	}
	s.write("audit.key", string(key))
}

// often is how many times something is done, by a variable; make targets have more.
func often(t *testing.T, variable string, otherwise int) int {
	t.Helper()
	text := os.Getenv(variable)
	if text == "" {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// An nginxDelivery is a line of nginx's log of deliveries.
type nginxDelivery struct {
	Request string `json:"request_id"`
	Status  string `json:"status"`
	Body    int64  `json:"body_bytes"`
	// Ended is when, in seconds since 1970.
	Ended float64 `json:"msec"`
}

func (s *site) nginxDeliveries(names ...string) (all []nginxDelivery) {
	s.t.Helper()
	for _, name := range names {
		text, err := os.ReadFile(filepath.Join(s.dir, name))
		if err != nil {
			s.t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			var d nginxDelivery
			if err := json.Unmarshal([]byte(line), &d); err != nil {
				s.t.Fatalf("%v: %s", err, line)
			}
			all = append(all, d)
		}
	}
	return all
}

// Downloads are asked for at a rate, whatever comes of them.
type downloads struct {
	served, refused, broken atomic.Int64
	stop                    chan struct{}
	clients                 sync.WaitGroup
	began                   time.Time
}

// download starts clients that ask nginx for a file so many times a second in all, each
// on a connection of its own. Who is late asks at once, until the rate is what it should be.
func (s *site) download(path string, rate int) *downloads {
	const clients = 16
	d := &downloads{stop: make(chan struct{}), began: time.Now()}
	every := clients * time.Second / time.Duration(rate)
	for i := range clients {
		d.clients.Go(func() {
			var conn net.Conn
			var in *bufio.Reader
			hangUp := func() {
				if conn != nil {
					_ = conn.Close()
					conn = nil
				}
			}
			defer hangUp()
			for next := d.began.Add(every * time.Duration(i) / clients); ; next = next.Add(every) {
				select {
				case <-d.stop:
					return
				case <-time.After(time.Until(next)):
				}
				var err error
				if conn == nil {
					if conn, err = net.Dial("tcp", s.web); err == nil {
						in = bufio.NewReader(conn)
					}
				}
				var resp *http.Response
				if err == nil {
					_ = conn.SetDeadline(time.Now().Add(patience))
					_, err = io.WriteString(conn, "GET "+path+" HTTP/1.1\r\nHost: files\r\n\r\n")
				}
				if err == nil {
					if resp, err = http.ReadResponse(in, nil); err == nil {
						_, err = io.Copy(io.Discard, resp.Body)
					}
				}
				switch {
				case err == nil && resp.StatusCode == 200:
					d.served.Add(1)
				case err == nil && resp.StatusCode == 503:
					d.refused.Add(1)
				default:
					d.broken.Add(1)
				}
				if err != nil || resp.Close {
					hangUp()
				}
			}
		})
	}
	return d
}

// Killed at any moment, under a thousand downloads a second.
func TestAuditLosesNothingWhenTheServiceIsKilled(t *testing.T) {
	restartedUnderLoad(t, 1000, often(t, "SECUREFILES_AUDIT_KILLS", 6), syscall.SIGKILL)
}

// Who reads what nginx delivers is restarted under five thousand requests a second: what
// is lost is told, and nothing is.
func TestAuditHasEachDeliveryWhenItsReaderIsRestarted(t *testing.T) {
	restartedUnderLoad(t, 5000, often(t, "SECUREFILES_AUDIT_RESTARTS", 3), syscall.SIGTERM)
}

// The service ends by a signal, again and again at any moment, and is started again: each
// file that nginx began to send has its decision in the file, each that ended has one
// delivery, and the chain is whole.
func restartedUnderLoad(t *testing.T, rate, times int, by syscall.Signal) {
	p := deliveredPlan(", chain: {key_file: audit.key, every: 1s}", nil)
	before := p.before
	p.before = func(s *site) {
		before(s)
		s.auditKey()
	}
	s := start(t, p)
	d := s.download("/downloads/public/welcome.txt", rate)
	var away time.Duration
	for range times {
		from := d.served.Load()
		s.eventually("files are served", func() bool { return d.served.Load() > from+20 })
		time.Sleep(time.Duration(rand.IntN(300)) * time.Millisecond) // at any moment
		gone := time.Now()
		if err := s.daemon.Process.Signal(by); err != nil {
			t.Fatal(err)
		}
		_ = s.daemon.Wait() // it was killed
		s.startService()
		away += time.Since(gone)
	}
	close(d.stop)
	d.clients.Wait()
	took := time.Since(d.began)
	served, refused := d.served.Load(), d.refused.Load()
	t.Logf("ended %d times by %v in %v, and away for %v of that: %d files served, %.0f a second (%.0f while it was there), %d refused; %.0f requests a second were asked",
		times, by, took.Round(time.Second), away.Round(time.Second), served, float64(served)/took.Seconds(), float64(served)/(took-away).Seconds(), refused, float64(served+refused)/took.Seconds())
	if n := d.broken.Load(); n > 0 {
		t.Errorf("%d answers were neither a file nor 503", n)
	}

	all := s.nginxDeliveries("logs/deliveries.log")
	var sent []string
	for _, d := range all {
		if d.Status == "200" {
			sent = append(sent, d.Request)
		}
	}
	if int64(len(sent)) != served {
		t.Errorf("%d files were served, nginx has %d in its log", served, len(sent))
	}
	s.eventually("nothing is awaited any more", func() bool { return s.metric("securefiles_audit_awaited") == "0" })
	got := s.delivered(sent...)
	allowed := map[string]int{}
	records, torn := s.records("audit.jsonl")
	for _, r := range records {
		if r.Type == audit.TypeDecision && r.Decision == "allow" {
			allowed[r.Request]++
		}
	}
	for _, id := range sent {
		if allowed[id] == 0 {
			t.Errorf("%s was sent, and nobody has recorded that it was allowed", id)
		}
		if got[id].Delivery != audit.Complete {
			t.Errorf("%s was sent, and its delivery is %s", id, got[id].Delivery)
		}
	}
	if torn > times {
		t.Errorf("%d lines are torn", torn)
	}
	for _, lost := range []string{"securefiles_audit_overflows_total", `securefiles_audit_passed_over_total{follower="nginx"}`} {
		if n := s.metric(lost); n != "0" {
			t.Errorf("%s: %s", lost, n)
		}
	}
	stopService(t, s)
	out, err := s.command(binary, "audit", "verify", "--config", "securefiles.yaml").CombinedOutput()
	if err != nil {
		t.Errorf("the chain is not whole: %v\n%s", err, out)
	}
	t.Logf("%d files were sent, %d have a record and a delivery; %d lines torn; %s", len(sent), len(got), torn, out)
}

// hostileText is text that breaks lines, drives terminals, is no UTF-8, ends JSON strings, or
// is long.
func hostileText(i int) string {
	pieces := []string{
		"\x1b[2J", "\x1b]0;owned\x07", "\x9b31m", "\u009b31m", "\u202e", "\u2028", "\u0085", "\r", "\"}", `\`, `\u000a`, "\xff\xfe", "\xc0\xaf", "\xed\xa0\x80", "😀", "\t",
		"'; DROP TABLE", "=cmd|' /C calc'!A1", "%0d%0a", "$(id)", "{{.}}", strings.Repeat("A", 300), "\x7f", "\x01", "</script>",
	}
	return fmt.Sprint("h", i, "-", pieces[i%len(pieces)], pieces[(i*7+3)%len(pieces)])
}

// 500 hostile subjects, paths, user agents, referrers and ranges: each record is one line
// of printable ASCII and of JSON, and no secret is in a record, the log, or a metric.
func TestAuditRecordsOfHostileClientsAreLinesOfTheirOwn(t *testing.T) {
	t.Parallel()
	p := deliveredPlan(", chain: {key_file: audit.key}", nil)
	before := p.before
	p.before = func(s *site) {
		before(s)
		s.auditKey()
		s.edit("securefiles.yaml", "level: info", "level: debug")
	}
	s := start(t, p)
	const secret = "CANARY-7f3a"
	// field is a value of a header as a client may send it: what nginx refuses itself
	// is left out.
	field := func(text string) string {
		return strings.Map(func(r rune) rune {
			if r == '\r' || r == '\n' || r == 0 {
				return -1
			}
			return r
		}, text)
	}
	for i := range 500 {
		h := hostileText(i)
		path := "/downloads/public/" + url.PathEscape(h)
		if i%5 == 0 {
			path = "/downloads/../" + strings.Map(func(r rune) rune {
				if r <= ' ' || r == 0x7f {
					return '_'
				}
				return r
			}, h)
		}
		authorization := ""
		if i%2 == 0 {
			authorization = "Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(h+":"+secret)) + "\r\n"
		}
		request := fmt.Sprintf("GET %s?link=%s&token=%s HTTP/1.1\r\nHost: files\r\nConnection: close\r\nUser-Agent: %s\r\nReferer: https://u:%s@%s/%s?t=%s\r\nRange: bytes=%s\r\nCookie: session=%s\r\n%s\r\n",
			path, secret, secret, field(h), secret, field(h), secret, secret, field(h), secret, authorization)
		if _, err := raw(s.web, "GET", []byte(request)); err != nil {
			t.Fatalf("%q: %v", h, err)
		}
	}
	_, metrics := s.adminGet("/metrics")
	stopService(t, s)
	text, err := os.ReadFile(filepath.Join(s.dir, "audit.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	lines := 0
	for line := range strings.Lines(string(text)) {
		lines++
		for _, c := range []byte(strings.TrimSuffix(line, "\n")) {
			if c < ' ' || c > '~' {
				t.Fatalf("%q is in %q", c, line)
			}
		}
		var any map[string]any
		if err := json.Unmarshal([]byte(line), &any); err != nil {
			t.Errorf("%v: %s", err, line)
		}
	}
	if all, torn := s.records("audit.jsonl"); len(all) != lines || torn > 0 || lines < 250 {
		t.Errorf("%d records in %d lines, %d torn", len(all), lines, torn)
	}
	files, err := filepath.Glob(filepath.Join(s.dir, "audit.jsonl*"))
	if err != nil || len(files) < 3 {
		t.Errorf("%v, %v", files, err)
	}
	holds := map[string]string{"the service's log": s.log.String(), "the metrics": metrics}
	for _, file := range append(files, filepath.Join(s.dir, "logs/deliveries.log")) {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		holds[file] = string(text)
	}
	for where, text := range holds {
		if i := strings.Index(text, secret); i >= 0 {
			t.Errorf("a secret is in %s: %q", where, text[max(0, i-200):min(len(text), i+50)])
		}
	}
	if out, err := s.command(binary, "audit", "verify", "--config", "securefiles.yaml").CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
