package doctor

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestReleasesThatLackAFix(t *testing.T) {
	f := fix{since: release{1, 27, 4}, stable: release{1, 26, 3}}
	for text, want := range map[string]bool{"1.22.1": true, "1.26.2": true, "1.26.3": false, "1.26.10": false, "1.27.3": true, "1.27.4": false, "1.28.0": false, "2.0.0": false} {
		r, ok := parseRelease(text)
		if !ok || f.lacks(r) != want {
			t.Errorf("%s lacks it: %v, want %v", text, f.lacks(r), want)
		}
	}
	for _, text := range []string{"", "1.22", "x1.2.3", "99999999999999999999.1.1"} {
		if r, ok := parseRelease(text); ok {
			t.Errorf("%q is %v", text, r)
		}
	}
}

// What matters of a version depends on what the configuration uses.
func TestVersionIsTakenWithWhatIsUsed(t *testing.T) {
	told := changes() // of this machine's nginx, where it has one
	for _, row := range []struct {
		version, conf string
		challenges    int
		want          []string
	}{
		{"1.31.4", "http { server { ssl_verify_client on; dav_methods PUT; } }", 2, nil},
		{"1.16.0", "http { }", 1, []string{"CVE-2019-20372", "control characters"}},
		{"1.22.1", "http { }", 2, []string{"only the first is told"}},
		{"1.26.2", "http { server { ssl_verify_client optional; } }", 1, []string{"CVE-2025-23419"}},
		{"1.26.2", "http { server { ssl_verify_client off; } }", 1, nil},
		{"1.25.4", "http { server { listen 443 quic; } }", 1, []string{"CVE-2024-31079"}},
		{"1.28.2", "http { server { location /x/ { dav_methods PUT; } } }", 1, []string{"CVE-2026-27654"}},
		{"1.30.0", "http { server { rewrite ^/(.*)/(.*)$ /$2?a=$1 last; } }", 1, []string{"CVE-2026-42945", "CVE-2026-9256"}},
		{"1.30.0", "http { server { rewrite ^/x$ /y last; } }", 1, nil},
	} {
		n := &nginx{}
		n.read(fileMark + "/etc/nginx/nginx.conf:\n" + row.conf)
		n.master, n.version = &master{}, row.version
		p := &patient{System: &System{Challenges: row.challenges}, nginx: n}
		var want []string
		for _, w := range row.want {
			if !strings.HasPrefix(w, "CVE") || !strings.Contains(told, w) {
				want = append(want, w)
			}
		}
		got := p.version(t.Context())
		if len(got) != len(want) {
			t.Errorf("%s with %s: %v, want %q", row.version, row.conf, got, want)
			continue
		}
		for i := range want {
			severity := Warning
			if want[i] == "only the first is told" { // nobody has to do anything
				severity = Note
			}
			if !strings.Contains(got[i].Problem, want[i]) || got[i].Severity != severity {
				t.Errorf("%s with %s: %v, want %q", row.version, row.conf, got[i], want[i])
			}
		}
	}
}

// Before 1.23 nginx's variable of a header holds the first of its lines.
func TestGroupsOfWhichNginxMayLoseALine(t *testing.T) {
	const gateway = "http { map $realip_remote_addr $is_gateway { 10.0.0.5 1; } map $is_gateway $gateway_groups { 1 $http_x_forwarded_groups; default ''; } server { location = " + question + " { } %s } }"
	for _, row := range []struct{ version, conf, variable, want string }{
		{"1.22.1", gateway, "$gateway_groups", "nginx 1.22.1 hands on only the first line of X-Forwarded-Groups"},
		{"1.23.0", gateway, "$gateway_groups", ""},
		{"1.22.1", gateway, "$ssl_client_s_dn", ""},
		{"1.22.1", "http { map $is_gateway $gateway_groups { 1 \"a,${http_remote_groups}\"; } }", "$gateway_groups", "Remote-Groups"},
		{"1.22.1", "http { map $http_remote_groups $gateway_groups { ~^(.*)$ $1; } }", "$gateway_groups", "Remote-Groups"},
		{"1.22.1", "http { map $a $b { default $b; } map $b $a { default $a; } }", "$a", ""},
		{"1.22.1", "http { map $is_gateway $gateway_groups { 1 $http_x_forwarded_for; } }", "$gateway_groups", ""}, // it has joined that always
		{"1.22.1", "http { server { location = " + question + " { } set $g $h; auth_request_set $h $upstream_http_x_groups; } }", "$g", "X-Groups"},
	} {
		n := &nginx{}
		n.read(fileMark + "/etc/nginx/nginx.conf:\n" + strings.ReplaceAll(row.conf, "%s", ""))
		n.master, n.version = &master{}, row.version
		p := &patient{System: &System{GroupsFrom: []string{row.variable}}, nginx: n}
		var got []string
		for _, f := range p.version(t.Context()) {
			if f.Severity == Warning && strings.Contains(f.Remedy, "# securefiles:ignore group-lines: ") {
				got = append(got, f.Problem)
			}
		}
		if len(got) > 1 || (len(got) == 1) != (row.want != "") || row.want != "" && !strings.Contains(got[0], row.want) {
			t.Errorf("%s of %s with nginx %s: %q, want %q", row.variable, row.conf, row.version, got, row.want)
		}
	}
}

