package authz

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"securefiles/pathguard"
)

type fakeIdentity func(*http.Request) (Principal, error)

func (f fakeIdentity) Authenticate(_ context.Context, r *http.Request) (Principal, error) {
	return f(r)
}

type fakePolicy func(Query) (Decision, error)

func (f fakePolicy) Decide(_ context.Context, q Query) (Decision, error) { return f(q) }

var (
	anonymous = fakeIdentity(func(*http.Request) (Principal, error) { return Principal{}, ErrNoCredentials })
	allowAll  = fakePolicy(func(Query) (Decision, error) {
		return Decision{Effect: Allow, Generation: 3, File: "policy.csv", Line: 17}, nil
	})
	denyAll = fakePolicy(func(Query) (Decision, error) { return Decision{Generation: 3}, nil })
)

func known(subject string, groups ...string) fakeIdentity {
	return func(*http.Request) (Principal, error) {
		return Principal{Subject: subject, Groups: groups, Source: "fake"}, nil
	}
}

func testDownload() *Download {
	return &Download{Name: "main", URL: "/downloads/", Internal: "/protected/", CacheControl: "private, no-store", CSP: "sandbox"}
}

// ask returns the answer to a question as the snippet puts it; edit changes it.
func ask(t *testing.T, identity Authenticator, policy Decider, edit func(*http.Request)) (*http.Response, *Outcome) {
	t.Helper()
	var seen *Outcome
	g, err := New([]*Download{testDownload()}, identity, policy, &Options{
		Challenge: `Basic realm="downloads"`,
		Observe:   func(o *Outcome, _ time.Duration) { seen = o },
	})
	if err != nil {
		t.Fatal(err)
	}
	w := httptest.NewRecorder()
	r := nginxAsks("/downloads/a/b.txt")
	if edit != nil {
		edit(r)
	}
	g.ServeHTTP(w, r)
	return w.Result(), seen
}

func nginxAsks(target string) *http.Request {
	r := httptest.NewRequest(http.MethodGet, "/authorize", nil)
	r.Header.Set("X-Original-URI", target)
	r.Header.Set("X-Original-Method", "GET")
	r.Header.Set("X-Real-IP", "192.0.2.1")
	return r
}

func TestAllowTellsNginxEverything(t *testing.T) {
	resp, out := ask(t, known("alice"), allowAll, nil)
	want := http.Header{
		"X-Securefiles-Location":      {"/protected/a/b.txt"},
		"X-Securefiles-Disposition":   {pathguard.Disposition(pathguard.Attachment, "b.txt")},
		"X-Securefiles-Cache-Control": {"private, no-store"},
		"X-Securefiles-Csp":           {"sandbox"},
		"X-Securefiles-Limit-Rate":    {"0"},
		"X-Securefiles-Decision":      {"g3:policy.csv:17"},
		"X-Securefiles-User":          {"alice"},
		"X-Securefiles-Reason":        {"policy"},
	}
	if resp.StatusCode != http.StatusNoContent {
		t.Errorf("status %d, want 204", resp.StatusCode)
	}
	if diff := cmp.Diff(want, resp.Header); diff != "" {
		t.Errorf("headers differ (-want +got):\n%s", diff)
	}
	if !out.Allowed() {
		t.Error("the observer saw a denial")
	}
}

func TestPolicyIsAskedExactlyWhatNginxWillOpen(t *testing.T) {
	var got Query
	policy := fakePolicy(func(q Query) (Decision, error) { got = q; return Decision{}, nil })
	ask(t, known("alice", "@staff"), policy, func(r *http.Request) {
		r.Header.Set("X-Original-URI", "/downloads/caf%C3%A9/100%25.txt?download=1")
		r.Header.Set("X-Real-IP", "::ffff:192.0.2.7")
		r.Host = "files.example.org"
	})
	want := Query{
		Principal: Principal{Subject: "alice", Groups: []string{"@staff", GroupAnyone, GroupAuthenticated}, Source: "fake"},
		Object:    "/café/100%.txt", Action: "read", Domain: "main", IP: "192.0.2.7", Host: "files.example.org",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("query differs (-want +got):\n%s", diff)
	}
}

