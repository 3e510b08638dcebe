package frontend

import (
	"net/http"
	"regexp"
	"sync"
	"sync/atomic"
	"time"
)

// snippetPause is how long the log is not told again that nginx runs another
// configuration's snippet.
const snippetPause = 10 * time.Minute

// snippetGone is how long no question has come by another snippet before it counts as
// replaced: where two servers of nginx ask, they take turns.
const snippetGone = time.Minute

// An otherSnippet is the digest of a configuration of the web server's that is not the
// one that belongs to the service's own, and when somebody last asked by it.
type otherSnippet struct {
	digest string
	at     time.Time
}

// A snippetWatch notes by which snippet questions come.
type snippetWatch struct {
	other atomic.Pointer[otherSnippet] // nil while there is none

	mu     sync.Mutex
	logged time.Time
}

// digestForm is a digest; what else somebody sends is not repeated.
var digestForm = regexp.MustCompile(`^[0-9a-f]{16}$`)

// lookAtSnippet compares the digest of a question with the service's own.
func (a *AuthRequest) lookAtSnippet(r *http.Request, now time.Time) {
	values := r.Header[headerSnippet]
	if a.opts.Snippet == "" || len(values) == 0 {
		return
	}
	w := &a.snippet
	if values[0] == a.opts.Snippet && len(values) == 1 {
		if last := w.other.Load(); last != nil && now.Sub(last.at) >= snippetGone && w.other.CompareAndSwap(last, nil) {
			a.journal.log.Info("nginx asks by the snippet of this configuration again", "snippet", a.opts.Snippet)
		}
		return
	}
	other := &otherSnippet{"malformed", now}
	if digestForm.MatchString(values[0]) {
		other.digest = values[0]
	}
	first := w.other.Swap(other) == nil
	_, told := a.opts.Earlier[other.digest]
	w.mu.Lock()
	tell := first || now.Sub(w.logged) >= snippetPause
	if first && told {
		w.logged, tell = now, false
	}
	if tell {
		w.logged = now
	}
	w.mu.Unlock()
	if tell {
		a.journal.log.Warn("nginx asks by a snippet that was printed for another configuration, or by another version: print both halves again with `securefiles nginx`, and reload nginx",
			"snippet", other.digest, "own", a.opts.Snippet)
	}
}

// earlier returns the configuration that the web server asks by, if that is one of the
// service's own from before.
func (a *AuthRequest) earlier(r *http.Request) (earlier Earlier, asked bool) {
	if len(a.opts.Earlier) == 0 || len(r.Header[headerSnippet]) != 1 {
		return Earlier{}, false
	}
	earlier, asked = a.opts.Earlier[r.Header[headerSnippet][0]]
	return earlier, asked
}

// OtherSnippet returns by which other snippet than its own the web server asks, and when
// it last did; an empty digest is none.
func (a *AuthRequest) OtherSnippet() (digest string, at time.Time) {
	if other := a.snippet.other.Load(); other != nil {
		return other.digest, other.at
	}
	return "", time.Time{}
}
