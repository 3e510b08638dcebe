package pattern

import (
	"fmt"
	"regexp/syntax"
	"strings"
)

// Limits of what a pattern may cost. A step is one instruction of a regular
// expression at one place of a path; BenchmarkStep says how long one takes, some
// ten nanoseconds at worst.
const (
	// SlowSteps is from how many steps on the longest path a pattern is worth a
	// warning: they can take ten milliseconds.
	SlowSteps = 1 << 20
	// maxSteps is how many a pattern may take. That is half a second, which
	// nobody means, and a decision is given up before.
	maxSteps = 64 << 20
	// maxInstructions is how many a pattern may have: some four megabytes.
	maxInstructions = 64 << 10
	// quickSize is up to how many bytes a pattern without braces cannot be slow:
	// it has hardly more instructions than bytes.
	quickSize = 128
)

// A TooLargeError says that a pattern is refused for what it could cost.
type TooLargeError struct {
	Steps, Instructions int
}

func (e *TooLargeError) Error() string {
	return fmt.Sprintf("is too large, a long path would take %d million steps, over %d: repeat less than {0,1000}, give braces fewer alternatives, or write several lines", e.Steps>>20, maxSteps>>20)
}

// Rule is the rule that such a finding belongs to.
func (*TooLargeError) Rule() string { return "pattern-size" }

// A size is what a pattern costs.
type size struct {
	instructions int
	steps        int // at most, on the longest path
}

func (s size) check() error {
	if s.instructions > maxInstructions || s.steps > maxSteps {
		return &TooLargeError{s.steps, s.instructions}
	}
	return nil
}

// sizeOfRegex measures a regular expression, before it is compiled: what
// compiling could take is a part of what it costs. It is zero for one that cannot
// be read.
func sizeOfRegex(text string) size {
	re, err := syntax.Parse(text, syntax.Perl)
	if err != nil {
		return size{}
	}
	m := measure(re, places)
	return size{m.instructions, m.steps}
}

// stepsOfRegex is the steps of a regular expression, or 0 where they are few.
func stepsOfRegex(text string) int {
	if isQuick(text) {
		return 0
	}
	return sizeOfRegex(text).steps
}

// isQuick reports whether a regular expression is far from any limit, without
// reading it.
func isQuick(text string) bool { return len(text) <= quickSize && strings.IndexByte(text, '{') < 0 }

// places is how many places a path has at which something can begin.
const places = maxObject + 1

// A measured expression has a size, and matches so many characters.
type measured struct {
	instructions, steps int
	least, most         int // most is at most places
}

// spread is at how many more places something can end than begin.
func (m measured) spread() int { return m.most - m.least }

// measure measures an expression that can begin at so many places.
//
// It counts for each instruction at how many places of a path it may be tried,
// which is what Go's matching takes for patterns of any size: at each place every
// instruction once.
func measure(re *syntax.Regexp, begins int) measured {
	switch re.Op {
	case syntax.OpLiteral:
		n := len(re.Rune)
		return measured{n, n * begins, n, min(n, places)}
	case syntax.OpCharClass, syntax.OpAnyChar, syntax.OpAnyCharNotNL:
		return measured{1, begins, 1, 1}
	case syntax.OpCapture:
		m := measure(re.Sub[0], begins)
		return measured{m.instructions + 2, m.steps + 2*min(places, begins+m.spread()), m.least, m.most}
	case syntax.OpQuest:
		m := measure(re.Sub[0], begins)
		return measured{m.instructions + 1, m.steps + begins, 0, m.most}
	case syntax.OpStar, syntax.OpPlus:
		m := measure(re.Sub[0], places)
		least := 0
		if re.Op == syntax.OpPlus {
			least = m.least
		}
		return measured{m.instructions + 2, m.steps + 2*places, least, places}
	case syntax.OpRepeat:
		return measureRepeat(re, begins)
	case syntax.OpConcat:
		var all measured
		for _, sub := range re.Sub {
			m := measure(sub, begins)
			all.instructions, all.steps = all.instructions+m.instructions, all.steps+m.steps
			all.least, all.most = min(places, all.least+m.least), min(places, all.most+m.most)
			if begins = min(places, begins+m.spread()); sub.Op == syntax.OpBeginText {
				begins = 1
			}
		}
		return all
	case syntax.OpAlternate:
		all := measured{instructions: len(re.Sub) - 1, steps: (len(re.Sub) - 1) * begins, least: places}
		for _, sub := range re.Sub {
			m := measure(sub, begins)
			all.instructions, all.steps = all.instructions+m.instructions, all.steps+m.steps
			all.least, all.most = min(all.least, m.least), max(all.most, m.most)
		}
		return all
	}
	return measured{1, begins, 0, 0} // ^, $ and what else takes no character
}

// measureRepeat measures {2}, {2,} and {2,5}, which become copies.
func measureRepeat(re *syntax.Regexp, begins int) measured {
	copies, endless := re.Max, re.Max < 0
	if endless {
		copies = max(1, re.Min)
	}
	one := measure(re.Sub[0], 1)
	if begins = min(places, begins+copies*one.spread()); endless {
		begins = places
	}
	one = measure(re.Sub[0], begins)
	all := measured{
		instructions: copies*(one.instructions+1) + 1, steps: copies*(one.steps+begins) + begins,
		least: min(places, re.Min*one.least), most: min(places, copies*one.most),
	}
	if endless {
		all.most = places
	}
	return all
}
