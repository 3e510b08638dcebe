package table

import (
	"errors"
	"slices"
	"strings"

	"securefiles/authz"
	"securefiles/policy/internal/finding"
	"securefiles/policy/internal/model"
	"securefiles/policy/internal/pace"
)

// refuseMeanings refuses lines that deny less, or allow more, than they seem
// to. It is part of loading, so it is quick about lines with nothing special.
func (l *loader) refuseMeanings() {
	shape := model.NewOutline(l.model)
	rows := l.out.Rows
	l.impossibleSubjects(shape)
	if col := shape.Paths; col >= 0 {
		for row, s := range pace.Over(l.pace, rows.Cols[col]) {
			text := l.out.Symbols.Text(s)
			if slices.Contains(shape.Spared[col], text) {
				continue
			}
			for _, p := range shape.PathProblems(text, false, func(col int) string { return l.out.Symbols.Text(rows.Cols[col][row]) }) {
				if p.Rule == "pattern-unmatchable" && IsResource(text) && !l.meansPath(shape, text) {
					continue
				}
				if l.denies(row) && p.Deny == finding.SeverityError || !l.denies(row) && p.Allow == finding.SeverityError {
					l.Judge(int(rows.Lines[row]), 0, p.Rule, "%s %q: %s", l.model.Policy[col], finding.Shorten(text), p.Message)
				}
			}
		}
	}
	for _, a := range shape.Actions {
		bad := map[Symbol]string{}
		for row, s := range pace.Over(l.pace, rows.Cols[a.Column]) {
			why, ok := bad[s]
			if !ok {
				if text := l.out.Symbols.Text(s); !a.MatchesAny(text) && isMeantAction(text) {
					why = text
				}
				bad[s] = why
			}
			if why != "" && l.denies(row) {
				l.Judge(int(rows.Lines[row]), 0, "action", "%s", ActionMessage(l.model, a.Column, why))
			}
		}
	}
	for _, name := range model.Variables() {
		l.refuseNobody(shape, name, "pattern-variable", "it stands for names in patterns of the path alone")
	}
	if !slices.Contains(shape.Spared[shape.Names], "*") {
		l.refuseNobody(shape, "*", "subject-everyone", "everybody is "+authz.GroupAnyone)
	}
}

// refuseNobody refuses lines that deny something to a name which is nobody's.
func (l *loader) refuseNobody(shape *model.Outline, name, rule, why string) {
	nobody, ok := l.out.Symbols.Lookup(name)
	if !ok || shape.Names < 0 {
		return
	}
	for row, s := range l.out.Rows.Cols[shape.Names] {
		if s == nobody && l.denies(row) {
			l.Judge(int(l.out.Rows.Lines[row]), 0, rule, "%q is nobody's name, so this denies nothing: %s", name, why)
		}
	}
}

// IsResource reports whether an object is a name that no path has, such as data2 or
// project:42: that of a resource of an application which shares the policy.
func IsResource(object string) bool { return !strings.ContainsAny(object, `/\*?[](){}|^$+%`) }

// maxMeant bounds how many lines are looked at for a name.
const maxMeant = 1 << 16

// meansPath reports whether a deny for a name may be meant for a path: where other
// lines allow that path, and none is about a name.
func (l *loader) meansPath(shape *model.Outline, name string) bool {
	column, looks := l.out.Rows.Cols[shape.Paths], maxMeant
	for row, s := range column {
		if !l.denies(row) && IsResource(l.out.Symbols.Text(s)) {
			return false
		}
	}
	for row, s := range column {
		if l.denies(row) {
			continue
		}
		if looks--; looks < 0 {
			return true
		}
		for _, path := range []string{"/" + name, "/" + name + "/x"} {
			if ok, err := shape.Func.Match(path, l.out.Symbols.Text(s)); ok || err != nil {
				return true
			}
		}
	}
	return false
}

// isMeantAction reports whether a value that matches no action is meant for one.
func isMeantAction(value string) bool {
	return value == "*" || slices.ContainsFunc(model.RequestActions(), func(action string) bool { return strings.EqualFold(action, strings.TrimSpace(value)) })
}

// ActionMessage says what is wrong with an action that no request has.
func ActionMessage(m *model.Model, col int, value string) string {
	field := m.Policy[col]
	switch {
	case value == "*":
		return field + ` "*" matches no request, for the matcher compares it like any other: add || p.` + field + ` == "*" to it`
	case isMeantAction(value):
		return field + " \"" + finding.Quoted(value) + "\" matches no request: write \"" + strings.ToLower(value) + "\""
	}
	return field + " \"" + finding.Quoted(value) + "\" matches no request: requests are " + strings.Join(model.RequestActions(), ", ")
}

// checkPatterns compiles every pattern and rule of the policy. Stock Casbin
// would fail each request that reaches a bad one.
func (l *loader) checkPatterns() {
	for _, c := range l.model.Patterns() {
		l.checkColumn(c.Column, "pattern", c.Reached, c.Check)
	}
	for _, column := range l.model.Subrules() {
		l.checkColumn(column, "rule", nil, l.model.CheckSubrule)
	}
}

// checkColumn checks each value of a column once, and tells of it in the first line
// that comes to be evaluated by it.
func (l *loader) checkColumn(column int, rule string, reached func(line func(column int) string) bool, check func(string) error) {
	checked, bad := make([]bool, l.out.Symbols.Len()), map[Symbol]error{}
	for row, s := range pace.Over(l.pace, l.out.Rows.Cols[column]) {
		if !checked[s] {
			checked[s] = true
			if err := check(l.out.Symbols.Text(s)); err != nil {
				bad[s] = err
			}
		}
		if len(bad) == 0 {
			continue
		}
		err, ok := bad[s]
		if !ok || reached != nil && !reached(func(column int) string { return l.out.Symbols.Text(l.out.Rows.Cols[column][row]) }) {
			continue
		}
		delete(bad, s)
		rule := rule
		var own interface {
			error
			Rule() string
		}
		if errors.As(err, &own) { // it has a rule of its own
			rule = own.Rule()
		}
		l.Fail(int(l.out.Rows.Lines[row]), rule, "%s %q: %s", l.model.Policy[column], finding.Shorten(l.out.Symbols.Text(s)), finding.Escape(err.Error()))
	}
}
