package table

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"securefiles/policy/internal/finding"
	"securefiles/policy/internal/model"
	"securefiles/policy/internal/pace"
	"securefiles/policy/internal/world"

	casbinmodel "github.com/casbin/casbin/v2/model"
	fileadapter "github.com/casbin/casbin/v2/persist/file-adapter"
	"github.com/google/go-cmp/cmp"
)

// load loads a policy; findings are those of an error too.
func load(t testing.TB, def *model.Model, text string) (*Table, []finding.Finding) {
	t.Helper()
	tab, findings, err := Read(t.Context(), "policy.csv", strings.NewReader(text), def, Options{})
	var refused *finding.LoadError
	switch {
	case errors.As(err, &refused):
		return nil, refused.Findings
	case err != nil:
		t.Fatal(err)
	}
	return tab, findings
}

// Render returns the lines of a table in the order of their evaluation, as
// Casbin holds them.
func (t *Table) Render() map[string][][]string {
	out := map[string][][]string{}
	for row := range t.Rows.Len() {
		var fields []string
		for _, col := range t.Rows.Cols {
			fields = append(fields, t.Symbols.Text(col[row]))
		}
		out["p"] = append(out["p"], fields)
	}
	for name, ls := range t.Edges {
		for _, l := range ls {
			fields := []string{t.Symbols.Text(l.Name), t.Symbols.Text(l.Role)}
			if l.Domain != 0 {
				fields = append(fields, t.Symbols.Text(l.Domain))
			}
			out[name] = append(out[name], fields)
		}
	}
	return out
}

// stockRows returns what stock Casbin makes of a model and a policy.
func stockRows(model, policyFile string) (rows map[string][][]string, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("panic: %v", r)
		}
	}()
	m, err := casbinmodel.NewModelFromString(model)
	if err != nil {
		return nil, err
	}
	if err := fileadapter.NewAdapter(policyFile).LoadPolicy(m); err != nil {
		return nil, err
	}
	if err := m.SortPoliciesBySubjectHierarchy(); err != nil {
		return nil, err
	}
	if err := m.SortPoliciesByPriority(); err != nil {
		return nil, err
	}
	rows = map[string][][]string{}
	for _, section := range []string{"p", "g"} {
		for name, assertion := range m[section] {
			if len(assertion.Policy) > 0 {
				rows[name] = assertion.Policy
			}
		}
	}
	return rows, nil
}

// S15: each file has one mistake that stock Casbin reads silently, or refuses
// without saying where. Its directory names the model. Those that can let nobody in
// are served.
func TestBadPoliciesAreToldOf(t *testing.T) {
	files, err := filepath.Glob("testdata/bad/*/*.csv")
	if err != nil {
		t.Fatal(err)
	}
	var all []finding.Finding
	for _, file := range files {
		dir, name := filepath.Split(file)
		model := filepath.Base(dir)
		_, findings, err := Read(t.Context(), model+"/"+name, strings.NewReader(world.File(t, file)), world.Model(t, model), Options{})
		var refused *finding.LoadError
		switch {
		case errors.As(err, &refused):
			findings = refused.Findings
		case err != nil || len(findings) == 0:
			t.Errorf("%s is accepted: %v, %v", file, err, findings)
		}
		all = append(all, findings...)
	}
	world.CompareFindings(t, "testdata/bad", 75, all)
}

