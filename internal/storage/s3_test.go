package storage

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

func newTestS3(t *testing.T, endpoint string, edit ...func(*S3, *Options)) *Store {
	t.Helper()
	bucket, opts := S3{Bucket: "files", Region: "eu-central-1", Endpoint: endpoint, Prefix: "sub/"}, &Options{Lookup: environ}
	for _, e := range edit {
		e(&bucket, opts)
	}
	s, err := NewS3(bucket, opts)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestEachNameIsTheKeyOfItsOwnObject(t *testing.T) {
	objects := map[string]string{}
	for _, name := range hostileNames() {
		objects["sub/"+name] = "this is " + name
		objects[name] = "CANARY outside the prefix"
	}
	server := bucketServer(t, objects)
	for mode, redirect := range map[string]bool{"proxy": false, "redirect": true} {
		s := newTestS3(t, server.URL, func(_ *S3, o *Options) { o.Redirect = redirect })
		for _, name := range hostileNames() {
			url := upstream(t, s, "GET", name)
			if status, body := fetch(t, "GET", url); status != 200 || body != "this is "+name {
				t.Errorf("%s, %q: %d %q", mode, name, status, body)
			}
			if status, _ := fetch(t, "HEAD", upstream(t, s, "HEAD", name)); status != 200 {
				t.Errorf("%s, HEAD %q: %d", mode, name, status)
			}
		}
	}
}

func TestASignatureIsForOneObjectOneMethodAndAMinuteOrTwo(t *testing.T) {
	server := bucketServer(t, map[string]string{"sub/a": "a", "sub/b": "b", "a": "outside"})
	url := upstream(t, newTestS3(t, server.URL), "GET", "a")
	if status, body := fetch(t, "GET", url); status != 200 || body != "a" {
		t.Fatalf("%d %q", status, body)
	}
	for name, other := range map[string]string{
		"another object":     strings.Replace(url, "/sub/a?", "/sub/b?", 1),
		"above the prefix":   strings.Replace(url, "/sub/a?", "/a?", 1),
		"another bucket":     strings.Replace(url, "/files/", "/other/", 1),
		"a longer time":      regexp.MustCompile(`X-Amz-Expires=\d+`).ReplaceAllString(url, "X-Amz-Expires=86400"),
		"another signature":  url[:len(url)-1] + string('0'+(url[len(url)-1]+1)%8),
		"another header":     url + "&response-content-type=text%2Fhtml",
		"no signature":       url[:strings.Index(url, "?")],
		"another secret":     upstream(t, newTestS3(t, server.URL, func(_ *S3, o *Options) { o.Lookup = otherSecret }), "GET", "a"),
		"three minutes past": upstream(t, newTestS3(t, server.URL, func(_ *S3, o *Options) { o.Now = func() time.Time { return time.Now().Add(-3 * time.Minute) } }), "GET", "a"),
	} {
		if status, body := fetch(t, "GET", other); status != 403 || body == "b" || strings.Contains(body, "outside") {
			t.Errorf("%s: %d %q", name, status, body)
		}
	}
	for _, method := range []string{"HEAD", "DELETE", "PUT"} {
		if status, _ := fetch(t, method, url); status < 400 {
			t.Errorf("%s by a signature for GET: %d", method, status)
		}
	}
}

func otherSecret(name string) (string, bool) {
	if name == "AWS_SECRET_ACCESS_KEY" {
		return "another", true
	}
	return environ(name)
}

// The example of "Authenticating Requests: Using Query Parameters" in Amazon's API
// reference, but for the lifetime.
func TestASignatureIsTheOneOfAmazonsDocumentation(t *testing.T) {
	s := newTestS3(t, "", func(b *S3, o *Options) {
		*b = S3{Bucket: "examplebucket", Region: "us-east-1", Endpoint: "https://s3.amazonaws.com", Addressing: "host"}
		o.Lookup = func(name string) (string, bool) {
			value, ok := map[string]string{"AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE", "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"}[name]
			return value, ok
		}
		o.Now = at("2013-05-24T00:00:59Z")
	})
	got := upstream(t, s, "GET", "test.txt")
	const want = "https://examplebucket.s3.amazonaws.com/test.txt?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524%2Fus-east-1%2Fs3%2Faws4_request&X-Amz-Date=20130524T000000Z&X-Amz-Expires=120&X-Amz-SignedHeaders=host&X-Amz-Signature="
	if !strings.HasPrefix(got, want) {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestWhereABucketIsAsked(t *testing.T) {
	for _, row := range []struct {
		name   string
		bucket S3
		want   Endpoint
	}{
		{"AWS", S3{Bucket: "files", Region: "eu-central-1"}, Endpoint{Scheme: "https", Host: "files.s3.eu-central-1.amazonaws.com", Path: "/"}},
		{"AWS, by path", S3{Bucket: "files", Region: "eu-central-1", Addressing: "path"}, Endpoint{Scheme: "https", Host: "s3.eu-central-1.amazonaws.com", Path: "/files/"}},
		{"AWS, a name with dots", S3{Bucket: "files.example.org", Region: "eu-central-1"}, Endpoint{Scheme: "https", Host: "s3.eu-central-1.amazonaws.com", Path: "/files.example.org/"}},
		{"another", S3{Bucket: "files", Endpoint: "https://minio.example.org:9000"}, Endpoint{Scheme: "https", Host: "minio.example.org:9000", Path: "/files/"}},
		{"another, by host", S3{Bucket: "files", Endpoint: "https://minio.example.org:9000", Addressing: "host"}, Endpoint{Scheme: "https", Host: "files.minio.example.org:9000", Path: "/"}},
		{"a port that is the scheme's", S3{Bucket: "files", Endpoint: "https://minio.example.org:443"}, Endpoint{Scheme: "https", Host: "minio.example.org", Path: "/files/"}},
		{"a prefix", S3{Bucket: "files", Endpoint: "http://127.0.0.1:9000", Prefix: "a b/c+d/"}, Endpoint{Scheme: "http", Host: "127.0.0.1:9000", Path: "/files/a%20b/c%2Bd/"}},
	} {
		s, err := NewS3(row.bucket, &Options{Lookup: environ})
		if err != nil {
			t.Errorf("%s: %v", row.name, err)
		} else if got := s.Endpoint(); got != row.want {
			t.Errorf("%s: %+v, want %+v", row.name, got, row.want)
		}
	}
}

func TestWhatIsNoBucketIsRefused(t *testing.T) {
	good := S3{Bucket: "files", Region: "eu-central-1", Endpoint: "https://s3.example.org"}
	for _, row := range []struct {
		option string
		edit   func(*S3, *Options)
	}{
		{"bucket", func(b *S3, _ *Options) { b.Bucket = "" }},
		{"bucket", func(b *S3, _ *Options) { b.Bucket = "a/b" }},
		{"bucket", func(b *S3, _ *Options) { b.Bucket = "files?x" }},
		{"bucket", func(b *S3, _ *Options) { b.Bucket = "a..b" }},
		{"region", func(b *S3, _ *Options) { b.Region, b.Endpoint = "", "" }},
		{"region", func(b *S3, _ *Options) { b.Region = "eu central" }},
		{"region", func(b *S3, _ *Options) { b.Region, b.Endpoint = "evil.example/", "" }},
		{"endpoint", func(b *S3, _ *Options) { b.Endpoint = "s3.example.org" }},
		{"endpoint", func(b *S3, _ *Options) { b.Endpoint = "ftp://s3.example.org" }},
		{"endpoint", func(b *S3, _ *Options) { b.Endpoint = "https://user@s3.example.org" }},
		{"endpoint", func(b *S3, _ *Options) { b.Endpoint = "https://s3.example.org/files" }},
		{"endpoint", func(b *S3, _ *Options) { b.Endpoint = "https://s3.example.org?x" }},
		{"endpoint", func(b *S3, _ *Options) { b.Endpoint = "https://$host" }},
		{"endpoint", func(b *S3, _ *Options) { b.Endpoint = "https://s3.example.org;" }},
		{"endpoint", func(b *S3, _ *Options) { b.Endpoint = "https://192.0.2.1:9000" }},
		{"endpoint", func(b *S3, _ *Options) { b.Endpoint = "http://s3.example.org" }},
		{"addressing", func(b *S3, _ *Options) { b.Addressing = "virtual" }},
		{"addressing", func(b *S3, _ *Options) { b.Bucket, b.Addressing = "Files_Of", "host" }},
		{"prefix", func(b *S3, _ *Options) { b.Prefix = "/files/" }},
		{"prefix", func(b *S3, _ *Options) { b.Prefix = "files" }},
		{"prefix", func(b *S3, _ *Options) { b.Prefix = "../" }},
		{"prefix", func(b *S3, _ *Options) { b.Prefix = "a//" }},
		{"prefix", func(b *S3, _ *Options) { b.Prefix = "$x/" }},
	} {
		bucket, opts := good, Options{Lookup: environ}
		row.edit(&bucket, &opts)
		var option *OptionError
		if _, err := NewS3(bucket, &opts); !errors.As(err, &option) || option.Option != row.option {
			t.Errorf("%s: %+v: %v", row.option, bucket, err)
		}
	}
	for name, lookup := range map[string]func(string) (string, bool){
		"no environment": nil,
		"half of it":     func(name string) (string, bool) { return "AKID", name == "AWS_ACCESS_KEY_ID" },
	} {
		s, err := NewS3(good, &Options{Lookup: lookup})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Reload(t.Context()); err == nil || !strings.Contains(err.Error(), "AWS_ACCESS_KEY_ID") {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := s.Locate(t.Context(), asking(t, "GET", "a")); err == nil {
			t.Errorf("%s: something is signed", name)
		}
	}
	insecure := good
	insecure.Endpoint = "http://minio:9000"
	if _, err := NewS3(insecure, &Options{Lookup: environ, InsecureHTTP: true}); err != nil {
		t.Error(err)
	}
}

func TestCredentialsAreReadAgainAndTheLastGoodOnesStay(t *testing.T) {
	file := filepath.Join(t.TempDir(), "credentials")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s := newTestS3(t, "https://s3.example.org", func(_ *S3, o *Options) { o.CredentialsFile = file })
	if _, err := s.Locate(t.Context(), asking(t, "GET", "a")); err == nil || s.Generation() != 0 {
		t.Errorf("signed before the credentials were read: %v", err)
	}
	if err := s.Reload(t.Context()); err == nil {
		t.Error("a file that is not there is read")
	}
	for _, row := range []struct {
		name, text, id, token string
	}{
		{"default", "# of the service\n[default]\naws_access_key_id = ONE\naws_secret_access_key=s+/=\n", "ONE", ""},
		{"with a token", "[default]\r\naws_access_key_id=TWO\r\naws_secret_access_key=s\r\naws_session_token=t+o/k\r\n", "TWO", "t%2Bo%2Fk"},
		{"among others", "[x]\naws_access_key_id=X\naws_secret_access_key=s\n[default]\naws_access_key_id=THREE\naws_secret_access_key=s\n", "THREE", ""},
		{"the only section", "[files]\naws_access_key_id=FOUR\naws_secret_access_key=s\n", "FOUR", ""},
	} {
		write(row.text)
		before := s.Generation()
		if err := s.Reload(t.Context()); err != nil || s.Generation() != before+1 {
			t.Errorf("%s: %v", row.name, err)
		}
		got := upstream(t, s, "GET", "a")
		if !strings.Contains(got, "X-Amz-Credential="+row.id+"%2F") || row.token != "" && !strings.Contains(got, "X-Amz-Security-Token="+row.token+"&") {
			t.Errorf("%s: %s", row.name, got)
		}
	}
	for name, text := range map[string]string{
		"empty":            "",
		"no section":       "aws_access_key_id=A\naws_secret_access_key=s\n",
		"no default":       "[a]\naws_access_key_id=A\n[b]\naws_access_key_id=B\n",
		"half":             "[default]\naws_access_key_id=A\n",
		"another format":   `{"AccessKeyId": "A"}`,
		"a key with a tab": "[default]\naws_access_key_id=A\tB\naws_secret_access_key=s\n",
	} {
		write(text)
		if err := s.Reload(t.Context()); err == nil || strings.Contains(err.Error(), "=s") {
			t.Errorf("%s: %v", name, err)
		}
		if got := upstream(t, s, "GET", "a"); !strings.Contains(got, "X-Amz-Credential=FOUR") {
			t.Errorf("%s: the last credentials are gone: %s", name, got)
		}
	}
}

// Whoever mistyped a secret mends it under the id that was right, and MinIO's users keep
// their name with another secret.
func TestAnotherSecretOfTheSameKeyCountsAtOnce(t *testing.T) {
	server := bucketServer(t, map[string]string{"sub/a": "a"})
	file := filepath.Join(t.TempDir(), "credentials")
	s := newTestS3(t, server.URL, func(_ *S3, o *Options) { o.CredentialsFile = file })
	for _, row := range []struct {
		secret string
		want   int
	}{{"mistyped", 403}, {secretKey, 200}, {"another", 403}} {
		if err := os.WriteFile(file, fmt.Appendf(nil, "[default]\naws_access_key_id=%s\naws_secret_access_key=%s\n", keyID, row.secret), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := s.Reload(t.Context()); err != nil {
			t.Fatal(err)
		}
		if status, _ := fetch(t, "GET", upstream(t, s, "GET", "a")); status != row.want {
			t.Errorf("by the secret %s: %d, not %d", row.secret, status, row.want)
		}
	}
}
