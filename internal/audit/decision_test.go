package audit

import (
	"errors"
	"net/http"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"securefiles/authz"
	"securefiles/pathguard"
)

func testQuestion(t *testing.T) *authz.Question {
	t.Helper()
	path, err := pathguard.New("/project/ä?.pdf")
	if err != nil {
		t.Fatal(err)
	}
	return &authz.Question{
		ID: "5f0c", Method: "GET", Target: "/downloads/project/%C3%A4%3F.pdf?link=CANARY", Action: "read", IP: netip.MustParseAddr("::ffff:192.0.2.1"), Range: "bytes=0-9",
		Header: http.Header{
			"User-Agent": {"curl/8"}, "Referer": {"https://user:CANARY@app.example:8443/CANARY?t=CANARY#CANARY"},
			"Authorization": {"Bearer CANARY"}, "Cookie": {"session=CANARY"},
		},
		Download: &authz.Download{Name: "main"}, Path: path,
	}
}

func TestDecisionHoldsWhatWasDecidedAndWhy(t *testing.T) {
	at := time.Date(2026, 11, 26, 23, 0, 0, 0, time.UTC)
	alice := authz.Principal{Subject: "alice", Groups: []string{"@staff"}, Source: "session"}
	base := Record{
		Version: Version, Type: TypeDecision, Time: at, Request: "5f0c", Download: "main", Path: "/project/ä?.pdf", Action: "read",
		Client: "192.0.2.1", Agent: "curl/8", Referrer: "https://app.example:8443", Method: "GET", Range: "bytes=0-9", Duration: 0.0015,
	}
	for name, row := range map[string]struct {
		out    authz.Outcome
		status int
		want   func(*Record)
	}{
		"allowed": {
			authz.Outcome{Reason: authz.ReasonPolicy, Principal: alice, Source: "session", Decision: authz.Decision{Effect: authz.Allow, Generation: 3, File: "policy.csv", Line: 17}}, 204,
			func(r *Record) {
				r.Subject, r.Groups, r.Source, r.Decision, r.Reason, r.Line, r.Generation = "alice", alice.Groups, "session", "allow", "policy", "policy.csv:17", 3
			},
		},
		"denied by default": {
			authz.Outcome{Reason: authz.ReasonDefaultDeny, Principal: alice, Source: "session", Decision: authz.Decision{Generation: 3, File: "policy.csv"}}, 404,
			func(r *Record) {
				r.Subject, r.Groups, r.Source, r.Decision, r.Reason, r.Generation = "alice", alice.Groups, "session", "deny", "default-deny", 3
			},
		},
		"credentials that are wrong": {
			authz.Outcome{Reason: authz.ReasonCredentials, Source: "htpasswd", Err: &authz.CredentialsError{Source: "htpasswd", Problem: "wrong"}}, 401,
			func(r *Record) { r.Source, r.Decision, r.Reason = "htpasswd", "deny", "credentials" },
		},
		"a link's": {
			authz.Outcome{Reason: authz.ReasonPolicy, Principal: alice, Source: authz.SourceLink, Link: "jti", Decision: authz.Decision{Effect: authz.Allow, Generation: 3, File: "policy.csv", Line: 17}}, 204,
			func(r *Record) {
				r.Subject, r.Groups, r.Source, r.Decision, r.Reason, r.Line, r.Generation, r.Link, r.Maker = "alice", alice.Groups, "link", "allow", "policy", "policy.csv:17", 3, "jti", "alice"
			},
		},
		"an allow beside an error": {
			authz.Outcome{Reason: authz.ReasonPolicy, Principal: alice, Decision: authz.Decision{Effect: authz.Allow, Generation: 3, File: "policy.csv", Line: 17}, Err: errors.New("CANARY")}, 503,
			func(r *Record) {
				r.Subject, r.Groups, r.Decision, r.Reason, r.Line, r.Generation = "alice", alice.Groups, "deny", "policy", "policy.csv:17", 3
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			want := base
			want.Status = row.status
			row.want(&want)
			row.out.Question = testQuestion(t)
			got := Decision(&row.out, row.status, at, 1500*time.Microsecond)
			if !reflect.DeepEqual(*got, want) {
				t.Errorf("got  %+v\nwant %+v", *got, want)
			}
			if line := string(got.Append(nil)); strings.Contains(line, "CANARY") {
				t.Errorf("a secret is in %s", line)
			}
		})
	}
	if r := Decision(&authz.Outcome{}, 503, at, 0); r.Decision != "deny" || r.Path != "" {
		t.Errorf("of nothing: %+v", r)
	}
}

func TestOfARefusedTargetThePathIsKeptAndNoSecret(t *testing.T) {
	long := "/" + strings.Repeat("a", 5000)
	for target, want := range map[string]string{
		"/downloads/../etc/passwd":           "/downloads/../etc/passwd",
		"/downloads/a%2fb":                   "/downloads/a%2fb",
		"/elsewhere?link=CANARY":             "/elsewhere",
		"/elsewhere%3Flink=CANARY":           "/elsewhere",
		"/elsewhere%3flink=CANARY":           "/elsewhere",
		"/a;jsessionid=CANARY/b":             "/a",
		"/a%3Bjsessionid=CANARY":             "/a",
		"/a#CANARY":                          "/a",
		"http://user:CANARY@files.example/a": "",
		"//user:CANARY@files.example/a":      "",
		"CANARY":                             "",
		"":                                   "",
		long:                                 long[:maxRefused],
		"/\x1b]0;title\x07":                  "/\x1b]0",
	} {
		if got := refused(target); got != want {
			t.Errorf("%q: %q, want %q", target, got, want)
		}
	}
}

func TestOfAReferrerTheOriginIsKept(t *testing.T) {
	for referrer, want := range map[string]string{
		"https://app.example/a?token=CANARY":  "https://app.example",
		"http://[2001:db8::1]:8080/":          "http://[2001:db8::1]:8080",
		"HTTPS://App.example":                 "https://App.example",
		"https://u:CANARY@app.example/":       "https://app.example",
		"android-app://CANARY/":               "",
		"file:///home/CANARY":                 "",
		"data:text/html,CANARY":               "",
		"/CANARY":                             "",
		"https://":                            "",
		"https://%zz/":                        "",
		"https://" + strings.Repeat("a", 300): "",
		"":                                    "",
	} {
		if got := origin(referrer); got != want {
			t.Errorf("%q: %q, want %q", referrer, got, want)
		}
	}
}

func TestWhatAClientWroteIsBounded(t *testing.T) {
	q := testQuestion(t)
	long := strings.Repeat("é", 5000)
	q.ID, q.Method, q.Range, q.Path, q.Target = long, long, long, pathguard.Path{}, "/"+long
	q.Header.Set("User-Agent", long)
	line := Decision(authz.Refuse(q, authz.ReasonPath, errors.New("no")), 400, time.Now(), 0).Append(nil)
	if r, err := Parse(line); err != nil || len(line) > 10_000 || r.Method != "_OTHER" || len(r.Agent) != maxAgent || len(r.Request) != maxRequest || len(r.Range) != maxRange {
		t.Errorf("%v: %d bytes: %s", err, len(line), line)
	}
}
