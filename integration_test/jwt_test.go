package integration_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"securefiles/internal/freeport"
)

// buildOpenID builds the OpenID provider of the tests, once.
var buildOpenID = sync.OnceValues(func() (string, error) {
	file := filepath.Join(filepath.Dir(binary), "openid")
	out, err := exec.Command("go", "build", "-C", "openid", "-o", file, ".").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build the OpenID provider: %w\n%s", err, out)
	}
	return file, nil
})

// An openID is a running provider, with users alice (of the role staff), bob and
// editor, whose names are their passwords.
type openID struct {
	t       *testing.T
	dir     string // its users and keys
	address string
	process *exec.Cmd
}

func startOpenID(t *testing.T) *openID {
	t.Helper()
	p := &openID{t: t, dir: t.TempDir(), address: freeport.Address(t)}
	users := map[string]any{}
	for _, name := range []string{"alice", "bob", "editor"} {
		users[name] = map[string]any{"ID": name, "Username": name, "Password": name, "IsAdmin": name == "alice", "PreferredLanguage": "en"}
	}
	text, err := json.Marshal(users)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(p.dir, "users.json"), text, 0o600); err != nil {
		t.Fatal(err)
	}
	p.start()
	return p
}

// issuer is its name, and where it is.
func (p *openID) issuer() string { return "http://" + p.address }

func (p *openID) start() {
	p.t.Helper()
	file, err := buildOpenID()
	if err != nil {
		p.t.Fatal(err)
	}
	cmd := exec.Command(file, "-listen", p.address)
	cmd.Dir = p.dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	p.process = cmd
	p.t.Cleanup(func() { end(cmd) })
	deadline := time.Now().Add(patience)
	for {
		resp, err := http.Get(p.issuer() + "/.well-known/openid-configuration")
		if err == nil {
			_ = resp.Body.Close() // it answers
			return
		}
		if time.Now().After(deadline) {
			p.t.Fatalf("the OpenID provider does not answer: %v", err)
		}
		time.Sleep(5 * time.Millisecond) // between polls
	}
}

func (p *openID) signal(s syscall.Signal) {
	p.t.Helper()
	if err := p.process.Process.Signal(s); err != nil {
		p.t.Fatal(err)
	}
	if s == syscall.SIGKILL {
		_ = p.process.Wait() // it was killed
	}
}

// hang stops it, every thread: one that still ran could answer.
func (p *openID) hang() {
	p.t.Helper()
	p.signal(syscall.SIGSTOP)
	deadline := time.Now().Add(patience)
	for {
		stopped := 0
		threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", p.process.Process.Pid))
		if err != nil || len(threads) == 0 {
			p.t.Fatalf("%d threads, %v", len(threads), err)
		}
		for _, file := range threads {
			text, _ := os.ReadFile(file) // a thread that has ended answers nothing
			if _, state, _ := strings.Cut(string(text), ") "); state == "" || state[0] == 'T' {
				stopped++
			}
		}
		if stopped == len(threads) {
			return
		}
		if time.Now().After(deadline) {
			p.t.Fatal("the OpenID provider does not stop")
		}
		time.Sleep(time.Millisecond) // between polls
	}
}

// rotate makes it sign with a new key; drop withdraws the others.
func (p *openID) rotate(drop string) {
	p.t.Helper()
	resp, err := http.Post(p.issuer()+"/test/rotate?drop="+drop, "", nil)
	if err != nil || resp.StatusCode != http.StatusOK {
		p.t.Fatalf("rotate: %v %v", resp, err)
	}
	_ = resp.Body.Close() // nothing is in it
}

