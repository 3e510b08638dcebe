package explain

import (
	"context"
	"fmt"

	"securefiles/authz"
)

// maxPairs bounds the pairs of names that are asked for together.
const maxPairs = 20_000

// lookTogether looks at each name of the policies together with each of their groups:
// what a deny of the one hides may be what the other is allowed, and a line may ask
// for two. What either has by itself is told already.
func (d *differ) lookTogether(ctx context.Context, names *subjects) error {
	var groups []int
	for i, name := range names.names {
		if name[0] == '@' {
			groups = append(groups, i)
		}
	}
	if len(groups) == 0 {
		return nil
	}
	defer func() { d.alone = nil }()
	d.made = false
	left := maxPairs
	for _, g := range groups {
		group := principalOf(names.names[g], names.stranger)
		for i, name := range names.names {
			if name[0] == '@' && i <= g {
				continue // of two groups one comes first
			}
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if left--; left < 0 || d.budget.Left <= 0 {
				d.note("there are too many names and groups to try each together: what several groups give one user together was not tried to the end")
				return nil
			}
			one := principalOf(name, names.stranger)
			both := one
			both.name = one.name + "+" + group.name
			both.principal = authz.Principal{Subject: one.principal.Subject, Groups: groupsOf(name, group.name)}.WithBuiltinGroups()
			d.alone = []subject{one, group}
			if err := d.look(ctx, both); err != nil {
				return fmt.Errorf("compare %s: %w", both.name, err)
			}
		}
	}
	return nil
}

// groupsOf are the groups of somebody who is in one, and in another if he is called
// so.
func groupsOf(name, group string) []string {
	if name[0] == '@' {
		return []string{name, group}
	}
	return []string{group}
}

// eitherTells reports whether somebody alone, of those who are asked for together,
// gains or loses a path as they do.
func (t *trial) eitherTells(allowed [2]bool) bool {
	for _, one := range t.alone {
		q := *t.query
		q.Principal = one.principal
		same := true
		for s, a := range t.sides {
			decision, err := a.version.Decide(&q)
			same = same && (err == nil && decision.Effect == authz.Allow) == allowed[s]
		}
		if same {
			return true
		}
	}
	return false
}
