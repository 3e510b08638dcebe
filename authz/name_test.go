package authz

import (
	"strings"
	"testing"
	"unicode/utf8"
)

// message returns an error's text, or nothing.
func message(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

const (
	unseen = "holds a character that cannot be seen"
	edges  = "begins or ends with a blank"
)

// S16
func TestValidSubject(t *testing.T) {
	for _, test := range []struct{ name, subject, want string }{
		{"a word", "alice", ""},
		{"a mail address", "alice@example.org", ""},
		{"a distinguished name", "CN=alice,O=Example", ""},
		{"inner blanks", "Alice van Dam", ""},
		{"another script", "Ælfrēd 李", ""},
		{"a word like anonymous", "Anonymous", ""},
		{"256 bytes", strings.Repeat("a", 256), ""},
		{"nothing", "", "is empty"},
		{"257 bytes", strings.Repeat("a", 257), "is longer than 256 bytes"},
		{"129 letters of two bytes", strings.Repeat("é", 129), "is longer than 256 bytes"},
		{"ISO 8859-1", "Andr\xe9", "is not valid UTF-8"},
		{"an overlong encoding", "a\xc0\xaf", "is not valid UTF-8"},
		{"an encoded surrogate", "a\xed\xa0\x80", "is not valid UTF-8"},
		{"a group", "@staff", "begins with @, which marks groups"},
		{"a role", "role:editor", "begins with role:, which marks roles"},
		{"a role without a name", "role:", "begins with role:, which marks roles"},
		{"the word role", "role", ""},
		{"another capital", "Role:editor", ""},
		{"the caller without credentials", "anonymous", "is the name of callers without credentials"},
		{"a leading blank", " alice", edges},
		{"a trailing blank", "alice ", edges},
		{"a NUL", "alice\x00", unseen},
		{"a line break", "alice\nbob", unseen},
		{"a tab", "alice\tbob", unseen},
		{"DEL", "alice\x7f", unseen},
		{"a C1 control", "alice\u0085", unseen},
		{"an escape sequence", "\x1b[2Jalice", unseen},
		{"a right-to-left override", "alice\u202ebob", unseen},
		{"a left-to-right mark", "alice\u200e", unseen},
		{"an isolate", "\u2066alice\u2069", unseen},
		{"an Arabic letter mark", "alice\u061c", unseen},
		{"a zero-width space", "ali\u200bce", unseen},
		{"a zero-width joiner", "ali\u200dce", unseen},
		{"a word joiner", "ali\u2060ce", unseen},
		{"a byte order mark", "\ufeffalice", unseen},
		{"a soft hyphen", "ali\u00adce", unseen},
		{"a combining grapheme joiner", "ali\u034fce", unseen},
		{"a Hangul filler", "alice\u3164", unseen},
		{"a variation selector", "alice\ufe0f", unseen},
		{"a tag character", "alice\U000e0041", unseen},
		{"a line separator", "alice\u2028", unseen},
		{"a no-break space", "alice\u00a0bob", unseen},
		{"an ideographic space", "\u3000alice", unseen},
		{"a private character", "alice\ue000", unseen},
	} {
		if got := message(ValidSubject(test.subject)); got != test.want {
			t.Errorf("%s: got %q, want %q", test.name, got, test.want)
		}
	}
}

func FuzzValidSubject(f *testing.F) {
	for _, seed := range []string{"alice", "CN=alice,O=Example", "@staff", "role:editor", "anonymous", " a", "a\u202e", "\xff", "é", "\u3164"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, subject string) {
		if ValidSubject(subject) != nil {
			return
		}
		if subject == "" || len(subject) > 256 || !utf8.ValidString(subject) || subject[0] == '@' || strings.HasPrefix(subject, "role:") || subject == "anonymous" ||
			strings.TrimSpace(subject) != subject || strings.ContainsAny(subject, "\x00\r\n\t\x7f\u200b\u202e\u2066\ufeff") {
			t.Errorf("accepted %q", subject)
		}
	})
}
