package frontend

import (
	"context"
	"errors"
	"io/fs"
	"net/http"

	"securefiles/authz"
)

// Pages shows the service's own pages in the place of refusals, and takes what people
// answer there.
type Pages interface {
	// Render makes the page of an outcome; false means that it has none.
	Render(context.Context, *authz.Outcome) (body []byte, ok bool, err error)
	// ServeHTTP takes the form of a page.
	http.Handler
}

// A Listing shows directories.
type Listing interface {
	// Render makes the page of a directory that may be shown, in the form that the request
	// asks for. An error is fs.ErrNotExist where there is no such directory.
	Render(context.Context, *authz.Outcome) (body []byte, contentType string, err error)
}

// Page answers nginx when it shows a page in the place of a refusal: the same question is
// decided again, and the page comes with its status. What is allowed by now is sent on to
// the file.
func (a *AuthRequest) Page(w http.ResponseWriter, r *http.Request) {
	q := &authz.Question{Time: a.opts.Now(), ID: r.Header.Get(headerID)} // the same one takes nothing twice, and can give it back
	if err := a.read(q, r); err != nil || a.opts.Pages == nil && a.opts.Listing == nil {
		http.Error(w, http.StatusText(http.StatusNotFound), http.StatusNotFound)
		return
	}
	out := a.guard.Check(r.Context(), q)
	listed := out.Listed() && a.opts.Listing != nil && out.Page == authz.PageListing
	if !listed { // nothing is sent
		out.GiveBack(r.Context())
	}
	h := w.Header()
	pageHeaders(h, out)
	if out.Allowed() {
		h.Set("Location", q.Target)
		w.WriteHeader(http.StatusSeeOther)
		return
	}
	body, contentType, ok, err := a.render(r.Context(), out)
	if listed && errors.Is(err, fs.ErrNotExist) {
		http.Error(w, http.StatusText(http.StatusNotFound), http.StatusNotFound)
		return
	}
	if err != nil {
		out.Reason, out.Err = authz.ReasonUnavailable, err
		a.journal.write(r.Context(), out, http.StatusServiceUnavailable, a.opts.Now())
		h.Set("Retry-After", retryAfter)
		http.Error(w, http.StatusText(http.StatusServiceUnavailable), http.StatusServiceUnavailable)
		return
	}
	status := statusOf(out)
	if !ok {
		http.Error(w, http.StatusText(status), status)
		return
	}
	h.Set("Content-Type", contentType)
	w.WriteHeader(status)
	_, _ = w.Write(body) // whoever is gone reads nothing
}

// pageHeaders keep a page out of caches, frames and other sites' logs, and run nothing.
func pageHeaders(h http.Header, out *authz.Outcome) {
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; img-src data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'")
	h.Set("Referrer-Policy", "no-referrer") // its address holds the link
	if out != nil && out.Listed() {         // a form on it is of this site, and a browser that may not say its origin cannot tell so
		h.Set("Referrer-Policy", "strict-origin")
	}
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Robots-Tag", "noindex")
}

// render makes the page that belongs to an outcome.
func (a *AuthRequest) render(ctx context.Context, out *authz.Outcome) (body []byte, contentType string, ok bool, err error) {
	switch {
	case out.Listed():
		if a.opts.Listing == nil || out.Page != authz.PageListing { // an archive has a location of its own in what is printed
			return nil, "", false, errors.New("a directory is to be shown, and nothing shows it so: has nginx what `securefiles nginx` prints?")
		}
		body, contentType, err = a.opts.Listing.Render(ctx, out)
		return body, contentType, err == nil, err
	case a.opts.Pages == nil:
		return nil, "", false, nil
	}
	body, ok, err = a.opts.Pages.Render(ctx, out)
	return body, "text/html; charset=utf-8", ok, err
}

// Form takes the form of a page.
func (a *AuthRequest) Form(w http.ResponseWriter, r *http.Request) {
	if a.opts.Pages == nil || !a.knows(r) {
		http.Error(w, http.StatusText(http.StatusNotFound), http.StatusNotFound)
		return
	}
	pageHeaders(w.Header(), nil)
	a.opts.Pages.ServeHTTP(w, r)
}

// API hands on what nginx passes to the service's own API.
func (a *AuthRequest) API(w http.ResponseWriter, r *http.Request) {
	if a.opts.API == nil || !a.knows(r) {
		http.Error(w, http.StatusText(http.StatusNotFound), http.StatusNotFound)
		return
	}
	a.opts.API.ServeHTTP(w, r)
}
