package cli

import (
	"bufio"
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/dustin/go-humanize"

	"securefiles/internal/audit"
	"securefiles/internal/config"
	"securefiles/internal/terminal"
	"securefiles/policy/explain"
)

// auditCommand is what can be done with the record of decisions and deliveries.
type auditCommand struct {
	Search auditSearchCommand `cmd:"" default:"withargs" help:"Search the record, or sum it up."`
	Verify auditVerifyCommand `cmd:"" help:"Say whether records were changed, removed or moved."`
	Key    auditKeyCommand    `cmd:"" help:"Make a key that signs a chain of records."`
	Erase  auditEraseCommand  `cmd:"" help:"Make unreadable what is recorded of a subject."`
}

// Help shows the questions that it answers.
func (auditCommand) Help() string { return auditSearchCommand{}.Help() }

type auditSearchCommand struct {
	Files []string `arg:"" optional:"" name:"file" help:"Files of records, plain or compressed by gzip or zstd, /dev/stdin too. Default: audit.file of the configuration, and what it was rotated to."`

	Postgres string `placeholder:"FILE" type:"path" help:"Search the database instead whose URL the file holds, of a user who may read the table: all instances at once."`

	Request  string `placeholder:"ID" help:"By the id of the request, which error pages show."`
	Subject  string `placeholder:"NAME" help:"By the user, or anonymous."`
	Group    string `placeholder:"NAME" help:"By a group of the user, with or without @."`
	Path     string `placeholder:"PATH" help:"By the file, as explain has it; with /** behind for all below; or by a pattern of *, **, ?, [ ] and { }."`
	Download string `placeholder:"NAME" help:"By the download."`
	Link     string `placeholder:"ID" help:"By the link that was used."`
	Address  string `placeholder:"ADDR" help:"By the client's address, or a network (10.0.0.0/8)."`
	Since    string `placeholder:"TIME" help:"From when on: a span before now (90d, 12h), today, yesterday, 2026-12-31 (its first moment), '2026-12-31 18:00:00', 2026-12-31T18:00:00Z."`
	Until    string `placeholder:"TIME" help:"Before when, as --since has it."`
	Decision string `default:"" enum:",allow,deny" placeholder:"WORD" help:"Decisions alone: allow or deny."`
	Delivery string `default:"" enum:",complete,aborted,none,unknown" placeholder:"WORD" help:"Deliveries alone: complete, aborted, none or unknown."`
	Reason   string `placeholder:"WORD" help:"Decisions alone, by their reason."`

	By     string `default:"" enum:",subject,path,day,link" placeholder:"WHAT" help:"Sum up by subject, path, day or link."`
	JSON   bool   `name:"json" xor:"form" help:"Print as JSON, one object a line."`
	CSV    bool   `name:"csv" xor:"form" help:"Print as CSV, for spreadsheets."`
	Follow bool   `help:"Go on with what will be recorded, until interrupted."`
}

// Help shows the questions that it answers.
func (auditSearchCommand) Help() string {
	return `The word search can be left out. Days and times are in the time zone of the policy. Requests for parts of a file by one client are summed: "12 requests, 1.0 GiB of 1.0 GiB, complete". Exits 0 where something was found, 1 where nothing was.

Who got this file in the last 90 days, and how much of it?
  securefiles audit --path /project/plan.pdf --since 90d --by subject
What did bob download yesterday?
  securefiles audit --subject bob --since yesterday --until today --by path
What came of this request?
  securefiles audit --request 5f0c4c7d0e0b4b3a8d1a0c5f2b9e6d71
Who was refused what, and why, as it comes about?
  securefiles audit --decision deny --since today --follow`
}

