package main

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/constant"
	"go/printer"
	"go/token"
	"go/types"
	"regexp"
	"slices"
	"strings"
)

// A mistake is one that could be made in the code.
type mistake struct {
	number int
	// key names it by its function and its text, so that it keeps its name where
	// lines move.
	key   string
	place token.Position
	// insertions weave it in.
	insertions []insertion
}

// An insertion is text that goes into a file.
type insertion struct {
	offset int
	opens  bool // it goes before what begins there, and not behind what ends
	text   string
}

// A weaver finds the mistakes that could be made in one file.
type weaver struct {
	fset  *token.FileSet
	file  *ast.File
	text  []byte
	pkg   *types.Package
	info  *types.Info
	skip  *regexp.Regexp // functions
	next  *int           // number
	keys  map[string]int // how often each was given
	found []*mistake

	function string
	parents  []ast.Node
}

// derive returns the mistakes of a file, in the order in which they are woven.
func (w *weaver) derive() []*mistake {
	for _, d := range w.file.Decls {
		f, ok := d.(*ast.FuncDecl)
		if !ok || f.Body == nil {
			continue
		}
		w.function = w.pkg.Name() + "." + f.Name.Name
		if f.Recv != nil {
			w.function = w.pkg.Name() + "." + strings.TrimPrefix(w.source(f.Recv.List[0].Type), "*") + "." + f.Name.Name
		}
		if w.skip.MatchString(w.function) {
			continue
		}
		ast.PreorderStack(f.Body, nil, func(n ast.Node, stack []ast.Node) bool {
			w.parents = stack
			return w.visit(n)
		})
	}
	return w.found
}

func (w *weaver) parent() ast.Node { return w.parents[len(w.parents)-1] }

// add notes a mistake that two texts around a node make; § is its number.
func (w *weaver) add(n ast.Node, before, behind, key string) {
	*w.next++
	key = w.function + ": " + key
	if w.keys[key]++; w.keys[key] > 1 {
		key += fmt.Sprintf(" (%d)", w.keys[key])
	}
	begin, end, number := w.fset.Position(n.Pos()), w.fset.Position(n.End()), fmt.Sprint(*w.next)
	w.found = append(w.found, &mistake{*w.next, key, begin, []insertion{
		{begin.Offset, true, strings.ReplaceAll(before, "§", number)},
		{end.Offset, false, strings.ReplaceAll(behind, "§", number)},
	}})
}

// visit finds what can be wrong about a node, the outer before the inner.
func (w *weaver) visit(n ast.Node) bool {
	switch n := n.(type) {
	case *ast.GenDecl:
		return n.Tok != token.CONST
	case *ast.ArrayType:
		return false // its length is a constant
	case *ast.IfStmt:
		w.condition(n.Cond)
	case *ast.ForStmt:
		if n.Cond != nil {
			w.condition(n.Cond)
		}
	case *ast.RangeStmt:
		if basic, ok := w.info.TypeOf(n.X).Underlying().(*types.Basic); ok && basic.Info()&types.IsInteger != 0 {
			w.bound(n.X)
		}
	case *ast.SwitchStmt:
		for _, c := range n.Body.List {
			for _, e := range c.(*ast.CaseClause).List {
				if n.Tag == nil {
					w.condition(e)
				} else {
					w.choice(e)
				}
			}
		}
	case *ast.ReturnStmt, *ast.BranchStmt:
		w.jump(n.(ast.Stmt))
	case *ast.SliceExpr:
		for _, e := range []ast.Expr{n.Low, n.High} {
			if e != nil {
				w.bound(e)
			}
		}
	case *ast.BinaryExpr:
		w.binary(n)
	}
	if e, ok := n.(ast.Expr); ok {
		if w.isConstant(e) {
			w.constant(e)
			return false
		}
	}
	return true
}

func (w *weaver) isConstant(e ast.Expr) bool { return w.info.Types[e].Value != nil }

// condition may hold always, or never.
func (w *weaver) condition(e ast.Expr) {
	if w.isConstant(e) {
		return
	}
	text := w.source(e)
	w.add(e, "(active_.On(§) || (", "))", text+" is true")
	w.add(e, "(!active_.On(§) && (", "))", text+" is false")
}

// choice of a switch with a value may never be taken.
func (w *weaver) choice(e ast.Expr) {
	basic, ok := w.info.TypeOf(e).Underlying().(*types.Basic)
	if !ok {
		return
	}
	name, ok := w.typeName(w.info.TypeOf(e))
	another := "Another"
	if basic.Info()&types.IsString != 0 {
		another = "AnotherText"
	} else if basic.Info()&types.IsInteger == 0 {
		ok = false
	}
	if ok {
		w.add(e, "active_."+another+"(§, "+name+"(", "))", "case "+w.source(e)+" never")
	}
}

