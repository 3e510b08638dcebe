package integration_test

import (
	"crypto/rand"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"securefiles/internal/freeport"
)

// section returns the part of docs/identity.md below a heading.
func section(t *testing.T, heading string) string {
	t.Helper()
	_, part, found := strings.Cut(string(must(os.ReadFile("../docs/identity.md"))), "\n### "+heading+"\n")
	if !found {
		t.Fatalf("docs/identity.md has no section %q", heading)
	}
	part, _, _ = strings.Cut(part, "\n## ")
	part, _, _ = strings.Cut(part, "\n### ")
	return part
}

var (
	yamlFence  = regexp.MustCompile("(?ms)^```yaml\n(.*?)^```$")
	sessionURL = regexp.MustCompile(`(?m)^      url: (http://127\.0\.0\.1:[0-9]+)/`)
)

// sessionRecipe returns the configuration of a section as it stands, but for the
// application's address.
func sessionRecipe(t *testing.T, heading, app string) string {
	t.Helper()
	fence := yamlFence.FindStringSubmatch(section(t, heading))
	if fence == nil {
		t.Fatalf("%s: no configuration", heading)
	}
	address := sessionURL.FindStringSubmatch(fence[1])
	if address == nil {
		t.Fatalf("%s: no URL", heading)
	}
	return strings.Replace(fence[1], address[1], app, 1)
}

// The stand-ins answer as the real ones' documentation and source say.

