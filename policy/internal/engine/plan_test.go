package engine

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"securefiles/authz"
	"securefiles/policy/internal/model"
	"securefiles/policy/internal/pattern"
	"securefiles/policy/internal/table"
	"securefiles/policy/internal/world"
)

// numbered writes n lines that differ by their number, from 0.
func numbered(n int, line string) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(strings.ReplaceAll(line, "#", fmt.Sprint(i)) + "\n")
	}
	return b.String()
}

// How many lines a decision looks at, to the line: an index that finds too many
// decides the same, and is none.
func TestDecisionsLookAtFewLines(t *testing.T) {
	rbac := world.Shape{Request: []string{"sub", "obj", "act"}, Policy: []string{"sub", "obj", "act", "eft"}, Roles: []string{"g = _, _"}, Effect: world.AllowAndDeny}
	domain := world.Shape{Request: []string{"sub", "dom", "obj", "act"}, Policy: []string{"sub", "dom", "obj", "act", "eft"}, Roles: []string{"g = _, _, _"}, Effect: world.AllowAndDeny}
	addressed := rbac
	addressed.Request = []string{"sub", "obj", "act", "ip"}
	const usual = "g(r.sub, p.sub) && globMatch(r.obj, p.obj) && r.act == p.act"
	many := numbered(100, "p, o#, /o/f#, read, allow")
	for _, tt := range []struct {
		name            string
		shape           world.Shape
		matcher, policy string
		subject, object string
		want            int
	}{
		{"a user's among many of one tree", rbac, usual, numbered(100, "p, u#, /x/**, read, allow"), "u77", "/x/y", 1},
		{"nobody's among them", rbac, usual, numbered(100, "p, u#, /x/**, read, allow"), "u100", "/x/y", 0},
		{"all of a tree where they are eight", rbac, usual, numbered(8, "p, u#, /x/**, read, allow") + many, "u3", "/x/y", 8},
		{"and the user's where they are nine", rbac, usual, numbered(9, "p, u#, /x/**, read, allow") + many, "u3", "/x/y", 1},
		{"a tree's among many of one user", rbac, usual, numbered(100, "p, alice, /d#/**, read, allow"), "alice", "/d7/x", 1},
		{"by the end of a path", rbac, usual, numbered(100, "p, alice, /t/**/f#.pdf, read, allow"), "alice", "/t/a/f7.pdf", 1},
		{"by the whole of it", rbac, usual, numbered(100, "p, alice, /t/f#, read, allow"), "alice", "/t/f7", 1},
		{"by the beginning where all ends are the same", rbac, usual, numbered(100, "p, alice, /d#/**/f.pdf, read, allow"), "alice", "/d7/a/f.pdf", 1},
		{"none by an end that all have", rbac, usual, numbered(20, "p, alice, /**/f.pdf, read, allow"), "alice", "/a/b", 0},
		{"none of a tree that most have", rbac, usual, numbered(10, "p, alice, /d/**, r#, allow") + numbered(15, "p, alice, /d/**/f#, read, allow"), "alice", "/e/x", 0},
		{"none below a whole path", rbac, usual, "p, alice, /t/f1, read, allow\n" + many, "alice", "/t/f1/x", 0},
		{"by both, of some lines each", rbac, usual, numbered(50, "p, alice, /d#/**, read, allow") + numbered(50, "p, alice, /**/f#, read, allow"), "alice", "/d7/a/f9", 2},
		{"those of a tree, of a user who has many", rbac, usual, numbered(30, "p, u#, /x/**, read, allow") + numbered(12, "p, alice, /x/**, read, allow") + numbered(300, "p, alice, /d#/**, read, allow"), "alice", "/x/y", 1},
		{"the tree's where they are fewer than the user's roles", rbac, usual, numbered(30, "g, alice, q#") + numbered(30, "p, q#, /q, read, allow") + numbered(12, "p, u#, /x/**, read, allow") + "p, q3, /x/**, read, allow\n", "alice", "/x/y", 13},
		{"the roles' where the tree's are more", rbac, usual, numbered(10, "g, alice, q#") + numbered(10, "p, q#, /q, read, allow") + numbered(12, "p, u#, /x/**, read, allow") + "p, q3, /x/**, read, allow\n", "alice", "/x/y", 1},
		{"the roles' lines where they are fewer than the roles", rbac, usual, numbered(40, "g, alice, q#") + "p, q3, /x/**, read, allow\n" + numbered(39, "p, r#, /y, read, allow\ng, q#, r#") + numbered(12, "p, u#, /x/**, read, allow"), "alice", "/x/y", 13},
		{"of two fields by the one that leaves fewer, the first", domain, "r.sub == p.sub && r.dom == p.dom", numbered(20, "p, u#, d#, /x, read, allow") + numbered(5, "p, v#, d1, /x, read, allow"), "u3", "/x", 1},
		{"and the second", domain, "r.dom == p.dom && r.sub == p.sub", numbered(20, "p, u#, d#, /x, read, allow") + numbered(5, "p, v#, d1, /x, read, allow"), "u3", "/x", 1},
		{"by a field of sixteen values where there is no other", rbac, "r.sub == p.sub", numbered(16, "p, u#, /x, read, allow"), "u3", "/x", 1},
		{"by one of seventeen where another has more", rbac, "r.obj == p.obj && r.sub == p.sub", numbered(17, "p, u#, /x, read, allow") + numbered(30, "p, u0, /o#, read, allow"), "u3", "/x", 1},
		{"not by one of sixteen", rbac, "r.obj == p.obj && r.sub == p.sub", numbered(16, "p, u#, /x, read, allow") + numbered(30, "p, u0, /o#, read, allow"), "u3", "/x", 16},
		{"not by a field of few values beside a pattern", rbac, usual, numbered(12, "p, u#, /x/**, read, allow\np, u#, /x/*, read, allow"), "u3", "/x/y", 24},
		{"nor beside a field of many", rbac, "r.sub == p.sub && r.act == p.act", numbered(17, "p, u#, /x, list, allow") + "p, u3, /a, write, allow\np, u3, /b, read, allow\n", "u3", "/x", 3},
		{"by a path beside another pattern", rbac, "regexMatch(r.act, p.act) && globMatch(r.obj, p.obj)", numbered(20, "p, u#, /d#/**, ^read$, allow"), "u3", "/d3/x", 1},
		{"and by one before it", rbac, "globMatch(r.obj, p.obj) && regexMatch(r.act, p.act)", numbered(20, "p, u#, /d#/**, ^read$, allow"), "u3", "/d3/x", 1},
		{"by another pattern alone", rbac, "regexMatch(r.act, p.act) && r.sub != p.obj", numbered(20, "p, u#, /d#/**, ^a#$, allow") + "p, u1, /x, ^read$, allow\n", "u3", "/x", 1},
		{"by a role in a domain", domain, "g(r.sub, p.sub, r.dom)", numbered(40, "p, q#, d1, /x#, read, allow") + "g, alice, q3, d1\n", "alice", "/x", 1},
		{"whatever is asked first that needs no address", rbac, "p.act != r.act && r.sub == p.sub", numbered(20, "p, u#, /x, list, allow"), "u3", "/x", 1},
		{"though an address is asked behind it", addressed, "r.sub == p.sub && ipMatch(r.ip, p.obj) && p.act != r.act", numbered(20, "p, u#, 10.0.0.0/8, list, allow"), "u3", "/x", 1},
		{"of the request too", addressed, `r.sub == p.sub && ipMatch(r.ip, "10.0.0.0/8") && r.act == "read"`, numbered(20, "p, u#, /x, list, allow"), "u3", "/x", 1},
		{"in the domain of the request", domain, "g(r.sub, p.sub, r.dom) && r.dom == p.dom", numbered(40, "p, q#, d1, /x#, read, allow") + "g, alice, q3, d1\ng, alice, q4, d2\n", "alice", "/x", 1},
		{"in that of the policy, where it is the request's", domain, "g(r.sub, p.sub, p.dom) && r.dom == p.dom", numbered(40, "p, q#, d1, /x#, read, allow") + "g, alice, q3, d1\ng, alice, q4, d2\n", "alice", "/x", 1},
		{"by a constant", rbac, `p.sub == "*" && r.act != p.act`, numbered(20, "p, u#, /x, list, deny") + "p, @star, /x, list, allow\n", "alice", "/x", 0},
		{"where a guard is false, none", rbac, `r.sub == "root" && p.act == r.act || r.sub == p.sub`, numbered(20, "p, u#, /x, read, allow"), "u3", "/x", 1},
		{"each once, however many ways lead to it", rbac, "r.sub == p.sub || globMatch(r.obj, p.obj)", numbered(20, "p, u#, /x#, read, allow"), "u3", "/x3", 1},
		{"where each matches, one that allows and one that denies", rbac, `r.sub == p.sub || r.sub == "root"`, numbered(20, "p, u#, /x#, read, allow") + numbered(20, "p, u#, /x#, read, deny"), "root", "/x3", 2},
	} {
		w := newPair(t, tt.shape.Model(tt.matcher), tt.policy, Options{})
		if w == nil {
			t.Fatalf("%s: the model or the policy is refused", tt.name)
		}
		q := &authz.Query{Principal: authz.Principal{Subject: tt.subject}, Object: tt.object, Action: "read", Domain: "d1"}
		ev, err := w.engine.Begin(q)
		if err != nil {
			t.Fatal(err)
		}
		rows, all := ev.Candidates()
		if all || len(rows) != tt.want || !slices.IsSorted(rows) {
			t.Errorf("%s: lines %v, all %t, not %d", tt.name, rows, all, tt.want)
		}
		w.engine.End(ev)
		new(tally).compare(t, w, q)
	}
}

