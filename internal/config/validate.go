package config

import (
	"cmp"
	"errors"
	"maps"
	"net"
	"net/netip"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"securefiles/internal/loopback"
	"securefiles/internal/strictyaml"
)

// UnixPrefix marks a listen address that is the path of a unix socket.
const UnixPrefix = "unix:"

// Address returns where a listen address is, as net.Listen takes it.
func Address(listen string) (network, address string) {
	if path, ok := strings.CutPrefix(listen, UnixPrefix); ok {
		return "unix", path
	}
	return "tcp", listen
}

var (
	namePattern   = regexp.MustCompile(`^[a-z][a-z0-9_]{0,31}$`)
	prefixPattern = regexp.MustCompile(`^(?:/[A-Za-z0-9_.~-]+)+/$`)
	// rootPattern keeps what nginx.conf would read as syntax out of a
	// literal path.
	rootPattern = regexp.MustCompile(`^/[^\x00-\x20"'\\;{}$#]*$`)
	// fieldPattern is a header value without control bytes (RFC 9110,
	// section 5.5, ASCII only).
	fieldPattern = regexp.MustCompile(`^[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?$`)
	// originPattern is a serialized origin as browsers send it (RFC 6454, section 6.2).
	originPattern      = regexp.MustCompile(`^https?://(?:[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?|\[[0-9a-f:]+\])(?::[0-9]+)?$`)
	hostPattern        = regexp.MustCompile(`^[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?$`)
	socketPattern      = regexp.MustCompile(`^/[A-Za-z0-9_./-]+$`)
	redisPrefixPattern = regexp.MustCompile(`^[A-Za-z0-9.:_-]{1,64}$`)
	resolverPattern    = regexp.MustCompile(`^(?:[0-9]{1,3}(?:\.[0-9]{1,3}){3}|\[[0-9a-f:]+\])(?::[0-9]{1,5})?$`)
	accessPattern      = regexp.MustCompile(`^(?:off|(?:/|syslog:)[^\x00-\x1f"'\\;{}#$]*)$`)
)

// validate checks every value and names each problem.
func (c *Config) validate(doc *strictyaml.Document) error {
	v := &validator{doc: doc}
	v.listener("listen", c.Listen, c.ListenInsecure || c.ProxySecretFile != "", "listen_insecure: true, or a proxy_secret_file")
	v.listener("admin", c.Admin, c.AdminInsecure, "admin_insecure: true")
	if c.Listen == c.Admin && !isAnyPort(c.Listen) {
		v.add("admin", "is the same address as listen: metrics and health need a listener of their own")
	}
	if len(c.ListenPeerUIDs) > 0 && !strings.HasPrefix(c.Listen, UnixPrefix) {
		v.add("listen_peer_uids", "only a unix socket knows its peer's user: set listen to unix:/path")
	}
	for i, d := range c.Downloads {
		v.download(indexed("downloads", i), d)
		for j, other := range c.Downloads[:i] {
			v.distinct(indexed("downloads", i), d, indexed("downloads", j), other)
		}
	}
	v.nginx(c)
	v.oneOf("log.format", c.Log.Format, "text", "json")
	v.oneOf("log.level", c.Log.Level, "debug", "info", "warn", "error")
	if !(c.Policy.ShadowShare >= 0 && c.Policy.ShadowShare <= 1) {
		v.add("policy.shadow_share", "%g is out of range: 0 (none) to 1 (every decision)", c.Policy.ShadowShare)
	}
	if c.Policy.RoleDepth < 1 || c.Policy.RoleDepth > 100 {
		v.add("policy.role_depth", "%d is out of range: 1 to 100 roles", c.Policy.RoleDepth)
	}
	v.within("policy.decision_timeout", c.Policy.DecisionTimeout, time.Millisecond, 1500*time.Millisecond) // nginx waits 2 s
	for i, limit := range c.Limits {
		v.oneOf(indexed("limits", i)+".mode", limit.Mode, "enforce", "observe")
		v.limitOf(indexed("limits", i), limit, c.Downloads)
		if (limit.Bytes != "" || limit.Downloads != 0) && (c.Nginx.DeliveryLog == "" || c.Audit.File == "") {
			v.add(indexed("limits", i), "bytes and downloads at a time are known by what nginx reports, which the record of deliveries follows: set nginx.delivery_log and audit.file")
		}
	}
	v.within("links.max_ttl", c.Links.MaxTTL, time.Minute, 366*24*time.Hour)
	if c.Links.API && (c.Links.KeysFile == "" || c.State.File == "" && c.State.Redis == nil) {
		v.add("links.api", "needs links.keys_file, to make links with, and state.file or state.redis, which keeps whose they are: set both")
	}
	if c.Links.Site != "" {
		v.match("links.site", c.Links.Site, originPattern, "is not where a site is, such as https://files.example.org: scheme and host, nothing more")
	}
	v.state(&c.State)
	v.audit(c.Audit)
	for i, id := range c.Identity {
		v.identity(indexed("identity", i), id)
	}
	return errors.Join(v.problems...)
}

