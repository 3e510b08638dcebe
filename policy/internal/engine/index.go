package engine

import (
	"math/bits"
	"slices"
	"sort"

	"securefiles/policy/internal/pace"
	"securefiles/policy/internal/pattern"
	"securefiles/policy/internal/table"
)

// An anchorIndex orders the rows by the anchors of their patterns: those of one
// field under one pattern function.
type anchorIndex struct {
	keysOf anchorKeys
	keys   []anchorKey // ascending
	rows   []uint32    // of the keys; ascending where keys are equal
	// begin[h] is where the keys with h in their upper bits begin.
	begin []uint32
	shift int
	// present has a bit for each key, which others may share.
	present []uint64
}

// newAnchorIndex gives each row the one of its pattern's anchors that fewer rows
// share. Of a pattern of the path they hold the places of $sub and $group.
func newAnchorIndex(syms *table.Symbols, column []table.Symbol, compares pattern.Func, path bool, resting *pace.Pace) *anchorIndex {
	anchorsOf := compares.Anchors
	if path {
		anchorsOf = compares.PathAnchors
	}
	cuts := len(compares.Reads([]byte("?"))) == 0
	x := &anchorIndex{keysOf: newAnchorKeys()}
	prefixes, suffixes := make([]anchorKey, len(column)), make([]anchorKey, len(column))
	// How many rows share a key, more or less.
	counts := make([]uint32, 1<<min(20, bits.Len(uint(len(column)))+1))
	count := func(key anchorKey) *uint32 { return &counts[int(key)&(len(counts)-1)] }
	for row, s := range pace.Over(resting, column) {
		if row > 0 && s == column[row-1] {
			prefixes[row], suffixes[row] = prefixes[row-1], suffixes[row-1]
		} else {
			prefixes[row], suffixes[row] = x.keysOf.add(anchorsOf(syms.Text(s)), cuts)
		}
		*count(prefixes[row])++
		if suffixes[row] != prefixes[row] {
			*count(suffixes[row])++
		}
	}
	x.shift = 32
	for x.shift > 8 && 1<<(32-x.shift) < len(column) {
		x.shift--
	}
	x.begin = make([]uint32, 1<<(32-x.shift)+1)
	x.keys, x.rows = prefixes, make([]uint32, len(column)) // a prefix has done its work once the key is chosen
	for row, key := range pace.Over(resting, prefixes) {
		if key == 0 || suffixes[row] != 0 && *count(suffixes[row]) < *count(key) {
			x.keys[row] = suffixes[row]
		}
		x.begin[x.keys[row]>>x.shift+1]++
	}
	for i := range x.begin[1:] {
		x.begin[i+1] += x.begin[i]
	}
	x.sort(resting)
	x.present = make([]uint64, max(1, len(x.begin)/8)) // eight bits a row
	for _, key := range x.keys {
		word, bit := x.presence(key)
		*word |= bit
	}
	return x
}

// sort puts the keys into order, which are those of the rows in the rows' order, with
// the rows beside them: first by their upper bits, which begin tells the places of.
func (x *anchorIndex) sort(resting *pace.Pace) {
	pairs, next := make([]uint64, len(x.keys)), slices.Clone(x.begin)
	for row, key := range pace.Over(resting, x.keys) {
		place := &next[key>>x.shift]
		pairs[*place] = uint64(key)<<32 | uint64(row)
		*place++
	}
	for h := range len(x.begin) - 1 {
		slices.Sort(pairs[x.begin[h]:x.begin[h+1]])
		resting.Step()
	}
	for i, pair := range pairs {
		x.keys[i], x.rows[i] = anchorKey(pair>>32), uint32(pair)
	}
}

func (x *anchorIndex) presence(key anchorKey) (word *uint64, bit uint64) {
	return &x.present[int(key>>6)&(len(x.present)-1)], 1 << (key & 63)
}

// find returns the rows of a key.
func (x *anchorIndex) find(key anchorKey) []uint32 {
	lo, hi := int(x.begin[key>>x.shift]), int(x.begin[key>>x.shift+1])
	from, to := equalRange(x.keys[lo:hi], key)
	return x.rows[lo+from : lo+to]
}

