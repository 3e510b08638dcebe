package explain

import (
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"
	"time"

	"securefiles/authz"
	"securefiles/policy"
	"securefiles/policy/internal/world"
)

// openScale opens a policy at scale, with some lines more.
func openScale(t *testing.T, model string, lines, users, roles int, more string) *policy.Store {
	t.Helper()
	source := policy.Files{Policy: filepath.Join(t.TempDir(), "policy.csv")}
	if model != "" {
		source.Model = filepath.Join(t.TempDir(), "model.conf")
		world.Write(t, source.Model, model)
	}
	f, err := os.Create(source.Policy)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := world.Scale(f, lines, users, roles); err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString(more); err != nil {
		t.Fatal(err)
	}
	s, err := policy.Open(t.Context(), source, &policy.Options{AllowShrink: true})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// A comparison of 20,000 lines looks at what a change can reach, and no further:
// the work is counted, in instructions of patterns.
func TestCompareOfManyLinesIsBounded(t *testing.T) {
	lines := world.Share(20_000, 4_000)
	users, roles := lines/10, lines/100
	usual := strings.Replace(world.KeyMatch2Model, "keyMatch2", "globMatch", 1)
	for _, tt := range []struct {
		name, model, otherModel, more string
		steps                         int // at most, where lines are 20,000
		gains                         bool
	}{
		{"the same", "", "", "", 0, false},
		{"a line", "", "", "p, user5, /team5/**, read, allow\n", 100_000, true},
		{"a role of one user", "", "", "g, user5, role30\n", 1_000_000, true},
		{"a role of everybody", "", "", "g, role0, role30\n", 200_000_000, true},
		{"everything, for a role", "", "", "p, role7, /**, read, allow\n", 500_000_000, true},
		{"a comment in the model", usual, "# all of it\n" + strings.Replace(usual, " == p.act", "  ==\tp.act", 1), "", 0, false},
	} {
		begun := time.Now()
		d, left, err := compare(t.Context(), openScale(t, tt.model, lines, users, roles, ""), openScale(t, tt.otherModel, lines, users, roles, tt.more), DiffOptions{Actions: authz.Actions(), At: time.Now()})
		if err != nil {
			t.Fatal(err)
		}
		steps := maxSteps - left
		t.Logf("%s: %v, %d steps, %d paths, %d gained, %d lost, %v", tt.name, time.Since(begun).Round(time.Millisecond), steps, d.Paths, len(d.Gained), len(d.Lost), d.Untried)
		if steps > tt.steps || len(d.Untried) > 0 || (len(d.Gained) > 0) != tt.gains || len(d.Lost) > 0 {
			t.Errorf("%s: %d steps, at most %d; %d gained, %d lost, %v", tt.name, steps, tt.steps, len(d.Gained), len(d.Lost), d.Untried)
		}
	}
}

// Where there is too much to try, what was left out is told, and nothing else is
// said of it.
func TestCompareSaysWhatItLeftOut(t *testing.T) {
	before, after := openScale(t, "", 400, 40, 10, ""), openScale(t, "", 400, 40, 10, "g, role0, role5\np, role5, /**, read, allow\n")
	for _, steps := range []int{1, 1000, 100_000} {
		d, err := Compare(t.Context(), before, after, &DiffOptions{Steps: steps})
		if err != nil {
			t.Fatal(err)
		}
		if len(d.Untried) == 0 || !strings.Contains(d.Untried[len(d.Untried)-1].Why, "names were left out") {
			t.Errorf("%d steps: %v", steps, d.Untried)
		}
	}
	told := 0
	if _, err := Compare(t.Context(), before, after, &DiffOptions{Progress: func(names, all int) { told += all - names }}); err != nil || told == 0 {
		t.Errorf("progress %d, %v", told, err)
	}
}

// A million lines of which one has changed are compared in less than 500 MB: both
// policies, and what the comparison takes.
func TestCompareOfAMillionLinesFitsInMemory(t *testing.T) {
	lines := world.Share(1_000_000, 50_000)
	before := openScale(t, "", lines, lines/10, lines/100, "")
	after := openScale(t, "", lines, lines/10, lines/100, "p, role7, /team5/project3/x, read, allow\n")
	runtime.GC()
	var memory runtime.MemStats
	runtime.ReadMemStats(&memory)
	loaded, begun := memory.HeapAlloc, time.Now()
	// The collector does what it takes to stay below, and the test sees whether it
	// could.
	defer debug.SetMemoryLimit(debug.SetMemoryLimit(450 << 20))
	peak, stop, stopped := uint64(0), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for tick := time.NewTicker(20 * time.Millisecond); ; {
			var now runtime.MemStats
			runtime.ReadMemStats(&now)
			peak = max(peak, now.HeapAlloc)
			select {
			case <-stop:
				tick.Stop()
				return
			case <-tick.C:
			}
		}
	}()
	d, err := Compare(t.Context(), before, after, &DiffOptions{Actions: authz.Actions()})
	close(stop)
	<-stopped
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d lines: %v, %d MB loaded, %d MB at most", lines, time.Since(begun).Round(time.Millisecond), loaded>>20, peak>>20)
	if peak > 500<<20 || len(d.Gained) == 0 || len(d.Untried) > 0 {
		t.Errorf("%d MB of heap, %d gained, %v", peak>>20, len(d.Gained), d.Untried)
	}
}
