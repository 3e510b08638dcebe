package integration_test

import (
	"bufio"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// A server block that somebody else wrote: every directive here, inherited,
// would turn a no into a yes, or add to what is served, if the snippet did not
// reset it.
const (
	sorry    = "SORRY"
	hijacked = "HIJACKED"

	hostileServer = `
        error_page 300 301 302 303 304 307 308 400 401 402 403 404 405 408 409 410 413 414 416 429 431 451 500 502 503 504 =200 /sorry;
        recursive_error_pages on;
        proxy_intercept_errors on;
        proxy_cache hostile;
        proxy_cache_key "$host";
        proxy_cache_valid any 10m;
        proxy_cache_use_stale error timeout invalid_header updating http_500 http_502 http_503 http_504 http_403 http_404 http_429;
        proxy_ignore_headers Cache-Control;
        proxy_pass_header X-Accel-Redirect;
        proxy_pass_request_headers on;
        proxy_set_header X-Original-URI $http_x_original_uri;
        proxy_set_header X-Remote-User $http_x_remote_user;
        proxy_set_body "GET /authorize HTTP/1.1\r\n\r\n";
        proxy_method POST;
        proxy_next_upstream off;
        satisfy any;
        allow all;
        auth_request /always;
        disable_symlinks off;
        autoindex on;
        index index.html plan.txt;
        ssi on;
        ssi_types *;
        gzip_static on;
        expires max;
        add_header X-Site hostile always;
        root FILES;
        open_file_cache max=100;
        open_file_cache_errors on;
        dav_methods PUT DELETE MKCOL COPY MOVE;
        create_full_put_path on;
        merge_slashes off;
        underscores_in_headers on;
        ignore_invalid_headers off;
        if_modified_since before;
        limit_rate 1k;
        gzip on;
        gzip_types *;
        gzip_min_length 0;
        log_subrequest on;
        location = /sorry { auth_request off; return 200 "SORRY"; }
        location = /always { internal; return 204; }
        location ~ \.(?:txt|html|gz)$ { auth_request off; root FILES; return 200 "HIJACKED"; }
        location /other/ { auth_request off; proxy_pass http://OTHER/; }
        location /pages/ { auth_request off; root PAGES; try_files $uri =404; }
`
)

// hostile puts the snippet of the example into that server block. The
// application beside it hands over whatever it is asked to (?to=).
func hostile(s *site, conf string) string {
	s.t.Helper()
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Accel-Redirect", r.URL.Query().Get("to"))
	}))
	s.t.Cleanup(other.Close)
	s.write("site/pages/include.html", `<!--#include virtual="/protected/private/secret.txt" --><!--#include virtual="/-securefiles-question" -->`+"\n")
	server := strings.NewReplacer("FILES", s.root, "OTHER", strings.TrimPrefix(other.URL, "http://"), "PAGES", filepath.Join(s.dir, "site")).Replace(hostileServer)
	conf = strings.Replace(conf, "        server_name localhost;\n", "        server_name localhost;\n"+server, 1)
	return strings.Replace(conf, "    server {\n        listen", "    proxy_cache_path "+s.dir+"/cache keys_zone=hostile:1m;\n    server {\n        listen", 1)
}

