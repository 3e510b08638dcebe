package identity

import (
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"securefiles/authz"
)

// A hostileRow is one request that must be refused.
type hostileRow struct {
	name   string
	lines  []string    // header lines, as a server reads them
	header http.Header // or headers that no server reads, but a bug might make
	want   string      // source: problem
}

// What a refusal may cost. A check of an RSA signature allocates some 20 KiB.
const (
	mostTime  = 2 * time.Second
	mostBytes = 1 << 20
)

// S9, S14, S16, S19, S20, S21: credentials that are wrong, each refused with its
// reason by the chain of all sources, at a bounded price; nothing falls through
// to a source that would have accepted, and nobody is asked for keys but the
// issuer, once for all that name an unknown key.
func TestHostileCredentials(t *testing.T) {
	mallory := newIssuer(t, says(jwks(t, public("rsa-mallory"))))
	twin := public("p384")
	twin.KeyID = "twins"
	other := public("p521")
	other.KeyID = "twins"
	enc := public("rsa")
	enc.KeyID, enc.Use = "for-encryption", "enc"
	only512 := public("rsa")
	only512.KeyID, only512.Algorithm = "rs512-only", "RS512"
	keyset := newIssuer(t, says(jwks(t, public("rsa"), public("p256"), public("p384"), public("ed"), public("rsa-weak"), twin, other, enc, only512)))
	keys := newTestKeys(t, KeysOptions{URL: keyset.URL})
	if err := keys.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	const groups = "realm_access.roles"
	chain := Chain{
		newTestHeader(t),
		newTestJWT(t, keys, JWTOptions{GroupsClaim: groups}),
		newTestJWT(t, keys, JWTOptions{GroupsClaim: groups, Cookie: "token"}),
		newTestBasic(t, usersFile, nil),
	}
	rows := append(hostileTokens(t, mallory.URL), hostileHeaders(t)...)
	if len(rows) < 100 {
		t.Errorf("only %d rows", len(rows))
	}
	names := map[string]bool{}
	for _, row := range rows {
		if names[row.name] {
			t.Errorf("two rows are called %q", row.name)
		}
		names[row.name] = true
		t.Run(row.name, func(t *testing.T) {
			r := &authz.Question{Header: row.header}
			if row.header == nil {
				r = request(t, row.lines...)
			}
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			start := time.Now()
			p, err := chain.Authenticate(t.Context(), r)
			took := time.Since(start)
			runtime.ReadMemStats(&after)
			var refused *authz.CredentialsError
			if !errors.As(err, &refused) || refused.Error() != row.want || p.Subject != "" || p.Groups != nil {
				t.Errorf("got %+v, %v\nwant %s", p, err, row.want)
			}
			if bytes := after.TotalAlloc - before.TotalAlloc; took > mostTime || bytes > mostBytes {
				t.Errorf("cost %v and %d bytes", took, bytes)
			}
		})
	}
	if n := keyset.asked.Load(); n != 2 {
		t.Errorf("the issuer was asked %d times, not once at the start and once for unknown keys", n)
	}
	if n := mallory.asked.Load(); n != 0 {
		t.Errorf("keys were asked for %d times where a token said", n)
	}
	// The rows fail for their own reason: what they are made from is accepted.
	for _, line := range []string{"X-Remote-User: alice", "Authorization: Bearer " + token(t, "rsa", jose.RS256, nil), "Cookie: token=" + token(t, "p256", jose.ES256, nil), basic("alice:" + password)} {
		if p, err := chain.Authenticate(t.Context(), request(t, line)); err != nil || p.Subject != "alice" {
			t.Errorf("%.40s…: got %+v, %v", line, p, err)
		}
	}
}

