package cli

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/rogpeppe/go-internal/txtar"
)

// namedFence is a fence that a comment gives a file's name, or a console.
var namedFence = regexp.MustCompile("(?ms)^(?:<!-- file: (\\S+) -->\n)?```([a-z]+)\n(.*?)^```$")

// followed are the pages that integration_test follows from their beginning to
// their end, on a machine with nginx.
var followed = map[string]bool{"docs/get-started.md": true, "docs/how-to.md": true}

// Every console that the documentation shows and that needs no nginx is run, in
// a directory made by `securefiles init`, and prints what the page says. The
// pages' own files are written there too.
func TestDocumentedConsolesPrintWhatTheyShow(t *testing.T) {
	pages, err := filepath.Glob("docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	dir, commands := t.TempDir(), 0
	for _, page := range append(pages, "README.md") {
		if followed[page] {
			continue
		}
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		script := &txtar.Archive{}
		var body strings.Builder
		body.WriteString("exec securefiles init .\n")
		for _, m := range namedFence.FindAllStringSubmatch(string(text), -1) {
			name, language, content := m[1], m[2], m[3]
			if name != "" {
				given := fmt.Sprintf("given%d", len(script.Files))
				script.Files = append(script.Files, txtar.File{Name: given, Data: []byte(content)})
				fmt.Fprintf(&body, "mkdir %s\ncp %s %s\n", filepath.Dir(name), given, name)
			}
			if language != "console" || strings.Contains(content, "curl ") {
				continue
			}
			for _, part := range strings.Split("\n"+content, "\n$ ")[1:] {
				command, want, _ := strings.Cut(strings.TrimSuffix(part, "\n"), "\n")
				command = regexp.MustCompile(`\s{2,}# .*$`).ReplaceAllString(command, "")
				if want != "" {
					want += "\n"
				}
				shown := fmt.Sprintf("shown%d", len(script.Files))
				script.Files = append(script.Files, txtar.File{Name: shown, Data: []byte(want)})
				fmt.Fprintf(&body, "exec sh -c 'exec 2>&1; %s || true'\ncmp stdout %s\n", strings.ReplaceAll(command, "'", "''"), shown)
				commands++
			}
		}
		script.Comment = []byte(body.String())
		name := strings.TrimSuffix(filepath.Base(page), ".md") + ".txtar"
		if err := os.WriteFile(filepath.Join(dir, name), txtar.Format(script), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if commands < 9 {
		t.Fatalf("found %d commands", commands)
	}
	testscript.Run(t, testscript.Params{Dir: dir, RequireExplicitExec: true, Setup: onPath})
}
