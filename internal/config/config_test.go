package config

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

var update = flag.Bool("update", false, "rewrite the expected messages")

// Each testdata/invalid-*.yaml is one mistake; the .err file beside it is the
// exact message.
func TestInvalidFilesAreRefusedWithPlaceAndRemedy(t *testing.T) {
	files, err := filepath.Glob("testdata/invalid-*.yaml")
	if err != nil || len(files) < 25 {
		t.Fatalf("found %d invalid files, want at least 25: %v", len(files), err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			_, err := Load(file, nil)
			if err == nil {
				t.Fatal("was accepted")
			}
			got := err.Error() + "\n"
			golden := strings.TrimSuffix(file, ".yaml") + ".err"
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("message differs (-want +got):\n%s", diff)
			}
		})
	}
}

func TestFullFileIsReadWithPathsResolved(t *testing.T) {
	c, err := Load("testdata/valid-full.yaml", nil)
	if err != nil {
		t.Fatal(err)
	}
	want := &Config{
		Listen: "unix:/run/securefiles/auth.sock", ListenPeerUIDs: []int{33}, ProxySecretFile: "testdata/secret", ProofSecretFile: "testdata/proof",
		Admin: "127.0.0.1:9181", ShutdownTimeout: Duration(30 * time.Second), ShutdownDelay: Duration(5 * time.Second),
		LoginURL: "https://auth.example.org/?rd=https://files.example.org{next}",
		Nginx: Nginx{
			Service:     []string{"unix:/run/securefiles/auth.sock", "files-2:9180"},
			DeliveryLog: "/var/log/nginx/delivery.log", AccessLog: "/var/log/nginx/access.log combined",
			ErrorPages: map[int]string{404: "/srv/pages/404.html", 503: "/srv/pages/503.html"},
		},
		Downloads: []Download{
			{Name: "main", URL: "/downloads/", Internal: "/protected/", Root: "/srv/files", Disposition: "inline", DenyStatus: 403, CacheControl: "private, max-age=60", CSP: "sandbox",
				ReferrerPolicy: "same-origin", Embed: "same-site", Front: "classic", CORSOrigins: []string{"https://app.example.org", "http://localhost:3000"}, Compress: true},
			{Name: "media", URL: "/media/", Internal: "/protected-media/", Root: "/srv/media", Listing: true, Disposition: "attachment", DenyStatus: 404, CacheControl: DefaultCacheControl, ReferrerPolicy: "no-referrer", Embed: "same-origin", Front: "nginx"},
		},
		Policy: Policy{Model: "testdata/model.conf", File: "/etc/securefiles/policy.csv", RoleDepth: 20, ShadowShare: 0.001, DecisionTimeout: Duration(500 * time.Millisecond)},
		Identity: []Identity{
			{Header: "X-Remote-User", GroupsHeader: "X-Remote-Groups", NginxValue: "$ssl_client_s_dn"},
			{Htpasswd: "testdata/users.htpasswd", Remember: Duration(30 * time.Second)},
			{JWT: &JWT{
				Issuer: "https://id.example.org/realms/staff", JWKSURL: "https://id.example.org/keys", Audience: []string{"files", "files-api"},
				Algorithms: []string{"ES256"}, Cookie: "__Host-token", SubjectClaim: "preferred_username", GroupsClaim: "realm_access.roles",
				Leeway: Duration(time.Minute), Refresh: Duration(time.Hour), MaxStale: Duration(2 * time.Hour), Timeout: Duration(time.Second),
			}},
			{JWT: &JWT{Issuer: "app", JWKSFile: "testdata/keys.json", Audience: []string{"files"}}},
			{Session: &Session{
				URL: "https://app.example.org/whoami?format=json", Cookies: []string{"sessionid", "__Host-session"}, Headers: []string{"Authorization", "X-Api-Key"},
				Send:        map[string]string{"Host": "files.example.org", "X-Forwarded-Proto": "https"},
				SubjectPath: "user.name", GroupsPath: "user.groups", Timeout: Duration(500 * time.Millisecond),
				Remember: Duration(10 * time.Second), RememberRefused: Duration(2 * time.Second), CAFile: "testdata/app-ca.pem", MaxCalls: 16,
			}},
			{Certificate: &Certificate{Subject: "uri", Groups: "ou"}},
		},
		Links: Links{MaxTTL: Duration(168 * time.Hour)},
		Log:   Log{Format: "json", Level: "debug"},
		Audit: Audit{File: "testdata/audit.jsonl", Durability: "fsync", Wait: Duration(time.Hour), Chain: &AuditChain{KeyFile: "testdata/audit.key", Every: Duration(10 * time.Second)}, Privacy: AuditPrivacy{
			Addresses: "short", Subjects: "plain", Omit: []string{"user_agent.original"}, KeyFile: "testdata/audit.secret", Erasable: true, Keys: "testdata/audit.keys", Retention: Duration(90 * 24 * time.Hour),
		}, Postgres: &AuditPostgres{URLFile: "testdata/database-url"}},
		File: "testdata/valid-full.yaml",
	}
	if diff := cmp.Diff(want, c, cmpopts.IgnoreUnexported(Config{})); diff != "" {
		t.Errorf("configuration differs (-want +got):\n%s", diff)
	}
}

