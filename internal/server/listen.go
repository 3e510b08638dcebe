package server

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"slices"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
	"golang.org/x/net/netutil"
	"golang.org/x/sys/unix"
)

// An Address is where to listen, as net.Listen takes it: of the network tcp, or
// unix with a path.
type Address struct{ Network, Address string }

// socketMode lets the socket's group, nginx's, connect.
const socketMode = 0o660

// maxAdminConnections is far more than monitoring needs. nginx bounds the
// connections to its own listener; here, whoever comes would use up the file
// descriptors that decisions need.
const maxAdminConnections = 256

// openListeners opens the listener for nginx and the admin listener. Sockets
// that systemd passes take the place of the configured addresses: the one
// named `admin` (FileDescriptorName=) is the admin listener, any other nginx's.
func openListeners(opts *Options) (nginx, admin net.Listener, err error) {
	passed, err := activation.ListenersWithNames()
	if err != nil {
		return nil, nil, fmt.Errorf("take the sockets that systemd passes: %w", err)
	}
	for name, listeners := range passed {
		for _, l := range listeners {
			if name == "admin" {
				admin = l
			} else {
				nginx = l
			}
		}
	}
	if nginx == nil {
		if nginx, err = listen(opts.Listen); err != nil {
			return nil, nil, fmt.Errorf("listen for nginx: %w", err)
		}
	}
	if len(opts.PeerUIDs) > 0 {
		nginx = &peerListener{Listener: nginx, uids: opts.PeerUIDs}
	}
	if admin == nil {
		if admin, err = listen(opts.Admin); err != nil {
			return nil, nil, errors.Join(fmt.Errorf("listen for metrics and health: %w", err), nginx.Close())
		}
	}
	return nginx, netutil.LimitListener(admin, maxAdminConnections), nil
}

func listen(a Address) (net.Listener, error) {
	if a.Network != "unix" {
		return net.Listen(a.Network, a.Address)
	}
	if err := removeStale(a.Address); err != nil {
		return nil, err
	}
	// The socket must never exist with a wider mode, not even for a moment.
	old := syscall.Umask(0o777 &^ socketMode)
	defer syscall.Umask(old)
	return net.Listen(a.Network, a.Address)
}

// removeStale removes a socket that nobody listens on any more.
func removeStale(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode()&fs.ModeSocket == 0 {
		return fmt.Errorf("%s exists and is not a socket: name another path", path)
	}
	conn, err := net.DialTimeout("unix", path, time.Second)
	switch {
	case err == nil:
		return errors.Join(fmt.Errorf("%s: another process is listening there", path), conn.Close())
	case !errors.Is(err, syscall.ECONNREFUSED): // it may be too busy to answer, or not let us ask
		return fmt.Errorf("%s: another process may be listening there: %w", path, err)
	}
	return os.Remove(path)
}

// A peerListener closes connections of processes that run as anyone else than
// the given users.
type peerListener struct {
	net.Listener
	uids []int
}

// Accept returns the next connection of a permitted peer.
func (l *peerListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if uid, err := peerUID(conn); err == nil && slices.Contains(l.uids, uid) {
			return conn, nil
		}
		_ = conn.Close() // refused: how it ends does not matter
	}
}

// peerUID asks the kernel who is at the other end (SO_PEERCRED, unix(7)).
func peerUID(conn net.Conn) (int, error) {
	socket, ok := conn.(*net.UnixConn)
	if !ok {
		return 0, errors.New("not a unix socket")
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	var credErr error
	if err := raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return 0, err
	}
	if credErr != nil {
		return 0, credErr
	}
	return int(cred.Uid), nil
}
