package lint

import (
	"path/filepath"
	"strings"
	"testing"

	"securefiles/policy"
	"securefiles/policy/internal/model"
	"securefiles/policy/internal/world"
)

// One policy for several downloads is served where a comment says that it is meant.
func TestAModelWithoutDomainIsServedWhereTheErrorIsTakenBack(t *testing.T) {
	dir := t.TempDir()
	source := policy.Files{Model: filepath.Join(dir, "model.conf"), Policy: filepath.Join(dir, "policy.csv")}
	world.Write(t, source.Policy, "p, alice, /docs/**, read, allow\n")
	opts := &Options{Options: policy.Options{RequireDomain: true}}
	for _, tt := range []struct {
		comment string
		want    int
	}{
		{"", 1},
		{"# securefiles:ignore model-domain: both have the same tree\n", 0},
		{"# securefiles:ignore model-domain\n", 2},
	} {
		world.Write(t, source.Model, strings.Replace(model.Default, "r = sub", tt.comment+"r = sub", 1))
		findings := Check(t.Context(), source, opts)
		_, err := policy.Open(t.Context(), source, &opts.Options)
		if len(findings) != tt.want || (err == nil) != (tt.want == 0) {
			t.Errorf("%q: %v, %v", tt.comment, findings, err)
		}
	}
}

// Nobody is told to remove a line that leaves a role behind which then looks like a
// misspelt one of those that take access away.
func TestNoAdviceLeadsToAnError(t *testing.T) {
	file := filepath.Join(t.TempDir(), "policy.csv")
	const text = `p, @anyone, /docs/**, read, allow
p, editor, /docs/plans/**, read, allow
p, editors, /docs/hr/**, read, deny
p, writer, /docs/texts/**, read, allow
g, alice, editor
g, bob, writer
g, carol, editors
`
	world.Write(t, file, text)
	lines := strings.SplitAfter(text, "\n")
	told := 0
	for _, f := range Check(t.Context(), policy.Files{Policy: file}, nil) {
		if f.Rule != "redundant" {
			continue
		}
		told++
		world.Write(t, file, strings.Join(lines[:f.Line-1], "")+strings.Join(lines[f.Line:], ""))
		if _, err := policy.Open(t.Context(), policy.Files{Policy: file}, nil); err != nil {
			t.Errorf("without line %d: %v", f.Line, err)
		}
	}
	if told != 1 { // of line 4, not of line 2
		t.Errorf("told of %d lines", told)
	}
}
