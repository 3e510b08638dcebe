package audit

import (
	"bufio"
	"bytes"
	"cmp"
	"container/list"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"securefiles/authz"
	"securefiles/internal/regular"
)

const (
	// MaxLine is how long a line of an audit file can be, in bytes: 256 groups of 255
	// bytes, each of them escaped, are 400 kB.
	MaxLine = 1 << 20
	// maxAwaited bounds the allowed requests that nginx has not told of.
	maxAwaited = 1 << 17
	maxJoined  = 256 // records that are written at once
	saveEvery  = time.Second
	// maxUnsaved is how much of the file is read at the start where it is not known
	// from where on.
	maxUnsaved = 64 << 20
)

// A joiner finds, for each request that was allowed, nginx's account of it, and writes
// the record of the delivery.
//
// What is awaited is kept in a file, with how far the audit file was then. After
// whatever kills the process, that and what was written to the audit file since say
// what is awaited, and what was recorded already: of what nginx's log hands out again
// nothing is recorded twice.
type joiner struct {
	writer    *Writer
	transform Transform // that of the writer; nil for none
	restore   func(*Record)
	delivered func(*Record)
	stored    func(download string) bool
	follower  *Follower
	state     string // the file; empty for none
	wait      time.Duration
	most      int
	log       *slog.Logger
	now       func() time.Time

	mu    sync.Mutex
	byID  map[string]*list.Element
	order *list.List // of []*Record, those of one request, the oldest decision first
	count int        // of records in it
	taken int        // records that were in it, and are not written yet
	dirty bool       // it is not what was saved last

	broken   bool // what was taken out could not be written
	refused  atomic.Uint64
	overflow atomic.Uint64
	trouble  string // what the log was told last
	told     time.Time
}

// await has the decisions of a request be waited for, in the place of those of the same
// request before, which it returns: nginx asks twice where it had no answer. The files of
// an archive are waited for beside the archive itself.
func (j *joiner) await(records ...*Record) (before []*Record) {
	var gone []*Record
	j.mu.Lock()
	before = j.put(records)
	for j.count > j.most && j.order.Len() > 1 {
		gone = append(gone, j.drop(j.order.Front())...)
		j.overflow.Add(1)
	}
	j.mu.Unlock()
	for _, r := range gone {
		if r = delivered(r, Unknown, j.now()); j.writer.Write(r) == nil {
			j.delivered(r)
		}
	}
	return before
}

// put notes decisions of one request, and returns those that were noted before; mu is held.
func (j *joiner) put(records []*Record) (before []*Record) {
	request := records[0].Request
	e := j.byID[request]
	if e == nil {
		e = j.order.PushBack([]*Record(nil))
		j.byID[request] = e
	}
	before = e.Value.([]*Record)
	if records[0].Archive == Part {
		records = withParts(before, records)
	}
	j.set(e, records)
	return before
}

// withParts are decisions of a request with those of files of its archive, each once.
func withParts(before, parts []*Record) []*Record {
	last := len(before) - 1
	if len(parts) == 1 { // as they are read again, one by one, in the order of their paths
		if last < 0 || before[last].Archive != Part || before[last].Path < parts[0].Path {
			return append(before, parts[0])
		}
		if i := slices.IndexFunc(before, func(r *Record) bool { return r.Archive == Part && r.Path == parts[0].Path }); i >= 0 {
			before[i] = parts[0]
			return before
		}
		return append(before, parts[0])
	}
	all, places := slices.Clone(before), map[string]int{}
	for i, r := range all {
		if r.Archive == Part {
			places[r.Path] = i
		}
	}
	for _, r := range parts {
		if i, ok := places[r.Path]; ok {
			all[i] = r
		} else {
			places[r.Path] = len(all)
			all = append(all, r)
		}
	}
	return all
}

// set has decisions stand for a request; mu is held.
func (j *joiner) set(e *list.Element, records []*Record) {
	j.count += len(records) - len(e.Value.([]*Record))
	e.Value, j.dirty = records, true
}

// forget takes back what await did.
func (j *joiner) forget(records, before []*Record) {
	j.mu.Lock()
	defer j.mu.Unlock()
	e := j.byID[records[0].Request]
	switch {
	case e == nil || !slices.Contains(e.Value.([]*Record), records[0]):
	case len(before) > 0:
		j.set(e, before)
	default:
		j.drop(e)
	}
}

// drop removes those of a request that are awaited; mu is held.
func (j *joiner) drop(e *list.Element) []*Record {
	all := e.Value.([]*Record)
	j.set(e, nil)
	j.order.Remove(e)
	delete(j.byID, all[0].Request)
	return all
}

