package cli

import (
	"context"
	"fmt"
	"net/http"
)

type stateCommand struct {
	Accept stateAcceptCommand `cmd:"" help:"Open links again after Redis was emptied, or is new."`
}

type stateAcceptCommand struct{}

// Help says what is accepted.
func (stateAcceptCommand) Help() string {
	return "Tells the running service, with the admin token, that what Redis holds now is what counts: links that were used up or revoked before, and are not known any more, are open again; end their key where that must not be. Needs state.redis.\n\nExample:\n  securefiles state accept"
}

func (stateAcceptCommand) Run(ctx context.Context, env Env, all *commands) error {
	c, err := all.loadServed(env)
	if err != nil {
		return err
	}
	if err := call(ctx, c, env, http.MethodPost, "/state/accept", nil, nil); err != nil {
		return err
	}
	_, err = fmt.Fprintln(env.Stdout, "accepted: links are opened by what Redis holds now")
	return err
}
