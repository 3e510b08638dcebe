package integration_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"securefiles/internal/freeport"
)

// S2, S3, S5, S6, S7, S28: every row of the corpus, without nginx.
func TestAttackCorpusDirect(t *testing.T) {
	t.Parallel()
	s := start(t, plan{policy: corpusPolicy, files: map[string]string{}, direct: true})
	contents := plantTree(t, s.dir)
	before := s.series()
	s.attackWith(t, contents, nil)
	if after := s.series(); after != before {
		t.Errorf("%d metric series became %d", before, after)
	}
}

// Direct mode answers as the snippet of nginx does: the same requests, the same statuses
// and headers.
func TestDirectAnswersAsNginxDoes(t *testing.T) {
	t.Parallel()
	const extra = "downloads: [{name: main, url: /downloads/, internal: /protected/, root: /var/www/securefiles, cors_origins: [https://app.example.org]}]\n"
	nginx := start(t, plan{policy: alicesPolicy, extra: extra, printed: true})
	direct := start(t, plan{policy: alicesPolicy, extra: extra, direct: true, before: func(s *site) {
		s.edit("securefiles.yaml", "/var/www/securefiles", s.root)
	}})
	stamp := time.Date(2024, 2, 3, 4, 5, 6, 0, time.UTC)
	for _, s := range []*site{nginx, direct} {
		for name := range someFiles() {
			if err := os.Chtimes(filepath.Join(s.root, name), stamp, stamp); err != nil {
				t.Fatal(err)
			}
		}
	}
	etag := nginx.get("alice", "/downloads/project/plan.txt").header.Get("ETag")
	method := func(m string) func(*http.Request) { return func(r *http.Request) { r.Method = m } }
	for _, row := range []struct {
		user, path string
		edit       []func(*http.Request)
	}{
		{"", "/downloads/public/welcome.txt", nil},
		{"alice", "/downloads/project/plan.txt", nil},
		{"alice", "/downloads/project/plan.txt?x=y", nil},
		{"alice", "/downloads/project/page.html", nil},
		{"alice", "/downloads/project/plan.txt", []func(*http.Request){method("HEAD")}},
		{"alice", "/downloads/project/plan.txt", []func(*http.Request){method("POST")}},
		{"alice", "/downloads/project/plan.txt", []func(*http.Request){method("OPTIONS"), with("Origin", "https://app.example.org")}},
		{"alice", "/downloads/project/plan.txt", []func(*http.Request){with("Origin", "https://app.example.org")}},
		{"alice", "/downloads/project/plan.txt", []func(*http.Request){with("Origin", "https://other.example.org")}},
		{"alice", "/downloads/project/plan.txt", []func(*http.Request){with("Sec-Fetch-Site", "cross-site"), with("Sec-Fetch-Mode", "no-cors")}},
		{"alice", "/downloads/project/plan.txt", []func(*http.Request){with("Sec-Fetch-Site", "cross-site"), with("Sec-Fetch-Mode", "navigate"), with("Sec-Fetch-Dest", "iframe")}},
		{"alice", "/downloads/project/plan.txt", []func(*http.Request){with("Sec-Fetch-Site", "cross-site"), with("Sec-Fetch-Mode", "navigate"), with("Sec-Fetch-Dest", "document")}},
		{"alice", "/downloads/project/plan.txt", []func(*http.Request){with("Range", "bytes=2-5")}},
		{"alice", "/downloads/project/plan.txt", []func(*http.Request){with("Range", "bytes=-3")}},
		{"alice", "/downloads/project/plan.txt", []func(*http.Request){with("Range", "bytes=100-")}},
		{"alice", "/downloads/project/plan.txt", []func(*http.Request){with("Range", "bytes=2-5"), with("If-Range", etag)}},
		{"alice", "/downloads/project/plan.txt", []func(*http.Request){with("Range", "bytes=2-5"), with("If-Range", `"other"`)}},
		{"alice", "/downloads/project/plan.txt", []func(*http.Request){with("If-None-Match", etag)}},
		{"alice", "/downloads/project/plan.txt", []func(*http.Request){with("If-Match", `"other"`)}},
		{"alice", "/downloads/project/plan.txt", []func(*http.Request){with("If-Modified-Since", stamp.Format(http.TimeFormat))}},
		{"alice", "/downloads/project/hr/pay.txt", nil},
		{"bob", "/downloads/project/plan.txt", nil},
		{"", "/downloads/project/plan.txt", nil},
		{"alice", "/downloads/project/none.txt", nil},
		{"alice", "/downloads/project/sub", nil},
		{"alice", "/downloads/project/sub/", nil},
		{"alice", "/downloads/project//plan.txt", nil},
		{"alice", "/downloads/project/%2e%2e/x", nil},
		{"alice", "/downloads/project/plan.txt", []func(*http.Request){func(r *http.Request) { r.SetBasicAuth("alice", "wrong") }}},
		{"alice", "/elsewhere", nil},
		{"alice", "/protected/project/plan.txt", nil},
		{"alice", "/authorize", nil},
		{"alice", "/page", nil},
		{"alice", "/_securefiles/links", nil},
		{"alice", "/_securefiles/link/../authorize", nil},
	} {
		want, got := nginx.get(row.user, row.path, row.edit...), direct.get(row.user, row.path, row.edit...)
		at := fmt.Sprintf("%s as %q, row %v", row.path, row.user, len(row.edit))
		if got.status != want.status {
			t.Errorf("%s: status %d, nginx says %d", at, got.status, want.status)
			continue
		}
		if got.status < 300 && got.body != want.body {
			t.Errorf("%s: body %q, nginx sends %q", at, got.body, want.body)
		}
		if !strings.HasPrefix(row.path, "/downloads/") {
			continue
		}
		for _, name := range []string{
			"Content-Disposition", "Cache-Control", "Content-Security-Policy", "X-Content-Type-Options", "Referrer-Policy", "Cross-Origin-Resource-Policy",
			"Etag", "Last-Modified", "Content-Range", "Accept-Ranges", "Www-Authenticate", "Allow", "Access-Control-Allow-Origin", "Access-Control-Allow-Methods", "Vary",
		} {
			switch {
			case got.status == 416, got.status == 412: // errors have no entity; which headers it would have had, net/http and nginx see in two ways
				continue
			case got.status == 206 && name == "Accept-Ranges", got.status == 304 && name == "Last-Modified": // RFC 9110, sections 14.3 and 15.4.5
				continue
			}
			if g, w := got.header.Get(name), want.header.Get(name); g != w {
				t.Errorf("%s: %d with %s: %q, nginx says %q", at, got.status, name, g, w)
			}
		}
		if len(got.header.Get("X-Request-Id")) != 32 {
			t.Errorf("%s: X-Request-ID %q", at, got.header.Get("X-Request-Id"))
		}
	}
}

