package frontend

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"mime"
	"net"
	"net/http"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"securefiles/authz"
	"securefiles/internal/loopback"
	"securefiles/internal/rooted"
)

const (
	// sendTimeout is how long a client may take to read anything, as nginx's send_timeout.
	sendTimeout = time.Minute
	// maxBody is what the service's own API takes, in bytes, as client_max_body_size of the
	// snippet.
	maxBody = 16 << 10
)

// A DirectDownload is what [Direct] serves itself below a URL.
type DirectDownload struct {
	// URL and Internal are those of the download that is asked about.
	URL, Internal string
	// Root is the directory of the files. FollowSymlinks follows links that stay in it.
	Root           string
	FollowSymlinks bool
	// Embed says whose pages may embed a file, and Origins which other origins' pages may
	// read one, as those of the nginx configuration.
	Embed   string
	Origins []string
}

// DirectOptions are what a Direct can do without.
type DirectOptions struct {
	// Headers carry credentials of a client's, beside Authorization and Cookie.
	Headers []string
	// AnyHost answers for every host. Else it is the names of this machine alone: a
	// page of another site, whose name leads to this machine for a moment, would
	// otherwise be of the same origin.
	AnyHost bool
	// Delivered gets a line for each answer below a download, as nginx's delivery log
	// has it; nil for none.
	Delivered io.Writer
	// Logger is told of what cannot be opened.
	Logger *slog.Logger
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// A Direct is a web server for development: it asks the service as nginx would, by the
// same headers, does what nginx would do with the answer, and sends the files itself. No
// header of a client's says who asks, but for those that carry credentials. It is safe
// for concurrent use.
//
// It is slower than nginx, and speaks HTTP/1.1 in clear text.
type Direct struct {
	service   http.Handler
	downloads []DirectDownload
	opts      DirectOptions
	forwarded []string
}

// clientHeaders are the client's headers that go to the service.
var clientHeaders = []string{
	"Authorization", "Cookie", "Accept", "Accept-Language", "User-Agent", "Referer", "Origin", "Sec-Fetch-Mode", "Sec-Fetch-Site",
}

// NewDirect returns a web server before the handler of what nginx reaches.
func NewDirect(service http.Handler, downloads []DirectDownload, opts *DirectOptions) (*Direct, error) {
	if service == nil || len(downloads) == 0 {
		return nil, errors.New("a web server needs a service to ask, and downloads")
	}
	for _, d := range downloads {
		if d.Root == "" {
			return nil, fmt.Errorf("%s: there is no directory to serve", d.URL)
		}
	}
	s := &Direct{service: service, downloads: slices.Clone(downloads)}
	if opts != nil {
		s.opts = *opts
	}
	if s.opts.Now == nil {
		s.opts.Now = time.Now
	}
	s.opts.Logger = cmp.Or(s.opts.Logger, slog.New(slog.DiscardHandler))
	s.forwarded = append(slices.Clone(clientHeaders), s.opts.Headers...)
	return s, nil
}

// ServeHTTP answers a client.
func (s *Direct) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	begin := s.opts.Now()
	id := newID()
	sent := &sentWriter{ResponseWriter: w, control: http.NewResponseController(w), now: s.opts.Now}
	h := w.Header()
	h.Set(headerID, id)
	switch target := r.RequestURI; {
	case !s.opts.AnyHost && !isThisMachine(r.Host):
		refuse(sent, http.StatusMisdirectedRequest)
	case strings.HasPrefix(target, "/_securefiles/link"):
		s.hand(sent, r, id, strings.TrimPrefix(target, "/_securefiles"))
	default:
		for i := range s.downloads {
			if d := &s.downloads[i]; strings.HasPrefix(target, d.URL) {
				defer s.tell(r, sent, id, begin) // of one that is broken off, too
				s.download(sent, r, d, id)
				return
			}
		}
		refuse(sent, http.StatusNotFound)
	}
}

