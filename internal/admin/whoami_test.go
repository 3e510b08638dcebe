package admin

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"securefiles/internal/identity"
	"securefiles/internal/server"
)

const bobsHash = "bob:$2y$04$NtisaL5/eEq29CkhP3bxWesCwRI2ggXEyKIzN7T/60Nwh9FLWA5YS\n"

// testWhoami returns the admin listener, and what answers nginx, of one service.
func testWhoami(t *testing.T) (s *service, admin *Admin, nginx http.Handler) {
	t.Helper()
	s, _ = testService(t, "", "p, @authenticated, /**, read, allow\np, editor, /**, read, allow\ng, carol, editor\n")
	header, err := identity.NewHeaderSource(identity.HeaderOptions{Header: "X-Remote-User", GroupsHeader: "X-Remote-Groups", GroupsOptional: true})
	if err != nil {
		t.Fatal(err)
	}
	basic, err := identity.NewBasicSource(writeFile(t, filepath.Join(t.TempDir(), "users"), bobsHash), nil)
	if err != nil {
		t.Fatal(err)
	}
	jwt, err := identity.NewJWTSource(nil, identity.KeysOptions{Issuer: "https://127.0.0.1:1"}, // nobody is there
		identity.JWTOptions{Audiences: []string{"files"}})
	if err != nil {
		t.Fatal(err)
	}
	sources := identity.Sources{header, basic, jwt}
	if err := sources.Conflicts(); err != nil {
		t.Fatal(err)
	}
	if err := sources.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	sources.Ask(t.Context())
	s.Whoami = func(ctx context.Context, request []byte) (any, error) {
		q, err := identity.ParseRequest(request)
		if err != nil {
			return nil, err
		}
		q.Download = s.Downloads.All()[0]
		return sources.Whoami(ctx, q, s.Policy), nil
	}
	return s, New(s.Options), s.front(t, sources.Chain())
}

func askWhoami(h http.Handler, authorization, body string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodPost, "/whoami", strings.NewReader(body))
	r.Header.Set("Authorization", authorization)
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// What whoami says is what the service does with the same request; and nothing
// that it says could be used to log in.
func TestWhoamiAndTheServiceAgree(t *testing.T) {
	_, admin, nginx := testWhoami(t)
	for _, row := range []struct {
		name, request, result, subject, source string
		status                                 int // the service's
	}{
		{"a header", "X-Remote-User: alice\nX-Remote-Groups: staff", "accepted", "alice", "header", 204},
		{"a password", "Authorization: Basic Ym9iOmJvYg==", "accepted", "bob", "htpasswd", 204},
		{"a wrong password", "Authorization: Basic Ym9iOmd1ZXNz", "refused", "", "htpasswd", 401},
		{"a header twice", "X-Remote-User: alice\nX-Remote-User: bob", "refused", "", "header", 401},
		{"a role", "X-Remote-User: editor", "refused", "editor", "header", 403},
		{"a group", "X-Remote-User: @editor", "refused", "", "header", 401},
		{"no credentials", "Accept: */*", "anonymous", "anonymous", "", 401},
		{"an issuer that is down", "Authorization: Bearer eyJhbGciOiJFUzI1NiIsImtpZCI6IjEifQ.e30.AAAA", "unavailable", "", "jwt", 503},
		{"a token of no kind", "Authorization: Bearer s3cr3t", "refused", "", "jwt", 401},
	} {
		t.Run(row.name, func(t *testing.T) {
			w := askWhoami(admin, "Bearer "+testToken, row.request)
			var got identity.Whoami
			if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || w.Code != http.StatusOK {
				t.Fatalf("status %d, %v: %s", w.Code, err, w.Body)
			}
			if got.Result != row.result || got.Subject != row.subject {
				t.Errorf("got %s", w.Body)
			}
			decided := ""
			for _, s := range got.Sources {
				if s.Result != identity.ResultNothing && s.Result != identity.ResultNotAsked {
					decided += s.Source
				}
			}
			if decided != row.source {
				t.Errorf("decided by %q: %s", decided, w.Body)
			}
			for line := range strings.Lines(row.request) {
				if _, secret, ok := strings.Cut(line, "Authorization: "); ok {
					_, secret, _ = strings.Cut(secret, " ")
					if strings.Contains(w.Body.String(), secret) {
						t.Errorf("the secret is in the answer: %s", w.Body)
					}
				}
			}
			asked, err := identity.ParseRequest([]byte(row.request))
			if err != nil {
				t.Fatal(err)
			}
			r := httptest.NewRequest(http.MethodGet, "/authorize", nil)
			r.Header = asked.Header
			r.Header.Set("X-Original-URI", "/downloads/a")
			r.Header.Set("X-Original-Method", "GET")
			answer := httptest.NewRecorder()
			nginx.ServeHTTP(answer, r)
			if answer.Code != row.status {
				t.Errorf("the service answers %d, want %d", answer.Code, row.status)
			}
			if user := answer.Header().Get("X-Securefiles-User"); user != row.subject {
				t.Errorf("to the service it is %q", user)
			}
		})
	}
}

