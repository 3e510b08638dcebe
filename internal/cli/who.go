package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"securefiles/authz"
	"securefiles/internal/terminal"
	"securefiles/policy/explain"
)

// maxHolders bounds the names that are printed under one line.
const maxHolders = 20

// conditions are what a request has beside subject and path.
type conditions struct {
	Action   string `default:"read" enum:"read,list,share" help:"What is asked for: read, list or share."`
	Download string `placeholder:"NAME" help:"Which download, where there are several."`
	IP       string `name:"ip" placeholder:"ADDR" help:"The client's address, for models that ask for it."`
	Host     string `placeholder:"NAME" help:"The host asked, for models that ask for it."`
	At       string `placeholder:"TIME" help:"The moment that is asked about, instead of now, as explain has it."`
	JSON     bool   `name:"json" help:"Print as JSON."`
}

func (c *conditions) ask(subject, path string, groups ...string) explain.Ask {
	return explain.Ask{Subject: subject, Groups: groups, Path: path, Action: c.Action, Download: c.Download, IP: c.IP, Host: c.Host, At: c.At}
}

type whoCommand struct {
	Path string `arg:"" help:"A public URL, its path (/downloads/a.pdf), or the path below it (/a.pdf)."`
	conditions
}

// Help shows an example.
func (whoCommand) Help() string {
	return "Asks the policy for each name that it has, and prints whom it allows and whom a line denies, with that line and the roles that lead to it. @authenticated is any user that the policy does not name. A group stands for a user with that group alone. Exits 1 where nobody may.\n\nExample:\n  securefiles who /downloads/project/plan.pdf"
}

func (cmd *whoCommand) Run(ctx context.Context, env Env, all *commands) error {
	downloads, store, err := all.openPolicy(ctx, env)
	if err != nil {
		return err
	}
	query, err := query(cmd.ask(authz.Anonymous, cmd.Path), downloads, store.Zone())
	if err != nil {
		return err
	}
	who, err := explain.Who(ctx, store, query)
	if err != nil {
		return err
	}
	if cmd.JSON {
		err = terminal.WriteJSON(env.Stdout, who)
	} else {
		err = writeWho(env.Stdout, who, painter(env))
	}
	if err == nil && len(who.Allowed) == 0 {
		return errNo
	}
	return err
}

func writeWho(w io.Writer, who *explain.Holders, paint func(explain.Style, string) string) error {
	out := &strings.Builder{}
	fmt.Fprintf(out, "who may %s %s\n", who.Action, terminal.Printable(who.Object))
	if len(who.Allowed) == 0 {
		out.WriteString("nobody that the policy names\n")
	}
	writeHolders(out, paint(explain.Good, "allow"), who.Allowed)
	writeHolders(out, paint(explain.Bad, "deny"), who.Denied)
	writeNote(out, who.NotExact)
	_, err := io.WriteString(w, out.String())
	return err
}

// writeHolders prints names under the line that decides for them.
func writeHolders(out *strings.Builder, verdict string, holders []explain.Access) {
	var order []int
	byLine := map[int][]explain.Access{}
	for _, h := range holders {
		line := 0
		if h.Line != nil {
			line = h.Line.Line
		}
		if byLine[line] == nil {
			order = append(order, line)
		}
		byLine[line] = append(byLine[line], h)
	}
	for _, line := range order {
		if line == 0 {
			fmt.Fprintf(out, "%s, because no line denies it\n", verdict)
		} else {
			l := byLine[line][0].Line
			fmt.Fprintf(out, "%s by %s:%d  %s\n", verdict, l.File, l.Line, terminal.Printable(l.Text))
		}
		everybody := false
		var names [][2]string
		more := 0
		for _, h := range byLine[line] {
			name, chain := h.Name, holderChain(h)
			if len(h.Groups) > 0 {
				name += " in " + strings.Join(h.Groups, " and ")
			}
			if h.Line != nil && h.Line.Names != "" {
				chain = "(" + h.Line.Names + ") " + chain
			}
			switch {
			case h.Name == authz.Anonymous:
				name, chain = "anonymous", "(no credentials) "+chain
			case h.Name == authz.GroupAuthenticated:
				everybody = true
				name, chain = "@authenticated", "(any user that the policy does not name) "+chain
			case everybody && isEverybodys(h) || len(names) >= maxHolders:
				more++
				continue
			}
			names = append(names, [2]string{terminal.Printable(name), terminal.Printable(strings.TrimSpace(chain))})
		}
		writeTable(out, names)
		if more > 0 {
			fmt.Fprintf(out, "  and %d more that the policy names; --json lists them\n", more)
		}
	}
}

// isEverybodys reports whether a name has a line by a built-in group.
func isEverybodys(h explain.Access) bool {
	if h.Line == nil {
		return true
	}
	for _, s := range h.Line.Chain {
		if s.Name == authz.GroupAnyone || s.Name == authz.GroupAuthenticated {
			return true
		}
	}
	return false
}

// holderChain is the way to a line, without the unnamed user who has a group.
func holderChain(h explain.Access) string {
	if h.Line == nil || len(h.Line.Chain) == 0 {
		return ""
	}
	chain := h.Line.Chain
	if h.Kind == explain.KindGroup {
		chain = chain[1:]
	}
	if len(chain) < 2 {
		return ""
	}
	return "by way of " + explain.ChainText(chain)
}

