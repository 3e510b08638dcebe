package cli

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

func TestVersionIsWhatTheLinkerWasTold(t *testing.T) {
	binary := filepath.Join(t.TempDir(), "securefiles")
	out, err := exec.Command("go", "build", "-o", binary,
		"-ldflags", "-X securefiles/internal/cli.version=1.2.3 -X securefiles/internal/cli.commit=abc", ".").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	out, err = exec.Command(binary, "version").Output()
	if want := "securefiles 1.2.3 (commit abc, go"; err != nil || !strings.HasPrefix(string(out), want) {
		t.Errorf("%v: %q, want %q…", err, out, want)
	}
	makefile, err := os.ReadFile("Makefile")
	if err != nil || !strings.Contains(string(makefile), "-X securefiles/internal/cli.version=$(VERSION) -X securefiles/internal/cli.commit=$(COMMIT)") {
		t.Errorf("the Makefile tells the linker something else (%v)", err)
	}
}

func TestVersionOfATreeComesFromItsTags(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "scripts"), 0o755); err != nil {
		t.Fatal(err)
	}
	script := filepath.Join(dir, "scripts", "version.sh")
	text, err := os.ReadFile("scripts/version.sh")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(script, text, 0o755); err != nil {
		t.Fatal(err)
	}
	git := func(args ...string) {
		t.Helper()
		cmd := exec.Command("git", append([]string{"-C", dir, "-c", "user.name=a", "-c", "user.email=a@example.org"}, args...)...)
		cmd.Env = append(os.Environ(), "GIT_COMMITTER_DATE=2026-11-26T21:25:12+0100")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("git %v: %v\n%s", args, err, out)
		}
	}
	is := func(what, want string) {
		t.Helper()
		out, err := exec.Command(script).CombinedOutput()
		if err != nil || !regexp.MustCompile(`^`+want+`\n$`).Match(out) {
			t.Errorf("%s: %v, %q, want %s", what, err, out, want)
		}
	}
	is("no repository", `0\.0\.0\+unknown`)
	git("init", "-q")
	git("add", ".")
	git("commit", "-q", "-m", "one")
	is("before the first tag", `0\.0\.0\+20261126202512\.g[0-9a-f]{7,}`)
	git("tag", "v1.2.0-rc.1")
	is("a tag", `1\.2\.0-rc\.1`)
	git("commit", "-q", "--allow-empty", "-m", "two")
	is("behind a tag", `1\.2\.0-rc\.1\+1\.g[0-9a-f]{7,}`)
	git("tag", "other")
	git("tag", "-a", "-m", "1.2.0", "v1.2.0")
	is("a later tag", `1\.2\.0`)
	if err := os.WriteFile(script, append(text, '\n'), 0o755); err != nil {
		t.Fatal(err)
	}
	is("changes that no commit has", `1\.2\.0\.dirty`)
}

// What an old Go says of this module's go.mod helps nobody.
func TestMakeSaysWhichGoIsNeeded(t *testing.T) {
	check, err := filepath.Abs("scripts/go.sh")
	if err != nil {
		t.Fatal(err)
	}
	run := func(version string, environ ...string) (string, error) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "go.mod"), []byte("module a\n\ngo "+version+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(check)
		cmd.Dir, cmd.Env = dir, append(os.Environ(), append(environ, "GOPROXY=off")...)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	for _, version := range []string{"1.21", "1.26.6"} {
		if out, err := run(version); err != nil || out != "" {
			t.Errorf("%s: %v\n%s", version, err, out)
		}
	}
	for _, toolchain := range []string{"local", "auto"} {
		out, err := run("1.999.1", "GOTOOLCHAIN="+toolchain)
		if err == nil || !strings.Contains(out, "securefiles needs Go 1.999.1 or later: https://go.dev/dl/") {
			t.Errorf("%s: %v\n%s", toolchain, err, out)
		}
	}
	empty := t.TempDir()
	for _, tool := range []string{"bash", "env", "sed", "sort", "head"} {
		file, err := exec.LookPath(tool)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(file, filepath.Join(empty, tool)); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := run("1.21", "PATH="+empty); err == nil || !strings.Contains(out, "there is no go in PATH") {
		t.Errorf("without Go: %v\n%s", err, out)
	}
	mod, err := os.ReadFile("go.mod")
	if err != nil {
		t.Fatal(err)
	}
	version := regexp.MustCompile(`(?m)^go (\S+)$`).FindSubmatch(mod)[1]
	for _, file := range []string{"README.md", "SECURITY.md"} {
		if text, err := os.ReadFile(file); err != nil || !strings.Contains(string(text), "Go "+string(version)+" or later") {
			t.Errorf("%s: does not say that Go %s or later is needed (%v)", file, version, err)
		}
	}
}

func TestBuildLeavesNothingThatGitShows(t *testing.T) {
	if _, err := os.Stat(".git"); err != nil {
		t.Skip("this is no repository")
	}
	for _, name := range []string{"securefiles", "bin/securefiles", "dist/securefiles_1.2.3-1_amd64.deb"} {
		if out, err := exec.Command("git", "check-ignore", "--no-index", name).CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
}
