package pattern

import (
	"regexp"
	"strings"

	"securefiles/policy/internal/finding"
)

var (
	anyClass = regexp.MustCompile(`(?:^|[^\\])\[([A-Za-z0-9 _.,]+)\]($|[^*+?{])`)
	year     = regexp.MustCompile(`^(19|20)[0-9][0-9]$`)
)

// wordClassProblem looks for a class of characters that is a word in brackets:
// `salaries [2024].xlsx`. A character that stands there twice says so for certain.
func wordClassProblem(function, pattern string) (Problem, bool) {
	if !strings.Contains(pattern, "[") {
		return Problem{}, false
	}
	const message = `%s reads [%s] as one of these characters, so the pattern does not cover a name with these brackets: write \[ and \]`
	for _, m := range anyClass.FindAllStringSubmatchIndex(pattern, -1) {
		word := pattern[m[2]:m[3]]
		begins := strings.IndexByte(pattern[m[0]:m[2]], '[') + m[0]
		apart := begins > 0 && strings.IndexByte(" _-.", pattern[begins-1]) >= 0
		switch {
		case repeats(word):
			return tooNarrow("pattern-brackets", message, function, finding.Shorten(word)), true
		case year.MatchString(word), apart && len(word) > 3:
			return unusual("pattern-brackets", message, function, finding.Shorten(word)), true
		}
	}
	return Problem{}, false
}

// repeats reports whether a character stands in a word twice.
func repeats(word string) bool {
	for i := range len(word) {
		if strings.IndexByte(word[i+1:], word[i]) >= 0 {
			return true
		}
	}
	return false
}

var (
	colonSegment = regexp.MustCompile(`^:[A-Za-z_][A-Za-z0-9_]*$`)
	braceSegment = regexp.MustCompile(`\{[A-Za-z_][A-Za-z0-9_]*\}`)
	angleSegment = regexp.MustCompile(`<([a-z]+:)?[A-Za-z_][A-Za-z0-9_]*>`)
)

const quoteMarks = "“”„‟«»"

// languageProblems looks for what means something to another function than the
// model's.
func (f Func) languageProblems(pattern string, warnings bool) []Problem {
	if !strings.ContainsAny(pattern, `:{<|%$*+`+quoteMarks) {
		return nil
	}
	name := f.String()
	regular := f == regexMatch
	plain := f == equal || f == keyMatch || f == globMatch // none of them makes a regular expression
	write := map[Func]string{globMatch: "*", keyMatch2: ":name", keyMatch3: "{name}", keyMatch4: "{name}", keyMatch5: "{name}", regexMatch: "[^/]+"}[f]
	instead, all := "write the paths one by one", "*"
	if write != "" {
		instead = "write " + write
	}
	if f == globMatch {
		all = "**"
	}
	tell := func(problem func(rule, format string, args ...any) Problem, what, where, instead string) []Problem {
		if p := problem("pattern-language", "%s means something to %s, and %s reads it as it stands: %s", what, where, name, instead); warnings || p.Deny == finding.SeverityError {
			return []Problem{p}
		}
		return nil
	}
	if i := strings.IndexAny(pattern, quoteMarks); i >= 0 && warnings {
		return []Problem{unusual("pattern-language", "typographic quotes are part of the path: write none, or double quotes (\")")}
	}
	if plain && strings.Contains(pattern, "|") {
		if f == globMatch {
			return tell(tooNarrow, "|", "regular expressions", "write {a,b}, or two lines")
		}
		return tell(tooNarrow, "|", "regular expressions", "write two lines")
	}
	if f == equal && strings.Contains(pattern, "*") && !strings.Contains(pattern, "/.*") {
		return tell(unusual, "*", "pattern functions", "use globMatch in the model")
	}
	before := ""
	for i, segment := range strings.Split(pattern, "/") {
		switch {
		case f != keyMatch2 && colonSegment.MatchString(segment):
			return tell(tooNarrow, finding.Shorten(segment), "keyMatch2", instead)
		case (plain || regular) && nameInBraces(segment) != "":
			return tell(tooNarrow, finding.Shorten(nameInBraces(segment)), "keyMatch3", instead)
		case angleSegment.MatchString(segment) && !(regular && strings.Contains(segment, "(?")):
			return tell(tooNarrow, finding.Shorten(angleSegment.FindString(segment)), "other routers", instead)
		case segment == "%":
			return tell(unusual, "%", "SQL", "write a pattern of "+name)
		case plain && segment == ".*" && i > 1 && before != "**" && before != "*":
			return tell(unusual, ".*", "regular expressions", "write "+all+" for all that is below")
		case plain && (segment == "(.*)" || segment == "(.+)"):
			if strings.HasSuffix(pattern, segment) {
				instead = "write " + all + " for all that is below"
			}
			return tell(tooNarrow, segment, "regular expressions", instead)
		case plain && (strings.Contains(segment, "]+") || strings.HasSuffix(segment, ".+")):
			return tell(unusual, "+", "regular expressions", instead)
		}
		before = segment
	}
	if plain && strings.HasSuffix(pattern, "$") {
		return tell(unusual, "$ at the end", "regular expressions", "leave it out")
	}
	return nil
}

// nameInBraces returns a name in braces, if a segment has one. Another rule tells of
// those that are meant for the subject.
func nameInBraces(segment string) string {
	switch name := braceSegment.FindString(segment); name {
	case "{sub}", "{subject}", "{user}", "{username}", "{group}":
		return ""
	default:
		return name
	}
}
