package link

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"securefiles/authz"
	"securefiles/internal/state"
)

// A pageBench is the pages of links whose uses a disk counts.
type pageBench struct {
	*useBench
	pages *Pages
}

func newPageBench(t *testing.T) *pageBench {
	t.Helper()
	b := newUseBench(t)
	downloads, err := authz.NewDownloads(&authz.Download{Name: "main", URL: "/downloads/", Internal: "/protected/", DenyStatus: 404})
	if err != nil {
		t.Fatal(err)
	}
	pages, err := NewPages(b.Links, downloads, nil)
	if err != nil {
		t.Fatal(err)
	}
	return &pageBench{b, pages}
}

// url is the link of claims.
func (b *pageBench) url(c *Claims) string {
	b.t.Helper()
	token, err := b.keys.Sign("", c)
	if err != nil {
		b.t.Fatal(err)
	}
	return "/downloads" + c.Path + "?link=" + token
}

// press sends the form of a page from an address, with the cookies that a browser would
// send there.
func (b *pageBench) press(link, password, address string, cookies ...*http.Cookie) *http.Response {
	b.t.Helper()
	r := httptest.NewRequest("POST", ConfirmPath, strings.NewReader(url.Values{"url": {link}, "password": {password}}.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("Sec-Fetch-Site", "same-origin")
	r.Header.Set("X-Real-Ip", address)
	for _, c := range cookies {
		if strings.HasPrefix(ConfirmPath, c.Path) {
			r.AddCookie(c)
		}
	}
	w := httptest.NewRecorder()
	b.pages.ServeHTTP(w, r)
	return w.Result()
}

// cookieOf is what a browser sends where files are.
func cookieOf(r *http.Response) *http.Cookie {
	for _, c := range r.Cookies() {
		if c.Path == "/downloads/" {
			return c
		}
	}
	return &http.Cookie{}
}

// A person who presses the button twice, or comes back to the page, downloads once.
func TestButtonPressedTwiceIsOneDownload(t *testing.T) {
	b := newPageBench(t)
	c := some()
	c.Uses = 2
	link := b.url(c)
	first := b.press(link, "", "192.0.2.1")
	if first.StatusCode != http.StatusSeeOther || len(first.Cookies()) != 2 {
		t.Fatalf("%d %v", first.StatusCode, first.Header)
	}
	again := b.press(link, "", "192.0.2.1", first.Cookies()...)
	for _, r := range []*http.Response{first, again, first} {
		if got := b.use(c, with(cookieOf(r))); got != "ok" {
			t.Errorf("one person: %s", got)
		}
	}
	if _, left, err := b.disk.Use(t.Context(), state.Use{Link: c.ID, Max: c.Uses, Until: c.Expires, Look: true}); err != nil || left != 1 {
		t.Errorf("%d left: %v", left, err)
	}
	if got := b.use(c, with(cookieOf(b.press(link, "", "192.0.2.1")))); got != "ok" {
		t.Errorf("another person: %s", got)
	}
	if got := b.use(c, with(cookieOf(b.press(link, "", "192.0.2.1")))); got != "used-up ended" {
		t.Errorf("a third one: %s", got)
	}
	// Who comes with a cookie that is none is somebody else.
	forged := *first.Cookies()[1]
	forged.Value = string('A'+(forged.Value[0]-'A'+1)%26) + forged.Value[1:]
	if got := b.use(c, with(cookieOf(b.press(link, "", "192.0.2.1", &forged)))); got != "used-up ended" {
		t.Errorf("with a forged cookie: %s", got)
	}
}

// Whoever has the link can use up their own attempts at its password, and nobody else's.
func TestPasswordAttemptsAreOfAnAddress(t *testing.T) {
	b := newPageBench(t)
	c := some()
	c.Password = true
	link := b.url(c)
	kept := c.Kept()
	var err error
	if kept.PasswordHash, err = HashPassword("correct horse"); err != nil {
		t.Fatal(err)
	}
	if err := b.disk.Made(t.Context(), kept); err != nil {
		t.Fatal(err)
	}
	wrong := strings.Repeat("x", 80) // it is no password, so that it is not hashed
	status := func(password, address string) int { t.Helper(); return b.press(link, password, address).StatusCode }
	for _, address := range []string{"192.0.2.1", "2001:db8:1::1"} {
		for i := range attempts {
			if got := status(wrong, address); got != http.StatusForbidden {
				t.Fatalf("attempt %d of %s: %d", i, address, got)
			}
		}
	}
	for _, address := range []string{"192.0.2.1", "::ffff:192.0.2.1", "2001:db8:1::1", "2001:db8:1:ffff::2"} {
		if got := status("correct horse", address); got != http.StatusTooManyRequests {
			t.Errorf("%s after that: %d", address, got)
		}
	}
	for _, address := range []string{"192.0.2.2", "2001:db8:2::1"} {
		if got := status("correct horse", address); got != http.StatusSeeOther {
			t.Errorf("the recipient at %s: %d", address, got)
		}
	}
	// All together have their bound; beyond it everybody has one attempt.
	for i := range allAttempts {
		if got := status(wrong, fmt.Sprintf("198.51.100.%d", i)); got != http.StatusForbidden {
			t.Fatalf("address %d: %d", i, got)
		}
	}
	if got := status(wrong, "203.0.113.1"); got != http.StatusForbidden {
		t.Errorf("the first of an address: %d", got)
	}
	if got := status("correct horse", "203.0.113.1"); got != http.StatusTooManyRequests {
		t.Errorf("its second: %d", got)
	}
	if got := status("correct horse", "203.0.113.2"); got != http.StatusSeeOther {
		t.Errorf("the recipient, while many try: %d", got)
	}
	b.now = noon.Add(attemptsIn)
	if got := status("correct horse", "192.0.2.1"); got != http.StatusSeeOther {
		t.Errorf("ten minutes later: %d", got)
	}
	// Those whose address is not known share one.
	for range attempts {
		status(wrong, "unix:")
	}
	if got := status("correct horse", ""); got != http.StatusTooManyRequests {
		t.Errorf("an address that is not known: %d", got)
	}
}

// A link that ends while its page is open says so.
func TestLinkEndsWhileItsPageIsOpen(t *testing.T) {
	b := newPageBench(t)
	c := some()
	c.Password = true
	link := b.url(c)
	says := func(want string, status int) {
		t.Helper()
		r := b.press(link, "x", "192.0.2.1")
		body, err := io.ReadAll(r.Body)
		if err != nil || r.StatusCode != status || !strings.Contains(string(body), want) || status == http.StatusGone && strings.Contains(string(body), "q3.pdf") || len(r.Cookies()) != 0 {
			t.Errorf("%d %s, want %d %s (%v)", r.StatusCode, body, status, want, err)
		}
	}
	says("This is not the password.", http.StatusForbidden)
	b.now = c.Expires
	says("This link has expired", http.StatusGone)
	b.now = noon
	if err := b.disk.Revoke(t.Context(), state.Revocation{ID: c.ID, Until: c.Expires}); err != nil {
		t.Fatal(err)
	}
	says("This link was withdrawn", http.StatusGone)
	link = link[:len(link)-3] + "AAA"
	says("This link cannot be opened", http.StatusForbidden)
}
