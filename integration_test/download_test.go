package integration_test

import (
	"errors"
	"fmt"
	"maps"
	"mime"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func TestAllowedAndRefused(t *testing.T) {
	t.Parallel()
	s := start(t, plan{policy: alicesPolicy})
	for _, row := range []struct {
		user, path string
		status     int
		body       string
	}{
		{"", "/downloads/public/welcome.txt", 200, "welcome\n"},
		{"alice", "/downloads/project/plan.txt", 200, "0123456789\n"},
		{"alice", "/downloads/project/plan.txt?download=1", 200, "0123456789\n"},
		{"alice", "/downloads/project/hr/pay.txt", 404, ""},
		{"alice", "/downloads/private/secret.txt", 404, ""},
		{"alice", "/downloads/project/missing.txt", 404, ""},
		{"alice", "/downloads/project/sub", 404, ""},
		{"alice", "/downloads/project/sub/", 400, ""},
		{"alice", "/downloads/", 400, ""},
		{"bob", "/downloads/project/plan.txt", 404, ""},
		{"", "/downloads/project/plan.txt", 401, ""},
		{"", "/downloads/private/secret.txt", 401, ""},
		{"", "/downloads/../private/secret.txt", 404, ""},
		{"alice", "/protected/project/plan.txt", 404, ""},
		{"", "/-securefiles-question", 404, ""},
	} {
		r := s.status(row.user, row.path, row.status)
		if row.body != "" && r.body != row.body {
			t.Errorf("%s: body %q", row.path, r.body)
		}
		if r.header.Get("X-Request-Id") == "" && strings.HasPrefix(row.path, "/downloads/p") {
			t.Errorf("%s: no request id: %v", row.path, r.header)
		}
	}
	r := s.get("", "/downloads/project/plan.txt")
	if got := r.header.Get("WWW-Authenticate"); got != `Basic realm="downloads", charset="UTF-8"` {
		t.Errorf("WWW-Authenticate: %q", got)
	}
	r = s.get("", "/downloads/project/plan.txt", func(r *http.Request) { r.SetBasicAuth("alice", "wrong") })
	if r.status != 401 || r.header.Get("WWW-Authenticate") == "" {
		t.Errorf("wrong password: %d %v", r.status, r.header)
	}
	// Bad credentials do not fall back to anonymous, though anyone may read it.
	r = s.get("", "/downloads/public/welcome.txt", func(r *http.Request) { r.SetBasicAuth("alice", "wrong") })
	if r.status != 401 {
		t.Errorf("wrong password on a public file: %d", r.status)
	}
}

func TestRefusedAndMissingLookAlike(t *testing.T) {
	t.Parallel()
	s := start(t, plan{policy: alicesPolicy})
	refused, missing := s.get("alice", "/downloads/private/secret.txt"), s.get("alice", "/downloads/project/missing.txt")
	for _, r := range []reply{refused, missing} {
		for _, name := range []string{"Date", "X-Request-Id"} {
			r.header.Del(name)
		}
	}
	if refused.status != missing.status || refused.body != missing.body || fmt.Sprint(refused.header) != fmt.Sprint(missing.header) {
		t.Errorf("refused %+v\nmissing %+v", refused, missing)
	}
}

func TestDenyStatusOfItsOwn(t *testing.T) {
	t.Parallel()
	s := start(t, plan{policy: alicesPolicy, extra: "downloads:\n  - {name: main, url: /downloads/, internal: /protected/, deny_status: 403, disposition: inline, cache_control: no-cache, content_security_policy: sandbox}\n"})
	s.status("alice", "/downloads/private/secret.txt", 403)
	s.status("", "/downloads/private/secret.txt", 401)
	r := s.status("alice", "/downloads/project/page.html", 200)
	for name, want := range map[string]string{
		"Content-Disposition":     `inline; filename="page.html"; filename*=UTF-8''page.html`,
		"Cache-Control":           "no-cache",
		"Content-Security-Policy": "sandbox",
		"X-Content-Type-Options":  "nosniff",
		"Content-Type":            "text/html",
	} {
		if got := r.header.Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}

func TestOnlyGetAndHeadAreDownloads(t *testing.T) {
	t.Parallel()
	s := start(t, plan{policy: alicesPolicy})
	for _, method := range []string{"POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "PROPFIND", "MKCOL"} {
		r := s.get("alice", "/downloads/project/plan.txt", func(r *http.Request) { r.Method = method })
		if r.status != 405 || strings.Contains(r.body, "0123") {
			t.Errorf("%s: %d %q", method, r.status, r.body)
		}
	}
	head := s.get("alice", "/downloads/project/plan.txt", func(r *http.Request) { r.Method = "HEAD" })
	if head.status != 200 || head.body != "" || head.header.Get("Content-Length") != "11" {
		t.Errorf("HEAD: %+v", head)
	}
	r, err := raw(s.web, "GET", []byte("GET /downloads/project/plan.txt HTTP/1.1\r\nHost: x\r\n"+aliceCredentials+"Content-Length: 5\r\nConnection: close\r\n\r\nhello"))
	if err != nil || r.status != 413 {
		t.Errorf("GET with a body: %+v, %v", r, err)
	}
}

func TestRangesResumptionAndConditions(t *testing.T) {
	t.Parallel()
	s := start(t, plan{policy: alicesPolicy})
	const path = "/downloads/project/plan.txt"
	whole := s.status("alice", path, 200)
	etag, modified := whole.header.Get("ETag"), whole.header.Get("Last-Modified")
	if etag == "" || modified == "" {
		t.Fatalf("no validators: %v", whole.header)
	}
	for _, row := range []struct {
		name   string
		edit   []func(*http.Request)
		status int
		body   string
	}{
		{"first bytes", []func(*http.Request){with("Range", "bytes=0-3")}, 206, "0123"},
		{"from the middle", []func(*http.Request){with("Range", "bytes=5-")}, 206, "56789\n"},
		{"the end", []func(*http.Request){with("Range", "bytes=-3")}, 206, "89\n"},
		{"beyond the end", []func(*http.Request){with("Range", "bytes=100-")}, 416, ""},
		{"resume, unchanged", []func(*http.Request){with("Range", "bytes=5-"), with("If-Range", etag)}, 206, "56789\n"},
		{"resume, changed", []func(*http.Request){with("Range", "bytes=5-"), with("If-Range", `"other"`)}, 200, "0123456789\n"},
		{"not modified by tag", []func(*http.Request){with("If-None-Match", etag)}, 304, ""},
		{"not modified by date", []func(*http.Request){with("If-Modified-Since", modified)}, 304, ""},
		{"precondition", []func(*http.Request){with("If-Match", `"other"`)}, 412, ""},
	} {
		r := s.get("alice", path, row.edit...)
		if r.status != row.status || row.body != "" && r.body != row.body {
			t.Errorf("%s: %d %q, want %d %q", row.name, r.status, r.body, row.status, row.body)
		}
		if refused := s.get("bob", path, row.edit...); refused.status != 404 {
			t.Errorf("%s as bob: %d", row.name, refused.status)
		}
	}
	multi := s.get("alice", path, with("Range", "bytes=0-1,4-5"))
	if multi.status != 206 || !strings.HasPrefix(multi.header.Get("Content-Type"), "multipart/byteranges") || !strings.Contains(multi.body, "45") {
		t.Errorf("two ranges: %+v", multi)
	}
}

// S6, S13: every kind of file name is served byte for byte, and its name comes
// back. S28: GHSA-2c4m-59x9-fr2g (setup.bat";x=.txt), CVE-2022-36359.
func TestFileNames(t *testing.T) {
	t.Parallel()
	names := []string{
		"plain.txt", "sp ace.txt", "two  spaces.txt", "plus+plus.txt", "percent%.txt", "100%25.txt", "%41.txt", "semi;colon.txt",
		"what?.txt", "q?v=1", "hash#tag.txt", "amp&and.txt", "eq=uals.txt", "comma,comma.txt", `quote".txt`, "apos'.txt",
		"paren(1).txt", "bracket[1].txt", "brace{1}.txt", "tilde~.txt", "at@.txt", "dollar$HOME.txt", "bang!.txt", "star*.txt",
		"colon:.txt", "pipe|.txt", "caret^.txt", "back`tick.txt", "lt<gt>.txt", "dots..in..name", "a..", "...", ".hidden", "-dash",
		"trailing.", "café-nfc.txt", "cafe\u0301-nfd.txt", "日本語.txt", "emoji😀.txt", "عربي.txt", "русский.txt", "\u202egpj.exe",
		"zero\u200bwidth.txt", "nb\u00a0sp.txt", strings.Repeat("L", 251) + ".txt", strings.Repeat("あ", 85), "setup.bat;x=.txt",
	}
	files := map[string]string{}
	for i, n := range names {
		files["names/"+n] = fmt.Sprintf("file %d\n", i)
	}
	s := start(t, plan{policy: "p, @anyone, /names/**, read, allow\n", files: files})
	for i, n := range names {
		var escaped strings.Builder
		for _, b := range []byte(n) {
			fmt.Fprintf(&escaped, "%%%02x", b)
		}
		for _, target := range []string{"/downloads/names/" + url.PathEscape(n), "/downloads/names/" + escaped.String()} {
			r, err := raw(s.web, "GET", []byte("GET "+target+" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"))
			if err != nil {
				t.Errorf("%q: %v", n, err)
				continue
			}
			if r.status != 200 || r.body != fmt.Sprintf("file %d\n", i) {
				t.Errorf("%q as %s: status %d, body %q", n, target, r.status, r.body)
			}
			_, params, err := mime.ParseMediaType(r.header.Get("Content-Disposition"))
			if err != nil || params["filename"] != n {
				t.Errorf("%q: Content-Disposition %q gives %q, %v", n, r.header.Get("Content-Disposition"), params["filename"], err)
			}
		}
	}
}

// S13: a parser in another language reads the header as meant.
func TestDispositionReadByPython(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("python3 is not here")
	}
	t.Parallel()
	files := map[string]string{`a"b;c%.txt`: "x", "naïve – file.txt": "x", "日本.txt": "x"}
	s := start(t, plan{policy: "p, @anyone, /**, read, allow\n", files: files})
	for name := range files {
		value := s.status("", "/downloads/"+url.PathEscape(name), 200).header.Get("Content-Disposition")
		// The extended parameter alone, decoded by RFC 2231 as Python knows it.
		script := `import sys, email.utils, urllib.parse
value = sys.argv[1].split("filename*=", 1)[1]
charset, _, text = value.split("'", 2)
print(urllib.parse.unquote(text, encoding=charset))`
		out, err := exec.Command(python, "-c", script, value).Output()
		if err != nil || strings.TrimSuffix(string(out), "\n") != name {
			t.Errorf("%q: python reads %q, %v", name, out, err)
		}
	}
}

// 1 GiB: nginx sends it. It costs the service what a small file costs, a
// decision.
func TestLargeFileCostsTheServiceNothing(t *testing.T) {
	const size = 1 << 30
	s := start(t, plan{policy: "p, @anyone, /**, read, allow\n"})
	file, err := os.Create(filepath.Join(s.root, "large.bin"))
	if err != nil {
		t.Fatal(err)
	}
	if err := file.Truncate(size); err != nil { // sparse
		t.Fatal(err)
	}
	if _, err := file.WriteAt([]byte("the end"), size-7); err != nil {
		t.Fatal(err)
	}
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
	curl, err := exec.LookPath("curl")
	if err != nil {
		t.Fatal("curl is not installed: `make test` installs it")
	}
	// Not below the directory of the policy, which the service watches.
	out := filepath.Join(t.TempDir(), "download.bin")
	download := func(name string) {
		t.Helper()
		address := "http://" + s.web + "/downloads/" + name
		info, err := os.Stat(filepath.Join(s.root, name))
		if err != nil {
			t.Fatal(err)
		}
		// The first half by range, then the rest by resuming.
		for _, args := range [][]string{
			{"-sf", "-r", fmt.Sprintf("0-%d", info.Size()/2-1), "-o", out, address},
			{"-sf", "-C", "-", "-o", out, address},
		} {
			if text, err := exec.Command(curl, args...).CombinedOutput(); err != nil {
				t.Fatalf("curl %v: %v %s", args, err, text)
			}
		}
	}
	decisions := func() string {
		return s.metric(`securefiles_decisions_total{decision="allow",download="main",reason="policy"}`)
	}
	download("project/plan.txt") // the first requests set things up
	if err := os.Remove(out); err != nil {
		t.Fatal(err)
	}
	before := decisions()
	memory, ticks := usage(t, s.daemon.Process.Pid)
	download("large.bin")
	memoryAfter, ticksAfter := usage(t, s.daemon.Process.Pid)
	if asked, _ := strconv.Atoi(decisions()); strconv.Itoa(asked-2) != before {
		t.Errorf("two requests took the decisions from %s to %d", before, asked)
	}
	// Two decisions take well under a tick (10 ms); the rest is for the
	// runtime's own upkeep. A byte copied through would cost seconds.
	if memoryAfter > memory+4<<20 || ticksAfter > ticks+3 {
		t.Errorf("the service went from %d to %d bytes and used %d ticks", memory, memoryAfter, ticksAfter-ticks)
	}
	// Nor does a directory in which something is written all the time.
	_, ticks = usage(t, s.daemon.Process.Pid)
	if text, err := exec.Command(curl, "-sf", "-r", "0-268435455", "-o", filepath.Join(s.dir, "busy.bin"), "http://"+s.web+"/downloads/large.bin").CombinedOutput(); err != nil {
		t.Fatalf("curl: %v %s", err, text)
	}
	if _, ticksAfter := usage(t, s.daemon.Process.Pid); ticksAfter > ticks+15 {
		t.Errorf("a busy directory beside the policy cost %d ticks", ticksAfter-ticks)
	}

	got, err := os.Open(out)
	if err != nil {
		t.Fatal(err)
	}
	defer got.Close() // read-only
	end := make([]byte, 7)
	if n, err := got.ReadAt(end, size-7); n != 7 || string(end) != "the end" {
		t.Errorf("ends in %q, %v", end, err)
	}
	if info, err := got.Stat(); err != nil || info.Size() != size {
		t.Errorf("downloaded %v, %v", info, err)
	}
	if r := s.status("", "/downloads/large.bin", 206, with("Range", "bytes=-7")); r.body != "the end" {
		t.Errorf("the last bytes are %q", r.body)
	}
}

// usage returns a process's resident bytes and CPU ticks (proc(5)).
func usage(t *testing.T, pid int) (memory, ticks int) {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), ") ")
	f := strings.Fields(rest) // field 3 of proc(5) is f[0]
	user, _ := strconv.Atoi(f[11])
	system, _ := strconv.Atoi(f[12])
	pages, _ := strconv.Atoi(f[21])
	return pages * os.Getpagesize(), user + system
}

