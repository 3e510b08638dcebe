package cli

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// securefiles is the program, built once.
var securefiles string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		if err := os.Chdir("../.."); err != nil { // where the documents are
			panic(err)
		}
		dir, err := os.MkdirTemp("", "securefiles-cli")
		if err != nil {
			panic(err)
		}
		defer os.RemoveAll(dir)
		securefiles = filepath.Join(dir, "securefiles")
		build := exec.Command("go", "build", "-o", securefiles, ".")
		build.Stdout, build.Stderr = os.Stderr, os.Stderr
		if err := build.Run(); err != nil {
			panic(err)
		}
		return m.Run()
	}())
}

// command runs the program and returns its exit status, standard output and error.
// A service that starts though it should not is stopped again.
func command(t *testing.T, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	return commandWith(t, nil, args...)
}

// commandWith is command with variables of the environment, and no others.
func commandWith(t *testing.T, environ []string, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	var out, errors bytes.Buffer
	cmd := exec.CommandContext(ctx, securefiles, args...)
	cmd.Env, cmd.Stdout, cmd.Stderr = append([]string{}, environ...), &out, &errors
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), out.String(), errors.String()
}

func writeFile(t testing.TB, name, text string) string {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// One script a subcommand, usage errors included.
func TestCommands(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "internal/cli/testdata/script", RequireExplicitExec: true, RequireUniqueNames: true,
		Setup: onPath,
		Cmds:  map[string]func(*testscript.TestScript, bool, []string){"status": status},
	})
}

// onPath puts the program where scripts find it.
func onPath(env *testscript.Env) error {
	env.Setenv("PATH", filepath.Dir(securefiles)+string(os.PathListSeparator)+env.Getenv("PATH"))
	return nil
}

// status N COMMAND… runs a command that must exit with N.
func status(ts *testscript.TestScript, neg bool, args []string) {
	want, err := strconv.Atoi(args[0])
	if neg || err != nil {
		ts.Fatalf("usage: status N COMMAND…")
	}
	err = ts.Exec(args[1], args[2:]...)
	got := 0
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		got = exit.ExitCode()
	} else if err != nil {
		ts.Fatalf("%v", err)
	}
	if got != want {
		ts.Fatalf("exit status %d, want %d", got, want)
	}
}
