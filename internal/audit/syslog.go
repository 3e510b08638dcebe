package audit

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"securefiles/internal/authority"
)

// A Syslog sends records to a syslog server as messages of RFC 5424, whose text is
// the record as it stands in the file. The facility is authpriv (10), the severity
// informational (6), the application securefiles, the message id the type of the
// record, the time that of the record.
//
// Over TCP and TLS messages are counted by octets (RFC 6587 section 3.4.1, RFC 5425
// section 4.3). Syslog acknowledges nothing, so each batch has a connection of its
// own: the service ends its half, and the server's end says that it has read all.
// Over a unix datagram socket, records have arrived when they are in the socket.
type Syslog struct {
	network, address string
	tls              *tls.Config
	caFile           string
	timeout          time.Duration
	host             string
	dialer           net.Dialer
}

// SyslogOptions are what a Syslog need not be told.
type SyslogOptions struct {
	// CAFile holds the certificates, PEM, of who may have signed the server's; empty
	// means those of the system. It is read for each connection.
	CAFile string
	// Host is the name of this machine in messages; os.Hostname if empty.
	Host string
	// Timeout is how long a server may take to take something on; 10 s if zero.
	Timeout time.Duration
}

// NewSyslog sends to `unix:///dev/log` (a datagram or a stream socket),
// `tcp://HOST:PORT` or `tls://HOST:PORT`; the ports are 601 and 6514 if left out.
func NewSyslog(to string, opts *SyslogOptions) (*Syslog, error) {
	if opts == nil {
		opts = &SyslogOptions{}
	}
	u, err := url.Parse(to)
	if err != nil || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, fmt.Errorf("%q is no address of a syslog server: write unix:///dev/log, tcp://HOST:601 or tls://HOST:6514", to)
	}
	s := &Syslog{network: "tcp", caFile: opts.CAFile, timeout: opts.Timeout, host: opts.Host}
	port := "601"
	switch {
	case u.Scheme == "unix" && u.Host == "" && strings.HasPrefix(u.Path, "/"):
		s.network, s.address = "unixgram", u.Path
	case u.Scheme == "tls" && u.Hostname() != "" && strings.Trim(u.Path, "/") == "":
		port = "6514"
		s.tls = &tls.Config{ServerName: u.Hostname(), MinVersion: tls.VersionTLS12, ClientSessionCache: tls.NewLRUClientSessionCache(1)}
		fallthrough
	case u.Scheme == "tcp" && u.Hostname() != "" && strings.Trim(u.Path, "/") == "":
		if u.Port() != "" {
			port = u.Port()
		}
		s.address = net.JoinHostPort(u.Hostname(), port)
	default:
		return nil, fmt.Errorf("%q is no address of a syslog server: write unix:///dev/log, tcp://HOST:601 or tls://HOST:6514", to)
	}
	if s.caFile != "" && s.tls == nil {
		return nil, fmt.Errorf("a file of certificate authorities is for tls:// alone, not for %q", to)
	}
	if s.timeout == 0 {
		s.timeout = 10 * time.Second
	}
	if s.host == "" {
		s.host, _ = os.Hostname()
	}
	s.host = printable(s.host, 255)
	return s, nil
}

// printable is a text as a header of RFC 5424 may hold it: printable ASCII without a
// space, of so many bytes at most; `-` is none.
func printable(text string, most int) string {
	text = strings.Map(func(r rune) rune {
		if r <= ' ' || r > '~' {
			return -1
		}
		return r
	}, text)
	if text == "" {
		return "-"
	}
	return text[:min(len(text), most)]
}

// appendMessage appends a message of RFC 5424.
func (s *Syslog) appendMessage(b []byte, e *Entry) []byte {
	b = append(b, "<86>1 "...) // authpriv.info: 10*8+6
	b = e.Record.Time.UTC().AppendFormat(b, TimeLayout)
	b = append(append(append(b, ' '), s.host...), " securefiles "...)
	b = strconv.AppendInt(b, int64(os.Getpid()), 10)
	b = append(append(append(b, ' '), printable(e.Record.Type, 32)...), " - "...)
	return append(b, e.Line...)
}

// Send sends the entries as messages, and returns when the server has read them. It is
// for one goroutine. Refused are those that no datagram can hold.
func (s *Syslog) Send(ctx context.Context, entries []Entry) (refused int, err error) {
	conn, err := s.dial(ctx)
	if err == nil {
		stop := context.AfterFunc(ctx, func() { conn.Close() })
		if s.network == "unixgram" {
			refused, err = s.datagrams(conn, entries)
		} else {
			err = s.stream(conn, entries)
		}
		stop()
		conn.Close() // what matters has been read, or failed
	}
	if err != nil {
		return 0, fmt.Errorf("send to syslog at %s: %w", s.address, err)
	}
	return refused, nil
}

func (s *Syslog) datagrams(conn net.Conn, entries []Entry) (refused int, err error) {
	var message []byte
	for i := range entries {
		message = s.appendMessage(message[:0], &entries[i])
		err := s.write(conn, message)
		switch {
		case errors.Is(err, syscall.EMSGSIZE):
			refused++
		case err != nil:
			return 0, err
		}
	}
	return refused, nil
}

func (s *Syslog) stream(conn net.Conn, entries []Entry) error {
	var b, message []byte
	for i := range entries {
		message = s.appendMessage(message[:0], &entries[i])
		b = append(strconv.AppendInt(b, int64(len(message)), 10), ' ')
		b = append(b, message...)
		if len(b) >= 64<<10 || i == len(entries)-1 {
			if err := s.write(conn, b); err != nil {
				return err
			}
			b = b[:0]
		}
	}
	half, ok := conn.(interface{ CloseWrite() error }) // TCP, TLS and unix streams
	if !ok {
		return errors.New("the connection cannot be closed by half")
	}
	if err := errors.Join(half.CloseWrite(), conn.SetReadDeadline(time.Now().Add(s.timeout))); err != nil {
		return err
	}
	// A server that has read all closes its half; it has nothing to say.
	if _, err := io.Copy(io.Discard, conn); err != nil {
		return fmt.Errorf("wait for the server to read all and to close the connection: %w", err)
	}
	return nil
}

func (s *Syslog) write(conn net.Conn, b []byte) error {
	if err := conn.SetWriteDeadline(time.Now().Add(s.timeout)); err != nil {
		return err
	}
	_, err := conn.Write(b)
	return err
}

func (s *Syslog) dial(ctx context.Context) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	if s.tls != nil {
		config := s.tls
		if s.caFile != "" {
			config = s.tls.Clone()
			var err error
			if config.RootCAs, err = authority.Load(s.caFile); err != nil {
				return nil, err
			}
		}
		return (&tls.Dialer{NetDialer: &s.dialer, Config: config}).DialContext(ctx, "tcp", s.address)
	}
	conn, err := s.dialer.DialContext(ctx, s.network, s.address)
	if s.network == "unixgram" && errors.Is(err, syscall.EPROTOTYPE) {
		s.network = "unix"
		return s.dialer.DialContext(ctx, s.network, s.address)
	}
	if s.network == "unix" && errors.Is(err, syscall.EPROTOTYPE) {
		s.network = "unixgram" // another server has its name now
	}
	return conn, err
}
