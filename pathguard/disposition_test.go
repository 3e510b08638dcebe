package pathguard_test

import (
	"fmt"
	"mime"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"

	"securefiles/pathguard"
)

// S13: the plain name, and the encoded one.
func TestDisposition(t *testing.T) {
	for _, c := range []struct{ name, file, plain, encoded string }{
		{"a plain name", "report.pdf", "report.pdf", "report.pdf"},
		{"blanks", "a b.txt", "a b.txt", "a%20b.txt"},
		{"a quote ends nothing", `setup.bat";x=.txt`, "setup.bat__x=.txt", "setup.bat%22%3Bx%3D.txt"},
		{"a percent sign is no escape", "100%41.txt", "100_41.txt", "100%2541.txt"},
		{"every byte that attr-char allows", "!#$&+-.^_`|~", "!#$&+-.^_`|~", "!#$&+-.^_`|~"},
		{"bytes that attr-char leaves out", "a*'(),:<=>?@[]{}", "a*'(),:<=>?@[]{}", "a%2A%27%28%29%2C%3A%3C%3D%3E%3F%40%5B%5D%7B%7D"},
		{"NFC", "caf\u00e9.txt", "caf_.txt", "caf%C3%A9.txt"},
		{"NFD", "cafe\u0301.txt", "cafe_.txt", "cafe%CC%81.txt"},
		{"the extension stays", "日本語.txt", "___.txt", "%E6%97%A5%E6%9C%AC%E8%AA%9E.txt"},
		{"beyond 16 bits", "😀.txt", "_.txt", "%F0%9F%98%80.txt"},
		{"a right-to-left override", "a\u202efdp.exe", "a_fdp.exe", "a%E2%80%AEfdp.exe"},
		{"a zero-width space", "a\u200b.txt", "a_.txt", "a%E2%80%8B.txt"},
		{"a byte order mark", "\ufeffa.txt", "_a.txt", "%EF%BB%BFa.txt"},
		{"a header line", "a\r\nX: y", "a__X: y", "a__X%3A%20y"},
		{"NUL, DEL, C1", "a\x00\x7f\u0085b", "a___b", "a___b"},
		{"a way out of the directory", "../../etc/passwd", ".._.._etc_passwd", ".._.._etc_passwd"},
		{"a way out on Windows", `..\a`, ".._a", ".._a"},
		{"no UTF-8", "a\xff.txt", "a_.txt", "a_.txt"},
		{"nothing", "", "download", "download"},
		{"a dot", ".", "download", "download"},
		{"two dots", "..", "download", "download"},
		{"three dots", "...", "...", "..."},
		{"too long", strings.Repeat("a", 300), strings.Repeat("a", 255), strings.Repeat("a", 255)},
		{"too long inside a character", strings.Repeat("a", 254) + "é", strings.Repeat("a", 254) + "_", strings.Repeat("a", 254) + "_"},
	} {
		t.Run(c.name, func(t *testing.T) {
			want := `attachment; filename="` + c.plain + `"; filename*=UTF-8''` + c.encoded
			if got := pathguard.Disposition(pathguard.Attachment, c.file); got != want {
				t.Errorf("Disposition(%q)\n got %s\nwant %s", c.file, got, want)
			}
		})
	}
}

// S10: only Inline is inline.
func TestDispositionKind(t *testing.T) {
	for kind, want := range map[pathguard.Kind]string{
		pathguard.Attachment: "attachment",
		pathguard.Inline:     "inline",
		pathguard.Kind(2):    "attachment",
		pathguard.Kind(-1):   "attachment",
	} {
		if got, _, _ := strings.Cut(pathguard.Disposition(kind, "a"), ";"); got != want {
			t.Errorf("kind %d gives %q, want %q", kind, got, want)
		}
	}
}

// The documented maximum is reached and not passed.
func TestDispositionLength(t *testing.T) {
	got := len(pathguard.Disposition(pathguard.Attachment, strings.Repeat(" ", 255)))
	if got != 1062 {
		t.Errorf("the longest value has %d bytes, documented are 1062", got)
	}
}

