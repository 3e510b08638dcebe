package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"securefiles/authz"
	"securefiles/internal/config"
	"securefiles/internal/terminal"
	"securefiles/policy/explain"
)

// maxChangedNames bounds the names that are printed for one change.
const maxChangedNames = 5

// diffGCPercent is by how much memory may grow before it is looked through.
const diffGCPercent = 40

type diffCommand struct {
	Old      string   `arg:"" help:"A policy, a configuration (.yaml), or a directory that has one."`
	New      string   `arg:"" help:"The same, after the change."`
	OldModel string   `placeholder:"FILE" help:"The model of OLD; default: that of its configuration, or of --config."`
	NewModel string   `placeholder:"FILE" help:"The model of NEW."`
	Paths    string   `placeholder:"FILE" help:"Paths to try beside those made from the patterns, one a line; - for standard input."`
	Action   []string `placeholder:"ACTION" help:"Compare this action alone; repeatable (default: read, list and share)."`
	IP       string   `name:"ip" placeholder:"ADDR" help:"The client's address, for models that ask for it."`
	Host     string   `placeholder:"NAME" help:"The host asked, for models that ask for it."`
	At       string   `placeholder:"TIME" help:"The moment that is compared, instead of now and all that are to come, as explain has it."`
	JSON     bool     `name:"json" help:"Print as JSON."`
}

// Help shows an example.
func (diffCommand) Help() string {
	return "Finds for each name that one of two policies has what it gains and what it loses: both policies are asked about a path of every kind that their patterns tell apart, now and at each later moment at which a line begins or ends. What could not be tried to the end is told, by line; give real paths for it with --paths. Exits 1 where something is gained, for review in continuous integration, 0 where nothing is, and 2 where not all was tried, whatever was found, or the command line is wrong.\n\nExamples:\n  git show main:policy.csv > /tmp/old.csv && securefiles diff /tmp/old.csv policy.csv\n  securefiles diff --paths paths.txt /etc/securefiles ./securefiles.yaml"
}

func (cmd *diffCommand) Run(ctx context.Context, env Env, all *commands) error {
	c, err := all.load(env)
	if err != nil {
		return err
	}
	// Two policies are held, and what is read of them is soon forgotten: a million
	// lines fit in 500 MB.
	defer debug.SetGCPercent(debug.SetGCPercent(diffGCPercent))
	before, err := all.openSide(ctx, c, cmd.Old, cmd.OldModel)
	if err != nil {
		return err
	}
	after, err := all.openSide(ctx, c, cmd.New, cmd.NewModel)
	if err != nil {
		return err
	}
	shown := newProgress(env, "comparing")
	opts := &explain.DiffOptions{
		IP: cmd.IP, Host: cmd.Host,
		Progress: func(names, all int) { shown.show(float64(names) / float64(all)) },
	}
	if opts.At, err = explain.Moment(cmd.At, after.Policy.Store.Zone()); err != nil {
		return err
	}
	for _, d := range slices.Concat(before.Downloads.All(), after.Downloads.All()) {
		if !slices.Contains(opts.Domains, d.Name) {
			opts.Domains = append(opts.Domains, d.Name)
		}
	}
	if cmd.Action == nil {
		cmd.Action = authz.Actions()
	}
	for _, a := range cmd.Action {
		action, err := authz.ParseAction(a)
		if err != nil {
			return err
		}
		opts.Actions = append(opts.Actions, action)
	}
	if opts.Paths, err = readPaths(cmd.Paths, after.Downloads); err != nil {
		return err
	}
	d, err := explain.Compare(ctx, before.Policy.Store, after.Policy.Store, opts)
	shown.done()
	if err != nil {
		return err
	}
	if cmd.JSON {
		err = terminal.WriteJSON(env.Stdout, d)
	} else {
		err = writeDiff(env.Stdout, d, painter(env))
	}
	switch {
	case err != nil:
		return err
	case len(d.Untried) > 0:
		return errors.New("diff: not all was tried, so that more may be gained than is told")
	case len(d.Gained) > 0:
		return errNo
	}
	return nil
}

// openSide opens one of two policies: a CSV file, a configuration, or a
// directory that has one. An empty policy is one like another.
func (all *commands) openSide(ctx context.Context, c *config.Config, name, model string) (*Parts, error) {
	info, err := os.Stat(name)
	if err != nil {
		return nil, fmt.Errorf("open policy: %w", err)
	}
	side := *c
	side.Policy.File = name
	ext := filepath.Ext(name)
	if info.IsDir() {
		ext, name = ".yaml", filepath.Join(name, "securefiles.yaml")
	}
	if ext == ".yaml" || ext == ".yml" {
		own, err := config.Load(name, nil)
		if err != nil {
			return nil, err
		}
		side = *own
	}
	if model != "" {
		side.Policy.Model = model
	}
	side.Policy.AllowShrink = true
	p, err := all.program.Open(&side, Env{}.Lookup, slog.New(slog.DiscardHandler))
	if err != nil {
		return nil, err
	}
	return p, p.openPolicy(ctx)
}

