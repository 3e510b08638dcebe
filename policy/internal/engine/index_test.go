package engine

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"securefiles/policy/internal/pattern"
	"securefiles/policy/internal/table"
	"securefiles/policy/internal/world"

	"pgregory.net/rapid"
)

// fill makes s the keys of a text in which no name is looked for.
func (s *keySet) fill(x *anchorIndex, f pattern.Func, text string) {
	s.begin()
	for i := range x.keysOf.sides[:2] {
		s.add(x, &x.keysOf.sides[i], f.Reads([]byte(text)))
	}
	s.settle(x)
}

// found reports whether the index finds the pattern for the text.
func found(function, text, of string) bool {
	syms := table.NewSymbols()
	f := named(function)
	x := newAnchorIndex(syms, []table.Symbol{syms.Intern(of)}, f, false, nil)
	var keys keySet
	keys.fill(x, f, text)
	for _, key := range keys.keys {
		if keys.has(key) && len(x.find(key)) > 0 {
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
		x := newAnchorIndex(syms, column, named(function), false, nil)
		for range 5 {
			text := world.DrawPath(t)
			var rows []uint32
			var keys keySet
			keys.fill(x, named(function), text)
			for _, k := range keys.keys {
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

// Of a thousand rows a text asks few, and each place that keys are looked up in
// holds few of them.
func TestAnchorIndexLeavesOutWhatNoRowHas(t *testing.T) {
	for _, rows := range []int{1, 2, 3, 4, 5, 64, 65, 1000} {
		syms := table.NewSymbols()
		var column []table.Symbol
		for i := range rows { // as many lengths as rows, up to a hundred
			column = append(column, syms.Intern(fmt.Sprintf("/%s-%d-/**", strings.Repeat("a", i%100), i)))
		}
		x := newAnchorIndex(syms, column, named("globMatch"), false, nil)
		if places := len(x.begin) - 1; places < rows || places >= 2*max(1, rows) {
			t.Errorf("%d rows: %d places", rows, places)
		}
		if bits := 64 * len(x.present); bits < 4*rows || bits > max(64, 16*rows) {
			t.Errorf("%d rows: %d bits", rows, bits)
		}
		var keys keySet
		keys.fill(x, named("globMatch"), "/"+strings.Repeat("b", 200))
		if all := len(keys.all); len(keys.keys) > 1+all/3 {
			t.Errorf("%d rows: %d of %d keys are left", rows, len(keys.keys), all)
		}
		for i := range rows {
			keys.fill(x, named("globMatch"), fmt.Sprintf("/%s-%d-/x", strings.Repeat("a", i%100), i))
			found := 0
			for _, k := range keys.keys {
				found += len(x.find(k))
			}
			if found != 1 {
				t.Fatalf("%d rows: row %d is one of %d", rows, i, found)
			}
		}
	}
}

// Rows of each value are found, the first value and the last among them.
func TestValueIndex(t *testing.T) {
	column := []table.Symbol{3, 0, 2, 0, 3}
	x := newValueIndex(4, column, nil, nil)
	for value, want := range [][]uint32{{1, 3}, {}, {2}, {0, 4}} {
		got := x.find(table.Symbol(value), &keySet{}, nil, 0)
		if !slices.Equal(got, want) || x.size(table.Symbol(value)) != len(want) {
			t.Errorf("value %d: %v, size %d, not %v", value, got, x.size(table.Symbol(value)), want)
		}
	}
}
