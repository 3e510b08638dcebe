package world

import (
	"fmt"
	"slices"
	"strings"

	"securefiles/authz"

	"pgregory.net/rapid"
)

// The generators. Names are few, so that lines and requests meet.

func OneOf(t *rapid.T, from ...string) string { return rapid.SampledFrom(from).Draw(t, "of") }

// Chance is true once in n.
func Chance(t *rapid.T, n int) bool { return rapid.IntRange(0, n-1).Draw(t, "chance") == n-1 }

func drawName(t *rapid.T) string {
	return OneOf(t, "alice", "bob", "root", "eve", "staff", "r1", "r2", "r3", "bad", "@team", "@anyone", "*", "c3", "q31", "q63")
}

func drawAction(t *rapid.T) string { return OneOf(t, "read", "write", "list", "*") }

// Domains are those of drawn policies and requests.
func Domains() []string { return []string{"d1", "d2", "d*", "d3"} }

func drawDomain(t *rapid.T) string { return OneOf(t, Domains()[:3]...) }

// Addresses are those of drawn requests; some have none.
func Addresses() []string { return []string{"10.1.2.3", "192.0.2.1", "2001:db8::1", "10.0.0.0"} }

func drawSegment(t *rapid.T) string {
	if Chance(t, 40) {
		return drawLong(t, "a", ".a", "xa", "é")
	}
	return OneOf(t, "a", "b", "c", "ab", "a.b", "x y", "é", "A", "f1.pdf", "f2.pdf", "report", "zip_x", "+", "\u00e9t\u00e9.txt", "日本.txt")
}

// DrawPath draws a path.
func DrawPath(t *rapid.T) string {
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

// DrawPattern returns a pattern for the functions that a matcher asks.
func DrawPattern(t *rapid.T, matcher string) string {
	// Of two functions, either.
	functions := slices.DeleteFunc(
		[]string{"keyMatch(", "keyMatch2(", "keyMatch3(", "keyMatch4(", "keyMatch5(", "globMatch(", "regexMatch("},
		func(f string) bool { return !strings.Contains(matcher, f+"r.obj") })
	function := "=="
	if len(functions) > 0 {
		function = rapid.SampledFrom(functions).Draw(t, "function")
	}
	var wild []string
	switch function {
	case "globMatch(":
		wild = []string{"**", "**", "*", "*.pdf", "[ab]", "{a,b}", "?", `\a`, "{a,**}", "{**,a}/b", "{,a}", "a*", "*a", "{}", "a{}"}
	case "regexMatch(":
		wild = []string{".*", "[ab]", "a+", "a?", "(a|b)", "a{1,2}", "^", "$", `\.`, ".", "(?i)a", "[^/]+", "a|b", `A(?s)?`, `\Qa\E`, "{}"}
	case "keyMatch2(":
		wild = []string{":id", ":id", "*", "*", ":id.pdf", "a?", "a*", "b+", "(?:a)", "a|b", "[ab]", "a{2}", ".", "é?", "(?i:a)", `\.`, "a$", ":a+b", "{}"}
	case "keyMatch3(", "keyMatch4(", "keyMatch5(":
		wild = []string{"{id}", "{id}", "*", "*", "{id}.pdf", "x{id}", "a?", "a*", "[ab]", "a|b", ".", "{a}b{c}", "é*", "{}", "a{}"}
	default:
		wild = []string{"*", "a*b", "a*", "*a"}
	}
	var b strings.Builder
	if function == "regexMatch(" && !Chance(t, 3) {
		b.WriteString(OneOf(t, "^", "^", "^", "(?i)^"))
	}
	for range rapid.IntRange(1, 4).Draw(t, "depth") {
		b.WriteString("/")
		switch {
		case Chance(t, 8):
			b.WriteString(OneOf(t, "$sub", "$sub", "$group", `\$sub`))
		case Chance(t, 40):
			b.WriteString(drawLong(t, wild...))
		case Chance(t, 3):
			b.WriteString(rapid.SampledFrom(wild).Draw(t, "wild"))
		default:
			b.WriteString(drawSegment(t))
		}
	}
	if function == "regexMatch(" && !Chance(t, 3) {
		b.WriteString(OneOf(t, "$", "$", `\$`))
	}
	if Chance(t, 25) {
		return "*"
	}
	return b.String()
}

// A Shape is what a model defines, apart from its matcher.
type Shape struct {
	Request, Policy []string
	Roles           []string
	Effect          string
}

const (
	AllowOverride   = "some(where (p.eft == allow))"
	DenyOverride    = "!some(where (p.eft == deny))"
	AllowAndDeny    = "some(where (p.eft == allow)) && !some(where (p.eft == deny))"
	FirstPriority   = "priority(p.eft) || deny"
	SubjectPriority = "subjectPriority(p.eft) || deny"
)

// Model writes a model with a matcher, and the role definitions that it asks.
func (s *Shape) Model(matcher string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "[request_definition]\nr = %s\n[policy_definition]\np = %s\n", strings.Join(s.Request, ", "), strings.Join(s.Policy, ", "))
	var roles []string
	for _, r := range s.Roles {
		name, _, _ := strings.Cut(r, " ")
		if strings.Contains(matcher, name+"(") || name == "g" && s.Effect == SubjectPriority {
			roles = append(roles, r)
		}
	}
	if len(roles) > 0 {
		fmt.Fprintf(&b, "[role_definition]\n%s\n", strings.Join(roles, "\n"))
	}
	fmt.Fprintf(&b, "[policy_effect]\ne = %s\n[matchers]\nm = %s\n", s.Effect, matcher)
	return b.String()
}

