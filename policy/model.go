package policy

import (
	_ "embed"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/casbin/casbin/v2/constant"
	casbinmodel "github.com/casbin/casbin/v2/model"
	"github.com/casbin/casbin/v2/util"
)

// Limits of a model, in bytes. Casbin reads a longer line in pieces, each a
// line of its own.
const (
	maxModelSize = 64 << 10
	maxModelLine = 4095
)

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
	literals      []string          // of m, without quotes
	root          *term             // of m, taken apart
	atoms         []*atom           // of m, in order
	calls         []functionCall    // of m, in order
	evaluates     bool              // m evaluates rules of the policy
	roles         map[string]int    // role definitions (g, g2, …): how many fields each has
	warnings      []Finding
}

// policyField returns the column of a field of p, or -1.
func (d *definition) policyField(name string) int { return slices.Index(d.policyFields, name) }

// parseDefinition parses a model and refuses what stock Casbin would read in
// another way than it is written. The error is a *LoadError.
func parseDefinition(file, text string) (*definition, error) {
	p := &modelParser{report: report{file: file}, sections: map[string][]setting{}}
	d := p.parse(text)
	if p.errors > 0 {
		return nil, &LoadError{p.all()}
	}
	d.warnings = p.all()
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
	p.scan(text)
	p.settings()
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
	named := p.errors == 0
	p.effect(d)
	if named {
		p.matcher(d)
	}
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
	switch {
	case len(text) > maxModelSize:
		p.fail(0, "model-syntax", "is larger than %d bytes: this is not a model", maxModelSize)
		return
	case strings.HasPrefix(text, "\ufeff"):
		p.fail(1, "model-syntax", "begins with a byte order mark: save the file without one")
		return
	}
	section, pending, number := "", setting{}, 0
	flush := func() {
		if pending.line == 0 {
			return
		}
		key, value, found := strings.Cut(pending.value, "=")
		pending.key, pending.value = strings.TrimSpace(key), strings.TrimSpace(value)
		switch {
		case !found:
			p.fail(pending.line, "model-syntax", "%q is not of the form key = value", shorten(pending.key))
		case section == "":
			p.fail(pending.line, "model-syntax", "%q stands before the first [section]", shorten(pending.key))
		default:
			p.sections[section] = append(p.sections[section], pending)
		}
		pending = setting{}
	}
	for line := range strings.Lines(text) {
		number++
		if len(strings.TrimSuffix(line, "\n")) > maxModelLine {
			p.fail(number, "model-syntax", "is longer than %d bytes, and Casbin would cut it: go on with \\ at a line's end", maxModelLine)
			return
		}
		line = strings.TrimSpace(line)
		isSection := len(line) > 1 && line[0] == '[' && line[len(line)-1] == ']'
		if line == "" || line[0] == '#' || line[0] == ';' || isSection {
			if pending.line != 0 {
				p.fail(number, "model-syntax", "an empty line, a comment or a section breaks a setting that \\ continues")
				flush()
			}
			if isSection {
				section = line[1 : len(line)-1]
				p.section(section, number)
			}
			if strings.Contains(line, "\r") {
				p.fail(number, "model-syntax", "holds a carriage return inside: save the file with line feeds")
			}
			continue
		}
		if i := strings.IndexAny(line, "#;"); i >= 0 {
			p.fail(number, "model-comment", "%q cuts the line short, and what follows it counts for nothing: put comments on lines of their own", line[i])
		}
		if strings.ContainsFunc(line, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }) {
			p.fail(number, "model-syntax", "holds a control character")
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
}

func (p *modelParser) section(name string, line int) {
	keys := sectionKeys()
	if _, ok := keys[name]; !ok {
		p.fail(line, "model-section", "[%s] is no section of a model: there are %s", quoted(name), strings.Join(slices.Sorted(maps.Keys(keys)), ", "))
	}
	if _, ok := p.sections[name]; ok {
		p.fail(line, "model-duplicate", "[%s] stands here a second time: Casbin would let the last setting win", quoted(name))
	}
	p.sections[name] = nil
}

// settings refuses a model whose sections, but that of the roles, do not hold
// their one key once.
func (p *modelParser) settings() {
	if p.errors > 0 {
		return
	}
	keys := sectionKeys()
	for _, section := range slices.Sorted(maps.Keys(keys)) {
		if section == "role_definition" {
			continue
		}
		if len(p.sections[section]) == 0 {
			p.fail(0, "model-section", "[%s] is missing, or holds nothing", section)
		}
		for i, s := range p.sections[section] {
			switch {
			case s.key != keys[section]:
				p.fail(s.line, "model-section", "[%s] holds %q: the service asks %s alone", section, shorten(s.key), keys[section])
			case s.value == "":
				p.fail(s.line, "model-section", "%s is empty", s.key)
			case i > 0:
				p.fail(s.line, "model-duplicate", "%s stands here a second time: Casbin would let the last one win", s.key)
			}
		}
	}
}

// one returns the only setting of a section.
func (p *modelParser) one(section string) setting { return p.sections[section][0] }

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
			p.fail(s.line, "model-request", "%q is not known of a request: there are %s", shorten(f), strings.Join(requestNames(), ", "))
		}
		if slices.Contains(d.requestFields[:i], f) {
			p.fail(s.line, "model-duplicate", "%q is named twice", shorten(f))
		}
	}
}

