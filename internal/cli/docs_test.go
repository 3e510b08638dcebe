package cli

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
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
	command := regexp.MustCompile(`\bsecurefiles ((?:serve|check|explain|who|what|test|link|nginx|init|version)\b[^|>#&;` + "`" + `\n]*)`)
	found := 0
	for file, text := range documents(t) {
		for _, m := range command.FindAllStringSubmatch(strings.ReplaceAll(text, `\|`, "|"), -1) {
			line, _, _ := strings.Cut(m[1], " [") // what may be left out
			args := strings.Fields(strings.ReplaceAll(line, `'`, ""))
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

// Every command stands in the README's table.
func TestEveryCommandIsInTheReadme(t *testing.T) {
	text := documents(t)["README.md"]
	parser, err := newParser(&commands{}, Env{})
	if err != nil {
		t.Fatal(err)
	}
	for _, command := range parser.Model.Children {
		if !regexp.MustCompile("(?m)^\\| `securefiles [^|]*\\b" + command.Name + "\\b").MatchString(text) {
			t.Errorf("%s is not in the table", command.Name)
		}
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
		for _, m := range regexp.MustCompile("(?m)(?:^|`)make ([a-z]+)").FindAllStringSubmatch(text, -1) {
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

// Every relative link leads to a file.
func TestDocumentedLinksLeadSomewhere(t *testing.T) {
	found := 0
	for file, text := range documents(t) {
		if filepath.Ext(file) != ".md" {
			continue
		}
		for _, m := range regexp.MustCompile(`\]\(([^)#:]+)(?:#[^)]*)?\)`).FindAllStringSubmatch(text, -1) {
			found++
			if _, err := os.Stat(filepath.Join(filepath.Dir(file), m[1])); err != nil {
				t.Errorf("%s: %v", file, err)
			}
		}
	}
	if found < 8 {
		t.Errorf("found %d links", found)
	}
}