// A tuning is one where it is given, and so is a depth.
func TestOptionsCount(t *testing.T) {
	rbac := world.Shape{Request: []string{"sub", "obj", "act"}, Policy: []string{"sub", "obj", "act", "eft"}, Roles: []string{"g = _, _"}, Effect: world.AllowAndDeny}
	text := rbac.Model("g(r.sub, p.sub) && globMatch(r.obj, p.obj)")
	policy := numbered(20, "p, u#, /x/**, read, allow") + "g, alice, a\ng, a, b\ng, b, u3\n"
	for _, tt := range []struct {
		name    string
		options Options
		lines   int // -1 is all
		allowed bool
	}{
		{"none", Options{}, 1, true},
		{"a depth that is enough", Options{RoleDepth: 3}, 1, true},
		{"one that is not", Options{RoleDepth: 2}, 0, false},
		{"patterns that leave twenty lines are enough", Options{tuning: &tuning{fewRows: 20}}, 20, true},
		{"each line is looked at", Options{scan: true}, -1, true},
	} {
		w := newPair(t, text, policy, tt.options)
		if w == nil {
			t.Fatal("the model or the policy is refused")
		}
		q := world.Query("alice", "/x/y")
		ev, err := w.engine.Begin(&q)
		if err != nil {
			t.Fatal(err)
		}
		rows, all := ev.Candidates()
		if all != (tt.lines < 0) || !all && len(rows) != tt.lines {
			t.Errorf("%s: lines %v, all %t", tt.name, rows, all)
		}
		w.engine.End(ev)
		if got, err := w.ours(&q); err != nil || got.Allowed != tt.allowed {
			t.Errorf("%s: allowed %t, %v", tt.name, got.Allowed, err)
		}
	}
}

