package identity

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"

	"securefiles/authz"
)

// A conforming is one source, and requests that it must answer in a certain way. A
// new source adds one to conformance.
type conforming struct {
	kind string
	// open makes the source in a directory of the test's, with all that it needs.
	open func(t *testing.T, dir string) *Source
	// nothing carries no credentials of its kind, accepted those of alice.
	nothing, accepted *authz.Question
	// refused carries wrong credentials.
	refused *authz.Question
	// secret is what stands in accepted and refused and must not be said.
	secret string
	// reserved carries right credentials of a name or a group that no source may
	// give; nil where its credentials cannot say such a thing.
	reserved []*authz.Question
	// breakIt takes away what it depends on: the next request that cannot do
	// without is unavailable. Nil for a source that depends on nothing.
	breakIt func(t *testing.T, s *Source)
	// unavailable is that request.
	unavailable *authz.Question
	// spoil makes its file one that cannot be used; nil where it has none.
	spoil func(t *testing.T, file string)
}

func headers(lines ...string) *authz.Question {
	h := http.Header{}
	for _, line := range lines {
		name, value, _ := strings.Cut(line, ": ")
		h.Add(name, value)
	}
	return &authz.Question{Header: h}
}

func garbage(t *testing.T, file string) {
	t.Helper()
	if err := os.WriteFile(file, []byte("garbage"), 0o600); err != nil {
		t.Fatal(err)
	}
}

