package doctor

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"securefiles/internal/servable"
	"securefiles/pathguard"
)

// A door is where a server takes requests.
type door struct {
	server  server
	address Address
	tls     bool
	proxied bool // it wants a line of the PROXY protocol before
	host    string
	from    string // the address to ask from, where nginx listens on one of its kind; empty for any
}

func (d door) String() string {
	scheme := "http"
	if d.tls {
		scheme = "https"
	}
	return fmt.Sprintf("%s://%s at %s", scheme, d.host, d.address.Address)
}

// doorOf is the door by which a server is asked: one with TLS before others.
func doorOf(s server) door {
	var best door
	for _, one := range doorsOf(s) {
		if best.address.Address == "" || one.tls && !best.tls {
			best = one
		}
	}
	best.host = "localhost"
	for _, n := range named(s.in, "server_name") {
		for _, name := range n.args {
			if name != "" && name != "_" && !strings.ContainsAny(name, "*~$") && !strings.HasPrefix(name, ".") {
				best.host = name
				return best
			}
		}
	}
	return best
}

// doorsOf are all doors of a server, of no host.
func doorsOf(s server) []door {
	var all []door
	listens := named(s.in, "listen")
	if len(listens) == 0 {
		listens = []directive{{name: "listen", args: []string{"80"}}}
	}
	for _, l := range listens {
		if len(l.args) == 0 || slices.Contains(l.args, "quic") {
			continue
		}
		all = append(all, door{server: s, address: listenAddress(l.args[0]), tls: slices.Contains(l.args, "ssl") || slices.ContainsFunc(s.in, func(d directive) bool { return d.is("ssl", "on") }), proxied: slices.Contains(l.args, "proxy_protocol")})
	}
	return all
}

// listenAddress is where to connect to what listen names.
func listenAddress(text string) Address {
	if file, ok := strings.CutPrefix(text, "unix:"); ok {
		return Address{"unix", file}
	}
	if !strings.Contains(text, ":") && strings.Trim(text, "0123456789") == "" {
		text = ":" + text
	} else if _, _, err := net.SplitHostPort(text); err != nil {
		text = net.JoinHostPort(strings.Trim(text, "[]"), "80")
	}
	host, port, _ := net.SplitHostPort(text)
	switch host {
	case "", "*", "0.0.0.0":
		host = "127.0.0.1"
	case "::":
		host = "::1"
	}
	return Address{"tcp", net.JoinHostPort(host, port)}
}

// An answer is what came back.
type answer struct {
	status int
	header http.Header
	body   []byte
	until  time.Time // that the certificate is good for; zero without one
}

// maxBody is how much of an answer is read, in bytes.
const maxBody = 1 << 20

// ask sends one request through nginx.
func (p *patient) ask(ctx context.Context, d door, target string, headers ...string) (*answer, error) {
	p.asked++
	ctx, stop := context.WithTimeout(ctx, patience)
	defer stop()
	conn, err := dialFrom(ctx, d.from, d.address)
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close() }() // one request a connection
	deadline, _ := ctx.Deadline()
	_ = conn.SetDeadline(deadline) // or it takes as long as it takes
	if d.proxied {
		if _, err := io.WriteString(conn, "PROXY TCP4 127.0.0.1 127.0.0.1 1 1\r\n"); err != nil {
			return nil, err
		}
	}
	var until time.Time
	if d.tls {
		// Whose certificate it is makes no difference: nothing is told that nginx does not
		// know, but for a password that the operator gives for this very nginx.
		secured := tls.Client(conn, &tls.Config{ServerName: d.host, InsecureSkipVerify: true})
		if err := secured.HandshakeContext(ctx); err != nil {
			return nil, err
		}
		conn = secured
		until = secured.ConnectionState().PeerCertificates[0].NotAfter
	}
	if _, err := fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: securefiles-doctor\r\nConnection: close\r\n%s\r\n", target, d.host, lines(headers)); err != nil {
		return nil, err
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close() // its connection is closed
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxBody))
	if err != nil {
		return nil, fmt.Errorf("the answer %d was cut short: %w", resp.StatusCode, err)
	}
	p.lastID = resp.Header.Get("X-Request-Id")
	return &answer{resp.StatusCode, resp.Header, body, until}, nil
}

