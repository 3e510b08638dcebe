package integration_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rclone/gofakes3"
	"github.com/rclone/gofakes3/s3mem"

	"securefiles/internal/audit"
	"securefiles/internal/storagetest"
)

const storeKeyID, storeSecret = "AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"

// A bucket is a store that verifies signatures, of S3's kind or another, behind a handler
// that a test may put in its way.
type bucket struct {
	t       *testing.T
	kind    string // s3, azure or gcs
	backend *s3mem.Backend
	objects *storagetest.Objects // of azure and gcs
	store   func() http.Handler
	upload  func(bucket, key, text string) // to a store that is another program
	key     string                         // the file of credentials
	server  *httptest.Server
	mu      sync.Mutex
	instead http.HandlerFunc // of the store; nil asks it
	asked   []*http.Request
	secrets map[string]string
}

func newBucket(t *testing.T) *bucket { return newBucketOf(t, "s3") }

// bucketKinds are the kinds of stores.
var bucketKinds = []string{"s3", "azure", "gcs"}

func newBucketOf(t *testing.T, kind string) *bucket {
	t.Helper()
	b := &bucket{t: t, kind: kind}
	switch kind {
	case "s3":
		b.backend, b.secrets, b.key = s3mem.New(), map[string]string{storeKeyID: storeSecret}, credentials(storeKeyID, storeSecret)
		b.store = func() http.Handler { return gofakes3.New(b.backend, gofakes3.WithV4Auth(b.secrets)).Server() }
		for _, name := range []string{"files", "other"} {
			if err := b.backend.CreateBucket(t.Context(), name); err != nil {
				t.Fatal(err)
			}
		}
	case "azure":
		store := &storagetest.Azure{Account: "account", Key: []byte("the key of the account")}
		b.objects, b.key = &store.Objects, base64.StdEncoding.EncodeToString(store.Key)
		b.store = func() http.Handler { return store }
	case "gcs":
		store, account, err := storagetest.NewGCS()
		if err != nil {
			t.Fatal(err)
		}
		b.objects, b.key = &store.Objects, string(account)
		b.store = func() http.Handler { return store }
	}
	b.put("other", "project/plan.txt", "CANARY of another bucket")
	b.put("files", "above.txt", "CANARY above the prefix")
	b.server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b.mu.Lock()
		b.asked = append(b.asked, r.Clone(context.Background()))
		instead := b.instead
		store := b.store()
		b.mu.Unlock()
		if instead != nil {
			instead(w, r)
			return
		}
		store.ServeHTTP(w, r)
	}))
	b.server.Config.ErrorLog = nil
	t.Cleanup(b.server.Close)
	return b
}

// storage is what the configuration says of the bucket.
func (b *bucket) storage() string {
	of := map[string]string{"s3": "bucket: files", "azure": "account: account, container: files", "gcs": "bucket: files"}[b.kind]
	return b.kind + ": {" + of + ", endpoint: '" + b.server.URL + "', prefix: site/, credentials_file: credentials}"
}

func (b *bucket) put(bucket, key, text string) {
	b.t.Helper()
	if b.upload != nil {
		b.upload(bucket, key, text)
		return
	}
	if b.objects != nil {
		b.objects.Put(bucket, key, text)
		return
	}
	if _, err := b.backend.PutObject(b.t.Context(), bucket, key, map[string]string{"Content-Type": "text/plain", "Last-Modified": "Wed, 01 Jan 2025 00:00:00 GMT"}, strings.NewReader(text), int64(len(text))); err != nil {
		b.t.Fatal(err)
	}
}

// answer has something else answer in the store's place, until nil is given.
func (b *bucket) answer(instead http.HandlerFunc) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.instead = instead
}

// become has another store be in this one's place.
func (b *bucket) become(other http.Handler) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.store = func() http.Handler { return other }
}

// took returns what the store was asked since it was called last.
func (b *bucket) took() []*http.Request {
	b.mu.Lock()
	defer b.mu.Unlock()
	asked := b.asked
	b.asked = nil
	return asked
}

// stored is the policy of these tests.
const stored = `
p, @anyone, /public/**, read, allow
p, editor, /project/**, read, allow
p, editor, /project/hr/**, read, deny
g, alice, editor
`

// startStored brings up a site whose files are in the bucket.
func startStored(t *testing.T, b *bucket, more string, edit ...func(*plan)) *site {
	t.Helper()
	if b.server.URL == "" {
		b.server.Start()
	}
	for name, text := range someFiles() {
		b.put("files", "site/"+name, text)
	}
	p := plan{policy: stored, printed: true, stored: true, extra: "downloads:\n  - name: main\n    url: /downloads/\n    internal: /protected/\n    storage:\n" +
		"      " + b.storage() + "\n" + more,
		before: func(s *site) { s.write("credentials", b.key) }}
	for _, e := range edit {
		e(&p)
	}
	return start(t, p)
}

func credentials(id, secret string) string {
	return "[default]\naws_access_key_id = " + id + "\naws_secret_access_key = " + secret + "\n"
}

