package explain

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"time"

	"securefiles/authz"
	"securefiles/policy"
	"securefiles/policy/internal/engine"
	"securefiles/policy/internal/model"
	"securefiles/policy/internal/pattern"
	"securefiles/policy/internal/table"
	"securefiles/policy/internal/witness"
)

// A Diff is what changes in access between two policies.
type Diff struct {
	// Gained and Lost are in the order of the policies' names.
	Gained []Change `json:"gained"`
	Lost   []Change `json:"lost"`
	// Untried say where it was not looked, or not to the end; empty where
	// nothing is gained or lost but what Gained and Lost tell.
	Untried []Untried `json:"untried"`
	// Notes say of what nothing is told here at all.
	Notes []string `json:"notes,omitempty"`
	// Paths and Names count what was tried.
	Paths int `json:"paths"`
	Names int `json:"names"`
}

// A Change is a path for which the answer changes, for names for which the same
// lines decide before and after.
type Change struct {
	Names  []string `json:"names"`
	Action string   `json:"action"`
	Domain string   `json:"domain,omitempty"`
	// Pattern is one that the path was made from, or "any path"; empty where
	// the path was given. The change need not hold for all that the pattern
	// matches.
	Pattern string `json:"pattern,omitempty"`
	Path    string `json:"path"`
	// Before and After are the lines that decide, with the chain of the first
	// name; nil where none does.
	Before *Line `json:"before,omitempty"`
	After  *Line `json:"after,omitempty"`
	// From is when the change comes, in the zone of the policy after it; zero
	// where it is there at once.
	From time.Time `json:"from,omitzero"`
}

// An Untried is a change for which not all was tried that could tell who gains by
// it.
type Untried struct {
	// Line is one that has changed, or that a changed role or model reaches; nil
	// where all that has changed is meant.
	Line *Line  `json:"line,omitempty"`
	Why  string `json:"why"`
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
	// At is the moment that is compared; the zero time is now, and each later
	// moment at which a line begins or ends.
	At time.Time
	// Progress is told from time to time how many of all names have been
	// looked at; nil is not.
	Progress func(names, all int)
	// Steps bounds the work; 0 means what takes a minute or so.
	Steps int

	laterLines int // instead of maxLaterLines
}

// Bounds of a comparison, in instructions of patterns that are looked at. A row
// and a decision cost as much as some of them.
const (
	maxSteps      = 2_000_000_000
	maxSearch     = 100_000_000 // for paths for one set of patterns
	rowSteps      = 16
	decisionSteps = 256
	maxUntried    = 100
	maxCounted    = 1 << 20 // paths
	maxSearches   = 4096    // that are remembered
)

const anyPath = "any path"

// compare compares at one moment, that of the options. It also returns how many steps
// were left.
func compare(ctx context.Context, before, after *policy.Store, opts DiffOptions) (*Diff, int, error) {
	d := &differ{
		opts: opts,
		out:  &Diff{Gained: []Change{}, Lost: []Change{}, Untried: []Untried{}}, told: map[changeKey]int{}, known: map[madeKey]bool{}, classes: map[[sha256.Size]byte][]place{},
		searches: map[string]*search{}, numbers: map[string]int{}, asked: map[string]bool{}, untold: map[Untried]bool{},
	}
	d.budget.Left = cmp.Or(opts.Steps, maxSteps)
	for i, store := range []*policy.Store{before, after} {
		a, err := newInquiry(store)
		if err != nil {
			return nil, 0, err
		}
		defer a.end()
		d.sides[i] = newLanguages(a, opts.At)
	}
	d.zones = before.Zone().String() != after.Zone().String()
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
	if err := d.compare(ctx); err != nil {
		return nil, 0, err
	}
	for _, a := range d.sides {
		a.findEdges()
	}
	d.out.Paths = len(d.asked)
	return d.out, d.budget.Left, nil
}

