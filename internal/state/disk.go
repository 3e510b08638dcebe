package state

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

// Bounds of a Disk.
const (
	// formatVersion is of what is kept; another one is not opened.
	formatVersion = "1"
	// flushEach is how often byte counts are written.
	flushEach = time.Second
	// forgetAfter is for how long what is over is kept, by a clock that nobody sets: a clock
	// that is put ahead by mistake, and right again, opens no link that was used or revoked.
	forgetAfter = time.Hour
	// maxRevocations and maxCounted bound what is kept of links.
	maxRevocations = 100_000
	maxCounted     = 1_000_000
)

var (
	bucketMeta    = []byte("meta")
	bucketBytes   = []byte("bytes")
	bucketUses    = []byte("uses")
	bucketRevoked = []byte("revoked")
	bucketLinks   = []byte("links")
	bucketTaken   = []byte("taken")
	keyFormat     = []byte("format")
	keySecret     = []byte("secret")
)

// A Disk counts like a [Memory], and keeps in a file what must outlast the process: uses
// and revocations of links before they are answered, byte counts within a second. One
// process has the file at a time. It is safe for concurrent use.
type Disk struct {
	*Memory
	file   string
	secret []byte

	mu      sync.Mutex
	db      *bbolt.DB
	uses    map[string]*Uses
	asked   map[string]string // the requests of the uses: of which link
	ids     map[string]*Revocation
	revoked []*Revocation // all others
	links   map[string]*Link
	unseen  map[string]bool // of them: what is not written yet

	memoir
}

// A memoir is what the clock has said, since forgetAfter and a little longer.
type memoir struct {
	running func() time.Duration // for how long this process runs
	said    []clockSaid
}

// A clockSaid is what the clock said once.
type clockSaid struct {
	running time.Duration
	now     time.Time
}

func newMemoir() memoir {
	begin := time.Now()
	return memoir{running: func() time.Duration { return time.Since(begin) }}
}

// surely returns the earliest that the clock has said for forgetAfter; zero where this
// process does not run for so long.
func (m *memoir) surely(now time.Time) time.Time {
	running := m.running()
	m.said = append(m.said, clockSaid{running, now})
	for len(m.said) > 1 && running-m.said[1].running >= forgetAfter {
		m.said = m.said[1:]
	}
	if running-m.said[0].running < forgetAfter {
		return time.Time{}
	}
	return slices.MinFunc(m.said, func(a, b clockSaid) int { return a.now.Compare(b.now) }).now
}

// OpenDisk opens a file, and makes it with mode 0600 if it does not exist. Another process
// that has it open is an error, after a second.
func OpenDisk(file string, opts *MemoryOptions) (*Disk, error) {
	d := &Disk{Memory: NewMemory(opts), file: file, uses: map[string]*Uses{}, asked: map[string]string{}, ids: map[string]*Revocation{}, links: map[string]*Link{}, unseen: map[string]bool{}, memoir: newMemoir()}
	d.keeps = true
	var err error
	d.db, err = open(file)
	if errors.Is(err, bolterrors.ErrTimeout) {
		return nil, fmt.Errorf("open the state: %s is open in another process: an instance needs a file of its own, and several that count together need one Redis", file)
	}
	if err == nil {
		if d.file, err = filepath.EvalSymlinks(file); err == nil { // its place is taken by Compact
			err = d.load()
		}
		if err != nil {
			err = errors.Join(err, d.db.Close())
		}
	}
	switch {
	case errors.Is(err, fs.ErrNotExist): // the file is made, but not where it is to be
		return nil, fmt.Errorf("open the state: %s: %w: make the directory, of mode 0700 and the service's user; the unit of systemd makes /var/lib/securefiles (StateDirectory)", file, err)
	case err != nil:
		return nil, fmt.Errorf("open the state: %s: %w", file, err)
	}
	return d, nil
}

