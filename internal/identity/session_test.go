package identity

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"securefiles/authz"
)

// newSession asks app for the cookie `sessionid`; edit changes the options.
func newSession(t testing.TB, app http.Handler, edit func(*SessionOptions)) *Session {
	t.Helper()
	server := httptest.NewServer(app)
	t.Cleanup(server.Close)
	o := SessionOptions{URL: server.URL + "/whoami", Cookies: []string{"sessionid"}, Timeout: 5 * time.Second}
	if edit != nil {
		edit(&o)
	}
	s, err := NewSession(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.client.Load().CloseIdleConnections)
	return s
}

// application knows two sessions, and counts how often it was asked.
type application struct{ asked atomic.Int64 }

func (a *application) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.asked.Add(1)
	c, err := r.Cookie("sessionid")
	if err != nil {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	switch c.Value {
	case "alices":
		answerJSON(`{"subject": "alice", "groups": ["staff", "sales"]}`)(w, r)
	case "visitors":
		answerJSON(`{"subject": null, "groups": []}`)(w, r)
	case "bobs":
		w.WriteHeader(http.StatusForbidden)
	default:
		w.WriteHeader(http.StatusUnauthorized)
	}
}

func answerJSON(text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json; charset=utf-8")
		fmt.Fprint(w, text)
	}
}

func withCookie(value string) *authz.Question { return withHeader("Cookie", value) }

func withHeader(name string, values ...string) *authz.Question {
	return &authz.Question{Header: http.Header{http.CanonicalHeaderKey(name): values}}
}

// verdict says in one word how an attempt ended.
func verdict(p authz.Principal, err error) string {
	var bad *authz.CredentialsError
	var down *authz.UnavailableError
	switch {
	case err == nil && p.Subject != "" && p.Source == "session":
		return "known"
	case p.Subject != "":
		return "a principal beside an error"
	case errors.Is(err, authz.ErrNoCredentials):
		return "none"
	case errors.Is(err, authz.ErrReservedSubject) && errors.As(err, &bad):
		return "unfit"
	case errors.As(err, &bad) && bad.Source == "session" && bad.Final && bad.Forbidden:
		return "forbidden"
	case errors.As(err, &bad) && bad.Source == "session":
		return "refused"
	case errors.As(err, &down) && down.Source == "session":
		return "unavailable"
	}
	return fmt.Sprintf("an unknown end: %+v, %v", p, err)
}

func TestSessionTellsItsAnswersApart(t *testing.T) {
	s := newSession(t, &application{}, nil)
	for _, row := range []struct {
		name, cookie string
		want         string
		message      string
	}{
		{"known", "theme=dark; sessionid=alices", "known", ""},
		{"blanks around", "sessionid = alices ", "known", ""},

		{"nobody is logged in", "sessionid=visitors", "none", "no credentials"},
		{"unknown to the application", "sessionid=stale", "refused", "session: the application does not know the session"},
		{"refused by the application", "sessionid=bobs", "forbidden", "session: the application knows the session, and refuses it (403); one that means nobody by it must answer 401"},
		{"no cookie", "", "none", "no credentials"},
		{"another cookie", "csrftoken=x", "none", "no credentials"},
		{"another case", "SessionID=alices", "none", "no credentials"},
		{"an empty cookie", "sessionid=", "none", "no credentials"},
		{"a cookie without a value", "sessionid", "none", "no credentials"},
	} {
		for _, turn := range []string{"asked", "remembered"} {
			p, err := s.Authenticate(t.Context(), withCookie(row.cookie))
			if got := verdict(p, err); got != row.want || message(err) != row.message {
				t.Errorf("%s, %s: %s, %q", row.name, turn, got, message(err))
			}
			if row.want == "known" && (p.Subject != "alice" || !slices.Equal(p.Groups, []string{"@staff", "@sales"})) {
				t.Errorf("%s: got %+v", row.name, p)
			}
		}
	}
}

