// Package watch tells when files have changed and are whole.
//
// A file that was renamed into place, or reached by another symbolic link (an
// editor, a Kubernetes ConfigMap), is told at once: whoever writes beside and
// renames shows no half. One that is written in place is told when its writer
// has closed it, however long that takes. Where no close can be seen (a network
// file system, a mapped file, a file that is gone, no inotify), it is told once
// it has stayed as it is for some seconds.
//
// It says that something may have changed, not what: whoever is told reads the
// files and compares. It does not protect against two who write one file at the
// same time, nor against a writer who begins while the file is being read.
package watch

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

const (
	// interval is how often the files are looked at: it finds what no event
	// tells.
	interval = time.Second
	// quiet is how long a file whose writer cannot be seen must stay as it is.
	quiet = 5 * time.Second
	// patience is how long a writer may take before somebody is told of it.
	patience = time.Minute
	// lull is how long events are left unread after one came. Files that are
	// renamed one after the other are told together; and the kernel folds like
	// events into one, so that a busy directory, one that something else writes
	// a log into, costs next to nothing.
	lull = 20 * time.Millisecond
	// maxLinks is Linux's own bound (path_resolution(7)).
	maxLinks = 40
)

// A Watch is files that belong together, and who is told of them. Calls do not
// overlap.
type Watch struct {
	// Files may be links, and need not exist.
	Files []string
	// Begun is what Begin made of them before they were read: what has changed since
	// is told like any other change. Run closes it. Nil begins with Run.
	Begun *Begun
	// Changed is called after each change of one of the files, once all of
	// them are whole; and once some seconds after the start, so that no change
	// is lost between reading the files and watching them.
	Changed func()
	// Idle is called about once a second while the files are as they were when
	// Changed was last called, and nobody writes to them: a time to read them
	// again, if need be. It may be nil.
	Idle func()
	// Waiting is called for a change that its writer has kept open for a minute,
	// or where none can be seen, that has not become quiet for so long; and again
	// a minute later if more is written. It may be nil.
	Waiting func(file string)
	// Asked are called with whether a file is being written now, by somebody of
	// whom Waiting was not told. It may be nil.
	Asked <-chan func(writing bool)
}

// A Begun are files that are watched already, and of which nobody is told yet.
type Begun struct{ state *state }

// Begin watches files from now on, for a Watch of the same files that runs once they
// have been read.
func Begin(files []string) *Begun {
	n, _ := newNotifier() // for want of instances there is none, and polling remains
	return &Begun{newState(files, n)}
}

// Close gives up what no Watch goes on with.
func (b *Begun) Close() {
	if b.state.notifier != nil {
		b.state.notifier.close()
	}
}

// Run watches until ctx ends.
func (w *Watch) Run(ctx context.Context) {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	begun := w.Begun
	if begun == nil {
		begun = Begin(w.Files)
	}
	defer begun.Close()
	w.run(ctx, begun.state, ticker.C)
}

// run is Run with what is known of the files, and the clock, given.
func (w *Watch) run(ctx context.Context, s *state, ticks <-chan time.Time) {
	var wake chan struct{}
	if s.notifier != nil {
		wake = s.notifier.wake
	}
	for {
		var now time.Time // zero where an event woke us
		select {
		case <-ctx.Done():
			return
		case <-wake:
			select {
			case <-ctx.Done():
				return
			case <-time.After(lull):
			}
		case answer := <-w.Asked:
			s.look(now)
			answer(s.writing())
			continue
		case now = <-ticks:
		}
		s.look(now)
		switch {
		case s.ready(now):
			s.tell()
			w.Changed()
		case now.IsZero():
		case s.idle():
			if w.Idle != nil {
				w.Idle()
			}
		case w.Waiting != nil:
			if file := s.waiting(now); file != "" {
				w.Waiting(file)
			}
		}
	}
}

// An event is what inotify tells of a place.
type event struct {
	place place
	kind  kind
}

// A place is a name in a watched directory, or, without a name, a watched file
// or directory itself.
type place struct {
	watch int
	name  string
}

// everywhere is the watch of an event that speaks of all: some were lost.
const everywhere = -1

