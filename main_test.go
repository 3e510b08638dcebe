package main

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"securefiles/authz"
	"securefiles/internal/admin"
	"securefiles/internal/audit"
	"securefiles/internal/cli"
	"securefiles/internal/config"
	"securefiles/internal/frontend"
	"securefiles/internal/identity"
	"securefiles/internal/limit"
	"securefiles/internal/link"
	"securefiles/internal/metrics"
	"securefiles/internal/server"
	"securefiles/internal/state"
	"securefiles/internal/storage"
	"securefiles/pathguard"
	"securefiles/policy"
)

// The arrows of docs/design.md: the core imports nothing of internal, no package of
// internal imports another but leaves (cli excepted, which commands what there is),
// and each heavy dependency has one home.
func TestDependenciesPointOneWay(t *testing.T) {
	type pkg struct {
		ImportPath string
		Imports    []string
	}
	out, err := exec.Command("go", "list", "-json=ImportPath,Imports", "./...").Output()
	if err != nil {
		t.Fatal(err)
	}
	imports := map[string][]string{}
	for dec := json.NewDecoder(bytes.NewReader(out)); dec.More(); {
		var p pkg
		if err := dec.Decode(&p); err != nil {
			t.Fatal(err)
		}
		imports[p.ImportPath] = p.Imports
	}
	policyRooms := []string{
		"securefiles/authz", "securefiles/policy", "securefiles/policy/internal/finding", "securefiles/policy/internal/pace", "securefiles/policy/internal/pattern",
		"securefiles/policy/internal/model", "securefiles/policy/internal/table", "securefiles/policy/internal/engine",
	}
	allowed := map[string][]string{
		"securefiles/pathguard": nil,
		"securefiles/authz":     {"securefiles/pathguard"},
		"securefiles/policy":    {"securefiles/authz", "securefiles/policy/internal/engine", "securefiles/policy/internal/table", "securefiles/policy/internal/model", "securefiles/policy/internal/finding", "securefiles/policy/internal/pace"},

		"securefiles/policy/internal/finding": nil,
		"securefiles/policy/internal/pace":    nil,
		"securefiles/policy/internal/pattern": {"securefiles/pathguard", "securefiles/policy/internal/finding"},
		"securefiles/policy/internal/model":   {"securefiles/authz", "securefiles/policy/internal/finding", "securefiles/policy/internal/pattern"},
		"securefiles/policy/internal/table":   {"securefiles/authz", "securefiles/policy/internal/finding", "securefiles/policy/internal/model", "securefiles/policy/internal/pace"},
		"securefiles/policy/internal/engine":  {"securefiles/authz", "securefiles/policy/internal/finding", "securefiles/policy/internal/model", "securefiles/policy/internal/pace", "securefiles/policy/internal/pattern", "securefiles/policy/internal/table"},
		"securefiles/policy/internal/witness": {"securefiles/policy/internal/pattern"},
		"securefiles/policy/explain":          append([]string{"securefiles/policy/internal/witness"}, policyRooms...),
		"securefiles/policy/lint":             policyRooms,
		"securefiles/policy/shadow":           policyRooms,
		// For tests alone.
		"securefiles/policy/internal/world":     {"securefiles/authz", "securefiles/policy/internal/finding", "securefiles/policy/internal/model"},
		"securefiles/internal/freeport":         nil,
		"securefiles/internal/postgrestest":     {"securefiles/internal/freeport"},
		"securefiles/internal/storagetest":      nil,
		"securefiles/policy/internal/storetest": {"securefiles/authz", "securefiles/policy", "securefiles/policy/internal/world"},

		// What the configuration is made into stands in main; the command line asks for it.
		"securefiles/internal/cli": {
			"securefiles/authz", "securefiles/pathguard", "securefiles/policy", "securefiles/policy/explain", "securefiles/policy/lint", "securefiles/examples", "securefiles/schema",
			"securefiles/internal/access", "securefiles/internal/audit", "securefiles/internal/config", "securefiles/internal/doctor", "securefiles/internal/exposure", "securefiles/internal/identity", "securefiles/internal/limit", "securefiles/internal/link", "securefiles/internal/listing", "securefiles/internal/loopback", "securefiles/internal/names", "securefiles/internal/nginx", "securefiles/internal/page", "securefiles/internal/policytest", "securefiles/internal/regular", "securefiles/internal/secret", "securefiles/internal/servable", "securefiles/internal/state", "securefiles/internal/storage", "securefiles/internal/terminal",
		},
		"securefiles/internal/access":     nil,
		"securefiles/internal/admin":      {"securefiles/authz", "securefiles/policy", "securefiles/policy/explain", "securefiles/internal/state"},
		"securefiles/internal/audit":      {"securefiles/authz", "securefiles/internal/authority", "securefiles/internal/regular"},
		"securefiles/internal/authority":  {"securefiles/internal/regular"},
		"securefiles/internal/config":     {"securefiles/internal/loopback", "securefiles/internal/strictyaml"},
		"securefiles/internal/doctor":     {"securefiles/pathguard", "securefiles/internal/access", "securefiles/internal/servable"},
		"securefiles/internal/exposure":   nil,
		"securefiles/internal/frontend":   {"securefiles/authz", "securefiles/internal/loopback", "securefiles/internal/rooted", "securefiles/pathguard"},
		"securefiles/internal/identity":   {"securefiles/authz", "securefiles/internal/authority", "securefiles/internal/loopback", "securefiles/internal/regular"},
		"securefiles/internal/limit":      {"securefiles/authz", "securefiles/internal/state"},
		"securefiles/internal/state":      nil,
		"securefiles/internal/storage":    {"securefiles/authz", "securefiles/internal/authority", "securefiles/internal/loopback", "securefiles/internal/regular", "securefiles/pathguard"},
		"securefiles/internal/link":       {"securefiles/authz", "securefiles/internal/page", "securefiles/internal/regular", "securefiles/internal/state", "securefiles/pathguard"},
		"securefiles/internal/listing":    {"securefiles/authz", "securefiles/internal/page", "securefiles/internal/rooted", "securefiles/pathguard"},
		"securefiles/internal/loopback":   nil,
		"securefiles/internal/metrics":    {"securefiles/authz"},
		"securefiles/internal/names":      {"securefiles/internal/regular", "securefiles/pathguard"},
		"securefiles/internal/nginx":      nil,
		"securefiles/internal/page":       {"securefiles/internal/regular"},
		"securefiles/internal/policytest": {"securefiles/authz", "securefiles/policy", "securefiles/policy/explain", "securefiles/internal/strictyaml", "securefiles/internal/terminal"},
		"securefiles/internal/regular":    nil,
		"securefiles/internal/rooted":     nil,
		"securefiles/internal/strictyaml": {"securefiles/internal/regular"},
		"securefiles/internal/secret":     {"securefiles/internal/regular"},
		"securefiles/internal/server":     {"securefiles/internal/access", "securefiles/internal/watch"},
		"securefiles/internal/servable":   {"securefiles/pathguard", "securefiles/internal/access"},
		"securefiles/internal/terminal":   nil,
		"securefiles/internal/watch":      nil,
	}
	for name, may := range allowed {
		list, ok := imports[name]
		if !ok {
			t.Errorf("%s is gone: mend this test", name)
		}
		for _, i := range list {
			if strings.HasPrefix(i, "securefiles") && !slices.Contains(may, i) {
				t.Errorf("%s imports %s", name, i)
			}
			if (name == "securefiles/pathguard" || name == "securefiles/authz") && strings.Contains(i, ".") {
				t.Errorf("%s imports %s: it needs the standard library alone", name, i)
			}
		}
	}
	for name := range imports {
		if _, ok := allowed[name]; !ok && (strings.HasPrefix(name, "securefiles/internal/") || strings.HasPrefix(name, "securefiles/policy/")) {
			t.Errorf("%s is not in the list of what may import what", name)
		}
	}
	const models, patterns, engines = "securefiles/policy/internal/model", "securefiles/policy/internal/pattern", "securefiles/policy/internal/engine"
	for dependency, homes := range map[string][]string{
		"github.com/casbin/casbin":    {models, patterns, engines, "securefiles/policy/shadow"},
		"github.com/casbin/govaluate": {models, engines},
		"github.com/aws/":             {"securefiles/internal/storage"},
		"github.com/prometheus/":      {"securefiles/internal/metrics"},
		"github.com/tg123/":           {"securefiles/internal/identity"},
		"github.com/go-jose/":         {"securefiles/internal/identity", "securefiles/internal/link", "securefiles/examples/links"},
		"github.com/redis/":           {"securefiles/internal/state"},
		"go.etcd.io/bbolt":            {"securefiles/internal/state"},
		"github.com/goccy/":           {"securefiles/internal/strictyaml"},
		"github.com/alecthomas/kong":  {"securefiles/internal/cli"},
		"github.com/go-chi/":          {"securefiles", "securefiles/internal/admin"},
		"github.com/klauspost/":       {"securefiles/internal/audit"},
		"github.com/maypok86/":        {"securefiles/internal/identity", "securefiles/internal/link"},
		"github.com/coreos/":          {"securefiles/internal/server"},
		"golang.org/x/net":            {"securefiles/internal/link", "securefiles/internal/listing", "securefiles/internal/page", "securefiles/internal/server"},
		"golang.org/x/mod":            {"securefiles/internal/audit"},
		"github.com/jackc/":           {"securefiles/internal/audit"},
	} {
		found := false
		for name, list := range imports {
			for _, i := range list {
				if !strings.HasPrefix(i, dependency) || name == "securefiles/policy/internal/world" { // which tests import
					continue
				}
				found = true
				if !slices.Contains(homes, name) {
					t.Errorf("%s imports %s, whose home is %s", name, i, strings.Join(homes, ", "))
				}
				if i == "github.com/casbin/casbin/v2" && name != "securefiles/policy/shadow" {
					t.Errorf("%s imports Casbin's enforcer, which decides in the shadow alone", name)
				}
			}
		}
		if !found {
			t.Errorf("nobody imports %s: mend this test", dependency)
		}
	}
	for name, list := range imports {
		if list := list; slices.Contains(list, "securefiles/policy/internal/world") && name != "securefiles/policy/internal/storetest" {
			t.Errorf("%s imports what tests alone may", name)
		}
	}
}

// Each package says what it is for, in one place.
func TestEveryPackageHasOneComment(t *testing.T) {
	out, err := exec.Command("go", "list", "-f", "{{.Dir}}", "./...").Output()
	if err != nil {
		t.Fatal(err)
	}
	for dir := range strings.FieldsSeq(string(out)) {
		files, err := filepath.Glob(filepath.Join(dir, "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		comments, sources := 0, 0
		for _, file := range files {
			if strings.HasSuffix(file, "_test.go") {
				continue
			}
			sources++
			parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.PackageClauseOnly|parser.ParseComments)
			if err != nil {
				t.Fatal(err)
			}
			if parsed.Doc != nil {
				comments++
			}
		}
		if sources > 0 && comments != 1 {
			t.Errorf("%s has %d package comments", dir, comments)
		}
	}
}

// What decides knows the names of no web server: net/http is there for the type
// of headers, and no header of an exchange is named.
func TestAuthzKnowsNoWebServer(t *testing.T) {
	files, err := filepath.Glob("authz/*.go")
	if err != nil {
		t.Fatal(err)
	}
	types := 0
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(parsed, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.SelectorExpr:
				if of, ok := n.X.(*ast.Ident); ok && of.Name == "http" {
					types++
					if n.Sel.Name != "Header" {
						t.Errorf("%s uses http.%s", file, n.Sel.Name)
					}
				}
			case *ast.BasicLit:
				if n.Kind == token.STRING && strings.HasPrefix(strings.ToLower(n.Value), `"x-`) {
					t.Errorf("%s names the header %s", file, n.Value)
				}
			}
			return true
		})
	}
	if types == 0 {
		t.Error("http.Header is not used any more: mend this test")
	}
}

