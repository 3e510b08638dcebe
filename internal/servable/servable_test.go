package servable_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"securefiles/internal/servable"
)

// A stranger is nobody who owns anything here.
var stranger = servable.User{Name: "stranger", UID: 4_000_000, GIDs: []uint32{4_000_000}}

// plant makes files with modes; a name that ends with a slash is a directory, a mode of 0 a
// link to what follows an arrow.
func plant(t *testing.T, files map[string]os.FileMode) string {
	t.Helper()
	root := t.TempDir()
	for dir := root; len(dir) > len(os.TempDir()); dir = filepath.Dir(dir) {
		must(t, os.Chmod(dir, 0o755))
	}
	var names []string
	for name := range files {
		names = append(names, name)
	}
	slices.Sort(names)
	slices.Reverse(names) // a directory after what is in it
	for _, name := range names {
		link, target, isLink := strings.Cut(name, " -> ")
		full := filepath.Join(root, link)
		must(t, os.MkdirAll(filepath.Dir(full), 0o755))
		switch {
		case isLink:
			must(t, os.Symlink(target, full))
		case strings.HasSuffix(name, "/"):
			must(t, os.MkdirAll(full, 0o755))
			must(t, os.Chmod(full, files[name]))
			t.Cleanup(func() { _ = os.Chmod(full, 0o755) }) // or it could not be removed
		default:
			must(t, os.WriteFile(full, []byte("a\n"), 0o600))
			must(t, os.Chmod(full, files[name]))
		}
	}
	return root
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func walk(t *testing.T, root string, opts servable.Options) *servable.Report {
	t.Helper()
	if opts.Limit == 0 {
		opts.Limit = 100
	}
	report, err := servable.Walk(t.Context(), root, &opts)
	must(t, err)
	return report
}

// said is a report in short: paths, the beginnings of reasons, numbers of files.
func said(r *servable.Report) []string {
	all := []string{}
	for _, p := range r.Problems {
		all = append(all, fmt.Sprintf("%s|%s|%d", p.Path, p.Reason, p.Files))
	}
	return all
}

func expect(t *testing.T, r *servable.Report, want ...string) {
	t.Helper()
	got := said(r)
	if len(got) != len(want) {
		t.Fatalf("listed %q, want %q", got, want)
	}
	for i := range want {
		path, reason, _ := strings.Cut(want[i], "|")
		if gotPath, gotReason, _ := strings.Cut(got[i], "|"); path != gotPath || !strings.Contains(gotReason, reason) {
			t.Errorf("listed %q, want %q", got[i], want[i])
		}
	}
}

func TestFilesThatAreReadableAreNotListed(t *testing.T) {
	root := plant(t, map[string]os.FileMode{"a.txt": 0o644, "passed/": 0o711, "passed/b.txt": 0o604})
	r := walk(t, root, servable.Options{User: stranger})
	expect(t, r)
	if r.Files != 2 || r.More != 0 {
		t.Errorf("%d files, %d more", r.Files, r.More)
	}
}

// The kernel looks at one class alone: the owner's, else the group's, else that of others.
func TestAnOwnerWhomTheModeRefusesIsNotHelpedByOthers(t *testing.T) {
	uid, gid := uint32(os.Getuid()), uint32(os.Getgid())
	if uid == 0 {
		uid = 1234 // for root, no mode counts
	}
	for _, row := range []struct {
		user servable.User
		mode os.FileMode
		want bool
	}{
		{servable.User{UID: uid}, 0o400, true}, {servable.User{UID: uid}, 0o077, false},
		{servable.User{UID: 4_000_000, GIDs: []uint32{7, gid}}, 0o040, true}, {servable.User{UID: 4_000_000, GIDs: []uint32{7, gid}}, 0o707, false},
		{stranger, 0o004, true}, {stranger, 0o770, false},
		{servable.User{UID: 0}, 0, true},
	} {
		root := plant(t, map[string]os.FileMode{"a.txt": row.mode})
		if os.Getuid() == 0 {
			must(t, os.Chown(filepath.Join(root, "a.txt"), int(uid), int(gid)))
		}
		if got := len(walk(t, root, servable.Options{User: row.user}).Problems) == 0; got != row.want {
			t.Errorf("%+v of a file with mode %v: readable is %v", row.user, row.mode, got)
		}
	}
}

func TestADirectoryThatMayNotBeEnteredStandsForAllThatIsInIt(t *testing.T) {
	root := plant(t, map[string]os.FileMode{"locked/": 0o744, "locked/a.txt": 0o644, "locked/deep/b.txt": 0o644, "empty/": 0o700})
	expect(t, walk(t, root, servable.Options{User: stranger}), "/locked/|stranger may not enter it: drwxr--r--")
	if r := walk(t, root, servable.Options{User: stranger}); r.Problems[0].Files != 2 || r.Files != 2 {
		t.Errorf("%+v", r)
	}
}

func TestADirectoryAboveTheRootThatMayNotBeEntered(t *testing.T) {
	above := plant(t, map[string]os.FileMode{"closed/": 0o700, "closed/root/a.txt": 0o644, "link -> closed/root": 0})
	for _, root := range []string{filepath.Join(above, "closed/root"), filepath.Join(above, "link")} {
		r := walk(t, root, servable.Options{User: stranger})
		expect(t, r, "/|stranger may not enter "+filepath.Join(above, "closed"))
		if r.Problems[0].Files != 1 && root != filepath.Join(above, "link") {
			t.Errorf("%+v", r.Problems)
		}
	}
}

func TestARootThatIsNotThere(t *testing.T) {
	above := plant(t, map[string]os.FileMode{"file.txt": 0o644, "dangling -> none": 0, "shut/": 0o744, "shut/a.txt": 0o644, "a -> b": 0, "b -> a": 0})
	for root, want := range map[string]string{
		"none": "/|none does not exist", "none/deep": "/|none does not exist", "file.txt": "/|the root is not a directory", "file.txt/x": "/|is not a directory",
		"dangling": "/|none does not exist", "shut": "/|stranger may not enter the root", "a": "/|links lead in a circle",
	} {
		expect(t, walk(t, filepath.Join(above, root), servable.Options{User: stranger}), want)
	}
}

func TestLinksAreListedUnlessTheyAreFollowed(t *testing.T) {
	root := plant(t, map[string]os.FileMode{"a.txt": 0o644, "none.txt": 0, "link.txt -> a.txt": 0, "bad.txt -> none.txt": 0, "dangling.txt -> nothing": 0, "again -> .": 0, "dir/b.txt": 0, "dear -> dir": 0})
	r := walk(t, root, servable.Options{User: stranger})
	expect(t, r, "/again|a symbolic link, which nginx does not follow", "/bad.txt|a symbolic link, which", "/dangling.txt|a symbolic link", "/dear|a symbolic link", "/dir/b.txt|may not read it", "/link.txt|a symbolic link", "/none.txt|may not read it")
	r = walk(t, root, servable.Options{User: stranger, FollowSymlinks: true})
	expect(t, r, "/bad.txt|may not read it", "/dangling.txt|a symbolic link: "+filepath.Join(root, "nothing")+" does not exist", "/dir/b.txt|may not read it", "/none.txt|may not read it")
}

func TestNamesThatNoRequestCanHave(t *testing.T) {
	root := plant(t, map[string]os.FileMode{"trail ": 0o644, "new\nline": 0o644, "\xff": 0o644, `back\slash`: 0o644, " lead/a.txt": 0o644, "per%cent?#": 0o644})
	expect(t, walk(t, root, servable.Options{User: stranger}), "/ lead/|no request can name it", "/back\\slash|backslash", "/new\nline|control character", "/trail |blank at an end", "/\xff|not valid UTF-8")
}

func TestAPipeIsNotAFile(t *testing.T) {
	root := plant(t, nil)
	must(t, syscall.Mkfifo(filepath.Join(root, "pipe"), 0o666))
	expect(t, walk(t, root, servable.Options{User: stranger}), "/pipe|a pipe, not a regular file")
}

func TestAccessControlListsAreCounted(t *testing.T) {
	root := plant(t, map[string]os.FileMode{"a.txt": 0o644})
	acl := []byte{2, 0, 0, 0} // acl(5), as the kernel keeps it: tag, permissions, id
	for _, e := range [][2]uint16{{0x01, 6}, {0x02, 0}, {0x04, 4}, {0x10, 4}, {0x20, 4}} {
		acl = binary.LittleEndian.AppendUint16(binary.LittleEndian.AppendUint16(acl, e[0]), e[1])
		id := uint32(1<<32 - 1)
		if e[0] == 0x02 {
			id = stranger.UID
		}
		acl = binary.LittleEndian.AppendUint32(acl, id)
	}
	if err := unix.Setxattr(filepath.Join(root, "a.txt"), "system.posix_acl_access", acl, 0); errors.Is(err, unix.ENOTSUP) {
		t.Skip("the file system of temporary files has no access control lists")
	} else if err != nil {
		t.Fatal(err)
	}
	if r := walk(t, root, servable.Options{User: stranger}); r.ACLs != 1 {
		t.Errorf("%d access control lists", r.ACLs)
	}
}

func TestTheListIsBounded(t *testing.T) {
	files := map[string]os.FileMode{}
	for i := range 7 {
		files[fmt.Sprint(i)] = 0
	}
	r := walk(t, plant(t, files), servable.Options{User: stranger, Limit: 3})
	if len(r.Problems) != 3 || r.More != 4 || r.Files != 7 {
		t.Errorf("%d listed, %d more of %d", len(r.Problems), r.More, r.Files)
	}
}

func TestAWalkEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	root := plant(t, map[string]os.FileMode{"a.txt": 0o644})
	if _, err := servable.Walk(ctx, root, &servable.Options{User: stranger}); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}

