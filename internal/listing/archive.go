package listing

import (
	"archive/zip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"slices"
	"strings"
	"time"

	"securefiles/authz"
	"securefiles/internal/rooted"
	"securefiles/pathguard"
)

// Bounds are how much one archive may be: entries are files, and the directories that they
// are in. The zero Bounds permit none.
type Bounds struct {
	Entries int
	Bytes   int64
}

// An Archive is what somebody may read below a directory, decided at one moment, as a ZIP
// file that is not compressed. It must be closed.
type Archive struct {
	root  *rooted.Dir
	files []file
	size  int64
}

// A file is one of an Archive.
type file struct {
	outcome *authz.Outcome
	path    string // from the root
	name    string // in the archive
	size    int64
	changed time.Time
}

// Archive finds what is in the archive of a directory that may be shown: all files below it
// that may be read, in directories that may be listed, each decided by one version of the
// policy. Its error is fs.ErrNotExist where there is no such directory, and an
// *authz.TooLargeError where that is more than there may be.
func (l *Listing) Archive(ctx context.Context, out *authz.Outcome) (made *Archive, err error) {
	if !out.Listed() || out.Question.Archive != out.Question.Dir {
		return nil, errors.New("a directory of which no archive may be had is to be one")
	}
	where, ok := l.roots[out.Question.Download.Name]
	if !ok || where.Bucket != nil || where.Zip == (Bounds{}) {
		return nil, fmt.Errorf("download %q has no archives", out.Question.Download.Name)
	}
	if err := l.turn(ctx); err != nil {
		return nil, err
	}
	defer func() { <-l.turns }()
	policy := l.policy() // that decides all of it, as it may be another version than a moment before
	decision, err := policy.Decide(ctx, out.Question.Query(out.Principal))
	if err != nil {
		return nil, fmt.Errorf("decide what is in an archive: %w", err)
	}
	if decision.Effect != authz.Allow {
		return nil, fmt.Errorf("make an archive: %w", fs.ErrNotExist)
	}
	root, err := rooted.Open(where.Root, &rooted.Options{FollowSymlinks: where.FollowSymlinks})
	if err != nil { // none that is not there for a client
		return nil, fmt.Errorf("the service must be able to read the directory of %s to make an archive of it: %v", out.Question.Download.Name, err)
	}
	w := &walk{Listing: l, policy: policy, left: where.Zip, Archive: &Archive{root: root}}
	defer func() {
		if err != nil {
			err = errors.Join(err, root.Close())
		}
	}()
	if err := w.dir(ctx, out); err != nil {
		var large *authz.TooLargeError
		if errors.As(err, &large) {
			*large = authz.TooLargeError{Entries: where.Zip.Entries, Bytes: where.Zip.Bytes}
		}
		return nil, err
	}
	slices.SortFunc(w.files, func(a, b file) int { return strings.Compare(a.name, b.name) })
	w.size = sizeOfZip(w.files)
	return w.Archive, nil
}

// A walk collects what is in an archive.
type walk struct {
	*Listing
	*Archive
	policy authz.Decider
	left   Bounds
}

// dir takes what is in a directory that may be listed, and below it.
func (w *walk) dir(ctx context.Context, out *authz.Outcome) error {
	dir, err := w.root.Dir(strings.Trim(out.Question.Dir.String(), "/"))
	if errors.Is(err, rooted.ErrKind) {
		err = fmt.Errorf("%w: %w", err, fs.ErrNotExist)
	}
	if err != nil {
		return fmt.Errorf("open a directory for an archive: %w", err)
	}
	defer dir.Close() //nolint:errcheck // it was read
	found, err := dir.Entries()
	if err != nil {
		return fmt.Errorf("read a directory for an archive: %w", err)
	}
	shown, err := w.visible(ctx, w.policy, out, found)
	if err != nil {
		return err
	}
	for _, e := range shown {
		if err := ctx.Err(); err != nil {
			return err
		}
		if w.left.Entries--; w.left.Entries < 0 {
			return new(authz.TooLargeError)
		}
		if !e.isDir {
			if err := w.file(dir, out, e); err != nil {
				return err
			}
			continue
		}
		below, q := *out, *out.Question
		if q.Dir, err = q.Dir.Dir(e.name); err != nil {
			return err
		}
		below.Question = &q
		if err := w.dir(ctx, &below); err != nil {
			if errors.Is(err, fs.ErrNotExist) {
				continue // it was there just now
			}
			return err
		}
	}
	return nil
}

