package explain

import (
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"securefiles/policy/internal/model"
	"securefiles/policy/internal/pattern"
	"securefiles/policy/internal/table"
)

// A pathPattern is one of a policy, with what compares it to a path.
type pathPattern struct {
	compares pattern.Func
	text     string
}

// A language is what a row asks of a path, as far as a part of the matcher does:
// a pattern, or some paths by name.
type language struct {
	expression pattern.Expression
	pattern    pathPattern // without a function where names are meant
}

func patternLanguage(f pattern.Func, text string, names pattern.Names) language {
	if f.Check(text) != nil { // it matches nothing, or fails whatever the path is
		return language{expression: pattern.Nothing()}
	}
	e := f.Expression(text, names)
	if !utf8.ValidString(e.Text) { // no regular expression is made of it
		e = pattern.Expression{Wider: true}
	}
	return language{e, pathPattern{f, text}}
}

// nameLanguage is of those among some names that are paths.
func nameLanguage(names []string) language {
	var quoted []string
	for _, n := range names {
		if pattern.IsPath(n) {
			quoted = append(quoted, regexp.QuoteMeta(n))
		}
	}
	if len(quoted) == 0 {
		return language{expression: pattern.Nothing()}
	}
	slices.Sort(quoted)
	return language{expression: pattern.Expression{Text: "^(?:" + strings.Join(slices.Compact(quoted), "|") + ")$"}}
}

// languages are what the rows of one side ask of a path.
type languages struct {
	*inquiry
	hidden   []*model.Atom // those that ask for the path, or may
	monotone bool          // a row matches a path that makes more of them hold
	mixed    bool          // they ask for more of a request than the path
	subject,
	group bool // some ask who it is whose name the path has
	kept    map[int32]rowLanguages
	rules   map[table.Symbol]*model.Part
	holders map[holdersOf]map[table.Symbol][]string
	at      time.Time // the moment that is compared
}

// rowLanguages are those of a row. Blind says what is not known of it; named, that
// they are of the names that asked.
type rowLanguages struct {
	list  []language
	blind string
	named bool
}

// add adds a pattern, with who stands for $sub and $group.
func (r *rowLanguages) add(f pattern.Func, text string, names pattern.Names) {
	subject, group := f.AsksNames(text)
	r.named = r.named || subject || group
	r.list = append(r.list, patternLanguage(f, text, names))
}

type holdersOf struct {
	kind   string
	domain table.Symbol
}

// newLanguages is about what holds at a moment.
func newLanguages(a *inquiry, at time.Time) *languages {
	l := &languages{inquiry: a, at: at, kept: map[int32]rowLanguages{}, rules: map[table.Symbol]*model.Part{}, holders: map[holdersOf]map[table.Symbol][]string{}, monotone: true}
	for _, atom := range a.version.Engine.Model.Atoms {
		if atom.Asks("obj") || atom.Evaluates {
			l.hidden = append(l.hidden, atom)
			l.monotone = l.monotone && isPositive(atom)
			l.mixed = l.mixed || atom.Evaluates || len(atom.Requests) > 1
		}
	}
	l.monotone = l.monotone && !negates(a.version.Engine.Model.Root)
	l.subject, l.group = a.asksNames()
	return l
}

// isPositive reports whether an atom holds for what its patterns match.
func isPositive(a *model.Atom) bool {
	switch a.Kind {
	case model.Pattern, model.Equal, model.Role:
		return true
	}
	if a.Evaluates || a.Function == "" || a.Function == "!=" || a.Function == "!~" || len(a.Calls) != 1 {
		return false
	}
	_, ok := pattern.ByName(a.Function)
	return ok
}

// negates reports whether a term asks for a path that something does not match.
func negates(t *model.Term) bool {
	return t.Op == model.Not && (t.Asks("obj") || t.Evaluates) || slices.ContainsFunc(t.Kids, negates)
}

// isHidden reports whether an atom asks for the path in a row, in what it says or
// by a rule of the policy.
func (l *languages) isHidden(a *model.Atom, row int32) bool {
	if a.Asks("obj") {
		return true
	}
	return a.Evaluates && slices.ContainsFunc(l.rulesOf(a, row), func(p *model.Part) bool { return p == nil || p.Asks("obj") })
}

