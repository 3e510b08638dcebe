package audit

import "testing"

// nginx tells nothing of a client that is sent to a store: who waited for it would call
// the delivery unknown after a day.
func TestARedirectIsNotAwaited(t *testing.T) {
	for reason, want := range map[string]bool{"policy": true, "redirect": false} {
		if got := isAwaited(&Record{Decision: "allow", Request: "1", Reason: reason}); got != want {
			t.Errorf("%s: awaited %t", reason, got)
		}
	}
}
