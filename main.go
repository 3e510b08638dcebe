// Securefiles guards file downloads behind nginx: nginx asks about every
// download with auth_request, Casbin policies decide per user and path, and
// nginx sends the bytes.
//
//	securefiles init .          # a configuration to start from
//	securefiles check           # is it right?
//	securefiles nginx           # what to include in nginx
//	securefiles serve           # answer nginx
//
// This file is the map: open makes the parts of a configuration, in the order of a
// request, and serve puts them together. The commands are in internal/cli.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"os"
	"os/signal"
	"slices"
	"syscall"
	"time"
	_ "time/tzdata" // a machine may have none

	"github.com/go-chi/chi/v5"

	"securefiles/authz"
	"securefiles/internal/admin"
	"securefiles/internal/audit"
	"securefiles/internal/cli"
	"securefiles/internal/config"
	"securefiles/internal/frontend"
	"securefiles/internal/identity"
	"securefiles/internal/limit"
	"securefiles/internal/link"
	"securefiles/internal/metrics"
	"securefiles/internal/nginx"
	"securefiles/internal/secret"
	"securefiles/internal/server"
	"securefiles/internal/state"
	"securefiles/pathguard"
	"securefiles/policy"
	"securefiles/policy/shadow"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	env := cli.Env{Stdout: os.Stdout, Stderr: os.Stderr, Environ: os.Environ()}
	os.Exit(cli.Main(ctx, os.Args[1:], env, cli.Program{Open: open, Serve: serve}))
}

// open makes the parts of a configuration, in the order of a request, and reads none
// of their files. What a value must be stands in the constructor of the part that
// needs it; here its error gets its place in the file. All that is wrong is told at
// once.
func open(c *config.Config, lookup func(string) (string, bool), log *slog.Logger) (*cli.Parts, error) {
	p := &cli.Parts{Config: c}
	var problems []error
	var err error
	if p.Secret, err = secret.New("proxy secret", c.ProxySecretFile, config.ProxySecretVariable, lookup); err != nil {
		problems = append(problems, &config.Error{File: "environment", Message: err.Error()})
	}
	if p.Proof, err = secret.NewKept("proof's secret", c.ProofSecretFile, config.ProofSecretVariable, lookup); err != nil {
		problems = append(problems, &config.Error{File: "environment", Message: err.Error()})
	}
	if p.Downloads, err = downloads(c.Downloads); err != nil {
		problems = append(problems, c.At("downloads", err.Error()))
	} else if c.LoginURL != "" {
		if p.Login, err = authz.ParseLogin(c.LoginURL, p.Downloads); err != nil {
			problems = append(problems, c.At("login_url", err.Error()))
		}
	}
	if p.Sources, err = sources(c, log); err != nil {
		problems = append(problems, err)
	}
	if file := c.Links.KeysFile; file != "" {
		if p.Keys, err = link.NewKeys(file); err == nil {
			p.Links, err = link.New(p.Keys, &link.Options{MaxTTL: time.Duration(c.Links.MaxTTL)})
		}
		if err != nil {
			problems = append(problems, c.At("links", err.Error()))
		}
	}
	if len(c.Limits) > 0 && p.Downloads != nil {
		if p.Limits, err = limits(c.Limits, p.Downloads.Names()); err != nil {
			for _, one := range identity.Split(err) {
				var option *limit.OptionError
				if errors.As(one, &option) {
					one = c.At(fmt.Sprintf("limits[%d].%s", option.Index, option.Option), option.Problem)
				}
				problems = append(problems, one)
			}
		}
	}
	p.Policy.Files = policy.Files{Model: c.Policy.Model, Policy: c.Policy.File}
	p.Policy.Options = policy.Options{
		AllowShrink: c.Policy.AllowShrink, RoleDepth: c.Policy.RoleDepth, RequireDomain: len(c.Downloads) > 1,
		DecisionTimeout: time.Duration(c.Policy.DecisionTimeout),
	}
	if p.Policy.Options.Zone, err = zone(c.Policy.Timezone); err != nil {
		problems = append(problems, c.At("policy.timezone", err.Error()))
	}
	if p.Token, err = secret.New("admin token", c.AdminTokenFile, config.AdminTokenVariable, lookup); err != nil {
		problems = append(problems, &config.Error{File: "environment", Message: err.Error()})
	}
	if p.AuditKey, err = cli.AuditKey(c); err != nil {
		problems = append(problems, c.At("audit.privacy.key_file", err.Error()))
	}
	if _, err := audit.NewPrivacy(audit.PrivacyOptions{Omit: c.Audit.Privacy.Omit}); err != nil {
		problems = append(problems, c.At("audit.privacy.omit", err.Error()))
	}
	return p, errors.Join(problems...)
}

