// Package model takes a Casbin model apart.
//
// [Parse] checks a model and refuses what stock Casbin would read in another way
// than it is written. Whoever asks what its matcher does asks the [Term]s of the
// parsed [Model]; nobody else reads the matcher's text.
//
// model knows no policy, and does not say whether one fits.
package model

import (
	_ "embed"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"securefiles/authz"
	"securefiles/policy/internal/finding"

	"github.com/casbin/casbin/v2/constant"
	casbinmodel "github.com/casbin/casbin/v2/model"
	"github.com/casbin/casbin/v2/util"
)

// Limits of a model, in bytes. Casbin reads a longer line in pieces, each a
// line of its own.
const (
	MaxSize = 64 << 10
	maxLine = 4095
)

// Default is the text of the model that is used where none is configured.
//
//go:embed default_model.conf
var Default string

// The effects that Casbin knows, as it rewrites them.
const (
	AllowOverride   = constant.AllowOverrideEffect
	DenyOverride    = constant.DenyOverrideEffect
	AllowAndDeny    = constant.AllowAndDenyEffect
	Priority        = constant.PriorityEffect
	SubjectPriority = constant.SubjectPriorityEffect
)

// requestNames are the names that a request definition may have, bound by
// name.
func requestNames() []string { return []string{"sub", "obj", "act", "dom", "ip", "host"} }

// A Model is a parsed and checked model. It is immutable.
type Model struct {
	File      string            // for messages
	Text      string            // as written, to build a stock enforcer from
	casbin    casbinmodel.Model // as Casbin parsed it
	Request   []string          // of r, without prefix: sub, obj, act
	Policy    []string          // of p, without prefix: sub, obj, act, eft
	Effect    string            // of e, as Casbin rewrote it
	Matcher   string            // of m, as Casbin rewrote it: r_sub == p_sub
	Line      int               // of m
	Texts     []string          // of m, without quotes
	Root      *Term             // of m, taken apart
	Atoms     []*Atom           // of m, in order
	Evaluates bool              // m evaluates rules of the policy
	// AsksPolicy says that m looks at p; otherwise Casbin evaluates it once,
	// whatever the lines say.
	AsksPolicy bool
	Roles      map[string]int // role definitions (g, g2, …): how many fields each has
	// Conditional are those of them whose lines may have a beginning and an end.
	Conditional map[string]bool
	// Optional is how many columns a p line may leave out at its end: those in which
	// nothing but TimeMatch looks.
	Optional int
	// DomainPatterns says that domains of roles are patterns of keyMatch.
	DomainPatterns bool
	Others         []string // types of p lines that only an application asks: p2, p3, …
	Warnings       []finding.Finding

	subjects    int // how often m asks r.sub
	requestLine int // of r
	ignores     finding.Ignores
}

// WithoutDomain is the finding that the matcher does not ask for r.dom, where it must:
// a warning where a comment above the request definition takes it back.
func (m *Model) WithoutDomain() finding.Finding {
	report := finding.Report{File: m.File, Ignores: m.ignores}
	report.Judge(m.requestLine, 0, "model-domain", "there are several downloads, and the model does not ask for dom: add dom to request_definition, policy_definition and the matcher")
	return report.All()[0]
}

// PolicyField returns the column of a field of p, or -1.
func (m *Model) PolicyField(name string) int { return slices.Index(m.Policy, name) }

// Parse parses a model and refuses what stock Casbin would read in
// another way than it is written. The error is a *LoadError.
func Parse(file, text string) (*Model, error) {
	p := &modelParser{Report: finding.Report{File: file}, sections: map[string][]setting{}}
	m := p.parse(text)
	if p.Errors > 0 {
		return nil, &finding.LoadError{Findings: p.All()}
	}
	m.Warnings = p.All()
	return m, nil
}

// A setting is one `key = value` of a model, with its line.
type setting struct {
	key, value string
	line       int
}

type modelParser struct {
	finding.Report
	sections map[string][]setting // by name
}

