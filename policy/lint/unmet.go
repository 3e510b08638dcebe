package lint

import (
	"cmp"
	"slices"
	"strings"

	"securefiles/policy/internal/finding"
	"securefiles/policy/internal/model"
	"securefiles/policy/internal/pattern"
	"securefiles/policy/internal/table"
)

// Bounds of the search for denials that meet no allow. Beyond them it finds less.
const (
	unmetBudget   = 40_000_000 // steps in all
	maxUnmetPairs = 2000       // lines that are compared to one
	maxUnmetName  = 512        // bytes of a path that are looked for
)

// lintUnmet looks for denials of what no line allows: most are misspelt. It says
// nothing where one path and one caller might meet both; nor of actions, for some
// deny to share or list what is read alone.
func (l *linter) lintUnmet() {
	if l.model.Effect != model.AllowAndDeny || l.model.Evaluates || l.shape.Paths < 0 || !l.shape.Single {
		return
	}
	s := &meetSearch{linter: l, obj: l.shape.Paths, budget: unmetBudget}
	if s.build(); len(s.allows) > 0 && len(s.denies) > 0 { // of no allow another rule tells
		s.search()
	}
}

type meetSearch struct {
	*linter
	obj    int
	allows []bounded // sorted by prefix
	denies []bounded // sorted by subject
	spans  map[string]span
	budget int
	groups []bool // by symbol: some group of a request may have it
	// mates are the names that whoever has the subject at hand may have too.
	mates symbolSet
	// holders and has are the g lines, from role to name and from name to role.
	holders, has map[table.Symbol][]table.Symbol
}

// A bounded row is one whose paths begin with a prefix. Below says that they are
// the prefix itself, or below it.
type bounded struct {
	prefix string
	below  bool
	row    int32
}

// bound returns what the paths of a row begin with.
func (s *meetSearch) bound(row int) bounded {
	text := s.text(s.obj, row)
	if slices.Contains(s.shape.Spared[s.obj], text) {
		return bounded{row: int32(row)}
	}
	a := s.shape.Func.Anchors(text)
	b := bounded{prefix: a.Prefix, row: int32(row)}
	if i := strings.IndexByte(b.prefix, pattern.AnyRune); i >= 0 {
		b.prefix = b.prefix[:i]
		return b
	}
	b.below = !a.Exact && s.shape.Func.StarDepth() == pattern.OneLevel && strings.HasPrefix(text, a.Prefix+"/")
	return b
}

func (s *meetSearch) build() {
	for row := range s.table.Rows.Len() {
		if b := s.bound(row); s.linter.allows(row) {
			s.allows = append(s.allows, b)
		} else {
			s.denies = append(s.denies, b)
		}
	}
	if len(s.allows) == 0 || len(s.denies) == 0 {
		return
	}
	slices.SortFunc(s.allows, func(a, b bounded) int { return cmp.Or(strings.Compare(a.prefix, b.prefix), cmp.Compare(a.row, b.row)) })
	slices.SortStableFunc(s.denies, func(a, b bounded) int { return cmp.Compare(s.subject(a.row), s.subject(b.row)) })
	s.spans = map[string]span{}
	begin := 0
	for i := range s.allows {
		if i+1 == len(s.allows) || s.allows[i+1].prefix != s.allows[i].prefix {
			s.spans[s.allows[i].prefix] = span{int32(begin), int32(i + 1)}
			begin = i + 1
		}
	}
	s.holders, s.has = links(s.table.Edges["g"])
	s.groups = s.heldByGroups()
}

// subject returns the subject of a row, or 0 where the lines have none.
func (s *meetSearch) subject(row int32) table.Symbol { return s.at(s.shape.Names, int(row)) }

func (s *meetSearch) search() {
	granted := make([]bool, s.table.Symbols.Len())
	byGroup := false // some allow is for a group, or for everybody
	for _, a := range s.allows {
		name := s.subject(a.row)
		granted[name] = true
		byGroup = byGroup || s.shape.Names < 0 || s.groups[name]
	}
	told := map[int]bool{}
	for _, rule := range []string{"similar-paths", "pattern-download", "invisible", "confusable", "unicode-form"} {
		for _, f := range s.found[rule] {
			told[f.Line] = true
		}
	}
	for i, d := range s.denies {
		if i%4096 == 0 && s.ctx.Err() != nil || s.budget < 0 {
			return
		}
		if i == 0 || s.subject(d.row) != s.subject(s.denies[i-1].row) {
			s.enter(s.subject(d.row))
		}
		hasAny := byGroup || s.shape.Names >= 0 && s.groups[s.subject(d.row)] || slices.ContainsFunc(s.mates.list, func(n table.Symbol) bool { return granted[n] })
		if d.prefix == "" || len(d.prefix) > maxUnmetName || !hasAny || told[int(s.table.Rows.Lines[d.row])] || len(s.shape.PathProblems(s.text(s.obj, int(d.row)), true, func(col int) string { return s.text(col, int(d.row)) })) > 0 {
			continue // nothing is certain, or another rule tells of it
		}
		if !s.meets(d) {
			text := s.text(s.obj, int(d.row))
			s.warn(s.table.Rows.Lines[d.row], s.obj+1, "deny-unmet", "no line allows anything that %s %q denies to the same people: is it misspelt?", s.model.Policy[s.obj], finding.Shorten(text))
		}
	}
}