// oauth2Proxy: GET /oauth2/auth answers 202 with X-Auth-Request-*, or 401. A
// large session is in several cookies.
func oauth2Proxy(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != "/oauth2/auth" {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	value := ""
	for _, name := range []string{"_oauth2_proxy", "_oauth2_proxy_0", "_oauth2_proxy_1", "_oauth2_proxy_2"} {
		if c, err := r.Cookie(name); err == nil {
			value += c.Value
		}
	}
	if value != "good|1764093600|signature" {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	w.Header().Set("X-Auth-Request-User", "0b7c9d")
	w.Header().Set("X-Auth-Request-Email", "alice@example.org")
	w.Header().Set("X-Auth-Request-Groups", "staff,editors")
	w.WriteHeader(http.StatusAccepted)
}

// authelia: /api/authz/auth-request needs to know what is asked for, and
// answers 200 with Remote-*, 401 with the portal's address, or 403.
func authelia(w http.ResponseWriter, r *http.Request) {
	asked, err := url.Parse(r.Header.Get("X-Original-URL"))
	switch {
	case r.URL.Path != "/api/authz/auth-request":
		w.WriteHeader(http.StatusNotFound)
		return
	case err != nil || asked.Scheme != "https" || asked.Host != "files.example.org" || r.Header.Get("X-Original-Method") == "":
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	c, err := r.Cookie("authelia_session")
	switch {
	case err == nil && c.Value == "good":
		w.Header().Set("Remote-User", "alice@example.org")
		w.Header().Set("Remote-Groups", "staff,editors")
		w.Header().Set("Remote-Name", "Alice")
		w.Header().Set("Remote-Email", "alice@example.org")
		fmt.Fprint(w, "200 OK")
	case err == nil && c.Value == "refused":
		w.WriteHeader(http.StatusForbidden)
	default:
		w.Header().Set("Location", "https://auth.example.org/?rd=https%3A%2F%2Ffiles.example.org%2Fdownloads%2F&rm=GET")
		w.WriteHeader(http.StatusUnauthorized)
	}
}

// vouch: /validate answers 200 with X-Vouch-User to the domains it guards, or
// 401.
func vouch(w http.ResponseWriter, r *http.Request) {
	value := ""
	for _, name := range []string{"VouchCookie", "VouchCookie_1of2", "VouchCookie_2of2"} {
		if c, err := r.Cookie(name); err == nil {
			value += c.Value
		}
	}
	if r.URL.Path != "/validate" || r.Host != "files.example.org" || value != "good" {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	w.Header().Set("X-Vouch-Idp-Claims-Groups", `"staff","editors"`)
	w.Header().Set("X-Vouch-User", "alice@example.org")
	w.Header().Set("X-Vouch-Success", "true")
}

// rails stands for applications that answer with JSON.
func rails(w http.ResponseWriter, r *http.Request) {
	c, err := r.Cookie("_myapp_session")
	if err != nil || c.Value != "good%3D%3D--signature" || r.URL.Path != "/securefiles/whoami" || r.Host != "files.example.org" {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.Header().Set("Set-Cookie", "_myapp_session=good%3D%3D--another; path=/; HttpOnly")
	fmt.Fprint(w, `{"subject":"alice@example.org","groups":["staff","editors"]}`)
}

// Each recipe of docs/identity.md, as written, behind nginx.
func TestSessionRecipes(t *testing.T) {
	const policy = `
p, alice@example.org, /users/**, read, allow
p, @editors, /project/**, read, allow
p, @anyone, /public/**, read, allow
`
	files := map[string]string{"users/a.txt": "a\n", "project/plan.txt": "plan\n", "public/welcome.txt": "welcome\n", "private/x.txt": "CANARY DENY x\n"}
	for _, row := range []struct {
		heading string
		app     http.HandlerFunc
		cookies []string // each logs in
		groups  bool     // the application gives them
		login   string   // where a browser is sent
	}{
		{"Rails, Laravel and others", rails, []string{"_myapp_session=good%3D%3D--signature"}, true, "/users/sign_in?next=%2Fdownloads%2Fproject%2Fplan.txt"},
		{"oauth2-proxy", oauth2Proxy, []string{"_oauth2_proxy=good|1764093600|signature", "_oauth2_proxy_0=good|17640936; _oauth2_proxy_1=00|signature", "_oauth2_proxy_csrf=x; _oauth2_proxy_0=good|17; _oauth2_proxy_1=640936; _oauth2_proxy_2=00|signature"}, true, "/oauth2/start?rd=%2Fdownloads%2Fproject%2Fplan.txt"},
		{"Authelia", authelia, []string{"authelia_session=good"}, true, "https://auth.example.org/?rd=https://files.example.org%2Fdownloads%2Fproject%2Fplan.txt"},
		{"vouch", vouch, []string{"VouchCookie=good", "VouchCookie_1of2=go; VouchCookie_2of2=od"}, false, "https://vouch.example.org/login?url=https://files.example.org%2Fdownloads%2Fproject%2Fplan.txt"},
	} {
		t.Run(row.heading, func(t *testing.T) {
			t.Parallel()
			app := httptest.NewServer(row.app)
			t.Cleanup(app.Close)
			s := start(t, plan{policy: policy, files: files, printed: true, identity: sessionRecipe(t, row.heading, app.URL)})
			plan := http.StatusNotFound
			if row.groups {
				plan = http.StatusOK
			}
			for _, cookie := range row.cookies {
				good := with("Cookie", "theme=dark; "+cookie)
				s.status("", "/downloads/users/a.txt", 200, good)
				s.status("", "/downloads/project/plan.txt", plan, good)
				if r := s.status("", "/downloads/public/welcome.txt", 200, good); r.header.Get("Set-Cookie") != "" {
					t.Errorf("a cookie of the application's answer reached the client: %v", r.header)
				}
				s.status("", "/downloads/private/x.txt", 404, good)
			}
			name, _, _ := strings.Cut(row.cookies[0], "=")
			stale := with("Cookie", name+"=stale")
			s.status("", "/downloads/project/plan.txt", 401)
			s.status("", "/downloads/project/plan.txt", 401, stale)
			s.status("", "/downloads/public/welcome.txt", 401, stale)
			s.status("", "/downloads/public/welcome.txt", 200)
			s.status("", "/downloads/users/a.txt", 401, with("Cookie", name+"=other; "+row.cookies[0]))
			for _, edit := range [][]func(*http.Request){{asBrowser}, {asBrowser, stale}} {
				if r := s.status("", "/downloads/project/plan.txt", 302, edit...); r.header.Get("Location") != row.login {
					t.Errorf("sent to %q, want %q", r.header.Get("Location"), row.login)
				}
			}
			if row.heading == "Authelia" { // knows the user, and refuses him
				if r := s.status("", "/downloads/users/a.txt", 403, with("Cookie", "authelia_session=refused"), asBrowser); r.header.Get("Location") != "" {
					t.Errorf("a user whom the application refuses is sent to log in: %v", r.header)
				}
			}
			// A login would not take one of two cookies away.
			s.status("", "/downloads/users/a.txt", 401, with("Cookie", name+"=other; "+row.cookies[0]), asBrowser)
			// The application's own word for a user, from a client, has no effect.
			for _, header := range []string{"X-Auth-Request-Email", "Remote-User", "X-Vouch-User", "X-Original-URL"} {
				s.status("", "/downloads/users/a.txt", 401, with(header, "alice@example.org"))
			}
			app.Close()
			s.status("", "/downloads/users/a.txt", 200, with("Cookie", row.cookies[0]))
			r := s.status("", "/downloads/users/a.txt", 503, with("Cookie", name+"=unknown"), asBrowser)
			if r.header.Get("Retry-After") == "" || r.header.Get("Location") != "" {
				t.Errorf("503 with %v", r.header)
			}
		})
	}
}

// A token in a header of its own passes nginx because the snippet names it, and
// nothing else of the client's does.
func TestSessionInAHeader(t *testing.T) {
	t.Parallel()
	var got http.Header
	var mu sync.Mutex
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		got = r.Header.Clone()
		mu.Unlock()
		if r.Header.Get("X-Session-Token") != "good" && r.Header.Get("Authorization") != "Token good" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, `{"subject": "alice", "groups": []}`)
	}))
	t.Cleanup(app.Close)
	s := start(t, plan{policy: alicesPolicy, printed: true, identity: fmt.Sprintf(
		"identity:\n  - htpasswd: users.htpasswd\n  - session: {url: '%s/', headers: [X-Session-Token, Authorization]}\n", app.URL)})
	const path = "/downloads/project/plan.txt"
	s.status("", path, 200, with("X-Session-Token", "good"), with("X-Other", "secret"), with("Cookie", "a=secret"), with("X-Remote-User", "secret"))
	mu.Lock()
	if fmt.Sprint(got) != fmt.Sprint(http.Header{"Accept": {"application/json"}, "User-Agent": {"securefiles"}, "X-Session-Token": {"good"}}) {
		t.Errorf("the application got %v", got)
	}
	mu.Unlock()
	s.status("", path, 200, with("Authorization", "Token good"))
	s.status("alice", path, 200) // by password
	s.status("", path, 401)
	s.status("", path, 401, with("X-Session-Token", "bad"))
	s.status("", path, 401, with("X_Session_Token", "good"))
	s.status("", path, 401, with("Authorization", "Token bad"))
	s.status("bob", path, 404)
}

// applicationVariable holds the address of an application that the test's
// binary is to be, so that there is a process to kill.
const applicationVariable = "SECUREFILES_TEST_APPLICATION"

func runApplication(address string) int {
	server := &http.Server{Addr: address, ReadHeaderTimeout: time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := r.Cookie("sessionid")
		if err != nil || !strings.HasPrefix(c.Value, "known") {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"subject": "%s", "groups": []}`, c.Value)
	})}
	fmt.Fprintln(os.Stderr, server.ListenAndServe())
	return 1
}

func (s *site) startApplication(address string) *exec.Cmd {
	s.t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), applicationVariable+"="+address)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { end(cmd) })
	return cmd
}

// S11: the application hangs, is killed and comes back, all under load. Who is
// remembered goes on, the others get 503 in time, and nobody has to mend
// anything.
func TestApplicationKilledUnderLoad(t *testing.T) {
	t.Parallel()
	const timeout = 800 * time.Millisecond
	app := freeport.Address(t)
	s := start(t, plan{policy: "p, @authenticated, /**, read, allow\n", identity: fmt.Sprintf(
		"identity:\n  - session: {url: 'http://%s/', cookies: [sessionid], timeout: %s, remember: 1m, remember_refused: 100ms}\n", app, timeout),
		// A request that nobody ends but nginx ends late.
		edit: func(_ *site, conf string) string {
			return strings.Replace(conf, "proxy_read_timeout      2s", "proxy_read_timeout 60s", 1)
		}})
	process := s.startApplication(app)
	const path = "/downloads/public/welcome.txt"
	known := func(i int) func(*http.Request) { return with("Cookie", fmt.Sprintf("sessionid=known%d", i%20)) }
	unknown := func() func(*http.Request) { return with("Cookie", "sessionid="+rand.Text()) }
	s.eventually("the application answers", func() bool { return s.get("", path, unknown()).status == 401 })
	for i := range 20 {
		s.status("", path, 200, known(i))
	}
	// load asks as both for a while, and returns the statuses and the longest
	// wait of each.
	load := func() (statuses map[string]int, longest map[string]time.Duration) {
		statuses, longest = map[string]int{}, map[string]time.Duration{}
		var mu sync.Mutex
		var workers sync.WaitGroup
		deadline := time.Now().Add(1500 * time.Millisecond)
		enough := func() bool {
			mu.Lock()
			defer mu.Unlock()
			n := map[string]int{}
			for what, times := range statuses {
				who, _, _ := strings.Cut(what, " ")
				n[who] += times
			}
			return time.Now().After(deadline) && (n["known"] >= 20 && n["unknown"] >= 5 || time.Now().After(deadline.Add(patience)))
		}
		for worker := range 8 {
			workers.Go(func() {
				client := newClient()
				defer client.CloseIdleConnections()
				for i := worker; !enough(); i++ {
					who, credentials := "known", known(i)
					if worker%2 == 0 {
						who, credentials = "unknown", unknown()
					}
					began := time.Now()
					r, err := s.try(client, "", path, credentials)
					took := time.Since(began)
					if err != nil {
						t.Errorf("%s: %v", who, err)
						return
					}
					mu.Lock()
					statuses[fmt.Sprintf("%s %d", who, r.status)]++
					longest[who] = max(longest[who], took)
					mu.Unlock()
				}
			})
		}
		workers.Wait()
		return statuses, longest
	}
	phase := func(name string, unknownStatus int) {
		t.Helper()
		statuses, longest := load()
		t.Logf("%s: %v, longest waits %v", name, statuses, longest)
		want := fmt.Sprintf("unknown %d", unknownStatus)
		if len(statuses) != 2 || statuses["known 200"] < 20 || statuses[want] < 5 {
			t.Errorf("%s: %v, want 200 and %d alone", name, statuses, unknownStatus)
		}
		if longest["unknown"] > timeout+slack {
			t.Errorf("%s: a request took %v", name, longest["unknown"])
		}
	}
	recovered := func() {
		t.Helper()
		s.eventually("strangers are told so again", func() bool { return s.get("", path, unknown()).status == 401 })
		s.eventually("the gauge says so", func() bool { return s.metric("securefiles_session_breaker_open") == "0" })
	}
	signal := func(sig syscall.Signal) {
		t.Helper()
		if err := syscall.Kill(process.Process.Pid, sig); err != nil {
			t.Fatal(err)
		}
	}
	phase("all is well", 401)
	signal(syscall.SIGSTOP) // it accepts connections and does not answer
	s.eventually("it has stopped", func() bool {
		_, state, _ := strings.Cut(string(must(os.ReadFile(fmt.Sprintf("/proc/%d/stat", process.Process.Pid)))), ") ")
		return strings.HasPrefix(state, "T")
	})
	phase("the application hangs", 503)
	if got := s.metric("securefiles_session_breaker_open"); got != "1" {
		t.Errorf("the gauge says %q while it hangs", got)
	}
	signal(syscall.SIGCONT)
	recovered()
	phase("the application goes on", 401)
	end(process)
	phase("the application is dead", 503)
	process = s.startApplication(app)
	recovered()
	phase("the application is back", 401)
	if got := s.metric(`securefiles_identity_total{result="unavailable",source="session"}`); got == "0" || got == "" {
		t.Errorf("the unavailable are not counted: %q", got)
	}
	for _, want := range []string{"does not answer", "answers again"} {
		if !strings.Contains(s.log.String(), want) {
			t.Errorf("the log does not say that the application %s", want)
		}
	}
}

// Every section that asks an application is run by a test.
func TestEveryRecipeIsRun(t *testing.T) {
	page := string(must(os.ReadFile("../docs/identity.md")))
	_, page, _ = strings.Cut(page, "\n## The session of a web application\n")
	page, _, _ = strings.Cut(page, "\n## ")
	source := string(must(os.ReadFile("session_test.go")))
	found := 0
	for _, m := range regexp.MustCompile(`(?m)^### (.+)$`).FindAllStringSubmatch(page, -1) {
		found++
		if m[1] != "Django" && !strings.Contains(source, `{"`+m[1]+`", `) { // Django has a test of its own
			t.Errorf("%s is run by no test", m[1])
		}
	}
	if found < 5 {
		t.Errorf("found %d recipes", found)
	}
}
