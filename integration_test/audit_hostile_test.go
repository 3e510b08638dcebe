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

// raw sends bytes to nginx, and reports whether it answered.
func (s *site) raw(request string) bool {
	s.t.Helper()
	conn, err := net.DialTimeout("tcp", s.web, 10*time.Second)
	if err != nil {
		s.t.Fatal(err)
	}
	defer conn.Close() //nolint:errcheck // it is read to its end
	_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
	if _, err := io.WriteString(conn, request); err != nil {
		return false // it hung up
	}
	line, err := bufio.NewReader(conn).ReadString('\n')
	return err == nil && strings.HasPrefix(line, "HTTP/1.1 ")
}
