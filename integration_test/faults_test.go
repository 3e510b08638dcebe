package integration_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"securefiles/internal/freeport"
)

// answering starts a listener that does as it is told with each connection.
func answering(t *testing.T, do func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() }) // the test is over
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go do(conn)
		}
	}()
	return l.Addr().String()
}

// says answers each connection with the same bytes and closes it.
func says(t *testing.T, text string) string {
	return answering(t, func(conn net.Conn) {
		buf := make([]byte, 4096)
		_, _ = conn.Read(buf)             // the question
		_, _ = io.WriteString(conn, text) // nginx may have hung up
		_ = conn.Close()
	})
}

// S11: without an answer that makes sense there is no file, and the client is
// told to come again. S28: CVE-2026-54762 (served without an answer).
func TestServiceDownSlowOrTalkingNonsense(t *testing.T) {
	t.Parallel()
	const granted = "X-Securefiles-Location: /protected/project/plan.txt\r\n"
	hang := make(chan struct{})
	t.Cleanup(func() { close(hang) })
	for name, service := range map[string]string{
		"nobody listens":    freeport.Address(t),
		"accepts and hangs": answering(t, func(conn net.Conn) { <-hang; _ = conn.Close() }),
		"closes at once":    answering(t, func(conn net.Conn) { _ = conn.Close() }),
		"half an answer": answering(t, func(conn net.Conn) {
			_, _ = io.WriteString(conn, "HTTP/1.1 204 No Content\r\n"+granted)
			<-hang
			_ = conn.Close()
		}),
		"a cut answer":       says(t, "HTTP/1.1 204 No Content\r\n"+granted),
		"garbage":            says(t, "\x00\x01\x02 nonsense\r\n\r\n"),
		"another protocol":   says(t, "220 mail.example.org ESMTP\r\n"),
		"HTTP/0.9":           says(t, "yes, let them have it\n"),
		"status 000":         says(t, "HTTP/1.1 000 What\r\nContent-Length: 0\r\n"+granted+"\r\n"),
		"100 without end":    says(t, "HTTP/1.1 100 Continue\r\n\r\n"),
		"500":                says(t, "HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n"+granted+"\r\n"),
		"502":                says(t, "HTTP/1.1 502 Oops\r\nContent-Length: 0\r\n"+granted+"\r\n"),
		"503":                says(t, "HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n"+granted+"\r\n"),
		"504":                says(t, "HTTP/1.1 504 Oops\r\nContent-Length: 0\r\n"+granted+"\r\n"),
		"418":                says(t, "HTTP/1.1 418 Teapot\r\nContent-Length: 0\r\n"+granted+"\r\n"),
		"204, no location":   says(t, "HTTP/1.1 204 No Content\r\n\r\n"),
		"200, no location":   says(t, "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nyes"),
		"206, no location":   says(t, "HTTP/1.1 206 Partial\r\nContent-Length: 3\r\n\r\nyes"),
		"huge headers":       says(t, "HTTP/1.1 204 No Content\r\n"+strings.Repeat("X-Filler: "+strings.Repeat("x", 1000)+"\r\n", 40)+granted+"\r\n"),
		"a NUL in the value": says(t, "HTTP/1.1 204 No Content\r\nX-Securefiles-Location: /protected/project/plan.txt\x00\r\n\r\n"),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := start(t, plan{policy: alicesPolicy, upstream: service})
			begin := time.Now()
			r := s.status("alice", "/downloads/project/plan.txt", 503)
			if r.header.Get("Retry-After") == "" || strings.Contains(r.body, "0123") {
				t.Errorf("%+v", r)
			}
			if took := time.Since(begin); took > 3*time.Second+slack {
				t.Errorf("it took %v", took)
			}
		})
	}
}

// A scripted service answers as the path says.
func scripted(t *testing.T, answers map[string]func(http.Header) int) string {
	t.Helper()
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name := strings.TrimPrefix(r.Header.Get("X-Original-Uri"), "/downloads/")
		answer, ok := answers[name]
		if !ok {
			t.Errorf("asked about %q", name)
			return
		}
		w.WriteHeader(answer(w.Header()))
	}))
	t.Cleanup(service.Close)
	return strings.TrimPrefix(service.URL, "http://")
}

