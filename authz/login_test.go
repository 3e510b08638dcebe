package authz

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
)

const browserAccept = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"

// askLogin puts a question as a browser makes nginx put it.
func askLogin(t *testing.T, loginURL string, identity Authenticator, edit func(*http.Request)) *http.Response {
	t.Helper()
	g, err := New([]*Download{testDownload()}, identity, denyAll, &Options{LoginURL: loginURL, Challenge: `Basic realm="x"`})
	if err != nil {
		t.Fatal(err)
	}
	r := nginxAsks("/downloads/a/b.txt")
	r.Header.Set("Accept", browserAccept)
	if edit != nil {
		edit(r)
	}
	w := httptest.NewRecorder()
	g.ServeHTTP(w, r)
	return w.Result()
}

func TestBrowsersAreSentToLogIn(t *testing.T) {
	fails := func(err error) fakeIdentity {
		return func(*http.Request) (Principal, error) { return Principal{}, err }
	}
	bad := fails(&CredentialsError{Source: "fake", Problem: "expired"})
	set := func(name string, values ...string) func(*http.Request) {
		return func(r *http.Request) { r.Header[http.CanonicalHeaderKey(name)] = values }
	}
	for _, row := range []struct {
		name     string
		login    string
		identity Authenticator
		edit     func(*http.Request)
		status   int
		location string
	}{
		{"nobody", "/login/", anonymous, nil, 302, "/login/?next=%2Fdownloads%2Fa%2Fb.txt"},
		{"an expired session", "/login/", bad, nil, 302, "/login/?next=%2Fdownloads%2Fa%2Fb.txt"},
		{"with a query", "/login/", anonymous, set("X-Original-URI", "/downloads/a/b.txt?v=1&w=%2F"), 302, "/login/?next=%2Fdownloads%2Fa%2Fb.txt%3Fv%3D1%26w%3D%252F"},
		{"raw bytes", "/login/", anonymous, set("X-Original-URI", "/downloads/\xc3\xa9"), 302, "/login/?next=%2Fdownloads%2F%25C3%25A9"},
		{"a query that is none", "/login/", anonymous, set("X-Original-URI", "/downloads/a?\\<\xff>&b=%zz+1"), 302, "/login/?next=%2Fdownloads%2Fa%3F%255C%253C%25FF%253E%26b%3D%25zz%2B1"},
		{"a query too long", "/login/", anonymous, set("X-Original-URI", "/downloads/a?"+strings.Repeat("x", 4096)), 302, "/login/?next=%2Fdownloads%2Fa"},
		{"a path too long", "/login/", anonymous, set("X-Original-URI", "/downloads/"+strings.Repeat("é/", 1000)+"a"), 302, "/login/?next=%2F"},
		{"a login page with a query", "/login?a=b", anonymous, nil, 302, "/login?a=b&next=%2Fdownloads%2Fa%2Fb.txt"},
		{"another parameter", "/oauth2/start?rd={next}", anonymous, nil, 302, "/oauth2/start?rd=%2Fdownloads%2Fa%2Fb.txt"},
		{"another site", "https://auth.example.org/?rd=https://files.example.org{next}&rm=GET", anonymous, nil, 302, "https://auth.example.org/?rd=https://files.example.org%2Fdownloads%2Fa%2Fb.txt&rm=GET"},
		{"text/html alone", "/login/", anonymous, set("Accept", "Text/HTML ; q=0.1"), 302, "/login/?next=%2Fdownloads%2Fa%2Fb.txt"},
		{"text/html at the end", "/login/", anonymous, set("Accept", "image/png,text/html"), 302, "/login/?next=%2Fdownloads%2Fa%2Fb.txt"},
		{"no login page", "", anonymous, nil, 401, ""},
		{"anything", "/login/", anonymous, set("Accept", "*/*"), 401, ""},
		{"JSON", "/login/", anonymous, set("Accept", "application/json"), 401, ""},
		{"a picture", "/login/", anonymous, set("Accept", "image/avif,image/webp,*/*;q=0.8"), 401, ""},
		{"a type that begins with it", "/login/", anonymous, set("Accept", "text/html5"), 401, ""},
		{"no Accept", "/login/", anonymous, set("Accept"), 401, ""},
		{"HEAD", "/login/", anonymous, set("X-Original-Method", "HEAD"), 401, ""},
		{"with Authorization", "/login/", bad, set("Authorization", "Basic YTpi"), 401, ""},
		{"POST", "/login/", anonymous, set("X-Original-Method", "POST"), 403, ""},
		{"a bad path", "/login/", anonymous, set("X-Original-URI", "/downloads//a"), 400, ""},
		{"nobody can tell", "/login/", fails(errors.New("down")), nil, 503, ""},
		{"a name that is not to be had", "/login/", fails(ErrReservedSubject), nil, 403, ""},
		{"a known user", "/login/", known("alice"), nil, 404, ""},
	} {
		resp := askLogin(t, row.login, row.identity, row.edit)
		if resp.StatusCode != row.status || resp.Header.Get("Location") != row.location {
			t.Errorf("%s: %d %q, want %d %q", row.name, resp.StatusCode, resp.Header.Get("Location"), row.status, row.location)
		}
		if resp.Header.Get("X-Securefiles-Location") != "" || (resp.StatusCode == 302) != (resp.Header.Get("WWW-Authenticate") == "" && row.location != "") {
			t.Errorf("%s: headers %v", row.name, resp.Header)
		}
	}
}

