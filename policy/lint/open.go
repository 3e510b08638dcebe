package lint

import (
	"fmt"
	"slices"

	"securefiles/authz"
	"securefiles/policy"
	"securefiles/policy/internal/finding"
	"securefiles/policy/internal/model"
	"securefiles/policy/internal/table"
)

// lintOpen looks for whoever may have everything. It asks, of each way in which a
// line can match, whether it matches for somebody whom nothing names, and paths
// that nothing names.
func (l *linter) lintOpen() {
	conjunctions, ok := l.model.Root.Conjunctions(false)
	if !ok || l.model.Effect == model.DenyOverride {
		return // the effect itself is open, and told of
	}
	p, err := newProbe(l)
	if err != nil {
		return // it compiled before
	}
	ways := make([]*way, 0, len(conjunctions))
	for _, literals := range conjunctions {
		ways = append(ways, p.way(literals))
	}
	p.byAddress = !slices.ContainsFunc(ways, func(w *way) bool { return w.who })
	for _, w := range ways {
		p.tellModel(w, len(ways))
	}
	for row := range l.table.Rows.Len() {
		if row%65536 == 0 && l.ctx.Err() != nil {
			return
		}
		if !l.allows(row) {
			continue
		}
		for _, w := range ways {
			if w.asksLine && p.holdsFor(w, row, p.anonymous) {
				p.tellRow(w, row, len(ways))
				break
			}
		}
	}
}

// An asker is somebody whom no line names.
type asker struct {
	subject string
	groups  []string
}

// A probe evaluates parts of the matcher for askers.
type probe struct {
	*linter
	prober              *model.Prober
	stranger, anonymous *asker
	paths               []string
	dom                 int   // the column that is compared to r.dom, or -1
	actions             []int // those that are compared to r.act
	byAddress           bool  // no way asks who: the model is for addresses, if for anything
	// What is being evaluated; a row of -1 is none.
	asking         *asker
	action, object string
	row            int
}

// A way is one in which a line can match: literals that must all hold.
type way struct {
	literals  []*literal
	text      string
	asksLine  bool
	who, what bool // it asks who, or for what
	address   bool // it asks from where, and anybody may be there
	named     bool // it compares both to the line
	pinned    bool // it is for lines of a kind: p.sub == "public"
}

// A literal is one of the matcher's, compiled.
type literal struct {
	model.Literal
	probe *model.Probe
	known map[literalKey]bool
}

type literalKey struct {
	first, second table.Symbol
	asker         *asker
	action        string
}

func newProbe(l *linter) (*probe, error) {
	p := &probe{linter: l, dom: -1, anonymous: &asker{authz.Anonymous, []string{authz.GroupAnyone}}}
	name := "somebody"
	for {
		if _, taken := l.table.Symbols.Lookup(name); !taken {
			break
		}
		name += "'"
	}
	p.stranger = &asker{name, []string{authz.GroupAnyone}}
	p.paths = []string{"/xq7", "/zk/w9v.jx", "/qz8/xw/k3/vv"}
	for _, a := range l.model.Atoms {
		if a.Kind == model.Equal && l.model.Request[a.Request] == "dom" {
			p.dom = a.Policy
		}
		if slices.Equal(a.Requests, []string{"act"}) {
			p.actions = append(p.actions, a.Columns...)
		}
	}
	var err error
	p.prober, err = model.NewProber(l.model, p.hasRole)
	return p, err
}

// hasRole answers for a role function.
func (p *probe) hasRole(kind string, args []string) bool {
	name, role, domain := args[0], args[1], table.Symbol(0)
	if name == role {
		return true
	}
	if kind != "g" || name != p.asking.subject {
		return false
	}
	if len(args) > 2 {
		var named bool
		if domain, named = p.table.Symbols.Lookup(args[2]); !named {
			domain = table.NoSymbol
		}
	}
	sym, ok := p.table.Symbols.Lookup(role)
	return slices.Contains(p.asking.groups, role) || ok && slices.ContainsFunc(append([]string{name}, p.asking.groups...), func(n string) bool {
		return slices.Contains(p.roles.closure(n, domain), sym)
	})
}

