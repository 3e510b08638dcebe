package policy

import (
	_ "embed"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/casbin/casbin/v2/constant"
	casbinmodel "github.com/casbin/casbin/v2/model"
	"github.com/casbin/casbin/v2/util"
	"github.com/casbin/govaluate"
)

// maxModelSize bounds a model, in bytes.
const maxModelSize = 64 << 10

//go:embed default_model.conf
var defaultModel string

// DefaultModel returns the text of the model that is used where none is
// configured.
func DefaultModel() string { return defaultModel }

// requestNames are the names that a request definition may have, bound by
// name.
func requestNames() []string { return []string{"sub", "obj", "act", "dom", "ip", "host"} }

// A definition is a parsed and checked model. It is immutable.
type definition struct {
	file          string            // for messages
	text          string            // as written, to build a stock enforcer from
	casbin        casbinmodel.Model // as Casbin parsed it
	requestFields []string          // of r, without prefix: sub, obj, act
	policyFields  []string          // of p, without prefix: sub, obj, act, eft
	effect        string            // of e, as Casbin rewrote it
	matcher       string            // of m, as Casbin rewrote it: r_sub == p_sub
	roles         map[string]int    // role definitions (g, g2, …): how many fields each has
}

// policyField returns the column of a field of p, or -1.
func (d *definition) policyField(name string) int { return slices.Index(d.policyFields, name) }

// parseDefinition parses a model and refuses what stock Casbin would read in
// another way than it is written. The error is a *LoadError.
func parseDefinition(file, text string) (*definition, error) {
	p := &modelParser{report: report{file: file}}
	d := p.parse(text)
	if p.errors > 0 {
		return nil, &LoadError{p.all()}
	}
	return d, nil
}

// A setting is one `key = value` of a model, with its line.
type setting struct {
	key, value string
	line       int
}

type modelParser struct {
	report
	sections map[string][]setting // by name
}

func (p *modelParser) parse(text string) *definition {
	if len(text) > maxModelSize {
		p.fail(0, "model-syntax", "is larger than %d bytes: this is not a model", maxModelSize)
		return nil
	}
	p.scan(text)
	if p.errors > 0 {
		return nil
	}
	m, err := loadCasbinModel(text)
	if err != nil {
		p.fail(0, "model-syntax", "%v", err)
		return nil
	}
	d := &definition{file: p.file, text: text, casbin: m, roles: map[string]int{}}
	p.request(d)
	p.policy(d)
	p.roles(d)
	p.effect(d)
	p.matcher(d)
	return d
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
	p.sections = map[string][]setting{}
	if strings.HasPrefix(text, "\ufeff") {
		p.fail(1, "model-syntax", "begins with a byte order mark: save the file without one")
		return
	}
	section, pending := "", setting{}
	number := 0
	flush := func() {
		if pending.line == 0 {
			return
		}
		key, value, found := strings.Cut(pending.value, "=")
		pending.key, pending.value = strings.TrimSpace(key), strings.TrimSpace(value)
		switch {
		case !found:
			p.fail(pending.line, "model-syntax", "%q is not of the form key = value", pending.key)
		case section == "":
			p.fail(pending.line, "model-syntax", "%s = … stands before the first [section]", pending.key)
		default:
			p.sections[section] = append(p.sections[section], pending)
		}
		pending = setting{}
	}
	for line := range strings.Lines(text) {
		number++
		line = strings.TrimSpace(line)
		switch {
		case line == "" || line[0] == '#' || line[0] == ';':
			if pending.line != 0 {
				p.fail(number, "model-syntax", "an empty line or a comment breaks a setting that \\ continues")
				flush()
			}
			continue
		case line[0] == '[' && line[len(line)-1] == ']':
			if pending.line != 0 {
				p.fail(number, "model-syntax", "a section breaks a setting that \\ continues")
				flush()
			}
			section = line[1 : len(line)-1]
			p.section(section, number)
			continue
		}
		if i := strings.IndexAny(line, "#;"); i >= 0 {
			p.fail(number, "model-comment", "%q cuts the line short, and what follows it counts for nothing: put comments on lines of their own", line[i])
		}
		if strings.ContainsFunc(line, func(r rune) bool { return r < ' ' && r != '\t' }) {
			p.fail(number, "model-syntax", "the line holds a control character")
		}
		if pending.line == 0 {
			pending.line = number
		}
		body, continues := strings.CutSuffix(line, `\`)
		pending.value += strings.TrimSpace(body) + " "
		if !continues {
			flush()
		}
	}
	flush()
	for _, name := range slices.Sorted(maps.Keys(sectionKeys())) {
		if name != "role_definition" && len(p.sections[name]) == 0 && p.errors == 0 {
			p.fail(0, "model-section", "there is no [%s]", name)
		}
	}
}

func (p *modelParser) section(name string, line int) {
	keys := sectionKeys()
	if _, ok := keys[name]; !ok {
		p.fail(line, "model-section", "[%s] is no section of a model: there are %s", name, strings.Join(slices.Sorted(maps.Keys(keys)), ", "))
	}
	if _, ok := p.sections[name]; ok {
		p.fail(line, "model-duplicate", "[%s] stands here a second time: Casbin would let the last one win", name)
	}
	p.sections[name] = nil
}

// one returns the only setting of a section, under its only key.
func (p *modelParser) one(section string) setting {
	key := sectionKeys()[section]
	for i, s := range p.sections[section] {
		switch {
		case s.key != key:
			p.fail(s.line, "model-section", "[%s] holds %s: the service asks %s alone", section, s.key, key)
		case i > 0:
			p.fail(s.line, "model-duplicate", "%s stands here a second time: Casbin would let the last one win", s.key)
		}
	}
	return p.sections[section][0]
}

func fields(value string) []string {
	var out []string
	for f := range strings.SplitSeq(value, ",") {
		out = append(out, strings.TrimSpace(f))
	}
	return out
}

func (p *modelParser) request(d *definition) {
	s := p.one("request_definition")
	d.requestFields = fields(s.value)
	for i, f := range d.requestFields {
		if !slices.Contains(requestNames(), f) {
			p.fail(s.line, "model-request", "%q is not known of a request: there are %s", f, strings.Join(requestNames(), ", "))
		}
		if slices.Contains(d.requestFields[:i], f) {
			p.fail(s.line, "model-duplicate", "%q is named twice", f)
		}
	}
}

func (p *modelParser) policy(d *definition) {
	s := p.one("policy_definition")
	d.policyFields = fields(s.value)
	for i, f := range d.policyFields {
		if !regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_]*$`).MatchString(f) {
			p.fail(s.line, "model-policy", "%q is not a name", f)
		}
		if slices.Contains(d.policyFields[:i], f) {
			p.fail(s.line, "model-duplicate", "%q is named twice", f)
		}
		if lower := strings.ToLower(f); f != "eft" && (lower == "eft" || lower == "effect") {
			p.fail(s.line, "model-policy", "%q is not read as the effect, and every line would allow: call it eft", f)
		}
	}
}