// What a request does not have is never taken for empty.
func TestUnknownFieldsDeny(t *testing.T) {
	rbac := world.Shape{Request: []string{"sub", "obj", "act"}, Policy: []string{"sub", "obj", "act", "eft"}, Effect: world.DenyOverride}
	w := newPair(t, rbac.Model("r.sub == p.sub && r.act == p.act"), "p, alice, /x, read, deny\n", Options{})
	if w == nil {
		t.Fatal("the model or the policy is refused")
	}
	w.engine.Model.Request[2], w.engine.Model.Evaluates = "mood", true // a rule of the policy may ask for it
	q := world.Query("bob", "/x")
	if got, err := w.ours(&q); err == nil || got.Allowed {
		t.Errorf("%+v, %v", got, err)
	}
	m := w.engine.Model
	m.Evaluates, m.Root.Requests = false, append(m.Root.Requests, "mood") // or the matcher
	if got, err := w.ours(&q); err == nil || got.Allowed {
		t.Errorf("of the matcher: %+v, %v", got, err)
	}
}

// An anchor that counts up to its last character tells two patterns apart there,
// and no further.
// A field that no request has is in nobody's way where nobody asks for it.
func TestAFieldThatNoRequestHasAndNobodyAsks(t *testing.T) {
	v := load(t, strings.Replace(model.Default, "r = sub, obj, act", "r = sub, obj, act, env", 1), "p, alice, /x, read, allow\n", Options{})
	q := world.Query("alice", "/x")
	if d, err := v.DecideWithin(t.Context(), &q); err != nil || d.Effect != authz.Allow {
		t.Errorf("%+v, %v", d, err)
	}
}

