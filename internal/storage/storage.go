// Package storage says where object stores have files: it signs a URL for one object,
// one method and a short time.
//
// A [Store] is an authz.Locator. Bucket, host and prefix are its own; a request chooses
// the rest of the object's key and nothing else, byte for byte the path that policy was
// asked about. [NewS3] is for AWS and all that speak its protocol, [NewAzure] for
// Microsoft's blobs, [NewGCS] for Google's storage.
//
// It asks stores for nothing but in [Store.Try] and [Store.List], and does not protect an object
// whose bucket is public, nor a URL from whoever sees it before it expires.
package storage

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/http"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"securefiles/authz"
	"securefiles/internal/loopback"
	"securefiles/internal/regular"
	"securefiles/pathguard"
)

const (
	// period is what the time of a signature is rounded down to, so that URLs are the
	// same for a while, and a store whose clock is behind takes them.
	period = time.Minute
	// lifetime is how long a signature counts, from that time: at least a minute.
	lifetime = 2 * period
	// maxCredentials bounds a file of credentials, in bytes.
	maxCredentials = 64 << 10
)

// Options are what a Store can do without.
type Options struct {
	// Redirect sends the client to the store. Else the web server asks it.
	Redirect bool
	// InsecureHTTP permits an endpoint without TLS on another host.
	InsecureHTTP bool
	// CredentialsFile holds what URLs are signed with; empty means the environment.
	CredentialsFile string
	// CAFile holds the authorities that may have signed the certificate of a store that
	// the service asks itself; empty means the system's.
	CAFile string
	// Lookup finds variables of the environment; nil finds none.
	Lookup func(string) (string, bool)
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

func (o *Options) clock() func() time.Time {
	if o.Now == nil {
		return time.Now
	}
	return o.Now
}

// An OptionError is about one option; its name is the configuration's key.
type OptionError struct{ Option, Problem string }

func (e *OptionError) Error() string { return e.Option + ": " + e.Problem }

// A signer knows the form of one kind of store.
type signer interface {
	// read takes credentials out of a file's text.
	read(text []byte) error
	// environ takes them out of the environment; false where there are none.
	environ(lookup func(string) (string, bool)) bool
	// variables are their names, for people.
	variables() string
	// sign returns the escaped path and the query of an object's URL.
	sign(ctx context.Context, request request) (string, error)
	// listing is what is asked for a page of what begins with a prefix, no deeper than
	// the next slash, and listed reads the answer.
	listing(prefix, token string, most int) map[string]string
	listed(text []byte) (*listed, error)
}

// A request is what a URL is signed for.
type request struct {
	method, key string
	// list is what the bucket itself is asked in the place of an object; nil of one.
	list     map[string]string
	at       time.Time
	lifetime time.Duration // from at
	// headers are what the store is to say beside the object, for a client that is sent
	// there; nil where the web server says it.
	headers *headers
}

type headers struct{ disposition, cacheControl string }

// A Store is where the files of one download are. It is safe for concurrent use.
type Store struct {
	signer   signer
	endpoint endpoint
	base     string // of all paths: `/bucket/` or `/`
	prefix   string // of keys
	noSuffix bool   // see Endpoint
	role     *role  // whose credentials they are; nil where somebody writes them down
	opts     Options
	loaded   atomic.Uint64

	turns  chan struct{} // one for each call of the service's own
	asking sync.Mutex
	asks   *http.Client // by the service itself; nil before it did
}

// An endpoint is where a store is asked.
type endpoint struct {
	scheme, host string // the host with a port that is not the scheme's own
	path         string // without a final slash
}

var (
	hostForm   = regexp.MustCompile(`^[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?(?::[0-9]{1,5})?$`)
	prefixForm = regexp.MustCompile(`^[A-Za-z0-9!_.*'()/=+@,~ -]*$`)
	bucketForm = regexp.MustCompile(`^[A-Za-z0-9](?:[A-Za-z0-9._-]{1,253}[A-Za-z0-9])$`)
)

// parseEndpoint reads `https://HOST`, which may have a port, and a path where the kind
// of store has one.
func parseEndpoint(text string, insecure bool) (endpoint, error) {
	bad := func(problem string) (endpoint, error) {
		return endpoint{}, &OptionError{"endpoint", fmt.Sprintf("%q %s", text, problem)}
	}
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.User != nil || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" || !hostForm.MatchString(u.Host) {
		return bad("is not where a store is, such as https://s3.example.org: scheme and host in lower case, nothing more")
	}
	if u.Scheme == "http" && !insecure && loopback.IsName(u.Hostname()) {
		return bad("can be two addresses, and whoever has the other is sent signed URLs: write 127.0.0.1 in its place")
	}
	if u.Scheme == "http" && !insecure && !loopback.IsAddress(u.Hostname()) {
		return bad("has no TLS: whoever is between sees signed URLs and files, and can change them: use https, or set insecure_http")
	}
	if _, err := netip.ParseAddr(u.Hostname()); err == nil && u.Scheme == "https" {
		return bad("is an address: nginx compares the name of a certificate alone, so it has to be asked by one")
	}
	e := endpoint{scheme: u.Scheme, host: u.Host, path: strings.TrimSuffix(u.Path, "/")}
	if port := map[string]string{"https": "443", "http": "80"}[u.Scheme]; u.Port() == port { // clients do not sign it
		e.host = u.Hostname()
	}
	return e, nil
}

