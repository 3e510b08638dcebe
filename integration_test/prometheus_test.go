package integration_test

import (
	"bufio"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"securefiles/internal/freeport"
	"securefiles/internal/postgrestest"
	"securefiles/schema"
)

// A monitored site has a source of each kind, all of the audit trail, and a Prometheus
// that scrapes it by the rules of examples/prometheus.
type monitored struct {
	*site
	prometheus string // its address
	database   *postgrestest.Server
	syslog     net.Listener
	redis      *redisServer
	disk       string // that holds the audit file; empty if that is the site's own

	app struct {
		slow, away atomic.Bool
	}
	keysAway atomic.Bool
	asked    atomic.Int64 // makes request ids
}

// monitor starts a monitored site. The rules are those of the files but for how long an
// alert waits, which is no time at all.
func monitor(t *testing.T) *monitored {
	t.Helper()
	for _, command := range []string{"prometheus", "promtool"} {
		if _, err := exec.LookPath(command); err != nil {
			t.Fatalf("%s is needed: scripts/install.sh %s", command, command)
		}
	}
	m := &monitored{database: postgrestest.Start(t)}
	sql, err := schema.FS.ReadFile("postgres.sql")
	if err != nil {
		t.Fatal(err)
	}
	m.database.Query(string(sql))
	if m.syslog, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.syslog.Close() }) // a fault may have closed it
	go func() {
		for {
			conn, err := m.syslog.Accept()
			if err != nil {
				return
			}
			go func() { _, _ = io.Copy(io.Discard, conn); _ = conn.Close() }() // it may end in the middle
		}
	}()
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case m.app.away.Load():
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		case m.app.slow.Load():
			time.Sleep(700 * time.Millisecond) // the fault
		}
		if c, err := r.Cookie("session"); err != nil || !strings.HasPrefix(c.Value, "good") {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, `{"subject": "alice", "groups": []}`)
	}))
	t.Cleanup(app.Close)
	public, _, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	keys := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if m.keysAway.Load() {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		fmt.Fprintf(w, `{"keys":[{"kty":"OKP","crv":"Ed25519","alg":"EdDSA","use":"sig","kid":"1","x":%q}]}`, base64.RawURLEncoding.EncodeToString(public))
	}))
	t.Cleanup(keys.Close)

	p := deliveredPlan(fmt.Sprintf(", wait: 1s, syslog: {url: 'tcp://%s'}, postgres: {url_file: database-url}", m.syslog.Addr()), someFiles())
	p.files["public/big.bin"] = strings.Repeat("0123456789abcdef", 1<<20)
	p.identity = fmt.Sprintf("identity:\n  - htpasswd: users.htpasswd\n  - jwt: {issuer: here, audience: [downloads], jwks_url: '%s/'}\n  - session: {url: '%s/', cookies: [session], timeout: 1500ms, max_calls: 32}\nlimits: [{name: all, per: address, requests: 1000000/1m}]\nadmin_token_file: token\n", keys.URL, app.URL)
	m.redis = newRedis(t)
	p.extra += fmt.Sprintf("state: {fail: local, redis: {address: ['unix:%s']}}\n", m.redis.socket()) // a Redis that is away is one fault, not all
	readLog := p.before
	p.before = func(s *site) {
		readLog(s)
		s.write("token", linkToken)
		m.redis.s = s
		m.redis.start()
		model, err := os.ReadFile("../policy/internal/model/default_model.conf")
		if err != nil {
			t.Fatal(err)
		}
		s.write("model.conf", string(model))
		s.write("database-url", m.database.URL())
		s.edit("securefiles.yaml", "policy: {file: policy.csv}", "policy: {file: policy.csv, model: model.conf, shadow_share: 1, allow_shrink: true}")
		if os.Getuid() == 0 {
			m.disk = s.mounted("audit", 64<<20)
			s.edit("securefiles.yaml", "file: audit.jsonl", "file: audit/audit.jsonl")
		}
	}
	m.site = start(t, p)
	m.run(0, "state", "accept")
	m.startPrometheus()
	return m
}

