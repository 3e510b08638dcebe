package integration_test

import (
	"archive/zip"
	"bytes"
	le "encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"securefiles/internal/audit"
)

// archived is a site whose folders can be had as one file, and which records what was
// delivered.
func archived(t *testing.T, front, bounds, more string, p plan) *site {
	t.Helper()
	p.policy = listingPolicy + p.policy
	p.printed, p.stored, p.direct = front == "nginx", true, front == "direct"
	p.extra += "audit: {file: audit.jsonl}\nnginx: {delivery_log: LOGS/deliveries.log, access_log: 'off'}\ndownloads: [{name: main, url: /downloads/, internal: /protected/, root: ROOT, listing: true, zip: {" + bounds + "}}]\n" + more
	before := p.before
	p.before = func(s *site) {
		s.edit("securefiles.yaml", "LOGS", filepath.Join(s.dir, "logs"))
		s.edit("securefiles.yaml", "ROOT", s.root)
		if err := os.MkdirAll(filepath.Join(s.dir, "logs"), 0o755); err != nil {
			t.Fatal(err)
		}
		if before != nil {
			before(s)
		}
	}
	return start(t, p)
}

func inArchives(t *testing.T, test func(t *testing.T, front string)) {
	t.Helper()
	for _, front := range []string{"nginx", "direct"} {
		t.Run(front, func(t *testing.T) {
			t.Parallel()
			test(t, front)
		})
	}
}

// unzip is what is in an archive, by Info-ZIP's judgement of it and Go's.
func (s *site) unzip(body string) map[string]string {
	s.t.Helper()
	file := filepath.Join(s.t.TempDir(), "a.zip")
	if err := os.WriteFile(file, []byte(body), 0o600); err != nil {
		s.t.Fatal(err)
	}
	if out, err := exec.CommandContext(s.t.Context(), "python3", "-c", "import sys, zipfile; z = zipfile.ZipFile(sys.argv[1]); sys.exit(z.testzip())", file).CombinedOutput(); err != nil {
		s.t.Errorf("Python: %v: %s", err, out)
	}
	z, err := zip.NewReader(strings.NewReader(body), int64(len(body)))
	if err != nil {
		s.t.Fatal(err)
	}
	found := map[string]string{}
	for _, f := range z.File {
		r, err := f.Open()
		if err != nil {
			s.t.Fatal(err)
		}
		text, err := io.ReadAll(r)
		if err != nil || f.Method != zip.Store || f.Modified.IsZero() {
			s.t.Errorf("%s: method %d, %s: %v", f.Name, f.Method, f.Modified, err)
		}
		found[f.Name] = string(text)
	}
	return found
}

// ofArchive waits for the delivery of a request's archive, and returns all of that request:
// what became of it, by path.
func (s *site) ofArchive(id, folder string) (decided, delivered map[string]*audit.Record) {
	s.t.Helper()
	s.eventually("the delivery of the archive is recorded", func() bool {
		decided, delivered = map[string]*audit.Record{}, map[string]*audit.Record{}
		all, _ := s.records("audit.jsonl")
		for _, r := range all {
			of := decided
			if r.Type == audit.TypeDelivery {
				of = delivered
			}
			if r.Request == id {
				of[r.Path] = r
			}
		}
		return delivered[folder] != nil && len(delivered) == len(decided)
	})
	return decided, delivered
}

