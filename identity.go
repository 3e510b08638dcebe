package main

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"securefiles/internal/config"
	"securefiles/internal/identity"
	"securefiles/internal/metrics"
)

// makeSources makes the configured sources. They have loaded nothing yet, and ask
// nobody.
func makeSources(c *config.Config, log *slog.Logger) (identity.Sources, error) {
	var sources identity.Sources
	for i, id := range c.Identity {
		source, err := makeSource(id, sources, log)
		if err != nil {
			return nil, fmt.Errorf("identity[%d]: %w", i, err)
		}
		sources = append(sources, source)
	}
	return sources, nil
}

// makeSource makes a source of what the configuration says of it: the one place
// that knows which kinds there are. The earlier ones are those before it.
func makeSource(id config.Identity, earlier identity.Sources, log *slog.Logger) (*identity.Source, error) {
	switch {
	case id.Header != "":
		return identity.NewHeaderSource(identity.HeaderOptions{
			Header: id.Header, GroupsHeader: id.GroupsHeader, Value: id.NginxValue, GroupsValue: id.NginxGroupsValue,
		})
	case id.Htpasswd != "":
		return identity.NewBasicSource(id.Htpasswd, &identity.BasicOptions{Realm: id.Realm, Remember: time.Duration(id.Remember)})
	case id.JWT != nil:
		j := id.JWT
		return identity.NewJWTSource(earlier, identity.KeysOptions{
			Issuer: j.Issuer, URL: j.JWKSURL, File: j.JWKSFile, Algorithms: j.Algorithms,
			Refresh: time.Duration(j.Refresh), Timeout: time.Duration(j.Timeout),
		}, identity.JWTOptions{
			Audiences: j.Audience, Cookie: j.Cookie, SubjectClaim: j.SubjectClaim, GroupsClaim: j.GroupsClaim, Leeway: time.Duration(j.Leeway),
		})
	case id.Certificate != nil:
		return identity.NewCertificateSource(identity.CertificateOptions{Subject: id.Certificate.Subject, Groups: id.Certificate.Groups})
	default:
		s := id.Session
		return identity.NewSessionSource(identity.SessionOptions{
			URL: s.URL, Socket: s.Socket, Cookies: s.Cookies, Headers: s.Headers, Send: s.Send,
			SubjectHeader: s.SubjectHeader, GroupsHeader: s.GroupsHeader, SubjectPath: s.SubjectPath, GroupsPath: s.GroupsPath,
			Timeout: time.Duration(s.Timeout), Remember: time.Duration(s.Remember), RememberRefused: time.Duration(s.RememberRefused),
			CAFile: s.CAFile, MaxCalls: s.MaxCalls,
			OnBreaker: func(open bool) {
				if open {
					log.Error("the application does not answer: sessions that are not remembered get 503", "url", s.URL)
				} else {
					log.Info("the application answers again", "url", s.URL)
				}
			},
		})
	}
}

// openSources makes the configured sources and loads their files.
func openSources(ctx context.Context, c *config.Config, log *slog.Logger) (identity.Sources, error) {
	sources, err := makeSources(c, log)
	if err != nil {
		return nil, err
	}
	return sources, sources.Load(ctx)
}

// logSource tells what a source has loaded.
func logSource(log *slog.Logger, s *identity.Source) {
	if s.State == nil {
		return
	}
	switch state := s.State(); {
	case state.Err != nil && state.Generation == 0:
		log.Warn("no "+s.Holds+": credentials that need them are answered with 503 until there are", "source", s.Name, "of", state.Of, "error", state.Err)
	case state.Err != nil:
		log.Error(s.Holds+" refused, the last good version goes on serving", "source", s.Name, "of", state.Of, "generation", state.Generation, "error", state.Err)
	default:
		log.Info(s.Holds+" loaded", "source", s.Name, "of", state.Of, "generation", state.Generation, "holds", state.Detail)
	}
}

// countSources adds the sources' own series to the metrics.
func countSources(m *metrics.Metrics, sources identity.Sources) {
	for _, s := range sources {
		for _, row := range s.Metrics {
			m.Func(metrics.Kind(row.Counter), row.Name, row.Help, row.Label, row.Value, row.Read)
		}
	}
}
