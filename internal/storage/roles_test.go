package storage

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// A giver stands in for AWS's: the metadata of an instance by version 2, the
// endpoint of ECS and EKS, and STS. It gives the credentials that a test says.
type giver struct {
	*httptest.Server
	mu     sync.Mutex
	key    string
	ends   time.Time
	broken bool
	asked  int
}

func newGiver(t *testing.T) *giver {
	t.Helper()
	a := &giver{key: "FIRST", ends: time.Now().Add(time.Hour)}
	a.Server = httptest.NewServer(a)
	t.Cleanup(a.Close)
	return a
}

func (a *giver) give(key string, ends time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.key, a.ends, a.broken = key, ends, false
}

func (a *giver) fail() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.broken = true
}

func (a *giver) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.asked++
	ends := a.ends.UTC().Format(time.RFC3339Nano)
	asJSON := fmt.Sprintf(`{"Code": "Success", "AccessKeyId": %q, "SecretAccessKey": "secret", "Token": "session", "Expiration": %q}`, a.key, ends)
	switch {
	case a.broken:
		http.Error(w, "not now", http.StatusBadRequest)
	case r.Method == http.MethodPut && r.URL.Path == "/latest/api/token" && r.Header.Get("X-Aws-Ec2-Metadata-Token-Ttl-Seconds") != "":
		w.Header().Set("X-Aws-Ec2-Metadata-Token-Ttl-Seconds", "21600")
		fmt.Fprint(w, "of version 2")
	case strings.HasPrefix(r.URL.Path, "/latest/") && r.Header.Get("X-Aws-Ec2-Metadata-Token") != "of version 2":
		http.Error(w, "by version 1 nobody is told anything", http.StatusUnauthorized)
	case r.URL.Path == "/latest/meta-data/iam/security-credentials/":
		fmt.Fprint(w, "reader")
	case r.URL.Path == "/latest/meta-data/iam/security-credentials/reader":
		fmt.Fprint(w, asJSON)
	case r.URL.Path == "/v1/credentials" && r.Header.Get("Authorization") == "the pod's token":
		fmt.Fprint(w, asJSON)
	case strings.TrimSuffix(r.URL.Path, "/") == "/sts" && r.FormValue("Action") == "AssumeRoleWithWebIdentity" && r.FormValue("WebIdentityToken") == "the pod's token" && r.FormValue("RoleArn") == "arn:aws:iam::1:role/reader" && r.Header.Get("Authorization") == "":
		w.Header().Set("Content-Type", "text/xml")
		fmt.Fprintf(w, `<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>%s</AccessKeyId><SecretAccessKey>secret</SecretAccessKey><SessionToken>session</SessionToken><Expiration>%s</Expiration></Credentials></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>`, a.key, ends)
	default:
		http.Error(w, "nobody gives credentials for "+r.URL.String(), http.StatusForbidden)
	}
}

