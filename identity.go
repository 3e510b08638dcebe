package main

import (
	"log/slog"
	"time"

	"securefiles/internal/config"
	"securefiles/internal/identity"
	"securefiles/internal/metrics"
)

// makeSource makes a source of what the configuration says of it: the one place
// that knows which kinds there are. Its options stand below the key in its place of
// the list; beside each other there if the key is empty. The earlier ones are
// those before it.
func makeSource(id config.Identity, earlier identity.Sources, log *slog.Logger) (source *identity.Source, key string, err error) {
	switch {
	case id.Header != "":
		source, err = identity.NewHeaderSource(identity.HeaderOptions{
			Header: id.Header, GroupsHeader: id.GroupsHeader, Value: id.NginxValue, GroupsValue: id.NginxGroupsValue,
		})
		return source, "", err
	case id.Htpasswd != "":
		source, err = identity.NewBasicSource(id.Htpasswd, &identity.BasicOptions{Realm: id.Realm, Remember: time.Duration(id.Remember)})
		return source, "", err
	case id.JWT != nil:
		j := id.JWT
		source, err = identity.NewJWTSource(earlier, identity.KeysOptions{
			Issuer: j.Issuer, URL: j.JWKSURL, File: j.JWKSFile, InsecureHTTP: j.InsecureHTTP, Algorithms: j.Algorithms,
			Refresh: time.Duration(j.Refresh), Timeout: time.Duration(j.Timeout),
		}, identity.JWTOptions{
			Audiences: j.Audience, Cookie: j.Cookie, SubjectClaim: j.SubjectClaim, GroupsClaim: j.GroupsClaim, Leeway: time.Duration(j.Leeway),
		})
		return source, "jwt", err
	case id.Certificate != nil:
		source, err = identity.NewCertificateSource(identity.CertificateOptions{Subject: id.Certificate.Subject, Groups: id.Certificate.Groups})
		return source, "certificate", err
	default:
		s := id.Session
		source, err = identity.NewSessionSource(identity.SessionOptions{
			URL: s.URL, InsecureHTTP: s.InsecureHTTP, Socket: s.Socket, Cookies: s.Cookies, Headers: s.Headers, Send: s.Send,
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
		return source, "session", err
	}
}

// logSource tells what a source has loaded, at the start.
func logSource(log *slog.Logger, s *identity.Source) {
	if s.State == nil {
		return
	}
	state := s.State()
	attrs := append([]any{"generation", state.Generation}, sourceAttrs(s.Name, state)...)
	if state.Err != nil {
		log.Warn("no "+s.Holds+": credentials that need them are answered with 503 until there are", append(attrs, "error", state.Err)...)
	} else {
		log.Info(s.Holds+" loaded", attrs...)
	}
}

func sourceAttrs(source string, state identity.State) []any {
	return []any{"source", source, "of", state.Of, "holds", state.Detail}
}

// countSources adds the sources' own series to the metrics.
func countSources(m *metrics.Metrics, sources identity.Sources) {
	for _, s := range sources {
		for _, row := range s.Metrics {
			m.Func(metrics.Kind(row.Counter), row.Name, row.Help, row.Label, row.Value, row.Read)
		}
	}
}
