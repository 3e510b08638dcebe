package integration_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// worker is the user that nginx's worker runs as.
func (s *site) worker() *user.User {
	s.t.Helper()
	var uid uint32
	s.eventually("nginx has a worker that is no longer root", func() bool {
		children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", s.nginx.Process.Pid))
		if err != nil || len(strings.Fields(string(children))) == 0 {
			return false
		}
		info, err := os.Stat("/proc/" + strings.Fields(string(children))[0])
		if err != nil {
			return false
		}
		uid = info.Sys().(*syscall.Stat_t).Uid
		return uid != 0
	})
	u, err := user.LookupId(strconv.FormatUint(uint64(uid), 10))
	if err != nil {
		s.t.Fatal(err)
	}
	return u
}

// Policy allows everything: what `check --files` lists is what nginx does not serve, and
// nothing else.
func TestCheckFilesListsWhatIsAllowedAndStill404(t *testing.T) {
	t.Parallel()
	for _, follow := range []bool{false, true} {
		t.Run(fmt.Sprintf("insecure_follow_symlinks %v", follow), func(t *testing.T) {
			t.Parallel()
			s := start(t, plan{policy: "p, @anyone, /**, read, allow\n", files: map[string]string{"ok.txt": "ok\n"}, edit: func(s *site, conf string) string {
				if follow {
					return strings.Replace(conf, "disable_symlinks on from="+s.root+";", "disable_symlinks off;", 1)
				}
				return conf
			}})
			s.plantUnservable(s.worker())
			s.write("check.yaml", fmt.Sprintf("downloads:\n  - {name: main, url: /downloads/, internal: /protected/, root: %s, insecure_follow_symlinks: %v}\n", s.root, follow))
			cmd := s.command(binary, "check", "--files", "--json", "--as", s.worker().Username, "--config", "check.yaml")
			out, err := cmd.Output()
			if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) || exit.ExitCode() != 1 {
				t.Fatalf("check --files: %v\n%s", err, out)
			}
			var reports []struct {
				Files      int
				Unservable []struct {
					Path, Reason string
					Files        int
				}
			}
			if err := json.Unmarshal(out, &reports); err != nil || len(reports) != 1 {
				t.Fatalf("%v: %s", err, out)
			}
			listed := func(path string) string {
				for _, u := range reports[0].Unservable {
					name := u.Path
					if plain, err := strconv.Unquote(name); err == nil {
						name = plain
					}
					if path == name || strings.HasSuffix(name, "/") && strings.HasPrefix(path, name) {
						return u.Reason
					}
				}
				return ""
			}
			files, missing := 0, 0
			ask := func(path string) {
				files++
				segments := strings.Split(path, "/")
				for i := range segments {
					segments[i] = url.PathEscape(segments[i])
				}
				r, err := raw(s.web, "GET", []byte("GET /downloads"+strings.Join(segments, "/")+" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"))
				if err != nil {
					t.Fatalf("%q: %v", path, err)
				}
				if r.status != 200 {
					missing++
				}
				if reason := listed(path); (r.status == 200) != (reason == "") {
					t.Errorf("%q: nginx answers %d, check --files says %q", path, r.status, reason)
				}
			}
			if err := filepath.WalkDir(s.root, func(name string, d fs.DirEntry, err error) error {
				if err == nil && !d.IsDir() && !(follow && d.Name() == "linked") {
					ask(strings.TrimPrefix(name, s.root))
				}
				return err
			}); err != nil {
				t.Fatal(err)
			}
			if follow { // what there is behind a link
				ask("/linked/outside.txt")
			}
			if missing < 10 || files-missing < 4 {
				t.Errorf("%d of %d files cannot be served: the tree shows too little", missing, files)
			}
			if reports[0].Files != files {
				t.Errorf("check --files looked at %d files, there are %d", reports[0].Files, files)
			}
		})
	}
}

// plantUnservable makes a tree of what nginx serves and does not.
func (s *site) plantUnservable(worker *user.User) {
	t := s.t
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"sub/ok.txt", "sub/none.txt", "locked/a.txt", "locked/b/c.txt", "passed/ok.txt", " lead.txt", "trail.txt ", "trail /a.txt", "new\nline.txt", "\xff.txt", `back\slash.txt`,
		"per%cent?.txt", "ünï.txt", "\u00a0.txt", "empty/none.txt"} {
		s.write("files/"+name, "a\n")
	}
	s.write("outside/outside.txt", "outside\n")
	for name, mode := range map[string]os.FileMode{"sub/none.txt": 0, "empty/none.txt": 0o200, "locked": 0o600, "passed": 0o711} {
		must(os.Chmod(filepath.Join(s.root, name), mode))
	}
	t.Cleanup(func() { _ = os.Chmod(filepath.Join(s.root, "locked"), 0o755) }) // or it could not be removed
	for link, target := range map[string]string{"link.txt": "ok.txt", "dangling.txt": "none.txt", "circle.txt": "circle.txt", "linked": "../outside", "sub/far.txt": filepath.Join(s.root, "locked/a.txt"),
		"sub/absolute.txt": filepath.Join(s.dir, "outside/outside.txt")} {
		must(os.Symlink(target, filepath.Join(s.root, link)))
	}
	must(syscall.Mkfifo(filepath.Join(s.root, "pipe"), 0o666))
	short := t.TempDir() // a socket's name is short
	socket, err := net.Listen("unix", filepath.Join(short, "s"))
	must(err)
	t.Cleanup(func() { _ = socket.Close() }) // the test is over
	if os.Getuid() == 0 {
		must(os.Link(filepath.Join(short, "s"), filepath.Join(s.root, "socket")))
		uid, err := strconv.Atoi(worker.Uid)
		must(err)
		gid, err := strconv.Atoi(worker.Gid)
		must(err)
		for _, f := range []struct {
			name     string
			uid, gid int
			mode     os.FileMode
		}{
			{"owner.txt", uid, 0, 0o400}, {"not-owner.txt", uid, gid, 0o077}, {"group.txt", 0, gid, 0o040}, {"not-group.txt", 0, gid, 0o704}, {"others.txt", 0, 0, 0o004}, {"root.txt", 0, 0, 0o770},
		} {
			s.write("files/"+f.name, "a\n")
			must(os.Chown(filepath.Join(s.root, f.name), f.uid, f.gid))
			must(os.Chmod(filepath.Join(s.root, f.name), f.mode))
		}
		groups, err := worker.GroupIds()
		must(err)
		if slices.Contains(groups, "0") {
			t.Fatal("nginx's worker is in root's group")
		}
	}
}
