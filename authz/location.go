package authz

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

// A Location is where a store has an allowed file: one of the two. The zero Location is
// the web server's own directory.
type Location struct {
	// Upstream is path and query that the web server asks the store for,
	// `/bucket/key?X-Amz-Signature=…`. It names no host: that is the web server's.
	Upstream string
	// Redirect is the absolute URL that the client is sent to instead.
	Redirect string
}

// A Locator is a store of files that are not in the web server's own directory.
type Locator interface {
	// Locate says where the file of an allowed question is, for this method and a short
	// time. Its answer has exactly one of Upstream and Redirect.
	Locate(context.Context, *Question) (Location, error)
}

// valid says why a location leads nowhere, or returns nil.
func (l Location) valid() error {
	unprintable := func(r rune) bool { return r <= ' ' || r >= 0x7f }
	switch {
	case (l.Upstream == "") == (l.Redirect == ""):
		return errors.New("the store says neither what to ask it for nor where to send the client, or both")
	case strings.ContainsFunc(l.Upstream+l.Redirect, unprintable):
		return errors.New("where the store has the file holds a byte that no URL has")
	case l.Upstream != "" && (l.Upstream[0] != '/' || strings.HasPrefix(l.Upstream, "//")):
		return errors.New("what to ask the store for is no path")
	case l.Redirect != "" && !strings.HasPrefix(l.Redirect, "https://") && !strings.HasPrefix(l.Redirect, "http://"):
		return errors.New("where to send the client is no URL")
	}
	return nil
}

// locate asks the store of an allowed file where it is. Where nobody can tell, it is
// allowed no more, and what limits have taken is given back.
func locate(ctx context.Context, out *Outcome) *Outcome {
	store := out.Question.Download.Store
	if store == nil {
		return out
	}
	where, err := store.Locate(ctx, out.Question)
	if err == nil {
		err = where.valid()
	}
	switch {
	case err != nil:
		out.GiveBack(ctx)
		out.Err, out.Decision.Effect, out.Reason = fmt.Errorf("store of %s: %w", out.Question.Download.Name, err), Deny, ReasonUnavailable
		return out
	case where.Redirect != "":
		out.Reason = ReasonRedirect
	}
	out.Location = where
	return out
}
