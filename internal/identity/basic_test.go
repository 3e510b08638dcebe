package identity

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tg123/go-htpasswd"
	"golang.org/x/crypto/bcrypt"

	"securefiles/authz"
)

const (
	usersFile = "testdata/users.htpasswd"
	password  = "correct horse" // of all users in it
	challenge = `Basic realm="downloads", charset="UTF-8"`
)

func newTestBasic(t testing.TB, file string, opts *BasicOptions) *Basic {
	t.Helper()
	b, err := NewBasic(file, opts)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// basic returns an Authorization header line.
func basic(credentials string) string {
	return "Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(credentials))
}

// login reports who the credentials are for.
func login(t testing.TB, b *Basic, user, password string) (string, error) {
	p, err := b.Authenticate(t.Context(), request(t, basic(user+":"+password)))
	return p.Subject, err
}

func TestBasic(t *testing.T) {
	b := newTestBasic(t, usersFile, nil)
	blob := base64.StdEncoding.EncodeToString([]byte("alice:" + password))
	for _, test := range []struct{ name, line, subject string }{
		{"bcrypt", basic("alice:" + password), "alice"},
		{"SHA-512 and a comment in the file", basic("bob@example.org:" + password), "bob@example.org"},
		{"SHA-256 and a user in UTF-8", basic("Carol Müller:" + password), "Carol Müller"},
		{"the scheme in lower case", "Authorization: basic " + blob, "alice"},
		{"the scheme in upper case", "authorization: BASIC " + blob, "alice"},
		{"several blanks", "Authorization: Basic   " + blob, "alice"},
	} {
		p, err := b.Authenticate(t.Context(), request(t, test.line))
		if err != nil || p.Subject != test.subject || p.Source != "htpasswd" || p.Groups != nil {
			t.Errorf("%s: got %v, %v, want %s", test.name, p, err, test.subject)
		}
	}
	if b.file != usersFile || b.Challenge() != challenge {
		t.Errorf("got file %s and challenge %s", b.file, b.Challenge())
	}
}

func TestBasicFindsNothing(t *testing.T) {
	b := newTestBasic(t, usersFile, nil)
	for _, test := range []struct{ name, line string }{
		{"no header", "Accept: */*"},
		{"an empty header", "Authorization: "},
		{"another scheme", "Authorization: Bearer YWxpY2U6Y29ycmVjdCBob3JzZQ=="},
		{"another scheme alone", "Authorization: Negotiate"},
		{"a scheme that begins alike", "Authorization: Basic-2 YWxpY2U6Y29ycmVjdCBob3JzZQ=="},
		{"a scheme that is shorter", "Authorization: Basi c"},
		{"credentials for a proxy", "Proxy-" + basic("alice:"+password)},
		{"a long token of another scheme", "Authorization: Bearer " + strings.Repeat("x", 4096)},
	} {
		p, err := b.Authenticate(t.Context(), request(t, test.line))
		if !errors.Is(err, authz.ErrNoCredentials) || p.Subject != "" {
			t.Errorf("%s: got %q, %v", test.name, p.Subject, err)
		}
	}
}

// S14, S16, S19, S21: each is refused for its reason, at no cost unless it
// could be right, and the reason quotes none of it.
func TestBasicRefuses(t *testing.T) {
	const base, wrong, twice = "the credentials are not base64", "unknown user or wrong password", "Authorization came more than once"
	const control = "the password holds a control character"
	good := basic("alice:" + password)
	for _, test := range []struct {
		name  string
		lines []string
		want  string
		cost  int64 // checks
	}{
		{"a wrong password", []string{basic("alice:wrong-guess")}, wrong, 1},
		{"an unknown user", []string{basic("mallory:" + password)}, wrong, 1},
		{"a user in another case", []string{basic("Alice:" + password)}, wrong, 1},
		{"a user in another normal form", []string{basic("Carol Mu\u0308ller:" + password)}, wrong, 1},
		{"another user's scheme", []string{basic("bob@example.org:wrong-guess")}, wrong, 1},
		{"a password with a blank at the end", []string{basic("alice:" + password + " ")}, wrong, 1},
		{"a password that begins with a colon", []string{basic("alice::" + password)}, wrong, 1},
		{"the hash for a password", []string{basic("alice:$2y$04$L3QhvojJ9ZfeSAMa7AX1Cenug.fFgHVen5aTHXUPDsIA.izYJUqt6")}, wrong, 1},
		{"a comment of the file for a user", []string{basic("# The password of everybody is: correct horse")}, wrong, 1},
		{"72 bytes that begin right", []string{basic("alice:" + password + strings.Repeat("x", 72-len(password)))}, wrong, 1},
		{"73 bytes", []string{basic("alice:" + strings.Repeat("x", 73))}, "the password is longer than 72 bytes", 0},
		{"37 letters of two bytes", []string{basic("alice:" + strings.Repeat("é", 37))}, "the password is longer than 72 bytes", 0},
		{"more than any credentials need", []string{basic("alice:" + strings.Repeat("x", 400))}, "the credentials are longer than 512 bytes", 0},
		{"no password", []string{basic("alice:")}, "the password is empty", 0},
		{"no user", []string{basic(":" + password)}, "the user is empty", 0},
		{"neither", []string{basic(":")}, "the user is empty", 0},
		{"no colon", []string{basic("alice")}, "the credentials have no colon", 0},
		{"nothing in base64", []string{"Authorization: Basic ===="}, base, 0},
		{"the scheme alone", []string{"Authorization: Basic"}, "the scheme is not followed by a blank and credentials", 0},
		{"a tab for a blank", []string{"Authorization: Basic\tYWxpY2U6Y29ycmVjdCBob3JzZQ=="}, "the scheme is not followed by a blank and credentials", 0},
		{"no blank", []string{"Authorization: Basic:YWxpY2U6Y29ycmVjdCBob3JzZQ=="}, "the scheme is not followed by a blank and credentials", 0},
		{"a tab after the blank", []string{"Authorization: Basic \tYWxpY2U6Y29ycmVjdCBob3JzZQ=="}, base, 0},
		{"credentials without base64", []string{"Authorization: Basic alice:correct-horse"}, base, 0},
		{"base64 without padding", []string{"Authorization: Basic YWxpY2U6Y29ycmVjdCBob3JzZQ"}, base, 0},
		{"base64 with too much padding", []string{"Authorization: Basic YWxpY2U6Y29ycmVjdCBob3JzZQ==="}, base, 0},
		{"base64 with spare bits", []string{"Authorization: Basic YWxpY2U6Y29ycmVjdCBob3JzZR=="}, base, 0},
		{"base64 for URLs", []string{"Authorization: Basic YWxpY2U6__-_"}, base, 0},
		{"base64 with a blank", []string{"Authorization: Basic YWxpY2U6 Y29ycmVjdCBob3JzZQ=="}, base, 0},
		{"two in one line", []string{good + ", Basic eDp5"}, base, 0},
		{"a parameter", []string{`Authorization: Basic charset="UTF-8"`}, base, 0},
		{"no scheme", []string{"Authorization: =YWxpY2U6Y29ycmVjdCBob3JzZQ=="}, "the Authorization header has no scheme", 0},
		{"two headers", []string{good, basic("mallory:x")}, twice, 0},
		{"the same header twice", []string{good, good}, twice, 0},
		{"two headers of different schemes", []string{"Authorization: Bearer x", good}, twice, 0},
		{"a second header in lower case", []string{good, "authorization: Bearer x"}, twice, 0},
		{"a NUL in the password", []string{basic("alice:" + password + "\x00")}, control, 0},
		{"a NUL before the password", []string{basic("alice:\x00" + password)}, control, 0},
		{"a line break in the password", []string{basic("alice:a\nb")}, control, 0},
		{"DEL in the password", []string{basic("alice:a\x7f")}, control, 0},
		{"a NUL in the user", []string{basic("alice\x00:" + password)}, "the user " + unseen, 0},
		{"a line break in the user", []string{basic("alice\r\nbob:" + password)}, "the user " + unseen, 0},
		{"a right-to-left override", []string{basic("ali\u202ece:" + password)}, "the user " + unseen, 0},
		{"a zero-width space", []string{basic("alice\u200b:" + password)}, "the user " + unseen, 0},
		{"a byte order mark", []string{basic("\ufeffalice:" + password)}, "the user " + unseen, 0},
		{"ISO 8859-1", []string{basic("Carol M\xfcller:" + password)}, "the user is not valid UTF-8", 0},
		{"a blank before the user", []string{basic(" alice:" + password)}, "the user " + edges, 0},
		{"a blank after the user", []string{basic("alice :" + password)}, "the user " + edges, 0},
		{"a group", []string{basic("@staff:" + password)}, "the user begins with @, which marks groups", 0},
		{"the caller without credentials", []string{basic("anonymous:" + password)}, "the user is the name of callers without credentials", 0},
		{"a user of 257 bytes", []string{basic(strings.Repeat("a", 257) + ":" + password)}, "the user is longer than 256 bytes", 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := newTestBasic(t, usersFile, nil)
			checks := countChecks(b)
			for range 2 { // what is refused is not remembered, and refused again
				checks.Store(0)
				got, err := b.Authenticate(t.Context(), request(t, test.lines...))
				wantRefused(t, got, err, authz.CredentialsError{Source: "htpasswd", Problem: test.want, Challenge: challenge})
				if n := checks.Load(); n != test.cost {
					t.Errorf("%d hashes were checked, want %d", n, test.cost)
				}
			}
		})
	}
}

