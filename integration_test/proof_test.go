package integration_test

import (
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// A squatter takes the service's port while it is down, and answers in its place.
func squat(t *testing.T, address string, answer http.HandlerFunc) {
	t.Helper()
	var l net.Listener
	for deadline := time.Now().Add(patience); ; {
		var err error
		if l, err = net.Listen("tcp", address); err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
		time.Sleep(time.Millisecond) // the service was killed just now
	}
	server := &http.Server{Handler: answer}
	go func() { _ = server.Serve(l) }() // until the test is over
	t.Cleanup(func() { _ = server.Close() })
}

// Whoever listens in the service's place while it is down is believed, unless the
// service proves its answers: then not one byte is served.
func TestAProcessThatTakesThePortOfTheServiceIsNotBelieved(t *testing.T) {
	t.Parallel()
	const secret = "0123456789abcdef0123456789abcdef"
	for name, proved := range map[string]bool{"proved": true, "not proved": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := plan{policy: alicesPolicy, printed: true}
			if proved {
				p.extra = "proof_secret_file: proof\n"
				p.before = func(s *site) {
					s.write("proof", secret+"\n")
					s.printProof()
				}
			}
			p.extra += "downloads: [{name: main, url: /downloads/, internal: /protected/, root: /var/www/securefiles}]\n"
			s := start(t, p)
			s.status("alice", "/downloads/project/plan.txt", 200)
			s.status("bob", "/downloads/project/plan.txt", 404)
			s.status("", "/downloads/project/plan.txt", 401)
			s.status("alice", "/downloads/project//plan.txt", 400)
			if proved {
				s.provedAfterANewSecret(t)
			}

			end(s.daemon)
			var mu sync.Mutex
			var first []string // what was asked by another request
			squat(t, s.service, func(w http.ResponseWriter, r *http.Request) {
				mu.Lock()
				defer mu.Unlock()
				if first == nil {
					first = []string{r.Header.Get("X-Request-ID"), r.Header.Get("X-Original-URI"), r.Header.Get("X-Real-IP"), r.Host}
				}
				h := w.Header()
				h.Set("X-Securefiles-Location", "/protected/private/secret.txt")
				h.Set("X-Securefiles-Reason", "policy")
				h.Set("Location", "https://evil.example/")
				switch r.Header.Get("X-Original-URI") {
				case "/downloads/none":
				case "/downloads/one":
					h.Set("X-Securefiles-Proof", "1")
				case "/downloads/other":
					h.Set("X-Securefiles-Proof", proof(secondSecret, first, "204", "policy", "", "", "/protected/private/secret.txt"))
				default:
					h.Set("X-Securefiles-Proof", "AAAAAAAAAAAAAAAAAAAAAA")
				}
				status := http.StatusNoContent
				if strings.HasSuffix(r.Header.Get("X-Original-URI"), "login") {
					status = http.StatusFound
				}
				w.WriteHeader(status)
			})
			for _, path := range []string{"/downloads/none", "/downloads/one", "/downloads/other", "/downloads/forged", "/downloads/login"} {
				r := s.get("alice", path)
				if proved && (r.status != 503 || strings.Contains(r.body, "CANARY") || r.header.Get("Location") != "") {
					t.Errorf("%s: a squatter was believed: %d %q %q", path, r.status, r.body, r.header.Get("Location"))
				}
				if !proved && path != "/downloads/login" && !strings.Contains(r.body, "CANARY") {
					t.Errorf("%s: the squatter has no effect, so this test shows nothing: %d %q", path, r.status, r.body)
				}
			}
		})
	}
}

// printProof writes nginx's file of the proof's secret.
func (s *site) printProof() {
	s.t.Helper()
	out, err := s.command(binary, "nginx", "--proof", "--config", "securefiles.yaml").Output()
	if err != nil {
		s.t.Fatal(err)
	}
	s.write("securefiles-proof.conf", string(out))
}

const secondSecret = "fedcba9876543210fedcba9876543210"

// provedAfterANewSecret changes the secret on both sides.
func (s *site) provedAfterANewSecret(t *testing.T) {
	t.Helper()
	s.replace("proof", secondSecret+"\n")
	s.eventually("answers by the new secret are not believed by the old", func() bool {
		return s.get("alice", "/downloads/project/plan.txt").status == 503
	})
	s.printProof()
	if err := s.nginx.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	s.eventually("nginx has the new secret", func() bool {
		return s.get("alice", "/downloads/project/plan.txt").status == 200
	})
}

