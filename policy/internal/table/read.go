package table

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"securefiles/authz"
	"securefiles/policy/internal/finding"
	"securefiles/policy/internal/model"
	"securefiles/policy/internal/pace"
)

// Limits of a policy file, in bytes. A line is as long as Casbin's own adapter
// reads.
const (
	MaxSize = 1 << 30
	MaxLine = 64 << 10
)

// A Table is what a policy file holds.
type Table struct {
	Symbols *Symbols
	Rows    *Rows
	Edges   Edges
	Periods *Periods
	Lines   int // p and g lines
}

// Holds reports whether a g line holds at a moment.
func (t *Table) Holds(e Edge, at time.Time) bool {
	return e.Period == 0 || t.Periods.At(e.Period).Holds(at)
}

// Options are what reading can do without.
type Options struct {
	// Zone is where days and moments are that say no zone of their own; nil means UTC.
	Zone *time.Location
	// Last is the version before, whose size is expected of this one too. What grows
	// bit by bit to the size of millions of lines is garbage, and time in which nothing
	// else runs.
	Last *Table
	// Pace is that of the work; nil does not rest.
	Pace *pace.Pace
}

// Read reads a policy. It refuses, with line and remedy, whatever stock
// Casbin would read in another way than it is written; warnings are returned
// beside a table. The error is a *LoadError, or one of reading.
func Read(ctx context.Context, file string, r io.Reader, m *model.Model, opts Options) (*Table, []finding.Finding, error) {
	l := &loader{
		Report: finding.Report{File: file}, model: m, zone: cmp.Or(opts.Zone, time.UTC), pace: opts.Pace, last: opts.Last,
		eft: m.PolicyField("eft"), priority: m.PolicyField("priority"), periods: m.Periods(), idle: m.IdleDates(),
		out:   &Table{Symbols: NewSymbols(), Rows: &Rows{Cols: make([][]Symbol, len(m.Policy))}, Edges: Edges{}, Periods: &Periods{}},
		edges: map[string]*hashTable{}, joined: map[string]uint32{},
	}
	for name := range m.Roles {
		l.edges[name] = &hashTable{}
	}
	if l.last != nil {
		l.makeRoom(l.last)
	}
	l.out.Symbols.Intern("") // the domain of edges without one
	if m.HasPeriods() {
		l.open = l.out.Symbols.Intern(Open)
	}
	if err := l.read(ctx, r); err != nil {
		return nil, nil, err
	}
	if l.Errors == 0 {
		l.finish()
	}
	if l.Errors > 0 {
		return nil, nil, &finding.LoadError{Findings: l.All()}
	}
	return l.out, l.All(), nil
}

type loader struct {
	finding.Report
	model         *model.Model
	zone          *time.Location
	pace          *pace.Pace
	last          *Table
	eft, priority int                   // columns, or -1
	periods       []model.PeriodColumns // of p
	idle          []int                 // columns of p that are called like dates and never asked
	open          Symbol                // of Open, where the model has periods
	out           *Table

	number uint32   // of the line that is being read
	raw    []byte   // that line
	fields [][]byte // of that line
	row    []Symbol // of that line
	doubts []doubt  // about that line

	doubtful []roleDoubt // about g lines
	others   bool        // lines of p2 and the like have been told of

	rows   hashTable             // the rows so far, by their symbols
	edges  map[string]*hashTable // the edges so far
	joined map[string]uint32     // fields joined by commas, where one holds a comma -> line
}

// makeRoom makes room for a table of the size of another one.
func (l *loader) makeRoom(last *Table) {
	rows := withMore(last.Rows.Len())
	l.out.Symbols.makeRoom(last.Symbols)
	l.rows, l.out.Rows.Lines = newHashTable(rows), make([]uint32, 0, rows)
	for i := range l.out.Rows.Cols {
		l.out.Rows.Cols[i] = make([]Symbol, 0, rows)
	}
	for name, table := range l.edges {
		*table = newHashTable(withMore(len(last.Edges[name])))
	}
}

