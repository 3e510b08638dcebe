package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"net/http"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/KimMachineGun/automemlimit/memlimit"
	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/go-chi/chi/v5"
	"github.com/go-chi/chi/v5/middleware"
	"golang.org/x/sync/errgroup"

	"securefiles/authz"
	"securefiles/internal/config"
	"securefiles/internal/frontend"
	"securefiles/internal/metrics"
	"securefiles/internal/server"
	"securefiles/pathguard"
	"securefiles/policy"
	"securefiles/policy/shadow"
)

// Limits of both listeners. nginx can forward 8 KiB of URI, 8 KiB of
// Authorization and some 24 KiB of cookies; it closes idle connections after a
// minute, and must be the one to close them.
const (
	maxHeaderBytes   = 64 << 10
	readTimeout      = 5 * time.Second
	writeTimeout     = 10 * time.Second
	idleTimeout      = 2 * time.Minute
	adminIdleTimeout = 10 * time.Second // whoever forgets to close does not keep others out for long
	maxConcurrent    = 1024
)

// ballastBytes are allocated and never touched, so they take no memory. They
// keep the garbage collector, which runs when the heap has doubled, from running
// dozens of times a second beside a small policy: a fifth of the time of each
// answer.
const ballastBytes = 32 << 20

type serveCommand struct{}

// Help shows an example.
func (serveCommand) Help() string {
	return "Answers nginx on `listen`, serves metrics and health on `admin`, reloads on SIGHUP and on change of its files, ends on SIGTERM.\n\nExample:\n  securefiles serve --config /etc/securefiles/securefiles.yaml"
}

// Run wires the service together, top to bottom, and runs it until ctx ends.
func (serveCommand) Run(ctx context.Context, env environment, all *commands) error {
	c, err := all.load(env)
	if err != nil {
		return err
	}
	log := newLogger(env.stderr, c.Log)
	for _, w := range c.Warnings {
		log.Warn(w)
	}
	limitMemory(log, memlimit.FromCgroup)

	ballast := make([]byte, ballastBytes)
	defer runtime.KeepAlive(ballast)

	p, err := open(ctx, c, env.environ, log)
	if err != nil {
		return err
	}
	logPolicy(log, p.store)
	p.sources.Ask(ctx)
	for _, source := range p.sources {
		logSource(log, source)
	}
	p.logExposures(log)

	if c.ListenInsecure && p.secret == nil {
		log.Warn("listen_insecure is set, and there is no proxy secret: whoever reaches the listener is believed what nginx is believed", "listen", c.Listen)
	}
	if c.AdminInsecure {
		log.Warn("admin_insecure is set: whoever reaches the admin listener sees metrics and the state of the policy", "admin", c.Admin)
	}

	info := buildInfo()
	counters := metrics.New(info.Version, info.Commit, p.downloads.Names(), p.sources.Names(), func() metrics.Policy {
		s := p.store.Status()
		return metrics.Policy{Lines: s.Lines, Generation: s.Generation, LoadedAt: s.LoadedAt, Stale: s.Stale, Indexed: s.Indexed, LargestBucket: s.LargestBucket}
	})
	countSources(counters, p.sources)
	shadow, err := shadow.New(p.store, c.Policy.ShadowShare)
	if err != nil {
		return err
	}
	guard, err := authz.New(p.downloads, p.sources.Chain(), shadow, &authz.Options{Challenge: p.sources.Challenge(), Login: p.login})
	if err != nil {
		return err
	}
	opts := &frontend.Options{MaxConcurrent: maxConcurrent, Observe: counters.Observe, Logger: log}
	if p.secret != nil {
		opts.Secret = p.secret.Is
	}
	front, err := frontend.NewAuthRequest(guard, opts)
	if err != nil {
		return err
	}

	s := &service{parts: p, log: log, counters: counters}
	s.reloads = server.NewReloaders(s.reloaders(), &server.ReloadOptions{Logger: log})
	countReloads(counters, s.reloads)
	nginxListener, adminListener, err := openListeners(c)
	if err != nil {
		return err
	}
	nginxServer := newServer(decisionRoutes(front, counters), log)
	adminServer := newServer(s.adminRoutes(info), log)
	adminServer.IdleTimeout = adminIdleTimeout
	log.Info("serving", "listen", nginxListener.Addr().String(), "admin", adminListener.Addr().String(), "version", info.Version)

	group, running := errgroup.WithContext(ctx)
	group.Go(func() error { return serve(nginxServer, nginxListener) })
	group.Go(func() error { return serve(adminServer, adminListener) })
	group.Go(func() error { return s.reloads.Run(running) })
	group.Go(func() error { return s.reloadOnHangup(running) })
	group.Go(func() error { return shadow.Run(running, s.reportShadow) })
	group.Go(func() error {
		<-running.Done()
		return s.stop(c, nginxServer, adminServer)
	})
	notify(log, daemon.SdNotifyReady)
	return group.Wait()
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

func guardedDownloads(list []config.Download) (*authz.Downloads, error) {
	var downloads []*authz.Download
	for _, d := range list {
		kind := pathguard.Attachment
		if d.Disposition == "inline" {
			kind = pathguard.Inline
		}
		downloads = append(downloads, &authz.Download{
			Name: d.Name, URL: d.URL, Internal: d.Internal, Disposition: kind,
			DenyStatus: d.DenyStatus, CacheControl: d.CacheControl, CSP: d.CSP,
		})
	}
	return authz.NewDownloads(downloads...)
}

// decisionRoutes is what nginx reaches: one route, no shortcut.
func decisionRoutes(front *frontend.AuthRequest, counters *metrics.Metrics) http.Handler {
	r := chi.NewRouter()
	r.Use(counters.InFlight)
	r.Method(http.MethodGet, "/authorize", front)
	r.NotFound(front.NotFound)
	r.MethodNotAllowed(front.MethodNotAllowed)
	return r
}

// proxySecretWanted reports whether nginx must send the proxy secret.
func proxySecretWanted(c *config.Config, environ []string) bool {
	_, inEnvironment := lookup(environ, config.ProxySecretVariable)
	return c.ProxySecretFile != "" || inEnvironment
}

func lookup(environ []string, name string) (string, bool) {
	for _, kv := range environ {
		if value, ok := strings.CutPrefix(kv, name+"="); ok {
			return value, true
		}
	}
	return "", false
}

// newServer bounds what a client can hold: bytes, time, connections left idle.
func newServer(h http.Handler, log *slog.Logger) *http.Server {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	return &http.Server{
		Handler: h, Protocols: protocols,
		ReadHeaderTimeout: readTimeout, ReadTimeout: readTimeout, WriteTimeout: writeTimeout, IdleTimeout: idleTimeout,
		MaxHeaderBytes: maxHeaderBytes,
		ErrorLog:       slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}
}

func serve(server *http.Server, l net.Listener) error {
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve on %s: %w", l.Addr(), err)
	}
	return nil
}

