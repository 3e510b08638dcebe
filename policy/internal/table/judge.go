package table

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"securefiles/policy/internal/finding"
	"securefiles/policy/internal/model"

	"golang.org/x/text/unicode/norm"
)

// A doubt is about a line that hardly says what was meant. Whether it keeps the
// policy from being served is decided by what the line could let in: one that
// allows less than it was meant to only locks out.
type doubt struct {
	line, column  int
	field         int // 1 is the first after the type; 0 is any
	rule, message string
}

// doubt is about the line that is being read.
func (l *loader) doubt(column, field int, rule, format string, args ...any) {
	l.doubts = append(l.doubts, doubt{int(l.number), column, field, rule, fmt.Sprintf(format, args...)})
}

// judge reports a doubt.
func (l *loader) judge(d doubt, letsIn bool) {
	if letsIn {
		l.Judge(d.line, d.column, d.rule, "%s", d.message)
		return
	}
	l.Add(finding.SeverityWarning, d.line, d.column, d.rule, "%s", d.message)
}

// judgeRow reports what is doubtful about a p line. One that allows lets in no more
// for being about nobody and nothing, as long as the matcher only asks for more by
// asking for it.
func (l *loader) judgeRow(fields [][]byte) {
	if len(l.doubts) == 0 {
		return
	}
	allows := l.eft < 0 || bytes.HasPrefix(bytes.ToLower(bytes.TrimSpace(fields[l.eft])), []byte("allow"))
	for _, d := range l.doubts {
		narrows := true
		for column := range fields {
			if d.field == 0 || d.field == column+1 {
				narrows = narrows && l.model.OnlyNarrows(column, d.rule == "empty")
			}
		}
		l.judge(d, !allows || !narrows)
	}
}

// A roleDoubt is about a g line. It is decided when all lines are known: which
// roles take access away.
type roleDoubt struct {
	doubt
	kind string
	edge Edge
	// unasked says that the matcher never asks for a role of the kind.
	unasked bool
}

// judgeEdge keeps what is doubtful about a g line.
func (l *loader) judgeEdge(kind string, edge Edge) {
	for _, d := range l.doubts {
		l.doubtful = append(l.doubtful, roleDoubt{d, kind, edge, false})
	}
}

// judgeRoles looks for roles that are given and then used by nothing: a misspelt
// role, a line with its names the wrong way round, or one whose last p line is
// gone. Somebody who lacks a role has less, unless it is one that takes access away.
func (l *loader) judgeRoles() {
	l.doubtful = append(l.doubtful, l.unusedRoles()...)
	if len(l.doubtful) == 0 {
		return
	}
	taking, told := NewTaking(l.model, l.out), map[string]bool{}
	type roleKey struct {
		kind string
		role Symbol
	}
	meant := map[roleKey]string{}
	roles := map[string]map[Symbol][]Symbol{} // of a name, by their kind
	for _, d := range l.doubtful {
		if roles[d.kind] == nil {
			roles[d.kind] = map[Symbol][]Symbol{}
			for _, e := range l.out.Edges[d.kind] {
				roles[d.kind][e.Name] = append(roles[d.kind][e.Name], e.Role)
			}
		}
		key := roleKey{d.kind, d.edge.Role}
		taken, known := meant[key]
		if !known {
			taken = taking.meant(d.edge.Role, roles[d.kind])
			meant[key] = taken
		}
		switch {
		case d.unasked && taken == "" && told[d.kind]:
			continue // it is the same with all of them
		case taken != "" && d.unasked:
			d.message += fmt.Sprintf("; %q takes access away", finding.Shorten(taken))
		case taken != "" && d.rule == "role-unused":
			d.message = strings.TrimSuffix(d.message, "?") + fmt.Sprintf(", or is it meant for %q, which takes access away?", finding.Shorten(taken))
		}
		told[d.kind] = told[d.kind] || d.unasked
		l.judge(d.doubt, taken != "")
	}
}

// unusedRoles returns the g lines that give a role which nothing uses.
func (l *loader) unusedRoles() []roleDoubt {
	if l.model.Evaluates || l.model.Effect == model.SubjectPriority {
		return nil // a rule may name any role, and a role may be there for its rank alone
	}
	used := make([]bool, l.out.Symbols.Len())
	for _, col := range l.out.Rows.Cols {
		for _, s := range col {
			used[s] = true
		}
	}
	for _, text := range l.model.Texts {
		if s, ok := l.out.Symbols.Lookup(text); ok {
			used[s] = true
		}
	}
	doubtful := map[uint32]bool{} // lines of which something is told already
	for _, d := range l.doubtful {
		doubtful[d.edge.Line] = true
	}
	var unused []roleDoubt
	for _, kind := range slices.Sorted(maps.Keys(l.model.Roles)) {
		asked, named := l.model.RolesAsked(kind)
		if asked && !named {
			continue // a request may ask for any
		}
		passedOn := make([]bool, l.out.Symbols.Len())
		for _, edge := range l.out.Edges[kind] {
			passedOn[edge.Name] = true
		}
		for _, edge := range l.out.Edges[kind] {
			d := roleDoubt{doubt{line: int(edge.Line), rule: "role-unused"}, kind, edge, !asked}
			switch {
			case !asked:
				d.message = fmt.Sprintf("the matcher never asks %s(…), so this line and its like do nothing: ask it, or remove them", kind)
			case used[edge.Role] || passedOn[edge.Role] || doubtful[edge.Line]:
				continue
			default:
				d.message = fmt.Sprintf("no line uses the role %q, so this one grants nothing: is it misspelt, or are the two names the wrong way round?", finding.Shorten(l.out.Symbols.Text(edge.Role)))
			}
			unused = append(unused, d)
		}
	}
	return unused
}

