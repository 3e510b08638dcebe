package pattern

import (
	"errors"
	"fmt"
	"regexp/syntax"
	"strconv"
	"strings"
	"unicode"
)

// holeGroup is how the groups are called that stand for holes in an expression.
const holeGroup = "securefiles_hole_"

// holeGroups returns a regular expression with a group in each hole, which
// [marked] knows by its name.
func holeGroups(pattern string, holes []hole) string {
	return fill(pattern, holes, func(i int, h hole) string {
		return "(?P<" + holeGroup + strconv.Itoa(int(h.mark)) + "_" + strconv.Itoa(i) + ">)"
	})
}

// marked returns an expression written anew, so that it matches marked paths as it does
// the paths themselves, and where a hole is, a whole segment that has its mark.
// Where cuts is true a path ends for it before a question mark, but for those in a
// name.
func marked(text string, cuts bool) (string, error) {
	parsed, err := syntax.Parse(text, syntax.Perl)
	if err != nil {
		return "", err
	}
	m := marker{cuts: cuts}
	if m.write(parsed); m.err != nil {
		return "", m.err
	}
	return m.String(), nil
}

// A marker writes an expression anew: before each character and each end there may
// be marks, and no class matches one.
type marker struct {
	strings.Builder
	cuts bool
	err  error
}

// Pieces of what a marker writes.
const (
	anyMarks  = `[\x01-\x03]*`
	nothing   = `[^\x00-\x{10ffff}]`
	markedSub = `\x01\x02?[^/\x01-\x03]*\x03`
	markedOne = `\x01?\x02[^/\x01-\x03]*\x03` // of the groups
)

func (m *marker) write(re *syntax.Regexp) {
	lazy := ""
	if re.Flags&syntax.NonGreedy != 0 {
		lazy = "?"
	}
	switch re.Op {
	case syntax.OpEmptyMatch:
		m.WriteString("(?:)")
	case syntax.OpLiteral:
		for _, r := range re.Rune {
			m.letter(r, re.Flags&syntax.FoldCase != 0)
		}
	case syntax.OpCharClass:
		m.class(re.Rune)
	case syntax.OpAnyChar:
		m.class([]rune{0, unicode.MaxRune})
	case syntax.OpAnyCharNotNL:
		m.class([]rune{0, '\n' - 1, '\n' + 1, unicode.MaxRune})
	case syntax.OpBeginText:
		m.WriteString(`\A`)
	case syntax.OpBeginLine:
		m.WriteString("(?m:^)")
	case syntax.OpEndText:
		m.end(`\z`)
	case syntax.OpEndLine:
		m.end("(?m:$)")
	case syntax.OpCapture:
		switch {
		case strings.HasPrefix(re.Name, holeGroup+"1"):
			m.WriteString(markedSub)
		case strings.HasPrefix(re.Name, holeGroup+"2"):
			m.WriteString(markedOne)
		default:
			m.all("(", re.Sub, "", ")")
		}
	case syntax.OpStar:
		m.all("(?:", re.Sub, "", ")*"+lazy)
	case syntax.OpPlus:
		m.all("(?:", re.Sub, "", ")+"+lazy)
	case syntax.OpQuest:
		m.all("(?:", re.Sub, "", ")?"+lazy)
	case syntax.OpRepeat:
		most := ""
		if re.Max >= 0 {
			most = strconv.Itoa(re.Max)
		}
		m.all("(?:", re.Sub, "", fmt.Sprintf("){%d,%s}%s", re.Min, most, lazy))
	case syntax.OpConcat:
		m.all("(?:", re.Sub, "", ")")
	case syntax.OpAlternate:
		m.all("(?:", re.Sub, "|", ")")
	case syntax.OpNoMatch:
		m.WriteString(nothing)
	default: // of which the marks would make another
		m.err = errors.New(`has \b or \B beside $sub or $group: leave it out`)
	}
}

func (m *marker) all(before string, subs []*syntax.Regexp, between, behind string) {
	m.WriteString(before)
	for i, sub := range subs {
		if i > 0 {
			m.WriteString(between)
		}
		m.write(sub)
	}
	m.WriteString(behind)
}

// end writes what holds at the end of a path.
func (m *marker) end(is string) {
	m.WriteString(anyMarks)
	if m.cuts {
		m.WriteString(`(?s:\?.*)?`)
	}
	m.WriteString(is)
}

func (m *marker) letter(r rune, folds bool) {
	switch {
	case isMark(r) || m.cuts && r == '?':
		m.WriteString(nothing)
	case folds:
		fmt.Fprintf(m, `%s(?i:\x{%x})`, anyMarks, r)
	default:
		fmt.Fprintf(m, `%s\x{%x}`, anyMarks, r)
	}
}

// class writes ranges without what is not a path's own.
func (m *marker) class(ranges []rune) {
	ranges = cutOut(ranges, subjectMark, endMark)
	if m.cuts {
		ranges = cutOut(ranges, '?', '?')
	}
	if len(ranges) == 0 {
		m.WriteString(nothing)
		return
	}
	m.WriteString(anyMarks + "[")
	for i := 0; i+1 < len(ranges); i += 2 {
		fmt.Fprintf(m, `\x{%x}-\x{%x}`, ranges[i], ranges[i+1])
	}
	m.WriteString("]")
}

// cutOut returns ranges without those from lo to hi.
func cutOut(ranges []rune, lo, hi rune) []rune {
	var out []rune
	for i := 0; i+1 < len(ranges); i += 2 {
		from, to := ranges[i], ranges[i+1]
		if to < lo || from > hi {
			out = append(out, from, to)
			continue
		}
		if from < lo {
			out = append(out, from, lo-1)
		}
		if to > hi {
			out = append(out, hi+1, to)
		}
	}
	return out
}
