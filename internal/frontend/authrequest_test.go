package frontend

import (
	"bytes"

	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"securefiles/authz"
	"securefiles/internal/secret"
	"securefiles/pathguard"
)

type fakeIdentity func(*authz.Question) (authz.Principal, error)

func (f fakeIdentity) Authenticate(_ context.Context, q *authz.Question) (authz.Principal, error) {
	return f(q)
}

type fakePolicy func(authz.Query) (authz.Decision, error)

func (f fakePolicy) Decide(_ context.Context, q authz.Query) (authz.Decision, error) { return f(q) }

var (
	anonymous = fakeIdentity(func(*authz.Question) (authz.Principal, error) { return authz.Principal{}, authz.ErrNoCredentials })
	allowAll  = fakePolicy(func(authz.Query) (authz.Decision, error) {
		return authz.Decision{Effect: authz.Allow, Generation: 3, File: "policy.csv", Line: 17}, nil
	})
	denyAll = fakePolicy(func(authz.Query) (authz.Decision, error) { return authz.Decision{Generation: 3}, nil })
)

func known(subject string, groups ...string) fakeIdentity {
	return func(*authz.Question) (authz.Principal, error) {
		return authz.Principal{Subject: subject, Groups: groups, Source: "fake"}, nil
	}
}

func testDownload() *authz.Download {
	return &authz.Download{Name: "main", URL: "/downloads/", Internal: "/protected/", CacheControl: "private, no-store", CSP: "sandbox"}
}

// newTestFront returns the front end of a guard for one download.
func newTestFront(t testing.TB, d *authz.Download, identity authz.Authenticator, policy authz.Decider, guarding *authz.Options, opts *Options) *AuthRequest {
	t.Helper()
	downloads, err := authz.NewDownloads(d)
	if err != nil {
		t.Fatal(err)
	}
	guard, err := authz.New(downloads, identity, policy, guarding)
	if err != nil {
		t.Fatal(err)
	}
	front, err := NewAuthRequest(guard, opts)
	if err != nil {
		t.Fatal(err)
	}
	return front
}