func hostileTokens(t *testing.T, malloryURL string) []hostileRow {
	rsaKey, mallory := signers()["rsa"], signers()["rsa-mallory"]
	const rs256, es256 = `{"alg":"RS256","kid":"rsa"}`, `{"alg":"ES256","kid":"p256"}`
	good := claims(nil)
	goodToken := token(t, "rsa", jose.RS256, nil)
	body, _, _ := strings.Cut(goodToken[strings.Index(goodToken, ".")+1:], ".")

	der, err := x509.MarshalPKIXPublicKey(rsaKey.Public())
	if err != nil {
		t.Fatal(err)
	}
	publicPEM := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	publicJWK, err := json.Marshal(public("rsa"))
	if err != nil {
		t.Fatal(err)
	}
	malloryJWK, err := json.Marshal(public("rsa-mallory"))
	if err != nil {
		t.Fatal(err)
	}
	p256 := signers()["p256"].(*ecdsa.PrivateKey)
	fixed, err := signature(p256, jose.ES256, b64(es256)+"."+b64(good))
	if err != nil {
		t.Fatal(err)
	}
	derSignature, err := asn1.Marshal(struct{ R, S *big.Int }{new(big.Int).SetBytes(fixed[:32]), new(big.Int).SetBytes(fixed[32:])})
	if err != nil {
		t.Fatal(err)
	}
	whole, err := signature(rsaKey, jose.RS256, b64(rs256)+"."+b64(good))
	if err != nil {
		t.Fatal(err)
	}
	raw := func(header, payload string, signature []byte) string {
		return b64(header) + "." + b64(payload) + "." + base64.RawURLEncoding.EncodeToString(signature)
	}
	// by returns a token that the issuer's key has signed, with this header.
	by := func(header string) string { return sign(t, rsaKey, jose.RS256, header, good) }
	// saying returns a token that the issuer has signed, with this payload.
	saying := func(payload string) string { return sign(t, rsaKey, jose.RS256, rs256, payload) }
	edited := func(name string, value any) string { return saying(claims(map[string]any{name: value})) }
	roles := func(roles any) string { return edited("realm_access", map[string]any{"roles": roles}) }
	many := make([]string, 257)
	for i := range many {
		many[i] = fmt.Sprint("g", i)
	}

	const (
		algorithm  = "the token's algorithm is not allowed"
		noKey      = "no key of the issuer has the token's key id"
		signature  = "the signature is not one of the issuer's key"
		noText     = "the token's key id is not a text"
		three      = "the token is not of three parts"
		base64url  = "the token is not of three parts in base64url"
		characters = "the token holds what is not base64url"
		object     = " is not a JSON object without duplicates"
		notAllowed = ", which is not accepted"
		fit        = "the token's algorithm is not one of its key's"
		audience   = "the token is for another audience (aud)"
		issuer     = "the token is of another issuer (iss)"
		noDate     = " is not a date in seconds"
		claimed    = "what the token claims"
		subject    = "the claim for the subject is missing or no text"
	)
	type tokenRow struct{ name, token, want string }
	tokens := []tokenRow{
		// The algorithm.
		{"alg none", raw(`{"alg":"none"}`, good, nil), algorithm},
		{"alg NoNe", raw(`{"alg":"NoNe","kid":"rsa"}`, good, nil), algorithm},
		{"alg NONE with a signature", by(`{"alg":"NONE","kid":"rsa"}`), algorithm},
		{"alg empty", by(`{"alg":"","kid":"rsa"}`), algorithm},
		{"alg missing", by(`{"kid":"rsa"}`), "the token names no algorithm"},
		{"alg a number", by(`{"alg":256,"kid":"rsa"}`), "the token names no algorithm"},
		{"alg a list", by(`{"alg":["RS256"],"kid":"rsa"}`), "the token names no algorithm"},
		{"alg in another case", by(`{"alg":"rs256","kid":"rsa"}`), algorithm},
		{"alg with a blank", by(`{"alg":"RS256 ","kid":"rsa"}`), algorithm},
		{"alg of weak SHA-1", by(`{"alg":"RS1","kid":"rsa"}`), algorithm},
		{"an algorithm that is not on the list", token(t, "rsa", jose.RS384, nil), algorithm},
		{"RS/HS confusion, the public key in PEM as the secret", sign(t, publicPEM, jose.HS256, `{"alg":"HS256","kid":"rsa"}`, good), algorithm},
		{"RS/HS confusion, the public key in DER as the secret", sign(t, der, jose.HS256, `{"alg":"HS256","kid":"rsa"}`, good), algorithm},
		{"RS/HS confusion, the JWK as the secret", sign(t, publicJWK, jose.HS256, `{"alg":"HS256","kid":"rsa"}`, good), algorithm},
		{"an HMAC under the name RS256", sign(t, publicPEM, jose.HS256, rs256, good), signature},
		{"an elliptic key with an RSA algorithm", sign(t, mallory, jose.RS256, `{"alg":"RS256","kid":"p256"}`, good), fit},
		{"an RSA key with an elliptic algorithm", sign(t, p256, jose.ES256, `{"alg":"ES256","kid":"rsa"}`, good), fit},
		{"an elliptic key of another curve", sign(t, p256, jose.ES256, `{"alg":"ES256","kid":"p384"}`, good), fit},
		{"an Ed25519 key with ES256", sign(t, p256, jose.ES256, `{"alg":"ES256","kid":"ed"}`, good), fit},
		{"a PSS signature under the name RS256", sign(t, rsaKey, jose.PS256, rs256, good), signature},
		{"a PKCS1 signature under the name PS256", sign(t, rsaKey, jose.RS256, `{"alg":"PS256","kid":"rsa"}`, good), signature},
		{"a key that is for another algorithm", sign(t, rsaKey, jose.RS256, `{"alg":"RS256","kid":"rs512-only"}`, good), "the issuer's key of this id serves no algorithm that is allowed, by its type, curve, length or alg"},

		// The key.
		{"an unknown key id", sign(t, mallory, jose.RS256, `{"alg":"RS256","kid":"mallory"}`, good), noKey},
		{"a key id that is a path", sign(t, []byte{}, jose.RS256, `{"alg":"RS256","kid":"../../../../dev/null"}`, good), noKey},
		{"a key id that is SQL", by(`{"alg":"RS256","kid":"' UNION SELECT 'key' --"}`), noKey},
		{"a key id that is a URL", by(`{"alg":"RS256","kid":"` + malloryURL + `"}`), noKey},
		{"a key id that is a command", by(`{"alg":"RS256","kid":"|/usr/bin/id"}`), noKey},
		{"a key id with NUL", by(`{"alg":"RS256","kid":"rsa\u0000"}`), noKey},
		{"a key id in another case", by(`{"alg":"RS256","kid":"RSA"}`), noKey},
		{"a key id that is a number", by(`{"alg":"RS256","kid":0}`), noText},
		{"a key id that is an object", by(`{"alg":"RS256","kid":{"rsa":1}}`), noText},
		{"an empty key id", by(`{"alg":"RS256","kid":""}`), noText},
		{"a null for a key id", by(`{"alg":"RS256","kid":null}`), noText},
		{"no key id, where there are several keys", by(`{"alg":"RS256"}`), "the token names no key id, and the issuer has several keys"},
		{"somebody else's signature", sign(t, mallory, jose.RS256, rs256, good), signature},
		{"a key of its own (jwk)", sign(t, mallory, jose.RS256, `{"alg":"RS256","kid":"rsa","jwk":`+string(malloryJWK)+`}`, good), "the token's header has jwk" + notAllowed},
		{"keys by URL (jku)", sign(t, mallory, jose.RS256, `{"alg":"RS256","kid":"rsa-mallory","jku":"`+malloryURL+`"}`, good), noKey},
		{"keys by URL (jku) for a known key", sign(t, mallory, jose.RS256, `{"alg":"RS256","kid":"rsa","jku":"`+malloryURL+`"}`, good), signature},
		{"a certificate by URL (x5u)", sign(t, mallory, jose.RS256, `{"alg":"RS256","kid":"rsa","x5u":"`+malloryURL+`"}`, good), signature},
		{"a certificate that is none (x5c)", sign(t, mallory, jose.RS256, `{"alg":"RS256","kid":"rsa","x5c":["AAAA"]}`, good), "the token is malformed"},
		{"a weak RSA key of the issuer", sign(t, signers()["rsa-weak"], jose.RS256, `{"alg":"RS256","kid":"rsa-weak"}`, good), "the issuer's key of this id is RSA with a modulus that is not of 2048 to 4096 bits, or a bad exponent"},
		{"a key id that two keys have", sign(t, signers()["p384"], jose.ES384, `{"alg":"ES384","kid":"twins"}`, good), "the issuer's key of this id is one of several of this id"},
		{"a key for encryption", by(`{"alg":"RS256","kid":"for-encryption"}`), noKey},

		// The signature.
		{"no signature", raw(rs256, good, nil), signature},
		{"a signature of zeros", raw(rs256, good, make([]byte, 256)), signature},
		{"an elliptic signature of zeros", raw(es256, good, make([]byte, 64)), signature}, // CVE-2022-21449
		{"an elliptic signature in DER", raw(es256, good, derSignature), signature},
		{"a signature that is cut", raw(rs256, good, whole[:255]), signature},
		{"a signature with spare bits", flipSpareBit(goodToken), base64url},
		{"the signature of another token", b64(rs256) + "." + b64(claims(map[string]any{"sub": "root"})) + goodToken[strings.LastIndex(goodToken, "."):], signature},

		// The header.
		{"a critical header", by(`{"alg":"RS256","kid":"rsa","crit":["exp"],"exp":1}`), "the token's header has crit" + notAllowed},
		{"no critical header, but a list", by(`{"alg":"RS256","kid":"rsa","crit":[]}`), "the token's header has crit" + notAllowed},
		{"a null for a critical header", by(`{"alg":"RS256","kid":"rsa","crit":null}`), "the token's header has crit" + notAllowed},
		{"b64 false", by(`{"alg":"RS256","kid":"rsa","b64":false}`), "the token's header has b64" + notAllowed},
		{"b64 false, critical", signed(t, rsaKey, jose.RS256, b64(`{"alg":"RS256","kid":"rsa","b64":false,"crit":["b64"]}`)+"."+good), characters},
		{"compression", by(`{"alg":"RS256","kid":"rsa","zip":"DEF"}`), "the token's header has zip" + notAllowed},
		{"encryption in a signed token", by(`{"alg":"RS256","kid":"rsa","enc":"A128GCM"}`), "the token's header has enc" + notAllowed},
		{"a token in a token", sign(t, rsaKey, jose.RS256, `{"alg":"RS256","kid":"rsa","cty":"JWT"}`, goodToken), "the token holds another (cty)"},
		{"a logout token", by(`{"alg":"RS256","kid":"rsa","typ":"logout+jwt"}`), "the token is of another type (typ)"},
		{"a type that is no text", by(`{"alg":"RS256","kid":"rsa","typ":["JWT"]}`), "the token is of another type (typ)"},
		{"a header with a name twice", by(`{"alg":"RS256","alg":"none","kid":"rsa"}`), "the token's header" + object},
		{"a header that is a list", by(`["RS256"]`), "the token's header" + object},
		{"a header that is null", by(`null`), "the token's header" + object},
		{"a header with more behind it", by(rs256 + `{}`), "the token's header" + object},
		{"a header that is not UTF-8", by("{\"alg\":\"RS256\",\"kid\":\"rsa\xff\"}"), "the token's header is not UTF-8"},

		// The form.
		{"an encrypted token", "eyJhbGciOiJSU0EtT0FFUCJ9.AAAA.AAAA.AAAA.AAAA", "the token is encrypted (JWE): only signed ones are read"},
		{"one part", "AAAA", three},
		{"two parts", "AAAA.AAAA", three},
		{"four parts", goodToken + ".AAAA", three},
		{"dots", "..", "the token's header" + object},
		{"a thousand dots", strings.Repeat(".", 1000), three},
		{"the JSON form of a signature", `{"payload":"` + body + `","protected":"` + b64(rs256) + `","signature":"AAAA"}`, characters},
		{"padding", goodToken + "=", characters},
		{"the other alphabet of base64", b64(rs256) + "." + body + ".+/+/", characters},
		{"base64 that does not end", "A" + goodToken, base64url},
		{"a blank inside", strings.Replace(goodToken, ".", ". ", 1), characters},
		{"not ASCII", goodToken + "é", characters},
		{"not UTF-8", goodToken + "\xff", characters},
		{"longer than 8192 bytes", saying(claims(map[string]any{"x": strings.Repeat("x", 8192)})), "the token is longer than 8192 bytes"},
		{"60,000 bytes", strings.Repeat("A", 60_000), "the token is longer than 8192 bytes"},

		// What it says.
		{"expired", edited("exp", noon.Add(-31*time.Second).Unix()), "the token has expired"},
		{"expired just now", edited("exp", noon.Add(-30*time.Second).Unix()), "the token has expired"},
		{"expired in 1970", edited("exp", 0), "the token has expired"},
		{"exp missing", edited("exp", nil), "the token does not say when it expires (exp)"},
		{"exp null", saying(strings.Replace(good, `"exp":`, `"exp":null,"x":`, 1)), "the token's exp" + noDate},
		{"exp a text", edited("exp", "4102444800"), "the token's exp" + noDate},
		{"exp a list", edited("exp", []int{4102444800}), "the token's exp" + noDate},
		{"exp below zero", edited("exp", -1), "the token's exp" + noDate},
		{"exp in milliseconds", edited("exp", noon.Add(time.Hour).UnixMilli()), "the token's exp" + noDate},
		{"exp beyond int64", saying(strings.Replace(good, `"exp":`, `"exp":1e300,"x":`, 1)), "the token's exp" + noDate},
		{"not valid yet", edited("nbf", noon.Add(31*time.Second).Unix()), "the token is not valid yet (nbf)"},
		{"nbf a text", edited("nbf", "0"), "the token's nbf" + noDate},
		{"issued in the future", edited("iat", noon.Add(time.Hour).Unix()), "the token is not valid yet (iat)"},
		{"another issuer", edited("iss", "https://mallory.example"), issuer},
		{"no issuer", edited("iss", nil), issuer},
		{"the issuer with a slash more", edited("iss", testIssuer+"/"), issuer},
		{"the issuer in a list", edited("iss", []string{testIssuer}), issuer},
		{"another audience", edited("aud", "mail"), audience},
		{"no audience", edited("aud", nil), audience},
		{"an empty list of audiences", edited("aud", []string{}), audience},
		{"a list of other audiences", edited("aud", []string{"mail", "files-other"}), audience},
		{"a list of audiences that holds a number", edited("aud", []any{"files", 7}), audience},
		{"an audience in an object", edited("aud", map[string]any{"files": true}), audience},
		{"an audience that begins alike", edited("aud", "file"), audience},
		{"no subject", edited("sub", nil), subject},
		{"a number for a subject", edited("sub", 0), subject},
		{"a list of subjects", edited("sub", []string{"alice"}), subject},
		{"an empty subject", edited("sub", ""), "the subject is empty"},
		{"a subject with @ in front", edited("sub", "@staff"), "the subject begins with @, which marks groups"},
		{"anonymous for a subject", edited("sub", "anonymous"), "the subject is the name of callers without credentials"},
		{"a subject with CR and LF", edited("sub", "alice\r\nX-Securefiles-Location: /protected/x"), "the subject " + unseen},
		{"a subject with NUL", edited("sub", "alice\x00"), "the subject " + unseen},
		{"a subject with a right-to-left override", edited("sub", "alice\u202e"), "the subject " + unseen},
		{"a subject with a blank at its end", edited("sub", "alice "), "the subject " + edges},
		{"a subject of 257 bytes", edited("sub", strings.Repeat("a", 257)), "the subject is longer than 256 bytes"},
		{"a subject with half a surrogate pair", saying(strings.Replace(good, `"alice"`, `"alice\ud800"`, 1)), "the subject is not valid UTF-8"},
		{"claims that are not UTF-8", saying(strings.Replace(good, `"alice"`, "\"alice\xff\"", 1)), claimed + " is not UTF-8"},
		{"a subject twice", saying(`{"sub":"mallory",` + good[1:]), claimed + object},
		{"a subject twice, once escaped", saying(`{"\u0073ub":"mallory",` + good[1:]), claimed + object},
		{"a name twice, further in", saying(strings.Replace(good, `{"roles":`, `{"roles":["admin"],"roles":`, 1)), claimed + object},
		{"claims in a list", saying("[" + good + "]"), claimed + object},
		{"no claims", saying(""), claimed + object},
		{"claims with more behind them", saying(good + "{}"), claimed + object},
		{"claims nested 600 deep", saying(strings.Repeat(`{"sub":`, 600) + `"alice"` + strings.Repeat("}", 600)), issuer},
		{"claims that do not end", saying(strings.Repeat("[", 5000)), claimed + object},
		{"a group with @ in front", roles([]string{"staff", "@admin"}), "a group begins with @, which marks groups"},
		{"a built-in group", roles([]string{"authenticated"}), "a group is one that the service gives out itself"},
		{"a group with a line break", roles([]string{"staff\nadmin"}), "a group " + unseen},
		{"a group with half a surrogate pair", saying(strings.Replace(good, `"staff"`, `"staff\udfff"`, 1)), "a group is not valid UTF-8"},
		{"257 groups", roles(many), "there are more than 256 groups"},
	}
	rows := make([]hostileRow, 0, len(tokens)+2)
	for _, row := range tokens {
		rows = append(rows, hostileRow{name: row.name, header: http.Header{"Authorization": {"Bearer " + row.token}}, want: "jwt: " + row.want})
	}
	return append(rows,
		hostileRow{name: "a bad token beside a good cookie", lines: []string{"Authorization: Bearer a.b.c", "Cookie: token=" + goodToken}, want: "jwt: " + base64url},
		hostileRow{name: "a bad token in a cookie beside a good password", lines: []string{basic("alice:" + password), "Cookie: token=" + raw(`{"alg":"none"}`, good, nil)}, want: "jwt: " + algorithm},
	)
}

