package integration_test

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// A change of the policy takes effect without a restart, however it is made.
func TestPolicyChangeTakesEffect(t *testing.T) {
	t.Parallel()
	s := start(t, plan{policy: alicesPolicy})
	const path = "/downloads/project/plan.txt"
	s.status("bob", path, 404)
	withBob := alicesPolicy + "g, bob, editor\n"
	for _, change := range []struct {
		name string
		make func(policy string)
	}{
		{"an editor's rename", func(p string) { s.replace("policy.csv", p) }},
		{"truncate and write", func(p string) { s.write("policy.csv", p) }},
	} {
		change.make(withBob)
		s.eventually(change.name+" lets bob in", func() bool { return s.get("bob", path).status == 200 })
		change.make(alicesPolicy)
		s.eventually(change.name+" keeps bob out", func() bool { return s.get("bob", path).status == 404 })
	}
}

// A Kubernetes ConfigMap is a directory of links into a directory that a link
// names; an update swaps that one link.
func TestConfigMapSwapTakesEffect(t *testing.T) {
	t.Parallel()
	s := start(t, plan{policy: alicesPolicy, before: func(s *site) {
		s.write("map/..v1/policy.csv", alicesPolicy)
		s.write("map/..v2/policy.csv", alicesPolicy+"g, bob, editor\n")
		for link, target := range map[string]string{"map/..data": "..v1", "map/policy.csv": "..data/policy.csv"} {
			if err := os.Symlink(target, filepath.Join(s.dir, link)); err != nil {
				s.t.Fatal(err)
			}
		}
		config, err := os.ReadFile(filepath.Join(s.dir, "securefiles.yaml"))
		if err != nil {
			s.t.Fatal(err)
		}
		s.write("securefiles.yaml", strings.Replace(string(config), "policy.csv", "map/policy.csv", 1))
	}})
	const path = "/downloads/project/plan.txt"
	s.status("bob", path, 404)
	for _, step := range []struct {
		version string
		status  int
	}{{"..v2", 200}, {"..v1", 404}} {
		link := filepath.Join(s.dir, "map/..data")
		if err := os.Symlink(step.version, link+"_tmp"); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(link+"_tmp", link); err != nil {
			t.Fatal(err)
		}
		s.eventually(step.version+" is served", func() bool { return s.get("bob", path).status == step.status })
	}
}

// SIGHUP reads policy and users again, though no file has changed.
func TestHangupReloads(t *testing.T) {
	t.Parallel()
	s := start(t, plan{policy: alicesPolicy})
	refusals := func() string { return s.metric(`securefiles_policy_reloads_total{result="refused"}`) }
	s.write("policy.csv", "p, alice, /a, read, Deny\n")
	s.eventually("the change is refused", func() bool { return refusals() == "1" })
	loaded := strings.Count(s.log.String(), "users loaded")
	if err := s.daemon.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	s.eventually("it is refused again", func() bool { return refusals() == "2" })
	s.eventually("the users are read again", func() bool { return strings.Count(s.log.String(), "users loaded") > loaded })
}
