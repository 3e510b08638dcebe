// Package access says whom the mode of a file lets in, why a process may not read a
// file, and what to do about it.
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
	p := process{uint32(os.Geteuid()), []uint32{uint32(os.Getegid())}}
	groups, _ := os.Getgroups() // without them it is the own one alone
	for _, g := range groups {
		p.groups = append(p.groups, uint32(g))
	}
	return advice(at.Path, p)
}

// Reading is Advice for a file that somebody else could not read; nothing where this
// process may.
func Reading(file string) string {
	if err := syscall.Access(file, uint32(Read)); err != nil {
		return Advice(&fs.PathError{Op: "access", Path: file, Err: err})
	}
	return ""
}

// The rights to read a file, to write it or connect to a socket, and to go through a
// directory.
const (
	Read   fs.FileMode = 0o4
	Write  fs.FileMode = 0o2
	Search fs.FileMode = 0o1
)

// May reports whether the mode of a file lets a user of some groups. As the kernel
// does, it looks at one class: an owner whom the mode refuses is not helped by what
// others may.
func May(info fs.FileInfo, user uint32, groups []uint32, right fs.FileMode) bool {
	return user == 0 || info.Mode().Perm()>>class(info, user, groups)&right == right
}

// The classes of a mode, by how far its bits stand from the right.
const (
	ofOwner  = 6
	ofGroup  = 3
	ofOthers = 0
)

// class is the one that counts for a user of some groups.
func class(info fs.FileInfo, user uint32, groups []uint32) int {
	switch of := stat(info); {
	case of.Uid == user:
		return ofOwner
	case slices.Contains(groups, of.Gid):
		return ofGroup
	}
	return ofOthers
}

func stat(info fs.FileInfo) *syscall.Stat_t {
	return info.Sys().(*syscall.Stat_t) // what Lstat and Stat return on Unix
}

// A process is a user, and groups of which the first is its own.
type process struct {
	user   uint32
	groups []uint32
}

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
		if text := p.lacks(path[:i], Search); text != "" {
			return text
		}
	}
	if text := p.lacks(path, Read); text != "" {
		return text
	}
	return fmt.Sprintf("this is %s, whom owner and mode of %s keep out nowhere: look at access control lists (getfacl), at SELinux or AppArmor, and at what the unit hides", p, path)
}

// lacks says that a process has not a right on a path, and how to give it; nothing
// if it has.
func (p process) lacks(path string, right fs.FileMode) string {
	info, err := os.Stat(path)
	if err != nil || May(info, p.user, p.groups, right) {
		return ""
	}
	letter := map[fs.FileMode]string{Read: "r", Search: "x"}[right]
	name := quoted(path)
	var mend string
	switch class(info, p.user, p.groups) {
	case ofOwner:
		mend = fmt.Sprintf("chmod u+%s %s", letter, name)
	case ofGroup:
		mend = fmt.Sprintf("chmod g+%s %s", letter, name)
	default:
		mend = fmt.Sprintf("chgrp %s %s && chmod g+%s %[2]s", groupName(p.groups[0]), name, letter)
	}
	return fmt.Sprintf("this is %s, and %s is of %s:%s with mode %04o: %s", p, path, Owner(info), Group(info), info.Mode().Perm(), mend)
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

// Owner returns whose a file is, by name, or by number where there is none.
func Owner(info fs.FileInfo) string { return userName(stat(info).Uid) }

// Group returns the group of a file, by name, or by number where there is none.
func Group(info fs.FileInfo) string { return groupName(stat(info).Gid) }

func userName(id uint32) string {
	text := strconv.FormatUint(uint64(id), 10)
	if u, err := user.LookupId(text); err == nil {
		return u.Username
	}
	return text
}

func groupName(id uint32) string {
	text := strconv.FormatUint(uint64(id), 10)
	if g, err := user.LookupGroupId(text); err == nil {
		return g.Name
	}
	return text
}

// plain is what a shell reads as it stands.
var plain = regexp.MustCompile(`^[A-Za-z0-9_./@:+-]+$`)

func quoted(path string) string {
	if plain.MatchString(path) {
		return path
	}
	return "'" + strings.ReplaceAll(path, "'", `'\''`) + "'"
}
