package pattern

import (
	"fmt"
	"regexp"
	"strings"

	"securefiles/policy/internal/finding"
)

// How other programs write the user and the group of a request.
var (
	dollarName = regexp.MustCompile(`(?i)\$[({]?(remote_user|user_?name|user_?id|user|uid|subject|sub|groups?|teams?|tenant)([)}]|[^a-z0-9]|$)`)
	wholeName  = regexp.MustCompile(`(?i)^(~|%[usgn]|%?[{<(%](\.|r\.)?(remote_user|user_?name|user_?id|user|uid|subject|sub|groups?)[}>)%][s]?|\{\{.*\}\})$`)
	nameWord   = regexp.MustCompile(`(?i)^[:{](user_?name|user_?id|user|uid|subject|sub|groups?)\}?$`)
	groupWord  = regexp.MustCompile(`(?i)group|team|tenant|%g`)
)

// variable finds a segment that is meant for a name and stands for none.
func (f Func) variable(pattern string) (Problem, bool) {
	if !strings.ContainsAny(pattern, "$%~{<(:") {
		return Problem{}, false
	}
	for segment := range strings.SplitSeq(f.named(pattern), "/") {
		meant := ""
		if at := dollarName.FindStringIndex(segment); at != nil && (at[0] == 0 || segment[at[0]-1] != '\\') {
			meant = segment[at[0]:at[1]]
		} else if wholeName.MatchString(segment) || nameWord.MatchString(segment) {
			meant = segment
		}
		if meant == "" || f.of.takesName(segment) {
			continue
		}
		name, what := SubjectName, "the user"
		if groupWord.MatchString(meant) {
			name, what = GroupName, "a group of the user"
		}
		if f.of.its().noNames {
			return tooNarrow("pattern-variable", "%s compares %q as it is written: %s is a segment %s of a pattern of globMatch, keyMatch to keyMatch5 or regexMatch",
				f, finding.Shorten(segment), what, name), true
		}
		return tooNarrow("pattern-variable", "%q stands for nobody: write %s as a whole segment to mean %s, or %s",
			finding.Shorten(segment), name, what, literally(segment)), true
	}
	return Problem{}, false
}

// literally says how a segment is written that means itself.
func literally(segment string) string {
	if at := strings.IndexByte(segment, '$'); at >= 0 {
		return fmt.Sprintf(`\%s to mean the characters`, finding.Shorten(segment[at:]))
	}
	return "rename it"
}

// NameForAny returns a segment by which a pattern covers any name and that is
// called like the user or a group, such as :user for keyMatch2 or {user} for
// keyMatch3; empty where there is none.
func (f Func) NameForAny(pattern string) string {
	if !strings.ContainsAny(pattern, ":{") {
		return ""
	}
	for segment := range strings.SplitSeq(pattern, "/") {
		if f.of.takesName(segment) && nameWord.MatchString(segment) {
			return segment
		}
	}
	return ""
}