// open opens a file that no other process has. One in whose place another was put while it
// was waited for is that process's too.
func open(file string) (*bbolt.DB, error) {
	var opened *os.File
	db, err := bbolt.Open(file, 0o600, &bbolt.Options{Timeout: time.Second, OpenFile: func(name string, flag int, mode os.FileMode) (_ *os.File, err error) {
		opened, err = os.OpenFile(name, flag, mode)
		return opened, err
	}})
	if err != nil {
		return nil, err
	}
	has, err := opened.Stat()
	is, err2 := os.Stat(file)
	if err = errors.Join(err, err2); err == nil && !os.SameFile(has, is) {
		err = bolterrors.ErrTimeout
	}
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return db, nil
}

// load reads what is kept, and makes what is missing.
func (d *Disk) load() error {
	now := d.opts.Now()
	return d.db.Update(func(tx *bbolt.Tx) error {
		meta, err := tx.CreateBucketIfNotExists(bucketMeta)
		if err != nil {
			return err
		}
		if v := meta.Get(keyFormat); v == nil {
			if err := meta.Put(keyFormat, []byte(formatVersion)); err != nil {
				return err
			}
		} else if string(v) != formatVersion {
			return fmt.Errorf("it is of format %q, and this version reads %s: use the version that wrote it, or move the file away, which forgets what was counted and revoked", v, formatVersion)
		}
		d.secret = append(d.secret, meta.Get(keySecret)...)
		if len(d.secret) == 0 {
			d.secret = make([]byte, 32)
			if _, err := rand.Read(d.secret); err != nil {
				return err
			}
			if err := meta.Put(keySecret, d.secret); err != nil {
				return err
			}
		}
		each := func(name []byte, read func(key, value []byte) (keep bool, err error)) error {
			b, err := tx.CreateBucketIfNotExists(name)
			if err != nil {
				return err
			}
			return keepOf(b, func(k, v []byte) (bool, error) {
				keep, err := read(k, v)
				if err != nil {
					return false, fmt.Errorf("%s %q: %w", name, k, err)
				}
				return keep, nil
			})
		}
		return errors.Join(
			each(bucketUses, func(k, v []byte) (bool, error) {
				u := &Uses{}
				if err := json.Unmarshal(v, u); err != nil {
					return true, err
				}
				d.hold(string(k), u) // what is over too: is the clock right?
				return true, nil
			}),
			each(bucketRevoked, func(_, v []byte) (bool, error) {
				r := &Revocation{}
				if err := json.Unmarshal(v, r); err != nil {
					return true, err
				}
				d.note(r)
				return true, nil
			}),
			each(bucketLinks, func(k, v []byte) (bool, error) {
				l := &Link{}
				if err := json.Unmarshal(v, l); err != nil {
					return true, err
				}
				if !l.Expires.After(now) {
					return false, nil
				}
				d.links[string(k)] = l
				return true, nil
			}),
			each(bucketBytes, func(k, v []byte) (bool, error) {
				var tat time.Time
				if err := tat.UnmarshalBinary(v); err != nil {
					return true, err
				}
				if !tat.After(now) {
					return false, nil
				}
				s, one := d.find(string(k), now)
				one.tat, one.kept = tat, true
				s.mu.Unlock()
				return true, nil
			}),
			each(bucketTaken, func(k, v []byte) (bool, error) {
				var t taken
				if err := json.Unmarshal(v, &t); err != nil {
					return true, err
				}
				if !t.Until.After(now) {
					return false, nil
				}
				d.await(string(k), t.reservation())
				return true, nil
			}),
		)
	})
}

// A taken is what a request takes that waits to be settled, as the file has it.
type taken struct {
	Charges []takenCharge `json:"charges"`
	Until   time.Time     `json:"until"`
}

type takenCharge struct {
	Kind   Kind          `json:"kind"`
	Key    string        `json:"key"`
	Limit  int64         `json:"limit"`
	Period time.Duration `json:"period,omitempty"`
	Cost   int64         `json:"cost"`
	Over   bool          `json:"over,omitempty"`
}

