package integration_test

import (
	"bufio"
	"fmt"
	"io"
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

// The demo, as `make demo` runs it: the commands that it prints do what it says
// beside them, the README's session comes out as printed, and Ctrl-C leaves no
// process and no file behind.
func TestDemo(t *testing.T) {
	t.Parallel()
	tmp := publicDir(t)
	demo, out := startDemo(t, tmp)
	defer end(demo)
	var commands []string
	var dir, web string
	for lines := bufio.NewScanner(out); lines.Scan(); {
		line := lines.Text()
		if command, ok := strings.CutPrefix(line, "  "); ok {
			commands = append(commands, command)
		}
		if d, ok := strings.CutPrefix(line, "Everything is in "); ok {
			dir = d
		}
		if strings.HasPrefix(line, "Press Ctrl-C") {
			break
		}
	}
	if dir == "" || len(commands) < 10 {
		t.Fatalf("it printed %d commands, and the directory %q", len(commands), dir)
	}
	run := func(command string) (string, error) {
		t.Helper()
		cmd := exec.Command("bash", "-c", command)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "PATH="+filepath.Dir(binary)+":"+os.Getenv("PATH"))
		var stderr strings.Builder
		cmd.Stderr = &stderr
		text, err := cmd.Output()
		if err != nil {
			t.Logf("%s: %s", command, stderr.String())
		}
		return string(text), err
	}
	port := regexp.MustCompile(`http://(127\.0\.0\.1:\d+)/downloads`)
	if m := port.FindStringSubmatch(strings.Join(commands, "\n")); m != nil {
		web = m[1]
	}
	policyBefore, err := os.ReadFile(filepath.Join(dir, "policy.csv"))
	if err != nil {
		t.Fatal(err)
	}
	promised := 0
	status := regexp.MustCompile(`# (\d{3})`)
	for _, command := range commands {
		text, err := run(command)
		want := ""
		if strings.Contains(command, " audit ") {
			want = "complete"
			for deadline := time.Now().Add(patience); (err != nil || !strings.Contains(text, want)) && time.Now().Before(deadline); {
				text, err = run(command) // nginx's log is followed, some time after
			}
		}
		switch m := status.FindStringSubmatch(command); {
		case m != nil:
			want = "HTTP/1.1 " + m[1]
			promised++
		case strings.Contains(command, " explain "):
			if exit, ok := err.(*exec.ExitError); !ok || exit.ExitCode() != 1 {
				t.Errorf("%s: %v, want exit status 1, a refusal", command, err)
			}
			err, want = nil, "deny"
		case strings.Contains(command, "grep -E"):
			want = "main, /public/**"
			if !regexp.MustCompile(`(?m)^p, editor, +archive, `).MatchString(text) {
				t.Errorf("%s: the one policy has no line for the bucket:\n%s", command, text)
			}
		case strings.Contains(command, "/metrics"):
			want = `securefiles_decisions_total{decision="allow"`
		case strings.Contains(command, "/readyz"):
			want = `"ready":true`
		}
		if err != nil || !strings.Contains(text, want) {
			t.Errorf("%s: %v, no %q in\n%s", command, err, want, text)
		}
	}
	if promised < 13 {
		t.Errorf("%d commands promise a status", promised)
	}
	if all := strings.Join(commands, "\n"); strings.Count(all, "/archive/") < 6 || !strings.Contains(all, "grep -E") {
		t.Errorf("the bucket is not shown:\n%s", all)
	}

	// The README's session, in the state it starts from.
	if err := os.WriteFile(filepath.Join(dir, "policy.csv"), policyBefore, 0o640); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(patience)
	for refused := false; !refused; {
		code, err := run(fmt.Sprintf("curl -o /dev/null -s -w '%%{http_code}' -u bob:bob http://%s/downloads/project/plan.txt", web))
		if refused = code == "404" && err == nil; !refused && time.Now().After(deadline) {
			t.Fatalf("bob stays an editor: %s %v", code, err)
		}
	}
	readme, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, session, _ := strings.Cut(string(readme), "```console\n")
	session, _, _ = strings.Cut(session, "```")
	steps := strings.Split(session, "$ ")[1:]
	if len(steps) < 4 {
		t.Fatalf("the README's session has %d commands", len(steps))
	}
	for _, step := range steps {
		command, want, _ := strings.Cut(step, "\n")
		got, err := run(strings.ReplaceAll(command, "127.0.0.1:8080", web))
		if err != nil || got != want {
			t.Errorf("README: %s: %v, prints %q, want %q", command, err, got, want)
		}
	}

	// Ctrl-C reaches the whole foreground process group.
	if err := syscall.Kill(-demo.Process.Pid, syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if err := demo.Wait(); demo.ProcessState.ExitCode() != 130 {
		t.Errorf("it ended with %v", err)
	}
	nothingIsLeft(t, tmp)
	t.Run("SIGTERM", testDemoCleansUpOnSIGTERM) // not beside it: both would take the first port that is free
}

// Whoever ends the demo alone, as systemd or a container does, finds nothing left
// behind either.
func testDemoCleansUpOnSIGTERM(t *testing.T) {
	tmp := publicDir(t)
	demo, out := startDemo(t, tmp)
	defer end(demo)
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if strings.HasPrefix(lines.Text(), "Press Ctrl-C") {
			break
		}
	}
	if err := demo.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := demo.Wait(); demo.ProcessState.ExitCode() != 143 {
		t.Errorf("it ended with %v", err)
	}
	nothingIsLeft(t, tmp)
}

