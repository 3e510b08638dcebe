package link

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"securefiles/authz"
	"securefiles/internal/state"
	"securefiles/pathguard"
)

// APIPath is where links are made, listed and ended over HTTP, below the service's own
// prefix; a link's own is below it.
const APIPath = "/_securefiles/links"

const (
	maxRequest = 16 << 10
	defaultTTL = 24 * time.Hour
)

// A Keeper keeps which links were made, and which ended.
type Keeper interface {
	Links(context.Context) ([]state.Link, error)
	Made(context.Context, state.Link) error
	Revoke(context.Context, state.Revocation) error
}

// A Decider is asked what a maker may do.
type Decider interface {
	Decide(context.Context, authz.Query) (authz.Decision, error)
}

// APIParts are what an API is made of; all are needed but Site, Challenge and Pages.
type APIParts struct {
	Links     *Links
	Downloads *authz.Downloads
	// Callers finds out who asks, by the service's own sources; a link is no caller.
	Callers authz.Authenticator
	Policy  Decider
	Keeper  Keeper
	// Site is what the URLs of links begin with.
	Site string
	// Challenge is WWW-Authenticate for whoever is not known.
	Challenge string
	// Pages answer the form of a page; nil takes none.
	Pages *Pages
}

// An API lets people and applications make links by themselves, list theirs, and end them.
// It is safe for concurrent use.
type API struct {
	APIParts
	mux       *http.ServeMux
	crossSite *http.CrossOriginProtection
	hashing   chan struct{}
}

// NewAPI returns an API of links.
func NewAPI(p APIParts) (*API, error) {
	if p.Links == nil || p.Downloads == nil || p.Callers == nil || p.Policy == nil || p.Keeper == nil {
		return nil, errors.New("the API of links needs links, downloads, callers, a policy, and what keeps links")
	}
	a := &API{APIParts: p, mux: http.NewServeMux(), crossSite: http.NewCrossOriginProtection(), hashing: make(chan struct{}, maxHashing)}
	a.mux.HandleFunc("POST /links", a.asked(a.post))
	a.mux.HandleFunc("GET /links", a.asked(a.list))
	a.mux.HandleFunc("/links", notAllowed("GET, POST"))
	a.mux.HandleFunc("DELETE /links/{id}", a.asked(a.end))
	a.mux.HandleFunc("/links/{id}", notAllowed("DELETE"))
	a.mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		problem(w, http.StatusNotFound, "there is nothing here")
	})
	return a, nil
}

// ServeHTTP answers a request as nginx hands it on: /links, and /links/ID.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Referrer-Policy", "no-referrer")
	a.mux.ServeHTTP(w, r)
}

// A newLink is what is asked for.
type newLink struct {
	Download  string     `json:"download,omitempty"`
	Path      string     `json:"path"`
	TTL       int64      `json:"ttl,omitempty"` // seconds
	NotBefore *time.Time `json:"not_before,omitempty"`
	// Groups are those of the maker's that the link is to have.
	Groups    []string `json:"groups,omitempty"`
	Recipient string   `json:"recipient,omitempty"`
	Networks  []string `json:"networks,omitempty"`
	Uses      int      `json:"uses,omitempty"`
	Filename  string   `json:"filename,omitempty"`
	Rate      int64    `json:"rate,omitempty"`
	Password  string   `json:"password,omitempty"`
}

// A made link is told once: nobody keeps its URL.
type madeLink struct {
	ID      string    `json:"id"`
	URL     string    `json:"url"`
	Direct  string    `json:"direct,omitempty"`
	Expires time.Time `json:"expires"`
}

// A listed link is one of the caller's.
type listedLink struct {
	ID        string    `json:"id"`
	Download  string    `json:"download"`
	Path      string    `json:"path"`
	Recipient string    `json:"recipient,omitempty"`
	Issued    time.Time `json:"issued"`
	Expires   time.Time `json:"expires"`
	Uses      int       `json:"uses,omitempty"`
	Used      int       `json:"used,omitempty"`
	Password  bool      `json:"password,omitempty"`
	Revoked   bool      `json:"revoked,omitempty"`
}

