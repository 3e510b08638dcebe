package pattern

import (
	"fmt"
	"regexp"
	"regexp/syntax"
	"strings"
	"unicode"
	"unicode/utf8"

	"securefiles/policy/internal/finding"
)

// A Problem is what is wrong with a pattern of an object. Where it makes
// a line allow more, or deny less, than it seems to, it is an error.
type Problem struct {
	Rule, Message string
	Allow, Deny   finding.Severity // in a line that allows, or denies
}

// Severities of a pattern that covers less than it seems to, more, or either.
func tooNarrow(rule, format string, args ...any) Problem {
	return Problem{rule, fmt.Sprintf(format, args...), finding.SeverityWarning, finding.SeverityError}
}

func tooWide(rule, format string, args ...any) Problem {
	return Problem{rule, fmt.Sprintf(format, args...), finding.SeverityError, finding.SeverityWarning}
}

func unusual(rule, format string, args ...any) Problem {
	return Problem{rule, fmt.Sprintf(format, args...), finding.SeverityWarning, finding.SeverityWarning}
}

// isPlainPath reports whether a pattern is a path without anything that a
// pattern function or pathguard could mind, perhaps with /* or /** at its end.
// Most are, and a million must not take long. Where dots are fine, a function
// that takes them for any character may have them too.
func isPlainPath(function, pattern string, dots bool) bool {
	text := pattern
	switch function {
	case "globMatch":
		if text = strings.TrimSuffix(text, "/**"); len(text) == len(pattern) {
			text = strings.TrimSuffix(text, "/*")
		}
	case "keyMatch", "keyMatch2", "keyMatch3", "keyMatch4", "keyMatch5":
		text = strings.TrimSuffix(text, "/*")
	case "==":
	default:
		return false
	}
	if text == "" && len(pattern) < 2 || len(text) > maxObject {
		return false
	}
	dots = dots || function == "==" || function == "globMatch" || function == "keyMatch"
	slash := -1 // where the last one is
	for i := range len(text) {
		switch c := text[i]; {
		case c == '/':
			if i > 0 && slash == i-1 {
				return false
			}
			slash = i
		case i == 0 || i-slash > maxName:
			return false
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '_':
		case c == '.' && dots && slash < i-1:
		case c == ':' && function == "keyMatch2" && slash == i-1:
			dots = false // one would belong to the name
		default:
			return false
		}
	}
	return text == "" || slash < len(text)-1
}

// Limits of a path and of a segment, in bytes: pathguard's.
const (
	maxObject = 4096
	maxName   = 255
)

// Problems says what is wrong with a pattern of an object as a function
// reads it; all includes what is never an error. The function is one of Casbin's,
// or "==". The pattern compiles.
func Problems(function, pattern string, all bool) []Problem {
	if isPlainPath(function, pattern, !all) {
		return nil
	}
	return lookAtPattern(function, pattern, all)
}

// lookAtPattern is patternProblems for a pattern that is no plain path.
func lookAtPattern(function, pattern string, all bool) []Problem {
	var found []Problem
	add := func(p Problem) { found = append(found, p) }
	if why := unmatchable(function, pattern); why != "" {
		add(tooNarrow("pattern-unmatchable", "no request has such a path: %s", why))
	}
	if all && strings.Contains(pattern, "%") && percentEscape.MatchString(pattern) && function != "regexMatch" {
		add(unusual("pattern-encoded", "policies see decoded paths, so %q stands for these three characters and not for what they encode: write the character itself", percentEscape.FindString(pattern)))
	}
	if all && strings.Contains(pattern, "?") && query.MatchString(pattern) {
		add(unusual("pattern-encoded", "policies see the path without its query: leave out %q", finding.Shorten(query.FindString(pattern))))
	}
	switch function {
	case "keyMatch":
		star := strings.IndexByte(pattern, '*')
		if star >= 0 && strings.Trim(pattern[star:], "*") != "" {
			add(tooWide("pattern-rest", "keyMatch takes everything after the first * for covered, so %q counts for nothing: end the pattern with the *, or use globMatch in the model", finding.Shorten(pattern[star+1:])))
		}
		if star > 0 && pattern[star-1] != '/' {
			add(unusual("pattern-prefix", "the * also covers what goes on after the name, such as %q: write %q for what is below it", finding.Shorten(pattern[:star]+"x/y"), finding.Shorten(pattern[:star]+"/*")))
		}
	case "keyMatch2", "keyMatch3", "keyMatch4", "keyMatch5":
		found = append(found, keyProblems(function, pattern, all)...)
	case "globMatch":
		found = append(found, globProblems(pattern)...)
	case "regexMatch":
		if all {
			found = append(found, regexProblems(pattern)...)
		}
	}
	return found
}

