package server

import (
	"context"
	"net/http"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
)

// A Generation is what one version of the configuration was made into.
type Generation struct {
	// Nginx and Admin answer the listeners.
	Nginx, Admin http.Handler
	// Reload is what is loaded again while it serves.
	Reload *Reloaders
	// Beside runs as long as it does; it may be nil.
	Beside func(context.Context) error
}

// Generations are the versions of a configuration, one after the other. Each takes the
// place of the last as a whole: a request ends with the one that it began with. They
// are safe for concurrent use.
type Generations struct {
	current       atomic.Pointer[Generation]
	configuration *Reloaders // one row, or none
	next          func(ctx context.Context, confirmed bool) (*Generation, error)
}

// NewGenerations begins with the first one. Next, of the row of the configuration that
// it completes, makes the one after the current; nil is none, because nothing has
// changed. While it does, nothing of the current one is loaded again. Confirmed says that
// an operator means what is there. Without files there is one generation.
func NewGenerations(first *Generation, configuration Reloader, next func(ctx context.Context, confirmed bool) (*Generation, error), opts *ReloadOptions) *Generations {
	g := &Generations{next: next}
	g.current.Store(first)
	configuration.Reload = func(ctx context.Context) error { return g.replace(ctx, false) }
	configuration.Confirm = func(ctx context.Context) error { return g.replace(ctx, true) }
	var rows []Reloader
	if len(configuration.Files) > 0 {
		rows = append(rows, configuration)
	}
	g.configuration = NewReloaders(rows, opts)
	first.Reload.first = g.loadFirst
	return g
}

// loadFirst loads the configuration before anything that it names. What changes
// together with it, by a link that is swapped, is then part of the next generation, and
// is not taken beside the configuration before.
func (g *Generations) loadFirst(ctx context.Context) {
	for _, row := range g.configuration.rows {
		if !g.configuration.isWritten(ctx, row) && ctx.Err() == nil {
			g.configuration.load(ctx, row, row.Reload, false)
		}
	}
}

// Nginx returns the handler that asks the current generation.
func (g *Generations) Nginx() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { g.current.Load().Nginx.ServeHTTP(w, r) })
}

// Admin is Nginx for the admin listener.
func (g *Generations) Admin() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { g.current.Load().Admin.ServeHTTP(w, r) })
}

func (g *Generations) replace(ctx context.Context, confirmed bool) error {
	current := g.current.Load()
	defer current.Reload.hold()()
	next, err := g.next(ctx, confirmed)
	if err != nil || next == nil {
		return err
	}
	next.Reload.follow(current.Reload)
	next.Reload.first = g.loadFirst
	g.current.Store(next)
	current.Reload.end()
	return nil
}

// State returns the configuration, and what the current generation has loaded.
func (g *Generations) State() []ReloadState {
	return append(g.configuration.State(), g.current.Load().Reload.State()...)
}

// Run loads again what has changed, the configuration too, until ctx ends.
func (g *Generations) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return g.configuration.Run(ctx) })
	group.Go(func() error {
		for ctx.Err() == nil {
			if err := g.current.Load().run(ctx); err != nil {
				return err
			}
		}
		return nil
	})
	return group.Wait()
}

// run runs what goes on beside a generation, until another one has taken its place.
func (g *Generation) run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return g.Reload.Run(ctx) })
	if g.Beside != nil {
		group.Go(func() error { return g.Beside(ctx) })
	}
	select {
	case <-ctx.Done():
	case <-g.Reload.ended:
		cancel()
	}
	return group.Wait()
}

// All loads everything again, as Reloaders.All does: the configuration first.
func (g *Generations) All(ctx context.Context) {
	g.configuration.All(ctx)
	g.current.Load().Reload.All(ctx)
}
