package authz

import (
	"context"
	"errors"
	"strings"
	"testing"
)

type fakeStore func(*Question) (Location, error)

func (f fakeStore) Locate(_ context.Context, q *Question) (Location, error) { return f(q) }

// storeGuard guards a download whose files are in a store.
func storeGuard(t *testing.T, store Locator, policy Decider, opts *Options) *Guard {
	t.Helper()
	return guardOf(t, func(d *Download) { d.Store = store }, policy, opts)
}

func TestAStoreIsAskedForWhatPolicyAllowedAlone(t *testing.T) {
	var asked []string
	store := fakeStore(func(q *Question) (Location, error) {
		asked = append(asked, q.Method+" "+q.Path.String())
		return Location{Upstream: "/bucket" + q.Path.String() + "?X-Amz-Signature=1"}, nil
	})
	out := storeGuard(t, store, denyAll, nil).Check(t.Context(), question("/downloads/a"))
	if out.Allowed() || out.Redirected() || out.Location != (Location{}) || len(asked) > 0 {
		t.Errorf("denied: %+v, asked %v", out, asked)
	}
	out = storeGuard(t, store, allowAll, nil).Check(t.Context(), question("/downloads/a/b.txt"))
	if !out.Allowed() || out.Redirected() || out.Location.Upstream != "/bucket/a/b.txt?X-Amz-Signature=1" || strings.Join(asked, ",") != "GET /a/b.txt" {
		t.Errorf("allowed: %+v, asked %v", out, asked)
	}
}

// The web server opens nothing for a client that is sent elsewhere, so a front end that
// does not know of it refuses.
func TestARedirectToAStoreIsNoAllow(t *testing.T) {
	store := fakeStore(func(*Question) (Location, error) { return Location{Redirect: "https://store.example.org/b/a?s=1"}, nil })
	out := storeGuard(t, store, allowAll, nil).Check(t.Context(), question("/downloads/a"))
	if out.Allowed() || !out.Redirected() || out.Reason != ReasonRedirect || out.Decision.Effect != Allow {
		t.Errorf("got %+v", out)
	}
	for name, edit := range map[string]func(*Outcome){
		"without a place to go": func(o *Outcome) { o.Location = Location{} },
		"denied":                func(o *Outcome) { o.Decision.Effect = Deny },
		"beside an error":       func(o *Outcome) { o.Err = errors.New("away") },
		"for another reason":    func(o *Outcome) { o.Reason = ReasonPolicy },
		"of nobody":             func(o *Outcome) { o.Principal = Principal{} },
	} {
		other := *out
		if edit(&other); other.Redirected() {
			t.Errorf("%s: the client is sent to the store", name)
		}
	}
	if (&Outcome{}).Redirected() {
		t.Error("the zero outcome sends the client to the store")
	}
}

func TestAStoreThatCannotTellIsUnavailableAndCostsNothing(t *testing.T) {
	for name, store := range map[string]fakeStore{
		"an error beside a location": func(*Question) (Location, error) { return Location{Upstream: "/b/a"}, errors.New("no credentials") },
		"nothing":                    func(*Question) (Location, error) { return Location{}, nil },
		"both":                       func(*Question) (Location, error) { return Location{Upstream: "/b/a", Redirect: "https://s/b/a"}, nil },
		"a host":                     func(*Question) (Location, error) { return Location{Upstream: "//evil.example/a"}, nil },
		"a whole URL to ask for":     func(*Question) (Location, error) { return Location{Upstream: "https://evil.example/a"}, nil },
		"user information":           func(*Question) (Location, error) { return Location{Upstream: "@evil.example/a"}, nil },
		"a line":                     func(*Question) (Location, error) { return Location{Upstream: "/b/a\r\nHost: evil"}, nil },
		"a blank":                    func(*Question) (Location, error) { return Location{Upstream: "/b/a HTTP/1.1"}, nil },
		"a redirect on this site":    func(*Question) (Location, error) { return Location{Redirect: "/login"}, nil },
		"a redirect to a script":     func(*Question) (Location, error) { return Location{Redirect: "javascript:alert(1)"}, nil },
		"a panic":                    func(*Question) (Location, error) { panic("bug") },
	} {
		var log []string
		out := storeGuard(t, store, allowAll, &Options{Limits: fakeLimiter{"late", nil, &log}}).Check(t.Context(), question("/downloads/a"))
		if out.Allowed() || out.Redirected() || out.Reason != ReasonUnavailable || out.Err == nil || out.Release != nil || out.Location != (Location{}) {
			t.Errorf("%s: %+v", name, out)
		}
		if got := strings.Join(log, " "); name != "a panic" && got != "+late -late" {
			t.Errorf("%s: limits %s", name, got)
		}
	}
}
