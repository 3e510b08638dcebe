package cli

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"strings"

	"golang.org/x/term"

	"securefiles/authz"
	"securefiles/internal/terminal"
	"securefiles/policy"
	"securefiles/policy/explain"
)

// openPolicy opens the policy of the configuration, and what it is about.
func (c *commands) openPolicy(ctx context.Context, env Env) (*authz.Downloads, *policy.Store, error) {
	conf, err := c.load(env)
	if err != nil {
		return nil, nil, err
	}
	p, err := c.open(conf, env, slog.New(slog.DiscardHandler))
	if err != nil {
		return nil, nil, err
	}
	err = p.Policy.Open(ctx)
	return p.Downloads, p.Policy.Store, err
}

type explainCommand struct {
	explain.Ask
	JSON bool `name:"json" help:"Print the explanation as JSON."`
}

// Help shows an example.
func (explainCommand) Help() string {
	return "Decides by the code that serves, and prints the lines that matched, the roles that led to them, and for a default deny the nearest lines and what they lack. Exits 0 on allow, 1 on deny.\n\nExamples:\n  securefiles explain alice /project/plan.pdf\n  securefiles explain bob /downloads/project/hr/pay.pdf --group contractors"
}

func (cmd *explainCommand) Run(ctx context.Context, env Env, all *commands) error {
	downloads, store, err := all.openPolicy(ctx, env)
	if err != nil {
		return err
	}
	query, err := cmd.Query(downloads, store.Zone())
	if err != nil {
		return err
	}
	x, err := explain.Decision(ctx, store, query)
	if err != nil {
		return err
	}
	if cmd.JSON {
		err = terminal.WriteJSON(env.Stdout, x)
	} else {
		err = x.Render(env.Stdout, painter(env))
		for _, hint := range hints(downloads, x) {
			fmt.Fprintln(env.Stdout, "hint:", hint)
		}
	}
	if err != nil {
		return err
	}
	if !x.Allowed {
		return errNo
	}
	return nil
}

// hints name mistakes that a policy alone does not show.
func hints(downloads *authz.Downloads, x *explain.Explanation) []string {
	var out []string
	for _, d := range downloads.All() {
		for _, l := range x.Nearest {
			if strings.Contains(l.Text, ", "+d.URL) {
				out = append(out, fmt.Sprintf("%s:%d begins with %s, the url of download %s: in a policy paths begin below it, so leave %s out",
					l.File, l.Line, d.URL, d.Name, strings.TrimSuffix(d.URL, "/")))
			}
		}
	}
	return out
}

// painter puts colours around text where a terminal shows them.
func painter(env Env) func(explain.Style, string) string {
	noColour, _ := env.Lookup("NO_COLOR")
	kind, _ := env.Lookup("TERM")
	f, ok := env.Stdout.(*os.File)
	if !ok || noColour != "" || kind == "dumb" || !term.IsTerminal(int(f.Fd())) {
		return func(_ explain.Style, text string) string { return text }
	}
	return func(mood explain.Style, text string) string {
		code := map[explain.Style]string{explain.Good: "32", explain.Bad: "31", explain.Strong: "1"}[mood]
		return "\x1b[" + code + "m" + text + "\x1b[0m"
	}
}