func indexed(name string, i int) string { return name + "[" + strconv.Itoa(i) + "]" }

type validator struct {
	doc      *strictyaml.Document
	problems []error
}

func (v *validator) add(path, format string, args ...any) {
	v.problems = append(v.problems, v.doc.At(path, format, args...))
}

func (v *validator) oneOf(path, value string, allowed ...string) {
	for _, a := range allowed {
		if value == a {
			return
		}
	}
	v.add(path, "%q is not one of %s", value, strings.Join(allowed, ", "))
}

func (v *validator) match(path, value string, pattern *regexp.Regexp, remedy string) {
	if !pattern.MatchString(value) {
		v.add(path, "%q %s", value, remedy)
	}
}

// listener accepts a unix socket, a loopback address, and others only where
// the operator said so.
func (v *validator) listener(path, address string, insecure bool, remedy string) {
	if socket, ok := strings.CutPrefix(address, UnixPrefix); ok {
		if !filepath.IsAbs(socket) || len(socket) > 107 {
			v.add(path, "%q: a unix socket needs an absolute path of at most 107 bytes", address)
		}
		return
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		v.add(path, "%q is neither HOST:PORT nor unix:/path", address)
		return
	}
	if n, err := strconv.Atoi(port); err != nil || n < 0 || n > 65535 {
		v.add(path, "%q: the port is not a number from 0 to 65535", address)
	}
	if loopback.IsName(host) {
		v.add(path, "%q can be two addresses, and whoever else listens on the other is asked too: write 127.0.0.1:%s or [::1]:%s", address, port, port)
		return
	}
	if _, err := netip.ParseAddr(host); err != nil && host != "" {
		v.add(path, "%q: write the address itself, such as 127.0.0.1: a name can be several", address)
		return
	}
	if !loopback.IsAddress(host) && !insecure {
		v.add(path, "%q can be reached from other hosts, which the service would trust as it trusts nginx: use 127.0.0.1 or unix:/path, or set %s", address, remedy)
	}
}

// isAnyPort reports whether an address is a free port of the system's choice,
// another one each time.
func isAnyPort(address string) bool {
	_, port, err := net.SplitHostPort(address)
	n, notNumber := strconv.Atoi(port)
	return err == nil && notNumber == nil && n == 0
}

