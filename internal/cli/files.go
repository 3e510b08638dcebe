package cli

import (
	"context"
	"fmt"
	"unicode/utf8"

	"securefiles/internal/config"
	"securefiles/internal/servable"
	"securefiles/internal/terminal"
)

// maxUnservable is how many files of a download are listed; the others are counted.
const maxUnservable = 100

// unservable is what --files prints of a download.
type unservable struct {
	Download string           `json:"download"`
	Root     string           `json:"root"`
	As       string           `json:"as"`
	Files    int              `json:"files"`
	Listed   []unservableFile `json:"unservable"`
	More     int              `json:"more"`
	ACLs     int              `json:"acls"`
}

// unservableFile is one file, or a directory with all that is in it.
type unservableFile struct {
	Path   string `json:"path"` // below the root; as Go quotes it, where it is not UTF-8
	Reason string `json:"reason"`
	Files  int    `json:"files"`
}

// files lists what nginx cannot serve below the roots.
func (cmd *checkCommand) files(ctx context.Context, env Env, c *config.Config) error {
	lookup := servable.NginxUser
	if cmd.As != "" {
		lookup = func() (servable.User, error) { return servable.LookupUser(cmd.As) }
	}
	user, err := lookup()
	if err != nil {
		return fmt.Errorf("check --files: %w: --as USER", err)
	}
	all, found := []unservable{}, false
	for _, d := range c.Downloads {
		if d.Root == "" {
			return fmt.Errorf("check --files: download %s has no root: write the directory that nginx serves", d.Name)
		}
		progress := newProgress(env, "looking at "+d.Root+":")
		report, err := servable.Walk(ctx, d.Root, &servable.Options{User: user, FollowSymlinks: d.FollowSymlinks, Limit: maxUnservable, Progress: progress.count})
		progress.done()
		if err != nil {
			return err
		}
		one := unservable{Download: d.Name, Root: d.Root, As: user.Name, Files: report.Files, Listed: []unservableFile{}, More: report.More, ACLs: report.ACLs}
		for _, p := range report.Problems {
			path := p.Path
			if !utf8.ValidString(path) {
				path = fmt.Sprintf("%q", path)
			}
			one.Listed = append(one.Listed, unservableFile{path, p.Reason, p.Files})
		}
		all, found = append(all, one), found || len(report.Problems) > 0
		if cmd.Format == "json" {
			continue
		}
		if err := one.print(env); err != nil {
			return err
		}
	}
	if cmd.Format == "json" {
		if err := terminal.WriteJSON(env.Stdout, all); err != nil {
			return err
		}
	}
	if found {
		return errNo
	}
	return nil
}

func (u *unservable) print(env Env) error {
	for _, p := range u.Listed {
		inside := ""
		if p.Files != 1 {
			inside = fmt.Sprintf(" (%d files)", p.Files)
		}
		if _, err := fmt.Fprintf(env.Stdout, "%s%s: %s%s\n", u.Root, terminal.Printable(p.Path), p.Reason, inside); err != nil {
			return err
		}
	}
	if u.More > 0 {
		if _, err := fmt.Fprintf(env.Stdout, "%s: and %d more\n", u.Root, u.More); err != nil {
			return err
		}
	}
	if u.ACLs > 0 {
		fmt.Fprintf(env.Stderr, "%s: %d files and directories have an access control list, which is not evaluated: ask getfacl\n", u.Root, u.ACLs)
	}
	fmt.Fprintf(env.Stderr, "%s: looked at %d files as %s\n", u.Root, u.Files, u.As)
	return nil
}
