package audit

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"securefiles/internal/regular"
)

// A Follower hands out the lines of a file that others append to, and of what the
// file was before it was rotated, oldest first and each at least once.
//
// How far it came is kept in a file of its own, by device, inode and offset, and
// survives whatever kills the process. Rotated files are those beside the file
// whose names are its own with a number or a date (`FILE.1`, `FILE-20261126.gz`,
// `audit-20261126.jsonl`), and whatever name a file was given that is known
// already. What stands in several of them is told apart by the first line, so the
// first lines of two files must differ unless one is a copy: each holds an id or a
// time.
//
//   - A file that is renamed is read to its end, and then the one that took its name,
//     however many times this came about while nobody followed.
//   - A file that is copied and truncated (copytruncate) is read on in the copy. What
//     is written between the two is lost, and nobody can tell how much it was.
//   - A file that gzip or zstd has compressed is read on where it was left. Other
//     compressed files are passed over, with a warning if they may hold what was not read.
//   - A file that was removed before it was read is lost, with a warning.
//   - A last line without a line feed is waited for, in that file; others are read on.
//   - A line that is longer than may be is passed over and counted.
//
// Next, TryNext, Commit and Close are for one goroutine; Lag and Stats for any.
type Follower struct {
	path, state string
	opts        FollowerOptions

	mu       sync.Mutex
	files    []*followed
	shadows  map[fileID]bool // copies of what is there
	segments []*segment      // delivered and not committed, in order
	seq      uint64
	stats    FollowerStats
	warned   map[fileID]bool

	cur     *reading
	scanned time.Time
}

// FollowerOptions are what a Follower need not be told.
type FollowerOptions struct {
	// Poll is how often the file is looked at when all was read; 200 ms if zero.
	Poll time.Duration
	// MaxLine is the longest line in bytes, that of an audit file if zero.
	MaxLine int
	// AtEnd has a follower without a state begin behind what is there, and not with the
	// oldest line that is left.
	AtEnd bool
	// Log is told what is lost; nobody if nil.
	Log *slog.Logger
}

// FollowerStats counts what went wrong since the start.
type FollowerStats struct {
	// TooLong is how many lines were longer than may be.
	TooLong uint64
	// Truncated is how many times a file was truncated: what was written just before is lost.
	Truncated uint64
	// Unread is how many files could not be read, or were gone before they were read.
	Unread uint64
	// LostBytes is how many bytes are known to have been in files that are gone.
	LostBytes uint64
}

// A Position is behind a line that was handed out. File and Offset are the same
// wherever the line is met again: in a renamed file, in a copy, compressed.
type Position struct {
	File    string // 32 hexadecimal digits, of the first line of the file
	Offset  int64
	segment uint64
}

type fileID struct{ device, inode uint64 }

// followed is how far a file was read. What is exported is stored.
type followed struct {
	Device   uint64 `json:"device"`
	Inode    uint64 `json:"inode"`
	Head     string `json:"head,omitempty"` // of the first line
	Offset   int64  `json:"offset"`         // committed
	Modified int64  `json:"modified"`       // Unix seconds
	Done     bool   `json:"done,omitempty"` // nothing will come any more

	name      string
	size      int64
	delivered int64 // up to the end of a line
	seen      int64 // up to the end of the file
	failed    int64 // the size at which it could not be read
	done      bool
	changed   time.Time
	missing   int  // for how many scans
	replaced  bool // other contents have its inode
}

func (f *followed) id() fileID { return fileID{f.Device, f.Inode} }

// A segment is what was handed out of one file in one go.
type segment struct {
	seq  uint64
	file *followed
	to   int64
}

// A reading is a file that is open.
type reading struct {
	file     *followed
	f        *os.File
	buf      *bufio.Reader
	skip     int64 // to be read and thrown away first
	partial  []byte
	skipping bool // the rest of a line that is too long
	offset   int64
	ended    bool
	seg      *segment
}

type followState struct {
	Version int         `json:"v"`
	Files   []*followed `json:"files"`
}

