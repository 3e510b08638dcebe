// Package lint finds what is wrong with a model and a policy.
//
// [Check] loads a policy as the service does and returns what keeps it from being
// served, and beside that what is said clearly and hardly meant. [Rules] lists
// what it looks for, [WriteSARIF] writes findings for code hosts.
//
// lint does not protect against what it does not know: a policy without a
// finding may still allow too much.
package lint

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"
	"unicode/utf8"

	"securefiles/authz"
	"securefiles/policy"
	"securefiles/policy/internal/engine"
	"securefiles/policy/internal/finding"
	"securefiles/policy/internal/model"
	"securefiles/policy/internal/table"
)

// Options say what Check knows of the service, and what it leaves out.
type Options struct {
	policy.Options
	// Disable names rules whose warnings are left out. An error cannot be.
	Disable []string
	// Downloads are those of the service; nil means that they are not known.
	Downloads []*authz.Download
	// Roots are the directories that they serve, by name, where they are known.
	Roots map[string]string
	// OpenNames says that some identity source may vouch for names that no list
	// holds.
	OpenNames bool
	// Users are the subjects that an identity source lists.
	Users []User
	// OnlyUsers says that nobody but Users and anonymous can ask, and that no
	// source names groups.
	OnlyUsers bool
	// Progress is told how far the check is, from 0 to 1; nil means that
	// nobody wants to know. It is called from Check's goroutine.
	Progress func(part float64)
}

// A User is a subject that an identity source lists, and where.
type User struct {
	Name string
	File string
	Line int // from 1
}

// loadingPart is how much of the time loading takes, about.
const loadingPart = 0.4

// maxPerRule bounds the warnings of one rule, so that it does not hide others.
const maxPerRule = 100

// Check loads a policy and returns all that is wrong with it. Beside what keeps
// a policy from being served, it finds what is said clearly and hardly meant. A
// comment `# securefiles:ignore RULE: reason` above the line takes back warnings,
// and errors that are judgements. Rules lists what it looks for.
func Check(ctx context.Context, source policy.Source, opts *Options) []policy.Finding {
	c := &checker{source: source, rules: Rules()}
	if opts != nil {
		c.opts = *opts
	}
	s, err := policy.Open(ctx, watched{source, c.report}, &c.opts.Options)
	var refused *policy.LoadError
	switch {
	case errors.As(err, &refused):
		c.findings = refused.Findings
	case err != nil:
		unread := policy.Finding{File: source.String(), Rule: "read", Message: err.Error()}
		var place *fs.PathError
		if errors.As(err, &place) {
			unread.File, unread.Message = place.Path, "cannot be read: "+place.Err.Error()
		}
		return c.withRemedies([]policy.Finding{unread})
	default:
		version := s.Version()
		c.complete = true
		c.findings = version.Findings
		heard := heardRows(version.Engine.Model, version.Table)
		l := newLinter(ctx, version.Engine.Model, heard, c)
		if heard == version.Table {
			l.plan = version.Engine.Plan // it numbers their rows
		}
		l.run()
		l.lintFailing(version.Engine)
		c.findings = append(c.findings, l.all()...)
	}
	c.read(ctx)
	return c.result()
}

// watched is a source that tells how much of its policy has been read.
type watched struct {
	policy.Source
	report func(part float64)
}

// Open is policy.Source's.
func (w watched) Open(ctx context.Context) (*policy.Text, error) {
	text, err := w.Source.Open(ctx)
	if err == nil && text.Size > 0 {
		text.Policy = &watchedReader{ReadCloser: text.Policy, size: text.Size, report: w.report}
	}
	return text, err
}

type watchedReader struct {
	io.ReadCloser
	read, size int64
	report     func(part float64)
}

// Read is io.Reader's.
func (r *watchedReader) Read(p []byte) (int, error) {
	n, err := r.ReadCloser.Read(p)
	r.read += int64(n)
	r.report(loadingPart * min(1, float64(r.read)/float64(r.size)))
	return n, err
}

// A checker puts findings into their final form.
type checker struct {
	source   policy.Source
	opts     Options
	rules    []Rule
	complete bool // nothing kept the linter from running
	findings []policy.Finding
	ignores  []*ignore
}

// TakeBack returns the findings that no comment of a file takes back. What does not
// stand in the file itself belongs to a line of it: that which names another file, or
// 0 for the file as a whole, whose comment stands above its first line. Comments that
// take back nothing are findings too. The rules are those that comments may name.
func TakeBack(file string, text io.Reader, rules []Rule, disable []string, findings []policy.Finding, line func(policy.Finding) int) []policy.Finding {
	c := &checker{opts: Options{Disable: disable}, rules: rules, complete: true, findings: findings}
	c.readFile(file, text)
	return c.kept(func(f policy.Finding) (string, int) { return file, line(f) })
}

func (c *checker) report(part float64) {
	if c.opts.Progress != nil {
		c.opts.Progress(part)
	}
}

// An ignore is a comment that takes back the findings of one rule in the line
// that follows, and above the first line those of the file as a whole. Where that is
// an error, loading has made a warning of it.
type ignore struct {
	file         string
	line, target int  // target is 0 where no line follows
	first        bool // it is the file's first
	rule         string
	used         bool
}

