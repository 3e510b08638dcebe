package storage

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"
)

func TestWhatIsWrongWithAStoreIsTold(t *testing.T) {
	server := bucketServer(t, map[string]string{"sub/a": "a"})
	if err := newTestS3(t, server.URL).Try(t.Context()); err != nil {
		t.Errorf("nothing is wrong: %v", err)
	}
	says := func(status int, code, more string) string {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(status)
			fmt.Fprintf(w, `<?xml version="1.0"?><Error><Code>%s</Code><Message>CANARY</Message>%s</Error>`, code, more)
		}))
		t.Cleanup(s.Close)
		return s.URL
	}
	secure := httptest.NewTLSServer(http.NotFoundHandler())
	secure.Config.ErrorLog = log.New(io.Discard, "", 0)
	t.Cleanup(secure.Close)
	clock := func(by time.Duration) func(*S3, *Options) {
		return func(_ *S3, o *Options) { o.Now = func() time.Time { return time.Now().Add(by) } }
	}
	unknown := &url.Error{Op: "Get", URL: "https://s3.example.org/?X-Amz-Signature=1", Err: &tls.CertificateVerificationError{Err: x509.UnknownAuthorityError{}}}
	if err := newTestS3(t, "https://s3.example.org").unreachable(unknown); !strings.Contains(err.Error(), "name a file with its authority") || strings.Contains(err.Error(), "X-Amz") {
		t.Errorf("an unknown authority: %v", err)
	}
	for _, row := range []struct {
		name, endpoint string
		edit           func(*S3, *Options)
		want           string
	}{
		{"another bucket", server.URL, func(b *S3, _ *Options) { b.Bucket = "none" }, "there is no such bucket or container"},
		{"another secret", server.URL, func(_ *S3, o *Options) { o.Lookup = otherSecret }, "the secret of the key is wrong"},
		{"another key", server.URL, func(_ *S3, o *Options) {
			o.Lookup = func(string) (string, bool) { return "UNKNOWNKEYID", true }
		}, "the store does not know the key"},
		{"another key of versitygw's", says(404, "XAdminUserNotFound", ""), nil, "the store does not know the key"},
		{"a clock that is behind", server.URL, clock(-time.Hour), "refuses"},
		{"nobody there", "http://127.0.0.1:1", nil, "http://127.0.0.1:1 does not answer: "},
		{"another certificate", strings.Replace(secure.URL, "127.0.0.1", "localhost", 1), nil, "has a certificate for another name"},
		{"another region", says(301, "PermanentRedirect", ""), nil, "in another region"},
		{"the region that it is", says(400, "AuthorizationHeaderMalformed", "<Region>eu-west-1</Region>"), nil, `write region: "eu-west-1"`},
		{"a session that is over", says(400, "ExpiredToken", ""), nil, "the session of the credentials is over"},
		{"no right to list", says(403, "AccessDenied", ""), nil, "may read but not list"},
		{"another redirect", says(302, "", ""), nil, "sends elsewhere"},
		{"an account's key", says(403, "AuthenticationFailed", ""), nil, "the key of the account is wrong"},
		{"no keys at all", says(403, "KeyBasedAuthenticationNotPermitted", ""), nil, "allow shared key access"},
		{"trouble", says(503, "SlowDown", ""), nil, "try again"},
		{"anything else", says(418, "", ""), nil, "the store refuses (418)"},
		{"no credentials", "http://127.0.0.1:1", func(_ *S3, o *Options) { o.Lookup = nil }, "the credentials are not read yet"},
	} {
		s := newTestS3(t, row.endpoint, func(b *S3, o *Options) {
			o.CAFile = "/dev/null"
			if row.edit != nil {
				row.edit(b, o)
			}
		})
		err := s.Try(t.Context())
		if err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s: %v, want %q", row.name, err, row.want)
		} else if strings.Contains(err.Error(), "X-Amz") || strings.Contains(err.Error(), "CANARY") {
			t.Errorf("%s: it tells what was signed, or what the store wrote: %v", row.name, err)
		}
	}
}
