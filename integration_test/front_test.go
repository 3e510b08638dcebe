package integration_test

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"securefiles/internal/freeport"
)

// behind is the configuration of one download behind a front.
func behind(front string) string {
	return "downloads: [{name: main, url: /downloads/, internal: /protected/, root: /var/www/securefiles, front: " + front + "}]\n"
}

// classicPlan is a site whose nginx passes the download on.
func classicPlan(p plan) plan {
	p.printed = true
	p.extra = behind("classic") + p.extra
	return p
}

// fronts are the web servers that pass a download on, each with a plan of it.
var fronts = map[string]func(plan) plan{
	"classic": classicPlan, "apache": frontPlan("apache"), "lighttpd": frontPlan("lighttpd"), "caddy": frontPlan("caddy"),
}

// frontPlan is a site behind another web server than nginx.
func frontPlan(front string) func(plan) plan {
	return func(p plan) plan {
		p.front = front
		before := p.before
		p.before = func(s *site) {
			s.edit("securefiles.yaml", "root: /var/www/securefiles", "root: "+s.root)
			if before != nil {
				before(s)
			}
		}
		p.extra = behind(front) + p.extra
		return p
	}
}

// recipe is a file of examples, with the places of this site in it: each of some texts is
// there as often as it must be.
func (s *site) recipe(name string, places ...[3]any) string {
	s.t.Helper()
	text, err := os.ReadFile("../examples/" + name)
	if err != nil {
		s.t.Fatal(err)
	}
	filled := string(text)
	for _, place := range places {
		if n := strings.Count(filled, place[0].(string)); n != place[2].(int) {
			s.t.Fatalf("%s holds %q %d times", name, place[0], n)
		}
		filled = strings.ReplaceAll(filled, place[0].(string), place[1].(string))
	}
	return filled
}

// unprivileged is whom a web server that a test starts as root runs as.
func unprivileged(line string) string {
	if os.Getuid() != 0 {
		return ""
	}
	return line
}

// startFront runs a recipe of examples as it is written, but for its places.
func (s *site) startFront(p plan) {
	s.t.Helper()
	host, port, _ := strings.Cut(s.web, ":")
	_, service, _ := strings.Cut(s.service, ":")
	var args []string
	switch p.front {
	case "apache":
		s.write("site.conf", s.recipe("apache/securefiles.conf", [3]any{"<VirtualHost *:80>", "<VirtualHost *:" + port + ">", 1}, [3]any{"http://127.0.0.1:9180/", "http://" + s.service + "/", 3},
			[3]any{"XSendFilePath /var/www/securefiles", "XSendFilePath " + s.root, 1}))
		conf := "ServerRoot /etc/apache2\nServerName localhost\nListen " + s.web + "\nPidFile " + s.dir + "/run/apache.pid\nErrorLog " + s.dir + "/logs/error.log\nDefaultRuntimeDir " + s.dir + "/run\nMutex pthread\n" +
			unprivileged("User www-data\nGroup www-data\n")
		for _, module := range []string{"mpm_event", "authz_core", "headers", "proxy", "proxy_http", "rewrite", "xsendfile", "mime"} {
			conf += "LoadModule " + module + "_module /usr/lib/apache2/modules/mod_" + module + ".so\n"
		}
		s.write("apache.conf", conf+"TypesConfig /etc/mime.types\n<Directory />\nRequire all denied\n</Directory>\nInclude "+s.dir+"/site.conf\n")
		args = []string{"apache2", "-f", s.dir + "/apache.conf", "-DFOREGROUND"}
	case "lighttpd":
		s.write("securefiles.lua", s.recipe("lighttpd/securefiles.lua"))
		s.write("site.conf", s.recipe("lighttpd/securefiles.conf", [3]any{`"port" => 9180`, `"port" => ` + service, 1}, [3]any{`"/var/www/securefiles/"`, `"` + s.root + `/"`, 1},
			[3]any{`( "/etc/lighttpd/securefiles.lua" )`, `( "` + s.dir + `/securefiles.lua" )`, 1}))
		s.write("lighttpd.conf", `server.document-root = "`+s.dir+`/none"`+"\nserver.bind = \""+host+"\"\nserver.port = "+port+"\n"+
			unprivileged("server.username = \"www-data\"\nserver.groupname = \"www-data\"\n")+"mimetype.assign = ( \".txt\" => \"text/plain\", \".html\" => \"text/html\", \"\" => \"application/octet-stream\" )\ninclude \""+s.dir+"/site.conf\"\n")
		args = []string{"lighttpd", "-D", "-f", s.dir + "/lighttpd.conf"}
	case "caddy":
		s.write("Caddyfile", "{\n\tadmin off\n\tauto_https off\n}\n"+s.recipe("caddy/Caddyfile", [3]any{"\n:80 {", "\nhttp://:" + port + " {\n\tbind " + host, 1}, [3]any{"reverse_proxy 127.0.0.1:9180", "reverse_proxy " + s.service, 2},
			[3]any{"root * /var/www/securefiles", "root * " + s.root, 1}))
		args = []string{"caddy", "run", "--adapter", "caddyfile", "--config", s.dir + "/Caddyfile"}
	}
	for _, dir := range []string{"run", "logs", "none"} {
		if err := os.MkdirAll(filepath.Join(s.dir, dir), 0o777); err != nil {
			s.t.Fatal(err)
		}
	}
	if _, err := exec.LookPath(args[0]); err != nil {
		s.t.Fatalf("%s is not installed: `make test` installs it", args[0])
	}
	cmd := s.command(args[0], args[1:]...)
	cmd.Env = append(os.Environ(), "XDG_DATA_HOME="+s.dir+"/run", "XDG_CONFIG_HOME="+s.dir+"/run", "HOME="+s.dir+"/run")
	out := &logBuffer{}
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.nginx = cmd
	s.t.Cleanup(func() {
		end(cmd)
		if s.t.Failed() {
			s.t.Logf("%s: %s", p.front, tail(out.String()))
		}
	})
	s.eventually(p.front+" listens", func() bool {
		conn, err := net.Dial("tcp", s.web)
		if err != nil {
			return false
		}
		return conn.Close() == nil
	})
}