// refuse reports an error in the line that is being read. The column counts
// from 1; 0 says that there is none.
func (l *loader) refuse(column int, rule, format string, args ...any) {
	l.Add(finding.SeverityError, int(l.number), column, rule, format, args...)
}

func (l *loader) read(ctx context.Context, r io.Reader) error {
	in := bufio.NewReaderSize(io.LimitReader(r, MaxSize+1), MaxLine)
	size := 0
	for l.number = 1; ; l.number++ {
		line, err := in.ReadSlice('\n')
		size += len(line)
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			l.refuse(0, "line-length", "is longer than %d bytes", MaxLine)
			return nil
		case err != nil && err != io.EOF:
			return fmt.Errorf("read policy: %w", err)
		case size > MaxSize:
			l.Fail(0, "file-size", "is larger than %d bytes", MaxSize)
			return nil
		}
		if l.number == 1 && bytes.HasPrefix(line, []byte("\ufeff")) {
			l.refuse(1, "encoding", "begins with a byte order mark: save the file without one")
			return nil
		}
		l.line(line)
		l.pace.Step()
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
		l.Ignores.Comment(text)
		// Casbin would take everything up to the next line feed for comment.
		if i := bytes.IndexByte(text, '\r'); i >= 0 {
			l.refuse(l.column(text[i:]), "encoding", "holds a carriage return inside: save the file with line feeds")
		}
		return
	}
	l.Ignores.Line(int(l.number))
	l.doubts = l.doubts[:0]
	if !l.characters(text) || !l.split(text) {
		return
	}
	kind, fields := l.fields[0], l.fields[1:]
	if string(kind) == "p" {
		l.policyLine(fields)
		return
	}
	if _, ok := l.model.Roles[string(kind)]; ok {
		l.roleLine(string(kind), fields)
		return
	}
	if slices.Contains(l.model.Others, string(kind)) {
		if !l.others {
			l.others = true
			l.Add(finding.SeverityWarning, int(l.number), l.fieldColumn(0), "line-type", "lines of %s are an application's, in a context of its own: as Casbin's Enforce does, the service asks p alone", kind)
		}
		return
	}
	kinds := append([]string{"p"}, slices.Sorted(maps.Keys(l.model.Roles))...)
	lower := strings.ToLower(string(kind))
	switch {
	case len(kind) == 0:
		l.refuse(l.fieldColumn(0), "line-type", "begins with an empty field: a line begins with %s", strings.Join(kinds, ", "))
	case slices.Contains(kinds, lower):
		l.refuse(l.fieldColumn(0), "line-type", "%q: write %q", kind, lower)
	default:
		l.refuse(l.fieldColumn(0), "line-type", "begins with %q, which the model does not define: a line begins with %s, or # for a comment, and commas separate its fields",
			finding.Shorten(kind), strings.Join(kinds, ", "))
	}
}

// column returns where a rest of the line that is being read begins, from 1.
// Blanks at the line's end do not count.
func (l *loader) column(rest []byte) int { return column(l.raw, rest) }

func column(line, rest []byte) int {
	return len(bytes.TrimRightFunc(line, unicode.IsSpace)) - len(rest) + 1
}

// fieldColumn is FieldColumn for the line that is being read.
func (l *loader) fieldColumn(field int) int { return FieldColumn(l.raw, field) }

// FieldColumn returns where a field of a line begins, in bytes from 1, or 0 where
// quotes make it hard to tell. Field 0 is the line's type.
func FieldColumn(line []byte, field int) int {
	if bytes.IndexByte(line, '"') >= 0 {
		return 0
	}
	rest := bytes.TrimSpace(line)
	for range field {
		rest = rest[bytes.IndexByte(rest, ',')+1:]
	}
	return column(line, bytes.TrimLeftFunc(rest, unicode.IsSpace))
}

