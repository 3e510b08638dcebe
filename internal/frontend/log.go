package frontend

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"securefiles/authz"
)

// linesASecond is how many lines above debug level the log gets in a second:
// while something is down, each request would be one more.
const linesASecond = 10

// A journal tells the operator what a metric cannot: what to mend.
type journal struct {
	log   *slog.Logger
	limit logLimiter
}

// write logs an outcome that was answered with a status.
func (j *journal) write(ctx context.Context, out *authz.Outcome, status int, now time.Time) {
	level := slog.LevelDebug
	var bad *authz.CredentialsError
	switch {
	case out.Reason == authz.ReasonUnavailable:
		level = slog.LevelError
	case out.Reason == authz.ReasonRequest, out.Reason == authz.ReasonSubject, errors.As(out.Err, &bad) && bad.Final:
		level = slog.LevelWarn
	}
	if !j.log.Enabled(ctx, level) {
		return
	}
	left := 0
	if level > slog.LevelDebug {
		var tell bool
		if left, tell = j.limit.tell(now); !tell {
			return
		}
	}
	attrs := []slog.Attr{
		slog.String("reason", string(out.Reason)),
		slog.Int("status", status),
		slog.String("request_id", out.Question.ID),
	}
	if out.Principal.Subject != "" {
		attrs = append(attrs, slog.String("subject", out.Principal.Subject))
	}
	if d := out.Download(); d != nil && !(out.Question.Path.IsZero() && out.Question.Dir.IsZero()) {
		// Percent-encoded: no byte of a client's can act on a terminal.
		attrs = append(attrs, slog.String("download", d.Name), slog.String("url", out.Question.Path.URL(d.URL)+out.Question.Dir.URL(d.URL))) // one of the two is empty
	}
	if out.Decision.Generation != 0 {
		attrs = append(attrs, slog.String("decision", out.Decision.String()))
	}
	if out.Err != nil {
		attrs = append(attrs, slog.String("error", out.Err.Error()))
	}
	if left > 0 {
		attrs = append(attrs, slog.Int("left_out", left))
	}
	j.log.LogAttrs(ctx, level, "decision", attrs...)
}

// A logLimiter keeps count of what the log was not told.
type logLimiter struct {
	mu         sync.Mutex
	since      time.Time // when this second began
	told, left int       // in this second, and since the last line
}

// tell reports whether the log is to be told now, and of how many it was not
// told before.
func (l *logLimiter) tell(now time.Time) (left int, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if passed := now.Sub(l.since); passed < 0 || passed >= time.Second {
		l.since, l.told = now, 0
	}
	if l.told == linesASecond {
		l.left++
		return 0, false
	}
	l.told++
	left, l.left = l.left, 0
	return left, true
}
