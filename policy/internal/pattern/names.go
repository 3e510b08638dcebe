package pattern

import (
	"errors"
	"slices"
	"strings"
)

// What stands for a name where it is a whole segment of a pattern of the path: the
// subject of a request, or any one of the groups that a source vouched for.
const (
	SubjectName = "$sub"
	GroupName   = "$group"
)

// Names are what $sub and $group stand for in one request. The zero Names match
// nothing.
type Names struct {
	Subject string   // empty where there is none
	Groups  []string // without their @
	Room    *Room    // for matches; nil is none
	in      bool     // all of them are segments of the path in question
}

// A Room is memory for the matches of one goroutine.
type Room struct {
	holes  [8]hole
	groups []string
}

// CanStand reports whether a name can be a segment of a path, as far as slashes
// and dots go. One that cannot stands for nothing.
func CanStand(name string) bool {
	return name != "" && name != "." && name != ".." && strings.IndexByte(name, '/') < 0
}

// In returns those of the names that are a segment of a path, each once: no other
// can match. They are good until the next call with the same room.
func (n Names) In(path string) Names {
	if n.in || n.Subject == "" && len(n.Groups) == 0 {
		return n
	}
	in := Names{in: true, Room: n.Room}
	if n.Room != nil {
		in.Groups = n.Room.groups[:0]
	}
	for segment := range segments(path) {
		if segment == n.Subject {
			in.Subject = segment
		}
		if slices.Contains(n.Groups, segment) && !slices.Contains(in.Groups, segment) {
			in.Groups = append(in.Groups, segment)
		}
	}
	if n.Room != nil {
		n.Room.groups = in.Groups
	}
	return in
}

// segments iterates over what stands behind the slashes of a path, but for what is
// empty, with its place.
func segments(path string) func(yield func(segment string, at int) bool) {
	return func(yield func(string, int) bool) {
		for at := strings.IndexByte(path, '/') + 1; at > 0 && at <= len(path); {
			end := segmentEnd(path, at)
			if end > at && !yield(path[at:end], at) {
				return
			}
			at = end + 1
		}
	}
}

// The marks stand in a pattern in the place of $sub and $group, and in a path
// around or in the place of the segments that are names: a name itself never
// becomes part of a pattern. No path and no line of a policy holds them.
const (
	subjectMark = '\x01'
	groupMark   = '\x02'
	endMark     = '\x03'
)

// A hole is where $sub or $group stands in a pattern.
type hole struct {
	at   int
	mark byte
}

// length is that of its text.
func (h hole) length() int {
	if h.mark == groupMark {
		return len(GroupName)
	}
	return len(SubjectName)
}

// holeAt returns the hole at a place of a pattern, behind a slash, that reaches up
// to the next slash, to the end, or to one of the characters of ends.
func holeAt(pattern string, at int, ends string) (hole, bool) {
	if at == 0 || pattern[at-1] != '/' {
		return hole{}, false
	}
	h := hole{at, subjectMark}
	switch rest := pattern[at:]; {
	case strings.HasPrefix(rest, SubjectName):
	case strings.HasPrefix(rest, GroupName):
		h.mark = groupMark
	default:
		return hole{}, false
	}
	end := at + h.length()
	return h, end == len(pattern) || pattern[end] == '/' || strings.IndexByte(ends, pattern[end]) >= 0
}

// MayAskNames is what nearly every pattern fails that does not ask for names, for
// next to nothing.
func MayAskNames(pattern string) bool { return strings.Contains(pattern, "/$") }

// plainHoles are those of a pattern in which nothing but slashes divides.
func plainHoles(pattern string, holes []hole) []hole {
	for i := strings.Index(pattern, "/$"); i >= 0 && i < len(pattern); i++ {
		if h, ok := holeAt(pattern, i, ""); ok {
			holes = append(holes, h)
		}
	}
	return holes
}

// regexHoles are those of a regular expression: outside of classes, and not where
// it is quoted. They may stand before what begins or ends a group, and before $.
func regexHoles(pattern string, holes []hole) []hole {
	for i := 0; i < len(pattern); i++ {
		switch pattern[i] {
		case '\\':
			i++
			if !strings.HasPrefix(pattern[i:], "Q") {
				continue
			}
			n := strings.Index(pattern[i:], `\E`)
			if n < 0 {
				return holes
			}
			i += n + 1
		case '[':
			i = classEnd(pattern, i)
		case '$':
			if h, ok := holeAt(pattern, i, "()|$"); ok {
				holes = append(holes, h)
				i += h.length() - 1
			}
		}
	}
	return holes
}

// classEnd returns where the class that begins at i ends.
func classEnd(pattern string, i int) int {
	i++
	if i < len(pattern) && pattern[i] == '^' {
		i++
	}
	for first := i; i < len(pattern); i++ {
		switch {
		case pattern[i] == '\\':
			i++
		case strings.HasPrefix(pattern[i:], "[:"):
			if n := strings.Index(pattern[i+2:], ":]"); n >= 0 {
				i += n + 3
			}
		case pattern[i] == ']' && i > first:
			return i
		}
	}
	return i
}

