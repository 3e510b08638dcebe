package engine

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"securefiles/authz"
	"securefiles/policy/internal/model"
	"securefiles/policy/internal/pattern"
	"securefiles/policy/internal/table"
	"securefiles/policy/internal/world"

	"github.com/casbin/govaluate"
)

// begin takes an evaluator of a model and a policy for alice, who reads /x.
func begin(t *testing.T, modelText, policy string) *Evaluator {
	t.Helper()
	v := load(t, modelText, policy, Options{})
	q := world.Query("alice", "/x")
	ev, err := v.Engine.Begin(&q)
	if err != nil {
		t.Fatal(err)
	}
	return ev
}

// exhausted is the limit of a decision that is to be given up.
func exhausted() (limit, error) {
	why := errors.New("late")
	return limit{ctx: context.Background(), err: why}, why
}

// Whatever the loader lets through, a function of the matcher refuses what it is not
// for, and says so.
func TestFunctionsRefuseWhatTheyAreNotFor(t *testing.T) {
	ev := begin(t, matcherModel("g(r.sub, p.sub) && r.act == p.act"), "p, alice, /x, read\n")
	functions := ev.functions()
	for _, tt := range []struct {
		function string
		args     []any
		want     string
	}{
		{"g", []any{1.0, "alice"}, "takes names, not float64"},
		{"g", []any{"alice", 1.0}, "takes names, not float64"},
		{"g", []any{"alice"}, "takes two names"},
		{"g", []any{"alice", "alice", "d", "e"}, "takes two names"},
		{"timeMatch", []any{"_"}, "takes a beginning and an end"},
		{"timeMatch", []any{"_", "_", "_"}, "takes a beginning and an end"},
		{"timeMatch", []any{1.0, "_"}, "takes texts"},
		{"timeMatch", []any{"_", 1.0}, "takes texts"},
		{"timeMatch", []any{1.0, 1.0}, "takes texts"},
		{"timeMatch", []any{"_", "tomorrow"}, "no time of the policy"},
		{"eval", nil, "takes one rule"},
		{"eval", []any{"true", "true"}, "takes one rule"},
		{"eval", []any{1.0}, "takes a rule of the policy"},
		{"eval", []any{"r.sub =="}, "compile the rule"},
	} {
		if got, err := functions[tt.function](tt.args...); got == true || err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s(%v): %v, %v", tt.function, tt.args, got, err)
		}
	}
	if got, err := functions["eval"]("r.sub == 'alice'"); got != true || err != nil {
		t.Errorf("a rule: %v, %v", got, err)
	}
	var why error
	ev.limit, why = exhausted()
	if got, err := functions["eval"]("r.sub == 'alice'"); got == true || !errors.Is(err, why) {
		t.Errorf("a rule that comes too late: %v, %v", got, err)
	}
}

// What a pattern function is given but two texts is Casbin's own to answer.
func TestPatternFunctionsLeaveTheRestToCasbin(t *testing.T) {
	ev := begin(t, matcherModel("keyMatch2(r.obj, p.obj)"), "p, alice, /x, read\n")
	ev.Request[ev.engine.obj] = ""
	asked := errors.New("asked")
	casbins := govaluate.ExpressionFunction(func(...any) (any, error) { return nil, asked })
	for _, args := range [][]any{nil, {"/x"}, {"/x", "/x", "/x"}, {1.0, "/x"}, {"/x", 1.0}, {1.0, 1.0}, {1.0, "/$sub"}} {
		if got, err := ev.match(named("keyMatch2"), casbins, args); err != asked {
			t.Errorf("%v: %v, %v", args, got, err)
		}
	}
	if got, err := ev.match(named("keyMatch2"), casbins, []any{"/x", "/x"}); got != true || err != nil {
		t.Errorf("two texts: %v, %v", got, err)
	}
}

// A name of the matcher that neither r nor p has is an error, and no other value.
func TestParametersThatThereAreNot(t *testing.T) {
	ev := begin(t, matcherModel("r.sub == p.sub && r.act == p.act"), "p, alice, /x, read\n")
	for _, ev.row = range []int{-1, 0} {
		for _, name := range []string{"sub", "r_", "r_nobody", "p_", "p_nobody", "", "x_sub", "obj"} {
			if got, err := ev.Get(name); err == nil {
				t.Errorf("%q in row %d is %v", name, ev.row, got)
			}
		}
	}
	for name, want := range map[string]string{"r_sub": "alice", "r_obj": "/x", "p_sub": "alice", "p_act": "read"} {
		if got, err := ev.Get(name); got != want || err != nil {
			t.Errorf("%s is %v, %v", name, got, err)
		}
	}
}

