package identity

import (
	"net/http"
	"strings"
	"testing"

	"securefiles/authz"
)

// splitSession is an application whose sessions are split over numbered cookies.
func splitSession(t *testing.T, cookies ...string) (*Session, *http.Header) {
	t.Helper()
	var got http.Header
	s := newSession(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got = r.Header.Clone()
		value := ""
		for _, name := range []string{"_oauth2_proxy", "_oauth2_proxy_0", "_oauth2_proxy_1", "_oauth2_proxy_2"} {
			if c, err := r.Cookie(name); err == nil {
				value += c.Value
			}
		}
		if value != "good" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		answerJSON(`{"subject": "alice", "groups": []}`)(w, r)
	}), func(o *SessionOptions) { o.Cookies = cookies })
	return s, &got
}

// A session that is split over more cookies than are listed was an endless login: 401,
// the login page, a session, 401.
func TestSplitSessionIsNoEndlessLogin(t *testing.T) {
	const family = "_oauth2_proxy*"
	s, got := splitSession(t, family, "other")
	for _, row := range []struct{ name, cookie, want, sent string }{
		{"whole", "_oauth2_proxy=good", "known", "_oauth2_proxy=good"},
		{"in three", "theme=dark; _oauth2_proxy_0=g; _oauth2_proxy_1=oo; _oauth2_proxy_2=d", "known", "_oauth2_proxy_0=g; _oauth2_proxy_1=oo; _oauth2_proxy_2=d"},
		{"in another order", "_oauth2_proxy_2=d;_oauth2_proxy_0=g;_oauth2_proxy_1=oo", "known", ""}, // it is remembered
		{"beside another", "_oauth2_proxy_0=go; other=x; _oauth2_proxy_1=od", "known", "_oauth2_proxy_0=go; _oauth2_proxy_1=od; other=x"},
		{"a part is missing", "_oauth2_proxy_0=g; _oauth2_proxy_2=d", "refused", "_oauth2_proxy_0=g; _oauth2_proxy_2=d"},
		{"an empty part", "_oauth2_proxy=good; _oauth2_proxy_0=", "known", ""},
		{"no part of it", "_oauth2_proxy_csrf=x; _oauth2_proxy_7f3a_csrf=y; _oauth2=z; x_oauth2_proxy_0=g", "none", ""},
		{"a part twice", "_oauth2_proxy_0=g; _oauth2_proxy_1=ood; _oauth2_proxy_0=x", "refused", ""},
		{"too large in all", "_oauth2_proxy_0=" + strings.Repeat("a", 9000) + "; _oauth2_proxy_1=" + strings.Repeat("b", 9000), "forbidden", ""},
		{"not printable", "_oauth2_proxy_0=g\x7f", "refused", ""},
	} {
		*got = nil
		p, err := s.Authenticate(t.Context(), withCookie(row.cookie))
		if v := verdict(p, err); v != row.want || got.Get("Cookie") != row.sent {
			t.Errorf("%s: %s, %v; sent %q, want %q", row.name, v, err, got.Get("Cookie"), row.sent)
		}
	}
}

// What is remembered of one way to split a session is not another's.
func TestSplitSessionIsRememberedAsItCame(t *testing.T) {
	s, _ := splitSession(t, "_oauth2_proxy*")
	for _, row := range []struct{ cookie, want string }{
		{"_oauth2_proxy_0=go; _oauth2_proxy_1=od", "known"}, {"_oauth2_proxy_1=go; _oauth2_proxy_0=od", "refused"}, {"_oauth2_proxy_0=go; _oauth2_proxy_2=od", "known"},
		{"_oauth2_proxy_0=go", "refused"}, {"_oauth2_proxy_0=go; _oauth2_proxy_1=od", "known"},
	} {
		if got := verdict(s.Authenticate(t.Context(), withCookie(row.cookie))); got != row.want {
			t.Errorf("%s: %s", row.cookie, got)
		}
	}
	if stats := s.Stats(); stats.Known != 2 || stats.Refused != 2 {
		t.Errorf("asked %+v", stats)
	}
}

// Where parts are listed one by one, and there are more, whoami says so.
func TestUnnamedPartsAreNamed(t *testing.T) {
	const hint = "write _oauth2_proxy* among the cookies"
	for _, row := range []struct {
		name, cookie string
		listed       []string
		want         bool
	}{
		{"a third part", "_oauth2_proxy_0=g; _oauth2_proxy_1=oo; _oauth2_proxy_2=d", []string{"_oauth2_proxy", "_oauth2_proxy_0", "_oauth2_proxy_1"}, true},
		{"the whole alone is listed", "_oauth2_proxy=x; _oauth2_proxy_0=g", []string{"_oauth2_proxy"}, true},
		{"all are listed", "_oauth2_proxy_0=g", []string{"_oauth2_proxy", "_oauth2_proxy_0"}, false},
		{"the family is", "_oauth2_proxy_0=g", []string{"_oauth2_proxy*"}, false},
		{"another cookie", "_oauth2_proxy=x; _oauth2_proxy_csrf=y", []string{"_oauth2_proxy"}, false},
	} {
		s, _ := splitSession(t, row.listed...)
		for _, turn := range []string{"asked", "remembered"} {
			_, err := s.Authenticate(t.Context(), withCookie(row.cookie))
			if verdict(authz.Principal{}, err) != "refused" || strings.Contains(message(err), hint) != row.want {
				t.Errorf("%s, %s: %v", row.name, turn, err)
			}
		}
	}
}

func TestCookieFamilies(t *testing.T) {
	for name, want := range map[string]bool{
		"NAME": true, "NAME_0": true, "NAME_12": true, "NAME_1of2": true, "NAMEC1": true, "NAME.0": true, "NAME-3": true, "NAME0": true,
		"NAM": false, "NAMED": false, "NAME_": false, "NAME_csrf": false, "NAME_0x": false, "NAME_1234": false, "NAME_0_csrf": false, "name_0": false, "XNAME_0": false, "NAME_of2": false,
	} {
		if inFamily("NAME", name) != want {
			t.Errorf("%s: %v", name, !want)
		}
	}
	// A source is never asked whose cookies an earlier one decides on.
	source := func(cookies ...string) *Source {
		return must(NewSessionSource(SessionOptions{URL: "http://127.0.0.1/", Cookies: cookies}))(t)
	}
	for _, row := range []struct {
		first, second *Source
		conflict      bool
	}{
		{source("a*"), source("a_0"), true}, {source("a*"), source("a*"), true}, {source("a*"), source("a", "a_1"), true},
		{source("a*"), source("a_csrf"), false}, {source("a_0"), source("a*"), false}, {source("a*"), source("b*"), false},
	} {
		if err := (Sources{row.first, row.second}).Conflicts(); (err != nil) != row.conflict {
			t.Errorf("%v before %v: %v", row.first.Reads, row.second.Reads, err)
		}
	}
	for _, bad := range [][]string{{"*"}, {"a**"}, {"a*b*"}, {"a b*"}, {"a*", "a*"}} {
		_, err := NewSession(SessionOptions{URL: "http://127.0.0.1/", Cookies: bad})
		if valid := len(bad) == 1 && (bad[0] == "a**" || bad[0] == "a*b*"); (err == nil) != valid { // a star is a letter of a cookie's name
			t.Errorf("%q: %v", bad, err)
		}
	}
}
