package policy

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/casbin/casbin/v2"
	casbinmodel "github.com/casbin/casbin/v2/model"
	stringadapter "github.com/casbin/casbin/v2/persist/string-adapter"
	"pgregory.net/rapid"

	"securefiles/authz"
)

// A world is a model, a policy that loads under it, and both of ours and of
// stock Casbin's answers to a request.
type world struct {
	model, policy string
	def           *definition
	table         *table
	engine        *engine
	stock         *casbin.Enforcer
}

// newWorld leaves out the lines that the loader refuses. It is nil where the
// model is refused, or the whole policy.
func newWorld(t interface{ Fatalf(string, ...any) }, model, policy string, opts engineOptions) *world {
	def, err := parseDefinition("model.conf", model)
	if err != nil {
		return nil
	}
	w := &world{model: model, policy: policy, def: def}
	for {
		w.table, _, err = loadTable(context.Background(), "policy.csv", strings.NewReader(w.policy), def)
		if err == nil {
			break
		}
		var refused *LoadError
		if !errors.As(err, &refused) {
			t.Fatalf("load: %v", err)
		}
		lines := strings.Split(w.policy, "\n")
		removed := false
		for _, f := range refused.Findings {
			if f.Severity == SeverityError && f.Line > 0 && lines[f.Line-1] != "" {
				lines[f.Line-1], removed = "", true
			}
		}
		if !removed {
			return nil
		}
		w.policy = strings.Join(lines, "\n")
	}
	if w.engine, err = newEngine(def, w.table.syms, w.table.rules, w.table.links, opts); err != nil {
		t.Fatalf("index: %v\nmodel:\n%s\npolicy:\n%s", err, model, policy)
	}
	if w.stock, err = newStock(model, w.policy); err != nil {
		t.Fatalf("stock Casbin refuses what we accept: %v\nmodel:\n%s\npolicy:\n%s", err, model, w.policy)
	}
	return w
}

func newStock(model, policy string) (*casbin.Enforcer, error) {
	m, err := casbinmodel.NewModelFromString(model)
	if err != nil {
		return nil, err
	}
	return casbin.NewEnforcer(m, stringadapter.NewAdapter("# policy\n"+policy))
}

// withGroups returns a stock enforcer to which the groups of a query are roles of
// its subject.
func (w *world) withGroups(q *authz.Query) (*casbin.Enforcer, error) {
	fields, ok := w.def.roles["g"]
	if len(q.Principal.Groups) == 0 || !ok {
		return w.stock, nil
	}
	var links strings.Builder
	for _, g := range q.Principal.Groups {
		link := fmt.Sprintf("\ng, %s, %s", quoteField(q.Principal.Subject), quoteField(g))
		if fields == 2 {
			links.WriteString(link)
			continue
		}
		for _, domain := range domains() { // they hold in each
			links.WriteString(link + ", " + domain)
		}
	}
	return newStock(w.model, w.policy+links.String()+"\n")
}

// outcome is a decision and the line that decided, to compare.
type outcome struct {
	allowed bool
	line    string
}

func (w *world) ours(q *authz.Query) (outcome, error) {
	allowed, row, err := decideSafely(w.engine, q)
	out := outcome{allowed: allowed}
	if row >= 0 {
		for _, col := range w.table.rules.cols {
			out.line += w.table.syms.text(col[row]) + "\x00"
		}
	}
	return out, err
}

func (w *world) stocks(q *authz.Query) (outcome, error) {
	e, err := w.withGroups(q)
	if err != nil {
		return outcome{}, err
	}
	var request []any
	for _, name := range w.def.requestFields {
		value, _ := requestValue(q, name) // the definition names no other
		request = append(request, value)
	}
	allowed, line, err := e.EnforceEx(request...)
	out := outcome{allowed: allowed}
	for _, field := range line {
		out.line += field + "\x00"
	}
	return out, err
}

// tally counts what a run of comparisons came to.
type tally struct{ compared, allowed, decided, failed, indexed, refused int }

func (n *tally) compare(t interface{ Fatalf(string, ...any) }, w *world, q *authz.Query) {
	want, stockErr := w.stocks(q)
	got, err := w.ours(q)
	if stockErr != nil {
		// Stock fails for a line that the request reaches. We may never reach
		// it, and if we do, the error denies.
		n.failed++
		if err != nil && got.allowed {
			t.Fatalf("an error beside an allow: %v", err)
		}
		return
	}
	if err != nil || got != want {
		t.Fatalf("%+v\nstock: %t by %q\nours:  %t by %q, %v\nplan: %s\nmodel:\n%s\npolicy:\n%s", *q, want.allowed, want.line, got.allowed, got.line, err,
			cmp.Or(w.engine.plan.scan, "indexed"), w.model, w.policy)
	}
	n.compared++
	if want.allowed {
		n.allowed++
	}
	if want.line != "" {
		n.decided++
	}
	if w.engine.plan.scan == "" {
		n.indexed++
	}
}

