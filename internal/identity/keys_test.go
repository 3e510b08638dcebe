package identity

import (
	"context"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-jose/go-jose/v4"

	"securefiles/authz"
)

// S11, S20: whatever an issuer answers, the last good keys go on serving, and
// without any it could not be told. No answer costs more than it may.
func TestHostileKeySets(t *testing.T) {
	elsewhere := newIssuer(t, says(jwks(t, public("rsa-mallory"))))
	good := jwks(t, public("rsa"))
	private, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{KeyID: "rsa", Key: signers()["rsa"]}}})
	if err != nil {
		t.Fatal(err)
	}
	one := public("rsa")
	one.Key = &rsa.PublicKey{N: new(big.Int).Lsh(big.NewInt(1), 2047), E: 4}
	long := public("rsa")
	long.Key = &rsa.PublicKey{N: new(big.Int).Lsh(big.NewInt(1), 9000), E: 65537}
	enc := public("rsa")
	enc.Use = "enc"
	twin := public("p256")
	twin.KeyID = "rsa"
	const notJWKS, none = "not a JWKS: no JSON object without duplicates that holds a list of keys", "no key that can be used"
	const modulus = "; key 1 is RSA with a modulus that is not of 2048 to 4096 bits, or a bad exponent"
	for _, row := range []struct {
		name   string
		answer http.HandlerFunc
		want   string // behind the URL
	}{
		{"an error", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) }, ": status 500"},
		{"not found", func(w http.ResponseWriter, r *http.Request) { http.NotFound(w, r) }, ": status 404"},
		{"a redirect", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, elsewhere.URL, http.StatusFound) }, ": status 302, a redirect, which is not followed: name the address that it leads to"},
		{"a redirect for ever", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/", http.StatusTemporaryRedirect) }, ": status 307, a redirect, which is not followed: name the address that it leads to"},
		{"a good set with another status", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(203); _, _ = w.Write([]byte(good)) }, ": status 203"},
		{"nothing", says(""), ": " + notJWKS},
		{"a page", says("<!DOCTYPE html><title>Log in</title>"), ": " + notJWKS},
		{"a list", says("[]"), ": " + notJWKS},
		{"half of a set", says(good[:len(good)/2]), ": " + notJWKS},
		{"a set and more", says(good + good), ": " + notJWKS},
		{"keys twice", says(`{"keys":[],"keys":[]}`), ": " + notJWKS},
		{"keys that are no list", says(`{"keys":{"a":1}}`), ": " + notJWKS},
		{"lists without end", says(strings.Repeat("[", maxKeySetBytes)), ": " + notJWKS},
		{"lists in a key without end", says(`{"keys":[` + strings.Repeat("[", 100_000) + strings.Repeat("]", 100_000) + `]}`), ": " + notJWKS},
		{"no keys", says(`{"keys":[]}`), ": " + none},
		{"keys in capitals", says(strings.Replace(good, "keys", "KEYS", 1)), ": " + none},
		{"null", says("null"), ": " + none},
		{"a key that is null", says(`{"keys":[null]}`), ": " + none + "; key 1 is malformed"},
		{"a key with a name twice", says(strings.Replace(good, `"kid":`, `"kid":"x","kid":`, 1)), ": " + none + "; key 1 is malformed"},
		{"a key of a new type", says(`{"keys":[{"kty":"quantum","kid":"q"}]}`), ": " + none + "; key 1 is of a type that is not known here"},
		{"a point that is not on its curve", says(`{"keys":[{"kty":"EC","crv":"P-256","x":"` + b64(strings.Repeat("\x01", 32)) + `","y":"` + b64(strings.Repeat("\x01", 32)) + `"}]}`), ": " + none + "; key 1 is malformed"},
		{"a key for encryption", says(jwks(t, enc)), ": " + none},
		{"a key that may only sign", says(strings.Replace(good, `"use":"sig"`, `"key_ops":["sign"]`, 1)), ": " + none},
		{"a weak key", says(jwks(t, public("rsa-weak"))), ": " + none + modulus},
		{"a key that takes too long", says(jwks(t, long)), ": " + none + "; key 1 is of a type that is not known here"},
		{"an even exponent", says(jwks(t, one)), ": " + none + modulus},
		{"a private key", says(string(private)), ": " + none + "; key 1 is a private key: the public half belongs there"},
		{"a shared secret", says(`{"keys":[{"kty":"oct","kid":"rsa","k":"` + b64(strings.Repeat("s", 64)) + `"}]}`), ": " + none + "; key 1 is a secret, and only public keys are allowed"},
		{"two keys of one id", says(jwks(t, public("rsa"), twin)), ": " + none + "; key 2 is one of several of this id"},
		{"65 keys", says(`{"keys":[` + strings.Repeat("{},", 64) + "{}]}"), ": more than 64 keys"},
		{"more than 256 KiB", func(w http.ResponseWriter, _ *http.Request) {
			for range 1 << 10 { // the client does not read so far
				if _, err := w.Write([]byte(strings.Repeat(" ", 64<<10))); err != nil {
					return
				}
			}
		}, ": the answer is larger than 256 KiB"},
		{"headers without end", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X-Long", strings.Repeat("x", 100<<10))
			_, _ = w.Write([]byte(good))
		}, "server response headers exceeded 65536 bytes"},
		{"an answer that is cut", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", fmt.Sprint(len(good)+1))
			_, _ = w.Write([]byte(good))
		}, ": read the answer: unexpected EOF"},
		{"compressed, though nobody asked", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			_, _ = w.Write([]byte("\x1f\x8b\x08\x00"))
		}, ": " + notJWKS},
		{"no answer at all", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, "context deadline exceeded"},
		{"a byte now and then", func(w http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				_, _ = w.Write([]byte(" "))
				_ = http.NewResponseController(w).Flush()
				time.Sleep(time.Millisecond) // slowly, for as long as it is asked
			}
		}, "context deadline exceeded"},
		{"the end of the connection", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, "EOF"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			from := newIssuer(t, says(good))
			opts := KeysOptions{URL: from.URL, Timeout: time.Minute}
			k, empty := newTestKeys(t, opts), newTestKeys(t, opts)
			if err := k.Refresh(t.Context()); err != nil {
				t.Fatal(err)
			}
			if strings.Contains(row.want, "deadline") {
				k.opts.Timeout, empty.opts.Timeout = 200*time.Millisecond, 200*time.Millisecond
			}
			from.answer.Store(&row.answer)
			start := time.Now()
			for _, keys := range []*Keys{k, empty} {
				err := keys.Refresh(t.Context())
				if got := message(err); !strings.Contains(got, row.want) || strings.HasPrefix(row.want, ":") && got != from.URL+row.want {
					t.Errorf("got %v, want %s", err, row.want)
				}
			}
			if took := time.Since(start); took > 30*time.Second {
				t.Errorf("took %v", took)
			}
			r := request(t, "Authorization: Bearer "+token(t, "rsa", jose.RS256, nil))
			if p, err := newTestJWT(t, k, JWTOptions{}).Authenticate(t.Context(), r); err != nil || p.Subject != "alice" {
				t.Errorf("with the last good keys: %+v, %v", p, err)
			}
			p, err := newTestJWT(t, empty, JWTOptions{}).Authenticate(t.Context(), r)
			couldNotTell(t, p, err)
		})
	}
	t.Cleanup(func() {
		if n := elsewhere.asked.Load(); n != 0 {
			t.Errorf("a redirect was followed %d times", n)
		}
	})
}

