package integration_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A loaded is what /readyz says of one thing that is loaded.
type loaded struct {
	Name       string
	Generation int
	Stale      bool
	Error      string
}

// loaded asks /readyz for all that is loaded, by name.
func (s *site) loaded() map[string]loaded {
	s.t.Helper()
	code, body := s.adminGet("/readyz")
	var answer struct{ Loaded []loaded }
	if err := json.Unmarshal([]byte(body), &answer); err != nil || code != http.StatusOK {
		s.t.Fatalf("/readyz: %d %v %s", code, err, body)
	}
	all := map[string]loaded{}
	for _, l := range answer.Loaded {
		all[l.Name] = l
	}
	return all
}

func (s *site) hangup() {
	s.t.Helper()
	if err := s.daemon.Process.Signal(syscall.SIGHUP); err != nil {
		s.t.Fatal(err)
	}
}

const (
	mallory = "mallory:$2y$04$nkim0fThe/Pn3GFBi5EmJOYgC4E8WURfewEgi9yzQ8ohnOhe6ggPm\n" // the password is alice
	hrFile  = "/downloads/project/hr/pay.txt"
)

// The table of descriptors is full while users without mallory are renamed into
// place: the change is not lost, mallory is out once there are descriptors again.
func TestChangeThatMeetsAFullDescriptorTableIsNotLost(t *testing.T) {
	t.Parallel()
	s := start(t, plan{policy: alicesPolicy, descriptors: 64, before: func(s *site) { s.write("users.htpasswd", cheapUsers+mallory) }})
	asMallory := func(r *http.Request) { r.SetBasicAuth("mallory", "alice") }
	s.status("", welcome, 200, asMallory)

	var held []net.Conn
	t.Cleanup(func() {
		for _, conn := range held {
			_ = conn.Close() // again, if all went well
		}
	})
	for range 100 {
		conn, err := net.Dial("tcp", s.service)
		if err != nil {
			t.Fatal(err)
		}
		held = append(held, conn)
	}
	const full = "too many open files"
	s.eventually("the table is full", func() bool { return strings.Contains(s.log.String(), "Accept error") })
	s.replace("users.htpasswd", cheapUsers)
	s.eventually("the change meets it", func() bool {
		return strings.Contains(s.log.String(), "users refused") && strings.Contains(s.log.String(), full)
	})
	for _, conn := range held {
		if err := conn.Close(); err != nil {
			t.Fatal(err)
		}
	}
	s.eventually("mallory is out", func() bool {
		r, err := s.try(newClient(), "", welcome, asMallory, once)
		return err == nil && r.status == http.StatusUnauthorized
	})
	if l := s.loaded()["users"]; l.Stale || l.Error != "" {
		t.Errorf("%+v", l)
	}
	if n := strings.Count(s.log.String(), "users refused"); n != 1 {
		t.Errorf("the same error was logged %d times", n)
	}
}

