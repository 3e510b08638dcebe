package integration_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"securefiles/internal/freeport"
)

// A configuration is what a test writes anew: the listeners stay.
func (s *site) configuration(rest string) string {
	return fmt.Sprintf("listen: %s\nadmin: %s\nshutdown_delay: 100ms\nlog: {format: json, level: info}\n", s.service, s.admin) + rest
}

// printed is what nginx is to run for the configuration, on the address of the test.
func (s *site) printedHere() string {
	s.t.Helper()
	return strings.Replace(s.printedConf(), "127.0.0.1:8080", s.web, 1)
}

// startConfigured starts service and nginx by a configuration, as it is printed.
func startConfigured(t *testing.T, policy, configuration string) *site {
	t.Helper()
	return start(t, plan{
		policy: policy,
		before: func(s *site) { s.write("securefiles.yaml", s.configuration(s.rooted(configuration))) },
		edit:   func(s *site, _ string) string { return s.printedHere() },
	})
}

// rooted names the directory of files in a configuration.
func (s *site) rooted(configuration string) string {
	return strings.ReplaceAll(configuration, "ROOT", s.root)
}

// reconfigure replaces the configuration, and waits until it serves.
func (s *site) reconfigure(configuration string) {
	s.t.Helper()
	before := s.loaded()["configuration"].Generation
	s.replace("securefiles.yaml", s.configuration(s.rooted(configuration)))
	s.eventually("the configuration serves", func() bool {
		l := s.loaded()["configuration"]
		if l.Stale {
			s.t.Fatalf("refused: %s", l.Error)
		}
		return l.Generation > before
	})
}

// renewNginx has nginx run what is printed for the configuration now.
func (s *site) renewNginx() {
	s.t.Helper()
	s.write("nginx.conf", s.printedHere())
	if err := s.nginx.Process.Signal(syscall.SIGHUP); err != nil {
		s.t.Fatal(err)
	}
}

// refusedConfiguration waits until the configuration is told to be refused, wherever it
// is told, and returns why.
func (s *site) refusedConfiguration(want string) {
	s.t.Helper()
	s.eventually("the configuration is refused: "+want, func() bool {
		l := s.loaded()["configuration"]
		return l.Stale && strings.Contains(l.Error, want)
	})
	if got := s.metric(`securefiles_reload_stale{name="configuration"}`); got != "1" {
		s.t.Errorf("the metrics do not tell: %q", got)
	}
	s.eventually("the log tells", func() bool {
		for line := range strings.Lines(s.log.String()) {
			var one struct{ Msg, Error, Remedy string }
			if json.Unmarshal([]byte(line), &one) == nil && one.Msg == "configuration refused, the last good version goes on serving" &&
				strings.Contains(one.Error+": "+one.Remedy, strings.Split(want, "the log says what")[0]) {
				return true
			}
		}
		return false
	})
}

const oneDownload = "policy: {file: policy.csv}\nidentity: [{htpasswd: users.htpasswd}]\ndownloads:\n  - {name: main, url: /downloads/, internal: /protected/, root: ROOT}\n"

