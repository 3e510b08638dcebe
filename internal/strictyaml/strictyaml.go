// Package strictyaml reads YAML that people write, and says where it is wrong.
//
// A [Document] is one file: unknown keys, wrong types and second documents are
// errors with line, column and what to write instead. [Document.At] places what is
// wrong with a value that was read well.
//
// strictyaml is not for YAML of strangers: files are bounded in size, but not in what
// their anchors expand to.
package strictyaml

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"

	"securefiles/internal/regular"
)

// maxSize bounds a file, in bytes.
const maxSize = 1 << 20

// An Error is one problem. Line and Column count from 1 and are 0 where the
// problem has no place in the file.
type Error struct {
	File         string
	Line, Column int
	Message      string
}

func (e *Error) Error() string {
	if e.Line == 0 {
		return fmt.Sprintf("%s: error: %s", e.File, e.Message)
	}
	return fmt.Sprintf("%s:%d:%d: error: %s", e.File, e.Line, e.Column, e.Message)
}

// Read returns the text of a file, or none where it has no name. What it is, such as
// `configuration`, stands in errors.
func Read(file, what string) ([]byte, error) {
	if file == "" {
		return nil, nil
	}
	text, err := regular.Read(file, maxSize)
	switch {
	case errors.Is(err, regular.ErrTooLarge):
		return nil, &Error{File: file, Message: fmt.Sprintf("larger than %d bytes: this is no %s", maxSize, what)}
	case err != nil:
		return nil, fmt.Errorf("read %s: %w", what, err)
	}
	return bytes.TrimPrefix(text, []byte("\ufeff")), nil // some editors begin with it, and nobody sees it
}

// A Document is a parsed file, kept to say where a value stands.
type Document struct {
	File string
	// Keys says where they are listed, if not in docs/configuration.md.
	Keys string
	// Overridden names the variable of the environment that a path's value comes
	// from.
	Overridden map[string]string

	root *ast.File
}

// goField is a message of the library that tells of Go.
var goField = regexp.MustCompile(`^cannot unmarshal (\S+) into Go struct field \S+ of type (\S+)$`)

// Decode reads the one document of a text.
func (d *Document) Decode(text []byte, into any) error {
	root, err := parse(text)
	if err != nil {
		return d.placeSyntax(text, err)
	}
	if len(root.Docs) > 1 {
		return &Error{File: d.File, Line: root.Docs[1].Start.Position.Line, Column: 1, Message: "a second document: keep one, without ---"}
	}
	d.root = root
	err = whatever(func() error { return yaml.UnmarshalWithOptions(text, into, yaml.Strict()) })
	if err != nil && !errors.Is(err, io.EOF) {
		err = d.Place(err)
		var e *Error
		if errors.As(err, &e) && strings.HasPrefix(e.Message, "unknown field") {
			if where := e.belongs(text, into); where != "" {
				e.Message, _, _ = strings.Cut(e.Message, ":")
				e.Message += " here: " + where
			}
		}
		return err
	}
	return nil
}

// placeSyntax is Place for a text that is no YAML.
func (d *Document) placeSyntax(text []byte, err error) error {
	err = d.Place(err)
	var e *Error
	if errors.As(err, &e) {
		e.lineUp(text)
	}
	return err
}

func parse(text []byte) (root *ast.File, err error) {
	err = whatever(func() error {
		root, err = parser.ParseBytes(text, 0)
		return err
	})
	return root, err
}

// whatever calls the library, and makes an error of its panics: it has some for what
// hardly anybody writes, such as a list that is a tag and nothing else.
func whatever(read func() error) (err error) {
	defer func() {
		if problem := recover(); problem != nil {
			err = fmt.Errorf("cannot be read as YAML (%v): keep to keys, texts, numbers and lists, without tags and anchors", problem)
		}
	}()
	return read()
}

var (
	// noBlank is a key whose value follows its colon at once, which makes one text of both.
	noBlank = regexp.MustCompile(`^([a-z_]+):(\S+)$`)
	defined = regexp.MustCompile(`^mapping key (".*") already defined at \[(\d+):\d+\]$`)
)