// request returns a field of the request that is made up.
func (p *probe) request(field string) string {
	switch field {
	case "sub":
		return p.asking.subject
	case "obj":
		return p.object
	case "act":
		return p.action
	case "ip":
		return "203.0.113.77"
	case "dom":
		if p.dom >= 0 && p.row >= 0 {
			return p.text(p.dom, p.row)
		}
		return "main"
	}
	return "xq7.example.net" // the host
}

// line returns a field of the row.
func (p *probe) line(field string) string {
	switch col := p.model.PolicyField(field); {
	case col >= 0 && p.row >= 0:
		return p.text(col, p.row)
	case field == "eft":
		return "allow"
	}
	return ""
}

// way takes literals in: those that say most about a line come first.
func (p *probe) way(literals []model.Literal) *way {
	w := &way{text: model.DescribeConjunction(literals)}
	named := 0
	for _, one := range literals {
		lit := &literal{Literal: one, known: map[literalKey]bool{}}
		lit.probe, _ = p.prober.Probe(&one.Part) // without, it holds for nobody
		w.literals = append(w.literals, lit)
		cols := slices.DeleteFunc(slices.Clone(one.Columns), func(col int) bool { return p.model.Policy[col] == "eft" })
		w.asksLine = w.asksLine || len(cols) > 0 || one.Evaluates
		if one.Kind == model.Period {
			continue // it tells no lines apart
		}
		who, what, address := one.Asks("sub"), one.Asks("obj") || one.Asks("dom"), one.Asks("ip")
		if len(one.Columns) == 0 && !one.Evaluates && (who || what || address) && p.always(lit) {
			continue
		}
		w.address = w.address || address
		w.who = w.who || who || one.Evaluates
		w.what = w.what || what || one.Evaluates
		if len(cols) > 0 && (who || address) {
			named |= 1
		}
		if len(cols) > 0 && what {
			named |= 2
		}
		if len(one.Requests) == 0 && len(cols) > 0 && !one.Negated && !slices.ContainsFunc(cols, func(col int) bool { return slices.Contains(p.actions, col) }) {
			w.pinned = true
		}
		if len(one.Requests) == 0 && len(one.Columns) > 0 && len(cols) == 0 {
			w.pinned = true // p.eft == "allow" && r.sub == "root"
		}
	}
	w.named = named == 3
	slices.SortStableFunc(w.literals, func(a, b *literal) int { return cost(a) - cost(b) })
	return w
}

// cost says in which order literals are tried.
func cost(l *literal) int {
	switch {
	case l.Asks("act"):
		return 3
	case l.Asks("obj"):
		return 2
	case len(l.Requests) > 0 || l.Evaluates:
		return 1
	}
	return 0
}

// always reports whether a literal that asks the request alone holds for askers
// and paths that nothing names.
func (p *probe) always(lit *literal) bool {
	return p.literal(lit, -1, p.anonymous, "read") && p.literal(lit, -1, p.stranger, "read")
}

// holdsFor reports whether a line matches for an asker and every path, in one of
// the actions. A row of -1 is none.
func (p *probe) holdsFor(w *way, row int, who *asker) bool {
	for _, action := range model.RequestActions() {
		holds := true
		for _, lit := range w.literals {
			if holds = p.literal(lit, row, who, action); !holds {
				if !lit.Asks("act") && !lit.Evaluates {
					return false // for the other actions too
				}
				break
			}
		}
		if holds {
			return true
		}
	}
	return false
}