// DrawShape draws what a model defines.
func DrawShape(t *rapid.T) *Shape {
	s := &Shape{
		Request: []string{"sub", "obj", "act"}, Policy: []string{"sub", "obj", "act"}, Roles: []string{"g = _, _"},
		Effect: OneOf(t, AllowOverride, DenyOverride, AllowAndDeny, AllowAndDeny, FirstPriority, FirstPriority, SubjectPriority),
	}
	if Chance(t, 4) {
		s.Request, s.Policy, s.Roles = []string{"sub", "dom", "obj", "act"}, []string{"sub", "dom", "obj", "act"}, []string{"g = _, _, _"}
	}
	if Chance(t, 6) {
		s.Request, s.Policy = append(s.Request, "ip"), append(s.Policy, "net")
	}
	if s.Effect != AllowOverride || !Chance(t, 3) {
		s.Policy = append(s.Policy, "eft")
	}
	if Chance(t, 10) {
		s.Policy = append(s.Policy, "rule")
	}
	s.drawOrder(t)
	if s.Effect == FirstPriority && Chance(t, 2) {
		if Chance(t, 2) {
			s.Policy = append([]string{"priority"}, s.Policy...)
		} else {
			s.Policy = append(s.Policy, "priority")
		}
	}
	s.drawRoles(t)
	s.drawPeriods(t)
	return s
}

func (s *Shape) has(field string) bool { return slices.Contains(s.Request, field) }

// roleOf asks for a role of a name.
func (s *Shape) roleOf(name, role string) string {
	if s.has("dom") {
		return "g(" + name + ", " + role + ", r.dom)"
	}
	return "g(" + name + ", " + role + ")"
}