func TestColumns(t *testing.T) {
	for _, tt := range []struct {
		model, line  string
		line0, where int
	}{
		{"default", "  p, alice, /a/x, read, Deny", 1, 25},
		{"default", "p, alice , /a/x, read, deny", 1, 4},
		{"default", "p, alice, /a/x, read,", 1, 22},
		{"default", "p, josé, /a/\x01, read, deny", 1, 14},
		{"default", "\tp, alice, /a/\xff, read, deny", 1, 15},
		{"default", "p, alice, /a/\"x\", read, deny", 1, 14},
		{"default", "p, \"alice\", /a/x, read, Deny", 1, 0},
		{"default", " q, alice", 1, 2},
		{"default", "g, alice, @staff", 1, 11},
		{"default", " # comment\rp, alice, /a/x, read, deny", 1, 11},
		{"priority", "p, high, alice, /a/x, read, deny", 1, 4},
	} {
		_, findings := load(t, world.Model(t, tt.model), tt.line)
		if len(findings) != 1 || findings[0].Line != tt.line0 || findings[0].Column != tt.where {
			t.Errorf("%q: got %+v, want column %d", tt.line, findings, tt.where)
		}
	}
}

// What is accepted loads in stock Casbin to the same lines, in the same order.
func TestGoodPoliciesLoadAsInStockCasbin(t *testing.T) {
	files, err := filepath.Glob("testdata/good/*.csv")
	if err != nil || len(files) < 15 {
		t.Fatal(len(files), err)
	}
	for _, file := range files {
		model := strings.TrimSuffix(filepath.Base(file), ".csv")
		if model == "crlf" || model == "default" {
			model = "undated"
		}
		def := world.Model(t, model)
		tab, findings := load(t, def, world.File(t, file))
		if len(findings) > 0 {
			t.Errorf("%s: %v", file, findings)
			continue
		}
		want, err := stockRows(def.Text, file)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, tab.Render()); diff != "" {
			t.Errorf("%s: -stock +ours\n%s", file, diff)
		}
	}
}

// The order of evaluation is stock Casbin's, ties included.
func TestOrderIsCasbins(t *testing.T) {
	random := rand.New(rand.NewPCG(5, 6))
	for _, model := range []string{"priority", "prioritylast", "subject", "subjectpriority", "subjectdomain"} {
		var text strings.Builder
		for i := range 300 {
			name := fmt.Sprintf("n%d", random.IntN(60))
			switch model {
			case "priority":
				fmt.Fprintf(&text, "p, %d, %s, /%d, read, allow\n", random.IntN(9)-4, name, i)
			case "prioritylast", "subjectpriority":
				fmt.Fprintf(&text, "p, %s, /%d, read, deny, %d\n", name, i, random.IntN(9)-4)
			case "subject":
				fmt.Fprintf(&text, "p, %s, /%d, read, allow\n", name, i)
			case "subjectdomain":
				fmt.Fprintf(&text, "p, %s, d%d, /%d, read, allow\n", name, random.IntN(3), i)
			}
		}
		for i := 1; i < 50; i++ { // trees, with roots beside them
			switch model {
			case "subject", "subjectpriority":
				fmt.Fprintf(&text, "g, n%d, n%d\n", i, random.IntN(i))
			case "subjectdomain":
				fmt.Fprintf(&text, "g, n%d, n%d, d0\ng, n%d, n%d, d1\n", i, random.IntN(i), 50-i, 51-i+random.IntN(i))
			}
		}
		def := world.Model(t, model)
		tab, findings := load(t, def, text.String())
		if len(findings) > 0 {
			t.Fatal(model, findings[0])
		}
		file := filepath.Join(t.TempDir(), "policy.csv")
		world.Write(t, file, text.String())
		want, err := stockRows(def.Text, file)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, tab.Render()); diff != "" {
			t.Errorf("%s: -stock +ours\n%s", model, diff)
		}
	}
}

// Lines that differ are no duplicates, though half of their hashes are equal,
// as happens a dozen times here.
func TestLinesWithTheSameHash(t *testing.T) {
	const lines = 300_000
	for _, tt := range []struct{ model, first, format string }{
		{"prioritylast", "", "p, a, /a/**, read, allow, %d\n"},
		{"domain", "p, a, d, /a/**, read, allow\n", "g, b, a, d%d\n"},
	} {
		text := bytes.NewBufferString(tt.first)
		for i := range lines {
			fmt.Fprintf(text, tt.format, i)
		}
		if _, findings := load(t, world.Model(t, tt.model), text.String()); len(findings) > 0 {
			t.Errorf("%s: %v", tt.model, findings[0])
		}
	}
}

