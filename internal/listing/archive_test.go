package listing

import (
	"archive/zip"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"testing"

	"securefiles/authz"
)

// archiveOf is the archive of a directory that may be shown to alice.
func archiveOf(t *testing.T, root, target string, bounds Bounds, policy authz.Decider) (*Archive, error) {
	t.Helper()
	l, err := New(func() authz.Decider { return policy }, map[string]Directory{"main": {Root: root, Zip: bounds}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	out := request(t, target)
	out.Question.Archive, out.Page = out.Question.Dir, authz.PageArchive
	a, err := l.Archive(t.Context(), out)
	if err == nil {
		t.Cleanup(func() { _ = a.Close() })
	}
	return a, err
}

func (a *Archive) names() (names []string) {
	for _, f := range a.files {
		names = append(names, f.name)
	}
	return names
}

func TestAnArchiveHasWhatMayBeReadInWhatMayBeListed(t *testing.T) {
	root := t.TempDir()
	plant(t, root, "p/read.txt", "p/hidden.txt", "p/listed/a/b/c", "p/listed/hidden", "p/not-listed/read", "p/back\\slash", "p/\xff", "p/new\nline", "p/ü", "p/A", "p/a", "p/empty/", "outside")
	if err := errors.Join(os.Symlink("../outside", root+"/p/link"), os.Symlink("..", root+"/p/up")); err != nil {
		t.Fatal(err)
	}
	asked := map[string]int{}
	policy := decider(func(action, object string) bool {
		asked[action+" "+object]++
		return !strings.Contains(object, "hidden") && !strings.HasPrefix(object, "/p/not-listed/")
	})
	a, err := archiveOf(t, root, "/downloads/p/?zip", Bounds{100, 1 << 20}, policy)
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprintf("%q", a.names()); got != `["A" "a" "listed/a/b/c" "read.txt" "ü"]` {
		t.Errorf("there is %s", got)
	}
	if asked["list /p/"] != 1 || asked["list /p/listed/a/b/"] != 1 || asked["read /p/listed/a/b/c"] != 1 || asked["read /p/not-listed/read"] != 0 {
		t.Errorf("asked %v", asked)
	}
	for _, out := range a.Files() {
		if q := out.Question; !out.Allowed() || q.Archive.String() != "/p/" || q.Action != authz.ActionRead || q.Size == 0 || out.Decision.Generation != 1 {
			t.Errorf("%s: %+v of %+v", q.Path, out, q)
		}
	}
}

func TestAnArchiveIsAsLongAsIsSaid(t *testing.T) {
	for n := range 4 {
		root := t.TempDir()
		for i := range n * n * 10 {
			plant(t, root, fmt.Sprintf("d/%d/%d ü", i%3, i))
		}
		plant(t, root, "d/x")
		a, err := archiveOf(t, root, "/downloads/d/?zip", Bounds{100, 1 << 20}, decider(all))
		if err != nil {
			t.Fatal(err)
		}
		var body bytes.Buffer
		if err := a.Write(&body); err != nil || int64(body.Len()) != a.Size() {
			t.Errorf("%d bytes of %d: %v", body.Len(), a.Size(), err)
		}
		z, err := zip.NewReader(bytes.NewReader(body.Bytes()), a.Size())
		if err != nil || len(z.File) != len(a.files) {
			t.Errorf("%v", err)
		}
	}
}

func TestAnArchiveOfTooMuchIsNone(t *testing.T) {
	root := t.TempDir()
	plant(t, root, "d/a", "d/sub/b", "d/hidden/1", "d/hidden2") // of 3 and 7 bytes
	policy := decider(func(_, object string) bool { return !strings.Contains(object, "hidden") })
	for bounds, want := range map[Bounds]bool{{3, 10}: true, {2, 10}: false, {3, 9}: false, {1 << 20, 1 << 40}: true} {
		_, err := archiveOf(t, root, "/downloads/d/?zip", bounds, policy)
		var large *authz.TooLargeError
		if errors.As(err, &large) == want || want != (err == nil) || !want && (large.Entries != bounds.Entries || large.Bytes != bounds.Bytes) {
			t.Errorf("%v: %v", bounds, err)
		}
	}
	for target, bounds := range map[string]Bounds{"/downloads/none/?zip": {9, 99}, "/downloads/d/a/?zip": {9, 99}, "/downloads/hidden/?zip": {9, 99}} {
		if _, err := archiveOf(t, root, target, bounds, policy); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v", target, err)
		}
	}
	if _, err := archiveOf(t, root, "/downloads/d/?zip", Bounds{}, policy); err == nil {
		t.Error("there is one that is not configured")
	}
}

func TestWhatIsNotAsItWasEndsAnArchive(t *testing.T) {
	for name, change := range map[string]func(file string) error{
		"gone":    os.Remove,
		"longer":  func(file string) error { return os.WriteFile(file, []byte("xxxxxxxx"), 0o644) },
		"shorter": func(file string) error { return os.Truncate(file, 1) },
		"written": func(file string) error { return os.WriteFile(file, []byte("yyy"), 0o644) },
		"a link":  func(file string) error { return errors.Join(os.Remove(file), os.Symlink("a", file)) },
	} {
		root := t.TempDir()
		plant(t, root, "d/a", "d/b")
		a, err := archiveOf(t, root, "/downloads/d/?zip", Bounds{9, 99}, decider(all))
		if err != nil {
			t.Fatal(err)
		}
		if err := change(root + "/d/b"); err != nil {
			t.Fatal(err)
		}
		var body bytes.Buffer
		if err := a.Write(&body); err == nil || !strings.Contains(err.Error(), "/d/b") {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := zip.NewReader(bytes.NewReader(body.Bytes()), int64(body.Len())); err == nil {
			t.Errorf("%s: it unzips", name)
		}
	}
}

// Over 4 GiB the sizes are those that ZIP64 has.
func TestTheSizeOfALargeArchive(t *testing.T) {
	if os.Getenv("SECUREFILES_TEST_LONG") == "" {
		t.Skip("reads over 8 GiB of nothing: set SECUREFILES_TEST_LONG")
	}
	root := t.TempDir()
	plant(t, root, "d/a", "d/b", "d/c")
	if err := errors.Join(os.Truncate(root+"/d/a", 1<<32-1), os.Truncate(root+"/d/b", 1<<32+7)); err != nil {
		t.Fatal(err)
	}
	a, err := archiveOf(t, root, "/downloads/d/?zip", Bounds{9, 1 << 40}, decider(all))
	if err != nil {
		t.Fatal(err)
	}
	var n counter
	if err := a.Write(&n); err != nil || int64(n) != a.Size() {
		t.Errorf("%d bytes of %d: %v", n, a.Size(), err)
	}
}

type counter int64

func (c *counter) Write(p []byte) (int, error) {
	*c += counter(len(p))
	return len(p), nil
}
