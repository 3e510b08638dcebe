package pathguard

import "strings"

// A Dir names a directory below a download, `/project/`, or the whole download, `/`. It is
// no [Path], and none can be made of it: what names a directory opens no file. Two are
// equal, with ==, exactly when they are the same name. The zero Dir names none.
type Dir struct{ s string }

// ParseDir is [Parse] for a directory: the path has one slash at its end, and what is
// before it, if anything, is a path as the package describes.
func ParseDir(target, prefix string) (Dir, error) {
	subpath, err := subpathOf(target, prefix)
	if err != nil {
		return Dir{}, err
	}
	return NewDir(subpath)
}

// NewDir reads a directory that is not encoded, as an operator types it: `/project/`.
// Every error is an [*Error].
func NewDir(subpath string) (Dir, error) {
	if subpath == "/" {
		return Dir{"/"}, nil
	}
	path, ok := strings.CutSuffix(subpath, "/")
	if !ok {
		return Dir{}, &Error{"the path of a directory does not end with a slash"}
	}
	if len(subpath) > maxPath {
		return Dir{}, &Error{"the path is longer than 4096 bytes"}
	}
	if _, err := New(path); err != nil {
		return Dir{}, err
	}
	return Dir{subpath}, nil
}

// IsZero reports whether d is the zero Dir, which names no directory.
func (d Dir) IsZero() bool { return d == Dir{} }

// String returns the directory in literal bytes, `/project/`: what policies see. It is
// empty for the zero Dir.
func (d Dir) String() string { return d.s }

// Base returns the last segment, `project`; it is empty for `/` and the zero Dir.
func (d Dir) Base() string {
	path := strings.TrimSuffix(d.s, "/")
	return path[strings.LastIndexByte(path, '/')+1:]
}

// Up returns the directory that this one is in; false for `/` and the zero Dir.
func (d Dir) Up() (Dir, bool) {
	base := d.Base()
	if base == "" {
		return Dir{}, false
	}
	return Dir{d.s[:len(d.s)-len(base)-1]}, true
}

// File returns the file of a name in the directory, and Dir the directory. Every error is
// an [*Error]: a name with a slash is none.
func (d Dir) File(name string) (Path, error) {
	if d.IsZero() || strings.IndexByte(name, '/') >= 0 {
		return Path{}, &Error{"the name is not one of a directory"}
	}
	return New(d.s + name)
}

// Dir is described at File.
func (d Dir) Dir(name string) (Dir, error) {
	if _, err := d.File(name); err != nil {
		return Dir{}, err
	}
	return NewDir(d.s + name + "/")
}

// URL returns the public URL path below prefix, percent-encoded: [ParseDir] of it with the
// same prefix returns d. It is empty for the zero Dir and for a prefix without a slash at
// both ends.
func (d Dir) URL(prefix string) string {
	if d.IsZero() || !isPrefix(prefix) {
		return ""
	}
	var b strings.Builder
	b.WriteString(prefix)
	escape(&b, d.s[1:], "/-._~")
	return b.String()
}
