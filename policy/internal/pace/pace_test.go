package pace_test

import (
	"runtime"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"securefiles/policy/internal/pace"
)

// work takes so many steps of a time, and returns how long that took with the rests, and
// how long the longest work between two of them.
func work(p *pace.Pace, steps int, each time.Duration) (took, longest time.Duration) {
	begin := time.Now()
	worked := time.Duration(0)
	for range steps {
		time.Sleep(each)
		worked += each
		before := time.Now()
		if p.Step(); time.Now().After(before) {
			longest, worked = max(longest, worked), 0
		}
	}
	return time.Since(begin), longest
}

func TestWorkRestsByItsCores(t *testing.T) {
	for _, cores := range []int{1, 2, 8} {
		synctest.Test(t, func(t *testing.T) {
			defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(cores))
			took, longest := work(new(pace.Pace), 100_000, 10*time.Microsecond)
			want := time.Second + time.Second*2/time.Duration(max(2, cores))
			if took < want-5*time.Millisecond || took > want+time.Millisecond {
				t.Errorf("%d cores: a second of work took %v with its rests, want %v", cores, took, want)
			}
			if longest > time.Millisecond {
				t.Errorf("%d cores: it worked for %v without a rest", cores, longest)
			}
		})
	}
}

// A step that had no core for a second is no reason to rest for a second.
func TestAnInterruptionIsNoWork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := new(pace.Pace)
		work(p, 1000, 10*time.Microsecond)
		time.Sleep(time.Second)
		if took, _ := work(p, 100, 10*time.Microsecond); took > 5*time.Millisecond {
			t.Errorf("a millisecond of work took %v after a second without a core", took)
		}
	})
}

func TestNothingRestsWhereNobodyWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		if took, _ := work(nil, 100_000, 10*time.Microsecond); took != time.Second {
			t.Errorf("a second of work took %v", took)
		}
	})
}

func TestOverGoesOverAllOfThem(t *testing.T) {
	for _, p := range []*pace.Pace{nil, new(pace.Pace)} {
		items := []string{"a", "b", "c"}
		var got []string
		for i, item := range pace.Over(p, items) {
			if items[i] != item {
				t.Errorf("item %d is %q", i, item)
			}
			if got = append(got, item); item == "b" {
				break
			}
		}
		if !slices.Equal(got, items[:2]) {
			t.Errorf("got %q", got)
		}
	}
}