// Halves are printed again to where they are included, and a package's own, or a site's with
// other things in it, are not written over, nor included twice.
func TestWhereHalvesArePrintedAgain(t *testing.T) {
	const (
		http   = "upstream " + upstreamName + " { server unix:/x; }\n"
		server = "location = " + question + " { }\nlocation ^~ /downloads/ { }\n"
		reload = "nginx -t && systemctl reload nginx"
		usual  = "securefiles nginx --http > /etc/nginx/conf.d/securefiles.conf; securefiles nginx > /etc/nginx/snippets/securefiles.conf; "
	)
	for _, row := range []struct {
		name  string
		files [][2]string
		want  string
	}{
		{"none yet", [][2]string{{"/etc/nginx/nginx.conf", "http { }"}}, usual + reload},
		{"as in get started", [][2]string{{"/etc/nginx/nginx.conf", "http { include /etc/nginx/conf.d/*.conf; }"}, {"/etc/nginx/conf.d/securefiles.conf", http},
			{"/etc/nginx/conf.d/site.conf", "server { include snippets/securefiles.conf; }"}, {"/etc/nginx/snippets/securefiles.conf", server}}, usual + reload},
		{"elsewhere", [][2]string{{"/etc/nginx/nginx.conf", "http { include /srv/a.conf; server { include /srv/b.conf; } }"}, {"/srv/a.conf", http}, {"/srv/b.conf", server}},
			"securefiles nginx --http > /srv/a.conf; securefiles nginx > /srv/b.conf; " + reload},
		{"a package's", [][2]string{{"/etc/nginx/nginx.conf", "http { include /etc/nginx/conf.d/*.conf; }"},
			{"/etc/nginx/conf.d/site.conf", "include /usr/share/securefiles/nginx/http.conf; server { include /usr/share/securefiles/nginx/server.conf; }"},
			{"/usr/share/securefiles/nginx/http.conf", http}, {"/usr/share/securefiles/nginx/server.conf", server}},
			usual + "then take out /usr/share/securefiles/nginx/http.conf, include /etc/nginx/snippets/securefiles.conf in the place of /usr/share/securefiles/nginx/server.conf, and " + reload},
		{"pasted into the site", [][2]string{{"/etc/nginx/nginx.conf", "http { include /etc/nginx/conf.d/*.conf; }"}, {"/etc/nginx/conf.d/securefiles.conf", http},
			{"/etc/nginx/conf.d/site.conf", "server { " + server + " }"}},
			usual + "then include /etc/nginx/snippets/securefiles.conf in the place of what stands in /etc/nginx/conf.d/site.conf, and " + reload},
	} {
		var text strings.Builder
		for _, f := range row.files {
			text.WriteString(fileMark + f[0] + ":\n" + f[1] + "\n")
		}
		n := &nginx{}
		if n.read(text.String()); n.problem != "" {
			t.Fatal(n.problem)
		}
		p := &patient{System: &System{Downloads: []Download{{URL: "/downloads/"}}}, nginx: n}
		if got := p.printAgain(); got != row.want {
			t.Errorf("%s:\n%s\nwant\n%s", row.name, got, row.want)
		}
	}
}