// rulesOf are the rules that an atom evaluates in a row; nil stands for one that
// cannot be read.
func (l *languages) rulesOf(a *model.Atom, row int32) []*model.Part {
	var rules []*model.Part
	for _, c := range a.Calls {
		if c.Function != "eval" {
			continue
		}
		if len(c.Operands) != 1 || c.Operands[0].Column < 0 || row < 0 {
			rules = append(rules, nil)
			continue
		}
		sym := l.version.Engine.Rows.Cols[c.Operands[0].Column][row]
		rule, ok := l.rules[sym]
		if !ok {
			if part, err := model.ParseSubrule(l.version.Engine.Model, l.version.Engine.Symbols.Text(sym)); err == nil {
				rule = &part
			}
			l.rules[sym] = rule
		}
		rules = append(rules, rule)
	}
	return rules
}

// of returns what a row asks of a path, -1 for a decision without rows. Names are
// those of whoever asks.
func (l *languages) of(row int32, names pattern.Names) rowLanguages {
	if known, ok := l.kept[row]; ok {
		return known
	}
	var out rowLanguages
	for _, a := range l.hidden {
		if !l.isHidden(a, row) {
			continue
		}
		switch a.Kind {
		case model.Pattern, model.Equal:
			out.add(a.Func, l.cell(row, a.Policy), names)
			continue
		case model.Role:
			if names, ok := l.names(a, row); ok {
				out.list = append(out.list, nameLanguage(names))
				continue
			}
		}
		parts := []*model.Part{&a.Part}
		if a.Evaluates {
			parts = append(parts, l.rulesOf(a, row)...)
		}
		for _, p := range parts {
			if p == nil || !l.read(p, row, names, &out) {
				out.blind = "the matcher compares the path in a way that cannot be listed: " + a.Source
			}
		}
	}
	if len(l.kept) < 1<<18 && !out.named {
		l.kept[row] = out
	}
	return out
}

func (l *languages) cell(row int32, column int) string {
	if row < 0 {
		return ""
	}
	return l.version.Engine.Symbols.Text(l.version.Engine.Rows.Cols[column][row])
}

// names returns the paths that have a role in a row; it is false where they are
// not known before somebody asks.
func (l *languages) names(a *model.Atom, row int32) ([]string, bool) {
	e := l.version.Engine
	if a.Domain == model.DomainRequest || row < 0 {
		return nil, false
	}
	role, at := e.Rows.Cols[a.Policy][row], holdersOf{kind: a.Function}
	at.domain, _ = e.Symbols.Lookup("")
	if a.Domain == model.DomainPolicy && e.Model.Roles[a.Function] == 3 {
		at.domain = e.Rows.Cols[a.DomainField][row]
	}
	holders, ok := l.holders[at]
	if !ok {
		holders = map[table.Symbol][]string{}
		var walk table.Walk
		seen := map[table.Symbol]bool{}
		for _, edge := range l.version.Table.Edges[at.kind] {
			name := e.Symbols.Text(edge.Name)
			if seen[edge.Name] || !pattern.IsPath(name) {
				continue
			}
			seen[edge.Name] = true
			e.Graphs[at.kind].Begin(&walk, e.Symbols, edge.Name, nil, at.domain, l.at)
			for _, reached := range walk.All() {
				if reached != edge.Name {
					holders[reached] = append(holders[reached], name)
				}
			}
		}
		l.holders[at] = holders
	}
	return append([]string{e.Symbols.Text(role)}, holders[role]...), true
}