const (
	followHead    = 1024 // bytes at most of the first line that tell a file from others
	followMissing = 10   // scans until a file that is not found is given up: names change while a directory is read
)

// NewFollower follows the file at path, which need not be there yet, from where the
// state file says, or from the oldest line that is left if there is no state. The
// state is a file of the follower's own; an empty name keeps none.
func NewFollower(path, state string, opts *FollowerOptions) (*Follower, error) {
	if opts == nil {
		opts = &FollowerOptions{}
	}
	f := &Follower{path: path, state: state, opts: *opts, warned: map[fileID]bool{}}
	f.opts.Poll = cmp.Or(f.opts.Poll, 200*time.Millisecond)
	f.opts.MaxLine = cmp.Or(f.opts.MaxLine, MaxLine)
	if f.opts.Log == nil {
		f.opts.Log = slog.New(slog.DiscardHandler)
	}
	text, err := regular.Read(state, 1<<20)
	if errors.Is(err, fs.ErrNotExist) {
		return f, f.begun()
	}
	if err != nil {
		return nil, fmt.Errorf("read how far %s was followed: %w", path, err)
	}
	var stored followState
	if err := json.Unmarshal(text, &stored); err != nil || stored.Version != 1 {
		return nil, fmt.Errorf("read how far %s was followed: %s is no such state of version 1 (%v): remove it to begin with the oldest line that is left", path, state, err)
	}
	f.files = stored.Files
	for _, file := range f.files {
		file.delivered, file.seen, file.done = file.Offset, file.Offset, file.Done
	}
	return f, nil
}

// begun passes over what is there, where the follower is to begin at the end.
func (f *Follower) begun() error {
	if !f.opts.AtEnd {
		return nil
	}
	files, err := f.scan()
	if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrPermission) { // it may come to be read
		return fmt.Errorf("follow %s: %w", f.path, err)
	}
	for _, file := range files {
		file.Offset, file.delivered, file.seen, file.done = file.size, file.size, file.size, compressed(file.name)
	}
	if err := f.save(); err != nil { // what comes before the first Commit is not to be passed over after a restart
		return fmt.Errorf("store how far %s was followed: %w", f.path, err)
	}
	return nil
}

// Next returns the next line without its line feed, and the position behind it;
// it waits for one until ctx is done. The line holds until the next call. After an
// error that is not the context's own it may be called again.
func (f *Follower) Next(ctx context.Context) ([]byte, Position, error) {
	for {
		line, pos, ok, err := f.TryNext()
		if ok || err != nil {
			return line, pos, err
		}
		select {
		case <-ctx.Done():
			return nil, Position{}, ctx.Err()
		case <-time.After(f.opts.Poll):
		}
	}
}

// TryNext is Next that does not wait: there is no line yet where ok is false.
func (f *Follower) TryNext() (line []byte, pos Position, ok bool, err error) {
	for {
		if f.cur == nil || f.cur.ended {
			if time.Since(f.scanned) < f.opts.Poll && !f.scanned.IsZero() {
				return nil, Position{}, false, nil
			}
			f.mu.Lock()
			more, err := f.choose()
			f.mu.Unlock()
			f.scanned = time.Now()
			if err != nil {
				return nil, Position{}, false, fmt.Errorf("follow %s: %w", f.path, err)
			}
			if !more {
				return nil, Position{}, false, nil
			}
		}
		line, err := f.cur.next(f.opts.MaxLine)
		f.mu.Lock()
		file := f.cur.file
		switch {
		case err == nil:
			file.delivered, file.seen, f.cur.seg.to = f.cur.offset, f.cur.offset, f.cur.offset
			pos := Position{File: file.Head, Offset: f.cur.offset, segment: f.cur.seg.seq}
			f.mu.Unlock()
			return line, pos, true, nil
		case errors.Is(err, bufio.ErrTooLong):
			file.delivered, file.seen, f.cur.seg.to = f.cur.offset, f.cur.offset, f.cur.offset
			f.stats.TooLong++
			f.opts.Log.Warn("a line is too long and is passed over", "file", file.name, "offset", f.cur.offset)
		case errors.Is(err, io.EOF):
			file.seen, f.cur.ended = f.cur.offset, true
			if compressed(file.name) {
				file.done = true
				if len(f.cur.partial) > 0 {
					f.stats.Unread++
					f.opts.Log.Warn("the last line is torn and is passed over", "file", file.name, "offset", file.delivered)
				}
			}
		case compressed(file.name):
			// It may be written still.
			file.failed, f.cur.ended = file.size, true
			f.unread(file, err)
		default:
			name := file.name
			f.close()
			f.mu.Unlock()
			return nil, Position{}, false, fmt.Errorf("follow %s: read %s: %w", f.path, name, err)
		}
		f.mu.Unlock()
	}
}

