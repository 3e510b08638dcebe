package integration_test

import (
	"os/exec"
	"path"
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