// read adds what a part of the matcher, or a rule, asks of a path, and is false
// where it asks in a way that is not known.
func (l *languages) read(p *model.Part, row int32, names pattern.Names, out *rowLanguages) bool {
	known := 0
	for i := range p.Calls {
		c := &p.Calls[i]
		at := slices.IndexFunc(c.Operands, func(o model.Part) bool { return o.Request == "obj" })
		if at < 0 {
			continue
		}
		if len(c.Operands) < 2 {
			return false
		}
		other := &c.Operands[1-min(at, 1)]
		if other.Request == "obj" {
			return false
		}
		known++
		_, isRole := l.version.Engine.Model.Roles[c.Function]
		f, isPattern := pattern.ByName(strings.Replace(c.Function, "!~", "=~", 1))
		texts, fixed := l.texts(other, row)
		switch {
		case isRole && len(c.Operands) <= 3:
			names := slices.Clone(texts)
			for _, edge := range l.version.Table.Edges[c.Function] {
				names = append(names, l.version.Engine.Symbols.Text(edge.Name), l.version.Engine.Symbols.Text(edge.Role))
			}
			if len(names) > 256 || !fixed {
				return false
			}
			for _, n := range names {
				out.list = append(out.list, nameLanguage([]string{n}))
			}
		case !fixed:
			return false
		case c.IsComparison():
			for _, text := range texts {
				out.add(pattern.Equal(), text, names)
			}
		case c.Function == "in" && at == 0:
			for _, text := range quotedTexts(other.Source) {
				out.add(pattern.Equal(), text, names)
			}
		case isPattern && at == 0 && len(c.Operands) == 2:
			for _, text := range texts {
				if f.Check(text) != nil {
					return false
				}
				out.add(f, text, names)
			}
		default:
			return false
		}
	}
	return known == strings.Count(p.Source, "r.obj")
}

// texts are what an operand is in a row; none where it comes from the request,
// where it is never a path. It is false where it is not known.
func (l *languages) texts(p *model.Part, row int32) ([]string, bool) {
	switch {
	case p.Column >= 0:
		return []string{l.cell(row, p.Column)}, true
	case p.IsText:
		return []string{p.Text}, true
	case p.Request != "":
		return nil, p.Request != "sub"
	case len(p.Requests) == 0 && !p.LooksAtLine() && len(p.Calls) == 0:
		texts := p.Texts
		if len(texts) == 0 { // an expression that has been compiled is no text
			texts = quotedTexts(p.Source)
		}
		return texts, len(texts) > 0
	}
	return nil, false
}

var quoted = regexp.MustCompile(`"(?:[^"\\]|\\.)*"`)

// quotedTexts are the texts in a part as a model has it.
func quotedTexts(source string) []string {
	var out []string
	for _, q := range quoted.FindAllString(source, -1) {
		if text, err := strconv.Unquote(q); err == nil {
			out = append(out, text)
		}
	}
	return out
}

// prefixes are with what each path begins that a row matches, one for each
// pattern; it is false where that may be anything.
func (l *languages) prefixes(row int32) ([]string, bool) {
	if !l.monotone || !l.bound() {
		return nil, false
	}
	var out []string
	for _, a := range l.hidden {
		if a.Kind != model.Pattern && a.Kind != model.Equal {
			return nil, false
		}
		out = append(out, a.Func.Anchors(l.cell(row, a.Policy)).Prefix)
	}
	return out, true
}

// bound reports whether no row matches a path but by a pattern of its own.
func (l *languages) bound() bool {
	terms, ok := l.version.Engine.Model.Root.Conjunctions(false)
	return ok && !slices.ContainsFunc(terms, func(literals []model.Literal) bool {
		return !slices.ContainsFunc(literals, func(literal model.Literal) bool {
			return literal.Asks("obj") && (literal.Kind == model.Pattern || literal.Kind == model.Equal)
		})
	})
}

// asksRoles reports whether a role definition is asked for subjects and for
// paths, and is false where it is asked in another way, or by rules.
func (a *inquiry) asksRoles(kind string) (ofSubjects, ofPaths, ok bool) {
	m := a.version.Engine.Model
	if m.Evaluates {
		return false, false, false
	}
	for _, atom := range m.Atoms {
		for _, c := range atom.Calls {
			switch {
			case c.Function != kind:
			case !atom.Asks("obj") && c.Operands[0].Request == "sub" && (c.Operands[1].Column >= 0 || c.Operands[1].IsText):
				ofSubjects = true
			case atom.Kind == model.Role && m.Request[atom.Request] == "obj" && atom.Domain != model.DomainRequest:
				ofPaths = true
			default:
				return false, false, false
			}
		}
	}
	return ofSubjects, ofPaths, true
}

// pathRoleColumns are the columns in which a role definition is asked for paths.
func (a *inquiry) pathRoleColumns(kind string) []int {
	var columns []int
	for _, atom := range a.version.Engine.Model.Atoms {
		if atom.Kind == model.Role && atom.Function == kind && atom.Asks("obj") {
			columns = append(columns, atom.Policy)
		}
	}
	return columns
}