func (v *validator) download(path string, d Download) {
	v.match(path+".name", d.Name, namePattern, "is not a name: a lower-case letter, then letters, digits and _, at most 32")
	v.match(path+".url", d.URL, prefixPattern, "is not a prefix: it begins and ends with / and holds letters, digits and -._~ between")
	v.match(path+".internal", d.Internal, prefixPattern, "is not a prefix: it begins and ends with / and holds letters, digits and -._~ between")
	if strings.Contains(d.URL, "/./") || strings.Contains(d.URL, "/../") || strings.Contains(d.Internal, "/./") || strings.Contains(d.Internal, "/../") {
		v.add(path, "url and internal must not hold . or .. segments")
	}
	for _, p := range []struct{ key, prefix string }{{"url", d.URL}, {"internal", d.Internal}} {
		if strings.HasPrefix(p.prefix, "/_securefiles/") {
			v.add(path+"."+p.key, "%q: nginx's snippet has locations of its own below /_securefiles/: name another prefix", p.prefix)
		}
	}
	if overlap(d.URL, d.Internal) {
		v.add(path+".internal", "%q and url %q contain each other: the internal prefix must be another", d.Internal, d.URL)
	}
	if d.Listing && d.Root == "" && d.Storage == nil {
		v.add(path+".listing", "there is nothing to list: set root to the directory that the service reads, or storage")
	}
	if d.Zip != nil {
		v.zip(path+".zip", d)
	}
	if d.Root != "" {
		v.match(path+".root", d.Root, rootPattern, "is not an absolute directory that nginx can be told: no blanks, quotes, ; { } $ # or backslash")
		if filepath.Clean(d.Root) != strings.TrimSuffix(d.Root, "/") || filepath.Clean(d.Root) == "/" {
			v.add(path+".root", "%q: write the directory without . or .. or doubled slashes, and not / itself", d.Root)
		}
	}
	v.storage(path, d)
	v.oneOf(path+".front", d.Front, DefaultFront, "classic", "apache", "lighttpd", "caddy")
	switch d.Front {
	case "apache", "lighttpd", "caddy":
		v.otherFront(path, d)
	}
	v.oneOf(path+".disposition", d.Disposition, "attachment", "inline")
	if d.DenyStatus != 404 && d.DenyStatus != 403 {
		v.add(path+".deny_status", "%d is neither 404 (hides what exists) nor 403 (says no)", d.DenyStatus)
	}
	v.match(path+".cache_control", d.CacheControl, fieldPattern, "is not a header value: printable ASCII")
	if d.CSP != "" {
		v.match(path+".content_security_policy", d.CSP, fieldPattern, "is not a header value: printable ASCII")
	}
	v.oneOf(path+".referrer_policy", d.ReferrerPolicy, "no-referrer", "no-referrer-when-downgrade", "origin", "origin-when-cross-origin",
		"same-origin", "strict-origin", "strict-origin-when-cross-origin", "unsafe-url")
	v.oneOf(path+".embed", d.Embed, "same-origin", "same-site", "cross-origin")
	for i, origin := range d.CORSOrigins {
		v.match(path+indexed(".cors_origins", i), origin, originPattern, "is not an origin: https://HOST or https://HOST:PORT in lower case, without a path; no pattern, and not *")
		if slices.Contains(d.CORSOrigins[:i], origin) {
			v.add(path+indexed(".cors_origins", i), "%q stands there twice, which nginx refuses", origin)
		}
	}
}

// zip checks archives of directories.
func (v *validator) zip(path string, d Download) {
	switch {
	case d.Storage != nil:
		v.add(path, "the service makes archives of what is in root, and fetches nothing from a store: leave zip out")
	case !d.Listing:
		v.add(path, "who may list a folder can have it as one file: set listing, or leave zip out")
	case d.Front != DefaultFront:
		v.add(path, "archives come through what `securefiles nginx` prints for front: nginx: behind front: %s leave zip out", d.Front)
	}
	if d.Zip.Entries < 1 || d.Zip.Entries > MaxZipEntries {
		v.add(path+".entries", "%d is out of range: 1 to %d files and folders in one archive", d.Zip.Entries, MaxZipEntries)
	}
	if _, err := d.Zip.Size(); err != nil {
		v.add(path+".bytes", "%v", err)
	}
}

// storage checks where a download's files are. What is a store's alone stands in package
// storage.
func (v *validator) storage(path string, d Download) {
	s := d.Storage
	if s == nil {
		if d.Deliver != "" {
			v.add(path+".deliver", "nginx sends what is in a directory itself: it is about a download with storage")
		}
		return
	}
	if named, kinds := kinds(*s, "store"); named != 1 {
		v.add(path+".storage", "name exactly one store: %s or %s", strings.Join(kinds[:len(kinds)-1], ", "), kinds[len(kinds)-1])
	}
	if d.Root != "" {
		v.add(path+".root", "there is storage too: a download's files are in one place")
	}
	if d.Deliver != "" {
		v.oneOf(path+".deliver", d.Deliver, "proxy", "redirect")
	}
	if d.Front != DefaultFront {
		v.add(path+".front", "what is in a store is fetched by nginx's snippet, which asks by auth_request: leave front out")
	}
	if d.FollowSymlinks {
		v.add(path+".insecure_follow_symlinks", "a store has no symbolic links: leave it out")
	}
	if d.Compress {
		v.add(path+".compress", "what comes from a store is sent as it is there: leave it out")
	}
	v.match(path+".storage.ca_file", s.CAFile, rootPattern, "is not an absolute path that nginx can be told: no blanks, quotes, ; { } $ # or backslash")
	for i, address := range s.Resolver {
		v.match(path+indexed(".storage.resolver", i), address, resolverPattern, "is not the address of a DNS server, such as 127.0.0.53, 192.0.2.1:53 or [::1]")
	}
}

