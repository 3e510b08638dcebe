package integration_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// A recipe is what docs/identity.md says under a heading.
type recipe struct {
	yaml         string // the first block, for securefiles.yaml
	server, http string // the blocks for nginx
}

var fence = regexp.MustCompile("(?ms)^```([a-z]+)\n(.*?)^```$")

// cook returns a section's recipe, as it is written.
func cook(t *testing.T, heading string) recipe {
	t.Helper()
	text, err := os.ReadFile("../docs/identity.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, found := strings.Cut(string(text), "\n## "+heading+"\n")
	if !found {
		t.Fatalf("docs/identity.md has no section %q", heading)
	}
	section, _, _ = strings.Cut(section, "\n## ")
	var r recipe
	for _, m := range fence.FindAllStringSubmatch(section, -1) {
		switch language, snippet := m[1], m[2]; {
		case language == "yaml" && r.yaml == "":
			r.yaml = snippet
		case language == "nginx" && strings.HasPrefix(snippet, "# in server { }\n"):
			r.server += snippet
		case language == "nginx" && strings.HasPrefix(snippet, "# in http { }\n"):
			r.http += snippet
		case language == "nginx":
			t.Fatalf("a snippet does not say where it belongs:\n%s", snippet)
		}
	}
	if r.yaml == "" {
		t.Fatalf("no configuration under %q", heading)
	}
	return r
}

// with puts a test's value in the place of one that the recipe must hold.
func (r recipe) with(t *testing.T, literal, value string) recipe {
	t.Helper()
	if !strings.Contains(r.yaml+r.server+r.http, literal) {
		t.Fatalf("the recipe does not hold %s", literal)
	}
	replace := func(text string) string { return strings.ReplaceAll(text, literal, value) }
	return recipe{replace(r.yaml), replace(r.server), replace(r.http)}
}

// into puts the recipe's parts into nginx's configuration.
func (r recipe) into(conf string) string {
	conf = strings.Replace(conf, "    server {\n", r.http+"    server {\n", 1)
	return strings.Replace(conf, "        server_name localhost;\n", "        server_name localhost;\n"+r.server, 1)
}

// An authority signs certificates, with real keys.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func newAuthority(t *testing.T, name string) *authority {
	t.Helper()
	a := &authority{t: t, key: newKey(t), cert: &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		SubjectKeyId: []byte(name),
	}}
	a.cert = a.issue(a.cert, a.key).Leaf
	return a
}

// issue signs a certificate for the key, valid for an hour unless it says
// otherwise.
func (a *authority) issue(template *x509.Certificate, key *ecdsa.PrivateKey) tls.Certificate {
	a.t.Helper()
	template.SerialNumber, _ = rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 64))
	if template.NotAfter.IsZero() {
		template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

// client returns a certificate of a user.
func (a *authority) client(name pkix.Name, edit func(*x509.Certificate)) *tls.Certificate {
	template := &x509.Certificate{Subject: name, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, KeyUsage: x509.KeyUsageDigitalSignature}
	if edit != nil {
		edit(template)
	}
	cert := a.issue(template, newKey(a.t))
	return &cert
}

func pemOf(kind string, der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}

// tlsSite starts a site as the recipe of client certificates says.
func tlsSite(t *testing.T, p plan, r recipe, clients *authority, revoked ...*tls.Certificate) (*site, *authority) {
	t.Helper()
	servers := newAuthority(t, "servers")
	p.identity, p.printed = r.yaml, true
	p.before = func(s *site) {
		key := newKey(t)
		cert := servers.issue(&x509.Certificate{DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}, key)
		der, err := x509.MarshalECPrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		s.write("tls/server.pem", pemOf("CERTIFICATE", cert.Leaf.Raw))
		s.write("tls/server.key", pemOf("EC PRIVATE KEY", der))
		s.write("tls/clients.pem", pemOf("CERTIFICATE", clients.cert.Raw))
		list := &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: time.Now().Add(-time.Hour), NextUpdate: time.Now().Add(time.Hour)}
		for _, r := range revoked {
			list.RevokedCertificateEntries = append(list.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: r.Leaf.SerialNumber, RevocationTime: time.Now()})
		}
		crl, err := x509.CreateRevocationList(rand.Reader, list, clients.cert, clients.key)
		if err != nil {
			t.Fatal(err)
		}
		s.write("tls/revoked.pem", pemOf("X509 CRL", crl))
	}
	p.edit = func(s *site, conf string) string {
		r := r.with(t, "/etc/nginx/tls", filepath.Join(s.dir, "tls")).with(t, "listen 443 ssl;", "listen "+s.web+" ssl;")
		return r.into(strings.Replace(conf, "        listen "+s.web+";\n", "", 1))
	}
	return start(t, p), servers
}

// getWith asks over TLS with a client certificate, which may be nil.
func (s *site) getWith(servers *authority, cert *tls.Certificate, path string) reply {
	s.t.Helper()
	roots := x509.NewCertPool()
	roots.AddCert(servers.cert)
	client := newClient()
	c := &tls.Config{RootCAs: roots}
	if cert != nil {
		// Whatever authorities nginx asks for: a hostile client does not care.
		c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return cert, nil }
	}
	client.Transport.(*http.Transport).TLSClientConfig = c
	defer client.CloseIdleConnections()
	req, err := http.NewRequest(http.MethodGet, "https://"+s.web+path, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	r, err := do(client, req)
	if err != nil {
		s.t.Fatalf("GET %s: %v", path, err)
	}
	return r
}