// A client of direct mode says by no header who it is, whatever nginx would be believed.
func TestDirectBelievesNoHeader(t *testing.T) {
	t.Parallel()
	s := start(t, plan{policy: alicesPolicy, direct: true,
		identity: "identity:\n  - {header: X-Remote-User, nginx_value: $remote_user}\n  - certificate: {subject: cn}\n"})
	for _, header := range []string{"X-Remote-User", "X-Client-Subject", "X-Original-URI", "X-Securefiles-Location", "X-Original-Method"} {
		for _, value := range []string{"alice", "/downloads/public/welcome.txt"} {
			s.status("", "/downloads/project/plan.txt", 401, with(header, value), with("X-Client-Verify", "SUCCESS"), with("X-Ssl-Client-Verify", "SUCCESS"))
		}
	}
	if log := s.log.String(); strings.Count(log, "an identity source finds nobody in direct mode") != 2 {
		t.Error("the log does not say that two sources find nobody")
	}
}

// Another site's name that leads to this machine is none of its names.
func TestDirectAnswersForThisMachineAlone(t *testing.T) {
	t.Parallel()
	s := start(t, plan{policy: alicesPolicy, direct: true})
	for host, want := range map[string]int{
		"localhost": 200, "localhost:8080": 200, "127.0.0.1:1": 200, "[::1]:8080": 200, "files.localhost": 200, "evil.example.org": 421, "127.0.0.1.evil.example.org": 421, "192.0.2.1": 421,
	} {
		s.status("", "/downloads/public/welcome.txt", want, func(r *http.Request) { r.Host = host })
	}
}

