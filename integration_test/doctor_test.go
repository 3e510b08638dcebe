package integration_test

import (
	"bytes"
	"crypto/x509"
	bits "encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"securefiles/internal/freeport"
)

// A ward is a system for `securefiles doctor`: the service and nginx, which includes both
// halves as they are printed.
type ward struct {
	*site
	yaml   string // securefiles.yaml, behind where it listens
	policy string
	users  string
	files  map[string]string
	main   string // what nginx's configuration holds before http { }
	http   string // in http { }
	server string // in server { }
	listen string // what stands behind `listen ADDRESS`
	tcp    bool
	above  string   // what stands above listen
	args   []string // of doctor
	wrap   []string // what runs nginx
	// complete has nginx run what is printed as a whole.
	complete bool
	model    string // what stands behind the policy's file
	extra    string // more in securefiles.yaml, at its top level
	edit     func(half string) string
}

// newWard is a system in which nothing is wrong, for a case to change before it starts.
func newWard(t *testing.T) *ward {
	t.Helper()
	w := &ward{site: &site{t: t, dir: publicDir(t), web: freeport.Address(t), admin: freeport.Address(t), log: &logBuffer{}}}
	w.site.root = filepath.Join(w.dir, "files")
	w.files = map[string]string{"public/welcome.txt": "0123456789 welcome\n", "project/plan.txt": "0123456789 plan\n", "project/hr/pay.txt": "CANARY DENY pay\n"}
	w.policy = "p, @anyone, /public/**, read, allow\np, editor, /project/**, read, allow\np, editor, /project/hr/**, read, deny\ng, alice, editor\np, bob, /project/hr/**, read, allow\n"
	w.users = usersOfCost
	w.yaml = "identity:\n  - htpasswd: users.htpasswd\n"
	return w
}

// usersOfCost are alice and bob, whose names are their passwords, hashed as they should be.
const usersOfCost = "alice:$6$saltsaltsaltsalt$aJr9NV4WP092k83CBcoIbAqX5tx1c0ez62VJKXgOfhQeQcK9ZUqlUEFVgfnQgME/GX/v6xAym.Gn2kDLMVSnj0\nbob:$6$saltsaltsaltsalt$djw0yzHP2QuLlmaXqPi0VaVwL08gvcS6HGaamIhbyMFCt0QKDR9klzFx8gRzaNm0IQx3NHWJNOPFcY3RrdV7c1\n"

// up starts the ward.
func (w *ward) up() {
	w.t.Helper()
	for name, text := range w.files {
		w.write(filepath.Join("files", name), text)
	}
	w.write("policy.csv", w.policy)
	w.write("users.htpasswd", w.users)
	w.chmod("users.htpasswd", 0o640)
	for _, dir := range []string{"run", "logs", "sock"} {
		w.must(os.MkdirAll(filepath.Join(w.dir, dir), 0o755))
	}
	for tries := 0; ; tries++ {
		w.configure()
		if w.serve() {
			break
		}
		if tries == 3 {
			w.t.Fatalf("the service finds no port that is free:\n%s", w.log.String())
		}
		w.admin, w.log = freeport.Address(w.t), &logBuffer{} // somebody was quicker
	}
	w.printHalves()
	w.startWard()
}

// configure writes securefiles.yaml.
func (w *ward) configure() {
	w.t.Helper()
	w.service = "unix:" + filepath.Join(w.dir, "sock/auth.sock")
	if w.tcp {
		w.service = freeport.Address(w.t)
	}
	yaml := w.above + fmt.Sprintf("listen: %s\nadmin: %s\nshutdown_delay: 100ms\npolicy: {file: policy.csv%s}\n%s%s", w.service, w.admin, w.model, w.yaml, w.extra)
	if !strings.Contains(yaml, "downloads:") {
		yaml += "downloads:\n  - {name: main, url: /downloads/, internal: /protected/, root: " + w.site.root + "}\n"
	}
	w.write("securefiles.yaml", strings.ReplaceAll(yaml, "DIR", w.dir))
}

// conf is nginx.conf.
func (w *ward) conf() string {
	as := ""
	if os.Getuid() == 0 {
		as = "user www-data;\n"
	}
	if w.complete {
		out, err := w.command(binary, "nginx", "--complete", "--config", "securefiles.yaml").Output()
		w.must(err)
		return as + strings.Replace(string(out), "127.0.0.1:8080", w.web, 1)
	}
	return strings.NewReplacer("DIR", w.dir, "FILES", w.site.root, "WEB6", bySix(w.web), "WEB", w.web).Replace(fmt.Sprintf(`%sworker_processes 1;
pid DIR/run/nginx.pid;
error_log DIR/logs/error.log warn;
events { worker_connections 256; }
%s
http {
    client_body_temp_path DIR/run/body;
    proxy_temp_path DIR/run/proxy;
    fastcgi_temp_path DIR/run/fastcgi;
    uwsgi_temp_path DIR/run/uwsgi;
    scgi_temp_path DIR/run/scgi;
    types { text/plain txt; }
    access_log DIR/logs/access.log;
    include http.conf;
    %s
    server {
        listen %s%s;
        server_name files.example.org;
        %s
        include server.conf;
        location / { return 404; }
    }
}
`, as, w.main, w.http, w.web, w.listen, w.server))
}

// bySix is an address of this machine, by IPv6.
func bySix(address string) string { return strings.Replace(address, "127.0.0.1", "[::1]", 1) }

// hasSix skips a test on a machine without IPv6.
func (w *ward) hasSix() {
	w.t.Helper()
	l, err := net.Listen("tcp", "[::1]:0")
	if err != nil {
		w.t.Skipf("this machine has no IPv6: %v", err)
	}
	w.must(l.Close())
}

// printHalves writes what nginx includes.
func (w *ward) printHalves() {
	w.t.Helper()
	for name, flag := range map[string]string{"http.conf": "--http", "server.conf": ""} {
		args := []string{"nginx", "--config", "securefiles.yaml"}
		if flag != "" {
			args = append(args, flag)
		}
		var errs bytes.Buffer
		cmd := w.command(binary, args...)
		cmd.Stderr = &errs
		out, err := cmd.Output()
		if err != nil {
			w.t.Fatalf("securefiles nginx %s: %v\n%s", flag, err, errs.String())
		}
		text := string(out)
		if w.edit != nil {
			text = w.edit(text)
		}
		w.write(name, text)
	}
}

// serve starts the service, whose socket nginx's workers may use. It says whether its ports
// were free.
func (w *ward) serve() bool {
	w.t.Helper()
	cmd := w.command(binary, "serve", "--config", "securefiles.yaml")
	cmd.Stderr = w.log
	cmd.Env = append(os.Environ(), "NOTIFY_SOCKET=")
	if err := cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	w.daemon = cmd
	w.t.Cleanup(func() { end(cmd) })
	taken := false
	w.eventually("the service is ready", func() bool {
		taken = strings.Contains(w.log.String(), "address already in use")
		code, _ := w.adminGet("/readyz")
		return taken || code == http.StatusOK && strings.Contains(w.log.String(), "serving")
	})
	if !taken && os.Getuid() == 0 && !w.tcp {
		w.must(os.Chown(w.socket(), 0, w.gid()))
	}
	return !taken
}

func (w *ward) socket() string { return strings.TrimPrefix(w.service, "unix:") }

// gid is the group of nginx's workers.
func (w *ward) gid() int {
	w.t.Helper()
	u, err := user.Lookup("www-data")
	if err != nil {
		w.t.Fatal(err)
	}
	gid, err := strconv.Atoi(u.Gid)
	if err != nil {
		w.t.Fatal(err)
	}
	return gid
}