type differ struct {
	*delta
	zones  bool // the days of the two are of other zones
	opts   DiffOptions
	out    *Diff
	sides  [2]*languages
	budget witness.Budget

	rows    [2]*rowIndex // that a change may matter to
	changed [2]*rowIndex // those among them that have changed for everybody

	told     map[changeKey]int // where a change stands in its list
	made     bool              // whoever is looked at has a name that was made up
	known    map[madeKey]bool  // what whoever has none gains or loses
	alone    []subject         // those who are looked at together; nil where it is one
	classes  map[[sha256.Size]byte][]place
	searches map[string]*search
	numbers  map[string]int // of languages
	asked    map[string]bool
	untold   map[Untried]bool
}

// asks reports whether a model has a field in its request.
func (d *differ) asks(field string) bool {
	return slices.ContainsFunc(d.sides[:], func(a *languages) bool { return slices.Contains(a.version.Engine.Model.Request, field) })
}

// A changeKey is what changes that are told together have in common.
type changeKey struct {
	direction, path, action, domain string
	before, after                   int // lines
}

// A madeKey is what a change has in common with that of somebody who is called
// otherwise, on a path that is called like him.
type madeKey struct {
	direction, pattern, action, domain string
	before, after                      int
}

// A place is where a change is told: names that are alike are added to it.
type place struct {
	gained bool
	at     int
}

// compare looks at each name.
func (d *differ) compare(ctx context.Context) error {
	names := d.subjects()
	d.delta = newDelta(d.sides[0].inquiry, d.sides[1].inquiry, names.names, d.opts.At, d.zones)
	d.out.Names = names.len()
	if d.unpaired == 0 && d.touches == 0 && d.affected == nil && !d.everything {
		return nil
	}
	d.findRows()
	names.made = d.madeUp(names.stranger)
	d.out.Names = names.len()
	d.findLimits(names.names)
	for i := range names.len() {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if d.opts.Progress != nil {
			d.opts.Progress(i, names.len())
		}
		if d.budget.Left <= 0 {
			d.untried(nil, fmt.Sprintf("there is too much to try: %d of %d names were left out, in the order of the policies", names.len()-i, names.len()))
			break
		}
		d.made = i >= names.len()-len(names.made)
		if err := d.look(ctx, names.at(i)); err != nil {
			return err
		}
	}
	return d.lookTogether(ctx, names)
}

// untried notes what was not tried, once.
func (d *differ) untried(line *Line, why string) {
	u := Untried{Why: why}
	key := u
	if line != nil {
		key.Why = fmt.Sprintf("%s:%d %s %s", line.File, line.Line, line.Text, why)
	}
	if d.untold[key] || len(d.out.Untried) == maxUntried {
		return
	}
	d.untold[key] = true
	if len(d.out.Untried) == maxUntried-1 {
		line, why = nil, "and more lines"
	}
	d.out.Untried = append(d.out.Untried, Untried{line, why})
}

// findLimits notes what no name and no path of this comparison can tell.
func (d *differ) findLimits(names []string) {
	for _, a := range d.sides {
		if why := a.version.Engine.Model.NamesUnlisted(); why != "" {
			d.untried(nil, why)
		}
		for _, field := range [...]struct{ name, given string }{{"ip", d.opts.IP}, {"host", d.opts.Host}} {
			switch {
			case !a.version.Engine.Model.Root.Asks(field.name):
			case field.given == "":
				d.untried(nil, fmt.Sprintf("the model asks for r.%s, and none was given: compare with --%s", field.name, field.name))
			default:
				d.note(fmt.Sprintf("the model asks for r.%s: this holds for %s alone", field.name, field.given))
			}
		}
	}
	if slices.ContainsFunc(names, func(name string) bool { return name[0] == '@' }) {
		d.note("each name was asked by itself and in one group more: what three groups give one user together was not tried")
	}
	if d.asksNames() {
		d.note("of users and groups whom no line names, those were tried who are called like a part of a path, and one who is not: whom $sub and $group stand for otherwise may come to other paths")
	}
}

func (d *differ) note(text string) {
	if !slices.Contains(d.out.Notes, text) {
		d.out.Notes = append(d.out.Notes, text)
	}
}