// An effect that is neither allow nor deny says nothing, whatever the lines' effects
// are merged by; one that nobody knows denies.
func TestEffectsThatAreNone(t *testing.T) {
	const policy = "p, alice, /x, read, allow\np, alice, /y, read, allow\np, alice, /z, read, allow\n"
	text := strings.Replace(matcherModel("g(r.sub, p.sub) && r.act == p.act"), "p = sub, obj, act", "p = sub, obj, act, eft", 1)
	for effect, want := range map[string]struct {
		allowed bool
		row     int
	}{
		"some(where (p.eft == allow))":                                 {true, 1},
		"!some(where (p.eft == deny))":                                 {false, 2},
		"some(where (p.eft == allow)) && !some(where (p.eft == deny))": {false, 2},
		"priority(p.eft) || deny":                                      {true, 1},
		"subjectPriority(p.eft) || deny":                               {true, 1},
	} {
		ev := begin(t, strings.Replace(text, "some(where (p.eft == allow))", effect, 1), policy)
		e := ev.engine
		set := func(row int, text string) { e.cells[row*len(e.Rows.Cols)+e.eft] = e.Symbols.Intern(text) }
		set(0, "maybe")
		set(2, "deny")
		if allowed, row, err := ev.decideRows(3, func(i int) int { return i }); allowed != want.allowed || row != want.row || err != nil {
			t.Errorf("%s: %t by row %d, %v", effect, allowed, row, err)
		}
		set(1, "")
		set(2, "Allow")
		if allowed, row, err := ev.decideRows(3, func(i int) int { return i }); allowed != (e.Model.Effect == model.DenyOverride) || row != -1 || err != nil {
			t.Errorf("%s, of which nothing is known: %t by row %d, %v", effect, allowed, row, err)
		}
		if got, want := e.EffectOf(1), RowSilent; got != want {
			t.Errorf("the effect of an empty text is %d", got)
		}
		e.Model.Effect = "nothing"
		if allowed, _, err := ev.decideRows(3, func(i int) int { return i }); allowed || err == nil {
			t.Errorf("an effect that nobody knows: %t, %v", allowed, err)
		}
	}
}

// Of lines that only deny, none allows.
func TestDenyLinesUnderAllowOverride(t *testing.T) {
	ev := begin(t, strings.Replace(matcherModel("r.sub == p.sub && r.act == p.act"), "p = sub, obj, act", "p = sub, obj, act, eft", 1), "p, alice, /x, read, allow\n")
	ev.engine.cells[ev.engine.eft] = ev.engine.Symbols.Intern("deny")
	if allowed, row, err := ev.decideRows(1, func(i int) int { return i }); allowed || row != -1 || err != nil {
		t.Errorf("%t by row %d, %v", allowed, row, err)
	}
}

// A matcher may be a number as a whole; a part of it may not. What fails says why.
func TestPartsOfAMatcherThatAreNoVerdict(t *testing.T) {
	ev := begin(t, matcherModel("(r.sub == p.sub ? 1 : 0)"), "p, alice, /x, read\n")
	atom := ev.engine.Model.Root.Atom
	if atom == nil || atom.Kind != model.Opaque {
		t.Fatal("the matcher is something else than one opaque part")
	}
	ev.row = 0
	if holds, err := ev.evaluate(atom, true); !holds || err != nil {
		t.Errorf("as a whole: %t, %v", holds, err)
	}
	if holds, err := ev.evaluate(atom, false); holds || err == nil {
		t.Errorf("as a part: %t, %v", holds, err)
	}
	var why error
	ev.limit, why = exhausted()
	if holds, err := ev.evaluate(atom, true); holds || !errors.Is(err, why) {
		t.Errorf("too late: %t, %v", holds, err)
	}
	if holds, err := ev.Matches(0); holds || !errors.Is(err, why) {
		t.Errorf("a row that is looked at too late: %t, %v", holds, err)
	}
	ev = begin(t, matcherModel("r.sub == p.sub"), "p, alice, /x, read\n")
	ev.limit, why = exhausted()
	if holds, err := ev.Matches(0); holds || !errors.Is(err, why) {
		t.Errorf("a row whose parts take no time: %t, %v", holds, err)
	}
	ev = begin(t, matcherModel("(r.sub == p.sub ? true : false)"), "p, alice, /x, read\n")
	ev.row, ev.engine.Model.Request[0] = 0, "nobody"
	if holds, err := ev.evaluate(ev.engine.Model.Root.Atom, true); holds || err == nil || !strings.Contains(err.Error(), "no parameter") {
		t.Errorf("what fails: %t, %v", holds, err)
	}
}