// A folder as one file has what this caller may read below it, byte for byte, and each file
// of it is in the record.
func TestAFolderAsOneFile(t *testing.T) {
	t.Parallel()
	inArchives(t, func(t *testing.T, front string) {
		files := someFiles()
		files["project/sub/Ünïcode 日本.txt"], files["project/A.txt"], files["project/a.txt"] = "u", "upper", "lower"
		files["project/"+`back\slash.txt`], files["project/new\nline"], files["project/ blank"] = "CANARY", "CANARY", "CANARY"
		files["project/empty"], files["project/sub/deep/er/large.bin"] = "", strings.Repeat("0123456789abcdef", 1<<17)
		files["project/%2e%2e.txt"] = "dots"
		s := archived(t, front, "entries: 100, bytes: 10MiB", "", plan{files: files, before: func(s *site) {
			if err := os.Symlink("/etc/passwd", filepath.Join(s.root, "project", "link")); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink("../private", filepath.Join(s.root, "project", "linked")); err != nil {
				t.Fatal(err)
			}
		}})
		r := s.status("alice", "/downloads/project/?zip", 200)
		want := map[string]string{}
		for name, text := range files {
			if rest, ok := strings.CutPrefix(name, "project/"); ok && !strings.HasPrefix(rest, "hr/") && !strings.Contains(text, "CANARY") {
				want[rest] = text
			}
		}
		got := s.unzip(r.body)
		for name, text := range want {
			if got[name] != text {
				t.Errorf("%q: %d bytes, want %d", name, len(got[name]), len(text))
			}
		}
		if len(got) != len(want) || len(want) < 9 {
			t.Errorf("there is %d, want %d", len(got), len(want))
		}
		for name, value := range map[string]string{
			"Content-Type": "application/zip", "Content-Disposition": `attachment; filename="project.zip"`, "Accept-Ranges": "none", "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff",
			"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; img-src data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
			"X-Securefiles-Page":      "", "X-Securefiles-Reason": "", "Content-Length": strconv.Itoa(len(r.body)),
		} {
			if got := r.header.Get(name); got != value && !(name == "Content-Disposition" && strings.HasPrefix(got, value)) {
				t.Errorf("%s: %q, want %q", name, got, value)
			}
		}
		decided, delivered := s.ofArchive(r.header.Get("X-Request-Id"), "/project/")
		for name, text := range want {
			d, was := decided["/project/"+name], delivered["/project/"+name]
			if d == nil || was == nil {
				t.Errorf("%q is not in the record", name)
				continue
			}
			if d.Decision != "allow" || d.Action != "read" || d.Archive != audit.Part || d.Line == "" || d.Subject != "alice" || was.Delivery != audit.Complete || was.Bytes != int64(len(text)) || was.Archive != audit.Part {
				t.Errorf("%q: %+v, %+v", name, d, was)
			}
		}
		if len(decided) != len(want)+1 {
			t.Errorf("%d records", len(decided))
		}
		if whole := delivered["/project/"]; whole.Archive != audit.Whole || whole.Delivery != audit.Complete || whole.Bytes != int64(len(r.body)) {
			t.Errorf("the archive: %+v", whole)
		}
		out, err := s.command(binary, "audit", "--config", "securefiles.yaml", "--path", "/project/plan.txt", "--json").CombinedOutput()
		if n := strings.Count(string(out), `"archive":"part"`); err != nil || n != 2 {
			t.Errorf("who got this file: %d, %v:\n%s", n, err, out)
		}
		if part := s.status("alice", "/downloads/project/?zip", 200, with("Range", "bytes=0-9")); len(part.body) != len(r.body) {
			t.Errorf("a range is %d bytes", len(part.body))
		}
		head := s.status("alice", "/downloads/project/?zip", 200, func(r *http.Request) { r.Method = "HEAD" })
		if head.body != "" || head.header.Get("Content-Length") != strconv.Itoa(len(r.body)) {
			t.Errorf("HEAD: %q, %v", head.body, head.header)
		}
		if page := s.status("alice", "/downloads/project/", 200, with("Accept-Language", "de")); !strings.Contains(page.body, `<a href="/downloads/project/?zip">Alles herunterladen (zip)</a>`) {
			t.Errorf("the page offers none:\n%s", page.body)
		}
		for _, other := range []string{"?zip=1", "?ZIP", "?zip&x", "?x&zip", "?z%69p"} {
			if r := s.status("alice", "/downloads/project/"+other, 200); r.header.Get("Content-Type") != "text/html; charset=utf-8" {
				t.Errorf("%s is %s", other, r.header.Get("Content-Type"))
			}
		}
		s.status("bob", "/downloads/project/?zip", 404)
		s.status("", "/downloads/project/?zip", 401)
		s.status("alice", "/downloads/project/none/?zip", 404)
		s.status("alice", "/downloads/project/hr/?zip", 404)
		s.status("alice", "/downloads/project/plan.txt/?zip", 404)
		s.status("alice", "/downloads/project/linked/?zip", 404)
		s.status("alice", "/_securefiles/archive", 404)
		s.replace("policy.csv", listingPolicy+"p, editor, /project/plan.txt, read, deny\np, editor, /project/sub/, list, deny\n")
		s.eventually("the deny counts", func() bool {
			got := s.unzip(s.status("alice", "/downloads/project/?zip", 200).body)
			_, plan := got["plan.txt"]
			return !plan && len(got) == 5 && !strings.Contains(fmt.Sprint(got), "sub/")
		})
		if strings.Contains(s.status("alice", "/downloads/project/?zip", 200).body, "CANARY") {
			t.Error("what is hidden is there")
		}
	})
}

