package authz

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"securefiles/pathguard"
)

type fakeIdentity func(*Question) (Principal, error)

func (f fakeIdentity) Authenticate(_ context.Context, q *Question) (Principal, error) {
	return f(q)
}

type fakePolicy func(Query) (Decision, error)

func (f fakePolicy) Decide(_ context.Context, q Query) (Decision, error) { return f(q) }

var (
	anonymous = fakeIdentity(func(*Question) (Principal, error) { return Principal{}, ErrNoCredentials })
	allowAll  = fakePolicy(func(Query) (Decision, error) {
		return Decision{Effect: Allow, Generation: 3, File: "policy.csv", Line: 17}, nil
	})
	denyAll = fakePolicy(func(Query) (Decision, error) { return Decision{Generation: 3}, nil })
)

func known(subject string, groups ...string) fakeIdentity {
	return func(*Question) (Principal, error) {
		return Principal{Subject: subject, Groups: groups, Source: "fake"}, nil
	}
}

func testDownload() *Download {
	return &Download{Name: "main", URL: "/downloads/", Internal: "/protected/", CacheControl: "private, no-store", CSP: "sandbox"}
}

func testDownloads(t testing.TB) *Downloads {
	t.Helper()
	d, err := NewDownloads(testDownload())
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func newTestGuard(t testing.TB, identity Authenticator, policy Decider, opts *Options) *Guard {
	t.Helper()
	g, err := New(testDownloads(t), identity, policy, opts)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// guardOf guards a download like the one of other tests, for alice.
func guardOf(t testing.TB, edit func(*Download), policy Decider, opts *Options) *Guard {
	t.Helper()
	d := testDownload()
	edit(d)
	downloads, err := NewDownloads(d)
	if err != nil {
		t.Fatal(err)
	}
	g, err := New(downloads, known("alice"), policy, opts)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// question is one as a front end puts it.
func question(target string) *Question {
	return &Question{Method: "GET", Target: target, Host: "localhost", Action: ActionRead, IP: netip.MustParseAddr("192.0.2.1"), Header: http.Header{}}
}

func TestPolicyIsAskedExactlyWhatWillBeOpened(t *testing.T) {
	var got Query
	policy := fakePolicy(func(q Query) (Decision, error) { got = q; return Decision{}, nil })
	q := question("/downloads/caf%C3%A9/100%25.txt?download=1")
	q.IP, q.Host = netip.MustParseAddr("::ffff:192.0.2.7"), "files.example.org"
	out := newTestGuard(t, known("alice", "@staff"), policy, nil).Check(t.Context(), q)
	want := Query{
		Principal: Principal{Subject: "alice", Groups: []string{"@staff", GroupAnyone, GroupAuthenticated}, Source: "fake"},
		Object:    "/café/100%.txt", Action: "read", Domain: "main", IP: "192.0.2.7", Host: "files.example.org",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("query differs (-want +got):\n%s", diff)
	}
	if out.Question != q || q.Path.String() != got.Object || q.Download.Name != got.Domain {
		t.Errorf("the outcome is of another question: %+v", out)
	}
	q = question("/downloads/a")
	q.IP = netip.MustParseAddr("fe80::1%eth0")
	newTestGuard(t, known("alice"), policy, nil).Check(t.Context(), q)
	if got.IP != "fe80::1" {
		t.Errorf("the address is %q", got.IP)
	}
	q.IP = netip.Addr{}
	newTestGuard(t, known("alice"), policy, nil).Check(t.Context(), q)
	if got.IP != "" {
		t.Errorf("no address is %q", got.IP)
	}
}

// named are names as a table has them.
type named map[string]string

func (n named) Object(p pathguard.Path) (pathguard.Path, error) {
	if object, ok := n[p.String()]; ok {
		return pathguard.New(object)
	}
	return p, nil
}

func TestOfAPublicNamePolicyIsAskedAboutTheFile(t *testing.T) {
	d := testDownload()
	d.Names = named{"/latest.zip": "/v2.zip", "/broken": "nothing"}
	downloads, err := NewDownloads(d)
	if err != nil {
		t.Fatal(err)
	}
	var asked string
	guard, err := New(downloads, known("alice"), fakePolicy(func(q Query) (Decision, error) { asked = q.Object; return allowAll.Decide(t.Context(), q) }), nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct{ target, asked, name string }{
		{"/downloads/latest.zip", "/v2.zip", "latest.zip"},
		{"/downloads/late%73t.zip?x", "/v2.zip", "latest.zip"},
		{"/downloads/v2.zip", "/v2.zip", "v2.zip"},
	} {
		out := guard.Check(t.Context(), question(row.target))
		if q := out.Question; !out.Allowed() || asked != row.asked || q.Path.String() != row.asked || q.Asked.Base() != row.name {
			t.Errorf("%s: asked about %q, opens %q, called %q: %+v", row.target, asked, q.Path, q.Asked.Base(), out)
		}
	}
	if out := guard.Check(t.Context(), question("/downloads/broken")); out.Allowed() || out.Reason != ReasonPath {
		t.Errorf("what may not be opened: %+v", out)
	}
	for text, want := range map[string]string{"/downloads/latest.zip": "/v2.zip", "/latest.zip": "/v2.zip", "https://files.example.org/downloads/latest.zip": "/v2.zip", "/v2.zip": "/v2.zip"} {
		if _, path, err := downloads.Ask("", text); err != nil || path.String() != want {
			t.Errorf("%s as people ask: %q, %v", text, path, err)
		}
	}
	if _, _, err := downloads.Ask("", "/broken"); !errors.Is(err, ErrPath) {
		t.Errorf("what may not be opened, as people ask: %v", err)
	}
}

func TestAllowCarriesAllThatCameOfIt(t *testing.T) {
	q := question("/downloads/a/b.txt")
	out := newTestGuard(t, known("alice"), allowAll, &Options{Challenge: "Basic", Login: testLogin(t, "/login/")}).Check(t.Context(), q)
	if !out.Allowed() || out.Reason != ReasonPolicy || out.Source != "fake" || out.Decision.String() != "g3:policy.csv:17" ||
		out.Question != q || out.Download().Name != "main" || q.Path.String() != "/a/b.txt" || out.Challenge != "" || out.Login != "" {
		t.Errorf("got %+v", out)
	}
}

func TestEveryRefusalHasItsReason(t *testing.T) {
	target := func(s string) func(*Question) { return func(q *Question) { q.Target = s } }
	method := func(s string) func(*Question) { return func(q *Question) { q.Method = s } }
	fails := func(err error) fakeIdentity {
		return func(*Question) (Principal, error) { return Principal{Subject: "alice"}, err }
	}
	bad := &CredentialsError{Source: "fake", Problem: "wrong password", Challenge: `Basic realm="x"`}
	for _, row := range []struct {
		name     string
		identity Authenticator
		policy   Decider
		edit     func(*Question)
		reason   Reason
	}{
		{"the zero question", known("alice"), allowAll, func(q *Question) { *q = Question{} }, ReasonMethod},
		{"no target", known("alice"), allowAll, target(""), ReasonPath},
		{"POST", known("alice"), allowAll, method("POST"), ReasonMethod},
		{"DELETE", known("alice"), allowAll, method("DELETE"), ReasonMethod},
		{"lower-case get", known("alice"), allowAll, method("get"), ReasonMethod},
		{"no method", known("alice"), allowAll, method(""), ReasonMethod},
		// S3: the canonical form only, before anyone is identified.
		// A rewrite before the location leads there, and every file would be 400.
		{"outside every download", known("alice"), allowAll, target("/other/a.txt"), ReasonRequest},
		{"outside every download, with what begins like one", known("alice"), allowAll, target("/downloadsx/a.txt"), ReasonRequest},
		{"outside every download, with one in the query", known("alice"), allowAll, target("/other?/downloads/a.txt"), ReasonRequest},
		// Clients spell a URL in ways that the web server takes for the same.
		{"a prefix that is escaped", known("alice"), allowAll, target("/%64ownloads/a.txt"), ReasonPath},
		{"a doubled slash before the prefix", known("alice"), allowAll, target("//downloads/a.txt"), ReasonPath},
		{"a way around to the prefix", known("alice"), allowAll, target("/x/../downloads/a.txt"), ReasonPath},
		{"a whole URL", known("alice"), allowAll, target("http://localhost/downloads/a.txt"), ReasonPath},
		{"the prefix with an escaped slash", known("alice"), allowAll, target("/downloads%2fa.txt"), ReasonPath},
		{"the prefix itself", known("alice"), allowAll, target("/downloads/"), ReasonPath},
		{"dot dot", known("alice"), allowAll, target("/downloads/../etc/passwd"), ReasonPath},
		{"encoded slash", known("alice"), allowAll, target("/downloads/a%2fb"), ReasonPath},
		{"a bad path beats bad credentials", fails(bad), allowAll, target("/downloads//a"), ReasonPath},
		// S21: bad credentials end it.
		{"wrong password", fails(bad), allowAll, nil, ReasonCredentials},
		{"identity unavailable", fails(errors.New("backend down")), allowAll, nil, ReasonUnavailable},
		{"a source cannot tell", fails(&UnavailableError{Source: "fake", Err: errors.New("down")}), allowAll, nil, ReasonUnavailable},
		{"right credentials of a name that is not to be had", fails(fmt.Errorf("%w: %w", ErrReservedSubject, bad)), allowAll, nil, ReasonSubject},
		{"a source vouches for nobody", known(""), allowAll, nil, ReasonSubject},
		{"a source vouches for anonymous", known("anonymous"), allowAll, nil, ReasonSubject},
		{"a source vouches for a group", known("@staff"), allowAll, nil, ReasonSubject},
		{"a source vouches for a name that cannot be told from another", known("alice\u200b"), allowAll, nil, ReasonSubject},
		{"a source gives a role", known("alice", "@staff", "admin"), allowAll, nil, ReasonSubject},
		{"a source gives a built-in group", known("alice", "@anyone"), allowAll, nil, ReasonSubject},
		{"a source gives a group without a name", known("alice", "@"), allowAll, nil, ReasonSubject},
		{"anonymous, refused", anonymous, denyAll, nil, ReasonAnonymous},
		{"known, no line", known("alice"), denyAll, nil, ReasonDefaultDeny},
		{"known, a deny line", known("alice"), fakePolicy(func(Query) (Decision, error) {
			return Decision{Generation: 1, File: "p.csv", Line: 4}, nil
		}), nil, ReasonPolicy},
		{"anonymous, a deny line", anonymous, fakePolicy(func(Query) (Decision, error) {
			return Decision{Generation: 1, File: "p.csv", Line: 4}, nil
		}), nil, ReasonAnonymous},
		// S10: errors beside an allow, panics, unknown values, zero values.
		{"zero decision", known("alice"), fakePolicy(func(Query) (Decision, error) { return Decision{}, nil }), nil, ReasonDefaultDeny},
		{"unknown effect", known("alice"), fakePolicy(func(Query) (Decision, error) { return Decision{Effect: 7, Line: 1}, nil }), nil, ReasonPolicy},
		{"allow beside an error", known("alice"), fakePolicy(func(Query) (Decision, error) {
			return Decision{Effect: Allow, Line: 1}, errors.New("half of the policy is gone")
		}), nil, ReasonUnavailable},
		{"policy knows the subject as a role", known("admin"), fakePolicy(func(Query) (Decision, error) {
			return Decision{Effect: Allow}, ErrReservedSubject
		}), nil, ReasonSubject},
		{"policy panics", known("alice"), fakePolicy(func(Query) (Decision, error) { panic("bug") }), nil, ReasonUnavailable},
		{"identity panics", fakeIdentity(func(*Question) (Principal, error) { panic("bug") }), allowAll, nil, ReasonUnavailable},
	} {
		t.Run(row.name, func(t *testing.T) {
			asked := false
			identity := fakeIdentity(func(q *Question) (Principal, error) {
				asked = true
				return row.identity.Authenticate(t.Context(), q)
			})
			q := question("/downloads/a/b.txt")
			if row.edit != nil {
				row.edit(q)
			}
			out := newTestGuard(t, identity, row.policy, &Options{Challenge: `Basic realm="downloads"`}).Check(t.Context(), q)
			if out.Reason != row.reason {
				t.Errorf("got %s (%v), want %s", out.Reason, out.Err, row.reason)
			}
			if out.Allowed() || out.Decision.Effect == Allow {
				t.Errorf("a denial counts as an allow: %+v", out)
			}
			if out.Question != q {
				t.Errorf("the outcome is of another question: %+v", out.Question)
			}
			if below := strings.HasPrefix(q.Target, "/downloads/") && row.reason != ReasonMethod; below != (out.Download() != nil) {
				t.Errorf("the download is %+v", out.Download()) // a bad path is counted under the download that it is below
			}
			if early := row.reason == ReasonMethod || row.reason == ReasonPath || row.reason == ReasonRequest; asked == early {
				t.Errorf("somebody was asked who it is: %t", asked)
			}
			if refused := row.reason == ReasonAnonymous || row.reason == ReasonCredentials; refused != (out.Challenge != "") {
				t.Errorf("the challenge is %q", out.Challenge)
			}
		})
	}
	if out := newTestGuard(t, known("alice"), allowAll, nil).Check(t.Context(), nil); out.Allowed() || out.Reason != ReasonUnavailable {
		t.Errorf("no question: %+v", out)
	}
}

func TestOutcomeNamesTheSourceThatDecided(t *testing.T) {
	bad := &CredentialsError{Source: "fake", Problem: "wrong"}
	for _, err := range []error{
		bad, &UnavailableError{Source: "fake", Err: errors.New("down")}, fmt.Errorf("%w: %w", ErrReservedSubject, bad),
	} {
		out := newTestGuard(t, fakeIdentity(func(*Question) (Principal, error) { return Principal{}, err }), allowAll, nil).Check(t.Context(), question("/downloads/a"))
		if out.Source != "fake" {
			t.Errorf("%v: source %q", err, out.Source)
		}
	}
	if out := newTestGuard(t, known("@staff"), allowAll, nil).Check(t.Context(), question("/downloads/a")); out.Source != "fake" {
		t.Errorf("a name that is not to be had: source %q", out.Source)
	}
}

func TestOutcomeNeedsEveryPieceToAllow(t *testing.T) { // S10
	path, err := pathguard.New("/a.txt")
	if err != nil {
		t.Fatal(err)
	}
	whole := func() *Outcome {
		return &Outcome{
			Question: &Question{Download: testDownload(), Path: path}, Reason: ReasonPolicy,
			Principal: Principal{Subject: "alice"}, Decision: Decision{Effect: Allow},
		}
	}
	if !whole().Allowed() {
		t.Fatal("a whole outcome is refused")
	}
	for name, remove := range map[string]func(*Outcome){
		"question":  func(o *Outcome) { o.Question = nil },
		"reason":    func(o *Outcome) { o.Reason = "" },
		"download":  func(o *Outcome) { o.Question.Download = nil },
		"path":      func(o *Outcome) { o.Question.Path = pathguard.Path{} },
		"principal": func(o *Outcome) { o.Principal = Principal{} },
		"decision":  func(o *Outcome) { o.Decision = Decision{} },
		"error":     func(o *Outcome) { o.Err = errors.New("x") },
	} {
		o := whole()
		remove(o)
		if o.Allowed() {
			t.Errorf("allowed without its %s", name)
		}
	}
	if new(Outcome).Allowed() || new(Outcome).Download() != nil {
		t.Error("the zero outcome allows")
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
		if _, err := NewDownloads(a, b); err == nil {
			t.Errorf("accepted %+v", b)
		}
	}
	if _, err := NewDownloads(); err == nil {
		t.Error("accepted no download")
	}
	for _, missing := range []struct {
		downloads *Downloads
		identity  Authenticator
		policy    Decider
	}{{nil, anonymous, denyAll}, {testDownloads(t), nil, denyAll}, {testDownloads(t), anonymous, nil}} {
		if _, err := New(missing.downloads, missing.identity, missing.policy, nil); err == nil {
			t.Errorf("accepted %+v", missing)
		}
	}
}

// A path as people write it is found as a request's is.
func TestAskFindsThePathThatARequestWouldHave(t *testing.T) {
	one, two := testDownload(), &Download{Name: "media", URL: "/media/", Internal: "/m/"}
	for _, row := range []struct {
		name     string
		several  bool
		download string
		text     string
		want     string // download and path
		err      string
	}{
		{"a URL", true, "", "/media/caf%C3%A9", "media /café", ""},
		{"a URL, whatever download is named", true, "main", "/media/a", "media /a", ""},
		{"the path below the only one", false, "", "/a b", "main /a b", ""},
		{"the path below one of several", true, "media", "/a", "media /a", ""},
		{"of which nobody says", true, "", "/a", "", `path "/a": there are several downloads: write its URL, or say which`},
		{"a whole URL, as a browser shows it", true, "", "https://files.example.org/media/caf%C3%A9?v=1#page=2", "media /café", ""},
		{"a whole URL with a blank", true, "", "HTTP://localhost:8080/media/a b", "media /a b", ""},
		{"a whole URL below no download", true, "", "https://files.example.org/other/a", "", `path "https://files.example.org/other/a": the path is refused before policy is asked: it is below no download: their URLs are /downloads/, /media/`},
		{"a whole URL without a path", true, "", "https://files.example.org", "", `path "https://files.example.org": the path is refused before policy is asked: it is below no download: their URLs are /downloads/, /media/`},
		{"a bad whole URL", true, "", "https://files.example.org/media/../a", "", ErrPath.Error()},
		{"a URL with a blank", true, "", "/media/a b", "media /a b", ""},
		{"a path without its first slash", false, "", "a/b", "", `path "a/b": the path is refused before policy is asked: the path does not begin with a slash: write "/a/b"`},
		{"a download that is not there", true, "other", "/a", "", `there is no download "other": there are main, media`},
		{"a URL with its host", true, "", "https://files.example.org:8443/media/caf%C3%A9?v=1", "media /café", ""},
		{"a URL with its host, in capitals", false, "", "HTTP://files.example.org/downloads/a", "main /a", ""},
		{"a URL of what is no download", false, "", "https://files.example.org/a", "", ErrPath.Error()},
		{"a URL of a host alone", false, "", "https://files.example.org", "", ErrPath.Error()},
		{"a bad URL with its host", true, "", "https://files.example.org/media/../a", "", ErrPath.Error()},
		{"a URL of another scheme", true, "", "file://localhost/media/a", "", ErrPath.Error()},
		{"a bad URL", true, "", "/media/../a", "", ErrPath.Error()},
		{"a bad path", false, "", "/a/", "", ErrPath.Error()},
	} {
		list := []*Download{one}
		if row.several {
			list = append(list, two)
		}
		downloads, err := NewDownloads(list...)
		if err != nil {
			t.Fatal(err)
		}
		d, path, err := downloads.Ask(row.download, row.text)
		switch {
		case row.want != "" && (err != nil || d.Name+" "+path.String() != row.want):
			t.Errorf("%s: %v %v, %v", row.name, d, path, err)
		case row.text == "a/b" && !errors.Is(err, ErrPath):
			t.Errorf("%s: %v", row.name, err)
		case row.err == ErrPath.Error() && !errors.Is(err, ErrPath), row.err != ErrPath.Error() && row.want == "" && message(err) != row.err:
			t.Errorf("%s: %v", row.name, err)
		}
	}
}

func TestNewPrincipalIsWhomTheServiceAsksFor(t *testing.T) {
	for _, row := range []struct {
		subject string
		groups  []string
		want    []string
		err     string
	}{
		{"alice", []string{"staff", "@sales"}, []string{"@staff", "@sales", "@anyone", "@authenticated"}, ""},
		{"alice", nil, []string{"@anyone", "@authenticated"}, ""},
		{"alice", []string{"anonymous"}, []string{"@anonymous", "@anyone", "@authenticated"}, ""},
		{"anonymous", nil, []string{"@anyone"}, ""},
		{"anonymous", []string{"staff"}, nil, "anonymous has no groups beside @anyone: leave them out"},
		{"@staff", nil, nil, `subject "@staff": begins with @, which marks groups`},
		{"role:editor", nil, nil, `subject "role:editor": begins with role:, which marks roles`},
		{"alice", []string{"role:editor"}, nil, `group "role:editor": begins with role:, which marks roles`},
		{"alice", []string{"@role:editor"}, nil, `group "@role:editor": begins with role:, which marks roles`},
		{"alice", []string{"@@staff"}, nil, `group "@@staff": begins with @, which marks groups`},
	} {
		p, err := NewPrincipal(row.subject, row.groups)
		if message(err) != row.err || !cmp.Equal(p.Groups, row.want) {
			t.Errorf("%q %q: %q, %v", row.subject, row.groups, p.Groups, err)
		}
	}
}

func BenchmarkCheck(b *testing.B) {
	g := newTestGuard(b, known("alice", "@staff"), allowAll, nil)
	b.ReportAllocs()
	for b.Loop() {
		g.Check(b.Context(), question("/downloads/project/plan.pdf"))
	}
}
