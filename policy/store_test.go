package policy_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"securefiles/authz"
	"securefiles/policy"
	"securefiles/policy/explain"
	"securefiles/policy/internal/model"
	"securefiles/policy/internal/storetest"
	"securefiles/policy/internal/world"

	"github.com/google/go-cmp/cmp"
)

var _ authz.Decider = (*policy.Store)(nil)

// explained is a decision that must be explicable.
func explained(t *testing.T, s *policy.Store, q authz.Query) *explain.Explanation {
	t.Helper()
	x, err := explain.Decision(t.Context(), s, q)
	if err != nil {
		t.Fatal(err)
	}
	return x
}

func TestDecide(t *testing.T) {
	s, _ := storetest.Open(t, storetest.ContractPolicy, nil)
	for _, tt := range []struct {
		name string
		q    authz.Query
		want string
	}{
		{"a role allows", world.Query("alice", "/project/plan.pdf"), "allow g1:policy.csv:2"},
		{"a deny wins", world.Query("alice", "/project/hr/pay.pdf"), "deny g1:policy.csv:3"},
		{"no line is the default deny", world.Query("alice", "/other"), "deny g1:-"},
		{"a group of the source has a role", world.Query("bob", "/project/plan.pdf", "@contractors"), "allow g1:policy.csv:2"},
		{"and its denials", world.Query("bob", "/project/hr/pay.pdf", "@contractors"), "deny g1:policy.csv:3"},
		{"a built-in group is a subject", world.Query("bob", "/shared/x/y", "@anyone", "@authenticated"), "allow g1:policy.csv:1"},
		{"anonymous has it not", world.Query(authz.Anonymous, "/shared/x", "@anyone"), "deny g1:-"},
		{"another action", authz.Query{Principal: authz.Principal{Subject: "alice"}, Object: "/project/x", Action: authz.ActionShare}, "deny g1:-"},
		{"somebody unknown", world.Query("mallory", "/project/plan.pdf"), "deny g1:-"},
	} {
		if got := storetest.Answer(t, s, tt.q); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
	}
}

// S16: nobody can be called like a role, or like a group.
func TestReservedSubjects(t *testing.T) {
	s, _ := storetest.Open(t, storetest.ContractPolicy, nil)
	for _, subject := range []string{"project_member", "@contractors", "@authenticated", "@nobody", "role:editor", "role:", ""} {
		d, err := s.Decide(t.Context(), world.Query(subject, "/project/plan.pdf"))
		if !errors.Is(err, authz.ErrReservedSubject) || d.Effect != authz.Deny {
			t.Errorf("%q: %v, %v", subject, d, err)
		}
		if x := explained(t, s, world.Query(subject, "/project/plan.pdf")); x.Allowed || x.Reason != authz.ReasonSubject {
			t.Errorf("explain %q: %v", subject, x)
		}
	}
}

// A role whose last g line is gone, or whose first has not come, is nobody's name
// where it is marked as a role.
func TestAMarkedRoleIsNotFreeForTheTaking(t *testing.T) {
	s := storetest.OpenText(t, model.Default, "p, role:editor, /x, read, allow\np, editor, /y, read, allow\n")
	if d, err := s.Decide(t.Context(), world.Query("role:editor", "/x")); !errors.Is(err, authz.ErrReservedSubject) || d.Effect != authz.Deny {
		t.Errorf("%v, %v", d, err)
	}
	if got := storetest.Answer(t, s, world.Query("editor", "/y")); got != "allow g1:policy.csv:2" {
		t.Error(got)
	}
}

