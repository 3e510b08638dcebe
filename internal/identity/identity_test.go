package identity

import (
	"context"
	"errors"
	"testing"

	"securefiles/authz"
)

// A source is an Authenticator that has made up its mind.
type source struct {
	subject string
	err     error
	asked   *int
}

func (s source) Authenticate(context.Context, *authz.Question) (authz.Principal, error) {
	*s.asked++
	return authz.Principal{Subject: s.subject}, s.err
}

// S21
func TestChain(t *testing.T) {
	var asked int
	none := source{err: authz.ErrNoCredentials, asked: &asked}
	bad := source{subject: "mallory", err: &authz.CredentialsError{Source: "test", Problem: "wrong"}, asked: &asked}
	down := source{subject: "mallory", err: errors.New("down"), asked: &asked}
	alice, bob := source{subject: "alice", asked: &asked}, source{subject: "bob", asked: &asked}
	for _, test := range []struct {
		name    string
		chain   Chain
		subject string
		err     string
		asked   int
	}{
		{"no source finds nothing", nil, "", "no credentials", 0},
		{"nobody finds anything", Chain{none, none}, "", "no credentials", 2},
		{"the first that finds credentials decides", Chain{none, alice, bob}, "alice", "", 2},
		{"bad credentials do not fall through", Chain{none, bad, alice}, "", "test: wrong", 2},
		{"a source that cannot tell does not fall through", Chain{down, alice}, "", "down", 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			asked = 0
			p, err := test.chain.Authenticate(t.Context(), nil)
			if p.Subject != test.subject || message(err) != test.err || asked != test.asked {
				t.Errorf("got %q, %q after %d sources; want %q, %q after %d", p.Subject, message(err), asked, test.subject, test.err, test.asked)
			}
		})
	}
	_, err := Chain{none}.Authenticate(t.Context(), nil)
	if !errors.Is(err, authz.ErrNoCredentials) {
		t.Errorf("got %v, want authz.ErrNoCredentials", err)
	}
}

// message returns an error's text, or nothing.
func message(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

const (
	unseen = "holds a character that cannot be seen"
	edges  = "begins or ends with a blank"
)
