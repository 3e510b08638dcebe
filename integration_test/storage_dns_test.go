package integration_test

import (
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
)

// A nameServer knows one name, and where it is at the moment.
type nameServer struct {
	conn net.PacketConn
	name dnsmessage.Name
	mu   sync.Mutex
	at   [4]byte // zero: there is no such name
	mute bool    // it does not answer
}

func newNameServer(t *testing.T, name string) *nameServer {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	n := &nameServer{conn: conn, name: dnsmessage.MustNewName(name + ".")}
	served := make(chan struct{})
	go func() {
		defer close(served)
		n.serve()
	}()
	t.Cleanup(func() {
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
		<-served
	})
	return n
}

func (n *nameServer) address() string { return n.conn.LocalAddr().String() }

// move has the name be at an address from now on; none takes it away.
func (n *nameServer) move(at [4]byte, mute bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.at, n.mute = at, mute
}

func (n *nameServer) serve() {
	buffer := make([]byte, 1500)
	for {
		size, from, err := n.conn.ReadFrom(buffer)
		if err != nil {
			return // it is closed
		}
		var asked dnsmessage.Message
		if asked.Unpack(buffer[:size]) != nil || len(asked.Questions) != 1 {
			continue
		}
		n.mu.Lock()
		at, mute := n.at, n.mute
		n.mu.Unlock()
		if mute {
			continue
		}
		question := asked.Questions[0]
		answer := dnsmessage.Message{Header: dnsmessage.Header{ID: asked.ID, Response: true, RecursionDesired: asked.RecursionDesired, RecursionAvailable: true}, Questions: asked.Questions}
		switch {
		case at == [4]byte{} || !strings.EqualFold(question.Name.String(), n.name.String()):
			answer.RCode = dnsmessage.RCodeNameError
		case question.Type == dnsmessage.TypeA:
			answer.Answers = []dnsmessage.Resource{{Header: dnsmessage.ResourceHeader{Name: question.Name, Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET, TTL: 1}, Body: &dnsmessage.AResource{A: at}}}
		}
		if text, err := answer.Pack(); err == nil {
			_, _ = n.conn.WriteTo(text, from) // as UDP is
		}
	}
}

// Where the name of a store is at another address, that is asked, if the certificate is
// the store's; and whoever is there else, nothing of theirs reaches anybody.
func TestAStoreWhoseAddressChangesIsFollowed(t *testing.T) {
	t.Parallel()
	const name = "store.example.test"
	here, there, nowhere := [4]byte{127, 0, 0, 1}, [4]byte{127, 0, 0, 2}, [4]byte{127, 0, 0, 3}
	b, names := newBucket(t), newNameServer(t, name)
	own := certificateFor(t, name)
	b.server.TLS = &tls.Config{Certificates: []tls.Certificate{own}}
	b.server.StartTLS()
	_, port, err := net.SplitHostPort(b.server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	// Somebody else at another address, with a certificate that is for another name, or
	// by another authority.
	listener, err := net.Listen("tcp", net.JoinHostPort("127.0.0.2", port))
	if err != nil {
		t.Skipf("the port that is free at one address is not at another: %v", err)
	}
	var asked atomic.Int64
	var certificate atomic.Pointer[tls.Certificate]
	other := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if certificate.Load() == &own { // the store has moved
			b.server.Config.Handler.ServeHTTP(w, r)
			return
		}
		asked.Add(1)
		fmt.Fprint(w, "CANARY of another store")
	}))
	other.Listener.Close() //nolint:errcheck // that of a port that is not wanted
	other.Listener = listener
	other.TLS = &tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return certificate.Load(), nil }, SessionTicketsDisabled: true}
	other.Config.ErrorLog = nil
	other.StartTLS()
	t.Cleanup(other.Close)

	names.move(here, false)
	s := startStored(t, b, "      ca_file: "+certificateFile(t, own)+"\n      resolver: ['"+names.address()+"']\n", func(p *plan) {
		p.extra = strings.Replace(p.extra, b.server.URL, "https://"+name+":"+port, 1)
		p.edit = func(_ *site, conf string) string { // each worker has addresses of its own
			return strings.NewReplacer("valid=30s", "valid=1s", "resolver_timeout 5s", "resolver_timeout 1s", "worker_processes auto", "worker_processes 1").Replace(conf)
		}
	})
	const path = "/downloads/project/plan.txt"
	becomes := func(what string, status int) {
		t.Helper()
		s.eventually(what, func() bool {
			r := s.get("alice", path)
			if r.status == 200 && r.body != "0123456789\n" || strings.Contains(r.body, "CANARY") {
				t.Fatalf("%s: %d, another file: %q", what, r.status, r.body)
			}
			if r.status == 503 && (r.header.Get("Retry-After") != "5" || r.header.Get("Cache-Control") != "no-store") {
				t.Errorf("%s: %v", what, r.header)
			}
			if r.status != 200 && r.status != 503 {
				t.Errorf("%s: %d", what, r.status)
			}
			return r.status == status
		})
	}
	becomes("the store is asked", 200)
	foreign, forged := certificateFor(t, "other.example.test"), certificateFor(t, name)
	for _, row := range []struct {
		what string
		is   *tls.Certificate
	}{{"another name's certificate", &foreign}, {"the name's, by an unknown authority", &forged}} {
		certificate.Store(row.is)
		names.move(there, false)
		becomes(row.what, 503)
		names.move(here, false)
		becomes("the store is where it was", 200)
	}
	if n := asked.Load(); n > 0 {
		t.Errorf("somebody else was asked %d times", n)
	}
	names.move(nowhere, false)
	becomes("nobody listens there", 503)
	certificate.Store(&own)
	names.move(there, false)
	becomes("the store has moved", 200)
	names.move([4]byte{}, false)
	becomes("the name is gone", 503)
	names.move(here, false)
	becomes("the name is back", 200)
	names.move(here, true)
	becomes("nobody answers for the name", 503)
	names.move(here, false)
	becomes("somebody answers again", 200)
}
