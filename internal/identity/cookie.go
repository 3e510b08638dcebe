package identity

import (
	"errors"
	"iter"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"
)

// cookies yields the names and values of a Cookie header.
func cookies(line string) iter.Seq2[string, string] {
	return func(yield func(name, value string) bool) {
		for pair := range strings.SplitSeq(line, ";") {
			name, value, _ := strings.Cut(pair, "=") // without a sign, some readers take it for an empty value
			if !yield(strings.Trim(name, " \t"), strings.Trim(value, " \t")) {
				return
			}
		}
	}
}

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
	for key, v := range cookies(line) {
		if key == name {
			value = v
			count++
		}
	}
	if count > 1 {
		return "", errCookieTwice
	}
	return value, nil
}

// Sessions that are too large for one cookie are split over several, numbered ones:
// _oauth2_proxy_0, VouchCookie_1of2, .AspNetCore.CookiesC1, next-auth.session-token.0.
var partNumber = regexp.MustCompile(`[._-]?[A-Za-z]?[0-9]{1,3}(?:of[0-9]{1,3})?$`)

// familyBase returns NAME of `NAME*`, the family of a cookie and its numbered parts,
// and whether it is such a name.
func familyBase(name string) (base string, isFamily bool) { return strings.CutSuffix(name, "*") }

// inFamily reports whether a cookie is NAME or one of its numbered parts.
func inFamily(base, name string) bool {
	rest, found := strings.CutPrefix(name, base)
	return found && (rest == "" || partNumber.FindString(rest) == rest)
}

// cookieFamily returns the cookies of a family in the order of their names, as they
// stand in a Cookie header, or "" where none came. Each must come once.
func cookieFamily(h http.Header, base string) (string, error) {
	line, err := onlyValue(h, "Cookie")
	if err != nil {
		return "", err
	}
	found := map[string]string{}
	for name, value := range cookies(line) {
		if !inFamily(base, name) {
			continue
		}
		if _, again := found[name]; again {
			return "", errCookieTwice
		}
		found[name] = value
	}
	var pairs []string
	for _, name := range slices.Sorted(maps.Keys(found)) {
		if found[name] != "" {
			pairs = append(pairs, name+"="+found[name])
		}
	}
	return strings.Join(pairs, "; "), nil
}

// unnamedPart reports whether a request has numbered parts of a cookie of the list
// that the list does not name, and returns the family that would.
func unnamedPart(h http.Header, names []string) (family string, found bool) {
	for _, name := range names {
		base, isFamily := familyBase(name)
		if isFamily {
			continue
		}
		base = strings.TrimSuffix(base, partNumber.FindString(base))
		for key := range cookies(strings.Join(h["Cookie"], ";")) {
			if base != "" && key != base && inFamily(base, key) && !slices.Contains(names, key) && !slices.Contains(names, base+"*") {
				return base + "*", true
			}
		}
	}
	return "", false
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
