package identity

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/google/go-cmp/cmp"

	"securefiles/authz"
)

// noon is the time in the tests of tokens.
var noon = time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)

func atNoon() time.Time { return noon }

// signers are private keys by key id. They are made once: RSA takes its time.
var signers = sync.OnceValue(func() map[string]crypto.Signer {
	must := func(key crypto.Signer, err error) crypto.Signer {
		if err != nil {
			panic(err)
		}
		return key
	}
	ec := func(curve elliptic.Curve) crypto.Signer { return must(ecdsa.GenerateKey(curve, rand.Reader)) }
	rsaOf := func(bits int) crypto.Signer { return must(rsa.GenerateKey(rand.Reader, bits)) }
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	return map[string]crypto.Signer{
		"rsa": rsaOf(2048), "rsa-mallory": rsaOf(2048), "rsa-weak": rsaOf(1024),
		"p256": ec(elliptic.P256()), "p256-next": ec(elliptic.P256()), "p384": ec(elliptic.P384()), "p521": ec(elliptic.P521()),
		"ed": must(ed, err),
	}
})

// public returns the JWK of a signer.
func public(id string) jose.JSONWebKey {
	return jose.JSONWebKey{KeyID: id, Key: signers()[id].Public(), Use: "sig"}
}

func jwks(t testing.TB, keys ...jose.JSONWebKey) string {
	t.Helper()
	text, err := json.Marshal(jose.JSONWebKeySet{Keys: keys})
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// An issuer answers with a JWKS, or in whatever way a test wants.
type issuer struct {
	*httptest.Server
	asked  atomic.Int32
	answer atomic.Pointer[http.HandlerFunc]
}

func newIssuer(t testing.TB, answer http.HandlerFunc) *issuer {
	t.Helper()
	i := &issuer{}
	i.answer.Store(&answer)
	i.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		i.asked.Add(1)
		(*i.answer.Load())(w, r)
	}))
	t.Cleanup(i.Close)
	return i
}

func says(text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(text)) }
}

const testIssuer = "https://id.example.org/realms/staff"

// claims are what a good token says, changed by edits: a nil value removes.
func claims(edits map[string]any) string {
	c := map[string]any{
		"iss": testIssuer, "aud": "files", "sub": "alice", "exp": noon.Add(time.Hour).Unix(), "iat": noon.Add(-time.Minute).Unix(),
		"email": "alice@example.org", "email_verified": true,
		"realm_access": map[string]any{"roles": []string{"staff", "sales"}}, "https://example.org/teams": []string{"red"},
	}
	maps.Copy(c, edits)
	maps.DeleteFunc(c, func(_ string, v any) bool { return v == nil })
	text, err := json.Marshal(c)
	if err != nil {
		panic(err)
	}
	return string(text)
}

func b64(text string) string { return base64.RawURLEncoding.EncodeToString([]byte(text)) }

// sign returns a token with this header and payload, byte for byte. The
// algorithm is the signature's, whatever the header says.
func sign(t testing.TB, key any, algorithm jose.SignatureAlgorithm, header, payload string) string {
	t.Helper()
	return signed(t, key, algorithm, b64(header)+"."+b64(payload))
}

// signed signs what has been encoded already.
func signed(t testing.TB, key any, algorithm jose.SignatureAlgorithm, input string) string {
	t.Helper()
	signature, err := signature(key, algorithm, input)
	if err != nil {
		t.Fatal(err)
	}
	return input + "." + base64.RawURLEncoding.EncodeToString(signature)
}

// token returns a good token of a signer of the issuer, but for the edits.
func token(t testing.TB, id string, algorithm jose.SignatureAlgorithm, edits map[string]any) string {
	t.Helper()
	return sign(t, signers()[id], algorithm, fmt.Sprintf(`{"alg":%q,"kid":%q,"typ":"JWT"}`, algorithm, id), claims(edits))
}