// A role that the model or a rule asks for is one, though no line gives it.
func TestReservedByTheModel(t *testing.T) {
	shape := world.Shape{Request: []string{"sub", "obj", "act"}, Policy: []string{"sub", "obj", "act", "eft", "rule"}, Roles: []string{"g = _, _", "g2 = _, _"}, Effect: world.AllowAndDeny}
	s := storetest.OpenText(t, shape.Model(`g(r.sub, p.sub) && eval(p.rule) || g(r.sub, "operators") || g2(r.sub, p.sub)`),
		"p, alice, /x, read, allow, \"g(r.sub, 'rulers')\"\np, owner, /x, read, allow, true\ng2, alice, owner\n")
	for _, subject := range []string{"operators", "rulers", "owner"} {
		d, err := s.Decide(t.Context(), world.Query(subject, "/x"))
		if !errors.Is(err, authz.ErrReservedSubject) || d.Effect != authz.Deny {
			t.Errorf("%q: %v, %v", subject, d, err)
		}
		if x := explained(t, s, world.Query(subject, "/x")); !strings.Contains(x.Why, "role") {
			t.Errorf("explain %q: %s", subject, x.Why)
		}
	}
	if got := storetest.Answer(t, s, world.Query("alice", "/x")); got != "allow g1:policy.csv:1" {
		t.Error(got)
	}
}

// However a role is asked of the subject, nobody may be called like it.
func TestReservedHoweverTheMatcherAsks(t *testing.T) {
	const model = "[request_definition]\nr = sub, obj, act\n[policy_definition]\np = sub, obj, act, eft, rule\n" +
		"[role_definition]\ng = _, _\ng2 = _, _\ng3 = _, _, _\n[policy_effect]\ne = " + world.AllowAndDeny + "\n[matchers]\n" +
		`m = %s || r.act == "never" && g(r.sub, p.sub) && g2(r.obj, p.obj) && g3(r.obj, p.obj, p.act) && eval(p.rule)` + "\n"
	const lines = "p, somebody, /x, read, allow, \"%s\"\ng2, alice, operators\ng3, alice, operators, read\n"
	for _, tt := range []struct{ asks, rule string }{
		{`g(r.sub, "operators")`, `true`},
		{`g (r.sub, "operators")`, `true`},
		{`g((r.sub), "operators")`, `true`},
		{`g(((r.sub)), ("operators"))`, `true`},
		{`g(r.sub, "oper" + "ators")`, `true`},
		{`g(r.sub + "", "operators")`, `true`},
		{`!g((r.sub), "operators")`, `true`},
		{`(r.act == "list" ? false : g((r.sub), "operators"))`, `true`},
		{`(g((r.sub), "operators") == true)`, `true`},
		{`g(r.sub, (r.act == "list" ? "readers" : "operators"))`, `true`},
		{`g2(r.sub, p.sub)`, `true`},
		{`g2 ((r.sub), p.sub)`, `true`},
		{`g2(r.sub + "", p.sub)`, `true`},
		{`g2("" + r.sub, p.sub)`, `true`},
		{`g3((r.sub), p.sub, r.act)`, `true`},
		{`g2((r.act == "read" ? r.sub : r.act), p.sub)`, `true`},
		{`eval(p.rule)`, `g((r.sub), 'operators')`},
		{`eval(p.rule)`, `g (r.sub, 'operators')`},
		{`eval(p.rule)`, `g2((r.sub), 'somebody')`},
		{`eval(p.rule)`, `g3(r.sub + '', 'somebody', r.act)`},
	} {
		s := storetest.OpenText(t, fmt.Sprintf(model, tt.asks), fmt.Sprintf(lines, tt.rule))
		q := world.Query("operators", "/x")
		if d, err := s.Decide(t.Context(), q); !errors.Is(err, authz.ErrReservedSubject) || d.Effect != authz.Deny {
			t.Errorf("%s%s: %v, %v", tt.asks, tt.rule, d, err)
		}
		if x := explained(t, s, q); !strings.Contains(x.Why, "role") {
			t.Errorf("explain %s%s: %s", tt.asks, tt.rule, x.Why)
		}
	}
}

