package integration_test

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A policy that a request can use to hold a core: the decision is given up, nginx
// gets 503 and sends no byte, the log names the line, and whoever asks for
// something else is answered as ever.
func TestSlowPolicyHoldsNoCore(t *testing.T) {
	t.Parallel()
	var policy strings.Builder
	policy.WriteString("p, alice, ^/public/, read\np, bob, ^/project/plan.txt$, read\n")
	for i := range 60 { // each would take tens of milliseconds on a long path
		fmt.Fprintf(&policy, "p, alice, \"([a-z/]{0,1000}){1}[a-z/]{0,1000}x%d$\", read\n", i)
	}
	s := start(t, plan{policy: policy.String(), before: func(s *site) {
		s.write("model.conf", "[request_definition]\nr = sub, obj, act\n[policy_definition]\np = sub, obj, act\n[policy_effect]\ne = some(where (p.eft == allow))\n"+
			"[matchers]\nm = r.sub == p.sub && regexMatch(r.obj, p.obj) && r.act == p.act\n")
		file := filepath.Join(s.dir, "securefiles.yaml")
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		s.write("securefiles.yaml", strings.Replace(string(text), "policy: {file: policy.csv", "policy: {model: model.conf, decision_timeout: 50ms, file: policy.csv", 1))
	}})
	const late = `securefiles_decisions_total{decision="deny",download="main",reason="unavailable"}`
	before := s.metric(late)
	long := "/downloads/" + strings.Repeat("ab/", 1300) + "f"
	r := s.status("alice", long, http.StatusServiceUnavailable)
	if r.header.Get("Retry-After") == "" {
		t.Errorf("nothing says when to try again: %v", r.header)
	}
	if after := s.metric(late); after == before || after == "0" {
		t.Errorf("it is not counted: %q, %q before", after, before)
	}
	s.eventually("the log names the line", func() bool {
		log := s.log.String()
		return strings.Contains(log, "given up after 50ms at line ") && strings.Contains(log, "of 60 lines looked at")
	})
	s.status("alice", "/downloads/public/welcome.txt", http.StatusOK)
	s.status("bob", "/downloads/project/plan.txt", http.StatusOK)
	s.status("bob", long, http.StatusNotFound)
}
