package storage

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const testAccount = "testdata/google_service_account.json"

func newTestGCS(t *testing.T, b GCS, edit ...func(*Options)) *Store {
	t.Helper()
	opts := &Options{CredentialsFile: testAccount}
	for _, e := range edit {
		e(opts)
	}
	s, err := NewGCS(b, opts)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	return s
}

// Google's vectors are for some seconds, which is not how long ours count.
func TestGoogleSignaturesAreThoseOfGooglesVectors(t *testing.T) {
	text, err := os.ReadFile("testdata/google_v4_signatures.json")
	if err != nil {
		t.Fatal(err)
	}
	var rows []struct {
		Description, Bucket, Object, Method, Scheme, Hostname, Timestamp, ExpectedURL string
		Expiration                                                                    int
	}
	if err := json.Unmarshal(text, &rows); err != nil || len(rows) < 7 {
		t.Fatalf("%d rows, %v", len(rows), err)
	}
	for _, row := range rows {
		host := row.Hostname
		if host == "" {
			host = "storage.googleapis.com"
		}
		s := newTestGCS(t, GCS{Bucket: row.Bucket})
		g := s.signer.(*gcs)
		g.endpoint = endpoint{scheme: row.Scheme, host: host}
		r := request{method: row.Method, key: row.Object, at: at(row.Timestamp)(), lifetime: time.Duration(row.Expiration) * time.Second}
		got, err := g.sign(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		if got = row.Scheme + "://" + host + got; sorted(t, got) != sorted(t, row.ExpectedURL) {
			t.Errorf("%s:\ngot  %s\nwant %s", row.Description, got, row.ExpectedURL)
		}
	}
}

// sorted is a URL with its query in order, all bytes as they were.
func sorted(t *testing.T, text string) string {
	t.Helper()
	u, err := url.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return u.Scheme + "://" + u.Host + u.EscapedPath() + "?" + u.Query().Encode()
}

func TestGoogleIsAskedForOneObject(t *testing.T) {
	s := newTestGCS(t, GCS{Bucket: "files", Prefix: "sub/"}, func(o *Options) { o.Redirect, o.Now = true, at("2026-11-27T09:00:59Z") })
	for _, name := range hostileNames() {
		got := upstream(t, s, http.MethodGet, name)
		u, err := url.Parse(got)
		if err != nil {
			t.Fatal(err)
		}
		if u.Host != "storage.googleapis.com" || u.Path != "/files/sub/"+name || u.EscapedPath() != "/files/sub/"+escape(name) ||
			u.Query().Get("X-Goog-Date") != "20261127T090000Z" || u.Query().Get("X-Goog-Expires") != "120" || u.Query().Get("response-cache-control") != "private, no-store" {
			t.Errorf("%q: %s", name, got)
		}
		if head := upstream(t, s, http.MethodHead, name); head == got {
			t.Errorf("%q: one signature for two methods", name)
		}
	}
}

func TestWhatIsNoServiceAccountIsRefused(t *testing.T) {
	var option *OptionError
	for _, b := range []GCS{{}, {Bucket: "a/b"}, {Bucket: "files", Endpoint: "https://x.example/path"}, {Bucket: "files", Prefix: "x"}} {
		if _, err := NewGCS(b, nil); !errors.As(err, &option) {
			t.Errorf("%+v: %v", b, err)
		}
	}
	file := filepath.Join(t.TempDir(), "account.json")
	for name, text := range map[string]string{
		"nothing": "", "another file": `{"client_id": "x"}`, "no key": `{"client_email": "a@b"}`,
		"another key": `{"client_email": "a@b", "private_key": "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"}`,
	} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := NewGCS(GCS{Bucket: "files"}, &Options{Lookup: func(name string) (string, bool) { return file, name == "GOOGLE_APPLICATION_CREDENTIALS" }})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Reload(t.Context()); err == nil || !strings.Contains(err.Error(), file) || len(s.Files()) != 1 {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := s.Locate(t.Context(), asking(t, http.MethodGet, "a")); err == nil {
			t.Errorf("%s: something is signed", name)
		}
	}
}
