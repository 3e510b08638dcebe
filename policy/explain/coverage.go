package explain

import (
	"context"
	"fmt"

	"securefiles/authz"
	"securefiles/policy"
	"securefiles/policy/internal/engine"
)

// Coverage notes which lines of one version of a policy match what is asked. It
// is for one goroutine.
type Coverage struct {
	version *engine.Version
	reached []bool // by row
}

// NewCoverage begins to note, for the version that a store is serving.
func NewCoverage(s *policy.Store) *Coverage {
	version := s.Version()
	return &Coverage{version, make([]bool, version.Table.Rows.Len())}
}

// Add notes the lines that match a query by what they say: a part of a matcher
// that asks nothing of them (r.sub == "root") does not count. A query that cannot
// be asked matches none.
func (c *Coverage) Add(ctx context.Context, q authz.Query) error {
	if ctx.Err() != nil {
		return fmt.Errorf("cover: %w", ctx.Err())
	}
	if _, err := c.version.Decide(&q); err != nil {
		return nil
	}
	w, err := newExplainer(c.version, &q)
	if err != nil {
		return fmt.Errorf("cover: %w", err)
	}
	defer w.end()
	if rows, all := w.ev.Candidates(); !all {
		for _, row := range rows {
			c.reached[row] = c.reached[row] || w.ev.Asked(int(row))
		}
		return nil
	}
	for row, reached := range c.reached {
		if row%8192 == 0 && ctx.Err() != nil {
			return fmt.Errorf("cover: %w", ctx.Err())
		}
		c.reached[row] = reached || w.ev.Asked(row)
	}
	return nil
}

// Missed returns the p lines that no query matched, and how many p lines there
// are.
func (c *Coverage) Missed() (missed []Line, all int) {
	for row, reached := range c.reached {
		if !reached {
			missed = append(missed, lineOf(c.version, row))
		}
	}
	return missed, len(c.reached)
}