// startDemo starts the demo, which keeps its files below a directory.
func startDemo(t *testing.T, tmp string, env ...string) (*exec.Cmd, io.Reader) {
	t.Helper()
	demo := exec.Command("../examples/demo/demo.sh", binary, demoBucket)
	demo.Env = append(append(os.Environ(), "TMPDIR="+tmp), env...)
	demo.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	demo.Stderr = os.Stderr
	out, err := demo.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := demo.Start(); err != nil {
		t.Fatal(err)
	}
	return demo, out
}

// nothingIsLeft says that no file is below a directory, and no process mentions it.
func nothingIsLeft(t *testing.T, tmp string) {
	t.Helper()
	if left, err := os.ReadDir(tmp); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
	if left := processesThatMention(t, tmp); len(left) != 0 {
		t.Errorf("still running: %q", left)
	}
}

// The way to a guarded file from source, as docs/install.md and docs/get-started.md
// say it, with directories of the test's in place of the system's: nginx accepts what
// it makes, and serves the file.
func TestSetUpFromSource(t *testing.T) {
	t.Parallel()
	blocks := func(file, heading string, count int) []string {
		_, sections := page(t, file)
		var texts []string
		for _, m := range pageFence.FindAllStringSubmatch(sections[heading], -1) {
			texts = append(texts, m[4])
		}
		if len(texts) != count {
			t.Fatalf("%s, %q has other blocks: %q", file, heading, texts)
		}
		return texts
	}
	source, tell := blocks("install.md", "From source", 3), blocks("get-started.md", "4. Tell nginx", 4)
	install, start, include := source[0], source[1], tell[1]
	configure := "cd /etc/securefiles\n" + blocks("get-started.md", "3. Say who may read what", 3)[1] + tell[0]
	s := &site{t: t, dir: publicDir(t), web: freeport.Address(t), admin: freeport.Address(t), log: &logBuffer{}}
	s.service = "unix:" + s.dir + "/run/auth.sock"
	for _, dir := range []string{"etc", "bin", "nginx/conf.d", "nginx/snippets", "run", "logs"} {
		if err := os.MkdirAll(filepath.Join(s.dir, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	s.write("files/shared/handbook.txt", "handbook\n")
	here := strings.NewReplacer(
		"make build &&", "", "install bin/securefiles /usr/local/bin/", "install "+binary+" "+s.dir+"/bin/",
		"sudo -u securefiles ", "", "sudo useradd --system securefiles && sudo chgrp -R securefiles /etc/securefiles", "",
		"sudo install -d -o securefiles -g www-data -m 2750 /run/securefiles", "", "sudo ", "",
		"/etc/securefiles", s.dir+"/etc", "/etc/nginx", s.dir+"/nginx", "listen 80;", "listen "+s.web+";", "server_name localhost;", "",
	)
	// Where the reader edits the configuration, between init and the rest.
	edit := fmt.Sprintf("sed -i 's|unix:/run/securefiles/auth.sock|%s|; s|127.0.0.1:9181|%s|; s|/var/www/securefiles|%s/files|' %s/etc/securefiles.yaml\n", s.service, s.admin, s.dir, s.dir)
	script := s.command("bash", "-ec", "PATH="+s.dir+"/bin:$PATH\n"+here.Replace(install)+edit+here.Replace(configure))
	if out, err := script.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	serve := s.command("bash", "-ec", "PATH="+s.dir+"/bin:$PATH\nexec "+strings.TrimSpace(here.Replace(start)))
	serve.Stderr = s.log
	if err := serve.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { end(serve) })
	s.write("nginx/conf.d/site.conf", here.Replace(include))
	s.write("nginx/nginx.conf", "pid run/nginx.pid; events {} http { access_log off; include conf.d/*.conf; }\n")
	nginx := s.command("nginx", "-p", s.dir, "-e", "logs/error.log", "-c", filepath.Join(s.dir, "nginx/nginx.conf"), "-g", "daemon off;")
	nginx.Stderr = s.log
	if err := nginx.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { end(nginx) })
	s.eventually("the service listens", func() bool { _, err := os.Stat(s.dir + "/run/auth.sock"); return err == nil })
	s.openSocket()
	s.eventually("the file is served", func() bool {
		r, err := s.try(newClient(), "", "/downloads/shared/handbook.txt", func(r *http.Request) { r.SetBasicAuth("alice", "wonderland") })
		return err == nil && r.status == 200 && r.body == "handbook\n"
	})
	s.status("", "/downloads/shared/handbook.txt", 401)
}

// processesThatMention returns the command lines that hold a text.
func processesThatMention(t *testing.T, text string) []string {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil || len(files) == 0 {
		t.Fatalf("%d processes, %v", len(files), err)
	}
	var found []string
	for _, f := range files {
		line, _ := os.ReadFile(f) // it may be gone by now
		if strings.Contains(string(line), text) {
			found = append(found, strings.ReplaceAll(string(line), "\x00", " "))
		}
	}
	return found
}

// The benchmarks' set-up works: it would rot unseen otherwise.
func TestBenchmarksStart(t *testing.T) {
	for _, script := range []string{"audit.sh", "http2.sh", "latency.sh", "page.sh", "store.sh"} {
		t.Run(script, func(t *testing.T) {
			t.Parallel()
			cmd := exec.Command("../bench/" + script)
			cmd.Env = append(os.Environ(), "ROUNDS=0", "POLICY_LINES=1000", "LARGE=1", "TMPDIR="+publicDir(t))
			if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "all serve the file") {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}