// otherFront refuses what only nginx does, by what is printed for it.
func (v *validator) otherFront(path string, d Download) {
	if d.Root == "" {
		v.add(path+".root", "there is none: behind front: %s the service names each file to the web server, and looks whether it is one", d.Front)
	}
	if len(d.CORSOrigins) > 0 {
		v.add(path+".cors_origins", "are answered by what `securefiles nginx` prints: behind front: %s leave them out", d.Front)
	}
	if d.Compress {
		v.add(path+".compress", "is done by what `securefiles nginx` prints: behind front: %s leave it out, and see to it in the web server", d.Front)
	}
}

// limitOf refuses a limit of what a web server does not report, or hold to.
func (v *validator) limitOf(path string, l Limit, downloads []Download) {
	if l.Bytes == "" && l.Downloads == 0 && l.Rate == "" {
		return
	}
	for _, d := range downloads {
		others := func(of string) bool { return strings.HasPrefix(of, "download:") && of != "download:"+d.Name }
		unreported := d.Unreported()
		if unreported == "" || len(l.Of) > 0 && !slices.ContainsFunc(l.Of, func(of string) bool { return !others(of) }) {
			continue
		}
		v.add(path, "bytes, downloads at a time and rate need nginx: download %q %s, which reports nothing of what it sends, and holds to no rate. Say of: ['download:NAME'] for each that nginx sends", d.Name, unreported)
		return
	}
}

// nginx checks what is printed for nginx alone.
func (v *validator) nginx(c *Config) {
	n := c.Nginx
	for i, address := range n.Service {
		path := indexed("nginx.service", i)
		if socket, ok := strings.CutPrefix(address, UnixPrefix); ok {
			v.match(path, socket, socketPattern, "is not the absolute path of a socket that nginx can be told")
			continue
		}
		host, port, err := net.SplitHostPort(address)
		number, notNumber := strconv.Atoi(port)
		ip, notIP := netip.ParseAddr(host)
		switch {
		case err != nil || notNumber != nil || number < 1 || number > 65535 || !hostPattern.MatchString(host) && notIP != nil:
			v.add(path, "%q is neither ADDRESS:PORT nor unix:/path", address)
		case strings.EqualFold(UnixPrefix, host+":"):
			v.add(path, "%q is a unix socket for nginx: write unix:/path, or the host's address", address)
		case loopback.IsName(host):
			v.add(path, "%q can be two addresses, and whoever listens on the other is asked too: write 127.0.0.1:%s or [::1]:%s", address, port, port)
		case notIP == nil && ip.IsUnspecified():
			v.add(path, "%q is no address to connect to: write one that nginx reaches", address)
		}
	}
	if (n.DeliveryLog == "") != (n.AccessLog == "") {
		v.add("nginx", "delivery_log and access_log go together: in each location nginx writes to the logs that are named there, so name the site's own beside it, %q, or off", "/var/log/nginx/access.log combined")
	}
	if n.DeliveryLog != "" && n.AccessLog != "" {
		v.match("nginx.delivery_log", n.DeliveryLog, rootPattern, "is not an absolute path that nginx can be told: no blanks, quotes, ; { } $ # or backslash")
		v.match("nginx.access_log", n.AccessLog, accessPattern, "is not what stands after access_log in nginx: a path, or syslog:, and a format; or off")
	}
	if n.OpenFileCache < 0 || n.OpenFileCache > 1_000_000 {
		v.add("nginx.open_file_cache", "%d is out of range: 0 to 1000000 files", n.OpenFileCache)
	}
	for _, status := range slices.Sorted(maps.Keys(n.ErrorPages)) {
		file, path := n.ErrorPages[status], "nginx.error_pages"
		if !slices.Contains([]int{401, 403, 404, 410, 429, 503}, status) {
			v.add(path, "%d has no page: there are 401, 403, 404, 410, 429 and 503", status)
		}
		v.match(path, file, rootPattern, "is not an absolute path that nginx can be told: no blanks, quotes, ; { } $ # or backslash")
		if filepath.Clean(file) != file {
			v.add(path, "%q: write the file without . or .. or doubled slashes", file)
		}
	}
}

