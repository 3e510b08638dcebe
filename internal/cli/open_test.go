package cli

import (
	"bufio"
	"context"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var updateMessages = flag.Bool("update-messages", false, "rewrite the expected messages")

// Each testdata/config/invalid-*.yaml is one mistake that the part which needs the
// value finds; the .err file beside it is the exact message, of check and of serve.
func TestInvalidConfigurationsAreRefusedWithPlaceAndRemedy(t *testing.T) {
	t.Chdir("internal/cli") // the messages name the files as they are called
	files, err := filepath.Glob("testdata/config/invalid-*.yaml")
	if err != nil || len(files) < 45 {
		t.Fatalf("found %d invalid files, want at least 45: %v", len(files), err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			status, stdout, stderr := command(t, "check", "--config", file)
			got := strings.ReplaceAll(stderr, "securefiles: ", "")
			golden := strings.TrimSuffix(file, ".yaml") + ".err"
			if *updateMessages {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" || status != exitError || stdout != "" {
				t.Errorf("status %d, stdout %q, message differs (-want +got):\n%s", status, stdout, diff)
			}
			if status, _, ofServe := command(t, "serve", "--config", file); status != exitError || ofServe != stderr {
				t.Errorf("serve: status %d: %s", status, ofServe)
			}
		})
	}
}

// What serve does not start with, check does not pass, with file, line, column and
// what to do.
func TestCheckRefusesWhatServeRefuses(t *testing.T) {
	for _, row := range []struct{ name, yaml, want string }{
		{"a header of HTTP's own", "identity: [{header: Cookie}]",
			`1:21: error: identity[0].header: "Cookie" has another meaning: use one of its own, such as X-Remote-User`},
		{"a header of nginx's own", "identity: [{header: X-Real-IP}]",
			`1:21: error: identity[0].header: "X-Real-IP" has another meaning: use one of its own, such as X-Remote-User`},
		{"one header twice", "identity: [{header: X-User, groups_header: x-user}]",
			`1:44: error: identity[0].groups_header: "x-user" is the header of the subject: use two`},
		{"a realm that breaks out of its quotes", `identity: [{htpasswd: users.htpasswd, realm: 'a"b'}]`,
			`1:46: error: identity[0].realm: "a\"b" is not a realm: printable ASCII without quotes and backslashes`},
		{"a host with two ports", "login_url: https://a:b:c/login",
			`1:12: error: login_url: "https://a:b:c/login" is not a URL: its host, port or an escape in it is none`},
		{"a proxy secret that is not there", "proxy_secret_file: /nonexistent",
			"1:20: error: proxy_secret_file: read the proxy secret: open /nonexistent: no such file or directory: make one with `openssl rand -hex 32`"},
		{"an admin token that is not there", "admin_token_file: /nonexistent",
			"1:19: error: admin_token_file: read the admin token: open /nonexistent: no such file or directory: make one with `openssl rand -hex 32`"},
		{"a header that belongs to the connection", `identity: [{session: {url: "http://127.0.0.1/", cookies: [id], send: {Connection: x}}}]`,
			`1:70: error: identity[0].session.send: "Connection" belongs to the connection: leave it out`},
		{"a variable with what the client says, for groups", "identity: [{header: X-User, groups_header: X-Groups, nginx_groups_value: $http_x_groups}]",
			`1:74: error: identity[0].nginx_groups_value: "$http_x_groups" is what the client says, or says nothing of who asks: name what nginx has verified ($remote_user, $ssl_client_s_dn, $ssl_client_s_dn_legacy, $ssl_client_fingerprint, $ssl_client_serial), or a variable of your own, made with a map as docs/identity.md shows`},
		{"several at once", "identity: [{header: Cookie}]\nlogin_url: https://a:b:c/login", "1:21: error: identity[0].header"},
		{"and the other", "identity: [{header: Cookie}]\nlogin_url: https://a:b:c/login", "2:12: error: login_url"},
	} {
		t.Run(row.name, func(t *testing.T) {
			dir := t.TempDir()
			writeFile(t, filepath.Join(dir, "policy.csv"), "p, alice, /a, read, allow\n")
			writeFile(t, filepath.Join(dir, "users.htpasswd"), bobsHash)
			file := writeFile(t, filepath.Join(dir, "securefiles.yaml"), row.yaml+"\n")
			status, stdout, stderr := command(t, "check", "--config", file)
			if status != exitError || stdout != "" || !strings.Contains(stderr, "securefiles: "+file+":"+row.want) {
				t.Errorf("check: status %d: %s%s", status, stdout, stderr)
			}
			if status, _, ofServe := command(t, "serve", "--config", file); status != exitError || ofServe != stderr {
				t.Errorf("serve: status %d: %s", status, ofServe)
			}
		})
	}
}

