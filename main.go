// Securefiles guards file downloads behind nginx: nginx asks about every
// download with auth_request, Casbin policies decide per user and path, and
// nginx sends the bytes.
//
//	securefiles init .          # a configuration to start from
//	securefiles check           # is it right?
//	securefiles nginx           # what to include in nginx
//	securefiles serve           # answer nginx
//
// This file holds the command line; serve.go wires the service together.
package main

import (
	"context"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"
	"unicode/utf8"

	"github.com/alecthomas/kong"

	"securefiles/internal/config"
	"securefiles/internal/nginx"
	"securefiles/policy"
)

// Exit statuses of every command.
const (
	exitYes   = 0 // yes, or fine
	exitNo    = 1 // no, or findings
	exitError = 2 // the command line or the configuration is wrong
)

// errNo ends a command that has printed its answer, which is no.
var errNo = errors.New("no")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], environment{os.Stdout, os.Stderr, os.Environ()}))
}

// environment is what a command sees of the world around it.
type environment struct {
	stdout, stderr io.Writer
	environ        []string
}

// commands is the command line.
type commands struct {
	Config string `placeholder:"FILE" env:"SECUREFILES_CONFIG" help:"Configuration (default: securefiles.yaml, then /etc/securefiles/securefiles.yaml, then built-in defaults)."`

	Serve      serveCommand      `cmd:"" help:"Run the service."`
	Check      checkCommand      `cmd:"" help:"Check configuration, model and policy without starting."`
	Explain    explainCommand    `cmd:"" help:"Say whether a subject may have a path, and which line decides."`
	Who        whoCommand        `cmd:"" help:"Say who may have a path, and by which lines."`
	What       whatCommand       `cmd:"" help:"Say what a subject may have, and by which lines."`
	Whoami     whoamiCommand     `cmd:"" help:"Say which identity source accepts a request, and why the others do not."`
	Test       testCommand       `cmd:"" help:"Run policy tests."`
	Diff       diffCommand       `cmd:"" help:"Say what a change of policy changes in access."`
	Nginx      nginxCommand      `cmd:"" help:"Print the nginx configuration that belongs to this configuration."`
	Init       initCommand       `cmd:"" help:"Write a configuration, policy, policy test and users to start from."`
	Schema     schemaCommand     `cmd:"" help:"Print a JSON schema for editors."`
	Completion completionCommand `cmd:"" help:"Print completion for a shell."`
	Version    versionCommand    `cmd:"" help:"Print version, commit and Go version."`
}

func run(ctx context.Context, args []string, env environment) int {
	var c commands
	parser, err := kong.New(&c,
		kong.Name("securefiles"),
		kong.Description("Guards file downloads: nginx asks, Casbin policies decide, nginx sends the bytes.\n\nExample:\n  securefiles init site && securefiles check --config site/securefiles.yaml"),
		kong.Writers(env.stdout, env.stderr),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true}),
		kong.BindTo(ctx, (*context.Context)(nil)),
		kong.Bind(env),
	)
	if err != nil {
		fmt.Fprintln(env.stderr, "securefiles:", err)
		return exitError
	}
	switch {
	case len(args) == 0:
		args = []string{"--help"}
	case args[0] == "--version": // as other tools have it
		args[0] = "version"
	}
	command, err := parser.Parse(args)
	if err != nil {
		fmt.Fprintf(env.stderr, "securefiles: %v\nTry '%s --help'.\n", err, commandOf(err))
		return exitError
	}
	err = command.Run(&c)
	switch {
	case err == nil:
		return exitYes
	case errors.Is(err, errNo):
		return exitNo
	}
	for _, line := range strings.Split(err.Error(), "\n") {
		fmt.Fprintln(env.stderr, "securefiles:", line)
	}
	return exitError
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
func (c *commands) load(env environment) (*config.Config, error) {
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
	return config.Load(file, env.environ)
}

// policySource says where the policy of a configuration is.
func policySource(c *config.Config) (policy.Files, *policy.Options) {
	return policy.Files{Model: c.Policy.Model, Policy: c.Policy.File},
		&policy.Options{
			AllowShrink:   c.Policy.AllowShrink,
			RoleDepth:     c.Policy.RoleDepth,
			RequireDomain: len(c.Downloads) > 1,
		}
}

type nginxCommand struct {
	HTTP     bool `name:"http" xor:"part" help:"Print what belongs into http {}, for conf.d/."`
	Complete bool `xor:"part" help:"Print a complete nginx.conf that runs unprivileged."`
}

