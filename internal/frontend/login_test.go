package frontend

import (
	"bytes"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"securefiles/authz"
)

const browserAccept = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"

// askLogin puts a question as a browser makes nginx put it.
func askLogin(t *testing.T, loginURL string, identity authz.Authenticator, edit func(*http.Request)) *http.Response {
	t.Helper()
	opts := &authz.Options{Challenge: `Basic realm="x"`}
	if loginURL != "" {
		downloads, err := authz.NewDownloads(testDownload())
		if err != nil {
			t.Fatal(err)
		}
		if opts.Login, err = authz.ParseLogin(loginURL, downloads); err != nil {
			t.Fatal(err)
		}
	}
	g := newTestFront(t, testDownload(), identity, denyAll, opts, nil)
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
		return func(*authz.Question) (authz.Principal, error) { return authz.Principal{}, err }
	}
	bad := fails(&authz.CredentialsError{Source: "fake", Problem: "expired"})
	set := func(name string, values ...string) func(*http.Request) {
		return func(r *http.Request) { r.Header[http.CanonicalHeaderKey(name)] = values }
	}
	for _, row := range []struct {
		name     string
		login    string
		identity authz.Authenticator
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
		{"a name that is not to be had", "/login/", fails(authz.ErrReservedSubject), nil, 403, ""},
		{"what a login would not help", "/login/", fails(&authz.CredentialsError{Source: "fake", Challenge: "x", Final: true}), nil, 401, ""},
		{"whom the application refuses", "/login/", fails(&authz.CredentialsError{Source: "fake", Challenge: "x", Final: true, Forbidden: true}), nil, 403, ""},
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

// Whoever is refused again and again however often he logs in is in the log: nobody
// else would tell the operator.
func TestFinalRefusalIsLogged(t *testing.T) {
	for _, final := range []bool{false, true} {
		var log bytes.Buffer
		identity := fakeIdentity(func(*authz.Question) (authz.Principal, error) {
			return authz.Principal{}, &authz.CredentialsError{Source: "fake", Problem: "the cookies are too large", Final: final}
		})
		front := newTestFront(t, testDownload(), identity, denyAll, nil, &Options{Logger: slog.New(slog.NewTextHandler(&log, nil))})
		front.ServeHTTP(httptest.NewRecorder(), nginxAsks("/downloads/a/b.txt"))
		if logged := strings.Contains(log.String(), "level=WARN") && strings.Contains(log.String(), "fake: the cookies are too large"); logged != final {
			t.Errorf("final %v: logged %q", final, &log)
		}
	}
}
