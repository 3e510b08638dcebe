// Package nginx prints the nginx configuration that belongs to a service's own.
//
// It comes in two halves, [WriteHTTP] and [WriteServer], to include in a
// configuration of one's own, and as a whole, [WriteComplete]. Prefixes and
// directories are printed as literals: a variable that is empty would make
// nginx serve its own prefix directory.
//
// It does not protect against a location outside the snippet that serves the
// same directory.
package nginx

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"embed"
	"fmt"
	"io"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"
	"text/template"
	"time"
)

const defaultWait = 2 * time.Second

// Config is what the printed configuration depends on.
type Config struct {
	// Service is where nginx finds the service, `127.0.0.1:9180`, `files:9180` or
	// `unix:/path`: an address for each instance, at least one. The first is
	// asked, the others when it does not answer.
	Service []string
	// ProxySecret says that nginx must send a secret to the service, which it
	// includes from a file that the operator writes. Proof says that the service
	// proves its answers, by a secret in a file that [WriteProof] prints.
	ProxySecret, Proof bool
	// Wait is how long nginx waits for an answer of the service; zero means 2 s.
	Wait      time.Duration
	Downloads []Download
	// Identity are the headers that carry a caller nginx has verified.
	Identity []Header
	// DeliveryLog is the absolute path of the log of what was delivered, which each
	// location that ends a request then names, and AccessLog the site's own
	// beside it: what stands after `access_log`. Both or none.
	DeliveryLog, AccessLog string
	// OpenFileCache is how many files each worker of nginx keeps open, to look only after a
	// second whether they are still the same; zero leaves that to the server around it.
	OpenFileCache int
	// Links says that the service has links, and pages that ask people about them.
	Links bool
	// API says that the service has an API of links.
	API bool
	// Limits says that the service bounds what anybody takes, and tells what is left.
	Limits bool
	// Pages are the site's own error pages: absolute paths, by status.
	Pages map[int]string
}

// pageStatuses are the statuses that may have a page of the site's own. They stand in
// package config too, which tells where in the file another one is.
func pageStatuses() []int { return []int{401, 403, 404, 410, 429, 503} }

// Download is one guarded URL prefix.
type Download struct {
	// Name is part of the names of locations: [a-z0-9_].
	Name string
	// URL and Internal begin and end with a slash.
	URL, Internal string
	// Root is the absolute directory to serve; empty where there is a Store.
	Root string
	// Store is what is asked for the files in the place of Root.
	Store *Store
	// FollowSymlinks lets nginx follow symbolic links out of Root.
	FollowSymlinks bool
	// Embed says whose pages may embed a file, as Cross-Origin-Resource-Policy does:
	// same-origin, same-site or cross-origin (Fetch, section 3.7).
	Embed string
	// Origins are other origins whose pages may read files, `https://app.example.org`.
	Origins []string
	// Compress lets nginx compress text, which then cannot be resumed.
	Compress bool
	// Classic has nginx pass the download to the service, which answers X-Accel-Redirect,
	// in the place of auth_request.
	Classic bool
	// Archives says that the service sends directories as one file.
	Archives bool
}

// Store is a store of objects that the service signs paths for.
type Store struct {
	// Scheme is https or http. Host is what is signed: a name or an address, with a port
	// that is not the scheme's own.
	Scheme, Host string
	// Path begins each path that nginx asks for, escaped, with a slash at both ends.
	Path string
	// CAFile is the absolute file of the authorities that may have signed its certificate.
	CAFile string
	// Resolver are the DNS servers that are asked for its address; none asks once, when
	// nginx starts.
	Resolver []string
	// NoSuffix says that it fails where the last bytes of a file are asked for.
	NoSuffix bool
	// Redirect says that the service sends the client there, and nginx never asks it.
	Redirect bool
}

// Header is a request header to the service. An empty Value clears it.
type Header struct {
	Name  string
	Value string // an nginx variable, or empty
}

