package lint

import "securefiles/policy"

// slowFrom is how many lines a decision may look at before that is worth a
// warning: some tenths of a millisecond.
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
	l.warn(line, 0, "slow", "%d lines are found by nothing that differs, this one among them, so each decision for them looks at all: let their paths differ before the first wildcard or behind the last",
		l.plan.Bucket)
}
