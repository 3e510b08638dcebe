package nginx

import (
	"bytes"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "rewrite nginx.conf.example")

const example = "../../nginx.conf.example"

func defaults() Config {
	return Config{
		Service:   []string{"unix:/run/securefiles/auth.sock"},
		Downloads: []Download{{Name: "main", URL: "/downloads/", Internal: "/protected/", Root: "/var/www/securefiles", Embed: "same-origin"}},
	}
}

func several() Config {
	c := defaults()
	c.Service = []string{"127.0.0.1:9180", "unix:/run/securefiles/second.sock"}
	c.ProxySecret, c.Proof = true, true
	c.DeliveryLog, c.AccessLog = "/dev/null", "/dev/stderr combined"
	c.Pages = map[int]string{401: "/srv/pages/401.html", 404: "/srv/pages/404.html", 503: "/srv/pages/503.html"}
	c.Downloads = append(c.Downloads, Download{Name: "media", URL: "/media.v1/", Internal: "/protected-media.v1/", Root: "/srv/media/", FollowSymlinks: true,
		Embed: "same-site", Origins: []string{"https://app.example.org"}, Compress: true})
	c.Identity = []Header{{"X-Remote-User", "$ssl_client_s_dn"}, {"X-Remote-Groups", ""}, {"X-Gateway-User", "$gateway_user"},
		{"X-Securefiles-Client-Verify", "$ssl_client_verify"}, {"X-Securefiles-Client-Dn", "$ssl_client_s_dn"}, {"X-Securefiles-Client-Certificate", "$ssl_client_escaped_cert"}}
	return c
}

// classic has nginx pass downloads on: one alone, or beside one that is asked about.
func classic() Config {
	c := defaults()
	c.Downloads[0].Classic = true
	return c
}

func both() Config {
	c := several()
	c.Limits, c.Links = true, true
	c.Downloads = append(c.Downloads, Download{Name: "old", URL: "/old/", Internal: "/protected-old/", Root: "/srv/old", Embed: "same-site", Origins: []string{"https://app.example.org"}, Classic: true})
	return c
}

// crossOrigin has what of other origins nginx's hashes could be too small for: names
// and origins as long as they may be, and a name that is called like a variable of the
// snippet's own.
func crossOrigin() Config {
	c := defaults()
	c.Downloads[0].Name, c.Downloads[0].Origins = strings.Repeat("n", 32), []string{"https://" + strings.Repeat("downloads.", 24) + "example.org:65535", "https://app.example.org"}
	for _, name := range []string{"expose", "credentials"} {
		c.Downloads = append(c.Downloads, Download{Name: name, URL: "/" + name + "/", Internal: "/internal-" + name + "/", Root: "/srv", Embed: "same-origin", Origins: []string{"https://app.example.org"}})
	}
	return c
}

// stores has downloads whose files are in stores, of each kind of address.
func stores() Config {
	c := several()
	const certificates = "/etc/ssl/certs/ca-certificates.crt"
	for i, s := range []Store{
		{Scheme: "https", Host: "files.s3.eu-central-1.amazonaws.com", Path: "/", Resolver: []string{"127.0.0.53", "[::1]:53"}},
		{Scheme: "http", Host: "127.0.0.1:9000", Path: "/files/a%20b/"},
		{Scheme: "https", Host: "127.0.0.1", Path: "/files/"},
		{Scheme: "https", Host: "s3.example.org", Path: "/files/", Redirect: true},
	} {
		s.CAFile = certificates
		name := "store" + string(rune('a'+i))
		c.Downloads = append(c.Downloads, Download{Name: name, URL: "/" + name + "/", Internal: "/internal-" + name + "/", Store: &s, Embed: "same-origin", Origins: []string{"https://app.example.org"}})
	}
	c.Downloads[1], c.Downloads[2] = c.Downloads[2], c.Downloads[1]
	return c
}