func TestDefaultsServeWithoutAFile(t *testing.T) {
	c, err := Load("", nil)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(Default(), c, cmpopts.IgnoreUnexported(Config{})); diff != "" {
		t.Errorf("Load of nothing differs from Default (-want +got):\n%s", diff)
	}
	if c.Listen != "127.0.0.1:9180" || c.Downloads[0].URL != "/downloads/" || c.Policy.File != "policy.csv" {
		t.Errorf("defaults are %+v", c)
	}
}

func TestEnvironmentOverridesEveryKindOfScalar(t *testing.T) {
	c, err := Load("testdata/valid-full.yaml", []string{
		"SECUREFILES_LISTEN=127.0.0.1:1", "SECUREFILES_LISTEN_PEER_UIDS_0=1", "SECUREFILES_LISTEN=unix:/run/other.sock",
		"SECUREFILES_POLICY_FILE=/p.csv", "SECUREFILES_POLICY_ALLOW_SHRINK=true", "SECUREFILES_POLICY_ROLE_DEPTH=12",
		"SECUREFILES_IDENTITY_2_JWT_ISSUER=https://other.example.org", "SECUREFILES_DOWNLOADS_1_ROOT=/srv/media", "SECUREFILES_SHUTDOWN_TIMEOUT=3s", "PATH=/bin",
		"SECUREFILES_IDENTITY_4_SESSION_URL=http://127.0.0.1:8000/whoami", "SECUREFILES_IDENTITY_4_SESSION_CA_FILE=",
		"SECUREFILES_IDENTITY_4_SESSION_COOKIES_1=other",
	})
	if err != nil {
		t.Fatal(err)
	}
	if c.Listen != "unix:/run/other.sock" || c.Identity[2].JWT.Issuer != "https://other.example.org" || c.ListenPeerUIDs[0] != 1 || c.Policy.File != "/p.csv" || !c.Policy.AllowShrink ||
		c.Policy.RoleDepth != 12 || c.Downloads[1].Root != "/srv/media" || time.Duration(c.ShutdownTimeout) != 3*time.Second ||
		c.Identity[4].Session.URL != "http://127.0.0.1:8000/whoami" || c.Identity[4].Session.Cookies[1] != "other" {
		t.Errorf("overrides were lost: %+v", c)
	}
	if len(c.Warnings) != 0 {
		t.Errorf("warnings: %v", c.Warnings)
	}
}

func TestEnvironmentOverridesTheDefaultDownload(t *testing.T) {
	c, err := Load("", []string{"SECUREFILES_DOWNLOADS_0_ROOT=/srv/files"})
	if err != nil || c.Downloads[0].Root != "/srv/files" {
		t.Errorf("got %+v, %v", c, err)
	}
}

