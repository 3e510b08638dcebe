package integration_test

import (
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// The program that `go build` leaves, where its source is or in the root, git does not show.
func TestGoBuildLeavesNothingThatGitShows(t *testing.T) {
	if out, err := exec.Command("git", "rev-parse", "--is-inside-work-tree").CombinedOutput(); err != nil {
		t.Skipf("this is no repository of git: %s", out)
	}
	var left []string
	for _, module := range []string{".", "packaging/image"} {
		list := exec.Command("go", "list", "-find", "-f", `{{if eq .Name "main"}}{{.ImportPath}}{{end}}`, "./...")
		list.Dir = path.Join("..", module)
		out, err := list.Output()
		if err != nil {
			t.Fatal(err)
		}
		for _, program := range strings.Fields(string(out)) {
			name := path.Base(program)
			left = append(left, strings.TrimPrefix(path.Join(strings.TrimPrefix(program, "securefiles"), name), "/"))
			if module == "." {
				left = append(left, name)
			}
		}
	}
	if len(left) < 8 {
		t.Fatalf("there are more programs than %q", left)
	}
	for _, name := range left {
		ignored := exec.Command("git", "check-ignore", "--quiet", "--no-index", name)
		ignored.Dir = ".."
		if err := ignored.Run(); err != nil {
			t.Errorf("git shows %s after go build: add it to .gitignore", name)
		}
	}
}

// What a package has in /usr/share/doc/securefiles links to what is there, as in the source.
func TestPagesOfAPackageLinkToWhatIsThere(t *testing.T) {
	t.Parallel()
	link := regexp.MustCompile(`\]\(([^)#:\s]+)(?:#[^)]*)?\)`)
	for format, licence := range map[string]string{"deb": "copyright", "rpm": "LICENSE"} {
		dir := t.TempDir()
		if out, err := exec.Command("../packaging/doc.sh", dir, format).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		if err := os.WriteFile(filepath.Join(dir, licence), nil, 0o600); err != nil { // build.sh writes it
			t.Fatal(err)
		}
		pages, links := 0, 0
		err := filepath.WalkDir(dir, func(file string, d os.DirEntry, err error) error {
			if err != nil || filepath.Ext(file) != ".md" {
				return err
			}
			pages++
			text, err := os.ReadFile(file)
			if err != nil {
				return err
			}
			for _, m := range link.FindAllStringSubmatch(string(text), -1) {
				links++
				if _, err := os.Stat(filepath.Join(filepath.Dir(file), m[1])); err != nil {
					t.Errorf("%s, %s: %v", format, file, err)
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if pages < 15 || links < 100 {
			t.Errorf("%s: %d pages, with %d links", format, pages, links)
		}
		for _, name := range []string{"docs/how-to.md", "examples/prometheus/job.yaml", "examples/links/link.py"} {
			if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Mode() != 0o644 {
				t.Errorf("%s: %v, %v", name, info, err)
			}
		}
	}
}
