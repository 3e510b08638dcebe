package audit

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"securefiles/internal/freeport"
)

// certificate writes a certificate for localhost and its key.
func certificate(t *testing.T) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "localhost"}, DNSNames: []string{"localhost"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	err = errors.Join(
		os.WriteFile(cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600),
		os.WriteFile(key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}), 0o600))
	if err != nil {
		t.Fatal(err)
	}
	return cert, key
}

// rsyslog is a server that others use, which writes what it understood to a file.
func rsyslog(t *testing.T) (tcp, tlsPort, socket, cert, out string) {
	t.Helper()
	dir := t.TempDir()
	cert, key := certificate(t)
	tcp, tlsPort, socket, out = fmt.Sprint(freeport.Port(t)), fmt.Sprint(freeport.Port(t)), filepath.Join(dir, "log"), filepath.Join(dir, "out")
	conf := fmt.Sprintf(`
global(workDirectory=%[1]q maxMessageSize="2m" DefaultNetstreamDriver="gtls" DefaultNetstreamDriverCAFile=%[2]q DefaultNetstreamDriverCertFile=%[2]q DefaultNetstreamDriverKeyFile=%[3]q)
module(load="imtcp" StreamDriver.Name="gtls" StreamDriver.Mode="1" StreamDriver.AuthMode="anon")
module(load="imptcp")
module(load="imuxsock" SysSock.Use="off")
input(type="imtcp" port=%[5]q address="127.0.0.1")
input(type="imptcp" port=%[4]q address="127.0.0.1")
input(type="imuxsock" Socket=%[6]q CreatePath="on" RateLimit.Interval="0" useSpecialParser="off")
template(name="all" type="string" string="%%protocol-version%% %%pri%% %%hostname%% %%app-name%% %%procid%% %%msgid%% %%structured-data%% %%msg%%\n")
action(type="omfile" file=%[7]q template="all")
`, dir, cert, key, tcp, tlsPort, socket, out)
	if err := os.WriteFile(filepath.Join(dir, "conf"), []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	// Where AppArmor confines the program, it does so by its name.
	name, err := exec.LookPath("rsyslogd")
	if err != nil {
		t.Fatalf("rsyslogd is needed: scripts/install.sh rsyslogd: %v", err)
	}
	program, err := os.ReadFile(name)
	if err == nil {
		name = filepath.Join(dir, "rsyslogd")
		err = os.WriteFile(name, program, 0o700)
	}
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(name, "-n", "-f", filepath.Join(dir, "conf"), "-i", filepath.Join(dir, "pid"))
	cmd.Stderr = t.Output()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	return tcp, tlsPort, socket, cert, out
}

func TestSyslogIsReadByRsyslog(t *testing.T) {
	tcp, tlsPort, socket, cert, out := rsyslog(t)
	var want []string
	for i, to := range []string{"tcp://127.0.0.1:" + tcp, "tls://localhost:" + tlsPort, "unix://" + socket} {
		opts := &SyslogOptions{Host: "web 1ä"}
		if strings.HasPrefix(to, "tls") {
			opts.CAFile = cert
		}
		sink, err := NewSyslog(to, opts)
		if err != nil {
			t.Fatal(err)
		}
		s := newShipTest(t)
		s.written = i * 10
		s.write(10)
		stop := s.ship(sink)
		s.eventually(func() string { return missing(s.Sent() == 10, fmt.Sprint(to, ": sent ", s.Sent())) })
		stop()
		for n := range 10 {
			want = append(want, fmt.Sprintf("1 86 web1 securefiles %d decision - %s", os.Getpid(), record(i*10+n).Append(nil)))
		}
	}
	s := newShipTest(t)
	s.eventually(func() string {
		text, _ := os.ReadFile(out)
		for _, line := range want {
			if strings.Count(string(text), line+"\n") != 1 {
				return "not once: " + line + "\n" + string(text)
			}
		}
		return missing(strings.Count(string(text), "\n") == len(want), "more than that:\n"+string(text))
	})
}

// A syslogServer reads messages that are counted by octets.
type syslogServer struct {
	t *testing.T
	net.Listener
	read func(conn net.Conn, s *syslogServer)

	mu       sync.Mutex
	messages []string
	conns    []net.Conn
	accepted int
}

func newSyslogServer(t *testing.T, l net.Listener, read func(net.Conn, *syslogServer)) *syslogServer {
	s := &syslogServer{t: t, Listener: l, read: read}
	var running sync.WaitGroup
	running.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			s.mu.Lock()
			s.conns = append(s.conns, conn)
			s.accepted++
			s.mu.Unlock()
			running.Go(func() { read(conn, s) })
		}
	})
	t.Cleanup(func() { s.kill(); running.Wait() })
	return s
}

