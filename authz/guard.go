package authz

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"securefiles/pathguard"
)

// Options are what a Guard can do without.
type Options struct {
	// Challenge is the WWW-Authenticate value for a caller without
	// credentials, where a scheme applies.
	Challenge string
	// Login is the page that a browser is sent to, instead of being refused,
	// when it brings no credentials or wrong ones; nil means none.
	Login *LoginPage
	// Links finds out who made the link that a target carries; nil knows none. Its
	// principals have a Scope, and its errors may be a *LinkError.
	Links Authenticator
	// Early is asked before anybody is, about what costs a password or a policy nothing
	// yet; Limits once policy has allowed. Nil bounds nothing.
	Early, Limits Limiter
}

// A Guard decides questions. It is safe for concurrent use.
type Guard struct {
	downloads *Downloads
	identity  Authenticator
	links     Authenticator // nil where there are none
	policy    Decider
	early     Limiter // nil where there is none, as limits
	limits    Limiter
	login     *LoginPage
	challenge string
}

// New returns a Guard for the downloads.
func New(downloads *Downloads, identity Authenticator, policy Decider, opts *Options) (*Guard, error) {
	if downloads == nil || identity == nil || policy == nil {
		return nil, errors.New("a guard needs downloads, an authenticator and a decider")
	}
	if opts == nil {
		opts = &Options{}
	}
	return &Guard{downloads: downloads, identity: identity, links: opts.Links, early: opts.Early, limits: opts.Limits, policy: policy, login: opts.Login, challenge: opts.Challenge}, nil
}

// Check decides one question, top to bottom; every early return denies.
func (g *Guard) Check(ctx context.Context, q *Question) (out *Outcome) {
	defer func() {
		if p := recover(); p != nil { // a bug must not leave the answer to chance
			out = Refuse(q, ReasonUnavailable, fmt.Errorf("panic while deciding: %v", p))
		}
	}()
	if q.Method != "GET" && q.Method != "HEAD" {
		return Refuse(q, ReasonMethod, errors.New("only GET and HEAD are downloads"))
	}
	if refused := g.find(q); refused != nil {
		return refused
	}
	if g.early != nil {
		early := limited(ctx, g.early, &Outcome{Question: q})
		if early.Err != nil {
			return early
		}
		defer func() { out.Quotas = append(early.Quotas, out.Quotas...) }()
	}
	// Who may ask: the caller, and else whoever made the link, which is for a file.
	if out = g.decideFor(ctx, q, g.identity, nil); !out.Allowed() && g.links != nil && q.Dir.IsZero() {
		if linked := g.decideFor(ctx, q, g.links, out); linked != nil {
			out = linked
		}
	}
	switch {
	case out.Allowed():
		return locate(ctx, out)
	case out.Listed():
		if out.Page = PageListing; !q.Archive.IsZero() {
			out.Page = PageArchive
		}
		return out
	}
	return g.offerLogin(out)
}

// find finds what is asked for: a file, or a directory where they are shown. It returns
// why there is neither.
func (g *Guard) find(q *Question) *Outcome {
	var err error
	if d, dir, ok := g.downloads.FindDir(q.Target); ok {
		q.Download, q.Dir, q.Action = d, dir, ActionList
		if _, query, _ := strings.Cut(q.Target, "?"); d.Archives && query == "zip" {
			q.Archive = dir
		}
		return nil
	}
	if q.Download, q.Asked, err = g.downloads.Find(q.Target); err != nil {
		if errors.Is(err, pathguard.ErrOutside) && !g.downloads.mayMean(q.Target) {
			return Refuse(q, ReasonRequest, errElsewhere)
		}
		return Refuse(q, ReasonPath, err)
	}
	if q.Path, err = q.Download.Object(q.Asked); err != nil {
		return Refuse(q, ReasonPath, err)
	}
	return nil
}

// errElsewhere is the operator's mistake: a client can only spell the URL of a
// download in another way, and that is ReasonPath.
var errElsewhere = errors.New("the request's own target ($request_uri) is below the URL of no download: is there a rewrite, or another location, that leads to this one? Guard the URL that people ask for")

