// Package servable says which files below a directory nginx cannot serve, though
// policy may allow them.
//
// What nginx's user may do is computed from owners, groups and modes, along the whole
// path; nothing is opened as that user, so it needs no privilege but to look. Access
// control lists are told of and not evaluated; SELinux, AppArmor, capabilities and
// what a network file system thinks of users are not looked at.
package servable

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"securefiles/internal/access"
	"securefiles/pathguard"
)

// A User is whom files are read as.
type User struct {
	Name string
	UID  uint32
	GIDs []uint32
}

// LookupUser returns a user of this machine, by name or number.
func LookupUser(name string) (User, error) {
	found, err := user.Lookup(name)
	if err != nil {
		if found, err = user.LookupId(name); err != nil {
			return User{}, fmt.Errorf("user %s: there is none on this machine", name)
		}
	}
	groups, err := found.GroupIds()
	if err != nil {
		return User{}, fmt.Errorf("groups of user %s: %w", name, err)
	}
	u := User{Name: found.Username}
	for i, text := range append([]string{found.Uid}, groups...) {
		id, err := strconv.ParseUint(text, 10, 32)
		if err != nil {
			return User{}, fmt.Errorf("ids of user %s: %w", name, err)
		}
		if i == 0 {
			u.UID = uint32(id)
		} else {
			u.GIDs = append(u.GIDs, uint32(id))
		}
	}
	return u, nil
}

// NginxUser returns whom nginx usually runs as: www-data, nginx or http, whichever
// there is first.
func NginxUser() (User, error) {
	for _, name := range []string{"www-data", "nginx", "http"} {
		if u, err := LookupUser(name); err == nil {
			return u, nil
		}
	}
	return User{}, errors.New("there is no user www-data, nginx or http on this machine: name the one that nginx runs as")
}

// may reports whether the mode of a file lets the user.
func (u User) may(info fs.FileInfo, right fs.FileMode) bool {
	return access.May(info, u.UID, u.GIDs, right)
}

// Options say how nginx is set up. The zero value follows no links and keeps no problem.
type Options struct {
	User User
	// FollowSymlinks is a download's insecure_follow_symlinks.
	FollowSymlinks bool
	// Limit is how many problems are kept; all are counted.
	Limit int
	// Progress is called with the number of files that were looked at, now and then.
	Progress func(files int)
}

// A Problem is a file that cannot be served, or a directory with all that is in it.
type Problem struct {
	// Path is below the root and begins with a slash; a directory's ends with one.
	Path string
	// Reason says why, and what to do.
	Reason string
	// Files are how many files it keeps from being served.
	Files int
}

// A Report is what was found below a root.
type Report struct {
	// Files are how many there are, links and special files included.
	Files int
	// Problems are the first ones, in the order of their names; More says how many others
	// there are.
	Problems []Problem
	More     int
	// ACLs are how many files and directories have an access control list: whether they can be
	// read is not known.
	ACLs int
}

// Walk looks at everything below a root. Its error says that the walk was not finished;
// what it cannot look into is a problem in the report.
func Walk(ctx context.Context, root string, opts *Options) (*Report, error) {
	w := &walker{ctx: ctx, opts: *opts, seen: map[inode]bool{}}
	info, problem := w.reach(root)
	switch {
	case problem == "" && !info.IsDir():
		problem = "the root is not a directory"
	case problem == "" && !opts.User.may(info, access.Search):
		problem = w.refuses("may not enter the root", info)
	}
	if problem != "" {
		n, err := w.count(root)
		w.report.Files += n
		w.add("/", problem, n)
		return &w.report, err
	}
	w.acl(root)
	w.linked = []linked{{root, "/", info}}
	for len(w.linked) > 0 {
		next := w.linked[0]
		w.linked = w.linked[1:]
		if err := w.directory(next.dir, next.below, next.info); err != nil {
			return &w.report, err
		}
	}
	return &w.report, nil
}

// A linked is a directory that a link leads to. It is looked at after all others, so
// that what has a name of its own is told by that.
type linked struct {
	dir, below string
	info       fs.FileInfo
}

type inode struct{ device, number uint64 }

type walker struct {
	ctx    context.Context
	opts   Options
	report Report
	linked []linked
	seen   map[inode]bool // directories, where links may lead to them again
}

