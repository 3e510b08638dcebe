package table

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestSymbols(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	syms, want := NewSymbols(), map[string]Symbol{}
	if _, ok := syms.Lookup(""); ok {
		t.Error("an empty table knows a text")
	}
	for range 20_000 {
		text := fmt.Sprint(random.IntN(5_000))
		if text == "0" {
			text = ""
		}
		id := syms.Intern(text)
		if known, ok := want[text]; ok && known != id {
			t.Fatalf("%q is %d, was %d", text, id, known)
		}
		want[text] = id
	}
	if syms.Len() != len(want) {
		t.Errorf("%d symbols for %d texts", syms.Len(), len(want))
	}
	for text, id := range want {
		if got, ok := syms.Lookup(text); !ok || got != id || syms.Text(id) != text {
			t.Errorf("%q: %d, %t, %q", text, got, ok, syms.Text(id))
		}
	}
	if _, ok := syms.Lookup("never seen"); ok {
		t.Error("a text that was never seen is found")
	}
}

// Entries with the same hash are told apart by what they hold.
func TestHashTableSurvivesCollisions(t *testing.T) {
	var table hashTable
	for id := range uint32(100) {
		table.insert(7, id)
	}
	for id := range uint32(100) {
		if got, ok := table.find(7, func(other uint32) bool { return other == id }); !ok || got != id {
			t.Errorf("entry %d: %d, %t", id, got, ok)
		}
	}
	if _, ok := table.find(8, func(uint32) bool { return true }); ok {
		t.Error("another hash finds an entry")
	}
}

func TestReorder(t *testing.T) {
	r := &Rows{Cols: [][]Symbol{{10, 11, 12}, {20, 21, 22}}, Lines: []uint32{1, 2, 3}}
	r.reorder([]int{2, 0, 1})
	if diff := cmp.Diff([][]Symbol{{12, 10, 11}, {22, 20, 21}}, r.Cols); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]uint32{3, 1, 2}, r.Lines); diff != "" {
		t.Error(diff)
	}
}