// FromClient is a header that carries what the client sent under its name:
// credentials, never the name of a user.
func FromClient(name string) Header {
	return Header{Name: name, Value: "$http_" + strings.ToLower(strings.ReplaceAll(name, "-", "_"))}
}

// The forms that values may have. They keep whatever nginx would read as
// syntax out of the literals.
var (
	serviceForm  = regexp.MustCompile(`^(?:unix:/[A-Za-z0-9_./-]+|[A-Za-z0-9.-]+:[0-9]+|\[[0-9a-fA-F:]+\]:[0-9]+)$`)
	nameForm     = regexp.MustCompile(`^[a-z0-9_]+$`)
	prefixForm   = regexp.MustCompile(`^(?:/[A-Za-z0-9_.~-]+)+/$`)
	rootForm     = regexp.MustCompile(`^/[^\x00-\x20"'\\;{}$#]+$`)
	addressForm  = regexp.MustCompile(`^(?:unix:/.+|[0-9]+\.[0-9]+\.[0-9]+\.[0-9]+:[0-9]+|\[[0-9a-fA-F:]+\]:[0-9]+)$`)
	headerForm   = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9-]*$`)
	variableForm = regexp.MustCompile(`^\$[a-z][a-z0-9_]*$`)
	embedForm    = regexp.MustCompile(`^(?:same-origin|same-site|cross-origin)$`)
	hostForm     = regexp.MustCompile(`^[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?(?::[0-9]{1,5})?$`)
	pathForm     = regexp.MustCompile(`^/(?:[A-Za-z0-9._~%-]+/)*$`)
	resolverForm = regexp.MustCompile(`^(?:[0-9.]+|\[[0-9a-f:]+\])(?::[0-9]{1,5})?$`)
	schemeForm   = regexp.MustCompile(`^https?$`)
	originForm   = regexp.MustCompile(`^https?://(?:[a-z0-9.-]+|\[[0-9a-f:]+\])(?::[0-9]+)?$`)
	// accessForm is a path and a format, and what else access_log takes, or off.
	accessForm = regexp.MustCompile(`^(?:off|(?:/|syslog:)[^\x00-\x1f"'\\;{}#$]*)$`)
)

// validate returns an error that names the first value nginx could misread.
func (c Config) validate() error {
	check := func(form *regexp.Regexp, what, value string) error {
		if !form.MatchString(value) {
			return fmt.Errorf("nginx configuration: %s %q cannot be written as a literal", what, value)
		}
		return nil
	}
	if len(c.Service) == 0 {
		return fmt.Errorf("nginx configuration: there is no address of the service")
	}
	for _, address := range c.Service {
		if err := check(serviceForm, "address of the service", address); err != nil {
			return err
		}
	}
	if (c.DeliveryLog == "") != (c.AccessLog == "") {
		return fmt.Errorf("nginx configuration: the delivery log needs the site's own access log beside it, which it would replace")
	}
	if c.DeliveryLog != "" {
		if err := cmp.Or(check(rootForm, "delivery log", c.DeliveryLog), check(accessForm, "access log", c.AccessLog)); err != nil {
			return err
		}
	}
	for status, file := range c.Pages {
		if !slices.Contains(pageStatuses(), status) {
			return fmt.Errorf("nginx configuration: there is no page for status %d", status)
		}
		if err := check(rootForm, "error page", file); err != nil {
			return err
		}
	}
	if len(c.Downloads) == 0 {
		return fmt.Errorf("nginx configuration: there is no download")
	}
	for _, d := range c.Downloads {
		if d.Classic && !c.Proof {
			// An answer is told from another application's by its address.
			for _, address := range c.Service {
				if err := check(addressForm, "address of the service, for front: classic without proof_secret_file,", address); err != nil {
					return err
				}
			}
		}
		for _, v := range []struct {
			form        *regexp.Regexp
			what, value string
		}{{nameForm, "name", d.Name}, {prefixForm, "url", d.URL}, {prefixForm, "internal", d.Internal}, {embedForm, "embed", d.Embed}} {
			if err := check(v.form, v.what, v.value); err != nil {
				return err
			}
		}
		if err := d.validateFiles(check); err != nil {
			return err
		}
		for i, origin := range d.Origins {
			if err := check(originForm, "origin", origin); err != nil {
				return err
			}
			if slices.Contains(d.Origins[:i], origin) {
				return fmt.Errorf("nginx configuration: origin %q stands there twice", origin)
			}
		}
	}
	for i, h := range c.Identity {
		if err := check(headerForm, "header", h.Name); err != nil {
			return err
		}
		for _, other := range c.Identity[:i] {
			if strings.EqualFold(h.Name, other.Name) && h.Value != other.Value {
				return fmt.Errorf("nginx configuration: header %q has two values, %q and %q", h.Name, other.Value, h.Value)
			}
		}
		if h.Value != "" {
			if err := check(variableForm, "value of "+h.Name, h.Value); err != nil {
				return err
			}
		}
	}
	return nil
}

