package cli

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"securefiles/policy"
)

// RootFindings look at the directories that nginx serves, as far as they are on this
// machine: one that is none, one that holds what decisions depend on, their record, or
// logs, which nginx would serve to whom the policy lets, and one that is not there,
// where the file names it.
func (p *Parts) RootFindings() []policy.Finding {
	var findings []policy.Finding
	for i, d := range p.Config.Downloads {
		if d.Root == "" {
			continue
		}
		add := func(severity policy.Severity, rule, format string, args ...any) {
			findings = append(findings, findingAt(p.Config, fmt.Sprintf("downloads[%d].root", i), severity, rule, fmt.Sprintf(format, args...)))
		}
		info, err := os.Stat(d.Root)
		switch {
		case errors.Is(err, fs.ErrNotExist) && !p.Config.IsDefaultRoot(i):
			add(policy.SeverityWarning, "root", "%s is not there, so nginx answers 404 for each of its files: make it, or correct the path", d.Root)
		case err == nil && info.IsDir() && d.Listing && !readable(d.Root):
			add(policy.SeverityWarning, "root", "listing is on, and whoever runs this command cannot read %s: let the service's user read its directories, or leave listing out", d.Root)
		case err == nil && !info.IsDir():
			add(policy.SeverityError, "root-holds", "%s is no directory: name the directory that holds the files", d.Root)
		}
		for _, file := range append(p.Decisive(), p.kept()...) {
			if within(d.Root, file) {
				add(policy.SeverityError, "root-holds", "%s holds %s, which nginx would serve like any other file in it: name a directory that holds the downloads alone, or move the file", d.Root, file)
			}
		}
	}
	return findings
}

// RefusedRoots are the errors among RootFindings, for which the service does not start.
func (p *Parts) RefusedRoots() error {
	var problems []error
	for _, f := range p.RootFindings() {
		if f.Severity == policy.SeverityError {
			problems = append(problems, errors.New(f.String()))
		}
	}
	return errors.Join(problems...)
}

// readable reports whether the names in a directory can be read.
func readable(dir string) bool {
	f, err := os.Open(dir)
	if err != nil {
		return false
	}
	_, err = f.Readdirnames(1)
	return errors.Join(err, f.Close()) == nil || errors.Is(err, io.EOF)
}

// within reports whether a file is a directory, or below it, by name or where links
// lead.
func within(dir, file string) bool {
	for _, d := range spellings(dir) {
		for _, f := range spellings(file) {
			if rel, err := filepath.Rel(d, f); err == nil && rel != ".." && !strings.HasPrefix(rel, "../") {
				return true
			}
		}
	}
	return false
}

// spellings are a path from the root directory on, and where it leads.
func spellings(path string) []string {
	absolute, err := filepath.Abs(path)
	if err != nil {
		return nil
	}
	all := []string{absolute}
	if dir, err := filepath.EvalSymlinks(filepath.Dir(absolute)); err == nil {
		all = append(all, filepath.Join(dir, filepath.Base(absolute)))
	}
	if target, err := filepath.EvalSymlinks(absolute); err == nil {
		all = append(all, target)
	}
	return all
}
