package identity

import (
	"iter"
	"maps"
	"slices"
)

// Users yields the users of the file in the order of their names, each with its
// line.
func (b *Basic) Users() iter.Seq2[string, int] {
	return func(yield func(string, int) bool) {
		u := b.users.Load()
		if u == nil {
			return
		}
		for _, name := range slices.Sorted(maps.Keys(u.accounts)) {
			if !yield(name, u.accounts[name].line) {
				return
			}
		}
	}
}