// A writer that pauses between an allow line and the deny line below it, for
// however long, is served no half: nobody gets what the deny line denies.
func TestPolicyThatIsBeingWrittenIsNotServed(t *testing.T) {
	t.Parallel()
	s := start(t, plan{policy: alicesPolicy})
	s.status("alice", plan1, 200)
	s.status("alice", hrFile, 404)
	client := newClient()
	defer client.CloseIdleConnections()
	generation := 1
	for _, pause := range []time.Duration{150 * time.Millisecond, 300 * time.Millisecond, time.Second, 2500 * time.Millisecond} {
		asked, got := 0, 0
		ask := func() {
			r, err := s.try(client, "alice", hrFile)
			if err != nil {
				t.Fatal(err)
			}
			asked++
			if r.status == http.StatusOK || strings.Contains(r.body, "CANARY") {
				got++
			}
		}
		// More lines than before: the new version is no cut of the old one.
		first := fmt.Sprintf("# after a pause of %v\np, @anyone, /public/**, read, allow\ng, alice, editor\np, editor, /project/**, read, allow\n", pause)
		f, err := os.OpenFile(filepath.Join(s.dir, "policy.csv"), os.O_WRONLY|os.O_TRUNC, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteString(first); err != nil {
			t.Fatal(err)
		}
		for end := time.Now().Add(pause); time.Now().Before(end); {
			s.hangup() // somebody else asks for all files: not for the half of one
			ask()
		}
		if _, err := f.WriteString("p, editor, /project/hr/**, read, deny\n"); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		generation++
		s.eventually("the whole is served", func() bool {
			ask()
			return s.metric("securefiles_policy_generation") != fmt.Sprint(generation-1)
		})
		ask()
		if n := s.metric("securefiles_policy_generation"); got != 0 || n != fmt.Sprint(generation) || asked < 10 {
			t.Errorf("a pause of %v: %d downloads of %d, generation %s, want %d", pause, got, asked, n, generation)
		}
	}
}

// A pipe in the place of a file keeps nobody waiting: each row says so, the last
// good version serves, and SIGHUP takes what is mended.
func TestPipeInTheFilesPlaceHangsNothing(t *testing.T) {
	t.Parallel()
	keys := fmt.Sprintf(`{"keys":[{"kty":"oct","k":%q}]}`, strings.Repeat("A", 43))
	model, err := os.ReadFile("../policy/internal/model/default_model.conf")
	if err != nil {
		t.Fatal(err)
	}
	files := []struct{ name, text, row string }{
		{"policy.csv", alicesPolicy, "policy"},
		{"model.conf", string(model), "policy"},
		{"users.htpasswd", cheapUsers, "users"},
		{"keys.json", keys, "keys"},
		{"ca.pem", pemOf("CERTIFICATE", newAuthority(t, "applications").cert.Raw), "certificates"},
		{"token", strings.Repeat("t", 32), "admin token"},
	}
	s := start(t, plan{
		policy: alicesPolicy,
		identity: "identity:\n  - htpasswd: users.htpasswd\n" +
			"  - jwt: {issuer: here, audience: [downloads], jwks_file: keys.json, algorithms: [HS256]}\n" +
			"  - session: {url: \"https://127.0.0.1:1/\", cookies: [id], ca_file: ca.pem}\n",
		extra: "admin_token_file: token\n",
		before: func(s *site) {
			for _, f := range files[1:] {
				s.write(f.name, f.text)
			}
			s.edit("securefiles.yaml", "policy: {file: policy.csv}", "policy: {file: policy.csv, model: model.conf}")
		},
	})
	for _, f := range files {
		pipe := filepath.Join(s.dir, f.name+".pipe")
		if err := errors.Join(syscall.Mkfifo(pipe, 0o600), os.Rename(pipe, filepath.Join(s.dir, f.name))); err != nil {
			t.Fatal(err)
		}
		s.hangup()
		s.eventually(f.row+" are stale for "+f.name, func() bool {
			l := s.loaded()[f.row]
			return l.Stale && strings.Contains(l.Error, "not a regular file") && s.metric(fmt.Sprintf(`securefiles_reload_stale{name=%q}`, f.row)) == "1"
		})
		s.status("alice", plan1, 200)
		s.status("alice", hrFile, 404)
		s.replace(f.name, f.text)
		s.hangup()
		s.eventually(f.row+" are mended", func() bool {
			return !s.loaded()[f.row].Stale && s.metric(fmt.Sprintf(`securefiles_reload_stale{name=%q}`, f.row)) == "0"
		})
		s.status("alice", plan1, 200)
	}
	for name, l := range s.loaded() {
		if l.Stale {
			t.Errorf("%s: %+v", name, l)
		}
	}
}

// The accounts of a users file that was removed go on, and everything shows it.
func TestRemovedUsersFileIsVisible(t *testing.T) {
	t.Parallel()
	s := start(t, plan{policy: alicesPolicy})
	file := filepath.Join(s.dir, "users.htpasswd")
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	s.eventually("the users are stale", func() bool { return s.metric(`securefiles_reload_stale{name="users"}`) == "1" })
	if l := s.loaded()["users"]; !l.Stale || !strings.Contains(l.Error, "no such file") || l.Generation == 0 {
		t.Errorf("%+v", l)
	}
	if !strings.Contains(s.log.String(), "users refused, the last good version goes on serving") {
		t.Error("the log does not tell")
	}
	s.status("alice", plan1, 200)
	if got := s.metric(`securefiles_reload_stale{name="policy"}`); got != "0" {
		t.Errorf("the policy is stale too: %q", got)
	}
	before := s.metric(`securefiles_reload_generation{name="users"}`)
	s.write("users.htpasswd", strings.Split(cheapUsers, "\n")[1]+"\n") // bob alone
	s.eventually("alice is out", func() bool { return s.get("alice", plan1, once).status == http.StatusUnauthorized })
	s.status("bob", welcome, 200)
	if after := s.metric(`securefiles_reload_generation{name="users"}`); after == before || s.metric(`securefiles_reload_stale{name="users"}`) != "0" {
		t.Errorf("generation %s, before %s", after, before)
	}
}

// A copy over the policy that ends before its deny line is held, visibly, until it
// grows or an operator says that it is meant.
func TestPolicyThatWasCutIsHeld(t *testing.T) {
	t.Parallel()
	const short = "p, @anyone, /public/**, read, allow\np, editor, /project/**, read, allow\n"
	const begin = short + "g, alice, editor\n"
	const whole = begin + "p, editor, /project/hr/**, read, deny\n"
	s := start(t, plan{policy: whole})
	s.status("alice", hrFile, 404)
	held := func() bool {
		return s.metric(`securefiles_reload_stale{name="policy"}`) == "1" && s.metric("securefiles_policy_stale") == "1"
	}
	s.write("policy.csv", begin)
	s.eventually("the cut is held", held)
	if l := s.loaded()["policy"]; !strings.Contains(l.Error, "[policy-cut]") || l.Generation != 1 {
		t.Errorf("%+v", l)
	}
	if !strings.Contains(s.log.String(), "without line 4 somebody would have more access; write the rest, or send SIGHUP if it is meant") {
		t.Error("the log does not say what to do")
	}
	s.status("alice", hrFile, 404)
	s.status("alice", plan1, 200)
	s.write("policy.csv", whole+"p, bob, /b, read, allow\n")
	s.eventually("it has grown", func() bool { return !held() && s.metric("securefiles_policy_generation") == "2" })
	s.status("alice", hrFile, 404)

	s.write("policy.csv", begin)
	s.eventually("the cut is held again", held)
	s.hangup()
	s.eventually("it is meant", func() bool { return !held() && s.metric("securefiles_policy_generation") == "3" })
	s.status("alice", hrFile, 200)

	// What only takes access away is taken.
	s.write("policy.csv", short)
	s.eventually("alice is out", func() bool { return s.get("alice", plan1, once).status == http.StatusNotFound })
}
