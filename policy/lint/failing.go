package lint

import (
	"slices"
	"strings"

	"securefiles/authz"
	"securefiles/policy/internal/engine"
	"securefiles/policy/internal/finding"
	"securefiles/policy/internal/model"
)

// maxAsked bounds the lines that are tried, for each part of the matcher.
const maxAsked = 100_000

// lintFailing asks each part of the matcher that is no more than an expression once
// for each line: what cannot be evaluated for an ordinary request can be for none, as a
// keyGet2 with a pattern that is no regular expression.
func (l *linter) lintFailing(e *engine.Engine) {
	var parts []part
	var collect func(t *model.Term, above []guard)
	collect = func(t *model.Term, above []guard) {
		for i, kid := range t.Kids {
			guards := slices.Clip(above)
			for _, before := range t.Kids[:i] {
				if len(before.Requests) == 0 && t.Op != model.Not {
					guards = append(guards, guard{before, t.Op == model.Or})
				}
			}
			collect(kid, guards)
		}
		if t.Atom != nil && t.Atom.Kind == model.Opaque && len(t.Columns) > 0 {
			parts = append(parts, part{t, above})
		}
	}
	collect(e.Model.Root, nil)
	if len(parts) == 0 {
		return
	}
	query := authz.Query{
		Principal: authz.Principal{Subject: "somebody", Groups: []string{authz.GroupAnyone, authz.GroupAuthenticated}},
		Object:    "/a/b", Action: authz.ActionRead, Domain: "main", IP: "192.0.2.1", Host: "files.example.org",
	}
	ev, err := e.Begin(&query)
	if err != nil {
		return // the model asks what no request has, which is told of
	}
	defer e.End(ev)
	for _, p := range parts {
		part := p.Term
		asked := map[string]bool{}
		var key strings.Builder
		for row := 0; row < e.Rows.Len() && len(asked) < maxAsked && l.ctx.Err() == nil; row++ {
			key.Reset()
			for _, column := range p.columns() {
				s := e.Rows.Cols[column][row]
				key.Write([]byte{byte(s), byte(s >> 8), byte(s >> 16), byte(s >> 24)})
			}
			if asked[key.String()] {
				continue
			}
			asked[key.String()] = true
			if err := ev.Failure(part, row); err != nil && !p.isKeptFrom(ev, row) {
				l.warn(e.Rows.Lines[row], part.Columns[0]+1, "line-fails", "%s cannot be evaluated for %s: whoever the line is about gets nothing, whatever the other lines say: %s",
					part.Source, finding.Shorten(values(e, part, row)), finding.Escape(err.Error()))
			}
		}
	}
}

// A part of the matcher is asked unless something of the line before it keeps it from
// being asked: p.net == "*" || ipMatch(r.ip, p.net).
type part struct {
	*model.Term
	guards []guard
}

// A guard is asked before a part. Behind || the part is not asked where it holds,
// behind && where it does not.
type guard struct {
	*model.Term
	or bool
}

func (p part) isKeptFrom(ev *engine.Evaluator, row int) bool {
	return slices.ContainsFunc(p.guards, func(g guard) bool {
		return ev.Failure(g.Term, row) == nil && (ev.Verdict(g.Term, row) == engine.Holds) == g.or
	})
}

// columns are those that a part and its guards ask.
func (p part) columns() []int {
	all := slices.Clone(p.Columns)
	for _, g := range p.guards {
		all = append(all, g.Columns...)
	}
	return all
}

// values are what a line has in the columns of a part.
func values(e *engine.Engine, part *model.Term, row int) string {
	var all []string
	for _, column := range part.Columns {
		all = append(all, e.Symbols.Text(e.Rows.Cols[column][row]))
	}
	return strings.Join(all, ", ")
}
