package integration_test

import (
	"bufio"
	"bytes"
	"cmp"
	"crypto/md5"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"securefiles/internal/freeport"
)

// A jealous server is hostile in other ways than hostileServer: every directive
// here would turn a yes into a no, keep what it should not, or stand in the
// place of what the service says.
const jealousServer = `
        auth_request /never;
        set $securefiles_location $uri;
        root LOCKED;
        disable_symlinks on;
        proxy_store STORE/$request_id;
        proxy_http_version 1.0;
        proxy_buffers 3 4k;
        proxy_busy_buffers_size 8k;
        proxy_next_upstream error timeout http_403;
        proxy_next_upstream_tries 1;
        proxy_next_upstream_timeout 1s;
        large_client_header_buffers 4 4m;
        max_ranges 0;
        etag off;
        limit_rate_after 10m;
        add_before_body /before;
        add_after_body /before;
        msie_refresh on;
        location = /before { internal; return 200 "SORRY"; }
        location = /never { internal; return 403; }
`

// A snippet is what `securefiles nginx` prints, in both halves.
type snippet struct {
	http, server string
	pages        bool // there are error pages of one's own
}

// printSnippet prints the snippet of a configuration in which every line of the
// templates has a part.
func printSnippet(t *testing.T, dir, service, pages string) snippet {
	t.Helper()
	files := filepath.Join(dir, "link") // the root may be reached through a link
	config := fmt.Sprintf(`listen: %s
policy: {file: policy.csv}
proxy_secret_file: secret
proof_secret_file: proof
login_url: /login/
nginx:
  delivery_log: /LOGS/delivery.log
  access_log: /LOGS/access.log securefiles_access
  error_pages: {%s}
identity:
  - certificate: {subject: uri, groups: ou}
  - {header: X-Remote-User, groups_header: X-Remote-Groups, nginx_value: $gateway_user}
downloads:
  - {name: main, root: %s, url: /downloads/, internal: /protected/, cors_origins: ["https://app.example.org"]}
  - {name: media, root: %s, url: /media/, internal: /protected-media/, insecure_follow_symlinks: true, embed: same-site, compress: true}
`, service, pages, files, files)
	file := filepath.Join(dir, "securefiles.yaml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	half := func(flags ...string) string {
		s := &site{t: t, dir: dir}
		out, err := s.command(binary, append([]string{"nginx", "--config", file}, flags...)...).CombinedOutput()
		if err != nil {
			t.Fatalf("securefiles nginx: %v\n%s", err, out)
		}
		return string(out)
	}
	return snippet{half("--http"), half(), pages != ""}
}

// A mutant is the snippet without one of its lines, or without a word of one.
type mutant struct {
	name string
	snippet
}

// looks are where nginx looks whether there is a regular file, before it opens it.
var looks = regexp.MustCompile(`(?m)^ *if \(!-f .*\n`)

var (
	comment   = regexp.MustCompile(`\s+#.*$`)
	codes     = regexp.MustCompile(` \d{3}\b`)
	emptyRow  = regexp.MustCompile(`"" [^;]+; default`)
	guardRow  = regexp.MustCompile(`SUCCESS (\S+); default "";`)
	fromWords = regexp.MustCompile(` from=\S+;`)
)

const (
	questionBlock = "location = /-securefiles-question {"
	pageBlock     = "location = /_securefiles/page {"
)

// mutants takes each directive away, and each block; of directives that hold
// several things, each of these. What the second download repeats counts once.
func (s snippet) mutants() []mutant {
	var all []mutant
	seen := map[string]bool{}
	half := func(text string, put func(string) snippet) {
		lines := strings.SplitAfter(text, "\n")
		block := ""
		for i := 0; i < len(lines); i++ {
			from, statement := i, ""
			for ; i < len(lines); i++ { // a directive may take several lines
				code := comment.ReplaceAllString(strings.TrimSuffix(lines[i], "\n"), "")
				if strings.HasPrefix(strings.TrimSpace(code), "#") {
					code = ""
				}
				statement += code + "\n"
				if end := strings.TrimSpace(statement); end == "" || strings.HasSuffix(end, ";") || strings.HasSuffix(end, "{") || strings.HasSuffix(end, "}") {
					break
				}
			}
			name := strings.Join(strings.Fields(statement), " ")
			if name == "" || name == "}" {
				continue
			}
			to := i + 1
			if strings.HasSuffix(name, "{") { // a block, to its end
				block = name
				for to < len(lines) && lines[to] != "}\n" {
					to++
				}
				to++
			} else if !strings.HasPrefix(statement, " ") {
				block = ""
			}
			key := strings.NewReplacer("protected-media", "protected", "/media/", "/downloads/", "media", "main", "page_403", "page_404", "page_410", "page_404", "page_429", "page_404").Replace(block + name)
			if strings.HasPrefix(key, pageBlock) && strings.Contains(text, "\n"+questionBlock+"\n") { // what it repeats of the question's counts once
				key = strings.Replace(key, pageBlock, questionBlock, 1)
			}
			if seen[key] {
				continue
			}
			seen[key] = true
			add := func(what, instead string) {
				all = append(all, mutant{strings.TrimPrefix(block+" "+what, name+" "), put(strings.Join(lines[:from], "") + instead + strings.Join(lines[to:], ""))})
			}
			add(name, "")
			whole := strings.Join(lines[from:to], "")
			word := func(word, instead string) { add(name+", without "+word, strings.Replace(whole, word, instead, 1)) }
			switch {
			case strings.HasPrefix(name, "location ^~"):
				word("^~", "")
			case strings.HasPrefix(name, "add_header") && strings.Contains(name, "always"):
				word(" always;", ";")
			case strings.HasPrefix(name, "log_format"):
				word("escape=json", "")
			case strings.HasPrefix(name, "error_page") && len(codes.FindAllString(name, -1)) > 1:
				for _, code := range codes.FindAllString(name, -1) {
					word(code, "")
				}
			case strings.HasPrefix(name, "disable_symlinks on"):
				word(fromWords.FindString(name), ";")
			case emptyRow.MatchString(name):
				word(strings.TrimSuffix(emptyRow.FindString(name), "default"), "")
			case guardRow.MatchString(name):
				m := guardRow.FindStringSubmatch(name)
				word(m[0], "default "+m[1]+";")
			}
		}
	}
	half(s.http, func(text string) snippet { return snippet{text, s.server, s.pages} })
	half(s.server, func(text string) snippet { return snippet{s.http, text, s.pages} })
	return all
}

// A scribe stands where the service does. It answers as the query of the asked
// URI says (?status=…&Header=value, `stale` to hang up on a connection that was used
// before, `wait` to answer once nginx has hung up, or after a second), and keeps what it
// was asked.
type scribe struct {
	listener net.Listener
	mu       sync.Mutex
	last     []question
	conns    int
	gone     map[int]bool // connections that were closed
}

type question struct {
	conn   int    // by number
	line   string // method, target, protocol, host
	header http.Header
}

func newScribe(t *testing.T) *scribe {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &scribe{listener: l, gone: map[int]bool{}}
	t.Cleanup(func() { _ = l.Close() }) // the test is over
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			s.mu.Lock()
			s.conns++
			n := s.conns
			s.mu.Unlock()
			go s.serve(conn, n)
		}
	}()
	return s
}

func (s *scribe) address() string { return s.listener.Addr().String() }