func TestFilesInABucketAreServedByPolicy(t *testing.T) { inEachBucket(t, servedByPolicy) }

func servedByPolicy(t *testing.T, b *bucket) {
	s := startStored(t, b, "")
	r := s.status("alice", "/downloads/project/plan.txt", 200)
	if r.body != "0123456789\n" || r.header.Get("Content-Type") != "text/plain" {
		t.Errorf("%q %v", r.body, r.header)
	}
	for name, want := range map[string]string{
		"Content-Disposition": `attachment; filename="plan.txt"; filename*=UTF-8''plan.txt`, "Cache-Control": "private, no-store", "X-Content-Type-Options": "nosniff",
		"Referrer-Policy": "no-referrer", "Cross-Origin-Resource-Policy": "same-origin", "Accept-Ranges": "bytes",
	} {
		if got := r.header.Values(name); len(got) != 1 || got[0] != want {
			t.Errorf("%s: %q", name, got)
		}
	}
	for _, name := range []string{"Access-Control-Allow-Origin", "X-Amz-Request-Id", "X-Amz-Id-2", "X-Securefiles-Upstream", "X-Securefiles-Location"} {
		if got := r.header.Values(name); len(got) > 0 {
			t.Errorf("%s reaches the client: %q", name, got)
		}
	}
	if r.header.Get("Content-Security-Policy") == "" || r.header.Get("X-Request-Id") == "" || r.header.Get("Etag") == "" || r.header.Get("Last-Modified") == "" {
		t.Errorf("%v", r.header)
	}
	b.took()
	s.status("bob", "/downloads/project/plan.txt", 404)
	s.status("", "/downloads/project/plan.txt", 401)
	s.status("alice", "/downloads/project/hr/pay.txt", 404)
	s.status("alice", "/downloads/private/secret.txt", 404)
	s.status("alice", "/downloads/project//plan.txt", 400)
	s.status("alice", "/downloads/project/%2e%2e/private/secret.txt", 400)
	s.status("alice", "/downloads/../above.txt", 404)
	s.status("alice", "/protected/project/plan.txt", 404)
	s.status("alice", "/-securefiles-question", 404)
	if asked := b.took(); len(asked) > 0 {
		t.Errorf("the store was asked for what was refused: %v", asked[0].URL)
	}
	s.status("alice", "/downloads/project/none.txt", 404)
	s.status("alice", "/downloads/project/sub", 404)
	head := s.status("alice", "/downloads/project/plan.txt", 200, func(r *http.Request) { r.Method = http.MethodHead })
	if head.body != "" || head.header.Get("Content-Length") != "11" {
		t.Errorf("HEAD: %q %v", head.body, head.header)
	}
	s.status("alice", "/downloads/project/plan.txt", 405, func(r *http.Request) { r.Method = http.MethodPut })
}

// What a client sends reaches the store as method, range and conditions alone, and what
// the store is asked with reaches neither the client nor the service's log.
func TestAStoreLearnsNothingOfTheClientNorTheClientOfTheStore(t *testing.T) {
	t.Parallel()
	b := newBucket(t)
	s := startStored(t, b, "")
	r := s.status("alice", "/downloads/project/plan.txt?X-Amz-Expires=99999&versionId=1", 200, with("Cookie", "session=secret"), with("X-Forwarded-For", "192.0.2.1"),
		with("X-Amz-Security-Token", "t"), with("X-Securefiles-Upstream", "/other/project/plan.txt"), with("Accept-Encoding", "gzip"), with("Referer", "https://intern.example/"))
	if r.body != "0123456789\n" {
		t.Errorf("%q", r.body)
	}
	asked := b.took()
	if len(asked) != 1 {
		t.Fatalf("%d requests", len(asked))
	}
	var names []string
	for name := range asked[0].Header {
		names = append(names, name)
	}
	if len(names) > 0 || asked[0].Host != strings.TrimPrefix(b.server.URL, "http://") || strings.Contains(asked[0].URL.RawQuery, "versionId") || strings.Contains(asked[0].URL.RawQuery, "99999") {
		t.Errorf("%s %s: %v", asked[0].Host, asked[0].URL, asked[0].Header)
	}
	for _, text := range []string{s.log.String(), fmt.Sprint(r.header)} {
		if strings.Contains(text, "X-Amz-Signature") || strings.Contains(text, storeSecret) || strings.Contains(text, storeKeyID) {
			t.Errorf("what is signed is told: %s", tail(text))
		}
	}
}