// Where a value ends that is accepted, and the next begins that is not: each
// row is a file, and what its one error begins with behind the place, or
// nothing for a file that is accepted.
func TestValuesAreAcceptedUpToTheirBounds(t *testing.T) {
	path := func(n int) string { return "/" + strings.Repeat("s", n-1) } // of n bytes
	header := func(keys string) string { return "identity:\n  - {header: X-Remote-User, " + keys + "}\n" }
	download := func(keys string) string { return "downloads:\n  - {name: a, url: /a/, internal: /p/, " + keys + "}\n" }
	downloads := func(first, second string) string {
		return "downloads:\n  - {name: a, " + first + "}\n  - {name: b, " + second + "}\n"
	}
	jwt := func(keys string) string {
		return "identity:\n  - jwt: {issuer: 'https://id.example.org', audience: [a], " + keys + "}\n"
	}
	file := func(keys string) string { return "identity:\n  - jwt: {issuer: a, audience: [a], " + keys + "}\n" }
	session := func(keys string) string {
		return "identity:\n  - session: {url: 'http://127.0.0.1/', cookies: [sessionid], " + keys + "}\n"
	}
	asking := func(keys string) string { return "identity:\n  - session: {url: 'http://127.0.0.1/', " + keys + "}\n" }
	sources := func(list ...string) string { return "identity:\n  - " + strings.Join(list, "\n  - ") + "\n" }
	names := func(n int) string { // X-0, X-1, …
		var list []string
		for i := range n {
			list = append(list, fmt.Sprint("X-", i))
		}
		return "[" + strings.Join(list, ", ") + "]"
	}
	const (
		words    = "{session: {url: 'http://127.0.0.1/', headers: [authorization]}}"
		cookieA  = "{session: {url: 'http://127.0.0.1/', cookies: [a]}}"
		both     = "{session: {url: 'http://127.0.0.1/', cookies: [a], headers: [x-a]}}"
		password = "{htpasswd: users}"
	)
	for _, row := range []struct{ name, yaml, wrong string }{
		// Addresses. sun_path of a socket has 108 bytes, the last a NUL.
		{"a socket's path of 107 bytes", "listen: unix:" + path(107), ""},
		{"a socket's path of 108 bytes", "listen: unix:" + path(108), `listen: "unix:` + path(108) + `": a unix socket needs an absolute path of at most 107 bytes`},
		{"an admin socket's path of 107 bytes", "admin: unix:" + path(107), ""},
		{"an admin socket's path of 108 bytes", "admin: unix:" + path(108), "admin: "},
		{"a session's socket of 107 bytes", session("socket: " + path(107)), ""},
		{"a session's socket of 108 bytes", session("socket: " + path(108)), `identity[0].session.socket: "` + path(108) + `": a unix socket needs`},
		{"any port that is free", "listen: 127.0.0.1:0", ""},
		{"the last port", "listen: 127.0.0.1:65535", ""},
		{"a port too large", "listen: 127.0.0.1:65536", `listen: "127.0.0.1:65536": the port is not a number from 0 to 65535`},
		{"a port below none", "listen: '127.0.0.1:-1'", `listen: "127.0.0.1:-1": the port is not`},
		{"a port by name", "listen: 127.0.0.1:http", `listen: "127.0.0.1:http": the port is not`},
		{"no port", "listen: '127.0.0.1:'", `listen: "127.0.0.1:": the port is not`},
		{"a loopback name, which may be two addresses", "listen: localhost:1", `listen: "localhost:1" can be two addresses, and whoever else listens on the other is asked too: write 127.0.0.1:1 or [::1]:1`},
		{"the same in another form", "listen: LOCALHOST.:1", `listen: "LOCALHOST.:1" can be two addresses`},
		{"a name below it", "admin: a.localhost:1", `admin: "a.localhost:1" can be two addresses`},
		{"a name, insecurely", "listen: localhost:1\nlisten_insecure: true", `listen: "localhost:1" can be two addresses`},
		{"loopback of version 6", "listen: '[::1]:1'", ""},
		{"another address of loopback", "listen: 127.9.9.9:1", ""},
		{"another name", "listen: example.org:1", `listen: "example.org:1": write the address itself, such as 127.0.0.1: a name can be several`},
		{"an address of this host", "listen: 192.0.2.1:1", `listen: "192.0.2.1:1" can be reached from other hosts`},
		{"where nginx finds the service", "nginx: {service: ['127.0.0.1:1', '[::1]:1', 'files:9180', 'unix:/run/a.sock']}", ""},
		{"a service everywhere", "nginx: {service: ['0.0.0.0:9180']}", `nginx.service[0]: "0.0.0.0:9180" is no address to connect to`},
		{"a service everywhere of version 6", "nginx: {service: ['127.0.0.1:1', '[::]:9180']}", `nginx.service[1]: "[::]:9180" is no address to connect to`},
		{"a service at a name with two addresses", "nginx: {service: ['localhost:9180']}", `nginx.service[0]: "localhost:9180" can be two addresses`},
		{"a service without a port", "nginx: {service: ['127.0.0.1']}", `nginx.service[0]: "127.0.0.1" is neither ADDRESS:PORT nor unix:/path`},
		{"a service at a host that nginx takes for a socket", "nginx: {service: ['UNIX:9180']}", `nginx.service[0]: "UNIX:9180" is a unix socket for nginx`},
		{"a service at port 0", "nginx: {service: ['127.0.0.1:0']}", `nginx.service[0]: "127.0.0.1:0" is neither`},
		{"a service at a socket with syntax", "nginx: {service: ['unix:/a; b']}", `nginx.service[0]: "/a; b" is not the absolute path of a socket`},
		{"bytes that nobody follows", "nginx: {delivery_log: /a, access_log: 'off'}\nlimits: [{name: a, per: subject, bytes: 1GB/1d}]", "limits[0]: bytes and downloads at a time are known by what nginx reports"},
		{"downloads that nginx does not report", "audit: {file: audit.jsonl}\nlimits: [{name: a, per: subject, downloads: 2}]", "limits[0]: bytes and downloads at a time are known by what nginx reports"},
		{"a delivery log alone", "nginx: {delivery_log: /a}", "nginx: delivery_log and access_log go together"},
		{"an access log alone", "nginx: {access_log: /a}", "nginx: delivery_log and access_log go together"},
		{"both", "nginx: {delivery_log: /var/log/nginx/d.log, access_log: /var/log/nginx/access.log combined buffer=32k}", ""},
		{"none beside it", "nginx: {delivery_log: /var/log/nginx/d.log, access_log: 'off'}", ""},
		{"an access log with syntax", "nginx: {delivery_log: /d, access_log: '/a; return 200'}", "nginx.access_log: "},
		{"a delivery log with syntax", "nginx: {delivery_log: '/d;x', access_log: 'off'}", "nginx.delivery_log: "},
		{"a relative delivery log", "nginx: {delivery_log: d.log, access_log: 'off'}", "nginx.delivery_log: "},
		{"pages", "nginx: {error_pages: {401: /a/401.html, 503: /b/503.html}}", ""},
		{"a page for what has none", "nginx: {error_pages: {500: /a/500.html}}", "nginx.error_pages: 500 has no page: there are 401, 403, 404, 410, 429 and 503"},
		{"a relative page", "nginx: {error_pages: {404: 404.html}}", `nginx.error_pages: "404.html" is not an absolute path`},
		{"a page that goes up", "nginx: {error_pages: {404: /a/../404.html}}", `nginx.error_pages: "/a/../404.html": write the file without`},
		{"every address", "listen: ':1'", `listen: ":1" can be reached from other hosts`},
		{"every address, insecurely", "listen: ':1'\nlisten_insecure: true", ""},
		{"every address, with a secret", "listen: ':1'\nproxy_secret_file: secret", ""},
		{"metrics for everybody", "admin: ':1'", `admin: ":1" can be reached from other hosts`},
		{"metrics for everybody, insecurely", "admin: ':1'\nadmin_insecure: true", ""},
		{"a secret of nginx does not guard metrics", "admin: ':1'\nproxy_secret_file: secret", `admin: ":1" can be reached`},
		{"nor does a listener that is insecure", "admin: ':1'\nlisten_insecure: true", `admin: ":1" can be reached`},
		{"metrics for everybody leave nginx's listener alone", "listen: ':1'\nadmin_insecure: true", `listen: ":1" can be reached`},
		{"the peer of a socket", "listen: unix:/s\nlisten_peer_uids: [33]", ""},
		{"no time at all", "shutdown_delay: 0s", `"0s" is not a positive duration such as 10s or 1m30s`},
		{"hardly any time", "shutdown_delay: 1ns", ""},
		{"records without a file", "audit: {durability: write}", "audit: there is no file"},
		{"a chain that nobody signs", "audit: {file: a, chain: {}}", "audit.chain: a chain needs a key_file"},
		{"a chain on standard output", "audit: {file: stdout, chain: {key_file: a}}", "audit.chain: a chain goes on from the end of its file"},
		{"erasable records without keys", "audit: {file: a, privacy: {erasable: true}}", "audit.privacy.erasable: the keys of the subjects need a file"},
		{"erasable records of hashed subjects", "audit: {file: a, privacy: {erasable: true, keys: k, subjects: keyed, key_file: f}}", "audit.privacy.erasable: what is erasable has a random id"},
		{"erasable records on standard output", "audit: {file: stdout, privacy: {erasable: true, keys: k}}", "audit.privacy.erasable: what keeps standard output"},
		{"retention of standard output", "audit: {file: stdout, privacy: {retention: 90d}}", "audit.privacy.retention: what keeps standard output"},
		{"hashes without a secret", "audit: {file: a, privacy: {subjects: keyed}}", "audit.privacy.subjects: the hash needs a secret"},
		{"a record without paths", "audit: {file: a, privacy: {omit: [path]}}", `audit.privacy.omit: "path" cannot be left out`},
		{"retention of no time", "audit: {file: a, privacy: {retention: 0d}}", `"0d" is not a positive duration`},
		{"addresses by half", "audit: {file: a, privacy: {addresses: half}}", `audit.privacy.addresses: "half" is not one of full, short, none`},
		{"erasable records that are sent to syslog", "audit: {file: a, syslog: {url: 'tcp://h'}, privacy: {erasable: true, keys: k}}", "audit.privacy.erasable: a syslog server keeps copies"},
		{"records sent nowhere", "audit: {file: a, syslog: {ca_file: c}}", "audit.syslog: it says nowhere where records are sent to: write url: tcp://HOST:601"},
		{"records stored nowhere", "audit: {file: a, postgres: {}}", "audit.postgres: it says nowhere"},
		{"records sent from no file", "audit: {file: stdout, syslog: {url: 'tcp://h'}}", "audit.syslog: records are sent from the file"},
		{"records stored from no file", "audit: {file: stdout, postgres: {url_file: u}}", "audit.postgres: records are sent from the file"},
		{"records sent to no syslog server", "audit: {file: a, syslog: {url: 'udp://h'}}", `audit.syslog.url: "udp://h" is no address of a syslog server`},
		{"records sent by TLS", "audit: {file: a, syslog: {url: 'tls://h', ca_file: c}}", ""},
		{"records kept in another way", "audit: {file: a, durability: always}", `audit.durability: "always" is not one of write, fsync`},
		{"an unknown format of the log", "log: {format: xml}", `log.format: "xml" is not one of text, json`},

		// The policy.
		{"no shadow", "policy: {shadow_share: 0}", ""},
		{"a shadow of everything", "policy: {shadow_share: 1}", ""},
		{"a shadow of more", "policy: {shadow_share: 1.01}", "policy.shadow_share: 1.01 is out of range: 0 (none) to 1 (every decision)"},
		{"a shadow of less than nothing", "policy: {shadow_share: -0.01}", "policy.shadow_share: -0.01 is out of range"},
		{"a shadow of no number", "policy: {shadow_share: .nan}", "policy.shadow_share: NaN is out of range"},
		{"a decision of no time", "policy: {decision_timeout: 999us}", "policy.decision_timeout: 999µs is out of range: 1ms to 1.5s"},
		{"a decision of a millisecond", "policy: {decision_timeout: 1ms}", ""},
		{"a decision for as long as nginx waits", "policy: {decision_timeout: 1501ms}", "policy.decision_timeout: 1.501s is out of range: 1ms to 1.5s"},
		{"a decision that goes back in time", "policy: {decision_timeout: -1ms}", `"-1ms" is not a positive duration`},
		{"no open files", "nginx: {open_file_cache: 0}", ""},
		{"a million open files", "nginx: {open_file_cache: 1000000}", ""},
		{"more open files", "nginx: {open_file_cache: 1000001}", "nginx.open_file_cache: 1000001 is out of range: 0 to 1000000 files"},
		{"fewer open files", "nginx: {open_file_cache: -1}", "nginx.open_file_cache: -1 is out of range"},
		{"roles in one step", "policy: {role_depth: 1}", ""},
		{"roles in a hundred steps", "policy: {role_depth: 100}", ""},
		{"roles in more", "policy: {role_depth: 101}", "policy.role_depth: 101 is out of range: 1 to 100 roles"},
		{"roles in fewer", "policy: {role_depth: -1}", "policy.role_depth: -1 is out of range"},

		{"the days of a place", "policy: {timezone: America/Argentina/Buenos_Aires}", ""},
		{"the days of everywhere", "policy: {timezone: UTC}", ""},
		{"the days of nowhere", "policy: {timezone: Europe/Berlim}", `policy.timezone: "Europe/Berlim" is no time zone: write a name of the IANA database`},
		{"the days of the machine", "policy: {timezone: Local}", `policy.timezone: "Local" is no time zone`},
		{"days by an offset", "policy: {timezone: '+01:00'}", `policy.timezone: "+01:00" is no time zone`},
		{"days of a file", "policy: {timezone: ../../etc/localtime}", `policy.timezone: "../../etc/localtime" is no time zone`},

		// Downloads.
		{"prefixes of every kind", "downloads:\n  - {name: a, url: /A-Z_0.9~/b/, internal: /x.y/..z/}", ""},
		{"a name of 32", "downloads:\n  - {name: " + strings.Repeat("a", 32) + ", url: /a/, internal: /p/}", ""},
		{"a name of 33", "downloads:\n  - {name: " + strings.Repeat("a", 33) + ", url: /a/, internal: /p/}", "downloads[0].name: "},
		{"a root of slashes", "downloads:\n  - {name: a, url: /a/, internal: /p/, root: //}", `downloads[0].root: "//"`},
		{"a web server", "downloads:\n  - {name: a, url: /a/, internal: /p/, front: iis}", `downloads[0].front: "iis" is not one of nginx, classic, apache, lighttpd, caddy`},
		{"a web server that is told no file", "downloads:\n  - {name: a, url: /a/, internal: /p/, front: apache}", `downloads[0].root: there is none: behind front: apache`},
		{"other origins behind Apache", "downloads:\n  - {name: a, url: /a/, internal: /p/, root: /srv/a, front: apache, cors_origins: ['https://a.example']}", `downloads[0].cors_origins: are answered by what`},
		{"text that Caddy shall compress", "downloads:\n  - {name: a, url: /a/, internal: /p/, root: /srv/a, front: caddy, compress: true}", `downloads[0].compress: is done by what`},
		{"bytes behind Lighttpd", "nginx: {delivery_log: /d.log, access_log: 'off'}\naudit: {file: stdout}\nlimits: [{name: x, per: subject, bytes: 1GiB/1h}]\ndownloads:\n  - {name: a, url: /a/, internal: /p/, root: /srv/a, front: lighttpd}", `limits[0]: bytes, downloads at a time and rate need nginx: download "a" is behind front: lighttpd`},
		{"downloads at a time behind Lighttpd", "nginx: {delivery_log: /d.log, access_log: 'off'}\naudit: {file: stdout}\nlimits: [{name: x, per: subject, downloads: 2, of: [alice, 'download:b']}]\ndownloads:\n  - {name: a, url: /a/, internal: /p/, root: /srv/a, front: lighttpd}\n  - {name: b, url: /b/, internal: /q/}", `limits[0]: bytes, downloads at a time and rate need nginx`},
		{"bytes beside Lighttpd", "nginx: {delivery_log: /d.log, access_log: 'off'}\naudit: {file: stdout}\nlimits: [{name: x, per: subject, bytes: 1GiB/1h, of: ['download:b']}]\ndownloads:\n  - {name: a, url: /a/, internal: /p/, root: /srv/a, front: lighttpd}\n  - {name: b, url: /b/, internal: /q/}", ""},
		{"bytes of a client that is sent to the store", "nginx: {delivery_log: /d.log, access_log: 'off'}\naudit: {file: stdout}\nlimits: [{name: x, per: subject, bytes: 1GiB/1h}]\ndownloads:\n  - {name: a, url: /a/, internal: /p/, storage: {s3: {bucket: files, region: eu-central-1}}, deliver: redirect}", `limits[0]: bytes, downloads at a time and rate need nginx: download "a" sends clients to its store (deliver: redirect), which reports nothing`},
		{"downloads at a time of a client that is sent to the store", "nginx: {delivery_log: /d.log, access_log: 'off'}\naudit: {file: stdout}\nlimits: [{name: x, of: [alice], per: subject, downloads: 2, mode: observe}]\ndownloads:\n  - {name: a, url: /a/, internal: /p/, storage: {s3: {bucket: files, region: eu-central-1}}, deliver: redirect}", `limits[0]: bytes, downloads at a time and rate need nginx`},
		{"bytes beside a client that is sent to the store", "nginx: {delivery_log: /d.log, access_log: 'off'}\naudit: {file: stdout}\nlimits: [{name: x, per: subject, bytes: 1GiB/1h, of: ['download:b']}]\ndownloads:\n  - {name: a, url: /a/, internal: /p/, storage: {s3: {bucket: files, region: eu-central-1}}, deliver: redirect}\n  - {name: b, url: /b/, internal: /q/, storage: {s3: {bucket: files, region: eu-central-1}}}", ""},
		{"a rate behind Caddy", "limits: [{name: x, per: subject, rate: 1MiB/s}]\ndownloads:\n  - {name: a, url: /a/, internal: /p/, root: /srv/a, front: caddy}", `limits[0]: bytes, downloads at a time and rate need nginx`},
		{"who embeds", "downloads:\n  - {name: a, url: /a/, internal: /p/, embed: nobody}", `downloads[0].embed: "nobody" is not one of same-origin, same-site, cross-origin`},
		{"what a referrer is", "downloads:\n  - {name: a, url: /a/, internal: /p/, referrer_policy: none}", `downloads[0].referrer_policy: "none" is not one of no-referrer,`},
		{"origins", "downloads:\n  - {name: a, url: /a/, internal: /p/, cors_origins: ['https://a.example', 'http://127.0.0.1:3000', 'https://[::1]:8']}", ""},
		{"every origin", "downloads:\n  - {name: a, url: /a/, internal: /p/, cors_origins: ['*']}", `downloads[0].cors_origins[0]: "*" is not an origin`},
		{"no origin at all", "downloads:\n  - {name: a, url: /a/, internal: /p/, cors_origins: ['null']}", `downloads[0].cors_origins[0]: "null" is not an origin`},
		{"a pattern of origins", "downloads:\n  - {name: a, url: /a/, internal: /p/, cors_origins: ['https://*.example.org']}", `downloads[0].cors_origins[0]: `},
		{"an origin with a path", "downloads:\n  - {name: a, url: /a/, internal: /p/, cors_origins: ['https://a.example/']}", `downloads[0].cors_origins[0]: `},
		{"an origin in capitals, as no browser sends it", "downloads:\n  - {name: a, url: /a/, internal: /p/, cors_origins: ['https://A.example']}", `downloads[0].cors_origins[0]: `},
		{"an origin twice, which nginx refuses", "downloads:\n  - {name: a, url: /a/, internal: /p/, cors_origins: ['https://a.example', 'https://a.example']}", `downloads[0].cors_origins[1]: "https://a.example" stands there twice`},
		{"an origin with a second", "downloads:\n  - {name: a, url: /a/, internal: /p/, cors_origins: ['https://a.example', 'b']}", `downloads[0].cors_origins[1]: "b" is not an origin`},
		{"an internal of another form", "downloads:\n  - {name: a, url: /a/, internal: /p}", `downloads[0].internal: "/p" is not a prefix`},
		{"a url that goes up", "downloads:\n  - {name: a, url: /a/../b/, internal: /p/}", "downloads[0]: url and internal must not hold . or .. segments"},
		{"a url that goes nowhere", "downloads:\n  - {name: a, url: /a/./b/, internal: /p/}", "downloads[0]: url and internal must not hold"},
		{"an internal that goes up", "downloads:\n  - {name: a, url: /a/, internal: /p/../q/}", "downloads[0]: url and internal must not hold"},
		{"an internal that goes nowhere", "downloads:\n  - {name: a, url: /a/, internal: /p/./q/}", "downloads[0]: url and internal must not hold"},
		{"a url among the snippet's own", "downloads:\n  - {name: a, url: /_securefiles/, internal: /p/}", `downloads[0].url: "/_securefiles/": nginx's snippet has locations of its own`},
		{"an internal among the snippet's own", "downloads:\n  - {name: a, url: /a/, internal: /_securefiles/x/}", `downloads[0].internal: "/_securefiles/x/": nginx's snippet has`},
		{"a url inside its internal", "downloads:\n  - {name: a, url: /p/a/, internal: /p/}", `downloads[0].internal: "/p/" and url "/p/a/" contain each other`},
		{"two downloads", downloads("url: /a/, internal: /p/", "url: /b/, internal: /q/"), ""},
		{"two with one beginning", downloads("url: /a/, internal: /p/", "url: /ab/, internal: /pq/"), ""},
		{"a url inside the other's, the wider one first", downloads("url: /a/, internal: /p/", "url: /a/b/, internal: /q/"), `downloads[1].url: "/a/b/" and "/a/" of downloads[0] contain each other`},
		{"a url inside the other's, the wider one last", downloads("url: /a/b/, internal: /p/", "url: /a/, internal: /q/"), `downloads[1].url: "/a/" and "/a/b/" of downloads[0] contain each other`},
		{"an internal inside the other's", downloads("url: /a/, internal: /p/", "url: /b/, internal: /p/q/"), `downloads[1].internal: "/p/q/" and "/p/" of downloads[0] contain each other`},
		{"one internal for two", downloads("url: /a/, internal: /p/", "url: /b/, internal: /p/"), `downloads[1].internal: "/p/" and "/p/" of downloads[0] contain each other`},
		{"an internal inside the other's url", downloads("url: /a/, internal: /p/", "url: /b/, internal: /a/q/"), `downloads[1].internal: "/a/q/" and "/a/" of downloads[0] contain each other`},
		{"an internal around the other's url", downloads("url: /a/b/, internal: /p/", "url: /b/, internal: /a/"), `downloads[1].internal: "/a/" and "/a/b/" of downloads[0] contain each other`},
		{"a url inside the other's internal", downloads("url: /a/, internal: /p/", "url: /p/b/, internal: /q/"), `downloads[1].url: "/p/b/" and "/p/" of downloads[0] contain each other`},
		{"a url around the other's internal", downloads("url: /a/, internal: /p/q/", "url: /p/, internal: /q/"), `downloads[1].url: "/p/" and "/p/q/" of downloads[0] contain each other`},
		{"a root", download("root: /srv/Files_1.0-x+y"), ""},
		{"a root with a slash behind", download("root: /srv/files/"), ""},
		{"the whole machine", download("root: /"), `downloads[0].root: "/": write the directory`},
		{"a root with two slashes", download("root: /srv//files"), `downloads[0].root: "/srv//files": write the directory`},
		{"a root with two slashes behind", download("root: /srv/files//"), `downloads[0].root: "/srv/files//": write the directory`},
		{"inline", download("disposition: inline"), ""},
		{"a refusal that says no", download("deny_status: 403"), ""},
		{"a refusal that hides", download("deny_status: 404"), ""},
		{"a policy for pages of two lines", download(`content_security_policy: "sandbox\nX: y"`), `downloads[0].content_security_policy: "sandbox\nX: y" is not a header value`},

		// Where files are.
		{"a store that is none", "downloads:\n  - {name: a, url: /a/, internal: /p/, storage: {}}", `downloads[0].storage: name exactly one store: s3, azure or gcs`},
		{"a store and a root", "downloads:\n  - {name: a, url: /a/, internal: /p/, root: /srv, storage: {s3: {bucket: files, region: x}}}", `downloads[0].root: there is storage too`},
		{"a directory that clients are sent to", "downloads:\n  - {name: a, url: /a/, internal: /p/, root: /srv, deliver: redirect}", `downloads[0].deliver: `},
		{"a store behind another front", "downloads:\n  - {name: a, url: /a/, internal: /p/, front: classic, storage: {s3: {bucket: files, region: x}}}", `downloads[0].front: what is in a store is fetched by nginx's snippet`},
		{"another way to deliver", "downloads:\n  - {name: a, url: /a/, internal: /p/, deliver: mail, storage: {s3: {bucket: files, region: x}}}", `downloads[0].deliver: "mail" is not one of proxy, redirect`},
		{"links in a store", "downloads:\n  - {name: a, url: /a/, internal: /p/, insecure_follow_symlinks: true, storage: {s3: {bucket: files, region: x}}}", `downloads[0].insecure_follow_symlinks: `},
		{"compression of a store", "downloads:\n  - {name: a, url: /a/, internal: /p/, compress: true, storage: {s3: {bucket: files, region: x}}}", `downloads[0].compress: `},
		{"authorities of no path", "downloads:\n  - {name: a, url: /a/, internal: /p/, storage: {ca_file: ca.pem, s3: {bucket: files, region: x}}}", `downloads[0].storage.ca_file: `},
		{"a resolver with syntax", "downloads:\n  - {name: a, url: /a/, internal: /p/, storage: {resolver: ['127.0.0.53; root /'], s3: {bucket: files, region: x}}}", `downloads[0].storage.resolver[0]: `},
		{"a bucket with syntax", "downloads:\n  - {name: a, url: /a/, internal: /p/, storage: {s3: {bucket: 'a;b', region: x}}}", `downloads[0].storage.s3.bucket: `},
		{"an endpoint by a name of this host", "downloads:\n  - {name: a, url: /a/, internal: /p/, storage: {s3: {bucket: files, endpoint: 'http://localhost:9000'}}}", `downloads[0].storage.s3.endpoint: "http://localhost:9000" can be two addresses, and whoever has the other is sent signed URLs: write 127.0.0.1 in its place`},
		{"an endpoint in clear text", "downloads:\n  - {name: a, url: /a/, internal: /p/, storage: {s3: {bucket: files, endpoint: 'http://minio:9000'}}}", `downloads[0].storage.s3.endpoint: "http://minio:9000" has no TLS`},

		// Where browsers log in.
		{"a login beside a download", "login_url: /downloadslogin/", ""},
		{"a login inside a download of another site", "login_url: https://auth.example.org/downloads/", ""},
		{"a login with a place for the address", "login_url: '/login/?a=b&next={next}'", ""},
		{"half a place for the address", "login_url: '/login/?next=next}'", `login_url: "/login/?next=next}": {next} belongs into the query`},
		{"the other half", "login_url: '/login/?next={next'", `login_url: "/login/?next={next": {next} belongs into the query`},

		// Sources: which keys belong to which.
		{"a header, with all that it may have", header("groups_header: X-Groups, nginx_value: $gateway_user, nginx_groups_value: $gateway_groups"), ""},
		{"a header that is no name", "identity:\n  - {header: X Y}", `identity[0].header: "X Y" is not a header name`},
		{"groups in a header that is no name", header("groups_header: X_Groups"), `identity[0].groups_header: "X_Groups" is not a header name`},
		{"groups of the client's", header("groups_header: X-Groups, nginx_groups_value: $http_x_groups"), `identity[0].nginx_groups_value: "$http_x_groups" is what the client says`},
		{"groups of no variable", header("groups_header: X-Groups, nginx_groups_value: staff"), `identity[0].nginx_groups_value: "staff" is not an nginx variable`},
		{"passwords, with all that they may have", sources("{htpasswd: users, realm: Files of ours, remember: 1s}"), ""},
		{"a realm of two lines", sources(`{htpasswd: users, realm: "a\nb"}`), `identity[0].realm: "a\nb" is not a realm`},
		{"a groups header beside passwords", sources("{htpasswd: users, groups_header: X-Groups}"), "identity[0]: groups_header, nginx_value and nginx_groups_value belong to a header source"},
		{"a value beside passwords", sources("{htpasswd: users, nginx_value: $gateway_user}"), "identity[0]: groups_header, nginx_value and"},
		{"a groups value beside passwords", sources("{htpasswd: users, nginx_groups_value: $gateway_groups}"), "identity[0]: groups_header, nginx_value and"},
		{"groups that may be missing", header("groups_header: X-Groups, groups: optional"), ""},
		{"groups that may be missing of a token", strings.Replace(jwt("groups_claim: groups"), "jwt:", "groups: optional\n    jwt:", 1), ""},
		{"groups that may be missing of a session", "identity:\n  - {session: {url: 'http://127.0.0.1/', cookies: [a]}, groups: optional}", ""},
		{"groups that may be missing of a certificate", "identity:\n  - {certificate: {groups: ou}, groups: optional}", ""},
		{"groups that must be there", header("groups_header: X-Groups, groups: required"), ""},
		{"groups of another kind", header("groups_header: X-Groups, groups: staff"), `identity[0].groups: "staff" is not one of required, optional`},
		{"groups that nobody gives", header("groups: optional"), "identity[0].groups: belongs to a source that gives groups"},
		{"groups of passwords", sources("{htpasswd: users, groups: optional}"), "identity[0].groups: belongs to a source that gives groups"},
		{"groups of a certificate that names none", "identity:\n  - {certificate: {subject: dns}, groups: optional}", "identity[0].groups: belongs to a source that gives groups"},
		{"a prefix", header(`prefix: "forum:"`), ""},
		{"a prefix without a colon", header("prefix: forum"), `identity[0].prefix: "forum" is not a prefix`},
		{"a prefix of two", header(`prefix: "a:b:"`), `identity[0].prefix: "a:b:" is not a prefix`},
		{"a prefix that marks groups", header(`prefix: "@a:"`), `identity[0].prefix: "@a:" is not a prefix`},
		{"a colon for a prefix", header(`prefix: ":"`), `identity[0].prefix: ":" is not a prefix`},
		{"the prefix of roles", header(`prefix: "role:"`), `identity[0].prefix: "role:" is what roles`},
		{"the prefix of roles in another case", header(`prefix: "Role:"`), `identity[0].prefix: "Role:" is what roles`},
		{"a realm beside a header", header("realm: a"), "identity[0]: realm and remember belong to an htpasswd source"},
		{"a memory beside a header", header("remember: 1s"), "identity[0]: realm and remember belong to an htpasswd source"},
		{"a certificate by mail", sources("certificate: {subject: email}"), ""},
		{"one source alone", sources("{header: X-Remote-User, session: {url: 'http://127.0.0.1/', cookies: [a]}}"), "identity[0]: name exactly one source"},

		// Tokens.
		{"keys by the issuer", jwt(""), ""},
		{"a token in a header of its own", jwt("header: Cf-Access-Jwt-Assertion"), ""},
		{"a token in oauth2-proxy's header", jwt("header: X-Forwarded-Access-Token"), ""},
		{"a token in a header and a cookie", jwt("header: X-Access-Token, cookie: token"), "identity[0].jwt.header: a token is in a cookie or in a header"},
		{"a token in a header that is no name", jwt("header: X_Token"), `identity[0].jwt.header: "X_Token" is not a header name`},
		{"a token in a header of another meaning", jwt("header: Authorization"), `identity[0].jwt.header: "Authorization" has another meaning: use one of its own, such as X-Access-Token; leave it out for Authorization: Bearer`},
		{"a token in a header of nginx's", jwt("header: X-Original-URI"), `identity[0].jwt.header: "X-Original-URI" has another meaning`},
		{"keys of this host by http", jwt("jwks_url: 'http://127.0.0.1:8080/keys'"), ""},
		{"keys of this host by name", jwt("jwks_url: 'http://localhost:8080/keys'"), `identity[0].jwt.jwks_url: "http://localhost:8080/keys" can be two addresses`},
		{"keys of an issuer on this host by name", "identity:\n  - jwt: {issuer: 'http://id.localhost', audience: [a], insecure_http: true}", `identity[0].jwt.issuer: "http://id.localhost" can be two addresses`},
		{"an issuer on this host by name, whose keys are elsewhere", "identity:\n  - jwt: {issuer: 'http://localhost', jwks_file: k, audience: [a]}", ""},
		{"keys by http, insecurely", jwt("jwks_url: 'http://id.example.org/keys', insecure_http: true"), ""},
		{"an issuer by http", "identity:\n  - jwt: {issuer: 'http://id.example.org', audience: [a]}", `identity[0].jwt.issuer: "http://id.example.org": whoever is between`},
		{"an issuer by http, insecurely", "identity:\n  - jwt: {issuer: 'http://id.example.org', audience: [a], insecure_http: true}", ""},
		{"keys of no host", jwt("jwks_url: 'https:///keys'"), `identity[0].jwt.jwks_url: "https:///keys" is not a URL to ask for keys`},
		{"keys of a fragment", jwt("jwks_url: 'https://id.example.org/keys#1'"), `identity[0].jwt.jwks_url: "https://id.example.org/keys#1" is not a URL to ask for keys`},
		{"keys by another way", jwt("jwks_url: 'ftp://id.example.org/keys'"), `identity[0].jwt.jwks_url: "ftp://id.example.org/keys" is not a URL to ask for keys`},
		{"keys of no address at all", jwt(`jwks_url: 'https://id.example.org/%'`), `identity[0].jwt.jwks_url: "https://id.example.org/%" is not a URL`},
		{"an audience that is empty", "identity:\n  - jwt: {issuer: 'https://id.example.org', audience: [a, '']}", "identity[0].jwt.audience: is missing"},
		{"secrets of a file", file("jwks_file: keys, algorithms: [HS256, HS512]"), ""},
		{"all that is signed with a key", jwt("algorithms: [RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, ES512, EdDSA]"), ""},
		{"secrets before others", file("jwks_file: keys, algorithms: [HS256, RS256]"), "identity[0].jwt.algorithms: HS256, HS384 and HS512 are not mixed"},
		{"no leeway to speak of", jwt("leeway: 1ms"), ""},
		{"less leeway", jwt("leeway: 999us"), "identity[0].jwt.leeway: 999µs is out of range: 1ms to 5m0s"},
		{"leeway of five minutes", jwt("leeway: 5m"), ""},
		{"more leeway", jwt("leeway: 5m0.001s"), "identity[0].jwt.leeway: 5m0.001s is out of range"},
		{"keys every minute", jwt("refresh: 1m"), ""},
		{"keys more often", jwt("refresh: 59.999s"), "identity[0].jwt.refresh: 59.999s is out of range: 1m0s to 24h0m0s"},
		{"keys every day", jwt("refresh: 24h"), ""},
		{"keys less often", jwt("refresh: 24h0m0.001s"), "identity[0].jwt.refresh: 24h0m0.001s is out of range"},
		{"keys of ten minutes", jwt("max_stale: 10m"), ""},
		{"keys that are too old before they are asked for again", jwt("refresh: 1h, max_stale: 59m"), "identity[0].jwt.max_stale: 59m0s is out of range: 1h0m0s to 720h0m0s"},
		{"keys of a month", jwt("max_stale: 720h"), ""},
		{"keys for ever", jwt("max_stale: 721h"), "identity[0].jwt.max_stale: 721h0m0s is out of range: 10m0s to 720h0m0s"},
		{"ten milliseconds for keys", jwt("timeout: 10ms"), ""},
		{"fewer", jwt("timeout: 9ms"), "identity[0].jwt.timeout: 9ms is out of range: 10ms to 1.9s"},
		{"1.9 seconds for keys", jwt("timeout: 1900ms"), ""},
		{"more", jwt("timeout: 1901ms"), "identity[0].jwt.timeout: 1.901s is out of range"},
		{"two issuers, one in a cookie", sources("jwt: {issuer: a, jwks_file: k, audience: [a]}", "jwt: {issuer: b, jwks_file: k, audience: [b], cookie: b}"), ""},
		{"two issuers in one cookie", sources("jwt: {issuer: a, jwks_file: k, audience: [a], cookie: b}", "jwt: {issuer: b, jwks_file: k, audience: [b], cookie: b}"), "identity[1]: is never asked: identity[0] decides on its credentials"},

		// Sessions.
		{"an application of this host", asking("cookies: [sessionid]"), ""},
		{"of this host by name", "identity:\n  - session: {url: 'http://localhost/', cookies: [a]}", `identity[0].session.url: "localhost" can be two addresses, and whoever listens on the other is believed: write 127.0.0.1 or [::1]`},
		{"of this host by name, insecurely", "identity:\n  - session: {url: 'http://LOCALHOST.:80/', insecure_http: true, cookies: [a]}", `identity[0].session.url: "LOCALHOST.:80" can be two addresses`},
		{"of this host by name, behind a socket", "identity:\n  - session: {url: 'http://localhost/', socket: /app.sock, cookies: [a]}", ""},
		{"of this host by name, with a certificate", "identity:\n  - session: {url: 'https://localhost/', cookies: [a]}", ""},
		{"of this host by version 6", "identity:\n  - session: {url: 'http://[::1]/', cookies: [a]}", ""},
		{"behind a socket", "identity:\n  - session: {url: 'http://app.example.org/', socket: /app.sock, cookies: [a]}", ""},
		{"of another host by http, insecurely", "identity:\n  - session: {url: 'http://app.example.org/', insecure_http: true, cookies: [a]}", ""},
		{"of another host by https", "identity:\n  - session: {url: 'https://app.example.org/', cookies: [a]}", ""},
		{"of another address by http", "identity:\n  - session: {url: 'http://192.0.2.1/', cookies: [a]}", `identity[0].session.url: "192.0.2.1" shows session cookies`},
		{"by another way", "identity:\n  - session: {url: 'ftp://127.0.0.1/', cookies: [a]}", "identity[0].session.url: write http://HOST/PATH"},
		{"of no host", "identity:\n  - session: {url: 'https:///', cookies: [a]}", "identity[0].session.url: write http://HOST/PATH"},
		{"of a fragment", "identity:\n  - session: {url: 'https://a/#b', cookies: [a]}", "identity[0].session.url: write http://HOST/PATH"},
		{"of no address at all", "identity:\n  - session: {url: 'https://a/%', cookies: [a]}", "identity[0].session.url: write http://HOST/PATH"},
		{"sixteen cookies and headers", session("headers: " + names(15)), ""},
		{"seventeen", session("headers: " + names(16)), "identity[0].session: name the cookies or headers that carry the session, at most 16"},
		{"headers alone", asking("headers: [Authorization, X-Session-Token]"), ""},
		{"headers that only look like nginx's", asking("headers: [X-Originals, X-Real-IP-Token]"), ""},
		{"headers of a gateway", asking("headers: [X-Forwarded-User]"), `identity[0].session.headers[0]: "X-Forwarded-User" is nginx's word`},
		{"headers that are sent", session("send: {Host: a, X-App: 'b c'}"), ""},
		{"a header of no name", session("send: {'X App': a}"), `identity[0].session.send: "X App": names are`},
		{"a cookie that is the same for all", session("send: {cookie: a=b}"), `identity[0].session.send: "cookie" carries credentials`},
		{"who, in a header", session("subject_header: X-User, groups_header: X-Groups"), ""},
		{"who, in a header of no name", session("subject_header: X User"), `identity[0].session.subject_header: "X User" is not a header name`},
		{"groups in a header of no name", session("subject_header: X-User, groups_header: X Groups"), `identity[0].session.groups_header: "X Groups" is not a header name`},
		{"who, in JSON", session("subject_path: user"), ""},
		{"groups at no path", session("subject_path: user.name, groups_path: user."), `identity[0].session.groups_path: "user." is not a path into JSON`},
		{"groups of nobody in JSON", session("groups_path: groups"), "identity[0].session.groups_path: groups are nobody's without a subject: set subject_path too"},
		{"who in a header, groups in JSON", session("subject_header: X-User, groups_path: groups"), "identity[0].session: the answer is read from headers"},
		{"who in JSON, groups in a header", session("subject_path: user, groups_header: X-Groups"), "identity[0].session: the answer is read from headers"},
		{"1.5 seconds for an application", session("timeout: 1500ms"), ""},
		{"more for an application", session("timeout: 1501ms"), "identity[0].session.timeout: 1.501s is too long: nginx waits for 2s, so at most 1.5s"},
		{"a memory of an hour", session("remember: 1h"), ""},
		{"a longer memory", session("remember: 1h0m1s"), "identity[0].session.remember: 1h0m1s is too long"},
		{"refusals remembered as long", session("remember: 10s, remember_refused: 10s"), ""},
		{"refusals remembered longer", session("remember: 10s, remember_refused: 10.001s"), "identity[0].session.remember_refused: 10.001s is longer than remember, 10s"},
		{"a short memory alone", session("remember: 1s"), ""},
		{"one call at a time", session("max_calls: 1"), ""},
		{"1024 calls at a time", session("max_calls: 1024"), ""},
		{"more calls", session("max_calls: 1025"), "identity[0].session.max_calls: 1025 is out of range: 1 to 1024 calls"},
		{"calls below none", session("max_calls: -1"), "identity[0].session.max_calls: -1 is out of range"},

		// Sources that are in each other's way.
		{"a header that a session and nginx share", sources("{session: {url: 'http://127.0.0.1/', headers: [X-User]}}", "{header: x-user}"), `identity[0].session.headers[0]: "X-User" is what identity[1] believes of nginx`},
		{"a session by header, then passwords", sources(words, password), "identity[1]: is never asked: identity[0] decides on its credentials"},
		{"passwords, then that session", sources(password, words), ""},
		{"a session by cookie, then passwords", sources(cookieA, password), ""},
		{"a session by header, then tokens", sources(words, "{jwt: {issuer: a, jwks_file: k, audience: [a]}}"), "identity[1]: is never asked"},
		{"a session by header, then tokens in a cookie", sources(words, "{jwt: {issuer: a, jwks_file: k, audience: [a], cookie: a}}"), ""},
		{"a session by cookie, then tokens in another", sources(cookieA, "{jwt: {issuer: a, jwks_file: k, audience: [a], cookie: b}}"), ""},
		{"two sessions by one cookie", sources(cookieA, cookieA), "identity[1]: is never asked"},
		{"a session, then one by more", sources(cookieA, both), ""},
		{"a session, then one by less", sources(both, cookieA), "identity[1]: is never asked"},
		{"a session, then one by its header, in capitals", sources(both, "{session: {url: 'http://127.0.0.1/', headers: [X-A]}}"), "identity[1]: is never asked"},
		{"a session, then one by another header", sources(both, "{session: {url: 'http://127.0.0.1/', headers: [X-B]}}"), ""},
		{"a session by header, then certificates", sources(words, "{certificate: {}}"), ""},
		{"a session in third place that the first one takes", sources(cookieA, password, cookieA), "identity[2]: is never asked: identity[0] decides"},
	} {
		t.Run(row.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "securefiles.yaml")
			if err := os.WriteFile(file, []byte(row.yaml), 0o600); err != nil {
				t.Fatal(err)
			}
			c, err := config.Load(file, nil)
			if err == nil {
				_, err = open(c, cli.Env{}.Lookup, slog.New(slog.DiscardHandler))
			}
			if row.wrong == "" {
				if err != nil {
					t.Errorf("refused: %v", err)
				}
				return
			}
			if err == nil {
				t.Fatal("accepted")
			}
			got := err.Error()
			place, message, _ := strings.Cut(got, ": error: ")
			if !strings.HasPrefix(message, row.wrong) || strings.Contains(got, "\n") {
				t.Errorf("got  %s\nwant %s", got, row.wrong)
			}
			var line, column int
			if _, err := fmt.Sscanf(strings.TrimPrefix(place, file), ":%d:%d", &line, &column); err != nil || line < 1 || column < 1 || line > strings.Count(row.yaml, "\n")+1 {
				t.Errorf("at no place: %s", got)
			}
		})
	}
}