// Downloads are added, renamed and taken away while people download: nobody is refused
// who may, and nobody gets what policy refuses.
func TestDownloadsAreEditedUnderLoad(t *testing.T) {
	t.Parallel()
	const model = `[request_definition]
r = sub, dom, obj, act
[policy_definition]
p = sub, dom, obj, act, eft
[role_definition]
g = _, _
[policy_effect]
e = some(where (p.eft == allow)) && !some(where (p.eft == deny))
[matchers]
m = g(r.sub, p.sub) && r.dom == p.dom && globMatch(r.obj, p.obj) && r.act == p.act
`
	const policy = "p, @anyone, main, /public/**, read, allow\np, editor, main, /project/**, read, allow\np, editor, main, /project/hr/**, read, deny\n" +
		"p, @anyone, more, /welcome.txt, read, allow\np, @anyone, other, /welcome.txt, read, allow\ng, alice, editor\n"
	one := strings.Replace(oneDownload, "file: policy.csv", "file: policy.csv, model: model.conf", 1)
	s := start(t, plan{
		policy: policy,
		before: func(s *site) {
			s.write("model.conf", model)
			s.write("securefiles.yaml", s.configuration(s.rooted(one)))
		},
		edit: func(s *site, _ string) string { return s.printedHere() },
	})
	l := s.load(
		loadRequest{"alice", plan1, []int{200}, "0123456789\n"}, loadRequest{"alice", hrFile, []int{404}, "CANARY"},
		loadRequest{"bob", plan1, []int{404}, "0123456789"}, loadRequest{"bob", welcome, []int{200}, "welcome\n"},
		loadRequest{"", plan1, []int{401}, "0123456789"})
	second := one + "  - {name: more, url: /more/, internal: /protected-more/, root: ROOT/public}\n"
	s.status("alice", "/more/welcome.txt", 404) // nginx has no such location
	for range 3 {
		s.reconfigure(second)
		if got := s.metric(`securefiles_decisions_total{decision="allow",download="more",reason="policy"}`); got == "" {
			t.Error("a series does not exist before its first event")
		}
		s.renewNginx()
		s.eventually("the second download is there", func() bool { return s.get("alice", "/more/welcome.txt", once).status == 200 })
		s.reconfigure(strings.Replace(second, "name: more, url: /more/", "name: other, url: /other/", 1))
		s.renewNginx()
		s.eventually("it has another name", func() bool { return s.get("alice", "/other/welcome.txt", once).status == 200 })
		s.reconfigure(one)
		if code := s.get("alice", "/other/welcome.txt", once).status; code != 400 && code != 404 { // nginx still asks, or a worker that is older yet
			t.Errorf("a download that is gone: %d", code)
		}
		s.renewNginx()
		s.eventually("it is gone", func() bool { return s.get("alice", "/other/welcome.txt", once).status == 404 })
	}
	l.end(t)
	if got := s.metric("securefiles_policy_generation"); got != "7" { // it is read in another way where there are several downloads
		t.Errorf("the policy, which nobody changed, has generation %s", got)
	}
	if got := s.metric(`securefiles_reload_generation{name="configuration"}`); got != "10" {
		t.Errorf("generation of the configuration: %s", got)
	}
	if !strings.Contains(s.log.String(), "nginx has the snippet of the configuration before: print both halves again") {
		t.Error("the log does not say that nginx must be told")
	}
	if strings.Contains(s.log.String(), "nginx asks by a snippet that was printed for another configuration") {
		t.Error("the log says the same twice")
	}
}

// A configuration with an error changes nothing, and everything says where it is and
// what to do.
func TestBrokenConfigurationIsNotServed(t *testing.T) {
	t.Parallel()
	s := startConfigured(t, alicesPolicy, oneDownload)
	well := func() {
		t.Helper()
		s.status("alice", plan1, 200)
		s.status("bob", plan1, 404)
		s.status("alice", hrFile, 404)
	}
	for text, want := range map[string]string{
		oneDownload + "listn: x\n":                                                 "securefiles.yaml:9:1: error: unknown field \"listn\"",
		oneDownload + "login_url: nowhere\n":                                       "securefiles.yaml:9:12: error: login_url: ",
		strings.Replace(oneDownload, "users.htpasswd", "others.htpasswd", 1):       "others.htpasswd: no such file",
		strings.Replace(oneDownload, "policy.csv", "other.csv", 1):                 "other.csv: no such file",
		strings.Replace(oneDownload, "root: ROOT", "root: "+s.dir, 1):              "which nginx would serve like any other file in it",
		strings.Replace(oneDownload, "policy.csv", "policy.csv, role_depth: 0", 1): "",
	} {
		if want == "" {
			continue // what is left out
		}
		s.replace("securefiles.yaml", s.configuration(s.rooted(text)))
		s.refusedConfiguration(want)
		well()
		s.hangup()
		well()
	}
	s.replace("securefiles.yaml", s.configuration(s.rooted(oneDownload)))
	s.eventually("it is well again", func() bool {
		return !s.loaded()["configuration"].Stale && s.metric(`securefiles_reload_stale{name="configuration"}`) == "0"
	})
	if !strings.Contains(s.log.String(), "configuration loaded, and well again") {
		t.Error("the log does not say that it is well again")
	}
	if err := os.Remove(filepath.Join(s.dir, "securefiles.yaml")); err != nil {
		t.Fatal(err)
	}
	s.refusedConfiguration("securefiles.yaml: no such file")
	well()
}