// state checks where what is counted is kept.
func (v *validator) state(s *State) {
	r := s.Redis
	if r == nil {
		if s.Fail != "" {
			v.add("state.fail", "it is about Redis, and there is none: set state.redis.address")
		}
		return
	}
	if s.File != "" {
		v.add("state.file", "there is Redis too: what is counted is kept in one place")
	}
	v.oneOf("state.fail", s.Fail, "closed", "local")
	if len(r.Address) == 0 {
		v.add("state.redis.address", "there is none: write address: ['127.0.0.1:6379'], or ['unix:/run/redis/redis-server.sock']")
	}
	for i, a := range r.Address {
		network, address := Address(a)
		if network == "unix" {
			if !filepath.IsAbs(address) || len(r.Address) > 1 || r.SentinelMaster != "" {
				v.add(indexed("state.redis.address", i), "%q is not a unix socket of one server, such as unix:/run/redis/redis-server.sock", a)
			}
		} else if host, port, err := net.SplitHostPort(a); err != nil || host == "" || port == "" {
			v.add(indexed("state.redis.address", i), "%q is neither host:port nor unix:/path", a)
		}
	}
	if !redisPrefixPattern.MatchString(r.Prefix) {
		v.add("state.redis.prefix", "%q is not 1 to 64 of a-z, A-Z, 0-9 and .:_-", r.Prefix)
	}
	if r.Replicas < 0 || r.Replicas > 8 {
		v.add("state.redis.replicas", "%d is out of range: 0 to 8 replicas", r.Replicas)
	}
	if r.CAFile != "" && !r.TLS {
		v.add("state.redis.ca_file", "it vouches for a server that nobody asks for TLS: set state.redis.tls")
	}
}

// audit checks where records are kept, and how.
func (v *validator) audit(a Audit) {
	if a.File == "" {
		if !reflect.ValueOf(a).IsZero() {
			v.add("audit", "there is no file, so no records are kept: name one, file: /var/log/securefiles/audit/audit.jsonl, or stdout")
		}
		return
	}
	v.oneOf("audit.durability", a.Durability, "write", "fsync")
	if a.File == AuditStdout && a.Durability == "fsync" {
		v.add("audit.durability", "nobody knows when what goes to standard output is on a disk: fsync needs a file")
	}
	v.within("audit.wait", a.Wait, time.Second, 30*24*time.Hour)
	if chain := a.Chain; chain != nil {
		switch {
		case a.File == AuditStdout:
			v.add("audit.chain", "a chain goes on from the end of its file: standard output has none to read")
		case chain.KeyFile == "":
			v.add("audit.chain", "a chain needs a key_file: `securefiles audit key` makes one")
		}
		v.within("audit.chain.every", chain.Every, time.Second, 24*time.Hour)
	}
	for _, sink := range []struct {
		key, option string
		there       bool
		value       string
	}{{"audit.syslog", "url: tcp://HOST:601", a.Syslog != nil, deref(a.Syslog).URL}, {"audit.postgres", "url_file: FILE", a.Postgres != nil, deref(a.Postgres).URLFile}} {
		switch {
		case !sink.there:
		case sink.value == "":
			v.add(sink.key, "it says nowhere where records are sent to: write %s", sink.option)
		case a.File == AuditStdout:
			v.add(sink.key, "records are sent from the file, so that none is lost while they cannot be sent: name one in audit.file")
		}
	}
	v.privacy(a)
}

// privacy checks what of a person is written. What can be left out stands in package
// audit.
func (v *validator) privacy(a Audit) {
	p := a.Privacy
	v.oneOf("audit.privacy.addresses", p.Addresses, "full", "short", "none")
	v.oneOf("audit.privacy.subjects", p.Subjects, "plain", "keyed")
	v.within("audit.privacy.retention", p.Retention, 24*time.Hour, 100*365*24*time.Hour)
	if p.Subjects == "keyed" && p.KeyFile == "" {
		v.add("audit.privacy.subjects", "the hash needs a secret, or whoever has the names has the hashes: set audit.privacy.key_file")
	}
	if p.Subjects == "keyed" && p.Erasable {
		v.add("audit.privacy.erasable", "what is erasable has a random id in the subject's place already: leave audit.privacy.subjects out")
	}
	if p.Erasable && p.Keys == "" {
		v.add("audit.privacy.erasable", "the keys of the subjects need a file: set audit.privacy.keys, on a disk that you back up apart from the record")
	}
	if p.Keys != "" && p.Keys == a.File {
		v.add("audit.privacy.keys", "is the record itself: name another file")
	}
	if p.Erasable && a.Syslog != nil {
		v.add("audit.privacy.erasable", "a syslog server keeps copies that nobody erases by their keys alone: leave out audit.syslog, or erasable")
	}
	if a.File == AuditStdout {
		if p.Erasable {
			v.add("audit.privacy.erasable", "what keeps standard output keeps copies that nobody erases by their keys alone: erasable needs a file")
		}
		if p.Retention != 0 {
			v.add("audit.privacy.retention", "what keeps standard output decides for how long: retention needs a file")
		}
	}
}

