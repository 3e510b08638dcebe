package lint

import (
	"securefiles/policy"
	"securefiles/policy/internal/finding"
	"securefiles/policy/internal/model"
	"securefiles/policy/internal/pattern"
	"securefiles/policy/internal/table"
)

// slowFrom is how many lines a decision may look at before that is worth a
// warning: from a tenth of a millisecond to one, by what compares them.
const slowFrom = 1000

// lintSpeed tells of lines that no index tells apart.
func (l *linter) lintSpeed() {
	if l.plan == nil || l.plan.Bucket < slowFrom {
		return
	}
	if l.plan.Scan != "" {
		l.add(policy.Finding{File: l.model.File, Rule: "slow"}, "%s, so each decision looks at all %d lines: give the matcher a part such as g(r.sub, p.sub), r.sub == p.sub or a pattern of r.obj in each alternative",
			l.plan.Scan, l.plan.Bucket)
		return
	}
	line := l.table.Rows.Lines[l.plan.BucketRow]
	if l.plan.BucketOf != table.NoSymbol {
		l.warn(line, 0, "slow", "%d lines of all the roles that %q has are found by nothing that differs, this one among them, so each decision for them looks at all: give what they share to one role, or let their paths differ before the first wildcard or behind the last",
			l.plan.Bucket, finding.Shorten(l.table.Symbols.Text(l.plan.BucketOf)))
		return
	}
	l.warn(line, 0, "slow", "%d lines are found by nothing that differs, this one among them, so each decision for them looks at all: let their paths differ before the first wildcard or behind the last",
		l.plan.Bucket)
}

// slowPattern says how long a pattern takes on a long path.
const slowPattern = "%q may take some %d ms on a path of 4,096 bytes: repeat less, begin it with ^, give braces fewer alternatives, or write several lines"

// milliseconds are about what steps take at worst.
func milliseconds(steps int) int { return steps / 100_000 }

// lintSizes tells of patterns that take long, wherever they stand.
func (l *linter) lintSizes() {
	for _, c := range l.model.Patterns() {
		compares, ok := pattern.ByName(c.Function)
		if !ok {
			continue
		}
		slow := map[table.Symbol]int{}
		l.eachValue(c.Column, func(_ uint32, text string) {
			if steps := compares.Steps(text); steps >= pattern.SlowSteps {
				s, _ := l.table.Symbols.Lookup(text)
				slow[s] = steps
			}
		})
		for row := 0; row < l.table.Rows.Len() && len(slow) > 0; row++ {
			s := l.table.Rows.Cols[c.Column][row]
			steps, ok := slow[s]
			if !ok || !c.Reached(func(column int) string { return l.text(column, row) }) {
				continue
			}
			delete(slow, s) // it is told in its first line
			l.warn(l.table.Rows.Lines[row], c.Column+1, "pattern-size", "%s "+slowPattern, l.model.Policy[c.Column], finding.Shorten(l.text(c.Column, row)), milliseconds(steps))
		}
	}
	literals := func(p *model.Part, found func(text string, steps int)) {
		for i := range p.Calls {
			if compares, text, ok := p.Calls[i].Literal(); ok && compares.Steps(text) >= pattern.SlowSteps {
				found(text, compares.Steps(text))
			}
		}
	}
	literals(&l.model.Root.Part, func(text string, steps int) {
		l.add(policy.Finding{File: l.model.File, Rule: "pattern-size"}, "the matcher: "+slowPattern, finding.Shorten(text), milliseconds(steps))
	})
	for _, column := range l.model.Subrules() {
		l.eachValue(column, func(line uint32, text string) {
			rule, err := model.ParseSubrule(l.model, text)
			if err != nil {
				return // it compiled before
			}
			literals(&rule, func(text string, steps int) {
				l.warn(line, column+1, "pattern-size", "%s: "+slowPattern, l.model.Policy[column], finding.Shorten(text), milliseconds(steps))
			})
		})
	}
}

// eachValue calls f for each value of a column, with the first line that has it.
func (l *linter) eachValue(column int, f func(line uint32, text string)) {
	seen := make([]bool, l.table.Symbols.Len())
	for row, s := range l.table.Rows.Cols[column] {
		if !seen[s] {
			seen[s] = true
			f(l.table.Rows.Lines[row], l.table.Symbols.Text(s))
		}
	}
}