func TestTypesThatNginxMayRead(t *testing.T) {
	for label, want := range map[string]bool{
		"system_u:object_r:httpd_sys_content_t:s0": true, "system_u:object_r:public_content_t:s0": true, "unconfined_u:object_r:user_home_t:s0": false,
		"system_u:object_r:var_t:s0:c1,c2": false, "unlabeled": true, "": true,
	} {
		if got := isServed(contextType(label)); got != want {
			t.Errorf("%s: %v", label, got)
		}
	}
}

func TestWhereToConnectToWhatListenNames(t *testing.T) {
	for text, want := range map[string]Address{
		"80": {"tcp", "127.0.0.1:80"}, "*:8080": {"tcp", "127.0.0.1:8080"}, "0.0.0.0:81": {"tcp", "127.0.0.1:81"}, "192.0.2.1": {"tcp", "192.0.2.1:80"},
		"[::]:443": {"tcp", "[::1]:443"}, "[2001:db8::1]": {"tcp", "[2001:db8::1]:80"}, "localhost:82": {"tcp", "localhost:82"}, "unix:/run/nginx.sock": {"unix", "/run/nginx.sock"},
	} {
		if got := listenAddress(text); got != want {
			t.Errorf("%s: %v, want %v", text, got, want)
		}
	}
}

func TestOptionsThatNginxWasStartedWith(t *testing.T) {
	for title, want := range map[string][]string{
		"": nil, "-g daemon on; master_process on;": {"-g", "daemon on; master_process on;"},
		"-p /srv/x -e logs/error.log -c /srv/x/nginx.conf -g daemon off;": {"-p", "/srv/x", "-e", "logs/error.log", "-c", "/srv/x/nginx.conf", "-g", "daemon off;"},
		"-g daemon off; -c /a": {"-g", "daemon off;", "-c", "/a"}, "-t -s reload": nil, "-c": nil,
	} {
		if got := startedWith(strings.Fields(title)); !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %q, want %q", title, got, want)
		}
	}
}

func TestADirectoryThatIsNotMounted(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, row := range []struct{ root, mounts, table, want string }{
		{"/srv/files", "1 0 8:1 / / rw - ext4 /dev/sda1 rw\n", "/dev/sdb1 /srv ext4 defaults 0 2\n", "/srv is not mounted"},
		{"/srv/files", "1 0 8:1 / / rw - ext4 /dev/sda1 rw\n2 1 8:17 / /srv rw - ext4 /dev/sdb1 rw\n", "/dev/sdb1 /srv ext4 defaults 0 2\n", ""},
		{"/srv/files", "1 0 8:1 / / rw - ext4 /dev/sda1 rw\n", "# /dev/sdb1 /srv ext4 defaults 0 2\nnone none swap sw 0 0\n/dev/sdb1 /srv/other ext4 defaults 0 2\n", ""},
		{"/srv/my files/a", "1 0 8:1 / / rw - ext4 /dev/sda1 rw\n", "/dev/sdb1 /srv/my\\040files ext4 defaults 0 2\n", "/srv/my files is not mounted"},
		{"/srv/files", "1 0 8:1 / / rw - ext4 /dev/sda1 rw\n2 1 0:40 / /srv/files rw - fuse.sshfs host:/ rw,user_id=1000\n", "", "without allow_other"},
		{"/srv/files", "1 0 8:1 / / rw - ext4 /dev/sda1 rw\n2 1 0:40 / /srv/files rw - fuse.sshfs host:/ rw,user_id=1000,allow_other\n", "", ""},
	} {
		write("proc/self/mountinfo", row.mounts)
		write("fstab", row.table)
		p := &patient{System: &System{}, opts: Options{Proc: filepath.Join(dir, "proc"), Mounts: filepath.Join(dir, "fstab")}}
		got := p.mounted(Download{Name: "main", Root: row.root})
		if (len(got) == 0) != (row.want == "") || len(got) > 0 && !strings.Contains(got[0].Problem, row.want) {
			t.Errorf("%s: %v, want %q", row.root, got, row.want)
		}
	}
}