// must returns a source that can be made.
func must(s *Source, err error) func(*testing.T) *Source {
	return func(t *testing.T) *Source {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
}

// conformance lists the sources, one a kind.
func conformance(t *testing.T) []conforming {
	const secretWord = "s3cr3tw0rd"
	keys := func(t *testing.T, dir string) string {
		file := filepath.Join(dir, "keys.json")
		text := jwks(t, public("p256"))
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	bearer := func(changes map[string]any) *authz.Question {
		return headers("Authorization: Bearer " + token(t, "p256", jose.ES256, changes))
	}
	bad := token(t, "p256", jose.ES256, nil)
	bad = bad[:len(bad)-4] + "AAAA"
	var app *httptest.Server
	answers := map[string]string{
		"good":      `{"subject": "alice", "groups": ["staff"]}`,
		"anonymous": `{"subject": "anonymous", "groups": []}`,
		"group":     `{"subject": "@staff", "groups": []}`,
		"role":      `{"subject": "alice", "groups": ["authenticated"]}`,
		"marked":    `{"subject": "role:editor", "groups": []}`,
		"marks":     `{"subject": "alice", "groups": ["role:editor"]}`,
	}
	return []conforming{
		{
			kind: "header",
			open: func(t *testing.T, _ string) *Source {
				return must(NewHeaderSource(HeaderOptions{Header: "X-Remote-User", GroupsHeader: "X-Remote-Groups"}))(t)
			},
			nothing: headers("Authorization: Basic YTpi"), accepted: headers("X-Remote-User: alice", "X-Remote-Groups: staff"),
			refused: headers("X-Remote-User: "+secretWord, "X-Remote-User: alice"), secret: secretWord,
			reserved: []*authz.Question{headers("X-Remote-User: anonymous"), headers("X-Remote-User: @staff"), headers("X-Remote-User: role:editor"), headers("X-Remote-User: alice", "X-Remote-Groups: role:editor"), headers("X-Remote-User: alice", "X-Remote-Groups: authenticated"), headers("X-Remote-User: alice\u200b")},
		},
		{
			kind: "htpasswd",
			open: func(t *testing.T, dir string) *Source {
				file := filepath.Join(dir, "users.htpasswd")
				text, err := os.ReadFile(usersFile)
				if err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(file, text, 0o600); err != nil {
					t.Fatal(err)
				}
				return must(NewBasicSource(file, nil))(t)
			},
			nothing: headers("Authorization: Bearer x"), accepted: headers(basic("alice:" + password)),
			refused: headers(basic("alice:" + secretWord)), secret: secretWord,
			reserved: []*authz.Question{headers(basic("anonymous:x")), headers(basic("@staff:x"))},
			breakIt: func(t *testing.T, s *Source) { // as many checks as may be under way
				semaphore := s.Authenticator.(*Basic).semaphore
				semaphore.free, semaphore.room = 0, 0
			},
			unavailable: headers(basic("bob@example.org:guess")),
			spoil:       garbage,
		},
		{
			kind: "jwt",
			open: func(t *testing.T, dir string) *Source {
				return must(NewJWTSource(nil, KeysOptions{Issuer: testIssuer, File: keys(t, dir)}, JWTOptions{Audiences: []string{"files"}, GroupsClaim: "groups", Now: atNoon}))(t)
			},
			nothing: headers("Authorization: Basic YTpi"), accepted: bearer(map[string]any{"groups": []string{"staff"}}),
			refused: headers("Authorization: Bearer " + bad), secret: bad,
			reserved:    []*authz.Question{bearer(map[string]any{"sub": "anonymous"}), bearer(map[string]any{"sub": "@staff"}), bearer(map[string]any{"sub": "role:editor"}), bearer(map[string]any{"groups": []string{"role:editor"}}), bearer(map[string]any{"groups": []string{"authenticated"}})},
			breakIt:     func(_ *testing.T, s *Source) { s.keys.set.Store(nil) },
			unavailable: bearer(map[string]any{"jti": "another"}),
			spoil:       garbage,
		},
		{
			kind: "certificate",
			open: func(t *testing.T, _ string) *Source {
				return must(NewCertificateSource(CertificateOptions{Groups: GroupsOU}))(t)
			},
			nothing: headers(HeaderVerify + ": NONE"), accepted: headers(HeaderVerify+": SUCCESS", HeaderDN+": CN=alice,OU=staff"),
			refused: headers(HeaderVerify+": FAILED:"+secretWord, HeaderDN+": CN="+secretWord), secret: secretWord,
			reserved: []*authz.Question{headers(HeaderVerify+": SUCCESS", HeaderDN+": CN=anonymous"), headers(HeaderVerify+": SUCCESS", HeaderDN+": CN=@staff"), headers(HeaderVerify+": SUCCESS", HeaderDN+": CN=role:editor"), headers(HeaderVerify+": SUCCESS", HeaderDN+": CN=alice,OU=role:editor"), headers(HeaderVerify+": SUCCESS", HeaderDN+": CN=alice,OU=anyone")},
		},
		{
			kind: "session",
			open: func(t *testing.T, dir string) *Source {
				app = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					c, err := r.Cookie("id")
					if err != nil || answers[c.Value] == "" {
						w.WriteHeader(http.StatusUnauthorized)
						return
					}
					answerJSON(answers[c.Value])(w, r)
				}))
				t.Cleanup(app.Close)
				file := filepath.Join(dir, "ca.pem")
				if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: app.Certificate().Raw}), 0o600); err != nil {
					t.Fatal(err)
				}
				s := must(NewSessionSource(SessionOptions{URL: app.URL, Cookies: []string{"id"}, CAFile: file}))(t)
				t.Cleanup(func() {
					if c := s.Authenticator.(*Session).client.Load(); c != nil {
						c.CloseIdleConnections()
					}
				})
				return s
			},
			nothing: headers("Cookie: theme=dark"), accepted: headers("Cookie: id=good"),
			refused: headers("Cookie: id=" + secretWord), secret: secretWord,
			reserved:    []*authz.Question{headers("Cookie: id=anonymous"), headers("Cookie: id=group"), headers("Cookie: id=role"), headers("Cookie: id=marked"), headers("Cookie: id=marks")},
			breakIt:     func(*testing.T, *Source) { app.Close() },
			unavailable: headers("Cookie: id=beyond"),
			spoil:       garbage,
		},
	}
}

// Every source keeps the promises that authz and the rest of the service rely on.
func TestEverySourceConforms(t *testing.T) {
	kinds := map[string]bool{}
	for _, c := range conformance(t) {
		kinds[c.kind] = true
		t.Run(c.kind, func(t *testing.T) { conform(t, c) })
	}
	for _, kind := range []string{sourceHeader, sourceBasic, sourceJWT, sourceCertificate, sourceSession} {
		if !kinds[kind] {
			t.Errorf("%s is not among them", kind)
		}
	}
}

