package pattern

import (
	"strings"
	"testing"

	"securefiles/policy/internal/finding"
)

// What people write for the user where they come from says which name to write
// here, and a deny that is written so is refused: it denies nobody.
func TestHowOtherProgramsWriteTheUser(t *testing.T) {
	for _, tt := range []struct{ function, pattern, want string }{
		{"globMatch", "/home/$user/**", "$sub"},
		{"globMatch", "/home/${user}/**", "$sub"},
		{"globMatch", "/home/$username/**", "$sub"},
		{"globMatch", "/home/${sub}/**", "$sub"},
		{"globMatch", "/home/$SUB/**", "$sub"},
		{"globMatch", "/home/$sub.txt", "$sub"},
		{"globMatch", "/home/x-$sub/**", "$sub"},
		{"globMatch", "/home/$sub*", "$sub"},
		{"globMatch", "/home/{a/$sub/x,b}", "$sub"},
		{"globMatch", "/home/{sub}/**", "$sub"},
		{"globMatch", "/home/{user}/**", "$sub"},
		{"globMatch", "/home/:user/**", "$sub"},
		{"globMatch", "/home/%u/**", "$sub"},
		{"globMatch", "/home/%s/**", "$sub"},
		{"globMatch", "/home/<user>/**", "$sub"},
		{"globMatch", "/home/{{user}}/**", "$sub"},
		{"globMatch", "/~/**", "$sub"},
		{"globMatch", "/t/$groups/**", "$group"},
		{"globMatch", "/t/@$group/**", "$group"},
		{"globMatch", "/t/%g/**", "$group"},
		{"globMatch", "/t/${TEAM}/**", "$group"},
		{"keyMatch", "/home/$user/*", "$sub"},
		{"keyMatch", "/home/:user/*", "$sub"},
		{"keyMatch2", "/home/$user/*", "$sub"},
		{"keyMatch2", "/home/{user}/*", "$sub"},
		{"keyMatch3", "/home/:user/*", "$sub"},
		{"keyMatch4", "/home/$sub.pdf", "$sub"},
		{"regexMatch", "^/home/$user/", "$sub"},
		{"regexMatch", "^/home/${user}/", "$sub"},
		{"regexMatch", "^/home/$sub.*", "$sub"},
		{"==", "/home/$sub", "$sub"},
		{"=~", "^/home/$sub/", "$sub"},

		{"globMatch", "/home/$sub/**", ""},
		{"globMatch", "/t/$group/$sub/**", ""},
		{"globMatch", `/home/\$sub/**`, ""},
		{"globMatch", `/home/\$user/**`, ""},
		{"globMatch", "/home/[$]sub/**", ""},
		{"globMatch", "/$RECYCLE.BIN/**", ""},
		{"globMatch", "/a$/b", ""},
		{"globMatch", "/~alice/**", ""},
		{"globMatch", "/100%sure/**", ""},
		{"globMatch", "/{users,groups}/**", ""},
		{"keyMatch", `/home/\$sub/*`, ""},
		{"keyMatch2", "/home/:user/*", ""},
		{"keyMatch2", "/home/$sub/*", ""},
		{"keyMatch2", `/home/\$sub/*`, ""},
		{"keyMatch3", "/home/{user}/*", ""},
		{"regexMatch", "^/home/$sub/.*$", ""},
		{"regexMatch", `^/home/\$sub/`, ""},
		{"regexMatch", "^/a/x$|^/user$", ""},
	} {
		f, found := named(t, tt.function), ""
		for _, p := range f.Problems(tt.pattern, true) {
			if p.Rule != "pattern-variable" {
				if tt.want == "" && p.Rule != "pattern-dot" {
					t.Errorf("%s %s: %+v", tt.function, tt.pattern, p)
				}
				continue
			}
			found = p.Message
			if p.Allow != finding.SeverityWarning || p.Deny != finding.SeverityError {
				t.Errorf("%s %s: %+v", tt.function, tt.pattern, p)
			}
		}
		if (found != "") != (tt.want != "") || !strings.Contains(found, tt.want) {
			t.Errorf("%s %s: %q, want %q", tt.function, tt.pattern, found, tt.want)
		}
		if found == "" && len(f.Problems(tt.pattern, false)) > 0 {
			t.Errorf("%s %s: %+v", tt.function, tt.pattern, f.Problems(tt.pattern, false))
		}
	}
}

// What is said of a pattern with names holds whatever the name is.
func TestWhatCoversANamedFolder(t *testing.T) {
	for _, tt := range []struct {
		function, a, b string
		want           bool
	}{
		{"globMatch", "/home/**", "/home/$sub/**", true},
		{"globMatch", "/home/*", "/home/$sub", true},
		{"globMatch", "/home/*/**", "/home/$sub/**", true},
		{"globMatch", "/home/$sub/**", "/home/$sub/**", true},
		{"globMatch", "/home/$sub/**", "/home/alice/**", false},
		{"globMatch", "/home/alice/**", "/home/$sub/**", false},
		{"globMatch", "/home/$sub/**", "/home/$group/**", false},
		{"globMatch", "/home/[^x]*", "/home/$sub", false},
		{"globMatch", "/home/?", "/home/$sub", false},
		{"keyMatch", "/home/*", "/home/$sub/*", true},
		{"keyMatch", "/home/a*", "/home/$sub/*", false},
		{"keyMatch2", "/home/*", "/home/$sub/*", true},
		{"keyMatch2", "/home/:x", "/home/$sub", false}, // true, and not said
		{"keyMatch4", "/home/*", "/home/$sub/*", true},
		{"regexMatch", "^/home/", "^/home/$sub/", false},
	} {
		if got := named(t, tt.function).Covers(tt.a, tt.b); got != tt.want {
			t.Errorf("%s: %s covers %s: %t", tt.function, tt.a, tt.b, got)
		}
	}
	for _, tt := range []struct{ function, pattern, prefix, samples string }{
		{"globMatch", "/home/$sub/**", "/home/", "/home/$sub/x /home/$sub/x/y /home/$sub"},
		{"keyMatch", "/home/$sub/*", "/home/", "/home/$sub/x /home/$sub/x/y /home/$sub"},
		{"keyMatch2", "/t/$group/$sub", "/t/", "/t/$group/$sub"},
		{"regexMatch", "^/home/$sub/", "/home/", "/home/$sub/x"},
	} {
		f := named(t, tt.function)
		if prefix, whole := f.Literal(tt.pattern); prefix != tt.prefix || whole {
			t.Errorf("%s %s begins with %s, %t", tt.function, tt.pattern, prefix, whole)
		}
		if a := f.Anchors(tt.pattern); strings.ContainsAny(a.Prefix+a.Suffix, "\x01\x02") || a.Exact {
			t.Errorf("%s %s: %+v", tt.function, tt.pattern, a)
		}
		if got := strings.Join(f.Samples(tt.pattern), " "); !strings.HasPrefix(got, tt.samples) {
			t.Errorf("%s %s: %s", tt.function, tt.pattern, got)
		}
	}
}
