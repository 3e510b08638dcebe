package finding

import (
	"bytes"
	"strings"
)

const (
	directive  = "securefiles:"
	ignoreForm = "write: # securefiles:ignore RULE: reason"
)

// ParseIgnore reads a line that may be a comment for check, and returns the rules
// whose findings it takes back in the line that follows. It is false for every other
// line. A problem says why the comment is not obeyed.
func ParseIgnore(line []byte) (rules []string, problem string, ok bool) {
	comment, ok := bytes.CutPrefix(bytes.TrimSpace(line), []byte("#"))
	comment = bytes.TrimSpace(comment)
	if !ok || !bytes.EqualFold(comment[:min(len(comment), len(directive))], []byte(directive)) {
		return nil, "", false
	}
	// "# securefiles: which files are guarded" is for people.
	if word := comment[len(directive):]; bytes.HasPrefix(word, []byte(" ")) && !bytes.HasPrefix(bytes.ToLower(bytes.TrimSpace(word)), []byte("ignore")) {
		return nil, "", false
	}
	list, ok := strings.CutPrefix(string(comment), directive+"ignore ")
	if !ok {
		return nil, `"` + Quoted(string(comment)) + `" is not understood: ` + ignoreForm, true
	}
	list, reason, _ := strings.Cut(list, ":")
	if strings.TrimSpace(reason) == "" {
		return nil, "gives no reason, so it is not obeyed: " + ignoreForm, true
	}
	for rule := range strings.SplitSeq(list, ",") {
		rules = append(rules, strings.TrimSpace(rule))
	}
	return rules, "", true
}

// Ignores are the comments for check of one file. Its zero value has none.
type Ignores struct {
	pending []string
	at      map[int][]string
}

// Comment takes in a line of the file that is a comment.
func (i *Ignores) Comment(line []byte) {
	if rules, _, ok := ParseIgnore(line); ok {
		i.pending = append(i.pending, rules...)
	}
}

// Line is told the number of each line that is neither empty nor a comment.
func (i *Ignores) Line(number int) {
	if len(i.pending) == 0 {
		return
	}
	if i.at == nil {
		i.at = map[int][]string{}
	}
	i.at[number], i.pending = i.pending, nil
}