// couldNotTell fails unless the request ends with 503.
func couldNotTell(t *testing.T, p authz.Principal, err error) {
	t.Helper()
	var down *authz.UnavailableError
	if !errors.As(err, &down) || down.Source != "jwt" || errors.Is(err, authz.ErrNoCredentials) || p.Subject != "" {
		t.Errorf("got %+v, %v, which is not: could not tell", p, err)
	}
}

func TestDiscovery(t *testing.T) {
	const path = "/realms/staff/.well-known/openid-configuration"
	for _, row := range []struct{ name, document, want string }{
		{"as it should be", `{"issuer":"ISSUER","jwks_uri":"BASE/keys"}`, ""},
		{"another issuer", `{"issuer":"https://mallory.example","jwks_uri":"BASE/keys"}`, `names another issuer, "https://mallory.example"`},
		{"no issuer", `{"jwks_uri":"BASE/keys"}`, `names another issuer, ""`},
		{"an issuer twice", `{"issuer":"x","issuer":"ISSUER","jwks_uri":"BASE/keys"}`, "not an OpenID configuration"},
		{"a page", `<html>`, "not an OpenID configuration"},
		{"no keys", `{"issuer":"ISSUER"}`, "its jwks_uri is not an https URL"},
		{"keys in a file", `{"issuer":"ISSUER","jwks_uri":"file:///etc/passwd"}`, "its jwks_uri is not an https URL"},
		{"keys beside", `{"issuer":"ISSUER","jwks_uri":"keys"}`, "its jwks_uri is not an https URL"},
		{"a user", `{"issuer":"ISSUER","jwks_uri":"http://me@127.0.0.1/keys"}`, "its jwks_uri is not an https URL"},
		{"keys that are not there", `{"issuer":"ISSUER","jwks_uri":"BASE/none"}`, "/none: status 404"},
	} {
		t.Run(row.name, func(t *testing.T) {
			var from *issuer
			from = newIssuer(t, func(w http.ResponseWriter, r *http.Request) {
				switch r.URL.Path {
				case path:
					document := strings.NewReplacer("ISSUER", from.URL+"/realms/staff", "BASE", from.URL).Replace(row.document)
					says(document)(w, r)
				case "/keys":
					says(jwks(t, public("rsa")))(w, r)
				default:
					http.NotFound(w, r)
				}
			})
			k, err := NewKeys(KeysOptions{Issuer: from.URL + "/realms/staff"})
			if err != nil {
				t.Fatal(err)
			}
			err = k.Refresh(t.Context())
			if (row.want == "") != (err == nil) || !strings.Contains(message(err), row.want) {
				t.Errorf("got %v, want %s", err, row.want)
			}
		})
	}
}

