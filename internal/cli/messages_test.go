package cli

import (
	"bytes"
	"maps"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// nobody runs a command as a user who may read what is everybody's: as root, tests
// could read everything.
func nobody(cmd *exec.Cmd) {
	if os.Getuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	}
}

// Mistakes that everybody makes in the first hour, and what is said of each, to the
// letter: what is wrong, where, and what to do.
func TestUsualMistakes(t *testing.T) {
	const (
		config = "listen: unix:/run/securefiles/auth.sock\nidentity:\n  - htpasswd: users.htpasswd\n"
		policy = "p, editor, /project/**, read, allow\ng, alice, editor\ng, @contractors, editor\n"
		users  = "alice:$6$saltsalt$qFmFH.bQmmtXzyBY0s9v7Oicd2z4XSIecDzlB5KiA2/jctKu9YterLp8wwnSq.qc.eoxqOmSuNp2xS0ktL3nh/\nbob:$6$saltsalt$qFmFH.bQmmtXzyBY0s9v7Oicd2z4XSIecDzlB5KiA2/jctKu9YterLp8wwnSq.qc.eoxqOmSuNp2xS0ktL3nh/\n"
		second = "policy: {model: model.conf}\ndownloads:\n  - {name: main, url: /downloads/, internal: /p/, root: /srv}\n  - {name: media, url: /media/, internal: /m/, root: /srv/m}\n"
		model  = "[request_definition]\nr = sub, dom, obj, act\n[policy_definition]\np = sub, dom, obj, act, eft\n[policy_effect]\ne = some(where (p.eft == allow)) && !some(where (p.eft == deny))\n" +
			"[matchers]\nm = r.sub == p.sub && r.dom == p.dom && globMatch(r.obj, p.obj) && r.act == p.act\n"
	)
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	group := "www-data"
	if _, err := user.LookupGroup("nginx"); err == nil {
		group = "nginx"
	}
	for _, row := range []struct {
		name   string
		files  map[string]string // beside, or instead of, the ones above; "" is none
		args   string
		status int
		stdout string // a line of it
		stderr string // a line of it
	}{
		{"a tab in YAML", map[string]string{"securefiles.yaml": "log:\n\tlevel: debug\n"}, "check", 2, "",
			"securefiles: securefiles.yaml:2:1: error: a tab: YAML is indented with blanks alone, so write two for each level"},
		{"a line that lines up with nothing", map[string]string{"securefiles.yaml": config + "   realm: files\n"}, "check", 2, "",
			"securefiles: securefiles.yaml:4:4: error: begins with 3 blanks, and lines up with nothing above: write 4, as in line 3, or 0, as in line 2"},
		{"a key that is not indented", map[string]string{"securefiles.yaml": "log:\nlevel: debug\n"}, "check", 2, "",
			`securefiles: securefiles.yaml:2:1: error: unknown field "level" here: if it belongs to log, in line 1, begin the line with 2 blanks`},
		{"no configuration anywhere", map[string]string{"securefiles.yaml": "", "policy.csv": ""}, "check", 2, "",
			"securefiles: there is no configuration, neither securefiles.yaml in this directory nor /etc/securefiles/securefiles.yaml: make one with `securefiles init .`, or name yours with --config"},
		{"no configuration to serve", map[string]string{"securefiles.yaml": "", "policy.csv": ""}, "serve", 2, "",
			"securefiles: there is no configuration, neither securefiles.yaml in this directory nor /etc/securefiles/securefiles.yaml: make one with `securefiles init .`, or name yours with --config"},
		{"no directory for the socket", map[string]string{"securefiles.yaml": "listen: unix:/var/empty/none/auth.sock\nadmin: 127.0.0.1:0\n"}, "serve", 2, "",
			"securefiles: listen for nginx: listen unix /var/empty/none/auth.sock: bind: no such file or directory: there is no directory /var/empty/none: make it as root, for " +
				me.Username + " and nginx's group: install -d -o " + me.Username + " -g " + group + " -m 2750 /var/empty/none"},
		{"a port that another web server asks on", map[string]string{"securefiles.yaml": "listen: 127.0.0.1:9180\npolicy: {file: policy.csv}\ndownloads: [{name: main, url: /downloads/, internal: /protected/, root: /var/empty, front: caddy}]\n"}, "check", 0,
			"securefiles.yaml:1: warning: listen: any user of this machine may take the port while the service is down, and the web server then believes them: listen on a unix socket in a directory of the service's own, where the web server can ask on one; nginx's proof is not for it [listen]", ""},
		{"a store's credentials that are not there", map[string]string{"securefiles.yaml": "policy: {file: policy.csv}\ndownloads: [{name: main, url: /downloads/, internal: /protected/, storage: {s3: {bucket: files, endpoint: 'https://s3.example.org', credentials_file: keys}}}]\n"}, "check", 2, "",
			"securefiles: securefiles.yaml:2:76: error: downloads[0].storage: read the credentials of a store: open keys: no such file or directory: correct credentials_file, or make the file, for the service to read; docs/storage.md says what it holds"},
		{"a user in another letter case", nil, "explain Alice /project/plan.pdf", 1,
			`hint: the policy knows "alice", and not "Alice": upper and lower case make two names`, ""},
		{"a user in another letter case, whom the policy does not name", nil, "explain BOB /project/plan.pdf", 1,
			`hint: users.htpasswd has "bob", and not "BOB": upper and lower case make two names`, ""},
		{"a user whom no source knows", nil, "explain carol /project/plan.pdf", 1,
			`hint: no identity source knows "carol", so nobody can ask as that: users.htpasswd has no such user`, ""},
		{"a group without its @", nil, "explain contractors /project/plan.pdf", 1,
			`hint: the policy knows the group @contractors, and no user "contractors": ask for somebody in it with --group contractors`, ""},
		{"a group with or without its @", nil, "explain bob /project/plan.pdf --group contractors", 0, "allow: bob may read /project/plan.pdf", ""},
		{"a path with a blank", nil, "explain alice|/downloads/project/a plan.pdf", 0, "allow: alice may read /project/a plan.pdf", ""},
		{"a path on the disk", nil, "explain alice /var/www/securefiles/project/plan.pdf", 1,
			"hint: /var/www/securefiles/project/plan.pdf is where the file is on the disk: ask for /project/plan.pdf, its path below the root of download main, or for its URL", ""},
		{"a path without its first slash", nil, "explain alice project/plan.pdf", 2, "",
			`securefiles: path "project/plan.pdf": the path is refused before policy is asked: the path does not begin with a slash: write "/project/plan.pdf"`},
		{"a whole URL", nil, "explain alice https://files.example.org/downloads/project/a%20plan.pdf#page=2", 0, "allow: alice may read /project/a plan.pdf", ""},
		{"a whole URL below no download", nil, "who https://files.example.org/project/plan.pdf", 2, "",
			`securefiles: path "https://files.example.org/project/plan.pdf": the path is refused before policy is asked: it is below no download: their URLs are /downloads/`},
		{"name and password", nil, "whoami -u alice:wrong", 1, "refused: unknown user or wrong password", ""},
		{"a name without a password", nil, "whoami -u alice", 2, "", "securefiles: -u alice: the password is missing: write -u USER:PASSWORD"},
		{"a test that does not say which download", map[string]string{"securefiles.yaml": config + second, "model.conf": model, "policy.csv": "p, alice, main, /**, read, allow\n", "t.yaml": "tests:\n  - {subject: alice, path: /a, want: allow}\n"}, "test t.yaml", 2, "",
			`securefiles: t.yaml:2:6: error: path "/a": there are several downloads: write its URL, or say which: add download: main or media`},
		{"a question that does not say which download", map[string]string{"securefiles.yaml": config + second, "model.conf": model, "policy.csv": "p, alice, main, /**, read, allow\n"}, "explain alice /a", 2, "",
			`securefiles: path "/a": there are several downloads: write its URL, or say which: --download main or media`},
		{"a line of another model, without a download", map[string]string{"securefiles.yaml": second, "model.conf": model, "policy.csv": "p, bob, main, /a/**, read, allow\np, bob, /b/**, read, allow\n"}, "check --disable root", 1,
			"policy.csv:2: error: has 4 fields after its type, not the model's 5 (sub, dom, obj, act, eft); the download is missing: write its name before the path, or * for every one [field-count]", ""},
		{"the same with dates", map[string]string{"securefiles.yaml": second, "model.conf": strings.NewReplacer("act, eft", "act, eft, from, until", "r.act == p.act", "r.act == p.act && timeMatch(p.from, p.until)").Replace(model), "policy.csv": "p, bob, /b/**, read, allow, _, 2099-12-31\n"}, "check --disable root", 1,
			"policy.csv:1: error: has 6 fields after its type, not the model's 5 (sub, dom, obj, act, eft) or 7 (and from, until); the download is missing: write its name before the path, or * for every one [field-count]", ""},
		{"a line of the starter's, for the built-in model", map[string]string{"policy.csv": "p, bob, main, /a/**, read, allow\n"}, "check", 1,
			"policy.csv:1: error: has 5 fields after its type, not the model's 4 (sub, obj, act, eft) or 6 (and from, until); this model's lines name no download: take it out, or take the model of securefiles init [field-count]", ""},
		{"no blank behind a colon", map[string]string{"securefiles.yaml": "listen:unix:/run/a.sock\n"}, "check", 2, "",
			"securefiles: securefiles.yaml:1:1: error: string was used where mapping is expected: write lines KEY: VALUE, with a blank behind the colon: listen: unix:/run/a.sock"},
		{"a key twice", map[string]string{"securefiles.yaml": config + "listen: unix:/run/b.sock\n"}, "check", 2, "",
			`securefiles: securefiles.yaml:4:1: error: "listen" stands here twice, first in line 1: keep one`},
		{"a mark that nobody sees before the first key", map[string]string{"securefiles.yaml": "\ufeff" + config}, "explain alice /project/plan.pdf", 0, "allow: alice may read /project/plan.pdf", ""},
		{"a home directory", map[string]string{"securefiles.yaml": "identity:\n  - htpasswd: ~/users\n"}, "check", 2, "",
			`securefiles: securefiles.yaml:2:15: error: identity[0].htpasswd: "~/users": ~ and variables stand for themselves here: write the whole path`},
		{"a variable in a path", map[string]string{"securefiles.yaml": "policy: {file: $HOME/policy.csv}\n"}, "check", 2, "",
			`securefiles: securefiles.yaml:1:16: error: policy.file: "$HOME/policy.csv": ~ and variables stand for themselves here: write the whole path`},
		{"a configuration that is not there", nil, "check --config site/files.yaml", 2, "",
			"securefiles: read configuration: open site/files.yaml: no such file or directory: correct --config, or make one with `securefiles init site`"},
		{"the directory of a configuration", nil, "check --config .", 2, "",
			"securefiles: read configuration: open .: not a regular file: --config names the file: securefiles.yaml"},
		{"a configuration without --config", nil, "check securefiles.yaml", 2, "",
			"securefiles: unexpected argument securefiles.yaml: a configuration is named with --config securefiles.yaml"},
		{"path and user the wrong way round", nil, "explain /project/plan.pdf alice", 2, "",
			`securefiles: "/project/plan.pdf" is a path: the user comes first, then the path: alice /project/plan.pdf`},
		{"a group in the place of a user", nil, "explain @contractors /project/plan.pdf", 2, "",
			`securefiles: subject "@contractors": begins with @, which marks groups: ask for a user in the group, as USER --group contractors`},
		{"a path as a URL spells it", nil, "explain alice /project/a%20plan.pdf", 0,
			"hint: %20 stands for itself in a path, and is decoded in a URL: this is about a file with %20 in its name", ""},
		{"a pattern in the place of a path", nil, "explain alice /project/*", 0,
			"hint: * stands for itself in a path: this is about a file of that very name; `securefiles what USER` lists the patterns that a user may have", ""},
		{"what a user in another letter case may have", nil, "what Alice", 1, `hint: the policy knows "alice", and not "Alice": upper and lower case make two names`, ""},
		{"what a group without its @ may have", nil, "what contractors", 1,
			`hint: the policy knows the group @contractors, and no user "contractors": ask for somebody in it with --group contractors`, ""},
		{"nothing wrong", nil, "check --disable subject-unknown", 0, "", "securefiles.yaml: no findings in configuration, model, policy and users"},
	} {
		t.Run(row.name, func(t *testing.T) {
			dir := t.TempDir()
			files := map[string]string{"securefiles.yaml": config, "policy.csv": policy, "users.htpasswd": users}
			maps.Copy(files, row.files)
			for name, text := range files {
				if text != "" {
					writeFile(t, filepath.Join(dir, name), text)
				}
			}
			blank := " "
			if strings.Contains(row.args, "|") {
				row.args, blank = strings.Replace(row.args, " ", "|", 1), "|"
			}
			cmd := exec.CommandContext(t.Context(), securefiles, strings.Split(row.args, blank)...)
			var stdout, stderr bytes.Buffer
			cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = dir, []string{}, &stdout, &stderr
			if err := cmd.Run(); cmd.ProcessState == nil {
				t.Fatal(err)
			}
			if got := cmd.ProcessState.ExitCode(); got != row.status {
				t.Errorf("exit status %d, want %d", got, row.status)
			}
			for _, printed := range []struct{ text, want string }{{stdout.String(), row.stdout}, {stderr.String(), row.stderr}} {
				if !strings.Contains("\n"+printed.text, "\n"+printed.want+"\n") && printed.want != "" {
					t.Errorf("\n got %s\nwant %s", printed.text, printed.want)
				}
			}
		})
	}
}

