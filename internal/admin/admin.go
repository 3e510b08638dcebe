// Package admin answers monitoring and operators: metrics, health, version, and for
// whoever has the token why a request is decided as it is.
//
// [New] makes the handler of the admin listener. It reveals nothing of policy and
// identity without the token, and nothing at all where none is configured; metrics,
// health and version it tells to whoever reaches the listener.
package admin

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/go-chi/chi/v5/middleware"

	"securefiles/authz"
	"securefiles/policy"
)

// Options are what an Admin is about.
type Options struct {
	// Metrics answers /metrics, Version is what /version answers.
	Metrics http.Handler
	Version any
	// Policy is the store that serves, Loaded what decisions depend on, the policy
	// among it.
	Policy *policy.Store
	Loaded func() []Loaded
	// Configuration is the file that the service was made of, and Restart the keys in it
	// whose values it has not, because it was started with others.
	Configuration string
	Restart       []Restart
	// Snippet is the digest of the nginx configuration that belongs to the service's
	// own, and OtherSnippet one by which nginx asks instead, with the time of the
	// last question; empty for none. Nil means that nobody looks.
	Snippet      string
	OtherSnippet func() (digest string, at time.Time)
	// Stopping reports that the end has begun, which turns /readyz off; nil means that
	// nobody says so.
	Stopping func() bool
	// Token reports whether a text is the admin token; nil means that there is
	// none, and no route that needs it.
	Token func(text string) bool
	// Links keeps links; nil means that nothing does, and that there is no route about them.
	Links LinkState
	// Accept makes what the store holds now what counts, after it was emptied; nil where
	// nothing like that can be.
	Accept func(context.Context) error
	// Counts keeps what limits count.
	Counts CountState
	// Backup writes a copy of the store's file, and Compact gives room in it back that
	// nothing is in any more; nil where there is no file.
	Backup  func(io.Writer) error
	Compact func() (before, after int64, err error)
	// Downloads are those that questions are about.
	Downloads *authz.Downloads
	// Whoami asks the identity sources about a request that somebody wrote down:
	// whole, or its header lines. Its error is the asker's fault.
	Whoami WhoamiFunc
	// Limits are those that apply to whom a query is about, and what is left of them; nil
	// means that there are none.
	Limits func(context.Context, authz.Query) any
}

// A Restart is a key of the configuration that counts after a restart, and where it
// stands.
type Restart struct {
	Key   string `json:"key"`
	Place string `json:"place"`
}

// Loaded is something that decisions depend on.
type Loaded struct {
	Name       string
	Generation uint64
	At         time.Time // zero where it was never loaded
	// Stale says that there is something newer, or nothing any more, which cannot
	// be used; Err says why.
	Stale bool
	Err   error
}

// An Admin answers the admin listener.
type Admin struct {
	http.Handler
	opts Options
}

// New returns the handler of the admin listener.
func New(opts Options) *Admin {
	a := &Admin{opts: opts}
	r := chi.NewRouter()
	r.Method(http.MethodGet, "/metrics", opts.Metrics)
	r.Get("/healthz", func(w http.ResponseWriter, _ *http.Request) {
		respond(w, http.StatusOK, map[string]any{"status": "ok"})
	})
	r.Get("/version", func(w http.ResponseWriter, _ *http.Request) { respond(w, http.StatusOK, opts.Version) })
	r.Get("/readyz", a.ready)
	if opts.Token != nil {
		// One at a time: an explanation looks at every line.
		r.With(a.requireToken, middleware.Throttle(1)).Post("/explain", a.explain)
		r.With(a.requireToken, middleware.Throttle(4)).Post("/whoami", a.whoami)
		if opts.Links != nil {
			r.With(a.requireToken).Get("/links", a.links)
			r.With(a.requireToken).Post("/links", a.made)
			r.With(a.requireToken).Post("/links/look", a.look)
			r.With(a.requireToken).Post("/links/revoke", a.revoke)
		}
		if opts.Counts != nil {
			r.With(a.requireToken, middleware.Throttle(1)).Get("/state", a.counts)
			r.With(a.requireToken).Post("/state/reset", a.reset)
			r.With(a.requireToken, middleware.Throttle(1)).Get("/state/export", a.export)
			r.With(a.requireToken, middleware.Throttle(1)).Post("/state/restore", a.restore)
		}
		if opts.Backup != nil {
			r.With(a.requireToken, middleware.Throttle(1)).Get("/state/backup", a.backup)
			r.With(a.requireToken, middleware.Throttle(1)).Post("/state/compact", a.compact)
		}
		if opts.Accept != nil {
			r.With(a.requireToken).Post("/state/accept", a.accept)
		}
	}
	a.Handler = r
	return a
}