var (
	percentEscape = regexp.MustCompile(`%[0-9A-Fa-f]{2}`)
	query         = regexp.MustCompile(`\?[A-Za-z0-9_]+=.*`)
	// plainGroup is a group that a regular expression could do without,
	// plainClass a class of one letter or digit: both stand in file names.
	plainGroup = regexp.MustCompile(`(^|[^\\])\([A-Za-z0-9 ,_-]+\)($|[^*+?{])`)
	plainClass = regexp.MustCompile(`(^|[^\\])\[[A-Za-z0-9 ]\]($|[^*+?{])`)
	// letterStar is a letter that may stand there any number of times.
	letterStar = regexp.MustCompile(`[A-Za-z0-9_-]\*`)
	// plainEscape is an escape of what means itself.
	plainEscape = regexp.MustCompile(`(^|[^\\])(\\\\)*\\[A-Za-z0-9]`)
	plainDot    = regexp.MustCompile(`[A-Za-z0-9_-]\.[A-Za-z0-9_-]`)
)

// keyProblems are those of keyMatch2, keyMatch3, keyMatch4 and keyMatch5, which
// make a regular expression of a pattern without escaping it.
func keyProblems(function, pattern string, all bool) []Problem {
	var found []Problem
	add := func(p Problem) { found = append(found, p) }
	text, rest := withoutNames(function, pattern)
	if rest != "" {
		add(tooWide("pattern-rest", "%s reads all of %q as one name, which covers the whole of a directory or file name", function, finding.Shorten(rest)))
	}
	if !strings.ContainsAny(text, `|()[]*+?^$\{}:`) {
		if all && wildDot(text) >= 0 {
			add(unusual("pattern-dot", `%s reads . as any character: write \. to mean a dot`, function))
		}
		return found
	}
	brackets := false
	if i := alternation(text); i >= 0 {
		p := tooWide("pattern-alternative", "%s reads it as the two halves around |, the first covering all that begins with it and the second all that ends with it: write two lines", function)
		p.Deny = finding.SeverityError
		add(p)
	}
	if m := plainGroup.FindString(text); m != "" {
		brackets = true
		add(tooNarrow("pattern-brackets", `%s reads (…) as a group, so the pattern does not cover a name with these brackets: write \( and \)`, function))
	}
	if m := plainClass.FindString(text); m != "" {
		brackets = true
		add(tooNarrow("pattern-brackets", `%s reads [ ] as one of the characters inside, so the pattern does not cover a name with these brackets: write \[ and \]`, function))
	}
	if m := letterStar.FindString(text); m != "" {
		add(tooNarrow("pattern-star", "%s reads %q as any number of %q: only /* stands for everything below", function, m, m[:1]))
	}
	if i := metacharacter(function, text, brackets); i >= 0 {
		c := text[i : i+1]
		escaped := `\` + c
		if strings.Contains(":{}", c) { // an escape would not keep it from being a name
			escaped = fmt.Sprintf(`\x%x`, c)
		}
		add(unusual("pattern-metacharacter", `%s reads %q as part of a pattern: write %s to mean the character`, function, c, escaped))
	}
	if i := wildDot(text); i >= 0 {
		add(unusual("pattern-dot", `%s reads . as any character: write \. to mean a dot`, function))
	}
	return found
}

// withoutNames puts an underscore in the place of each name and of each /*. The
// rest is a name that goes further than it seems to; empty where none does.
func withoutNames(function, pattern string) (text, rest string) {
	var b strings.Builder
	for i := 0; i < len(pattern); i++ {
		segment := pattern[i:]
		if n := strings.IndexByte(segment, '/'); n > 0 {
			segment = segment[:n]
		}
		length := 0
		switch {
		case i > 0 && pattern[i-1] == '/' && segment[0] == '*':
			length = 1
		case function == "keyMatch2" && segment[0] == ':' && i > 0 && pattern[i-1] == '/' && len(segment) > 1:
			length = len(segment)
			if strings.Trim(segment[1:], "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-") != "" {
				rest = segment
			}
		case function != "keyMatch2" && segment[0] == '{':
			if n := strings.LastIndexByte(segment, '}'); n > 1 {
				length = n + 1
				if strings.IndexByte(segment[:n], '}') >= 0 {
					rest = segment[:length]
				}
			}
		}
		if length == 0 {
			b.WriteByte(pattern[i])
			continue
		}
		b.WriteByte('_')
		i += length - 1
	}
	return b.String(), rest
}

// alternation returns where a | stands outside brackets, or -1.
func alternation(pattern string) int {
	depth, class := 0, false
	for i := 0; i < len(pattern); i++ {
		switch c := pattern[i]; {
		case c == '\\':
			i++
		case class:
			class = c != ']'
		case c == '[':
			class = true
		case c == '(':
			depth++
		case c == ')':
			depth--
		case c == '|' && depth == 0:
			return i
		}
	}
	return -1
}

// metacharacter returns where one stands that no other rule tells of, or -1.
func metacharacter(function, pattern string, brackets bool) int {
	for i := 0; i < len(pattern); i++ {
		switch c := pattern[i]; c {
		case '\\':
			i++
		case '(', ')', '[', ']':
			if !brackets {
				return i
			}
		case '+', '?', '^', '$', '{', '}':
			return i
		case ':':
			if function == "keyMatch2" && i+1 < len(pattern) && pattern[i+1] != '/' { // in the middle of a segment
				return i
			}
		}
	}
	return -1
}

// wildDot returns where a dot stands that is neither escaped nor repeated, or
// -1.
func wildDot(pattern string) int {
	class := false
	for i := 0; i < len(pattern); i++ {
		switch c := pattern[i]; {
		case c == '\\':
			i++
		case class:
			class = c != ']'
		case c == '[':
			class = true
		case c == '.' && (i+1 == len(pattern) || strings.IndexByte("*+?{", pattern[i+1]) < 0):
			return i
		}
	}
	return -1
}

func globProblems(pattern string) []Problem {
	var found []Problem
	if strings.Contains(pattern, `\`) && plainEscape.MatchString(pattern) {
		found = append(found, tooNarrow("pattern-backslash", `globMatch passes over a \ before a letter, and no path has one: separate directories by /`))
	}
	if strings.ContainsRune(pattern, '{') {
		return found // alternatives may hold anything
	}
	if strings.Contains(pattern, "[") && plainClass.MatchString(pattern) {
		found = append(found, tooNarrow("pattern-brackets", `globMatch reads [ ] as one of the characters inside, so the pattern does not cover a name with these brackets: write \[ and \]`))
	}
	if strings.Count(pattern, "**") == 0 {
		return found
	}
	for segment := range strings.SplitSeq(pattern, "/") {
		if i := strings.Index(segment, "**"); i >= 0 && strings.Trim(segment, "*") != "" && !strings.ContainsAny(segment, `\[`) {
			found = append(found, tooNarrow("pattern-double-star", "** is any depth only between slashes, in %q it stays on one level: write **/%s", finding.Shorten(segment), finding.Quoted(strings.ReplaceAll(segment, "**", "*"))))
			break
		}
	}
	return found
}

func regexProblems(pattern string) []Problem {
	var found []Problem
	re, err := syntax.Parse(pattern, syntax.Perl)
	if err != nil {
		return nil // it is refused elsewhere
	}
	switch {
	case !anchored(re, true):
		found = append(found, unusual("regex-unanchored", "matches anywhere in a path, for it does not begin with ^ in each of its branches: begin it with ^"))
	case !anchored(re, false) && !openEnd(pattern):
		found = append(found, unusual("regex-unanchored", "covers all that goes on after it: end it with $, or with / or .* to mean that"))
	}
	if plainDot.MatchString(pattern) && !strings.ContainsAny(pattern, "[") {
		found = append(found, unusual("pattern-dot", `regexMatch reads . as any character: write \. to mean a dot`))
	}
	return found
}

// anchored reports whether every text that an expression matches begins at the
// beginning of a path, or ends at its end.
func anchored(re *syntax.Regexp, begin bool) bool {
	switch re.Op {
	case syntax.OpBeginText:
		return begin
	case syntax.OpEndText:
		return !begin
	case syntax.OpCapture:
		return anchored(re.Sub[0], begin)
	case syntax.OpConcat:
		i := 0
		if !begin {
			i = len(re.Sub) - 1
		}
		return anchored(re.Sub[i], begin)
	case syntax.OpAlternate:
		for _, sub := range re.Sub {
			if !anchored(sub, begin) {
				return false
			}
		}
		return true
	}
	return false
}

// openEnd reports whether an expression says by its end that it goes on.
func openEnd(pattern string) bool {
	return strings.HasSuffix(pattern, "/") || strings.HasSuffix(pattern, ".*") || strings.HasSuffix(pattern, ".*)")
}

// unmatchable says why no canonical path can match a pattern, or returns "".
// Doubt counts as can.
func unmatchable(function, pattern string) string {
	if function == "globMatch" {
		return unmatchableGlob(pattern)
	}
	prefix, whole := LiteralPrefix(function, pattern)
	if prefix == "" {
		return ""
	}
	if prefix[0] != '/' {
		return "every path begins with a slash"
	}
	if len(prefix) > maxObject {
		return "a path has at most 4,096 bytes"
	}
	segments := strings.Split(prefix[1:], "/")
	for i, segment := range segments {
		last := i == len(segments)-1
		if why := badSegment(segment, last, !last || whole); why != "" {
			return why
		}
	}
	return ""
}

// badSegment says why no path has a segment. One that is not complete may go
// on; last is the path's last.
func badSegment(segment string, last, complete bool) string {
	switch {
	case complete && segment == "" && last:
		return "no path ends with a slash"
	case complete && segment == "":
		return "no path has // inside"
	case complete && (segment == "." || segment == ".."):
		return "no path has a segment . or .."
	case len(segment) > maxName:
		return "a segment has at most 255 bytes"
	case strings.IndexByte(segment, '\\') >= 0:
		return "no path has a backslash"
	case strings.IndexFunc(segment, unicode.IsControl) >= 0:
		return "no path has a control character, such as a tab"
	case segment != strings.TrimLeftFunc(segment, unicode.IsSpace):
		return "no segment begins with a blank"
	case complete && segment != strings.TrimRightFunc(segment, unicode.IsSpace):
		return "no segment ends with a blank"
	}
	return ""
}

// LiteralPrefix returns a text with which every path that matches begins, and
// whether it is the only path that matches.
func LiteralPrefix(function, pattern string) (prefix string, whole bool) {
	switch function {
	case "==":
		return pattern, true
	case "keyMatch":
		if i := strings.IndexByte(pattern, '*'); i >= 0 {
			return pattern[:i], false
		}
		return pattern, true
	case "globMatch":
		if i := strings.IndexAny(pattern, `*?[{\`); i >= 0 {
			prefix = pattern[:i]
			if pattern[i] == '{' || strings.HasPrefix(pattern[i:], "**") {
				prefix = strings.TrimSuffix(prefix, "/") // /a/** covers /a
			}
			return prefix, false
		}
		return pattern, true
	case "regexMatch":
		text, ok := strings.CutPrefix(pattern, "^")
		if !ok {
			return "", false
		}
		prefix, _ = regexPrefix(text, "")
		return prefix, false
	case "keyMatch2":
		return regexPrefix(pattern, ":")
	case "keyMatch3", "keyMatch4", "keyMatch5":
		prefix, whole = regexPrefix(pattern, "{")
		// keyMatch5 passes over what follows a question mark in the path.
		return prefix, whole && function != "keyMatch5"
	}
	return "", false
}

// regexPrefix returns the literal beginning of a regular expression; name is
// with what keyMatch2 to keyMatch5 begin a name, and empty for regexMatch.
func regexPrefix(pattern, name string) (string, bool) {
	if strings.IndexByte(pattern, '|') >= 0 || strings.ContainsRune(pattern, unicode.ReplacementChar) {
		return "", false
	}
	i := strings.IndexAny(pattern, `\.+*?()[]{}^$`+name)
	if i < 0 {
		return pattern, true
	}
	prefix := pattern[:i]
	if c := pattern[i]; prefix != "" && (c == '?' || c == '+' || c == '{' && name != "{" || c == '*' && (name == "" || prefix[i-1] != '/')) {
		// The last character may be missing, or be there more than once.
		// keyMatch2 to keyMatch5 make another pattern of /*.
		_, size := utf8.DecodeLastRuneInString(prefix)
		prefix = prefix[:len(prefix)-size]
	}
	return prefix, false
}

// unmatchableGlob is unmatchable for globMatch: it looks at each segment as far
// as no class, no alternative and no escape comes.
func unmatchableGlob(pattern string) string {
	if i := strings.Index(pattern, `\\`); i >= 0 && !strings.ContainsAny(pattern[:i], `[{\`) {
		return "no path has a backslash"
	}
	segments := strings.Split(pattern, "/")
	if i := strings.IndexAny(pattern, `[{\`); i >= 0 {
		segments = strings.Split(pattern[:i], "/")
		segments = segments[:len(segments)-1]
	}
	if len(segments) == 0 {
		return ""
	}
	if strings.Trim(segments[0], "*") != "" || segments[0] == "" && pattern == "" {
		return "every path begins with a slash"
	}
	if len(segments) == 1 && pattern == segments[0] && pattern != "**" {
		return "every path begins with a slash, which * does not cover"
	}
	whole := len(segments) == strings.Count(pattern, "/")+1
	for i, segment := range segments[1:] {
		if segments[i] == "**" && segment == "" {
			return "" // ** takes such a slash in
		}
		last := whole && i == len(segments)-2
		if why := badGlobSegment(segment, last); why != "" {
			return why
		}
	}
	return ""
}

func badGlobSegment(segment string, last bool) string {
	star := strings.IndexAny(segment, "*?")
	if star < 0 {
		return badSegment(segment, last, true)
	}
	if why := badSegment(segment[:star], last, false); why != "" {
		return why
	}
	rest := segment[strings.LastIndexAny(segment, "*?")+1:]
	if rest != strings.TrimRightFunc(rest, unicode.IsSpace) {
		return "no segment ends with a blank"
	}
	return ""
}

// CoversEverything reports whether a pattern covers every path.
func CoversEverything(function, pattern string) bool {
	switch function {
	case "globMatch":
		return pattern == "/**" || pattern == "**"
	case "keyMatch":
		return pattern == "*" || strings.HasPrefix(pattern, "/*")
	case "keyMatch2", "keyMatch3", "keyMatch4", "keyMatch5":
		return pattern == "/*" || pattern == "/.*" || pattern == ".*"
	case "regexMatch":
		switch strings.TrimSuffix(strings.TrimPrefix(pattern, "^"), "$") {
		case ".*", "/.*", ".+", "/.+":
			return true
		}
		return pattern == "" || pattern == "/" || pattern == "^/"
	}
	return false
}
