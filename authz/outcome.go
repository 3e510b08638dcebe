package authz

import (
	"net/http"
	"time"

	"securefiles/pathguard"
)

// A Reason says in one word why a request ended as it did. The list is closed:
// reasons become metric labels and stand in nginx's log.
type Reason string

// The reasons.
const (
	// ReasonPolicy: a policy line decided, for or against.
	ReasonPolicy Reason = "policy"
	// ReasonDefaultDeny: no policy line allows it.
	ReasonDefaultDeny Reason = "default-deny"
	// ReasonAnonymous: policy refuses it to a caller without credentials.
	ReasonAnonymous Reason = "anonymous"
	// ReasonCredentials: credentials were there and are wrong.
	ReasonCredentials Reason = "credentials"
	// ReasonSubject: the verified subject is a name that it may not have.
	ReasonSubject Reason = "subject"
	// ReasonPath: the path is not canonical, or belongs to no download.
	ReasonPath Reason = "path"
	// ReasonMethod: neither GET nor HEAD.
	ReasonMethod Reason = "method"
	// ReasonRequest: nginx did not ask as the snippet makes it ask.
	ReasonRequest Reason = "request"
	// ReasonUnavailable: no answer could be worked out.
	ReasonUnavailable Reason = "unavailable"
)

// Reasons returns every reason, for metrics that must exist before the first
// request.
func Reasons() []Reason {
	return []Reason{
		ReasonPolicy, ReasonDefaultDeny, ReasonAnonymous, ReasonCredentials, ReasonSubject,
		ReasonPath, ReasonMethod, ReasonRequest, ReasonUnavailable,
	}
}

// An Outcome is all that came of one request. The zero Outcome is a denial
// without a reason, which is answered with 503.
type Outcome struct {
	Reason Reason
	// Download is nil when the path belongs to none.
	Download  *Download
	Path      pathguard.Path
	Principal Principal
	Decision  Decision
	// Source names the identity source that accepted or refused the
	// credentials; empty where none found any.
	Source string
	// Challenge is the WWW-Authenticate value for a 401, if a scheme applies.
	Challenge string
	// Login is where a browser is sent to log in; empty means 401. It counts
	// for ReasonAnonymous and ReasonCredentials alone.
	Login string
	// Err is for the operator: it never reaches the client.
	Err error
}

// Allowed reports whether nginx may open the file. Every piece must say so: a
// decision alone is not enough.
func (o *Outcome) Allowed() bool {
	return o.Reason == ReasonPolicy && o.Decision.Effect == Allow && o.Err == nil &&
		o.Download != nil && !o.Path.IsZero() && o.Principal.Subject != ""
}

// retryAfter is what a client is told to wait when the service could not
// decide, in seconds.
const retryAfter = "5"

// status returns the status that the client must get; nginx carries it there.
// This is the reply table.
func (o *Outcome) status() int {
	if o.Allowed() {
		return http.StatusNoContent
	}
	switch o.Reason {
	case ReasonPolicy, ReasonDefaultDeny:
		if o.Download != nil && o.Download.DenyStatus == http.StatusForbidden {
			return http.StatusForbidden
		}
		return http.StatusNotFound
	case ReasonAnonymous, ReasonCredentials:
		if o.Login != "" {
			return http.StatusFound
		}
		return http.StatusUnauthorized
	case ReasonSubject, ReasonMethod:
		return http.StatusForbidden
	case ReasonPath, ReasonRequest:
		return http.StatusBadRequest
	default:
		return http.StatusServiceUnavailable
	}
}

// An Observer is told of every outcome and how long it took.
type Observer func(*Outcome, time.Duration)