// A role of something else than the subject may be somebody's name.
func TestNotReservedWhereTheSubjectIsNotAsked(t *testing.T) {
	shape := world.Shape{Request: []string{"sub", "obj", "act"}, Policy: []string{"sub", "obj", "act"}, Roles: []string{"g = _, _", "g2 = _, _"}, Effect: world.AllowOverride}
	s := storetest.OpenText(t, shape.Model(`g(r.sub, p.sub) && g2(r.obj, p.obj)`), "p, alice, reports, read\np, reports, reports, read\ng2, /x, reports\n")
	if got := storetest.Answer(t, s, world.Query("reports", "/x")); got != "allow g1:policy.csv:2" {
		t.Error(got)
	}
}

// S10: whatever panics or was never opened denies.
func TestFailuresDeny(t *testing.T) {
	var zero policy.Store
	if d, err := zero.Decide(t.Context(), world.Query("alice", "/")); err == nil || d.Effect != authz.Deny {
		t.Errorf("a zero store: %v, %v", d, err)
	}
	if st := zero.Status(); st.Generation != 0 {
		t.Errorf("its status: %+v", st)
	}

	file := filepath.Join(t.TempDir(), "policy.csv")
	world.Write(t, file, "p, alice, /**, read, 10.0.0.0/8, allow\n")
	s, err := policy.Open(t.Context(), policy.Files{Model: world.ModelFile(t, "address"), Policy: file}, nil)
	if err != nil {
		t.Fatal(err)
	}
	q := world.Query("alice", "/x") // without an address, on which ipMatch panics
	if d, err := s.Decide(t.Context(), q); err == nil || d != (authz.Decision{}) {
		t.Errorf("a panic: %v, %v", d, err)
	}
	if x := explained(t, s, q); x.Allowed || x.Error == "" {
		t.Errorf("explain of a panic: %v", x)
	}
	q.IP = "10.1.2.3"
	if got := storetest.Answer(t, s, q); got != "allow g1:policy.csv:1" {
		t.Errorf("afterwards: %s", got)
	}
}

// S15: a version that is wrong is refused as a whole, with its place, and the
// last good one goes on serving.
func TestReload(t *testing.T) {
	s, file := storetest.Open(t, storetest.ContractPolicy, nil)
	const bad = storetest.ContractPolicy + "p, project_member, /project/plan.pdf, read, Deny\n"
	changed := strings.Replace(storetest.ContractPolicy, "/project/**,  read, allow", "/project/**,  read, deny", 1)
	for _, step := range []struct {
		name, text, refusal, want string
	}{
		{"the same content", storetest.ContractPolicy, "", "allow g1:policy.csv:2"},
		{"a change", changed, "", "deny g2:policy.csv:2"},
		{"and back", storetest.ContractPolicy, "", "allow g3:policy.csv:2"},
		{"a mistake", bad, `policy.csv:6: error: the effect is "Deny", which Casbin would ignore: write allow or deny [effect]`, "allow g3:policy.csv:2"},
		{"the same mistake", bad, `policy.csv:6: error: the effect is "Deny", which Casbin would ignore: write allow or deny [effect]`, "allow g3:policy.csv:2"},
		{"the mistake taken back", storetest.ContractPolicy, "", "allow g3:policy.csv:2"},
		{"an empty file", "", "policy.csv: error: there is no p line, so everybody would be refused: add one, or set policy.allow_shrink to mean it [policy-empty]", "allow g3:policy.csv:2"},
		{"comments alone", "# nothing\n", "policy.csv: error: there is no p line, so everybody would be refused: add one, or set policy.allow_shrink to mean it [policy-empty]", "allow g3:policy.csv:2"},
		{"half a file", storetest.ContractPolicy[:60], "policy.csv:2: error: has 1 fields after its type, not the model's 4 (sub, obj, act, eft) [field-count]", "allow g3:policy.csv:2"},
		{"two lines of five", "p, alice, /project/**, read, allow\np, bob, /**, read, allow\n", "policy.csv: error: only 2 of 5 lines are left: if that is meant, set policy.allow_shrink and load it again [policy-shrunk]", "allow g3:policy.csv:2"},
		{"three lines of five", "p, bob, /**, read, allow\np, carol, /**, read, allow\np, alice, /project/**, read, allow\n", "", "allow g4:policy.csv:3"},
	} {
		world.Write(t, file, step.text)
		err := s.Reload(t.Context())
		var refused *policy.LoadError
		switch {
		case step.refusal == "" && err != nil:
			t.Errorf("%s: %v", step.name, err)
		case step.refusal != "" && (!errors.As(err, &refused) || strings.TrimPrefix(err.Error(), filepath.Dir(file)+"/") != step.refusal):
			t.Errorf("%s: refused with %v", step.name, err)
		}
		if st := s.Status(); st.Stale != (step.refusal != "") || !errors.Is(st.Err, err) {
			t.Errorf("%s: status %+v", step.name, st)
		}
		if got := storetest.Answer(t, s, world.Query("alice", "/project/plan.pdf")); got != step.want {
			t.Errorf("%s: %s, want %s", step.name, got, step.want)
		}
	}
}

