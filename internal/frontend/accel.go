package frontend

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"mime"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"securefiles/authz"
	"securefiles/pathguard"
)

// A Kind says how a web server asks about a download, and how it is told what to send.
type Kind string

// The kinds.
const (
	// NGINX asks by auth_request. An empty Kind is this one.
	NGINX Kind = "nginx"
	// Classic is nginx that passes the download itself on: X-Accel-Redirect,
	// percent-encoded, because nginx decodes it.
	Classic Kind = "classic"
	// Apache has mod_xsendfile: X-Sendfile, the file in literal bytes.
	Apache Kind = "apache"
	// Lighttpd has mod_proxy: X-Sendfile, the file percent-encoded, because it decodes.
	Lighttpd Kind = "lighttpd"
	// Caddy is told the path below the root: X-Securefiles-Location, in literal bytes.
	Caddy Kind = "caddy"
)

// Reports says that the web server tells what it delivered, and holds to a rate.
func (k Kind) Reports() bool { return k == NGINX || k == "" || k == Classic }

// A Front is the web server before a download.
type Front struct {
	Kind Kind
	// URL is the download's.
	URL string
	// Root is the directory of the download, absolute and clean. Behind Apache, Lighttpd and Caddy
	// the service looks there whether a file is one, since those web servers follow
	// symbolic links.
	Root string
	// FollowSymlinks lets them.
	FollowSymlinks bool
	// Embed is the Cross-Origin-Resource-Policy that the service answers with behind
	// them.
	Embed string
}

// own says that the web server makes no more of an answer than the file.
func (f Front) own() bool { return f.Kind == Apache || f.Kind == Lighttpd || f.Kind == Caddy }

// front is the web server before a download.
func (a *AuthRequest) front(d *authz.Download) Front {
	front := a.opts.Fronts[d.Name]
	if front.Kind == "" {
		front.Kind = NGINX
	}
	return front
}

// The headers that web servers obey, in canonical form.
const (
	headerAccel     = "X-Accel-Redirect"
	headerAccelRate = "X-Accel-Limit-Rate"
	headerSendfile  = "X-Sendfile"
)

// Download answers a web server that passes the download itself on, and does not ask
// about it: with what that obeys, or with the status that the client gets and its own
// page. A range is the web server's to cut.
func (a *AuthRequest) Download(w http.ResponseWriter, r *http.Request) {
	a.serve(w, r, &passedOn{a: a, front: a.frontOf(r.Header.Get(headerURI)), printed: digestForm.MatchString(r.Header.Get(headerSnippet))})
}

// frontOf is the web server before the download that a target begins like, if it is one
// of Fronts.
func (a *AuthRequest) frontOf(target string) Front {
	for _, front := range a.opts.Fronts {
		if strings.HasPrefix(target, front.URL) {
			return front
		}
	}
	return Front{}
}

// passedOn is the form of a download that is passed on to the service.
type passedOn struct {
	a       *AuthRequest
	front   Front
	printed bool   // nginx has what `securefiles nginx` prints, not what somebody wrote
	missing bool   // nothing is there that may be sent or shown
	page    []byte // of the service's own, in the place of a refusal, or of a directory
	kind    string // of the page
}

// id is nginx's. Another web server hands on what a client says, and a request by the id
// of another takes nothing of limits: its requests have ids of the service's own.
func (p *passedOn) id(r *http.Request) string {
	if p.front.own() {
		return newID()
	}
	return r.Header.Get(headerID)
}

func (p *passedOn) prepare(ctx context.Context, out *authz.Outcome) error {
	d := out.Download()
	if d == nil {
		return nil
	}
	if front := p.a.front(d); front != p.front || front.Kind != Classic && !front.own() {
		return &misuseError{http.StatusBadRequest, fmt.Sprintf("download %q is behind front: %s, and was passed on to /download", d.Name, front.Kind)}
	}
	if d.Store != nil {
		return fmt.Errorf("download %q has a store, and front: %s sends files of a directory alone", d.Name, p.front.Kind)
	}
	if !out.Allowed() {
		if out.Page == "" {
			return nil
		}
		body, kind, ok, err := p.a.render(ctx, out)
		if ok {
			p.page, p.kind = body, kind
		}
		if p.missing = out.Listed() && errors.Is(err, fs.ErrNotExist); p.missing {
			return nil
		}
		return err
	}
	if p.front.Kind == Classic {
		return nil
	}
	if s := out.Principal.Scope; s != nil && (s.Uses > 0 || s.Rate > 0) {
		return fmt.Errorf("the link counts its uses, or bounds the rate, and front: %s tells nothing of what it sends, and holds to no rate", p.front.Kind)
	}
	if p.front.Kind == Caddy && strings.Contains(out.Question.Path.String(), "?") {
		p.missing = true // it would open what stands before it
		return nil
	}
	if _, err := pathguard.New(p.front.Root); err != nil {
		return fmt.Errorf("root %q cannot be told to front: %s: %w", p.front.Root, p.front.Kind, err)
	}
	there, err := p.front.holds(out.Question.Path.String())
	p.missing = !there
	return err
}