// The corpus through every front: not one byte from elsewhere, and what must be served is.
func TestAttackCorpusThroughEveryFront(t *testing.T) {
	for name, fronted := range fronts {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := start(t, fronted(plan{policy: corpusPolicy, files: map[string]string{}}))
			contents := plantTree(t, s.dir)
			s.attackWith(t, contents, func(a *attack) {
				if file, serve := strings.CutPrefix(a.Must, "serve:"); serve && name == "caddy" && strings.Contains(file, "%3F") {
					a.Must = "deny" // it would open what stands before the question mark
				}
			})
		})
	}
}

// X-Accel-Redirect is obeyed of the service alone, and for what it names beside.
func TestClassicObeysTheServiceAlone(t *testing.T) {
	t.Parallel()
	other := serveApplication(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Accel-Redirect", "/protected/private/secret.txt")
		w.Header().Set("X-Securefiles-Location", "/protected/private/secret.txt")
		w.Header().Set("X-Securefiles-Reason", "policy")
	})
	for name, proof := range map[string]bool{"by its address": false, "by a proof": true} {
		p := plan{policy: alicesPolicy, edit: func(_ *site, conf string) string {
			return strings.Replace(conf, "location / { return 404; }", "location / { proxy_pass http://"+other+"; }", 1)
		}}
		if proof {
			p.extra = "proof_secret_file: proof\n"
			p.before = func(s *site) {
				s.write("proof", strings.Repeat("p", 32)+"\n")
				s.printProof()
			}
		}
		s := start(t, classicPlan(p))
		s.status("alice", "/downloads/project/plan.txt", 200)
		if r := s.get("alice", "/app"); r.status != 404 && r.status != 503 || strings.Contains(r.body, "CANARY") {
			t.Errorf("%s: another application sends a file: %d %q", name, r.status, r.body)
		}
		end(s.daemon)
		squat(t, s.service, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("X-Accel-Redirect", "/protected/private/secret.txt")
			w.Header().Set("X-Securefiles-Location", "/protected/"+strings.TrimPrefix(r.Header.Get("X-Original-URI"), "/downloads/"))
		})
		if r := s.get("alice", "/downloads/other.txt"); r.status < 400 || strings.Contains(r.body, "CANARY") {
			t.Errorf("%s: two locations are told: %d %q", name, r.status, r.body)
		}
		if r := s.get("alice", "/downloads/private/secret.txt"); proof && r.status != 503 || !proof && r.status != 200 {
			t.Errorf("%s: in the place of the service: %d %q", name, r.status, r.body)
		}
	}
}