// However a file is replaced, the next reload serves the new version.
func TestReloadAfterReplacement(t *testing.T) {
	const before, after = "p, alice, /a, read, allow\np, bob, /b, read, allow\n", "p, bob, /b, read, allow\np, alice, /a, read, deny\n"
	for _, tt := range []struct {
		name    string
		replace func(t *testing.T, dir string)
	}{
		{"written in place", func(t *testing.T, dir string) { world.Write(t, filepath.Join(dir, "policy.csv"), after) }},
		{"an editor's rename", func(t *testing.T, dir string) {
			world.Write(t, filepath.Join(dir, "policy.csv~"), after)
			rename(t, filepath.Join(dir, "policy.csv~"), filepath.Join(dir, "policy.csv"))
		}},
		{"removed and made again", func(t *testing.T, dir string) {
			if err := os.Remove(filepath.Join(dir, "policy.csv")); err != nil {
				t.Fatal(err)
			}
			world.Write(t, filepath.Join(dir, "policy.csv"), after)
		}},
		{"the link of a ConfigMap", func(t *testing.T, dir string) {
			// As it was mounted: policy.csv -> ..data/policy.csv, ..data -> ..2
			mount(t, dir, "..2", after)
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			file := filepath.Join(dir, "policy.csv")
			if strings.Contains(tt.name, "ConfigMap") {
				mount(t, dir, "..1", before)
				if err := os.Symlink("..data/policy.csv", file); err != nil {
					t.Fatal(err)
				}
			} else {
				world.Write(t, file, before)
			}
			s, err := policy.Open(t.Context(), policy.Files{Policy: file}, nil)
			if err != nil {
				t.Fatal(err)
			}
			tt.replace(t, dir)
			if err := s.Reload(t.Context()); err != nil {
				t.Fatal(err)
			}
			if got := storetest.Answer(t, s, world.Query("alice", "/a")); got != "deny g2:policy.csv:2" {
				t.Error(got)
			}
		})
	}
}

// mount swaps a ConfigMap's ..data for a new version.
func mount(t *testing.T, dir, version, text string) {
	t.Helper()
	if err := os.Mkdir(filepath.Join(dir, version), 0o700); err != nil {
		t.Fatal(err)
	}
	world.Write(t, filepath.Join(dir, version, "policy.csv"), text)
	if err := os.Symlink(version, filepath.Join(dir, "..data_tmp")); err != nil {
		t.Fatal(err)
	}
	rename(t, filepath.Join(dir, "..data_tmp"), filepath.Join(dir, "..data"))
}

func rename(t *testing.T, from, to string) {
	t.Helper()
	if err := os.Rename(from, to); err != nil {
		t.Fatal(err)
	}
}