// equalRange returns where a key begins and ends among ascending ones.
func equalRange(keys []anchorKey, key anchorKey) (from, to int) {
	from, _ = slices.BinarySearch(keys, key)
	for to = from; to < len(keys) && keys[to] == key; to++ {
		if to-from == 8 { // a long one
			rest := sort.Search(len(keys)-to, func(i int) bool { return keys[to+i] > key })
			return from, to + rest
		}
	}
	return from, to
}

// A valueIndex finds rows by the value of a field.
type valueIndex struct {
	First []uint32 // the rows of a symbol are rows[first[s]:first[s+1]]
	Rows  []uint32
	// keys are those of the rows under anchors, ascending within a value; nil
	// where there are none, and then the rows ascend.
	keys    []anchorKey
	anchors *anchorIndex
}

func newValueIndex(values int, column []table.Symbol, anchors *anchorIndex, resting *pace.Pace) *valueIndex {
	x := &valueIndex{First: make([]uint32, values+1), Rows: make([]uint32, len(column)), anchors: anchors}
	for _, value := range column {
		x.First[value+1]++
	}
	for i := range values {
		x.First[i+1] += x.First[i]
	}
	if anchors != nil {
		x.keys = make([]anchorKey, len(column))
	}
	// Whoever takes rows in the order of their keys puts them in that order.
	for i := range pace.Over(resting, column) {
		row := uint32(i)
		if anchors != nil {
			row = anchors.rows[i]
		}
		place := &x.First[column[row]]
		x.Rows[*place] = row
		if anchors != nil {
			x.keys[*place] = anchors.keys[i]
		}
		*place++
	}
	copy(x.First[1:], x.First) // each has moved on to where the next began
	x.First[0] = 0
	return x
}

// size returns how many rows have a value.
func (x *valueIndex) size(value table.Symbol) int { return int(x.First[value+1] - x.First[value]) }

// find appends the rows with a value and one of the keys. Without keys it appends
// all with that value. Where there are more than searchFrom rows for each key it
// searches them, otherwise it looks at each.
func (x *valueIndex) find(value table.Symbol, keys *keySet, rows []uint32, searchFrom int) []uint32 {
	lo, hi := x.First[value], x.First[value+1]
	if len(keys.keys) == 0 {
		return append(rows, x.Rows[lo:hi]...)
	}
	have := x.keys[lo:hi]
	if len(have) <= searchFrom*len(keys.keys) {
		for i, k := range have {
			if keys.has(k) {
				rows = append(rows, x.Rows[int(lo)+i])
			}
		}
		return rows
	}
	for _, key := range keys.keys {
		from, to := equalRange(have, key)
		rows = append(rows, x.Rows[int(lo)+from:int(lo)+to]...)
		have, lo = have[to:], lo+uint32(to)
	}
	return rows
}

// A keySet is the keys of a text.
type keySet struct {
	keys   []anchorKey // ascending
	filter [4]uint64   // a bit for each key, which others may share
	all    []anchorKey // what was added
}

func (s *keySet) reset() { s.keys = s.keys[:0] }

// begin makes s the key that asks nothing, to which those of a text are added.
func (s *keySet) begin() { s.all = append(s.all[:0], 0) }

// add notes the keys of a side that hold for a text, for settle.
func (s *keySet) add(x *anchorIndex, side *anchorSide, text []byte) {
	s.all = x.keysOf.of(side, text, s.all)
}

// settle makes s the keys that were added, but for most of those that no row has.
func (s *keySet) settle(x *anchorIndex) {
	s.keys, s.filter = s.keys[:0], [4]uint64{}
	for _, k := range s.all {
		if word, bit := x.presence(k); *word&bit != 0 {
			s.keys = append(s.keys, k)
			s.filter[k>>6&3] |= 1 << (k & 63)
		}
	}
	slices.Sort(s.keys)
	s.keys = slices.Compact(s.keys)
}

func (s *keySet) has(key anchorKey) bool {
	if s.filter[key>>6&3]>>(key&63)&1 == 0 {
		return false
	}
	_, ok := slices.BinarySearch(s.keys, key)
	return ok
}
