// Package pattern knows what Casbin's pattern functions mean: what they match,
// which patterns they cannot read, and what can be told of a pattern without a
// path to match.
//
// A [Func] is one of the functions of paths, keyMatch to keyMatch5, globMatch and
// regexMatch, or equality; nobody else looks at their names. A pattern that
// Casbin would panic on is an error here. pattern does not say what the author of
// a pattern meant.
package pattern

import (
	"errors"
	"net"
	"slices"
	"strings"
)

// A Func is what compares a text, most often a path, to a pattern: one of
// Casbin's functions, or equality. Two are the same where they are equal with ==.
// The zero Func is none: nothing but its name may be asked.
type Func struct{ of family }

// A family answers for one function, or for several that are alike. Each of its
// values is a pointer, so that a Func is compared and copied for next to nothing.
type family interface {
	its() *traits
	// match compares by what the cache remembers; it may be nil.
	match(m *Cache, text, pattern string, id uint32) (bool, error)
	// holes appends where $sub and $group stand for names in a pattern of the path.
	holes(pattern string, into []hole) []hole
	// takesName reports whether a segment is a name of the function's own, which
	// any text matches.
	takesName(segment string) bool
	// matchNames is match for a pattern with holes, and names that the path holds.
	matchNames(m *Cache, path, pattern string, id uint32, holes []hole, names one) (bool, error)
	reads(text []byte) []byte
	check(pattern string) error
	// needsMemory reports whether a pattern is compiled to be matched, and is
	// worth a place in a cache.
	needsMemory(pattern string) bool
	// steps is how many a match of the longest path takes at most, or 0 for few.
	steps(pattern string) int
	anchors(pattern string) Anchors
	literal(pattern string) (prefix string, whole bool)
	samples(pattern string) []string
	expression(pattern string) Expression
	// expressionOf is expression for a pattern with holes, and who fills them.
	expressionOf(pattern string, holes []hole, names one) Expression
	covers(a, b string) bool // of two that differ
	coversEverything(pattern string) bool
	// anyName returns a pattern with something in the place of each mark that
	// stands for any name.
	anyName(marked string) string
	// isPlain reports whether a pattern is a path, or all below one, about which
	// problems has nothing to say; where dots is true, nothing that is an error.
	isPlain(pattern string, dots bool) bool
	problems(pattern string, all bool) []Problem
	// unmatchable says why no canonical path can match a pattern, or returns "".
	// Doubt counts as can.
	unmatchable(pattern string) string
}

// traits are what a function is whatever the pattern.
type traits struct {
	name    string
	star    Depth
	noNames bool // $sub and $group stand for nothing
}

func (t *traits) its() *traits                     { return t }
func (*traits) reads(text []byte) []byte           { return text }
func (*traits) holes(_ string, into []hole) []hole { return into }
func (*traits) takesName(string) bool              { return false }
func (*traits) anyName(m string) string            { return m }
func (*traits) matchNames(*Cache, string, string, uint32, []hole, one) (bool, error) {
	return false, errors.New("the function knows no names")
}

// A Depth is how far below a directory the pattern /directory/* reaches.
type Depth uint8

// The depths. Neither == nor regexMatch has such patterns.
const (
	NoDepth Depth = iota
	OneLevel
	AnyDepth
)

// The functions there are; nothing changes them.
var (
	equal      = Func{&equality{traits{"==", NoDepth, true}}}
	keyMatch   = Func{&firstStar{traits{"keyMatch", AnyDepth, false}}}
	keyMatch2  = Func{&keys{traits: traits{name: "keyMatch2", star: AnyDepth}, begins: ':'}}
	keyMatch3  = Func{&keys{traits: traits{name: "keyMatch3", star: AnyDepth}, begins: '{'}}
	keyMatch4  = Func{&keys{traits: traits{name: "keyMatch4", star: AnyDepth}, begins: '{', same: true}}
	keyMatch5  = Func{&keys{traits: traits{name: "keyMatch5", star: AnyDepth}, begins: '{', cuts: true}}
	globMatch  = Func{&glob{traits{"globMatch", OneLevel, false}}}
	regexMatch = Func{&regex{traits{name: "regexMatch"}}}
	operator   = Func{&regex{traits{name: "=~", noNames: true}}}
)

// ByName returns the function of that name. An operator is one too: =~ does what
// regexMatch does, == is equality.
func ByName(name string) (Func, bool) {
	for _, f := range [...]Func{equal, keyMatch, keyMatch2, keyMatch3, keyMatch4, keyMatch5, globMatch, regexMatch, operator} {
		if f.String() == name {
			return f, true
		}
	}
	return Func{}, false
}

// Equal is ==: a pattern matches itself.
func Equal() Func { return equal }

// Guesses are the functions that a text is tried with as a pattern where nothing
// tells which one it is for.
func Guesses() []Func { return []Func{equal, globMatch, keyMatch2} }

