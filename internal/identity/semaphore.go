package identity

import (
	"context"
	"errors"
)

// ErrBusy says that credentials could not be checked, because too many checks
// are waiting already or one did not get its turn in time. It is no
// *authz.CredentialsError: the request ends with 503.
var ErrBusy = errors.New("too many checks of credentials at once")

// A semaphore lets a few checks run and a few more wait. The zero semaphore is closed.
type semaphore struct {
	places  chan struct{} // holds one for each that runs or waits
	running chan struct{} // holds one for each that runs
}

func newSemaphore(running, waiting int) semaphore {
	return semaphore{places: make(chan struct{}, running+waiting), running: make(chan struct{}, running)}
}

// enter waits for a turn until ctx ends, or returns ErrBusy. After it, leave
// must be called.
func (g semaphore) enter(ctx context.Context) error {
	select {
	case g.places <- struct{}{}:
	default:
		return ErrBusy
	}
	select {
	case g.running <- struct{}{}:
		return nil
	case <-ctx.Done():
		<-g.places
		return ErrBusy
	}
}

func (g semaphore) leave() {
	<-g.running
	<-g.places
}

// waiters bound the requests that wait for a source, also where many wait for
// one check: together the sources must leave the service requests to answer.
type waiters chan struct{}

// enter returns ErrBusy, or the function to call in the end.
func (c waiters) enter() (leave func(), err error) {
	select {
	case c <- struct{}{}:
		return func() { <-c }, nil
	default:
		return nil, ErrBusy
	}
}
