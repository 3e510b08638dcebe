// Package pathguard turns the raw target of a request into the one path that
// nginx opens, or refuses it.
//
// [Parse] is the only place where a client's path is decoded. A path has one
// accepted spelling; anything else is refused, never repaired, so what policy
// sees is byte for byte what nginx opens. Only this package can make a [Path],
// so no other can hold an unchecked one.
//
// It compares bytes and knows no file system: it does not protect against a
// symbolic link, which is nginx's to refuse, nor against names that differ only
// in case or Unicode normalisation, which are different files.
package pathguard

import (
	"errors"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Limits of a path, in bytes. They are Linux's NAME_MAX and PATH_MAX.
const (
	MaxSegment = 255
	MaxPath    = 4096
)

// A Path is a canonical path below a download: it begins with a slash, has no
// empty, `.` or `..` segment, and holds nothing that a header cannot carry.
// The zero Path is none.
type Path struct{ s string }

// An Error says why a target was refused. It quotes no byte of the client's.
type Error struct{ Reason string }

func (e *Error) Error() string { return "the path " + e.Reason }

// ErrOutside says that a target is not below the prefix.
var ErrOutside = errors.New("the path belongs to no download")

// Parse returns the path that a raw request target names below a prefix.
//
// The target is nginx's $request_uri: the origin-form of RFC 9112 section
// 3.2.1, undecoded, with its query, which is cut at the first `?`. The prefix
// is a download's public URL prefix, with a slash at both ends; it is compared
// byte for byte, undecoded. A target elsewhere gives ErrOutside, any other
// refusal an *Error.
func Parse(target, prefix string) (Path, error) {
	raw, ok := strings.CutPrefix(target, prefix)
	if !ok || !strings.HasSuffix(prefix, "/") {
		return Path{}, ErrOutside
	}
	if i := strings.IndexByte(raw, '?'); i >= 0 {
		raw = raw[:i]
	}
	decoded, err := decode(raw)
	if err != nil {
		return Path{}, err
	}
	return New(decoded)
}

// decode undoes percent-encoding, once.
func decode(raw string) (string, error) {
	var b strings.Builder
	b.Grow(len(raw) + 1)
	b.WriteByte('/')
	for i := 0; i < len(raw); i++ {
		c := raw[i]
		switch {
		case c == '#':
			return "", &Error{"holds a raw #, where a fragment would begin"}
		case c <= ' ' || c == 0x7f:
			return "", &Error{"holds a raw blank or control byte"}
		case c == '%':
			if i+2 >= len(raw) || !isHex(raw[i+1]) || !isHex(raw[i+2]) {
				return "", &Error{"holds a % that two hexadecimal digits do not follow"}
			}
			c = unhex(raw[i+1])<<4 | unhex(raw[i+2])
			if c == '/' {
				return "", &Error{"holds an encoded slash"}
			}
			i += 2
		}
		b.WriteByte(c)
	}
	return b.String(), nil
}

func isHex(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F'
}

func unhex(c byte) byte {
	switch {
	case c >= 'a':
		return c - 'a' + 10
	case c >= 'A':
		return c - 'A' + 10
	default:
		return c - '0'
	}
}

// New returns a path that is decoded already, as an operator types it:
// `/project/plan.pdf`. The rules are those of Parse.
func New(path string) (Path, error) {
	switch {
	case len(path) > MaxPath:
		return Path{}, &Error{"is longer than 4096 bytes"}
	case path == "" || path[0] != '/':
		return Path{}, &Error{"does not begin with a slash"}
	case !utf8.ValidString(path):
		return Path{}, &Error{"is not valid UTF-8"}
	}
	for segment := range strings.SplitSeq(path[1:], "/") {
		if err := checkSegment(segment); err != nil {
			return Path{}, err
		}
	}
	return Path{path}, nil
}

func checkSegment(s string) error {
	switch {
	case s == "":
		return &Error{"has an empty segment"}
	case s == "." || s == "..":
		return &Error{"has a . or .. segment"}
	case len(s) > MaxSegment:
		return &Error{"has a segment longer than 255 bytes"}
	}
	for _, r := range s {
		switch {
		case r == '\\':
			return &Error{"holds a backslash"}
		case r < ' ' || 0x7f <= r && r <= 0x9f || r == '\u2028' || r == '\u2029':
			return &Error{"holds a control character"}
		}
	}
	first, _ := utf8.DecodeRuneInString(s)
	last, _ := utf8.DecodeLastRuneInString(s)
	if unicode.IsSpace(first) || unicode.IsSpace(last) {
		// HTTP trims blanks from a header's value: nginx would open another
		// file than policy saw.
		return &Error{"has a segment that begins or ends with a blank"}
	}
	return nil
}

// String returns the path's literal bytes: what policy sees and nginx opens.
func (p Path) String() string { return p.s }

// IsZero reports whether p is no path.
func (p Path) IsZero() bool { return p.s == "" }

// Base returns the last segment, the file's name.
func (p Path) Base() string { return p.s[strings.LastIndexByte(p.s, '/')+1:] }

// Location returns the URI below nginx's internal location, in literal bytes
// and not percent-encoded: nginx's rewrite takes a variable as it is. The
// prefix has a slash at both ends. The zero Path has no location: "".
func (p Path) Location(internal string) string {
	if p.IsZero() {
		return ""
	}
	return strings.TrimSuffix(internal, "/") + p.s
}

// URL returns the public URL path, percent-encoded as RFC 3986 section 3.3 has
// it. Parse of it gives p again.
func (p Path) URL(prefix string) string {
	if p.IsZero() {
		return ""
	}
	var b strings.Builder
	b.Grow(len(prefix) + 3*len(p.s))
	b.WriteString(strings.TrimSuffix(prefix, "/"))
	for i := range len(p.s) {
		if c := p.s[i]; c == '/' || isUnreserved(c) {
			b.WriteByte(c)
		} else {
			writeEscaped(&b, c)
		}
	}
	return b.String()
}

// isUnreserved reports whether c stands for itself in every URL (RFC 3986
// section 2.3).
func isUnreserved(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' ||
		c == '-' || c == '.' || c == '_' || c == '~'
}

func writeEscaped(b *strings.Builder, c byte) {
	const hex = "0123456789ABCDEF"
	b.WriteByte('%')
	b.WriteByte(hex[c>>4])
	b.WriteByte(hex[c&15])
}
