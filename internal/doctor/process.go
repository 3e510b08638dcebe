package doctor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"securefiles/internal/servable"
)

// A master is a running nginx.
type master struct {
	pid      int
	uid, gid uint32
	binary   string
	args     []string // that it was started with, but for -t and its kin
	// replaced says that the file of the binary is another by now.
	replaced bool
	workers  []worker
}

// A worker is a process that answers requests.
type worker struct {
	pid     int
	user    servable.User
	started time.Time
}

const (
	masterTitle = "nginx: master process "
	workerTitle = "nginx: worker process"
)

// proc is the directory of the processes.
type proc string

func (p proc) path(pid int, name string) string {
	return filepath.Join(string(p), strconv.Itoa(pid), name)
}

// title is the command line of a process, as it shows itself.
func (p proc) title(pid int) string {
	text, err := os.ReadFile(p.path(pid, "cmdline"))
	if err != nil {
		return "" // it is gone, or nobody's to see
	}
	return strings.TrimRight(strings.ReplaceAll(string(text), "\x00", " "), " ")
}

// status are the lines of a process's status.
func (p proc) status(pid int) map[string][]string {
	text, err := os.ReadFile(p.path(pid, "status"))
	if err != nil {
		return nil
	}
	fields := map[string][]string{}
	for line := range strings.Lines(string(text)) {
		if name, rest, ok := strings.Cut(line, ":"); ok {
			fields[name] = strings.Fields(rest)
		}
	}
	return fields
}

// ids are the numbers of a line of a status.
func ids(fields []string) []uint32 {
	var all []uint32
	for _, f := range fields {
		if n, err := strconv.ParseUint(f, 10, 32); err == nil {
			all = append(all, uint32(n))
		}
	}
	return all
}

// effective is which of Real, Effective, Saved and Filesystem ids counts.
const effective = 1

// masters are all nginx that run here, those of root first: the others are whoever's.
func (p proc) masters() ([]*master, error) {
	entries, err := os.ReadDir(string(p))
	if err != nil {
		return nil, fmt.Errorf("look for nginx: %w", err)
	}
	var all []*master
	workers := map[int][]worker{}
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		title := p.title(pid)
		switch {
		case strings.HasPrefix(title, masterTitle):
			if m := p.master(pid, title); m != nil {
				all = append(all, m)
			}
		case strings.HasPrefix(title, workerTitle) && !strings.Contains(title, "shutting down"):
			if parent, w, ok := p.worker(pid); ok {
				workers[parent] = append(workers[parent], w)
			}
		}
	}
	for _, m := range all {
		m.workers = workers[m.pid]
	}
	slices.SortStableFunc(all, func(a, b *master) int { return min(int(a.uid), 1) - min(int(b.uid), 1) })
	return all, nil
}

func (p proc) master(pid int, title string) *master {
	status := p.status(pid)
	uids, gids := ids(status["Uid"]), ids(status["Gid"])
	if len(uids) <= effective || len(gids) <= effective {
		return nil // it is gone
	}
	m := &master{pid: pid, uid: uids[effective], gid: gids[effective]}
	words := strings.Fields(strings.TrimPrefix(title, masterTitle))
	if len(words) == 0 {
		return nil
	}
	m.binary, m.args = words[0], startedWith(words[1:])
	if exe, err := os.Readlink(p.path(pid, "exe")); err == nil {
		exe, m.replaced = strings.CutSuffix(exe, " (deleted)")
		m.binary = exe
	}
	return m
}

// startedWith are the options that say which configuration is meant. A title has no
// quotes: what stands behind -g goes on to the next option, and a path with a blank cannot
// be told from two.
func startedWith(words []string) []string {
	var args []string
	for i := 0; i < len(words); i++ {
		switch words[i] {
		case "-p", "-c", "-e":
			if i+1 < len(words) {
				args = append(args, words[i], words[i+1])
				i++
			}
		case "-g":
			var text []string
			for i+1 < len(words) && !slices.Contains([]string{"-p", "-c", "-e", "-g", "-q"}, words[i+1]) {
				i++
				text = append(text, words[i])
			}
			args = append(args, "-g", strings.Join(text, " "))
		}
	}
	return args
}