// asked calls a handler with who asks.
func (a *API) asked(handle func(http.ResponseWriter, *http.Request, *authz.Question, authz.Principal)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if err := a.crossSite.Check(r); err != nil {
			problem(w, http.StatusForbidden, "the request comes from another site's page")
			return
		}
		host := r.Host
		if name, _, err := net.SplitHostPort(host); err == nil {
			host = name
		}
		q := &authz.Question{
			Method: r.Method, Target: APIPath, Action: authz.ActionShare, Host: strings.ToLower(host), Header: r.Header,
			ID: r.Header.Get("X-Request-Id"), Time: a.Links.opts.Now(), Download: a.Downloads.All()[0],
		}
		q.IP, _ = netip.ParseAddr(r.Header.Get("X-Real-Ip")) // none behind a unix socket
		p, err := authz.Identify(r.Context(), a.Callers, q)
		var bad *authz.CredentialsError
		switch {
		case errors.As(err, &bad) && bad.Forbidden:
			problem(w, http.StatusForbidden, "who asks is known, and may not be here")
		case bad != nil, errors.Is(err, authz.ErrReservedSubject), err == nil && p.IsAnonymous():
			if a.Challenge != "" {
				w.Header().Set("WWW-Authenticate", a.Challenge)
			}
			problem(w, http.StatusUnauthorized, "who asks is not known: log in, or send credentials")
		case err != nil:
			unavailable(w)
		default:
			handle(w, r, q, p)
		}
	}
}

// form makes a link to the file that the form of a page names, and shows it. A browser
// tells whose page that is, or there is no link.
func (a *API) form(w http.ResponseWriter, r *http.Request, q *authz.Question, maker authz.Principal) {
	w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
	if r.Header.Get("Origin") == "" && r.Header.Get("Sec-Fetch-Site") != "same-origin" { // another site's was refused already
		a.Pages.made(w, r, http.StatusForbidden, nil, "")
		return
	}
	r.Body = http.MaxBytesReader(w, r.Body, maxRequest)
	path, isFile := "", false
	if r.ParseForm() == nil {
		path = r.PostForm.Get("path")
		isFile = path != "" && !strings.HasSuffix(path, "/")
	}
	if !isFile {
		a.Pages.made(w, r, http.StatusBadRequest, nil, "")
		return
	}
	made, status, _ := a.create(r.Context(), q, maker, &newLink{Download: r.PostForm.Get("download"), Path: path})
	if made != nil && a.Site == "" {
		made.URL = r.Header.Get("X-Original-Scheme") + "://" + r.Host + made.URL // as it was asked, by whom it is for
	}
	a.Pages.made(w, r, status, made, path[strings.LastIndexByte(path, '/')+1:])
}

// post makes a link.
func (a *API) post(w http.ResponseWriter, r *http.Request, q *authz.Question, maker authz.Principal) {
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); a.Pages != nil && err == nil && kind == "application/x-www-form-urlencoded" {
		a.form(w, r, q, maker)
		return
	}
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/json" {
		problem(w, http.StatusUnsupportedMediaType, "the body is application/json")
		return
	}
	var asked newLink
	decoder := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxRequest))
	decoder.DisallowUnknownFields()
	err := decoder.Decode(&asked)
	if err == nil && decoder.Decode(new(any)) != io.EOF {
		err = errors.New("something stands after the object")
	}
	if wrong := (*json.UnmarshalTypeError)(nil); errors.As(err, &wrong) && wrong.Field != "" {
		err = fmt.Errorf("%s is no %s: `securefiles schema links` says what each is", wrong.Field, wrong.Value)
	}
	if err != nil {
		problem(w, http.StatusBadRequest, "the body is no link to make: "+err.Error())
		return
	}
	made, status, detail := a.create(r.Context(), q, maker, &asked)
	switch {
	case status == http.StatusServiceUnavailable:
		unavailable(w)
	case made == nil:
		problem(w, status, detail)
	default:
		w.Header().Set("Location", APIPath+"/"+made.ID)
		answer(w, http.StatusCreated, "application/json", made)
	}
}