func (p *modelParser) roles(d *definition) {
	for i, s := range p.sections["role_definition"] {
		want := "g"
		if i > 0 {
			want = fmt.Sprintf("g%d", i+1)
		}
		parts := fields(s.value)
		_, known := d.roles[s.key]
		switch {
		case known:
			p.fail(s.line, "model-duplicate", "%s stands here a second time: Casbin would let the last one win", s.key)
		case s.key != want:
			p.fail(s.line, "model-roles", "%s stands where Casbin looks for %s, and would be passed over", s.key, want)
		case strings.ContainsAny(s.value, "()"):
			p.fail(s.line, "model-roles", "conditional roles are not supported: stock Casbin grants an expired role where no condition function is registered, and after each reload")
		case len(parts) != 2 && len(parts) != 3 || slices.ContainsFunc(parts, func(f string) bool { return f != "_" }):
			p.fail(s.line, "model-roles", "%q is not a role definition: write _, _ or, with a domain, _, _, _", s.value)
		default:
			d.roles[s.key] = len(parts)
		}
	}
}

func (p *modelParser) effect(d *definition) {
	s := p.one("policy_effect")
	d.effect = d.casbin["e"]["e"].Value
	effects := []string{
		constant.AllowOverrideEffect, constant.DenyOverrideEffect, constant.AllowAndDenyEffect,
		constant.PriorityEffect, constant.SubjectPriorityEffect,
	}
	if !slices.Contains(effects, d.effect) {
		p.fail(s.line, "model-effect", "%q is not an effect that Casbin knows, to the letter: there are %s",
			s.value, strings.ReplaceAll(strings.Join(effects, "; "), "p_eft", "p.eft"))
		return
	}
	if d.policyField("eft") < 0 && d.effect != constant.AllowOverrideEffect {
		p.fail(s.line, "model-effect", "the effect asks p.eft, which policy_definition does not have: every line would allow")
	}
	if _, ok := d.roles["g"]; !ok && d.effect == constant.SubjectPriorityEffect {
		p.fail(s.line, "model-effect", "subjectPriority needs g in [role_definition]")
	}
	switch d.effect {
	case constant.PriorityEffect:
	case constant.SubjectPriorityEffect:
		if d.policyField("sub") != 0 {
			p.fail(s.line, "model-effect", "subjectPriority takes the first field of p for the subject: put sub first")
		}
	}
}

// literal finds the string literals of a matcher.
var literal = regexp.MustCompile(`"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'`)

