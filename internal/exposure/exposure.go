// Package exposure finds files that somebody on this machine may read or change who
// should not.
//
// It looks at modes and at directories alone: it knows no access control lists, and
// not who is in which group.
package exposure

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
)

// The rules by which [Find] finds something.
const (
	// RuleSecret: every user of the machine can read a secret.
	RuleSecret = "secret-readable"
	// RuleWritable: every user of the machine can change or replace a file.
	RuleWritable = "world-writable"
)

// A Secret is what others must not read, and where it is.
type Secret struct {
	What  string // `the proxy secret`
	Files []string
}

// An Exposure is a file that somebody may read or change who should not.
type Exposure struct {
	File    string
	Rule    string
	Message string // what is wrong, and what to do
}

// Find looks at secrets, and at files that decisions depend on. Names may be empty,
// and stand there twice; what cannot be looked at is told of by whoever reads it.
func Find(secrets []Secret, trusted ...string) []Exposure {
	var found []Exposure
	trusted = slices.Clone(trusted) // it is added to, and sorted
	for _, s := range secrets {
		for _, file := range s.Files {
			if mode, ok := modeOf(file); ok && mode&0o004 != 0 {
				found = append(found, Exposure{file, RuleSecret, fmt.Sprintf("others may read %s: chmod o= the file", s.What)})
			}
		}
		trusted = append(trusted, s.Files...)
	}
	slices.Sort(trusted)
	seen := map[string]bool{}
	for _, file := range slices.Compact(trusted) {
		if file == "" {
			continue
		}
		if mode, ok := modeOf(file); ok && mode&0o002 != 0 {
			found = append(found, Exposure{file, RuleWritable, "anybody on this machine can change it: chmod o-w the file"})
		}
		for _, dir := range directoriesOf(file) {
			// In a sticky directory nobody can replace what is another's.
			if mode, ok := modeOf(dir); ok && mode&0o002 != 0 && mode&os.ModeSticky == 0 && !seen[dir] {
				seen[dir] = true
				found = append(found, Exposure{file, RuleWritable, fmt.Sprintf("anybody on this machine can put another file in its place: chmod o-w %s", dir)})
			}
		}
	}
	return found
}

// Socket looks at where a unix socket is to be. Whoever may write in its directory
// puts a socket of their own there while the service is down, in a sticky directory
// too.
func Socket(path string) []Exposure {
	dir := filepath.Dir(path)
	if mode, ok := modeOf(dir); ok && mode&0o002 != 0 {
		return []Exposure{{path, RuleWritable, fmt.Sprintf("anybody on this machine can listen in its place while the service is down, and nginx would believe them: put the socket in a directory of the service's own, or chmod o-w %s", dir)}}
	}
	return nil
}

// modeOf returns the mode of a file; what cannot be looked at is told of by
// whoever reads it.
func modeOf(file string) (os.FileMode, bool) {
	info, err := os.Stat(file)
	if err != nil {
		return 0, false
	}
	return info.Mode(), true
}

// directoriesOf returns where a file is, and where its links lead.
func directoriesOf(file string) []string {
	dirs := []string{filepath.Dir(file)}
	if target, err := filepath.EvalSymlinks(file); err == nil && filepath.Dir(target) != dirs[0] {
		dirs = append(dirs, filepath.Dir(target))
	}
	return dirs
}