// take returns the decisions that a request was waited for by, and waits no longer. They
// count as awaited until written.
func (j *joiner) take(request string) []*Record {
	j.mu.Lock()
	defer j.mu.Unlock()
	e := j.byID[request]
	if e == nil {
		return nil
	}
	all := j.drop(e)
	j.taken += len(all)
	return all
}

// written says that what was taken is in the file.
func (j *joiner) written() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.taken = 0
}

// awaited are the records that nothing was written of yet.
func (j *joiner) awaited() int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.count + j.taken
}

// run joins until the context ends.
func (j *joiner) run(ctx context.Context) error {
	defer j.follower.Close() //nolint:errcheck // it reads
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	var done *Position // all before it is recorded
	var pause time.Duration
	for saved := time.Now(); ; {
		records, pos, err := j.read()
		if pos != nil {
			done = pos
		}
		if err == nil && pos == nil {
			records = j.expired()
		}
		j.tell(err)
		if !j.record(ctx, records) {
			return nil // what is in the files says what was not
		}
		j.written()
		ending := ctx.Err() != nil
		if now := time.Now(); ending || now.Sub(saved) >= pause {
			j.tell(j.save(done))
			done, saved = nil, time.Now()
			pause = max(saveEvery, 20*saved.Sub(now))
		}
		switch {
		case ending:
			return nil
		case pos == nil:
			select {
			case <-tick.C:
			case <-ctx.Done():
			}
		}
	}
}

// tell has the log know of an error, of the same once a minute.
func (j *joiner) tell(err error) {
	if err == nil {
		return
	}
	if now, text := j.now(), err.Error(); text != j.trouble || now.Sub(j.told) >= time.Minute {
		j.trouble, j.told = text, now
		j.log.Error("what nginx delivered cannot be recorded now, and is later", "error", err)
	}
}

// read returns the deliveries of what was awaited, from the lines that nginx has
// written, and where it came to; nil where there is no line.
func (j *joiner) read() (records []*Record, at *Position, err error) {
	for n := 0; n < maxJoined; n++ {
		line, pos, ok, err := j.follower.TryNext()
		if err != nil || !ok {
			return records, at, err
		}
		at = &pos
		d, err := parseDelivery(line)
		if err != nil {
			if j.refused.Add(1) == 1 {
				j.log.Warn("a line of nginx's delivery log is passed over, and so are others like it", "error", err)
			}
			continue
		}
		for _, decision := range j.take(d.request) {
			records = append(records, d.of(decision, j.stored(decision.Download)))
		}
	}
	return records, at, nil
}

// expired returns what is awaited for too long. Nothing is while there are lines of
// nginx's to be read.
func (j *joiner) expired() (records []*Record) {
	now := j.now()
	j.mu.Lock()
	defer j.mu.Unlock()
	for e := j.order.Front(); e != nil && len(records) < maxJoined && now.Sub(e.Value.([]*Record)[0].Time) >= j.wait; e = j.order.Front() {
		for _, r := range j.drop(e) {
			records = append(records, delivered(r, Unknown, now))
		}
	}
	j.taken += len(records)
	return records
}

// record writes deliveries, again and again until they are written; false means that
// the context ended before.
func (j *joiner) record(ctx context.Context, records []*Record) bool {
	for len(records) > 0 {
		n, err := j.writer.WriteAll(records...)
		for _, r := range records[:n] {
			j.delivered(r)
		}
		if records = records[n:]; err == nil {
			continue
		}
		j.tell(err)
		select {
		case <-time.After(saveEvery):
		case <-ctx.Done():
			j.broken = true
			return false
		}
	}
	return true
}

// savedState is the first line of the file; records are the others.
type savedState struct {
	Version int       `json:"v"`
	Saved   time.Time `json:"saved"`
	Device  uint64    `json:"device"`
	Inode   uint64    `json:"inode"`
	Offset  int64     `json:"offset"` // all that was written before is counted in
}

// save stores what is awaited, and that nginx's log is done up to a position; nil for
// no further than before.
func (j *joiner) save(done *Position) error {
	if err := j.saveAwaited(); err != nil {
		return fmt.Errorf("store what is awaited of nginx: %w", err)
	}
	if done == nil {
		return nil
	}
	return j.follower.Commit(*done)
}