func (m *monitored) startPrometheus() {
	m.t.Helper()
	waits := regexp.MustCompile(`(?m)^( +for: ).*$`)
	for _, name := range []string{"alerts.yaml", "recording.yaml"} {
		text, err := os.ReadFile("../examples/prometheus/" + name)
		if err != nil {
			m.t.Fatal(err)
		}
		m.write(name, waits.ReplaceAllString(string(text), "${1}0s"))
	}
	config, err := os.ReadFile("../examples/prometheus/prometheus.yaml")
	if err != nil {
		m.t.Fatal(err)
	}
	text := strings.Replace(string(config), "127.0.0.1:9181", m.admin, 1)
	m.write("prometheus.yaml", regexp.MustCompile(`(?m)^( *\w+_interval): .*$`).ReplaceAllString(text, "$1: 500ms"))
	m.prometheus = freeport.Address(m.t)
	cmd := m.command("prometheus", "--config.file=prometheus.yaml", "--storage.tsdb.path="+filepath.Join(m.t.TempDir(), "data"), "--web.listen-address="+m.prometheus,
		"--enable-feature=exemplar-storage", "--log.level=warn")
	var out logBuffer
	cmd.Stderr = &out
	if err := cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() { end(cmd) })
	m.eventually("Prometheus scrapes the service", func() bool {
		if cmd.ProcessState != nil {
			m.t.Fatalf("Prometheus: %s", out.String())
		}
		values, err := m.query(`up{job="securefiles"} == 1`)
		return err == nil && len(values) == 1
	})
}

// query returns the values that Prometheus answers with.
func (m *monitored) query(query string) ([]float64, error) {
	r, err := http.Get("http://" + m.prometheus + "/api/v1/query?query=" + url.QueryEscape(query))
	if err != nil {
		return nil, err
	}
	defer r.Body.Close() //nolint:errcheck // it is read
	var answer struct {
		Status, Error string
		Data          struct {
			Result []struct{ Value [2]any }
		}
	}
	if err := json.NewDecoder(r.Body).Decode(&answer); err != nil || answer.Status != "success" {
		return nil, errors.Join(err, errors.New(answer.Error))
	}
	var values []float64
	for _, one := range answer.Data.Result {
		text, _ := one.Value[1].(string)
		v, err := strconv.ParseFloat(text, 64)
		if err != nil {
			return nil, err
		}
		values = append(values, v)
	}
	return values, nil
}

// firing says whether an alert does.
func (m *monitored) firing(alert string) bool {
	m.t.Helper()
	values, err := m.query(fmt.Sprintf(`ALERTS{alertstate="firing",alertname=%q}`, alert))
	if err != nil {
		m.t.Fatal(err)
	}
	return len(values) > 0
}

// ask asks the service directly, as nginx does, and does not tell what became of it.
func (m *monitored) ask(cookie string) int {
	req, err := http.NewRequest(http.MethodGet, "http://"+m.service+"/authorize", nil)
	if err != nil {
		m.t.Fatal(err)
	}
	for name, value := range map[string]string{"X-Original-URI": "/downloads/public/welcome.txt", "X-Original-Method": "GET", "X-Real-IP": "192.0.2.1",
		"X-Request-ID": fmt.Sprintf("%032x", m.asked.Add(1)), "Cookie": cookie} {
		if value != "" {
			req.Header.Set(name, value)
		}
	}
	r, err := do(newClient(), req)
	if err != nil {
		return 0
	}
	return r.status
}

// traffic is some of everything that goes well, or is refused as it should be.
func (m *monitored) traffic(n int) {
	m.t.Helper()
	m.status("alice", "/downloads/project/plan.txt", 200)
	m.status("", "/downloads/public/welcome.txt", 200)
	m.status("bob", "/downloads/private/secret.txt", 404)
	m.status("", "/downloads/project/plan.txt", 401)
	m.status("", "/downloads/project/plan.txt", 200, with("Cookie", fmt.Sprint("session=good", n)))
	m.status("", "/downloads/public/big.bin", 200)
}

