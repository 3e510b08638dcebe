package pattern

import "strings"

// maxSamples bounds the paths that are made from one pattern.
const maxSamples = 24

// IsPath reports whether a text looks like a path that the service lets reach
// the policy.
func IsPath(p string) bool {
	if len(p) < 2 || p[0] != '/' || strings.ContainsFunc(p, func(r rune) bool { return r < ' ' || r == 0x7f || r == '\\' }) {
		return false
	}
	for segment := range strings.SplitSeq(p[1:], "/") {
		if segment == "" || segment == "." || segment == ".." {
			return false
		}
	}
	return true
}
