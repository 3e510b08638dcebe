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
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
	_ "time/tzdata" // a machine may have none

	"github.com/go-chi/chi/v5"

	"securefiles/authz"
	"securefiles/internal/access"
	"securefiles/internal/admin"
	"securefiles/internal/audit"
	"securefiles/internal/authority"
	"securefiles/internal/cli"
	"securefiles/internal/config"
	"securefiles/internal/frontend"
	"securefiles/internal/identity"
	"securefiles/internal/limit"
	"securefiles/internal/link"
	"securefiles/internal/listing"
	"securefiles/internal/metrics"
	"securefiles/internal/names"
	"securefiles/internal/nginx"
	"securefiles/internal/page"
	"securefiles/internal/secret"
	"securefiles/internal/server"
	"securefiles/internal/state"
	"securefiles/internal/storage"
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
	if p.Stores, err = stores(c, lookup); err != nil {
		problems = append(problems, err)
	}
	if p.Downloads, p.Names, err = downloads(c.Downloads, p.Stores); err != nil {
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
			p.Links, err = link.New(p.Keys, &link.Options{MaxTTL: time.Duration(c.Links.MaxTTL), Unreported: unreported(c.Downloads)})
		}
		if err == nil {
			p.Template, err = link.NewTemplate(c.Links.Template)
		}
		if err != nil {
			problems = append(problems, c.At("links", err.Error()))
		}
	}
	if p.Listing, err = listing.NewTemplate(c.Listing.Template); err != nil {
		problems = append(problems, c.At("listing", err.Error()))
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
	if p.Sinks, err = sinks(c); err != nil {
		problems = append(problems, err)
	}
	return p, errors.Join(problems...)
}