// More than there may be is refused before a byte, and so is what limits do not permit, and
// what cannot be recorded.
func TestAnArchiveHasBounds(t *testing.T) {
	t.Parallel()
	inArchives(t, func(t *testing.T, front string) {
		files := map[string]string{"project/a/1": "x", "project/a/2": "x", "project/b/1": strings.Repeat("x", 1000), "project/b/2": strings.Repeat("x", 1001), "project/hr/1": strings.Repeat("x", 5000), "project/c/1": strings.Repeat("y", 2000), "project/c/2": ""}
		s := archived(t, front, "entries: 2, bytes: 2000", "", plan{files: files})
		s.status("alice", "/downloads/project/a/?zip", 200)
		for _, folder := range []string{"project/", "project/b/"} {
			if r := s.status("alice", "/downloads/"+folder+"?zip", 413); !strings.Contains(r.body, "at most 2 files and folders and 2.0 KiB") || !strings.Contains(r.body, "zu groß") {
				t.Errorf("%s: %q", folder, r.body)
			}
		}
		r := s.status("alice", "/downloads/project/c/?zip", 200)
		if got := s.unzip(r.body); len(got) != 2 || len(got["1"]) != 2000 {
			t.Errorf("at the bounds: %v", got)
		}
	})
}

func TestLimitOfArchives(t *testing.T) {
	t.Parallel()
	const size = 600 << 10
	s := archived(t, "nginx", "entries: 9, bytes: 100MiB", "proof_secret_file: proof\nlimits: [{name: day, per: subject, bytes: 1MiB/24h}]\n", plan{before: func(s *site) {
		s.write("proof", strings.Repeat("p", 32)+"\n") // nginx takes a proved word alone for which page it is
		s.printProof()
	}, files: map[string]string{"project/a/1": strings.Repeat("x", size), "project/b/1": "x", "project/c/1": strings.Repeat("x", size)}})
	first := s.status("alice", "/downloads/project/a/?zip", 200)
	s.ofArchive(first.header.Get("X-Request-Id"), "/project/a/")
	refused := s.status("alice", "/downloads/project/c/?zip", 429)
	if refused.header.Get("Retry-After") == "" || strings.Contains(refused.body, "PK") {
		t.Errorf("%v %q", refused.header, refused.body)
	}
	s.status("alice", "/downloads/project/b/?zip", 200)
	id := refused.header.Get("X-Request-Id")
	s.eventually("nothing of it is delivered", func() bool {
		all, _ := s.records("audit.jsonl")
		return slices.ContainsFunc(all, func(r *audit.Record) bool {
			return r.Request == id && r.Type == audit.TypeDelivery && r.Delivery == audit.None
		}) && slices.ContainsFunc(all, func(r *audit.Record) bool { return r.Request == id && r.Reason == "quota" && r.Status == 429 })
	})
}

// An archive at a time: the place is taken while it is sent, and free when it is broken off.
func TestLimitOfArchivesAtATime(t *testing.T) {
	t.Parallel()
	s := archived(t, "nginx", "entries: 9, bytes: 1GiB", "limits: [{name: one, per: subject, downloads: 1}]\n", plan{files: map[string]string{"project/a/1": strings.Repeat("x", 64<<20), "project/b/1": "x"}})
	first := s.open("/downloads/project/a/?zip", func(r *http.Request) { r.SetBasicAuth("alice", "alice") })
	if first.StatusCode != 200 {
		t.Fatal(first.StatusCode)
	}
	s.status("alice", "/downloads/project/b/?zip", 429)
	if err := first.Body.Close(); err != nil {
		t.Fatal(err)
	}
	s.eventually("the place is free", func() bool { return s.get("alice", "/downloads/project/b/?zip").status == 200 })
	_, delivered := s.ofArchive(first.id, "/project/a/")
	if r := delivered["/project/a/1"]; r == nil || r.Delivery != audit.Aborted || r.Bytes != 0 {
		t.Errorf("who hung up: %+v", r)
	}
	if r := delivered["/project/a/"]; r.Delivery != audit.Aborted || r.Bytes == 0 {
		t.Errorf("who hung up: %+v", r)
	}
}

