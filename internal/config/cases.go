package config

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
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

// LoadCases reads a file of policy tests, which may hold several documents. The
// error joins one *Error for each problem found.
func LoadCases(file string) ([]*Case, error) {
	text, err := read(file, "policy test")
	if err != nil {
		return nil, err
	}
	if err := notUTF8(file, text); err != nil {
		return nil, err
	}
	doc := &document{file: file, keys: "list of keys in docs/policies.md"}
	root, err := parser.ParseBytes(text, 0)
	if err != nil {
		return nil, doc.syntax(err)
	}
	var cases []*Case
	var problems []error
	for _, d := range root.Docs {
		if d.Body == nil {
			continue
		}
		var content caseFile
		if err := yaml.NodeToValue(d.Body, &content, yaml.Strict()); err != nil {
			problems = append(problems, doc.syntax(err))
			continue
		}
		for _, c := range content.Tests {
			if c == nil {
				problems = append(problems, &Error{File: file, Line: d.Body.GetToken().Position.Line, Column: 1, Message: "tests: an empty case: remove it"})
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
		return nil, &Error{File: file, Message: "holds no tests: write `tests: [{subject: alice, path: /a, want: allow}]`"}
	}
	return cases, nil
}

// notUTF8 keeps out what the YAML library would read in its own way.
func notUTF8(file string, text []byte) error {
	if !bytes.Equal(bytes.ToValidUTF8(text, nil), text) {
		return &Error{File: file, Message: "is not valid UTF-8"}
	}
	return nil
}

// UnmarshalYAML decodes and checks one case; its error knows the place.
func (c *Case) UnmarshalYAML(node ast.Node) error {
	type plain Case // without this method
	var p plain
	if err := yaml.NodeToValue(node, &p, yaml.Strict()); err != nil {
		return err
	}
	*c = Case(p)
	keys := map[string]ast.Node{}
	for _, pair := range pairs(node) {
		if at := pair.Key.GetToken().Position; c.Line == 0 {
			c.Line, c.Column = at.Line, at.Column
		}
		keys[pair.Key.GetToken().Value] = pair.Value
	}
	fail := func(key, format string, args ...any) error {
		e := &Error{Line: c.Line, Column: c.Column, Message: fmt.Sprintf(format, args...)}
		if value, ok := keys[key]; ok {
			at := value.GetToken().Position
			e.Line, e.Column = at.Line, at.Column
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
		oneOf("action", c.Action, "read", "list", "share"),
		oneOf("reason", c.Reason, "policy", "default-deny", "anonymous", "subject", "path", "unavailable"),
	)
}

// pairs returns what a mapping holds.
func pairs(node ast.Node) []*ast.MappingValueNode {
	switch n := node.(type) {
	case *ast.MappingNode:
		return n.Values
	case *ast.MappingValueNode:
		return []*ast.MappingValueNode{n}
	}
	return nil
}
