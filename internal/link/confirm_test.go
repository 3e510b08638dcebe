package link

import (
	"context"
	"errors"
	"net/http"
	"net/netip"
	"path/filepath"
	"testing"
	"time"

	"securefiles/authz"
	"securefiles/internal/state"
)

// A useBench is links whose uses a disk counts.
type useBench struct {
	t *testing.T
	*Links
	disk *state.Disk
	now  time.Time
	n    int
}

func newUseBench(t *testing.T) *useBench {
	t.Helper()
	b := &useBench{t: t, now: noon}
	clock := func() time.Time { return b.now }
	var err error
	if b.disk, err = state.OpenDisk(filepath.Join(t.TempDir(), "state.db"), &state.MemoryOptions{Now: clock}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.disk.Close() })
	if b.Links, err = New(keysOf(t, makeKey(t, "HS256")), &Options{Now: clock, Store: b.disk}); err != nil {
		t.Fatal(err)
	}
	return b
}

// use asks about one request with a link of these claims.
func (b *useBench) use(c *Claims, edit ...func(*authz.Question)) string {
	b.t.Helper()
	b.n++
	q := &authz.Question{Method: "GET", ID: string(rune('a' + b.n)), Target: "/downloads/a?link=x", IP: netip.MustParseAddr("192.0.2.1"), Header: http.Header{}}
	for _, e := range edit {
		e(q)
	}
	err := b.Limit(b.t.Context(), &authz.Outcome{Question: q, Principal: authz.Principal{Subject: c.Subject, Scope: c.scope()}})
	var link *authz.LinkError
	switch {
	case errors.As(err, &link):
		return string(link.Reason) + " " + string(link.Page)
	case err != nil:
		return "error"
	}
	return "ok"
}

func direct(q *authz.Question)              { q.Target += "&direct=1" }
func ranged(r string) func(*authz.Question) { return func(q *authz.Question) { q.Range = r } }
func at(ip string) func(*authz.Question) {
	return func(q *authz.Question) { q.IP = netip.MustParseAddr(ip) }
}
func head(q *authz.Question) { q.Method = "HEAD" }
func with(c *http.Cookie) func(*authz.Question) {
	return func(q *authz.Question) { q.Header.Add("Cookie", "a=b; "+c.Name+"="+c.Value) }
}

func (b *useBench) confirm(c *Claims) *http.Cookie {
	b.t.Helper()
	cookies, err := b.Confirmed(nil, c, true, "/downloads/")
	if err != nil {
		b.t.Fatal(err)
	}
	cookie := cookies[0]
	if !cookie.HttpOnly || !cookie.Secure || cookie.SameSite != http.SameSiteLaxMode || cookie.Path != "/downloads/" || cookie.MaxAge <= 0 {
		b.t.Errorf("cookie %+v", cookie)
	}
	return cookie
}

// A counted link shows its page first: what previews links and scans mail uses nothing up.
func TestCountedLinkIsUsedOncePersonsConfirm(t *testing.T) {
	b := newUseBench(t)
	c := some()
	c.Uses = 1
	for range 3 {
		if got := b.use(c); got != "confirm link" {
			t.Errorf("a browser: %s", got)
		}
		if got := b.use(c, ranged("bytes=0-32767")); got != "confirm link" {
			t.Errorf("a preview: %s", got)
		}
		if got := b.use(c, head); got != "confirm link" {
			t.Errorf("HEAD: %s", got)
		}
	}
	mine := b.confirm(c)
	for _, edit := range [][]func(*authz.Question){{head}, nil, {ranged("bytes=5-")}, {at("192.0.2.9")}, nil} {
		if got := b.use(c, append(edit, with(mine))...); got != "ok" {
			t.Errorf("confirmed: %s", got)
		}
	}
	if got := b.use(c, with(b.confirm(c))); got != "used-up ended" {
		t.Errorf("a second person: %s", got)
	}
	if got := b.use(c); got != "used-up ended" {
		t.Errorf("a third one's page: %s", got)
	}
	if got := b.use(c, direct); got != "used-up ended" {
		t.Errorf("a program: %s", got)
	}
}

