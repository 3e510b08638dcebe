package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"securefiles/internal/regular"
	"securefiles/internal/state"
	"securefiles/internal/terminal"
)

type stateCommand struct {
	List    stateListCommand    `cmd:"" help:"List what limits count now."`
	Reset   stateResetCommand   `cmd:"" help:"Let a key of a limit count from nothing again."`
	Backup  stateBackupCommand  `cmd:"" help:"Copy the file that state.file names, while the service runs."`
	Export  stateExportCommand  `cmd:"" help:"Print all that is kept of limits and links, as lines of JSON."`
	Restore stateRestoreCommand `cmd:"" help:"Add what a copy or an export holds to what is kept, while the service runs."`
	Compact stateCompactCommand `cmd:"" help:"Give room back in the file that state.file names, while the service runs."`
	Accept  stateAcceptCommand  `cmd:"" help:"Open links again after Redis was emptied, or is new."`
}

type stateListCommand struct {
	Prefix string `arg:"" optional:"" help:"Of keys that begin so alone, such as the limit's name and a slash."`
	JSON   bool   `name:"json" help:"Print as JSON."`
}

// Help shows an example.
func (stateListCommand) Help() string {
	return "Asks the running service, with the admin token. A key is the limit, what it counts, and who shares it; of requests and bytes it is told when all are there again, of downloads how many go on. Exits 1 if there is none.\n\nExample:\n  securefiles state list guests/"
}

func (cmd *stateListCommand) Run(ctx context.Context, env Env, all *commands) error {
	c, err := all.loadServed(env)
	if err != nil {
		return err
	}
	var got []state.Count
	if err := call(ctx, c, env, http.MethodGet, "/state", nil, &got); err != nil {
		return err
	}
	list := []state.Count{}
	for _, one := range got {
		if strings.HasPrefix(one.Key, cmd.Prefix) {
			list = append(list, one)
		}
	}
	if cmd.JSON {
		err = terminal.WriteJSON(env.Stdout, list)
	} else {
		err = writeCounts(env.Stdout, list)
	}
	if err == nil && len(list) == 0 {
		return errNo
	}
	return err
}

func writeCounts(out io.Writer, list []state.Count) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	if len(list) > 0 {
		fmt.Fprintln(w, "KEY\tCOUNTS")
	}
	for _, one := range list {
		what := fmt.Sprintf("%d at a time", one.Taken)
		if !one.Full.IsZero() {
			what = "until " + one.Full.Local().Format(time.RFC3339)
		}
		fmt.Fprintf(w, "%s\t%s\n", terminal.Printable(one.Key), what)
	}
	return w.Flush()
}

type stateResetCommand struct {
	Key string `arg:"" help:"The key, as list prints it."`
}

// Help shows an example.
func (stateResetCommand) Help() string {
	return "Tells the running service, with the admin token. Exits 1 if the key counts nothing.\n\nExample:\n  securefiles state reset guests/requests/subject:alice"
}

func (cmd *stateResetCommand) Run(ctx context.Context, env Env, all *commands) error {
	c, err := all.loadServed(env)
	if err != nil {
		return err
	}
	var answer struct{ Reset bool }
	if err := call(ctx, c, env, http.MethodPost, "/state/reset", state.Count{Key: cmd.Key}, &answer); err != nil {
		return err
	}
	if !answer.Reset {
		fmt.Fprintln(env.Stdout, "nothing is counted under this key")
		return errNo
	}
	_, err = fmt.Fprintln(env.Stdout, "reset")
	return err
}

type stateBackupCommand struct {
	File string `arg:"" help:"The copy, a new file of mode 0600."`
}

// Help says how it is brought back.
func (stateBackupCommand) Help() string {
	return "Asks the running service, with the admin token. The copy is brought back by restore. Needs state.file; Redis has its own ways, and export.\n\nExample:\n  securefiles state backup /var/backups/securefiles-state.db"
}

func (cmd *stateBackupCommand) Run(ctx context.Context, env Env, all *commands) (err error) {
	c, err := all.loadServed(env)
	if err != nil {
		return err
	}
	file, err := os.OpenFile(cmd.File, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("make the copy: %w", err)
	}
	defer func() {
		if err = errors.Join(err, file.Close()); err != nil {
			err = errors.Join(err, os.Remove(cmd.File))
		}
	}()
	if err := call(ctx, c, env, http.MethodGet, "/state/backup", nil, file); err != nil {
		return err
	}
	return file.Sync()
}

type stateExportCommand struct {
	Passwords bool `help:"With the hashes of links' passwords, without which no such link opens where it is restored."`
}

// Help says what the lines are.
func (stateExportCommand) Help() string {
	return "Asks the running service, with the admin token. The first line has the format; each other is a count, a link, the uses of a link, or a revocation. The lines hold subjects, addresses and paths. From state.file and from Redis alike, so that restore takes them from one to the other.\n\nExample:\n  securefiles state export --passwords > state.jsonl"
}

func (cmd *stateExportCommand) Run(ctx context.Context, env Env, all *commands) error {
	c, err := all.loadServed(env)
	if err != nil {
		return err
	}
	path := "/state/export"
	if cmd.Passwords {
		path += "?passwords=true"
	}
	return call(ctx, c, env, http.MethodGet, path, nil, env.Stdout)
}

type stateRestoreCommand struct {
	File string `arg:"" help:"What backup or export has written."`
}

// Help says what is added.
func (stateRestoreCommand) Help() string {
	return "Tells the running service, with the admin token. What is not known is added: nothing that was used or revoked since is open again, and nothing that was taken of a limit is given back; twice is once. To forget what came since, stop the service and put the copy in the place of state.file. After Redis was emptied, restore first and accept then.\n\nExample:\n  securefiles state restore state.jsonl"
}

func (cmd *stateRestoreCommand) Run(ctx context.Context, env Env, all *commands) error {
	c, err := all.loadServed(env)
	if err != nil {
		return err
	}
	file, err := regular.Open(cmd.File)
	if err != nil {
		return fmt.Errorf("read what is to be restored: %w", err)
	}
	defer file.Close() //nolint:errcheck // it was only read
	var answer struct{ Restored int }
	if state.IsBackup(file) { // what is damaged is found out here, not by the service
		from, to := io.Pipe()
		read := make(chan error, 1)
		go func() {
			err := state.Write(to, state.ReadBackup(cmd.File), time.Now())
			read <- err
			_ = to.CloseWithError(err) // it returns nil
		}()
		err = call(ctx, c, env, http.MethodPost, "/state/restore", from, &answer)
		_ = from.CloseWithError(err) // it returns nil, and ends who writes
		if problem := <-read; problem != nil && problem != err {
			err = problem
		}
	} else {
		err = call(ctx, c, env, http.MethodPost, "/state/restore", file, &answer)
	}
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(env.Stdout, "restored: %d entries are known\n", answer.Restored)
	return err
}

type stateCompactCommand struct{}

// Help says what it costs.
func (stateCompactCommand) Help() string {
	return "Tells the running service, with the admin token, to write the file anew without the room that nothing is in any more. Counted links wait meanwhile. Needs state.file, and room for another one beside it.\n\nExample:\n  securefiles state compact"
}

func (stateCompactCommand) Run(ctx context.Context, env Env, all *commands) error {
	c, err := all.loadServed(env)
	if err != nil {
		return err
	}
	var answer struct{ Before, After int64 }
	if err := call(ctx, c, env, http.MethodPost, "/state/compact", nil, &answer); err != nil {
		return err
	}
	_, err = fmt.Fprintf(env.Stdout, "compacted: %d bytes, which were %d\n", answer.After, answer.Before)
	return err
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