// ask returns the answer to a question as the snippet puts it; edit changes it.
func ask(t *testing.T, identity authz.Authenticator, policy authz.Decider, edit func(*http.Request)) (*http.Response, *authz.Outcome) {
	t.Helper()
	var seen *authz.Outcome
	g := newTestFront(t, testDownload(), identity, policy, &authz.Options{Challenge: `Basic realm="downloads"`},
		&Options{Observe: func(o *authz.Outcome, _ time.Duration) { seen = o }})
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
		"Referrer-Policy":             {"no-referrer"},
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
	var got authz.Query
	policy := fakePolicy(func(q authz.Query) (authz.Decision, error) { got = q; return authz.Decision{}, nil })
	ask(t, known("alice", "@staff"), policy, func(r *http.Request) {
		r.Header.Set("X-Original-URI", "/downloads/caf%C3%A9/100%25.txt?download=1")
		r.Header.Set("X-Real-IP", "::ffff:192.0.2.7")
		r.Host = "files.example.org"
	})
	want := authz.Query{
		Principal: authz.Principal{Subject: "alice", Groups: []string{"@staff", authz.GroupAnyone, authz.GroupAuthenticated}, Source: "fake"},
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
		return func(*authz.Question) (authz.Principal, error) { return authz.Principal{Subject: "alice"}, err }
	}
	bad := &authz.CredentialsError{Source: "fake", Problem: "wrong password", Challenge: `Basic realm="x"`}
	for _, row := range []struct {
		name     string
		identity authz.Authenticator
		policy   authz.Decider
		edit     func(*http.Request)
		status   int
		reason   authz.Reason
	}{
		// S1: one header, once.
		{"no target", known("alice"), allowAll, header("X-Original-URI"), 400, authz.ReasonRequest},
		{"empty target", known("alice"), allowAll, header("X-Original-URI", ""), 400, authz.ReasonRequest},
		{"two targets", known("alice"), allowAll, header("X-Original-URI", "/downloads/a", "/downloads/b"), 400, authz.ReasonRequest},
		{"the same target twice", known("alice"), allowAll, header("X-Original-URI", "/downloads/a", "/downloads/a"), 400, authz.ReasonRequest},
		{"no method", known("alice"), allowAll, header("X-Original-Method"), 400, authz.ReasonRequest},
		{"two methods", known("alice"), allowAll, header("X-Original-Method", "GET", "POST"), 400, authz.ReasonRequest},
		{"two addresses", known("alice"), allowAll, header("X-Real-IP", "192.0.2.1", "127.0.0.1"), 400, authz.ReasonRequest},
		{"POST", known("alice"), allowAll, header("X-Original-Method", "POST"), 403, authz.ReasonMethod},
		{"DELETE", known("alice"), allowAll, header("X-Original-Method", "DELETE"), 403, authz.ReasonMethod},
		{"lower-case get", known("alice"), allowAll, header("X-Original-Method", "get"), 403, authz.ReasonMethod},
		// S3: the canonical form only, before anyone is identified.
		{"outside every download", known("alice"), allowAll, header("X-Original-URI", "/other/a.txt"), 400, authz.ReasonRequest},
		{"the prefix itself", known("alice"), allowAll, header("X-Original-URI", "/downloads/"), 400, authz.ReasonPath},
		{"dot dot", known("alice"), allowAll, header("X-Original-URI", "/downloads/../etc/passwd"), 400, authz.ReasonPath},
		{"encoded slash", known("alice"), allowAll, header("X-Original-URI", "/downloads/a%2fb"), 400, authz.ReasonPath},
		{"a bad path beats bad credentials", fails(bad), allowAll, header("X-Original-URI", "/downloads//a"), 400, authz.ReasonPath},
		// S21: bad credentials end it.
		{"wrong password", fails(bad), allowAll, nil, 401, authz.ReasonCredentials},
		{"identity unavailable", fails(errors.New("backend down")), allowAll, nil, 503, authz.ReasonUnavailable},
		{"a source cannot tell", fails(&authz.UnavailableError{Source: "fake", Err: errors.New("down")}), allowAll, nil, 503, authz.ReasonUnavailable},
		{"right credentials of a name that is not to be had", fails(fmt.Errorf("%w: %w", authz.ErrReservedSubject, bad)), allowAll, nil, 403, authz.ReasonSubject},
		{"a source vouches for nobody", known(""), allowAll, nil, 403, authz.ReasonSubject},
		{"a source vouches for anonymous", known("anonymous"), allowAll, nil, 403, authz.ReasonSubject},
		{"a source vouches for a group", known("@staff"), allowAll, nil, 403, authz.ReasonSubject},
		{"anonymous, refused", anonymous, denyAll, nil, 401, authz.ReasonAnonymous},
		{"known, no line", known("alice"), denyAll, nil, 404, authz.ReasonDefaultDeny},
		{"known, a deny line", known("alice"), fakePolicy(func(authz.Query) (authz.Decision, error) {
			return authz.Decision{Generation: 1, File: "p.csv", Line: 4}, nil
		}), nil, 404, authz.ReasonPolicy},
		// S10: errors beside an allow, panics, unknown values, zero values.
		{"zero decision", known("alice"), fakePolicy(func(authz.Query) (authz.Decision, error) { return authz.Decision{}, nil }), nil, 404, authz.ReasonDefaultDeny},
		{"unknown effect", known("alice"), fakePolicy(func(authz.Query) (authz.Decision, error) { return authz.Decision{Effect: 7, Line: 1}, nil }), nil, 404, authz.ReasonPolicy},
		{"allow beside an error", known("alice"), fakePolicy(func(authz.Query) (authz.Decision, error) {
			return authz.Decision{Effect: authz.Allow, Line: 1}, errors.New("half of the policy is gone")
		}), nil, 503, authz.ReasonUnavailable},
		{"policy knows the subject as a role", known("admin"), fakePolicy(func(authz.Query) (authz.Decision, error) {
			return authz.Decision{Effect: authz.Allow}, authz.ErrReservedSubject
		}), nil, 403, authz.ReasonSubject},
		{"policy panics", known("alice"), fakePolicy(func(authz.Query) (authz.Decision, error) { panic("bug") }), nil, 503, authz.ReasonUnavailable},
		{"identity panics", fakeIdentity(func(*authz.Question) (authz.Principal, error) { panic("bug") }), allowAll, nil, 503, authz.ReasonUnavailable},
	} {
		t.Run(row.name, func(t *testing.T) {
			resp, out := ask(t, row.identity, row.policy, row.edit)
			if resp.StatusCode != row.status || out.Reason != row.reason {
				t.Errorf("got %d %s (%v), want %d %s", resp.StatusCode, out.Reason, out.Err, row.status, row.reason)
			}
			if got := resp.Header.Get("X-Securefiles-Reason"); got != string(row.reason) {
				t.Errorf("reason header %q", got)
			}
			if resp.Header.Get("X-Securefiles-Location") != "" || out.Allowed() || out.Decision.Effect == authz.Allow {
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

func TestDenyStatusSaysNoWhereConfigured(t *testing.T) {
	d := testDownload()
	d.DenyStatus = http.StatusForbidden
	g := newTestFront(t, d, known("alice"), denyAll, nil, nil)
	w := httptest.NewRecorder()
	g.ServeHTTP(w, nginxAsks("/downloads/a.txt"))
	if w.Code != http.StatusForbidden {
		t.Errorf("got %d, want 403", w.Code)
	}
}

// S14: what a client sends is escaped in the log.
func TestLogEscapesWhatTheClientSent(t *testing.T) {
	var buf bytes.Buffer
	g := newTestFront(t, testDownload(), known("alice"), denyAll, nil, &Options{
		Logger: slog.New(slog.NewJSONHandler(&buf, &slog.HandlerOptions{Level: slog.LevelDebug})),
	})
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
	down := fakeIdentity(func(*authz.Question) (authz.Principal, error) { return authz.Principal{}, errors.New("away") })
	g := newTestFront(t, testDownload(), down, denyAll, nil, &Options{
		Logger: slog.New(slog.NewJSONHandler(&buf, nil)), Now: func() time.Time { return now },
	})
	ask := func(n int) {
		for range n {
			g.ServeHTTP(httptest.NewRecorder(), nginxAsks("/downloads/a.txt"))
		}
	}
	ask(100)
	if n := strings.Count(buf.String(), "\n"); n != linesASecond {
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
	g := newTestFront(b, testDownload(), known("alice", "@staff"), allowAll, nil, nil)
	r := nginxAsks("/downloads/project/plan.pdf")
	b.ReportAllocs()
	for b.Loop() {
		g.ServeHTTP(httptest.NewRecorder(), r)
	}
}

// The reply table, where a row of it cannot be had from a guard.
func TestStatusNeedsEveryPieceOfAnAllow(t *testing.T) { // S10
	path, err := pathguard.New("/a.txt")
	if err != nil {
		t.Fatal(err)
	}
	whole := func() *authz.Outcome {
		return &authz.Outcome{
			Question: &authz.Question{Download: testDownload(), Path: path}, Reason: authz.ReasonPolicy,
			Principal: authz.Principal{Subject: "alice"}, Decision: authz.Decision{Effect: authz.Allow},
		}
	}
	if got := statusOf(whole()); got != http.StatusNoContent {
		t.Fatalf("a whole outcome is answered with %d", got)
	}
	for name, remove := range map[string]func(*authz.Outcome){
		"question":  func(o *authz.Outcome) { o.Question = nil },
		"reason":    func(o *authz.Outcome) { o.Reason = "" },
		"download":  func(o *authz.Outcome) { o.Question.Download = nil },
		"path":      func(o *authz.Outcome) { o.Question.Path = pathguard.Path{} },
		"principal": func(o *authz.Outcome) { o.Principal = authz.Principal{} },
		"decision":  func(o *authz.Outcome) { o.Decision = authz.Decision{} },
		"error":     func(o *authz.Outcome) { o.Err = errors.New("x") },
	} {
		o := whole()
		remove(o)
		if got := statusOf(o); got == http.StatusNoContent {
			t.Errorf("allowed without its %s", name)
		}
	}
	if got := statusOf(new(authz.Outcome)); got != http.StatusServiceUnavailable {
		t.Errorf("the zero outcome is answered with %d", got)
	}
	if got := statusOf(&authz.Outcome{Reason: authz.ReasonUnavailable, Login: "/login/"}); got != http.StatusServiceUnavailable {
		t.Errorf("got %d", got)
	}
}

// A denial may name a page of the service. What is allowed is a file.
func TestPageGoesWithADenialAlone(t *testing.T) {
	path, err := pathguard.New("/a.txt")
	if err != nil {
		t.Fatal(err)
	}
	q := &authz.Question{Download: testDownload(), Path: path}
	for _, row := range []struct {
		name   string
		out    *authz.Outcome
		status int
		page   []string
	}{
		{"a denial with a page", &authz.Outcome{Question: q, Reason: authz.ReasonCredentials, Page: "password"}, 401, []string{"password"}},
		{"a denial without", &authz.Outcome{Question: q, Reason: authz.ReasonCredentials}, 401, nil},
		{"an allow", &authz.Outcome{
			Question: q, Reason: authz.ReasonPolicy, Principal: authz.Principal{Subject: "alice"}, Decision: authz.Decision{Effect: authz.Allow}, Page: "listing",
		}, 204, nil},
	} {
		w := httptest.NewRecorder()
		newTestFront(t, testDownload(), anonymous, denyAll, nil, nil).reply(w, nginxAsks("/downloads/a.txt"), subrequest{}, row.out)
		if w.Code != row.status || !cmp.Equal(w.Header()["X-Securefiles-Page"], row.page) {
			t.Errorf("%s: %d %v", row.name, w.Code, w.Header())
		}
	}
}

// What the front end refuses itself is an outcome like the others: it is counted,
// and the log says what to set.
func TestEveryRefusalIsCountedAndLogged(t *testing.T) {
	var log bytes.Buffer
	var seen *authz.Outcome
	entered, release := make(chan struct{}), make(chan struct{})
	slow := fakeIdentity(func(q *authz.Question) (authz.Principal, error) {
		if q.Header.Get("Cookie") == "slow" {
			close(entered)
			<-release
		}
		return authz.Principal{}, authz.ErrNoCredentials
	})
	front := newTestFront(t, testDownload(), slow, denyAll, nil, &Options{
		Secret: func(text string) bool { return text == "right" }, MaxConcurrent: 1,
		Observe: func(o *authz.Outcome, _ time.Duration) { seen = o }, Logger: slog.New(slog.NewTextHandler(&log, nil)),
	})
	vouched := func(r *http.Request) { r.Header.Set("X-Securefiles-Proxy-Secret", "right") }
	for _, row := range []struct {
		name   string
		handle http.HandlerFunc
		edit   func(*http.Request)
		status int
		reason authz.Reason
		log    string
	}{
		{"no secret", front.ServeHTTP, func(*http.Request) {}, 403, authz.ReasonRequest, "set X-Securefiles-Proxy-Secret in nginx to what proxy_secret_file holds"},
		{"a wrong one", front.ServeHTTP, func(r *http.Request) { r.Header.Set("X-Securefiles-Proxy-Secret", "wr0ng") }, 403, authz.ReasonRequest, "the proxy secret is missing or wrong"},
		{"two", front.ServeHTTP, func(r *http.Request) { r.Header["X-Securefiles-Proxy-Secret"] = []string{"right", "right"} }, 403, authz.ReasonRequest, "the proxy secret is missing or wrong"},
		{"no target", front.ServeHTTP, func(r *http.Request) { vouched(r); r.Header.Del("X-Original-URI") }, 400, authz.ReasonRequest, "set X-Original-URI to $request_uri in nginx"},
		{"another route", front.NotFound, vouched, 404, authz.ReasonRequest, "asked for something else than GET /authorize"},
		{"another method", front.MethodNotAllowed, vouched, 405, authz.ReasonRequest, "by another method than GET"},
	} {
		log.Reset()
		seen = nil
		r := nginxAsks("/downloads/a.txt")
		r.Header.Set("X-Request-ID", "id-7")
		row.edit(r)
		w := httptest.NewRecorder()
		row.handle(w, r)
		if w.Code != row.status || w.Body.Len() != 0 || w.Header().Get("X-Securefiles-Reason") != string(row.reason) {
			t.Errorf("%s: %d %v %q", row.name, w.Code, w.Header(), w.Body)
		}
		if seen == nil || seen.Reason != row.reason || seen.Allowed() {
			t.Errorf("%s: counted as %+v", row.name, seen)
		}
		if !strings.Contains(log.String(), row.log) || !strings.Contains(log.String(), "level=WARN") || strings.Contains(log.String(), "wr0ng") {
			t.Errorf("%s: logged %s", row.name, &log)
		}
	}
	done := make(chan struct{})
	ask := func(cookie string) *httptest.ResponseRecorder {
		r, w := nginxAsks("/downloads/a.txt"), httptest.NewRecorder()
		vouched(r)
		r.Header.Set("Cookie", cookie)
		front.ServeHTTP(w, r)
		return w
	}
	go func() { ask("slow"); close(done) }()
	<-entered
	log.Reset()
	if w := ask("quick"); w.Code != 503 || w.Header().Get("Retry-After") == "" || seen.Reason != authz.ReasonUnavailable || !strings.Contains(log.String(), "more than 1 questions at a time") {
		t.Errorf("one too many: %d %v, logged %s", w.Code, w.Header(), &log)
	}
	close(release)
	<-done
}

// All that nginx says of a request is in the question.
func TestQuestionHoldsWhatNginxSays(t *testing.T) {
	now := time.Unix(1700000000, 0)
	var got *authz.Question
	front := newTestFront(t, testDownload(), fakeIdentity(func(q *authz.Question) (authz.Principal, error) {
		got = q
		return authz.Principal{}, authz.ErrNoCredentials
	}), denyAll, nil,
		&Options{Now: func() time.Time { return now }})
	r := nginxAsks("/downloads/a%20b.txt?x=1")
	r.Host = "files.example.org"
	r.Header.Set("X-Request-ID", "id-7")
	r.Header.Set("X-Original-Range", "bytes=0-9")
	r.Header.Set("X-Original-If-Range", `"etag"`)
	r.Header.Set("X-Original-Method", "HEAD")
	front.ServeHTTP(httptest.NewRecorder(), r)
	if got == nil {
		t.Fatal("nobody was asked")
	}
	if got.ID != "id-7" || got.Method != "HEAD" || got.Target != "/downloads/a%20b.txt?x=1" || got.Host != "files.example.org" || got.Action != "read" ||
		got.IP.String() != "192.0.2.1" || got.Range != "bytes=0-9" || got.IfRange != `"etag"` || !got.Time.Equal(now) || got.Download.Name != "main" || got.Path.String() != "/a b.txt" {
		t.Errorf("the question is %+v", got)
	}
}

func TestOnlyTheProxySecretOpensTheListener(t *testing.T) {
	text := strings.Repeat("s", 32)
	secret, err := secret.New("proxy secret", "", "SECRET", func(name string) (string, bool) { return text, name == "SECRET" })
	if err != nil {
		t.Fatal(err)
	}
	front := newTestFront(t, testDownload(), anonymous, allowAll, nil, &Options{Secret: secret.Is})
	for _, row := range []struct {
		name   string
		values []string
		status int
	}{
		{"none", nil, 403},
		{"empty", []string{""}, 403},
		{"wrong", []string{strings.Repeat("t", 32)}, 403},
		{"a prefix", []string{text[:31]}, 403},
		{"one byte more", []string{text + "s"}, 403},
		{"twice", []string{text, text}, 403},
		{"right", []string{text}, 204},
	} {
		r := nginxAsks("/downloads/a")
		if row.values != nil {
			r.Header["X-Securefiles-Proxy-Secret"] = row.values
		}
		w := httptest.NewRecorder()
		front.ServeHTTP(w, r)
		if w.Code != row.status {
			t.Errorf("%s: status %d, want %d", row.name, w.Code, row.status)
		}
	}
}

// S12: more requests than may be served at once are turned away, not queued.
func TestCrowdIsTurnedAway(t *testing.T) {
	const crowd = 1024
	release, entered := make(chan struct{}), make(chan struct{}, crowd)
	var asked atomic.Int32
	slow := fakePolicy(func(authz.Query) (authz.Decision, error) {
		if asked.Add(1) <= crowd { // one more is not kept waiting, should it get here
			entered <- struct{}{}
			<-release
		}
		return authz.Decision{Effect: authz.Allow, Generation: 1, File: "policy.csv", Line: 1}, nil
	})
	front := newTestFront(t, testDownload(), anonymous, slow, nil, &Options{MaxConcurrent: crowd})
	ask := func() *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		front.ServeHTTP(w, nginxAsks("/downloads/a"))
		return w
	}
	done := make(chan struct{}, crowd)
	for range crowd {
		go func() {
			ask()
			done <- struct{}{}
		}()
	}
	for range crowd {
		<-entered
	}
	w := ask()
	if w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") == "" {
		t.Errorf("status %d, headers %v", w.Code, w.Header())
	}
	close(release)
	for range crowd {
		<-done
	}
}

// A client that hangs up is no outage: it has a reason of its own, and no line in the
// log. What nginx ends because its own patience does is one.
func TestClientThatHangsUpIsNoOutage(t *testing.T) {
	for _, row := range []struct {
		name   string
		after  time.Duration // of which the client, or nginx, has enough
		err    error         // of whoever was asked; nil means that of the context
		reason authz.Reason
	}{
		{"a client that hangs up at once", 0, nil, authz.ReasonAborted},
		{"a client that hangs up after a second", time.Second, nil, authz.ReasonAborted},
		{"nginx has no more patience", 1900 * time.Millisecond, nil, authz.ReasonUnavailable},
		{"a client that hangs up on an outage", 0, errors.New("the application is away"), authz.ReasonUnavailable},
	} {
		var log bytes.Buffer
		var seen *authz.Outcome
		var mu sync.Mutex
		now := time.Unix(1_000_000_000, 0)
		waiting := make(chan struct{})
		identity := contextIdentity(func(ctx context.Context) (authz.Principal, error) {
			close(waiting)
			<-ctx.Done()
			mu.Lock()
			now = now.Add(row.after)
			mu.Unlock()
			err := row.err
			if err == nil {
				err = ctx.Err()
			}
			return authz.Principal{}, &authz.UnavailableError{Source: "fake", Err: err}
		})
		observed := make(chan struct{})
		front := newTestFront(t, testDownload(), identity, denyAll, nil, &Options{
			Observe: func(o *authz.Outcome, _ time.Duration) { seen = o; close(observed) }, Logger: slog.New(slog.NewTextHandler(&log, nil)),
			Now: func() time.Time { mu.Lock(); defer mu.Unlock(); return now },
		})
		served := make(chan struct{})
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { front.ServeHTTP(w, r); close(served) }))
		ctx, hangUp := context.WithCancel(t.Context())
		r := nginxAsks("/downloads/a.txt").WithContext(ctx)
		r.RequestURI = ""
		var err error
		if r.URL, err = url.Parse(server.URL + "/authorize"); err != nil {
			t.Fatal(err)
		}
		go func() {
			if resp, err := http.DefaultClient.Do(r); err == nil {
				_ = resp.Body.Close() // nobody reads it
			}
		}()
		<-waiting
		hangUp()
		<-served
		server.Close()
		<-observed
		if seen.Reason != row.reason || seen.Allowed() || (log.Len() > 0) != (row.reason == authz.ReasonUnavailable) {
			t.Errorf("%s: %s, logged %q", row.name, seen.Reason, &log)
		}
	}
}

type contextIdentity func(context.Context) (authz.Principal, error)

func (f contextIdentity) Authenticate(ctx context.Context, _ *authz.Question) (authz.Principal, error) {
	return f(ctx)
}