type kind int

const (
	lost    kind = iota // what happened cannot be told
	written             // somebody has the file open and wrote to it
	closed              // somebody who had it open for writing closed it
	created             // by open, link or symlink
	arrived             // by a rename
	left                // removed, or renamed away
)

// state is what is known of the files.
type state struct {
	files    []*file
	notifier *notifier // may be nil
	// places are what events tell of each file.
	places map[place][]*file
	// began is the first tick, and again says that nothing was told yet: the files
	// may have changed before they were watched.
	began time.Time
	again bool
}

// A file is one of them.
type file struct {
	name  string // absolute, where that can be told
	links []link // on the way to it, when last looked at
	view  view   // as it was then
	told  view   // as it was when that was last told
	// changed says that it is not what was told, though it may look the same:
	// two writes can fall into one tick of the file system's clock.
	changed bool
	// writing says that somebody wrote to it and has not closed it, whole that
	// the last change left nothing to wait for.
	writing, whole bool
	// since is the first tick that saw it as it is, and changing the first
	// that saw it changed; zero where no tick has yet.
	since, changing time.Time
	reported        bool // that it is being waited for
}

// A view differs whenever the file does.
type view struct {
	links string // the symbolic links on the way and where they lead
	file  string // where that is, which inode, its size, its times
	found bool
}

func newState(files []string, n *notifier) *state {
	s := &state{notifier: n, places: map[place][]*file{}, again: len(files) > 0}
	for _, name := range files {
		if abs, err := filepath.Abs(name); err == nil {
			name = abs
		}
		s.files = append(s.files, &file{name: name})
	}
	s.see()
	for _, f := range s.files {
		f.told, f.whole = f.view, false
	}
	return s
}

// look brings the state up to date: first by what happened, then by what is.
func (s *state) look(now time.Time) {
	if s.notifier != nil {
		for _, e := range s.notifier.events() {
			s.note(e)
		}
	}
	s.see()
	if s.began.IsZero() {
		s.began = now
	}
	for _, f := range s.files {
		switch {
		case !f.pending():
			f.since, f.changing, f.whole = time.Time{}, time.Time{}, false
		case now.IsZero():
		default:
			if f.since.IsZero() {
				f.since = now
			}
			if f.changing.IsZero() {
				f.changing = now
			}
		}
	}
}

// note takes an event in.
func (s *state) note(e event) {
	for at, files := range s.places {
		if at != e.place && (e.kind != lost || e.place.watch != everywhere && e.place.watch != at.watch) {
			continue
		}
		for _, f := range files {
			f.note(e.kind)
		}
	}
	if e.kind == created || e.kind == arrived || e.kind == left {
		s.forget(s.places[e.place])
	}
}

// forget leaves what happens to the files that had a name before to those who
// still have them open.
func (s *state) forget(files []*file) {
	for at, named := range s.places {
		if at.name == "" {
			s.places[at] = slices.DeleteFunc(named, func(f *file) bool { return slices.Contains(files, f) })
		}
	}
}

func (f *file) note(k kind) {
	f.since = time.Time{}
	switch k {
	case lost, left: // whether somebody writes can no longer be seen
		f.writing, f.whole = false, false
	case written:
		if f.reported { // whoever was told may have read it since
			f.reported, f.changing = false, time.Time{}
		}
		f.changed, f.writing, f.whole = true, true, false
	case closed:
		f.writing, f.whole = false, true
	case created:
		f.changed, f.writing, f.whole = true, isEmpty(f.name), false
	case arrived:
		f.changed, f.writing, f.whole = true, false, true
	}
}

// isEmpty reports whether a new file holds nothing yet: whoever made it is
// about to write. A file that was linked into place holds something.
func isEmpty(name string) bool {
	info, err := os.Stat(name)
	return err == nil && info.Mode().IsRegular() && info.Size() == 0
}