func TestAUserThatIsNotThereIsNamed(t *testing.T) {
	if _, err := servable.LookupUser("nobody-of-that-name"); err == nil || !strings.Contains(err.Error(), "nobody-of-that-name") {
		t.Errorf("error %v", err)
	}
	u, err := servable.LookupUser("0")
	if err != nil || u.UID != 0 || u.Name != "root" {
		t.Errorf("%+v, %v", u, err)
	}
}

func TestOneFile(t *testing.T) {
	root := plant(t, map[string]os.FileMode{
		"a.txt": 0o644, "shut.txt": 0o640, "locked/": 0o700, "locked/a.txt": 0o644, "link.txt -> a.txt": 0, "linked -> passed": 0, "passed/": 0o711, "passed/a.txt": 0o604, "dangling -> none": 0,
	})
	for path, want := range map[string]string{
		"/a.txt": "", "passed/a.txt": "", "/shut.txt": "stranger may not read " + root + "/shut.txt: -rw-r-----", "/locked/a.txt": "stranger may not enter " + root + "/locked: drwx------",
		"/none.txt": root + "/none.txt does not exist", "/none/a.txt": root + "/none does not exist", "/a.txt/b": root + "/a.txt is not a directory", "/passed": root + "/passed is a directory",
		"/link.txt": root + "/link.txt is a symbolic link", "/linked/a.txt": root + "/linked is a symbolic link", "/dangling": root + "/dangling is a symbolic link",
	} {
		if got := servable.File(root, path, &servable.Options{User: stranger}); !strings.HasPrefix(got, want) || (got == "") != (want == "") {
			t.Errorf("%s: %q, want %q", path, got, want)
		}
	}
	for path, want := range map[string]string{"/link.txt": "", "/linked/a.txt": "", "/linked/b.txt": root + "/linked/b.txt does not exist", "/dangling": root + "/none does not exist"} {
		if got := servable.File(root, path, &servable.Options{User: stranger, FollowSymlinks: true}); !strings.HasPrefix(got, want) || (got == "") != (want == "") {
			t.Errorf("with links followed, %s: %q, want %q", path, got, want)
		}
	}
	if got := servable.File(filepath.Join(root, "none"), "/a.txt", &servable.Options{User: stranger}); got != filepath.Join(root, "none")+" does not exist" {
		t.Error(got)
	}
}

func TestASocketThatTheUserMayConnectTo(t *testing.T) {
	root := plant(t, map[string]os.FileMode{"open/": 0o711, "shut/": 0o700, "file": 0o666})
	for dir, mode := range map[string]os.FileMode{"open": 0o666, "shut": 0o666} {
		l, err := net.Listen("unix", filepath.Join(root, dir, "s"))
		must(t, err)
		t.Cleanup(func() { _ = l.Close() }) // the test is over
		must(t, os.Chmod(filepath.Join(root, dir, "s"), mode))
	}
	for name, want := range map[string]string{"open/s": "", "shut/s": root + "/shut/s is out of reach: stranger may not enter", "file": root + "/file is no socket", "none": root + "/none does not exist"} {
		if got := servable.Socket(filepath.Join(root, name), stranger); !strings.HasPrefix(got, want) || (got == "") != (want == "") {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	must(t, os.Chmod(filepath.Join(root, "open/s"), 0o664))
	if got := servable.Socket(filepath.Join(root, "open/s"), stranger); !strings.HasPrefix(got, "stranger may not connect to "+root+"/open/s: Srw-rw-r--") {
		t.Error(got)
	}
}
