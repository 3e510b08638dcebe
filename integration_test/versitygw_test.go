package integration_test

import (
	"cmp"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"securefiles/authz"
	"securefiles/internal/freeport"
	"securefiles/internal/storage"
	"securefiles/pathguard"
)

// versitygw is where a gateway's program is that speaks S3 and keeps its objects as files:
// `make versitygw` builds it, and runs these tests.
const versitygw = "SECUREFILES_TEST_VERSITYGW"

// newGateway is a bucket of that gateway's, which nothing stands before, and the directory
// where its buckets are.
func newGateway(t *testing.T) (*bucket, string) {
	t.Helper()
	program := os.Getenv(versitygw)
	if program == "" {
		t.Skip("`make versitygw` runs this test")
	}
	dir, address := t.TempDir(), freeport.Address(t)
	buckets := filepath.Join(dir, "buckets")
	for _, name := range []string{"files", "other"} {
		if err := os.MkdirAll(filepath.Join(buckets, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	log := &logBuffer{}
	gateway := exec.Command(program, "--quiet", "--port", address, "posix", buckets)
	gateway.Dir, gateway.Stdout, gateway.Stderr = dir, log, log
	gateway.Env = append(os.Environ(), "ROOT_ACCESS_KEY="+storeKeyID, "ROOT_SECRET_KEY="+storeSecret)
	gateway.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := gateway.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { end(gateway) })
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) { // between polls
		if conn, err := net.Dial("tcp", address); err == nil {
			_ = conn.Close() // it listens
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the gateway does not listen: %s", log.String())
		}
	}
	b := &bucket{t: t, kind: "s3", key: credentials(storeKeyID, storeSecret), server: &httptest.Server{URL: "http://" + address}}
	b.upload = func(bucket, key, text string) {
		t.Helper()
		file := filepath.Join(buckets, bucket, key)
		if _, err := pathguard.New("/" + key); err != nil { // what no request could name
			if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(text), 0o644)); err != nil {
				t.Fatal(err)
			}
			return
		}
		to := b.signs(storage.S3{Bucket: bucket}, storage.Options{}, http.MethodPut, key)
		if status, body := sendSigned(t, http.MethodPut, to, text); status != 200 {
			t.Fatalf("PUT %q: %d %s", key, status, body)
		}
		old := time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC)
		if err := os.Chtimes(file, old, old); err != nil {
			t.Fatal(err)
		}
	}
	b.put("other", "project/plan.txt", "CANARY of another bucket")
	b.put("files", "above.txt", "CANARY above the prefix")
	return b, buckets
}

// signs returns a signed URL of a key, for a bucket and options that say what differs from
// what the gateway expects.
func (b *bucket) signs(of storage.S3, opts storage.Options, method, key string) string {
	b.t.Helper()
	of.Bucket, of.Endpoint = cmp.Or(of.Bucket, "files"), b.server.URL
	if opts.Lookup == nil {
		opts.Lookup = environment(storeKeyID, storeSecret)
	}
	store, err := storage.NewS3(of, &opts)
	if err != nil {
		b.t.Fatal(err)
	}
	path, err := pathguard.New("/" + key)
	if err != nil {
		b.t.Fatalf("%q: %v", key, err)
	}
	where, err := store.Locate(b.t.Context(), &authz.Question{Method: method, Path: path, Asked: path, Download: &authz.Download{Name: "main", CacheControl: "private, no-store"}})
	if err != nil {
		b.t.Fatalf("%q: %v", key, err)
	}
	return cmp.Or(where.Redirect, b.server.URL+where.Upstream)
}

func environment(id, secret string) func(string) (string, bool) {
	return func(name string) (string, bool) {
		value, ok := map[string]string{"AWS_ACCESS_KEY_ID": id, "AWS_SECRET_ACCESS_KEY": secret}[name]
		return value, ok
	}
}

// sendSigned sends a request to a URL as it stands.
func sendSigned(t *testing.T, method, target, text string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, target, strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	if text != "" {
		req.Header.Set("Content-Type", "text/plain")
	}
	if req.URL.String() != target {
		t.Fatalf("%s would be asked for as %s", target, req.URL)
	}
	r, err := do(newClient(), req)
	if err != nil {
		t.Fatal(err)
	}
	return r.status, r.body
}

// Each name is the file of that name below the gateway's bucket, by nginx and by a client
// that is sent there, and stands in its folder's list.
func TestAGatewayHasTheObjectOfEachName(t *testing.T) {
	b, dir := newGateway(t)
	eachNameIsItsObject(t, b)
	rows := map[string]bool{}
	for _, name := range storeNames() {
		// The gateway's own file, which no signature had a part in.
		if text, err := os.ReadFile(filepath.Join(dir, "files", "site", "public", name)); err != nil || string(text) != "this is "+name {
			t.Errorf("%q: the gateway has %q, %v", name, text, err)
		}
		for _, method := range []string{http.MethodGet, http.MethodHead} {
			to := b.signs(storage.S3{Prefix: "site/public/"}, storage.Options{Redirect: true}, method, name)
			if status, body := sendSigned(t, method, to, ""); status != 200 || method == http.MethodGet && body != "this is "+name {
				t.Errorf("%s %q, redirected: %d %q", method, name, status, body)
			}
		}
		folder, _, deeper := strings.Cut(name, "/")
		if deeper {
			folder += "/"
		}
		rows[folder] = true
	}
	rows["welcome.txt"] = true
	s := startStored(t, b, "    listing: true\n", func(p *plan) { p.policy += "p, @anyone, /public/**, list, allow\n" })
	d := s.list("alice", "/downloads/public/")
	var got []string
	for _, e := range d.Entries {
		name := e.Name
		if e.Type == "directory" {
			name += "/"
		} else if r := s.get("alice", e.URL); r.status != 200 || name != "welcome.txt" && r.body != "this is "+name {
			t.Errorf("%q leads to %s: %d %q", name, e.URL, r.status, r.body)
		}
		got = append(got, name)
	}
	if len(got) != len(rows) || slices.ContainsFunc(got, func(name string) bool { return !rows[name] }) || d.Next != "" {
		t.Errorf("%d of %d names, next %q: %q", len(got), len(rows), d.Next, got)
	}
	if d := s.list("alice", "/downloads/public/a/b/"); d.String() != "c d/" {
		t.Errorf("a folder below: %s", d)
	}
}