func complete(t *testing.T, c Config) string {
	t.Helper()
	var buf bytes.Buffer
	if err := WriteComplete(&buf, c, false); err != nil {
		t.Fatal(err)
	}
	return buf.String()
}

// The file in the repository is what the default configuration prints.
func TestExampleIsWhatIsPrinted(t *testing.T) {
	got := complete(t, defaults())
	if *update {
		if err := os.WriteFile(example, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(example)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Error("nginx.conf.example differs from what is printed: go test ./internal/nginx -update")
	}
}

// In a container nginx starts with a root that it may not write to, and is asked from
// outside: only /tmp is written to, the logs are its output, and the rest is as ever.
func TestCompleteForAContainer(t *testing.T) {
	var buf bytes.Buffer
	if err := WriteComplete(&buf, defaults(), true); err != nil {
		t.Fatal(err)
	}
	_, settings, _ := strings.Cut(buf.String(), "\nworker_processes")
	for _, m := range regexp.MustCompile(`(?m)^ *(?:pid|error_log|access_log|\w+_temp_path) +(\S+)`).FindAllStringSubmatch(settings, -1) {
		if m[1] != "stderr" && m[1][0] != '/' {
			t.Errorf("it depends on where nginx was started: %s", m[0])
		}
	}
	if !strings.Contains(settings, "        listen 8080;\n") || strings.Contains(settings, "127.0.0.1:8080") {
		t.Error("it does not listen on port 8080 of every address")
	}
	_, plain, _ := strings.Cut(complete(t, defaults()), "\nworker_processes")
	for _, same := range []struct{ container, plain string }{
		{"/tmp/nginx.pid", "run/nginx.pid"}, {" stderr warn", " logs/error.log warn"}, {" /tmp/", " run/"},
		{"/dev/stdout securefiles_delivery", "logs/delivery.log securefiles_delivery"}, {"/dev/stdout securefiles_access", "logs/access.log   securefiles_access"},
		{"listen 8080;", "listen 127.0.0.1:8080;"},
	} {
		settings = strings.ReplaceAll(settings, same.container, same.plain)
	}
	if settings != plain {
		t.Error("it differs in more than where it listens and writes")
	}
	binary, err := exec.LookPath("nginx")
	if err != nil {
		t.Skip("nginx is not installed: make test installs it")
	}
	dir := t.TempDir()
	conf := filepath.Join(dir, "nginx.conf")
	if err := os.WriteFile(conf, []byte(strings.ReplaceAll(buf.String(), "/tmp/", dir+"/")), 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(binary, "-t", "-p", "/nowhere", "-e", "stderr", "-c", conf).CombinedOutput(); err != nil {
		t.Errorf("nginx -t: %v\n%s", err, out)
	}
}

// nginx itself accepts what is printed, the example as it stands included.
func TestNginxAcceptsWhatIsPrinted(t *testing.T) {
	binary, err := exec.LookPath("nginx")
	if err != nil {
		t.Skip("nginx is not installed: make test installs it")
	}
	for name, c := range map[string]Config{"default": defaults(), "several": several(), "other origins": crossOrigin(), "classic": classic(), "both": both(), "stores": stores()} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			for _, sub := range []string{"run", "logs"} {
				if err := os.Mkdir(filepath.Join(dir, sub), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			text := strings.ReplaceAll(complete(t, c), "$gateway_user", "$remote_user")
			conf := filepath.Join(dir, "nginx.conf")
			if err := os.WriteFile(conf, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
			secret := `proxy_set_header X-Securefiles-Proxy-Secret "0123456789abcdef0123456789abcdef";`
			if err := os.WriteFile(filepath.Join(dir, "securefiles-secret.conf"), []byte(secret), 0o600); err != nil {
				t.Fatal(err)
			}
			var proof bytes.Buffer
			if err := WriteProof(&proof, len(c.Downloads) > 1 && c.Downloads[1].Proxied(), strings.Repeat("0123456789abcdef", 2)); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, "securefiles-proof.conf"), proof.Bytes(), 0o600); err != nil {
				t.Fatal(err)
			}
			out, err := exec.Command(binary, "-t", "-p", dir, "-e", "logs/error.log", "-c", conf).CombinedOutput()
			if err != nil || strings.Contains(string(out), "[warn]") && os.Getuid() != 0 {
				t.Errorf("nginx -t: %v\n%s", err, out)
			}
		})
	}
}