// startWard starts nginx, on a port that is free.
func (w *ward) startWard() {
	w.t.Helper()
	for range 4 {
		w.write("nginx.conf", w.conf())
		line := append(slices.Clone(w.wrap), "nginx", "-p", w.dir, "-e", "logs/error.log", "-c", filepath.Join(w.dir, "nginx.conf"), "-g", "daemon off;")
		cmd := w.command(line[0], line[1:]...)
		out := &logBuffer{}
		cmd.Stderr = out
		w.must(cmd.Start())
		w.nginx = cmd
		w.t.Cleanup(func() { end(cmd) })
		taken := false
		w.eventually("nginx has workers, and its pid is written", func() bool {
			text := out.String()
			if taken = strings.Contains(text, "Address already in use"); !taken && strings.Contains(text, "[emerg]") {
				w.t.Fatalf("nginx: %s", text)
			}
			_, err := os.Stat(filepath.Join(w.dir, "run/nginx.pid"))
			return taken || err == nil && w.unprivileged()
		})
		if !taken {
			return
		}
		w.web = freeport.Address(w.t) // somebody was quicker
	}
	w.t.Fatal("nginx finds no port that is free")
}

// unprivileged reports whether nginx has workers that are no longer root's.
func (w *ward) unprivileged() bool {
	for _, one := range w.workers() {
		if one.unprivileged || os.Getuid() != 0 {
			return true
		}
	}
	return false
}

func (w *ward) chmod(name string, mode os.FileMode) {
	w.t.Helper()
	name = filepath.Join(w.dir, name)
	if err := os.Chmod(name, mode); err != nil {
		w.t.Fatal(err)
	}
	if mode&0o500 != 0o500 {
		w.t.Cleanup(func() { _ = os.Chmod(name, 0o755) }) // or it could not be removed
	}
}

func (w *ward) remove(name string) {
	w.t.Helper()
	if err := os.RemoveAll(filepath.Join(w.dir, name)); err != nil {
		w.t.Fatal(err)
	}
}

func (w *ward) stop(cmd *exec.Cmd, signal syscall.Signal) {
	w.t.Helper()
	if err := cmd.Process.Signal(signal); err != nil {
		w.t.Fatal(err)
	}
	_ = cmd.Wait() // how it ends is another test's
}

// doctor runs it, and returns its exit status and standard output.
func (w *ward) doctor(args ...string) (int, string, string) {
	w.t.Helper()
	cmd := w.command(binary, append([]string{"doctor", "--config", "securefiles.yaml", "--nginx-pid", filepath.Join(w.dir, "run/nginx.pid")}, args...)...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		w.t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), out.String(), errs.String()
}

// A fault is one thing that is wrong in a ward.
type fault struct {
	name   string
	before func(*ward) // changes what is started
	after  func(*ward) // breaks what runs
	args   []string
	first  string // a regular expression that the first line matches
	status int    // 1 unless it says otherwise
	root   bool   // it takes root to make it
}

// takenOut makes an edit of a half: the first line that holds a text goes.
func takenOut(line string) func(string) string {
	return func(half string) string {
		before, rest, ok := strings.Cut(half, line)
		if !ok {
			return half
		}
		_, after, _ := strings.Cut(rest, "\n")
		return before[:strings.LastIndexByte(before, '\n')+1] + after
	}
}

func put(old, new string) func(string) string {
	return func(half string) string { return strings.Replace(half, old, new, 1) }
}

func inServer(text string) func(*ward) { return func(w *ward) { w.server = text } }

func inHTTP(text string) func(*ward) { return func(w *ward) { w.http = text } }

func edited(edit func(string) string, server string) func(*ward) {
	return func(w *ward) { w.edit, w.server = edit, server }
}

// change edits a file after everything has started.
func (w *ward) change(name string, edit func(string) string) {
	w.t.Helper()
	text, err := os.ReadFile(filepath.Join(w.dir, name))
	if err != nil {
		w.t.Fatal(err)
	}
	if changed := edit(string(text)); changed == string(text) {
		w.t.Fatalf("%s does not hold what is to be changed", name)
	} else {
		w.replace(name, changed)
	}
}

// list adds to the configuration.
func (w *ward) list(text string) {
	w.change("securefiles.yaml", func(old string) string { return old + text })
}

// anybodys is a policy for sources that can name anybody.
const anybodys = "p, @anyone, /public/**, read, allow\np, role:editor, /project/**, read, allow\ng, alice, role:editor\n"

const headerOfMap = "identity:\n  - header: X-Remote-User\n    nginx_value: $gateway_user\n"

