package identity

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"maps"
	"mime"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"
	"unicode"

	"github.com/maypok86/otter/v2"
	"golang.org/x/sync/singleflight"

	"securefiles/authz"
	"securefiles/internal/authority"
	"securefiles/internal/loopback"
)

// sourceSession names the source in metrics.
const sourceSession = "session"

const (
	maxSessionBytes     = 16 << 10 // of all credentials of a request
	maxSessionNames     = 16       // cookies and headers to forward
	maxAnswerHeader     = 32 << 10
	maxAnswerBody       = 64 << 10
	maxSessionMemory    = 16 << 20                // of remembered answers
	maxCallsWaiting     = 1024                    // calls that wait for a turn
	maxSessionsWaiting  = 512                     // requests that wait, also those for the same call
	maxTurnWait         = 1600 * time.Millisecond // for a turn: nginx waits for 2 s in all
	restAfterFailure    = time.Second             // credentials by which it did not answer are not tried again
	defaultCallTimeout  = time.Second
	defaultSession      = 30 * time.Second
	defaultRefused      = 5 * time.Second
	defaultCalls        = 64
	defaultSubjectField = "subject"
	defaultGroupsField  = "groups"
)

// SessionOptions say which application to ask, with what, and where its answer
// has the caller. URL and at least one of Cookies and Headers must be set.
type SessionOptions struct {
	// URL is asked with GET: `http://127.0.0.1:8000/whoami`, http or https.
	URL string
	// InsecureHTTP permits http to another host, which shows the credentials to
	// the network between.
	InsecureHTTP bool
	// Socket is the path of a unix socket to connect to instead of the URL's
	// host.
	Socket string
	// Cookies and Headers are the credentials: nothing else of the caller's
	// request is sent. Headers are Authorization, and names that HeaderOptions
	// describes.
	// A cookie `NAME*` is NAME and its numbered parts: NAME_0, NAME_1of2.
	Cookies, Headers []string
	// Send are further headers, the same in every call; Host takes the place
	// of the URL's.
	Send map[string]string
	// SubjectHeader and GroupsHeader are headers of the answer: the subject,
	// and groups as in HeaderOptions. An empty one is no groups.
	SubjectHeader, GroupsHeader string
	// SubjectPath and GroupsPath say where a JSON answer has the subject, a
	// string, and the groups, an array of strings: `user.name`. They are read
	// where SubjectHeader is empty. Both empty means `subject` and `groups`.
	// GroupsPath must exist in every answer; null is no groups.
	SubjectPath, GroupsPath string
	// GroupsOptional says that an answer without a GroupsHeader, or without
	// anything at the GroupsPath, gives no groups.
	GroupsOptional bool
	// Timeout bounds a call, from its start. Zero means a second.
	Timeout time.Duration
	// Remember is how long an answer that names a caller is not asked for
	// again, and RememberRefused one that does not, at most Remember. Zero
	// means 30 and 5 seconds.
	Remember, RememberRefused time.Duration
	// CAFile holds the certificates, in PEM form, that vouch for an https URL;
	// empty means the system's.
	CAFile string
	// MaxCalls bounds the calls at one time. Zero means 64.
	MaxCalls int
	// OnBreaker is told when the application stops answering (true) and when
	// it answers again (false). It must not block.
	OnBreaker func(open bool)
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// A Session asks an application who its session cookie, or another credential,
// belongs to. It is safe for concurrent use. The zero Session finds no
// credentials.
//
// The application answers 2xx with the subject, 401 for credentials that are
// nobody's (any longer), or 403 for those of somebody who may not be here. A JSON answer whose subject is null says that
// the session is good and nobody is logged in: the request counts as one
// without credentials. Any other answer, a redirect included, is no answer.
//
// Answers are remembered for a short time, counted from the start of the call:
// a caller who has logged out, or lost a group, keeps what the answer said for
// so long. While the application is away, remembered answers count and all
// others are an error.
type Session struct {
	url              string
	origin           string // of the URL: http://127.0.0.1:8000
	host             string
	cookies, headers []string // headers in canonical form
	send             http.Header
	read             func(*http.Response) (authz.Principal, error)
	timeout          time.Duration
	remember         time.Duration
	rememberRefused  time.Duration
	now              func() time.Time
	client           atomic.Pointer[http.Client] // nil where it has no certificates yet
	connect          func() (*http.Client, error)

	secret     *secret // keys the digests
	remembered *otter.Cache[digest, answer]
	calls      singleflight.Group // one call for many requests of a session
	semaphore  *semaphore
	waiters    *waiters
	breaker    *breaker

	known, refused, failed atomic.Uint64
	generation             atomic.Uint64         // of the certificates
	stale                  atomic.Pointer[error] // why the last reload failed, or nil
}

// An answer is what the application said of some credentials.
type answer struct {
	principal authz.Principal
	err       error // authz.ErrNoCredentials or an *authz.CredentialsError
	until     time.Time
}

// NewSession returns an error that joins an *OptionError for each option that
// cannot be. It does not ask the application.
func NewSession(o SessionOptions) (*Session, error) {
	s, err := unconnected(o)
	if err != nil {
		return nil, err
	}
	if err := s.Reload(context.Background()); err != nil {
		return nil, err
	}
	return s, nil
}

// NewSessionSource returns one as NewSession does, that has yet to load its
// certificates, with all that others need to know of it.
func NewSessionSource(o SessionOptions) (*Source, error) {
	s, err := unconnected(o)
	if err != nil {
		return nil, err
	}
	out := &Source{
		Authenticator: s, Name: sourceSession, Place: strings.Join(slices.Concat(o.Headers, o.Cookies), ", ") + ", asked of the application",
		Reads: slices.Clone(s.headers), Rule: "session", Metrics: s.metrics(),
		waiting: maxSessionsWaiting, resize: s.waiters.resize,
		Authority: "the application at " + strings.TrimSpace(s.origin+" "+o.Socket),
	}
	o.OnBreaker, o.Now = nil, nil
	out.options, out.end = o, s.end
	for _, name := range s.cookies {
		out.Reads = append(out.Reads, "Cookie: "+name)
	}
	for i, name := range o.Headers {
		out.Headers = append(out.Headers, RequestHeader{Name: name, FromClient: true, option: indexed("headers", i)})
	}
	if o.CAFile == "" { // there is nothing to load
		if err := s.Reload(context.Background()); err != nil {
			return nil, err
		}
		return out, nil
	}
	out.Holds, out.Files, out.Reload, out.State = "certificates", []string{o.CAFile}, s.Reload, func() State {
		state := State{Generation: s.generation.Load(), Of: o.CAFile}
		if err := s.stale.Load(); err != nil {
			state.Err = *err
		}
		return state
	}
	return out, nil
}

// Reload reads the certificates that vouch for the application again. Calls that
// have begun end as they began. After an error, the last ones stay.
func (s *Session) Reload(context.Context) error {
	client, err := s.connect()
	if err != nil {
		s.stale.Store(&err)
		return err
	}
	s.stale.Store(nil)
	last := s.client.Load()
	if last != nil && authorities(last).Equal(authorities(client)) {
		return nil
	}
	s.generation.Add(1)
	s.client.Store(client)
	if last != nil {
		last.CloseIdleConnections()
	}
	return nil
}

// end closes the connections that no call uses.
func (s *Session) end() {
	if client := s.client.Load(); client != nil {
		client.CloseIdleConnections()
	}
}

// authorities are those that a client trusts; nil is those of the system.
func authorities(c *http.Client) *x509.CertPool {
	return c.Transport.(*http.Transport).TLSClientConfig.RootCAs
}

// metrics are the series of the calls.
func (s *Session) metrics() []Metric {
	const name, help = "securefiles_session_calls_total", "Calls that asked an application who is logged in, by result (known, refused, failed)."
	return []Metric{
		{name, help, true, "result", "known", func() float64 { return float64(s.known.Load()) }},
		{name, help, true, "result", "refused", func() float64 { return float64(s.refused.Load()) }},
		{name, help, true, "result", "failed", func() float64 { return float64(s.failed.Load()) }},
		{"securefiles_session_breaker_open", "Applications that did not answer and are left alone.", false, "", "", func() float64 {
			return truth(s.Stats().Open)
		}},
	}
}

// unconnected has yet to load its certificates.
func unconnected(o SessionOptions) (*Session, error) {
	def(&o.Timeout, defaultCallTimeout)
	def(&o.Remember, defaultSession)
	def(&o.RememberRefused, min(defaultRefused, o.Remember))
	def(&o.MaxCalls, defaultCalls)
	if o.SubjectHeader == "" && o.GroupsHeader == "" && o.SubjectPath == "" && o.GroupsPath == "" {
		o.SubjectPath, o.GroupsPath = defaultSubjectField, defaultGroupsField
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	s := &Session{
		cookies: slices.Clone(o.Cookies), send: http.Header{},
		timeout: o.Timeout, remember: o.Remember, rememberRefused: o.RememberRefused, now: o.Now,
		secret:    newSecret(),
		semaphore: newSemaphore(max(1, o.MaxCalls), maxCallsWaiting),
		waiters:   newWaiters(maxSessionsWaiting),
	}
	s.send.Set("User-Agent", "securefiles")
	var p problems
	s.setRequest(&p, o)
	s.setReader(&p, o)
	o.checkTimes(&p)
	if err := p.err(); err != nil {
		return nil, err
	}
	s.connect = func() (*http.Client, error) {
		transport, err := newTransport(o)
		if err != nil {
			return nil, err
		}
		return &http.Client{
			Transport:     transport,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		}, nil
	}
	// As in Basic, the cache has no expiry of its own.
	var err error
	s.remembered, err = otter.New(&otter.Options[digest, answer]{MaximumWeight: maxSessionMemory, Weigher: weigh})
	if err != nil {
		return nil, fmt.Errorf("make the cache of answers: %w", err)
	}
	onBreaker := o.OnBreaker
	if onBreaker == nil {
		onBreaker = func(bool) {}
	}
	s.breaker = &breaker{now: o.Now, onChange: onBreaker, failed: map[digest]bool{}, ask: s.askWithoutCredentials}
	return s, nil
}

// def sets what was left out.
func def[T comparable](v *T, value T) {
	if *v == *new(T) {
		*v = value
	}
}

// setRequest checks and keeps what a call consists of.
func (s *Session) setRequest(p *problems, o SessionOptions) {
	s.setURL(p, o)
	if n := len(o.Cookies) + len(o.Headers); n == 0 || n > maxSessionNames {
		p.add("", "name the cookies or headers that carry the session, at most 16: cookies: [sessionid]")
	}
	for i, name := range s.cookies {
		base, _ := familyBase(name)
		if err := ValidCookieName(base); err != nil {
			p.add(indexed("cookies", i), "%q %v", name, err)
		}
		if slices.Contains(s.cookies[:i], name) {
			p.add(indexed("cookies", i), "%q stands there twice", name)
		}
	}
	for i, name := range o.Headers {
		canonical := http.CanonicalHeaderKey(name)
		switch isOwn := strings.HasPrefix(canonical, "X-") && validHeaderName(name) == nil; {
		case isOwn || canonical == "Authorization":
		case strings.HasPrefix(canonical, "X-") && isReservedHeader(strings.ToLower(name)):
			p.add(indexed("headers", i), "%q is nginx's word, not the client's: use a header of its own, such as X-Session-Token", name)
		default:
			p.add(indexed("headers", i), "%q cannot carry a session: Authorization, or a name that begins with X-", name)
		}
		if slices.Contains(s.headers, canonical) {
			p.add(indexed("headers", i), "%q stands there twice", name)
		}
		s.headers = append(s.headers, canonical)
	}
	for _, name := range slices.Sorted(maps.Keys(o.Send)) {
		value, canonical := o.Send[name], http.CanonicalHeaderKey(name)
		switch {
		case !isToken(name) || strings.Contains(name, "_") || !isPrintable(value):
			p.add("send", "%q: names are letters, digits and -, values printable ASCII", name)
		case canonical == "Host":
			s.host = value
			continue
		case canonical == "Cookie" || canonical == "Authorization":
			p.add("send", "%q carries credentials: those of the caller are named in cookies and headers, and secrets have no place in this file", name)
		case slices.Contains(s.headers, canonical):
			p.add("send", "%q carries the session: it is the caller's", name)
		case isHopByHop(canonical):
			p.add("send", "%q belongs to the connection: leave it out", name)
		}
		s.send.Set(canonical, value)
	}
}

// setURL checks and keeps where the application is.
func (s *Session) setURL(p *problems, o SessionOptions) {
	u, err := url.Parse(o.URL)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || u.Fragment != "" {
		// It is not quoted: it may hold a password.
		p.add("url", "write http://HOST/PATH or https://HOST/PATH, without a user, password and fragment")
		return
	}
	s.url, s.origin, s.host = u.String(), u.Scheme+"://"+u.Host, u.Host
	if o.Socket != "" && (!filepath.IsAbs(o.Socket) || len(o.Socket) > 107) {
		p.add("socket", "%q: a unix socket needs an absolute path of at most 107 bytes", o.Socket)
	}
	switch {
	case u.Scheme != "http" || o.Socket != "":
	case loopback.IsName(u.Hostname()):
		p.add("url", twoAddresses, u.Host)
	case !loopback.IsAddress(u.Hostname()) && !o.InsecureHTTP:
		p.add("url", "%q shows session cookies to the network between: use https, or set insecure_http: true", u.Host)
	}
	if o.CAFile != "" && u.Scheme != "https" {
		p.add("ca_file", "belongs to an https url")
	}
}

// checkTimes checks what the times mean for each other.
func (o *SessionOptions) checkTimes(p *problems) {
	if o.Timeout < 0 || o.Remember < 0 || o.RememberRefused < 0 {
		p.add("", "a time is negative")
	}
	if o.RememberRefused > o.Remember {
		p.add("remember_refused", "%s is longer than remember, %s: who logs in would wait for it", o.RememberRefused, o.Remember)
	}
}

// isHopByHop reports whether a header is not for the application (RFC 9110
// section 7.6.1), or is the transport's to set.
func isHopByHop(canonical string) bool {
	return slices.Contains([]string{"Connection", "Keep-Alive", "Te", "Trailer", "Transfer-Encoding", "Upgrade", "Content-Length", "Expect", "Accept-Encoding"}, canonical) ||
		strings.HasPrefix(canonical, "Proxy-")
}

// setReader chooses how answers are read.
func (s *Session) setReader(p *problems, o SessionOptions) {
	name := func(option, value string) {
		if value != "" && !isToken(value) {
			p.add(option, "%q is not a header name: letters, digits and -", value)
		}
	}
	path := func(option, value string) {
		if value != "" && (slices.Contains(strings.Split(value, "."), "") || strings.ContainsFunc(value, unicode.IsSpace)) {
			p.add(option, "%q is not a path into JSON: names with dots between, such as user.name", value)
		}
	}
	fromHeader, fromJSON := o.SubjectHeader != "" || o.GroupsHeader != "", o.SubjectPath != "" || o.GroupsPath != ""
	switch {
	case fromHeader && fromJSON:
		p.add("", "the answer is read from headers (subject_header, groups_header) or from JSON (subject_path, groups_path), not from both")
		return
	case fromHeader && o.SubjectHeader == "":
		p.add("groups_header", "groups are nobody's without a subject: set subject_header too")
		return
	case !fromHeader && o.SubjectPath == "":
		p.add("groups_path", "groups are nobody's without a subject: set subject_path too")
		return
	case fromHeader:
		name("subject_header", o.SubjectHeader)
		name("groups_header", o.GroupsHeader)
		subject, groups := http.CanonicalHeaderKey(o.SubjectHeader), http.CanonicalHeaderKey(o.GroupsHeader)
		s.read = func(resp *http.Response) (authz.Principal, error) {
			return readHeaders(resp.Header, subject, groups, o.GroupsOptional)
		}
		return
	}
	path("subject_path", o.SubjectPath)
	path("groups_path", o.GroupsPath)
	if s.send.Get("Accept") == "" {
		s.send.Set("Accept", "application/json")
	}
	s.read = func(resp *http.Response) (authz.Principal, error) {
		if t, _, err := mime.ParseMediaType(resp.Header.Get("Content-Type")); err != nil || t != "application/json" && !strings.HasSuffix(t, "+json") {
			return authz.Principal{}, errors.New("the answer is not JSON: does the URL answer 401 to nobody, instead of a login page?")
		}
		text, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswerBody+1))
		if err != nil {
			return authz.Principal{}, away(fmt.Errorf("read the answer: %w", err))
		}
		return readJSON(text, o.SubjectPath, o.GroupsPath, o.GroupsOptional)
	}
}