func takenOf(r *reservation) taken {
	t := taken{Until: r.until}
	for i, c := range r.charges {
		t.Charges = append(t.Charges, takenCharge{c.Kind, c.Key, c.Limit, c.Period, c.Cost, r.quotas[i].Over})
	}
	return t
}

func (t taken) reservation() *reservation {
	r := &reservation{until: t.Until}
	for _, c := range t.Charges {
		r.charges = append(r.charges, Charge{Kind: c.Kind, Key: c.Key, Limit: c.Limit, Period: c.Period, Cost: c.Cost})
		r.quotas = append(r.quotas, Quota{Over: c.Over})
	}
	return r
}

// note adds a revocation to those that are asked.
func (d *Disk) note(r *Revocation) {
	if r.ID != "" {
		d.ids[r.ID] = r
	} else {
		d.revoked = append(d.revoked, r)
	}
}

// Secret is a secret of the file's own, for what the service signs for itself.
func (d *Disk) Secret() []byte { return d.secret }

// Use counts a use of a link before it is answered: it is on the disk when Use returns. It
// reports whether the link is good for it, and how many uses are left.
func (d *Disk) Use(_ context.Context, use Use) (ok bool, left int, err error) {
	now := d.opts.Now()
	d.mu.Lock()
	defer d.mu.Unlock() // of one link one use after the other; those of others wait as long as a write takes
	was := d.uses[use.Link]
	u := was.clone()
	ok, changed, left := u.take(use, now)
	if !changed {
		return ok, left, nil
	}
	if was == nil && len(d.uses) >= maxCounted {
		return false, 0, errManyUses
	}
	if err := d.put(bucketUses, use.Link, u); err != nil {
		return false, 0, fmt.Errorf("keep a use: %w", err)
	}
	d.drop(use.Link)
	d.hold(use.Link, u)
	return ok, left, nil
}

// hold has the uses of a link in memory, and drop no more.
func (d *Disk) hold(link string, u *Uses) {
	d.uses[link] = u
	for _, one := range u.List {
		d.asked[one.Request] = link
	}
}

func (d *Disk) drop(link string) {
	if u := d.uses[link]; u != nil {
		for _, one := range u.List {
			delete(d.asked, one.Request)
		}
	}
	delete(d.uses, link)
}

func (u *Uses) clone() *Uses {
	if u == nil {
		return &Uses{}
	}
	c := &Uses{Until: u.Until}
	for _, one := range u.List {
		copied := *one
		c.List = append(c.List, &copied)
	}
	return c
}

// Short says that a request was not answered with all that it asked for: its client may
// try again.
func (d *Disk) Short(_ context.Context, request string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	link, ok := d.asked[request]
	if !ok || !d.uses[link].short(request) {
		return nil
	}
	if err := d.put(bucketUses, link, d.uses[link]); err != nil {
		return fmt.Errorf("keep a use: %w", err)
	}
	return nil
}

// Revoke ends links: it is on the disk when Revoke returns.
func (d *Disk) Revoke(_ context.Context, r Revocation) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.ids)+len(d.revoked) >= maxRevocations {
		return errManyRevocations
	}
	key := r.ID
	if key == "" {
		key = fmt.Sprintf("\x00%d", d.opts.Now().UnixNano())
	}
	if err := d.put(bucketRevoked, key, r); err != nil {
		return fmt.Errorf("revoke: %w", err)
	}
	d.note(&r)
	return nil
}

// IsRevoked reports whether a link was ended.
func (d *Disk) IsRevoked(_ context.Context, l Link) (bool, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.isRevoked(l), nil
}

func (d *Disk) isRevoked(l Link) bool {
	return d.ids[l.ID] != nil || slices.ContainsFunc(d.revoked, func(r *Revocation) bool { return r.ends(l) })
}

