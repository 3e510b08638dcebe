package audit

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Stdout is the name that stands for standard output in the place of a file.
const Stdout = "stdout"

// types are what records are counted by.
var types = Types()

// keptBytes is how much room for lines is kept from one write to the next.
const keptBytes = 1 << 20

// WriterOptions are what a writer can do without.
type WriterOptions struct {
	// Sync has each record reach the disk (fsync) before Write returns, and not the
	// kernel alone. Records that come meanwhile share the next one.
	Sync bool
	// Output is written to where the name is Stdout; nil means os.Stdout.
	Output io.Writer
	// Transform changes a copy of each record before it is written; nil changes
	// nothing.
	Transform Transform
	// Chain has the records chained by hash; nil does not.
	Chain *ChainOptions
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// A Transform changes what is written of a record.
type Transform interface {
	// Apply changes the record. After an error it is not written.
	Apply(r *Record) error
}

// A Writer appends records to a file, of which it is the only writer. It is safe for
// concurrent use.
type Writer struct {
	name      string
	sync      bool
	transform Transform
	now       func() time.Time

	mu   sync.Mutex
	next *batch // of those who wait for their turn; nil where nobody does

	turn  sync.Mutex // one write at a time; it guards what follows
	out   io.Writer
	file  *os.File // nil where the output is standard output, or the file is let go
	lost  bool     // the file is let go, because its disk failed
	torn  bool     // what was written last ends within a line
	text  []byte
	chain *chain // nil for none

	written  [3]atomic.Uint64 // of each type
	failures atomic.Uint64
	failing  atomic.Bool
}

// A batch is the records that are written by one system call: by the first who came,
// for all.
type batch struct {
	text []byte
	ends []int // of the lines in it
	done chan struct{}
	good int   // how many lines were written, from the first
	err  error // why the others were not
}

// OpenWriter opens a file for appending, and makes it, with mode 0640, where there is
// none. A line that a crash has left without an end is ended. The file is locked
// against other writers (flock); the error of a second one says so.
func OpenWriter(name string, opts *WriterOptions) (*Writer, error) {
	if opts == nil {
		opts = &WriterOptions{}
	}
	w := &Writer{name: name, sync: opts.Sync, transform: opts.Transform, now: opts.Now}
	if w.now == nil {
		w.now = time.Now
	}
	if opts.Chain != nil {
		w.chain = &chain{ChainOptions: *opts.Chain, due: true}
	}
	if name == Stdout {
		if w.out = opts.Output; w.out == nil {
			w.out = os.Stdout
		}
		w.sync = false
		return w, nil
	}
	if err := w.open(os.O_CREATE); err != nil {
		return nil, err
	}
	if err := w.resume(); err != nil {
		return nil, errors.Join(err, w.Close())
	}
	return w, nil
}

// resume has the chain go on behind what is in the file, and in those that it was
// rotated to.
func (w *Writer) resume() error {
	if w.chain == nil {
		return nil
	}
	head, err := lastHead(w.name)
	if err != nil {
		return fmt.Errorf("find the head of the chain: %w", err)
	}
	w.chain.head = head
	return nil
}

// open opens the file that has the name now; create is os.O_CREATE to make it where
// there is none, or 0.
func (w *Writer) open(create int) error {
	// A pipe would keep whoever opens it waiting.
	f, err := os.OpenFile(w.name, os.O_APPEND|create|os.O_RDWR|syscall.O_NONBLOCK, 0o640)
	if err != nil {
		return fmt.Errorf("open the audit file: %w", err)
	}
	torn, err := isTorn(f, w.name)
	if err != nil {
		return errors.Join(fmt.Errorf("open the audit file: %w", err), f.Close())
	}
	if w.file != nil {
		_ = w.file.Close() // each write has returned
	}
	w.file, w.out, w.torn, w.lost = f, f, torn, false
	if w.chain != nil {
		w.chain.due = true // each file begins with a checkpoint, and can be verified by itself
	}
	return nil
}

// isTorn locks a file, and reports whether its last line has no end.
func isTorn(f *os.File, name string) (bool, error) {
	info, err := f.Stat()
	if err != nil {
		return false, err
	}
	if !info.Mode().IsRegular() {
		return false, &fs.PathError{Op: "open", Path: name, Err: errors.New("not a regular file; standard output is `stdout`")}
	}
	// Not every file system has locks: the one that says that another holds it does.
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); errors.Is(err, syscall.EWOULDBLOCK) {
		return false, &fs.PathError{Op: "lock", Path: name, Err: errors.New("another service writes to it: each needs a file of its own")}
	}
	return endsTorn(f)
}

