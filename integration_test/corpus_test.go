package integration_test

import (
	"encoding/json"
	"fmt"
	"mime"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// corpusPolicy is the access of the one corpus caller, as tree.txt states it.
const corpusPolicy = `
p, alice, /pub/**, read, allow
p, alice, /team/**, read, allow
p, alice, /u/alice/**, read, allow
p, alice, /names/**, read, allow
p, alice, /links/**, read, allow
p, alice, /special/**, read, allow
p, alice, /pub/secret.txt, read, deny
p, alice, /pub/deny/**, read, deny
p, alice, /team/plan, read, deny
`

// plantTree makes the corpus's files below base and returns what each holds, by
// its path below the root.
func plantTree(t *testing.T, base string) map[string]string {
	t.Helper()
	text, err := os.ReadFile("testdata/attacks/tree.txt")
	if err != nil {
		t.Fatal(err)
	}
	decode := func(s string) string {
		decoded, err := url.PathUnescape(s)
		if err != nil {
			t.Fatal(err)
		}
		return decoded
	}
	contents := map[string]string{}
	planted := 0
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		f := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		kind, name := f[0], decode(f[3])
		file := filepath.Join(base, name)
		if name != filepath.Clean(name) {
			file = base + "/" + name
		}
		if err := os.MkdirAll(path.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		switch kind {
		case "file":
			err = os.WriteFile(file, []byte(f[4]+"\n"), 0o644)
			if below, ok := strings.CutPrefix(name, "files/"); ok {
				contents[below] = f[4] + "\n"
			}
		case "dir":
			err = os.MkdirAll(file, 0o755)
		case "symlink":
			err = os.Symlink(decode(f[4]), file)
		case "fifo":
			err = syscall.Mkfifo(file, 0o644)
		default:
			t.Fatalf("tree.txt: kind %q", kind)
		}
		if err != nil {
			t.Fatal(err)
		}
		planted++
	}
	if planted < 100 {
		t.Fatalf("planted %d entries only", planted)
	}
	return contents
}

type attack struct {
	ID      string `json:"id"`
	Class   string `json:"class"`
	RawPath string `json:"raw_path"` // one character U+0000 to U+00FF a byte
	Must    string `json:"must"`
	May     string `json:"may"`
}

func attacks(t *testing.T) []attack {
	t.Helper()
	text, err := os.ReadFile("testdata/attacks/corpus.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	var all []attack
	for line := range strings.Lines(string(text)) {
		var a attack
		if err := json.Unmarshal([]byte(line), &a); err != nil {
			t.Fatal(err)
		}
		all = append(all, a)
	}
	if len(all) < 500 {
		t.Fatalf("the corpus holds %d rows only", len(all))
	}
	return all
}

// bytesOf turns one character a byte into bytes.
func bytesOf(s string) string {
	b := make([]byte, 0, len(s))
	for _, r := range s {
		b = append(b, byte(r))
	}
	return string(b)
}

// breach says what of a reply no caller may ever see.
func breach(r *reply, root string) string {
	for _, canary := range []string{"CANARY DENY", "CANARY OUTSIDE", "root:x:0:0"} {
		if strings.Contains(r.body, canary) {
			return "the body holds " + canary
		}
	}
	for name, values := range r.header {
		for _, v := range values {
			if strings.Contains(v, "/protected/") || strings.Contains(v, root) || strings.Contains(v, "/files/") {
				return fmt.Sprintf("the header %s: %s tells where files are", name, v)
			}
		}
		if strings.HasPrefix(name, "X-Accel") || strings.HasPrefix(name, "X-Securefiles") || name == "Set-Cookie" {
			return "the header " + name + " came through"
		}
	}
	return ""
}

func succeeded(status int) bool { return status >= 200 && status < 300 || status == 304 }

// S2, S3, S5, S6, S28: every row of the corpus, over a raw socket: as alice by GET, HEAD and Range,
// and as nobody.
func TestAttackCorpus(t *testing.T) {
	for name, p := range map[string]plan{
		"basic":  {policy: corpusPolicy},
		"header": {policy: corpusPolicy, identity: "identity:\n  - {header: X-Remote-User, nginx_value: $remote_user}\n", edit: verifiedUser},
		"unix":   {policy: corpusPolicy, unix: true},
		"cached": {policy: corpusPolicy, printed: true, extra: openFiles},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p.files = map[string]string{}
			s := start(t, p)
			contents := plantTree(t, s.dir)
			before := s.series()
			s.attackWith(t, contents, nil)
			if after := s.series(); after != before {
				t.Errorf("%d metric series became %d", before, after)
			}
			if code, _ := s.adminGet("/healthz"); code != 200 {
				t.Errorf("the service does not answer any more: %d", code)
			}
		})
	}
}

// verifiedUser has nginx check the password and pass on the user it verified.
// Where auth_basic has let a request through, $remote_user is verified.
func verifiedUser(_ *site, conf string) string {
	conf = strings.Replace(conf, "auth_request     /-securefiles-question;", "auth_basic site; auth_basic_user_file users.htpasswd; auth_request /-securefiles-question;", 1)
	return strings.Replace(conf, "proxy_set_header Cookie            $http_cookie;", "proxy_set_header Cookie $http_cookie; proxy_set_header X-Remote-User $remote_user;", 1)
}

// series counts the service's own metric series.
func (s *site) series() int {
	_, body := s.adminGet("/metrics")
	n := 0
	for line := range strings.Lines(body) {
		if strings.HasPrefix(line, "securefiles_") {
			n++
		}
	}
	return n
}

