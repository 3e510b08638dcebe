package cli

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"securefiles/policy"
	"securefiles/policy/lint"
)

// Rules whose example cannot stand on a page: bytes that nobody sees, files that
// are too large or not there, and versions before this one.
var withoutExample = []string{"link-keys", "link-template", "listing-template", "names", "store", "read", "file-size", "policy-shrunk", "policy-cut", "encoding", "character", "line-length", "too-many", "not-checked", "slow", "environment", "group-lines", "secret-readable", "world-writable", "root-holds", "jwks", "session"}

var (
	ruleHeading = regexp.MustCompile("(?m)^### `([a-z-]+)`\n")
	example     = regexp.MustCompile("(?ms)^```(csv|ini|text|yaml) (bad|mend)(?: ([a-z0-9]+))?\n(.*?)^```$")
)

// Each rule has its section in docs/rules.md and nothing else has, and what the
// section shows is true: its bad example has findings of this rule alone, and
// the mend has none.
func TestRulesAreDocumented(t *testing.T) {
	page, err := os.ReadFile("docs/rules.md")
	if err != nil {
		t.Fatal(err)
	}
	sections := map[string]string{}
	var order []string
	headings := ruleHeading.FindAllStringSubmatchIndex(string(page), -1)
	for i, h := range headings {
		end := len(page)
		if i+1 < len(headings) {
			end = headings[i+1][0]
		}
		id := string(page[h[2]:h[3]])
		sections[id] = string(page[h[1]:end])
		order = append(order, id)
	}
	for _, r := range checkRules() {
		section, ok := sections[r.ID]
		if !ok {
			t.Errorf("docs/rules.md has no section `%s`", r.ID)
			continue
		}
		delete(sections, r.ID)
		if r.Summary == "" || !strings.HasSuffix(r.Remedy, ".") {
			t.Errorf("%+v", r)
		}
		// A rule that may be a warning says so.
		if !strings.HasPrefix(section, "**error** ·") && !strings.HasPrefix(section, "**error**,") && !strings.HasPrefix(section, "**warning** ·") && !strings.HasPrefix(section, "**warning**,") {
			t.Errorf("%s: the section does not begin with the severity: %.40q", r.ID, section)
		}
		if only := strings.HasPrefix(section, "**error** ·"); only != (r.Severity == policy.SeverityError) {
			t.Errorf("%s: the page says %.12q, the rule %s", r.ID, section, r.Severity)
		}
		judgement := checkServed(t, r, section)
		if slices.Contains(withoutExample, r.ID) {
			continue
		}
		t.Run(r.ID, func(t *testing.T) {
			bad, mend := checkExample(t, section, "bad", nil), checkExample(t, section, "mend", nil)
			if len(bad) == 0 {
				t.Error("the bad example has no finding")
			}
			for _, f := range bad {
				if f.Rule != r.ID {
					t.Errorf("bad: %s:%d: %s [%s]", f.File, f.Line, f.Message, f.Rule)
				}
				if f.Remedy != r.Remedy {
					t.Errorf("%s has the remedy %q", f.Rule, f.Remedy)
				}
			}
			for _, f := range mend {
				t.Errorf("mend: %s:%d: %s [%s]", f.File, f.Line, f.Message, f.Rule)
			}
			if len(bad) == 0 || bad[0].Line == 0 || !filepath.IsAbs(bad[0].File) || r.ID == "suppression" || strings.HasSuffix(bad[0].File, ".htpasswd") {
				return // no line has a comment above it
			}
			takenBack := true
			for _, f := range checkExample(t, section, "bad", bad) {
				takenBack = takenBack && f.Rule != r.ID
			}
			if want := judgement || bad[0].Severity == "warning"; takenBack != want {
				t.Errorf("comments above the lines take it back: %t, not %t", takenBack, want)
			}
		})
	}
	for id := range sections {
		t.Errorf("docs/rules.md has a section `%s`, and there is no such rule", id)
	}
	var listed []string
	for _, r := range checkRules() {
		listed = append(listed, r.ID)
	}
	if !slices.Equal(order, listed) {
		t.Errorf("docs/rules.md and --rules have another order:\n%v\n%v", order, listed)
	}
}

// checkServed checks what a section says about serving what the rule finds. Only what
// could let in more, or cannot be read or evaluated, keeps a policy from being served;
// the two of policy.allow_shrink are the exception.
//
// It returns whether comments take errors back.
func checkServed(t *testing.T, r lint.Rule, section string) bool {
	t.Helper()
	lines := regexp.MustCompile(`(?ms)^\*Served:\* (.*?)$\n\n|^\*Served:\* (.*?)\n*\z`).FindAllStringSubmatch(section, -1)
	if len(lines) != 1 {
		t.Errorf("%s: %d answers to whether it is served", r.ID, len(lines))
		return false
	}
	answer := strings.ReplaceAll(lines[0][1]+lines[0][2], "\n", " ")
	never, always := strings.HasPrefix(section, "**error** ·"), strings.HasPrefix(section, "**warning** ·")
	if never != strings.HasPrefix(answer, "no, ") || !never && !strings.HasPrefix(answer, "yes") || always == (never || strings.Contains(answer, "; not ")) {
		t.Errorf("%s: the severity does not fit %q", r.ID, answer)
	}
	if reason := regexp.MustCompile(`let in more|cannot be (read|evaluated)|nobody knows which|may be one that denies|nothing to serve|policy\.allow_shrink|asks for something else|may ask for less`); !always && !reason.MatchString(answer) {
		t.Errorf("%s: no reason for an error in %q", r.ID, answer)
	}
	takes := strings.Contains(answer, "A comment takes the error")
	if r.Ignorable != (takes || r.Severity == policy.SeverityWarning) {
		t.Errorf("%s: comments take findings back: the page says %t, the rule %t", r.ID, takes, r.Ignorable)
	}
	return takes
}