// Reopen opens the file anew, once it was renamed or removed. After an error, the
// writer goes on with the file that it has.
func (w *Writer) Reopen() error {
	w.turn.Lock()
	defer w.turn.Unlock()
	if w.lost {
		return w.take(os.O_CREATE)
	}
	if w.file == nil {
		return nil
	}
	if now, err := os.Stat(w.name); err == nil {
		if mine, err := w.file.Stat(); err == nil && os.SameFile(now, mine) {
			return nil
		}
	}
	return w.open(os.O_CREATE)
}

// letGo closes a file whose disk has failed: one that is read-only since an error stays
// so until it is unmounted, which it could not be.
func (w *Writer) letGo() {
	if w.file != nil {
		_ = w.file.Close() // what was written failed already
		w.file, w.out, w.lost = nil, nil, true
	}
}

// take opens a file again that was let go. It is made anew only where somebody asks for
// that: while the disk is not mounted, another one is below its directory.
func (w *Writer) take(create int) error {
	if !w.lost {
		return nil
	}
	err := w.open(create)
	if err == nil {
		if err = w.resume(); err != nil {
			w.letGo()
		}
	}
	return err
}

// noRoom says that a write failed for want of room, of which the file gets over.
func noRoom(err error) bool { return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) }

// Close signs the head of the chain, and closes the file.
func (w *Writer) Close() error {
	err := w.Checkpoint()
	w.turn.Lock()
	defer w.turn.Unlock()
	if w.file == nil {
		return nil
	}
	err = errors.Join(err, w.file.Close())
	w.file = nil
	return err
}

// Checkpoint writes a checkpoint of the chain, if there are records since the last.
func (w *Writer) Checkpoint() error {
	if w.chain == nil {
		return nil
	}
	w.turn.Lock()
	defer w.turn.Unlock()
	if w.chain.head.Seq == w.chain.signed || w.file == nil && !w.lost && w.name != Stdout {
		return nil
	}
	w.chain.due = true
	b := &batch{}
	w.commit(b)
	return b.err
}

// position returns the file and how much is in it.
func (w *Writer) position() (device, inode uint64, size int64, err error) {
	w.turn.Lock()
	defer w.turn.Unlock()
	if err := w.take(0); err != nil {
		return 0, 0, 0, err
	}
	if w.file == nil {
		return 0, 0, 0, os.ErrClosed
	}
	info, err := w.file.Stat()
	if err != nil {
		return 0, 0, 0, err
	}
	id := idOf(info)
	return id.device, id.inode, info.Size(), nil
}

var lines = sync.Pool{New: func() any { return new([]byte) }}

// Write appends a record. Once it returns without an error the record is in the
// kernel, or on the disk where the writer is to sync: neither the end of the process
// nor, then, that of the machine takes it away. After an error a part of the line may
// be in the file, which readers pass over, or the whole of it.
func (w *Writer) Write(r *Record) error {
	_, err := w.WriteAll(r)
	return err
}