// validateFiles checks where the files are.
func (d Download) validateFiles(check func(*regexp.Regexp, string, string) error) error {
	s := d.Store
	if s == nil {
		return check(rootForm, "root", d.Root)
	}
	if d.Root != "" {
		return fmt.Errorf("nginx configuration: download %s has a root and a store", d.Name)
	}
	for _, address := range s.Resolver {
		if err := check(resolverForm, "resolver", address); err != nil {
			return err
		}
	}
	return cmp.Or(check(schemeForm, "scheme of the store", s.Scheme), check(hostForm, "host of the store", s.Host),
		check(pathForm, "path of the store", s.Path), check(rootForm, "file of authorities", s.CAFile))
}

// Proxied reports whether nginx asks a store for the files.
func (d Download) Proxied() bool { return d.Store != nil && !d.Store.Redirect }

// A certificate is a variable that counts only once nginx has verified the
// client's certificate; $ssl_client_s_dn is set for an unverified one too.
type certificate struct{ Variable, Guarded string }

type downloadView struct {
	Download
	index int
}

// InternalPattern is the prefix as a regular expression.
func (d downloadView) InternalPattern() string { return regexp.QuoteMeta(d.Internal) }

// UpstreamPattern is what the store is asked for as a regular expression: the path of an
// object of its own, and a query, of bytes that cannot end either.
func (d downloadView) UpstreamPattern() string {
	return "^" + regexp.QuoteMeta(d.Store.Path) + `[^/?#][!-~]*$`
}

// Addressed is where nginx asks the store: an upstream with an address that was found
// once, or the host itself, which is looked for again.
func (d downloadView) Addressed() string {
	if len(d.Store.Resolver) > 0 {
		return d.Store.Host
	}
	return "securefiles_store_" + d.Name
}

// StoreAddress is the store's host with its port, and StoreName without.
func (d downloadView) StoreAddress() string {
	if d.StoreName() != d.Store.Host {
		return d.Store.Host
	}
	return d.Store.Host + map[string]string{"https": ":443", "http": ":80"}[d.Store.Scheme]
}

// StoreName is described at StoreAddress.
func (d downloadView) StoreName() string {
	name, _, _ := strings.Cut(d.Store.Host, ":")
	return name
}

// TLS reports whether the store is asked by https.
func (d downloadView) TLS() bool { return d.Store.Scheme == "https" }

// Of is a download beside the whole view.
func (v view) Of(d downloadView) any {
	return struct {
		view
		Download downloadView
	}{v, d}
}

