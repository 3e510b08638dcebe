package pathguard

import "strings"

// A Kind says what a browser does with a file. The zero Kind is the safe one.
type Kind uint8

// The kinds.
const (
	// Attachment: the browser saves the file.
	Attachment Kind = iota
	// Inline: the browser may show it.
	Inline
)

// String returns the disposition type of RFC 6266 section 4.2.
func (k Kind) String() string {
	if k == Inline {
		return "inline"
	}
	return "attachment"
}

// Disposition returns a Content-Disposition value for a file's name: a fallback
// in plain ASCII for old clients, and the exact name as RFC 8187 encodes it.
// The value is ASCII, and at most 1,100 bytes for a name of MaxSegment.
func Disposition(kind Kind, name string) string {
	var b strings.Builder
	b.Grow(len("attachment; filename=\"\"; filename*=UTF-8''") + 4*len(name))
	b.WriteString(kind.String())
	b.WriteString(`; filename="`)
	for _, r := range name {
		if isFallback(r) {
			b.WriteByte(byte(r))
		} else {
			b.WriteByte('_')
		}
	}
	b.WriteString(`"; filename*=UTF-8''`)
	for i := range len(name) {
		if c := name[i]; isAttrChar(c) {
			b.WriteByte(c)
		} else {
			writeEscaped(&b, c)
		}
	}
	return b.String()
}

// isFallback reports whether every client reads r alike inside quotes. Quotes
// and backslashes would end or escape, some decode percent signs, some stop at
// a semicolon, and a slash would be a directory.
func isFallback(r rune) bool {
	return ' ' <= r && r <= '~' && !strings.ContainsRune(`"\%;/`, r)
}

// isAttrChar reports whether c stands for itself in filename* (attr-char of RFC
// 8187 section 3.2.1).
func isAttrChar(c byte) bool {
	return isUnreserved(c) || strings.IndexByte("!#$&+^`|", c) >= 0
}
