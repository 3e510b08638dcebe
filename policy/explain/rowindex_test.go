package explain

import (
	"slices"
	"strings"
	"testing"
	"time"

	"securefiles/authz"
	"securefiles/policy/internal/storetest"
	"securefiles/policy/internal/world"
)

// Lines are found by the roles that a subject has in the domain that is asked for, and
// in no other.
func TestRowsAreReachedByTheRolesOfADomain(t *testing.T) {
	const lines = "p, editor, main, /a, read, allow\np, editor, media, /b, read, allow\np, alice, main, /c, read, allow\np, bob, main, /d, read, allow\np, staff, *, /e, read, allow\n"
	plain := world.ModelText(t, "domain")
	byPattern := strings.Replace(plain, "r.dom == p.dom", "keyMatch(r.dom, p.dom)", 1)
	without := strings.NewReplacer("sub, dom,", "sub,", "_, _, _", "_, _", ", r.dom)", ")", " && r.dom == p.dom", "").Replace(plain)
	for _, tt := range []struct {
		name, model, policy, subject, domain string
		want                                 []int32
	}{
		{"in the domain of the role", plain, lines + "g, alice, editor, main\n", "alice", "main", []int32{0, 1, 2}},
		{"in another one", plain, lines + "g, alice, editor, main\n", "alice", "media", []int32{2}},
		{"in one that no line names", plain, lines + "g, alice, editor, main\n", "alice", "attic", []int32{2}},
		{"by a chain within a domain", plain, lines + "g, alice, staff, main\ng, staff, editor, main\n", "alice", "main", []int32{0, 1, 2, 4}},
		{"by one that leaves it", plain, lines + "g, alice, staff, main\ng, staff, editor, media\n", "alice", "main", []int32{2, 4}},
		{"in a domain that is a pattern", byPattern, lines + "g, alice, editor, m*\n", "alice", "main", []int32{0, 1, 2}},
		{"and that no line names", byPattern, lines + "g, alice, editor, m*\n", "alice", "movies", []int32{0, 1, 2}},
		{"in one that the pattern does not match", byPattern, lines + "g, alice, editor, m*\n", "alice", "attic", []int32{2}},
		{"without domains", without, "p, editor, /a, read, allow\np, alice, /b, read, allow\np, bob, /c, read, allow\ng, alice, editor\n", "alice", "main", []int32{0, 1}},
		{"of somebody whom no line names", plain, lines + "g, alice, editor, main\n", "zoe", "main", nil},
	} {
		a, err := newInquiry(storetest.OpenText(t, tt.model, tt.policy))
		if err != nil {
			t.Fatal(err)
		}
		var rows []int32
		for row := range a.version.Engine.Rows.Len() {
			rows = append(rows, int32(row))
		}
		index := newRowIndex(newLanguages(a, time.Now()), rows)
		a.ev.Bind(&authz.Query{Principal: authz.Principal{Subject: tt.subject}.WithBuiltinGroups(), Object: "/a", Action: authz.ActionRead, Domain: tt.domain})
		if got := index.reached(a.ev); !slices.Equal(got, tt.want) {
			t.Errorf("%s: %s in %s comes to the rows %v, not %v", tt.name, tt.subject, tt.domain, got, tt.want)
		}
		a.end()
	}
}