func TestUnixSocketIsForNginxAlone(t *testing.T) {
	t.Parallel()
	s := start(t, plan{policy: alicesPolicy, unix: true})
	s.status("alice", "/downloads/project/plan.txt", 200)
	s.status("bob", "/downloads/project/plan.txt", 404)
	if os.Getuid() != 0 {
		info, err := os.Stat(strings.TrimPrefix(s.service, "unix:"))
		if err != nil || info.Mode().Perm() != 0o660 {
			t.Errorf("the socket's mode is %v, %v", info.Mode(), err)
		}
	}
}

func TestPeerOfAnotherUserIsRefused(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root, so that nginx's workers are another user")
	}
	t.Parallel()
	s := start(t, plan{policy: alicesPolicy, unix: true, extra: "listen_peer_uids: [54321]\n"})
	s.status("alice", "/downloads/project/plan.txt", 503)
}

func TestProxySecret(t *testing.T) {
	t.Parallel()
	s := start(t, plan{policy: alicesPolicy, extra: "proxy_secret_file: secret\n", edit: func(_ *site, conf string) string {
		return strings.Replace(conf, "proxy_set_header Cookie ", "include securefiles-secret.conf;\n proxy_set_header Cookie ", 1)
	}, before: func(s *site) {
		s.write("secret", strings.Repeat("s", 32)+"\n")
		s.write("securefiles-secret.conf", `proxy_set_header X-Securefiles-Proxy-Secret "`+strings.Repeat("s", 32)+"\";\n")
	}})
	s.status("alice", "/downloads/project/plan.txt", 200)
	req, err := http.NewRequest(http.MethodGet, "http://"+s.service+"/authorize", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-Original-URI", "/downloads/public/welcome.txt")
	req.Header.Set("X-Original-Method", "GET")
	if r, err := do(newClient(), req); err != nil || r.status != 403 {
		t.Errorf("without the secret: %+v, %v", r, err)
	}
}

func TestNothingIsServedFromADirectoryPipeOrDevice(t *testing.T) {
	t.Parallel()
	s := start(t, plan{policy: "p, @anyone, /**, read, allow\n"})
	if err := syscall.Mkfifo(filepath.Join(s.root, "pipe"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"pipe", "project", "project/sub"} {
		if r := s.status("", "/downloads/"+path, 404); r.header.Get("Location") != "" {
			t.Errorf("%s: Location %q", path, r.header.Get("Location"))
		}
	}
}

// openings are the ways in which nginx opens a file: each has its own look before it, and
// its own cache.
func openings() map[string]plan {
	all := map[string]plan{}
	for _, front := range []string{"nginx", "classic"} {
		for _, links := range []string{"false", "true"} {
			for _, kept := range []string{"0", "100"} {
				all["front "+front+", links "+links+", kept "+kept] = plan{policy: "p, @anyone, /**, read, allow\n", printed: true, extra: fmt.Sprintf("nginx: {open_file_cache: %s}\n"+
					"downloads: [{name: main, url: /downloads/, internal: /protected/, root: /var/www/securefiles, front: %s, insecure_follow_symlinks: %s}]\n", kept, front, links)}
			}
		}
	}
	return all
}

// What nginx looked at may be another thing when it opens it. A directory has it redirect to
// itself by its internal name: nobody sees that, whether the look is wrong …
func TestADirectoryInThePlaceOfAFileShowsNoInternalName(t *testing.T) {
	t.Parallel()
	for name, p := range openings() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p.edit = func(_ *site, conf string) string {
				if len(looks.FindAllString(conf, -1)) != 1 {
					t.Errorf("nginx looks at files %d times", len(looks.FindAllString(conf, -1)))
				}
				return looks.ReplaceAllString(conf, "")
			}
			s := start(t, p)
			for _, path := range []string{"/downloads/project", "/downloads/project/sub?x=1"} {
				r := s.status("", path, 404)
				if b := breach(&r, s.root); b != "" || r.header.Get("Location") != "" || r.header.Get("Cache-Control") != "no-store" {
					t.Errorf("%s: %s; %v", path, b, r.header)
				}
			}
		})
	}
}

