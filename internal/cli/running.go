package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"securefiles/internal/config"
	"securefiles/internal/secret"
)

// askTime is how long whoever listens on the admin address may take to answer.
const askTime = time.Second

// waitingForRestart asks the running service, where there is one on this machine, which
// keys of the configuration it was started with other values of. Of one that cannot be
// asked, or is of another configuration, it says nothing.
func waitingForRestart(ctx context.Context, c *config.Config) []string {
	transport := adminTransport(c)
	if transport == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://securefiles/readyz", nil)
	if err != nil {
		return nil
	}
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

// adminTransport reaches the admin listener of the configuration on this machine; nil
// where that is another one's.
func adminTransport(c *config.Config) *http.Transport {
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
	return &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, address)
	}}
}

// callTime is how long the running service may take to do what it is told, and longTime
// where that is about all that it keeps.
const (
	callTime = 10 * time.Second
	longTime = 10 * time.Minute
)

// call tells the running service of the configuration something, or asks it, with the
// admin token. What it answers is read into the value, where there is one.
func call(ctx context.Context, c *config.Config, env Env, method, path string, say, into any) error {
	token, err := adminToken(c, env)
	if err != nil {
		return err
	}
	transport := adminTransport(c)
	if transport == nil {
		return fmt.Errorf("the admin listener %s is not on this machine: run this where the service runs", c.Admin)
	}
	body, much := say.(io.Reader)
	file, more := into.(io.Writer)
	if !much && say != nil {
		var text bytes.Buffer
		if err := json.NewEncoder(&text).Encode(say); err != nil {
			return err
		}
		body = &text
	}
	within := callTime
	if much || more {
		within = longTime
	}
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, method, "http://securefiles"+path, body)
	if err != nil {
		return err
	}
	r.Header.Set("Authorization", "Bearer "+token)
	r.Header.Set("Content-Type", "application/json")
	resp, err := transport.RoundTrip(r)
	if err != nil {
		return fmt.Errorf("ask the running service at %s: %w: is it running?", c.Admin, err)
	}
	defer resp.Body.Close() //nolint:errcheck // it was only read
	if more && resp.StatusCode == http.StatusOK {
		if _, err := io.Copy(file, resp.Body); err != nil {
			return fmt.Errorf("read what the running service answers: %w", err)
		}
		return nil
	}
	text, err := io.ReadAll(io.LimitReader(resp.Body, 256<<20))
	if err != nil {
		return fmt.Errorf("ask the running service at %s: %w", c.Admin, err)
	}
	var problem struct{ Error string }
	switch {
	case resp.StatusCode == http.StatusNotFound && (path == "/state/backup" || path == "/state/compact"):
		return errors.New("the running service keeps no file: set state.file, and admin_token_file, and restart it")
	case resp.StatusCode == http.StatusNotFound && path != "/state/accept" && strings.HasPrefix(path, "/state"):
		return errors.New("the running service has no admin token: set admin_token_file, and restart it")
	case resp.StatusCode == http.StatusNotFound && path == "/state/accept":
		return errors.New("the running service does not count in Redis: set state.redis, and admin_token_file, and restart it")
	case resp.StatusCode == http.StatusNotFound:
		return errors.New("the running service keeps no links: set state.file or state.redis, and admin_token_file, and restart it")
	case resp.StatusCode != http.StatusOK && json.Unmarshal(text, &problem) == nil && problem.Error != "":
		return fmt.Errorf("the running service says: %s", problem.Error)
	case resp.StatusCode != http.StatusOK:
		return fmt.Errorf("the running service answers %d", resp.StatusCode)
	case into == nil:
		return nil
	}
	if err := json.Unmarshal(text, into); err != nil {
		return fmt.Errorf("read what the running service answers: %w", err)
	}
	return nil
}

// adminToken is what opens the admin listener.
func adminToken(c *config.Config, env Env) (string, error) {
	if token, ok := env.Lookup(config.AdminTokenVariable); ok && token != "" {
		return token, nil
	}
	if c.AdminTokenFile == "" {
		return "", fmt.Errorf("admin_token_file is not set, and this command asks the running service, which wants its token: make a file of one with `openssl rand -hex 32`, name it in the configuration, and restart the service; or set %s", config.AdminTokenVariable)
	}
	return secret.Read("admin token", c.AdminTokenFile)
}