func (cmd *auditSearchCommand) Run(ctx context.Context, env Env, all *commands) error {
	conf, err := all.load(env)
	if err != nil {
		return err
	}
	zone, err := time.LoadLocation(conf.Policy.Timezone)
	if err != nil {
		return err
	}
	query, err := cmd.query(conf, zone, time.Now())
	if err != nil {
		return err
	}
	if cmd.By != "" && cmd.Follow {
		return errors.New("--follow has no end at which to sum up: leave --by out")
	}
	shown := newProgress(env, "searching")
	source := &audit.Files{}
	if cmd.Postgres != "" {
		if len(cmd.Files) > 0 || cmd.Follow {
			return errors.New("--postgres searches the database alone: leave files and --follow out")
		}
	} else if source.Paths, err = cmd.files(conf); err != nil {
		return err
	}
	if keys := conf.Audit.Privacy.Keys; keys != "" {
		store, err := audit.OpenKeyStore(keys, false)
		if err == nil {
			defer store.Close()
			source.Open = store.Open
			if id, ok := store.ID(cmd.Subject); ok && cmd.Subject != "" {
				query.Subjects = append(query.Subjects, id)
			}
		} else if !errors.Is(err, fs.ErrNotExist) {
			fmt.Fprintf(env.Stderr, "securefiles: what is sealed stays so: %v\n", err)
		}
	}
	if key, err := AuditKey(conf); err == nil && key != nil && cmd.Subject != "" {
		if err := key.Reload(ctx); err != nil {
			return conf.At("audit.privacy.key_file", err.Error())
		}
		query.Subjects = append(query.Subjects, audit.Keyed(key.Text(), cmd.Subject))
	}
	source.Progress = shown.read
	if cmd.Follow {
		source.Follow = source.Paths[len(source.Paths)-1]
	}
	out := cmd.printer(env, zone, shown)
	source.Idle = func() {
		shown.done()
		_ = out.flush() // what cannot be written now cannot be at the end
	}
	found := 0
	var summary *audit.Summary
	take := out.record
	if cmd.By != "" {
		summary = audit.NewSummary(cmd.By, zone)
		take = func(f *audit.Found) error {
			summary.Add(f.Record)
			return nil
		}
	}
	var from audit.Source = source
	if cmd.Postgres != "" {
		from = &audit.Table{URLFile: cmd.Postgres, Open: source.Open}
	}
	report, err := from.Search(ctx, query, func(f *audit.Found) error {
		found++
		return take(f)
	})
	if cmd.Follow && errors.Is(err, context.Canceled) {
		err = nil
	}
	shown.done()
	if summary != nil {
		for _, row := range summary.Rows() {
			if row.Others {
				fmt.Fprintf(env.Stderr, "securefiles: there are more than %d to be told apart: the last row sums up the others, and some downloads in parts are counted once a part; ask for less, by time or path\n", audit.MaxSummed)
			}
			err = errors.Join(err, out.row(&row))
		}
	}
	err = errors.Join(err, out.flush())
	tell(env.Stderr, report)
	if err == nil && found == 0 {
		return errNo
	}
	return err
}

// files are where the record is, the one that is written to last.
func (cmd *auditSearchCommand) files(conf *config.Config) ([]string, error) {
	if len(cmd.Files) > 0 {
		return cmd.Files, nil
	}
	switch conf.Audit.File {
	case "":
		return nil, conf.At("audit", "there is no audit.file, so no record is kept: set one, or name files of records")
	case config.AuditStdout:
		return nil, conf.At("audit.file", "the record goes to standard output: name files of what keeps it, or pipe it: journalctl -u securefiles -o cat | securefiles audit /dev/stdin --since 90d")
	}
	files, err := audit.Rotated(conf.Audit.File)
	if err != nil {
		return nil, err
	}
	if there := slices.Contains(files, conf.Audit.File); !there && (cmd.Follow || len(files) == 0) {
		files = append(files, conf.Audit.File)
	}
	return files, nil
}

// tell says what else is to be told of a search.
func tell(w io.Writer, report *audit.Report) {
	const shown = 10
	for _, p := range report.Torn[:min(len(report.Torn), shown)] {
		fmt.Fprintf(w, "securefiles: %s:%d: passed over, no record: torn by a crash or a full disk, or not of this file\n", terminal.Printable(p.File), p.Line)
	}
	if more := report.TornLines - min(len(report.Torn), shown); more > 0 {
		fmt.Fprintf(w, "securefiles: and %d more lines that are no records\n", more)
	}
	if report.Later > 0 {
		fmt.Fprintf(w, "securefiles: %d records are of a later version of securefiles, and were passed over: use that\n", report.Later)
	}
	if report.Sealed > 0 {
		fmt.Fprintf(w, "securefiles: %d records may match, and cannot be opened: their subjects were erased, or audit.privacy.keys names another store\n", report.Sealed)
	}
}

