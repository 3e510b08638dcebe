package link

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"securefiles/authz"
	"securefiles/internal/state"
)

// DirectParameter beside a link says that no page is to be shown: it is for programs.
const DirectParameter = "direct"

// cookiePrefix begins the name of the cookie that remembers what a person has confirmed;
// the link's id follows.
const cookiePrefix = "securefiles_link_"

// cookieTTL is how long that is remembered, if the link lasts so long.
const cookieTTL = 24 * time.Hour

// A Store keeps what links were used for.
type Store interface {
	// IsRevoked reports whether a link was ended.
	IsRevoked(context.Context, state.Link) (bool, error)
	// Seen notes a link that somebody came with.
	Seen(state.Link)
	// Use counts a use before it is answered.
	Use(context.Context, state.Use) (ok bool, left int, err error)
	// Secret signs what browsers are given.
	Secret() []byte
	// Reserve counts attempts at a password, and PasswordOf is the hash that they are
	// checked against; empty where none is known.
	Reserve(ctx context.Context, id string, charges []state.Charge) ([]state.Quota, error)
	PasswordOf(ctx context.Context, id string) (string, error)
}

// Limit counts the use of a link that policy has allowed; it is an authz.Limiter. A link
// that is counted, or that has a password, is used by a browser once a person has
// confirmed it on the service's page, and by a program that says so. Its error is an
// *authz.LinkError, or says that it could not be told.
func (l *Links) Limit(ctx context.Context, out *authz.Outcome) error {
	s, q := out.Principal.Scope, out.Question
	if s == nil || s.Uses == 0 && !s.Password {
		return nil
	}
	store := l.opts.Store
	if store == nil {
		return errors.New("the link is counted, or has a password, and nothing keeps that: set state.file or state.redis")
	}
	use := state.Use{
		Link: s.ID, Max: s.Uses, Until: s.Expires, Client: q.IP.Unmap().WithZone("").String(), Request: q.ID,
		Continues: continues(q), Look: q.Method == http.MethodHead,
	}
	nonce, confirmed := l.confirmed(q.Header, s.ID)
	switch {
	case confirmed:
		use.Client, use.Sure = nonce, true
	case s.Password:
		return &authz.LinkError{Reason: authz.ReasonConfirm, ID: s.ID, Page: authz.PagePassword, Problem: "its password must be given on its page first"}
	case !isDirect(q.Target):
		use.Look = true
		if ok, _, err := store.Use(ctx, use); err != nil || !ok {
			return usedUp(s.ID, err)
		}
		return &authz.LinkError{Reason: authz.ReasonConfirm, ID: s.ID, Page: authz.PageLink, Problem: "it must be confirmed on its page first"}
	}
	if s.Uses == 0 {
		return nil
	}
	if ok, _, err := store.Use(ctx, use); err != nil || !ok {
		return usedUp(s.ID, err)
	}
	return nil
}

func usedUp(id string, err error) error {
	if err != nil {
		return fmt.Errorf("count the use of a link: %w", err)
	}
	return &authz.LinkError{Reason: authz.ReasonUsedUp, ID: id, Page: authz.PageEnded, Problem: "it has been used as often as it may be"}
}

// continues reports whether a request goes on with a file that was begun: none of the parts
// of its range is the first byte (RFC 9110 section 14.1.2). With If-Range all of the file
// may be sent instead, so that is none.
func continues(q *authz.Question) bool {
	list, ok := strings.CutPrefix(q.Range, "bytes=")
	if !ok || q.IfRange != "" {
		return false
	}
	for one := range strings.SplitSeq(list, ",") {
		first, _, ok := strings.Cut(strings.Trim(one, " \t"), "-")
		if n, err := strconv.ParseUint(first, 10, 63); !ok || err != nil || n == 0 { // the last bytes may be all there are
			return false
		}
	}
	return true
}

// isDirect reports whether a raw target says that it is a program's.
func isDirect(target string) bool {
	_, query, _ := strings.Cut(target, "?")
	for one := range strings.SplitSeq(query, "&") {
		if one == DirectParameter+"=1" {
			return true
		}
	}
	return false
}

// Confirmed are the cookies by which a browser can use a link that a person has confirmed,
// one for each URL path below which it is sent. Who has one already, by the headers, stays
// who they are: the button pressed again is no other download. Secure says that the site is
// reached over https.
func (l *Links) Confirmed(h http.Header, c *Claims, secure bool, paths ...string) ([]*http.Cookie, error) {
	if l.opts.Store == nil {
		return nil, errors.New("confirm a link: nothing keeps its use: set state.file or state.redis")
	}
	nonce, again := l.confirmed(h, c.ID)
	if !again {
		random := make([]byte, 16)
		if _, err := rand.Read(random); err != nil {
			return nil, fmt.Errorf("confirm a link: %w", err)
		}
		nonce = base64.RawURLEncoding.EncodeToString(random)
	}
	now := l.opts.Now()
	until := now.Add(cookieTTL)
	if c.Expires.Before(until) {
		until = c.Expires
	}
	text := nonce + "." + strconv.FormatInt(until.Unix(), 10)
	var cookies []*http.Cookie
	for _, path := range paths {
		cookies = append(cookies, &http.Cookie{
			Name: cookiePrefix + c.ID, Value: text + "." + l.sign(c.ID, text), Path: path, MaxAge: max(1, int(until.Sub(now)/time.Second)),
			HttpOnly: true, Secure: secure, SameSite: http.SameSiteLaxMode,
		})
	}
	return cookies, nil
}

// confirmed reads the cookie of a link: who has confirmed it.
func (l *Links) confirmed(h http.Header, id string) (nonce string, ok bool) {
	for _, line := range h["Cookie"] {
		cookies, err := http.ParseCookie(line)
		if err != nil {
			continue
		}
		for _, c := range cookies {
			if c.Name != cookiePrefix+id {
				continue
			}
			i := strings.LastIndexByte(c.Value, '.')
			if i < 0 || !hmac.Equal([]byte(c.Value[i+1:]), []byte(l.sign(id, c.Value[:i]))) {
				continue
			}
			nonce, until, _ := strings.Cut(c.Value[:i], ".")
			if second, err := strconv.ParseInt(until, 10, 64); err == nil && l.opts.Now().Before(time.Unix(second, 0)) {
				return nonce, true
			}
		}
	}
	return "", false
}

// sign is what only the service can say of a link and a text.
func (l *Links) sign(id, text string) string {
	mac := hmac.New(sha256.New, l.opts.Store.Secret())
	fmt.Fprintf(mac, "confirmed\x00%s\x00%s", id, text)
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}
