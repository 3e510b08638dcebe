package explain

import (
	"context"
	"slices"
	"strings"

	"securefiles/authz"
	"securefiles/policy"
	"securefiles/policy/internal/model"
	"securefiles/policy/internal/pattern"
)

// A Diff is what changes in access between two policies, as far as the paths
// tell that were tried.
type Diff struct {
	// Gained and Lost are in the order of the policies' names.
	Gained []Change `json:"gained"`
	Lost   []Change `json:"lost"`
	// Paths and Names count what was tried.
	Paths int `json:"paths"`
	Names int `json:"names"`
	// NotExact says why subjects that no policy names may change otherwise; it
	// is empty where they come out as @authenticated does.
	NotExact string `json:"not_exact,omitempty"`
}

// A Change is a path for which the answer changes, for names for which the same
// lines decide before and after.
type Change struct {
	Names  []string `json:"names"`
	Action string   `json:"action"`
	Domain string   `json:"domain,omitempty"`
	// Pattern is one that the path was made from; empty where the path was
	// given. The change need not hold for all that the pattern matches.
	Pattern string `json:"pattern,omitempty"`
	Path    string `json:"path"`
	// Before and After are the lines that decide, with the chain of the first
	// name; nil where none does.
	Before *Line `json:"before,omitempty"`
	After  *Line `json:"after,omitempty"`
}

// DiffOptions are what a comparison can do without.
type DiffOptions struct {
	// Paths are tried beside those that are made from the patterns.
	Paths []string
	// Actions are those that are compared; none means read.
	Actions []string
	// Domains are those that are compared; none means "" alone.
	Domains []string
	// IP and Host are those of each request.
	IP, Host string
	// Accept leaves out paths for which it returns false; nil accepts all.
	Accept func(path string) bool
}

// maxFills bounds the paths that are made from two patterns.
const maxFills = 20_000

// Compare asks two policies the same questions: for each name that one of them
// has, about paths made from the patterns of both. It finds what these paths
// show, and misses what only others would.
func Compare(ctx context.Context, before, after *policy.Store, opts *DiffOptions) (*Diff, error) {
	d := &differ{out: &Diff{Gained: []Change{}, Lost: []Change{}}, probes: map[string]string{}, told: map[changeKey]int{}, sampled: map[pathPattern][]string{}}
	if opts != nil {
		d.opts = *opts
	}
	for i, store := range []*policy.Store{before, after} {
		a, err := newInquiry(store)
		if err != nil {
			return nil, err
		}
		defer a.end()
		d.sides[i] = a
	}
	if len(d.opts.Actions) == 0 {
		d.opts.Actions = []string{authz.ActionRead}
	}
	if len(d.opts.Domains) == 0 {
		d.opts.Domains = []string{""}
	}
	if !d.asks("dom") { // it makes no difference
		d.opts.Domains = []string{""}
	}
	if !d.asks("act") {
		d.opts.Actions = d.opts.Actions[:1]
	}
	d.findChanges()
	d.findProbes()
	if err := d.compare(ctx); err != nil {
		return nil, err
	}
	for _, a := range d.sides {
		a.findEdges()
	}
	return d.out, nil
}

type differ struct {
	opts  DiffOptions
	out   *Diff
	sides [2]*inquiry

	everything bool            // nothing tells which probes a change could matter for
	changed    []pathPattern   // of the lines that only one side has
	affected   map[string]bool // names that reach others on one side than on the other

	told     map[changeKey]int // where a change stands in its list
	sampled  map[pathPattern][]string
	paths    []string          // to try, in order
	probes   map[string]string // path -> a pattern that it was made from
	relevant []string          // those that a changed line matches
}

// asks reports whether a model has a field in its request.
func (d *differ) asks(field string) bool {
	return slices.ContainsFunc(d.sides[:], func(a *inquiry) bool { return slices.Contains(a.version.Engine.Model.Request, field) })
}

// A changeKey is what changes that are told together have in common.
type changeKey struct {
	direction, path, action, domain string
	before, after                   int // lines
}

// A pattern is one of a policy, with what compares it to a path.
type pathPattern struct {
	compares pattern.Func
	text     string
}

