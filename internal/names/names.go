// Package names is the table of a download's public names: `/latest.zip` for the
// file `/v2.3.1.zip`, which is what policy is asked about and the web server opens.
//
// A table is a CSV file. Each line has a name and what is opened for it, both as
// policies have paths; a final slash on both means all that is below. `#` begins a
// comment.
//
//	/latest.zip, /v2.3.1.zip
//	/stable/,    /2026-11/
//
// A name is looked up once: none may lead to another. A name stands before a file
// that is really called so. names does not look whether there is such a file.
package names

import (
	"bytes"
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync/atomic"

	"securefiles/internal/regular"
	"securefiles/pathguard"
)

// maxFile bounds a table, in bytes.
const maxFile = 64 << 20

// A Table is the names of a file. It is safe for concurrent use, and without names
// until Reload.
type Table struct {
	download, file string
	version        atomic.Pointer[version]
}

// A version is what was read once. It does not change.
type version struct {
	objects    map[string]string // by name; directories of both end with a slash
	generation uint64
}

// New returns a download's table, of a file that Reload reads.
func New(download, file string) *Table { return &Table{download: download, file: file} }

// Download is the name of the download that the table is of.
func (t *Table) Download() string { return t.download }

// Files are the files that the table is in.
func (t *Table) Files() []string { return []string{t.file} }

// Reload reads the file again. On an error, which names file and line, what was read
// before goes on.
func (t *Table) Reload(context.Context) error {
	text, err := regular.Read(t.file, maxFile)
	if err != nil {
		return fmt.Errorf("read the names of %s: %w", t.download, err)
	}
	objects, err := parse(bytes.NewReader(text))
	if err != nil {
		return fmt.Errorf("read the names of %s: %s:%w", t.download, t.file, err)
	}
	t.version.Store(&version{objects, t.Generation() + 1})
	return nil
}

// Generation counts the versions that were read.
func (t *Table) Generation() uint64 {
	if v := t.version.Load(); v != nil {
		return v.generation
	}
	return 0
}

// Object returns what is opened for a path: the path itself, if it is no name. The
// error is pathguard's, of a path that would be too long.
func (t *Table) Object(path pathguard.Path) (pathguard.Path, error) {
	v := t.version.Load()
	if v == nil {
		return path, nil
	}
	name := path.String()
	if object, ok := v.objects[name]; ok {
		return pathguard.New(object)
	}
	for i := len(name); i > 0; {
		i = strings.LastIndexByte(name[:i], '/')
		if object, ok := v.objects[name[:i+1]]; ok {
			return pathguard.New(object + name[i+1:])
		}
	}
	return path, nil
}

// parse reads a table. Its error begins with the line.
func parse(text io.Reader) (map[string]string, error) {
	r := csv.NewReader(text)
	r.Comment, r.FieldsPerRecord, r.TrimLeadingSpace = '#', -1, true
	objects, lines := map[string]string{}, map[string]int{}
	for {
		fields, err := r.Read()
		if err == io.EOF {
			break
		}
		var bad *csv.ParseError
		if errors.As(err, &bad) {
			return nil, fmt.Errorf("%d: %w", bad.Line, bad.Err)
		}
		if err != nil {
			return nil, err
		}
		line, _ := r.FieldPos(0)
		if len(fields) != 2 {
			return nil, fmt.Errorf("%d: there must be a name and what is opened for it: /latest.zip, /v2.3.1.zip", line)
		}
		name, object := strings.TrimSpace(fields[0]), strings.TrimSpace(fields[1])
		if strings.HasSuffix(name, "/") != strings.HasSuffix(object, "/") {
			return nil, fmt.Errorf("%d: a final slash means all that is below: write it on both, or on none", line)
		}
		for _, path := range []string{name, object} {
			if _, err := pathguard.New(strings.TrimSuffix(path, "/")); err != nil {
				return nil, fmt.Errorf("%d: %q: %w", line, path, err)
			}
		}
		if first, twice := lines[name]; twice {
			return nil, fmt.Errorf("%d: %s has a line already, %d", line, name, first)
		}
		objects[name], lines[name] = object, line
	}
	return objects, oneStep(objects, lines)
}

// oneStep returns an error for a name that leads to another.
func oneStep(objects map[string]string, lines map[string]int) error {
	names := make([]string, 0, len(objects))
	for name := range objects {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		object := objects[name]
		other, found := object, false
		if _, found = objects[object]; !found {
			for i := len(object) - 1; i > 0 && !found; { // a directory that it is below
				i = strings.LastIndexByte(object[:i], '/')
				other = object[:i+1]
				_, found = objects[other]
			}
		}
		if !found && strings.HasSuffix(object, "/") { // a name that is below it
			if at, _ := slices.BinarySearch(names, object); at < len(names) && strings.HasPrefix(names[at], object) {
				other, found = names[at], true
			}
		}
		if found {
			return fmt.Errorf("%d: %s leads to %s, of which line %d makes something else: name the file itself", lines[name], name, object, lines[other])
		}
	}
	return nil
}
