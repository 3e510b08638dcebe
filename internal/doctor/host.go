package doctor

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"securefiles/internal/access"
	"securefiles/internal/servable"
)

// configuration is what check says.
func (p *patient) configuration(ctx context.Context) []Finding {
	if p.Check == nil {
		return nil
	}
	return p.Check(ctx)
}

// lookForUser finds out whom files are read as.
func (p *patient) lookForUser() {
	if p.opts.As != "" {
		if u, err := servable.LookupUser(p.opts.As); err == nil {
			p.user = &u
		}
		p.userFrom = "--as"
		return
	}
	if p.nginx != nil && p.nginx.master != nil && len(p.nginx.master.workers) > 0 {
		w := p.nginx.master.workers[0]
		p.user, p.userFrom = &w.user, fmt.Sprintf("process %d", w.pid)
		return
	}
	if u, err := servable.NginxUser(); err == nil {
		p.user, p.userFrom = &u, "a guess"
	}
}

const (
	maxProblems = 100
	walkFor     = 10 * time.Second
)

// root looks at the directories that nginx serves.
func (p *patient) root(ctx context.Context) []Finding {
	var all list
	if p.user == nil {
		all.add(Unseen, "nobody knows as which user nginx reads files", "say it with --as USER")
	}
	for _, d := range p.Downloads {
		if d.Root == "" {
			continue // check says so
		}
		info, err := os.Stat(d.Root)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			all.add(Error, fmt.Sprintf("%s, the root of download %s, is not there: nginx answers 404 for each of its files", d.Root, d.Name), "make the directory, or correct `root`")
			continue
		case errors.Is(err, fs.ErrPermission):
			all.add(Unseen, fmt.Sprintf("%s may not be looked at", d.Root), "run this as root")
			continue
		case err != nil:
			all.add(Error, fmt.Sprintf("the root of download %s: %v", d.Name, err), "")
			continue
		case !info.IsDir():
			all.add(Error, fmt.Sprintf("%s, the root of download %s, is no directory", d.Root, d.Name), "name the directory that holds the files")
			continue
		}
		all = append(all, p.mounted(d)...)
		all = append(all, p.readable(ctx, d)...)
		all = append(all, contextOf(d.Root)...)
		all = append(all, p.sameDirectory(d)...)
	}
	return all
}

// readable looks whether nginx's user can read what is there.
func (p *patient) readable(ctx context.Context, d Download) []Finding {
	var all list
	if p.user == nil {
		return nil
	}
	ctx, stop := context.WithTimeout(ctx, walkFor)
	defer stop()
	report, err := servable.Walk(ctx, d.Root, &servable.Options{User: *p.user, FollowSymlinks: d.FollowSymlinks, Limit: maxProblems})
	problems := report.Problems
	if report.ACLs > 0 {
		// Owners and modes are not all: the kernel knows.
		first, n, err := refusedBelow(ctx, *p.user, d.Root)
		problems = slices.DeleteFunc(problems, func(one servable.Problem) bool { return err == nil && strings.Contains(one.Reason, " may not ") })
		switch {
		case err != nil:
			all.add(Unseen, fmt.Sprintf("what access control lists say of %s was not looked at: %d files and directories have one", d.Root, report.ACLs), "run this as root")
		case n > 1:
			all.add(Warning, fmt.Sprintf("%s may not read %s, and %d more, by their modes or access control lists", p.user.Name, first, n-1), "getfacl FILE shows them; setfacl -R -m u:"+p.user.Name+":rX "+d.Root)
		case n == 1:
			all.add(Warning, fmt.Sprintf("%s may not read %s, by its mode or access control list", p.user.Name, first), "getfacl FILE shows it; setfacl -m u:"+p.user.Name+":rX FILE")
		}
	}
	for _, one := range problems {
		if one.Path == "/" {
			all.add(Error, fmt.Sprintf("nginx can serve nothing of %s: %s", d.Root, one.Reason), fmt.Sprintf("namei -l %s shows the way; chgrp it to a group of %s, and chmod g+x each directory on it, g+rX the files", d.Root, p.user.Name))
			return all
		}
	}
	if len(problems) > 0 {
		one, more := problems[0], ""
		if others := len(problems) - 1 + report.More; others > 0 {
			more = fmt.Sprintf(" (and %d more)", others)
		}
		all.add(Warning, fmt.Sprintf("nginx cannot serve %s%s: %s%s", d.Root, one.Path, one.Reason, more), "securefiles check --files lists all; docs/troubleshooting.md has the mends")
	}
	if err != nil && ctx.Err() != nil {
		all.add(Unseen, fmt.Sprintf("%s holds so many files that only %d were looked at", d.Root, report.Files), "securefiles check --files looks at all")
	}
	return all
}