func (w *walker) add(path, reason string, files int) {
	if len(w.report.Problems) < w.opts.Limit {
		w.report.Problems = append(w.report.Problems, Problem{path, reason, files})
	} else {
		w.report.More++
	}
}

// directory looks at what is in a directory that the user may enter.
func (w *walker) directory(dir, below string, info fs.FileInfo) error {
	if of := info.Sys().(*syscall.Stat_t); w.opts.FollowSymlinks {
		id := inode{uint64(of.Dev), of.Ino}
		if w.seen[id] {
			return nil // it was looked at by another name
		}
		w.seen[id] = true
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		w.add(below, fmt.Sprintf("cannot be looked into, so nobody knows what is in it: %v", unwrap(err)), 0)
	}
	for _, entry := range entries {
		if err := w.ctx.Err(); err != nil {
			return fmt.Errorf("walk %s: %w", dir, err)
		}
		if err := w.entry(filepath.Join(dir, entry.Name()), below+entry.Name()); err != nil {
			return err
		}
	}
	return nil
}

// entry looks at one name.
func (w *walker) entry(name, below string) error {
	info, err := os.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // it went meanwhile
	}
	if err != nil {
		w.file(below, fmt.Sprintf("cannot be looked at: %v", unwrap(err)))
		return nil
	}
	reason, link := "", info.Mode()&fs.ModeSymlink != 0
	if _, err := pathguard.New(below); err != nil {
		reason = fmt.Sprintf("no request can name it: %v; rename it", err)
	}
	if link {
		switch {
		case !w.opts.FollowSymlinks:
			reason = "a symbolic link, which nginx does not follow: put the file in its place, or set insecure_follow_symlinks"
		case reason == "":
			to, why := w.reach(name)
			if why != "" {
				reason = "a symbolic link: " + why
				break
			}
			info = to
		}
	}
	if info.IsDir() {
		if reason == "" {
			w.acl(name)
			if w.opts.User.may(info, access.Search) {
				if link {
					w.linked = append(w.linked, linked{name, below + "/", info})
					return nil
				}
				return w.directory(name, below+"/", info)
			}
			reason = w.refuses("may not enter it", info)
		}
		n, err := w.count(name)
		w.report.Files += n
		if n > 0 {
			w.add(below+"/", reason, n)
		}
		return err
	}
	switch {
	case reason != "":
	case !info.Mode().IsRegular():
		reason = kind(info.Mode()) + ", not a regular file"
	default:
		w.acl(name)
		if !w.opts.User.may(info, access.Read) {
			reason = w.refuses("may not read it", info)
		}
	}
	w.file(below, reason)
	return nil
}

// file counts one, with what is wrong with it.
func (w *walker) file(below, reason string) {
	w.report.Files++
	if reason != "" {
		w.add(below, reason, 1)
	}
	if w.opts.Progress != nil && w.report.Files%1000 == 0 {
		w.opts.Progress(w.report.Files)
	}
}

func (w *walker) acl(name string) {
	if n, err := unix.Getxattr(name, "system.posix_acl_access", nil); err == nil && n > 0 {
		w.report.ACLs++
	}
}

// refuses says what the user may not.
func (w *walker) refuses(what string, info fs.FileInfo) string {
	return fmt.Sprintf("%s %s: %v, owner %s, group %s", w.opts.User.Name, what, info.Mode(), access.Owner(info), access.Group(info))
}

// count returns how many files there are below a directory that is not served from.
func (w *walker) count(dir string) (n int, err error) {
	err = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			n++
		}
		return w.ctx.Err() // what cannot be looked into counts for nothing
	})
	if err != nil {
		return n, fmt.Errorf("walk %s: %w", dir, err)
	}
	return n, nil
}

// maxLinks is how many links the kernel follows in one path.
const maxLinks = 40