// A public address needs a word, before anything listens.
func TestDirectRefusesAPublicAddress(t *testing.T) {
	t.Parallel()
	s := start(t, plan{policy: alicesPolicy, direct: true})
	for _, row := range []struct {
		args []string
		want string
	}{
		{[]string{"--direct", "--listen", "0.0.0.0:0"}, "--insecure-public"},
		{[]string{"--direct", "--listen", ":8080"}, "--insecure-public"},
		{[]string{"--direct", "--listen", "[::]:8080"}, "--insecure-public"},
		{[]string{"--direct", "--listen", "192.0.2.1:8080"}, "clear text"},
		{[]string{"--direct", "--listen", "files.example.org:8080"}, "--insecure-public"},
		{[]string{"--direct", "--listen", "8080"}, "127.0.0.1:8080"},
		{[]string{"--listen", "127.0.0.1:8080"}, "belong to --direct"},
		{[]string{"--insecure-public"}, "belong to --direct"},
	} {
		out, err := s.command(binary, append([]string{"serve", "--config", "securefiles.yaml"}, row.args...)...).CombinedOutput()
		exit := new(exec.ExitError)
		if !asExit(err, &exit) || exit.ExitCode() != 2 || !strings.Contains(string(out), row.want) {
			t.Errorf("%v: %v, %s; want exit 2 and %q", row.args, err, out, row.want)
		}
	}
}

func asExit(err error, exit **exec.ExitError) bool {
	e, ok := err.(*exec.ExitError)
	*exit = e
	return ok
}

// What direct mode delivers is recorded as what nginx does; a policy that changes counts.
func TestDirectRecordsWhatItDelivers(t *testing.T) {
	t.Parallel()
	s := start(t, plan{policy: alicesPolicy, direct: true, files: map[string]string{"public/big.bin": strings.Repeat("0123456789abcdef", 1<<20), "project/plan.txt": "0123456789\n", "project/slow.bin": strings.Repeat("x", 200<<10)},
		extra: "nginx: {delivery_log: DIR/delivery.log, access_log: off}\naudit: {file: DIR/audit.jsonl}\nlimits: [{name: slow, per: subject, rate: 100KiB/s}]\n",
		before: func(s *site) {
			text, err := os.ReadFile(filepath.Join(s.dir, "securefiles.yaml"))
			if err != nil {
				t.Fatal(err)
			}
			s.write("securefiles.yaml", strings.ReplaceAll(string(text), "DIR", s.dir))
		}})
	s.status("alice", "/downloads/project/plan.txt", 200)
	s.status("alice", "/downloads/project/plan.txt", 206, with("Range", "bytes=0-3"))
	s.status("alice", "/downloads/project/plan.txt", 200, func(r *http.Request) { r.Method = "HEAD" })
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+s.web+"/downloads/public/big.bin", nil)
	if err != nil {
		t.Fatal(err)
	}
	client := newClient()
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := resp.Body.Read(make([]byte, 100)); err != nil {
		t.Fatal(err)
	}
	if err := resp.Body.Close(); err != nil { // the client goes away
		t.Fatal(err)
	}
	begin := time.Now()
	s.status("alice", "/downloads/project/slow.bin", 200)
	if took := time.Since(begin); took < 900*time.Millisecond || took > slack {
		t.Errorf("200 KiB at 100 KiB/s took %s", took)
	}
	var got []string
	s.eventually("five deliveries are recorded", func() bool {
		text, err := os.ReadFile(filepath.Join(s.dir, "audit.jsonl"))
		if err != nil {
			t.Fatal(err)
		}
		got = nil
		for line := range bytes.Lines(text) {
			var r struct {
				Type     string `json:"type"`
				Delivery string `json:"delivery"`
			}
			if err := json.Unmarshal(line, &r); err != nil {
				t.Fatal(err)
			}
			if r.Type == "delivery" {
				got = append(got, r.Delivery)
			}
		}
		return len(got) == 5
	})
	t.Log(got)
	if strings.Join(got, " ") != "complete complete complete aborted complete" {
		t.Errorf("deliveries: %v", got)
	}
	s.write("policy.csv", alicesPolicy+"g, bob, editor\n")
	s.eventually("bob may", func() bool { return s.get("bob", "/downloads/project/plan.txt").status == 200 })
}

