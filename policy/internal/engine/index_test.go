package engine

import (
	"slices"
	"testing"

	"securefiles/policy/internal/table"
	"securefiles/policy/internal/world"

	"pgregory.net/rapid"
)

// found reports whether the index finds the pattern for the text.
func found(function, text, pattern string) bool {
	syms := table.NewSymbols()
	f := named(function)
	x := newAnchorIndex(syms, []table.Symbol{syms.Intern(pattern)}, f, false)
	for _, key := range x.keysOf.of(f.Reads(text), nil) {
		if len(x.find(key)) > 0 {
			return true
		}
	}
	return false
}

// Whatever share of patterns a key stands for, a text finds all that it could
// match among many.
func TestAnchorIndexOfManyPatterns(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		function := rapid.SampledFrom(indexedFunctions()).Draw(t, "function")
		syms := table.NewSymbols()
		var column []table.Symbol
		var patterns []string
		for range rapid.IntRange(1, 60).Draw(t, "patterns") {
			p := world.DrawPattern(t, function+"(r.obj")
			if compilable(function, p) {
				patterns = append(patterns, p)
				column = append(column, syms.Intern(p))
			}
		}
		if len(column) == 0 {
			return
		}
		x := newAnchorIndex(syms, column, named(function), false)
		for range 5 {
			text := world.DrawPath(t)
			var rows []uint32
			for _, k := range x.keysOf.of(named(function).Reads(text), nil) {
				rows = append(rows, x.find(k)...)
			}
			for row, p := range patterns {
				if stockMatch(function, text, p) && !slices.Contains(rows, uint32(row)) {
					t.Fatalf("%s(%q, %q) matches and is not found among %d", function, text, p, len(patterns))
				}
			}
		}
	})
}

// Whatever the key, all that are equal to it are found, and no others.
func TestEqualRange(t *testing.T) {
	for _, key := range []anchorKey{0, 1, 7, 1<<32 - 2, 1<<32 - 1} {
		for _, run := range []int{0, 1, 8, 9, 30} {
			var keys []anchorKey
			if key > 0 {
				keys = append(keys, key-1, key-1)
			}
			want := len(keys)
			keys = append(keys, slices.Repeat([]anchorKey{key}, run)...)
			if key < 1<<32-1 {
				keys = append(keys, key+1)
			}
			if from, to := equalRange(keys, key); from != want || to != want+run {
				t.Errorf("%d of key %d: from %d to %d, not from %d", run, key, from, to, want)
			}
		}
	}
}
