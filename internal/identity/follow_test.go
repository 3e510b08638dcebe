package identity

import (
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// made are sources of each kind that remembers, with their files loaded.
func made(t *testing.T, file, application, issuer string, edit func(*BasicOptions, *SessionOptions, *KeysOptions, *JWTOptions)) Sources {
	t.Helper()
	b, s := BasicOptions{}, SessionOptions{URL: application, Cookies: []string{"sessionid"}, Timeout: 5 * time.Second, OnBreaker: func(bool) {}}
	k, j := KeysOptions{Issuer: issuer, URL: issuer + "/keys"}, JWTOptions{Audiences: []string{"files"}}
	edit(&b, &s, &k, &j)
	basic, err := NewBasicSource(file, &b)
	if err != nil {
		t.Fatal(err)
	}
	session, err := NewSessionSource(s)
	if err != nil {
		t.Fatal(err)
	}
	token, err := NewJWTSource(nil, k, j)
	if err != nil {
		t.Fatal(err)
	}
	return Sources{basic, session, token}
}

// A source that is configured as before remembers, in whichever place it stands, and one
// that is configured in another way has forgotten; but not the keys of its issuer.
func TestSourcesFollowThoseThatAreConfiguredAlike(t *testing.T) {
	file := filepath.Join(t.TempDir(), "users")
	text, err := os.ReadFile(usersFile)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	app := &application{}
	server := httptest.NewServer(app)
	defer server.Close()
	issuer := newIssuer(t, says(jwks(t, public("rsa"))))
	same := func(*BasicOptions, *SessionOptions, *KeysOptions, *JWTOptions) {}
	before := made(t, file, server.URL, issuer.URL, same)
	if err := before.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	before.Ask(t.Context())
	asAlice := request(t, "Cookie: sessionid=alices")
	who := func(s *Source) string {
		t.Helper()
		p, err := s.Authenticate(t.Context(), asAlice)
		if err != nil {
			t.Fatal(err)
		}
		return p.Subject
	}
	who(before[1])
	if _, err := before[0].Authenticate(t.Context(), request(t, basic("alice:"+password))); err != nil {
		t.Fatal(err)
	}

	after := made(t, file, server.URL, issuer.URL, func(_ *BasicOptions, _ *SessionOptions, _ *KeysOptions, j *JWTOptions) {
		j.Audiences = []string{"others"}
	})
	after[0], after[1] = after[1], after[0]
	after[0].Prefix = "app:"
	if gone := after.Follow(before); len(gone) != 1 || gone[0] != before[2] {
		t.Errorf("gone: %v", gone.Names())
	}
	if who(after[0]) != "alice" || app.asked.Load() != 1 {
		t.Errorf("the application was asked %d times", app.asked.Load())
	}
	if after[0].Prefix != "app:" || before[1].Prefix != "" {
		t.Errorf("prefixes %q and %q", after[0].Prefix, before[1].Prefix)
	}
	if after[1].Authenticator != before[0].Authenticator {
		t.Error("users that are the same are not")
	}
	if s := after[2].State(); s.Generation != 1 || after[2].Authenticator == before[2].Authenticator {
		t.Errorf("another audience of the same issuer: %+v", s)
	}
	issuer.Close() // it is not asked for what is known
	after.Ask(t.Context())
	if s := after[2].State(); s.Err != nil {
		t.Error(s.Err)
	}

	for name, edit := range map[string]func(*BasicOptions, *SessionOptions, *KeysOptions, *JWTOptions){
		"realm":    func(b *BasicOptions, _ *SessionOptions, _ *KeysOptions, _ *JWTOptions) { b.Realm = "others" },
		"remember": func(b *BasicOptions, _ *SessionOptions, _ *KeysOptions, _ *JWTOptions) { b.Remember = time.Hour },
	} {
		next := made(t, file, server.URL, issuer.URL, edit)
		next.Follow(before)
		if next[0].Authenticator == before[0].Authenticator {
			t.Errorf("another %s remembers", name)
		}
	}
	for name, edit := range map[string]func(o *SessionOptions){
		"path": func(o *SessionOptions) { o.SubjectPath = "user" }, "cookie": func(o *SessionOptions) { o.Cookies = []string{"sessionid", "other"} },
		"time": func(o *SessionOptions) { o.Remember = time.Minute }, "address": func(o *SessionOptions) { o.URL += "/x" },
		"header": func(o *SessionOptions) { o.Send = map[string]string{"Host": "x"} },
	} {
		next := made(t, file, server.URL, issuer.URL, func(_ *BasicOptions, o *SessionOptions, _ *KeysOptions, _ *JWTOptions) { edit(o) })
		next.Follow(before)
		if next[1].Authenticator == before[1].Authenticator {
			t.Errorf("another %s remembers", name)
		}
	}
	next := made(t, file, server.URL, issuer.URL, func(_ *BasicOptions, _ *SessionOptions, k *KeysOptions, _ *JWTOptions) { k.URL += "/others" })
	next.Follow(before)
	if s := next[2].State(); s.Generation != 0 {
		t.Errorf("keys from elsewhere: %+v", s)
	}
	before.End()
}

// Two sources that are configured alike do not become one.
func TestNoSourceIsFollowedTwice(t *testing.T) {
	before := made(t, usersFile, "http://127.0.0.1:1/", "http://127.0.0.1:1", func(*BasicOptions, *SessionOptions, *KeysOptions, *JWTOptions) {})
	again := func() *Source {
		s, err := NewBasicSource(usersFile, nil)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	after := Sources{again(), again()}
	after.Follow(before)
	if after[0].Authenticator != before[0].Authenticator || after[1].Authenticator == before[0].Authenticator {
		t.Error("of two, one is the same")
	}
}

// A file of users is read again for the next configuration too: who is gone is gone.
func TestFollowingUsersAreReadAgain(t *testing.T) {
	file := filepath.Join(t.TempDir(), "users")
	text, err := os.ReadFile(usersFile)
	if err != nil {
		t.Fatal(err)
	}
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(string(text))
	one := func() Sources {
		s, err := NewBasicSource(file, nil)
		if err != nil {
			t.Fatal(err)
		}
		return Sources{s}
	}
	before, after := one(), one()
	if err := before.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	asAlice := request(t, basic("alice:"+password))
	if _, err := before[0].Authenticate(t.Context(), asAlice); err != nil {
		t.Fatal(err)
	}
	write(strings.Replace(string(text), "alice:", "zoe:", 1))
	after.Follow(before)
	if err := after.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := after[0].Authenticate(t.Context(), asAlice); err == nil {
		t.Error("alice is still remembered")
	}
}