// S8: the snippet says in a hostile server block what it says in a friendly one.
// S28: CVE-2026-24513 (an error page answered 200 inside the subrequest), caches
// keyed without identity.
func TestHostileServerBlock(t *testing.T) {
	t.Parallel()
	s := start(t, plan{policy: alicesPolicy, edit: hostile})
	s.write("files/project/plan.txt.gz", "CANARY DENY another file\n")
	s.write("files/project/ssi.html", `<!--#include virtual="/protected/private/secret.txt" --><!--#echo var="document_uri" -->`+"\n")
	if err := os.Symlink("../private/secret.txt", filepath.Join(s.root, "project/link.txt")); err != nil {
		t.Fatal(err)
	}
	ask := func() {
		for _, row := range []struct {
			user, path string
			status     int
			body       string
		}{
			{"alice", "/downloads/project/plan.txt", 200, "0123456789\n"},
			{"bob", "/downloads/project/plan.txt", 404, ""},
			{"", "/downloads/project/plan.txt", 401, ""},
			{"alice", "/downloads/project/hr/pay.txt", 404, ""},
			{"alice", "/downloads/private/secret.txt", 404, ""},
			{"alice", "/downloads/project/missing.txt", 404, ""},
			{"alice", "/downloads/project/link.txt", 404, ""},
			{"alice", "/downloads/project", 404, ""},
			{"alice", "/downloads/project/sub", 404, ""},
			{"alice", "/downloads/project//plan.txt", 400, ""},
			{"alice", "/downloads/project/ssi.html", 200, `<!--#include virtual="/protected/private/secret.txt" --><!--#echo var="document_uri" -->` + "\n"},
			{"", "/downloads/public/welcome.txt", 200, "welcome\n"},
		} {
			r := s.status(row.user, row.path, row.status, with("Accept-Encoding", "gzip"))
			if row.body != "" && r.body != row.body {
				t.Errorf("%s as %q: body %q", row.path, row.user, r.body)
			}
			if r.body == hijacked || r.body == sorry {
				t.Errorf("%s as %q: somebody else answered: %d %q", row.path, row.user, r.status, r.body)
			}
			if b := breach(&r, s.root); b != "" {
				t.Errorf("%s as %q: %s", row.path, row.user, b)
			}
			if got := strings.Join(r.header.Values("Cache-Control"), "|"); got != "private, no-store" && got != "no-store" {
				t.Errorf("%s as %q: Cache-Control %q", row.path, row.user, got)
			}
		}
		for _, method := range []string{"PUT", "DELETE", "MKCOL", "MOVE", "COPY", "POST"} {
			r := s.get("alice", "/downloads/project/plan.txt", with("Destination", "/downloads/public/plan.txt"), func(r *http.Request) { r.Method = method })
			if r.status != 405 {
				t.Errorf("%s: %d %q", method, r.status, r.body)
			}
		}
	}
	ask()
	ask() // again: what a cache kept would answer now

	// S11: with the service away, no page and no cache stands in for it.
	end(s.daemon)
	r := s.status("alice", "/downloads/project/plan.txt", 503)
	if r.header.Get("Retry-After") == "" || r.body == sorry {
		t.Errorf("service down: %+v", r)
	}
	if text, err := os.ReadFile(filepath.Join(s.root, "project/plan.txt")); err != nil || string(text) != "0123456789\n" {
		t.Errorf("the file is now %q, %v", text, err)
	}
}

// S8: the attack corpus in a hostile server block. What nginx refuses itself or
// takes elsewhere, the rest of that server may answer; what comes to the
// snippet, it may not.
func TestAttackCorpusInAHostileServerBlock(t *testing.T) {
	for name, of := range map[string]func(plan) plan{"nginx": func(p plan) plan { return p }, "classic": classicPlan} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			attackHostile(t, of)
		})
	}
}

func attackHostile(t *testing.T, of func(plan) plan) {
	t.Helper()
	friendly := start(t, of(plan{policy: corpusPolicy, files: map[string]string{}}))
	s := start(t, of(plan{policy: corpusPolicy, files: map[string]string{}, edit: hostile}))
	plantTree(t, friendly.dir)
	contents := plantTree(t, s.dir)
	foreign := 0
	for _, a := range attacks(t) {
		request := []byte("GET /downloads/" + bytesOf(a.RawPath) + " HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n" + aliceCredentials + "\r\n")
		r, err := raw(s.web, "GET", request)
		if err != nil || r.body != sorry && r.body != hijacked {
			s.attack(t, a, contents)
			continue
		}
		foreign++
		if r, err := raw(friendly.web, "GET", request); err == nil && r.header.Get("X-Request-Id") != "" {
			t.Errorf("%s %q: the snippet says %d, and the server around it answers", a.ID, a.RawPath, r.status)
		}
	}
	if foreign > 150 {
		t.Errorf("%d answers are not the snippet's", foreign)
	}
}

