// Package rooted opens what stands below a directory, and nothing else, as the printed
// nginx configuration does: regular files and directories, no pipe or device, and no
// symbolic link below the directory unless it is told to follow them.
//
// What was looked at is what is opened: a name that is made a link in between is
// refused. Links that are followed never lead out of the directory, whatever they name;
// there nginx, told insecure_follow_symlinks, goes further. It does not protect against
// a directory that is itself a link, against hard links, or against another file system
// that is mounted below it.
package rooted

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"syscall"
)

// ErrKind says that a name is not that of a file or directory that may be opened: it is a
// link, a pipe, a device, or the other of the two.
var ErrKind = errors.New("neither a regular file nor a directory that may be opened")

// Options say what is followed.
type Options struct {
	// FollowSymlinks follows symbolic links that stay below the directory.
	FollowSymlinks bool
}

// A Dir is a directory that is open, below another one or that itself.
type Dir struct {
	root   *os.Root
	follow bool
	from   *os.Root // where links may lead that are followed
	path   string   // of this one, from there
}

// Open opens the directory that others are below of.
func Open(directory string, opts *Options) (*Dir, error) {
	root, err := os.OpenRoot(directory)
	if err != nil {
		return nil, err
	}
	return &Dir{root: root, follow: opts != nil && opts.FollowSymlinks, from: root, path: "."}, nil
}

// Close closes the directory.
func (d *Dir) Close() error { return d.root.Close() }

// Dir opens a directory below this one, by its path without slashes at the ends; empty
// opens the same one again. It must be closed before this one.
func (d *Dir) Dir(path string) (*Dir, error) {
	if path == "" {
		path = "."
	}
	if d.follow {
		at, err := openDir(d.root, path)
		if err != nil {
			return nil, err
		}
		return &Dir{root: at, follow: true, from: d.from, path: d.path + "/" + path}, nil
	}
	at, err := d.root.OpenRoot(".")
	if err != nil {
		return nil, err
	}
	for segment := range strings.SplitSeq(path, "/") {
		next, err := step(at, segment)
		if err = errors.Join(err, at.Close()); err != nil {
			return nil, err
		}
		at = next
	}
	return &Dir{root: at}, nil
}

// step opens one directory further that is no link.
func step(at *os.Root, name string) (*os.Root, error) {
	before, err := at.Lstat(name)
	if err != nil {
		return nil, err
	}
	if !before.IsDir() {
		return nil, fmt.Errorf("%w: a directory is asked for", ErrKind)
	}
	next, err := openDir(at, name)
	if err != nil {
		return nil, err
	}
	if now, err := next.Stat("."); err != nil || !os.SameFile(before, now) {
		return nil, errors.Join(fmt.Errorf("%w: it was replaced just now", ErrKind), err, next.Close())
	}
	return next, nil
}

// openDir opens a directory. Of a pipe nothing would come: what is before a slash is
// opened as a directory, and does not wait.
func openDir(root *os.Root, path string) (*os.Root, error) { return root.OpenRoot(path + "/.") }

// File opens a regular file below the directory, by its path without a slash before it.
func (d *Dir) File(path string) (*os.File, fs.FileInfo, error) {
	if d.follow {
		return open(d.root, path, nil)
	}
	parent, name := "", path
	if i := strings.LastIndexByte(path, '/'); i >= 0 {
		parent, name = path[:i], path[i+1:]
	}
	at, err := d.Dir(parent)
	if err != nil {
		return nil, nil, err
	}
	defer at.Close() //nolint:errcheck // it was read
	before, err := at.root.Lstat(name)
	if err != nil {
		return nil, nil, err
	}
	if !before.Mode().IsRegular() {
		return nil, nil, fmt.Errorf("%w: a regular file is asked for", ErrKind)
	}
	return open(at.root, name, before)
}

// maxEntries is how many names of a directory are read.
const maxEntries = 200_000

// Entries returns what in a directory may be opened, in no order, as it was when the names
// were read; of a link that is followed, what it leads to, by the link's name.
func (d *Dir) Entries() (entries []fs.FileInfo, err error) {
	f, err := d.root.Open(".")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	for {
		found, err := f.ReadDir(1024)
		for _, one := range found {
			info, err := one.Info() // os.Root has looked already
			if err == nil && d.follow && info.Mode()&fs.ModeSymlink != 0 {
				info, err = d.from.Stat(d.path + "/" + one.Name()) // which has the name that it was asked by
			}
			if err != nil {
				continue // it is gone, or a link that leads nowhere, or out
			}
			if info.IsDir() || info.Mode().IsRegular() {
				entries = append(entries, info)
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			return entries, nil
		case err != nil:
			return nil, err
		case len(entries) > maxEntries:
			return nil, fmt.Errorf("the directory holds more than %d files", maxEntries)
		}
	}
}

// open opens a regular file without waiting for whoever is at the other end of a pipe;
// that which was looked at before, if that was.
func open(root *os.Root, name string, before fs.FileInfo) (*os.File, fs.FileInfo, error) {
	f, err := root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, err
	}
	info, err := f.Stat()
	switch {
	case err != nil:
	case !info.Mode().IsRegular():
		err = fmt.Errorf("%w: a regular file is asked for", ErrKind)
	case before != nil && !os.SameFile(before, info):
		err = fmt.Errorf("%w: it was replaced just now", ErrKind)
	}
	if err != nil {
		return nil, nil, errors.Join(err, f.Close())
	}
	return f, info, nil
}