func serveApplication(t *testing.T, answer http.HandlerFunc) string {
	t.Helper()
	address := freeport.Address(t)
	squat(t, address, answer)
	return address
}

// Refused and missing look alike through every front.
func TestRefusedAndMissingLookAlikeThroughEveryFront(t *testing.T) {
	for name, fronted := range fronts {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := start(t, fronted(plan{policy: alicesPolicy}))
			if err := os.Symlink("plan.txt", s.root+"/project/link.txt"); err != nil {
				t.Fatal(err)
			}
			refused := s.get("alice", "/downloads/private/secret.txt")
			for _, path := range []string{"/downloads/private/none.txt", "/downloads/project/none.txt", "/downloads/project/sub", "/downloads/project/link.txt", "/downloads/project/plan.txt/x"} {
				missing := s.get("alice", path)
				for _, h := range []http.Header{refused.header, missing.header} {
					h.Del("Date")
					h.Del("X-Request-Id")
				}
				if refused.status != 404 || missing.status != 404 || refused.body != missing.body || !sameHeader(refused.header, missing.header) {
					t.Errorf("%s:\n%+v\n%+v", path, refused, missing)
				}
			}
		})
	}
}

func sameHeader(a, b http.Header) bool {
	if len(a) != len(b) {
		return false
	}
	for name := range a {
		if strings.Join(a[name], "|") != strings.Join(b[name], "|") {
			return false
		}
	}
	return true
}

// hardNames are names that web servers are known to take for others.
func hardNames() []string {
	return []string{
		"plain.txt", "sp ace.txt", "plus+plus.txt", "percent%.txt", "100%25.txt", "%41.txt", "semi;colon.txt", "q?.txt", "q%3F.txt", "hash#tag.txt", "amp&and.txt", `quote".txt`, "apos'.txt",
		"bracket[1].txt", "brace{1}.txt", "{http.request.host}.txt", "{env.HOME}.txt", "%{HOST}e.txt", "tilde~.txt", "dollar$HOME.txt", "${1}.txt", "star*.txt", "pipe|.txt", "lt<gt>.txt", "dots..in..name", "...", ".hidden",
		".htaccess", "Caddyfile", "index.html", "café-nfc.txt", "cafe\u0301-nfd.txt", "日本語.txt", "emoji😀.txt", "\u202egpj.exe", strings.Repeat("L", 251) + ".txt", "setup.bat;x=.txt", "a.txt.gz",
	}
}

// believed are the headers of a question that the service believes.
var believed = []string{
	":Request", "X-Original-Uri", "X-Original-Method", "X-Original-Scheme", "X-Real-Ip", "X-Remote-User", "X-Remote-Groups",
	"X-Securefiles-Client-Verify", "X-Securefiles-Client-Dn", "X-Securefiles-Client-Certificate", "X-Securefiles-Snippet",
}

