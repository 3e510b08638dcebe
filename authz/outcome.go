package authz

import (
	"context"
	"strconv"
	"time"
)

// A Reason says in one word why a request ended as it did. The list is closed:
// reasons become metric labels and stand in nginx's log.
type Reason string

// The reasons.
const (
	// ReasonPolicy: a policy line decided, for or against.
	ReasonPolicy Reason = "policy"
	// ReasonRedirect: a policy line allows it, and the client is sent to the store.
	ReasonRedirect Reason = "redirect"
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
	// ReasonRequest: the web server did not ask as its snippet makes it ask.
	ReasonRequest Reason = "request"
	// ReasonAborted: whoever asked went away before the answer.
	ReasonAborted Reason = "aborted"
	// ReasonSignature: a link that nobody made for this, as it stands.
	ReasonSignature Reason = "signature"
	// ReasonNotYet: a link whose time has not come, and ReasonExpired one whose time
	// is over.
	ReasonNotYet  Reason = "not-yet"
	ReasonExpired Reason = "expired"
	// ReasonUsedUp: a link that has been used as often as it may be.
	ReasonUsedUp Reason = "used-up"
	// ReasonRevoked: a link that was taken back.
	ReasonRevoked Reason = "revoked"
	// ReasonRecipient: a link for somebody else.
	ReasonRecipient Reason = "recipient"
	// ReasonNetwork: a link that is not for this address.
	ReasonNetwork Reason = "network"
	// ReasonConfirm: a link that a person must confirm on a page first.
	ReasonConfirm Reason = "confirm"
	// ReasonRate: more requests than a limit permits, ReasonBusy more downloads at a time,
	// and ReasonQuota more bytes.
	ReasonRate  Reason = "rate"
	ReasonBusy  Reason = "busy"
	ReasonQuota Reason = "quota"
	// ReasonUnavailable: no answer could be worked out.
	ReasonUnavailable Reason = "unavailable"
)

// Reasons returns every reason, for metrics that must exist before the first
// request.
func Reasons() []Reason {
	return []Reason{
		ReasonPolicy, ReasonRedirect, ReasonDefaultDeny, ReasonAnonymous, ReasonCredentials, ReasonSubject,
		ReasonPath, ReasonMethod, ReasonRequest, ReasonAborted,
		ReasonSignature, ReasonNotYet, ReasonExpired, ReasonUsedUp, ReasonRevoked, ReasonRecipient, ReasonNetwork, ReasonConfirm,
		ReasonRate, ReasonBusy, ReasonQuota,
		ReasonUnavailable,
	}
}

// A Page names a page of the service that is shown to a person, from a closed
// list that the web server's snippet knows.
type Page string

// The pages.
const (
	// PageLink asks a person to confirm that a link is to be used, PagePassword for its
	// password, and PageEnded says that a link has ended.
	PageLink     Page = "link"
	PagePassword Page = "password"
	PageEnded    Page = "ended"
	// PageListing shows a directory. It and PageArchive are the pages that are no refusal.
	PageListing Page = "listing"
	// PageArchive sends the files of a directory that may be shown as one.
	PageArchive Page = "archive"
)

// An Outcome is all that came of one question: enough to answer it, to count it
// and to keep a record of it. The zero Outcome is a denial without a reason.
type Outcome struct {
	// Question is what was asked. It is nil in the zero Outcome alone.
	Question  *Question
	Reason    Reason
	Principal Principal
	Decision  Decision
	// Source names the identity source that accepted or refused the
	// credentials; empty where none found any.
	Source string
	// Challenge is the WWW-Authenticate value for a caller who is not known, if
	// a scheme applies.
	Challenge string
	// Login is where a browser is sent to log in; empty means that it is
	// refused. It counts for ReasonAnonymous and ReasonCredentials alone.
	Login string
	// Location is where the download's store has what is allowed; zero for the web
	// server's own directory.
	Location Location
	// Link is the id of the link that the request came with, as far as one could be
	// made out.
	Link string
	// Page is the page that goes with a denial, or shows a directory; empty means none.
	// What is allowed is a file, and has no page.
	Page Page
	// Rate bounds the bytes a second of what is allowed; zero means no bound.
	Rate int64
	// Retry is when a request that a limit refused can come again; zero where nobody knows.
	Retry time.Duration
	// Quotas are what is left of the limits that apply.
	Quotas []Quota
	// Release gives back what limits have taken, if the answer is no allow in the end; nil
	// where there is nothing to give back.
	Release func(context.Context)
	// Err is for the operator: it never reaches the client.
	Err error
}

// Refuse returns the outcome of a question that ends before anyone has been
// asked. The error is for the operator.
func Refuse(q *Question, reason Reason, err error) *Outcome {
	return &Outcome{Question: q, Reason: reason, Err: err}
}

// Download returns the download that was asked for, or nil.
func (o *Outcome) Download() *Download {
	if o.Question == nil {
		return nil
	}
	return o.Question.Download
}

// Allowed reports whether the web server may open the file. Every piece must say
// so: a decision alone is not enough.
func (o *Outcome) Allowed() bool { return o.Reason == ReasonPolicy && o.granted() }

// Redirected reports whether the client may have the file and is sent to the store for
// it, by Location.Redirect. The web server opens nothing then: it is not Allowed.
func (o *Outcome) Redirected() bool {
	return o.Reason == ReasonRedirect && o.Location.Redirect != "" && o.granted()
}

// GiveBack gives back what limits have taken, once, whether or not the request goes on.
func (o *Outcome) GiveBack(ctx context.Context) {
	if o.Release != nil {
		o.Release(context.WithoutCancel(ctx))
		o.Release = nil
	}
}

// Listed reports whether the directory may be shown. The web server opens nothing for it:
// it is not Allowed.
func (o *Outcome) Listed() bool {
	d := o.Download()
	return o.Reason == ReasonPolicy && o.Decision.Effect == Allow && o.Err == nil && o.Principal.Subject != "" &&
		d != nil && d.Listing && o.Question.Action == ActionList && !o.Question.Dir.IsZero() && o.Question.Path.IsZero()
}

func (o *Outcome) granted() bool {
	return o.Decision.Effect == Allow && o.Err == nil &&
		o.Download() != nil && !o.Question.Path.IsZero() && o.Question.Dir.IsZero() && o.Principal.Subject != ""
}

// An Observer is told of every outcome and how long it took.
type Observer func(*Outcome, time.Duration)

// String returns the decision as logs show it: `g42:policy.csv:17`, or `g42:-`
// where no line decided.
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
