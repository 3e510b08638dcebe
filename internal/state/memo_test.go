package state

import (
	"testing"
	"time"
)

func TestAMemoKnowsForOneToTwoWindows(t *testing.T) {
	var m memo
	knows := func(n uint64) bool {
		quotas, ok := m.find(identifier{n})
		if ok && (len(quotas) != 2 || quotas[0].Remaining != int64(n) || !quotas[1].Over) {
			t.Errorf("%d was told %+v", n, quotas)
		}
		return ok
	}
	add := func(n uint64, at time.Duration) {
		m.add(identifier{n}, []Quota{{Remaining: int64(n)}, {Over: true}}, noon.Add(at), 4)
	}
	add(1, 0)
	add(2, retryWindow-1)
	add(3, retryWindow)
	if !knows(1) || !knows(2) || !knows(3) {
		t.Error("less than a window")
	}
	m.drop(identifier{1})
	m.drop(identifier{3})
	if knows(1) || !knows(2) || knows(3) {
		t.Error("what was dropped, and nothing else, is known")
	}
	add(4, 2*retryWindow)
	if knows(2) || !knows(4) {
		t.Error("after two windows")
	}
	add(5, retryWindow) // the clock was set back
	if !knows(4) || !knows(5) {
		t.Error("forgotten when the clock was set back")
	}
	for n := range uint64(4) {
		add(6+n, retryWindow)
	}
	if knows(9) || !knows(4) {
		t.Error("more than there is room for")
	}
	add(10, 9*retryWindow)
	if knows(4) || knows(5) || !knows(10) {
		t.Error("after a pause")
	}
}
