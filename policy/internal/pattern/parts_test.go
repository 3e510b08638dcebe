package pattern

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"unicode"

	"github.com/google/go-cmp/cmp"
)

// A plain pattern is matched without a regular expression. One that is wrongly called
// plain is read in another way than Casbin's; one that is not called so takes time.
func TestWhichPatternsArePlain(t *testing.T) {
	for _, tt := range []struct {
		name  byte
		plain bool
		all   []string
	}{
		{':', true, []string{
			"", "/", "a", "/a", "/a.b/c", "/.", "/:x", "/:x/y", "/a:x", "/a:x/b", "/:", "/:/a", "/a:", ":x", "/*", "/*/a", "/*b", "/a/*/b/*",
			"/é", "/a b", "/a,b", "/a-b_c~d", "/\u007f", "/:x*", "/:a|b", "/:x/:y",
		}},
		{':', false, []string{
			"*", "/a*", "a*", "/**", "/a/**", "/a+", "/(a)", "/[a]", "/a]", "/a?", "/a|b", "/^a", "/a$", "/$sub", "/{x}", "/a}", `/a\.b`, "/a\x1f", "/\n",
			"/\x00", "/\xff", "/\ufffd", "/a\xc3", "/:x/a*", "/:x/(a)", "/:x/a+", "/:/+", "/*/a*", "/*/**",
		}},
		{'{', true, []string{
			"/{x}", "/a{x}", "/{x}/y", "/{x}{y}", "/{x}}", "/{{x}", "/:x", "/:", "/{x}/{y}", "/{xyz}/*", "/a.b/{x}", "/{(}", "/{a|b}", "/{x}/*/{x}",
		}},
		{'{', false, []string{"/{}", "/{x", "/{x}y", "/{", "/}", "/{x/y}", "/a}/{x}", "/{}/a", "/{x}y/a", "/{x}/a*", "/{x}/a+", "/{x}/{", "/{x}/{}"}},
	} {
		for _, pattern := range tt.all {
			if isPlainKey(pattern, tt.name) != tt.plain {
				t.Errorf("%q with names that begin with %c is plain: %t", pattern, tt.name, !tt.plain)
			}
		}
	}
	for pattern, want := range map[string]bool{
		"/$sub": true, "/$group": true, "/$sub/x": true, "/a/$group/*": true, "/$sub/$group": true, "/$group/:x/$sub": true, "/$sub/a$": false, "/$sub/$": false,
		"/$sub(a)": false, "/($sub|a)": false, "/$sub$": false, "/$sub/a+": false, "/$sub/$group/(": false, "/$sub\\": false, "/$subs": false,
	} {
		if got := isPlainKeyWith(pattern, ':', regexHoles(pattern, nil)); got != want {
			t.Errorf("%q is plain: %t", pattern, got)
		}
	}
	for pattern, want := range map[string]bool{"/a": true, "/a$": false, "/$sub": true, "/$sub/$group": true, "/$subs": false, "/$sub/a+": false, "/a+/$sub": false, "/$": false} {
		if got := isPlainHoles(pattern, ':'); got != want {
			t.Errorf("%q is plain where names may stand: %t", pattern, got)
		}
	}
	for text, want := range map[string]bool{"": true, "/a": true, "/é": true, "/a\n": false, "\n": false, "/é\n": false, "/\xff": false, "\x80": false, "\xffa": false, "/a\xc3": false, "/\x7f": true} {
		if got := isPlainText(text); got != want {
			t.Errorf("the text %q is plain: %t", text, got)
		}
	}
}

func TestWhichNamesStandTwice(t *testing.T) {
	eight := "/{a}/{b}/{c}/{d}/{e}/{f}/{g}/{h}"
	for pattern, want := range map[string]bool{
		"": false, "/a": false, "/{a}": false, "/a/{a}": false, "/{a}/{b}": false, "/{a}/{a}": true, "/{a}/b/{a}": true, "/{a}/{b}/{b}": true, "/{a}/{b}/{a}/c": true,
		"{a}/{a}": true, "/x{a}/{a}": true, "/{a}/x/y/z": false, "/{a}b/{a}": false,
		eight: false, eight + "/x": false, eight + "/{i}": true, "/{a}" + eight: true, eight + "/{h}": true,
	} {
		if got := hasNameTwice(pattern); got != want {
			t.Errorf("%q has a name twice: %t", pattern, got)
		}
	}
}

func TestIsRegexMeta(t *testing.T) {
	for c := range 256 {
		if want := c < 128 && strings.IndexByte(`\+*?()[]{}^$|`, byte(c)) >= 0; isRegexMeta(byte(c)) != want {
			t.Errorf("%q: %t", rune(c), !want)
		}
	}
}

// What is not valid UTF-8 equals U+FFFD to Casbin's functions, and is no anchor.
func TestHowFarATextIsValid(t *testing.T) {
	for _, tt := range []struct {
		text           string
		prefix, suffix int
	}{
		{"", 0, 0}, {"a", 1, 0}, {"é", 2, 0}, {"aé日b", 7, 0}, {"\x7f", 1, 0},
		{"\x80", 0, 1}, {"a\x80", 1, 2}, {"\x80a", 0, 1}, {"é\x80a", 2, 3}, {"a\ufffd", 1, 4}, {"\ufffda", 0, 3}, {"a\xffb\xffc", 1, 4}, {"\xc3", 0, 1}, {"a\xc3", 1, 2}, {"éé\xc3aé", 4, 5},
		{"\ufffd\ufffdx", 0, 6},
	} {
		if got := validPrefix(tt.text); got != tt.prefix {
			t.Errorf("%q is valid up to %d", tt.text, got)
		}
		if got := validSuffix(tt.text); got != tt.suffix {
			t.Errorf("%q is valid from %d", tt.text, got)
		}
	}
}