func TestProgramUsesALink(t *testing.T) {
	b := newUseBench(t)
	c := some()
	c.Uses = 1
	if got := b.use(c, direct, head); got != "ok" {
		t.Errorf("HEAD: %s", got)
	}
	if got := b.use(c, direct); got != "ok" {
		t.Errorf("the first: %s", got)
	}
	first := string(rune('a' + b.n))
	if got := b.use(c, direct, ranged("bytes=100-")); got != "ok" {
		t.Errorf("it goes on: %s", got)
	}
	for name, edit := range map[string][]func(*authz.Question){
		"again": {}, "another goes on": {at("192.0.2.9"), ranged("bytes=100-")}, "all in two ranges": {ranged("bytes=0-9,10-")},
		"all of what has changed": {ranged("bytes=100-"), func(q *authz.Question) { q.IfRange = `"another"` }}, "the last bytes": {ranged("bytes=-1000000")}, "another unit": {ranged("pages=1-")},
	} {
		if got := b.use(c, append(edit, direct)...); got != "used-up ended" {
			t.Errorf("%s: %s", name, got)
		}
	}
	if err := b.disk.Short(t.Context(), first); err != nil { // nginx says that it was cut short
		t.Fatal(err)
	}
	if got := b.use(c, direct); got != "ok" {
		t.Errorf("it tries again: %s", got)
	}
	if got := b.use(c, direct); got != "used-up ended" {
		t.Errorf("and once more: %s", got)
	}
}

func TestLinkWithAPassword(t *testing.T) {
	b := newUseBench(t)
	c := some()
	c.Password = true
	for _, edit := range [][]func(*authz.Question){nil, {direct}, {head}} {
		if got := b.use(c, edit...); got != "confirm password" {
			t.Errorf("without: %s", got)
		}
	}
	if got := b.use(c, with(b.confirm(c))); got != "ok" {
		t.Errorf("given: %s", got)
	}
}

// A cookie is for its link, of this service, and ends.
func TestForgedCookies(t *testing.T) {
	b := newUseBench(t)
	c, other := some(), some()
	c.Password, other.Password, other.ID = true, true, "l2"
	good := b.confirm(c)
	if got := b.use(c, with(&http.Cookie{Name: good.Name, Value: "x"}), with(good)); got != "ok" {
		t.Errorf("beside a bad one: %s", got)
	}
	for name, cookie := range map[string]*http.Cookie{
		"of another link":     b.confirm(other),
		"that is called so":   {Name: good.Name, Value: b.confirm(other).Value},
		"of another service":  {Name: good.Name, Value: newUseBench(t).confirm(c).Value},
		"with another end":    {Name: good.Name, Value: good.Value[:23] + "9" + good.Value[24:]},
		"without a signature": {Name: good.Name, Value: "a.9999999999"},
		"with an empty one":   {Name: good.Name, Value: "a.9999999999."},
		"that is empty":       {Name: good.Name},
	} {
		if got := b.use(c, with(cookie)); got != "confirm password" {
			t.Errorf("%s: %s", name, got)
		}
	}
	b.now = noon.Add(time.Hour)
	if got := b.use(c, with(good)); got != "confirm password" {
		t.Errorf("at its end: %s", got)
	}
}

func TestNothingIsCountedWithoutAState(t *testing.T) {
	l, err := New(keysOf(t, makeKey(t, "HS256")), nil)
	if err != nil {
		t.Fatal(err)
	}
	c := some()
	out := &authz.Outcome{Question: &authz.Question{Method: "GET", Target: "/a?link=x&direct=1"}, Principal: authz.Principal{Scope: c.scope()}}
	if err := l.Limit(context.Background(), out); err != nil {
		t.Errorf("a plain link: %v", err)
	}
	c.Uses = 1
	out.Principal.Scope = c.scope()
	var link *authz.LinkError
	if err := l.Limit(context.Background(), out); err == nil || errors.As(err, &link) {
		t.Errorf("a counted link: %v", err)
	}
}

func TestLinkIsRevoked(t *testing.T) {
	b := newUseBench(t)
	token, err := b.keys.Sign("", some())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ask(b.Links, token); err != nil {
		t.Fatal(err)
	}
	if err := b.disk.Revoke(t.Context(), state.Revocation{ID: "l1", Until: noon.Add(time.Hour)}); err != nil {
		t.Fatal(err)
	}
	if _, err := ask(b.Links, token); reasonOf(err) != authz.ReasonRevoked {
		t.Errorf("%v", err)
	}
	broken, err := New(b.keys, &Options{Now: func() time.Time { return noon }, Store: away{b.disk}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ask(broken, token); reasonOf(err) != authz.ReasonUnavailable {
		t.Errorf("a state that is away: %v", err)
	}
}

type away struct{ *state.Disk }

func (away) IsRevoked(context.Context, state.Link) (bool, error) {
	return false, errors.New("away")
}
