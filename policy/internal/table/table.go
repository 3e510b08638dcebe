// Package table holds the lines of a policy: rows of interned text, and the graph
// of its roles.
//
// [Read] reads a policy under a model and refuses, with line and remedy, whatever
// stock Casbin would read in another way than it is written.
//
// table decides nothing.
package table

import (
	"encoding/csv"
	"hash/maphash"
	"strings"
)

// Edges are the g lines, by role definition (g, g2, …).
type Edges map[string][]Edge

// A Symbol is the number of an interned string. Policies repeat themselves:
// a subject, a role or an action is stored once and compared by its number.
type Symbol uint32

// Symbols interns strings. It is filled while a policy loads and only read
// afterwards. The texts lie one after another, so that a million of them are
// two allocations and nothing for the garbage collector to follow.
type Symbols struct {
	seed  maphash.Seed
	texts strings.Builder
	ends  []uint32 // where each text ends; a policy is smaller than 4 GiB
	table hashTable
}

// NewSymbols returns an empty table of symbols.
func NewSymbols() *Symbols { return &Symbols{seed: maphash.MakeSeed()} }

// Intern returns the symbol of text, which it keeps.
func (s *Symbols) Intern(text string) Symbol { return s.internBytes([]byte(text)) }

// internBytes is intern for a text that the caller will overwrite.
func (s *Symbols) internBytes(text []byte) Symbol {
	hash := maphash.Bytes(s.seed, text)
	if id, ok := s.table.find(hash, func(id uint32) bool { return s.Text(Symbol(id)) == string(text) }); ok {
		return Symbol(id)
	}
	id := uint32(len(s.ends))
	s.texts.Write(text)
	s.ends = append(s.ends, uint32(s.texts.Len()))
	s.table.insert(hash, id)
	return Symbol(id)
}

// makeRoom makes room for as many symbols as there were in another table. It comes
// before any symbol.
func (s *Symbols) makeRoom(last *Symbols) {
	s.texts.Grow(withMore(last.texts.Len()))
	s.ends = make([]uint32, 0, withMore(last.Len()))
	s.table = newHashTable(withMore(last.Len()))
}

// withMore is how much room is made where there was need for so much: for a 32nd more.
func withMore(need int) int { return need + need/32 }

// Lookup returns the symbol of text, if the policy has it.
func (s *Symbols) Lookup(text string) (Symbol, bool) {
	id, ok := s.table.find(maphash.String(s.seed, text), func(id uint32) bool { return s.Text(Symbol(id)) == text })
	return Symbol(id), ok
}

// Text returns the text of a symbol.
func (s *Symbols) Text(id Symbol) string {
	begin := uint32(0)
	if id > 0 {
		begin = s.ends[id-1]
	}
	return s.texts.String()[begin:s.ends[id]]
}

// Len returns how many symbols there are.
func (s *Symbols) Len() int { return len(s.ends) }

// A hashTable finds entries by what they hold. It knows them by number alone:
// its user keeps them.
type hashTable struct {
	slots []slot // a power of two of them
	used  int
}

// A slot keeps half of the hash, so that few entries that differ are compared,
// and none is hashed again.
type slot struct {
	hash uint32
	id   uint32 // number + 1, or 0
}

// newHashTable returns a table with room for so many entries.
func newHashTable(room int) hashTable {
	size := 16
	for 4*room > 3*size {
		size *= 2
	}
	return hashTable{slots: make([]slot, size)}
}

// find returns the number of the entry with this hash that is the same.
func (t *hashTable) find(hash uint64, same func(id uint32) bool) (id uint32, ok bool) {
	if t.used == 0 {
		return 0, false
	}
	for i := t.first(uint32(hash)); t.slots[i].id != 0; i = t.next(i) {
		if s := t.slots[i]; s.hash == uint32(hash) && same(s.id-1) {
			return s.id - 1, true
		}
	}
	return 0, false
}

// insert adds an entry that find does not find.
func (t *hashTable) insert(hash uint64, id uint32) {
	if 4*(t.used+1) > 3*len(t.slots) {
		old := t.slots
		t.slots = make([]slot, max(16, 2*len(old)))
		for _, s := range old {
			if s.id != 0 {
				t.put(s)
			}
		}
	}
	t.put(slot{uint32(hash), id + 1})
	t.used++
}

func (t *hashTable) put(s slot) {
	i := t.first(s.hash)
	for t.slots[i].id != 0 {
		i = t.next(i)
	}
	t.slots[i] = s
}

func (t *hashTable) first(hash uint32) int { return int(hash) & (len(t.slots) - 1) }

func (t *hashTable) next(i int) int { return (i + 1) & (len(t.slots) - 1) }

// hashSymbols spreads a row's symbols over a hashTable.
func hashSymbols(row ...Symbol) uint64 {
	hash := uint64(len(row))
	for _, s := range row {
		hash = (hash ^ uint64(s)) * 0x9e3779b97f4a7c15
		hash ^= hash >> 32
	}
	return hash
}

// Rows are the p lines of one policy in the order in which they are
// evaluated: the file's, or that of their priorities. Values are kept by
// column, as symbols, so that a million lines fit in tens of megabytes.
type Rows struct {
	Cols  [][]Symbol // cols[field][row]; the fields are definition.policyFields
	Lines []uint32   // lines[row] is the line in the policy file, from 1
}

// Len returns how many rows there are.
func (r *Rows) Len() int { return len(r.Lines) }

// reorder makes row i what row order[i] was.
func (r *Rows) reorder(order []int) {
	for c, col := range r.Cols {
		next := make([]Symbol, len(col))
		for i, from := range order {
			next[i] = col[from]
		}
		r.Cols[c] = next
	}
	lines := make([]uint32, len(r.Lines))
	for i, from := range order {
		lines[i] = r.Lines[from]
	}
	r.Lines = lines
}

// Select returns a table with some of the rows.
func (t *Table) Select(keep func(row int) bool) *Table {
	rows := &Rows{Cols: make([][]Symbol, len(t.Rows.Cols))}
	for row, line := range t.Rows.Lines {
		if !keep(row) {
			continue
		}
		rows.Lines = append(rows.Lines, line)
		for c, col := range t.Rows.Cols {
			rows.Cols[c] = append(rows.Cols[c], col[row])
		}
	}
	return &Table{Symbols: t.Symbols, Rows: rows, Edges: t.Edges, Lines: t.Lines}
}

// A Edge is one g line: name has role, in a domain where the definition
// has one (the symbol of "" otherwise).
type Edge struct {
	Name, Role, Domain Symbol
	Line               uint32
	Period             uint32 // in which it has it, of the table's Periods
}

// QuoteField quotes a field of a policy line where it must be.
func QuoteField(text string) string {
	if !strings.ContainsAny(text, `",`) {
		return text
	}
	var b strings.Builder
	w := csv.NewWriter(&b)
	_ = w.Write([]string{text}) // a Builder takes everything
	w.Flush()
	return strings.TrimSuffix(b.String(), "\n")
}
