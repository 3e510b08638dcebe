package audit

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"time"

	"github.com/klauspost/compress/zstd"
)

const (
	// readSize is how much is read at once: what a processor's cache holds.
	readSize = 128 << 10
	// maxLate is how late a delivery may be recorded, after its request ended: the
	// service may have been away.
	maxLate = 7 * 24 * time.Hour
	// maxClock is how far a clock may have been set back.
	maxClock = 10 * time.Minute
)

// Progress is how far a search, or a verification, has come.
type Progress struct {
	Read, Size int64 // bytes of all files, compressed ones as they are
}

// Files are a Source: files of records, plain or compressed by gzip or zstd, in any
// order. What is no file, such as /dev/stdin, is read once, as it is.
type Files struct {
	Paths []string
	// Open opens what is sealed in a record; nil for nothing.
	Open func(*Record) (opened bool)
	// Progress is told now and then.
	Progress func(Progress)
	// Follow, one of the paths or empty, is read last, and then followed, to the file that
	// takes its name too, until the context ends. Idle is called before it is waited for.
	Follow string
	Idle   func()
}

// Search reads the files in the order of their first records. Those that hold nothing
// of the time are skipped, by when they were last written and by their first record,
// and plain ones are read from where the time begins: decisions stand in the order of
// their times, and a delivery at most a week after its. A file that cannot be read does
// not keep the others from being searched; the error tells.
func (f *Files) Search(ctx context.Context, q *Query, found func(*Found) error) (*Report, error) {
	if err := q.Validate(); err != nil {
		return &Report{}, err
	}
	s := &searching{Files: f, ctx: ctx, sifting: sifting{query: q, open: f.Open, found: found, Report: &Report{}}}
	var problems []error
	var files []*heldFile
	for _, name := range f.Paths {
		h, err := holdFile(name)
		if err != nil && name == f.Follow && errors.Is(err, fs.ErrNotExist) { // it will be there
			h, err = &heldFile{name: name}, nil
		}
		if err != nil {
			problems = append(problems, err)
			continue
		}
		files = append(files, h)
		s.progress.Size += h.size
	}
	slices.SortStableFunc(files, func(a, b *heldFile) int {
		if last := f.Follow != "" && a.name == f.Follow; last != (f.Follow != "" && b.name == f.Follow) {
			return map[bool]int{true: 1, false: -1}[last]
		}
		return a.first.Compare(b.first)
	})
	for _, h := range files {
		switch {
		case f.Follow == h.name:
			return s.Report, errors.Join(append(problems, s.follow(h))...)
		case h.misses(q):
			s.Skipped++
			s.progress.Size -= h.size
		default:
			s.Report.Files++
			if err := s.file(h); err != nil {
				if s.stopped != nil {
					return s.Report, s.stopped
				}
				problems = append(problems, err)
			}
		}
	}
	return s.Report, errors.Join(problems...)
}

// A heldFile is a file, and what is known of it before it is read.
type heldFile struct {
	name    string
	regular bool
	size    int64
	first   time.Time // of its first record; zero where there is none, or it cannot be told
	written time.Time // when it was last written; zero where that says nothing
}

func holdFile(name string) (*heldFile, error) {
	info, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	if info.IsDir() {
		return nil, fmt.Errorf("%s is a directory: name files of records", name)
	}
	h := &heldFile{name: name, regular: info.Mode().IsRegular()}
	if !h.regular {
		return h, nil
	}
	h.size, h.written = info.Size(), info.ModTime()
	if passedOver(name) { // of which it is told if it is of the time
		return h, nil
	}
	file, text, err := openText(name, nil)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	head, _ := io.ReadAll(io.LimitReader(text, 64<<10)) // what is wrong with it is told when it is read
	for line := range bytes.Lines(head) {
		if at, err := time.Parse(TimeLayout, string(timeOf(line))); err == nil {
			h.first = at
			break
		}
	}
	return h, nil
}

// misses reports whether no record of the file is of the time.
func (h *heldFile) misses(q *Query) bool {
	return !q.Since.IsZero() && !h.written.IsZero() && h.written.Add(maxClock).Before(q.Since) ||
		!q.Until.IsZero() && !h.first.IsZero() && h.first.Add(-maxLate).After(q.Until)
}

