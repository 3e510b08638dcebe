// Package access says why a process may not read a file, and what to do about it.
//
// It goes by owners, groups and modes. What else keeps a process out, such as access
// control lists and SELinux, it names, and does not look at.
package access

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// Advice says of an error for want of permission whose the file is, who this process
// is, and which command mends it; of any other error it says nothing.
func Advice(err error) string {
	var at *fs.PathError
	if !errors.Is(err, fs.ErrPermission) || !errors.As(err, &at) {
		return ""
	}
	groups, _ := os.Getgroups() // without them it is the own one alone
	return advice(at.Path, process{os.Geteuid(), append([]int{os.Getegid()}, groups...)})
}

// Reading is Advice for a file that somebody else could not read; nothing where this
// process may.
func Reading(file string) string {
	if err := syscall.Access(file, read); err != nil {
		return Advice(&fs.PathError{Op: "access", Path: file, Err: err})
	}
	return ""
}

// A process is a user, and groups of which the first is its own.
type process struct {
	user   int
	groups []int
}

// The rights to read a file, and to go through a directory.
const (
	read   = 0o4
	search = 0o1
)

// advice is about the first thing on the way to a file that keeps a process out.
func advice(file string, p process) string {
	path, err := filepath.Abs(file)
	if err != nil {
		return ""
	}
	for i := 1; i < len(path); i++ {
		if path[i] != '/' {
			continue
		}
		if text := p.lacks(path[:i], search); text != "" {
			return text
		}
	}
	if text := p.lacks(path, read); text != "" {
		return text
	}
	return fmt.Sprintf("this is %s, whom owner and mode of %s keep out nowhere: look at access control lists (getfacl), at SELinux or AppArmor, and at what the unit hides", p, path)
}

// lacks says that a process has not a right on a path, and how to give it; nothing
// if it has.
func (p process) lacks(path string, right fs.FileMode) string {
	info, err := os.Stat(path)
	if err != nil {
		return ""
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok || p.user == 0 {
		return ""
	}
	mode := info.Mode().Perm()
	letter := map[fs.FileMode]string{read: "r", search: "x"}[right]
	name := quoted(path)
	var mend string
	switch owner, group := int(stat.Uid), int(stat.Gid); {
	case owner == p.user && mode>>6&right == 0:
		mend = fmt.Sprintf("chmod u+%s %s", letter, name)
	case owner == p.user:
	case slices.Contains(p.groups, group) && mode>>3&right == 0:
		mend = fmt.Sprintf("chmod g+%s %s", letter, name)
	case slices.Contains(p.groups, group):
	case mode&right == 0:
		mend = fmt.Sprintf("chgrp %s %s && chmod g+%s %[2]s", groupName(p.groups[0]), name, letter)
	}
	if mend == "" {
		return ""
	}
	return fmt.Sprintf("this is %s, and %s is of %s:%s with mode %04o: %s", p, path, userName(int(stat.Uid)), groupName(int(stat.Gid)), mode, mend)
}

// String names the user and the groups.
func (p process) String() string {
	var groups []string
	for _, g := range p.groups {
		if name := groupName(g); !slices.Contains(groups, name) {
			groups = append(groups, name)
		}
	}
	return fmt.Sprintf("user %s of group %s", userName(p.user), strings.Join(groups, ", "))
}

func userName(id int) string {
	if u, err := user.LookupId(strconv.Itoa(id)); err == nil {
		return u.Username
	}
	return strconv.Itoa(id)
}

func groupName(id int) string {
	if g, err := user.LookupGroupId(strconv.Itoa(id)); err == nil {
		return g.Name
	}
	return strconv.Itoa(id)
}

// plain is what a shell reads as it stands.
var plain = regexp.MustCompile(`^[A-Za-z0-9_./@:+-]+$`)

func quoted(path string) string {
	if plain.MatchString(path) {
		return path
	}
	return "'" + strings.ReplaceAll(path, "'", `'\''`) + "'"
}
