package explain

import (
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"securefiles/authz"
	"securefiles/policy"
	"securefiles/policy/internal/pattern"
	"securefiles/policy/internal/storetest"
	"securefiles/policy/internal/table"
	"securefiles/policy/internal/world"
)

// trapMatchers are shapes in which an index, or a comparison, can go wrong.
func trapMatchers() []string {
	const usual = "g(r.sub, p.sub) && globMatch(r.obj, p.obj) && r.act == p.act"
	return []string{
		usual, usual + ` || r.sub == "root"`, usual + ` || g(r.sub, "staff")`, usual + ` && !g(r.sub, "@team")`,
		"!g(r.sub, p.sub) && globMatch(r.obj, p.obj)", "globMatch(r.obj, p.obj) && !(r.sub == p.sub && r.act == p.act)",
		"!(r.sub != p.sub && r.act != p.act) && globMatch(r.obj, p.obj)", "!g(r.sub, p.sub) == true && globMatch(r.obj, p.obj)",
		"(r.sub == p.sub ? false : g(p.sub, r.sub) || r.act == p.act) && globMatch(r.obj, p.obj)", "(g(r.sub, p.sub) || r.obj == p.obj) && r.act == p.act",
		`p.sub == "*" && globMatch(r.obj, p.obj) || ` + usual, "g(r.sub, p.sub) && keyMatch5(r.obj, p.obj)", "r.act == p.act && p.sub != r.sub", "p.sub != r.sub",
		`g("bob", "@team") || ` + usual, `r.obj == "/a" || ` + usual, `g(r.sub, p.sub) && (keyMatch(r.obj, "/a*") || keyMatch2(r.obj, p.obj))`, `g(r.sub, p.sub) && r.obj in ("/a", "/b")`,
		"g(r.sub, p.sub) && r.act == p.act", `g(r.sub, p.sub) && !keyMatch2(r.obj, p.obj)`, `g(r.sub, p.sub) && r.obj =~ p.obj`, `g(r.sub, p.sub) && r.obj !~ p.obj`, `g(r.sub, p.sub) && r.obj =~ "^/a"`, `r.obj =~ "b$" && r.sub == p.sub || g(r.sub, "staff") && !(r.obj =~ "^/[ab]")`,
		`g(r.sub, p.sub) && keyMatch2(r.obj, p.obj) && globMatch(r.obj, "/**/a*")`, `g(r.sub, p.sub) && (r.act == p.act || p.act == "*") && (p.obj == "*" || regexMatch(r.obj, p.obj))`,
		`r.act == p.act && (r.obj == p.obj || r.sub == "root")`, "regexMatch(r.sub, p.sub) && globMatch(r.obj, p.obj)",
	}
}

// change draws a policy that differs from another in a few lines, or in their
// order.
func change(t *rapid.T, text, more string) string {
	lines, others := strings.SplitAfter(text, "\n"), strings.SplitAfter(more, "\n")
	lines, others = lines[:len(lines)-1], others[:len(others)-1]
	for range rapid.IntRange(1, 3).Draw(t, "changes") {
		at := rapid.IntRange(0, len(lines)).Draw(t, "at")
		switch rapid.IntRange(0, 5).Draw(t, "change") {
		case 0, 1:
			if at < len(lines) {
				lines = slices.Delete(lines, at, at+1)
			}
		case 2:
			if at < len(lines) {
				line := lines[at]
				lines = slices.Delete(lines, at, at+1)
				lines = slices.Insert(lines, rapid.IntRange(0, len(lines)).Draw(t, "to"), line)
			}
		default:
			if len(others) > 0 {
				lines = slices.Insert(lines, at, rapid.SampledFrom(others).Draw(t, "line"))
			}
		}
	}
	return strings.Join(lines, "")
}