// readiness is what /readyz answers. What is refused is named but does not make
// the service unready: the last good version serves.
type readiness struct {
	Ready  bool   `json:"ready"`
	Reason string `json:"reason,omitempty"`
	Policy struct {
		Generation uint64 `json:"generation"`
		Lines      int    `json:"lines"`
		Stale      bool   `json:"stale"`
		Error      string `json:"error,omitempty"`
	} `json:"policy"`
	Loaded        []loaded       `json:"loaded"`
	Configuration *configuration `json:"configuration,omitempty"`
	// Nginx is there while nginx asks by another configuration's snippet.
	Nginx *otherSnippet `json:"nginx,omitempty"`
}

type configuration struct {
	File    string    `json:"file"`
	Restart []Restart `json:"restart,omitempty"`
	Error   string    `json:"error,omitempty"`
}

type otherSnippet struct {
	Snippet string    `json:"snippet"`
	Own     string    `json:"own"`
	At      time.Time `json:"at"`
	Error   string    `json:"error"`
}

type loaded struct {
	Name       string    `json:"name"`
	Generation uint64    `json:"generation"`
	At         time.Time `json:"at,omitzero"`
	Stale      bool      `json:"stale"`
	Error      string    `json:"error,omitempty"`
}

func (a *Admin) ready(w http.ResponseWriter, _ *http.Request) {
	status := a.opts.Policy.Status()
	answer := readiness{Ready: true}
	answer.Policy.Generation, answer.Policy.Lines, answer.Policy.Stale = status.Generation, status.Lines, status.Stale
	if status.Err != nil {
		answer.Policy.Error = withoutMessages(status.Err)
	}
	for _, row := range a.opts.Loaded() {
		one := loaded{Name: row.Name, Generation: row.Generation, At: row.At.UTC().Truncate(time.Second), Stale: row.Stale}
		if row.Err != nil {
			one.Error = withoutMessages(row.Err)
		}
		answer.Loaded = append(answer.Loaded, one)
	}
	if a.opts.Configuration != "" {
		answer.Configuration = &configuration{File: a.opts.Configuration, Restart: a.opts.Restart}
		if len(a.opts.Restart) > 0 {
			answer.Configuration.Error = "the service goes on with what it was started with: restart it"
		}
	}
	if a.opts.OtherSnippet != nil {
		if digest, at := a.opts.OtherSnippet(); digest != "" {
			answer.Nginx = &otherSnippet{digest, a.opts.Snippet, at.UTC().Truncate(time.Second), "nginx asks by a snippet of another configuration: print both halves again, and reload nginx"}
		}
	}
	code := http.StatusOK
	if a.opts.Stopping != nil && a.opts.Stopping() {
		answer.Ready, answer.Reason, code = false, "stopping", http.StatusServiceUnavailable
	}
	respond(w, code, answer)
}

// withoutMessages returns what is wrong with a policy without what its lines say:
// whoever asks without a token must not learn names and paths.
func withoutMessages(err error) string {
	var refused *policy.LoadError
	if !errors.As(err, &refused) {
		return err.Error()
	}
	places := &policy.LoadError{Findings: slices.Clone(refused.Findings)}
	for i := range places.Findings {
		places.Findings[i].Message = "the log says what"
	}
	return places.Error()
}

// requireToken lets only requests pass that carry the token (RFC 6750).
func (a *Admin) requireToken(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if values := r.Header["Authorization"]; len(values) == 1 {
			scheme, token, _ := strings.Cut(values[0], " ")
			if strings.EqualFold(scheme, "Bearer") && a.opts.Token(token) {
				next.ServeHTTP(w, r)
				return
			}
		}
		w.Header().Set("WWW-Authenticate", `Bearer realm="securefiles admin"`)
		respond(w, http.StatusUnauthorized, problem{"the admin token is missing or wrong"})
	})
}

// A problem is what is answered instead.
type problem struct {
	Error string `json:"error"`
}

func respond(w http.ResponseWriter, code int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(v) // the client is gone: nothing is left to do
}