// DrawMatcher returns one of the usual matchers, or any expression.
func (s *Shape) DrawMatcher(t *rapid.T) string {
	role := "g(r.sub, p.sub)"
	if s.has("dom") {
		role = OneOf(t, "g(r.sub, p.sub, r.dom)", "g(r.sub, p.sub, p.dom)") + OneOf(t, " && r.dom == p.dom", " && r.dom == p.dom", "", " && keyMatch(r.dom, p.dom)")
	}
	path := OneOf(t, "keyMatch", "keyMatch2", "keyMatch2", "keyMatch3", "keyMatch4", "keyMatch5", "globMatch", "globMatch", "regexMatch") + "(r.obj, p.obj)"
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
	if slices.Contains(s.Policy, "rule") {
		usual = []string{"eval(p.rule) && " + path + " && r.act == p.act", role + " && eval(p.rule) && r.act == p.act"}
	}
	usual = append(usual, s.roleOf("r.sub", `"@none"`)+" && "+path+" || "+role+" && "+path, role+" && "+path+" && !"+s.roleOf("r.sub", `"@none"`), s.roleOf("p.sub", "r.sub")+" && "+path)
	if !slices.Contains(s.Policy, "rule") && Chance(t, 3) {
		return rapid.SampledFrom(s.corners(t, role, path)).Draw(t, "corner")
	}
	if !Chance(t, 3) {
		return rapid.SampledFrom(usual).Draw(t, "usual")
	}
	return s.drawExpression(t, role, path, rapid.IntRange(1, 3).Draw(t, "deep"))
}