func TestRangesAndConditionsOfAGateway(t *testing.T) {
	b, dir := newGateway(t)
	rangesAndConditions(t, b)

	// The gateway compares times with their fractions of a second, which no date of HTTP has:
	// the file counts as newer, and the whole is sent.
	s := startStored(t, b, "")
	between := time.Date(2025, 1, 1, 0, 0, 0, 5e8, time.UTC)
	if err := os.Chtimes(filepath.Join(dir, "files", "site", "project", "plan.txt"), between, between); err != nil {
		t.Fatal(err)
	}
	const path = "/downloads/project/plan.txt"
	date := s.status("alice", path, 200).header.Get("Last-Modified")
	if r := s.status("alice", path, 200, with("If-Modified-Since", date)); r.body != "0123456789\n" {
		t.Errorf("since its own date: %q", r.body)
	}
}

func TestAGatewayIsServedByPolicy(t *testing.T) {
	b, _ := newGateway(t)
	servedByPolicy(t, b)
}

func TestAttackCorpusOnAGateway(t *testing.T) {
	b, _ := newGateway(t)
	attackBucketBy(t, b, "proxy")
}

// A signature is for one object, by one method, for a minute or two: the gateway refuses
// all else.
func TestAGatewayRefusesWhatIsNotSigned(t *testing.T) {
	b, _ := newGateway(t)
	b.put("files", "site/a", "a")
	b.put("files", "site/b", "CANARY b")
	b.put("other", "site/a", "CANARY of another bucket")
	of := storage.S3{Prefix: "site/"}
	for mode, redirect := range map[string]bool{"proxy": false, "redirect": true} {
		sign := func(opts storage.Options) string {
			opts.Redirect = redirect
			return b.signs(of, opts, http.MethodGet, "a")
		}
		good := sign(storage.Options{})
		if status, body := sendSigned(t, http.MethodGet, good, ""); status != 200 || body != "a" {
			t.Fatalf("%s: %d %q", mode, status, body)
		}
		ago := func(d time.Duration) storage.Options {
			return storage.Options{Now: func() time.Time { return time.Now().Add(d) }}
		}
		for name, other := range map[string]string{
			"another key":        strings.Replace(good, "/site/a?", "/site/b?", 1),
			"above the prefix":   strings.Replace(good, "/site/a?", "/above.txt?", 1),
			"a climb":            strings.Replace(good, "/site/a?", "/site/%2e%2e/above.txt?", 1),
			"another bucket":     strings.Replace(good, "/files/", "/other/", 1),
			"a longer time":      regexp.MustCompile(`X-Amz-Expires=\d+`).ReplaceAllString(good, "X-Amz-Expires=86400"),
			"another date":       regexp.MustCompile(`X-Amz-Date=\d+`).ReplaceAllString(good, "X-Amz-Date=20990101"),
			"another signature":  good[:len(good)-1] + string('0'+(good[len(good)-1]+1)%8),
			"another header":     good + "&response-content-type=text%2Fhtml",
			"no signature":       good[:strings.Index(good, "?")],
			"another secret":     sign(storage.Options{Lookup: environment(storeKeyID, "another")}),
			"another key's name": sign(storage.Options{Lookup: environment("ANOTHER", storeSecret)}),
			"three minutes past": sign(ago(-3 * time.Minute)),
		} {
			if other == good {
				t.Fatalf("%s, %s: nothing differs", mode, name)
			}
			want := cmp.Or(map[string]int{"another date": 400, "another key's name": 404}[name], 403) // as the gateway has it
			if status, body := sendSigned(t, http.MethodGet, other, ""); status != want || strings.Contains(body, "CANARY") || body == "a" {
				t.Errorf("%s, %s: %d %q", mode, name, status, body)
			}
		}
		for _, method := range []string{http.MethodHead, http.MethodPut, http.MethodDelete} {
			if status, _ := sendSigned(t, method, good, ""); status != 403 {
				t.Errorf("%s, %s by a signature for GET: %d", mode, method, status)
			}
		}
		if status, body := sendSigned(t, http.MethodGet, good, ""); status != 200 || body != "a" {
			t.Errorf("%s, after all this: %d %q", mode, status, body)
		}
	}
	for name, row := range map[string]struct{ id, secret, says string }{
		"nothing is wrong": {storeKeyID, storeSecret, ""},
		"another secret":   {storeKeyID, "another", "the secret of the key is wrong"},
		"another key":      {"ANOTHER", storeSecret, "does not know the key"},
	} {
		store, err := storage.NewS3(storage.S3{Bucket: "files", Endpoint: b.server.URL, Prefix: "site/"}, &storage.Options{Lookup: environment(row.id, row.secret)})
		if err != nil {
			t.Fatal(err)
		}
		if err := store.Try(t.Context()); (err == nil) != (row.says == "") || err != nil && !strings.Contains(err.Error(), row.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