// findChanges finds the lines and the edges that only one side has.
func (d *differ) findChanges() {
	before, after := d.sides[0].version, d.sides[1].version
	d.out.NotExact = before.Engine.Model.NamesUnlisted()
	if d.out.NotExact == "" {
		d.out.NotExact = after.Engine.Model.NamesUnlisted()
	}
	d.everything = d.out.NotExact != "" || before.Engine.Model.Text != after.Engine.Model.Text
	var texts [2][]string
	var counts [2]map[string]int
	for i, a := range d.sides {
		counts[i] = make(map[string]int, a.version.Table.Rows.Len())
		for row := range a.version.Table.Rows.Len() {
			text := a.version.Text(row)
			texts[i] = append(texts[i], text)
			counts[i][text]++
		}
	}
	var common [2][]string
	for i, a := range d.sides {
		for row, text := range texts[i] {
			if counts[1-i][text] > 0 {
				common[i] = append(common[i], text)
				continue
			}
			d.changed = append(d.changed, a.patternOf(row)...)
		}
	}
	switch before.Engine.Model.Effect {
	case model.Priority, model.SubjectPriority:
		d.everything = d.everything || !slices.Equal(common[0], common[1])
	}
	// Whoever leads to a name whose roles have changed.
	edges := [2]map[string][]string{d.sides[0].edgeTexts(), d.sides[1].edgeTexts()}
	parents := map[string][]string{} // role -> names that have it
	d.affected = map[string]bool{}
	var open []string
	for i := range edges {
		for name, list := range edges[i] {
			for _, l := range list {
				role, _, _ := strings.Cut(l, "\x00")
				parents[role] = append(parents[role], name)
			}
			if !d.affected[name] && !slices.Equal(list, edges[1-i][name]) {
				d.affected[name] = true
				open = append(open, name)
			}
		}
	}
	// A role may not ask, whatever it reaches.
	for i, a := range d.sides {
		for _, l := range a.version.Table.Edges["g"] {
			role, other := a.version.Table.Symbols.Text(l.Role), d.sides[1-i].version
			if sym, ok := other.Table.Symbols.Lookup(role); (!ok || !other.IsReserved(sym)) && !d.affected[role] {
				d.affected[role] = true
				open = append(open, role)
			}
		}
	}
	for len(open) > 0 {
		name := open[len(open)-1]
		open = open[:len(open)-1]
		for _, p := range parents[name] {
			if !d.affected[p] {
				d.affected[p] = true
				open = append(open, p)
			}
		}
	}
}

// edgeTexts returns what each name is given, sorted: role, kind and domain. They
// are joined by NUL, which no line holds: the loader refuses control characters.
func (a *inquiry) edgeTexts() map[string][]string {
	out := map[string][]string{}
	text := a.version.Table.Symbols.Text
	for kind, list := range a.version.Table.Edges {
		for _, l := range list {
			out[text(l.Name)] = append(out[text(l.Name)], strings.Join([]string{text(l.Role), kind, text(l.Domain)}, "\x00"))
		}
	}
	for _, list := range out {
		slices.Sort(list)
	}
	return out
}

// patternOf returns the patterns of a row.
func (a *inquiry) patternOf(row int) []pathPattern {
	var out []pathPattern
	for _, alternative := range a.version.Engine.Model.Alternatives() {
		for _, cl := range alternative.Clauses() {
			if !cl.Asks("obj") {
				continue
			}
			pc, ok := a.version.Engine.Model.PathClauseOf(cl)
			if !ok {
				// Something else: take each field of p that it asks for a pattern.
				for _, col := range cl.Columns {
					value := a.version.Table.Symbols.Text(a.version.Table.Rows.Cols[col][row])
					for _, f := range pattern.Guesses() {
						out = append(out, pathPattern{f, value})
					}
				}
				continue
			}
			out = append(out, pathPattern{pc.Func, a.version.Table.Symbols.Text(a.version.Table.Rows.Cols[pc.Col][row])})
		}
	}
	return out
}