// flipSpareBit changes a bit that stands for nothing: 256 bytes end in a digit
// with four of them.
func flipSpareBit(token string) string {
	const digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	last := strings.IndexByte(digits, token[len(token)-1])
	return token[:len(token)-1] + string(digits[last^1])
}

func hostileHeaders(t *testing.T) []hostileRow {
	good := token(t, "rsa", jose.RS256, nil)
	const authorization, user = "Authorization came more than once", "X-Remote-User came more than once"
	blob := base64.StdEncoding.EncodeToString([]byte("alice:" + password))
	return []hostileRow{
		{name: "Authorization twice", lines: []string{"Authorization: Bearer " + good, "Authorization: Bearer " + good}, want: "jwt: " + authorization},
		{name: "Authorization of two schemes", lines: []string{basic("alice:" + password), "Authorization: Bearer " + good}, want: "jwt: " + authorization},
		{name: "Authorization in two cases", header: http.Header{"Authorization": {"Bearer " + good}, "AUTHORIZATION": {"Bearer x"}}, want: "jwt: " + authorization},
		{name: "two tokens in one header", lines: []string{"Authorization: Bearer " + good + ", Bearer " + good}, want: "jwt: the token holds what is not base64url"},
		{name: "a token and a password in one header", lines: []string{"Authorization: Bearer a.b.c, Basic " + blob}, want: "jwt: the token holds what is not base64url"},
		{name: "the scheme alone", lines: []string{"Authorization: Bearer"}, want: "jwt: the scheme is not followed by a blank and credentials"},
		{name: "a tab behind the scheme", lines: []string{"Authorization: Bearer\t" + good}, want: "jwt: the scheme is not followed by a blank and credentials"},
		{name: "no scheme", header: http.Header{"Authorization": {"=" + good}}, want: "jwt: the Authorization header has no scheme"},
		{name: "LF in the token", header: http.Header{"Authorization": {"Bearer " + good[:20] + "\n" + good[20:]}}, want: "jwt: the token holds what is not base64url"},
		{name: "CR and LF behind the token", header: http.Header{"Authorization": {"Bearer " + good + "\r\nX-Remote-User: root"}}, want: "jwt: the token holds what is not base64url"},
		{name: "NUL in the token", header: http.Header{"Authorization": {"Bearer " + good + "\x00"}}, want: "jwt: the token holds what is not base64url"},

		{name: "two cookies of one name", lines: []string{"Cookie: token=" + good + "; token=" + good}, want: "jwt: the cookie came more than once"},
		{name: "two cookies of one name, one empty", lines: []string{"Cookie: token=; a=b; token=" + good}, want: "jwt: the cookie came more than once"},
		{name: "two cookies of one name, one with blanks", lines: []string{"Cookie: token =x; token=" + good}, want: "jwt: the cookie came more than once"},
		{name: "two Cookie headers", lines: []string{"Cookie: token=" + good, "Cookie: a=b"}, want: "jwt: Cookie came more than once"},
		{name: "a cookie in quotes", lines: []string{`Cookie: token="` + good + `"`}, want: "jwt: the token holds what is not base64url"},
		{name: "a cookie that is not UTF-8", lines: []string{"Cookie: token=\xff\xfe"}, want: "jwt: the token holds what is not base64url"},
		{name: "a cookie of 60,000 bytes", lines: []string{"Cookie: token=" + strings.Repeat("A", 60_000)}, want: "jwt: the token is longer than 8192 bytes"},
		{name: "a cookie percent-encoded", lines: []string{"Cookie: token=" + strings.ReplaceAll(good, ".", "%2e")}, want: "jwt: the token holds what is not base64url"},

		{name: "the header twice", lines: []string{"X-Remote-User: alice", "X-Remote-User: root"}, want: "header: " + user},
		{name: "the header with underscores too", lines: []string{"X-Remote-User: alice", "X_Remote_User: root"}, want: "header: " + user},
		{name: "the header in another case too", header: http.Header{"X-Remote-User": {"alice"}, "x-remote-user": {"root"}}, want: "header: " + user},
		{name: "the groups with underscores too", lines: []string{"X-Remote-User: alice", "X-Remote-Groups: staff", "X_REMOTE_GROUPS: admin"}, want: "header: X-Remote-Groups came more than once"},
		{name: "a group for a user in the header", lines: []string{"X-Remote-User: @admin"}, want: "header: the subject begins with @, which marks groups"},
		{name: "a user header that is not UTF-8", lines: []string{"X-Remote-User: Andr\xe9"}, want: "header: the subject is not valid UTF-8"},
		{name: "a header with CR and LF", header: http.Header{"X-Remote-User": {"alice\r\nX-Accel-Redirect: /x"}}, want: "header: the subject " + unseen},
		{name: "a bad header beside a good token", lines: []string{"X-Remote-User: @admin", "Authorization: Bearer " + good}, want: "header: the subject begins with @, which marks groups"},

		{name: "a wrong password", lines: []string{basic("alice:guess")}, want: "htpasswd: unknown user or wrong password"},
		{name: "an unknown user", lines: []string{basic("root:" + password)}, want: "htpasswd: unknown user or wrong password"},
		{name: "CR and LF in a user", lines: []string{basic("alice\r\nHost: x:" + password)}, want: "htpasswd: the user " + unseen},
		{name: "a group for a user", lines: []string{basic("@staff:" + password)}, want: "htpasswd: the user begins with @, which marks groups"},
		{name: "a user that is not UTF-8", lines: []string{basic("\xff:" + password)}, want: "htpasswd: the user is not valid UTF-8"},
		{name: "a password of 73 bytes", lines: []string{basic("alice:" + strings.Repeat("x", 73))}, want: "htpasswd: the password is longer than 72 bytes"},
		{name: "a password without end", lines: []string{basic("alice:" + strings.Repeat("x", 40_000))}, want: "htpasswd: the credentials are longer than 512 bytes"},
		{name: "no colon", lines: []string{basic("alice")}, want: "htpasswd: the credentials have no colon"},
		{name: "Basic that is not base64", lines: []string{"Authorization: Basic ????"}, want: "htpasswd: the credentials are not base64"},
	}
}