// sinks makes what the records of the audit file are sent to.
func sinks(c *config.Config) (made []cli.AuditSink, err error) {
	if s := c.Audit.Syslog; s != nil {
		syslog, err := audit.NewSyslog(s.URL, &audit.SyslogOptions{CAFile: s.CAFile})
		if err != nil {
			return nil, c.At("audit.syslog.url", err.Error())
		}
		made = append(made, cli.AuditSink{Name: "syslog", Sink: syslog})
	}
	if s := c.Audit.Postgres; s != nil {
		file, err := filepath.Abs(c.Audit.File)
		if err != nil {
			return nil, c.At("audit.file", err.Error())
		}
		made = append(made, cli.AuditSink{Name: "postgres", Sink: audit.NewPostgres(s.URLFile, file, nil)})
	}
	return made, nil
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

// stores makes the stores of downloads that have one, in their order.
func stores(c *config.Config, lookup func(string) (string, bool)) ([]*storage.Store, error) {
	made := make([]*storage.Store, len(c.Downloads))
	var problems []error
	for i, d := range c.Downloads {
		if d.Storage == nil {
			continue
		}
		opts := &storage.Options{Redirect: d.Deliver == "redirect", InsecureHTTP: d.Storage.InsecureHTTP, CAFile: d.Storage.CAFile, Lookup: lookup}
		kind := "s3"
		var err error
		switch a, g := d.Storage.Azure, d.Storage.GCS; {
		case a != nil:
			kind, opts.CredentialsFile = "azure", a.CredentialsFile
			made[i], err = storage.NewAzure(storage.Azure{Account: a.Account, Container: a.Container, Endpoint: a.Endpoint, Prefix: a.Prefix}, opts)
		case g != nil:
			kind, opts.CredentialsFile = "gcs", g.CredentialsFile
			made[i], err = storage.NewGCS(storage.GCS{Bucket: g.Bucket, Endpoint: g.Endpoint, Prefix: g.Prefix}, opts)
		default:
			s := d.Storage.S3
			opts.CredentialsFile = s.CredentialsFile
			made[i], err = storage.NewS3(storage.S3{Bucket: s.Bucket, Region: s.Region, Endpoint: s.Endpoint, Prefix: s.Prefix, Addressing: s.Addressing}, opts)
		}
		var option *storage.OptionError
		if errors.As(err, &option) {
			err = c.At(fmt.Sprintf("downloads[%d].storage.%s.%s", i, kind, option.Option), option.Problem)
		}
		if err != nil {
			problems = append(problems, err)
		}
	}
	return made, errors.Join(problems...)
}

// downloads makes the downloads, and the tables of names that they have.
func downloads(list []config.Download, stores []*storage.Store) (*authz.Downloads, []*names.Table, error) {
	var made []*authz.Download
	var tables []*names.Table
	for i, d := range list {
		kind := pathguard.Attachment
		if d.Disposition == "inline" {
			kind = pathguard.Inline
		}
		one := &authz.Download{
			Name: d.Name, URL: d.URL, Internal: d.Internal, Disposition: kind,
			DenyStatus: d.DenyStatus, CacheControl: d.CacheControl, CSP: d.CSP, ReferrerPolicy: d.ReferrerPolicy, SameOrigin: d.Embed == "same-origin",
			Listing: d.Listing, Archives: d.Zip != nil,
		}
		if d.Names != "" {
			table := names.New(d.Name, d.Names)
			one.Names, tables = table, append(tables, table)
		}
		if stores[i] != nil { // and no interface that holds a nil
			one.Store = stores[i]
		}
		made = append(made, one)
	}
	all, err := authz.NewDownloads(made...)
	return all, tables, err
}

// directories are where the files of downloads are that show them, by the downloads' names.
func directories(p *cli.Parts, shared bool) (map[string]listing.Directory, error) {
	made := map[string]listing.Directory{}
	for i, d := range p.Config.Downloads {
		if !d.Listing {
			continue
		}
		where := listing.Directory{Root: d.Root, FollowSymlinks: d.FollowSymlinks}
		if d.Zip != nil {
			size, err := d.Zip.Size()
			if err != nil {
				return nil, err
			}
			where.Zip = listing.Bounds{Entries: d.Zip.Entries, Bytes: size}
		}
		if p.Stores[i] != nil { // and no interface that holds a nil
			where.Bucket = p.Stores[i]
		}
		if p.Direct == nil && d.Front == string(frontend.Caddy) {
			where.Without = "?"
		}
		if shared && (d.ByNGINX() || p.Direct != nil) { // others have no place for it
			where.Share = link.APIPath
		}
		made[d.Name] = where
	}
	return made, nil
}

// fronts are the web servers before downloads that do not ask by auth_request.
func fronts(list []config.Download) map[string]frontend.Front {
	made := map[string]frontend.Front{}
	for _, d := range list {
		if kind := frontend.Kind(d.Front); kind != frontend.NGINX {
			made[d.Name] = frontend.Front{Kind: kind, URL: d.URL, Root: filepath.Clean(d.Root), FollowSymlinks: d.FollowSymlinks, Embed: d.Embed}
		}
	}
	return made
}

// unreported are the downloads of which nobody tells what was sent.
func unreported(list []config.Download) (names []string) {
	for _, d := range list {
		if d.Unreported() != "" {
			names = append(names, d.Name)
		}
	}
	return names
}

// limits makes the limits.
func limits(list []config.Limit, downloads []string) (*limit.Limits, error) {
	made := make([]limit.Limit, len(list))
	for i, l := range list {
		made[i] = limit.Limit{
			Name: l.Name, Of: l.Of, Per: l.Per, Requests: l.Requests, Downloads: l.Downloads, Bytes: l.Bytes, Rate: l.Rate,
			IPv6: l.IPv6, Observe: l.Mode == "observe",
		}
	}
	return limit.New(made, downloads)
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
// ends. When the configuration has changed, the parts that it is made into then take
// their place as a whole.
func serve(ctx context.Context, p *cli.Parts, reopen cli.Reopen, log *slog.Logger) (err error) {
	server.LimitMemory(log)
	s := &service{reopen: reopen, version: cli.Version(), log: log}
	s.counters = metrics.New(s.version.Version, s.version.Commit, nil, nil, s.policy)
	rows, err := s.load(ctx, p, nil, false)
	if err != nil {
		return err
	}
	if s.store, err = s.openStore(ctx, p.Config); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.store.Close()) }()
	privacy, keys, err := openPrivacy(p)
	if err != nil {
		return err
	}
	if keys != nil {
		defer func() { err = errors.Join(err, keys.Close()) }()
	}
	if s.trail, err = s.openTrail(ctx, p.Config, privacy); err != nil {
		return err
	}
	beside := []func(context.Context) error{s.store.Run}
	if s.trail != nil {
		defer func() { err = errors.Join(err, s.trail.Close()) }()
		beside = append(beside, s.trail.Run)
		if age := time.Duration(p.Config.Audit.Privacy.Retention); age > 0 {
			beside = append(beside, audit.Retention{File: p.Config.Audit.File, Age: age, Logger: log}.Run)
		}
	}
	if log := p.Config.Nginx.DeliveryLog; p.Direct != nil && log != "" {
		deliveries, openErr := os.OpenFile(log, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o640)
		if openErr != nil {
			return p.Config.At("nginx.delivery_log", openErr.Error())
		}
		defer func() { err = errors.Join(err, deliveries.Close()) }()
		s.deliveries = deliveries
	}
	first, err := s.put(p, rows)
	if err != nil {
		return err
	}
	ship, err := shippers(p, s.counters, log)
	if err != nil {
		return err
	}
	beside = append(beside, ship...)
	s.begin(p, nil)
	s.generations = server.NewGenerations(first, s.configuration(p.Config.File), s.next, &server.ReloadOptions{Logger: log})
	countReloads(s.counters, s.generations.State, func() bool { return len(s.current.Load().Config.Restart) > 0 })
	opts := &server.Options{
		Listen: address(p.Config.Listen), Admin: address(p.Config.Admin), PeerUIDs: p.Config.ListenPeerUIDs,
		ListenInsecure: p.Config.ListenInsecure || p.Secret != nil, AdminInsecure: p.Config.AdminInsecure, Proved: p.Proof != nil,
		Delay: time.Duration(p.Config.ShutdownDelay), Timeout: time.Duration(p.Config.ShutdownTimeout),
		Reload: s.generations, HungUp: func() { warnOfExposures(s.current.Load(), log) }, Stopping: func() { s.stopping.Store(true) },
		Reopen: s.trail.Reopen, Beside: beside, Version: s.version.Version, Logger: log,
	}
	if d := p.Direct; d != nil {
		opts.Direct, opts.Listen, opts.PeerUIDs, opts.ListenInsecure = true, server.Address{Network: "tcp", Address: d.Listen}, nil, d.Public
	}
	return server.Run(ctx, s.generations.Nginx(), s.generations.Admin(), opts)
}

