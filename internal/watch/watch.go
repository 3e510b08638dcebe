// Package watch tells when files have changed, however they were changed: in
// place, by an editor's rename, or by the symbolic link swap of a Kubernetes
// ConfigMap.
//
// It says that something may have changed, not what: whoever is told reads the
// file and compares. It does not protect against a reader that meets a file
// half-written after it had been quiet for a while.
package watch

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"
)

const (
	// pollInterval finds what no event tells: network file systems, a
	// directory that was replaced.
	pollInterval = 2 * time.Second
	// lull is how long events are left unread after one was. Meanwhile the
	// kernel folds like events into one, so that a busy directory, one that
	// something else writes a log into, costs next to nothing.
	lull = 20 * time.Millisecond
	// quiet is how long files must stay as they are before a change is told,
	// and patience how long that may take at most.
	quiet    = 100 * time.Millisecond
	patience = 2 * time.Second
)

// Files calls changed once at the start, so that no change is lost between
// reading the files and watching them, and then after each change of one of
// them, until ctx ends. It returns nil then. Calls do not overlap. A file that
// does not exist is waited for.
func Files(ctx context.Context, files []string, changed func()) error {
	// Without events, for want of inotify instances, polling remains.
	var events chan fsnotify.Event
	var failures chan error
	watcher, err := fsnotify.NewWatcher()
	if err == nil {
		defer watcher.Close() //nolint:errcheck // nothing is left to do
		events, failures = watcher.Events, watcher.Errors
	}
	poll := time.NewTicker(pollInterval)
	defer poll.Stop()

	watchDirectories(watcher, files)
	seen := signature(files)
	changed()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-events:
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(lull):
			}
		case <-failures: // events were lost: look for oneself
		case <-poll.C:
		}
		if signature(files) == seen {
			continue
		}
		seen = settle(ctx, files)
		watchDirectories(watcher, files)
		changed()
	}
}

// watchDirectories watches where the files are and where their links lead.
// Directories that cannot be watched are polled.
func watchDirectories(watcher *fsnotify.Watcher, files []string) {
	if watcher == nil {
		return
	}
	for _, file := range files {
		_ = watcher.Add(filepath.Dir(file)) // polled instead
		if target, err := filepath.EvalSymlinks(file); err == nil {
			_ = watcher.Add(filepath.Dir(target)) // polled instead
		}
	}
}

// settle waits until the files stay as they are and returns their signature.
func settle(ctx context.Context, files []string) string {
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	tick := time.NewTicker(quiet)
	defer tick.Stop()
	last := signature(files)
	for {
		select {
		case <-ctx.Done():
			return last
		case <-deadline.C:
			return last
		case <-tick.C:
		}
		now := signature(files)
		if now == last {
			return now
		}
		last = now
	}
}

// signature changes whenever a file does: where its links lead, which inode it
// is, its size, its times.
func signature(files []string) string {
	var b strings.Builder
	for _, file := range files {
		target, err := filepath.EvalSymlinks(file)
		if err != nil {
			fmt.Fprintf(&b, "%q missing\n", file)
			continue
		}
		info, err := os.Stat(target)
		if err != nil {
			fmt.Fprintf(&b, "%q missing\n", file)
			continue
		}
		fmt.Fprintf(&b, "%q %d %d %s\n", target, info.Size(), info.ModTime().UnixNano(), inode(info))
	}
	return b.String()
}
