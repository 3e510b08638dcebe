package lint

import (
	"cmp"
	"hash/maphash"
	"slices"
	"strings"

	"securefiles/policy/internal/finding"
	"securefiles/policy/internal/model"
	"securefiles/policy/internal/pattern"
	"securefiles/policy/internal/table"
)

// Bounds of the search for lines that cover others. Beyond them it finds less.
const (
	maxSameKey     = 64         // lines with one key that are all looked at
	maxSameSubject = 16         // lines with one key and subject, where there are more
	maxLevels      = 64         // directories of one object
	coverBudget    = 60_000_000 // steps in all
)

// lintCover looks for lines that make no difference, because another one always
// decides when they match.
func (l *linter) lintCover() {
	if !l.model.AsksPolicy || l.table.Rows.Len() == 0 {
		return // Casbin evaluates such a matcher once, whatever the lines
	}
	if l.model.Effect == model.DenyOverride {
		for row := range l.table.Rows.Len() {
			if l.allows(row) && !l.keepsRole(row) {
				l.warn(l.table.Rows.Lines[row], 0, "no-effect", "the model allows everything that no line denies, so this line changes nothing: remove it, or give the model an effect that looks for allow")
			}
		}
	}
	s := &coverSearch{
		linter: l, sub: l.shape.Subject, obj: l.shape.Object, dom: l.shape.Domain,
		ordered: l.model.Effect == model.Priority || l.model.Effect == model.SubjectPriority,
		seed:    maphash.MakeSeed(), spans: map[uint64]span{}, budget: coverBudget, skip: map[int]bool{},
	}
	s.columns()
	s.build()
	s.search()
}

type coverSearch struct {
	*linter
	sub, obj, dom int   // columns, or -1
	ordered       bool  // the first row that matches decides
	same          []int // columns that must be equal
	period        bool  // rows have one
	stars         []int // of those, where * covers everything

	seed    maphash.Seed
	entries []coverEntry    // sorted by key, subject and row
	spans   map[uint64]span // of entries, by key
	budget  int
	skip    map[int]bool // rows that overrule all others

	entered table.Symbol // the subject whose rows are being judged
	supers  symbolSet    // the subjects whose rows hold for everybody for whom its rows do
	other   coverNode    // another subject, for first
	back    symbolSet    // supers of other
}

type coverNode struct {
	subject, domain table.Symbol
	known           bool
}

type coverEntry struct {
	key     uint64
	subject table.Symbol
	row     int32
}

// A span is a part of entries.
type span struct{ begin, end int32 }

// columns sorts the columns of p into those that the search understands and
// those that must be equal.
func (s *coverSearch) columns() {
	if s.model.Evaluates { // a rule may ask any column
		s.sub, s.obj = -1, -1
		for col := range s.model.Policy {
			s.same = append(s.same, col)
		}
		return
	}
	asked := s.shape.Asked
	// Of a column that several parts ask, * covers what one of them asks.
	s.stars = slices.DeleteFunc(slices.Clone(s.shape.Stars), func(col int) bool { return asked[col] > 1 })
	if asked[s.sub] > 1 {
		s.sub = -1
	}
	if asked[s.obj] > 1 {
		s.obj = -1
	}
	s.period = s.shape.HasPeriod
	for col := range s.model.Policy {
		if s.period && (col == s.shape.Period.Begin || col == s.shape.Period.End) {
			continue
		}
		if asked[col] > 0 && col != s.sub && col != s.obj {
			s.same = append(s.same, col)
		}
	}
}

// key is where rows are looked for by a text of their object.
func (s *coverSearch) key(kind byte, text string) uint64 {
	var h maphash.Hash
	h.SetSeed(s.seed)
	_ = h.WriteByte(kind) // never fails
	_, _ = h.WriteString(text)
	return h.Sum64()
}

// home is the key under which a row is found: its directory where it may cover
// other texts, its text otherwise.
func (s *coverSearch) home(row int) uint64 {
	if s.obj < 0 {
		return s.key('=', "")
	}
	text := s.text(s.obj, row)
	prefix, whole := s.shape.Func.Literal(text)
	switch dir, tree := strings.CutSuffix(text, "/**"); {
	case whole || !s.shape.Func.CoversOthers():
		return s.key('=', text)
	case tree && dir == prefix: // of globMatch: the directory itself, too
		return s.key('/', dir+"/")
	}
	return s.key('/', prefix[:strings.LastIndexByte(prefix, '/')+1])
}

