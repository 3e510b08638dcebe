package audit

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/bmatcuk/doublestar/v4"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"securefiles/internal/regular"
)

// A Postgres stores records in the table of a PostgreSQL database that `securefiles
// schema postgres` prints: rows are added and never changed, a batch at a time, and a
// record that is sent twice is stored once.
type Postgres struct {
	urlFile  string
	instance string
	timeout  time.Duration
	conn     *pgx.Conn
}

// PostgresOptions are what a Postgres need not be told.
type PostgresOptions struct {
	// Timeout is how long a batch may take; 30 s if zero.
	Timeout time.Duration
}

// NewPostgres stores the records of the audit file, an absolute path, in the database
// whose URL (postgres://USER:PASSWORD@HOST/DATABASE?sslmode=verify-full) the file at
// urlFile holds. That is read for each connection, so that a password can be changed.
func NewPostgres(urlFile, auditFile string, opts *PostgresOptions) *Postgres {
	host, _ := os.Hostname()
	p := &Postgres{urlFile: urlFile, instance: cmp.Or(host, "localhost") + ":" + auditFile}
	if opts != nil {
		p.timeout = opts.Timeout
	}
	p.timeout = cmp.Or(p.timeout, 30*time.Second)
	return p
}

// connectPostgres connects to the database whose URL a file holds.
func connectPostgres(ctx context.Context, urlFile string) (*pgx.Conn, error) {
	text, err := regular.Read(urlFile, 64<<10)
	if err != nil {
		return nil, err
	}
	config, err := pgx.ParseConfig(strings.TrimSpace(string(text)))
	if err != nil {
		// What pgx says may hold a part of the URL, and so of the password.
		return nil, fmt.Errorf("%s holds no URL of a database: write postgres://USER:PASSWORD@HOST/DATABASE?sslmode=verify-full", urlFile)
	}
	plain := config.TLSConfig == nil
	for _, f := range config.Fallbacks {
		plain = plain || f.TLSConfig == nil
	}
	if plain && !local(config.Host) && !strings.Contains(string(text), "sslmode=") {
		return nil, fmt.Errorf("the connection to %s need not be encrypted: put ?sslmode=verify-full behind the URL in %s", config.Host, urlFile)
	}
	// No prepared statements, which a pooler in between may not know.
	config.DefaultQueryExecMode = pgx.QueryExecModeExec
	config.RuntimeParams["application_name"] = "securefiles"
	return pgx.ConnectConfig(ctx, config)
}

// local says that a host of a database is this machine: a directory of a socket, or
// loopback.
func local(host string) bool {
	return strings.HasPrefix(host, "/") || host == "localhost" || net.ParseIP(host).IsLoopback()
}

const insertRecords = `INSERT INTO securefiles_audit (file, position, instance, time, type, request, subject, download, path, line)
SELECT r.file::uuid, r.position, $1, r.time, r.type, r.request, r.subject, r.download, r.path, r.line
FROM unnest($2::text[], $3::bigint[], $4::timestamptz[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[], $10::text[])
  AS r(file, position, time, type, request, subject, download, path, line)
ON CONFLICT DO NOTHING`

// Send stores the entries, all or none. It is for one goroutine. An entry that the
// database cannot hold is refused when it comes alone.
func (p *Postgres) Send(ctx context.Context, entries []Entry) (refused int, err error) {
	ctx, cancel := context.WithTimeout(ctx, p.timeout)
	defer cancel()
	if p.conn == nil {
		conn, err := connectPostgres(ctx, p.urlFile)
		if err != nil {
			return 0, fmt.Errorf("connect to PostgreSQL: %w", err)
		}
		p.conn = conn
	}
	n := len(entries)
	files, positions, times := make([]string, n), make([]int64, n), make([]time.Time, n)
	types, requests, subjects, downloads, paths, lines := make([]string, n), make([]string, n), make([]string, n), make([]string, n), make([]string, n), make([]string, n)
	for i, e := range entries {
		r := e.Record
		files[i], positions[i], times[i], lines[i] = e.File, e.Offset, r.Time, string(e.Line)
		types[i], requests[i], subjects[i], downloads[i], paths[i] = column(r.Type), column(r.Request), column(r.Subject), column(r.Download), column(r.Path)
	}
	_, err = p.conn.Exec(ctx, insertRecords, p.instance, files, positions, times, types, requests, subjects, downloads, paths, lines)
	if err == nil {
		return 0, nil
	}
	var answer *pgconn.PgError
	// Classes 22 and 54: a value that it cannot hold, and one that is beyond its limits.
	if n == 1 && errors.As(err, &answer) && (strings.HasPrefix(answer.Code, "22") || strings.HasPrefix(answer.Code, "54")) {
		return 1, nil
	}
	p.Close()
	if errors.As(err, &answer) && answer.Code == "42P01" {
		return 0, fmt.Errorf("store records in PostgreSQL: there is no table: make it by `securefiles schema postgres | psql`: %w", err)
	}
	return 0, fmt.Errorf("store records in PostgreSQL: %w", err)
}

