package admin

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"

	"securefiles/internal/state"
)

// LinkState keeps links: those that were made and seen, and which were ended.
type LinkState interface {
	Links(context.Context) ([]state.Link, error)
	Made(context.Context, state.Link) error
	Revoke(context.Context, state.Revocation) error
}

// maxLink bounds what is said of a link, in bytes.
const maxLink = 64 << 10

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
	w.Header().Set("Content-Type", "application/octet-stream")
	if err := a.opts.Backup(w); err != nil {
		panic(http.ErrAbortHandler) // a part of a copy is none
	}
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
