package cli

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// Each finding of the configuration, and of what it names, is taken back by itself,
// with a reason; and what takes back nothing is told.
func TestFindingsOfTheConfigurationAreTakenBack(t *testing.T) {
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "policy.csv"), "p, alice, /docs/**, read, allow\n")
	writeFile(t, filepath.Join(dir, "secret"), strings.Repeat("s", 40)+"\n")
	writeFile(t, filepath.Join(dir, "users"), "# securefiles:ignore user-is-role: she knows\neditor:$2y$05$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\n")
	writeFile(t, filepath.Join(dir, "roles.csv"), "p, editor, /docs/**, read, allow\ng, @staff, editor\n")
	if err := os.Chmod(filepath.Join(dir, "secret"), 0o644); err != nil {
		t.Fatal(err)
	}
	const policy = "policy: {file: policy.csv}\n"
	for _, tt := range []struct {
		name, config string
		disable      []string
		environ      string
		want         string
	}{
		{"a login page over HTTP", policy + "login_url: http://login.example.org/\n", nil, "", "2 config"},
		{"taken back", policy + "# securefiles:ignore config: a network of our own\nlogin_url: http://login.example.org/\n", nil, "", ""},
		{"disabled", policy + "login_url: http://login.example.org/\n", []string{"config"}, "", ""},
		{"without a reason", policy + "# securefiles:ignore config\nlogin_url: http://login.example.org/\n", nil, "", "3 config, 2 suppression"},
		{"by another rule", policy + "# securefiles:ignore redundant: why\nlogin_url: http://login.example.org/\n", nil, "", "3 config, 2 suppression"},
		{"one of two", policy + "login_url: http://login.example.org/\nidentity:\n  # securefiles:ignore config: auth_basic is on for the whole server\n  - {header: X-Remote-User, nginx_value: $remote_user}\n", []string{"subject-free"}, "", "2 config"},
		{"what is not there", "# securefiles:ignore config: why\n" + policy, nil, "", "1 suppression"},
		{"a variable", policy, nil, "SECUREFILES_PORT=1", "0 environment"},
		{"a variable, taken back", "# securefiles:ignore environment: Kubernetes sets them\n" + policy, nil, "SECUREFILES_PORT=1", ""},
		{"a value from a variable, taken back", "# securefiles:ignore config: why\n" + policy, nil, "SECUREFILES_LOGIN_URL=http://login.example.org/", ""},
		{"a secret that others may read", policy + "proxy_secret_file: secret\n", nil, "", "0 secret-readable"},
		{"taken back above the line that names it", policy + "# securefiles:ignore secret-readable: a container of its own\nproxy_secret_file: secret\n", nil, "", ""},
		{"passwords that are quick to guess", policy + "identity:\n  - htpasswd: users\n", nil, "", "0 htpasswd-cost, 1 subject-unknown"},
		{"taken back above the source", policy + "identity:\n  # securefiles:ignore htpasswd-cost: for tests\n  - htpasswd: users\n", []string{"subject-unknown"}, "", ""},
		{"a user who is called like a role, taken back in the file of users", "policy: {file: roles.csv}\nidentity:\n  # securefiles:ignore htpasswd-cost: for tests\n  - htpasswd: users\n", []string{"subject-unknown"}, "", ""},
	} {
		file := writeFile(t, filepath.Join(dir, "securefiles.yaml"), tt.config)
		args := []string{"check", "--strict", "--config", file}
		for _, rule := range tt.disable {
			args = append(args, "--disable", rule)
		}
		_, stdout, stderr := commandWith(t, []string{tt.environ}, args...)
		var got []string
		for _, m := range regexp.MustCompile(`(?m)^[^:]*:(?:(\d+):)? (?:warning|error): .*\[([a-z-]+)\]$`).FindAllStringSubmatch(stdout, -1) {
			got = append(got, m[1]+" "+m[2])
			if m[1] == "" {
				got[len(got)-1] = "0 " + m[2]
			}
		}
		if got := strings.Join(got, ", "); got != tt.want {
			t.Errorf("%s: got %q, want %q\n%s%s", tt.name, got, tt.want, stdout, stderr)
		}
	}
}

// What the documentation recommends has no finding.
func TestDocumentedConfigurationsHaveNoFinding(t *testing.T) {
	recipes := 0
	for file, text := range documents(t) {
		if filepath.Ext(file) != ".md" || file == "docs/rules.md" {
			continue
		}
		for _, m := range fence.FindAllStringSubmatch(text, -1) {
			if m[1] != "yaml" || (strings.HasPrefix(m[2], "tests:") || strings.HasPrefix(m[2], "scrape_configs:")) {
				continue
			}
			recipes++
			_, stdout, _ := command(t, "check", "--disable", "secret-readable", "--config", writeFile(t, filepath.Join(t.TempDir(), "securefiles.yaml"), m[2]))
			if found := regexp.MustCompile(`(?m)^.*\[(config|suppression)\]$`).FindString(stdout); found != "" {
				t.Errorf("%s: %s\n%s", file, found, m[2])
			}
		}
	}
	if recipes < 10 {
		t.Errorf("found %d", recipes)
	}
}