// A service is what there is once, while configurations come and go.
type service struct {
	reopen      cli.Reopen
	version     cli.Build
	log         *slog.Logger
	counters    *metrics.Metrics
	store       *states      // what limits and links count
	trail       *audit.Trail // nil where no record is kept
	deliveries  io.Writer    // nginx's delivery log where there is no nginx; else nil
	generations *server.Generations
	stopping    atomic.Bool

	current  atomic.Pointer[cli.Parts] // those that serve
	count    atomic.Uint64             // of all that have
	refused  atomic.Pointer[cli.Parts] // that could not take their place, as far as they could be made; else nil
	snippets []snippet                 // of nginx that belonged to them, the last one last
}

// A store counts what limits need, and may keep it.
type store interface {
	limit.Store
	limit.Looker
	admin.CountState
	// Forget says that nobody will tell what a request took, and Drop what keys count no
	// more that begin with a prefix.
	Forget(ctx context.Context, id string) error
	Drop(ctx context.Context, prefix string) error
	// Run writes what is kept, until the context ends.
	Run(context.Context) error
	Close() error
}

// A states is the store, and what else it is.
type states struct {
	store
	links keeper       // nil where it does not outlast the process
	file  *state.Disk  // nil where there is no file
	redis *state.Redis // nil where there is none
}

// A keeper keeps what links need.
type keeper interface {
	link.Store
	admin.LinkState
	// Short says that a request was not answered with all that it asked for.
	Short(ctx context.Context, request string) error
}

// openStore opens the state; without a file or a Redis it is forgotten when the process
// ends.
func (s *service) openStore(ctx context.Context, c *config.Config) (*states, error) {
	opts := &state.MemoryOptions{Wait: time.Duration(c.Audit.Wait), Logger: s.log}
	switch {
	case c.State.Redis != nil:
		there, err := redisOptions(c.State.Redis)
		if err != nil {
			return nil, c.At("state.redis", err.Error())
		}
		there.Local, there.Wait, there.Logger = c.State.Fail == "local", opts.Wait, s.log
		kept, err := state.OpenRedis(ctx, there)
		if err != nil {
			return nil, c.At("state.redis", err.Error())
		}
		countRedis(s.counters, kept)
		return &states{store: kept, links: kept, redis: kept}, nil
	case c.State.File != "":
		kept, err := state.OpenDisk(c.State.File, opts)
		if err != nil {
			return nil, c.At("state.file", err.Error())
		}
		return &states{store: kept, links: kept, file: kept}, nil
	}
	return &states{store: state.NewMemory(opts)}, nil
}

// redisOptions reads what it takes to connect to Redis.
func redisOptions(r *config.Redis) (*state.RedisOptions, error) {
	opts := &state.RedisOptions{Addresses: r.Address, Sentinel: r.SentinelMaster, Username: r.Username, Prefix: r.Prefix, Replicas: r.Replicas}
	if r.PasswordFile != "" {
		var err error
		if opts.Password, err = secret.Read("password", r.PasswordFile); err != nil {
			return nil, err
		}
	}
	if r.TLS {
		opts.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	if r.CAFile != "" {
		var err error
		if opts.TLS.RootCAs, err = authority.Load(r.CAFile); err != nil {
			return nil, err
		}
	}
	return opts, nil
}

// countRedis adds the series of Redis to the metrics.
func countRedis(m *metrics.Metrics, r *state.Redis) {
	m.Func(metrics.Counter, "securefiles_state_errors_total", "Questions that Redis did not answer: links got 503, and limits what state.fail says.", "", "", func() float64 { return float64(r.Errors()) })
	m.Func(metrics.Gauge, "securefiles_state_closed", "1 while links are not opened though Redis answers: it was emptied, is an older copy, or can lose what it acknowledges.", "", "", func() float64 {
		if r.Closed() != "" {
			return 1
		}
		return 0
	})
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
func (s *service) openTrail(ctx context.Context, c *config.Config, privacy *audit.Privacy) (*audit.Trail, error) {
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
		DeliveryLog: c.Nginx.DeliveryLog, Wait: time.Duration(c.Audit.Wait), Logger: s.log,
		Delivered: func(r *audit.Record) { s.delivered(ctx, r) },
		Stored: func(download string) bool {
			p := s.current.Load()
			return p != nil && slices.ContainsFunc(p.Config.Downloads, func(d config.Download) bool { return d.Name == download && d.Storage != nil })
		},
	})
	if err != nil {
		return nil, c.At("audit.file", err.Error())
	}
	countAudit(s.counters, trail.State)
	if c.Audit.File != config.AuditStdout {
		countDisk(s.counters, c.Audit.File)
	}
	if nginx := trail.Nginx(); nginx != nil {
		countFollower(s.counters, "nginx", nginx)
	}
	return trail, nil
}