func faults() []fault {
	return []fault{
		// Configuration, policy, users.
		{name: "an unknown key", after: func(w *ward) { w.list("polcy: {}\n") }, first: `^error: securefiles\.yaml:\d+:1: error: unknown field "polcy".* \[configuration\]`, status: 2},
		{name: "a tab", after: func(w *ward) { w.list("\tlog: {}\n") }, first: `^error: securefiles\.yaml:\d+.*tab.* \[configuration\]`, status: 2},
		{name: "a secret that is not there", after: func(w *ward) { w.list("admin_token_file: none.txt\n") }, first: `^error: .*none\.txt.* \[configuration\]`, status: 2},
		{name: "a broken line in the policy", after: func(w *ward) { w.replace("policy.csv", w.policy+"p, @anyone, /new/**, read\n, x\n") }, first: `^error: .*policy\.csv:\d+: .* \[configuration\]`},
		{name: "a policy that is gone", after: func(w *ward) { w.remove("policy.csv") }, first: `^error: .*policy\.csv.*no such file.* \[configuration\]`},
		{name: "a broken line of users", after: func(w *ward) { w.replace("users.htpasswd", w.users+"carol\n") }, first: `^error: .*users\.htpasswd:3: .* \[configuration\]`},
		{name: "users that everybody can change", after: func(w *ward) { w.chmod("users.htpasswd", 0o646) }, first: `^warning: .*users\.htpasswd: anybody on this machine can change it.* \[configuration\]`},
		{name: "a root that holds the configuration", after: func(w *ward) { w.change("securefiles.yaml", put("root: "+w.site.root, "root: "+w.dir)) }, first: `^error: securefiles\.yaml:\d+: .* holds .*, which nginx would serve like any other file .* \[configuration\]`},
		{name: "a header that nobody fills", before: func(w *ward) { w.yaml, w.policy = "identity:\n  - header: X-Remote-User\n", anybodys }, first: `^warning: .*clears X-Remote-User, so it names nobody.* \[configuration\]`},

		// The directories and files.
		{name: "no root", after: func(w *ward) { w.remove("files") }, first: `^error: .*/files, the root of download main, is not there.* \[root\]`},
		{name: "a root that is a file", after: func(w *ward) { w.remove("files"); w.write("files", "") }, first: `^error: .*/files is no directory.* \[configuration\]`},
		{name: "a root that nginx may not enter", after: func(w *ward) { w.chmod("files", 0o600) }, first: `^error: nginx can serve nothing of .*/files: \S+ may not enter the root: d.* \[root\]`, root: true},
		{name: "a directory above the root that nginx may not enter", before: func(w *ward) {
			w.site.root = filepath.Join(w.dir, "files/deep/files")
			w.files = map[string]string{"deep/files/public/a.txt": "a\n"}
		},
			after: func(w *ward) { w.chmod("files/deep", 0o700) }, first: `^error: nginx can serve nothing of .* may not enter .*/files/deep: d.* \[root\]`, root: true},
		{name: "a file that nginx may not read", after: func(w *ward) { w.chmod("files/project/plan.txt", 0) }, first: `^warning: nginx cannot serve .*/files/project/plan\.txt: \S+ may not read it.* \[root\]`},
		{name: "a directory that nginx may not enter", after: func(w *ward) { w.chmod("files/project/hr", 0o700) }, first: `^warning: nginx cannot serve .*/files/project/hr/: \S+ may not enter it.* \[root\]`, root: true},
		{name: "a symbolic link", after: func(w *ward) { w.relink("files/latest.txt", "project/plan.txt") }, first: `^warning: nginx cannot serve .*/latest\.txt: a symbolic link.* \[root\]`},
		{name: "a name that no request can have", after: func(w *ward) { w.write(`files/back\slash.txt`, "a\n") }, first: `^warning: nginx cannot serve .*: no request can name it.* \[root\]`},
		{name: "an access control list", after: func(w *ward) { w.acl("files/project/plan.txt", 0) }, first: `^warning: \S+ may not read .*/files/project/plan\.txt, by its mode or access control list \[root\]`, root: true},
		{name: "another directory for nginx", before: func(w *ward) {
			w.wrap = []string{"unshare", "--mount", "--", "sh", "-c", `mount -t tmpfs none "$0" && exec "$@"`, w.site.root}
			if out, err := exec.Command("unshare", "--mount", "--", "mount", "-t", "tmpfs", "none", "/mnt").CombinedOutput(); err != nil {
				w.t.Skipf("this machine lets nobody mount: %v\n%s", err, out)
			}
		}, first: `^error: nginx sees another directory as .*/files: .* \[root\]`, root: true},
		{name: "a pipe", after: func(w *ward) { w.must(syscall.Mkfifo(filepath.Join(w.site.root, "pipe"), 0o644)) }, first: `^warning: nginx cannot serve .*/files/pipe: a pipe.* \[root\]`},
		{name: "no file at all", before: func(w *ward) { w.files = map[string]string{} }, after: func(w *ward) { w.must(os.MkdirAll(w.site.root, 0o755)) }, first: `^unseen: there is no file in .*/files to ask for \[probe\]`},

		// The service, and the way to it.
		{name: "the service was stopped", after: func(w *ward) { w.stop(w.daemon, syscall.SIGTERM) }, first: `^error: the service does not listen: there is no socket .*/auth\.sock \[service\]`},
		{name: "the service was killed", after: func(w *ward) { w.stop(w.daemon, syscall.SIGKILL) }, first: `^error: the service does not listen on .*/auth\.sock: the connection is refused \[service\]`},
		{name: "the service on a port was stopped", before: func(w *ward) { w.tcp = true; w.taken() }, after: func(w *ward) { w.stop(w.daemon, syscall.SIGTERM) }, first: `^error: the service does not listen on 127.*: the connection is refused \[service\]`},
		{name: "no directory for the socket", after: func(w *ward) { w.stop(w.daemon, syscall.SIGTERM); w.remove("sock") }, first: `^error: the service does not listen: .*/sock, the directory of its socket, is not there \[service\]`},
		{name: "another program on the port", before: func(w *ward) { w.tcp = true; w.taken() }, after: func(w *ward) { w.stop(w.daemon, syscall.SIGTERM); w.impostor() }, first: `^error: another program than the service answers on .* \[service\]`},
		{name: "a service that hangs", after: func(w *ward) {
			w.must(w.daemon.Process.Signal(syscall.SIGSTOP))
		}, first: `^error: the service does not answer on .*/auth\.sock: it listens, and says nothing.* \[service\]`},
		{name: "a service that was not restarted", after: func(w *ward) {
			w.change("securefiles.yaml", put("shutdown_delay: 100ms", "shutdown_delay: 200ms"))
			w.eventually("the service has seen the edit", func() bool { _, body := w.adminGet("/readyz"); return strings.Contains(body, `"restart":[`) })
		}, first: `^error: shutdown_delay, at .*securefiles\.yaml:3.*, was edited, and counts after a restart \[service\]`},
		{name: "another configuration than the service's", after: func(w *ward) {
			text, err := os.ReadFile(filepath.Join(w.dir, "securefiles.yaml"))
			w.must(err)
			w.write("other.yaml", string(text))
		}, args: []string{"--config", "other.yaml"}, first: `^error: the service that answers on .* runs with .*/securefiles\.yaml, and not with .*/other\.yaml \[service\]`},
		{name: "a policy that has shrunk", after: func(w *ward) {
			w.replace("policy.csv", "p, @anyone, /public/**, read, allow\n")
			w.eventually("the policy is refused", func() bool { _, body := w.adminGet("/readyz"); return strings.Contains(body, `"stale":true`) })
		}, first: `^error: the service goes on with an old policy, because the new one is refused: .* \[service\]`},
		{name: "an application that is down", before: func(w *ward) {
			w.policy = anybodys
			w.yaml = "identity:\n  - session: {url: \"http://" + freeport.Address(w.t) + "/who\", cookies: [id], subject_header: X-User}\n"
		}, first: `^error: the application that is asked whose a session is, http://.*/who cannot be reached: .* \[service\]`},
		{name: "another admin address", after: func(w *ward) {
			w.change("securefiles.yaml", put("admin: "+w.site.admin, "admin: "+freeport.Address(w.t)))
		}, first: `^error: the service does not answer operators on .* \[service\]`},
		{name: "a socket that nginx may not use", after: func(w *ward) { w.must(os.Chmod(w.socket(), 0o600)) }, first: `^error: nginx cannot ask the service: \S+ may not connect to .*/auth\.sock: Srw-------.* \[socket\]`, root: true},
		{name: "a socket of another group", after: func(w *ward) { w.must(os.Chown(w.socket(), 0, 0)) }, first: `^error: nginx cannot ask the service: \S+ may not connect to .*/auth\.sock: .*group root \[socket\]`, root: true},
		{name: "a directory of the socket that nginx may not enter", after: func(w *ward) { w.chmod("sock", 0o700) }, first: `^error: nginx cannot ask the service: .* may not enter .*/sock.* \[socket\]`, root: true},
		{name: "a user who is none of the peers", before: func(w *ward) { w.extra = "listen_peer_uids: [0]\n" }, first: `^error: nginx cannot ask the service: \S+, uid \d+, is not in listen_peer_uids \[socket\]`, root: true},
		{name: "a socket for everybody", after: func(w *ward) { w.must(os.Chmod(w.socket(), 0o666)) }, first: `^warning: anybody on this machine may ask the service: .* \[socket\]`},

		// nginx, and what it includes.
		{name: "nginx was stopped", after: func(w *ward) { w.stop(w.nginx, syscall.SIGTERM) }, first: `^error: nginx does not run: .*/nginx\.pid names no process of it \[nginx\]`},
		{name: "a mistake in nginx's configuration", after: func(w *ward) { w.change("nginx.conf", put("types {", "tpyes {")) }, first: `^error: nginx refuses its configuration: unknown directive "tpyes" in .*/nginx\.conf:\d+ \[nginx\]`},
		{name: "the half for http is missing", after: func(w *ward) { w.change("nginx.conf", put("include http.conf;", "")) }, first: `^error: nginx refuses its configuration: .*securefiles.* \[nginx\]`},
		{name: "nginx was not reloaded", after: func(w *ward) {
			w.must(os.Chtimes(filepath.Join(w.dir, "server.conf"), time.Now(), time.Now().Add(time.Minute)))
		}, first: `^error: nginx runs with an older .*/server\.conf: it was changed after nginx was last reloaded \[nginx\]`},
		{name: "an nginx that was upgraded", before: func(w *ward) {
			w.install("nginx", "nginx-of-its-own")
			w.wrap = []string{"sh", "-c", `shift; exec "$0" "$@"`, filepath.Join(w.dir, "nginx-of-its-own")}
		}, after: func(w *ward) {
			w.install("nginx", "new")
			w.must(os.Rename(filepath.Join(w.dir, "new"), filepath.Join(w.dir, "nginx-of-its-own")))
		}, first: `^warning: nginx was upgraded, and still runs as it was: .*/nginx-of-its-own is another file by now \[nginx\]`},
		{name: "another server of the same name", before: func(w *ward) { w.http = "server { listen WEB; server_name files.example.org; }" }, first: `^error: two server \{ \} have one name and address, and nginx passes over the second: .* \[nginx\]`},
		{name: "neither half", before: func(w *ward) { w.edit = func(string) string { return "" } }, first: `^error: nginx's configuration includes nothing of what .securefiles nginx. prints \[snippet\]`},
		{name: "the half for the server is missing", before: func(w *ward) {
			w.edit = func(half string) string {
				if strings.Contains(half, "upstream securefiles_service") {
					return half
				}
				return ""
			}
		}, first: `^error: no server \{ \} includes what .securefiles nginx. prints.* \[snippet\]`},
		{name: "another configuration", after: func(w *ward) { w.change("securefiles.yaml", put("/files}", "/files, compress: true}")) }, first: `^error: the server at .*/nginx\.conf:\d+ was printed for another configuration.*"gzip on" is missing \[snippet\]`},
		{name: "no stamp", before: edited(takenOut("X-Securefiles-Snippet"), ""), first: `^error: the server at .* does not say for which configuration it was printed.* \[snippet\]`},
		{name: "another half for http", before: edited(put("keepalive 128;", "keepalive 16;"), ""), first: `^error: .*was edited: in upstream securefiles_service, "keepalive 128" is missing \[snippet\]`},
		{name: "satisfy any", before: edited(takenOut("satisfy          all;"), "satisfy any; allow all;"), first: `^error: .*was edited: .*"satisfy all" is missing \[snippet\]`},
		{name: "gzip", before: edited(takenOut("gzip             off;"), "gzip on; gzip_types *;"), first: `^error: .*was edited: .*"gzip off" is missing \[snippet\]`},
		{name: "add_before_body", before: edited(takenOut("add_before_body  "), "add_before_body /x;"), first: `^error: .*was edited: .*"add_before_body " is missing \[snippet\]`},
		{name: "add_after_body", before: edited(takenOut("add_after_body   "), "add_after_body /x;"), first: `^error: .*was edited: .*"add_after_body " is missing \[snippet\]`},
		{name: "error_page", before: edited(takenOut("error_page 403 = @securefiles_refused;"), "error_page 403 =200 /x;"), first: `^error: .*was edited: .*"error_page 403 = @securefiles_refused" is missing \[snippet\]`},
		{name: "links followed", before: edited(takenOut("disable_symlinks on"), ""), first: `^error: .*was edited: .*"disable_symlinks on from=.*" is missing \[snippet\]`},
		{name: "nobody asked", before: edited(takenOut("auth_request     /-securefiles-question;"), ""), first: `^error: .*was edited: .*"auth_request /-securefiles-question" is missing \[snippet\]`},
		{name: "a regex location", before: edited(put("location ^~ /downloads/", "location /downloads/"), `location ~ \.txt$ { root FILES; }`), first: `^error: .*was edited: in server \{ \}, "location \^~ /downloads/" is missing \[snippet\]`},
		{name: "a header from the client", before: edited(put("proxy_set_header Cookie ", "proxy_set_header X-User $http_x_user;\n    proxy_set_header Cookie "), ""), first: `^warning: .*was edited, at .*: .*"proxy_set_header X-User \$http_x_user" was added \[snippet\]`},
		{name: "another proxy secret", before: func(w *ward) { w.secrets(strings.Repeat("a", 32), strings.Repeat("b", 32)) }, first: `^error: the proxy secret that nginx sends, at .*, is another than that of proxy_secret_file \[snippet\]`},
		{name: "another secret of the proof", before: func(w *ward) { w.proof() }, after: func(w *ward) {
			w.replace("proof.txt", strings.Repeat("d", 64)+"\n")
		}, first: `^error: the proof's secret that nginx has, at .*, is another than that of proof_secret_file.* \[snippet\]`},

		// What is inherited.
		{name: "sub_filter", before: inServer("sub_filter 0123 CHANGED;"), first: `^error: sub_filter 0123 CHANGED at .* rewrites texts.* \[directives\]`},
		{name: "sub_filter in http", before: inHTTP("sub_filter 0123 CHANGED;"), first: `^error: sub_filter 0123 CHANGED at .* rewrites texts.* \[directives\]`},
		{name: "charset", before: func(w *ward) {
			w.http, w.server = "charset_map koi8-r utf-8 { C0 D18E; }", "charset utf-8; source_charset koi8-r;"
		}, first: `^error: source_charset koi8-r at .* recodes texts.* \[directives\]`},
		{name: "add_trailer", before: inServer("add_trailer X-Trailer x always;"), first: `^warning: add_trailer X-Trailer x always at .* takes the length of files away \[directives\]`},
		{name: "post_action", before: inServer("post_action /x;"), first: `^warning: post_action /x at .* has each request logged twice \[directives\]`},
		{name: "auth_basic", before: inServer("auth_basic site; auth_basic_user_file DIR/users.htpasswd;"), first: `^error: auth_basic site at .* has nginx ask for a password of its own.* \[directives\]`},
		{name: "deny all", before: inServer("deny all;"), first: `^error: deny all at .* refuses everybody.* \[directives\]`},
		{name: "rewrite break", before: inServer("rewrite ^/downloads/(.*)$ /downloads/$1 break;"), first: `^error: rewrite \^/downloads/.* answer 500 .* \[directives\]`},
		{name: "rewrite elsewhere", before: inServer("rewrite ^/downloads/(.*)$ /old/$1 last;"), first: `^error: rewrite \^/downloads/.* takes the addresses of download main elsewhere \[directives\]`},
		{name: "return", before: inServer("return 301 https://www.example.org$request_uri;"), first: `^error: return 301 .* answers everything in this server.* \[directives\]`},
		{name: "a longer location", before: inServer("location /downloads/public/ { alias FILES/public/; }"), first: `^error: location /downloads/public/ at .* takes addresses below /downloads/ .* \[directives\]`},
		{name: "an exact location", before: inServer("location = /downloads/project/plan.txt { alias FILES/project/plan.txt; }"), first: `^error: location = /downloads/project/plan\.txt at .* takes addresses .* \[directives\]`},
		{name: "a location below the internal prefix", before: inServer("location /protected/public/ { alias FILES/public/; }"), first: `^error: location /protected/public/ at .* takes addresses below /protected/.* \[directives\]`},
		{name: "a variable of the snippet's", before: inServer("set $securefiles_location /protected/project/plan.txt;"), first: `^error: set \$securefiles_location .* sets a variable that the printed configuration uses \[directives\]`},
		{name: "a user whom nginx does not ask for a password", before: func(w *ward) {
			w.yaml = "identity:\n  - header: X-Remote-User\n    # securefiles:ignore config: auth_basic is on\n    nginx_value: $remote_user\n"
		}, first: `^error: anybody is who they say they are: nginx_value is \$remote_user, and auth_basic is off.* \[directives\]`},

		// What only a request shows.
		{name: "a name from the request", before: func(w *ward) {
			w.yaml, w.policy = headerOfMap, anybodys
			w.http = "map $http_x_user $gateway_user { default $http_x_user; }"
		}, first: `^error: nginx believes a client that says who it is: .* \[probe\]`},
		{name: "another location for the files", before: inServer("location /raw/ { alias FILES/; }"), first: `^error: anybody gets the files of download main as /raw/.*, without the service being asked: .* \[probe\]`},
		{name: "another server for the files", before: func(w *ward) { w.http = "server { listen " + freeport.Address(w.t) + "; root DIR; }" }, first: `^error: anybody gets the files of download main as /files/.*, without the service being asked: .* \[probe\]`},
		{name: "another server by IPv6", before: func(w *ward) { w.hasSix(); w.http = "server { listen WEB6; return 404; }" }, first: `^warning: whoever comes by \[::1\]:\d+ gets another server, that at .*/nginx\.conf:\d+: /downloads/ is answered 404 there, and \d+ at 127\.0\.0\.1:\d+ \[probe\]`},
		{name: "a server that is another by IPv6", before: func(w *ward) {
			w.hasSix()
			w.listen, w.server = "; listen WEB6", "if ($remote_addr = ::1) { return 410; }"
		}, first: `^warning: /downloads/ is answered 410 at \[::1\]:\d+, and \d+ at 127\.0\.0\.1:\d+, by one server \[probe\]`},
		{name: "a condition of the server's", before: inServer("if ($http_user_agent ~ doctor) { return 403; }"), first: `^error: anonymous may have /downloads/public/welcome\.txt, and nginx answers 403 without asking the service \[probe\]`},
		{name: "bytes that change", before: inServer("if ($args = \"\") { rewrite ^/downloads/public/welcome\\.txt$ /other? last; } location = /other { return 200 other; }"), first: `^error: what nginx serves as /downloads/public/welcome\.txt is not what .* holds \[probe\]`},

		{name: "a certificate that has expired", before: func(w *ward) { w.secured(time.Now().Add(-time.Hour)) }, first: `^error: the certificate of https://files\.example\.org at .* has expired, on .* \[probe\]`},
		{name: "a limit that keeps everybody out", before: func(w *ward) {
			w.http, w.server = "limit_req_zone $server_name zone=few:1m rate=1r/m;", "limit_req zone=few;"
		}, after: func(w *ward) { w.get("", "/downloads/public/welcome.txt") }, first: `^unseen: whether /downloads/public/welcome\.txt is served cannot be tried: limit_req zone=few at .* \[probe\]`},

		// What is logged.
		{name: "a delivery log that was renamed", before: deliveryLog, after: func(w *ward) {
			w.must(os.Rename(filepath.Join(w.dir, "logs/delivery.log"), filepath.Join(w.dir, "logs/delivery.log.1")))
		}, first: `^error: nginx does not write the delivery log .*/delivery\.log, .* \[logs\]`},
		{name: "a delivery log that was removed", before: deliveryLog, after: func(w *ward) { w.remove("logs/delivery.log") }, first: `^error: nginx does not write the delivery log .*/delivery\.log, .* \[logs\]`},
		{name: "a delivery log that nobody keeps", before: func(w *ward) {
			w.extra = "nginx: {delivery_log: /dev/null, access_log: DIR/logs/access.log combined}\n"
		}, first: `^warning: the delivery log /dev/null is a device.* \[logs\]`},
		{name: "a site's log that was removed", after: func(w *ward) { w.remove("logs/access.log") }, first: `^warning: nginx goes on writing .*/access\.log, which was removed or renamed \[logs\]`},
	}
}

