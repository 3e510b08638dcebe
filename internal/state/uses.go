package state

import (
	"errors"
	"time"
)

// A Use is a request that a counted link is used for.
type Use struct {
	// Link is the link's id, Max how many downloads it is good for, and Until when it
	// ends.
	Link  string
	Max   int
	Until time.Time
	// Client tells whoever asks from others, as well as that can be told: what a page of
	// the service gave a browser (Sure), or an address.
	Client string
	Sure   bool
	// Request is the web server's id of the request.
	Request string
	// Continues says that the request goes on with a file that was begun: a range that does
	// not begin at its first byte.
	Continues bool
	// Look says that nothing is to be taken: HEAD, or somebody who asks.
	Look bool
}

// Uses is what a counted link was used for. A use is a download: its ranges, and another
// try after one that was cut short, are one use of one client.
type Uses struct {
	List []*OneUse `json:"uses"`
	// Until is when the link ends, and this can be forgotten.
	Until time.Time `json:"until"`
}

// OneUse is one download.
type OneUse struct {
	Client string    `json:"client"`
	Sure   bool      `json:"sure,omitempty"`
	Last   time.Time `json:"last"` // when it was asked for last
	// Request is the last request that began it.
	Request string `json:"request"`
	// Short says that the web server reported that it did not send all of it.
	Short bool `json:"short,omitempty"`
}

// useWindow is how long a client can go on with what it has begun.
const useWindow = 24 * time.Hour

// take counts a use. It reports whether the link is good for it, how many are left, and
// whether something has changed that must be kept.
func (u *Uses) take(use Use, now time.Time) (ok, changed bool, left int) {
	left = max(0, use.Max-len(u.List))
	for _, one := range u.List {
		if one.Request == use.Request && use.Request != "" { // nginx asks again
			return true, false, left
		}
	}
	for _, one := range u.List {
		if one.Client != use.Client || one.Sure != use.Sure || now.Sub(one.Last) >= useWindow {
			continue
		}
		if !use.Sure && !use.Continues && !one.Short {
			continue // of an address, another download
		}
		if use.Look {
			return true, false, left
		}
		one.Last = now
		if !use.Continues {
			one.Request, one.Short = use.Request, false
		}
		return true, true, left
	}
	if left == 0 {
		return false, false, 0
	}
	if use.Look {
		return true, false, left
	}
	u.List = append(u.List, &OneUse{Client: use.Client, Sure: use.Sure, Last: now, Request: use.Request})
	u.Until = use.Until
	return true, true, left - 1
}

// short notes that a request was not answered with all that it asked for.
func (u *Uses) short(request string) (changed bool) {
	for _, one := range u.List {
		if one.Request == request && !one.Short {
			one.Short = true
			return true
		}
	}
	return false
}

// What a store answers that keeps as much as it can.
var (
	errManyRevocations = errors.New("revoke: the state holds as many revocations as it can: end a key instead, or wait until some are over")
	errManyUses        = errors.New("the state holds as many counted links as it can")
	errManyLinks       = errors.New("keep a link: the state holds as many links as it can")
)

// A Revocation ends links: the one of an ID, or those that were made by Before and are a
// subject's, below a path of a download, or of a key.
type Revocation struct {
	ID       string    `json:"id,omitempty"`
	Subject  string    `json:"subject,omitempty"`
	Download string    `json:"download,omitempty"`
	Path     string    `json:"path,omitempty"`
	Key      string    `json:"key,omitempty"`
	Before   time.Time `json:"before"`
	// Until is when all these links have ended by themselves, and this can be forgotten.
	Until time.Time `json:"until"`
}

// A Link is one that was made here, or that somebody came with.
type Link struct {
	ID        string    `json:"id"`
	Subject   string    `json:"subject"`
	Download  string    `json:"download"`
	Path      string    `json:"path"`
	Recipient string    `json:"recipient,omitempty"`
	Key       string    `json:"key,omitempty"`
	Issued    time.Time `json:"issued"`
	Expires   time.Time `json:"expires"`
	Uses      int       `json:"uses,omitempty"`
	Password  bool      `json:"password,omitempty"`
	// Made says that it was made here, not only seen.
	Made bool `json:"made,omitempty"`
	// PasswordHash is what its password is checked against; it is told to nobody.
	PasswordHash string `json:"password_hash,omitempty"`
	// Used and Revoked are what has come of it.
	Used    int  `json:"used,omitempty"`
	Revoked bool `json:"revoked,omitempty"`
}

// ends reports whether the revocation is about the link.
func (r *Revocation) ends(l Link) bool {
	if r.ID != "" {
		return r.ID == l.ID
	}
	if l.Issued.After(r.Before) {
		return false
	}
	switch {
	case r.Subject != "":
		return r.Subject == l.Subject
	case r.Key != "":
		return r.Key == l.Key
	case r.Path != "":
		return r.Download == l.Download && isBelow(l.Path, r.Path)
	}
	return false
}

// isBelow reports whether a path is another one, or below it.
func isBelow(path, other string) bool {
	if n := len(other); n > 0 && other[n-1] == '/' {
		return len(path) >= n && path[:n] == other
	}
	return path == other || len(path) > len(other) && path[:len(other)+1] == other+"/"
}
