package integration_test

import (
	"cmp"
	"net"
	"net/http"
	"strings"
	"sync"
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
					out, err := s.command(binary, "nginx", "--proof", "--config", "securefiles.yaml").Output()
					if err != nil {
						t.Fatal(err)
					}
					s.write("securefiles-proof.conf", string(out))
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
			first := "" // the id of another request
			squat(t, s.service, func(w http.ResponseWriter, r *http.Request) {
				mu.Lock()
				defer mu.Unlock()
				first = cmp.Or(first, r.Header.Get("X-Request-ID"))
				h := w.Header()
				h.Set("X-Securefiles-Location", "/protected/private/secret.txt")
				h.Set("X-Securefiles-Reason", "policy")
				h.Set("Location", "https://evil.example/")
				switch r.Header.Get("X-Original-URI") {
				case "/downloads/none":
				case "/downloads/one":
					h.Set("X-Securefiles-Proof", "1")
				case "/downloads/other":
					h.Set("X-Securefiles-Proof", proof(first, "204", "policy", "", "/protected/private/secret.txt"))
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

// provedAfterANewSecret changes the secret on both sides.
func (s *site) provedAfterANewSecret(t *testing.T) {
	t.Helper()
	s.replace("proof", "fedcba9876543210fedcba9876543210\n")
	s.eventually("answers by the new secret are not believed by the old", func() bool {
		return s.get("alice", "/downloads/project/plan.txt").status == 503
	})
	out, err := s.command(binary, "nginx", "--proof", "--config", "securefiles.yaml").Output()
	if err != nil {
		t.Fatal(err)
	}
	s.write("securefiles-proof.conf", string(out))
	if err := s.nginx.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	s.eventually("nginx has the new secret", func() bool {
		return s.get("alice", "/downloads/project/plan.txt").status == 200
	})
}
