// Package helm_test tests the chart with Helm itself, of the version in go.mod: what it
// renders is what Kubernetes takes, and serves.
package helm_test

import (
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	apps "k8s.io/api/apps/v1"
	core "k8s.io/api/core/v1"
	disruption "k8s.io/api/policy/v1"
	"sigs.k8s.io/yaml"
)

const chart = "securefiles"

// helm and securefiles are the programs, built once.
var helm, securefiles string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "securefiles-chart")
		if err != nil {
			panic(err)
		}
		defer os.RemoveAll(dir)
		if err := os.Chmod(dir, 0o755); err != nil { // whoever runs the service
			panic(err)
		}
		helm, securefiles = filepath.Join(dir, "helm"), filepath.Join(dir, "securefiles")
		for _, build := range []*exec.Cmd{exec.Command("go", "build", "-o", helm, "helm.sh/helm/v4/cmd/helm"), exec.Command("go", "build", "-C", "../..", "-o", securefiles, ".")} {
			build.Stdout, build.Stderr = os.Stderr, os.Stderr
			if err := build.Run(); err != nil {
				panic(err)
			}
		}
		return m.Run()
	}())
}

// values are those of a release, as YAML: the least that a release needs, and more.
func values(t *testing.T, more string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "values.yaml")
	if err := os.WriteFile(file, []byte("files: {volume: {persistentVolumeClaim: {claimName: files, readOnly: true}}}\n"+more), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// template runs helm template, and returns what it prints, standard error included.
func template(t *testing.T, args ...string) (string, error) {
	t.Helper()
	out, err := exec.Command(helm, append([]string{"template", "shop", chart}, args...)...).CombinedOutput()
	return string(out), err
}

// A release is what a chart renders, read as Kubernetes and prometheus-operator read it: a
// field that they do not know is an error.
type release struct {
	apps.Deployment
	maps     map[string]core.ConfigMap // by the end of their names
	secrets  map[string]core.Secret
	services map[string]core.Service
	budget   *disruption.PodDisruptionBudget
	monitor  *monitoring.ServiceMonitor
}

func render(t *testing.T, more string) release {
	t.Helper()
	text, err := template(t, "--values", values(t, more))
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	r := release{maps: map[string]core.ConfigMap{}, secrets: map[string]core.Secret{}, services: map[string]core.Service{}}
	for _, one := range strings.Split(text, "\n---\n") {
		read := func(into any) {
			if err := yaml.UnmarshalStrict([]byte(one), into); err != nil {
				t.Fatalf("%v\n%s", err, one)
			}
		}
		var kind struct{ Kind string }
		if err := yaml.Unmarshal([]byte(one), &kind); err != nil {
			t.Fatalf("%v\n%s", err, one)
		}
		short := func(name string) string { return strings.TrimPrefix(name, "shop-securefiles") }
		switch kind.Kind {
		case "Deployment":
			read(&r.Deployment)
		case "ConfigMap":
			var m core.ConfigMap
			read(&m)
			r.maps[short(m.Name)] = m
		case "Secret":
			var s core.Secret
			read(&s)
			r.secrets[short(s.Name)] = s
		case "Service":
			var s core.Service
			read(&s)
			r.services[short(s.Name)] = s
		case "PodDisruptionBudget":
			read(&r.budget)
		case "ServiceMonitor":
			read(&r.monitor)
		default:
			t.Fatalf("nobody expects a %q:\n%s", kind.Kind, one)
		}
	}
	return r
}

func (r release) container(name string) core.Container {
	for _, c := range r.Spec.Template.Spec.Containers {
		if c.Name == name {
			return c
		}
	}
	return core.Container{}
}

func TestLint(t *testing.T) {
	for name, args := range map[string][]string{"as it is": nil, "with all there is": {"--values", values(t, "serviceMonitor: {enabled: true}\npolicy: {model: text}\n")}} {
		if out, err := exec.Command(helm, append([]string{"lint", "--strict", chart}, args...)...).CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
}

// nginx's configuration belongs to the service's, in what is rendered.
func TestNginxIsWhatTheServicePrints(t *testing.T) {
	r := render(t, "")
	file := filepath.Join(t.TempDir(), "securefiles.yaml")
	if err := os.WriteFile(file, []byte(r.maps["-config"].Data["securefiles.yaml"]), 0o600); err != nil {
		t.Fatal(err)
	}
	want, err := exec.Command(securefiles, "nginx", "--complete", "--container", "--config", file).Output()
	if err != nil {
		t.Fatal(err)
	}
	if r.maps["-nginx"].Data["nginx.conf"] != string(want) {
		t.Error("it differs: go test ./internal/cli -run Chart -update-chart")
	}
}

// Nothing in the pod is root, writes to its image, or has a right that it does not need.
func TestThePodIsConfined(t *testing.T) {
	r := render(t, "podSecurityContext: {runAsNonRoot: false, supplementalGroups: [2000]}\n")
	pod := r.Spec.Template.Spec
	if s := pod.SecurityContext; !*s.RunAsNonRoot || s.SeccompProfile.Type != core.SeccompProfileTypeRuntimeDefault || !slices.Equal(s.SupplementalGroups, []int64{2000}) {
		t.Errorf("the pod's security context is %+v", s)
	}
	if *pod.AutomountServiceAccountToken {
		t.Error("it gets a token of Kubernetes")
	}
	for _, c := range pod.Containers {
		s := c.SecurityContext
		if !*s.ReadOnlyRootFilesystem || *s.AllowPrivilegeEscalation || *s.RunAsUser == 0 || !slices.Equal(s.Capabilities.Drop, []core.Capability{"ALL"}) || len(s.Capabilities.Add) > 0 || s.Privileged != nil {
			t.Errorf("%s: %+v", c.Name, s)
		}
		for _, m := range c.VolumeMounts {
			may := c.Name == "securefiles" && m.Name == "socket" || c.Name == "nginx" && m.Name == "tmp"
			if m.ReadOnly == may {
				t.Errorf("%s may write to %s: %t", c.Name, m.Name, !m.ReadOnly)
			}
			if (m.Name == "users" || m.Name == "policy" || m.Name == "config") && c.Name != "securefiles" {
				t.Errorf("%s sees %s, which are the service's", c.Name, m.Name)
			}
		}
	}
	if *r.container("securefiles").SecurityContext.RunAsGroup != *r.container("nginx").SecurityContext.RunAsGroup {
		t.Error("nginx is not in the group of the socket")
	}
}

// Each mount has its volume, each volume its mount and its object, and each probe and
// service its port.
func TestThePodHangsTogether(t *testing.T) {
	for name, more := range map[string]string{"as it is": "", "with objects of one's own": "policy: {existingConfigMap: rules, model: yours}\nusers: {existingSecret: people}\n"} {
		r := render(t, more)
		pod := r.Spec.Template.Spec
		volumes := map[string]core.Volume{}
		for _, v := range pod.Volumes {
			volumes[v.Name] = v
			if v.ConfigMap != nil {
				if _, ours := r.maps[strings.TrimPrefix(v.ConfigMap.Name, "shop-securefiles")]; !ours && v.ConfigMap.Name != "rules" {
					t.Errorf("%s: there is no ConfigMap %s", name, v.ConfigMap.Name)
				}
			}
			if v.Secret != nil {
				if _, ours := r.secrets[strings.TrimPrefix(v.Secret.SecretName, "shop-securefiles")]; !ours && v.Secret.SecretName != "people" {
					t.Errorf("%s: there is no Secret %s", name, v.Secret.SecretName)
				}
			}
		}
		unused := maps.Clone(volumes)
		for _, c := range pod.Containers {
			ports := map[string]bool{}
			for _, p := range c.Ports {
				ports[p.Name] = true
			}
			for _, m := range c.VolumeMounts {
				if _, ok := volumes[m.Name]; !ok {
					t.Errorf("%s: %s mounts %s, which is no volume", name, c.Name, m.Name)
				}
				delete(unused, m.Name)
			}
			for what, probe := range map[string]*core.Probe{"lives": c.LivenessProbe, "is ready": c.ReadinessProbe} {
				switch {
				case probe == nil:
					t.Errorf("%s: nobody asks whether %s %s", name, c.Name, what)
				case probe.HTTPGet != nil && !ports[probe.HTTPGet.Port.StrVal], probe.TCPSocket != nil && !ports[probe.TCPSocket.Port.StrVal]:
					t.Errorf("%s: %s has no port for whether it %s", name, c.Name, what)
				}
			}
		}
		for volume := range unused {
			t.Errorf("%s: nobody mounts %s", name, volume)
		}
		for labels, selector := range map[*map[string]string]map[string]string{&r.Spec.Template.Labels: r.services[""].Spec.Selector} {
			if !within(selector, *labels) {
				t.Errorf("%s: the service selects %v, and the pods are %v", name, selector, *labels)
			}
		}
	}
	c := render(t, "policy: {model: yours}\n").container("securefiles")
	if !slices.Contains(c.Env, core.EnvVar{Name: "SECUREFILES_POLICY_MODEL", Value: "/etc/securefiles/policy/model.conf"}) {
		t.Errorf("a model is not named: %v", c.Env)
	}
}

// within reports whether labels have all that is selected by.
func within(selector, labels map[string]string) bool {
	for k, v := range selector {
		if labels[k] != v {
			return false
		}
	}
	return len(selector) > 0
}

func TestMonitoringAndBudgetWhereTheyAreMeant(t *testing.T) {
	plain, all := render(t, "replicas: 1\n"), render(t, "replicas: 3\nserviceMonitor: {enabled: true, interval: 15s, labels: {release: prometheus}}\n")
	if plain.budget != nil || plain.monitor != nil || len(plain.services) != 1 {
		t.Error("one replica has a budget, with which no node could be drained, or a monitor that nobody asked for")
	}
	if *all.Spec.Replicas != 3 || all.budget == nil || all.budget.Spec.MaxUnavailable.IntValue() != 1 || !within(all.budget.Spec.Selector.MatchLabels, all.Spec.Template.Labels) {
		t.Errorf("the budget is %+v", all.budget)
	}
	service := all.services["-metrics"]
	if all.monitor == nil || !within(all.monitor.Spec.Selector.MatchLabels, service.Labels) || within(all.monitor.Spec.Selector.MatchLabels, all.services[""].Labels) || all.monitor.Labels["release"] != "prometheus" {
		t.Fatalf("the monitor selects something else: %+v", all.monitor)
	}
	end := all.monitor.Spec.Endpoints[0]
	if end.Port != service.Spec.Ports[0].Name || service.Spec.Ports[0].TargetPort.StrVal != "metrics" || end.Interval != "15s" || !within(service.Spec.Selector, all.Spec.Template.Labels) {
		t.Errorf("the monitor asks %+v of %+v", end, service.Spec)
	}
}

// What cannot serve is refused, and says why, before anything is installed.
func TestBadValuesAreRefused(t *testing.T) {
	if out, err := template(t); err == nil || !strings.Contains(out, "files.volume: name the volume") {
		t.Errorf("no files: %v, %s", err, out)
	}
	for _, c := range []struct{ values, message string }{
		{"config: 'listen: unix:/x'\n", "nginxConfig, which belongs to it, is not"},
		{"nginxConfig: text\n", "config, which it belongs to, is not"},
		{"replicaCount: 3\n", "replicaCount"},
		{"replicas: two\n", "/replicas"},
		{"replicas: -1\n", "/replicas"},
		{"service: {port: 0}\n", "/service/port"},
		{"service: {type: Ingress}\n", "/service/type"},
		{"image: {tag: 'a b'}\n", "/image/tag"},
		{"image: {repository: ''}\n", "/image/repository"},
		{"nginx: {uid: 0}\n", "/nginx/uid"},
		{"policy: {existingConfigMap: Not_a_name}\n", "/policy/existingConfigMap"},
		{"users: {htpasswd: [alice]}\n", "/users/htpasswd"},
		{"serviceMonitor: {interval: soon}\n", "/serviceMonitor/interval"},
		{"podDisruptionBudget: {maxUnavailable: most}\n", "/podDisruptionBudget/maxUnavailable"},
		{"terminationGracePeriodSeconds: 1\n", "/terminationGracePeriodSeconds"},
	} {
		if out, err := template(t, "--values", values(t, c.values)); err == nil || !strings.Contains(out, c.message) {
			t.Errorf("%s%v, %s\nwant %s", c.values, err, out, c.message)
		}
	}
}

// The pod's configuration as it is rendered, with real nginx: only paths and ports are
// others.
func TestThePodServes(t *testing.T) {
	nginx, err := exec.LookPath("nginx")
	if err != nil {
		t.Fatal("nginx is not installed: make test-packages installs it")
	}
	r := render(t, "users: {htpasswd: '"+strings.TrimSpace(hash(t))+"'}\npolicy: {csv: 'p, alice, /mine/**, read, allow'}\n")
	dir := t.TempDir()
	admin, web := free(t), free(t)
	place := strings.NewReplacer("/etc/securefiles", dir+"/etc", "/run/securefiles", dir+"/run", "/var/www/securefiles", dir+"/files", "/tmp/", dir+"/tmp/",
		"0.0.0.0:9181", admin, "listen 8080;", "listen "+web+";", "shutdown_delay: 10s", "shutdown_delay: 10ms")
	for name, text := range map[string]string{
		"etc/config/securefiles.yaml": r.maps["-config"].Data["securefiles.yaml"], "etc/policy/policy.csv": r.maps["-policy"].Data["policy.csv"],
		"etc/users/users.htpasswd": r.secrets["-users"].StringData["users.htpasswd"], "nginx.conf": r.maps["-nginx"].Data["nginx.conf"],
		"files/mine/a.txt": "alice's", "run/.keep": "", "tmp/.keep": "",
	} {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(place.Replace(text)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for d := dir; d != os.TempDir() && len(d) > 1; d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, d := range []string{"run", "tmp"} { // as the kubelet makes an emptyDir
		if err := os.Chmod(filepath.Join(dir, d), 0o777); err != nil {
			t.Fatal(err)
		}
	}
	service := r.container("securefiles")
	uid := func(c core.Container) int { return int(*c.SecurityContext.RunAsUser) }
	start(t, dir, uid(service), place, append([]string{securefiles}, service.Args...), service.Env)
	start(t, dir, uid(r.container("nginx")), place, append([]string{nginx, "-c", dir + "/nginx.conf", "-e", "stderr"}, r.container("nginx").Command[1:]...), nil)
	get := func(url, user string) (int, string) {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+url, nil)
		if err != nil {
			t.Fatal(err)
		}
		if user != "" {
			request.SetBasicAuth(user, "secret")
		}
		answer, err := http.DefaultClient.Do(request)
		if err != nil {
			return 0, err.Error()
		}
		defer answer.Body.Close()
		text, err := io.ReadAll(answer.Body)
		if err != nil {
			t.Fatal(err)
		}
		return answer.StatusCode, string(text)
	}
	for _, url := range []string{admin + service.ReadinessProbe.HTTPGet.Path, admin + service.LivenessProbe.HTTPGet.Path, web + "/downloads/mine/a.txt"} {
		for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
			if code, text := get(url, "alice"); code == 200 {
				break
			} else if time.Now().After(deadline) {
				t.Fatalf("%s answers %d, %s", url, code, text)
			}
		}
	}
	if code, text := get(web+"/downloads/mine/a.txt", "alice"); code != 200 || text != "alice's" {
		t.Errorf("alice gets %d, %s", code, text)
	}
	if code, _ := get(web+"/downloads/mine/a.txt", ""); code != 401 {
		t.Errorf("anybody gets %d", code)
	}
}

func hash(t *testing.T) string {
	out, err := exec.Command("openssl", "passwd", "-6", "secret").Output()
	if err != nil {
		t.Fatal(err)
	}
	return "alice:" + string(out)
}

// free is an address that nobody listens on, and no other one until the test is over: the
// number is held by UDP. It is below those that Linux gives to whoever wants any.
func free(t *testing.T) string {
	for range 1000 {
		address := fmt.Sprintf("127.0.0.1:%d", 22_240+rand.IntN(10_000))
		held, err := net.ListenPacket("udp", address)
		if err != nil {
			continue
		}
		t.Cleanup(func() { _ = held.Close() })
		if l, err := net.Listen("tcp", address); err == nil {
			_ = l.Close()
			return address
		}
	}
	t.Fatal("no port is free")
	return ""
}

// start runs a container's command until the test ends, as its user where root may, in
// nginx's group.
func start(t *testing.T, dir string, uid int, place *strings.Replacer, args []string, env []core.EnvVar) {
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir = dir
	if os.Getuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: 101}}
	}
	for _, e := range env {
		cmd.Env = append(cmd.Env, fmt.Sprintf("%s=%s", e.Name, place.Replace(e.Value)))
	}
	// Its own, as runc makes it: nginx opens /dev/stdout.
	log, err := os.OpenFile(filepath.Join(t.TempDir(), "log"), os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err == nil && os.Getuid() == 0 {
		err = log.Chown(uid, 101)
	}
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Error(err)
		}
		if err := cmd.Wait(); err != nil || t.Failed() {
			text, _ := os.ReadFile(log.Name())
			t.Errorf("%s: %v\n%s", args[0], err, text)
		}
		log.Close()
	})
}