// StoreHeaders are what of a store's answer is for nobody else. What objects carry of
// their owners (x-amz-meta-*) has no names that could be listed.
func (v view) StoreHeaders() []string {
	return []string{
		"Set-Cookie", "Cache-Control", "Expires", "Content-Disposition", "Content-Security-Policy", "X-Content-Type-Options", "Referrer-Policy", "Vary",
		"Access-Control-Allow-Origin", "Access-Control-Allow-Credentials", "Access-Control-Allow-Headers", "Access-Control-Allow-Methods",
		"Access-Control-Expose-Headers", "Access-Control-Max-Age", "Cross-Origin-Resource-Policy", "Strict-Transport-Security", "Alt-Svc", "Link", "Refresh",
		"WWW-Authenticate", "Location", "Clear-Site-Data", "Service-Worker-Allowed", "X-Request-ID", "RateLimit", "RateLimit-Policy", "Via", "Server-Timing",
		"x-amz-request-id", "x-amz-id-2", "x-amz-storage-class", "x-amz-version-id", "x-amz-delete-marker", "x-amz-server-side-encryption",
		"x-amz-server-side-encryption-aws-kms-key-id", "x-amz-server-side-encryption-bucket-key-enabled", "x-amz-checksum-crc32", "x-amz-checksum-crc32c",
		"x-amz-checksum-crc64nvme", "x-amz-checksum-sha1", "x-amz-checksum-sha256", "x-amz-checksum-type", "x-amz-expiration", "x-amz-restore",
		"x-amz-replication-status", "x-amz-object-lock-mode", "x-amz-object-lock-retain-until-date", "x-amz-object-lock-legal-hold", "x-amz-tagging-count",
		"x-amz-mp-parts-count", "x-amz-missing-meta", "x-amz-website-redirect-location",
		"x-ms-request-id", "x-ms-version", "x-ms-version-id", "x-ms-is-current-version", "x-ms-blob-type", "x-ms-creation-time", "x-ms-last-access-time",
		"x-ms-lease-state", "x-ms-lease-status", "x-ms-lease-duration", "x-ms-server-encrypted", "x-ms-access-tier", "x-ms-tag-count", "x-ms-error-code",
		"x-ms-copy-id", "x-ms-copy-source", "x-ms-copy-status", "x-ms-copy-progress", "x-ms-copy-completion-time", "x-ms-blob-content-md5", "x-ms-or-policy-id",
		"x-goog-generation", "x-goog-metageneration", "x-goog-stored-content-encoding", "x-goog-stored-content-length", "x-goog-hash", "x-goog-storage-class",
		"x-goog-expiration", "x-guploader-uploadid", "x-goog-custom-time",
	}
}

// Proxied reports whether nginx asks a store for any file.
func (v view) Proxied() bool { return slices.ContainsFunc(v.Downloads, downloadView.Proxied) }

// CORSVariable holds the origin of the request, if its pages may read files. It has
// a number in the place of the name, which could be `expose`, or too long for nginx.
func (d downloadView) CORSVariable() string { return fmt.Sprintf("$securefiles_cors_%d", d.index) }

// Foreign are the values of Sec-Fetch-Site whose pages may not embed a file, as a
// regular expression; empty for none (Fetch Metadata Request Headers, section 2.3).
func (d downloadView) Foreign() string {
	return map[string]string{"same-origin": "cross-site|same-site", "same-site": "cross-site"}[d.Embed]
}

// A page is one of the site's own error pages.
type page struct {
	Status          int
	Directory, Name string
}

// view is what the templates print.
type view struct {
	Config
	Downloads    []downloadView
	Headers      []Header
	Certificates []certificate
	Pages        []page // by status
	// Digest is of all that is printed but itself: the service tells by it when
	// nginx runs another one's.
	Digest string
}

// CORS says that pages of some other origin may read files.
func (v view) CORS() bool {
	return slices.ContainsFunc(v.Downloads, func(d downloadView) bool { return len(d.Origins) > 0 })
}

// Classic says that the service answers X-Accel-Redirect for some download.
func (v view) Classic() bool {
	return slices.ContainsFunc(v.Downloads, func(d downloadView) bool { return d.Classic })
}