func TestLinesKeepTheirNumbers(t *testing.T) {
	tab, _ := load(t, world.Model(t, "priority"), "# one\n\np, 2, a, /, read, allow\np, 1, b, /, read, allow\ng, c, a\n")
	if diff := cmp.Diff([]uint32{4, 3}, tab.Rows.Lines); diff != "" {
		t.Error(diff)
	}
	if got := tab.Edges["g"][0].Line; got != 5 || tab.Lines != 3 {
		t.Errorf("link at %d, %d lines", got, tab.Lines)
	}
}

func TestDuplicatesAreDroppedWithAWarning(t *testing.T) {
	for _, tt := range []struct{ name, model, text string }{
		{"p line", "undated", "p, a, /a/**, read, allow\np, a, /b/**, read, allow\np,a,\"/a/**\",read,allow\n"},
		{"g line", "undated", "p, a, /a/**, read, allow\ng, b, a\ng, b,a\n"},
		{"g line in a domain", "domain", "p, a, d, /a/**, read, allow\ng, b, a, d\ng, b, a, d\n"},
	} {
		def := world.Model(t, tt.model)
		tab, findings := load(t, def, tt.text)
		if len(findings) != 1 || findings[0].Severity != finding.SeverityWarning || findings[0].Rule != "duplicate" || findings[0].Line != 3 && findings[0].Line != 4 {
			t.Errorf("%s: %v", tt.name, findings)
		}
		file := filepath.Join(t.TempDir(), "policy.csv")
		if err := os.WriteFile(file, []byte(tt.text), 0o600); err != nil {
			t.Fatal(err)
		}
		want, err := stockRows(def.Text, file)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, tab.Render()); diff != "" {
			t.Errorf("%s: -stock +ours\n%s", tt.name, diff)
		}
	}
	if _, findings := load(t, world.Model(t, "domain"), "p, a, d, /a/**, read, allow\ng, b, a, d\ng, b, a, e\n"); len(findings) != 0 {
		t.Errorf("another domain is another line: %v", findings)
	}
}

// What is used in another way than by a p line is no misspelt role.
func TestRolesThatAreUsed(t *testing.T) {
	for _, tt := range []struct{ name, model, text string }{
		{"by a p line", "default", "p, staff, /a/**, read, allow\ng, alice, staff\n"},
		{"by another role", "default", "p, staff, /a/**, read, allow\ng, alice, interns\ng, interns, staff\n"},
		{"by a group of the identity source", "default", "p, staff, /a/**, read, allow\ng, @hr, staff\n"},
		{"by the matcher", "superuser", "p, alice, /a/**, read, allow\ng, bob, operators\n"},
		{"by a rule", "rule", "p, \"g(r.sub, 'staff')\", /a/**, read, allow\ng, alice, staff\n"},
		{"as an object", "resource", "p, alice, reports, read, allow\ng2, /a/x.pdf, reports\n"},
		{"for its rank", "subject", "p, alice, /a/**, read, allow\ng, alice, staff\n"},
	} {
		if _, findings := load(t, world.Model(t, tt.model), tt.text); len(findings) > 0 {
			t.Errorf("%s: %v", tt.name, findings)
		}
	}
}

func TestAllFindingsAreCollectedUpToABound(t *testing.T) {
	_, findings := load(t, world.Model(t, "default"), strings.Repeat("p, a, /, read, Deny\n", 250))
	if len(findings) != finding.MaxFindings+1 {
		t.Fatalf("%d findings", len(findings))
	}
	for i, f := range findings[:finding.MaxFindings] {
		if f.Line != i+1 {
			t.Fatalf("finding %d: %v", i, f)
		}
	}
	if got := findings[finding.MaxFindings].String(); got != "policy.csv: error: 150 more findings are not shown [too-many]" {
		t.Error(got)
	}
	_, findings = load(t, world.Model(t, "default"), strings.Repeat("p, a, /a, read, deny\n", 250))
	if got := findings[len(findings)-1]; got.Severity != finding.SeverityWarning {
		t.Errorf("warnings alone became %v", got)
	}
}