// mounted looks whether a directory is where another file system should be.
func (p *patient) mounted(d Download) []Finding {
	var all list
	mounts, err := os.ReadFile(filepath.Join(p.opts.Proc, "self/mountinfo"))
	if err != nil {
		return nil
	}
	type mount struct{ at, kind, options string }
	var now []mount
	unescape := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)
	for line := range strings.Lines(string(mounts)) {
		before, after, _ := strings.Cut(line, " - ")
		fields, rest := strings.Fields(before), strings.Fields(after)
		if len(fields) >= 6 && len(rest) >= 3 {
			now = append(now, mount{unescape.Replace(fields[4]), rest[0], rest[2]})
		}
	}
	root := d.Root
	if target, err := filepath.EvalSymlinks(root); err == nil {
		root = target
	}
	holds := func(at string) bool { return at == "/" || root == at || strings.HasPrefix(root, at+"/") }
	if table, err := os.ReadFile(p.opts.Mounts); err == nil {
		for line := range strings.Lines(string(table)) {
			fields := strings.Fields(line)
			if len(fields) < 4 || strings.HasPrefix(fields[0], "#") || !strings.HasPrefix(fields[1], "/") {
				continue
			}
			at := filepath.Clean(unescape.Replace(fields[1]))
			if holds(at) && at != "/" && !slices.ContainsFunc(now, func(m mount) bool { return m.at == at }) {
				all.add(Error, fmt.Sprintf("%s is not mounted, and %s, the root of download %s, is in it", at, d.Root, d.Name), fmt.Sprintf("mount %s; nginx.service should have RequiresMountsFor=%s", at, d.Root))
			}
		}
	}
	var on mount
	for _, m := range now {
		if holds(m.at) && len(m.at) >= len(on.at) {
			on = m
		}
	}
	if strings.HasPrefix(on.kind, "fuse.") && !strings.Contains(on.options, "allow_other") {
		all.add(Error, fmt.Sprintf("%s is on %s (%s), mounted without allow_other: nobody but who mounted it can read it", d.Root, on.at, on.kind), "mount it with allow_other")
	}
	return all
}

// enforced says that SELinux decides.
const enforced = "/sys/fs/selinux/enforce"

// contextOf looks at what SELinux would say, where it decides.
func contextOf(root string) []Finding {
	var all list
	if text, err := os.ReadFile(enforced); err != nil || strings.TrimSpace(string(text)) != "1" {
		return nil
	}
	label := make([]byte, 256)
	n, err := unix.Getxattr(root, "security.selinux", label)
	if err != nil {
		return nil
	}
	if kind := contextType(strings.TrimRight(string(label[:n]), "\x00")); !isServed(kind) {
		all.add(Error, fmt.Sprintf("SELinux keeps nginx from %s, which is %s", root, kind), fmt.Sprintf("semanage fcontext -a -t httpd_sys_content_t '%s(/.*)?' && restorecon -R %[1]s", root))
	}
	return all
}

// contextType is the type in a context, `system_u:object_r:TYPE:s0`.
func contextType(label string) string {
	fields := strings.Split(label, ":")
	if len(fields) < 3 {
		return ""
	}
	return fields[2]
}

// isServed reports whether the reference policy lets httpd_t, as which nginx runs, read
// files of a type; of a type that is none it does not know.
func isServed(kind string) bool {
	return kind == "" || strings.HasPrefix(kind, "httpd_") || kind == "public_content_t" || kind == "public_content_rw_t" || kind == "usr_t"
}

// sameDirectory looks whether nginx sees the directory that this process does.
func (p *patient) sameDirectory(d Download) []Finding {
	var all list
	if p.nginx == nil || p.nginx.master == nil || len(p.nginx.master.workers) == 0 {
		return nil
	}
	pid := p.nginx.master.workers[0].pid
	if other, known := p.proc.strangers(pid); !known || !other {
		return nil
	}
	own, err := os.Stat(d.Root)
	if err != nil {
		return nil
	}
	its, err := os.Stat(filepath.Join(p.proc.path(pid, "root"), d.Root))
	switch {
	case errors.Is(err, fs.ErrPermission):
		all.add(Unseen, "nginx sees other files than this process, which may not look at them", "run this as root")
	case errors.Is(err, fs.ErrNotExist):
		all.add(Error, fmt.Sprintf("nginx does not see %s: it is in a container, or its unit hides the directory", d.Root), "give it to the container, or look at ProtectHome=, PrivateTmp= and InaccessiblePaths= in nginx's unit")
	case err == nil && !os.SameFile(own, its):
		all.add(Error, fmt.Sprintf("nginx sees another directory as %s: it is in a container, or its unit has PrivateTmp= or the like", d.Root), "name a directory that both see")
	}
	return all
}

