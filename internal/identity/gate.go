package identity

import (
	"context"
	"errors"
)

// ErrBusy says that credentials could not be checked, because too many checks
// are waiting already or one did not get its turn in time. It is no
// *authz.CredentialsError: the request ends with 503.
var ErrBusy = errors.New("too many checks of credentials at once")

// A gate lets a few checks run and a few more wait. The zero gate is closed.
type gate struct {
	places  chan struct{} // holds one for each that runs or waits
	running chan struct{} // holds one for each that runs
}

func newGate(running, waiting int) gate {
	return gate{places: make(chan struct{}, running+waiting), running: make(chan struct{}, running)}
}

// enter waits for a turn until ctx ends, or returns ErrBusy. After it, leave
// must be called.
func (g gate) enter(ctx context.Context) error {
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

func (g gate) leave() {
	<-g.running
	<-g.places
}

// A crowd bounds the requests that wait for a source, also where many wait for
// one check: together the sources must leave the service requests to answer.
type crowd chan struct{}

// enter returns ErrBusy, or the function to call in the end.
func (c crowd) enter() (leave func(), err error) {
	select {
	case c <- struct{}{}:
		return func() { <-c }, nil
	default:
		return nil, ErrBusy
	}
}
