package identity

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"securefiles/authz"
)

// How an attempt to find out who asks can end; of a source, or of all.
const (
	ResultAccepted    = "accepted"    // this is the caller
	ResultRefused     = "refused"     // credentials are there, and wrong: 401, or 403 for a role's name
	ResultUnavailable = "unavailable" // credentials are there, and nobody can tell: 503
	ResultNothing     = "nothing"     // no credentials of this kind
	ResultNotAsked    = "not asked"   // an earlier source decided
	ResultAnonymous   = "anonymous"   // no source found credentials
)

// A Whoami says who asks with a request, and how that came about. It holds names
// and reasons, and nothing that could be used to log in.
type Whoami struct {
	Result  string         `json:"result"`
	Subject string         `json:"subject,omitempty"`
	Groups  []string       `json:"groups,omitempty"`
	Source  string         `json:"source,omitempty"`
	Problem string         `json:"problem,omitempty"`
	Sources []SourceResult `json:"sources"`
}

// A SourceResult is what one source said.
type SourceResult struct {
	Source  string `json:"source"`
	Place   string `json:"place"` // where it looks
	Result  string `json:"result"`
	Problem string `json:"problem,omitempty"`
	// Expects says, where no source found anything, what this one would look at, as
	// `securefiles whoami` takes it.
	Expects string `json:"expects,omitempty"`
}

// Whoami asks the sources as the service does. The policy, which may be nil, has
// its say on names that it reserves.
func (s Sources) Whoami(ctx context.Context, q *authz.Question, policy authz.Decider) *Whoami {
	out := &Whoami{}
	for _, source := range s {
		out.Sources = append(out.Sources, SourceResult{Source: source.Name, Place: source.Place, Result: ResultNotAsked})
	}
	p, err := authz.Identify(ctx, s.Chain().Traced(func(i int, err error) {
		out.Sources[i].Result, out.Sources[i].Problem = resultOf(err)
	}), q)
	if err == nil && policy != nil {
		_, err = policy.Decide(ctx, q.Query(p))
		if !errors.Is(err, authz.ErrReservedSubject) { // of the policy, only names matter here
			err = nil
		}
	}
	out.Result, out.Problem = resultOf(err)
	out.Subject, out.Groups, out.Source = p.Subject, p.Groups, p.Source
	if p.IsAnonymous() {
		out.Result = ResultAnonymous
		for i, source := range s {
			out.Sources[i].Expects = source.expects()
		}
	}
	return out
}

// expects says what credentials of the source look like in a request, and where nginx has
// them from.
func (s *Source) expects() string {
	var all []string
	for _, read := range s.Reads {
		name, detail, _ := strings.Cut(read, ": ")
		switch {
		case read == "Authorization: Basic":
			all = append(all, "-u USER:PASSWORD")
		case name == "Cookie":
			all = append(all, "--cookie "+detail+"=…")
		case detail != "":
			all = append(all, "-H '"+read+" …'")
		default:
			all = append(all, "-H '"+name+": …'"+s.filled(name))
		}
	}
	return strings.Join(all, ", or ")
}

// filled says what nginx fills a header with.
func (s *Source) filled(name string) string {
	for _, h := range s.Headers {
		switch {
		case !strings.EqualFold(h.Name, name) || h.FromClient:
		case h.Value == "":
			return ", which nginx clears: set nginx_value"
		default:
			return ", which nginx fills with " + h.Value
		}
	}
	return ""
}

// resultOf puts what a source said into words.
func resultOf(err error) (result, problem string) {
	var bad *authz.CredentialsError
	switch {
	case err == nil:
		return ResultAccepted, ""
	case errors.Is(err, authz.ErrNoCredentials):
		return ResultNothing, ""
	case errors.As(err, &bad):
		return ResultRefused, bad.Problem
	case errors.Is(err, authz.ErrReservedSubject):
		return ResultRefused, err.Error()
	default:
		return ResultUnavailable, err.Error()
	}
}

// Render writes the answer for people, the outcome first.
func (a *Whoami) Render(w io.Writer) error {
	var b strings.Builder
	b.WriteString(a.Result)
	switch {
	case a.Result == ResultAnonymous:
		b.WriteString(": no source finds credentials")
	case a.Subject != "":
		fmt.Fprintf(&b, ": %s", a.Subject)
	}
	if a.Source != "" {
		fmt.Fprintf(&b, ", by %s", a.Source)
	}
	if a.Problem != "" {
		fmt.Fprintf(&b, ": %s", a.Problem)
	}
	b.WriteString("\n")
	if len(a.Groups) > 0 {
		fmt.Fprintf(&b, "groups: %s\n", strings.Join(a.Groups, ", "))
	}
	for n, s := range a.Sources {
		fmt.Fprintf(&b, "%d. %s (%s): %s", n+1, s.Source, s.Place, s.Result)
		if s.Problem != "" {
			fmt.Fprintf(&b, ": %s", s.Problem)
		}
		if s.Expects != "" {
			fmt.Fprintf(&b, "; it looks for %s", s.Expects)
		}
		b.WriteString("\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}
