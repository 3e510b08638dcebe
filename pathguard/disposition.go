package pathguard

import "strings"

// A Kind says what a browser does with a download.
type Kind int

const (
	// Attachment has the browser save the file. It is the zero Kind.
	Attachment Kind = iota
	// Inline lets the browser show the file.
	Inline
)

// Disposition returns a complete Content-Disposition value (RFC 6266):
//
//	attachment; filename="caf_.txt"; filename*=UTF-8''caf%C3%A9.txt
//
// A Kind that is not Inline gives an attachment. The extended parameter (RFC
// 8187) carries the name; the plain one, for clients that know no other, has an
// underscore for each character outside ASCII and for each of `" % ;`, which
// clients are known to read in different ways.
//
// Every name is safe here, and [Path.Base] comes through unchanged. In another
// name, control characters, slashes, backslashes and bytes that are not UTF-8
// become underscores in both parameters, bytes after the 255th are cut off, and
// an empty name, `.` or `..` becomes `download`. The value is printable ASCII of
// at most 1,062 bytes: 42 of frame, 255 of plain and 3×255 of encoded name.
func Disposition(kind Kind, name string) string {
	name = safeName(name)
	var b strings.Builder
	b.Grow(42 + 4*len(name))
	if kind == Inline {
		b.WriteString("inline")
	} else {
		b.WriteString("attachment")
	}
	b.WriteString(`; filename="`)
	for _, r := range name {
		if r > '~' || strings.ContainsRune(`"%;`, r) {
			r = '_'
		}
		b.WriteByte(byte(r))
	}
	b.WriteString(`"; filename*=UTF-8''`)
	escape(&b, name, "!#$&+-.^_`|~") // attr-char of RFC 8187
	return b.String()
}

// safeName returns a name that cannot leave the directory it is saved in. A name
// cut inside a character ends in an underscore.
func safeName(name string) string {
	name = strings.ToValidUTF8(name[:min(len(name), maxSegment)], "_")
	name = strings.Map(func(r rune) rune {
		if isControl(r) || r == '/' || r == '\\' {
			return '_'
		}
		return r
	}, name)
	if name == "" || name == "." || name == ".." {
		return "download"
	}
	return name
}
