package frontend

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"securefiles/authz"
	"securefiles/pathguard"
)

var passing = []Kind{Classic, Apache, Lighttpd, Caddy}

// frontWith returns the front end of one download behind a kind of web server, whose root
// holds files.
func frontWith(t *testing.T, kind Kind, identity authz.Authenticator, policy authz.Decider, guarding *authz.Options, opts *Options, files ...string) *AuthRequest {
	t.Helper()
	root := t.TempDir()
	for _, name := range files {
		if err := os.MkdirAll(filepath.Dir(root+name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(root+name, []byte("text\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if opts == nil {
		opts = &Options{}
	}
	opts.Fronts = map[string]Front{"main": {Kind: kind, URL: "/downloads/", Root: root, Embed: "same-site"}}
	if guarding == nil {
		guarding = &authz.Options{}
	}
	return newTestFront(t, testDownload(), identity, policy, guarding, opts)
}

func passOn(front *AuthRequest, target string, edit ...func(*http.Request)) *httptest.ResponseRecorder {
	r := nginxAsks(target)
	for _, e := range edit {
		e(r)
	}
	w := httptest.NewRecorder()
	front.Download(w, r)
	return w
}

// obeyed are the headers of an answer by which some web server sends a file.
func obeyed(h http.Header) http.Header {
	found := http.Header{}
	for name, values := range h {
		if strings.HasPrefix(name, "X-Accel-") || strings.HasPrefix(name, "X-Sendfile") || name == headerLocation {
			found[name] = values
		}
	}
	return found
}

func TestEachWebServerIsToldWhatToSendAsItReadsIt(t *testing.T) {
	const target, name = "/downloads/a%20b/%25%3Bc%C3%A9%231.txt", "/a b/%;cé#1.txt"
	for kind, want := range map[Kind]func(root string) http.Header{
		Classic: func(string) http.Header {
			return http.Header{headerAccel: {"/protected/a%20b/%25%3Bc%C3%A9%231.txt"}, headerAccelRate: {"0"}, headerLocation: {"/protected" + name}}
		},
		Apache: func(root string) http.Header { return http.Header{headerSendfile: {root + name}} },
		Lighttpd: func(root string) http.Header {
			return http.Header{headerSendfile: {root + "/a%20b/%25%3Bc%C3%A9%231.txt"}}
		},
		Caddy: func(string) http.Header { return http.Header{headerLocation: {name}} },
	} {
		front := frontWith(t, kind, known("alice"), allowAll, nil, nil, name)
		w := passOn(front, target)
		if diff := cmp.Diff(want(front.opts.Fronts["main"].Root), obeyed(w.Header())); w.Code != http.StatusOK || diff != "" {
			t.Errorf("%s: status %d\n%s", kind, w.Code, diff)
		}
		h := w.Header()
		if h.Get("Content-Disposition") != pathguard.Disposition(pathguard.Attachment, "%;cé#1.txt") || h.Get("Cache-Control") != "private, no-store" || h.Get("X-Content-Type-Options") != "nosniff" || h.Get("Referrer-Policy") != "no-referrer" || w.Body.Len() > 0 || (h["Content-Type"] != nil) != (kind == Apache) {
			t.Errorf("%s: %v %q", kind, h, w.Body)
		}
		if kind == Classic {
			if h.Get(headerCSP) != "sandbox" || h.Get(headerUser) != "alice" || h.Get(headerDecision) != "g3:policy.csv:17" {
				t.Errorf("classic: %v", h)
			}
			continue
		}
		if h.Get("Content-Security-Policy") != "sandbox" || h.Get("Cross-Origin-Resource-Policy") != "same-site" || len(h.Get("X-Request-Id")) != 32 {
			t.Errorf("%s: %v", kind, h)
		}
		for name := range h {
			if strings.HasPrefix(name, "X-Securefiles-") && (kind != Caddy || name != headerLocation) {
				t.Errorf("%s is told %s, and would hand it on", kind, name)
			}
		}
	}
}

// nginx keeps Content-Disposition and Cache-Control of the answer for a file that it then
// finds missing, which would tell it from one that is refused: what is printed for it
// sets them beside a file alone.
func TestWhatIsPrintedSetsTheHeadersOfAFile(t *testing.T) {
	front := frontWith(t, Classic, known("alice"), allowAll, nil, nil, "/a.txt")
	w := passOn(front, "/downloads/a.txt", func(r *http.Request) { r.Header.Set("X-Securefiles-Snippet", "0123456789abcdef") })
	if h := w.Header(); h["Content-Disposition"] != nil || h["Cache-Control"] != nil || h.Get(headerDisposition) == "" || h.Get(headerCacheControl) == "" || h.Get(headerAccel) == "" {
		t.Errorf("%v", h)
	}
}

// A web server follows what it obeys whatever the status is.
func TestARefusalNeverCarriesWhatAWebServerObeys(t *testing.T) {
	fails := func(err error) fakeIdentity {
		return func(*authz.Question) (authz.Principal, error) { return authz.Principal{Subject: "alice"}, err }
	}
	broken := fakePolicy(func(authz.Query) (authz.Decision, error) {
		return authz.Decision{Effect: authz.Allow}, errors.New("broken")
	})
	downloads, err := authz.NewDownloads(testDownload())
	if err != nil {
		t.Fatal(err)
	}
	login, err := authz.ParseLogin("/login/", downloads)
	if err != nil {
		t.Fatal(err)
	}
	header := func(name, value string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set(name, value) }
	}
	for name, row := range map[string]struct {
		identity authz.Authenticator
		policy   authz.Decider
		guarding *authz.Options
		opts     *Options
		target   string
		edit     func(*http.Request)
		status   int
		header   [2]string
	}{
		"policy says no":          {known("alice"), denyAll, nil, nil, "/downloads/a.txt", nil, 404, [2]string{"Cache-Control", "no-store"}},
		"nobody is known":         {anonymous, denyAll, &authz.Options{Challenge: `Basic realm="x"`}, nil, "/downloads/a.txt", nil, 401, [2]string{"Www-Authenticate", `Basic realm="x"`}},
		"somebody must log in":    {anonymous, denyAll, &authz.Options{Login: login}, nil, "/downloads/a.txt", header("Accept", "text/html"), 302, [2]string{"Location", "/login/?next=%2Fdownloads%2Fa.txt"}},
		"a wrong password":        {fails(&authz.CredentialsError{Source: "x", Challenge: "Basic"}), allowAll, nil, nil, "/downloads/a.txt", nil, 401, [2]string{"Www-Authenticate", "Basic"}},
		"a path that is none":     {known("alice"), allowAll, nil, nil, "/downloads/../a.txt", nil, 400, [2]string{"Cache-Control", "no-store"}},
		"another download":        {known("alice"), allowAll, nil, nil, "/elsewhere/a.txt", nil, 400, [2]string{}},
		"a method":                {known("alice"), allowAll, nil, nil, "/downloads/a.txt", header("X-Original-Method", "POST"), 403, [2]string{}},
		"a limit":                 {known("alice"), allowAll, &authz.Options{Limits: refuses{}}, nil, "/downloads/a.txt", nil, 429, [2]string{"Retry-After", "7"}},
		"a policy that is broken": {known("alice"), broken, nil, nil, "/downloads/a.txt", nil, 503, [2]string{"Retry-After", "5"}},
		"no record": {known("alice"), allowAll, nil, &Options{Record: func(context.Context, *authz.Outcome, int, time.Duration) error { return errors.New("full") }},
			"/downloads/a.txt", nil, 503, [2]string{"Retry-After", "5"}},
		"no secret": {known("alice"), allowAll, nil, &Options{Secret: func(string) bool { return false }}, "/downloads/a.txt", nil, 403, [2]string{}},
		"a page":    {anonymous, denyAll, &authz.Options{Links: ended{}}, &Options{Pages: onePage{}}, "/downloads/a.txt?link=x", nil, 410, [2]string{"Content-Type", "text/html; charset=utf-8"}},
	} {
		for _, kind := range passing {
			front := frontWith(t, kind, row.identity, row.policy, row.guarding, row.opts, "/a.txt")
			edit := row.edit
			if edit == nil {
				edit = func(*http.Request) {}
			}
			w := passOn(front, row.target, edit)
			if w.Code != row.status || len(obeyed(w.Header())) > 0 || row.header[0] != "" && w.Header().Get(row.header[0]) != row.header[1] {
				t.Errorf("%s, %s: status %d %v", kind, name, w.Code, w.Header())
			}
			if w.Body.Len() == 0 || (name == "a page") != strings.Contains(w.Body.String(), "<p>") {
				t.Errorf("%s, %s: body %q", kind, name, w.Body)
			}
		}
	}
	// A question without a target is nobody's, and its answer may reach a client.
	w := passOn(frontWith(t, Apache, known("alice"), allowAll, nil, nil), "")
	for name := range w.Header() {
		if w.Code != 400 || strings.HasPrefix(name, "X-Securefiles-") {
			t.Errorf("no target: %d %v", w.Code, w.Header())
		}
	}
	// Where policy says yes, it is there: the rows above could not fail else.
	for _, kind := range passing {
		if w := passOn(frontWith(t, kind, known("alice"), allowAll, nil, nil, "/a.txt"), "/downloads/a.txt"); len(obeyed(w.Header())) == 0 {
			t.Errorf("%s: %d %v", kind, w.Code, w.Header())
		}
	}
}

type refuses struct{}

func (refuses) Limit(context.Context, *authz.Outcome) error {
	return &authz.LimitError{Reason: authz.ReasonRate, Retry: 7 * time.Second}
}

type ended struct{}

func (ended) Authenticate(context.Context, *authz.Question) (authz.Principal, error) {
	return authz.Principal{}, &authz.LinkError{Reason: authz.ReasonExpired, Page: authz.PageEnded}
}

type onePage struct{ http.Handler }

func (onePage) Render(_ context.Context, out *authz.Outcome) ([]byte, bool, error) {
	return []byte("<p>" + string(out.Page)), true, nil
}

// What policy allows and is no file looks like what policy refuses. Behind nginx, nginx
// looks; the other web servers would follow a symbolic link.
func TestAWebServerThatFollowsLinksIsToldOfFilesAlone(t *testing.T) {
	for _, kind := range []Kind{Apache, Lighttpd, Caddy} {
		front := frontWith(t, kind, known("alice"), allowAll, nil, nil, "/a.txt", "/dir/b.txt", "/q?.txt")
		root := front.opts.Fronts["main"].Root
		for link, target := range map[string]string{"/link.txt": "a.txt", "/out.txt": "/etc/passwd", "/linked": "dir", "/loop": "loop"} {
			if err := os.Symlink(target, root+link); err != nil {
				t.Fatal(err)
			}
		}
		refused := passOn(frontWith(t, kind, known("alice"), denyAll, nil, nil), "/downloads/a.txt")
		status := func(target string) int {
			w := passOn(front, target)
			if w.Code == 404 {
				w.Header().Del("X-Request-Id")
				refused.Header().Del("X-Request-Id")
				if diff := cmp.Diff(refused.Header(), w.Header()); diff != "" || w.Body.String() != refused.Body.String() {
					t.Errorf("%s %s: not as a refusal: %s %q", kind, target, diff, w.Body)
				}
			}
			if w.Code != 200 && len(obeyed(w.Header())) > 0 {
				t.Errorf("%s %s: %d %v", kind, target, w.Code, w.Header())
			}
			return w.Code
		}
		for target, want := range map[string]int{
			"/downloads/a.txt": 200, "/downloads/dir/b.txt": 200, "/downloads/none.txt": 404, "/downloads/dir": 404, "/downloads/a.txt/b": 404, "/downloads/link.txt": 404, "/downloads/out.txt": 404,
			"/downloads/linked/b.txt": 404, "/downloads/loop": 404, "/downloads/q%3F.txt": map[Kind]int{Apache: 200, Lighttpd: 200, Caddy: 404}[kind],
		} {
			if got := status(target); got != want {
				t.Errorf("%s %s: %d, want %d", kind, target, got, want)
			}
		}
		f := front.opts.Fronts["main"]
		f.FollowSymlinks = true
		front.opts.Fronts["main"] = f
		for target, want := range map[string]int{"/downloads/link.txt": 200, "/downloads/linked/b.txt": 200, "/downloads/linked": 404, "/downloads/loop": 404} {
			if got := status(target); got != want {
				t.Errorf("%s follows %s: %d, want %d", kind, target, got, want)
			}
		}
	}
}

// A download is asked for as its web server does, and by no other: what that reports,
// and what its header means, goes by it.
func TestADownloadIsAskedForByItsOwnWebServerAlone(t *testing.T) {
	released := 0
	guarding := &authz.Options{Limits: takes(func() { released++ })}
	for _, kind := range passing {
		front := frontWith(t, kind, known("alice"), allowAll, guarding, nil, "/a.txt")
		w := httptest.NewRecorder()
		front.ServeHTTP(w, nginxAsks("/downloads/a.txt"))
		if w.Code != 400 || len(obeyed(w.Header())) > 0 || w.Header().Get(headerReason) != "request" {
			t.Errorf("%s, by auth_request: %d %v", kind, w.Code, w.Header())
		}
	}
	for _, kind := range []Kind{NGINX, "", "other"} {
		front := frontWith(t, kind, known("alice"), allowAll, guarding, nil, "/a.txt")
		if w := passOn(front, "/downloads/a.txt"); w.Code != 400 || len(obeyed(w.Header())) > 0 {
			t.Errorf("%q, passed on: %d %v", kind, w.Code, w.Header())
		}
	}
	if released < 6 {
		t.Errorf("limits got back what they took %d times", released)
	}
}

// A link that is counted by what is delivered, or has a rate, opens nothing behind a web
// server that tells nothing and knows no rate.
func TestALinkThatIsCountedNeedsAWebServerThatReports(t *testing.T) {
	for _, scope := range []authz.Scope{{Uses: 1}, {Rate: 1000}, {}} {
		linked := fakeIdentity(func(*authz.Question) (authz.Principal, error) {
			s := scope
			s.Download, s.Path = "main", "/a.txt"
			return authz.Principal{Subject: "maker", Source: "link", Scope: &s}, nil
		})
		for _, kind := range passing {
			want := 503
			if kind.Reports() || scope.Uses == 0 && scope.Rate == 0 {
				want = 200
			}
			front := frontWith(t, kind, anonymous, fakePolicy(func(q authz.Query) (authz.Decision, error) {
				if q.Principal.IsAnonymous() {
					return authz.Decision{}, nil
				}
				return authz.Decision{Effect: authz.Allow}, nil
			}), &authz.Options{Links: linked}, nil, "/a.txt")
			if w := passOn(front, "/downloads/a.txt?link=x"); w.Code != want || want == 503 && len(obeyed(w.Header())) > 0 {
				t.Errorf("%s, %+v: %d, want %d", kind, scope, w.Code, want)
			}
		}
	}
}

type bucket struct{}

func (bucket) Locate(context.Context, *authz.Question) (authz.Location, error) {
	return authz.Location{Upstream: "/bucket/a.txt"}, nil
}

// What is in a store is sent by no web server that is told of a file.
func TestADownloadWithAStoreIsNotSentFromADirectory(t *testing.T) {
	for _, kind := range passing {
		front := frontWith(t, kind, known("alice"), allowAll, nil, nil, "/a.txt")
		d := testDownload()
		d.Store = bucket{}
		stored := newTestFront(t, d, known("alice"), allowAll, nil, &front.opts)
		if w := passOn(stored, "/downloads/a.txt"); w.Code != 503 || len(obeyed(w.Header())) > 0 {
			t.Errorf("%s: %d %v", kind, w.Code, w.Header())
		}
	}
}

// Nor by the service itself, though a file of the same name is there.
func TestADownloadWithAStoreIsNotSentDirectly(t *testing.T) {
	for name, store := range map[string]authz.Locator{"a directory": nil, "a store": bucket{}} {
		d := testDownload()
		d.Store = store
		root := t.TempDir()
		if err := os.WriteFile(root+"/a.txt", []byte("CANARY"), 0o600); err != nil {
			t.Fatal(err)
		}
		direct, err := NewDirect(newTestFront(t, d, known("alice"), allowAll, nil, nil), []DirectDownload{{URL: d.URL, Internal: d.Internal, Root: root}}, &DirectOptions{AnyHost: true})
		if err != nil {
			t.Fatal(err)
		}
		r := httptest.NewRequest(http.MethodGet, "/downloads/a.txt", nil)
		w := httptest.NewRecorder()
		if direct.ServeHTTP(w, r); (w.Code == 200) != (store == nil) || store != nil && (w.Code != 503 || strings.Contains(w.Body.String(), "CANARY")) {
			t.Errorf("%s: %d %q", name, w.Code, w.Body)
		}
	}
}

// By the id of another request a request would take nothing of limits. nginx makes ids;
// other web servers hand on what a client writes.
func TestAClientDoesNotChooseTheIDOfItsRequest(t *testing.T) {
	for _, kind := range passing {
		var ids []string
		front := frontWith(t, kind, known("alice"), allowAll, nil, &Options{Observe: func(out *authz.Outcome, _ time.Duration) { ids = append(ids, out.Question.ID) }}, "/a.txt")
		for range 2 {
			passOn(front, "/downloads/a.txt", func(r *http.Request) { r.Header.Set("X-Request-ID", "mine") })
		}
		if same := slices.Equal(ids, []string{"mine", "mine"}); same != (kind == Classic) || kind != Classic && ids[0] == ids[1] {
			t.Errorf("%s: %q", kind, ids)
		}
	}
}

// A root that the service may not enter is told of, and nothing is sent.
func TestARootThatCannotBeLookedIntoIsUnavailable(t *testing.T) {
	if os.Getuid() == 0 {
		t.Skip("root may enter every directory")
	}
	front := frontWith(t, Apache, known("alice"), allowAll, nil, nil, "/dir/a.txt")
	dir := front.opts.Fronts["main"].Root + "/dir"
	if err := os.Chmod(dir, 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Chmod(dir, 0o755) })
	if w := passOn(front, "/downloads/dir/a.txt"); w.Code != 503 || len(obeyed(w.Header())) > 0 {
		t.Errorf("%d %v", w.Code, w.Header())
	}
}