func (s *scribe) serve(conn net.Conn, n int) {
	defer func() {
		_ = conn.Close() // nginx may have closed it
		s.mu.Lock()
		defer s.mu.Unlock()
		s.gone[n] = true
	}()
	from := bufio.NewReader(conn)
	for used := false; ; used = true {
		r, err := http.ReadRequest(from)
		if errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, net.ErrClosed) {
			return
		}
		q := question{conn: n, line: fmt.Sprint("no request: ", err)}
		if err == nil {
			q.line, q.header = r.Method+" "+r.RequestURI+" "+r.Proto+" "+r.Host, r.Header
		}
		s.mu.Lock()
		s.last = append(s.last, q)
		s.mu.Unlock()
		if err != nil {
			return
		}
		_, query, _ := strings.Cut(r.Header.Get("X-Original-URI"), "?")
		say, _ := url.ParseQuery(query) // a test wrote it
		if say.Get("stale") != "" && used {
			return
		}
		if say.Get("wait") != "" {
			_ = conn.SetReadDeadline(time.Now().Add(time.Second)) // the read says whether it counts
			if _, err := from.Peek(1); errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) {
				return
			}
			_ = conn.SetReadDeadline(time.Time{}) // and so does the next
		}
		if r.URL.Path == "/page" {
			status := "410 Gone"
			if say.Get("X-Securefiles-Page") == "shown" {
				status = "200 OK"
			}
			answer := fmt.Sprintf("HTTP/1.1 %s\r\nContent-Length: %d\r\nContent-Type: text/html\r\nCache-Control: no-store\r\nX-Page: own\r\n\r\n%s", status, len(servicePage), servicePage)
			switch say.Get("X-Securefiles-Page") {
			case "broken":
				return
			case "late":
				_, _ = io.Copy(io.Discard, conn) // until nginx hangs up
				return
			}
			if _, err := io.WriteString(conn, answer); err != nil {
				return
			}
			continue
		}
		status := cmp.Or(say.Get("status"), "403")
		var b strings.Builder
		fmt.Fprintf(&b, "HTTP/1.1 %s Said\r\n", status)
		if status == "200" {
			b.WriteString("Content-Length: 4\r\n")
		} else if status != "204" && status != "304" {
			b.WriteString("Content-Length: 0\r\n")
		}
		if of := strings.Split(say.Get("Prove"), "|"); len(of) == 5 { // of another answer than this one
			say.Set("X-Securefiles-Proof", proof(proofSecret, asked(r), of[0], of[1], of[2], of[3], of[4]))
		} else if _, ok := say["X-Securefiles-Proof"]; !ok {
			say.Set("X-Securefiles-Proof", proof(proofSecret, asked(r), status, say.Get("X-Securefiles-Reason"), say.Get("X-Securefiles-Page"), say.Get("Location"), say.Get("X-Securefiles-Location")))
		}
		for name, values := range say {
			if name != "status" && name != "stale" && name != "wait" {
				fmt.Fprintf(&b, "%s: %s\r\n", name, values[0])
			}
		}
		b.WriteString("\r\n")
		if status == "200" && r.Method != http.MethodHead {
			b.WriteString("yes\n")
		}
		if _, err := io.WriteString(conn, b.String()); err != nil {
			return
		}
	}
}

// proof is what nginx takes an answer by: the service's own is made elsewhere.
func proof(secret string, asked []string, status, reason, page, login, location string) string {
	digest := md5.Sum([]byte(strings.Join(append(slices.Clone(asked), status, reason, page, login, location, secret), "\n")))
	return base64.RawURLEncoding.EncodeToString(digest[:])
}

// asked is what an answer is proved to.
func asked(r *http.Request) []string {
	of := []string{r.Header.Get("X-Request-ID"), r.Header.Get("X-Original-URI"), r.Header.Get("X-Real-IP"), r.Host}
	for _, name := range []string{"Verify", "DN", "Certificate"} {
		of = append(of, r.Header.Get("X-Securefiles-Client-"+name))
	}
	return append(of, r.Header.Get("X-Remote-User"), r.Header.Get("X-Remote-Groups"))
}

var proofSecret = strings.Repeat("p", 32)

// take returns what was asked since it was called last.
func (s *scribe) take() []question {
	s.mu.Lock()
	defer s.mu.Unlock()
	q := s.last
	s.last = nil
	return q
}

// isGone reports whether a connection was closed.
func (s *scribe) isGone(conn int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.gone[conn]
}

// A rig is what all stands share: files, certificates, another application.
type rig struct {
	t        *testing.T
	dir      string
	other    string // address of an application that hands over what it is asked to
	clients  *authority
	stranger *authority
}

func newRig(t *testing.T) *rig {
	t.Helper()
	g := &rig{t: t, dir: publicDir(t), clients: newAuthority(t, "clients"), stranger: newAuthority(t, "strangers")}
	s := &site{t: t, dir: g.dir}
	for name, text := range someFiles() {
		s.write(filepath.Join("files", name), text)
	}
	s.write("files/project/plan.txt.gz", "CANARY DENY another file\n")
	s.write("files/project/ssi.html", ssiPage)
	s.write("files/large.bin", strings.Repeat("large\n", 64<<10/6))
	s.write("outside.txt", "outside\n")
	s.write("policy.csv", "p, alice, /**, read, allow\n")
	s.write("secret", strings.Repeat("s", 32)+"\n")
	s.write("proof", proofSecret+"\n")
	for _, status := range []string{"401", "403", "404", "410", "429", "503"} {
		s.write("pages/"+status+".html", ownPage(status))
	}
	s.write("files/large.txt", strings.Repeat("large\n", 1000))
	s.write("files/project/table.csv", strings.Repeat("a,b\n", 100))
	for link, target := range map[string]string{"link": "files", "files/link.txt": "../outside.txt"} {
		if err := os.Symlink(target, filepath.Join(g.dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	if err := syscall.Mknod(filepath.Join(g.dir, "files/socket"), syscall.S_IFSOCK|0o666, 0); err != nil {
		t.Fatal(err)
	}
	key := newKey(t)
	servers := newAuthority(t, "servers")
	cert := servers.issue(&x509.Certificate{DNSNames: []string{"localhost"}}, key)
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	s.write("server.pem", pemOf("CERTIFICATE", cert.Leaf.Raw))
	s.write("server.key", pemOf("EC PRIVATE KEY", der))
	s.write("clients.pem", pemOf("CERTIFICATE", g.clients.cert.Raw))
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // whatever it is
		w.Header().Set("X-Accel-Redirect", r.URL.Query().Get("to"))
	}))
	t.Cleanup(other.Close)
	g.other = strings.TrimPrefix(other.URL, "http://")
	return g
}

// ownPages are the site's own.
const ownPages = "401: /PAGES/401.html, 403: /PAGES/403.html, 404: /PAGES/404.html, 410: /PAGES/410.html, 429: /PAGES/429.html, 503: /PAGES/503.html"

// ownPage is the site's own page for a status.
func ownPage(status string) string { return "<p>our own " + status + "</p>\n" }

// page is what comes with a status: the site's own page, if there is one, or
// anything.
func (b *stand) page(status string) string {
	if b.pages && slices.Contains([]string{"401", "403", "404", "410", "429", "503"}, status) {
		return ownPage(status)
	}
	return ""
}

// servicePage is a page that the scribe shows.
const servicePage = `page<!--#echo var="document_uri" -->` + "\n"

const ssiPage = `<!--#include virtual="/protected/private/secret.txt" --><!--#echo var="document_uri" -->` + "\n"

// A stand is nginx with a snippet in four servers, in front of a scribe.
type stand struct {
	rig                             *rig
	dir                             string
	plain, hostile, jealous, secure string // addresses of the servers
	scribe                          *scribe
	pages                           bool
	read                            map[string]int64 // how much of a log was looked at
}

// place makes the directories of a stand.
func (g *rig) place(t *testing.T, upstream *scribe) *stand {
	t.Helper()
	dir, err := os.MkdirTemp(g.dir, "stand")
	if err != nil {
		t.Fatal(err)
	}
	b := &stand{rig: g, dir: dir, scribe: upstream, read: map[string]int64{}}
	for _, sub := range []string{"run", "logs", "store", "locked"} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, mode := range map[string]os.FileMode{"": 0o755, "store": 0o777, "locked": 0} {
		if err := os.Chmod(filepath.Join(dir, name), mode); err != nil {
			t.Fatal(err)
		}
	}
	return b
}

// stand starts one. An error says that nginx does not take the configuration.
func (g *rig) stand(t *testing.T, p snippet, upstream *scribe) (*stand, error) {
	t.Helper()
	b := g.place(t, upstream)
	dir := b.dir
	b.pages = p.pages
	p.server = strings.NewReplacer("/LOGS/", filepath.Join(dir, "logs")+"/", "/PAGES", filepath.Join(g.dir, "pages")).Replace(p.server)
	var servers strings.Builder
	taken := map[string]bool{}
	for address, more := range map[*string]string{
		&b.plain:   "",
		&b.hostile: strings.NewReplacer("FILES", filepath.Join(g.dir, "link"), "OTHER", g.other, "PAGES", g.dir).Replace(hostileServer),
		&b.jealous: strings.NewReplacer("LOCKED", filepath.Join(dir, "locked"), "STORE", filepath.Join(dir, "store")).Replace(jealousServer),
		&b.secure: strings.ReplaceAll("ssl_certificate DIR/server.pem; ssl_certificate_key DIR/server.key; ssl_client_certificate DIR/clients.pem; ssl_verify_client optional_no_ca;",
			"DIR", g.dir),
	} {
		for *address == "" || taken[*address] {
			*address = freeport.Address(t)
		}
		taken[*address] = true
		listen := *address
		if address == &b.secure {
			listen += " ssl"
		}
		fmt.Fprintf(&servers, "server { listen %s; server_name localhost; set $gateway_user carol; %s\n%s\n}\n", listen, more, p.server)
	}
	err := b.run(t, p.http, servers.String(), b.plain, b.hostile, b.jealous, b.secure)
	if errors.Is(err, errTaken) {
		return g.stand(t, p, upstream)
	}
	return b, err
}

