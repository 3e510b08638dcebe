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
	level := new(slog.LevelVar)
	log := newLogger(env.Stderr, c.Log, level)
	p, err := all.openServed(ctx, c, env, log, level)
	if err != nil {
		return err
	}
	return all.program.Serve(ctx, p, func(ctx context.Context, running *Parts) (*Parts, error) {
		c, err := config.Load(running.Config.File, env.Environ)
		if err != nil || c.IsOf(running.Config) {
			return nil, err
		}
		if err := c.Continue(running.Config); err != nil {
			return nil, err
		}
		return all.openServed(ctx, c, env, log, level)
	}, log)
}

// openServed makes the parts to be served, and reads their secrets.
func (c *commands) openServed(ctx context.Context, conf *config.Config, env Env, log *slog.Logger, level *slog.LevelVar) (*Parts, error) {
	p, err := c.openWithSecrets(ctx, conf, env, log)
	if p != nil {
		p.Begin = func() {
			level.Set(levelOf(conf.Log))
			for _, f := range takeBack(conf, configFindings(conf), nil) {
				if f.Rule != "suppression" && f.Rule != "listen" { // the listener is told of as it is
					log.Warn(f.Message)
				}
			}
		}
	}
	return p, err
}

// levelOf is the level at which the log begins.
func levelOf(c config.Log) slog.Level {
	return map[string]slog.Level{"debug": slog.LevelDebug, "warn": slog.LevelWarn, "error": slog.LevelError}[c.Level] // info is 0
}

// newLogger writes to stderr in the configured format, from the configured level on,
// which may be set to another one.
func newLogger(w io.Writer, c config.Log, level *slog.LevelVar) *slog.Logger {
	level.Set(levelOf(c))
	opts := &slog.HandlerOptions{Level: level}
	if c.Format == "json" {
		return slog.New(slog.NewJSONHandler(w, opts))
	}
	return slog.New(slog.NewTextHandler(w, opts))
}
