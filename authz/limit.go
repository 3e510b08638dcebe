package authz

import (
	"context"
	"fmt"
	"time"
)

// A Limiter bounds what anybody takes.
type Limiter interface {
	// Limit takes what an outcome costs, and notes in it what is left, and how what was
	// taken is given back. Its error is a *LimitError where there is nothing left, or a
	// *LinkError where a link is not to be used like this, and nothing was taken; any other
	// says that it could not be told: the request ends with 503.
	Limit(context.Context, *Outcome) error
}

// AllLimits asks limiters one after the other. Where one refuses, what those before it took
// is given back. Nil ones are left out; none at all is nil.
func AllLimits(limiters ...Limiter) Limiter {
	var all allLimits
	for _, l := range limiters {
		if l != nil {
			all = append(all, l)
		}
	}
	if len(all) == 0 {
		return nil
	}
	return all
}

type allLimits []Limiter

func (all allLimits) Limit(ctx context.Context, out *Outcome) error {
	var taken []func(context.Context)
	release := func(ctx context.Context) {
		for _, one := range taken {
			one(ctx)
		}
	}
	for _, l := range all {
		out.Release = nil
		if err := l.Limit(ctx, out); err != nil {
			release(ctx)
			out.Release = nil
			return err
		}
		if out.Release != nil {
			taken = append(taken, out.Release)
		}
	}
	out.Release = nil
	if len(taken) > 0 {
		out.Release = release
	}
	return nil
}

// A LimitError says that a limit is reached: the request ends with 429.
type LimitError struct {
	// Reason is ReasonRate, ReasonBusy or ReasonQuota.
	Reason Reason
	// Limit is the name of the limit, of the configuration.
	Limit string
	// Retry is when there is something left, as far as that is known.
	Retry time.Duration
}

func (e *LimitError) Error() string { return fmt.Sprintf("limit %s is reached", e.Limit) }

// Units of quotas.
const (
	UnitBytes  = "content-bytes"
	UnitPlaces = "concurrent-requests"
)

// A Quota is what is left of one limit that is enforced, for the headers of
// draft-ietf-httpapi-ratelimit-headers-10.
type Quota struct {
	// Name is the limit's; Limit is how much there is in each Period, or at a time if that
	// is zero.
	Name   string
	Limit  int64
	Period time.Duration
	// Unit is what is counted, by that draft's registry; empty means requests.
	Unit string
	// Remaining is what is left, and Reset when all will be again.
	Remaining int64
	Reset     time.Duration
}
