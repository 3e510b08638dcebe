package link

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"golang.org/x/crypto/bcrypt"
	"golang.org/x/text/language"

	"securefiles/authz"
	"securefiles/internal/page"
	"securefiles/internal/state"
	"securefiles/pathguard"
)

// ConfirmPath is where the form of a page is sent, below the service's own prefix.
const ConfirmPath = "/_securefiles/link"

// Bounds of what a page takes.
const (
	maxForm     = 16 << 10
	maxPassword = 72 // bytes: bcrypt reads no more
	// attempts at a link's password, of an address, at once and then in each span; and
	// allAttempts of all of them, beyond which each address has one.
	attempts    = 10
	allAttempts = 100
	attemptsIn  = 10 * time.Minute
	// networkBits are how much of an IPv6 address counts: whoever has a network of them
	// has many addresses (RFC 6177).
	networkBits = 48
	// maxHashing is how many passwords are checked at a time.
	maxHashing = 2
)

// words are what a page says, in a language.
type words struct {
	File, Size, Until, Left, Password, Download      string
	Confirm, ConfirmText, NeedsPassword              string
	Expired, UsedUp, Revoked, EndedText              string
	WrongPassword, TooMany, Failed, FailedText, Time string
	Made, MadeText, NotMade, NotMadeText, Link       string
	Decimal                                          string
}

// tongues are the languages of pages, and languages what they say, in the same order.
var tongues = []language.Tag{language.English, language.German}

func languages() []words {
	return []words{{
		File: "File", Size: "Size", Until: "Until", Left: "Downloads left", Password: "Password", Download: "Download",
		Confirm: "Download a file", ConfirmText: "Somebody has shared this file with you.", NeedsPassword: "Somebody has shared a file with you. It is protected by a password.",
		Expired: "This link has expired", UsedUp: "This link has been used up", Revoked: "This link was withdrawn", EndedText: "Ask whoever sent it to you for another one.",
		WrongPassword: "This is not the password.", TooMany: "There were too many attempts. Wait a few minutes, and try again.",
		Failed: "This link cannot be opened", FailedText: "Open it again as it was sent to you.", Time: "2 January 2006, 15:04 MST", Decimal: ".",
		Made: "Your link", MadeText: "Whoever has this link can download the file. It is shown this once: copy it.", Link: "Link",
		NotMade: "There is no link", NotMadeText: "Go back to the folder, and try again. It may be that you may no longer share this file.",
	}, {
		File: "Datei", Size: "Größe", Until: "Bis", Left: "Verbleibende Downloads", Password: "Passwort", Download: "Herunterladen",
		Confirm: "Datei herunterladen", ConfirmText: "Diese Datei wurde für Sie freigegeben.", NeedsPassword: "Für Sie wurde eine Datei freigegeben. Sie ist mit einem Passwort geschützt.",
		Expired: "Dieser Link ist abgelaufen", UsedUp: "Dieser Link ist verbraucht", Revoked: "Dieser Link wurde zurückgezogen", EndedText: "Bitten Sie den Absender um einen neuen.",
		WrongPassword: "Das ist nicht das Passwort.", TooMany: "Das waren zu viele Versuche. Warten Sie einige Minuten und versuchen Sie es noch einmal.",
		Failed: "Dieser Link lässt sich nicht öffnen", FailedText: "Öffnen Sie ihn noch einmal so, wie Sie ihn bekommen haben.", Time: "02.01.2006, 15:04 MST", Decimal: ",",
		Made: "Ihr Link", MadeText: "Wer diesen Link hat, kann die Datei herunterladen. Er wird nur dieses Mal gezeigt: Kopieren Sie ihn.", Link: "Link",
		NotMade: "Es gibt keinen Link", NotMadeText: "Gehen Sie zurück zum Ordner und versuchen Sie es noch einmal. Vielleicht dürfen Sie diese Datei nicht mehr freigeben.",
	}}
}

// PageOptions are what Pages can do without.
type PageOptions struct {
	// Template is what they look like; nil means the service's own.
	Template *page.Template
	// Size tells how many bytes a file of a download has, where that can be known; nil
	// knows none.
	Size func(download, path string) (bytes int64, ok bool)
	// Logger is told of a template that cannot show a page.
	Logger *slog.Logger
}

