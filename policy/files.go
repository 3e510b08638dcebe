package policy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"syscall"

	"securefiles/policy/internal/model"
)

// A Source is where a model and a policy come from.
type Source interface {
	// Open begins to read the newest version. The caller closes its Policy.
	Open(context.Context) (*Text, error)
	// String names the source in messages.
	String() string
}

// A Text is one version of a model and a policy, as they are written.
type Text struct {
	// ModelName names the model in findings.
	ModelName string
	Model     string
	// PolicyName names the policy in findings, where a decision has its base
	// name alone.
	PolicyName string
	// Policy is read once, line by line: it may be long.
	Policy io.ReadCloser
	// Size is the policy's length in bytes, or 0 where it is not known.
	Size int64
	// File is the file that the policy is read from, or nil where it is none: what
	// is written over the version before may have been cut short.
	File fs.FileInfo
	// Whole reports, once the policy has been read, whether all that was read is
	// of one version; nil says that it is. What is not is read again.
	Whole func() bool
}

// Files is a Source of a model file and a policy file, as Casbin has them.
type Files struct {
	// Model is a file; empty means the built-in model.
	Model string
	// Policy is a file.
	Policy string
}

// String returns the name of the policy file.
func (f Files) String() string { return f.Policy }

// Names returns the files that the policy depends on, for whoever watches them.
func (f Files) Names() []string {
	if f.Model == "" {
		return []string{f.Policy}
	}
	return []string{f.Model, f.Policy}
}

// Open opens the files. Its error is an *fs.PathError where one cannot be read.
func (f Files) Open(context.Context) (*Text, error) {
	for range tries {
		before := f.stat()
		text, err := f.open()
		if err != nil {
			if f.unchanged(before) {
				return nil, err
			}
			continue // a file was being replaced
		}
		text.Whole = func() bool { return f.unchanged(before) }
		return text, nil
	}
	return nil, errUnsteady
}

// tries is how often files are read that change while they are read.
const tries = 3

var errUnsteady = errors.New("read policy: the files change faster than they can be read")

func (f Files) open() (*Text, error) {
	t := &Text{ModelName: "the built-in model", Model: model.Default, PolicyName: f.Policy}
	if f.Model != "" {
		b, err := readBounded(f.Model, model.MaxSize)
		if err != nil {
			return nil, fmt.Errorf("read model: %w", err)
		}
		t.ModelName, t.Model = f.Model, string(b)
	}
	file, err := openRegular(f.Policy)
	if err != nil {
		return nil, fmt.Errorf("read policy: %w", err)
	}
	if info, err := file.Stat(); err == nil {
		t.Size, t.File = info.Size(), info
	}
	t.Policy = file
	return t, nil
}

// stat describes the files; nil stands for one that is not there.
func (f Files) stat() []os.FileInfo {
	var infos []os.FileInfo
	for _, name := range f.Names() {
		info, err := os.Stat(name)
		if err != nil {
			info = nil
		}
		infos = append(infos, info)
	}
	return infos
}

func (f Files) unchanged(before []os.FileInfo) bool {
	return slices.EqualFunc(before, f.stat(), func(a, b os.FileInfo) bool {
		if a == nil || b == nil {
			return a == nil && b == nil
		}
		return os.SameFile(a, b) && a.Size() == b.Size() && a.ModTime().Equal(b.ModTime())
	})
}

// readBounded reads a file; one that is larger is cut short one byte after the
// limit, for its parser to refuse.
func readBounded(name string, limit int64) (text []byte, err error) {
	f, err := openRegular(name)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return io.ReadAll(io.LimitReader(f, limit+1))
}

// openRegular opens a file, but no directory, device or pipe, which could keep
// the reader waiting for ever: what is open is asked what it is, so that nothing
// can be swapped in between.
func openRegular(name string) (*os.File, error) {
	f, err := os.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = &fs.PathError{Op: "open", Path: name, Err: errors.New("is not a regular file")}
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}