// A check stands for an account's hash: it may count, block or panic.
type check func(password string) bool

func (c check) MatchesPassword(password string) bool { return c(password) }

// replaceChecks puts wrap around every hash, the decoy included.
func replaceChecks(b *Basic, wrap func(htpasswd.EncodedPasswd) check) {
	old := b.users.Load()
	u := &users{generation: old.generation, decoy: old.decoy, accounts: make(map[string]account)}
	u.decoy.EncodedPasswd = wrap(old.decoy.EncodedPasswd)
	for name, a := range old.accounts {
		a.EncodedPasswd = wrap(a.EncodedPasswd)
		u.accounts[name] = a
	}
	b.users.Store(u)
}

func countChecks(b *Basic) *atomic.Int64 {
	var n atomic.Int64
	replaceChecks(b, func(hash htpasswd.EncodedPasswd) check {
		return func(password string) bool {
			n.Add(1)
			return hash.MatchesPassword(password)
		}
	})
	return &n
}

// S19: a decoy that a password happens to fit lets nobody in.
func TestDecoyLetsNobodyIn(t *testing.T) {
	b := newTestBasic(t, usersFile, nil)
	replaceChecks(b, func(htpasswd.EncodedPasswd) check { return func(string) bool { return true } })
	if who, err := login(t, b, "mallory", "x"); who != "" || err == nil {
		t.Errorf("got %q, %v", who, err)
	}
	if who, err := login(t, b, "alice", "x"); who != "alice" || err != nil {
		t.Errorf("the test does not test: %q, %v", who, err)
	}
}