// Each row is refused with its reason, before the application is asked.
func TestSessionHostileCredentials(t *testing.T) {
	app := &application{}
	s := newSession(t, app, func(o *SessionOptions) { o.Headers = []string{"Authorization", "X-Session-Token"} })
	for _, row := range []struct {
		name    string
		request *authz.Question
		problem string
	}{
		{"two cookies of one name", withCookie("sessionid=alices; sessionid=bobs"), "the cookie came more than once"},
		{"the same cookie twice", withCookie("sessionid=alices; a=b;sessionid=alices"), "the cookie came more than once"},
		{"an empty one first", withCookie("sessionid=; sessionid=alices"), "the cookie came more than once"},
		{"a blank before the equals sign", withCookie("sessionid =a; sessionid=alices"), "the cookie came more than once"},
		{"one without a sign first", withCookie("sessionid; sessionid=alices"), "the cookie came more than once"},
		{"a tab between two", withCookie("sessionid=alices;\tsessionid=bobs"), "the cookie came more than once"},
		{"two Cookie headers", withHeader("Cookie", "a=b", "sessionid=alices"), "Cookie came more than once"},
		{"a Cookie header of another case", &authz.Question{Header: http.Header{"Cookie": {"sessionid=alices"}, "cookie": {"sessionid=bobs"}}}, "Cookie came more than once"},
		{"an oversized cookie", withCookie("sessionid=" + strings.Repeat("a", 16<<10+1)), "the cookies and headers are longer than 16384 bytes"},
		{"oversized in all", &authz.Question{Header: http.Header{"Cookie": {"sessionid=" + strings.Repeat("a", 9000)}, "X-Session-Token": {strings.Repeat("b", 9000)}}}, "the cookies and headers are longer than 16384 bytes"},
		{"CR LF", withCookie("sessionid=alices\r\nX-Admin: 1"), "a cookie or header is not printable ASCII"},
		{"LF", withCookie("sessionid=alices\nHost: x"), "a cookie or header is not printable ASCII"},
		{"NUL", withCookie("sessionid=alices\x00"), "a cookie or header is not printable ASCII"},
		{"DEL", withCookie("sessionid=alices\x7f"), "a cookie or header is not printable ASCII"},
		{"not UTF-8", withCookie("sessionid=alices\xff"), "a cookie or header is not printable ASCII"},
		{"a letter beyond ASCII", withCookie("sessionid=alicés"), "a cookie or header is not printable ASCII"},
		{"a no-break space in front", withCookie("sessionid=\xa0alices"), "a cookie or header is not printable ASCII"},
		{"a token twice", withHeader("X-Session-Token", "a", "b"), "X-Session-Token came more than once"},
		{"a token with an underscore beside it", &authz.Question{Header: http.Header{"X-Session-Token": {"a"}, "X_session_token": {"b"}}}, "X-Session-Token came more than once"},
		{"a token with CR LF", withHeader("X-Session-Token", "a\r\nX-Admin: 1"), "a cookie or header is not printable ASCII"},
		{"two Authorization headers", withHeader("Authorization", "Bearer a", "Bearer b"), "Authorization came more than once"},
	} {
		p, err := s.Authenticate(t.Context(), row.request)
		want := "refused"
		if strings.Contains(row.problem, "longer than") {
			want = "forbidden" // a login would not help
		}
		if bad := new(authz.CredentialsError); row.problem == "the cookie came more than once" && (!errors.As(err, &bad) || !bad.Final) {
			t.Errorf("%s: a login would not help: %+v", row.name, bad)
		}
		if got := verdict(p, err); got != want || message(err) != "session: "+row.problem {
			t.Errorf("%s: %s, %q", row.name, got, message(err))
		}
	}
	if n := app.asked.Load(); n != 0 {
		t.Errorf("the application was asked %d times", n)
	}
}

// status answers with a status and headers, rawAnswer with bytes and an end.
func status(code int, headers ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		for i := 0; i < len(headers); i += 2 {
			w.Header()[headers[i]] = append(w.Header()[headers[i]], headers[i+1])
		}
		w.WriteHeader(code)
	}
}

func rawAnswer(text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			panic(err)
		}
		_, _ = conn.Write([]byte(text)) // the client is gone
		_ = conn.Close()
	}
}