// fill puts texts in the place of holes.
func fill(pattern string, holes []hole, text func(i int, h hole) string) string {
	if len(holes) == 0 {
		return pattern
	}
	var b strings.Builder
	done := 0
	for i, h := range holes {
		b.WriteString(pattern[done:h.at])
		b.WriteString(text(i, h))
		done = h.at + h.length()
	}
	b.WriteString(pattern[done:])
	return b.String()
}

// marked returns a pattern with a mark in each hole: it means itself to every
// function.
func (f Func) marked(pattern string) (string, bool) {
	if !MayAskNames(pattern) {
		return pattern, false
	}
	holes := f.of.holes(pattern, nil)
	return fill(pattern, holes, func(_ int, h hole) string { return string(rune(h.mark)) }), len(holes) > 0
}

// named returns a pattern with a name like any other in each hole, for what is
// said of the rest of it.
func (f Func) named(pattern string) string {
	if !MayAskNames(pattern) {
		return pattern
	}
	return fill(pattern, f.of.holes(pattern, nil), func(int, hole) string { return "name" })
}

// AsksNames reports whether $sub and $group stand for names in a pattern.
func (f Func) AsksNames(pattern string) (subject, group bool) {
	if !MayAskNames(pattern) {
		return false, false
	}
	for _, h := range f.of.holes(pattern, nil) {
		subject, group = subject || h.mark == subjectMark, group || h.mark == groupMark
	}
	return subject, group
}

// Fill returns a text with names in the place of segments that are $sub and
// $group; it is false where a name is missing. It is for paths made of a pattern,
// and for people: what it returns may mean something else as a pattern.
func Fill(text, subject, group string) (string, bool) {
	if !MayAskNames(text) {
		return text, true
	}
	holes, ok := plainHoles(text, nil), true
	return fill(text, holes, func(_ int, h hole) string {
		name := subject
		if h.mark == groupMark {
			name = group
		}
		ok = ok && name != ""
		return name
	}), ok
}

var (
	errMarks = errors.New("the path holds control characters, which no path does")
	errTries = errors.New("the path holds the name too often for a pattern in which $sub or $group stands behind **")
)

// MatchPath is Match for a path, in whose patterns $sub and $group stand for names:
// that segment is the name, byte for byte. A pattern is tried with each group by
// itself, of those that are in the path: these are left of the names.
func (m *Cache) MatchPath(f Func, path, pattern string, id uint32, names *Names) (bool, error) {
	var holes []hole
	if MayAskNames(pattern) {
		if names.Room != nil {
			holes = names.Room.holes[:0]
		}
		holes = f.of.holes(pattern, holes)
	}
	if len(holes) == 0 {
		return f.of.match(m, path, pattern, id)
	}
	for _, mark := range []byte{subjectMark, groupMark, endMark} {
		if strings.IndexByte(path, mark) >= 0 {
			return false, errMarks
		}
	}
	group := slices.ContainsFunc(holes, func(h hole) bool { return h.mark == groupMark })
	if group {
		*names = names.In(path)
	}
	if !group || len(names.Groups) == 0 { // an alternative may do without
		return f.of.matchNames(m, path, pattern, id, holes, one{subject: names.Subject})
	}
	for _, g := range names.Groups {
		if ok, err := f.of.matchNames(m, path, pattern, id, holes, one{names.Subject, g}); ok || err != nil {
			return ok, err
		}
	}
	return false, nil
}

// MatchPath is [Cache.MatchPath] without a cache.
func (f Func) MatchPath(path, pattern string, names Names) (bool, error) {
	return (*Cache)(nil).MatchPath(f, path, pattern, 0, &names)
}

// one is the subject, and one group.
type one struct{ subject, group string }

// of returns the name for a hole.
func (n one) of(h hole) string {
	if h.mark == groupMark {
		return n.group
	}
	return n.subject
}

// mark returns a path with marks around the segments that are names.
func (n one) mark(path string) string {
	var b strings.Builder
	done := 0
	for segment, at := range segments(path) {
		subject, group := n.subject != "" && segment == n.subject, n.group != "" && segment == n.group
		if !subject && !group {
			continue
		}
		b.WriteString(path[done:at])
		if subject {
			b.WriteByte(subjectMark)
		}
		if group {
			b.WriteByte(groupMark)
		}
		b.WriteString(segment)
		b.WriteByte(endMark)
		done = at + len(segment)
	}
	b.WriteString(path[done:])
	return b.String()
}

// standsFor reports whether a name is the whole segment of a path at a place, and
// returns where that ends.
func standsFor(path string, at int, name string) (end int, ok bool) {
	if at == 0 || at > len(path) || path[at-1] != '/' || name == "" {
		return 0, false
	}
	end = segmentEnd(path, at)
	return end, path[at:end] == name
}

// isMark reports whether a character is a mark.
func isMark(r rune) bool { return subjectMark <= r && r <= endMark }

// withoutMarks returns what a marked path says.
func withoutMarks(text string) string {
	if strings.IndexFunc(text, isMark) < 0 {
		return text
	}
	return strings.Map(func(r rune) rune {
		if isMark(r) {
			return -1
		}
		return r
	}, text)
}

// replaceMarks returns a pattern with a text in the place of each mark.
func replaceMarks(marked, text string) string {
	return strings.NewReplacer(string(rune(subjectMark)), text, string(rune(groupMark)), text).Replace(marked)
}