// A matcher that does not compile makes no engine, and no evaluator of one.
func TestAMatcherThatDoesNotCompile(t *testing.T) {
	m, tab := read(t, matcherModel("(r.sub == p.sub ? true : false)"), "p, alice, /x, read\n")
	e, err := New(m, tab, Options{})
	if err != nil {
		t.Fatal(err)
	}
	begins := func() (ok bool) {
		defer func() { ok = recover() == nil }()
		e.evaluators.New()
		return
	}
	for name, spoil := range map[string]func() func(){
		"its text":   func() func() { was := m.Matcher; m.Matcher = "("; return func() { m.Matcher = was } },
		"its tokens": func() func() { was := m.Atoms[0].To; m.Atoms[0].To--; return func() { m.Atoms[0].To = was } },
	} {
		mend := spoil()
		if _, err := New(m, tab, Options{}); err == nil {
			t.Errorf("%s does not compile, and there is an engine", name)
		}
		if begins() {
			t.Errorf("%s does not compile, and there is an evaluator", name)
		}
		mend()
		if !begins() {
			t.Errorf("%s compiles, and there is no evaluator", name)
		}
	}
}

// A request that lacks what the model asks for is an error, and decides nothing.
func TestARequestThatLacksAFieldIsAnError(t *testing.T) {
	v := load(t, matcherModel("r.sub == p.sub && r.act == p.act"), "p, alice, /x, read\n", Options{})
	v.Engine.Model.Request[0] = "nobody"
	v.Engine.Model.Evaluates = true // it may ask for anything
	q := world.Query("alice", "/x")
	if allowed, _, err := v.Engine.decideWithin(limit{}, &q, v.Engine.Lookup("alice")); allowed || err == nil || !strings.Contains(err.Error(), "r.nobody, which no request has") {
		t.Errorf("%t, %v", allowed, err)
	}
}

// What is found once in a decision is not looked for again: symbols, walks, what the
// request alone decides, compilers, and indexes of the same field.
func TestNothingIsFoundTwice(t *testing.T) {
	ev := begin(t, matcherModel(`(r.act == "read" ? true : false) && (r.sub == p.sub ? true : false) && g(r.sub, p.sub)`), "p, alice, /x, read\np, staff, /x, read\ng, alice, staff\n")
	compiler := ev.compiler
	for _, a := range ev.engine.Model.Atoms {
		if is := a.Kind == model.Opaque || a.Kind == model.RequestOnly; is != (ev.compiled[a.Number] != nil) {
			t.Errorf("%s: compiled %t", a.Source, !is)
		}
		if a.Kind == model.Opaque || a.Kind == model.RequestOnly {
			if _, err := ev.compile(&a.Part); err != nil || ev.compiler != compiler {
				t.Errorf("%s: another compiler %t, %v", a.Source, ev.compiler != compiler, err)
			}
		}
		if a.Kind != model.RequestOnly {
			continue
		}
		ev.limit = limit{ctx: t.Context(), left: stepsToLook}
		for range 3 {
			if holds, err := ev.holdsForRequest(a); !holds || err != nil {
				t.Errorf("%s: %t, %v", a.Source, holds, err)
			}
		}
		if spent := stepsToLook - ev.limit.left; spent != stepsOfCall {
			t.Errorf("%s: %d steps for what takes %d once", a.Source, spent, stepsOfCall)
		}
		ev.limit = limit{}
	}
	if allowed, _, err := ev.decide(ev.Lookup("alice")); !allowed || err != nil || len(ev.Walks) != 1 {
		t.Errorf("%t, %v, %d walks", allowed, err, len(ev.Walks))
	}
	ev.symbols[1], ev.Found[1] = 77, true
	if got := ev.symbol(1); got != 77 {
		t.Errorf("a symbol that was found is looked up: %d", got)
	}
	p := begin(t, matcherModel(`keyMatch2(r.obj, p.obj) && r.sub == p.sub || keyMatch2(r.obj, p.obj) && g(r.sub, p.sub)`), manyLines(40, "p, u%[1]d, /d%[1]d/*, read\n")).engine.Plan
	if a, b := p.conjunctions[0], p.conjunctions[1]; a.anchors != b.anchors || a.lookups[0].index != b.lookups[0].index {
		t.Error("two alternatives have each an index of the same field")
	}
}

