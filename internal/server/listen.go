package server

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
	"golang.org/x/net/netutil"
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
// named `admin` (FileDescriptorName=) is the admin listener, the other nginx's.
// What holds for a configured address holds for them.
func openListeners(opts *Options) (nginx, admin net.Listener, err error) {
	passed, err := activation.ListenersWithNames()
	if err != nil {
		return nil, nil, fmt.Errorf("take the sockets that systemd passes: %w", err)
	}
	return takeListeners(opts, passed)
}

// takeListeners is openListeners for the sockets that were passed, by name.
func takeListeners(opts *Options, passed map[string][]net.Listener) (nginx, admin net.Listener, err error) {
	var open []net.Listener
	defer func() {
		if err != nil {
			for _, l := range open {
				err = errors.Join(err, l.Close())
			}
		}
	}()
	take := func(place *net.Listener, l net.Listener) bool {
		open = append(open, l)
		if *place != nil {
			return false
		}
		*place = l
		return true
	}
	for _, name := range slices.Sorted(maps.Keys(passed)) {
		for _, l := range passed[name] {
			place, what := &nginx, "nginx"
			if name == "admin" {
				place, what = &admin, "metrics and health"
			}
			if !take(place, l) {
				return nil, nil, fmt.Errorf("systemd passes two sockets for %s, %s and %s: pass one, and name the one for metrics FileDescriptorName=admin", what, (*place).Addr(), l.Addr())
			}
		}
	}
	if nginx == nil {
		if nginx, err = listen(opts.Listen); err != nil {
			if opts.Direct {
				return nil, nil, fmt.Errorf("listen for clients: %w", taken(err, "--listen HOST:PORT"))
			}
			return nil, nil, fmt.Errorf("listen for nginx: %w", taken(err, "`listen`"))
		}
		open = append(open, nginx)
	} else if isAbstract(nginx.Addr()) {
		return nil, nil, fmt.Errorf("systemd passes %s, a socket without a file, to which any user of this machine may connect and nginx cannot: have ListenStream= name a path", nginx.Addr())
	} else if isReached(nginx.Addr()) && !opts.ListenInsecure {
		return nil, nil, fmt.Errorf("systemd passes %s, which other hosts reach and the service would trust as it trusts nginx: have ListenStream= name a unix socket or 127.0.0.1, or set listen_insecure: true", nginx.Addr())
	}
	if len(opts.PeerUIDs) > 0 {
		if _, ok := nginx.(*net.UnixListener); !ok {
			return nil, nil, fmt.Errorf("listen_peer_uids is set, and %s, which systemd passes, does not know its peer's user: have ListenStream= name a unix socket", nginx.Addr())
		}
		nginx = &peerListener{Listener: nginx, uids: opts.PeerUIDs}
	}
	if admin == nil {
		if admin, err = listen(opts.Admin); err != nil {
			return nil, nil, fmt.Errorf("listen for metrics and health: %w", taken(err, "`admin`"))
		}
	} else if isReached(admin.Addr()) && !opts.AdminInsecure {
		return nil, nil, fmt.Errorf("systemd passes %s for metrics and health, which other hosts reach: have ListenStream= name a unix socket or 127.0.0.1, or set admin_insecure: true", admin.Addr())
	}
	return nginx, netutil.LimitListener(admin, maxAdminConnections), nil
}

// taken says what to do where another process listens.
func taken(err error, where string) error {
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("%w: another process has the port: end it, or name another port with %s", err, where)
	}
	return err
}

// isReached reports whether other hosts can reach an address.
func isReached(a net.Addr) bool {
	tcp, ok := a.(*net.TCPAddr)
	return ok && !tcp.IP.IsLoopback()
}

// isAbstract reports whether an address is a unix socket that has no file, and so no
// mode (unix(7)).
func isAbstract(a net.Addr) bool {
	u, ok := a.(*net.UnixAddr)
	return ok && (u.Name == "" || u.Name[0] == '@')
}

// warnOfAskers tells who else may ask in nginx's place: systemd's sockets are for
// everybody unless SocketMode= says otherwise.
func warnOfAskers(l net.Listener, log *slog.Logger) {
	u, ok := l.Addr().(*net.UnixAddr)
	if _, checked := l.(*peerListener); !ok || checked {
		return
	}
	if info, err := os.Stat(u.Name); err == nil && info.Mode()&0o002 != 0 {
		log.Warn("any user of this machine who reaches the socket may ask, and is believed as nginx is: set SocketMode=0660 and SocketGroup= to nginx's, or listen_peer_uids", "listen", u.Name)
	}
}

// warnOfListener tells who else may answer nginx, or ask in its place.
func warnOfListener(l net.Listener, log *slog.Logger) {
	switch {
	case isReached(l.Addr()):
		log.Warn("nginx asks over the network, in clear text: whoever is between sees cookies and passwords, and answers in the service's place", "listen", l.Addr().String())
	case l.Addr().Network() == "tcp":
		log.Warn("nginx asks on a TCP port, which any user of this machine may take while the service is down, and is then believed: listen on a unix socket in a directory of the service's own, or set proof_secret_file", "listen", l.Addr().String())
	}
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
	l, err := net.Listen(a.Network, a.Address)
	switch dir := filepath.Dir(a.Address); {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("%w: there is no directory %s: make it as root, for %s and nginx's group: install -d -o %[3]s -g %[4]s -m 2750 %[2]s", err, dir, currentUser(), nginxGroup())
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("%w: %s may not write in %s: chown it", err, currentUser(), dir)
	}
	return l, err
}

// currentUser is the name of who runs the service, or the number.
func currentUser() string {
	if u, err := user.Current(); err == nil {
		return u.Username
	}
	return strconv.Itoa(os.Getuid())
}

// nginxGroup is the group of nginx's workers on this machine, as its package names it.
func nginxGroup() string {
	const debian, others = "www-data", "nginx"
	if _, err := user.LookupGroup(others); err == nil {
		return others
	}
	return debian
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
