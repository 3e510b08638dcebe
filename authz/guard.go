package authz

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"securefiles/pathguard"
)

// The headers of the exchange with nginx. The snippet overwrites each request
// header, whatever the client sent.
const (
	headerURI    = "X-Original-Uri"
	headerMethod = "X-Original-Method"
	headerIP     = "X-Real-Ip"

	headerLocation     = "X-Securefiles-Location"
	headerDisposition  = "X-Securefiles-Disposition"
	headerCacheControl = "X-Securefiles-Cache-Control"
	headerLimitRate    = "X-Securefiles-Limit-Rate"
	headerCSP          = "X-Securefiles-Csp"
	headerDecision     = "X-Securefiles-Decision"
	headerUser         = "X-Securefiles-User"
	headerReason       = "X-Securefiles-Reason"
)

// A Download is a public URL prefix whose files are guarded.
type Download struct {
	// Name stands in metrics and logs, and as `dom` in policies.
	Name string
	// URL is the public prefix, with a slash at both ends.
	URL string
	// Internal is the prefix of nginx's internal location, with a slash at
	// both ends.
	Internal string
	// Disposition says whether a browser saves or shows the file.
	Disposition pathguard.Kind
	// DenyStatus is what a known, refused subject gets: 403, or 404 for
	// every other value.
	DenyStatus int
	// CacheControl is the Cache-Control value of what is served.
	CacheControl string
	// CSP is the Content-Security-Policy value of what is served.
	CSP string
}