// shippers are what sends the records of the audit file elsewhere.
func shippers(p *cli.Parts, counters *metrics.Metrics, log *slog.Logger) (run []func(context.Context) error, err error) {
	file := p.Config.Audit.File
	for _, sink := range p.Sinks {
		s, err := audit.NewShipper(sink.Name, file, file+"."+sink.Name+".state", sink, &audit.ShipperOptions{Log: log})
		if err != nil {
			return nil, p.Config.At("audit."+sink.Name, err.Error())
		}
		countShipper(counters, sink.Name, s)
		run = append(run, s.Run)
	}
	return run, nil
}

// delivered counts what came of an allowed request, and tells whoever waits for it.
func (s *service) delivered(ctx context.Context, r *audit.Record) {
	if r.Archive == audit.Part {
		return // it is in the archive, which counts once
	}
	ctx = context.WithoutCancel(ctx) // while the service stops, too: it is recorded, and so nobody tells it again
	id := r.Request
	if r.Archive == audit.Whole {
		id = authz.ArchiveID(id)
	}
	s.counters.ObserveDelivery(r.Download, r.Delivery, r.Bytes, time.Duration(r.Duration*float64(time.Second)))
	if r.Delivery == audit.Unknown && r.Status == 0 { // nobody told
		_ = s.store.Forget(ctx, id) // what was reserved counts; it is forgotten by itself, later
		return
	}
	err := s.store.Settle(ctx, id, r.Bytes)
	if s.store.links != nil && err == nil && r.Delivery != audit.Complete && r.Link != "" {
		err = s.store.links.Short(ctx, r.Request)
	}
	if err != nil {
		s.log.Warn("limits do not learn what was delivered: what was reserved counts", "request_id", r.Request, "error", err)
	}
}

// observe counts an outcome. Of a client that is sent to a store nobody tells what came of
// it: what it holds of limits is given back, but the request counts.
func (s *service) observe(out *authz.Outcome, took time.Duration) {
	s.counters.Observe(out, took)
	if out.Redirected() && out.Release != nil {
		if err := s.store.Settle(context.Background(), out.Question.ID, 0); err != nil {
			s.log.Warn("a client was sent to a store, and still has a place among the downloads at a time", "request_id", out.Question.ID, "error", err)
		}
	}
}

// A snippet is an nginx configuration that belonged to some parts.
type snippet struct {
	digest string
	config nginx.Config
	prove  func(question *http.Request, status int, reason, page, login, location, upstream string) string
}

// load loads parts that are to serve in the place of the running ones, or as the
// first. What is to be loaded again is watched from before it is read.
func (s *service) load(ctx context.Context, p, running *cli.Parts, confirmed bool) (rows []server.Reloader, err error) {
	watched := server.Watching(reloaders(p, s.counters, s.log))
	defer func() {
		if err != nil {
			server.Unwatch(watched)
		}
	}()
	if running == nil {
		if err := p.Load(ctx); err != nil {
			return nil, err
		}
	} else if err := p.LoadSources(ctx); err != nil {
		return nil, err
	} else if err := s.follow(ctx, &p.Policy, &running.Policy, confirmed); err != nil {
		return nil, err
	}
	if err := p.RefusedRoots(); err != nil {
		return nil, err
	}
	p.Sources.Ask(ctx)
	p.AskRoles(ctx)
	return watched, nil
}

