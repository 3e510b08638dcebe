package integration_test

import (
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"securefiles/internal/audit"
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

// adminToken opens the admin listener of a site that keeps links.
const linkToken = "0123456789abcdef0123456789abcdef"

// keepingLinks is a site that keeps what links are used for.
func keepingLinks(t *testing.T) *site {
	t.Helper()
	return withLinks(t, plan{printed: true, extra: "state: {file: state.db}\nadmin_token_file: token\n", before: func(s *site) { s.write("token", linkToken) }})
}

// form sends what a page asks, as a browser does.
func (s *site) form(client *http.Client, link, password string, edit ...func(*http.Request)) reply {
	s.t.Helper()
	body := url.Values{"url": {link}, "password": {password}}.Encode()
	req, err := http.NewRequestWithContext(s.t.Context(), http.MethodPost, "http://"+s.web+"/_securefiles/link", strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Sec-Fetch-Site", "same-origin")
	for _, e := range edit {
		e(req)
	}
	r, err := do(client, req)
	if err != nil {
		s.t.Fatal(err)
	}
	return r
}

// cookieOf returns the cookie that an answer sets.
func cookieOf(r reply) func(*http.Request) {
	name, _, _ := strings.Cut(r.header.Get("Set-Cookie"), ";")
	return with("Cookie", name)
}

// A counted link is a page first, which previews and scanners use nothing up of; whoever
// confirms it downloads once, in as many requests as it takes.
func TestCountedLinkIsOneDownload(t *testing.T) {
	t.Parallel()
	s := keepingLinks(t)
	link := s.run(0, "link", "create", "/project/plan.txt", "--as", "alice", "--uses", "1")
	for range 3 {
		r := s.status("", link, 403, with("Accept-Language", "de-DE,de;q=0.9,en;q=0.5"))
		if !strings.Contains(r.body, `<html lang="de">`) || !strings.Contains(r.body, "plan.txt") || !strings.Contains(r.body, ">1</dd>") {
			t.Fatalf("the page: %s", r.body)
		}
		if r.header.Get("Referrer-Policy") != "no-referrer" || r.header.Get("Cache-Control") != "no-store" || !strings.Contains(r.header.Get("Content-Security-Policy"), "default-src 'none'") {
			t.Errorf("headers of the page: %v", r.header)
		}
	}
	s.status("", link, 403, with("Range", "bytes=0-32767"), with("Accept", "*/*")) // a preview
	s.status("", link, 403, func(r *http.Request) { r.Method = "HEAD" })           // a scanner
	s.status("alice", link, 200)                                                   // by herself
	if r := s.form(newClient(), link, "", with("Sec-Fetch-Site", "cross-site"), with("Origin", "https://evil.example")); r.status != 403 || r.header.Get("Set-Cookie") != "" {
		t.Errorf("another site's form: %d %v", r.status, r.header)
	}
	if r := s.form(newClient(), "/downloads/project/page.html?"+strings.SplitN(link, "?", 2)[1], ""); r.status != 403 {
		t.Errorf("for another file: %d", r.status)
	}
	if r := s.status("", "/_securefiles/link", 405); r.header.Get("Allow") != "POST" {
		t.Errorf("GET: %v", r.header)
	}
	s.status("", "/_securefiles/page", 404)

	r := s.form(newClient(), link, "")
	if r.status != 303 || r.header.Get("Location") != link || !strings.Contains(r.header.Get("Set-Cookie"), "HttpOnly") {
		t.Fatalf("confirmed: %d %v", r.status, r.header)
	}
	mine := cookieOf(r)
	second := cookieOf(s.form(newClient(), link, ""))
	s.status("", link, 206, mine, with("Range", "bytes=0-3"))
	s.status("", link, 206, mine, with("Range", "bytes=4-"))
	s.status("", link, 200, mine)
	if r := s.status("", link, 410, second); !strings.Contains(r.body, "This link has been used up") || strings.Contains(r.body, "plan.txt") {
		t.Errorf("a second person: %s", r.body)
	}
	s.status("", link, 410)
	s.status("", link+"&direct=1", 410)
	if list := s.run(0, "link", "list"); !strings.Contains(list, "1 of 1") {
		t.Errorf("link list: %s", list)
	}
	if shown := s.run(1, "link", "show", link); !strings.Contains(shown, "downloads:  1 of 1") || !strings.Contains(shown, "now:        no: used-up") {
		t.Errorf("link show: %s", shown)
	}

	// It stays used when the service is killed, and when a copy takes the place of the file.
	s.run(0, "state", "backup", "copy.db")
	s.run(2, "state", "backup", "copy.db") // it is there already
	s.run(2, "state", "accept")
	end(s.daemon)
	if err := os.Rename(filepath.Join(s.dir, "copy.db"), filepath.Join(s.dir, "state.db")); err != nil {
		t.Fatal(err)
	}
	s.startService()
	s.status("", link, 410)
	s.status("", link, 200, mine)
}

// A template of one's own is shown by nginx, and read again; one that makes no page leaves
// the one before where it is.
func TestPageOfLinksOfOnesOwn(t *testing.T) {
	t.Parallel()
	const page = `<h1>Acme: {{.Title}}</h1>{{.Problem}}{{if .Action}}<form method="post" action="{{.Action}}"><input name="url" value="{{.URL}}">{{if .Password}}<input name="password">{{end}}</form>{{end}}{{.Link}}`
	s := start(t, plan{printed: true, policy: sharing, extra: "links: {keys_file: link-keys.json, template: link.html}\nstate: {file: state.db}\nadmin_token_file: token\n", before: func(s *site) {
		s.write("token", linkToken)
		s.write("link.html", page)
		s.run(0, "link", "key", "new")
	}})
	link := s.run(0, "link", "create", "/project/plan.txt", "--as", "alice", "--uses", "1")
	if r := s.status("", link, 403); !strings.Contains(r.body, "<h1>Acme: Download a file</h1>") || !strings.Contains(r.header.Get("Content-Security-Policy"), "default-src 'none'") {
		t.Errorf("%s %v", r.body, r.header)
	}
	if r := s.form(newClient(), "/nowhere", ""); !strings.Contains(r.body, "<h1>Acme: This link cannot be opened</h1>") || r.header.Get("Referrer-Policy") != "no-referrer" || r.header.Get("Cache-Control") != "no-store" {
		t.Errorf("a form that cannot be answered: %s %v", r.body, r.header)
	}
	s.replace("link.html", strings.Replace(page, "Acme", "Example", 1))
	s.eventually("the new page", func() bool { return strings.Contains(s.get("", link).body, "<h1>Example: ") })
	s.replace("link.html", "\n{{.Nope}}")
	s.eventually("the log tells of the wrong one", func() bool { return strings.Contains(s.log.String(), "link.html:2: ") })
	if r := s.status("", link, 403); !strings.Contains(r.body, "<h1>Example: ") {
		t.Errorf("after a wrong one: %s", r.body)
	}
}

func TestLinkForPrograms(t *testing.T) {
	t.Parallel()
	s := keepingLinks(t)
	link := s.run(0, "link", "create", "/project/plan.txt", "--as", "alice", "--uses", "2") + "&direct=1"
	s.status("", link, 200, func(r *http.Request) { r.Method = "HEAD" })
	s.status("", link, 200)
	s.status("", link, 206, with("Range", "bytes=5-"))
	// An If-Range without a value names no file, so all of it is sent (RFC 9110 section
	// 13.1.5); nginx does not tell the service of it, which is a byte more than the range.
	if r := s.status("", link, 200, with("Range", "bytes=1-"), with("If-Range", "")); r.body != s.texts["project/plan.txt"] {
		t.Errorf("with an empty If-Range: %q", r.body)
	}
	s.status("", link, 200)
	s.status("", link, 410)
	s.status("", link, 410, with("Range", "bytes=0-"), with("If-Range", ""))
}

func TestLinkWithAPasswordThroughNginx(t *testing.T) {
	t.Parallel()
	s := keepingLinks(t)
	cmd := s.command(binary, "link", "create", "/project/plan.txt", "--as", "alice", "--password", "--config", filepath.Join(s.dir, "securefiles.yaml"))
	cmd.Stdin = strings.NewReader("correct horse\n")
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	link := strings.TrimSpace(string(out))
	if r := s.status("", link, 403); !strings.Contains(r.body, `type="password"`) {
		t.Errorf("the page: %s", r.body)
	}
	s.status("", link+"&direct=1", 403)
	if r := s.form(newClient(), link, "wrong"); r.status != 403 || r.header.Get("Set-Cookie") != "" || !strings.Contains(r.body, "not the password") {
		t.Errorf("a wrong one: %d %s", r.status, r.body)
	}
	r := s.form(newClient(), link, "correct horse")
	if r.status != 303 {
		t.Fatalf("the right one: %d %s", r.status, r.body)
	}
	s.status("", link, 200, cookieOf(r))
	s.status("", link, 403)
	answers := map[int]int{}
	for i := range 50 { // whatever address they claim to come from
		claimed := fmt.Sprintf("198.51.100.%d", i)
		answers[s.form(newClient(), link, "wrong", with("X-Real-IP", claimed), with("X-Forwarded-For", claimed), with("Forwarded", "for="+claimed)).status]++
	}
	if answers[403] != 8 || answers[429] != 42 { // two were tried before
		t.Errorf("50 wrong ones: %v", answers)
	}
	if r := s.form(newClient(), link, "correct horse"); r.status != 429 {
		t.Errorf("the right one after that: %d", r.status)
	}
	s.status("", link, 200, cookieOf(r)) // who has given it before
	key := regexp.MustCompile(`password/\S+/127\.0\.0\.1`).FindString(s.run(0, "state", "list", "password/"))
	s.run(0, "state", "reset", key)
	if r := s.form(newClient(), link, "correct horse"); r.status != 303 {
		t.Errorf("after %q was reset: %d", key, r.status)
	}
	if strings.Contains(s.log.String(), "correct horse") {
		t.Error("the log holds the password")
	}
}

// dropping is a network that hands a question on, and loses the answer.
func dropping(t *testing.T, to string) (address string) {
	t.Helper()
	address, before := lossy(t)
	before <- lossyNetwork{service: to, happens: func() {}}
	return address
}

// nginx that hears no answer asks again: that is the same use.
func TestNginxAskingAgainIsOneUse(t *testing.T) {
	t.Parallel()
	s := start(t, plan{printed: true, policy: sharing, extra: "links: {keys_file: link-keys.json}\nstate: {file: state.db}\nadmin_token_file: token\n",
		before: func(s *site) {
			s.write("token", linkToken)
			s.run(0, "link", "key", "new")
		},
		edit: func(s *site, conf string) string {
			return strings.Replace(conf, "server "+s.service+" max_conns=512;", "server "+dropping(t, s.service)+"; server "+s.service+" backup;", 1)
		}})
	link := s.run(0, "link", "create", "/project/plan.txt", "--as", "alice", "--uses", "1") + "&direct=1"
	if r := s.status("", link, 200); r.body != s.texts["project/plan.txt"] {
		t.Errorf("%q", r.body)
	}
	s.status("", link, 410)
	if n := s.metric(`securefiles_decisions_total{decision="allow",download="main",reason="policy"}`); n != "2" {
		t.Errorf("the service was asked %s times about the first request, not twice", n)
	}
}

// However the service is killed while many want the one use that there is, one of them has
// it, or nobody whose answer was lost.
func TestUsedLinkStaysUsedWhenTheServiceIsKilled(t *testing.T) {
	t.Parallel()
	kills := 5
	if text := os.Getenv("SECUREFILES_LINK_KILLS"); text != "" {
		kills = must(strconv.Atoi(text))
	}
	s := keepingLinks(t)
	lost, before := 0, 0
	client := newClient()
	for range kills {
		link := s.run(0, "link", "create", "/project/plan.txt", "--as", "alice", "--uses", "1") + "&direct=1"
		var served atomic.Int64
		race := func(group *sync.WaitGroup) {
			for range 20 {
				group.Go(func() {
					if r, err := s.try(client, "", link); err == nil && r.status == http.StatusOK {
						served.Add(1)
					}
				})
			}
		}
		var group sync.WaitGroup
		race(&group)
		time.Sleep(time.Duration(rand.IntN(30_000)) * time.Microsecond) // a random moment is what is tested
		end(s.daemon)
		group.Wait()
		if served.Load() > 0 {
			before++
		}
		s.startService()
		race(&group)
		group.Wait()
		s.status("", link, 410)
		switch served.Load() {
		case 0:
			lost++
		case 1:
		default:
			t.Errorf("%d downloads of a link that is good for one", served.Load())
		}
	}
	t.Logf("%d kills: the use was had before in %d, after in %d, and its answer lost in %d", kills, before, kills-before-lost, lost)
}

// linkedPlan is a site that keeps links, and a record of what was delivered.
func linkedPlan(files map[string]string) plan {
	p := deliveredPlan("", files)
	p.policy = sharing
	p.extra += "links: {keys_file: link-keys.json}\nstate: {file: state.db}\nadmin_token_file: token\n"
	logs := p.before
	p.before = func(s *site) {
		logs(s)
		s.write("token", linkToken)
		s.run(0, "link", "key", "new")
	}
	return p
}

// Why a link does not open has a status, and a reason that metrics and the record name, with
// the link's id where there is one.
func TestEachReasonOfALinkIsRecorded(t *testing.T) {
	t.Parallel()
	s := start(t, linkedPlan(nil))
	type made struct{ ID, URL string }
	create := func(more ...string) (m made) {
		t.Helper()
		if err := json.Unmarshal([]byte(s.run(0, append([]string{"link", "create", "/project/plan.txt", "--as", "alice", "--json"}, more...)...)), &m); err != nil {
			t.Fatal(err)
		}
		return m
	}
	once := create("--uses", "1")
	s.status("", once.URL+"&direct=1", 200)
	revoked := create()
	s.run(0, "link", "revoke", revoked.ID)
	forged := create().URL
	expired := create("--ttl", "1s")
	s.eventually("a link expires", func() bool { return s.get("", expired.URL).status == 410 })
	for _, row := range []struct {
		reason string
		link   made
		status int
	}{
		{"expired", expired, 410}, {"used-up", once, 410}, {"revoked", revoked, 410}, {"confirm", create("--uses", "1"), 403},
		{"network", create("--network", "192.0.2.0/24"), 403}, {"not-yet", create("--not-before", time.Now().Add(time.Hour).Format(time.RFC3339)), 403},
		{"recipient", create("--recipient", "carol"), 403}, {"signature", made{"", forged[:len(forged)-3] + "AAA"}, 403},
	} {
		id := s.status("bob", row.link.URL, row.status).header.Get("X-Request-Id")
		if s.metric(fmt.Sprintf(`securefiles_decisions_total{decision="deny",download="main",reason=%q}`, row.reason)) == "" {
			t.Errorf("%s: no metric counts it", row.reason)
		}
		all, _ := s.records("audit.jsonl")
		i := slices.IndexFunc(all, func(r *audit.Record) bool { return r.Request == id && r.Type == audit.TypeDecision })
		if i < 0 || all[i].Reason != row.reason || all[i].Link != row.link.ID || all[i].Status != row.status {
			t.Errorf("%s is recorded as %+v", row.reason, all[max(0, i)])
		}
	}
}

// No log and no metric holds a link, but for nginx's error log where something went wrong.
func TestNoLogHoldsALink(t *testing.T) {
	t.Parallel()
	p := linkedPlan(nil)
	ready := p.before
	p.before = func(s *site) {
		ready(s)
		s.edit("securefiles.yaml", "level: info", "level: debug")
	}
	p.edit = func(_ *site, conf string) string {
		return strings.Replace(conf, "logs/error.log warn", "logs/error.log alert", 1)
	}
	s := start(t, p)
	var links []string
	for _, more := range [][]string{{}, {"--uses", "1"}, {"--recipient", "bob"}, {"--network", "192.0.2.0/24"}} {
		links = append(links, s.run(0, append([]string{"link", "create", "/project/plan.txt", "--as", "alice"}, more...)...))
	}
	links = append(links, s.run(0, "link", "create", "/project/none.txt", "--as", "alice"), links[0][:len(links[0])-3]+"AAA", links[0]+"&"+strings.SplitN(links[0], "?", 2)[1])
	var last reply
	for _, link := range links {
		last = s.get("", link)
		s.get("bob", link)
		s.get("", link, with("Range", "bytes=0-1"))
		s.get("", link+"&direct=1")
		s.form(newClient(), link, "")
	}
	s.delivered(s.status("", links[0], 200).header.Get("X-Request-Id"))
	_, metrics := s.adminGet("/metrics")
	if err := os.Chmod(filepath.Join(s.root, "project/plan.txt"), 0); err != nil {
		t.Fatal(err)
	}
	s.get("", links[0]) // nginx may not read it
	end(s.daemon)
	s.status("", links[0], 503)
	all := map[string]string{"the service's log": s.log.String(), "its metrics": metrics, "an error page": last.body}
	for _, name := range []string{"audit.jsonl", "logs/deliveries.log", "logs/error.log"} {
		all[name] = string(must(os.ReadFile(filepath.Join(s.dir, name))))
	}
	for name, text := range all {
		for _, link := range links {
			_, token, _ := strings.Cut(link, "?link=")
			if signature := token[strings.LastIndexByte(token, '.')+1:]; strings.Contains(text, signature) {
				t.Errorf("%s holds a link", name)
			}
		}
	}
	if !strings.Contains(all["audit.jsonl"], "link.id") || all["logs/deliveries.log"] == "" || !strings.Contains(all["the service's log"], "decision") {
		t.Error("nothing was logged")
	}
}

func TestLinksAreRevoked(t *testing.T) {
	t.Parallel()
	s := keepingLinks(t)
	var made struct{ URL, ID string }
	if err := json.Unmarshal([]byte(s.run(0, "link", "create", "/project/plan.txt", "--as", "alice", "--json")), &made); err != nil {
		t.Fatal(err)
	}
	other := s.run(0, "link", "create", "/project/page.html", "--as", "alice")
	s.status("", made.URL, 200)
	s.run(0, "link", "revoke", made.ID)
	if r := s.status("", made.URL, 410); !strings.Contains(r.body, "This link was withdrawn") {
		t.Errorf("the page: %s", r.body)
	}
	if shown := s.run(1, "link", "show", made.URL); !strings.Contains(shown, "now:        no: revoked") {
		t.Errorf("link show: %s", shown)
	}
	pasted := s.run(0, "link", "create", "/project/plan.txt", "--as", "alice")
	s.status("", pasted, 200)
	s.run(0, "link", "revoke", pasted)
	s.status("", pasted, 410)
	s.status("", other, 200)
	s.run(2, "link", "revoke", other+"x")
	s.status("", other, 200)
	s.run(0, "link", "revoke", "--path", "/project/")
	s.status("", other, 410)
	end(s.daemon)
	s.startService()
	s.status("", made.URL, 410)
	s.run(2, "link", "revoke")
	s.run(2, "link", "revoke", made.ID, "--subject", "alice")
}

// Links that were revoked with others have ended, whether or not anybody came with them;
// `link show` tells it as serving would, and that is no visit. What is made after the command
// opens.
func TestLinksAreRevokedThatNobodyCameWith(t *testing.T) {
	t.Parallel()
	s := keepingLinks(t)
	made := func(path string) string {
		t.Helper()
		return s.run(0, "link", "create", path, "--as", "alice")
	}
	bySubject, byPath := made("/project/plan.txt"), made("/project/page.html")
	key := regexp.MustCompile(`added key (\S+)`).FindStringSubmatch(s.run(0, "link", "key", "new"))
	if key == nil {
		t.Fatal("the key has no id")
	}
	byKey := made("/project/plan.txt")
	open := []string{bySubject, byPath, byKey}
	for _, end := range [][]string{{"--key", key[1]}, {"--path", "/project/page.html"}, {"--subject", "alice"}} {
		for _, link := range open {
			if shown := s.run(0, "link", "show", link); !strings.Contains(shown, "now:        yes") {
				t.Errorf("before %s: %s", end, shown)
			}
		}
		s.run(0, append([]string{"link", "revoke"}, end...)...)
		ended := open[len(open)-1]
		if shown := s.run(1, "link", "show", ended); !strings.Contains(shown, "now:        no: revoked: ") {
			t.Errorf("after %s: %s", end, shown)
		}
		open = open[:len(open)-1]
	}
	if list := s.run(1, "link", "list"); list != "" { // it exits 1 where there is none
		t.Errorf("to look at a link is a visit: %s", list)
	}
	after := made("/project/plan.txt")
	if shown := s.run(0, "link", "show", after); !strings.Contains(shown, "now:        yes") {
		t.Errorf("made after: %s", shown)
	}
	s.eventually("the service has read the key", func() bool { return s.get("", after).status == 200 })
	for _, link := range []string{bySubject, byPath, byKey} {
		s.status("", link, 410)
	}
}

// The lines of a program that docs/links.md shows are those of one that
// TestApplicationsMakeLinks runs, and it names each of these.
func TestThePagesProgramsAreTheExamples(t *testing.T) {
	t.Parallel()
	_, sections := page(t, "links.md")
	text := sections["Specification, version 1"]
	blocks := regexp.MustCompile("(?ms)^```(\\w+)\n(.*?)^```$").FindAllStringSubmatch(text, -1)
	programs := map[string]string{"python": "link.py", "js": "link.mjs", "php": "link.php", "go": "link.go"}
	for _, block := range blocks {
		program, err := os.ReadFile(filepath.Join("../examples/links", programs[block[1]]))
		if err != nil {
			t.Fatalf("a block of %s, of which there is no example: %v", block[1], err)
		}
		if !strings.Contains(string(program), block[2]) {
			t.Errorf("examples/links/%s has other lines than\n%s", programs[block[1]], block[2])
		}
	}
	if len(blocks) == 0 {
		t.Error("the page shows no program")
	}
	for _, program := range programs {
		if !strings.Contains(text, "(../examples/links/"+program+")") {
			t.Errorf("the page does not name examples/links/%s", program)
		}
	}
}

// What makes links in an application, in each language with its usual library.
func TestApplicationsMakeLinks(t *testing.T) {
	t.Parallel()
	files := someFiles()
	files["project/Plan ü 100%.txt"] = "another\n"
	s := withLinks(t, plan{printed: true, files: files})
	modules := filepath.Join(s.dir, "node")
	examples, err := filepath.Abs("../examples/links")
	if err != nil {
		t.Fatal(err)
	}
	script, err := os.ReadFile(filepath.Join(examples, "link.mjs"))
	if err != nil {
		t.Fatal(err)
	}
	s.write("node/link.mjs", string(script))
	secret, err := os.ReadFile(filepath.Join(s.dir, "link-keys.json"))
	if err != nil {
		t.Fatal(err)
	}
	s.write("secret.json", string(secret)) // what PHP has without a library
	s.run(0, "link", "key", "new", "--algorithm", "EdDSA")
	young := s.run(0, "link", "create", "/project/plan.txt", "--as", "alice")
	s.eventually("a link of a key that was added", func() bool { return s.get("", young).status == 200 })
	for _, example := range []struct {
		name    string
		prepare []string // what it needs, if that may not be there
		command []string
		keys    []string
	}{
		{"Python", []string{debianPython, "-c", "import jwt, cryptography"}, []string{debianPython, filepath.Join(examples, "link.py")}, []string{"secret.json", "link-keys.json"}},
		{"JavaScript", []string{"npm", "install", "--prefix", modules, "--no-audit", "--no-fund", "jose@6"}, []string{"node", filepath.Join(modules, "link.mjs")}, []string{"secret.json", "link-keys.json"}},
		{"PHP", []string{"php", "--version"}, []string{"php", filepath.Join(examples, "link.php")}, []string{"secret.json"}},
		{"Go", nil, []string{"go", "run", "../examples/links/link.go"}, []string{"secret.json", "link-keys.json"}},
	} {
		t.Run(example.name, func(t *testing.T) {
			if p := example.prepare; p != nil {
				if out, err := exec.CommandContext(t.Context(), p[0], p[1:]...).CombinedOutput(); err != nil {
					t.Skipf("%s is not here, so its example is NOT tested: %v\n%s", example.name, err, out)
				}
			}
			for _, keys := range example.keys {
				for file, body := range map[string]string{"/project/plan.txt": s.texts["project/plan.txt"], "/project/Plan ü 100%.txt": "another\n"} {
					args := append(example.command[1:], filepath.Join(s.dir, keys), "alice", file)
					cmd := exec.CommandContext(t.Context(), example.command[0], args...)
					var stderr strings.Builder
					cmd.Stderr = &stderr
					out, err := cmd.Output()
					if err != nil {
						t.Fatalf("%v\n%s", err, stderr.String())
					}
					link := strings.TrimSpace(string(out))
					if r := s.status("", link, 200); r.body != body {
						t.Errorf("%s opens %q", link, r.body)
					}
				}
			}
		})
	}
}

// Callers make links through nginx, whoever they are by the service's sources.
func TestLinksAreMadeByHTTP(t *testing.T) {
	t.Parallel()
	s := start(t, plan{
		printed: true, policy: sharing, extra: "links: {keys_file: link-keys.json, api: true}\nstate: {file: state.db}\nproxy_secret_file: secret\n",
		before: func(s *site) { s.run(0, "link", "key", "new"); s.write("secret", linkToken) },
		edit: func(s *site, conf string) string {
			s.write("securefiles-secret.conf", `proxy_set_header X-Securefiles-Proxy-Secret "`+linkToken+`";`)
			return conf
		},
	})
	ask := func(user, method, path, body string, edit ...func(*http.Request)) reply {
		t.Helper()
		return s.get(user, path, append(edit, func(r *http.Request) {
			r.Method, r.Body, r.ContentLength = method, io.NopCloser(strings.NewReader(body)), int64(len(body))
			if method == http.MethodPost {
				r.Header.Set("Content-Type", "application/json")
			}
		})...)
	}
	const body = `{"path":"/project/plan.txt","uses":1}`
	r := ask("alice", "POST", "/_securefiles/links", body)
	var made struct{ ID, URL, Direct string }
	if err := json.Unmarshal([]byte(r.body), &made); err != nil || r.status != 201 || r.header.Get("Location") != "/_securefiles/links/"+made.ID {
		t.Fatalf("made: %d %v %s %v", r.status, r.header, r.body, err)
	}
	s.status("", made.URL, 403) // its page
	s.status("", made.Direct, 200)
	s.status("", made.URL, 410)
	for name, c := range map[string]struct {
		got  reply
		want int
	}{
		"nobody":                   {ask("", "POST", "/_securefiles/links", body), 401},
		"by a link":                {ask("", "POST", "/_securefiles/links?"+strings.SplitN(made.URL, "?", 2)[1], body), 401},
		"with a wrong password":    {ask("", "POST", "/_securefiles/links", body, func(r *http.Request) { r.SetBasicAuth("alice", "no") }), 401},
		"who may not share":        {ask("bob", "POST", "/_securefiles/links", body), 403},
		"from another site's page": {ask("alice", "POST", "/_securefiles/links", body, with("Sec-Fetch-Site", "cross-site")), 403},
		"from another origin":      {ask("alice", "POST", "/_securefiles/links", body, with("Origin", "http://evil.example")), 403},
		"from this origin":         {ask("alice", "POST", "/_securefiles/links", body, with("Origin", "http://"+s.web)), 201},
		"by another method":        {ask("alice", "PATCH", "/_securefiles/links", body), 405},
		"too much":                 {ask("alice", "POST", "/_securefiles/links", strings.Repeat(" ", 20<<10)), 413},
		"another's":                {ask("bob", "DELETE", "/_securefiles/links/"+made.ID, ""), 404},
		"beside":                   {ask("alice", "DELETE", "/_securefiles/links/../authorize", ""), 404},
	} {
		if c.got.status != c.want {
			t.Errorf("%s: %d %s, want %d", name, c.got.status, c.got.body, c.want)
		}
	}
	if r := ask("alice", "GET", "/_securefiles/links", ""); r.status != 200 || !strings.Contains(r.body, made.ID) || r.header.Get("Cache-Control") != "no-store" {
		t.Errorf("alice's: %d %s", r.status, r.body)
	}
	if r := ask("bob", "GET", "/_securefiles/links", ""); r.body != "[]\n" {
		t.Errorf("bob's: %d %s", r.status, r.body)
	}
	any := ask("alice", "POST", "/_securefiles/links", `{"path":"/project/plan.txt"}`)
	if err := json.Unmarshal([]byte(any.body), &made); err != nil {
		t.Fatal(err)
	}
	s.status("", made.URL, 200)
	if r := ask("alice", "DELETE", "/_securefiles/links/"+made.ID, ""); r.status != 204 {
		t.Errorf("ended: %d %s", r.status, r.body)
	}
	s.status("", made.URL, 410)
	if strings.Contains(s.log.String(), strings.SplitN(made.URL, "?link=", 2)[1]) {
		t.Error("the log holds the link")
	}
}
