package authz

import (
	"context"
	"errors"
	"testing"
)

func archivesGuard(t *testing.T, archives bool, opts *Options) *Guard {
	t.Helper()
	return guardOf(t, func(d *Download) { d.Listing, d.Archives = true, archives }, allowAll, opts)
}

func TestAnArchiveIsADirectoryByAnotherPage(t *testing.T) {
	for target, want := range map[string]Page{
		"/downloads/project/?zip": PageArchive, "/downloads/?zip": PageArchive,
		"/downloads/project/": PageListing, "/downloads/project/?zip=": PageListing, "/downloads/project/?zip&a": PageListing, "/downloads/project/?a&zip": PageListing, "/downloads/project/?ZIP": PageListing,
	} {
		out := archivesGuard(t, true, nil).Check(t.Context(), question(target))
		if !out.Listed() || out.Allowed() || out.Page != want || (out.Question.Archive == out.Question.Dir) != (want == PageArchive) {
			t.Errorf("%s: %+v of %+v", target, out, out.Question)
		}
	}
	if out := archivesGuard(t, false, nil).Check(t.Context(), question("/downloads/project/?zip")); out.Page != PageListing || !out.Question.Archive.IsZero() {
		t.Errorf("off: %+v", out)
	}
	if out := archivesGuard(t, true, nil).Check(t.Context(), question("/downloads/project/a?zip")); !out.Allowed() || out.Page != "" || !out.Question.Archive.IsZero() {
		t.Errorf("a file: %+v", out)
	}
}

// sizes takes note of what limits are asked, and refuses what is large.
type sizes struct{ asked []Question }

func (s *sizes) Limit(_ context.Context, out *Outcome) error {
	s.asked = append(s.asked, *out.Question)
	if out.Question.Size > 100 {
		return &LimitError{Reason: ReasonQuota, Limit: "day"}
	}
	out.Release = func(context.Context) {}
	return nil
}

func TestLimitsAreAskedForTheSizeOfAnArchiveByAnIDOfItsOwn(t *testing.T) {
	limits := &sizes{}
	g := archivesGuard(t, true, &Options{Limits: limits})
	q := question("/downloads/project/?zip")
	q.ID = "1"
	out := g.Check(t.Context(), q)
	taken := g.Archive(t.Context(), out, 100)
	if !taken.Listed() || taken.Release == nil || taken.Question != q {
		t.Errorf("%+v", taken)
	}
	refused := g.Archive(t.Context(), out, 101)
	if refused.Listed() || refused.Reason != ReasonQuota || refused.Release != nil || !out.Listed() {
		t.Errorf("%+v, and before %+v", refused, out)
	}
	if len(limits.asked) != 3 || limits.asked[0].ID != "1" || limits.asked[0].Size != 0 || limits.asked[1].ID != "archive:1" || limits.asked[1].Size != 100 {
		t.Errorf("asked %+v", limits.asked)
	}
	if taken := archivesGuard(t, true, nil).Archive(t.Context(), out, 1<<40); !taken.Listed() {
		t.Errorf("without limits: %+v", taken)
	}
	if errors.Is(refused.Err, nil) || ArchiveID("") != "" {
		t.Error("nobody's archive has an id")
	}
}