// validBucket checks the name of a bucket.
func validBucket(name string) error {
	if !bucketForm.MatchString(name) || strings.Contains(name, "..") {
		return &OptionError{"bucket", fmt.Sprintf("%q is not the name of a bucket", name)}
	}
	return nil
}

// parseHost is parseEndpoint for a kind of store whose endpoint has no path.
func parseHost(text string, insecure bool) (endpoint, error) {
	e, err := parseEndpoint(text, insecure)
	if err == nil && e.path != "" {
		err = &OptionError{"endpoint", fmt.Sprintf("%q has a path: the bucket stands in bucket", text)}
	}
	return e, err
}

// validPrefix checks what keys begin with.
func validPrefix(prefix string) error {
	if prefix == "" {
		return nil
	}
	path, err := pathguard.New("/" + strings.TrimSuffix(prefix, "/"))
	if err != nil || !strings.HasSuffix(prefix, "/") || path.String() != "/"+strings.TrimSuffix(prefix, "/") || !prefixForm.MatchString(prefix) {
		return &OptionError{"prefix", fmt.Sprintf("%q is not what keys begin with, such as files/: no slash before it, one behind it, and letters, digits and !_.*'()=+@,~- and blanks between", prefix)}
	}
	return nil
}

// newStore checks what all kinds have in common.
func newStore(s signer, e endpoint, base, prefix string, opts *Options) (*Store, error) {
	if err := validPrefix(prefix); err != nil {
		return nil, err
	}
	made := &Store{signer: s, endpoint: e, base: base, prefix: prefix, turns: make(chan struct{}, maxLists)}
	if opts != nil {
		made.opts = *opts
	}
	made.opts.Now = made.opts.clock()
	if lookup := made.opts.Lookup; made.opts.CredentialsFile == "" && lookup != nil && s.environ(lookup) {
		made.loaded.Add(1)
	}
	return made, nil
}

// Files returns the file of credentials, for whoever watches it.
func (s *Store) Files() []string {
	if s.opts.CredentialsFile == "" {
		return nil
	}
	return []string{s.opts.CredentialsFile}
}

// Renews reports whether the credentials are a role's: Reload asks others for them, and
// they end by themselves, so that Run has to be called.
func (s *Store) Renews() bool { return s.role != nil }

// Err returns why the last attempt to get credentials of a role failed, or nil.
func (s *Store) Err() error {
	if s.role == nil {
		return nil
	}
	s.role.mu.Lock()
	defer s.role.mu.Unlock()
	return s.role.err
}

// Source says, for people, where the credentials are from.
func (s *Store) Source() string {
	switch {
	case s.role != nil:
		return s.role.name
	case s.opts.CredentialsFile != "":
		return s.opts.CredentialsFile
	}
	return s.signer.variables() + " of the environment"
}

// Run renews the credentials of a role before they end, until the context does, and
// reports each attempt. After an error the last ones stay until they end.
func (s *Store) Run(ctx context.Context, report func(error)) error {
	retry := firstRetry
	for {
		wait, failed := s.role.pause(s.opts.Now())
		if failed {
			wait, retry = retry, min(2*retry, lastRetry)
		} else {
			retry = firstRetry
		}
		select {
		case <-ctx.Done():
			return nil
		case <-s.role.tried: // by whoever called Reload
			continue
		case <-time.After(wait):
		}
		if err := s.Reload(ctx); ctx.Err() == nil {
			report(err)
		}
		<-s.role.tried // this one
	}
}

