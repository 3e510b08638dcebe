package explain

import (
	"strings"
	"testing"

	"securefiles/authz"
	"securefiles/policy/internal/storetest"
)

const namesPolicy = `p, @authenticated, /home/$sub/**, read, allow
p, @authenticated, /tenants/$group/**, read, allow
p, @authenticated, /tenants/$group/home/$sub/**, list, allow
p, @staff, /desk/$sub/**, read, allow
p, @authenticated, /home/$sub/frozen/**, read, deny
p, dave, /home/bob/**, read, allow
`

// Who has a path under $sub is told though no line names him.
func TestWhoHasAHomeDirectory(t *testing.T) {
	s, _ := storetest.Open(t, namesPolicy, nil)
	for _, tt := range []struct{ object, action, allowed, denied string }{
		{"/home/alice/x", "read", "alice:1", ""},
		{"/home/bob/x", "read", "dave:6 bob:1", ""},
		{"/home/alice/frozen/x", "read", "", "alice:5"},
		{"/home/a*/x", "read", "a*:1", ""},
		{"/tenants/acme/x", "read", "@acme:2", ""},
		{"/tenants/staff/x", "read", "@staff:2", ""},
		{"/tenants/acme/home/alice/x", "list", "alice[@acme]:3", ""},
		{"/desk/alice/x", "read", "alice[@staff]:4", ""},
		{"/elsewhere/alice", "read", "", ""},
	} {
		w, err := Who(t.Context(), s, authz.Query{Object: tt.object, Action: tt.action})
		if err != nil {
			t.Fatal(err)
		}
		named := func(list []Access) string {
			var out []Access
			for _, h := range list {
				if len(h.Groups) > 0 {
					h.Name += "[" + strings.Join(h.Groups, " ") + "]"
				}
				out = append(out, h)
			}
			return summary(out)
		}
		if got := named(w.Allowed); got != tt.allowed {
			t.Errorf("who may %s %s: %s, want %s", tt.action, tt.object, got, tt.allowed)
		}
		if got := named(w.Denied); got != tt.denied {
			t.Errorf("who may not %s %s: %s, want %s", tt.action, tt.object, got, tt.denied)
		}
	}
}

// What somebody has is told with the name put in.
func TestWhatIsInAHomeDirectory(t *testing.T) {
	s, _ := storetest.Open(t, namesPolicy, nil)
	for _, tt := range []struct {
		principal authz.Principal
		want      string
	}{
		{authz.Principal{Subject: "alice"}.WithBuiltinGroups(), "/home/alice/** /home/alice/frozen/**"},
		{authz.Principal{Subject: "alice", Groups: []string{"@staff"}}.WithBuiltinGroups(), "/home/alice/** /tenants/staff/** /desk/alice/** /home/alice/frozen/**"},
		{authz.Principal{Subject: "a*"}.WithBuiltinGroups(), "/home/$sub/** /home/$sub/frozen/**"},
		{authz.Principal{Subject: "@staff"}, "/home/$sub/** /tenants/staff/** /desk/$sub/** /home/$sub/frozen/**"},
		{authz.AnonymousPrincipal(), ""},
	} {
		w, err := What(t.Context(), s, authz.Query{Principal: tt.principal, Action: authz.ActionRead})
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, g := range w.Grants {
			got = append(got, g.Pattern)
			if g.Example == "" || strings.Contains(g.Example, "$") {
				t.Errorf("%s: %+v has no example", tt.principal.Subject, g)
			}
		}
		if strings.Join(got, " ") != tt.want {
			t.Errorf("what may %s: %s, want %s", tt.principal.Subject, got, tt.want)
		}
	}
}

// An explanation says what $sub and $group stood for.
func TestExplainSaysWhoTheSubjectIs(t *testing.T) {
	s, _ := storetest.Open(t, namesPolicy, nil)
	for _, tt := range []struct {
		subject, object string
		groups          []string
		want            string
	}{
		{"alice", "/home/alice/x", nil, `where $sub is "alice"`},
		{"alice", "/home/bob/x", nil, `does not match "/home/$sub/**", where $sub is "alice"`},
		{"alice", "/tenants/staff/x", []string{"@staff", "@other"}, `where $group is "staff"`},
		{"alice", "/tenants/x/x", []string{"@staff", "@other"}, `$group is "staff" or "other"`},
	} {
		x, err := Decision(t.Context(), s, authz.Query{Principal: authz.Principal{Subject: tt.subject, Groups: tt.groups}.WithBuiltinGroups(), Object: tt.object, Action: authz.ActionRead})
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(x.String(), tt.want) {
			t.Errorf("%s, %s: no %s in\n%s", tt.subject, tt.object, tt.want, x)
		}
	}
}