// zone finds a time zone by its name. That of the machine is none: the same policy
// would say something else on another one.
func zone(name string) (*time.Location, error) {
	found, err := time.LoadLocation(name)
	if err != nil || name == "Local" {
		return nil, fmt.Errorf("%q is no time zone: write a name of the IANA database, such as Europe/Berlin, or UTC", name)
	}
	return found, nil
}

func downloads(list []config.Download) (*authz.Downloads, error) {
	var made []*authz.Download
	for _, d := range list {
		kind := pathguard.Attachment
		if d.Disposition == "inline" {
			kind = pathguard.Inline
		}
		made = append(made, &authz.Download{
			Name: d.Name, URL: d.URL, Internal: d.Internal, Disposition: kind,
			DenyStatus: d.DenyStatus, CacheControl: d.CacheControl, CSP: d.CSP, ReferrerPolicy: d.ReferrerPolicy, SameOrigin: d.Embed == "same-origin",
		})
	}
	return authz.NewDownloads(made...)
}

// limits makes the limits, over what this process counts.
func limits(list []config.Limit, downloads []string) (*limit.Limits, error) {
	made := make([]limit.Limit, len(list))
	for i, l := range list {
		made[i] = limit.Limit{
			Name: l.Name, Of: l.Of, Per: l.Per, Requests: l.Requests, Downloads: l.Downloads, Bytes: l.Bytes, Rate: l.Rate,
			IPv6: l.IPv6, Observe: l.Mode == "observe",
		}
	}
	return limit.New(made, downloads, state.NewMemory(nil))
}

// sources makes the sources of identity, in their order.
func sources(c *config.Config, log *slog.Logger) (identity.Sources, error) {
	var made identity.Sources
	var keys []string
	var problems []error
	// place tells of a problem where the option of a source stands, or else the source.
	place := func(problem string, i int, option ...string) {
		path := fmt.Sprintf("identity[%d]", i)
		for _, key := range option {
			if key != "" {
				path += "." + key
			}
		}
		problems = append(problems, c.At(path, problem))
	}
	for i, id := range c.Identity {
		s, key, err := source(id, made, log)
		keys = append(keys, key)
		for _, one := range identity.Split(err) {
			var option *identity.OptionError
			if errors.As(one, &option) {
				place(option.Problem, i, key, option.Option)
			} else {
				place(one.Error(), i, key)
			}
		}
		if err := identity.ValidPrefix(id.Prefix); err != nil {
			place(fmt.Sprintf("%q %v", id.Prefix, err), i, "prefix")
		}
		if s != nil {
			s.Prefix = id.Prefix
			made = append(made, s)
		}
	}
	if len(made) < len(c.Identity) {
		return made, errors.Join(problems...)
	}
	made.Share(maxConcurrent)
	for _, one := range identity.Split(made.Conflicts()) {
		var conflict *identity.ConflictError
		switch {
		case !errors.As(one, &conflict):
			problems = append(problems, c.At("identity", one.Error()))
		case conflict.Option == "":
			place(conflict.Problem, conflict.Index)
		default:
			place(conflict.Problem, conflict.Index, keys[conflict.Index], conflict.Option)
		}
	}
	return made, errors.Join(problems...)
}

