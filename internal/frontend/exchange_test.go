package frontend

import (
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"testing"

	"securefiles/authz"
)

// Each header by which the service is asked, or answers, is told of in docs/design.md.
func TestDocumentedExchangeIsTheOneThereIs(t *testing.T) {
	doc, err := os.ReadFile("../../docs/design.md")
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	for _, file := range []string{"authrequest.go", "accel.go", "direct.go", "../nginx/server.conf.tmpl"} {
		source, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`(?m)^\theader\w+ *= "([A-Za-z-]+)"|proxy_set_header ([A-Z][A-Za-z-]+) `).FindAllStringSubmatch(string(source), -1) {
			names[m[1]+m[2]] = true
		}
	}
	for _, other := range []string{"Connection", "Content-Length", "Content-Type", "Range", "If-Match", "If-None-Match", "If-Modified-Since", "If-Unmodified-Since"} { // of what goes to a store, or of a body
		delete(names, other)
	}
	if len(names) < 30 {
		t.Fatalf("%d headers only", len(names))
	}
	for name := range names {
		if !strings.Contains(strings.ToLower(string(doc)), "`"+strings.ToLower(name)) {
			t.Errorf("docs/design.md does not tell of %s", name)
		}
	}
}

// With If-Range the whole file may come: who bounds bytes is told of it without nginx too.
func TestDirectTellsOfIfRange(t *testing.T) {
	var got *authz.Question
	front := newTestFront(t, testDownload(), fakeIdentity(func(q *authz.Question) (authz.Principal, error) {
		got = q
		return authz.Principal{}, authz.ErrNoCredentials
	}), denyAll, nil, nil)
	d := testDownload()
	direct, err := NewDirect(front, []DirectDownload{{URL: d.URL, Internal: d.Internal, Root: t.TempDir()}}, &DirectOptions{AnyHost: true})
	if err != nil {
		t.Fatal(err)
	}
	r := httptest.NewRequest(http.MethodGet, "/downloads/a.txt", nil)
	r.Header.Set("Range", "bytes=0-9")
	r.Header.Set("If-Range", `"etag"`)
	direct.ServeHTTP(httptest.NewRecorder(), r)
	if got == nil || got.Range != "bytes=0-9" || got.IfRange != `"etag"` {
		t.Errorf("the question is %+v", got)
	}
}
