package integration_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
)

const listingPolicy = alicesPolicy + `
p, editor, /project/**, list, allow
p, editor, /project/hr/**, list, deny
p, @anyone, /public/, list, allow
`

// inEachFront are the ways in which directories are listed.
func inEachFront(t *testing.T, p plan, test func(*testing.T, *site)) {
	t.Helper()
	p.extra += "downloads: [{name: main, url: /downloads/, internal: /protected/, root: ROOT, listing: true}]\n"
	before := p.before
	for _, front := range []string{"nginx", "direct"} {
		t.Run(front, func(t *testing.T) {
			t.Parallel()
			p := p
			p.direct = front == "direct"
			p.before = func(s *site) {
				s.edit("securefiles.yaml", "ROOT", s.root)
				if before != nil {
					before(s)
				}
			}
			test(t, start(t, p))
		})
	}
}

type shown struct {
	Path    string `json:"path"`
	Total   int    `json:"total"`
	Next    string `json:"next"`
	Entries []struct{ Name, Type, URL string }
}

func (s *site) list(user, path string) shown {
	s.t.Helper()
	r := s.status(user, path, 200, with("Accept", "application/json"))
	var d shown
	if err := json.Unmarshal([]byte(r.body), &d); err != nil || r.header.Get("Content-Type") != "application/json" {
		s.t.Fatalf("%s: %q: %v", path, r.body, err)
	}
	return d
}

func (d shown) String() string {
	var names []string
	for _, e := range d.Entries {
		names = append(names, e.Name+map[string]string{"directory": "/"}[e.Type])
	}
	return strings.Join(names, " ")
}

func TestListing(t *testing.T) {
	t.Parallel()
	inEachFront(t, plan{policy: listingPolicy, extra: "audit: {file: audit.jsonl}\n"}, func(t *testing.T, s *site) {
		if d := s.list("alice", "/downloads/project/"); d.String() != "sub/ page.html plan.txt" || d.Total != 3 || d.Path != "/project/" {
			t.Errorf("alice sees %s of %+v", d, d)
		}
		if d := s.list("", "/downloads/public/"); d.String() != "welcome.txt" {
			t.Errorf("anyone sees %s", d)
		}
		if d := s.list("alice", "/downloads/project/?format=json&sort=name&order=desc"); d.String() != "sub/ plan.txt page.html" {
			t.Errorf("the other way round: %s", d)
		}
		r := s.status("alice", "/downloads/project/", 200, with("Accept", "text/html"))
		for name, want := range map[string]string{
			"Content-Type": "text/html; charset=utf-8", "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer",
			"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; img-src data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'", "X-Securefiles-Page": "", "Content-Disposition": "",
		} {
			if got := r.header.Get(name); got != want {
				t.Errorf("%s: %q, want %q", name, got, want)
			}
		}
		if !strings.Contains(r.body, `href="/downloads/project/plan.txt"`) || strings.Contains(r.body, "/hr/") {
			t.Errorf("the page:\n%s", r.body)
		}
		if r := s.status("alice", "/downloads/project/", 200, func(r *http.Request) { r.Method = "HEAD" }); r.body != "" {
			t.Errorf("HEAD has a body: %q", r.body)
		}
		s.status("alice", "/downloads/project/", 405, func(r *http.Request) { r.Method = "POST" })
		s.status("alice", "/downloads/project/hr/", 404)
		s.status("alice", "/downloads/", 404)
		s.status("alice", "/downloads/project/none/", 404)
		s.status("alice", "/downloads/project/plan.txt/", 404)
		s.status("alice", "/downloads/project/sub", 404) // a file's name is no directory's
		s.status("alice", "/downloads/project//", 400)
		s.status("alice", "/downloads/project/../project/", 400, func(r *http.Request) { r.URL.Opaque = "/downloads/project/%2e%2e/project/" })
		s.status("bob", "/downloads/project/", 404)
		s.status("", "/downloads/project/", 401)
		s.status("alice", "/downloads/project/plan.txt", 200)
		if got := s.metric(`securefiles_decisions_total{decision="allow",download="main",reason="policy"}`); got == "" || got == "0" {
			t.Errorf("allowed decisions: %q", got)
		}
		text, err := os.ReadFile(filepath.Join(s.dir, "audit.jsonl"))
		if err != nil {
			t.Fatal(err)
		}
		found := map[string]int{}
		for line := range bytes.Lines(text) {
			var r struct {
				Type     string `json:"type"`
				Decision string `json:"decision"`
				Action   string `json:"action"`
				Path     string `json:"path"`
				Status   int    `json:"http.response.status_code"`
			}
			if err := json.Unmarshal(line, &r); err != nil {
				t.Fatal(err)
			}
			found[fmt.Sprintf("%s %s %s %d", r.Decision, r.Action, r.Path, r.Status)]++
		}
		if found["allow list /project/ 200"] != 4 || found["deny list /project/hr/ 404"] != 1 || found["allow read /project/plan.txt 200"]+found["allow read /project/plan.txt 204"] != 1 {
			t.Errorf("the record: %v\n%s", found, text)
		}
	})
}

