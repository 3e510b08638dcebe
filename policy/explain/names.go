package explain

import (
	"context"
	"slices"
	"strings"

	"securefiles/authz"
	"securefiles/policy/internal/engine"
	"securefiles/policy/internal/pattern"
)

// filled returns a path that was made of a pattern with the names of a principal in
// the place of $sub and $group: one for each group. There is none where a name is
// missing.
func filled(path string, p authz.Principal) []string {
	names := engine.NamesOf(&authz.Query{Principal: p})
	groups := names.Groups
	if len(groups) == 0 {
		groups = []string{""}
	}
	var out []string
	for _, g := range groups {
		if text, ok := pattern.Fill(path, names.Subject, g); ok && pattern.IsPath(text) && !slices.Contains(out, text) {
			out = append(out, text)
		}
	}
	return out
}

// filledPattern returns a pattern with the subject in the place of $sub, and a group
// in that of $group where there is one alone. A name that may mean something to the
// function is left out, and that of an unnamed user. It is false where the pattern is
// about nobody's path.
func filledPattern(f pattern.Func, text string, p authz.Principal, unnamed bool) (string, bool) {
	subject, group := f.AsksNames(text)
	names := engine.NamesOf(&authz.Query{Principal: p})
	if subject && names.Subject == "" || group && len(names.Groups) == 0 {
		return text, false
	}
	name, of := pattern.SubjectName, pattern.GroupName
	if subject && !unnamed && isPlainName(names.Subject) {
		name = names.Subject
	}
	if group && len(names.Groups) == 1 && isPlainName(names.Groups[0]) {
		of = names.Groups[0]
	}
	if subject || group {
		text, _ = pattern.Fill(text, name, of)
	}
	return text, true
}

// isPlainName reports whether a name means itself to every function, more or less.
func isPlainName(name string) bool {
	return !strings.ContainsAny(name, `*?[]{}()\|+^$:`)
}

// asksNames reports whether a pattern of the policy, of its rules or of its model asks
// for the subject, or for a group.
func (a *inquiry) asksNames() (subject, group bool) {
	e := a.version.Engine
	for i := range e.Model.Root.Calls {
		c := &e.Model.Root.Calls[i]
		if f, ok := pattern.ByName(c.Function); ok && len(c.Operands) == 2 && c.Operands[0].Request == "obj" && c.Operands[1].IsText {
			asksSubject, asksGroup := f.AsksNames(c.Operands[1].Text)
			subject, group = subject || asksSubject, group || asksGroup
		}
	}
	if e.Model.Evaluates { // whatever a rule does with it
		for _, values := range e.Rows.Cols {
			for _, s := range values {
				text := e.Symbols.Text(s)
				subject, group = subject || strings.Contains(text, "/"+pattern.SubjectName), group || strings.Contains(text, "/"+pattern.GroupName)
			}
		}
	}
	for column, values := range e.Rows.Cols {
		for _, f := range e.Model.PathFunctions(column) {
			for i, s := range values {
				if i > 0 && s == values[i-1] {
					continue
				}
				asksSubject, asksGroup := f.AsksNames(e.Symbols.Text(s))
				subject, group = subject || asksSubject, group || asksGroup
			}
		}
	}
	return subject, group
}

