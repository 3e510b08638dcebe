package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A root that holds what decisions depend on gives it away, and one that is no
// directory, or not there, gives nothing: check tells of both, and what gives away is
// not served.
func TestCheckLooksAtTheRoot(t *testing.T) {
	const secret = "0123456789abcdef0123456789abcdef"
	for _, row := range []struct {
		name    string
		root    string // below the directory of the test
		more    string // of the configuration
		files   map[string]string
		link    [2]string // a symbolic link, and where it leads
		status  int
		finding string // with DIR; empty for none
	}{
		{name: "a directory of its own", root: "files"},
		{name: "a name that begins alike", root: "etc-files"},
		{name: "not there", root: "flies", finding: "DIR/etc/securefiles.yaml:2: warning: downloads[0].root: DIR/flies is not there, so nginx answers 404 for each of its files: make it, or correct the path [root]"},
		{name: "a file", root: "etc/users", status: 1, finding: "DIR/etc/securefiles.yaml:2: error: downloads[0].root: DIR/etc/users is no directory: name the directory that holds the files [root-holds]"},
		{name: "the configuration's own directory", root: "etc", status: 1, finding: "DIR/etc/securefiles.yaml:2: error: downloads[0].root: DIR/etc holds DIR/etc/securefiles.yaml, which nginx would serve like any other file in it: " +
			"name a directory that holds the downloads alone, or move the file [root-holds]"},
		{name: "a directory around it", root: ".", status: 1, finding: "DIR/etc/securefiles.yaml:2: error: downloads[0].root: DIR/. holds DIR/etc/users, which nginx would serve"},
		{name: "the policy in it", root: "files", more: "policy: {file: ../files/policy.csv}\n", files: map[string]string{"files/policy.csv": "p, alice, /a/**, read, allow\n"}, status: 1, finding: "DIR/files holds DIR/files/policy.csv, which"},
		{name: "a secret in it", root: "files", more: "admin_token_file: ../files/deep/token\n", files: map[string]string{"files/deep/token": secret}, status: 1, finding: "DIR/files holds DIR/files/deep/token, which"},
		{name: "a proxy secret in it", root: "files", more: "proxy_secret_file: ../files/secret\n", files: map[string]string{"files/secret": secret}, status: 1, finding: "DIR/files holds DIR/files/secret, which"},
		{name: "the log of deliveries in it", root: "files", more: "nginx: {delivery_log: DIR/files/delivery.log, access_log: off}\n", status: 1, finding: "DIR/files holds DIR/files/delivery.log, which"},
		{name: "the site's own log in it", root: "files", more: "nginx: {delivery_log: /var/log/nginx/delivery.log, access_log: DIR/files/access.log combined}\n", status: 1, finding: "DIR/files holds DIR/files/access.log, which"},
		{name: "logs elsewhere", root: "files", more: "nginx: {delivery_log: /var/log/nginx/delivery.log, access_log: \"syslog:server=127.0.0.1 combined\"}\n"},
		{name: "the audit trail in it", root: "files", more: "audit: {file: ../files/audit.jsonl}\n", status: 1, finding: "DIR/files holds DIR/files/audit.jsonl, which"},
		{name: "the key of the audit trail in it", root: "files", more: "audit: {file: audit.jsonl, chain: {key_file: ../files/key}}\n",
			files: map[string]string{"files/key": "PRIVATE+KEY+files.example.org+e8bf2fe2+AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEB\n"}, status: 1, finding: "DIR/files holds DIR/files/key, which"},
		{name: "the password of Redis in it", root: "files", more: "state: {redis: {address: ['127.0.0.1:1'], password_file: ../files/password}}\n", files: map[string]string{"files/password": secret}, status: 1, finding: "DIR/files holds DIR/files/password, which"},
		{name: "who vouches for Redis in it", root: "files", more: "state: {redis: {address: ['127.0.0.1:1'], tls: true, ca_file: ../files/ca.pem}}\n", files: map[string]string{"files/ca.pem": "-"}, status: 1, finding: "DIR/files holds DIR/files/ca.pem, which"},
		{name: "a link that leads to it", root: "link", link: [2]string{"link", "etc"}, status: 1, finding: "DIR/link holds DIR/etc/securefiles.yaml, which"},
		{name: "a policy that links into it", root: "files", more: "policy: {file: linked.csv}\n", files: map[string]string{"files/real.csv": "p, alice, /a/**, read, allow\n"},
			link: [2]string{"etc/linked.csv", "files/real.csv"}, status: 1, finding: "DIR/files holds DIR/etc/linked.csv, which"},
	} {
		t.Run(row.name, func(t *testing.T) {
			dir := t.TempDir()
			for _, sub := range []string{"etc", "files/deep", "etc-files"} {
				if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			root := dir + "/" + row.root
			if row.root == "." {
				root = dir
			}
			config := writeFile(t, filepath.Join(dir, "etc/securefiles.yaml"), "downloads:\n  - {name: main, url: /downloads/, internal: /protected/, root: "+root+"}\nadmin: 127.0.0.1:0\nlisten: 127.0.0.1:0\nidentity: [{htpasswd: users}]\n"+strings.ReplaceAll(row.more, "DIR", dir))
			writeFile(t, filepath.Join(dir, "etc/policy.csv"), "p, alice, /a/**, read, allow\n")
			writeFile(t, filepath.Join(dir, "etc/users"), "alice:$2y$12$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\n")
			for name, text := range row.files {
				writeFile(t, filepath.Join(dir, name), text)
			}
			if row.link[0] != "" {
				if err := os.Symlink(filepath.Join(dir, row.link[1]), filepath.Join(dir, row.link[0])); err != nil {
					t.Fatal(err)
				}
			}
			status, stdout, stderr := command(t, "check", "--disable", "listen", "--config", config)
			want := strings.ReplaceAll(strings.ReplaceAll(row.finding, "DIR/.", dir), "DIR", dir)
			if status != row.status || !strings.Contains(stdout, want) || strings.Contains(stdout, "[root") != (row.finding != "") {
				t.Errorf("check: %d %s%s\nwant %s", status, stdout, stderr, want)
			}
			if log, status := served(t, config); (status == 2) != (row.status == 1) || row.status == 1 && !strings.Contains(log, "[root-holds]") {
				t.Errorf("serve: %d %s", status, log)
			}
		})
	}
}