// kill ends the server as a crash does: what was not read is thrown away.
func (s *syslogServer) kill() {
	s.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.conns {
		c.Close()
	}
}

// count counts what a server has read, or one that was there before it.
func (s *syslogServer) count(before ...*syslogServer) (distinct, all int) {
	seen := map[string]bool{}
	for _, one := range append(before, s) {
		one.mu.Lock()
		for _, m := range one.messages {
			_, record, _ := strings.Cut(m, " - ")
			seen[record] = true
			all++
		}
		one.mu.Unlock()
	}
	return len(seen), all
}

// readAll is what a server does: it reads to the end and closes.
func readAll(conn net.Conn, s *syslogServer) { readSome(conn, s, 1<<30); conn.Close() }

// readSome reads so many messages.
func readSome(conn net.Conn, s *syslogServer, n int) {
	r := bufio.NewReader(conn)
	for range n {
		length, err := r.ReadString(' ')
		if err != nil {
			return
		}
		size, err := strconv.Atoi(strings.TrimSuffix(length, " "))
		if err != nil {
			s.t.Errorf("no length: %q", length)
			return
		}
		message := make([]byte, size)
		if _, err := io.ReadFull(r, message); err != nil {
			return
		}
		s.mu.Lock()
		s.messages = append(s.messages, string(message))
		s.mu.Unlock()
	}
}

func TestSyslogServerThatFailsLosesNothing(t *testing.T) {
	for name, read := range map[string]func(net.Conn, *syslogServer){
		"stops reading":                 func(net.Conn, *syslogServer) {},
		"stops reading in the middle":   func(c net.Conn, s *syslogServer) { readSome(c, s, 50) },
		"dies in the middle":            func(c net.Conn, s *syslogServer) { readSome(c, s, 10); c.Close() }, // parts become smaller, and one of 10 arrives
		"closes at once":                func(c net.Conn, s *syslogServer) { c.Close() },
		"reads all and closes no half":  func(c net.Conn, s *syslogServer) { readSome(c, s, 1<<30) },
		"reads, and is reset by a peer": func(c net.Conn, s *syslogServer) { c.(*net.TCPConn).SetLinger(0); readSome(c, s, 1); c.Close() },
	} {
		// One batch and several.
		for _, n := range []int{200, 4000} {
			t.Run(fmt.Sprintf("%s, %d records", name, n), func(t *testing.T) {
				l, err := net.Listen("tcp", "127.0.0.1:0")
				if err != nil {
					t.Fatal(err)
				}
				bad := newSyslogServer(t, l, read)
				sink, err := NewSyslog("tcp://"+l.Addr().String(), &SyslogOptions{Timeout: 300 * time.Millisecond})
				if err != nil {
					t.Fatal(err)
				}
				s := newShipTest(t)
				s.write(n)
				s.ship(sink)
				s.eventually(func() string { return missing(s.Failures() >= 2, "no failure is counted") })
				sent := s.Sent() // before what is read: a small part that is read to its end has arrived
				if read, _ := bad.count(); sent > uint64(read) || sent != 0 && name != "dies in the middle" {
					t.Errorf("%d are said to have arrived, and %d were read", sent, read)
				}
				bad.kill()
				back, err := net.Listen("tcp", l.Addr().String())
				if err != nil {
					t.Fatal(err)
				}
				good := newSyslogServer(t, back, readAll)
				s.eventually(func() string {
					distinct, all := good.count(bad) // what that read before it died is not lost
					return missing(distinct == n, fmt.Sprintf("%d of %d, %d with those that came twice", distinct, n, all))
				})
			})
		}
	}
}

