package cli

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"time"

	"securefiles/internal/config"
)

// askTime is how long whoever listens on the admin address may take to answer.
const askTime = time.Second

// waitingForRestart asks the running service, where there is one on this machine, which
// keys of the configuration it was started with other values of. Of one that cannot be
// asked, or is of another configuration, it says nothing.
func waitingForRestart(ctx context.Context, c *config.Config) []string {
	network, address := config.Address(c.Admin)
	if network == "tcp" {
		host, port, err := net.SplitHostPort(address)
		ip := net.ParseIP(host)
		switch {
		case err != nil || ip == nil && host != "":
			return nil
		case host == "" || ip.IsUnspecified():
			address = net.JoinHostPort("127.0.0.1", port)
		case !ip.IsLoopback():
			return nil
		}
	}
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://securefiles/readyz", nil)
	if err != nil {
		return nil
	}
	transport := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, address)
	}}
	resp, err := transport.RoundTrip(r)
	if err != nil {
		return nil
	}
	defer resp.Body.Close() //nolint:errcheck // it was only read
	var answer struct {
		Configuration struct {
			File    string
			Restart []struct{ Key string }
		}
	}
	if json.NewDecoder(io.LimitReader(resp.Body, 1<<20)).Decode(&answer) != nil || !isSameFile(answer.Configuration.File, c.File) {
		return nil
	}
	var keys []string
	for _, r := range answer.Configuration.Restart {
		if slices.Contains(config.RestartKeys(), r.Key) || r.Key == "proxy_secret_file" {
			keys = append(keys, r.Key) // whoever listens there writes nothing else to a terminal
		}
	}
	return keys
}

func isSameFile(a, b string) bool {
	file, err := filepath.Abs(b)
	return err == nil && a != "" && b != "" && a == file
}
