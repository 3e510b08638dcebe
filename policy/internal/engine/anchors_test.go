package engine

import (
	"strings"
	"testing"

	"securefiles/policy/internal/pattern"
	"securefiles/policy/internal/world"

	"github.com/casbin/casbin/v2/util"
	"pgregory.net/rapid"
)

// stockMatch asks Casbin's own function. It is false where that fails.
func stockMatch(function, text, pattern string) (matched bool) {
	defer func() {
		if recover() != nil {
			matched = false
		}
	}()
	switch function {
	case "keyMatch":
		return util.KeyMatch(text, pattern)
	case "keyMatch2":
		return util.KeyMatch2(text, pattern)
	case "keyMatch3":
		return util.KeyMatch3(text, pattern)
	case "keyMatch4":
		return util.KeyMatch4(text, pattern)
	case "keyMatch5":
		return util.KeyMatch5(text, pattern)
	case "regexMatch":
		return util.RegexMatch(text, pattern)
	default:
		ok, err := util.GlobMatch(text, pattern)
		return ok && err == nil
	}
}

// named returns the function of a name that there is.
func named(name string) pattern.Func {
	f, ok := pattern.ByName(name)
	if !ok {
		panic("no function is called " + name)
	}
	return f
}

func indexedFunctions() []string {
	return []string{"keyMatch", "keyMatch2", "keyMatch3", "keyMatch4", "keyMatch5", "globMatch", "regexMatch"}
}

