package engine

import (
	"hash/maphash"
	"unicode/utf8"

	"securefiles/policy/internal/pattern"
)

// An anchorKey stands for an anchor of a pattern: its side, its wild characters
// and its text, hashed. Two anchors may share a key, which costs time alone: a
// key only says which patterns could match. The zero key asks nothing.
type anchorKey uint32

// Limits of an anchor, in characters. What is longer is cut short.
const (
	maxAnchor  = 128
	maxMasks   = 8  // sets of wild characters a side
	maskedBits = 64 // wild characters are known by one bit each
)

// anchorKeys makes keys of patterns while a policy loads, and afterwards finds
// the keys of all patterns that could match a text.
type anchorKeys struct {
	seed   maphash.Seed
	sides  []anchorSide // those without names first: prefixes, suffixes
	buffer []byte       // an anchor that is added
}

// An anchorSide is the anchors at one end that have names in the same places. They
// are looked up in paths with marks in these places alone.
type anchorSide struct {
	namePlaces
	masks []anchorMask
	exact bool // one is of a whole path
}

// An anchorMask is a set of places in an anchor, counted from its outer end, that
// hold a wild character, and the lengths that occur with it.
type anchorMask struct {
	places  uint64
	lengths [maxAnchor/64 + 1]uint64 // a bit for each
	longest int
}

// The seeds keep equal texts of different kinds apart.
const (
	prefixSeed = 0x9ae16a3b2f90404f
	suffixSeed = 0xc949d7c7509e6557
)

// hashByte is a step of FNV-1a.
func hashByte(hash uint64, c byte) uint64 { return (hash ^ uint64(c)) * 0x100000001b3 }

// finish spreads a hash over a key, which is not zero.
func finish(hash, places uint64) anchorKey {
	hash ^= places * 0x9e3779b97f4a7c15
	hash ^= hash >> 33
	hash *= 0xff51afd7ed558ccd
	hash ^= hash >> 33
	return anchorKey(max(uint32(hash>>16), 1))
}

func newAnchorKeys() anchorKeys {
	return anchorKeys{seed: maphash.MakeSeed(), sides: []anchorSide{{}, {namePlaces: namePlaces{fromEnd: true}}}}
}

func (k *anchorKeys) exact(text []byte) anchorKey {
	return finish(maphash.Bytes(k.seed, text), 0)
}

// add returns the keys of a pattern's anchors. It takes part in loading only. Where
// the function cuts a path, no name is counted from its end.
func (k *anchorKeys) add(a pattern.Anchors, cuts bool) (prefix, suffix anchorKey) {
	side, text := k.side(a.Prefix, false, maxNamesInAnchor)
	if a.Exact && len(text) == len(a.Prefix) {
		side.exact = true
		key := k.exact(text)
		return key, key
	}
	prefix = addAnchor(&side.masks, text, true)
	names := maxNamesInAnchor
	if cuts {
		names = 0
	}
	side, text = k.side(a.Suffix, true, names)
	return prefix, addAnchor(&side.masks, text, false)
}

// take splits the outermost character off a text; AnyRune is one, as any byte is
// that is not valid.
func take(text []byte, forward bool) (character, rest []byte) {
	if forward {
		_, size := utf8.DecodeRune(text)
		return text[:size], text[size:]
	}
	_, size := utf8.DecodeLastRune(text)
	return text[len(text)-size:], text[:len(text)-size]
}

func sideSeed(forward bool) uint64 {
	if forward {
		return prefixSeed
	}
	return suffixSeed
}

func addAnchor(masks *[]anchorMask, text []byte, forward bool) anchorKey {
	// First the places of the wild characters, and how much of the text counts.
	var places uint64
	length, plain, end := 0, -1, -1
	for rest := text; len(rest) > 0 && length < maxAnchor; length++ {
		var c []byte
		c, rest = take(rest, forward)
		if c[0] != pattern.AnyRune {
			end = length + 1 // an anchor does not end with a wild character
			continue
		}
		if length >= maskedBits {
			break
		}
		if plain < 0 {
			plain = length
		}
		places |= 1 << length
	}
	length = max(end, 0)
	places &= 1<<length - 1 // all of them where it is longer than there are bits
	mask := findMask(masks, places)
	if mask == nil { // too many sets: what stands before the first wild character must do
		length, places = plain, 0
		mask = findMask(masks, 0)
	}
	if length <= 0 {
		return 0
	}
	mask.lengths[length/64] |= 1 << (length % 64)
	mask.longest = max(mask.longest, length)
	hash, rest := sideSeed(forward), text
	for i := range length {
		var c []byte
		c, rest = take(rest, forward)
		hash = hashCharacter(hash, c, places, i)
	}
	return finish(hash, places)
}

// hashCharacter adds the character at a place; a wild one is the same whatever
// stands there.
func hashCharacter(hash uint64, c []byte, places uint64, place int) uint64 {
	if places>>place&1 == 1 {
		return hashByte(hash, pattern.AnyRune)
	}
	for i := range len(c) {
		hash = hashByte(hash, c[i])
	}
	return hash
}

// findMask returns the mask of a set of places, or makes one; it is nil where
// there are too many. The empty set always has its place.
func findMask(masks *[]anchorMask, places uint64) *anchorMask {
	for i := range *masks {
		if (*masks)[i].places == places {
			return &(*masks)[i]
		}
	}
	if len(*masks) > maxMasks || len(*masks) == maxMasks && places != 0 {
		return nil
	}
	*masks = append(*masks, anchorMask{places: places})
	return &(*masks)[len(*masks)-1]
}

// of appends the keys of all anchors of a side that hold for a text, in no order.
func (k *anchorKeys) of(side *anchorSide, text []byte, keys []anchorKey) []anchorKey {
	if side.exact {
		keys = append(keys, k.exact(text))
	}
	forward := !side.fromEnd
	for i := range side.masks {
		mask := &side.masks[i]
		hash, rest := sideSeed(forward), text
		for place := 0; place < mask.longest && len(rest) > 0; place++ {
			// Nearly every character is one byte; what take does with others
			// takes time.
			c := rest[0]
			if !forward {
				c = rest[len(rest)-1]
			}
			switch {
			case c >= utf8.RuneSelf || mask.places != 0:
				var character []byte
				character, rest = take(rest, forward)
				hash = hashCharacter(hash, character, mask.places, place)
			case forward:
				hash, rest = hashByte(hash, c), rest[1:]
			default:
				hash, rest = hashByte(hash, c), rest[:len(rest)-1]
			}
			if length := place + 1; mask.lengths[length/64]>>(length%64)&1 == 1 {
				keys = append(keys, finish(hash, mask.places))
			}
		}
	}
	return keys
}