// Whatever the application answers, nobody becomes somebody by it.
func TestSessionHostileAnswers(t *testing.T) {
	named := func(subject string) http.HandlerFunc { return answerJSON(`{"subject": ` + subject + `, "groups": []}`) }
	grouped := func(groups string) http.HandlerFunc {
		return answerJSON(`{"subject": "alice", "groups": ` + groups + `}`)
	}
	html := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprint(w, `<form>{"subject": "alice", "groups": []}</form>`)
	}
	headers := func(o *SessionOptions) { o.SubjectHeader, o.GroupsHeader = "X-User", "X-Groups" }
	for _, row := range []struct {
		name string
		edit func(*SessionOptions)
		app  http.HandlerFunc
		want string
		text string // in the message
	}{
		{"a redirect to the login page", nil, status(302, "Location", "/accounts/login/"), "unavailable", "answered 302, a redirect: make it answer 401 to nobody"},
		{"a redirect that names a user", headers, status(303, "Location", "/", "X-User", "alice"), "unavailable", "answered 303"},
		{"a login page with 200", nil, html, "unavailable", "the answer is not JSON: does the URL answer 401"},
		{"a login page with 200, for headers", headers, html, "unavailable", "the answer has no X-User"},
		{"an error that names a user", headers, status(500, "X-User", "alice"), "unavailable", "answered 500"},
		{"not found", headers, status(404, "X-User", "alice"), "unavailable", "answered 404"},
		{"bad request", headers, status(400, "X-User", "alice"), "unavailable", "answered 400"},
		{"bad gateway", headers, status(502, "X-User", "alice"), "unavailable", "answered 502"},
		{"a refusal that names a user", headers, status(401, "X-User", "alice"), "refused", "does not know"},
		{"a refusal that forbids", headers, status(403, "X-User", "alice"), "forbidden", "refuses it (403)"},
		{"headers that are too large for it", headers, status(431, "X-User", "alice"), "forbidden", "too large for the application (431)"},
		{"a request that is too large for it", headers, status(413, "X-User", "alice"), "forbidden", "too large for the application (413)"},
		{"an empty header", headers, status(200, "X-User", ""), "unavailable", "the answer has no X-User"},
		{"two users", headers, status(200, "X-User", "alice", "X-User", "bob"), "unavailable", "X-User came more than once"},
		{"the same user twice", headers, status(200, "X-User", "alice", "X-User", "alice"), "unavailable", "X-User came more than once"},
		{"another spelling beside it", headers, status(200, "X-User", "alice", "X_user", "bob"), "unavailable", "X-User came more than once"},
		{"groups twice", headers, status(200, "X-User", "alice", "X-Groups", "a", "X-Groups", "b"), "unavailable", "X-Groups came more than once"},
		{"a group in front of the user", headers, status(200, "X-User", "@staff"), "unfit", "begins with @"},
		{"a group with @ in front", headers, status(200, "X-User", "alice", "X-Groups", "a, @admin"), "unfit", "a group begins with @"},
		{"a group of the service's own", headers, status(200, "X-User", "alice", "X-Groups", "authenticated"), "unfit", "gives out itself"},
		{"an empty group", headers, status(200, "X-User", "alice", "X-Groups", "a,,b"), "unfit", "a group is empty"},
		{"a user that is not UTF-8", headers, status(200, "X-User", "alice\xff"), "unfit", "not valid UTF-8"},
		{"a huge header", headers, status(200, "X-User", strings.Repeat("a", 40<<10)), "unavailable", "exceeded"},
		{"a long user", headers, status(200, "X-User", strings.Repeat("a", 257)), "unfit", "longer than 256 bytes"},
		{"no groups are named", headers, status(204, "X-User", "alice"), "unavailable", "the answer has no X-Groups"},
		{"there are no groups", headers, status(204, "X-User", "alice", "X-Groups", ""), "known", ""},
		{"no groups need be named", func(o *SessionOptions) { headers(o); o.GroupsOptional = true }, status(204, "X-User", "alice"), "known", ""},
		{"groups may be left out", func(o *SessionOptions) { o.GroupsOptional = true }, answerJSON(`{"subject": "alice"}`), "known", ""},

		{"garbage", nil, rawAnswer("\x00\xff\xfe garbage \r\n\r\n"), "unavailable", "malformed HTTP"},
		{"a header line with a bare CR", nil, rawAnswer("HTTP/1.1 200 OK\r\nX-User: alice\rX-Groups: admin\r\n\r\n"), "unavailable", ""},
		{"nothing at all", nil, rawAnswer(""), "unavailable", "EOF"},
		{"half an answer", nil, rawAnswer("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{\"subject\": \"alice\""), "unavailable", "read the answer"},
		{"switching protocols", nil, rawAnswer("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n"), "unavailable", "101"},
		{"an endless answer", nil, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			for {
				if _, err := fmt.Fprint(w, strings.Repeat(" ", 1<<10)); err != nil {
					return
				}
			}
		}, "unavailable", "longer than 65536 bytes"},
		{"huge JSON", nil, named(`"` + strings.Repeat("a", 70000) + `"`), "unavailable", "longer than 65536 bytes"},
		{"deep JSON", nil, answerJSON(strings.Repeat("[", 60000)), "unavailable", "is not a JSON object"},
		{"empty", nil, answerJSON(""), "unavailable", "is not a JSON object"},
		{"a number", nil, answerJSON("1"), "unavailable", "is not a JSON object"},
		{"an array", nil, answerJSON(`["alice"]`), "unavailable", "is not a JSON object"},
		{"deep JSON in the answer", nil, answerJSON(`{"subject": "alice", "groups": ` + strings.Repeat("[", 30000) + strings.Repeat("]", 30000) + `}`), "unavailable", ""},
		{"two subjects", nil, answerJSON(`{"subject": "alice", "groups": [], "subject": "bob"}`), "unavailable", "without duplicates"},
		{"two documents", nil, answerJSON(`{"subject": "alice", "groups": []}{}`), "unavailable", "is not a JSON object"},
		{"another case", nil, answerJSON(`{"Subject": "alice", "Groups": []}`), "unavailable", `has no "subject"`},
		{"a subject that is a number", nil, named("42"), "unavailable", "neither a string nor null"},
		{"a subject that is true", nil, named("true"), "unavailable", "neither a string nor null"},
		{"an empty subject", nil, named(`""`), "unfit", "is empty"},
		{"CR LF in a subject", nil, named(`"alice\r\nX-Admin: 1"`), "unfit", "cannot be seen"},
		{"a right-to-left override", nil, named(`"alice\u202e"`), "unfit", "cannot be seen"},
		{"bytes that are not UTF-8", nil, named("\"alice\xff\""), "unavailable", "is not UTF-8"},
		{"half a surrogate pair", nil, named(`"alice\ud800"`), "unfit", "is not valid UTF-8"},
		{"the caller without credentials", nil, named(`"anonymous"`), "unfit", "without credentials"},
		{"a group as subject", nil, named(`"@staff"`), "unfit", "begins with @"},
		{"groups left out", nil, answerJSON(`{"subject": "alice"}`), "unavailable", `has no "groups": answer [] or null`},
		{"groups in a string", nil, grouped(`"staff,admin"`), "unavailable", "neither an array nor null"},
		{"groups that are numbers", nil, grouped(`[1, 2]`), "unavailable", "not a string"},
		{"groups in groups", nil, grouped(`[["staff"]]`), "unavailable", "not a string"},
		{"a group with @ in a list", nil, grouped(`["@staff"]`), "unfit", "a group begins with @"},
		{"the group of everybody", nil, grouped(`["anyone"]`), "unfit", "gives out itself"},
		{"a group with half a surrogate pair", nil, grouped(`["staff\udfff"]`), "unfit", "is not valid UTF-8"},
		{"a group with a line break", nil, grouped(`["staff\nadmin"]`), "unfit", "cannot be seen"},
		{"too many groups", nil, grouped(`["a"` + strings.Repeat(`,"a"`, 256) + `]`), "unfit", "more than 256 groups"},
		{"null groups", nil, grouped("null"), "known", ""},
		{"a path through a string", func(o *SessionOptions) { o.SubjectPath = "subject.name" }, named(`"alice"`), "unavailable", `has no "subject.name"`},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			s := newSession(t, row.app, row.edit)
			p, err := s.Authenticate(t.Context(), withCookie("sessionid=x"))
			if got := verdict(p, err); got != row.want || !strings.Contains(message(err), row.text) {
				t.Errorf("%s, %q", got, message(err))
			}
			if strings.Contains(message(err), "sessionid=") || strings.Contains(message(err), "\xff") {
				t.Errorf("the message quotes a client or an answer: %q", err)
			}
		})
	}
}