// An issuer that is reached by https must not send its keys by http.
func TestDiscoveryStaysWithHTTPS(t *testing.T) {
	var server *httptest.Server
	server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, `{"issuer":%q,"jwks_uri":%q}`, server.URL, "http"+strings.TrimPrefix(server.URL, "https"))
	}))
	defer server.Close()
	k, err := NewKeys(KeysOptions{Issuer: server.URL})
	if err != nil {
		t.Fatal(err)
	}
	if err := k.Refresh(t.Context()); !strings.Contains(message(err), "certificate") {
		t.Errorf("an unknown authority was accepted: %v", err)
	}
	k.client.Transport.(*http.Transport).TLSClientConfig = server.Client().Transport.(*http.Transport).TLSClientConfig
	if err := k.Refresh(t.Context()); !strings.Contains(message(err), "its jwks_uri is not an https URL") {
		t.Errorf("got %v", err)
	}
}

// S20: whoever makes up key ids causes one question a minute.
func TestUnknownKeysAreAskedForOnceAMinute(t *testing.T) {
	var mu sync.Mutex
	now := noon
	clock := func() time.Time { mu.Lock(); defer mu.Unlock(); return now }
	later := func(d time.Duration) { mu.Lock(); defer mu.Unlock(); now = now.Add(d) }
	from := newIssuer(t, says(jwks(t, public("p256"))))
	k := newTestKeys(t, KeysOptions{URL: from.URL, Now: clock})
	if err := k.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	j := newTestJWT(t, k, JWTOptions{Now: clock})
	flood := func(n int) (refused, unclear int) {
		var group sync.WaitGroup
		var count sync.Mutex
		for i := range n {
			group.Go(func() {
				made := sign(t, signers()["p256-next"], jose.ES256, fmt.Sprintf(`{"alg":"ES256","kid":"%d"}`, i), claims(nil))
				_, err := j.Authenticate(t.Context(), request(t, "Authorization: Bearer "+made))
				count.Lock()
				defer count.Unlock()
				var bad *authz.CredentialsError
				if errors.As(err, &bad) {
					refused++
				} else {
					unclear++
				}
			})
		}
		group.Wait()
		return refused, unclear
	}
	if refused, _ := flood(200); from.asked.Load() != 2 || refused == 0 {
		t.Errorf("asked %d times, %d refused", from.asked.Load(), refused)
	}
	later(unknownKeyPause - 1)
	if flood(10); from.asked.Load() != 2 {
		t.Errorf("asked again within a minute: %d times", from.asked.Load())
	}
	// The new key is found as soon as the issuer may be asked.
	next := says(jwks(t, public("p256-next")))
	from.answer.Store(&next)
	later(1)
	if p, err := j.Authenticate(t.Context(), request(t, "Authorization: Bearer "+token(t, "p256-next", jose.ES256, nil))); err != nil || p.Subject != "alice" {
		t.Errorf("after a rotation: %+v, %v", p, err)
	}
	// While the issuer is down, a key that is not known here may exist.
	down := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(502) })
	from.answer.Store(&down)
	later(unknownKeyPause)
	if refused, unclear := flood(50); refused != 0 || unclear != 50 || from.asked.Load() != 4 {
		t.Errorf("while it is down: %d refused, %d unclear, asked %d times", refused, unclear, from.asked.Load())
	}
	if p, err := j.Authenticate(t.Context(), request(t, "Authorization: Bearer "+token(t, "p256-next", jose.ES256, nil))); err != nil || p.Subject != "alice" {
		t.Errorf("a known key while it is down: %+v, %v", p, err)
	}
}