// … or out of date. And a file that nginx may not read is as one that is missing.
func TestAFileThatBecomesADirectoryIsEitherOfThem(t *testing.T) {
	t.Parallel()
	for name, p := range openings() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p.files = map[string]string{"a/changes": "file", "a/directory/below": "x", "a/unreadable": "x"}
			s := start(t, p)
			if err := os.Chmod(filepath.Join(s.root, "a/unreadable"), 0); err != nil {
				t.Fatal(err)
			}
			missing, unreadable := s.status("", "/downloads/a/missing", 404), s.status("", "/downloads/a/unreadable", 404)
			for _, h := range []http.Header{missing.header, unreadable.header} {
				h.Del("Date")
				h.Del("X-Request-Id")
			}
			if unreadable.body != missing.body || !maps.EqualFunc(unreadable.header, missing.header, slices.Equal) {
				t.Errorf("unreadable: %v %q\nmissing: %v %q", unreadable.header, unreadable.body, missing.header, missing.body)
			}
			var swapping sync.WaitGroup
			over := make(chan struct{})
			swapping.Go(func() {
				for {
					select {
					case <-over:
						return
					default:
					}
					if err := unix.Renameat2(unix.AT_FDCWD, filepath.Join(s.root, "a/changes"), unix.AT_FDCWD, filepath.Join(s.root, "a/directory"), unix.RENAME_EXCHANGE); err != nil {
						t.Error(err)
						return
					}
				}
			})
			defer swapping.Wait()
			defer close(over)
			for range 100 {
				r := s.get("", "/downloads/a/changes")
				if b := breach(&r, s.root); b != "" || r.header.Get("Location") != "" || r.status != 404 && (r.status != 200 || r.body != "file") {
					t.Fatalf("%d %q %s; %v", r.status, r.body, b, r.header)
				}
			}
		})
	}
}