// newTransport connects to the application and to nothing else: no proxy of
// the environment's comes between.
func newTransport(o SessionOptions) (*http.Transport, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if o.CAFile != "" {
		var err error
		if config.RootCAs, err = authority.Load(o.CAFile); err != nil {
			return nil, err
		}
	}
	// A request that gives up leaves its dial behind, so that has a bound too.
	dialer := net.Dialer{Timeout: o.Timeout}
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	t := &http.Transport{
		DialContext: dialer.DialContext, TLSClientConfig: config, Protocols: protocols,
		DisableCompression:     true, // a small answer must not become a large one
		MaxResponseHeaderBytes: maxAnswerHeader,
		MaxIdleConnsPerHost:    o.MaxCalls,
		IdleConnTimeout:        30 * time.Second,
		TLSHandshakeTimeout:    o.Timeout,
	}
	if o.Socket != "" {
		t.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "unix", o.Socket)
		}
	}
	return t, nil
}

// weigh says how many bytes an answer takes, about.
func weigh(_ digest, a answer) uint32 {
	n := 512 + len(a.principal.Subject)
	for _, g := range a.principal.Groups {
		n += 32 + len(g)
	}
	return uint32(n) // an answer has at most 64 KiB
}

// Authenticate asks the application, or its memory, who the request's
// credentials belong to. None is authz.ErrNoCredentials, and so is a session
// without a login, if the application says so. Credentials that it does not
// know are an *authz.CredentialsError, and so are those that cannot be right: a
// cookie or header that came twice, is longer than 16 KiB in all or not
// printable ASCII. To log in again would not help against a cookie that came twice,
// what is too large, and 403 from the application: those are final. A name that ValidSubject refuses, or such a group, is
// authz.ErrReservedSubject. Anything else is an *authz.UnavailableError.
//
// The call serves every request that waits for it: ctx ends the wait, not the
// call.
func (s *Session) Authenticate(ctx context.Context, q *authz.Question) (authz.Principal, error) {
	values, err := s.credentials(q.Header)
	if errors.Is(err, authz.ErrNoCredentials) {
		return authz.Principal{}, authz.ErrNoCredentials
	}
	if err != nil {
		return authz.Principal{}, refused(sourceSession, err)
	}
	key := s.secret.digest(values...)
	if a, ok := s.remembered.GetIfPresent(key); ok && s.now().Before(a.until) {
		return a.principal, s.explained(a.err, q.Header)
	}
	from := caller(q.IP)
	leave, err := s.waiters.enter(from)
	if err != nil {
		s.failed.Add(1)
		return authz.Principal{}, &authz.UnavailableError{Source: sourceSession, Err: err}
	}
	defer leave()
	call := s.calls.DoChan(string(key[:]), func() (any, error) {
		return s.ask(context.WithoutCancel(ctx), from, key, values)
	})
	select {
	case <-ctx.Done():
		return authz.Principal{}, &authz.UnavailableError{Source: sourceSession, Err: ctx.Err()}
	case result := <-call:
		if result.Err != nil {
			return authz.Principal{}, &authz.UnavailableError{Source: sourceSession, Err: result.Err}
		}
		a := result.Val.(answer)
		return a.principal, s.explained(a.err, q.Header)
	}
}