// The symbol of the subject is the one that the caller has found, whichever field of
// the request the subject is.
func TestTheCallersSymbolOfTheSubjectCounts(t *testing.T) {
	for _, request := range []string{"sub, obj, act", "obj, sub, act"} {
		ev := begin(t, strings.Replace(matcherModel("r.sub == p.sub && r.act == p.act"), "r = sub, obj, act", "r = "+request, 1), "p, bob, /x, read\n")
		if allowed, _, err := ev.decide(ev.Lookup("bob")); !allowed || err != nil {
			t.Errorf("r = %s: %t, %v", request, allowed, err)
		}
	}
}

// A line without dates asks no clock, and a time that the policy does not have is an
// error where it has no open side either.
func TestTimesThatArePassedBy(t *testing.T) {
	looks := 0
	v := load(t, model.Default, "p, alice, /x, read, allow\np, bob, /x, read, allow, _, 2026-06-30\n", Options{Now: func() time.Time { looks++; return time.Time{} }})
	q := authz.Query{Principal: authz.Principal{Subject: "alice"}, Object: "/x", Action: "read"}
	if d, err := v.Decide(&q); err != nil || d.Effect != authz.Allow || looks != 0 {
		t.Errorf("%+v, %v, %d looks at the clock", d, err, looks)
	}
	ev := begin(t, model.Default, "p, alice, /x, read, allow\n")
	ev.engine.open = table.NoSymbol
	if holds, err := ev.isTime(table.NoSymbol, table.NoSymbol); holds || err == nil {
		t.Errorf("what is no time: %t, %v", holds, err)
	}
}

// A role definition without a domain is asked in none, whatever a domain is given.
func TestRolesWithoutADomain(t *testing.T) {
	ev := begin(t, matcherModel("g(r.sub, p.sub) && r.act == p.act"), "p, alice, /x, read\n")
	if got := ev.domainSymbol("g", "read", ev.Lookup("read")); got != ev.engine.empty {
		t.Errorf("it is asked in domain %d", got)
	}
	for _, kind := range []model.Kind{model.Equal, model.Constant} {
		if field, ok := domainOf(&model.Atom{Kind: kind, Domain: model.DomainPolicy}, nil); field != -1 || !ok {
			t.Errorf("kind %d: field %d, %t", kind, field, ok)
		}
	}
}

// Without a row, a role is asked of the empty text, which nobody but the empty subject
// has.
func TestRolesWithoutARow(t *testing.T) {
	ev := begin(t, matcherModel("g(r.sub, p.sub)"), "")
	ev.row = -1
	for subject, want := range map[string]bool{"alice": false, "": true} {
		ev.Request[0] = subject
		ev.Found[0], ev.Walks = false, ev.Walks[:0]
		if holds, err := ev.atomHolds(ev.engine.Model.Root.Atom, false); holds != want || err != nil {
			t.Errorf("%q: %t, %v", subject, holds, err)
		}
	}
}

// The two ends of patterns have keys of their own.
func TestTheSeedsOfTheTwoSidesDiffer(t *testing.T) {
	if sideSeed(true) == sideSeed(false) {
		t.Error("a prefix and a suffix of the same text share a key")
	}
}