// Made keeps a link that was made here: it is on the disk when Made returns.
func (d *Disk) Made(_ context.Context, l Link) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.links) >= maxCounted {
		return errManyLinks
	}
	l.Made = true
	if err := d.put(bucketLinks, l.ID, l); err != nil {
		return fmt.Errorf("keep a link: %w", err)
	}
	d.links[l.ID] = &l
	return nil
}

// Seen keeps a link that somebody came with, if it is not known; it is on the disk within
// a second. More links than can be kept are not.
func (d *Disk) Seen(l Link) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.links[l.ID] == nil && len(d.links) < maxCounted {
		d.links[l.ID] = &l
		d.unseen[l.ID] = true
	}
}

// Links returns the links that were made or seen, and have not ended by their time, by
// their end; with how often each was used, and whether it was revoked.
func (d *Disk) Links(_ context.Context) ([]Link, error) {
	now := d.opts.Now()
	d.mu.Lock()
	defer d.mu.Unlock()
	var list []Link
	for id, l := range d.links {
		if !l.Expires.After(now) {
			continue
		}
		one := *l
		one.PasswordHash = ""
		if u := d.uses[id]; u != nil {
			one.Used = len(u.List)
		}
		one.Revoked = d.isRevoked(*l)
		list = append(list, one)
	}
	slices.SortFunc(list, func(a, b Link) int { return cmp.Or(a.Expires.Compare(b.Expires), cmp.Compare(a.ID, b.ID)) })
	return list, nil
}

// PasswordOf returns the hash of a link's password; empty where none is known.
func (d *Disk) PasswordOf(_ context.Context, id string) (string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if l := d.links[id]; l != nil {
		return l.PasswordHash, nil
	}
	return "", nil
}

// Reset forgets what a key counts, in the file too. It reports whether that was anything.
func (d *Disk) Reset(ctx context.Context, key string) (bool, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	ok, err := d.Memory.Reset(ctx, key)
	if err == nil {
		err = d.db.Update(func(tx *bbolt.Tx) error { return tx.Bucket(bucketBytes).Delete([]byte(key)) })
	}
	return ok, err
}

// Backup writes a copy of the file as it is now, while others go on, however slowly it is
// taken.
func (d *Disk) Backup(w io.Writer) (err error) {
	if err := d.flush(); err != nil {
		return err
	}
	copied, err := os.CreateTemp(filepath.Dir(d.file), filepath.Base(d.file)+".copy-*")
	if err != nil {
		return fmt.Errorf("copy the state: %w", err)
	}
	defer func() { err = errors.Join(err, copied.Close(), os.Remove(copied.Name())) }()
	d.mu.Lock()
	err = d.db.View(func(tx *bbolt.Tx) error {
		_, err := tx.WriteTo(copied)
		return err
	})
	d.mu.Unlock()
	if err == nil {
		_, err = copied.Seek(0, io.SeekStart)
	}
	if err == nil {
		_, err = io.Copy(w, copied)
	}
	return err
}

func (d *Disk) put(bucket []byte, key string, value any) error {
	return d.db.Update(func(tx *bbolt.Tx) error { return putIn(tx, bucket, key, value) })
}

// Drop forgets what keys count that begin with a prefix, in the file too.
func (d *Disk) Drop(ctx context.Context, prefix string) error {
	d.mu.Lock() // of what is being written as well
	defer d.mu.Unlock()
	if err := d.Memory.Drop(ctx, prefix); err != nil {
		return err
	}
	return d.db.Update(func(tx *bbolt.Tx) error {
		c := tx.Bucket(bucketBytes).Cursor()
		for k, _ := c.Seek([]byte(prefix)); bytes.HasPrefix(k, []byte(prefix)); k, _ = c.Seek([]byte(prefix)) {
			if err := c.Delete(); err != nil {
				return fmt.Errorf("forget what a limit has counted: %w", err)
			}
		}
		return nil
	})
}