// S13: two parsers read back the name, for every name; a path's own name comes
// back unchanged.
func FuzzDisposition(f *testing.F) {
	for _, row := range readCorpus(f) {
		raw := row.raw()
		f.Add(raw[strings.LastIndexByte(raw, '/')+1:])
		if decoded, err := url.PathUnescape(raw); err == nil {
			f.Add(decoded[strings.LastIndexByte(decoded, '/')+1:])
		}
	}
	f.Fuzz(func(t *testing.T, name string) {
		value := pathguard.Disposition(pathguard.Attachment, name)
		if len(value) > 1062 || !regexp.MustCompile(`^[ -~]*$`).MatchString(value) {
			t.Fatalf("Disposition(%q) = %q: %d bytes, or not printable ASCII", name, value, len(value))
		}
		kind, params, err := mime.ParseMediaType(value)
		if err != nil {
			t.Fatalf("Disposition(%q) = %s: %v", name, value, err)
		}
		strict, err := parseDisposition(value)
		if err != nil {
			t.Fatalf("Disposition(%q) = %s: %v", name, value, err)
		}
		if kind != "attachment" || strict.kind != kind || len(params) != 1 || params["filename"] != strict.extended {
			t.Fatalf("%s: net/mime reads %s %q, RFC 6266 %+v", value, kind, params, strict)
		}
		if p, err := pathguard.New("/" + name); err == nil && p.Base() == name && strict.extended != name {
			t.Fatalf("%s: reads %q, want %q", value, strict.extended, name)
		}
		for _, file := range []string{strict.plain, strict.extended} {
			if file == "" || file == "." || file == ".." || len(file) > 255 || !utf8.ValidString(file) ||
				regexp.MustCompile(`[/\\\x00-\x1f\x{7f}-\x{9f}\x{2028}\x{2029}]`).MatchString(file) {
				t.Fatalf("%s: %q is not safe to save under", value, file)
			}
		}
		if strings.ContainsAny(strict.plain, `"\%;/`) {
			t.Fatalf("%s: the plain name %q holds what clients read in different ways", value, strict.plain)
		}
		if utf8.RuneCountInString(strict.plain) != utf8.RuneCountInString(strict.extended) {
			t.Fatalf("%s: the plain name %q and %q differ in length", value, strict.plain, strict.extended)
		}
		if inline := pathguard.Disposition(pathguard.Inline, name); inline != "inline"+strings.TrimPrefix(value, "attachment") {
			t.Fatalf("the inline value %s differs from %s in more than its kind", inline, value)
		}
	})
}

// disposition is a Content-Disposition value as a client reads it.
type disposition struct{ kind, plain, extended string }

// parseDisposition reads a Content-Disposition value by the letter of RFC 6266
// section 4.1 and RFC 8187 section 3.2.1, with both names required and no other
// parameter.
func parseDisposition(value string) (d disposition, err error) {
	const token = "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
	next := func(chars string) string {
		n := len(value) - len(strings.TrimLeft(value, chars))
		word := value[:n]
		value = value[n:]
		return word
	}
	d.kind = next(token)
	for value != "" {
		next(" \t")
		if next(";") != ";" {
			return d, fmt.Errorf("want one semicolon before %q", value)
		}
		next(" \t")
		name := next(token)
		if next("=") != "=" {
			return d, fmt.Errorf("want an equals sign before %q", value)
		}
		switch {
		case name == "filename" && d.plain == "":
			d.plain, value, err = quotedString(value)
		case name == "filename*" && d.extended == "":
			d.extended, value, err = extValue(value)
		default:
			err = fmt.Errorf("unknown or repeated parameter %q", name)
		}
		if err != nil {
			return d, err
		}
	}
	if d.kind == "" || d.plain == "" || d.extended == "" {
		return d, fmt.Errorf("a part is missing: %+v", d)
	}
	return d, nil
}

// quotedString reads a quoted-string (RFC 9110 section 5.6.4).
func quotedString(s string) (text, rest string, err error) {
	if s == "" || s[0] != '"' {
		return "", s, fmt.Errorf("want a quote before %q", s)
	}
	for i := 1; i < len(s); i++ {
		switch c := s[i]; {
		case c == '"':
			return text, s[i+1:], nil
		case c == '\\' && i+1 < len(s):
			i++
			text += s[i : i+1]
		case c == '\t' || c >= ' ' && c != 0x7f:
			text += s[i : i+1]
		default:
			return "", s, fmt.Errorf("control byte %#x in a quoted string", c)
		}
	}
	return "", s, fmt.Errorf("the quoted string does not end")
}

// extValue reads an ext-value up to the next byte that cannot be in one.
func extValue(s string) (text, rest string, err error) {
	s, ok := strings.CutPrefix(s, "UTF-8''")
	if !ok {
		return "", s, fmt.Errorf("want UTF-8'' before %q", s)
	}
	char := regexp.MustCompile("^(?:[A-Za-z0-9!#$&+.^_`|~-]|%([0-9A-F]{2}))")
	for {
		m := char.FindStringSubmatch(s)
		if m == nil {
			break
		}
		if m[1] != "" {
			var c byte
			if _, err := fmt.Sscanf(m[1], "%X", &c); err != nil {
				return "", s, err
			}
			text += string([]byte{c})
		} else {
			text += m[0]
		}
		s = s[len(m[0]):]
	}
	if !utf8.ValidString(text) {
		return "", s, fmt.Errorf("%q is not UTF-8", text)
	}
	return text, s, nil
}

func BenchmarkDisposition(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		pathguard.Disposition(pathguard.Attachment, "日本語 annual-report.pdf")
	}
}
