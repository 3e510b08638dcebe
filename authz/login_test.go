package authz

import (
	"errors"
	"net/http"
	"net/url"
	"strings"
	"testing"
)

const browserAccept = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"

// testLogin returns the login page of a URL, or none.
func testLogin(t testing.TB, text string) *LoginPage {
	t.Helper()
	if text == "" {
		return nil
	}
	page, err := ParseLogin(text, testDownloads(t))
	if err != nil {
		t.Fatal(err)
	}
	return page
}

// askLogin puts a question as a browser makes nginx put it.
func askLogin(t testing.TB, loginURL string, identity Authenticator, edit func(*Question)) *Outcome {
	t.Helper()
	g := newTestGuard(t, identity, denyAll, &Options{Login: testLogin(t, loginURL), Challenge: `Basic realm="x"`})
	q := question("/downloads/a/b.txt")
	q.Header.Set("Accept", browserAccept)
	if edit != nil {
		edit(q)
	}
	return g.Check(t.Context(), q)
}

func TestBrowsersAreSentToLogIn(t *testing.T) {
	fails := func(err error) fakeIdentity {
		return func(*Question) (Principal, error) { return Principal{}, err }
	}
	bad := fails(&CredentialsError{Source: "fake", Problem: "expired"})
	set := func(name string, values ...string) func(*Question) {
		return func(q *Question) { q.Header[http.CanonicalHeaderKey(name)] = values }
	}
	for _, row := range []struct {
		name     string
		login    string
		identity Authenticator
		edit     func(*Question)
		reason   Reason
		location string
	}{
		{"nobody", "/login/", anonymous, nil, ReasonAnonymous, "/login/?next=%2Fdownloads%2Fa%2Fb.txt"},
		{"an expired session", "/login/", bad, nil, ReasonCredentials, "/login/?next=%2Fdownloads%2Fa%2Fb.txt"},
		{"with a query", "/login/", anonymous, func(q *Question) { q.Target = "/downloads/a/b.txt?v=1&w=%2F" }, ReasonAnonymous, "/login/?next=%2Fdownloads%2Fa%2Fb.txt%3Fv%3D1%26w%3D%252F"},
		{"raw bytes", "/login/", anonymous, func(q *Question) { q.Target = "/downloads/\xc3\xa9" }, ReasonAnonymous, "/login/?next=%2Fdownloads%2F%25C3%25A9"},
		{"a query that is none", "/login/", anonymous, func(q *Question) { q.Target = "/downloads/a?\\<\xff>&b=%zz+1" }, ReasonAnonymous, "/login/?next=%2Fdownloads%2Fa%3F%255C%253C%25FF%253E%26b%3D%25zz%2B1"},
		{"a query too long", "/login/", anonymous, func(q *Question) { q.Target = "/downloads/a?" + strings.Repeat("x", 4096) }, ReasonAnonymous, "/login/?next=%2Fdownloads%2Fa"},
		{"a path too long", "/login/", anonymous, func(q *Question) { q.Target = "/downloads/" + strings.Repeat("é/", 1000) + "a" }, ReasonAnonymous, "/login/?next=%2F"},
		{"a login page with a query", "/login?a=b", anonymous, nil, ReasonAnonymous, "/login?a=b&next=%2Fdownloads%2Fa%2Fb.txt"},
		{"another parameter", "/oauth2/start?rd={next}", anonymous, nil, ReasonAnonymous, "/oauth2/start?rd=%2Fdownloads%2Fa%2Fb.txt"},
		{"another site", "https://auth.example.org/?rd=https://files.example.org{next}&rm=GET", anonymous, nil, ReasonAnonymous, "https://auth.example.org/?rd=https://files.example.org%2Fdownloads%2Fa%2Fb.txt&rm=GET"},
		{"text/html alone", "/login/", anonymous, set("Accept", "Text/HTML ; q=0.1"), ReasonAnonymous, "/login/?next=%2Fdownloads%2Fa%2Fb.txt"},
		{"text/html at the end", "/login/", anonymous, set("Accept", "image/png,text/html"), ReasonAnonymous, "/login/?next=%2Fdownloads%2Fa%2Fb.txt"},
		{"no login page", "", anonymous, nil, ReasonAnonymous, ""},
		{"anything", "/login/", anonymous, set("Accept", "*/*"), ReasonAnonymous, ""},
		{"JSON", "/login/", anonymous, set("Accept", "application/json"), ReasonAnonymous, ""},
		{"a picture", "/login/", anonymous, set("Accept", "image/avif,image/webp,*/*;q=0.8"), ReasonAnonymous, ""},
		{"a type that begins with it", "/login/", anonymous, set("Accept", "text/html5"), ReasonAnonymous, ""},
		{"no Accept", "/login/", anonymous, set("Accept"), ReasonAnonymous, ""},
		{"HEAD", "/login/", anonymous, func(q *Question) { q.Method = "HEAD" }, ReasonAnonymous, ""},
		{"with Authorization", "/login/", bad, set("Authorization", "Basic YTpi"), ReasonCredentials, ""},
		{"POST", "/login/", anonymous, func(q *Question) { q.Method = "POST" }, ReasonMethod, ""},
		{"a bad path", "/login/", anonymous, func(q *Question) { q.Target = "/downloads//a" }, ReasonPath, ""},
		{"nobody can tell", "/login/", fails(errors.New("down")), nil, ReasonUnavailable, ""},
		{"a name that is not to be had", "/login/", fails(ErrReservedSubject), nil, ReasonSubject, ""},
		{"what a login would not help", "/login/", fails(&CredentialsError{Source: "fake", Final: true}), nil, ReasonCredentials, ""},
		{"a known user", "/login/", known("alice"), nil, ReasonDefaultDeny, ""},
	} {
		out := askLogin(t, row.login, row.identity, row.edit)
		if out.Reason != row.reason || out.Login != row.location || out.Allowed() {
			t.Errorf("%s: %s %q, want %s %q", row.name, out.Reason, out.Login, row.reason, row.location)
		}
	}
}

