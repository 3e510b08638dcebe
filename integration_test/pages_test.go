package integration_test

import (
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"securefiles/internal/freeport"
)

// A machine is a site that is set up as the documentation says, by its own
// commands, with directories and ports of the test's in the place of the system's.
type machine struct {
	*site
	there, here *strings.Replacer // to the test's names, and back
	done        map[string]int    // blocks, by what was done with them
}

// pageFence is a fence, with what a comment above it says: the file that it is,
// or why it is not run.
var pageFence = regexp.MustCompile("(?ms)^(?:<!-- (file|skip): ([^\n]+) -->\n)?```([a-z]+)\n(.*?)^```$")

// systemctl stands for the system's: it starts and reloads the two, and starts Prometheus.
const systemctl = `#!/bin/bash
set -e
cd %[1]s
case "$*" in
"restart securefiles"|"start securefiles")
  if [[ -s run/securefiles.pid ]]; then
    kill "$(cat run/securefiles.pid)" || true
    while kill -0 "$(cat run/securefiles.pid)" 2>/dev/null; do sleep 0.02; done
  fi
  setsid securefiles serve --config etc/securefiles.yaml >>logs/securefiles.log 2>&1 </dev/null &
  echo $! >run/securefiles.pid
  until curl -fso /dev/null http://%[2]s/readyz; do
    kill -0 "$(cat run/securefiles.pid)" 2>/dev/null || { tail logs/securefiles.log >&2; exit 1; }
    sleep 0.02
  done
  if ((EUID == 0)); then chmod 666 run/auth.sock; fi # nginx's workers are not root
  ;;
"reload nginx")
  if [[ ! -s run/nginx.pid ]]; then nginx >/dev/null; exit; fi
  master=$(cat run/nginx.pid)
  workers=$(cat /proc/"$master"/task/"$master"/children 2>/dev/null || true)
  kill -HUP "$master"
  for worker in $workers; do while kill -0 "$worker" 2>/dev/null; do sleep 0.02; done; done # they know the old one
  ;;
"reload prometheus")
  setsid prometheus --config.file=prometheus/prometheus.yml --storage.tsdb.path=prometheus/data --web.listen-address=%[3]s --log.level=warn >>logs/prometheus.log 2>&1 </dev/null &
  echo $! >run/prometheus.pid
  until curl -fso /dev/null http://%[3]s/-/ready; do
    kill -0 "$(cat run/prometheus.pid)" 2>/dev/null || { tail logs/prometheus.log >&2; exit 1; }
    sleep 0.02
  done
  ;;
*) echo "systemctl $*?" >&2; exit 1 ;;
esac
`

