package authz

import (
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"securefiles/pathguard"
)

// A Question is one request for a file, as a web server vouches for it. A front
// end makes it. The zero Question is refused.
type Question struct {
	// ID joins the decision with the web server's own log. It may be empty, and
	// decides nothing.
	ID string
	// Method and Target are the client's, as they came: the target undecoded,
	// with its query.
	Method, Target string
	// Host is the host that the client asked.
	Host string
	// Action is one of the actions above.
	Action string
	// IP is the client's address; the zero Addr where it is not known.
	IP netip.Addr
	// Range is the client's Range header: what it can take at most.
	Range string
	// IfRange is the client's If-Range header: unless it names the file as it is, all of
	// it is sent in the place of the range (RFC 9110 section 13.1.5).
	IfRange string
	// Time is when the question came.
	Time time.Time
	// Header holds the credentials, and what the web server says of the caller.
	// Beside them, the Accept header says who is a browser; nothing else in it
	// has a meaning here.
	Header http.Header

	// Download, Asked and Path are set by Guard.Check, once: the download that the
	// target belongs to, the path that it names, and the one path that may be opened,
	// which is another where the first is a public name. Download is nil where there
	// is none.
	Download    *Download
	Asked, Path pathguard.Path
	// Dir is the directory that is asked for in the place of a file, with ActionList;
	// zero where there is a Path.
	Dir pathguard.Dir
	// Archive is the directory whose files are asked for as one, which is Dir for the whole of
	// it, and stands beside a Path for each file in it; zero where none is.
	Archive pathguard.Dir
	// Size is how many bytes are to be sent, where that is known before: of an archive, and of
	// each file in it.
	Size int64
}

// Query returns what policy is asked when the principal puts the question.
func (q *Question) Query(p Principal) Query {
	query := Query{Principal: p, Object: q.Path.String() + q.Dir.String(), Action: q.Action, Host: q.Host} // one of the two is empty
	if q.Download != nil {
		query.Domain = q.Download.Name
	}
	if q.IP.IsValid() {
		query.IP = q.IP.Unmap().WithZone("").String()
	}
	return query
}

// Actions that a request can ask for.
const (
	// ActionRead is a download.
	ActionRead = "read"
	// ActionList is a directory listing.
	ActionList = "list"
	// ActionShare is the making of a link.
	ActionShare = "share"
)

// Actions returns every action.
func Actions() []string { return []string{ActionRead, ActionList, ActionShare} }

// ParseAction reads an action as people write it; empty means ActionRead.
func ParseAction(text string) (string, error) {
	if text == "" {
		return ActionRead, nil
	}
	for _, a := range Actions() {
		if a == text {
			return a, nil
		}
	}
	return "", fmt.Errorf("action %q must be one of %s", text, strings.Join(Actions(), ", "))
}
