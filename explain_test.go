package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"securefiles/authz"
	"securefiles/internal/config"
	"securefiles/internal/frontend"
	"securefiles/internal/identity"
	"securefiles/internal/metrics"
	"securefiles/internal/server"
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

// testService opens a policy and the routes of the admin listener over it.
func testService(t testing.TB, model, csv string) (*service, http.Handler) {
	t.Helper()
	c := config.Default()
	c.Policy.Model, c.Policy.File = model, writeFile(t, filepath.Join(t.TempDir(), "policy.csv"), csv)
	c.AdminTokenFile = writeFile(t, filepath.Join(t.TempDir(), "token"), testToken+"\n")
	source, opts := policySource(c)
	store, err := policy.Open(t.Context(), source, opts)
	if err != nil {
		t.Fatalf("%v\n%s", err, csv)
	}
	log := slog.New(slog.DiscardHandler)
	token, err := newAdminToken(t.Context(), c, nil)
	if err != nil {
		t.Fatal(err)
	}
	downloads, err := guardedDownloads(c.Downloads)
	if err != nil {
		t.Fatal(err)
	}
	s := &service{parts: &parts{config: c, downloads: downloads, store: store, token: token}, log: log, counters: testCounters()}
	s.reloads = server.NewReloaders(s.reloaders(), nil)
	return s, s.adminRoutes(build{})
}

// testRoutes is what nginx reaches, over these parts.
func testRoutes(t testing.TB, downloads *authz.Downloads, who authz.Authenticator, policy authz.Decider, counters *metrics.Metrics, opts *frontend.Options) http.Handler {
	t.Helper()
	guard, err := authz.New(downloads, who, policy, nil)
	if err != nil {
		t.Fatal(err)
	}
	front, err := frontend.NewAuthRequest(guard, opts)
	if err != nil {
		t.Fatal(err)
	}
	return decisionRoutes(front, counters)
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
	s.token = nil
	if w := post(s.adminRoutes(build{}), "Bearer "+testToken, "application/json", question); w.Code != http.StatusNotFound {
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
		{"too large", "application/json", `{"subject": "` + strings.Repeat("a", maxExplainBody) + `"}`, 413, "larger than"},
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

// S25: a token comes from a file that others should not read, is long, and can
// be changed while the service runs. While it cannot be read none is right.
func TestAdminTokenIsReadAgain(t *testing.T) {
	file := filepath.Join(t.TempDir(), "token")
	c := &config.Config{AdminTokenFile: file}
	if _, err := newAdminToken(t.Context(), c, nil); err == nil {
		t.Error("a missing file was accepted")
	}
	if err := errors.Join(syscall.Mkfifo(file+".pipe", 0o600), os.Rename(file+".pipe", file)); err != nil {
		t.Fatal(err)
	}
	if _, err := newAdminToken(t.Context(), c, nil); err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("a pipe: %v", err)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	writeFile(t, file, "short\n")
	if _, err := newAdminToken(t.Context(), c, nil); err == nil || !strings.Contains(err.Error(), "shorter than 32 bytes") {
		t.Errorf("a short token: %v", err)
	}
	writeFile(t, file, testToken+"\n")
	token, err := newAdminToken(t.Context(), c, nil)
	if err != nil {
		t.Fatal(err)
	}
	if found := (&parts{config: c, token: token}).exposures(); len(found) > 0 {
		t.Fatalf("exposed: %v", found)
	}
	guarded := token.require(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }))
	opens := func(text string) bool {
		return post(guarded, "Bearer "+text, "", "").Code == http.StatusNoContent
	}
	if !opens(testToken) {
		t.Error("the token does not open")
	}
	next := strings.Repeat("n", 40)
	writeFile(t, file, next)
	if err := token.reload(t.Context()); err != nil || opens(testToken) || !opens(next) {
		t.Errorf("after a change: %v, old %t, new %t", err, opens(testToken), opens(next))
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if err := token.reload(t.Context()); err == nil || opens(next) || opens("") {
		t.Errorf("without its file the token opens: %v", err)
	}
	writeFile(t, file, next)
	if err := os.Chmod(file, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := token.reload(t.Context()); err != nil || !opens(next) {
		t.Errorf("back again, for others to read: %v", err)
	}
	if found := (&parts{config: c, token: token}).exposures(); len(found) != 1 || !strings.Contains(found[0].message, "others may read the admin token") {
		t.Errorf("for others to read: %v", found)
	}
	fromEnvironment, err := newAdminToken(t.Context(), c, []string{"SECUREFILES_ADMIN_TOKEN=" + strings.Repeat("e", 32)})
	if err != nil || fromEnvironment.reload(t.Context()) != nil {
		t.Error(err)
	}
	if none, err := newAdminToken(t.Context(), &config.Config{}, nil); none != nil || err != nil || none.reload(t.Context()) != nil {
		t.Errorf("none configured: %v, %v", none, err)
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
	models := []string{"", "policy/internal/world/testdata/model/open.conf", "policy/internal/world/testdata/model/priority.conf", "policy/internal/world/testdata/model/keymatch2.conf", "policy/internal/world/testdata/model/address.conf"}
	header, err := identity.NewHeader(identity.HeaderOptions{Header: "X-Remote-User", GroupsHeader: "X-Remote-Groups"})
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
		routes := testRoutes(t, s.downloads, identity.Chain{header}, s.store, s.counters, nil)
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
	page, err := os.ReadFile("docs/policies.md")
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
	run.Dir = filepath.Dir(s.token.file)
	out, err := run.Output()
	if err != nil || !strings.Contains(string(out), `"decision":"g1:policy.csv:1"`) {
		t.Errorf("%v: %s", err, out)
	}
}