// newMachine is one with what the package installs: securefiles, the files of
// init, the service running, and nginx.
func newMachine(t *testing.T) *machine {
	t.Helper()
	s := &site{t: t, dir: publicDir(t), web: freeport.Address(t), admin: freeport.Address(t), log: &logBuffer{}}
	prometheus := freeport.Address(t)
	for _, dir := range []string{"bin", "etc", "files", "media", "run", "logs/securefiles/audit", "tmp", "prometheus", "nginx/conf.d", "nginx/snippets"} {
		if err := os.MkdirAll(filepath.Join(s.dir, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	names := []string{ // longer ones first
		"/var/www/securefiles", s.dir + "/files", "/srv/media", s.dir + "/media", "/etc/securefiles", s.dir + "/etc", "/etc/nginx", s.dir + "/nginx",
		"/run/securefiles/auth.sock", s.dir + "/run/auth.sock", "/var/log/nginx", s.dir + "/logs", "/var/log/securefiles", s.dir + "/logs/securefiles",
		"/etc/prometheus", s.dir + "/prometheus", "/usr/share/doc/securefiles", s.dir + "/doc", "http://localhost:9090", "http://" + prometheus,
		"/tmp/", s.dir + "/tmp/", "http://localhost", "http://" + s.web, "listen 80;", "listen " + s.web + ";", "127.0.0.1:9181", s.admin,
	}
	var back []string
	for i := 0; i < len(names); i += 2 {
		back = append(back, names[i+1], names[i])
	}
	m := &machine{site: s, there: strings.NewReplacer(names...), here: strings.NewReplacer(back...), done: map[string]int{}}
	debians, err := os.ReadFile("testdata/prometheus-debian12.yml")
	if err != nil {
		t.Fatal(err)
	}
	s.write("prometheus/prometheus.yml", string(debians))
	for _, name := range []string{"recording.yaml", "alerts.yaml", "job.yaml"} {
		text, err := os.ReadFile("../examples/prometheus/" + name)
		if err != nil {
			t.Fatal(err)
		}
		s.write("doc/examples/prometheus/"+name, m.there.Replace(string(text)))
	}
	nginx, err := exec.LookPath("nginx")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(binary, s.dir+"/bin/securefiles"); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		".curlrc":       "no-progress-meter\n",                   // as on a terminal
		"bin/chgrp":     "#!/bin/sh\n[ \"$1\" = securefiles ]\n", // there is no such group
		"bin/systemctl": fmt.Sprintf(systemctl, s.dir, s.admin, prometheus),
		"bin/nginx":     fmt.Sprintf("#!/bin/sh\nexec %s -p %s -e logs/error.log -c %[2]s/nginx/nginx.conf \"$@\"\n", nginx, s.dir),
	} {
		s.write(name, text)
		if err := os.Chmod(filepath.Join(s.dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	s.write("nginx/nginx.conf", "pid run/nginx.pid; events {} http { access_log off; include conf.d/*.conf; }\n")
	if out, status := m.shell("securefiles init . >/dev/null"); status != 0 {
		t.Fatal(out)
	}
	s.write("etc/securefiles.yaml", m.there.Replace(s.read("etc/securefiles.yaml")))
	t.Cleanup(func() {
		if t.Failed() {
			for _, name := range []string{"securefiles.log", "error.log"} {
				text, _ := os.ReadFile(filepath.Join(s.dir, "logs", name)) // it may not be there
				t.Logf("%s:\n%s", name, tail(string(text)))
			}
		}
		_, _ = m.shell("for p in ../run/*.pid; do kill $(cat $p); done") // one may not run
	})
	m.mustRun("systemctl start securefiles")
	return m
}

func (s *site) read(name string) string {
	s.t.Helper()
	text, err := os.ReadFile(filepath.Join(s.dir, name))
	if err != nil {
		s.t.Fatal(err)
	}
	return string(text)
}

// shell runs commands in /etc/securefiles, and returns what they print as the
// documentation would show it, and their status.
func (m *machine) shell(commands string) (string, int) {
	m.t.Helper()
	ctx, stop := context.WithTimeout(context.Background(), patience)
	defer stop()
	cmd := exec.CommandContext(ctx, "bash", "-c", "exec 2>&1\n"+m.there.Replace(commands))
	cmd.Dir = filepath.Join(m.dir, "etc")
	cmd.Env = append(os.Environ(), "PATH="+m.dir+"/bin:"+os.Getenv("PATH"), "CURL_HOME="+m.dir, "NOTIFY_SOCKET=", "SECUREFILES_CONFIG=")
	cmd.WaitDelay = patience
	out, err := cmd.Output()
	if err != nil && cmd.ProcessState == nil {
		m.t.Fatal(err)
	}
	return m.here.Replace(string(out)), cmd.ProcessState.ExitCode()
}

func (m *machine) mustRun(commands string) {
	m.t.Helper()
	if out, status := m.shell("set -e\n" + commands); status != 0 {
		m.t.Fatalf("exit status %d of\n%s\n%s", status, commands, out)
	}
}

// follow does what a text says, block by block, as a reader would:
//
//	sh       is typed, and succeeds
//	console  is typed, and prints what stands there, at whatever time; what asks nginx or
//	         Prometheus, or for what nginx sent, may take a moment
//	csv      is added to policy.csv, unless it stands there
//	yaml     takes the place of the keys of securefiles.yaml that it has
//
// and whatever has a file's name above it is written there.
func (m *machine) follow(text string) {
	m.t.Helper()
	for _, block := range pageFence.FindAllStringSubmatch(text, -1) {
		what, name, language, content := block[1], block[2], block[3], block[4]
		switch {
		case what == "skip":
		case what == "file":
			m.mustRun("mkdir -p \"$(dirname " + name + ")\"; cat > " + name + " <<'END OF FILE'\n" + content + "END OF FILE\n")
		case language == "sh":
			m.mustRun(content)
		case language == "console":
			m.console(content)
		case language == "csv":
			for line := range strings.Lines(content) {
				if policy := m.read("etc/policy.csv"); !strings.Contains(policy, line) {
					m.write("etc/policy.csv", policy+line)
				}
			}
		case language == "yaml":
			conf := m.read("etc/securefiles.yaml")
			for _, section := range regexp.MustCompile(`(?m)^[a-z_]+:.*\n(?:(?:[ #].*)?\n)*`).FindAllString(content, -1) {
				key, _, _ := strings.Cut(section, ":")
				conf = regexp.MustCompile(`(?m)^`+key+`:.*\n(?:(?:[ #].*)?\n)*`).ReplaceAllLiteralString(conf, "")
				conf += m.there.Replace(section)
			}
			m.write("etc/securefiles.yaml", conf)
		default:
			m.t.Fatalf("nobody is told what to do with this:\n%s", content)
		}
		m.done[language]++
	}
}

// anyMoment is a time as tables have it.
var anyMoment = regexp.MustCompile(`\b\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\b`)

// console types commands and compares what they print.
func (m *machine) console(content string) {
	m.t.Helper()
	for _, part := range strings.Split("\n"+content, "\n$ ")[1:] {
		command, want, _ := strings.Cut(strings.TrimSuffix(part, "\n"), "\n")
		if want != "" {
			want += "\n"
		}
		deadline := time.Now().Add(patience)
		for {
			out, _ := m.shell(command)
			if anyMoment.ReplaceAllString(out, "") == anyMoment.ReplaceAllString(want, "") {
				break
			}
			soon := slices.ContainsFunc([]string{"curl ", "promtool query ", "securefiles audit "}, func(asks string) bool { return strings.HasPrefix(command, asks) })
			if !soon || time.Now().After(deadline) {
				m.t.Fatalf("$ %s\nprints\n%s\nand not\n%s", command, out, want)
			}
			time.Sleep(20 * time.Millisecond) // between polls
		}
	}
}

// page is a document, and its sections by their headings.
func page(t *testing.T, name string) (string, map[string]string) {
	t.Helper()
	text, err := os.ReadFile("../docs/" + name)
	if err != nil {
		t.Fatal(err)
	}
	sections := map[string]string{}
	for _, s := range strings.Split(string(text), "\n## ")[1:] {
		heading, body, _ := strings.Cut(s, "\n")
		sections[heading] = body
	}
	return string(text), sections
}

// begin follows docs/get-started.md to where it says what is next.
func begin(t *testing.T) *machine {
	t.Helper()
	m := newMachine(t)
	text, _ := page(t, "get-started.md")
	text, _, found := strings.Cut(text, "\n## And now\n")
	m.follow(text)
	if !found || m.done["console"] < 3 || m.done["sh"] < 4 {
		t.Fatalf("docs/get-started.md has other blocks: %v", m.done)
	}
	return m
}

func TestGetStarted(t *testing.T) {
	t.Parallel()
	begin(t)
}

// Every task of docs/how-to.md, done as it stands there where get-started ends.
func TestHowTo(t *testing.T) {
	t.Parallel()
	text, sections := page(t, "how-to.md")
	if len(sections) < 10 {
		t.Fatalf("docs/how-to.md has %d sections", len(sections))
	}
	for heading, body := range sections {
		anchor := strings.ReplaceAll(regexp.MustCompile(`[^a-z0-9 -]`).ReplaceAllString(strings.ToLower(heading), ""), " ", "-")
		if !strings.Contains(text, "](#"+anchor+")") {
			t.Errorf("the list of contents lacks #%s", anchor)
		}
		t.Run(anchor, func(t *testing.T) {
			t.Parallel()
			m := begin(t)
			clear(m.done)
			m.follow(body)
			if m.done["console"] < 1 {
				t.Errorf("nothing is shown: %v", m.done)
			}
		})
	}
}

// How long somebody still gets in after what docs/how-to.md lists: measured, for
// each kind of source. -v prints the times.
func TestHowLongAccessLasts(t *testing.T) {
	t.Parallel()
	const leeway, remember, soon = 2 * time.Second, 2 * time.Second, 2 * time.Second // the defaults are 30s and 30s
	key := strings.Repeat("k", 32)
	var loggedOut atomic.Bool
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if loggedOut.Load() {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"subject":"sam","groups":[]}`) // to the service, which waits for it
	}))
	defer app.Close()
	policy := alicesPolicy + "g, bob, editor\ng, tim, editor\ng, sam, editor\n"
	s := start(t, plan{policy: policy, identity: fmt.Sprintf("identity:\n  - htpasswd: users.htpasswd\n"+
		"  - jwt: {issuer: i, audience: [files], jwks_file: keys.json, algorithms: [HS256], leeway: %s}\n"+
		"  - session: {url: '%s', cookies: [sessionid], remember: %s, remember_refused: 100ms}\n", leeway, app.URL, remember),
		before: func(s *site) {
			s.write("keys.json", fmt.Sprintf(`{"keys":[{"kty":"oct","k":%q}]}`, base64.RawURLEncoding.EncodeToString([]byte(key))))
		}})
	client := newClient()
	// lasts takes something away and asks until somebody is refused.
	lasts := func(what, user string, takeAway func(), atMost time.Duration, edit ...func(*http.Request)) time.Duration {
		t.Helper()
		s.status(user, plan1, 200, edit...)
		takeAway()
		began := time.Now()
		s.eventually(what, func() bool {
			r, err := s.try(client, user, plan1, edit...)
			return err == nil && r.status != 200
		})
		took := time.Since(began)
		t.Logf("%s: %v", what, took)
		if took > atMost+slack {
			t.Errorf("%s: after %v, want at most %v", what, took, atMost)
		}
		return took
	}
	lasts("an old password is refused", "alice", func() {
		s.replace("users.htpasswd", strings.Replace(cheapUsers, "alice:", "alice2:", 1))
	}, soon)
	lasts("a role that was taken away is gone", "bob", func() {
		s.replace("policy.csv", strings.Replace(policy, "g, bob, editor\n", "", 1))
	}, soon)
	session := with("Cookie", "sessionid=1")
	lasts("a session that was ended is refused", "", func() { loggedOut.Store(true) }, remember, session)
	exp := time.Now().Add(8 * time.Second).Truncate(time.Second)
	token := "Bearer " + hs256(key, fmt.Sprintf(`{"iss":"i","aud":"files","sub":"tim","exp":%d}`, exp.Unix()))
	lasts("a token whose time is over is refused", token, func() {}, time.Until(exp)+leeway)
	if early := time.Until(exp.Add(leeway)); early > 0 {
		t.Errorf("a token is refused %v before its time is over", early)
	}
	exp = time.Now().Add(time.Hour)
	token = "Bearer " + hs256(key, fmt.Sprintf(`{"iss":"i","aud":"files","sub":"tim","exp":%d}`, exp.Unix()))
	lasts("whom a line denies everything is refused, whatever its token says", token, func() {
		s.replace("policy.csv", strings.Replace(policy, "g, bob, editor\n", "p, tim, /**, read, deny\n", 1))
	}, soon)
}

// What docs/how-to.md has Prometheus scrape is the file in examples/, as it stands in the
// whole configuration beside it, which TestPrometheusAnswersEachQuery… runs.
func TestThePagesPrometheusIsTheExamples(t *testing.T) {
	t.Parallel()
	_, sections := page(t, "how-to.md")
	job, err := os.ReadFile("../examples/prometheus/job.yaml")
	if err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile("../examples/prometheus/prometheus.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(whole), "\nscrape_configs:\n"+string(job)) {
		t.Error("examples/prometheus/prometheus.yaml has another job than job.yaml")
	}
	shown := "scrape_configs:\n" + string(job) + "rule_files:\n  - securefiles-*.yaml\n"
	if !strings.Contains(sections["Prometheus"], "```yaml\n"+shown+"```\n") {
		t.Error("docs/how-to.md shows another prometheus.yml")
	}
	m := begin(t)
	m.follow(sections["Prometheus"])
	got, old := m.here.Replace(m.read("prometheus/prometheus.yml")), m.here.Replace(m.read("prometheus/prometheus.yml.old"))
	want := strings.Replace(old, "\nrule_files:\n", "\nrule_files:\n  - securefiles-*.yaml\n", 1)
	if want = strings.Replace(want, "\nscrape_configs:\n", "\nscrape_configs:\n"+string(job), 1); got != want {
		t.Errorf("the commands have written\n%s", got)
	}
}

// A block that reloads nginx may be pasted with the request that follows: for a moment a
// worker of before answers that.
func TestAReloadOfNginxTakesAMoment(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, file := range append(files, "../README.md", "../packaging/nginx/README") {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			if line = strings.TrimSpace(line); strings.Contains(line, "systemctl reload nginx") && !strings.Contains(line, "`") {
				found++
				if !strings.HasSuffix(line, " && sleep 1") {
					t.Errorf("%s: %s", file, line)
				}
			}
		}
	}
	if found < 5 {
		t.Errorf("%d blocks reload nginx", found)
	}
}

// Whoever does all of them in the order of the page comes to the end, too.
func TestHowToOneAfterTheOther(t *testing.T) {
	t.Parallel()
	text, _ := page(t, "how-to.md")
	m := begin(t)
	m.follow(text)
}
