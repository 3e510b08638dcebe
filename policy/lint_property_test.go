package policy

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"

	"github.com/casbin/casbin/v2/util"

	"securefiles/authz"
)

// lintFunctions are those that may match an object.
func lintFunctions() []string {
	return []string{"==", "keyMatch", "keyMatch2", "keyMatch3", "keyMatch4", "keyMatch5", "globMatch", "regexMatch"}
}

// matchPattern asks Casbin's own function; ok is false where it fails.
func matchPattern(function, path, pattern string) (matches, ok bool) {
	defer func() {
		if recover() != nil {
			matches, ok = false, false
		}
	}()
	switch function {
	case "==":
		return path == pattern, true
	case "keyMatch":
		return util.KeyMatch(path, pattern), true
	case "regexMatch":
		return util.RegexMatch(path, pattern), true
	case "globMatch":
		matches, err := util.GlobMatch(path, pattern)
		return matches, err == nil
	}
	return map[string]func(string, string) bool{
		"keyMatch2": util.KeyMatch2, "keyMatch3": util.KeyMatch3, "keyMatch4": util.KeyMatch4, "keyMatch5": util.KeyMatch5,
	}[function](path, pattern), true
}

// randomPattern builds a pattern of pieces that mean something to one function
// or another.
func randomPattern(random *rand.Rand) string {
	pieces := []string{"/", "/", "/", "/", "a", "b", "ab", ".", "..", "*", "**", "/*", "/**", ":x", "{x}", "{a,b}", "?", "[a]", "[ab]", "[^a]", `\`, `\*`, " ", "|", "(a)", "+", "%20", "^", "$", ".*", "é", "\t", "//"}
	var b strings.Builder
	if random.IntN(4) > 0 {
		b.WriteByte('/')
	}
	for range 1 + random.IntN(6) {
		b.WriteString(pieces[random.IntN(len(pieces))])
	}
	return b.String()
}

// pathLikePattern builds a path as pathguard accepts them.
func pathLikePattern(random *rand.Rand) string {
	pieces := []string{"a", "b", "a", "b", "ab", ".a", "a.", "..a", "...", "*", ":x", "{x}", "?", "[a]", "|", "(a)", "+", "%20", "^", "$", "é", "a b", "a?b", "?a", ",", "#"}
	var b strings.Builder
	for range 1 + random.IntN(4) {
		b.WriteByte('/')
		for i := range 1 + random.IntN(2) {
			_ = i
			b.WriteString(pieces[random.IntN(len(pieces))])
		}
	}
	return b.String()
}

// What the linter says of patterns holds for every path that is tried: no
// finding is a false alarm.
func TestClaimsAboutPatternsHold(t *testing.T) {
	claims := map[string]int{}
	for seed := range uint64(1000) {
		tryPatterns(t, seed, claims)
	}
	for _, function := range lintFunctions() {
		if claims["impossible "+function] < 10 {
			t.Errorf("%s is called unmatchable %d times only", function, claims["impossible "+function])
		}
		if claims["plain "+function] < 100 && function != "regexMatch" {
			t.Errorf("%s has %d plain patterns only", function, claims["plain "+function])
		}
		if n := claims["cover "+function]; n < 10 && function != "==" && function != "regexMatch" {
			t.Errorf("%s covers %d times only", function, n)
		}
	}
}

func FuzzClaimsAboutPatterns(f *testing.F) {
	f.Add(uint64(1))
	f.Fuzz(func(t *testing.T, seed uint64) { tryPatterns(t, seed, map[string]int{}) })
}

func tryPatterns(t *testing.T, seed uint64, claims map[string]int) {
	random := rand.New(rand.NewPCG(seed, 8))
	a, b := randomPattern(random), randomPattern(random)
	switch random.IntN(4) {
	case 0: // related ones
		b = strings.TrimRight(a, "*") + b
	case 1:
		trees := []string{"/*", "/**", "/a/*", "/a/**", "/a/b/*", "/:x/b", "/{x}/*", "/a*", "/a/{x}", "/*/b", "/a/b", "/a"}
		a, b = trees[random.IntN(len(trees))], trees[random.IntN(len(trees))]
	case 2:
		a = "^" + a
	}
	var paths []string
	for range 40 {
		paths = append(paths, pathLikePattern(random))
	}
	// A pattern is often a path that it matches.
	for _, p := range []string{a, b} {
		if p = strings.NewReplacer("**", "a", "*", "b", `\`, "").Replace(p); strings.HasPrefix(p, "/") && canonical(p) {
			paths = append(paths, p, p+"/a", p+"/a/b", p+"a")
		}
	}
	for _, function := range lintFunctions() {
		for _, pattern := range append([]string{a, b}, paths...) {
			for _, p := range lookAtPattern(function, pattern, true) {
				bad := p.allow == SeverityError || p.deny == SeverityError
				if isPlainPath(function, pattern, false) || bad && isPlainPath(function, pattern, true) {
					t.Fatalf("%s %q is called plain, but %s", function, pattern, p.message)
				}
			}
			if isPlainPath(function, pattern, false) {
				claims["plain "+function]++
			}
		}
		if function != "==" && function != "keyMatch" && (checkPattern(function, a) != nil || checkPattern(function, b) != nil) {
			continue
		}
		impossible, everything, cover := unmatchable(function, a) != "", coversEverything(function, a), covers(function, a, b)
		prefix, whole := literalPrefix(function, a)
		for _, path := range paths {
			byA, okA := matchPattern(function, path, a)
			byB, okB := matchPattern(function, path, b)
			if !okA || !okB {
				continue
			}
			if impossible && byA {
				t.Fatalf("%s %q is called unmatchable and matches %q", function, a, path)
			}
			if everything && !byA {
				t.Fatalf("%s %q does not match %q", function, a, path)
			}
			if cover && byB && !byA {
				t.Fatalf("%s: %q does not cover %q: it does not match %q", function, a, b, path)
			}
			if byA && !strings.HasPrefix(path, prefix) {
				t.Fatalf("%s %q matches %q without %q", function, a, path, prefix)
			}
			if whole && byA && path != prefix {
				t.Fatalf("%s %q matches %q", function, a, path)
			}
			if cover && byB && a != b {
				claims["cover "+function]++
			}
		}
		if impossible {
			claims["impossible "+function]++
		}
	}
}

func canonical(path string) bool {
	for s := range strings.SplitSeq(path[1:], "/") {
		if s == "" || s == "." || s == ".." || strings.TrimSpace(s) != s || strings.ContainsAny(s, "\\\t") {
			return false
		}
	}
	return true
}

// Whoever removes the lines that make no difference, one of them or all, changes
// no decision.
func TestLinesThatMakeNoDifference(t *testing.T) {
	told := map[string]int{}
	for seed := range uint64(13 * 30) {
		tryLines(t, seed, told)
	}
	for _, want := range []string{
		"default redundant", "default overruled", "default contradiction", "allow redundant", "open redundant", "open no-effect", "priority overruled",
		"keymatch2 redundant", "keymatch2 overruled", "domain redundant", "subject overruled", "basic redundant", "superuser contradiction",
	} {
		if told[want] < 2 {
			t.Errorf("%s: found %d times only: %v", want, told[want], told)
		}
	}
}

func FuzzLinesThatMakeNoDifference(f *testing.F) {
	f.Add(uint64(1))
	f.Fuzz(func(t *testing.T, seed uint64) { tryLines(t, seed, map[string]int{}) })
}

func tryLines(t *testing.T, seed uint64, told map[string]int) {
	models := []string{"default", "allow", "open", "priority", "prioritylast", "keymatch2", "domain", "regex", "subject", "basic", "resource", "superuser", "rule"}
	random := rand.New(rand.NewPCG(seed, 10))
	name := models[seed%uint64(len(models))]
	model := Source{Policy: filepath.Join(t.TempDir(), "policy.csv")}
	if name != "default" {
		model.Model = filepath.Join("testdata", "model", name+".conf")
	}
	lines := randomLines(random, name)
	write(t, model.Policy, strings.Join(lines, "\n"))
	opts := &CheckOptions{Options: Options{AllowShrink: true, RoleDepth: 1 + random.IntN(5)}}
	var drop []int
	for _, f := range Check(t.Context(), model, opts) {
		switch f.Rule {
		case "redundant", "overruled", "contradiction", "no-effect":
			told[name+" "+f.Rule]++
			drop = append(drop, f.Line-1)
		default:
			if f.Severity == SeverityError {
				t.Fatalf("%s: %s\n%s", name, f, strings.Join(lines, "\n"))
			}
		}
	}
	if len(drop) == 0 {
		return
	}
	want := decisions(t, model, opts, lines)
	all := append([]string(nil), lines...)
	for _, i := range drop {
		one := append([]string(nil), lines...)
		one[i], all[i] = "", ""
		if got := decisions(t, model, opts, one); got != want {
			t.Fatalf("%s: line %d makes a difference:\n%s\n%s", name, i+1, strings.Join(lines, "\n"), difference(want, got))
		}
	}
	if got := decisions(t, model, opts, all); got != want {
		t.Fatalf("%s: lines %v together make a difference:\n%s\n%s", name, drop, strings.Join(lines, "\n"), difference(want, got))
	}
}

func difference(a, b string) string {
	x, y := strings.Split(a, "\n"), strings.Split(b, "\n")
	for i := range x {
		if x[i] != y[i] {
			return x[i] + " became " + y[i]
		}
	}
	return ""
}

// randomLines writes a small policy for a model of testdata.
func randomLines(random *rand.Rand, model string) []string {
	names := []string{"u1", "u2", "r1", "r2", "r3", "@g1", "@anyone", "@authenticated", "anonymous"}
	objects := []string{"/**", "/a/**", "/a/*", "/a/b", "/a/b/**", "/a/b/c", "/b/*", "/*/b", "/a"}
	switch model {
	case "keymatch2":
		objects = []string{"/*", "/a/*", "/a/:x", "/a/b", "/a/b/*", "/a/:x/c", "/:x/b", "/a"}
	case "basic":
		objects = []string{"/*", "/a/*", "/a/b", "/a/b/*", "/a*", "/a"}
	case "regex":
		objects = []string{"^/.*$", "^/a/.*$", "^/a/b$"}
	case "resource":
		objects = append(objects, "reports")
	}
	pick := func(list []string) string { return list[random.IntN(len(list))] }
	var lines []string
	used := map[string]bool{}
	for range 3 + random.IntN(8) {
		sub, obj, act, eft := pick(names), pick(objects), pick([]string{"read", "read", "list", "*"}), pick([]string{"allow", "allow", "deny"})
		if act == "*" && model != "default" {
			act = "read"
		}
		if obj == "/**" && eft == "deny" {
			obj = "/b/**"
		}
		used[sub] = true
		switch model {
		case "allow":
			lines = append(lines, fmt.Sprintf("p, %s, %s, %s, allow", sub, obj, act))
		case "basic":
			lines = append(lines, fmt.Sprintf("p, %s, %s, %s", sub, obj, act))
		case "priority":
			lines = append(lines, fmt.Sprintf("p, %d, %s, %s, %s, %s", random.IntN(4), sub, obj, act, eft))
		case "prioritylast":
			lines = append(lines, fmt.Sprintf("p, %s, %s, %s, %s, %d", sub, obj, act, eft, random.IntN(4)))
		case "domain":
			lines = append(lines, fmt.Sprintf("p, %s, %s, %s, %s, %s", sub, pick([]string{"d1", "d2"}), obj, act, eft))
		case "rule":
			rule := fmt.Sprintf("r.sub == '%s'", sub)
			if random.IntN(2) == 0 {
				rule = "r.obj == p.obj" // a rule may ask for its line
			}
			lines = append(lines, fmt.Sprintf("p, %s, %s, %s, %s", rule, obj, act, eft))
		default:
			lines = append(lines, fmt.Sprintf("p, %s, %s, %s, %s", sub, obj, act, eft))
		}
	}
	if model != "basic" && random.IntN(2) == 0 {
		flipped := strings.NewReplacer("allow", "deny", "deny", "allow").Replace(lines[0])
		if model == "allow" || strings.Contains(flipped, "/**, read, deny") {
			flipped = ""
		}
		lines = append(lines, flipped)
	}
	if model == "basic" {
		return lines
	}
	parent := map[string]bool{}
	for range random.IntN(6) {
		from, to := pick(names), pick([]string{"r1", "r2", "r3"})
		if !used[to] && model != "rule" || model == "subject" && (parent[from] || from[0] == 'r' && from >= to) {
			continue
		}
		parent[from] = true
		switch model {
		case "domain":
			lines = append(lines, fmt.Sprintf("g, %s, %s, %s", from, to, pick([]string{"d1", "d2"})))
		default:
			lines = append(lines, fmt.Sprintf("g, %s, %s", from, to))
		}
	}
	if model == "resource" && used["u1"] && strings.Contains(strings.Join(lines, ","), "reports") {
		lines = append(lines, "g2, /a/b, reports")
	}
	return lines
}

// decisions renders what a policy decides on every request of a small world.
func decisions(t *testing.T, model Source, opts *CheckOptions, lines []string) string {
	t.Helper()
	write(t, model.Policy, strings.Join(lines, "\n"))
	s, err := Open(t.Context(), model, &opts.Options)
	if err != nil {
		if strings.Contains(err.Error(), "role-unused") { // removing a line may leave a role behind
			var kept []string
			for _, l := range lines {
				if !strings.HasPrefix(l, "g") || !unusedRole(err.Error(), l) {
					kept = append(kept, l)
				}
			}
			return decisions(t, model, opts, kept)
		}
		t.Fatalf("%v\n%s", err, strings.Join(lines, "\n"))
	}
	var b strings.Builder
	domains := []string{"d1"}
	if strings.Contains(model.Model, "domain") {
		domains = []string{"d1", "d2", "d3"}
	}
	principals := []authz.Principal{authz.AnonymousPrincipal()}
	for _, name := range []string{"u1", "u2", "u3"} {
		principals = append(principals, authz.Principal{Subject: name}.WithBuiltinGroups(), authz.Principal{Subject: name, Groups: []string{"@g1"}}.WithBuiltinGroups())
	}
	for _, p := range principals {
		for _, object := range []string{"/a", "/b", "/a/b", "/a/c", "/b/b", "/a/b/c", "/a/b/c/d", "/c/c/c", "/ab"} {
			for _, action := range []string{"read", "list"} {
				for _, domain := range domains {
					d, err := s.Decide(t.Context(), authz.Query{Principal: p, Object: object, Action: action, Domain: domain})
					fmt.Fprintf(&b, "%s %v %s %s %s: %v %v\n", p.Subject, p.Groups, object, action, domain, d.Effect, err)
				}
			}
		}
	}
	return b.String()
}

// unusedRole reports whether a load error is about the role of a g line.
func unusedRole(message, line string) bool {
	fields := strings.Split(line, ", ")
	return len(fields) > 2 && strings.Contains(message, fmt.Sprintf("%q", fields[2]))
}