// docs/operations.md names every metric that there is, and no text names another.
// Their names are as promlint wants them.
func TestDocumentedMetricsAreTheOnesThereAre(t *testing.T) {
	counters := metrics.New("", "", nil, nil, func() metrics.Policy { return metrics.Policy{} })
	counters.Observe(&authz.Outcome{}, 0)
	counters.ObserveDelivery("main", "complete", 1, 0)
	c, err := config.Load("internal/config/testdata/valid-full.yaml", nil) // a source of each kind
	if err != nil {
		t.Fatal(err)
	}
	p, err := open(c, cli.Env{}.Lookup, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	counters.Replace(seriesOf(p.Sources, p.Limits), nil)
	countReloads(counters, server.NewReloaders([]server.Reloader{{Name: "policy"}}, nil).State, func() bool { return false })
	countAudit(counters, func() audit.State { return audit.State{} })
	follower, err := audit.NewFollower(filepath.Join(t.TempDir(), "log"), "", nil)
	if err != nil {
		t.Fatal(err)
	}
	countFollower(counters, "nginx", follower)
	countDisk(counters, t.TempDir())
	shipper, err := audit.NewShipper("syslog", filepath.Join(t.TempDir(), "log"), "", nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	countShipper(counters, "syslog", shipper)
	w := httptest.NewRecorder()
	counters.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	problems, err := promlint.New(bytes.NewReader(w.Body.Bytes())).Lint() // names as Prometheus has them
	if err != nil {
		t.Fatal(err)
	}
	for _, problem := range problems {
		if strings.HasPrefix(problem.Metric, "securefiles_") {
			t.Errorf("%s: %s", problem.Metric, problem.Text)
		}
	}
	exists := map[string]bool{}
	texts := map[string]string{}
	for _, pattern := range []string{"*.md", "docs/*.md", "examples/*/*"} {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: %d files, %v", pattern, len(files), err)
		}
		for _, file := range files {
			if text, err := os.ReadFile(file); err == nil { // no directory
				texts[file] = string(text)
			}
		}
	}
	for _, m := range regexp.MustCompile(`(?m)^# TYPE (securefiles_\w+) (\w+)`).FindAllStringSubmatch(w.Body.String(), -1) {
		exists[m[1]] = true
		if m[2] == "histogram" {
			for _, suffix := range []string{"_bucket", "_sum", "_count"} {
				exists[m[1]+suffix] = true
			}
		}
		if !regexp.MustCompile(m[1] + `\b`).MatchString(texts["docs/operations.md"]) {
			t.Errorf("docs/operations.md does not name %s", m[1])
		}
	}
	if len(exists) < 10 {
		t.Fatalf("found %d metrics", len(exists))
	}
	named := regexp.MustCompile("securefiles_(?:decision|policy|identity|requests|build|reload|audit|deliveries|delivered|delivery_duration)[a-z_]*[a-z]")
	delete(texts, "CHANGELOG.md") // which names what was
	for file, text := range texts {
		for _, at := range named.FindAllStringIndex(text, -1) {
			if strings.HasPrefix(text[at[1]:], ":") {
				continue // what a rule records
			}
			if name := text[at[0]:at[1]]; !exists[name] && name != "securefiles_decisions" {
				t.Errorf("%s names %s", file, name)
			}
		}
	}
}

// A stranger who lists the root sees nouns, one map and one test of it.
func TestTheMapStandsAlone(t *testing.T) {
	files, err := filepath.Glob("*.go")
	if err != nil || !slices.Equal(files, []string{"main.go", "main_test.go"}) {
		t.Errorf("the root has %v, %v", files, err)
	}
}

const testToken = "0123456789abcdef0123456789abcdef"

const bobsHash = "bob:$2y$04$NtisaL5/eEq29CkhP3bxWesCwRI2ggXEyKIzN7T/60Nwh9FLWA5YS\n"

func readFile(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func writeFile(t testing.TB, name, text string) string {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func testCounters() *metrics.Metrics {
	return metrics.New("", "", nil, nil, func() metrics.Policy { return metrics.Policy{} })
}

// loaded opens a configuration and reads all its files, as serve does. The
// environment is NAME=value.
func loaded(t *testing.T, c *config.Config, environ ...string) (*cli.Parts, error) {
	t.Helper()
	p, err := open(c, cli.Env{Environ: environ}.Lookup, slog.New(slog.DiscardHandler))
	if err == nil {
		err = errors.Join(p.Secret.Reload(t.Context()), p.Token.Reload(t.Context()))
	}
	if err != nil {
		return nil, err
	}
	return p, p.Load(t.Context())
}

// S1: the listener for nginx answers one route; nothing else is there, by any
// method or user agent. S28: GHSA-5hvv-m4w4-gf6v (a health check's user agent was
// let in everywhere), CVE-2022-24797 (metrics on the public listener).
func TestDecisionListenerHasOneRoute(t *testing.T) {
	asked := 0
	routes := guardRoutes(t, func() { asked++ })
	for _, row := range []struct {
		method, target string
		status         int
	}{
		{"GET", "/", 404},
		{"GET", "/metrics", 404},
		{"GET", "/healthz", 404},
		{"GET", "/readyz", 404},
		{"GET", "/ping", 404},
		{"GET", "/hello", 404}, // the service's mark, and no more
		{"POST", "/hello", 405},
		{"GET", "/version", 404},
		{"GET", "/debug/pprof/", 404},
		{"GET", "/authorize/", 404},
		{"GET", "//authorize", 404},
		{"GET", "/authorize/../metrics", 404},
		{"GET", "/Authorize", 404},
		{"POST", "/authorize", 405},
		{"HEAD", "/authorize", 405},
		{"PUT", "/authorize", 405},
		{"OPTIONS", "/authorize", 405},
		{"GET", "/authorize", 204},
		{"GET", "/authorize?x=y", 204},
	} {
		for _, agent := range []string{"", "kube-probe/1.31", "GoogleHC/1.0", "ELB-HealthChecker/2.0"} {
			before := asked
			r := httptest.NewRequest(row.method, row.target, nil)
			r.Header.Set("User-Agent", agent)
			r.Header.Set("X-Original-URI", "/downloads/a")
			r.Header.Set("X-Original-Method", "GET")
			w := httptest.NewRecorder()
			routes.ServeHTTP(w, r)
			if w.Code != row.status || w.Body.Len() != 0 || (asked > before) != (row.status == 204) {
				t.Errorf("%s %s as %q: status %d, want %d; body %q", row.method, row.target, agent, w.Code, row.status, w.Body)
			}
		}
	}
}

// BenchmarkQuestion is what a question of nginx's costs beside the identity and the
// policy: routes, guard, reply, metrics.
func BenchmarkQuestion(b *testing.B) {
	routes := guardRoutes(b, func() {})
	r := httptest.NewRequest("GET", "/authorize", nil)
	r.Header.Set("X-Original-URI", "/downloads/project/plan.txt")
	r.Header.Set("X-Original-Method", "GET")
	r.Header.Set("X-Request-ID", "0123456789abcdef0123456789abcdef")
	b.ReportAllocs()
	for b.Loop() {
		w := httptest.NewRecorder()
		routes.ServeHTTP(w, r)
		if w.Code != 204 {
			b.Fatal(w.Code)
		}
	}
}

// guardRoutes is what nginx reaches, over a guard that lets everybody have
// everything and tells when it is asked.
func guardRoutes(t testing.TB, asked func()) http.Handler {
	t.Helper()
	downloads, _, err := downloads(config.Default().Downloads, make([]*storage.Store, 1))
	if err != nil {
		t.Fatal(err)
	}
	guard, err := authz.New(downloads, identity.Chain{}, everything(asked), nil)
	if err != nil {
		t.Fatal(err)
	}
	front, err := frontend.NewAuthRequest(guard, nil)
	if err != nil {
		t.Fatal(err)
	}
	return routes(front, testCounters())
}

type everything func()

func (e everything) Decide(context.Context, authz.Query) (authz.Decision, error) {
	e()
	return authz.Decision{Effect: authz.Allow, Generation: 1, File: "policy.csv", Line: 1}, nil
}

// Every file that a configuration can name is in the list that SIGHUP and the
// watcher walk.
func TestEveryFileIsLoadedAgain(t *testing.T) {
	dir := t.TempDir()
	const model = `[request_definition]
r = sub, dom, obj, act
[policy_definition]
p = sub, dom, obj, act, eft
[role_definition]
g = _, _
[policy_effect]
e = some(where (p.eft == allow)) && !some(where (p.eft == deny))
[matchers]
m = g(r.sub, p.sub) && r.dom == p.dom && globMatch(r.obj, p.obj) && r.act == p.act
`
	server := httptest.NewTLSServer(nil)
	defer server.Close()
	var want []string
	for name, text := range map[string]string{
		"policy.csv": "p, alice, main, /a, read, allow\n", "model.conf": model, "users": bobsHash,
		"keys":  `{"keys":[{"kty":"oct","k":"` + strings.Repeat("A", 43) + `"}]}`,
		"ca":    string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})),
		"token": testToken, "secret": testToken, "proof": testToken, "links": linkKeys, "audit-key": testToken, "releases.csv": "/a, /b\n",
		"store":   "[default]\naws_access_key_id=ID\naws_secret_access_key=KEY\n",
		"account": readFile(t, "internal/storage/testdata/google_service_account.json"), "azure": "c2VjcmV0\n",
		"link.html": `<form method="post" action="{{.Action}}"><input name="url" value="{{.URL}}"><input name="password"></form>{{.Link}}`, "listing.html": `{{range .Rows}}<a href="{{.URL}}"></a>{{end}}<a href="{{.Next}}"></a>`,
	} {
		want = append(want, writeFile(t, filepath.Join(dir, name), text))
	}
	file := writeFile(t, filepath.Join(dir, "securefiles.yaml"), `policy: {file: policy.csv, model: model.conf}
proxy_secret_file: secret
proof_secret_file: proof
admin_token_file: token
links: {keys_file: links, template: link.html}
listing: {template: listing.html}
audit: {file: audit.jsonl, privacy: {subjects: keyed, key_file: audit-key}}
downloads:
  - {name: main, url: /downloads/, internal: /protected/, names: releases.csv, storage: {s3: {bucket: files, region: eu-central-1, credentials_file: store}}}
  - {name: blobs, url: /blobs/, internal: /protected-blobs/, storage: {azure: {account: account, container: files, credentials_file: azure}}}
  - {name: google, url: /google/, internal: /protected-google/, storage: {gcs: {bucket: files, credentials_file: account}}}
identity:
  - htpasswd: users
  - jwt: {issuer: here, audience: [downloads], jwks_file: keys, algorithms: [HS256]}
  - session: {url: "https://127.0.0.1/", cookies: [id], ca_file: ca}
`)
	c, err := config.Load(file, nil)
	if err != nil {
		t.Fatal(err)
	}
	p, err := loaded(t, c)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, row := range reloaders(p, testCounters(), slog.New(slog.DiscardHandler)) {
		got = append(got, row.Files...)
		if row.Reload == nil {
			t.Errorf("%s cannot be loaded again", row.Name)
		}
	}
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	// Three are read at the start: the key of the audit trail's chain, for another one is
	// another chain, and the password and the certificates of Redis.
	// What sinks need, two files, is read for each connection.
	if n := filesOf(reflect.TypeFor[config.Config]()) - 3 - 2; n != len(want) {
		t.Errorf("the configuration names %d files, and %d are in this test: add what is new", n, len(want))
	}
}