// next returns a line; io.EOF where there is none, now; bufio.ErrTooLong where one
// was passed over.
func (r *reading) next(most int) ([]byte, error) {
	for r.skip > 0 {
		n, err := r.buf.Discard(int(min(r.skip, 1<<20)))
		r.skip -= int64(n)
		if err != nil {
			return nil, err
		}
	}
	for {
		part, err := r.buf.ReadSlice('\n')
		r.offset += int64(len(part))
		if err == nil && len(r.partial) == 0 && !r.skipping && len(part)-1 <= most {
			return part[:len(part)-1], nil
		}
		if !r.skipping {
			r.partial = append(r.partial, part...)
			r.skipping = len(bytes.TrimSuffix(r.partial, []byte("\n"))) > most
		}
		switch {
		case err == bufio.ErrBufferFull:
			continue
		case err != nil:
			return nil, err
		}
		line := r.partial
		r.partial = nil
		if r.skipping {
			r.skipping = false
			return nil, bufio.ErrTooLong
		}
		return line[:len(line)-1], nil
	}
}

// choose finds the oldest file with something unread and opens it; f.mu is held.
func (f *Follower) choose() (bool, error) {
	order, err := f.scan()
	if err != nil {
		return false, err
	}
	if f.cur != nil && f.cur.file.missing > 0 && !f.cur.file.done {
		// It is removed, and open here: what was written to it meanwhile comes first.
		info, err := f.cur.f.Stat()
		if err != nil {
			return false, err
		}
		if f.cur.file.size = info.Size(); f.cur.file.size > f.cur.file.seen {
			f.cur.ended = false
			return true, nil
		}
	}
	for _, file := range order {
		if file.done || file.size == file.failed || file.size <= file.seen && !compressed(file.name) {
			continue
		}
		if f.cur != nil && f.cur.file == file && !compressed(file.name) {
			f.cur.ended = false
			return true, nil
		}
		err := f.open(file)
		switch {
		case errors.Is(err, errMoved) || errors.Is(err, fs.ErrNotExist):
			return false, nil // look again
		case err != nil && file.name == f.path:
			return false, err
		case err != nil:
			f.unread(file, err)
			continue
		}
		return true, nil
	}
	return false, nil
}

var errMoved = errors.New("another file has its name now")

// open opens the file behind what was delivered of it.
func (f *Follower) open(file *followed) (err error) {
	in, err := regular.Open(file.name)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, in.Close())
		}
	}()
	info, err := in.Stat()
	if err != nil {
		return err
	}
	if idOf(info) != file.id() {
		return errMoved
	}
	var r io.Reader = in
	if compressed(file.name) {
		r, err = unpack(in)
	} else {
		_, err = in.Seek(file.delivered, io.SeekStart)
	}
	if err != nil {
		file.failed = file.size
		return err
	}
	f.close()
	f.seq++
	seg := &segment{seq: f.seq, file: file, to: file.delivered}
	f.segments = append(f.segments, seg)
	f.cur = &reading{file: file, f: in, buf: bufio.NewReaderSize(r, 64<<10), offset: file.delivered, seg: seg}
	if compressed(file.name) {
		f.cur.skip = file.delivered
	}
	return nil
}

