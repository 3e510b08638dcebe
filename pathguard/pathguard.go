// Package pathguard turns the request target of a download into the one path
// that policy judges and nginx opens, or refuses it.
//
// [Parse] reads what the client sent. There is one accepted spelling of the
// decoded path, and nothing is repaired: a path that would have to be cleaned is
// a second path, and two paths are how one file gets judged and another served.
// Only this package makes a [Path], so whoever holds one that is not zero may
// hand [Path.String] to a policy and [Path.Location] to nginx without looking
// again.
//
// An accepted path
//   - begins with a slash and has at least one segment; none is empty, `.` or
//     `..`, so it does not end with a slash;
//   - is valid UTF-8, without control characters (U+0000 to U+001F, U+007F to
//     U+009F) and without the line separators U+2028 and U+2029;
//   - holds no backslash;
//   - has no white space, as Unicode defines it, at either end of a segment:
//     HTTP trims space and tab around a header value, and readers of policies
//     trim U+00A0 and U+3000 as well;
//   - has at most 255 bytes in a segment and 4,096 in all, slashes included.
//
// It protects against nothing that is decided on the disk: symbolic links, case
// that a file system ignores, devices. Letters are compared as bytes: composed
// and decomposed forms, look-alikes, zero-width and bidirectional characters are
// left as they are and make different paths.
package pathguard

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	maxPath    = 4096 // bytes, PATH_MAX of Linux
	maxSegment = 255  // bytes, NAME_MAX of Linux
)

// An Error is a refused path.
type Error struct {
	// Reason is a constant sentence for the operator's log. It holds no byte
	// that a client sent.
	Reason string
}

// Error returns the reason.
func (e *Error) Error() string { return e.Reason }

// ErrOutside is the [*Error] of a target that is not below the prefix: another
// download may have it.
var ErrOutside error = &Error{Reason: "the target is not below the URL of a download"}

// A Path names a file below a download: `/project/plan.pdf`. Two are equal, with
// ==, exactly when nginx would open the same name. The zero Path names none.
type Path struct{ s string }

// Parse reads the target of a request, as nginx has it in $request_uri:
// undecoded, in origin form (RFC 9112 section 3.2.1), with its query. The prefix
// is the public URL of a download, `/downloads/`, with a slash at both ends; the
// target must begin with it byte for byte, unescaped. The query ends the path at
// the first question mark and is not read.
//
// The rest is percent-decoded exactly once (RFC 3986 section 2.1; a plus sign
// is a plus sign) and must then be a path as the package describes. An escaped
// slash, a malformed escape and a raw `#` are refused, and so are raw spaces and
// control bytes anywhere in the target, as nginx does from 1.21.1.
//
// Every error is an [*Error], and [ErrOutside] where the prefix does not match.
func Parse(target, prefix string) (Path, error) {
	subpath, err := subpathOf(target, prefix)
	if err != nil {
		return Path{}, err
	}
	return New(subpath)
}

// subpathOf returns a slash and what the target's path is below the prefix, decoded.
func subpathOf(target, prefix string) (string, error) {
	if !isPrefix(prefix) {
		return "", &Error{"the prefix does not begin and end with a slash"}
	}
	rest, ok := strings.CutPrefix(target, prefix)
	if !ok {
		return "", ErrOutside
	}
	for i := range len(rest) {
		switch c := rest[i]; {
		case c <= ' ' || c == 0x7f:
			return "", &Error{"the target holds a raw space or control byte"}
		case c == '#':
			return "", &Error{"the target holds a fragment"}
		}
	}
	raw, _, _ := strings.Cut(rest, "?")
	return decode(raw)
}

// decode returns a slash and the percent-decoded bytes of raw.
func decode(raw string) (string, error) {
	var b strings.Builder
	b.Grow(1 + len(raw))
	b.WriteByte('/')
	for i := 0; i < len(raw); i++ {
		c := raw[i]
		if c == '%' {
			if len(raw)-i < 3 {
				return "", &Error{"the path holds a malformed percent escape"}
			}
			high, low := unhex(raw[i+1]), unhex(raw[i+2])
			if high > 15 || low > 15 {
				return "", &Error{"the path holds a malformed percent escape"}
			}
			c = high<<4 | low
			// It would become a separator that the client did not write as one.
			if c == '/' {
				return "", &Error{"the path holds an escaped slash"}
			}
			i += 2
		}
		b.WriteByte(c)
	}
	return b.String(), nil
}

