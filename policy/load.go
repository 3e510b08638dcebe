package policy

import (
	"bufio"
	"bytes"
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"slices"
	"sort"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/casbin/casbin/v2/constant"
)

// Limits of a policy file. A line is as long as Casbin's own adapter reads.
const (
	maxPolicySize = 1 << 30
	maxLine       = 64 << 10
)

// A table is what a policy file holds.
type table struct {
	syms  *symbols
	rules *rules
	links links
	lines int // p and g lines
}

// loadTable reads a policy. It refuses, with line and remedy, whatever stock
// Casbin would read in another way than it is written; warnings are returned
// beside a table. The error is a *LoadError, or one of reading.
func loadTable(ctx context.Context, file string, r io.Reader, def *definition) (*table, []Finding, error) {
	l := &loader{
		report: report{file: file}, def: def,
		eft: def.policyField("eft"), priority: def.policyField("priority"),
		out:  &table{syms: newSymbols(), rules: &rules{cols: make([][]symbol, len(def.policyFields))}, links: links{}},
		seen: map[uint64]uint32{}, joined: map[string]uint32{},
	}
	l.out.syms.intern("") // the domain of links without one
	if err := l.read(ctx, r); err != nil {
		return nil, nil, err
	}
	if l.errors == 0 {
		l.finish()
	}
	if l.errors > 0 {
		return nil, nil, &LoadError{l.all()}
	}
	return l.out, l.all(), nil
}

type loader struct {
	report
	def           *definition
	eft, priority int // columns, or -1
	out           *table
	fields        []string
	seed          maphash.Seed
	seen          map[uint64]uint32 // hash of a line's fields -> line
	joined        map[string]uint32 // fields joined by commas, where a field holds one -> line
}

func (l *loader) read(ctx context.Context, r io.Reader) error {
	l.seed = maphash.MakeSeed()
	in := bufio.NewReaderSize(io.LimitReader(r, maxPolicySize+1), maxLine)
	size := 0
	for number := uint32(1); ; number++ {
		line, err := in.ReadSlice('\n')
		size += len(line)
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			l.fail(int(number), "line-length", "is longer than %d bytes", maxLine)
			return nil
		case err != nil && err != io.EOF:
			return fmt.Errorf("read policy: %w", err)
		case size > maxPolicySize:
			l.fail(0, "file-size", "is larger than %d bytes", maxPolicySize)
			return nil
		}
		if number == 1 && bytes.HasPrefix(line, []byte("\ufeff")) {
			l.fail(1, "encoding", "begins with a byte order mark: save the file without one")
			return nil
		}
		l.line(number, line)
		if err == io.EOF {
			return nil
		}
		if number%8192 == 0 && ctx.Err() != nil {
			return fmt.Errorf("read policy: %w", ctx.Err())
		}
	}
}

// line reads one line. Its blanks are those of Casbin's adapter: around the
// line, and in front of a field.
func (l *loader) line(number uint32, text []byte) {
	text = bytes.TrimSpace(text)
	if len(text) == 0 || text[0] == '#' {
		return
	}
	if !l.characters(number, text) || !l.split(number, text) {
		return
	}
	kind, fields := l.fields[0], l.fields[1:]
	_, isRole := l.def.roles[kind]
	switch {
	case kind == "p":
		l.policyLine(number, fields)
	case isRole:
		l.roleLine(number, kind, fields)
	case kind == "":
		l.fail(int(number), "line-type", "begins with a comma: a line begins with p or g")
	case strings.EqualFold(kind, "p") || strings.EqualFold(kind, "g"):
		l.fail(int(number), "line-type", "%q: write %q", kind, strings.ToLower(kind))
	default:
		l.fail(int(number), "line-type", "begins with %q, which the model does not define: a line begins with p, %s, or # for a comment, and commas separate its fields",
			shorten(kind), strings.Join(sortedRoles(l.def), ", "))
	}
}

func sortedRoles(def *definition) []string {
	names := make([]string, 0, len(def.roles))
	for name := range def.roles {
		names = append(names, name)
	}
	sort.Strings(names)
	return names
}

// shorten keeps messages readable.
func shorten(s string) string {
	if len(s) > 60 {
		return s[:60] + "…"
	}
	return s
}

// characters refuses bytes that cannot be seen or that no path can hold.
func (l *loader) characters(number uint32, text []byte) bool {
	ascii := true
	for _, c := range text {
		if c < ' ' && c != '\t' || c == 0x7f {
			if c == '\r' {
				l.fail(int(number), "encoding", "holds a carriage return inside: save the file with line feeds")
			} else {
				l.fail(int(number), "character", "holds the control character %q", rune(c))
			}
			return false
		}
		ascii = ascii && c < 0x80
	}
	if ascii {
		return true
	}
	if !utf8.Valid(text) {
		l.fail(int(number), "encoding", "is not valid UTF-8")
		return false
	}
	for _, r := range string(text) {
		if 0x80 <= r && r <= 0x9f || r == '\u2028' || r == '\u2029' || r == '\ufeff' {
			l.fail(int(number), "character", "holds the control character %q", r)
			return false
		}
	}
	return true
}

