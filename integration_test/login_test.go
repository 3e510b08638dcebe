package integration_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
)

const browserAccept = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8"

var asBrowser = with("Accept", browserAccept)

func TestBrowsersAreSentToLogIn(t *testing.T) {
	t.Parallel()
	s := start(t, plan{policy: alicesPolicy, printed: true, extra: "login_url: /login/\n"})
	for _, row := range []struct {
		name, user, path string
		edit             []func(*http.Request)
		status           int
		location         string
	}{
		{"a browser", "", "/downloads/project/plan.txt", []func(*http.Request){asBrowser}, 302, "/login/?next=%2Fdownloads%2Fproject%2Fplan.txt"},
		{"with a query", "", "/downloads/project/plan.txt?a=b&c=%26", []func(*http.Request){asBrowser}, 302, "/login/?next=%2Fdownloads%2Fproject%2Fplan.txt%3Fa%3Db%26c%3D%2526"},
		{"a name that needs escapes", "", "/downloads/caf%C3%A9/%23%3F%25.txt", []func(*http.Request){asBrowser}, 302, "/login/?next=%2Fdownloads%2Fcaf%25C3%25A9%2F%2523%253F%2525.txt"},
		{"another host", "", "/downloads/project/plan.txt", []func(*http.Request){asBrowser, func(r *http.Request) { r.Host = "evil.example" }}, 302, "/login/?next=%2Fdownloads%2Fproject%2Fplan.txt"},
		{"a program", "", "/downloads/project/plan.txt", nil, 401, ""},
		{"a program that takes anything", "", "/downloads/project/plan.txt", []func(*http.Request){with("Accept", "*/*")}, 401, ""},
		{"HEAD", "", "/downloads/project/plan.txt", []func(*http.Request){asBrowser, func(r *http.Request) { r.Method = "HEAD" }}, 401, ""},
		{"a wrong password", "", "/downloads/project/plan.txt", []func(*http.Request){asBrowser, func(r *http.Request) { r.SetBasicAuth("alice", "wrong") }}, 401, ""},
		{"a public file", "", "/downloads/public/welcome.txt", []func(*http.Request){asBrowser}, 200, ""},
		{"a known user", "alice", "/downloads/project/plan.txt", []func(*http.Request){asBrowser}, 200, ""},
		{"a known user, refused", "bob", "/downloads/project/plan.txt", []func(*http.Request){asBrowser}, 404, ""},
		{"a bad path", "", "/downloads//project/plan.txt", []func(*http.Request){asBrowser}, 400, ""},
	} {
		r := s.get(row.user, row.path, row.edit...)
		if r.status != row.status || r.header.Get("Location") != row.location {
			t.Errorf("%s: %d %q, want %d %q", row.name, r.status, r.header.Get("Location"), row.status, row.location)
		}
		if challenge := r.header.Get("WWW-Authenticate"); (challenge != "") != (row.status == 401) {
			t.Errorf("%s: WWW-Authenticate %q with %d", row.name, challenge, r.status)
		}
		if row.status == 302 && r.header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: a redirect that may be stored: %v", row.name, r.header)
		}
	}
}

// Without login_url, nginx does not even pass Accept on, and nobody is sent
// anywhere.
func TestNobodyIsSentToLogInWithoutAPage(t *testing.T) {
	t.Parallel()
	s := start(t, plan{policy: alicesPolicy})
	s.status("", "/downloads/project/plan.txt", 401, asBrowser)
}

// What nginx sends a browser to is a path of this site, whatever was asked for.
func TestLoginIsNoOpenRedirect(t *testing.T) {
	t.Parallel()
	s := start(t, plan{policy: alicesPolicy, printed: true, extra: "login_url: /login/\n"})
	sent := 0
	for _, target := range []string{
		"/downloads/project/plan.txt", "//evil.example/downloads/a", "//downloads/a", "/\\evil.example", "/downloads//evil.example", "/downloads/\\evil.example", "/downloads/%5cevil.example",
		"/downloads/%2f%2fevil.example", "/downloads/..%2f..%2fevil.example", "/x/../downloads/a", "/downloads/../downloads/a", "/%64ownloads/a", "/downloads/./a", "/downloads/a/..//evil.example",
		"/downloads/a%0d%0aLocation:%20//evil.example", "/downloads/a%0aSet-Cookie:%20a=b", "/downloads/a?%0d%0aLocation:%20//evil.example", "/downloads/a?next=//evil.example",
		"/downloads/a?next=https://evil.example&next=/x", "/downloads/a&next=//evil.example", "/downloads/a%26next=//evil.example", "/downloads/a%3Fnext=//evil.example",
		"/downloads/@evil.example", "/downloads/a?@evil.example", "/downloads/javascript:alert(1)", "/downloads/https:evil.example", "/downloads/a#//evil.example", "/downloads/a?x=#//evil.example",
		"http://evil.example/downloads/a", "http://evil.example//downloads/a", "http://evil.example:80@x/downloads/a", "https://evil.example/downloads/a", "HTTP://evil.example/downloads/a?next=//x",
		"/downloads/%E2%80%AEgpj.exe", "/downloads/%E2%80%A8a", "/downloads/a?\xe2\x80\xae", "/downloads/\xff", "/downloads/a?\xff\xfe", "/downloads/a?\\evil.example", "/downloads/a?<script>\"'", "/downloads/;@evil.example",
		"/downloads/" + strings.Repeat("%C3%A9", 1000), "/downloads/a?" + strings.Repeat("%2F", 2000), "/downloads/" + strings.Repeat("a/", 2000) + "a",
		"/downloads/\ta", "/downloads/a?\t", "/downloads/a%00", "/downloads/a?%00",
	} {
		for _, host := range []string{"localhost", "evil.example", "evil.example:80"} {
			request := "GET " + target + " HTTP/1.1\r\nHost: " + host + "\r\nAccept: " + browserAccept + "\r\nConnection: close\r\n\r\n"
			r, err := raw(s.web, "GET", []byte(request))
			if err != nil {
				t.Errorf("%q: %v", target, err)
				continue
			}
			location := r.header.Get("Location")
			if r.status < 300 || r.status == http.StatusServiceUnavailable || r.status == http.StatusInternalServerError || len(r.header["Set-Cookie"]) > 0 || (r.status == 302) != (location != "") {
				t.Errorf("%q to %s: %d %v", target, host, r.status, r.header)
			}
			if r.status == 302 {
				sent++
				checkLocation(t, target, location)
			}
		}
	}
	if sent < 40 {
		t.Errorf("only %d were sent to log in: this test tests little", sent)
	}
}

// checkLocation reads a Location as a browser and the login page would.
func checkLocation(t *testing.T, target, location string) {
	t.Helper()
	u, err := url.Parse(location)
	rest, found := strings.CutPrefix(location, "/login/?next=")
	if err != nil || !found || strings.ContainsAny(rest, "/\\&#?=:@ ") || len(u.Query()["next"]) != 1 {
		t.Errorf("%q: Location %q, %v", target, location, err)
		return
	}
	next := u.Query().Get("next")
	back, err := url.Parse(next)
	if next != "/" && (err != nil || back.Host != "" || back.Scheme != "" || !strings.HasPrefix(next, "/downloads/") ||
		strings.HasPrefix(next, "/downloads//") || strings.ContainsFunc(next, func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune("\\\"<>^`{|}#", r) })) {
		t.Errorf("%q: the login page is told to return to %q (%v)", target, next, err)
	}
}