// findRows finds the rows that have changed, and those that can match what these
// match.
func (d *differ) findRows() {
	var changed [2][]int32
	prefixes, bound := newPrefixes(), true
	for s, a := range d.sides {
		changed[s] = d.changedRows(s)
		for _, row := range changed[s] {
			list, ok := a.prefixes(row)
			bound = bound && ok
			for _, p := range list {
				prefixes.add(p)
			}
		}
	}
	prefixes.sort()
	bound = bound && d.sides[0].version.Engine.Model.Effect == d.sides[1].version.Engine.Model.Effect
	for s, a := range d.sides {
		var rows, own []int32
		if !a.version.Engine.Model.AsksPolicy || a.version.Engine.Rows.Len() == 0 {
			rows = []int32{-1} // its lines make no difference
			if d.everything {
				own = rows
			}
			d.rows[s], d.changed[s] = newRowIndex(a, rows), newRowIndex(a, own)
			continue
		}
		for row := range int32(a.version.Engine.Rows.Len()) {
			if bound {
				list, ok := a.prefixes(row)
				if ok && !slices.ContainsFunc(list, prefixes.meets) {
					continue
				}
			}
			rows = append(rows, row)
		}
		for _, row := range changed[s] {
			if d.ownChange(s, row) {
				own = append(own, row)
			}
		}
		d.rows[s], d.changed[s] = newRowIndex(a, rows), newRowIndex(a, own)
	}
}

// A match is a row that may match for a principal, on either side.
type match struct {
	key    uint32 // the same for a row and its pair
	row    int32
	chance engine.Chance
	said   string
}

// A met is a row that may match on one side or both.
type met struct {
	rows     [2]int32 // absent where it matches no path
	chances  [2]engine.Chance
	unstable bool // it may match other paths than before
}

const absent = -2

// look finds what changes for a name.
func (d *differ) look(ctx context.Context, n subject) error {
	affected := d.isAffected(&n.principal)
	if !affected && d.unpaired+d.touches == 0 {
		return nil
	}
	var combinations [][]met
	var signature []byte
	changes := false
	for _, action := range d.opts.Actions {
		for _, domain := range d.opts.Domains {
			q := authz.Query{Principal: n.principal, Action: action, Domain: domain, IP: d.opts.IP, Host: d.opts.Host, At: d.opts.At}
			if !affected && len(d.matches(0, &q, d.changed[0])) == 0 && len(d.matches(1, &q, d.changed[1])) == 0 {
				combinations = append(combinations, nil)
				signature = append(signature, 0xff)
				continue
			}
			var list []met
			list, signature = d.meet(&q, signature)
			if !slices.ContainsFunc(list, func(m met) bool { return m.unstable }) {
				list = nil
			}
			changes = changes || list != nil
			combinations = append(combinations, list)
		}
	}
	if !changes {
		return nil
	}
	if d.sides[0].mixed || d.sides[1].mixed || d.areNamed(combinations, n) { // what is hidden depends on the name
		signature = append(signature, n.name...)
	}
	class := sha256.Sum256(signature)
	if places, ok := d.classes[class]; ok {
		if d.made {
			return nil
		}
		for _, p := range places {
			list := &d.out.Lost
			if p.gained {
				list = &d.out.Gained
			}
			c := (*list)[p.at]
			t := &trial{differ: d, query: &authz.Query{Object: c.Path, Action: c.Action, Domain: c.Domain, IP: d.opts.IP, Host: d.opts.Host, At: d.opts.At}}
			if t.eitherTells([2]bool{!p.gained, p.gained}) {
				continue
			}
			(*list)[p.at].Names = append((*list)[p.at].Names, n.name)
		}
		return nil
	}
	var places []place
	for i, action := range d.opts.Actions {
		for k, domain := range d.opts.Domains {
			q := authz.Query{Principal: n.principal, Action: action, Domain: domain, IP: d.opts.IP, Host: d.opts.Host, At: d.opts.At}
			told, err := d.try(ctx, n, &q, combinations[i*len(d.opts.Domains)+k])
			if err != nil {
				return err
			}
			places = append(places, told...)
		}
	}
	d.classes[class] = places
	return nil
}