func TestEveryRefusalHasItsStatusAndReason(t *testing.T) {
	header := func(name string, values ...string) func(*http.Request) {
		return func(r *http.Request) { r.Header[http.CanonicalHeaderKey(name)] = values }
	}
	fails := func(err error) fakeIdentity {
		return func(*http.Request) (Principal, error) { return Principal{Subject: "alice"}, err }
	}
	bad := &CredentialsError{Source: "fake", Problem: "wrong password", Challenge: `Basic realm="x"`}
	for _, row := range []struct {
		name     string
		identity Authenticator
		policy   Decider
		edit     func(*http.Request)
		status   int
		reason   Reason
	}{
		// S1: one header, once.
		{"no target", known("alice"), allowAll, header("X-Original-URI"), 400, ReasonRequest},
		{"empty target", known("alice"), allowAll, header("X-Original-URI", ""), 400, ReasonRequest},
		{"two targets", known("alice"), allowAll, header("X-Original-URI", "/downloads/a", "/downloads/b"), 400, ReasonRequest},
		{"the same target twice", known("alice"), allowAll, header("X-Original-URI", "/downloads/a", "/downloads/a"), 400, ReasonRequest},
		{"no method", known("alice"), allowAll, header("X-Original-Method"), 400, ReasonRequest},
		{"two methods", known("alice"), allowAll, header("X-Original-Method", "GET", "POST"), 400, ReasonRequest},
		{"two addresses", known("alice"), allowAll, header("X-Real-IP", "192.0.2.1", "127.0.0.1"), 400, ReasonRequest},
		{"POST", known("alice"), allowAll, header("X-Original-Method", "POST"), 403, ReasonMethod},
		{"DELETE", known("alice"), allowAll, header("X-Original-Method", "DELETE"), 403, ReasonMethod},
		{"lower-case get", known("alice"), allowAll, header("X-Original-Method", "get"), 403, ReasonMethod},
		// S3: the canonical form only, before anyone is identified.
		{"outside every download", known("alice"), allowAll, header("X-Original-URI", "/other/a.txt"), 400, ReasonPath},
		{"the prefix itself", known("alice"), allowAll, header("X-Original-URI", "/downloads/"), 400, ReasonPath},
		{"dot dot", known("alice"), allowAll, header("X-Original-URI", "/downloads/../etc/passwd"), 400, ReasonPath},
		{"encoded slash", known("alice"), allowAll, header("X-Original-URI", "/downloads/a%2fb"), 400, ReasonPath},
		{"a bad path beats bad credentials", fails(bad), allowAll, header("X-Original-URI", "/downloads//a"), 400, ReasonPath},
		// S21: bad credentials end it.
		{"wrong password", fails(bad), allowAll, nil, 401, ReasonCredentials},
		{"identity unavailable", fails(errors.New("backend down")), allowAll, nil, 503, ReasonUnavailable},
		{"a source cannot tell", fails(&UnavailableError{Source: "fake", Err: errors.New("down")}), allowAll, nil, 503, ReasonUnavailable},
		{"right credentials of a name that is not to be had", fails(fmt.Errorf("%w: %w", ErrReservedSubject, bad)), allowAll, nil, 403, ReasonSubject},
		{"a source vouches for nobody", known(""), allowAll, nil, 403, ReasonSubject},
		{"a source vouches for anonymous", known("anonymous"), allowAll, nil, 403, ReasonSubject},
		{"a source vouches for a group", known("@staff"), allowAll, nil, 403, ReasonSubject},
		{"anonymous, refused", anonymous, denyAll, nil, 401, ReasonAnonymous},
		{"known, no line", known("alice"), denyAll, nil, 404, ReasonDefaultDeny},
		{"known, a deny line", known("alice"), fakePolicy(func(Query) (Decision, error) {
			return Decision{Generation: 1, File: "p.csv", Line: 4}, nil
		}), nil, 404, ReasonPolicy},
		// S10: errors beside an allow, panics, unknown values, zero values.
		{"zero decision", known("alice"), fakePolicy(func(Query) (Decision, error) { return Decision{}, nil }), nil, 404, ReasonDefaultDeny},
		{"unknown effect", known("alice"), fakePolicy(func(Query) (Decision, error) { return Decision{Effect: 7, Line: 1}, nil }), nil, 404, ReasonPolicy},
		{"allow beside an error", known("alice"), fakePolicy(func(Query) (Decision, error) {
			return Decision{Effect: Allow, Line: 1}, errors.New("half of the policy is gone")
		}), nil, 503, ReasonUnavailable},
		{"policy knows the subject as a role", known("admin"), fakePolicy(func(Query) (Decision, error) {
			return Decision{Effect: Allow}, ErrReservedSubject
		}), nil, 403, ReasonSubject},
		{"policy panics", known("alice"), fakePolicy(func(Query) (Decision, error) { panic("bug") }), nil, 503, ReasonUnavailable},
		{"identity panics", fakeIdentity(func(*http.Request) (Principal, error) { panic("bug") }), allowAll, nil, 503, ReasonUnavailable},
	} {
		t.Run(row.name, func(t *testing.T) {
			resp, out := ask(t, row.identity, row.policy, row.edit)
			if resp.StatusCode != row.status || out.Reason != row.reason {
				t.Errorf("got %d %s (%v), want %d %s", resp.StatusCode, out.Reason, out.Err, row.status, row.reason)
			}
			if got := resp.Header.Get("X-Securefiles-Reason"); got != string(row.reason) {
				t.Errorf("reason header %q", got)
			}
			if resp.Header.Get("X-Securefiles-Location") != "" || out.Allowed() || out.Decision.Effect == Allow {
				t.Errorf("a denial names a file or counts as an allow: %v %+v", resp.Header, out)
			}
			if row.status == 401 && resp.Header.Get("WWW-Authenticate") == "" {
				t.Error("401 without a challenge")
			}
			if row.status == 503 && resp.Header.Get("Retry-After") == "" {
				t.Error("503 without Retry-After")
			}
			for name := range resp.Header {
				if strings.HasPrefix(name, "X-Accel") {
					t.Errorf("%s would be obeyed inside the subrequest", name)
				}
			}
		})
	}
}