// Pages shows what a person is asked or told about a link, and takes the answer. It is
// safe for concurrent use.
type Pages struct {
	links     *Links
	downloads *authz.Downloads
	opts      PageOptions
	match     language.Matcher
	words     []words
	hashing   chan struct{}
	crossSite *http.CrossOriginProtection
}

// NewPages returns the pages of links.
func NewPages(links *Links, downloads *authz.Downloads, opts *PageOptions) (*Pages, error) {
	if links == nil || downloads == nil {
		return nil, errors.New("pages need links and downloads")
	}
	p := &Pages{
		links: links, downloads: downloads, hashing: make(chan struct{}, maxHashing), crossSite: http.NewCrossOriginProtection(),
		match: language.NewMatcher(tongues), words: languages(),
	}
	if opts != nil {
		p.opts = *opts
	}
	if p.opts.Template == nil {
		var err error
		if p.opts.Template, err = NewTemplate(""); err != nil {
			return nil, err
		}
	}
	p.opts.Logger = cmp.Or(p.opts.Logger, slog.New(slog.DiscardHandler))
	return p, nil
}

// view is what the page shows, and what a template of one's own may use.
type view struct {
	T                    words
	Lang                 string // en or de
	Kind                 string // link, password, ended, failed or made
	Title, Text, Problem string
	// File, Size, Until and Left are empty where nothing is told of the file.
	File, Size, Until, Left string
	// Action and URL are there where there is something to answer: a form is sent to
	// Action by POST, with URL as url and, where Password is true, a password.
	Action, URL string
	Password    bool
	// Link is one that was made.
	Link string
}

// Render makes the page that belongs to an outcome, in a language that the request
// accepts; false means that there is none.
func (p *Pages) Render(ctx context.Context, out *authz.Outcome) ([]byte, bool, error) {
	v, t := p.begin(out.Question.Header)
	v.Kind = string(out.Page)
	switch out.Page {
	case authz.PageEnded:
		v.end(out.Reason)
	case authz.PageLink, authz.PagePassword:
		v.Title, v.Text = t.Confirm, t.ConfirmText
		v.Action, v.URL = ConfirmPath, out.Question.Target
		if v.Password = out.Page == authz.PagePassword; v.Password {
			v.Text = t.NeedsPassword
		}
		if err := p.describe(ctx, &v, out); err != nil {
			return nil, false, err
		}
	default:
		return nil, false, nil
	}
	body, err := p.render(ctx, &v)
	return body, err == nil, err
}

// end says that a link has ended, and nothing of its file: it may not have been for
// whoever reads this.
func (v *view) end(why authz.Reason) {
	v.Kind, v.Text = string(authz.PageEnded), v.T.EndedText
	v.Title = map[authz.Reason]string{authz.ReasonExpired: v.T.Expired, authz.ReasonUsedUp: v.T.UsedUp, authz.ReasonRevoked: v.T.Revoked}[why]
}

// describe tells of the file that a link opens.
func (p *Pages) describe(ctx context.Context, v *view, out *authz.Outcome) error {
	s := out.Principal.Scope
	if s == nil {
		return errors.New("there is no link to show")
	}
	v.File, v.Until = out.Question.Path.Base(), s.Expires.Format(v.T.Time)
	if s.Filename != "" {
		v.File = s.Filename
	}
	if p.opts.Size != nil {
		if size, ok := p.opts.Size(out.Question.Download.Name, out.Question.Path.String()); ok && size >= 0 {
			v.Size = strings.Replace(humanize.IBytes(uint64(size)), ".", v.T.Decimal, 1)
		}
	}
	if s.Uses > 0 {
		_, left, err := p.links.opts.Store.Use(ctx, state.Use{Link: s.ID, Max: s.Uses, Until: s.Expires, Look: true})
		if err != nil {
			return fmt.Errorf("look at the uses of a link: %w", err)
		}
		v.Left = strconv.Itoa(left)
	}
	return nil
}

func (p *Pages) begin(h http.Header) (view, words) {
	tags, _, _ := language.ParseAcceptLanguage(h.Get("Accept-Language")) // what is no language is English
	_, i, _ := p.match.Match(tags...)
	return view{T: p.words[i], Lang: tongues[i].String()}, p.words[i]
}

