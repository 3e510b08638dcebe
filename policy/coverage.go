package policy

import (
	"context"
	"fmt"

	"securefiles/authz"
)

// Coverage notes which lines of one version of a policy match what is asked. It
// is for one goroutine.
type Coverage struct {
	snap    *snapshot
	reached []bool // by row
}

// Coverage begins to note, for the version that is being served.
func (s *Store) Coverage() *Coverage {
	snap := s.current.Load()
	return &Coverage{snap, make([]bool, snap.table.rules.len())}
}

// Add notes the lines that match a query by what they say: a part of a matcher
// that asks nothing of them (r.sub == "root") does not count. A query that cannot be asked matches
// none.
func (c *Coverage) Add(ctx context.Context, q authz.Query) error {
	if ctx.Err() != nil {
		return fmt.Errorf("cover: %w", ctx.Err())
	}
	if _, err := c.snap.decideSafely(&q); err != nil {
		return nil
	}
	w, err := c.snap.newWitness(&q)
	if err != nil {
		return fmt.Errorf("cover: %w", err)
	}
	defer w.end()
	if rows, all := w.ev.candidates(); !all {
		for _, row := range rows {
			c.reached[row] = c.reached[row] || w.ev.asked(int(row))
		}
		return nil
	}
	for row, reached := range c.reached {
		if row%8192 == 0 && ctx.Err() != nil {
			return fmt.Errorf("cover: %w", ctx.Err())
		}
		c.reached[row] = reached || w.ev.asked(row)
	}
	return nil
}

// Missed returns the p lines that no query matched, and how many p lines there
// are.
func (c *Coverage) Missed() (missed []Line, all int) {
	for row, reached := range c.reached {
		if !reached {
			missed = append(missed, c.snap.line(row))
		}
	}
	return missed, len(c.reached)
}
