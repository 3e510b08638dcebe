package policy

import (
	"bytes"
	"hash/maphash"
	"io/fs"
	"os"

	"securefiles/policy/internal/engine"
	"securefiles/policy/internal/model"
	"securefiles/policy/internal/table"
)

// A trail is what a policy's text leaves behind for the next version: a sum of
// all that stands before the end of each of its lines. By it, one text is the
// beginning of another, though neither is kept.
type trail struct {
	hash maphash.Hash
	sums []uint64
	open bool // the last line has no end yet
	torn bool // it had none when the text ended

	file  fs.FileInfo // nil where it is none
	model *model.Model
}

// newTrail returns an empty one that can be compared to the last.
func newTrail(last *trail, file fs.FileInfo, m *model.Model) *trail {
	t := &trail{file: file, model: m}
	if last != nil {
		t.hash.SetSeed(last.hash.Seed())
	}
	return t
}

// Write takes the next bytes in; it never fails.
func (t *trail) Write(p []byte) (int, error) {
	for rest := p; len(rest) > 0; {
		line, tail, ended := bytes.Cut(rest, []byte{'\n'})
		_, _ = t.hash.Write(line) // never fails
		t.open = true
		if ended {
			t.end()
			_ = t.hash.WriteByte('\n') // never fails
		}
		rest = tail
	}
	return len(p), nil
}

// end is called where a line ends.
func (t *trail) end() {
	if t.open {
		t.sums, t.open = append(t.sums, t.hash.Sum64()), false
	}
}

// finish is called where the text ends.
func (t *trail) finish() {
	t.torn = t.open
	t.end()
}

// cutOf returns how many lines are left of another version, if this one is its
// beginning and shorter, in the same file. A last line that is cut is not left.
func (t *trail) cutOf(old *trail) (left int, ok bool) {
	if old == nil || t.file == nil || old.file == nil || !os.SameFile(t.file, old.file) || len(t.sums) > len(old.sums) {
		return 0, false
	}
	left = len(t.sums)
	if left > 0 && t.sums[left-1] != old.sums[left-1] {
		if left--; !t.torn || left == 0 || t.sums[left-1] != old.sums[left-1] {
			return 0, false
		}
	}
	return left, left < len(old.sums)
}

// checkCut refuses a version that is the beginning of the one that is served, in
// the same file, and has lost what denies: it is more likely a file that is being
// written, or was cut short, than somebody's will. A version that only takes
// access away is never refused so.
func checkCut(name string, next, served *trail, old *table.Table) error {
	left, ok := next.cutOf(served)
	if !ok {
		return nil
	}
	line := engine.LostDeny(served.model, old, left)
	if line == 0 {
		return nil
	}
	return refuse(name, "policy-cut", "is the beginning of what is served, %d of %d lines: without line %d somebody would have more access; write the rest, or send SIGHUP if it is meant",
		left, len(served.sums), line)
}
