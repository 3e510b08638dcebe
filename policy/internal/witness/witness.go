// Package witness finds paths that tell patterns apart.
//
// Patterns are read as regular expressions, all of them at once: [Finder.Find]
// follows every path that package pathguard accepts, character by character, as
// far as the patterns tell paths apart, and returns one path for each set of
// patterns that a path matches. What it does not find there is not.
//
// witness knows no policy, and not what becomes of a path.
package witness

import (
	"context"
	"encoding/binary"
	"fmt"
	"regexp/syntax"
	"slices"
	"unicode"
	"unicode/utf8"

	"securefiles/policy/internal/pattern"
)

// A Finder finds paths for some patterns. It is for one goroutine.
type Finder struct {
	insts    []syntax.Inst
	owner    []int32 // of each instruction: its pattern
	patterns []program
	restless []int // patterns that more than what they wait for concerns: they begin anywhere, or cut
	words    bool  // a pattern asks where words begin and end
	cuts     bool

	seen  []uint32 // by instruction: the round in which it was come to
	round uint32
	stack []uint32
}

// A program is a pattern among the instructions.
type program struct {
	start, match, fail uint32
	cuts               bool
	begins             bool // it can match from the beginning of a path alone
}

// New returns a Finder for patterns, which count from 0. The error says which
// cannot be compiled.
func New(patterns []pattern.Expression) (*Finder, error) {
	f := &Finder{}
	for number, p := range patterns {
		parsed, err := syntax.Parse(p.Text, syntax.Perl)
		if err != nil {
			return nil, fmt.Errorf("read %q: %w", p.Text, err)
		}
		prog, err := syntax.Compile(parsed.Simplify())
		if err != nil {
			return nil, fmt.Errorf("compile %q: %w", p.Text, err)
		}
		base := uint32(len(f.insts))
		own := program{start: base + uint32(prog.Start), cuts: p.Cuts, begins: prog.StartCond()&syntax.EmptyBeginText != 0}
		for _, inst := range prog.Inst {
			switch inst.Op {
			case syntax.InstAlt, syntax.InstAltMatch:
				inst.Arg += base
			case syntax.InstEmptyWidth:
				if !p.Segments && syntax.EmptyOp(inst.Arg)&syntax.EmptyEndLine != 0 { // a path is one line
					inst.Arg = inst.Arg&^uint32(syntax.EmptyEndLine) | uint32(syntax.EmptyEndText)
				}
				if syntax.EmptyOp(inst.Arg)&(syntax.EmptyWordBoundary|syntax.EmptyNoWordBoundary) != 0 {
					f.words = true
				}
			}
			inst.Out += base
			f.insts, f.owner = append(f.insts, inst), append(f.owner, int32(number))
		}
		// Of its own, so that each pattern has one of either.
		own.match, own.fail = uint32(len(f.insts)), uint32(len(f.insts))+1
		f.insts = append(f.insts, syntax.Inst{Op: syntax.InstMatch}, syntax.Inst{Op: syntax.InstFail})
		f.owner = append(f.owner, int32(number), int32(number))
		f.cuts = f.cuts || p.Cuts
		if p.Cuts || !own.begins {
			f.restless = append(f.restless, number)
		}
		f.patterns = append(f.patterns, own)
	}
	f.seen = make([]uint32, len(f.insts))
	return f, nil
}

// A Witness is a path, and the patterns that it matches, ascending.
type Witness struct {
	Path    string
	Matches []int
}

// A place is where a path has led: what each pattern waits for.
type place struct {
	waits  []uint32 // instructions, ascending
	guard  guard
	word   bool // the last character belongs to a word; where it matters
	begins bool // no character yet
}

func (p *place) key(buf []byte) []byte {
	flags := byte(p.guard) << 2
	if p.word {
		flags |= 1
	}
	if p.begins {
		flags |= 2
	}
	buf = append(buf[:0], flags)
	for _, pc := range p.waits {
		buf = binary.LittleEndian.AppendUint32(buf, pc)
	}
	return buf
}

// A reached is a place, and how it was come to.
type reached struct {
	place
	from int
	by   rune
}

// A Budget bounds work, in instructions looked at. Several calls may share one.
type Budget struct{ Left int }

// Spend takes some of it, and is false where nothing is left.
func (b *Budget) Spend(n int) bool {
	b.Left -= n
	return b.Left >= 0
}