// query reads the flags.
func (cmd *auditSearchCommand) query(conf *config.Config, zone *time.Location, now time.Time) (*audit.Query, error) {
	q := &audit.Query{
		Request: cmd.Request, Group: cmd.Group, Download: cmd.Download, Link: cmd.Link, Path: cmd.Path,
		Decision: cmd.Decision, Delivery: cmd.Delivery, Reason: cmd.Reason,
	}
	if cmd.Subject != "" {
		q.Subjects = []string{cmd.Subject}
	}
	for _, d := range conf.Downloads { // as in a browser's address line
		if rest, ok := strings.CutPrefix(publicPath(cmd.Path), d.URL); ok && (q.Download == "" || q.Download == d.Name) {
			q.Download, q.Path = d.Name, "/"+rest
		}
	}
	var err error
	if cmd.Address != "" {
		if q.Address, err = parseNetwork(cmd.Address); err != nil {
			return nil, err
		}
	}
	if q.Since, err = moment(cmd.Since, zone, now); err != nil {
		return nil, fmt.Errorf("--since: %w", err)
	}
	if q.Until, err = moment(cmd.Until, zone, now); err != nil {
		return nil, fmt.Errorf("--until: %w", err)
	}
	return q, q.Validate()
}

// publicPath is the path of a URL, or the text.
func publicPath(text string) string {
	for _, scheme := range []string{"https://", "http://"} {
		if rest, ok := strings.CutPrefix(text, scheme); ok {
			_, path, _ := strings.Cut(rest, "/")
			return "/" + path
		}
	}
	return text
}

func parseNetwork(text string) (netip.Prefix, error) {
	if network, err := netip.ParsePrefix(text); err == nil {
		return network.Masked(), nil
	}
	address, err := netip.ParseAddr(text)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("--address: %q is neither an address nor a network such as 10.0.0.0/8", text)
	}
	address = address.Unmap().WithZone("")
	return netip.PrefixFrom(address, address.BitLen()), nil
}

// moment reads a time, or a span before now, to the second.
func moment(text string, zone *time.Location, now time.Time) (time.Time, error) {
	year, month, day := now.In(zone).Date()
	switch text {
	case "":
		return time.Time{}, nil
	case "now":
		return now.Truncate(time.Second), nil
	case "today":
		return time.Date(year, month, day, 0, 0, 0, 0, zone), nil
	case "yesterday":
		return time.Date(year, month, day-1, 0, 0, 0, 0, zone), nil
	}
	units := map[byte]time.Duration{'m': time.Minute, 'h': time.Hour, 'd': 24 * time.Hour, 'w': 7 * 24 * time.Hour}
	if unit, ok := units[text[len(text)-1]]; ok {
		if n, err := strconv.ParseUint(text[:len(text)-1], 10, 32); err == nil && n <= uint64(100*365*24*time.Hour/unit) {
			return now.Add(-time.Duration(n) * unit).Truncate(time.Second), nil
		}
	}
	t, err := explain.Moment(text, zone)
	if err != nil {
		return t, fmt.Errorf("%q is no time: write a span before now (90d, 12h), today, yesterday, 2026-12-31, '2026-12-31 18:00:00' or 2026-12-31T18:00:00Z", text)
	}
	return t, nil
}

// A printer prints records, or rows of a summary.
type printer interface {
	record(*audit.Found) error
	row(*audit.Row) error
	flush() error
}

func (cmd *auditSearchCommand) printer(env Env, zone *time.Location, shown *progress) printer {
	w := bufio.NewWriterSize(doneBefore{env.Stdout, shown}, 64<<10)
	switch {
	case cmd.JSON:
		return &jsonPrinter{w}
	case cmd.CSV:
		return &csvPrinter{w: csv.NewWriter(w), under: w, by: cmd.By}
	}
	return &tablePrinter{w: w, zone: zone, by: cmd.By}
}

// read shows how much of files was read.
func (p *progress) read(far audit.Progress) {
	if far.Size > 0 {
		p.show(float64(far.Read) / float64(far.Size))
	}
}

// doneBefore takes the progress from the terminal before anything is printed.
type doneBefore struct {
	io.Writer
	shown *progress
}

func (d doneBefore) Write(b []byte) (int, error) {
	d.shown.done()
	return d.Writer.Write(b)
}

// jsonPrinter prints records as they stand in the file.
type jsonPrinter struct{ *bufio.Writer }

func (p *jsonPrinter) flush() error { return p.Flush() }

func (p *jsonPrinter) record(f *audit.Found) error {
	line := f.Line
	if f.Opened || strings.ContainsFunc(string(line), func(r rune) bool { return r < ' ' || r > '~' }) {
		line = f.Append(nil)
	}
	_, _ = p.Write(line) // its error stays
	return p.WriteByte('\n')
}

