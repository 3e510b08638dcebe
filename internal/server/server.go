package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"net/http"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/KimMachineGun/automemlimit/memlimit"
	"github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sync/errgroup"
)

// MaxHeaderBytes bounds the headers of a request. nginx can forward 8 KiB of URI,
// 8 KiB of Authorization and some 24 KiB of cookies.
const MaxHeaderBytes = 64 << 10

// Limits of both listeners. nginx closes idle connections after a minute, and must
// be the one to close them.
const (
	readTimeout      = 5 * time.Second
	writeTimeout     = 10 * time.Second
	idleTimeout      = 2 * time.Minute
	adminIdleTimeout = 10 * time.Second // whoever forgets to close does not keep others out for long
)

// ballastBytes are allocated and never touched, so they take no memory. They
// keep the garbage collector, which runs when the heap has doubled, from running
// dozens of times a second beside a small policy: a fifth of the time of each
// answer. GOGC would do the same to a large policy, whose memory it would multiply.
const ballastBytes = 32 << 20

// ballastWithin is how large it is beside a memory limit, which counts it: an eighth at most.
func ballastWithin(limit int64) int64 { return min(ballastBytes, limit/8) }

// Options say where a server listens, and what goes on beside it.
type Options struct {
	// Listen is for nginx, Admin for monitoring and operators. Sockets that
	// systemd passes take their place.
	Listen, Admin Address
	// ListenInsecure and AdminInsecure permit systemd to pass sockets that other
	// hosts reach; the addresses here are permitted.
	ListenInsecure, AdminInsecure bool
	// Proved says that nginx believes no answer that the service did not prove.
	Proved bool
	// Direct says that clients connect to Listen, and nobody is trusted who does.
	Direct bool
	// PeerUIDs are the users whose processes may connect to Listen, a unix
	// socket; nil means all.
	PeerUIDs []int
	// Delay is how long requests go on being answered once readiness is off,
	// Timeout how long those in progress may take to end.
	Delay, Timeout time.Duration
	// Reload is what SIGHUP and changes of files load again: Reloaders, or Generations.
	Reload interface {
		Run(context.Context) error
		All(context.Context)
	}
	// HungUp is called after each SIGHUP, Stopping when the end begins. Both may
	// be nil.
	HungUp, Stopping func()
	// Reopen opens files anew that are written to and were rotated: on SIGUSR1, which
	// reads nothing again, and on SIGHUP. It may be nil.
	Reopen func()
	// Beside runs as long as the server does.
	Beside []func(context.Context) error
	// Version is told in the log.
	Version string
	Logger  *slog.Logger
}

// Run listens, answers nginx and the admin listener, and reloads, until the context
// ends. Then it turns readiness off, lets requests in progress end and closes the
// admin listener last, so that the end can be watched. It tells systemd of all
// that.
func Run(ctx context.Context, nginx, admin http.Handler, opts *Options) error {
	ballast := make([]byte, ballastWithin(debug.SetMemoryLimit(-1)))
	defer runtime.KeepAlive(ballast)

	nginxListener, adminListener, err := openListeners(opts)
	if err != nil {
		return err
	}
	s := &server{Options: opts, nginx: newServer(nginx, opts.Logger), admin: newServer(admin, opts.Logger)}
	s.admin.IdleTimeout = adminIdleTimeout
	if !opts.Direct {
		if !opts.Proved || isReached(nginxListener.Addr()) {
			warnOfListener(nginxListener, opts.Logger)
		}
		warnOfAskers(nginxListener, opts.Logger)
	}
	s.Logger.Info("serving", "listen", nginxListener.Addr().String(), "admin", adminListener.Addr().String(), "version", opts.Version)

	group, running := errgroup.WithContext(ctx)
	group.Go(func() error { return serve(s.nginx, nginxListener) })
	group.Go(func() error { return serve(s.admin, adminListener) })
	group.Go(func() error { return s.Reload.Run(running) })
	group.Go(func() error { return s.reloadOnHangup(running) })
	for _, run := range opts.Beside {
		group.Go(func() error { return run(running) })
	}
	group.Go(func() error {
		<-running.Done()
		return s.stop()
	})
	notify(s.Logger, daemon.SdNotifyReady)
	return group.Wait()
}

type server struct {
	*Options
	nginx, admin *http.Server
}

// newServer bounds what a client can hold: bytes, time, connections left idle.
func newServer(h http.Handler, log *slog.Logger) *http.Server {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	return &http.Server{
		Handler: h, Protocols: protocols,
		ReadHeaderTimeout: readTimeout, ReadTimeout: readTimeout, WriteTimeout: writeTimeout, IdleTimeout: idleTimeout,
		MaxHeaderBytes: MaxHeaderBytes,
		// net/http would answer OPTIONS * with 200, whatever the handler asks for.
		DisableGeneralOptionsHandler: true,
		ErrorLog:                     slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}
}

func serve(server *http.Server, l net.Listener) error {
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve on %s: %w", l.Addr(), err)
	}
	return nil
}

// reloadOnHangup loads everything again on SIGHUP, and opens anew what is written to
// on SIGUSR1.
func (s *server) reloadOnHangup(ctx context.Context) error {
	hangup, rotated := make(chan os.Signal, 1), make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)
	signal.Notify(rotated, syscall.SIGUSR1) // asked for or not: unheard, it would end the service
	defer signal.Stop(rotated)
	reopen := func() {
		if s.Reopen != nil {
			s.Reopen()
		}
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-rotated:
			reopen()
		case <-hangup:
			reopen()
			notify(s.Logger, daemon.SdNotifyReloading+"\n"+daemon.SdNotifyMonotonicUsec())
			s.Reload.All(ctx)
			if s.HungUp != nil {
				s.HungUp()
			}
			notify(s.Logger, daemon.SdNotifyReady)
		}
	}
}

func (s *server) stop() error {
	if s.Stopping != nil {
		s.Stopping()
	}
	notify(s.Logger, daemon.SdNotifyStopping)
	s.Logger.Info("stopping")
	time.Sleep(s.Delay)
	ctx, cancel := context.WithTimeout(context.Background(), s.Timeout)
	defer cancel()
	err := s.nginx.Shutdown(ctx)
	return errors.Join(err, s.admin.Shutdown(ctx))
}

// notify tells systemd; elsewhere it does nothing.
func notify(log *slog.Logger, state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		log.Warn("systemd was not notified", "error", err)
	}
}

// LimitMemory has the garbage collector heed the memory limit of the control group,
// unless GOMEMLIMIT or AUTOMEMLIMIT say otherwise.
func LimitMemory(log *slog.Logger) { limitMemory(log, memlimit.FromCgroup) }

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