// literal reports whether a literal holds for an asker and every path.
func (p *probe) literal(lit *literal, row int, who *asker, action string) bool {
	if lit.probe == nil {
		return false
	}
	if row < 0 && len(lit.Columns) == 0 && slices.Equal(lit.Requests, []string{"host"}) {
		return true // whoever asks chooses it
	}
	key, keyed := literalKey{asker: who}, len(lit.Columns) <= 1 && row >= 0
	if keyed && len(lit.Columns) == 1 {
		key.first = p.table.Rows.Cols[lit.Columns[0]][row] + 1
	}
	if lit.Asks("dom") && p.dom >= 0 && row >= 0 {
		key.second = p.table.Rows.Cols[p.dom][row] + 1
	}
	if lit.Evaluates { // a rule may ask for anything
		keyed = false
	}
	if lit.Asks("act") {
		key.action = action
	}
	if keyed {
		if holds, ok := lit.known[key]; ok {
			return holds
		}
	}
	p.asking, p.action, p.row = who, action, row
	holds := true
	for _, p.object = range p.paths {
		result, ok := lit.probe.Eval(p.request, p.line)
		if holds = ok && result != lit.Negated; !holds || !lit.Asks("obj") && !lit.Evaluates {
			break
		}
	}
	if keyed {
		lit.known[key] = holds
	}
	return holds
}

// tellModel reports a way that lets in more than its lines say.
func (p *probe) tellModel(w *way, ways int) {
	tell := func(format string, args ...any) {
		p.add(policy.Finding{File: p.model.File, Line: p.model.Line, Rule: "model-open"}, format, args...)
	}
	by := ""
	if ways > 1 {
		by = ", by " + w.text
	}
	switch {
	case !w.asksLine && p.holdsFor(w, -1, p.anonymous):
		tell("everybody may have everything, whatever the lines say%s: ask r.sub and r.obj there", by)
	case !w.asksLine && w.address && !w.who && !w.what:
		tell("everybody at an address may have everything, without credentials too, whatever the lines say%s: ask r.sub and r.obj there", by)
	case !w.asksLine || w.pinned:
	case w.address && !w.who && !w.what:
		tell("a line lets everybody at an address have everything, without credentials too%s, which asks neither who nor what: ask r.sub and r.obj there too", by)
	case w.address && !w.who && !p.byAddress:
		tell("a line counts for everybody at an address, without credentials too%s, which does not ask who: ask r.sub there too", by)
	case w.address && !w.who:
	case !w.who && !w.what:
		tell("a line lets everybody have everything%s, which asks neither who nor what: ask r.sub and r.obj there too; || binds less than &&, so alternatives of one part stand in parentheses", by)
	case !w.who:
		tell("a line counts for everybody, without credentials too%s, which does not ask who: ask r.sub there too", by)
	case !w.what:
		tell("a line counts for every file%s, which does not ask for what: ask r.obj there too", by)
	}
}

// tellRow reports a line that lets everybody without credentials have
// everything.
func (p *probe) tellRow(w *way, row, ways int) {
	line := p.table.Rows.Lines[row]
	by := ""
	if !w.named && ways > 1 {
		by = ", by " + w.text + " of the matcher"
	} else if e := p.opening(row); e != nil {
		by = fmt.Sprintf(", for line %d gives %s the role", e.Line, finding.Quoted(p.table.Symbols.Text(e.Name)))
	}
	if p.holdsFor(w, row, p.stranger) {
		p.warn(line, 0, "open-to-anyone", "lets everybody have everything, without credentials too%s: name the part that is public, or say %s", by, authz.GroupAuthenticated)
		return
	}
	p.warn(line, 0, "open-to-anyone", "lets whoever has no credentials have everything%s: name the part that is public", by)
}

// opening returns the edge that gives a row's role to everybody, if one does.
func (p *probe) opening(row int) *table.Edge {
	if p.shape.Names < 0 {
		return nil
	}
	role := p.table.Rows.Cols[p.shape.Names][row]
	for i, e := range p.table.Edges["g"] {
		if name := p.table.Symbols.Text(e.Name); e.Role == role && (name == authz.GroupAnyone || name == authz.Anonymous) {
			return &p.table.Edges["g"][i]
		}
	}
	return nil
}