// A change of $sub is found by the folders of those who have one.
func TestDiffOfHomeDirectories(t *testing.T) {
	for _, tt := range []struct{ name, before, after, want string }{
		{"everybody gets a folder", "p, bob, /x, read, allow\n", "p, bob, /x, read, allow\np, @authenticated, /home/$sub/**, read, allow\n", "gained @authenticated,bob"},
		{"the same folder by another line", "p, bob, /home/bob/**, read, allow\n", "p, bob, /home/$sub/**, read, allow\n", ""},
		{"others' folders too", "p, bob, /home/$sub/**, read, allow\n", "p, bob, /home/**, read, allow\n", "gained bob"},
		{"one folder is closed", "p, @authenticated, /home/$sub/**, read, allow\np, bob, /y, read, allow\n", "p, @authenticated, /home/$sub/**, read, allow\np, bob, /y, read, allow\np, @anyone, /home/bob/z/**, read, deny\n", "lost bob"},
		{"among names that only roles tell apart", "p, @authenticated, /home/$sub/**, read, allow\np, r, /y, read, allow\ng, alice, r\ng, bob, r\n", "p, @authenticated, /home/$sub/**, read, allow\np, r, /y, read, allow\ng, alice, r\ng, bob, r\np, @anyone, /home/bob/z/**, read, deny\n", "lost bob"},
		{"of somebody whom no policy names", "p, @authenticated, /home/$sub/**, read, allow\np, @anyone, /home/carol/z/**, read, deny\n", "p, @authenticated, /home/$sub/**, read, allow\n", "gained carol"},
		{"of those who are called so and so", "p, @authenticated, /home/$sub/**, read, allow\np, @anyone, /home/[0-9]*/**, read, deny\n", "p, @authenticated, /home/$sub/**, read, allow\n", "gained 0x"},
		{"of a group that no policy names", "p, @authenticated, /t/$group/**, read, allow\np, @anyone, /t/hr/**, read, deny\n", "p, @authenticated, /t/$group/**, read, allow\n", "gained @hr"},
		{"of groups alone", "p, @anyone, /x, read, allow\n", "p, @anyone, /x, read, allow\np, @authenticated, /t/$group/**, read, allow\n", "gained @somegroup"},
		{"behind any folder", "p, bob, /x, read, allow\n", "p, bob, /x, read, allow\np, bob, /**/$sub/x, read, allow\n", "gained bob"},
		{"hidden by a deny of one letter", "p, bob, /home/$sub/?, read, deny\n", "p, bob, /home/$sub/?, read, deny\np, bob, /home/$sub/*, read, allow\n", "gained bob"},
		{"hidden by one's own deny", "p, bob, /home/*/**, read, allow\np, bob, /**/$sub/**, read, deny\n", "p, bob, /home/*/**, read, allow\n", "gained bob"},
		{"a folder that is called $sub", "p, bob, /x, read, allow\n", "p, bob, /x, read, allow\np, bob, /home/\\$sub/**, read, allow\n", "gained bob"},
		{"of nobody in particular", "p, @authenticated, /home/$sub/**, read, allow\n", "p, @authenticated, /home/$sub/**, read, allow\np, @authenticated, /y/carol/**, read, allow\n", "gained @authenticated"},
		{"a group's folder", "p, @t1, /x, read, allow\n", "p, @t1, /x, read, allow\np, @authenticated, /t/$group/**, read, allow\n", "gained @t1,@somegroup"},
	} {
		before, _ := storetest.Open(t, tt.before, nil)
		after, _ := storetest.Open(t, tt.after, nil)
		d, err := Compare(t.Context(), before, after, nil)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		seen := map[string]bool{}
		note := func(direction string, changes []Change) {
			var names []string
			for _, c := range changes {
				for _, n := range c.Names {
					if !seen[direction+n] {
						seen[direction+n] = true
						names = append(names, n)
					}
				}
			}
			if len(names) > 0 {
				got = append(got, direction+" "+strings.Join(names, ","))
			}
		}
		note("gained", d.Gained)
		note("lost", d.Lost)
		if len(d.Untried) > 0 { // it says that it did not look
			got = append(got, "untried")
		}
		if strings.Join(got, " ") != tt.want {
			t.Errorf("%s: %s, want %s\n%+v", tt.name, got, tt.want, d)
		}
	}
}
