package pattern

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
)

// hostileNames are names that mean something to one function or another.
func hostileNames() []string {
	return []string{
		"alice", "*", "**", "a*", "?", "[a-z]", "[", "]", "{a,b}", "{", "}", "{x}", ":x", ":", ".", ".*", ".+", "..a", `\`, `\*`, "|", "a|b", "(a)", "^", "$",
		"$sub", "$group", `\$sub`, "%2e", "%2f", "+", "a?b", "?", "a b", "é", "e\u0301", "日本", "\u00a0x", "a,b", "!", "-", "~", "#", "'", `"`,
		"/", "a/b", "..", "", "x", "zq", strings.Repeat("n", 255), "a\nb", "(?i)alice", "ALICE", `\Qx\E`, "[^/]+", "a{2}", "name", "\ufffd", "a\xff",
	}
}

// bySubstitution is what $sub and $group mean: a literal that is no pattern stands
// in their place, and in the place of as many segments of the path that are the
// name, one choice after another. Casbin's own function answers.
func bySubstitution(function, path, pattern string, holes []hole, names one) bool {
	const subject, group = "QsubjectQ", "QgroupQ"
	text := fill(pattern, holes, func(_ int, h hole) string {
		if h.mark == groupMark {
			return group
		}
		return subject
	})
	var try func(path string, from, hole int) bool
	try = func(path string, from, i int) bool {
		if i == len(holes) {
			ok, fine := matchPattern(function, path, text)
			return ok && fine
		}
		name, literal := names.of(holes[i]), subject
		if holes[i].mark == groupMark {
			literal = group
		}
		if !CanStand(name) {
			return false
		}
		for at := from; at < len(path); at++ {
			end := segmentEnd(path, at)
			if at > 0 && path[at-1] == '/' && path[at:end] == name && try(path[:at]+literal+path[end:], at+len(literal), i+1) {
				return true
			}
		}
		return false
	}
	return try(path, 0, 0)
}

// drawNamed draws a pattern with holes for a function, and a path near it.
func drawNamed(random *rand.Rand, function string, names one) (pattern, path string) {
	pick := func(texts ...string) string { return texts[random.IntN(len(texts))] }
	wild := []string{"*", "a*"}
	switch function {
	case "keyMatch2":
		wild = []string{":x", "*", "a.b", "(a|b)", "[^/]+", "a?", `\$sub`, "*", "[a-z]", "(?i:A)", `x\.y`, ":x", "é"}
	case "keyMatch3", "keyMatch4", "keyMatch5":
		wild = []string{"{x}", "*", "a.b", "(?:a|b)", "[^/]+", "a?", `\$sub`, "{x}", "[a-z]", "{y}.pdf", "é"}
	case "globMatch":
		wild = []string{"*", "**", "a*", "?", "[^a]", "[a-z]", "{a,b}", `\$sub`, "**", "{a,**}", "*[!x]", "a**"}
	case "regexMatch":
		wild = []string{".*", "[^/]+", "a", "(a|b)", "[a-z]*", ".", `\$sub`, "(/a)?", "[^a]", `\S+`}
	}
	var p, t strings.Builder
	if function == "regexMatch" {
		p.WriteString(pick("^", "^", "^", "", "(?i)^"))
	}
	for range 1 + random.IntN(4) {
		p.WriteByte('/')
		t.WriteByte('/')
		switch random.IntN(8) {
		case 0, 1, 2:
			p.WriteString(SubjectName)
			t.WriteString(pick(names.subject, names.subject, names.subject, names.subject, "x", names.subject+"x", "x"+names.subject))
		case 3:
			p.WriteString(GroupName)
			t.WriteString(pick(names.group, names.group, names.group, "x"))
		case 4, 5:
			p.WriteString(pick(wild...))
			t.WriteString(pick("a", "b", "a/b", names.subject, names.group, "x.pdf", "", "$sub"))
		default:
			literal := pick("a", "b", "x", "x.pdf", "home")
			p.WriteString(literal)
			t.WriteString(literal)
		}
	}
	if function == "regexMatch" {
		p.WriteString(pick("$", "$", "", "/", "/.*"))
	} else {
		p.WriteString(pick("", "", "/*", "/**", "/x"))
	}
	for range random.IntN(3) {
		t.WriteString(pick("/x", "/a/b", "/"+names.subject, "/"+names.group, "?q", "/x?y"))
	}
	return p.String(), t.String()
}