// filesOf counts the keys of a configuration that name files.
func filesOf(t reflect.Type) (n int) {
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct {
		return 0
	}
	for i := range t.NumField() {
		f := t.Field(i)
		if f.Tag.Get("path") == "file" {
			n++
		}
		if name, ok := f.Tag.Lookup("yaml"); ok && name != "-" {
			n += filesOf(f.Type)
		}
	}
	return n
}

// S25: a token comes from a file that others should not read, is long, and can
// be changed while the service runs. While it cannot be read none is right.
func TestAdminTokenIsReadAgain(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "token")
	c := config.Default()
	c.Policy.File = writeFile(t, filepath.Join(dir, "policy.csv"), "p, alice, /a, read, allow\n")
	c.Identity = []config.Identity{{Header: "X-Remote-User"}}
	c.AdminTokenFile = file
	if _, err := loaded(t, c); err == nil {
		t.Error("a missing file was accepted")
	}
	if err := errors.Join(syscall.Mkfifo(file+".pipe", 0o600), os.Rename(file+".pipe", file)); err != nil {
		t.Fatal(err)
	}
	if _, err := loaded(t, c); err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("a pipe: %v", err)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	writeFile(t, file, "short\n")
	if _, err := loaded(t, c); err == nil || !strings.Contains(err.Error(), "shorter than 32 bytes") {
		t.Errorf("a short token: %v", err)
	}
	writeFile(t, file, testToken+"\n")
	p, err := loaded(t, c)
	if err != nil {
		t.Fatal(err)
	}
	if found := p.Exposures(); len(found) > 0 {
		t.Fatalf("exposed: %v", found)
	}
	counters := testCounters()
	rows := reloaders(p, counters, slog.New(slog.DiscardHandler))
	row := slices.IndexFunc(rows, func(r server.Reloader) bool { return r.Name == "admin token" })
	if row < 0 {
		t.Fatal("nothing loads the token again")
	}
	reload := rows[row].Reload
	operators := admin.New(adminOptions(p, counters, server.NewReloaders(rows, nil).State, cli.Build{}))
	opens := func(text string) bool {
		r := httptest.NewRequest(http.MethodPost, "/whoami", strings.NewReader("X-Remote-User: alice"))
		r.Header.Set("Authorization", "Bearer "+text)
		w := httptest.NewRecorder()
		operators.ServeHTTP(w, r)
		answered := strings.Contains(w.Body.String(), `"subject":"alice"`)
		if w.Code != map[bool]int{true: http.StatusOK, false: http.StatusUnauthorized}[answered] {
			t.Errorf("status %d: %s", w.Code, w.Body)
		}
		return answered
	}
	if !opens(testToken) {
		t.Error("the token does not open")
	}
	next := strings.Repeat("n", 40)
	writeFile(t, file, next)
	if err := reload(t.Context()); err != nil || opens(testToken) || !opens(next) {
		t.Errorf("after a change: %v, old %t, new %t", err, opens(testToken), opens(next))
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if err := reload(t.Context()); err == nil || opens(next) || opens("") {
		t.Errorf("without its file the token opens: %v", err)
	}
	writeFile(t, file, next)
	if err := os.Chmod(file, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := reload(t.Context()); err != nil || !opens(next) {
		t.Errorf("back again, for others to read: %v", err)
	}
	if found := p.Exposures(); len(found) != 1 || !strings.Contains(found[0].Message, "others may read the admin token") {
		t.Errorf("for others to read: %v", found)
	}
}

// A secret of the environment stands in for the file, which nobody then reads.
func TestSecretsAreReadFromTheEnvironment(t *testing.T) {
	c := config.Default()
	c.Policy.File = writeFile(t, filepath.Join(t.TempDir(), "policy.csv"), "p, alice, /a, read, allow\n")
	p, err := loaded(t, c)
	if err != nil || p.Secret != nil || p.Token != nil || p.Proof != nil {
		t.Fatalf("none configured: %v, %v, %v, %v", p.Secret, p.Token, p.Proof, err)
	}
	c.ProxySecretFile, c.AdminTokenFile, c.ProofSecretFile = "/nonexistent/secret", "/nonexistent/token", "/nonexistent/proof"
	secret, token, proof := strings.Repeat("s", 32), strings.Repeat("e", 32), strings.Repeat("p", 32)
	p, err = loaded(t, c, "SECUREFILES_PROXY_SECRET="+secret, "SECUREFILES_ADMIN_TOKEN="+token, "SECUREFILES_PROOF_SECRET="+proof)
	if err != nil || p.Proof.Text() != proof || !p.Secret.Is(secret) || p.Secret.Is(token) || !p.Token.Is(token) || p.Token.Is(secret) {
		t.Errorf("the environment's: %v", err)
	}
	if err := errors.Join(p.Secret.Reload(t.Context()), p.Token.Reload(t.Context())); err != nil {
		t.Error(err)
	}
	for _, row := range reloaders(p, testCounters(), slog.New(slog.DiscardHandler)) {
		if row.Name != "policy" {
			t.Errorf("%s is loaded again", row.Name)
		}
	}
}

// slowBob is bobsHash at a cost that can be told from none.
const slowBob = "bob:$2a$11$oNgrawfoc1FcGwftNW35Su3sVMQJsyNN5Ny1.1QtXD4TUuSnrJMvC\n"

// A reach is a configuration before and after one key has another value, and what
// somebody sees of the service, or of a command, in each of them.
type reach struct {
	key           string // identity[].jwt.leeway
	before, after string // yaml; %D is the test's directory
	// see is asked of each; nil asks for a public file, as nobody.
	see  func(k *keyTest) string
	want [2]string // what is seen: parts of it
}

// Each key of the configuration reaches what it is for: another value is seen from
// outside. A key without a row, and a row without a key, are errors.
func TestEachKeyReachesItsOption(t *testing.T) {
	const bob, header = "identity: [{htpasswd: users}]", "identity: [{header: X-User}]"
	ask := func(lines ...string) func(*keyTest) string {
		return func(k *keyTest) string { return k.start().ask("/downloads/a/f", lines...) }
	}
	fake := newFakeRedis(t)
	redis := func(more string) string { return "state: {redis: {address: ['" + fake.address + "']" + more + "}}" }
	askFor := func(target string, lines ...string) func(*keyTest) string {
		return func(k *keyTest) string { return k.start().ask(target, lines...) }
	}
	log := func(k *keyTest) string {
		k.start().ask("/downloads/a/f")
		k.stop()
		return k.log.String()
	}
	snippet := func(directive string) func(*keyTest) string { // the lines of the snippet that begin so
		return func(k *keyTest) (found string) {
			var out bytes.Buffer
			cli.Main(k.t.Context(), []string{"nginx", "--complete", "--config", k.file}, cli.Env{Stdout: &out, Stderr: &out}, cli.Program{Open: open, Serve: serve})
			for line := range strings.Lines(out.String()) {
				if line = strings.Join(strings.Fields(line), " "); strings.HasPrefix(line, directive) {
					found += line + "\n"
				}
			}
			return found
		}
	}
	prints := func(line string) func(*keyTest) string {
		return func(k *keyTest) string { return fmt.Sprint("prints it: ", snippet(line)(k) != "") }
	}
	accepted := func(k *keyTest) string {
		_, err := k.open()
		return fmt.Sprint("error ", err)
	}
	checked := func(k *keyTest) string {
		var out bytes.Buffer
		cli.Main(k.t.Context(), []string{"check", "--config", k.file}, cli.Env{Stdout: &out, Stderr: &out}, cli.Program{Open: open, Serve: serve})
		return out.String()
	}
	jwt := func(more string) string {
		return "identity: [{jwt: {issuer: app, audience: [files], jwks_file: keys.json" + more + "}}]"
	}
	bearer := func(claims string) func(*keyTest) string {
		return func(k *keyTest) string {
			return k.start().ask("/downloads/a/f", "Authorization: Bearer "+k.token(claims))
		}
	}
	limited := func(what string) string {
		if !strings.Contains(what, "name:") {
			what = "name: l, " + what
		}
		return "identity: [{header: X-Remote-User}]\nlimits: [{" + what + "}]"
	}
	reported := func(what string) string {
		return limited(what) + "\nnginx: {delivery_log: %D/delivery.log, access_log: 'off'}\naudit: {file: %D/audit.jsonl}"
	}
	twice := func(k *keyTest) string {
		k.start().ask("/downloads/public/f.txt", "X-Request-Id: 1")
		return k.ask("/downloads/public/f.txt", "X-Request-Id: 2")
	}
	linked := func(k *keyTest) string { return k.start().ask(k.link(0)) }
	session := func(more string) string { return "identity: [{session: {url: %A, cookies: [id]" + more + "}}]" }
	certificate := func(subject string) string { return "identity: [{certificate: {" + subject + "}}]" }
	withCertificate := func(k *keyTest) string {
		return k.start().ask("/downloads/a/f", "X-Securefiles-Client-Verify: SUCCESS", "X-Securefiles-Client-Dn: OU=staff,CN=alice",
			"X-Securefiles-Client-Certificate: "+k.certificate())
	}
	download := func(more string) string {
		return "downloads: [{name: main, url: /downloads/, internal: /protected/, root: /srv/files" + more + "}]"
	}
	folder := strings.Replace(download(", listing: true"), "/srv/files", "%D/shown", 1)
	zipped := func(bounds string) string {
		return strings.Replace(folder, "listing: true", "listing: true, zip: {entries: "+bounds+"}", 1)
	}
	asFile := func(k *keyTest) string {
		k.start()
		writeFile(k.t, filepath.Join(filepath.Dir(k.file), "shown", "one.txt"), "1")
		writeFile(k.t, filepath.Join(filepath.Dir(k.file), "shown", "two.txt"), "234")
		return k.from("/archive", "/downloads/?zip")
	}
	public := askFor("/downloads/public/f.txt")
	stored := func(store string) string {
		return "downloads: [{name: main, url: /downloads/, internal: /protected/, storage: {" + store + "}}]"
	}
	azure := func(more string) string {
		return stored("azure: {account: one, container: files, credentials_file: azure" + more + "}")
	}
	gcs := func(more string) string { return stored("gcs: {bucket: files, credentials_file: gcs" + more + "}") }
	bucket := func(s3, more string) string { // more of the storage, then of the download
		return "downloads: [{name: main, url: /downloads/, internal: /protected/, storage: {s3: {bucket: files, endpoint: 'https://s3.example.org', credentials_file: store" + s3 + "}" + more + "}]"
	}
	recorded := func(privacy string) string {
		return bob + "\naudit: {file: audit.jsonl, privacy: {" + privacy + "}}"
	}
	member := func(name string) func(*keyTest) string { // of the record of what bob asks for
		return func(k *keyTest) string {
			k.start().ask("/downloads/b/f", basicBob, "X-Real-IP: 192.0.2.7")
			text, err := os.ReadFile(filepath.Join(k.dir, "audit.jsonl"))
			if err != nil {
				return err.Error()
			}
			var r map[string]any
			if err := json.Unmarshal(text, &r); err != nil {
				return fmt.Sprintf("%v: %s", err, text)
			}
			if r[name] == nil {
				return "none"
			}
			return fmt.Sprint(r[name])
		}
	}

	rows := []reach{
		{"listen", "listen: unix:%D/n.sock", "listen: unix:%D/other.sock", func(k *keyTest) string {
			k.start()
			_, err := os.Stat(filepath.Join(k.dir, "other.sock"))
			return fmt.Sprint("other socket: ", err == nil)
		}, [2]string{"false", "true"}},
		{"listen_insecure", "listen: 0.0.0.0:9180", "listen: 0.0.0.0:9180\nlisten_insecure: true", accepted, [2]string{"listen_insecure", "error <nil>"}},
		{"listen_peer_uids", fmt.Sprintf("listen_peer_uids: [%d]", os.Getuid()), fmt.Sprintf("listen_peer_uids: [%d]", os.Getuid()+1), public, [2]string{"204", "no answer"}},
		{"proxy_secret_file", "", "proxy_secret_file: secret", public, [2]string{"204", "403 request"}},
		{"proof_secret_file", "", "proof_secret_file: secret", func(k *keyTest) string {
			return fmt.Sprint("proved: ", strings.Contains(public(k), "X-Securefiles-Proof="))
		}, [2]string{"proved: false", "proved: true"}},
		{"nginx.service", "listen: 127.0.0.1:1\n" + download(""), "listen: 0.0.0.0:1\nlisten_insecure: true\nnginx: {service: ['127.0.0.1:2', 'files:3']}\n" + download(""), snippet("server"),
			[2]string{"server 127.0.0.1:1 max_conns=512;\n", "server 127.0.0.1:2 max_conns=512 fail_timeout=1s;\nserver files:3 max_conns=512 backup max_fails=0;\n"}},
		{"nginx.delivery_log", download(""), "nginx: {delivery_log: /d.log, access_log: /a.log combined}\n" + download(""), prints("access_log /d.log securefiles_delivery;"), [2]string{"prints it: false", "prints it: true"}},
		{"nginx.access_log", download(""), "nginx: {delivery_log: /d.log, access_log: /a.log combined}\n" + download(""), prints("access_log /a.log combined;"), [2]string{"prints it: false", "prints it: true"}},
		{"nginx.open_file_cache", download(""), "nginx: {open_file_cache: 500}\n" + download(""), prints("open_file_cache max=500 inactive=20s;"), [2]string{"prints it: false", "prints it: true"}},
		{"nginx.error_pages", download(""), "nginx: {error_pages: {404: /pages/lost.html}}\n" + download(""), prints("try_files /lost.html =404;"), [2]string{"prints it: false", "prints it: true"}},
		{"admin", "", "admin: unix:%D/other.sock", func(k *keyTest) string {
			k.start()
			_, err := os.Stat(filepath.Join(k.dir, "other.sock"))
			return fmt.Sprint("other socket: ", err == nil)
		}, [2]string{"false", "true"}},
		{"admin_insecure", "admin: 0.0.0.0:9181", "admin: 0.0.0.0:9181\nadmin_insecure: true", accepted, [2]string{"admin_insecure", "error <nil>"}},
		{"admin_token_file", "", "admin_token_file: secret", func(k *keyTest) string {
			return k.start().admin(http.MethodPost, "/explain")
		}, [2]string{"404", "401"}},
		{"shutdown_timeout", session(""), session("") + "\nshutdown_timeout: 1ms", func(k *keyTest) string {
			k.hold = make(chan struct{}) // for as long as the call may take
			k.start()
			asked := make(chan string)
			go func() { asked <- k.ask("/downloads/a/f", "Cookie: id=alice") }()
			k.reached()
			status := k.stop()
			close(k.hold)
			<-asked
			return fmt.Sprintf("exit status %d", status)
		}, [2]string{"exit status 0", "exit status 2"}},
		{"shutdown_delay", "", "shutdown_delay: 1500ms", func(k *keyTest) string {
			k.start()
			begin := time.Now()
			k.stop()
			return fmt.Sprint("delayed: ", time.Since(begin) >= 1500*time.Millisecond)
		}, [2]string{"false", "true"}},
		{"login_url", bob, bob + "\nlogin_url: /login/?next={next}", ask("Accept: text/html"), [2]string{"401 anonymous", "302 anonymous Location=/login/?next=%2Fdownloads%2Fa%2Ff"}},

		{"downloads[].name", download(""), strings.Replace(download(""), "main", "other", 1), func(k *keyTest) string {
			k.start().ask("/downloads/public/f")
			return k.admin(http.MethodGet, "/metrics")
		}, [2]string{`decisions_total{decision="allow",download="main",reason="policy"} 1`, `decisions_total{decision="allow",download="other",reason="policy"} 1`}},
		{"downloads[].url", download(""), strings.Replace(download(""), "/downloads/", "/other/", 1), askFor("/other/public/f"), [2]string{"400 request", "204"}},
		{"downloads[].internal", download(""), strings.Replace(download(""), "/protected/", "/hidden/", 1), public, [2]string{"Location=/protected/public/f", "Location=/hidden/public/f"}},
		{"downloads[].root", download(""), strings.Replace(download(""), "/srv/files", "/srv/other", 1), snippet("alias"), [2]string{"alias /srv/files/;", "alias /srv/other/;"}},
		{"downloads[].insecure_follow_symlinks", download(""), download(", insecure_follow_symlinks: true"), snippet("disable_symlinks"), [2]string{"disable_symlinks on", "disable_symlinks off; # insecure_follow_symlinks is set"}},
		{"downloads[].disposition", download(""), download(", disposition: inline"), public, [2]string{"Disposition=attachment", "Disposition=inline"}},
		{"downloads[].deny_status", header + "\n" + download(""), header + "\n" + download(", deny_status: 403"), askFor("/downloads/none", "X-User: alice"), [2]string{"404 default-deny", "403 default-deny"}},
		{"downloads[].cache_control", download(""), download(", cache_control: no-cache"), public, [2]string{"Control=private, no-store", "Control=no-cache"}},
		{"downloads[].referrer_policy", download(""), download(", referrer_policy: same-origin"), public, [2]string{"Policy=no-referrer", "Policy=same-origin"}},
		{"downloads[].embed", download(""), download(", embed: cross-origin"), snippet("set $securefiles_embed"), [2]string{"same-origin;", "cross-origin;"}},
		{"downloads[].front", download(""), download(", front: classic"), snippet("rewrite"), [2]string{"rewrite ^ $securefiles_location last;", "rewrite ^ /download? break;"}},
		{"downloads[].cors_origins", download(", embed: cross-origin"), download(", embed: cross-origin, cors_origins: ['https://a.example']"), prints(`"https://a.example" "https://a.example";`), [2]string{"prints it: false", "prints it: true"}},
		{"downloads[].compress", download(""), download(", compress: true"), snippet("gzip "), [2]string{"gzip off;", "gzip on;"}},
		{"downloads[].listing", download(""), download(", listing: true"), askFor("/downloads/public/"), [2]string{"400 path", "401 anonymous"}},
		{"downloads[].zip.entries", zipped("1, bytes: 1MiB"), zipped("9, bytes: 1MiB"), asFile, [2]string{"413", "200"}},
		{"downloads[].zip.bytes", zipped("9, bytes: 3"), zipped("9, bytes: 1MiB"), asFile, [2]string{"413", "200"}},
		{"downloads[].names", download(""), download(", names: releases.csv"), askFor("/downloads/public/latest.zip"), [2]string{"Location=/protected/public/latest.zip", "Location=/protected/public/v2.zip"}},
		{"downloads[].content_security_policy", download(""), download(", content_security_policy: sandbox"), public, [2]string{"Csp=default-src", "Csp=sandbox"}},

		{"downloads[].deliver", bucket("", "}"), bucket("", "}, deliver: redirect"), public, [2]string{"204 policy", "302 redirect Location=https://s3.example.org/files/public/f.txt?"}},
		{"downloads[].storage.s3.bucket", bucket("", "}"), strings.Replace(bucket("", "}"), "bucket: files", "bucket: other", 1), public, [2]string{"Upstream=/files/public/f.txt?", "Upstream=/other/public/f.txt?"}},
		{"downloads[].storage.s3.region", bucket("", "}"), bucket(", region: eu-central-1", "}"), public, [2]string{"%2Fus-east-1%2F", "%2Feu-central-1%2F"}},
		{"downloads[].storage.s3.endpoint", bucket("", "}"), strings.Replace(bucket("", "}"), "s3.example.org", "minio.example.org", 1), snippet("proxy_set_header Host"), [2]string{"Host s3.example.org;", "Host minio.example.org;"}},
		{"downloads[].storage.s3.prefix", bucket("", "}"), bucket(", prefix: a/b/", "}"), public, [2]string{"Upstream=/files/public/", "Upstream=/files/a/b/public/"}},
		{"downloads[].storage.s3.addressing", bucket("", "}"), bucket(", addressing: host", "}"), snippet("proxy_ssl_name"), [2]string{" s3.example.org;", " files.s3.example.org;"}},
		{"downloads[].storage.s3.credentials_file", bucket("", "}"), strings.Replace(bucket("", "}"), "file: store", "file: store2", 1), public, [2]string{"Credential=FIRST%2F", "Credential=SECOND%2F"}},
		{"downloads[].storage.azure.account", azure(""), strings.Replace(azure(""), "account: one", "account: two", 1), snippet("proxy_set_header Host"), [2]string{"Host one.blob.core.windows.net;", "Host two.blob.core.windows.net;"}},
		{"downloads[].storage.azure.container", azure(""), strings.Replace(azure(""), "container: files", "container: other", 1), public, [2]string{"Upstream=/files/public/f.txt?", "Upstream=/other/public/f.txt?"}},
		{"downloads[].storage.azure.endpoint", azure(""), azure(", endpoint: 'https://azure.example.org/one'"), public, [2]string{"Upstream=/files/public/", "Upstream=/one/files/public/"}},
		{"downloads[].storage.azure.prefix", azure(""), azure(", prefix: a/b/"), public, [2]string{"Upstream=/files/public/", "Upstream=/files/a/b/public/"}},
		{"downloads[].storage.azure.credentials_file", azure(""), strings.Replace(azure(""), "file: azure", "file: none", 1), checked, [2]string{"policy.csv:18: warning", "none: no such file"}},
		{"downloads[].storage.gcs.bucket", gcs(""), strings.Replace(gcs(""), "bucket: files", "bucket: other", 1), public, [2]string{"Upstream=/files/public/f.txt?", "Upstream=/other/public/f.txt?"}},
		{"downloads[].storage.gcs.endpoint", gcs(""), gcs(", endpoint: 'https://gcs.example.org'"), snippet("proxy_set_header Host"), [2]string{"Host storage.googleapis.com;", "Host gcs.example.org;"}},
		{"downloads[].storage.gcs.prefix", gcs(""), gcs(", prefix: a/b/"), public, [2]string{"Upstream=/files/public/", "Upstream=/files/a/b/public/"}},
		{"downloads[].storage.gcs.credentials_file", gcs(""), strings.Replace(gcs(""), "file: gcs", "file: none", 1), checked, [2]string{"policy.csv:18: warning", "none: no such file"}},
		{"downloads[].storage.ca_file", bucket("", "}"), bucket("", ", ca_file: /etc/ca.pem}"), snippet("proxy_ssl_trusted_certificate"), [2]string{" /etc/ssl/certs/ca-certificates.crt;", " /etc/ca.pem;"}},
		{"downloads[].storage.resolver", bucket("", "}"), bucket("", ", resolver: [127.0.0.53, '[::1]:53']}"), prints("resolver 127.0.0.53 [::1]:53 valid=30s;"), [2]string{"prints it: false", "prints it: true"}},
		{"downloads[].storage.insecure_http", strings.Replace(bucket("", "}"), "https:", "http:", 1), strings.Replace(bucket("", ", insecure_http: true}"), "https:", "http:", 1), accepted, [2]string{"insecure_http", "error <nil>"}},

		{"policy.model", "", "policy: {model: exact.conf}", public, [2]string{"204", "401"}},
		{"policy.file", "", "policy: {file: other.csv}", public, [2]string{"204", "401"}},
		{"policy.allow_shrink", "policy: {file: empty.csv}", "policy: {file: empty.csv, allow_shrink: true}", public, [2]string{"policy-empty", "401"}},
		{"policy.timezone", "", "policy: {timezone: Etc/GMT+12}", askFor("/downloads/zoned/f"), [2]string{"204", "401"}},
		{"policy.role_depth", header, header + "\npolicy: {role_depth: 12}", askFor("/downloads/deep/f", "X-User: deep"), [2]string{"404", "204"}},
		{"policy.decision_timeout", "policy: {model: names.conf, file: names.csv, decision_timeout: 1500ms}", "policy: {model: names.conf, file: names.csv, decision_timeout: 1ms}",
			askFor("/downloads/a/b/c"), [2]string{"401", "503 unavailable"}},
		{"audit.file", "", "audit: {file: audit.jsonl}", func(k *keyTest) string {
			k.start().ask("/downloads/public/f")
			records, _ := os.ReadFile(filepath.Join(k.dir, "audit.jsonl")) // there may be none
			return fmt.Sprint("recorded: ", strings.Contains(string(records), `"path":"/public/f"`))
		}, [2]string{"recorded: false", "recorded: true"}},
		{"audit.durability", "audit: {file: stdout}", "audit: {file: stdout, durability: fsync}", accepted, [2]string{"error <nil>", "fsync needs a file"}},
		{"audit.chain.key_file", "audit: {file: audit.jsonl}", "audit: {file: audit.jsonl, chain: {key_file: audit.key}}", func(k *keyTest) string {
			k.start().ask("/downloads/public/f")
			records, _ := os.ReadFile(filepath.Join(k.dir, "audit.jsonl")) // there may be none
			return fmt.Sprint("chained: ", strings.Contains(string(records), `"seq":2,"hash":"`))
		}, [2]string{"chained: false", "chained: true"}},
		{"audit.chain.every", "audit: {file: audit.jsonl, chain: {key_file: audit.key}}", "audit: {file: audit.jsonl, chain: {key_file: audit.key, every: 1s}}", func(k *keyTest) string {
			k.start().ask("/downloads/public/f")
			deadline := time.Now().Add(1500 * time.Millisecond)
			if strings.HasSuffix(k.want, "true") {
				deadline = deadline.Add(time.Minute)
			}
			for {
				signed := strings.Contains(k.log.String(), `msg="audit checkpoint" head="2:`)
				if signed || time.Now().After(deadline) {
					return fmt.Sprint("signed: ", signed)
				}
				time.Sleep(10 * time.Millisecond) // between looks
			}
		}, [2]string{"signed: false", "signed: true"}},
		{"audit.privacy.addresses", recorded(""), recorded("addresses: none"), member("client.address"), [2]string{"192.0.2.7", "none"}},
		{"audit.privacy.subjects", recorded("key_file: secret"), recorded("key_file: secret, subjects: keyed"), member("user.id"), [2]string{"bob", "keyed:"}},
		{"audit.privacy.key_file", recorded("subjects: keyed, key_file: secret"), recorded("subjects: keyed, key_file: other-secret"), member("user.id"),
			[2]string{audit.Keyed(testToken, "bob"), audit.Keyed(testToken[1:]+"x", "bob")}},
		{"audit.privacy.omit", recorded(""), recorded("omit: [http.request.method]"), member("http.request.method"), [2]string{"GET", "none"}},
		{"audit.privacy.erasable", recorded("keys: audit.keys"), recorded("keys: audit.keys, erasable: true"), member("path"), [2]string{"/b/f", "none"}},
		{"audit.privacy.keys", recorded("erasable: true, keys: a.keys"), recorded("erasable: true, keys: b.keys"), func(k *keyTest) string {
			member("path")(k)
			_, err := os.Stat(filepath.Join(k.dir, "b.keys"))
			return fmt.Sprint("b.keys: ", err == nil)
		}, [2]string{"b.keys: false", "b.keys: true"}},
		{"audit.privacy.retention", recorded(""), recorded("retention: 1d"), func(k *keyTest) string {
			old := writeFile(k.t, filepath.Join(k.dir, "audit.jsonl.1"), "")
			if err := os.Chtimes(old, time.Unix(0, 0), time.Unix(0, 0)); err != nil {
				k.t.Fatal(err)
			}
			k.start().ask("/downloads/b/f", basicBob)
			for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
				if _, err := os.Stat(old); err != nil || !strings.Contains(k.want, "removed: true") || time.Now().After(deadline) {
					return fmt.Sprint("removed: ", err != nil)
				}
			}
		}, [2]string{"removed: false", "removed: true"}},
		{"audit.wait", "audit: {file: audit.jsonl}\nnginx: {delivery_log: %D/delivery.log, access_log: off}", "audit: {file: audit.jsonl, wait: 1s}\nnginx: {delivery_log: %D/delivery.log, access_log: off}", func(k *keyTest) string {
			k.start().ask("/downloads/public/f", "X-Request-ID: 5f")
			deadline := time.Now().Add(1500 * time.Millisecond)
			if strings.HasPrefix(k.want, "unknown: true") {
				deadline = deadline.Add(time.Minute)
			}
			for {
				records, _ := os.ReadFile(filepath.Join(k.dir, "audit.jsonl")) // there may be none yet
				unknown := strings.Contains(string(records), `"delivery":"unknown"`)
				if unknown || time.Now().After(deadline) {
					return fmt.Sprint("unknown: ", unknown)
				}
				time.Sleep(10 * time.Millisecond) // between looks
			}
		}, [2]string{"unknown: false", "unknown: true"}},
		{"audit.syslog.url", "audit: {file: audit.jsonl, syslog: {url: 'unix://%D/a'}}", "audit: {file: audit.jsonl, syslog: {url: 'unix://%D/b'}}", func(k *keyTest) string {
			told := make(chan string, 100) // more than there are records
			for _, name := range []string{"a", "b"} {
				conn, err := net.ListenPacket("unixgram", filepath.Join(k.dir, name))
				if err != nil {
					k.t.Fatal(err)
				}
				k.t.Cleanup(func() { conn.Close() })
				go func() {
					buf := make([]byte, 1<<16)
					for {
						n, _, err := conn.ReadFrom(buf)
						if err != nil {
							return
						}
						if strings.Contains(string(buf[:n]), `"path":"/public/f"`) {
							told <- name
						}
					}
				}()
			}
			k.start().ask("/downloads/public/f")
			select {
			case name := <-told:
				return "told " + name
			case <-time.After(time.Minute):
				return "told nobody"
			}
		}, [2]string{"told a", "told b"}},
		{"audit.syslog.ca_file", "audit: {file: audit.jsonl, syslog: {url: 'tcp://h'}}", "audit: {file: audit.jsonl, syslog: {url: 'tcp://h', ca_file: c}}", accepted, [2]string{"error <nil>", "for tls:// alone"}},
		{"audit.postgres.url_file", "audit: {file: audit.jsonl, postgres: {url_file: a}}", "audit: {file: audit.jsonl, postgres: {url_file: b}}", func(k *keyTest) string {
			k.start().ask("/downloads/public/f")
			for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
				if _, after, ok := strings.Cut(k.log.String(), "connect to PostgreSQL: open "+k.dir+"/"); ok {
					name, _, _ := strings.Cut(after, ":")
					return "opens " + name
				}
			}
			return "opens nothing"
		}, [2]string{"opens a", "opens b"}},
		{"policy.shadow_share", "", "policy: {shadow_share: 1}", func(k *keyTest) string {
			k.start()
			for deadline := time.Now().Add(10 * time.Second); ; {
				k.ask("/downloads/public/f")
				const same = `securefiles_policy_shadow_decisions_total{result="same"} `
				_, count, _ := strings.Cut(k.admin(http.MethodGet, "/metrics"), same)
				if again := strings.HasPrefix(k.want, "again: true"); !strings.HasPrefix(count, "0") || !again || time.Now().After(deadline) {
					return fmt.Sprint("again: ", !strings.HasPrefix(count, "0"))
				}
			}
		}, [2]string{"again: false", "again: true"}},

		{"identity[].groups", "identity: [{header: X-User, groups_header: X-Groups}]", "identity: [{header: X-User, groups_header: X-Groups, groups: optional}]", ask("X-User: alice"), [2]string{"503 unavailable", "204"}},
		{"identity[].prefix", header, "identity: [{header: X-User, prefix: \"forum:\"}]", ask("X-User: alice"), [2]string{"User=alice", "User=forum:alice"}},
		{"identity[].header", header, "identity: [{header: X-Other}]", ask("X-Other: alice"), [2]string{"401 anonymous", "204"}},
		{"identity[].groups_header", header, "identity: [{header: X-User, groups_header: X-Groups}]", askFor("/downloads/staff/f", "X-User: zoe", "X-Groups: staff"), [2]string{"404", "204"}},
		{"identity[].nginx_value", header, "identity: [{header: X-User, nginx_value: $gateway_user}]", snippet("proxy_set_header X-User"), [2]string{`X-User "";`, "X-User $gateway_user;"}},
		{"identity[].nginx_groups_value", "identity: [{header: X-User, groups_header: X-Groups}]", "identity: [{header: X-User, groups_header: X-Groups, nginx_groups_value: $gateway_groups}]", snippet("proxy_set_header X-Groups"),
			[2]string{`X-Groups "";`, "X-Groups $gateway_groups;"}},
		{"identity[].htpasswd", bob, "identity: [{htpasswd: nobody}]", askFor("/downloads/b/f", basicBob), [2]string{"204", "401 credentials"}},
		{"identity[].realm", bob, "identity: [{htpasswd: users, realm: the vault}]", ask(), [2]string{`realm="downloads"`, `realm="the vault"`}},
		{"identity[].remember", "identity: [{htpasswd: slow}]", "identity: [{htpasswd: slow, remember: 1ns}]", func(k *keyTest) string {
			k.start().ask("/downloads/b/f", basicBob)
			least := func(lines ...string) time.Duration { // of three, for the machine may be busy
				shortest := time.Hour
				for range 3 {
					begin := time.Now()
					k.ask("/downloads/b/f", lines...)
					shortest = min(shortest, time.Since(begin))
				}
				return shortest
			}
			wrong := "Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte("bob:wrong"))
			return fmt.Sprint("remembered: ", least(basicBob) < least(wrong)/4)
		}, [2]string{"remembered: true", "remembered: false"}},

		{"links.keys_file", "", "links: {keys_file: link-keys.json}", linked, [2]string{"401 anonymous", "204"}},
		{"links.max_ttl", "links: {keys_file: link-keys.json}", "links: {keys_file: link-keys.json, max_ttl: 1h}", linked, [2]string{"204", "403 signature"}},
		{"links.site", "links: {keys_file: link-keys.json}", "links: {keys_file: link-keys.json, site: 'https://files.example.org'}", func(k *keyTest) string {
			var out bytes.Buffer
			cli.Main(k.t.Context(), []string{"link", "create", "/a/f", "--as", "alice", "--config", k.file}, cli.Env{Stdout: &out, Stderr: &out}, cli.Program{Open: open, Serve: serve})
			return "\n" + out.String()
		}, [2]string{"\n/downloads/a/f?link=", "\nhttps://files.example.org/downloads/a/f?link="}},
		{"links.template", "links: {keys_file: link-keys.json}\nstate: {file: state.db}", "links: {keys_file: link-keys.json, template: link.html}\nstate: {file: state.db}", func(k *keyTest) string { return k.start().page(k.link(1)) }, [2]string{"<h1>Download a file</h1>", "<h1>Acme</h1>"}},
		{"listing.template", folder, folder + "\nlisting: {template: listing.html}", func(k *keyTest) string { return k.start().page("/downloads/") }, [2]string{"<h1><bdi>main</bdi></h1>", "<h1>Acme</h1>"}},
		{"links.api", "links: {keys_file: link-keys.json}\nstate: {file: state.db}", "links: {keys_file: link-keys.json, api: true}\nstate: {file: state.db}", func(k *keyTest) string {
			var out bytes.Buffer
			cli.Main(k.t.Context(), []string{"nginx", "--config", k.file}, cli.Env{Stdout: &out, Stderr: &out}, cli.Program{Open: open, Serve: serve})
			return fmt.Sprint("printed: ", strings.Contains(out.String(), "location = /_securefiles/links {"))
		}, [2]string{"printed: false", "printed: true"}},
		{"state.file", "links: {keys_file: link-keys.json}", "links: {keys_file: link-keys.json}\nstate: {file: state.db}", func(k *keyTest) string { return k.start().ask(k.link(1)) },
			[2]string{"503 unavailable", "403 confirm"}},
		{"state.redis.address", "state: {redis: {address: ['unix:%D/none.sock']}}", "state: {redis: {address: ['" + fake.address + "']}}", func(k *keyTest) string { return fake.told(k) + k.log.String() }, [2]string{"none.sock", "hello"}},
		{"state.redis.sentinel_master", redis(""), redis(", sentinel_master: vault"), fake.told, [2]string{"epoch", "vault"}},
		{"state.redis.username", redis(", password_file: secret"), redis(", password_file: secret, username: files"), fake.told, [2]string{"default", "files"}},
		{"state.redis.password_file", redis(", username: files"), redis(", username: files, password_file: secret"), fake.told, [2]string{"hello\r\n$1\r\n3\r\n*", testToken}},
		{"state.redis.tls", redis(""), redis(", tls: true"), fake.told, [2]string{"hello", "\x16\x03\x01"}},
		{"state.redis.ca_file", "state: {redis: {address: ['%H'], tls: true}}", "state: {redis: {address: ['%H'], tls: true, ca_file: ca.pem}}", func(k *keyTest) string { k.start(); return k.log.String() },
			[2]string{"certificate signed by unknown authority", "can't parse"}},
		{"state.redis.prefix", redis(""), redis(", prefix: files."), fake.told, [2]string{"securefiles:{links}", "files.{links}"}},
		{"state.redis.replicas", "admin_token_file: secret\n" + redis(""), "admin_token_file: secret\n" + redis(", replicas: 1"), func(k *keyTest) string {
			before := len(fake.heard.String())
			r, err := http.NewRequestWithContext(k.t.Context(), http.MethodPost, "http://securefiles/state/accept", nil)
			if err != nil {
				k.t.Fatal(err)
			}
			r.Header.Set("Authorization", "Bearer "+testToken)
			resp, err := k.start().overUnix("admin", r)
			if err != nil {
				return err.Error()
			}
			defer resp.Body.Close() //nolint:errcheck // what Redis is told matters
			return fmt.Sprint("replicas: ", strings.Contains(fake.heard.String()[before:], "WAIT"))
		}, [2]string{"replicas: false", "replicas: true"}},
		{"state.fail", limited("per: address, requests: 1/1h") + "\n" + redis(""), limited("per: address, requests: 1/1h") + "\n" + strings.Replace(redis(""), "{redis", "{fail: local, redis", 1), public, [2]string{"503 unavailable", "204"}},
		{"limits[].name", limited("per: address, requests: 1/1h"), limited("name: other, per: address, requests: 1/1h"), func(k *keyTest) string {
			k.start().ask("/downloads/public/f.txt")
			return k.admin(http.MethodGet, "/metrics")
		}, [2]string{`limit="l"`, `limit="other"`}},
		{"limits[].of", limited("of: [bob], per: address, requests: 1/1h"), limited("of: ['download:main'], per: address, requests: 1/1h"), twice, [2]string{"204", "429 rate"}},
		{"limits[].per", limited("per: address, requests: 1/1h"), limited("per: subject, requests: 1/1h"), func(k *keyTest) string {
			k.start()
			k.ask("/downloads/public/f.txt", "X-Remote-User: alice", "X-Real-IP: 192.0.2.1")
			return k.ask("/downloads/public/f.txt", "X-Remote-User: bob", "X-Real-IP: 192.0.2.1")
		}, [2]string{"429 rate", "204"}},
		{"limits[].requests", limited("per: address, requests: 2/1h"), limited("per: address, requests: 1/1h"), twice, [2]string{"204", "429 rate"}},
		{"limits[].downloads", reported("per: address, downloads: 2"), reported("per: address, downloads: 1"), twice, [2]string{"204", "429 busy"}},
		{"limits[].bytes", reported("per: address, bytes: 3MiB/1h"), reported("per: address, bytes: 1MiB/1h"), twice, [2]string{"204", "429 quota"}},
		{"limits[].rate", limited("per: address, rate: 2kB/s"), limited("per: address, rate: 1kB/s"), public, [2]string{"Limit-Rate=2000", "Limit-Rate=1000"}},
		{"limits[].mode", limited("per: address, requests: 1/1h"), limited("per: address, requests: 1/1h, mode: observe"), twice, [2]string{"429 rate", "204"}},
		{"limits[].ipv6", limited("per: address, requests: 1/1h"), limited("per: address, requests: 1/1h, ipv6: 128"), func(k *keyTest) string {
			k.start().ask("/downloads/public/f.txt", "X-Real-IP: 2001:db8::1")
			return k.ask("/downloads/public/f.txt", "X-Real-IP: 2001:db8::2")
		}, [2]string{"429 rate", "204"}},
		{"identity[].jwt.issuer", jwt(""), strings.Replace(jwt(""), "app", "other", 1), bearer(`{"iss": "app"}`), [2]string{"204", "401 credentials"}},
		{"identity[].jwt.jwks_url", "identity: [{jwt: {issuer: app, audience: [files], jwks_url: %A/none}}]", "identity: [{jwt: {issuer: app, audience: [files], jwks_url: %A/keys}}]", bearer(`{}`), [2]string{"503 unavailable", "204"}},
		{"identity[].jwt.jwks_file", jwt(""), strings.Replace(jwt(""), "keys.json", "other.json", 1), bearer(`{}`), [2]string{"204", "401 credentials"}},
		{"identity[].jwt.insecure_http", "identity: [{jwt: {issuer: app, audience: [files], jwks_url: http://keys.example/}}]", "identity: [{jwt: {issuer: app, audience: [files], jwks_url: http://keys.example/, insecure_http: true}}]",
			accepted, [2]string{"insecure_http: true", "error <nil>"}},
		{"identity[].jwt.audience", jwt(""), strings.Replace(jwt(""), "[files]", "[others]", 1), bearer(`{}`), [2]string{"204", "401 credentials"}},
		{"identity[].jwt.algorithms", jwt(""), jwt(", algorithms: [ES256]"), bearer(`{}`), [2]string{"204", "error"}},
		{"identity[].jwt.cookie", jwt(""), jwt(", cookie: token"), func(k *keyTest) string { return k.start().ask("/downloads/a/f", "Cookie: token="+k.token(`{}`)) }, [2]string{"401 anonymous", "204"}},
		{"identity[].jwt.header", jwt(""), jwt(", header: Cf-Access-Jwt-Assertion"), func(k *keyTest) string {
			return k.start().ask("/downloads/a/f", "Cf-Access-Jwt-Assertion: "+k.token(`{}`))
		}, [2]string{"401 anonymous", "204"}},
		{"identity[].jwt.subject_claim", jwt(""), jwt(", subject_claim: name"), bearer(`{"name": "zoe"}`), [2]string{"User=alice", "User=zoe"}},
		{"identity[].jwt.groups_claim", jwt(""), jwt(", groups_claim: teams"), func(k *keyTest) string {
			return k.start().ask("/downloads/staff/f", "Authorization: Bearer "+k.token(`{"sub": "zoe", "teams": ["staff"]}`))
		}, [2]string{"404", "204"}},
		{"identity[].jwt.leeway", jwt(""), jwt(", leeway: 5m"), bearer(fmt.Sprintf(`{"exp": %d}`, time.Now().Unix()-90)), [2]string{"401 credentials", "204"}},
		{"identity[].jwt.refresh", "identity: [{jwt: {issuer: app, audience: [files], jwks_url: %A/keys}}]", "identity: [{jwt: {issuer: app, audience: [files], jwks_url: %A/keys, refresh: 1m}}]", func(k *keyTest) string {
			var times int64
			synctest.Test(k.t, func(t *testing.T) {
				p, err := k.open()
				if err != nil {
					t.Fatal(err)
				}
				ctx, cancel := context.WithCancel(t.Context())
				p.Sources.Ask(ctx)
				done := make(chan error)
				go func() { done <- p.Sources[0].Run(ctx, func(error) {}) }()
				time.Sleep(90 * time.Second)
				cancel()
				<-done
				times = k.calls.Load()
			})
			return fmt.Sprintf("asked in 90 s: %d", times)
		}, [2]string{"asked in 90 s: 1", "asked in 90 s: 2"}},
		{"identity[].jwt.max_stale", "identity: [{jwt: {issuer: app, audience: [files], jwks_url: %A/keys}}]", "identity: [{jwt: {issuer: app, audience: [files], jwks_url: %A/keys, max_stale: 1h}}]", func(k *keyTest) string {
			var times int64
			token := k.token(`{}`)
			synctest.Test(k.t, func(t *testing.T) {
				p, err := k.open()
				if err != nil {
					t.Fatal(err)
				}
				p.Sources.Ask(t.Context())
				time.Sleep(2 * time.Hour)
				_, _ = p.Sources[0].Authenticate(t.Context(), &authz.Question{Header: http.Header{"Authorization": {"Bearer " + token}}}) // what counts is what it needs
				times = k.calls.Load()
			})
			return fmt.Sprintf("asked after 2 h: %d", times)
		}, [2]string{"asked after 2 h: 1", "asked after 2 h: 2"}},
		{"identity[].jwt.timeout", "identity: [{jwt: {issuer: app, audience: [files], jwks_url: %A/slow/keys}}]", "identity: [{jwt: {issuer: app, audience: [files], jwks_url: %A/slow/keys, timeout: 10ms}}]", bearer(`{}`), [2]string{"204", "503"}},

		{"identity[].certificate.subject", certificate("subject: cn"), certificate("subject: dns"), withCertificate, [2]string{"User=alice", "User=host.example"}},
		{"identity[].certificate.groups", certificate("subject: dns"), certificate("subject: dns, groups: ou"), func(k *keyTest) string {
			return k.start().ask("/downloads/staff/f", "X-Securefiles-Client-Verify: SUCCESS", "X-Securefiles-Client-Dn: OU=staff,CN=alice", "X-Securefiles-Client-Certificate: "+k.certificate())
		}, [2]string{"404", "204"}},

		{"identity[].session.url", session(""), strings.Replace(session(""), "%A", "%A/zoe", 1), ask("Cookie: id=alice"), [2]string{"User=alice", "User=zoe"}},
		{"identity[].session.insecure_http", strings.Replace(session(""), "%A", "http://app.example/", 1), strings.Replace(session(", insecure_http: true"), "%A", "http://app.example/", 1), accepted, [2]string{"insecure_http: true", "error <nil>"}},
		{"identity[].session.socket", strings.Replace(session(""), "%A", "http://127.0.0.1:1/", 1), strings.Replace(session(", socket: %D/app.sock"), "%A", "http://127.0.0.1:1/", 1), ask("Cookie: id=alice"), [2]string{"503", "User=alice"}},
		{"identity[].session.cookies", session(""), strings.Replace(session(""), "[id]", "[other]", 1), ask("Cookie: other=alice"), [2]string{"401 anonymous", "User=alice"}},
		{"identity[].session.headers", session(""), session(", headers: [Authorization]"), ask("Authorization: Token alice"), [2]string{"401 anonymous", "User=alice"}},
		{"identity[].session.send", session(""), session(", send: {X-As: zoe}"), ask("Cookie: id=alice"), [2]string{"User=alice", "User=zoe"}},
		{"identity[].session.subject_header", session(""), session(", subject_header: X-Is"), ask("Cookie: id=alice"), [2]string{"User=alice", "User=of-a-header"}},
		{"identity[].session.groups_header", session(", subject_header: X-Is"), session(", subject_header: X-Is, groups_header: X-In"), askFor("/downloads/staff/f", "Cookie: id=alice"), [2]string{"404", "204"}},
		{"identity[].session.subject_path", session(""), session(", subject_path: user.name"), ask("Cookie: id=alice"), [2]string{"User=alice", "User=of-a-path"}},
		{"identity[].session.groups_path", session(", subject_path: user.name"), session(", subject_path: user.name, groups_path: user.teams"), askFor("/downloads/staff/f", "Cookie: id=alice"), [2]string{"404", "204"}},
		{"identity[].session.timeout", strings.Replace(session(""), "%A", "%A/slow/", 1), strings.Replace(session(", timeout: 10ms"), "%A", "%A/slow/", 1), ask("Cookie: id=alice"), [2]string{"204", "503"}},
		{"identity[].session.remember", session(""), session(", remember: 1ns"), calls("Cookie: id=alice"), [2]string{"asked 1 times", "asked 3 times"}},
		{"identity[].session.remember_refused", session(""), session(", remember_refused: 1ns"), calls("Cookie: id=refused"), [2]string{"asked 1 times", "asked 3 times"}},
		{"identity[].session.ca_file", strings.Replace(session(""), "%A", "%T", 1), strings.Replace(session(", ca_file: ca.pem"), "%A", "%T", 1), ask("Cookie: id=alice"), [2]string{"503", "User=alice"}},
		{"identity[].session.max_calls", session(""), session(", max_calls: 1"), func(k *keyTest) string {
			k.hold = make(chan struct{})
			k.start()
			var asked sync.WaitGroup
			for _, id := range []string{"alice", "zoe"} {
				asked.Go(func() { k.ask("/downloads/a/f", "Cookie: id="+id) })
			}
			k.reached()
			at, wait := 1, 500*time.Millisecond
			if k.want == "at a time: 2" {
				wait = time.Minute // it comes
			}
			select { // a call that has no turn is not made before the first one is given up
			case <-k.called:
				at = 2
			case <-time.After(wait):
			}
			close(k.hold)
			asked.Wait()
			return fmt.Sprintf("at a time: %d", at)
		}, [2]string{"at a time: 2", "at a time: 1"}},

		{"log.format", "", "log: {format: json}", log, [2]string{"level=INFO msg=serving", `"msg":"serving"`}},
		{"log.level", "", "log: {level: warn}", log, [2]string{"msg=serving", ""}},
	}

	keys := keysOf(reflect.TypeFor[config.Config](), "")
	for _, row := range rows {
		if !slices.Contains(keys, row.key) {
			t.Errorf("%s is no key, or has two rows", row.key)
		}
		keys = slices.DeleteFunc(keys, func(key string) bool { return key == row.key })
		t.Run(row.key, func(t *testing.T) {
			var seen [2]string
			for i, yaml := range []string{row.before, row.after} {
				k := newKeyTest(t, yaml)
				k.want = row.want[i]
				seen[i] = row.see(k)
				k.stop()
				if !strings.Contains(seen[i], row.want[i]) {
					t.Errorf("with\n%s\nsaw %s\nwant %s", yaml, seen[i], row.want[i])
				}
			}
			if seen[0] == seen[1] || strings.Contains(seen[1], row.want[0]) || row.want[1] != "" && strings.Contains(seen[0], row.want[1]) {
				t.Errorf("with and without it the same is seen:\n%s\n%s", seen[0], seen[1])
			}
		})
	}
	for _, key := range keys {
		t.Errorf("%s has no row: what is seen of it?", key)
	}
}

