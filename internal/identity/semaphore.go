package identity

import (
	"context"
	"errors"
	"net/netip"
	"sync"
)

// ErrBusy says that credentials could not be checked, because too many checks
// are waiting already or one did not get its turn in time. It is no
// *authz.CredentialsError: the request ends with 503.
var ErrBusy = errors.New("too many checks of credentials at once")

// A semaphore lets a few checks run and a few more wait. The addresses that they are
// for have their turns one after the other, and where there is no room the address
// that waits with most gives way: nobody keeps others out by asking often. Requests
// without an address count as those of one. The zero semaphore is closed.
type semaphore struct {
	mu      sync.Mutex
	free    int // turns that nobody has
	room    int // for those that wait
	queues  map[netip.Addr][]*place
	next    []netip.Addr // whose queue is next; each has one
	waiting int
}

// A place is one check that waits. It is told nil for its turn, or an error.
type place struct{ told chan error }

func newSemaphore(running, waiting int) *semaphore {
	return &semaphore{free: running, room: waiting, queues: map[netip.Addr][]*place{}}
}

// resize changes how many may wait. Those that wait stay.
func (g *semaphore) resize(waiting int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.room = waiting
}

// enter waits for a turn until ctx ends, or returns ErrBusy. After it, leave
// must be called.
func (g *semaphore) enter(ctx context.Context, from netip.Addr) error {
	g.mu.Lock()
	if g.free > 0 {
		g.free--
		g.mu.Unlock()
		return nil
	}
	if g.waiting >= g.room && !g.displace(from) {
		g.mu.Unlock()
		return ErrBusy
	}
	p := &place{make(chan error, 1)}
	if len(g.queues[from]) == 0 {
		g.next = append(g.next, from)
	}
	g.queues[from] = append(g.queues[from], p)
	g.waiting++
	g.mu.Unlock()
	select {
	case err := <-p.told:
		return err
	case <-ctx.Done():
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.remove(from, p) {
		return ErrBusy
	}
	if err := <-p.told; err == nil { // its turn came just now
		g.pass()
	}
	return ErrBusy
}

// displace turns away the last of the address that waits with most, if that leaves
// it with no fewer than the newcomer's then has.
func (g *semaphore) displace(from netip.Addr) bool {
	var most netip.Addr
	for address, queue := range g.queues {
		if len(queue) > len(g.queues[most]) {
			most = address
		}
	}
	queue := g.queues[most]
	if len(queue) <= len(g.queues[from])+1 {
		return false
	}
	last := queue[len(queue)-1]
	g.remove(most, last)
	last.told <- ErrBusy
	return true
}

// remove takes a place out of its queue, if it is there yet.
func (g *semaphore) remove(from netip.Addr, p *place) bool {
	queue := g.queues[from]
	for i := range queue {
		if queue[i] != p {
			continue
		}
		g.waiting--
		if g.queues[from] = append(queue[:i:i], queue[i+1:]...); len(g.queues[from]) > 0 {
			return true
		}
		delete(g.queues, from)
		for k, address := range g.next {
			if address == from {
				g.next = append(g.next[:k], g.next[k+1:]...)
				break
			}
		}
		return true
	}
	return false
}

func (g *semaphore) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.pass()
}

// pass gives a turn to the first of the next address, whose queue then is the last.
func (g *semaphore) pass() {
	if g.waiting == 0 {
		g.free++
		return
	}
	from := g.next[0]
	first := g.queues[from][0]
	if g.remove(from, first); len(g.queues[from]) > 0 {
		g.next = append(g.next[1:], from)
	}
	first.told <- nil
}

// caller is the address that a request counts for: of IPv6 the network, since whoever
// has one address there has all of it. The zero Addr is that of a request whose
// address is not known.
func caller(ip netip.Addr) netip.Addr {
	ip = ip.Unmap().WithZone("")
	if ip.Is6() {
		if network, err := ip.Prefix(64); err == nil {
			return network.Addr()
		}
	}
	return ip
}

// waiters bound the requests that wait for a source, also where many wait for
// one check: together the sources must leave the service requests to answer. One
// address has at most three quarters of the places.
type waiters struct {
	mu   sync.Mutex
	most int
	held int
	by   map[netip.Addr]int
}

func newWaiters(most int) *waiters { return &waiters{most: most, by: map[netip.Addr]int{}} }

// resize changes how many may wait.
func (c *waiters) resize(most int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.most = most
}

// enter returns ErrBusy, or the function to call in the end.
func (c *waiters) enter(from netip.Addr) (leave func(), err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.held >= c.most || from.IsValid() && c.by[from] >= max(1, c.most*3/4) {
		return nil, ErrBusy
	}
	c.held++
	c.by[from]++
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.held--
		if c.by[from]--; c.by[from] == 0 {
			delete(c.by, from)
		}
	}, nil
}