func TestOutcomeNamesTheSourceThatDecided(t *testing.T) {
	bad := &CredentialsError{Source: "fake", Problem: "wrong"}
	for _, err := range []error{
		bad, &UnavailableError{Source: "fake", Err: errors.New("down")}, fmt.Errorf("%w: %w", ErrReservedSubject, bad),
	} {
		_, out := ask(t, fakeIdentity(func(*http.Request) (Principal, error) { return Principal{}, err }), allowAll, nil)
		if out.Source != "fake" {
			t.Errorf("%v: source %q", err, out.Source)
		}
	}
}

func TestDenyStatusSaysNoWhereConfigured(t *testing.T) {
	d := testDownload()
	d.DenyStatus = http.StatusForbidden
	g, err := New([]*Download{d}, known("alice"), denyAll, nil)
	if err != nil {
		t.Fatal(err)
	}
	w := httptest.NewRecorder()
	g.ServeHTTP(w, nginxAsks("/downloads/a.txt"))
	if w.Code != http.StatusForbidden {
		t.Errorf("got %d, want 403", w.Code)
	}
}

func TestOutcomeNeedsEveryPieceToAllow(t *testing.T) { // S10
	path, err := pathguard.New("/a.txt")
	if err != nil {
		t.Fatal(err)
	}
	whole := func() *Outcome {
		return &Outcome{Reason: ReasonPolicy, Download: testDownload(), Path: path, Principal: Principal{Subject: "alice"}, Decision: Decision{Effect: Allow}}
	}
	if !whole().Allowed() {
		t.Fatal("a whole outcome is refused")
	}
	for name, remove := range map[string]func(*Outcome){
		"reason":    func(o *Outcome) { o.Reason = "" },
		"download":  func(o *Outcome) { o.Download = nil },
		"path":      func(o *Outcome) { o.Path = pathguard.Path{} },
		"principal": func(o *Outcome) { o.Principal = Principal{} },
		"decision":  func(o *Outcome) { o.Decision = Decision{} },
		"error":     func(o *Outcome) { o.Err = errors.New("x") },
	} {
		o := whole()
		remove(o)
		if o.Allowed() || o.status() == http.StatusNoContent {
			t.Errorf("allowed without its %s", name)
		}
	}
	if got := new(Outcome).status(); got != http.StatusServiceUnavailable {
		t.Errorf("the zero outcome is answered with %d", got)
	}
}

