package strictyaml

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
)

// A level is where a line of a text lines up with others: the column of its key or
// item, from 0.
type level struct {
	line   int // from 1
	column int
	item   bool // it begins with -
}

// levelsOf returns the levels of a line, the item's and that of the key behind it;
// none of what is empty or a comment.
func levelsOf(line string, number int) []level {
	var all []level
	rest := strings.TrimLeft(line, " ")
	if rest == "" || rest[0] == '#' || rest[0] == '\r' {
		return nil
	}
	column := len(line) - len(rest)
	for strings.HasPrefix(rest, "- ") {
		all = append(all, level{number, column, true})
		after := strings.TrimLeft(rest[1:], " ")
		column += len(rest) - len(after)
		rest = after
	}
	return append(all, level{number, column, rest == "-"})
}

// lineUp says of what is no YAML how it is to be indented, where that is what is
// wrong.
func (e *Error) lineUp(text []byte) {
	lines := strings.Split(string(text), "\n")
	if e.Line < 1 || e.Line > len(lines) {
		return
	}
	line := lines[e.Line-1]
	switch {
	case strings.Contains(e.Message, "tab character") || strings.Contains(e.Message, "character '\t'"):
		if at := strings.IndexByte(line, '\t'); at >= 0 {
			e.Column = at + 1
			e.Message = "a tab: YAML is indented with blanks alone, so write two for each level"
		}
	case strings.HasPrefix(e.Message, "value is not allowed in this context"):
		own := levelsOf(line, e.Line)
		if len(own) == 0 || own[0].column != e.Column-1 {
			return
		}
		if fits := above(lines[:e.Line-1], own[0]); len(fits) > 0 {
			e.Message = fmt.Sprintf("begins with %s, and lines up with nothing above: write %s", blanks(own[0].column), strings.Join(fits, ", or "))
		}
	case e.Message == "mapping value is not allowed in this context":
		here := levelsOf(line, e.Line)
		for i, next := range lines[e.Line:] {
			below := levelsOf(next, e.Line+1+i)
			if len(below) == 0 {
				continue
			}
			if key := here[len(here)-1]; below[0].column > key.column {
				e.Line, e.Column = below[0].line, below[0].column+1
				e.Message = fmt.Sprintf("begins with %s, and line %d has its value already: write %d, as in line %[2]d", blanks(below[0].column), key.line, key.column)
			}
			return
		}
	}
}

// above are the columns that a line may begin at, below lines.
func above(lines []string, own level) []string {
	var fits []string
	limit := -1
	for i := len(lines) - 1; i >= 0 && limit != 0; i-- {
		levels := levelsOf(lines[i], i+1)
		for _, l := range slices.Backward(levels) {
			if limit >= 0 && l.column >= limit {
				continue
			}
			limit = l.column
			if l.item == own.item {
				fits = append(fits, fmt.Sprintf("%d, as in line %d", l.column, l.line))
			}
		}
	}
	return fits
}

func blanks(n int) string {
	if n == 1 {
		return "1 blank"
	}
	return fmt.Sprintf("%d blanks", n)
}

// belongs says of a key that is unknown where it stands where else it may belong;
// empty for nowhere.
func (e *Error) belongs(text []byte, into any) string {
	lines := strings.Split(string(text), "\n")
	_, rest, _ := strings.Cut(e.Message, `"`)
	key, _, _ := strings.Cut(rest, `"`)
	own := level{line: e.Line, column: e.Column - 1}
	if own.column > 0 && isKeyOf(reflect.TypeOf(into), key) {
		return "it is a key of the whole file: begin the line without blanks"
	}
	for i := e.Line - 2; i >= 0 && i < len(lines); i-- {
		levels := levelsOf(lines[i], i+1)
		if len(levels) == 0 {
			continue
		}
		before, _, _ := strings.Cut(lines[i], " #")
		name, empty := strings.CutSuffix(strings.TrimRight(before[levels[len(levels)-1].column:], " \r"), ":")
		if empty && levels[len(levels)-1].column == own.column {
			return fmt.Sprintf("if it belongs to %s, in line %d, begin the line with %s", name, i+1, blanks(own.column+2))
		}
		return ""
	}
	return ""
}

// isKeyOf reports whether a struct has a key.
func isKeyOf(t reflect.Type, key string) bool {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct {
		return false
	}
	for i := range t.NumField() {
		if name, _, _ := strings.Cut(t.Field(i).Tag.Get("yaml"), ","); name == key {
			return true
		}
	}
	return false
}