// Find returns a path for each set of patterns that some path matches, and is
// false where the budget ended before all was found. The shortest come first.
// Where oneOf is not nil, only paths are looked for that match one of these
// patterns, and others may be among them.
func (f *Finder) Find(ctx context.Context, oneOf []int, budget *Budget) (found []Witness, all bool, err error) {
	var wanted []bool
	if oneOf != nil {
		wanted = make([]bool, len(f.patterns))
		for _, p := range oneOf {
			wanted[p] = true
		}
	}
	var buf []byte
	places, known, told := []reached{{place: f.first(), from: -1}}, map[string]bool{}, map[string]bool{}
	for at := 0; at < len(places); at++ {
		if at%256 == 0 && ctx.Err() != nil {
			return nil, false, ctx.Err()
		}
		here := places[at].place
		if here.guard.accepts() {
			matches := f.ends(&here)
			buf = buf[:0]
			for _, p := range matches {
				buf = binary.LittleEndian.AppendUint32(buf, uint32(p))
			}
			if !told[string(buf)] {
				told[string(buf)] = true
				found = append(found, Witness{pathTo(places, at), matches})
			}
		}
		if !budget.Spend(4 * len(here.waits)) {
			return found, false, nil
		}
		for _, r := range f.characters(&here) {
			guard := here.guard.next(r)
			if guard == refused {
				continue
			}
			if !budget.Spend(8 + len(here.waits)) {
				return found, false, nil
			}
			next := f.step(&here, r)
			next.guard = guard
			if wanted != nil && !slices.ContainsFunc(next.waits, func(pc uint32) bool { return wanted[f.owner[pc]] && f.insts[pc].Op != syntax.InstFail }) {
				continue
			}
			if buf = next.key(buf); known[string(buf)] {
				continue
			}
			known[string(buf)] = true
			if !budget.Spend(16 + 4*len(next.waits)) {
				return found, false, nil
			}
			places = append(places, reached{next, at, r})
		}
		places[at].waits = nil // nobody asks again
	}
	return found, true, nil
}

func pathTo(places []reached, at int) string {
	var path []rune
	for ; places[at].from >= 0; at = places[at].from {
		path = append(path, places[at].by)
	}
	slices.Reverse(path)
	return string(path)
}

// first is before the first character.
func (f *Finder) first() place {
	p := place{begins: true}
	f.round++
	for _, own := range f.patterns {
		p.waits = f.wait(p.waits, own.start, nil)
	}
	slices.Sort(p.waits)
	return p
}

// wait adds what stands first from an instruction on: characters, ends, and what
// depends on the character that comes. Where next is not nil it comes.
func (f *Finder) wait(waits []uint32, pc uint32, next *syntax.EmptyOp) []uint32 {
	f.stack = append(f.stack[:0], pc)
	for len(f.stack) > 0 {
		pc := f.stack[len(f.stack)-1]
		f.stack = f.stack[:len(f.stack)-1]
		if f.seen[pc] == f.round {
			continue
		}
		f.seen[pc] = f.round
		switch inst := &f.insts[pc]; inst.Op {
		case syntax.InstAlt, syntax.InstAltMatch:
			f.stack = append(f.stack, inst.Arg, inst.Out)
		case syntax.InstCapture, syntax.InstNop:
			f.stack = append(f.stack, inst.Out)
		case syntax.InstEmptyWidth:
			if next == nil {
				waits = append(waits, pc)
			} else if syntax.EmptyOp(inst.Arg)&^*next == 0 {
				f.stack = append(f.stack, inst.Out)
			}
		case syntax.InstMatch:
			waits = append(waits, f.patterns[f.owner[pc]].match)
		case syntax.InstFail:
			if pc == f.patterns[f.owner[pc]].fail {
				waits = append(waits, pc)
			}
		default:
			waits = append(waits, pc)
		}
	}
	return waits
}

// between says what holds between the last character and the next, -1 at the end.
// A segment ends as a line does.
func (p *place) between(next rune) syntax.EmptyOp {
	last := rune('.')
	switch {
	case p.begins:
		last = -1
	case p.word:
		last = 'x'
	}
	is := syntax.EmptyOpContext(last, next)
	if next == '/' {
		is |= syntax.EmptyEndLine
	}
	return is
}

// step goes on by a character.
func (f *Finder) step(p *place, r rune) place {
	context := p.between(r)
	f.round++
	var ready []uint32
	for _, pc := range p.waits {
		ready = f.wait(ready, pc, &context)
	}
	next := place{word: f.words && syntax.IsWordChar(r)}
	var cut []int // these end here
	if f.cuts && r == '?' {
		cut = f.endsAt(p, p.between(-1)&^syntax.EmptyEndLine)
	}
	f.round++
	for _, pc := range ready {
		own := &f.patterns[f.owner[pc]]
		switch inst := &f.insts[pc]; {
		case inst.Op == syntax.InstMatch || inst.Op == syntax.InstFail:
			next.waits = f.wait(next.waits, pc, nil)
		case own.cuts && r == '?': // what comes is not read
		case inst.MatchRune(r):
			next.waits = f.wait(next.waits, inst.Out, nil)
		}
	}
	for _, i := range f.restless {
		own := &f.patterns[i]
		switch {
		case f.seen[own.match] == f.round || f.seen[own.fail] == f.round:
		case own.cuts && r == '?':
			end := own.fail
			if slices.Contains(cut, i) {
				end = own.match
			}
			next.waits = f.wait(next.waits, end, nil)
		case !own.begins: // it may begin to match anywhere
			next.waits = f.wait(next.waits, own.start, nil)
		}
	}
	slices.Sort(next.waits)
	return f.settled(next)
}

