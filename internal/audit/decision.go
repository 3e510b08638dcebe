package audit

import (
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"

	"securefiles/authz"
)

// How much of what a client wrote is kept, in bytes.
const (
	maxRequest = 64
	maxRefused = 1024 // of a path that was refused; others have at most 4,096
	maxAgent   = 256
	maxOrigin  = 272 // a host's name has 253
	maxRange   = 128
	maxLink    = 128
)

// Decision returns the record of an outcome that is answered with a status at a time,
// after it took so long. Of a token, a password, a cookie or a link nothing stands in
// it: of the target there is the path, without its query, and of the referrer the
// origin.
func Decision(out *authz.Outcome, status int, at time.Time, took time.Duration) *Record {
	r := &Record{
		Version: Version, Type: TypeDecision, Time: at,
		Subject: out.Principal.Subject, Groups: out.Principal.Groups, Source: out.Source,
		Decision: authz.Deny.String(), Reason: string(out.Reason), Generation: out.Decision.Generation,
		Status: status, Duration: took.Seconds(),
	}
	if out.Allowed() || out.Redirected() || out.Listed() {
		r.Decision = authz.Allow.String()
	}
	if d := out.Decision; d.Line > 0 {
		r.Line = d.File + ":" + strconv.Itoa(d.Line)
	}
	r.Link = clip(out.Link, maxLink)
	if r.Link != "" && out.Source == authz.SourceLink {
		r.Maker = out.Principal.Subject
	}
	q := out.Question
	if q == nil {
		return r
	}
	r.Request, r.Action, r.Range = clip(q.ID, maxRequest), q.Action, clip(q.Range, maxRange)
	r.Method = method(q.Method)
	if q.Download != nil {
		r.Download = q.Download.Name
	}
	switch {
	case !q.Dir.IsZero():
		r.Path = q.Dir.String()
	case q.Path.IsZero():
		r.Path = refused(q.Target)
	default:
		r.Path = q.Path.String()
	}
	switch {
	case q.Archive.IsZero():
	case q.Path.IsZero():
		r.Archive = Whole
	default:
		r.Archive, r.Size = Part, q.Size
	}
	if q.IP.IsValid() {
		r.Client = address(q.IP)
	}
	r.Agent, r.Referrer = clip(q.Header.Get("User-Agent"), maxAgent), origin(q.Header.Get("Referer"))
	return r
}

// address returns an address as policy is asked about it.
func address(ip netip.Addr) string { return ip.Unmap().WithZone("").String() }

func clip(text string, limit int) string { return text[:min(len(text), limit)] }

// refused returns what is kept of a target that is no path of a download: no query,
// however it is escaped, no parameters, and nothing of what is not in origin form,
// where a password may stand.
func refused(target string) string {
	if !strings.HasPrefix(target, "/") || strings.HasPrefix(target, "//") {
		return ""
	}
	target = clip(target, maxRefused)
	if i := strings.IndexAny(target, "?#;"); i >= 0 {
		target = target[:i]
	}
	for _, escaped := range []string{"%3f", "%3F", "%23", "%3b", "%3B"} {
		target, _, _ = strings.Cut(target, escaped)
	}
	return target
}

// method returns a method of RFC 9110 section 9.1, or what OpenTelemetry has for all
// others.
func method(name string) string {
	switch name {
	case "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "":
		return name
	}
	return "_OTHER"
}

// origin returns the origin of a referrer: scheme, host and port.
func origin(referrer string) string {
	if referrer == "" {
		return ""
	}
	u, err := url.Parse(referrer)
	if err != nil || u.Host == "" || len(u.Host) > maxOrigin || u.Scheme != "http" && u.Scheme != "https" {
		return ""
	}
	return u.Scheme + "://" + u.Host
}