func (s *Shape) drawExpression(t *rapid.T, role, path string, depth int) string {
	if depth == 0 || Chance(t, 4) {
		atoms := []string{"(" + role + ")", "(" + role + ")", "r.sub == p.sub", "p.sub == r.sub", `p.sub == "alice"`, `"*" == p.sub`, path, path,
			"r.obj == p.obj", `p.obj == "*"`, "r.act == p.act", `p.act == "*"`, `r.sub == "root"`, `r.act in ("read", "list")`,
			"regexMatch(r.act, p.act)", "p.sub != r.sub", "true", "false", `p.act in ("read", "x")`, `r.sub + "" == p.sub`,
			"(r.sub == p.sub) == (r.act == p.act)", "r.sub > p.sub", `r.act =~ "^r"`, "r.obj == r.act", "p.sub == p.act", `keyMatch(r.obj, "/a*")`,
			s.roleOf("r.sub", `"@none"`), s.roleOf("r.sub", `"staff"`), s.roleOf("r.sub", `"@" + r.act`), s.roleOf("p.sub", "r.sub"), `keyGet(r.obj, p.obj) == "b"`}
		if s.has("dom") {
			atoms = append(atoms, "r.dom == p.dom", "!(r.dom == p.dom)", "g(r.sub, p.sub, p.dom)", `p.dom == "d1"`, "r.dom in (\"d1\", \"d2\")")
		}
		if s.has("ip") {
			atoms = append(atoms, "ipMatch(r.ip, p.net)", `ipMatch(r.ip, "10.0.0.0/8")`, "ipMatch(r.ip, p.net)")
		}
		a := OneOf(t, atoms...)
		switch {
		case Chance(t, 6):
			return "!(" + a + ")"
		case Chance(t, 8) && (strings.HasPrefix(a, "keyMatch") || strings.HasPrefix(a, "(g")):
			return "!" + a
		}
		return a
	}
	parts := []string{s.drawExpression(t, role, path, depth-1)}
	for range rapid.IntRange(1, 2).Draw(t, "more") {
		parts = append(parts, OneOf(t, "&&", "&&", "||"), s.drawExpression(t, role, path, depth-1))
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

// DrawPolicy draws a policy; not each of its lines need load.
func (s *Shape) DrawPolicy(t *rapid.T, matcher string) string {
	var b strings.Builder
	line := func(fields ...string) {
		for i, f := range fields {
			if i > 0 {
				b.WriteString(", ")
			}
			b.WriteString(quoted(f))
		}
		b.WriteByte('\n')
	}
	for range rapid.IntRange(0, 24).Draw(t, "lines") {
		fields := []string{"p"}
		for _, f := range s.Policy {
			value := ""
			switch f {
			case "sub":
				value = drawName(t)
			case "obj":
				if value = DrawPattern(t, matcher); strings.Contains(matcher, "g2(") && Chance(t, 2) {
					value = OneOf(t, "res1", "res2")
				} else if Chance(t, 6) {
					value = DrawPath(t)
				}
			case "act":
				if value = drawAction(t); strings.Contains(matcher, "regexMatch(r.act") {
					value = OneOf(t, "read", "re.*", "^w", "read|list", ".*")
				}
			case "dom":
				value = drawDomain(t)
			case "net":
				value = OneOf(t, "10.0.0.0/8", "192.0.2.1", "2001:db8::/32")
			case "eft":
				if value = OneOf(t, "allow", "allow", "deny"); s.Effect == AllowOverride {
					value = "allow"
				}
			case "rule":
				value = OneOf(t, "r.sub == 'alice'", "r.sub != 'bob'", "true", "r.act == 'read' && r.sub != 'eve'", "keyMatch(r.obj, '/a*')", "p.sub == r.sub", "!g(r.sub, '@none')")
			case "priority":
				value = OneOf(t, "1", "2", "3", "10", "-1")
			case "from", "until":
				value = drawTime(t)
			}
			fields = append(fields, value)
		}
		if s.Policy[len(s.Policy)-1] == "until" && Chance(t, 3) {
			fields = fields[:len(fields)-2]
		}
		line(fields...)
	}
	for _, role := range s.Roles {
		role, condition, _ := strings.Cut(role, ", (")
		name, _, _ := strings.Cut(role, " ")
		if !strings.Contains(matcher, name+"(") && (name != "g" || s.Effect != SubjectPriority) {
			continue
		}
		for range rapid.IntRange(0, 12).Draw(t, "links") {
			fields := []string{name, drawName(t), drawName(t)}
			if name == "g3" {
				fields[1], fields[2] = OneOf(t, "read", "write", "alice"), OneOf(t, "list", "act1", "staff")
			}
			if name == "g2" {
				fields[1], fields[2] = OneOf(t, "/a/b", "/a", "/b", "res1"), OneOf(t, "res1", "res2")
			}
			if strings.Count(role, "_") == 3 {
				fields = append(fields, drawDomain(t))
			}
			if condition != "" && !Chance(t, 3) {
				fields = append(fields, drawTime(t), drawTime(t))
			}
			line(fields...)
		}
		s.drawManyRoles(t, role, condition != "", line)
	}
	return b.String()
}

// quoted is a field of a line.
func quoted(text string) string {
	if !strings.ContainsAny(text, `",`) {
		return text
	}
	return `"` + strings.ReplaceAll(text, `"`, `""`) + `"`
}

// DrawQuery draws a request that a policy of the matcher may answer.
func DrawQuery(t *rapid.T, matcher string) *authz.Query {
	q := &authz.Query{
		Principal: authz.Principal{Subject: OneOf(t, "alice", "bob", "root", "eve", "staff", "r1", "c3", "nobody", "", "a", "a*", "*", "[ab]", ":id", "{id}", "a.b", "\u00e9", "b/c", authz.Anonymous)},
		Object:    DrawPath(t), Action: drawAction(t), Domain: OneOf(t, Domains()...),
		IP: OneOf(t, append(Addresses(), "", "")...),
		At: DrawMoment(t),
	}
	if strings.Contains(matcher, "g2(") && Chance(t, 2) {
		q.Object = OneOf(t, "/a/b", "/a", "/b", "res1")
	}
	if Chance(t, 4) {
		q.Principal.Groups = rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"@team", "@anyone", "@none", "@read", "staff", "r2", "res1"}), 1, 3, rapid.ID).Draw(t, "groups")
	}
	if Chance(t, 2) { // a folder that is called like somebody
		names := []string{q.Principal.Subject}
		for _, g := range q.Principal.Groups {
			names = append(names, strings.TrimPrefix(g, "@"))
		}
		segments := strings.Split(q.Object, "/")
		for range rapid.IntRange(1, 2).Draw(t, "named") {
			segments[rapid.IntRange(0, len(segments)-1).Draw(t, "segment")] = rapid.SampledFrom(names).Draw(t, "name")
		}
		q.Object = strings.Join(segments, "/")
	}
	return q
}
