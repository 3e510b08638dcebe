package integration_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
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

	"securefiles/internal/listing"
)

const listingPolicy = alicesPolicy + `
p, editor, /project/**, list, allow
p, editor, /project/hr/**, list, deny
p, @anyone, /public/, list, allow
`

// inEachFront are the ways in which directories are listed; all where none is named.
func inEachFront(t *testing.T, p plan, test func(*testing.T, *site), fronts ...string) {
	t.Helper()
	if fronts == nil {
		fronts = []string{"nginx", "direct", "classic", "apache", "lighttpd", "caddy"}
	}
	before := p.before
	for _, front := range fronts {
		t.Run(front, func(t *testing.T) {
			t.Parallel()
			p := p
			is := "nginx"
			switch front {
			case "direct":
				p.direct = true
			case "classic":
				p.printed, is = true, front
			case "apache", "lighttpd", "caddy":
				p.front, is = front, front
			}
			p.stored = p.printed // the directory stands in the configuration
			p.extra += "downloads: [{name: main, url: /downloads/, internal: /protected/, root: ROOT, listing: true, front: " + is + "}]\n"
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
			"Content-Type": "text/html; charset=utf-8", "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "Referrer-Policy": "strict-origin", "Cross-Origin-Resource-Policy": "same-origin",
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

// What a bucket holds is listed by policy, a page a call of the store, whatever it is
// called; and nothing of what is above its prefix, or hidden.
func TestListingOfABucket(t *testing.T) { inEachBucket(t, listedBucket) }

func listedBucket(t *testing.T, b *bucket) {
	var want []string
	for _, name := range storeNames() {
		b.put("files", "site/names/"+name, "text of "+name)
		want = append(want, name)
	}
	for _, key := range []string{"site/names/new\u0085line", "site/names/..", "site/names//twice", "site/names/ends ./x", "site/namesake"} {
		b.put("files", key, "CANARY that no request opens")
	}
	for i := range 1100 {
		b.put("files", fmt.Sprintf("site/many/%04d.txt", i), "")
		b.put("files", fmt.Sprintf("site/many/%04d-hidden.txt", i), "")
	}
	const policy = "p, editor, /project/, list, allow\np, editor, /project/*/, list, allow\np, editor, /project/hr/, list, deny\np, editor, /names/**, read, allow\np, editor, /names/**, list, allow\np, editor, /many/**, read, allow\np, editor, /many/, list, allow\np, editor, /many/*-hidden.txt, read, deny\n"
	s := startStored(t, b, "    listing: true\n", func(p *plan) { p.policy = stored + policy })
	b.took()
	if d := s.list("alice", "/downloads/project/?sort=size&order=desc"); d.String() != "page.html plan.txt sub/" {
		t.Errorf("alice sees %s", d)
	}
	if asked := b.took(); len(asked) != 1 || !strings.Contains(asked[0].URL.RawQuery, "site%2Fproject%2F") {
		t.Errorf("the store was asked %d times", len(asked))
	}
	r := s.status("alice", "/downloads/project/", 200, with("Accept", "text/html"))
	for _, not := range []string{"entries", "?sort=", "/hr/", "CANARY", "amz", "goog", "sig="} {
		if strings.Contains(strings.ToLower(r.body), not) {
			t.Errorf("%q stands in the page:\n%s", not, r.body)
		}
	}
	s.status("alice", "/downloads/project/hr/", 404)
	s.status("bob", "/downloads/project/", 404)
	s.status("", "/downloads/project/", 401)
	s.status("alice", "/downloads/names/none/", 404)
	s.status("alice", "/downloads/project/plan.txt/", 404)

	// Each name leads to its object.
	opened := 0
	for next := "/downloads/names/"; next != ""; {
		d := s.list("alice", next)
		for _, e := range d.Entries {
			if e.Type == "directory" {
				continue
			}
			if r := s.status("alice", e.URL, 200); r.body != "text of "+e.Name {
				t.Errorf("%q is %q", e.Name, r.body)
			}
			opened++
		}
		next = d.Next
	}
	flat := 0
	for _, name := range want {
		if !strings.Contains(name, "/") {
			flat++
		}
	}
	if opened != flat {
		t.Errorf("%d names were shown and opened, of %d", opened, flat)
	}

	// Pages lead to each other, and tell nothing of what is hidden.
	seen, pages, cursor := 0, 0, ""
	for next := "/downloads/many/?format=json"; next != ""; pages++ {
		r := s.status("alice", next, 200)
		if strings.Contains(r.body, "hidden") || strings.Contains(r.body, `"total"`) {
			t.Fatalf("%s: %s", next, r.body)
		}
		d := s.list("alice", next)
		for _, e := range d.Entries {
			if e.Name != fmt.Sprintf("%04d.txt", seen) {
				t.Fatalf("entry %d is %s", seen, e.Name)
			}
			seen++
		}
		if next = d.Next; cursor == "" {
			cursor = next
		}
	}
	if seen != 1100 || pages != 5 {
		t.Errorf("%d entries on %d pages", seen, pages)
	}
	_, query, _ := strings.Cut(cursor, "?")
	b.took()
	for _, other := range []string{"/downloads/names/?" + query, "/downloads/many/?after=MDAwMQ", "/downloads/many/?after=site/", "/downloads/many/?after=f:0:0001.txt"} {
		s.status("alice", other, 404)
	}
	if asked := b.took(); len(asked) != 0 {
		t.Errorf("the store was asked by a cursor that is none: %s", asked[0].URL)
	}

	// A store in trouble is 503, whatever it answers.
	for name, instead := range map[string]http.HandlerFunc{
		"trouble": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) },
		"HTML":    func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "<html>CANARY</html>") },
		"redirects": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://"+s.admin+"/metrics", http.StatusFound)
		},
		"refusal":   func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) },
		"no bucket": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotFound) },
		"no answer": func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
	} {
		b.answer(instead)
		if r := s.status("alice", "/downloads/project/", 503); strings.Contains(r.body, "CANARY") || r.header.Get("Retry-After") == "" {
			t.Errorf("%s: %v %s", name, r.header, r.body)
		}
	}
	b.answer(nil)
	s.status("alice", "/downloads/project/", 200)
	for _, line := range strings.Split(s.log.String(), "\n") {
		if low := strings.ToLower(line); strings.Contains(low, "signature=") || strings.Contains(low, "sig=") {
			t.Errorf("the log holds a signature: %s", line)
		}
	}
}

