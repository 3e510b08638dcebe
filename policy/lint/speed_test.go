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
		{"many roles of one user, each on the same path", model.Default, lines(2000, "g, alice, r%d\n") + lines(2000, "p, r%d, /d/**, read, allow\n"),
			"policy.csv:2001: warning: 2000 lines of all the roles that \"alice\" has are found by nothing that differs, this one among them, so each decision for them looks at all: give what they share to one role, or let their paths differ before the first wildcard or behind the last [slow]"},
		{"many roles of one user, each on a path of its own", model.Default, lines(2000, "g, alice, r%d\n") + lines(2000, "p, r%[1]d, /d%[1]d/**, read, allow\n"), ""},
		{"as many roles, each of another user", model.Default, lines(2000, "g, u%[1]d, r%[1]d\n") + lines(2000, "p, r%d, /d/**, read, allow\n"), ""},
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

// A pattern with which a request can hold a core is told of wherever it stands: in
// a line, in the matcher, in a rule that a line holds.
func TestCheckTellsOfRegularExpressionsThatAreTooLarge(t *testing.T) {
	matcher := func(m string) string {
		return strings.Replace(model.Default, "globMatch(r.obj, p.obj)", m, 1)
	}
	const slow = "[a-z/]{0,1000}"
	const refused = slow + slow + slow + slow + slow + slow + slow + slow + slow + slow
	rules := strings.NewReplacer("p = sub, obj,", "p = sub, rule,", "globMatch(r.obj, p.obj)", "eval(p.rule)").Replace(model.Default)
	for _, tt := range []struct{ name, model, policy, want string }{
		{"a line", matcher("regexMatch(r.obj, p.obj)"), "p, alice, \"^/x" + slow + slow + "\", read, allow\n",
			`policy.csv:1: warning: obj "^/x[a-z/]{0,1000}[a-z/]{0,1000}" may take some`},
		{"a line that is refused", matcher("regexMatch(r.obj, p.obj)"), "p, alice, \"" + refused + "\", read, allow\n",
			`policy.csv:1: error: obj "[a-z/]{0,1000}[a-z/]{0,1000}[a-z/]{0,1000}[`},
		{"an operator", matcher("r.obj =~ p.obj"), "p, alice, \"" + refused + "\", read, allow\n", "policy.csv:1: error: obj "},
		{"keyMatch2", matcher("keyMatch2(r.obj, p.obj)"), "p, alice, \"/x" + refused + slow + slow + "\", read, allow\n", "policy.csv:1: error: obj "},
		{"a glob", model.Default, "p, alice, \"/**/" + strings.Repeat("{a/,b/}", 10) + strings.Repeat("a/", 100) + "b\", read, allow\n", "policy.csv:1: error: obj "},
		{"the matcher", matcher(`regexMatch(r.obj, "` + slow + `x")`), "p, alice, /x, read, allow\n", `model.conf: warning: the matcher: "[a-z/]{0,1000}x" may take some`},
		{"the matcher, by an operator that says no", matcher(`!(r.obj !~ "` + slow + `x")`), "p, alice, /x, read, allow\n", `model.conf: warning: the matcher: "[a-z/]{0,1000}x" may take some`},
		{"a matcher that is refused", matcher(`regexMatch(r.obj, "` + refused + `")`), "p, alice, /x, read, allow\n", `model.conf:17: error: the pattern "[a-z/]{0,1000}[`},
		{"a rule", rules, "p, alice, \"regexMatch(r.obj, '" + slow + "')\", read, allow\n", `policy.csv:1: warning: rule: "[a-z/]{0,1000}" may take some`},
		{"a rule that is refused", rules, "p, alice, \"r.obj =~ '" + refused + "'\", read, allow\n", "policy.csv:1: error: rule "},
		{"a value that no function comes to", strings.Replace(model.Default, `(r.act == p.act || p.act == "*")`, "(p.act == \"[a-z/]{0,1000}\" || regexMatch(r.act, p.act))", 1), "p, alice, /x, \"" + slow + "\", allow\n", ""},
	} {
		t.Chdir(t.TempDir())
		world.Write(t, "model.conf", tt.model)
		world.Write(t, "policy.csv", tt.policy)
		var got []string
		for _, f := range Check(t.Context(), policy.Files{Model: "model.conf", Policy: "policy.csv"}, nil) {
			if f.Rule == "pattern-size" || f.Severity == policy.SeverityError {
				got = append(got, f.String())
			}
		}
		if tt.want == "" && len(got) > 0 || tt.want != "" && (len(got) != 1 || !strings.HasPrefix(got[0], tt.want)) {
			t.Errorf("%s:\n got %q\nwant %q", tt.name, got, tt.want)
		}
	}
}