// $sub and $group match as Casbin's functions do where a literal stands in their
// place, whatever the name: it is never read as a pattern.
func TestNamesMatchAsStockCasbinUnderSubstitution(t *testing.T) {
	compared, matched := map[string]int{}, map[string]int{}
	seeds := uint64(70_000)
	if testing.Short() {
		seeds /= 10
	}
	for seed := range seeds {
		tryNames(t, seed, compared, matched)
	}
	total := 0
	for _, function := range lintFunctions()[1:] {
		total += compared[function]
		t.Logf("%s: %d of %d match", function, matched[function], compared[function])
		if compared[function] < int(seeds)/3 || matched[function] < int(seeds)/60 {
			t.Errorf("%s: %d of %d match, which says little", function, matched[function], compared[function])
		}
	}
	if !testing.Short() && total < 300_000 {
		t.Errorf("%d comparisons only", total)
	}
}

func FuzzNamesMatchAsStockCasbinUnderSubstitution(f *testing.F) {
	f.Add(uint64(1))
	f.Fuzz(func(t *testing.T, seed uint64) { tryNames(t, seed, map[string]int{}, map[string]int{}) })
}

func tryNames(t *testing.T, seed uint64, compared, matched map[string]int) {
	random := rand.New(rand.NewPCG(seed, 12))
	hostile := hostileNames()
	names := one{hostile[random.IntN(len(hostile))], hostile[random.IntN(len(hostile))]}
	cache := NewCache(100)
	for i, function := range lintFunctions()[1:] {
		f := named(t, function)
		pattern, path := drawNamed(random, function, names)
		holes := f.of.holes(pattern, nil)
		if len(holes) == 0 || f.Check(pattern) != nil {
			continue
		}
		given := Names{}
		if CanStand(names.subject) {
			given.Subject = names.subject
		}
		if CanStand(names.group) {
			given.Groups = []string{"other", names.group}
		}
		got, err := cache.MatchPath(f, path, pattern, uint32(i), &given)
		if err != nil {
			t.Fatalf("%s(%q, %q) for %q: %v", function, path, pattern, names, err)
		}
		if want := bySubstitution(function, path, pattern, holes, names); got != want {
			t.Fatalf("%s(%q, %q) for %q: %t, want %t", function, path, pattern, names, got, want)
		}
		compared[function]++
		if got {
			matched[function]++
		}
	}
}