func (p *modelParser) policy(d *definition) {
	s := p.one("policy_definition")
	d.policyFields = fields(s.value)
	name := regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_]*$`)
	for i, f := range d.policyFields {
		if !name.MatchString(f) {
			p.fail(s.line, "model-policy", "%q is not a name", shorten(f))
		}
		if slices.Contains(d.policyFields[:i], f) {
			p.fail(s.line, "model-duplicate", "%q is named twice", shorten(f))
		}
		if lower := strings.ToLower(f); f != "eft" && (lower == "eft" || lower == "effect") {
			p.fail(s.line, "model-policy", "%q is not read as the effect, and every line would allow: call it eft", f)
		}
		if f != "priority" && strings.EqualFold(f, "priority") {
			p.fail(s.line, "model-policy", "%q is not read as the priority, and the file's order would count: call it priority", f)
		}
	}
}

func (p *modelParser) roles(d *definition) {
	for _, s := range p.sections["role_definition"] {
		parts := fields(s.value)
		_, known := d.roles[s.key]
		switch {
		case known:
			p.fail(s.line, "model-duplicate", "%s stands here a second time: Casbin would let the last one win", quoted(s.key))
		case strings.ContainsAny(s.value, "()"):
			p.fail(s.line, "model-roles", "conditional roles are not supported: stock Casbin grants an expired role where no condition function is registered, and after each reload")
		case len(parts) != 2 && len(parts) != 3 || slices.ContainsFunc(parts, func(f string) bool { return f != "_" }):
			p.fail(s.line, "model-roles", "%q is not a role definition: write _, _ or, with a domain, _, _, _", shorten(s.value))
		default:
			d.roles[s.key] = len(parts)
		}
	}
	// Casbin looks for g, g2, g3, … and stops at the first that is missing.
	found := map[string]bool{}
	for i := 1; i <= len(d.roles); i++ {
		name := "g"
		if i > 1 {
			name = fmt.Sprintf("g%d", i)
		}
		found[name] = true
	}
	for _, s := range p.sections["role_definition"] {
		if _, ok := d.roles[s.key]; ok && !found[s.key] {
			p.fail(s.line, "model-roles", "%s would be passed over: role definitions are g, g2, g3, … without a gap", quoted(s.key))
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
			shorten(s.value), strings.ReplaceAll(strings.Join(effects, "; "), "p_eft", "p.eft"))
		return
	}
	if d.policyField("eft") < 0 && d.effect != constant.AllowOverrideEffect {
		p.fail(s.line, "model-effect", "the effect asks p.eft, which policy_definition does not have: every line would allow")
	}
	if d.effect == constant.DenyOverrideEffect {
		p.warn(s.line, "model-effect", "everybody, without credentials too, may have everything that no line denies")
	}
	if d.effect == constant.SubjectPriorityEffect {
		if d.policyField("sub") != 0 {
			p.fail(s.line, "model-effect", "subjectPriority takes the first field of p for the subject: put sub first")
		}
		if _, ok := d.roles["g"]; !ok {
			p.fail(s.line, "model-effect", "subjectPriority needs g in [role_definition]")
		}
	}
}

func (p *modelParser) matcher(d *definition) {
	s := p.one("matchers")
	d.matcher = d.casbin["m"]["m"].Value
	d.evaluates = util.HasEval(d.matcher)
	if strings.ContainsFunc(s.value, func(r rune) bool { return r >= utf8.RuneSelf }) {
		p.fail(s.line, "model-literal", "Casbin breaks characters outside ASCII in a matcher: put them into the policy")
		return
	}
	for _, l := range literals(s.value) {
		d.literals = append(d.literals, strings.Trim(l, `"'`))
		if strings.ContainsAny(l, "[]") && strings.Contains(d.matcher, "in") {
			p.fail(s.line, "model-literal", "Casbin rewrites the brackets in the literal %s, because the letters \"in\" occur in the matcher: put the pattern into the policy", quoted(l))
		}
	}
	if len(d.roles) > 0 && strings.Contains(d.matcher, "keyMatch(r_dom, p_dom)") {
		p.fail(s.line, "model-roles", "keyMatch(r.dom, p.dom) makes Casbin match the domains of roles as patterns, which is not supported: give links and lines the exact domain, or match it with another function")
	}
	for _, problem := range expressionProblems(d, d.matcher, s.value, d.evaluates) {
		p.fail(s.line, "model-matcher", "%s", problem)
	}
	if p.errors > 0 {
		return
	}
	var err error
	if d.root, d.atoms, d.calls, err = parseMatcher(d); err != nil { // it compiled before
		p.fail(s.line, "model-matcher", "cannot be compiled: %s", quoted(err.Error()))
		return
	}
	p.unused(s.line, d)
}

// unused tells of what a matcher defines and never asks.
func (p *modelParser) unused(line int, d *definition) {
	if d.evaluates {
		return // a rule of the policy may ask it
	}
	uses := func(pattern string) bool { return regexp.MustCompile(`\b` + pattern).MatchString(d.matcher) }
	for _, name := range slices.Sorted(maps.Keys(d.roles)) {
		if !uses(name+`\s*\(`) && d.effect != constant.SubjectPriorityEffect {
			p.fail(line, "model-roles", "the matcher never asks %s(…), so its lines grant nothing: ask it, or remove it from [role_definition]", name)
		}
	}
	for _, f := range d.requestFields {
		if !uses("r_" + f + `\b`) {
			p.warn(line, "model-unused", "the matcher never asks r.%s: it makes no difference", f)
		}
	}
	for _, f := range d.policyFields {
		if !uses("p_"+f+`\b`) && f != "eft" && f != "priority" {
			p.warn(line, "model-unused", "the matcher never asks p.%s: it makes no difference", f)
		}
	}
}
