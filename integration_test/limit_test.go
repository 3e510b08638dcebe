package integration_test

import (
	"net/http"
	"testing"
	"time"
)

// Who has taken all that there is gets 429, when to come again and what is left; nobody
// else does.
func TestLimitOfRequests(t *testing.T) {
	t.Parallel()
	s := start(t, plan{printed: true, policy: "p, @anyone, /public/**, read, allow\np, @authenticated, /project/**, read, allow\n", extra: `limits:
  - {name: guests, of: [anonymous], per: subject, requests: 3/1h}
  - {name: users, of: ["@authenticated"], per: subject, requests: 2/1h}
  - {name: eyes, per: download, requests: 1/1h, mode: observe}
`})
	for i := range 3 {
		r := s.status("", "/downloads/public/welcome.txt", 200)
		if got, want := r.header.Get("RateLimit"), []string{`"guests";r=2;t=1200`, `"guests";r=1;t=2400`, `"guests";r=0;t=3600`}[i]; i == 0 && got != want || i > 0 && len(got) < len(want) {
			t.Errorf("RateLimit: %q, want %q", got, want)
		}
		if got := r.header.Get("RateLimit-Policy"); got != `"guests";q=3;w=3600` { // not of what refuses nothing
			t.Errorf("RateLimit-Policy: %q", got)
		}
	}
	r := s.status("", "/downloads/public/welcome.txt", 429)
	if r.header.Get("Retry-After") < "1100" || r.header.Get("RateLimit") == "" {
		t.Errorf("refused: %v", r.header)
	}
	// Another address makes no difference to whom nginx knows.
	s.status("", "/downloads/public/welcome.txt", 429, with("X-Forwarded-For", "192.0.2.1"), with("X-Real-IP", "192.0.2.1"), with("Forwarded", "for=192.0.2.1"), with("X-Request-Id", "other"))
	s.status("alice", "/downloads/public/welcome.txt", 200)
	s.status("alice", "/downloads/private/secret.txt", 404) // takes nothing
	s.status("alice", "/downloads/private/secret.txt", 404)
	s.status("alice", "/downloads/public/welcome.txt", 200, func(r *http.Request) { r.Method = "HEAD" })
	s.status("alice", "/downloads/public/welcome.txt", 429)
	s.status("bob", "/downloads/public/welcome.txt", 200)
	if got := s.metric(`securefiles_limits_total{limit="guests",result="refused"}`); got != "2" {
		t.Errorf("refused: %s", got)
	}
	if got := s.metric(`securefiles_decisions_total{decision="deny",download="main",reason="rate"}`); got != "3" {
		t.Errorf("decisions: %s", got)
	}
}

// What is per address, for everybody, is asked before a password costs anything.
func TestEarlyLimitComesBeforePasswords(t *testing.T) {
	t.Parallel()
	s := start(t, plan{printed: true, policy: alicesPolicy, extra: "limits: [{name: all, per: address, requests: 2/1h}]\n"})
	wrong := func(r *http.Request) { r.SetBasicAuth("alice", "guess") }
	s.status("", "/downloads/project/plan.txt", 401, wrong)
	s.status("", "/downloads/project/plan.txt", 401, wrong)
	s.status("", "/downloads/project/plan.txt", 429, wrong)
	s.status("alice", "/downloads/project/plan.txt", 429)
	if got := s.metric(`securefiles_identity_total{result="refused",source="htpasswd"}`); got != "2" {
		t.Errorf("passwords that were checked: %s", got)
	}
}

// nginx sends no faster than a limit says, after the first second's worth.
func TestLimitOfRate(t *testing.T) {
	t.Parallel()
	large := make([]byte, 300_000)
	s := start(t, plan{printed: true, policy: alicesPolicy, files: map[string]string{"public/large.bin": string(large)},
		extra: "limits: [{name: slow, per: subject, rate: 100kB/s}]\n"})
	begin := time.Now()
	if r := s.status("", "/downloads/public/large.bin", 200); len(r.body) != len(large) {
		t.Errorf("%d bytes", len(r.body))
	}
	if took := time.Since(begin); took < 1500*time.Millisecond {
		t.Errorf("300 kB at 100 kB a second in %s", took)
	}
}
