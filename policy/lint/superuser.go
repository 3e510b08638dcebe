package lint

import (
	"slices"

	"securefiles/policy"
	"securefiles/policy/internal/model"
)

// lintSuperusers looks for alternatives that hold whatever a line says, where
// lines can deny: all of them match then.
func (l *linter) lintSuperusers() {
	rows := l.table.Rows
	if rows.Len() == 0 || l.model.PolicyField("eft") < 0 || !slices.ContainsFunc(l.model.Alternatives(), l.model.AsksLine) {
		return
	}
	row := 0
	switch l.model.Effect {
	case model.AllowOverride:
		return
	case model.AllowAndDeny, model.DenyOverride:
		for row < rows.Len() && l.allows(row) {
			row++
		}
		if row == rows.Len() {
			return
		}
	}
	for _, a := range l.model.Alternatives() {
		if a.LooksAtLine() || !a.Asks("sub") && !a.Asks("obj") && !a.Asks("ip") {
			continue
		}
		found := policy.Finding{File: l.model.File, Line: l.model.Line, Rule: "model-superuser"}
		source := "`" + a.Source + "`"
		switch l.model.Effect {
		case model.Priority, model.SubjectPriority:
			verb := "denies"
			if l.allows(row) {
				verb = "allows"
			}
			l.add(found, "where %s holds every line matches, so the first one decides: line %d, which %s; write %s && p.eft == \"allow\"", source, rows.Lines[row], verb, a.Source)
		default:
			l.add(found, "where %s holds every line matches, line %d too, which denies, so nothing is allowed: write %s && p.eft == \"allow\"", source, rows.Lines[row], a.Source)
		}
	}
}