// characters looks for bytes that cannot be seen or that no path can hold. It is
// false where the line cannot be taken apart.
func (l *loader) characters(text []byte) bool {
	ascii := true
	for i, c := range text {
		if c < ' ' && c != '\t' || c == 0x7f {
			if c == '\r' {
				l.refuse(l.column(text[i:]), "encoding", "holds a carriage return inside: save the file with line feeds")
			} else {
				l.doubt(l.column(text[i:]), 0, "character", "holds the control character %q", rune(c))
				return true
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
			l.doubt(l.column(text[i:]), 0, "encoding", "is not valid UTF-8")
			return true
		case 0x80 <= r && r <= 0x9f || r == '\u2028' || r == '\u2029' || r == '\ufeff':
			l.doubt(l.column(text[i:]), 0, "character", "holds the control character %q", r)
			return true
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
		if r, _ := utf8.DecodeRune(field); unicode.IsSpace(r) {
			if r >= utf8.RuneSelf { // others are control characters
				l.doubt(l.column(text), len(l.fields), "blank", "%q begins with a blank that is no ordinary space: write a space, or none", finding.Shorten(field))
			}
			field = bytes.TrimLeftFunc(field, unicode.IsSpace)
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

// check looks for fields that do not say what they seem to say, and is false where
// their number is wrong. The names are those of the fields after the line's type, of
// which so many at the end may be left out.
func (l *loader) check(fields [][]byte, names []string, optional int) bool {
	if least := len(names) - optional; len(fields) != least && len(fields) != len(names) {
		wants := fmt.Sprintf("%d (%s)", least, strings.Join(names[:least], ", "))
		if optional > 0 && len(fields) > least {
			wants += fmt.Sprintf(" or %d (and %s)", len(names), strings.Join(names[least:], ", "))
		}
		l.refuse(0, "field-count", "has %d fields after its type, not the model's %s%s", len(fields), wants, l.countHint(fields, names, optional))
		return false
	}
	for i, f := range fields {
		last := i == len(fields)-1 && i != l.eft
		doubt := func(rule, format string, args ...any) {
			l.doubt(l.fieldColumn(i+1), i+1, rule, format, args...)
		}
		switch {
		case len(f) == 0:
			doubt("empty", "%s is empty", names[i])
		case len(f) != len(bytes.TrimSpace(f)):
			doubt("blank", "%s %q has a blank at an end, which becomes part of the name: remove it", names[i], finding.Shorten(f))
		case len(f) > 1 && f[0] == '\'' && f[len(f)-1] == '\'':
			doubt("quotes", "%s %q: single quotes become part of the name; double quotes do not", names[i], finding.Shorten(f))
		case last && (bytes.Contains(f, []byte(" #")) || bytes.Contains(f, []byte("\t#"))):
			doubt("comment", "%s %q: a comment becomes part of the field; put it on a line of its own", names[i], finding.Shorten(f))
		}
	}
	return true
}

// countHint says what is likely to be wrong with a line that has too many fields
// or too few.
func (l *loader) countHint(fields [][]byte, names []string, optional int) string {
	least := len(names) - optional
	dated := slices.ContainsFunc(fields, IsTime)
	switch {
	case lacksDownload(fields, names, optional):
		return "; the download is missing: write its name before the path, or * for every one"
	case dated && optional == 2 && len(fields) == least+1 && IsTime(fields[least-1]):
		return "; " + names[least-1] + " is missing before the beginning and the end"
	case dated && optional == 2 && len(fields) == least+1:
		return "; a beginning and an end stand together: write _ for the one that there is not, as in _, 2026-12-31"
	case len(fields) > least && len(fields) <= len(names)+1 && !slices.Contains(names, "dom") && len(fields) > 2 && !isPath(fields[1]) && isPath(fields[2]):
		return "; this model's lines name no download: take it out, or take the model of securefiles init"
	case dated && optional == 0 && len(fields) > least:
		return "; the model has no dates: see the built-in model for timeMatch(p.from, p.until) and g = _, _, (_, _)"
	case optional == 0 && len(fields) == least-2 && slices.Equal(names[least-2:], []string{"from", "until"}):
		return "; from and until can be left out where timeMatch(p.from, p.until) in the matcher asks for them"
	case len(fields) > least:
		return "; a field with a comma inside stands in double quotes, and a comment on a line of its own"
	}
	return ""
}

// lacksDownload reports whether a line has a path where the model has a download.
func lacksDownload(fields [][]byte, names []string, optional int) bool {
	least := len(names) - optional
	return len(fields) > 1 && len(names) > 1 && names[1] == "dom" && isPath(fields[1]) && (len(fields) == least-1 || len(fields) == len(names)-1)
}

func isPath(field []byte) bool { return len(field) > 0 && field[0] == '/' }

// complete adds to a line what it leaves out at its end.
func complete(fields [][]byte, count int) [][]byte {
	for len(fields) < count {
		fields = append(fields, []byte(Open))
	}
	return fields
}

// period reads a beginning and an end, and returns the period's number. The columns
// are those of the fields, from 1.
func (l *loader) period(begin, end []byte, column, endColumn int) (id uint32, ok bool) {
	p := Period{Begin: l.out.Symbols.internBytes(begin), End: l.out.Symbols.internBytes(end)}
	if id, ok = l.out.Periods.find(p.Begin, p.End); ok {
		return id, true
	}
	read, err := ParsePeriod(string(begin), string(end), l.zone)
	if err != nil {
		if IsTime(begin) {
			column = endColumn
		}
		l.refuse(l.fieldColumn(column), "date", "%s", finding.Escape(err.Error()))
		return 0, false
	}
	p.From, p.Until = read.From, read.Until
	return l.out.Periods.add(p), true
}

// checkPeriods reads the periods of a p line.
func (l *loader) checkPeriods(fields [][]byte) bool {
	field := func(column int) []byte {
		if column < 0 {
			return []byte(Open)
		}
		return fields[column]
	}
	for _, column := range l.idle {
		if f := fields[column]; IsTime(f) && string(f) != Open {
			l.refuse(l.fieldColumn(column+1), "date", "%s %q has no effect, and the line would hold at any time: the matcher does not ask timeMatch(p.from, p.until)", l.model.Policy[column], f)
			return false
		}
	}
	for _, p := range l.periods {
		if _, ok := l.period(field(p.Begin), field(p.End), p.Begin+1, p.End+1); !ok {
			return false
		}
	}
	return true
}

func (l *loader) policyLine(fields [][]byte) {
	if !l.check(fields, l.model.Policy, l.model.Optional) {
		return
	}
	fields = complete(fields, len(l.model.Policy))
	errors := l.Errors
	if l.eft >= 0 {
		l.checkEffect(fields[l.eft])
	}
	if l.judgeRow(fields); l.Errors > errors {
		return
	}
	if l.priority >= 0 {
		if _, err := strconv.Atoi(string(fields[l.priority])); err != nil {
			if l.model.Effect == model.Priority || l.model.Effect == model.SubjectPriority {
				l.refuse(l.fieldColumn(l.priority+1), "priority", "the priority %q is not a whole number: the order would be undefined", finding.Shorten(fields[l.priority]))
				return
			}
			l.Add(finding.SeverityWarning, int(l.number), l.fieldColumn(l.priority+1), "priority", "the priority %q is not a whole number; the model's effect does not go by it", finding.Shorten(fields[l.priority]))
		}
	}
	if !l.checkPeriods(fields) {
		return
	}
	l.out.Lines++
	l.row = l.row[:0]
	for _, f := range fields {
		l.row = append(l.row, l.out.Symbols.internBytes(f))
	}
	hash, cols := hashSymbols(l.row...), l.out.Rows.Cols
	first, ok := l.rows.find(hash, func(row uint32) bool {
		for i, col := range cols {
			if col[row] != l.row[i] {
				return false
			}
		}
		return true
	})
	if ok {
		l.duplicate(l.out.Rows.Lines[first])
		return
	}
	if l.swallowed("p", fields) {
		l.judgeRow(fields)
		return
	}
	for i, s := range l.row {
		cols[i] = append(cols[i], s)
	}
	l.out.Rows.Lines = append(l.out.Rows.Lines, l.number)
	l.rows.insert(hash, uint32(len(l.out.Rows.Lines)-1))
}

// checkEffect looks for effects that Casbin, or the model, passes over.
func (l *loader) checkEffect(effect []byte) {
	switch {
	case string(effect) != "allow" && string(effect) != "deny":
		if len(effect) != len(bytes.TrimSpace(effect)) || len(effect) == 0 {
			return // it is told of
		}
		hint := ""
		if bytes.IndexByte(effect, '#') >= 0 {
			hint = "; put the comment on a line of its own"
		}
		if IsTime(effect) {
			hint = ", and dates behind it"
		}
		l.doubt(l.fieldColumn(l.eft+1), l.eft+1, "effect", "the effect is %q, which Casbin would ignore: write allow or deny%s", finding.Shorten(effect), hint)
	case string(effect) == "deny" && l.model.Effect == model.AllowOverride:
		l.Judge(int(l.number), l.fieldColumn(l.eft+1), "effect", "the model's effect looks for allow alone, so this deny denies nothing: give the model an effect that looks for deny too")
	}
}

func (l *loader) roleLine(kind string, fields [][]byte) {
	names, optional := []string{"name", "role", "domain"}[:l.model.Roles[kind]], 0
	if l.model.Conditional[kind] {
		names, optional = append(slices.Clip(names), "from", "until"), 2
	}
	if !l.check(fields, names, optional) {
		return
	}
	fields = complete(fields, len(names))
	if kind == "g" && (bytes.HasPrefix(fields[1], []byte("@")) || string(fields[1]) == authz.Anonymous) {
		errors := l.Errors
		l.Judge(int(l.number), l.fieldColumn(2), "role-name", "nobody can be given %q here: names with @ are groups of an identity source, and %s is whoever has no credentials", finding.Shorten(fields[1]), authz.Anonymous)
		if l.Errors > errors {
			return
		}
	}
	edge := Edge{Name: l.out.Symbols.internBytes(fields[0]), Role: l.out.Symbols.internBytes(fields[1]), Line: l.number}
	if l.model.Roles[kind] == 3 {
		edge.Domain = l.out.Symbols.internBytes(fields[2])
	}
	if optional > 0 {
		var ok bool
		if edge.Period, ok = l.period(fields[len(fields)-2], fields[len(fields)-1], len(fields)-1, len(fields)); !ok {
			return
		}
	}
	l.out.Lines++
	l.judgeEdge(kind, edge)
	hash, known := hashSymbols(edge.Name, edge.Role, edge.Domain, Symbol(edge.Period)), l.out.Edges[kind]
	first, ok := l.edges[kind].find(hash, func(i uint32) bool {
		return known[i].Name == edge.Name && known[i].Role == edge.Role && known[i].Domain == edge.Domain && known[i].Period == edge.Period
	})
	if ok {
		l.duplicate(known[first].Line)
		return
	}
	if l.swallowed(kind, fields) {
		l.judgeEdge(kind, edge)
		return
	}
	if known == nil && l.last != nil {
		known = make([]Edge, 0, withMore(len(l.last.Edges[kind])))
	}
	l.out.Edges[kind] = append(known, edge)
	l.edges[kind].insert(hash, uint32(len(known)))
}

func (l *loader) duplicate(first uint32) {
	l.Warn(int(l.number), "duplicate", "says what line %d says: remove one", first)
}

// swallowed drops a line that Casbin would take for another one and drop: it
// compares fields joined by commas.
func (l *loader) swallowed(kind string, fields [][]byte) bool {
	if !slices.ContainsFunc(fields, func(f []byte) bool { return bytes.IndexByte(f, ',') >= 0 }) {
		return false
	}
	key := kind + "," + string(bytes.Join(fields, []byte{','}))
	if first, ok := l.joined[key]; ok {
		l.doubts = l.doubts[:0]
		l.doubt(0, 0, "comma", "Casbin would drop this line, because with its commas it reads like line %d", first)
		return true
	}
	l.joined[key] = l.number
	return false
}

// finish checks what takes the whole file, and puts the rows into the order in
// which Casbin evaluates them.
func (l *loader) finish() {
	l.judgeRoles()
	l.checkPatterns()
	if l.Errors == 0 {
		l.refuseMeanings()
	}
	if l.model.Effect == model.SubjectPriority {
		l.sortBySubject()
	}
	l.out.sortByPriority(l.priority)
}