func (w *ward) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// acl gives a file an access control list: nginx's user may what the bits say, others
// nothing.
func (w *ward) acl(name string, right uint16) {
	w.t.Helper()
	u, err := user.Lookup("www-data")
	w.must(err)
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	w.must(err)
	w.chmod(name, 0o640)
	// A version, and entries of a tag, a right and an id (linux/posix_acl_xattr.h).
	list := binary16(2, 0)
	for _, e := range []struct {
		tag, right uint16
		id         uint32
	}{{0x01, 6, 1<<32 - 1}, {0x02, right, uint32(uid)}, {0x04, 4, 1<<32 - 1}, {0x10, 7, 1<<32 - 1}, {0x20, 4, 1<<32 - 1}} {
		list = append(list, binary16(e.tag, e.right, uint16(e.id), uint16(e.id>>16))...)
	}
	if err := unix.Setxattr(filepath.Join(w.dir, name), "system.posix_acl_access", list, 0); errors.Is(err, unix.ENOTSUP) {
		w.t.Skip("this file system has no access control lists")
	} else {
		w.must(err)
	}
}

func binary16(values ...uint16) []byte {
	var out []byte
	for _, v := range values {
		out = bits.LittleEndian.AppendUint16(out, v)
	}
	return out
}

func deliveryLog(w *ward) {
	w.extra = "nginx: {delivery_log: DIR/logs/delivery.log, access_log: DIR/logs/access.log combined}\n"
}

