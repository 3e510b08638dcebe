package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// What a file leaves out has the values that docs/configuration.md names.
func TestWhatIsLeftOut(t *testing.T) {
	file := filepath.Join(t.TempDir(), "securefiles.yaml")
	load := func(text string, environ ...string) (*Config, error) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return Load(file, environ)
	}
	const sources = `downloads: [{name: a, url: /a/, internal: /p/}]
identity:
  - {htpasswd: users}
  - jwt: {issuer: a, jwks_file: keys, audience: [a]}
  - session: {url: 'http://127.0.0.1/', cookies: [a]}
  - session: {url: 'http://127.0.0.1/', cookies: [b], remember: 2s, subject_header: X-User}
  - certificate: {}
`
	c, err := load(sources)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Dir(file)
	want := &Config{
		Listen: "127.0.0.1:9180", Admin: "127.0.0.1:9181", ShutdownTimeout: Duration(10 * time.Second), ShutdownDelay: Duration(time.Second),
		Downloads: []Download{{Name: "a", URL: "/a/", Internal: "/p/", Disposition: "attachment", DenyStatus: 404, CacheControl: "private, no-store",
			ReferrerPolicy: "no-referrer", Embed: "same-origin", Front: "nginx"}},
		Policy: Policy{File: filepath.Join(dir, "policy.csv"), RoleDepth: 10, DecisionTimeout: Duration(200 * time.Millisecond)},
		Identity: []Identity{
			{Htpasswd: filepath.Join(dir, "users")}, // what it leaves out is identity's to say
			{JWT: &JWT{Issuer: "a", JWKSFile: filepath.Join(dir, "keys"), Audience: []string{"a"}}},
			{Session: &Session{URL: "http://127.0.0.1/", Cookies: []string{"a"}}},
			{Session: &Session{URL: "http://127.0.0.1/", Cookies: []string{"b"}, SubjectHeader: "X-User", Remember: Duration(2 * time.Second)}},
			{Certificate: &Certificate{}},
		},
		Links: Links{MaxTTL: Duration(168 * time.Hour)}, Log: Log{Format: "text", Level: "info"}, File: file,
	}
	if diff := cmp.Diff(want, c, cmpopts.IgnoreUnexported(Config{})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	// What the environment takes away is left out too.
	emptied, err := load(sources+"log: {level: debug}\n", "SECUREFILES_LOG_LEVEL=", "SECUREFILES_DOWNLOADS_0_DISPOSITION=", "SECUREFILES_IDENTITY_0_REALM=", "SECUREFILES_POLICY_ROLE_DEPTH=0")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, emptied, cmpopts.IgnoreUnexported(Config{})); diff != "" {
		t.Errorf("emptied by the environment (-want +got):\n%s", diff)
	}
	// A file that says nothing leaves everything out.
	for _, text := range []string{"", "\n", "# listen: 127.0.0.1:1\n", "---\n", "{}\n", strings.Repeat("# comment\n", (1<<20)/10) + strings.Repeat("#", (1<<20)%10)} {
		c, err := load(text)
		if err != nil {
			t.Errorf("%.20q, %d bytes: %v", text, len(text), err)
			continue
		}
		if all := Default(); c.Listen != all.Listen || cmp.Diff(c.Downloads, all.Downloads) != "" || c.Policy.File != filepath.Join(dir, "policy.csv") {
			t.Errorf("%.20q, %d bytes: %+v", text, len(text), c)
		}
	}
	// The file is as large as it may be; a byte more is too much.
	if _, err := load(strings.Repeat("#", (1<<20)+1)); err == nil || err.Error() != file+": error: larger than 1048576 bytes: this is no configuration" {
		t.Errorf("a byte too many: %v", err)
	}
	if _, err := Load(dir, nil); err == nil || !strings.HasPrefix(err.Error(), "read configuration: ") {
		t.Errorf("a directory: %v", err)
	}
}

// What stands in no file and comes from no variable is wrong in the
// configuration as a whole.
func TestProblemWithoutAFileHasAName(t *testing.T) {
	_, err := Load("", []string{"SECUREFILES_LISTEN=127.0.0.1:9181"})
	if err == nil || err.Error() != "configuration: error: admin: is the same address as listen: metrics and health need a listener of their own" {
		t.Errorf("got %v", err)
	}
}

func TestRemoteUserIsAWarning(t *testing.T) {
	file := filepath.Join(t.TempDir(), "securefiles.yaml")
	for value, warnings := range map[string]int{"$remote_user": 1, "$gateway_user": 0} {
		if err := os.WriteFile(file, []byte("identity:\n  - {header: X-Remote-User, nginx_value: "+value+"}\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		c, err := Load(file, nil)
		if err != nil || len(c.Warnings) != warnings || warnings == 1 && !strings.HasPrefix(c.Warnings[0].Message, "identity[0].nginx_value: $remote_user is whom the client says it is") {
			t.Errorf("%s: %+v, %v", value, c, err)
		}
	}
}

// Variables that others read are no keys, and no mistake.
func TestVariablesOfOthersAreNoWarning(t *testing.T) {
	for variable, warnings := range map[string]int{ProxySecretVariable: 0, AdminTokenVariable: 0, "SECUREFILES_CONFIG": 0, "SECUREFILES_": 1, "SECUREFILES_-": 1, "OTHER_LISTEN": 0} {
		c, err := Load("", []string{variable + "=x"})
		if err != nil || len(c.Warnings) != warnings || c.File != "" {
			t.Errorf("%s: %+v, %v", variable, c, err)
		}
	}
}

// A variable changes what the file has, in lists too, and makes no source.
func TestVariablesReachIntoLists(t *testing.T) {
	file := filepath.Join(t.TempDir(), "securefiles.yaml")
	if err := os.WriteFile(file, []byte("listen: unix:/s\nlisten_peer_uids: [33]\nidentity:\n  - {header: X-Remote-User}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(file, []string{"SECUREFILES_LISTEN_PEER_UIDS_0=root"}); err == nil || err.Error() != `environment: error: SECUREFILES_LISTEN_PEER_UIDS_0: "root" is not a whole number` {
		t.Errorf("a user by name: %v", err)
	}
	for _, variable := range []string{"SECUREFILES_IDENTITY_0_JWT", "SECUREFILES_IDENTITY_0_JWT_ISSUER", "SECUREFILES_LISTEN_PEER_UIDS_1", "SECUREFILES_LISTEN_PEER_UIDS"} {
		c, err := Load(file, []string{variable + "=1"})
		if err != nil || len(c.Warnings) != 1 || c.Identity[0].JWT != nil || len(c.ListenPeerUIDs) != 1 {
			t.Errorf("%s: %+v, %v", variable, c, err)
		}
	}
}