const plan1, welcome = "/downloads/project/plan.txt", "/downloads/public/welcome.txt"

// S9: real certificates, verified by real nginx, as docs/identity.md says.
func TestRecipeClientCertificate(t *testing.T) {
	t.Parallel()
	const policy = "p, @anyone, /public/**, read, allow\np, alice, /project/**, read, allow\np, @staff, /project/**, read, allow\np, editor, /private/**, read, allow\ng, bob, editor\n"
	ours, others := newAuthority(t, "clients"), newAuthority(t, "clients") // of one name
	name := func(cn string, units ...string) pkix.Name {
		return pkix.Name{CommonName: cn, OrganizationalUnit: units, Organization: []string{"Example, Inc. + Sons"}}
	}
	revoked := ours.client(name("alice"), nil)
	r := cook(t, "A client certificate (mTLS)")
	s, servers := tlsSite(t, plan{policy: policy}, r, ours, revoked)
	selfSigned := &authority{t: t, key: newKey(t), cert: &x509.Certificate{Subject: name("alice")}}
	self := selfSigned.issue(selfSigned.cert, selfSigned.key)
	for _, row := range []struct {
		name   string
		cert   *tls.Certificate
		path   string
		status int
	}{
		{name: "none, a public file", path: welcome, status: 200},
		{name: "none", path: plan1, status: 401},
		{name: "alice", cert: ours.client(name("alice"), nil), path: plan1, status: 200},
		{name: "alice, another file", cert: ours.client(name("alice"), nil), path: "/downloads/private/secret.txt", status: 404},
		{name: "a name in UTF-8 and a comma", cert: ours.client(name("Müller, Jürgen", "staff"), nil), path: plan1, status: 200},
		{name: "a group", cert: ours.client(name("carol", "sales", "staff"), nil), path: plan1, status: 200},
		{name: "another group", cert: ours.client(name("carol", "sales"), nil), path: plan1, status: 404},
		{name: "alice in the organization", cert: ours.client(pkix.Name{CommonName: "mallory", Organization: []string{"x,CN=alice"}}, nil), path: plan1, status: 404},
		{name: "two common names", cert: ours.client(pkix.Name{ExtraNames: []pkix.AttributeTypeAndValue{{Type: []int{2, 5, 4, 3}, Value: "mallory"}, {Type: []int{2, 5, 4, 3}, Value: "alice"}}}, nil), path: welcome, status: 401},
		{name: "no common name", cert: ours.client(name("", "staff"), nil), path: welcome, status: 401},
		{name: "a group for a name", cert: ours.client(name("@staff"), nil), path: welcome, status: 401},
		{name: "a role for a name", cert: ours.client(name("editor"), nil), path: welcome, status: 403},
		{name: "a line break in the name", cert: ours.client(name("alice\r\nX-Remote-User: root"), nil), path: welcome, status: 401},
		{name: "NUL in the name", cert: ours.client(name("alice\x00.example.org"), nil), path: welcome, status: 401},
		{name: "expired", cert: ours.client(name("alice"), func(c *x509.Certificate) {
			c.NotBefore, c.NotAfter = time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour)
		}), path: welcome, status: 400},
		{name: "not valid yet", cert: ours.client(name("alice"), func(c *x509.Certificate) {
			c.NotBefore, c.NotAfter = time.Now().Add(time.Hour), time.Now().Add(2*time.Hour)
		}), path: welcome, status: 400},
		{name: "revoked", cert: revoked, path: welcome, status: 400},
		{name: "of an unknown authority of the same name", cert: others.client(name("alice"), nil), path: welcome, status: 400},
		{name: "signed by itself", cert: &self, path: welcome, status: 400},
		{name: "for a server", cert: ours.client(name("alice"), func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }), path: welcome, status: 400},
	} {
		got := s.getWith(servers, row.cert, row.path)
		if got.status != row.status || strings.Contains(got.body, "CANARY") || row.status == 200 && got.body == "" {
			t.Errorf("%s: status %d %q, want %d", row.name, got.status, got.body, row.status)
		}
	}
	if got := s.metric(`securefiles_identity_total{result="accepted",source="certificate"}`); got == "" || got == "0" {
		t.Errorf("no certificate was counted: %q", got)
	}
}