func (s *coverSearch) build() {
	s.entries = make([]coverEntry, s.table.Rows.Len())
	for row := range s.entries {
		s.entries[row] = coverEntry{s.home(row), s.at(s.sub, row), int32(row)}
		if s.deniesEverything(row) {
			s.skip[row] = true
			s.warn(s.table.Rows.Lines[row], 0, "denies-everything", "denies every file to everybody, and the model lets a deny win over each allow: remove it, what no line allows is refused anyway")
		}
	}
	slices.SortFunc(s.entries, func(a, b coverEntry) int {
		return cmp.Or(cmp.Compare(a.key, b.key), cmp.Compare(a.subject, b.subject), cmp.Compare(a.row, b.row))
	})
	begin := 0
	for i := range s.entries {
		if i+1 == len(s.entries) || s.entries[i+1].key != s.entries[i].key {
			s.spans[s.entries[i].key] = span{int32(begin), int32(i + 1)}
			begin = i + 1
		}
	}
}

// deniesEverything reports whether a row makes every other one pointless.
func (s *coverSearch) deniesEverything(row int) bool {
	if s.model.Effect != model.AllowAndDeny || s.allows(row) || s.sub < 0 || s.obj < 0 || !s.shape.Role {
		return false
	}
	if !s.held.everybody(s.at(s.sub, row)) || s.periodOf(row) != (table.Period{}) || !s.shape.Func.CoversEverything(s.text(s.obj, row)) {
		return false
	}
	for _, col := range s.same {
		all := slices.Contains(s.stars, col) && s.text(col, row) == "*"
		reading := slices.ContainsFunc(s.shape.Actions, func(a model.ActionClause) bool { return a.Column == col && a.Accepts("read", s.text(col, row)) })
		if !all && !reading {
			return false
		}
	}
	return true
}

// search takes the rows subject by subject, so that whom a subject stands for is
// found out once.
func (s *coverSearch) search() {
	order := make([]int32, s.table.Rows.Len())
	for i := range order {
		order[i] = int32(i)
	}
	slices.SortStableFunc(order, func(a, b int32) int {
		return cmp.Or(cmp.Compare(s.at(s.sub, int(a)), s.at(s.sub, int(b))), cmp.Compare(s.at(s.dom, int(a)), s.at(s.dom, int(b))))
	})
	for i, row := range order {
		subject, domain := s.at(s.sub, int(row)), s.at(s.dom, int(row))
		if i == 0 || subject != s.entered || domain != s.at(s.dom, int(order[i-1])) {
			s.enter(subject, domain)
		}
		if by := s.decider(int(row)); by >= 0 {
			s.tell(int(row), by)
		} else {
			s.lintLevel(int(row))
		}
		if s.budget < 0 {
			s.warn(0, 0, "not-checked", "the lines are too entangled to compare all of them: whether %d of %d make a difference is not known", len(order)-i-1, len(order))
			return
		}
		if i%65536 == 0 && s.ctx.Err() != nil {
			return
		}
	}
}

// enter finds out whose rows hold for everybody for whom a subject's do.
func (s *coverSearch) enter(subject, domain table.Symbol) {
	s.entered = subject
	s.supers.clear()
	s.supers.add(subject)
	if s.sub >= 0 && s.shape.Role {
		s.held.addSupers(&s.supers, s.shape, subject, domain)
	}
	s.budget -= len(s.supers.list)
}

// decider returns a row that always decides where another one matches, or -1.
func (s *coverSearch) decider(row int) int {
	object := ""
	if s.obj >= 0 {
		object = s.text(s.obj, row)
	}
	opposite := s.find(object, func(other int) bool { return s.allows(other) != s.allows(row) && s.decides(other, row) })
	if opposite >= 0 && !s.ordered {
		return opposite
	}
	same := s.find(object, func(other int) bool { return s.allows(other) == s.allows(row) && s.decides(other, row) })
	if opposite < 0 || same >= 0 && same < opposite {
		return same
	}
	return opposite
}

// find returns a row that may cover an object and that is the one looked for, or
// -1. Where many rows may, it looks at those of the entered subject's supers
// alone.
func (s *coverSearch) find(object string, is func(row int) bool) int {
	if s.obj < 0 {
		return s.look(s.key('=', ""), is)
	}
	row := s.look(s.key('=', object), is)
	if row >= 0 || !s.shape.Func.CoversOthers() {
		return row
	}
	prefix, _ := s.shape.Func.Literal(object)
	prefix += "/"
	var h maphash.Hash
	h.SetSeed(s.seed)
	_ = h.WriteByte('/') // never fails
	row = s.look(h.Sum64(), is)
	for begin, level := 0, 0; begin < len(prefix) && level < maxLevels && row < 0; level++ {
		end := begin + strings.IndexByte(prefix[begin:], '/') + 1
		_, _ = h.WriteString(prefix[begin:end])
		row = s.look(h.Sum64(), is)
		begin = end
	}
	return row
}

