package identity

import (
	"errors"
	"net/http"
	"strings"
)

// onlyCookie returns the value of a cookie that must come once, or "" where it
// did not come or is empty. nginx sends one Cookie header, whatever it got
// itself. A second cookie of the name, which a neighbour of the site's domain
// can set, is an error: servers differ in which of the two they take.
func onlyCookie(h http.Header, name string) (string, error) {
	line, err := onlyValue(h, "Cookie")
	if err != nil {
		return "", err
	}
	value, count := "", 0
	for pair := range strings.SplitSeq(line, ";") {
		key, v, _ := strings.Cut(pair, "=") // without a sign, some readers take it for an empty value
		if strings.Trim(key, " \t") == name {
			value = strings.Trim(v, " \t")
			count++
		}
	}
	if count > 1 {
		return "", errors.New("the cookie came more than once")
	}
	return value, nil
}

// maxCookieName bounds the name of a cookie, in bytes.
const maxCookieName = 256

// ValidCookieName says why a cookie cannot be read by that name, or returns
// nil. The message is a predicate.
func ValidCookieName(name string) error {
	isToken := func(r rune) bool { // RFC 6265 section 4.1.1
		return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || strings.ContainsRune("!#$%&'*+-.^_`|~", r)
	}
	if name == "" || len(name) > maxCookieName || strings.ContainsFunc(name, func(r rune) bool { return !isToken(r) }) {
		return errors.New("is not a cookie's name: letters, digits, -, _ and others of RFC 6265")
	}
	return nil
}
