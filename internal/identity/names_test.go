package identity

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"securefiles/authz"
)

// prefixed is a header source with a prefix.
func prefixed(t *testing.T, header, prefix string) *Source {
	t.Helper()
	s := must(NewHeaderSource(HeaderOptions{Header: header, GroupsHeader: header + "-Groups", GroupsOptional: true}))(t)
	s.Prefix = prefix
	return s
}

// alice of the htpasswd file and whoever registers as alice in a forum are two.
func TestSameNameOfTwoSourcesIsTwoUsers(t *testing.T) {
	local, forum, shop := prefixed(t, "X-Local", ""), prefixed(t, "X-Forum", "forum:"), prefixed(t, "X-Shop", "shop:")
	twin := prefixed(t, "X-Twin", "forum:")
	chain := Sources{local, forum, shop, twin}.Chain()
	for _, row := range []struct {
		name    string
		request *authz.Question
		subject string // empty: refused
		groups  []string
	}{
		{"without a prefix", headers("X-Local: alice", "X-Local-Groups: staff"), "alice", []string{"@staff"}},
		{"with one", headers("X-Forum: alice", "X-Forum-Groups: staff, sales"), "forum:alice", []string{"@forum:staff", "@forum:sales"}},
		{"with another", headers("X-Shop: alice"), "shop:alice", nil},
		{"with one that two share", headers("X-Twin: alice", "X-Twin-Groups: staff"), "forum:alice", []string{"@forum:staff"}},
		{"a colon in the middle", headers("X-Local: al:ice", "X-Local-Groups: a:b"), "al:ice", []string{"@a:b"}},
		{"a prefix twice", headers("X-Forum: forum:alice"), "forum:forum:alice", nil},
		{"another's prefix behind its own", headers("X-Shop: forum:alice"), "shop:forum:alice", nil},
		{"a role's name", headers("X-Forum: role:admin"), "", nil},
		{"a name under another's prefix", headers("X-Local: forum:alice"), "", nil},
		{"another's prefix alone", headers("X-Local: forum:"), "", nil},
		{"a group under another's prefix", headers("X-Local: alice", "X-Local-Groups: staff, forum:staff"), "", nil},
		{"the caller without credentials", headers("X-Forum: anonymous"), "", nil},
		{"a built-in group", headers("X-Forum: alice", "X-Forum-Groups: authenticated"), "", nil},
		{"a name too long with its prefix", headers("X-Forum: " + strings.Repeat("a", 251)), "", nil},
		{"a name just as long as may be", headers("X-Forum: " + strings.Repeat("a", 250)), "forum:" + strings.Repeat("a", 250), nil},
	} {
		p, err := authz.Identify(t.Context(), chain, row.request)
		want := append(slices.Clone(row.groups), authz.GroupAnyone, authz.GroupAuthenticated)
		switch {
		case row.subject == "":
			if p.Subject != "" || err == nil || errors.Is(err, authz.ErrNoCredentials) {
				t.Errorf("%s: %+v, %v", row.name, p, err)
			}
		case err != nil || p.Subject != row.subject || !slices.Equal(p.Groups, want):
			t.Errorf("%s: %+v, %v", row.name, p, err)
		}
	}
	_, err := chain.Authenticate(t.Context(), headers("X-Local: forum:alice"))
	var bad *authz.CredentialsError
	if !errors.Is(err, authz.ErrReservedSubject) || !errors.As(err, &bad) || bad.Source != "header" || bad.Problem != "the subject begins with the prefix of another source" {
		t.Errorf("a name under another's prefix: %v", err)
	}
	got := Sources{local, forum}.Whoami(t.Context(), headers("X-Forum: alice", "X-Forum-Groups: staff"), nil)
	if got.Subject != "forum:alice" || got.Groups[0] != "@forum:staff" {
		t.Errorf("whoami: %+v", got)
	}
}

// What is remembered of a caller is not changed by a prefix, however often it is asked.
func TestPrefixLeavesWhatIsRememberedAlone(t *testing.T) {
	s := newSession(t, &application{}, nil)
	source := &Source{Authenticator: s, Name: sourceSession, Prefix: "forum:"}
	for range 3 {
		p, err := Sources{source}.Chain().Authenticate(t.Context(), withCookie("sessionid=alices"))
		if err != nil || p.Subject != "forum:alice" || !slices.Equal(p.Groups, []string{"@forum:staff", "@forum:sales"}) {
			t.Fatalf("%+v, %v", p, err)
		}
	}
}

func TestSourcesOfDifferentAuthoritiesShareNames(t *testing.T) {
	token := func(issuer, cookie string) *Source {
		return must(NewJWTSource(nil, KeysOptions{Issuer: issuer}, JWTOptions{Audiences: []string{"files"}, Cookie: cookie}))(t)
	}
	session := func(url, socket string, cookie string) *Source {
		return must(NewSessionSource(SessionOptions{URL: url, Socket: socket, Cookies: []string{cookie}}))(t)
	}
	file := func(name string) *Source { return must(NewBasicSource(name, nil))(t) }
	variable := func(header, value string) *Source {
		return must(NewHeaderSource(HeaderOptions{Header: header, Value: value}))(t)
	}
	certificate := must(NewCertificateSource(CertificateOptions{}))(t)
	with := func(prefix string, s *Source) *Source { s.Prefix = prefix; return s }
	for _, row := range []struct {
		name    string
		sources Sources
		want    []int
	}{
		{"one", Sources{file("users")}, nil},
		{"a file and a forum", Sources{file("users"), session("http://127.0.0.1:8000/who", "", "id")}, []int{1}},
		{"with a prefix", Sources{file("users"), with("forum:", session("http://127.0.0.1:8000/who", "", "id"))}, nil},
		{"a prefix that was written twice", Sources{with("a:", file("users")), with("a:", session("http://127.0.0.1:8000/who", "", "id"))}, nil},
		{"two files", Sources{file("users"), file("others")}, []int{1}},
		{"two places of one issuer's tokens", Sources{token("https://id.example", ""), token("https://id.example", "token")}, nil},
		{"two issuers", Sources{token("https://id.example", ""), token("https://login.example", "token")}, []int{1}},
		{"one application", Sources{session("http://127.0.0.1:8000/who", "", "id"), session("http://127.0.0.1:8000/who?api", "", "key")}, nil},
		{"two applications", Sources{session("http://127.0.0.1:8000/who", "", "id"), session("http://127.0.0.1:9000/who", "", "key")}, []int{1}},
		{"two sockets", Sources{session("http://app/who", "/run/a", "id"), session("http://app/who", "/run/b", "key")}, []int{1}},
		{"a certificate in two ways", Sources{certificate, variable("X-Dn", "$ssl_client_s_dn")}, nil},
		{"a certificate and a gateway", Sources{certificate, variable("X-User", "$gateway_user")}, []int{1}},
		{"three", Sources{file("users"), certificate, token("https://id.example", "")}, []int{1, 2}},
	} {
		var got []int
		for _, shared := range row.sources.SharedNames() {
			got = append(got, shared.Index)
		}
		if !slices.Equal(got, row.want) {
			t.Errorf("%s: %v, want %v", row.name, row.sources.SharedNames(), row.want)
		}
	}
}
