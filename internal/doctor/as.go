package doctor

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"strings"
	"syscall"

	"securefiles/internal/servable"
)

// errNotRoot says that only root can be somebody else.
var errNotRoot = errors.New("only root can look as another user")

// findAs runs find as another user, so that the kernel itself says what they may:
// by owners, modes, access control lists, and what a network file system thinks.
func findAs(ctx context.Context, u servable.User, args ...string) (out, denied string, err error) {
	if os.Geteuid() != 0 {
		return "", "", errNotRoot
	}
	cmd := exec.CommandContext(ctx, "find", args...)
	cmd.Dir, cmd.Env = "/", []string{"PATH=/usr/bin:/bin", "LC_ALL=C"}
	gid := uint32(0)
	if len(u.GIDs) > 0 {
		gid = u.GIDs[0]
	} else if u.UID != 0 {
		return "", "", errors.New("nobody knows the groups of " + u.Name)
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: u.UID, Gid: gid, Groups: u.GIDs}}
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err = cmd.Run()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) && exit.Exited() {
		err = nil // it says what it could not look into
	}
	return stdout.String(), stderr.String(), err
}

// canRead asks the kernel whether a user can read a file. It is not known where this is
// not root.
func canRead(ctx context.Context, u servable.User, file string) (can, known bool) {
	out, _, err := findAs(ctx, u, file, "-maxdepth", "0", "-readable", "-print")
	return out != "", err == nil
}

// refusedBelow asks the kernel for what a user cannot read below a directory: the first of
// it, and how much there is.
func refusedBelow(ctx context.Context, u servable.User, dir string) (first string, n int, err error) {
	out, denied, err := findAs(ctx, u, dir, "-type", "f", "!", "-readable", "-print0")
	files := strings.FieldsFunc(out, func(r rune) bool { return r == 0 })
	for line := range strings.Lines(denied) { // find: '/srv/files/x': Permission denied
		if _, rest, ok := strings.Cut(line, "find: "); ok && strings.Contains(rest, "Permission denied") {
			name, _, _ := strings.Cut(rest, ": Permission denied")
			files = append(files, strings.Trim(name, "'"))
		}
	}
	if len(files) > 0 {
		first = files[0]
	}
	return first, len(files), err
}
