package cli

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var updateBad = flag.Bool("update-bad", false, "write what check finds in the bad policies")

// Each directory has a mistake that a person could make, with its configuration,
// and all that check says of it.
func TestCheckFindsWhatIsBad(t *testing.T) {
	dirs, err := filepath.Glob("policy/lint/testdata/bad/*")
	if err != nil || len(dirs) < 60 {
		t.Fatal(len(dirs), err)
	}
	for _, dir := range dirs {
		t.Run(filepath.Base(dir), func(t *testing.T) {
			private := t.TempDir() // nobody else may write there
			if err := os.CopyFS(private, os.DirFS(dir)); err != nil {
				t.Fatal(err)
			}
			status, stdout, stderr := command(t, "check", "--strict", "--disable", "root", "--config", filepath.Join(private, "securefiles.yaml"))
			got := strings.ReplaceAll(stdout, private+"/", "")
			want := filepath.Join(dir, "want.txt")
			if *updateBad {
				writeFile(t, want, got)
			}
			text, err := os.ReadFile(want)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(text), got); diff != "" {
				t.Errorf("findings: -want +got\n%s", diff)
			}
			if status != 1 || got == "" || stderr != "" {
				t.Errorf("exit status %d, %d bytes\n%s", status, len(got), stderr)
			}
		})
	}
}