// jump out of a function or a loop may be left out, but not from a function's end.
func (w *weaver) jump(s ast.Stmt) {
	if len(w.parents) < 2 {
		return
	}
	what := ""
	switch p := w.parent().(type) {
	case *ast.BlockStmt:
		if p.List[0] == s {
			if in, ok := w.parents[len(w.parents)-2].(*ast.IfStmt); ok && in.Else == nil && in.Body == p {
				return // as if the condition were false
			}
		}
		switch in := w.parents[len(w.parents)-2].(type) {
		case *ast.IfStmt:
			what = "if " + w.source(in.Cond) + ": "
		case *ast.FuncLit:
			return // its end, or near it
		}
	case *ast.CaseClause:
		if len(p.List) > 0 {
			what = "case " + w.source(p.List[0]) + ": "
			if sw := w.switchOf(); sw != nil && sw.Tag == nil && len(p.List) == 1 && p.Body[0] == s && w.isLast(sw, p) {
				return // as if the condition were false
			}
		}
	}
	w.add(s, "if !active_.On(§) { ", " }", what+w.source(s)+" left out")
}

func (w *weaver) switchOf() *ast.SwitchStmt {
	if len(w.parents) < 3 {
		return nil
	}
	sw, _ := w.parents[len(w.parents)-3].(*ast.SwitchStmt)
	return sw
}

func (w *weaver) isLast(sw *ast.SwitchStmt, c *ast.CaseClause) bool {
	return sw.Body.List[len(sw.Body.List)-1] == c
}

// comparisons, with what each is where it is moved by one.
var comparisons = map[token.Token]string{
	token.EQL: "", token.NEQ: "",
	token.LSS: "<=", token.LEQ: "<", token.GTR: ">=", token.GEQ: ">",
}

func (w *weaver) binary(e *ast.BinaryExpr) {
	if w.isConstant(e) {
		return
	}
	text, x, y := w.source(e), w.source(e.X), w.source(e.Y)
	switch moved, isComparison := comparisons[e.Op]; {
	case e.Op == token.LAND:
		w.add(e.X, "(active_.On(§) || (", "))", text+" without "+x)
		w.add(e.Y, "(active_.On(§) || (", "))", text+" without "+y)
	case e.Op == token.LOR:
		w.add(e.X, "(!active_.On(§) && (", "))", text+" without "+x)
		w.add(e.Y, "(!active_.On(§) && (", "))", text+" without "+y)
	case isComparison:
		w.add(e, "((", ") != active_.On(§))", text+" turned")
		if moved == "" {
			return
		}
		equal := fmt.Sprintf("(%s) == (%s)", x, y)
		behind := ") || active_.On(§) && " + equal + ")"
		if e.Op == token.LEQ || e.Op == token.GEQ {
			behind = ") && !(active_.On(§) && " + equal + "))"
		}
		w.add(e, "((", behind, text+" is "+moved)
	}
}

// bound may be one too many, or too few. One that is a sum with a constant has
// that for its own mistake.
func (w *weaver) bound(e ast.Expr) {
	if w.isConstant(e) {
		return
	}
	if b, ok := e.(*ast.BinaryExpr); ok && (w.isConstant(b.X) || w.isConstant(b.Y)) {
		return
	}
	w.offByOne(e, "", w.source(e)+" as a bound", true, true)
}

// constant is a whole number that bounds something, and may be one too many, or too
// few. A negative one is a mark and no bound; one that is written in hexadecimal
// mixes a hash.
func (w *weaver) constant(e ast.Expr) {
	value := w.info.Types[e].Value
	if value.Kind() != constant.Int || constant.Sign(value) < 0 || strings.Contains(w.source(e), "0x") {
		return
	}
	switch p := w.parent().(type) {
	case *ast.KeyValueExpr:
		if p.Key == e {
			return
		}
	case *ast.CaseClause:
		return // a choice
	case *ast.ReturnStmt:
		return // an answer, most often beside false
	case *ast.BinaryExpr:
		if p.Op == token.EQL || p.Op == token.NEQ {
			return // no bound: it is turned
		}
	}
	if _, isLiteral := e.(*ast.BasicLit); !isLiteral && isNamed(w.info.TypeOf(e)) {
		return // one of an enumeration
	}
	if w.measures() {
		return
	}
	t := w.info.TypeOf(e)
	if basic, ok := t.(*types.Basic); ok && basic.Info()&types.IsUntyped != 0 {
		t = types.Default(t)
	}
	basic, ok := t.Underlying().(*types.Basic)
	name, named := w.typeName(t)
	if !ok || !named || basic.Info()&types.IsInteger == 0 || isCharacter(e) || basic.Kind() == types.UntypedRune || t == types.Universe.Lookup("rune").Type() {
		return
	}
	more, less := w.unlikeMoved(e)
	w.offByOne(e, name, w.context(e)+", of which "+w.source(e), more, less)
}

