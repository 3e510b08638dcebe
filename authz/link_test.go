package authz

import (
	"errors"
	"net/netip"
	"slices"
	"testing"
)

// linkOf returns who made a link for a file.
func linkOf(maker string, change func(*Scope)) fakeIdentity {
	return func(*Question) (Principal, error) {
		s := &Scope{ID: "l1", Download: "main", Path: "/a"}
		if change != nil {
			change(s)
		}
		return Principal{Subject: maker, Source: SourceLink, Scope: s}, nil
	}
}

// Who may ask is the caller, and else whoever made the link; where neither may, the
// link's answer stands.
func TestLinkIsACredential(t *testing.T) {
	onlyAlice := fakePolicy(func(q Query) (Decision, error) {
		if q.Principal.Subject == "alice" {
			return Decision{Effect: Allow, Generation: 1, File: "p.csv", Line: 1}, nil
		}
		return Decision{Generation: 1}, nil
	})
	bad := fakeIdentity(func(*Question) (Principal, error) {
		return Principal{}, &CredentialsError{Source: "fake", Problem: "wrong"}
	})
	down := fakeIdentity(func(*Question) (Principal, error) { return Principal{}, errors.New("down") })
	panics := fakeIdentity(func(*Question) (Principal, error) { panic("asked") })
	ended := fakeIdentity(func(*Question) (Principal, error) {
		return Principal{}, &LinkError{Reason: ReasonExpired, ID: "l1", Problem: "is over"}
	})
	forBob := func(s *Scope) { s.Recipient = "bob" }
	for _, row := range []struct {
		name      string
		own, link fakeIdentity
		reason    Reason
		subject   string
		allowed   bool
	}{
		{"own credentials need no link", known("alice"), panics, ReasonPolicy, "alice", true},
		{"missing ones do not end it", anonymous, linkOf("alice", nil), ReasonPolicy, "alice", true},
		{"nor wrong ones", bad, linkOf("alice", nil), ReasonPolicy, "alice", true},
		{"nor undecidable ones", down, linkOf("alice", nil), ReasonPolicy, "alice", true},
		{"nor those that policy refuses", known("bob"), linkOf("alice", nil), ReasonPolicy, "alice", true},
		{"what policy takes from the maker ends the link", known("bob"), linkOf("eve", nil), ReasonDefaultDeny, "eve", false},
		{"no link: the caller's own answer", bad, anonymous, ReasonCredentials, "", false},
		{"a link that is over", bad, ended, ReasonExpired, "", false},
		{"a link that cannot be told", known("bob"), down, ReasonUnavailable, "", false},
		{"a link whose code panics", known("bob"), panics, ReasonUnavailable, "", false},
		{"another file", known("bob"), linkOf("alice", func(s *Scope) { s.Path = "/b" }), ReasonSignature, "alice", false},
		{"another download", known("bob"), linkOf("alice", func(s *Scope) { s.Download = "other" }), ReasonSignature, "alice", false},
		{"a directory", known("bob"), linkOf("alice", func(s *Scope) { s.Path = "/" }), ReasonPolicy, "alice", true},
		{"another directory", known("bob"), linkOf("alice", func(s *Scope) { s.Path = "/a/" }), ReasonSignature, "alice", false},
		{"a scope that names nothing", known("bob"), linkOf("alice", func(s *Scope) { s.Path = "" }), ReasonSignature, "alice", false},
		{"a verified name without a scope", known("bob"), known("alice"), ReasonSignature, "alice", false},
		{"its recipient", known("bob"), linkOf("alice", forBob), ReasonPolicy, "alice", true},
		{"another recipient", known("carol"), linkOf("alice", forBob), ReasonRecipient, "alice", false},
		{"a recipient who is not known", anonymous, linkOf("alice", forBob), ReasonAnonymous, "alice", false},
		{"a recipient with wrong credentials", bad, linkOf("alice", forBob), ReasonCredentials, "", false},
		{"a recipient who cannot be told", down, linkOf("alice", forBob), ReasonUnavailable, "", false},
		{"its network", anonymous, linkOf("alice", func(s *Scope) { s.Networks = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")} }), ReasonPolicy, "alice", true},
		{"another network", anonymous, linkOf("alice", func(s *Scope) { s.Networks = []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")} }), ReasonNetwork, "alice", false},
		{"each maker must have a name that it may have", bad, linkOf("@staff", nil), ReasonSubject, "", false},
	} {
		g := newTestGuard(t, row.own, onlyAlice, &Options{Links: row.link})
		q := question("/downloads/a")
		q.IP = netip.MustParseAddr("::ffff:192.0.2.7")
		out := g.Check(t.Context(), q)
		if out.Reason != row.reason || out.Principal.Subject != row.subject || out.Allowed() != row.allowed {
			t.Errorf("%s: %s %q, want %s %q (%v)", row.name, out.Reason, out.Principal.Subject, row.reason, row.subject, out.Err)
		}
	}
}

// A group of links alone, so that a policy can keep them out.
func TestLinkIsInItsGroup(t *testing.T) {
	var asked Principal
	policy := fakePolicy(func(q Query) (Decision, error) { asked = q.Principal; return Decision{}, nil })
	g := newTestGuard(t, anonymous, policy, &Options{Links: linkOf("alice", nil)})
	out := g.Check(t.Context(), question("/downloads/a"))
	if !slices.Contains(asked.Groups, GroupLink) || !slices.Contains(asked.Groups, GroupAuthenticated) || out.Link != "l1" {
		t.Errorf("asked for %v, link %q", asked.Groups, out.Link)
	}
	if err := ValidGroup("link"); err == nil {
		t.Error("a source may give the group of links")
	}
}
