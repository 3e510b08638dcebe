package policy_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"securefiles/policy"
)

// A store that follows another one counts its generations on, is the same version where
// nothing differs, and goes by what is served before it refuses.
func TestAStoreFollowsAnother(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) policy.Files {
		t.Helper()
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return policy.Files{Policy: file}
	}
	const begin = "p, @anyone, /public/**, read, allow\np, editor, /project/**, read, allow\ng, alice, editor\n"
	const whole = begin + "p, editor, /project/hr/**, read, deny\n"
	files := write("policy.csv", whole)
	first, err := policy.Open(t.Context(), files, nil)
	if err != nil {
		t.Fatal(err)
	}
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	also, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	last := first
	for _, row := range []struct {
		name       string
		source     policy.Files
		opts       policy.Options
		generation uint64
	}{
		{"nothing differs", files, policy.Options{}, 1},
		{"what may be lost differs", files, policy.Options{AllowShrink: true}, 1},
		{"the roles' depth differs", files, policy.Options{RoleDepth: 3}, 2},
		{"it does not", files, policy.Options{RoleDepth: 3}, 2},
		{"the zone differs", files, policy.Options{Zone: berlin}, 3},
		{"it does not, though found again", files, policy.Options{Zone: also}, 3},
		{"the time of a decision differs", files, policy.Options{DecisionTimeout: time.Second}, 4},
		{"another file of the same text", write("other.csv", whole), policy.Options{DecisionTimeout: time.Second}, 5},
		{"the first again", files, policy.Options{}, 6},
	} {
		next, err := last.Follow(t.Context(), row.source, &row.opts, false)
		if err != nil {
			t.Fatalf("%s: %v", row.name, err)
		}
		if got := next.Status(); got.Generation != row.generation || got.Lines != 4 || got.Stale {
			t.Errorf("%s: %+v", row.name, got)
		}
		if same := next.Version() == last.Version(); same != (row.generation == last.Status().Generation) {
			t.Errorf("%s: the same version: %t", row.name, same)
		}
		last = next
	}
	if s := first.Status(); s.Generation != 1 || s.Stale {
		t.Errorf("the first: %+v", s)
	}
	refused := func(what, rule string, source policy.Files, opts policy.Options) {
		t.Helper()
		_, err := last.Follow(t.Context(), source, &opts, false)
		var problem *policy.LoadError
		if !errors.As(err, &problem) || problem.Findings[len(problem.Findings)-1].Rule != rule {
			t.Errorf("%s: %v", what, err)
		}
		if s := last.Status(); s.Stale || s.Generation != 6 {
			t.Errorf("%s: the one before is %+v", what, s)
		}
	}
	refused("half is lost, in another file", "policy-shrunk", write("short.csv", "p, bob, /a, read, allow\n"), policy.Options{})
	refused("all is lost", "policy-empty", write("none.csv", "# nobody\n"), policy.Options{})
	write("policy.csv", begin)
	refused("the end of the file is cut", "policy-cut", files, policy.Options{RoleDepth: 5})
	confirmed, err := last.Follow(t.Context(), files, &policy.Options{RoleDepth: 5}, true)
	if err != nil || confirmed.Status().Generation != 7 || confirmed.Status().Lines != 3 {
		t.Errorf("somebody means it: %v, %+v", err, confirmed.Status())
	}
	meant, err := last.Follow(t.Context(), policy.Files{Policy: filepath.Join(dir, "short.csv")}, &policy.Options{AllowShrink: true}, false)
	if err != nil || meant.Status().Generation != 7 {
		t.Errorf("it may shrink: %v", err)
	}
	write("policy.csv", whole+strings.Repeat("p, bob, /x, read, allow\n", 1))
	if err := meant.Reload(t.Context()); err != nil || meant.Status().Generation != 7 {
		t.Errorf("the other file was loaded: %v, %+v", err, meant.Status())
	}
}