func TestAnchorsCountUpToABound(t *testing.T) {
	keys := func(a, b string) (same bool) {
		var masks []anchorMask
		return addAnchor(&masks, []byte(a), true) == addAnchor(&masks, []byte(b), true)
	}
	for _, place := range []int{1, 2, 63, 64, 65, maxAnchor - 1, maxAnchor, maxAnchor + 1} {
		begin := strings.Repeat("l", place-1)
		if got, want := keys(begin+"a", begin+"b"), place > maxAnchor; got != want {
			t.Errorf("character %d: the same key %t", place, got)
		}
	}
	any := string([]byte{0xff})
	for _, place := range []int{1, 2, 63, 64, 65, 100} {
		begin := strings.Repeat("l", place-1)
		// A wild character past the last bit ends the anchor.
		if got, want := keys(begin+any+"a", begin+any+"b"), place > maskedBits; got != want {
			t.Errorf("behind a wild character %d: the same key %t", place, got)
		}
	}
}

// So many sets of wild characters have places of their own; those behind are known
// by what stands before the first.
func TestAnchorsHaveFewMasks(t *testing.T) {
	any := string([]byte{0xff})
	k := newAnchorKeys()
	add := func(prefix string) anchorKey {
		key, _ := k.add(pattern.Anchors{Prefix: prefix}, false)
		return key
	}
	for i := range 2 * maxMasks {
		begin := "x" + strings.Repeat("y", i)
		key, other := add(begin+any+"a"), add(begin+any+"b")
		if same := key == other; same != (i >= maxMasks) {
			t.Errorf("set %d: the same key %t", i, same)
		}
		if i >= maxMasks && (key == 0 || key == add(begin[1:]+any+"a")) {
			t.Errorf("set %d: what stands before the first wild character does not count", i)
		}
		if !slices.Contains(k.of(&k.sides[0], []byte(begin+"?a and more"), nil), key) {
			t.Errorf("set %d is not found", i)
		}
	}
	if len(k.sides[0].masks) != maxMasks+1 { // with the empty one
		t.Errorf("%d masks", len(k.sides[0].masks))
	}
	if key := add(any + any + "a"); key != 0 {
		t.Errorf("nothing before the first wild character asks for %d", key)
	}
}

// Wild characters at an anchor's end ask nothing, and take no mask.
func TestAnchorsDoNotEndInWildCharacters(t *testing.T) {
	any := string([]byte{0xff})
	var masks []anchorMask
	plain := addAnchor(&masks, []byte("ab"), true)
	for _, text := range []string{"ab" + any, "ab" + any + any, "ab" + strings.Repeat(any, 100)} {
		if key := addAnchor(&masks, []byte(text), true); key != plain || len(masks) != 1 {
			t.Errorf("%q: another key %t, %d masks", text, key != plain, len(masks))
		}
	}
	if key := addAnchor(&masks, []byte(any+any), true); key != 0 {
		t.Errorf("wild characters alone ask for %d", key)
	}
}

// A text has a key for each length that an anchor has, and no more.
func TestKeysOfATextAreFew(t *testing.T) {
	k := newAnchorKeys()
	for _, a := range []pattern.Anchors{{Prefix: "/a", Suffix: "pdf"}, {Prefix: "/a/b"}, {Prefix: "/c/d", Suffix: "x"}, {Prefix: "/a/b/c", Exact: true}} {
		k.add(a, false)
	}
	for text, want := range map[string]int{"/a/b/c": 1 + 2 + 2, "/a": 1 + 1 + 1, "": 1, "/": 1 + 0 + 1} {
		var keys []anchorKey
		for i := range k.sides {
			keys = k.of(&k.sides[i], []byte(text), keys)
		}
		if len(keys) != want {
			t.Errorf("%q has %d keys, not %d", text, len(keys), want)
		}
	}
}

// Where every line matches, the first that allows and the first that denies tell
// all that any effect asks.
func TestFirstEffects(t *testing.T) {
	for policy, want := range map[string][]uint32{
		"aaa": {0}, "d": {0}, "ad": {0, 1}, "aadd": {0, 2}, "da": {0, 1}, "dda": {0, 2}, "": nil,
	} {
		tab := &table.Table{Symbols: table.NewSymbols(), Rows: &table.Rows{Cols: make([][]table.Symbol, 1)}}
		for i, c := range policy {
			tab.Rows.Cols[0] = append(tab.Rows.Cols[0], tab.Symbols.Intern(map[rune]string{'a': "allow", 'd': "deny"}[c]))
			tab.Rows.Lines = append(tab.Rows.Lines, uint32(i+1))
		}
		e := &Engine{Symbols: tab.Symbols, Rows: tab.Rows, eft: 0, cells: rowByRow(tab.Rows)}
		if got := e.firstEffects(); !slices.Equal(got, want) {
			t.Errorf("%s: rows %v, not %v", policy, got, want)
		}
	}
}
