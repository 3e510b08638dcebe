package pathguard_test

import (
	"errors"
	"net/url"
	"path"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"

	"securefiles/pathguard"
)

const prefix = "/downloads/"

// long is a path of 16 segments of 255 bytes: 4,096 bytes, the longest.
var long = strings.Repeat("/"+strings.Repeat("L", 255), 16)

// S2, S3: what Parse accepts, decoded once.
func TestParse(t *testing.T) {
	for _, c := range []struct{ name, target, want string }{
		{"a plain name", "/downloads/a.txt", "/a.txt"},
		{"directories", "/downloads/project/2026/plan.pdf", "/project/2026/plan.pdf"},
		{"the query is cut off", "/downloads/a.txt?x=/../b", "/a.txt"},
		{"an empty query is cut off", "/downloads/a.txt?", "/a.txt"},
		{"the query begins at the first question mark", "/downloads/a.txt?b?c", "/a.txt"},
		{"escapes in the query are not read", "/downloads/a.txt?%zz%00%2F", "/a.txt"},
		{"an escaped question mark is a character", "/downloads/a%3Fb", "/a?b"},
		{"an escaped # is a character", "/downloads/a%23b", "/a#b"},
		{"a plus sign is a plus sign", "/downloads/a+b%2Bc", "/a+b+c"},
		{"an escaped blank inside a name", "/downloads/a%20b.txt", "/a b.txt"},
		{"an escaped letter", "/downloads/%61.txt", "/a.txt"},
		{"hexadecimal digits of either case", "/downloads/%c3%A9", "/é"},
		{"raw UTF-8", "/downloads/é", "/é"},
		{"NFC stays as it is", "/downloads/caf%C3%A9", "/caf\u00e9"},
		{"NFD stays as it is", "/downloads/cafe%CC%81", "/cafe\u0301"},
		{"an escaped percent sign is decoded once", "/downloads/%252e%252e/x", "/%2e%2e/x"},
		{"a doubly escaped slash is a name with a percent sign", "/downloads/a%252Fb", "/a%2Fb"},
		{"semicolons are characters", "/downloads/..;/a;v=1", "/..;/a;v=1"},
		{"quotes and brackets are characters", `/downloads/"a'(b)[c]{d}`, `/"a'(b)[c]{d}`},
		{"more than two dots are a name", "/downloads/.../....", "/.../...."},
		{"dots at either end of a name", "/downloads/.a/a./..b/b..", "/.a/a./..b/b.."},
		{"the prefix again is a name", "/downloads/downloads/a", "/downloads/a"},
		{"a replacement character that was sent as one", "/downloads/%EF%BF%BD", "/\uFFFD"},
		{"a right-to-left override", "/downloads/%E2%80%AEa", "/\u202ea"},
		{"a segment of 255 bytes", "/downloads/" + strings.Repeat("%41", 255), "/" + strings.Repeat("A", 255)},
		{"a path of 4,096 bytes", "/downloads" + long, long},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, err := pathguard.Parse(c.target, prefix)
			if err != nil || p.String() != c.want {
				t.Errorf("Parse(%.80q) = %.80q, %v; want %.80q", c.target, p, err, c.want)
			}
		})
	}
}

const (
	badPrefix    = "the prefix does not begin and end with a slash"
	rawByte      = "the target holds a raw space or control byte"
	fragment     = "the target holds a fragment"
	badEscape    = "the path holds a malformed percent escape"
	escapedSlash = "the path holds an escaped slash"
	noSlash      = "the path does not begin with a slash"
	longPath     = "the path is longer than 4096 bytes"
	empty        = "the path has an empty segment or ends with a slash"
	dots         = "the path has a dot segment"
	longSegment  = "the path has a segment longer than 255 bytes"
	notUTF8      = "the path is not valid UTF-8"
	control      = "the path holds a control character"
	backslash    = "the path holds a backslash"
	blank        = "the path has a blank at an end of a segment"
)