// WriteAll is Write for several records, and returns how many were written, from the
// first.
func (w *Writer) WriteAll(records ...*Record) (int, error) {
	text := lines.Get().(*[]byte)
	defer lines.Put(text)
	*text = (*text)[:0]
	var ends [1]int
	places := ends[:0]
	for _, r := range records {
		if w.transform != nil {
			changed := *r
			if err := w.transform.Apply(&changed); err != nil {
				w.failures.Add(uint64(len(records)))
				return 0, fmt.Errorf("write to the audit file: %w", err)
			}
			r = &changed
		}
		*text = append(r.Append(*text), '\n')
		places = append(places, len(*text))
	}

	w.mu.Lock()
	b, leads := w.next, w.next == nil
	if leads {
		b = &batch{done: make(chan struct{})}
		w.next = b
	}
	before, first := len(b.ends), len(b.text)
	b.text = append(b.text, *text...)
	for _, end := range places {
		b.ends = append(b.ends, first+end)
	}
	w.mu.Unlock()

	if leads {
		w.turn.Lock()
		w.mu.Lock()
		w.next = nil
		w.mu.Unlock()
		w.commit(b)
		w.turn.Unlock()
		close(b.done)
	} else {
		<-b.done
	}
	good := min(max(b.good-before, 0), len(records))
	for _, r := range records[:good] {
		w.written[slices.Index(types, r.Type)].Add(1)
	}
	if good < len(records) {
		return good, b.err
	}
	return good, nil
}

// commit writes a batch: after a line feed if a line was torn, and after a checkpoint if
// one is due.
func (w *Writer) commit(b *batch) {
	err := w.take(0)
	var text []byte
	if err == nil {
		text, err = w.compose(b)
	}
	n := 0
	if err == nil {
		if n, err = w.out.Write(text); err != nil && !noRoom(err) {
			w.letGo()
		}
	}
	if n > 0 {
		w.torn = text[n-1] != '\n'
	}
	for b.good < len(b.ends) && b.ends[b.good]-1 <= n { // its line feed may come with the next
		b.good++
	}
	if w.chain != nil {
		w.written[slices.Index(types, TypeCheckpoint)].Add(w.chain.wrote(n))
	}
	if len(b.ends) > 0 && b.good == len(b.ends) {
		err = nil // but for a line feed
	}
	if err == nil && w.sync {
		if err = w.file.Sync(); err != nil {
			b.good = 0 // what of it is on the disk nobody knows
			w.letGo()
		}
	}
	if cap(w.text) > keptBytes {
		w.text = nil
	}
	w.failing.Store(err != nil)
	if err != nil {
		w.failures.Add(uint64(len(b.ends) - b.good))
		b.err = fmt.Errorf("write to the audit file: %w", err)
	}
}

// compose returns what is to be written for a batch, and has its ends be those in there.
func (w *Writer) compose(b *batch) ([]byte, error) {
	if w.chain == nil && !w.torn {
		return b.text, nil
	}
	out := w.text[:0]
	if w.torn {
		out = append(out, '\n')
	}
	if w.chain == nil {
		for i := range b.ends {
			b.ends[i] += len(out)
		}
		out = append(out, b.text...)
		w.text = out
		return out, nil
	}
	c := w.chain
	c.next = c.next[:0]
	if c.due {
		line, err := c.checkpoint(nil, w.now())
		if err != nil {
			return nil, err
		}
		out = c.add(out, line, true)
	}
	from := 0
	for i, end := range b.ends {
		out = c.add(out, b.text[from:end], false)
		from, b.ends[i] = end, len(out)
	}
	w.text = out
	return out, nil
}

// WriterState is what became of the records of a writer.
type WriterState struct {
	// Records were written, by type; Failures were not.
	Records  map[string]uint64
	Failures uint64
	// Failing says that the last one was not.
	Failing bool
}

// State returns what became of the records.
func (w *Writer) State() WriterState {
	s := WriterState{Records: map[string]uint64{}, Failures: w.failures.Load(), Failing: w.failing.Load()}
	for i, name := range types {
		s.Records[name] = w.written[i].Load()
	}
	return s
}