// look is find for one key.
func (s *coverSearch) look(key uint64, is func(row int) bool) int {
	s.budget--
	at, ok := s.spans[key]
	if !ok {
		return -1
	}
	entries := s.entries[at.begin:at.end]
	if len(entries) <= maxSameKey {
		return s.among(entries, is)
	}
	for _, name := range s.supers.list {
		s.budget -= 16
		begin, _ := slices.BinarySearchFunc(entries, name, func(e coverEntry, name table.Symbol) int { return cmp.Compare(e.subject, name) })
		end := begin
		for end < len(entries) && end-begin < maxSameSubject && entries[end].subject == name {
			end++
		}
		if row := s.among(entries[begin:end], is); row >= 0 {
			return row
		}
	}
	return -1
}

func (s *coverSearch) among(entries []coverEntry, is func(row int) bool) int {
	for _, e := range entries {
		s.budget--
		if is(int(e.row)) {
			return int(e.row)
		}
	}
	return -1
}

// lintLevel looks at a row that denies one level, or what is below a directory
// and not the directory, where another row allows the rest.
func (s *coverSearch) lintLevel(row int) {
	dir, ok := "", false
	if s.obj >= 0 && !s.allows(row) {
		if dir, ok = strings.CutSuffix(s.text(s.obj, row), "/*"); !ok {
			s.lintDirectory(row)
		}
	}
	if !ok || strings.ContainsAny(dir, `*?[]{}()\|+^$:`) {
		return
	}
	rest, what := dir, "the directory itself, which can be listed or shared"
	switch s.shape.Func.StarDepth() {
	case pattern.OneLevel:
		rest, what = dir+"/**", "what is deeper"
	case pattern.AnyDepth:
		for _, a := range s.shape.Actions {
			if text := s.text(a.Column, row); !a.Accepts("list", text) && !a.Accepts("share", text) {
				return
			}
		}
	default:
		return
	}
	allow := s.find(rest, func(other int) bool {
		return s.allows(other) && s.meets(row, other) && s.shape.Func.Covers(s.text(s.obj, other), rest)
	})
	if allow < 0 {
		return
	}
	deny := s.find(rest, func(other int) bool {
		text := s.text(s.obj, other)
		return s.denies(row, other) && (s.shape.Func.Covers(text, rest) || strings.HasPrefix(text, dir+"/*/"))
	})
	if deny < 0 {
		s.warn(s.table.Rows.Lines[row], s.obj+1, "pattern-level", "%s %q denies one part only: line %d allows %s", s.model.Policy[s.obj], finding.Shorten(s.text(s.obj, row)), s.table.Rows.Lines[allow], what)
	}
}

// denies reports whether another row denies for as long as a row holds, and may be met
// by the same requests.
func (s *coverSearch) denies(row, other int) bool {
	return !s.allows(other) && s.periodOf(other).Covers(s.periodOf(row)) && s.meets(row, other)
}

// meets reports whether some request might match two rows, as far as their paths do.
func (s *coverSearch) meets(row, other int) bool {
	if !s.periodOf(row).Meets(s.periodOf(other)) {
		return false
	}
	for _, col := range s.same {
		a, b := s.at(col, row), s.at(col, other)
		if a != b && (!slices.Contains(s.stars, col) || s.text(col, row) != "*" && s.text(col, other) != "*") {
			return false
		}
	}
	return s.sub < 0 || s.supers.Has(s.at(s.sub, other)) || s.held.everybody(s.at(s.sub, row))
}