// storeNames are names in which somebody between the client and the store may take a
// byte for syntax.
func storeNames() []string {
	return []string{
		"plain.txt", "a b.txt", "100%.txt", "%25.txt", "%2F.txt", "%2e%2e", "q?.txt", "h#.txt", "a;b.txt", "a+b.txt", "a&b=c.txt", `"quoted".txt`, "it's.txt",
		"~tilde.txt", "`tick`.txt", "na\u00efve.txt", "nai\u0308ve.txt", "日本語.txt", "📄.txt", "[x].txt", "{x}.txt", "<x>.txt", "$uri.txt", "${HOME}.txt", "a,b.txt",
		"a:b.txt", "a@b.txt", "a!b.txt", "a*b.txt", "(x).txt", "a|b.txt", "a^b.txt", "x=y.txt", "X-Amz-Signature=1&x.txt", "a/b/c d/e.txt", "a\u00a0b.txt",
	}
}

// inEachBucket runs a test for each kind of store.
func inEachBucket(t *testing.T, test func(*testing.T, *bucket)) {
	t.Helper()
	t.Parallel()
	for _, kind := range bucketKinds {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			test(t, newBucketOf(t, kind))
		})
	}
}

func TestEachNameIsTheObjectOfItsName(t *testing.T) { inEachBucket(t, eachNameIsItsObject) }

func eachNameIsItsObject(t *testing.T, b *bucket) {
	for _, name := range storeNames() {
		b.put("files", "site/public/"+name, "this is "+name)
	}
	s := startStored(t, b, "")
	for _, name := range storeNames() {
		var escaped []string
		for segment := range strings.SplitSeq(name, "/") {
			escaped = append(escaped, url.PathEscape(segment))
		}
		path := "/downloads/public/" + strings.Join(escaped, "/")
		r := s.get("", path)
		if r.status != 200 || r.body != "this is "+name {
			t.Errorf("%q: %d %q", name, r.status, r.body)
		}
		if r := s.get("", path, func(r *http.Request) { r.Method = http.MethodHead }); r.status != 200 {
			t.Errorf("HEAD %q: %d", name, r.status)
		}
	}
}

func TestRangesAndConditionsOfABucket(t *testing.T) { inEachBucket(t, rangesAndConditions) }

func rangesAndConditions(t *testing.T, b *bucket) {
	s := startStored(t, b, "")
	const path = "/downloads/project/plan.txt"
	r := s.status("alice", path, 200)
	etag, date := r.header.Get("Etag"), r.header.Get("Last-Modified")
	end := reply{status: 206, body: "89\n"}
	if b.kind == "azure" { // which fails on it
		end = reply{status: 200, body: "0123456789\n"}
	}
	same := reply{status: 206, body: "56789\n"}
	if b.upload != nil { // versitygw, to which the same date is not "unmodified since"
		same = reply{status: 200, body: "0123456789\n"}
	}
	for _, row := range []struct {
		name   string
		header []string
		status int
		body   string
	}{
		{"a range", []string{"Range", "bytes=2-4"}, 206, "234"},
		{"the rest", []string{"Range", "bytes=5-"}, 206, "56789\n"},
		{"the end", []string{"Range", "bytes=-3"}, end.status, end.body},
		{"several: the whole", []string{"Range", "bytes=0-1,4-5"}, 200, "0123456789\n"},
		{"another unit", []string{"Range", "lines=1-2"}, 200, "0123456789\n"},
		{"beyond the end", []string{"Range", "bytes=50-"}, 416, ""},
		{"the same object goes on", []string{"Range", "bytes=5-", "If-Range", etag}, 206, "56789\n"},
		{"another object is whole", []string{"Range", "bytes=5-", "If-Range", `"0123"`}, 200, "0123456789\n"},
		{"a weak tag is whole", []string{"Range", "bytes=5-", "If-Range", "W/" + etag}, 200, "0123456789\n"},
		{"nonsense is whole", []string{"Range", "bytes=5-", "If-Range", "x"}, 200, "0123456789\n"},
		{"an older date is whole", []string{"Range", "bytes=5-", "If-Range", "Mon, 01 Jan 2024 00:00:00 GMT"}, 200, "0123456789\n"},
		{"the same date goes on", []string{"Range", "bytes=5-", "If-Range", date}, same.status, same.body},
		{"not changed", []string{"If-None-Match", etag}, 304, ""},
		{"not changed since", []string{"If-Modified-Since", date}, 304, ""},
		{"another is wanted", []string{"If-Match", `"0123"`}, 412, ""},
		{"the same is wanted", []string{"If-Match", etag}, 200, "0123456789\n"},
		{"changed since long ago", []string{"If-Unmodified-Since", "Mon, 01 Jan 2024 00:00:00 GMT"}, 412, ""},
	} {
		var edit []func(*http.Request)
		for i := 0; i < len(row.header); i += 2 {
			edit = append(edit, with(row.header[i], row.header[i+1]))
		}
		r := s.get("alice", path, edit...)
		if r.status != row.status || row.body != "" && r.body != row.body {
			t.Errorf("%s: %d %q, want %d %q", row.name, r.status, r.body, row.status, row.body)
		}
		if strings.Contains(r.body, "<Error>") || strings.Contains(r.body, "<?xml") {
			t.Errorf("%s: the store's own page: %q", row.name, r.body)
		}
	}
}