// S11: while a file is away, the last good version serves.
func TestReloadWithoutAFile(t *testing.T) {
	dir := t.TempDir()
	modelFile, file := filepath.Join(dir, "model.conf"), filepath.Join(dir, "policy.csv")
	world.Write(t, modelFile, world.ModelText(t, "default"))
	world.Write(t, file, storetest.ContractPolicy)
	s, err := policy.Open(t.Context(), policy.Files{Model: modelFile, Policy: file}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{modelFile, file}, (policy.Files{Model: modelFile, Policy: file}).Names()); diff != "" {
		t.Error(diff)
	}
	for _, name := range []string{modelFile, file} {
		rename(t, name, name+".away")
		if err := s.Reload(t.Context()); !errors.Is(err, fs.ErrNotExist) || !s.Status().Stale {
			t.Errorf("%s away: %v", name, err)
		}
		if got := storetest.Answer(t, s, world.Query("alice", "/project/plan.pdf")); got != "allow g1:policy.csv:2" {
			t.Error(got)
		}
		rename(t, name+".away", name)
		if err := s.Reload(t.Context()); err != nil || s.Status().Stale {
			t.Errorf("%s back: %v", name, err)
		}
	}
	world.Write(t, modelFile, strings.Replace(world.ModelText(t, "default"), "globMatch(r.obj, p.obj)", "r.obj == p.obj", 1))
	if err := s.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := storetest.Answer(t, s, world.Query("alice", "/project/plan.pdf")); got != "deny g2:-" {
		t.Errorf("another model is another version: %s", got)
	}
}

func TestShrinking(t *testing.T) {
	lines := func(n int) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, "p, user%d, /**, read, allow\n", i)
		}
		return b.String()
	}
	for _, tt := range []struct {
		before, after int
		allowShrink   bool
		ok            bool
	}{
		{10, 5, false, true},
		{10, 4, false, false},
		{3, 2, false, true},
		{3, 1, false, false},
		{2, 1, false, true},
		{1, 0, false, false},
		{10, 1, true, true},
		{10, 0, true, true},
	} {
		s, file := storetest.Open(t, lines(tt.before), &policy.Options{AllowShrink: tt.allowShrink})
		world.Write(t, file, lines(tt.after))
		if err := s.Reload(t.Context()); (err == nil) != tt.ok {
			t.Errorf("%d lines after %d, allow shrink %t: %v", tt.after, tt.before, tt.allowShrink, err)
		}
	}
}

func TestStatus(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	clock := func() time.Time { now = now.Add(time.Second); return now }
	s, file := storetest.Open(t, storetest.ContractPolicy, &policy.Options{Now: clock})
	first := s.Status()
	if first.Generation != 1 || first.Lines != 5 || first.Stale || first.Err != nil || first.Duration != time.Second || first.LoadedAt != now {
		t.Errorf("%+v", first)
	}
	world.Write(t, file, "p")
	if err := s.Reload(t.Context()); err == nil {
		t.Fatal("accepted")
	}
	if st := s.Status(); st.Generation != 1 || st.Lines != 5 || !st.Stale || st.Err == nil || st.LoadedAt != first.LoadedAt {
		t.Errorf("%+v", st)
	}
}

// The end of the service says nothing about the policy.
func TestReloadThatIsStoppedRefusesNothing(t *testing.T) {
	s, file := storetest.Open(t, strings.Repeat("# a comment\n", 10_000)+storetest.ContractPolicy, nil)
	world.Write(t, file, strings.Repeat("# a comment\n", 10_001)+storetest.ContractPolicy)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Reload(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("reload: %v", err)
	}
	if st := s.Status(); st.Stale || st.Generation != 1 {
		t.Errorf("%+v", st)
	}
}

// A meddler is a context that changes something each time the loader looks
// whether it must stop, which is while it reads a long policy.
type meddler struct {
	context.Context
	meddle func()
}

func (m meddler) Err() error {
	m.meddle()
	return m.Context.Err()
}

