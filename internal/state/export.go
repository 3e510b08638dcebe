package state

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"time"

	"go.etcd.io/bbolt"
)

// maxLine bounds a line of an export, in bytes: a link with as many uses as links have.
const maxLine = 64 << 20

// An Entry is a line of an export: one of its members.
type Entry struct {
	// Export is the first line.
	Export     *Export     `json:"export,omitempty"`
	Count      *Count      `json:"count,omitempty"`
	Link       *Link       `json:"link,omitempty"`
	Uses       *LinkUses   `json:"uses,omitempty"`
	Revocation *Revocation `json:"revocation,omitempty"`
}

// An Export says what the lines after it are.
type Export struct {
	Format string    `json:"format"`
	At     time.Time `json:"at"`
}

// LinkUses are what a link was used for.
type LinkUses struct {
	Link string `json:"link"`
	Uses
}

// Write writes entries as lines of JSON, the first of which says what they are.
func Write(w io.Writer, entries iter.Seq2[Entry, error], now time.Time) error {
	lines := json.NewEncoder(w)
	lines.SetEscapeHTML(false)
	if err := lines.Encode(Entry{Export: &Export{formatVersion, now.UTC().Truncate(time.Second)}}); err != nil {
		return err
	}
	for e, err := range entries {
		if err == nil {
			err = lines.Encode(e)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Read reads what Write has written. Of another format, of members that are not known, and
// of what is no line of an export, it is an error, which names the line.
func Read(r io.Reader) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		lines := bufio.NewScanner(r)
		lines.Buffer(nil, maxLine)
		n := 0
		for lines.Scan() {
			n++
			e, err := entry(lines.Bytes(), n == 1)
			if err != nil {
				yield(Entry{}, fmt.Errorf("line %d: %w", n, err))
				return
			}
			if n > 1 && !yield(e, nil) {
				return
			}
		}
		if err := lines.Err(); err != nil {
			yield(Entry{}, fmt.Errorf("line %d: %w", n+1, err))
		} else if n == 0 {
			yield(Entry{}, errors.New("line 1: there is none: an export begins with its format"))
		}
	}
}

// entry reads a line.
func entry(text []byte, first bool) (e Entry, err error) {
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err = d.Decode(&e); err == nil && d.InputOffset() != int64(len(bytes.TrimRight(text, " \t\r"))) {
		err = errors.New("something stands behind it")
	}
	switch {
	case err != nil:
		return e, fmt.Errorf("it is no line of an export of this version: %w", err)
	case first && e.Export == nil:
		return e, errors.New("an export begins with its format, and this does not")
	case first && e.Export.Format != formatVersion:
		return e, fmt.Errorf("it is of format %q, and this version reads %s", e.Export.Format, formatVersion)
	case first:
		return e, nil
	}
	members := 0
	for _, is := range []bool{e.Count != nil, e.Link != nil, e.Uses != nil, e.Revocation != nil} {
		if is {
			members++
		}
	}
	switch {
	case members != 1 || e.Export != nil:
		return e, errors.New("it is not one of count, link, uses and revocation")
	case e.Count != nil && e.Count.Key == "", e.Link != nil && (e.Link.ID == "" || e.Link.Expires.IsZero()), e.Uses != nil && (e.Uses.Link == "" || e.Uses.Until.IsZero() || slices.Contains(e.Uses.List, nil)),
		e.Revocation != nil && e.Revocation.Until.IsZero():
		return e, errors.New("what it is about, or its end, is missing")
	}
	return e, nil
}

// ReadBackup reads what is in a copy of a [Disk]'s file. A file that another process has
// open, and one that is damaged, is an error.
func ReadBackup(file string) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		db, err := bbolt.Open(file, 0o600, &bbolt.Options{ReadOnly: true, Timeout: time.Second})
		if err == nil {
			defer db.Close() //nolint:errcheck // it was only read
			err = guarded(db.View)(func(tx *bbolt.Tx) error {
				if meta := tx.Bucket(bucketMeta); meta == nil {
					return errors.New("it is no copy of a state")
				} else if v := meta.Get(keyFormat); string(v) != formatVersion {
					return fmt.Errorf("it is of format %q, and this version reads %s", v, formatVersion)
				}
				return nil
			})
		}
		if err != nil {
			yield(Entry{}, fmt.Errorf("read %s: %w", file, err))
			return
		}
		for e, err := range entriesOf(guarded(db.View), true) {
			if err != nil {
				err = fmt.Errorf("read %s: %w", file, err)
			}
			if !yield(e, err) {
				return
			}
		}
	}
}