// check --online tells that the credentials cannot list.
func TestCheckTellsThatABucketCannotBeListed(t *testing.T) {
	t.Parallel()
	b := newBucket(t)
	s := startStored(t, b, "    listing: true\n")
	if out := s.run(0, "check", "--online"); strings.Contains(out, "[store]") {
		t.Errorf("nothing is wrong: %s", out)
	}
	b.answer(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Has("list-type") {
			w.WriteHeader(http.StatusForbidden)
			_, _ = io.WriteString(w, "<Error><Code>AccessDenied</Code></Error>")
			return
		}
		w.WriteHeader(http.StatusNotFound)
	})
	if out, _ := s.command(binary, "check", "--online", "--config", "securefiles.yaml").CombinedOutput(); !strings.Contains(string(out), "the credentials may not list: let them s3:ListBucket") {
		t.Errorf("%s", out)
	}
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
				screenshot(t, browser, at)
				judge(t, browser, at)
			}
		}
	}
}

// judge has axe-core look at the page that is open, if AXE names it.
func judge(t *testing.T, browser context.Context, at string) {
	t.Helper()
	file := os.Getenv("AXE")
	if file == "" {
		return
	}
	axe, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := chromedp.Run(browser, chromedp.Evaluate[any](string(axe)+"; true")); err != nil {
		t.Fatal(err)
	}
	found, err := chromedp.Run(browser, chromedp.Evaluate[string](`axe.run().then(r => r.passes.length + " passed " + JSON.stringify(r.violations.map(v => [v.id, v.help, v.nodes.length, v.nodes[0].html])))`, chromedp.EvalAwaitPromise))
	if err != nil || !strings.HasSuffix(found, " passed []") {
		t.Errorf("%s: axe-core: %s %v", at, found, err)
	}
}