// see looks at the files, and watches them and the directories that they and
// their links are in. That comes before each look, so that what is not seen is
// told; and each time, for they are replaced.
func (s *state) see() {
	s.places = map[place][]*file{}
	watched := map[int]bool{}
	for _, f := range s.files {
		links, target := resolve(f.name)
		if s.notifier != nil {
			for _, name := range append(names(links), target) {
				if id, ok := s.notifier.directory(filepath.Dir(name)); ok {
					at := place{id, filepath.Base(name)}
					s.places[at], watched[id] = append(s.places[at], f), true
				}
			}
			// A file that is mounted alone, as into a container, is written to
			// by another name.
			if id, ok := s.notifier.file(target); ok {
				at := place{id, ""}
				s.places[at], watched[id] = append(s.places[at], f), true
			}
		}
		now := look(links, target)
		if isSwap(f.links, links) { // nobody sees the half of one
			f.writing, f.whole = false, now.found
		}
		if now != f.view {
			f.view, f.since = now, time.Time{}
		}
		f.links = links
	}
	if s.notifier != nil {
		s.notifier.keep(watched)
	}
}

// ready reports whether there is a change, and nothing to wait for.
func (s *state) ready(now time.Time) bool {
	any := s.again && !now.IsZero() && now.Sub(s.began) >= quiet
	for _, f := range s.files {
		if f.writing {
			return false
		}
		if !f.pending() {
			continue
		}
		any = true
		if !f.whole && (now.IsZero() || f.since.IsZero() || now.Sub(f.since) < quiet) {
			return false
		}
	}
	return any
}

// tell takes the files as they are for told.
func (s *state) tell() {
	s.again = false
	for _, f := range s.files {
		f.told, f.changed, f.whole, f.reported = f.view, false, false, false
		f.since, f.changing = time.Time{}, time.Time{}
	}
}

// idle reports whether the files are what was told.
func (s *state) idle() bool {
	for _, f := range s.files {
		if f.pending() || f.writing {
			return false
		}
	}
	return true
}

// writing reports whether somebody writes to a file and has not been named.
func (s *state) writing() bool {
	return slices.ContainsFunc(s.files, func(f *file) bool { return f.writing && !f.reported })
}

// waiting returns a file whose writer takes long, once.
func (s *state) waiting(now time.Time) string {
	for _, f := range s.files {
		busy := f.writing || !f.since.IsZero() && now.Sub(f.since) < quiet
		if busy && !f.reported && !f.changing.IsZero() && now.Sub(f.changing) >= patience {
			f.reported = true
			return f.name
		}
	}
	return ""
}

// pending reports whether the file is not what was told.
func (f *file) pending() bool { return f.changed || f.view != f.told }

// A link is a symbolic link.
type link struct{ name, to string }

func names(links []link) []string {
	var all []string
	for _, l := range links {
		all = append(all, l.name)
	}
	return all
}

// isSwap reports whether a link has come or leads elsewhere. One that is gone is
// no swap: a file that is being written may have its name.
func isSwap(before, now []link) bool {
	i := 0
	for i < len(before) && i < len(now) && before[i] == now[i] {
		i++
	}
	return i < len(now)
}

// resolve returns the links that a name leads over, and the file that it means.
// Neither need exist.
func resolve(name string) (links []link, target string) {
	const separator = string(filepath.Separator)
	root := filepath.VolumeName(name) + separator
	target = root
	for rest := strings.Split(name[len(filepath.VolumeName(name)):], separator); len(rest) > 0; {
		next := filepath.Join(target, rest[0])
		rest = rest[1:]
		to, err := os.Readlink(next)
		if err != nil || len(links) == maxLinks { // no link, or a circle of them
			target = next
			continue
		}
		links = append(links, link{next, to})
		if filepath.IsAbs(to) {
			target = root
		}
		rest = append(strings.Split(to, separator), rest...)
	}
	return links, target
}

func look(links []link, target string) view {
	var v view
	for _, l := range links {
		v.links += fmt.Sprintf("%q to %q\n", l.name, l.to)
	}
	info, err := os.Stat(target)
	if err != nil {
		v.file = fmt.Sprintf("%q missing", target)
		return v
	}
	v.found = true
	v.file = fmt.Sprintf("%q %d %d %s", target, info.Size(), info.ModTime().UnixNano(), inode(info))
	return v
}