// Whatever a store says, the client gets a status of ours and no byte of the store's,
// and nothing leads it elsewhere.
func TestAStoreInTroubleIsAStatusOfOurs(t *testing.T) { inEachBucket(t, storeInTrouble) }

func storeInTrouble(t *testing.T, b *bucket) {
	s := startStored(t, b, "", func(p *plan) {
		p.edit = func(_ *site, conf string) string { // but for how long it waits
			return strings.ReplaceAll(conf, "proxy_read_timeout      30s;", "proxy_read_timeout      500ms;")
		}
	})
	const path = "/downloads/project/plan.txt"
	s.status("alice", path, 200)
	var led atomic.Int64
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { led.Add(1) }))
	defer elsewhere.Close()
	says := func(status int, header ...string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			for i := 0; i < len(header); i += 2 {
				w.Header().Set(header[i], header[i+1])
			}
			w.WriteHeader(status)
			if status != 304 {
				fmt.Fprint(w, "CANARY <html>of the store</html>")
			}
		}
	}
	for _, row := range []struct {
		name   string
		answer http.HandlerFunc
		status int
		retry  string
	}{
		{"it has no such key", says(404), 404, ""},
		{"it refuses", says(403), 502, ""},
		{"it asks who it is", says(401, "WWW-Authenticate", "Basic"), 502, ""},
		{"the request is wrong", says(400), 502, ""},
		{"another region", says(301, "Location", elsewhere.URL), 502, ""},
		{"found elsewhere", says(302, "Location", elsewhere.URL+"/files/site/project/plan.txt", "Refresh", "0; url="+elsewhere.URL, "Link", "<"+elsewhere.URL+">; rel=preload"), 502, ""},
		{"all is well, elsewhere", says(308, "Location", strings.Replace(elsewhere.URL, "http:", "", 1), "X-Accel-Redirect", elsewhere.URL), 502, ""},
		{"a redirect", says(307, "Location", "http://"+s.service+"/"), 502, ""},
		{"slow down", says(429), 503, "5"},
		{"an error", says(500), 503, "5"},
		{"busy", says(503, "Retry-After", "99999"), 503, "5"},
		{"it follows nothing", says(403, "X-Accel-Redirect", "/protected/private/secret.txt"), 502, ""},
		{"it hangs up", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, 503, "5"},
	} {
		b.answer(row.answer)
		r := s.status("alice", path, row.status)
		if strings.Contains(r.body, "CANARY") || r.header.Get("Location") != "" || r.header.Get("Retry-After") != row.retry || r.header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: %q %v", row.name, r.body, r.header)
		}
	}
	if n := led.Load(); n > 0 {
		t.Errorf("the store leads nginx elsewhere: %d requests", n)
	}
	// A file with headers that nginx, or a browser, would act on.
	b.answer(func(w http.ResponseWriter, r *http.Request) {
		for _, name := range []string{"X-Accel-Redirect", "X-Accel-Limit-Rate", "X-Accel-Expires", "X-Accel-Buffering", "Set-Cookie", "Cache-Control", "Content-Security-Policy", "Strict-Transport-Security",
			"Alt-Svc", "Link", "Refresh", "Content-Disposition", "Access-Control-Allow-Origin", "Clear-Site-Data", "X-Amz-Version-Id", "Expires"} {
			w.Header().Set(name, "CANARY")
		}
		fmt.Fprint(w, "text")
	})
	r := s.status("alice", path, 200)
	if r.body != "text" || strings.Contains(fmt.Sprint(r.header), "CANARY") {
		t.Errorf("%q %v", r.body, r.header)
	}
	b.answer(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }) // for longer than nginx waits
	r = s.status("alice", path, 503)
	if r.header.Get("Retry-After") != "5" {
		t.Errorf("slow: %v", r.header)
	}
	b.answer(nil)
	s.status("alice", path, 200)
	b.server.Close()
	r = s.status("alice", path, 503)
	if r.header.Get("Retry-After") != "5" {
		t.Errorf("%v", r.header)
	}
}

// recordedStore is a site whose files are in the bucket, with a record of deliveries.
func recordedStore(t *testing.T, b *bucket) *site {
	t.Helper()
	return startStored(t, b, "nginx: {delivery_log: LOGS/deliveries.log, access_log: 'off'}\naudit: {file: audit.jsonl}\n", func(p *plan) {
		before := p.before
		p.before = func(s *site) {
			before(s)
			s.edit("securefiles.yaml", "LOGS", filepath.Join(s.dir, "logs"))
			if err := os.MkdirAll(filepath.Join(s.dir, "logs"), 0o755); err != nil {
				s.t.Fatal(err)
			}
		}
		p.edit = func(_ *site, conf string) string { // but for how long it waits
			return strings.ReplaceAll(conf, "proxy_read_timeout      30s;", "proxy_read_timeout      500ms;")
		}
	})
}

// A taken download is what a client got, and whether that ended as it should.
type taken struct {
	reply
	id  string
	err error
}

