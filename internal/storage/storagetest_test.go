package storage

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/rclone/gofakes3"
	"github.com/rclone/gofakes3/s3mem"

	"securefiles/authz"
	"securefiles/pathguard"
)

// hostileNames are names of objects in which somebody may take a byte for syntax.
func hostileNames() []string {
	return []string{
		"plain.txt", "a b.txt", "100%.txt", "%25.txt", "%2F.txt", "%2e%2e", "q?.txt", "h#.txt", "a;b.txt", "a+b.txt", "a&b=c.txt",
		`"quoted".txt`, "it's.txt", "~tilde.txt", "`tick`.txt", "na\u00efve.txt", "nai\u0308ve.txt", "日本語.txt", "📄.txt", "[x].txt", "{x}.txt", "<x>.txt",
		"$uri.txt", "${HOME}.txt", "a,b.txt", "a:b.txt", "a@b.txt", "a!b.txt", "a*b.txt", "(x).txt", "a|b.txt", "a^b.txt", "x=y.txt",
		"X-Amz-Signature=1&x.txt", "a/b/c d/e.txt", "...", "a\u00a0b.txt",
	}
}

const keyID, secretKey = "AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"

// bucketServer is a store of S3's kind that verifies signatures, with a bucket that holds
// objects by their keys, and another bucket.
func bucketServer(t *testing.T, objects map[string]string) *httptest.Server {
	t.Helper()
	backend := s3mem.New()
	for _, bucket := range []string{"files", "other"} {
		if err := backend.CreateBucket(t.Context(), bucket); err != nil {
			t.Fatal(err)
		}
		for key, text := range objects {
			if bucket == "other" {
				text = "CANARY " + text
			}
			if _, err := backend.PutObject(t.Context(), bucket, key, map[string]string{"Content-Type": "text/plain"}, strings.NewReader(text), int64(len(text))); err != nil {
				t.Fatal(err)
			}
		}
	}
	server := httptest.NewServer(gofakes3.New(backend, gofakes3.WithV4Auth(map[string]string{keyID: secretKey})).Server())
	t.Cleanup(server.Close)
	return server
}

// environ is the environment with credentials of the server's.
func environ(name string) (string, bool) {
	value, ok := map[string]string{"AWS_ACCESS_KEY_ID": keyID, "AWS_SECRET_ACCESS_KEY": secretKey}[name]
	return value, ok
}

// fetch asks for a URL as it stands: nothing decodes or cleans it.
func fetch(t *testing.T, method, url string) (int, string) {
	t.Helper()
	req, err := http.NewRequest(method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if req.URL.String() != url {
		t.Fatalf("%s would be asked for as %s", url, req.URL)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

// asking is a question for a name.
func asking(t *testing.T, method, name string) *authz.Question {
	t.Helper()
	path, err := pathguard.New("/" + name)
	if err != nil {
		t.Fatalf("%q: %v", name, err)
	}
	return &authz.Question{Method: method, Path: path, Asked: path, Download: &authz.Download{Name: "main", CacheControl: "private, no-store"}}
}

func upstream(t *testing.T, s *Store, method, name string) string {
	t.Helper()
	where, err := s.Locate(context.Background(), asking(t, method, name))
	if err != nil {
		t.Fatalf("%q: %v", name, err)
	}
	if where.Redirect != "" {
		return where.Redirect
	}
	return s.Endpoint().Scheme + "://" + s.Endpoint().Host + where.Upstream
}

func at(clock string) func() time.Time {
	now, err := time.Parse(time.RFC3339, clock)
	if err != nil {
		panic(fmt.Sprint("a test's clock: ", err))
	}
	return func() time.Time { return now }
}
