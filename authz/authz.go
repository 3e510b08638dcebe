// Package authz decides the question about one download: may this caller have
// this file?
//
// A front end makes a [Question] of what its web server says, and that server's
// answer of the [Outcome]; this package knows the headers of none. A [Guard]
// asks its parts in a fixed order ([Guard.Check] holds the list): the path, the
// caller, the policy. The parts are the interfaces below, each declared here
// because it is called here, each with one method. Whatever else asks who a
// caller is or what policy says takes the same steps: [Downloads.Ask],
// [Identify], [Question.Query], [ReasonOf].
//
// The zero value of every type in this package denies. An error beside an
// allow is a deny.
//
// authz does not protect against a web server that never asks, or that vouches
// for what a client said; the snippet that `securefiles nginx` prints does.
package authz

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Names and groups that the service itself gives out. Policies may use them;
// no identity source may.
const (
	// Anonymous is the subject of a request that carries no credentials.
	Anonymous = "anonymous"
	// GroupAnyone is a group of every request.
	GroupAnyone = "@anyone"
	// GroupAuthenticated is a group of every request with a verified subject.
	GroupAuthenticated = "@authenticated"
	// GroupLink is a group of every request that a link was used for, beside the
	// maker's: `p, @link, /internal/**, read, deny` keeps links out of a tree.
	GroupLink = "@link"
	// RolePrefix begins names that only a line of a policy can give: no subject
	// and no group may begin with it.
	RolePrefix = "role:"
)

// A Principal is who asks. The zero Principal is nobody and is refused.
type Principal struct {
	// Subject stands in policies as it is: `alice`, `alice@example.org`.
	Subject string
	// Groups stand in policies with a leading `@` (`@staff`), which they
	// carry here too. The built-in groups are among them.
	Groups []string
	// Source names the identity source that vouched, from a closed list; it
	// becomes a metric label.
	Source string
	// Scope bounds what a link opens; nil means no bound.
	Scope *Scope
}

// IsAnonymous reports whether the principal carries no verified identity.
func (p Principal) IsAnonymous() bool { return p.Subject == Anonymous }

// ErrNoCredentials says that a request carries no credentials of the kind that
// an [Authenticator] reads: the next one may try.
var ErrNoCredentials = errors.New("no credentials")

// A CredentialsError says that credentials were there and are wrong: the
// request ends with 401 or 403, and no other source is tried.
type CredentialsError struct {
	// Source names the identity source that refused.
	Source string
	// Problem is for the operator's log: it names no secret and quotes no
	// byte of the client's.
	Problem string
	// Challenge is the WWW-Authenticate value of RFC 9110 section 11.6.1, or
	// empty where no scheme applies.
	Challenge string
	// Final says that to log in again would not help: whoever is sent to the login
	// page comes back with the same for ever, so nobody is.
	Final bool
	// Forbidden says that the request ends with 403: the credentials are not wrong,
	// and of no use.
	Forbidden bool
}

func (e *CredentialsError) Error() string { return fmt.Sprintf("%s: %s", e.Source, e.Problem) }

// An UnavailableError says that credentials were there and could not be
// checked: the request ends with 503. It lets metrics and log name the source.
type UnavailableError struct {
	// Source names the identity source that could not tell.
	Source string
	// Err is for the operator's log: it names no secret and quotes no byte
	// of the client's.
	Err error
}

func (e *UnavailableError) Error() string { return fmt.Sprintf("%s: %v", e.Source, e.Err) }

// Unwrap returns the cause.
func (e *UnavailableError) Unwrap() error { return e.Err }

// An Authenticator finds out who asks.
type Authenticator interface {
	// Authenticate returns the verified principal, without built-in groups,
	// or one of three errors: ErrNoCredentials (not mine), a
	// *CredentialsError (mine and wrong), anything else (could not tell: the
	// request ends with 503). One that is ErrReservedSubject too says that
	// the credentials are right and the name that they give is not to be had
	// (403): to log in again would not help.
	Authenticate(context.Context, *Question) (Principal, error)
}

// A Query is what policy is asked about.
type Query struct {
	Principal Principal
	// Object is the subpath, with a leading slash, byte for byte as nginx
	// will open it.
	Object string
	// Action is one of the actions above.
	Action string
	// Domain is the name of the download.
	Domain string
	// IP is the client's address in its canonical text form, or empty.
	IP string
	// Host is the host that the client asked.
	Host string
	// At is the moment that is asked about; the zero time is now, by the clock of
	// whoever answers. A request of a client has none.
	At time.Time
}

// Effect is what policy says. Its zero value denies.
type Effect uint8

// The effects.
const (
	Deny Effect = iota
	Allow
)

// String returns "allow", or "deny" for everything else.
func (e Effect) String() string {
	if e == Allow {
		return "allow"
	}
	return "deny"
}

// A Decision is policy's answer. The zero Decision denies.
type Decision struct {
	Effect Effect
	// Generation counts the versions of the policy since the service began.
	Generation uint64
	// File and Line (from 1) name the policy line that decided; a Line of 0
	// says that none did: the default deny.
	File string
	Line int
}

// A Decider asks policy.
type Decider interface {
	// Decide returns an error only when no answer could be worked out; the
	// caller denies.
	Decide(context.Context, Query) (Decision, error)
}

// ErrReservedSubject says that a verified subject cannot be told from a name
// that policy gives another meaning, a role's for one. A Decider wraps it; the
// request is refused, whatever policy says.
var ErrReservedSubject = errors.New("the subject is a name that the policy reserves")
