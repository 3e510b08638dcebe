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
	"securefiles/internal/identity"
	"securefiles/policy"
)

// maxRequest bounds the request that whoami reads, in bytes: what the service
// takes from nginx.
const maxRequest = maxHeaderBytes

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
	log := newLogger(env.stderr, config.Log{Format: c.Log.Format, Level: "error"})
	p, err := arrange(c, log)
	if err = errors.Join(err, p.sources.Load(ctx)); err != nil {
		return err
	}
	p.sources.Ask(ctx)
	q.Download = p.downloads.All()[0]
	var decider authz.Decider
	source, opts := policySource(c)
	if store, err := policy.Open(ctx, source, opts); err == nil {
		decider = store
	} else {
		fmt.Fprintln(env.stderr, "securefiles: the policy cannot be read, so whether the user is named like a role of it is not looked at: see `securefiles check`")
	}
	answer := p.sources.Whoami(ctx, q, decider)
	if cmd.JSON {
		err = writeJSON(env.stdout, answer)
	} else {
		err = answer.Render(env.stdout)
	}
	if err != nil {
		return err
	}
	if answer.Result != identity.ResultAccepted {
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
	respond(w, http.StatusOK, s.sources.Whoami(ctx, asked, s.store))
}