func conform(t *testing.T, c conforming) {
	dir := t.TempDir()
	source := c.open(t, dir)
	ask := func(q *authz.Question) (authz.Principal, error) { return authz.Identify(t.Context(), source, q) }
	is := func(name string, q *authz.Question, ok func(error) bool) {
		t.Helper()
		p, err := ask(q)
		if !ok(err) || p.Subject != "" || p.Groups != nil {
			t.Errorf("%s: %+v, %v", name, p, err)
		}
		if says := fmt.Sprintf("%v %+v %#v %s", err, err, source.Authenticator, source.Place); strings.Contains(says, c.secret) || strings.Contains(says, password) {
			t.Errorf("%s: says %s", name, says)
		}
	}
	anUnavailable := func(err error) bool {
		var bad *authz.CredentialsError
		return err != nil && !errors.Is(err, authz.ErrNoCredentials) && !errors.As(err, &bad)
	}

	if source.Name != c.kind || source.Place == "" || len(source.Reads) == 0 {
		t.Errorf("the row is %+v", source)
	}
	if (source.Reload == nil) != (source.State == nil) || (source.Reload == nil) != (source.Holds == "") || len(source.Files) > 0 && (source.Reload == nil || source.Rule == "") {
		t.Errorf("what is loaded must be told of, and be loaded again: %+v", source)
	}
	if len(source.Files) > 0 {
		is("before its files are loaded", c.accepted, anUnavailable)
		if got := source.State().Generation; got != 0 {
			t.Errorf("before its files are loaded it serves version %d", got)
		}
	}
	if err := (Sources{source}).Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	if source.Reload != nil {
		before := source.State().Generation
		if err := source.Reload(t.Context()); err != nil || before != 1 || source.State().Generation != 1 {
			t.Errorf("what is the same is no new version: %d, then %d: %v", before, source.State().Generation, err)
		}
	}

	if p, err := ask(c.nothing); err != nil || !p.IsAnonymous() {
		t.Errorf("no credentials: %+v, %v", p, err)
	}
	p, err := ask(c.accepted)
	if err != nil || p.Subject != "alice" || p.Source != c.kind {
		t.Errorf("right credentials: %+v, %v", p, err)
	}
	if c.kind != sourceBasic && !slices.Contains(p.Groups, "@staff") {
		t.Errorf("groups %q", p.Groups)
	}
	is("wrong credentials", c.refused, func(err error) bool {
		var bad *authz.CredentialsError
		return errors.As(err, &bad) && bad.Source == c.kind && (bad.Challenge != "") == (source.Challenge != "")
	})
	for i, q := range c.reserved {
		is(fmt.Sprintf("a name that is not to be had, %d", i), q, func(err error) bool {
			var bad *authz.CredentialsError
			return errors.Is(err, authz.ErrReservedSubject) || errors.As(err, &bad)
		})
	}
	if p, err := ask(c.accepted); err != nil || p.Subject != "alice" {
		t.Errorf("right credentials once more: %+v, %v", p, err)
	}

	if len(source.Files) > 0 {
		conformFiles(t, c, source)
	}
	if c.breakIt != nil {
		c.breakIt(t, source)
		is("it cannot tell", c.unavailable, func(err error) bool {
			var down *authz.UnavailableError
			return anUnavailable(err) && errors.As(err, &down) && down.Source == c.kind
		})
	}
}

// conformFiles reads a source's file again and again, good and bad.
func conformFiles(t *testing.T, c conforming, source *Source) {
	file := source.Files[0]
	good, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	open := func() int {
		if runtime.GOOS != "linux" {
			t.Skip("there is no /proc")
		}
		links, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for _, l := range links {
			if to, err := os.Readlink("/proc/self/fd/" + l.Name()); err == nil && to == file {
				n++
			}
		}
		return n
	}
	serving := source.State().Generation
	for _, spoil := range []func(){
		func() { c.spoil(t, file) },
		func() { // gone
			if err := os.Remove(file); err != nil {
				t.Fatal(err)
			}
		},
	} {
		spoil()
		err := source.Reload(t.Context())
		if err == nil || !strings.Contains(err.Error(), filepath.Base(file)) {
			t.Errorf("a file that cannot be used: %v", err)
		}
		if s := source.State(); s.Err == nil || s.Generation != serving {
			t.Errorf("a file that cannot be used: %+v", s)
		}
		if p, err := authz.Identify(t.Context(), source, c.accepted); err != nil || p.Subject != "alice" {
			t.Errorf("the last good version does not serve: %+v, %v", p, err)
		}
	}
	if err := os.WriteFile(file, good, 0o600); err != nil {
		t.Fatal(err)
	}
	for range 20 {
		if err := source.Reload(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
	if s := source.State(); s.Err != nil || s.Generation < serving {
		t.Errorf("mended: %+v", s)
	}
	if n := open(); n != 0 {
		t.Errorf("%d descriptors of its file are open", n)
	}
}