// S19, S28 (CVE-2026-32595, CVE-2026-88010): time does not tell who is in the file. The shortest of many times is
// compared: a busy machine makes times longer, never shorter.
func TestUnknownUsersTakeAsLong(t *testing.T) {
	hash, err := bcrypt.GenerateFromPassword([]byte(password), 5)
	if err != nil {
		t.Fatal(err)
	}
	b := newTestBasic(t, writeUsers(t, fmt.Sprintf("alice:%s\n", hash)), nil)
	shortest := map[string]time.Duration{"alice": time.Hour, "mallory": time.Hour}
	for i := range 50 {
		for user := range shortest {
			r := request(t, basic(fmt.Sprintf("%s:wrong%d", user, i)))
			start := time.Now()
			_, err := b.Authenticate(t.Context(), r)
			shortest[user] = min(shortest[user], time.Since(start))
			var refused *authz.CredentialsError
			if !errors.As(err, &refused) {
				t.Fatalf("got %v, want a refusal", err)
			}
		}
	}
	known, unknown := shortest["alice"], shortest["mallory"]
	if unknown < known/2 || unknown > known*2 {
		t.Errorf("an unknown user takes %v, a known one %v", unknown, known)
	}
}

func writeUsers(t testing.TB, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "users.htpasswd")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// S18, S19: verified credentials are remembered, and nothing else.
func TestRemembered(t *testing.T) {
	now := time.Unix(1_000_000_000, 0)
	b := newTestBasic(t, usersFile, &BasicOptions{Remember: time.Minute, Now: func() time.Time { return now }})
	checks := countChecks(b)
	for _, step := range []struct {
		name           string
		pass           time.Duration
		user, password string
		ok             bool
		cost           int64
	}{
		{"the first time is checked", 0, "alice", password, true, 1},
		{"the second is not", 0, "alice", password, true, 0},
		{"nor one within the minute", 59 * time.Second, "alice", password, true, 0},
		{"another password is", 0, "alice", "wrong", false, 1},
		{"a wrong one is each time", 0, "alice", "wrong", false, 1},
		{"another user with the same password is", 0, "Carol Müller", password, true, 1},
		{"an unknown user with it is", 0, "mallory", password, false, 1},
		{"and is again", 0, "mallory", password, false, 1},
		{"use prolongs it", 59 * time.Second, "alice", password, true, 0},
		{"a minute without use does not", time.Minute, "alice", password, true, 1},
		{"and remembered again", 59 * time.Second, "alice", password, true, 0},
	} {
		now = now.Add(step.pass)
		checks.Store(0)
		who, err := login(t, b, step.user, step.password)
		if (err == nil) != step.ok || (who == step.user) != step.ok || checks.Load() != step.cost {
			t.Errorf("%s: got %q, %v after %d checks, want %v after %d", step.name, who, err, checks.Load(), step.ok, step.cost)
		}
	}
}