func newTestKeys(t testing.TB, opts KeysOptions) *Keys {
	t.Helper()
	opts.Issuer = testIssuer
	if opts.Now == nil {
		opts.Now = atNoon
	}
	k, err := NewKeys(opts)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func newTestJWT(t testing.TB, k *Keys, opts JWTOptions) *JWT {
	t.Helper()
	if opts.Audiences == nil {
		opts.Audiences = []string{"files", "files-api"}
	}
	if opts.Now == nil {
		opts.Now = atNoon
	}
	j, err := NewJWT(k, opts)
	if err != nil {
		t.Fatal(err)
	}
	return j
}

// loaded returns keys that an issuer has answered with.
func loaded(t testing.TB, opts KeysOptions, keys ...jose.JSONWebKey) *Keys {
	t.Helper()
	opts.URL = newIssuer(t, says(jwks(t, keys...))).URL
	k := newTestKeys(t, opts)
	if err := k.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	return k
}

func TestJWT(t *testing.T) {
	all := loaded(t, KeysOptions{Algorithms: asymmetricAlgorithms}, public("rsa"), public("p256"), public("p384"), public("p521"), public("ed"))
	for _, test := range []struct {
		name   string
		opts   JWTOptions
		token  string
		groups []string
		want   string // alice, if empty
	}{
		{name: "RS256", token: token(t, "rsa", jose.RS256, nil)},
		{name: "RS512", token: token(t, "rsa", jose.RS512, nil)},
		{name: "PS256", token: token(t, "rsa", jose.PS256, nil)},
		{name: "ES256", token: token(t, "p256", jose.ES256, nil)},
		{name: "ES384", token: token(t, "p384", jose.ES384, nil)},
		{name: "ES512", token: token(t, "p521", jose.ES512, nil)},
		{name: "EdDSA", token: token(t, "ed", jose.EdDSA, nil)},
		{name: "an audience of several", token: token(t, "p256", jose.ES256, map[string]any{"aud": []string{"mail", "files-api"}})},
		{name: "expired within the leeway", token: token(t, "p256", jose.ES256, map[string]any{"exp": noon.Add(-29 * time.Second).Unix()})},
		{name: "valid soon within the leeway", token: token(t, "p256", jose.ES256, map[string]any{"nbf": noon.Add(29 * time.Second).Unix()})},
		{name: "a date with a fraction", token: token(t, "p256", jose.ES256, map[string]any{"exp": float64(noon.Unix()) + 0.5})},
		{name: "an access token of RFC 9068", token: sign(t, signers()["p256"], jose.ES256, `{"alg":"ES256","kid":"p256","typ":"application/at+JWT"}`, claims(nil))},
		{name: "no type, and addresses of keys that nobody asks", token: sign(t, signers()["p256"], jose.ES256, `{"alg":"ES256","kid":"p256","jku":"https://mallory.example/keys","x5u":"https://mallory.example/cert","x5t":"AAAA"}`, claims(nil))},
		{name: "another claim for the subject", opts: JWTOptions{SubjectClaim: "email"}, token: token(t, "p256", jose.ES256, nil), want: "alice@example.org"},
		{name: "groups at a path", opts: JWTOptions{GroupsClaim: "realm_access.roles"}, token: token(t, "p256", jose.ES256, nil), groups: []string{"@staff", "@sales"}},
		{name: "groups in a claim with dots in its name", opts: JWTOptions{GroupsClaim: "https://example.org/teams"}, token: token(t, "p256", jose.ES256, nil), groups: []string{"@red"}},
		{name: "one group as a text", opts: JWTOptions{GroupsClaim: "role"}, token: token(t, "p256", jose.ES256, map[string]any{"role": "chief of staff"}), groups: []string{"@chief of staff"}},
		{name: "no groups", opts: JWTOptions{GroupsClaim: "groups"}, token: token(t, "p256", jose.ES256, map[string]any{"groups": []string{}})},
		{name: "no claim for groups", opts: JWTOptions{GroupsClaim: "a.b.c", GroupsOptional: true}, token: token(t, "p256", jose.ES256, nil)},
		{name: "an object on the way that is none", opts: JWTOptions{GroupsClaim: "sub.roles", GroupsOptional: true}, token: token(t, "p256", jose.ES256, nil)},
	} {
		t.Run(test.name, func(t *testing.T) {
			want := authz.Principal{Subject: "alice", Groups: test.groups, Source: "jwt"}
			if test.want != "" {
				want.Subject = test.want
			}
			for _, lines := range [][]string{{"Authorization: Bearer " + test.token}, {"Authorization: bearer   " + test.token}} {
				j := newTestJWT(t, all, test.opts)
				for _, how := range []string{"checked", "remembered"} {
					got, err := j.Authenticate(t.Context(), request(t, lines...))
					if diff := cmp.Diff(want, got); diff != "" || err != nil {
						t.Errorf("%s: %v, -want +got:\n%s", how, err, diff)
					}
				}
			}
			test.opts.Cookie = "__Host-token"
			j := newTestJWT(t, all, test.opts)
			got, err := j.Authenticate(t.Context(), request(t, "Cookie: theme=dark; __Host-token="+test.token+"; lang=de", "Authorization: Bearer something.else.entirely"))
			if diff := cmp.Diff(want, got); diff != "" || err != nil {
				t.Errorf("in a cookie: %v, -want +got:\n%s", err, diff)
			}
			test.opts.Cookie, test.opts.Header = "", "Cf-Access-Jwt-Assertion"
			j = newTestJWT(t, all, test.opts)
			got, err = j.Authenticate(t.Context(), request(t, "cf-access-jwt-assertion: "+test.token, "Authorization: Bearer something.else.entirely"))
			if diff := cmp.Diff(want, got); diff != "" || err != nil {
				t.Errorf("in a header of its own: %v, -want +got:\n%s", err, diff)
			}
		})
	}
}

func TestJWTFindsNothing(t *testing.T) {
	keys := newTestKeys(t, KeysOptions{}) // not loaded: nobody asks for them
	for _, test := range []struct{ name, cookie, line string }{
		{"no header", "", "Accept: */*"},
		{"an empty header", "", "Authorization: "},
		{"another scheme", "", basic("alice:alice")},
		{"a scheme that begins alike", "", "Authorization: Bearer-2 a.b.c"},
		{"a token in a cookie that is not looked at", "", "Cookie: token=a.b.c"},
		{"no cookie", "token", "Accept: */*"},
		{"other cookies", "token", "Cookie: token2=a.b.c; xtoken=a.b.c; a=token=a.b.c; token"},
		{"the cookie in another case", "token", "Cookie: Token=a.b.c"},
		{"an empty cookie", "token", "Cookie: token="},
		{"a bearer token that is not looked at", "token", "Authorization: Bearer a.b.c"},
	} {
		if test.cookie == "" {
			p, err := newTestJWT(t, keys, JWTOptions{Header: "X-Access-Token"}).Authenticate(t.Context(), request(t, test.line, "X-Access-Token: "))
			if !errors.Is(err, authz.ErrNoCredentials) || p.Subject != "" {
				t.Errorf("a header of its own, %s: got %v, %v", test.name, p, err)
			}
		}
		p, err := newTestJWT(t, keys, JWTOptions{Cookie: test.cookie}).Authenticate(t.Context(), request(t, test.line))
		if !errors.Is(err, authz.ErrNoCredentials) || p.Subject != "" {
			t.Errorf("%s: got %v, %v", test.name, p, err)
		}
	}
}

// S19: a token is checked once while it is valid and the keys are the same.
func TestJWTRemembers(t *testing.T) {
	from := newIssuer(t, says(jwks(t, public("p256"))))
	now := noon
	clock := func() time.Time { return now }
	k := newTestKeys(t, KeysOptions{URL: from.URL, Now: clock})
	if err := k.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	j := newTestJWT(t, k, JWTOptions{Now: clock})
	good := token(t, "p256", jose.ES256, nil)
	ask := func(token string) error {
		_, err := j.Authenticate(t.Context(), request(t, "Authorization: Bearer "+token))
		return err
	}
	size := func() int { j.remembered.CleanUp(); return j.remembered.EstimatedSize() }
	if err := ask(good); err != nil || size() != 1 {
		t.Fatalf("got %v, %d tokens remembered", err, size())
	}
	// No part of it may differ.
	for i := range len(good) {
		other := []byte(good)
		other[i] ^= 1
		if ask(string(other)) == nil && string(other) != good {
			t.Errorf("a token that differs at byte %d was accepted", i)
		}
	}
	if size() != 1 {
		t.Errorf("%d tokens are remembered after wrong ones", size())
	}
	// It ends when it says, leeway included.
	now = noon.Add(time.Hour + 30*time.Second - 1)
	if err := ask(good); err != nil {
		t.Errorf("at its last moment: %v", err)
	}
	now = noon.Add(time.Hour + 30*time.Second)
	if err := ask(good); message(err) != "jwt: the token has expired" {
		t.Errorf("after its end: %v", err)
	}
	// A key that the issuer withdraws takes its tokens along.
	now = noon
	if err := ask(good); err != nil {
		t.Fatal(err)
	}
	next := says(jwks(t, public("p256-next")))
	from.answer.Store(&next)
	if err := k.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := ask(good); message(err) != "jwt: no key of the issuer has the token's key id" {
		t.Errorf("with a withdrawn key: %v", err)
	}
	if got := k.Status(); got.Generation != 2 || got.Keys != 1 || got.Err != nil {
		t.Errorf("status %+v", got)
	}
}

// An email that the issuer has not verified is anybody's.
func TestEmailMustBeVerified(t *testing.T) {
	k := loaded(t, KeysOptions{}, public("p256"))
	j := newTestJWT(t, k, JWTOptions{SubjectClaim: "email"})
	for _, verified := range []any{nil, false, "true", 1, []bool{true}} {
		p, err := j.Authenticate(t.Context(), request(t, "Authorization: Bearer "+token(t, "p256", jose.ES256, map[string]any{"email_verified": verified})))
		wantRefused(t, p, err, authz.CredentialsError{Source: "jwt", Problem: "the issuer has not verified the email (email_verified)", Challenge: `Bearer realm="downloads", error="invalid_token"`})
	}
}

// The tokens of RFC 7515 (appendices A.1 to A.3) and RFC 8037 (A.4) carry their
// keys' signatures, and not those of a token that differs in one bit. They are
// refused for what they say: none names an audience.
func TestTokensOfRFCs(t *testing.T) {
	const joe = "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ"
	const audience = "jwt: the token is for another audience (aud)"
	vectors := []struct{ name, algorithm, jwk, token, want string }{
		{
			"RFC 7515 A.1", "HS256", `{"kty":"oct","k":"AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow"}`,
			"eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9." + joe + ".dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk", audience,
		},
		{
			"RFC 7515 A.2", "RS256", `{"kty":"RSA","e":"AQAB","n":"ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ"}`,
			"eyJhbGciOiJSUzI1NiJ9." + joe + ".cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw", audience,
		},
		{
			"RFC 7515 A.3", "ES256", `{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}`,
			"eyJhbGciOiJFUzI1NiJ9." + joe + ".DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q", audience,
		},
		{
			"RFC 8037 A.4", "EdDSA", `{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}`,
			"eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg",
			"jwt: what the token claims is not a JSON object without duplicates",
		},
	}
	for _, v := range vectors {
		file := filepath.Join(t.TempDir(), "keys.json")
		if err := os.WriteFile(file, []byte(`{"keys":[`+v.jwk+`]}`), 0o600); err != nil {
			t.Fatal(err)
		}
		k, err := NewKeys(KeysOptions{Issuer: "joe", File: file, Algorithms: []string{v.algorithm}})
		if err != nil {
			t.Fatal(err)
		}
		if err := k.Refresh(t.Context()); err != nil {
			t.Fatalf("%s: %v", v.name, err)
		}
		j := newTestJWT(t, k, JWTOptions{Now: func() time.Time { return time.Unix(1300819379, 0) }})
		if _, err := j.Authenticate(t.Context(), request(t, "Authorization: Bearer "+v.token)); message(err) != v.want {
			t.Errorf("%s: got %v, want %s", v.name, err, v.want)
		}
		at := strings.LastIndex(v.token, ".") + 1
		other := "A"
		if v.token[at] == 'A' {
			other = "B"
		}
		if _, err := j.Authenticate(t.Context(), request(t, "Authorization: Bearer "+v.token[:at]+other+v.token[at+1:])); message(err) != "jwt: the signature is not one of the issuer's key" {
			t.Errorf("%s, with another signature: got %v", v.name, err)
		}
	}
}

func TestJWTWithASharedSecret(t *testing.T) {
	secret := strings.Repeat("s", 32)
	file := filepath.Join(t.TempDir(), "keys.json")
	text := fmt.Sprintf(`{"keys":[{"kty":"oct","kid":"app","k":%q}]}`, b64(secret))
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	k := newTestKeys(t, KeysOptions{File: file, Algorithms: []string{"HS256"}})
	if err := k.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	j := newTestJWT(t, k, JWTOptions{})
	p, err := j.Authenticate(t.Context(), request(t, "Authorization: Bearer "+sign(t, []byte(secret), jose.HS256, `{"alg":"HS256"}`, claims(nil))))
	if err != nil || p.Subject != "alice" {
		t.Errorf("got %v, %v", p, err)
	}
	if text := fmt.Sprintf("%v %+v %#v %v", k, k, k, j); strings.Contains(text, secret) || strings.Contains(text, "115") {
		t.Errorf("the secret is printed: %s", text)
	}
}

func TestNewJWTRefuses(t *testing.T) {
	k := newTestKeys(t, KeysOptions{})
	for _, test := range []struct {
		keys *Keys
		opts JWTOptions
		want string
	}{
		{nil, JWTOptions{Audiences: []string{"files"}}, "there are no keys"},
		{k, JWTOptions{}, "audience: is missing: without it a token for any service of the issuer would do; list what aud must name"},
		{k, JWTOptions{Audiences: []string{"files", ""}}, "audience: is missing: without it a token for any service of the issuer would do; list what aud must name"},
		{k, JWTOptions{Audiences: []string{"files"}, Leeway: time.Hour}, "leeway: 1h0m0s is out of range: 1ms to 5m0s"},
		{k, JWTOptions{Audiences: []string{"files"}, Cookie: "a b"}, `cookie: "a b" is not a cookie's name: letters, digits, -, _ and others of RFC 6265`},
	} {
		if j, err := NewJWT(test.keys, test.opts); j != nil || message(err) != test.want {
			t.Errorf("got %v, %v, want %s", j, err, test.want)
		}
	}
}

// Whatever bytes arrive: nobody is named beside an error, only the issuer's own
// tokens name anybody, and a refusal quotes nothing of them.
func FuzzJWT(f *testing.F) {
	k := loaded(f, KeysOptions{Algorithms: asymmetricAlgorithms}, public("rsa"), public("p256"))
	good := token(f, "p256", jose.ES256, nil)
	header, _, _ := strings.Cut(good, ".")
	for _, seed := range []string{
		good, token(f, "rsa", jose.RS256, nil), header + "..", "..", "a.b.c", good + "=", good + ".", " " + good,
		b64(`{"alg":"none"}`) + "." + b64(claims(nil)) + ".", b64(`{"alg":"ES256","kid":"p256","crit":["exp"]}`) + "..", "a.b.c.d.e",
		b64(`{"alg":"ES256","alg":"none"}`) + ".e30.", strings.Repeat("A", 9000),
	} {
		f.Add(seed, "token="+seed)
	}
	f.Add("", "token=a; token=b")
	f.Add("", `a="; token=x"; token=y`)
	bearer := newTestJWT(f, k, JWTOptions{GroupsClaim: "realm_access.roles"})
	cookie := newTestJWT(f, k, JWTOptions{GroupsClaim: "realm_access.roles", Cookie: "token"})
	f.Fuzz(func(t *testing.T, credentials, cookies string) {
		for _, ask := range []struct {
			source *JWT
			header http.Header
			text   string
		}{
			{bearer, http.Header{"Authorization": {"Bearer " + credentials}}, credentials},
			{cookie, http.Header{"Cookie": {cookies}}, cookies},
		} {
			p, err := ask.source.Authenticate(t.Context(), &authz.Question{Header: ask.header})
			if err == nil {
				if p.Subject != "alice" || p.Source != "jwt" || len(p.Groups) != 2 {
					t.Fatalf("%q became %+v", ask.text, p)
				}
				continue
			}
			var refused *authz.CredentialsError
			if p.Subject != "" || p.Groups != nil || !errors.As(err, &refused) && !errors.Is(err, authz.ErrNoCredentials) {
				t.Fatalf("%q: %+v beside %v", ask.text, p, err)
			}
			if refused != nil && len(refused.Problem) > 200 {
				t.Fatalf("a long problem: %s", refused.Problem)
			}
		}
	})
}

// A cookie that is found stands in the header, once, and holds no separator.
func FuzzCookie(f *testing.F) {
	for _, seed := range []string{"token=x", "a=b; token=x", "token=x; token=y", " token = x ;", "token", "token=x=y", ";;token=", "Token=x", "a=\"token=x\"", "\x00token=\xff"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, line string) {
		value, err := onlyCookie(http.Header{"Cookie": {line}}, "token")
		if err != nil || value == "" {
			return
		}
		if strings.Contains(value, ";") || strings.TrimSpace(value) != value && strings.Trim(value, " \t") != value || !strings.Contains(line, value) {
			t.Fatalf("%q holds the cookie %q", line, value)
		}
		// A second one is noticed, wherever it stands.
		for _, more := range []string{line + "; token=other", "token=other;" + line} {
			if again, err := onlyCookie(http.Header{"Cookie": {more}}, "token"); err == nil {
				t.Fatalf("%q holds one cookie: %q", more, again)
			}
		}
	})
}

