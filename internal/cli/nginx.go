package cli

import (
	"fmt"
	"log/slog"

	"securefiles/internal/nginx"
)

type nginxCommand struct {
	HTTP     bool `name:"http" xor:"part" help:"Print what belongs into http {}, for conf.d/."`
	Complete bool `xor:"part" help:"Print a complete nginx.conf that runs unprivileged."`
}

// Help shows an example.
func (nginxCommand) Help() string {
	return "Prints what belongs into server {}; --http prints the other half.\n\nExample:\n  securefiles nginx --http > /etc/nginx/conf.d/securefiles.conf\n  securefiles nginx > /etc/nginx/snippets/securefiles.conf   # then, in your server: include snippets/securefiles.conf;"
}

func (cmd *nginxCommand) Run(env Env, all *commands) error {
	c, err := all.load(env)
	if err != nil {
		return err
	}
	p, err := all.open(c, env, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	snippet := nginx.Config{Listen: c.Listen, ProxySecret: p.Secret != nil, Login: c.LoginURL != ""}
	for _, d := range c.Downloads {
		if d.Root == "" {
			return fmt.Errorf("download %q has no root: set it to the directory that nginx shall serve", d.Name)
		}
		snippet.Downloads = append(snippet.Downloads, nginx.Download{
			Name: d.Name, URL: d.URL, Internal: d.Internal, Root: d.Root, FollowSymlinks: d.FollowSymlinks,
		})
	}
	for _, source := range p.Sources {
		for _, h := range source.Headers {
			if h.FromClient {
				snippet.Identity = append(snippet.Identity, nginx.FromClient(h.Name))
			} else {
				snippet.Identity = append(snippet.Identity, nginx.Header{Name: h.Name, Value: h.Value})
			}
		}
	}
	switch {
	case cmd.HTTP:
		return nginx.WriteHTTP(env.Stdout, snippet)
	case cmd.Complete:
		return nginx.WriteComplete(env.Stdout, snippet)
	default:
		return nginx.WriteServer(env.Stdout, snippet)
	}
}