func TestSyslogOverUnixStreamAndDatagramSockets(t *testing.T) {
	for _, network := range []string{"unix", "unixgram"} {
		t.Run(network, func(t *testing.T) {
			name := filepath.Join(t.TempDir(), "log")
			sink, err := NewSyslog("unix://"+name, &SyslogOptions{Timeout: 50 * time.Millisecond})
			if err != nil {
				t.Fatal(err)
			}
			s := newShipTest(t)
			s.write(100)
			s.ship(sink)
			s.eventually(func() string { return missing(s.Failures() >= 2, "no failure is counted") })
			if network == "unix" {
				l, err := net.Listen(network, name)
				if err != nil {
					t.Fatal(err)
				}
				server := newSyslogServer(t, l, readAll)
				s.eventually(func() string { n, all := server.count(); return missing(n == 100 && all == 100, fmt.Sprint(n, all)) })
				return
			}
			conn, err := net.ListenUnixgram(network, &net.UnixAddr{Name: name, Net: network})
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			// It does not read yet, and its queue is short.
			before := s.Failures()
			s.eventually(func() string { return missing(s.Failures() >= before+2, "the queue is never full") })
			buf := make([]byte, 1<<20)
			seen := map[string]bool{}
			for len(seen) < 100 {
				conn.SetReadDeadline(time.Now().Add(10 * time.Second))
				n, err := conn.Read(buf)
				if err != nil {
					t.Fatalf("%d of 100: %v\n%s", len(seen), err, s.log.String())
				}
				_, record, _ := strings.Cut(string(buf[:n]), " - ")
				seen[record] = true
			}
		})
	}
}

func TestSyslogDatagramThatIsTooLongIsRefusedAndTheOthersSent(t *testing.T) {
	name := filepath.Join(t.TempDir(), "log")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	sink, err := NewSyslog("unix://"+name, nil)
	if err != nil {
		t.Fatal(err)
	}
	long := record(0)
	long.Agent = strings.Repeat("a", 1<<23)
	refused, err := sink.Send(t.Context(), []Entry{{Line: long.Append(nil), Record: long}, {Line: record(1).Append(nil), Record: record(1)}})
	if refused != 1 || err != nil {
		t.Errorf("%d refused, %v", refused, err)
	}
	buf := make([]byte, 1<<16)
	n, err := conn.Read(buf)
	if err != nil || !strings.HasSuffix(string(buf[:n]), string(record(1).Append(nil))) {
		t.Errorf("%s, %v", buf[:n], err)
	}
}

func TestSyslogBelievesNoServerThatItsAuthorityDidNotSign(t *testing.T) {
	cert, key := certificate(t)
	other, _ := certificate(t)
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{pair}})
	if err != nil {
		t.Fatal(err)
	}
	server := newSyslogServer(t, l, readAll)
	_, port, _ := net.SplitHostPort(l.Addr().String())
	entries := []Entry{{Line: record(1).Append(nil), Record: record(1)}}
	for _, c := range []struct{ name, to, ca, want string }{
		{"its own", "localhost", cert, ""},
		{"another", "localhost", other, "unknown authority"},
		{"the system's", "localhost", "", "unknown authority"},
		{"another name", "127.0.0.1", cert, "cannot validate certificate for 127.0.0.1"},
		{"no file", "localhost", cert + ".gone", "no such file"},
		{"no certificate", "localhost", key, "holds no certificate"},
	} {
		sink, err := NewSyslog("tls://"+net.JoinHostPort(c.to, port), &SyslogOptions{CAFile: c.ca})
		if err != nil {
			t.Fatal(err)
		}
		_, err = sink.Send(t.Context(), entries)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
	if _, all := server.count(); all != 1 {
		t.Errorf("%d messages", all)
	}
}

func TestSyslogAddresses(t *testing.T) {
	for to, want := range map[string]string{
		"unix:///dev/log": "/dev/log", "tcp://h": "h:601", "tls://h/": "h:6514", "tcp://[::1]:5": "[::1]:5", "tls://h:1": "h:1",
		"": "", "h:601": "", "udp://h:514": "", "unix://dev/log": "", "unix:log": "", "tcp://": "", "tcp://h/x": "", "tcp://u@h": "", "tcp://h?x": "", "tls://:1": "",
	} {
		s, err := NewSyslog(to, nil)
		if (err == nil) != (want != "") || err == nil && s.address != want {
			t.Errorf("%q: %+v, %v", to, s, err)
		}
	}
	if _, err := NewSyslog("tcp://h", &SyslogOptions{CAFile: "ca.pem"}); err == nil {
		t.Error("certificate authorities for TCP")
	}
}