// denies reports whether a row denies.
func (l *loader) denies(row int) bool {
	return l.eft >= 0 && l.out.Symbols.Text(l.out.Rows.Cols[l.eft][row]) == "deny"
}

// A Taking is the names of which whoever has them may have less: those that a line
// denies something to, and those that the matcher may ask nobody to have.
type Taking struct {
	symbols *Symbols
	names   map[Symbol]bool
	sorted  []Symbol
	looks   map[string]Symbol // the names, without what is hardly seen
	budget  int               // of comparisons letter by letter
}

const likeBudget = 1 << 24

// NewTaking returns the names of a policy that take something away.
func NewTaking(m *model.Model, t *Table) *Taking {
	k := &Taking{symbols: t.Symbols, names: map[Symbol]bool{}, looks: map[string]Symbol{}, budget: likeBudget}
	eft := m.PolicyField("eft")
	for _, c := range m.RoleColumns() {
		for row, name := range t.Rows.Cols[c.Column] {
			if c.MayTake || eft >= 0 && t.Symbols.Text(t.Rows.Cols[eft][row]) == "deny" {
				k.names[name] = true
			}
		}
	}
	for _, text := range m.TakingRoles() {
		k.names[t.Symbols.Intern(text)] = true
	}
	k.sorted = slices.Sorted(maps.Keys(k.names))
	for _, name := range k.sorted {
		k.looks[looks(t.Symbols.Text(name))] = name
	}
	return k
}

// meant returns a name that takes something away and that a role may be meant for,
// or leads to. Of a role that nothing uses nobody knows whether it is the wrong way
// round, or what is left of one whose last line is gone.
func (k *Taking) meant(role Symbol, roles map[Symbol][]Symbol) string {
	seen, next := map[Symbol]bool{role: true}, []Symbol{role}
	for len(next) > 0 && len(k.names) > 0 {
		name := next[0]
		next = next[1:]
		if k.names[name] {
			return k.symbols.Text(name)
		}
		for _, role := range roles[name] {
			if !seen[role] {
				seen[role] = true
				next = append(next, role)
			}
		}
	}
	if name, ok := k.Like(role); ok {
		return k.symbols.Text(name)
	}
	return ""
}

// Like returns a name that takes something away and differs from a role by case,
// accents, blanks and the like, or by one letter. Names with digits are numbered
// more often than misspelt.
func (k *Taking) Like(role Symbol) (name Symbol, ok bool) {
	text := k.symbols.Text(role)
	if name, ok = k.looks[looks(text)]; ok && name != role {
		return name, true
	}
	if len(text) < minLike || strings.ContainsFunc(text, unicode.IsDigit) {
		return 0, false
	}
	for _, name := range k.sorted {
		if k.budget--; k.budget < 0 {
			return 0, false
		}
		if other := k.symbols.Text(name); name != role && len(other) >= minLike && OneEdit(text, other) {
			return name, true
		}
	}
	return 0, false
}

// minLike is how long names are that differ by a letter by mistake: shorter ones
// do easily.
const minLike = 4

// looks is Fold without blanks, quotes and a comment around.
func looks(name string) string {
	name, _, _ = strings.Cut(strings.ReplaceAll(name, "\t", " "), " #")
	return Fold(strings.Trim(strings.TrimSpace(name), `'"`))
}

// Fold returns what names that look alike share.
func Fold(name string) string {
	if strings.IndexFunc(name, func(r rune) bool { return r >= utf8.RuneSelf || 'A' <= r && r <= 'Z' }) < 0 {
		return name
	}
	return strings.ToLower(norm.NFKC.String(name))
}

// OneEdit reports whether two names become the same when one letter is changed,
// added, removed or swapped with the next.
func OneEdit(a, b string) bool {
	if d := len(a) - len(b); d > utf8.UTFMax || -d > utf8.UTFMax {
		return false
	}
	x, y := []rune(a), []rune(b)
	for len(x) > 0 && len(y) > 0 && x[0] == y[0] {
		x, y = x[1:], y[1:]
	}
	for len(x) > 0 && len(y) > 0 && x[len(x)-1] == y[len(y)-1] {
		x, y = x[:len(x)-1], y[:len(y)-1]
	}
	return len(x) <= 1 && len(y) <= 1 || len(x) == 2 && len(y) == 2 && x[0] == y[1] && x[1] == y[0]
}
