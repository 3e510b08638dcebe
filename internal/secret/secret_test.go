package secret

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// variable is that of the secret in these tests.
const variable = "SECUREFILES_PROXY_SECRET"

// in finds a variable among NAME=value.
func in(environ ...string) func(string) (string, bool) {
	return func(name string) (string, bool) {
		for _, kv := range environ {
			if value, ok := strings.CutPrefix(kv, name+"="); ok {
				return value, true
			}
		}
		return "", false
	}
}

// open makes a secret and reads its file, as the service does at its start.
func open(ctx context.Context, file string, environ ...string) (*Secret, error) {
	s, err := New("proxy secret", file, variable, in(environ...))
	if err != nil {
		return nil, err
	}
	if err := s.Reload(ctx); err != nil {
		return nil, err
	}
	return s, nil
}

func writeFile(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestProxySecretIsReadFromFileOrEnvironment(t *testing.T) {
	file := filepath.Join(t.TempDir(), "secret")
	writeFile(t, file, strings.Repeat("f", 32)+"\n")
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := unix.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		name    string
		file    string
		environ []string
		want    string
		refused bool
	}{
		{"none configured", "", nil, "", false},
		{"file", file, nil, strings.Repeat("f", 32), false},
		{"environment wins", file, []string{variable + "=" + strings.Repeat("e", 40)}, strings.Repeat("e", 40), false},
		{"too short", "", []string{variable + "=short"}, "", true},
		{"empty in the environment", "", []string{variable + "="}, "", true},
		{"file is gone", file + ".none", nil, "", true},
		{"a pipe", pipe, nil, "", true},
	} {
		got, err := open(t.Context(), row.file, row.environ...)
		if (err != nil) != row.refused || (got != nil) != (row.want != "") || got != nil && (!got.Is(row.want) || got.Is(row.want+"x") || got.Is("")) {
			t.Errorf("%s: got %v, %v", row.name, got, err)
		}
	}
}

// After a change that cannot be read, the last secret stays.
func TestSecretOutlivesAFileThatCannotBeRead(t *testing.T) {
	file := filepath.Join(t.TempDir(), "secret")
	one, two := strings.Repeat("1", 32), strings.Repeat("2", 32)
	writeFile(t, file, one)
	s, err := open(t.Context(), file)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, file, "short")
	if err := s.Reload(t.Context()); err == nil || !s.Is(one) || s.Is("short") {
		t.Errorf("a short one: %v", err)
	}
	if err := errors.Join(syscall.Mkfifo(file+".pipe", 0o600), os.Rename(file+".pipe", file)); err != nil {
		t.Fatal(err)
	}
	if err := s.Reload(t.Context()); err == nil || !strings.Contains(err.Error(), "not a regular file") || !s.Is(one) {
		t.Errorf("a pipe: %v", err)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	writeFile(t, file, two)
	if err := s.Reload(t.Context()); err != nil || s.Is(one) || !s.Is(two) || s.Generation() != 2 {
		t.Errorf("another one: %v", err)
	}
	if err := s.Reload(t.Context()); err != nil || s.Generation() != 2 {
		t.Errorf("the same is no new version, and there are %d: %v", s.Generation(), err)
	}
}

// S25: a secret is a file's once the file has been read, and long. Forgotten, it
// opens nothing, until there is one again.
func TestSecretOpensNothingUntilItIsRead(t *testing.T) {
	file := filepath.Join(t.TempDir(), "token")
	text := strings.Repeat("t", 32)
	s, err := New("admin token", file, variable, in())
	if err != nil {
		t.Fatal(err)
	}
	for name, row := range map[string]struct {
		make func() error
		want string
	}{
		"no file": {func() error { return nil }, "read the admin token: "},
		"a pipe":  {func() error { return syscall.Mkfifo(file, 0o600) }, "not a regular file"},
		"short":   {func() error { return os.WriteFile(file, []byte("short\n"), 0o600) }, "shorter than 32 bytes"},
	} {
		if err := errors.Join(os.RemoveAll(file), row.make()); err != nil {
			t.Fatal(err)
		}
		if err := s.Reload(t.Context()); err == nil || !strings.Contains(err.Error(), row.want) || s.Is("") || s.Is("short") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := os.RemoveAll(file); err != nil {
		t.Fatal(err)
	}
	writeFile(t, file, text+"\n")
	if s.Is(text) {
		t.Error("it is right before it has been read")
	}
	if err := s.Reload(t.Context()); err != nil || !s.Is(text) {
		t.Errorf("a token: %v", err)
	}
	if s.Forget(); s.Is(text) || s.Is("") {
		t.Error("it opens, forgotten")
	}
	if err := s.Reload(t.Context()); err != nil || !s.Is(text) {
		t.Errorf("read again: %v", err)
	}
	if got := s.Files(); len(got) != 1 || got[0] != file {
		t.Errorf("it depends on %q", got)
	}
	fromEnvironment, err := New("admin token", file, variable, in(variable+"="+strings.Repeat("e", 32)))
	if err != nil || fromEnvironment.Reload(t.Context()) != nil || !fromEnvironment.Is(strings.Repeat("e", 32)) || fromEnvironment.Files() != nil {
		t.Errorf("from the environment: %v, depends on %q", err, fromEnvironment.Files())
	}
	if none, err := New("admin token", "", variable, in()); none != nil || err != nil || none.Reload(t.Context()) != nil || none.Files() != nil {
		t.Errorf("none configured: %v, %v", none, err)
	}
}