// explained says beside a refusal what may be the cause: a session that comes in
// parts of which not all are named, whose owner logs in again and again.
func (s *Session) explained(err error, h http.Header) error {
	var bad *authz.CredentialsError
	if errors.As(err, &bad) && !bad.Final && !errors.Is(err, authz.ErrReservedSubject) {
		if family, found := unnamedPart(h, s.cookies); found {
			more := *bad
			more.Problem += fmt.Sprintf("; the request has parts of the cookie that are not named: write %s among the cookies, which is all of them", family)
			return &more
		}
	}
	return err
}

// credentials returns the values of the named cookies and headers, in that
// order, each empty where it did not come. That of a family is its pairs, as they
// are sent on.
func (s *Session) credentials(h http.Header) ([]string, error) {
	if s.url == "" {
		return nil, authz.ErrNoCredentials // the zero Session
	}
	values := make([]string, 0, len(s.cookies)+len(s.headers))
	for _, name := range s.cookies {
		read := onlyCookie
		if base, isFamily := familyBase(name); isFamily {
			name, read = base, cookieFamily
		}
		value, err := read(h, name)
		if err != nil {
			return nil, err
		}
		values = append(values, value)
	}
	for _, name := range s.headers {
		value, err := onlyValue(h, name)
		if err != nil {
			return nil, err
		}
		values = append(values, value)
	}
	total := 0
	for _, v := range values {
		if v != "" && !isPrintable(v) {
			return nil, errors.New("a cookie or header is not printable ASCII")
		}
		total += len(v)
	}
	switch {
	case total == 0:
		return nil, authz.ErrNoCredentials
	case total > maxSessionBytes:
		return nil, tooLarge("the cookies and headers are longer than 16384 bytes")
	}
	return values, nil
}