// environments are those in which roles are found, of a giver.
func environments(t *testing.T, a *giver) map[string]map[string]string {
	t.Helper()
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("the pod's token\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return map[string]map[string]string{
		"the instance":     {"AWS_EC2_METADATA_SERVICE_ENDPOINT": a.URL},
		"the container":    {"AWS_CONTAINER_CREDENTIALS_FULL_URI": a.URL + "/v1/credentials", "AWS_CONTAINER_AUTHORIZATION_TOKEN": "the pod's token"},
		"the pod identity": {"AWS_CONTAINER_CREDENTIALS_FULL_URI": a.URL + "/v1/credentials", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": token},
		"the web identity": {"AWS_WEB_IDENTITY_TOKEN_FILE": token, "AWS_ROLE_ARN": "arn:aws:iam::1:role/reader", "AWS_ENDPOINT_URL_STS": a.URL + "/sts"},
	}
}

func looking(in map[string]string) func(string) (string, bool) {
	return func(name string) (string, bool) { value, ok := in[name]; return value, ok }
}

func ofRole(t *testing.T, environment map[string]string, edit ...func(*Options)) *Store {
	t.Helper()
	opts := &Options{Lookup: looking(environment)}
	for _, e := range edit {
		e(opts)
	}
	s, err := NewS3(S3{Bucket: "files", Region: "eu-central-1"}, opts)
	if err != nil {
		t.Fatal(err)
	}
	if !s.Renews() || len(s.Files()) > 0 {
		t.Fatalf("no role is found: %s", s.Source())
	}
	return s
}

func TestRolesOfAWSGiveCredentials(t *testing.T) {
	for name, environment := range environments(t, newGiver(t)) {
		t.Run(name, func(t *testing.T) {
			s := ofRole(t, environment)
			if _, err := s.Locate(t.Context(), asking(t, "GET", "a")); err == nil || s.Generation() != 0 || !strings.Contains(err.Error(), s.Source()) {
				t.Errorf("signed before anybody was asked: %v", err)
			}
			if err := s.Reload(t.Context()); err != nil {
				t.Fatal(err)
			}
			if got := upstream(t, s, "GET", "a"); !strings.Contains(got, "X-Amz-Credential=FIRST%2F") || !strings.Contains(got, "X-Amz-Security-Token=session&") {
				t.Errorf("%s", got)
			}
			if err := s.Reload(t.Context()); err != nil || s.Generation() != 1 {
				t.Errorf("the same credentials are version %d, %v", s.Generation(), err)
			}
		})
	}
}

// Renewed without a restart, before the old ones end.
func TestCredentialsOfARoleAreRenewedBeforeTheyEnd(t *testing.T) {
	t.Parallel()
	a := newGiver(t)
	for name, environment := range environments(t, a) {
		t.Run(name, func(t *testing.T) {
			a.give("FIRST", time.Now().Add(time.Hour))
			began := time.Now()
			ahead := func() time.Time { return began.Add(time.Hour - time.Second) } // a second is left
			s := ofRole(t, environment, func(o *Options) { o.Now = ahead })
			if err := s.Reload(t.Context()); err != nil {
				t.Fatal(err)
			}
			a.give("SECOND", time.Now().Add(2*time.Hour))
			reports, run := make(chan error), make(chan error)
			ctx, cancel := context.WithCancel(t.Context())
			go func() { run <- s.Run(ctx, func(err error) { reports <- err }) }()
			if err := <-reports; err != nil {
				t.Error(err)
			}
			if got := upstream(t, s, "GET", "a"); !strings.Contains(got, "X-Amz-Credential=SECOND%2F") || s.Generation() != 2 {
				t.Errorf("%s", got)
			}
			cancel()
			if err := <-run; err != nil {
				t.Error(err)
			}
		})
	}
}

func TestCredentialsOfARoleCountUntilTheyEndAndNoLonger(t *testing.T) {
	t.Parallel()
	a := newGiver(t)
	for name, environment := range environments(t, a) {
		t.Run(name, func(t *testing.T) {
			now := time.Now()
			a.give("FIRST", now.Add(10*time.Minute))
			s := ofRole(t, environment, func(o *Options) { o.Now = func() time.Time { return now } })
			if err := s.Reload(t.Context()); err != nil {
				t.Fatal(err)
			}
			a.fail()
			if err := s.Reload(t.Context()); err == nil || s.Err() == nil || !strings.Contains(err.Error(), s.Source()) || strings.Contains(err.Error(), "the pod's token") {
				t.Errorf("nobody gives any: %v", err)
			}
			now = now.Add(9 * time.Minute)
			if got := upstream(t, s, "GET", "a"); !strings.Contains(got, "X-Amz-Credential=FIRST%2F") {
				t.Errorf("the last ones are gone: %s", got)
			}
			now = now.Add(time.Minute)
			if where, err := s.Locate(t.Context(), asking(t, "GET", "a")); err == nil || !strings.Contains(err.Error(), "have ended") {
				t.Errorf("signed with what has ended: %+v, %v", where, err)
			}
			a.give("SECOND", now.Add(time.Hour))
			if err := s.Reload(t.Context()); err != nil || s.Err() != nil {
				t.Fatal(err)
			}
			if got := upstream(t, s, "GET", "a"); !strings.Contains(got, "X-Amz-Credential=SECOND%2F") {
				t.Errorf("%s", got)
			}
		})
	}
}

// What is asked first, and who is not asked at all.
func TestWhichCredentialsOfTheEnvironmentCount(t *testing.T) {
	file := filepath.Join(t.TempDir(), "credentials")
	for _, row := range []struct {
		name        string
		bucket      S3
		environment string
		want        string
	}{
		{"keys before roles", S3{Region: "eu-central-1"}, "AWS_ACCESS_KEY_ID=A AWS_SECRET_ACCESS_KEY=s AWS_WEB_IDENTITY_TOKEN_FILE=t", "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY of the environment"},
		{"half of the keys", S3{Region: "eu-central-1"}, "AWS_ACCESS_KEY_ID=A", "the role of this instance, by http://169.254.169.254"},
		{"the web identity before a container's", S3{Region: "eu-central-1"}, "AWS_WEB_IDENTITY_TOKEN_FILE=/t AWS_ROLE_ARN=arn:x AWS_CONTAINER_CREDENTIALS_FULL_URI=http://127.0.0.1/x AWS_SHARED_CREDENTIALS_FILE=" + file, "the role arn:x, by the token in /t"},
		{"the shared file before a container's", S3{Region: "eu-central-1"}, "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI=/x AWS_SHARED_CREDENTIALS_FILE=" + file, file},
		{"the container's before the instance's", S3{Region: "eu-central-1"}, "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI=/v2/x", "the role of this container, by http://169.254.170.2"},
		{"the instance's last", S3{Region: "eu-central-1"}, "", "the role of this instance, by http://169.254.169.254"},
		{"AWS by an endpoint", S3{Endpoint: "https://bucket.vpce-1.s3.eu-central-1.vpce.amazonaws.com"}, "", "the role of this instance, by http://169.254.169.254"},
		{"not asked", S3{Region: "eu-central-1"}, "AWS_EC2_METADATA_DISABLED=true", "none"},
		{"not on AWS", S3{Endpoint: "https://minio.example.org"}, "", "none"},
		{"what ends like AWS", S3{Endpoint: "https://evilamazonaws.com"}, "", "none"},
		{"a container's, not on AWS", S3{Endpoint: "https://minio.example.org"}, "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI=/x", "the role of this container, by http://169.254.170.2"},
	} {
		environment := map[string]string{}
		for pair := range strings.FieldsSeq(row.environment) {
			name, value, _ := strings.Cut(pair, "=")
			environment[name] = value
		}
		row.bucket.Bucket = "files"
		s, err := NewS3(row.bucket, &Options{Lookup: looking(environment)})
		if err != nil {
			t.Fatal(err)
		}
		got := s.Source()
		if !s.Renews() && got != file && s.Generation() == 0 {
			if err := s.Reload(t.Context()); err == nil || !strings.Contains(err.Error(), "there are no credentials") {
				t.Errorf("%s: %v", row.name, err)
			}
			got = "none"
		}
		if got != row.want {
			t.Errorf("%s: %s, want %s", row.name, got, row.want)
		}
	}
}

// A container's token goes to its own machine alone, and nobody is followed elsewhere.
func TestAContainersTokenGoesNowhereElse(t *testing.T) {
	asked := 0
	elsewhere := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked++
		fmt.Fprint(w, `{"AccessKeyId": "EVIL", "SecretAccessKey": "secret"}`)
	}))
	defer elsewhere.Close()
	sends := httptest.NewServer(http.RedirectHandler(elsewhere.URL, http.StatusTemporaryRedirect))
	defer sends.Close()
	for name, environment := range map[string]map[string]string{
		"a host":                  {"AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://evil.example/x"},
		"an address":              {"AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://192.0.2.1/x"},
		"no URL":                  {"AWS_CONTAINER_CREDENTIALS_FULL_URI": "evil.example"},
		"localhost":               {"AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://localhost.evil.example/x"},
		"a user part":             {"AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://127.0.0.1@evil.example/x"},
		"a path":                  {"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "@evil.example/x"},
		"redirected: a container": {"AWS_CONTAINER_CREDENTIALS_FULL_URI": sends.URL},
		"redirected: an instance": {"AWS_EC2_METADATA_SERVICE_ENDPOINT": sends.URL},
	} {
		environment["AWS_CONTAINER_AUTHORIZATION_TOKEN"] = "token"
		s := ofRole(t, environment)
		before := !strings.HasPrefix(name, "redirected: ")
		if err := s.Reload(t.Context()); err == nil || asked > 0 || before && !strings.Contains(err.Error(), "AWS_CONTAINER_CREDENTIALS_FULL_URI is ") {
			t.Errorf("%s: %v, asked %d times", name, err, asked)
		}
		if _, err := s.Locate(t.Context(), asking(t, "GET", "a")); err == nil {
			t.Errorf("%s: something is signed", name)
		}
	}
}