// Place makes of an error of decoding one line with its place.
func (d *Document) Place(err error) error {
	var ours *Error
	if errors.As(err, &ours) {
		ours.File = d.File
		return ours
	}
	var located yaml.Error
	if !errors.As(err, &located) {
		return &Error{File: d.File, Message: err.Error()}
	}
	e := &Error{File: d.File, Message: located.GetMessage()}
	if t := located.GetToken(); t != nil {
		e.Line, e.Column = t.Position.Line, t.Position.Column
	}
	if strings.HasPrefix(e.Message, "unknown field") {
		e.Message += ": see the " + cmp.Or(d.Keys, "list of keys in docs/configuration.md") + ", or remove it"
	}
	if m := defined.FindStringSubmatch(e.Message); m != nil {
		e.Message = fmt.Sprintf("%s stands here twice, first in line %s: keep one", m[1], m[2])
	}
	if m := goField.FindStringSubmatch(e.Message); m != nil {
		e.Message = m[1] + " was used where " + m[2] + " is expected"
	}
	if _, expected, ok := strings.Cut(e.Message, " was used where "); ok {
		switch strings.TrimSuffix(expected, " is expected") {
		case "bool":
			e.Message += ": write true or false"
		case "int":
			e.Message += ": write a whole number"
		case "sequence":
			e.Message += ": write a list, each item on a line that begins with -"
		case "mapping":
			e.Message += ": write lines KEY: VALUE"
			if t := located.GetToken(); t != nil {
				if m := noBlank.FindStringSubmatch(t.Value); m != nil {
					e.Message += fmt.Sprintf(", with a blank behind the colon: %s: %s", m[1], m[2])
				}
			}
		}
	}
	return e
}

// At returns an Error at a path such as `downloads[0].url`, or at the nearest
// parent that the file holds. A value from the environment stands in no file.
func (d *Document) At(path, format string, args ...any) error {
	if name, ok := d.Overridden[path]; ok {
		return &Error{File: "environment", Message: name + ": " + fmt.Sprintf(format, args...)}
	}
	e := &Error{File: d.File, Message: path + ": " + fmt.Sprintf(format, args...)}
	if d.File == "" {
		e.File = "configuration"
	}
	for p := path; d.root != nil && p != ""; p = parent(p) {
		yp, err := yaml.PathString("$." + p)
		if err != nil {
			break
		}
		node, err := yp.FilterFile(d.root)
		if err != nil || node == nil {
			continue
		}
		pos := node.GetToken().Position
		e.Line, e.Column = pos.Line, pos.Column
		break
	}
	return e
}

func parent(path string) string {
	if i := strings.LastIndexAny(path, ".["); i >= 0 {
		return path[:i]
	}
	return ""
}

// A Node is a value in a document.
type Node = ast.Node

// Nodes returns the documents of a text, but for empty ones.
func (d *Document) Nodes(text []byte) ([]Node, error) {
	if !bytes.Equal(bytes.ToValidUTF8(text, nil), text) { // the library would read it in its own way
		return nil, &Error{File: d.File, Message: "is not valid UTF-8"}
	}
	root, err := parse(text)
	if err != nil {
		return nil, d.placeSyntax(text, err)
	}
	var nodes []Node
	for _, doc := range root.Docs {
		if doc.Body != nil {
			nodes = append(nodes, doc.Body)
		}
	}
	return nodes, nil
}

// Decode reads a node; its error is for [Document.Place].
func Decode(n Node, into any) error {
	return whatever(func() error { return yaml.NodeToValue(n, into, yaml.Strict()) })
}

// Position returns where a node begins, from 1.
func Position(n Node) (line, column int) {
	p := n.GetToken().Position
	return p.Line, p.Column
}

// Text returns a scalar as it is written.
func Text(n Node) string { return n.GetToken().Value }

// A Field is a key of a mapping and its value.
type Field struct{ Key, Value Node }

// Fields returns what a mapping holds, in its order; nil for what is none.
func Fields(n Node) []Field {
	var values []*ast.MappingValueNode
	switch n := n.(type) {
	case *ast.MappingNode:
		values = n.Values
	case *ast.MappingValueNode:
		values = []*ast.MappingValueNode{n}
	}
	var fields []Field
	for _, v := range values {
		fields = append(fields, Field{v.Key, v.Value})
	}
	return fields
}