// isPrintable reports whether a value is printable ASCII, with blanks between
// at most: it can stand in a header as it is.
func isPrintable(value string) bool {
	for i := range len(value) {
		if value[i] < ' ' || value[i] > '~' {
			return false
		}
	}
	return value != "" && value[0] != ' ' && value[len(value)-1] != ' '
}

// isToken reports whether a name is a token (RFC 9110 section 5.6.2), as
// cookies and headers are named.
func isToken(name string) bool {
	return name != "" && !strings.ContainsFunc(name, func(r rune) bool {
		return r <= ' ' || r > '~' || strings.ContainsRune("\"(),/:;<=>?@[\\]{}", r)
	})
}

// ask calls the application once and remembers what it said. What the call takes is
// counted from its start: to wait for a turn is no fault of the application.
func (s *Session) ask(ctx context.Context, from netip.Addr, key digest, values []string) (a answer, err error) {
	defer func() {
		// It runs in a goroutine of its own, where a panic would end the process.
		if p := recover(); p != nil {
			err = fmt.Errorf("panic while asking: %v", p)
		}
		if err != nil {
			s.failed.Add(1)
		}
	}()
	if a, ok := s.remembered.GetIfPresent(key); ok && s.now().Before(a.until) {
		return a, nil // of a call that has just ended
	}
	if err := s.takeTurn(ctx, from); err != nil {
		return answer{}, err
	}
	defer s.semaphore.leave()
	trial, ok := s.breaker.allow()
	if !ok {
		return answer{}, s.leftAlone()
	}
	away := false
	defer func() { s.breaker.done(key, trial, away) }()
	start := s.now()
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	a, err = s.call(ctx, values)
	switch {
	case errors.As(err, new(*awayError)):
		away = true
		err = fmt.Errorf("ask %s: %w", s.url, err)
		s.remembered.Set(key, answer{err: &authz.UnavailableError{Source: sourceSession, Err: err}, until: s.now().Add(restAfterFailure)})
		return answer{}, err
	case err != nil:
		return answer{}, fmt.Errorf("ask %s: %w", s.url, err)
	case a.err == nil:
		s.known.Add(1)
		a.until = start.Add(s.remember)
	default:
		s.refused.Add(1)
		a.until = start.Add(s.rememberRefused)
	}
	s.remembered.Set(key, a)
	return a, nil
}