// S15: files that change while they are read are read again, so that no mixture
// of two versions is served.
func TestFilesThatChangeWhileTheyAreReadAreReadAgain(t *testing.T) {
	filler := strings.Repeat("# long enough for the loader to look up\n", 10_000)
	const model = `
[request_definition]
r = sub, obj, act
[policy_definition]
p = sub, obj, act, eft
[policy_effect]
e = some(where (p.eft == allow)) && !some(where (p.eft == deny))
[matchers]
`
	const byPattern, byName = model + "m = r.sub == p.sub && globMatch(r.obj, p.obj) && r.act == p.act\n", model + "m = r.sub == p.sub && r.obj == p.obj && r.act == p.act\n"
	setUp := func(t *testing.T) (s *policy.Store, modelFile, policyFile string) {
		dir := t.TempDir()
		modelFile, policyFile = filepath.Join(dir, "model.conf"), filepath.Join(dir, "policy.csv")
		world.Write(t, modelFile, byPattern)
		world.Write(t, policyFile, filler+"p, alice, /a/*, read, allow\n")
		s, err := policy.Open(t.Context(), policy.Files{Model: modelFile, Policy: policyFile}, nil)
		if err != nil {
			t.Fatal(err)
		}
		return s, modelFile, policyFile
	}

	t.Run("policy", func(t *testing.T) {
		s, _, file := setUp(t)
		world.Write(t, file, filler+"p, alice, /b/*, read, allow\n")
		meddled := false
		err := s.Reload(meddler{t.Context(), func() {
			if !meddled {
				meddled = true
				world.Write(t, file+"~", filler+"p, alice, /c/*, read, allow\n")
				rename(t, file+"~", file)
			}
		}})
		if err != nil || !meddled {
			t.Fatal(err, meddled)
		}
		if got := storetest.Answer(t, s, world.Query("alice", "/c/x")); got != "allow g2:policy.csv:10001" {
			t.Error(got)
		}
	})
	t.Run("model", func(t *testing.T) {
		s, modelFile, file := setUp(t)
		world.Write(t, file, filler+"p, alice, /b/*, read, allow\n")
		meddled := false
		err := s.Reload(meddler{t.Context(), func() {
			if !meddled {
				meddled = true
				world.Write(t, modelFile, byName)
			}
		}})
		if err != nil {
			t.Fatal(err)
		}
		if got := storetest.Answer(t, s, world.Query("alice", "/b/x")); got != "deny g2:-" {
			t.Errorf("the old model serves with the new policy: %s", got)
		}
	})
	t.Run("always", func(t *testing.T) {
		s, _, file := setUp(t)
		version := 0
		err := s.Reload(meddler{t.Context(), func() {
			version++
			world.Write(t, file+"~", fmt.Sprintf("%sp, alice, /%d/*, read, allow\n", filler, version))
			rename(t, file+"~", file)
		}})
		if err == nil || !s.Status().Stale {
			t.Errorf("a file that never rests is served: %v", err)
		}
		if got := storetest.Answer(t, s, world.Query("alice", "/a/x")); got != "allow g1:policy.csv:10001" {
			t.Error(got)
		}
	})
}

// Each decision is by one version as a whole, while versions change.
func TestDecideWhileReloading(t *testing.T) {
	const one, two = "p, alice, /a, read, allow\np, bob, /b, read, allow\n", "p, bob, /b, read, allow\np, alice, /a, read, deny\n"
	s, file := storetest.Open(t, one, nil)
	stop := make(chan struct{})
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			for last := uint64(0); ; {
				select {
				case <-stop:
					return
				default:
				}
				d, err := s.Decide(t.Context(), world.Query("alice", "/a"))
				want := authz.Decision{Effect: authz.Allow, Generation: d.Generation, File: "policy.csv", Line: 1}
				if d.Generation%2 == 0 {
					want.Effect, want.Line = authz.Deny, 2
				}
				if err != nil || d != want || d.Generation < last {
					t.Errorf("%v, %v after g%d", d, err, last)
					return
				}
				last = d.Generation
				s.Status()
			}
		})
	}
	for i := range 50 {
		world.Write(t, file, []string{two, one}[i%2])
		var reloads sync.WaitGroup
		for range 2 { // the second finds nothing to do
			reloads.Go(func() {
				if err := s.Reload(t.Context()); err != nil {
					t.Error(err)
				}
			})
		}
		reloads.Wait()
		if got := s.Status().Generation; got != uint64(i+2) {
			t.Fatalf("generation %d after %d versions", got, i+2)
		}
	}
	close(stop)
	group.Wait()
}