// Options are what a Guard can do without.
type Options struct {
	// Challenge is the WWW-Authenticate value for a caller without
	// credentials, where a scheme applies.
	Challenge string
	// LoginURL is the page that a browser is sent to with 302, instead of 401,
	// when it brings no credentials or wrong ones: a path of this site
	// (`/login/`), or `https://HOST/PATH`. `{next}` in its query stands for
	// the path and query to return to, percent-encoded; without it,
	// `next={next}` is added. Empty means 401 for everybody.
	LoginURL string
	// Observe is told of every outcome.
	Observe Observer
	// Logger gets what an operator must know: outcomes that point at a
	// broken set-up, and each decision at debug level.
	Logger *slog.Logger
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// A Guard answers nginx's auth_request. It is safe for concurrent use.
type Guard struct {
	downloads []*Download
	identity  Authenticator
	policy    Decider
	login     loginPage
	opts      Options

	complaints complaints
}

// New returns a Guard for the downloads, whose prefixes must not contain each
// other.
func New(downloads []*Download, identity Authenticator, policy Decider, opts *Options) (*Guard, error) {
	if len(downloads) == 0 || identity == nil || policy == nil {
		return nil, errors.New("a guard needs at least one download, an authenticator and a decider")
	}
	for i, d := range downloads {
		for _, prefix := range []string{d.URL, d.Internal} {
			if len(prefix) < 3 || prefix[0] != '/' || prefix[len(prefix)-1] != '/' {
				return nil, fmt.Errorf("download %q: prefix %q must begin and end with a slash and name something", d.Name, prefix)
			}
		}
		for _, other := range downloads[:i] {
			if overlap(d.URL, other.URL) || overlap(d.Internal, other.Internal) || d.Name == other.Name {
				return nil, fmt.Errorf("downloads %q and %q share a name or overlap in url or internal prefix", other.Name, d.Name)
			}
		}
	}
	g := &Guard{downloads: slices.Clone(downloads), identity: identity, policy: policy}
	if opts != nil {
		g.opts = *opts
	}
	var err error
	if g.login, err = parseLogin(g.opts.LoginURL); err != nil {
		return nil, err
	}
	for _, d := range downloads {
		if strings.HasPrefix(g.login.before, d.URL) {
			return nil, fmt.Errorf("the login URL is inside download %q: nobody could reach it", d.Name)
		}
	}
	if g.opts.Now == nil {
		g.opts.Now = time.Now
	}
	if g.opts.Logger == nil {
		g.opts.Logger = slog.New(slog.DiscardHandler)
	}
	if g.opts.Observe == nil {
		g.opts.Observe = func(*Outcome, time.Duration) {}
	}
	return g, nil
}

func overlap(a, b string) bool { return strings.HasPrefix(a, b) || strings.HasPrefix(b, a) }

// Check decides one request, top to bottom; every early return denies.
func (g *Guard) Check(ctx context.Context, r *http.Request) *Outcome {
	out := &Outcome{}

	q, reason, err := readQuestion(r)
	if err != nil {
		return out.deny(reason, err)
	}

	out.Download, out.Path, err = g.parse(q.target)
	if err != nil {
		return out.deny(ReasonPath, err)
	}

	out.Principal, out.Source, err = g.authenticate(ctx, r)
	if err != nil {
		return g.offerLogin(r, q, g.refuseCredentials(out, err))
	}

	out.Decision, err = g.policy.Decide(ctx, Query{
		Principal: out.Principal,
		Object:    out.Path.String(),
		Action:    ActionRead,
		Domain:    out.Download.Name,
		IP:        q.ip,
		Host:      r.Host,
	})
	switch {
	case errors.Is(err, ErrReservedSubject):
		return out.deny(ReasonSubject, err)
	case err != nil:
		return out.deny(ReasonUnavailable, err)
	case out.Decision.Effect == Allow:
		out.Reason = ReasonPolicy
		return out
	case out.Principal.IsAnonymous():
		out.Challenge = g.opts.Challenge
		return g.offerLogin(r, q, out.deny(ReasonAnonymous, nil))
	case out.Decision.Line == 0:
		return out.deny(ReasonDefaultDeny, nil)
	default:
		return out.deny(ReasonPolicy, nil)
	}
}

// deny ends a request. Whatever policy had said by then no longer counts.
func (o *Outcome) deny(reason Reason, err error) *Outcome {
	o.Reason, o.Err = reason, err
	o.Decision.Effect = Deny
	return o
}

// A question is what nginx wants to know, from the headers that it sets.
type question struct {
	target string // $request_uri
	method string // $request_method: GET or HEAD
	ip     string // $remote_addr, canonical; empty where there is none
}

// readQuestion takes nginx's headers apart. Each must be there once: a second
// value means that somebody other than the snippet wrote one.
func readQuestion(r *http.Request) (question, Reason, error) {
	var q question
	target, err := single(r.Header, headerURI)
	if err != nil {
		return q, ReasonRequest, fmt.Errorf("%w: set X-Original-URI to $request_uri in nginx", err)
	}
	method, err := single(r.Header, headerMethod)
	if err != nil {
		return q, ReasonRequest, fmt.Errorf("%w: set X-Original-Method to $request_method in nginx", err)
	}
	if method != http.MethodGet && method != http.MethodHead {
		return q, ReasonMethod, errors.New("only GET and HEAD are downloads")
	}
	q.target, q.method = target, method
	switch len(r.Header[headerIP]) {
	case 0: // not sent: a policy that asks for the address will not match
	case 1:
		// nginx behind a unix socket has no address to tell ("unix:").
		if addr, err := netip.ParseAddr(r.Header[headerIP][0]); err == nil {
			q.ip = addr.Unmap().WithZone("").String()
		}
	default:
		return q, ReasonRequest, errors.New("X-Real-IP came more than once: set it to $remote_addr in nginx")
	}
	return q, "", nil
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

// parse finds the download and the one path that nginx may open.
func (g *Guard) parse(target string) (*Download, pathguard.Path, error) {
	for _, d := range g.downloads {
		path, err := pathguard.Parse(target, d.URL)
		if errors.Is(err, pathguard.ErrOutside) {
			continue
		}
		if err != nil {
			return d, pathguard.Path{}, err
		}
		return d, path, nil
	}
	return nil, pathguard.Path{}, pathguard.ErrOutside
}

// authenticate returns the principal with its built-in groups.
func (g *Guard) authenticate(ctx context.Context, r *http.Request) (p Principal, source string, err error) {
	p, err = g.identity.Authenticate(ctx, r)
	if errors.Is(err, ErrNoCredentials) {
		return AnonymousPrincipal(), "", nil
	}
	if err != nil {
		return Principal{}, "", err
	}
	if p.Subject == "" || p.Subject == Anonymous || p.Subject[0] == '@' {
		return Principal{}, p.Source, fmt.Errorf("%w: no source may vouch for it", ErrReservedSubject)
	}
	return p.WithBuiltinGroups(), p.Source, nil
}

// AnonymousPrincipal returns the principal of a request without credentials.
func AnonymousPrincipal() Principal {
	return Principal{Subject: Anonymous, Groups: []string{GroupAnyone}}
}

// WithBuiltinGroups returns the principal of a verified subject with the groups
// that every such principal has.
func (p Principal) WithBuiltinGroups() Principal {
	groups := make([]string, 0, len(p.Groups)+2)
	p.Groups = append(append(groups, p.Groups...), GroupAnyone, GroupAuthenticated)
	return p
}

// refuseCredentials ends a request whose caller could not be made out.
func (g *Guard) refuseCredentials(out *Outcome, err error) *Outcome {
	var bad *CredentialsError
	var down *UnavailableError
	switch {
	case errors.As(err, &bad):
		out.Source = bad.Source
	case errors.As(err, &down):
		out.Source = down.Source
	}
	switch {
	case errors.Is(err, ErrReservedSubject):
		return out.deny(ReasonSubject, err)
	case bad != nil:
		out.Challenge = bad.Challenge
		return out.deny(ReasonCredentials, err)
	default:
		return out.deny(ReasonUnavailable, err)
	}
}

// ServeHTTP answers GET /authorize.
func (g *Guard) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	start := g.opts.Now()
	out := g.checkSafely(r)
	write(w.Header(), out)
	w.WriteHeader(out.status())
	g.opts.Observe(out, g.opts.Now().Sub(start))
	g.log(r, out)
}

// checkSafely turns a panic into a denial: a bug must not leave the answer to
// chance.
func (g *Guard) checkSafely(r *http.Request) (out *Outcome) {
	defer func() {
		if p := recover(); p != nil {
			out = (&Outcome{}).deny(ReasonUnavailable, fmt.Errorf("panic while deciding: %v", p))
		}
	}()
	return g.Check(r.Context(), r)
}

// write sets the headers that nginx acts on. The keys are in canonical form,
// so they are set without net/http's own canonicalisation, and all values come
// from one array.
func write(h http.Header, out *Outcome) {
	values := make([]string, 0, 8)
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
	switch out.status() {
	case http.StatusNoContent:
		set(headerLocation, out.Path.Location(out.Download.Internal))
		set(headerDisposition, pathguard.Disposition(out.Download.Disposition, out.Path.Base()))
		set(headerCacheControl, out.Download.CacheControl)
		set(headerCSP, out.Download.CSP)
		set(headerLimitRate, "0")
	case http.StatusFound:
		set("Location", out.Login)
	case http.StatusUnauthorized:
		if out.Challenge != "" {
			set("Www-Authenticate", out.Challenge)
		}
	case http.StatusServiceUnavailable:
		set("Retry-After", retryAfter)
	}
}

// String returns the decision as nginx's log shows it: `g42:policy.csv:17`, or
// `g42:-` where no line decided.
func (d Decision) String() string {
	b := make([]byte, 0, 32)
	b = append(b, 'g')
	b = strconv.AppendUint(b, d.Generation, 10)
	if d.Line == 0 {
		return string(append(b, ":-"...))
	}
	b = append(b, ':')
	b = append(b, d.File...)
	b = append(b, ':')
	return string(strconv.AppendInt(b, int64(d.Line), 10))
}

// log tells the operator what a metric cannot: what to mend.
func (g *Guard) log(r *http.Request, out *Outcome) {
	level := slog.LevelDebug
	switch out.Reason {
	case ReasonUnavailable:
		level = slog.LevelError
	case ReasonRequest, ReasonSubject:
		level = slog.LevelWarn
	}
	ctx := r.Context()
	if !g.opts.Logger.Enabled(ctx, level) {
		return
	}
	left := 0
	if level > slog.LevelDebug {
		var tell bool
		if left, tell = g.complaints.tell(g.opts.Now()); !tell {
			return
		}
	}
	attrs := []slog.Attr{
		slog.String("reason", string(out.Reason)),
		slog.Int("status", out.status()),
		slog.String("request_id", r.Header.Get("X-Request-Id")),
	}
	if out.Principal.Subject != "" {
		attrs = append(attrs, slog.String("subject", out.Principal.Subject))
	}
	if !out.Path.IsZero() {
		// Percent-encoded: no byte of a client's can act on a terminal.
		attrs = append(attrs, slog.String("download", out.Download.Name), slog.String("url", out.Path.URL(out.Download.URL)))
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
	g.opts.Logger.LogAttrs(ctx, level, "decision", attrs...)
}
