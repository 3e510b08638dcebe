package authz

import (
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strings"
)

// nextPlace stands in a login URL where the address to return to belongs.
const nextPlace = "{next}"

// maxNext bounds the address to return to, encoded: nginx reads at most 16 KiB
// of headers from an answer.
const maxNext = 4096

// loginForm is a path of this site, or an absolute URL, without a fragment.
// `//host` is neither: browsers take it for another site.
var loginForm = regexp.MustCompile(`^(https?://[A-Za-z0-9.:\[\]-]+)?(/(?:[A-Za-z0-9._~!$&()*+,;=:@%?{}-][A-Za-z0-9._~!$&()*+,;=:@%?{}/-]*)?)$`)

// A LoginPage is where browsers are sent that bring no credentials or wrong ones.
// A nil LoginPage is none.
type LoginPage struct{ before, after string }

// ParseLogin reads the URL of a login page: a path of this site (`/login/`), or
// `https://HOST/PATH`. `{next}` in its query stands for the path and query to
// return to, percent-encoded; without it, `next={next}` is added. A page inside
// a download is an error: nobody gets there without a login.
func ParseLogin(text string, downloads *Downloads) (*LoginPage, error) {
	m := loginForm.FindStringSubmatch(text)
	if m == nil {
		return nil, fmt.Errorf("%q is neither a path of this site (/login/) nor https://HOST/PATH, without a fragment", text)
	}
	if _, err := url.Parse(strings.Replace(text, nextPlace, "", 1)); err != nil {
		return nil, fmt.Errorf("%q is not a URL: its host, port or an escape in it is none", text)
	}
	path, _, _ := strings.Cut(m[2], "?")
	if strings.ContainsAny(path, "{}") || strings.ContainsAny(strings.Replace(text, nextPlace, "", 1), "{}") {
		return nil, fmt.Errorf("%q: {next} belongs into the query, once, and nothing else in braces: /login/?next={next}", text)
	}
	for i, d := range downloads.list {
		if m[1] == "" && strings.HasPrefix(path, d.URL) {
			return nil, fmt.Errorf("%q is inside downloads[%d], %s, where nobody gets without a login", text, i, d.URL)
		}
	}
	if !strings.Contains(text, nextPlace) {
		separator := "?"
		if strings.Contains(text, "?") {
			separator = "&"
		}
		text += separator + "next=" + nextPlace
	}
	before, after, _ := strings.Cut(text, nextPlace)
	return &LoginPage{before, after}, nil
}

// location returns where to send a browser, so that it comes back to the path or directory
// with the query of the raw target. The address to return to begins with the
// download's own prefix and is encoded as a whole: whatever a client wrote, it
// is a path on this site and one value of the query. What is too long to come
// back to is left out, the query first.
func (l *LoginPage) location(q *Question) string {
	next := q.Path.URL(q.Download.URL) + q.Dir.URL(q.Download.URL) // one of the two is empty
	_, query, _ := strings.Cut(q.Target, "?")
	for _, candidate := range []string{next + "?" + escapeQuery(query), next} {
		if escaped := url.QueryEscape(strings.TrimSuffix(candidate, "?")); len(escaped) <= maxNext {
			return l.before + escaped + l.after
		}
	}
	return l.before + url.QueryEscape("/") + l.after
}

// escapeQuery percent-encodes what RFC 3986 section 3.4 does not allow in a
// query, and the apostrophe: browsers leave some of it raw, and login pages
// print it.
func escapeQuery(query string) string {
	const digits = "0123456789ABCDEF"
	var b strings.Builder
	for i := range len(query) {
		c := query[i]
		if 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("-._~!$&()*+,;=:@/?%", c) >= 0 {
			b.WriteByte(c)
		} else {
			b.WriteByte('%')
			b.WriteByte(digits[c>>4])
			b.WriteByte(digits[c&15])
		}
	}
	return b.String()
}

// offerLogin sends a person with a browser to the login page instead of
// refusing. A program is refused, and so is a request with an Authorization
// header: a browser would send it again after the login, and be sent there for
// ever.
func (g *Guard) offerLogin(out *Outcome) *Outcome {
	q := out.Question
	var bad *CredentialsError
	refused := out.Reason == ReasonAnonymous || out.Reason == ReasonCredentials && !(errors.As(out.Err, &bad) && bad.Final)
	if refused && g.login != nil && q.Method == "GET" &&
		len(q.Header["Authorization"]) == 0 && acceptsHTML(q.Header["Accept"]) {
		out.Login = g.login.location(q)
	}
	return out
}

// acceptsHTML reports whether an Accept header (RFC 9110 section 12.5.1) names
// text/html, as browsers do when they load a page. `*/*` does not count: it is
// what programs send.
func acceptsHTML(accept []string) bool {
	for _, value := range accept {
		for item := range strings.SplitSeq(value, ",") {
			mediaType, _, _ := strings.Cut(item, ";")
			if strings.EqualFold(strings.Trim(mediaType, " \t"), "text/html") {
				return true
			}
		}
	}
	return false
}