// The generators. Names are few, so that lines and requests meet.

func oneOf(t *rapid.T, from ...string) string { return rapid.SampledFrom(from).Draw(t, "of") }

// chance is true once in n.
func chance(t *rapid.T, n int) bool { return rapid.IntRange(0, n-1).Draw(t, "chance") == n-1 }

func drawName(t *rapid.T) string {
	return oneOf(t, "alice", "bob", "root", "eve", "staff", "r1", "r2", "r3", "bad", "@team", "@anyone", "*", "c3")
}

func drawAction(t *rapid.T) string { return oneOf(t, "read", "write", "list", "*") }
func domains() []string            { return []string{"d1", "d2", "d*", "d3"} }
func drawDomain(t *rapid.T) string { return oneOf(t, domains()[:3]...) }
func drawSegment(t *rapid.T) string {
	return oneOf(t, "a", "b", "c", "ab", "a.b", "x y", "é", "A", "f1.pdf", "f2.pdf", "report", "zip_x", "+", "\u00e9t\u00e9.txt", "日本.txt")
}

func drawPath(t *rapid.T) string {
	var b strings.Builder
	for range rapid.IntRange(1, 4).Draw(t, "depth") {
		b.WriteString("/" + drawSegment(t))
	}
	switch rapid.IntRange(0, 30).Draw(t, "odd") {
	case 0:
		return b.String() + "?q=1"
	case 1:
		return b.String() + "\xff"
	case 2:
		return b.String() + "\n"
	case 3:
		return b.String() + "/"
	case 4:
		return strings.TrimPrefix(b.String(), "/")
	case 5:
		return "*"
	case 6:
		return ""
	case 7:
		return b.String() + "\ufffd"
	}
	return b.String()
}

// drawPattern returns a pattern for the functions that a matcher asks.
func drawPattern(t *rapid.T, matcher string) string {
	var wild []string
	switch {
	case strings.Contains(matcher, "globMatch"):
		wild = []string{"**", "**", "*", "*.pdf", "[ab]", "{a,b}", "?", `\a`, "{a,**}", "{**,a}/b", "{,a}", "a*", "*a"}
	case strings.Contains(matcher, "regexMatch(r.obj"):
		wild = []string{".*", "[ab]", "a+", "a?", "(a|b)", "a{1,2}", "^", "$", `\.`, ".", "(?i)a", "[^/]+", "a|b", `A(?s)?`, `\Qa\E`}
	case strings.Contains(matcher, "keyMatch2"):
		wild = []string{":id", ":id", "*", "*", ":id.pdf", "a?", "a*", "b+", "(?:a)", "a|b", "[ab]", "a{2}", ".", "é?", "(?i:a)", `\.`, "a$", ":a+b"}
	case strings.Contains(matcher, "keyMatch3"), strings.Contains(matcher, "keyMatch4"), strings.Contains(matcher, "keyMatch5"):
		wild = []string{"{id}", "{id}", "*", "*", "{id}.pdf", "x{id}", "a?", "a*", "[ab]", "a|b", ".", "{a}b{c}", "é*"}
	default:
		wild = []string{"*", "a*b", "a*", "*a"}
	}
	var b strings.Builder
	if strings.Contains(matcher, "regexMatch(r.obj") && !chance(t, 3) {
		b.WriteString(oneOf(t, "^", "^", "^", "(?i)^"))
	}
	for range rapid.IntRange(1, 4).Draw(t, "depth") {
		b.WriteString("/")
		if chance(t, 3) {
			b.WriteString(rapid.SampledFrom(wild).Draw(t, "wild"))
		} else {
			b.WriteString(drawSegment(t))
		}
	}
	if strings.Contains(matcher, "regexMatch(r.obj") && !chance(t, 3) {
		b.WriteString(oneOf(t, "$", "$", `\$`))
	}
	if chance(t, 25) {
		return "*"
	}
	return b.String()
}

// A modelShape is what a model defines, apart from its matcher.
type modelShape struct {
	request, policy []string
	roles           []string
	effect          string
}