// takeTurn waits for one of the calls that may be made at a time.
func (s *Session) takeTurn(ctx context.Context, from netip.Addr) error {
	if s.breaker.isPaused() {
		return s.leftAlone()
	}
	ctx, cancel := context.WithTimeout(ctx, maxTurnWait)
	defer cancel()
	return s.semaphore.enter(ctx, from)
}

func (s *Session) leftAlone() error {
	return fmt.Errorf("%s has not answered lately and is left alone for a moment", s.url)
}

// askWithoutCredentials reports whether the application answers at all, however it
// treats the sessions of some callers.
func (s *Session) askWithoutCredentials() (err error) {
	defer func() {
		if p := recover(); p != nil { // as in ask
			err = nil
		}
	}()
	ctx, cancel := context.WithTimeout(context.Background(), s.timeout)
	defer cancel()
	_, err = s.call(ctx, make([]string, len(s.cookies)+len(s.headers)))
	if !errors.As(err, new(*awayError)) {
		return nil // however strange, an answer
	}
	return err
}

// An awayError says that the application does not answer, rather than that it
// answers something strange.
type awayError struct{ err error }

func (e *awayError) Error() string { return e.err.Error() }
func (e *awayError) Unwrap() error { return e.err }

// away marks an error of a call that says that nobody is there, or not in time.
// To hang up is an answer: applications do so on headers that are too long for
// them, and it takes no time.
func away(err error) error {
	var network *net.OpError
	var slow net.Error
	if errors.As(err, &network) && network.Op == "dial" || errors.As(err, &slow) && slow.Timeout() {
		return &awayError{err}
	}
	return err
}