// login goes through the code flow, as a browser and an application do, and
// returns the access token.
func (p *openID) login(user, client string) string {
	p.t.Helper()
	browser := newClient()
	step := func(what string, resp *http.Response, err error) *http.Response {
		p.t.Helper()
		if err != nil {
			p.t.Fatalf("%s: %v", what, err)
		}
		p.t.Cleanup(func() { _ = resp.Body.Close() }) // read as far as it counts
		return resp
	}
	location := func(what string, resp *http.Response, err error) *url.URL {
		p.t.Helper()
		u, err := step(what, resp, err).Location()
		if err != nil {
			p.t.Fatalf("%s: status %d, %v", what, resp.StatusCode, err)
		}
		return p.at(u)
	}
	const callback = "http://localhost/callback"
	query := url.Values{"client_id": {client}, "redirect_uri": {callback}, "response_type": {"code"}, "scope": {"openid profile email"}, "state": {"s"}}
	resp, err := browser.Get(p.issuer() + "/auth?" + query.Encode())
	form := location("authorize", resp, err)
	id := form.Query().Get("authRequestID")
	resp, err = browser.PostForm(p.issuer()+"/login/username", url.Values{"id": {id}, "username": {user}, "password": {user}})
	back := location("log in", resp, err)
	resp, err = browser.Get(back.String())
	code := location("come back", resp, err).Query().Get("code")
	req, err := http.NewRequest(http.MethodPost, p.issuer()+"/oauth/token", strings.NewReader(url.Values{"grant_type": {"authorization_code"}, "code": {code}, "redirect_uri": {callback}}.Encode()))
	if err != nil {
		p.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.SetBasicAuth(client, "secret")
	resp, err = browser.Do(req)
	var answer struct {
		AccessToken string `json:"access_token"`
	}
	if err := json.NewDecoder(step("token", resp, err).Body).Decode(&answer); err != nil || strings.Count(answer.AccessToken, ".") != 2 {
		p.t.Fatalf("no token: status %d, %v", resp.StatusCode, err)
	}
	return answer.AccessToken
}

// at puts the provider's address before a path.
func (p *openID) at(u *url.URL) *url.URL {
	if u.Host == "" {
		u.Scheme, u.Host = "http", p.address
	}
	return u
}

func bearer(token string) func(*http.Request) { return with("Authorization", "Bearer "+token) }

// once closes the connection behind a request, for those that poll.
func once(r *http.Request) { r.Close = true }

// unknownKey is a token that names a key which nobody has.
func unknownKey() string {
	return base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"ES256","kid":"made-up"}`)) + ".e30.AAAA"
}

const tokenPolicy = "p, @anyone, /public/**, read, allow\np, @staff, /project/**, read, allow\np, editor, /private/**, read, allow\ng, carol, editor\n"

// tokenRecipe is the recipe of docs/identity.md, for this provider.
func tokenRecipe(t *testing.T, p *openID) string {
	t.Helper()
	return cook(t, "Token (JWT)").with(t, "https://id.example.org/realms/staff", p.issuer()).yaml
}

// Users log in at a real provider, and download with the token that it gives
// them: as docs/identity.md says.
func TestRecipeToken(t *testing.T) {
	t.Parallel()
	p := startOpenID(t)
	s := start(t, plan{policy: tokenPolicy, identity: tokenRecipe(t, p)})
	alice, bob := p.login("alice", "files"), p.login("bob", "files")
	s.status("", plan1, 200, bearer(alice))
	s.status("", plan1, 404, bearer(bob))
	s.status("", welcome, 200, bearer(bob))
	s.status("", "/downloads/private/secret.txt", 403, bearer(p.login("editor", "files"))) // named like a role
	s.status("", plan1, 401, bearer(p.login("alice", "mail")))                             // for another application
	s.status("", welcome, 401, bearer(alice[:len(alice)-8]+"AAAAAAAA"))
	s.status("", welcome, 401, bearer(unknownKey()))
	s.status("", welcome, 200)
	r := s.status("", plan1, 401)
	if got := r.header.Get("WWW-Authenticate"); got != `Bearer realm="downloads"` {
		t.Errorf("challenge %q", got)
	}
	r = s.status("", plan1, 401, bearer("x"))
	if got := r.header.Get("WWW-Authenticate"); got != `Bearer realm="downloads", error="invalid_token"` {
		t.Errorf("challenge %q", got)
	}
	if got := s.metric(`securefiles_identity_total{result="accepted",source="jwt"}`); got != "3" {
		t.Errorf("%s tokens were accepted", got)
	}
	for _, secret := range []string{alice, bob} {
		if strings.Contains(s.log.String(), secret[:20]) {
			t.Error("a token is in the log")
		}
	}
}

// S11, S20: the provider hangs, is killed, comes back with another key, and
// withdraws the old one, all under load. Known keys keep working, unknown ones
// are told that nobody can tell, nothing waits longer than the timeout, and
// nobody has to help.
func TestIssuerKilledUnderLoad(t *testing.T) {
	t.Parallel()
	p := startOpenID(t)
	s := start(t, plan{policy: tokenPolicy, identity: tokenRecipe(t, p)})
	alice := p.login("alice", "files")
	l := s.load(
		loadRequest{user: "Bearer " + alice, path: plan1, right: []int{200}, body: "0123456789\n"},
		loadRequest{path: welcome, right: []int{200}, body: "welcome\n"},
	)
	l.goOn(s, 20)

	p.hang()
	start, before := time.Now(), l.count()
	r := s.status("", welcome, 503, bearer(unknownKey()))
	if took := time.Since(start); took < time.Second || took > time.Second+slack || r.header.Get("Retry-After") == "" {
		t.Errorf("while it hangs: %v, %v", took, r.header)
	}
	// Each of the six clients that had to wait as well would have had one answer.
	if n := l.count() - before; n <= 12 {
		t.Errorf("known users had %d answers while one waited", n)
	}
	l.goOn(s, 20)
	p.signal(syscall.SIGKILL)
	s.status("", welcome, 503, bearer(unknownKey()))
	l.goOn(s, 20)

	// It comes back with one more key; the service finds it by itself.
	p.start()
	p.rotate("")
	next := p.login("alice", "files")
	if kid(next) == kid(alice) {
		t.Fatal("the provider has not changed its key")
	}
	s.eventually("the new key is known", func() bool { return s.get("", plan1, bearer(next), once).status == http.StatusOK })
	s.status("", welcome, 401, bearer(unknownKey())) // now it is known that there is none
	l.goOn(s, 20)
	l.end(t)

	// What the issuer withdraws is refused, as soon as the service has asked.
	p.rotate("1")
	if err := s.daemon.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	s.eventually("the old keys are gone", func() bool {
		return s.get("", plan1, bearer(alice), once).status == http.StatusUnauthorized && s.get("", plan1, bearer(next), once).status == http.StatusUnauthorized
	})
	s.status("", plan1, 200, bearer(p.login("alice", "files")))
}

// kid returns a token's key id.
func kid(token string) string {
	part, _, _ := strings.Cut(token, ".")
	text, _ := base64.RawURLEncoding.DecodeString(part) // an empty id is like no other
	var header struct{ Kid string }
	_ = json.Unmarshal(text, &header) // likewise
	return header.Kid
}

// An issuer that is away when the service starts: 503 for its tokens, all else
// is served, and it recovers by itself.
func TestServiceStartsWithoutItsIssuer(t *testing.T) {
	t.Parallel()
	p := startOpenID(t)
	alice := p.login("alice", "files")
	p.signal(syscall.SIGKILL)
	s := start(t, plan{policy: tokenPolicy, identity: tokenRecipe(t, p)})
	s.status("", plan1, 503, bearer(alice))
	if got := s.metric(`securefiles_identity_total{result="unavailable",source="jwt"}`); got != "1" {
		t.Errorf("%q requests could not be answered", got)
	}
	if got := s.metric("securefiles_identity_keys_stale"); got != "1" {
		t.Errorf("%q issuers are stale", got)
	}
	s.status("", plan1, 401)
	s.status("", welcome, 200)
	p.start()
	s.eventually("its tokens are accepted", func() bool { return s.get("", plan1, bearer(alice), once).status == http.StatusOK })
}

// An application's own tokens in a cookie, signed with a shared secret, as the
// second configuration of docs/identity.md has it.
func TestRecipeTokenOfAnApplication(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../docs/identity.md")
	if err != nil {
		t.Fatal(err)
	}
	var recipe string
	for _, m := range fence.FindAllStringSubmatch(string(text), -1) {
		if m[1] == "yaml" && strings.Contains(m[2], "secret.json") {
			recipe = m[2]
		}
	}
	key := strings.Repeat("k", 32)
	keys := func(key string) string {
		return fmt.Sprintf(`{"keys":[{"kty":"oct","kid":"app","k":%q}]}`, base64.RawURLEncoding.EncodeToString([]byte(key)))
	}
	s := start(t, plan{policy: alicesPolicy, identity: recipe, before: func(s *site) { s.write("secret.json", keys(key)) }})
	cookie := func(token string) func(*http.Request) {
		return with("Cookie", "theme=dark; __Host-download="+token)
	}
	token := func(key, sub string, exp time.Time) string {
		return hs256(key, fmt.Sprintf(`{"iss":"my-application","aud":"files","sub":%q,"exp":%d}`, sub, exp.Unix()))
	}
	later := time.Now().Add(time.Hour)
	alice := token(key, "alice", later)
	s.status("", plan1, 200, cookie(alice))
	s.status("", plan1, 404, cookie(token(key, "bob", later)))
	s.status("", welcome, 401, cookie(token("another secret", "alice", later)))
	s.status("", welcome, 401, cookie(token(key, "alice", time.Now().Add(-time.Hour))))
	s.status("", welcome, 401, with("Cookie", "__Host-download="+alice+"; __Host-download="+alice))
	s.status("", welcome, 401, func(r *http.Request) { r.Header["Cookie"] = []string{"__Host-download=x", "__Host-download=" + alice} })
	s.status("", plan1, 401, bearer(alice)) // it is not looked for there
	// Another secret takes its place when the file changes.
	next := strings.Repeat("n", 32)
	s.replace("secret.json", keys(next))
	s.eventually("the new secret is read", func() bool {
		return s.get("", plan1, cookie(token(next, "alice", later)), once).status == http.StatusOK
	})
	s.status("", plan1, 401, cookie(alice))
	s.replace("secret.json", `{"keys":[{"kty":"oct","k":"c2hvcnQ"}]}`)
	s.eventually("a bad secret is refused", func() bool { return strings.Contains(s.log.String(), "keys refused") })
	s.status("", plan1, 200, cookie(token(next, "alice", later)))
	if strings.Contains(s.log.String(), next) || strings.Contains(s.log.String(), key) {
		t.Error("a secret is in the log")
	}
}

// hs256 makes a token as an application does, with its standard library.
func hs256(key, payload string) string {
	input := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"HS256","typ":"JWT"}`)) + "." + base64.RawURLEncoding.EncodeToString([]byte(payload))
	mac := hmac.New(sha256.New, []byte(key))
	mac.Write([]byte(input))
	return input + "." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