// What a configuration was refused for is mended in the file that it names, and nobody
// touches the configuration.
func TestFileOfARefusedConfigurationIsMended(t *testing.T) {
	t.Parallel()
	s := startConfigured(t, alicesPolicy, oneDownload)
	s.write("other.csv", alicesPolicy+"p, bob\n")
	s.replace("securefiles.yaml", s.configuration(s.rooted(strings.Replace(oneDownload, "policy.csv", "other.csv", 1))))
	s.refusedConfiguration("other.csv:6: error: the log says what")
	s.status("bob", plan1, 404)
	s.replace("other.csv", alicesPolicy+"p, bob, /project/plan.txt, read, allow\n")
	s.eventually("the other policy serves", func() bool { return s.get("bob", plan1, once).status == 200 })
	if r := s.get("bob", plan1); r.header.Get("X-Securefiles-Decision") != "" {
		t.Error("what nginx learns leaves it")
	}
	s.write("policy.csv", alicesPolicy+"p, bob, /project/hr/pay.txt, read, allow\n") // which is watched no more
	s.write("other.csv", alicesPolicy+"p, bob, /project/sub/**, read, allow\n")
	s.eventually("a change of it is seen", func() bool { return s.get("bob", "/downloads/project/sub/index.html", once).status == 200 })
	s.status("bob", hrFile, 404)
	if got := s.metric("securefiles_policy_generation"); got != "3" {
		t.Errorf("generation %s, want one after the other", got)
	}
}

// A policy that lost half of its lines is refused though the configuration changed at the
// same time, and taken once the configuration says that it may.
func TestShrunkPolicyIsRefusedBesideAnEditOfTheConfiguration(t *testing.T) {
	t.Parallel()
	s := startConfigured(t, alicesPolicy+"p, bob, /a, read, allow\np, bob, /b, read, allow\n", oneDownload)
	const short = "p, @anyone, /project/**, read, allow\n"
	s.write("short.csv", short)
	s.replace("securefiles.yaml", s.configuration(s.rooted(strings.Replace(oneDownload, "policy.csv", "short.csv", 1))))
	s.refusedConfiguration("short.csv: error: the log says what [policy-shrunk]")
	s.hangup()
	s.status("bob", plan1, 404)
	s.reconfigureFrom(strings.Replace(oneDownload, "policy.csv", "short.csv, allow_shrink: true", 1))
	s.status("bob", plan1, 200)
}

// reconfigureFrom is reconfigure where the last configuration was refused.
func (s *site) reconfigureFrom(configuration string) {
	s.t.Helper()
	s.replace("securefiles.yaml", s.configuration(s.rooted(configuration)))
	s.eventually("the configuration serves", func() bool { return !s.loaded()["configuration"].Stale })
}

// Another source of identity, or another file of users, counts at once: who was
// remembered by the one that is gone is nobody.
func TestChangedIdentityForgets(t *testing.T) {
	t.Parallel()
	s := startConfigured(t, alicesPolicy, oneDownload)
	s.status("alice", plan1, 200)                                       // who is remembered for a minute
	s.write("others.htpasswd", strings.Split(cheapUsers, "\n")[1]+"\n") // bob
	s.reconfigure(strings.Replace(oneDownload, "users.htpasswd", "others.htpasswd", 1))
	s.status("alice", plan1, 401)
	s.status("bob", welcome, 200)
	s.reconfigure(strings.Replace(oneDownload, "{htpasswd: users.htpasswd}", "{certificate: {subject: cn}}", 1))
	s.status("bob", plan1, 401)
	s.reconfigure(oneDownload)
	s.status("alice", plan1, 200)
}

// What was taken of a limit stays taken when the configuration changes, and other bounds
// count at once.
func TestLimitsGoOnWhenTheConfigurationChanges(t *testing.T) {
	t.Parallel()
	limits := func(requests int) string {
		return fmt.Sprintf("%slimits: [{name: guests, of: [anonymous], per: subject, requests: %d/1h}]\n", oneDownload, requests)
	}
	s := startConfigured(t, alicesPolicy, limits(2))
	s.status("", welcome, 200)
	s.status("", welcome, 200)
	s.status("", welcome, 429)
	s.reconfigure(limits(2) + "login_url: /login\n")
	s.status("", welcome, 429)
	if got := s.metric(`securefiles_limits_total{limit="guests",result="refused"}`); got != "2" {
		t.Errorf("refused: %s", got)
	}
	s.reconfigure(strings.Replace(limits(2), "guests", "others", 1))
	s.status("", welcome, 200) // another limit
	s.reconfigure(oneDownload)
	s.status("", welcome, 200)
	s.reconfigure(limits(2)) // of a limit that was gone, nothing is known
	s.status("", welcome, 200)
	s.status("", welcome, 200)
	s.status("", welcome, 429)
	s.reconfigure(limits(20)) // what was used up stays used up, and comes back faster
	s.status("", welcome, 429)
}