// take asks for a file, and keeps of it what came.
func (s *site) take(client *http.Client, path string) taken {
	req, err := http.NewRequestWithContext(s.t.Context(), http.MethodGet, "http://"+s.web+path, nil)
	if err != nil {
		return taken{err: err}
	}
	resp, err := client.Do(req)
	if err != nil {
		return taken{err: err}
	}
	body, err := io.ReadAll(resp.Body)
	return taken{reply{resp.StatusCode, resp.Header, string(body)}, resp.Header.Get("X-Request-Id"), errors.Join(err, resp.Body.Close())}
}

// A body that the store cuts short, or does not go on with, is no whole file to the client,
// and no complete delivery in the record, though nginx calls it one.
func TestABodyThatAStoreCutsShortIsRecordedAsAborted(t *testing.T) {
	inEachBucket(t, func(t *testing.T, b *bucket) {
		s := recordedStore(t, b)
		whole := s.take(newClient(), "/downloads/public/welcome.txt")
		if whole.err != nil || whole.status != 200 {
			t.Errorf("%+v", whole)
		}
		if d := s.delivered(whole.id)[whole.id]; d.Delivery != audit.Complete {
			t.Errorf("the whole file: %+v", d)
		}
		for name, answer := range map[string]http.HandlerFunc{
			"cut short": func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Length", "1000000")
				fmt.Fprint(w, strings.Repeat("x", 5000))
				panic(http.ErrAbortHandler)
			},
			"cut short, of no length": func(w http.ResponseWriter, _ *http.Request) {
				fmt.Fprint(w, strings.Repeat("x", 50000))
				_ = http.NewResponseController(w).Flush() // whoever is gone reads nothing
				panic(http.ErrAbortHandler)
			},
			"not gone on with": func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Length", "1000000")
				fmt.Fprint(w, strings.Repeat("x", 50000))
				_ = http.NewResponseController(w).Flush() // whoever is gone reads nothing
				<-r.Context().Done()
			},
		} {
			b.answer(answer)
			part := s.take(newClient(), "/downloads/public/welcome.txt")
			if part.err == nil || part.status != 200 {
				t.Errorf("%s: a client takes a part for the whole: %d, %d bytes", name, part.status, len(part.body))
				continue
			}
			want := audit.Aborted
			if strings.Contains(name, "no length") { // nobody knows, but the client
				want = audit.Unknown
			}
			if d := s.delivered(part.id)[part.id]; d.Delivery != want || d.Status != 200 || d.Bytes < int64(len(part.body)) {
				t.Errorf("%s: %+v", name, d)
			}
		}
	})
}

// While a store fails in every way, under load, each client gets the file that it asked for,
// or a part of it that is seen to be one, or a status of ours; and the record says which.
func TestAStoreInTroubleUnderLoad(t *testing.T) {
	t.Parallel()
	b := newBucket(t)
	s := recordedStore(t, b)
	texts := map[string]string{}
	for i := range 8 {
		name := fmt.Sprintf("public/%d.txt", i)
		texts[name] = strings.Repeat(fmt.Sprint(i), 100_000)
		b.put("files", "site/"+name, texts[name])
	}
	b.mu.Lock()
	store := b.store()
	b.mu.Unlock()
	var asked atomic.Int64
	b.answer(func(w http.ResponseWriter, r *http.Request) {
		n := asked.Add(1)
		text := texts[strings.TrimPrefix(r.URL.Path, "/files/site/")]
		part := func() {
			fmt.Fprint(w, text[:30_000])
			_ = http.NewResponseController(w).Flush() // whoever is gone reads nothing
		}
		switch n % 12 {
		case 0:
			w.Header().Set("Content-Length", "100000")
			part()
			panic(http.ErrAbortHandler)
		case 1:
			part()
			panic(http.ErrAbortHandler)
		case 2:
			w.Header().Set("Content-Length", "100000")
			part()
			<-r.Context().Done()
		case 3:
			panic(http.ErrAbortHandler)
		case 4, 5, 6:
			w.Header().Set("Content-Type", "text/html")
			w.Header().Set("Location", "http://"+s.admin+"/metrics")
			w.WriteHeader([]int{500, 307, 403}[n%3])
			fmt.Fprint(w, "CANARY <html>of the store</html>")
		default:
			store.ServeHTTP(w, r)
		}
	})
	var mu sync.Mutex
	all := map[string]taken{}
	var clients sync.WaitGroup
	for c := range 12 {
		clients.Go(func() {
			client := newClient()
			for i := range 30 {
				name := fmt.Sprintf("public/%d.txt", (c+i)%8)
				got := s.take(client, "/downloads/"+name)
				text := texts[name]
				switch {
				case got.id == "":
					t.Errorf("%s: %v", name, got.err)
					continue
				case got.status == 200 && got.err == nil && got.body == text, got.status == 200 && got.err != nil && strings.HasPrefix(text, got.body):
				case (got.status == 502 || got.status == 503) && got.err == nil && (got.status == 503) == (got.header.Get("Retry-After") == "5") && !strings.Contains(got.body, "CANARY"):
				default:
					t.Errorf("%s: %d, %d bytes, %v: %v", name, got.status, len(got.body), got.header, got.err)
				}
				mu.Lock()
				all[got.id] = got
				mu.Unlock()
			}
		})
	}
	clients.Wait()
	ids := slices.Collect(maps.Keys(all))
	found := map[string]int{}
	for id, d := range s.delivered(ids...) {
		got := all[id]
		want := audit.None
		switch {
		case got.status == 200 && got.err == nil:
			want = audit.Complete
		case got.status == 200:
			want = audit.Aborted
		}
		found[want]++
		if want == audit.Aborted && d.Length == 0 {
			want = audit.Unknown // of no length: nobody knows, but the client
		}
		if d.Delivery != want || d.Status != got.status || want == audit.Complete && d.Bytes != 100_000 {
			t.Errorf("a client got %d and %d bytes, %v; recorded as %+v", got.status, len(got.body), got.err, d)
		}
	}
	if found[audit.Complete] < 50 || found[audit.Aborted] < 20 || found[audit.None] < 20 {
		t.Errorf("what was got: %v", found)
	}
}