func TestNewRefusesDownloadsThatContainEachOther(t *testing.T) {
	a := testDownload()
	for _, b := range []*Download{
		{Name: "b", URL: "/downloads/b/", Internal: "/p/"},
		{Name: "b", URL: "/b/", Internal: "/protected/b/"},
		{Name: "main", URL: "/b/", Internal: "/p/"},
		{Name: "b", URL: "b/", Internal: "/p/"},
		{Name: "b", URL: "/b", Internal: "/p/"},
		{Name: "b", URL: "/", Internal: "/p/"},
	} {
		if _, err := New([]*Download{a, b}, anonymous, denyAll, nil); err == nil {
			t.Errorf("accepted %+v", b)
		}
	}
	if _, err := New(nil, anonymous, denyAll, nil); err == nil {
		t.Error("accepted no download")
	}
	if _, err := New([]*Download{a}, nil, denyAll, nil); err == nil {
		t.Error("accepted no identity")
	}
}

// S14: what a client sends is escaped in the log.
func TestLogEscapesWhatTheClientSent(t *testing.T) {
	var buf bytes.Buffer
	g, err := New([]*Download{testDownload()}, known("alice"), denyAll, &Options{
		Logger: slog.New(slog.NewJSONHandler(&buf, &slog.HandlerOptions{Level: slog.LevelDebug})),
	})
	if err != nil {
		t.Fatal(err)
	}
	r := nginxAsks("/downloads/%E2%80%AEgpj.exe?secret=1")
	r.Header.Set("Authorization", "Basic c2VjcmV0")
	g.ServeHTTP(httptest.NewRecorder(), r)
	line := buf.String()
	if !strings.Contains(line, `"url":"/downloads/%E2%80%AEgpj.exe"`) || strings.Contains(line, "secret") || strings.Contains(line, "c2VjcmV0") {
		t.Errorf("log line: %s", line)
	}
}

// While something is down, the log is told of some requests and counts the rest.
func TestLogIsNotFlooded(t *testing.T) {
	var buf bytes.Buffer
	now := time.Unix(1700000000, 0)
	down := fakeIdentity(func(*http.Request) (Principal, error) { return Principal{}, errors.New("away") })
	g, err := New([]*Download{testDownload()}, down, denyAll, &Options{
		Logger: slog.New(slog.NewJSONHandler(&buf, nil)), Now: func() time.Time { return now },
	})
	if err != nil {
		t.Fatal(err)
	}
	ask := func(n int) {
		for range n {
			g.ServeHTTP(httptest.NewRecorder(), nginxAsks("/downloads/a.txt"))
		}
	}
	ask(100)
	if n := strings.Count(buf.String(), "\n"); n != complaintsASecond {
		t.Errorf("100 requests in a second made %d lines", n)
	}
	buf.Reset()
	now = now.Add(time.Second)
	ask(2)
	if lines := strings.Split(buf.String(), "\n"); len(lines) != 3 || !strings.Contains(lines[0], `"left_out":90`) || strings.Contains(lines[1], "left_out") {
		t.Errorf("a second later: %s", buf.String())
	}
}

func BenchmarkAuthorize(b *testing.B) {
	g, err := New([]*Download{testDownload()}, known("alice", "@staff"), allowAll, nil)
	if err != nil {
		b.Fatal(err)
	}
	r := nginxAsks("/downloads/project/plan.pdf")
	b.ReportAllocs()
	for b.Loop() {
		g.ServeHTTP(httptest.NewRecorder(), r)
	}
}
