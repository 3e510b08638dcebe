package cli

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// documents are the texts that users read.
func documents(t *testing.T) map[string]string {
	t.Helper()
	texts := map[string]string{}
	for _, pattern := range []string{"*.md", "docs/*.md", "examples/*/*", "examples/*/*/*", "nginx.conf.example"} {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: %d files, %v", pattern, len(files), err)
		}
		for _, f := range files {
			if info, err := os.Stat(f); err != nil || info.IsDir() || filepath.Ext(f) == ".py" {
				continue
			}
			text, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			texts[f] = string(text)
		}
	}
	return texts
}

// Every command that a text shows is one that the binary has, with flags that
// it has.
func TestDocumentedCommandsExist(t *testing.T) {
	root, err := newParser(&commands{}, Env{})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, command := range root.Model.Children {
		names = append(names, command.Name)
	}
	command := regexp.MustCompile(`\bsecurefiles ((?:` + strings.Join(names, "|") + `)\b[^|>#&;` + "`" + `\n]*)`)
	found := 0
	for file, text := range documents(t) {
		for _, m := range command.FindAllStringSubmatch(strings.ReplaceAll(text, `\|`, "|"), -1) {
			line, _, _ := strings.Cut(m[1], " [") // what may be left out
			args := regexp.MustCompile(`'[^']*'|"[^"]*"|\S+`).FindAllString(line, -1)
			for i := range args {
				args[i] = strings.Trim(args[i], `'"`)
			}
			parser, err := newParser(&commands{}, Env{})
			if err != nil {
				t.Fatal(err)
			}
			if file == "CHANGELOG.md" || len(args) == 1 && args[0] != "serve" && args[0] != "check" {
				// A mention. The command must exist; its arguments are not shown.
				args = append(args[:1], "A", "B")
				if _, err := parser.Parse(args); err != nil && strings.Contains(err.Error(), "unexpected argument "+args[0]) {
					t.Errorf("%s: securefiles %s: %v", file, m[1], err)
				}
				continue
			}
			found++
			if _, err := parser.Parse(args); err != nil {
				t.Errorf("%s: securefiles %s: %v", file, m[1], err)
			}
		}
	}
	if found < 10 {
		t.Errorf("found %d commands", found)
	}
}

var updateReadme = flag.Bool("update-readme", false, "write the README's table of commands")

// The README's table of commands is made of the command line's own words.
func TestEveryCommandIsInTheReadme(t *testing.T) {
	const head = "| command | does |\n|---|---|\n"
	text := documents(t)["README.md"]
	before, rest, ok := strings.Cut(text, head)
	if !ok {
		t.Fatal("the README has no table of commands")
	}
	end := strings.Index(rest, "\n\n") + 1
	parser, err := newParser(&commands{}, Env{})
	if err != nil {
		t.Fatal(err)
	}
	var table strings.Builder
	for _, command := range parser.Model.Children {
		if command.Hidden {
			continue
		}
		usage := command.Name
		for _, argument := range command.Positional {
			name := strings.ToUpper(argument.Name)
			if argument.Enum != "" {
				name = strings.Join(argument.EnumSlice(), "\\|")
			}
			if argument.IsSlice() {
				name += "…"
			}
			if !argument.Required {
				name = "[" + name + "]"
			}
			usage += " " + name
		}
		fmt.Fprintf(&table, "| `securefiles %s` | %s |\n", usage, strings.TrimSuffix(command.Help, "."))
	}
	if *updateReadme {
		if err := os.WriteFile("README.md", []byte(before+head+table.String()+rest[end:]), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(table.String(), rest[:end]); diff != "" {
		t.Errorf("write it with go test ./internal/cli -run Readme -update-readme: -want +got\n%s", diff)
	}
}

// Every target of make that a text names is there.
func TestDocumentedMakeTargetsExist(t *testing.T) {
	makefile, err := os.ReadFile("Makefile")
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for file, text := range documents(t) {
		for _, m := range regexp.MustCompile("(?m)(?:^|`)make ([a-z]+(?:-[a-z]+)*)").FindAllStringSubmatch(text, -1) {
			found++
			if !regexp.MustCompile(`(?m)^` + m[1] + `:`).Match(makefile) {
				t.Errorf("%s: make %s", file, m[1])
			}
		}
	}
	if found < 4 {
		t.Errorf("found %d targets", found)
	}
}

// headings are a page's, as links name them.
func headings(text string) map[string]bool {
	names := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^#+ (.*)$`).FindAllStringSubmatch(fence.ReplaceAllString(text, ""), -1) {
		name := regexp.MustCompile(`[^\pL\pN _-]`).ReplaceAllString(strings.ToLower(m[1]), "")
		names[strings.ReplaceAll(name, " ", "-")] = true
	}
	return names
}

// Every relative link leads to a file, and to a heading that it has.
func TestDocumentedLinksLeadSomewhere(t *testing.T) {
	found, texts := 0, documents(t)
	for file, text := range texts {
		if filepath.Ext(file) != ".md" {
			continue
		}
		for _, m := range regexp.MustCompile(`\]\(([^)#:]*)(?:#([^)]*))?\)`).FindAllStringSubmatch(text, -1) {
			found++
			target := file
			if m[1] != "" {
				target = filepath.Join(filepath.Dir(file), m[1])
			}
			if _, err := os.Stat(target); err != nil {
				t.Errorf("%s: %v", file, err)
			} else if m[2] != "" && !headings(texts[target])[m[2]] {
				t.Errorf("%s: %s has no heading #%s", file, target, m[2])
			}
		}
	}
	if found < 8 {
		t.Errorf("found %d links", found)
	}
}

// Whoever upgrades reads what breaks first.
func TestChangelogBeginsWithWhatBreaks(t *testing.T) {
	text, err := os.ReadFile("CHANGELOG.md")
	if err != nil {
		t.Fatal(err)
	}
	order, entries := []string{"CHANGE", "FEATURE", "BUGFIX", "SECURITY"}, 0
	for _, release := range strings.Split(string(text), "\n## ")[1:] {
		last := 0
		for line := range strings.Lines(release) {
			if !strings.HasPrefix(line, "- ") {
				continue
			}
			entries++
			m := regexp.MustCompile(`^- \[(\w+)\] `).FindStringSubmatch(line)
			if m == nil || !slices.Contains(order, m[1]) {
				t.Errorf("no kind: %s", line)
			} else if kind := slices.Index(order, m[1]); kind < last {
				t.Errorf("[%s] behind [%s]: %s", m[1], order[last], line)
			} else {
				last = kind
			}
		}
	}
	if entries < 30 {
		t.Errorf("found %d entries", entries)
	}
}

// What CONTRIBUTING says of where something new goes is there.
func TestContributingNamesWhatThereIs(t *testing.T) {
	text, err := os.ReadFile("CONTRIBUTING.md")
	if err != nil {
		t.Fatal(err)
	}
	named := 0
	for _, m := range regexp.MustCompile("`((?:internal|policy|docs|integration_test)/[a-z_/.]+|main\\.go)`(?:, `(\\w+)`)?").FindAllStringSubmatch(string(text), -1) {
		named++
		source, err := os.ReadFile(m[1])
		if info, statErr := os.Stat(m[1]); statErr != nil || err != nil && !info.IsDir() {
			t.Errorf("%s: %v", m[1], statErr)
		}
		if m[2] != "" && !strings.Contains(string(source), "\nfunc "+m[2]+"(") {
			t.Errorf("%s has no func %s", m[1], m[2])
		}
	}
	if named < 8 {
		t.Errorf("found %d places", named)
	}
}