// A page leads to the next, each in its order, through the web server.
func TestListingHasPages(t *testing.T) {
	t.Parallel()
	files := map[string]string{}
	for i := range 1200 {
		files[fmt.Sprintf("project/%04d ü &.txt", i)] = ""
	}
	inEachFront(t, plan{policy: listingPolicy, files: files}, func(t *testing.T, s *site) {
		seen, pages := 0, 0
		for next := "/downloads/project/?format=json"; next != ""; pages++ {
			d := s.list("alice", next)
			for _, e := range d.Entries {
				if e.Name != fmt.Sprintf("%04d ü &.txt", seen) {
					t.Fatalf("entry %d is %s", seen, e.Name)
				}
				seen++
			}
			next = d.Next
		}
		if pages != 3 || seen != 1200 {
			t.Errorf("%d pages, %d entries", pages, seen)
		}
	})
}

// What a listing shows can be opened, and nothing else is: the corpus's tree, and its
// attacks with a slash behind them.
func TestAttackCorpusListing(t *testing.T) {
	t.Parallel()
	inEachFront(t, plan{policy: corpusPolicy + "p, alice, /**, list, allow\n", files: map[string]string{}}, func(t *testing.T, s *site) {
		contents := plantTree(t, s.dir)
		href := regexp.MustCompile(`<td role="cell" class="name"><a href="([^"]*)"`)
		opened := map[string]bool{}
		open := func(body string) {
			for _, m := range href.FindAllStringSubmatch(body, -1) {
				if opened[m[1]] {
					continue
				}
				opened[m[1]] = true
				if r := s.get("alice", strings.ReplaceAll(m[1], "&amp;", "&")); r.status != 200 {
					t.Errorf("%s is shown and is %d", m[1], r.status)
				}
			}
		}
		for _, a := range attacks(t) {
			for _, target := range []string{"/downloads/" + bytesOf(a.RawPath), "/downloads/" + bytesOf(a.RawPath) + "/"} {
				r, err := raw(s.web, "GET", []byte("GET "+target+" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"+aliceCredentials+"\r\n"))
				if err != nil {
					continue // no HTTP at all
				}
				if b := breach(r, s.root); b != "" {
					t.Errorf("BREACH %s %q: status %d: %s", a.ID, target, r.status, b)
				}
				if r.status != 200 {
					continue
				}
				if strings.Contains(r.body, "<table") {
					open(r.body)
				}
				if anonymous, err := raw(s.web, "GET", []byte("GET "+target+" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")); err == nil && succeeded(anonymous.status) {
					t.Errorf("%s %q: anonymous got %d", a.ID, target, anonymous.status)
				}
			}
		}
		for _, dir := range []string{"", "pub/", "team/", "names/", "links/", "special/"} {
			open(s.status("alice", "/downloads/"+dir, 200).body)
		}
		n := 0
		for name := range contents {
			if u := (&url.URL{Path: "/downloads/" + name}).EscapedPath(); opened[u] {
				n++
			}
		}
		if n < 20 {
			t.Errorf("%d files were shown and opened", n)
		}
	})
}

// Off until configured: a final slash is refused as ever.
func TestNothingIsListedByItself(t *testing.T) {
	t.Parallel()
	s := start(t, plan{policy: listingPolicy})
	s.status("alice", "/downloads/project/", 400)
	s.status("", "/downloads/public/", 400)
}