// settled leaves out what a pattern waits for that has matched, or never will.
func (f *Finder) settled(p place) place {
	p.waits = slices.Compact(p.waits)
	var settled map[int32]bool
	for _, pc := range p.waits {
		if op := f.insts[pc].Op; op == syntax.InstMatch || op == syntax.InstFail {
			if settled == nil {
				settled = map[int32]bool{}
			}
			settled[f.owner[pc]] = true
		}
	}
	if len(settled) > 0 {
		p.waits = slices.DeleteFunc(p.waits, func(pc uint32) bool {
			op := f.insts[pc].Op
			return settled[f.owner[pc]] && op != syntax.InstMatch && op != syntax.InstFail
		})
	}
	return p
}

// ends returns the patterns that match where a path ends here.
func (f *Finder) ends(p *place) []int { return f.endsAt(p, p.between(-1)) }

// endsAt is ends where that holds which a path's end, or a cut, is.
func (f *Finder) endsAt(p *place, context syntax.EmptyOp) []int {
	f.round++
	var matches []int
	var ready []uint32
	for _, pc := range p.waits {
		ready = f.wait(ready, pc, &context)
	}
	for _, pc := range ready {
		if f.insts[pc].Op == syntax.InstMatch {
			matches = append(matches, int(f.owner[pc]))
		}
	}
	slices.Sort(matches)
	return slices.Compact(matches)
}

// characters returns one of each kind that the patterns tell apart here, the
// readable ones first.
func (f *Finder) characters(p *place) []rune {
	borders := []rune{0, '/', '/' + 1}
	cut := func(low, high rune) { borders = append(borders, low, high+1) }
	if f.words {
		for _, r := range [][2]rune{{'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}} {
			cut(r[0], r[1])
		}
	}
	if f.cuts {
		cut('?', '?')
	}
	f.round++
	var ready []uint32
	anything := ^syntax.EmptyOp(0)
	for _, pc := range p.waits {
		ready = f.wait(ready, pc, &anything)
	}
	for _, pc := range ready {
		inst := &f.insts[pc]
		if inst.Op != syntax.InstRune && inst.Op != syntax.InstRune1 {
			continue
		}
		if len(inst.Rune) == 1 {
			r := inst.Rune[0]
			cut(r, r)
			if syntax.Flags(inst.Arg)&syntax.FoldCase != 0 {
				for other := unicode.SimpleFold(r); other != r; other = unicode.SimpleFold(other) {
					cut(other, other)
				}
			}
			continue
		}
		for i := 0; i+1 < len(inst.Rune); i += 2 {
			cut(inst.Rune[i], inst.Rune[i+1])
		}
	}
	slices.Sort(borders)
	borders = slices.Compact(borders)
	var out []rune
	for i, low := range borders {
		high := rune(utf8.MaxRune)
		if i+1 < len(borders) {
			high = borders[i+1] - 1
		}
		if r, ok := readable(low, high); ok {
			out = append(out, r)
		}
	}
	slices.SortFunc(out, func(a, b rune) int { return rank(a) - rank(b) })
	return out
}

// rank puts x first and a slash last.
func rank(r rune) int {
	switch {
	case r == 'x':
		return 0
	case r == '/':
		return utf8.MaxRune + 2
	case 'a' <= r && r <= 'z':
		return int(r)
	}
	return int(r) + 'z'
}

// readable chooses a character of a range that pathguard takes wherever it takes
// any other of the range, and is false where it takes none.
func readable(low, high rune) (rune, bool) {
	for _, r := range [][2]rune{{'x', 'x'}, {'a', 'z'}, {'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'-', '-'}, {'!', '~'}, {0xa1, 0x24ff}} {
		for c := max(low, r[0]); c <= min(high, r[1]); c++ {
			if kind := kindOf(c); kind == plain || kind == slash {
				return c, true
			}
		}
	}
	best, ok := rune(0), false
	for c := low; c <= high; c++ {
		switch kind := kindOf(c); {
		case kind == plain || kind == slash:
			return c, true
		case kind != forbidden && !ok:
			best, ok = c, true
		}
	}
	return best, ok
}