// Opens reports whether nginx opens files of some download itself, which the service passes
// on, for classic, or it asks for.
func (v view) Opens(classic bool) bool {
	return slices.ContainsFunc(v.Downloads, func(d downloadView) bool { return d.Store == nil && d.Classic == classic })
}

// Archives says that the service sends directories of some download as one file.
func (v view) Archives() bool {
	return slices.ContainsFunc(v.Downloads, func(d downloadView) bool { return d.Archives })
}

// Log begins the names of the variables that are logged.
func (v view) Log() string {
	if v.Classic() {
		return "log_"
	}
	return ""
}

// Asks says that nginx asks by auth_request for some download.
func (v view) Asks() bool {
	return slices.ContainsFunc(v.Downloads, func(d downloadView) bool { return !d.Classic })
}

// ServicePattern is the last of the addresses in $upstream_addr, if that is the service's,
// as a regular expression.
func (v view) ServicePattern() string {
	var all []string
	for _, address := range v.Service {
		all = append(all, regexp.QuoteMeta(address))
	}
	return "(?:^|[ ,])(?:" + strings.Join(all, "|") + ")$"
}

// LongOrigin says that some origin may not fit into the hash of a map whose
// buckets have nginx's default size, 64 bytes: a pointer before it, one after the last,
// and its length.
func (v view) LongOrigin() bool {
	return slices.ContainsFunc(v.Downloads, func(d downloadView) bool {
		return slices.ContainsFunc(d.Origins, func(origin string) bool { return len(origin) > 46 })
	})
}

// PagesOf are the pages that there are for some statuses.
func (v view) PagesOf(statuses ...int) []page {
	return slices.DeleteFunc(slices.Clone(v.Pages), func(p page) bool { return !slices.Contains(statuses, p.Status) })
}

// Refusing is a view with the status for an answer that is not proved.
func (v view) Refusing(status int) any {
	return struct {
		view
		Unproved int
	}{v, status}
}

// Retry is for how long nginx may ask another instance: where the first hung for Wait too.
func (v view) Retry() time.Duration { return v.Wait + time.Second }

func newView(c Config) view {
	v := view{Config: c}
	v.Wait = cmp.Or(c.Wait, defaultWait)
	for i, d := range c.Downloads {
		d.Root = strings.TrimSuffix(d.Root, "/")
		v.Downloads = append(v.Downloads, downloadView{d, i})
	}
	for _, status := range slices.Sorted(maps.Keys(c.Pages)) {
		v.Pages = append(v.Pages, page{status, path.Dir(c.Pages[status]), path.Base(c.Pages[status])})
	}
	seen := map[string]bool{}
	for _, h := range c.Identity {
		known := func(other Header) bool { return strings.EqualFold(other.Name, h.Name) }
		if strings.EqualFold(h.Name, "Authorization") || slices.ContainsFunc(v.Headers, known) {
			continue // it is sent already
		}
		if h.Value == "" {
			h.Value = `""`
		} else if suffix, ok := strings.CutPrefix(h.Value, "$ssl_client_"); ok && suffix != "verify" {
			guarded := "$securefiles_client_" + suffix
			if !seen[guarded] {
				v.Certificates = append(v.Certificates, certificate{h.Value, guarded})
			}
			seen[guarded] = true
			h.Value = guarded
		}
		v.Headers = append(v.Headers, h)
	}
	return v
}

//go:embed *.tmpl
var templates embed.FS

// A printed configuration, in its two halves, and the digest of both.
type printed struct {
	HTTP, Server, Digest string
	LongOrigin, Proxied  bool
}

