package cli

import (
	"context"
	"io"
	"log/slog"

	"securefiles/internal/config"
)

type serveCommand struct{}

// Help shows an example.
func (serveCommand) Help() string {
	return "Answers nginx on `listen`, serves metrics and health on `admin`, reloads on SIGHUP and on change of its files, ends on SIGTERM.\n\nExample:\n  securefiles serve --config /etc/securefiles/securefiles.yaml"
}

func (serveCommand) Run(ctx context.Context, env Env, all *commands) error {
	c, err := all.loadServed(env)
	if err != nil {
		return err
	}
	log := newLogger(env.Stderr, c.Log)
	for _, f := range takeBack(c, configFindings(c), nil) {
		if f.Rule != "suppression" && f.Rule != "listen" { // the listener is told of as it is
			log.Warn(f.Message)
		}
	}
	p, err := all.openWithSecrets(ctx, c, env, log)
	if err != nil {
		return err
	}
	return all.program.Serve(ctx, p, log)
}

// newLogger writes to stderr in the configured format.
func newLogger(w io.Writer, c config.Log) *slog.Logger {
	level := map[string]slog.Level{"debug": slog.LevelDebug, "warn": slog.LevelWarn, "error": slog.LevelError}[c.Level] // info is 0
	opts := &slog.HandlerOptions{Level: level}
	if c.Format == "json" {
		return slog.New(slog.NewJSONHandler(w, opts))
	}
	return slog.New(slog.NewTextHandler(w, opts))
}