// A secret of the environment stands in no file.
func TestSecretOfTheEnvironmentIsNamed(t *testing.T) {
	if status, _, stderr := commandWith(t, []string{"SECUREFILES_PROXY_SECRET=short"}, "check"); status != exitError ||
		stderr != "securefiles: environment: error: SECUREFILES_PROXY_SECRET: the proxy secret is shorter than 32 bytes: make one with `openssl rand -hex 32`\n" {
		t.Errorf("status %d: %s", status, stderr)
	}
}

const bobsHash = "bob:$2y$04$NtisaL5/eEq29CkhP3bxWesCwRI2ggXEyKIzN7T/60Nwh9FLWA5YS\n"

// served starts the service, waits until it serves, ends it, and returns its log.
func served(t *testing.T, config string) (log string, status int) {
	t.Helper()
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	cmd := exec.CommandContext(ctx, securefiles, "serve", "--config", config)
	stderr, err := cmd.StderrPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	for lines := bufio.NewScanner(stderr); lines.Scan(); {
		text.WriteString(lines.Text() + "\n")
		if strings.Contains(lines.Text(), "msg=serving") {
			if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
		}
	}
	_ = cmd.Wait() // the status says how it ended
	return text.String(), cmd.ProcessState.ExitCode()
}

// Port 0 is another port each time: check lets it pass, and serve starts.
func TestPortZeroIsNoAddressTwice(t *testing.T) {
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "policy.csv"), "p, alice, /a, read, allow\n")
	file := writeFile(t, filepath.Join(dir, "securefiles.yaml"), "listen: 127.0.0.1:0\nadmin: 127.0.0.1:0\nshutdown_delay: 1ms\n")
	if status, stdout, stderr := command(t, "check", "--config", file); status != exitYes {
		t.Fatalf("check: status %d: %s%s", status, stdout, stderr)
	}
	if log, status := served(t, file); status != exitYes || !strings.Contains(log, "msg=serving") {
		t.Errorf("serve ended with status %d: %s", status, log)
	}
}