func (p proc) worker(pid int) (parent int, w worker, ok bool) {
	status := p.status(pid)
	uids, gids, parents := ids(status["Uid"]), ids(status["Gid"]), ids(status["PPid"])
	if len(uids) <= effective || len(gids) <= effective || len(parents) == 0 {
		return 0, w, false
	}
	w = worker{pid: pid, user: servable.User{UID: uids[effective], GIDs: append([]uint32{gids[effective]}, ids(status["Groups"])...)}, started: p.started(pid)}
	w.user.Name = strconv.FormatUint(uint64(w.user.UID), 10)
	if known, err := servable.LookupUser(w.user.Name); err == nil {
		w.user.Name = known.Name
	}
	return int(parents[0]), w, true
}

// ticks are those of a second, which Linux shows to all the same (sysconf(3), CLK_TCK).
const ticks = 100

// started is when a process began, up to a tick too early; the zero time where nobody can
// tell.
func (p proc) started(pid int) time.Time {
	text, err := os.ReadFile(p.path(pid, "stat"))
	if err != nil {
		return time.Time{}
	}
	// The name, in parentheses, may hold anything; starttime is the 20th behind it
	// (proc_pid_stat(5)).
	_, rest, _ := bytes.Cut(text[max(0, bytes.LastIndexByte(text, ')')):], []byte(") "))
	fields := strings.Fields(string(rest))
	if len(fields) < 20 {
		return time.Time{}
	}
	since, err := strconv.ParseInt(fields[19], 10, 64)
	boot, ok := sinceBoot()
	if err != nil || !ok {
		return time.Time{}
	}
	up := boot - time.Duration(since)*time.Second/ticks
	return time.Now().Add(-up)
}

// ask runs the binary of a master with more options, as the user that it runs as: a process
// can have any title, and what root runs must not be somebody's own file.
func (p proc) ask(ctx context.Context, m *master, options ...string) (stdout, stderr string, err error) {
	cmd := exec.CommandContext(ctx, m.binary, append(slices.Clone(m.args), options...)...)
	if dir, err := os.Readlink(p.path(m.pid, "cwd")); err == nil {
		cmd.Dir = dir // relative paths start there
	}
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}
	if os.Geteuid() == 0 && m.uid != 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: m.uid, Gid: m.gid}}
	}
	var out, errors bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errors
	cmd.WaitDelay = time.Second
	err = cmd.Run()
	return out.String(), errors.String(), err
}

// strangers reports whether a process sees other files than this one: it is in a
// container, or its unit hides some.
func (p proc) strangers(pid int) (strangers, known bool) {
	own, err := os.Readlink(filepath.Join(string(p), "self", "ns/mnt"))
	if err != nil {
		return false, false
	}
	its, err := os.Readlink(p.path(pid, "ns/mnt"))
	if err != nil {
		return false, false
	}
	return own != its, true
}

// contained reports whether a process has another root directory than this one: a path of
// its is another file here, and no business of root's to run.
func (p proc) contained(pid int) bool {
	own, err := os.Stat("/")
	if err != nil {
		return true
	}
	its, err := os.Stat(p.path(pid, "root"))
	if errors.Is(err, fs.ErrPermission) && os.Geteuid() != 0 {
		return false // what is run has no more rights than whoever asks
	}
	return err != nil || !os.SameFile(own, its)
}

// An open file of a process.
type openFile struct {
	name    string // the one that it had last
	removed bool
	info    fs.FileInfo
}

// open are the files that a process has open. The error says that it may not be looked at.
func (p proc) open(pid int) ([]openFile, error) {
	dir := p.path(pid, "fd")
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var all []openFile
	for _, entry := range entries {
		link := filepath.Join(dir, entry.Name())
		target, err := os.Readlink(link)
		if errors.Is(err, fs.ErrNotExist) {
			continue // closed meanwhile
		}
		if err != nil {
			return nil, err
		}
		var one openFile
		one.name, one.removed = strings.CutSuffix(target, " (deleted)")
		if one.info, err = os.Stat(link); err == nil {
			all = append(all, one)
		}
	}
	return all, nil
}