// download answers a request below a download.
func (s *Direct) download(w *sentWriter, r *http.Request, d *DirectDownload, id string) {
	h := w.Header()
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cross-Origin-Resource-Policy", d.Embed)
	h.Set(headerReferrer, "no-referrer")
	h.Set("Cache-Control", "no-store")
	origin := d.reader(r)
	if len(d.Origins) > 0 {
		h.Set("Vary", "Origin")
	}
	if origin != "" {
		h.Set("Access-Control-Allow-Origin", origin)
		h.Set("Access-Control-Allow-Credentials", "true")
	}
	switch {
	case r.Method == http.MethodOptions && origin != "":
		h.Set("Allow", "GET, HEAD")
		h.Set("Access-Control-Allow-Methods", "GET, HEAD")
		h.Set("Access-Control-Allow-Headers", "Authorization, Range, If-Range, If-None-Match, If-Modified-Since")
		h.Set("Access-Control-Max-Age", "600")
		w.WriteHeader(http.StatusNoContent)
		return
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		h.Set("Allow", "GET, HEAD")
		refuse(w, http.StatusMethodNotAllowed)
		return
	case d.isForeign(r, origin):
		refuse(w, http.StatusForbidden)
		return
	case r.ContentLength != 0:
		refuse(w, http.StatusRequestEntityTooLarge)
		return
	}
	question := s.question(r, "/authorize", id)
	if question == nil {
		refuse(w, http.StatusBadRequest)
		return
	}
	said := s.ask(question)
	for _, name := range []string{headerRateLimit, headerRateLimitPolicy, headerReferrer} {
		copyHeader(h, said.Header(), name)
	}
	location, inside := strings.CutPrefix(said.Header().Get(headerLocation), d.Internal)
	switch page := said.Header().Get(headerPage); {
	case said.status == http.StatusNoContent && inside && location != "" && said.Header().Get(headerUpstream) == "":
		s.send(w, r, d, location, said.Header(), origin)
	case said.status == http.StatusNoContent:
		s.opts.Logger.Error("the service allowed what is no file of the download's directory", "request_id", id, "download", d.URL)
		refuse(w, http.StatusServiceUnavailable)
	case page == string(authz.PageArchive):
		s.archive(w, r, id, said.Header())
	case page != "":
		s.hand(w, r, id, "/page")
	case said.status == http.StatusFound:
		copyHeader(h, said.Header(), "Location")
		refuse(w, said.status)
	case said.status == http.StatusUnauthorized:
		copyHeader(h, said.Header(), "Www-Authenticate")
		refuse(w, said.status)
	case said.status >= 400 && said.status < 500 || said.status == http.StatusServiceUnavailable:
		copyHeader(h, said.Header(), "Retry-After")
		refuse(w, said.status)
	default:
		refuse(w, http.StatusServiceUnavailable)
	}
}

// question is what nginx asks about a request; nil where it would ask nothing, because a
// credential came twice.
func (s *Direct) question(r *http.Request, path, id string) *http.Request {
	q, err := http.NewRequestWithContext(r.Context(), http.MethodGet, path, nil)
	if err != nil || len(r.Header["Authorization"]) > 1 {
		return nil
	}
	q.Host, _ = hostOf(r.Host)
	client, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return nil
	}
	for _, name := range s.forwarded {
		name = http.CanonicalHeaderKey(name)
		separator := ", "
		if name == "Cookie" {
			separator = "; "
		}
		if values := r.Header[name]; len(values) > 0 {
			q.Header.Set(name, strings.Join(values, separator))
		}
	}
	for name, value := range map[string]string{
		headerURI: r.RequestURI, headerMethod: r.Method, "X-Original-Scheme": "http", headerRange: r.Header.Get("Range"), headerIf: r.Header.Get("If-Range"), headerIP: client, headerID: id,
	} {
		q.Header.Set(name, value)
	}
	return q
}

// ask asks the service.
func (s *Direct) ask(question *http.Request) *answer {
	a := &answer{header: http.Header{}}
	s.service.ServeHTTP(a, question)
	if a.status == 0 {
		a.status = http.StatusOK
	}
	return a
}

// hand hands a request on to a page of the service, or to its API, and the answer back.
func (s *Direct) hand(w http.ResponseWriter, r *http.Request, id, path string) {
	question := s.question(r, path, id)
	if question == nil {
		refuse(w, http.StatusBadRequest)
		return
	}
	if path != "/page" {
		question.Method, question.Host = r.Method, r.Host // with its port: whose page asks is told by it
		question.Body, question.ContentLength = http.MaxBytesReader(w, r.Body, maxBody), r.ContentLength
		copyHeader(question.Header, r.Header, "Content-Type")
	}
	said := s.ask(question)
	h := w.Header()
	for name := range said.header {
		copyHeader(h, said.header, name)
	}
	w.WriteHeader(said.status)
	if r.Method != http.MethodHead {
		_, _ = w.Write(said.body.Bytes()) // whoever is gone reads nothing
	}
}