func (p *modelParser) matcher(d *definition) {
	s := p.one("matchers")
	d.matcher = d.casbin["m"]["m"].Value
	for _, text := range literal.FindAllString(s.value, -1) {
		if util.EscapeAssertion(text) != text {
			p.fail(s.line, "model-literal", "Casbin rewrites the literal %s, because it looks like a field of r or p inside", text)
		}
		if strings.ContainsAny(text, "[]") && strings.Contains(d.matcher, "in") {
			p.fail(s.line, "model-literal", "Casbin rewrites the brackets in the literal %s, because the letters \"in\" occur in the matcher: put the pattern into the policy", text)
		}
	}
	if len(d.roles) > 0 && strings.Contains(d.matcher, "keyMatch(r_dom, p_dom)") {
		p.fail(s.line, "model-roles", "keyMatch(r.dom, p.dom) makes Casbin match the domains of roles as patterns, which is not supported: give links and lines the exact domain, or match it with another function")
	}
	functions := casbinmodel.LoadFunctionMap()
	stubs := functions.GetFunctions()
	for name := range d.roles {
		stubs[name] = nil
	}
	stubs["eval"] = nil
	for name := range stubs {
		stubs[name] = func(...any) (any, error) { return nil, nil }
	}
	expr, err := govaluate.NewEvaluableExpressionWithFunctions(d.matcher, stubs)
	if err != nil {
		p.fail(s.line, "model-matcher", "the matcher cannot be compiled: %v", err)
		return
	}
	p.tokens(s.line, d, expr.Tokens(), slices.Sorted(maps.Keys(stubs)))
	for _, name := range slices.Sorted(maps.Keys(d.roles)) {
		if !regexp.MustCompile(`\b` + name + `\(`).MatchString(d.matcher) {
			p.warn(s.line, "model-roles", "the matcher never asks %s(…): its lines grant nothing", name)
		}
	}
}

// tokens checks what govaluate passes over: a name that nothing defines is an
// error only when it is reached, and after a complete expression the rest is
// ignored, so a forgotten && lets everybody in.
func (p *modelParser) tokens(line int, d *definition, tokens []govaluate.ExpressionToken, functions []string) {
	for i, t := range tokens {
		switch t.Kind {
		case govaluate.VARIABLE:
			name := fmt.Sprint(t.Value)
			field, isRequest := strings.CutPrefix(name, "r_")
			if isRequest && !slices.Contains(d.requestFields, field) {
				p.fail(line, "model-matcher", "r.%s is not in request_definition", field)
			}
			field, isPolicy := strings.CutPrefix(name, "p_")
			if isPolicy && !slices.Contains(d.policyFields, field) {
				p.fail(line, "model-matcher", "p.%s is not in policy_definition", field)
			}
			if !isRequest && !isPolicy {
				if i+1 < len(tokens) && tokens[i+1].Kind == govaluate.CLAUSE {
					p.fail(line, "model-matcher", "%s(…) is not a function: there are %s", name, strings.Join(functions, ", "))
				} else {
					p.fail(line, "model-matcher", "%q is neither a field of r or p nor a literal in quotes", name)
				}
			}
		case govaluate.ACCESSOR:
			p.fail(line, "model-matcher", "%v: every value of a request is a string without fields", t.Value)
		case govaluate.TIME:
			p.fail(line, "model-literal", "a literal that looks like a date is read as a number, which equals no string")
		}
		if i > 0 && endsOperand(tokens[i-1].Kind) && beginsOperand(t.Kind) {
			p.fail(line, "model-matcher", "an operator such as && is missing before %s: everything after it would count for nothing", describe(t))
		}
	}
	if len(tokens) == 0 || !endsOperand(tokens[len(tokens)-1].Kind) {
		p.fail(line, "model-matcher", "the matcher ends in the middle of an expression")
	}
}

func endsOperand(k govaluate.TokenKind) bool {
	switch k {
	case govaluate.NUMERIC, govaluate.BOOLEAN, govaluate.STRING, govaluate.PATTERN, govaluate.TIME, govaluate.VARIABLE, govaluate.ACCESSOR, govaluate.CLAUSE_CLOSE:
		return true
	}
	return false
}

func beginsOperand(k govaluate.TokenKind) bool {
	switch k {
	case govaluate.NUMERIC, govaluate.BOOLEAN, govaluate.STRING, govaluate.PATTERN, govaluate.TIME, govaluate.VARIABLE, govaluate.ACCESSOR, govaluate.FUNCTION, govaluate.CLAUSE, govaluate.PREFIX:
		return true
	}
	return false
}

func describe(t govaluate.ExpressionToken) string {
	if t.Kind == govaluate.FUNCTION {
		return "a function"
	}
	return fmt.Sprintf("%q", fmt.Sprint(t.Value))
}
