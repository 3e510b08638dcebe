package engine

import (
	"slices"
	"strings"

	"securefiles/authz"
	"securefiles/policy/internal/model"
	"securefiles/policy/internal/pattern"
)

// NamesOf are those that $sub and $group stand for in a request: the subject, if it
// is somebody, and the groups that a source vouched for. Roles are not among them.
func NamesOf(q *authz.Query) pattern.Names { return namesOf(q, nil) }

// namesOf is NamesOf, with room for the groups.
func namesOf(q *authz.Query, groups []string) pattern.Names {
	names := pattern.Names{Groups: groups}
	if q.Principal.IsAnonymous() {
		return pattern.Names{}
	}
	if pattern.CanStand(q.Principal.Subject) {
		names.Subject = q.Principal.Subject
	}
	for _, g := range q.Principal.Groups {
		name, isGroup := strings.CutPrefix(g, "@")
		if isGroup && !authz.IsBuiltinGroup(g) && pattern.CanStand(name) {
			names.Groups = append(names.Groups, name)
		}
	}
	return names
}

// A namedPath is the names that the path of a query holds, found once for it.
type namedPath struct {
	known    bool
	names    pattern.Names
	segments []segment
	any      bool // one of them is a name
	texts    []string
	made     []string // marked texts: another conjunction asks for the same
	buffer   []byte
	groups   []string
	room     pattern.Room
}

// A segment is a piece of a path between slashes, and whose name it is.
type segment struct {
	from, to       int
	subject, group bool
}

// Names returns the names that the path holds.
func (ev *Evaluator) Names() pattern.Names { return ev.named().names }

// Bind makes the evaluator see another query.
func (ev *Evaluator) Bind(q *authz.Query) {
	for i, name := range ev.engine.Model.Request {
		ev.Request[i], _ = model.RequestValue(q, name) // what no request has is not asked
	}
	ev.Query = *q
	ev.forget()
}

// forget is for what was found for a query.
func (ev *Evaluator) forget() {
	clear(ev.Found)
	clear(ev.Verdicts)
	ev.Walks = ev.Walks[:0]
	clear(ev.path.texts[:cap(ev.path.texts)])
	clear(ev.path.made)
	ev.path.made = ev.path.made[:0]
	clear(ev.path.groups[:cap(ev.path.groups)])
	ev.path.known, ev.path.names = false, pattern.Names{}
}

func (ev *Evaluator) named() *namedPath {
	p := &ev.path
	if p.known {
		return p
	}
	p.known, p.any, p.names, p.segments = true, false, pattern.Names{}, p.segments[:0]
	if ev.engine.obj < 0 {
		return p
	}
	path := ev.Request[ev.engine.obj]
	all := namesOf(&ev.Query, p.groups[:0])
	p.groups = all.Groups
	p.names = all.In(path, &p.room)
	for at := strings.IndexByte(path, '/') + 1; at > 0; {
		s := segment{from: at, to: len(path)}
		if slash := strings.IndexByte(path[at:], '/'); slash >= 0 {
			s.to = at + slash
		}
		name := path[s.from:s.to]
		s.subject = name != "" && name == p.names.Subject
		s.group = slices.Contains(p.names.Groups, name)
		p.any = p.any || s.subject || s.group
		p.segments = append(p.segments, s)
		if at = s.to + 1; at > len(path) {
			break
		}
	}
	return p
}

// Limits of what an index knows of $sub and $group. Beyond them an anchor ends
// before them, which costs time alone.
const (
	maxNamesInAnchor = 2
	maxPlaces        = 32 // where they stand, over all patterns
	maxSlack         = 2
)

// namePlaces are where $sub and $group stand in an anchor.
type namePlaces struct {
	fromEnd bool // slashes are counted from the end of the path
	names   [maxNamesInAnchor]namePlace
	count   int
}

// A namePlace is how many slashes stand outside of a name in the anchor, and how
// many wild characters, each of which may be one more.
type namePlace struct {
	slashes, slack int
	mark           byte
}

// marks are what stands for names in an anchor.
const marks = string(rune(pattern.AnySubject)) + string(rune(pattern.AnyGroup))

// addPlaces notes where $sub and $group stand in anchors, and returns what is left
// of these where that is too many.
func (k *anchorKeys) addPlaces(a pattern.Anchors, cuts bool) pattern.Anchors {
	if !strings.ContainsAny(a.Prefix, marks) && !strings.ContainsAny(a.Suffix, marks) {
		return a
	}
	kept, places := placesIn(a.Prefix, false)
	if places.count > 0 && !k.note(places) {
		kept = strings.IndexAny(a.Prefix, marks)
	}
	a.Exact = a.Exact && kept == len(a.Prefix)
	a.Prefix = a.Prefix[:kept]
	kept, places = placesIn(a.Suffix, true)
	if places.count > 0 && (cuts || !k.note(places)) {
		kept = len(a.Suffix) - strings.LastIndexAny(a.Suffix, marks) - 1
	}
	a.Suffix = a.Suffix[len(a.Suffix)-kept:]
	return a
}