func (f *Follower) close() {
	if f.cur != nil {
		f.cur.f.Close() // read-only
		f.cur = nil
	}
}

// unread warns of a file that cannot be read, once; f.mu is held.
func (f *Follower) unread(file *followed, err error) {
	if !f.warned[file.id()] {
		f.warned[file.id()] = true
		f.stats.Unread++
		f.opts.Log.Warn("a rotated file cannot be read and is passed over", "file", file.name, "error", err)
	}
}

// A listed file is what is found beside the file.
type listed struct {
	name string
	id   fileID
	info fs.FileInfo
}

// list finds the file and its predecessors, oldest first.
func (f *Follower) list() ([]listed, error) {
	dir, base := filepath.Split(f.path)
	entries, err := os.ReadDir(cmp.Or(dir, "."))
	if err != nil {
		return nil, err
	}
	known := map[fileID]bool{}
	for _, file := range f.files {
		known[file.id()] = true
	}
	var found []listed
	seen := map[fileID]bool{}
	for _, e := range entries {
		if dir+e.Name() == f.state || !strings.HasPrefix(e.Name(), strings.TrimSuffix(base, filepath.Ext(base))) {
			continue
		}
		info, err := os.Stat(dir + e.Name())
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		id := idOf(info)
		if !info.Mode().IsRegular() || seen[id] || !rotation(base, e.Name()) && !known[id] {
			continue
		}
		seen[id] = true
		found = append(found, listed{name: dir + e.Name(), id: id, info: info})
	}
	slices.SortStableFunc(found, func(a, b listed) int {
		if a.name == f.path || b.name == f.path {
			return cmp.Compare(boolInt(a.name == f.path), boolInt(b.name == f.path))
		}
		return cmp.Or(a.info.ModTime().Compare(b.info.ModTime()), cmp.Compare(number(b.name, f.path), number(a.name, f.path)), strings.Compare(a.name, b.name))
	})
	return found, nil
}

// rotatedSuffix is what logrotate and its like put behind a name.
var rotatedSuffix = regexp.MustCompile(`^[.-][0-9][0-9TZ:._-]*$`)

// rotation says that a name is that of a file, or of what it was rotated to:
// audit.jsonl.1, audit.jsonl-20261231.gz, audit-20261231.jsonl.
func rotation(base, name string) bool {
	for _, extension := range append([]string{".gz", ".zst"}, otherCompressions...) {
		name = strings.TrimSuffix(name, extension)
	}
	suffix, ok := strings.CutPrefix(name, base)
	if extension := filepath.Ext(base); !ok {
		if suffix, ok = strings.CutPrefix(name, strings.TrimSuffix(base, extension)); ok {
			suffix, ok = strings.CutSuffix(suffix, extension)
		}
	}
	return name == base || ok && rotatedSuffix.MatchString(suffix)
}