// namer returns what puts $sub and $group into some lines, in half of the worlds.
func namer(t *rapid.T) func(text string) string {
	if rapid.Bool().Draw(t, "names") {
		return func(text string) string { return text }
	}
	return func(text string) string {
		lines := strings.SplitAfter(text, "\n")
		for i, line := range lines {
			if strings.HasPrefix(line, "p") && rapid.Bool().Draw(t, "named") {
				segment := rapid.SampledFrom([]string{"/a", "/b", "/c", "/*", "/:x", "/{x}"}).Draw(t, "of")
				variable := rapid.SampledFrom([]string{"/$sub", "/$sub", "/$group"}).Draw(t, "is")
				lines[i] = strings.Replace(line, segment, variable, 1)
			}
		}
		return strings.Join(lines, "")
	}
}

// worlds draws two policies, and how they are asked.
func drawTwoPolicies(t *rapid.T) (models [2]string, texts [2]string) {
	seed := rapid.Uint64().Draw(t, "seed")
	random := rand.New(rand.NewPCG(seed, 1))
	if rapid.IntRange(0, 2).Draw(t, "model") == 0 {
		name := rapid.SampledFrom(world.Models()).Draw(t, "name")
		def := world.Model(nopTB{}, name)
		models = [2]string{def.Text, def.Text}
		named := namer(t)
		texts[0] = named(world.RandomPolicy(random, def, 8))
		texts[1] = change(t, texts[0], named(world.RandomPolicy(random, def, 8)))
		return models, texts
	}
	s := world.DrawShape(t)
	draw := func() string {
		if rapid.Bool().Draw(t, "trap") {
			return rapid.SampledFrom(trapMatchers()).Draw(t, "matcher")
		}
		return s.DrawMatcher(t)
	}
	matcher := draw()
	models = [2]string{s.Model(matcher), s.Model(matcher)}
	named := namer(t)
	texts[0] = named(s.DrawPolicy(t, matcher))
	texts[1] = change(t, texts[0], named(s.DrawPolicy(t, matcher)))
	if rapid.IntRange(0, 9).Draw(t, "other matcher") == 0 {
		models[1] = s.Model(draw())
	}
	if rapid.IntRange(0, 9).Draw(t, "comment") == 0 {
		models[1] = "# a comment\n" + strings.ReplaceAll(models[1], " && ", "  &&  ")
	}
	return models, texts
}

// nopTB is a testing.TB that is only asked to read what is there.
type nopTB struct{ testing.TB }

func (nopTB) Helper() {}

// brutePaths are all paths of a few segments, and some that patterns of package
// world are about.
func brutePaths(t *rapid.T) []string {
	paths := []string{"/r0", "/a/b/c/d", "/a.b", "/A", "/x y", "/f1.pdf", "/a/f1.pdf", "/zip_x/a.b", "/+", "/aa", "/a/b/a.b/c", "/b?a", "/report/é", "/res1", "/xa/b.pdf", "/0", "/a/0/b"}
	for _, a := range []string{"a", "b", "c", "ab", "x"} {
		paths = append(paths, "/"+a)
		for _, b := range []string{"a", "b", "c", "x"} {
			paths = append(paths, "/"+a+"/"+b)
			for _, c := range []string{"a", "b", "c"} {
				paths = append(paths, "/"+a+"/"+b+"/"+c)
			}
		}
	}
	for range 20 {
		if path := world.DrawPath(t); pattern.IsPath(path) {
			paths = append(paths, path)
		}
	}
	return paths
}

// rolesOf returns the names that no user may have.
func rolesOf(s *policy.Store) []string {
	var roles []string
	for sym := range table.Symbol(s.Version().Table.Symbols.Len()) {
		if name := s.Version().Table.Symbols.Text(sym); s.Version().IsReserved(sym) && name != "" && name[0] != '@' {
			roles = append(roles, name)
		}
	}
	return roles
}