// A view reads in a file.
type view func(func(*bbolt.Tx) error) error

// guarded is a view of a file that may be damaged: it is mapped, so that what is cut off
// is a fault.
func guarded(v view) view {
	return func(read func(*bbolt.Tx) error) (err error) {
		defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
		defer func() {
			if r := recover(); r != nil {
				err = fmt.Errorf("it is damaged: %v", r)
			}
		}()
		return v(read)
	}
}

// IsBackup reports whether a file begins like one of a [Disk]: with the number of its
// first page, which is zero. No text does.
func IsBackup(file io.ReaderAt) bool {
	var first [8]byte
	_, err := file.ReadAt(first[:], 0)
	return err == nil && first == [8]byte{}
}

// entriesOf are what is kept of links in a file, and with counts what is of bytes. It is
// read some at a time, so that whoever is slow to take it keeps nobody waiting who writes.
func entriesOf(v view, counts bool) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		each := func(bucket []byte, read func(k, v []byte) (Entry, error)) bool {
			for last, done := []byte(nil), false; !done; {
				var some []Entry
				err := v(func(tx *bbolt.Tx) error {
					b := tx.Bucket(bucket)
					if b == nil {
						done = true
						return nil
					}
					c := b.Cursor()
					k, v := c.Seek(last)
					if last != nil && bytes.Equal(k, last) {
						k, v = c.Next()
					}
					for ; k != nil && len(some) < readAtATime; k, v = c.Next() {
						e, err := read(k, v)
						if err != nil {
							return fmt.Errorf("%s %q: %w", bucket, k, err)
						}
						some, last = append(some, e), append(last[:0], k...)
					}
					done = k == nil
					return nil
				})
				for _, e := range some {
					if !yield(e, nil) {
						return false
					}
				}
				if err != nil {
					yield(Entry{}, err)
					return false
				}
			}
			return true
		}
		_ = (!counts || each(bucketBytes, func(k, v []byte) (Entry, error) {
			c := &Count{Key: string(k)}
			return Entry{Count: c}, c.Full.UnmarshalBinary(v)
		})) && each(bucketLinks, func(_, v []byte) (Entry, error) {
			l := &Link{}
			return Entry{Link: l}, json.Unmarshal(v, l)
		}) && each(bucketUses, func(k, v []byte) (Entry, error) {
			u := &LinkUses{Link: string(k)}
			return Entry{Uses: u}, json.Unmarshal(v, &u.Uses)
		}) && each(bucketRevoked, func(_, v []byte) (Entry, error) {
			r := &Revocation{}
			return Entry{Revocation: r}, json.Unmarshal(v, r)
		})
	}
}

// merge adds uses that are not known. What one of two stores has is used.
func (u *Uses) merge(other Uses) {
	for _, one := range other.List {
		at := slices.IndexFunc(u.List, func(known *OneUse) bool { return known.Request == one.Request && known.Client == one.Client })
		if at < 0 {
			copied := *one
			u.List = append(u.List, &copied)
			continue
		}
		if known := u.List[at]; one.Last.After(known.Last) {
			known.Last = one.Last
		}
		u.List[at].Short = u.List[at].Short || one.Short
	}
	if other.Until.After(u.Until) {
		u.Until = other.Until
	}
}