// call makes the request and reads the answer.
func (s *Session) call(ctx context.Context, values []string) (answer, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url, nil)
	if err != nil {
		return answer{}, err
	}
	req.Host = s.host
	req.Header = maps.Clone(s.send)
	var cookies []string
	for i, name := range s.cookies {
		if _, isFamily := familyBase(name); isFamily && values[i] != "" {
			cookies = append(cookies, values[i])
		} else if values[i] != "" {
			cookies = append(cookies, name+"="+values[i])
		}
	}
	if cookies != nil {
		req.Header["Cookie"] = []string{strings.Join(cookies, "; ")}
	}
	for i, name := range s.headers {
		if v := values[len(s.cookies)+i]; v != "" {
			req.Header[name] = []string{v}
		}
	}
	client := s.client.Load()
	if client == nil {
		return answer{}, errors.New("the certificates that vouch for it are not loaded")
	}
	resp, err := client.Do(req)
	if err != nil {
		var failed *url.Error // says the URL once more
		if errors.As(err, &failed) {
			err = failed.Err
		}
		return answer{}, away(err)
	}
	defer func() {
		// What little is left is read, so that the connection can be used again.
		_, _ = io.CopyN(io.Discard, resp.Body, maxAnswerBody) // the answer is read already
		_ = resp.Body.Close()                                 // nothing depends on it
	}()
	switch code := resp.StatusCode; {
	case code == http.StatusUnauthorized:
		return refusal("the application does not know the session", false), nil
	case code == http.StatusForbidden:
		return refusal("the application knows the session, and refuses it (403); one that means nobody by it must answer 401", true), nil
	case code == http.StatusRequestHeaderFieldsTooLarge || code == http.StatusRequestEntityTooLarge:
		return refusal(fmt.Sprintf("the cookies and headers are too large for the application (%d)", code), true), nil
	case 200 <= code && code < 300:
		p, err := s.read(resp)
		return answerOf(p, err)
	case 300 <= code && code < 400:
		return answer{}, fmt.Errorf("it answered %d, a redirect: make it answer 401 to nobody", code)
	case code == http.StatusServiceUnavailable || code == http.StatusGatewayTimeout: // 502: one that hung up on a gateway
		return answer{}, &awayError{fmt.Errorf("it answered %d", code)}
	default:
		return answer{}, fmt.Errorf("it answered %d", code)
	}
}