// matches returns the rows of an index that may match for the principal of a
// query, by their keys.
func (d *differ) matches(s int, q *authz.Query, index *rowIndex) []match {
	a := d.sides[s]
	if !d.mayAsk(s, q) {
		return nil
	}
	a.ev.Bind(q)
	var out []match
	var said []byte
	for _, row := range index.reached(a.ev) {
		d.budget.Spend(rowSteps)
		var chance engine.Chance
		chance, said = a.ev.WithoutPath(int(row), func(atom *model.Atom) bool { return a.isHidden(atom, row) }, said[:0])
		if chance == engine.ForNone {
			continue
		}
		m := match{key: uint32(row) + 1, row: row, chance: chance, said: string(said)}
		if s == 1 && row >= 0 {
			m.key = uint32(len(d.pairs[0])) + m.key
			if pair := d.pairs[1][row]; pair >= 0 {
				m.key = uint32(pair) + 1
			}
		}
		out = append(out, m)
	}
	slices.SortFunc(out, func(a, b match) int { return int(a.key) - int(b.key) })
	return out
}

// mayAsk reports whether a subject is no role on a side.
func (d *differ) mayAsk(s int, q *authz.Query) bool {
	v := d.sides[s].version
	sym, ok := v.Table.Symbols.Lookup(q.Principal.Subject)
	return !ok || !v.IsReserved(sym)
}

// meet returns the rows that may match on one side or both, and adds to a
// signature what makes names alike.
func (d *differ) meet(q *authz.Query, signature []byte) ([]met, []byte) {
	before, after := d.matches(0, q, d.rows[0]), d.matches(1, q, d.rows[1])
	var list []met
	was, is := d.mayAsk(0, q), d.mayAsk(1, q)
	if was != is || d.sides[0].version.Engine.Model.Effect != d.sides[1].version.Engine.Model.Effect {
		list = append(list, met{rows: [2]int32{absent, absent}, unstable: true}) // no line need match to decide otherwise
		signature = fmt.Appendf(signature, "%t %t ", was, is)
	}
	add := func(m met, key uint32, sides byte, said ...string) {
		list = append(list, m)
		signature = binary.LittleEndian.AppendUint32(append(signature, sides), key)
		for _, text := range said {
			signature = append(append(signature, byte(len(text))), text...)
		}
	}
	for i, k := 0, 0; i < len(before) || k < len(after); {
		switch {
		case k == len(after) || i < len(before) && before[i].key < after[k].key:
			add(met{[2]int32{before[i].row, absent}, [2]engine.Chance{before[i].chance}, true}, before[i].key, 1, before[i].said)
			i++
		case i == len(before) || after[k].key < before[i].key:
			add(met{[2]int32{absent, after[k].row}, [2]engine.Chance{1: after[k].chance}, true}, after[k].key, 2, after[k].said)
			k++
		default:
			b, a := before[i], after[k]
			unstable := b.said != a.said || d.everything || d.touched[0][b.row] || d.touched[1][a.row]
			add(met{[2]int32{b.row, a.row}, [2]engine.Chance{b.chance, a.chance}, unstable}, b.key, 3, b.said, a.said)
			i, k = i+1, k+1
		}
	}
	return list, append(signature, 0xfe)
}

// A search is what was found for some languages.
type search struct {
	found []witness.Witness
	all   bool
}

