package policy

import (
	"bytes"
	"hash/maphash"
	"io/fs"
	"os"

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

// lostDeny returns a line of a policy behind its first so many that takes access
// away: without it, somebody has more. It is 0 where each of them gives access,
// or is none of its lines.
func lostDeny(m *model.Model, t *table.Table, left int) int {
	lost := func(line uint32) bool { return int(line) > left }
	eft := m.PolicyField("eft")
	denied := map[table.Symbol]bool{} // what stands in lines that deny
	if eft >= 0 {
		for row, line := range t.Rows.Lines {
			if t.Symbols.Text(t.Rows.Cols[eft][row]) != "deny" {
				continue
			}
			if lost(line) {
				return int(line)
			}
			for _, column := range t.Rows.Cols {
				denied[column[row]] = true
			}
		}
	}
	// A role that is lost gives access where a line denies it, or one above it;
	// and where the model asks who does not have it.
	inverse := m.Evaluates || negates(m.Root)
	above := map[table.Symbol][]table.Symbol{}
	for _, edges := range t.Edges {
		for _, e := range edges {
			above[e.Name] = append(above[e.Name], e.Role)
		}
	}
	for _, edges := range t.Edges {
		for _, e := range edges {
			if lost(e.Line) && (inverse || reaches(above, e.Role, denied)) {
				return int(e.Line)
			}
		}
	}
	return 0
}

// negates reports whether a matcher has a ! around anything.
func negates(t *model.Term) bool {
	if t == nil {
		return false
	}
	if t.Op == model.Not {
		return true
	}
	for _, kid := range t.Kids {
		if negates(kid) {
			return true
		}
	}
	return false
}

// reaches reports whether a role, or one above it, is among these.
func reaches(above map[table.Symbol][]table.Symbol, role table.Symbol, these map[table.Symbol]bool) bool {
	seen := map[table.Symbol]bool{role: true}
	for next := []table.Symbol{role}; len(next) > 0; {
		at := next[len(next)-1]
		next = next[:len(next)-1]
		if these[at] {
			return true
		}
		for _, to := range above[at] {
			if !seen[to] {
				seen[to] = true
				next = append(next, to)
			}
		}
	}
	return false
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
	line := lostDeny(served.model, old, left)
	if line == 0 {
		return nil
	}
	return refuse(name, "policy-cut", "is the beginning of what is served, %d of %d lines: without line %d somebody would have more access; write the rest, or send SIGHUP if it is meant",
		left, len(served.sums), line)
}
