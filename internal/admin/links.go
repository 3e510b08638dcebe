package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"time"

	"securefiles/internal/state"
)

// LinkState keeps links: those that were made and seen, and which were ended.
type LinkState interface {
	Links(context.Context) ([]state.Link, error)
	Made(context.Context, state.Link) error
	Revoke(context.Context, state.Revocation) error
	// IsRevoked and Use are what serving asks of a link, whether it is known or not.
	IsRevoked(context.Context, state.Link) (bool, error)
	Use(context.Context, state.Use) (ok bool, left int, err error)
}

const (
	// maxLink bounds what is said of a link, and maxExport what is restored, in bytes.
	maxLink   = 64 << 10
	maxExport = 4 << 30
	// longTime is how long what is about all that a store knows may take.
	longTime = 10 * time.Minute
)

// links answers GET /links: those that were made here or seen, and have not expired.
func (a *Admin) links(w http.ResponseWriter, r *http.Request) {
	list, err := a.opts.Links.Links(r.Context())
	if err != nil {
		respond(w, http.StatusServiceUnavailable, problem{err.Error()})
		return
	}
	if list == nil {
		list = []state.Link{}
	}
	respond(w, http.StatusOK, list)
}

// A linkNow is what has come of a link. Problem says why nobody can tell.
type linkNow struct {
	Revoked bool   `json:"revoked,omitempty"`
	Used    int    `json:"used,omitempty"`
	Problem string `json:"problem,omitempty"`
}

// look answers POST /links/look: what has come of a link that somebody has, which may not
// be known; it is as unknown afterwards.
func (a *Admin) look(w http.ResponseWriter, r *http.Request) {
	var l state.Link
	if !take(w, r, &l) {
		return
	}
	var now linkNow
	var err error
	now.Revoked, err = a.opts.Links.IsRevoked(r.Context(), l)
	if err == nil && l.Uses > 0 {
		var left int
		_, left, err = a.opts.Links.Use(r.Context(), state.Use{Link: l.ID, Max: l.Uses, Until: l.Expires, Look: true})
		now.Used = l.Uses - left
	}
	if err != nil {
		now = linkNow{Problem: err.Error()}
	}
	respond(w, http.StatusOK, now)
}

// made answers POST /links: a link that was made, as GET /links tells it, with the hash of
// its password.
func (a *Admin) made(w http.ResponseWriter, r *http.Request) {
	var l state.Link
	if !take(w, r, &l) {
		return
	}
	if l.ID == "" || l.Expires.IsZero() {
		respond(w, http.StatusBadRequest, problem{"a link needs an id and an end"})
		return
	}
	if err := a.opts.Links.Made(r.Context(), l); err != nil {
		respond(w, http.StatusServiceUnavailable, problem{err.Error()})
		return
	}
	respond(w, http.StatusOK, map[string]any{"id": l.ID})
}

// revoke answers POST /links/revoke: which links are to end.
func (a *Admin) revoke(w http.ResponseWriter, r *http.Request) {
	var end state.Revocation
	if !take(w, r, &end) {
		return
	}
	if end.ID == "" && end.Subject == "" && end.Key == "" && (end.Download == "" || end.Path == "") {
		respond(w, http.StatusBadRequest, problem{"say which links: an id, a subject, a key, or a download and a path"})
		return
	}
	if err := a.opts.Links.Revoke(r.Context(), end); err != nil {
		respond(w, http.StatusServiceUnavailable, problem{err.Error()})
		return
	}
	respond(w, http.StatusOK, map[string]any{"revoked": true})
}

// accept answers POST /state/accept: what the store holds now is what counts.
func (a *Admin) accept(w http.ResponseWriter, r *http.Request) {
	if err := a.opts.Accept(r.Context()); err != nil {
		respond(w, http.StatusServiceUnavailable, problem{err.Error()})
		return
	}
	respond(w, http.StatusOK, map[string]any{"accepted": true})
}

// CountState keeps what limits count.
type CountState interface {
	Counts(context.Context) ([]state.Count, error)
	Reset(ctx context.Context, key string) (bool, error)
	// Export returns all that is known, and Restore adds what is not.
	Export(ctx context.Context, passwords bool) iter.Seq2[state.Entry, error]
	Restore(context.Context, iter.Seq2[state.Entry, error]) (int, error)
}

// counts answers GET /state: what limits count now, by key.
func (a *Admin) counts(w http.ResponseWriter, r *http.Request) {
	list, err := a.opts.Counts.Counts(r.Context())
	if err != nil {
		respond(w, http.StatusServiceUnavailable, problem{err.Error()})
		return
	}
	if list == nil {
		list = []state.Count{}
	}
	respond(w, http.StatusOK, list)
}

// reset answers POST /state/reset: a key that counts from nothing again.
func (a *Admin) reset(w http.ResponseWriter, r *http.Request) {
	var asked state.Count
	if !take(w, r, &asked) {
		return
	}
	ok, err := a.opts.Counts.Reset(r.Context(), asked.Key)
	if err != nil {
		respond(w, http.StatusServiceUnavailable, problem{err.Error()})
		return
	}
	respond(w, http.StatusOK, map[string]any{"reset": ok})
}

// backup answers GET /state/backup: a copy of the store's file.
func (a *Admin) backup(w http.ResponseWriter, _ *http.Request) {
	unhurried(w)
	w.Header().Set("Content-Type", "application/octet-stream")
	if err := a.opts.Backup(w); err != nil {
		panic(http.ErrAbortHandler) // a part of a copy is none
	}
}

// compact answers POST /state/compact: how many bytes the store's file had, and has.
func (a *Admin) compact(w http.ResponseWriter, _ *http.Request) {
	unhurried(w)
	before, after, err := a.opts.Compact()
	if err != nil {
		respond(w, http.StatusServiceUnavailable, problem{err.Error()})
		return
	}
	respond(w, http.StatusOK, map[string]any{"before": before, "after": after})
}

// export answers GET /state/export: all that the store knows, as lines of JSON; with the
// hashes of links' passwords for `?passwords=true`.
func (a *Admin) export(w http.ResponseWriter, r *http.Request) {
	unhurried(w)
	w.Header().Set("Content-Type", "application/x-ndjson")
	if err := state.Write(w, a.opts.Counts.Export(r.Context(), r.URL.Query().Get("passwords") == "true"), time.Now()); err != nil {
		panic(http.ErrAbortHandler) // a part of it is none
	}
}

// restore answers POST /state/restore: lines of an export, which are added to what the
// store knows.
func (a *Admin) restore(w http.ResponseWriter, r *http.Request) {
	unhurried(w)
	n, err := a.opts.Counts.Restore(r.Context(), state.Read(http.MaxBytesReader(w, r.Body, maxExport)))
	if err != nil {
		respond(w, http.StatusUnprocessableEntity, problem{fmt.Sprintf("after %d entries: %v", n, err)})
		return
	}
	respond(w, http.StatusOK, map[string]any{"restored": n})
}

// unhurried gives an answer, and what it is an answer to, as long as a large store takes.
func unhurried(w http.ResponseWriter) {
	c, end := http.NewResponseController(w), time.Now().Add(longTime)
	_ = errors.Join(c.SetReadDeadline(end), c.SetWriteDeadline(end)) // or it is as short as others
}

// take reads what a request says, and answers where it cannot be read.
func take(w http.ResponseWriter, r *http.Request, into any) bool {
	decoder := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxLink))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(into); err != nil {
		respond(w, http.StatusBadRequest, problem{fmt.Sprintf("the body cannot be read: %v", err)})
		return false
	}
	return true
}