func lines(headers []string) string {
	var b strings.Builder
	for _, h := range headers {
		b.WriteString(h + "\r\n")
	}
	return b.String()
}

// credentials are the headers of the one who asks.
func (p *patient) credentials() []string {
	if p.opts.User == "" {
		return nil
	}
	return []string{"Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(p.opts.User+":"+p.opts.Password))}
}

// A candidate is a file that can be asked for.
type candidate struct {
	download Download
	path     pathguard.Path
	file     string
}

func (c candidate) url() string { return c.path.URL(c.download.URL) }

// Bounds of the search for files to ask for.
const (
	maxLooked = 5000
	maxTried  = 500
)

// candidates finds a file that the caller may have and one that not, of those that nginx
// can serve.
func (p *patient) candidates(ctx context.Context, d Download) (allowed, refused *candidate) {
	looked, tried := 0, 0
	_ = filepath.WalkDir(d.Root, func(file string, entry fs.DirEntry, err error) error {
		if looked++; looked > maxLooked || ctx.Err() != nil {
			return fs.SkipAll
		}
		if err != nil || !entry.Type().IsRegular() {
			return nil
		}
		rel, err := filepath.Rel(d.Root, file)
		if err != nil {
			return nil
		}
		at, err := pathguard.New("/" + rel)
		if err != nil || p.user != nil && servable.File(d.Root, rel, &servable.Options{User: *p.user, FollowSymlinks: d.FollowSymlinks}) != "" {
			return nil
		}
		if tried++; tried > maxTried {
			return fs.SkipAll
		}
		may, err := p.Allows(ctx, p.opts.Caller, d.Name, at.URL(d.URL))
		if err != nil {
			return nil
		}
		one := &candidate{d, at, file}
		if may && allowed == nil {
			allowed = one
		} else if !may && refused == nil {
			refused = one
		}
		if allowed != nil && refused != nil {
			return fs.SkipAll
		}
		return nil
	})
	return allowed, refused
}

// probe asks through nginx.
func (p *patient) probe(ctx context.Context) []Finding {
	var all list
	guards := p.guards()
	if len(guards) == 0 || p.Allows == nil {
		return nil
	}
	if p.sick("root", "service", "socket", "nginx", "snippet", "directives") {
		all.add(Unseen, "nothing was asked through nginx, for what stands above", "")
		return all
	}
	d := doorOf(guards[0])
	log := p.watch(p.errorLog(d.server))
	for _, one := range p.Downloads {
		found, stop := p.probeDownload(ctx, d, one, log)
		all = append(all, found...)
		if stop {
			return all
		}
	}
	all = append(all, p.byTheOtherFamily(ctx, d)...)
	for _, target := range []string{question, pages} {
		got, err := p.ask(ctx, d, target)
		if err == nil && got.status != http.StatusNotFound {
			all.add(Error, fmt.Sprintf("%s is answered from outside: %d, and should be 404", target, got.status), p.printAgain())
		}
	}
	return all
}

// probeDownload asks for files of one download. It says whether there is no use to go on.
func (p *patient) probeDownload(ctx context.Context, d door, one Download, log *tail) (all list, stop bool) {
	if one.Root == "" {
		all.add(Unseen, fmt.Sprintf("the files of download %s are in a store, where none was looked for", one.Name), "securefiles check --online asks it")
		return all, false
	}
	allowed, refused := p.candidates(ctx, one)
	some := allowed
	if some == nil {
		some = refused
	}
	if some == nil {
		all.add(Unseen, fmt.Sprintf("there is no file in %s to ask for", one.Root), "put one there, and run this again")
		return all, false
	}
	if allowed != nil {
		got, err := p.ask(ctx, d, allowed.url(), p.credentials()...)
		if err != nil {
			all.add(Error, fmt.Sprintf("nginx cannot be asked: %s: %v", d, err), "the configuration says that it listens there: systemctl restart nginx")
			return all, true
		}
		all = append(all, p.served(ctx, d, allowed, got, log)...)
	} else {
		p.see("no file of download %s is allowed to %s: whether one is served was not tried", one.Name, p.opts.Caller.Subject)
	}
	if refused != nil {
		all = append(all, p.refusedAs(ctx, d, refused)...)
	}
	got, err := p.ask(ctx, d, some.path.Location(one.Internal))
	if err == nil && got.status != http.StatusNotFound {
		all.add(Error, fmt.Sprintf("%s is answered from outside: %d, and should be 404", one.Internal, got.status), p.printAgain())
	}
	for _, w := range p.otherWays(*some) {
		if got, err := p.ask(ctx, w.door, w.target); err == nil && got.status == http.StatusOK && p.isFile(some.file, got.body) {
			all.add(Error, fmt.Sprintf("anybody gets the files of download %s as %s, without the service being asked: %s", one.Name, w.target, w.by.place()), "move the files out of that directory, or take the location away")
		}
	}
	return all, false
}

// twin is the door at the same port of the other of IPv4 and IPv6, and whether the server of
// d listens there. It is nil where nobody does.
func (p *patient) twin(d door) (there *door, own bool) {
	host, port, _ := net.SplitHostPort(d.address.Address)
	other := map[string]string{"127.0.0.1": "::1", "::1": "127.0.0.1"}[host]
	if d.address.Network != "tcp" || other == "" {
		return nil, false
	}
	for _, s := range p.nginx.servers {
		for _, one := range doorsOf(s) {
			if one.address != (Address{"tcp", net.JoinHostPort(other, port)}) {
				continue
			}
			one.host = d.host
			if s.place() == d.server.place() {
				return &one, true
			}
			if there == nil {
				there = &one
			}
		}
	}
	return there, false
}

// byTheOtherFamily asks by IPv6 where nginx was asked by IPv4, and the other way round, where
// nginx listens: names such as localhost have addresses of both.
func (p *patient) byTheOtherFamily(ctx context.Context, d door) list {
	var all list
	there, own := p.twin(d)
	if there == nil {
		return nil
	}
	target := p.Downloads[0].URL
	here, err := p.ask(ctx, d, target)
	if err != nil {
		return nil // it was told of
	}
	got, err := p.ask(ctx, *there, target)
	switch {
	case err != nil:
		all.add(Warning, fmt.Sprintf("nginx cannot be asked: %s: %v", there, err), "the configuration says that it listens there: systemctl restart nginx")
	case !own:
		_, port, _ := net.SplitHostPort(there.address.Address)
		listen := port
		if strings.HasPrefix(there.address.Address, "[") {
			listen = "[::]:" + port
		}
		all.add(Warning, fmt.Sprintf("whoever comes by %s gets another server, that at %s: %s is answered %d there, and %d at %s", there.address.Address, there.server.place(), target, got.status, here.status, d.address.Address), fmt.Sprintf("`listen %s;` in the server at %s, or take the other one out (Debian's is /etc/nginx/sites-enabled/default)", listen, d.server.place()))
	case got.status != here.status && p.keptOut(d, got.status) == "" && p.keptOut(d, here.status) == "":
		all.add(Warning, fmt.Sprintf("%s is answered %d at %s, and %d at %s, by one server", target, got.status, there.address.Address, here.status, d.address.Address), "look at what in it depends on addresses")
	}
	return all
}

// isFile reports whether a body is what a file holds, or its beginning.
func (p *patient) isFile(file string, body []byte) bool {
	f, err := os.Open(file)
	if err != nil {
		return true // nobody can tell
	}
	defer f.Close() // read-only
	text, err := io.ReadAll(io.LimitReader(f, maxBody))
	return err != nil || bytes.Equal(text, body)
}

// served looks at the answer for a file that the caller may have.
func (p *patient) served(ctx context.Context, d door, c *candidate, got *answer, log *tail) list {
	var all list
	p.see("%s as %s through %s: %d", c.url(), p.opts.Caller.Subject, d, got.status)
	if !got.until.IsZero() && time.Now().After(got.until) {
		all.add(Error, fmt.Sprintf("the certificate of %s has expired, on %s", d, got.until.UTC().Format(time.DateOnly)), "renew it, and reload nginx")
	}
	if got.status != http.StatusOK {
		if why := p.keptOut(d, got.status); why != "" {
			all.add(Unseen, fmt.Sprintf("whether %s is served cannot be tried: %s", c.url(), why), "try it as somebody who may, with --user")
			return all
		}
		lately := log.lately()
		if lately == "" && p.unasked(ctx, d, c) {
			all.add(Error, fmt.Sprintf("%s may have %s, and nginx answers %d without asking the service", p.opts.Caller.Subject, c.url(), got.status), p.suspects(d))
			return all
		}
		all.add(Error, fmt.Sprintf("%s may have %s, and nginx answers %d%s", p.opts.Caller.Subject, c.url(), got.status, lately), meaning(got.status, lately))
		return all
	}
	switch {
	case !p.isFile(c.file, got.body):
		all.add(Error, fmt.Sprintf("what nginx serves as %s is not what %s holds", c.url(), c.file), "something in nginx changes bytes, or serves another directory: look at the filters in server { } and http { }")
	case got.header.Get("Content-Security-Policy") == "" || got.header.Get("X-Content-Type-Options") != "nosniff":
		all.add(Error, fmt.Sprintf("%s comes without the headers that protect a browser from it", c.url()), p.printAgain())
	}
	return all
}

// unasked asks once more, and reports whether the service was not asked, as far as it
// counts.
func (p *patient) unasked(ctx context.Context, d door, c *candidate) bool {
	before, ok := p.decided(ctx)
	if !ok {
		return false
	}
	if _, err := p.ask(ctx, d, c.url(), p.credentials()...); err != nil {
		return false
	}
	after, ok := p.decided(ctx)
	return ok && before == after
}

// decided is what the service counts of its decisions, as it writes it.
func (p *patient) decided(ctx context.Context) (string, bool) {
	_, body, err := get(ctx, p.Admin, "/metrics")
	if err != nil {
		return "", false
	}
	var b strings.Builder
	for line := range strings.Lines(string(body)) {
		if strings.HasPrefix(line, "securefiles_decisions_total") {
			b.WriteString(line)
		}
	}
	return b.String(), b.Len() > 0
}

// suspects are what in a server may answer before a location does.
func (p *patient) suspects(d door) string {
	var all []string
	for _, one := range d.server.in {
		if one.name == "if" {
			all = append(all, fmt.Sprintf("%s at %s", short(one.text()), one.place()))
		}
	}
	if len(all) == 0 {
		return "something in this server answers before a location is looked for"
	}
	return "look at " + strings.Join(all, ", ")
}

// keptOut says why an answer is not the service's: the server itself lets only some in.
func (p *patient) keptOut(d door, status int) string {
	for _, row := range []struct {
		name   string
		status []int
	}{
		{"limit_req", []int{http.StatusServiceUnavailable, http.StatusTooManyRequests}}, {"limit_conn", []int{http.StatusServiceUnavailable, http.StatusTooManyRequests}},
		{"auth_basic", []int{http.StatusUnauthorized}}, {"deny", []int{http.StatusForbidden}}, {"ssl_verify_client", []int{http.StatusBadRequest}},
	} {
		if in := d.server.inherited(row.name); len(in) > 0 && !in[0].is(row.name, "off") && slices.Contains(row.status, status) {
			return fmt.Sprintf("%s at %s", in[0].text(), in[0].place())
		}
	}
	return ""
}

// meaning says what a status, and what nginx told its log, means for a file that the policy
// allows.
func meaning(status int, told string) string {
	switch {
	case strings.Contains(told, "(13: Permission denied)"):
		return "where owners and modes are right, look at SELinux (ausearch -m avc -ts recent), AppArmor, and what nginx's unit hides"
	case strings.Contains(told, "(2: No such file or directory)"):
		return "nginx looks there: is it the root that is meant, and does nginx see the same directory?"
	}
	switch status {
	case http.StatusNotFound:
		return "nginx found no file that it may serve, or the service's policy is another than the file's: docs/troubleshooting.md"
	case http.StatusServiceUnavailable, http.StatusBadGateway, http.StatusGatewayTimeout:
		return "nginx does not get an answer of the service: see whether nginx may connect, and whether SELinux lets it (setsebool httpd_can_network_connect)"
	case http.StatusInternalServerError:
		return "nginx cannot go where the service sends it: its error log says why"
	case http.StatusMovedPermanently, http.StatusFound, http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
		return "something in this server redirects before the service is asked"
	case http.StatusUnauthorized, http.StatusForbidden:
		return "the service asks for credentials, or the policy that it serves is another than the file's"
	}
	return "docs/troubleshooting.md tells of it by status"
}

// refusedAs looks at the answers for a file that the caller may not have, with and without
// headers in which a client says who it is.
func (p *patient) refusedAs(ctx context.Context, d door, c *candidate) list {
	var all list
	got, err := p.ask(ctx, d, c.url(), p.credentials()...)
	if err != nil {
		all.add(Error, fmt.Sprintf("nginx cannot be asked: %s: %v", d, err), "the configuration says that it listens there: systemctl restart nginx")
		return all
	}
	p.see("%s as %s through %s: %d", c.url(), p.opts.Caller.Subject, d, got.status)
	if got.status == http.StatusOK {
		all.add(Error, fmt.Sprintf("%s may not have %s, and gets it", p.opts.Caller.Subject, c.url()), "the service serves another policy than the file's, or is not asked: look at /readyz, and at nginx -T")
		return all
	}
	if got.status >= http.StatusInternalServerError && p.keptOut(d, got.status) == "" {
		all.add(Error, fmt.Sprintf("%s is refused with %d, which is no answer of the policy", c.url(), got.status), meaning(got.status, ""))
		return all
	}
	names := []string{"X-Remote-User", "Remote-User", "X-Forwarded-User", "X-User"}
	for _, name := range append(slices.Clone(p.Vouched), p.read()...) {
		if !slices.ContainsFunc(names, func(other string) bool { return strings.EqualFold(name, other) }) {
			names = append(names, name)
		}
	}
	holder := "root"
	if p.Holder != nil {
		if name := p.Holder(ctx, c.download.Name, c.url()); name != "" {
			holder = name
		}
	}
	spoofed := p.credentials()
	for _, name := range names {
		spoofed = append(spoofed, name+": "+holder)
	}
	spoofed = append(spoofed, "X-Securefiles-Location: "+c.path.Location(c.download.Internal), "X-Original-URI: /", "X-Accel-Redirect: "+c.path.Location(c.download.Internal))
	d.from = stranger
	if other, err := p.ask(ctx, d, c.url(), spoofed...); err == nil && other.status != got.status && p.keptOut(d, other.status) == "" {
		all.add(Error, fmt.Sprintf("nginx believes a client that says who it is: %s is answered %d, and %d with headers such as %s: %s", c.url(), got.status, other.status, names[0], holder), "the variables of nginx_value must not come from the request: clear such headers before, or take them from one address alone (docs/identity.md)")
	}
	return all
}

// read are the request headers that maps of nginx make something of.
func (p *patient) read() []string {
	var names []string
	for _, d := range slices.Concat(p.nginx.http(), p.inServers()) {
		if d.name != "map" && d.name != "set" {
			continue
		}
		for _, m := range fromRequest.FindAllStringSubmatch(d.text(), -1) {
			name := http.CanonicalHeaderKey(strings.ReplaceAll(m[1], "_", "-"))
			if !slices.Contains([]string{"Host", "Origin", "Range", "Cookie", "Authorization", "Connection", "Upgrade"}, name) && !strings.HasPrefix(name, "Sec-") {
				names = append(names, name)
			}
		}
	}
	return names
}

var fromRequest = regexp.MustCompile(`\$http_([a-z0-9_]+)`)

// stranger is an address of this machine that no gateway has, so that nobody believes what
// comes from there.
const stranger = "127.29.31.37"

// A way is another address of a file.
type way struct {
	door   door
	target string
	by     directive
}

// otherWays are addresses at which some server may serve the same file, asking nobody.
func (p *patient) otherWays(c candidate) []way {
	var all []way
	for _, s := range p.nginx.servers {
		d := doorOf(s)
		try := func(dir, prefix string, alias bool, by directive) {
			if rel, err := filepath.Rel(p.prefixed(dir), c.file); err == nil && !strings.HasPrefix(rel, "../") && rel != ".." {
				at, err := pathguard.New("/" + rel)
				if err != nil {
					return
				}
				target := at.URL("/")
				if alias {
					target = at.URL(strings.TrimSuffix(prefix, "/") + "/")
				}
				all = append(all, way{d, target, by})
			}
		}
		for _, r := range s.inherited("root") {
			if len(r.args) == 1 {
				try(r.args[0], "/", false, r)
			}
		}
		var locations func([]directive)
		locations = func(block []directive) {
			for _, l := range flat(block) {
				if l.name != "location" || len(l.args) == 0 || l.is("location", "^~", c.download.Internal) {
					continue
				}
				prefix := l.args[len(l.args)-1]
				for _, r := range named(l.block, "root") {
					if len(r.args) == 1 && path.Clean(r.args[0]) != "/dev/null" {
						try(r.args[0], prefix, false, r)
					}
				}
				for _, a := range named(l.block, "alias") {
					if len(a.args) == 1 {
						try(a.args[0], prefix, true, a)
					}
				}
				locations(l.block)
			}
		}
		locations(s.in)
	}
	return all[:min(len(all), maxWays)]
}

// maxWays bounds how many other addresses of a file are tried.
const maxWays = 50

// A tail is what is added to a log.
type tail struct {
	file string
	at   int64
}

func (p *patient) watch(file string) *tail {
	t := &tail{file: file}
	if info, err := os.Stat(file); err == nil {
		t.at = info.Size()
	}
	return t
}

// lately is the last line that was added, for the end of a sentence.
func (t *tail) lately() string {
	if t.file == "" {
		return ""
	}
	for range 10 { // nginx writes it when it has answered
		if text := after(t.file, t.at); text != "" {
			return ": " + strings.TrimSpace(lastLine(text))
		}
		time.Sleep(10 * time.Millisecond)
	}
	return ""
}

// after is a log from a place on.
func after(file string, at int64) string {
	f, err := os.Open(file)
	if err != nil {
		return ""
	}
	defer f.Close() // read-only
	if _, err := f.Seek(at, io.SeekStart); err != nil {
		return ""
	}
	text, err := io.ReadAll(io.LimitReader(f, maxBody))
	if err != nil {
		return ""
	}
	return string(text)
}

func lastLine(text string) string {
	text = strings.TrimRight(text, "\n")
	return text[strings.LastIndexByte(text, '\n')+1:]
}