// taken says that a TCP port, which others may take, is meant.
func (w *ward) taken() { w.extra = "# nothing else\n" }

// impostor listens in the service's place.
func (w *ward) impostor() {
	w.t.Helper()
	l, err := net.Listen("tcp", w.service)
	w.must(err)
	s := &http.Server{Handler: http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(http.StatusNoContent) })}
	go func() { _ = s.Serve(l) }() // until it is closed
	w.t.Cleanup(func() { _ = s.Close() })
}

// secrets has the service want one, and nginx send another.
func (w *ward) secrets(wanted, sent string) {
	w.write("secret.txt", wanted+"\n")
	w.chmod("secret.txt", 0o640)
	w.extra = "proxy_secret_file: secret.txt\n"
	w.write("securefiles-secret.conf", fmt.Sprintf("proxy_set_header X-Securefiles-Proxy-Secret %q;\n", sent))
}

// install copies a program, by one that has no child to which the open file could go.
func (w *ward) install(program, name string) {
	w.t.Helper()
	from, err := exec.LookPath(program)
	w.must(err)
	if out, err := w.command("cp", from, name).CombinedOutput(); err != nil {
		w.t.Fatalf("%v\n%s", err, out)
	}
}

// proof has the service prove its answers.
func (w *ward) proof() {
	w.write("proof.txt", strings.Repeat("c", 64)+"\n")
	w.chmod("proof.txt", 0o640)
	w.extra = "proof_secret_file: proof.txt\n"
	w.edit = func(half string) string { // what is there by then
		out, err := w.command(binary, "nginx", "--proof", "--config", "securefiles.yaml").Output()
		w.must(err)
		w.write("securefiles-proof.conf", string(out))
		return half
	}
}

// The first line of what doctor says names the fault, in forty systems and more.
func TestDoctorNamesWhatIsWrong(t *testing.T) {
	t.Parallel()
	for _, f := range faults() {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			if f.root && os.Getuid() != 0 {
				t.Skip("it takes root to make files of others")
			}
			w := newWard(t)
			if f.before != nil {
				f.before(w)
			}
			w.up()
			if f.after != nil {
				f.after(w)
			}
			status, out, errs := w.doctor(f.args...)
			first, _, _ := strings.Cut(out, "\n")
			if want := max(f.status, 1); status != want || !regexp.MustCompile(f.first).MatchString(first) {
				t.Errorf("exit %d, want %d, and a first line like %s\n%s%s", status, want, f.first, out, errs)
			}
		})
	}
}