// Who may share a file gets a link to it by a button of its folder, without a script, and a
// page of one's own in the place of the service's.
func TestAFolderOffersLinks(t *testing.T) {
	t.Parallel()
	policy := listingPolicy + "p, editor, /project/plan.txt, share, allow\n"
	const links = "links: {keys_file: link-keys.json, api: true}\nstate: {file: state.db}\n"
	inEachFront(t, plan{policy: policy, printed: true, extra: links + "listing: {template: listing.html}\n", before: func(s *site) {
		s.write("listing.html", listing.Page)
		s.run(0, "link", "key", "new")
	}}, func(t *testing.T, s *site) {
		r := s.status("alice", "/downloads/project/", 200, with("Accept", "text/html"))
		if strings.Count(r.body, "<button") != 1 || !strings.Contains(r.body, `<form id="share" method="post" action="/_securefiles/links"><input type="hidden" name="download" value="main"></form>`) ||
			!strings.Contains(r.body, `<button form="share" name="path" value="/project/plan.txt"`) || r.header.Get("Referrer-Policy") != "strict-origin" {
			t.Fatalf("the page: %v\n%s", r.header, r.body)
		}
		if r := s.status("", "/downloads/public/", 200, with("Accept", "text/html")); strings.Contains(r.body, "<form") || strings.Contains(r.body, "<button") {
			t.Errorf("who may share nothing: %s", r.body)
		}
		press := func(path string, edit ...func(*http.Request)) reply {
			t.Helper()
			body := url.Values{"download": {"main"}, "path": {path}}.Encode()
			return s.get("alice", "/_securefiles/links", append([]func(*http.Request){func(r *http.Request) {
				r.Method, r.Body, r.ContentLength = "POST", io.NopCloser(strings.NewReader(body)), int64(len(body))
				r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
				r.Header.Set("Accept-Language", "de")
			}}, edit...)...)
		}
		r = press("/project/plan.txt", with("Origin", "http://"+s.web))
		link := regexp.MustCompile(`http://` + regexp.QuoteMeta(s.web) + `(/downloads/project/plan\.txt\?link=[^<]*)`).FindStringSubmatch(r.body)
		if r.status != 201 || link == nil || !strings.Contains(r.body, "<h1>Ihr Link</h1>") || !strings.Contains(r.header.Get("Content-Security-Policy"), "style-src 'unsafe-inline'") {
			t.Fatalf("%d %v\n%s", r.status, r.header, r.body)
		}
		s.status("", link[1], 200)
		for name, c := range map[string]struct {
			path, header, value string
			want                int
		}{
			"another site's page": {"/project/plan.txt", "Origin", "http://evil.example", 403}, "no page": {"/project/plan.txt", "X-None", "", 403},
			"another site": {"/project/plan.txt", "Sec-Fetch-Site", "cross-site", 403}, "what may not be shared": {"/project/page.html", "Origin", "http://" + s.web, 403},
		} {
			if r := press(c.path, with(c.header, c.value)); r.status != c.want || strings.Contains(r.body, "?link=") {
				t.Errorf("%s: %d %s", name, r.status, r.body)
			}
		}
		s.replace("listing.html", "<h1>Acme</h1>{{range .Rows}}<a href=\"{{.URL}}\">{{.Name}}</a>{{end}}<a href=\"{{.Next}}\"></a>")
		s.eventually("the page of one's own", func() bool {
			return strings.HasPrefix(s.get("alice", "/downloads/project/").body, `<h1>Acme</h1><a href="/downloads/project/sub/">sub</a>`)
		})
		s.replace("listing.html", "\n{{.Nope}}")
		s.eventually("the log tells of the wrong one", func() bool { return strings.Contains(s.log.String(), "listing.html:2: ") })
		if r := s.status("alice", "/downloads/project/", 200); !strings.HasPrefix(r.body, "<h1>Acme</h1>") {
			t.Errorf("after a wrong one: %s", r.body)
		}
	}, "nginx", "direct", "classic")
}

// A person presses the button of a folder, over http, where browsers tell the origin alone.
func TestALinkIsMadeInABrowser(t *testing.T) {
	t.Parallel()
	browser := chromium(t, chromedp.Flag("host-resolver-rules", "MAP files.example.org 127.0.0.1"))
	s := start(t, plan{policy: listingPolicy + "p, editor, /project/**, share, allow\n", printed: true, stored: true, files: map[string]string{"project/plan.txt": "CANARY", "project/a \"b\" <i>&amp;.txt": "CANARY", "project/sub/x": ""},
		extra: "downloads: [{name: main, url: /downloads/, internal: /protected/, root: ROOT, listing: true}]\nlinks: {keys_file: link-keys.json, api: true}\nstate: {file: state.db}\n", before: func(s *site) {
			s.edit("securefiles.yaml", "ROOT", s.root)
			s.run(0, "link", "key", "new")
		}})
	host := strings.Replace(s.web, "127.0.0.1", "files.example.org", 1) // no place that browsers trust without https
	web := "http://alice:alice@" + host
	for _, width := range []int64{390, 1280} {
		for _, scheme := range []string{"light", "dark"} {
			_, err := chromedp.Call(browser, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}})
			if err == nil {
				err = chromedp.Do(browser, chromedp.EmulateViewport(width, 900), chromedp.Navigate(web+"/downloads/project/"))
			}
			if err != nil {
				t.Fatal(err)
			}
			shot := func(name string) {
				judge(t, browser, name)
				fits, err := chromedp.Run(browser, chromedp.Evaluate[int64](`document.documentElement.scrollWidth`))
				if err != nil || fits != width {
					t.Errorf("%s at %d is %d wide: %v", name, width, fits, err)
				}
				screenshot(t, browser, fmt.Sprintf("%s-%d-%s", name, width, scheme))
			}
			shot("buttons")
			if err := chromedp.Do(browser, chromedp.Click(`td.share button[value^="/project/a "]`), chromedp.WaitVisible("#link")); err != nil {
				t.Fatal(err)
			}
			link, err := chromedp.Run(browser, chromedp.Evaluate[string](`document.querySelector("#link").value`))
			path, found := strings.CutPrefix(link, "http://"+host)
			if err != nil || !found {
				t.Fatalf("%q: %v", link, err)
			}
			s.status("", path, 200)
			shot("link")
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