const (
	allowOverride   = "some(where (p.eft == allow))"
	denyOverride    = "!some(where (p.eft == deny))"
	allowAndDeny    = "some(where (p.eft == allow)) && !some(where (p.eft == deny))"
	firstPriority   = "priority(p.eft) || deny"
	subjectPriority = "subjectPriority(p.eft) || deny"
)

func (s *modelShape) model(matcher string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "[request_definition]\nr = %s\n[policy_definition]\np = %s\n", strings.Join(s.request, ", "), strings.Join(s.policy, ", "))
	var roles []string
	for _, r := range s.roles {
		name, _, _ := strings.Cut(r, " ")
		if strings.Contains(matcher, name+"(") || name == "g" && s.effect == subjectPriority {
			roles = append(roles, r)
		}
	}
	if len(roles) > 0 {
		fmt.Fprintf(&b, "[role_definition]\n%s\n", strings.Join(roles, "\n"))
	}
	fmt.Fprintf(&b, "[policy_effect]\ne = %s\n[matchers]\nm = %s\n", s.effect, matcher)
	return b.String()
}

func drawShape(t *rapid.T) *modelShape {
	s := &modelShape{
		request: []string{"sub", "obj", "act"}, policy: []string{"sub", "obj", "act"}, roles: []string{"g = _, _"},
		effect: oneOf(t, allowOverride, denyOverride, allowAndDeny, allowAndDeny, firstPriority, firstPriority, subjectPriority),
	}
	if chance(t, 4) {
		s.request, s.policy, s.roles = []string{"sub", "dom", "obj", "act"}, []string{"sub", "dom", "obj", "act"}, []string{"g = _, _, _"}
	}
	if chance(t, 6) {
		s.request, s.policy = append(s.request, "ip"), append(s.policy, "net")
	}
	if s.effect != allowOverride || !chance(t, 3) {
		s.policy = append(s.policy, "eft")
	}
	if chance(t, 10) {
		s.policy = append(s.policy, "rule")
	}
	if s.effect == firstPriority && chance(t, 2) {
		if chance(t, 2) {
			s.policy = append([]string{"priority"}, s.policy...)
		} else {
			s.policy = append(s.policy, "priority")
		}
	}
	if chance(t, 4) {
		s.roles = append(s.roles, "g2 = _, _")
	}
	return s
}

func (s *modelShape) has(field string) bool { return slices.Contains(s.request, field) }

// roleOf asks for a role of a name.
func (s *modelShape) roleOf(name, role string) string {
	if s.has("dom") {
		return "g(" + name + ", " + role + ", r.dom)"
	}
	return "g(" + name + ", " + role + ")"
}

// drawMatcher returns one of the usual matchers, or any expression.
func (s *modelShape) drawMatcher(t *rapid.T) string {
	role := "g(r.sub, p.sub)"
	if s.has("dom") {
		role = oneOf(t, "g(r.sub, p.sub, r.dom)", "g(r.sub, p.sub, p.dom)") + oneOf(t, " && r.dom == p.dom", " && r.dom == p.dom", "", " && keyMatch(r.dom, p.dom)")
	}
	path := oneOf(t, "keyMatch", "keyMatch2", "keyMatch2", "keyMatch3", "keyMatch4", "keyMatch5", "globMatch", "globMatch", "regexMatch") + "(r.obj, p.obj)"
	usual := []string{
		role + " && " + path + " && r.act == p.act",
		role + " && " + path + ` && (r.act == p.act || p.act == "*")`,
		"r.sub == p.sub && r.obj == p.obj && r.act == p.act",
		role + " && " + path + ` && r.act == p.act || r.sub == "root"`,
		`r.sub == "root" || (` + role + " && (" + path + ` || r.obj == p.obj || p.obj == "*") && (r.act == p.act || p.act == "*"))`,
		`(p.sub == "*" || ` + role + ") && " + path + " && regexMatch(r.act, p.act)",
		role + " && !(" + path + " || r.act != p.act)",
		role + " && " + path + ` && !(r.sub == "bad") && r.act == p.act`,
		path + " && !(" + role + ")",
		role + ` && r.obj == p.obj && r.act in ("read", "list")`,
		"!(!(" + role + ") || !" + path + ") && r.act == p.act",
		path + " && r.act == p.act",
		`p.sub != r.sub && p.act != "write"`,
		`r.sub == "root" && p.sub == "alice" || "read" == p.act && ` + path,
		"(" + role + " || " + path + ") && r.act == p.act",
	}
	if slices.ContainsFunc(s.roles, func(r string) bool { return strings.HasPrefix(r, "g2") }) {
		usual = append(usual, role+" && g2(r.obj, p.obj) && r.act == p.act", role+" && (g2(r.obj, p.obj) || "+path+") && r.act == p.act")
	}
	if slices.Contains(s.policy, "rule") {
		usual = []string{"eval(p.rule) && " + path + " && r.act == p.act", role + " && eval(p.rule) && r.act == p.act"}
	}
	usual = append(usual, s.roleOf("r.sub", `"@none"`)+" && "+path+" || "+role+" && "+path, role+" && "+path+" && !"+s.roleOf("r.sub", `"@none"`), s.roleOf("p.sub", "r.sub")+" && "+path)
	if s.has("ip") {
		usual = append(usual, role+" && "+path+` || ipMatch(r.ip, "10.0.0.0/8") && r.obj == p.obj`, role+` && ipMatch(r.ip, "10.0.0.0/8") && r.act == p.act`, role+" && "+path+" && ipMatch(r.ip, p.net)", "ipMatch(r.ip, p.net) && r.sub == p.sub")
	}
	if !chance(t, 3) {
		return rapid.SampledFrom(usual).Draw(t, "usual")
	}
	return s.drawExpression(t, role, path, rapid.IntRange(1, 3).Draw(t, "deep"))
}