// A comma separates groups in a header, and is part of a name in JSON.
func TestSessionGroupsWithCommas(t *testing.T) {
	for _, row := range []struct {
		name string
		edit func(*SessionOptions)
		app  http.HandlerFunc
		want []string
	}{
		{"JSON", nil, answerJSON(`{"subject": "alice", "groups": ["staff, admin", "sales"]}`), []string{"@staff, admin", "@sales"}},
		{"header", func(o *SessionOptions) { o.SubjectHeader, o.GroupsHeader = "X-User", "X-Groups" }, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X-User", "alice")
			w.Header().Set("X-Groups", "staff, admin,sales")
		}, []string{"@staff", "@admin", "@sales"}},
		{"nested", func(o *SessionOptions) { o.SubjectPath, o.GroupsPath = "user.login", "user.realm.roles" }, answerJSON(`{"user": {"login": "alice", "realm": {"roles": ["a"]}}}`), []string{"@a"}},
		{"no groups asked for", func(o *SessionOptions) { o.SubjectPath = "subject" }, answerJSON(`{"subject": "alice", "groups": "?"}`), nil},
	} {
		s := newSession(t, row.app, row.edit)
		p, err := s.Authenticate(t.Context(), withCookie("sessionid=x"))
		if err != nil || p.Subject != "alice" || !slices.Equal(p.Groups, row.want) {
			t.Errorf("%s: %+v, %v", row.name, p, err)
		}
	}
}

// Nothing of the caller's request is sent but what is named.
func TestSessionSendsOnlyWhatIsNamed(t *testing.T) {
	var got *http.Request
	s := newSession(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got = r
		answerJSON(`{"subject": "alice", "groups": []}`)(w, r)
	}), func(o *SessionOptions) {
		o.Cookies = []string{"sessionid", "sessionid_0"}
		o.Headers = []string{"authorization", "X-Token"}
		o.Send = map[string]string{"Host": "app.example.org", "X-Forwarded-Proto": "https"}
	})
	r := withCookie(`csrftoken=secret; sessionid_0="b; x"; sessionid=a=b; other=1`)
	r.Header.Set("X-Remote-User", "mallory")
	r.Header.Set("X-Forwarded-For", "192.0.2.1")
	r.Header.Set("Authorization", "Bearer token")
	if _, err := s.Authenticate(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	want := http.Header{
		"Cookie": {`sessionid=a=b; sessionid_0="b`}, "Authorization": {"Bearer token"}, "Accept": {"application/json"},
		"User-Agent": {"securefiles"}, "X-Forwarded-Proto": {"https"},
	}
	if got.Host != "app.example.org" || got.Method != "GET" || got.URL.Path != "/whoami" || fmt.Sprint(got.Header) != fmt.Sprint(want) {
		t.Errorf("%s %s of %s with %v, want %v", got.Method, got.URL, got.Host, got.Header, want)
	}
}

// S18: an answer is for the credentials that were sent, all of them.
func TestSessionRemembersForExactlyTheCredentials(t *testing.T) {
	var asked atomic.Int64
	s := newSession(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		a, b := "", ""
		if c, err := r.Cookie("a"); err == nil {
			a = c.Value
		}
		if c, err := r.Cookie("b"); err == nil {
			b = c.Value
		}
		answerJSON(fmt.Sprintf(`{"subject": "a=%s b=%s t=%s", "groups": []}`, a, b, r.Header.Get("X-Token")))(w, r)
	}), func(o *SessionOptions) { o.Cookies, o.Headers = []string{"a", "b"}, []string{"X-Token"} })
	for range 2 {
		for _, row := range []struct{ cookie, token, want string }{
			{"a=xy", "", "a=xy b= t="},
			{"b=xy", "", "a= b=xy t="},
			{"a=x; b=y", "", "a=x b=y t="},
			{"b=y; a=x", "", "a=x b=y t="},
			{"a=x", "y", "a=x b= t=y"},
			{"", "xy", "a= b= t=xy"},
			{"a=x; b=y", "z", "a=x b=y t=z"},
		} {
			r := withCookie(row.cookie)
			if row.token != "" {
				r.Header.Set("X-Token", row.token)
			}
			p, err := s.Authenticate(t.Context(), r)
			if err != nil || p.Subject != row.want {
				t.Errorf("%+v: %q, %v", row, p.Subject, err)
			}
		}
	}
	if n := asked.Load(); n != 6 {
		t.Errorf("asked %d times for 6 lists of credentials", n)
	}
}