// readPaths reads a list of paths, as people write them. Empty lines and those
// that begin with # are left out.
func readPaths(file string, downloads *authz.Downloads) (paths []string, err error) {
	if file == "" {
		return nil, nil
	}
	in := os.Stdin
	if file != "-" {
		if in, err = os.Open(file); err != nil {
			return nil, fmt.Errorf("read paths: %w", err)
		}
		defer in.Close() // read-only
	}
	var problems []error
	lines := bufio.NewScanner(in)
	for number := 1; lines.Scan(); number++ {
		text := strings.TrimRight(lines.Text(), "\r")
		if strings.TrimSpace(text) == "" || text[0] == '#' {
			continue
		}
		_, path, err := downloads.Ask(downloads.All()[0].Name, text)
		if err != nil {
			problems = append(problems, fmt.Errorf("%s:%d: error: %w", file, number, err))
			continue
		}
		paths = append(paths, path.String())
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read paths: %w", err)
	}
	return paths, errors.Join(problems...)
}

func writeDiff(w io.Writer, d *explain.Diff, paint func(explain.Style, string) string) error {
	out := &strings.Builder{}
	section := func(sign, may string, changes []explain.Change) {
		for _, c := range changes {
			names := c.Names[:min(len(c.Names), maxChangedNames)]
			who := terminal.Printable(strings.Join(names, ", "))
			if more := len(c.Names) - len(names); more > 0 {
				who += fmt.Sprintf(" and %d more", more)
			}
			what := c.Path
			if c.Pattern != "" && c.Pattern != c.Path {
				what = fmt.Sprintf("%s in %s", c.Path, c.Pattern)
			}
			if c.Domain != "" {
				what += " of " + c.Domain
			}
			may := may
			if !c.From.IsZero() {
				may = strings.TrimSuffix(may, " now")
				what += " from " + sayMoment(c.From) + " on"
			}
			fmt.Fprintf(out, "%s %s %s %s %s\n", sign, who, may, c.Action, terminal.Printable(what))
			writeSide(out, "before", c.Before, c.Names[0])
			writeSide(out, "after", c.After, c.Names[0])
		}
	}
	section(paint(explain.Bad, "+"), "may now", d.Gained)
	section(paint(explain.Good, "-"), "may no longer", d.Lost)
	for _, u := range d.Untried {
		if u.Line == nil {
			fmt.Fprintf(out, "%s %s\n", paint(explain.Bad, "?"), terminal.Printable(u.Why))
			continue
		}
		fmt.Fprintf(out, "%s %s:%d  %s\n    not all tried: %s\n", paint(explain.Bad, "?"), terminal.Printable(u.Line.File), u.Line.Line, terminal.Printable(u.Line.Text), terminal.Printable(u.Why))
	}
	fmt.Fprintf(out, "%d gained, %d lost: %d paths tried for %d names\n", len(d.Gained), len(d.Lost), d.Paths, d.Names)
	if len(d.Untried) > 0 {
		out.WriteString("not all was tried, so that more may be gained: try real paths with --paths\n")
	}
	for _, note := range d.Notes {
		writeNote(out, note)
	}
	_, err := io.WriteString(w, out.String())
	return err
}

// sayMoment writes a moment as lines of a policy have it.
func sayMoment(t time.Time) string {
	if text := t.Format(time.DateTime); !strings.HasSuffix(text, " 00:00:00") {
		return text
	}
	return t.Format(time.DateOnly)
}

// writeSide prints the line that decides, and how a name leads to it.
func writeSide(out *strings.Builder, when string, l *explain.Line, name string) {
	if l == nil {
		fmt.Fprintf(out, "    %-7s no line decides\n", when+":")
		return
	}
	fmt.Fprintf(out, "    %-7s %s:%d  %s\n", when+":", terminal.Printable(l.File), l.Line, terminal.Printable(l.Text))
	kind := explain.KindUser
	if strings.HasPrefix(name, "@") {
		kind = explain.KindGroup
	}
	if chain := holderChain(explain.Access{Kind: kind, Line: l}); chain != "" {
		fmt.Fprintf(out, "            %s\n", terminal.Printable(chain))
	}
}