// A class of a regular expression ends where package regexp says: in it a $ is no
// name.
func TestWhereAClassEnds(t *testing.T) {
	for pattern, want := range map[string]int{
		"[a]": 2, "[a]b]": 2, "[]": 2, "[]]": 2, "[]a]b": 3, "[^]": 3, "[^]]": 3, "[^a]": 3, "[^]a]": 4, `[\]]`: 3, `[a\]b]`: 5, "[[:alpha:]]": 10, "[[:alpha:]b]": 11,
		"[a[:digit:]]": 11, "[[:a]": 4, "[a": 2, "[": 1, `[\`: 3, "[[:]": 3, "[[]": 2, "[:a:]": 4, "[[::]]": 5,
	} {
		if got := classEnd(pattern, 0); got != want {
			t.Errorf("%s ends at %d, not %d", pattern, got, want)
		}
		if got := classEnd("xy"+pattern, 2); got != want+2 {
			t.Errorf("%s behind two characters ends at %d, not %d", pattern, got, want+2)
		}
	}
}

func TestWhereNamesStandInAPattern(t *testing.T) {
	sub := func(at int) hole { return hole{at, subjectMark} }
	group := func(at int) hole { return hole{at, groupMark} }
	for _, tt := range []struct {
		function, pattern string
		want              []hole
	}{
		{"globMatch", "", nil},
		{"globMatch", "/$sub", []hole{sub(1)}},
		{"globMatch", "$sub", nil},
		{"globMatch", "/a$sub", nil},
		{"globMatch", "/$subs", nil},
		{"globMatch", "/$su", nil},
		{"globMatch", "/$sub/$sub", []hole{sub(1), sub(6)}},
		{"globMatch", "/$group/x/$sub", []hole{group(1), sub(10)}},
		{"globMatch", "/{a,b}/$sub", []hole{sub(7)}},
		{"globMatch", "/{a/$sub/b,c}", nil},
		{"globMatch", "/{a,{b}/$sub/}/$sub", []hole{sub(15)}},
		{"globMatch", `/\{/$sub/\}`, []hole{sub(4)}},
		{"globMatch", `/[{]/$sub`, []hole{sub(5)}},
		{"globMatch", `/[\]{]/$sub`, []hole{sub(7)}},
		{"globMatch", `/[a/$sub]`, nil},
		{"globMatch", `/[a/$sub/]/$sub`, []hole{sub(11)}},
		{"globMatch", `/[\]/$sub/]/$sub`, []hole{sub(12)}},
		{"globMatch", `/[`, nil},
		{"globMatch", "{a/$sub/b}", nil},
		{"globMatch", "[/$sub/]", nil},
		{"globMatch", `/[\`, nil},
		{"globMatch", `/\$sub`, nil},
		{"globMatch", "/$sub(a)", nil},
		{"keyMatch", "/$sub/*/$sub", []hole{sub(1)}},
		{"keyMatch", "/$sub*", nil},
		{"keyMatch", "/$sub/$group", []hole{sub(1), group(6)}},
		{"keyMatch", "/$sub/$sub*/$sub", []hole{sub(1)}},
		{"keyMatch2", "/$sub(a)", []hole{sub(1)}},
		{"keyMatch2", "/$sub)", []hole{sub(1)}},
		{"regexMatch", "^/$sub$", []hole{sub(2)}},
		{"regexMatch", "^/$sub|/$group", []hole{sub(2), group(8)}},
		{"regexMatch", "^/$sub?", nil},
		{"regexMatch", `^/\Q/$sub\E/$sub`, []hole{sub(12)}},
		{"regexMatch", `^/\Q/$sub/`, nil},
		{"regexMatch", `\Q/$sub\E/$sub`, []hole{sub(10)}},
		{"regexMatch", `^\Qa\E[/$sub/]`, nil},
		{"regexMatch", `\\Q/$sub/`, []hole{sub(4)}},
		{"regexMatch", `\E/$sub`, []hole{sub(3)}},
		{"regexMatch", `\\/$sub`, []hole{sub(3)}},
		{"regexMatch", `/\[/$sub`, []hole{sub(4)}},
		{"regexMatch", `/\$sub/$sub`, []hole{sub(7)}},
		{"regexMatch", `[/$sub/]/$sub`, []hole{sub(9)}},
		{"regexMatch", `[/$sub/`, nil},
		{"regexMatch", `[[:]/$sub`, []hole{sub(5)}},
		{"regexMatch", `/$$sub`, nil},
		{"regexMatch", `/$sub/$sub/$sub`, []hole{sub(1), sub(6), sub(11)}},
		{"=~", "/$sub", nil},
		{"==", "/$sub", nil},
	} {
		got := named(t, tt.function).of.holes(tt.pattern, nil)
		if diff := cmp.Diff(tt.want, got, cmp.AllowUnexported(hole{})); diff != "" {
			t.Errorf("%s %s: %s", tt.function, tt.pattern, diff)
		}
	}
}

// Every segment that is not empty, with its place.
func TestSegmentsOfAPath(t *testing.T) {
	for path, want := range map[string]string{
		"": "", "a": "", "/": "", "/a": "a@1 ", "a/b": "b@2 ", "/a/b": "a@1 b@3 ", "//a": "a@2 ", "/a//b/": "a@1 b@4 ", "/ab/c": "ab@1 c@4 ",
	} {
		got := ""
		for segment, at := range segments(path) {
			got += segment + "@" + string(rune('0'+at)) + " "
		}
		if got != want {
			t.Errorf("%q: %q, not %q", path, got, want)
		}
	}
	for segment := range segments("/a/b") {
		if segment == "b" {
			t.Error("it goes on after it was left")
		}
		break
	}
}

func TestWhetherANameIsTheSegmentAtAPlace(t *testing.T) {
	for _, tt := range []struct {
		path string
		at   int
		name string
		end  int
		ok   bool
	}{
		{"/a/b", 1, "a", 2, true}, {"/a/b", 3, "b", 4, true}, {"/a/b", 1, "b", 2, false}, {"/ab/b", 1, "a", 3, false}, {"/a", 1, "ab", 2, false},
		{"/a/b", 0, "a", 0, false}, {"a/b", 0, "a", 0, false}, {"/ab", 2, "b", 0, false}, {"/a/", 3, "", 0, false}, {"/", 1, "", 0, false}, {"/a", 2, "a", 0, false}, {"/a", 3, "a", 0, false},
	} {
		if end, ok := standsFor(tt.path, tt.at, tt.name); ok != tt.ok || ok && end != tt.end {
			t.Errorf("%q at %d of %q: %d, %t", tt.name, tt.at, tt.path, end, ok)
		}
	}
}

// What $sub and $group stand for is found in the path, each once, with memory of the
// caller's or without.
func TestNamesInAPath(t *testing.T) {
	all := Names{Subject: "alice", Groups: []string{"a", "b", "c"}}
	for path, want := range map[string]Names{
		"/x":             {},
		"/alice":         {Subject: "alice"},
		"/b/a/b":         {Groups: []string{"b", "a"}},
		"/c/alice/c":     {Subject: "alice", Groups: []string{"c"}},
		"/alicex/ab/b.c": {},
		"alice/a":        {Groups: []string{"a"}},
	} {
		roomy := all
		roomy.Room = &Room{}
		for range 2 {
			for _, in := range []Names{all.In(path), roomy.In(path)} {
				if in.Subject != want.Subject || !slices.Equal(in.Groups, want.Groups) || !in.in {
					t.Errorf("%s: %+v", path, in)
				}
			}
		}
	}
	for _, none := range []Names{{}, {Groups: []string{}}} {
		if in := none.In("/a"); in.Subject != "" || len(in.Groups) > 0 {
			t.Errorf("of no names there is %+v", in)
		}
	}
	if in := (Names{Groups: []string{"a", "b"}}).In("/a"); len(in.Groups) != 1 || in.Subject != "" {
		t.Errorf("of a group alone there is %+v", in)
	}
	if in := (Names{Subject: "a"}).In("/b"); in.Subject != "" {
		t.Errorf("of a subject that is not there there is %+v", in)
	}
	if in := (Names{Subject: "a"}).In("/a"); in.Subject != "a" {
		t.Errorf("of a subject alone there is %+v", in)
	}
	if in := all.In("/a/b").In("/c"); !slices.Equal(in.Groups, []string{"a", "b"}) || in.Subject != "" {
		t.Errorf("of the names in one path there are %+v in another", in)
	}
	all.Room = &Room{}
	if n := testing.AllocsPerRun(100, func() { all.In("/a/b/c") }); n != 0 {
		t.Errorf("with room for them, names take memory %v times", n)
	}
}

// A match leaves of the groups those that are in the path, once one is asked for, and
// takes no memory where there is room for it.
func TestAMatchNarrowsTheGroups(t *testing.T) {
	names := Names{Subject: "alice", Groups: []string{"a", "b", "c"}, Room: &Room{}}
	var m Cache
	for _, tt := range []struct {
		pattern string
		groups  []string
	}{{"/x/*", []string{"a", "b", "c"}}, {"/$sub/*", []string{"a", "b", "c"}}, {"/alice/$group/*", []string{"b"}}} {
		if ok, err := m.MatchPath(keyMatch2, "/alice/b/x", tt.pattern, 1, &names); ok != (tt.pattern != "/x/*") || err != nil || !slices.Equal(names.Groups, tt.groups) {
			t.Errorf("%s: %t, %v, and %q are left", tt.pattern, ok, err, names.Groups)
		}
	}
	if n := testing.AllocsPerRun(100, func() { _, _ = m.MatchPath(keyMatch2, "/alice/b/x", "/alice/$group/*", 1, &names) }); n != 0 {
		t.Errorf("a match takes memory %v times", n)
	}
}

// No path holds what stands for names; where one does all the same, wherever it is, no
// pattern with names answers.
func TestAPathWithAMarkIsRefused(t *testing.T) {
	for _, path := range []string{"/home/alice/\x01", "/home/alice/\x02", "\x03/home/alice/x", "/home/alice/x\x03", "\x01", "\x02/", "\x01/home/alice/x"} {
		for _, f := range []Func{globMatch, keyMatch, keyMatch2, keyMatch5, regexMatch} {
			if ok, err := f.MatchPath(path, "/home/$sub/*", Names{Subject: "alice"}); ok || err != errMarks {
				t.Errorf("%s, %q: %t, %v", f, path, ok, err)
			}
		}
	}
	for _, path := range []string{"/home/alice/\x00", "/home/alice/\x04"} {
		if _, err := globMatch.MatchPath(path, "/home/$sub/*", Names{Subject: "alice"}); err != nil {
			t.Errorf("%q: %v", path, err)
		}
	}
}

// A glob that takes too long is refused with names in it too, where nobody has checked
// it before.
func TestAGlobWithNamesThatTakesTooLong(t *testing.T) {
	slow := "/$sub/*" + strings.Repeat("{a,b,c,d}", 5) + strings.Repeat("x", 100)
	if err := globMatch.Check(slow); err == nil {
		t.Fatal("it does not take long")
	}
	var m Cache
	if ok, err := m.MatchPath(globMatch, "/alice/aaaaa/x", slow, NoNumber, &Names{Subject: "alice"}); ok || err == nil {
		t.Errorf("%t, %v", ok, err)
	}
}

func TestFillPutsNamesIntoAText(t *testing.T) {
	for _, tt := range []struct {
		text, subject, group, want string
		ok                         bool
	}{
		{"/a", "", "", "/a", true}, {"/$sub/x", "alice", "", "/alice/x", true}, {"/$sub/x", "", "g", "//x", false}, {"/$group", "alice", "g", "/g", true},
		{"/$group/$sub", "alice", "", "//alice", false}, {"/$group/$sub/b", "alice", "g", "/g/alice/b", true}, {"/$subs", "alice", "g", "/$subs", true},
	} {
		if got, ok := Fill(tt.text, tt.subject, tt.group); got != tt.want || ok != tt.ok {
			t.Errorf("%s: %s, %t", tt.text, got, ok)
		}
	}
	for function, want := range map[string]string{"/a": "", "/$sub": "subject", "/$group": "group", "/$group/$sub": "subject group", "/$subs": "", "/{/$sub/}": ""} {
		subject, group := globMatch.AsksNames(function)
		if got := strings.TrimSpace(map[bool]string{true: "subject "}[subject] + map[bool]string{true: "group"}[group]); got != want {
			t.Errorf("%s asks for %q", function, got)
		}
	}
}

func TestWhatCanStandInAPath(t *testing.T) {
	for name, want := range map[string]bool{"": false, ".": false, "..": false, "...": true, "a": true, "/": false, "a/b": false, "/a": false, "a/": false, ".a": true} {
		if CanStand(name) != want {
			t.Errorf("%q: %t", name, !want)
		}
	}
}

// The marks are cut out of every class of an expression.
func TestRangesWithoutSome(t *testing.T) {
	for _, tt := range []struct{ ranges, want string }{
		{"", ""}, {"ab", "ab"}, {"mp", ""}, {"lq", "llqq"}, {"mm", ""}, {"pp", ""}, {"ll", "ll"}, {"qq", "qq"}, {"an", "al"}, {"oz", "qz"}, {"az", "alqz"},
		{"acmpxz", "acxz"}, {"abnn", "ab"}, {"amxz", "alxz"}, {"pz", "qz"}, {"am", "al"}, {"ap", "al"}, {"mz", "qz"},
	} {
		if got := string(cutOut([]rune(tt.ranges), 'm', 'p')); got != tt.want {
			t.Errorf("%q without m to p is %q, not %q", tt.ranges, got, tt.want)
		}
	}
	m := marker{cuts: true}
	m.class([]rune{0, unicode.MaxRune})
	if want := anyMarks + `[\x{0}-\x{0}\x{4}-\x{3e}\x{40}-\x{10ffff}]`; m.String() != want {
		t.Errorf("any character is %s", m.String())
	}
	for _, ranges := range [][]rune{{1, 3}, {'?', '?'}, {2, 2, '?', '?'}} {
		m := marker{cuts: true}
		if m.class(ranges); m.String() != nothing {
			t.Errorf("%q is %s", ranges, m.String())
		}
	}
	for _, tt := range []struct {
		cuts, folds bool
		letter      rune
		want        string
	}{
		{false, false, 'a', anyMarks + `\x{61}`}, {false, true, 'a', anyMarks + `(?i:\x{61})`}, {true, false, '?', nothing}, {false, false, '?', anyMarks + `\x{3f}`},
		{false, false, 1, nothing}, {false, true, 2, nothing}, {true, false, 3, nothing}, {false, false, 4, anyMarks + `\x{4}`}, {false, false, 0, anyMarks + `\x{0}`}, {true, true, 'b', anyMarks + `(?i:\x{62})`},
	} {
		m := marker{cuts: tt.cuts}
		if m.letter(tt.letter, tt.folds); m.String() != tt.want {
			t.Errorf("the letter %q is %s, not %s", tt.letter, m.String(), tt.want)
		}
	}
}

// Each piece of an expression means for marked paths what it does for others.
func TestExpressionsForMarkedPaths(t *testing.T) {
	for _, tt := range []struct {
		function, pattern, path string
		want                    bool
	}{
		{"regexMatch", `^/$sub/a{2,3}$`, "/alice/aa", true},
		{"regexMatch", `^/$sub/a{2,3}$`, "/alice/a", false},
		{"regexMatch", `^/$sub/a{2,3}$`, "/alice/aaaa", false},
		{"regexMatch", `^/$sub/a{2,}$`, "/alice/aaaaa", true},
		{"regexMatch", `^/$sub/a{0,1}$`, "/alice/", true},
		{"regexMatch", `^/$sub/a{2}$`, "/alice/aaa", false},
		{"regexMatch", `^/$sub/a*?b+?c??$`, "/alice/aabbc", true},
		{"regexMatch", `^/$sub/a+$`, "/alice/", false},
		{"regexMatch", `^/$sub/(?s:.)$`, "/alice/\n", true},
		{"regexMatch", `^/$sub/.$`, "/alice/\n", false},
		{"regexMatch", `^/$sub/.$`, "/alice/\t", true},
		{"regexMatch", `^/$sub/.$`, "/alice/\v", true},
		{"regexMatch", `^/$sub/(?m:^)a`, "/alice/a", false},
		{"regexMatch", `^/$sub/\n(?m:^)a`, "/alice/\na", true},
		{"regexMatch", `^/$sub/a(?m:$)`, "/alice/a\nb", true},
		{"regexMatch", `^/$sub/a$`, "/alice/a\nb", false},
		{"regexMatch", `/$sub/a`, "/x/alice/a", true},
		{"regexMatch", `\A/$sub/a\z`, "/x/alice/a", false},
		{"regexMatch", `^/$sub/[^\x00-\x{10FFFF}]`, "/alice/a", false},
		{"regexMatch", `^/$sub/()a`, "/alice/a", true},
		{"regexMatch", `^/$sub/(?i:É)`, "/alice/é", true},
		{"regexMatch", `^/$sub/(?i:k)`, "/alice/\u212a", true}, // the kelvin sign
		{"regexMatch", `^/$sub/(|a)b`, "/alice/b", true},
		{"regexMatch", `^/$sub/(ab|cd)$`, "/alice/", false},
		{"regexMatch", `^/$sub/(ab|cd)$`, "/alice/cd", true},
		{"keyMatch2", "/$sub/:/a", "/alice/x/a", false},
		{"keyMatch2", "/$sub/:/a", "/alice/:/a", true},
		{"keyMatch2", "/:/a", "/x/a", false},
		{"keyMatch2", "/:/a", "/:/a", true},
		{"keyMatch2", "/a/:", "/a/x", false},
		{"keyMatch2", "/a/:", "/a/:", true},
		{"regexMatch", `^/$sub/\?`, "/alice/?", true},
		{"regexMatch", `^/$sub/[?]`, "/alice/?", true},
		{"regexMatch", `^/$group/$sub$`, "/staff/alice", true},
		{"regexMatch", `^/$sub/$group$`, "/staff/alice", false},
		{"regexMatch", `^/$sub/$group$`, "/alice/alice", true}, // who is called like a group
		{"regexMatch", `^/$group/$sub$`, "/alice/alice", true},
		{"keyMatch5", "/$sub/(a|b)", "/alice/a?q", true},
		{"keyMatch5", "/$sub/(a|b)", "/alice/a?q/b", true},
		{"keyMatch5", "/$sub/(a|b)", "/alice/ac", false},
		{"keyMatch5", "/(a|b)/$sub", "/b/alice?q", false}, // that segment is alice?q
		{"keyMatch5", "/(a|b)/$sub/c", "/b?/alice/c", false},
		{"keyMatch2", "/$sub/(a|b)", "/alice/a?q", false},
		{"keyMatch4", "/{x}/$sub/{x}/(?:a|b)", "/alice/alice/alice/b", true},
		{"keyMatch4", "/{x}/$sub/{x}/(?:a|b)", "/staff/alice/alice/b", false},
		{"keyMatch4", "/b*?{x}/$sub/{x}", "/bbx/alice/bbx", true},
		{"keyMatch4", "/b*?{x}/$sub/{x}", "/bbx/alice/x", false},
		{"keyMatch4", "/b*{x}/$sub/{x}", "/bbx/alice/x", true},
		{"keyMatch4", "/b+?{x}/$sub/{x}", "/bbx/alice/bx", true},
		{"keyMatch4", "/b??{x}/$sub/{x}", "/bx/alice/bx", true},
	} {
		got, err := named(t, tt.function).MatchPath(tt.path, tt.pattern, Names{Subject: "alice", Groups: []string{"staff", "alice"}})
		if err != nil || got != tt.want {
			t.Errorf("%s(%q, %q): %t, %v", tt.function, tt.path, tt.pattern, got, err)
		}
	}
	for _, pattern := range []string{`^/$sub\b`, `^/$sub/\bx`, `^/$sub/\Bx`, `^/$sub/(a|\b)`} {
		if err := regexMatch.Check(pattern); pattern != `^/$sub\b` && (err == nil || !strings.Contains(err.Error(), `\b`)) {
			t.Errorf("%s: %v", pattern, err)
		}
	}
}

// What globMatch reads only where a path comes to it is refused before.
func TestGlobsThatAreRefused(t *testing.T) {
	for pattern, want := range map[string]string{
		"/a": "", "/[a]": "", "/[^a]": "", `/[\[]`: "", `/[\{\}]`: "", "/{a,b}": "", "/{a,[b]}": "", "/[a],b": "", "/[,]": "", `/{[\,],b}`: "", "/a,b": "", `/\[,`: "", `/\{[,]`: "", "/{a}[,]": "", "/{a,{b,c}}": "",
		"/[[]": "inside [ ]", "/[a{]": "inside [ ]", "/[}]": "inside [ ]", "/{a,[,]}": "inside [ ]", "/{a[b,c],d}": "inside [ ]", "/[": "not closed", "/{": "not closed", `/\`: "not closed",
		"/" + strings.Repeat("{a,b}", 10):          "",
		"/" + strings.Repeat("{a,b}", 11):          "stands for over 1024 patterns",
		"/" + strings.Repeat("{a,b,c,d}", 5):       "",
		"/" + strings.Repeat("{a,b,c,d}", 5) + "{": "not closed",
		"/{a,{b,c}}" + strings.Repeat("{a,b}", 8):  "",
		"/{a,{b,c}}" + strings.Repeat("{a,b}", 9):  "stands for over 1024 patterns",
		"/" + strings.Repeat("{a}", 30):            "",
	} {
		err := globMatch.Check(pattern)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v", pattern, err)
		}
	}
}

// A name behind a ** is tried so often, and no oftener.
func TestANameIsTriedSoOften(t *testing.T) {
	for tries, fine := range map[int]bool{1: true, maxTries: true, maxTries + 1: false} {
		ok, err := globMatch.MatchPath(strings.Repeat("/a", tries), "/**/$sub/x", Names{Subject: "a"})
		if ok || (err == nil) != fine {
			t.Errorf("%d times: %t, %v", tries, ok, err)
		}
	}
	// What fails for one group is not made good by the next.
	if ok, err := globMatch.MatchPath(strings.Repeat("/a", maxTries+1)+"/b/x", "/**/$group/x", Names{Groups: []string{"a", "b"}}); ok || err == nil {
		t.Errorf("two groups, of which one is tried too often: %t, %v", ok, err)
	}
	// The tries of all holes count together.
	_, err := globMatch.MatchPath(strings.Repeat("/a", 60), "/**/$sub/**/$sub/x", Names{Subject: "a"})
	if !errors.Is(err, errTries) {
		t.Errorf("sixty by sixty: %v", err)
	}
}

// The meter is told of each piece of a long match, and of no more.
func TestALongMatchTellsItsMeter(t *testing.T) {
	const instructions = 100
	var told []int
	m := (&Cache{}).Metered(func(steps int) error {
		told = append(told, steps)
		return nil
	})
	text := strings.Repeat("é", 1000)
	r := &meteredText{text: text, meter: m, instructions: instructions}
	read := ""
	for {
		c, size, err := r.ReadRune()
		if err == io.EOF {
			break
		}
		if err != nil || size != len(string(c)) {
			t.Fatalf("%q, %d, %v", c, size, err)
		}
		read += string(c)
	}
	if read != text {
		t.Errorf("it reads %d bytes, not %d", len(read), len(text))
	}
	const piece = (atOnce/4 + instructions - 1) / instructions * instructions
	if want := slices.Repeat([]int{piece}, 1000*instructions/piece); !slices.Equal(told, want) {
		t.Errorf("the meter is told of %v, not %v", told, want)
	}
	full := errors.New("enough")
	calls := 0
	r = &meteredText{text: text, instructions: atOnce / 4, meter: m.Metered(func(int) error {
		if calls++; calls > 1 {
			return nil
		}
		return full
	})}
	for range 2 { // once is for ever
		if _, size, err := r.ReadRune(); err != io.EOF || size != 0 || r.err != full {
			t.Errorf("a meter that has had enough: %d, %v, %v", size, err, r.err)
		}
	}
	r = &meteredText{text: text, meter: m.Metered(func(int) error { return full }), instructions: atOnce/4 - 1}
	if _, size, err := r.ReadRune(); err != nil || size != 2 {
		t.Errorf("one step before: %d, %v", size, err)
	}
}

// A match of many steps is the same whether it is made at once or as its meter
// allows, its groups too.
func TestLongMatchesAreThoseOfOneGo(t *testing.T) {
	for _, tt := range []struct{ expression, text string }{
		{`^/([^/]+)/(a)?(b)?/([^/]+)$`, "/x/b/é"}, {`^(a*)(c?)`, "aab"}, {`(x)|(y)`, "aaay"}, {`b`, "aaa"}, {`^$`, ""}, {`(é+)(a)$`, "ééa"}, {`()a`, "a"},
	} {
		once, err := newExpression("keyMatch4", tt.expression)
		if err != nil {
			t.Fatal(err)
		}
		pieces := *once
		pieces.instructions = atOnce + 1
		steps, most := 0, 0
		m := (&Cache{}).Metered(func(n int) error {
			steps, most = steps+n, max(most, n)
			return nil
		})
		for _, cache := range []*Cache{nil, {}, m} {
			for _, e := range []*expression{once, &pieces} {
				groups, err := e.find(cache, tt.text)
				if want := once.regex.FindStringSubmatch(tt.text); err != nil || !slices.Equal(groups, want) || (groups == nil) != (want == nil) {
					t.Errorf("%s finds %q in %q, not %q: %v", tt.expression, groups, tt.text, want, err)
				}
				if ok, err := e.matches(cache, tt.text); err != nil || ok != once.regex.MatchString(tt.text) {
					t.Errorf("%s matches %q: %t, %v", tt.expression, tt.text, ok, err)
				}
			}
		}
		if least := 2 * once.instructions * len(tt.text); steps < least || tt.text != "" && most < atOnce {
			t.Errorf("%s: its meter is told of %d steps in all, %d at once", tt.expression, steps, most)
		}
		full := errors.New("enough")
		m = m.Metered(func(int) error { return full })
		for _, e := range []*expression{once, &pieces} {
			if tt.text == "" && e == &pieces {
				continue // there is nothing to read
			}
			if groups, err := e.find(m, tt.text); groups != nil || err != full {
				t.Errorf("%s finds %q when its meter has had enough: %v", tt.expression, groups, err)
			}
			if ok, err := e.matches(m, tt.text); ok || err != full {
				t.Errorf("%s matches when its meter has had enough: %t, %v", tt.expression, ok, err)
			}
		}
	}
}

// A cache returns what a function made of a pattern, and of no other; what has no
// number, and what nobody keeps, it does not remember.
func TestWhatACacheRemembers(t *testing.T) {
	m := NewCache(4)
	e, err := newExpression("keyMatch2", "^/a$")
	if err != nil {
		t.Fatal(err)
	}
	spent := 0
	metered := m.Metered(func(steps int) error {
		spent += steps
		return nil
	})
	if err := metered.keep(e, 3); err != nil || spent != compileSteps*e.instructions {
		t.Errorf("it is kept for %d steps: %v", spent, err)
	}
	if m.recall("keyMatch2", 3) != e || metered.recall("keyMatch2", 3) != e {
		t.Error("what was kept is not there")
	}
	if m.recall("keyMatch3", 3) != nil || m.recall("keyMatch2", 4) != nil || m.recall("keyMatch2", NoNumber) != nil || (&Cache{}).recall("keyMatch2", 3) != nil || (*Cache)(nil).recall("keyMatch2", 3) != nil {
		t.Error("what was not kept is there")
	}
	other, err := newExpression("keyMatch2", "^/b$")
	if err != nil {
		t.Fatal(err)
	}
	for _, cache := range []*Cache{m, {}, nil} {
		if err := cache.keep(other, NoNumber); err != nil || cache.recall("keyMatch2", NoNumber) != nil {
			t.Errorf("what has no number is kept: %v", err)
		}
	}
	if err := (&Cache{}).keep(other, 5); err != nil {
		t.Error(err)
	}
	full := errors.New("enough")
	if err := m.Metered(func(int) error { return full }).keep(other, 6); err != full {
		t.Errorf("a meter that has had enough: %v", err)
	}
	if got := m.compiled.remembered.Load(); got != int64(e.instructions+other.instructions) {
		t.Errorf("%d instructions are remembered", got)
	}
}

func TestTooLargeAnExpressionIsNone(t *testing.T) {
	for text, fine := range map[string]bool{"^/a{2}$": true, "^/a{1000}{1000}$": false, "(": false, "a{2": true, strings.Repeat("a", 5000): true} {
		e, err := newExpression("regexMatch", text)
		if (err == nil) != fine {
			t.Errorf("%.20s: %v", text, err)
		}
		if err == nil && e.instructions < 1 {
			t.Errorf("%.20s has %d instructions", text, e.instructions)
		}
	}
}

// A name is marked in a path as whose it is.
func TestMarkedPaths(t *testing.T) {
	for path, want := range map[string]string{
		"/x": "/x", "/alice": "/\x01alice\x03", "/alice/": "/\x01alice\x03/", "/x/staff/y": "/x/\x02staff\x03/y", "/both/x": "/both/x", "/alice/staff": "/\x01alice\x03/\x02staff\x03", "alice": "alice", "/alicex": "/alicex",
	} {
		if got := (one{"alice", "staff"}).mark(path); got != want || withoutMarks(got) != path {
			t.Errorf("%q is %q", path, got)
		}
	}
	if got := (one{"a", "a"}).mark("/a/b"); got != "/\x01\x02a\x03/b" || withoutMarks(got) != "/a/b" {
		t.Errorf("who is called like a group is %q", got)
	}
	if got := (one{}).mark("//a"); got != "//a" {
		t.Errorf("nobody is %q", got)
	}
	for c, want := range map[rune]bool{0: false, 1: true, 2: true, 3: true, 4: false} {
		if isMark(c) != want {
			t.Errorf("%d is a mark: %t", c, !want)
		}
	}
}

// What is left of anchors between their ends and the names that they hold.
func TestAnchorsWithoutNames(t *testing.T) {
	for _, tt := range []struct{ of, want Anchors }{
		{Anchors{}, Anchors{}},
		{Anchors{Prefix: "/a/b", Exact: true}, Anchors{Prefix: "/a/b", Exact: true}},
		{Anchors{Prefix: "/a/\x01/b", Exact: true}, Anchors{Prefix: "/a/"}},
		{Anchors{Prefix: "/a/\x02/\x01", Exact: true}, Anchors{Prefix: "/a/"}},
		{Anchors{Prefix: "\x01/a", Suffix: "x"}, Anchors{Suffix: "x"}},
		{Anchors{Prefix: "/a", Suffix: "\x02/x"}, Anchors{Prefix: "/a", Suffix: "/x"}},
		{Anchors{Prefix: "/a", Suffix: "/\x01/x"}, Anchors{Prefix: "/a", Suffix: "/x"}},
		{Anchors{Prefix: "/a", Suffix: "b\x02/\x01/x"}, Anchors{Prefix: "/a", Suffix: "/x"}},
		{Anchors{Suffix: "x\x02"}, Anchors{}},
		{Anchors{Suffix: "x\x03"}, Anchors{Suffix: "x\x03"}},
	} {
		if got := tt.of.unnamed(); got != tt.want {
			t.Errorf("%#v: %#v, not %#v", tt.of, got, tt.want)
		}
	}
	for pattern, want := range map[string]Anchors{
		"":             {Exact: true},
		"/a":           {Prefix: "/a", Exact: true},
		"/a\xff":       {Prefix: "/a"},
		"/a/**":        {Prefix: "/a"},
		"/a/*.pdf":     {Prefix: "/a", Suffix: ".pdf"},
		"/a/b*/c":      {Prefix: "/a/b", Suffix: "c"},
		`/a/\é/x`:      {Prefix: "/a", Suffix: "x"},
		`/a/\x\yz`:     {Prefix: "/a", Suffix: "z"},
		"/a/{b,c}/d.e": {Prefix: "/a", Suffix: "d.e"},
		"/a/[b]c]d":    {Prefix: "/a", Suffix: "d"},
		"/a\xffb/*":    {Prefix: "/a"},
		"*b\xffc":      {Suffix: "c"},
		"/a?b":         {Prefix: "/a", Suffix: "b"},
	} {
		if got := globMatch.Anchors(pattern); got != want {
			t.Errorf("globMatch %q: %#v, not %#v", pattern, got, want)
		}
	}
	wild := string([]byte{AnyRune})
	for pattern, want := range map[string]Anchors{
		"/a/:x/b":  {Prefix: "/a/", Suffix: "/b"},
		"/a/:x":    {Prefix: "/a/"},
		"/a.b":     {Prefix: "/a" + wild + "b", Suffix: "/a" + wild + "b"},
		"/ab":      {Prefix: "/ab", Exact: true},
		"/a/*":     {Prefix: "/a/"},
		"/a/*/b.c": {Prefix: "/a/", Suffix: "/b" + wild + "c"},
		"/ab*c":    {Prefix: "/a", Suffix: "c"},
		"/ab?c":    {Prefix: "/a", Suffix: "c"},
		"/ab+c":    {Prefix: "/a", Suffix: "c"},
		"/ab{2}c":  {Prefix: "/a", Suffix: "c"},
		"/ab(c)d":  {Prefix: "/a"},
		`/ab\.d`:   {Prefix: "/a"},
		"/ab[c]d":  {Prefix: "/ab", Suffix: "d"},
		"/ab]c":    {Prefix: "/ab", Suffix: "c"},
		"/ab$c":    {Prefix: "/ab", Suffix: "c"},
		"/a|b":     {},
		"/:x*b":    {Prefix: "/"},
		"/é*b":     {Prefix: "/", Suffix: "b"},
		"/a\xff":   {Prefix: "/a"},
		"*a":       {Suffix: "a"},
	} {
		if got := keyMatch2.Anchors(pattern); got != want {
			t.Errorf("keyMatch2 %q: %#v, not %#v", pattern, got, want)
		}
	}
	for pattern, want := range map[string]Anchors{
		"^/ab$": {Prefix: "/ab", Exact: true}, "^/ab": {Prefix: "/ab"}, "/ab$": {Suffix: "/ab"}, "/ab": {}, "^/a*": {Prefix: "/"}, "^/*": {}, "^/:a$": {Prefix: "/:a", Exact: true}, "^a|b$": {}, "^.$": {Prefix: wild, Suffix: wild},
	} {
		if got := regexMatch.Anchors(pattern); got != want {
			t.Errorf("regexMatch %q: %#v, not %#v", pattern, got, want)
		}
	}
}

// A name stands where the pattern says, and the rest is compared byte for byte.
func TestWhatStandsBesideANameIsCompared(t *testing.T) {
	for _, tt := range []struct {
		function, path, pattern string
		want                    bool
	}{
		{"globMatch", "/home/alice/x", "/home/$sub/**", true},
		{"globMatch", "/hame/alice/x", "/home/$sub/**", false},
		{"globMatch", "/homo/alice/hr/x", "/home/$sub/hr/*", false},
		{"globMatch", "/home/alice/hz/staff", "/home/$sub/hr/$group", false},
		{"keyMatch", "/home/alice/x", "/home/$sub/*", true},
		{"keyMatch", "/hame/alice/x", "/home/$sub/*", false},
		{"keyMatch", "/home/alice/hz/staff", "/home/$sub/hr/$group", false},
		{"keyMatch", "/x/alice", "*/$sub", true}, // it reads up to the star
		{"globMatch", "/a/b", "/*/$group", true}, // by the second group of the path
		{"regexMatch", "/a/b", "^/[^/]/$group$", true},
		{"keyMatch2", "/a/b", "/:x/$group", true},
		{"globMatch", "/x", "/$group", false},
		{"regexMatch", "/x", "^(/$group|/x)$", true}, // without one
		{"regexMatch", "/alice/aab", "^/$sub/(?:a){0,0}b$", false},
		{"keyMatch2", "/a\nb", "/*", false},
		{"keyMatch2", "/a\nb", "/:x", true},
	} {
		got, err := named(t, tt.function).MatchPath(tt.path, tt.pattern, Names{Subject: "alice", Groups: []string{"a", "b", "staff"}})
		if err != nil || got != tt.want {
			t.Errorf("%s(%q, %q): %t, %v", tt.function, tt.path, tt.pattern, got, err)
		}
	}
	// With room that another pattern has used.
	var room Room
	names := Names{Subject: "alice", Room: &room}
	var m Cache
	for _, tt := range []struct {
		pattern string
		want    bool
	}{{"/$sub/$sub/x", false}, {"/home/$sub/x", true}, {"/**/$sub/x", true}, {"/$sub/x", false}, {"/home/$sub/y", false}} {
		if got, err := m.MatchPath(globMatch, "/home/alice/x", tt.pattern, NoNumber, &names); err != nil || got != tt.want {
			t.Errorf("%s: %t, %v", tt.pattern, got, err)
		}
	}
}

// A match that cannot be made is an error, and so is one whose meter has had enough.
func TestMatchesThatFail(t *testing.T) {
	for function, patterns := range map[string][]string{"regexMatch": {"^/$sub/(", `^/$sub/\bx`}, "keyMatch2": {"/$sub/(", `/$sub/a\b`, "/("}, "globMatch": {"/$sub/[", "/["}} {
		for _, pattern := range patterns {
			if ok, err := named(t, function).MatchPath("/alice/xyz", pattern, Names{Subject: "alice"}); ok || err == nil {
				t.Errorf("%s %s: %t, %v", function, pattern, ok, err)
			}
			if err := named(t, function).Check(pattern); err == nil {
				t.Errorf("%s %s is no error", function, pattern)
			}
		}
	}
	for function, patterns := range map[string][]string{"keyMatch2": {`/a\b`, "/[ab]", "/(a|b)/$sub"}, "keyMatch4": {"/{x}/[ab]", "/{x}/{x}", "/[ab]/$sub/{x}"}, "regexMatch": {`a\b`, "^/(a|b)/$sub$"}} {
		for _, pattern := range patterns {
			if err := named(t, function).Check(pattern); err != nil {
				t.Errorf("%s %s: %v", function, pattern, err)
			}
		}
	}
	if ok, err := keyMatch4.Match("/x/a", "/{x}/(a)"); ok || err == nil || !strings.Contains(err.Error(), "finds 2 values for 1 names") {
		t.Errorf("a value without a name: %t, %v", ok, err)
	}
	full := errors.New("enough")
	m := (&Cache{}).Metered(func(int) error { return full })
	for function, pattern := range map[string]string{"globMatch": "/a/*", "keyMatch2": "/a/:x", "regexMatch": "^/a", "keyMatch4": "/{x}/[ab]"} {
		if ok, err := m.Match(named(t, function), "/a/b", pattern, NoNumber); ok || err != full {
			t.Errorf("%s, whose meter has had enough: %t, %v", function, ok, err)
		}
	}
	// The tries of an inner name end those of the outer one.
	if ok, err := globMatch.MatchPath("/b"+strings.Repeat("/a", maxTries+1)+"/b/x", "/**/$group/**/$sub/x", Names{Subject: "a", Groups: []string{"b"}}); ok || err != errTries {
		t.Errorf("%t, %v", ok, err)
	}
	for pattern, fine := range map[string]bool{
		"/a" + `\}b`: true, "/{" + strings.Repeat("a,", 40) + "a}{a,b,c,d,e}{a,b,c,d,e}": false, "/{" + strings.Repeat("a,", 40) + "a}{a,b,c,d,e}{a,b,c,d}": true,
	} {
		if err := globMatch.Check(pattern); (err == nil) != fine {
			t.Errorf("%s: %v", pattern, err)
		}
	}
}

func TestAnchorsOfOddPatterns(t *testing.T) {
	for _, tt := range []struct {
		function, pattern string
		want              Anchors
	}{
		{"keyMatch", "/a*", Anchors{Prefix: "/a"}},
		{"keyMatch", "/a", Anchors{Prefix: "/a", Exact: true}},
		{"keyMatch2", "/a/?b", Anchors{Prefix: "/a", Suffix: "b"}},
		{"keyMatch2", "/a/+b", Anchors{Prefix: "/a", Suffix: "b"}},
		{"keyMatch2", "/a/*", Anchors{Prefix: "/a/"}},
		{"keyMatch2", ":x/b", Anchors{Suffix: "/b"}},
		{"keyMatch2", "/:x/b", Anchors{Prefix: "/", Suffix: "/b"}},
	} {
		if got := named(t, tt.function).PathAnchors(tt.pattern); got != tt.want {
			t.Errorf("%s %s: %+v, not %+v", tt.function, tt.pattern, got, tt.want)
		}
	}
	for pattern, want := range map[string]string{"/$x": "/$x true", "/$x/*": "/$x/ false", "/$sub": "/ false", "/a/$sub/*": "/a/ false"} {
		prefix, whole := keyMatch.Literal(pattern)
		if got := fmt.Sprint(prefix, " ", whole); got != want {
			t.Errorf("%s begins with %s, not %s", pattern, got, want)
		}
	}
}

func TestNamesThatAPatternAsks(t *testing.T) {
	for pattern, want := range map[string]string{"/$sub": "true false", "/$group": "false true", "/$sub/$group": "true true", "/$group/$sub": "true true", "/a": "false false", "/$x": "false false"} {
		subject, group := globMatch.AsksNames(pattern)
		if got := fmt.Sprint(subject, " ", group); got != want {
			t.Errorf("%s asks %s, not %s", pattern, got, want)
		}
	}
	for text, want := range map[string]string{"\x01a\x03": "a", "a": "a", "/\x02b\x03/": "/b/", "": ""} {
		if got := withoutMarks(text); got != want {
			t.Errorf("%q without marks is %q", text, got)
		}
	}
	for name, want := range map[string]bool{"==": false, "keyMatch": true, "=~": true, "ipMatch": true, "keyGet": false, "": false} {
		if check, ok := Checker(name); ok != want || ok != (check != nil) {
			t.Errorf("%q takes patterns: %t", name, ok)
		}
	}
}