// A fault is told of once, and not by what follows from it.
func TestDoctorTellsNothingOfALogThatNobodyIsToldToWrite(t *testing.T) {
	t.Parallel()
	w := newWard(t)
	deliveryLog(w)
	w.edit = func(half string) string {
		if strings.Contains(half, "upstream securefiles_service") {
			return half
		}
		return ""
	}
	w.up()
	if _, out, errs := w.doctor(); !strings.Contains(out, "[snippet]") || strings.Contains(out, "[logs]") {
		t.Errorf("%s%s", out, errs)
	}
}

// What listens for the service and closes what it has taken is not there: systemd does so
// when it gives up starting it.
func TestDoctorOfASocketThatIsClosedMeanwhile(t *testing.T) {
	t.Parallel()
	w := newWard(t)
	w.up()
	w.stop(w.daemon, syscall.SIGTERM)
	l, err := net.Listen("unix", filepath.Join(w.dir, "sock", "auth.sock"))
	w.must(err)
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	w.must(os.Chmod(filepath.Join(w.dir, "sock", "auth.sock"), 0o666))
	go func() {
		if conn, err := l.Accept(); err == nil {
			_ = l.Close() // before the next one
			_ = conn.Close()
		}
	}()
	if _, out, errs := w.doctor(); !strings.Contains(out, "error: the service does not listen on") {
		t.Errorf("%s%s", out, errs)
	}
}

// sound are systems in which nothing is wrong.
func sound() map[string]func(*ward) {
	return map[string]func(*ward){
		"a socket":             func(*ward) {},
		"the whole as printed": func(w *ward) { w.complete = true },
		"a port": func(w *ward) {
			w.tcp, w.above, w.extra = true, "# securefiles:ignore listen: nobody else logs in here\n", "nginx:\n  access_log: off\n  delivery_log: DIR/logs/delivery.log\nproof_secret_file: proof.txt\n"
			w.proofOnPort()
		},
		"two downloads": func(w *ward) {
			w.files["../more/new/a.txt"] = "more\n"
			w.extra = "downloads:\n  - {name: main, url: /downloads/, internal: /protected/, root: DIR/files}\n  - {name: more, url: /more/, internal: /inner/, root: DIR/more, disposition: inline, deny_status: 403}\n"
			w.policy = "p, @anyone, main, /public/**, read, allow\np, role:editor, main, /project/**, read, allow\np, @anyone, more, /new/**, read, allow\ng, alice, role:editor\n"
			w.model = ", model: model.conf"
			w.write("model.conf", "[request_definition]\nr = sub, dom, obj, act\n\n[policy_definition]\np = sub, dom, obj, act, eft\n\n[role_definition]\ng = _, _\n\n[policy_effect]\ne = some(where (p.eft == allow)) && !some(where (p.eft == deny))\n\n[matchers]\nm = g(r.sub, p.sub) && (r.dom == p.dom || p.dom == \"*\") && globMatch(r.obj, p.obj) && r.act == p.act\n")
		},
		"a download that nginx passes on": func(w *ward) {
			w.extra = "downloads:\n  - {name: main, url: /downloads/, internal: /protected/, root: DIR/files, front: classic}\n"
			w.server = "satisfy any; allow all; gzip on; gzip_types *; gzip_min_length 0; ssi on; ssi_types *; add_before_body /x; add_after_body /x; max_ranges 0; etag off; expires max; error_page 401 403 404 =200 /x; proxy_cache_key x; proxy_set_header X-Remote-User mallory; autoindex on; limit_rate 1000k;"
		},
		"a password that nginx checks": func(w *ward) {
			w.yaml = "identity:\n  - header: X-Remote-User\n    # securefiles:ignore config: auth_basic is on for the whole server\n    nginx_value: $remote_user\n"
			w.args = []string{"--user", "alice:alice"}
			w.write("nginx.users", w.users)
			w.policy, w.server = anybodys, "auth_basic downloads; auth_basic_user_file DIR/nginx.users;"
		},
		"a gateway on an address of its own": func(w *ward) {
			w.yaml, w.policy = headerOfMap, anybodys
			w.http = "map $remote_addr $gateway_user { 127.0.0.2 $http_x_forwarded_user; default \"\"; }"
		},
		"secrets both ways": func(w *ward) {
			w.proof()
			proof := w.edit
			w.secrets(strings.Repeat("a", 32), strings.Repeat("a", 32))
			w.edit = proof
			w.extra = "proxy_secret_file: secret.txt\nproof_secret_file: proof.txt\n"
		},
		"an access control list that lets nginx in": func(w *ward) {
			if os.Getuid() != 0 {
				w.t.Skip("it takes root to make files of others")
			}
			w.write("files/public/listed.txt", "listed\n")
			w.acl("files/public/listed.txt", 4)
		},
		"logs of its own": deliveryLog,
		"IPv4 and IPv6":   func(w *ward) { w.hasSix(); w.listen = "; listen WEB6" },
		"links that are followed": func(w *ward) {
			w.extra = "downloads:\n  - {name: main, url: /downloads/, internal: /protected/, root: DIR/files, insecure_follow_symlinks: true}\n"
			w.write("files/project/plan.txt", "0123456789 plan\n")
			w.relink("files/latest.txt", "project/plan.txt")
		},
		"TLS and a redirect to it": func(w *ward) {
			w.secured(time.Time{})
			w.http = "server { listen " + freeport.Address(w.t) + "; return 301 https://files.example.org$request_uri; }"
		},
		"pages and compression and other origins": func(w *ward) {
			w.write("pages/404.html", "no such file\n")
			w.extra = "nginx: {error_pages: {404: DIR/pages/404.html}}\ndownloads:\n  - {name: main, url: /downloads/, internal: /protected/, root: DIR/files, compress: true, cors_origins: [\"https://app.example.org\"]}\n"
			w.edit = func(half string) string {
				return strings.ReplaceAll(half, "add_header X-Request-ID ", "add_header Strict-Transport-Security max-age=31536000 always; add_header X-Request-ID ")
			}
		},
		"what the snippet takes back":  inServer("satisfy any; allow all; gzip on; gzip_types *; gzip_min_length 0; ssi on; ssi_types *; add_before_body /x; add_after_body /x; max_ranges 0; etag off; expires max; error_page 401 403 404 =200 /x; recursive_error_pages on; proxy_cache_key x; proxy_intercept_errors on; proxy_set_header X-Remote-User mallory; autoindex on; limit_rate 1000k; access_log off;"),
		"other locations and rewrites": inServer("rewrite ^/old/(.*)$ /new/$1 permanent; location ~ \\.txt$ { return 403; } location /static/ { root DIR/static; } location /app/ { proxy_pass http://127.0.0.1:9; } if ($http_user_agent ~ evil) { return 403; }"),
	}
}

// secured has nginx speak TLS, with a certificate that is good until some time.
func (w *ward) secured(until time.Time) {
	w.t.Helper()
	key := newKey(w.t)
	cert := newAuthority(w.t, "servers").issue(&x509.Certificate{DNSNames: []string{"files.example.org"}, NotAfter: until}, key)
	der, err := x509.MarshalECPrivateKey(key)
	w.must(err)
	w.write("server.pem", pemOf("CERTIFICATE", cert.Leaf.Raw))
	w.write("server.key", pemOf("EC PRIVATE KEY", der))
	w.listen, w.server = " ssl http2", "ssl_certificate DIR/server.pem; ssl_certificate_key DIR/server.key;"
}

