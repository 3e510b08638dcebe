package integration_test

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const sharing = `
p, editor, /project/**, read, allow
p, editor, /project/**, share, allow
p, @link, /project/hr/**, read, deny
g, alice, editor
`

// withLinks is a site where links are made.
func withLinks(t *testing.T, p plan) *site {
	t.Helper()
	p.extra += "links: {keys_file: link-keys.json}\n"
	if p.policy == "" {
		p.policy = sharing
	}
	before := p.before
	p.before = func(s *site) {
		s.run(0, "link", "key", "new")
		if before != nil {
			before(s)
		}
	}
	return start(t, p)
}

// run runs a command about the site, and returns what it prints.
func (s *site) run(status int, args ...string) string {
	s.t.Helper()
	cmd := s.command(binary, append(args, "--config", filepath.Join(s.dir, "securefiles.yaml"))...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if cmd.ProcessState == nil || cmd.ProcessState.ExitCode() != status {
		s.t.Fatalf("securefiles %s: %v\n%s%s", strings.Join(args, " "), err, out, stderr.String())
	}
	return strings.TrimSpace(string(out))
}

// Whoever has a link gets its file, by the policy of who made it, and nothing else.
func TestLinkOpensItsFile(t *testing.T) {
	t.Parallel()
	s := withLinks(t, plan{printed: true})
	link := s.run(0, "link", "create", "/project/plan.txt", "--as", "alice", "--filename", "Plan – neu.txt", "--rate", "1MiB")
	_, query, _ := strings.Cut(link, "?")

	r := s.status("", link, 200)
	if r.body != s.texts["project/plan.txt"] || !strings.Contains(r.header.Get("Content-Disposition"), "Plan%20%E2%80%93%20neu.txt") {
		t.Errorf("%q, %v", r.body, r.header)
	}
	s.status("", link, 200, func(r *http.Request) { r.Method = "HEAD" })
	if r := s.status("", link, 206, with("Range", "bytes=2-4")); r.body != "234" {
		t.Errorf("a range: %q", r.body)
	}
	s.status("", link+"&utm_source=mail", 200)
	s.status("alice", link, 200)                                                        // needs none
	s.status("bob", link, 200)                                                          // may not have it by himself
	s.status("", link, 200, func(r *http.Request) { r.SetBasicAuth("alice", "wrong") }) // nor who has a wrong password
	s.status("", "/downloads/project/page.html?"+query, 403)                            // another file
	s.status("", "/downloads/project/plan.txt", 401)                                    // no link
	s.status("", link[:len(link)-2]+"AA", 403)                                          // another signature
	s.status("", link+"&"+query, 403)                                                   // twice
	s.status("", strings.Replace(link, "?link=", "?l%69nk=", 1), 401)                   // another name
	s.status("", "/downloads/project/../project/plan.txt?"+query, 400)                  // no canonical path

	if asked := s.run(0, "link", "show", link); !strings.Contains(asked, "now:        yes") {
		t.Errorf("link show: %s", asked)
	}

	// Of a link, the log has its id alone.
	token := strings.TrimPrefix(query, "link=")
	if strings.Contains(s.log.String(), token[len(token)-20:]) {
		t.Error("the service's log holds the link")
	}

	// What policy takes from its maker ends it; so does its key.
	s.replace("policy.csv", strings.Replace(sharing, "g, alice, editor", "g, carol, editor", 1))
	s.eventually("the link of who has lost the role", func() bool { return s.get("", link).status == 404 })
	s.run(1, "link", "show", link)
	s.replace("policy.csv", sharing)
	s.eventually("the link of who has it again", func() bool { return s.get("", link).status == 200 })
	old, err := os.ReadFile(filepath.Join(s.dir, "link-keys.json"))
	if err != nil {
		t.Fatal(err)
	}
	s.run(0, "link", "key", "new")
	young := s.run(0, "link", "create", "/project/plan.txt", "--as", "alice")
	s.eventually("a link of a key that was added", func() bool { return s.get("", young).status == 200 })
	s.status("", link, 200)
	var both, first struct {
		Keys []json.RawMessage `json:"keys"`
	}
	text, err := os.ReadFile(filepath.Join(s.dir, "link-keys.json"))
	if err != nil {
		t.Fatal(err)
	}
	if json.Unmarshal(text, &both) != nil || json.Unmarshal(old, &first) != nil || len(both.Keys) != 2 || len(first.Keys) != 1 {
		t.Fatalf("keys: %s", text)
	}
	both.Keys = both.Keys[1:]
	if text, err = json.Marshal(both); err != nil {
		t.Fatal(err)
	}
	s.replace("link-keys.json", string(text))
	s.eventually("a link whose key is gone", func() bool { return s.get("", link).status == 403 })
	s.status("", young, 200)
}

// A link can be for all below a directory, for networks, and for somebody, and never
// opens what policy keeps links out of.
func TestLinkOpensNoMoreThanItNames(t *testing.T) {
	t.Parallel()
	s := withLinks(t, plan{printed: true})
	below := s.run(0, "link", "create", "/project/", "--as", "alice")
	s.status("", "/downloads/project/plan.txt"+below, 200)
	s.status("", "/downloads/project/sub/index.html"+below, 200)
	s.status("", "/downloads/project/hr/pay.txt"+below, 404) // the policy keeps links out
	s.status("alice", "/downloads/project/hr/pay.txt"+below, 200)
	s.status("", "/downloads/public/welcome.txt"+below, 403)

	s.status("", s.run(0, "link", "create", "/project/plan.txt", "--as", "alice", "--network", "127.0.0.0/8"), 200)
	elsewhere := s.run(0, "link", "create", "/project/plan.txt", "--as", "alice", "--network", "192.0.2.0/24")
	s.status("", elsewhere, 403, with("X-Forwarded-For", "192.0.2.1"), with("X-Real-IP", "192.0.2.1"))

	forBob := s.run(0, "link", "create", "/project/plan.txt", "--as", "alice", "--recipient", "bob")
	s.status("bob", forBob, 200)
	s.status("carol", forBob, 401)
	s.status("", forBob, 401)
	s.status("alice", forBob, 200) // by herself

	s.run(2, "link", "create", "/project/plan.txt", "--as", "bob") // may not share
	s.run(2, "link", "create", "/project/plan.txt", "--as", "alice", "--ttl", "30d")
}