// service is what lives from start to stop.
type service struct {
	*parts
	log      *slog.Logger
	counters *metrics.Metrics
	reloads  *server.Reloaders
	stopping atomic.Bool
}

// reloaders are what is loaded again while the service runs: all that decisions
// depend on, and the admin token.
func (s *service) reloaders() []server.Reloader {
	source, _ := policySource(s.config)
	rows := []server.Reloader{{
		Name: "policy", Files: source.Names(), Reload: s.counted(s.store.Reload), Confirm: s.counted(s.store.ReloadConfirmed),
		State: func() server.Loaded {
			status := s.store.Status()
			return server.Loaded{Generation: status.Generation, Err: status.Err, Attrs: policyAttrs(status)}
		},
		Taken: func() { warnOfPolicy(s.log, s.store) },
	}}
	for _, source := range s.sources {
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
	if files := s.secret.Files(); len(files) > 0 {
		rows = append(rows, server.Reloader{Name: "proxy secret", Files: files, Reload: s.secret.Reload})
	}
	if s.token != nil && len(s.token.Files()) > 0 {
		rows = append(rows, server.Reloader{
			Name: "admin token", Files: s.token.Files(), Reload: s.token.reload, Meanwhile: "none is accepted until it is mended",
		})
	}
	return rows
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

// reloadOnHangup reloads everything on SIGHUP.
func (s *service) reloadOnHangup(ctx context.Context) error {
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-hangup:
			notify(s.log, daemon.SdNotifyReloading+"\n"+daemon.SdNotifyMonotonicUsec())
			s.reloads.All(ctx)
			s.logExposures(s.log)
			notify(s.log, daemon.SdNotifyReady)
		}
	}
}

// logExposures warns of files that somebody may read or change who should not.
func (p *parts) logExposures(log *slog.Logger) {
	for _, e := range p.exposures() {
		log.Warn(e.message, "file", e.file)
	}
}

// reportShadow tells of a decision that stock Casbin made again.
func (s *service) reportShadow(c shadow.Comparison, err error) {
	s.counters.ObserveShadow(c.Same, err)
	switch {
	case err != nil:
		s.log.Error("a decision could not be made again by stock Casbin", "error", err)
	case !c.Same:
		s.log.Error("stock Casbin decides differently: please report this with model and policy",
			"subject", c.Query.Principal.Subject, "groups", c.Query.Principal.Groups, "object", c.Query.Object, "action", c.Query.Action,
			"download", c.Query.Domain, "ours", c.Ours.String(), "stock", c.Stocks.String())
	}
}