// decideFor takes the steps from a candidate to an outcome. The caller's own outcome is
// there for a link, which may be for a caller who is known; nil comes back where there
// is no link.
func (g *Guard) decideFor(ctx context.Context, q *Question, candidate Authenticator, own *Outcome) *Outcome {
	p, err := Identify(ctx, candidate, q)
	if err != nil {
		return refuseCredentials(q, p.Source, err)
	}
	if own != nil {
		if p.IsAnonymous() {
			return nil
		}
		if out := p.Scope.refuse(q, p, own); out != nil {
			return out
		}
	}
	decision, err := g.policy.Decide(ctx, q.Query(p))
	out := &Outcome{Question: q, Principal: p, Source: p.Source, Decision: decision, Reason: ReasonOf(p, decision, err), Err: err}
	if p.Scope != nil {
		out.Link = p.Scope.ID
	}
	switch {
	case err != nil:
		out.Decision.Effect = Deny // whatever was said beside an error does not count
	case out.Reason == ReasonAnonymous:
		out.Challenge = g.challenge
	case (out.Allowed() || out.Listed()) && g.limits != nil:
		return limited(ctx, g.limits, out)
	}
	return out
}

// limited takes what an outcome costs. Beside an error it is allowed no more.
func limited(ctx context.Context, limiter Limiter, out *Outcome) *Outcome {
	err := limiter.Limit(ctx, out)
	if err == nil {
		return out
	}
	out.Err, out.Decision.Effect, out.Reason = err, Deny, ReasonUnavailable
	var over *LimitError
	if errors.As(err, &over) {
		out.Reason, out.Retry = over.Reason, over.Retry
	}
	var link *LinkError
	if errors.As(err, &link) {
		out.Reason, out.Page = link.Reason, link.Page
	}
	return out
}

// ReasonOf says in one word what comes of policy's answer about a principal. An
// error beside an allow is a deny.
func ReasonOf(p Principal, d Decision, err error) Reason {
	switch {
	case errors.Is(err, ErrReservedSubject):
		return ReasonSubject
	case err != nil:
		return ReasonUnavailable
	case d.Effect == Allow:
		return ReasonPolicy
	case p.IsAnonymous():
		return ReasonAnonymous
	case d.Line == 0:
		return ReasonDefaultDeny
	}
	return ReasonPolicy
}

// Identify asks an authenticator who puts the question, and returns the
// principal with its built-in groups: the anonymous one where it finds no
// credentials. Beside an error, the principal has no subject. A name that no
// source may vouch for is ErrReservedSubject; other errors are the
// authenticator's.
func Identify(ctx context.Context, a Authenticator, q *Question) (Principal, error) {
	p, err := a.Authenticate(ctx, q)
	if errors.Is(err, ErrNoCredentials) {
		return AnonymousPrincipal(), nil
	}
	if err == nil {
		err = p.valid()
	}
	if err != nil {
		return Principal{Source: p.Source}, err
	}
	return p.WithBuiltinGroups(), nil
}

// valid says why no source may vouch for the principal, or returns nil.
func (p Principal) valid() error {
	if err := ValidSubject(p.Subject); err != nil {
		return fmt.Errorf("%w: it %w", ErrReservedSubject, err)
	}
	for _, g := range p.Groups {
		name, ok := strings.CutPrefix(g, "@")
		if !ok {
			return fmt.Errorf("%w: a group without a leading @ would be a role", ErrReservedSubject)
		}
		if err := ValidGroup(name); err != nil {
			return fmt.Errorf("%w: a group %w", ErrReservedSubject, err)
		}
	}
	return nil
}

// refuseCredentials ends the way of a candidate that could not be made out.
func refuseCredentials(q *Question, source string, err error) *Outcome {
	out := Refuse(q, ReasonUnavailable, err)
	out.Source = source
	var bad *CredentialsError
	var down *UnavailableError
	var link *LinkError
	switch {
	case errors.As(err, &link):
		out.Source, out.Reason, out.Link, out.Page = SourceLink, link.Reason, link.ID, link.Page
	case errors.As(err, &bad):
		out.Source, out.Challenge, out.Reason = bad.Source, bad.Challenge, ReasonCredentials
	case errors.As(err, &down):
		out.Source = down.Source
	}
	if errors.Is(err, ErrReservedSubject) { // to log in again would not help
		out.Reason, out.Challenge = ReasonSubject, ""
	}
	return out
}