func (p *jsonPrinter) row(r *audit.Row) error {
	line, err := json.Marshal(r)
	if err != nil {
		return err
	}
	for _, c := range string(line) { // JSON lets through what drives a terminal
		switch high, low := utf16.EncodeRune(c); {
		case c < 0x7f:
			_ = p.WriteByte(byte(c))
		case high != utf8.RuneError:
			_, _ = fmt.Fprintf(p, `\u%04x\u%04x`, high, low)
		default:
			_, _ = fmt.Fprintf(p, `\u%04x`, c)
		}
	}
	return p.WriteByte('\n')
}

// csvPrinter prints for spreadsheets: no cell is one that they run, and none drives
// the terminal that it may be shown on.
type csvPrinter struct {
	w      *csv.Writer
	under  *bufio.Writer
	by     string
	headed bool
}

func (p *csvPrinter) flush() error {
	p.w.Flush()
	return errors.Join(p.w.Error(), p.under.Flush())
}

func (p *csvPrinter) write(header []string, cells []string) error {
	if !p.headed {
		p.headed = true
		if err := p.w.Write(header); err != nil {
			return err
		}
	}
	for i, c := range cells {
		cells[i] = cell(c)
	}
	return p.w.Write(cells)
}

// cell puts an apostrophe before what a spreadsheet takes for a formula.
func cell(text string) string {
	first, _ := utf8.DecodeRuneInString(text)
	text = terminal.Printable(text)
	if strings.ContainsRune("=+-@\t\r\n＝＋－＠", first) && text != "" {
		return "'" + text
	}
	return text
}

func (p *csvPrinter) record(f *audit.Found) error {
	r := f.Record
	number := func(n int64) string {
		if n == 0 {
			return ""
		}
		return strconv.FormatInt(n, 10)
	}
	sent := number(r.Bytes)
	if r.Type == audit.TypeDelivery {
		sent = strconv.FormatInt(r.Bytes, 10)
	}
	return p.write([]string{
		"time", "type", "request.id", "download", "path", "action", "user.id", "user.groups", "identity.source", "link.id", "link.maker", "client.address",
		"user_agent.original", "referrer.origin", "http.request.method", "range", "decision", "reason", "policy.line", "policy.generation",
		"http.response.status_code", "duration", "delivery", "http.response.body.size", "content_length", "file.size", "network.protocol.version",
	}, []string{
		r.Time.UTC().Format(audit.TimeLayout), r.Type, r.Request, r.Download, r.Path, r.Action, r.Subject, strings.Join(r.Groups, " "), r.Source, r.Link, r.Maker, r.Client,
		r.Agent, r.Referrer, r.Method, r.Range, r.Decision, r.Reason, r.Line, number(int64(r.Generation)),
		number(int64(r.Status)), strconv.FormatFloat(r.Duration, 'f', 6, 64), r.Delivery, sent, number(r.Length), number(r.Size), r.Protocol,
	})
}

func (p *csvPrinter) row(r *audit.Row) error {
	cells := []string{r.Key}
	if r.Others {
		cells[0] = "(others)"
	}
	for _, n := range []int64{int64(r.Requests), int64(r.Denied), int64(r.Deliveries), int64(r.Downloads), int64(r.Complete), int64(r.Partial), int64(r.Nothing), int64(r.Unknown), r.Bytes, r.Size, r.Sent} {
		cells = append(cells, strconv.FormatInt(n, 10))
	}
	cells = append(cells, strings.Join(r.Clients, " "), r.First.UTC().Format(time.RFC3339), r.Last.UTC().Format(time.RFC3339))
	return p.write([]string{p.by, "requests", "denied", "deliveries", "downloads", "complete", "partial", "nothing", "unknown", "bytes", "size", "sent", "clients", "first", "last"}, cells)
}

// tablePrinter aligns what it prints, a screen at a time, so that it needs not hold all.
type tablePrinter struct {
	w      *bufio.Writer
	zone   *time.Location
	by     string
	rows   [][]string
	widths []int
	headed bool
}

// tableRows is how many rows are aligned at once; columns grow, and do not shrink.
const tableRows = 200

func (p *tablePrinter) add(cells ...string) error {
	for i, c := range cells {
		cells[i] = terminal.Printable(c)
	}
	p.rows = append(p.rows, cells)
	if len(p.rows) >= tableRows {
		return p.print()
	}
	return nil
}

