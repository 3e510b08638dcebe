package policy_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"securefiles/authz"
	"securefiles/policy"
	"securefiles/policy/internal/storetest"
	"securefiles/policy/internal/world"
	"securefiles/policy/lint"
)

// Whatever line is taken out of a policy, the rest is served at once: nobody keeps
// what was taken away because of what is left over.
func TestARevocationTakesEffect(t *testing.T) {
	const text = `p, editor, /docs/**, read, allow
p, chief, /plans/**, read, allow
p, intern, /docs/hr/**, read, deny
p, alice, /docs/pay/**, read, deny
p, bob, /docs/**, read, allow
g, alice, editor
g, alice, chief
g, carol, intern
g, carol, editor
g, deputy, chief
g, dave, deputy
`
	alice := world.Query("alice", "/plans/a")
	s, file := storetest.Open(t, text, nil)
	if got := storetest.Answer(t, s, alice); got != "allow g1:policy.csv:2" {
		t.Fatal(got)
	}
	lines := strings.SplitAfter(text, "\n")
	for i, line := range lines {
		if line == "" {
			continue
		}
		// As editors and deployments do it, so that it is no file cut short.
		next := filepath.Join(filepath.Dir(file), "next.csv")
		world.Write(t, next, strings.Join(lines[:i], "")+strings.Join(lines[i+1:], ""))
		if err := os.Rename(next, file); err != nil {
			t.Fatal(err)
		}
		for _, f := range lint.Check(t.Context(), policy.Files{Policy: file}, nil) {
			if f.Severity == policy.SeverityError {
				t.Errorf("without %q: %s", line, f)
			}
		}
		if err := s.Reload(t.Context()); err != nil {
			t.Errorf("without %q: %v", line, err)
			continue
		}
		d, err := s.Decide(t.Context(), alice)
		if kept := i != 1 && i != 6; err != nil || kept != (d.Effect == authz.Allow) {
			t.Errorf("without %q alice is answered %v, %v", line, d.Effect, err)
		}
	}
}

// Who takes the risk is served what stock Casbin would answer.
func TestARoleThatIsAGroupIsGivenWhereTheErrorIsTakenBack(t *testing.T) {
	s, _ := storetest.Open(t, `p, @staff, /docs/**, read, allow
p, anonymous, /public/**, read, allow
# securefiles:ignore role-name: she is one of them
g, alice, @staff
# securefiles:ignore role-name: she may have what strangers have
g, alice, anonymous
`, nil)
	for _, tt := range []struct {
		q    authz.Query
		want string
	}{
		{world.Query("alice", "/docs/a"), "allow g1:policy.csv:1"},
		{world.Query("alice", "/public/a"), "allow g1:policy.csv:2"},
		{world.Query("bob", "/docs/a"), "deny g1:-"},
		{world.Query(authz.Anonymous, "/public/a"), "allow g1:policy.csv:2"},
		{world.Query(authz.Anonymous, "/docs/a"), "deny g1:-"},
	} {
		if got := storetest.Answer(t, s, tt.q); got != tt.want {
			t.Errorf("%s %s: %s, want %s", tt.q.Principal.Subject, tt.q.Object, got, tt.want)
		}
	}
}
