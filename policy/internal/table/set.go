package table

// A Set is a set of symbols that is cleared at no cost. Its memory is that of the
// largest set that it held.
type Set struct {
	slots []uint64 // the round in the upper half, the symbol in the lower
	round uint32
	used  int
}

// Clear empties the set.
func (s *Set) Clear() {
	s.used = 0
	if s.round++; s.round == 0 {
		clear(s.slots)
		s.round = 1
	}
}

// slot returns the slot that holds a symbol, or would.
func (s *Set) slot(name Symbol) int {
	mask := len(s.slots) - 1
	i := int(uint32(name)*0x9e3779b1>>7) & mask
	for s.slots[i]>>32 == uint64(s.round) && uint32(s.slots[i]) != uint32(name) {
		i = (i + 1) & mask
	}
	return i
}

// Add reports whether the symbol was not there before.
func (s *Set) Add(name Symbol) bool {
	if 2*(s.used+1) > len(s.slots) {
		s.round = max(s.round, 1)
		old := s.slots
		s.slots = make([]uint64, max(64, 2*len(old)))
		for _, slot := range old {
			if slot>>32 == uint64(s.round) {
				s.slots[s.slot(Symbol(slot))] = slot
			}
		}
	}
	slot, entry := &s.slots[s.slot(name)], uint64(s.round)<<32|uint64(name)
	if *slot == entry {
		return false
	}
	*slot = entry
	s.used++
	return true
}

// Has reports whether the symbol is there.
func (s *Set) Has(name Symbol) bool {
	return len(s.slots) > 0 && s.slots[s.slot(name)] == uint64(s.round)<<32|uint64(name)
}
