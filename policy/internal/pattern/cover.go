package pattern

import (
	"strings"

	"github.com/casbin/casbin/v2/util"
)

// Covers reports whether every path that a pattern b matches is matched by a
// pattern a. It may say no where the answer is yes.
func Covers(function, a, b string) bool {
	if a == b {
		return true
	}
	prefix, whole := LiteralPrefix(function, b)
	switch function {
	case "globMatch":
		if dir, ok := strings.CutSuffix(a, "/**"); ok && !strings.ContainsAny(dir, `*?[{\`) {
			return strings.HasPrefix(prefix, dir+"/") || b == dir || dir == "" && strings.HasPrefix(b, "/")
		}
		if dir, ok := strings.CutSuffix(a, "/*"); ok && !strings.ContainsAny(dir, `*?[{\`) {
			name, ok := strings.CutPrefix(b, dir+"/")
			return ok && name != "" && !strings.ContainsAny(name, `/[{\`) && !strings.Contains(name, "**")
		}
		if whole && checkGlob(a) == nil {
			ok, err := util.GlobMatch(b, a)
			return ok && err == nil
		}
	case "keyMatch":
		if i := strings.IndexByte(a, '*'); i >= 0 {
			return strings.HasPrefix(prefix, a[:i])
		}
	case "keyMatch2", "keyMatch3", "keyMatch4", "keyMatch5":
		if dir, ok := strings.CutSuffix(a, "/*"); ok && isPlainKey(dir) {
			return strings.HasPrefix(prefix, dir+"/")
		}
		if whole && isPlainKey(b) {
			return matchKey(function, b, a)
		}
	}
	return false
}

// matchKey asks Casbin's function; one that panics covers nothing.
func matchKey(function, path, pattern string) (ok bool) {
	defer func() { _ = recover() }()
	switch function {
	case "keyMatch2":
		return util.KeyMatch2(path, pattern)
	case "keyMatch3":
		return util.KeyMatch3(path, pattern)
	case "keyMatch4":
		return util.KeyMatch4(path, pattern)
	case "keyMatch5":
		return util.KeyMatch5(path, pattern)
	}
	return false
}
