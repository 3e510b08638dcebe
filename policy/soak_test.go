package policy_test

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"securefiles/policy"
	"securefiles/policy/internal/model"
	"securefiles/policy/internal/world"
)

// S17: nothing grows with what is asked. SECUREFILES_SOAK=10000000 asks that many
// distinct subjects for that many paths: `make soak-policy`.
func TestMemoryDoesNotGrowWithWhatIsAsked(t *testing.T) {
	questions := 200_000
	if n, err := strconv.Atoi(os.Getenv("SECUREFILES_SOAK")); err == nil {
		questions = n
	}
	for name, model := range map[string]string{"built-in": model.Default, "keyMatch2": world.KeyMatch2Model, "regular expressions": strings.ReplaceAll(world.KeyMatch2Model, "keyMatch2", "regexMatch")} {
		var csv strings.Builder
		for i := range 1000 {
			fmt.Fprintf(&csv, "p, role%d, /d%d/*, read, allow\ng, user%d, role%d\n", i, i, i, i)
		}
		dir := t.TempDir()
		world.Write(t, dir+"/model.conf", model)
		world.Write(t, dir+"/policy.csv", csv.String())
		s, err := policy.Open(t.Context(), policy.Files{Model: dir + "/model.conf", Policy: dir + "/policy.csv"}, nil)
		if err != nil {
			t.Fatal(err)
		}
		ask := func(from, to int) {
			for i := from; i < to; i++ {
				q := world.Query(fmt.Sprintf("made-up%d", i), fmt.Sprintf("/d%d/f%d", i%1000, i), "@anyone", "@authenticated", fmt.Sprintf("@g%d", i))
				if i%2 == 0 {
					q.Principal.Subject = fmt.Sprintf("user%d", i%1000)
				}
				if _, err := s.Decide(t.Context(), q); err != nil {
					t.Fatal(err)
				}
			}
		}
		heap := func() uint64 {
			runtime.GC()
			runtime.GC() // what pools held for one collection
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			return m.HeapAlloc
		}
		ask(0, questions/10)
		before := heap()
		ask(questions/10, questions)
		if after := heap(); after > before+1<<20 {
			t.Errorf("%s: the heap went from %d to %d bytes in %d questions", name, before, after, questions)
		} else {
			t.Logf("%s: the heap went from %d to %d bytes in %d questions", name, before, after, questions)
		}
		runtime.KeepAlive(s)
	}
}
