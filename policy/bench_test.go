package policy

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/casbin/casbin/v2"
	fileadapter "github.com/casbin/casbin/v2/persist/file-adapter"

	"securefiles/authz"
)

// The models of the benchmarks: the built-in one, and the one of most Casbin
// gateways.
const keyMatch2Model = `[request_definition]
r = sub, obj, act
[policy_definition]
p = sub, obj, act, eft
[role_definition]
g = _, _
[policy_effect]
e = some(where (p.eft == allow)) && !some(where (p.eft == deny))
[matchers]
m = g(r.sub, p.sub) && keyMatch2(r.obj, p.obj) && r.act == p.act
`

func benchModels() map[string]string {
	return map[string]string{"builtin": DefaultModel(), "keyMatch2": keyMatch2Model}
}

// benchSizes are p lines; users and roles grow with them up to 100,000 and
// 10,000.
func benchSizes() []int { return []int{10, 1_000, 10_000, 100_000, 1_000_000} }

// benchFiles writes a model and a policy.
func benchFiles(b testing.TB, model string, lines int) Source {
	var csv bytes.Buffer
	if err := generate(&csv, lines, max(1, lines/10), max(1, lines/100)); err != nil {
		b.Fatal(err)
	}
	text := csv.Bytes()
	if model == keyMatch2Model {
		text = bytes.ReplaceAll(text, []byte("/**,"), []byte("/*,"))
	}
	dir := b.TempDir()
	s := Source{Model: filepath.Join(dir, "model.conf"), Policy: filepath.Join(dir, "policy.csv")}
	for name, text := range map[string][]byte{s.Model: []byte(model), s.Policy: text} {
		if err := os.WriteFile(name, text, 0o600); err != nil {
			b.Fatal(err)
		}
	}
	return s
}

// benchQueries returns requests that a line answers, or that none does: of users
// that the policy has, for files that it has too.
func benchQueries(b testing.TB, s *Store, hit bool) []authz.Query {
	snap := s.current.Load()
	e, random := snap.engine, rand.New(rand.NewPCG(3, 4))
	rows := newValueIndex(e.syms.len(), e.rules.cols[0], nil)
	users := max(1, e.rules.len()/10)
	var queries []authz.Query
	for tries := 0; len(queries) < 5000; tries++ {
		q := authz.Query{Principal: authz.Principal{Subject: fmt.Sprintf("user%d", random.IntN(users))}, Action: authz.ActionRead}
		var w walk
		e.graphs["g"].walk(&w, e.syms, q.Principal.Subject, nil, symbol(0))
		if len(w.symbols) == 0 {
			continue
		}
		role := w.symbols[random.IntN(len(w.symbols))]
		row := uint32(random.IntN(e.rules.len()))
		if hit {
			lines := rows.rows[rows.first[role]:rows.first[role+1]]
			if len(lines) == 0 {
				continue
			}
			row = lines[random.IntN(len(lines))]
		}
		pattern := e.syms.text(e.rules.cols[1][row])
		q.Object = strings.TrimRight(pattern, "*")
		if q.Object != pattern {
			q.Object += "minutes/2026/report.pdf"
		} else if !hit {
			q.Object += ".old"
		}
		d, err := s.Decide(b.Context(), q)
		if err != nil {
			b.Fatal(err)
		}
		if hit == (d.Line > 0) {
			queries = append(queries, q)
		} else if tries > 100_000 {
			b.Fatal("no such requests")
		}
	}
	return queries
}

func openBench(b testing.TB, source Source) *Store {
	s, err := Open(b.Context(), source, nil)
	if err != nil {
		b.Fatal(err)
	}
	return s
}

// BenchmarkDecide is a decision by index; run it with -cpu 1,2. The collector is
// run before, so that none pays for the loading.
func BenchmarkDecide(b *testing.B) {
	benchDecisions(b, benchSizes(), func(b *testing.B, _ Source, s *Store) func(authz.Query) {
		return func(q authz.Query) {
			if _, err := s.Decide(b.Context(), q); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkStock is the same question to the stock enforcer.
func BenchmarkStock(b *testing.B) {
	benchDecisions(b, benchSizes(), func(b *testing.B, source Source, _ *Store) func(authz.Query) {
		e, err := casbin.NewEnforcer(source.Model, fileadapter.NewAdapter(source.Policy))
		if err != nil {
			b.Fatal(err)
		}
		return func(q authz.Query) {
			if _, err := e.Enforce(q.Principal.Subject, q.Object, q.Action); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func benchDecisions(b *testing.B, sizes []int, decider func(*testing.B, Source, *Store) func(authz.Query)) {
	for name, model := range benchModels() {
		for _, lines := range sizes {
			b.Run(fmt.Sprintf("model=%s/lines=%d", name, lines), func(b *testing.B) {
				source := benchFiles(b, model, lines)
				s := openBench(b, source)
				decide := decider(b, source, s)
				for _, kind := range []string{"hit", "miss"} {
					queries := benchQueries(b, s, kind == "hit")
					runtime.GC()
					b.Run(kind, func(b *testing.B) {
						b.ReportAllocs()
						before := cpuTime(b)
						b.RunParallel(func(pb *testing.PB) {
							for i := rand.IntN(len(queries)); pb.Next(); i++ {
								decide(queries[i%len(queries)])
							}
						})
						b.ReportMetric(float64(cpuTime(b)-before)/float64(b.N), "cpu-ns/op")
					})
				}
			})
		}
	}
}

// cpuTime is what the process has used, which tells more than the clock where
// others use the machine too.
func cpuTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