// A shownFinding is one as --json prints it.
type shownFinding struct {
	File, Severity, Rule, Message, Remedy string
	Line                                  int
}

// checkExample runs check on the files that a section shows, with comments that take
// findings back.
func checkExample(t *testing.T, section, kind string, takeBack []shownFinding) []shownFinding {
	t.Helper()
	dir := t.TempDir()
	shown := map[string]string{}
	model := ""
	for _, m := range example.FindAllStringSubmatch(section, -1) {
		if m[2] == kind {
			shown[m[1]] = m[4]
			model += m[3]
		}
	}
	if len(shown) == 0 {
		t.Fatalf("there is no %s example", kind)
	}
	if _, ok := shown["csv"]; !ok {
		shown["csv"] = "p, alice, /docs/**, read, allow\n"
	}
	modelText := ""
	if model != "" {
		b, err := os.ReadFile(filepath.Join("policy", "internal", "world", "testdata", "model", model+".conf"))
		if err != nil {
			t.Fatal(err)
		}
		modelText = string(b)
	}
	if changes, ok := shown["ini"]; ok {
		b, err := os.ReadFile("policy/internal/world/testdata/model/undated.conf")
		if err != nil {
			t.Fatal(err)
		}
		modelText = changeModel(string(b), changes)
	}
	config := "policy: {file: policy.csv}\n"
	if modelText != "" {
		config = "policy: {file: policy.csv, model: model.conf}\n"
		writeFile(t, filepath.Join(dir, "model.conf"), modelText)
	}
	if strings.Contains(modelText, "r.dom") {
		config += "downloads:\n  - {name: main, url: /downloads/, internal: /protected/}\n  - {name: other, url: /other/, internal: /protected-other/}\n"
	}
	if users, ok := shown["text"]; ok {
		config += "identity: [{htpasswd: users.htpasswd}]\n"
		writeFile(t, filepath.Join(dir, "users.htpasswd"), users)
	}
	if yaml, ok := shown["yaml"]; ok {
		config = yaml
	}
	writeFile(t, filepath.Join(dir, "policy.csv"), shown["csv"])
	writeFile(t, filepath.Join(dir, "securefiles.yaml"), config)

	for _, f := range slices.Backward(takeBack) {
		file := filepath.Join(dir, filepath.Base(f.File))
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		lines := slices.Insert(strings.SplitAfter(string(text), "\n"), f.Line-1, "# securefiles:ignore "+f.Rule+": an example\n")
		writeFile(t, file, strings.Join(lines, ""))
	}
	status, stdout, stderr := command(t, "check", "--strict", "--json", "--config", filepath.Join(dir, "securefiles.yaml"))
	var findings []shownFinding
	if err := json.Unmarshal([]byte(stdout), &findings); err != nil {
		t.Fatalf("%v\n%s\n%s", err, stdout, stderr)
	}
	if want := min(len(findings), 1); status != want {
		t.Errorf("exit status %d, want %d", status, want)
	}
	return findings
}

// changeModel puts the sections that an example shows in the place of a model's.
func changeModel(model, changes string) string {
	split := func(text string) (names []string, bodies map[string]string) {
		bodies = map[string]string{}
		for _, part := range strings.Split("\n"+text, "\n[")[1:] {
			name, body, _ := strings.Cut(part, "]")
			names = append(names, name)
			bodies[name] = strings.TrimRight(body, "\n") + "\n\n"
		}
		return names, bodies
	}
	names, bodies := split(model)
	changed, parts := split(changes)
	for _, name := range changed {
		bodies[name] = parts[name]
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	var b strings.Builder
	for _, name := range names {
		b.WriteString("[" + name + "]" + bodies[name])
	}
	return b.String()
}

// A long check says how far it is, and leaves nothing behind.
func TestProgress(t *testing.T) {
	var out bytes.Buffer
	p := progress{doing: "checking", w: &out, begin: time.Now()}
	p.show(0.1)
	p.done()
	if out.Len() > 0 {
		t.Errorf("a short check says %q", out.String())
	}
	p.begin = p.begin.Add(-time.Second)
	file := writeFile(t, filepath.Join(t.TempDir(), "policy.csv"), strings.Repeat("# a comment\n", 100_000)+"p, alice, /docs/**, read, allow\n")
	lint.Check(t.Context(), policy.Files{Policy: file}, &lint.Options{Progress: p.show})
	p.done()
	shown := strings.Split(strings.TrimSuffix(out.String(), "\r\x1b[K"), "\r")[1:]
	if len(shown) < 10 || shown[len(shown)-1] != "checking ["+strings.Repeat("#", 30)+"] 100%" || !slices.IsSorted(shown) {
		t.Errorf("%q", shown)
	}
	if !strings.HasSuffix(out.String(), "\r\x1b[K") {
		t.Error("the line is left behind")
	}
	if newProgress(Env{Stderr: &out}, "checking").w != nil {
		t.Error("shown where no terminal is")
	}
}