// read goes through model and policy once more: for the comments that are meant
// for Check, and for the columns of findings whose line is known alone.
func (c *checker) read(ctx context.Context) {
	text, err := c.source.Open(ctx)
	if err != nil {
		return // it was there a moment ago: the findings stand without columns
	}
	defer func() { _ = text.Policy.Close() }() // it was only read
	c.readFile(text.PolicyName, text.Policy)
	c.readFile(text.ModelName, strings.NewReader(text.Model))
	seen := map[string]bool{}
	for _, f := range c.findings { // of users' files
		if f.Rule == "user-is-role" && !seen[f.File] {
			seen[f.File] = true
			if users, err := os.Open(f.File); err == nil {
				c.readFile(f.File, users)
				_ = users.Close() // it was only read
			}
		}
	}
}

func (c *checker) readFile(file string, r io.Reader) {
	at := map[int][]int{}
	for i, found := range c.findings {
		if found.File == file && found.Line > 0 {
			at[found.Line] = append(at[found.Line], i)
		}
	}
	in := bufio.NewReaderSize(io.LimitReader(r, table.MaxSize), table.MaxLine)
	var pending []*ignore
	first := true
	for number := 1; ; number++ {
		line, err := in.ReadSlice('\n')
		if len(line) == 0 || err != nil && err != io.EOF {
			break
		}
		text := bytes.TrimSpace(line)
		if bytes.HasPrefix(text, []byte("#")) {
			pending = append(pending, c.directive(file, number, text)...)
			continue
		}
		if len(text) > 0 {
			for _, ig := range pending {
				ig.target, ig.first = number, first
			}
			pending, first = nil, false
		}
		for _, i := range at[number] {
			place(&c.findings[i], line)
		}
	}
}

// place fills in the column of a finding in the line that it is about.
func place(f *policy.Finding, line []byte) {
	if f.Column == 0 && f.Field > 0 {
		f.Column = table.FieldColumn(line, f.Field)
	}
	if f.Column > 0 && f.Column <= len(line) {
		f.Character = utf8.RuneCount(line[:f.Column-1]) + 1
	}
}

// directive reads a line that may be a comment for Check.
func (c *checker) directive(file string, line int, text []byte) []*ignore {
	complain := func(format string, args ...any) {
		c.findings = append(c.findings, policy.Finding{File: file, Line: line, Severity: policy.SeverityWarning, Rule: "suppression", Message: fmt.Sprintf(format, args...)})
	}
	rules, problem, _ := finding.ParseIgnore(text)
	if problem != "" {
		complain("%s", problem)
	}
	var found []*ignore
	for _, rule := range rules {
		switch r, ok := c.findRule(rule); {
		case !ok:
			complain("%q is no rule: securefiles check --rules lists them", finding.Shorten(rule))
		case !r.Ignorable:
			complain("%s is an error, which cannot be ignored: mend the line", rule)
		default:
			found = append(found, &ignore{file: file, line: line, rule: rule})
		}
	}
	c.ignores = append(c.ignores, found...)
	return found
}

// result drops what is disabled or taken back, and sorts the rest by file and
// line.
func (c *checker) result() []policy.Finding {
	out := c.kept(func(f policy.Finding) (string, int) { return f.File, f.Line })
	files := map[string]int{c.source.String(): 1} // the model first
	slices.SortStableFunc(out, func(a, b policy.Finding) int {
		return cmp.Or(cmp.Compare(files[a.File], files[b.File]), cmp.Compare(a.File, b.File), compareLines(a.Line, b.Line))
	})
	c.report(1)
	return c.withRemedies(out)
}

// kept drops what is disabled or taken back. The place of a finding is where a
// comment would stand.
func (c *checker) kept(place func(policy.Finding) (file string, line int)) []policy.Finding {
	type spot struct {
		file string
		line int
		rule string
	}
	ignores := map[spot]*ignore{}
	for _, ig := range c.ignores {
		if ig.target > 0 {
			ignores[spot{ig.file, ig.target, ig.rule}] = ig
		}
		if ig.first {
			ignores[spot{ig.file, 0, ig.rule}] = ig
		}
	}
	var out []policy.Finding
	for _, f := range c.findings {
		if f.Severity != policy.SeverityError && slices.Contains(c.opts.Disable, f.Rule) {
			continue
		}
		file, line := place(f)
		if ig, ok := ignores[spot{file, line, f.Rule}]; ok {
			ig.used = true
			if f.Severity != policy.SeverityError {
				continue
			}
		}
		out = append(out, f)
	}
	for _, ig := range c.ignores {
		asked := ig.rule != "subject-unknown" || c.opts.OnlyUsers // otherwise nobody knows which names there are
		if c.complete && asked && !ig.used && !slices.Contains(c.opts.Disable, ig.rule) && !slices.Contains(c.opts.Disable, "suppression") {
			out = append(out, policy.Finding{File: ig.file, Line: ig.line, Severity: policy.SeverityWarning, Rule: "suppression", Message: fmt.Sprintf("the next line has no finding of %s: remove this comment", ig.rule)})
		}
	}
	return out
}