// What each function reads in a way of its own, with a text that matches.
func TestAnchorsOfTrickyPatterns(t *testing.T) {
	type trick struct{ name, function, pattern, text string }
	tricks := []trick{
		{"glob: the slash before ** need not be there", "globMatch", "/é/**", "/é"},
		{"glob: nor the one behind it", "globMatch", "**/f.pdf", "f.pdf"},
		{"glob: nor one behind braces that end in **", "globMatch", "{a,**}/f.pdf", "f.pdf"},
		{"glob: nor both", "globMatch", "/a/**/", "/a"},
		{"glob: a backslash hides the next character", "globMatch", `/a\*b`, "/a*b"},
		{"glob: a star at the end takes the last character's place", "globMatch", "/ab*", "/ab"},
		{"glob: bytes that are not UTF-8 equal U+FFFD", "globMatch", "/\ufffd/*", "/\xff/x"},
		{"glob: as a suffix too", "globMatch", "/*/\ufffd", "/x/\xff"},
		{"a quantifier takes the last character away", "keyMatch2", "/ab?", "/a"},
		{"so does a star that no slash precedes", "keyMatch2", "/ab*", "/a"},
		{"or braces", "keyMatch2", "/ab{0,1}", "/a"},
		{"or a plus, when none is not enough", "keyMatch2", "/ab+", "/abb"},
		{"a dot with a star is nothing at all", "keyMatch2", "/a.*", "/a"},
		{"a quantifier behind a flag takes the one before it", "keyMatch4", "A(?s)?{0,1}", "a"},
		{"and behind an empty quotation", "keyMatch2", `/A\Q\E?`, "/"},
		{"a flag makes other letters", "keyMatch2", "/(?i)ab", "/AB"},
		{"and other suffixes", "regexMatch", "(?i)ab$", "/AB"},
		{"a flag before the caret", "regexMatch", "(?i)^/ab$", "/AB"},
		{"an alternation escapes the caret", "keyMatch2", "/a|/b", "/zzz/b"},
		{"and the dollar", "keyMatch2", "/a|/b", "/a/secret"},
		{"a name swallows its segment", "keyMatch2", "/:a+b/c", "/xyz/c"},
		{"a name at the end", "keyMatch2", "/x/:id", "/x/y"},
		{"a name with a dot", "keyMatch2", "/:id.pdf", "/x"},
		{"a colon before a slash is no name", "keyMatch2", "/a:/b", "/a:/b"},
		{"a dot is any character", "keyMatch2", "/a/report.pdf", "/a/reportXpdf"},
		{"of any length in bytes", "keyMatch2", "/:x/f.pdf", "/a/fépdf"},
		{"a slash too", "keyMatch2", "/:x/f1.pdf", "/x/f1/pdf"},
		{"many dots", "keyMatch2", "/a.b.c.d/*", "/a/b/c/d/x"},
		{"a brace name is greedy", "keyMatch3", "/{a}b{c}d", "/xd"},
		{"a name that stands twice", "keyMatch4", "/{id}/x/{id}", "/1/x/1"},
		{"names with a star between", "keyMatch4", "/{a}/*/{b}{a}", "/1/2/3/41"},
		{"an escape means something else", "keyMatch2", `/\d\d`, "/12"},
		{"an escaped letter", "regexMatch", `^/\x41b$`, "/Ab"},
		{"an escaped dollar ends nothing", "regexMatch", `^/ab\$`, "/ab$c"},
		{"without a caret any text may come before", "regexMatch", "/a/x$", "/secret/a/x"},
		{"without a dollar behind", "regexMatch", "^/a/x", "/a/x/secret"},
		{"a caret with a quantifier is none", "regexMatch", "^*/a", "/b/a"},
		{"slash and star are no more than that", "regexMatch", "^/a/*b", "/ab"},
		{"but a prefix for keyMatch2", "keyMatch2", "/a/*b", "/a/xb"},
		{"regexMatch: an optional slash", "regexMatch", "^/a/?$", "/a"},
		{"keyMatch stops at the first star", "keyMatch", "/a/*/pub", "/a/x/secret"},
		{"keyMatch, a star at once", "keyMatch", "*.pdf", "/x"},
		{"keyMatch without a star is equality", "keyMatch", "/a?b", "/a?b"},
		{"keyMatch5 cuts the query", "keyMatch5", "/a", "/a?x=1"},
		{"and finds the suffix without it", "keyMatch5", "/*/a", "/x/a?x=1"},
		{"U+FFFD equals what is not UTF-8", "keyMatch2", "/\ufffd", "/\xff"},
		{"behind a prefix", "keyMatch2", "/ab\ufffd/*", "/ab\xff/x"},
		{"an anchor that is cut short", "keyMatch2", "/" + strings.Repeat("a", 300) + "/*", "/" + strings.Repeat("a", 300) + "/x"},
		{"a suffix that is cut short", "keyMatch2", "/:x/" + strings.Repeat("é", 300), "/x/" + strings.Repeat("é", 300)},
		{"wild characters far from the end", "keyMatch2", "/:x/a." + strings.Repeat("b", 100), "/x/a." + strings.Repeat("b", 100)},
		{"a suffix that ends in the lowest byte that is not ASCII", "keyMatch3", "/{x}/aÀ", "/y/aÀ"},
		{"a prefix that does", "keyMatch2", "/À/*", "/À/x"},
		{"empty braces are no name", "keyMatch3", "/a/{}", "/a/{}"},
		{"nor behind a name", "keyMatch4", "/{a}/{}", "/b/{}"},
		{"nor behind a letter", "keyMatch5", "/b{}/*", "/b{}/x"},
		{"empty braces of a glob are nothing", "globMatch", "/a{}", "/a"},
		{"a regular expression takes them for letters", "regexMatch", "^/a{}$", "/a{}"},
	}
	// Wild characters around the last place that has a bit, and letters around the
	// last that counts.
	for place := 60; place < 68; place++ {
		l := strings.Repeat("l", place-1)
		tricks = append(tricks,
			trick{"a wild character at a far place", "keyMatch2", "/" + l + ".b/*", "/" + l + "xb/y"},
			trick{"two of them", "keyMatch2", "/" + l + "..b/*", "/" + l + "xyb/y"},
			trick{"one near and one far", "keyMatch2", "/." + l + ".b/*", "/x" + l + "yb/y"},
			trick{"from the end", "keyMatch3", "/{x}/b." + l, "/y/bx" + l},
			trick{"from the end, one near and one far", "keyMatch3", "/{x}/b." + l + ".", "/y/bx" + l + "z"},
			trick{"as long as counts", "keyMatch2", "/" + l + l + ".b/*", "/" + l + l + "xb/y"},
			trick{"as long as counts, from the end", "keyMatch3", "/{x}/b" + l + l, "/y/b" + l + l},
		)
	}
	for _, tt := range tricks {
		if !stockMatch(tt.function, tt.text, tt.pattern) {
			t.Errorf("%s: %s(%q, %q) does not match", tt.name, tt.function, tt.text, tt.pattern)
			continue
		}
		if !found(tt.function, tt.text, tt.pattern) {
			t.Errorf("%s: %s(%q, %q) matches and is not found: %+v", tt.name, tt.function, tt.text, tt.pattern, named(tt.function).Anchors(tt.pattern))
		}
		m := pattern.NewCache(1)
		if ok, err := m.Match(named(tt.function), tt.text, tt.pattern, 0); !ok || err != nil {
			t.Errorf("%s: %s(%q, %q) matches for Casbin, not for us: %v", tt.name, tt.function, tt.text, tt.pattern, err)
		}
	}
}