// S7: the internal location and the question's location answer nobody outside,
// in no spelling, nor another application in the same server.
func TestInternalLocationsCannotBeReached(t *testing.T) {
	t.Parallel()
	sites := map[string]*site{"example": start(t, plan{policy: alicesPolicy}), "hostile": start(t, plan{policy: alicesPolicy, edit: hostile}),
		"classic": start(t, classicPlan(plan{policy: alicesPolicy})), "classic, hostile": start(t, classicPlan(plan{policy: alicesPolicy, edit: hostile}))}
	for name, s := range sites {
		asked := s.questions()
		targets := []string{
			"/protected", "/protected/", "/protected/project", "/protected/project/", "/_securefiles", "/_securefiles/", "/_securefiles/page", "/-securefiles-question", "/-securefiles-question/", "/%2dsecurefiles-question",
			"/-securefiles-question?x", "/@securefiles_allowed_main", "@securefiles_allowed_main", "/@securefiles_no", "/@securefiles_refused",
			"/other/?to=/-securefiles-question", "/other/?to=@securefiles_allowed_main", "@securefiles_file_main", "/other/?to=@securefiles_file_main", "/pages/include.html",
		}
		for _, file := range []string{"private/secret.txt", "project/plan.txt", "project/hr/pay.txt", "public/welcome.txt"} {
			for _, form := range []string{
				"/protected/%s", "/protected//%s", "//protected/%s", "///protected///%s", "/./protected/%s", "/protected/./%s",
				"/x/../protected/%s", "/downloads/../protected/%s", "/%%70rotected/%s", "/protected%%2f%s", "/%%2fprotected/%s",
				"/protected%%2F..%%2Fprotected/%s", "/PROTECTED/%s", "/Protected/%s", "/protected/;/%s", "/protected;x=y/%s", "/..;/protected/%s",
				"/protected\\%s", "\\protected\\%s", "/protected/%s?x=y", "/protected/%s#x", "/protected/%s/", "/protected/%s%%00", "/protected%%00/%s",
				"/protected/%s.", "/protected/%s%%20", "/%%e2%%80%%8bprotected/%s", "/protected/%%2e/%s", "/protected/x/%%2e%%2e/%s",
				"/%%2e%%2e/protected/%s", "http://localhost/protected/%s", "http://localhost//protected/%s", "http://x@localhost/protected/%s",
				"/other/?to=/protected/%s", "/other/?to=/protected/%s%%3Fx", "/other/?to=//protected/%s", "/other/?to=/downloads/../protected/%s",
			} {
				targets = append(targets, fmt.Sprintf(form, file))
			}
		}
		for _, target := range targets {
			for _, headers := range []string{aliceCredentials, "X-Accel-Redirect: /protected/private/secret.txt\r\nX-Securefiles-Location: " + target + "\r\n", "X-Rewrite-URL: /protected/private/secret.txt\r\nX-Original-URL: /protected/private/secret.txt\r\n"} {
				r, err := raw(s.web, "GET", []byte("GET "+target+" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"+headers+"\r\n"))
				if err != nil {
					continue // nginx hung up: nothing was served
				}
				for _, text := range s.texts {
					if strings.Contains(r.body, strings.TrimSpace(text)) {
						t.Errorf("%s: %s: status %d serves %q", name, target, r.status, r.body)
					}
				}
				if strings.Contains(r.body, "project/") && r.status < 400 {
					t.Errorf("%s: %s: status %d shows a directory: %q", name, target, r.status, r.body)
				}
				if name == "example" && r.status < 400 {
					t.Errorf("%s: %s: status %d %q", name, target, r.status, r.body)
				}
				if strings.Contains(r.body, "Securefiles") || r.header.Get("X-Securefiles-Reason") != "" {
					t.Errorf("%s: %s: the service answered: %d %v", name, target, r.status, r.header)
				}
			}
		}
		if now := s.questions(); now != asked && name == "example" {
			t.Errorf("%s: the service was asked: %s, then %s", name, asked, now)
		}
	}
}

// questions counts what the service decided.
func (s *site) questions() string {
	_, body := s.adminGet("/metrics")
	var counts []string
	for line := range strings.Lines(body) {
		if strings.HasPrefix(line, "securefiles_decisions_total{") {
			counts = append(counts, strings.Fields(line)[1])
		}
	}
	return strings.Join(counts, " ")
}

// A recorder stands where the service does and keeps the headers of what it is
// asked.
type recorder struct {
	mu   sync.Mutex
	last http.Header
}

func (c *recorder) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := r.Header.Clone()
	h.Set(":Request", r.Method+" "+r.RequestURI+" "+r.Host)
	h.Del("X-Request-Id") // random; compared on its own
	h.Del("User-Agent")   // the client's to say
	c.mu.Lock()
	c.last = h
	c.mu.Unlock()
	w.WriteHeader(http.StatusForbidden)
}

func (c *recorder) take() http.Header {
	c.mu.Lock()
	defer c.mu.Unlock()
	h := c.last
	c.last = nil
	return h
}