// Whoever is not let in is told who they are, whose the file is, and which command
// mends it; so is an operator whose mv has put a file of root's in the place of one
// that the service could read, and once it is mended, that it is.
func TestPermissionDeniedSaysWhatMendsIt(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can make files that are another's")
	}
	dir := t.TempDir()
	for d := dir; d != os.TempDir(); d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(filepath.Dir(securefiles), 0o755); err != nil {
		t.Fatal(err)
	}
	run := filepath.Join(dir, "run")
	if err := os.Mkdir(run, 0o755); err != nil {
		t.Fatal(err)
	}
	config := writeFile(t, filepath.Join(dir, "securefiles.yaml"), "listen: unix:"+run+"/auth.sock\nadmin: 127.0.0.1:0\npolicy: {file: policy.csv}\n")
	policy := writeFile(t, filepath.Join(dir, "policy.csv"), "p, @anyone, /**, read, allow\n")
	asNobody := func(args ...string) (status int, out string) {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), securefiles, args...)
		nobody(cmd)
		cmd.Dir, cmd.Env = dir, []string{}
		text, err := cmd.CombinedOutput()
		if cmd.ProcessState == nil {
			t.Fatal(err)
		}
		return cmd.ProcessState.ExitCode(), string(text)
	}
	who := "this is user nobody of group nogroup, and "
	if status, out := asNobody("check"); status != 2 || out != "securefiles: read configuration: open securefiles.yaml: permission denied\nsecurefiles: "+who+config+
		" is of root:root with mode 0600: chgrp nogroup "+config+" && chmod g+r "+config+"\nsecurefiles: or run this as root, with sudo\n" {
		t.Errorf("a configuration: %d\n%s", status, out)
	}
	if status, out := asNobody("serve"); status != 2 || !strings.HasSuffix(out, "chgrp nogroup "+config+" && chmod g+r "+config+"\n") { // it runs as somebody else than root
		t.Errorf("a configuration of the service: %d\n%s", status, out)
	}
	if err := os.Chmod(config, 0o644); err != nil {
		t.Fatal(err)
	}
	denied := who + policy + " is of root:root with mode 0600: chgrp nogroup " + policy + " && chmod g+r " + policy
	if status, out := asNobody("check"); status != 1 || !strings.HasPrefix(out, "policy.csv: error: cannot be read: permission denied: "+denied+" [read]\n") {
		t.Errorf("a policy: %d\n%s", status, out)
	}
	if err := os.Chmod(policy, 0o644); err != nil {
		t.Fatal(err)
	}
	if status, out := asNobody("serve"); status != 2 || !strings.Contains(out, "nobody may not write in "+run+": chown it\n") {
		t.Errorf("a directory for the socket: %d\n%s", status, out)
	}
	if err := os.Chmod(run, 0o777); err != nil {
		t.Fatal(err)
	}

	logged, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer logged.Close() // it is read by its name
	service := exec.Command(securefiles, "serve")
	nobody(service)
	service.Dir, service.Env, service.Stderr = dir, []string{}, logged
	if err := service.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = service.Process.Signal(syscall.SIGTERM) // it may have ended
		_ = service.Wait()
	}()
	wait := func(text string) {
		t.Helper()
		deadline := time.Now().Add(time.Minute)
		for {
			log, err := os.ReadFile(logged.Name())
			if err != nil {
				t.Fatal(err)
			}
			if strings.Contains(string(log), text) {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("not in the log: %s\n%s", text, log)
			}
			time.Sleep(20 * time.Millisecond)
		}
	}
	wait("msg=\"policy loaded\" generation=1")
	wait("msg=serving")
	other := writeFile(t, filepath.Join(dir, "new.csv"), "p, @anyone, /public/**, read, allow\n")
	if err := os.Rename(other, policy); err != nil {
		t.Fatal(err)
	}
	wait(`remedy="` + denied + `"`)
	if err := os.Chmod(policy, 0o644); err != nil {
		t.Fatal(err)
	}
	wait(`msg="policy loaded, and well again" generation=2`)
}