// Whoever includes the half for http { } and not yet the other, or takes the other out
// again, has an nginx that goes on serving all its sites.
func TestTheHTTPHalfAloneIsValid(t *testing.T) {
	binary, err := exec.LookPath("nginx")
	if err != nil {
		t.Skip("nginx is not installed: make test installs it")
	}
	for name, c := range map[string]Config{"default": defaults(), "several": several(), "classic": classic(), "both": both()} {
		dir := t.TempDir()
		var half bytes.Buffer
		if err := WriteHTTP(&half, c); err != nil {
			t.Fatal(err)
		}
		conf := filepath.Join(dir, "nginx.conf")
		text := "pid nginx.pid; error_log stderr; events {}\nhttp {\naccess_log off;\n" + half.String() + "server { listen 127.0.0.1:8080; }\n}\n"
		if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command(binary, "-t", "-p", dir, "-e", "stderr", "-c", conf).CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
}

// What nginx sends is the digest of the whole, so that each change of what is printed
// shows.
func TestDigestIsWhatNginxSends(t *testing.T) {
	seen := map[string]string{}
	for name, change := range map[string]func(*Config){
		"default":        func(*Config) {},
		"another root":   func(c *Config) { c.Downloads[0].Root += "2" },
		"another url":    func(c *Config) { c.Downloads[0].URL = "/files/" },
		"another socket": func(c *Config) { c.Service = []string{"unix:/run/other.sock"} },
		"a header":       func(c *Config) { c.Identity = []Header{{"X-Remote-User", "$gateway_user"}} },
		"a secret":       func(c *Config) { c.ProxySecret = true },
		"passed on":      func(c *Config) { c.Downloads[0].Classic = true },
	} {
		c := defaults()
		change(&c)
		digest, err := Digest(c)
		if err != nil {
			t.Fatal(err)
		}
		if text := complete(t, c); !strings.Contains(text, "proxy_set_header X-Securefiles-Snippet "+digest+";") {
			t.Errorf("%s: %q is not what is printed", name, digest)
		}
		if other, ok := seen[digest]; ok {
			t.Errorf("%s and %s have one digest", name, other)
		}
		seen[digest] = name
	}
	if _, err := Digest(Config{}); err == nil {
		t.Error("what cannot be printed has a digest")
	}
}

// S27: directives and forms that advisories of 2026 concern are not used.
func TestSnippetKeepsToSafeDirectives(t *testing.T) {
	for name, c := range map[string]Config{"default": defaults(), "several": several(), "other origins": crossOrigin(), "classic": classic(), "both": both(), "stores": stores()} {
		text := complete(t, c)
		for rule, bad := range map[string]*regexp.Regexp{
			"an unnamed capture":            regexp.MustCompile(`"[^"]*\((?:[^?])[^"]*"\s*\)\s*\{`),
			"a captured group":              regexp.MustCompile(`\$[0-9]`),
			"a regex in a map":              regexp.MustCompile(`(?m)^\s*map [^{]*\{[^}]*~`),
			"slice":                         regexp.MustCompile(`(?m)^\s*slice\b`),
			"dav":                           regexp.MustCompile(`(?m)^\s*dav_`),
			"a prefix location without ^~":  regexp.MustCompile(`(?m)^\s*location /[a-z]`),
			"a regex location":              regexp.MustCompile(`(?m)^\s*location ~`),
			"$uri sent to the service":      regexp.MustCompile(`proxy_set_header[^;]*\$uri\b`),
			"an alias without its slash":    regexp.MustCompile(`alias\s+[^;]*[^/];`),
			"a variable in alias":           regexp.MustCompile(`alias\s+[^;]*\$`),
			"an unverified certificate":     regexp.MustCompile(`proxy_set_header[^;]*\$ssl_client_(?:[^v]|v_)`),
			"auth_request before try_files": regexp.MustCompile(`rewrite[^;]*break`),
		} {
			passedOn := rule == "auth_request before try_files" && newView(c).Classic() // without auth_request
			if loc := bad.FindString(text); loc != "" && !passedOn {
				t.Errorf("%s: %s: %q", name, rule, loc)
			}
		}
		internal := len(c.Downloads)
		if newView(c).Asks() {
			internal++ // the question
		}
		if strings.Count(text, "satisfy          all;") != len(c.Downloads) || strings.Count(text, "internal;") < internal {
			t.Errorf("%s: a download lost its satisfy or internal", name)
		}
		if strings.Contains(text, "/protected-media.v1/[") {
			t.Errorf("%s: a dot in a prefix is not escaped in the pattern", name)
		}
	}
}

// A download may have any name, `expose` and `credentials` too: a variable is made
// once, or the second would take the place of the first, without a word by nginx.
func TestNoVariableIsMadeTwice(t *testing.T) {
	for name, c := range map[string]Config{"default": defaults(), "several": several(), "other origins": crossOrigin(), "classic": classic(), "both": both(), "stores": stores()} {
		seen := map[string]bool{}
		for _, m := range regexp.MustCompile(`(?m)^ *map \S+ +(\$\w+)`).FindAllStringSubmatch(complete(t, c), -1) {
			if seen[m[1]] {
				t.Errorf("%s: %s is made twice", name, m[1])
			}
			seen[m[1]] = true
		}
		if len(seen) < 6 {
			t.Errorf("%s: found %v only", name, seen)
		}
	}
}

// What is not proved is told from another application's answer by its address, which a
// name does not say.
func TestClassicNeedsAnAddressOrAProof(t *testing.T) {
	for service, ok := range map[string]bool{"127.0.0.1:9180": true, "[::1]:9180": true, "unix:/run/s.sock": true, "files:9180": false, "1.2.3:9180": false} {
		for _, proof := range []bool{false, true} {
			c := classic()
			c.Service, c.Proof = []string{"127.0.0.1:9181", service}, proof
			if _, err := Digest(c); (err == nil) != (ok || proof) {
				t.Errorf("%s, proof %v: %v", service, proof, err)
			}
		}
	}
}

func TestEveryConfiguredHeaderIsOverwritten(t *testing.T) { // S9
	text := complete(t, several())
	for _, want := range []string{
		"proxy_set_header X-Remote-User $securefiles_client_s_dn;",
		`proxy_set_header X-Remote-Groups "";`,
		"proxy_set_header X-Gateway-User $gateway_user;",
		`$securefiles_client_s_dn { SUCCESS $ssl_client_s_dn; default ""; }`,
		"proxy_set_header Accept            $http_accept;",
		"disable_symlinks off;",
		"disable_symlinks on from=/var/www/securefiles;",
		"alias            /srv/media/;",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("missing: %s", want)
		}
	}
}