// A readiness is what /readyz answers, as far as it is looked at.
type readiness struct {
	Ready  bool   `json:"ready"`
	Reason string `json:"reason"`
	Policy struct {
		Stale bool   `json:"stale"`
		Error string `json:"error"`
	} `json:"policy"`
	Loaded []struct {
		Name  string `json:"name"`
		Stale bool   `json:"stale"`
		Error string `json:"error"`
	} `json:"loaded"`
	Configuration struct {
		File    string `json:"file"`
		Restart []struct {
			Key   string `json:"key"`
			Place string `json:"place"`
		} `json:"restart"`
	} `json:"configuration"`
}

// dial connects to where somebody listens.
func dial(ctx context.Context, a Address) (net.Conn, error) { return dialFrom(ctx, "", a) }

// dialFrom is dial from an address of one's own, to others of IPv4's loopback.
func dialFrom(ctx context.Context, from string, a Address) (net.Conn, error) {
	ctx, stop := context.WithTimeout(ctx, patience)
	defer stop()
	var d net.Dialer
	if from != "" && strings.HasPrefix(a.Address, "127.") {
		d.LocalAddr = &net.TCPAddr{IP: net.ParseIP(from)}
	}
	return d.DialContext(ctx, a.Network, a.Address)
}

// get asks an address for a path, by HTTP.
func get(ctx context.Context, a Address, path string) (*http.Response, []byte, error) {
	ctx, stop := context.WithTimeout(ctx, patience)
	defer stop()
	conn, err := dial(ctx, a)
	if err != nil {
		return nil, nil, err
	}
	defer conn.Close() // one request a connection
	if deadline, ok := ctx.Deadline(); ok {
		_ = conn.SetDeadline(deadline) // or it takes as long as it takes
	}
	if _, err := fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", path); err != nil {
		return nil, nil, err
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close() // its connection is closed
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	return resp, body, err
}

const startService = "systemctl status securefiles, and journalctl -u securefiles, say why; systemctl start securefiles"

// refuses reports whether nobody listens for nginx.
func (p *patient) refuses(ctx context.Context) bool {
	conn, err := dial(ctx, p.Listen)
	if err == nil {
		_ = conn.Close() // it was only tried
	}
	return errors.Is(err, syscall.ECONNREFUSED)
}

// service asks the service.
func (p *patient) service(ctx context.Context) []Finding {
	var all list
	where := p.Listen.Address
	conn, err := dial(ctx, p.Listen)
	switch {
	case err == nil:
		_ = conn.Close() // it was only tried
	case errors.Is(err, fs.ErrPermission):
		all.add(Unseen, fmt.Sprintf("this process may not connect to %s: whether the service answers there is not known", where), "run this as root")
	case errors.Is(err, fs.ErrNotExist):
		if _, err := os.Stat(filepath.Dir(where)); errors.Is(err, fs.ErrNotExist) {
			all.add(Error, fmt.Sprintf("the service does not listen: %s, the directory of its socket, is not there", filepath.Dir(where)), "make it, the service's own; systemd does by RuntimeDirectory=. Then "+startService)
			return all
		}
		all.add(Error, fmt.Sprintf("the service does not listen: there is no socket %s", where), startService)
		return all
	case errors.Is(err, syscall.ECONNREFUSED):
		all.add(Error, fmt.Sprintf("the service does not listen on %s: the connection is refused", where), startService)
		return all
	default:
		all.add(Error, fmt.Sprintf("the service cannot be reached: %v", err), startService)
		return all
	}
	if err == nil {
		resp, _, err := get(ctx, p.Listen, "/hello")
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			all.add(Error, fmt.Sprintf("the service does not answer on %s: it listens, and says nothing for %v", where, patience), "systemctl restart securefiles; journalctl -u securefiles may say why")
			return all
		case err != nil && p.refuses(ctx): // systemd has given up starting it meanwhile
			all.add(Error, fmt.Sprintf("the service does not listen on %s: the connection is refused", where), startService)
			return all
		case err != nil:
			all.add(Error, fmt.Sprintf("who listens on %s does not answer as the service does: %v", where, err), "look who it is: ss -lpn")
			return all
		case resp.Header.Get("X-Securefiles-Reason") == "":
			all.add(Error, fmt.Sprintf("another program than the service answers on %s, and nginx believes it", where), "look who it is: ss -lpn; stop it, or have the service listen on a unix socket in a directory of its own")
			return all
		}
	}
	all = append(all, p.admin(ctx)...)
	for _, one := range p.Asked {
		conn, err := dial(ctx, one.Address)
		if err != nil {
			all.add(Error, fmt.Sprintf("%s cannot be reached: %v", one.What, err), "start it, or correct the address; until then callers get 503")
			continue
		}
		_ = conn.Close() // it was only tried
	}
	return all
}