// placesIn returns the places of names in an anchor from its outer end, and how much
// of it they are good for.
func placesIn(anchor string, fromEnd bool) (kept int, places namePlaces) {
	places.fromEnd = fromEnd
	at := namePlace{}
	for i := range len(anchor) {
		c := anchor[i]
		if fromEnd {
			c = anchor[len(anchor)-1-i]
		}
		switch c {
		case '/':
			at.slashes++
		case pattern.AnyRune:
			at.slack++
		case pattern.AnySubject, pattern.AnyGroup:
			if places.count == maxNamesInAnchor || at.slack > maxSlack {
				return i, places
			}
			at.mark = c
			places.names[places.count] = at
			places.count++
		}
	}
	return len(anchor), places
}

// note keeps places; it is false where there are too many.
func (k *anchorKeys) note(p namePlaces) bool {
	if slices.Contains(k.places, p) {
		return true
	}
	if len(k.places) == maxPlaces {
		return false
	}
	k.places = append(k.places, p)
	return true
}

// texts returns what the keys of a path are made from: the path, and the path with
// marks in the place of names where a pattern has them.
func (ev *Evaluator) texts(c *conjunction) []string {
	path := ev.Request[c.pattern.Request]
	p := &ev.path
	p.texts = append(p.texts[:0], c.pattern.Func.Reads(path))
	if len(c.anchors.keysOf.places) > 0 && ev.named().any {
		for i := range c.anchors.keysOf.places {
			p.mark(path, c.pattern.Func, &c.anchors.keysOf.places[i], 0, [maxNamesInAnchor]int{})
		}
	}
	return p.texts
}

// mark appends the path with marks for names to the texts, in all ways in which its
// segments may be these names; the segments of the first n are chosen.
func (p *namedPath) mark(path string, f pattern.Func, places *namePlaces, n int, chosen [maxNamesInAnchor]int) {
	if n == places.count {
		p.texts = append(p.texts, f.Reads(p.marked(path, places, chosen)))
		return
	}
	place := places.names[n]
	for slack := range place.slack + 1 {
		i := place.slashes + slack - 1
		if places.fromEnd {
			i = len(p.segments) - 1 - place.slashes - slack
		}
		if i < 0 || i >= len(p.segments) || slices.Contains(chosen[:n], i) {
			continue
		}
		if s := p.segments[i]; place.mark == pattern.AnySubject && s.subject || place.mark == pattern.AnyGroup && s.group {
			chosen[n] = i
			p.mark(path, f, places, n+1, chosen)
		}
	}
}

// marked returns a path with marks in the place of segments.
func (p *namedPath) marked(path string, places *namePlaces, chosen [maxNamesInAnchor]int) string {
	p.buffer = p.buffer[:0]
	done := 0
	for i, s := range p.segments {
		if n := slices.Index(chosen[:places.count], i); n >= 0 {
			p.buffer = append(append(p.buffer, path[done:s.from]...), places.names[n].mark)
			done = s.to
		}
	}
	p.buffer = append(p.buffer, path[done:]...)
	for _, text := range p.made {
		if text == string(p.buffer) {
			return text
		}
	}
	p.made = append(p.made, string(p.buffer))
	return p.made[len(p.made)-1]
}

// NamesIn says what $sub and $group stand for in a row, for the query: `$sub is
// "alice"`. It is empty where the row has neither.
func (ev *Evaluator) NamesIn(row int) string {
	for column := range ev.engine.Model.Policy {
		for _, f := range ev.engine.Model.PathFunctions(column) {
			if said := ev.namesIn(f, ev.engine.Symbols.Text(ev.engine.cell(row, column))); said != "" {
				return said
			}
		}
	}
	return ""
}

// maxGroupsTold bounds the groups that are listed.
const maxGroupsTold = 5

func (ev *Evaluator) namesIn(f pattern.Func, text string) string {
	subject, group := f.AsksNames(text)
	if !subject && !group {
		return ""
	}
	names := NamesOf(&ev.Query)
	if in := ev.Names(); len(in.Groups) > 0 {
		names.Groups = in.Groups // the others do not matter
	}
	var said []string
	tell := func(variable string, values ...string) {
		list := "nobody's name"
		if len(values) > 0 && values[0] != "" {
			var quoted []string
			for _, v := range values[:min(len(values), maxGroupsTold)] {
				quoted = append(quoted, quoteValue(v))
			}
			if len(values) > maxGroupsTold {
				quoted = append(quoted, "…")
			}
			list = strings.Join(quoted, " or ")
		}
		said = append(said, variable+" is "+list)
	}
	if subject {
		tell(pattern.SubjectName, names.Subject)
	}
	if group {
		tell(pattern.GroupName, names.Groups...)
	}
	return strings.Join(said, ", ")
}
