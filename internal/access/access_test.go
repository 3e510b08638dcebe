package access

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Permission denied says which user, whose file, and which command mends it. As root
// the tests are about others than whom they run as, so nothing needs to be forbidden.
func TestPermissionDeniedSaysWhoAndWhatToDo(t *testing.T) {
	top := t.TempDir()
	if err := os.Chmod(filepath.Dir(top), 0o755); err != nil {
		t.Fatal(err)
	}
	owner, group := uint32(os.Getuid()), uint32(os.Getgid())
	stranger := process{owner + 54321, []uint32{group + 54321}}
	member := process{owner + 54321, []uint32{group + 54321, group}}
	of := func(p process) string { return "this is " + p.String() + ", and " }
	whose := userName(owner) + ":" + groupName(group)
	for _, row := range []struct {
		name      string
		file      string
		dir, mode fs.FileMode
		process   process
		want      string // with DIR and FILE
	}{
		{"a file that mv put there", "policy.csv", 0o755, 0o600, stranger,
			of(stranger) + "FILE is of " + whose + fmt.Sprintf(" with mode 0600: chgrp %d FILE && chmod g+r FILE", group+54321)},
		{"a file of the group that may not read it", "policy.csv", 0o755, 0o600, member, of(member) + "FILE is of " + whose + " with mode 0600: chmod g+r FILE"},
		{"a directory before it", "policy.csv", 0o700, 0o644, stranger,
			of(stranger) + "DIR is of " + whose + fmt.Sprintf(" with mode 0700: chgrp %d DIR && chmod g+x DIR", group+54321)},
		{"a directory of the group", "policy.csv", 0o740, 0o644, member, of(member) + "DIR is of " + whose + " with mode 0740: chmod g+x DIR"},
		{"a name that a shell would take apart", "it's mine.csv", 0o755, 0o600, member, of(member) + "FILE is of " + whose + ` with mode 0600: chmod g+r 'DIR/it'\''s mine.csv'`},
		{"modes that let it in", "policy.csv", 0o755, 0o640, member,
			"this is " + member.String() + ", whom owner and mode of FILE keep out nowhere: look at access control lists (getfacl), at SELinux or AppArmor, and at what the unit hides"},
	} {
		dir := filepath.Join(top, strings.ReplaceAll(row.name, " ", "-"))
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(top, 0o755); err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(dir, row.file)
		if err := os.WriteFile(file, nil, row.mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(dir, row.dir); err != nil {
			t.Fatal(err)
		}
		want := strings.NewReplacer("FILE", file, "DIR", dir).Replace(row.want)
		if got := advice(file, row.process); got != want {
			t.Errorf("%s\n got %s\nwant %s", row.name, got, want)
		}
	}
}

func TestOtherErrorsAreNoQuestionOfPermission(t *testing.T) {
	file := filepath.Join(t.TempDir(), "policy.csv")
	denied := &fs.PathError{Op: "open", Path: file, Err: fs.ErrPermission}
	for _, row := range []struct {
		err  error
		says bool
	}{
		{nil, false},
		{&fs.PathError{Op: "open", Path: file, Err: fs.ErrNotExist}, false},
		{fs.ErrPermission, false}, // of which file?
		{denied, true},
		{fmt.Errorf("read policy: %w", denied), true},
	} {
		if got := Advice(row.err); (got != "") != row.says {
			t.Errorf("%v: %q", row.err, got)
		}
	}
}