// file takes a file. That it can be opened is seen before anything is sent.
func (w *walk) file(dir *rooted.Dir, out *authz.Outcome, e entry) error {
	f, info, err := dir.File(e.name)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, rooted.ErrKind) {
		return nil // it was there just now
	}
	if err != nil {
		return fmt.Errorf("the service must be able to read each file of an archive: %w", err)
	}
	if err := f.Close(); err != nil {
		return err
	}
	if w.left.Bytes -= info.Size(); w.left.Bytes < 0 {
		return new(authz.TooLargeError)
	}
	one, q := *out, *out.Question
	if q.Path, err = q.Dir.File(e.name); err != nil {
		return err
	}
	q.Asked, q.Dir, q.Action, q.Size = q.Path, pathguard.Dir{}, authz.ActionRead, info.Size()
	one.Question, one.Decision, one.Page, one.Release, one.Quotas = &q, e.decision, "", nil, nil
	w.files = append(w.files, file{
		outcome: &one, path: strings.TrimPrefix(q.Path.String(), "/"), name: strings.TrimPrefix(q.Path.String(), q.Archive.String()),
		size: info.Size(), changed: info.ModTime(),
	})
	return nil
}

// Close closes the directory that the files are in.
func (a *Archive) Close() error { return a.root.Close() }

// Size is how many bytes the archive has.
func (a *Archive) Size() int64 { return a.size }

// Files are the outcomes of all files in it, which are allowed.
func (a *Archive) Files() []*authz.Outcome {
	all := make([]*authz.Outcome, len(a.files))
	for i, f := range a.files {
		all[i] = f.outcome
	}
	return all
}

// Write writes the archive. After an error what was written is none, and must not look as
// if it were: a file is not as it was when the archive was made up.
func (a *Archive) Write(w io.Writer) error {
	z := zip.NewWriter(w)
	buf := make([]byte, 64<<10)
	for i := range a.files {
		if err := a.files[i].write(z, a.root, buf); err != nil {
			return fmt.Errorf("send %s in an archive: %w", a.files[i].outcome.Question.Path, err)
		}
	}
	return z.Close()
}

var errChanged = errors.New("it was changed meanwhile")

func (f *file) write(z *zip.Writer, root *rooted.Dir, buf []byte) error {
	from, info, err := root.File(f.path)
	if err != nil {
		return err
	}
	defer from.Close() //nolint:errcheck // it was read
	if !f.is(info) {
		return errChanged
	}
	to, err := z.CreateHeader(f.header())
	if err != nil {
		return err
	}
	n, err := io.CopyBuffer(struct{ io.Writer }{to}, io.LimitReader(struct{ io.Reader }{from}, f.size), buf)
	if err != nil {
		return err
	}
	if info, err = from.Stat(); err != nil {
		return err
	}
	if n != f.size || !f.is(info) {
		return errChanged
	}
	return nil
}

// is reports whether a file is as it was.
func (f *file) is(info os.FileInfo) bool {
	return info.Size() == f.size && info.ModTime().Equal(f.changed)
}

// utf8 says of names what they are.
const utf8 = 0x800

func (f *file) header() *zip.FileHeader {
	return &zip.FileHeader{Name: f.name, Method: zip.Store, Flags: utf8, Modified: f.changed.UTC()}
}

// The sizes of what archive/zip writes, beside names (APPNOTE.TXT 6.3.10).
const (
	localHeader   = 30 + zipTimes
	descriptor    = 16
	descriptor64  = 24
	centralHeader = 46 + zipTimes
	zipTimes      = 9
	zipSizes64    = 28
	zipEnd        = 22
	zipEnd64      = 56 + 20
)

// sizeOfZip is how long the archive of files will be.
func sizeOfZip(files []file) int64 {
	var at, directory int64
	for _, f := range files {
		offset := at
		at += localHeader + int64(len(f.name)) + f.size + descriptor
		directory += centralHeader + int64(len(f.name))
		if f.size >= math.MaxUint32 {
			at += descriptor64 - descriptor
		}
		if f.size >= math.MaxUint32 || offset >= math.MaxUint32 {
			directory += zipSizes64
		}
	}
	size := at + directory + zipEnd
	if len(files) >= math.MaxUint16 || at >= math.MaxUint32 || directory >= math.MaxUint32 {
		size += zipEnd64
	}
	return size
}