// source makes a source of what the configuration says of it: the one place
// that knows which kinds there are. Its options stand below the key in its place of
// the list; beside each other there if the key is empty. The earlier ones are
// those before it.
func source(id config.Identity, earlier identity.Sources, log *slog.Logger) (made *identity.Source, key string, err error) {
	groupsOptional := id.Groups == identity.GroupsOptional
	switch {
	case id.Header != "":
		made, err = identity.NewHeaderSource(identity.HeaderOptions{
			Header: id.Header, GroupsHeader: id.GroupsHeader, Value: id.NginxValue, GroupsValue: id.NginxGroupsValue, GroupsOptional: groupsOptional,
		})
		return made, "", err
	case id.Htpasswd != "":
		made, err = identity.NewBasicSource(id.Htpasswd, &identity.BasicOptions{Realm: id.Realm, Remember: time.Duration(id.Remember)})
		return made, "", err
	case id.JWT != nil:
		j := id.JWT
		made, err = identity.NewJWTSource(earlier, identity.KeysOptions{
			Issuer: j.Issuer, URL: j.JWKSURL, File: j.JWKSFile, InsecureHTTP: j.InsecureHTTP, Algorithms: j.Algorithms,
			Refresh: time.Duration(j.Refresh), MaxStale: time.Duration(j.MaxStale), Timeout: time.Duration(j.Timeout),
		}, identity.JWTOptions{
			Audiences: j.Audience, Cookie: j.Cookie, Header: j.Header, SubjectClaim: j.SubjectClaim, GroupsClaim: j.GroupsClaim, GroupsOptional: groupsOptional,
			Leeway: time.Duration(j.Leeway),
		})
		return made, "jwt", err
	case id.Certificate != nil:
		made, err = identity.NewCertificateSource(identity.CertificateOptions{Subject: id.Certificate.Subject, Groups: id.Certificate.Groups, GroupsOptional: groupsOptional})
		return made, "certificate", err
	default:
		s := id.Session
		made, err = identity.NewSessionSource(identity.SessionOptions{
			URL: s.URL, InsecureHTTP: s.InsecureHTTP, Socket: s.Socket, Cookies: s.Cookies, Headers: s.Headers, Send: s.Send,
			SubjectHeader: s.SubjectHeader, GroupsHeader: s.GroupsHeader, SubjectPath: s.SubjectPath, GroupsPath: s.GroupsPath, GroupsOptional: groupsOptional,
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
		return made, "session", err
	}
}

// maxConcurrent is how many questions are answered at a time.
const maxConcurrent = 1024

// serve loads the parts, puts them together and runs the service until the context
// ends.
func serve(ctx context.Context, p *cli.Parts, log *slog.Logger) (err error) {
	server.LimitMemory(log)
	if err := p.Load(ctx); err != nil {
		return err
	}
	if err := p.RefusedRoots(); err != nil {
		return err
	}
	p.Sources.Ask(ctx)
	warn(p, log)

	version := cli.Version()
	counters := metrics.New(version.Version, version.Commit, p.Downloads.Names(), identityNames(p), func() metrics.Policy {
		s := p.Policy.Status()
		return metrics.Policy{Lines: s.Lines, Generation: s.Generation, LoadedAt: s.LoadedAt, Stale: s.Stale, Indexed: s.Indexed, UnindexedMax: s.LargestBucket}
	})
	countSources(counters, p.Sources)

	// A request: the front end, the guard, and whom it asks.
	shadow, err := shadow.New(p.Policy.Store, p.Config.Policy.ShadowShare)
	if err != nil {
		return err
	}
	deciding := &authz.Options{Challenge: p.Sources.Challenge(), Login: p.Login}
	if p.Links != nil {
		deciding.Links = p.Links
	}
	if p.Limits != nil {
		deciding.Early, deciding.Limits = p.Limits.Early(), p.Limits.Late()
		for _, c := range p.Limits.Counts() {
			counters.Limit(c.Limit, string(c.Result), c.Read)
		}
	}
	guard, err := authz.New(p.Downloads, p.Sources.Chain(), shadow, deciding)
	if err != nil {
		return err
	}
	opts := &frontend.Options{Patience: p.Sources.Patience(), MaxConcurrent: maxConcurrent, Observe: counters.Observe, Logger: log}
	if p.Secret != nil {
		opts.Secret = p.Secret.Is
	}
	if p.Proof != nil {
		opts.Prove = nginx.Prover(p.Vouching(), p.Proof.Text)
	}
	opts.Snippet = snippetOf(p)
	privacy, keys, err := openPrivacy(p)
	if err != nil {
		return err
	}
	if keys != nil {
		defer func() { err = errors.Join(err, keys.Close()) }()
	}
	trail, err := openTrail(ctx, p, privacy, counters, log)
	if err != nil {
		return err
	}
	beside := []func(context.Context) error{func(ctx context.Context) error { return shadow.Run(ctx, reporter(counters, log)) }}
	if trail != nil {
		defer func() { err = errors.Join(err, trail.Close()) }()
		opts.Record = trail.Record
		beside = append(beside, trail.Run)
		if age := time.Duration(p.Config.Audit.Privacy.Retention); age > 0 {
			beside = append(beside, audit.Retention{File: p.Config.Audit.File, Age: age, Logger: log}.Run)
		}
	}
	front, err := frontend.NewAuthRequest(guard, opts)
	if err != nil {
		return err
	}

	// What is around it: what is loaded again, health, the listeners.
	reload := server.NewReloaders(reloaders(p, counters, log), &server.ReloadOptions{Logger: log})
	countReloads(counters, reload)
	asked := adminOptions(p, counters, reload, version)
	asked.Snippet, asked.OtherSnippet = opts.Snippet, front.OtherSnippet
	operators := admin.New(asked)
	return server.Run(ctx, routes(front, counters), operators, &server.Options{
		Listen: address(p.Config.Listen), Admin: address(p.Config.Admin), PeerUIDs: p.Config.ListenPeerUIDs,
		ListenInsecure: p.Config.ListenInsecure || p.Secret != nil, AdminInsecure: p.Config.AdminInsecure, Proved: p.Proof != nil,
		Delay: time.Duration(p.Config.ShutdownDelay), Timeout: time.Duration(p.Config.ShutdownTimeout),
		Reload: reload, HungUp: func() { warnOfExposures(p, log) }, Stopping: operators.Stopping, Reopen: trail.Reopen,
		Beside: beside, Version: version.Version, Logger: log,
	})
}

// identityNames are the names that attempts to find out who asks are counted under.
func identityNames(p *cli.Parts) []string {
	names := p.Sources.Names()
	if p.Links != nil {
		names = append(names, authz.SourceLink)
	}
	return names
}

// openPrivacy makes what changes records before they are written, and opens the keys
// of subjects where they are erasable.
func openPrivacy(p *cli.Parts) (*audit.Privacy, *audit.KeyStore, error) {
	conf := p.Config.Audit
	opts := audit.PrivacyOptions{Addresses: conf.Privacy.Addresses, Omit: conf.Privacy.Omit}
	if conf.Privacy.Subjects == "keyed" {
		opts.Key = p.AuditKey.Text
	}
	if conf.File != "" && conf.Privacy.Erasable {
		var err error
		if opts.Keys, err = audit.OpenKeyStore(conf.Privacy.Keys, true); err != nil {
			return nil, nil, p.Config.At("audit.privacy.keys", err.Error())
		}
	}
	privacy, err := audit.NewPrivacy(opts)
	if err != nil {
		return nil, nil, p.Config.At("audit.privacy", err.Error())
	}
	return privacy, opts.Keys, nil
}

// openTrail opens the record of decisions and deliveries; nil where none is kept.
func openTrail(ctx context.Context, p *cli.Parts, privacy *audit.Privacy, counters *metrics.Metrics, log *slog.Logger) (*audit.Trail, error) {
	c := p.Config
	if c.Audit.File == "" {
		return nil, nil
	}
	writing := audit.WriterOptions{Sync: c.Audit.Durability == "fsync", Transform: privacy}
	if chain := c.Audit.Chain; chain != nil {
		signer, _, err := audit.ReadKey(chain.KeyFile)
		if err != nil {
			return nil, c.At("audit.chain.key_file", err.Error())
		}
		writing.Chain = &audit.ChainOptions{Signer: signer, Every: time.Duration(chain.Every)}
	}
	trail, err := audit.Open(c.Audit.File, &audit.Options{
		WriterOptions: writing, Restore: privacy.Restore,
		DeliveryLog: c.Nginx.DeliveryLog, Wait: time.Duration(c.Audit.Wait), Logger: log,
		Delivered: func(r *audit.Record) {
			counters.ObserveDelivery(r.Download, r.Delivery, r.Bytes, time.Duration(r.Duration*float64(time.Second)))
			if p.Limits != nil && r.Delivery != audit.Unknown { // whose lease ends by itself
				if err := p.Limits.Delivered(ctx, r.Request, r.Bytes); err != nil {
					log.Warn("limits do not learn what was delivered: what was reserved counts", "request_id", r.Request, "error", err)
				}
			}
		},
	})
	if err != nil {
		return nil, c.At("audit.file", err.Error())
	}
	countAudit(counters, trail.State)
	if nginx := trail.Nginx(); nginx != nil {
		countFollower(counters, "nginx", nginx)
	}
	return trail, nil
}

// snippetOf is the digest of the nginx configuration that belongs to the parts; empty
// where none can be printed, so that nginx asks by one that somebody wrote.
func snippetOf(p *cli.Parts) string {
	c, err := p.Snippet()
	if err != nil {
		return ""
	}
	digest, err := nginx.Digest(c)
	if err != nil {
		return ""
	}
	return digest
}

// routes is what nginx reaches: one route, no shortcut.
func routes(front *frontend.AuthRequest, counters *metrics.Metrics) http.Handler {
	r := chi.NewRouter()
	r.Use(counters.InFlight)
	r.Method(http.MethodGet, "/authorize", front)
	r.NotFound(front.NotFound)
	r.MethodNotAllowed(front.MethodNotAllowed)
	return r
}

func address(listen string) server.Address {
	network, address := config.Address(listen)
	return server.Address{Network: network, Address: address}
}

func adminOptions(p *cli.Parts, counters *metrics.Metrics, reload *server.Reloaders, version cli.Build) admin.Options {
	opts := admin.Options{
		Metrics: counters.Handler(), Version: version, Policy: p.Policy.Store, Downloads: p.Downloads,
		Loaded: func() []admin.Loaded {
			var all []admin.Loaded
			for _, s := range reload.State() {
				all = append(all, admin.Loaded{Name: s.Name, Generation: s.Generation, At: s.LoadedAt, Stale: s.Stale, Err: s.Err})
			}
			return all
		},
		Whoami: func(ctx context.Context, request []byte) (any, error) {
			q, err := identity.ParseRequest(request)
			if err != nil {
				return nil, err
			}
			q.Download = p.Downloads.All()[0]
			return p.Sources.Whoami(ctx, q, p.Policy.Store), nil
		},
	}
	if p.Token != nil {
		opts.Token = p.Token.Is
	}
	return opts
}

// reloaders are what is loaded again while the service runs: all that decisions
// depend on, and the admin token.
func reloaders(p *cli.Parts, counters *metrics.Metrics, log *slog.Logger) []server.Reloader {
	rows := []server.Reloader{{
		Name: "policy", Files: p.Policy.Files.Names(), Reload: counted(p, counters, p.Policy.Reload), Confirm: counted(p, counters, p.Policy.ReloadConfirmed),
		State: func() server.Loaded {
			status := p.Policy.Status()
			return server.Loaded{Generation: status.Generation, Err: status.Err, Attrs: policyAttrs(status)}
		},
		Taken: func() { warnOfPolicy(log, p.Policy.Store) },
	}}
	for _, source := range p.Sources {
		if source.Reload == nil {
			continue
		}
		rows = append(rows, server.Reloader{
			Name: source.Holds, Files: source.Files, Reload: source.Reload, Run: source.Run,
			State: func() server.Loaded {
				state := source.State()
				return server.Loaded{Generation: state.Generation, Err: state.Err, Attrs: sourceAttrs(source.Name, state)}
			},
		})
	}
	if p.Keys != nil {
		rows = append(rows, server.Reloader{
			Name: "link keys", Files: p.Keys.Files(), Reload: p.Keys.Reload,
			State: func() server.Loaded { return server.Loaded{Generation: p.Keys.Generation()} },
		})
	}
	for _, s := range []struct {
		name string
		*secret.Secret
	}{{"proxy secret", p.Secret}, {"proof secret", p.Proof}, {"audit key", p.AuditKey}} {
		if files := s.Files(); len(files) > 0 {
			rows = append(rows, server.Reloader{
				Name: s.name, Files: files, Reload: s.Reload,
				State: func() server.Loaded { return server.Loaded{Generation: s.Generation()} },
			})
		}
	}
	if len(p.Token.Files()) > 0 {
		rows = append(rows, server.Reloader{
			Name: "admin token", Files: p.Token.Files(), Meanwhile: "none is accepted until it is mended",
			State: func() server.Loaded { return server.Loaded{Generation: p.Token.Generation()} },
			Reload: func(ctx context.Context) error {
				err := p.Token.Reload(ctx)
				if err != nil {
					p.Token.Forget()
				}
				return err
			},
		})
	}
	return rows
}

// countSources adds the sources' own series to the metrics.
func countSources(m *metrics.Metrics, sources identity.Sources) {
	for _, s := range sources {
		for _, row := range s.Metrics {
			m.Func(metrics.Kind(row.Counter), row.Name, row.Help, row.Label, row.Value, row.Read)
		}
	}
}

// countAudit adds the series of the audit trail to the metrics.
func countAudit(m *metrics.Metrics, state func() audit.State) {
	for _, kind := range audit.Types() {
		m.Func(metrics.Counter, "securefiles_audit_records_total", "Records that were written, by type (decision, delivery, checkpoint).", "type", kind,
			func() float64 { return float64(state().Records[kind]) })
	}
	m.Func(metrics.Counter, "securefiles_audit_write_failures_total", "Records that could not be written; each such decision was answered with 503.", "", "",
		func() float64 { return float64(state().Failures) })
	m.Func(metrics.Gauge, "securefiles_audit_awaited", "Allowed requests of which nginx has not told what it delivered.", "", "", func() float64 { return float64(state().Awaited) })
	m.Func(metrics.Counter, "securefiles_audit_overflows_total", "Allowed requests that were given up as unknown, because too many were awaited.", "", "",
		func() float64 { return float64(state().Overflowed) })
	m.Func(metrics.Counter, "securefiles_audit_delivery_lines_refused_total", "Lines of nginx's delivery log that are no delivery.", "", "", func() float64 { return float64(state().Refused) })
	m.Func(metrics.Gauge, "securefiles_audit_failing", "1 while records cannot be written, and everything is answered with 503.", "", "", func() float64 {
		if state().Failing {
			return 1
		}
		return 0
	})
}

// countFollower adds the series of who follows a file.
func countFollower(m *metrics.Metrics, name string, f *audit.Follower) {
	m.Func(metrics.Gauge, "securefiles_audit_lag_bytes", "Bytes that are written and not yet taken further, by follower (nginx, syslog, postgres).", "follower", name, func() float64 {
		lag, err := f.Lag()
		if err != nil {
			return math.NaN()
		}
		return float64(lag)
	})
	m.Func(metrics.Counter, "securefiles_audit_passed_over_total", "Lines that were too long, files that were truncated or could not be read, by follower.", "follower", name, func() float64 {
		s := f.Stats()
		return float64(s.TooLong + s.Truncated + s.Unread)
	})
}

// countReloads adds the rows' own series to the metrics.
func countReloads(m *metrics.Metrics, r *server.Reloaders) {
	for i, row := range r.State() {
		read := func(value func(server.ReloadState) float64) func() float64 {
			return func() float64 { return value(r.State()[i]) }
		}
		m.Func(metrics.Gauge, "securefiles_reload_stale", "1 while what was loaded last is served though there is something newer, or nothing any more, by what it is.",
			"name", row.Name, read(func(s server.ReloadState) float64 {
				if s.Stale {
					return 1
				}
				return 0
			}))
		m.Func(metrics.Gauge, "securefiles_reload_generation", "Versions loaded since the service began, by what they are of.",
			"name", row.Name, read(func(s server.ReloadState) float64 { return float64(s.Generation) }))
	}
}

// counted counts the versions of the policy that are tried.
func counted(p *cli.Parts, counters *metrics.Metrics, reload func(context.Context) error) func(context.Context) error {
	return func(ctx context.Context) error {
		before := p.Policy.Status().Generation
		err := reload(ctx)
		if status := p.Policy.Status(); err != nil || status.Generation != before {
			counters.ObserveReload(err, status.Duration)
		}
		return err
	}
}

// reporter tells of decisions that stock Casbin made again.
func reporter(counters *metrics.Metrics, log *slog.Logger) func(shadow.Comparison, error) {
	return func(c shadow.Comparison, err error) {
		counters.ObserveShadow(c.Same, err)
		switch {
		case err != nil:
			log.Error("a decision could not be made again by stock Casbin", "error", err)
		case !c.Same:
			log.Error("stock Casbin decides differently: please report this with model and policy",
				"subject", c.Query.Principal.Subject, "groups", c.Query.Principal.Groups, "object", c.Query.Object, "action", c.Query.Action,
				"download", c.Query.Domain, "ours", c.Ours.String(), "stock", c.Stocks.String())
		}
	}
}

// warn tells, at the start, what is loaded and what is dangerous.
func warn(p *cli.Parts, log *slog.Logger) {
	logPolicy(log, p.Policy.Store)
	for _, s := range p.Sources {
		logSource(log, s)
	}
	warnOfExposures(p, log)
	if p.Config.ListenInsecure && p.Secret == nil {
		log.Warn("listen_insecure is set, and there is no proxy secret: whoever reaches the listener is believed what nginx is believed", "listen", p.Config.Listen)
	}
	if p.Config.AdminInsecure {
		log.Warn("admin_insecure is set: whoever reaches the admin listener sees metrics and the state of the policy", "admin", p.Config.Admin)
	}
}

// warnOfExposures tells of files that somebody may read or change who should not.
func warnOfExposures(p *cli.Parts, log *slog.Logger) {
	for _, e := range p.Exposures() {
		log.Warn(e.Message, "file", e.File)
	}
}

// logPolicy tells of the policy that is being served.
func logPolicy(log *slog.Logger, store *policy.Store) {
	status := store.Status()
	log.Info("policy loaded", append([]any{"generation", status.Generation}, policyAttrs(status)...)...)
	warnOfPolicy(log, store)
}

func policyAttrs(status policy.Status) []any {
	return []any{"lines", status.Lines, "took", status.Duration.Round(time.Millisecond), "indexed", status.Indexed}
}

// warnOfPolicy tells of what makes the policy slow, or mean less than it says.
func warnOfPolicy(log *slog.Logger, store *policy.Store) {
	status := store.Status()
	if !status.Indexed {
		log.Warn("the model allows no index: each decision looks at every line", "why", status.NotIndexed)
	}
	if status.LongestChain > status.RoleDepth {
		log.Warn("a chain of roles is longer than is followed: `securefiles check` tells whom it leaves out; shorten it, or set policy.role_depth",
			"roles", status.LongestChain, "followed", status.RoleDepth)
	}
	findings := slices.DeleteFunc(slices.Clone(store.Version().Findings), func(f policy.Finding) bool { return f.TakenBack })
	if len(findings) > 0 {
		log.Warn("the policy is served as it is written, and hardly as it is meant: `securefiles check` tells all that it finds", "findings", len(findings), "first", findings[0].String())
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