// put puts parts together: a request's way is the front end, the guard, and whom it
// asks. Around it is what is loaded again, and what operators ask.
func (s *service) put(p *cli.Parts, rows []server.Reloader) (*server.Generation, error) {
	shadow, err := shadow.New(p.Policy.Store, p.Config.Policy.ShadowShare)
	if err != nil {
		return nil, err
	}
	deciding := &authz.Options{Challenge: p.Sources.Challenge(), Login: p.Login}
	if p.Limits != nil {
		deciding.Early, deciding.Limits = p.Limits.Early(s.store), p.Limits.Late(s.store)
	}
	var pages *link.Pages
	if p.Links != nil {
		links := p.Links
		if s.store.links != nil {
			links = links.With(s.store.links)
		}
		deciding.Links, deciding.Limits = links, authz.AllLimits(deciding.Limits, links)
		var err error
		if pages, err = link.NewPages(links, p.Downloads, &link.PageOptions{Template: p.Template, Size: sizes(p.Config.Downloads), Logger: s.log}); err != nil {
			return nil, err
		}
	}
	guard, err := authz.New(p.Downloads, p.Sources.Chain(), shadow, deciding)
	if err != nil {
		return nil, err
	}
	opts := &frontend.Options{Patience: p.Sources.Patience(), MaxConcurrent: maxConcurrent, Observe: s.observe, Logger: s.log}
	if pages != nil { // and no interface that holds a nil
		opts.Pages = pages
	}
	if s.store.links != nil && p.Config.Links.API {
		opts.API, err = link.NewAPI(link.APIParts{
			Links: p.Links, Downloads: p.Downloads, Callers: p.Sources.Chain(), Policy: p.Policy.Store, Keeper: s.store.links,
			Site: p.Config.Links.Site, Challenge: p.Sources.Challenge(), Pages: pages,
		})
		if err != nil {
			return nil, err
		}
	}
	roots, err := directories(p, opts.API != nil)
	if err != nil {
		return nil, err
	}
	if len(roots) > 0 {
		folders, err := listing.New(p.Policy.Store.Now, roots, &listing.Options{Template: p.Listing, Logger: s.log})
		if err != nil {
			return nil, err
		}
		opts.Listing = folders
		opts.Archive = func(ctx context.Context, out *authz.Outcome) (frontend.Archive, error) {
			made, err := folders.Archive(ctx, out)
			if err != nil { // and no interface that holds a nil
				return nil, err
			}
			return made, nil
		}
	}
	if p.Secret != nil && p.Direct == nil { // nobody else can ask
		opts.Secret = p.Secret.Is
	}
	if p.Proof != nil && p.Direct == nil {
		opts.Prove = nginx.Prover(p.Vouching(), p.Proxies(), p.Proof.Text)
	}
	if s.trail != nil {
		opts.Record, opts.RecordAll = s.trail.Record, s.trail.RecordAll
	}
	if p.Direct == nil {
		opts.Fronts = fronts(p.Config.Downloads)
	}
	printed := snippetOf(p)
	printed.prove, opts.Snippet, opts.Earlier = opts.Prove, printed.digest, s.earlier(printed)
	front, err := frontend.NewAuthRequest(guard, opts)
	if err != nil {
		return nil, err
	}
	asked := adminOptions(p, s.counters, func() []server.ReloadState { return s.generations.State() }, s.version)
	if p.Limits != nil {
		asked.Limits = func(ctx context.Context, q authz.Query) any {
			standing, err := p.Limits.Standing(ctx, p.Queried(q), s.store)
			if err != nil {
				s.log.Warn("what is left of the limits is not told", "error", err)
			}
			return standing
		}
	}
	asked.Snippet, asked.OtherSnippet, asked.Stopping = opts.Snippet, front.OtherSnippet, s.stopping.Load
	if s.store.links != nil {
		asked.Links = s.store.links
	}
	asked.Counts = s.store
	if s.store.file != nil {
		asked.Backup, asked.Compact = s.store.file.Backup, s.store.file.Compact
	}
	if s.store.redis != nil {
		asked.Accept = s.store.redis.Accept
	}
	s.snippets = append(s.snippets, printed)
	asks := routes(front, s.counters)
	if p.Direct != nil {
		if asks, err = s.direct(p, asks); err != nil {
			return nil, err
		}
	}
	return &server.Generation{
		Nginx: asks, Admin: admin.New(asked),
		Reload: server.NewReloaders(rows, &server.ReloadOptions{Logger: s.log}),
		Beside: func(ctx context.Context) error { return shadow.Run(ctx, reporter(s.counters, s.log)) },
	}, nil
}

// sizes tells how long files are, where their downloads are on this machine and the
// service may look.
func sizes(list []config.Download) func(download, path string) (int64, bool) {
	roots := map[string]string{}
	for _, d := range list {
		roots[d.Name] = d.Root
	}
	return func(download, path string) (int64, bool) {
		root, err := os.OpenRoot(roots[download])
		if err != nil {
			return 0, false
		}
		defer root.Close() // nothing was written
		info, err := root.Lstat(strings.TrimPrefix(path, "/"))
		if err != nil || !info.Mode().IsRegular() {
			return 0, false
		}
		return info.Size(), true
	}
}

// identityNames are the names that attempts to find out who asks are counted under.
func identityNames(p *cli.Parts) []string {
	names := p.Sources.Names()
	if p.Links != nil {
		names = append(names, authz.SourceLink)
	}
	return names
}

