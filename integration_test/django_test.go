package integration_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"securefiles/internal/freeport"
)

// debianPython has Django where Debian's package is installed; another python3
// may come before it in PATH.
const debianPython = "/usr/bin/python3"

// What the example remembers for 30 seconds, tests remember for this long.
const djangoRemember = 2 * time.Second

// startDjango runs examples/django/run.sh as it stands, but for the addresses.
func startDjango(t *testing.T) *site {
	t.Helper()
	if out, err := exec.Command(debianPython, "-c", "import django").CombinedOutput(); err != nil {
		t.Fatalf("Django is not installed: `make test` installs it\n%s", out)
	}
	s := &site{t: t, dir: publicDir(t), web: freeport.Address(t), admin: freeport.Address(t), log: &logBuffer{}}
	script, err := filepath.Abs("../examples/django/run.sh")
	if err != nil {
		t.Fatal(err)
	}
	cmd := s.command(script)
	cmd.Stdout, cmd.Stderr = s.log, s.log
	cmd.Env = append(os.Environ(), "PYTHON="+debianPython, "BINARY="+binary, "DIR="+s.dir, "WEB="+s.web, "DJANGO="+freeport.Address(t),
		"SECUREFILES_LISTEN="+freeport.Address(t), "SECUREFILES_ADMIN="+s.admin,
		"SECUREFILES_IDENTITY_0_SESSION_REMEMBER="+djangoRemember.String(), "SECUREFILES_IDENTITY_0_SESSION_REMEMBER_REFUSED=200ms")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		defer end(cmd)
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGINT) // as Ctrl-C does; it may be gone
		stopped := time.AfterFunc(patience, func() { end(cmd) })
		_ = cmd.Wait() // it was interrupted
		if !stopped.Stop() {
			t.Error("Ctrl-C did not stop the example")
		}
		if err := syscall.Kill(-cmd.Process.Pid, 0); !errors.Is(err, syscall.ESRCH) {
			t.Errorf("Ctrl-C left a process of the example behind: %v", err)
		}
	})
	t.Cleanup(func() {
		if t.Failed() {
			for _, name := range []string{"django", "securefiles", "error"} {
				text, _ := os.ReadFile(filepath.Join(s.dir, "logs", name+".log")) // there may be none
				t.Logf("%s log:\n%s", name, tail(string(text)))
			}
		}
	})
	s.eventually("the example runs", func() bool { return strings.Contains(s.log.String(), "Press Ctrl-C") })
	return s
}

// manage runs Python in the example's site.
func (s *site) manage(python string) {
	s.t.Helper()
	cmd := exec.Command(debianPython, "../examples/django/site/manage.py", "shell")
	cmd.Stdin = strings.NewReader("from django.contrib.auth.models import Group, User\n" + python + "\n")
	cmd.Env = append(os.Environ(), "SECRET_KEY=of no use here", "DATABASE="+filepath.Join(s.dir, "db.sqlite3"), "PYTHONDONTWRITEBYTECODE=1")
	if out, err := cmd.CombinedOutput(); err != nil {
		s.t.Fatalf("manage.py: %v\n%s", err, out)
	}
}

// A browser keeps cookies and says that it wants pages.
type browser struct {
	s      *site
	client *http.Client
}

func (s *site) browser() *browser {
	s.t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		s.t.Fatal(err)
	}
	client := newClient()
	client.Jar = jar
	return &browser{s, client}
}

func (b *browser) get(path string) reply {
	b.s.t.Helper()
	r, err := b.s.try(b.client, "", path, asBrowser)
	if err != nil {
		b.s.t.Fatal(err)
	}
	return r
}

var csrfField = regexp.MustCompile(`name="csrfmiddlewaretoken" value="([^"]+)"`)

// post fills in the form of a page and sends it.
func (b *browser) post(page, action string, fields url.Values) reply {
	b.s.t.Helper()
	token := csrfField.FindStringSubmatch(b.get(page).body)
	if token == nil {
		b.s.t.Fatalf("%s has no form", page)
	}
	fields.Set("csrfmiddlewaretoken", token[1])
	return b.send(action, fields)
}