// archive hands on an archive as it comes.
func (s *Direct) archive(w *sentWriter, r *http.Request, id string, said http.Header) {
	question := s.question(r, "/archive", id)
	var err error
	if w.rate, err = strconv.ParseInt(said.Get(headerLimitRate), 10, 64); err != nil || question == nil {
		refuse(w, http.StatusServiceUnavailable)
		return
	}
	_ = w.control.SetReadDeadline(time.Time{}) // there is no body; or a client that waits would be taken for gone
	s.service.ServeHTTP(&passingWriter{sentWriter: w, header: http.Header{}, head: r.Method == http.MethodHead}, question)
}

// A passingWriter hands on an answer with its headers in the place of those before.
type passingWriter struct {
	*sentWriter
	header http.Header
	head   bool
}

func (w *passingWriter) Header() http.Header { return w.header }

func (w *passingWriter) WriteHeader(status int) {
	for name := range w.header {
		copyHeader(w.sentWriter.Header(), w.header, name)
	}
	w.sentWriter.WriteHeader(status)
}

func (w *passingWriter) Write(p []byte) (int, error) {
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	if w.head {
		return len(p), nil
	}
	return w.sentWriter.Write(p)
}

// send sends a file that was allowed.
func (s *Direct) send(w *sentWriter, r *http.Request, d *DirectDownload, name string, said http.Header, origin string) {
	root, err := rooted.Open(d.Root, &rooted.Options{FollowSymlinks: d.FollowSymlinks})
	if err != nil {
		s.opts.Logger.Error("the directory of a download cannot be opened", "download", d.URL, "error", err)
		refuse(w, http.StatusNotFound)
		return
	}
	defer root.Close() //nolint:errcheck // it was read
	f, info, err := root.File(name)
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, rooted.ErrKind) {
			s.opts.Logger.Warn("a file that was allowed cannot be opened", "download", d.URL, "error", err)
		}
		refuse(w, http.StatusNotFound)
		return
	}
	defer f.Close() //nolint:errcheck // it was read
	if w.rate, err = strconv.ParseInt(said.Get(headerLimitRate), 10, 64); err != nil {
		refuse(w, http.StatusServiceUnavailable)
		return
	}
	h := w.Header()
	for name, from := range map[string]string{
		"Content-Disposition": headerDisposition, "Cache-Control": headerCacheControl, "Content-Security-Policy": headerCSP,
	} {
		h.Set(name, said.Get(from))
	}
	if origin != "" {
		h.Set("Access-Control-Expose-Headers", "Accept-Ranges, Content-Disposition, Content-Length, Content-Range, ETag, X-Request-ID")
	}
	kind := mime.TypeByExtension(path.Ext(name))
	h.Set("Content-Type", cmp.Or(kind, "application/octet-stream")) // never guessed from what is in it
	h.Set("Etag", fmt.Sprintf(`"%x-%x"`, info.ModTime().Unix(), info.Size()))
	http.ServeContent(w, r, "", info.ModTime(), f)
}

// reader is the origin whose page may read a file, if the request is of one.
func (d *DirectDownload) reader(r *http.Request) string {
	if origin := r.Header.Get("Origin"); slices.Contains(d.Origins, origin) {
		return origin
	}
	return ""
}

// isForeign reports whether another site's page wants to embed a file, or learn by load
// or error who may read one (Fetch Metadata Request Headers, section 2).
func (d *DirectDownload) isForeign(r *http.Request, reader string) bool {
	if reader != "" {
		return false
	}
	switch r.Header.Get("Sec-Fetch-Site") {
	case "cross-site":
		if d.Embed != "same-origin" && d.Embed != "same-site" {
			return false
		}
	case "same-site":
		if d.Embed != "same-origin" {
			return false
		}
	default:
		return false
	}
	switch r.Header.Get("Sec-Fetch-Mode") {
	case "no-cors", "cors", "websocket":
		return true
	case "navigate":
		return slices.Contains([]string{"iframe", "frame", "embed", "object", "fencedframe"}, r.Header.Get("Sec-Fetch-Dest"))
	}
	return false
}

