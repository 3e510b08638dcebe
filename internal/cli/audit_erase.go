package cli

import (
	"errors"
	"fmt"

	"securefiles/internal/audit"
	"securefiles/internal/config"
	"securefiles/internal/secret"
	"securefiles/internal/terminal"
)

type auditEraseCommand struct {
	Subject string `arg:"" help:"The user, or anonymous: all that was recorded of nobody."`
}

// Help shows an example.
func (auditEraseCommand) Help() string {
	return "Destroys the key of a subject in audit.privacy.keys: what was recorded of it, in rotated files and other sinks too, is unreadable from then on, and the chain still verifies. The service may run; what it records of the subject later is under another key. Backups of the file of keys still have the key. Exits 1 where the subject has none.\n\nExample:\n  securefiles audit erase bob"
}

func (cmd *auditEraseCommand) Run(env Env, all *commands) error {
	conf, err := all.load(env)
	if err != nil {
		return err
	}
	if conf.Audit.Privacy.Keys == "" {
		return conf.At("audit.privacy", "nothing is erasable that was recorded: erasable: true and keys: FILE make that so, for what is recorded from then on")
	}
	store, err := audit.OpenKeyStore(conf.Audit.Privacy.Keys, false)
	if err != nil {
		return err
	}
	found, err := store.Erase(cmd.Subject)
	if err = errors.Join(err, store.Close()); err != nil {
		return err
	}
	name := terminal.Printable(cmd.Subject)
	if !found {
		if _, err := fmt.Fprintf(env.Stdout, "%s: has no key, so nothing is recorded of it that could be erased\n", name); err != nil {
			return err
		}
		return errNo
	}
	_, err = fmt.Fprintf(env.Stdout, "%s: erased\n", name)
	return err
}

// AuditKey is the secret by which subjects are hashed; nil where none is configured.
func AuditKey(c *config.Config) (*secret.Secret, error) {
	return secret.NewKept("key of the audit's subjects", c.Audit.Privacy.KeyFile, "", func(string) (string, bool) { return "", false })
}