func TestSessionForgetsInTime(t *testing.T) {
	app := &application{}
	now := time.Unix(1_000_000, 0)
	s := newSession(t, app, func(o *SessionOptions) {
		o.Remember, o.RememberRefused, o.Now = 30*time.Second, 5*time.Second, func() time.Time { return now }
	})
	for _, step := range []struct {
		cookie string
		after  time.Duration
		asked  int64
	}{
		{"sessionid=alices", 0, 1},
		{"sessionid=alices", 30*time.Second - 1, 1},
		{"sessionid=alices", 1, 2},
		{"sessionid=stale", 0, 3},
		{"sessionid=stale", 5*time.Second - 1, 3},
		{"sessionid=stale", 1, 4},
		{"sessionid=visitors", 0, 5},
		{"sessionid=visitors", 5 * time.Second, 6},
	} {
		now = now.Add(step.after)
		_, _ = s.Authenticate(t.Context(), withCookie(step.cookie)) // how it ends is tested above
		if n := app.asked.Load(); n != step.asked {
			t.Errorf("%s, %v later: asked %d times, want %d", step.cookie, step.after, n, step.asked)
		}
	}
	if got, want := s.Stats(), (SessionStats{Known: 2, Refused: 4}); got != want {
		t.Errorf("stats %+v, want %+v", got, want)
	}
}

// An answer counts from when the question was put: a logout during the call is
// not outlived for longer.
func TestSessionCountsTheTimeOfTheCall(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	var asked int
	s := newSession(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked++
		now = now.Add(10 * time.Second)
		answerJSON(`{"subject": "alice", "groups": []}`)(w, r)
	}), func(o *SessionOptions) { o.Remember, o.Now = 15*time.Second, func() time.Time { return now } })
	for range 2 {
		if _, err := s.Authenticate(t.Context(), withCookie("sessionid=x")); err != nil {
			t.Fatal(err)
		}
		now = now.Add(5 * time.Second)
	}
	if asked != 2 {
		t.Errorf("asked %d times: the call's own time was given away", asked)
	}
}

func TestSessionErrorsAreNotRemembered(t *testing.T) {
	broken := true
	s := newSession(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if broken {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		answerJSON(`{"subject": "alice", "groups": []}`)(w, r)
	}), nil)
	for range 20 { // more than open the breaker: the application answers, if badly
		if got := verdict(s.Authenticate(t.Context(), withCookie("sessionid=x"))); got != "unavailable" {
			t.Fatal(got)
		}
	}
	broken = false
	if got := verdict(s.Authenticate(t.Context(), withCookie("sessionid=x"))); got != "known" {
		t.Error(got)
	}
}

// A page with a hundred pictures asks once, and who turns away harms nobody
// else.
func TestSessionSharesOneCall(t *testing.T) {
	var asked atomic.Int64
	arrived, released := make(chan struct{}, 100), make(chan struct{})
	release := sync.OnceFunc(func() { close(released) })
	s := newSession(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		arrived <- struct{}{}
		<-released
		answerJSON(`{"subject": "alice", "groups": []}`)(w, r)
	}), nil)
	t.Cleanup(release) // before the server's, which waits for all that hang
	var waiting sync.WaitGroup
	verdicts := make(chan string, 100)
	ask := func(ctx context.Context) {
		waiting.Go(func() { verdicts <- verdict(s.Authenticate(ctx, withCookie("sessionid=x"))) })
	}
	first, turnAway := context.WithCancel(t.Context())
	ask(first) // whose call it is
	<-arrived
	turnAway()
	if got := <-verdicts; got != "unavailable" {
		t.Errorf("who turned away got %s", got)
	}
	for range 50 {
		ask(t.Context())
	}
	release()
	waiting.Wait()
	for range 50 {
		if got := <-verdicts; got != "known" {
			t.Fatalf("another request of the session got %s", got)
		}
	}
	if n := asked.Load(); n != 1 {
		t.Errorf("asked %d times", n)
	}
}

// The application hangs: nobody waits for longer than the timeout, the breaker
// ends the waiting, remembered sessions go on, and all is well again by itself.
func TestSessionOutlivesAnApplicationThatHangs(t *testing.T) {
	const timeout = 200 * time.Millisecond
	hang := make(chan struct{})
	hanging := atomic.Bool{}
	app := &application{}
	changes := make(chan bool, 100)
	s := newSession(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if hanging.Load() {
			<-hang
			return
		}
		app.ServeHTTP(w, r)
	}), func(o *SessionOptions) {
		o.Timeout, o.Remember, o.MaxCalls = timeout, time.Minute, 2
		o.OnBreaker = func(open bool) { changes <- open }
	})
	if got := verdict(s.Authenticate(t.Context(), withCookie("sessionid=alices"))); got != "known" {
		t.Fatal(got)
	}
	release := sync.OnceFunc(func() { hanging.Store(false); close(hang) })
	t.Cleanup(release) // before the server's, which waits for all that hang
	hanging.Store(true)
	var waiting sync.WaitGroup
	for i := range 40 { // far more than may call at a time
		waiting.Go(func() {
			start := time.Now()
			got := verdict(s.Authenticate(t.Context(), withCookie(fmt.Sprintf("sessionid=unknown%d", i))))
			if took := time.Since(start); got != "unavailable" || took > 30*time.Second {
				t.Errorf("%s after %v", got, took)
			}
			if got := verdict(s.Authenticate(t.Context(), withCookie("sessionid=alices"))); got != "known" {
				t.Errorf("a remembered session: %s", got)
			}
		})
	}
	waiting.Wait()
	for i := 0; !s.Stats().Open; i++ {
		if i > 20 {
			t.Fatal("the breaker does not open")
		}
		_, _ = s.Authenticate(t.Context(), withCookie(fmt.Sprintf("sessionid=more%d", i))) // fails
	}
	if _, err := s.Authenticate(t.Context(), withCookie("sessionid=late")); verdict(authz.Principal{}, err) != "unavailable" || !strings.Contains(err.Error(), "left alone") {
		t.Errorf("with an open breaker: %v", err)
	}
	release()
	for deadline := time.Now().Add(time.Minute); ; {
		if verdict(s.Authenticate(t.Context(), withCookie("sessionid=late"))) == "refused" {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("it does not recover")
		}
		time.Sleep(5 * time.Millisecond) // between polls
	}
	if s.Stats().Open || !<-changes || <-changes {
		t.Error("the breaker did not tell of its opening and closing")
	}
	if got := s.Stats(); got.Failed < breakerFailures {
		t.Errorf("stats %+v", got)
	}
}