func (p *tablePrinter) print() error {
	for _, row := range p.rows {
		for len(p.widths) < len(row) {
			p.widths = append(p.widths, 0)
		}
		for i, c := range row {
			p.widths[i] = max(p.widths[i], min(utf8.RuneCountInString(c), 80))
		}
	}
	for _, row := range p.rows {
		var line strings.Builder
		for i, c := range row {
			line.WriteString(c)
			if i < len(row)-1 {
				line.WriteString(strings.Repeat(" ", max(p.widths[i]-utf8.RuneCountInString(c), 0)+2))
			}
		}
		_, _ = p.w.WriteString(strings.TrimRight(line.String(), " ") + "\n") // its error stays
	}
	p.rows = nil
	_, err := p.w.Write(nil)
	return err
}

func (p *tablePrinter) flush() error {
	return errors.Join(p.print(), p.w.Flush())
}

func (p *tablePrinter) time(t time.Time) string { return t.In(p.zone).Format(time.DateTime) }

func (p *tablePrinter) record(f *audit.Found) error {
	if !p.headed {
		p.headed = true
		if err := p.add("TIME", "WHAT", "SUBJECT", "ADDRESS", "FILE", "MORE"); err != nil {
			return err
		}
	}
	r := f.Record
	what, more := r.Decision, []string{}
	if r.Type == audit.TypeDelivery {
		what = r.Delivery
		if r.Delivery != audit.Unknown {
			size := r.Length
			if size == 0 {
				size = r.Size
			}
			sent := humanize.IBytes(uint64(r.Bytes))
			if size > 0 {
				sent += " of " + humanize.IBytes(uint64(size))
			}
			more = append(more, fmt.Sprintf("%s in %.3gs", sent, r.Duration))
		}
		if r.Range != "" {
			more = append(more, r.Range)
		}
	} else {
		more = append(more, strings.TrimSpace(r.Reason+" "+r.Line))
	}
	if r.Status != 0 {
		more = append(more, "status "+strconv.Itoa(r.Status))
	}
	if r.Link != "" {
		link := "link " + r.Link
		if r.Maker != "" {
			link += " of " + r.Maker
		}
		more = append(more, link)
	}
	if r.Request != "" {
		more = append(more, "request "+r.Request)
	}
	return p.add(p.time(r.Time), what, r.Subject, r.Client, strings.TrimSpace(r.Download+" "+r.Path), strings.Join(more, ", "))
}

func (p *tablePrinter) row(r *audit.Row) error {
	if !p.headed {
		p.headed = true
		if err := p.add(strings.ToUpper(p.by), "WHAT", "FROM", "FIRST", "LAST"); err != nil {
			return err
		}
	}
	key := r.Key
	switch {
	case r.Others:
		key = "(others)"
	case key == "":
		key = "-"
	}
	const shown = 2
	from := strings.Join(r.Clients[:min(len(r.Clients), shown)], ", ")
	if more := len(r.Clients) - shown; r.MoreClients {
		from += " and others"
	} else if more > 0 {
		from += fmt.Sprintf(" and %d more", more)
	}
	return p.add(key, sentence(r), from, p.time(r.First), p.time(r.Last))
}

// sentence is what came of requests, in words.
func sentence(r *audit.Row) string {
	var parts []string
	if r.Requests > 0 {
		parts = append(parts, many(r.Requests, "request"))
	}
	outcomes := r.Complete + r.Partial + r.Nothing + r.Unknown
	if r.Downloads > 1 {
		parts = append(parts, many(r.Downloads, "download"))
	}
	if r.Size > 0 {
		parts = append(parts, humanize.IBytes(uint64(r.Bytes))+" of "+humanize.IBytes(uint64(r.Size)))
	}
	for _, o := range []struct {
		n    int
		text string
	}{{r.Complete, "complete"}, {r.Partial, "in part"}, {r.Nothing, "nothing sent"}, {r.Unknown, "unknown"}} {
		switch {
		case o.n == 0:
		case outcomes == 1 || o.n == outcomes:
			parts = append(parts, o.text)
		default:
			parts = append(parts, strconv.Itoa(o.n)+" "+o.text)
		}
	}
	if r.Requests > 0 && r.Deliveries == 0 {
		parts = append(parts, "what was delivered is not recorded")
	}
	if r.Sent > r.Bytes { // some of it again, or nobody knows of what part
		parts = append(parts, humanize.IBytes(uint64(r.Sent))+" sent in all")
	}
	if r.Denied > 0 {
		parts = append(parts, strconv.Itoa(r.Denied)+" denied")
	}
	return strings.Join(parts, ", ")
}