// Run writes byte counts each second, and forgets what is over each minute, until the
// context ends. Where that fails it tells the log, and tries again: a disk that is full
// may have room later, and links are refused until then.
func (d *Disk) Run(ctx context.Context) error {
	tick := time.NewTicker(flushEach)
	defer tick.Stop()
	fails := false
	for n := 1; ; n++ {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		err := d.flush()
		if n%60 == 0 && err == nil {
			err = d.forget()
		}
		switch {
		case err != nil && !fails:
			d.opts.Logger.Error("the state cannot be written: links that are counted are answered with 503, and what limits count is in memory alone", "file", d.file, "error", err)
		case err == nil && fails:
			d.opts.Logger.Info("the state is written again", "file", d.file)
		}
		fails = err != nil
	}
}

// Close writes what is not written yet, and closes the file.
func (d *Disk) Close() error {
	err := d.flush()
	d.mu.Lock()
	defer d.mu.Unlock()
	return errors.Join(err, d.db.Close())
}

// flush writes the byte counts that have changed.
func (d *Disk) flush() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	fresh, gone := d.waiting()
	changed := d.changed()
	if len(changed)+len(d.unseen)+len(fresh)+len(gone) == 0 {
		return nil
	}
	seen := d.unseen
	d.unseen = map[string]bool{}
	err := d.db.Update(func(tx *bbolt.Tx) error {
		for id := range seen {
			text, err := json.Marshal(d.links[id])
			if err == nil {
				err = tx.Bucket(bucketLinks).Put([]byte(id), text)
			}
			if err != nil {
				return err
			}
		}
		for id, r := range fresh {
			if err := putIn(tx, bucketTaken, id, takenOf(r)); err != nil {
				return err
			}
		}
		for _, id := range gone {
			if err := tx.Bucket(bucketTaken).Delete([]byte(id)); err != nil {
				return err
			}
		}
		b := tx.Bucket(bucketBytes)
		for key, tat := range changed {
			text, err := tat.MarshalBinary()
			if err == nil {
				err = b.Put([]byte(key), text)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil { // it is written once there is room
		maps.Copy(d.unseen, seen)
		d.unkept(changed, fresh, gone)
	}
	return err
}

// forget drops what is over, from the file too: uses and revocations surely.
func (d *Disk) forget() error {
	now := d.opts.Now()
	d.mu.Lock()
	defer d.mu.Unlock()
	surely := d.surely(now)
	return d.db.Update(func(tx *bbolt.Tx) error {
		for link, u := range d.uses {
			if u.Until.After(surely) {
				continue
			}
			d.drop(link)
			if err := tx.Bucket(bucketUses).Delete([]byte(link)); err != nil {
				return err
			}
		}
		for id, l := range d.links {
			if l.Expires.After(now) {
				continue
			}
			delete(d.links, id)
			if err := tx.Bucket(bucketLinks).Delete([]byte(id)); err != nil {
				return err
			}
		}
		for id, r := range d.ids {
			if !r.Until.After(surely) {
				delete(d.ids, id)
			}
		}
		kept := d.revoked[:0]
		for _, r := range d.revoked {
			if r.Until.After(surely) {
				kept = append(kept, r)
			}
		}
		d.revoked = kept
		return errors.Join(
			keepOf(tx.Bucket(bucketRevoked), func(_, v []byte) (bool, error) {
				var r Revocation
				return json.Unmarshal(v, &r) != nil || r.Until.After(surely), nil
			}),
			keepOf(tx.Bucket(bucketBytes), func(_, v []byte) (bool, error) {
				var tat time.Time
				return tat.UnmarshalBinary(v) != nil || tat.After(now), nil
			}),
		)
	})
}

// keepOf forgets what is not to be kept of a bucket.
func keepOf(b *bbolt.Bucket, keep func(key, value []byte) (bool, error)) error {
	var over [][]byte
	err := b.ForEach(func(k, v []byte) error {
		ok, err := keep(k, v)
		if err == nil && !ok {
			over = append(over, append([]byte(nil), k...))
		}
		return err
	})
	for _, k := range over {
		err = errors.Join(err, b.Delete(k))
	}
	return err
}