// A gateway's token in a header of its own passes nginx because the printed snippet names
// the header; in another place, or beside another of its name, it is nobody's.
func TestTokenInAHeaderOfItsOwn(t *testing.T) {
	t.Parallel()
	key := strings.Repeat("k", 32)
	s := start(t, plan{policy: alicesPolicy, printed: true, identity: "identity:\n  - jwt: {issuer: gateway, audience: [files], jwks_file: secret.json, algorithms: [HS256], header: Cf-Access-Jwt-Assertion}\n",
		before: func(s *site) {
			s.write("secret.json", fmt.Sprintf(`{"keys":[{"kty":"oct","kid":"app","k":%q}]}`, base64.RawURLEncoding.EncodeToString([]byte(key))))
		}})
	token := func(sub string) string {
		return hs256(key, fmt.Sprintf(`{"iss":"gateway","aud":"files","sub":%q,"exp":%d}`, sub, time.Now().Add(time.Hour).Unix()))
	}
	const header = "Cf-Access-Jwt-Assertion"
	s.status("", plan1, 200, with(header, token("alice")))
	s.status("", plan1, 404, with(header, token("bob")))
	s.status("", plan1, 401, with(header, "x"))
	s.status("", plan1, 401)
	s.status("", plan1, 401, bearer(token("alice")))
	s.status("", plan1, 403, with(header, token("@staff"))) // right, and no name for a user
}