func TestFindingAsJSON(t *testing.T) {
	_, findings := load(t, world.Model(t, "default"), "p, a, /, read, Deny\np, a, /, read, deny\np, a, /, read, deny\n")
	got, err := json.Marshal(findings)
	if err != nil {
		t.Fatal(err)
	}
	const want = `[{"file":"policy.csv","line":1,"column":16,"severity":"error","rule":"effect","message":"the effect is \"Deny\", which Casbin would ignore: write allow or deny"},` +
		`{"file":"policy.csv","line":3,"severity":"warning","rule":"duplicate","message":"says what line 2 says: remove one"}]`
	if string(got) != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// S14: what stands in a file reaches no terminal as it is.
func TestMessagesAreEscaped(t *testing.T) {
	def := world.Model(t, "keymatch2")
	for _, text := range []string{
		"p, \x1b[31m, /, read, allow\n", "\u202eq, a\n", "p, a, /, read, \u202ewolla\n", "p, '\u202ea', /, read, allow\n",
		"p, a\u202e , /, read, allow\n", "p, a, /\u202e[, read, allow\n", "p, a, /, read, allow\ng, b, \u202ec\n", "p, \u00a0\u202ea, /, read, allow\n",
		"p, a, /, read # \u202e, allow\np, a, \"/\u202e, read, allow\n",
	} {
		_, findings := load(t, def, text)
		if len(findings) == 0 {
			t.Errorf("%q is accepted", text)
		}
		for _, f := range findings {
			if s := f.String(); s != finding.Escape(s) {
				t.Errorf("%q: message %q", text, s)
			}
		}
	}
}

// S15: every reader is bounded.
func TestPolicySizeIsBounded(t *testing.T) {
	if testing.Short() {
		t.Skip("reads 1 GiB")
	}
	comment := bytes.Repeat([]byte("#"), 60<<10)
	comment[len(comment)-1] = '\n'
	endless := repeat(comment, MaxSize/len(comment)+1)
	_, _, err := Read(t.Context(), "policy.csv", endless, world.Model(t, "default"), Options{})
	if err == nil || err.Error() != "policy.csv: error: is larger than 1073741824 bytes [file-size]" {
		t.Error(err)
	}
}

// repeat is n times b.
func repeat(b []byte, n int) io.Reader { return &repeated{b: b, n: n} }

type repeated struct {
	b    []byte
	n, i int
}

func (r *repeated) Read(out []byte) (int, error) {
	if r.n == 0 {
		return 0, io.EOF
	}
	k := copy(out, r.b[r.i:])
	if r.i += k; r.i == len(r.b) {
		r.i, r.n = 0, r.n-1
	}
	return k, nil
}

// A line is as long here as in stock Casbin, to the byte.
func TestLineLengthIsCasbins(t *testing.T) {
	def := world.Model(t, "undated")
	for _, end := range []string{"\n", "\r\n", ""} {
		for length := MaxLine - 3; length <= MaxLine+1; length++ {
			prefix, suffix := "p, alice, /", ", read, allow"
			text := prefix + strings.Repeat("a", length-len(prefix)-len(suffix)-len(end)) + suffix + end
			file := filepath.Join(t.TempDir(), "policy.csv")
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := stockRows(def.Text, file)
			_, findings := load(t, def, text)
			if (err == nil) != (len(findings) == 0) {
				t.Errorf("%d bytes, end %q: stock %v, ours %v", length, end, err, findings)
			}
		}
	}
}

func TestReadingStops(t *testing.T) {
	def := world.Model(t, "default")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	endless := repeat([]byte("p, a, /, read, allow\n"), 1<<40)
	if _, _, err := Read(ctx, "policy.csv", endless, def, Options{}); !errors.Is(err, context.Canceled) {
		t.Errorf("context: %v", err)
	}
	broken := io.MultiReader(strings.NewReader("p, a, /, read, allow\n"), errReader{})
	if _, _, err := Read(t.Context(), "policy.csv", broken, def, Options{}); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("reader: %v", err)
	}
}