// openFiles has nginx keep files open.
const openFiles = "nginx: {open_file_cache: 100}\ndownloads: [{name: main, url: /downloads/, internal: /protected/, root: /var/www/securefiles}]\n"

// What is done to a file that nginx keeps open counts after a second, and until then it is
// the file as it was: never another one.
func TestAFileThatIsKeptOpenIsSentForASecondMore(t *testing.T) {
	t.Parallel()
	s := start(t, plan{policy: "p, @anyone, /**, read, allow\n", printed: true, extra: openFiles, files: map[string]string{
		"a/removed": "old", "a/replaced": "old", "a/linked": "old", "a/directory": "old", "b/below": "old",
	}})
	s.write("secret/below", "CANARY DENY secret")
	if err := os.Mkdir(filepath.Join(s.dir, "empty"), 0o755); err != nil {
		t.Fatal(err)
	}
	at := func(name string) string { return filepath.Join(s.root, name) }
	for _, row := range []struct {
		name    string
		change  func() error
		status  int
		body    string
		missing bool // at once
	}{
		{"a/removed", func() error { return os.Remove(at("a/removed")) }, 404, "", true},
		{"a/replaced", func() error { s.replace("files/a/replaced", "new"); return nil }, 200, "new", false},
		{"a/linked", func() error { s.relink("files/a/linked", filepath.Join(s.dir, "secret/below")); return nil }, 404, "", false},
		{"a/directory", func() error {
			return errors.Join(os.Remove(at("a/directory")), os.Rename(filepath.Join(s.dir, "empty"), at("a/directory")))
		}, 404, "", true},
		{"b/below", func() error {
			return errors.Join(os.Rename(at("b"), at("was")), os.Symlink(filepath.Join(s.dir, "secret"), at("b")))
		}, 404, "", false},
	} {
		if r := s.status("", "/downloads/"+row.name, 200); r.body != "old" {
			t.Fatalf("%s: %q", row.name, r.body)
		}
		if err := row.change(); err != nil {
			t.Fatal(err)
		}
		if row.missing { // nginx looks each time whether there is a file
			s.status("", "/downloads/"+row.name, 404)
		}
		s.eventually(row.name+" is what it became", func() bool {
			r := s.get("", "/downloads/"+row.name)
			old, new := r.status == 200 && r.body == "old", r.status == row.status && (row.body == "" || r.body == row.body)
			if b := breach(&r, s.root); b != "" || !old && !new && r.status != 404 {
				t.Fatalf("%s: %d %q %s", row.name, r.status, r.body, b)
			}
			return new
		})
	}
}

// What the server around the snippet says of open files holds for guarded ones: the look before them does not put it out of use.
func TestAnOpenFileCacheOfTheServersOwnIsOfUse(t *testing.T) {
	t.Parallel()
	s := start(t, plan{policy: "p, @anyone, /**, read, allow\n", edit: func(_ *site, conf string) string {
		conf = regexp.MustCompile(`worker_processes .*;`).ReplaceAllString(conf, "worker_processes 1;") // each has its own
		return strings.Replace(conf, "http {\n", "http {\n    open_file_cache max=10;\n    open_file_cache_valid 1h;\n", 1)
	}})
	before := s.status("", "/downloads/public/welcome.txt", 200)
	s.replace("files/public/welcome.txt", "another\n")
	if r := s.status("", "/downloads/public/welcome.txt", 200); r.body != before.body {
		t.Errorf("after %q comes %q: it was opened again", before.body, r.body)
	}
}
