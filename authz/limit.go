package authz

import (
	"context"
	"fmt"
	"time"
)

// A Limiter bounds what anybody takes.
type Limiter interface {
	// Limit takes what an outcome costs, and notes in it what is left. Its error is a
	// *LimitError where there is nothing left, and nothing was taken; any other says that
	// it could not be told: the request ends with 503.
	Limit(context.Context, *Outcome) error
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

// A Quota is what is left of one limit, for the headers of
// draft-ietf-httpapi-ratelimit-headers-10.
type Quota struct {
	// Name is the limit's; Limit is how much there is in each Period, or at a time if that
	// is zero.
	Name   string
	Limit  int64
	Period time.Duration
	// Remaining is what is left, and Reset when all will be again.
	Remaining int64
	Reset     time.Duration
}
