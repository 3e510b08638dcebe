package integration_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"securefiles/internal/postgrestest"
	"securefiles/schema"
)

// The database and the service are killed under load, and the file is rotated
// meanwhile: in the end the database has each record of the files once, byte for byte,
// and the search finds them there.
func TestAuditDatabaseHasEachRecordOnceWhateverIsKilled(t *testing.T) {
	t.Parallel()
	database := postgrestest.Start(t)
	sql, err := schema.FS.ReadFile("postgres.sql")
	if err != nil {
		t.Fatal(err)
	}
	database.Query(string(sql))
	p := deliveredPlan(", postgres: {url_file: database-url}", nil)
	deliveries := p.before
	p.before = func(s *site) {
		deliveries(s)
		s.write("database-url", database.URL())
	}
	s := start(t, p)
	const file = "/downloads/project/plan.txt"
	l := s.load(loadRequest{user: "alice", path: file, right: []int{200, 500, 502, 503}, body: s.texts["project/plan.txt"]})
	rows := func() string { return database.Query("SELECT count(*) FROM securefiles_audit") }
	l.goOn(s, 50)
	s.eventually("there are rows", func() bool { return rows() != "0" })
	database.Kill()
	l.goOn(s, 100)
	if err := os.Rename(filepath.Join(s.dir, "audit.jsonl"), filepath.Join(s.dir, "audit.jsonl.1")); err != nil {
		t.Fatal(err)
	}
	end(s.daemon) // kill -9; the next one opens a new file
	s.startService()
	l.goOn(s, 100)
	s.eventually("the failure is counted", func() bool { return s.metric(`securefiles_audit_send_failures_total{sink="postgres"}`) != "0" })
	database.Start()
	l.goOn(s, 50)
	l.end(t)
	last := s.get("alice", file)
	s.delivered(last.header.Get("X-Request-Id"))

	var want []string
	lines := func() []string {
		var all []string
		for _, name := range []string{"audit.jsonl.1", "audit.jsonl"} {
			text, err := os.ReadFile(filepath.Join(s.dir, name))
			if err != nil {
				t.Fatal(err)
			}
			for line := range strings.Lines(string(text)) {
				if strings.HasPrefix(line, "{") && strings.HasSuffix(line, "}\n") {
					all = append(all, strings.TrimSuffix(line, "\n"))
				}
			}
		}
		return all
	}
	s.eventually("each record is stored", func() bool {
		want = lines()
		return rows() == fmt.Sprint(len(want))
	})
	got := strings.Split(database.Query("SELECT line FROM securefiles_audit"), "\n")
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("%d rows are not the %d lines of the files", len(got), len(want))
	}
	if lag := s.metric(`securefiles_audit_passed_over_total{follower="postgres"}`); lag != "0" {
		t.Errorf("%s are passed over", lag)
	}
	out, err := s.command(binary, "audit", "--config", "securefiles.yaml", "--postgres", "database-url", "--json", "--request", last.header.Get("X-Request-Id")).Output()
	if err != nil || strings.Count(string(out), "\n") != 2 || !strings.Contains(string(out), `"delivery":"complete"`) {
		t.Errorf("the search in the database: %v\n%s", err, out)
	}
	if strings.Contains(s.log.String(), "planted-password") {
		t.Error("the password stands in the log")
	}
}

// A syslog server that stops reading, and one that is not there, hold up nobody: each
// file is served, each record waits in the file, and arrives when the server reads again.
func TestAuditGoesOnWhileTheSyslogServerDoesNotRead(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	var mu sync.Mutex
	arrived := map[string]bool{} // lines of the file
	reads := false
	var held []net.Conn
	serve := func(l net.Listener) {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			if !reads {
				held = append(held, conn) // open, and nobody reads
				mu.Unlock()
				continue
			}
			mu.Unlock()
			text, _ := io.ReadAll(conn) // a part is sent again
			mu.Lock()
			for _, message := range strings.SplitAfter(string(text), "}") {
				if i := strings.Index(message, "{\"v\":1"); i >= 0 {
					arrived[message[i:]] = true
				}
			}
			mu.Unlock()
			_ = conn.Close()
		}
	}
	go serve(l)
	s := start(t, deliveredPlan(fmt.Sprintf(", syslog: {url: 'tcp://%s'}", address), someFiles()))
	const file = "/downloads/project/plan.txt"
	load := s.load(loadRequest{user: "alice", path: file, right: []int{200}, body: s.texts["project/plan.txt"]})
	failures := func() string { return s.metric(`securefiles_audit_send_failures_total{sink="syslog"}`) }
	s.eventually("a server that does not read is counted", func() bool { return failures() != "0" })
	load.goOn(s, 100)
	if err := l.Close(); err != nil { // and now it is gone
		t.Fatal(err)
	}
	mu.Lock()
	for _, conn := range held {
		_ = conn.Close()
	}
	reads = true
	mu.Unlock()
	was := failures()
	s.eventually("one that is not there too", func() bool { return failures() != was })
	load.goOn(s, 100)
	if s.metric(`securefiles_audit_sent_total{sink="syslog"}`) != "0" || s.metric(`securefiles_audit_lag_bytes{follower="syslog"}`) == "0" {
		t.Error("records are said to have arrived")
	}
	load.end(t)
	if l, err = net.Listen("tcp", address); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go serve(l)
	s.eventually("nothing is awaited", func() bool { return s.metric("securefiles_audit_awaited") == "0" })
	s.eventually("all has arrived", func() bool { return s.metric(`securefiles_audit_lag_bytes{follower="syslog"}`) == "0" })
	text, err := os.ReadFile(filepath.Join(s.dir, "audit.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	defer mu.Unlock()
	n := 0
	for line := range strings.Lines(string(text)) {
		if n++; !arrived[strings.TrimSuffix(line, "\n")] {
			t.Errorf("it never arrived: %s", line)
		}
	}
	if n != len(arrived) || n < 2*load.answers {
		t.Errorf("%d records, %d arrived, %d answers", n, len(arrived), load.answers)
	}
}

// A dot on the graph of denials leads to the record of the request.
func (m *monitored) exemplarsLeadToRecords() {
	m.t.Helper()
	id := m.status("bob", "/downloads/private/secret.txt", 404).header.Get("X-Request-Id")
	m.eventually("Prometheus has the request's id", func() bool {
		now := time.Now()
		r, err := http.Get("http://" + m.prometheus + "/api/v1/query_exemplars?" + url.Values{"query": {`securefiles_decisions_total{decision="deny"}`},
			"start": {fmt.Sprint(now.Add(-time.Hour).Unix())}, "end": {fmt.Sprint(now.Add(time.Hour).Unix())}}.Encode())
		if err != nil {
			return false
		}
		defer r.Body.Close() //nolint:errcheck // it is read
		var answer struct {
			Data []struct {
				Exemplars []struct{ Labels map[string]string }
			}
		}
		if err := json.NewDecoder(r.Body).Decode(&answer); err != nil {
			m.t.Fatal(err)
		}
		for _, series := range answer.Data {
			for _, e := range series.Exemplars {
				if e.Labels["request_id"] == id {
					return true
				}
			}
		}
		return false
	})
	out, err := m.command(binary, "audit", "--config", "securefiles.yaml", "--json", "--request", id).Output()
	if err != nil || !strings.Contains(string(out), `"path":"/private/secret.txt"`) {
		m.t.Errorf("the search: %v\n%s", err, out)
	}
}
