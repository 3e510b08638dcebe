package frontend

import (
	"testing"
	"time"

	"securefiles/authz"
)

func TestRateLimitHeadersNameTheirUnit(t *testing.T) {
	left, policy := rateLimit([]authz.Quota{
		{Name: "a", Limit: 100, Period: time.Minute, Remaining: 99, Reset: 600 * time.Millisecond},
		{Name: "a", Limit: 1 << 50, Period: 24 * time.Hour, Unit: authz.UnitBytes, Remaining: 1 << 50, Reset: 0},
		{Name: "b", Limit: 2, Unit: authz.UnitPlaces, Remaining: 1},
	})
	if want := `"a";r=99;t=1, "a";r=999999999999999;t=0, "b";r=1`; left != want {
		t.Errorf("%s, want %s", left, want)
	}
	if want := `"a";q=100;w=60, "a";q=999999999999999;qu="content-bytes";w=86400, "b";q=2;qu="concurrent-requests"`; policy != want {
		t.Errorf("%s, want %s", policy, want)
	}
}
