package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"golang.org/x/term"

	"securefiles/authz"
	"securefiles/internal/config"
	"securefiles/internal/identity"
	"securefiles/internal/limit"
	"securefiles/internal/terminal"
	"securefiles/policy"
	"securefiles/policy/explain"
)

// openPolicy opens the policy of the configuration, and what it is about.
func (c *commands) openPolicy(ctx context.Context, env Env) (*authz.Downloads, *policy.Store, error) {
	p, err := c.openParts(ctx, env)
	if err != nil {
		return nil, nil, err
	}
	return p.Downloads, p.Policy.Store, nil
}

// openParts makes the parts of the configuration, and opens its policy.
func (c *commands) openParts(ctx context.Context, env Env) (*Parts, error) {
	conf, err := c.loadServed(env)
	if err != nil {
		return nil, err
	}
	p, err := c.open(conf, env, slog.New(slog.DiscardHandler))
	if err != nil {
		return nil, err
	}
	return p, p.openPolicy(ctx)
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
	p, err := all.openParts(ctx, env)
	if err != nil {
		return err
	}
	query, err := query(cmd.Ask, p.Downloads, p.Policy.Store.Zone())
	if err != nil {
		return err
	}
	x, err := explain.Decision(ctx, p.Policy.Store, query)
	if err != nil {
		return err
	}
	standing := limitsOf(ctx, p, env, cmd.Ask, query)
	if cmd.JSON {
		err = terminal.WriteJSON(env.Stdout, struct {
			*explain.Explanation
			Limits []limit.Standing `json:"limits,omitempty"`
		}{x, standing})
	} else {
		err = x.Render(env.Stdout, painter(env))
		limit.Render(env.Stdout, standing)
		for _, hint := range slices.Concat(subjectHints(ctx, p, x.Subject), prefixHints(ctx, p, cmd.Subject, cmd.Groups), pathHints(query.Object), diskHints(p.Config, query.Object), hints(p.Downloads, x)) {
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

// limitsOf are the limits that apply to whoever a query is about, and what is left of
// them where the running service tells.
func limitsOf(ctx context.Context, p *Parts, env Env, ask explain.Ask, q authz.Query) []limit.Standing {
	if p.Limits == nil {
		return nil
	}
	all, err := p.Limits.Standing(ctx, p.Queried(q), nil)
	if err != nil || len(all) == 0 {
		return all
	}
	var told struct {
		Limits []limit.Standing `json:"limits"`
	}
	if call(ctx, p.Config, env, http.MethodPost, "/explain", ask, &told) == nil { // or nobody knows
		limit.Told(all, told.Limits)
	}
	return all
}

// query is what the service would ask of the policy.
func query(ask explain.Ask, downloads *authz.Downloads, zone *time.Location) (authz.Query, error) {
	q, err := ask.Query(downloads, zone)
	group, isGroup := strings.CutPrefix(ask.Subject, "@")
	switch {
	case errors.Is(err, authz.ErrSeveral):
		err = fmt.Errorf("%w: --download %s", err, strings.Join(downloads.Names(), " or "))
	case err != nil && strings.HasPrefix(ask.Subject, "/") && !strings.HasPrefix(ask.Path, "/"):
		err = fmt.Errorf("%q is a path: the user comes first, then the path: %s %s", ask.Subject, ask.Path, ask.Subject)
	case err != nil && isGroup:
		err = fmt.Errorf("%w: ask for a user in the group, as USER --group %s", err, group)
	}
	return q, err
}

// escape is a byte as a URL spells it.
var escape = regexp.MustCompile(`%[0-9A-Fa-f]{2}`)

// pathHints tell of what stands for itself in a path, and for something else in a URL or
// a policy.
func pathHints(path string) []string {
	var out []string
	if written := escape.FindString(path); written != "" {
		out = append(out, fmt.Sprintf("%s stands for itself in a path, and is decoded in a URL: this is about a file with %[1]s in its name", written))
	}
	if strings.Contains(path, "*") {
		out = append(out, "* stands for itself in a path: this is about a file of that very name; `securefiles what USER` lists the patterns that a user may have")
	}
	return out
}

// diskHints tell of a path that is where a file is on the disk.
func diskHints(c *config.Config, object string) []string {
	for _, d := range c.Downloads {
		if below, ok := strings.CutPrefix(object, strings.TrimSuffix(d.Root, "/")+"/"); ok && d.Root != "" {
			return []string{fmt.Sprintf("%s is where the file is on the disk: ask for %s, its path below the root of download %s, or for its URL", object, "/"+below, d.Name)}
		}
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

// subjectHints tell of a user whom nobody knows, and who may be meant.
func subjectHints(ctx context.Context, p *Parts, subject string) []string {
	if subject == authz.Anonymous {
		return nil
	}
	var out []string
	resembling := explain.Resembling(p.Policy.Store, subject)
	for _, name := range resembling {
		if group, ok := strings.CutPrefix(name, "@"); ok {
			out = append(out, fmt.Sprintf("the policy knows the group %s, and no user %q: ask for somebody in it with --group %s", name, subject, group))
		} else {
			out = append(out, fmt.Sprintf("the policy knows %q, and not %q: upper and lower case make two names", name, subject))
		}
	}
	// Who there is stands in files only where no source names whomever it likes.
	var files []string
	there := false
	for _, source := range p.Sources {
		if source.Users == nil || source.Reload(ctx) != nil {
			return out
		}
		for name := range source.Users() {
			there = true
			if name = source.Prefix + name; name == subject {
				return out
			} else if strings.EqualFold(name, subject) && !slices.Contains(resembling, name) {
				out = append(out, fmt.Sprintf("%s has %q, and not %q: upper and lower case make two names", source.Files[0], name, subject))
			}
		}
		files = append(files, source.Files...)
	}
	if there { // a file without users is one that somebody is about to fill
		out = append(out, fmt.Sprintf("no identity source knows %q, so nobody can ask as that: %s has no such user", subject, strings.Join(files, ", ")))
	}
	return out
}

// prefixHints tell of a name that no source gives without its prefix, and of groups of that
// kind.
func prefixHints(ctx context.Context, p *Parts, subject string, groups []string) []string {
	if subject == authz.Anonymous {
		return nil
	}
	var prefixed []*identity.Source
	for _, source := range p.Sources {
		if source.Prefix != "" {
			prefixed = append(prefixed, source)
			continue
		}
		if source.Users == nil || source.Reload(ctx) != nil {
			return nil // it can name anybody
		}
		for name := range source.Users() {
			if name == subject {
				return nil
			}
		}
	}
	isWhole := func(name string) bool {
		return slices.ContainsFunc(prefixed, func(s *identity.Source) bool { return strings.HasPrefix(name, s.Prefix) })
	}
	var out []string
	for _, source := range prefixed {
		if !isWhole(subject) {
			out = append(out, fmt.Sprintf("users of %s begin with its prefix: ask for %s%s", source.Name, source.Prefix, subject))
		}
		for _, group := range groups {
			if group = strings.TrimPrefix(group, "@"); !isWhole(group) {
				out = append(out, fmt.Sprintf("groups of %s begin with its prefix: --group %s%s", source.Name, source.Prefix, group))
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
