package integration_test

import (
	"encoding/json"
	"strings"
	"syscall"
	"testing"
)

// A configuration that is edited, and a service that is started again without nginx's
// half of it: log and /readyz say so, until nginx has the new half. Nobody goes
// without a file meanwhile that both allow.
func TestSnippetOfAnotherConfigurationIsToldOf(t *testing.T) {
	t.Parallel()
	s := start(t, plan{policy: alicesPolicy, printed: true})
	asks := func() map[string]string {
		t.Helper()
		s.status("alice", "/downloads/project/plan.txt", 200)
		var ready struct {
			Ready bool              `json:"ready"`
			Nginx map[string]string `json:"nginx"`
		}
		if code, body := s.adminGet("/readyz"); code != 200 || json.Unmarshal([]byte(body), &ready) != nil || !ready.Ready {
			t.Fatalf("/readyz: %d %s", code, body)
		}
		return ready.Nginx
	}
	const told = "nginx asks by a snippet that was printed for another configuration"
	if other := asks(); other != nil || strings.Contains(s.log.String(), told) {
		t.Fatalf("its own: %v", other)
	}
	restart := func(old, new string) {
		t.Helper()
		s.edit("securefiles.yaml", old, new)
		if err := s.daemon.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		_ = s.daemon.Wait() // how it ends is another test's
		s.startService()
	}
	restart("shutdown_delay: 100ms", "shutdown_delay: 100ms\nlogin_url: /login/")
	if other := asks(); other != nil {
		t.Errorf("what nginx does not depend on: %v", other)
	}
	restart("shutdown_delay: 100ms", "shutdown_delay: 100ms\nnginx: {error_pages: {404: /srv/404.html}}")
	other := asks()
	if other["snippet"] == "" || other["own"] == "" || other["snippet"] == other["own"] || other["error"] != "nginx asks by a snippet of another configuration: print both halves again, and reload nginx" {
		t.Errorf("/readyz says of nginx: %v", other)
	}
	for range 5 {
		asks()
	}
	if n := strings.Count(s.log.String(), told); n != 1 {
		t.Errorf("the log says it %d times", n)
	}
	if printed := s.printedConf(); !strings.Contains(printed, "proxy_set_header X-Securefiles-Snippet "+other["own"]+";") {
		t.Errorf("what is printed now is not of %s", other["own"])
	}
}