// begin is called when parts are about to serve, with the sources that nobody asks any
// more then.
func (s *service) begin(p *cli.Parts, gone identity.Sources) {
	p.Begin()
	p.Sources.Share(maxConcurrent)
	gone.End()
	s.counters.Expect(p.Downloads.Names(), identityNames(p))
	ended := seriesOf(gone, nil)
	if running := s.current.Load(); running != nil {
		ended = seriesOf(gone, running.Limits)
		s.forget(running.Limits, p.Limits)
	}
	s.counters.Replace(seriesOf(p.Sources, p.Limits), ended)
	s.current.Store(p)
	s.refused.Store(nil)
	s.count.Add(1)
	warn(p, s.log)
}

// forget forgets what limits have counted that are no more.
func (s *service) forget(were, are *limit.Limits) {
	if were == nil {
		return
	}
	for _, prefix := range were.Gone(are) {
		if err := s.store.Drop(context.Background(), prefix); err != nil {
			s.log.Warn("what a limit that is gone has counted would count again if the limit came back", "error", err)
		}
	}
}

// next makes the generation after the running one, if the configuration has changed.
func (s *service) next(ctx context.Context, confirmed bool) (*server.Generation, error) {
	running := s.current.Load()
	p, err := s.reopen(ctx, running)
	s.refused.Store(p)
	if err != nil || p == nil {
		return nil, err
	}
	gone := p.Sources.Follow(running.Sources)
	rows, err := s.load(ctx, p, running, confirmed)
	if err != nil {
		return nil, err
	}
	generation, err := s.put(p, rows)
	if err != nil {
		server.Unwatch(rows)
		return nil, err
	}
	s.begin(p, gone)
	s.tell(running)
	return generation, nil
}

// configuration is what is loaded again where next makes something of it. What it was
// refused for may be mended in another file.
func (s *service) configuration(file string) server.Reloader {
	row := server.Reloader{
		Name: "configuration", State: func() server.Loaded { return server.Loaded{Generation: s.count.Load()} },
		Also: func() []string {
			if p := s.refused.Load(); p != nil {
				return p.Decisive()
			}
			return nil
		},
	}
	if file != "" {
		row.Files = []string{file}
	}
	return row
}

// follow opens a policy in the place of the running one, and counts it.
func (s *service) follow(ctx context.Context, p, running *cli.Policy, confirmed bool) error {
	begin := time.Now()
	err := p.Follow(ctx, running, confirmed)
	if err != nil || p.Status().Generation != running.Status().Generation {
		s.counters.ObserveReload(err, time.Since(begin))
	}
	return err
}

// policy is what the metrics tell of the policy.
func (s *service) policy() metrics.Policy {
	now := s.current.Load().Policy.Status()
	return metrics.Policy{Lines: now.Lines, Generation: now.Generation, LoadedAt: now.LoadedAt, Stale: now.Stale, Indexed: now.Indexed, UnindexedMax: now.LargestBucket}
}

// maxEarlier is how many snippets are told apart that nginx may not have got past.
const maxEarlier = 16

// earlier are the snippets that belonged to parts before those of this one.
func (s *service) earlier(own snippet) map[string]frontend.Earlier {
	s.snippets = slices.DeleteFunc(s.snippets, func(old snippet) bool { return old.digest == "" || old.digest == own.digest })
	s.snippets = s.snippets[max(0, len(s.snippets)-maxEarlier):]
	all := map[string]frontend.Earlier{}
	for _, old := range s.snippets {
		all[old.digest] = frontend.Earlier{Prove: old.prove, Unfit: func(d *authz.Download) error { return own.config.Unfit(old.config, d.Name) }}
	}
	return all
}

// tell tells what is left to do after a change of the configuration.
func (s *service) tell(before *cli.Parts) {
	now := s.current.Load()
	for _, r := range now.Config.Restart {
		s.log.Warn("the service goes on with what it was started with: restart it", "key", r.Key, "at", r.Place, "remedy", "systemctl restart securefiles")
	}
	if was, is := snippetOf(before).digest, snippetOf(now).digest; was != is && is != "" {
		s.log.Warn("nginx has the snippet of the configuration before: print both halves again with `securefiles nginx`, and reload nginx", "snippet", was, "own", is,
			"remedy", "securefiles nginx --http > /etc/nginx/conf.d/securefiles.conf && securefiles nginx > /etc/nginx/snippets/securefiles.conf && nginx -t && nginx -s reload")
	}
}

// snippetOf is the nginx configuration that belongs to the parts; without a digest where
// none can be printed, so that nginx asks by one that somebody wrote.
func snippetOf(p *cli.Parts) snippet {
	c, err := p.Snippet()
	if err != nil || p.Direct != nil {
		return snippet{config: c}
	}
	digest, err := nginx.Digest(c)
	if err != nil {
		return snippet{config: c}
	}
	return snippet{digest: digest, config: c}
}