const aliceCredentials = "Authorization: Basic YWxpY2U6YWxpY2U=\r\n"

// attackWith asks for every row of the corpus, each changed as a web server needs it, and
// counts the files that are served because they must be.
func (s *site) attackWith(t *testing.T, contents map[string]string, change func(*attack)) {
	t.Helper()
	must, served := 0, 0
	for _, a := range attacks(t) {
		if change != nil {
			change(&a)
		}
		if strings.HasPrefix(a.Must, "serve:") {
			must++
		}
		if s.attack(t, a, contents) {
			served++
		}
	}
	if served != must || must < 75 {
		t.Errorf("%d files were served of %d that must be", served, must)
	}
}

// attack asks for a row, and reports whether it was served as it must be.
func (s *site) attack(t *testing.T, a attack, contents map[string]string) (served bool) {
	t.Helper()
	target := "/downloads/" + bytesOf(a.RawPath)
	ask := func(method, headers string) *reply {
		r, err := raw(s.web, method, []byte(method+" "+target+" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"+headers+"\r\n"))
		if err != nil {
			// nginx may hang up on what is no HTTP at all, and answers without
			// headers in HTTP/0.9; neither serves anything. A hang is a fault.
			if strings.Contains(err.Error(), "timeout") {
				t.Errorf("%s %s %q: no answer", a.ID, method, a.RawPath)
			}
			return &reply{status: 400}
		}
		if location := r.header.Get("Location"); s.sentTo != "" && r.status == 302 && strings.HasPrefix(location, s.sentTo+"/") { // what counts is what is got there
			r, err = raw(strings.TrimPrefix(s.sentTo, "http://"), method, []byte(method+" "+strings.TrimPrefix(location, s.sentTo)+" HTTP/1.1\r\nHost: "+strings.TrimPrefix(s.sentTo, "http://")+"\r\nConnection: close\r\n"+strings.ReplaceAll(headers, aliceCredentials, "")+"\r\n"))
			if err != nil {
				t.Fatalf("%s: the store: %v", a.ID, err)
			}
			r.header.Del("Location")
		}
		if b := breach(r, s.root); b != "" {
			t.Errorf("BREACH %s %s %q: status %d: %s", a.ID, method, a.RawPath, r.status, b)
		}
		return r
	}
	get := ask("GET", aliceCredentials)
	if get.status >= 300 && get.status < 400 && get.status != 304 {
		t.Errorf("%s %q: redirected to %s", a.ID, a.RawPath, get.header.Get("Location"))
	}
	head := ask("HEAD", aliceCredentials)
	part := ask("GET", aliceCredentials+"Range: bytes=0-3\r\n")
	if r := ask("GET", ""); succeeded(r.status) {
		t.Errorf("%s %q: anonymous got %d", a.ID, a.RawPath, r.status)
	}
	switch want, serve := strings.CutPrefix(a.Must, "serve:"); {
	case serve:
		name, err := url.PathUnescape(want)
		if err != nil {
			t.Fatal(err)
		}
		if get.status != 200 || get.body != contents[name] || contents[name] == "" {
			t.Errorf("%s %q: status %d, body %q, want %q", a.ID, a.RawPath, get.status, get.body, contents[name])
		}
		if head.status != 200 || head.body != "" {
			t.Errorf("%s HEAD: status %d, body %q", a.ID, head.status, head.body)
		}
		if part.status != 206 || part.body != contents[name][:4] {
			t.Errorf("%s Range: status %d, body %q", a.ID, part.status, part.body)
		}
		served = get.status == 200 && get.body == contents[name]
		_, params, err := mime.ParseMediaType(get.header.Get("Content-Disposition"))
		if err != nil || params["filename"] != path.Base(name) {
			t.Errorf("%s: Content-Disposition %q: %v", a.ID, get.header.Get("Content-Disposition"), err)
		}
	case a.Must == "deny":
		for _, r := range []*reply{get, head, part} {
			if succeeded(r.status) {
				t.Errorf("%s %q: status %d, body %q, must be denied", a.ID, a.RawPath, r.status, r.body)
			}
		}
	case a.Must == "either":
		may, err := url.PathUnescape(a.May)
		if err != nil {
			t.Fatal(err)
		}
		if succeeded(get.status) && get.body != contents[may] {
			t.Errorf("%s %q: served %q", a.ID, a.RawPath, get.body)
		}
	default:
		t.Errorf("%s: must is %q", a.ID, a.Must)
	}
	return served
}

// S7: the corpus has teeth: without the snippet's symlink guard it finds breaches.
func TestCorpusNoticesAMissingSymlinkGuard(t *testing.T) {
	t.Parallel()
	s := start(t, plan{policy: corpusPolicy, files: map[string]string{}, edit: func(_ *site, conf string) string {
		return strings.Replace(conf, "disable_symlinks on", "disable_symlinks off; #", 1)
	}})
	plantTree(t, s.dir)
	breaches := 0
	for _, a := range attacks(t) {
		if a.Class != "symlink" {
			continue
		}
		r, err := raw(s.web, "GET", []byte("GET /downloads/"+bytesOf(a.RawPath)+" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"+aliceCredentials+"\r\n"))
		if err == nil && breach(r, s.root) != "" {
			breaches++
		}
	}
	if breaches < 5 {
		t.Errorf("found %d breaches only", breaches)
	}
}