func (p *Pages) render(ctx context.Context, v *view) ([]byte, error) {
	body, err := p.opts.Template.Write(v)
	if body != nil && err != nil {
		p.opts.Logger.ErrorContext(ctx, "the template of links cannot show a page, so the service's own is shown", "error", err)
		err = nil
	}
	if err != nil {
		return nil, fmt.Errorf("write a page: %w", err)
	}
	return body, nil
}

// ServeHTTP takes the form of a page: what a person has confirmed, and the password. It
// answers 303, to the file, with cookies by which the browser may use the link; or the
// page again. What keeps a page out of caches and frames is the caller's to set.
func (p *Pages) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	problem := func(words) string { return "" }
	if r.Method != http.MethodPost || p.isCrossSite(r) {
		p.answer(w, r, http.StatusForbidden, nil, problem)
		return
	}
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	if err := r.ParseForm(); err != nil {
		p.answer(w, r, http.StatusBadRequest, nil, problem)
		return
	}
	target := r.PostForm.Get("url")
	c, d, path, err := p.read(r.Context(), target)
	if err != nil {
		var link *authz.LinkError
		switch {
		case !errors.As(err, &link):
			p.answer(w, r, http.StatusServiceUnavailable, nil, problem)
		case link.Page == authz.PageEnded:
			p.ended(w, r, link.Reason)
		default:
			p.answer(w, r, http.StatusForbidden, nil, problem)
		}
		return
	}
	if c.Password {
		ok, late, err := p.isPassword(r.Context(), c.ID, r.Header.Get("X-Real-Ip"), r.PostForm.Get("password"))
		switch {
		case err != nil:
			p.answer(w, r, http.StatusServiceUnavailable, nil, problem)
			return
		case late:
			p.answer(w, r, http.StatusTooManyRequests, nil, func(t words) string { return t.TooMany })
			return
		case !ok:
			p.answer(w, r, http.StatusForbidden, &target, func(t words) string { return t.WrongPassword })
			return
		}
	}
	cookies, err := p.links.Confirmed(r.Header, c, r.Header.Get("X-Original-Scheme") == "https", d.URL, ConfirmPath)
	if err != nil {
		p.answer(w, r, http.StatusServiceUnavailable, nil, problem)
		return
	}
	for _, cookie := range cookies {
		http.SetCookie(w, cookie)
	}
	token, err := Token(target)
	if err != nil {
		p.answer(w, r, http.StatusForbidden, nil, problem)
		return
	}
	w.Header().Set("Location", path.URL(d.URL)+"?"+Parameter+"="+token)
	w.WriteHeader(http.StatusSeeOther)
}

// isCrossSite reports whether another site sent the form. A page without a referrer has no
// origin to tell; over https, and on this host, browsers say in another header that it is
// the same site. Over http nobody can tell, and whoever could forge the form has the link.
func (p *Pages) isCrossSite(r *http.Request) bool {
	if r.Header.Get("Origin") == "null" && r.Header.Get("Sec-Fetch-Site") == "" {
		return false
	}
	return p.crossSite.Check(r) != nil
}

// read finds out what a link opens, and that it is one now.
func (p *Pages) read(ctx context.Context, target string) (*Claims, *authz.Download, pathguard.Path, error) {
	fail := func(err error) (*Claims, *authz.Download, pathguard.Path, error) {
		return nil, nil, pathguard.Path{}, err
	}
	d, path, err := p.downloads.Find(target)
	if err == nil {
		path, err = d.Object(path)
	}
	if err != nil {
		return fail(refused("", "it is for no file"))
	}
	token, err := Token(target)
	if errors.Is(err, authz.ErrNoCredentials) {
		err = refused("", "there is no link")
	}
	if err != nil {
		return fail(err)
	}
	c, err := p.links.Read(token)
	if err == nil {
		err = p.links.check(ctx, c)
	}
	if err != nil {
		return fail(err)
	}
	if !c.scope().Names(d.Name, path.String()) {
		return fail(refused(c.ID, "it is for something else"))
	}
	return c, d, path, nil
}