// reach goes to where a path leads, links followed, as the user would: it says what is
// there, or why the user does not come there.
func (w *walker) reach(path string) (fs.FileInfo, string) {
	at, rest := "/", strings.Split(filepath.Clean(path), "/")
	info, err := os.Lstat(at)
	for links := 0; err == nil && len(rest) > 0; {
		next := rest[0]
		rest = rest[1:]
		if next == "" || next == "." {
			continue
		}
		if !info.IsDir() {
			return nil, fmt.Sprintf("%s is not a directory", at)
		}
		w.acl(at)
		if !w.opts.User.may(info, access.Search) {
			return nil, fmt.Sprintf("%s is out of reach: %s", path, w.refuses("may not enter "+at, info))
		}
		if next == ".." {
			at = filepath.Dir(at)
			info, err = os.Lstat(at)
			continue
		}
		name := filepath.Join(at, next)
		if info, err = os.Lstat(name); err != nil {
			break
		}
		if info.Mode()&fs.ModeSymlink == 0 {
			at = name
			continue
		}
		if links++; links > maxLinks {
			return nil, "links lead in a circle"
		}
		target, err := os.Readlink(name)
		if err != nil {
			return nil, fmt.Sprintf("%s cannot be read: %v", name, unwrap(err))
		}
		if filepath.IsAbs(target) {
			at = "/"
		}
		if info, err = os.Lstat(at); err != nil {
			return nil, fmt.Sprintf("%s cannot be looked at: %v", at, unwrap(err))
		}
		rest = append(strings.Split(target, "/"), rest...)
	}
	var missing *fs.PathError
	if errors.Is(err, fs.ErrNotExist) && errors.As(err, &missing) {
		return nil, fmt.Sprintf("%s does not exist", missing.Path)
	}
	if err != nil {
		return nil, fmt.Sprintf("%s cannot be looked at: %v", path, unwrap(err))
	}
	return info, ""
}

// unwrap drops the path of an error that is told beside it.
func unwrap(err error) error {
	var of *fs.PathError
	if errors.As(err, &of) {
		return of.Err
	}
	return err
}

func kind(mode fs.FileMode) string {
	switch {
	case mode&fs.ModeNamedPipe != 0:
		return "a pipe"
	case mode&fs.ModeSocket != 0:
		return "a socket"
	}
	return "a device"
}

// File says why nginx cannot serve one file, whose path is below the root as policies
// have it, and what to do; nothing where it can.
func File(root, path string, opts *Options) string {
	w := &walker{opts: *opts}
	info, problem := w.reach(root)
	for name, rest := filepath.Clean(root), strings.Split(strings.Trim(path, "/"), "/"); ; rest = rest[1:] {
		switch {
		case problem != "":
			return problem
		case len(rest) > 0 && !info.IsDir():
			return fmt.Sprintf("%s is not a directory", name)
		case len(rest) > 0 && !opts.User.may(info, access.Search):
			return w.refuses("may not enter "+name, info)
		case len(rest) == 0 && info.IsDir():
			return fmt.Sprintf("%s is a directory: only files are served, and no listing", name)
		case len(rest) == 0 && !info.Mode().IsRegular():
			return fmt.Sprintf("%s is %s, not a regular file", name, kind(info.Mode()))
		case len(rest) == 0 && !opts.User.may(info, access.Read):
			return w.refuses("may not read "+name, info)
		case len(rest) == 0:
			return ""
		}
		name = filepath.Join(name, rest[0])
		of, err := os.Lstat(name)
		if errors.Is(err, fs.ErrNotExist) {
			return fmt.Sprintf("%s does not exist", name)
		}
		if err != nil {
			return fmt.Sprintf("%s cannot be looked at: %v", name, unwrap(err))
		}
		info = of
		if info.Mode()&fs.ModeSymlink != 0 {
			if !opts.FollowSymlinks {
				return fmt.Sprintf("%s is a symbolic link, which nginx does not follow: put the file in its place, or set insecure_follow_symlinks", name)
			}
			info, problem = w.reach(name)
		}
	}
}

// Socket says why the user cannot connect to a unix socket, and what to do; nothing where it
// can. That nobody listens on it is not looked at.
func Socket(path string, user User) string {
	w := &walker{opts: Options{User: user}}
	info, problem := w.reach(path)
	switch {
	case problem != "":
		return problem
	case info.Mode()&fs.ModeSocket == 0:
		return fmt.Sprintf("%s is no socket", path)
	case !user.may(info, access.Write):
		return w.refuses("may not connect to "+path, info)
	}
	return ""
}