// supersedes reports whether a link is to be kept in the place of what is known of it: one
// that was made here, with all that it takes to open it.
func (l *Link) supersedes() bool { return l.Made && (l.PasswordHash != "" || !l.Password) }

// exported are counts and then more, for an export.
func exported(counts []Count, more ...iter.Seq2[Entry, error]) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		for i := range counts {
			if !yield(Entry{Count: &counts[i]}, nil) {
				return
			}
		}
		for _, entries := range more {
			for e, err := range entries {
				if !yield(e, err) || err != nil {
					return
				}
			}
		}
	}
}

// batches are entries, some at a time.
func batches(entries iter.Seq2[Entry, error], size int) iter.Seq2[[]Entry, error] {
	return func(yield func([]Entry, error) bool) {
		var some []Entry
		for e, err := range entries {
			if err != nil {
				yield(nil, err)
				return
			}
			if some = append(some, e); len(some) == size {
				if !yield(some, nil) {
					return
				}
				some = some[:0]
			}
		}
		if len(some) > 0 {
			yield(some, nil)
		}
	}
}

// Export returns what is counted now.
func (m *Memory) Export(ctx context.Context, _ bool) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		counts, err := m.Counts(ctx)
		if err != nil {
			yield(Entry{}, err)
			return
		}
		exported(counts)(yield)
	}
}

// Restore adds to what is counted, as [Disk.Restore] does. What is of links is an error.
func (m *Memory) Restore(_ context.Context, entries iter.Seq2[Entry, error]) (n int, err error) {
	for e, err := range entries {
		if err != nil {
			return n, err
		}
		if e.Count == nil {
			return n, errors.New("the state is in memory, which keeps nothing of links: set state.file or state.redis")
		}
		m.restore(e.Count)
		n++
	}
	return n, nil
}

// restore takes the later of two times at which all of a key is there again. Of places
// nothing is restored.
func (m *Memory) restore(c *Count) {
	now := m.opts.Now()
	if !c.Full.After(now) {
		return
	}
	s, one := m.find(c.Key, now)
	defer s.mu.Unlock()
	if c.Full.After(one.tat) {
		one.tat, one.kept, one.dirty = c.Full, true, true
	}
}

// Export returns all that is known, but for the secret: what limits count, links, what
// they were used for, and what was revoked. The hashes of links' passwords are in it where
// they are asked for.
func (d *Disk) Export(ctx context.Context, passwords bool) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		counts, err := d.Counts(ctx)
		if err == nil {
			err = d.flush() // the links that were seen
		}
		if err != nil {
			yield(Entry{}, err)
			return
		}
		view := func(read func(*bbolt.Tx) error) error {
			d.mu.Lock()
			defer d.mu.Unlock()
			return d.db.View(read)
		}
		for e, err := range exported(counts, entriesOf(view, false)) {
			if e.Link != nil && !passwords {
				e.Link.PasswordHash = ""
			}
			if !yield(e, err) {
				return
			}
		}
	}
}

// Restore adds what is not known: nothing that was used or revoked is open again by it, and
// nothing that was taken of a limit is given back. It returns how much it has read; where it
// fails, all of it once more does no harm.
func (d *Disk) Restore(_ context.Context, entries iter.Seq2[Entry, error]) (n int, err error) {
	d.mu.Lock()
	known := map[Revocation]bool{} // of more than one link
	for _, r := range d.revoked {
		known[r.plain()] = true
	}
	d.mu.Unlock()
	for some, err := range batches(entries, readAtATime) {
		if err == nil {
			err = d.restore(some, known)
		}
		if err != nil {
			return n, err
		}
		n += len(some)
	}
	return n, d.flush()
}