// direct is the web server in nginx's place.
func (s *service) direct(p *cli.Parts, asks http.Handler) (http.Handler, error) {
	opts := &frontend.DirectOptions{AnyHost: p.Direct.Public, Logger: s.log}
	for _, h := range p.Vouching() {
		if strings.HasPrefix(h.Value, "$http_") { // credentials; what else nginx would say nobody says here
			opts.Headers = append(opts.Headers, h.Name)
		}
	}
	if s.deliveries != nil {
		opts.Delivered = s.deliveries
	}
	var made []frontend.DirectDownload
	for _, d := range p.Config.Downloads {
		made = append(made, frontend.DirectDownload{
			URL: d.URL, Internal: d.Internal, Root: d.Root, FollowSymlinks: d.FollowSymlinks, Embed: d.Embed, Origins: d.CORSOrigins,
		})
	}
	return frontend.NewDirect(asks, made, opts)
}

// warnOfDirect tells what serving without nginx is, and lacks.
func warnOfDirect(p *cli.Parts, log *slog.Logger) {
	log.Warn("the service sends the files itself, for development: nginx sends them with a fraction of the work, over TLS and HTTP/2, and keeps slow clients off; `securefiles nginx` prints its part",
		"url", "http://"+p.Direct.Listen+p.Downloads.All()[0].URL)
	if p.Direct.Public {
		log.Warn("insecure-public is said: other hosts reach the service, and passwords, cookies and files go over the network in clear text", "listen", p.Direct.Listen)
	}
	for i, id := range p.Config.Identity {
		if id.Header != "" || id.Certificate != nil {
			log.Warn("an identity source finds nobody in direct mode: a client could write what nginx would have verified", "source", fmt.Sprintf("identity[%d]", i))
		}
	}
	if p.Config.Audit.File != "" && p.Config.Nginx.DeliveryLog == "" {
		log.Warn("what was delivered is not recorded: set nginx.delivery_log, which is written in nginx's place")
	}
}

// routes is what web servers reach: one way to ask for each kind of them, no shortcut.
func routes(front *frontend.AuthRequest, counters *metrics.Metrics) http.Handler {
	r := chi.NewRouter()
	r.Use(counters.InFlight)
	r.Method(http.MethodGet, "/authorize", front)
	for _, pattern := range []string{"/download", "/download/*"} { // some web servers add what they were asked for
		r.Get(pattern, front.Download)
		r.Head(pattern, front.Download)
	}
	r.Get("/page", front.Page)
	r.Get("/archive", front.Archive)
	r.Post("/link", front.Form)
	r.Get("/hello", front.Hello)
	r.HandleFunc("/links", front.API)
	r.HandleFunc("/links/{id}", front.API)
	r.NotFound(front.NotFound)
	r.MethodNotAllowed(front.MethodNotAllowed)
	return shortcut{r, counters.InFlight(front)}
}

// A shortcut looks nginx's question up before the tree, which makes a copy of each request
// for its own: nearly all that comes is one.
type shortcut struct {
	chi.Router
	question http.Handler
}

// ServeHTTP is http.Handler's.
func (s shortcut) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodGet && r.URL.Path == "/authorize" && r.URL.RawPath == "" {
		s.question.ServeHTTP(w, r)
		return
	}
	s.Router.ServeHTTP(w, r)
}

func address(listen string) server.Address {
	network, address := config.Address(listen)
	return server.Address{Network: network, Address: address}
}

func adminOptions(p *cli.Parts, counters *metrics.Metrics, state func() []server.ReloadState, version cli.Build) admin.Options {
	opts := admin.Options{
		Metrics: counters.Handler(), Version: version, Policy: p.Policy.Store, Downloads: p.Downloads,
		Loaded: func() []admin.Loaded {
			var all []admin.Loaded
			for _, s := range state() {
				one := admin.Loaded{Name: s.Name, Generation: s.Generation, At: s.LoadedAt, Stale: s.Stale, Err: s.Err}
				if advice := access.Advice(s.Err); advice != "" {
					one.Err = fmt.Errorf("%w: %s", s.Err, advice)
				}
				all = append(all, one)
			}
			return all
		},
		Configuration: absolute(p.Config.File),
		Whoami: func(ctx context.Context, request []byte) (any, error) {
			q, err := identity.ParseRequest(request)
			if err != nil {
				return nil, err
			}
			q.Download = p.Downloads.All()[0]
			return p.Sources.Whoami(ctx, q, p.Policy.Store), nil
		},
	}
	for _, r := range p.Config.Restart {
		opts.Restart = append(opts.Restart, admin.Restart{Key: r.Key, Place: r.Place})
	}
	if p.Token != nil {
		opts.Token = p.Token.Is
	}
	return opts
}

// absolute is a file as everybody on this machine finds it.
func absolute(file string) string {
	if path, err := filepath.Abs(file); err == nil && file != "" {
		return path
	}
	return file
}