// writeTable aligns rows whose last cells may be empty.
func writeTable(out *strings.Builder, rows [][2]string) {
	var text strings.Builder
	table := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	for _, r := range rows {
		fmt.Fprintf(table, "  %s\t%s\n", r[0], r[1])
	}
	_ = table.Flush() // a Builder takes everything
	for line := range strings.Lines(text.String()) {
		out.WriteString(strings.TrimRight(line, " \n") + "\n")
	}
}

func writeNote(out *strings.Builder, notExact string) {
	if notExact != "" {
		fmt.Fprintf(out, "note: %s\n", terminal.Printable(notExact))
	}
}

type whatCommand struct {
	Subject string   `arg:"" help:"A user, anonymous, or a role or group of the policy (@staff)."`
	Groups  []string `name:"group" placeholder:"G" help:"A group of the subject, with or without @; repeatable."`
	conditions
}

// Help shows an example.
func (whatCommand) Help() string {
	return "Prints the patterns that reach a subject, with the lines that grant or deny them and the roles that lead to each. Exits 1 where nothing is granted.\n\nExamples:\n  securefiles what alice\n  securefiles what @contractors --action list"
}

func (cmd *whatCommand) Run(ctx context.Context, env Env, all *commands) error {
	p, err := all.openParts(ctx, env)
	if err != nil {
		return err
	}
	downloads, store := p.Downloads, p.Policy.Store
	query, err := cmd.query(downloads, store.Zone())
	if err != nil {
		return err
	}
	what, err := explain.What(ctx, store, query)
	if err != nil {
		return err
	}
	what.Subject = cmd.Subject
	if cmd.JSON {
		err = terminal.WriteJSON(env.Stdout, what)
	} else {
		err = writeWhat(env.Stdout, what, painter(env))
		if authz.ValidSubject(cmd.Subject) == nil { // no group, and no role
			for _, hint := range subjectHints(ctx, p, cmd.Subject) {
				fmt.Fprintln(env.Stdout, "hint:", hint)
			}
		}
	}
	granted := what.Everything
	for _, g := range what.Grants {
		granted = granted || g.Line.Effect == "allow" && g.Overridden == nil
	}
	if err == nil && !granted {
		return errNo
	}
	return err
}

// query builds what the service would ask, for no path yet.
func (cmd *whatCommand) query(downloads *authz.Downloads, zone *time.Location) (authz.Query, error) {
	ask := cmd.ask(cmd.Subject, "/x", cmd.Groups...)
	name, group := strings.CutPrefix(cmd.Subject, "@")
	if !group {
		name, group = strings.CutPrefix(cmd.Subject, authz.RolePrefix)
	}
	if group { // the policy makes an unnamed user of it, or of a role
		ask.Subject = name
	}
	if cmd.Download == "" && len(downloads.All()) > 1 {
		return authz.Query{}, errors.New("there are several downloads: say which with --download")
	}
	q, err := ask.Query(downloads, zone)
	if group {
		q.Principal.Subject = cmd.Subject
	}
	q.Object = ""
	return q, err
}

func writeWhat(w io.Writer, what *explain.Holdings, paint func(explain.Style, string) string) error {
	out := &strings.Builder{}
	fmt.Fprintf(out, "what %s may %s\n", terminal.Printable(what.Subject), what.Action)
	if what.Everything {
		out.WriteString("everything that no line denies\n")
	}
	row := func(g explain.Grant) [2]string {
		place := fmt.Sprintf("%s:%d", g.Line.File, g.Line.Line)
		kind := explain.KindUser
		if len(g.Line.Chain) > 0 && g.Line.Chain[0].Name != what.Subject { // an unnamed user who has the group or role
			kind = explain.KindGroup
		}
		if chain := holderChain(explain.Access{Kind: kind, Line: &g.Line}); chain != "" {
			place += "  " + chain
		}
		if g.Overridden != nil {
			place += fmt.Sprintf("  (overridden by line %d)", g.Overridden.Line)
		}
		return [2]string{terminal.Printable(g.Pattern), terminal.Printable(place)}
	}
	section := func(title string, keep func(explain.Grant) bool) {
		var rows [][2]string
		for _, g := range what.Grants {
			if keep(g) {
				rows = append(rows, row(g))
			}
		}
		if len(rows) > 0 {
			fmt.Fprintln(out, title)
			writeTable(out, rows)
		}
	}
	if what.Ordered {
		out.WriteString("the first that matches decides:\n")
		var rows [][2]string
		for _, g := range what.Grants {
			r := row(g)
			rows = append(rows, [2]string{r[0], g.Line.Effect + "  " + r[1]})
		}
		writeTable(out, rows)
	} else {
		section(paint(explain.Good, "allow")+":", func(g explain.Grant) bool { return g.Line.Effect == "allow" && g.Overridden == nil })
		section("allow, but another line overrides it:", func(g explain.Grant) bool { return g.Line.Effect == "allow" && g.Overridden != nil })
		section(paint(explain.Bad, "deny")+":", func(g explain.Grant) bool { return g.Line.Effect == "deny" })
	}
	if len(what.Grants) == 0 && !what.Everything {
		out.WriteString("nothing\n")
	}
	writeNote(out, what.NotExact)
	_, err := io.WriteString(w, out.String())
	return err
}