// split fills l.fields, without the blanks in front of them.
func (l *loader) split(number uint32, text []byte) bool {
	l.fields = l.fields[:0]
	if bytes.IndexByte(text, '"') >= 0 {
		r := csv.NewReader(bytes.NewReader(text))
		r.TrimLeadingSpace = true
		fields, err := r.Read()
		if err != nil {
			var place *csv.ParseError
			if errors.As(err, &place) {
				err = place.Err
			}
			l.fail(int(number), "quotes", "%v: a quoted field begins and ends with \" and doubles it inside", err)
			return false
		}
		l.fields = append(l.fields, fields...)
	} else {
		for field := range bytes.SplitSeq(text, []byte{','}) {
			l.fields = append(l.fields, string(bytes.TrimLeftFunc(field, unicode.IsSpace)))
		}
		// Casbin trims a no-break space in front of a field as if it were not
		// there.
		if bytes.IndexFunc(text, func(r rune) bool { return r > 0x7f && unicode.IsSpace(r) }) >= 0 {
			return l.blanks(number, text)
		}
	}
	return true
}

// blanks refuses blanks outside ASCII at the ends of a field.
func (l *loader) blanks(number uint32, text []byte) bool {
	for field := range strings.SplitSeq(string(text), ",") {
		trimmed := strings.Trim(field, " \t")
		if strings.TrimSpace(trimmed) != trimmed {
			l.fail(int(number), "blank", "%q has a blank at an end that is no ordinary space: write a space, or none", trimmed)
			return false
		}
	}
	return true
}

// check refuses fields that do not say what they seem to say.
func (l *loader) check(number uint32, fields []string, names []string) bool {
	if len(fields) != len(names) {
		hint := ""
		if len(fields) > len(names) {
			hint = "; a field with a comma inside stands in double quotes, and a comment on a line of its own"
		}
		l.fail(int(number), "field-count", "has %d fields after its type, not the model's %d (%s)%s", len(fields), len(names), strings.Join(names, ", "), hint)
		return false
	}
	for i, f := range fields {
		switch {
		case f == "":
			l.fail(int(number), "empty", "%s is empty", names[i])
		case f != strings.TrimSpace(f):
			l.fail(int(number), "blank", "%s %q has a blank at an end, which becomes part of the name: remove it", names[i], shorten(f))
		case len(f) > 1 && f[0] == '\'' && f[len(f)-1] == '\'':
			l.fail(int(number), "quotes", "%s %s: single quotes become part of the name; double quotes do not", names[i], shorten(f))
		case i == len(fields)-1 && i != l.eft && (strings.Contains(f, " #") || strings.Contains(f, "\t#")):
			l.fail(int(number), "comment", "%s %q: a comment becomes part of the field; put it on a line of its own", names[i], shorten(f))
		default:
			continue
		}
		return false
	}
	return true
}

func (l *loader) policyLine(number uint32, fields []string) {
	names := l.def.policyFields
	if !l.check(number, fields, names) {
		return
	}
	if l.eft >= 0 && fields[l.eft] != "allow" && fields[l.eft] != "deny" {
		hint := ""
		if strings.Contains(fields[l.eft], "#") {
			hint = "; put the comment on a line of its own"
		}
		l.fail(int(number), "effect", "the effect is %q, which Casbin would ignore: write allow or deny%s", shorten(fields[l.eft]), hint)
		return
	}
	if l.priority >= 0 {
		if _, err := strconv.Atoi(fields[l.priority]); err != nil {
			l.fail(int(number), "priority", "the priority %q is not a whole number: the order would be undefined", shorten(fields[l.priority]))
			return
		}
	}
	l.out.lines++
	if l.duplicate(number, "p", fields) {
		return
	}
	for i, f := range fields {
		l.out.rules.cols[i] = append(l.out.rules.cols[i], l.out.syms.intern(f))
	}
	l.out.rules.lines = append(l.out.rules.lines, number)
}

func (l *loader) roleLine(number uint32, kind string, fields []string) {
	names := []string{"name", "role", "domain"}[:l.def.roles[kind]]
	if !l.check(number, fields, names) {
		return
	}
	if kind == "g" && fields[1][0] == '@' {
		l.fail(int(number), "role-name", "the role %q begins with @, which marks groups of an identity source: nobody can be given one here", shorten(fields[1]))
		return
	}
	l.out.lines++
	if l.duplicate(number, kind, fields) {
		return
	}
	link := roleLink{name: l.out.syms.intern(fields[0]), role: l.out.syms.intern(fields[1]), line: number}
	if len(fields) == 3 {
		link.domain = l.out.syms.intern(fields[2])
	}
	l.out.links[kind] = append(l.out.links[kind], link)
}