// number is the N of FILE.N, 0 where there is none.
func number(name, path string) int {
	digits, _, _ := strings.Cut(strings.TrimPrefix(name, path+"."), ".")
	n, err := strconv.Atoi(digits)
	if err != nil {
		return 0
	}
	return n
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

// scan looks at what is there and returns what may be read, oldest first; f.mu is held.
func (f *Follower) scan() ([]*followed, error) {
	found, err := f.list()
	if err != nil {
		return nil, err
	}
	byID := map[fileID]*followed{}
	for _, file := range f.files {
		byID[file.id()] = file
		file.missing++
	}
	// What is known and is what it was.
	for _, l := range found {
		file := byID[l.id]
		if file == nil {
			continue
		}
		size := l.info.Size()
		same := file.done || compressed(l.name) || size >= file.delivered
		if same && !file.done && (size != file.size || !file.changed.Equal(l.info.ModTime())) && file.Head != "" && !passedOver(l.name) {
			head, err := headOf(l.name)
			same = err != nil || head == file.Head
		}
		if !same {
			if f.cur != nil && f.cur.file == file {
				f.close()
			}
			// Truncated, or gone and its inode used again: its contents may be in another file.
			file.Device, file.Inode, file.replaced = 0, 0, true
			file.name = cmp.Or(file.name, l.name)
			delete(byID, l.id)
			continue
		}
		file.name, file.size, file.missing = l.name, size, 0
		file.changed, file.Modified = l.info.ModTime(), l.info.ModTime().Unix()
	}
	// What is new, or has the contents of what was.
	f.shadows = map[fileID]bool{}
	var order []*followed
	for _, l := range found {
		file := byID[l.id]
		if file == nil {
			if file, err = f.begin(l); err != nil {
				if l.name == f.path {
					return nil, err
				}
				f.unread(&followed{Device: l.id.device, Inode: l.id.inode, name: l.name}, err)
				continue
			}
		}
		if file != nil && !passedOver(l.name) {
			order = append(order, file)
		}
	}
	f.files = slices.DeleteFunc(f.files, func(file *followed) bool {
		if file.missing <= followMissing || f.cur != nil && f.cur.file == file {
			return false
		}
		if lost := file.size - file.delivered; lost > 0 && !file.done {
			f.stats.Unread++
			f.stats.LostBytes += uint64(lost)
			f.opts.Log.Error("a file is gone before it was read", "file", file.name, "bytes", lost)
		}
		if file.replaced && file.name == f.path {
			f.stats.Truncated++
			f.opts.Log.Warn("a file was truncated, and no copy of it is found: what was written to it and not read is lost", "file", file.name, "offset", file.delivered)
		}
		return true
	})
	return order, nil
}

// begin makes a file known, nil if it is too early, or it is a copy of what is there.
func (f *Follower) begin(l listed) (*followed, error) {
	file := &followed{Device: l.id.device, Inode: l.id.inode, name: l.name, size: l.info.Size(), changed: l.info.ModTime(), Modified: l.info.ModTime().Unix()}
	if passedOver(l.name) {
		file.done = true
		read := slices.ContainsFunc(f.files, func(o *followed) bool { return o.Modified == l.info.ModTime().Unix() && o.size <= o.delivered })
		if !read {
			f.unread(file, errNotRead(l.name))
		}
	} else {
		head, err := headOf(l.name)
		if errors.Is(err, fs.ErrNotExist) || err == nil && head == "" {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		for _, other := range f.files {
			if other.Head != head {
				continue
			}
			if other.missing == 0 || f.cur != nil && f.cur.file == other {
				f.shadows[l.id] = true
				return nil, nil
			}
			if other.replaced && !compressed(l.name) {
				f.stats.Truncated++
				f.opts.Log.Warn("a file was copied and truncated: what was written between the two is lost", "file", other.name, "copy", l.name)
			}
			// The contents have moved here.
			other.Device, other.Inode, other.changed, other.Modified = file.Device, file.Inode, file.changed, file.Modified
			other.name, other.size, other.seen, other.failed = file.name, file.size, other.delivered, 0
			other.done, other.missing, other.replaced = false, 0, false
			return other, nil
		}
		file.Head = head
	}
	f.files = append(f.files, file)
	return file, nil
}

// headOf tells a file from others, by its first line; empty where it has none yet.
func headOf(name string) (string, error) {
	in, r, err := openRecords(name)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return "", nil // it is written just now
	}
	if err != nil {
		return "", err
	}
	defer in.Close() // read-only
	head := make([]byte, followHead)
	n, err := io.ReadFull(r, head)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return "", err
	}
	head = head[:n]
	if end := bytes.IndexByte(head, '\n'); end >= 0 {
		head = head[:end+1]
	} else if n < followHead {
		return "", nil
	}
	sum := sha256.Sum256(head)
	return hex.EncodeToString(sum[:16]), nil
}

func idOf(info fs.FileInfo) fileID {
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return fileID{}
	}
	return fileID{uint64(stat.Dev), stat.Ino}
}

