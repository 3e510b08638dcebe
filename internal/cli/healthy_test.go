package cli

import (
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
)

// What the health check of a container says goes by the service's own answer, at the
// address of its configuration, and by nothing else.
func TestHealthyAsksTheService(t *testing.T) {
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("it asked somebody else") }))
	defer elsewhere.Close()
	for name, c := range map[string]struct {
		network, address string
		answer           func(w http.ResponseWriter, r *http.Request)
		status           int
		stderr           string
	}{
		"well":            {"tcp", "127.0.0.1:0", func(http.ResponseWriter, *http.Request) {}, exitYes, ""},
		"well, by socket": {"unix", "admin.sock", func(http.ResponseWriter, *http.Request) {}, exitYes, ""},
		"not well":        {"tcp", "127.0.0.1:0", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(503) }, exitNo, "/healthz answers 503"},
		"somebody else's": {"tcp", "127.0.0.1:0", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, elsewhere.URL, http.StatusFound) }, exitNo, "/healthz answers 302"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if c.network == "unix" {
				c.address = filepath.Join(dir, c.address)
			}
			l, err := net.Listen(c.network, c.address)
			if err != nil {
				t.Fatal(err)
			}
			mux := http.NewServeMux()
			mux.HandleFunc("GET /healthz", c.answer)
			server := &httptest.Server{Listener: l, Config: &http.Server{Handler: mux}}
			server.Start()
			defer server.Close()
			admin := l.Addr().String()
			if c.network == "unix" {
				admin = "unix:" + admin
			}
			conf := writeFile(t, filepath.Join(dir, "securefiles.yaml"), "admin: "+admin+"\n")
			status, _, stderr := commandWith(t, []string{"http_proxy=" + elsewhere.URL, "HTTP_PROXY=" + elsewhere.URL}, "healthy", "--config", conf)
			if status != c.status || !strings.Contains(stderr, c.stderr) || c.stderr == "" && stderr != "" {
				t.Errorf("status %d, %q; want %d, %q", status, stderr, c.status, c.stderr)
			}
		})
	}
}
