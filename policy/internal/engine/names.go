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

// A namedPath is the path of a query, and the names of its principal.
type namedPath struct {
	known   bool
	names   pattern.Names
	slashes []int // where its segments begin; the last is its end
	buffer  []byte
	groups  []string
	room    pattern.Room
}

// Names returns the names that the path holds.
func (ev *Evaluator) Names() pattern.Names {
	p := ev.named()
	if ev.engine.obj < 0 {
		return pattern.Names{}
	}
	p.names = p.names.In(ev.Request[ev.engine.obj])
	return p.names
}

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
	clear(ev.path.groups[:cap(ev.path.groups)])
	ev.path.known, ev.path.names = false, pattern.Names{}
}

func (ev *Evaluator) named() *namedPath {
	p := &ev.path
	if p.known {
		return p
	}
	p.known, p.slashes = true, p.slashes[:0]
	p.names = namesOf(&ev.Query, p.groups[:0])
	p.groups, p.names.Room = p.names.Groups, &p.room
	if ev.engine.obj < 0 {
		return p
	}
	path := ev.Request[ev.engine.obj]
	for i := range len(path) {
		if path[i] == '/' {
			p.slashes = append(p.slashes, i)
		}
	}
	p.slashes = append(p.slashes, len(path))
	return p
}

// Limits of what an index knows of $sub and $group. Beyond them an anchor ends
// before them, which costs time alone.
const (
	maxNamesInAnchor = 2
	maxSides         = 34 // places where they stand, over all patterns, and the two without any
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

// side returns the side that an anchor is of, and what of the anchor counts, until the
// next call: up to so many names.
func (k *anchorKeys) side(anchor string, fromEnd bool, names int) (side *anchorSide, text []byte) {
	kept, places := placesIn(anchor, fromEnd, names)
	i := slices.IndexFunc(k.sides, func(s anchorSide) bool { return s.namePlaces == places })
	switch {
	case i < 0 && len(k.sides) == maxSides:
		return k.side(anchor, fromEnd, 0)
	case i < 0:
		i = len(k.sides)
		k.sides = append(k.sides, anchorSide{namePlaces: places})
	}
	if fromEnd {
		anchor = anchor[len(anchor)-kept:]
	} else {
		anchor = anchor[:kept]
	}
	k.buffer = append(k.buffer[:0], anchor...)
	return &k.sides[i], k.buffer
}

// placesIn returns the places of names in an anchor from its outer end, and how much
// of it they are good for: up to so many names.
func placesIn(anchor string, fromEnd bool, names int) (kept int, places namePlaces) {
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
			if places.count == names || at.slack > maxSlack {
				return i, places
			}
			at.mark = c
			places.names[places.count] = at
			places.count++
		}
	}
	return len(anchor), places
}

// fillKeys finds the keys of the path: as it is, and with marks in the place of names
// where anchors have them.
func (ev *Evaluator) fillKeys(c *conjunction) {
	text := ev.Request[c.pattern.Request]
	ev.keys.begin()
	for i := range c.anchors.keysOf.sides {
		switch side := &c.anchors.keysOf.sides[i]; {
		case side.count == 0:
			ev.path.buffer = append(ev.path.buffer[:0], text...)
			ev.keys.add(c.anchors, side, c.pattern.Func.Reads(ev.path.buffer))
		default:
			ev.mark(c, side, 0, [maxNamesInAnchor]int{})
		}
	}
	ev.keys.settle(c.anchors)
}

// mark adds the keys of the path with marks for the names of a side, in all ways in
// which its segments may be these; the segments of the first n are chosen.
func (ev *Evaluator) mark(c *conjunction, side *anchorSide, n int, chosen [maxNamesInAnchor]int) {
	p, path := ev.named(), ev.Request[ev.engine.obj]
	if n == side.count {
		ev.keys.add(c.anchors, side, c.pattern.Func.Reads(p.marked(path, &side.namePlaces, chosen)))
		return
	}
	place, segments := side.names[n], len(p.slashes)-1
	for slack := range place.slack + 1 {
		i := place.slashes + slack - 1
		if side.fromEnd {
			i = segments - 1 - place.slashes - slack
		}
		if i < 0 || i >= segments {
			continue
		}
		name := path[p.slashes[i]+1 : p.slashes[i+1]]
		if place.mark == pattern.AnySubject && name == p.names.Subject || place.mark == pattern.AnyGroup && slices.Contains(p.names.Groups, name) {
			chosen[n] = i
			ev.mark(c, side, n+1, chosen)
		}
	}
}

// marked returns a path with marks in the place of segments, until its next call.
func (p *namedPath) marked(path string, places *namePlaces, chosen [maxNamesInAnchor]int) []byte {
	p.buffer = p.buffer[:0]
	done := 0
	for i, slash := range p.slashes {
		if n := slices.Index(chosen[:places.count], i); n >= 0 {
			p.buffer = append(append(p.buffer, path[done:slash+1]...), places.names[n].mark)
			done = p.slashes[i+1]
		}
	}
	p.buffer = append(p.buffer, path[done:]...)
	return p.buffer
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
