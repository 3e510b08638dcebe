package authz

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// SourceLink names links among the sources of identity.
const SourceLink = "link"

// A Scope is what a link bounds its maker to. It comes of an [Authenticator] that has
// verified the link; its zero value opens nothing.
type Scope struct {
	// ID is the link's own.
	ID string
	// Download names the download, and Path the one file below it, or with a final
	// slash all that is below.
	Download, Path string
	// Recipient is the subject that the link is for, who must be known too; empty means
	// whoever has it.
	Recipient string
	// Networks are where the link can be used; none means everywhere.
	Networks []netip.Prefix
	// Expires is when the link ends.
	Expires time.Time
	// Filename is what the file is saved as; empty means as it is called.
	Filename string
	// Rate bounds the bytes a second of a request; zero means no bound.
	Rate int64
	// Uses is how many downloads the link is good for; zero means any number.
	Uses int
	// Password says that the link's page asks for one.
	Password bool
}

// A LinkError says why a link is none, or none any more: the request ends with its
// reason, whatever policy says.
type LinkError struct {
	Reason Reason
	// ID is the link's own, where its signature was good.
	ID string
	// Page is what is shown with it; empty means nothing.
	Page Page
	// Problem is for the operator's log: it quotes nothing of the link.
	Problem string
}

func (e *LinkError) Error() string { return "link: " + e.Problem }

// Names reports whether the scope names the path below the download.
func (s *Scope) Names(download, path string) bool {
	if s == nil || s.Download != download || s.Path == "" {
		return false
	}
	if strings.HasSuffix(s.Path, "/") {
		return strings.HasPrefix(path, s.Path)
	}
	return s.Path == path
}

// refuse returns the outcome of a question that the scope does not cover, or nil. The
// caller's own outcome says who came with the link.
func (s *Scope) refuse(q *Question, p Principal, own *Outcome) *Outcome {
	var out *Outcome
	switch {
	case s == nil || !s.Names(q.Download.Name, q.Path.String()):
		out = Refuse(q, ReasonSignature, fmt.Errorf("the link is for something else"))
	case len(s.Networks) > 0 && !slices.ContainsFunc(s.Networks, func(n netip.Prefix) bool { return n.Contains(q.IP.Unmap().WithZone("")) }):
		out = Refuse(q, ReasonNetwork, fmt.Errorf("the link is for another network"))
	case s.Recipient == "":
		return nil
	case own.Principal.Subject == "" || own.Principal.IsAnonymous():
		out = own // who it is could not be told, or must be said first
		if own.Err == nil {
			out = Refuse(q, ReasonAnonymous, fmt.Errorf("the link is for somebody who must log in"))
			out.Challenge = own.Challenge
		}
	case own.Principal.Subject != s.Recipient:
		out = Refuse(q, ReasonRecipient, fmt.Errorf("the link is for another subject"))
	default:
		return nil
	}
	if s != nil {
		out.Link = s.ID
	}
	if out != own {
		out.Principal, out.Source = p, p.Source
	}
	return out
}
