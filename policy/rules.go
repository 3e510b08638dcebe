package policy

// A symbol is the number of an interned string. Policies repeat themselves:
// a subject, a role or an action is stored once and compared by its number.
type symbol uint32

// symbols interns strings. It is filled while a policy loads and only read
// afterwards.
type symbols struct {
	ids   map[string]symbol
	texts []string
}

func newSymbols() *symbols { return &symbols{ids: make(map[string]symbol)} }

// intern returns the symbol of text, which it keeps.
func (s *symbols) intern(text string) symbol {
	if id, ok := s.ids[text]; ok {
		return id
	}
	id := symbol(len(s.texts))
	s.ids[text] = id
	s.texts = append(s.texts, text)
	return id
}

// lookup returns the symbol of text, if the policy has it.
func (s *symbols) lookup(text string) (symbol, bool) {
	id, ok := s.ids[text]
	return id, ok
}

func (s *symbols) text(id symbol) string { return s.texts[id] }

// rules are the p lines of one policy in the order in which they are
// evaluated: the file's, or that of their priorities. Values are kept by
// column, as symbols, so that a million lines fit in tens of megabytes.
type rules struct {
	cols  [][]symbol // cols[field][row]; the fields are model.policyFields
	lines []uint32   // lines[row] is the line in the policy file, from 1
}

func (r *rules) len() int { return len(r.lines) }

// A roleLink is one g line: name has role, in a domain where the definition
// has one (the symbol of "" otherwise).
type roleLink struct {
	name, role, domain symbol
	line               uint32
}