// isPassword checks a link's password. Late means that there were too many attempts.
func (p *Pages) isPassword(ctx context.Context, id, address, password string) (ok, late bool, err error) {
	store := p.links.opts.Store
	if store == nil {
		return false, false, errors.New("nothing keeps the passwords of links: set state.file or state.redis")
	}
	if late, err = isLate(ctx, store, id, address); late || err != nil {
		return false, late, err
	}
	hash, err := store.PasswordOf(ctx, id)
	if err != nil {
		return false, false, fmt.Errorf("look a password up: %w", err)
	}
	if hash == "" || len(password) > maxPassword {
		return false, false, nil
	}
	select {
	case p.hashing <- struct{}{}:
		defer func() { <-p.hashing }()
	case <-ctx.Done():
		return false, false, ctx.Err()
	}
	return bcrypt.CompareHashAndPassword([]byte(hash), []byte(password)) == nil, false, nil
}

// isLate takes an attempt at a link's password, or reports that there were too many. They
// are counted by address: nobody else can use up those of whom the link is for. What all
// addresses together may try leaves each of them its first one.
func isLate(ctx context.Context, store Store, id, address string) (bool, error) {
	who := "unknown"
	if ip, err := netip.ParseAddr(address); err == nil {
		if ip = ip.Unmap().WithZone(""); ip.Is6() {
			ip = netip.PrefixFrom(ip, networkBits).Masked().Addr()
		}
		who = ip.String()
	}
	charge := func(key string, limit int64) state.Charge {
		return state.Charge{Kind: state.Rate, Key: "password/" + id + key, Limit: limit, Period: attemptsIn, Cost: 1}
	}
	quotas, err := store.Reserve(ctx, "", []state.Charge{charge("/"+who, attempts), charge("", allAttempts)})
	if err == nil && !quotas[0].Over && quotas[1].Over {
		quotas, err = store.Reserve(ctx, "", []state.Charge{charge("/"+who, attempts), charge("/"+who+"/first", 1)})
	}
	if err != nil {
		return false, fmt.Errorf("count attempts: %w", err)
	}
	return quotas[0].Over || quotas[1].Over, nil
}

// HashPassword returns what the state keeps of a link's password, of 1 to 72 bytes.
func HashPassword(password string) (string, error) {
	if password == "" || len(password) > maxPassword {
		return "", fmt.Errorf("a link's password has 1 to %d bytes", maxPassword)
	}
	hash, err := bcrypt.GenerateFromPassword([]byte(password), 12)
	if err != nil {
		return "", fmt.Errorf("hash a password: %w", err)
	}
	return string(hash), nil
}

// ended says that a link has ended while its page was open.
func (p *Pages) ended(w http.ResponseWriter, r *http.Request, why authz.Reason) {
	v, _ := p.begin(r.Header)
	v.end(why)
	p.show(w, r, http.StatusGone, &v)
}

// answer shows a page in the place of a file. Where the URL is there, its form can be sent
// again.
func (p *Pages) answer(w http.ResponseWriter, r *http.Request, status int, url *string, problem func(words) string) {
	v, t := p.begin(r.Header)
	v.Kind, v.Title, v.Text, v.Problem = "failed", t.Failed, t.FailedText, problem(t)
	if url != nil {
		v.Kind, v.Title, v.Text, v.Action, v.URL, v.Password = "password", t.Confirm, t.NeedsPassword, ConfirmPath, *url, true
	}
	p.show(w, r, status, &v)
}

// made shows a link that was made, or, where it is nil, that there is none.
func (p *Pages) made(w http.ResponseWriter, r *http.Request, status int, link *madeLink, file string) {
	v, t := p.begin(r.Header)
	v.Kind, v.Title, v.Text = "failed", t.NotMade, t.NotMadeText
	if link != nil {
		v.Kind, v.Title, v.Text, v.Link, v.File, v.Until = "made", t.Made, t.MadeText, link.URL, file, link.Expires.Format(t.Time)
	}
	p.show(w, r, status, &v)
}

func (p *Pages) show(w http.ResponseWriter, r *http.Request, status int, v *view) {
	body, err := p.render(r.Context(), v)
	if err != nil {
		http.Error(w, http.StatusText(http.StatusServiceUnavailable), http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write(body) // whoever is gone reads nothing
}