// holds reports whether there is a regular file that no symbolic link leads to. Whoever
// writes below the root can make one afterwards.
func (f Front) holds(path string) (bool, error) {
	look := os.Lstat
	if f.FollowSymlinks {
		look = os.Stat
	}
	at := f.Root
	segments := strings.Split(strings.TrimPrefix(path, "/"), "/")
	for i, segment := range segments {
		at += "/" + segment
		info, err := look(at)
		switch {
		case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR), errors.Is(err, syscall.ENAMETOOLONG), errors.Is(err, syscall.ELOOP):
			return false, nil
		case err != nil:
			return false, fmt.Errorf("look whether there is a file to send: %w", err)
		case i < len(segments)-1 && !info.IsDir(), i == len(segments)-1 && !info.Mode().IsRegular():
			return false, nil
		}
	}
	return true, nil
}

func (p *passedOn) status(out *authz.Outcome) int {
	switch {
	case p.missing:
		return http.StatusNotFound
	case !out.Allowed():
		return statusOf(out)
	}
	return http.StatusOK
}

// write sets what the web server obeys beside an allow alone: it would obey it beside a
// refusal too.
func (p *passedOn) write(h http.Header, out *authz.Outcome, status int) []byte {
	send := out.Allowed() && !p.missing
	if send {
		write(h, out, http.StatusNoContent)
		if !p.printed || p.front.own() { // nginx would have them beside those of a missing file, which it looks for afterwards
			h.Set("Content-Disposition", h.Get(headerDisposition))
			h.Set("Cache-Control", h.Get(headerCacheControl))
		}
		h["Content-Type"] = nil // the web server knows it by the file's name
	} else {
		write(h, out, status)
		h.Set("Cache-Control", "no-store")
	}
	h.Set("X-Content-Type-Options", "nosniff")
	if p.front.own() {
		if csp := h.Get(headerCSP); csp != "" {
			h.Set("Content-Security-Policy", csp)
		}
		h.Set("Cross-Origin-Resource-Policy", p.front.Embed)
		h.Set(headerID, out.Question.ID)
	}
	if p.front.Kind != Classic { // it may be that nobody knows whose question it is
		for _, name := range forNGINX { // others would hand it on
			delete(h, name)
		}
	}
	switch path := out.Question.Path; {
	case !send && p.page != nil && out.Page != "":
		pageHeaders(h, out)
		h.Set("Content-Type", p.kind)
		return p.page
	case !send:
		h.Set("Content-Type", "text/plain; charset=utf-8")
		return []byte(http.StatusText(status) + "\n")
	case p.front.Kind == Classic:
		h.Set(headerAccel, path.URL(out.Question.Download.Internal))
		h.Set(headerAccelRate, h.Get(headerLimitRate))
	case p.front.Kind == Apache:
		h.Set("Content-Type", cmp.Or(mime.TypeByExtension(filepath.Ext(path.Base())), "application/octet-stream")) // mod_xsendfile sends none
		h.Set(headerSendfile, p.front.Root+path.String())
	case p.front.Kind == Lighttpd:
		root, _ := pathguard.New(p.front.Root) // prepare made it
		h.Set(headerSendfile, path.URL(root.URL("/")+"/"))
	case p.front.Kind == Caddy:
		h.Set(headerLocation, path.String())
	}
	return nil
}

// forNGINX are the headers of an answer that mean something to nginx alone.
var forNGINX = []string{headerLocation, headerDisposition, headerCacheControl, headerCSP, headerLimitRate, headerDecision, headerReason, headerUser, headerPage}

// newID is a request's id where the web server makes none: as nginx's.
func newID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // it never fails
	return fmt.Sprintf("%x", b)
}