// errTaken says that somebody took a free address.
var errTaken = errors.New("address already in use")

// run starts nginx with servers that listen on addresses, and a snippet's half for
// http. An error says that nginx does not take the configuration.
func (b *stand) run(t *testing.T, http, servers string, addresses ...string) error {
	t.Helper()
	dir := b.dir
	conf := fmt.Sprintf(`worker_processes 1; pid run/nginx.pid; error_log logs/error.log warn; events {}
http {
client_body_temp_path run/client_body; proxy_temp_path run/proxy; fastcgi_temp_path run/fastcgi; uwsgi_temp_path run/uwsgi; scgi_temp_path run/scgi;
types { text/plain txt; text/html html; text/csv csv; }
proxy_cache_path %s/cache keys_zone=hostile:1m;
%s
access_log logs/inherited.log securefiles_delivery;
%s}
`, dir, http, servers)
	for name, text := range map[string]string{"nginx.conf": conf,
		"securefiles-proof.conf":  `secure_link_md5 "$securefiles_asked\n$securefiles_last_status\n$securefiles_reason\n$securefiles_page\n$securefiles_login_url\n$securefiles_location\n` + proofSecret + "\";\n",
		"securefiles-secret.conf": `proxy_set_header X-Securefiles-Proxy-Secret "` + strings.Repeat("s", 32) + "\";\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := (&site{t: t, dir: dir}).command("nginx", "-p", dir, "-e", "logs/error.log", "-c", filepath.Join(dir, "nginx.conf"), "-g", "daemon off;")
	var out bytes.Buffer
	cmd.Stderr = &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	gone := make(chan struct{})
	go func() { _ = cmd.Wait(); close(gone) }() // its output says why
	t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // it may be gone
		<-gone
	})
	for deadline := time.Now().Add(patience); ; {
		if listens(addresses) { // on all: it opens one after the other
			return nil
		}
		select {
		case <-gone:
			if strings.Contains(out.String(), "Address already in use") {
				return errTaken
			}
			return fmt.Errorf("nginx: %s", strings.TrimSpace(out.String()))
		case <-time.After(time.Millisecond): // between polls
		}
		if time.Now().After(deadline) {
			t.Fatalf("nginx does not listen: %s", out.String())
		}
	}
}

func listens(addresses []string) bool {
	for _, address := range addresses {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			return false
		}
		_ = conn.Close() // nothing was said
	}
	return true
}

// errors is nginx's error log.
func (b *stand) errors() string {
	text, _ := os.ReadFile(filepath.Join(b.dir, "logs/error.log")) // there may be none
	return string(text)
}

// log is a log of nginx's.
func (b *stand) log(name string) string {
	text, _ := os.ReadFile(filepath.Join(b.dir, "logs", name)) // there may be none
	return string(text)
}

// logged says in what the one record of a request is not what it should be. The
// bytes of its body are not looked at if they are negative.
func (b *stand) logged(name string, a answer, want map[string]any, bytes float64) error {
	id := a.header.Get("X-Request-ID")
	var records []map[string]any
	for line := range strings.Lines(b.log(name)) {
		var d map[string]any
		if err := json.Unmarshal([]byte(line), &d); err != nil {
			return fmt.Errorf("%w: %s", err, line)
		}
		if id != "" && d["request_id"] == id {
			records = append(records, d)
		}
	}
	if len(records) != 1 {
		return fmt.Errorf("%s has %d records of request %q", name, len(records), id)
	}
	for field, value := range want {
		if records[0][field] != value {
			return fmt.Errorf("%s: %s is %v, want %v", name, field, records[0][field], value)
		}
	}
	if n := records[0]["body_bytes"]; bytes >= 0 && n != bytes {
		return fmt.Errorf("%s: body_bytes is %v, want %v", name, n, bytes)
	}
	return nil
}

// An answer is what came back, and what the service was asked meanwhile.
type answer struct {
	reply
	asked []question
	took  time.Duration
}

// Whatever the service does, its answer comes within this time: two attempts
// of two seconds at most. It is waited for where a line is left out that the answer needs.
const soon = 4*time.Second + 10*time.Second

// ask sends a request and reads all that comes, until nginx hangs up: then the
// request is in its log.
func (b *stand) ask(address, request string) (answer, error) {
	b.scribe.take()
	begin := time.Now()
	conn, err := net.DialTimeout("tcp", address, patience)
	if err != nil {
		return answer{}, err
	}
	return b.converse(conn, request, begin)
}

func (b *stand) converse(conn net.Conn, request string, begin time.Time) (answer, error) {
	defer conn.Close() // one request a connection
	if err := conn.SetDeadline(time.Now().Add(soon)); err != nil {
		return answer{}, err
	}
	if _, err := io.WriteString(conn, request); err != nil {
		return answer{}, err
	}
	text, err := io.ReadAll(conn)
	if err != nil && len(text) == 0 {
		return answer{}, err
	}
	method, _, _ := strings.Cut(request, " ")
	resp, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(text)), &http.Request{Method: method})
	if err != nil {
		return answer{}, err
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return answer{}, err
	}
	return answer{reply{resp.StatusCode, resp.Header, string(body)}, b.scribe.take(), time.Since(begin)}, nil
}

// about is a request for a path of which the service says something.
func about(method, path string, say said, headers ...string) string {
	q := url.Values{}
	for name, value := range say {
		q.Set(name, value)
	}
	return method + " " + path + "?" + q.Encode() + " HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n" + strings.Join(append(headers, ""), "\r\n") + "\r\n"
}

// get asks for a path of which the service says something.
func (b *stand) get(address, path string, say said, headers ...string) (answer, error) {
	return b.ask(address, about("GET", path, say, headers...))
}

// said is what the scribe is to answer: a status, headers, and more.
type said map[string]string

func allowed(location string, more ...string) said {
	s := said{"status": "204", "X-Securefiles-Location": location, "X-Securefiles-Disposition": `attachment; filename="a"`,
		"X-Securefiles-Decision": "7:policy.csv:3", "X-Securefiles-Reason": "policy", "X-Securefiles-User": "alice"}
	for i := 0; i < len(more); i += 2 {
		s[more[i]] = more[i+1]
	}
	return s
}

const (
	planPath     = "/downloads/project/plan.txt"
	planLocation = "/protected/project/plan.txt"
)

// expect says in what an answer is not what it should be. A header that is
// expected to be empty must not be there.
func (a answer) expect(status int, body string, header said) error {
	var wrong []string
	if a.status != status || body != "" && a.body != body {
		wrong = append(wrong, fmt.Sprintf("status %d %q, want %d %q", a.status, a.body[:min(len(a.body), 200)], status, body))
	}
	for name, want := range header {
		if got := strings.Join(a.header.Values(name), "|"); got != want && (want != "…" || got == "") {
			wrong = append(wrong, fmt.Sprintf("%s is %q, want %q", name, got, want))
		}
	}
	if breach := breach(&a.reply, "/nowhere"); breach != "" {
		wrong = append(wrong, breach)
	}
	if a.body == sorry || a.body == hijacked {
		wrong = append(wrong, "somebody else answers: "+a.body)
	}
	if wrong != nil {
		return errors.New(strings.Join(wrong, "; "))
	}
	return nil
}

// refusal is what every refusal has, and more.
func refusal(more said) said {
	header := said{"Cache-Control": "no-store", "X-Request-ID": "…", "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer",
		"Cross-Origin-Resource-Policy": "same-origin", "Vary": "Origin", "Access-Control-Allow-Origin": "", "Access-Control-Allow-Credentials": ""}
	maps.Copy(header, more)
	return header
}

// A row is one thing that the snippet does. It says what is wrong, if anything.
type row struct {
	name  string
	check func(b *stand) error
}