// Whoever nginx asks in the service's place may ask the service in nginx's, or another
// instance of it: with the caller, address or target of their choice, they get a proof
// of an answer to another question. Nor can they change the answer, or add a page.
func TestAProofIsOfTheQuestionThatNginxPut(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var change [2]string
	s := start(t, plan{policy: alicesPolicy, printed: true,
		identity: "identity:\n  - {header: X-Remote-User, groups_header: X-Remote-Groups, groups: optional, nginx_value: $gateway_user}\n",
		extra:    "proof_secret_file: proof\ndownloads: [{name: main, url: /downloads/, internal: /protected/, root: /var/www/securefiles}]\n",
		before: func(s *site) {
			s.write("proof", strings.Repeat("p", 32)+"\n")
			s.printProof()
		},
		edit: func(s *site, conf string) string {
			between := httptest.NewServer(&httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
				mu.Lock()
				defer mu.Unlock()
				r.SetURL(&url.URL{Scheme: "http", Host: s.service})
				r.Out.Host = r.In.Host
				switch {
				case change[0] == "Host":
					r.Out.Host = change[1]
				case change[0] != "":
					r.Out.Header.Set(change[0], change[1])
				}
			}, ModifyResponse: func(r *http.Response) error {
				mu.Lock()
				defer mu.Unlock()
				if strings.HasPrefix(change[0], "X-Securefiles-") {
					r.Header.Set(change[0], change[1])
				}
				return nil
			}})
			t.Cleanup(between.Close)
			conf = strings.Replace(conf, "server_name localhost;", "server_name localhost; set $gateway_user bob;", 1)
			return strings.Replace(conf, "server "+s.service+" max_conns=512;", "server "+strings.TrimPrefix(between.URL, "http://")+";", 1)
		}})
	const private, public = "/downloads/project/plan.txt", "/downloads/public/welcome.txt"
	for _, row := range []struct {
		name, value, path string
		status            int
	}{
		{"", "", public, 200},
		{"", "", private, 404},
		{"X-Other", "x", public, 200},
		{"X-Remote-User", "alice", private, 503},
		{"X-Remote-Groups", "staff", public, 503},
		{"X-Real-IP", "192.0.2.1", public, 503},
		{"X-Original-URI", public, private, 503},
		{"X-Request-ID", strings.Repeat("0", 32), public, 503},
		{"Host", "other.example", public, 503},
		{"X-Securefiles-Page", "of one's own", private, 503},
		{"X-Securefiles-Location", "/protected/project/plan.txt", public, 503},
		{"X-Securefiles-Reason", "none", private, 503},
	} {
		mu.Lock()
		change = [2]string{row.name, row.value}
		mu.Unlock()
		if r := s.get("", row.path); r.status != row.status {
			t.Errorf("%s, %s: %q: status %d, want %d", row.path, row.name, row.value, r.status, row.status)
		}
	}
}

// localhost is 127.0.0.1 and ::1, and nginx asks each address that a name has. So the
// printed upstream has one peer, and whoever takes the same port of ::1 is never asked.
func TestAProcessOnTheOtherLoopbackAddressIsNotAsked(t *testing.T) {
	t.Parallel()
	s := start(t, plan{policy: alicesPolicy, printed: true,
		extra: "downloads: [{name: main, url: /downloads/, internal: /protected/, root: /var/www/securefiles}]\n"})
	_, port, err := net.SplitHostPort(s.service)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", net.JoinHostPort("::1", port))
	if err != nil {
		t.Skipf("this machine has no loopback of version 6, or the port is taken there: %v", err)
	}
	var asked atomic.Int32
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		w.Header().Set("X-Securefiles-Location", "/protected/private/secret.txt")
		w.WriteHeader(http.StatusNoContent)
	})}
	go func() { _ = server.Serve(l) }() // until the test is over
	t.Cleanup(func() { _ = server.Close() })
	for range 20 {
		if r := s.get("alice", "/downloads/project/plan.txt"); r.status != 200 || r.body != s.texts["project/plan.txt"] {
			t.Errorf("status %d %q", r.status, r.body)
		}
	}
	if n := asked.Load(); n > 0 {
		t.Errorf("the process on ::1 was asked %d times", n)
	}
	s.write("localhost.yaml", "listen: localhost:"+port+"\npolicy: {file: policy.csv}\n")
	out, err := s.command(binary, "nginx", "--config", "localhost.yaml").CombinedOutput()
	if err == nil || !strings.Contains(string(out), "can be two addresses") {
		t.Errorf("localhost is printed: %v %s", err, out)
	}
}
