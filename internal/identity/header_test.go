package identity

import (
	"bufio"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"securefiles/authz"
)

// request reads a request with these header lines as a server reads it.
func request(t testing.TB, lines ...string) *authz.Question {
	t.Helper()
	text := "GET /authorize HTTP/1.1\r\nHost: localhost\r\n" + strings.Join(append(lines, "\r\n"), "\r\n")
	r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(text)))
	if err != nil {
		t.Fatalf("not a request that a server reads: %v", err)
	}
	return &authz.Question{Header: r.Header}
}

func newTestHeader(t testing.TB) *Header {
	t.Helper()
	h, err := NewHeader(HeaderOptions{Header: "x-remote-user", GroupsHeader: "X-Remote-Groups", GroupsOptional: true})
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func TestHeader(t *testing.T) {
	h := newTestHeader(t)
	many := strings.TrimSuffix(strings.Repeat("g,", 256), ",")
	for _, test := range []struct {
		name    string
		lines   []string
		subject string
		groups  []string
	}{
		{"a subject alone", []string{"X-Remote-User: alice"}, "alice", nil},
		{"the header in another case", []string{"x-remote-USER: alice"}, "alice", nil},
		{"a distinguished name", []string{"X-Remote-User: CN=alice,O=Example"}, "CN=alice,O=Example", nil},
		{"UTF-8", []string{"X-Remote-User: Carol Müller"}, "Carol Müller", nil},
		{"a group", []string{"X-Remote-User: alice", "X-Remote-Groups: staff"}, "alice", []string{"@staff"}},
		{"groups with blanks around them", []string{"X-Remote-User: alice", "X-Remote-Groups:  staff ,\t big sales,x"}, "alice", []string{"@staff", "@big sales", "@x"}},
		{"an empty list of groups", []string{"X-Remote-User: alice", "X-Remote-Groups: "}, "alice", nil},
		{"256 groups", []string{"X-Remote-User: alice", "X-Remote-Groups: " + many}, "alice", strings.Split(strings.ReplaceAll(","+many, ",", ",@")[1:], ",")},
		{"a header that begins alike", []string{"X-Remote-User: alice", "X-Remote: bob", "X-Remote-User-Name: bob"}, "alice", nil},
		{"another header of the same length", []string{"X-Remote-User: alice", "X-Remote-Usex: bob"}, "alice", nil},
		// S9: without the real one, an imitation changes nothing.
		{"groups under an imitated name", []string{"X-Remote-User: alice", "X_Remote_Groups: admin"}, "alice", nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := h.Authenticate(t.Context(), request(t, test.lines...))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(authz.Principal{Subject: test.subject, Groups: test.groups, Source: "header"}, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// S9: without a groups header, groups that a client sends count for nothing.
func TestHeaderWithoutGroups(t *testing.T) {
	h, err := NewHeader(HeaderOptions{Header: "X-Remote-User"})
	if err != nil {
		t.Fatal(err)
	}
	got, err := h.Authenticate(t.Context(), request(t, "X-Remote-User: alice", "X-Remote-Groups: admin", "Groups: admin"))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(authz.Principal{Subject: "alice", Source: "header"}, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// S9
func TestHeaderFindsNothing(t *testing.T) {
	for _, test := range []struct {
		name   string
		header *Header
		lines  []string
	}{
		{"no header", newTestHeader(t), nil},
		{"an empty header", newTestHeader(t), []string{"X-Remote-User: "}},
		{"groups alone", newTestHeader(t), []string{"X-Remote-Groups: admin"}},
		{"underscores", newTestHeader(t), []string{"X_Remote_User: admin"}},
		{"one underscore, twice", newTestHeader(t), []string{"X-Remote_User: admin", "X-Remote_User: root"}},
		{"a header that only resembles it", newTestHeader(t), []string{"X-Remote-User2: admin", "Remote-User: admin"}},
		{"a zero Header", &Header{}, []string{"X-Remote-User: admin"}},
	} {
		p, err := test.header.Authenticate(t.Context(), request(t, test.lines...))
		if !errors.Is(err, authz.ErrNoCredentials) || p.Subject != "" {
			t.Errorf("%s: got %q, %v", test.name, p.Subject, err)
		}
	}
}

// S9, S16, S21
func TestHeaderRefuses(t *testing.T) {
	h := newTestHeader(t)
	const alice, twice = "X-Remote-User: alice", "X-Remote-User came more than once"
	for _, test := range []struct {
		name  string
		lines []string
		want  string
	}{
		{"two values", []string{alice, "X-Remote-User: bob"}, twice},
		{"the same value twice", []string{alice, alice}, twice},
		{"an empty one, then a value", []string{"X-Remote-User:", alice}, twice},
		{"a second one in another case", []string{alice, "x-remote-user: admin"}, twice},
		{"a second one with underscores", []string{alice, "X_Remote_User: admin"}, twice},
		{"a second one with one underscore", []string{alice, "X-REMOTE_USER: admin"}, twice},
		{"an empty one and an imitation", []string{"X-Remote-User:", "X_REMOTE_USER: admin"}, twice},
		{"two values in one line, as a proxy joins them, are one subject that is too long", []string{alice + ", " + strings.Repeat("b", 256)}, "the subject is longer than 256 bytes"},
		{"ISO 8859-1", []string{"X-Remote-User: Andr\xe9"}, "the subject is not valid UTF-8"},
		{"a group", []string{"X-Remote-User: @staff"}, "the subject begins with @, which marks groups"},
		{"the caller without credentials", []string{"X-Remote-User: anonymous"}, "the subject is the name of callers without credentials"},
		{"a right-to-left override", []string{"X-Remote-User: a\u202eb"}, "the subject " + unseen},
		{"a tab", []string{"X-Remote-User: a\tb"}, "the subject " + unseen},
		{"groups twice", []string{alice, "X-Remote-Groups: a", "X-Remote-Groups: b"}, "X-Remote-Groups came more than once"},
		{"groups and an imitation", []string{alice, "X-Remote-Groups: a", "X_Remote_Groups: admin"}, "X-Remote-Groups came more than once"},
		{"an empty group", []string{alice, "X-Remote-Groups: a,,b"}, "a group is empty"},
		{"a comma at the end", []string{alice, "X-Remote-Groups: a,"}, "a group is empty"},
		{"a blank group", []string{alice, "X-Remote-Groups: a, \t,b"}, "a group is empty"},
		{"a group with @", []string{alice, "X-Remote-Groups: a,@b"}, "a group begins with @, which marks groups"},
		{"a group of 257 bytes", []string{alice, "X-Remote-Groups: " + strings.Repeat("g", 257)}, "a group is longer than 256 bytes"},
		{"a group in ISO 8859-1", []string{alice, "X-Remote-Groups: \xe9"}, "a group is not valid UTF-8"},
		{"a group with a zero-width space", []string{alice, "X-Remote-Groups: a\u200b"}, "a group " + unseen},
		{"a group behind a no-break space", []string{alice, "X-Remote-Groups: \u00a0a"}, "a group " + unseen},
		{"257 groups", []string{alice, "X-Remote-Groups: g" + strings.Repeat(",g", 256)}, "there are more than 256 groups"},
		{"a built-in group", []string{alice, "X-Remote-Groups: anyone"}, "a group is one that the service gives out itself"},
		{"the other built-in group", []string{alice, "X-Remote-Groups: a, authenticated"}, "a group is one that the service gives out itself"},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := h.Authenticate(t.Context(), request(t, test.lines...))
			wantRefused(t, got, err, authz.CredentialsError{Source: "header", Problem: test.want})
		})
	}
}

// wantRefused fails unless the credentials were refused just so, with nobody
// named.
func wantRefused(t *testing.T, got authz.Principal, err error, want authz.CredentialsError) {
	t.Helper()
	var refused *authz.CredentialsError
	if !errors.As(err, &refused) {
		t.Fatalf("got %v, %v; want a *authz.CredentialsError", got, err)
	}
	want.Final, want.Forbidden = refused.Final, refused.Forbidden // TestWhatALoginWouldNotHelp
	if diff := cmp.Diff(want, *refused); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if diff := cmp.Diff(authz.Principal{}, got); diff != "" {
		t.Errorf("a refusal names a principal:\n%s", diff)
	}
}

// net/http drops nothing and folds only case, but nothing here relies on it:
// a request made by hand may hold any key.
func TestHeaderOfAnUncanonicalRequest(t *testing.T) {
	r := &authz.Question{Header: http.Header{"X-Remote-User": {"alice"}, "x-remote-user": {"admin"}}}
	got, err := newTestHeader(t).Authenticate(t.Context(), r)
	wantRefused(t, got, err, authz.CredentialsError{Source: "header", Problem: "X-Remote-User came more than once"})
}

// S9
func TestNewHeaderRefuses(t *testing.T) {
	const reserved, name = "has another meaning: use one of its own, such as X-Remote-User", "is not a header name that nginx passes on: a letter, then letters, digits and -"
	for _, test := range []struct{ header, want string }{
		{"", "is missing"},
		{"X_Remote_User", name}, {"X-Remote-User:", name}, {"X Remote", name}, {"X-Rémote", name}, {"-User", name}, {"1User", name}, {"X\r\nY", name},
		{"X-Original-URI", reserved}, {"x-original-method", reserved}, {"X-Original-Anything", reserved},
		{"X-Real-IP", reserved}, {"X-Request-ID", reserved}, {"X-Securefiles-User", reserved},
		{"X-Accel-Redirect", reserved}, {"X-Forwarded-For", reserved}, {"X-Forwarded-User", reserved}, {"Forwarded", reserved},
		{"Host", reserved}, {"AUTHORIZATION", reserved}, {"Proxy-Authorization", reserved}, {"Cookie", reserved},
		{"Connection", reserved}, {"Content-Length", reserved}, {"Transfer-Encoding", reserved}, {"Upgrade", reserved}, {"TE", reserved},
		{"Accept", reserved}, {"Accept-Language", reserved}, {"User-Agent", reserved}, {"Referer", reserved}, {"From", reserved},
		{"If-None-Match", reserved}, {"Range", reserved}, {"Sec-Fetch-Site", reserved}, {"Origin", reserved},
	} {
		for _, opts := range []HeaderOptions{{Header: test.header}, {Header: "Remote-User", GroupsHeader: test.header}} {
			what := "header"
			if opts.GroupsHeader != "" {
				what = "groups_header"
			} else if opts.Header != test.header {
				continue // an empty groups header means none
			}
			h, err := NewHeader(opts)
			if want := fmt.Sprintf("%s: %q %s", what, test.header, test.want); h != nil || message(err) != want {
				t.Errorf("got %v, %q, want %q", h, message(err), want)
			}
		}
	}
	_, err := NewHeader(HeaderOptions{Header: "Remote-User", GroupsHeader: "remote-user"})
	if want := `groups_header: "remote-user" is the header of the subject: use two`; message(err) != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

// What the client says is never the caller's name: $content_type made
// `Content-Type: alice` alice.
func TestNginxValueIsWhatNginxVerified(t *testing.T) {
	accepted := []string{"$remote_user", "$ssl_client_s_dn", "$ssl_client_s_dn_legacy", "$ssl_client_fingerprint", "$ssl_client_serial",
		"$gateway_user", "$my_map", "$sso_user", "$auth_user", "$authenticated_user"}
	refused := []string{"$content_type", "$content_length", "$http_x_user", "$http_user_agent", "$arg_user", "$args", "$is_args", "$query_string",
		"$cookie_session", "$host", "$hostname", "$uri", "$document_uri", "$request_uri", "$request", "$request_body", "$request_method", "$request_id",
		"$request_filename", "$remote_addr", "$binary_remote_addr", "$proxy_protocol_addr", "$proxy_protocol_tlv_authority", "$proxy_add_x_forwarded_for",
		"$realip_remote_addr", "$ssl_server_name", "$ssl_client_verify", "$ssl_client_i_dn", "$ssl_client_raw_cert", "$ssl_session_id", "$ssl_alpn_protocol",
		"$upstream_http_x_user", "$upstream_cookie_user", "$sent_http_x_user", "$jwt_claim_sub", "$jwt_header_kid", "$geoip_city", "$invalid_referer",
		"$server_name", "$server_protocol", "$scheme", "$https", "$uid_got", "$secure_link", "$document_root", "$fastcgi_path_info", "$http2",
		"$limit_rate", "$slice_range", "$time_local", "$trailer_x", "$status", "$nginx_version", "$securefiles_from", "$securefiles_user"}
	for _, value := range accepted {
		if _, err := NewHeader(HeaderOptions{Header: "X-User", Value: value, GroupsValue: value}); err != nil {
			t.Errorf("%s: %v", value, err)
		}
	}
	for _, value := range refused {
		for option, opts := range map[string]HeaderOptions{
			"nginx_value": {Header: "X-User", Value: value}, "nginx_groups_value": {Header: "X-User", GroupsHeader: "X-Groups", GroupsValue: value},
		} {
			if _, err := NewHeader(opts); !strings.HasPrefix(message(err), option+`: "`+value+`" is what the client says, or`) {
				t.Errorf("%s %s: got %q", option, value, message(err))
			}
		}
	}
}

func FuzzHeader(f *testing.F) {
	f.Add("alice", "staff, sales")
	f.Add("CN=alice,O=Example", "")
	f.Add("@root", "@root,,")
	f.Add("a\u202e", "\u200b, anyone")
	f.Add("\xff", strings.Repeat("g,", 300))
	h := newTestHeader(f)
	f.Fuzz(func(t *testing.T, subject, groups string) {
		r := &authz.Question{Header: http.Header{"X-Remote-User": {subject}, "X-Remote-Groups": {groups}}}
		p, err := h.Authenticate(t.Context(), r)
		if err != nil {
			if p.Subject != "" || p.Groups != nil {
				t.Fatalf("an error beside %v", p)
			}
			return
		}
		if p.Subject != subject || authz.ValidSubject(subject) != nil || len(p.Groups) > 256 {
			t.Fatalf("%q became %v", subject, p)
		}
		for _, g := range p.Groups {
			if g[0] != '@' || authz.ValidSubject(g[1:]) != nil && g != "@anonymous" || !strings.Contains(groups, g[1:]) || strings.Contains(g, ",") {
				t.Fatalf("%q became the group %q", groups, g)
			}
		}
	})
}

func BenchmarkHeader(b *testing.B) {
	h := newTestHeader(b)
	r := request(b, "X-Original-URI: /downloads/a.txt", "X-Original-Method: GET", "X-Real-IP: 192.0.2.1", "X-Request-ID: 1",
		"User-Agent: curl", "Accept: */*", "X-Remote-User: alice@example.org", "X-Remote-Groups: staff, sales")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := h.Authenticate(b.Context(), r); err != nil {
			b.Fatal(err)
		}
	}
}
