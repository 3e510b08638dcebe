package rooted

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// tree is a directory with a file, a folder, links, a pipe, and a secret beside it.
func tree(t *testing.T) string {
	t.Helper()
	base := t.TempDir()
	root := filepath.Join(base, "root")
	for _, step := range []error{
		os.MkdirAll(filepath.Join(root, "a/b"), 0o755),
		os.WriteFile(filepath.Join(root, "a/b/file"), []byte("in"), 0o644),
		os.WriteFile(filepath.Join(base, "secret"), []byte("out"), 0o644),
		os.Symlink("a/b/file", filepath.Join(root, "to-file")),
		os.Symlink("a", filepath.Join(root, "to-folder")),
		os.Symlink("../secret", filepath.Join(root, "out")),
		os.Symlink(base, filepath.Join(root, "out-folder")),
		syscall.Mkfifo(filepath.Join(root, "pipe"), 0o644),
	} {
		if step != nil {
			t.Fatal(step)
		}
	}
	return root
}

func TestOnlyRegularFilesBelowTheDirectoryAreOpened(t *testing.T) {
	root := tree(t)
	for _, row := range []struct {
		path   string
		follow bool
		want   string // empty: refused
	}{
		{"a/b/file", false, "in"}, {"a/b/file", true, "in"},
		{"to-file", false, ""}, {"to-file", true, "in"},
		{"to-folder/b/file", false, ""}, {"to-folder/b/file", true, "in"},
		{"out", false, ""}, {"out", true, ""},
		{"out-folder/secret", false, ""}, {"out-folder/secret", true, ""},
		{"../secret", false, ""}, {"../secret", true, ""}, {"a/../../secret", false, ""}, {"a/../../secret", true, ""},
		{"/etc/passwd", false, ""}, {"/etc/passwd", true, ""},
		{"a", false, ""}, {"a", true, ""}, {"a/b/", false, ""}, {"", false, ""}, {"", true, ""},
		{"pipe", false, ""}, {"pipe", true, ""}, {"none", false, ""}, {"none", true, ""}, {"a/b/file/x", false, ""},
	} {
		d, err := Open(root, &Options{FollowSymlinks: row.follow})
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		f, info, err := d.File(row.path)
		if err == nil {
			text, readErr := io.ReadAll(f)
			if err := errors.Join(readErr, f.Close()); err != nil || info.Size() != int64(len(text)) {
				t.Fatal(err, info.Size())
			}
			got = string(text)
		}
		if got != row.want {
			t.Errorf("%q, follow %t: %q, %v; want %q", row.path, row.follow, got, err, row.want)
		}
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// Between the look and the opening, a name becomes a link, again and again.
func TestANameThatBecomesALinkIsNotFollowed(t *testing.T) {
	root := tree(t)
	name, spare := filepath.Join(root, "a/b/file"), filepath.Join(root, "spare")
	d, err := Open(root, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close() //nolint:errcheck // it was read
	if err := os.WriteFile(filepath.Join(root, "other"), []byte("other"), 0o644); err != nil {
		t.Fatal(err)
	}
	stop, done := make(chan struct{}), make(chan error)
	go func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				done <- nil
				return
			default:
			}
			err := os.Symlink(filepath.Join(root, "other"), spare)
			if i%2 == 0 {
				err = errors.Join(os.Remove(spare), os.WriteFile(spare, []byte("in"), 0o644))
			}
			if err = errors.Join(err, os.Rename(spare, name)); err != nil {
				done <- err
				return
			}
		}
	}()
	for range 2000 {
		f, _, err := d.File("a/b/file")
		if err != nil {
			continue
		}
		text, err := io.ReadAll(f)
		if err := errors.Join(err, f.Close()); err != nil {
			t.Fatal(err)
		}
		if string(text) == "other" {
			t.Fatal("a link was followed")
		}
	}
	close(stop)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func TestFoldersAreOpenedAsFilesAre(t *testing.T) {
	root := tree(t)
	for _, row := range []struct {
		path   string
		follow bool
		want   bool
	}{
		{"", false, true}, {"a", false, true}, {"a/b", false, true}, {"to-folder", false, false}, {"to-folder", true, true},
		{"out-folder", false, false}, {"out-folder", true, false}, {"..", false, false}, {"..", true, false}, {"a/b/file", false, false}, {"pipe", true, false},
	} {
		d, err := Open(root, &Options{FollowSymlinks: row.follow})
		if err != nil {
			t.Fatal(err)
		}
		sub, err := d.Dir(row.path)
		if (err == nil) != row.want {
			t.Errorf("%q, follow %t: %v", row.path, row.follow, err)
		}
		if err == nil {
			err = sub.Close()
		} else {
			err = nil
		}
		if err := errors.Join(err, d.Close()); err != nil {
			t.Fatal(err)
		}
	}
}

func TestAFolderHasWhatMayBeOpenedInIt(t *testing.T) {
	root := tree(t)
	for follow, want := range map[bool]string{false: "a/", true: "a/ to-file:2 to-folder/"} {
		d, err := Open(root, &Options{FollowSymlinks: follow})
		if err != nil {
			t.Fatal(err)
		}
		entries, err := d.Entries()
		if err := errors.Join(err, d.Close()); err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, e := range entries {
			if e.IsDir() {
				names = append(names, e.Name()+"/")
			} else {
				names = append(names, fmt.Sprintf("%s:%d", e.Name(), e.Size()))
			}
		}
		slices.Sort(names)
		if got := strings.Join(names, " "); got != want {
			t.Errorf("follow %t: %s, want %s", follow, got, want)
		}
	}
}
