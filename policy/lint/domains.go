package lint

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"securefiles/policy/internal/finding"
	"securefiles/policy/internal/model"
	"securefiles/policy/internal/pattern"
	"securefiles/policy/internal/table"
)

// lintDomains looks for domains that no download has, in p lines and in g lines.
// Where the downloads are not known, those of the p lines are all there are.
func (l *linter) lintDomains() {
	lines := l.domainColumn()
	var names []string
	for _, d := range l.check.opts.Downloads {
		names = append(names, d.Name)
	}
	known := func(s table.Symbol) bool { return slices.Contains(names, l.table.Symbols.Text(s)) }
	of := "download"
	switch {
	case l.check.opts.Downloads != nil && lines >= 0:
		list := strings.Join(names, ", ")
		for row, s := range l.table.Rows.Cols[lines] {
			if text := l.table.Symbols.Text(s); !known(s) && !slices.Contains(l.shape.Spared[lines], text) {
				l.warn(l.table.Rows.Lines[row], lines+1, "domain", "no download is called %q, so this line matches no request: there are %s", finding.Shorten(text), list)
			}
		}
	case l.check.opts.Downloads != nil:
		l.lintDomainPatterns(names)
	case lines >= 0:
		of = "domain of a p line"
		seen := make([]bool, l.table.Symbols.Len())
		for _, s := range l.table.Rows.Cols[lines] {
			if slices.Contains(l.shape.Spared[lines], l.table.Symbols.Text(s)) {
				return // such a line is of any domain
			}
			if !seen[s] {
				seen[s] = true
				names = append(names, l.table.Symbols.Text(s))
			}
		}
		known = func(s table.Symbol) bool { return seen[s] }
	}
	for _, kind := range slices.Sorted(maps.Keys(l.model.Roles)) {
		if names != nil && l.linksHaveDomains(kind) {
			l.lintLinkDomains(l.table.Edges[kind], of, names, known)
		}
	}
}

// lintDomainPatterns looks for p lines whose domain matches no download, where a
// column is compared to the request's by a pattern function.
func (l *linter) lintDomainPatterns(names []string) {
	col, compares := -1, []pattern.Func(nil)
	for _, a := range l.model.Atoms {
		switch {
		case !a.Asks("dom") || a.Kind == model.Role && a.Domain == model.DomainRequest || a.Kind == model.RequestOnly:
		case a.Kind != model.Equal && a.Kind != model.Pattern || col >= 0 && col != a.Policy:
			return
		default:
			col, compares = a.Policy, append(compares, a.Func)
		}
	}
	conjunctions, ok := l.model.Root.Conjunctions(false)
	if col < 0 || !ok || slices.ContainsFunc(slices.Concat(conjunctions...), func(lit model.Literal) bool { return lit.Negated && lit.Asks("dom") }) {
		return
	}
	unmet := map[table.Symbol]bool{}
	for row, s := range l.table.Rows.Cols[col] {
		text := l.table.Symbols.Text(s)
		none, known := unmet[s]
		if !known {
			none = !slices.Contains(l.shape.Spared[col], text) && !slices.ContainsFunc(names, func(name string) bool {
				return slices.ContainsFunc(compares, func(f pattern.Func) bool {
					matches, err := f.Match(name, text)
					return matches || err != nil // which is told of
				})
			})
			unmet[s] = none
		}
		if none {
			l.warn(l.table.Rows.Lines[row], col+1, "domain", "%q matches the name of no download, so this line matches no request: there are %s", finding.Shorten(text), strings.Join(names, ", "))
		}
	}
}

// lintLinkDomains looks at the domains of g lines.
func (l *linter) lintLinkDomains(edges []table.Edge, of string, names []string, known func(table.Symbol) bool) {
	for _, edge := range edges {
		if known(edge.Domain) {
			continue
		}
		why := fmt.Sprintf("there are %s", finding.Shorten(strings.Join(names, ", ")))
		switch text := l.table.Symbols.Text(edge.Domain); {
		case text == "*":
			why = "* is a name like any other, for domains are no patterns: write a line for each, of " + finding.Shorten(strings.Join(names, ", "))
		case text[0] == '/':
			why = "a domain stands there and no path, " + why
		}
		l.warn(edge.Line, 3, "domain", "no %s is called %q, so this line grants nothing: %s", of, finding.Shorten(l.table.Symbols.Text(edge.Domain)), why)
	}
}

// domainColumn returns the only column that is compared to the request's domain,
// or -1. It is compared by == alone, but for values that are spared.
func (l *linter) domainColumn() int {
	if l.shape.Domain >= 0 {
		return l.shape.Domain
	}
	col := -1
	for _, a := range l.model.Atoms {
		switch {
		case !a.Asks("dom") || a.Kind == model.Role || a.Kind == model.RequestOnly:
		case a.Kind != model.Equal || col >= 0 && col != a.Policy || len(l.shape.Spared[a.Policy]) == 0:
			return -1
		default:
			col = a.Policy
		}
	}
	return col
}

// linksHaveDomains reports whether the domain of a kind of g line is that of the
// request, to the letter: g(r.sub, p.sub, r.dom), or p.dom where that is compared
// to it.
func (l *linter) linksHaveDomains(kind string) bool {
	if slices.ContainsFunc(l.model.Atoms, func(a *model.Atom) bool { return a.Kind == model.Pattern && l.model.Request[a.Request] == "dom" }) {
		return false // Casbin may match those of g lines so too
	}
	asked := false
	for _, c := range l.model.RoleCalls(&l.model.Root.Part) {
		if c.Kind != kind {
			continue
		}
		if c.Domain == nil || c.Domain.Request != "dom" && (c.Domain.Column < 0 || c.Domain.Column != l.shape.Domain) {
			return false
		}
		asked = true
	}
	return asked
}
