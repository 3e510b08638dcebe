package watch

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// start watches file and returns a channel of what it held at each call.
func start(t *testing.T, file string) <-chan string {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	contents := make(chan string, 100)
	go func() {
		done <- Files(ctx, []string{file}, func() {
			text, _ := os.ReadFile(file) // missing reads as empty
			contents <- string(text)
		})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return contents
}

func want(t *testing.T, contents <-chan string, text string) {
	t.Helper()
	timeout := time.After(10 * time.Second)
	for {
		select {
		case got := <-contents:
			if got == text {
				return
			}
		case <-timeout:
			t.Fatalf("%q was never told", text)
		}
	}
}

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestEveryWayOfChangingAFileIsTold(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "policy.csv")
	write(t, file, "one")
	contents := start(t, file)
	want(t, contents, "one") // at the start

	write(t, file, "two") // truncate and write
	want(t, contents, "two")

	write(t, file+".new", "three") // an editor's rename
	if err := os.Rename(file+".new", file); err != nil {
		t.Fatal(err)
	}
	want(t, contents, "three")

	if err := os.Remove(file); err != nil { // gone, and back
		t.Fatal(err)
	}
	want(t, contents, "")
	write(t, file, "four")
	want(t, contents, "four")
}

// A ConfigMap volume: policy.csv -> ..data/policy.csv, ..data -> a directory of
// the version; an update renames a new ..data over the old one.
func TestConfigMapSwapIsTold(t *testing.T) {
	dir := t.TempDir()
	version := func(name, text string) {
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, name, "policy.csv"), text)
		if err := os.Symlink(name, filepath.Join(dir, "..data_tmp")); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(filepath.Join(dir, "..data_tmp"), filepath.Join(dir, "..data")); err != nil {
			t.Fatal(err)
		}
	}
	version("..1", "one")
	file := filepath.Join(dir, "policy.csv")
	if err := os.Symlink(filepath.Join("..data", "policy.csv"), file); err != nil {
		t.Fatal(err)
	}
	contents := start(t, file)
	want(t, contents, "one")
	version("..2", "two")
	if err := os.RemoveAll(filepath.Join(dir, "..1")); err != nil {
		t.Fatal(err)
	}
	want(t, contents, "two")
	version("..3", "three")
	want(t, contents, "three")
}

// A link into another directory: what it leads to is watched too.
func TestTargetOfALinkElsewhereIsWatched(t *testing.T) {
	dir, elsewhere := t.TempDir(), t.TempDir()
	target := filepath.Join(elsewhere, "policy.csv")
	write(t, target, "one")
	file := filepath.Join(dir, "policy.csv")
	if err := os.Symlink(target, file); err != nil {
		t.Fatal(err)
	}
	contents := start(t, file)
	want(t, contents, "one")
	write(t, target, "two")
	want(t, contents, "two")
}

// Neighbours in the directory are none of the caller's business.
func TestOtherFilesAreNotTold(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "policy.csv")
	write(t, file, "one")
	contents := start(t, file)
	want(t, contents, "one")
	for range 10 {
		write(t, filepath.Join(dir, "other"), "x")
	}
	write(t, file, "two")
	if got := <-contents; got != "two" {
		t.Errorf("told of %q", got)
	}
}

func TestBurstOfWritesIsToldOnceItIsOver(t *testing.T) {
	file := filepath.Join(t.TempDir(), "policy.csv")
	write(t, file, "0")
	contents := start(t, file)
	want(t, contents, "0")
	for range 50 {
		write(t, file, "partial")
	}
	write(t, file, "whole")
	want(t, contents, "whole")
}
