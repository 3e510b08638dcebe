package lint

import (
	"hash/maphash"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"securefiles/authz"
	"securefiles/policy"
	"securefiles/policy/internal/finding"
	"securefiles/policy/internal/table"
)

// lintActions looks for actions that no request has.
func (l *linter) lintActions() {
	for _, a := range l.shape.Actions {
		matches := map[table.Symbol]bool{}
		for row, s := range l.table.Rows.Cols[a.Column] {
			ok, known := matches[s]
			if !known {
				ok = a.MatchesAny(l.table.Symbols.Text(s))
				matches[s] = ok
			}
			if !ok {
				l.warn(l.table.Rows.Lines[row], a.Column+1, "action", "%s", table.ActionMessage(l.model, a.Column, l.table.Symbols.Text(s)))
			}
		}
	}
}

// lintPatterns looks for patterns that cover something else than they seem to,
// where that is no error already.
func (l *linter) lintPatterns() {
	col := l.shape.Paths
	if col < 0 {
		return
	}
	rows := l.table.Rows
	resources := false // of an application have been told of: it has them all over
	for row := range rows.Len() {
		text := l.text(col, row)
		if slices.Contains(l.shape.Spared[col], text) {
			continue
		}
		for _, p := range l.shape.PathProblems(text, true, func(col int) string { return l.text(col, row) }) {
			if p.Rule == "pattern-unmatchable" && table.IsResource(text) {
				if resources {
					continue
				}
				resources = true
				p.Message += "; an application's resources, which share the policy, are told of once"
			}
			l.warn(rows.Lines[row], col+1, p.Rule, "%s %q: %s", l.model.Policy[col], finding.Shorten(text), p.Message)
		}
		l.lintTree(row, col, text)
	}
}

// A use is where a name of a subject stands first.
type use struct {
	name  table.Symbol
	line  uint32
	field int
}

// subjects returns the names of subjects, groups and roles, each with its first
// use in the order of the file.
func (l *linter) subjects() []use {
	if l.uses != nil {
		return l.uses
	}
	seen := make([]bool, l.table.Symbols.Len())
	uses := []use{}
	add := func(name table.Symbol, line uint32, field int) {
		if !seen[name] {
			seen[name] = true
			uses = append(uses, use{name, line, field})
		}
	}
	if col := l.shape.Names; col >= 0 {
		for _, text := range l.shape.Spared[col] {
			if name, ok := l.table.Symbols.Lookup(text); ok {
				seen[name] = true // it is nobody's
			}
		}
		for row, name := range l.table.Rows.Cols[col] {
			add(name, l.table.Rows.Lines[row], col+1)
		}
	}
	for _, edge := range l.table.Edges["g"] {
		add(edge.Name, edge.Line, 1)
		add(edge.Role, edge.Line, 2)
	}
	slices.SortStableFunc(uses, func(a, b use) int { return int(a.line) - int(b.line) })
	l.uses = uses
	return uses
}

