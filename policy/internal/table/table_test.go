package table

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"securefiles/policy/internal/world"

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

// A table of some rows has these, with their lines, and the roles of all.
func TestSelectedRows(t *testing.T) {
	tab, _ := load(t, world.Model(t, "default"), "p, alice, /a, read, allow\np, bob, /b, read, allow\np, carol, /c, read, allow\ng, dave, alice\n")
	some := tab.Select(func(row int) bool { return row != 1 })
	if got := some.Symbols.Text(some.Rows.Cols[0][0]) + " " + some.Symbols.Text(some.Rows.Cols[0][1]); some.Rows.Len() != 2 || got != "alice carol" || len(some.Edges["g"]) != 1 {
		t.Errorf("%d rows: %s", some.Rows.Len(), got)
	}
	if diff := cmp.Diff([]uint32{1, 3}, some.Rows.Lines); diff != "" {
		t.Error(diff)
	}
	if none := tab.Select(func(int) bool { return false }); none.Rows.Len() != 0 || len(none.Rows.Cols) != len(tab.Rows.Cols) {
		t.Errorf("none: %+v", none.Rows)
	}
}

// A set forgets what it held, however often it has been cleared, and finds a place
// wherever there is one.
func TestSetsThatWereClearedAndSetsThatAreFull(t *testing.T) {
	s := Set{round: 1<<32 - 1}
	s.Add(6)
	if !s.Has(6) || s.Has(0) {
		t.Error("6 is not there, or 0 is")
	}
	if s.Clear(); s.Has(6) || s.Has(0) {
		t.Errorf("after it was cleared: 6 %t, 0 %t", s.Has(6), s.Has(0))
	}
	s = Set{}
	var even []Symbol // of places that are even, where there are 64
	for name := Symbol(0); len(even) < 33; name++ {
		if int(uint32(name)*0x9e3779b1>>7)&63%2 == 0 {
			even = append(even, name)
		}
	}
	for _, name := range even[:32] {
		s.Add(name)
	}
	if len(s.slots) != 64 || s.Has(even[32]) || !s.Has(even[31]) {
		t.Errorf("%d places", len(s.slots))
	}
}

// Names that lead in a circle are reached once.
func TestReachInACircle(t *testing.T) {
	if diff := cmp.Diff([]bool{true, true, false, true}, Reach([]int32{0}, []int32{0, 1, 3, 2}, []int32{1, 3, 0, 1}, 4)); diff != "" {
		t.Error(diff)
	}
}