func BenchmarkJWT(b *testing.B) {
	k := loaded(b, KeysOptions{}, public("rsa"), public("p256"))
	for _, algorithm := range []struct {
		id   string
		name jose.SignatureAlgorithm
	}{{"rsa", jose.RS256}, {"p256", jose.ES256}} {
		r := request(b, "Authorization: Bearer "+token(b, algorithm.id, algorithm.name, nil))
		for _, how := range []string{"remembered", "checked"} {
			b.Run(string(algorithm.name)+"/"+how, func(b *testing.B) {
				j := newTestJWT(b, k, JWTOptions{GroupsClaim: "realm_access.roles"})
				b.ReportAllocs()
				for b.Loop() {
					if how == "checked" {
						j.secret = newSecret()
					}
					if _, err := j.Authenticate(b.Context(), r); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

// A token in a header of its own stands there alone and once, and nginx is told to pass
// it on: the client's, but none that another source believes of nginx.
func TestTokenInAHeaderOfItsOwn(t *testing.T) {
	k := loaded(t, KeysOptions{}, public("p256"))
	j := newTestJWT(t, k, JWTOptions{Header: "Cf-Access-Jwt-Assertion"})
	good := token(t, "p256", jose.ES256, nil)
	for _, test := range []struct {
		name  string
		lines []string
		want  string
	}{
		{"twice", []string{"Cf-Access-Jwt-Assertion: " + good, "Cf-Access-Jwt-Assertion: " + good}, "Cf-Access-Jwt-Assertion came more than once"},
		{"in another spelling beside it", []string{"Cf-Access-Jwt-Assertion: " + good, "Cf_Access_Jwt_Assertion: " + good}, "Cf-Access-Jwt-Assertion came more than once"},
		{"with a scheme", []string{"Cf-Access-Jwt-Assertion: Bearer " + good}, "the token holds what is not base64url"},
		{"two in one", []string{"Cf-Access-Jwt-Assertion: " + good + "," + good}, "the token holds what is not base64url"},
		{"for others", []string{"Cf-Access-Jwt-Assertion: " + token(t, "p256", jose.ES256, map[string]any{"aud": "mail"})}, "the token is for another audience (aud)"},
	} {
		p, err := j.Authenticate(t.Context(), request(t, test.lines...))
		wantRefused(t, p, err, authz.CredentialsError{Source: "jwt", Problem: test.want})
	}
	source := must(NewJWTSource(nil, KeysOptions{Issuer: testIssuer}, JWTOptions{Audiences: []string{"files"}, Header: "X-Token"}))(t)
	if len(source.Headers) != 1 || source.Headers[0].Name != "X-Token" || !source.Headers[0].FromClient || source.Challenge != "" {
		t.Errorf("the row is %+v", source)
	}
	notes, err := source.Notes()
	if err != nil || len(notes) != 1 || !strings.Contains(notes[0].Message, "must be the only way to nginx") {
		t.Errorf("notes %+v, %v", notes, err)
	}
	believing := must(NewHeaderSource(HeaderOptions{Header: "X-User", GroupsHeader: "x-token"}))(t)
	if err := (Sources{source, believing}).Conflicts(); err == nil || !strings.Contains(err.Error(), "header: \"X-Token\" is what identity[1] believes of nginx") {
		t.Errorf("a header that nginx is believed: %v", err)
	}
	again := must(NewJWTSource(nil, KeysOptions{Issuer: testIssuer}, JWTOptions{Audiences: []string{"mail"}, Header: "x-token"}))(t)
	if err := (Sources{source, again}).Conflicts(); err == nil || !strings.Contains(err.Error(), "is never asked") {
		t.Errorf("a header twice: %v", err)
	}
}
