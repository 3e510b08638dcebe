package policy_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"runtime/metrics"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"securefiles/authz"
	"securefiles/policy"
	"securefiles/policy/internal/model"
	"securefiles/policy/internal/table"
	"securefiles/policy/internal/world"

	"github.com/casbin/casbin/v2"
	fileadapter "github.com/casbin/casbin/v2/persist/file-adapter"
)

func benchModels() map[string]string {
	return map[string]string{"builtin": model.Default, "keyMatch2": world.KeyMatch2Model}
}

// benchSizes are p lines; users and roles grow with them up to 100,000 and
// 10,000.
func benchSizes() []int {
	if testing.Short() { // do they still run?
		return []int{10}
	}
	return []int{10, 1_000, 10_000, 100_000, 1_000_000}
}

// million is a million lines, or fewer where only whether a benchmark runs is asked.
func million() int {
	if testing.Short() {
		return 10_000
	}
	return 1_000_000
}

// benchFiles writes a model and a policy.
func benchFiles(b testing.TB, model string, lines int) policy.Files {
	var csv bytes.Buffer
	if err := world.Scale(&csv, lines, max(1, lines/10), max(1, lines/100)); err != nil {
		b.Fatal(err)
	}
	text := csv.Bytes()
	if model == world.KeyMatch2Model {
		text = bytes.ReplaceAll(text, []byte("/**,"), []byte("/*,"))
	}
	dir := b.TempDir()
	s := policy.Files{Model: filepath.Join(dir, "model.conf"), Policy: filepath.Join(dir, "policy.csv")}
	for name, text := range map[string][]byte{s.Model: []byte(model), s.Policy: text} {
		if err := os.WriteFile(name, text, 0o600); err != nil {
			b.Fatal(err)
		}
	}
	return s
}

