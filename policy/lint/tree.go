package lint

import (
	"strings"

	"securefiles/policy/internal/finding"
)

// lintTree looks for a path that begins with what stands before the paths of a
// policy: the URL of a download, its internal location, or its directory.
func (l *linter) lintTree(row, col int, text string) {
	for _, d := range l.check.opts.Downloads {
		for _, t := range []struct{ prefix, what string }{
			{d.URL, "the url"}, {d.Internal, "the internal location"}, {l.check.opts.Roots[d.Name], "the root"},
		} {
			dir := strings.TrimSuffix(t.prefix, "/")
			if rest, ok := strings.CutPrefix(text, dir); dir == "" || !ok || rest != "" && rest[0] != '/' {
				continue
			}
			l.warn(l.table.Rows.Lines[row], col+1, "pattern-download", "%s %q begins with %s, %s of the download %s, and paths of a policy begin below it: leave %s out",
				l.model.Policy[col], finding.Shorten(text), t.prefix, t.what, d.Name, dir)
			return
		}
	}
}
