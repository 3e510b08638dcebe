package authz

import (
	"context"
	"fmt"
)

// A TooLargeError says that an archive would have more files, or bytes of them, than there
// may be in one.
type TooLargeError struct {
	Entries int
	Bytes   int64
}

func (e *TooLargeError) Error() string {
	return fmt.Sprintf("an archive has at most %d entries and %d bytes", e.Entries, e.Bytes)
}

// ArchiveID is what limits know the bytes of an archive by: its request has taken what they
// ask for a directory, by its own id, before anybody knew how much it would be.
func ArchiveID(request string) string {
	if request == "" {
		return ""
	}
	return "archive:" + request
}

// Archive takes what limits ask for an archive of so many bytes, of a directory that may be
// shown. Where that is more than there is, the outcome that it returns is a refusal.
func (g *Guard) Archive(ctx context.Context, out *Outcome, size int64) *Outcome {
	taken := *out
	taken.Release = nil
	if g.limits == nil {
		return &taken
	}
	q := *out.Question
	q.ID, q.Size, taken.Question = ArchiveID(q.ID), size, &q
	limited(ctx, g.limits, &taken)
	taken.Question = out.Question
	return &taken
}
