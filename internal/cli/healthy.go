package cli

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"time"

	"securefiles/internal/config"
)

// healthyTimeout is how long the service may take to say that it is well, below what
// an engine of containers waits.
const healthyTimeout = 2 * time.Second

type healthyCommand struct{}

// Help shows an example.
func (healthyCommand) Help() string {
	return "Asks /healthz on the configuration's admin listener, for health checks of containers without a shell. Exits 0 if the service answers that it is well, else 1.\n\nExample:\n  securefiles healthy --config /etc/securefiles/securefiles.yaml"
}

func (healthyCommand) Run(ctx context.Context, env Env, all *commands) error {
	c, err := all.load(env)
	if err != nil {
		return err
	}
	if err := askHealth(ctx, c.Admin); err != nil {
		fmt.Fprintf(env.Stderr, "securefiles: the service at %s is not well: %v\n", c.Admin, err)
		return errNo
	}
	return nil
}

// askHealth asks the admin listener at an address, as the configuration writes it,
// whether the service is well.
func askHealth(ctx context.Context, admin string) error {
	network, address := config.Address(admin)
	client := http.Client{
		Timeout: healthyTimeout,
		// There, and nowhere else: neither by a proxy nor by a redirect.
		Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, address)
		}},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	defer client.CloseIdleConnections()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://localhost/healthz", nil)
	if err != nil {
		return err
	}
	answer, err := client.Do(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("/healthz answers %s", answer.Status)
	}
	return nil
}