// What $sub stands for in each function, and what it does not.
func TestASegmentThatIsTheSubject(t *testing.T) {
	names := Names{Subject: "alice", Groups: []string{"staff", "a*"}}
	for _, tt := range []struct {
		function, pattern, path string
		want                    bool
	}{
		{"globMatch", "/home/$sub/**", "/home/alice", true},
		{"globMatch", "/home/$sub/**", "/home/alice/a/b", true},
		{"globMatch", "/home/$sub/**", "/home/alice2/a", false},
		{"globMatch", "/home/$sub/**", "/home/bob/a", false},
		{"globMatch", "/home/$sub/**", "/home/$sub/a", false},
		{"globMatch", "/home/$sub/**", "/x/home/alice/a", false},
		{"globMatch", `/home/\$sub/**`, "/home/$sub/a", true},
		{"globMatch", `/home/[$]sub/**`, "/home/$sub/a", true},
		{"globMatch", `/home/\$sub/**`, "/home/alice/a", false},
		{"globMatch", "/home/$sub.txt", "/home/alice.txt", false},
		{"globMatch", "/home/$sub.txt", "/home/$sub.txt", true},
		{"globMatch", "/a*/$sub/**/x", "/alice/alice/x", true},
		{"globMatch", "/**/$sub/x", "/alice/b/alice/x", true},
		{"globMatch", "/**/$sub/**/$sub", "/a/alice/b/alice", true},
		{"globMatch", "/**/$sub/**/$sub", "/a/alice/b", false},
		{"globMatch", "/{home,data}/$sub/**", "/data/alice/x", true},
		{"globMatch", "/tenants/$group/**", "/tenants/staff/x", true},
		{"globMatch", "/tenants/$group/**", "/tenants/a*/x", true},
		{"globMatch", "/tenants/$group/**", "/tenants/abc/x", false},
		{"globMatch", "/tenants/$group/**", "/tenants/alice/x", false},
		{"globMatch", "/$group/$group", "/staff/staff", true},
		{"globMatch", "/$group/$group", "/staff/a*", false},
		{"globMatch", "/$group/$sub/x", "/staff/alice/x", true},
		{"keyMatch", "/home/$sub/*", "/home/alice/a/b", true},
		{"keyMatch", "/home/$sub/*", "/home/alice", false},
		{"keyMatch", "/home/$sub", "/home/alice", true},
		{"keyMatch", "/home/$sub", "/home/alice/x", false},
		{"keyMatch", "/home/$sub*", "/home/alice", false},
		{"keyMatch", `/home/\$sub/*`, "/home/$sub/x", true},
		{"keyMatch", `/home/\$sub/*`, "/home/alice/x", false},
		{"keyMatch", `/home/\$sub/$sub/*`, "/home/$sub/alice/x", true},
		{"keyMatch2", "/home/$sub/*", "/home/alice/a", true},
		{"keyMatch2", "/:x/$sub/*", "/alice/alice/a", true},
		{"keyMatch2", "/home/$sub/*", "/home/alice", false},
		{"keyMatch2", `/home/\$sub/*`, "/home/$sub/a", true},
		{"keyMatch2", "/home/$sub/(a|b)", "/home/alice/b", true},
		{"keyMatch3", "/{x}/$sub", "/x/alice", true},
		{"keyMatch4", "/{x}/$sub/{x}", "/b/alice/b", true},
		{"keyMatch4", "/{x}/$sub/{x}", "/alice/alice/alice", true},
		{"keyMatch4", "/{x}/$sub/{x}", "/b/alice/c", false},
		{"keyMatch5", "/home/$sub", "/home/alice?x=1", false}, // that segment is alice?x=1
		{"keyMatch5", "/home/$sub/*", "/home/alice/x?x=1", true},
		{"regexMatch", "^/home/$sub/", "/home/alice/x", true},
		{"regexMatch", "^/home/$sub", "/home/alice2", false},
		{"regexMatch", "^/home/$sub", "/home/alice", true},
		{"regexMatch", "^/home/$sub$", "/home/alice", true},
		{"regexMatch", "^/home/$sub(/.*)?$", "/home/alice/x", true},
		{"regexMatch", "^/home/$sub(/.*)?$", "/home/alicex", false},
		{"regexMatch", "^/(home/$sub|pub)/", "/home/alice/x", true},
		{"regexMatch", "^/(home/$sub|pub)/", "/pub/x", true},
		{"regexMatch", "(?i)^/HOME/$sub/", "/home/alice/x", true},
		{"regexMatch", `^/home/\$sub/`, "/home/$sub/x", true},
		{"regexMatch", `^/home/\Q$sub\E/`, "/home/$sub/x", true},
		{"regexMatch", "^/[^b]/$sub", "/a/alice", true},
		{"regexMatch", "^/[a-z]+/$sub", "/alice/alice", true},
		{"==", "/home/$sub", "/home/$sub", true},
		{"==", "/home/$sub", "/home/alice", false},
		{"=~", "^/home/$sub/", "/home/alice/x", false},
	} {
		f := named(t, tt.function)
		if err := f.Check(tt.pattern); err != nil {
			t.Errorf("%s %s: %v", tt.function, tt.pattern, err)
		}
		if got, err := f.MatchPath(tt.path, tt.pattern, names); err != nil || got != tt.want {
			t.Errorf("%s(%s, %s): %t, %v", tt.function, tt.path, tt.pattern, got, err)
		}
	}
}

