// Package frontend speaks for the service to web servers: it makes an
// [authz.Question] of what a server says, and that server's answer of the
// [authz.Outcome].
//
// [AuthRequest] is for nginx's auth_request, and for web servers that pass the download
// itself to the service, by a [Front]. There is one reply table, from a reason to a
// status, and everything that is answered comes from there: a refusal of the listener's
// own is an outcome too, counted and logged like the others.
//
// frontend does not protect against a web server that hands on what a client
// wrote into the headers of the exchange, nor against whoever reaches the
// listener in its place where no secret is asked for.
package frontend

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"strconv"
	"sync/atomic"
	"time"

	"securefiles/authz"
	"securefiles/pathguard"
)

// The headers of the exchange with nginx, in canonical form. The snippet
// overwrites each request header, whatever the client sent.
const (
	headerURI    = "X-Original-Uri"
	headerMethod = "X-Original-Method"
	headerRange  = "X-Original-Range"
	headerIf     = "X-Original-If-Range"
	headerIP     = "X-Real-Ip"
	headerID     = "X-Request-Id"
	headerSecret = "X-Securefiles-Proxy-Secret"
	// headerSnippet is the digest of the configuration that nginx asks by.
	headerSnippet = "X-Securefiles-Snippet"

	headerLocation     = "X-Securefiles-Location"
	headerUpstream     = "X-Securefiles-Upstream"
	headerDisposition  = "X-Securefiles-Disposition"
	headerCacheControl = "X-Securefiles-Cache-Control"
	headerLimitRate    = "X-Securefiles-Limit-Rate"
	headerCSP          = "X-Securefiles-Csp"
	headerDecision     = "X-Securefiles-Decision"
	headerUser         = "X-Securefiles-User"
	headerReason       = "X-Securefiles-Reason"
	headerPage         = "X-Securefiles-Page"
	headerProof        = "X-Securefiles-Proof"
	headerReferrer     = "Referrer-Policy"

	headerRateLimit       = "Ratelimit"
	headerRateLimitPolicy = "Ratelimit-Policy"
)

// retryAfter is what a client is told to wait when the service could not
// decide, in seconds.
const retryAfter = "5"

// defaultPatience is proxy_read_timeout of the snippet.
const defaultPatience = 2 * time.Second