// What a comparison does not tell it has not looked for: against asking both
// policies about all names, paths, actions and domains. The number of worlds is
// that of -rapid.checks; `make diff` takes five thousand.
func TestCompareMissesNothingWhereItLooked(t *testing.T) {
	var pairs, complete, gains, told, changes, named, namedComplete, together int
	rapid.Check(t, func(t *rapid.T) {
		models, texts := drawTwoPolicies(t)
		var stores [2]*policy.Store
		for i := range stores {
			if stores[i], texts[i] = storetest.OpenDrawn(t, models[i], texts[i]); stores[i] == nil {
				return
			}
		}
		pairs++
		opts := &DiffOptions{Actions: authz.Actions(), Domains: []string{"d1", "d2", "main", "media"}, IP: "10.1.2.3", Host: "files.example.org"}
		d, err := Compare(t.Context(), stores[0], stores[1], opts)
		if err != nil {
			t.Fatalf("%v\n%s\n%s\n%s", err, models[0], texts[0], texts[1])
		}
		names := listed(stores[0])
		for name, p := range listed(stores[1]) {
			names[name] = p
		}
		// Whoever is called like a role that there was not may not ask any more, as the page
		// says; he is told of where a line before named him.
		for name := range names {
			before, after := stores[0].Version(), stores[1].Version()
			if sym, ok := after.Table.Symbols.Lookup(name); ok && after.IsReserved(sym) && name[0] != '@' && !slices.Contains(before.Names(), name) && !slices.Contains(rolesOf(stores[0]), name) {
				delete(names, name)
			}
		}
		stranger := strangerTo(stores[0].Version(), stores[1].Version()) // to whom a matcher may do what it does to no other name
		for name, p := range names {
			if name[0] == '@' {
				p.Subject = stranger
				names[name] = p
			}
		}
		for _, s := range stores { // those that only a model names, and the roles that were
			for _, name := range slices.Concat(s.Version().Engine.Model.SubjectTexts(), rolesOf(stores[0])) {
				sym, ok := s.Version().Table.Symbols.Lookup(name)
				if name != "" && names[name].Subject == "" && (!ok || !s.Version().IsReserved(sym)) {
					names[name] = principalOf(name, stranger).principal
				}
			}
		}
		// Of strangers who are called like what paths have, one of their kind is told.
		const unlisted = "of those whom no line names"
		strangers := map[string]bool{authz.GroupAuthenticated: true}
		tellsNames := strings.Contains(models[0]+models[1]+texts[0]+texts[1], "/$")
		if tellsNames {
			for _, name := range []string{"a", "b", "c", "ab", "x", "@a", "@b", "@x"} {
				if names[name].Subject == "" {
					names[name], strangers[name] = principalOf(name, stranger).principal, true
				}
			}
		}
		ofLines := slices.Concat(stores[0].Version().Names(), stores[1].Version().Names()) // of all role definitions
		for _, c := range slices.Concat(d.Gained, d.Lost) {
			for _, name := range c.Names {
				if names[name].Subject == "" && !strings.Contains(name, "+@") {
					names[name], strangers[name] = principalOf(name, stranger).principal, !slices.Contains(ofLines, name)
				}
			}
		}
		// Two together: those that are told of, and some others.
		pair := func(name string) bool {
			one, group, ok := strings.Cut(name, "+@")
			if ok {
				p := principalOf(one, stranger).principal
				names[name] = authz.Principal{Subject: p.Subject, Groups: append(slices.Clone(p.Groups), "@"+group)}
			}
			return ok
		}
		for _, c := range slices.Concat(d.Gained, d.Lost) {
			for _, name := range c.Names {
				pair(name)
			}
		}
		var single, groups []string
		for _, name := range slices.Sorted(maps.Keys(names)) {
			if strings.Contains(name, "+@") || strangers[name] || name == authz.Anonymous || name == authz.GroupAnyone {
				continue
			}
			if single = append(single, name); name[0] == '@' {
				groups = append(groups, name)
			}
		}
		for range 4 {
			if len(groups) == 0 {
				break
			}
			one, group := rapid.SampledFrom(single).Draw(t, "one"), rapid.SampledFrom(groups).Draw(t, "group")
			if one[0] == '@' && slices.Index(single, one) > slices.Index(single, group) {
				one, group = group, one
			}
			if one != group {
				pair(one + "+" + group) // a group begins with @
			}
		}
		ask := func(s *policy.Store, at time.Time, name, action, domain, path string) bool {
			d, err := s.Decide(t.Context(), authz.Query{Principal: names[name], Action: action, Domain: domain, Object: path, IP: opts.IP, Host: opts.Host, At: at})
			return err == nil && d.Effect == authz.Allow
		}
		told1 := map[string]bool{}
		domains := opts.Domains
		if !slices.Contains(stores[0].Version().Engine.Model.Request, "dom") && !slices.Contains(stores[1].Version().Engine.Model.Request, "dom") {
			domains = []string{""}
		}
		actions := opts.Actions
		if !slices.Contains(stores[0].Version().Engine.Model.Request, "act") && !slices.Contains(stores[1].Version().Engine.Model.Request, "act") {
			actions = actions[:1]
		}
		for direction, list := range map[string][]Change{"gained": d.Gained, "lost": d.Lost} {
			for _, c := range list {
				changes++
				for _, name := range c.Names {
					told1[strings.Join([]string{direction, name, c.Action, c.Domain}, " ")] = true
					if strangers[name] {
						told1[strings.Join([]string{direction, unlisted, c.Action, c.Domain}, " ")] = true
					}
					was, is := ask(stores[0], c.From, name, c.Action, c.Domain, c.Path), ask(stores[1], c.From, name, c.Action, c.Domain, c.Path)
					if was == is || is != (direction == "gained") {
						t.Fatalf("%s %s is not true: %+v\n%s\n%s\n%s", name, direction, c, models[0], texts[0], texts[1])
					}
				}
			}
		}
		if len(d.Untried) == 0 {
			complete++
		}
		if strings.Contains(unlike(texts[0], texts[1]), "/$") {
			if named++; len(d.Untried) == 0 {
				namedComplete++
			}
		}
		paths := brutePaths(t)
		for name := range names {
			for _, action := range actions {
				for _, domain := range domains {
					for _, path := range paths {
						was, is := ask(stores[0], time.Time{}, name, action, domain, path), ask(stores[1], time.Time{}, name, action, domain, path)
						direction := "gained"
						if was {
							direction = "lost"
						}
						if was == is {
							continue
						}
						tell := []string{name}
						if strangers[name] {
							tell = []string{unlisted}
						} else if one, group, ok := strings.Cut(name, "+@"); ok {
							tell = append(tell, one, "@"+group, "@"+group+"+"+one)
							together++
						}
						if gains++; slices.ContainsFunc(tell, func(name string) bool { return told1[strings.Join([]string{direction, name, action, domain}, " ")] }) {
							told++
							continue
						}
						if len(d.Untried) == 0 {
							t.Fatalf("missed: %s %s %s %s %s\n%s\n%s\nbefore:\n%s\nafter:\n%s\n%+v", direction, name, action, domain, path, models[0], models[1], texts[0], texts[1], d)
						}
					}
				}
			}
		}
	})
	t.Logf("%d pairs, %d of them looked at to the end, %d changes told; of %d answers that differ %d were told of; in %d pairs a line with $sub or $group changed, %d of them looked at to the end; %d of the answers are of two names together",
		pairs, complete, changes, gains, told, named, namedComplete, together)
	if complete*2 < pairs || told*10 < gains*9 || gains < pairs || pairs > 500 && named*10 < pairs || named > 30 && namedComplete*2 < named {
		t.Errorf("the comparisons say little: %d pairs, %d complete, %d differ, %d told; with names %d, %d complete", pairs, complete, gains, told, named, namedComplete)
	}
}

// unlike returns the lines that one of two policies has and the other has not.
func unlike(a, b string) string {
	var only []string
	for i, text := range []string{a, b} {
		other := strings.Split([]string{b, a}[i], "\n")
		for line := range strings.SplitSeq(text, "\n") {
			if !slices.Contains(other, line) {
				only = append(only, line)
			}
		}
	}
	return strings.Join(only, "\n")
}