// A name that is another pattern's text is nobody else's folder.
func TestANameIsNeverAPattern(t *testing.T) {
	victims := []string{"alice", "a", "ab", "x", "$", "bob.", "a/b", "", "A", "日本"}
	for _, function := range lintFunctions()[1:] {
		f := named(t, function)
		for _, pattern := range []string{"/home/$sub", "/home/$sub/*", "/home/$sub/**", "^/home/$sub/", "^/home/$sub$", "/*/$sub", "/**/$sub/*", "/home/$group/*", "(?i)^/home/$sub"} {
			subject, group := f.AsksNames(pattern)
			if f.Check(pattern) != nil || !subject && !group {
				continue // to keyMatch nothing stands behind a star
			}
			cache := NewCache(100)
			for _, name := range hostileNames() {
				for _, victim := range victims {
					if name == victim {
						continue
					}
					for _, path := range []string{"/home/" + victim, "/home/" + victim + "/x", "/home/" + victim + "/x/y"} {
						if strings.Contains(path+"/", "/"+name+"/") {
							continue
						}
						if ok, err := cache.MatchPath(f, path, pattern, 1, &Names{Subject: name, Groups: []string{name}}); ok || err != nil {
							t.Errorf("%s: %q has %q by %q: %v", function, name, path, pattern, err)
						}
					}
				}
			}
		}
	}
}

// The cache holds one entry a line, however many users ask, and tells a pattern of
// the path from the same text elsewhere.
func TestTheCacheDoesNotConfuseNames(t *testing.T) {
	m := NewCache(4)
	const pattern, elsewhere = "^/home/$sub/(a|b)", `^/home/`
	for i := range 3000 {
		name := fmt.Sprintf("u%d", i)
		if got, err := m.Match(regexMatch, "/home/"+name+"/a", pattern, 7); got || err != nil {
			t.Fatalf("elsewhere, first: %t, %v", got, err)
		}
		for _, path := range []string{"/home/" + name + "/a", "/home/u/a"} {
			got, err := m.MatchPath(regexMatch, path, pattern, 7, &Names{Subject: name})
			if want := path != "/home/u/a"; err != nil || got != want {
				t.Fatalf("%s for %s: %t, %v", path, name, got, err)
			}
		}
		if got, err := m.Match(regexMatch, "/home/"+name+"/a", pattern, 7); got || err != nil {
			t.Fatalf("elsewhere: %t, %v", got, err)
		}
		if got, err := m.Match(keyMatch2, "/home/x", elsewhere, 7); got || err != nil {
			t.Fatalf("another function: %t, %v", got, err)
		}
	}
	full := 0
	for i := range m.compiled.places {
		if m.compiled.places[i].Load() != nil {
			full++
		}
	}
	if full != 3 { // of the path, elsewhere, and of another function
		t.Errorf("%d entries", full)
	}
}

// A path cannot bring marks of its own: it is refused, and an error denies. Nor does a
// path that holds a name a thousand times cost more than that.
func TestPathsThatAreMadeForThePattern(t *testing.T) {
	names := Names{Subject: "alice", Groups: []string{"staff"}}
	for _, function := range lintFunctions()[1:] {
		f := named(t, function)
		for _, path := range []string{"/home/\x01bob\x03/x", "/home/\x01\x02bob\x03/x", "/home/\x02/x", "/home/bob\x03/x"} {
			if ok, err := f.MatchPath(path, "/home/$sub/x", names); ok || err == nil {
				t.Errorf("%s matches %q: %t, %v", function, path, ok, err)
			}
		}
	}
	long := strings.Repeat("/a", 2000)
	if ok, err := named(t, "globMatch").MatchPath(long, "/**/$sub/**/$sub/**/x", Names{Subject: "a"}); ok || err == nil {
		t.Errorf("a name in 2,000 places: %t, %v", ok, err)
	}
	if ok, err := named(t, "globMatch").MatchPath(long, "/a/$sub/**", Names{Subject: "a"}); !ok || err != nil {
		t.Errorf("a name in one place of 2,000: %t, %v", ok, err)
	}
}
