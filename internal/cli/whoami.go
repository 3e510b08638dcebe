package cli

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"
	"time"

	"securefiles/authz"
	"securefiles/internal/config"
	"securefiles/internal/identity"
	"securefiles/internal/limit"
	"securefiles/internal/terminal"
	"securefiles/policy/explain"
)

type whoamiCommand struct {
	User    string   `short:"u" placeholder:"USER:PASSWORD" help:"Name and password, as a browser sends them after it has asked."`
	Header  []string `short:"H" sep:"none" placeholder:"'NAME: VALUE'" help:"A header of the request, as nginx sends it to the service; repeatable."`
	Cookie  []string `sep:"none" placeholder:"NAME=VALUE" help:"A cookie of the request; repeatable."`
	Request string   `placeholder:"FILE" help:"Read the request, or its header lines, from a file; - is standard input. Arguments are seen by other users of the machine, a file need not be."`
	JSON    bool     `name:"json" help:"Print the answer as JSON."`
}

// Help shows an example.
func (whoamiCommand) Help() string {
	return "Asks the configured sources, in order, by the code that serves. Prints no credentials. Exits 0 if a user is found, else 1.\n\nExamples:\n  securefiles whoami -u alice:alice\n  securefiles whoami --cookie sessionid=3vh5…\n  securefiles whoami --request - < request.txt"
}

func (cmd *whoamiCommand) Run(ctx context.Context, env Env, all *commands) error {
	c, err := all.loadServed(env)
	if err != nil {
		return err
	}
	q, err := cmd.request()
	if err != nil {
		return err
	}
	log := newLogger(env.Stderr, config.Log{Format: c.Log.Format, Level: "error"}, new(slog.LevelVar))
	p, err := all.open(c, env, log)
	if err != nil {
		return err
	}
	if err := p.Sources.Load(ctx); err != nil {
		return err
	}
	p.Sources.Ask(ctx)
	q.Download = p.Downloads.All()[0]
	var decider authz.Decider
	if err := p.Policy.Open(ctx); err == nil {
		decider = p.Policy.Store
	} else {
		fmt.Fprintln(env.Stderr, "securefiles: the policy cannot be read, so whether the user is named like a role of it is not looked at: see `securefiles check`")
	}
	answer := p.Sources.Whoami(ctx, q, decider)
	standing := limitsOfCaller(ctx, p, env, answer)
	if cmd.JSON {
		err = terminal.WriteJSON(env.Stdout, struct {
			*identity.Whoami
			Limits []limit.Standing `json:"limits,omitempty"`
		}{answer, standing})
	} else {
		err = answer.Render(env.Stdout)
		limit.Render(env.Stdout, standing)
	}
	if err != nil {
		return err
	}
	if answer.Result != identity.ResultAccepted {
		return errNo
	}
	return nil
}

// limitsOfCaller are the limits that apply to who was found, in any download.
func limitsOfCaller(ctx context.Context, p *Parts, env Env, who *identity.Whoami) []limit.Standing {
	if p.Limits == nil || who.Result != identity.ResultAccepted && who.Result != identity.ResultAnonymous {
		return nil
	}
	ask := explain.Ask{Subject: who.Subject, Path: "/file", Action: authz.ActionRead}
	for _, g := range who.Groups {
		if !authz.IsBuiltinGroup(g) {
			ask.Groups = append(ask.Groups, g)
		}
	}
	var all []limit.Standing
	for _, ask.Download = range p.Downloads.Names() {
		q, err := ask.Query(p.Downloads, time.UTC)
		if err != nil { // a name that policy reserves is nobody's
			return nil
		}
		for _, one := range limitsOf(ctx, p, env, ask, q) {
			if !slices.ContainsFunc(all, func(s limit.Standing) bool { return s.Name == one.Name && s.Most == one.Most }) {
				all = append(all, one)
			}
		}
	}
	return all
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
			defer f.Close() // read-only
			in = f
		}
		var err error
		if text, err = io.ReadAll(io.LimitReader(in, identity.MaxRequest+1)); err != nil {
			return nil, fmt.Errorf("read the request: %w", err)
		}
		if len(text) > identity.MaxRequest {
			return nil, fmt.Errorf("the request is larger than %d bytes, the most that the service takes", identity.MaxRequest)
		}
		text = append(bytes.TrimRight(text, "\r\n"), "\r\n"...)
	}
	if cmd.User != "" {
		if !strings.Contains(cmd.User, ":") {
			return nil, fmt.Errorf("-u %s: the password is missing: write -u USER:PASSWORD", cmd.User)
		}
		text = append(text, "Authorization: Basic "+base64.StdEncoding.EncodeToString([]byte(cmd.User))+"\r\n"...)
	}
	for _, line := range cmd.Header {
		text = append(text, line+"\r\n"...)
	}
	if len(cmd.Cookie) > 0 {
		text = append(text, "Cookie: "+strings.Join(cmd.Cookie, "; ")+"\r\n"...)
	}
	return identity.ParseRequest(text)
}