// S3, S4, S6: what Parse refuses, below the prefix.
func TestParseRefuses(t *testing.T) {
	for _, c := range []struct{ name, rest, reason string }{
		{"nothing", "", empty},
		{"only a query", "?a.txt", empty},
		{"a slash at the end", "a/", empty},
		{"a doubled slash", "a//b", empty},
		{"a slash at the beginning", "/a", empty},
		{"a dot", "./a", dots},
		{"two dots", "a/../b", dots},
		{"two dots at the end", "a/..", dots},
		{"two dots before the query", "..?", dots},
		{"escaped dots", "%2e%2E/a", dots},
		{"one escaped dot of two", ".%2e/a", dots},
		{"an escaped slash", "a%2Fb", escapedSlash},
		{"an escaped slash in lower case", "a%2fb", escapedSlash},
		{"dots and an escaped slash", "..%2fa", escapedSlash},
		{"a percent sign at the end", "a%", badEscape},
		{"half an escape", "a%2", badEscape},
		{"an escape cut by the query", "a%2?0", badEscape},
		{"no hexadecimal digit first", "%g0", badEscape},
		{"no hexadecimal digit second", "%0g", badEscape},
		{"an escape of 16 bits", "%u002e", badEscape},
		{"a sign in an escape", "%+1", badEscape},
		{"a byte above ASCII in an escape", "%2\xe9", badEscape},
		{"a raw fragment", "a#b", fragment},
		{"a fragment in the query", "a?b#c", fragment},
		{"a raw space", "a b", rawByte},
		{"a raw newline in the query", "a?b\nc", rawByte},
		{"a raw NUL", "a\x00", rawByte},
		{"a raw DEL", "a\x7f", rawByte},
		{"NUL", "a%00b", control},
		{"a newline", "a%0Ab", control},
		{"a carriage return at the end", "a%0D", control},
		{"a tab", "a%09b", control},
		{"the last control byte", "a%1Fb", control},
		{"DEL", "a%7Fb", control},
		{"U+0080, the first of C1", "a%C2%80b", control},
		{"U+009F, the last of C1", "a%C2%9Fb", control},
		{"U+2028, a line separator", "a%E2%80%A8b", control},
		{"U+2029, a paragraph separator", "a%E2%80%A9b", control},
		{"a raw backslash", `a\b`, backslash},
		{"an escaped backslash", "a%5Cb", backslash},
		{"a lone byte above ASCII", "a%FF", notUTF8},
		{"an overlong dot", "%C0%AE", notUTF8},
		{"an overlong slash", "a%C0%AFb", notUTF8},
		{"a surrogate", "%ED%A0%80", notUTF8},
		{"a character cut in two by a slash", "%C3/%A9", notUTF8},
		{"a blank in front", "%20a", blank},
		{"a blank behind", "a%20", blank},
		{"a blank behind a directory", "a%20/b", blank},
		{"a blank alone", "%20", blank},
		{"U+00A0, a no-break space, behind", "a%C2%A0", blank},
		{"U+3000, an ideographic space, in front", "%E3%80%80a", blank},
		{"a segment of 256 bytes", strings.Repeat("A", 256), longSegment},
		{"a path of 4,097 bytes", long[1:] + "/", longPath},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, err := pathguard.Parse(prefix+c.rest, prefix)
			wantRefusal(t, p, err, c.reason)
			if errors.Is(err, pathguard.ErrOutside) {
				t.Error("the refusal says that the target is outside: another download would be tried")
			}
		})
	}
}

func wantRefusal(t *testing.T, p pathguard.Path, err error, reason string) {
	t.Helper()
	var refused *pathguard.Error
	if !errors.As(err, &refused) || refused.Reason != reason || err.Error() != reason {
		t.Errorf("got error %v, want: %s", err, reason)
	}
	if !p.IsZero() {
		t.Errorf("a refusal came with the path %q", p)
	}
}

// S5: the prefix is compared byte for byte and up to a slash.
func TestParseOutside(t *testing.T) {
	for _, c := range []struct{ name, target, prefix string }{
		{"nothing", "", prefix},
		{"the prefix without its slash", "/downloads", prefix},
		{"a sibling with the same beginning", "/downloads-old/a", prefix},
		{"another case", "/Downloads/a", prefix},
		{"an escaped letter in the prefix", "/%64ownloads/a", prefix},
		{"an escaped slash after the prefix", "/downloads%2Fa", prefix},
		{"a doubled slash in front", "//downloads/a", prefix},
		{"the absolute form", "http://example.org/downloads/a", prefix},
		{"the asterisk form", "*", prefix},
		{"no slash in front", "downloads/a", prefix},
		{"the prefix in the query", "/?/downloads/a", prefix},
		{"dots that lead to the prefix", "/x/../downloads/a", prefix},
		{"another download", "/archive/a", prefix},
		{"the whole site, absolute form", "http://example.org/a", "/"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, err := pathguard.Parse(c.target, c.prefix)
			wantRefusal(t, p, err, "the target is not below the URL of a download")
			if !errors.Is(err, pathguard.ErrOutside) {
				t.Error("the refusal does not say that the target is outside")
			}
		})
	}
}