// Anchors that tell patterns apart, or the index would be none.
func TestAnchorsSayEnough(t *testing.T) {
	any := string([]byte{pattern.AnyRune})
	for _, tt := range []struct {
		function, pattern string
		want              pattern.Anchors
	}{
		{"globMatch", "/u/alice/**", pattern.Anchors{Prefix: "/u/alice"}},
		{"globMatch", "/**/f17.pdf", pattern.Anchors{Suffix: "f17.pdf"}},
		{"globMatch", "/a/report.pdf", pattern.Anchors{Prefix: "/a/report.pdf", Exact: true}},
		{"keyMatch", "/a/b*", pattern.Anchors{Prefix: "/a/b"}},
		{"keyMatch2", "/a/b/*", pattern.Anchors{Prefix: "/a/b/"}},
		{"keyMatch2", "/a/b", pattern.Anchors{Prefix: "/a/b", Exact: true}},
		{"keyMatch2", "/:t/f17", pattern.Anchors{Prefix: "/", Suffix: "/f17"}},
		{"keyMatch2", "/:t/f17.pdf", pattern.Anchors{Prefix: "/", Suffix: "/f17" + any + "pdf"}},
		{"keyMatch3", "/{t}/f17", pattern.Anchors{Prefix: "", Suffix: "/f17"}},
		{"regexMatch", "^/a/.*[.]pdf$", pattern.Anchors{Prefix: "/a/", Suffix: "pdf"}},
		{"regexMatch", "^/a$", pattern.Anchors{Prefix: "/a", Exact: true}},
	} {
		if got := named(tt.function).Anchors(tt.pattern); got != tt.want {
			t.Errorf("%s %q: %+v, want %+v", tt.function, tt.pattern, got, tt.want)
		}
	}
}

// drawTricky draws a pattern of what pattern languages have, and a text that
// looks like it.
func drawTricky(t *rapid.T, function string) (pattern, text string) {
	if function == "keyMatch4" && world.Chance(t, 2) { // names that stand twice
		var p, x strings.Builder
		for range rapid.IntRange(1, 5).Draw(t, "names") {
			p.WriteString(world.OneOf(t, "/{a}", "/{b}", "{a}", "/{a}x{b}", "/*", "/a", "."))
			x.WriteString(world.OneOf(t, "/a", "/b", "a", "/axa", "/axb", "/bxa", "/"))
		}
		return p.String(), x.String()
	}
	parts := []string{
		"/", "/", "/", "a", "b", "a", ":", ":id", "*", "**", "?", ".", "+", "(", ")", "[ab]", "[", "]", "{", "}", "{id}", "{a,b}", "|", "^", "$", `\`, "!", "-", ",",
		"é", "\ufffd", "(?i)", "(?m)", "(?s)", "(?:", "{2}", "{0}", "{0,1}", `\Q`, `\E`, `\A`, `\z`, "\n", "#", " ", "A", "\xff", "\xc3", "f.pdf",
	}
	others := []string{"/", "/", "a", "b", "A", "é", "\ufffd", "\xff", "\xc3", "\n", "id", "?", "", ":", "*", "{", "}", "."}
	var p, x strings.Builder
	if function == "regexMatch" && world.Chance(t, 2) {
		p.WriteByte('^')
	}
	// What is far from either end counts for less, or for nothing.
	far := strings.Repeat("l", rapid.SampledFrom([]int{0, 0, 0, 0, 5, 55, 60, 62, 63, 64, 120, 125, 127, 128, 140}).Draw(t, "far"))
	parts = append(parts, "{}", far, far, far+".")
	for range rapid.IntRange(1, 7).Draw(t, "parts") {
		part := rapid.SampledFrom(parts).Draw(t, "part")
		p.WriteString(part)
		switch rapid.IntRange(0, 4).Draw(t, "text") {
		case 0:
			x.WriteString(rapid.SampledFrom(others).Draw(t, "other"))
		case 1:
		default:
			if !strings.ContainsAny(part, `:*?+()[]{}|^$\`) {
				x.WriteString(part)
			} else if world.Chance(t, 2) {
				x.WriteString(rapid.SampledFrom(others).Draw(t, "other"))
			}
		}
	}
	if function == "regexMatch" && world.Chance(t, 2) {
		p.WriteByte('$')
	}
	return p.String(), x.String()
}

// compilable reports whether the loader would take the pattern.
func compilable(function, text string) bool { return named(function).Check(text) == nil }

// What a pattern matches is found by its anchors, and our matching is Casbin's.
func checkAnchors(t *rapid.T) {
	function := rapid.SampledFrom(indexedFunctions()).Draw(t, "function")
	p, text := drawTricky(t, function)
	if !compilable(function, p) {
		return
	}
	want := stockMatch(function, text, p)
	if want && !found(function, text, p) {
		t.Fatalf("%s(%q, %q) matches and is not found: %+v", function, text, p, named(function).Anchors(p))
	}
	m := pattern.NewCache(1)
	for range 2 { // the second time from memory
		got, err := m.Match(named(function), text, p, 0)
		if err != nil || got != want {
			t.Fatalf("%s(%q, %q): Casbin %t, ours %t, %v", function, text, p, want, got, err)
		}
	}
}

func TestAnchorsAreImplied(t *testing.T) { rapid.Check(t, checkAnchors) }

func FuzzAnchorsAreImplied(f *testing.F) { f.Fuzz(rapid.MakeFuzz(checkAnchors)) }