// lintSubjects looks for names by which somebody means everybody, for roles that
// nobody can have, and for groups without their @.
func (l *linter) lintSubjects() {
	if l.shape.Names < 0 {
		return
	}
	held := l.heldNames()
	for _, u := range l.subjects() {
		name := l.table.Symbols.Text(u.name)
		if held[u.name] {
			continue
		}
		plain := strings.TrimPrefix(name, "@")
		switch fold := strings.ToLower(plain); {
		case authz.IsBuiltinGroup(name):
		case fold == "*" || fold == "anyone" || fold == "everyone" || fold == "everybody":
			l.warn(u.line, u.field, "subject-everyone", "%q is a name like any other: everybody is %s", finding.Shorten(name), authz.GroupAnyone)
		case fold == authz.Anonymous && name == plain && (name != authz.Anonymous || l.opensTo(u)):
			l.warn(u.line, u.field, "subject-everyone", "%s is whoever has no credentials, and nobody who has: everybody is %s", authz.Anonymous, authz.GroupAnyone)
		case fold == "authenticated":
			l.warn(u.line, u.field, "subject-everyone", "%q is a name like any other: everybody with credentials is %s", finding.Shorten(name), authz.GroupAuthenticated)
		case meantGroup(name) != "":
			l.warn(u.line, u.field, "subject-everyone", "%q is a group like any other: is %s meant?", finding.Shorten(name), meantGroup(name))
		case isRoleName(fold) && !strings.HasPrefix(name, "@"):
			l.warn(u.line, u.field, "role-unheld", "nobody has the role %q: give it to somebody with a g line, or is the name misspelt?", finding.Shorten(name))
		}
		if name != plain {
			continue
		}
		if group, ok := l.table.Symbols.Lookup("@" + name); ok && l.isSubject(group) {
			l.warn(u.line, u.field, "similar-names", "%q is another name than the group %q: write the group with its @", finding.Shorten(name), finding.Shorten("@"+name))
		}
	}
}

// opensTo reports whether a p line gives a name something at its first use.
func (l *linter) opensTo(u use) bool {
	row, ok := slices.BinarySearch(l.table.Rows.Lines, u.line)
	return ok && l.allows(row)
}

// isSubject reports whether a name stands where subjects, groups and roles do.
func (l *linter) isSubject(name table.Symbol) bool {
	if l.names == nil {
		l.names = make([]bool, l.table.Symbols.Len())
		for _, u := range l.subjects() {
			l.names[u.name] = true
		}
	}
	return l.names[name]
}

// isRoleName reports whether a name says that it is a role's: role:admin,
// ROLE_ADMIN.
func isRoleName(lower string) bool {
	rest, ok := strings.CutPrefix(lower, "role")
	if !ok {
		return strings.HasSuffix(lower, "_role") || strings.HasSuffix(lower, "-role")
	}
	return rest != "" && strings.ContainsRune(":_-/.", rune(rest[0]))
}

// Bounds of the search for names that differ by one letter.
const (
	maxRoleLetters    = 4 << 20 // of all roles
	maxSubjectLetters = 16 << 20
	minSimilar        = 5 // shorter names differ by a letter easily
)

// lintNames looks for names that differ by next to nothing.
func (l *linter) lintNames() {
	uses := l.subjects()
	first := make(map[string]use, len(uses))
	for _, u := range uses {
		name := l.table.Symbols.Text(u.name)
		fold := table.Fold(name)
		if other, ok := first[fold]; ok {
			l.warn(u.line, u.field, "similar-names", "%q differs from %q in line %d by case or accents alone, and is another name", finding.Shorten(name), finding.Shorten(l.table.Symbols.Text(other.name)), other.line)
			continue
		}
		first[fold] = u
	}
	l.misspeltRoles(uses)
}

// misspeltRoles looks for subjects that nobody holds and that differ from a role
// by one letter. Names with digits are numbered more often than misspelt.
func (l *linter) misspeltRoles(uses []use) {
	held := l.heldNames()
	candidate := func(name string) bool {
		return len(name) >= minSimilar && !strings.ContainsFunc(name, unicode.IsDigit) && name[0] != '@'
	}
	letters := [2]int{}
	for _, u := range uses {
		if name := l.table.Symbols.Text(u.name); candidate(name) {
			if held[u.name] {
				letters[0] += len(name)
			} else {
				letters[1] += len(name)
			}
		}
	}
	if letters[0] == 0 || letters[0] > maxRoleLetters || letters[1] > maxSubjectLetters {
		return
	}
	used := make([]bool, l.table.Symbols.Len()) // of others role-unused tells
	if l.shape.Subject >= 0 {
		for _, name := range l.table.Rows.Cols[l.shape.Subject] {
			used[name] = true
		}
	}
	for _, edge := range l.table.Edges["g"] {
		used[edge.Name] = true
	}
	roles := map[string]table.Symbol{} // by the name without one of its letters, and by the name
	for _, u := range uses {
		if name := l.table.Symbols.Text(u.name); held[u.name] && used[u.name] && candidate(name) {
			for _, key := range withoutOne(name) {
				roles[key] = u.name
			}
		}
	}
	for _, u := range uses {
		name := l.table.Symbols.Text(u.name)
		if held[u.name] || !candidate(name) {
			continue
		}
		for _, key := range withoutOne(name) {
			role, ok := roles[key]
			if !ok || !table.OneEdit(name, l.table.Symbols.Text(role)) || table.Fold(name) == table.Fold(l.table.Symbols.Text(role)) {
				continue
			}
			l.warn(u.line, u.field, "similar-names", "%q differs from the role %q by one letter: is it misspelt?", finding.Shorten(name), finding.Shorten(l.table.Symbols.Text(role)))
			break
		}
	}
}

