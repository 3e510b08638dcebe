package identity

import (
	"reflect"
	"slices"
)

// Follow has sources that were just made go on from those that they are to take the
// place of: one that is configured as before is the same one, with whom it remembers,
// and keys that were loaded from where others are configured serve until they are
// asked for again. What is configured in another way has forgotten everything. The
// earlier ones go on as they are; [Sources.Share] is to be called again once they have
// ended. It returns those of them that have no part in these.
func (s Sources) Follow(earlier Sources) (gone Sources) {
	var taken []int
	for i, source := range s {
		at := slices.IndexFunc(earlier, func(e *Source) bool { return e.options != nil && reflect.DeepEqual(e.options, source.options) })
		if at >= 0 && !slices.Contains(taken, at) {
			same := *earlier[at]
			same.Prefix = source.Prefix
			s[i], taken = &same, append(taken, at)
			continue
		}
		if source.keys == nil || source.Reload == nil { // others load its keys
			continue
		}
		at = slices.IndexFunc(earlier, func(e *Source) bool { return e.keys != nil && e.keys.SameSource(source.keys) })
		if at >= 0 {
			source.keys.follow(earlier[at].keys)
		}
	}
	for i, e := range earlier {
		if !slices.Contains(taken, i) {
			gone = append(gone, e)
		}
	}
	return gone
}

// End gives back what sources hold that nobody asks any more.
func (s Sources) End() {
	for _, source := range s {
		if source.end != nil {
			source.end()
		}
	}
}

// follow takes over what was loaded from the same place, as it was confirmed there.
func (k *Keys) follow(earlier *Keys) {
	earlier.mu.Lock()
	defer earlier.mu.Unlock()
	k.mu.Lock()
	defer k.mu.Unlock()
	k.set.Store(earlier.set.Load())
	k.confirmed.Store(earlier.confirmed.Load())
	k.err, k.unknown = earlier.err, earlier.unknown
}