// try asks both policies about a path of each kind that the rows tell apart.
func (d *differ) try(ctx context.Context, n subject, q *authz.Query, rows []met) ([]place, error) {
	if rows == nil {
		return nil, nil
	}
	t := &trial{differ: d, name: n, query: q, told: map[[2]string]bool{}, tried: map[string]bool{}}
	for _, path := range d.opts.Paths {
		t.ask(path, "")
	}
	names := engine.NamesOf(q)
	var expressions []pattern.Expression
	var patterns []pathPattern
	var changed []int    // numbers of languages of rows that have
	wanted := []int(nil) // those that a path must match, one at least
	restricted := d.sides[0].monotone && d.sides[1].monotone && d.sides[0].version.Engine.Model.Effect == d.sides[1].version.Engine.Model.Effect
	blind := ""
	local := map[string]int{}
	var key strings.Builder
	for _, m := range rows {
		restricted = restricted && m.rows != [2]int32{absent, absent}
		for s, row := range m.rows {
			if row == absent {
				continue
			}
			if m.unstable && m.chances[s] != engine.ForSome {
				restricted = false
			}
			if m.chances[s] == engine.ForAll {
				continue // whatever the path is
			}
			of := d.sides[s].of(row, names)
			if of.blind != "" {
				blind = of.blind
				restricted = false
			}
			for _, l := range of.list {
				id := l.expression.Text
				if l.expression.Cuts {
					id = "?" + id
				}
				if l.expression.Segments {
					id = "/" + id
				}
				number, ok := local[id]
				if !ok {
					number = len(expressions)
					local[id] = number
					expressions, patterns = append(expressions, l.expression), append(patterns, l.pattern)
					fmt.Fprintf(&key, "%d ", d.number(id))
				}
				if m.unstable && !slices.Contains(changed[max(0, len(changed)-8):], number) {
					changed = append(changed, number)
				}
			}
		}
	}
	slices.Sort(changed)
	changed = slices.Compact(changed)
	if restricted {
		wanted = append([]int{}, changed...)
	}
	// Paths as people would write them.
	for _, number := range changed {
		if p := patterns[number]; (p.compares != pattern.Func{}) {
			for _, sample := range p.compares.Samples(p.text) {
				for _, path := range filled(sample, n.principal) {
					t.ask(path, p.text)
				}
			}
		}
	}
	if blind != "" {
		t.guess(rows)
		t.untried(rows, blind)
	}
	fmt.Fprintf(&key, "| %v %t", changed, restricted)
	found, ok := d.searches[key.String()]
	if !ok {
		finder, err := witness.New(expressions)
		if err != nil {
			return nil, fmt.Errorf("compare: %w", err)
		}
		budget := witness.Budget{Left: min(maxSearch, d.budget.Left)}
		before := budget.Left
		found = &search{}
		if found.found, found.all, err = finder.Find(ctx, wanted, &budget); err != nil {
			return nil, err
		}
		d.budget.Left -= before - budget.Left
		if len(d.searches) < maxSearches {
			d.searches[key.String()] = found
		}
	}
	if !found.all {
		t.untried(rows, "there are too many kinds of paths to try")
	}
	for i, w := range found.found {
		if i%256 == 0 && ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if !pattern.IsPath(w.Path) {
			t.untried(rows, "the paths that tell are too long to try")
			continue
		}
		if !d.budget.Spend(decisionSteps) {
			t.untried(rows, "there are too many paths to try")
			break
		}
		from := anyPath
		best := -1
		for _, number := range w.Matches {
			if expressions[number].Wider {
				t.untried(rows, fmt.Sprintf("no regular expression says what %s makes of %q, so that not every path was tried", patterns[number].compares, patterns[number].text))
			}
			_, isChanged := slices.BinarySearch(changed, number)
			weight := len(patterns[number].text)
			if isChanged {
				weight += 1 << 20
			}
			if (patterns[number].compares != pattern.Func{}) && weight > best {
				best, from = weight, patterns[number].text
			}
		}
		t.ask(w.Path, from)
	}
	return t.places, nil
}

// count counts the paths that are tried, each once.
func (d *differ) count(path string) {
	if len(d.asked) < maxCounted {
		d.asked[path] = true
	}
}

func (d *differ) number(id string) int {
	number, ok := d.numbers[id]
	if !ok {
		number = len(d.numbers)
		d.numbers[id] = number
	}
	return number
}

// A trial asks both sides for one name, action and domain.
type trial struct {
	*differ
	name   subject
	query  *authz.Query
	tried  map[string]bool
	told   map[[2]string]bool // pattern, direction
	places []place
}

// untried notes the rows that have changed.
func (t *trial) untried(rows []met, why string) {
	for _, m := range rows {
		if !m.unstable {
			continue
		}
		for s, row := range m.rows {
			if row >= 0 {
				line := lineOf(t.sides[s].version, int(row))
				t.differ.untried(&line, why)
				if len(t.out.Untried) == maxUntried {
					return
				}
				break
			}
		}
		if m.rows[0] < 0 && m.rows[1] < 0 {
			t.differ.untried(nil, why)
		}
	}
}

// guess tries what the fields of rows could mean, where nothing tells what they
// do.
func (t *trial) guess(rows []met) {
	tried := 0
	for _, m := range rows {
		for s, row := range m.rows {
			if row < 0 || tried > 1000 {
				continue
			}
			for col := range t.sides[s].version.Engine.Rows.Cols {
				for _, f := range pattern.Guesses() {
					text := t.sides[s].cell(row, col)
					for _, path := range f.Samples(text) {
						tried++
						t.ask(path, text)
					}
				}
			}
		}
	}
}