// S5, S10: a prefix that could match half a segment matches nothing.
func TestBadPrefix(t *testing.T) {
	file, err := pathguard.New("/a.txt")
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{"", "downloads", "/downloads", "downloads/"} {
		p, err := pathguard.Parse(bad+"-old/a", bad)
		wantRefusal(t, p, err, badPrefix)
		if got := file.Location(bad); got != "" {
			t.Errorf("Location(%q) = %q, want nothing", bad, got)
		}
		if got := file.URL(bad); got != "" {
			t.Errorf("URL(%q) = %q, want nothing", bad, got)
		}
	}
}

// New decodes nothing and otherwise has the rules of Parse.
func TestNew(t *testing.T) {
	for _, c := range []struct{ subpath, reason string }{
		{"/project/plan.pdf", ""},
		{"/a b", ""},
		{"/100%", ""},
		{"/a%2Fb", ""},
		{"/what?#", ""},
		{long, ""},
		{"", noSlash},
		{"a", noSlash},
		{"/", empty},
		{"/a/", empty},
		{"/a//b", empty},
		{"/../a", dots},
		{"/a/.", dots},
		{"/a\nb", control},
		{`/a\b`, backslash},
		{"/a\xff", notUTF8},
		{"/a ", blank},
		{"/a\u2003", blank},
		{long + "/", longPath},
		{"/" + strings.Repeat("é", 128), longSegment},
	} {
		p, err := pathguard.New(c.subpath)
		if c.reason != "" {
			wantRefusal(t, p, err, c.reason)
		} else if err != nil || p.String() != c.subpath {
			t.Errorf("New(%.80q) = %.80q, %v; want it as it is", c.subpath, p, err)
		}
	}
}

// S6: what nginx is told to open is what policy saw.
func TestPath(t *testing.T) {
	for _, c := range []struct{ path, base, location, url string }{
		{"/a.txt", "a.txt", "/protected/a.txt", "/downloads/a.txt"},
		{"/d/a b.txt", "a b.txt", "/protected/d/a b.txt", "/downloads/d/a%20b.txt"},
		{"/100%/%2e%2e", "%2e%2e", "/protected/100%/%2e%2e", "/downloads/100%25/%252e%252e"},
		{"/a?b#c;d", "a?b#c;d", "/protected/a?b#c;d", "/downloads/a%3Fb%23c%3Bd"},
		{"/é~", "é~", "/protected/é~", "/downloads/%C3%A9~"},
		{"/p+q&r=s", "p+q&r=s", "/protected/p+q&r=s", "/downloads/p%2Bq%26r%3Ds"},
	} {
		p, err := pathguard.New(c.path)
		if err != nil {
			t.Errorf("New(%q): %v", c.path, err)
			continue
		}
		if p.IsZero() || p.String() != c.path || p.Base() != c.base {
			t.Errorf("New(%q): zero %v, string %q, base %q", c.path, p.IsZero(), p, p.Base())
		}
		if got := p.Location("/protected/"); got != c.location {
			t.Errorf("New(%q).Location = %q, want %q", c.path, got, c.location)
		}
		if got := p.URL(prefix); got != c.url {
			t.Errorf("New(%q).URL = %q, want %q", c.path, got, c.url)
		}
	}
}

// S10: the zero Path opens nothing.
func TestZeroPath(t *testing.T) {
	var p pathguard.Path
	if !p.IsZero() || p.String() != "" || p.Base() != "" || p.Location("/protected/") != "" || p.URL(prefix) != "" {
		t.Errorf("the zero path: %v %q %q %q %q", p.IsZero(), p, p.Base(), p.Location("/protected/"), p.URL(prefix))
	}
}

// canonical is the rule of the package, written another way.
func canonical(s string) bool {
	if len(s) > 4096 || s == "" || s[0] != '/' || !utf8.ValidString(s) ||
		regexp.MustCompile(`[\x00-\x1f\x{7f}-\x{9f}\x{2028}\x{2029}\\]`).MatchString(s) {
		return false
	}
	edge := regexp.MustCompile(`^[\s\p{Z}]|[\s\p{Z}]$`)
	for _, segment := range strings.Split(s[1:], "/") {
		if segment == "" || segment == "." || segment == ".." || len(segment) > 255 || edge.MatchString(segment) {
			return false
		}
	}
	return true
}

