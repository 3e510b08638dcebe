package pattern

import (
	"regexp/syntax"
	"slices"
	"strings"
)

// maxSamples bounds the paths that are made from one pattern.
const maxSamples = 24

// Samples returns paths that a pattern may match, some of each kind that it
// tells apart: with no level in place of **, with one, with two. Not each need
// match, and nothing promises that all kinds are there.
func Samples(function, pattern string) []string {
	var paths []string
	switch function {
	case "==":
		paths = []string{pattern}
	case "keyMatch":
		before, _, star := strings.Cut(pattern, "*")
		paths = []string{before}
		if star {
			paths = []string{before + "x", before + "x/y", strings.TrimSuffix(before, "/")}
		}
	case "keyMatch2":
		paths = sampleKeys(keyMatch2Name.ReplaceAllString(pattern, "x"))
	case "keyMatch3", "keyMatch4", "keyMatch5":
		paths = sampleKeys(keyMatch3Name.ReplaceAllString(pattern, "x"))
	case "globMatch":
		paths = sampleGlob(pattern)
	case "regexMatch":
		paths = sampleRegexp(pattern)
	}
	var out []string
	for _, p := range paths {
		if IsPath(p) && !slices.Contains(out, p) && len(out) < maxSamples {
			out = append(out, p)
		}
	}
	return out
}

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

// sampleKeys fills in /*, which stands for any depth.
func sampleKeys(pattern string) []string {
	if !strings.Contains(pattern, "*") {
		return []string{pattern}
	}
	return []string{strings.ReplaceAll(pattern, "*", "x"), strings.ReplaceAll(pattern, "*", "x/y"), strings.ReplaceAll(pattern, "/*", "")}
}

// sampleGlob fills in a pattern of globMatch.
func sampleGlob(pattern string) []string {
	out := []string{""}
	add := func(texts ...string) {
		var next []string
		for _, o := range out {
			for _, t := range texts {
				if len(next) < maxSamples {
					next = append(next, o+t)
				}
			}
		}
		out = next
	}
	for i := 0; i < len(pattern); i++ {
		switch c := pattern[i]; {
		case c == '\\' && i+1 < len(pattern):
			i++
			add(pattern[i : i+1])
		case strings.HasPrefix(pattern[i:], "/**/"): // no level at all, too
			add("/", "/x/", "/x/y/")
			i += len("/**/") - 1
		case pattern[i:] == "/**":
			add("/x", "/x/y", "")
			i = len(pattern)
		case strings.HasPrefix(pattern[i:], "**"):
			add("x")
			i++
		case c == '*' || c == '?':
			add("x")
		case c == '[':
			end := i + 1
			for end < len(pattern) && pattern[end] != ']' {
				if pattern[end] == '\\' {
					end++
				}
				end++
			}
			texts := []string{"x", "0", "_"}
			for _, first := range strings.TrimLeft(pattern[i+1:min(end, len(pattern))], `^!\`) {
				texts = append([]string{string(first)}, texts...)
				break
			}
			add(texts...)
			i = end
		case c == '{':
			end, alternatives := braces(pattern, i)
			var texts []string
			for _, a := range alternatives {
				texts = append(texts, sampleGlob(a)...)
			}
			add(texts...)
			i = end
		default:
			add(pattern[i : i+1])
		}
	}
	return out
}

// braces returns where the braces that begin at i end, and what they hold.
func braces(pattern string, i int) (end int, alternatives []string) {
	depth, start := 0, i+1
	for j := i; j < len(pattern); j++ {
		switch pattern[j] {
		case '\\':
			j++
		case '{':
			depth++
		case ',':
			if depth == 1 {
				alternatives, start = append(alternatives, pattern[start:j]), j+1
			}
		case '}':
			if depth--; depth == 0 {
				return j, append(alternatives, pattern[start:j])
			}
		}
	}
	return len(pattern), append(alternatives, pattern[start:])
}

// sampleRegexp fills in a regular expression, which may match anywhere in a
// path.
func sampleRegexp(pattern string) []string {
	parsed, err := syntax.Parse(pattern, syntax.Perl)
	if err != nil {
		return nil
	}
	var out []string
	for _, s := range sampleSyntax(parsed.Simplify()) {
		out = append(out, s, strings.TrimSuffix(s, "/")+"/x", "/"+s, "/x/"+s, "/x"+s)
	}
	return out
}

func sampleSyntax(re *syntax.Regexp) []string {
	switch re.Op {
	case syntax.OpLiteral:
		return []string{string(re.Rune)}
	case syntax.OpCharClass:
		var out []string
		for i := 0; i+1 < len(re.Rune) && len(out) < 3; i += 2 { // some of a few, one of a range
			for r := re.Rune[i]; r <= min(re.Rune[i+1], re.Rune[i]+2); r++ {
				if re.Rune[i] <= 'x' && 'x' <= re.Rune[i+1] {
					r = 'x'
				}
				out = append(out, string(r))
			}
		}
		return out
	case syntax.OpAnyChar, syntax.OpAnyCharNotNL:
		return []string{"x"}
	case syntax.OpCapture, syntax.OpPlus:
		return sampleSyntax(re.Sub[0])
	case syntax.OpStar, syntax.OpQuest:
		return append(sampleSyntax(re.Sub[0]), "")
	case syntax.OpRepeat:
		var out []string
		for _, s := range sampleSyntax(re.Sub[0]) {
			out = append(out, strings.Repeat(s, max(1, re.Min)))
		}
		return out
	case syntax.OpAlternate:
		var out []string
		for _, sub := range re.Sub {
			out = append(out, sampleSyntax(sub)...)
		}
		return out[:min(len(out), maxSamples)]
	case syntax.OpConcat:
		out := []string{""}
		for _, sub := range re.Sub {
			var next []string
			for _, o := range out {
				for _, s := range sampleSyntax(sub) {
					if len(next) < maxSamples {
						next = append(next, o+s)
					}
				}
			}
			out = next
		}
		return out
	}
	return []string{""} // anchors, and what matches nothing
}