// openRecords opens a file, and what it says: unpacked where its name says that it is
// compressed. Its error is an *fs.PathError; io.EOF and io.ErrUnexpectedEOF are in that
// of a file whose compression has just begun.
func openRecords(name string) (*os.File, io.Reader, error) {
	if passedOver(name) {
		return nil, nil, errNotRead(name)
	}
	in, err := regular.Open(name)
	if err != nil || !compressed(name) {
		return in, in, err
	}
	text, err := unpack(in)
	if err != nil {
		return nil, nil, &fs.PathError{Op: "read", Path: name, Err: errors.Join(err, in.Close())}
	}
	return in, text, nil
}

// unpack reads what gzip or zstd has packed.
func unpack(r io.Reader) (io.Reader, error) {
	text, err := decompress(r)
	if plain, ok := text.(*bufio.Reader); ok && err == nil {
		if _, err := plain.Peek(4); err != nil {
			return nil, io.ErrUnexpectedEOF
		}
		return nil, errors.New("it is not compressed as its name says")
	}
	return text, err
}

// compressed says that a file is read through gzip or zstd.
func compressed(name string) bool {
	return slices.Contains([]string{".gz", ".zst"}, filepath.Ext(name))
}

// otherCompressions are what is not read here.
var otherCompressions = []string{".bz2", ".lz4", ".xz"}

// passedOver says that a file is compressed by what is not read here.
func passedOver(name string) bool { return slices.Contains(otherCompressions, filepath.Ext(name)) }

// errNotRead is about a file that is passed over.
func errNotRead(name string) error {
	return &fs.PathError{Op: "read", Path: name, Err: errors.New("it is compressed, and not by gzip or zstd: decompress it")}
}

// Commit stores that all up to pos, which Next or TryNext returned, need not be
// handed out again. What was handed out and not committed is handed out again after
// a restart.
func (f *Follower) Commit(pos Position) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	rest := f.segments[:0]
	for _, s := range f.segments {
		switch {
		case s.seq < pos.segment:
			s.file.Offset = s.to
		case s.seq == pos.segment:
			s.file.Offset = max(s.file.Offset, pos.Offset)
			rest = append(rest, s)
		default:
			rest = append(rest, s)
		}
	}
	f.segments = rest
	if err := f.save(); err != nil {
		return fmt.Errorf("store how far %s was followed: %w", f.path, err)
	}
	return nil
}

func (f *Follower) save() (err error) {
	if f.state == "" {
		return nil
	}
	stored := followState{Version: 1}
	for _, file := range f.files {
		file.Done = file.done && file.Offset == file.delivered
		if file.Offset > 0 || file.Done {
			stored.Files = append(stored.Files, file)
		}
	}
	text, err := json.Marshal(stored)
	if err != nil {
		return err
	}
	temp := f.state + ".new"
	out, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	_, err = out.Write(append(text, '\n'))
	if err == nil {
		err = out.Sync()
	}
	if err = errors.Join(err, out.Close()); err != nil {
		return err
	}
	return os.Rename(temp, f.state)
}

// Lag returns how many bytes were written and not committed; what is compressed
// counts as it is. It looks at the files itself, so that it is right while nobody
// calls Next.
func (f *Follower) Lag() (int64, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	found, err := f.list()
	if err != nil {
		return 0, fmt.Errorf("look how far %s was followed: %w", f.path, err)
	}
	byID := map[fileID]*followed{}
	for _, file := range f.files {
		byID[file.id()] = file
	}
	var lag int64
	for _, l := range found {
		file := byID[l.id]
		switch {
		case f.shadows[l.id] || passedOver(l.name):
		case file == nil:
			lag += l.info.Size()
		case compressed(l.name):
			if !file.done || file.Offset < file.delivered {
				lag += l.info.Size()
			}
		default:
			lag += max(l.info.Size()-file.Offset, 0)
		}
	}
	return lag, nil
}

// Stats returns what went wrong since the start.
func (f *Follower) Stats() FollowerStats {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.stats
}

// Close closes the file that is read. What was not committed is handed out again.
func (f *Follower) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.close()
	return nil
}