// measures reports whether a number is of work that is counted: ev.spend(8 * n).
func (w *weaver) measures() bool {
	return slices.ContainsFunc(w.parents, func(p ast.Node) bool {
		call, ok := p.(*ast.CallExpr)
		if !ok {
			return false
		}
		method, ok := call.Fun.(*ast.SelectorExpr)
		return ok && method.Sel.Name == "spend"
	})
}

// offByOne makes a number of a type one too many, or too few.
func (w *weaver) offByOne(e ast.Expr, typeName, key string, more, less bool) {
	if typeName != "" {
		typeName = "(" + typeName + ")"
	}
	if more {
		w.add(e, "active_.More(§, "+typeName+"(", "))", key+" is one more")
	}
	if less {
		if more {
			typeName = ""
		}
		w.add(e, "active_.Less(§, "+typeName+"(", "))", key+" is one less")
	}
}

// unlikeMoved says which of two mistakes about a constant differ from moving the
// comparison that it stands in: x < 5+1 is x <= 5.
func (w *weaver) unlikeMoved(e ast.Expr) (more, less bool) {
	p, ok := w.parent().(*ast.BinaryExpr)
	if !ok {
		return true, true
	}
	op := p.Op
	if p.X == e {
		op = map[token.Token]token.Token{token.LSS: token.GTR, token.GTR: token.LSS, token.LEQ: token.GEQ, token.GEQ: token.LEQ}[op]
	}
	switch op {
	case token.LSS, token.GEQ:
		return false, true
	case token.LEQ, token.GTR:
		return true, false
	}
	return true, true
}

func isNamed(t types.Type) bool {
	_, ok := t.(*types.Named)
	return ok
}

// isCharacter reports whether a constant is written as one.
func isCharacter(e ast.Expr) bool {
	l, ok := e.(*ast.BasicLit)
	return ok && l.Kind == token.CHAR
}

// context is the source around a constant: the operation, or the statement.
func (w *weaver) context(e ast.Expr) string {
	for _, p := range slices.Backward(w.parents) {
		switch p := p.(type) {
		case *ast.BinaryExpr, *ast.IndexExpr, *ast.SliceExpr, *ast.CallExpr, *ast.AssignStmt, *ast.ReturnStmt, *ast.ValueSpec, *ast.KeyValueExpr:
			return w.source(p)
		case *ast.RangeStmt:
			return "range " + w.source(p.X)
		case ast.Stmt:
			return w.source(e)
		}
	}
	return w.source(e)
}

// typeName is a type as the file would write it; false where it cannot.
func (w *weaver) typeName(t types.Type) (string, bool) {
	ok := true
	name := types.TypeString(t, func(p *types.Package) string {
		if p == w.pkg {
			return ""
		}
		for _, spec := range w.file.Imports {
			path := strings.Trim(spec.Path.Value, `"`)
			switch {
			case path != p.Path():
			case spec.Name != nil:
				return spec.Name.Name
			default:
				return p.Name()
			}
		}
		ok = false
		return p.Name()
	})
	return name, ok
}

var blanks = regexp.MustCompile(`\s+`)

// source is a node's text on one line.
func (w *weaver) source(n ast.Node) string {
	var b bytes.Buffer
	if err := printer.Fprint(&b, w.fset, n); err != nil {
		return fmt.Sprint(err)
	}
	return blanks.ReplaceAllString(b.String(), " ")
}

// weave puts mistakes into the text of a file.
func (w *weaver) weave(mistakes []*mistake) []byte {
	var all []insertion
	for _, m := range mistakes {
		all = append(all, m.insertions...)
	}
	// What opens stands in the order in which it was found, the outer first; what
	// closes the other way round, and before what opens at the same place.
	closing := slices.Clone(all)
	slices.Reverse(closing)
	closing = slices.DeleteFunc(closing, func(i insertion) bool { return i.opens })
	all = append(closing, slices.DeleteFunc(all, func(i insertion) bool { return !i.opens })...)
	slices.SortStableFunc(all, func(a, b insertion) int { return a.offset - b.offset })

	var b bytes.Buffer
	at := 0
	name := w.fset.Position(w.file.Name.End()).Offset
	b.Write(w.text[:name])
	b.WriteString(`; import active_ "` + activePath + `"`)
	at = name
	for _, i := range all {
		b.Write(w.text[at:i.offset])
		b.WriteString(i.text)
		at = i.offset
	}
	b.Write(w.text[at:])
	b.WriteString("\nvar _ = active_.On\n")
	return b.Bytes()
}
