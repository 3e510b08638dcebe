package cli

import (
	"os/exec"
	"strings"
	"testing"
	"time"
)

func TestManPageForEachCommandAndOption(t *testing.T) {
	pages, err := ManPages(time.Date(2026, 11, 26, 23, 0, 0, 0, time.UTC))
	if err != nil {
		t.Fatal(err)
	}
	parser, err := newParser(&commands{}, Env{})
	if err != nil {
		t.Fatal(err)
	}
	plain := strings.NewReplacer(`\-`, "-")
	for _, command := range parser.Model.Children {
		name := "securefiles-" + command.Name
		page := plain.Replace(pages[name+".1"])
		if !strings.Contains(page, name+" - ") || !strings.Contains(page, " 1 2026-11-26 ") {
			t.Errorf("%s: no page, or one without its name and date:\n%s", name, page)
		}
		for _, group := range command.AllFlags(true) {
			for _, f := range group {
				if !strings.Contains(page, "--"+f.Name) {
					t.Errorf("%s: --%s is missing", name, f.Name)
				}
			}
		}
		if !strings.Contains(plain.Replace(pages["securefiles.1"]), ".BR "+name+" (1)") {
			t.Errorf("securefiles.1 does not lead to %s", name)
		}
	}
	groff, err := exec.LookPath("groff")
	if err != nil {
		t.Skip("groff is not here")
	}
	for name, page := range pages {
		cmd := exec.Command(groff, "-man", "-Tutf8", "-ww", "-z")
		cmd.Stdin = strings.NewReader(page)
		if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
}

func TestTroffPrintsTextAsItStands(t *testing.T) {
	for text, want := range map[string]string{
		".conf\n.TH":   `\&.conf` + "\n" + `\&.TH`,
		"'it' is a.b":  `\(aqit\(aq is a.b`,
		`a\b ^~` + "`": `a\eb \(ha\(ti\(ga`,
		"--x FILE…":    `\-\-x FILE\[u2026]`,
	} {
		if got := roff(text); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}
