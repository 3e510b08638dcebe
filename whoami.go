package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"

	"securefiles/authz"
	"securefiles/internal/config"
	"securefiles/policy"
)

// maxRequest bounds the request that whoami reads, in bytes: what the service
// takes from nginx.
const maxRequest = maxHeaderBytes

// How an attempt to find out who asks can end; of a source, or of all.
const (
	resultAccepted    = "accepted"    // this is the caller
	resultRefused     = "refused"     // credentials are there, and wrong: 401, or 403 for a role's name
	resultUnavailable = "unavailable" // credentials are there, and nobody can tell: 503
	resultNothing     = "nothing"     // no credentials of this kind
	resultNotAsked    = "not asked"   // an earlier source decided
	resultAnonymous   = "anonymous"   // no source found credentials
)

// An introduction says who asks with a request, and how that came about. It
// holds names and reasons, and nothing that could be used to log in.
type introduction struct {
	Result  string        `json:"result"`
	Subject string        `json:"subject,omitempty"`
	Groups  []string      `json:"groups,omitempty"`
	Source  string        `json:"source,omitempty"`
	Problem string        `json:"problem,omitempty"`
	Sources []testimonial `json:"sources"`
}

// A testimonial is what one source said.
type testimonial struct {
	Source  string `json:"source"`
	Place   string `json:"place"` // where it looks
	Result  string `json:"result"`
	Problem string `json:"problem,omitempty"`
}

// introduce asks the sources as the service does. The policy, which may be nil,
// has its say on names that it reserves.
func (c *callers) introduce(ctx context.Context, q *authz.Question, store authz.Decider) *introduction {
	out := &introduction{}
	for i, name := range c.names {
		out.Sources = append(out.Sources, testimonial{Source: name, Place: c.places[i], Result: resultNotAsked})
	}
	p, err := authz.Identify(ctx, c.chain.Traced(func(i int, err error) {
		out.Sources[i].Result, out.Sources[i].Problem = resultOf(err)
	}), q)
	if err == nil && store != nil {
		_, err = store.Decide(ctx, q.Query(p))
		if !errors.Is(err, authz.ErrReservedSubject) { // of the policy, only names matter here
			err = nil
		}
	}
	out.Result, out.Problem = resultOf(err)
	out.Subject, out.Groups, out.Source = p.Subject, p.Groups, p.Source
	if p.IsAnonymous() {
		out.Result = resultAnonymous
	}
	return out
}

// resultOf puts what a source said into words.
func resultOf(err error) (result, problem string) {
	var bad *authz.CredentialsError
	switch {
	case err == nil:
		return resultAccepted, ""
	case errors.Is(err, authz.ErrNoCredentials):
		return resultNothing, ""
	case errors.As(err, &bad):
		return resultRefused, bad.Problem
	case errors.Is(err, authz.ErrReservedSubject):
		return resultRefused, err.Error()
	default:
		return resultUnavailable, err.Error()
	}
}

