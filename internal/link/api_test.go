package link

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"

	"securefiles/authz"
	"securefiles/internal/state"
)

// named is a caller who says a name, in the place of credentials.
type named struct{}

func (named) Authenticate(_ context.Context, q *authz.Question) (authz.Principal, error) {
	switch name := q.Header.Get("Authorization"); name {
	case "":
		return authz.Principal{}, authz.ErrNoCredentials
	case "wrong":
		return authz.Principal{}, &authz.CredentialsError{Source: "names", Problem: "wrong"}
	case "barred":
		return authz.Principal{}, &authz.CredentialsError{Source: "names", Problem: "barred", Forbidden: true}
	case "down":
		return authz.Principal{}, &authz.UnavailableError{Source: "names", Err: errors.New("down")}
	default:
		return authz.Principal{Subject: name, Source: "names", Groups: []string{"@staff"}}, nil
	}
}

// rules are a policy: who may do what, everywhere but below /hr/.
type rules map[string][]string

func (r rules) Decide(_ context.Context, q authz.Query) (authz.Decision, error) {
	if q.Principal.Subject == "undecided" {
		return authz.Decision{}, errors.New("too long")
	}
	if slices.Contains(r[q.Principal.Subject], q.Action) && !strings.HasPrefix(q.Object, "/hr/") {
		return authz.Decision{Effect: authz.Allow}, nil
	}
	return authz.Decision{}, nil
}

// An apiSite is an API, and the statuses that it has answered with, by operation.
type apiSite struct {
	t     *testing.T
	api   *API
	links *Links
	seen  map[string]map[int]bool
}

