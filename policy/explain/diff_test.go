package explain

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"securefiles/authz"
	"securefiles/policy"
	"securefiles/policy/internal/storetest"
	"securefiles/policy/internal/world"

	gocmp "github.com/google/go-cmp/cmp"
)

func compareTexts(t *testing.T, before, after string, opts *DiffOptions) *Diff {
	t.Helper()
	a, _ := storetest.Open(t, before, &policy.Options{AllowShrink: true})
	b, _ := storetest.Open(t, after, &policy.Options{AllowShrink: true})
	d, err := Compare(t.Context(), a, b, opts)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// changes writes changes as name:path:pattern.
func changes(list []Change) string {
	var out []string
	for _, c := range list {
		out = append(out, fmt.Sprintf("%s:%s:%s", strings.Join(c.Names, ","), c.Path, c.Pattern))
	}
	return strings.Join(out, " ")
}

const diffPolicy = `p, editor, /project/**, read, allow
p, editor, /project/hr/**, read, deny
p, @authenticated, /shared/**, read, allow
g, alice, editor
g, carol, editor
`

func TestCompare(t *testing.T) {
	for _, tt := range []struct{ name, before, after, gained, lost string }{
		{"nothing", diffPolicy, diffPolicy, "", ""},
		{"other text, the same access", diffPolicy, "# sorted\n" + diffPolicy + "p, editor, /project/plan.pdf, read, allow\n", "", ""},
		{"somebody joins", diffPolicy, diffPolicy + "g, bob, editor\n", "bob:/project/x:/project/**", ""},
		{"somebody leaves", diffPolicy, strings.Replace(diffPolicy, "g, carol, editor\n", "", 1), "", "carol:/project/x:/project/**"},
		{"a deny goes", diffPolicy, strings.Replace(diffPolicy, "p, editor, /project/hr/**, read, deny\n", "", 1), "alice,carol:/project/hr/x:/project/hr/**", ""},
		{"a deny in between", diffPolicy, diffPolicy + "p, editor, /**/secret, read, deny\n", "", "alice,carol:/shared/secret:/**/secret"},
		{"for everybody", diffPolicy, strings.Replace(diffPolicy, "@authenticated", "@anyone", 1), "anonymous:/shared/x:/shared/**", ""},
		{"a group joins", diffPolicy, diffPolicy + "g, @staff, editor\n", "@staff:/project/x:/project/**", ""},
		{"everybody joins", diffPolicy, diffPolicy + "g, @authenticated, editor\n", "@authenticated:/project/x:/project/**", ""},
		{"everybody joins, others too", diffPolicy + "p, zed, /z, read, allow\n", diffPolicy + "p, zed, /z, read, allow\ng, @anyone, editor\n",
			"anonymous,@authenticated,zed:/project/x:/project/**", ""},
		{"a user becomes a role", diffPolicy, diffPolicy + "p, carol, /c, read, allow\ng, dave, carol\n", "dave:/project/x:/project/** dave:/c:/c",
			"carol:/project/x:/project/** carol:/shared/x:/shared/**"},
		{"a deny of a group goes, whose members another allows", "p, @staff, /hr/**, read, allow\np, @interns, /hr/**, read, deny\n", "p, @staff, /hr/**, read, allow\np, @interns, /x, read, deny\n", "@interns+@staff:/hr/x:/hr/**", ""},
		{"links are let in", diffPolicy, diffPolicy + "p, @link, /b/**, read, allow\n", "@link:/b/x:/b/**", ""},
		{"links are kept out no more", diffPolicy + "p, @link, /project/a/**, read, deny\n", diffPolicy, "alice+@link,carol+@link:/project/a/x:/project/a/**", ""},
		{"a deny of a user goes, whom a group allows", "p, @staff, /hr/**, read, allow\np, bob, /hr/**, read, deny\n", "p, @staff, /hr/**, read, allow\np, bob, /x, read, deny\n", "bob+@staff:/hr/x:/hr/**", ""},
		{"a deny comes for members of a group that another allows", "p, @staff, /hr/**, read, allow\np, @interns, /x, read, deny\n", "p, @staff, /hr/**, read, allow\np, @interns, /hr/pay, read, deny\n", "", "@interns+@staff:/hr/pay:/hr/pay"},
		{"users of one kind together with a group", "p, @staff, /hr/**, read, allow\np, r, /hr/**, read, deny\ng, bob, r\ng, eve, r\n", "p, @staff, /hr/**, read, allow\np, r, /x, read, deny\ng, bob, r\ng, eve, r\n", "bob+@staff,eve+@staff:/hr/x:/hr/**", ""},
		{"what either has alone is told once", "p, @staff, /hr/**, read, allow\n", "p, @staff, /hr/**, read, allow\np, @interns, /hr/*/y, read, allow\n", "@interns:/hr/x/y:/hr/*/y", ""},
		{"and of one alone where others have a part", "p, @staff, /hr/pay, read, allow\np, bob, /x, read, allow\n", "p, @staff, /hr/pay, read, allow\np, bob, /x, read, allow\np, bob, /hr/**, read, allow\n", "bob:/hr/x:/hr/**", ""},
	} {
		d := compareTexts(t, tt.before, tt.after, nil)
		sorted := func(s string) []string { list := strings.Fields(s); slices.Sort(list); return list }
		if diff := gocmp.Diff(sorted(tt.gained), sorted(changes(d.Gained))); diff != "" {
			t.Errorf("%s: gained: %s", tt.name, diff)
		}
		if diff := gocmp.Diff(sorted(tt.lost), sorted(changes(d.Lost))); diff != "" {
			t.Errorf("%s: lost: %s", tt.name, diff)
		}
	}
	d := compareTexts(t, diffPolicy, diffPolicy+"g, bob, editor\n", &DiffOptions{Paths: []string{"/project/plan.pdf", "/project/hr/pay.pdf"}, Actions: []string{"read", "list"}})
	if got := changes(d.Gained); got != "bob:/project/plan.pdf: bob:/project/x:/project/**" {
		t.Errorf("a path that was given: %s", got)
	}
	c := d.Gained[0]
	if c.Before != nil || c.After == nil || c.After.Line != 1 || ChainText(c.After.Chain) != "bob -> editor (line 6)" || c.Action != "read" {
		t.Errorf("%+v", c)
	}
	// What no pattern shows: the order of lines, and roles of paths.
	for _, tt := range []struct{ model, before, after, lost string }{
		{"priority", "p, 1, alice, /a, read, allow\np, 1, alice, /**, read, deny\n", "p, 1, alice, /**, read, deny\np, 1, alice, /a, read, allow\n", "alice:/a:"},
		{"resource", "p, alice, secret, read, allow\ng2, /a, secret\ng2, /b, secret\n", "p, alice, secret, read, allow\ng2, /b, secret\n", "alice:/a:"},
		{"superuser", "p, alice, /b, read, allow\ng, bob, operators\ng, carol, operators\n", "p, alice, /b, read, allow\ng, carol, operators\n", "bob:/a: bob:/x:any path"},
	} {
		d, err := Compare(t.Context(), storetest.OpenModel(t, tt.model, tt.before), storetest.OpenModel(t, tt.model, tt.after), &DiffOptions{Paths: []string{"/a"}})
		if err != nil {
			t.Fatal(err)
		}
		if got := changes(d.Lost); got != tt.lost || len(d.Gained) > 0 {
			t.Errorf("%s: gained %s, lost %s", tt.model, changes(d.Gained), got)
		}
	}
	s, _ := storetest.Open(t, diffPolicy, nil)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Compare(ctx, s, s, &DiffOptions{Paths: []string{"/project/x"}}); err != nil && !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// Against brute force, on random policies: every change on a path that is given
// is found and no other, and what is found on paths made from patterns is true.
func TestCompareAgreesWithBruteForce(t *testing.T) {
	random := rand.New(rand.NewPCG(41, 42))
	paths := []string{"/a", "/b", "/c", "/a/b", "/a/c", "/b/c", "/a/b/c", "/b/a", "/a/b/c/d"}
	actions := []string{"read", "list"}
	found, missed := 0, 0
	for i := range world.Share(2000, 60) {
		model := world.Models()[i%len(world.Models())]
		before, files := storetest.OpenRandom(t, random, model, 8)
		after, afterFiles := mutate(t, random, model, files)
		domains := []string{""}
		if strings.Contains(model, "domain") {
			domains = []string{"main", "media"}
		}
		opts := &DiffOptions{Paths: paths, Actions: actions, Domains: domains, IP: "10.1.2.3"}
		given, err := Compare(t.Context(), before, after, opts)
		if err != nil {
			t.Fatal(err)
		}
		got, want := map[string]bool{}, map[string]bool{}
		for direction, list := range map[string][]Change{"gained": given.Gained, "lost": given.Lost} {
			for _, c := range list {
				for _, name := range c.Names {
					if c.Pattern == "" && !strings.Contains(name, "+@") {
						got[strings.Join([]string{direction, name, c.Action, c.Domain, c.Path}, " ")] = true
					}
				}
			}
		}
		names := listed(before)
		for name, p := range listed(after) {
			names[name] = p
		}
		brute := map[string]bool{} // without the path
		ask := func(s *policy.Store, name, action, domain, path string) bool {
			d, err := s.Decide(t.Context(), authz.Query{Principal: names[name], Action: action, Domain: domain, Object: path, IP: "10.1.2.3"})
			return err == nil && d.Effect == authz.Allow
		}
		for name := range names {
			for _, action := range actions {
				for _, domain := range domains {
					for _, path := range paths {
						was, is := ask(before, name, action, domain, path), ask(after, name, action, domain, path)
						if was == is {
							continue
						}
						direction := "gained"
						if was {
							direction = "lost"
						}
						want[strings.Join([]string{direction, name, action, domain, path}, " ")] = true
						brute[strings.Join([]string{direction, name, action, domain}, " ")] = true
					}
				}
			}
		}
		context := func() string {
			return fmt.Sprintf("%s\nbefore:\n%s\nafter:\n%s", model, world.File(t, files.Policy), world.File(t, afterFiles.Policy))
		}
		if diff := gocmp.Diff(want, got); diff != "" {
			t.Fatalf("%s\n%s", diff, context())
		}

		// By patterns alone.
		opts.Paths = nil
		patterns, err := Compare(t.Context(), before, after, opts)
		if err != nil {
			t.Fatal(err)
		}
		told := map[string]bool{}
		for direction, list := range map[string][]Change{"gained": patterns.Gained, "lost": patterns.Lost} {
			for _, c := range list {
				for _, name := range c.Names {
					if strings.Contains(name, "+@") {
						continue // of whom the other test asks
					}
					told[strings.Join([]string{direction, name, c.Action, c.Domain}, " ")] = true
					was, is := ask(before, name, c.Action, c.Domain, c.Path), ask(after, name, c.Action, c.Domain, c.Path)
					if was == is || is != (direction == "gained") {
						t.Fatalf("%s %s is not true: %+v\n%s", name, direction, c, context())
					}
				}
			}
		}
		for change := range brute {
			if told[change] {
				found++
			} else {
				missed++
				t.Logf("missed: %s: %s", change, context())
			}
		}
	}
	t.Logf("%d found, %d missed", found, missed)
	if found < 25 || missed*100 > found {
		t.Errorf("%d changes were found by patterns alone, %d missed", found, missed)
	}
}

// mutate opens a policy that differs from another in a few lines.
func mutate(t *testing.T, random *rand.Rand, model string, files policy.Files) (*policy.Store, policy.Files) {
	t.Helper()
	lines := strings.SplitAfter(world.File(t, files.Policy), "\n")
	lines = lines[:len(lines)-1]
	more := strings.SplitAfter(world.RandomPolicy(random, world.Model(t, model), 4), "\n")
	for {
		next := slices.Clone(lines)
		for range random.IntN(3) {
			if i := random.IntN(len(next)); len(next) > 1 {
				next = slices.Delete(next, i, i+1)
			}
		}
		for range random.IntN(3) {
			next = slices.Insert(next, random.IntN(len(next)+1), more[random.IntN(len(more))])
		}
		source := policy.Files{Model: files.Model, Policy: filepath.Join(t.TempDir(), "policy.csv")}
		world.Write(t, source.Policy, strings.Join(next, ""))
		if after, err := policy.Open(t.Context(), source, &policy.Options{AllowShrink: true}); err == nil {
			return after, source
		}
	}
}
