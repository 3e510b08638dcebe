package policytest

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"securefiles/authz"
	"securefiles/internal/strictyaml"
)

// A Case is one policy test: who asks for what, and what must come of it.
type Case struct {
	// Name says what the case is about; empty is fine.
	Name    string   `yaml:"name"`
	Subject string   `yaml:"subject"`
	Groups  []string `yaml:"groups"`
	// Path is a public URL path, or the path below a download.
	Path string `yaml:"path"`
	// Action is read, list or share; empty means read.
	Action string `yaml:"action"`
	// Download names one of several.
	Download string `yaml:"download"`
	IP       string `yaml:"ip"`
	Host     string `yaml:"host"`
	// At is the moment that is asked about: a day, of which it is the first one, or
	// a moment as policies have it; empty means now.
	At string `yaml:"at"`
	// Want is allow or deny.
	Want string `yaml:"want"`
	// DecidingLine, Role and Reason, where they are set, are what the answer
	// must rest on: a line of the policy, a role that leads to it, the word of
	// X-Securefiles-Reason.
	DecidingLine int    `yaml:"line"`
	Role         string `yaml:"role"`
	Reason       string `yaml:"reason"`

	// File, Line and Column say where the case stands.
	File   string `yaml:"-"`
	Line   int    `yaml:"-"`
	Column int    `yaml:"-"`
}

// caseFile is one document of a file of policy tests.
type caseFile struct {
	Tests []*Case `yaml:"tests"`
}

// Load reads a file of policy tests, which may hold several documents. The
// error joins one *strictyaml.Error for each problem found.
func Load(file string) ([]*Case, error) {
	text, err := strictyaml.Read(file, "policy test")
	if err != nil {
		return nil, err
	}
	doc := &strictyaml.Document{File: file, Keys: "list of keys in docs/policies.md"}
	nodes, err := doc.Nodes(text)
	if err != nil {
		return nil, err
	}
	var cases []*Case
	var problems []error
	for _, node := range nodes {
		var content caseFile
		if err := strictyaml.Decode(node, &content); err != nil {
			problems = append(problems, doc.Place(err))
			continue
		}
		for _, c := range content.Tests {
			if c == nil {
				line, _ := strictyaml.Position(node)
				problems = append(problems, &strictyaml.Error{File: file, Line: line, Column: 1, Message: "tests: an empty case: remove it"})
				continue
			}
			c.File = file
			cases = append(cases, c)
		}
	}
	if err := errors.Join(problems...); err != nil {
		return nil, err
	}
	if len(cases) == 0 {
		return nil, &strictyaml.Error{File: file, Message: "holds no tests: write `tests: [{subject: alice, path: /a, want: allow}]`"}
	}
	return cases, nil
}

// UnmarshalYAML decodes and checks one case; its error knows the place.
func (c *Case) UnmarshalYAML(node strictyaml.Node) error {
	type plain Case // without this method
	var p plain
	if err := strictyaml.Decode(node, &p); err != nil {
		return err
	}
	*c = Case(p)
	keys := map[string]strictyaml.Node{}
	for _, field := range strictyaml.Fields(node) {
		if c.Line == 0 {
			c.Line, c.Column = strictyaml.Position(field.Key)
		}
		keys[strictyaml.Text(field.Key)] = field.Value
	}
	fail := func(key, format string, args ...any) error {
		e := &strictyaml.Error{Line: c.Line, Column: c.Column, Message: fmt.Sprintf(format, args...)}
		if value, ok := keys[key]; ok {
			e.Line, e.Column = strictyaml.Position(value)
		}
		return e
	}
	oneOf := func(key, value string, allowed ...string) error {
		if value == "" && key != "want" || slices.Contains(allowed, value) {
			return nil
		}
		return fail(key, "%s: %q is not one of %s", key, value, strings.Join(allowed, ", "))
	}
	switch {
	case c.Subject == "":
		return fail("subject", "subject is missing: name a user, or anonymous")
	case c.Path == "":
		return fail("path", "path is missing: name a URL path, or the path below a download")
	case c.Want == "":
		return fail("want", "want is missing: write allow or deny")
	case keys["line"] != nil && c.DecidingLine < 1:
		return fail("line", "line: %d is not a line of a file: they count from 1", c.DecidingLine)
	case c.Want == "allow" && c.Reason != "" && c.Reason != "policy":
		return fail("reason", "reason: what is allowed has the reason policy, not %q", c.Reason)
	}
	return errors.Join(
		oneOf("want", c.Want, "allow", "deny"),
		oneOf("action", c.Action, authz.Actions()...),
		oneOf("reason", c.Reason, "policy", "default-deny", "anonymous", "subject", "path", "unavailable"),
	)
}
