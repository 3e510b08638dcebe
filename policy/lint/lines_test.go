package lint

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"securefiles/authz"
	"securefiles/policy"
	"securefiles/policy/internal/world"
)

// Whoever removes the lines that make no difference, one of them or all, changes
// no decision, and what is left is served.
func TestLinesThatMakeNoDifference(t *testing.T) {
	told := map[string]int{}
	for seed := range uint64(13 * 30) {
		tryLines(t, seed, told)
	}
	for _, want := range []string{
		"default redundant", "default overruled", "default contradiction", "allow redundant", "open redundant", "open no-effect", "priority overruled",
		"keymatch2 redundant", "keymatch2 overruled", "domain redundant", "subject overruled", "basic redundant", "superuser contradiction", "superuser redundant", "default deny-unmet", "keymatch2 deny-unmet", "domain deny-unmet",
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
	model := policy.Files{Policy: filepath.Join(t.TempDir(), "policy.csv")}
	if name != "default" {
		model.Model = world.ModelFile(t, name)
	}
	lines := randomLines(random, name)
	if name == "default" && random.IntN(2) == 0 {
		giveDates(random, lines)
	}
	world.Write(t, model.Policy, strings.Join(lines, "\n"))
	opts := &Options{Options: policy.Options{AllowShrink: true, RoleDepth: 1 + random.IntN(5)}}
	var drop []int
	for _, f := range Check(t.Context(), model, opts) {
		switch f.Rule {
		case "redundant", "overruled", "contradiction", "no-effect", "deny-unmet":
			told[name+" "+f.Rule]++
			drop = append(drop, f.Line-1)
		default:
			if f.Severity == policy.SeverityError {
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
	objects := []string{"/**", "/a/**", "/a/*", "/a/b", "/a/b/**", "/a/b/c", "/b/*", "/*/b", "/a", "/$sub/**", "/a/$sub", "/$group/b/**"}
	switch model {
	case "keymatch2":
		objects = []string{"/*", "/a/*", "/a/:x", "/a/b", "/a/b/*", "/a/:x/c", "/:x/b", "/a", "/$sub/*", "/a/$sub"}
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

// giveDates gives some lines a beginning and an end.
func giveDates(random *rand.Rand, lines []string) {
	for i, line := range lines {
		if line != "" && random.IntN(2) == 0 {
			lines[i] += []string{", _, 2100-06-30", ", 2100-03-01, 2100-09-30", ", 2100-07-01, _", ", _, 2100-12-31", ", _, _"}[random.IntN(5)]
		}
	}
}

// moments are one before each date of giveDates, and one behind all.
func moments() []time.Time {
	var all []time.Time
	for _, month := range []time.Month{1, 4, 7, 10, 13} {
		all = append(all, time.Date(2100, month, 2, 0, 0, 0, 0, time.UTC))
	}
	return all
}

// decisions renders what a policy decides on every request of a small world.
func decisions(t *testing.T, model policy.Files, opts *Options, lines []string) string {
	t.Helper()
	world.Write(t, model.Policy, strings.Join(lines, "\n"))
	s, err := policy.Open(t.Context(), model, &opts.Options)
	if err != nil {
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
					q := authz.Query{Principal: p, Object: object, Action: action, Domain: domain}
					at := []time.Time{{}}
					if strings.Contains(strings.Join(lines, "\n"), ", 2100-") {
						at = moments()
					}
					for _, q.At = range at {
						d, err := s.Decide(t.Context(), q)
						fmt.Fprintf(&b, "%s %v %s %s %s %s: %v %v\n", p.Subject, p.Groups, object, action, domain, q.At, d.Effect, err)
					}
				}
			}
		}
	}
	return b.String()
}
