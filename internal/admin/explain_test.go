package admin

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"securefiles/authz"
	"securefiles/internal/frontend"
	"securefiles/internal/identity"
	"securefiles/internal/metrics"
	"securefiles/internal/secret"
	"securefiles/policy"
	"securefiles/policy/explain"
)

const testToken = "0123456789abcdef0123456789abcdef"

func writeFile(t testing.TB, name, text string) string {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// A service is what the admin listener tells of.
type service struct {
	Options
	token string // the file
}

// testService opens a policy, and the admin listener over it.
func testService(t testing.TB, model, csv string) (*service, *Admin) {
	t.Helper()
	file := writeFile(t, filepath.Join(t.TempDir(), "policy.csv"), csv)
	store, err := policy.Open(t.Context(), policy.Files{Model: model, Policy: file}, nil)
	if err != nil {
		t.Fatalf("%v\n%s", err, csv)
	}
	downloads, err := authz.NewDownloads(&authz.Download{Name: "main", URL: "/downloads/", Internal: "/protected/"})
	if err != nil {
		t.Fatal(err)
	}
	s := &service{token: writeFile(t, filepath.Join(t.TempDir(), "token"), testToken+"\n")}
	token, err := secret.New("admin token", s.token, "", func(string) (string, bool) { return "", false })
	if err != nil {
		t.Fatal(err)
	}
	if err := token.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	counters := metrics.New("", "", nil, nil, func() metrics.Policy { return metrics.Policy{} })
	s.Options = Options{Metrics: counters.Handler(), Policy: store, Downloads: downloads, Token: token.Is}
	return s, New(s.Options)
}

// front is what answers nginx, over the same policy.
func (s *service) front(t testing.TB, who authz.Authenticator) http.Handler {
	t.Helper()
	guard, err := authz.New(s.Downloads, who, s.Policy, nil)
	if err != nil {
		t.Fatal(err)
	}
	front, err := frontend.NewAuthRequest(guard, nil)
	if err != nil {
		t.Fatal(err)
	}
	return front
}

// post asks POST /explain.
func post(h http.Handler, authorization, kind, body string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodPost, "/explain", strings.NewReader(body))
	if authorization != "" {
		r.Header.Set("Authorization", authorization)
	}
	r.Header.Set("Content-Type", kind)
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// S24: what reveals policy needs the token.
func TestExplainNeedsTheToken(t *testing.T) {
	s, routes := testService(t, "", "p, alice, /a/**, read, allow\n")
	const question = `{"subject": "alice", "path": "/downloads/a/x"}`
	for _, row := range []struct {
		name, authorization string
		status              int
	}{
		{"none", "", 401},
		{"no scheme", testToken, 401},
		{"another scheme", "Basic " + testToken, 401},
		{"empty", "Bearer ", 401},
		{"wrong", "Bearer " + strings.Repeat("x", 32), 401},
		{"a prefix", "Bearer " + testToken[:31], 401},
		{"one byte more", "Bearer " + testToken + "0", 401},
		{"right", "Bearer " + testToken, 200},
		{"right, in another case", "bearer " + testToken, 200},
	} {
		w := post(routes, row.authorization, "application/json", question)
		if w.Code != row.status || strings.Contains(w.Body.String(), "policy.csv") != (row.status == 200) {
			t.Errorf("%s: status %d, want %d: %s", row.name, w.Code, row.status, w.Body)
		}
		if (w.Header().Get("WWW-Authenticate") != "") != (row.status == 401) {
			t.Errorf("%s: challenge %q", row.name, w.Header())
		}
	}
	r := httptest.NewRequest(http.MethodPost, "/explain", strings.NewReader(question))
	r.Header["Authorization"] = []string{"Bearer " + testToken, "Bearer " + testToken}
	w := httptest.NewRecorder()
	if routes.ServeHTTP(w, r); w.Code != http.StatusUnauthorized {
		t.Errorf("twice: status %d", w.Code)
	}
	s.Token = nil
	if w := post(New(s.Options), "Bearer "+testToken, "application/json", question); w.Code != http.StatusNotFound {
		t.Errorf("without a token in the configuration: status %d", w.Code)
	}
}

func TestExplainOverHTTP(t *testing.T) {
	_, routes := testService(t, "", "p, staff, /a/**, read, allow\ng, @temps, staff\n")
	for _, row := range []struct {
		name, kind, body string
		status           int
		want             string
	}{
		{"allow", "application/json", `{"subject": "alice", "groups": ["temps"], "path": "/downloads/a/caf%C3%A9"}`, 200, `"decision":"g1:policy.csv:1"`},
		{"a charset", "application/json; charset=utf-8", `{"subject": "alice", "path": "/a/x"}`, 200, `is not \"staff\" and has no role`},
		{"another type", "text/plain", `{"subject": "alice", "path": "/a/x"}`, 415, "application/json"},
		{"not JSON", "application/json", `subject`, 400, "not a question"},
		{"an unknown key", "application/json", `{"subject": "alice", "path": "/a/x", "user": "x"}`, 400, "user"},
		{"two questions", "application/json", `{"subject": "alice", "path": "/a/x"} {}`, 400, "something follows"},
		{"no subject", "application/json", `{"path": "/a/x"}`, 400, "is empty"},
		{"a bad path", "application/json", `{"subject": "alice", "path": "/a/../x"}`, 400, "refused before policy"},
		{"a bad action", "application/json", `{"subject": "alice", "path": "/a/x", "action": "write"}`, 400, "must be one of"},
		{"too large", "application/json", `{"subject": "` + strings.Repeat("a", maxQuestion) + `"}`, 413, "larger than"},
	} {
		w := post(routes, "Bearer "+testToken, row.kind, row.body)
		if w.Code != row.status || !strings.Contains(w.Body.String(), row.want) {
			t.Errorf("%s: status %d, want %d with %s: %s", row.name, w.Code, row.status, row.want, w.Body)
		}
	}
	r := httptest.NewRequest(http.MethodGet, "/explain", nil)
	w := httptest.NewRecorder()
	if routes.ServeHTTP(w, r); w.Code != http.StatusMethodNotAllowed {
		t.Errorf("GET: status %d", w.Code)
	}
}

// Explain and the service agree, the deciding line included: the same question
// over /authorize and over /explain. SECUREFILES_TEST_LONG asks 100,000 times.
func TestExplainAndTheServiceAgree(t *testing.T) {
	requests := 2000
	if os.Getenv("SECUREFILES_TEST_LONG") != "" {
		requests = 100_000
	}
	const each = 200 // requests a policy
	models := []string{"", "../../policy/internal/world/testdata/model/open.conf", "../../policy/internal/world/testdata/model/priority.conf", "../../policy/internal/world/testdata/model/keymatch2.conf", "../../policy/internal/world/testdata/model/address.conf"}
	header, err := identity.NewHeader(identity.HeaderOptions{Header: "X-Remote-User", GroupsHeader: "X-Remote-Groups", GroupsOptional: true})
	if err != nil {
		t.Fatal(err)
	}
	random := rand.New(rand.NewPCG(21, 22))
	pick := func(from ...string) string { return from[random.IntN(len(from))] }
	outcomes := map[string]int{}
	for n := range requests / each {
		model := models[n%len(models)]
		csv := randomCSV(pick, model)
		s, admin := testService(t, model, csv)
		routes := s.front(t, identity.Chain{header})
		for range each {
			subject, group := pick("u0", "u1", "u2", "u3", "stranger", "r0", "anonymous"), pick("", "", "g0", "g1")
			path := "/downloads" + pick("/a", "/b", "/a/b", "/a/c", "/a/b/c", "/b/c", "/caf%C3%A9")
			ip := pick("10.1.2.3", "192.0.2.1", "2001:db8::1", "unix:")
			r := httptest.NewRequest(http.MethodGet, "/authorize", nil)
			r.Header.Set("X-Original-URI", path)
			r.Header.Set("X-Original-Method", "GET")
			r.Header.Set("X-Real-IP", ip)
			question := map[string]any{"subject": subject, "path": path, "host": r.Host}
			if ip != "unix:" {
				question["ip"] = ip
			}
			if subject != "anonymous" {
				r.Header.Set("X-Remote-User", subject)
				if group != "" {
					r.Header.Set("X-Remote-Groups", group)
					question["groups"] = []string{group}
				}
			}
			served := httptest.NewRecorder()
			routes.ServeHTTP(served, r)
			body, err := json.Marshal(question)
			if err != nil {
				t.Fatal(err)
			}
			answer := post(admin, "Bearer "+testToken, "application/json", string(body))
			var x explain.Explanation
			if err := json.Unmarshal(answer.Body.Bytes(), &x); err != nil || answer.Code != http.StatusOK {
				t.Fatalf("%s: status %d: %v: %s", body, answer.Code, err, answer.Body)
			}
			decision, why := served.Header().Get("X-Securefiles-Decision"), served.Header().Get("X-Securefiles-Reason")
			deciding := "-"
			if x.Deciding != nil {
				deciding = fmt.Sprintf("%s:%d", x.Deciding.File, x.Deciding.Line)
			}
			if x.Allowed != (served.Code == http.StatusNoContent) || string(x.Reason) != why ||
				x.Error == "" && (x.Decision != decision || decision != "g1:"+deciding) {
				t.Fatalf("%s: the service says %d %s %s, explain %t %s %s by %s (%s)\n%s", body, served.Code, decision, why, x.Allowed, x.Decision, x.Reason, deciding, x.Error, csv)
			}
			outcomes[fmt.Sprintf("%d %s", served.Code, why)]++
		}
	}
	t.Logf("%d requests: %v", requests, outcomes)
	for _, want := range []string{"204 policy", "404 policy", "404 default-deny", "401 anonymous", "403 subject", "503 unavailable"} {
		if outcomes[want] == 0 {
			t.Errorf("none came out as %s", want)
		}
	}
}

// randomCSV writes a policy of a few lines that meet in most requests.
func randomCSV(pick func(...string) string, model string) string {
	patterns := []string{"/a/**", "/a/*", "/a/b", "/**", "/*/c", "/b/**"}
	if strings.Contains(model, "keymatch2") {
		patterns = []string{"/a/*", "/:x", "/:x/c", "/a/b", "/*"}
	}
	var out strings.Builder
	used := []string{"r0"}
	out.WriteString(map[bool]string{true: "p, 5, r0, /a/b, read, allow\n", false: "p, r0, /a/b, read, allow\n"}[strings.Contains(model, "priority")])
	if strings.Contains(model, "address") {
		out.Reset()
		out.WriteString("p, r0, /a/b, read, 10.0.0.0/8, allow\n")
	}
	for range 9 {
		out.WriteString("p, ")
		if strings.Contains(model, "priority") {
			out.WriteString(pick("1", "2", "3") + ", ")
		}
		subject := pick("u0", "u1", "r0", "r1", "r2", "@g0", "@authenticated", "@anyone")
		used = append(used, subject)
		fmt.Fprintf(&out, "%s, %s, %s, ", subject, pick(patterns...), pick("read", "read", "read", "list"))
		if strings.Contains(model, "address") {
			out.WriteString(pick("10.0.0.0/8", "192.0.2.1") + ", ")
		}
		out.WriteString(pick("allow", "allow", "deny") + "\n")
	}
	out.WriteString("g, u3, r0\n")
	for range 6 {
		if role := pick("r1", "r2"); slices.Contains(used, role) {
			fmt.Fprintf(&out, "g, %s, %s\n", pick("u0", "u1", "u2", "r0", "@g0", "@g1"), role)
		}
	}
	return out.String()
}

// The command that docs/policies.md shows, with curl, against a real listener.
func TestDocumentedExplainOverHTTP(t *testing.T) {
	if _, err := exec.LookPath("curl"); err != nil {
		t.Skip("curl is not here")
	}
	page, err := os.ReadFile("../../docs/policies.md")
	if err != nil {
		t.Fatal(err)
	}
	command := regexp.MustCompile("(?ms)^```sh\n(curl .*?)^```$").FindSubmatch(page)
	if command == nil {
		t.Fatal("the command is gone: mend this test")
	}
	s, routes := testService(t, "", "p, editor, /project/**, read, allow\ng, alice, editor\n")
	server := httptest.NewServer(routes)
	defer server.Close()
	run := exec.Command("sh", "-c", strings.ReplaceAll(string(command[1]), "http://127.0.0.1:9181", server.URL))
	run.Dir = filepath.Dir(s.token)
	out, err := run.Output()
	if err != nil || !strings.Contains(string(out), `"decision":"g1:policy.csv:1"`) {
		t.Errorf("%v: %s", err, out)
	}
}