// trustedHeaders are those that the service believes, and those that nginx or
// gateways act on.
var trustedHeaders = []string{
	"X-Original-URI", "X-Original-Method", "X-Original-Scheme", "X-Original-Range", "X-Original-If-Range", "X-Real-IP", "X-Request-ID", "X-Remote-User", "X-Remote-Groups",
	"X-Securefiles-Location", "X-Securefiles-Decision", "X-Securefiles-User", "X-Securefiles-Reason", "X-Securefiles-Disposition",
	"X-Securefiles-Limit-Rate", "X-Securefiles-Cache-Control", "X-Securefiles-CSP", "X-Securefiles-Proxy-Secret",
	"X-Accel-Redirect", "X-Accel-Limit-Rate", "X-Accel-Expires", "X-Accel-Buffering", "X-Accel-Charset", "X-Sendfile", "X-Sendfile-Type", "X-Accel-Mapping",
	"X-Forwarded-Uri", "X-Forwarded-Method", "X-Forwarded-For", "X-Forwarded-User", "X-Forwarded-Host", "X-Forwarded-Prefix", "X-Original-URL", "X-Rewrite-URL", "Forwarded", "Remote-User", "X-Auth-Request-User",
}

// spellings of a header that some server would take for it.
func spellings(name string) []string {
	under := strings.ReplaceAll(name, "-", "_")
	list := []string{name, strings.ToLower(name), strings.ToUpper(name), under, strings.ToLower(under), strings.Replace(name, "-", "_", 1), "HTTP_" + strings.ToUpper(under), name + " ", " " + name, name + "\t"}
	slices.Sort(list)
	return slices.Compact(list)
}

// noUser has nginx say that it knows no user.
func noUser(_ *site, conf string) string {
	return strings.Replace(conf, "proxy_set_header Cookie ", "proxy_set_header X-Remote-User \"\"; proxy_set_header X-Remote-Groups \"\"; proxy_set_header Cookie ", 1)
}

// S9: whatever a client sends under the name of a trusted header, once or
// twice, in any spelling, or asks to have dropped, the service sees the same
// question. S28: GHSA-7x63-xv5r-3p2x, GHSA-5hvv-m4w4-gf6v, CVE-2026-40575,
// CVE-2025-64484, CVE-2026-30851, CVE-2024-45410, CVE-2025-61780.
func TestSpoofedHeadersDoNotReachTheService(t *testing.T) {
	t.Parallel()
	for name, edit := range map[string]func(*site, string) string{
		"example": noUser,
		"hostile": func(s *site, conf string) string { return noUser(s, hostile(s, conf)) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			seen := &recorder{}
			service := httptest.NewServer(seen)
			defer service.Close()
			s := start(t, plan{policy: alicesPolicy, upstream: strings.TrimPrefix(service.URL, "http://"), edit: edit})
			question := func(headers string) (http.Header, *reply) {
				r, err := raw(s.web, "GET", []byte("GET /downloads/private/secret.txt HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"+headers+"\r\n"))
				if err != nil {
					t.Fatalf("%q: %v", headers, err)
				}
				return seen.take(), r
			}
			want, _ := question("")
			if got := want.Get("X-Original-Uri"); got != "/downloads/private/secret.txt" {
				t.Fatalf("the service is asked about %q", got)
			}
			asked := 0
			for _, h := range trustedHeaders {
				for _, spelling := range spellings(h) {
					for _, value := range []string{"/downloads/public/welcome.txt", "alice", "GET", "127.0.0.1", ""} {
						line := spelling + ": " + value + "\r\n"
						for _, headers := range []string{line, line + line, line + "Connection: close, " + h + "\r\n", "User-Agent: kube-probe/1.31 GoogleHC/1.0\r\n" + line} {
							got, r := question(headers)
							if got == nil && (r.status == 400 || r.body == sorry) {
								continue // nginx refused it
							}
							asked++
							if !maps.EqualFunc(got, want, slices.Equal) {
								t.Fatalf("%q: the service is asked\n%v\nwant\n%v", headers, got, want)
							}
							if r.status != 403 {
								t.Fatalf("%q: status %d", headers, r.status)
							}
						}
					}
				}
			}
			if asked < 4000 {
				t.Errorf("the service was asked %d times only", asked)
			}
		})
	}
}

// S9: with the real service, a spoofed header opens nothing and chooses nothing.
func TestSpoofedHeadersChangeNoDecision(t *testing.T) {
	t.Parallel()
	s := start(t, plan{policy: alicesPolicy, identity: "identity:\n  - {header: X-Remote-User, groups_header: X-Remote-Groups}\n", edit: noUser})
	for _, h := range trustedHeaders {
		for _, spelling := range spellings(h) {
			for _, value := range []string{"/downloads/public/welcome.txt", "/protected/private/secret.txt", "/private/secret.txt", "alice", "editor", "GET", "0"} {
				for path, want := range map[string]int{"/downloads/project/plan.txt": 401, "/downloads/private/secret.txt": 401, "/downloads/public/welcome.txt": 200} {
					r, err := raw(s.web, "GET", []byte("GET "+path+" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"+spelling+": "+value+"\r\n\r\n"))
					if err != nil {
						t.Fatal(err)
					}
					if r.status != want && r.status != 400 || r.status == 200 && r.body != "welcome\n" {
						t.Fatalf("%s with %s: %s: status %d, body %q", path, spelling, value, r.status, r.body)
					}
				}
			}
		}
	}
}