// Whatever comes at once, the application sees few calls at a time.
func TestSessionBoundsTheCallsAtOneTime(t *testing.T) {
	var calls, most atomic.Int64
	s := newSession(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n := calls.Add(1)
		defer calls.Add(-1)
		for old := most.Load(); n > old && !most.CompareAndSwap(old, n); old = most.Load() {
		}
		answerJSON(`{"subject": "alice", "groups": []}`)(w, r)
	}), func(o *SessionOptions) { o.MaxCalls = 3 })
	var waiting sync.WaitGroup
	for i := range 200 {
		waiting.Go(func() {
			if got := verdict(s.Authenticate(t.Context(), withCookie(fmt.Sprintf("sessionid=%d", i)))); got != "known" {
				t.Error(got)
			}
		})
	}
	waiting.Wait()
	if n := most.Load(); n > 3 {
		t.Errorf("%d calls at one time", n)
	}
	s.semaphore = &semaphore{} // closed
	_, err := s.Authenticate(t.Context(), withCookie("sessionid=late"))
	if !errors.Is(err, ErrBusy) || verdict(authz.Principal{}, err) != "unavailable" {
		t.Errorf("got %v", err)
	}
}

// A bug in reading answers must not end the process.
func TestSessionSurvivesAPanic(t *testing.T) {
	s := newSession(t, &application{}, nil)
	read := s.read
	s.read = func(*http.Response) (authz.Principal, error) { panic("bug") }
	if got := verdict(s.Authenticate(t.Context(), withCookie("sessionid=alices"))); got != "unavailable" {
		t.Error(got)
	}
	s.read = read
	if got := verdict(s.Authenticate(t.Context(), withCookie("sessionid=alices"))); got != "known" {
		t.Error(got)
	}
}

// While the application is away, a remembered session ends when its time is
// over: nobody stays for ever because nobody can be asked.
func TestSessionEndsWhileTheApplicationIsAway(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	away := false
	app := &application{}
	s := newSession(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if away {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		app.ServeHTTP(w, r)
	}), func(o *SessionOptions) { o.Now = func() time.Time { return now } })
	for _, step := range []struct {
		away  bool
		after time.Duration
		want  string
	}{{false, 0, "known"}, {true, 29 * time.Second, "known"}, {true, time.Second, "unavailable"}, {false, time.Second, "known"}} {
		away, now = step.away, now.Add(step.after)
		if got := verdict(s.Authenticate(t.Context(), withCookie("sessionid=alices"))); got != step.want {
			t.Errorf("%+v: %s", step, got)
		}
	}
}

// A caller whose cookie makes the application fail shuts nobody else out.
func TestSessionBreakerIsNotTheCallersToOpen(t *testing.T) {
	for _, row := range []struct {
		name string
		bad  http.HandlerFunc
	}{
		{"an error", status(500)},
		{"it hung up on a gateway", status(502)},
		{"it hangs up, as on headers that are too long", rawAnswer("")},
		{"it hangs up in the middle", rawAnswer("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{")},
		{"it repeats the cookie beyond what is read", status(400, "X-Cookie", strings.Repeat("a", 40<<10))},
		{"garbage", rawAnswer("\x00\r\n\r\n")},
	} {
		t.Run(row.name, func(t *testing.T) {
			s := newSession(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if c, err := r.Cookie("sessionid"); err == nil && strings.HasPrefix(c.Value, "bad") {
					row.bad(w, r)
					return
				}
				answerJSON(`{"subject": "alice", "groups": []}`)(w, r)
			}), nil)
			for i := range 20 {
				if got := verdict(s.Authenticate(t.Context(), withCookie(fmt.Sprintf("sessionid=bad%d", i)))); got != "unavailable" {
					t.Fatal(got)
				}
			}
			if got := verdict(s.Authenticate(t.Context(), withCookie("sessionid=x"))); got != "known" {
				t.Error(got)
			}
		})
	}
}