type errReader struct{}

func (errReader) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

func TestGeneratedPolicyIsClean(t *testing.T) {
	for _, size := range []struct{ p, users, roles int }{{10, 10, 4}, {100, 10, 1}, {5000, 500, 50}} {
		var text bytes.Buffer
		if err := world.Scale(&text, size.p, size.users, size.roles); err != nil {
			t.Fatal(err)
		}
		tab, findings := load(t, world.Model(t, "default"), text.String())
		if len(findings) > 0 {
			t.Fatalf("%+v: %v", size, findings[0])
		}
		if tab.Rows.Len() != size.p {
			t.Errorf("%+v: %d rows", size, tab.Rows.Len())
		}
	}
}

// Whatever is read never panics, and whatever is accepted loads in stock Casbin
// to the same lines in the same order.
func FuzzPolicyCSV(f *testing.F) {
	models := []string{"undated", "priority", "prioritylast", "subject", "subjectdomain", "subjectpriority", "domain", "resource", "basic", "keymatch2", "regex"}
	seeds := 0
	for _, pattern := range []string{"testdata/good/*.csv", "testdata/bad/*/*.csv"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			f.Fatal(err)
		}
		for _, file := range files {
			if text := world.File(f, file); len(text) < 4096 {
				for i := range models {
					f.Add(uint8(i), text)
					seeds++
				}
			}
		}
	}
	if seeds < 500 {
		f.Fatalf("only %d seeds", seeds)
	}
	defs := make([]*model.Model, len(models))
	for i, name := range models {
		defs[i] = world.Model(f, name)
	}
	file := filepath.Join(f.TempDir(), "policy.csv")
	f.Fuzz(func(t *testing.T, model uint8, text string) {
		def := defs[int(model)%len(defs)]
		tab, findings := load(t, def, text)
		if tab == nil {
			if len(findings) == 0 {
				t.Fatal("refused without a finding")
			}
			return
		}
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		want, err := stockRows(def.Text, file)
		if err != nil {
			t.Fatalf("accepted, but stock refuses: %v", err)
		}
		if diff := cmp.Diff(want, tab.Render()); diff != "" {
			t.Errorf("-stock +ours\n%s", diff)
		}
	})
}

// However a matcher writes it, a pattern that cannot be compiled is refused.
func TestPatternsAreFoundInMatchers(t *testing.T) {
	s := world.Shape{Request: []string{"sub", "obj", "act"}, Policy: []string{"sub", "obj", "act", "eft"}, Effect: world.AllowAndDeny}
	for _, matcher := range []string{
		"keyMatch2(r.obj, p.obj)", "keyMatch2( (r.obj) , (p.obj))", "r.act == p.act && keyMatch3 (r.obj, ((p.obj)))", "r.obj =~ p.obj", "r.obj =~ (p.obj)",
		`keyMatch2(keyGet2(r.obj, "/a/:x", "x"), p.obj)`, `regexMatch("a,b", p.obj)`, `regexMatch("a,b", (p.obj))`, `globMatch("a,b", p.act) || keyMatch4(r.obj, p.obj)`,
	} {
		def, err := model.Parse("model.conf", s.Model(matcher))
		if err != nil {
			t.Errorf("%s: %v", matcher, err)
			continue
		}
		if _, _, err := Read(t.Context(), "policy.csv", strings.NewReader("p, alice, /a(?<x, read, allow\n"), def, Options{}); err == nil {
			t.Errorf("%s: the pattern is accepted", matcher)
		}
	}
}