// Reload reads the credentials again. After an error, the last ones stay. Those of the
// environment stay as they are.
func (s *Store) Reload(ctx context.Context) error {
	if s.role != nil {
		news, err := s.role.renew(ctx)
		if news {
			s.loaded.Add(1)
		}
		return err
	}
	if s.opts.CredentialsFile == "" {
		if s.Generation() == 0 {
			return missingError("there are no credentials: name a file of them, or set " + s.signer.variables() + " in the environment of the service")
		}
		return nil
	}
	text, err := regular.Read(s.opts.CredentialsFile, maxCredentials)
	if err != nil {
		return fmt.Errorf("read the credentials of a store: %w: correct credentials_file, or make the file, for the service to read; docs/storage.md says what it holds", err)
	}
	if err := s.signer.read(text); err != nil {
		return fmt.Errorf("%s: %w", s.opts.CredentialsFile, err)
	}
	s.loaded.Add(1)
	return nil
}

// A missingError says that there are no credentials on this machine.
type missingError string

func (e missingError) Error() string { return string(e) }

// Is has it be taken for the error of a file that is not there.
func (missingError) Is(target error) bool { return target == fs.ErrNotExist }

// Generation counts the credentials that there were, from 1; 0 is none yet.
func (s *Store) Generation() uint64 { return s.loaded.Load() }

// Endpoint is where a web server asks the store, and how what it asks for begins.
type Endpoint struct {
	// Scheme is https or http. Host is what is signed, with a port that is not the
	// scheme's own.
	Scheme, Host string
	// Path begins each path, escaped, with a slash at both ends.
	Path string
	// NoSuffix says that it fails where the last bytes of an object are asked for.
	NoSuffix bool
}

// Endpoint returns where the web server is to ask the store.
func (s *Store) Endpoint() Endpoint {
	return Endpoint{Scheme: s.endpoint.scheme, Host: s.endpoint.host, Path: s.endpoint.path + s.base + escape(s.prefix), NoSuffix: s.noSuffix}
}

// Locate is authz.Locator's.
func (s *Store) Locate(ctx context.Context, q *authz.Question) (authz.Location, error) {
	if q.Path.IsZero() {
		return authz.Location{}, errors.New("there is no object of no path")
	}
	r := request{method: q.Method, key: s.prefix + strings.TrimPrefix(q.Path.String(), "/")}
	if s.opts.Redirect {
		d := q.Download
		r.headers = &headers{disposition: pathguard.Disposition(d.Disposition, q.Asked.Base()), cacheControl: d.CacheControl}
	}
	signed, err := s.signed(ctx, r)
	if err != nil {
		return authz.Location{}, err
	}
	if s.opts.Redirect {
		return authz.Location{Redirect: s.endpoint.scheme + "://" + s.endpoint.host + signed}, nil
	}
	return authz.Location{Upstream: signed}, nil
}

// signed returns path and query, and never another path than the key's.
func (s *Store) signed(ctx context.Context, r request) (string, error) {
	r.at, r.lifetime = s.opts.Now().UTC().Truncate(period), lifetime
	signed, err := s.signer.sign(ctx, r)
	if err != nil {
		return "", fmt.Errorf("sign: %w", err)
	}
	want := s.path(r.key)
	if r.list != nil {
		want = s.endpoint.path + bucketPath(s.base)
	}
	if path, _, _ := strings.Cut(signed, "?"); path != want {
		return "", errors.New("sign: what was signed is another object's URL")
	}
	return signed, nil
}

// path is the escaped path of a key's URL.
func (s *Store) path(key string) string { return s.endpoint.path + s.base + escape(key) }

// bucketPath is the path of a bucket itself, by that of all its paths.
func bucketPath(base string) string { return cmp.Or(strings.TrimSuffix(base, "/"), "/") }

// escape percent-encodes every byte but the unreserved ones of RFC 3986 section 2.3 and
// the slash, as all kinds of store do before they compare signatures.
func escape(text string) string { return pathguard.Escape(text, "-._~/") }

// escapeValue does it for a value of a query, where a slash is escaped too.
func escapeValue(text string) string { return pathguard.Escape(text, "-._~") }

// query is a query in the order of its names, escaped.
func query(values map[string]string) string {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(values)) {
		if values[name] != "" {
			parts = append(parts, escapeValue(name)+"="+escapeValue(values[name]))
		}
	}
	return strings.Join(parts, "&")
}

// deref is what a pointer points to, or nothing.
func deref(o *Options) Options { return *cmp.Or(o, &Options{}) }