// Modules that few builds have: their directives are read, not run.
func TestDirectivesOfOtherModules(t *testing.T) {
	for directives, want := range map[string]string{
		"brotli on;": "compresses or rewrites files", "brotli off;": "", "zstd on;": "compresses or rewrites files", "more_set_headers 'X: y';": "may change the headers",
		"body_filter_by_lua_block { x = 1; }": "may change the bytes", "access_by_lua_file a.lua;": "may answer in the place of the service", "lua_code_cache on;": "",
		"allow 10.0.0.0/8; deny all;": "", "charset utf-8; source_charset utf-8;": "", "post_action off;": "",
	} {
		r := Examine(t.Context(), &System{
			Listen: Address{"unix", "/nonexistent/sock"}, Admin: Address{"unix", "/nonexistent/admin"},
			Downloads: []Download{{Name: "main", URL: "/downloads/", Internal: "/protected/"}},
		}, &Options{Dump: fileMark + "/etc/nginx/nginx.conf:\nhttp { server { listen 80; " + directives + " location ^~ /downloads/ { } } }\n"})
		var got string
		for _, f := range r.Findings {
			if f.Examination == "directives" {
				got += f.Problem
			}
		}
		if want == "" && got != "" || !strings.Contains(got, want) {
			t.Errorf("%s: %q, want %q", directives, got, want)
		}
	}
}

// Anybody can call a process nginx: what root runs of theirs it runs as them.
func TestWhatBelongsToAnotherUserRunsAsThem(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("it takes root to be somebody else")
	}
	t.Chdir("/") // which they may enter
	out, said, err := proc("/proc").ask(t.Context(), &master{pid: os.Getpid(), binary: "/usr/bin/id", uid: 65534, gid: 65533})
	if err != nil || !strings.HasPrefix(out, "uid=65534") || !strings.Contains(out, "gid=65533") || strings.Contains(out, "(root)") {
		t.Errorf("%q, %q, %v", out, said, err)
	}
}