// A folder in a browser: on a phone and a desk, by day and by night, with names that mean
// something to HTML, and what a screen reader is told. AXE names axe.min.js of axe-core, by
// which the pages are then judged, SCREENSHOTS a directory for pictures.
func TestAFolderInABrowser(t *testing.T) {
	t.Parallel()
	browser := chromium(t)
	files := map[string]string{}
	for _, name := range []string{
		"plan.txt", "<script>document.title='hacked'</script>.html", `"><img src=x onerror="document.title='hacked'">`, "&lt;b&gt; &amp;.txt", "100% a+b?x=1#y.txt", "日本語.txt", "cafe\u0301.txt", "a\u202efdp.exe",
		"javascript:alert(1)", strings.Repeat("a long name ", 20) + "end.pdf", strings.Repeat("unbroken", 25) + ".bin", "sub/x", "<b>folder</b>/x", "report.pdf",
	} {
		if strings.Contains(name, "</") {
			name = strings.ReplaceAll(name, "</", "<\u2215")
		}
		files["project/"+name] = strings.Repeat("x", len(name)*len(name))
	}
	for i := range 600 {
		files[fmt.Sprintf("project/sub/%03d.txt", i)] = ""
	}
	s := start(t, plan{policy: listingPolicy + "p, @anyone, /project/**, read, allow\np, @anyone, /project/**, list, allow\n", files: files, direct: true,
		extra: "downloads: [{name: main, url: /downloads/, internal: /protected/, root: ROOT, listing: true}]\n", before: func(s *site) {
			s.edit("securefiles.yaml", "ROOT", s.root)
		}})
	axe := ""
	if file := os.Getenv("AXE"); file != "" {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		axe = string(text)
	}
	for page, path := range map[string]string{"folder": "/downloads/project/", "sorted": "/downloads/project/?sort=size&order=desc", "many": "/downloads/project/sub/"} {
		for _, width := range []int64{320, 390, 1280} {
			for _, scheme := range []string{"light", "dark"} {
				at := fmt.Sprintf("%s-%d-%s", page, width, scheme)
				_, err := chromedp.Call(browser, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}})
				if err == nil {
					err = chromedp.Do(browser, chromedp.EmulateViewport(width, 900), chromedp.Navigate("http://"+s.web+path))
				}
				if err != nil {
					t.Fatal(err)
				}
				fits, err := chromedp.Run(browser, chromedp.Evaluate[string](`document.documentElement.scrollWidth + " " + document.title + " " + document.querySelectorAll("tbody tr").length + " " + document.querySelectorAll("script, img, tbody b").length`))
				want := map[string]string{"folder": " project 14 0", "sorted": " project 14 0", "many": " sub 500 0"}[page]
				if err != nil || fits != fmt.Sprint(width)+want {
					t.Errorf("%s: %q, want %d%s: %v", at, fits, width, want, err)
				}
				if dir := os.Getenv("SCREENSHOTS"); dir != "" {
					shot, err := chromedp.Run(browser, chromedp.CaptureScreenshot())
					if err == nil {
						err = os.WriteFile(filepath.Join(dir, at+".png"), shot, 0o600)
					}
					if err != nil {
						t.Fatal(err)
					}
				}
				if axe == "" {
					continue
				}
				if _, err := chromedp.Run(browser, chromedp.Evaluate[any](axe+"; true")); err != nil {
					t.Fatal(err)
				}
				found, err := chromedp.Run(browser, chromedp.Evaluate[string](`axe.run().then(r => r.passes.length + " passed " + JSON.stringify(r.violations.map(v => [v.id, v.help, v.nodes.length, v.nodes[0].html])))`, chromedp.EvalAwaitPromise))
				if err != nil || !strings.HasSuffix(found, " passed []") {
					t.Errorf("%s: axe-core: %s %v", at, found, err)
				}
			}
		}
	}
}

// check tells where the service's user cannot read what it is to list.
func TestCheckTellsThatADirectoryCannotBeListed(t *testing.T) {
	t.Parallel()
	s := start(t, plan{policy: listingPolicy, direct: true, extra: "downloads: [{name: main, url: /downloads/, internal: /protected/, root: ROOT, listing: true}]\n", before: func(s *site) {
		s.edit("securefiles.yaml", "ROOT", s.root)
	}})
	text, err := os.ReadFile(binary)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(s.dir, "securefiles"), text, 0o755); err != nil {
		t.Fatal(err)
	}
	for mode, want := range map[os.FileMode]bool{0o755: false, 0o311: true} {
		if err := os.Chmod(s.root, mode); err != nil {
			t.Fatal(err)
		}
		cmd := s.command(filepath.Join(s.dir, "securefiles"), "check", "--config", "securefiles.yaml")
		if os.Getuid() == 0 { // who may read everything
			cmd.SysProcAttr.Credential = &syscall.Credential{Uid: 65534, Gid: 65534}
		}
		out, _ := cmd.CombinedOutput() // there may be other findings
		if got := strings.Contains(string(out), "listing is on, and whoever runs this command cannot read "+s.root); got != want {
			t.Errorf("mode %o: told %t, want %t:\n%s", mode, got, want, out)
		}
	}
	if err := os.Chmod(s.root, 0o755); err != nil {
		t.Fatal(err)
	}
}