// Only the store that the certificate names is asked.
func TestAStoreWithAnotherCertificateIsNotAsked(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		name    string
		trusted bool
		status  int
	}{
		"its own":              {"localhost", true, 200},
		"another name's":       {"other.example", true, 503},
		"an unknown authority": {"localhost", false, 503},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBucket(t)
			own, trusts := certificateFor(t, row.name), ""
			if b.server.TLS = (&tls.Config{Certificates: []tls.Certificate{own}}); row.trusted {
				trusts = certificateFile(t, own)
			} else {
				trusts = certificateFile(t, certificateFor(t, row.name))
			}
			b.server.StartTLS()
			_, port, err := net.SplitHostPort(b.server.Listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			s := startStored(t, b, "      ca_file: "+trusts+"\n", func(p *plan) {
				p.extra = strings.Replace(p.extra, b.server.URL, "https://localhost:"+port, 1)
			})
			s.status("alice", "/downloads/project/plan.txt", row.status)
			if n := len(b.took()); row.status != 200 && n > 0 {
				t.Errorf("it was asked %d times", n)
			}
		})
	}
}

// certificateFor makes a certificate that has signed itself.
func certificateFor(t *testing.T, name string) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	form := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name}, NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	raw, err := x509.CreateCertificate(rand.Reader, form, form, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{raw}, PrivateKey: key}
}

func certificateFile(t *testing.T, c tls.Certificate) string {
	t.Helper()
	file := filepath.Join(publicDir(t), "ca.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Certificate[0]}), 0o644); err != nil {
		t.Fatal(err)
	}
	return file
}

// New credentials count while downloads run, and what they were before counts no more.
func TestCredentialsAreRotatedWhileDownloadsRun(t *testing.T) { inEachBucket(t, rotated) }

func rotated(t *testing.T, b *bucket) {
	next := newBucketOf(t, b.kind) // the same store with other credentials
	switch b.kind {
	case "azure":
		account := next.store().(*storagetest.Azure)
		account.Key = []byte("another key of the account")
		next.key = base64.StdEncoding.EncodeToString(account.Key)
	case "s3":
		next.secrets, next.key = map[string]string{"SECONDKEYID": "another"}, credentials("SECONDKEYID", "another")
	}
	large := strings.Repeat("0123456789abcdef", 1<<20) // more than buffers hold
	b.put("files", "site/project/large.txt", large)
	next.put("files", "site/project/large.txt", large)
	s := startStored(t, b, "")
	for name, text := range someFiles() {
		next.put("files", "site/"+name, text)
	}
	const path = "/downloads/project/plan.txt"
	s.status("alice", path, 200)
	stop := make(chan struct{})
	var failed []int
	var done sync.WaitGroup
	done.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			if r, err := s.try(newClient(), "alice", path); err != nil || r.status != 200 {
				failed = append(failed, r.status)
			}
		}
	})
	// Both are taken for a while; then the first no more.
	var byNext atomic.Int64
	first, second := b.store(), next.store()
	b.become(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer := httptest.NewRecorder()
		if second.ServeHTTP(answer, r.Clone(r.Context())); answer.Code == http.StatusForbidden {
			first.ServeHTTP(w, r)
			return
		}
		byNext.Add(1)
		maps.Copy(w.Header(), answer.Header())
		w.WriteHeader(answer.Code)
		_, _ = answer.Body.WriteTo(w) // to whoever still listens
	}))
	s.replace("credentials", next.key)
	s.eventually("it is signed with the new key", func() bool { return byNext.Load() > 0 })
	s.replace("credentials", "no credentials!")
	s.eventually("the log tells of credentials that are none", func() bool { return strings.Contains(s.log.String(), "the last good version goes on") })
	s.status("alice", path, 200)
	close(stop)
	done.Wait()
	if len(failed) > 0 {
		t.Errorf("downloads failed: %v", failed)
	}
	b.become(second)
	s.status("alice", path, 200)

	// What has begun when the credentials are revoked comes to its end, and nothing begins.
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+s.web+"/downloads/project/large.txt", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.SetBasicAuth("alice", "alice")
	resp, err := newClient().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	begun := make([]byte, 1000)
	if _, err := io.ReadFull(resp.Body, begun); err != nil {
		t.Fatal(err)
	}
	b.become(first)
	s.status("alice", path, 502)
	s.status("alice", "/downloads/project/large.txt", 502)
	rest, err := io.ReadAll(resp.Body)
	if err != nil || string(begun)+string(rest) != large {
		t.Errorf("%d bytes of %d, %v", len(begun)+len(rest), len(large), err)
	}
}