// answerOf turns what was read into an answer. Names that the service does not
// take are an answer too: asking again would not change them.
func answerOf(p authz.Principal, err error) (answer, error) {
	var invalid *invalidNameError
	switch {
	case err == nil:
		p.Source = sourceSession
		return answer{principal: p}, nil
	case errors.Is(err, authz.ErrNoCredentials):
		return answer{err: authz.ErrNoCredentials}, nil
	case errors.As(err, &invalid):
		return answer{err: unfit(sourceSession, invalid)}, nil
	default:
		return answer{}, err
	}
}

func refusal(problem string, forbidden bool) answer {
	return answer{err: &authz.CredentialsError{Source: sourceSession, Problem: problem, Final: forbidden, Forbidden: forbidden}}
}

// An invalidNameError says that the application named a subject or group that no
// source may vouch for.
type invalidNameError struct{ problem string }

func (e *invalidNameError) Error() string { return e.problem }

// readHeaders takes the caller from the headers of an answer. The names are
// canonical; groups may be empty.
func readHeaders(h http.Header, subjectHeader, groupsHeader string, groupsOptional bool) (authz.Principal, error) {
	subject, err := onlyValue(h, subjectHeader)
	if err != nil {
		return authz.Principal{}, fmt.Errorf("in the answer, %w", err)
	}
	if subject == "" {
		return authz.Principal{}, fmt.Errorf("the answer has no %s: is the URL the one that says who is logged in?", subjectHeader)
	}
	list, err := onlyValue(h, groupsHeader)
	if err != nil {
		return authz.Principal{}, fmt.Errorf("in the answer, %w", err)
	}
	if err := authz.ValidSubject(subject); err != nil {
		return authz.Principal{}, &invalidNameError{"the subject " + err.Error()}
	}
	if groupsHeader != "" && len(h[groupsHeader]) == 0 && !groupsOptional {
		return authz.Principal{}, fmt.Errorf("the answer has no %s: nobody can tell which groups the caller has; send an empty one where there are none, or set groups: optional", groupsHeader)
	}
	groups, err := parseGroups(list)
	if err != nil {
		return authz.Principal{}, &invalidNameError{err.Error()}
	}
	return authz.Principal{Subject: subject, Groups: groups}, nil
}

