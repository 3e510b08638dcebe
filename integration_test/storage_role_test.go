package integration_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// A role stands in for the endpoint by which ECS and EKS give a container credentials.
type role struct {
	*httptest.Server
	mu          sync.Mutex
	key, secret string
	ends        time.Time
}

func newRole(t *testing.T) *role {
	t.Helper()
	r := &role{}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, ask *http.Request) {
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.key == "" || ask.Header.Get("Authorization") != "the container's token" {
			http.Error(w, `{"code": "AccessDenied", "message": "the role was taken away"}`, http.StatusForbidden)
			return
		}
		fmt.Fprintf(w, `{"AccessKeyId": %q, "SecretAccessKey": %q, "Token": "session", "Expiration": %q}`, r.key, r.secret, r.ends.UTC().Format(time.RFC3339Nano))
	}))
	t.Cleanup(r.Close)
	return r
}

func (r *role) give(key, secret string, lifetime time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.key, r.secret, r.ends = key, secret, time.Now().Add(lifetime)
}

// The container's role signs, is renewed while downloads run and before its credentials
// end, and once it is taken away nothing is signed any more.
func TestTheRoleOfAContainerIsRenewedWhileDownloadsRun(t *testing.T) {
	t.Parallel()
	b, r := newBucket(t), newRole(t)
	r.give(storeKeyID, storeSecret, 20*time.Second)
	s := startStored(t, b, "", func(p *plan) {
		p.extra = strings.Replace(p.extra, ", credentials_file: credentials", "", 1)
		p.environment = []string{"AWS_CONTAINER_CREDENTIALS_FULL_URI=" + r.URL + "/v1/credentials", "AWS_CONTAINER_AUTHORIZATION_TOKEN=the container's token",
			"AWS_ACCESS_KEY_ID=", "AWS_SECRET_ACCESS_KEY=", "AWS_WEB_IDENTITY_TOKEN_FILE=", "AWS_SHARED_CREDENTIALS_FILE="}
	})
	const path = "/downloads/project/plan.txt"
	s.status("alice", path, 200)
	check := s.command(binary, "check", "--online", "--config", "securefiles.yaml")
	check.Env = append(check.Environ(), s.environment...)
	if out, err := check.CombinedOutput(); err != nil || !strings.Contains(string(out), "the role of this container, by "+r.URL) {
		t.Errorf("check --online: %v\n%s", err, out)
	}
	b.mu.Lock()
	b.secrets["SECONDKEYID"], b.secrets["THIRDKEYID"] = "another", "third"
	b.mu.Unlock()
	r.give("SECONDKEYID", "another", time.Hour)
	signed := func(r *http.Request) string {
		key, _, _ := strings.Cut(r.URL.Query().Get("X-Amz-Credential"), "/")
		return key
	}
	b.took()
	s.eventually("it is signed with the next credentials, and until then each download gets its file", func() bool {
		s.status("alice", path, 200)
		return slices.ContainsFunc(b.took(), func(r *http.Request) bool { return signed(r) == "SECONDKEYID" })
	})
	b.mu.Lock()
	delete(b.secrets, storeKeyID) // has ended
	b.mu.Unlock()
	s.status("alice", path, 200)

	// The next ones are short, and none come after.
	r.give("THIRDKEYID", "third", 6*time.Second)
	if err := s.daemon.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	s.eventually("it is signed with the last credentials", func() bool {
		s.get("alice", path)
		return slices.ContainsFunc(b.took(), func(r *http.Request) bool { return signed(r) == "THIRDKEYID" })
	})
	r.give("", "", 0)
	s.eventually("nothing is signed with what has ended", func() bool { return s.get("alice", path).status == 503 })
	if r := s.status("alice", path, 503); r.header.Get("Retry-After") == "" {
		t.Errorf("%v", r.header)
	}
	s.eventually("the log names what was asked", func() bool { return strings.Contains(s.log.String(), "get credentials of the role of this container") })
	for _, secret := range []string{"the container's token", "another\"", storeSecret} {
		if strings.Contains(s.log.String(), secret) {
			t.Errorf("the log holds %s", secret)
		}
	}
	b.took()
	s.status("alice", path, 503)
	if asked := b.took(); len(asked) > 0 {
		t.Errorf("the store was asked for %s", asked[0].URL)
	}
	r.give("SECONDKEYID", "another", time.Hour)
	s.eventually("the role is back", func() bool { return s.get("alice", path).status == 200 })
}

// A service whose role gives nothing starts, refuses, and says whom it asked.
func TestWithoutCredentialsOfItsRoleNothingIsServed(t *testing.T) {
	t.Parallel()
	b, r := newBucket(t), newRole(t)
	s := startStored(t, b, "", func(p *plan) {
		p.extra = strings.Replace(p.extra, ", credentials_file: credentials", "", 1)
		p.environment = []string{"AWS_EC2_METADATA_SERVICE_ENDPOINT=" + r.URL, "AWS_ACCESS_KEY_ID=", "AWS_SECRET_ACCESS_KEY=", "AWS_WEB_IDENTITY_TOKEN_FILE=", "AWS_SHARED_CREDENTIALS_FILE=", "AWS_CONTAINER_CREDENTIALS_FULL_URI="}
	})
	s.status("bob", "/downloads/project/plan.txt", 404)
	s.status("alice", "/downloads/project/plan.txt", 503)
	for _, want := range []string{"the role of this instance, by " + r.URL, "AWS_WEB_IDENTITY_TOKEN_FILE"} {
		s.eventually("the log names "+want, func() bool { return strings.Contains(s.log.String(), want) })
	}
	if asked := b.took(); len(asked) > 0 {
		t.Errorf("the store was asked for %s", asked[0].URL)
	}
	check := s.command(binary, "check", "--online", "--config", "securefiles.yaml")
	check.Env = append(check.Environ(), s.environment...)
	if out, _ := check.CombinedOutput(); !strings.Contains(string(out), "the role of this instance") || strings.Contains(string(out), "takes what is signed") {
		t.Errorf("check --online:\n%s", out)
	}
}