func (s *modelShape) drawExpression(t *rapid.T, role, path string, depth int) string {
	if depth == 0 || chance(t, 4) {
		a := oneOf(t, "("+role+")", "("+role+")", "r.sub == p.sub", "p.sub == r.sub", `p.sub == "alice"`, `"*" == p.sub`, path, path,
			"r.obj == p.obj", `p.obj == "*"`, "r.act == p.act", `p.act == "*"`, `r.sub == "root"`, `r.act in ("read", "list")`,
			"regexMatch(r.act, p.act)", "p.sub != r.sub", "true", "false", `p.act in ("read", "x")`, `r.sub + "" == p.sub`,
			"(r.sub == p.sub) == (r.act == p.act)", "r.sub > p.sub", `r.act =~ "^r"`, "r.obj == r.act", "p.sub == p.act", `keyMatch(r.obj, "/a*")`,
			s.roleOf("r.sub", `"@none"`), s.roleOf("r.sub", `"staff"`), s.roleOf("r.sub", `"@" + r.act`), s.roleOf("p.sub", "r.sub"), `keyGet(r.obj, p.obj) == "b"`)
		switch {
		case chance(t, 6):
			return "!(" + a + ")"
		case chance(t, 8) && (strings.HasPrefix(a, "keyMatch") || strings.HasPrefix(a, "(g")):
			return "!" + a
		}
		return a
	}
	parts := []string{s.drawExpression(t, role, path, depth-1)}
	for range rapid.IntRange(1, 2).Draw(t, "more") {
		parts = append(parts, oneOf(t, "&&", "&&", "||"), s.drawExpression(t, role, path, depth-1))
	}
	e := strings.Join(parts, " ")
	switch rapid.IntRange(0, 8).Draw(t, "around") {
	case 0:
		return "!(" + e + ")"
	case 1:
		return "((" + e + ") ? (" + parts[0] + ") : (" + parts[2] + "))"
	case 5:
		return "(" + parts[0] + " ? " + parts[2] + " : " + parts[0] + " || " + parts[2] + ")"
	case 2:
		return "(" + e + ") == true"
	case 3, 4:
		return e // the operators mix
	}
	return "(" + e + ")"
}