// create makes a link, or says by a status and a sentence why there is none.
func (a *API) create(ctx context.Context, q *authz.Question, maker authz.Principal, asked *newLink) (made *madeLink, status int, detail string) {
	c, d, path, err := a.claims(asked, maker)
	if err != nil {
		return nil, http.StatusUnprocessableEntity, err.Error()
	}
	for _, action := range []string{authz.ActionShare, authz.ActionRead} {
		ok, err := a.may(ctx, q, maker, d.Name, path.String(), action)
		if err != nil {
			return nil, http.StatusServiceUnavailable, ""
		}
		if !ok {
			return nil, http.StatusForbidden, "you may not " + action + " this"
		}
	}
	kept := c.Kept()
	if c.Password {
		if kept.PasswordHash, err = a.hash(ctx, asked.Password); err != nil {
			return nil, http.StatusServiceUnavailable, ""
		}
	}
	token, err := a.Links.keys.Sign("", c)
	if err == nil {
		err = a.Keeper.Made(ctx, kept)
	}
	if err != nil {
		return nil, http.StatusServiceUnavailable, ""
	}
	at := path.URL(d.URL)
	if strings.HasSuffix(c.Path, "/") {
		at = at[:strings.LastIndexByte(at, '/')+1]
	}
	made = &madeLink{ID: c.ID, URL: a.Site + at + "?" + Parameter + "=" + token, Expires: c.Expires.UTC()}
	if c.Uses > 0 && !c.Password {
		made.Direct = made.URL + "&" + DirectParameter + "=1"
	}
	return made, http.StatusCreated, ""
}

// claims are what a link that is asked for says; of a directory, the path is one of a file
// that might be below.
func (a *API) claims(asked *newLink, maker authz.Principal) (*Claims, *authz.Download, pathguard.Path, error) {
	fail := func(err error) (*Claims, *authz.Download, pathguard.Path, error) {
		return nil, nil, pathguard.Path{}, err
	}
	file := asked.Path
	if strings.HasSuffix(file, "/") {
		file += "file"
	}
	path, err := pathguard.New(file)
	if err != nil {
		return fail(fmt.Errorf("path: %w", err))
	}
	d := a.Downloads.All()[0]
	switch {
	case asked.Download != "":
		if d, err = a.Downloads.Named(asked.Download); err != nil {
			return fail(errors.New("download: there is none of this name"))
		}
	case len(a.Downloads.All()) > 1:
		return fail(errors.New("download: there are several: name one"))
	}
	ttl := time.Duration(asked.TTL) * time.Second
	if asked.TTL == 0 {
		ttl = min(defaultTTL, a.Links.opts.MaxTTL)
	}
	if most := int64(a.Links.opts.MaxTTL / time.Second); asked.TTL < 0 || asked.TTL > most {
		return fail(fmt.Errorf("ttl: a link lasts 1 to %d seconds", most))
	}
	if path, err = d.Object(path); err != nil {
		return fail(fmt.Errorf("path: %w", err))
	}
	named := path.String()
	if strings.HasSuffix(asked.Path, "/") {
		named = strings.TrimSuffix(named, "file")
	}
	now := a.Links.opts.Now().Truncate(time.Second)
	c := &Claims{
		ID: rand.Text(), Subject: maker.Subject, Groups: asked.Groups, Download: d.Name, Path: named, Issued: now, Expires: now.Add(ttl),
		Recipient: asked.Recipient, Uses: asked.Uses, Filename: asked.Filename, Rate: asked.Rate, Password: asked.Password != "",
	}
	if asked.NotBefore != nil {
		c.NotBefore = asked.NotBefore.Truncate(time.Second)
	}
	for _, g := range asked.Groups {
		if !slices.Contains(maker.Groups, "@"+g) {
			return fail(errors.New("groups: you are not in one of them"))
		}
	}
	for _, text := range asked.Networks {
		network, err := netip.ParsePrefix(text)
		if err != nil {
			return fail(errors.New("networks: write networks such as 192.0.2.0/24"))
		}
		c.Networks = append(c.Networks, network.Masked())
	}
	if len(asked.Password) > maxPassword {
		return fail(fmt.Errorf("password: it has 1 to %d bytes", maxPassword))
	}
	return c, d, path, a.Links.Valid(c)
}

