package lint

import (
	"slices"
	"strings"
	"unicode"

	"securefiles/authz"
	"securefiles/policy/internal/finding"
	"securefiles/policy/internal/table"
)

// meantGroup returns the built-in group for which a group is misspelt, or "".
func meantGroup(name string) string {
	plain, ok := strings.CutPrefix(name, "@")
	if !ok {
		return ""
	}
	fold := strings.Map(func(r rune) rune {
		if strings.ContainsRune("-_ .", r) {
			return -1
		}
		return unicode.ToLower(r)
	}, plain)
	switch fold {
	case "any", "everyone", "everybody", "anybody", "anonymous", "*":
		return authz.GroupAnyone
	case "authenticateduser", "authenticatedusers", "loggedin":
		return authz.GroupAuthenticated
	}
	for _, group := range []string{authz.GroupAnyone, authz.GroupAuthenticated} {
		if name != group && table.OneEdit(fold, group[1:]) {
			return group
		}
	}
	return ""
}

// lintExpressions looks for subjects that are written like patterns, negations,
// lists or quotations. A name is compared as it stands.
func (l *linter) lintExpressions() {
	col := l.shape.Names
	if col < 0 {
		return
	}
	told := map[table.Symbol]bool{}
	look := func(s table.Symbol, line uint32, field int) {
		text := l.table.Symbols.Text(s)
		if !strings.ContainsAny(text, "!|*?;$%{}<>“”„‟«»\"") || told[s] || slices.Contains(l.shape.Spared[col], text) {
			return
		}
		if why := expression(text); why != "" {
			told[s] = true
			l.warn(line, field, "subject-language", "%q is compared as it stands, and no user and no group is called so: %s", finding.Shorten(text), why)
		}
	}
	for row, s := range l.table.Rows.Cols[col] {
		look(s, l.table.Rows.Lines[row], col+1)
	}
	for _, e := range l.table.Edges["g"] {
		look(e.Name, e.Line, 1)
	}
}

// expression says what to write in the place of a name that is written like an
// expression, or returns "".
func expression(name string) string {
	name = strings.TrimPrefix(name, "@")
	switch {
	case name == "" || name == "*":
		return "" // another rule tells of it
	case strings.ContainsAny(name, "“”„‟«»\""):
		return "leave the quotes out"
	case name[0] == '!':
		return "write a line that denies"
	case isList(name, "|"), isList(name, ";"):
		return "write a line for each, or a role"
	case strings.ContainsAny(name, "*?"):
		return "write a role, or a group of an identity source"
	}
	return ""
}

// isList reports whether a name is one of several names. Subjects such as
// auth0|1234 are none: what an identity provider numbers holds digits.
func isList(name, separator string) bool {
	parts := strings.Split(name, separator)
	return len(parts) > 1 && !slices.ContainsFunc(parts, func(p string) bool {
		p = strings.TrimSpace(p)
		return p == "" || strings.ContainsFunc(p, unicode.IsDigit)
	})
}

// maxFree is how many names may be free before they are taken for users, and told
// of once.
const maxFree = 20

// lintFree looks for names of p lines that are in no g line. Such a name is a
// user's: whoever an identity source calls so has what the lines say, also where
// it was meant for a role.
func (l *linter) lintFree() {
	if !l.check.opts.OpenNames || l.shape.Names < 0 || !l.shape.Role {
		return
	}
	known := make([]bool, l.table.Symbols.Len())
	for _, e := range l.table.Edges["g"] {
		known[e.Name], known[e.Role] = true, true
	}
	for _, u := range l.check.opts.Users {
		if s, ok := l.table.Symbols.Lookup(u.Name); ok {
			known[s] = true
		}
	}
	var free []use
	for _, u := range l.subjects() {
		name := l.table.Symbols.Text(u.name)
		if known[u.name] || name == authz.Anonymous || strings.ContainsAny(name, "@|=,") || strings.HasPrefix(name, authz.RolePrefix) || authz.ValidSubject(name) != nil || expression(name) != "" {
			continue
		}
		free = append(free, u)
	}
	if len(free) > maxFree {
		l.warn(free[0].line, free[0].field, "subject-free", "%q is in no g line, nor are %d other names: each is whoever an identity source calls so; call roles %sNAME", finding.Shorten(l.table.Symbols.Text(free[0].name)), len(free)-1, authz.RolePrefix)
		return
	}
	for _, u := range free {
		name := finding.Shorten(l.table.Symbols.Text(u.name))
		l.warn(u.line, u.field, "subject-free", "%q is in no g line, so it is whoever an identity source calls so: if it is a role, call it %q", name, authz.RolePrefix+name)
	}
}