// withoutOne returns a name, and the name without each of its letters.
func withoutOne(name string) []string {
	keys := []string{name}
	for i, r := range name {
		keys = append(keys, name[:i]+name[i+utf8.RuneLen(r):])
	}
	return keys
}

// lintUsers compares the policy with the users that identity sources list.
func (l *linter) lintUsers() {
	held := l.heldNames()
	known := map[string]bool{authz.Anonymous: true}
	for _, u := range l.check.opts.Users {
		known[u.Name] = true
		if s, ok := l.table.Symbols.Lookup(u.Name); ok && held[s] {
			l.add(policy.Finding{File: u.File, Line: u.Line, Rule: "user-is-role"}, "the user %q is called like a role of the policy, and is refused so that it does not get the role: rename one of them", finding.Shorten(u.Name))
		}
	}
	if !l.check.opts.OnlyUsers || l.shape.Names < 0 {
		return
	}
	for _, u := range l.subjects() {
		name := l.table.Symbols.Text(u.name)
		switch {
		case authz.IsBuiltinGroup(name) || held[u.name] || known[name]:
		case strings.HasPrefix(name, "@"):
			l.warn(u.line, u.field, "subject-unknown", "no identity source of the configuration names groups, so nobody is in %q", finding.Shorten(name))
		default:
			l.warn(u.line, u.field, "subject-unknown", "no user is called %q, and no line gives it to anybody as a role", finding.Shorten(name))
		}
	}
}

// maxPathLevels bounds how many directories of an object are compared.
const maxPathLevels = 8

// lintPaths looks for directories that differ by case alone.
func (l *linter) lintPaths() {
	col := l.shape.Paths
	if col < 0 {
		return
	}
	type spelling struct {
		hash uint64
		line uint32
	}
	seed := maphash.MakeSeed()
	first := map[uint64]spelling{}
	told := map[uint64]bool{} // spellings
	for row := range l.table.Rows.Len() {
		text := l.text(col, row)
		prefix, whole := l.shape.Func.Literal(text)
		if whole || strings.HasPrefix(text, prefix+"/") { // it ends where a name does
			prefix += "/"
		}
		for end, level := 0, 0; level < maxPathLevels; level++ {
			n := strings.IndexByte(prefix[end:], '/')
			if n < 0 {
				break
			}
			if end += n + 1; end == 1 {
				continue
			}
			dir := prefix[:end-1]
			here := spelling{maphash.String(seed, dir), l.table.Rows.Lines[row]}
			key := here.hash
			if lower := strings.ToLower(dir); lower != dir {
				key = maphash.String(seed, lower)
			}
			other, ok := first[key]
			if !ok {
				first[key] = here
				continue
			}
			if other.hash != here.hash {
				if !told[here.hash] {
					told[here.hash] = true
					l.warn(here.line, col+1, "similar-paths", "%q differs by case alone from what line %d has, and is another path", finding.Shorten(dir), other.line)
				}
				break
			}
		}
	}
}