// How much of an anchor its names are good for: up to so many, behind so many wild
// characters.
func TestHowFarNamesInAnAnchorCount(t *testing.T) {
	any, sub, group := string([]byte{pattern.AnyRune}), string([]byte{pattern.AnySubject}), string([]byte{pattern.AnyGroup})
	at := func(slashes, slack int, mark byte) namePlace { return namePlace{slashes, slack, mark} }
	for _, tt := range []struct {
		anchor string
		names  int
		kept   int
		places []namePlace
	}{
		{"/a/b", 2, 4, nil},
		{"/" + sub + "/b", 2, 4, []namePlace{at(1, 0, pattern.AnySubject)}},
		{"/" + sub + "/" + group, 2, 4, []namePlace{at(1, 0, pattern.AnySubject), at(2, 0, pattern.AnyGroup)}},
		{"/" + sub + "/" + group, 1, 3, []namePlace{at(1, 0, pattern.AnySubject)}},
		{"/" + sub + "/" + group, 0, 1, nil},
		{"/" + any + any + "/" + sub + "/c", 2, 7, []namePlace{at(2, maxSlack, pattern.AnySubject)}},
		{"/" + any + any + any + "/" + sub + "/c", 2, 5, nil},
		{"/" + sub + "/" + sub + "/" + sub, 2, 5, []namePlace{at(1, 0, pattern.AnySubject), at(2, 0, pattern.AnySubject)}},
	} {
		kept, places := placesIn(tt.anchor, false, tt.names)
		if kept != tt.kept || !slices.Equal(places.names[:places.count], tt.places) || places.fromEnd {
			t.Errorf("%q: %d bytes with %+v", tt.anchor, kept, places)
		}
	}
	if kept, places := placesIn("a/"+sub+"/", true, 2); kept != 4 || !places.fromEnd || places.names[0] != at(1, 0, pattern.AnySubject) {
		t.Errorf("from the end: %d bytes with %+v", kept, places)
	}
}

// The names of a path are found in whichever field it is, by explain too.
func TestNamesOfThePathInAnyField(t *testing.T) {
	for _, request := range []string{"obj, sub, act", "sub, obj, act"} {
		v := load(t, strings.Replace(matcherModel("globMatch(r.obj, p.obj)"), "r = sub, obj, act", "r = "+request, 1), "p, x, /home/$sub/*, read\n", Options{})
		q := world.Query("alice", "/home/alice/acme", "@acme", "@other")
		ev, err := v.Engine.Begin(&q)
		if err != nil {
			t.Fatal(err)
		}
		if names := ev.Names(); names.Subject != "alice" || !slices.Equal(names.Groups, []string{"acme"}) {
			t.Errorf("r = %s: %q, %q", request, names.Subject, names.Groups)
		}
		v.Engine.End(ev)
	}
}

// A path is looked up with a mark in a place where its segment is that name, and no
// other: a subject's for the subject, a group's for a group.
func TestPathsAreMarkedForTheirNamesAlone(t *testing.T) {
	const lines = "p, @authenticated, /$sub/a/*, read, allow\np, @authenticated, /$group/b/*, read, allow\np, @authenticated, /x/$sub/$group/*, read, allow\np, @authenticated, /t./$sub/d/*, read, allow\n"
	e := namedEngine(t, "keyMatch2", lines, Options{})
	if sides := len(e.Plan.conjunctions[0].anchors.keysOf.sides); sides != 2+4 {
		t.Fatalf("%d sides", sides)
	}
	c := &e.Plan.conjunctions[0]
	for i := range c.anchors.keysOf.sides { // one key for each text of a side with names, none for the others
		side := &c.anchors.keysOf.sides[i]
		side.masks, side.exact = nil, side.count > 0
	}
	for object, want := range map[string]int{
		"/q/q/q/q": 0, "/alice/q/q/q": 1, "/acme/q/q/q": 1, "/q/alice/q/q": 1, "/q/acme/q/q": 0, "/q/alice/acme/q": 2,
		"/q/acme/alice/q": 1, "/alice/acme/q/q": 1, "/q/alice/alice/q": 2, "/alice": 1, "/q/alice": 1, "": 0, "/": 0, "alice": 0,
	} {
		q := world.Query("alice", object, "@acme", authz.GroupAuthenticated)
		ev, err := e.Begin(&q)
		if err != nil {
			t.Fatal(err)
		}
		if ev.fillKeys(c); len(ev.keys.all)-1 != want { // but for the key that asks nothing
			t.Errorf("%q is marked in %d ways, not %d", object, len(ev.keys.all)-1, want)
		}
		e.End(ev)
	}
}
