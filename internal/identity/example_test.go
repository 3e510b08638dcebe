package identity_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"

	"securefiles/authz"
	"securefiles/internal/identity"
)

// A client certificate that nginx has verified, otherwise a password.
func ExampleChain() {
	certificate, err := identity.NewHeader(identity.HeaderOptions{Header: "X-Remote-User"})
	if err != nil {
		fmt.Println(err)
		return
	}
	passwords, err := identity.NewBasic("testdata/users.htpasswd", nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	chain := identity.Chain{certificate, passwords}

	ask := func(name, value string) {
		q := &authz.Question{Header: http.Header{}}
		q.Header.Set(name, value)
		who, err := chain.Authenticate(context.Background(), q)
		fmt.Println(who.Subject, who.Groups, who.Source, err)
	}
	ask("X-Remote-User", "CN=alice,O=Example")
	ask("X-Remote-User", "@staff")
	ask("Authorization", "Basic YWxpY2U6Y29ycmVjdCBob3JzZQ==")
	ask("Authorization", "Basic YWxpY2U6d3Jvbmc=")
	ask("Accept", "*/*")
	// Output:
	// CN=alice,O=Example [] header <nil>
	//  []  header: the subject begins with @, which marks groups
	// alice [] htpasswd <nil>
	//  []  htpasswd: unknown user or wrong password
	//  []  no credentials
}

// The name in a certificate that nginx has verified. The comma in the
// organization is no separator.
func ExampleCertificate() {
	certificates, err := identity.NewCertificate(identity.CertificateOptions{Subject: identity.SubjectCN, Groups: identity.GroupsOU})
	if err != nil {
		fmt.Println(err)
		return
	}
	q := &authz.Question{Header: http.Header{}}
	q.Header.Set(identity.HeaderVerify, "SUCCESS")
	q.Header.Set(identity.HeaderDN, `CN=alice,OU=staff,O=Example\, Inc.`)
	who, err := certificates.Authenticate(context.Background(), q)
	fmt.Println(who.Subject, who.Groups, err)

	q.Header.Set(identity.HeaderVerify, "FAILED:certificate has expired")
	_, err = certificates.Authenticate(context.Background(), q)
	fmt.Println(err)
	// Output:
	// alice [@staff] <nil>
	// certificate: nginx has not verified the certificate
}

// A token that an issuer has signed, and one that says of itself that it needs
// no signature.
func ExampleJWT() {
	keys, err := identity.NewKeys(identity.KeysOptions{Issuer: "https://id.example.org", File: "testdata/keys.json"})
	if err != nil {
		fmt.Println(err)
		return
	}
	if err := keys.Refresh(context.Background()); err != nil { // at the start; then Run, or a watcher of the file
		fmt.Println(err)
		return
	}
	tokens, err := identity.NewJWT(keys, identity.JWTOptions{Audiences: []string{"files"}, GroupsClaim: "realm_access.roles"})
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, token := range []string{
		"eyJhbGciOiJFZERTQSIsImtpZCI6IjEifQ.eyJpc3MiOiJodHRwczovL2lkLmV4YW1wbGUub3JnIiwiYXVkIjoiZmlsZXMiLCJzdWIiOiJhbGljZSIsImV4cCI6MjUzNDAyMzAwNzk5LCJyZWFsbV9hY2Nlc3MiOnsicm9sZXMiOlsic3RhZmYiXX19.GV_cQiC_2VdjENDjkbDT2QieQqnQEF28VqJuugiCwQ6QJsDuDPcRlu-I9DQUvT7AMgaBR29qrzkW5rFlKZcmDA",
		"eyJhbGciOiJub25lIn0.eyJzdWIiOiJyb290In0.",
	} {
		q := &authz.Question{Header: http.Header{"Authorization": {"Bearer " + token}}}
		who, err := tokens.Authenticate(context.Background(), q)
		fmt.Println(who.Subject, who.Groups, err)
	}
	// Output:
	// alice [@staff] <nil>
	//  [] jwt: the token's algorithm is not allowed
}

// What a browser must be sent so that it asks for a password.
func ExampleBasic_Challenge() {
	passwords, err := identity.NewBasic("testdata/users.htpasswd", &identity.BasicOptions{Realm: "project files"})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(passwords.Challenge())

	q := &authz.Question{Header: http.Header{}}
	q.Header.Set("Authorization", "Basic YWxpY2U6YSBndWVzcw==") // alice, with a guess
	_, err = passwords.Authenticate(context.Background(), q)
	var refused *authz.CredentialsError
	fmt.Println(errors.As(err, &refused), refused.Challenge)
	// Output:
	// Basic realm="project files", charset="UTF-8"
	// true Basic realm="project files", charset="UTF-8"
}

func ExampleNewBasic() {
	_, err := identity.NewBasic("testdata/invalid-several.htpasswd", nil)
	fmt.Println(err)
	// Output:
	// testdata/invalid-several.htpasswd:1: no colon: a line is user:hash, as `htpasswd -B` writes it
	// testdata/invalid-several.htpasswd:3: plain text, DES or an unknown hash: set the password again with `htpasswd -B -C 12 FILE USER`
}

// An application says whose its session cookie is.
func ExampleSession() {
	application := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if c, err := r.Cookie("sessionid"); err != nil || c.Value != "abc" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, `{"subject": "alice", "groups": ["staff"]}`)
	}))
	defer application.Close()
	sessions, err := identity.NewSession(identity.SessionOptions{URL: application.URL, Cookies: []string{"sessionid"}})
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, cookie := range []string{"theme=dark; sessionid=abc", "sessionid=stale", "theme=dark"} {
		q := &authz.Question{Header: http.Header{"Cookie": {cookie}}}
		who, err := sessions.Authenticate(context.Background(), q)
		fmt.Println(who.Subject, who.Groups, err)
	}
	// Output:
	// alice [@staff] <nil>
	//  [] session: the application does not know the session
	//  [] no credentials
}
