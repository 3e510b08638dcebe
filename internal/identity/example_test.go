package identity_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"securefiles/authz"
	"securefiles/internal/identity"
)

// A client certificate that nginx has verified, otherwise a password.
func ExampleChain() {
	certificate, err := identity.NewHeader(identity.HeaderOptions{Header: "X-Remote-User", GroupsHeader: "X-Remote-Groups"})
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
		r := &http.Request{Header: http.Header{}}
		r.Header.Set(name, value)
		who, err := chain.Authenticate(context.Background(), r)
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

// What a browser must be sent so that it asks for a password.
func ExampleBasic_Challenge() {
	passwords, err := identity.NewBasic("testdata/users.htpasswd", &identity.BasicOptions{Realm: "project files"})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(passwords.Challenge())

	r := &http.Request{Header: http.Header{}}
	r.SetBasicAuth("alice", "a guess")
	_, err = passwords.Authenticate(context.Background(), r)
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

func ExampleValidSubject() {
	fmt.Println(identity.ValidSubject("alice@example.org"))
	fmt.Println(identity.ValidSubject("alice\u202e"))
	// Output:
	// <nil>
	// holds a character that cannot be seen
}