// Options are what a front end can do without.
type Options struct {
	// Secret reports whether a text is the secret that the web server shares
	// with the service; nil asks for none.
	Secret func(text string) bool
	// Prove makes the proof of an answer to a question, of what nginx acts on: the
	// status, the reason, the page, the login page, the location, what to ask a store for. Nil makes none.
	Prove func(question *http.Request, status int, reason, page, login, location, upstream string) string
	// Snippet is the digest of the web server's configuration that belongs to the
	// service's own. Of a question with another digest the log is told, and
	// [AuthRequest.OtherSnippet]; of one without any, as of a configuration that
	// somebody wrote by hand, nobody. Empty means that none is asked for.
	Snippet string
	// Earlier are configurations of the web server that belonged to the service's own
	// before, by their digest: until it has the new one, it asks by one of them. Whoever
	// changed it has been told, so the log tells of one that is still asked by only later.
	Earlier map[string]Earlier
	// Pages are the service's own; nil means that there are none.
	Pages Pages
	// Listing shows directories; nil shows none.
	Listing Listing
	// Archive makes the archive of a directory that may be shown. Its error is fs.ErrNotExist
	// where there is no such directory, and an *authz.TooLargeError where it would be too
	// much. Nil makes none.
	Archive func(context.Context, *authz.Outcome) (Archive, error)
	// API is the service's own, of links; nil means that there is none.
	API http.Handler
	// Fronts are the web servers before downloads, by their names. One that is not there
	// is behind [NGINX].
	Fronts map[string]Front
	// MaxConcurrent bounds the questions that are answered at a time; more are
	// refused. Zero means no bound.
	MaxConcurrent int
	// Patience is how long the web server waits for an answer; zero means 2 s. Who
	// is gone before has hung up.
	Patience time.Duration
	// Record keeps a record of every outcome, with the status that answers it, before
	// the answer leaves. After an error nothing is allowed: the answer is 503. Nil
	// keeps none.
	Record func(ctx context.Context, out *authz.Outcome, status int, took time.Duration) error
	// RecordAll is Record for all files of an archive.
	RecordAll func(ctx context.Context, outs []*authz.Outcome, status int, took time.Duration) error
	// Observe is told of every outcome.
	Observe authz.Observer
	// Logger gets what an operator must know: outcomes that point at a
	// broken set-up, and each decision at debug level.
	Logger *slog.Logger
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// Earlier is a configuration of the web server that belonged to the service's own before.
type Earlier struct {
	// Prove is Options.Prove as that configuration checks it.
	Prove func(question *http.Request, status int, reason, page, login, location, upstream string) string
	// Unfit returns why nothing of a download is given out by a web server that still has
	// that configuration, or nil.
	Unfit func(*authz.Download) error
}

// An AuthRequest answers nginx's auth_request. It is safe for concurrent use.
type AuthRequest struct {
	guard    *authz.Guard
	opts     Options
	asked    atomic.Int64  // questions that are being answered
	archives chan struct{} // one for each archive that is being sent
	journal  journal
	snippet  snippetWatch
}

// NewAuthRequest returns the front end for what the guard guards.
func NewAuthRequest(guard *authz.Guard, opts *Options) (*AuthRequest, error) {
	if guard == nil {
		return nil, errors.New("a front end needs a guard")
	}
	a := &AuthRequest{guard: guard, archives: make(chan struct{}, maxArchives)}
	if opts != nil {
		a.opts = *opts
	}
	if a.opts.Observe == nil {
		a.opts.Observe = func(*authz.Outcome, time.Duration) {}
	}
	if a.opts.Now == nil {
		a.opts.Now = time.Now
	}
	if a.opts.Patience == 0 {
		a.opts.Patience = defaultPatience
	}
	a.journal.log = cmp.Or(a.opts.Logger, slog.New(slog.DiscardHandler))
	return a, nil
}

// ServeHTTP answers nginx's question.
func (a *AuthRequest) ServeHTTP(w http.ResponseWriter, r *http.Request) { a.serve(w, r, subrequest{a}) }

// A form is how what came of a question is said to the web server that put it.
type form interface {
	// id is the request's.
	id(*http.Request) string
	// prepare returns why an outcome cannot be said, or done, by the web server that
	// is before the download; nil where it can.
	prepare(context.Context, *authz.Outcome) error
	// status is what the outcome is answered with.
	status(*authz.Outcome) int
	// write sets the headers that go with it, and returns the body; nil for none.
	write(h http.Header, out *authz.Outcome, status int) []byte
}

// A subrequest is the form of nginx's auth_request.
type subrequest struct{ a *AuthRequest }

func (subrequest) id(r *http.Request) string { return r.Header.Get(headerID) }

func (s subrequest) prepare(_ context.Context, out *authz.Outcome) error {
	if d := out.Download(); d != nil && s.a.front(d).Kind != NGINX {
		return &misuseError{http.StatusBadRequest, fmt.Sprintf("download %q is behind front: %s, and was asked for by auth_request", d.Name, s.a.front(d).Kind)}
	}
	return nil
}

func (subrequest) status(out *authz.Outcome) int { return statusOf(out) }

func (subrequest) write(h http.Header, out *authz.Outcome, status int) []byte {
	write(h, out, status)
	return nil
}

// serve answers a question in a form.
func (a *AuthRequest) serve(w http.ResponseWriter, r *http.Request, f form) {
	q := &authz.Question{Time: a.opts.Now(), ID: f.id(r)}
	defer a.asked.Add(-1)
	if most := int64(a.opts.MaxConcurrent); a.asked.Add(1) > most && most > 0 {
		a.reply(w, r, f, authz.Refuse(q, authz.ReasonUnavailable, fmt.Errorf("more than %d questions at a time", most)))
		return
	}
	if err := a.read(q, r); err != nil {
		a.reply(w, r, f, authz.Refuse(q, authz.ReasonRequest, err))
		return
	}
	out := a.guard.Check(r.Context(), q)
	if earlier, asked := a.earlier(r); asked && out.Download() != nil {
		if err := earlier.Unfit(out.Download()); err != nil {
			out = undone(r.Context(), out, err)
		}
	}
	if err := f.prepare(r.Context(), out); err != nil {
		out = undone(r.Context(), out, err)
	}
	if a.isAborted(r.Context(), out) {
		out.Reason = authz.ReasonAborted
	}
	a.reply(w, r, f, out)
}

// undone is what becomes of an outcome that cannot be answered: nothing is sent.
func undone(ctx context.Context, out *authz.Outcome, err error) *authz.Outcome {
	out.GiveBack(ctx)
	var misuse *misuseError
	if errors.As(err, &misuse) {
		return authz.Refuse(out.Question, authz.ReasonRequest, err)
	}
	return authz.Refuse(out.Question, authz.ReasonUnavailable, err)
}

// isAborted reports whether there is no answer because a client hung up, for which
// its web server closes the connection. A web server whose patience is about to end
// does the same: that is no client's doing.
func (a *AuthRequest) isAborted(ctx context.Context, out *authz.Outcome) bool {
	return out.Reason == authz.ReasonUnavailable && ctx.Err() != nil && errors.Is(out.Err, context.Canceled) &&
		a.opts.Now().Sub(out.Question.Time) < a.opts.Patience*3/4
}

// Hello answers whoever wants to know whether this is the service, as doctor does: with
// its mark on a status that allows nothing. It is no question, so nobody is told of it.
func (a *AuthRequest) Hello(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set(headerReason, string(authz.ReasonRequest))
	w.WriteHeader(http.StatusNotFound)
}

// NotFound answers a request for anything but the question, and
// MethodNotAllowed one for the question by another method than GET.
func (a *AuthRequest) NotFound(w http.ResponseWriter, r *http.Request) {
	a.refuseRoute(w, r, http.StatusNotFound, "asked for something else than GET /authorize, or /download")
}

// MethodNotAllowed is described at NotFound.
func (a *AuthRequest) MethodNotAllowed(w http.ResponseWriter, r *http.Request) {
	a.refuseRoute(w, r, http.StatusMethodNotAllowed, "asked for "+r.URL.Path+" by another method than GET")
}

func (a *AuthRequest) refuseRoute(w http.ResponseWriter, r *http.Request, status int, problem string) {
	q := &authz.Question{Time: a.opts.Now(), ID: r.Header.Get(headerID)}
	a.reply(w, r, subrequest{a}, authz.Refuse(q, authz.ReasonRequest, &misuseError{status, problem + ": is proxy_pass in nginx as `securefiles nginx` prints it?"}))
}

// A misuseError says that whoever asks is not nginx with its snippet, and has a
// status of its own.
type misuseError struct {
	status  int
	problem string
}

func (e *misuseError) Error() string { return e.problem }

// read takes nginx's headers apart. Each must be there once: a second value
// means that somebody other than the snippet wrote one.
func (a *AuthRequest) read(q *authz.Question, r *http.Request) error {
	q.Host, q.Action, q.Header = r.Host, authz.ActionRead, r.Header
	q.Range, q.IfRange = r.Header.Get(headerRange), r.Header.Get(headerIf)
	if !a.knows(r) {
		return &misuseError{http.StatusForbidden, "the proxy secret is missing or wrong: set X-Securefiles-Proxy-Secret in nginx to what proxy_secret_file holds"}
	}
	a.lookAtSnippet(r, q.Time)
	var err error
	if q.Target, err = single(r.Header, headerURI); err != nil {
		return fmt.Errorf("%w: set X-Original-URI to $request_uri in nginx", err)
	}
	if q.Method, err = single(r.Header, headerMethod); err != nil {
		return fmt.Errorf("%w: set X-Original-Method to $request_method in nginx", err)
	}
	switch len(r.Header[headerIP]) {
	case 0: // not sent: a policy that asks for the address will not match
	case 1:
		// nginx behind a unix socket has no address to tell ("unix:").
		q.IP, _ = netip.ParseAddr(r.Header[headerIP][0])
	default:
		return errors.New("X-Real-IP came more than once: set it to $remote_addr in nginx")
	}
	return nil
}

// knows reports whether whoever asks has the secret, if there is one.
func (a *AuthRequest) knows(r *http.Request) bool {
	values := r.Header[headerSecret]
	return a.opts.Secret == nil || len(values) == 1 && a.opts.Secret(values[0])
}

// single returns the one value of a header.
func single(h http.Header, name string) (string, error) {
	values := h[name]
	switch {
	case len(values) == 0 || values[0] == "":
		return "", fmt.Errorf("%s is missing or empty", name)
	case len(values) > 1:
		return "", fmt.Errorf("%s came more than once", name)
	}
	return values[0], nil
}

// reply records, answers, counts and logs an outcome.
func (a *AuthRequest) reply(w http.ResponseWriter, r *http.Request, f form, out *authz.Outcome) {
	status := f.status(out)
	if err := a.record(r.Context(), out, status); err != nil {
		out = failed(out, err)
		status = f.status(out)
	}
	if _, asked := f.(subrequest); asked && out.Listed() { // nginx opens nothing for it, and shows a page in the place of a refusal
		status = http.StatusForbidden
	}
	h := w.Header()
	body := f.write(h, out, status)
	prove := a.opts.Prove
	if earlier, asked := a.earlier(r); asked {
		prove = earlier.Prove
	}
	if prove != nil {
		h.Set(headerProof, prove(r, status, string(out.Reason), h.Get(headerPage), h.Get("Location"), h.Get(headerLocation), h.Get(headerUpstream)))
	}
	w.WriteHeader(status)
	if body != nil {
		_, _ = w.Write(body) // whoever is gone reads nothing
	}
	now := a.opts.Now()
	a.opts.Observe(out, now.Sub(out.Question.Time))
	a.journal.write(r.Context(), out, status, now)
}

// record records an outcome. After an error what limits have taken is given back.
func (a *AuthRequest) record(ctx context.Context, out *authz.Outcome, status int) error {
	if a.opts.Record == nil {
		return nil
	}
	if err := a.opts.Record(ctx, out, status, a.opts.Now().Sub(out.Question.Time)); err != nil {
		out.GiveBack(ctx)
		return unrecorded(err)
	}
	return nil
}

func unrecorded(err error) error { return fmt.Errorf("no record, no answer: %w", err) }

// failed is what becomes of an outcome that cannot be recorded, or carried out.
func failed(out *authz.Outcome, err error) *authz.Outcome {
	refused := *out
	refused.Reason, refused.Page, refused.Err = authz.ReasonUnavailable, "", err
	return &refused
}

// retry is what Retry-After says of a request that a limit refused, in seconds.
func retry(out *authz.Outcome) string {
	return strconv.FormatInt(max(1, int64((out.Retry+time.Second-1)/time.Second)), 10)
}

// statusOf returns the status that the client must get; nginx carries it there.
// This is the reply table.
func statusOf(out *authz.Outcome) int {
	switch {
	case out.Allowed():
		return http.StatusNoContent
	case out.Redirected():
		return http.StatusFound
	case out.Listed():
		return http.StatusOK
	}
	switch out.Reason {
	case authz.ReasonPolicy, authz.ReasonDefaultDeny:
		if d := out.Download(); d != nil && d.DenyStatus == http.StatusForbidden {
			return http.StatusForbidden
		}
		return http.StatusNotFound
	case authz.ReasonAnonymous, authz.ReasonCredentials:
		var bad *authz.CredentialsError
		switch {
		case errors.As(out.Err, &bad) && bad.Forbidden:
			return http.StatusForbidden
		case out.Login != "":
			return http.StatusFound
		}
		return http.StatusUnauthorized
	case authz.ReasonSubject, authz.ReasonMethod,
		authz.ReasonSignature, authz.ReasonNotYet, authz.ReasonRecipient, authz.ReasonNetwork, authz.ReasonConfirm:
		return http.StatusForbidden
	case authz.ReasonRate, authz.ReasonBusy, authz.ReasonQuota:
		return http.StatusTooManyRequests
	case authz.ReasonExpired, authz.ReasonUsedUp, authz.ReasonRevoked:
		return http.StatusGone
	case authz.ReasonPath:
		return http.StatusBadRequest
	case authz.ReasonRequest:
		var misuse *misuseError
		if errors.As(out.Err, &misuse) {
			return misuse.status
		}
		return http.StatusBadRequest
	default:
		return http.StatusServiceUnavailable
	}
}

// write sets the headers that nginx acts on. The keys are in canonical form,
// so they are set without net/http's own canonicalisation, and all values come
// from one array.
func write(h http.Header, out *authz.Outcome, status int) {
	values := make([]string, 0, 13)
	set := func(name, value string) {
		n := len(values)
		values = append(values, value)
		h[name] = values[n : n+1 : n+1]
	}
	set(headerReason, string(out.Reason))
	if out.Principal.Subject != "" {
		set(headerUser, out.Principal.Subject)
	}
	if out.Decision.Generation != 0 {
		set(headerDecision, out.Decision.String())
	}
	if d := out.Download(); d != nil && d.ReferrerPolicy != "" && out.Location.Redirect == "" { // the store is another site
		set(headerReferrer, d.ReferrerPolicy)
	} else {
		set(headerReferrer, "no-referrer")
	}
	if out.Page != "" && status != http.StatusNoContent {
		set(headerPage, string(out.Page))
		if out.Page == authz.PageArchive {
			set(headerLimitRate, strconv.FormatInt(out.Rate, 10))
		}
	}
	switch status {
	case http.StatusNoContent:
		d, path := out.Question.Download, out.Question.Path
		set(headerLocation, path.Location(d.Internal))
		if out.Location.Upstream != "" {
			set(headerUpstream, out.Location.Upstream)
		}
		name, rate := out.Question.Asked.Base(), out.Rate
		if s := out.Principal.Scope; s != nil {
			name = cmp.Or(s.Filename, name)
			if s.Rate > 0 && (rate == 0 || s.Rate < rate) {
				rate = s.Rate
			}
		}
		set(headerDisposition, pathguard.Disposition(d.Disposition, name))
		set(headerCacheControl, d.CacheControl)
		set(headerCSP, contentSecurityPolicy(d, path.Base()))
		set(headerLimitRate, strconv.FormatInt(rate, 10))
	case http.StatusFound:
		set("Location", cmp.Or(out.Location.Redirect, out.Login))
	case http.StatusUnauthorized:
		if out.Challenge != "" {
			set("Www-Authenticate", out.Challenge)
		}
	case http.StatusTooManyRequests:
		set("Retry-After", retry(out))
	case http.StatusServiceUnavailable:
		set("Retry-After", retryAfter)
	}
	if len(out.Quotas) > 0 {
		left, policy := rateLimit(out.Quotas)
		set(headerRateLimit, left)
		set(headerRateLimitPolicy, policy)
	}
}