func newAPISite(t *testing.T) *apiSite {
	t.Helper()
	store, err := state.OpenDisk(filepath.Join(t.TempDir(), "state.db"), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	downloads, err := authz.NewDownloads(&authz.Download{Name: "main", URL: "/downloads/", Internal: "/protected/", DenyStatus: 404})
	if err != nil {
		t.Fatal(err)
	}
	links, err := New(keysOf(t, makeKey(t, "HS256")), &Options{Store: store})
	if err != nil {
		t.Fatal(err)
	}
	pages, err := NewPages(links, downloads, nil)
	if err != nil {
		t.Fatal(err)
	}
	api, err := NewAPI(APIParts{
		Pages: pages, Links: links, Downloads: downloads, Callers: named{}, Keeper: store, Site: "https://files.example.org", Challenge: "Basic",
		Policy: rules{"alice": {"read", "share"}, "bob": {"read"}, "carol": {"share"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return &apiSite{t: t, api: api, links: links, seen: map[string]map[int]bool{}}
}

func (s *apiSite) ask(who, method, path, body string, edit ...func(*http.Request)) *httptest.ResponseRecorder {
	s.t.Helper()
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	if who != "" {
		r.Header.Set("Authorization", who)
	}
	for _, e := range edit {
		e(r)
	}
	w := httptest.NewRecorder()
	s.api.ServeHTTP(w, r)
	if kind := w.Header().Get("Content-Type"); w.Code >= 400 && kind != "application/problem+json" {
		s.t.Errorf("%s %s: %d of %q", method, path, w.Code, kind)
	}
	if strings.HasPrefix(path, "/links/") {
		path = "/links/{id}"
	}
	operation := strings.ToLower(method) + " " + path
	if s.seen[operation] == nil {
		s.seen[operation] = map[int]bool{}
	}
	s.seen[operation][w.Code] = true
	return w
}

func (s *apiSite) make(who, body string) (made madeLink) {
	s.t.Helper()
	w := s.ask(who, "POST", "/links", body)
	if err := json.Unmarshal(w.Body.Bytes(), &made); w.Code != http.StatusCreated || err != nil {
		s.t.Fatalf("%s: %d %s", body, w.Code, w.Body)
	}
	if made.Direct != "" && !strings.Contains(w.Body.String(), made.Direct) {
		s.t.Errorf("a URL is not as it is pasted: %s", w.Body)
	}
	return made
}

// Callers make links to what they may share, see their own, and end them; and every
// answer stands in the description.
func TestAPIOfLinks(t *testing.T) {
	s := newAPISite(t)
	made := s.make("alice", `{"path":"/reports/q3 ü.pdf","ttl":3600,"uses":2,"groups":["staff"],"networks":["192.0.2.0/24"],"filename":"x.pdf","rate":1000,"recipient":"bob","not_before":"2020-01-02T03:04:05Z"}`)
	if !strings.HasPrefix(made.URL, "https://files.example.org/downloads/reports/q3%20%C3%BC.pdf?link=") || made.Direct != made.URL+"&direct=1" {
		t.Errorf("made %+v", made)
	}
	token, err := Token(made.URL)
	if err != nil {
		t.Fatal(err)
	}
	c, err := s.links.Read(token)
	if err != nil || c.ID != made.ID || c.Subject != "alice" || c.Uses != 2 || c.Recipient != "bob" || !slices.Equal(c.Groups, []string{"staff"}) || c.Expires.Sub(c.Issued).Seconds() != 3600 {
		t.Errorf("claims %+v, %v", c, err)
	}
	below := s.make("alice", `{"path":"/reports/","password":"geheim"}`)
	if !strings.HasPrefix(below.URL, "https://files.example.org/downloads/reports/?link=") || below.Direct != "" {
		t.Errorf("made %+v", below)
	}

	for name, c := range map[string]struct {
		who, body string
		want      int
	}{
		"nobody":                    {"", `{"path":"/a"}`, 401},
		"a wrong password":          {"wrong", `{"path":"/a"}`, 401},
		"who is barred":             {"barred", `{"path":"/a"}`, 403},
		"a group as a caller":       {"@staff", `{"path":"/a"}`, 401},
		"a source that is down":     {"down", `{"path":"/a"}`, 503},
		"a policy that cannot tell": {"undecided", `{"path":"/a"}`, 503},
		"who may read alone":        {"bob", `{"path":"/a"}`, 403},
		"who may share alone":       {"carol", `{"path":"/a"}`, 403},
		"what nobody may":           {"alice", `{"path":"/hr/pay"}`, 403},
		"all below it":              {"alice", `{"path":"/hr/"}`, 403},
		"no JSON":                   {"alice", `path=/a`, 400},
		"an unknown member":         {"alice", `{"path":"/a","sub":"bob"}`, 400},
		"two objects":               {"alice", `{"path":"/a"}{}`, 400},
		"too much":                  {"alice", `{"path":"/` + strings.Repeat("a", maxRequest) + `"}`, 400},
		"a path that climbs":        {"alice", `{"path":"/a/../b"}`, 422},
		"no path":                   {"alice", `{}`, 422},
		"another download":          {"alice", `{"path":"/a","download":"other"}`, 422},
		"for longer than a week":    {"alice", `{"path":"/a","ttl":604801}`, 422},
		"a ttl that overflows":      {"alice", `{"path":"/a","ttl":9223372036854775807}`, 422},
		"for less than no time":     {"alice", `{"path":"/a","ttl":-1}`, 422},
		"another's group":           {"alice", `{"path":"/a","groups":["boss"]}`, 422},
		"a built-in group":          {"alice", `{"path":"/a","groups":["authenticated"]}`, 422},
		"uses of a directory":       {"alice", `{"path":"/a/","uses":1}`, 422},
		"a long password":           {"alice", `{"path":"/a","password":"` + strings.Repeat("x", 73) + `"}`, 422},
		"no network":                {"alice", `{"path":"/a","networks":["here"]}`, 422},
	} {
		if w := s.ask(c.who, "POST", "/links", c.body); w.Code != c.want || w.Code == 401 && w.Header().Get("WWW-Authenticate") == "" {
			t.Errorf("%s: %d %s, want %d", name, w.Code, w.Body, c.want)
		}
	}
	if w := s.ask("alice", "POST", "/links", `{"path":"/a","ttl":"7d"}`); w.Code != 400 || !strings.Contains(w.Body.String(), "ttl is no string: `securefiles schema links` says what each is") {
		t.Errorf("a ttl in days: %d %s", w.Code, w.Body)
	}
	if w := s.ask("alice", "POST", "/links", `{"path":"/a"}`, func(r *http.Request) { r.Header.Set("Content-Type", "text/plain") }); w.Code != 415 {
		t.Errorf("a form's body: %d", w.Code)
	}
	for name, edit := range map[string]func(*http.Request){
		"by Sec-Fetch-Site": func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "cross-site") },
		"by Origin":         func(r *http.Request) { r.Header.Set("Origin", "https://evil.example") },
		"of no origin":      func(r *http.Request) { r.Header.Set("Origin", "null") },
	} {
		for _, one := range [][2]string{{"POST", "/links"}, {"DELETE", "/links/" + made.ID}} {
			if w := s.ask("alice", one[0], one[1], `{"path":"/a"}`, edit); w.Code != 403 {
				t.Errorf("another site's page, %s, %s: %d", name, one[0], w.Code)
			}
		}
	}

	list := func(who string) (mine []listedLink) {
		t.Helper()
		w := s.ask(who, "GET", "/links", "")
		if err := json.Unmarshal(w.Body.Bytes(), &mine); w.Code != 200 || err != nil || strings.Contains(w.Body.String(), token) || strings.Contains(w.Body.String(), "$2") {
			t.Fatalf("%d %s", w.Code, w.Body)
		}
		return mine
	}
	if mine := list("alice"); len(mine) != 2 || !slices.ContainsFunc(mine, func(l listedLink) bool { return l.ID == made.ID && l.Uses == 2 && !l.Revoked }) {
		t.Errorf("alice's: %+v", mine)
	}
	if mine := list("bob"); len(mine) != 0 {
		t.Errorf("bob's: %+v", mine)
	}
	for _, one := range []struct {
		who, id string
		want    int
	}{
		{"", made.ID, 401}, {"down", made.ID, 503}, {"undecided", made.ID, 503}, {"bob", made.ID, 404}, {"alice", "none", 404},
		{"carol", below.ID, 204}, // may share it
		{"alice", made.ID, 204},
	} {
		if w := s.ask(one.who, "DELETE", "/links/"+one.id, ""); w.Code != one.want {
			t.Errorf("%q ends %s: %d %s, want %d", one.who, one.id, w.Code, w.Body, one.want)
		}
	}
	if mine := list("alice"); len(mine) != 2 || !mine[0].Revoked || !mine[1].Revoked {
		t.Errorf("ended: %+v", mine)
	}
	if w := s.ask("", "GET", "/links", ""); w.Code != 401 {
		t.Errorf("nobody's: %d", w.Code)
	}
	if w := s.ask("down", "GET", "/links", ""); w.Code != 503 {
		t.Errorf("a source that is down: %d", w.Code)
	}
	s.describes()
	for path, allow := range map[string]string{"/links": "GET, POST", "/links/x": "DELETE"} {
		if w := s.ask("alice", "PUT", path, ""); w.Code != 405 || w.Header().Get("Allow") != allow {
			t.Errorf("PUT %s: %d %v", path, w.Code, w.Header())
		}
	}
	if w := s.ask("alice", "GET", "/else", ""); w.Code != 404 {
		t.Errorf("elsewhere: %d", w.Code)
	}
}

// describes holds the description against what was answered, and what is read and written.
func (s *apiSite) describes() {
	s.t.Helper()
	text, err := os.ReadFile("../../schema/links.openapi.json")
	if err != nil {
		s.t.Fatal(err)
	}
	type operation struct {
		Responses map[string]any `json:"responses"`
	}
	var doc struct {
		Paths      map[string]map[string]json.RawMessage `json:"paths"`
		Components struct {
			Schemas map[string]struct {
				Properties map[string]any `json:"properties"`
			} `json:"schemas"`
		} `json:"components"`
	}
	if err := json.Unmarshal(text, &doc); err != nil {
		s.t.Fatal(err)
	}
	described := map[string]map[int]bool{}
	for path, item := range doc.Paths {
		for method, raw := range item {
			if method == "parameters" {
				continue
			}
			var o operation
			if err := json.Unmarshal(raw, &o); err != nil {
				s.t.Fatal(err)
			}
			name := method + " " + strings.TrimPrefix(path, "/_securefiles")
			described[name] = map[int]bool{}
			for status := range o.Responses {
				n, err := strconv.Atoi(status)
				if err != nil {
					s.t.Fatal(err)
				}
				described[name][n] = true
			}
		}
	}
	if !reflect.DeepEqual(described, s.seen) {
		s.t.Errorf("described are %v, answered were %v", described, s.seen)
	}
	for name, value := range map[string]any{"NewLink": newLink{}, "MadeLink": madeLink{}, "ListedLink": listedLink{}, "Problem": problemDetails{}} {
		var fields []string
		for i := range reflect.TypeOf(value).NumField() {
			tag, _, _ := strings.Cut(reflect.TypeOf(value).Field(i).Tag.Get("json"), ",")
			fields = append(fields, tag)
		}
		slices.Sort(fields)
		if got := slices.Sorted(maps.Keys(doc.Components.Schemas[name].Properties)); !slices.Equal(got, fields) {
			s.t.Errorf("%s is described with %v, and has %v", name, got, fields)
		}
	}
}

// A link that is counted, or has a rate, is not made for a download whose web server
// reports nothing of what it sends.
func TestALinkThatNobodyCanCountIsNotMade(t *testing.T) {
	s := newAPISite(t)
	for unreported, statuses := range map[string][3]int{"other": {201, 201, 201}, "main": {422, 422, 201}} {
		s.links.opts.Unreported = []string{unreported}
		for i, body := range []string{`{"path":"/a","uses":1}`, `{"path":"/a","rate":1000}`, `{"path":"/a"}`} {
			if w := s.ask("alice", http.MethodPost, "/links", body); w.Code != statuses[i] || (w.Code == 422) != strings.Contains(w.Body.String(), "tells nothing of what it sends") {
				t.Errorf("%s: %s: %d %s", unreported, body, w.Code, w.Body)
			}
		}
	}
}

// A button on a page of this site makes a link and shows it. No other site's page presses it.
func TestAFormMakesALinkAndShowsIt(t *testing.T) {
	s := newAPISite(t)
	press := func(who, body string, header ...string) *httptest.ResponseRecorder {
		t.Helper()
		r := httptest.NewRequest("POST", "/links", strings.NewReader(body))
		r.Host = "files.example.org:8080"
		for i := 0; i < len(header); i += 2 {
			r.Header.Set(header[i], header[i+1])
		}
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.Header.Set("X-Original-Scheme", "http")
		if who != "" {
			r.Header.Set("Authorization", who)
		}
		w := httptest.NewRecorder()
		s.api.ServeHTTP(w, r)
		return w
	}
	const file = "download=main&path=%2Freports%2F%3Cb%3E%20%26.pdf"
	for _, site := range []string{"https://files.example.org", ""} {
		s.api.Site = site
		w := press("alice", file, "Origin", "http://files.example.org:8080", "Accept-Language", "de")
		for _, want := range []string{"<h1>Ihr Link</h1>", ">" + cmp.Or(site, "http://files.example.org:8080") + "/downloads/reports/%3Cb%3E%20%26.pdf?link=ey", "&lt;b&gt; &amp;.pdf</dd>"} {
			if !strings.Contains(w.Body.String(), want) {
				t.Errorf("%q is not in the page: %s", want, w.Body)
			}
		}
		if h := w.Header(); w.Code != http.StatusCreated || h.Get("Content-Type") != "text/html; charset=utf-8" || h.Get("Cache-Control") != "no-store" || h.Get("Referrer-Policy") != "no-referrer" || !strings.Contains(h.Get("Content-Security-Policy"), "default-src 'none'; style-src 'unsafe-inline'") {
			t.Errorf("%d %v", w.Code, h)
		}
	}
	mine := func() int {
		t.Helper()
		var all []listedLink
		if err := json.Unmarshal(s.ask("alice", "GET", "/links", "").Body.Bytes(), &all); err != nil {
			t.Fatal(err)
		}
		return len(all)
	}
	before := mine()
	for name, row := range map[string]struct {
		who, body string
		header    []string
		want      int
	}{
		"of another origin":         {"alice", file, []string{"Origin", "http://evil.example"}, 403},
		"of another port":           {"alice", file, []string{"Origin", "http://files.example.org"}, 403},
		"of another site":           {"alice", file, []string{"Sec-Fetch-Site", "cross-site", "Origin", "http://files.example.org:8080"}, 403},
		"of another host's page":    {"alice", file, []string{"Sec-Fetch-Site", "same-site"}, 403},
		"of nobody's page":          {"alice", file, []string{"Origin", "null"}, 403},
		"of who says nothing":       {"alice", file, nil, 403},
		"typed by a person":         {"alice", file, []string{"Sec-Fetch-Site", "none"}, 403},
		"who may not share":         {"bob", file, []string{"Sec-Fetch-Site", "same-origin"}, 403},
		"who may not read":          {"carol", file, []string{"Sec-Fetch-Site", "same-origin"}, 403},
		"nobody":                    {"", file, []string{"Sec-Fetch-Site", "same-origin"}, 401},
		"nobody can tell":           {"undecided", file, []string{"Sec-Fetch-Site", "same-origin"}, 503},
		"no path":                   {"alice", "download=main", []string{"Sec-Fetch-Site", "same-origin"}, 400},
		"a folder":                  {"alice", "download=main&path=/reports/", []string{"Sec-Fetch-Site", "same-origin"}, 400},
		"what no request may have":  {"alice", "download=main&path=/../x", []string{"Sec-Fetch-Site", "same-origin"}, 422},
		"another download":          {"alice", "download=none&path=/x", []string{"Sec-Fetch-Site", "same-origin"}, 422},
		"no form":                   {"alice", "%zz", []string{"Sec-Fetch-Site", "same-origin"}, 400},
		"more than there can be":    {"alice", "path=" + strings.Repeat("x", maxRequest), []string{"Sec-Fetch-Site", "same-origin"}, 400},
		"the path in the address":   {"alice", "", []string{"Sec-Fetch-Site", "same-origin"}, 400},
		"a file that is hidden too": {"alice", "path=/hr/x", []string{"Sec-Fetch-Site", "same-origin"}, 403},
	} {
		w := press(row.who, row.body, row.header...)
		if w.Code != row.want || strings.Contains(w.Body.String(), "?link=") {
			t.Errorf("%s: %d %s, want %d", name, w.Code, w.Body, row.want)
		}
	}
	if got := mine(); got != before {
		t.Errorf("%d links were made", got-before)
	}
}