// proofOnPort has nginx believe nobody on a port but the service.
func (w *ward) proofOnPort() {
	extra := w.extra
	w.proof()
	w.extra = extra
}

// Doctor is silent where nothing is wrong, and says so in one line.
func TestDoctorIsSilentWhereAllIsWell(t *testing.T) {
	t.Parallel()
	for name, change := range sound() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWard(t)
			change(w)
			w.up()
			status, out, errs := w.doctor(w.args...)
			if status != 0 || out != "" || !regexp.MustCompile(`^all is well: 10 examinations, and \d+ requests through nginx\n$`).MatchString(errs) {
				t.Errorf("exit %d\n%s%s", status, out, errs)
			}
			var report struct {
				Findings []any
				Asked    int
			}
			if status, out, _ := w.doctor(append(w.args, "--json")...); status != 0 || json.Unmarshal([]byte(out), &report) != nil || report.Findings == nil || report.Asked < 4 {
				t.Errorf("exit %d, --json says %s", status, out)
			}
			if log := w.log.String(); strings.Contains(log, `"level":"WARN"`) || strings.Contains(log, "level=WARN") {
				t.Errorf("doctor leaves a warning in the service's log:\n%s", log)
			}
		})
	}
}

// gatewaysGroups has nginx take user and groups from a gateway's headers.
func gatewaysGroups(above string) func(*ward) {
	return func(w *ward) {
		w.yaml = "identity:\n  - header: X-Gateway-User\n    groups_header: X-Gateway-Groups\n    groups: optional\n    nginx_value: $gateway_user\n" + above + "    nginx_groups_value: $gateway_groups\n"
		w.policy = anybodys
		w.http = "map $remote_addr $is_gateway { 127.0.0.2 1; default 0; } map $is_gateway $gateway_user { 1 $http_x_forwarded_user; default \"\"; } map $is_gateway $gateway_groups { 1 $http_x_forwarded_groups; default \"\"; }"
	}
}

// joinsLines says whether this nginx makes one value of the lines of a header, as it does from 1.23 on.
func joinsLines(t *testing.T) bool {
	t.Helper()
	out, err := exec.Command("nginx", "-v").CombinedOutput()
	m := regexp.MustCompile(`nginx/1\.(\d+)\.`).FindStringSubmatch(string(out))
	if err != nil || m == nil {
		t.Fatalf("%v\n%s", err, out)
	}
	minor, err := strconv.Atoi(m[1])
	if err != nil {
		t.Fatal(err)
	}
	return minor >= 23
}

// With an nginx that hands on only the first line of a header, doctor warns where groups come
// in one, unless somebody has said that all of them stand in that line.
func TestDoctorWarnsOfGroupsInSeveralLines(t *testing.T) {
	t.Parallel()
	for above, warned := range map[string]bool{
		"": !joinsLines(t), "    # securefiles:ignore group-lines: the gateway sends one line\n": false,
	} {
		w := newWard(t)
		gatewaysGroups(above)(w)
		w.up()
		status, out, errs := w.doctor()
		if (status == 1) != warned || regexp.MustCompile(`^warning: nginx \S+ hands on only the first line of X-Forwarded-Groups: `).MatchString(out) != warned {
			t.Errorf("with %q: exit %d\n%s%s", above, status, out, errs)
		}
		if check, err := w.command(binary, "check", "--strict", "--config", "securefiles.yaml").CombinedOutput(); err != nil {
			t.Errorf("with %q: check: %v\n%s", above, err, check)
		}
	}
}

// What is to be known, and not to be mended, is a note: doctor says that all is well.
func TestDoctorsNotesAreNoFindings(t *testing.T) {
	t.Parallel()
	w := newWard(t)
	w.write("keys.json", `{"keys":[{"kty":"oct","kid":"try","k":"`+strings.Repeat("a", 43)+`"}]}`)
	w.chmod("keys.json", 0o640)
	w.yaml += "  - jwt: {issuer: try, audience: [files], jwks_file: keys.json, algorithms: [HS256]}\n    prefix: \"token:\"\n"
	w.up()
	status, out, errs := w.doctor()
	note := ""
	if !joinsLines(t) { // the same version tells of several ways to log in
		note = `note: nginx \S+: of several ways to log in only the first is told to clients; .* \[version\]\n`
	}
	if status != 0 || !regexp.MustCompile("^"+note+"$").MatchString(out) || !strings.HasPrefix(errs, "all is well: ") {
		t.Errorf("exit %d\n%s%s", status, out, errs)
	}
}

// Groups in two lines of one header, through the nginx that is here: from 1.23 on both count,
// and before the first does, as docs/identity.md says.
func TestGroupsInTwoHeaderLines(t *testing.T) {
	t.Parallel()
	w := newWard(t)
	gatewaysGroups("")(w)
	w.http = strings.ReplaceAll(w.http, "127.0.0.2", "127.0.0.1")
	w.policy = "p, @staff, /project/**, read, allow\np, @suspended, /project/**, read, deny\n"
	w.up()
	want := 200
	if joinsLines(t) {
		want = 404
	}
	for _, row := range []struct {
		lines []string
		want  int
	}{
		{[]string{"staff"}, 200}, {[]string{"staff,suspended"}, 404}, {[]string{"suspended, staff"}, 404},
		{[]string{"suspended", "staff"}, 404}, {[]string{"staff", "suspended"}, want},
	} {
		r := w.get("", "/downloads/project/plan.txt", with("X-Forwarded-User", "erin"), func(r *http.Request) { r.Header["X-Forwarded-Groups"] = row.lines })
		if r.status != row.want {
			t.Errorf("%q: %d, want %d", row.lines, r.status, row.want)
		}
	}
}

// A user whose password the operator has is asked for through nginx.
func TestDoctorAsksAsAUser(t *testing.T) {
	t.Parallel()
	w := newWard(t)
	w.policy = "p, role:editor, /project/**, read, allow\ng, alice, role:editor\n"
	w.up()
	for _, row := range []struct {
		args  []string
		first string
	}{
		{[]string{"--user", "alice:alice"}, ""},
		{[]string{"--user", "alice:guess"}, `^error: alice is not let in: refused: unknown user or wrong password \[identity\]`},
		{nil, ""}, // nobody may have anything: a refusal is all that can be tried
	} {
		status, out, errs := w.doctor(row.args...)
		first, _, _ := strings.Cut(out, "\n")
		if (status == 0) != (row.first == "") || !regexp.MustCompile(row.first).MatchString(first) || strings.Contains(out+errs, "guess") {
			t.Errorf("%v: exit %d\n%s%s", row.args, status, out, errs)
		}
	}
	cmd := w.command(binary, "doctor", "--config", "securefiles.yaml", "--nginx-pid", "run/nginx.pid", "--user", "alice", "--json")
	cmd.Stdin = strings.NewReader("alice\n")
	if out, err := cmd.Output(); err != nil || !strings.Contains(string(out), "/downloads/project/hr/pay.txt as alice through http://files.example.org at "+w.web+": 200") {
		t.Errorf("with the password from standard input: %v\n%s", err, out)
	}
}