// keysOf returns the keys of a configuration that hold a value.
func keysOf(t reflect.Type, path string) (keys []string) {
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.Struct {
		if t.Kind() == reflect.Slice {
			path += "[]"
		}
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct {
		return []string{path}
	}
	for i := range t.NumField() {
		name, ok := t.Field(i).Tag.Lookup("yaml")
		if !ok || name == "-" {
			continue
		}
		keys = append(keys, keysOf(t.Field(i).Type, strings.TrimPrefix(path+"."+name, "."))...)
	}
	return keys
}

var basicBob = "Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte("bob:bob"))

// calls asks three times as the same caller.
func calls(lines ...string) func(*keyTest) string {
	return func(k *keyTest) string {
		k.start()
		for range 3 {
			k.ask("/downloads/a/f", lines...)
		}
		return fmt.Sprintf("asked %d times", k.calls.Load())
	}
}

// A keyTest is a service with one configuration, and an application that it may ask.
type keyTest struct {
	t         *testing.T
	dir, file string
	want      string
	key       ed25519.PrivateKey

	calls  atomic.Int64  // of the application
	called chan struct{} // at each
	hold   chan struct{} // keeps it from answering; nil for nothing

	log    *syncedBuffer
	cancel context.CancelFunc
	ended  chan int
	failed string // why it did not start
}

func newKeyTest(t *testing.T, yaml string) *keyTest {
	t.Helper()
	dir, err := os.MkdirTemp("", "key") // short: sockets have names of at most 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	k := &keyTest{t: t, dir: dir, file: filepath.Join(dir, "securefiles.yaml"), called: make(chan struct{}, 100)}
	k.key = ed25519.NewKeyFromSeed(bytes.Repeat([]byte{1}, ed25519.SeedSize))
	plain, encrypted := httptest.NewServer(http.HandlerFunc(k.answer)), httptest.NewUnstartedServer(http.HandlerFunc(k.answer))
	encrypted.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError) // of handshakes that are to fail
	encrypted.StartTLS()
	socket, err := net.Listen("unix", filepath.Join(dir, "app.sock"))
	if err != nil {
		t.Fatal(err)
	}
	local := &http.Server{Handler: http.HandlerFunc(k.answer), ReadHeaderTimeout: time.Minute}
	go func() { _ = local.Serve(socket) }() // until it is closed
	t.Cleanup(func() { plain.Close(); encrypted.Close(); _ = local.Close() })

	deep := "p, role11, /deep/**, read, allow\ng, deep, role0\n"
	for i := range 11 {
		deep += fmt.Sprintf("g, role%d, role%d\n", i, i+1)
	}
	other := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{2}, ed25519.SeedSize))
	for name, text := range map[string]string{
		"policy.csv": "p, @anyone, /public/**, read, allow\np, @authenticated, /a/**, read, allow\np, bob, /b/**, read, allow\np, alice, /a/**, share, allow\np, @staff, /staff/**, read, allow\n" +
			"p, @anyone, /zoned/**, read, allow, " + time.Now().UTC().Add(-time.Hour).Format(time.DateTime) + ", _\n" + deep + "p, @anyone, /, list, allow\np, @anyone, /*.txt, read, allow\n",
		"releases.csv": "/public/latest.zip, /public/v2.zip\n",
		"other.csv":    "p, alice, /a/**, read, allow\n", "empty.csv": "# nobody\n",
		"exact.conf": strings.Replace(builtInModel(t), "globMatch(r.obj, p.obj)", "r.obj == p.obj", 1),
		"users":      bobsHash, "nobody": strings.Replace(bobsHash, "bob", "zoe", 1), "slow": slowBob,
		"audit.key":      "PRIVATE+KEY+files.example.org+e8bf2fe2+AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEB\n",
		"link-keys.json": linkKeys, "azure": "c2VjcmV0\n", "gcs": readFile(t, "internal/storage/testdata/google_service_account.json"), "store": "[default]\naws_access_key_id=FIRST\naws_secret_access_key=s\n", "store2": "[default]\naws_access_key_id=SECOND\naws_secret_access_key=s\n", "link.html": `<h1>Acme</h1><form method="post" action="{{.Action}}"><input name="url" value="{{.URL}}"><input name="password"></form>{{.Link}}`, "listing.html": `<h1>Acme</h1>{{range .Rows}}<a href="{{.URL}}"></a>{{end}}<a href="{{.Next}}"></a>`, "keys.json": jwksOf(k.key), "other.json": jwksOf(other), "secret": testToken, "other-secret": testToken[1:] + "x",
		"ca.pem": string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: encrypted.Certificate().Raw})),
	} {
		writeFile(t, filepath.Join(dir, name), text)
	}
	if err := os.Mkdir(filepath.Join(dir, "shown"), 0o755); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(yaml, "names.csv") { // lines that no index tells apart
		var names strings.Builder
		for i := range 60000 {
			fmt.Fprintf(&names, "p, @anyone, /{a}/f%d/{b}, read, allow\n", i)
		}
		writeFile(t, filepath.Join(dir, "names.csv"), names.String())
		writeFile(t, filepath.Join(dir, "names.conf"), strings.Replace(builtInModel(t), "globMatch(r.obj, p.obj)", "keyMatch4(r.obj, p.obj)", 1))
	}
	yaml = strings.NewReplacer("%H", strings.TrimPrefix(encrypted.URL, "https://"), "%D", dir, "%A", plain.URL, "%T", encrypted.URL).Replace(yaml)
	for key, value := range map[string]string{"listen": "unix:" + dir + "/n.sock", "admin": "unix:" + dir + "/a.sock", "shutdown_delay": "1ms"} {
		if !strings.Contains("\n"+yaml, "\n"+key+":") {
			yaml += "\n" + key + ": " + value
		}
	}
	writeFile(t, k.file, yaml+"\n")
	return k
}