func TestLoginIsForTheRefusedAlone(t *testing.T) {
	for _, identity := range []Authenticator{known("alice"), fakeIdentity(func(*Question) (Principal, error) { return Principal{}, errors.New("down") })} {
		if out := askLogin(t, "/login/", identity, nil); out.Login != "" {
			t.Errorf("%s: sent to %q", out.Reason, out.Login)
		}
	}
}

// Whatever a client asks for, the login page gets a path on this site.
func TestLoginIsNoOpenRedirect(t *testing.T) {
	for _, target := range hostileTargets {
		out := askLogin(t, "/login/", anonymous, func(q *Question) { q.Target = target })
		if out.Reason == ReasonAnonymous && out.Login != "" {
			checkLocation(t, target, out.Login)
		} else if out.Reason != ReasonPath || out.Login != "" {
			t.Errorf("%q: %s %q", target, out.Reason, out.Login)
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
	g := newTestGuard(f, anonymous, denyAll, &Options{Login: testLogin(f, "/login/")})
	f.Fuzz(func(t *testing.T, target string) {
		q := question(target)
		q.Header.Set("Accept", browserAccept)
		if out := g.Check(t.Context(), q); out.Login != "" {
			checkLocation(t, target, out.Login)
		} else if out.Reason == ReasonAnonymous {
			t.Fatalf("%q: an anonymous browser is not sent to log in", target)
		}
	})
}

func TestLoginURLsThatCannotBe(t *testing.T) {
	for _, bad := range []string{
		"login", "//evil.example/login", "javascript:alert(1)", "ftp://example.org/", "https://", "https:///login", "https://user:secret@example.org/",
		"/login\r\nX: y", "/log in", "/login#next", "/\\evil.example", "/login/{next}", "/login?a={next}&b={next}", "/login?a={other}", "https://a:b:c/login", "/login%zz", "https://{next}/?a=b", "/login\xff",
		"/downloads/login", "/downloads/login?next={next}",
	} {
		if page, err := ParseLogin(bad, testDownloads(t)); err == nil || page != nil {
			t.Errorf("accepted %q", bad)
		}
	}
}