func TestMastersOfRootComeFirst(t *testing.T) {
	dir := t.TempDir()
	process := func(pid, title, status string) {
		t.Helper()
		for name, text := range map[string]string{"cmdline": title, "status": status, "stat": pid + " (nginx) S"} {
			file := filepath.Join(dir, pid, name)
			if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	process("10", "nginx: master process ./nginx -c x", "Uid:\t1000\t1000\t1000\t1000\nGid:\t1000\t1000\t1000\t1000\nPPid:\t1\n")
	process("20", "nginx: master process /usr/sbin/nginx -g daemon on; master_process on;", "Uid:\t0\t0\t0\t0\nGid:\t0\t0\t0\t0\nPPid:\t1\n")
	process("21", "nginx: worker process", "Uid:\t33\t33\t33\t33\nGid:\t33\t33\t33\t33\nPPid:\t20\nGroups:\t33 999\n")
	process("22", "nginx: worker process is shutting down", "Uid:\t33\t33\t33\t33\nGid:\t33\t33\t33\t33\nPPid:\t20\nGroups:\t33\n")
	process("30", "vi nginx: master process", "Uid:\t0\t0\t0\t0\nGid:\t0\t0\t0\t0\nPPid:\t1\n")
	masters, err := proc(dir).masters()
	if err != nil || len(masters) != 2 || masters[0].pid != 20 || masters[1].pid != 10 {
		t.Fatalf("%+v, %v", masters, err)
	}
	m := masters[0]
	if m.binary != "/usr/sbin/nginx" || !reflect.DeepEqual(m.args, []string{"-g", "daemon on; master_process on;"}) || len(m.workers) != 1 || m.workers[0].user.UID != 33 || !reflect.DeepEqual(m.workers[0].user.GIDs, []uint32{33, 33, 999}) {
		t.Errorf("%+v", m)
	}
}

// When a process started is known to a tick: what was written just before is not newer.
func TestAFileWrittenJustBeforeNginxStartedIsNotNewer(t *testing.T) {
	file := filepath.Join(t.TempDir(), "nginx.conf")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	for after, want := range map[time.Duration]int{-time.Second: 0, 0: 0, time.Second / ticks: 0, 2 * time.Second / ticks: 1, time.Hour: 1} {
		p := &patient{nginx: &nginx{
			master: &master{workers: []worker{{started: info.ModTime().Add(-after)}}},
			dump:   &dump{files: []string{file}},
		}}
		if f := p.reloaded(); len(f) != want {
			t.Errorf("changed %v after a worker started: %v", after, f)
		}
	}
}

// A path of a container's is another file here: root does not run it.
func TestNginxInAContainerIsNotRun(t *testing.T) {
	dir := t.TempDir()
	for pid, root := range map[string]string{"10": dir, "20": "/"} {
		if err := os.MkdirAll(filepath.Join(dir, pid), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(root, filepath.Join(dir, pid, "root")); err != nil {
			t.Fatal(err)
		}
	}
	p := &patient{System: &System{}, proc: proc(dir)}
	for pid, want := range map[int]string{10: "runs in a container", 20: "cannot be read: it holds no line"} {
		n := p.look(t.Context(), &master{pid: pid, uid: uint32(os.Geteuid()), gid: uint32(os.Getegid()), binary: "/bin/echo"})
		if !strings.Contains(n.problem, want) {
			t.Errorf("%d: %q, want %q", pid, n.problem, want)
		}
	}
	p.nginx = p.look(t.Context(), &master{pid: 10})
	if f := p.process(t.Context()); len(f) != 1 || f[0].Severity != Unseen || !strings.Contains(f[0].Remedy, "--nginx-dump") {
		t.Errorf("%v", f)
	}
}

// Of web servers that are not nginx it says that it looks at nothing, and finds no fault
// with an nginx that serves no download.
func TestDownloadsBehindOtherWebServersAreANote(t *testing.T) {
	s := &System{Elsewhere: []string{`"main" is behind front: apache`}, Check: func(context.Context) []Finding { return nil }}
	var notes int
	for _, f := range Examine(t.Context(), s, &Options{PIDFile: "/nowhere/nginx.pid"}).Findings {
		switch {
		case f.Severity == Note && strings.Contains(f.Problem, `download "main" is behind front: apache`):
			notes++
		case strings.Contains(f.Problem, "nginx"):
			t.Errorf("%+v", f)
		}
	}
	if notes != 1 {
		t.Errorf("%d notes", notes)
	}
}

// A remedy names a page where this machine has it.
func TestRemediesNamePagesThatAreThere(t *testing.T) {
	docs := t.TempDir()
	p := newPatient(t.Context(), &System{}, &Options{Docs: docs, Proc: t.TempDir()})
	p.found = []Finding{{Remedy: "see docs/troubleshooting.md, and docs/identity.md, A password"}}
	if got := p.report().Findings[0].Remedy; got != "see docs/troubleshooting.md, and docs/identity.md, A password" {
		t.Error(got)
	}
	page := filepath.Join(docs, "docs/troubleshooting.md")
	if err := errors.Join(os.Mkdir(filepath.Join(docs, "docs"), 0o755), os.WriteFile(page, nil, 0o644)); err != nil {
		t.Fatal(err)
	}
	if got := p.report().Findings[0].Remedy; got != "see "+page+", and docs/identity.md, A password" {
		t.Error(got)
	}
}

func TestWhenALineWasLogged(t *testing.T) {
	for line, want := range map[string]time.Time{
		`{"time":"2026-11-27T07:05:06.5+01:00","level":"INFO"}`:         time.Date(2026, 11, 27, 6, 5, 6, 5e8, time.UTC),
		"time=2026-11-27T07:05:06Z level=INFO":                          time.Date(2026, 11, 27, 7, 5, 6, 0, time.UTC),
		"2026/11/27 07:05:06 [error] 1#1: *1 open() failed":             time.Date(2026, 11, 27, 7, 5, 6, 0, time.Local),
		`{"request_id":"1","msec":1764227106.250,"client":"192.0.2.1"}`: time.Unix(1764227106, 25e7),
		"a line without a time":                                         {},
		`{"msec":12345678901234567890123.250}`:                          {},
	} {
		got, ok := timeOf(line)
		if ok != !want.IsZero() || ok && !got.Equal(want) {
			t.Errorf("%s: %v, %t, want %v", line, got, ok, want)
		}
	}
}