// lintDirectory looks at a row that denies one path, which looks like a directory,
// where another row allows what is below it.
func (s *coverSearch) lintDirectory(row int) {
	dir := s.text(s.obj, row)
	name := dir[strings.LastIndexByte(dir, '/')+1:]
	if name == "" || dir[0] != '/' || strings.ContainsAny(dir, `*?[]{}()\|+^$:.`) || strings.ToUpper(name) == name {
		return // a pattern, or a file: README, plan.pdf
	}
	rest := map[pattern.Depth]string{pattern.OneLevel: dir + "/**", pattern.AnyDepth: dir + "/*"}[s.shape.Func.StarDepth()]
	reads := slices.ContainsFunc(s.shape.Actions, func(a model.ActionClause) bool { return !a.Accepts("read", s.text(a.Column, row)) })
	if rest == "" || reads {
		return
	}
	allow := s.find(rest, func(other int) bool {
		return s.allows(other) && s.meets(row, other) && s.shape.Func.Covers(s.text(s.obj, other), rest)
	})
	deny := s.find(rest, func(other int) bool {
		return s.denies(row, other) && s.shape.Func.Covers(s.text(s.obj, other), rest)
	})
	if allow >= 0 && deny < 0 {
		s.warn(s.table.Rows.Lines[row], s.obj+1, "pattern-level", "%s %q denies the directory itself, and line %d allows what is below it: write %s", s.model.Policy[s.obj], finding.Shorten(dir), s.table.Rows.Lines[allow], finding.Shorten(rest))
	}
}

// decides reports whether a row a always decides where b matches, so that b
// makes no difference.
func (s *coverSearch) decides(a, b int) bool {
	if a == b || s.skip[a] || !s.covers(a, b) {
		return false
	}
	same := s.allows(a) == s.allows(b)
	switch s.model.Effect {
	case model.AllowOverride:
		return s.first(a, b)
	case model.AllowAndDeny:
		return same && s.first(a, b) || !s.allows(a) && !same
	case model.DenyOverride:
		return same && !s.allows(a) && s.first(a, b)
	case model.Priority, model.SubjectPriority:
		return a < b
	}
	return false
}

// first reports whether of two rows of the same effect, of which a covers b, b
// is to go: where b covers a too, the later is.
func (s *coverSearch) first(a, b int) bool {
	if a < b {
		return true
	}
	if s.sub >= 0 && s.at(s.sub, a) != s.entered {
		if other := (coverNode{s.at(s.sub, a), s.at(s.dom, a), true}); other != s.other {
			s.other = other
			s.back.clear()
			s.held.addSupers(&s.back, s.shape, other.subject, other.domain)
			s.budget -= 8 * len(s.back.list)
		}
		return !s.back.Has(s.entered) || !s.coversRest(b, a)
	}
	return !s.coversRest(b, a)
}

// covers reports whether a row a matches whatever a row b matches, whose subject
// has been entered.
func (s *coverSearch) covers(a, b int) bool {
	return (s.sub < 0 || s.supers.Has(s.at(s.sub, a))) && s.coversRest(a, b)
}

// coversRest is covers for all but the subject.
func (s *coverSearch) coversRest(a, b int) bool {
	for _, col := range s.same {
		if s.at(col, a) != s.at(col, b) && (!slices.Contains(s.stars, col) || s.text(col, a) != "*") {
			return false
		}
	}
	if s.period && !s.periodOf(a).Covers(s.periodOf(b)) {
		return false
	}
	return s.obj < 0 || s.at(s.obj, a) == s.at(s.obj, b) || s.shape.Func.Covers(s.text(s.obj, a), s.text(s.obj, b))
}

// keepsRole reports whether a row is about a role that would be taken for another
// one, misspelt, if no line used it any more: nobody is told to remove that line.
func (l *linter) keepsRole(row int) bool {
	if l.kept == nil {
		l.kept = map[table.Symbol]bool{}
		var taking *table.Taking
		for _, edges := range l.table.Edges {
			for _, e := range edges {
				if _, known := l.kept[e.Role]; known {
					continue
				}
				if taking == nil {
					taking = table.NewTaking(l.model, l.table)
				}
				_, l.kept[e.Role] = taking.Like(e.Role)
			}
		}
	}
	return slices.ContainsFunc(l.table.Rows.Cols, func(col []table.Symbol) bool { return l.kept[col[row]] })
}

// tell reports a row that another one makes pointless.
func (s *coverSearch) tell(row, by int) {
	if s.keepsRole(row) {
		return
	}
	line, other := s.table.Rows.Lines[row], s.table.Rows.Lines[by]
	verb := "denies"
	if s.allows(by) {
		verb = "allows"
	}
	switch {
	case s.allows(row) == s.allows(by):
		s.warn(line, 0, "redundant", "makes no difference: line %d %s all of it", other, verb)
	case s.at(s.sub, row) == s.at(s.sub, by) && s.coversRest(row, by):
		s.warn(line, 0, "contradiction", "line %d %s the same, and wins: remove one of them", other, verb)
	default:
		s.warn(line, 0, "overruled", "never decides: line %d %s all of it, and wins", other, verb)
	}
}