// Whoever else on the machine can read a secret, or change what decisions depend
// on, is told of by check, and by serve when it starts.
func TestExposedFilesAreFindings(t *testing.T) {
	for _, row := range []struct {
		name, file string // file is below the directory; empty for the directory itself
		mode       os.FileMode
		want       string // file and message; empty for nothing
	}{
		{"all as it should be", "policy.csv", 0o640, ""},
		{"a policy that others may read", "policy.csv", 0o644, ""},
		{"a policy that others may write", "policy.csv", 0o646, "policy.csv: warning: anybody on this machine can change it: chmod o-w the file [world-writable]"},
		{"a model that others may write", "model.conf", 0o602, "model.conf: warning: anybody on this machine can change it: chmod o-w the file [world-writable]"},
		{"a configuration that others may write", "securefiles.yaml", 0o666, "securefiles.yaml: warning: anybody on this machine can change it: chmod o-w the file [world-writable]"},
		{"users that others may write", "users.htpasswd", 0o606, "users.htpasswd: warning: anybody on this machine can change it: chmod o-w the file [world-writable]"},
		{"keys that others may read", "keys.json", 0o644, "keys.json: warning: others may read the secret that tokens are signed with: chmod o= the file [secret-readable]"},
		{"a secret that others may read", "secret", 0o644, "secret: warning: others may read the proxy secret: chmod o= the file [secret-readable]"},
		{"a token that others may read", "token", 0o604, "token: warning: others may read the admin token: chmod o= the file [secret-readable]"},
		{"a token that others may write", "token", 0o602, "token: warning: anybody on this machine can change it: chmod o-w the file [world-writable]"},
		{"a directory that others may write", "", 0o777, "anybody on this machine can put another file in its place"},
		{"a directory where nobody can replace what is another's", "", 0o777 | os.ModeSticky, ""},
		{"the directory that a link leads to", "releases", 0o777, "releases [world-writable]"},
	} {
		t.Run(row.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "etc")
			for _, d := range []string{dir, filepath.Join(dir, "releases")} {
				if err := os.Mkdir(d, 0o750); err != nil {
					t.Fatal(err)
				}
			}
			for name, text := range map[string]string{
				"policy.csv": "p, bob, /a, read, allow\n", "users.htpasswd": bobsHash, "secret": strings.Repeat("s", 32), "token": "0123456789abcdef0123456789abcdef",
				"keys.json":             `{"keys":[{"kty":"oct","kid":"a","k":"MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY"}]}`,
				"releases/policy-1.csv": "p, bob, /a, read, allow\n",
				"securefiles.yaml": `# securefiles:ignore listen: a port that nobody else knows
{listen: "127.0.0.1:0", admin: "127.0.0.1:0", proxy_secret_file: secret, admin_token_file: token, policy: {file: policy.csv, model: model.conf},
  identity: [{htpasswd: users.htpasswd}, {jwt: {issuer: app, audience: [files], jwks_file: keys.json, algorithms: [HS256], cookie: token}, prefix: "app:"}]}`,
			} {
				writeFile(t, filepath.Join(dir, name), text)
			}
			model, err := os.ReadFile("policy/internal/model/default_model.conf")
			if err != nil {
				t.Fatal(err)
			}
			writeFile(t, filepath.Join(dir, "model.conf"), string(model))
			if row.file == "releases" {
				if err := os.Remove(filepath.Join(dir, "policy.csv")); err != nil {
					t.Fatal(err)
				}
				if err := os.Symlink("releases/policy-1.csv", filepath.Join(dir, "policy.csv")); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.Chmod(filepath.Join(dir, row.file), row.mode); err != nil {
				t.Fatal(err)
			}
			args := []string{"check", "--config", filepath.Join(dir, "securefiles.yaml"), "--disable", "htpasswd-cost"}
			status, stdout, stderr := command(t, args...)
			if status != exitYes || (row.want == "") != (stdout == "") || !strings.Contains(stdout, row.want) || strings.Count(stdout, "\n") > 1 {
				t.Errorf("check: status %d: %s%s", status, stdout, stderr)
			}
			if status, _, _ := command(t, append(args, "--strict")...); (status == exitNo) != (row.want != "") {
				t.Errorf("check --strict: status %d", status)
			}
			if status, stdout, _ := command(t, append(args, "--disable", "world-writable", "--disable", "secret-readable")...); status != exitYes || stdout != "" {
				t.Errorf("disabled: status %d: %s", status, stdout)
			}
			log, status := served(t, args[2])
			if !strings.Contains(log, "msg=serving") {
				t.Fatalf("serve: status %d: %s", status, log)
			}
			_, message, _ := strings.Cut(strings.TrimSuffix(strings.TrimSpace(stdout), "]"), "warning: ")
			message, _, _ = strings.Cut(message, " [")
			if warned := strings.Contains(log, message) && message != ""; warned != (row.want != "") {
				t.Errorf("serve logs %s", log)
			}
		})
	}
}
