package cli

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"securefiles/examples"
)

type initCommand struct {
	Dir string `arg:"" default:"." help:"Where to write; made if it does not exist."`
}

// Help shows an example.
func (initCommand) Help() string {
	return "Example:\n  securefiles init /etc/securefiles"
}

func (cmd *initCommand) Run(env Env) error {
	const from = "starter"
	if err := os.MkdirAll(cmd.Dir, 0o755); err != nil {
		return fmt.Errorf("make directory: %w", err)
	}
	entries, err := examples.Starter.ReadDir(from)
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
		text, err := examples.Starter.ReadFile(from + "/" + e.Name())
		if err != nil {
			return err
		}
		target := filepath.Join(cmd.Dir, e.Name())
		if err := writeNew(target, text); err != nil {
			return err
		}
		fmt.Fprintln(env.Stdout, "wrote", target)
	}
	conf := filepath.Join(cmd.Dir, "securefiles.yaml")
	fmt.Fprintf(env.Stdout, "Next: edit %s, then\n  securefiles check --config %s\n  securefiles test --config %s %s\n",
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