// Checker returns what checks the patterns of a function of Casbin's, as
// [Func.Check] does. It knows ipMatch as well, whose patterns are ranges of
// addresses; it is false for what takes no patterns, as == does not.
func Checker(name string) (check func(pattern string) error, ok bool) {
	if name == "ipMatch" {
		return checkRange, true
	}
	f, ok := ByName(name)
	if !ok || f == equal {
		return nil, false
	}
	return f.Check, true
}

func checkRange(text string) error {
	if net.ParseIP(text) == nil {
		if _, _, err := net.ParseCIDR(text); err != nil {
			return errors.New("is neither an IP address nor a range such as 192.0.2.0/24")
		}
	}
	return nil
}

// String returns the name by which Casbin knows the function, or "==". It is
// empty for the zero Func.
func (f Func) String() string {
	if f.of == nil {
		return ""
	}
	return f.of.its().name
}

// StarDepth returns how far /* at the end of a pattern reaches.
func (f Func) StarDepth() Depth { return f.of.its().star }

// Reads returns the part of a text that is compared: keyMatch5 passes over a
// query.
func (f Func) Reads(text []byte) []byte { return f.of.reads(text) }

// Check says why a pattern cannot be compiled, as Casbin would find out in each
// request that reaches it.
func (f Func) Check(pattern string) error { return f.of.check(pattern) }

// Match reports whether a text matches a pattern, which it compiles; [Cache.Match]
// remembers it. The error is what [Func.Check] tells.
func (f Func) Match(text, pattern string) (bool, error) {
	return f.of.match(nil, text, pattern, NoNumber)
}

// NeedsMemory reports whether a pattern is compiled to be matched, so that a
// [Cache] is to have a place for it.
func (f Func) NeedsMemory(pattern string) bool { return f.of.needsMemory(pattern) }

// Steps returns how many steps a match of the longest path takes at most, or 0
// where that is few; see [SlowSteps]. A pattern that takes more than anybody
// means is an error of Check, a *TooLargeError.
func (f Func) Steps(pattern string) int { return f.of.steps(pattern) }

// Anchors returns the anchors of a pattern.
func (f Func) Anchors(pattern string) Anchors {
	pattern, _ = f.marked(pattern)
	return f.of.anchors(pattern).unnamed()
}

// PathAnchors returns the anchors of a pattern of the path, in which the bytes
// [AnySubject] and [AnyGroup] stand for whole segments that are names.
func (f Func) PathAnchors(pattern string) Anchors {
	pattern, _ = f.marked(pattern)
	return f.of.anchors(pattern)
}

// Literal returns a text with which every path that matches begins, and whether
// it is the only path that matches. It is for findings: what must not be wrong
// asks [Func.Anchors].
func (f Func) Literal(pattern string) (prefix string, whole bool) {
	pattern, asks := f.marked(pattern)
	prefix, whole = f.of.literal(pattern)
	if asks {
		return beforeNames(prefix), false
	}
	return prefix, whole
}

// Samples returns paths that a pattern may match, some of each kind that it
// tells apart: with no level in place of **, with one, with two. Not each need
// match, and nothing promises that all kinds are there. Where $sub and $group
// stand for names they are left to [Fill].
func (f Func) Samples(pattern string) []string {
	var out []string
	pattern, asks := f.marked(pattern)
	for _, p := range f.of.samples(pattern) {
		if asks {
			p = strings.NewReplacer(string(rune(subjectMark)), SubjectName, string(rune(groupMark)), GroupName).Replace(p)
		}
		if IsPath(p) && !slices.Contains(out, p) && len(out) < maxSamples {
			out = append(out, p)
		}
	}
	return out
}

// Covers reports whether every path that a pattern b matches is matched by a
// pattern a. It may say no where the answer is yes.
func (f Func) Covers(a, b string) bool {
	if a == b {
		return true
	}
	if _, asks := f.marked(a); asks {
		return false
	}
	b, asks := f.marked(b)
	if asks { // what covers any name covers one
		b = f.of.anyName(b)
	}
	return a == b || f.of.covers(a, b)
}

// CoversOthers reports whether Covers is ever true of two patterns that differ.
func (f Func) CoversOthers() bool { return f.StarDepth() != NoDepth }

// CoversEverything reports whether a pattern covers every path.
func (f Func) CoversEverything(pattern string) bool { return f.of.coversEverything(pattern) }

// Problems says what is wrong with a pattern of an object; all includes what is
// never an error. The pattern compiles.
func (f Func) Problems(pattern string, all bool) []Problem {
	named := f.named(pattern)
	if f.of.isPlain(named, !all) {
		return nil
	}
	if p, ok := f.variable(pattern); ok { // the rest follows from it
		return []Problem{p}
	}
	return f.lookAt(named, all)
}

// lookAt is Problems for a pattern that is not plain.
func (f Func) lookAt(pattern string, all bool) []Problem {
	var found []Problem
	if why := f.of.unmatchable(pattern); why != "" {
		found = append(found, tooNarrow("pattern-unmatchable", "no request has such a path: %s", why))
	}
	return append(append(found, f.of.problems(pattern, all)...), f.languageProblems(pattern, all)...)
}