// counted counts the versions of the policy that are tried.
func (s *service) counted(reload func(context.Context) error) func(context.Context) error {
	return func(ctx context.Context) error {
		before := s.store.Status().Generation
		err := reload(ctx)
		if status := s.store.Status(); err != nil || status.Generation != before {
			s.counters.ObserveReload(err, status.Duration)
		}
		return err
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
}

// stop turns readiness off while requests are still served, lets those in
// progress end, and closes the admin listener last, so that the end can be
// watched.
func (s *service) stop(c *config.Config, nginxServer, adminServer *http.Server) error {
	s.stopping.Store(true)
	notify(s.log, daemon.SdNotifyStopping)
	s.log.Info("stopping")
	time.Sleep(time.Duration(c.ShutdownDelay))
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(c.ShutdownTimeout))
	defer cancel()
	err := nginxServer.Shutdown(ctx)
	return errors.Join(err, adminServer.Shutdown(ctx))
}

// notify tells systemd; elsewhere it does nothing.
func notify(log *slog.Logger, state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		log.Warn("systemd was not notified", "error", err)
	}
}

// adminRoutes is what Prometheus and orchestrators reach.
func (s *service) adminRoutes(info build) http.Handler {
	r := chi.NewRouter()
	r.Method(http.MethodGet, "/metrics", s.counters.Handler())
	r.Get("/healthz", func(w http.ResponseWriter, _ *http.Request) {
		respond(w, http.StatusOK, map[string]any{"status": "ok"})
	})
	r.Get("/version", func(w http.ResponseWriter, _ *http.Request) { respond(w, http.StatusOK, info) })
	r.Get("/readyz", s.ready)
	if s.token != nil {
		// One at a time: an explanation looks at every line.
		r.With(s.token.require, middleware.Throttle(1)).Post("/explain", s.explain)
		r.With(s.token.require, middleware.Throttle(4)).Post("/whoami", s.whoami)
	}
	return r
}

// readiness is what /readyz answers. What is refused is named but does not make
// the service unready: the last good version serves.
type readiness struct {
	Ready  bool   `json:"ready"`
	Reason string `json:"reason,omitempty"`
	Policy struct {
		Generation uint64 `json:"generation"`
		Lines      int    `json:"lines"`
		Stale      bool   `json:"stale"`
		Error      string `json:"error,omitempty"`
	} `json:"policy"`
	Loaded []loaded `json:"loaded"`
}

// loaded is something that decisions depend on, the policy among it.
type loaded struct {
	Name       string    `json:"name"`
	Generation uint64    `json:"generation"`
	At         time.Time `json:"at,omitzero"`
	Stale      bool      `json:"stale"`
	Error      string    `json:"error,omitempty"`
}

func (s *service) ready(w http.ResponseWriter, _ *http.Request) {
	status := s.store.Status()
	answer := readiness{Ready: true}
	answer.Policy.Generation, answer.Policy.Lines, answer.Policy.Stale = status.Generation, status.Lines, status.Stale
	if status.Err != nil {
		answer.Policy.Error = withoutMessages(status.Err)
	}
	for _, row := range s.reloads.State() {
		one := loaded{Name: row.Name, Generation: row.Generation, At: row.LoadedAt.UTC().Truncate(time.Second), Stale: row.Stale}
		if row.Err != nil {
			one.Error = withoutMessages(row.Err)
		}
		answer.Loaded = append(answer.Loaded, one)
	}
	code := http.StatusOK
	if s.stopping.Load() {
		answer.Ready, answer.Reason, code = false, "stopping", http.StatusServiceUnavailable
	}
	respond(w, code, answer)
}

// withoutMessages returns what is wrong with a policy without what its lines say:
// whoever asks without a token must not learn names and paths.
func withoutMessages(err error) string {
	var refused *policy.LoadError
	if !errors.As(err, &refused) {
		return err.Error()
	}
	places := &policy.LoadError{Findings: slices.Clone(refused.Findings)}
	for i := range places.Findings {
		places.Findings[i].Message = "the log says what"
	}
	return places.Error()
}

func respond(w http.ResponseWriter, code int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(v) // the client is gone: nothing is left to do
}

// limitMemory has the garbage collector heed the memory limit that provider
// finds, unless GOMEMLIMIT or AUTOMEMLIMIT say otherwise. That there is none, or
// none that can be read, is the rule outside containers: no matter for whoever
// reads the log. A value of AUTOMEMLIMIT that means nothing is one.
func limitMemory(log *slog.Logger, provider memlimit.Provider) {
	asked := false
	limit, err := memlimit.Set(memlimit.WithProvider(func() (uint64, error) { asked = true; return provider() }))
	switch {
	case err != nil && !asked:
		log.Warn("the memory limit is not set: AUTOMEMLIMIT must be off, or a fraction in (0.0, 1.0]", "error", err)
	case err != nil:
		log.Debug("no memory limit was found", "error", err)
	case limit != math.MaxInt64:
		log.Info("memory limit", "GOMEMLIMIT", limit)
	}
}