// Render writes the introduction for people, the outcome first.
func (i *introduction) Render(w io.Writer) error {
	var b strings.Builder
	b.WriteString(i.Result)
	switch {
	case i.Result == resultAnonymous:
		b.WriteString(": no source finds credentials")
	case i.Subject != "":
		fmt.Fprintf(&b, ": %s", i.Subject)
	}
	if i.Source != "" {
		fmt.Fprintf(&b, ", by %s", i.Source)
	}
	if i.Problem != "" {
		fmt.Fprintf(&b, ": %s", i.Problem)
	}
	b.WriteString("\n")
	if len(i.Groups) > 0 {
		fmt.Fprintf(&b, "groups: %s\n", strings.Join(i.Groups, ", "))
	}
	for n, s := range i.Sources {
		fmt.Fprintf(&b, "%d. %s (%s): %s", n+1, s.Source, s.Place, s.Result)
		if s.Problem != "" {
			fmt.Fprintf(&b, ": %s", s.Problem)
		}
		b.WriteString("\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// readRequest reads a request as a server does: whole (GET /path HTTP/1.1 and
// header lines), or header lines alone. Its error quotes nothing.
func readRequest(text []byte) (*authz.Question, error) {
	first, _, _ := bytes.Cut(text, []byte("\n"))
	if !bytes.Contains(first, []byte(" HTTP/1.")) {
		text = slices.Concat([]byte("GET / HTTP/1.1\r\n"), text)
	}
	text = slices.Concat(bytes.TrimRight(text, "\r\n"), []byte("\r\n\r\n"))
	r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(text)))
	if err != nil {
		return nil, errors.New("not a request: give `GET /path HTTP/1.1` and header lines `Name: value`, or header lines alone")
	}
	return &authz.Question{Method: r.Method, Target: r.RequestURI, Host: r.Host, Action: authz.ActionRead, Header: r.Header}, nil
}

type whoamiCommand struct {
	Header  []string `short:"H" sep:"none" placeholder:"'NAME: VALUE'" help:"A header of the request, as nginx sends it to the service; repeatable."`
	Cookie  []string `sep:"none" placeholder:"NAME=VALUE" help:"A cookie of the request; repeatable."`
	Request string   `placeholder:"FILE" help:"Read the request, or its header lines, from a file; - is standard input. Arguments are seen by other users of the machine, a file need not be."`
	JSON    bool     `name:"json" help:"Print the answer as JSON."`
}

// Help shows an example.
func (whoamiCommand) Help() string {
	return "Asks the configured sources, in order, by the code that serves. Prints no credentials. Exits 0 if a user is found, else 1.\n\nExamples:\n  securefiles whoami -H 'Authorization: Basic YWxpY2U6YWxpY2U='\n  securefiles whoami --cookie sessionid=3vh5…\n  securefiles whoami --request - < request.txt"
}

func (cmd *whoamiCommand) Run(ctx context.Context, env environment, all *commands) error {
	c, err := all.load(env)
	if err != nil {
		return err
	}
	q, err := cmd.request()
	if err != nil {
		return err
	}
	downloads, err := guardedDownloads(c.Downloads)
	if err != nil {
		return err
	}
	q.Download = downloads.All()[0]
	log := newLogger(env.stderr, config.Log{Format: c.Log.Format, Level: "error"})
	callers, err := openIdentity(c, log)
	if err != nil {
		return err
	}
	if err := loadKeys(ctx, log, callers.keys); err != nil {
		return err
	}
	var decider authz.Decider
	source, opts := policySource(c)
	if store, err := policy.Open(ctx, source, opts); err == nil {
		decider = store
	} else {
		fmt.Fprintln(env.stderr, "securefiles: the policy cannot be read, so whether the user is named like a role of it is not looked at: see `securefiles check`")
	}
	answer := callers.introduce(ctx, q, decider)
	if cmd.JSON {
		err = writeJSON(env.stdout, answer)
	} else {
		err = answer.Render(env.stdout)
	}
	if err != nil {
		return err
	}
	if answer.Result != resultAccepted {
		return errNo
	}
	return nil
}

// request puts the request together.
func (cmd *whoamiCommand) request() (*authz.Question, error) {
	var text []byte
	if cmd.Request != "" {
		in := os.Stdin
		if cmd.Request != "-" {
			f, err := os.Open(cmd.Request)
			if err != nil {
				return nil, fmt.Errorf("read the request: %w", err)
			}
			defer f.Close() //nolint:errcheck // read-only
			in = f
		}
		var err error
		if text, err = io.ReadAll(io.LimitReader(in, maxRequest+1)); err != nil {
			return nil, fmt.Errorf("read the request: %w", err)
		}
		if len(text) > maxRequest {
			return nil, fmt.Errorf("the request is larger than %d bytes, the most that the service takes", maxRequest)
		}
		text = append(bytes.TrimRight(text, "\r\n"), "\r\n"...)
	}
	for _, line := range cmd.Header {
		text = append(text, line+"\r\n"...)
	}
	if len(cmd.Cookie) > 0 {
		text = append(text, "Cookie: "+strings.Join(cmd.Cookie, "; ")+"\r\n"...)
	}
	return readRequest(text)
}

// whoami answers POST /whoami: a request, or its header lines, as the body.
func (s *service) whoami(w http.ResponseWriter, r *http.Request) {
	text, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxRequest))
	if err != nil {
		respond(w, http.StatusRequestEntityTooLarge, problem{fmt.Sprintf("the body is larger than %d bytes, or was cut", maxRequest)})
		return
	}
	asked, err := readRequest(text)
	if err != nil {
		respond(w, http.StatusBadRequest, problem{err.Error()})
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), explainDeadline)
	defer cancel()
	asked.Download = s.downloads.All()[0]
	respond(w, http.StatusOK, s.callers.introduce(ctx, asked, s.store))
}