// admin asks what the service says of itself.
func (p *patient) admin(ctx context.Context) []Finding {
	var all list
	resp, body, err := get(ctx, p.Admin, "/readyz")
	if errors.Is(err, fs.ErrPermission) {
		all.add(Unseen, fmt.Sprintf("this process may not connect to %s, where the service tells of itself", p.Admin.Address), "run this as root")
		return all
	}
	var ready readiness
	if err == nil && json.Unmarshal(body, &ready) != nil {
		err = fmt.Errorf("it answers %d, and not as the service does", resp.StatusCode)
	}
	if err != nil {
		all.add(Error, fmt.Sprintf("the service does not answer operators on %s: %v", p.Admin.Address, err), "the service that runs has another `admin`: systemctl restart securefiles")
		return all
	}
	if file := ready.Configuration.File; p.File != "" && file != "" && file != p.File {
		all.add(Error, fmt.Sprintf("the service that answers on %s runs with %s, and not with %s", p.Admin.Address, file, p.File), "name the file that is meant with --config FILE, or restart the service with it")
		return all
	}
	for _, r := range ready.Configuration.Restart {
		all.add(Error, fmt.Sprintf("%s, at %s, was edited, and counts after a restart", r.Key, r.Place), "systemctl restart securefiles")
	}
	if !ready.Ready {
		all.add(Error, "the service is not ready: "+ready.Reason, startService)
	}
	for _, one := range ready.Loaded {
		if one.Stale && one.Name != "policy" {
			all.add(Error, fmt.Sprintf("the service goes on with old %s: %s", one.Name, one.Error), "mend the file; it is loaded by itself")
		}
	}
	if ready.Policy.Stale {
		all.add(Error, "the service goes on with an old policy, because the new one is refused: "+ready.Policy.Error, "securefiles check says what is wrong; once it is mended it is loaded by itself")
	}
	if _, body, err := get(ctx, p.Admin, "/version"); err == nil {
		var is struct{ Version string }
		if json.Unmarshal(body, &is) == nil && is.Version != "" && p.Version != "" && is.Version != p.Version {
			all.add(Warning, fmt.Sprintf("the service that runs is version %s, and this program %s", is.Version, p.Version), "systemctl restart securefiles")
		}
	}
	return all
}

// socket looks whether nginx's user may connect.
func (p *patient) socket(context.Context) []Finding {
	var all list
	if p.Listen.Network != "unix" || p.sick("service") {
		return nil
	}
	path := p.Listen.Address
	if p.user == nil {
		return nil // root says so
	}
	if why := servable.Socket(path, *p.user); why != "" {
		if lacks := p.notYetIn(path); lacks != "" {
			all.add(Error, fmt.Sprintf("nginx cannot ask the service: %s, though %s is in group %s: nginx was started before", why, p.user.Name, lacks), "systemctl restart nginx")
			return all
		}
		group := "GROUP"
		if info, err := os.Stat(path); err == nil {
			group = access.Group(info)
		}
		all.add(Error, "nginx cannot ask the service: "+why, fmt.Sprintf("usermod -aG %s %s && systemctl restart nginx; the socket has mode 0660, and each directory above must let %[2]s through", group, p.user.Name))
		return all
	}
	if len(p.PeerUIDs) > 0 && !slices.Contains(p.PeerUIDs, int(p.user.UID)) {
		all.add(Error, fmt.Sprintf("nginx cannot ask the service: %s, uid %d, is not in listen_peer_uids", p.user.Name, p.user.UID), "add it, and restart the service")
	}
	if info, err := os.Stat(path); err == nil && info.Mode().Perm()&0o002 != 0 {
		all.add(Warning, fmt.Sprintf("anybody on this machine may ask the service: %s has mode %04o", path, info.Mode().Perm()), "restart the service, which makes it 0660; with systemd, SocketMode=0660")
	}
	return all
}

// notYetIn names the group of the socket, if the user is in it by now and the process is
// not.
func (p *patient) notYetIn(path string) string {
	info, err := os.Stat(path)
	if err != nil {
		return ""
	}
	now, err := servable.LookupUser(fmt.Sprint(p.user.UID))
	if err != nil || servable.Socket(path, now) != "" {
		return ""
	}
	return access.Group(info)
}
