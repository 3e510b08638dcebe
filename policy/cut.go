package policy

import (
	"bytes"
	"hash/maphash"
	"io/fs"
	"maps"
	"os"

	"securefiles/policy/internal/engine"
	"securefiles/policy/internal/model"
	"securefiles/policy/internal/table"
)

// A trail is what a policy's text leaves behind for the next version: a sum of
// all that its lines say up to each of them. By it, one text is the beginning of
// another, though neither is kept. Blank lines and comments say nothing: a date in
// the first line makes no other beginning.
type trail struct {
	hash  maphash.Hash
	sums  []uint64
	lines []uint32 // their numbers
	first []byte   // the first of them
	count uint32   // of all lines
	line  []byte   // what there is of the one that has no end yet
	torn  bool     // the last of them had none when the text ended
	dated []uint64 // a bit for each line that says something: it may have a beginning or an end

	file  fs.FileInfo // nil where it is none
	model *model.Model
}

// newTrail returns an empty one that can be compared to the last.
func newTrail(last *trail, file fs.FileInfo, m *model.Model) *trail {
	t := &trail{file: file, model: m}
	if last != nil {
		t.hash.SetSeed(last.hash.Seed())
		t.sums, t.lines = make([]uint64, 0, len(last.sums)+1), make([]uint32, 0, len(last.lines)+1)
	}
	return t
}

// Write takes the next bytes in; it never fails.
func (t *trail) Write(p []byte) (int, error) {
	for rest := p; len(rest) > 0; {
		line, tail, ended := bytes.Cut(rest, []byte{'\n'})
		t.line = append(t.line, line...)
		if ended {
			t.end()
		}
		rest = tail
	}
	return len(p), nil
}

// end is called where a line ends, and reports whether it says anything.
func (t *trail) end() bool {
	t.count++
	line := bytes.TrimSpace(t.line)
	t.line = t.line[:0]
	if len(line) == 0 || line[0] == '#' {
		return false
	}
	if len(t.sums) == 0 {
		t.first = bytes.Clone(line)
	}
	last := bytes.Trim(line[bytes.LastIndexByte(line, ',')+1:], ` "`)
	if place := len(t.sums); t.model.HasPeriods() && table.IsTime(last) {
		t.dated = append(t.dated, make([]uint64, place/64+1-len(t.dated))...)
		t.dated[place/64] |= 1 << (place % 64)
	}
	_, _ = t.hash.Write(line)  // never fails
	_ = t.hash.WriteByte('\n') // never fails
	t.sums, t.lines = append(t.sums, t.hash.Sum64()), append(t.lines, t.count)
	return true
}

// finish is called where the text ends.
func (t *trail) finish() {
	t.torn = len(t.line) > 0 && t.end()
}

// cutOf returns how many lines, of those that say something, this version has in
// common with another one, if it has no others, and fewer than the other, in the
// same file. A last line that is cut says nothing.
func (t *trail) cutOf(whole *trail) (left int, ok bool) {
	if whole == nil || t.file == nil || whole.file == nil || !os.SameFile(t.file, whole.file) || len(t.sums) > len(whole.sums) {
		return 0, false
	}
	left = len(t.sums)
	if left > 0 && t.sums[left-1] != whole.sums[left-1] {
		if left--; !t.torn || left > 0 && t.sums[left-1] != whole.sums[left-1] || left == 0 && !bytes.HasPrefix(whole.first, t.first) {
			return 0, false
		}
	}
	return left, left < len(whole.sums)
}

// losesEnd reports whether the last line of this version is cut, of which the first
// so many are those of another, and may have a beginning or an end there: what is left
// of it could hold at any time.
func (t *trail) losesEnd(whole *trail, left int) bool {
	return left < len(t.sums) && left/64 < len(whole.dated) && whole.dated[left/64]>>(left%64)&1 == 1
}

// lineOf returns the number of the last of so many lines that say something, or
// that of the text's last line where it has fewer.
func (t *trail) lineOf(left int) int {
	switch {
	case left == 0:
		return 0
	case left > len(t.lines):
		return int(t.count)
	}
	return int(t.lines[left-1])
}

// lostRoles are the names that were roles of a version and of what it is the
// beginning of, and stand behind its first so many lines. Whoever is called so
// was refused, and would have what the role may now.
func lostRoles(old *engine.Version, left int) map[string]bool {
	lost := map[string]bool{}
	maps.Copy(lost, old.Kept)
	for _, edges := range old.Table.Edges {
		for _, e := range edges {
			if int(e.Line) > left {
				lost[old.Table.Symbols.Text(e.Role)] = true
			}
		}
	}
	return lost
}