// simple reports whether patterns tell which paths a line matches.
func (a *inquiry) simple() bool {
	for _, alternative := range a.version.Engine.Model.Alternatives() {
		for _, cl := range alternative.Clauses() {
			if _, ok := a.version.Engine.Model.PathClauseOf(cl); cl.Asks("obj") && (!ok || cl.Atom.Kind == model.Role) {
				return false
			}
		}
		if len(alternative.Columns) == 0 || !alternative.Asks("obj") {
			return false
		}
	}
	return true
}

// findProbes makes the paths to try.
func (d *differ) findProbes() {
	add := func(path, from string) {
		if _, ok := d.probes[path]; ok || d.opts.Accept != nil && !d.opts.Accept(path) {
			return
		}
		d.probes[path] = from
		d.paths = append(d.paths, path)
	}
	for _, p := range d.opts.Paths {
		add(p, "")
	}
	seen := map[pathPattern]bool{}
	var all []pathPattern
	for _, a := range d.sides {
		for row := range a.version.Table.Rows.Len() {
			for _, p := range a.patternOf(row) {
				if !seen[p] {
					seen[p] = true
					all = append(all, p)
				}
			}
		}
	}
	for _, p := range all {
		for _, path := range d.samples(p) {
			add(path, p.text)
		}
	}
	// A path that two patterns match, of which one has changed.
	first := d.changed
	if (len(d.affected) > 0 || d.everything) && len(all) <= 200 {
		first = all
	}
	fills := 0
	for _, p := range first {
		for _, q := range all {
			if p == q || fills >= maxFills {
				continue
			}
			for _, path := range slices.Concat(d.meet(p, q), d.meet(q, p)) {
				fills++
				from := p // one that has changed, or the narrower one, more or less
				if pc, qc := slices.Contains(d.changed, p), slices.Contains(d.changed, q); qc && !pc || pc == qc && len(q.text) > len(p.text) {
					from = q
				}
				add(path, from.text)
			}
		}
	}
	for _, a := range d.sides {
		d.everything = d.everything || !a.simple()
	}
	if d.everything {
		d.relevant = d.paths
		return
	}
	for _, path := range d.paths {
		if slices.ContainsFunc(d.changed, func(p pathPattern) bool { return d.matches(p, path) }) {
			d.relevant = append(d.relevant, path)
		}
	}
}

// samples are those of a pattern, made once.
func (d *differ) samples(p pathPattern) []string {
	paths, ok := d.sampled[p]
	if !ok {
		paths = p.compares.Samples(p.text)
		d.sampled[p] = paths
	}
	return paths
}

// meet returns paths below the directory of p that end as q's do, and that both
// match.
func (d *differ) meet(p, q pathPattern) []string {
	star := strings.IndexAny(p.text, `*:{[?\(^$.|+`)
	if star < 0 {
		return nil
	}
	dir := p.text[:strings.LastIndexByte(p.text[:star], '/')+1]
	if dir == "" {
		return nil
	}
	var out []string
	for _, path := range d.samples(q) {
		for i := strings.IndexByte(path, '/'); i >= 0; {
			met := dir + path[i+1:]
			if pattern.IsPath(met) && d.matches(p, met) && d.matches(q, met) && !slices.Contains(out, met) {
				out = append(out, met)
			}
			next := strings.IndexByte(path[i+1:], '/')
			if next < 0 {
				break
			}
			i += next + 1
		}
	}
	return out
}

// matches reports whether a path matches a pattern of one of the policies, as
// that policy decides it.
func (d *differ) matches(p pathPattern, path string) bool {
	for _, a := range d.sides {
		if sym, known := a.version.Table.Symbols.Lookup(p.text); known {
			ok, err := a.version.Engine.Patterns.Match(p.compares, path, p.text, uint32(sym))
			return ok && err == nil // an error says that it is no pattern of this function
		}
	}
	return false
}

// A nameGroup is names for which both policies answer alike.
type nameGroup struct {
	kind     string
	names    []string
	ask      [2]authz.Principal
	affected bool
}