// Help shows an example.
func (nginxCommand) Help() string {
	return "Prints what belongs into server {}; --http prints the other half.\n\nExample:\n  securefiles nginx --http > /etc/nginx/conf.d/securefiles.conf\n  securefiles nginx > /etc/nginx/snippets/securefiles.conf   # then, in your server: include snippets/securefiles.conf;"
}

func (cmd *nginxCommand) Run(env environment, all *commands) error {
	c, err := all.load(env)
	if err != nil {
		return err
	}
	p, err := arrange(c, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	snippet := nginx.Config{Listen: c.Listen, ProxySecret: proxySecretWanted(c, env.environ), Login: c.LoginURL != ""}
	for _, d := range c.Downloads {
		if d.Root == "" {
			return fmt.Errorf("download %q has no root: set it to the directory that nginx shall serve", d.Name)
		}
		snippet.Downloads = append(snippet.Downloads, nginx.Download{
			Name: d.Name, URL: d.URL, Internal: d.Internal, Root: d.Root, FollowSymlinks: d.FollowSymlinks,
		})
	}
	for _, source := range p.sources {
		for _, h := range source.Headers {
			if h.FromClient {
				snippet.Identity = append(snippet.Identity, nginx.FromClient(h.Name))
			} else {
				snippet.Identity = append(snippet.Identity, nginx.Header{Name: h.Name, Value: h.Value})
			}
		}
	}
	switch {
	case cmd.HTTP:
		return nginx.WriteHTTP(env.stdout, snippet)
	case cmd.Complete:
		return nginx.WriteComplete(env.stdout, snippet)
	default:
		return nginx.WriteServer(env.stdout, snippet)
	}
}

// starter is what init writes.
//
//go:embed examples/starter
var starter embed.FS

type initCommand struct {
	Dir string `arg:"" default:"." help:"Where to write; made if it does not exist."`
}

// Help shows an example.
func (initCommand) Help() string {
	return "Never overwrites a file.\n\nExample:\n  securefiles init /etc/securefiles"
}

func (cmd *initCommand) Run(env environment) error {
	const from = "examples/starter"
	if err := os.MkdirAll(cmd.Dir, 0o755); err != nil {
		return fmt.Errorf("make directory: %w", err)
	}
	entries, err := starter.ReadDir(from)
	if err != nil {
		return err
	}
	for _, e := range entries { // all or none
		target := filepath.Join(cmd.Dir, e.Name())
		if _, err := os.Lstat(target); err == nil {
			return fmt.Errorf("%s exists: nothing was written; name another directory or move the file away", target)
		}
	}
	for _, e := range entries {
		text, err := starter.ReadFile(from + "/" + e.Name())
		if err != nil {
			return err
		}
		target := filepath.Join(cmd.Dir, e.Name())
		if err := writeNew(target, text); err != nil {
			return err
		}
		fmt.Fprintln(env.stdout, "wrote", target)
	}
	conf := filepath.Join(cmd.Dir, "securefiles.yaml")
	fmt.Fprintf(env.stdout, "Next: edit %s, then\n  securefiles check --config %s\n  securefiles test --config %s %s\n",
		filepath.Join(cmd.Dir, "policy.csv"), conf, conf, filepath.Join(cmd.Dir, "policy_test.yaml"))
	return nil
}

// writeNew writes a file that must not exist, readable by the owner's group.
func writeNew(name string, text []byte) (err error) {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o640)
	if err != nil {
		return fmt.Errorf("write: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	_, err = f.Write(text)
	return err
}

type versionCommand struct {
	JSON bool `name:"json" help:"Print as JSON."`
}

// Help shows an example.
func (versionCommand) Help() string { return "Example:\n  securefiles version --json" }

// A build is what the binary knows of itself.
type build struct {
	Version string `json:"version"`
	Commit  string `json:"commit"`
	Go      string `json:"go"`
}

func buildInfo() build {
	b := build{Version: "devel", Commit: "unknown", Go: runtime.Version()}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return b
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		b.Version = v
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			b.Commit = s.Value
		}
	}
	return b
}

func (cmd *versionCommand) Run(env environment) error {
	b := buildInfo()
	if cmd.JSON {
		return writeJSON(env.stdout, b)
	}
	_, err := fmt.Fprintf(env.stdout, "securefiles %s (commit %s, %s)\n", b.Version, b.Commit, b.Go)
	return err
}

// printable replaces what a terminal would not show as it is.
func printable(text string) string {
	if utf8.ValidString(text) && !strings.ContainsFunc(text, func(r rune) bool { return !strconv.IsPrint(r) }) {
		return text
	}
	quoted := strconv.Quote(text)
	return quoted[1 : len(quoted)-1]
}

func writeJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}