// S12: while an application is slow, the sessions that it is asked for leave the
// service, which has 1,024 places in all, requests to answer: those of one
// session, and those of many.
func TestSessionsThatWaitAreBounded(t *testing.T) {
	for name, cookie := range map[string]func(int) string{
		"one":  func(int) string { return "sessionid=x" },
		"many": func(i int) string { return fmt.Sprintf("sessionid=%d", i) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, err := NewSession(SessionOptions{URL: "http://127.0.0.1:1/", Cookies: []string{"sessionid"}, MaxCalls: 1})
				if err != nil {
					t.Fatal(err)
				}
				s.semaphore.free-- // a call that takes its time
				var ended atomic.Int64
				var all sync.WaitGroup
				for i := range 1000 {
					all.Go(func() {
						if _, err := s.Authenticate(t.Context(), withCookie(cookie(i))); verdict(authz.Principal{}, err) != "unavailable" {
							t.Error(err)
						}
						ended.Add(1)
					})
				}
				synctest.Wait()
				if waiting := 1000 - ended.Load(); waiting != maxSessionsWaiting {
					t.Errorf("%d requests wait, want %d", waiting, maxSessionsWaiting)
				}
				all.Wait()
				if s.waiters.held != 0 || len(s.waiters.by) != 0 {
					t.Error("the waiters counts requests that have ended")
				}
			})
		})
	}
}

// S17: whatever callers send, memory has a bound.
func TestSessionMemoryIsBounded(t *testing.T) {
	s := newSession(t, answerJSON(`{"subject": "alice", "groups": []}`), nil)
	big := answer{principal: authz.Principal{Subject: "alice", Groups: make([]string, maxGroups)}}
	for i := range big.principal.Groups {
		big.principal.Groups[i] = strings.Repeat("g", 250)
	}
	for i := range 2000 { // 136 MiB
		s.remembered.Set(s.secret.digest(fmt.Sprint(i)), big)
	}
	s.remembered.CleanUp()
	if n := s.remembered.EstimatedSize(); n*maxGroups*250 > maxSessionMemory || n < 100 {
		t.Errorf("remembers %d answers of 64 kB", n)
	}
}

func TestSessionOverTLSAndUnixSocket(t *testing.T) {
	server := httptest.NewTLSServer(&application{})
	t.Cleanup(server.Close)
	server.Config.ErrorLog = nil
	ca := filepath.Join(t.TempDir(), "ca.pem")
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	if err := os.WriteFile(ca, text, 0o600); err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(t.TempDir(), "app.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	local := &http.Server{Handler: &application{}, ReadHeaderTimeout: time.Second}
	go local.Serve(l) // ends with Close
	t.Cleanup(func() { _ = local.Close() })
	for _, row := range []struct {
		name, want string
		options    SessionOptions
	}{
		{"a certificate that the file vouches for", "known", SessionOptions{URL: server.URL, CAFile: ca}},
		{"a certificate that nobody vouches for", "unavailable", SessionOptions{URL: server.URL}},
		{"a certificate of another name", "unavailable", SessionOptions{URL: strings.Replace(server.URL, "127.0.0.1", "localhost", 1), CAFile: ca}},
		{"a unix socket", "known", SessionOptions{URL: "http://app/whoami", Socket: socket}},
		{"no socket", "unavailable", SessionOptions{URL: "http://app/whoami", Socket: socket + ".none"}},
	} {
		row.options.Cookies = []string{"sessionid"}
		s, err := NewSession(row.options)
		if err != nil {
			t.Errorf("%s: %v", row.name, err)
			continue
		}
		if got := verdict(s.Authenticate(t.Context(), withCookie("sessionid=alices"))); got != row.want {
			t.Errorf("%s: %s", row.name, got)
		}
		s.client.Load().CloseIdleConnections()
	}
}

// The environment's proxy must not see session cookies.
func TestSessionUsesNoProxy(t *testing.T) {
	t.Setenv("HTTP_PROXY", "http://127.0.0.1:1")
	t.Setenv("NO_PROXY", "")
	s := newSession(t, &application{}, nil)
	if s.client.Load().Transport.(*http.Transport).Proxy != nil {
		t.Error("a proxy is used")
	}
}

func TestNewSessionRefuses(t *testing.T) {
	none := filepath.Join(t.TempDir(), "none.pem")
	empty := filepath.Join(t.TempDir(), "empty.pem")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, edit := range map[string]func(*SessionOptions){
		"no URL":                    func(o *SessionOptions) { o.URL = "" },
		"a URL with a password":     func(o *SessionOptions) { o.URL = "http://a:b@127.0.0.1/" },
		"another scheme":            func(o *SessionOptions) { o.URL = "ftp://127.0.0.1/" },
		"a fragment":                func(o *SessionOptions) { o.URL = "http://127.0.0.1/#x" },
		"nothing to send":           func(o *SessionOptions) { o.Cookies = nil },
		"too many cookies":          func(o *SessionOptions) { o.Cookies = strings.Split("abcdefghijklmnopq", "") },
		"a cookie twice":            func(o *SessionOptions) { o.Cookies = []string{"a", "a"} },
		"a cookie with an equals":   func(o *SessionOptions) { o.Cookies = []string{"a=b"} },
		"a header of nginx's":       func(o *SessionOptions) { o.Headers = []string{"X-Original-URI"} },
		"Cookie as a header":        func(o *SessionOptions) { o.Headers = []string{"Cookie"} },
		"a header twice":            func(o *SessionOptions) { o.Headers = []string{"X-A", "x-a"} },
		"a value with a line break": func(o *SessionOptions) { o.Send = map[string]string{"X-A": "a\r\nb"} },
		"a cookie for everybody":    func(o *SessionOptions) { o.Send = map[string]string{"cookie": "a=b"} },
		"a length":                  func(o *SessionOptions) { o.Send = map[string]string{"Content-Length": "5"} },
		"headers and JSON":          func(o *SessionOptions) { o.SubjectHeader, o.SubjectPath = "X-User", "a" },
		"groups alone":              func(o *SessionOptions) { o.GroupsPath = "a" },
		"groups in a header alone":  func(o *SessionOptions) { o.GroupsHeader = "X-Groups" },
		"an empty name in a path":   func(o *SessionOptions) { o.SubjectPath = "a..b" },
		"refusals for longer":       func(o *SessionOptions) { o.Remember, o.RememberRefused = time.Second, time.Minute },
		"no CA file":                func(o *SessionOptions) { o.CAFile = none },
		"an empty CA file":          func(o *SessionOptions) { o.CAFile = empty },
	} {
		o := SessionOptions{URL: "http://127.0.0.1/", Cookies: []string{"sessionid"}}
		edit(&o)
		if s, err := NewSession(o); err == nil || s != nil {
			t.Errorf("%s: got %v, %v", name, s, err)
		}
	}
	if _, err := new(Session).Authenticate(t.Context(), withCookie("sessionid=x")); !errors.Is(err, authz.ErrNoCredentials) {
		t.Errorf("the zero Session: %v", err)
	}
	s, err := NewSession(SessionOptions{URL: "http://127.0.0.1/", Cookies: []string{"sessionid"}})
	if err != nil || fmt.Sprintf("%+v", s) != "session http://127.0.0.1/" {
		t.Errorf("prints as %+v, %v", s, err)
	}
}

// Cookies are read as RFC 6265 writes them; what comes out can stand in a
// header, came from the header, and came once.
func FuzzSessionCredentials(f *testing.F) {
	for _, seed := range []string{
		"sessionid=a", "a=b; sessionid=c", "sessionid=a; sessionid=b", `sessionid="a;b"`, "sessionid", "=sessionid=a", "sessionid=a=b",
		"sessionid =a", " sessionid=a ;", "sessionid=\x00", "sessionid=\r\nX: y", "sessionid=\xff", ";;;", "sessionid=a, sessionid=b",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, header string) {
		s := &Session{cookies: []string{"sessionid", "other"}, url: "http://localhost"}
		values, err := s.credentials(http.Header{"Cookie": {header}})
		if err != nil {
			if values != nil {
				t.Fatalf("values beside an error: %q", values)
			}
			return
		}
		if values[0] == "" && values[1] == "" {
			t.Fatal("no credentials, and no error")
		}
		for i, v := range values {
			if v == "" {
				continue
			}
			if !isPrintable(v) || strings.Contains(v, ";") || !strings.Contains(header, v) {
				t.Fatalf("%q gave %q", header, v)
			}
			if strings.ContainsAny(header, "\r\n") {
				continue // net/http lets no such header in
			}
			// Another parser finds the same, if it finds any.
			for _, c := range (&http.Request{Header: http.Header{"Cookie": {header}}}).CookiesNamed(s.cookies[i]) {
				const around = "\" \t" // what the two may leave or take away
				if strings.Trim(c.Value, around) != strings.Trim(v, around) {
					t.Fatalf("%q: net/http reads %q, we read %q", header, c.Value, v)
				}
			}
		}
	})
}