// Whatever a client sends under the names of headers that the service believes, in any
// spelling, or asks to have dropped, the service sees the same question through any front.
func TestSpoofedHeadersDoNotReachTheServiceThroughAnyFront(t *testing.T) {
	for name, fronted := range fronts {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			seen := &recorder{}
			service := httptest.NewServer(seen)
			defer service.Close()
			s := start(t, fronted(plan{policy: alicesPolicy, upstream: strings.TrimPrefix(service.URL, "http://"), identity: "identity:\n  - {header: X-Remote-User, groups_header: X-Remote-Groups}\n"}))
			question := func(lines string) (http.Header, *reply) {
				r, err := raw(s.web, "GET", []byte("GET /downloads/private/secret.txt HTTP/1.1\r\nHost: localhost\r\n"+lines+"\r\n"))
				if err != nil {
					t.Fatalf("%q: %v", lines, err)
				}
				return seen.take(), r
			}
			want, _ := question("")
			if want.Get("X-Original-Uri") != "/downloads/private/secret.txt" || want.Get("X-Real-Ip") != "127.0.0.1" || want.Get("X-Original-Method") != "GET" || want.Get("X-Original-Scheme") != "http" {
				t.Fatalf("the service is asked %v", want)
			}
			asked := 0
			for _, h := range append([]string{"X-Securefiles-Client-Verify", "X-Securefiles-Client-DN", "X-Securefiles-Client-Certificate", "X-Securefiles-Snippet"}, trustedHeaders...) {
				for _, spelling := range spellings(h) {
					for _, value := range []string{"/downloads/public/welcome.txt", "alice", "SUCCESS", ""} {
						line := spelling + ": " + value + "\r\n"
						for _, lines := range []string{line, line + line, "Connection: close, " + h + "\r\n" + line, "Connection: " + h + "\r\n"} {
							got, r := question(lines)
							if got == nil && (r.status == 400 || r.status == 431) {
								continue // the web server refused it
							}
							asked++
							for _, name := range believed {
								if got == nil || strings.Join(got[name], "|") != strings.Join(want[name], "|") {
									t.Fatalf("%q: the service is asked\n%v\nwant\n%v: %d", lines, got, want, r.status)
								}
							}
						}
					}
				}
			}
			if asked < 1000 {
				t.Errorf("the service was asked %d times only", asked)
			}
			// Nor does a target reach anything of the service but the question.
			for _, of := range []string{"authorize", "page", "link", "links", "links/x", "hello"} {
				up := strings.Repeat("..%2f", strings.Count(of, "/")+1)
				for _, form := range []string{"/%s/../downloads/a", "/%s%%2f..%%2fdownloads%%2fa", "/downloads/../%s", "/downloads/%%2e%%2e/%s", "/downloads%%2f..%%2f%s", "//%s//downloads/", "/./%s/%%2e%%2e/downloads/a", "/" + of + "%%2f" + strings.ReplaceAll(up, "%", "%%") + "downloads%%2fa?%s"} {
					target := fmt.Sprintf(form, of)
					r, err := raw(s.web, "GET", []byte("GET "+target+" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"))
					if got := seen.take(); got != nil && !strings.HasPrefix(got.Get(":Request"), "GET /download") {
						t.Errorf("%s: the service is asked %s: %v %v", target, got.Get(":Request"), r, err)
					}
				}
			}
		})
	}
}

// Both ways of nginx are in one configuration, and neither opens what the other guards.
func TestNginxAsksAndPassesOnSideBySide(t *testing.T) {
	t.Parallel()
	s := start(t, plan{policy: "p, @anyone, /public/**, read, allow\n", printed: true, files: map[string]string{"public/a.txt": "asked\n"},
		extra: "downloads: [{name: main, url: /downloads/, internal: /protected/, root: /var/www/securefiles}, {name: old, url: /old/, internal: /protected-old/, root: OTHER, front: classic}]\npolicy_model: x\n",
		before: func(s *site) {
			s.write("other/public/a.txt", "passed on\n")
			s.write("other/private/b.txt", "CANARY DENY\n")
			s.write("model.conf", "[request_definition]\nr = sub, dom, obj, act\n[policy_definition]\np = sub, dom, obj, act, eft\n[role_definition]\ng = _, _\n[policy_effect]\ne = some(where (p.eft == allow)) && !some(where (p.eft == deny))\n[matchers]\nm = g(r.sub, p.sub) && keyMatch(r.dom, p.dom) && globMatch(r.obj, p.obj) && r.act == p.act\n")
			s.write("policy.csv", "p, @anyone, *, /public/**, read, allow\n")
			s.edit("securefiles.yaml", "OTHER", s.dir+"/other")
			s.edit("securefiles.yaml", "policy_model: x\n", "")
			s.edit("securefiles.yaml", "policy: {file: policy.csv}", "policy: {file: policy.csv, model: model.conf}")
		}})
	for path, want := range map[string]string{"/downloads/public/a.txt": "asked\n", "/old/public/a.txt": "passed on\n"} {
		if r := s.status("", path, 200); r.body != want {
			t.Errorf("%s: %q", path, r.body)
		}
	}
	for _, path := range []string{"/old/private/b.txt", "/downloads/private/b.txt"} {
		s.status("", path, 401)
	}
	s.status("", "/protected-old/public/a.txt", 404)
	end(s.daemon)
	squat(t, s.service, func(w http.ResponseWriter, r *http.Request) { // as if the service named what is another's
		w.Header().Set("X-Accel-Redirect", "/protected/public/a.txt")
		w.Header().Set("X-Securefiles-Location", "/protected/public/a.txt")
	})
	if r := s.get("", "/old/x"); r.status != 404 || strings.Contains(r.body, "asked") {
		t.Errorf("passed on, and answered with what is asked about: %d %q", r.status, r.body)
	}
}