// S18: a hash that was copied from one user to another does not make them one.
func TestRememberedBelongsToItsUser(t *testing.T) {
	const hash = ":$2y$04$L3QhvojJ9ZfeSAMa7AX1Cenug.fFgHVen5aTHXUPDsIA.izYJUqt6\n"
	b := newTestBasic(t, writeUsers(t, "alice"+hash+"bob"+hash), nil)
	checks := countChecks(b)
	for i, user := range []string{"alice", "bob"} {
		if who, err := login(t, b, user, password); who != user || err != nil || checks.Load() != int64(i)+1 {
			t.Errorf("%s: got %q, %v after %d checks, want %d", user, who, err, checks.Load(), i+1)
		}
	}
}

func TestRememberNothing(t *testing.T) {
	b := newTestBasic(t, usersFile, &BasicOptions{Remember: -1})
	checks := countChecks(b)
	for range 3 {
		if _, err := login(t, b, "alice", password); err != nil {
			t.Fatal(err)
		}
	}
	if checks.Load() != 3 {
		t.Errorf("got %d checks, want 3", checks.Load())
	}
}

// S17
func TestRememberedIsBounded(t *testing.T) {
	b := newTestBasic(t, usersFile, nil)
	for i := range 3 * maxRemembered {
		b.remembered.Set(b.secret.digest(fmt.Sprint(i)), verification{until: time.Now()})
	}
	b.remembered.CleanUp()
	if n := b.remembered.EstimatedSize(); n > maxRemembered {
		t.Errorf("%d credentials are remembered, want at most %d", n, maxRemembered)
	}
}

// S18
func TestDigest(t *testing.T) {
	b, other := newTestBasic(t, usersFile, nil), newTestBasic(t, usersFile, nil)
	if b.secret.digest("a", "b") == other.secret.digest("a", "b") {
		t.Error("the digest does not depend on a secret")
	}
	seen := make(map[digest][]string)
	for _, fields := range [][]string{
		{}, {""}, {"", ""}, {"a"}, {"a", ""}, {"", "a"}, {"ab"}, {"a", "b"}, {"b", "a"}, {"a:b"}, {"a$$b"},
		{"1", "alice", "x"}, {"2", "alice", "x"}, {"1", "alic", "ex"}, {"1a", "lice", "x"}, {"1", "alice", "y"},
		{"a\x00\x00\x00\x00\x00\x00\x00\x01b"},
	} {
		d := b.secret.digest(fields...)
		if twin, ok := seen[d]; ok {
			t.Errorf("%q and %q have one digest", twin, fields)
		}
		seen[d] = fields
	}
}