// snippetRows are what the snippet does, each asked of a running nginx.
var snippetRows = []row{
	{"an allowed file is served, with what the service says of it and no more", func(b *stand) error {
		const disposition = `attachment; filename="a"`
		before := b.errors()
		for _, server := range []string{b.plain, b.hostile, b.jealous} {
			a, err := b.get(server, planPath, allowed(planLocation, "Set-Cookie", "a=b", "X-Accel-Limit-Rate", "1", "Retry-After", "9"), "Accept-Encoding: gzip")
			if err != nil {
				return err
			}
			if err := a.expect(200, "0123456789\n", said{"Content-Disposition": disposition, "Cache-Control": "private, no-store", "Expires": "",
				"Content-Security-Policy": "default-src 'none'; sandbox", "X-Content-Type-Options": "nosniff", "Content-Encoding": "", "X-Request-ID": "…", "Retry-After": "",
				"Referrer-Policy": "no-referrer", "Cross-Origin-Resource-Policy": "same-origin", "Etag": "…", "Accept-Ranges": "bytes", "Content-Length": "11",
				"Access-Control-Allow-Origin": "", "Access-Control-Allow-Credentials": "", "Access-Control-Expose-Headers": "", "Vary": "Origin"}); err != nil {
				return err
			}
			if len(a.asked) != 1 || a.asked[0].header.Get("X-Request-ID") != a.header.Get("X-Request-ID") {
				return fmt.Errorf("the service was asked %v about request %s", a.asked, a.header.Get("X-Request-ID"))
			}
			a, err = b.get(server, planPath, allowed(planLocation, "X-Securefiles-Cache-Control", "no-cache", "X-Securefiles-CSP", "sandbox", "Referrer-Policy", "origin"))
			if err := errors.Join(err, a.expect(200, "0123456789\n", said{"Cache-Control": "no-cache", "Content-Security-Policy": "sandbox", "Referrer-Policy": "origin"})); err != nil {
				return err
			}
		}
		a, err := b.get(b.plain, "/media/project/plan.txt", allowed("/protected-media/project/plan.txt"))
		if err := errors.Join(err, a.expect(200, "0123456789\n", said{"Access-Control-Allow-Origin": ""})); err != nil {
			return err
		}
		if now := b.errors(); now != before {
			return fmt.Errorf("nginx logs an error: %s", strings.TrimPrefix(now, before))
		}
		return nil
	}},
	{"a large file in a server with a limit of its own is not slowed down", func(b *stand) error {
		a, err := b.get(b.hostile, "/downloads/large.bin", allowed("/protected/large.bin"))
		return errors.Join(err, a.expect(200, strings.Repeat("large\n", 64<<10/6), nil))
	}},
	{"the question holds what the service needs, and nothing that a client chooses", func(b *stand) error {
		for _, server := range []string{b.plain, b.hostile, b.jealous} {
			for _, method := range []string{"GET", "HEAD"} {
				for _, client := range [][]string{nil, {"X-Original-URI: /downloads/x", "X-Remote-User: mallory", "X-Remote-Groups: staff", "X-Securefiles-Proxy-Secret: x", "Range: bytes=0-1", `If-Range: "x"`, "X-Original-If-Range: y",
					"X-Securefiles-Client-Dn: CN=mallory", "X-Securefiles-Client-Verify: SUCCESS", "X-Other: x", "Accept-Encoding: gzip", "Content-Length: 1", "", "x"}} {
					request := about(method, planPath, said{"status": "403"}, append([]string{"Authorization: Basic eA==", "Cookie: a=b", "Accept: text/html", "Accept-Language: de",
						"User-Agent: curl", "Referer: https://example.org/", "Origin: https://example.org", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Site: none"}, client...)...)
					target := strings.Fields(request)[1]
					a, err := b.ask(server, request)
					if err != nil {
						return err
					}
					want := http.Header{"X-Original-Uri": {target}, "X-Original-Method": {method}, "X-Original-Scheme": {"http"}, "X-Real-Ip": {"127.0.0.1"},
						"Authorization": {"Basic eA=="}, "Cookie": {"a=b"}, "Accept": {"text/html"}, "X-Remote-User": {"carol"},
						"Accept-Language": {"de"}, "User-Agent": {"curl"}, "Referer": {"https://example.org/"}, "Origin": {"https://example.org"}, "Sec-Fetch-Mode": {"navigate"}, "Sec-Fetch-Site": {"none"},
						"X-Securefiles-Proxy-Secret": {strings.Repeat("s", 32)}}
					if client != nil {
						want.Set("X-Original-Range", "bytes=0-1")
						want.Set("X-Original-If-Range", `"x"`)
					}
					if len(a.asked) != 1 || a.asked[0].line != "GET /authorize HTTP/1.1 localhost" {
						return fmt.Errorf("%s: the service was asked %v", method, a.asked)
					}
					got := a.asked[0].header
					if id := got.Get("X-Request-ID"); id == "" || id != a.header.Get("X-Request-ID") {
						return fmt.Errorf("%s: request id %q, and %q for the client", method, id, a.header.Get("X-Request-ID"))
					}
					if snippet := got.Get("X-Securefiles-Snippet"); len(snippet) != 16 {
						return fmt.Errorf("%s: the question comes of the snippet %q", method, snippet)
					}
					got.Del("X-Request-ID")
					got.Del("X-Securefiles-Snippet")
					if !maps.EqualFunc(got, want, slices.Equal) {
						return fmt.Errorf("%s: the question is %v, want %v", method, got, want)
					}
				}
			}
		}
		return nil
	}},
	{"a verified certificate is told of, another one is not", func(b *stand) error {
		for _, row := range []struct {
			by                *authority
			verified, subject string
		}{{b.rig.clients, "SUCCESS", "CN=alice"}, {b.rig.stranger, "FAILED", ""}} {
			cert := row.by.client(pkix.Name{CommonName: "alice"}, nil)
			begin := time.Now()
			plain, err := net.DialTimeout("tcp", b.secure, patience)
			if err != nil {
				return err
			}
			b.scribe.take()
			conn := tls.Client(plain, &tls.Config{InsecureSkipVerify: true, // nginx is the test's own
				GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return cert, nil }})
			a, err := b.converse(conn, about("GET", planPath, allowed(planLocation)), begin)
			if err != nil {
				return err
			}
			if len(a.asked) != 1 {
				return fmt.Errorf("asked %v", a.asked)
			}
			h := a.asked[0].header
			if verified, _, _ := strings.Cut(h.Get("X-Securefiles-Client-Verify"), ":"); verified != row.verified || h.Get("X-Securefiles-Client-Dn") != row.subject || (h.Get("X-Securefiles-Client-Certificate") != "") != (row.subject != "") ||
				h.Get("X-Original-Scheme") != "https" {
				return fmt.Errorf("%s: the question is %v", row.verified, h)
			}
		}
		return nil
	}},
	{"questions share a connection", func(b *stand) error {
		var conns []int
		for range 3 {
			a, err := b.get(b.jealous, planPath, allowed(planLocation))
			if err != nil || len(a.asked) != 1 {
				return fmt.Errorf("asked %v, %v", a.asked, err)
			}
			conns = append(conns, a.asked[0].conn)
		}
		if conns[0] != conns[1] || conns[1] != conns[2] {
			return fmt.Errorf("three questions came over the connections %v", conns)
		}
		return nil
	}},
	{"a question that finds its connection closed is asked again", func(b *stand) error {
		for range 3 {
			a, err := b.get(b.hostile, planPath, allowed(planLocation, "stale", "1"))
			if err := errors.Join(err, a.expect(200, "0123456789\n", nil)); err != nil {
				return err
			}
		}
		return nil
	}},
	{"downloads are GET and HEAD, without a body", func(b *stand) error {
		for _, method := range []string{"POST", "PUT", "DELETE", "OPTIONS", "MKCOL"} {
			for _, server := range []string{b.plain, b.hostile} {
				if a, err := b.ask(server, about(method, planPath, allowed(planLocation), "Content-Length: 0")); err != nil || len(a.asked) != 0 || a.expect(405, "", refusal(said{"Allow": "GET, HEAD"})) != nil {
					return fmt.Errorf("%s: %+v, %v", method, a, err)
				}
			}
		}
		a, err := b.ask(b.plain, about("GET", planPath, allowed(planLocation), "Content-Length: 5", "", "hello"))
		if err != nil || a.status != 413 {
			return fmt.Errorf("GET with a body: %+v, %v", a, err)
		}
		a, err = b.ask(b.plain, about("HEAD", planPath, allowed(planLocation)))
		return errors.Join(err, a.expect(200, "", said{"Content-Length": "11"}))
	}},
	{"what another application hands over to the question's location is no question with a body", func(b *stand) error {
		const body = "GET /authorize HTTP/1.1\r\nHost: smuggled\r\n\r\n"
		a, err := b.ask(b.hostile, fmt.Sprintf("POST /other/?to=/-securefiles-question HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s", len(body), body))
		if err != nil {
			return err
		}
		for _, q := range a.asked {
			if !strings.HasSuffix(q.line, " localhost") {
				return fmt.Errorf("the service was asked %q", q.line)
			}
		}
		return nil
	}},
	{"only one file below the internal prefix can be opened", func(b *stand) error {
		for _, location := range []string{"", "plan.txt", "/", "/protected", "/protected/", "/protectedx/a", "/etc/passwd", planPath, "//protected/project/plan.txt", "/protected//project/plan.txt",
			"/protected/./project/plan.txt", "/protected/project/../project/plan.txt", "/protected/..", "/protected/project/..", "/protected/../outside.txt", "/protected/project/plan.txt\x01",
			"/protected-media/project/plan.txt", "@securefiles_allowed_main", "http://localhost/protected/project/plan.txt"} {
			for _, server := range []string{b.plain, b.hostile, b.jealous} {
				a, err := b.get(server, planPath, said{"status": "204", "X-Securefiles-Location": location})
				if err := errors.Join(err, a.expect(503, b.page("503"), refusal(said{"Retry-After": "5"}))); err != nil {
					return fmt.Errorf("location %q: %w", location, err)
				}
			}
		}
		return nil
	}},
	{"what is no regular file below the root is missing", func(b *stand) error {
		for _, name := range []string{"project", "project/", "project/sub", "project/sub/", "missing.txt", "link.txt", "missing/link.txt"} {
			for _, server := range []string{b.plain, b.hostile, b.jealous} {
				a, err := b.get(server, planPath, allowed("/protected/"+name))
				if err := errors.Join(err, a.expect(404, b.page("404"), refusal(said{"Location": "", "Content-Disposition": ""}))); err != nil {
					return fmt.Errorf("%s: %w", name, err)
				}
			}
		}
		return nil
	}},
	{"where links may be followed they are, whatever is inherited", func(b *stand) error {
		a, err := b.get(b.jealous, "/media/link.txt", allowed("/protected-media/link.txt"))
		return errors.Join(err, a.expect(200, "outside\n", nil))
	}},
	{"a page is served as it stands", func(b *stand) error {
		a, err := b.get(b.hostile, "/downloads/project/ssi.html", allowed("/protected/project/ssi.html"))
		return errors.Join(err, a.expect(200, ssiPage, said{"Content-Type": "text/html"}))
	}},
	{"an error of the file's own has the headers too", func(b *stand) error {
		a, err := b.get(b.plain, planPath, allowed(planLocation), `If-Match: "x"`)
		return errors.Join(err, a.expect(412, "", said{"X-Content-Type-Options": "nosniff", "X-Request-ID": "…", "Cross-Origin-Resource-Policy": "same-origin"}))
	}},
	{"the internal locations are for nobody outside", func(b *stand) error {
		for _, server := range []string{b.plain, b.hostile, b.jealous} {
			for _, target := range []string{planLocation, "/-securefiles-question", "/_securefiles/page"} {
				a, err := b.ask(server, "GET "+target+" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
				if err := errors.Join(err, a.expect(404, "", nil)); err != nil || len(a.asked) != 0 {
					return fmt.Errorf("%s: asked %v: %v", target, a.asked, err)
				}
			}
		}
		for _, target := range []string{planLocation, "/protected/private/secret.txt"} {
			a, err := b.ask(b.hostile, "GET /other/?to="+target+" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
			if err := errors.Join(err, a.expect(404, "", said{"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"})); err != nil {
				return fmt.Errorf("handed over %s: %w", target, err)
			}
		}
		return nil
	}},
	{"the service's status reaches the client, with what belongs to it", func(b *stand) error {
		native := map[string]int{"301": 302, "302": 302, "303": 302, "307": 302, "400": 400, "401": 401, "404": 404, "410": 410, "429": 429, "431": 400, "451": 451}
		for _, status := range strings.Fields("300 301 302 303 304 307 308 400 401 402 403 404 405 406 409 410 413 418 421 422 423 425 428 429 431 451 500 502 503 504 599") {
			want, ok := native[status]
			switch {
			case ok:
			case status < "413" || status > "418" && status < "500":
				want = 403
			default:
				want = 503
			}
			for _, server := range []string{b.plain, b.hostile, b.jealous} {
				for range 2 { // a cache would answer the second
					say := allowed(planLocation, "status", status, "Location", "/login/?next=x", "WWW-Authenticate", "Basic", "Retry-After", "17", "X-Accel-Redirect", "/protected/private/secret.txt",
						"X-Accel-Expires", "3600", "Set-Cookie", "a=b")
					header := refusal(said{"Expires": "", "Content-Disposition": "", "Location": "", "WWW-Authenticate": "", "Retry-After": "17"})
					switch want {
					case 302:
						header["Location"] = "/login/?next=x"
					case 401:
						header["WWW-Authenticate"], header["Retry-After"] = "Basic", ""
					}
					a, err := b.get(server, planPath, say, "User-Agent: Mozilla/4.0 (compatible; MSIE 6.0)")
					if err := errors.Join(err, a.expect(want, b.page(strconv.Itoa(want)), header)); err != nil {
						return fmt.Errorf("%s: %w", status, err)
					}
				}
			}
		}
		return nil
	}},
	{"an answer that keeps nginx waiting no longer names no time", func(b *stand) error {
		a, err := b.get(b.plain, planPath, said{"status": "503"})
		if err := errors.Join(err, a.expect(503, "", said{"Retry-After": "5"}), b.keepsConnection(about("GET", planPath, said{"status": "503"}))); err != nil {
			return err
		}
		a, err = b.get(b.plain, planPath, said{"status": "429"})
		return errors.Join(err, a.expect(429, "", said{"Retry-After": ""}))
	}},
	{"headers of 12 KiB are taken", func(b *stand) error {
		a, err := b.get(b.jealous, planPath, allowed(planLocation, "X-Securefiles-Disposition", strings.Repeat("x", 6<<10), "X-Filler", strings.Repeat("x", 1<<10), "X-Filler-2", strings.Repeat("x", 4<<10)))
		return errors.Join(err, a.expect(200, "0123456789\n", nil))
	}},
	{"no answer of the service is kept", func(b *stand) error {
		for _, server := range []string{b.hostile, b.jealous} {
			for range 2 {
				a, err := b.get(server, planPath, allowed(planLocation, "status", "200", "Cache-Control", "max-age=600"))
				if err := errors.Join(err, a.expect(200, "0123456789\n", nil)); err != nil || len(a.asked) != 1 {
					return fmt.Errorf("asked %v: %v", a.asked, err)
				}
			}
		}
		kept, err := os.ReadDir(filepath.Join(b.dir, "store"))
		if len(kept) != 0 {
			return fmt.Errorf("%d answers are stored", len(kept))
		}
		return err
	}},
	{"the delivery is in the log, with nothing that a client wrote", func(b *stand) error {
		const raw = `/downloads/a"b\c'd`
		for _, server := range []string{b.plain, b.hostile} {
			for _, row := range []struct {
				say    said
				status string
				bytes  float64
			}{{allowed(planLocation), "206", 4}, {said{"status": "403", "X-Securefiles-Reason": "policy", "X-Securefiles-User": `al"ice\`, "X-Securefiles-Decision": "7:-"}, "403", -1}} {
				request := about("GET", raw, row.say, "Range: bytes=2-5", "User-Agent: CLIENT", "X-Request-ID: CLIENT", "Referer: CLIENT")
				a, err := b.ask(server, request)
				if err != nil {
					return err
				}
				if err := b.logged("access.log", a, map[string]any{
					"decision": row.say["X-Securefiles-Decision"], "reason": "policy", "user": row.say["X-Securefiles-User"], "client": "127.0.0.1", "method": "GET",
					"uri": strings.Fields(request)[1], "protocol": "HTTP/1.1", "status": row.status, "range": "bytes=2-5", "completion": "OK", "location": row.say["X-Securefiles-Location"],
					"service_status": row.say["status"], "content_length": a.header.Get("Content-Length"),
				}, row.bytes); err != nil {
					return err
				}
				if err := b.logged("delivery.log", a, map[string]any{
					"v": 1.0, "method": "GET", "protocol": "HTTP/1.1", "status": row.status, "completion": "OK",
					"content_length": a.header.Get("Content-Length"), "content_range": a.header.Get("Content-Range"),
				}, row.bytes); err != nil {
					return err
				}
			}
		}
		a, err := b.ask(b.plain, about("BREW\\x", planPath, nil))
		if err := errors.Join(err, b.logged("delivery.log", a, map[string]any{"method": "other", "status": "405"}, -1)); err != nil && a.status != 400 {
			return err
		}
		a, err = b.ask(b.plain, about("HEAD", planPath, allowed(planLocation)))
		if err := errors.Join(err, b.logged("delivery.log", a, map[string]any{"method": "HEAD", "status": "200"}, 0)); err != nil {
			return err
		}
		if text := b.log("delivery.log"); strings.Contains(text, "CLIENT") || strings.Contains(text, "plan") || strings.Contains(text, "alice") {
			return fmt.Errorf("the delivery log holds what a client wrote: %s", text)
		}
		return nil
	}},
	{"a request is in both logs, wherever it ends", func(b *stand) error {
		for _, server := range []string{b.plain, b.hostile} {
			for _, row := range []struct {
				request string
				status  int
			}{
				{about("GET", planPath, allowed(planLocation)), 200}, {about("GET", planPath, allowed(planLocation), "Range: bytes=99-"), 416},
				{about("GET", planPath, allowed(planLocation), "Content-Length: 5", "", "hello"), 413}, {about("DELETE", planPath, nil), 405},
				{about("GET", planPath, said{"status": "302", "Location": "/login/"}), 302}, {about("GET", planPath, said{"status": "400"}), 400},
				{about("GET", planPath, said{"status": "401"}), 401}, {about("GET", planPath, said{"status": "403"}), 403}, {about("GET", planPath, said{"status": "404"}), 404},
				{about("GET", planPath, said{"status": "410"}), 410}, {about("GET", planPath, said{"status": "429"}), 429}, {about("GET", planPath, said{"status": "451"}), 451},
				{about("GET", planPath, said{"status": "500"}), 503}, {about("GET", planPath, allowed("/protected/missing")), 404}, {about("GET", planPath, allowed("/elsewhere")), 503},
				{about("GET", planPath, said{"status": "410", "X-Securefiles-Page": "ended"}), 410},
			} {
				a, err := b.ask(server, row.request)
				if err == nil && a.status != row.status {
					err = fmt.Errorf("status %d", a.status)
				}
				if err != nil {
					return fmt.Errorf("%d: %w", row.status, err)
				}
				for _, log := range []string{"delivery.log", "access.log"} {
					if row.status == 413 { // it has no id
						for deadline := time.Now().Add(soon); !strings.Contains(b.log(log), `"status":"413"`); time.Sleep(time.Millisecond) { // between polls
							if time.Now().After(deadline) {
								return fmt.Errorf("413 is not in %s", log)
							}
						}
						continue
					}
					if err := b.logged(log, a, map[string]any{"status": strconv.Itoa(row.status), "completion": "OK"}, -1); err != nil {
						return fmt.Errorf("%d: %w", row.status, err)
					}
				}
			}
		}
		return nil
	}},
	{"what the service did not prove is no answer", func(b *stand) error {
		for _, status := range []string{"204", "302", "400", "401", "403", "404", "410", "429", "451"} {
			of := func(id, status, reason, login, location string) said {
				return allowed(planLocation, "status", status, "Location", "/login/", "X-Securefiles-Proof", proof(proofSecret, []string{id}, status, reason, "", login, location))
			}
			for what, say := range map[string]said{
				"no proof":                    allowed(planLocation, "status", status, "X-Securefiles-Proof", ""),
				"another request's":           of("0123456789abcdef0123456789abcdef", status, "policy", "/login/", planLocation),
				"one of no request":           of("", status, "policy", "/login/", planLocation),
				"one with a time":             allowed(planLocation, "status", status, "X-Securefiles-Proof", "x,2147483647"),
				"the secret's digest alone":   of("", "", "", "", ""),
				"one that is a digest's name": allowed(planLocation, "status", status, "X-Securefiles-Proof", "1"),
			} {
				for _, server := range []string{b.plain, b.hostile, b.jealous} {
					a, err := b.get(server, planPath, say)
					if err := errors.Join(err, a.expect(503, b.page("503"), refusal(said{"Location": ""}))); err != nil {
						return fmt.Errorf("%s, %s: %w", status, what, err)
					}
				}
			}
		}
		return nil
	}},
	{"a proof is of one answer: its status, reason, page, login page and location", func(b *stand) error {
		for _, row := range []struct{ status, reason, page, login, location string }{
			{"200", "policy", "", "", planLocation}, {"204", "default-deny", "", "", planLocation}, {"204", "policy", "ended", "", planLocation}, {"204", "policy", "", "/login/", planLocation}, {"204", "policy", "", "", planLocation + "x"}, {"204", "policy", "", "", ""},
		} {
			a, err := b.get(b.plain, planPath, allowed(planLocation, "Prove", row.status+"|"+row.reason+"|"+row.page+"|"+row.login+"|"+row.location))
			if err := errors.Join(err, a.expect(503, "", nil)); err != nil {
				return fmt.Errorf("%v: %w", row, err)
			}
		}
		return nil
	}},
	{"other sites embed nothing, whether it is allowed or not", func(b *stand) error {
		for _, row := range []struct {
			path, site, mode, dest, origin string
			asked                          bool
		}{
			{planPath, "none", "navigate", "document", "", true},
			{planPath, "same-origin", "no-cors", "image", "", true},
			{planPath, "same-origin", "navigate", "iframe", "", true},
			{planPath, "cross-site", "navigate", "document", "", true}, // a link in a mail
			{planPath, "same-site", "navigate", "document", "", true},
			{planPath, "cross-site", "navigate", "empty", "", true}, // <a download>
			{planPath, "cross-site", "cors", "empty", "https://app.example.org", true},
			{planPath, "cross-site", "no-cors", "image", "", false},
			{planPath, "cross-site", "websocket", "websocket", "", false},
			{planPath, "same-site", "websocket", "empty", "", false},
			{planPath, "same-origin", "websocket", "websocket", "", true},
			{planPath, "cross-site", "no-cors", "script", "", false},
			{planPath, "same-site", "no-cors", "video", "", false},
			{planPath, "cross-site", "cors", "empty", "https://evil.example.org", false},
			{planPath, "cross-site", "cors", "empty", "null", false},
			{planPath, "cross-site", "cors", "empty", "https://app.example.org.evil.example", false},
			{planPath, "cross-site", "navigate", "iframe", "", false},
			{planPath, "cross-site", "navigate", "frame", "", false},
			{planPath, "cross-site", "navigate", "object", "", false},
			{planPath, "cross-site", "navigate", "embed", "", false},
			{planPath, "same-site", "navigate", "iframe", "", false},
			{"/media/project/plan.txt", "same-site", "no-cors", "image", "", true},
			{"/media/project/plan.txt", "cross-site", "no-cors", "image", "", false},
		} {
			for _, status := range []string{"204", "404", "401"} {
				headers := []string{"Sec-Fetch-Site: " + row.site, "Sec-Fetch-Mode: " + row.mode, "Sec-Fetch-Dest: " + row.dest}
				if row.origin != "" {
					headers = append(headers, "Origin: "+row.origin)
				}
				for _, server := range []string{b.plain, b.hostile} {
					location := strings.Replace(strings.Replace(row.path, "/media", "/protected-media", 1), "/downloads", "/protected", 1)
					a, err := b.get(server, row.path, allowed(location, "status", status), headers...)
					if err != nil || (len(a.asked) == 1) != row.asked {
						return fmt.Errorf("%v: asked %v, %v", row, a.asked, err)
					}
					if row.asked {
						continue
					}
					policy := "same-origin"
					if row.path != planPath {
						policy = "same-site"
					}
					if err := a.expect(403, b.page("403"), refusal(said{"Cross-Origin-Resource-Policy": policy})); err != nil {
						return fmt.Errorf("%v: %w", row, err)
					}
				}
			}
		}
		a, err := b.get(b.plain, "/media/project/plan.txt", allowed("/protected-media/project/plan.txt"))
		return errors.Join(err, a.expect(200, "0123456789\n", said{"Cross-Origin-Resource-Policy": "same-site"}))
	}},
	{"a listed origin reads, and is told why it may not", func(b *stand) error {
		const app = "https://app.example.org"
		cors := said{"Access-Control-Allow-Origin": app, "Access-Control-Allow-Credentials": "true", "Vary": "Origin"}
		for _, server := range []string{b.plain, b.hostile} {
			for _, say := range []said{allowed(planLocation), {"status": "404"}, {"status": "401"}, {"status": "429"}, {"status": "400"}, {"status": "500"}, {"status": "403"}, allowed("/protected/missing")} {
				a, err := b.get(server, planPath, say, "Origin: "+app, "Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: cors", "Sec-Fetch-Dest: empty")
				if a.status == 200 {
					cors["Access-Control-Expose-Headers"] = "Accept-Ranges, Content-Disposition, Content-Length, Content-Range, ETag, X-Request-ID"
				} else {
					delete(cors, "Access-Control-Expose-Headers")
				}
				if err := errors.Join(err, a.expect(a.status, "", cors)); err != nil {
					return fmt.Errorf("%v: %w", say, err)
				}
			}
			a, err := b.get(server, planPath, allowed(planLocation), "Origin: "+app, "Range: bytes=99-")
			if err := errors.Join(err, a.expect(416, "", said{"Access-Control-Allow-Origin": app, "Access-Control-Allow-Credentials": "true", "Vary": "Origin"})); err != nil {
				return err
			}
			a, err = b.ask(server, about("OPTIONS", planPath, nil, "Origin: "+app, "Access-Control-Request-Method: GET", "Access-Control-Request-Headers: authorization"))
			if err := errors.Join(err, a.expect(204, "", said{"Access-Control-Allow-Origin": app, "Access-Control-Allow-Credentials": "true", "Access-Control-Allow-Methods": "GET, HEAD",
				"Access-Control-Allow-Headers": "Authorization, Range, If-Range, If-None-Match, If-Modified-Since", "Access-Control-Max-Age": "600", "Vary": "Origin", "Cache-Control": "no-store", "Expires": ""})); err != nil || len(a.asked) != 0 {
				return fmt.Errorf("preflight: %w", err)
			}
			a, err = b.ask(server, about("DELETE", planPath, nil, "Origin: "+app))
			if err := errors.Join(err, a.expect(405, "", refusal(said{"Access-Control-Allow-Origin": app, "Access-Control-Allow-Credentials": "true"}))); err != nil {
				return err
			}
			for _, other := range []string{"https://evil.example.org", "null", "http://app.example.org", "https://app.example.org:444"} {
				a, err := b.ask(server, about("OPTIONS", planPath, nil, "Origin: "+other, "Access-Control-Request-Method: GET"))
				if err := errors.Join(err, a.expect(405, "", said{"Access-Control-Allow-Origin": "", "Access-Control-Allow-Credentials": ""})); err != nil {
					return fmt.Errorf("preflight of %s: %w", other, err)
				}
			}
			a, err = b.ask(server, about("OPTIONS", "/media/project/plan.txt", nil, "Origin: "+app))
			if err := errors.Join(err, a.expect(405, "", said{"Access-Control-Allow-Origin": "", "Access-Control-Allow-Credentials": ""})); err != nil {
				return fmt.Errorf("preflight for another download: %w", err)
			}
		}
		return nil
	}},
	{"an outcome shows a page of the service, with the page's own status", func(b *stand) error {
		for _, server := range []string{b.plain, b.hostile, b.jealous} {
			for page, status := range map[string]int{"ended": 410, "shown": 200} {
				a, err := b.get(server, planPath, said{"status": "410", "X-Securefiles-Page": page})
				if err := errors.Join(err, a.expect(status, servicePage, said{"X-Page": "own", "Expires": "", "Cache-Control": "no-store", "Cross-Origin-Resource-Policy": "same-origin"})); err != nil {
					return err
				}
			}
			a, err := b.get(server, planPath, said{"status": "410", "X-Securefiles-Page": "ended"})
			if err != nil {
				return err
			}
			if len(a.asked) != 2 || a.asked[1].line != "GET /page HTTP/1.1 localhost" {
				return fmt.Errorf("asked %v", a.asked)
			}
			first, second := a.asked[0].header, a.asked[1].header
			if !maps.EqualFunc(first, second, slices.Equal) {
				return fmt.Errorf("the page is asked for with %v, the question with %v", second, first)
			}
			a, err = b.get(server, planPath, said{"status": "410", "X-Securefiles-Page": "broken"})
			if err := errors.Join(err, a.expect(503, b.page("503"), refusal(said{"Retry-After": "5"}))); err != nil {
				return fmt.Errorf("a page that is not to be had: %w", err)
			}
		}
		a, err := b.get(b.plain, planPath, said{"status": "410", "X-Securefiles-Page": "late"})
		if err := errors.Join(err, a.expect(503, b.page("503"), refusal(said{"Retry-After": "5"}))); err != nil {
			return fmt.Errorf("a page that does not come: %w", err)
		}
		return nil
	}},
	{"ranges, validators and bytes are the file's own", func(b *stand) error {
		for _, server := range []string{b.plain, b.hostile, b.jealous} {
			a, err := b.get(server, planPath, allowed(planLocation), "Range: bytes=2-5", "Accept-Encoding: gzip")
			if err := errors.Join(err, a.expect(206, "2345", said{"Content-Range": "bytes 2-5/11"})); err != nil {
				return err
			}
			a, err = b.get(server, planPath, allowed(planLocation), "Range: bytes=0-1,4-5")
			if err != nil || a.status != 206 || !strings.HasPrefix(a.header.Get("Content-Type"), "multipart/byteranges") {
				return fmt.Errorf("two ranges: %d %v, %w", a.status, a.header, err)
			}
			a, err = b.get(server, planPath, allowed(planLocation), "If-Modified-Since: Fri, 01 Jan 2100 00:00:00 GMT")
			if err := errors.Join(err, a.expect(200, "0123456789\n", nil)); err != nil {
				return fmt.Errorf("a file that was put back to an older one: %w", err)
			}
			a, err = b.get(server, "/downloads/project/page.html", allowed("/protected/project/page.html"), "Accept-Encoding: gzip")
			if err := errors.Join(err, a.expect(200, someFiles()["project/page.html"], said{"Content-Encoding": "", "Accept-Ranges": "bytes"})); err != nil {
				return err
			}
		}
		return nil
	}},
	{"text is compressed where it is asked for", func(b *stand) error {
		for _, path := range []string{"project/table.csv", "large.txt"} {
			a, err := b.get(b.plain, "/media/"+path, allowed("/protected-media/"+path), "Accept-Encoding: gzip")
			if err := errors.Join(err, a.expect(200, "", said{"Content-Encoding": "gzip", "Accept-Ranges": ""})); err != nil {
				return err
			}
			if !slices.Contains(a.header.Values("Vary"), "Accept-Encoding") {
				return fmt.Errorf("Vary is %q", a.header.Values("Vary"))
			}
		}
		return nil
	}},
	{"the service sets the pace", func(b *stand) error {
		// The first second is free, the rest takes one or two more.
		a, err := b.get(b.jealous, "/downloads/large.bin", allowed("/protected/large.bin", "X-Securefiles-Limit-Rate", "25000"))
		if err := errors.Join(err, a.expect(200, strings.Repeat("large\n", 64<<10/6), nil)); err != nil {
			return err
		}
		if a.took < 900*time.Millisecond {
			return fmt.Errorf("64 KiB at 25000 bytes a second came within %v", a.took)
		}
		return nil
	}},
}

// rowsApart are what the snippet does about a service that is slow or away, and
// where it is changed: each with an nginx of its own.
var rowsApart = []struct {
	name  string
	first func(t *testing.T) string // the address of the service, instead of the scribe's
	spare bool                      // the scribe is asked when that fails
	edit  func(server string) string
	check func(b *stand) error
}{
	{name: "whoever lets the client's headers through still has it choose no groups", edit: func(server string) string {
		return strings.Replace(server, "proxy_pass_request_headers off;", "proxy_pass_request_headers on;", 1)
	}, check: func(b *stand) error {
		a, err := b.get(b.plain, planPath, nil, "X-Remote-User: mallory", "X-Remote-Groups: staff", "X-Other: x")
		if err != nil || len(a.asked) != 1 || a.asked[0].header.Get("X-Remote-User") != "carol" || a.asked[0].header.Get("X-Remote-Groups") != "" {
			return fmt.Errorf("asked %v, %v", a.asked, err)
		}
		return nil
	}},
	{name: "a directory that was a file when it was looked at is missing, and nginx's redirect to it shows nothing", edit: func(server string) string {
		return looks.ReplaceAllString(server, "") // as if it said yes
	}, check: func(b *stand) error {
		for _, server := range []string{b.plain, b.hostile, b.jealous} {
			for _, location := range []string{"/protected/project", "/protected/project/sub"} {
				a, err := b.get(server, planPath, allowed(location))
				if err := errors.Join(err, a.expect(404, b.page("404"), refusal(said{"Location": ""}))); err != nil {
					return fmt.Errorf("%s: %w", location, err)
				}
			}
		}
		return nil
	}},
	{name: "what nginx fails to open, as without descriptors, is 503 with when to come again", edit: func(server string) string {
		return looks.ReplaceAllString(server, "") // a socket, which open(2) refuses by ENXIO, would be missing
	}, check: func(b *stand) error {
		for _, server := range []string{b.plain, b.hostile, b.jealous} {
			a, err := b.get(server, planPath, allowed("/protected/socket"))
			if err := errors.Join(err, a.expect(503, b.page("503"), refusal(said{"Retry-After": "5"}))); err != nil {
				return err
			}
		}
		return nil
	}},
	{name: "a page of one's own that is not there leaves nginx's, with the status", edit: func(server string) string {
		return strings.ReplaceAll(server, ".html =", ".none =")
	}, check: func(b *stand) error {
		for _, server := range []string{b.plain, b.hostile, b.jealous} {
			for said, want := range map[string]int{"401": 401, "403": 403, "404": 404, "410": 410, "429": 429, "500": 503} {
				a, err := b.get(server, planPath, map[string]string{"status": said})
				if err := errors.Join(err, a.expect(want, "", refusal(nil))); err != nil || a.body == "" {
					return fmt.Errorf("%s: %q, %w", said, a.body, err)
				}
			}
		}
		return nil
	}},
	{name: "a password that nginx itself asks for is asked for before anything has to be proved", edit: func(server string) string {
		return "auth_basic \"nginx's\"; auth_basic_user_file /dev/null;\n" + server
	}, check: func(b *stand) error {
		a, err := b.get(b.plain, planPath, nil)
		return errors.Join(err, a.expect(401, b.page("401"), refusal(said{"WWW-Authenticate": `Basic realm="nginx's"`})))
	}},
	{name: "a service that accepts and does not answer is waited for two seconds", first: silent, check: func(b *stand) error {
		return errors.Join(b.unavailable(about("GET", planPath, nil)), b.keepsConnection(about("GET", planPath, nil)))
	}},
	{name: "a service that is away costs no client its connection", first: freeport.Address, check: func(b *stand) error {
		return errors.Join(b.unavailable(about("GET", planPath, nil)), b.keepsConnection(about("GET", planPath, nil)))
	}},
	{name: "a service that does not accept is waited for a second", first: fullQueue, check: func(b *stand) error {
		return b.unavailable(about("GET", planPath, nil))
	}},
	{name: "a service that does not read is waited for two seconds", first: silent, check: func(b *stand) error {
		long := "Cookie: " + strings.Repeat("x", 4<<20-1<<10) // more than the kernel takes for it
		return b.unavailable(about("GET", planPath, nil, long, long, long))
	}},
	{name: "a second service is asked when the first is away", first: freeport.Address, spare: true, check: func(b *stand) error {
		a, err := b.get(b.jealous, planPath, allowed(planLocation))
		return errors.Join(err, a.expect(200, "0123456789\n", nil))
	}},
	{name: "a second service is asked when the first does not answer", first: silent, spare: true, check: func(b *stand) error {
		a, err := b.get(b.jealous, planPath, allowed(planLocation))
		return errors.Join(err, a.expect(200, "0123456789\n", nil))
	}},
	{name: "a client that hangs up costs no connection to the service", check: func(b *stand) error {
		b.scribe.take()
		conn, err := net.Dial("tcp", b.plain)
		if err != nil {
			return err
		}
		if _, err := io.WriteString(conn, about("GET", planPath, said{"status": "403", "wait": "1"})); err != nil {
			return err
		}
		var first []question
		for deadline := time.Now().Add(patience); len(first) == 0 && time.Now().Before(deadline); time.Sleep(time.Millisecond) { // between polls
			first = b.scribe.take()
		}
		if err := conn.Close(); err != nil || len(first) != 1 {
			return fmt.Errorf("asked %v, %v", first, err)
		}
		// The service answers after a second; what comes next goes the same way.
		for deadline := time.Now().Add(patience); !b.scribe.isGone(first[0].conn) && time.Now().Before(deadline); {
			a, err := b.get(b.plain, planPath, said{"status": "403"})
			if err != nil || len(a.asked) != 1 {
				return fmt.Errorf("asked %v, %v", a.asked, err)
			}
			if a.asked[0].conn == first[0].conn {
				return nil
			}
		}
		return errors.New("its connection to the service is gone")
	}},
}

// keepsConnection asks for a file that is unavailable: the client may ask again on the same
// connection, and need not make another one while everybody does.
func (b *stand) keepsConnection(request string) error {
	ask := func(server string) error {
		conn, err := net.DialTimeout("tcp", server, patience)
		if err != nil {
			return err
		}
		defer conn.Close() // one request a connection
		if err := conn.SetDeadline(time.Now().Add(soon)); err != nil {
			return err
		}
		if _, err := io.WriteString(conn, strings.Replace(request, "Connection: close\r\n", "", 1)); err != nil {
			return err
		}
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			return err
		}
		_ = resp.Body.Close() // what is in it does not matter
		if resp.StatusCode != 503 || resp.Close {
			return fmt.Errorf("status %d, Connection %q", resp.StatusCode, resp.Header["Connection"])
		}
		return nil
	}
	servers := []string{b.plain, b.hostile, b.jealous}
	errs := make(chan error, len(servers))
	for _, server := range servers { // all at once: a service that does not answer is waited for
		go func() { errs <- ask(server) }()
	}
	return errors.Join(<-errs, <-errs, <-errs)
}

// unavailable asks for a file, which must soon be told to be unavailable.
func (b *stand) unavailable(request string) error {
	a, err := b.ask(b.jealous, request)
	return errors.Join(err, a.expect(503, "", said{"Retry-After": "5"}))
}

// silent is a listener that accepts connections and reads nothing.
func silent(t *testing.T) string {
	hang := make(chan struct{})
	t.Cleanup(func() { close(hang) })
	return answering(t, func(conn net.Conn) { <-hang; _ = conn.Close() })
}

// fullQueue is a listener that accepts no more connections.
func fullQueue(t *testing.T) string {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) }) // the test is over
	if err := errors.Join(unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}), unix.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	address := fmt.Sprintf("127.0.0.1:%d", name.(*unix.SockaddrInet4).Port)
	for {
		conn, err := net.DialTimeout("tcp", address, 200*time.Millisecond)
		if err != nil {
			return address
		}
		t.Cleanup(func() { _ = conn.Close() }) // it is held until here
	}
}

const printedService = "127.0.0.1:9180"

// faults returns what rows find wrong with a snippet: everything, or the first.
func (g *rig) faults(t *testing.T, p snippet, everything bool) (found []string) {
	t.Helper()
	note := func(name string, err error) (goOn bool) {
		if err != nil {
			found = append(found, name+": "+err.Error())
		}
		return err == nil || everything
	}
	with := func(p snippet, first string, s *scribe) *stand {
		p.http = strings.Replace(p.http, "server "+printedService+" max_conns=512;", "server "+first+";", 1)
		b, err := g.stand(t, p, s)
		if err != nil {
			note("it starts", err)
			return nil
		}
		return b
	}
	if !note("the half for http { } is valid alone", g.takesHTTPAlone(t, p)) {
		return found
	}
	s := newScribe(t)
	b := with(p, s.address(), s)
	if b == nil {
		return found
	}
	for _, row := range snippetRows {
		if !note(row.name, row.check(b)) {
			return found
		}
	}
	for _, row := range rowsApart {
		s, changed := newScribe(t), p
		first := s.address()
		if row.first != nil {
			first = row.first(t)
		}
		if row.spare {
			changed.http = strings.Replace(p.http, "# server unix:/run/securefiles/second.sock max_conns=512 backup max_fails=0;", "server "+s.address()+" max_conns=512 backup max_fails=0;", 1)
		}
		if row.edit != nil {
			changed.server = row.edit(p.server)
		}
		if b := with(changed, first, s); b == nil || !note(row.name, row.check(b)) {
			return found
		}
	}
	return found
}

// takesHTTPAlone says why nginx would not take the half for http { } without the other,
// whatever sites there are beside.
func (g *rig) takesHTTPAlone(t *testing.T, p snippet) error {
	t.Helper()
	conf := filepath.Join(t.TempDir(), "nginx.conf")
	text := "pid nginx.pid; events {}\nhttp {\n" + p.http + "access_log off;\nserver { listen 127.0.0.1:8080; }\n}\n"
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("nginx", "-t", "-p", filepath.Dir(conf), "-e", "stderr", "-c", conf).CombinedOutput()
	if err != nil {
		return fmt.Errorf("nginx: %s", strings.TrimSpace(string(out)))
	}
	return nil
}

// Each line of the snippet is there for something that nginx then does: without
// it a row fails, in a friendly server or in one that inherits the worst.
func TestEveryLineOfTheSnippetIsNeeded(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	whole, paged := printSnippet(t, g.dir, printedService, ""), printSnippet(t, g.dir, printedService, ownPages)
	for _, s := range []snippet{whole, paged} {
		if found := g.faults(t, s, true); len(found) > 0 {
			t.Fatalf("the snippet as it is, pages %v:\n%s", s.pages, strings.Join(found, "\n"))
		}
	}
	ofPages := func(m mutant) bool {
		return strings.Contains(m.name, "securefiles_page_") || strings.Contains(m.name, "recursive_error_pages on")
	}
	saves := func(m mutant) bool { return strings.Contains(m.name, "open_file_cache") } // work, and changes no answer
	mutants := slices.DeleteFunc(whole.mutants(), func(m mutant) bool { return ofPages(m) || saves(m) })
	for _, m := range paged.mutants() { // what there is for pages
		if ofPages(m) {
			m.name = "with pages: " + m.name
			mutants = append(mutants, m)
		}
	}
	if len(mutants) < 300 {
		t.Fatalf("%d lines and words only", len(mutants))
	}
	for _, m := range mutants {
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			found := g.faults(t, m.snippet, false)
			if len(found) == 0 {
				t.Error("nothing notices that it is gone")
			} else {
				t.Log(found[0])
			}
		})
	}
}
