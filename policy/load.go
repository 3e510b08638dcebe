package policy

import (
	"bufio"
	"bytes"
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/casbin/casbin/v2/constant"

	"securefiles/authz"
)

// Limits of a policy file, in bytes. A line is as long as Casbin's own adapter
// reads.
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
		out:    &table{syms: newSymbols(), rules: &rules{cols: make([][]symbol, len(def.policyFields))}, links: links{}},
		linked: map[string]*hashTable{}, joined: map[string]uint32{},
	}
	l.out.syms.intern("") // the domain of links without one
	for name := range def.roles {
		l.linked[name] = &hashTable{}
	}
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

	number uint32   // of the line that is being read
	raw    []byte   // that line
	fields [][]byte // of that line
	row    []symbol // of that line

	rows   hashTable             // the rows so far, by their symbols
	linked map[string]*hashTable // the links so far
	joined map[string]uint32     // fields joined by commas, where one holds a comma -> line
}

// refuse reports an error in the line that is being read. The column counts
// from 1; 0 says that there is none.
func (l *loader) refuse(column int, rule, format string, args ...any) {
	l.add(SeverityError, int(l.number), column, rule, format, args...)
}

func (l *loader) read(ctx context.Context, r io.Reader) error {
	in := bufio.NewReaderSize(io.LimitReader(r, maxPolicySize+1), maxLine)
	size := 0
	for l.number = 1; ; l.number++ {
		line, err := in.ReadSlice('\n')
		size += len(line)
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			l.refuse(0, "line-length", "is longer than %d bytes", maxLine)
			return nil
		case err != nil && err != io.EOF:
			return fmt.Errorf("read policy: %w", err)
		case size > maxPolicySize:
			l.fail(0, "file-size", "is larger than %d bytes", maxPolicySize)
			return nil
		}
		if l.number == 1 && bytes.HasPrefix(line, []byte("\ufeff")) {
			l.refuse(1, "encoding", "begins with a byte order mark: save the file without one")
			return nil
		}
		l.line(line)
		if err == io.EOF {
			return nil
		}
		if l.number%8192 == 0 && ctx.Err() != nil {
			return fmt.Errorf("read policy: %w", ctx.Err())
		}
	}
}

// line reads one line. Its blanks are those of Casbin's adapter: around the
// line, and in front of a field.
func (l *loader) line(raw []byte) {
	l.raw = raw
	text := bytes.TrimSpace(raw)
	if len(text) == 0 {
		return
	}
	if text[0] == '#' {
		// Casbin would take everything up to the next line feed for comment.
		if i := bytes.IndexByte(text, '\r'); i >= 0 {
			l.refuse(l.column(text[i:]), "encoding", "holds a carriage return inside: save the file with line feeds")
		}
		return
	}
	if !l.characters(text) || !l.split(text) {
		return
	}
	kind, fields := l.fields[0], l.fields[1:]
	if string(kind) == "p" {
		l.policyLine(fields)
		return
	}
	if _, ok := l.def.roles[string(kind)]; ok {
		l.roleLine(string(kind), fields)
		return
	}
	kinds := append([]string{"p"}, slices.Sorted(maps.Keys(l.def.roles))...)
	lower := strings.ToLower(string(kind))
	switch {
	case len(kind) == 0:
		l.refuse(l.fieldColumn(0), "line-type", "begins with an empty field: a line begins with %s", strings.Join(kinds, ", "))
	case slices.Contains(kinds, lower):
		l.refuse(l.fieldColumn(0), "line-type", "%q: write %q", kind, lower)
	default:
		l.refuse(l.fieldColumn(0), "line-type", "begins with %q, which the model does not define: a line begins with %s, or # for a comment, and commas separate its fields",
			shorten(kind), strings.Join(kinds, ", "))
	}
}

// column returns where a rest of the line that is being read begins, from 1.
// Blanks at the line's end do not count.
func (l *loader) column(rest []byte) int {
	return len(bytes.TrimRightFunc(l.raw, unicode.IsSpace)) - len(rest) + 1
}

// fieldColumn returns where a field begins, or 0 where quotes make it hard to
// tell. Field 0 is the line's type.
func (l *loader) fieldColumn(field int) int {
	if bytes.IndexByte(l.raw, '"') >= 0 {
		return 0
	}
	rest := bytes.TrimSpace(l.raw)
	for range field {
		rest = rest[bytes.IndexByte(rest, ',')+1:]
	}
	return l.column(bytes.TrimLeftFunc(rest, unicode.IsSpace))
}

