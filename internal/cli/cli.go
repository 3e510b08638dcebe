// Package cli is the command line: one file a command.
//
// [Main] runs it. What the commands are about, how a configuration is opened and
// served, is a [Program], which main has. Every command prints its results on
// standard output and everything else on standard error.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/alecthomas/kong"

	"securefiles/internal/access"
	"securefiles/internal/config"
)

// Exit statuses of every command.
const (
	exitYes   = 0 // yes, or fine
	exitNo    = 1 // no, or findings
	exitError = 2 // the command line or the configuration is wrong
)

// errNo ends a command that has printed its answer, which is no, and errTold one that has
// printed what is wrong with the configuration.
var (
	errNo   = errors.New("no")
	errTold = errors.New("told")
)

// An Env is what a command sees of the world around it.
type Env struct {
	Stdout, Stderr io.Writer
	Environ        []string // NAME=value
}

// Lookup returns the value of a variable.
func (e Env) Lookup(name string) (string, bool) {
	for _, kv := range e.Environ {
		if value, ok := strings.CutPrefix(kv, name+"="); ok {
			return value, true
		}
	}
	return "", false
}

// A Program is what the commands are about.
type Program struct {
	// Open makes the parts of a configuration, and reads none of their files. The
	// parts are there beside an error, as far as they could be made. Lookup finds
	// variables of the environment.
	Open func(c *config.Config, lookup func(string) (string, bool), log *slog.Logger) (*Parts, error)
	// Serve loads the parts and runs the service until the context ends. Their
	// secrets have been read.
	Serve func(ctx context.Context, p *Parts, reopen Reopen, log *slog.Logger) error
}

// A Reopen makes parts of what the configuration says now, with their secrets read, that
// can take the place of those that are running; nil where it says what it said. They
// may be there beside an error, as far as they could be made.
type Reopen func(ctx context.Context, running *Parts) (*Parts, error)

// commands is the command line.
type commands struct {
	Config string `placeholder:"FILE" env:"SECUREFILES_CONFIG" help:"Configuration (default: securefiles.yaml, then /etc/securefiles/securefiles.yaml, then built-in defaults)."`

	Serve      serveCommand      `cmd:"" help:"Run the service; SIGHUP reads all files again, SIGTERM drains."`
	Check      checkCommand      `cmd:"" help:"Check configuration, model, policy and users without starting."`
	Doctor     doctorCommand     `cmd:"" help:"Examine the system that runs, or why somebody does not get a file, and say what to do."`
	Explain    explainCommand    `cmd:"" help:"Say whether a subject may have a path, and which line decides."`
	Who        whoCommand        `cmd:"" help:"Say who may have a path, and by which lines."`
	What       whatCommand       `cmd:"" help:"Say what a subject may have, and by which lines."`
	Whoami     whoamiCommand     `cmd:"" help:"Say which identity source accepts a request, and why the others do not."`
	Test       testCommand       `cmd:"" help:"Run policy tests, with coverage, for continuous integration."`
	Diff       diffCommand       `cmd:"" help:"Say who gains and who loses what by a change of policy."`
	State      stateCommand      `cmd:"" help:"What limits and links count, where it is kept."`
	Link       linkCommand       `cmd:"" help:"Make links to files, for people without an account, and look at them."`
	Listing    listingCommand    `cmd:"" help:"What people see of folders."`
	Audit      auditCommand      `cmd:"" help:"Say who got which file, when, from where, and how much of it."`
	Nginx      nginxCommand      `cmd:"" help:"Print the nginx configuration that belongs to this configuration."`
	Healthy    healthyCommand    `cmd:"" help:"Ask the running service whether it is well, for health checks of containers."`
	Init       initCommand       `cmd:"" help:"Write a configuration, policy, policy test and users to start from; never overwrites."`
	Schema     schemaCommand     `cmd:"" help:"Print a JSON schema for editors."`
	Completion completionCommand `cmd:"" help:"Print completion for bash, zsh or fish."`
	Version    versionCommand    `cmd:"" help:"Print version, commit and Go version."`

	program Program `kong:"-"`
}

