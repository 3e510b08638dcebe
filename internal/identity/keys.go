package identity

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/json"

	"securefiles/internal/loopback"
)

// Limits of asking for keys.
const (
	defaultKeysRefresh = 10 * time.Minute
	// defaultKeysMaxStale is long enough for an issuer to be away over night.
	defaultKeysMaxStale = 24 * time.Hour
	// defaultKeysTimeout is less than nginx waits for the service (2 s).
	defaultKeysTimeout = 1500 * time.Millisecond
	// unknownKeyPause is the least time between two questions that unknown
	// key ids cause: anybody can make one up.
	unknownKeyPause = time.Minute
	firstRetry      = time.Second
	lastRetry       = 30 * time.Second
	// maxWaitingForKeys bounds the requests that wait for an answer of the
	// issuer. More are told at once that it could not be asked.
	maxWaitingForKeys = 64

	wellKnown = "/.well-known/openid-configuration"
)

// KeysOptions say whose keys, and where they are: at URL, in File, or where
// the issuer's OpenID configuration says.
type KeysOptions struct {
	// Issuer is the `iss` of its tokens, and where its OpenID configuration is.
	Issuer string
	// URL and File hold a JWKS (RFC 7517). At most one is set; with neither,
	// the issuer's /.well-known/openid-configuration names the URL.
	URL, File string
	// InsecureHTTP permits keys to come over http from another host: whoever is
	// between can send keys of their own.
	InsecureHTTP bool
	// Algorithms are the allow-list (RFC 7518 names); nil means RS256, PS256,
	// ES256, ES384 and EdDSA. HS256, HS384 and HS512 are for a File alone,
	// and are not mixed with others: a public key must never be taken for a
	// shared secret.
	Algorithms []string
	// Refresh is how often a URL is asked again; zero means ten minutes.
	Refresh time.Duration
	// MaxStale is how long the last good keys of a URL serve while newer ones cannot be
	// had: a key that was withdrawn meanwhile is not known to be. At least Refresh; zero
	// means a day.
	MaxStale time.Duration
	// Timeout bounds one question, discovery included; zero means 1.5 s.
	Timeout time.Duration
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// Keys are the keys that an issuer signs with. A new version replaces the last
// as a whole; while there is none to be had, the last good one stays, for MaxStale. It is
// safe for concurrent use.
//
// A URL is asked by Refresh and Run, and for a token whose key id is unknown,
// at most once a minute. No redirect is followed. Keys that are too weak, or
// that no allowed algorithm uses, are left out, and named in the refusal of a
// token that needs one; in a File they are errors.
type Keys struct {
	opts       KeysOptions
	algorithms []jose.SignatureAlgorithm
	client     *http.Client
	set        atomic.Pointer[keySet]
	confirmed  atomic.Pointer[time.Time] // when the question was asked whose answer set is
	failed     chan struct{}             // wakes Run

	mu      sync.Mutex
	flight  *flight   // the question that is being asked, or nil
	err     error     // of the last question
	unknown time.Time // when an unknown key id last caused one
	loads   uint64    // questions that were answered well
	fails   uint64    // and others
	waiting int       // how many requests may wait for an answer
}

// A flight is one question to the issuer, and whoever waits for its answer.
type flight struct {
	done    chan struct{}
	err     error // once done
	waiting int
}

// NewKeys returns an error that joins an *OptionError for each option that cannot
// be. It reads and asks nothing: Refresh does.
func NewKeys(opts KeysOptions) (*Keys, error) {
	if opts.Algorithms == nil {
		opts.Algorithms = defaultAlgorithms
	}
	k := &Keys{opts: opts, failed: make(chan struct{}, 1), waiting: maxWaitingForKeys}
	p := opts.problems()
	if err := p.err(); err != nil {
		return nil, err
	}
	for _, a := range opts.Algorithms {
		k.algorithms = append(k.algorithms, jose.SignatureAlgorithm(a))
	}
	if k.opts.Refresh == 0 {
		k.opts.Refresh = defaultKeysRefresh
	}
	if k.opts.MaxStale == 0 {
		k.opts.MaxStale = max(defaultKeysMaxStale, 2*k.opts.Refresh)
	}
	if k.opts.Timeout == 0 {
		k.opts.Timeout = defaultKeysTimeout
	}
	if k.opts.Now == nil {
		k.opts.Now = time.Now
	}
	k.client = &http.Client{
		Transport: &http.Transport{
			Proxy:                  http.ProxyFromEnvironment,
			DisableKeepAlives:      true, // asked once in minutes
			DisableCompression:     true, // what is bounded is what was sent
			MaxResponseHeaderBytes: 64 << 10,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return k, nil
}

// problems says which options cannot be.
func (o *KeysOptions) problems() (p problems) {
	switch {
	case o.Issuer == "":
		p.add("issuer", "is missing: write the iss of the tokens, just as they have it")
	case o.URL != "" && o.File != "":
		p.add("", "jwks_url and jwks_file: keys come from one of them")
	case o.URL != "":
		o.checkURL(&p, "jwks_url", o.URL)
	case o.File == "":
		o.checkURL(&p, "issuer", o.Issuer)
	}
	secrets := 0
	for i, a := range o.Algorithms {
		if slices.Contains(symmetricAlgorithms, a) {
			secrets++
		} else if !slices.Contains(asymmetricAlgorithms, a) {
			p.add(indexed("algorithms", i), "%q is not one of %s", a, strings.Join(slices.Concat(asymmetricAlgorithms, symmetricAlgorithms), ", "))
		}
	}
	switch {
	case len(o.Algorithms) == 0:
		p.add("algorithms", "is empty: no token would be accepted; leave it out for the default")
	case secrets > 0 && secrets < len(o.Algorithms):
		p.add("algorithms", "HS256, HS384 and HS512 are not mixed with others: a public key could be taken for a secret")
	case secrets > 0 && o.File == "":
		p.add("algorithms", "HS256, HS384 and HS512 need their secret in a jwks_file")
	}
	return p
}

// checkURL refuses an address from which keys could be forged on the way.
func (o *KeysOptions) checkURL(p *problems, option, text string) {
	u, err := url.Parse(text)
	switch {
	case err == nil && u.User != nil:
		p.add(option, "holds a user and perhaps a password: keys are public, ask without")
	case err != nil || u.Host == "" || u.Fragment != "" || u.Scheme != "https" && u.Scheme != "http":
		p.add(option, "%q is not a URL to ask for keys: https://HOST/PATH, without fragment; or set jwks_url or jwks_file", text)
	case u.Scheme == "http" && loopback.IsName(u.Hostname()):
		p.add(option, twoAddresses, text)
	case u.Scheme == "http" && !o.InsecureHTTP && !loopback.IsAddress(u.Hostname()):
		p.add(option, "%q: whoever is between could send keys of their own: use https, or set insecure_http: true", text)
	}
}

// SameSource reports whether the other keys come from the same place and serve
// the same algorithms, so that one of the two is enough.
func (k *Keys) SameSource(other *Keys) bool {
	a, b := k.opts, other.opts
	return a.Issuer == b.Issuer && a.URL == b.URL && a.File == b.File && slices.Equal(a.Algorithms, b.Algorithms)
}

// Format keeps secret keys out of every %v, %+v and %#v.
func (k *Keys) Format(f fmt.State, _ rune) { fmt.Fprintf(f, "keys of %s", k.opts.Issuer) }

// KeysStatus is the state of an issuer's keys at one moment.
type KeysStatus struct {
	// Generation counts the versions, from 1; 0 is none yet.
	Generation uint64
	// Keys are how many may be used.
	Keys int
	// Skipped says what was left out, one reason a key.
	Skipped []string
	// Err is why the last attempt to load a version failed, or nil.
	Err error
	// Loaded and Failed count the attempts.
	Loaded, Failed uint64
}

// Status returns the state of the keys.
func (k *Keys) Status() KeysStatus {
	k.mu.Lock()
	s := KeysStatus{Err: k.err, Loaded: k.loads, Failed: k.fails}
	k.mu.Unlock()
	if set := k.set.Load(); set != nil {
		s.Generation, s.Keys, s.Skipped = set.generation, len(set.keys), set.problems
	}
	return s
}

// state is what a Source tells of them.
func (k *Keys) state() State {
	s := k.Status()
	detail := fmt.Sprintf("%d keys", s.Keys)
	if len(s.Skipped) > 0 {
		detail += "; skipped: " + strings.Join(s.Skipped, "; ")
	}
	return State{Generation: s.Generation, Err: s.Err, Of: k.opts.Issuer, Detail: detail}
}

// metrics are the series of an issuer's keys.
func (k *Keys) metrics() []Metric {
	const name, help = "securefiles_identity_keys_total", "Attempts to load the keys of a token issuer, by result (loaded, failed)."
	return []Metric{
		{name, help, true, "result", "loaded", func() float64 { return float64(k.Status().Loaded) }},
		{name, help, true, "result", "failed", func() float64 { return float64(k.Status().Failed) }},
		{"securefiles_identity_keys_stale", "Token issuers whose keys could not be loaded when they were last asked for.", false, "", "", func() float64 {
			return truth(k.Status().Err != nil)
		}},
	}
}

// resize changes how many requests may wait for an answer of the issuer.
func (k *Keys) resize(waiting int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.waiting = waiting
}

// Refresh loads the keys, or waits for whoever is loading them already. After
// an error the last good ones stay.
func (k *Keys) Refresh(ctx context.Context) error {
	k.mu.Lock()
	f := k.join()
	k.mu.Unlock()
	return k.wait(ctx, f)
}

// Run loads the keys again and again until ctx ends: after Refresh when all is
// well, after 1 to 30 seconds when the last attempt failed, whoever made it. It
// calls report after each of its attempts. Keys of a file need no Run.
func (k *Keys) Run(ctx context.Context, report func(error)) error {
	retry := firstRetry
	for {
		pause, failed := k.opts.Refresh, k.failed
		if k.Status().Err != nil {
			pause, failed = min(retry, pause), nil // it is known
			retry = min(2*retry, lastRetry)
		} else {
			retry = firstRetry
		}
		select {
		case <-ctx.Done():
			return nil
		case <-failed: // an attempt for an unknown key id
			continue
		case <-time.After(pause):
		}
		if err := k.Refresh(ctx); ctx.Err() == nil {
			report(err)
		}
	}
}

// join returns the flight in progress, or a new one. The caller holds mu.
func (k *Keys) join() *flight {
	if k.flight == nil {
		k.flight = &flight{done: make(chan struct{})}
		go k.fly(k.flight)
	}
	k.flight.waiting++
	return k.flight
}

// wait returns how the flight ended.
func (k *Keys) wait(ctx context.Context, f *flight) error {
	select {
	case <-f.done:
		return f.err
	case <-ctx.Done():
		return fmt.Errorf("wait for keys: %w", ctx.Err())
	}
}

// fly loads a version and puts it in the last one's place. No request's end
// ends it: others may wait for it.
func (k *Keys) fly(f *flight) {
	ctx, cancel := context.WithTimeout(context.Background(), k.opts.Timeout)
	defer cancel()
	asked := k.opts.Now()
	set, err := k.loadSafely(ctx)
	k.mu.Lock()
	defer k.mu.Unlock()
	if last := k.set.Load(); err == nil && (last == nil || last.sum != set.sum) {
		set.generation = 1
		if last != nil {
			set.generation = last.generation + 1
		}
		k.set.Store(set)
	}
	if err == nil {
		k.confirmed.Store(&asked)
	}
	k.flight, k.err, f.err = nil, err, err
	close(f.done)
	if err == nil {
		k.loads++
		return
	}
	k.fails++
	select {
	case k.failed <- struct{}{}:
	default: // Run has yet to look
	}
}

// loadSafely turns a panic into an error: no answer may end the process.
func (k *Keys) loadSafely(ctx context.Context) (set *keySet, err error) {
	defer func() {
		if p := recover(); p != nil {
			set, err = nil, fmt.Errorf("keys of %s: panic while reading them: %v", k.opts.Issuer, p)
		}
	}()
	return k.load(ctx)
}

// find returns the key for a token, and the generation of its set. badCredentials
// say that there is none; every other error that it could not be told.
func (k *Keys) find(ctx context.Context, id, algorithm string) (any, uint64, error) {
	set := k.set.Load()
	if set == nil {
		err := k.Status().Err
		if err == nil {
			err = errors.New("not loaded yet")
		}
		return nil, 0, fmt.Errorf("keys of %s: %w", k.opts.Issuer, err)
	}
	if !k.fresh() {
		if err := k.refetch(ctx); err != nil || !k.fresh() {
			return nil, 0, fmt.Errorf("keys of %s: the last good ones are older than max_stale, %s: %w", k.opts.Issuer, k.opts.MaxStale, cmp.Or(err, errors.New("not asked for since")))
		}
		set = k.set.Load()
	}
	key, err := set.find(id, algorithm)
	if !errors.Is(err, errUnknownKey) || k.opts.File != "" {
		return key, set.generation, err
	}
	if err := k.refetch(ctx); err != nil {
		return nil, 0, fmt.Errorf("keys of %s: a token has one that is not known here: %w", k.opts.Issuer, err)
	}
	set = k.set.Load()
	key, err = set.find(id, algorithm)
	return key, set.generation, err
}

// fresh reports whether the keys may still be believed.
func (k *Keys) fresh() bool {
	confirmed := k.confirmed.Load()
	return k.opts.File != "" || confirmed != nil && k.opts.Now().Sub(*confirmed) <= k.opts.MaxStale
}

// refetch asks the issuer because of an unknown key id, or of keys that are too old, unless that was done
// lately. Its error says that the issuer may have the key all the same.
func (k *Keys) refetch(ctx context.Context) error {
	k.mu.Lock()
	if k.flight == nil {
		if now := k.opts.Now(); !k.unknown.IsZero() && now.Sub(k.unknown) < unknownKeyPause {
			defer k.mu.Unlock()
			return k.err
		} else {
			k.unknown = now
		}
	} else if k.flight.waiting >= k.waiting {
		defer k.mu.Unlock()
		return errors.New("too many requests wait for the issuer")
	}
	f := k.join()
	k.mu.Unlock()
	return k.wait(ctx, f)
}

// load reads a version from where it is.
func (k *Keys) load(ctx context.Context) (*keySet, error) {
	if k.opts.File != "" {
		text, err := readFile("keys", k.opts.File, maxKeySetBytes)
		if err != nil {
			return nil, err
		}
		set, err := parseKeySet([]byte(text), k.opts.Algorithms)
		if err == nil && len(set.problems) > 0 {
			err = errors.New(strings.Join(set.problems, "; "))
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", k.opts.File, err)
		}
		return set, nil
	}
	from := k.opts.URL
	if from == "" {
		var err error
		if from, err = k.discover(ctx); err != nil {
			return nil, err
		}
	}
	text, err := k.get(ctx, from)
	if err != nil {
		return nil, err
	}
	set, err := parseKeySet(text, k.opts.Algorithms)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", from, err)
	}
	return set, nil
}

// discover returns where the issuer says that its keys are (OpenID Connect
// Discovery 1.0, section 4).
func (k *Keys) discover(ctx context.Context) (string, error) {
	from := strings.TrimSuffix(k.opts.Issuer, "/") + wellKnown
	text, err := k.get(ctx, from)
	if err != nil {
		return "", err
	}
	var document struct {
		Issuer  string `json:"issuer"`
		JWKSURI string `json:"jwks_uri"`
	}
	if err := json.Unmarshal(text, &document); err != nil {
		return "", fmt.Errorf("%s: not an OpenID configuration: no JSON object without duplicates", from)
	}
	if document.Issuer != k.opts.Issuer {
		return "", fmt.Errorf("%s: names another issuer, %.100q: write the issuer just as it does", from, document.Issuer)
	}
	u, err := url.Parse(document.JWKSURI)
	if err != nil || u.Host == "" || u.User != nil || u.Scheme != "https" && (u.Scheme != "http" || !strings.HasPrefix(k.opts.Issuer, "http://")) {
		return "", fmt.Errorf("%s: its jwks_uri is not an https URL", from)
	}
	return document.JWKSURI, nil
}

// get returns what a URL answers, if it is all there with status 200.
func (k *Keys) get(ctx context.Context, from string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, from, nil)
	if err != nil {
		return nil, fmt.Errorf("ask for keys: %w", err)
	}
	req.Header.Set("Accept", "application/json")
	resp, err := k.client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("ask for keys: %w", err)
	}
	defer resp.Body.Close() // read as far as it counts
	if resp.StatusCode >= 300 && resp.StatusCode < 400 {
		return nil, fmt.Errorf("%s: status %d, a redirect, which is not followed: name the address that it leads to", from, resp.StatusCode)
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: status %d", from, resp.StatusCode)
	}
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxKeySetBytes+1))
	if err != nil {
		return nil, fmt.Errorf("%s: read the answer: %w", from, err)
	}
	if len(text) > maxKeySetBytes {
		return nil, fmt.Errorf("%s: the answer is larger than 256 KiB", from)
	}
	return text, nil
}