// A key that needs a restart is told where somebody looks, until it says what the service
// was started with; the rest of the edit counts.
func TestEditThatNeedsARestartIsTold(t *testing.T) {
	t.Parallel()
	s := startConfigured(t, alicesPolicy, oneDownload)
	restart := func() string {
		_, body := s.adminGet("/readyz")
		var answer struct {
			Configuration struct{ Restart json.RawMessage }
		}
		if err := json.Unmarshal([]byte(body), &answer); err != nil {
			t.Fatal(err)
		}
		return string(answer.Configuration.Restart)
	}
	check := func() string {
		out, err := s.command(binary, "check", "--config", "securefiles.yaml").CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return string(out)
	}
	const told = "the running service was started with another"
	if got := restart(); got != "" {
		t.Errorf("restart: %s", got)
	}
	if out := check(); strings.Contains(out, told) {
		t.Error(out)
	}
	service := s.service
	s.service = freeport.Address(t)
	s.reconfigure(oneDownload + "login_url: /login/\n")
	if got := restart(); !strings.Contains(got, `"key":"listen"`) || !strings.Contains(got, `securefiles.yaml:1"`) {
		t.Errorf("restart: %s", got)
	}
	if !strings.Contains(s.log.String(), `"key":"listen","at":"securefiles.yaml:1","remedy":"systemctl restart securefiles"`) {
		t.Error("the log does not tell")
	}
	if got := s.metric("securefiles_restart_needed"); got != "1" {
		t.Errorf("the metrics do not tell: %q", got)
	}
	if out := check(); !strings.Contains(out, told+" listen: restart it") {
		t.Errorf("check does not tell: %s", out)
	}
	s.status("", plan1, 302, with("Accept", "text/html"), with("Sec-Fetch-Mode", "navigate")) // the rest counts
	s.service = service
	s.reconfigure(oneDownload)
	if got := restart(); got != "" {
		t.Errorf("restart: %s", got)
	}
}

// Until nginx has the snippet of the new configuration it sends what the old one says:
// a header that carried what the client wrote there names nobody by the new one.
func TestHeaderOfTheSnippetBeforeIsNotBelieved(t *testing.T) {
	t.Parallel()
	const token = "policy: {file: policy.csv}\nidentity: [{session: {url: \"http://127.0.0.1:1/\", headers: [X-Remote-User]}}]\ndownloads:\n  - {name: main, url: /downloads/, internal: /protected/, root: ROOT}\n"
	s := startConfigured(t, alicesPolicy, token)
	forged := with("X-Remote-User", "alice")
	s.status("", plan1, 503, forged) // nobody answers
	s.reconfigure(strings.Replace(token, "{session: {url: \"http://127.0.0.1:1/\", headers: [X-Remote-User]}}", "{header: X-Remote-User, nginx_value: $my_user}", 1))
	s.status("", plan1, 503, forged)
	s.eventually("the log says why", func() bool {
		return strings.Contains(s.log.String(), "nginx still sends X-Remote-User as $http_x_remote_user")
	})
}

// Where another directory is named for the files, nginx gives out none of the old one by
// the new policy.
func TestRootOfTheSnippetBeforeIsNotServed(t *testing.T) {
	t.Parallel()
	s := startConfigured(t, alicesPolicy+"p, @anyone, /plan.txt, read, allow\n", strings.Replace(oneDownload, "root: ROOT", "root: ROOT/public", 1))
	s.status("", "/downloads/plan.txt", 404)
	s.reconfigure(strings.Replace(oneDownload, "root: ROOT", "root: ROOT/project", 1))
	s.status("", "/downloads/plan.txt", 503)
	s.renewNginx()
	s.eventually("nginx has the new snippet", func() bool { return s.get("", "/downloads/plan.txt", once).status == 200 })
}

// Answers are proved as the snippet checks them by which nginx asks, so that an edit of
// what they are proved to fails no download until nginx has the new one.
func TestAnswersAreProvedToTheSnippetBefore(t *testing.T) {
	t.Parallel()
	configuration := "proof_secret_file: proof\n" + oneDownload
	s := start(t, plan{
		policy: alicesPolicy,
		before: func(s *site) {
			s.write("proof", strings.Repeat("0123456789abcdef", 4))
			s.write("securefiles.yaml", s.configuration(s.rooted(configuration)))
			s.printProof()
		},
		edit: func(s *site, _ string) string { return s.printedHere() },
	})
	s.status("alice", plan1, 200)
	l := s.load(loadRequest{"alice", plan1, []int{200}, "0123456789\n"}, loadRequest{"bob", plan1, []int{404}, "0123456789"})
	s.reconfigure(strings.Replace(configuration, "identity: [", "identity: [{header: X-Remote-User, nginx_value: $remote_user}, ", 1))
	s.status("alice", plan1, 200)
	s.renewNginx()
	l.goOn(s, 300)
	l.end(t)
}