// characters refuses bytes that cannot be seen or that no path can hold.
func (l *loader) characters(text []byte) bool {
	ascii := true
	for i, c := range text {
		if c < ' ' && c != '\t' || c == 0x7f {
			if c == '\r' {
				l.refuse(l.column(text[i:]), "encoding", "holds a carriage return inside: save the file with line feeds")
			} else {
				l.refuse(l.column(text[i:]), "character", "holds the control character %q", rune(c))
			}
			return false
		}
		ascii = ascii && c < utf8.RuneSelf
	}
	if ascii {
		return true
	}
	for i := 0; i < len(text); {
		r, size := utf8.DecodeRune(text[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			l.refuse(l.column(text[i:]), "encoding", "is not valid UTF-8")
			return false
		case 0x80 <= r && r <= 0x9f || r == '\u2028' || r == '\u2029' || r == '\ufeff':
			l.refuse(l.column(text[i:]), "character", "holds the control character %q", r)
			return false
		}
		i += size
	}
	return true
}

// split fills l.fields, without the blanks in front of them.
func (l *loader) split(text []byte) bool {
	l.fields = l.fields[:0]
	if bytes.IndexByte(text, '"') >= 0 {
		return l.splitQuoted(text)
	}
	for {
		field, rest, more := bytes.Cut(text, []byte{','})
		field = bytes.TrimLeft(field, " \t")
		// Casbin would pass over a no-break space in front of a field, but
		// not behind it.
		if r, _ := utf8.DecodeRune(field); r >= utf8.RuneSelf && unicode.IsSpace(r) {
			l.refuse(l.column(text), "blank", "%q begins with a blank that is no ordinary space: write a space, or none", shorten(field))
			return false
		}
		l.fields = append(l.fields, field)
		if !more {
			return true
		}
		text = rest
	}
}

func (l *loader) splitQuoted(text []byte) bool {
	r := csv.NewReader(bytes.NewReader(text))
	r.TrimLeadingSpace = true
	fields, err := r.Read()
	if err != nil {
		column := 0
		var place *csv.ParseError
		if errors.As(err, &place) {
			column, err = l.column(text)+place.Column-1, place.Err
		}
		l.refuse(column, "quotes", "%v: a quoted field begins and ends with \" and doubles it inside", err)
		return false
	}
	for _, f := range fields {
		l.fields = append(l.fields, []byte(f))
	}
	return true
}

// check refuses fields that do not say what they seem to say. The names are
// those of the fields after the line's type.
func (l *loader) check(fields [][]byte, names []string) bool {
	if len(fields) != len(names) {
		hint := ""
		if len(fields) > len(names) {
			hint = "; a field with a comma inside stands in double quotes, and a comment on a line of its own"
		}
		l.refuse(0, "field-count", "has %d fields after its type, not the model's %d (%s)%s", len(fields), len(names), strings.Join(names, ", "), hint)
		return false
	}
	for i, f := range fields {
		last := i == len(fields)-1 && i != l.eft
		switch {
		case len(f) == 0:
			l.refuse(l.fieldColumn(i+1), "empty", "%s is empty", names[i])
		case len(f) != len(bytes.TrimSpace(f)):
			l.refuse(l.fieldColumn(i+1), "blank", "%s %q has a blank at an end, which becomes part of the name: remove it", names[i], shorten(f))
		case len(f) > 1 && f[0] == '\'' && f[len(f)-1] == '\'':
			l.refuse(l.fieldColumn(i+1), "quotes", "%s %q: single quotes become part of the name; double quotes do not", names[i], shorten(f))
		case last && (bytes.Contains(f, []byte(" #")) || bytes.Contains(f, []byte("\t#"))):
			l.refuse(l.fieldColumn(i+1), "comment", "%s %q: a comment becomes part of the field; put it on a line of its own", names[i], shorten(f))
		default:
			continue
		}
		return false
	}
	return true
}

func (l *loader) policyLine(fields [][]byte) {
	if !l.check(fields, l.def.policyFields) {
		return
	}
	if l.eft >= 0 && !l.checkEffect(fields[l.eft]) {
		return
	}
	if l.priority >= 0 {
		if _, err := strconv.Atoi(string(fields[l.priority])); err != nil {
			l.refuse(l.fieldColumn(l.priority+1), "priority", "the priority %q is not a whole number: the order would be undefined", shorten(fields[l.priority]))
			return
		}
	}
	l.out.lines++
	l.row = l.row[:0]
	for _, f := range fields {
		l.row = append(l.row, l.out.syms.internBytes(f))
	}
	hash, cols := hashSymbols(l.row...), l.out.rules.cols
	first, ok := l.rows.find(hash, func(row uint32) bool {
		for i, col := range cols {
			if col[row] != l.row[i] {
				return false
			}
		}
		return true
	})
	if ok {
		l.duplicate(l.out.rules.lines[first])
		return
	}
	if l.swallowed("p", fields) {
		return
	}
	for i, s := range l.row {
		cols[i] = append(cols[i], s)
	}
	l.out.rules.lines = append(l.out.rules.lines, l.number)
	l.rows.insert(hash, uint32(len(l.out.rules.lines)-1))
}

func (l *loader) checkEffect(effect []byte) bool {
	switch {
	case string(effect) != "allow" && string(effect) != "deny":
		hint := ""
		if bytes.IndexByte(effect, '#') >= 0 {
			hint = "; put the comment on a line of its own"
		}
		l.refuse(l.fieldColumn(l.eft+1), "effect", "the effect is %q, which Casbin would ignore: write allow or deny%s", shorten(effect), hint)
		return false
	case string(effect) == "deny" && l.def.effect == constant.AllowOverrideEffect:
		l.refuse(l.fieldColumn(l.eft+1), "effect", "the model's effect looks for allow alone, so this deny denies nothing: give the model an effect that looks for deny too")
		return false
	}
	return true
}

func (l *loader) roleLine(kind string, fields [][]byte) {
	if !l.check(fields, []string{"name", "role", "domain"}[:l.def.roles[kind]]) {
		return
	}
	if kind == "g" && (fields[1][0] == '@' || string(fields[1]) == authz.Anonymous) {
		l.refuse(l.fieldColumn(2), "role-name", "nobody can be given %q here: names with @ are groups of an identity source, and %s is whoever has no credentials", shorten(fields[1]), authz.Anonymous)
		return
	}
	l.out.lines++
	link := roleLink{name: l.out.syms.internBytes(fields[0]), role: l.out.syms.internBytes(fields[1]), line: l.number}
	if len(fields) == 3 {
		link.domain = l.out.syms.internBytes(fields[2])
	}
	hash, known := hashSymbols(link.name, link.role, link.domain), l.out.links[kind]
	first, ok := l.linked[kind].find(hash, func(i uint32) bool {
		return known[i].name == link.name && known[i].role == link.role && known[i].domain == link.domain
	})
	if ok {
		l.duplicate(known[first].line)
		return
	}
	if l.swallowed(kind, fields) {
		return
	}
	l.out.links[kind] = append(known, link)
	l.linked[kind].insert(hash, uint32(len(known)))
}

func (l *loader) duplicate(first uint32) {
	l.warn(int(l.number), "duplicate", "says what line %d says: remove one", first)
}

// swallowed refuses a line that Casbin would take for another one and drop:
// it compares fields joined by commas.
func (l *loader) swallowed(kind string, fields [][]byte) bool {
	if !slices.ContainsFunc(fields, func(f []byte) bool { return bytes.IndexByte(f, ',') >= 0 }) {
		return false
	}
	key := kind + "," + string(bytes.Join(fields, []byte{','}))
	if first, ok := l.joined[key]; ok {
		l.refuse(0, "comma", "Casbin would drop this line, because with its commas it reads like line %d", first)
		return true
	}
	l.joined[key] = l.number
	return false
}

// finish checks what takes the whole file, and puts the rows into the order in
// which Casbin evaluates them.
func (l *loader) finish() {
	l.unusedRoles()
	l.checkPatterns()
	if l.errors == 0 {
		l.refuseMeanings()
	}
	if l.def.effect == constant.SubjectPriorityEffect {
		l.sortBySubject()
	}
	l.out.sortByPriority(l.priority)
}

// unusedRoles refuses roles that are granted and then used by nothing: a
// misspelt role, or a line with its names the wrong way round.
func (l *loader) unusedRoles() {
	if l.def.evaluates || l.def.effect == constant.SubjectPriorityEffect {
		return // a rule may name any role, and a role may be there for its rank alone
	}
	used := make([]bool, l.out.syms.len())
	for _, col := range l.out.rules.cols {
		for _, s := range col {
			used[s] = true
		}
	}
	for _, text := range l.def.literals {
		if s, ok := l.out.syms.lookup(text); ok {
			used[s] = true
		}
	}
	for _, kind := range slices.Sorted(maps.Keys(l.def.roles)) {
		passedOn := make([]bool, l.out.syms.len())
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