// S7, S11: a location that is not one file below the internal prefix opens
// nothing.
func TestLocationsThatOpenNothing(t *testing.T) {
	t.Parallel()
	locations := []string{
		"", " ", "/", "plan.txt", "project/plan.txt", "protected/project/plan.txt", "./protected/project/plan.txt",
		"/protected", "/protected/", "/protected//", "/protected//project/plan.txt", "/protected/./project/plan.txt",
		"/protected/../etc/passwd", "/protected/project/../../../../../../../etc/passwd", "/protected/project/../plan.txt",
		"/protected/project/..", "/protected/project/.", "//protected/project/plan.txt", "/Protected/project/plan.txt",
		"/protectedx/project/plan.txt", "/protected-secret/x", "/etc/passwd", "/downloads/project/plan.txt", "/-securefiles-question", "/_securefiles/page",
		"@securefiles_allowed_main", "@securefiles_no", "http://127.0.0.1/protected/project/plan.txt", "//evil.example/protected/x",
		"/protected/project", "/protected/project/", "/protected/project/missing.txt", "/protected/project%2fplan.txt",
		"/protected/project/plan.txt%00", "/protected/%2e%2e/%2e%2e/etc/passwd", "/protected/project/plan.txt?x=y",
		"/protected/project/plan.txt#x", "/protected/project/plan.txt/", "/protected\\project\\plan.txt", "/protected/project/plan.txt\tx", "$document_root/etc/passwd",
	}
	answers := map[string]func(http.Header) int{}
	for i, l := range locations {
		for _, status := range []int{200, 204} {
			answers[fmt.Sprintf("%d-%d", i, status)] = func(h http.Header) int { h.Set("X-Securefiles-Location", l); return status }
		}
	}
	answers["twice"] = func(h http.Header) int {
		h["X-Securefiles-Location"] = []string{"/protected/project/missing.txt", "/protected/private/secret.txt"}
		return 204
	}
	for name, edit := range map[string]func(*site, string) string{"example": nil, "hostile": hostile} {
		s := start(t, plan{policy: alicesPolicy, upstream: scripted(t, answers), edit: edit})
		for path := range answers {
			r := s.get("alice", "/downloads/"+path)
			if r.status != 503 && r.status != 404 || r.body == sorry || r.status == 503 && r.header.Get("Retry-After") == "" {
				t.Errorf("%s: %s: %+v", name, path, r)
			}
			if b := breach(&r, s.root); b != "" || strings.Contains(r.body, "0123") {
				t.Errorf("%s: %s: %s %+v", name, path, b, r)
			}
		}
	}
}

// The service's own status reaches the client, with what belongs to it; and an
// X-Accel header beside it has no effect.
func TestNativeStatusesReachTheClient(t *testing.T) {
	t.Parallel()
	accel := func(h http.Header) {
		h.Set("X-Accel-Redirect", "/protected/private/secret.txt")
		h.Set("X-Accel-Limit-Rate", "1")
		h.Set("X-Accel-Expires", "3600")
		h.Set("Set-Cookie", "evil=1")
		h.Set("X-Securefiles-Location", "/protected/private/secret.txt")
	}
	want := map[int]int{302: 302, 303: 302, 307: 302, 400: 400, 401: 401, 403: 403, 404: 404, 405: 403, 410: 410, 413: 503, 429: 429, 431: 400, 451: 451, 500: 503, 503: 503, 599: 503}
	answers := map[string]func(http.Header) int{}
	for status := range want {
		answers[fmt.Sprint(status)] = func(h http.Header) int {
			accel(h)
			switch status {
			case 302, 303, 307:
				h.Set("Location", "https://login.example.org/?next=%2Fdownloads%2F302")
			case 401:
				h.Set("WWW-Authenticate", `Basic realm="downloads"`)
			case 429, 503:
				h.Set("Retry-After", "17")
			}
			return status
		}
	}
	for name, edit := range map[string]func(*site, string) string{"example": nil, "hostile": hostile} {
		s := start(t, plan{policy: alicesPolicy, upstream: scripted(t, answers), edit: edit})
		for status, expected := range want {
			for range 2 { // a cache, if there were one, would answer the second
				r := s.status("", fmt.Sprintf("/downloads/%d", status), expected)
				if b := breach(&r, s.root); b != "" {
					t.Errorf("%s: %d: %s", name, status, b)
				}
				for header, value := range map[string]string{
					"Location":         map[int]string{302: "https://login.example.org/?next=%2Fdownloads%2F302"}[expected],
					"WWW-Authenticate": map[int]string{401: `Basic realm="downloads"`}[status],
					"Retry-After":      map[int]string{429: "17", 413: "5", 500: "5", 503: "17", 599: "5"}[status],
					"Cache-Control":    "no-store",
				} {
					if got := r.header.Get(header); got != value {
						t.Errorf("%s: %d: %s is %q, want %q", name, status, header, got, value)
					}
				}
			}
		}
	}
}

// A rewrite before the location gives 400 for every file: it is the operator's
// mistake, and the log says so. A client who spells the URL in another way is none.
func TestARewriteBeforeTheLocationIsToldInTheLog(t *testing.T) {
	t.Parallel()
	s := start(t, plan{policy: alicesPolicy, edit: func(_ *site, conf string) string {
		return strings.Replace(conf, "        server_name localhost;\n", "        server_name localhost;\n        rewrite ^/files/(.*)$ /downloads/$1;\n", 1)
	}})
	s.status("alice", "/%64ownloads/project/plan.txt", 400)
	s.status("alice", "//downloads/project/plan.txt", 400)
	if strings.Contains(s.log.String(), "is there a rewrite") {
		t.Errorf("a client's spelling is told as the operator's mistake: %s", s.log.String())
	}
	s.status("alice", "/files/project/plan.txt", 400)
	s.eventually("the log names the rewrite", func() bool {
		return strings.Contains(s.log.String(), "is below the URL of no download: is there a rewrite, or another location, that leads to this one?")
	})
	for series, want := range map[string]string{
		`securefiles_decisions_total{decision="deny",download="none",reason="request"}`: "1",
		`securefiles_decisions_total{decision="deny",download="none",reason="path"}`:    "2",
	} {
		if got := s.metric(series); got != want {
			t.Errorf("%s is %q, want %s", series, got, want)
		}
	}
}
