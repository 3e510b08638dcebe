package table

import (
	"slices"
	"strings"

	"securefiles/authz"
	"securefiles/policy/internal/finding"
	"securefiles/policy/internal/model"
)

// impossibleSubjects tells of subjects and groups that no identity source may
// vouch for. A line that allows them something allows nobody anything; one that
// denies them something denies nobody, and is refused.
func (l *loader) impossibleSubjects(shape *model.Outline) {
	col := shape.Names
	if col < 0 {
		return
	}
	syms := l.out.Symbols
	held := make([]bool, syms.Len()) // roles may be called as they like
	if shape.Role {
		for _, e := range l.out.Edges["g"] {
			held[e.Role] = true
		}
	}
	checked := make([]bool, syms.Len())
	why := map[Symbol]error{}
	impossible := func(s Symbol) error {
		if !checked[s] {
			checked[s] = true
			if err := whyNobody(syms.Text(s)); err != nil && !held[s] && !slices.Contains(shape.Spared[col], syms.Text(s)) {
				why[s] = err
			}
		}
		return why[s]
	}
	const message = "no identity source may vouch for %q, which %v: this line is for nobody"
	for row, s := range l.out.Rows.Cols[col] {
		if err := impossible(s); err != nil {
			severity := finding.SeverityWarning
			if l.denies(row) {
				severity = finding.SeverityError
			}
			l.Add(severity, int(l.out.Rows.Lines[row]), 0, "subject-impossible", message, finding.Shorten(syms.Text(s)), err)
		}
	}
	if !shape.Role {
		return
	}
	var denied []bool
	for _, e := range l.out.Edges["g"] {
		err := impossible(e.Name)
		if err == nil {
			continue
		}
		if denied == nil {
			denied = l.deniedNames(col)
		}
		severity := finding.SeverityWarning
		if denied[e.Role] {
			severity = finding.SeverityError
		}
		l.Add(severity, int(e.Line), 0, "subject-impossible", message, finding.Shorten(syms.Text(e.Name)), err)
	}
}

// denies reports whether a row denies.
func (l *loader) denies(row int) bool {
	return l.eft >= 0 && l.out.Symbols.Text(l.out.Rows.Cols[l.eft][row]) == "deny"
}

// deniedNames are the names whose bearers some line denies something, by symbol.
func (l *loader) deniedNames(col int) []bool {
	denied := make([]bool, l.out.Symbols.Len())
	for row, s := range l.out.Rows.Cols[col] {
		denied[s] = denied[s] || l.denies(row)
	}
	for more := true; more; {
		more = false
		for _, e := range l.out.Edges["g"] {
			if denied[e.Role] && !denied[e.Name] {
				denied[e.Name], more = true, true
			}
		}
	}
	return denied
}

// whyNobody says why no identity source may vouch for a name, or returns nil.
func whyNobody(name string) error {
	group, isGroup := strings.CutPrefix(name, "@")
	switch {
	case name == authz.Anonymous || name == authz.GroupAnyone || name == authz.GroupAuthenticated || strings.HasPrefix(name, authz.RolePrefix):
		return nil // the service gives them, or a line
	case isGroup:
		return authz.ValidGroup(group)
	}
	return authz.ValidSubject(name)
}
