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
			if err := whyNobody(syms.Text(s)); err != nil && !isToldOf(syms.Text(s)) && !held[s] && !slices.Contains(shape.Spared[col], syms.Text(s)) {
				why[s] = err
			}
		}
		return why[s]
	}
	tell := func(denies bool, line uint32, s Symbol, err error) {
		const message = "no identity source may vouch for %q, which %v: this line is for nobody"
		if text := finding.Shorten(syms.Text(s)); denies {
			l.Judge(int(line), 0, "subject-impossible", message, text, err)
		} else {
			l.Warn(int(line), "subject-impossible", message, text, err)
		}
	}
	for row, s := range l.out.Rows.Cols[col] {
		if err := impossible(s); err != nil {
			tell(l.denies(row), l.out.Rows.Lines[row], s, err)
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
		tell(denied[e.Role], uint32(e.Line), e.Name, err)
	}
}

// isToldOf reports whether a name has a finding of its own where its line is read:
// it is empty, or has a blank at an end.
func isToldOf(name string) bool {
	return strings.TrimSpace(name) == "" || strings.TrimSpace(name) != name
}

// deniedNames are the names whose bearers some line denies something, by symbol.
func (l *loader) deniedNames(col int) []bool {
	var denied, roles, names []int32
	for row, s := range l.out.Rows.Cols[col] {
		if l.denies(row) {
			denied = append(denied, int32(s))
		}
	}
	for _, e := range l.out.Edges["g"] {
		roles, names = append(roles, int32(e.Role)), append(names, int32(e.Name))
	}
	return Reach(denied, roles, names, l.out.Symbols.Len())
}

// whyNobody says why no identity source may vouch for a name, or returns nil.
func whyNobody(name string) error {
	group, isGroup := strings.CutPrefix(name, "@")
	switch {
	case name == authz.Anonymous || authz.IsBuiltinGroup(name) || strings.HasPrefix(name, authz.RolePrefix):
		return nil // the service gives them, or a line
	case isGroup:
		return authz.ValidGroup(group)
	}
	return authz.ValidSubject(name)
}