// ask asks both sides about a path, and notes what differs.
func (t *trial) ask(path, from string) {
	if t.tried[path] {
		return
	}
	t.tried[path] = true
	t.count(path)
	t.query.Object = path
	var allowed [2]bool
	for s, a := range t.sides {
		decision, err := a.version.Decide(t.query)
		allowed[s] = err == nil && decision.Effect == authz.Allow
	}
	if allowed[0] == allowed[1] || t.eitherTells(allowed) {
		return
	}
	list, direction := &t.out.Gained, "gained"
	if allowed[0] {
		list, direction = &t.out.Lost, "lost"
	}
	if key := [2]string{from, direction}; from != "" {
		if t.told[key] {
			return
		}
		t.told[key] = true
	}
	change := Change{Names: []string{t.name.name}, Action: t.query.Action, Domain: t.query.Domain, Pattern: from, Path: path}
	for s, at := range []**Line{&change.Before, &change.After} {
		if _, line, err := t.sides[s].ask(t.query); err == nil {
			*at = line
		}
	}
	line := func(l *Line) int {
		if l == nil {
			return 0
		}
		return l.Line
	}
	own := madeKey{direction, from, change.Action, change.Domain, line(change.Before), line(change.After)}
	if t.made && from != "" && t.known[own] {
		return
	}
	if t.made || t.name.name == authz.GroupAuthenticated {
		t.known[own] = true
	}
	key := changeKey{direction, path, change.Action, change.Domain, line(change.Before), line(change.After)}
	i, ok := t.differ.told[key]
	if ok {
		if !slices.Contains((*list)[i].Names[max(0, len((*list)[i].Names)-1):], t.name.name) {
			(*list)[i].Names = append((*list)[i].Names, t.name.name)
		}
	} else {
		i = len(*list)
		t.differ.told[key] = i
		*list = append(*list, change)
	}
	if p := (place{direction == "gained", i}); !slices.Contains(t.places, p) {
		t.places = append(t.places, p)
	}
}

// subjects are the names that are compared, made as they are asked.
type subjects struct {
	stranger string
	unnamed  []subject
	names    []string
	made     []subject // called like nobody whom a policy names
}

func (d *differ) subjects() *subjects {
	before, after := d.sides[0].version, d.sides[1].version
	stranger := strangerTo(before, after)
	out := &subjects{stranger: stranger, unnamed: unnamed(stranger), names: before.Names()}
	listed := make([]bool, before.Table.Symbols.Len())
	var unknown []string // to the policy; the model names them
	for _, name := range out.names {
		if sym, ok := before.Table.Symbols.Lookup(name); ok {
			listed[sym] = true
		} else {
			unknown = append(unknown, name)
		}
	}
	old := len(out.names)
	for _, name := range after.Names() {
		if sym, ok := before.Table.Symbols.Lookup(name); ok && listed[sym] || !ok && slices.Contains(unknown, name) {
			continue
		}
		out.names = append(out.names, name)
	}
	// Whoever is called like a role that is none any more may ask from now on.
	for sym := range table.Symbol(before.Table.Symbols.Len()) {
		name := before.Table.Symbols.Text(sym)
		if !before.IsReserved(sym) || name == "" || name[0] == '@' || name == authz.Anonymous {
			continue
		}
		if now, ok := after.Table.Symbols.Lookup(name); (!ok || !after.IsReserved(now)) && !slices.Contains(out.names[old:], name) {
			out.names = append(out.names, name)
		}
	}
	return out
}

func (s *subjects) len() int { return len(s.unnamed) + len(s.names) + len(s.made) }

func (s *subjects) at(i int) subject {
	if i < len(s.unnamed) {
		return s.unnamed[i]
	}
	if made := i - len(s.unnamed) - len(s.names); made >= 0 {
		return s.made[made]
	}
	return principalOf(s.names[i-len(s.unnamed)], s.stranger)
}