func (s *modelShape) drawPolicy(t *rapid.T, matcher string) string {
	var b strings.Builder
	line := func(fields ...string) {
		for i, f := range fields {
			if i > 0 {
				b.WriteString(", ")
			}
			b.WriteString(quoteField(f))
		}
		b.WriteByte('\n')
	}
	for range rapid.IntRange(0, 24).Draw(t, "lines") {
		fields := []string{"p"}
		for _, f := range s.policy {
			value := ""
			switch f {
			case "sub":
				value = drawName(t)
			case "obj":
				if value = drawPattern(t, matcher); strings.Contains(matcher, "g2(") && chance(t, 2) {
					value = oneOf(t, "res1", "res2")
				} else if chance(t, 6) {
					value = drawPath(t)
				}
			case "act":
				if value = drawAction(t); strings.Contains(matcher, "regexMatch(r.act") {
					value = oneOf(t, "read", "re.*", "^w", "read|list", ".*")
				}
			case "dom":
				value = drawDomain(t)
			case "net":
				value = oneOf(t, "10.0.0.0/8", "192.0.2.1", "2001:db8::/32")
			case "eft":
				if value = oneOf(t, "allow", "allow", "deny"); s.effect == allowOverride {
					value = "allow"
				}
			case "rule":
				value = oneOf(t, "r.sub == 'alice'", "r.sub != 'bob'", "true", "r.act == 'read' && r.sub != 'eve'", "keyMatch(r.obj, '/a*')", "p.sub == r.sub", "!g(r.sub, '@none')")
			case "priority":
				value = oneOf(t, "1", "2", "3", "10", "-1")
			}
			fields = append(fields, value)
		}
		line(fields...)
	}
	for _, role := range s.roles {
		name, _, _ := strings.Cut(role, " ")
		if !strings.Contains(matcher, name+"(") && (name != "g" || s.effect != subjectPriority) {
			continue
		}
		for range rapid.IntRange(0, 12).Draw(t, "links") {
			fields := []string{name, drawName(t), drawName(t)}
			if name == "g2" {
				fields[1], fields[2] = oneOf(t, "/a/b", "/a", "/b", "res1"), oneOf(t, "res1", "res2")
			}
			if strings.Count(role, "_") == 3 {
				fields = append(fields, drawDomain(t))
			}
			line(fields...)
		}
		if name == "g" && chance(t, 4) && strings.Count(role, "_") == 2 { // around the depth at which Casbin stops
			previous, hops := "alice", rapid.IntRange(8, 12).Draw(t, "hops")
			for i := range hops {
				next := fmt.Sprintf("c%d", i)
				if i == hops-1 {
					next = "staff"
				}
				line("g", previous, next)
				previous = next
			}
		}
	}
	return b.String()
}

func drawQuery(t *rapid.T, matcher string) *authz.Query {
	q := &authz.Query{
		Principal: authz.Principal{Subject: oneOf(t, "alice", "bob", "root", "eve", "staff", "r1", "c3", "nobody", "")},
		Object:    drawPath(t), Action: drawAction(t), Domain: oneOf(t, domains()...),
		IP: oneOf(t, "10.1.2.3", "192.0.2.1", "2001:db8::1", "10.0.0.0", ""),
	}
	if strings.Contains(matcher, "g2(") && chance(t, 2) {
		q.Object = oneOf(t, "/a/b", "/a", "/b", "res1")
	}
	if chance(t, 8) {
		q.Principal.Groups = rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"@team", "@anyone", "@none", "@read", "staff", "r2"}), 1, 3, rapid.ID).Draw(t, "groups")
	}
	return q
}

// checkAgainstStock draws a world and compares ours with stock Casbin's answers.
func (n *tally) checkAgainstStock(t *rapid.T) {
	s := drawShape(t)
	matcher := s.drawMatcher(t)
	tuned := defaultTuning()
	if chance(t, 2) { // the ways that only a large policy takes
		tuned = tuning{fewValues: rapid.IntRange(0, 3).Draw(t, "few"), searchFrom: rapid.IntRange(0, 3).Draw(t, "search"), fewRows: rapid.IntRange(0, 3).Draw(t, "path")}
	}
	w := newWorld(t, s.model(matcher), s.drawPolicy(t, matcher), engineOptions{tuning: &tuned})
	if w == nil {
		n.refused++
		return
	}
	for range rapid.IntRange(1, 40).Draw(t, "requests") {
		q := drawQuery(t, matcher)
		if s.effect == subjectPriority {
			q.Principal.Groups = nil // to stock, another link is another order of the lines
		}
		n.compare(t, w, q)
	}
}

// The answer is stock Casbin's, the deciding line included: for any model, policy
// and request. A failure is shrunk, and told with its seed.
func TestStockDecidesTheSame(t *testing.T) {
	var n tally
	rapid.Check(t, n.checkAgainstStock)
	t.Logf("%+v", n)
	if n.compared < 1000 || n.indexed < n.compared/2 || n.allowed < n.compared/20 || n.decided < n.compared/20 || n.refused > n.compared {
		t.Errorf("the comparisons say little: %+v", n)
	}
}

// FuzzStockDecidesTheSame is the same, steered by coverage.
func FuzzStockDecidesTheSame(f *testing.F) {
	f.Fuzz(rapid.MakeFuzz((&tally{}).checkAgainstStock))
}