// reloaders are what is loaded again while the service runs: all that decisions
// depend on, and the admin token.
func reloaders(p *cli.Parts, counters *metrics.Metrics, log *slog.Logger) []server.Reloader {
	rows := []server.Reloader{{
		Name: "policy", Files: p.Policy.Files.Names(), Reload: counted(p, counters, (*policy.Store).Reload), Confirm: counted(p, counters, (*policy.Store).ReloadConfirmed),
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
	for _, table := range p.Names {
		rows = append(rows, server.Reloader{
			Name: "names of " + table.Download(), Files: table.Files(), Reload: table.Reload,
			State: func() server.Loaded { return server.Loaded{Generation: table.Generation()} },
		})
	}
	for _, t := range []struct {
		name string
		*page.Template
	}{{"link template", p.Template}, {"listing template", p.Listing}} {
		if len(t.Files()) > 0 {
			rows = append(rows, server.Reloader{
				Name: t.name, Files: t.Files(), Reload: t.Reload,
				State: func() server.Loaded { return server.Loaded{Generation: t.Generation()} },
			})
		}
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
	for i, s := range p.Stores {
		if s == nil || len(s.Files()) == 0 && !s.Renews() {
			continue
		}
		row := server.Reloader{
			Name: "credentials of " + p.Config.Downloads[i].Name, Files: s.Files(), Reload: s.Reload,
			State: func() server.Loaded {
				return server.Loaded{Generation: s.Generation(), Err: s.Err(), Attrs: []any{"from", s.Source()}}
			},
		}
		if s.Renews() {
			row.Run, row.Meanwhile = s.Run, "the last ones go on until they end"
		}
		rows = append(rows, row)
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

// seriesOf are the series of metrics that sources and limits have of their own.
func seriesOf(sources identity.Sources, limits *limit.Limits) []metrics.Series {
	var all []metrics.Series
	for _, s := range sources {
		for _, row := range s.Metrics {
			one := metrics.Series{Kind: metrics.Kind(row.Counter), Name: row.Name, Help: row.Help, Read: row.Read}
			if row.Label != "" {
				one.Labels = map[string]string{row.Label: row.Value}
			}
			all = append(all, one)
		}
	}
	if limits == nil {
		return all
	}
	for _, c := range limits.Counts() {
		all = append(all, metrics.Series{
			Kind: metrics.Counter, Name: "securefiles_limits_total", Help: "Requests that were asked about, by limit and what came of it (taken, refused, observed: it would have been refused).",
			Labels: map[string]string{"limit": c.Limit, "result": string(c.Result)}, Read: func() float64 { return float64(c.Read()) },
		})
	}
	return all
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

// countShipper adds the series of what sends records elsewhere.
func countShipper(m *metrics.Metrics, name string, s *audit.Shipper) {
	countFollower(m, name, s.Follower())
	m.Func(metrics.Counter, "securefiles_audit_passed_over_total", "", "follower", name, func() float64 { return float64(s.Refused()) })
	m.Func(metrics.Counter, "securefiles_audit_sent_total", "Records that have arrived, by sink (syslog, postgres).", "sink", name, func() float64 { return float64(s.Sent()) })
	m.Func(metrics.Counter, "securefiles_audit_send_failures_total", "Attempts to send records that failed, by sink; they are sent again.", "sink", name, func() float64 { return float64(s.Failures()) })
	m.Func(metrics.Gauge, "securefiles_audit_sink_behind_seconds", "Age of the oldest record that is being sent and has not arrived, by sink; 0 where there is none.", "sink", name,
		func() float64 { return s.Behind(time.Now()).Seconds() })
}

// countDisk adds the room that is left for the audit file.
func countDisk(m *metrics.Metrics, file string) {
	m.Func(metrics.Gauge, "securefiles_audit_disk_free_ratio", "Share of the file system that holds the audit file that is free, of 1.", "", "", func() float64 {
		free, err := audit.DiskFree(file)
		if err != nil {
			return math.NaN()
		}
		return free
	})
}

// countReloads adds to the metrics what is loaded again.
func countReloads(m *metrics.Metrics, state func() []server.ReloadState, restart func() bool) {
	truth := func(b bool) float64 {
		if b {
			return 1
		}
		return 0
	}
	m.Func(metrics.Gauge, "securefiles_restart_needed", "1 while the configuration was edited in a way that counts after a restart.", "", "", func() float64 { return truth(restart()) })
	m.Gauges("securefiles_reload_stale", "1 while what was loaded last is served though there is something newer, or nothing any more, by what it is.", "name",
		func(yield func(string, float64)) {
			for _, s := range state() {
				yield(s.Name, truth(s.Stale))
			}
		})
	m.Gauges("securefiles_reload_generation", "Versions loaded since the service began, by what they are of.", "name",
		func(yield func(string, float64)) {
			for _, s := range state() {
				yield(s.Name, float64(s.Generation))
			}
		})
}

// counted counts the versions of the policy that are tried.
func counted(p *cli.Parts, counters *metrics.Metrics, reload func(*policy.Store, context.Context) error) func(context.Context) error {
	return func(ctx context.Context) error {
		before := p.Policy.Status().Generation
		err := reload(p.Policy.Store, ctx)
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
	if p.Direct != nil {
		warnOfDirect(p, log)
	} else if p.Config.ListenInsecure && p.Secret == nil {
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