// A rowIndex finds rows that could match for a principal.
type rowIndex struct {
	side  *languages
	rows  []int32
	terms [][]model.Literal // of the matcher, one of which a row must make true; nil where there are too many
	by    map[int]map[table.Symbol][]int32
}

func newRowIndex(a *languages, rows []int32) *rowIndex {
	x := &rowIndex{side: a, rows: rows, by: map[int]map[table.Symbol][]int32{}}
	if len(rows) > 0 && rows[0] < 0 {
		return x
	}
	x.terms, _ = a.version.Engine.Model.Root.Conjunctions(false)
	for _, literals := range x.terms {
		l := x.lookup(literals)
		if l == nil || x.by[l.Policy] != nil {
			continue
		}
		by := map[table.Symbol][]int32{}
		for _, row := range rows {
			sym := a.version.Engine.Rows.Cols[l.Policy][row]
			by[sym] = append(by[sym], row)
		}
		x.by[l.Policy] = by
	}
	return x
}

// lookup returns what a row must say of the subject, or else of a constant.
func (x *rowIndex) lookup(literals []model.Literal) *model.Atom {
	var constant *model.Atom
	for _, l := range literals {
		switch {
		case l.Negated:
		case (l.Kind == model.Equal || l.Kind == model.Role && l.Domain != model.DomainPolicy) && x.side.version.Engine.Model.Request[l.Request] == "sub":
			return l.Atom
		case l.Kind == model.Constant:
			constant = l.Atom
		}
	}
	return constant
}

// reached returns rows that could match for the query that an evaluator has,
// ascending; no other row does.
func (x *rowIndex) reached(ev *engine.Evaluator) []int32 {
	if x.terms == nil || len(x.rows) == 0 {
		return x.rows
	}
	var out []int32
	symbols := x.side.version.Engine.Symbols
	for _, literals := range x.terms {
		guard := engine.ForAll
		for _, l := range literals {
			if l.Kind == model.RequestOnly && !l.Asks("obj") && guard == engine.ForAll {
				guard = ev.Guard(l)
			}
		}
		if guard == engine.ForNone {
			continue
		}
		l := x.lookup(literals)
		if guard == engine.Unknown {
			l = nil // any row may come to it
		}
		switch {
		case l == nil:
			return x.rows
		case l.Kind == model.Constant:
			if sym, ok := symbols.Lookup(l.Text); ok {
				out = append(out, x.by[l.Policy][sym]...)
			}
		case l.Kind == model.Equal:
			if sym, ok := symbols.Lookup(ev.Query.Principal.Subject); ok {
				out = append(out, x.by[l.Policy][sym]...)
			}
		default:
			domain, _ := symbols.Lookup("")
			if l.Domain == model.DomainRequest && x.side.version.Engine.Model.Roles[l.Function] == 3 {
				value, _ := model.RequestValue(&ev.Query, x.side.version.Engine.Model.Request[l.DomainField])
				domain = x.side.version.Engine.Graphs[l.Function].Domain(symbols, value)
			}
			walk := ev.Walk(l.Function, ev.Query.Principal.Subject, ev.Lookup(ev.Query.Principal.Subject), domain)
			by := x.by[l.Policy]
			for _, sym := range walk.All() {
				out = append(out, by[sym]...)
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// prefixes are beginnings of paths.
type prefixes struct {
	known   map[string]bool
	sorted  []string
	lengths []int
}

func newPrefixes() *prefixes { return &prefixes{known: map[string]bool{}} }

func (p *prefixes) add(text string) { p.known[text] = true }

func (p *prefixes) sort() {
	lengths := map[int]bool{}
	for text := range p.known {
		p.sorted = append(p.sorted, text)
		if !lengths[len(text)] {
			lengths[len(text)] = true
			p.lengths = append(p.lengths, len(text))
		}
	}
	slices.Sort(p.sorted)
}

// meets reports whether a path can begin with a text and with one of the
// prefixes.
func (p *prefixes) meets(text string) bool {
	if i, _ := slices.BinarySearch(p.sorted, text); i < len(p.sorted) && strings.HasPrefix(p.sorted[i], text) {
		return true
	}
	return slices.ContainsFunc(p.lengths, func(n int) bool { return n <= len(text) && p.known[text[:n]] })
}
