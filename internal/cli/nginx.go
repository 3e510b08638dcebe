package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"securefiles/internal/nginx"
)

type nginxCommand struct {
	HTTP      bool `name:"http" xor:"part" help:"Print what belongs into http {}, for conf.d/."`
	Complete  bool `xor:"part" help:"Print a complete nginx.conf that runs unprivileged."`
	Container bool `help:"With --complete: for a container, on port 8080 of every address, logs on standard output and error, nothing written but in /tmp."`
	Proof     bool `xor:"part" help:"Print the file that holds the proof's secret, for proof_secret_file."`
}

// Help shows an example.
func (nginxCommand) Help() string {
	return "Prints what belongs into server {}; --http prints the other half.\n\nExample:\n  securefiles nginx --http > /etc/nginx/conf.d/securefiles.conf\n  securefiles nginx > /etc/nginx/snippets/securefiles.conf   # then, in your server: include snippets/securefiles.conf;\n\nWith proof_secret_file, a third file of mode 0640 holds the secret:\n  (umask 027; securefiles nginx --proof > /etc/nginx/securefiles-proof.conf)"
}

func (cmd *nginxCommand) Run(ctx context.Context, env Env, all *commands) error {
	if cmd.Container && !cmd.Complete {
		return errors.New("--container is about a complete nginx.conf: give --complete too")
	}
	c, err := all.load(env)
	if err != nil {
		return err
	}
	p, err := all.open(c, env, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	if cmd.Proof {
		if p.Proof == nil {
			return fmt.Errorf("there is no proof_secret_file: set it, and make the file with `openssl rand -hex 32`")
		}
		if err := p.Proof.Reload(ctx); err != nil {
			return c.At("proof_secret_file", err.Error())
		}
		return nginx.WriteProof(env.Stdout, p.Proxies(), p.Proof.Text())
	}
	snippet, err := p.Snippet()
	if err != nil {
		return err
	}
	switch {
	case cmd.HTTP:
		return nginx.WriteHTTP(env.Stdout, snippet)
	case cmd.Complete:
		return nginx.WriteComplete(env.Stdout, snippet, cmd.Container)
	default:
		return nginx.WriteServer(env.Stdout, snippet)
	}
}

// Proxies reports whether nginx asks a store for any file.
func (p *Parts) Proxies() bool {
	for i, d := range p.Config.Downloads {
		if p.Stores[i] != nil && d.Deliver != "redirect" {
			return true
		}
	}
	return false
}

// Snippet is what the nginx configuration that belongs to the parts depends on.
func (p *Parts) Snippet() (nginx.Config, error) {
	c := p.Config
	snippet := nginx.Config{
		Service: c.Nginx.Service, ProxySecret: p.Secret != nil, Proof: p.Proof != nil,
		DeliveryLog: c.Nginx.DeliveryLog, AccessLog: c.Nginx.AccessLog, Pages: c.Nginx.ErrorPages, Wait: p.Sources.Patience(),
		OpenFileCache: c.Nginx.OpenFileCache,
	}
	if len(snippet.Service) == 0 {
		if !c.Connectable() {
			return snippet, c.At("listen", fmt.Sprintf("%q is no address to connect to: say in nginx.service where nginx finds the service", c.Listen))
		}
		snippet.Service = []string{c.Listen}
	}
	for i, d := range c.Downloads {
		if !d.ByNGINX() {
			continue
		}
		if d.Root == "" && p.Stores[i] == nil {
			return snippet, fmt.Errorf("download %q has no root: set it to the directory that nginx shall serve, or say in storage where its files are", d.Name)
		}
		one := nginx.Download{
			Name: d.Name, URL: d.URL, Internal: d.Internal, Root: d.Root, FollowSymlinks: d.FollowSymlinks, Embed: d.Embed, Origins: d.CORSOrigins, Compress: d.Compress,
			Classic: d.Front == "classic", Archives: d.Zip != nil,
		}
		if store := p.Stores[i]; store != nil {
			at := store.Endpoint()
			one.Store = &nginx.Store{Scheme: at.Scheme, Host: at.Host, Path: at.Path, CAFile: d.Storage.CAFile, Resolver: d.Storage.Resolver, Redirect: d.Deliver == "redirect", NoSuffix: at.NoSuffix}
		}
		snippet.Downloads = append(snippet.Downloads, one)
	}
	if len(snippet.Downloads) == 0 {
		return snippet, fmt.Errorf("no download is behind nginx (front: nginx, or classic): docs/web-servers.md has the configurations of Apache, Lighttpd and Caddy")
	}
	snippet.Identity, snippet.Limits, snippet.Links, snippet.API = p.Vouching(), p.Limits != nil, p.Links != nil, p.Config.Links.API
	return snippet, nil
}
