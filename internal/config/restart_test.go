package config

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// loadText loads a configuration from a text.
func loadText(t *testing.T, file, text string) *Config {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := Load(file, nil)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// What needs a restart stays as the service was started, and is named with its place;
// all else is what the file says.
func TestConfigurationContinuesTheRunningOne(t *testing.T) {
	file := filepath.Join(t.TempDir(), "securefiles.yaml")
	running := loadText(t, file, "admin: 127.0.0.1:1001\nlog: {level: info}\nlogin_url: /login\n")
	c := loadText(t, file, "listen: unix:/run/a.sock\nlisten_peer_uids: [33]\nlog: {level: debug, format: json}\nshutdown_delay: 5s\nlogin_url: /other\n")
	if err := c.Continue(running); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, r := range c.Restart {
		got = append(got, r.Key+" "+strings.TrimPrefix(r.Place, file))
	}
	if want := []string{"listen :1", "listen_peer_uids :2", "admin ", "shutdown_delay :4", "log.format :3"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if c.Listen != running.Listen || c.ListenPeerUIDs != nil || c.Admin != "127.0.0.1:1001" || c.Log.Format != "text" || c.Log.Level != "debug" || c.LoginURL != "/other" || c.ShutdownDelay != running.ShutdownDelay {
		t.Errorf("%+v", c)
	}
	again := loadText(t, file, "admin: 127.0.0.1:1001\nlogin_url: /third\n")
	if err := again.Continue(c); err != nil || again.Restart != nil {
		t.Errorf("back again: %v, %v", again.Restart, err)
	}
	if again.IsOf(c) || !again.IsOf(again) {
		t.Error("a text is told from another")
	}
}

// A listener that other hosts reach goes on asking for its secret, whatever the file says of
// either: whoever reaches it would be believed.
func TestListenerThatGoesOnKeepsItsSecret(t *testing.T) {
	file := filepath.Join(t.TempDir(), "securefiles.yaml")
	running := loadText(t, file, "listen: 0.0.0.0:9180\nproxy_secret_file: secret\n")
	for _, text := range []string{"listen: 127.0.0.1:9180\n", "listen: 0.0.0.0:9180\nlisten_insecure: true\n", ""} {
		c := loadText(t, file, text)
		if err := c.Continue(running); err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		if c.ProxySecretFile != running.ProxySecretFile || c.Listen != running.Listen || !slices.Contains(c.RestartNames(), "proxy_secret_file") {
			t.Errorf("%q: %+v", text, c)
		}
	}
	// One that a peer's user keeps others from is no reason to take its admin address.
	running = loadText(t, file, "admin: 127.0.0.1:9180\nlisten: 127.0.0.1:9181\n")
	c := loadText(t, file, "admin: 127.0.0.1:9181\nlisten: 127.0.0.1:9180\n")
	if err := c.Continue(running); err != nil || c.Admin != running.Admin || c.Listen != running.Listen {
		t.Errorf("exchanged: %v", err)
	}
}

// nginx's two logs go together: who adds them, or takes them out, is told that it takes a
// restart, and no edit is refused for the one that stays.
func TestLogsOfNginxStayTogether(t *testing.T) {
	file := filepath.Join(t.TempDir(), "securefiles.yaml")
	const logs = "audit: {file: /a/audit.jsonl}\nnginx: {delivery_log: /a/delivery.log, access_log: 'off'}\n"
	for was, now := range map[string]string{"": logs, logs: "login_url: /other\n"} {
		running := loadText(t, file, was)
		c := loadText(t, file, now)
		if err := c.Continue(running); err != nil {
			t.Errorf("from %q: %v", was, err)
		}
		if names := c.RestartNames(); c.Nginx.DeliveryLog != running.Nginx.DeliveryLog || c.Nginx.AccessLog != running.Nginx.AccessLog || !slices.Contains(names, "nginx.access_log") {
			t.Errorf("from %q: %+v, %v", was, c.Nginx, names)
		}
	}
	running := loadText(t, file, logs)
	c := loadText(t, file, strings.Replace(logs, "'off'", "/a/access.log combined", 1))
	if err := c.Continue(running); err != nil || c.Restart != nil || c.Nginx.AccessLog != "/a/access.log combined" {
		t.Errorf("another access log alone: %v, %v", err, c.Restart)
	}
}

// docs/configuration.md says of each key that needs a restart, and of no other, that it
// does.
func TestKeysThatNeedARestartAreDocumented(t *testing.T) {
	text, err := os.ReadFile("../../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, ok := strings.Cut(string(text), "\n## When an edit counts\n")
	if !ok {
		t.Fatal("there is no such section")
	}
	list := regexp.MustCompile(`(?m)^These keys count when the service starts[^:]*:\n((?:.+\n)+)`).FindStringSubmatch(section)
	if list == nil {
		t.Fatal("there is no list of keys")
	}
	var got []string
	for _, m := range regexp.MustCompile("`([a-z_.]+)`").FindAllStringSubmatch(list[1], -1) {
		got = append(got, m[1])
	}
	want := RestartKeys()
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("docs/configuration.md: %q, want %q", got, want)
	}
}
