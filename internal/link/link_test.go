package link

import (
	"context"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"securefiles/authz"
)

var noon = time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)

// keysOf writes a file of keys and reads it.
func keysOf(t testing.TB, keys ...jose.JSONWebKey) *Keys {
	t.Helper()
	text, err := json.Marshal(jose.JSONWebKeySet{Keys: keys})
	if err != nil {
		t.Fatal(err)
	}
	return keysFrom(t, string(text))
}

func keysFrom(t testing.TB, text string) *Keys {
	t.Helper()
	file := filepath.Join(t.TempDir(), "keys.json")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	k, err := NewKeys(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := k.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	return k
}

func makeKey(t testing.TB, algorithm string) jose.JSONWebKey {
	t.Helper()
	k, err := newKey(algorithm, noon)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func some() *Claims {
	return &Claims{
		ID: "l1", Subject: "alice", Download: "main", Path: "/reports/q3.pdf",
		Issued: noon.Local(), Expires: noon.Add(time.Hour).Local(),
	}
}

func whole() *Claims {
	c := some()
	c.Groups, c.NotBefore, c.Recipient, c.Uses = []string{"staff"}, noon.Add(time.Minute).Local(), "bob", 3
	c.Networks = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("2001:db8::/32")}
	c.Filename, c.Rate, c.Password = "Q3 – final.pdf", 1<<20, true
	return c
}

func linksOf(t testing.TB, k *Keys) *Links {
	t.Helper()
	l, err := New(k, &Options{Now: func() time.Time { return noon.Add(2 * time.Minute) }})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func ask(l *Links, token string) (authz.Principal, error) {
	return l.Authenticate(context.Background(), &authz.Question{Target: "/downloads/reports/q3.pdf?link=" + token})
}

func reasonOf(err error) authz.Reason {
	var link *authz.LinkError
	if errors.As(err, &link) {
		return link.Reason
	}
	if err == nil {
		return ""
	}
	return authz.ReasonUnavailable
}

func TestLinkSaysWhatItWasMadeOf(t *testing.T) {
	for _, algorithm := range []string{"HS256", "EdDSA"} {
		for name, c := range map[string]*Claims{"the least": some(), "all": whole()} {
			k := keysOf(t, makeKey(t, algorithm))
			l := linksOf(t, k)
			token, err := k.Sign("", c)
			if err != nil {
				t.Fatal(err)
			}
			for range 2 { // verified, and remembered
				got, err := l.Read(token)
				c.Key = k.IDs()[0]
				if err != nil || !reflect.DeepEqual(got, c) {
					t.Errorf("%s, %s: %+v, %v\nwant %+v", algorithm, name, got, err, c)
				}
			}
			p, err := ask(l, token)
			if err != nil || p.Subject != "alice" || p.Source != "link" || !p.Scope.Names("main", "/reports/q3.pdf") || p.Scope.ID != "l1" {
				t.Errorf("%s, %s: %+v, %v", algorithm, name, p, err)
			}
		}
	}
}

// tokenOf signs whatever it is told.
func tokenOf(t testing.TB, k jose.JSONWebKey, head, payload string) string {
	t.Helper()
	input := base64.RawURLEncoding.EncodeToString([]byte(head)) + "." + base64.RawURLEncoding.EncodeToString([]byte(payload))
	var signature []byte
	switch key := k.Key.(type) {
	case ed25519.PrivateKey:
		signature = ed25519.Sign(key, []byte(input))
	case []byte:
		mac := hmac.New(sha256.New, key)
		mac.Write([]byte(input))
		signature = mac.Sum(nil)
	default:
		t.Fatalf("a key of type %T", key)
	}
	return input + "." + base64.RawURLEncoding.EncodeToString(signature)
}

func TestHostileTokensAreNoLinks(t *testing.T) {
	key := makeKey(t, "EdDSA")
	key.KeyID = "k"
	k := keysOf(t, key)
	l := linksOf(t, k)
	const head = `{"alg":"EdDSA","kid":"k","typ":"securefiles-link+jwt"}`
	payload := func(more string) string {
		return fmt.Sprintf(`{"jti":"l1","sub":"alice","aud":"main","path":"/a","iat":%d,"exp":%d%s}`, noon.Unix(), noon.Add(time.Hour).Unix(), more)
	}
	without := func(name string) string {
		var m map[string]any
		if err := json.Unmarshal([]byte(payload("")), &m); err != nil {
			t.Fatal(err)
		}
		delete(m, name)
		text, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	with := func(name, value string) string {
		var m map[string]json.RawMessage
		if err := json.Unmarshal([]byte(payload("")), &m); err != nil {
			t.Fatal(err)
		}
		m[name] = json.RawMessage(value)
		text, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	if _, err := ask(l, tokenOf(t, key, head, payload(""))); err != nil {
		t.Fatalf("the good one: %v", err)
	}
	for name, token := range map[string]string{
		"empty":                          "",
		"no token":                       "a.b.c",
		"four parts":                     tokenOf(t, key, head, payload("")) + ".e30",
		"none as its algorithm":          tokenOf(t, key, `{"alg":"none","kid":"k","typ":"securefiles-link+jwt"}`, payload("")),
		"another algorithm":              tokenOf(t, key, `{"alg":"HS256","kid":"k","typ":"securefiles-link+jwt"}`, payload("")),
		"no key id":                      tokenOf(t, key, `{"alg":"EdDSA","typ":"securefiles-link+jwt"}`, payload("")),
		"another key id":                 tokenOf(t, key, `{"alg":"EdDSA","kid":"x","typ":"securefiles-link+jwt"}`, payload("")),
		"no type":                        tokenOf(t, key, `{"alg":"EdDSA","kid":"k"}`, payload("")),
		"another type":                   tokenOf(t, key, `{"alg":"EdDSA","kid":"k","typ":"JWT"}`, payload("")),
		"the type in other letters":      tokenOf(t, key, `{"alg":"EdDSA","kid":"k","typ":"Securefiles-Link+JWT"}`, payload("")),
		"a key that it brings":           tokenOf(t, key, `{"alg":"EdDSA","kid":"k","typ":"securefiles-link+jwt","jwk":{}}`, payload("")),
		"a critical header":              tokenOf(t, key, `{"alg":"EdDSA","kid":"k","typ":"securefiles-link+jwt","crit":["exp"]}`, payload("")),
		"a header twice":                 tokenOf(t, key, `{"alg":"EdDSA","kid":"k","kid":"k","typ":"securefiles-link+jwt"}`, payload("")),
		"a header in other letters":      tokenOf(t, key, `{"alg":"EdDSA","Kid":"k","kid":"k","typ":"securefiles-link+jwt"}`, payload("")),
		"a header that is a list":        tokenOf(t, key, `[]`, payload("")),
		"a header that is null":          tokenOf(t, key, `null`, payload("")),
		"an unknown claim":               tokenOf(t, key, head, payload(`,"admin":true`)),
		"a claim in other letters":       tokenOf(t, key, head, payload(`,"Exp":1`)),
		"a claim twice":                  tokenOf(t, key, head, payload(`,"sub":"root"`)),
		"something after its end":        tokenOf(t, key, head, payload("")+"{}"),
		"no UTF-8":                       tokenOf(t, key, head, with("sub", "\"al\xffice\"")),
		"no id":                          tokenOf(t, key, head, without("jti")),
		"no maker":                       tokenOf(t, key, head, without("sub")),
		"no download":                    tokenOf(t, key, head, without("aud")),
		"no path":                        tokenOf(t, key, head, without("path")),
		"no end":                         tokenOf(t, key, head, without("exp")),
		"no beginning":                   tokenOf(t, key, head, without("iat")),
		"an end that is null":            tokenOf(t, key, head, with("exp", "null")),
		"an end that is a text":          tokenOf(t, key, head, with("exp", `"1796000000"`)),
		"an end that is a fraction":      tokenOf(t, key, head, with("exp", `1796000000.5`)),
		"an end before its beginning":    tokenOf(t, key, head, with("exp", fmt.Sprint(noon.Unix()-1))),
		"an end beyond the longest":      tokenOf(t, key, head, with("exp", fmt.Sprint(noon.Add(8*24*time.Hour).Unix()))),
		"an end of the year 10000":       tokenOf(t, key, head, with("exp", "253402300800")),
		"several downloads":              tokenOf(t, key, head, with("aud", `["main"]`)),
		"a group as its maker":           tokenOf(t, key, head, with("sub", `"@staff"`)),
		"anonymous as its maker":         tokenOf(t, key, head, with("sub", `"anonymous"`)),
		"a role as its maker":            tokenOf(t, key, head, with("sub", `"role:admin"`)),
		"a built-in group":               tokenOf(t, key, head, with("groups", `["authenticated"]`)),
		"a group that is marked":         tokenOf(t, key, head, with("groups", `["@staff"]`)),
		"no groups in a list":            tokenOf(t, key, head, with("groups", `[]`)),
		"a path that climbs":             tokenOf(t, key, head, with("path", `"/a/../b"`)),
		"a path that does not begin":     tokenOf(t, key, head, with("path", `"a"`)),
		"a path of two slashes":          tokenOf(t, key, head, with("path", `"//"`)),
		"a path with an empty part":      tokenOf(t, key, head, with("path", `"/a//"`)),
		"an id with a blank":             tokenOf(t, key, head, with("jti", `"a b"`)),
		"no uses":                        tokenOf(t, key, head, with("uses", `0`)),
		"less than no uses":              tokenOf(t, key, head, with("uses", `-1`)),
		"uses that are null":             tokenOf(t, key, head, with("uses", `null`)),
		"networks of nowhere":            tokenOf(t, key, head, with("networks", `[]`)),
		"a list with a blank":            tokenOf(t, key, head, payload(`,"networks":[ ]`)),
		"groups that are a blank":        tokenOf(t, key, head, payload(`,"groups" : [ ] `)),
		"a network that is an address":   tokenOf(t, key, head, with("networks", `["192.0.2.1"]`)),
		"a network with bits beside":     tokenOf(t, key, head, with("networks", `["192.0.2.1/24"]`)),
		"an empty recipient":             tokenOf(t, key, head, with("recipient", `""`)),
		"a group as recipient":           tokenOf(t, key, head, with("recipient", `"@staff"`)),
		"a file name with a slash":       tokenOf(t, key, head, with("filename", `"a/b"`)),
		"a file name with a line break":  tokenOf(t, key, head, with("filename", `"a\nb"`)),
		"no rate":                        tokenOf(t, key, head, with("rate", `0`)),
		"a password that is not":         tokenOf(t, key, head, with("password", `false`)),
		"a token that is longer than it": tokenOf(t, key, head, with("filename", `"`+strings.Repeat("a", MaxToken)+`"`)),
	} {
		if _, err := ask(l, token); reasonOf(err) != authz.ReasonSignature {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Every change of one bit, and every other spelling, is another link, which nobody
// made.
func TestEveryOtherSpellingOfALinkIsRefused(t *testing.T) {
	for _, algorithm := range []string{"HS256", "EdDSA"} {
		k := keysOf(t, makeKey(t, algorithm))
		l := linksOf(t, k)
		token, err := k.Sign("", whole())
		if err != nil {
			t.Fatal(err)
		}
		refuse := func(other string) {
			t.Helper()
			if _, err := ask(l, other); reasonOf(err) != authz.ReasonSignature {
				t.Errorf("%s: %q: %v", algorithm, other, err)
			}
		}
		for i := range token {
			for bit := range 8 {
				b := []byte(token)
				b[i] ^= 1 << bit
				if b[i] != '&' && b[i] != '#' { // these end the parameter
					refuse(string(b))
				}
			}
			refuse(token[:i])
			refuse(token[:i] + "\n" + token[i:])
			refuse(token[:i] + "%" + fmt.Sprintf("%02x", token[i]) + token[i+1:])
		}
		for _, tail := range []string{"=", ".", " ", "%0a", "+", "A"} {
			refuse(token + tail)
		}
		refuse(token + "&link=" + token)
		refuse("&link=" + token)
	}
}

func TestLinkHasItsTime(t *testing.T) {
	k := keysOf(t, makeKey(t, "HS256"))
	c := some()
	c.NotBefore = noon.Add(time.Minute)
	token, err := k.Sign("", c)
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		at     time.Time
		reason authz.Reason
	}{
		{noon.Add(-2 * time.Minute), authz.ReasonNotYet},
		{noon.Add(time.Minute - 1), authz.ReasonNotYet},
		{noon.Add(time.Minute), ""},
		{noon.Add(time.Hour - 1), ""},
		{noon.Add(time.Hour), authz.ReasonExpired},
	} {
		l, err := New(k, &Options{Now: func() time.Time { return row.at }})
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if _, err := ask(l, token); reasonOf(err) != row.reason {
				t.Errorf("at %s: %v, want %q", row.at, err, row.reason)
			}
		}
	}
	c.NotBefore, c.Issued = time.Time{}, noon.Add(10*time.Minute)
	if token, err = k.Sign("", c); err != nil {
		t.Fatal(err)
	}
	if _, err := ask(linksOf(t, k), token); reasonOf(err) != authz.ReasonNotYet {
		t.Errorf("made in the future: %v", err)
	}
}

// A key that is taken out ends its links, remembered ones too; one that is added serves
// beside the others, and signs.
func TestKeysAreRotated(t *testing.T) {
	first, second := makeKey(t, "HS256"), makeKey(t, "EdDSA")
	k := keysOf(t, first)
	l := linksOf(t, k)
	old, err := k.Sign("", some())
	if err != nil {
		t.Fatal(err)
	}
	write := func(keys ...jose.JSONWebKey) {
		t.Helper()
		text, err := json.Marshal(jose.JSONWebKeySet{Keys: keys})
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(k.file, text, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := k.Reload(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	write(first, second)
	if _, err := ask(l, old); err != nil {
		t.Errorf("a link of the first key: %v", err)
	}
	young, err := k.Sign("", some())
	if err != nil {
		t.Fatal(err)
	}
	if head, _ := base64.RawURLEncoding.DecodeString(strings.Split(young, ".")[0]); !strings.Contains(string(head), second.KeyID) {
		t.Errorf("signed with %s, want the last key", head)
	}
	write(second.Public())
	if _, err := ask(l, old); reasonOf(err) != authz.ReasonSignature {
		t.Errorf("a link of a key that is gone: %v", err)
	}
	if _, err := ask(l, young); err != nil {
		t.Errorf("a public half: %v", err)
	}
	if _, err := k.Sign("", some()); err == nil || !strings.Contains(err.Error(), "no key") {
		t.Errorf("signed with a public half: %v", err)
	}
	if err := os.WriteFile(k.file, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := k.Reload(t.Context()); err == nil {
		t.Error("a broken file is read")
	}
	if _, err := ask(l, young); err != nil {
		t.Errorf("after a broken file: %v", err)
	}
}

func TestBadFilesOfKeys(t *testing.T) {
	secret := base64.RawURLEncoding.EncodeToString(make([]byte, 32))
	for text, want := range map[string]string{
		``:            "no JWK set",
		`[]`:          "no JWK set",
		`{}`:          "holds 0 keys",
		`{"keys":[]}`: "holds 0 keys",
		`{"keys":[{"kty":"oct","k":"` + secret + `"}]}`:                                                             "key 1 has no id",
		`{"keys":[{"kty":"oct","kid":"a b","k":"` + secret + `"}]}`:                                                 "key 1 has no id",
		`{"keys":[{"kty":"oct","kid":"a","k":"c2hvcnQ"}]}`:                                                          "less than 32 bytes",
		`{"keys":[{"kty":"oct","kid":"a","alg":"EdDSA","k":"` + secret + `"}]}`:                                     "another algorithm",
		`{"keys":[{"kty":"oct","kid":"a","use":"enc","k":"` + secret + `"}]}`:                                       "not for signatures",
		`{"keys":[{"kty":"oct","kid":"a","k":"` + secret + `"},{"kty":"oct","kid":"a","k":"` + secret + `"}]}`:      "key 2 has the id",
		`{"keys":[{"kty":"oct","kid":"a","kid":"b","k":"` + secret + `"}]}`:                                         "no JWK",
		`{"keys":[{"kty":"EC","kid":"a","crv":"P-256","x":"` + secret + `","y":"` + secret + `"}]}`:                 "key 1 is",
		`{"keys":[` + strings.Repeat(`{"kty":"oct","kid":"a","k":"`+secret+`"},`, 64) + `{"kty":"oct","kid":"z"}]}`: "holds 65 keys",
	} {
		k, err := NewKeys(filepath.Join(t.TempDir(), "keys"))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(k.file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		err = k.Reload(t.Context())
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
		if err != nil && strings.Contains(err.Error(), secret) {
			t.Errorf("%v quotes the secret", err)
		}
	}
}

func TestTokenOfATarget(t *testing.T) {
	for target, want := range map[string]string{
		"/a?link=x":               "x",
		"/a?utm=1&link=x&b":       "x",
		"/a?link=":                "",
		"/a?link":                 "",
		"/a?link=x#f":             "x#f",
		"/a":                      "none",
		"/a?":                     "none",
		"/link=x":                 "none",
		"/a?Link=x":               "none",
		"/a?lin%6b=x":             "none",
		"/a?xlink=x":              "none",
		"/a?link=x&link=x":        "twice",
		"/a?link&link":            "twice",
		"/a?b=?link=x":            "none",
		"/a?link=x;link=y":        "x;link=y",
		"/a?link=x&b=c&d&&link=y": "twice",
	} {
		token, err := Token(target)
		switch {
		case errors.Is(err, authz.ErrNoCredentials):
			token = "none"
		case err != nil:
			token = "twice"
		}
		if token != want {
			t.Errorf("%s: %q, want %q", target, token, want)
		}
	}
}

func FuzzToken(f *testing.F) {
	k := keysOf(f, makeKey(f, "HS256"))
	l := linksOf(f, k)
	token, err := k.Sign("", whole())
	if err != nil {
		f.Fatal(err)
	}
	for _, seed := range []string{token, "", "a.b.c", token[1:], token + "A", strings.ToUpper(token)} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, other string) {
		if _, err := l.Read(other); err == nil && other != token {
			t.Errorf("%q is taken for %q", other, token)
		}
	})
}

// What is remembered costs a digest and a look.
func BenchmarkVerify(b *testing.B) {
	for _, algorithm := range []string{"HS256", "EdDSA"} {
		k := keysOf(b, makeKey(b, algorithm))
		token, err := k.Sign("", some())
		if err != nil {
			b.Fatal(err)
		}
		b.Run(algorithm+"/remembered", func(b *testing.B) {
			l := linksOf(b, k)
			for b.Loop() {
				if _, err := ask(l, token); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(algorithm+"/first", func(b *testing.B) {
			set := k.set.Load()
			for b.Loop() {
				if _, err := set.verify(token); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// A key is added behind the others, which stay as they are; whoever may read the file
// may read it still.
func TestKeyIsAdded(t *testing.T) {
	file := filepath.Join(t.TempDir(), "keys.json")
	first, err := AddKey(file, "HS256", noon)
	if err != nil || !strings.HasPrefix(first, "2026-11-26-") {
		t.Fatalf("%q, %v", first, err)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if err := os.Chmod(file, 0o600); err != nil {
		t.Fatal(err)
	}
	second, err := AddKey(file, "EdDSA", noon)
	if err != nil {
		t.Fatal(err)
	}
	k, err := NewKeys(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := k.Reload(t.Context()); err != nil || !slices.Equal(k.IDs(), []string{first, second}) {
		t.Errorf("%v, %v; want %s and %s", k.IDs(), err, first, second)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if _, err := AddKey(file, "none", noon); err == nil {
		t.Error("made a key for no algorithm")
	}
	if err := os.WriteFile(file, []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := AddKey(file, "HS256", noon); err == nil {
		t.Error("a file that is no JWK set was replaced")
	}
	entries, err := os.ReadDir(filepath.Dir(file))
	if err != nil || len(entries) != 1 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
}