// enter finds the names that whoever has a subject may have too, by lines alone.
func (s *meetSearch) enter(subject table.Symbol) {
	s.mates.clear()
	if s.shape.Names < 0 {
		return
	}
	s.mates.add(subject)
	if !s.shape.Role {
		return
	}
	for _, links := range []map[table.Symbol][]table.Symbol{s.holders, s.has} { // who has it, and what else they have
		for i := 0; i < len(s.mates.list); i++ {
			for _, name := range links[s.mates.list[i]] {
				s.mates.add(name)
			}
		}
	}
	s.budget -= len(s.mates.list)
}

// heldByGroups are the names that a group of a request may have, by symbol.
func (s *meetSearch) heldByGroups() []bool {
	held := make([]bool, s.table.Symbols.Len())
	for _, u := range s.subjects() {
		held[u.name] = strings.HasPrefix(s.table.Symbols.Text(u.name), "@")
	}
	if s.shape.Names >= 0 {
		for _, text := range s.shape.Spared[s.shape.Names] { // such a value is for everybody
			if name, ok := s.table.Symbols.Lookup(text); ok {
				held[name] = true
			}
		}
	}
	spread(held, s.has)
	return held
}

// meets reports whether some allow might be for a request that a denial is for.
func (s *meetSearch) meets(d bounded) bool {
	looked := 0
	try := func(rows []bounded) bool {
		for _, a := range rows {
			s.budget--
			if looked++; looked > maxUnmetPairs || s.meet(a, d) {
				return true
			}
		}
		return false
	}
	for n := range len(d.prefix) { // shorter prefixes
		if at, ok := s.spans[d.prefix[:n]]; ok && try(s.allows[at.begin:at.end]) {
			return true
		}
	}
	begin, _ := slices.BinarySearchFunc(s.allows, d.prefix, func(a bounded, p string) int { return strings.Compare(a.prefix, p) })
	end := begin
	for end < len(s.allows) && strings.HasPrefix(s.allows[end].prefix, d.prefix) && end-begin <= maxUnmetPairs {
		end++
	}
	return try(s.allows[begin:end])
}

// meet reports whether two rows might be for one request.
func (s *meetSearch) meet(a, d bounded) bool {
	short, long := a, d
	if len(short.prefix) > len(long.prefix) {
		short, long = long, short
	}
	if short.below && len(long.prefix) > len(short.prefix) && long.prefix[len(short.prefix)] != '/' {
		return false
	}
	if s.shape.Names >= 0 {
		if name := s.subject(a.row); !s.mates.Has(name) && (!s.shape.Role || !s.groups[name] && !s.groups[s.subject(d.row)]) && !slices.Contains(s.shape.Spared[s.shape.Names], s.table.Symbols.Text(name)) {
			return false
		}
	}
	if col := s.shape.Domain; col >= 0 && s.table.Rows.Cols[col][a.row] != s.table.Rows.Cols[col][d.row] {
		return false
	}
	return s.samePath(s.text(s.obj, int(a.row)), s.text(s.obj, int(d.row)))
}

// samePath reports whether some path might match two patterns whose prefixes fit.
func (s *meetSearch) samePath(a, d string) bool {
	if a == d || slices.Contains(s.shape.Spared[s.obj], a) {
		return true
	}
	f := s.shape.Func
	x, y := f.Anchors(a), f.Anchors(d)
	for _, c := range []struct {
		one   pattern.Anchors
		other string
	}{{x, d}, {y, a}} {
		if c.one.Exact && strings.IndexByte(c.one.Prefix, pattern.AnyRune) < 0 {
			ok, err := f.Match(c.one.Prefix, c.other)
			return ok || err != nil
		}
	}
	if !sameEnd(x.Suffix, y.Suffix) {
		return false
	}
	return f.StarDepth() != pattern.OneLevel || !oneDepth(a) || !oneDepth(d) || strings.Count(a, "/") == strings.Count(d, "/")
}

// sameEnd reports whether one text might end with two suffixes of anchors.
func sameEnd(a, b string) bool {
	a, b = afterAny(a), afterAny(b)
	return strings.HasSuffix(a, b) || strings.HasSuffix(b, a)
}

// afterAny returns what stands behind the last character that may be any.
func afterAny(suffix string) string { return suffix[strings.LastIndexByte(suffix, pattern.AnyRune)+1:] }

// oneDepth reports whether all paths of a glob have as many slashes as it has.
func oneDepth(glob string) bool {
	return !strings.Contains(glob, "**") && !strings.ContainsAny(glob, `{\[`)
}