func TestValuesThatNginxCouldMisreadAreRefused(t *testing.T) {
	for name, change := range map[string]func(*Config){
		"listen with syntax":       func(c *Config) { c.Service = []string{"127.0.0.1:80; }"} },
		"no listen":                func(c *Config) { c.Service = nil },
		"no download":              func(c *Config) { c.Downloads = nil },
		"name with a blank":        func(c *Config) { c.Downloads[0].Name = "a b" },
		"url without slash":        func(c *Config) { c.Downloads[0].URL = "/downloads" },
		"url with a brace":         func(c *Config) { c.Downloads[0].URL = "/d{/" },
		"internal with a variable": func(c *Config) { c.Downloads[0].Internal = "/$uri/" },
		"relative root":            func(c *Config) { c.Downloads[0].Root = "files" },
		"root with a semicolon":    func(c *Config) { c.Downloads[0].Root = "/srv/x; autoindex on" },
		"root with a newline":      func(c *Config) { c.Downloads[0].Root = "/srv/x\n" },
		"a client's header that another source believes": func(c *Config) {
			c.Identity = []Header{FromClient("X-Remote-User"), {"x-remote-user", "$gateway_user"}}
		},
		"an origin twice":      func(c *Config) { c.Downloads[0].Origins = []string{"https://a.example", "https://a.example"} },
		"root with a variable": func(c *Config) { c.Downloads[0].Root = "/srv/$host" },
		"header with a colon":  func(c *Config) { c.Identity = []Header{{"X: y", "$a"}} },
		"value that is no variable": func(c *Config) {
			c.Identity = []Header{{"X-User", "alice; proxy_pass x"}}
		},
	} {
		c := defaults()
		change(&c)
		if err := WriteServer(&bytes.Buffer{}, c); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
}

// Until nginx has what belongs to the service's own configuration, it would serve a
// directory in a bucket's place, or ask another bucket.
func TestNginxThatAsksElsewhereIsUnfit(t *testing.T) {
	here := func(s *Store) Config {
		c := defaults()
		if c.Downloads[0].Store = s; s != nil {
			c.Downloads[0].Root = ""
		}
		return c
	}
	bucket := Store{Scheme: "https", Host: "s3.example.org", Path: "/files/", CAFile: "/ca.pem"}
	other := func(edit func(*Store)) *Store { s := bucket; edit(&s); return &s }
	for name, row := range map[string]struct {
		was, is *Store
		unfit   bool
	}{
		"the same":               {&bucket, other(func(*Store) {}), false},
		"other authorities":      {&bucket, other(func(s *Store) { s.CAFile = "/other.pem" }), false},
		"was a directory":        {nil, &bucket, true},
		"is a directory":         {&bucket, nil, true},
		"another bucket":         {&bucket, other(func(s *Store) { s.Path = "/other/" }), true},
		"another host":           {&bucket, other(func(s *Store) { s.Host = "minio.example.org" }), true},
		"clients are sent there": {&bucket, other(func(s *Store) { s.Redirect = true }), true},
		"and not any more":       {other(func(s *Store) { s.Redirect = true }), &bucket, true},
	} {
		if err := here(row.is).Unfit(here(row.was), "main"); (err != nil) != row.unfit {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestWhatIsAskedOfAStoreIsBelowItsPath(t *testing.T) {
	for _, d := range newView(stores()).Downloads {
		if !d.Proxied() {
			continue
		}
		form := regexp.MustCompile(d.UpstreamPattern())
		for path, good := range map[string]bool{
			d.Store.Path + "a?x": true, d.Store.Path + "%20": true, d.Store.Path: false, d.Store.Path + "?x": false, d.Store.Path + "/a": false, d.Store.Path + "a b": false,
			d.Store.Path + "a\r\nb": false, "/elsewhere" + d.Store.Path + "a": d.Store.Path == "/", "@evil" + d.Store.Path + "a": false, "": false,
		} {
			if form.MatchString(path) != good {
				t.Errorf("%s: %q: %t", d.UpstreamPattern(), path, !good)
			}
		}
	}
}

// An instance that hangs is left for the other one only if nginx may still ask that when it
// has waited for the first as long as it does.
func TestTheSecondInstanceIsAskedAfterTheFirstWasWaitedFor(t *testing.T) {
	t.Parallel()
	for wait, want := range map[time.Duration]string{0: "3s", 8 * time.Second: "9s"} {
		c := several()
		c.Wait = wait
		for name, of := range map[string]Config{"asked": c, "classic": func() Config { c := classic(); c.Wait = wait; return c }()} {
			if text := complete(t, of); !strings.Contains(text, "proxy_next_upstream_timeout "+want+";") {
				t.Errorf("%s: nginx waits %v, and then no longer than %s in all:\n%s", name, wait, want, text)
			}
		}
	}
}