// Whoever answers in the service's place cannot have nginx ask for another object, host
// or bucket, with proofs or without.
func TestNobodyElseSaysWhatAStoreIsAskedFor(t *testing.T) {
	inEachBucket(t, func(t *testing.T, b *bucket) {
		for name, proved := range map[string]bool{"proved": true, "not proved": false} {
			t.Run(name, func(t *testing.T) { nobodyElseSays(t, newBucketOf(t, b.kind), proved) })
		}
	})
}

func nobodyElseSays(t *testing.T, b *bucket, proved bool) {
	t.Helper()
	more := ""
	if proved {
		more = "proof_secret_file: proof\n"
	}
	s := startStored(t, b, more, func(p *plan) {
		before := p.before
		p.before = func(s *site) {
			before(s)
			if proved {
				s.write("proof", "0123456789abcdef0123456789abcdef\n")
				s.printProof()
			}
		}
	})
	s.status("alice", "/downloads/project/plan.txt", 200)
	asked := b.took()
	s.status("bob", "/downloads/project/plan.txt", 404)
	end(s.daemon)
	signed := asked[0].URL.RequestURI()
	var mu sync.Mutex
	var upstream string
	squat(t, s.service, func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		w.Header().Set("X-Securefiles-Location", "/protected/project/plan.txt")
		w.Header().Set("X-Securefiles-Reason", "policy")
		if upstream != "" {
			w.Header().Set("X-Securefiles-Upstream", upstream)
		}
		w.WriteHeader(http.StatusNoContent)
	})
	for _, row := range []struct {
		upstream string
		asked    bool // where nothing is proved
	}{
		{"", false}, {signed, true},
		{strings.Replace(signed, "/files/", "/other/", 1), false}, {"/files/above.txt?x", false}, {"//evil.example/files/site/a", false}, {"https://evil.example/files/site/a", false},
		{"@evil.example/files/site/a", false}, {".evil.example/files/site/a", false}, {":80/files/site/a", false}, {"http://unix:/run/x.sock:/files/site/", false},
		{"/files/site/", false}, {"/files/site/?list-type=2", false}, {"/files/site//a", false}, {"/files/site/a b", false}, {"?x", false}, {"/", false},
	} {
		mu.Lock()
		upstream = row.upstream
		mu.Unlock()
		r := s.get("alice", "/downloads/project/plan.txt")
		was := len(b.took()) > 0
		if was != (row.asked && !proved) || !was && r.status != 503 || strings.Contains(r.body, "CANARY") {
			t.Errorf("%q: %d, the store was asked: %t", row.upstream, r.status, was)
		}
	}
}

