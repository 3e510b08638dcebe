package cli

import (
	"cmp"
	"context"
	"errors"
	"io"
	"log/slog"

	"securefiles/internal/config"
)

type serveCommand struct {
	Direct         bool   `help:"Serve the files too, without nginx: for development."`
	Listen         string `placeholder:"HOST:PORT" help:"Where --direct answers clients (default: 127.0.0.1:8080)."`
	InsecurePublic bool   `help:"Let --direct answer other hosts, in clear text."`
}

// Help shows an example.
func (serveCommand) Help() string {
	return "Answers nginx on `listen`, serves metrics and health on `admin`, reloads on SIGHUP and on change of its files, ends on SIGTERM. With --direct it serves the files itself, for development: nobody is known by a header or certificate that nginx would have verified.\n\nExample:\n  securefiles serve --config /etc/securefiles/securefiles.yaml\n  securefiles serve --direct --config site/securefiles.yaml"
}

func (s serveCommand) Run(ctx context.Context, env Env, all *commands) error {
	direct, err := s.direct()
	if err != nil {
		return err
	}
	c, err := all.loadServed(env)
	if err != nil {
		return err
	}
	level := new(slog.LevelVar)
	log := newLogger(env.Stderr, c.Log, level)
	p, err := all.openServed(ctx, c, direct, env, log, level)
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
		return all.openServed(ctx, c, direct, env, log, level)
	}, log)
}

// direct is how files are served without nginx; nil where they are not.
func (s serveCommand) direct() (*Direct, error) {
	if !s.Direct {
		if s.Listen != "" || s.InsecurePublic {
			return nil, errors.New("--listen and --insecure-public belong to --direct: where nginx asks, `listen` of the configuration says")
		}
		return nil, nil
	}
	d := &Direct{Listen: cmp.Or(s.Listen, "127.0.0.1:8080"), Public: s.InsecurePublic}
	return d, d.check()
}

// openServed makes the parts to be served, and reads their secrets.
func (c *commands) openServed(ctx context.Context, conf *config.Config, direct *Direct, env Env, log *slog.Logger, level *slog.LevelVar) (*Parts, error) {
	p, err := c.openWithSecrets(ctx, conf, env, log)
	if p != nil {
		p.Direct = direct
		if direct != nil {
			err = errors.Join(err, p.DirectProblems())
		}
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