// With optional_no_ca nginx lets some bad certificates through: the service
// does not, nor does it take their bearer for nobody.
func TestUnverifiedCertificateIsRefused(t *testing.T) {
	t.Parallel()
	ours, others := newAuthority(t, "clients"), newAuthority(t, "others")
	r := cook(t, "A client certificate (mTLS)").with(t, "ssl_verify_client      optional;", "ssl_verify_client optional_no_ca;")
	s, servers := tlsSite(t, plan{policy: "p, @anyone, /**, read, allow\n"}, r, ours)
	for _, row := range []struct {
		name   string
		cert   *tls.Certificate
		status int
	}{
		{"none", nil, 200},
		{"verified", ours.client(pkix.Name{CommonName: "alice"}, nil), 200},
		{"of an unknown authority", others.client(pkix.Name{CommonName: "alice"}, nil), 401},
	} {
		if got := s.getWith(servers, row.cert, welcome); got.status != row.status {
			t.Errorf("%s: status %d, want %d", row.name, got.status, row.status)
		}
	}
}

// The alternative names of a certificate, through nginx's percent-encoding.
func TestAlternativeNames(t *testing.T) {
	t.Parallel()
	ours := newAuthority(t, "clients")
	user, err := url.Parse("spiffe://example.org/ns/web+files/sa/alice")
	if err != nil {
		t.Fatal(err)
	}
	cert := ours.client(pkix.Name{CommonName: "somebody", OrganizationalUnit: []string{"staff"}}, func(c *x509.Certificate) {
		c.EmailAddresses, c.DNSNames, c.URIs = []string{"alice+files@example.org"}, []string{"laptop.example.org"}, []*url.URL{user}
	})
	for kind, want := range map[string]string{"email": "alice+files@example.org", "dns": "laptop.example.org", "uri": user.String()} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			r := cook(t, "A client certificate (mTLS)").with(t, "subject: cn", "subject: "+kind)
			s, servers := tlsSite(t, plan{policy: "p, " + want + ", /project/**, read, allow\np, @staff, /public/**, read, allow\n"}, r, ours)
			for _, path := range []string{plan1, welcome} {
				if got := s.getWith(servers, cert, path); got.status != 200 {
					t.Errorf("%s: status %d", path, got.status)
				}
			}
			if got := s.getWith(servers, ours.client(pkix.Name{CommonName: "alice"}, nil), welcome); got.status != 401 {
				t.Errorf("without such a name: status %d", got.status)
			}
		})
	}
}

func TestRecipePasswordThatNginxChecks(t *testing.T) {
	t.Parallel()
	r := cook(t, "A password that nginx checks")
	s := start(t, plan{policy: alicesPolicy, identity: r.yaml, printed: true, edit: func(s *site, conf string) string {
		return r.with(t, "/etc/nginx", s.dir).into(conf)
	}})
	s.status("alice", plan1, 200)
	s.status("bob", plan1, 404)
	s.status("bob", welcome, 200)
	s.status("mallory", welcome, 401)
	s.status("", welcome, 401) // nginx asks everybody
	s.status("", plan1, 401, func(r *http.Request) { r.SetBasicAuth("alice", "guess") })
	s.status("", plan1, 401, func(r *http.Request) { r.SetBasicAuth("alice\r\nX-Remote-User: alice", "alice") })
	s.status("bob", plan1, 404, with("X-Remote-User", "alice"), with("X_Remote_User", "alice"))
	if strings.Contains(s.log.String(), "$remote_user is whom the client says it is") {
		t.Error("the log warns of what the recipe takes back, with a reason")
	}
}

// A gateway that names users in headers, as oauth2-proxy does, on an address of
// its own; everybody else connects from another.
func TestRecipeGateway(t *testing.T) {
	t.Parallel()
	r := cook(t, "A gateway in front of nginx").with(t, "10.0.0.5", "127.0.0.2")
	s := start(t, plan{policy: "p, @anyone, /public/**, read, allow\np, alice, /project/**, read, allow\np, @staff, /project/**, read, allow\n",
		identity: r.yaml, printed: true, edit: func(_ *site, conf string) string { return r.into(conf) }})
	upstream, err := url.Parse("http://" + s.web)
	if err != nil {
		t.Fatal(err)
	}
	gateway := &http.Server{Handler: &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(upstream)
			user, _, _ := r.In.BasicAuth()
			for _, name := range []string{"X-Forwarded-User", "X-Forwarded-Groups", "Authorization"} {
				r.Out.Header.Del(name)
			}
			if user != "" {
				r.Out.Header.Set("X-Forwarded-User", user)
				r.Out.Header.Set("X-Forwarded-Groups", user+"-team, "+user)
			}
		},
		Transport: &http.Transport{DialContext: (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}).DialContext},
	}}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = gateway.Serve(l) }() // until it is closed
	t.Cleanup(func() { _ = gateway.Close() })
	direct := s.web
	forged := []func(*http.Request){with("X-Forwarded-User", "alice"), with("X-Forwarded-Groups", "staff"), with("X-Gateway-User", "alice"), with("X-Gateway-Groups", "staff"), with("X-Forwarded-For", "127.0.0.2"), with("X-Real-IP", "127.0.0.2")}
	s.status("", plan1, 401, forged...)
	s.status("", welcome, 200, forged...)
	s.web = l.Addr().String() // through the gateway
	s.status("alice", plan1, 200)
	s.status("staff", plan1, 200) // of the group staff
	s.status("bob", plan1, 404, forged...)
	s.status("", plan1, 401, forged...)
	s.status("", welcome, 200)
	s.status("@staff", welcome, 401)
	s.web = direct
}
