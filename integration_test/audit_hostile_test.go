package integration_test

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Through real nginx: five hundred hostile paths, user agents, referrers and names, each
// with secrets wherever one can stand. Each record is a line of printable JSON, and no
// secret is in any record, log or metric of the service.
func TestAuditOfHostileRequestsHoldsNoSecret(t *testing.T) {
	t.Parallel()
	s := start(t, plan{
		policy:   alicesPolicy,
		identity: "identity:\n  - htpasswd: users.htpasswd\n  - session: {url: 'http://127.0.0.1:1/', cookies: [sid]}\n",
		extra:    "audit: {file: audit.jsonl}\nnginx: {delivery_log: " + filepath.Join(t.TempDir(), "unused.log") + ", access_log: off}\n",
	})
	const secret = "PLANTED0SECRET"
	texts := []string{
		"\x1b[2J\x1b[31m", "\u009b31m", "\x7f", "\xff\xfe\xfd", "\u202egpj", "%0d%0aSet-Cookie:x", "%00", "%1b%5b31m", "a\tb", "\x01\x02", "=cmd|'/C calc'!A0", `","user.id":"admin","x":"`, "\\u001b[31m",
		"%ff%fe", "%e2%80%ae", "%2e%2e/%2e%2e/etc/passwd", "..;/", "//x", "%5c", "<script>", "'\"`$(reboot)", strings.Repeat("A", 1500), strings.Repeat("%41", 500), "\u2028", "😀", "{{7*7}}", "${jndi:ldap://x}", "\b\b", "%c0%af",
	}
	const n = 500
	answered := 0
	for i := range n {
		a, b, c := texts[i%len(texts)], texts[(i*3+i/len(texts))%len(texts)], texts[(i*5+1+i/len(texts))%len(texts)]
		credentials := []string{
			"Authorization: Bearer " + secret + "token", "Cookie: sid=" + secret + "; other=" + secret,
			"Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte("alice"+a+":"+secret)),
			"Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte("alice:alice")) + "\r\nCookie: x=" + secret,
		}[i%4]
		path := "/downloads/" + []string{"public/", "project/", "", "hr/"}[i/4%4] + strings.ReplaceAll(b, " ", "%20")
		query := []string{"?token=" + secret, "?link=" + secret, "?a=b&password=" + secret + "#" + secret, ""}[i/3%4]
		request := "GET " + path + query + " HTTP/1.1\r\nHost: files.example.org\r\nConnection: close\r\n" + credentials + "\r\nUser-Agent: " + c + "\r\nReferer: https://user:" + secret + "@app.example" + a + "/x?" + secret + "\r\nRange: bytes=0-1\r\n\r\n"
		if s.raw(request) {
			answered++
		}
	}
	all, torn := s.records("audit.jsonl")
	if answered < n/2 || torn != 0 || len(all) < n/4 {
		t.Fatalf("%d answers, %d records, %d torn", answered, len(all), torn)
	}
	text, err := os.ReadFile(filepath.Join(s.dir, "audit.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range bytes.Lines(text) {
		for _, r := range string(bytes.TrimSuffix(line, []byte("\n"))) {
			if r < ' ' || r > '~' {
				t.Fatalf("%q in %q", r, line)
			}
		}
		if !json.Valid(line) {
			t.Errorf("no JSON: %s", line)
		}
	}
	_, metrics := s.adminGet("/metrics")
	shown := s.run(0, "audit")
	for what, held := range map[string]string{"the records": string(text), "the service's log": s.log.String(), "the metrics": metrics, "what audit shows": shown} {
		if strings.Contains(held, secret) || strings.Contains(held, base64.RawStdEncoding.EncodeToString([]byte(secret))) {
			at := strings.Index(held, secret)
			t.Errorf("a secret is in %s: %s", what, held[max(0, at-200):min(len(held), at+50)])
		}
	}
	for _, r := range shown {
		if r != '\n' && !strconv.IsPrint(r) {
			t.Fatalf("%q in what audit shows", r)
		}
	}
	t.Logf("%d requests, %d answers, %d records", n, answered, len(all))
}

// Real credentials, those that open something: of a link, a password, a token of nginx's
// and a key nothing is in a record, a log or a metric, whatever came of the request; of the
// link its id is.
func TestAuditOfWhatOpensAFileHoldsNothingOfIt(t *testing.T) {
	t.Parallel()
	p := deliveredPlan(", chain: {key_file: audit.key}", nil)
	p.policy = sharing
	p.extra += "links: {keys_file: link-keys.json}\n"
	before := p.before
	p.before = func(s *site) {
		before(s)
		s.auditKey()
		s.run(0, "link", "key", "new")
		s.edit("securefiles.yaml", "level: info", "level: debug")
	}
	s := start(t, p)
	link := s.run(0, "link", "create", "/project/plan.txt", "--as", "alice")
	token := link[strings.Index(link, "?link=")+len("?link="):]
	s.status("", link, 200)
	s.status("", link+"&"+"x=1", 200)
	s.status("", link, 206, with("Range", "bytes=2-4"))
	s.status("", strings.Replace(link, "plan.txt", "page.html", 1), 403)
	s.status("alice", "/downloads/project/page.html?link="+token, 200)
	s.status("bob", "/downloads/private/secret.txt", 404, with("Cookie", "session="+token), with("Referer", "http://files/downloads/project/plan.txt?link="+token))
	records, _ := s.records("audit.jsonl")
	if len(records) == 0 || records[0].Type == "" {
		t.Fatal("no records")
	}
	id := ""
	for _, r := range records {
		if r.Link != "" {
			id = r.Link
		}
	}
	if id == "" {
		t.Error("no record names the link")
	}
	_, metrics := s.adminGet("/metrics")
	holds := map[string]string{"the service's log": s.log.String(), "the metrics": metrics, "what audit shows": s.run(0, "audit", "--json")}
	key, err := os.ReadFile(filepath.Join(s.dir, "audit.key"))
	if err != nil {
		t.Fatal(err)
	}
	for _, pattern := range []string{"audit.jsonl*", "logs/*"} {
		files, err := filepath.Glob(filepath.Join(s.dir, pattern))
		if err != nil || len(files) < 2 {
			t.Fatal(files, err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			holds[file] = string(text)
		}
	}
	parts := strings.Split(token, ".")
	for what, secret := range map[string]string{
		"the link": token, "its signature": parts[len(parts)-1], "its claims": parts[1], "a password": base64.StdEncoding.EncodeToString([]byte("alice:alice")),
		"the key": strings.TrimSpace(string(key)[strings.LastIndex(string(key), "+")+1:]),
	} {
		for where, text := range holds {
			if i := strings.Index(text, secret); i >= 0 {
				t.Errorf("%s is in %s: %q", what, where, text[max(0, i-200):min(len(text), i+50)])
			}
		}
	}
}

// raw sends bytes to nginx, and reports whether it answered.
func (s *site) raw(request string) bool {
	s.t.Helper()
	conn, err := net.DialTimeout("tcp", s.web, patience)
	if err != nil {
		s.t.Fatal(err)
	}
	defer conn.Close() //nolint:errcheck // it is read to its end
	_ = conn.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(conn, request); err != nil {
		return false // it hung up
	}
	line, err := bufio.NewReader(conn).ReadString('\n')
	return err == nil && strings.HasPrefix(line, "HTTP/1.1 ")
}