// nameGroups puts names together that only edges tell apart, and the same ones.
func (d *differ) nameGroups() []*nameGroup {
	edges := [2]map[string][]string{d.sides[0].edgeTexts(), d.sides[1].edgeTexts()}
	stranger := strangerTo(d.sides[0].version, d.sides[1].version)
	var out []*nameGroup
	bySignature := map[string]*nameGroup{}
	seen := map[string]bool{}
	for _, a := range d.sides {
		for _, n := range a.principals() {
			if seen[n.name] {
				continue
			}
			seen[n.name] = true
			d.out.Names++
			p := n.principal
			if n.kind == KindGroup {
				p.Subject = stranger
			}
			c := &nameGroup{kind: n.kind, names: []string{n.name}, ask: [2]authz.Principal{p, p}}
			c.affected = d.everything || d.affected[n.name] || d.affected[authz.GroupAnyone] || n.kind != KindAnonymous && d.affected[authz.GroupAuthenticated]
			if n.kind == KindUser && d.out.NotExact == "" && !d.sides[0].ownNames()[n.name] && !d.sides[1].ownNames()[n.name] {
				signature := strings.Join(edges[0][n.name], "\x01") + "\x02" + strings.Join(edges[1][n.name], "\x01")
				if other, ok := bySignature[signature]; ok {
					other.names = append(other.names, n.name)
					continue
				}
				bySignature[signature] = c
			}
			out = append(out, c)
		}
	}
	return out
}

// ownNames are the names that lines or the matcher name themselves, and those
// that are roles.
func (a *inquiry) ownNames() map[string]bool {
	if a.own != nil {
		return a.own
	}
	a.own = map[string]bool{}
	text := a.version.Table.Symbols.Text
	for _, col := range a.version.Engine.Model.SubjectColumns() {
		for _, s := range a.version.Table.Rows.Cols[col] {
			a.own[text(s)] = true
		}
	}
	for _, list := range a.version.Table.Edges {
		for _, l := range list {
			a.own[text(l.Role)] = true
		}
	}
	for _, l := range a.version.Engine.Model.Texts {
		a.own[l] = true
	}
	return a.own
}

// compare asks both sides.
func (d *differ) compare(ctx context.Context) error {
	d.out.Paths = len(d.paths)
	for _, c := range d.nameGroups() {
		paths := d.relevant
		if c.affected {
			paths = d.paths
		}
		for _, action := range d.opts.Actions {
			for _, domain := range d.opts.Domains {
				told := map[[2]string]bool{} // pattern, direction
				for i, path := range paths {
					if i%256 == 0 && ctx.Err() != nil {
						return ctx.Err()
					}
					d.compareOne(c, authz.Query{Object: path, Action: action, Domain: domain, IP: d.opts.IP, Host: d.opts.Host}, told)
				}
			}
		}
	}
	return nil
}

func (d *differ) compareOne(c *nameGroup, q authz.Query, told map[[2]string]bool) {
	var allowed [2]bool
	for i, a := range d.sides {
		q.Principal = c.ask[i]
		decision, err := a.version.Decide(&q)
		allowed[i] = err == nil && decision.Effect == authz.Allow
	}
	if allowed[0] == allowed[1] {
		return
	}
	list, direction := &d.out.Gained, "gained"
	if allowed[0] {
		list, direction = &d.out.Lost, "lost"
	}
	from := d.probes[q.Object]
	if key := [2]string{from, direction}; from != "" {
		if told[key] {
			return
		}
		told[key] = true
	}
	change := Change{Names: slices.Clone(c.names), Action: q.Action, Domain: q.Domain, Pattern: from, Path: q.Object}
	for i, at := range []**Line{&change.Before, &change.After} {
		q.Principal = c.ask[i]
		if _, line, err := d.sides[i].ask(&q); err == nil {
			*at = line
		}
	}
	line := func(l *Line) int {
		if l == nil {
			return 0
		}
		return l.Line
	}
	key := changeKey{direction, q.Object, q.Action, q.Domain, line(change.Before), line(change.After)}
	if i, ok := d.told[key]; ok {
		(*list)[i].Names = append((*list)[i].Names, change.Names...)
		return
	}
	d.told[key] = len(*list)
	*list = append(*list, change)
}