// What changes while it is sent ends the archive in its middle, whatever becomes of it.
func TestAnArchiveThatChangesIsBrokenOff(t *testing.T) {
	t.Parallel()
	const size = 24 << 20
	for name, change := range map[string]func(file string) error{
		"shrinks": func(file string) error { return os.Truncate(file, 5) },
		"grows":   func(file string) error { return os.Truncate(file, size+1) },
		"is gone": os.Remove,
		"is another": func(file string) error {
			return errors.Join(os.Remove(file), os.WriteFile(file, make([]byte, size), 0o600))
		},
		"is a folder": func(file string) error { return errors.Join(os.Remove(file), os.Mkdir(file, 0o755)) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			inArchives(t, func(t *testing.T, front string) {
				s := archived(t, front, "entries: 9, bytes: 1GiB", "", plan{files: map[string]string{"project/a": strings.Repeat("x", size), "project/b": strings.Repeat("x", size)}})
				r := s.open("/downloads/project/?zip", func(r *http.Request) { r.SetBasicAuth("alice", "alice") })
				if r.StatusCode != 200 {
					t.Fatal(r.StatusCode)
				}
				if err := change(filepath.Join(s.root, "project", "b")); err != nil { // which was not opened, but looked at
					t.Fatal(err)
				}
				body, err := io.ReadAll(r.Body)
				if err == nil {
					t.Fatalf("%d bytes came as if whole", len(body))
				}
				if _, err := zip.NewReader(bytes.NewReader(body), int64(len(body))); err == nil {
					t.Error("it unzips")
				}
				_, delivered := s.ofArchive(r.id, "/project/")
				for _, path := range []string{"/project/", "/project/a", "/project/b"} {
					if d := delivered[path]; d == nil || d.Delivery != audit.Aborted {
						t.Errorf("%s: %+v", path, d)
					}
				}
			})
		})
	}
}

// Without a record there is no archive.
func TestAnArchiveIsRecordedOrNotSent(t *testing.T) {
	t.Parallel()
	files := map[string]string{}
	for i := range 400 {
		files[fmt.Sprintf("project/%03d", i)] = "x"
	}
	s := archived(t, "nginx", "entries: 999, bytes: 1GiB", "", plan{files: files, before: func(s *site) {
		s.mounted("disk", 64<<10)
		s.edit("securefiles.yaml", "audit.jsonl", "disk/audit.jsonl")
	}})
	r := s.status("alice", "/downloads/project/?zip", 503) // the folder's record has room, the files' have not
	if strings.Contains(r.body, "PK") || r.header.Get("Retry-After") == "" {
		t.Errorf("%q %v", r.body, r.header)
	}
}

// Over 4 GiB: ZIP64, and no memory for it.
func TestAnArchiveOfMoreThan4GiB(t *testing.T) {
	t.Parallel()
	size := int64(256 << 20)
	if os.Getenv("SECUREFILES_TEST_LONG") != "" {
		size = 4<<30 + 5
	}
	s := archived(t, "nginx", "entries: 9, bytes: 10GiB", "", plan{files: map[string]string{"project/a": "", "project/b": "last"}, before: func(s *site) {
		if err := os.Truncate(filepath.Join(s.root, "project", "a"), size); err != nil {
			t.Fatal(err)
		}
	}})
	r := s.open("/downloads/project/?zip", func(r *http.Request) { r.SetBasicAuth("alice", "alice") })
	if r.StatusCode != 200 {
		t.Fatal(r.StatusCode)
	}
	end := &tailOf{keep: 400}
	n, err := io.Copy(end, r.Body)
	if err != nil || n != r.ContentLength || n <= size || !bytes.Contains(end.last, []byte("last")) {
		t.Errorf("%d of %d bytes: %v", n, r.ContentLength, err)
	}
	if is64 := bytes.Contains(end.last, le.LittleEndian.AppendUint32(nil, 0x06064b50)); is64 != (size > 4<<30) {
		t.Errorf("ZIP64: %t", is64)
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.daemon.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		var kib int
		if _, err := fmt.Sscanf(line, "VmHWM: %d kB", &kib); err == nil && kib > 150<<10 {
			t.Errorf("it took %d KiB", kib)
		}
	}
}

// A tailOf keeps the last bytes that are written to it.
type tailOf struct {
	keep int
	last []byte
}

func (w *tailOf) Write(p []byte) (int, error) {
	w.last = append(w.last, p[max(0, len(p)-w.keep):]...)
	w.last = w.last[max(0, len(w.last)-w.keep):]
	return len(p), nil
}