// A deliveryLine is what nginx's delivery log says of an answer.
type deliveryLine struct {
	Version       int     `json:"v"`
	Request       string  `json:"request_id"`
	Ended         float64 `json:"msec"`
	Method        string  `json:"method"`
	Protocol      string  `json:"protocol"`
	Status        string  `json:"status"`
	Body          int64   `json:"body_bytes"`
	Bytes         int64   `json:"bytes"`
	ContentLength string  `json:"content_length"`
	ContentRange  string  `json:"content_range"`
	Completion    string  `json:"completion"`
	Duration      float64 `json:"duration"`
}

// tell writes the line of an answer.
func (s *Direct) tell(r *http.Request, w *sentWriter, id string, begin time.Time) {
	if s.opts.Delivered == nil {
		return
	}
	now := s.opts.Now()
	line := deliveryLine{
		Version: 1, Request: id, Ended: float64(now.UnixMilli()) / 1000, Method: "other", Protocol: r.Proto, Status: strconv.Itoa(w.status), Body: w.bytes, Bytes: w.bytes,
		ContentLength: w.Header().Get("Content-Length"), ContentRange: w.Header().Get("Content-Range"), Completion: "OK", Duration: now.Sub(begin).Seconds(),
	}
	if r.Method == http.MethodGet || r.Method == http.MethodHead {
		line.Method = r.Method
	}
	if w.err != nil || r.Context().Err() != nil {
		line.Completion = ""
	}
	text, err := json.Marshal(line)
	if err == nil {
		_, err = s.opts.Delivered.Write(append(text, '\n'))
	}
	if err != nil {
		s.opts.Logger.Error("what was delivered is not told", "request_id", id, "error", err)
	}
}

// An answer is what the service says, kept.
type answer struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (a *answer) Header() http.Header { return a.header }

func (a *answer) WriteHeader(status int) {
	if a.status == 0 {
		a.status = status
	}
}

func (a *answer) Write(p []byte) (int, error) {
	a.WriteHeader(http.StatusOK)
	return a.body.Write(p)
}

// A sentWriter knows what it has sent, gives a client that reads its time, and sends no
// more than its rate in bytes a second; 0 for no bound.
type sentWriter struct {
	http.ResponseWriter
	control *http.ResponseController
	now     func() time.Time
	rate    int64
	since   time.Time // the first byte of the body
	status  int
	bytes   int64
	err     error
}

func (w *sentWriter) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *sentWriter) Write(p []byte) (n int, err error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	if w.since.IsZero() {
		w.since = w.now()
	}
	for len(p) > 0 && err == nil {
		piece := p
		if w.rate > 0 {
			piece = p[:min(int64(len(p)), max(1, w.rate/10))]
			due := w.since.Add(time.Duration(float64(w.bytes) / float64(w.rate) * float64(time.Second)))
			time.Sleep(due.Sub(w.now()))
		}
		if err = w.control.SetWriteDeadline(w.now().Add(sendTimeout)); err != nil && !errors.Is(err, http.ErrNotSupported) {
			break
		}
		var m int
		m, err = w.ResponseWriter.Write(piece)
		n, w.bytes, p = n+m, w.bytes+int64(m), p[m:]
	}
	w.err = errors.Join(w.err, err)
	return n, err
}

// refuse answers with a status and its name.
func refuse(w http.ResponseWriter, status int) {
	http.Error(w, http.StatusText(status), status)
}

func copyHeader(to, from http.Header, name string) {
	if values := from[http.CanonicalHeaderKey(name)]; len(values) > 0 {
		to[http.CanonicalHeaderKey(name)] = values
	}
}

// hostOf is the name in a Host header, as nginx's $host, and whether there is one.
func hostOf(header string) (string, bool) {
	host, _, err := net.SplitHostPort(header)
	if err != nil {
		host = strings.TrimSuffix(strings.TrimPrefix(header, "["), "]")
	}
	return strings.ToLower(host), host != ""
}

// isThisMachine reports whether a client means this machine by its own names.
func isThisMachine(header string) bool {
	host, ok := hostOf(header)
	return ok && (loopback.IsAddress(host) || loopback.IsName(host))
}
