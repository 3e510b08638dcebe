package engine

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"securefiles/authz"
	"securefiles/policy/internal/finding"
	"securefiles/policy/internal/model"
	"securefiles/policy/internal/table"
	"securefiles/policy/internal/world"

	"github.com/casbin/casbin/v2/effector"
	casbinmodel "github.com/casbin/casbin/v2/model"
	defaultrolemanager "github.com/casbin/casbin/v2/rbac/default-role-manager"
	"github.com/casbin/casbin/v2/util"
	"github.com/casbin/govaluate"
	"pgregory.net/rapid"
)

// A pair is a policy that loads under a model, and both of ours and of stock
// Casbin's answers to a request.
type pair struct {
	model, policy string
	table         *table.Table
	engine        *Engine
	stock         *world.Stock
}

// newPair leaves out the lines that the loader refuses. It is nil where the
// model is refused, or the whole policy.
func newPair(t interface{ Fatalf(string, ...any) }, text, policy string, opts Options) *pair {
	m, err := model.Parse("model.conf", text)
	if err != nil {
		return nil
	}
	w := &pair{model: text, policy: policy}
	for {
		if w.table, _, err = table.Read(context.Background(), "policy.csv", strings.NewReader(w.policy), m, table.Options{}); err == nil {
			break
		}
		var ok bool
		if w.policy, ok = world.WithoutRefused(w.policy, err); !ok {
			var refused *finding.LoadError
			if !errors.As(err, &refused) {
				t.Fatalf("load: %v", err)
			}
			return nil
		}
	}
	if w.engine, err = New(m, w.table, opts); err != nil {
		t.Fatalf("index: %v\nmodel:\n%s\npolicy:\n%s", err, text, policy)
	}
	if w.stock, err = world.NewStock(m, w.policy); err != nil {
		t.Fatalf("stock Casbin refuses what we accept: %v\nmodel:\n%s\npolicy:\n%s", err, text, w.policy)
	}
	return w
}

func (w *pair) ours(q *authz.Query) (world.Outcome, error) {
	allowed, row, err := decideSafely(w.engine, q)
	out := world.Outcome{Allowed: allowed}
	if row >= 0 {
		for _, col := range w.table.Rows.Cols {
			out.Line += w.table.Symbols.Text(col[row]) + "\x00"
		}
	}
	return out, err
}

// TestMain has rapid draw two thousand worlds, or a fifth of them under -short: its
// own hundred leave corners out. Whoever asks for a number gets that.
func TestMain(m *testing.M) {
	flag.Parse()
	asked := os.Getenv("RAPID_CHECKS") != ""
	flag.Visit(func(f *flag.Flag) { asked = asked || f.Name == "rapid.checks" })
	if !asked {
		if err := flag.Set("rapid.checks", "2000"); err != nil {
			panic(err)
		}
	}
	os.Exit(m.Run())
}

type tally struct{ worlds, compared, allowed, decided, failed, indexed, refused, unaddressed int }

func (n *tally) compare(t interface{ Fatalf(string, ...any) }, w *pair, q *authz.Query) {
	want, stockErr := w.stock.Decide(q)
	got, err := w.ours(q)
	if stockErr != nil {
		// Stock fails for a line that the request reaches. We may never reach
		// it, and if we do, the error denies.
		n.failed++
		if err != nil && got.Allowed {
			t.Fatalf("an error beside an allow: %v", err)
		}
		if got.Allowed && q.IP == "" {
			n.compareAddresses(t, w, q)
		}
		return
	}
	if err != nil || got != want {
		t.Fatalf("%+v\nstock: %t by %q\nours:  %t by %q, %v\nplan: %s\nmodel:\n%s\npolicy:\n%s", *q, want.Allowed, want.Line, got.Allowed, got.Line, err,
			cmp.Or(w.engine.Plan.Scan, "indexed"), w.model, w.policy)
	}
	n.compared++
	if want.Allowed {
		n.allowed++
	}
	if want.Line != "" {
		n.decided++
	}
	if w.engine.Plan.Scan == "" {
		n.indexed++
	}
}