// The demo where there is no nginx: what it prints does what it says.
func TestDemoWithoutNginx(t *testing.T) {
	bin := t.TempDir() // all commands but nginx
	for _, dir := range []string{"/bin", "/usr/bin"} {
		commands, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range commands {
			if c.Name() != "nginx" {
				_ = os.Symlink(filepath.Join(dir, c.Name()), filepath.Join(bin, c.Name())) // the first one counts
			}
		}
	}
	tmp := publicDir(t)
	demo, out := startDemo(t, tmp, "PATH="+bin)
	defer end(demo)
	status := regexp.MustCompile(`# (\d{3})`)
	said, promised := "", 0
	for lines := bufio.NewScanner(out); lines.Scan() && !strings.HasPrefix(lines.Text(), "Press Ctrl-C"); {
		said += lines.Text() + "\n"
	}
	if !strings.Contains(said, "without nginx") {
		t.Fatalf("it says:\n%s", said)
	}
	for line := range strings.Lines(said) {
		command, isCommand := strings.CutPrefix(line, "  ")
		m := status.FindStringSubmatch(command)
		if !isCommand || m == nil && !strings.Contains(command, " link ") && !strings.Contains(command, ">>") {
			continue
		}
		text, err := exec.Command("bash", "-c", command).Output()
		if err != nil || m != nil && !strings.Contains(string(text), "HTTP/1.1 "+m[1]) {
			t.Errorf("%s: %v\n%s", command, err, text)
		}
		promised++
	}
	if promised < 9 {
		t.Errorf("%d commands were tried", promised)
	}
	if err := syscall.Kill(-demo.Process.Pid, syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	_ = demo.Wait() // how it ends is another test's
	nothingIsLeft(t, tmp)
}

// The first look of docs/get-started.md, as it stands there but for the port and where the
// service's admin listener is.
func TestTheFirstLookWithoutNginx(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../docs/get-started.md")
	if err != nil {
		t.Fatal(err)
	}
	_, commands, ok := strings.Cut(string(text), "<!-- skip: TestTheFirstLookWithoutNginx does it -->\n```sh\n")
	commands, _, end := strings.Cut(commands, "```")
	web, admin := freeport.Address(t), freeport.Address(t)
	if !ok || !end || strings.Count(commands, "serve --direct") != 1 {
		t.Fatal("docs/get-started.md has other commands")
	}
	commands = strings.Replace(commands, "serve --direct", "serve --direct --listen "+web, 1)
	s := &site{t: t, dir: t.TempDir(), web: web, admin: admin, log: &logBuffer{}}
	cmd := s.command("bash", "-ec", commands)
	cmd.Env = append(os.Environ(), "PATH="+filepath.Dir(binary)+":"+os.Getenv("PATH"), "SECUREFILES_ADMIN="+admin)
	cmd.Stdout, cmd.Stderr = s.log, s.log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL); _ = cmd.Wait() }) // it may be gone
	s.eventually("it is ready", func() bool { code, _ := s.adminGet("/readyz"); return code == 200 })
	if r := s.status("", "/downloads/public/hello.txt", 200); r.body != "hello\n" {
		t.Errorf("it sends %q", r.body)
	}
}