// A value that never reaches a pattern function need not be a pattern of it.
func TestPatternsThatAreSpared(t *testing.T) {
	shape := world.Shape{Request: []string{"sub", "obj", "act", "ip"}, Policy: []string{"sub", "obj", "act", "net"}, Effect: world.AllowOverride}
	for _, tt := range []struct {
		matcher string
		ok      bool
	}{
		{`(p.act == "*" || regexMatch(r.act, p.act)) && (p.net == "*" || ipMatch(r.ip, p.net))`, true},
		{`p.act != "*" && regexMatch(r.act, p.act) && p.net != r.ip`, true},
		{`(regexMatch(r.act, p.act) || p.act == "*") && p.net != r.ip`, false},
		{`(p.act == "*" || regexMatch(r.act, p.act)) && regexMatch(r.act, p.act) && p.net != r.ip`, false},
		{`(p.net in ("*", "any") || regexMatch(r.act, p.act)) && (p.net == "*" || ipMatch(r.ip, p.net))`, true},
		{`(p.act == "*" && p.net == "*" || regexMatch(r.act, p.act)) && p.net != r.ip`, true},
		{`(p.act == "*" && p.net == "10.0.0.0/8" || regexMatch(r.act, p.act)) && p.net != r.ip`, false},
		{`(p.act == "any" || regexMatch(r.act, p.act)) && p.net != r.ip`, false},
		{`(p.act == "*" || regexMatch(r.act, p.act)) && ipMatch(r.ip, p.net)`, false},
	} {
		m, err := model.Parse("model.conf", shape.Model("r.sub == p.sub && globMatch(r.obj, p.obj) && "+tt.matcher))
		if err != nil {
			t.Errorf("%s: %v", tt.matcher, err)
			continue
		}
		_, _, err = Read(t.Context(), "policy.csv", strings.NewReader("p, alice, /a, *, *\np, alice, /a, re.d, 10.0.0.0/8\n"), m, Options{})
		var refused *finding.LoadError
		if (err == nil) != tt.ok || !tt.ok && (!errors.As(err, &refused) || refused.Findings[0].Rule != "pattern" || refused.Findings[0].Line != 1) {
			t.Errorf("%s: %v", tt.matcher, err)
		}
	}
}

// The size of the version before makes room, and nothing else.
func TestTheVersionBeforeChangesNothing(t *testing.T) {
	m := world.Model(t, "default")
	read := func(text string, last *Table) *Table {
		t.Helper()
		tab, _, err := Read(t.Context(), "policy.csv", strings.NewReader(text), m, Options{Last: last, Pace: new(pace.Pace)})
		if err != nil {
			t.Fatal(err)
		}
		return tab
	}
	var many strings.Builder
	for i := range 5000 {
		fmt.Fprintf(&many, "p, role%d, /d%d/**, read, allow\ng, user%d, role%d\n", i%7, i, i, i%7)
	}
	texts := map[string]string{"small": "p, alice, /a/**, read, allow\np, staff, /b/**, read, allow, 2026-01-01, _\ng, bob, staff\n", "large": many.String(), "other": "p, bob, /**, read, deny\n"}
	for name, text := range texts {
		want := read(text, nil)
		for before := range texts {
			got := read(text, read(texts[before], nil))
			if got.Lines != want.Lines || !reflect.DeepEqual(got.Rows, want.Rows) || !reflect.DeepEqual(got.Edges, want.Edges) || !reflect.DeepEqual(got.Periods, want.Periods) {
				t.Errorf("%s after %s: %d lines, %+v, want %d lines, %+v", name, before, got.Lines, got.Edges, want.Lines, want.Edges)
			}
			for s := range Symbol(want.Symbols.Len()) {
				if found, ok := got.Symbols.Lookup(want.Symbols.Text(s)); !ok || found != s {
					t.Errorf("%s after %s: the symbol of %q is %d, %t, want %d", name, before, want.Symbols.Text(s), found, ok, s)
				}
			}
		}
	}
}