// compareAddresses finds who has more without an address than with any that there
// could be.
func (n *tally) compareAddresses(t interface{ Fatalf(string, ...any) }, w *pair, q *authz.Query) {
	for _, ip := range world.Addresses() {
		known := *q
		known.IP = ip
		if want, err := w.stock.Decide(&known); err == nil && !want.Allowed {
			t.Fatalf("%+v\nours allows without an address, stock refuses %s by %q\nmodel:\n%s\npolicy:\n%s", *q, ip, want.Line, w.model, w.policy)
		}
	}
	n.unaddressed++
}

// checkAgainstStock draws a world and compares ours with stock Casbin's answers.
func (n *tally) checkAgainstStock(t *rapid.T) {
	n.worlds++
	s := world.DrawShape(t)
	matcher := s.WithPeriods(t, s.DrawMatcher(t))
	tuned := defaultTuning()
	if world.Chance(t, 2) { // the ways that only a large policy takes
		tuned = tuning{fewValues: rapid.IntRange(0, 3).Draw(t, "few"), searchFrom: rapid.IntRange(0, 3).Draw(t, "search"), fewRows: rapid.IntRange(0, 3).Draw(t, "path")}
	}
	w := newPair(t, s.Model(matcher), s.DrawPolicy(t, matcher), Options{tuning: &tuned})
	if w == nil {
		n.refused++
		return
	}
	for range rapid.IntRange(1, 40).Draw(t, "requests") {
		q := world.DrawQuery(t, matcher)
		if s.Effect == world.SubjectPriority {
			q.Principal.Groups = nil // to stock, another link is another order of the lines
		}
		n.compare(t, w, q)
	}
}

// The answer is stock Casbin's, the deciding line included: for any model, policy
// and request. A failure is shrunk, and told with its seed.
func TestStockDecidesTheSame(t *testing.T) {
	var n tally
	rapid.Check(t, n.checkAgainstStock)
	t.Logf("%+v", n)
	if n.compared < 5*n.worlds || n.indexed < n.compared/2 || n.allowed < n.compared/20 || n.decided < n.compared/20 || n.refused > n.worlds/4 {
		t.Errorf("the comparisons say little: %+v", n)
	}
}

// FuzzStockDecidesTheSame is the same, steered by coverage.
func FuzzStockDecidesTheSame(f *testing.F) {
	f.Fuzz(rapid.MakeFuzz((&tally{}).checkAgainstStock))
}

// stockDecision decides with Casbin's own parts, as its enforcer puts them
// together, over a policy of one line.
func stockDecision(m casbinmodel.Model, line, request []string) (allowed bool, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("panic: %v", r)
		}
	}()
	parameters := map[string]any{}
	for i, name := range m["r"]["r"].Tokens {
		parameters[name] = request[i]
	}
	for i, name := range m["p"]["p"].Tokens {
		parameters[name] = line[i]
	}
	casbins := casbinmodel.LoadFunctionMap()
	functions := casbins.GetFunctions()
	for name := range m["g"] {
		functions[name] = util.GenerateGFunction(defaultrolemanager.NewRoleManager(10))
	}
	functions[model.TimeMatch] = func(...any) (any, error) { return nil, errors.New("no value of these is a time") }
	matcher := m["m"]["m"].Value
	if util.HasEval(matcher) {
		functions["eval"] = func(args ...any) (any, error) {
			rule, err := govaluate.NewEvaluableExpressionWithFunctions(util.EscapeAssertion(args[0].(string)), functions)
			if err != nil {
				return nil, err
			}
			return rule.Evaluate(parameters)
		}
	}
	expr, err := govaluate.NewEvaluableExpressionWithFunctions(matcher, functions)
	if err != nil {
		return false, err
	}
	result, err := expr.Evaluate(parameters)
	if err != nil {
		return false, err
	}
	matches := 0.0
	switch result := result.(type) {
	case bool:
		if result {
			matches = 1
		}
	case float64:
		matches = result
	default:
		return false, errors.New("neither true nor false")
	}
	effect := effector.Allow
	if i := slices.Index(m["p"]["p"].Tokens, "p_eft"); i >= 0 && line[i] != "allow" {
		effect = effector.Indeterminate
	}
	merged, _, err := effector.NewDefaultEffector().MergeEffects(m["e"]["e"].Value, []effector.Effect{effect}, []float64{matches}, 0, 1)
	return merged == effector.Allow, err
}