// Each query of the dashboard and each recording rule has an answer about a service
// that has a source of each kind and all of the audit trail, and the dashboard shows
// each metric that the service has.
func TestPrometheusAnswersEachQueryOfDashboardAndRules(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"check", "config", "../examples/prometheus/prometheus.yaml"}, {"test", "rules", "testdata/alerts_test.yaml"}} {
		if out, err := exec.Command("promtool", args...).CombinedOutput(); err != nil {
			t.Errorf("promtool %v: %v\n%s", args, err, out)
		}
	}
	m := monitor(t)
	text, err := os.ReadFile("../examples/grafana/securefiles.json")
	if err != nil {
		t.Fatal(err)
	}
	queries := map[string]string{}
	var dashboard struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(text, &dashboard); err != nil {
		t.Fatal(err)
	}
	for _, p := range dashboard.Panels {
		for i, target := range p.Targets {
			queries[fmt.Sprint(p.Title, " ", i)] = strings.NewReplacer("$instance", ".*", "$__rate_interval", "1m").Replace(target.Expr)
		}
	}
	rules, err := os.ReadFile("../examples/prometheus/recording.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, rule := range regexp.MustCompile(`record: (\S+)`).FindAllStringSubmatch(string(rules), -1) {
		queries[rule[1]] = rule[1]
	}
	if len(queries) < 50 {
		t.Fatalf("%d queries", len(queries))
	}
	n := 0
	missing := func() (none []string) {
		for name, query := range queries {
			values, err := m.query(query)
			if err != nil {
				t.Fatalf("%s: %s: %v", name, query, err)
			}
			data := false
			for _, v := range values {
				data = data || !math.IsNaN(v)
			}
			if !data {
				none = append(none, name+": "+query)
			}
		}
		return none
	}
	var none []string
	for deadline := time.Now().Add(patience); ; {
		n++
		m.traffic(n)
		m.write("policy.csv", alicesPolicy+fmt.Sprintf("# version %d\n", n))
		if none = missing(); len(none) == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("there is no answer to\n%s", strings.Join(none, "\n"))
		}
	}
	m.exemplarsLeadToRecords()
	_, metrics := m.adminGet("/metrics")
	for _, metric := range regexp.MustCompile(`(?m)^# TYPE (securefiles_\w+)`).FindAllStringSubmatch(metrics, -1) {
		if !regexp.MustCompile(metric[1] + `(_bucket|_sum|_count)?\{`).MatchString(string(text)) {
			t.Errorf("the dashboard does not show %s", metric[1])
		}
	}
}