// S11, S15, S18
func TestReload(t *testing.T) {
	const one = "alice:$2y$04$L3QhvojJ9ZfeSAMa7AX1Cenug.fFgHVen5aTHXUPDsIA.izYJUqt6\n"     // correct horse
	const two = "alice:$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW\n"     // U*U
	const three = "mallory:$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW\n" // U*U
	file := writeUsers(t, one)
	b := newTestBasic(t, file, nil)
	for _, step := range []struct {
		name       string
		text       string
		err        string
		generation uint64
		accepts    string // the one password of alice's that is right
	}{
		{"the same version", one, "", 1, password},
		{"a version that is wrong leaves the last", "alice:secret\n", file + ":1: plain text, DES or an unknown hash: set the password again with `htpasswd -B -C 12 FILE USER`", 1, password},
		{"one of two lines that is wrong leaves the last", two + "bob\n", file + ":2: no colon: a line is user:hash, as `htpasswd -B` writes it", 1, password},
		{"another password", two, "", 2, "U*U"},
		{"the user removed", three, "", 3, ""},
		{"the user back", one, "", 4, password},
		{"no users", "# nobody\n", "", 5, ""},
	} {
		t.Run(step.name, func(t *testing.T) {
			if err := os.WriteFile(file, []byte(step.text), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := b.Reload(t.Context()); message(err) != step.err {
				t.Errorf("got error %v, want %s", err, step.err)
			}
			if g := b.users.Load().generation; g != step.generation {
				t.Errorf("got generation %d, want %d", g, step.generation)
			}
			for _, password := range []string{password, "U*U", password} {
				_, err := login(t, b, "alice", password)
				if (err == nil) != (password == step.accepts) {
					t.Errorf("%q: got %v", password, err)
				}
			}
		})
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if err := b.Reload(t.Context()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v, want that the file does not exist", err)
	}
}

func TestReloadForgets(t *testing.T) {
	users := readUsers(t)
	b := newTestBasic(t, writeUsers(t, users), nil)
	if _, err := login(t, b, "alice", password); err != nil {
		t.Fatal(err)
	}
	for _, version := range []struct {
		text       string
		remembered int
	}{{users, 1}, {users + "# anew\n", 0}} { // the same file is no other version
		if err := os.WriteFile(b.file, []byte(version.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := b.Reload(t.Context()); err != nil {
			t.Fatal(err)
		}
		if n := b.remembered.EstimatedSize(); n != version.remembered {
			t.Errorf("%d credentials are remembered, want %d", n, version.remembered)
		}
	}
}

func readUsers(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(usersFile)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// anew makes another version of a users file, with the same users.
func anew(t *testing.T, file string) {
	t.Helper()
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_APPEND, 0)
	if err == nil {
		_, err = f.WriteString("# anew\n")
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		t.Error(err)
	}
}

// S18: what a check of the last version adds after a reload counts for
// nothing.
func TestLateResultOfTheLastVersion(t *testing.T) {
	b := newTestBasic(t, writeUsers(t, readUsers(t)), nil)
	last := b.users.Load()
	anew(t, b.file)
	if err := b.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	if ok, err := b.verify(last, netip.Addr{}, "alice", password); !ok || err != nil {
		t.Fatalf("got %v, %v", ok, err)
	}
	checks := countChecks(b)
	if _, err := login(t, b, "alice", password); err != nil || checks.Load() != 1 {
		t.Errorf("got %v after %d checks, want 1", err, checks.Load())
	}
}

func TestReloadStopsWithItsContext(t *testing.T) {
	b := newTestBasic(t, usersFile, nil)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := b.Reload(ctx); message(err) != "read users: context canceled" {
		t.Errorf("got %v", err)
	}
}

// S12: requests with the same credentials share a check, and must not wait for it
// in any number: the service has 1,024 places in all.
func TestLoginsThatWaitAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newTestBasic(t, usersFile, nil)
		finish := make(chan struct{})
		replaceChecks(b, func(hash htpasswd.EncodedPasswd) check {
			return func(string) bool { <-finish; return false }
		})
		var ended atomic.Int64
		var all sync.WaitGroup
		for range 1000 {
			all.Go(func() {
				_, _ = login(t, b, "alice", "wrong") // refused, or busy
				ended.Add(1)
			})
		}
		synctest.Wait()
		if waiting := 1000 - ended.Load(); waiting != maxLogins {
			t.Errorf("%d requests wait, want %d", waiting, maxLogins)
		}
		close(finish)
		all.Wait()
		if b.waiters.held != 0 || len(b.waiters.by) != 0 {
			t.Error("the waiters counts requests that have ended")
		}
	})
}

// S12, S19
func TestBusy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newTestBasic(t, usersFile, nil)
		b.semaphore = newSemaphore(1, 2)
		var started atomic.Int64
		finish := make(chan struct{})
		replaceChecks(b, func(hash htpasswd.EncodedPasswd) check {
			return func(password string) bool {
				started.Add(1)
				<-finish
				return hash.MatchesPassword(password)
			}
		})
		begin := time.Now()
		var running, waiting sync.WaitGroup
		running.Go(func() {
			if who, err := login(t, b, "alice", password); who != "alice" || err != nil {
				t.Errorf("the one that runs: got %q, %v", who, err)
			}
		})
		synctest.Wait()
		for _, password := range []string{"1", "2"} {
			waiting.Go(func() {
				who, err := login(t, b, "alice", password)
				if down := new(*authz.UnavailableError); who != "" || !errors.Is(err, ErrBusy) || !errors.As(err, down) || (*down).Source != "htpasswd" || time.Since(begin) != b.longestWait() {
					t.Errorf("one that waits: got %q, %v after %v, want ErrBusy when it cannot be done in time", who, err, time.Since(begin))
				}
			})
		}
		synctest.Wait()
		who, err := login(t, b, "alice", "3")
		var refused *authz.CredentialsError
		if who != "" || !errors.Is(err, ErrBusy) || errors.As(err, &refused) || time.Since(begin) != 0 {
			t.Errorf("one too many: got %q, %v after %v, want ErrBusy at once", who, err, time.Since(begin))
		}
		waiting.Wait()
		if started.Load() != 1 {
			t.Errorf("%d checks ran, want 1", started.Load())
		}
		close(finish)
		running.Wait()
		if b.semaphore.waiting != 0 || b.semaphore.free != 1 {
			t.Error("the semaphore counts checks that are over")
		}
		if who, err := login(t, b, "bob@example.org", password); who == "" || err != nil {
			t.Errorf("afterwards: got %q, %v", who, err)
		}
	})
}