// A client that is sent to the store gets one object by one method from there, and the
// record says that it was allowed, and awaits no delivery.
func TestAClientIsSentToTheBucket(t *testing.T) {
	t.Parallel()
	b := newBucket(t)
	b.put("files", "site/public/na\u00efve.txt", "naive")
	s := startStored(t, b, "    deliver: redirect\n    referrer_policy: origin\naudit: {file: audit.jsonl}\nproof_secret_file: proof\n", func(p *plan) {
		before := p.before
		p.before = func(s *site) {
			before(s)
			s.write("proof", "0123456789abcdef0123456789abcdef\n")
			s.printProof()
		}
	})
	for _, method := range []string{http.MethodGet, http.MethodHead} {
		r := s.status("alice", "/downloads/public/na%C3%AFve.txt", 302, func(r *http.Request) { r.Method = method })
		location := r.header.Get("Location")
		if !strings.HasPrefix(location, b.server.URL+"/files/site/public/na%C3%AFve.txt?") || r.header.Get("Cache-Control") != "no-store" || r.header.Get("Referrer-Policy") != "no-referrer" {
			t.Fatalf("%v", r.header)
		}
		req, err := http.NewRequest(method, location, nil)
		if err != nil {
			t.Fatal(err)
		}
		got, err := do(newClient(), req)
		if err != nil {
			t.Fatal(err)
		}
		if got.status != 200 || method == http.MethodGet && got.body != "naive" ||
			got.header.Get("Content-Disposition") != `attachment; filename="na_ve.txt"; filename*=UTF-8''na%C3%AFve.txt` || got.header.Get("Cache-Control") != "private, no-store" {
			t.Errorf("%s: %d %q %v", method, got.status, got.body, got.header)
		}
		for name, other := range map[string]string{"another object": strings.Replace(location, "na%C3%AFve", "welcome", 1), "longer": location + "&X-Amz-Expires=9999", "another type": location + "&response-content-type=text%2Fhtml"} {
			req, err := http.NewRequest(method, other, nil)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := do(newClient(), req); err != nil || got.status < 400 {
				t.Errorf("%s: %d, %v", name, got.status, err)
			}
		}
	}
	s.status("bob", "/downloads/project/plan.txt", 404)
	s.status("alice", "/downloads/public/none.txt", 302) // the store says that it is not there
	s.status("alice", "/protected/public/welcome.txt", 404)
	text, err := os.ReadFile(filepath.Join(s.dir, "audit.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	for want, n := range map[string]int{`"reason":"redirect"`: 3, `"decision":"allow"`: 3, `"http.response.status_code":302`: 3, "X-Amz-Signature": 0, storeKeyID: 0} {
		if got := strings.Count(string(text), want); got != n {
			t.Errorf("the record holds %s %d times, not %d:\n%s", want, got, n, text)
		}
	}
	if got := s.metric(`securefiles_decisions_total{decision="allow",download="main",reason="redirect"}`); got != "3" {
		t.Errorf("counted %s times", got)
	}
	// Whoever answers in the service's place sends nobody to a file of the store's either.
	end(s.daemon)
	squat(t, s.service, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-Securefiles-Location", "/protected/public/welcome.txt")
		w.Header().Set("Location", "https://evil.example/")
		w.WriteHeader(http.StatusFound)
	})
	if r := s.get("alice", "/downloads/public/welcome.txt"); r.status != 503 || r.header.Get("Location") != "" {
		t.Errorf("%d %v", r.status, r.header)
	}
}

// Every row of the corpus, on files in a bucket.
func TestAttackCorpusOnABucket(t *testing.T) { inEachBucket(t, attackBucket) }

func attackBucket(t *testing.T, b *bucket) { attackBucketBy(t, b, "proxy") }

// And for a client that is sent there, by what it gets in the end.
func TestAttackCorpusOfAClientThatIsSentToABucket(t *testing.T) {
	inEachBucket(t, func(t *testing.T, b *bucket) { attackBucketBy(t, b, "redirect") })
}

func attackBucketBy(t *testing.T, b *bucket, deliver string) {
	contents := plantTree(t, publicDir(t))
	for name, text := range contents {
		b.put("files", "site/"+name, text)
		b.put("files", name, "CANARY OUTSIDE the prefix")
		b.put("other", "site/"+name, "CANARY OUTSIDE the bucket")
	}
	s := startStored(t, b, "    deliver: "+deliver+"\n", func(p *plan) { p.policy = corpusPolicy })
	if deliver == "redirect" {
		s.sentTo = b.server.URL
	}
	before := s.series()
	s.attackWith(t, contents, nil)
	if after := s.series(); after != before {
		t.Errorf("%d metric series became %d", before, after)
	}
	for _, r := range b.took() {
		if !strings.HasPrefix(r.URL.EscapedPath(), "/files/site/") || r.Header.Get("Authorization") != "" {
			t.Errorf("the store was asked for %s: %v", r.URL.EscapedPath(), r.Header)
		}
	}
}

// Whoever is between nginx and the service, and can change an answer, cannot change what
// the store is asked for where answers are proved.
func TestAProofIsOfWhatAStoreIsAskedFor(t *testing.T) {
	t.Parallel()
	b := newBucket(t)
	var change atomic.Bool
	s := startStored(t, b, "proof_secret_file: proof\n", func(p *plan) {
		before := p.before
		p.before = func(s *site) {
			before(s)
			s.write("proof", "0123456789abcdef0123456789abcdef\n")
			s.printProof()
		}
		p.edit = func(s *site, conf string) string {
			between := httptest.NewServer(&httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
				r.SetURL(&url.URL{Scheme: "http", Host: s.service})
				r.Out.Host = r.In.Host
			}, ModifyResponse: func(r *http.Response) error {
				if signed := r.Header.Get("X-Securefiles-Upstream"); change.Load() && signed != "" {
					r.Header.Set("X-Securefiles-Upstream", strings.Replace(signed, "plan.txt", "hr/pay.txt", 1))
				}
				return nil
			}})
			t.Cleanup(between.Close)
			return strings.Replace(conf, "server "+s.service+" max_conns=512;", "server "+strings.TrimPrefix(between.URL, "http://")+";", 1)
		}
	})
	s.status("alice", "/downloads/project/plan.txt", 200)
	b.took()
	change.Store(true)
	s.status("alice", "/downloads/project/plan.txt", 503)
	if asked := b.took(); len(asked) > 0 {
		t.Errorf("the store was asked for %s", asked[0].URL)
	}
}