// addNamed adds whoever has a path because a segment of it is called so: a user
// whom the policy need not name, by himself or in a group, and whoever is in a
// group that is called so.
func (a *inquiry) addNamed(ctx context.Context, w *Holders, q authz.Query) error {
	subject, group := a.asksNames()
	if !subject && !group {
		return nil
	}
	users, groups := []string{""}, []string{""} // "" is a stranger, and no group
	for segment := range strings.SplitSeq(strings.TrimPrefix(q.Object, "/"), "/") {
		sym, known := a.version.Table.Symbols.Lookup(segment)
		reserved := known && a.version.IsReserved(sym)
		if subject && !reserved && authz.ValidSubject(segment) == nil && !slices.Contains(users, segment) {
			users = append(users, segment)
		}
		if group && authz.ValidGroup(segment) == nil && !slices.Contains(groups, "@"+segment) {
			groups = append(groups, "@"+segment)
		}
	}
	own, others := len(users), []string{""} // whose names are segments; the policy's groups
	for _, name := range a.version.Names() {
		switch {
		case name[0] == '@':
			others = append(others, name)
		case !slices.Contains(users[:own], name):
			users = append(users, name)
		}
	}
	stranger := strangerTo(a.version)
	ask := func(user string, in ...string) (bool, *Line, error) {
		if user == "" {
			user = stranger
		}
		q.Principal = authz.Principal{Subject: user}
		for _, g := range in {
			if g != "" && !slices.Contains(q.Principal.Groups, g) {
				q.Principal.Groups = append(q.Principal.Groups, g)
			}
		}
		q.Principal = q.Principal.WithBuiltinGroups()
		d, line, err := a.ask(&q)
		return d.Effect == authz.Allow && err == nil, line, err
	}
	asked := 0
	for i, user := range users {
		for _, g := range groups {
			for _, other := range others {
				if asked++; asked%64 == 0 && ctx.Err() != nil {
					return ctx.Err()
				}
				named := user != "" && i < own // by a segment
				if !named && g == "" || i >= own && other != "" || other == g && g != "" {
					continue // Who has asked, or the policy's users with its groups, which it does not
				}
				allowed, line, err := ask(user, g, other)
				if err != nil || !allowed && line == nil {
					continue
				}
				same := false // without one of them: whoever lacks it is told of already, or is anybody
				for i, part := range []string{user, g, other} {
					parts := []string{user, g, other}
					if parts[i] = ""; part == "" {
						continue
					}
					less, by, _ := ask(parts[0], parts[1], parts[2])
					same = same || less == allowed && (allowed || by != nil && by.Line == line.Line)
				}
				if same {
					continue
				}
				access := Access{Name: user, Kind: KindUser, Line: line}
				for _, in := range []string{other, g} {
					if in != "" {
						access.Groups = append(access.Groups, in)
					}
				}
				if user == "" {
					access.Name, access.Kind, access.Groups = access.Groups[0], KindGroup, access.Groups[1:]
				}
				add(w, access, allowed)
			}
		}
	}
	return nil
}

// add adds what is not there yet.
func add(w *Holders, access Access, allowed bool) {
	list := &w.Denied
	if allowed {
		list = &w.Allowed
	}
	same := func(other Access) bool {
		return other.Name == access.Name && slices.Equal(other.Groups, access.Groups)
	}
	if !slices.ContainsFunc(*list, same) {
		*list = append(*list, access)
	}
}

// Bounds of the names that are made up, of users and of groups: so many, from so many
// lines.
const (
	maxMade     = 32
	maxMadeRows = 4096
)

// madeUp returns users and groups whom neither policy names, where lines give them
// what is called like them: one of either who is called like nothing, and those who are
// called like a part of a path: one that the lines which have changed are about, or
// those beside these, or one that was given.
func (d *differ) madeUp(stranger string) []subject {
	before, after := d.sides[0], d.sides[1]
	ofUsers, ofGroups := before.subject || after.subject, before.group || after.group
	if !ofUsers && !ofGroups {
		return nil
	}
	listed := map[string]bool{stranger: true}
	for _, a := range d.sides {
		for _, name := range a.version.Names() {
			listed[name] = true
		}
	}
	var users, groups []subject
	add := func(segment string) {
		if ofUsers && len(users) < maxMade && !listed[segment] && authz.ValidSubject(segment) == nil {
			listed[segment] = true
			users = append(users, principalOf(segment, stranger))
		}
		if name := "@" + segment; ofGroups && len(groups) < maxMade && !listed[name] && authz.ValidGroup(segment) == nil {
			listed[name] = true
			groups = append(groups, principalOf(name, stranger))
		}
	}
	if ofGroups {
		name := "somegroup"
		for listed["@"+name] {
			name += "'"
		}
		groups = append(groups, principalOf("@"+name, stranger))
	}
	for s, a := range d.sides {
		rows := slices.Concat(d.changed[s].rows, d.rows[s].rows)
		for _, row := range rows[:min(len(rows), maxMadeRows)] {
			for _, l := range a.of(row, pattern.Names{}).list {
				if (l.pattern.compares == pattern.Func{}) {
					continue
				}
				for _, sample := range l.pattern.compares.Samples(l.pattern.text) {
					for segment := range strings.SplitSeq(sample, "/") {
						add(segment)
					}
				}
			}
		}
	}
	for _, path := range d.opts.Paths {
		for segment := range strings.SplitSeq(path, "/") {
			add(segment)
		}
	}
	return append(groups, users...)
}

// areNamed reports whether lines that somebody comes to are about paths that are
// called like him, or like his groups.
func (d *differ) areNamed(combinations [][]met, n subject) bool {
	if !d.asksNames() {
		return false
	}
	names := engine.NamesOf(&authz.Query{Principal: n.principal})
	for _, rows := range combinations {
		for _, m := range rows {
			for s, row := range m.rows {
				if row != absent && m.chances[s] != engine.ForAll && d.sides[s].of(row, names).named {
					return true
				}
			}
		}
	}
	return false
}

// asksNames reports whether one of the policies gives paths to those who are called
// like them.
func (d *differ) asksNames() bool {
	return slices.ContainsFunc(d.sides[:], func(a *languages) bool { return a.subject || a.group })
}