func (b *browser) send(action string, fields url.Values) reply {
	b.s.t.Helper()
	r, err := b.s.try(b.client, "", action, asBrowser, func(r *http.Request) {
		body := strings.NewReader(fields.Encode())
		*r = *must(http.NewRequest(http.MethodPost, r.URL.String(), body))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	})
	if err != nil {
		b.s.t.Fatal(err)
	}
	return r
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// login logs in through the form of the page that a download led to, and
// returns where that sends the browser.
func (b *browser) login(user, password, page string) reply {
	b.s.t.Helper()
	next := must(url.Parse(page)).Query().Get("next")
	return b.post(page, strings.SplitN(page, "?", 2)[0], url.Values{"username": {user}, "password": {password}, "next": {next}})
}

func (b *browser) wants(path string, status int) reply {
	b.s.t.Helper()
	r := b.get(path)
	if r.status != status {
		b.s.t.Errorf("%s: %d %v, want %d", path, r.status, r.header, status)
	}
	return r
}

// The example in examples/django, as a user lives through it.
func TestDjango(t *testing.T) {
	t.Parallel()
	s := startDjango(t)
	const plan, handbook, salaries = "/downloads/project/plan.txt", "/downloads/shared/handbook.txt", "/downloads/project/hr/salaries.txt"

	// Without a login: a public file, the login page for a browser, 401 for a
	// program.
	alice := s.browser()
	alice.wants("/downloads/public/welcome.txt", 200)
	s.status("", plan, 401)
	sent := alice.wants(plan+"?from=mail", 302).header.Get("Location")
	if sent != "/accounts/login/?next=%2Fdownloads%2Fproject%2Fplan.txt%3Ffrom%3Dmail" {
		t.Fatalf("sent to %q", sent)
	}

	// Django's form refuses without its token, and with a wrong password.
	if r := alice.send("/accounts/login/", url.Values{"username": {"alice"}, "password": {"alice"}}); r.status != 403 {
		t.Errorf("a form without its token: %d", r.status)
	}
	if r := alice.login("alice", "wrong", sent); r.status != 200 {
		t.Errorf("a wrong password: %d", r.status)
	}
	alice.wants(plan, 302)

	// Logged in, the browser comes back to where it was, and has the file.
	if r := alice.login("alice", "alice", sent); r.status != 302 || r.header.Get("Location") != plan+"?from=mail" {
		t.Fatalf("logged in: %d to %q", r.status, r.header.Get("Location"))
	}
	if r := alice.wants(plan+"?from=mail", 200); r.body != "The plan, for project members.\n" {
		t.Errorf("body %q", r.body)
	}
	alice.wants(handbook, 200)
	alice.wants(salaries, 404) // a deny line

	// A link that alice asks for in Django opens the plan without a login; bob gets none.
	share := func(b *browser, path string) (r reply, made struct{ ID, URL, Direct string }) {
		t.Helper()
		r = b.post("/", "/share", url.Values{"path": {path}})
		if r.status == http.StatusCreated {
			if err := json.Unmarshal([]byte(r.body), &made); err != nil {
				t.Fatal(err)
			}
		}
		return r, made
	}
	r, made := share(alice, "/project/plan.txt")
	site, opened := strings.CutPrefix(made.URL, "http://"+s.web)
	if r.status != 201 || !opened {
		t.Fatalf("shared: %d %s", r.status, r.body)
	}
	s.status("", site, 403) // its page
	if r := s.status("", strings.TrimPrefix(made.Direct, "http://"+s.web), 200); r.body != "The plan, for project members.\n" {
		t.Errorf("the link opens %q", r.body)
	}
	if r, _ := share(alice, "/project/hr/salaries.txt"); r.status != 403 { // a deny line
		t.Errorf("salaries: %d %s", r.status, r.body)
	}
	if r := s.browser().send("/share", url.Values{"path": {"/project/plan.txt"}}); r.status != 403 {
		t.Errorf("a form without its token: %d", r.status)
	}

	// bob is no project member, until he is.
	bob := s.browser()
	bob.login("bob", "bob", "/accounts/login/?next=/")
	bob.wants(handbook, 200)
	bob.wants(plan, 404)
	if r, _ := share(bob, "/project/plan.txt"); r.status != 403 {
		t.Errorf("bob shares: %d %s", r.status, r.body)
	}
	s.manage(`User.objects.get(username="bob").groups.add(Group.objects.get(name="project_member"))`)
	s.within(djangoRemember, "the new group counts", func() bool { return bob.get(plan).status == 200 })
	s.manage(`User.objects.get(username="bob").groups.clear()`)
	s.within(djangoRemember, "the old group counts no more", func() bool { return bob.get(plan).status == 404 })

	// A cookie that was copied dies with the session that alice ends.
	thief := s.browser()
	address := must(url.Parse("http://" + s.web))
	thief.client.Jar.SetCookies(address, alice.client.Jar.Cookies(address))
	thief.wants(plan, 200)
	if r := alice.post("/", "/accounts/logout/", url.Values{}); r.status != 302 {
		t.Errorf("logged out: %d", r.status)
	}
	alice.wants(plan, 302) // the browser has no cookie any more
	s.within(djangoRemember, "the session is over", func() bool { return thief.get(plan).status == 302 })
	thief.wants("/downloads/public/welcome.txt", 302) // bad credentials never become anonymous
	forAll := strings.TrimPrefix(made.Direct, "http://"+s.web)
	thief.wants(forAll, 200)  // but beside a good link they end nothing
	s.status("", forAll, 200) // which outlives the session of its maker
	thief.wants(forAll, 410)  // three times
	r, err := s.try(thief.client, "", plan)
	if err != nil || r.status != 401 {
		t.Errorf("a program with a dead session: %d, %v", r.status, err)
	}

	// A user who is disabled, and one who is deleted.
	s.manage(`User.objects.filter(username="bob").update(is_active=False)`)
	s.within(djangoRemember, "the disabled user is out", func() bool { return bob.get(handbook).status == 302 })

	// Names that Django allows and policies must not take for others.
	s.manage(`
for name in ["@project_member", "anonymous", "@staff"]:
    User.objects.create_user(name, password="x")
User.objects.create_user("mallory", password="x").groups.add(Group.objects.create(name="a,project_member"), Group.objects.create(name="authenticated"))
User.objects.create_user("trudy", password="x").groups.add(Group.objects.get(name="a,project_member"))
`)
	for _, row := range []struct {
		user   string
		status int // of the handbook
	}{{"@project_member", 403}, {"anonymous", 403}, {"@staff", 403}, {"mallory", 403}, {"trudy", 200}} {
		b := s.browser()
		if r := b.login(row.user, "x", "/accounts/login/?next=/"); r.status != 302 {
			t.Fatalf("%s cannot log in: %d", row.user, r.status)
		}
		b.wants(handbook, row.status)
		if r := b.get(plan); r.status == 200 {
			t.Errorf("%s has the plan", row.user)
		}
	}

	// Nobody outside reaches the view that says who is who.
	alice.wants("/securefiles/whoami", 404)
	if got := s.metric(`securefiles_session_calls_total{result="known"}`); got == "0" || got == "" {
		t.Errorf("the calls are not counted: %q", got)
	}
	if text := must(os.ReadFile(filepath.Join(s.dir, "logs", "securefiles.log"))); strings.Contains(string(text), "sessionid") {
		t.Errorf("the log has cookies:\n%s", text)
	}
}

// within polls as eventually does, and asks for more: that what was to come
// about took no longer than it may, a loaded machine aside.
func (s *site) within(limit time.Duration, what string, holds func() bool) {
	s.t.Helper()
	began := time.Now()
	s.eventually(what, holds)
	if took := time.Since(began); took > limit+slack {
		s.t.Errorf("it took %v that %s, and may take %v", took, what, limit)
	}
}

// The page that tells people to copy the view shows it as it is.
func TestDjangoViewIsDocumentedAsItIs(t *testing.T) {
	for file, where := range map[string]string{"site/whoami.py": "django.md", "policy.csv": "django.md", "securefiles.yaml": "django.md", "site/share.py": "links.md"} {
		page := string(must(os.ReadFile("../docs/" + where)))
		text := string(must(os.ReadFile("../examples/django/" + file)))
		_, shown, found := strings.Cut(page, fmt.Sprintf("<!-- examples/django/%s -->\n```", file))
		_, shown, _ = strings.Cut(shown, "\n")
		shown, _, closed := strings.Cut(shown, "```")
		if !found || !closed || !strings.HasSuffix(text, shown) || len(shown) < 100 {
			t.Errorf("docs/%s does not show the end of %s:\n%s", where, file, shown)
		}
	}
}