func TestLoginIsForTheRefusedAlone(t *testing.T) {
	for _, identity := range []Authenticator{known("alice"), fakeIdentity(func(*http.Request) (Principal, error) { return Principal{}, errors.New("down") })} {
		g, err := New([]*Download{testDownload()}, identity, denyAll, &Options{LoginURL: "/login/"})
		if err != nil {
			t.Fatal(err)
		}
		r := nginxAsks("/downloads/a")
		r.Header.Set("Accept", browserAccept)
		if out := g.Check(t.Context(), r); out.Login != "" {
			t.Errorf("%s: sent to %q", out.Reason, out.Login)
		}
	}
	if out := (&Outcome{Reason: ReasonUnavailable, Login: "/login/"}); out.status() != http.StatusServiceUnavailable {
		t.Errorf("got %d", out.status())
	}
}

// Whatever a client asks for, the login page gets a path on this site.
func TestLoginIsNoOpenRedirect(t *testing.T) {
	for _, target := range hostileTargets {
		resp := askLogin(t, "/login/", anonymous, func(r *http.Request) { r.Header["X-Original-Uri"] = []string{target} })
		if resp.StatusCode == http.StatusFound {
			checkLocation(t, target, resp.Header.Get("Location"))
		} else if resp.StatusCode != http.StatusBadRequest || resp.Header.Get("Location") != "" {
			t.Errorf("%q: %d %q", target, resp.StatusCode, resp.Header.Get("Location"))
		}
	}
}

var hostileTargets = []string{
	"//evil.example/downloads/a", "/\\evil.example", "/downloads//evil.example", "/downloads/\\evil.example", "//evil.example/%2e%2e/downloads/a",
	"/downloads/%2f%2fevil.example", "/downloads/%5cevil.example", "/downloads/a%0d%0aLocation:%20//evil.example", "/downloads/a\r\nLocation: //evil.example",
	"/downloads/a?next=//evil.example", "/downloads/a?next=https://evil.example&next=/x", "/downloads/a?\r\nX: y", "/downloads/a?%0d%0aSet-Cookie:a=b",
	"https://evil.example/downloads/a", "http:/downloads/a", "javascript:alert(1)", "/downloads/javascript:alert(1)", "/downloads/https:%2f%2fevil.example",
	"/downloads/@evil.example", "/downloads/a?@evil.example", "/downloads/..//evil.example", "/downloads/./a", "/downloads/a#//evil.example", "/downloads/a?#x",
	"/downloads/%E2%80%AEgpj.exe", "/downloads/a;@evil.example", "/downloads/a&next=//evil.example", "/downloads/a%26next=//evil.example", "/downloads/a%3fnext=%2f%2fevil.example",
	"/downloads/a%00", "/downloads/\t/evil.example", "/downloads/a?x=\x00", "/downloads/a?x=\xff\xfe", "/downloads/a?x=<script>", "/downloads/a?\\", "/downloads/a?{next}", "/downloads/a?%zz", "/downloads/a\"onload=x", "/downloads/" + strings.Repeat("é", 1500),
	"/downloads/a?" + strings.Repeat("x", 8000), "", "/", "?", "/downloads/", "/downloads", "downloads/a",
}

// checkLocation reads a Location as a browser and the login page would.
func checkLocation(t *testing.T, target, location string) {
	t.Helper()
	for i := range len(location) {
		if location[i] <= ' ' || location[i] > '~' {
			t.Fatalf("%q: Location %q holds a raw byte", target, location)
		}
	}
	rest, found := strings.CutPrefix(location, "/login/?next=")
	if !found || strings.ContainsAny(rest, "/\\&#?=:@") || len(rest) > maxNext {
		t.Fatalf("%q: Location %q", target, location)
	}
	u, err := url.Parse(location)
	if err != nil || u.Host != "" || u.Scheme != "" || len(u.Query()["next"]) != 1 {
		t.Fatalf("%q: Location %q reads as %+v, %v", target, location, u, err)
	}
	next := u.Query().Get("next")
	if next == "/" {
		return
	}
	back, err := url.Parse(next)
	if err != nil || back.Host != "" || back.Scheme != "" || !strings.HasPrefix(next, "/downloads/") ||
		strings.HasPrefix(next, "/downloads//") || strings.ContainsFunc(next, func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune("\\\"'<>^`{|}#", r) }) {
		t.Fatalf("%q: the login page is told to return to %q (%v)", target, next, err)
	}
}

func FuzzLoginLocation(f *testing.F) {
	for _, seed := range hostileTargets {
		f.Add(seed)
	}
	g, err := New([]*Download{testDownload()}, anonymous, denyAll, &Options{LoginURL: "/login/"})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, target string) {
		r := nginxAsks("/downloads/a")
		r.Header["X-Original-Uri"] = []string{target}
		r.Header.Set("Accept", browserAccept)
		if out := g.Check(t.Context(), r); out.Login != "" {
			checkLocation(t, target, out.Login)
		} else if out.Reason == ReasonAnonymous {
			t.Fatalf("%q: an anonymous browser is not sent to log in", target)
		}
	})
}

func TestLoginURLsThatCannotBe(t *testing.T) {
	for _, bad := range []string{
		"login", "//evil.example/login", "javascript:alert(1)", "ftp://example.org/", "https://", "https:///login", "https://user:secret@example.org/",
		"/login\r\nX: y", "/log in", "/login#next", "/\\evil.example", "/login/{next}", "/login?a={next}&b={next}", "/login?a={other}", "https://{next}/?a=b", "/login\xff",
		"/downloads/login", "/downloads/login?next={next}",
	} {
		if _, err := New([]*Download{testDownload()}, anonymous, denyAll, &Options{LoginURL: bad}); err == nil {
			t.Errorf("accepted %q", bad)
		}
	}
}