// open makes the parts of its configuration.
func (k *keyTest) open() (*cli.Parts, error) {
	c, err := config.Load(k.file, nil)
	if err != nil {
		return nil, err
	}
	return open(c, cli.Env{}.Lookup, slog.New(slog.DiscardHandler))
}

// page is what is shown in the place of a target.
func (k *keyTest) page(target string) string { return k.from("/page", target) }

// from is what comes of a target there.
func (k *keyTest) from(there, target string) string {
	k.t.Helper()
	r, err := http.NewRequestWithContext(k.t.Context(), http.MethodGet, "http://securefiles"+there, nil)
	if err != nil {
		k.t.Fatal(err)
	}
	r.Header.Set("X-Original-URI", target)
	r.Header.Set("X-Original-Method", http.MethodGet)
	resp, err := k.overUnix("listen", r)
	if err != nil {
		return "no answer: " + err.Error()
	}
	defer resp.Body.Close() //nolint:errcheck // it is read
	body, err := io.ReadAll(resp.Body)
	return fmt.Sprint(resp.StatusCode, " ", string(body), err)
}

func builtInModel(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("policy/internal/model/default_model.conf")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// A page tells how long a file is, and of nothing else than regular files below the root.
func TestSizesAreOfRegularFilesBelowTheRoot(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"root/a.txt": "12345", "root/sub/b.txt": "", "beside.txt": "1"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, to := range map[string]string{"root/link.txt": "a.txt", "root/out": ".."} {
		if err := os.Symlink(to, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	size := sizes([]config.Download{{Name: "main", Root: filepath.Join(dir, "root")}, {Name: "away", Root: filepath.Join(dir, "none")}})
	for _, row := range []struct {
		download, path string
		want           int64
	}{
		{"main", "/a.txt", 5}, {"main", "/sub/b.txt", 0}, {"main", "/none.txt", -1}, {"main", "/sub", -1}, {"main", "/link.txt", -1}, {"main", "/out/beside.txt", -1},
		{"main", "/../beside.txt", -1}, {"away", "/a.txt", -1}, {"other", "/a.txt", -1},
	} {
		got, ok := size(row.download, row.path)
		if ok != (row.want >= 0) || ok && got != row.want {
			t.Errorf("%s of %s: %d, %t", row.path, row.download, got, ok)
		}
	}
}

// linkKeys is a file of one key.
const linkKeys = `{"keys":[{"kty":"oct","kid":"k","k":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}]}`

// link returns a link of alice's to /a/f that lasts for two hours, for so many uses.
func (k *keyTest) link(uses int) string {
	k.t.Helper()
	keys, err := link.NewKeys(filepath.Join(k.dir, "link-keys.json"))
	if err == nil {
		err = keys.Reload(k.t.Context())
	}
	if err != nil {
		k.t.Fatal(err)
	}
	now := time.Now()
	token, err := keys.Sign("", &link.Claims{ID: "l", Subject: "alice", Download: "main", Path: "/a/f", Issued: now, Expires: now.Add(2 * time.Hour), Uses: uses})
	if err != nil {
		k.t.Fatal(err)
	}
	return "/downloads/a/f?link=" + token
}

func jwksOf(key ed25519.PrivateKey) string {
	return fmt.Sprintf(`{"keys":[{"kty":"OKP","crv":"Ed25519","alg":"EdDSA","use":"sig","x":%q}]}`, base64.RawURLEncoding.EncodeToString(key.Public().(ed25519.PublicKey)))
}

// token returns a token of alice's with other claims besides.
func (k *keyTest) token(claims string) string {
	all := map[string]any{"iss": "app", "aud": "files", "sub": "alice", "exp": time.Now().Unix() + 60}
	if err := json.Unmarshal([]byte(claims), &all); err != nil {
		k.t.Fatal(err)
	}
	payload, err := json.Marshal(all)
	if err != nil {
		k.t.Fatal(err)
	}
	input := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"EdDSA"}`)) + "." + base64.RawURLEncoding.EncodeToString(payload)
	return input + "." + base64.RawURLEncoding.EncodeToString(ed25519.Sign(k.key, []byte(input)))
}

// certificate returns a client's certificate as nginx sends it.
func (k *keyTest) certificate() string {
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "alice", OrganizationalUnit: []string{"staff"}},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		EmailAddresses: []string{"alice@example.org"}, DNSNames: []string{"host.example"},
	}, &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "ca"}}, k.key.Public(), k.key)
	if err != nil {
		k.t.Fatal(err)
	}
	return url.PathEscape(string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
}

// reached waits until the application is asked.
func (k *keyTest) reached() {
	k.t.Helper()
	select {
	case <-k.called:
	case <-time.After(60 * time.Second):
		k.t.Fatal("the application was not asked")
	}
}

// answer is the application: it tells who has a cookie, and its issuer's keys.
func (k *keyTest) answer(w http.ResponseWriter, r *http.Request) {
	k.calls.Add(1)
	k.called <- struct{}{}
	if k.hold != nil {
		<-k.hold
	}
	if strings.HasPrefix(r.URL.Path, "/slow/") {
		time.Sleep(200 * time.Millisecond) // the application is slow: that is what is tested
	}
	subject := strings.TrimPrefix(r.Header.Get("Authorization"), "Token ")
	for _, name := range []string{"id", "other"} {
		if c, err := r.Cookie(name); err == nil {
			subject = c.Value
		}
	}
	switch {
	case strings.HasSuffix(r.URL.Path, "/keys"):
		_, _ = io.WriteString(w, jwksOf(k.key)) // whoever asks sees that it is cut
		return
	case r.URL.Path == "/none":
		http.NotFound(w, r)
		return
	case r.URL.Path == "/zoe":
		subject = "zoe"
	case r.Header.Get("X-As") != "":
		subject = r.Header.Get("X-As")
	case subject == "refused":
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Is", "of-a-header")
	w.Header().Set("X-In", "staff")
	_ = json.NewEncoder(w).Encode(map[string]any{"subject": subject, "groups": []string{}, "user": map[string]any{"name": "of-a-path", "teams": []string{"staff"}}})
}

// start starts the service and waits until it serves, or does not.
func (k *keyTest) start() *keyTest {
	ctx, cancel := context.WithCancel(k.t.Context())
	k.cancel, k.ended = cancel, make(chan int, 1)
	k.log = new(syncedBuffer)
	go func() {
		k.ended <- cli.Main(ctx, []string{"serve", "--config", k.file}, cli.Env{Stdout: io.Discard, Stderr: k.log}, cli.Program{Open: open, Serve: serve})
	}()
	deadline := time.Now().Add(60 * time.Second)
	for !strings.HasPrefix(k.admin(http.MethodGet, "/healthz"), "200") {
		select {
		case status := <-k.ended:
			k.failed = fmt.Sprintf("error: status %d: %s", status, k.log.String())
			k.ended <- status
			return k
		default:
		}
		if time.Now().After(deadline) {
			k.t.Fatalf("it does not serve: %s", k.log.String())
		}
	}
	return k
}

// stop stops it, and returns its exit status.
func (k *keyTest) stop() int {
	if k.cancel == nil {
		return 0
	}
	k.cancel()
	k.cancel = nil
	return <-k.ended
}

// A syncedBuffer may be read while it is written.
type syncedBuffer struct {
	mu   sync.Mutex
	text strings.Builder
}

func (b *syncedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *syncedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// overUnix asks over a unix socket of the configuration.
func (k *keyTest) overUnix(key string, r *http.Request) (*http.Response, error) {
	c, err := config.Load(k.file, nil)
	if err != nil {
		return nil, err
	}
	address := map[string]string{"listen": c.Listen, "admin": c.Admin}[key]
	transport := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", strings.TrimPrefix(address, config.UnixPrefix))
	}}
	return transport.RoundTrip(r)
}

// ask puts nginx's question, and returns what nginx learns.
func (k *keyTest) ask(target string, lines ...string) string {
	if k.failed != "" {
		return k.failed
	}
	r, err := http.NewRequestWithContext(k.t.Context(), http.MethodGet, "http://securefiles/authorize", nil)
	if err != nil {
		k.t.Fatal(err)
	}
	r.Header.Set("X-Original-URI", target)
	r.Header.Set("X-Original-Method", http.MethodGet)
	for _, line := range lines {
		name, value, _ := strings.Cut(line, ": ")
		r.Header.Add(name, value)
	}
	resp, err := k.overUnix("listen", r)
	if err != nil {
		return "no answer: " + err.Error()
	}
	defer resp.Body.Close() //nolint:errcheck // it has none
	out := fmt.Sprintf("%d %s", resp.StatusCode, resp.Header.Get("X-Securefiles-Reason"))
	for _, name := range []string{"Location", "WWW-Authenticate", "X-Securefiles-Location", "X-Securefiles-Upstream", "X-Securefiles-User", "X-Securefiles-Disposition", "X-Securefiles-Cache-Control", "X-Securefiles-Csp",
		"Referrer-Policy", "X-Securefiles-Proof", "X-Securefiles-Limit-Rate"} {
		if value := resp.Header.Get(name); value != "" {
			out += " " + name + "=" + value
		}
	}
	return out
}

// admin asks the admin listener.
func (k *keyTest) admin(method, path string) string {
	r, err := http.NewRequestWithContext(k.t.Context(), method, "http://securefiles"+path, nil)
	if err != nil {
		k.t.Fatal(err)
	}
	resp, err := k.overUnix("admin", r)
	if err != nil {
		return "no answer: " + err.Error()
	}
	defer resp.Body.Close() //nolint:errcheck // it has been read
	body, err := io.ReadAll(resp.Body)
	return fmt.Sprint(resp.StatusCode, " ", string(body), err)
}

// What is served with a warning is told when it is loaded, but for what a comment
// takes back.
func TestWarningsOfAPolicyAreLogged(t *testing.T) {
	file := filepath.Join(t.TempDir(), "policy.csv")
	for text, want := range map[string]string{
		"p, editor, /docs/**, read, allow\ng, alice, editor\n":                                                    "",
		"p, editor, /docs/**, read, allow\ng, alice, chief\n":                                                     "policy.csv:2: warning: no line uses the role",
		"p, editor, /docs/**, read, allow\n# securefiles:ignore role-unused: until the launch\ng, alice, chief\n": "",
	} {
		writeFile(t, file, text)
		store, err := policy.Open(t.Context(), policy.Files{Policy: file}, nil)
		if err != nil {
			t.Fatal(err)
		}
		var log bytes.Buffer
		warnOfPolicy(slog.New(slog.NewTextHandler(&log, nil)), store)
		if got := log.String(); want == "" && got != "" || !strings.Contains(got, want) {
			t.Errorf("%q: %q", text, got)
		}
	}
}

// A request is answered by one configuration as a whole, however often they change: who
// one of them knows, and the other lets in, gets nothing.
func TestNoRequestMixesConfigurations(t *testing.T) {
	const one, other = "policy: {file: one.csv}\nidentity: [{header: X-One}]\n", "policy: {file: other.csv}\nidentity: [{header: X-Other}]\n"
	k := newKeyTest(t, one)
	writeFile(t, filepath.Join(k.dir, "one.csv"), "p, alice, /a/**, read, allow\n")
	writeFile(t, filepath.Join(k.dir, "other.csv"), "p, bob, /b/**, read, allow\n")
	rest, err := os.ReadFile(k.file)
	if err != nil {
		t.Fatal(err)
	}
	k.start()
	defer k.stop()
	end := make(chan struct{})
	var askers sync.WaitGroup
	var allowed [2]atomic.Int64
	for range 4 {
		askers.Go(func() {
			for {
				select {
				case <-end:
					return
				default:
				}
				for _, mixed := range []string{k.ask("/downloads/b/x", "X-One: bob"), k.ask("/downloads/a/x", "X-Other: alice")} {
					if !strings.HasPrefix(mixed, "404") && !strings.HasPrefix(mixed, "401") {
						t.Errorf("a mix of both: %s", mixed)
					}
				}
				for i, pure := range []string{k.ask("/downloads/a/x", "X-One: alice"), k.ask("/downloads/b/x", "X-Other: bob")} {
					if strings.HasPrefix(pure, "204") {
						allowed[i].Add(1)
					} else if !strings.HasPrefix(pure, "401") {
						t.Errorf("neither: %s", pure)
					}
				}
			}
		})
	}
	for i := range 20 {
		text := strings.Replace(string(rest), one, other, 1-i%2)
		if err := os.Rename(writeFile(t, k.file+".new", text), k.file); err != nil {
			t.Fatal(err)
		}
		want, before := fmt.Sprintf(`{"name":"configuration","generation":%d,`, i+2), [2]int64{allowed[0].Load(), allowed[1].Load()}
		for deadline := time.Now().Add(time.Minute); !strings.Contains(k.admin(http.MethodGet, "/readyz"), want) || allowed[1-i%2].Load() == before[1-i%2]; {
			if time.Now().After(deadline) {
				t.Fatalf("%s never came, or lets nobody in: %s\n%s", want, k.admin(http.MethodGet, "/readyz"), k.log)
			}
		}
	}
	close(end)
	askers.Wait()
}

// The log's level is what the configuration says now, and the admin token too.
func TestLevelAndTokenFollowTheConfiguration(t *testing.T) {
	k := newKeyTest(t, "identity: [{header: X-User}]\nlog: {level: error}\n")
	k.start()
	defer k.stop()
	k.ask("/downloads/public/x")
	if log := k.log.String(); log != "" {
		t.Errorf("at level error: %s", log)
	}
	if got := k.admin(http.MethodPost, "/whoami"); !strings.HasPrefix(got, "404") {
		t.Errorf("without a token: %s", got)
	}
	text, err := os.ReadFile(k.file)
	if err != nil {
		t.Fatal(err)
	}
	next := strings.Replace(string(text), "level: error", "level: debug", 1) + "admin_token_file: secret\n"
	if err := os.Rename(writeFile(t, k.file+".new", next), k.file); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(time.Minute); !strings.HasPrefix(k.admin(http.MethodPost, "/whoami"), "401"); {
		if time.Now().After(deadline) {
			t.Fatalf("there is no token: %s", k.log)
		}
	}
	k.ask("/downloads/public/x")
	if log := k.log.String(); !strings.Contains(log, "level=DEBUG msg=decision") {
		t.Errorf("at level debug: %s", log)
	}
}

// A fakeRedis refuses whatever it is told, and remembers it.
type fakeRedis struct {
	address string
	heard   syncedBuffer
}

func newFakeRedis(t *testing.T) *fakeRedis {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	f := &fakeRedis{address: l.Addr().String()}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return // the test is over
			}
			go func() {
				defer conn.Close() //nolint:errcheck // nobody waits for it
				told := make([]byte, 64<<10)
				for {
					n, err := conn.Read(told)
					_, _ = f.heard.Write(told[:n]) // it never fails
					if err != nil {
						return
					}
					if _, err := conn.Write([]byte("-ERR not here\r\n")); err != nil {
						return
					}
				}
			}()
		}
	}()
	return f
}

// told is what it is told by a service that starts, and what it was told before.
func (f *fakeRedis) told(k *keyTest) string {
	before := len(f.heard.String())
	k.start().ask("/downloads/a/f")
	return f.heard.String()[before:] + k.failed
}

// Nobody tells what a client got that was sent to a store: what limits had reserved for it
// is given back when it is answered.
func TestAClientThatIsSentToAStoreHoldsNothingOfLimits(t *testing.T) {
	limits, err := limit.New([]limit.Limit{{Name: "places", Per: "subject", Downloads: 1}, {Name: "day", Per: "subject", Bytes: "1MiB/24h"}, {Name: "few", Per: "subject", Requests: "2/24h"}}, []string{"main"})
	if err != nil {
		t.Fatal(err)
	}
	path, err := pathguard.New("/a.txt")
	if err != nil {
		t.Fatal(err)
	}
	s := &service{counters: metrics.New("", "", nil, nil, func() metrics.Policy { return metrics.Policy{} }), store: &states{store: state.NewMemory(nil)}, log: slog.New(slog.DiscardHandler)}
	ask := func(id, redirect string) error {
		out := &authz.Outcome{
			Question:  &authz.Question{ID: id, Method: "GET", Download: &authz.Download{Name: "main"}, Path: path, Action: authz.ActionRead},
			Principal: authz.Principal{Subject: "alice"}, Decision: authz.Decision{Effect: authz.Allow}, Reason: authz.ReasonPolicy,
		}
		if redirect != "" {
			out.Reason, out.Location.Redirect = authz.ReasonRedirect, redirect
		}
		err := limits.Late(s.store).Limit(t.Context(), out)
		if err == nil {
			s.observe(out, 0)
		}
		return err
	}
	for _, row := range []struct {
		id, redirect string
		refused      authz.Reason
	}{
		{"1", "https://store.example/a.txt?signed", ""},
		{"2", "https://store.example/a.txt?signed", ""}, // its place is free, and so are its bytes
		{"3", "", authz.ReasonRate},                     // it counted as a request
	} {
		var refused *authz.LimitError
		if err := ask(row.id, row.redirect); errors.As(err, &refused) != (row.refused != "") || refused != nil && refused.Reason != row.refused || err != nil && refused == nil {
			t.Errorf("request %s: %v", row.id, err)
		}
	}
}

// An interruptible store is one whose calls end with their context, as those over a network do.
type interruptible struct{ *state.Memory }

func (i interruptible) Settle(ctx context.Context, id string, bytes int64) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return i.Memory.Settle(ctx, id, bytes)
}

// What was delivered is told to the limits once, when it is recorded: while the service
// stops, too.
func TestLimitsLearnWhatWasDeliveredWhileTheServiceStops(t *testing.T) {
	store := interruptible{state.NewMemory(nil)}
	s := &service{counters: metrics.New("", "", nil, nil, func() metrics.Policy { return metrics.Policy{} }), store: &states{store: store}, log: slog.New(slog.DiscardHandler)}
	ctx, stop := context.WithCancel(t.Context())
	stop()
	place := []state.Charge{{Kind: state.Places, Key: "carol", Limit: 1, Cost: 1}}
	for _, id := range []string{"1", "2"} {
		if q, err := store.Reserve(t.Context(), id, place); err != nil || q[0].Over {
			t.Errorf("request %s: %+v, %v", id, q, err)
		}
		s.delivered(ctx, &audit.Record{Request: id, Delivery: audit.Complete, Status: 200})
	}
}

// Each way to ask on the listener is told of in docs/design.md.
func TestDocumentedRoutesAreTheOnesThereAre(t *testing.T) {
	doc, err := os.ReadFile("docs/design.md")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	err = chi.Walk(guardRoutes(t, func() {}).(chi.Routes), func(method, route string, _ http.Handler, _ ...func(http.Handler) http.Handler) error {
		n++
		if route = strings.TrimSuffix(route, "/*"); !strings.Contains(string(doc), "`"+method+" "+route+"`") && !strings.HasPrefix(route, "/links") {
			t.Errorf("docs/design.md does not tell of %s %s", method, route)
		}
		return nil
	})
	if err != nil || n < 8 || !strings.Contains(string(doc), "`DELETE /links/{id}`") {
		t.Errorf("%d ways to ask, %v", n, err)
	}
}