// restore adds some entries. Those that could not be written hold until the process ends.
func (d *Disk) restore(some []Entry, known map[Revocation]bool) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := d.opts.Now()
	return d.db.Update(func(tx *bbolt.Tx) error {
		for _, e := range some {
			var err error
			switch {
			case e.Count != nil:
				d.Memory.restore(e.Count)
			case e.Link != nil && e.Link.Expires.After(now):
				err = d.restoreLink(tx, *e.Link)
			case e.Uses != nil && e.Uses.Until.After(now):
				err = d.restoreUses(tx, e.Uses)
			case e.Revocation != nil && e.Revocation.Until.After(now):
				err = d.restoreRevocation(tx, *e.Revocation, known)
			}
			if err != nil {
				return fmt.Errorf("restore: %w", err)
			}
		}
		return nil
	})
}

func (d *Disk) restoreLink(tx *bbolt.Tx, l Link) error {
	last := d.links[l.ID]
	if last != nil && !l.supersedes() {
		return nil
	}
	if last == nil && len(d.links) >= maxCounted {
		return errManyLinks
	}
	l.Used, l.Revoked = 0, false
	d.links[l.ID] = &l
	return putIn(tx, bucketLinks, l.ID, &l)
}

func (d *Disk) restoreUses(tx *bbolt.Tx, more *LinkUses) error {
	last := d.uses[more.Link]
	if last == nil && len(d.uses) >= maxCounted {
		return errManyUses
	}
	u := last.clone()
	u.merge(more.Uses)
	d.drop(more.Link)
	d.hold(more.Link, u)
	return putIn(tx, bucketUses, more.Link, u)
}

func (d *Disk) restoreRevocation(tx *bbolt.Tx, r Revocation, known map[Revocation]bool) error {
	last := d.ids[r.ID]
	if r.ID == "" && known[r.plain()] || last != nil && !r.Until.After(last.Until) {
		return nil
	}
	if last == nil && len(d.ids)+len(d.revoked) >= maxRevocations {
		return errManyRevocations
	}
	key := r.ID
	if key == "" {
		known[r.plain()] = true
		sequence, err := tx.Bucket(bucketRevoked).NextSequence()
		if err != nil {
			return err
		}
		key = fmt.Sprintf("\x00restored %d", sequence)
	}
	d.note(&r)
	return putIn(tx, bucketRevoked, key, r)
}

// plain is a revocation that is equal to each that says the same.
func (r Revocation) plain() Revocation {
	r.Before, r.Until = time.Unix(0, r.Before.UnixNano()).UTC(), time.Unix(0, r.Until.UnixNano()).UTC()
	return r
}

func putIn(tx *bbolt.Tx, bucket []byte, key string, value any) error {
	text, err := json.Marshal(value)
	if err != nil {
		return err
	}
	return tx.Bucket(bucket).Put([]byte(key), text)
}

// Compact writes the file anew, without the room that nothing is in any more, and returns
// how long it was and is, in bytes. Whoever writes waits meanwhile.
func (d *Disk) Compact() (before, after int64, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	copied := d.file + ".compact"
	if err := os.Remove(copied); err != nil && !errors.Is(err, fs.ErrNotExist) { // of one that was killed
		return 0, 0, fmt.Errorf("compact the state: %w", err)
	}
	db, err := open(copied)
	if err != nil {
		return 0, 0, fmt.Errorf("compact the state: %w", err)
	}
	db.NoSync = true
	err = bbolt.Compact(db, d.db, 1<<20)
	db.NoSync = false
	if err == nil {
		err = db.Sync()
	}
	if err == nil {
		before, after = size(d.db), size(db)
		err = os.Rename(copied, d.file)
	}
	if err != nil {
		return 0, 0, errors.Join(fmt.Errorf("compact the state: %w", err), db.Close(), os.Remove(copied))
	}
	last := d.db
	d.db = db
	return before, after, errors.Join(syncDirectory(d.file), last.Close())
}

// size is how long a file is.
func size(db *bbolt.DB) (n int64) {
	_ = db.View(func(tx *bbolt.Tx) error { n = tx.Size(); return nil })
	return n
}

// syncDirectory makes a new name last.
func syncDirectory(file string) error {
	dir, err := os.Open(filepath.Dir(file))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