// S24: what reveals identity needs the token.
func TestWhoamiNeedsTheToken(t *testing.T) {
	s, admin, _ := testWhoami(t)
	for _, row := range []struct {
		name, authorization, body string
		status                    int
		want                      string
	}{
		{"no token", "", "X-Remote-User: alice", 401, "admin token"},
		{"a wrong token", "Bearer " + strings.Repeat("x", 32), "X-Remote-User: alice", 401, "admin token"},
		{"a whole request", "Bearer " + testToken, "GET /downloads/a HTTP/1.1\r\nHost: x\r\nX-Remote-User: alice\r\n\r\n", 200, `"subject":"alice"`},
		{"no request", "Bearer " + testToken, "{}", 400, "not a request"},
		{"too large", "Bearer " + testToken, "X-Remote-User: " + strings.Repeat("a", maxRequest), 413, "larger"},
	} {
		w := askWhoami(admin, row.authorization, row.body)
		if w.Code != row.status || !strings.Contains(w.Body.String(), row.want) {
			t.Errorf("%s: status %d, want %d with %s: %s", row.name, w.Code, row.status, row.want, w.Body)
		}
	}
	s.Token = nil
	if w := askWhoami(New(s.Options), "Bearer "+testToken, "X-Remote-User: alice"); w.Code != http.StatusNotFound {
		t.Errorf("without a token in the configuration: status %d", w.Code)
	}
}

func TestWhoamiTakesWhatTheServiceTakes(t *testing.T) {
	if maxRequest != server.MaxHeaderBytes {
		t.Errorf("whoami takes %d bytes, the service %d", maxRequest, server.MaxHeaderBytes)
	}
}

// The command that docs/identity.md shows, with curl, against a real listener.
func TestDocumentedWhoamiOverHTTP(t *testing.T) {
	if _, err := exec.LookPath("curl"); err != nil {
		t.Skip("curl is not here")
	}
	page, err := os.ReadFile("../../docs/identity.md")
	if err != nil {
		t.Fatal(err)
	}
	command := regexp.MustCompile("(?m)^curl .*/whoami$").Find(page)
	if command == nil {
		t.Fatal("the command is gone: mend this test")
	}
	s, admin, _ := testWhoami(t)
	server := httptest.NewServer(admin)
	defer server.Close()
	dir := filepath.Dir(s.token)
	writeFile(t, filepath.Join(dir, "admin-token"), testToken+"\n")
	writeFile(t, filepath.Join(dir, "request.txt"), "GET /downloads/a HTTP/1.1\r\nHost: x\r\nX-Remote-User: alice\r\n\r\n")
	run := exec.Command("sh", "-c", strings.ReplaceAll(string(command), "http://127.0.0.1:9181", server.URL))
	run.Dir = dir
	if out, err := run.Output(); err != nil || !strings.Contains(string(out), `"subject":"alice"`) {
		t.Errorf("%v: %s", err, out)
	}
}