// deref is what a pointer points to, or nothing.
func deref[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}

// Connectable reports whether Listen is where nginx can find the service.
func (c *Config) Connectable() bool {
	network, address := Address(c.Listen)
	if network == "unix" {
		return true
	}
	host, _, err := net.SplitHostPort(address)
	ip, notIP := netip.ParseAddr(host)
	return err == nil && notIP == nil && !ip.IsUnspecified() && !isAnyPort(address)
}

// distinct refuses downloads that nginx or policy could take for each other.
func (v *validator) distinct(path string, d Download, otherPath string, other Download) {
	if d.Name == other.Name {
		v.add(path+".name", "%q is the name of %s too", d.Name, otherPath)
	}
	for _, p := range []struct{ key, a, b string }{{"url", d.URL, other.URL}, {"internal", d.Internal, other.Internal}, {"internal", d.Internal, other.URL}, {"url", d.URL, other.Internal}} {
		if overlap(p.a, p.b) {
			v.add(path+"."+p.key, "%q and %q of %s contain each other: give each download a prefix of its own", p.a, p.b, otherPath)
		}
	}
}

func overlap(a, b string) bool { return strings.HasPrefix(a, b) || strings.HasPrefix(b, a) }

// kinds returns how many fields of a kind an entry sets, and the keys of all that there
// are.
func kinds(entry any, kind string) (named int, keys []string) {
	v := reflect.ValueOf(entry)
	for i := range v.NumField() {
		if tag := v.Type().Field(i).Tag; tag.Get("kind") == kind {
			keys = append(keys, tag.Get("yaml"))
			if !v.Field(i).IsZero() {
				named++
			}
		}
	}
	return named, keys
}

// HasGroups reports whether the source is told where groups are.
func (id Identity) HasGroups() bool {
	switch {
	case id.JWT != nil:
		return id.JWT.GroupsClaim != ""
	case id.Certificate != nil:
		return id.Certificate.Groups != ""
	case id.Session != nil:
		s := id.Session
		return s.GroupsHeader != "" || s.GroupsPath != "" || s.SubjectHeader == "" && s.SubjectPath == ""
	}
	return id.GroupsHeader != ""
}

func (v *validator) identity(path string, id Identity) {
	if named, kinds := kinds(id, "source"); named != 1 {
		last := len(kinds) - 1
		v.add(path, "name exactly one source: %s or %s", strings.Join(kinds[:last], ", "), kinds[last])
		return
	}
	if id.Header == "" && (id.GroupsHeader != "" || id.NginxValue != "" || id.NginxGroupsValue != "") {
		v.add(path, "groups_header, nginx_value and nginx_groups_value belong to a header source")
	}
	if id.Htpasswd == "" && (id.Realm != "" || id.Remember != 0) {
		v.add(path, "realm and remember belong to an htpasswd source")
	}
	if id.Groups != "" {
		v.oneOf(path+".groups", id.Groups, "required", "optional")
		if !id.HasGroups() {
			v.add(path+".groups", "belongs to a source that gives groups: set groups_header, groups_claim, groups_path or, of a certificate, groups: ou")
		}
	}
	if j := id.JWT; j != nil {
		v.within(path+".jwt.refresh", j.Refresh, time.Minute, 24*time.Hour)
		v.within(path+".jwt.max_stale", j.MaxStale, cmp.Or(time.Duration(j.Refresh), 10*time.Minute), 30*24*time.Hour)
		v.within(path+".jwt.timeout", j.Timeout, 10*time.Millisecond, 1900*time.Millisecond) // nginx waits 2 s
	}
	if s := id.Session; s != nil {
		v.session(path+".session", s)
	}
}

// within checks a duration that was not left out.
func (v *validator) within(path string, d Duration, least, most time.Duration) {
	if value := time.Duration(d); d != 0 && (value < least || value > most) {
		v.add(path, "%s is out of range: %s to %s", value, least, most)
	}
}