// No answer names anybody that a source may not vouch for.
func FuzzSessionAnswer(f *testing.F) {
	for _, seed := range []string{
		`{"subject": "alice", "groups": ["staff"]}`, `{"subject": null, "groups": null}`, `{"subject": "@a", "groups": []}`, `{"subject": "a\u0000", "groups": []}`,
		`{"subject": "a", "groups": ["anyone"]}`, `{"subject": "\ud800", "groups": []}`, `{"subject": 1}`, `[]`, `{`, "", `{"subject": {"subject": "a"}}`, "\xff",
		`{"subject": "a", "subject": "b", "groups": []}`, `{"subject": "a", "groups": ["a", 1]}`, `{"subject": "a", "groups": []} x`,
	} {
		f.Add([]byte(seed), "alice", "staff,sales")
	}
	check := func(t *testing.T, p authz.Principal, err error) {
		if err != nil {
			if p.Subject != "" || p.Groups != nil {
				t.Fatalf("a principal beside an error: %+v", p)
			}
			return
		}
		if authz.ValidSubject(p.Subject) != nil || len(p.Groups) > maxGroups {
			t.Fatalf("accepted %+v", p)
		}
		for _, g := range p.Groups {
			if g[0] != '@' || authz.ValidGroup(g[1:]) != nil || g == "@anyone" || g == "@authenticated" {
				t.Fatalf("accepted group %q", g)
			}
		}
	}
	f.Fuzz(func(t *testing.T, body []byte, subject, groups string) {
		p, err := readJSON(body, "subject", "groups", len(groups) == 0)
		check(t, p, err)
		p, err = readHeaders(http.Header{"X-User": {subject}, "X-Groups": {groups}}, "X-User", "X-Groups", false)
		check(t, p, err)
	})
}

func BenchmarkSessionRemembered(b *testing.B) {
	s := newSession(b, &application{}, nil)
	r := withCookie("theme=dark; csrftoken=0123456789abcdef0123456789abcdef; sessionid=alices")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Authenticate(b.Context(), r); err != nil {
			b.Fatal(err)
		}
	}
}
