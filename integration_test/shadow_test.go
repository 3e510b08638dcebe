package integration_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Decisions are made again by stock Casbin, which finds no difference; a chain of
// roles that is too long is told of when the policy loads.
func TestShadowDecisions(t *testing.T) {
	t.Parallel()
	var policy strings.Builder
	policy.WriteString(alicesPolicy)
	for i := range 12 {
		fmt.Fprintf(&policy, "g, c%d, c%d\n", i, i+1)
	}
	policy.WriteString("p, c12, /public/**, read, allow\n")
	s := start(t, plan{policy: policy.String(), before: func(s *site) {
		file := filepath.Join(s.dir, "securefiles.yaml")
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		s.write("securefiles.yaml", strings.Replace(string(text), "policy: {file: policy.csv", "policy: {shadow_share: 1, file: policy.csv", 1))
	}})
	same := func() string { return s.metric(`securefiles_policy_shadow_decisions_total{result="same"}`) }
	for i := range 5 {
		for _, user := range []string{"", "alice", "bob"} {
			s.get(user, "/downloads/project/plan.txt")
			s.get(user, "/downloads/project/hr/pay.txt")
		}
		s.eventually("decisions are made again", func() bool {
			n := same()
			return n != "0" && n != ""
		})
		if i == 2 { // another version, another stock enforcer
			s.replace("policy.csv", policy.String()+"p, bob, /project/**, read, allow\n")
			s.eventually("the new policy is served", func() bool { return s.metric("securefiles_policy_generation") == "2" })
		}
	}
	if n := s.metric("securefiles_policy_shadow_mismatches_total"); n != "0" {
		t.Errorf("%s mismatches:\n%s", n, s.log.String())
	}
	if n := s.metric(`securefiles_policy_shadow_decisions_total{result="failed"}`); n != "0" {
		t.Errorf("%s failed:\n%s", n, s.log.String())
	}
	if log := s.log.String(); !strings.Contains(log, "a chain of roles is longer than is followed") || !strings.Contains(log, `"roles":12,"followed":10`) {
		t.Errorf("nothing tells of the long chain:\n%s", log)
	}
}