// On ECS the path of the endpoint is what the container's credentials are got by, and a URL
// may hold a password: no log has either, nor what `check` prints.
func TestNoLogHoldsWhatAContainerAsksBy(t *testing.T) {
	refuses := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) }))
	defer refuses.Close()
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	for name, endpoint := range map[string]string{
		"it refuses":   refuses.URL + "/v2/credentials/SECRET",
		"it is gone":   gone.URL + "/v2/credentials/SECRET?token=SECRET",
		"a password":   strings.Replace(gone.URL, "http://", "http://user:SECRET@", 1) + "/x",
		"another host": "http://user:SECRET@192.0.2.1/SECRET",
		"no URL":       "http://127.0.0.1:SECRET/",
	} {
		s := ofRole(t, map[string]string{"AWS_CONTAINER_CREDENTIALS_FULL_URI": endpoint})
		if err := s.Reload(t.Context()); err == nil || strings.Contains(err.Error(), "SECRET") || strings.Contains(s.Source(), "SECRET") {
			t.Errorf("%s: %v, of %s", name, err, s.Source())
		}
	}
}

// By version 1 of an instance's metadata whoever can have it send a request gets its
// credentials, and whoever answers in its place gives others: it is not asked by it.
func TestMetadataOfVersion1IsNotAsked(t *testing.T) {
	var gets atomic.Int64
	one := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPut {
			http.NotFound(w, r)
			return
		}
		gets.Add(1)
		if strings.HasSuffix(r.URL.Path, "/") {
			fmt.Fprint(w, "reader")
			return
		}
		fmt.Fprintf(w, `{"Code": "Success", "AccessKeyId": "EVIL", "SecretAccessKey": "s", "Token": "t", "Expiration": %q}`, time.Now().Add(time.Hour).UTC().Format(time.RFC3339))
	}))
	defer one.Close()
	s := ofRole(t, map[string]string{"AWS_EC2_METADATA_SERVICE_ENDPOINT": one.URL})
	if err := s.Reload(t.Context()); err == nil || gets.Load() > 0 {
		t.Errorf("%v, asked %d times", err, gets.Load())
	}
}