// benchQueries returns requests that a line answers, or that none does: of users
// that the policy has, for files that it has too.
func benchQueries(b testing.TB, s *policy.Store, hit bool) []authz.Query {
	e, random := s.Version().Engine, rand.New(rand.NewPCG(3, 4))
	rows := map[table.Symbol][]uint32{}
	for row, subject := range e.Rows.Cols[0] {
		rows[subject] = append(rows[subject], uint32(row))
	}
	users := max(1, e.Rows.Len()/10)
	var queries []authz.Query
	for tries := 0; len(queries) < 5000; tries++ {
		q := authz.Query{Principal: authz.Principal{Subject: fmt.Sprintf("user%d", random.IntN(users))}, Action: authz.ActionRead}
		var w table.Walk
		e.Graphs["g"].Begin(&w, e.Symbols, e.Lookup(q.Principal.Subject), nil, table.Symbol(0), time.Time{})
		names := w.All()
		if len(names) == 0 {
			continue
		}
		role := names[random.IntN(len(names))]
		row := uint32(random.IntN(e.Rows.Len()))
		if hit {
			lines := rows[role]
			if len(lines) == 0 {
				continue
			}
			row = lines[random.IntN(len(lines))]
		}
		pattern := e.Symbols.Text(e.Rows.Cols[1][row])
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

func openBench(b testing.TB, source policy.Files) *policy.Store {
	s, err := policy.Open(b.Context(), source, nil)
	if err != nil {
		b.Fatal(err)
	}
	return s
}

// BenchmarkDecide is a decision by index; run it with -cpu 1,2. The collector is
// run before, so that none pays for the loading.
func BenchmarkDecide(b *testing.B) {
	benchDecisions(b, benchSizes(), func(b *testing.B, _ policy.Files, s *policy.Store) func(authz.Query) {
		return func(q authz.Query) {
			if _, err := s.Decide(b.Context(), q); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkStock is the same question to the stock enforcer.
func BenchmarkStock(b *testing.B) {
	benchDecisions(b, benchSizes(), func(b *testing.B, source policy.Files, _ *policy.Store) func(authz.Query) {
		e, err := casbin.NewEnforcer(stockModel(b, source.Model), fileadapter.NewAdapter(source.Policy))
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

// stockModel is the file of a model that stock Casbin takes: its lines leave no field
// out, so of the built-in one it is that without dates.
func stockModel(b *testing.B, file string) string {
	text, err := os.ReadFile(file)
	if err != nil {
		b.Fatal(err)
	}
	if string(text) != model.Default {
		return file
	}
	undated := filepath.Join(b.TempDir(), "undated.conf")
	if err := os.WriteFile(undated, []byte(world.ModelText(b, "undated")), 0o600); err != nil {
		b.Fatal(err)
	}
	return undated
}

func benchDecisions(b *testing.B, sizes []int, decider func(*testing.B, policy.Files, *policy.Store) func(authz.Query)) {
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

// BenchmarkAlike is a decision among 100,000 lines of one role that differ only
// behind a wildcard.
func BenchmarkAlike(b *testing.B) {
	for _, tt := range []struct{ name, model, pattern, object string }{
		{"glob=**|fN.pdf", model.Default, "/**/f%d.pdf", "/a/b/f77777.pdf"},
		{"keyMatch2=:t|fN", world.KeyMatch2Model, "/:t/f%d", "/a/f77777"},
		{"keyMatch2=:t|fN.pdf", world.KeyMatch2Model, "/:t/f%d.pdf", "/a/f77777.pdf"},
	} {
		b.Run(tt.name, func(b *testing.B) {
			var csv strings.Builder
			csv.WriteString("g, alice, staff\n")
			for i := range 100_000 {
				fmt.Fprintf(&csv, "p, staff, "+tt.pattern+", read, allow\n", i)
			}
			dir := b.TempDir()
			world.Write(b, dir+"/model.conf", tt.model)
			world.Write(b, dir+"/policy.csv", csv.String())
			s := openBench(b, policy.Files{Model: dir + "/model.conf", Policy: dir + "/policy.csv"})
			q := world.Query("alice", tt.object)
			before := cpuTime(b)
			b.ReportAllocs()
			for b.Loop() {
				if d, err := s.Decide(b.Context(), q); err != nil || d.Effect != authz.Allow {
					b.Fatal(d, err)
				}
			}
			b.ReportMetric(float64(cpuTime(b)-before)/float64(b.N), "cpu-ns/op")
			b.ReportMetric(float64(s.Status().LargestBucket), "bucket")
		})
	}
}

// BenchmarkNames is a decision among ten lines of everybody's, and a million, in which
// $sub or $group stands, and beside it, in turns, among as many that have the name in
// its place. Each asks for another line's path. Of the turns the medians count, for
// what else the machine does delays some.
func BenchmarkNames(b *testing.B) {
	const turn = 256
	for _, tt := range []struct{ name, model, pattern, object string }{
		{"glob=sub", model.Default, "/home/$sub/docs%d/**", "/home/alice/docs%d/a.pdf"},
		{"glob=sub-first", model.Default, "/$sub/docs%d/**", "/alice/docs%d/a.pdf"},
		{"glob=group", model.Default, "/tenants/$group/p%d/**", "/tenants/acme/p%d/a.pdf"},
		{"keyMatch2=sub", world.KeyMatch2Model, "/home/$sub/docs%d/*", "/home/alice/docs%d/a.pdf"},
	} {
		for _, lines := range []int{10, million()} {
			b.Run(fmt.Sprintf("%s/lines=%d", tt.name, lines), func(b *testing.B) {
				literal := strings.NewReplacer("$sub", "alice", "$group", "acme").Replace(tt.pattern)
				var stores []*policy.Store
				for _, pattern := range []string{tt.pattern, literal, literal, tt.pattern} { // where memory lies tells, too
					var csv strings.Builder
					for i := range lines {
						fmt.Fprintf(&csv, "p, @authenticated, "+pattern+", read, allow\n", i)
					}
					dir := b.TempDir()
					world.Write(b, dir+"/model.conf", tt.model)
					world.Write(b, dir+"/policy.csv", csv.String())
					stores = append(stores, openBench(b, policy.Files{Model: dir + "/model.conf", Policy: dir + "/policy.csv"}))
				}
				var queries []authz.Query
				for i := range 16 * turn {
					queries = append(queries, world.Query("alice", fmt.Sprintf(tt.object, i*7919%lines), "@acme", authz.GroupAuthenticated))
				}
				runtime.GC()
				var took [4][]float64 // nanoseconds a decision
				asked := 0
				b.ReportAllocs()
				for b.Loop() {
					for s, store := range stores {
						begin := time.Now()
						for i := range turn {
							q := queries[(asked+i+s*len(queries)/4)%len(queries)] // none that another has just asked
							if d, err := store.Decide(b.Context(), q); err != nil || d.Effect != authz.Allow {
								b.Fatal(d, err)
							}
						}
						took[s] = append(took[s], float64(time.Since(begin).Nanoseconds())/turn)
					}
					asked += turn
				}
				ofNamed, ofLiteral := (median(took[0])+median(took[3]))/2, (median(took[1])+median(took[2]))/2
				b.ReportMetric(ofNamed, "ns/named")
				b.ReportMetric(ofLiteral, "ns/literal")
				b.ReportMetric(ofNamed/ofLiteral, "named/literal")
			})
		}
	}
}

func median(values []float64) float64 {
	values = slices.Sorted(slices.Values(values))
	return values[len(values)/2]
}

// BenchmarkLoad loads a million lines and 310,000 role links, beside stock Casbin.
func BenchmarkLoad(b *testing.B) {
	source := benchFiles(b, world.KeyMatch2Model, million())
	for _, tt := range []struct {
		name string
		load func(b *testing.B) any
	}{
		{"securefiles", func(b *testing.B) any { return openBench(b, source) }},
		{"stock", func(b *testing.B) any {
			e, err := casbin.NewEnforcer(source.Model, fileadapter.NewAdapter(source.Policy))
			if err != nil {
				b.Fatal(err)
			}
			return e
		}},
	} {
		b.Run(tt.name, func(b *testing.B) {
			empty := heapInUse()
			var live float64
			peak := peakHeap(func() {
				for b.Loop() {
					loaded := tt.load(b)
					b.StopTimer()
					live = float64(heapInUse()-empty) / (1 << 20)
					runtime.KeepAlive(loaded)
					loaded = nil
					runtime.GC()
					b.StartTimer()
				}
			})
			b.ReportMetric(live, "live-MB")
			b.ReportMetric(float64(peak-empty)/(1<<20), "peak-MB")
		})
	}
}

func heapInUse() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// peakHeap returns the most bytes of heap, garbage included, while f runs.
func peakHeap(f func()) uint64 {
	done, peak := make(chan struct{}), make(chan uint64)
	go func() {
		var most uint64
		sample := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}, {Name: "/memory/classes/heap/unused:bytes"}}
		tick := time.NewTicker(2 * time.Millisecond)
		defer tick.Stop()
		for {
			metrics.Read(sample)
			most = max(most, sample[0].Value.Uint64()+sample[1].Value.Uint64())
			select {
			case <-done:
				peak <- most
				return
			case <-tick.C:
			}
		}
	}()
	f()
	close(done)
	return <-peak
}

// BenchmarkReload replaces a policy of a million lines while one goroutine
// decides: the time of a decision meanwhile, beside that of a quiet moment.
func BenchmarkReload(b *testing.B) {
	source := benchFiles(b, world.KeyMatch2Model, million())
	s := openBench(b, source)
	queries := benchQueries(b, s, true)
	text, err := os.ReadFile(source.Policy)
	if err != nil {
		b.Fatal(err)
	}
	// decide asks until done, and returns how long the slowest in a hundred took.
	decide := func(done <-chan struct{}) (p50, p99, worst float64) {
		var took []int64
		for i := 0; ; i++ {
			select {
			case <-done:
				slices.Sort(took)
				return float64(took[len(took)/2]), float64(took[len(took)*99/100]), float64(took[len(took)-1])
			default:
			}
			begin := time.Now()
			if _, err := s.Decide(b.Context(), queries[i%len(queries)]); err != nil {
				b.Fatal(err)
			}
			took = append(took, time.Since(begin).Nanoseconds())
		}
	}
	for i := 0; b.Loop(); i++ {
		b.StopTimer()
		text = append(text, fmt.Sprintf("# version %d\n", i)...)
		if err := os.WriteFile(source.Policy, text, 0o600); err != nil {
			b.Fatal(err)
		}
		runtime.GC()
		quiet := make(chan struct{})
		time.AfterFunc(2*time.Second, func() { close(quiet) })
		quiet50, quiet99, _ := decide(quiet)
		b.StartTimer()
		done := make(chan struct{})
		var busy50, busy99, worst float64
		peak := peakHeap(func() {
			go func() {
				defer close(done)
				if err := s.Reload(b.Context()); err != nil {
					b.Error(err)
				}
			}()
			busy50, busy99, worst = decide(done)
		})
		b.ReportMetric(quiet50, "quiet-p50-ns")
		b.ReportMetric(quiet99, "quiet-p99-ns")
		b.ReportMetric(busy50, "reload-p50-ns")
		b.ReportMetric(busy99, "reload-p99-ns")
		b.ReportMetric(busy99/quiet99, "p99-ratio")
		b.ReportMetric(worst/1e6, "worst-ms")
		b.ReportMetric(float64(peak)/(1<<20), "peak-MB")
	}
}