func TestBusyDoesNotConcernTheRemembered(t *testing.T) {
	b := newTestBasic(t, usersFile, nil)
	if _, err := login(t, b, "alice", password); err != nil {
		t.Fatal(err)
	}
	b.semaphore = &semaphore{} // closed
	if who, err := login(t, b, "alice", password); who != "alice" || err != nil {
		t.Errorf("got %q, %v", who, err)
	}
	if _, err := login(t, b, "alice", "wrong"); !errors.Is(err, ErrBusy) {
		t.Errorf("got %v, want ErrBusy", err)
	}
}

// A page with a hundred pictures must not be too busy with itself.
func TestSameCredentialsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newTestBasic(t, usersFile, nil)
		b.semaphore = newSemaphore(1, 0)
		var started atomic.Int64
		finish := make(chan struct{})
		replaceChecks(b, func(hash htpasswd.EncodedPasswd) check {
			return func(password string) bool {
				started.Add(1)
				<-finish
				return hash.MatchesPassword(password)
			}
		})
		var all sync.WaitGroup
		for range 100 {
			all.Go(func() {
				if who, err := login(t, b, "alice", password); who != "alice" || err != nil {
					t.Errorf("got %q, %v", who, err)
				}
			})
		}
		synctest.Wait()
		close(finish)
		all.Wait()
		if started.Load() != 1 {
			t.Errorf("%d checks, want 1", started.Load())
		}
	})
}

// S10: a panic lets nobody in and keeps no place.
func TestPanicInACheck(t *testing.T) {
	b := newTestBasic(t, usersFile, nil)
	free := b.semaphore.free
	replaceChecks(b, func(htpasswd.EncodedPasswd) check { return func(string) bool { panic("bug") } })
	func() {
		defer func() {
			if recover() == nil {
				t.Error("the panic was swallowed")
			}
		}()
		_, _ = login(t, b, "alice", password) // panics
	}()
	if b.semaphore.waiting != 0 || b.semaphore.free != free {
		t.Error("a check that panicked keeps its place")
	}
}

// S10
func TestZeroBasic(t *testing.T) {
	var refused *authz.CredentialsError
	who, err := login(t, &Basic{}, "alice", password)
	if who != "" || err == nil || errors.Is(err, authz.ErrNoCredentials) || errors.As(err, &refused) {
		t.Errorf("got %q, %v, want an error that is neither no nor bad credentials", who, err)
	}
}