// readJSON takes the caller from a JSON answer. groupsPath may be empty. Errors
// quote nothing of the answer.
func readJSON(text []byte, subjectPath, groupsPath string, groupsOptional bool) (authz.Principal, error) {
	if len(text) > maxAnswerBody {
		return authz.Principal{}, errors.New("the answer is longer than 65536 bytes")
	}
	body, err := parseObject(text)
	if err != nil {
		return authz.Principal{}, fmt.Errorf("the answer %w", err)
	}
	value, found := lookUp(body, subjectPath)
	if !found {
		return authz.Principal{}, fmt.Errorf("the answer has no %q", subjectPath)
	}
	if value == nil {
		return authz.Principal{}, authz.ErrNoCredentials
	}
	subject, ok := value.(string)
	if !ok {
		return authz.Principal{}, fmt.Errorf("%q in the answer is neither a string nor null", subjectPath)
	}
	var list any
	if groupsPath != "" {
		// A group that is missing by mistake would be missed by a deny line.
		if list, found = lookUp(body, groupsPath); !found && !groupsOptional {
			return authz.Principal{}, fmt.Errorf("the answer has no %q: answer [] or null where there are none, or set groups: optional", groupsPath)
		}
	}
	items, ok := list.([]any)
	if list != nil && !ok {
		return authz.Principal{}, errors.New("the groups in the answer are neither an array nor null")
	}
	names := make([]string, len(items))
	for i, item := range items {
		if names[i], ok = item.(string); !ok {
			return authz.Principal{}, errors.New("a group in the answer is not a string")
		}
		if err := validClaim(names[i], authz.ValidGroup); err != nil {
			return authz.Principal{}, &invalidNameError{"a group " + err.Error()}
		}
	}
	if err := validClaim(subject, authz.ValidSubject); err != nil {
		return authz.Principal{}, &invalidNameError{"the subject " + err.Error()}
	}
	groups, err := groupNames(names)
	if err != nil {
		return authz.Principal{}, &invalidNameError{err.Error()}
	}
	return authz.Principal{Subject: subject, Groups: groups}, nil
}

// SessionStats count calls since the start, by how they ended.
type SessionStats struct {
	// Known calls named a caller, Refused ones did not, Failed ones told
	// neither.
	Known, Refused, Failed uint64
	// Open says that the application is left alone because it did not answer.
	Open bool
}

// Stats returns the counts.
func (s *Session) Stats() SessionStats {
	return SessionStats{
		Known: s.known.Load(), Refused: s.refused.Load(), Failed: s.failed.Load(),
		Open: s.breaker.isOpen(),
	}
}

// Format keeps the key out of every %v, %+v and %#v.
func (s *Session) Format(f fmt.State, _ rune) { fmt.Fprintf(f, "session %s", s.url) }