// render prints a configuration twice: the second time with the digest of the first.
func render(c Config) (printed, error) {
	if err := c.validate(); err != nil {
		return printed{}, err
	}
	t, err := template.ParseFS(templates, "http.conf.tmpl", "server.conf.tmpl")
	if err != nil {
		return printed{}, fmt.Errorf("print nginx configuration: %w", err)
	}
	v := newView(c)
	p := printed{LongOrigin: v.LongOrigin(), Proxied: v.Proxied()}
	for range 2 {
		for name, half := range map[string]*string{"http.conf.tmpl": &p.HTTP, "server.conf.tmpl": &p.Server} {
			var buf bytes.Buffer
			if err := t.ExecuteTemplate(&buf, name, v); err != nil {
				return printed{}, fmt.Errorf("print nginx configuration: %w", err)
			}
			*half = buf.String()
		}
		if v.Digest == "" {
			v.Digest = fmt.Sprintf("%x", sha256.Sum256([]byte(p.HTTP+p.Server)))[:16]
			p.Digest = v.Digest
		}
	}
	return p, nil
}

// Digest returns what the printed configuration sends as X-Securefiles-Snippet: 16
// hexadecimal digits that another configuration, or another version of this program,
// hardly has in common with it.
func Digest(c Config) (string, error) {
	p, err := render(c)
	return p.Digest, err
}

// Unfit returns why a service with this configuration must give nothing of a download
// to a web server that still has an earlier one: because that fills a header with
// something else by which the service now knows callers, or looks for the files
// elsewhere.
func (c Config) Unfit(earlier Config, download string) error {
	was := newView(earlier)
	for _, h := range newView(c).Headers {
		if strings.HasPrefix(h.Value, "$http_") {
			continue // nobody is believed by it
		}
		for _, old := range was.Headers {
			if strings.EqualFold(old.Name, h.Name) && old.Value != h.Value && old.Value != `""` {
				return fmt.Errorf("nginx still sends %s as %s, by which the service knew no caller: print both halves again with `securefiles nginx`, and reload nginx", old.Name, old.Value)
			}
		}
	}
	for _, d := range c.Downloads {
		for _, old := range earlier.Downloads {
			if d.Name != download || old.Internal != d.Internal {
				continue
			}
			if was, is := old.Store.place(), d.Store.place(); was != is {
				return fmt.Errorf("nginx still asks %s for what is below %s: print both halves again with `securefiles nginx`, and reload nginx", cmp.Or(was, old.Root), d.Internal)
			}
			if path.Clean(old.Root) != path.Clean(d.Root) {
				return fmt.Errorf("nginx still serves %s from %s: print both halves again with `securefiles nginx`, and reload nginx", d.Internal, old.Root)
			}
		}
	}
	return nil
}

// place is where the store has files that nginx asks for; empty where nginx asks none.
func (s *Store) place() string {
	if s == nil || s.Redirect {
		return ""
	}
	return s.Scheme + "://" + s.Host + s.Path
}

// WriteHTTP prints what belongs into http { }: the upstream, maps, and the
// formats of the logs.
func WriteHTTP(w io.Writer, c Config) error {
	p, err := render(c)
	if err != nil {
		return err
	}
	_, err = io.WriteString(w, p.HTTP)
	return err
}

// WriteServer prints what belongs into server { }.
func WriteServer(w io.Writer, c Config) error {
	p, err := render(c)
	if err != nil {
		return err
	}
	_, err = io.WriteString(w, p.Server)
	return err
}

// WriteComplete prints a whole nginx.conf, both halves included, that runs
// unprivileged and listens on 127.0.0.1:8080. Relative paths in it start from
// nginx's -p directory. For a container it listens on port 8080 of every IPv4
// address, logs to standard output and error, and writes nothing but in /tmp.
func WriteComplete(w io.Writer, c Config, container bool) error {
	p, err := render(c)
	if err != nil {
		return err
	}
	t, err := template.New("complete.conf.tmpl").Funcs(template.FuncMap{"indent": indent}).ParseFS(templates, "complete.conf.tmpl")
	if err != nil {
		return fmt.Errorf("print nginx configuration: %w", err)
	}
	return t.Execute(w, struct {
		printed
		Container bool
	}{p, container})
}

// indent moves every line that is not empty four columns to the right.
func indent(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		if line != "\n" {
			b.WriteString("    ")
		}
		b.WriteString(line)
	}
	return b.String()
}
