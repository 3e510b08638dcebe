package identity

import (
	"sync"
	"time"
)

// A breaker leaves an application alone that does not answer. A caller can make an
// application slow, or have it answer 503, for the sessions that are his: so it takes
// failures of several credentials, none of which was answered meanwhile, and one of a
// question that carries no credentials at all.
type breaker struct {
	now      func() time.Time
	onChange func(open bool)
	ask      func() error // asks without credentials; nil where that is answered

	mu      sync.Mutex
	failed  map[digest]bool // since the last answer
	asking  bool            // the question without credentials is under way
	silent  bool            // it was not answered, since the last answer
	open    bool
	until   time.Time // while it is left alone
	trials  int       // calls under way that find out whether it is back
	answers uint64
}

// Of a breaker.
const (
	breakerFailures  = 6 // different credentials
	breakerSuspicion = 2 // of them, at which it is asked without any
	breakerPause     = time.Second
	breakerTrials    = 4 // calls at a time that find out whether it is back
)

// allow reports whether a call may be made, and whether it is one that finds out
// whether the application is back. After it, done must be called.
func (b *breaker) allow() (trial, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case !b.open:
		return false, true
	case b.now().Before(b.until) || b.trials >= breakerTrials:
		return false, false
	}
	b.trials++
	return true, true
}

// done says how a call ended: whether the application is away by it. Any answer says
// that it is there, for whoever asks.
func (b *breaker) done(key digest, trial, away bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if trial {
		b.trials--
	}
	if !away {
		b.answered()
		return
	}
	if len(b.failed) < breakerFailures {
		b.failed[key] = true
	}
	if len(b.failed) >= breakerSuspicion && !b.asking && !b.silent {
		b.asking = true
		go b.probe(b.answers)
	}
	b.trip()
}

// probe asks without credentials. It counts where nobody was answered meanwhile.
func (b *breaker) probe(answers uint64) {
	err := b.ask()
	b.mu.Lock()
	defer b.mu.Unlock()
	b.asking = false
	switch {
	case err == nil:
		b.answered()
	case answers == b.answers:
		b.silent = true
		b.trip()
	}
}

// answered forgets what failed.
func (b *breaker) answered() {
	b.answers++
	clear(b.failed)
	b.silent = false
	if b.open {
		b.open = false
		b.onChange(false)
	}
}

// trip leaves the application alone for a moment, if enough says that it is away.
func (b *breaker) trip() {
	if len(b.failed) < breakerFailures || !b.silent {
		return
	}
	b.until = b.now().Add(breakerPause)
	if !b.open {
		b.open = true
		b.onChange(true)
	}
}

// isPaused reports whether no call may be made now.
func (b *breaker) isPaused() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.open && b.now().Before(b.until)
}

// isOpen reports whether the application is left alone.
func (b *breaker) isOpen() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.open
}