// Whatever is read never panics, and a model that is accepted is the same to
// stock Casbin, whose parts answer as the engine does wherever they answer.
func FuzzModel(f *testing.F) {
	seeds := 0
	for _, pattern := range []string{"../world/testdata/model/*.conf", "../model/testdata/badmodel/*.conf"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			f.Fatal(err)
		}
		for _, file := range files {
			if text := world.File(f, file); len(text) < 8192 {
				f.Add(text)
				seeds++
			}
		}
	}
	if seeds < 90 {
		f.Fatalf("only %d seeds", seeds)
	}
	f.Fuzz(func(t *testing.T, text string) {
		def, err := model.Parse("model.conf", text)
		if err != nil {
			return
		}
		m, err := casbinmodel.NewModelFromString(text)
		if err != nil {
			t.Fatalf("accepted, but stock refuses: %v", err)
		}
		for kind, fields := range map[string][]string{"r": def.Request, "p": def.Policy} {
			if tokens := m[kind][kind].Tokens; strings.Join(tokens, ",") != kind+"_"+strings.Join(fields, ","+kind+"_") {
				t.Fatalf("%s: stock %q, ours %q", kind, tokens, fields)
			}
		}
		if len(m["g"]) != len(def.Roles) {
			t.Fatalf("roles: stock %v, ours %v", m["g"], def.Roles)
		}

		// One line and one request, in which every value is the address that
		// all functions take.
		const value = "192.0.2.1"
		line := make([]string, len(def.Policy))
		tab := &table.Table{Symbols: table.NewSymbols(), Rows: &table.Rows{Lines: []uint32{1}}}
		tab.Symbols.Intern("")
		for i, name := range def.Policy {
			line[i] = value
			switch {
			case name == "eft":
				line[i] = "allow"
			case def.Evaluates:
				line[i] = "true"
			}
			tab.Rows.Cols = append(tab.Rows.Cols, []table.Symbol{tab.Symbols.Intern(line[i])})
		}
		engine, err := New(def, tab, Options{})
		if err != nil {
			t.Fatal(err)
		}
		want, stockErr := stockDecision(m, line, slices.Repeat([]string{value}, len(def.Request)))
		got, _, err := decideSafely(engine, &authz.Query{Principal: authz.Principal{Subject: value}, Object: value, Action: value, Domain: value, IP: value, Host: value})
		if stockErr == nil && (err != nil || got != want) {
			t.Errorf("stock %t, ours %t, %v", want, got, err)
		}
		if stockErr != nil && got {
			t.Errorf("stock fails, ours allows: %v", stockErr)
		}
	})
}

// decide is decideWithin, however long it takes.
func (e *Engine) decide(q *authz.Query, subject table.Symbol) (allowed bool, row int, err error) {
	return e.decideWithin(limit{}, q, subject)
}

func decideSafely(e *Engine, q *authz.Query) (allowed bool, row int, err error) {
	defer func() {
		if r := recover(); r != nil {
			allowed, row, err = false, -1, fmt.Errorf("panic: %v", r)
		}
	}()
	return e.decide(q, e.Lookup(q.Principal.Subject))
}