// Close ends the connection.
func (p *Postgres) Close() {
	if p.conn != nil {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		p.conn.Close(ctx) // nothing waits on it
		p.conn = nil
	}
}

// columnRunes is how long a text may be that an index holds: at most 2,704 bytes with
// all beside it.
const columnRunes = 500

// column is a text as a column for indexes holds it.
func column(text string) string {
	if utf8.RuneCountInString(text) > columnRunes {
		text = string([]rune(text)[:columnRunes])
	}
	return strings.ReplaceAll(text, "\x00", "")
}

// A Table is a Source: the records of all instances that a Postgres has stored.
type Table struct {
	// URLFile holds the URL of the database, of a user who may read the table.
	URLFile string
	// Open opens what is sealed in a record; nil for nothing.
	Open func(*Record) (opened bool)
}

// Search asks the database for the records that may match, in the order of their times,
// and takes those that do.
func (t *Table) Search(ctx context.Context, q *Query, found func(*Found) error) (*Report, error) {
	report := &Report{}
	if err := q.Validate(); err != nil {
		return report, err
	}
	conn, err := connectPostgres(ctx, t.URLFile)
	if err != nil {
		return report, fmt.Errorf("connect to PostgreSQL: %w", err)
	}
	defer conn.Close(context.WithoutCancel(ctx)) //nolint:errcheck // all was read
	sql, args := q.sql()
	rows, err := conn.Query(ctx, sql, args...)
	if err != nil {
		return report, fmt.Errorf("search in PostgreSQL: %w", err)
	}
	defer rows.Close()
	s := &sifting{query: q, sieve: newSieve(q, nil), open: t.Open, found: found, Report: report}
	for n := 1; rows.Next(); n++ {
		if err := s.line("securefiles_audit", n, rows.RawValues()[0]); err != nil {
			return report, err
		}
	}
	if err := rows.Err(); err != nil {
		return report, fmt.Errorf("search in PostgreSQL: %w", err)
	}
	return report, nil
}

// sql asks for what may match: by the columns that have an index, and by what stands
// in a line that matches.
func (q *Query) sql() (string, []any) {
	where := []string{"type IN ('decision', 'delivery')"}
	var args []any
	add := func(condition string, arg any) {
		args = append(args, arg)
		where = append(where, fmt.Sprintf(condition, len(args)))
	}
	if !q.Since.IsZero() {
		add("time >= $%d", q.Since)
	}
	if !q.Until.IsZero() {
		add("time < $%d", q.Until)
	}
	if q.Request != "" {
		add("request = $%d", column(q.Request))
	}
	if len(q.Subjects) > 0 {
		var names []string
		for _, name := range q.Subjects {
			names = append(names, column(name))
		}
		add("subject = ANY ($%d::text[])", names)
	}
	if fixed, exact := q.fixedPath(); exact {
		add("(path = $%d OR path = '')", column(fixed)) // of what is sealed
	} else if fixed != "" {
		add("(path LIKE $%d OR path = '')", strings.NewReplacer(`\`, `\\`, "%", `\%`, "_", `\_`).Replace(column(fixed))+"%")
	}
	for _, c := range q.conditions() {
		var texts []string
		for _, value := range c.values {
			texts = append(texts, c.key+value)
		}
		if c.sealable {
			texts = append(texts, `"sealed":"`)
		}
		add("EXISTS (SELECT FROM unnest($%d::text[]) AS held WHERE strpos(line, held) > 0)", texts)
	}
	return "SELECT line FROM securefiles_audit WHERE " + strings.Join(where, " AND ") + " ORDER BY time, file, position", args
}

// fixedPath is how a path that matches begins, or all of it.
func (q *Query) fixedPath() (fixed string, exact bool) {
	if q.Path == "" {
		return "", false
	}
	if !strings.ContainsAny(q.Path, `*?[{\`) {
		return q.Path, true
	}
	fixed, _ = doublestar.SplitPattern(q.Path)
	if !path.IsAbs(fixed) || fixed == "/" {
		return "", false
	}
	return fixed, false
}