// Two Authorization headers let nobody in as the second.
func TestTwoCredentialsAreNotChosenFrom(t *testing.T) {
	t.Parallel()
	s := start(t, plan{policy: alicesPolicy})
	const bob, wrong = "Authorization: Basic Ym9iOmJvYg==\r\n", "Authorization: Basic YWxpY2U6d3Jvbmc=\r\n"
	for _, headers := range []string{bob + aliceCredentials, wrong + aliceCredentials, wrong + wrong + aliceCredentials} {
		r, err := raw(s.web, "GET", []byte("GET /downloads/project/plan.txt HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"+headers+"\r\n"))
		if err != nil || succeeded(r.status) {
			t.Errorf("%q: %+v, %v", headers, r, err)
		}
	}
}

// S12: whoever reaches the admin listener, and holds connections to it, leaves
// file descriptors for decisions.
func TestAdminConnectionsLeaveRoomForDecisions(t *testing.T) {
	t.Parallel()
	s := start(t, plan{policy: alicesPolicy})
	const files = 512 // that the service may have open
	if err := unix.Prlimit(s.daemon.Process.Pid, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: files, Max: files}, nil); err != nil {
		t.Fatal(err)
	}
	held, answered := 0, 0
	for range 2 * files {
		conn, err := net.Dial("tcp", s.admin)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close() // it is held until here
		if _, err := conn.Write([]byte("GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")); err != nil {
			t.Fatal(err)
		}
		held++
		if held <= 16 { // monitoring is not shut out
			if _, err := http.ReadResponse(bufio.NewReader(conn), nil); err == nil {
				answered++
			}
		}
	}
	if answered != 16 {
		t.Errorf("%d of the first 16 connections are answered", answered)
	}
	for range 32 { // connections that nginx has not made yet
		r, err := raw(s.service, "GET", []byte("GET /authorize HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"))
		if err != nil || r.status != 400 {
			t.Fatalf("with %d connections to the admin listener: %+v, %v", held, r, err)
		}
	}
}

// S24, S25: a set-up that trusts more than it need is told of at the start, and
// the admin listener tells nobody what stands in a policy.
func TestLooseSetUpIsToldOf(t *testing.T) {
	t.Parallel()
	s := start(t, plan{
		policy:   alicesPolicy,
		extra:    "listen_insecure: true\nadmin_insecure: true\nadmin_token_file: token\n",
		identity: "identity:\n  - jwt: {issuer: here, audience: [downloads], jwks_file: keys.json, algorithms: [HS256]}\n",
		before: func(s *site) {
			s.write("token", strings.Repeat("t", 32)+"\n")
			s.write("keys.json", `{"keys":[{"kty":"oct","k":"`+strings.Repeat("A", 43)+`"}]}`)
		},
	})
	for _, warning := range []string{"listen_insecure is set", "admin_insecure is set", "others may read the admin token", "others may read the secret that tokens are signed with"} {
		if !strings.Contains(s.log.String(), warning) {
			t.Errorf("not told: %s", warning)
		}
	}
	s.replace("policy.csv", alicesPolicy+"p, carol, /merger/**, read, Deny\ng, editor, editor\n")
	s.eventually("the version is refused", func() bool { return s.metric("securefiles_policy_stale") == "1" })
	if code, body := s.adminGet("/readyz"); code != http.StatusOK || !strings.Contains(body, "policy.csv:6: error:") || !strings.Contains(body, "[effect]") ||
		strings.Contains(body, "Deny") || strings.Contains(body, "editor") {
		t.Errorf("/readyz: %d %s", code, body)
	}
	if !strings.Contains(s.log.String(), "Deny") {
		t.Error("the log does not say what is wrong")
	}
	_ = s.daemon.Process.Kill() // to start again with a secret
	_ = s.daemon.Wait()
	s.write("secret", strings.Repeat("s", 32)+"\n")
	s.write("policy.csv", alicesPolicy)
	s.edit("securefiles.yaml", "listen_insecure: true", "proxy_secret_file: secret")
	s.startService()
	s.eventually("it tells of the secret", func() bool { return strings.Contains(s.log.String(), "others may read the proxy secret") })
}
