package integration_test

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The demo, as `make demo` runs it: the commands that it prints do what it says
// beside them, the README's session comes out as printed, and Ctrl-C leaves no
// process and no file behind.
func TestDemo(t *testing.T) {
	t.Parallel()
	tmp := publicDir(t)
	demo := exec.Command("../examples/demo/demo.sh", binary)
	demo.Env = append(os.Environ(), "TMPDIR="+tmp)
	demo.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	demo.Stderr = os.Stderr
	out, err := demo.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := demo.Start(); err != nil {
		t.Fatal(err)
	}
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
		text, err := cmd.Output()
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
		switch m := status.FindStringSubmatch(command); {
		case m != nil:
			want = "HTTP/1.1 " + m[1]
			promised++
		case strings.Contains(command, " explain "):
			if exit, ok := err.(*exec.ExitError); !ok || exit.ExitCode() != 1 {
				t.Errorf("%s: %v, want exit status 1, a refusal", command, err)
			}
			err, want = nil, "deny"
		case strings.Contains(command, "/metrics"):
			want = `securefiles_decisions_total{decision="allow"`
		case strings.Contains(command, "/readyz"):
			want = `"ready":true`
		}
		if err != nil || !strings.Contains(text, want) {
			t.Errorf("%s: %v, no %q in\n%s", command, err, want, text)
		}
	}
	if promised < 7 {
		t.Errorf("%d commands promise a status", promised)
	}

	// The README's session, in the state it starts from.
	if err := os.WriteFile(filepath.Join(dir, "policy.csv"), policyBefore, 0o640); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(10 * time.Second)
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
	if left, err := os.ReadDir(tmp); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
	if left := processesThatMention(t, dir); len(left) != 0 {
		t.Errorf("still running: %q", left)
	}
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

// The benchmark's set-up works: it would rot unseen otherwise.
func TestBenchmarkStarts(t *testing.T) {
	t.Parallel()
	cmd := exec.Command("../bench/endtoend.sh")
	cmd.Env = append(os.Environ(), "ROUNDS=0", "TMPDIR="+publicDir(t))
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "all four serve the file") {
		t.Errorf("%v\n%s", err, out)
	}
}