// Each alert is silent while all is well, and fires when its fault is made.
func TestPrometheusFiresEachAlertWhenItsFaultIsMade(t *testing.T) {
	t.Parallel()
	m := monitor(t)
	text, err := os.ReadFile("../examples/prometheus/alerts.yaml")
	if err != nil {
		t.Fatal(err)
	}
	alerts := map[string]bool{}
	for _, alert := range regexp.MustCompile(`alert: (\S+)`).FindAllStringSubmatch(string(text), -1) {
		alerts[alert[1]] = true
	}
	// There is none to be made: promtool says that it fires (testdata/alerts_test.yaml).
	delete(alerts, "SecurefilesShadowMismatch")

	for n := range 5 {
		m.traffic(n)
	}
	m.eventually("Prometheus has seen the traffic", func() bool {
		values, err := m.query("sum(securefiles_audit_sent_total) >= 2*5*(6+4) and sum(securefiles_audit_awaited) == 0")
		return err == nil && len(values) > 0
	})
	for alert := range alerts {
		if m.firing(alert) {
			t.Errorf("%s fires while all is well", alert)
		}
	}

	file := filepath.Join(m.dir, "audit.jsonl")
	if m.disk != "" {
		file = filepath.Join(m.disk, "audit.jsonl")
	}
	deliveries := filepath.Join(m.dir, "logs", "deliveries.log")
	add := func(name, text string) {
		t.Helper()
		f, err := os.OpenFile(name, os.O_APPEND|os.O_WRONLY, 0)
		if err == nil {
			_, err = io.WriteString(f, text)
		}
		if err = errors.Join(err, f.Close()); err != nil {
			t.Fatal(err)
		}
	}
	// comes waits for an alert whose fault was made before.
	comes := func(name string) {
		t.Helper()
		if !alerts[name] {
			t.Fatalf("there is no alert %s", name)
		}
		delete(alerts, name)
		m.eventually(name+" fires", func() bool { return m.firing(name) })
	}
	fires := func(name string, fault func()) {
		t.Helper()
		if m.firing(name) {
			t.Errorf("%s fires before its fault is made", name)
		}
		fault()
		comes(name)
	}

	fires("SecurefilesAuditPassedOver", func() { add(file, "no record\n") })
	// This one looks at how old a record is: its fault is made here, and it fires below.
	m.database.Kill()
	behind := time.Now()
	m.traffic(100)
	fires("SecurefilesStale", func() { m.replace("policy.csv", "p, nonsense\n") })
	m.replace("policy.csv", alicesPolicy)
	fires("SecurefilesRestartNeeded", func() { m.edit("securefiles.yaml", "wait: 1s", "wait: 2s") })
	m.edit("securefiles.yaml", "wait: 2s", "wait: 1s")
	fires("SecurefilesDeliveryLines", func() { add(deliveries, "no delivery\n") })
	fires("SecurefilesDeliveriesUnknown", func() {
		for range 20 {
			if status := m.ask(""); status != 204 {
				t.Fatalf("the service answers %d", status)
			}
		}
	})
	fires("SecurefilesSlow", func() { m.app.slow.Store(true); m.ask("session=good-slow") })
	fires("SecurefilesBusy", func() {
		stop := make(chan struct{})
		var askers sync.WaitGroup
		for i := range 350 {
			askers.Go(func() {
				for n := 0; ; n++ {
					select {
					case <-stop:
						return
					default:
						m.ask(fmt.Sprintf("session=good-%d-%d", i, n))
					}
				}
			})
		}
		t.Cleanup(askers.Wait)
		defer close(stop)
		m.eventually("Prometheus sees them", func() bool { return m.firing("SecurefilesBusy") })
	})
	m.app.slow.Store(false)
	fires("SecurefilesKeysStale", func() {
		m.keysAway.Store(true)
		if err := m.daemon.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
	})
	fires("SecurefilesApplicationAway", func() {
		m.app.away.Store(true)
		for i := range 20 {
			m.ask(fmt.Sprint("session=good-away", i))
		}
	})
	comes("SecurefilesCannotDecide") // of these questions
	starter, err := os.ReadFile("../policy/internal/model/default_model.conf")
	if err != nil {
		t.Fatal(err)
	}
	model := string(starter)
	fires("SecurefilesLinksClosed", func() {
		conn, err := net.Dial("unix", m.redis.socket())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close() //nolint:errcheck // it has answered
		if _, err := io.WriteString(conn, "FLUSHALL\r\n"); err != nil {
			t.Fatal(err)
		}
		if answer, err := bufio.NewReader(conn).ReadString('\n'); err != nil || answer != "+OK\r\n" {
			t.Fatalf("%q, %v", answer, err)
		}
	})
	fires("SecurefilesRedisAway", func() { end(m.redis.cmd) })
	m.status("alice", "/downloads/project/plan.txt", 200) // its limits are the instance's own now
	m.redis.start()
	fires("SecurefilesPolicyNotIndexed", func() {
		m.replace("model.conf", strings.Replace(model, "globMatch(r.obj, p.obj)", "keyMatch4(r.obj, p.obj)", 1))
		lines := strings.Builder{}
		for i := range 12000 {
			fmt.Fprintf(&lines, "p, @anyone, /{a}/f%d/{b}, read, allow\n", i)
		}
		m.replace("policy.csv", lines.String())
	})
	m.replace("policy.csv", alicesPolicy)
	m.replace("model.conf", model)
	m.eventually("the old policy is back", func() bool { return m.get("", "/downloads/public/welcome.txt").status == 200 })
	if m.disk == "" {
		t.Log("only root may mount: SecurefilesAuditDisk is not tried here")
		delete(alerts, "SecurefilesAuditDisk")
	} else {
		fires("SecurefilesAuditDisk", func() {
			f, err := os.Create(filepath.Join(m.disk, "ballast"))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := io.CopyN(f, zeros{}, 55<<20); err != nil {
				t.Fatal(err)
			}
			if err := f.Close(); err != nil {
				t.Fatal(err)
			}
		})
	}
	m.eventually("the database is away for 50 s", func() bool { return time.Since(behind) > 50*time.Second })
	comes("SecurefilesAuditSinkBehind")

	// A delivery that cannot be recorded holds up those behind it.
	fires("SecurefilesAuditFailing", func() {
		conn, err := net.Dial("tcp", m.web)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() }) // nginx may have been faster
		if _, err := io.WriteString(conn, "GET /downloads/public/big.bin HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(conn, make([]byte, 1<<16)); err != nil { // it is allowed, and goes on
			t.Fatal(err)
		}
		info, err := os.Stat(file)
		if err != nil {
			t.Fatal(err)
		}
		if err := unix.Prlimit(m.daemon.Process.Pid, unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: uint64(info.Size()), Max: uint64(info.Size())}, nil); err != nil {
			t.Fatal(err)
		}
		if err := conn.Close(); err != nil {
			t.Fatal(err)
		}
		m.status("", "/downloads/public/welcome.txt", 503)
	})
	fires("SecurefilesAuditLag", func() { add(deliveries, strings.Repeat(strings.Repeat("x", 99)+"\n", 12000)) })
	fires("SecurefilesDown", func() { end(m.daemon) })
	for alert := range alerts {
		t.Errorf("%s has no fault", alert)
	}
}
