package cli

import (
	"context"
	"errors"
	"fmt"

	"securefiles/internal/audit"
	"securefiles/internal/config"
	"securefiles/internal/terminal"
)

type auditVerifyCommand struct {
	Files []string `arg:"" optional:"" name:"file" help:"Files of records, the oldest first, plain or compressed by gzip or zstd. Default: audit.file of the configuration, and what it was rotated to."`
	Head  string   `placeholder:"HEAD" help:"A head of the chain that was kept elsewhere, as the service logs it (NUMBER:HASH): was anything before it changed, or is it cut off?"`
	Key   string   `placeholder:"KEY" help:"The public key of the checkpoints (default: that of audit.chain.key_file)."`
}

// Help shows an example.
func (auditVerifyCommand) Help() string {
	return `Follows the chain of audit.chain through the files, and names each place where a record was changed, removed, added or moved. Whoever has the key of the service can make a chain anew, and nobody sees that the end is missing: a head that was kept elsewhere, from the service's log, shows both.

Exits 0 if the records are what was written, 1 if not.

Examples:
  securefiles audit verify
  securefiles audit verify --head "$(journalctl -u securefiles -g 'audit checkpoint' -n 1 -o cat | sed 's/.*head="\(.*\)".*/\1/')"
  securefiles audit verify --key files.example.org+e8bf2fe2+AYqI4910CfGV/VLbLTy6XXLKZwm/HZQSG/N0iAG0D29c audit.jsonl.1 audit.jsonl`
}

func (cmd *auditVerifyCommand) Run(ctx context.Context, env Env, all *commands) error {
	opts := &audit.VerifyOptions{Key: cmd.Key}
	if cmd.Head != "" {
		head, err := audit.ParseHead(cmd.Head)
		if err != nil {
			return err
		}
		opts.Head = &head
	}
	files := cmd.Files
	if len(files) == 0 || cmd.Key == "" {
		conf, err := all.load(env)
		if err != nil {
			return err
		}
		if chain := conf.Audit.Chain; cmd.Key == "" && chain != nil {
			if _, opts.Key, err = audit.ReadKey(chain.KeyFile); err != nil {
				return err
			}
		}
		if len(files) == 0 {
			if files, err = recorded(conf); err != nil {
				return err
			}
		}
	}
	shown := newProgress(env, "verifying")
	defer shown.done()
	opts.Progress, env.Stdout = shown.read, doneBefore{env.Stdout, shown}
	v, err := audit.Verify(ctx, files, opts, func(p audit.Problem) { fmt.Fprintln(env.Stdout, terminal.Printable(p.String())) })
	if err != nil {
		return err
	}
	if v.Records == 0 {
		fmt.Fprintf(env.Stdout, "%s in no chain: set audit.chain, and records will be\n", many(v.Unchained, "record"))
		return errNo
	}
	fmt.Fprintf(env.Stdout, "%s, %d to %d, %s, signed up to %d\n", many(v.Records, "record"), v.First.Seq, v.Last.Seq, many(v.Checkpoints, "checkpoint"), v.Signed)
	if v.Unchained > 0 {
		fmt.Fprintf(env.Stdout, "%s from before there was a chain\n", many(v.Unchained, "record"))
	}
	if v.Torn > 0 {
		fmt.Fprintf(env.Stdout, "%s passed over that are no records, as a crash leaves them\n", many(v.Torn, "line"))
	}
	if opts.Key == "" {
		fmt.Fprintln(env.Stdout, "nobody was asked who has signed the checkpoints: name the public key with --key")
	}
	if v.Problems > 0 {
		fmt.Fprintf(env.Stdout, "%s: the records are not what was written\n", many(v.Problems, "problem"))
		return errNo
	}
	fmt.Fprintf(env.Stdout, "the head is %s\n", v.Last)
	return nil
}

// many is a number of things.
func many(n int, thing string) string {
	if n != 1 {
		thing += "s"
	}
	return fmt.Sprintf("%d %s", n, thing)
}

// recorded are the files of the configuration's record, the oldest first.
func recorded(conf *config.Config) ([]string, error) {
	switch conf.Audit.File {
	case "":
		return nil, errors.New("no record is kept: set audit.file in the configuration, or name files")
	case config.AuditStdout:
		return nil, errors.New("the record goes to standard output (audit.file): name the files that it ends up in")
	}
	files, err := audit.Rotated(conf.Audit.File)
	if err == nil && len(files) == 0 {
		err = fmt.Errorf("there is no record yet: %s is not there", conf.Audit.File)
	}
	return files, err
}

type auditKeyCommand struct {
	Name string `arg:"" help:"What the key is called in checkpoints, such as the host: no blanks, no +."`
}

// Help shows an example.
func (auditKeyCommand) Help() string {
	return `Prints the private key, for the file of audit.chain.key_file, and on standard error the public one, which audit verify takes elsewhere.

Example:
  (umask 077; securefiles audit key files.example.org > /etc/securefiles/audit.key)`
}

func (cmd *auditKeyCommand) Run(env Env) error {
	private, public, err := audit.NewKey(cmd.Name)
	if err != nil {
		return err
	}
	fmt.Fprintln(env.Stderr, "public key:", public)
	_, err = fmt.Fprintln(env.Stdout, private)
	return err
}