// An issuer that hangs holds few requests, and none longer than the timeout.
// A key that the issuer withdrew must not open doors for ever because the issuer cannot
// be asked: the last good keys have an age, and what was remembered has it too.
func TestKeysThatCouldNotBeRefreshedForTooLong(t *testing.T) {
	now := noon
	clock := func() time.Time { return now }
	var away atomic.Bool
	from := newIssuer(t, func(w http.ResponseWriter, r *http.Request) {
		if away.Load() {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		says(jwks(t, public("p256")))(w, r)
	})
	k := newTestKeys(t, KeysOptions{URL: from.URL, MaxStale: time.Hour, Now: clock})
	if err := k.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	j := newTestJWT(t, k, JWTOptions{Now: clock})
	token := sign(t, signers()["p256"], jose.ES256, `{"alg":"ES256","kid":"p256"}`, claims(map[string]any{"exp": noon.Add(24 * time.Hour).Unix()}))
	ask := func(at time.Duration, want bool) {
		t.Helper()
		now = noon.Add(at)
		_, err := j.Authenticate(t.Context(), request(t, "Authorization: Bearer "+token))
		if want && err != nil {
			t.Errorf("after %v: %v", at, err)
		}
		if !want && (!errors.As(err, new(*authz.UnavailableError)) || !strings.Contains(err.Error(), "older than max_stale, 1h0m0s") || !strings.Contains(err.Error(), "status 500")) {
			t.Errorf("after %v: error %v", at, err)
		}
	}
	ask(0, true)
	away.Store(true)
	ask(time.Hour, true)
	ask(time.Hour+1, false)
	ask(time.Hour+time.Second, false) // and not asked for again within a minute
	if n := k.Status().Failed; n != 1 {
		t.Errorf("the issuer was asked %d times", n)
	}
	away.Store(false)
	ask(time.Hour+2*time.Minute, true) // recovery needs nobody
	ask(2*time.Hour+2*time.Minute, true)
}

func TestKeysOfAFileHaveNoAge(t *testing.T) {
	now := noon
	file := filepath.Join(t.TempDir(), "keys.json")
	if err := os.WriteFile(file, []byte(jwks(t, public("p256"))), 0o600); err != nil {
		t.Fatal(err)
	}
	k := newTestKeys(t, KeysOptions{File: file, MaxStale: time.Hour, Now: func() time.Time { return now }})
	if err := k.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(file); err != nil { // whoever looks again finds nothing
		t.Fatal(err)
	}
	now = noon.Add(2 * time.Hour)
	if _, _, err := k.find(t.Context(), "p256", "ES256"); err != nil {
		t.Error(err)
	}
}

// Where the issuer may not be asked again yet, keys that are too old stay so.
func TestKeysThatAreTooOldAreNotBelievedBetweenTwoQuestions(t *testing.T) {
	now := noon
	from := newIssuer(t, says(jwks(t, public("p256"))))
	k := newTestKeys(t, KeysOptions{URL: from.URL, MaxStale: 10 * time.Second, Now: func() time.Time { return now }})
	if err := k.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, _, err := k.find(t.Context(), "unknown", "ES256"); !errors.Is(err, errUnknownKey) {
		t.Fatal(err)
	}
	now = noon.Add(20 * time.Second)
	if _, _, err := k.find(t.Context(), "p256", "ES256"); err == nil || !strings.Contains(err.Error(), "not asked for since") {
		t.Errorf("error %v", err)
	}
}

func TestFewWaitForAnIssuer(t *testing.T) {
	from := newIssuer(t, says(jwks(t, public("p256"))))
	k := newTestKeys(t, KeysOptions{URL: from.URL, Timeout: 5 * time.Second}) // all have come until then
	if err := k.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	hang := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	from.answer.Store(&hang)
	unknown := func(ctx context.Context) error { _, _, err := k.find(ctx, "unknown", "ES256"); return err }
	waits := make(chan error, 1)
	for range maxWaitingForKeys {
		go func() { waits <- unknown(context.Background()) }()
	}
	for full := false; !full; time.Sleep(time.Millisecond) { // between polls
		k.mu.Lock()
		full = k.flight != nil && k.flight.waiting == maxWaitingForKeys
		k.mu.Unlock()
	}
	if err := unknown(t.Context()); !strings.Contains(message(err), "too many requests wait for the issuer") {
		t.Errorf("one more: %v", err)
	}
	for range maxWaitingForKeys {
		if err := <-waits; !strings.Contains(message(err), "deadline exceeded") {
			t.Errorf("one that waited: %v", err)
		}
	}
	// A request that ends does not wait on.
	k.unknown = time.Time{}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := unknown(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("a request that has ended: %v", err)
	}
}

// Run asks again soon after a failure, and seldom when all is well. The keys
// are in a file, which is read in the time of the bubble.
func TestRunRetriesAndRefreshes(t *testing.T) {
	file := filepath.Join(t.TempDir(), "keys.json")
	good := jwks(t, public("p256"))
	synctest.Test(t, func(t *testing.T) {
		k, err := NewKeys(KeysOptions{Issuer: testIssuer, File: file, Refresh: 10 * time.Minute})
		if err != nil {
			t.Fatal(err)
		}
		if err := k.Refresh(t.Context()); err == nil {
			t.Fatal("a missing file was read")
		}
		ctx, cancel := context.WithCancel(t.Context())
		start := time.Now()
		var attempts []time.Duration
		ended := make(chan error)
		go func() {
			ended <- k.Run(ctx, func(err error) {
				attempts = append(attempts, time.Since(start))
				switch len(attempts) {
				case 7:
					if err := os.WriteFile(file, []byte(good), 0o600); err != nil {
						t.Error(err)
					}
				case 9:
					if err := os.Remove(file); err != nil {
						t.Error(err)
					}
				case 11:
					cancel()
				}
			})
		}()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		const m = time.Minute
		want := []time.Duration{1 * time.Second, 3 * time.Second, 7 * time.Second, 15 * time.Second, 31 * time.Second, 61 * time.Second, 91 * time.Second,
			2*m + time.Second, 12*m + time.Second, 22*m + time.Second, 22*m + 2*time.Second}
		if fmt.Sprint(attempts) != fmt.Sprint(want) {
			t.Errorf("attempts at %v\nwant %v", attempts, want)
		}
		if s := k.Status(); s.Keys != 1 || s.Err == nil {
			t.Errorf("the last good keys are gone, or the error: %+v", s)
		}
	})
}

// S10: what an answer does to the reader ends no process.
func TestPanicWhileReadingKeys(t *testing.T) {
	k := loaded(t, KeysOptions{}, public("p256"))
	k.client.Transport = panicking{}
	if err := k.Refresh(t.Context()); !strings.Contains(message(err), "panic while reading them: a bug") {
		t.Errorf("got %v", err)
	}
	if s := k.Status(); s.Keys != 1 || s.Loaded != 1 || s.Failed != 1 {
		t.Errorf("status %+v", s)
	}
}

type panicking struct{}

func (panicking) RoundTrip(*http.Request) (*http.Response, error) { panic("a bug") }

// S15: a file must be right in all it holds.
func TestKeyFiles(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "keys.json")
	k := newTestKeys(t, KeysOptions{File: file})
	for _, row := range []struct{ name, text, want string }{
		{"one that is right", jwks(t, public("p256")), ""},
		{"a weak key beside", jwks(t, public("p256"), public("rsa-weak")), file + ": key 2 is RSA with a modulus that is not of 2048 to 4096 bits, or a bad exponent"},
		{"too large", strings.Repeat(" ", maxKeySetBytes+1), file + ": larger than 256 KiB, the most that is read of keys"},
		{"another that is right", jwks(t, public("rsa")), ""},
	} {
		if err := os.WriteFile(file, []byte(row.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := k.Refresh(t.Context()); message(err) != row.want {
			t.Errorf("%s: got %v, want %s", row.name, err, row.want)
		}
	}
	if s := k.Status(); s.Generation != 2 || s.Keys != 1 {
		t.Errorf("status %+v", s)
	}
}

func TestNewKeysRefuses(t *testing.T) {
	const mixed = "algorithms: HS256, HS384 and HS512 are not mixed with others: a public key could be taken for a secret"
	for _, row := range []struct {
		opts KeysOptions
		want string
	}{
		{KeysOptions{}, "issuer: is missing: write the iss of the tokens, just as they have it"},
		{KeysOptions{Issuer: "x", URL: "https://x", File: "x"}, "jwks_url and jwks_file: keys come from one of them"},
		{KeysOptions{Issuer: "https://x", Algorithms: []string{}}, "algorithms: is empty: no token would be accepted; leave it out for the default"},
		{KeysOptions{Issuer: "https://x", Algorithms: []string{"none"}}, `algorithms[0]: "none" is not one of RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, ES512, EdDSA, HS256, HS384, HS512`},
		{KeysOptions{Issuer: "x", File: "x", Algorithms: []string{"RS256", "HS256"}}, mixed},
		{KeysOptions{Issuer: "x", File: "x", Algorithms: []string{"HS512", "EdDSA"}}, mixed},
		{KeysOptions{Issuer: "https://x", Algorithms: []string{"HS256"}}, "algorithms: HS256, HS384 and HS512 need their secret in a jwks_file"},
	} {
		if k, err := NewKeys(row.opts); k != nil || message(err) != row.want {
			t.Errorf("%+v: got %v, want %s", row.opts, err, row.want)
		}
	}
}