// openText opens a file, and what it says: decompressed where its first bytes are
// those of gzip or zstd. Read is told of bytes of the file.
func openText(name string, read func(int)) (*os.File, io.Reader, error) {
	if passedOver(name) {
		return nil, nil, errNotRead(name)
	}
	file, err := os.Open(name)
	if err != nil {
		return nil, nil, err
	}
	text, err := decompress(&countingReader{file, read})
	if err != nil {
		_ = file.Close()
		return nil, nil, fmt.Errorf("read %s: %w", name, err)
	}
	return file, text, nil
}

func decompress(r io.Reader) (io.Reader, error) {
	buffered := bufio.NewReaderSize(r, 64<<10)
	magic, _ := buffered.Peek(4) // a shorter file is neither
	switch {
	case bytes.HasPrefix(magic, []byte{0x1f, 0x8b}):
		return gzip.NewReader(buffered)
	case bytes.HasPrefix(magic, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		d, err := zstd.NewReader(buffered, zstd.WithDecoderMaxWindow(128<<20), zstd.WithDecoderConcurrency(1))
		if err != nil {
			return nil, err
		}
		return d.IOReadCloser(), nil
	}
	return buffered, nil
}

type countingReader struct {
	io.Reader
	read func(int)
}

func (c *countingReader) Read(b []byte) (int, error) {
	n, err := c.Reader.Read(b)
	if c.read != nil {
		c.read(n)
	}
	return n, err
}

type searching struct {
	*Files
	sifting
	ctx      context.Context
	progress Progress
	stopped  error // by whom it is for
}

func (s *searching) file(h *heldFile) error {
	begun := s.progress.Read
	defer func() { s.progress.Read = begun + h.size }()
	read := func(n int) {
		s.progress.Read += int64(n)
		if s.Progress != nil {
			s.Progress(s.progress)
		}
	}
	file, text, err := openText(h.name, read)
	if err != nil {
		return err
	}
	defer file.Close()
	if c, ok := text.(io.Closer); ok {
		defer c.Close()
	}
	from := int64(0)
	if plain, ok := text.(*bufio.Reader); ok && h.regular {
		section, err := sectionOf(file, h.size, s.query)
		if err != nil {
			return fmt.Errorf("read %s: %w", h.name, err)
		}
		if from = section.from; from > 0 {
			s.progress.Read = begun + from
		}
		if section.from > 0 || section.to < h.size {
			if _, err := file.Seek(section.from, io.SeekStart); err != nil {
				return err
			}
			plain.Reset(io.LimitReader(&countingReader{file, read}, section.to-section.from))
		}
	}
	return s.lines(h.name, from, text)
}

// lines reads lines of a file, from an offset on.
func (s *searching) lines(name string, from int64, text io.Reader) error {
	buf := make([]byte, 0, MaxLine)
	number, known := 0, len(s.Torn)
	long := false // we are in a line that is too long
	var err error
	for err == nil {
		if s.stopped = s.ctx.Err(); s.stopped != nil {
			return s.stopped
		}
		var n int
		n, err = text.Read(buf[len(buf):min(len(buf)+readSize, cap(buf))])
		buf = buf[:len(buf)+n]
		if s.sieve == nil && len(buf) > 0 {
			s.sieve = newSieve(s.query, buf[:min(len(buf), 64<<10)])
		}
		rest := buf
		for {
			i := bytes.IndexByte(rest, '\n')
			if i < 0 {
				break
			}
			number++
			if long {
				long = false
				s.torn(name, number)
			} else if s.stopped = s.line(name, number, rest[:i]); s.stopped != nil {
				return s.stopped
			}
			rest = rest[i+1:]
		}
		if len(rest) == cap(buf) {
			long, rest = true, nil
		}
		buf = buf[:copy(buf[:cap(buf)], rest)]
	}
	if long || len(buf) > 0 { // without a line feed: it is being written, or was torn
		number++
		if s.stopped = s.line(name, number, buf); s.stopped != nil {
			return s.stopped
		}
	}
	if from > 0 && len(s.Torn) > known {
		before, err := countLines(name, from)
		if err != nil {
			return err
		}
		for i := range s.Torn[known:] {
			s.Torn[known+i].Line += before
		}
	}
	if err != io.EOF {
		return fmt.Errorf("read %s: %w", name, err)
	}
	return nil
}

// follow reads a file, and what is appended to it, and then the one that took its name.
func (s *searching) follow(h *heldFile) error {
	from := int64(0)
	for {
		file, err := os.Open(h.name)
		for ; errors.Is(err, fs.ErrNotExist); file, err = os.Open(h.name) { // between two
			if err := s.wait(); err != nil {
				return err
			}
		}
		if err == nil && h.regular {
			var part section
			part, err = sectionOf(file, h.size, &Query{Since: s.query.Since})
			if from = part.from; err == nil {
				_, err = file.Seek(from, io.SeekStart)
			}
			h.regular = false // of the next, all is new
		}
		if err == nil {
			s.Report.Files++
			err = s.lines(h.name, from, &tail{s, file, h.name})
			_ = file.Close()
		}
		if err != nil {
			return err
		}
		from = 0
	}
}

// followEvery is how often a file is looked at.
const followEvery = 200 * time.Millisecond

func (s *searching) wait() error {
	if s.Idle != nil {
		s.Idle()
	}
	select {
	case <-s.ctx.Done():
		s.stopped = s.ctx.Err()
		return s.stopped
	case <-time.After(followEvery):
		return nil
	}
}

// A tail is a file that others append to. It ends when another file has its name and
// all of it was read.
type tail struct {
	*searching
	file *os.File
	name string
}

func (t *tail) Read(b []byte) (int, error) {
	for replaced := false; ; {
		n, err := t.file.Read(b)
		if n > 0 || err != io.EOF || replaced {
			return n, err
		}
		now, err := os.Stat(t.name)
		held, heldErr := t.file.Stat()
		if heldErr != nil {
			return 0, heldErr
		}
		if replaced = err == nil && !os.SameFile(now, held); replaced {
			continue // for what was written before
		}
		if at, err := t.file.Seek(0, io.SeekCurrent); err == nil && held.Size() < at { // copied and truncated
			if _, err := t.file.Seek(0, io.SeekStart); err != nil {
				return 0, err
			}
			continue
		}
		if err := t.wait(); err != nil {
			return 0, err
		}
	}
}

// countLines counts those before an offset.
func countLines(name string, offset int64) (int, error) {
	file, err := os.Open(name)
	if err != nil {
		return 0, err
	}
	defer file.Close()
	buf := make([]byte, 256<<10)
	lines := 0
	for r := io.LimitReader(file, offset); ; {
		n, err := r.Read(buf)
		lines += bytes.Count(buf[:n], []byte{'\n'})
		if err != nil {
			if err == io.EOF {
				err = nil
			}
			return lines, err
		}
	}
}

type section struct{ from, to int64 }

// sectionOf finds what of a plain file can be of the time. Decisions are recorded when
// they are made, so that what stands before one of them is of an earlier time;
// deliveries come late.
func sectionOf(file io.ReaderAt, size int64, q *Query) (section, error) {
	whole := section{0, size}
	var err error
	if !q.Since.IsZero() {
		if whole.from, _, err = divide(file, size, q.Since.Add(-maxClock)); err != nil {
			return whole, err
		}
	}
	if !q.Until.IsZero() {
		_, whole.to, err = divide(file, size, q.Until.Add(maxLate+maxClock))
	}
	return whole, err
}

// divideStep is how near divide comes, and how far it looks for a decision.
const divideStep = 1 << 20

// divide finds two places where decisions begin: one of before a moment, or the
// beginning, and one of the moment or after it, or the end.
func divide(file io.ReaderAt, size int64, moment time.Time) (before, after int64, err error) {
	before, after = 0, size
	buf := make([]byte, divideStep)
	for low, high := int64(0), size; high-low > 2*divideStep; {
		middle := low + (high-low)/2
		n, err := file.ReadAt(buf, middle)
		if err != nil && err != io.EOF {
			return before, after, err
		}
		at, decided, ok := firstDecision(buf[:n])
		switch {
		case !ok:
			high = middle
		case decided.Before(moment):
			low, before = middle+at, middle+at
		default:
			high, after = middle, middle+at
		}
	}
	return before, after, nil
}

// firstDecision finds the first whole line that is a decision.
func firstDecision(block []byte) (at int64, decided time.Time, ok bool) {
	for {
		i := bytes.IndexByte(block, '\n')
		if i < 0 {
			return 0, time.Time{}, false
		}
		block, at = block[i+1:], at+int64(i)+1
		line := block[:max(bytes.IndexByte(block, '\n'), 0)]
		if bytes.Contains(line[:min(len(line), 64)], []byte(`"type":"`+TypeDecision+`"`)) {
			if decided, err := time.Parse(TimeLayout, string(timeOf(line))); err == nil {
				return at, decided, true
			}
		}
	}
}