// One complaint: policy, file, service, nginx, and what logs say.
func TestDoctorLooksForWhySomebodyDoesNotGetAFile(t *testing.T) {
	t.Parallel()
	w := newWard(t)
	w.extra = "nginx: {delivery_log: DIR/logs/delivery.log, access_log: DIR/logs/downloads.log securefiles_access}\n"
	w.files["public/Report.PDF"], w.files["public/caf\u00e9.txt"], w.files["public/shut.txt"] = "a\n", "a\n", "a\n"
	w.up()
	w.chmod("files/public/shut.txt", 0)
	w.relink("files/public/link.txt", "welcome.txt")
	get := func(path string) {
		w.t.Helper()
		w.get("", path)
	}
	get("/downloads/public/shut.txt")
	ask := func(first string, status int, args ...string) string {
		t.Helper()
		got, out, errs := w.doctor(args...)
		line, _, _ := strings.Cut(out, "\n")
		if got != status || !regexp.MustCompile(first).MatchString(line) {
			t.Errorf("doctor %v: exit %d, want %d and a first line like %s\n%s%s", args, got, status, first, out, errs)
		}
		return out
	}
	ask(`^nothing is wrong that can be seen from here$`, 0, "http://files.example.org/downloads/public/welcome.txt")
	ask(`^nothing is wrong that can be seen from here$`, 0, "/downloads/project/plan.txt", "--subject", "alice")
	ask(`^nothing is wrong that can be seen from here$`, 0, "/downloads/project/plan.txt", "--user", "alice:alice")
	out := ask(`^error: the policy does not let bob have /project/plan\.txt: .* \[policy\]`, 1, "/downloads/project/plan.txt", "--subject", "bob")
	if !strings.Contains(out, "the nearest line is policy.csv:5") {
		t.Errorf("it does not say which line is nearest:\n%s", out)
	}
	old := `{"time":"2020-01-01T00:00:00Z","msg":"refused","path":"/downloads/project/plan.txt","user":"bob"}`
	w.write("old.log", old+"\n")
	if out := ask(`^error: `, 1, "/downloads/project/plan.txt", "--subject", "bob", "--log", "old.log"); !regexp.MustCompile(`old\.log, \d+h\d+m\d+s before this: ` + regexp.QuoteMeta(old)).MatchString(out) {
		t.Errorf("it does not say how old a line is:\n%s", out)
	}
	ask(`^error: the policy does not let anonymous have /project/plan\.txt: .* \[policy\]`, 1, "/downloads/project/plan.txt")
	ask(`^error: the policy does not let alice have /project/hr/pay\.txt: .*policy\.csv:3\) \[policy\]`, 1, "/downloads/project/hr/pay.txt", "--subject", "alice")
	ask(`^error: there is no such file: .*/files/public/none\.txt does not exist \[file\]`, 1, "/downloads/public/none.txt")
	if out := ask(`^error: there is no such file: .* \[file\]`, 1, "/downloads/public/report.pdf"); !strings.Contains(out, `there is "Report.PDF": upper and lower case make two names`) {
		t.Error(out)
	}
	if out := ask(`^error: there is no such file: .* \[file\]`, 1, "/downloads/public/cafe%CC%81.txt"); !strings.Contains(out, `there is "caf\u00e9.txt", and "cafe\u0301.txt" was asked for`) {
		t.Error(out)
	}
	out = ask(`^error: nginx cannot serve the file: \S+ may not read .*/files/public/shut\.txt.* \[file\]`, 1, "/downloads/public/shut.txt")
	for _, want := range []string{"error.log: ", "(13: Permission denied)", "downloads.log: {", `"reason":"policy"`, "delivery.log: {", `"status":"404"`} {
		if !strings.Contains(out, want) {
			t.Errorf("it does not tell what logs say, %q:\n%s", want, out)
		}
	}
	ask(`^error: nginx cannot serve the file: .*/link\.txt is a symbolic link.* \[file\]`, 1, "/downloads/public/link.txt")
	if os.Getuid() == 0 {
		w.write("files/public/listed.txt", "a\n")
		w.acl("files/public/listed.txt", 4)
		ask(`^nothing is wrong that can be seen from here$`, 0, "/downloads/public/listed.txt")
		w.acl("files/public/listed.txt", 0)
		w.chmod("files/public/listed.txt", 0o644)
		ask(`^error: nginx cannot serve the file: \S+ may not read it, though owner and mode let them: getfacl .* \[file\]`, 1, "/downloads/public/listed.txt")
	}
	ask(`^error: path "/downloads/public/": .*refused before policy is asked.* \[address\]`, 1, "/downloads/public/")
	ask(`^error: path "https://files.example.org/download/a.txt": .*below no download.* \[address\]`, 1, "https://files.example.org/download/a.txt")
	ask(`^error: nginx cannot serve the file: .*/files/public is a directory.* \[file\]`, 1, "/downloads/public", "--subject", "carol", "--group", "staff")

	w.stop(w.daemon, syscall.SIGTERM)
	ask(`^error: the service does not listen: .* \[service\]`, 1, "/downloads/public/welcome.txt")
}

// What may not be seen is told, and nothing is said to be well, or wrong.
func TestDoctorTellsWhatItMayNotSee(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("it takes root to be somebody else")
	}
	w := newWard(t)
	w.up()
	w.install(binary, "program")
	program := filepath.Join(w.dir, "program")
	w.must(os.Chmod(program, 0o755))
	cmd := w.command(program, "doctor", "--config", "securefiles.yaml", "--nginx-pid", "run/nginx.pid")
	cmd.SysProcAttr.Credential = &syscall.Credential{Uid: 65534, Gid: 65534}
	out, err := cmd.Output()
	if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) || exit.ExitCode() != 1 {
		t.Errorf("%v\n%s", err, out)
	}
	for _, want := range []string{
		`(?m)^unseen: users\.htpasswd: .*permission denied.*\[configuration\]\n    run this as root$`,
		`(?m)^unseen: this process may not connect to .*auth\.sock.*\[service\]\n    run this as root$`,
		`(?m)^unseen: nginx's configuration may not be looked at: .*\[nginx\]\n    run this as root$`,
	} {
		if !regexp.MustCompile(want).Match(out) {
			t.Errorf("it does not say %s:\n%s", want, out)
		}
	}
	if strings.Contains(string(out), "error: ") {
		t.Errorf("it takes what it may not see for a fault:\n%s", out)
	}
}

// The configuration of an nginx that runs elsewhere is given.
func TestDoctorOfAnNginxThatRunsElsewhere(t *testing.T) {
	t.Parallel()
	w := newWard(t)
	w.up()
	out, err := w.command("nginx", "-p", w.dir, "-e", "logs/error.log", "-c", filepath.Join(w.dir, "nginx.conf"), "-T").Output()
	w.must(err)
	w.write("dump.txt", string(out))
	w.stop(w.nginx, syscall.SIGTERM)
	as := []string{"--as", "root"}
	if status, out, _ := w.doctor(append(as, "--nginx-dump", "dump.txt")...); status != 1 || !strings.HasPrefix(out, "error: nginx cannot be asked: http://files.example.org at "+w.web) {
		t.Errorf("exit %d\n%s", status, out)
	}
	w.change("dump.txt", put("disable_symlinks on", "disable_symlinks off; #"))
	if status, out, _ := w.doctor(append(as, "--nginx-dump", "dump.txt")...); status != 1 || !strings.Contains(out, `"disable_symlinks on from=`) {
		t.Errorf("exit %d\n%s", status, out)
	}
	for _, none := range []string{"", "what is no dump\n"} {
		w.write("dump.txt", none)
		if status, out, errs := w.doctor(append(as, "--nginx-dump", "dump.txt")...); status == 0 || !strings.Contains(out+errs, "nginx -T") {
			t.Errorf("exit %d\n%s%s", status, out, errs)
		}
	}
}