func (j *joiner) saveAwaited() (err error) {
	if j.state == "" {
		return nil
	}
	s := savedState{Version: Version, Saved: j.now()}
	// Before what is awaited: a decision is awaited before it is written.
	if s.Device, s.Inode, s.Offset, err = j.writer.position(); err != nil {
		return err
	}
	j.mu.Lock()
	dirty := j.dirty
	j.dirty = false
	all := make([]*Record, 0, j.count)
	for e := j.order.Front(); e != nil; e = e.Next() {
		all = append(all, e.Value.([]*Record)...)
	}
	j.mu.Unlock()
	if !dirty {
		return nil
	}
	defer func() {
		if err != nil {
			j.mu.Lock()
			j.dirty = true
			j.mu.Unlock()
		}
	}()
	temp := j.state + ".new"
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	out := bufio.NewWriterSize(f, 64<<10)
	head, err := json.Marshal(s)
	if err == nil {
		_, err = out.Write(append(head, '\n'))
	}
	var line []byte
	for _, r := range all {
		if err != nil {
			break
		}
		if j.transform != nil {
			changed := *r
			if err = j.transform.Apply(&changed); err != nil {
				break
			}
			r = &changed
		}
		line = append(r.Append(line[:0]), '\n')
		_, err = out.Write(line)
	}
	if err == nil {
		err = cmp.Or(out.Flush(), f.Sync())
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(temp, j.state)
}

// recover reads what is awaited: what was saved, and what was written since.
func (j *joiner) recover(name string) error {
	if j.state == "" {
		return nil
	}
	s, err := j.recoverSaved()
	if err != nil {
		return fmt.Errorf("read what is awaited of nginx: %w", err)
	}
	// Decisions and deliveries come in the order in which they were written, so that
	// to begin too early does no harm.
	found, err := (&Follower{path: name}).list()
	if err != nil {
		return fmt.Errorf("read what is awaited of nginx: %w", err)
	}
	from := slices.IndexFunc(found, func(l listed) bool { return s != nil && l.id == fileID{s.Device, s.Inode} })
	skip := int64(0)
	switch {
	case from >= 0:
		skip = s.Offset
	case s != nil: // it was compressed meanwhile, or removed
		from = slices.IndexFunc(found, func(l listed) bool { return !l.info.ModTime().Before(s.Saved.Add(-2 * time.Second)) })
	default:
		if from = len(found) - 1; from >= 0 {
			skip = max(0, found[from].info.Size()-maxUnsaved)
		}
	}
	if from < 0 {
		return nil
	}
	for _, l := range found[from:] {
		if !passedOver(l.name) {
			if err := j.recoverFrom(l.name, skip); err != nil {
				return fmt.Errorf("read what is awaited of nginx: %w", err)
			}
		}
		skip = 0
	}
	return nil
}

// recoverSaved reads what was saved; nil is nothing.
func (j *joiner) recoverSaved() (*savedState, error) {
	f, err := regular.Open(j.state)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // it was read
	r := &reading{buf: bufio.NewReaderSize(f, 64<<10)}
	line, err := r.next(MaxLine)
	s := &savedState{}
	if err == nil {
		err = json.Unmarshal(line, s)
	}
	if err != nil || s.Version != Version {
		return nil, fmt.Errorf("%s holds no such state of version %d (%v): remove it to have the end of the audit file read in its place", j.state, Version, err)
	}
	return s, j.readRecords(r)
}

func (j *joiner) recoverFrom(name string, skip int64) error {
	f, in, err := openRecords(name)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return nil // it is compressed just now
	}
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // it was read
	if !compressed(name) {
		if _, err := f.Seek(skip, io.SeekStart); err != nil {
			return err
		}
	}
	if err := j.readRecords(&reading{buf: bufio.NewReaderSize(in, 64<<10)}); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// readRecords reads records, oldest first. What is none is passed over: a line that a
// crash tore, the rest of one where reading began in its middle.
func (j *joiner) readRecords(from *reading) error {
	for {
		line, err := from.next(MaxLine)
		switch {
		case errors.Is(err, bufio.ErrTooLong):
			continue
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			return nil
		case err != nil:
			return err
		}
		if !bytes.Contains(line, []byte(`"type":"de`)) {
			continue
		}
		r, err := Parse(line)
		switch {
		case err != nil:
		case r.Type == TypeDelivery:
			j.take(r.Request)
			j.written()
		case r.Type == TypeDecision && isAwaited(r):
			r.Seq, r.Hash = 0, ""
			if j.restore != nil {
				j.restore(r)
			}
			j.mu.Lock()
			j.put([]*Record{r})
			for j.count > j.most && j.order.Len() > 1 {
				j.drop(j.order.Front())
				j.overflow.Add(1)
			}
			j.mu.Unlock()
		}
	}
}

// isAwaited reports whether nginx is to tell what came of a decision: of a file, or an archive. Of a client
// that is sent to a store it cannot.
func isAwaited(r *Record) bool {
	return r.Decision == "allow" && r.Request != "" && r.Reason != string(authz.ReasonRedirect) && (r.Action != authz.ActionList || r.Archive != "")
}
