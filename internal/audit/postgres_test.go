package audit

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"securefiles/internal/postgrestest"
	"securefiles/schema"
)

// database starts a PostgreSQL with the table, whose writer may add rows and nothing
// else, and returns the file with the writer's URL.
func database(t *testing.T) (server *postgrestest.Server, urlFile string) {
	t.Helper()
	server = postgrestest.Start(t)
	sql, err := schema.FS.ReadFile("postgres.sql")
	if err != nil {
		t.Fatal(err)
	}
	server.Query(string(sql))
	server.Query(string(sql)) // it may be run again
	server.Query("CREATE ROLE writer LOGIN PASSWORD 'w'; GRANT INSERT ON securefiles_audit TO writer; CREATE ROLE reader LOGIN PASSWORD 'r'; GRANT SELECT ON securefiles_audit TO reader")
	return server, urlOf(t, server, "writer:w")
}

// urlOf is a file with the URL of a user of the server.
func urlOf(t *testing.T, server *postgrestest.Server, who string) string {
	t.Helper()
	_, rest, _ := strings.Cut(server.URL(), "@")
	name := filepath.Join(t.TempDir(), "url")
	if err := os.WriteFile(name, []byte("postgres://"+who+"@"+rest+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func (s *shipTest) rows(server *postgrestest.Server) int {
	s.Helper()
	n, err := strconv.Atoi(server.Query("SELECT count(*) FROM securefiles_audit"))
	if err != nil {
		s.Fatal(err)
	}
	return n
}

func TestPostgresKilledAndBackHasEachRecordOnce(t *testing.T) {
	server, url := database(t)
	s := newShipTest(t)
	stop := s.ship(NewPostgres(url, s.path, nil))
	s.write(3000)
	s.eventually(func() string { return missing(s.Sent() > 0, "nothing is sent") })
	server.Kill()
	s.write(3000)
	s.eventually(func() string { return missing(s.Failures() > 0, "no failure is counted") })
	if err := os.Rename(s.path, s.path+".1"); err != nil {
		t.Fatal(err)
	}
	s.write(1000)
	server.Start()
	s.eventually(func() string { return missing(s.rows(server) == s.written, fmt.Sprint(s.rows(server), " rows")) })
	stop()

	// Where it is forgotten how far they were sent, all come again, and are there already.
	if err := os.Remove(s.path + ".test.state"); err != nil {
		t.Fatal(err)
	}
	s.write(10)
	s.ship(NewPostgres(url, s.path, nil))
	s.eventually(func() string { return missing(int(s.Sent()) == s.written, fmt.Sprint(s.Sent(), " sent")) })
	if rows := s.rows(server); rows != s.written {
		t.Errorf("%d rows of %d records", rows, s.written)
	}
	got := strings.Split(server.Query("SELECT line FROM securefiles_audit ORDER BY time"), "\n")
	for i := range s.written {
		if want := string(record(i).Append(nil)); got[i] != want {
			t.Fatalf("%s\nwant %s", got[i], want)
		}
	}
	host, _ := os.Hostname()
	if got, want := server.Query("SELECT instance, time AT TIME ZONE 'UTC', type, request, subject, download, path FROM securefiles_audit ORDER BY time LIMIT 1"),
		fmt.Sprintf("%s:%s|2025-11-26 23:00:00|decision|%032x|alice|main|/ä/0.pdf", host, s.path, 0); got != want {
		t.Errorf("%s\nwant %s", got, want)
	}
}

func TestPostgresHoldsWhateverAClientWrote(t *testing.T) {
	server, url := database(t)
	s := newShipTest(t)
	s.write(1)
	out, err := os.OpenFile(s.path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	hostile := []string{"\x00", "\xff", "a\x00b", "'; DROP TABLE securefiles_audit --", strings.Repeat("😀", 10000), "\u202e\n\x1b[31m", `\`, `{},"`, "NULL"}
	for _, text := range hostile {
		r := &Record{Type: TypeDecision, Time: time.Now(), Request: text, Path: text, Subject: text, Download: text, Agent: text, Groups: []string{text}}
		if _, err := out.Write(append(r.Append(nil), '\n')); err != nil {
			t.Fatal(err)
		}
		s.written++
	}
	out.Close()
	s.ship(NewPostgres(url, s.path, nil))
	s.eventually(func() string { return missing(s.rows(server) == s.written, fmt.Sprint(s.rows(server), " rows")) })
	text, err := os.ReadFile(s.path)
	if err != nil {
		t.Fatal(err)
	}
	if got := server.Query("SELECT line FROM securefiles_audit ORDER BY position"); got+"\n" != string(text) {
		t.Errorf("the lines differ")
	}
	if s.Refused() != 0 {
		t.Errorf("%d refused", s.Refused())
	}
}

func TestPostgresWriterCanTakeNothingBack(t *testing.T) {
	server, url := database(t)
	text, err := os.ReadFile(url)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := connectPostgres(t.Context(), url)
	if err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	defer conn.Close(t.Context())
	for _, sql := range []string{"DELETE FROM securefiles_audit", "UPDATE securefiles_audit SET line = ''", "TRUNCATE securefiles_audit", "SELECT * FROM securefiles_audit", "DROP TABLE securefiles_audit"} {
		if _, err := conn.Exec(t.Context(), sql); err == nil || !strings.Contains(err.Error(), "42501") {
			t.Errorf("%s: %v", sql, err)
		}
	}
	if n := server.Query("SELECT count(*) FROM pg_class WHERE relname = 'securefiles_audit'"); n != "1" {
		t.Errorf("%s tables", n)
	}
}

func TestPostgresSaysWhatToDo(t *testing.T) {
	server := postgrestest.Start(t)
	entry := []Entry{{Line: record(1).Append(nil), Record: record(1), Position: Position{File: strings.Repeat("0", 32)}}}
	write := func(text string) string {
		name := filepath.Join(t.TempDir(), "url")
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	for _, c := range []struct{ name, file, want string }{
		{"no table", write(server.URL()), "securefiles schema postgres | psql"},
		{"no file", filepath.Join(t.TempDir(), "gone"), "no such file"},
		{"no URL", write("postgres://u:planted-secret@h:port/"), "postgres://USER:PASSWORD@HOST/DATABASE"},
		{"another machine, and no encryption is asked for", write("postgres://u:planted-secret@192.0.2.1/d"), "sslmode=verify-full"},
		{"a wrong password", write(strings.Replace(server.URL(), "planted", "wrong", 1)), "password authentication failed"},
	} {
		_, err := NewPostgres(c.file, "/audit.jsonl", &PostgresOptions{Timeout: 5 * time.Second}).Send(t.Context(), entry)
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "planted") || strings.Contains(err.Error(), "wrong-password") {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

// Whatever is asked, the database and the file answer the same.
func TestPostgresIsSearchedAsFilesAre(t *testing.T) {
	server, url := database(t)
	s := newShipTest(t)
	out, err := os.Create(s.path)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	at := time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)
	paths := []string{"/a", "/a/b", "/a/b/c.pdf", "/a%/x", "/a_/x", `/a\x`, "/a*", "/A/b", "/", "/\x00", "/a/" + strings.Repeat("ä", 600) + "1", "/a/" + strings.Repeat("ä", 600) + "2", ""}
	for i := range 400 {
		r := record(i)
		r.Time = at.Add(time.Duration(i) * time.Minute)
		r.Path, r.Subject, r.Groups = paths[i%len(paths)], []string{"alice", "bob", "anonymous", "a\x00b"}[i%4], []string{"@staff", "@anyone"}[i%2:]
		r.Client, r.Link, r.Download = []string{"192.0.2.1", "192.0.2.0/24", "2001:db8::1", "::ffff:192.0.2.1"}[i%4], []string{"", "l1"}[i%2], []string{"main", "docs"}[i%3%2]
		if i%5 == 0 {
			r.Type, r.Decision, r.Reason, r.Delivery = TypeDelivery, "", "", []string{Complete, Aborted}[i%2]
		}
		if i%7 == 0 {
			r.Path, r.Client, r.Sealed = "", "", "c2VhbGVk"
		}
		if _, err := out.Write(append(r.Append(nil), '\n')); err != nil {
			t.Fatal(err)
		}
		s.written++
	}
	s.ship(NewPostgres(url, s.path, nil))
	s.eventually(func() string { return missing(s.rows(server) == s.written, fmt.Sprint(s.rows(server), " rows")) })
	opens := func(r *Record) bool { r.Path, r.Client = "/a/sealed", "192.0.2.7"; return true }
	queries := []Query{
		{}, {Request: record(7).Request}, {Request: "none"}, {Link: "l1"}, {Download: "docs"}, {Reason: "policy"}, {Group: "staff"}, {Subjects: []string{"bob", "alice"}}, {Subjects: []string{"a\x00b"}},
		{Address: netip.MustParsePrefix("192.0.2.1/32")}, {Address: netip.MustParsePrefix("192.0.0.0/16")}, {Address: netip.MustParsePrefix("2001:db8::/32")},
		{Since: at.Add(time.Hour), Until: at.Add(2 * time.Hour)}, {Since: at.Add(30 * time.Second)}, {Until: at.Add(time.Minute)}, {Decision: "allow"}, {Delivery: Aborted}, {Path: "/**", Subjects: []string{"bob"}},
	}
	for _, p := range append(paths, "/a/**", "/a/*", "/a%/*", "/a_/**", "/**/c.pdf", "/[aA]/b", "/{a,A}/b", "/a/sealed", "**", "/a/ä*1") {
		queries = append(queries, Query{Path: p})
	}
	for _, q := range queries {
		if q.Validate() != nil {
			continue
		}
		var got, want []string
		table, err := (&Table{URLFile: urlOf(t, server, "reader:r"), Open: opens}).Search(t.Context(), &q, func(f *Found) error { got = append(got, string(f.Line)); return nil })
		if err != nil {
			t.Fatalf("%+v: %v", q, err)
		}
		files, err := (&Files{Paths: []string{s.path}, Open: opens}).Search(t.Context(), &q, func(f *Found) error { want = append(want, string(f.Line)); return nil })
		if err != nil {
			t.Fatalf("%+v: %v", q, err)
		}
		if !slices.Equal(got, want) || table.Sealed != files.Sealed || table.TornLines != 0 {
			t.Errorf("%+v: %d found, %+v; of files %d, %+v", q, len(got), table, len(want), files)
		}
	}
}