// may asks the policy.
func (a *API) may(ctx context.Context, q *authz.Question, who authz.Principal, download, path, action string) (bool, error) {
	query := q.Query(who)
	query.Object, query.Action, query.Domain = path, action, download
	d, err := a.Policy.Decide(ctx, query)
	return err == nil && d.Effect == authz.Allow, err
}

func (a *API) hash(ctx context.Context, password string) (string, error) {
	select {
	case a.hashing <- struct{}{}:
		defer func() { <-a.hashing }()
	case <-ctx.Done():
		return "", ctx.Err()
	}
	return HashPassword(password)
}

// list tells the caller's own links.
func (a *API) list(w http.ResponseWriter, r *http.Request, _ *authz.Question, caller authz.Principal) {
	all, err := a.Keeper.Links(r.Context())
	if err != nil {
		unavailable(w)
		return
	}
	mine := []listedLink{}
	for _, l := range all {
		if l.Subject == caller.Subject {
			mine = append(mine, listedLink{l.ID, l.Download, l.Path, l.Recipient, l.Issued.UTC(), l.Expires.UTC(), l.Uses, l.Used, l.Password, l.Revoked})
		}
	}
	answer(w, http.StatusOK, "application/json", mine)
}

// end ends a link of the caller's, or one to what the caller may share. Others are not
// there.
func (a *API) end(w http.ResponseWriter, r *http.Request, q *authz.Question, caller authz.Principal) {
	all, err := a.Keeper.Links(r.Context())
	if err != nil {
		unavailable(w)
		return
	}
	i := slices.IndexFunc(all, func(l state.Link) bool { return l.ID == r.PathValue("id") })
	if i < 0 {
		problem(w, http.StatusNotFound, "there is no such link")
		return
	}
	l := all[i]
	if l.Subject != caller.Subject {
		path := l.Path
		if strings.HasSuffix(path, "/") {
			path += "file"
		}
		ok, err := a.may(r.Context(), q, caller, l.Download, path, authz.ActionShare)
		if err != nil {
			unavailable(w)
			return
		}
		if !ok {
			problem(w, http.StatusNotFound, "there is no such link")
			return
		}
	}
	if err := a.Keeper.Revoke(r.Context(), state.Revocation{ID: l.ID, Before: q.Time, Until: l.Expires}); err != nil {
		unavailable(w)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

func notAllowed(methods string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Allow", methods)
		problem(w, http.StatusMethodNotAllowed, "possible are "+methods)
	}
}

func unavailable(w http.ResponseWriter) {
	w.Header().Set("Retry-After", "5")
	problem(w, http.StatusServiceUnavailable, "nobody can tell at present")
}

// A problemDetails says why there is no answer (RFC 9457).
type problemDetails struct {
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail"`
}

func problem(w http.ResponseWriter, status int, detail string) {
	answer(w, status, "application/problem+json", problemDetails{http.StatusText(status), status, detail})
}

func answer(w http.ResponseWriter, status int, kind string, value any) {
	w.Header().Set("Content-Type", kind)
	w.WriteHeader(status)
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false) // no browser takes this for a page, and URLs are as they are pasted
	_ = encoder.Encode(value)    // whoever is gone reads nothing
}