// S3, S6: for every target, Parse agrees with net/url and with the rule above,
// and what it accepts is the file that nginx itself would make of the target.
func FuzzParse(f *testing.F) {
	for _, row := range readCorpus(f) {
		f.Add(prefix + row.raw())
	}
	f.Add("/downloads" + long)
	for c := range 256 { // each byte in each place of an escape, and raw
		digit := string([]byte{byte(c)})
		f.Add(prefix + "a%" + digit + "1")
		f.Add(prefix + "a%4" + digit)
		f.Add(prefix + "a" + digit + "b")
	}
	f.Fuzz(func(t *testing.T, target string) {
		rest, below := strings.CutPrefix(target, prefix)
		raw, _, _ := strings.Cut(rest, "?")
		decoded, badEscape := url.PathUnescape(raw)
		want := below && badEscape == nil && canonical("/"+decoded) &&
			!strings.Contains(strings.ToUpper(raw), "%2F") &&
			!regexp.MustCompile(`[\x00-\x20\x7f#]`).MatchString(rest)

		p, err := pathguard.Parse(target, prefix)
		if want != (err == nil) {
			t.Fatalf("Parse(%q) = %q, %v; want accepted: %v", target, p, err, want)
		}
		if errors.Is(err, pathguard.ErrOutside) == below {
			t.Fatalf("Parse(%q): error %v, below the prefix: %v", target, err, below)
		}
		if err != nil {
			if !p.IsZero() {
				t.Fatalf("Parse(%q) refused and gave %q", target, p)
			}
			return
		}
		if got := p.String(); got != "/"+decoded || path.Clean(got) != got {
			t.Fatalf("Parse(%q) = %q, decoded elsewhere %q, cleaned %q", target, got, decoded, path.Clean(got))
		}
		checkPath(t, p)

		// nginx decodes the whole target and resolves dots and doubled slashes to
		// choose its location. For what is accepted it must see no other file.
		whole, _, _ := strings.Cut(target, "?")
		uri, err := url.PathUnescape(whole)
		if err != nil || path.Clean(uri) != p.Location(prefix) {
			t.Fatalf("Parse(%q) = %q, nginx reads %q, %v", target, p, path.Clean(uri), err)
		}
	})
}

// New accepts the canonical form and nothing else.
func FuzzNew(f *testing.F) {
	for _, row := range readCorpus(f) {
		f.Add("/" + row.raw())
		if decoded, err := url.PathUnescape(row.raw()); err == nil {
			f.Add("/" + decoded)
		}
	}
	f.Fuzz(func(t *testing.T, subpath string) {
		p, err := pathguard.New(subpath)
		if canonical(subpath) != (err == nil) {
			t.Fatalf("New(%q) = %v, want accepted: %v", subpath, err, canonical(subpath))
		}
		if err != nil {
			if !p.IsZero() {
				t.Fatalf("New(%q) refused and gave %q", subpath, p)
			}
			return
		}
		if p.String() != subpath {
			t.Fatalf("New(%q) = %q", subpath, p)
		}
		checkPath(t, p)
	})
}

// checkPath fails unless p is told apart from every other path in each of its
// forms: each leads back to p.
func checkPath(t *testing.T, p pathguard.Path) {
	t.Helper()
	if again, err := pathguard.New(p.String()); err != nil || again != p {
		t.Fatalf("New(%q) = %q, %v", p, again, err)
	}
	for _, pre := range []string{prefix, "/"} {
		if again, err := pathguard.Parse(p.URL(pre), pre); err != nil || again != p {
			t.Fatalf("Parse(%q) = %q, %v; want %q", p.URL(pre), again, err, p)
		}
	}
	const internal = "/protected/"
	location := p.Location(internal)
	if !strings.HasPrefix(location, internal) || location[len(internal)-1:] != p.String() {
		t.Fatalf("the location of %q is %q", p, location)
	}
	if strings.TrimSpace(location) != location || regexp.MustCompile(`[\x00-\x1f\x7f]`).MatchString(location) {
		t.Fatalf("a header cannot carry the location %q", location)
	}
	if regexp.MustCompile(`//|/\.\.?(?:/|$)`).MatchString(location) {
		t.Fatalf("the location %q is not canonical", location)
	}
	if p.Base() == "" || strings.Contains(p.Base(), "/") || !strings.HasSuffix(p.String(), "/"+p.Base()) {
		t.Fatalf("the base of %q is %q", p, p.Base())
	}
}

func BenchmarkParse(b *testing.B) {
	for _, c := range []struct{ name, target string }{
		{"plain", "/downloads/project/2026/annual-report.pdf"},
		{"escaped", "/downloads/names/%E6%97%A5%E6%9C%AC%E8%AA%9E%20report.txt?v=1"},
		{"longest", "/downloads" + long},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := pathguard.Parse(c.target, prefix); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
