package lint

import (
	"slices"
	"strings"

	"securefiles/authz"
	"securefiles/policy/internal/finding"
	"securefiles/policy/internal/pattern"
	"securefiles/policy/internal/table"
)

// lintVariables looks for $sub and $group, and for what other programs write for
// them, where they stand for nobody or for anybody.
func (l *linter) lintVariables() {
	rows := l.table.Rows
	for col := range rows.Cols {
		compares := l.model.PathFunctions(col)
		seen := map[table.Symbol]string{}
		for row, s := range rows.Cols[col] {
			text := l.table.Symbols.Text(s)
			if !strings.ContainsAny(text, "$:{%~<") {
				continue
			}
			message, known := seen[s]
			if !known {
				message = l.variable(col, compares, text)
				seen[s] = message
			}
			if message != "" {
				l.warn(rows.Lines[row], col+1, "pattern-variable", "%s %q: %s", l.model.Policy[col], finding.Shorten(text), message)
			}
			if col == l.shape.Object && l.allows(row) && l.forEverybody(row) {
				if name := l.shape.Func.NameForAny(text); name != "" {
					l.warn(rows.Lines[row], col+1, "pattern-variable", "%s %q: %s matches %s with any name there, so everybody has everybody's: write %s for the user's own",
						l.model.Policy[col], finding.Shorten(text), l.shape.Func, finding.Shorten(name), pattern.SubjectName)
				}
			}
		}
	}
	for _, edges := range l.table.Edges {
		for _, edge := range edges {
			for field, name := range []table.Symbol{edge.Name, edge.Role} {
				if isVariable(l.table.Symbols.Text(name)) {
					l.warn(edge.Line, field+1, "pattern-variable", "%q: %s", l.table.Symbols.Text(name), onlyInPaths)
				}
			}
		}
	}
}

const onlyInPaths = pattern.SubjectName + " and " + pattern.GroupName + " stand for names in patterns of the path alone, as a whole segment"

// isVariable reports whether a name is meant for whoever asks.
func isVariable(name string) bool {
	name = strings.TrimPrefix(name, "@")
	return strings.EqualFold(name, pattern.SubjectName) || strings.EqualFold(name, pattern.GroupName)
}

// variable says what is wrong with a variable in a field of a column; the object's
// own function has its say elsewhere.
func (l *linter) variable(col int, compares []pattern.Func, text string) string {
	if col == l.shape.Object || l.model.Evaluates && slices.Contains(l.model.Subrules(), col) {
		return ""
	}
	if len(compares) == 0 {
		if slices.ContainsFunc(strings.Split(text, "/"), isVariable) {
			return onlyInPaths
		}
		return ""
	}
	message := ""
	for _, f := range compares {
		problems := f.Problems(text, true)
		i := slices.IndexFunc(problems, func(p pattern.Problem) bool { return p.Rule == "pattern-variable" })
		if i < 0 {
			return "" // one of them knows it
		}
		message = problems[i].Message
	}
	return message
}

// forEverybody reports whether a row is for everybody, or for everybody with
// credentials.
func (l *linter) forEverybody(row int) bool {
	if l.shape.Subject < 0 {
		return false
	}
	name := l.table.Rows.Cols[l.shape.Subject][row]
	return l.shape.Role && (l.table.Symbols.Text(name) == authz.GroupAuthenticated || l.roles.everybody(name))
}
