package frontend

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"securefiles/authz"
)

// recorded puts a question to a front end whose records end with an error, or are
// kept.
func recorded(t *testing.T, policy authz.Decider, failure error, edit func(*http.Request)) (answer *httptest.ResponseRecorder, kept []*authz.Outcome, statuses []int, seen *authz.Outcome) {
	t.Helper()
	answer = httptest.NewRecorder()
	front := newTestFront(t, testDownload(), known("alice"), policy, nil, &Options{
		Secret: func(text string) bool { return text == "right" },
		Record: func(_ context.Context, out *authz.Outcome, status int, took time.Duration) error {
			if len(answer.Header()) != 0 || took < 0 {
				t.Errorf("recorded once the answer was begun: %v, after %v", answer.Header(), took)
			}
			kept, statuses = append(kept, out), append(statuses, status)
			return failure
		},
		Observe: func(out *authz.Outcome, _ time.Duration) { seen = out },
	})
	r := nginxAsks("/downloads/a/b.txt")
	r.Header.Set(headerSecret, "right")
	r.Header.Set(headerID, "5f0c")
	if edit != nil {
		edit(r)
	}
	if r.Method == http.MethodGet {
		front.ServeHTTP(answer, r)
	} else {
		front.MethodNotAllowed(answer, r)
	}
	return answer, kept, statuses, seen
}

func TestEachOutcomeIsRecordedBeforeItsAnswerLeaves(t *testing.T) {
	for name, row := range map[string]struct {
		policy authz.Decider
		edit   func(*http.Request)
		status int
		reason authz.Reason
	}{
		"an allow":                        {allowAll, nil, 204, authz.ReasonPolicy},
		"a deny":                          {denyAll, nil, 404, authz.ReasonDefaultDeny},
		"a path that is refused":          {allowAll, func(r *http.Request) { r.Header.Set(headerURI, "/downloads/../b") }, 400, authz.ReasonPath},
		"a secret that is wrong":          {allowAll, func(r *http.Request) { r.Header.Set(headerSecret, "wrong") }, 403, authz.ReasonRequest},
		"a method that the route has not": {allowAll, func(r *http.Request) { r.Method = http.MethodPut }, 405, authz.ReasonRequest},
	} {
		t.Run(name, func(t *testing.T) {
			answer, kept, statuses, _ := recorded(t, row.policy, nil, row.edit)
			if len(kept) != 1 || statuses[0] != row.status || kept[0].Reason != row.reason || answer.Code != row.status || kept[0].Question.ID != "5f0c" {
				t.Errorf("status %d, recorded %v: %+v", answer.Code, statuses, kept)
			}
		})
	}
}

// What limits have taken for an answer that is no allow in the end is given back.
func TestWithoutARecordLimitsTakeNothing(t *testing.T) {
	released := 0
	for _, failure := range []error{nil, errors.New("no space left on device")} {
		front := newTestFront(t, testDownload(), known("alice"), allowAll, &authz.Options{Limits: takes(func() { released++ })},
			&Options{Record: func(context.Context, *authz.Outcome, int, time.Duration) error { return failure }})
		front.ServeHTTP(httptest.NewRecorder(), nginxAsks("/downloads/a/b.txt"))
		if want := map[bool]int{true: 0, false: 1}[failure == nil]; released != want {
			t.Errorf("after %v: given back %d times", failure, released)
		}
	}
}

type takes func()

func (t takes) Limit(_ context.Context, out *authz.Outcome) error {
	out.Release = func(context.Context) { t() }
	return nil
}

func TestWithoutARecordNothingIsAllowed(t *testing.T) {
	failure := errors.New("no space left on device")
	for name, policy := range map[string]authz.Decider{"an allow": allowAll, "a deny": denyAll} {
		answer, _, _, seen := recorded(t, policy, failure, nil)
		if answer.Code != http.StatusServiceUnavailable || answer.Header().Get(headerLocation) != "" || answer.Header().Get("Retry-After") == "" ||
			answer.Header().Get(headerReason) != "unavailable" {
			t.Errorf("%s: status %d, %v", name, answer.Code, answer.Header())
		}
		if seen.Reason != authz.ReasonUnavailable || seen.Allowed() || !errors.Is(seen.Err, failure) {
			t.Errorf("%s is counted as %+v", name, seen)
		}
	}
}