// unhex returns the value of a hexadecimal digit, and 255 for any other byte.
func unhex(c byte) byte {
	switch {
	case '0' <= c && c <= '9':
		return c - '0'
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10
	case 'A' <= c && c <= 'F':
		return c - 'A' + 10
	}
	return 255
}

// New reads a path that is not encoded, as an operator types it:
// `/project/plan.pdf`. The rules are those of [Parse] after decoding; `%`, `?`
// and `#` stand for themselves. Every error is an [*Error].
func New(subpath string) (Path, error) {
	segments, ok := strings.CutPrefix(subpath, "/")
	switch {
	case !ok:
		return Path{}, &Error{"the path does not begin with a slash"}
	case len(subpath) > maxPath:
		return Path{}, &Error{"the path is longer than 4096 bytes"}
	}
	for segment := range strings.SplitSeq(segments, "/") {
		if err := check(segment); err != nil {
			return Path{}, err
		}
	}
	return Path{subpath}, nil
}

// check refuses what must not stand between two slashes.
func check(segment string) error {
	switch {
	case segment == "":
		return &Error{"the path has an empty segment or ends with a slash"}
	case segment == "." || segment == "..":
		return &Error{"the path has a dot segment"}
	case len(segment) > maxSegment:
		return &Error{"the path has a segment longer than 255 bytes"}
	case !utf8.ValidString(segment):
		return &Error{"the path is not valid UTF-8"}
	case strings.IndexFunc(segment, isControl) >= 0:
		return &Error{"the path holds a control character"}
	case strings.IndexByte(segment, '\\') >= 0:
		return &Error{"the path holds a backslash"}
	case strings.TrimSpace(segment) != segment:
		return &Error{"the path has a blank at an end of a segment"}
	}
	return nil
}

// isControl also reports the two line separators that are not control
// characters to Unicode: they end a line in a log just the same.
func isControl(r rune) bool {
	return unicode.IsControl(r) || r == '\u2028' || r == '\u2029'
}

// isPrefix asks for both slashes. Without the last one `/downloads` would take
// `/downloads-old/a` for its own.
func isPrefix(s string) bool {
	return strings.HasPrefix(s, "/") && strings.HasSuffix(s, "/")
}

// IsZero reports whether p is the zero Path, which names no file.
func (p Path) IsZero() bool { return p == Path{} }

// String returns the path in literal bytes, `/project/plan.pdf`: what policies
// see and nginx opens. It is empty for the zero Path.
func (p Path) String() string { return p.s }

// Base returns the last segment, `plan.pdf`. It is empty for the zero Path.
func (p Path) Base() string { return p.s[strings.LastIndexByte(p.s, '/')+1:] }

// Location returns the URI below nginx's internal location, `/protected/`, that
// nginx must open: `/protected/project/plan.pdf`. It is in literal bytes, not
// percent-encoded, because nginx takes it from a variable and does not decode
// it. It is empty, which opens nothing, for the zero Path and for a prefix
// without a slash at both ends.
func (p Path) Location(internal string) string {
	if p.IsZero() || !isPrefix(internal) {
		return ""
	}
	return internal + p.s[1:]
}

// URL returns the public URL path below prefix, percent-encoded (RFC 3986):
// [Parse] of it with the same prefix returns p. It is empty for the zero Path
// and for a prefix without a slash at both ends.
func (p Path) URL(prefix string) string {
	if p.IsZero() || !isPrefix(prefix) {
		return ""
	}
	var b strings.Builder
	b.WriteString(prefix)
	escape(&b, p.s[1:], "/-._~")
	return b.String()
}

// Escape percent-encodes a text (RFC 3986 section 2.1): every byte but letters, digits and
// the bytes of literal, in upper case.
func Escape(text, literal string) string {
	var b strings.Builder
	b.Grow(len(text))
	escape(&b, text, literal)
	return b.String()
}

// escape writes s percent-encoded. Letters, digits and the bytes of literal
// stand for themselves.
func escape(b *strings.Builder, s, literal string) {
	const digits = "0123456789ABCDEF"
	for i := range len(s) {
		c := s[i]
		if 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte(literal, c) >= 0 {
			b.WriteByte(c)
		} else {
			b.WriteByte('%')
			b.WriteByte(digits[c>>4])
			b.WriteByte(digits[c&15])
		}
	}
}