func (p *modelParser) parse(text string) *Model {
	p.scan(text)
	p.settings()
	if p.Errors > 0 {
		return nil
	}
	parsed, err := loadCasbinModel(text)
	if err != nil {
		p.Fail(0, "model-syntax", "%v", err)
		return nil
	}
	m := &Model{File: p.File, Text: text, casbin: parsed, Roles: map[string]int{}, Conditional: map[string]bool{}}
	for kind := range parsed["p"] {
		if kind != "p" {
			m.Others = append(m.Others, kind)
		}
	}
	p.request(m)
	p.policy(m)
	p.roles(m)
	named := p.Errors == 0
	p.effect(m)
	if named {
		p.matcher(m)
	}
	return m
}

// loadCasbinModel turns a panic of Casbin's into an error.
func loadCasbinModel(text string) (m casbinmodel.Model, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("cannot be read by Casbin: %v", r)
		}
	}()
	return casbinmodel.NewModelFromString(text)
}

// sectionKeys are the sections of a model and the key that each holds.
func sectionKeys() map[string]string {
	return map[string]string{
		"request_definition": "r", "policy_definition": "p", "role_definition": "g", "policy_effect": "e", "matchers": "m",
	}
}

// scan splits the text into sections and settings as Casbin does, and refuses
// what Casbin would pass over or let win in silence.
func (p *modelParser) scan(text string) {
	switch {
	case len(text) > MaxSize:
		p.Fail(0, "model-syntax", "is larger than %d bytes: this is not a model", MaxSize)
		return
	case strings.HasPrefix(text, "\ufeff"):
		p.Fail(1, "model-syntax", "begins with a byte order mark: save the file without one")
		return
	}
	section, pending, number := "", setting{}, 0
	last, broken := setting{}, false // the setting above, with its last line
	flush := func() {
		if pending.line == 0 {
			return
		}
		if last.line > 0 && (broken || goesOn(last.value, pending.value)) {
			if !broken {
				p.Fail(pending.line, "model-syntax", "goes on with the setting above, and Casbin reads each line as a setting of its own: end line %d with \\", last.line)
			}
			last, broken, pending = setting{value: pending.value, line: number}, true, setting{}
			return
		}
		last, broken = setting{value: pending.value, line: number}, false
		key, value, found := strings.Cut(pending.value, "=")
		pending.key, pending.value = strings.TrimSpace(key), strings.TrimSpace(value)
		switch {
		case !found:
			p.Fail(pending.line, "model-syntax", "%q is not of the form key = value", finding.Shorten(pending.key))
		case section == "":
			p.Fail(pending.line, "model-syntax", "%q stands before the first [section]", finding.Shorten(pending.key))
		default:
			p.sections[section] = append(p.sections[section], pending)
		}
		pending = setting{}
	}
	for line := range strings.Lines(text) {
		number++
		if len(strings.TrimSuffix(line, "\n")) > maxLine {
			p.Fail(number, "model-syntax", "is longer than %d bytes, and Casbin would cut it: go on with \\ at a line's end", maxLine)
			return
		}
		line = strings.TrimSpace(line)
		isSection := len(line) > 1 && line[0] == '[' && line[len(line)-1] == ']'
		if line == "" || line[0] == '#' || line[0] == ';' || isSection {
			p.Ignores.Comment([]byte(line))
			if pending.line != 0 {
				p.Fail(number, "model-syntax", "an empty line, a comment or a section breaks a setting that \\ continues")
				flush()
				last = setting{}
			}
			if isSection {
				last = setting{}
				section = line[1 : len(line)-1]
				p.section(section, number)
			}
			if strings.Contains(line, "\r") {
				p.Fail(number, "model-syntax", "holds a carriage return inside: save the file with line feeds")
			}
			continue
		}
		if strings.ContainsFunc(line, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }) {
			p.Fail(number, "model-syntax", "holds a control character")
		}
		if pending.line == 0 {
			pending.line = number
			p.Ignores.Line(number)
		}
		body, continues := strings.CutSuffix(line, `\`)
		if i := strings.IndexAny(body, "#;"); i >= 0 {
			if continues || !isComment(pending.value+body[:i], body[i+1:]) {
				p.Judge(pending.line, 0, "model-comment", "%q cuts the line short, and what follows it counts for nothing: put comments on lines of their own", body[i])
			}
			body = body[:i]
		}
		pending.value += strings.TrimSpace(body) + " "
		if !continues {
			flush()
		}
	}
	flush()
}

// goesOn reports whether a line is meant to be more of the one above: that one
// ends in the middle of an expression, or this one begins there.
func goesOn(above, line string) bool {
	above, line = strings.TrimSpace(above), strings.TrimSpace(line)
	for _, operator := range []string{"&&", "||", "==", "!=", "(", ",", "=", "!", "+"} {
		if strings.HasSuffix(above, operator) || operator != "(" && operator != "!" && strings.HasPrefix(line, operator) {
			return true
		}
	}
	key, _, found := strings.Cut(line, "=")
	return strings.Count(above, "(") > strings.Count(above, ")") || line[0] == ')' || found && strings.ContainsAny(strings.TrimSpace(key), ".( ")
}

// isComment reports whether what follows a # or ; in a setting is nothing but words
// about it: without it, the setting means what it means with it.
func isComment(setting, rest string) bool {
	rest = strings.TrimSpace(rest)
	return strings.Count(setting, `"`)%2 == 0 && strings.Count(setting, "'")%2 == 0 &&
		!strings.ContainsAny(rest, `&|=()<>!\`) && !strings.HasPrefix(rest, ",") && !strings.HasPrefix(rest, ".")
}

func (p *modelParser) section(name string, line int) {
	p.Ignores.Line(line)
	keys := sectionKeys()
	if _, ok := keys[name]; !ok {
		p.Warn(line, "model-section", "[%s] is no section of a model, and Casbin passes over it: there are %s", finding.Quoted(name), strings.Join(slices.Sorted(maps.Keys(keys)), ", "))
		return
	}
	if _, ok := p.sections[name]; ok {
		p.Fail(line, "model-duplicate", "[%s] stands here a second time: Casbin would let the last setting win", finding.Quoted(name))
	}
	p.sections[name] = nil
}

// settings refuses a model whose sections, but that of the roles, do not hold
// their one key once.
func (p *modelParser) settings() {
	if p.Errors > 0 {
		return
	}
	keys := sectionKeys()
	for _, section := range slices.Sorted(maps.Keys(keys)) {
		if section == "role_definition" {
			continue
		}
		if len(p.sections[section]) == 0 {
			p.Fail(0, "model-section", "[%s] is missing, or holds nothing", section)
			continue
		}
		key, seen := keys[section], map[string]bool{}
		for _, s := range p.sections[section] {
			other := s.key != key && !anotherContext(key, s.key)
			switch {
			case seen[s.key] && !other:
				p.Fail(s.line, "model-duplicate", "%s stands here a second time: Casbin would let the last one win", s.key)
			case other:
				p.Warn(s.line, "model-section", "[%s] holds %q, and Casbin passes over it: the service asks %s", section, finding.Shorten(s.key), key)
			case s.value == "" && s.key == key:
				p.Fail(s.line, "model-section", "%s is empty", s.key)
			}
			seen[s.key] = true
		}
		if !seen[key] {
			p.Fail(p.sections[section][0].line, "model-section", "[%s] holds no %s", section, key)
		}
	}
}

// anotherContext reports whether a key defines what an application asks in a context
// of its own: r2, p2, e2, m2. Casbin's Enforce, and the service, ask none of these.
func anotherContext(key, other string) bool {
	number, ok := strings.CutPrefix(other, key)
	n, err := strconv.Atoi(number)
	return ok && err == nil && n > 1 && strconv.Itoa(n) == number
}

// one returns the setting of a section that is asked.
func (p *modelParser) one(section string) setting {
	key := sectionKeys()[section]
	return p.sections[section][slices.IndexFunc(p.sections[section], func(s setting) bool { return s.key == key })]
}

func fields(value string) []string {
	var out []string
	for f := range strings.SplitSeq(value, ",") {
		out = append(out, strings.TrimSpace(f))
	}
	return out
}

func (p *modelParser) request(m *Model) {
	s := p.one("request_definition")
	m.Request, m.requestLine, m.ignores = fields(s.value), s.line, p.Ignores
	name := fieldName()
	for i, f := range m.Request {
		if !name.MatchString(f) {
			p.Fail(s.line, "model-request", "%q is not a name", finding.Shorten(f))
		}
		if slices.Contains(m.Request[:i], f) {
			p.Fail(s.line, "model-duplicate", "%q is named twice", finding.Shorten(f))
		}
	}
}

func fieldName() *regexp.Regexp { return regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_]*$`) }

func (p *modelParser) policy(m *Model) {
	s := p.one("policy_definition")
	m.Policy = fields(s.value)
	name := fieldName()
	for i, f := range m.Policy {
		if !name.MatchString(f) {
			p.Fail(s.line, "model-policy", "%q is not a name", finding.Shorten(f))
		}
		if slices.Contains(m.Policy[:i], f) {
			p.Fail(s.line, "model-duplicate", "%q is named twice", finding.Shorten(f))
		}
		if lower := strings.ToLower(f); f != "eft" && (lower == "eft" || lower == "effect") {
			p.Fail(s.line, "model-policy", "%q is not read as the effect, and every line would allow: call it eft", f)
		}
		if f != "priority" && strings.EqualFold(f, "priority") && strings.Contains(strings.ToLower(m.casbin["e"]["e"].Value), "priority") {
			p.Fail(s.line, "model-policy", "%q is not read as the priority, and the file's order would count: call it priority", f)
		}
	}
}

func (p *modelParser) roles(m *Model) {
	for _, s := range p.sections["role_definition"] {
		value, conditional := withoutCondition(s.value)
		parts := fields(value)
		_, known := m.Roles[s.key]
		switch {
		case known:
			p.Fail(s.line, "model-duplicate", "%s stands here a second time: Casbin would let the last one win", finding.Quoted(s.key))
		case strings.ContainsAny(value, "()"):
			p.Fail(s.line, "model-roles", "%q has a condition that is not known: write _, _, (_, _) or, with a domain, _, _, _, (_, _), for a beginning and an end", finding.Shorten(s.value))
		case len(parts) != 2 && len(parts) != 3 || slices.ContainsFunc(parts, func(f string) bool { return f != "_" }):
			p.Fail(s.line, "model-roles", "%q is not a role definition: write _, _ or, with a domain, _, _, _", finding.Shorten(s.value))
		default:
			m.Roles[s.key] = len(parts)
			if conditional {
				m.Conditional[s.key] = true
			}
		}
	}
	// Casbin looks for g, g2, g3, … and stops at the first that is missing.
	for _, s := range p.sections["role_definition"] {
		if _, ok := m.Roles[s.key]; ok && m.casbin["g"][s.key] == nil {
			p.Warn(s.line, "model-roles", "%s is passed over: role definitions are g, g2, g3, … without a gap", finding.Quoted(s.key))
			delete(m.Roles, s.key)
		}
	}
}

func (p *modelParser) effect(m *Model) {
	s := p.one("policy_effect")
	m.Effect = m.casbin["e"]["e"].Value
	effects := []string{
		AllowOverride, DenyOverride, AllowAndDeny,
		Priority, SubjectPriority,
	}
	if !slices.Contains(effects, m.Effect) {
		p.Fail(s.line, "model-effect", "%q is not an effect that Casbin knows, to the letter: there are %s",
			finding.Shorten(s.value), strings.ReplaceAll(strings.Join(effects, "; "), "p_eft", "p.eft"))
		return
	}
	switch {
	case m.PolicyField("eft") >= 0 || m.Effect == AllowOverride:
	case m.Effect == DenyOverride:
		p.Fail(s.line, "model-effect", "the effect asks p.eft, which policy_definition does not have: everybody would have everything")
	default:
		p.Warn(s.line, "model-effect", "the effect asks p.eft, which policy_definition does not have: every line allows")
	}
	if m.Effect == DenyOverride {
		p.Warn(s.line, "model-effect", "everybody, without credentials too, may have everything that no line denies")
	}
	if m.Effect == SubjectPriority {
		if m.PolicyField("sub") != 0 {
			p.Fail(s.line, "model-effect", "subjectPriority takes the first field of p for the subject: put sub first")
		}
		if _, ok := m.Roles["g"]; !ok {
			p.Fail(s.line, "model-effect", "subjectPriority needs g in [role_definition]")
		}
	}
}

func (p *modelParser) matcher(m *Model) {
	s := p.one("matchers")
	m.Matcher, m.Line = m.casbin["m"]["m"].Value, s.line
	// These two are Casbin's own rules, by which it chooses how to evaluate.
	m.Evaluates, m.AsksPolicy = util.HasEval(m.Matcher), strings.Contains(m.Matcher, "p_")
	if strings.ContainsFunc(s.value, func(r rune) bool { return r >= utf8.RuneSelf }) {
		p.Fail(s.line, "model-literal", "Casbin breaks characters outside ASCII in a matcher: put them into the policy")
		return
	}
	for _, l := range literals(s.value) {
		m.Texts = append(m.Texts, strings.Trim(l, `"'`))
		if strings.ContainsAny(l, "[]") && strings.Contains(m.Matcher, "in") {
			p.Fail(s.line, "model-literal", "Casbin rewrites the brackets in the literal %s, because the letters \"in\" occur in the matcher: put the pattern into the policy", finding.Quoted(l))
		}
	}
	m.DomainPatterns = strings.Contains(m.Matcher, "keyMatch(r_dom, p_dom)") // by which Casbin goes
	for _, problem := range expressionProblems(m, m.Matcher, s.value, true) {
		p.Fail(s.line, "model-matcher", "%s", problem)
	}
	if p.Errors > 0 {
		p.unknown(m)
		return
	}
	var err error
	if m.Root, m.Atoms, err = parseMatcher(m); err != nil { // it compiled before
		p.Fail(s.line, "model-matcher", "cannot be compiled: %s", finding.Quoted(err.Error()))
		return
	}
	m.Optional = m.optional()
	p.unknown(m)
	p.unused(s.line, m)
}

// unknown looks for names that no request has. What the matcher never asks does no
// harm: an application may fill it in.
func (p *modelParser) unknown(m *Model) {
	for _, f := range m.Request {
		switch {
		case slices.Contains(requestNames(), f):
		case m.Evaluates || m.Root == nil || m.Root.Asks(f):
			p.Fail(m.requestLine, "model-request", "%q is not known of a request: there are %s", finding.Shorten(f), strings.Join(requestNames(), ", "))
		default:
			p.Warn(m.requestLine, "model-request", "%q is not known of a request, and the matcher never asks it: there are %s", finding.Shorten(f), strings.Join(requestNames(), ", "))
		}
	}
}

// unused tells of what a matcher defines and never asks.
func (p *modelParser) unused(line int, m *Model) {
	if m.Evaluates {
		return // a rule of the policy may ask it
	}
	for _, f := range m.Request {
		if !m.Root.Asks(f) && slices.Contains(requestNames(), f) {
			p.Warn(line, "model-unused", "the matcher never asks r.%s: it makes no difference", f)
		}
	}
	for column, f := range m.Policy {
		if !slices.Contains(m.Root.Columns, column) && f != "eft" && f != "priority" {
			p.Warn(line, "model-unused", "the matcher never asks p.%s: it makes no difference", f)
		}
	}
}

// RequestValue binds a name of the request definition; it is false for a name that
// no request has.
func RequestValue(q *authz.Query, name string) (string, bool) {
	switch name {
	case "sub":
		return q.Principal.Subject, true
	case "obj":
		return q.Object, true
	case "act":
		return q.Action, true
	case "dom":
		return q.Domain, true
	case "ip":
		return q.IP, true
	case "host":
		return q.Host, true
	}
	return "", false
}
