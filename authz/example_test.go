package authz_test

import (
	"context"
	"fmt"
	"net/http"

	"securefiles/authz"
)

type cookie struct{}

func (cookie) Authenticate(_ context.Context, q *authz.Question) (authz.Principal, error) {
	if q.Header.Get("Cookie") == "" {
		return authz.Principal{}, authz.ErrNoCredentials
	}
	return authz.Principal{Subject: "alice", Groups: []string{"@staff"}, Source: "cookie"}, nil
}

type staffOnly struct{}

func (staffOnly) Decide(_ context.Context, q authz.Query) (authz.Decision, error) {
	if q.Principal.Groups[0] == "@staff" {
		return authz.Decision{Effect: authz.Allow, Generation: 1, File: "policy.csv", Line: 3}, nil
	}
	return authz.Decision{Generation: 1}, nil
}

// One question as a front end puts it: who may ask, and what policy says of the
// one path that the target names.
func ExampleGuard_Check() {
	downloads, err := authz.NewDownloads(&authz.Download{Name: "main", URL: "/downloads/", Internal: "/protected/"})
	if err != nil {
		fmt.Println(err)
		return
	}
	guard, err := authz.New(downloads, cookie{}, staffOnly{}, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, target := range []string{"/downloads/plan.pdf", "/downloads/../plan.pdf"} {
		for _, header := range []http.Header{{"Cookie": {"id=1"}}, nil} {
			out := guard.Check(context.Background(), &authz.Question{Method: "GET", Target: target, Action: authz.ActionRead, Header: header})
			fmt.Println(out.Allowed(), out.Reason, out.Principal.Subject, out.Decision)
		}
	}
	// Output:
	// true policy alice g1:policy.csv:3
	// false anonymous anonymous g1:-
	// false path  g0:-
	// false path  g0:-
}

func ExampleValidSubject() {
	fmt.Println(authz.ValidSubject("alice@example.org"))
	fmt.Println(authz.ValidSubject("alice\u202e"))
	// Output:
	// <nil>
	// holds a character that cannot be seen
}