// findRule returns the rule with an id.
func (c *checker) findRule(id string) (Rule, bool) {
	i := slices.IndexFunc(c.rules, func(r Rule) bool { return r.ID == id })
	if i < 0 {
		return Rule{}, false
	}
	return c.rules[i], true
}

// compareLines puts what has no line last.
func compareLines(a, b int) int { return cmp.Compare(uint(a)-1, uint(b)-1) }

func (c *checker) withRemedies(findings []policy.Finding) []policy.Finding {
	for i, f := range findings {
		if r, ok := c.findRule(f.Rule); ok {
			findings[i].Remedy = r.Remedy
		}
	}
	return findings
}

// A linter looks for what a policy says clearly and hardly means. It reads a
// table that is loaded. What it finds keeps nothing from being served.
type linter struct {
	ctx   context.Context
	model *model.Model
	table *table.Table
	check *checker
	shape *model.Outline
	roles *graph
	held  *graph                      // of the roles that are had at any time
	uses  []use                       // what subjects returns
	given []bool                      // what heldNames returns
	names []bool                      // by symbol: it is a subject, a group or a role
	kept  map[table.Symbol]bool       // roles whose last line is not to be removed
	found map[string][]policy.Finding // by rule
	extra map[string]int              // findings left out, by rule
	plan  *engine.Plan                // how decisions find their lines; nil where nobody asks
}

// heardRows returns a table without the rows whose effect Casbin, or the model,
// passes over: whoever compares lines must not take them for one that denies.
func heardRows(m *model.Model, t *table.Table) *table.Table {
	eft := m.PolicyField("eft")
	if eft < 0 {
		return t
	}
	heard := func(row int) bool {
		effect := t.Symbols.Text(t.Rows.Cols[eft][row])
		return effect == "allow" || effect == "deny" && m.Effect != model.AllowOverride
	}
	for row := range t.Rows.Len() {
		if !heard(row) {
			return t.Select(heard)
		}
	}
	return t
}

func newLinter(ctx context.Context, m *model.Model, t *table.Table, c *checker) *linter {
	return &linter{ctx: ctx, model: m, table: t, check: c, shape: model.NewOutline(m), found: map[string][]policy.Finding{}, extra: map[string]int{}}
}

// run runs every check. Each is a few passes over the policy.
func (l *linter) run() {
	l.roles = newGraph(l.table.Symbols, l.table.Edges["g"], l.depth())
	l.held = l.lasting()
	checks := []func(){
		l.lintPatterns, l.lintVariables, l.lintOpen, l.lintActions, l.lintDomains, l.lintSubjects, l.lintExpressions, l.lintFree, l.lintNames, l.lintCharacters, l.lintPaths, l.lintRoles, l.lintGrants, l.lintUsers, l.lintSuperusers, l.lintUnmet, l.lintCover, l.lintEnds, l.lintSizes, l.lintSpeed,
	}
	for i, check := range checks {
		if l.ctx.Err() != nil {
			return
		}
		check()
		l.check.report(loadingPart + (0.95-loadingPart)*float64(i+1)/float64(len(checks)))
	}
}

// warn reports a finding about a field of a line of the policy: 1 is the first
// after the line's type, 0 means the line as a whole.
func (l *linter) warn(line uint32, field int, rule, format string, args ...any) {
	l.add(policy.Finding{File: l.check.source.String(), Line: int(line), Rule: rule, Field: field}, format, args...)
}

func (l *linter) add(f policy.Finding, format string, args ...any) {
	if len(l.found[f.Rule]) >= maxPerRule {
		l.extra[f.Rule]++
		return
	}
	f.Severity, f.Message = policy.SeverityWarning, fmt.Sprintf(format, args...)
	l.found[f.Rule] = append(l.found[f.Rule], f)
}

// all returns the findings, and how many are left out.
func (l *linter) all() []policy.Finding {
	var out []policy.Finding
	for _, rule := range slices.Sorted(maps.Keys(l.found)) {
		// A rule that goes by something else than lines finds them in any order.
		out = append(out, l.found[rule]...)
		if n := l.extra[rule]; n > 0 && !slices.Contains(l.check.opts.Disable, rule) {
			out = append(out, policy.Finding{File: l.check.source.String(), Severity: policy.SeverityWarning, Rule: "too-many", Message: fmt.Sprintf("%d more findings of %s are not shown", n, rule)})
		}
	}
	return out
}

// at returns a field of a row, or 0 where there is no such column.
func (l *linter) at(col, row int) table.Symbol {
	if col < 0 {
		return 0
	}
	return l.table.Rows.Cols[col][row]
}

// text returns a field of a row.
func (l *linter) text(col, row int) string { return l.table.Symbols.Text(l.table.Rows.Cols[col][row]) }

// allows reports whether a row allows; what does not denies.
func (l *linter) allows(row int) bool {
	eft := l.model.PolicyField("eft")
	return eft < 0 || l.text(eft, row) == "allow"
}
