package lint

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"securefiles/policy"
	"securefiles/policy/internal/model"
	"securefiles/policy/internal/world"
)

func TestCheckTellsOfSlowPolicies(t *testing.T) {
	lines := func(n int, format string) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, format, i)
		}
		return b.String()
	}
	scanning := strings.TrimSpace(model.Default) + " || p.sub == p.act\n"
	for _, tt := range []struct{ name, model, policy, want string }{
		{"told apart by the beginning", model.Default, lines(2000, "p, alice, /d%d/**, read, allow\n"), ""},
		{"by the end", model.Default, lines(2000, "p, alice, /**/f%d.pdf, read, allow\n"), ""},
		{"by the subject", model.Default, lines(2000, "p, user%d, /**, read, allow\n"), ""},
		{"few enough", model.Default, lines(999, "p, alice, /**/f%d/*, read, allow\n"), ""},
		{"by nothing", model.Default, lines(2000, "p, alice, /**/f%d/*, read, allow\n"),
			"policy.csv:1: warning: 2000 lines are found by nothing that differs, this one among them, so each decision for them looks at all: let their paths differ before the first wildcard or behind the last [slow]"},
		{"no index", scanning, lines(1500, "p, user%d, /x, read, allow\n"),
			"model.conf: warning: no part of `p.sub == p.act` can be looked up, so each decision looks at all 1500 lines: give the matcher a part such as g(r.sub, p.sub), r.sub == p.sub or a pattern of r.obj in each alternative [slow]"},
	} {
		t.Chdir(t.TempDir())
		world.Write(t, "model.conf", tt.model)
		world.Write(t, "policy.csv", tt.policy)
		var got []string
		for _, f := range Check(t.Context(), policy.Files{Model: "model.conf", Policy: "policy.csv"}, &Options{}) {
			if f.Rule == "slow" {
				got = append(got, f.String())
			}
		}
		if tt.want == "" && len(got) > 0 || tt.want != "" && !slices.Equal(got, []string{tt.want}) {
			t.Errorf("%s:\n got %q\nwant %q", tt.name, got, tt.want)
		}
	}
}