// duplicate reports whether the line stands before, as Casbin sees it: it drops
// a line whose fields, joined by commas, are those of another.
func (l *loader) duplicate(number uint32, kind string, fields []string) bool {
	var h maphash.Hash
	h.SetSeed(l.seed)
	_, _ = h.WriteString(kind) // never fails
	comma := false
	for _, f := range fields {
		_ = h.WriteByte(0)
		_, _ = h.WriteString(f)
		comma = comma || strings.IndexByte(f, ',') >= 0
	}
	sum := h.Sum64()
	if first, ok := l.seen[sum]; ok {
		l.warn(int(number), "duplicate", "says what line %d says: remove one", first)
		return true
	}
	l.seen[sum] = number
	if comma {
		key := kind + "," + strings.Join(fields, ",")
		if first, ok := l.joined[key]; ok {
			l.fail(int(number), "comma", "Casbin would drop this line, because with its commas it reads like line %d", first)
			return true
		}
		l.joined[key] = number
	}
	return false
}

// finish checks what takes the whole file, and puts the rows into the order in
// which Casbin evaluates them.
func (l *loader) finish() {
	l.unusedRoles()
	l.checkPatterns()
	l.out.sortByPriority(l.priority)
	if l.def.effect == constant.SubjectPriorityEffect {
		l.sortBySubject()
	}
}

// unusedRoles refuses roles that are granted and then used by nothing: a
// misspelt role, or a line with its names the wrong way round.
func (l *loader) unusedRoles() {
	used := make([]bool, len(l.out.syms.texts))
	for _, col := range l.out.rules.cols {
		for _, s := range col {
			used[s] = true
		}
	}
	for _, text := range literal.FindAllString(l.def.matcher, -1) {
		if s, ok := l.out.syms.lookup(text[1 : len(text)-1]); ok {
			used[s] = true
		}
	}
	for _, kind := range sortedRoles(l.def) {
		passedOn := make(map[symbol]bool)
		for _, link := range l.out.links[kind] {
			passedOn[link.name] = true
		}
		for _, link := range l.out.links[kind] {
			if !used[link.role] && !passedOn[link.role] {
				l.fail(int(link.line), "role-unused", "no line uses the role %q, so this one grants nothing: is it misspelt, or are the two names the wrong way round?", shorten(l.out.syms.text(link.role)))
			}
		}
	}
}

// sortByPriority orders rows by a priority column, as Casbin does: stable, the
// smallest number first.
func (t *table) sortByPriority(col int) {
	if col < 0 {
		return
	}
	priority := make([]int, t.rules.len())
	for row := range priority {
		priority[row], _ = strconv.Atoi(t.syms.text(t.rules.cols[col][row])) // checked line by line
	}
	order := identity(len(priority))
	sort.SliceStable(order, func(i, j int) bool { return priority[order[i]] < priority[order[j]] })
	t.rules.reorder(order)
}

func identity(n int) []int {
	order := make([]int, n)
	for i := range order {
		order[i] = i
	}
	return order
}

// reorder makes row i what row order[i] was.
func (r *rules) reorder(order []int) {
	for c, col := range r.cols {
		next := make([]symbol, len(col))
		for i, from := range order {
			next[i] = col[from]
		}
		r.cols[c] = next
	}
	lines := make([]uint32, len(r.lines))
	for i, from := range order {
		lines[i] = r.lines[from]
	}
	r.lines = lines
}

// sortBySubject orders rows by how deep their subject stands below the roots of
// the role tree, the deepest first, as Casbin does. Anything but a tree is
// refused: a cycle would keep Casbin busy for ever, and elsewhere its order is
// a matter of luck.
func (l *loader) sortBySubject() {
	t := l.out
	parent := make(map[node]node)
	for _, link := range t.links["g"] {
		child := node{link.name, link.domain}
		if first, ok := parent[child]; ok && first.name != link.role {
			l.fail(int(link.line), "role-tree", "gives %q a second role: with subjectPriority roles must form a tree", shorten(t.syms.text(link.name)))
			return
		}
		parent[child] = node{link.role, link.domain}
	}
	depth := make(map[node]int)
	for _, link := range t.links["g"] {
		steps := 0
		for n := (node{link.name, link.domain}); ; steps++ {
			up, ok := parent[n]
			if !ok {
				break
			}
			if steps > len(parent) {
				l.fail(int(link.line), "role-tree", "is part of a cycle of roles: with subjectPriority roles must form a tree")
				return
			}
			n = up
		}
		depth[node{link.name, link.domain}] = steps
	}
	subject, domain := l.def.policyField("sub"), l.def.policyField("dom")
	at := func(row int) int {
		n := node{name: t.rules.cols[subject][row]}
		if domain >= 0 {
			n.domain = t.rules.cols[domain][row]
		}
		return depth[n]
	}
	order := identity(t.rules.len())
	slices.SortStableFunc(order, func(a, b int) int { return at(b) - at(a) })
	t.rules.reorder(order)
}