func TestRealm(t *testing.T) {
	const bad = "is not a realm: printable ASCII without quotes and backslashes"
	for _, test := range []struct{ realm, challenge, err string }{
		{"", challenge, ""},
		{"Files of Example, Inc.", `Basic realm="Files of Example, Inc.", charset="UTF-8"`, ""},
		{`a"b`, "", bad}, {`a\`, "", bad}, {"a\r\nX: y", "", bad}, {"Müller", "", bad},
	} {
		b, err := NewBasic(usersFile, &BasicOptions{Realm: test.realm})
		if want := test.err; message(err) != want && message(err) != fmt.Sprintf("realm: %q %s", test.realm, want) {
			t.Errorf("%q: got error %v, want %q", test.realm, err, want)
		}
		if err == nil && b.Challenge() != test.challenge {
			t.Errorf("%q: got %s, want %s", test.realm, b.Challenge(), test.challenge)
		}
	}
}

// S19: neither hashes nor the key come out, however it is printed.
func TestDump(t *testing.T) {
	b := newTestBasic(t, usersFile, nil)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%d", "%x"} {
		if got := fmt.Sprintf(verb, b); got != "htpasswd "+usersFile {
			t.Errorf("%s: got %s", verb, got)
		}
	}
}

// Run with -race.
func TestConcurrentUse(t *testing.T) {
	b := newTestBasic(t, writeUsers(t, readUsers(t)), nil)
	var all sync.WaitGroup
	var writing sync.Mutex // another version for each
	for i := range 8 {
		all.Go(func() {
			for j := range 8 {
				if who, err := login(t, b, "alice", password); !errors.Is(err, ErrBusy) && (who != "alice" || err != nil) {
					t.Errorf("right: got %q, %v", who, err)
				}
				if who, err := login(t, b, "alice", fmt.Sprint(i, j)); who != "" || err == nil {
					t.Errorf("wrong: got %q, %v", who, err)
				}
			}
		})
		all.Go(func() {
			writing.Lock()
			anew(t, b.file)
			writing.Unlock()
			if err := b.Reload(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	last := b.users.Load()
	if err := b.Reload(t.Context()); err != nil || b.users.Load() != last {
		t.Errorf("the last version was not read: %v", err)
	}
	if g := last.generation; g < 2 || g > 9 {
		t.Errorf("got generation %d, want at most 9: two versions were one", g)
	}
}

func FuzzBasicHeader(f *testing.F) {
	for _, seed := range []string{
		"Basic YWxpY2U6Y29ycmVjdCBob3JzZQ==", "basic  YWxpY2U6Y29ycmVjdCBob3JzZQ==", "Basic", "Basic ", "Basic YWxpY2U=", "Basic Og==",
		"Bearer x", "Basic\tYTpi", "Basic YTpi\n", "=", "", "Basic YTpiAA==", "Basic QHN0YWZmOng=",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, value string) {
		user, password, err := parseBasic(value)
		if err != nil {
			if user != "" || password != "" {
				t.Fatal("an error beside credentials")
			}
			return
		}
		scheme, blob, _ := strings.Cut(value, " ")
		if !strings.EqualFold(scheme, "basic") || strings.TrimLeft(blob, " ") != base64.StdEncoding.EncodeToString([]byte(user+":"+password)) {
			t.Fatalf("%q became %q and %q", value, user, password)
		}
		if authz.ValidSubject(user) != nil || strings.Contains(user, ":") || password == "" || len(password) > 72 || strings.ContainsAny(password, "\x00\r\n") {
			t.Fatalf("accepted %q and %q", user, password)
		}
		// net/http reads the same where it reads anything.
		if u, p, ok := (&http.Request{Header: http.Header{"Authorization": {value}}}).BasicAuth(); ok && (u != user || p != password) {
			t.Fatalf("%q: net/http reads %q and %q", value, u, p)
		}
	})
}

func BenchmarkBasicWarm(b *testing.B) {
	source := newTestBasic(b, usersFile, nil)
	r := request(b, "X-Original-URI: /downloads/a.txt", "X-Original-Method: GET", "X-Real-IP: 192.0.2.1", basic("alice:"+password))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := source.Authenticate(b.Context(), r); err != nil {
			b.Fatal(err)
		}
	}
}

// Use prolongs what is remembered, and not for ever.
func TestUseProlongsWhatIsRememberedUpToABound(t *testing.T) {
	now := time.Unix(1_000_000_000, 0)
	b := newTestBasic(t, usersFile, &BasicOptions{Remember: time.Minute, Now: func() time.Time { return now }})
	checks := countChecks(b)
	for range 179 { // every 20 seconds
		if _, err := login(t, b, "alice", password); err != nil || checks.Load() != 1 {
			t.Fatalf("%v after %d checks, at %v", err, checks.Load(), now.Sub(time.Unix(1_000_000_000, 0)))
		}
		now = now.Add(20 * time.Second)
	}
	now = now.Add(20 * time.Second) // an hour
	if _, err := login(t, b, "alice", password); err != nil || checks.Load() != 2 {
		t.Errorf("after an hour: %v after %d checks, want 2", err, checks.Load())
	}
}

// logins logs users in at once, where a check takes so long on two cores, and returns
// how many were refused.
func logins(t *testing.T, b *Basic, took time.Duration, users int) (busy int64) {
	t.Helper()
	replaceChecks(b, func(hash htpasswd.EncodedPasswd) check {
		return func(password string) bool {
			time.Sleep(took) // in the bubble's time
			return true
		}
	})
	b.running = 1
	b.semaphore = newSemaphore(1, 0)
	b.noteTime(took)
	var refused atomic.Int64
	var all sync.WaitGroup
	begin := time.Now()
	for i := range users {
		all.Go(func() {
			_, err := login(t, b, "alice", fmt.Sprint("password ", i)) // as long as a login of another
			if errors.Is(err, ErrBusy) {
				refused.Add(1)
			} else if time.Since(begin) > time.Duration(b.patience.Load()) {
				t.Errorf("done after %v: nginx waits no longer", time.Since(begin))
			}
		})
	}
	all.Wait()
	return refused.Load()
}

// How many may log in at once follows from what a check costs and how long nginx waits.
func TestFirstLoginsAtOnce(t *testing.T) {
	for _, row := range []struct {
		name   string
		took   time.Duration
		logins int
		alone  bool // passwords are all that is checked
		busy   int64
	}{
		{"twelve at cost 12", 250 * time.Millisecond, 12, true, 0},
		{"as many as can be", 250 * time.Millisecond, 30, true, 0},
		{"too many", 250 * time.Millisecond, 40, true, 10},
		{"beside an application", 250 * time.Millisecond, 6, false, 0},
		{"too many beside an application", 250 * time.Millisecond, 12, false, 6},
		{"at cost 14", time.Second, 7, true, 0},
		{"cheap ones", 2 * time.Millisecond, 200, false, 0},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				source := must(NewBasicSource(usersFile, nil))(t)
				sources := Sources{source}
				if !row.alone {
					sources = append(sources, must(NewHeaderSource(HeaderOptions{Header: "X-User"}))(t))
				}
				sources.Share(1024)
				if err := sources.Load(t.Context()); err != nil {
					t.Fatal(err)
				}
				b := source.Authenticator.(*Basic)
				if n := logins(t, b, row.took, row.logins); n != row.busy {
					t.Errorf("%d of %d were refused, want %d", n, row.logins, row.busy)
				}
			})
		})
	}
}

// Where a check takes longer than was measured, fewer may wait.
func TestChecksAreTimed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newTestBasic(t, usersFile, nil)
		b.setPatience(LongPatience)
		_ = logins(t, b, time.Millisecond, 1) // measured on an idle machine
		before := b.semaphore.room
		replaceChecks(b, func(htpasswd.EncodedPasswd) check {
			return func(string) bool { time.Sleep(time.Second); return true } // in the bubble's time
		})
		for i := range 20 {
			if _, err := login(t, b, "alice", fmt.Sprint("other ", i)); err != nil {
				t.Fatal(err)
			}
		}
		if b.semaphore.room >= before || b.semaphore.room > 8 {
			t.Errorf("%d may wait, %d before", b.semaphore.room, before)
		}
	})
}

func TestRate(t *testing.T) {
	for _, c := range []struct {
		perSecond float64
		want      string
	}{{0.25, "0.25"}, {4.23, "4.2"}, {21.4, "21"}, {536.7, "537"}, {12345, "12345"}} {
		if got := rate(c.perSecond); got != c.want {
			t.Errorf("rate(%v) = %q, want %q", c.perSecond, got, c.want)
		}
	}
}