// Main runs a command and returns its exit status: 0 for yes or fine, 1 for no or
// findings, 2 for a usage or configuration error.
func Main(ctx context.Context, args []string, env Env, program Program) int {
	var c commands
	c.program = program
	parser, err := newParser(&c, env, kong.BindTo(ctx, (*context.Context)(nil)), kong.Bind(env))
	if err != nil {
		fmt.Fprintln(env.Stderr, "securefiles:", err)
		return exitError
	}
	switch {
	case len(args) == 0:
		args = []string{"--help"}
	case slices.Equal(args, []string{"audit", "--help"}), slices.Equal(args, []string{"audit", "-h"}):
		args = []string{"audit", "search", "--help"} // whose name is left out
	case args[0] == "--version": // as other tools have it
		args[0] = "version"
	}
	command, err := parser.Parse(args)
	if err != nil {
		fmt.Fprintf(env.Stderr, "securefiles: %v%s\nTry '%s --help'.\n", err, misplaced(err), commandOf(err))
		return exitError
	}
	err = command.Run(&c)
	switch {
	case err == nil:
		return exitYes
	case errors.Is(err, errNo):
		return exitNo
	case errors.Is(err, errTold):
		return exitError
	}
	for _, line := range strings.Split(err.Error(), "\n") {
		fmt.Fprintln(env.Stderr, "securefiles:", line)
	}
	if advice := access.Advice(err); advice != "" {
		fmt.Fprintln(env.Stderr, "securefiles:", advice)
		if command.Command() != "serve" && os.Geteuid() != 0 { // that is what the service lacks; an operator has another way
			fmt.Fprintln(env.Stderr, "securefiles: or run this as root, with sudo")
		}
	}
	return exitError
}

// newParser reads a command line.
func newParser(c *commands, env Env, options ...kong.Option) (*kong.Kong, error) {
	return kong.New(c, append(options,
		kong.Name("securefiles"),
		kong.Description("Guards file downloads: nginx asks, Casbin policies decide, nginx sends the bytes.\n\nExample:\n  securefiles init site && securefiles check --config site/securefiles.yaml"),
		kong.Writers(env.Stdout, env.Stderr),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true}),
	)...)
}

// misplaced says of an argument that is a file how it is named.
func misplaced(err error) string {
	file, ok := strings.CutPrefix(err.Error(), "unexpected argument ")
	if ext := filepath.Ext(file); !ok || ext != ".yaml" && ext != ".yml" {
		return ""
	}
	return ": a configuration is named with --config " + file
}

// commandOf is the command whose help says what is wrong with the command line.
func commandOf(err error) string {
	var parse *kong.ParseError
	if errors.As(err, &parse) {
		for _, step := range parse.Context.Path {
			if step.Command != nil {
				return step.Command.FullPath()
			}
		}
	}
	return "securefiles"
}

// load finds and reads the configuration.
func (c *commands) load(env Env) (*config.Config, error) {
	file := c.Config
	if file == "" {
		for _, candidate := range []string{"securefiles.yaml", "/etc/securefiles/securefiles.yaml"} {
			_, err := os.Stat(candidate)
			if err == nil {
				file = candidate
				break
			}
			if !errors.Is(err, fs.ErrNotExist) {
				return nil, fmt.Errorf("find configuration: %w", err)
			}
		}
	}
	conf, err := config.Load(file, env.Environ)
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("%w: correct --config, or make one with `securefiles init %s`", err, filepath.Dir(file))
	} else if info, statErr := os.Stat(file); err != nil && statErr == nil && info.IsDir() {
		err = fmt.Errorf("%w: --config names the file: %s", err, filepath.Join(file, "securefiles.yaml"))
	}
	return conf, err
}

// loadServed is load for what needs the configuration's policy: the defaults, which no
// variable of the environment changes and which name a policy that is not there, are
// no configuration of anybody's.
func (c *commands) loadServed(env Env) (*config.Config, error) {
	conf, err := c.load(env)
	configured := func(variable string) bool { return strings.HasPrefix(variable, "SECUREFILES_") }
	if err != nil || conf.File != "" || slices.ContainsFunc(env.Environ, configured) {
		return conf, err
	}
	if _, err := os.Stat(conf.Policy.File); errors.Is(err, fs.ErrNotExist) {
		return nil, errors.New("there is no configuration, neither securefiles.yaml in this directory nor /etc/securefiles/securefiles.yaml: make one with `securefiles init .`, or name yours with --config")
	}
	return conf, nil
}