func TestBadEnvironmentIsNamed(t *testing.T) {
	for _, row := range []struct{ variable, want string }{
		{"SECUREFILES_POLICY_ROLE_DEPTH=deep", `environment: error: SECUREFILES_POLICY_ROLE_DEPTH: "deep" is not a whole number`},
		{"SECUREFILES_POLICY_ALLOW_SHRINK=maybe", `environment: error: SECUREFILES_POLICY_ALLOW_SHRINK: "maybe" is neither true nor false`},
		{"SECUREFILES_SHUTDOWN_TIMEOUT=-1s", `environment: error: SECUREFILES_SHUTDOWN_TIMEOUT: "-1s" is not a positive duration such as 10s or 1m30s`},
		{"SECUREFILES_DOWNLOADS_0_DENY_STATUS=400", `environment: error: SECUREFILES_DOWNLOADS_0_DENY_STATUS: 400 is neither 404 (hides what exists) nor 403 (says no)`},
		{"SECUREFILES_LISTEN=0.0.0.0:80", `environment: error: SECUREFILES_LISTEN: "0.0.0.0:80" can be reached from other hosts, which the service would trust as it trusts nginx: use 127.0.0.1 or unix:/path, or set listen_insecure: true, or a proxy_secret_file`},
	} {
		_, err := Load("", []string{row.variable})
		if err == nil || err.Error() != row.want {
			t.Errorf("%s: got %v, want %s", row.variable, err, row.want)
		}
	}
}

func TestForeignVariableIsAWarningOnly(t *testing.T) {
	c, err := Load("", []string{"SECUREFILES_PORT=tcp://10.0.0.1:80"})
	if err != nil || len(c.Warnings) != 1 || !strings.Contains(c.Warnings[0].Message, "SECUREFILES_PORT") {
		t.Errorf("got %+v, %v", c, err)
	}
}

func TestLoginOverHTTPIsAWarning(t *testing.T) {
	c, err := Load("", []string{"SECUREFILES_LOGIN_URL=http://auth.example.org/"})
	if err != nil || len(c.Warnings) != 1 || !strings.Contains(c.Warnings[0].Message, "SECUREFILES_LOGIN_URL: http:") {
		t.Errorf("got %+v, %v", c, err)
	}
}

func TestHugeFileIsRefused(t *testing.T) {
	file := filepath.Join(t.TempDir(), "huge.yaml")
	if err := os.WriteFile(file, []byte(strings.Repeat("# comment\n", (1<<20)/10+1)), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(file, nil); err == nil || !strings.Contains(err.Error(), "larger than") {
		t.Errorf("got %v", err)
	}
}

// A pipe without a writer, too: nobody is waited for.
func TestPipeIsNoConfiguration(t *testing.T) {
	file := filepath.Join(t.TempDir(), "pipe.yaml")
	if err := syscall.Mkfifo(file, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{file, "/dev/zero", t.TempDir()} {
		_, err := Load(name, nil)
		if want := "read configuration: open " + name + ": not a regular file"; err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

func TestMissingFileIsAnError(t *testing.T) {
	if _, err := Load(filepath.Join(t.TempDir(), "none.yaml"), nil); err == nil {
		t.Error("a missing file was accepted")
	}
}

// What is accepted is complete: no listener that others reach, no download
// without prefixes.
func FuzzLoad(f *testing.F) {
	files, err := filepath.Glob("testdata/*.yaml")
	if err != nil || len(files) < 25 {
		f.Fatalf("found %d seeds: %v", len(files), err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		file := filepath.Join(t.TempDir(), "fuzz.yaml")
		if err := os.WriteFile(file, text, 0o600); err != nil {
			t.Fatal(err)
		}
		c, err := Load(file, nil)
		if err != nil {
			return
		}
		if len(c.Downloads) == 0 || c.Policy.File == "" || c.Listen == "" || c.Admin == c.Listen {
			t.Fatalf("incomplete: %+v", c)
		}
		for _, d := range c.Downloads {
			if d.URL[0] != '/' || !strings.HasSuffix(d.URL, "/") || !strings.HasSuffix(d.Internal, "/") || overlap(d.URL, d.Internal) {
				t.Fatalf("bad prefixes: %+v", d)
			}
			if strings.ContainsAny(d.Root+d.CacheControl+d.CSP, "\r\n\x00") {
				t.Fatalf("control bytes: %+v", d)
			}
		}
	})
}
