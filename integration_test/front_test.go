package integration_test

import (
	"net/http"
	"os"
	"strings"
	"testing"
)

// behind is the configuration of one download behind a front.
func behind(front string) string {
	return "downloads: [{name: main, url: /downloads/, internal: /protected/, root: /var/www/securefiles, front: " + front + "}]\n"
}

// classicPlan is a site whose nginx passes the download on.
func classicPlan(p plan) plan {
	p.printed = true
	p.extra = behind("classic") + p.extra
	return p
}

// fronts are the web servers that pass a download on, each with a plan of it.
var fronts = map[string]func(plan) plan{"classic": classicPlan}

// The corpus through every front: not one byte from elsewhere, and what must be served is.
func TestAttackCorpusThroughEveryFront(t *testing.T) {
	for name, fronted := range fronts {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := start(t, fronted(plan{policy: corpusPolicy, files: map[string]string{}}))
			contents := plantTree(t, s.dir)
			for _, a := range attacks(t) {
				s.attack(t, a, contents)
			}
		})
	}
}

// X-Accel-Redirect is obeyed of the service alone, and for what it names beside.
func TestClassicObeysTheServiceAlone(t *testing.T) {
	t.Parallel()
	other := serveApplication(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Accel-Redirect", "/protected/private/secret.txt")
		w.Header().Set("X-Securefiles-Location", "/protected/private/secret.txt")
		w.Header().Set("X-Securefiles-Reason", "policy")
	})
	for name, proof := range map[string]bool{"by its address": false, "by a proof": true} {
		p := plan{policy: alicesPolicy, edit: func(_ *site, conf string) string {
			return strings.Replace(conf, "location / { return 404; }", "location / { proxy_pass http://"+other+"; }", 1)
		}}
		if proof {
			p.extra = "proof_secret_file: proof\n"
			p.before = func(s *site) {
				s.write("proof", strings.Repeat("p", 32)+"\n")
				s.printProof()
			}
		}
		s := start(t, classicPlan(p))
		s.status("alice", "/downloads/project/plan.txt", 200)
		if r := s.get("alice", "/app"); r.status != 404 && r.status != 503 || strings.Contains(r.body, "CANARY") {
			t.Errorf("%s: another application sends a file: %d %q", name, r.status, r.body)
		}
		end(s.daemon)
		squat(t, s.service, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("X-Accel-Redirect", "/protected/private/secret.txt")
			w.Header().Set("X-Securefiles-Location", "/protected/"+strings.TrimPrefix(r.Header.Get("X-Original-URI"), "/downloads/"))
		})
		if r := s.get("alice", "/downloads/other.txt"); r.status < 400 || strings.Contains(r.body, "CANARY") {
			t.Errorf("%s: two locations are told: %d %q", name, r.status, r.body)
		}
		if r := s.get("alice", "/downloads/private/secret.txt"); proof && r.status != 503 || !proof && r.status != 200 {
			t.Errorf("%s: in the place of the service: %d %q", name, r.status, r.body)
		}
	}
}

func serveApplication(t *testing.T, answer http.HandlerFunc) string {
	t.Helper()
	address := freeAddress(t)
	squat(t, address, answer)
	return address
}

// Refused and missing look alike through every front.
func TestRefusedAndMissingLookAlikeThroughEveryFront(t *testing.T) {
	for name, fronted := range fronts {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := start(t, fronted(plan{policy: alicesPolicy}))
			if err := os.Symlink("plan.txt", s.root+"/project/link.txt"); err != nil {
				t.Fatal(err)
			}
			refused := s.get("alice", "/downloads/private/secret.txt")
			for _, path := range []string{"/downloads/private/none.txt", "/downloads/project/none.txt", "/downloads/project/sub", "/downloads/project/link.txt", "/downloads/project/plan.txt/x"} {
				missing := s.get("alice", path)
				for _, h := range []http.Header{refused.header, missing.header} {
					h.Del("Date")
					h.Del("X-Request-Id")
				}
				if refused.status != 404 || missing.status != 404 || refused.body != missing.body || !sameHeader(refused.header, missing.header) {
					t.Errorf("%s:\n%+v\n%+v", path, refused, missing)
				}
			}
		})
	}
}

func sameHeader(a, b http.Header) bool {
	if len(a) != len(b) {
		return false
	}
	for name := range a {
		if strings.Join(a[name], "|") != strings.Join(b[name], "|") {
			return false
		}
	}
	return true
}
