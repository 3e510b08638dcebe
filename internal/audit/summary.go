package audit

import (
	"cmp"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// MaxSummed bounds what a Summary holds apart: rows, and downloads within them. What
// comes when there are as many is summed in one row, the last.
const MaxSummed = 1_000_000

// maxSpans bounds the spans of one download that are held apart; a client that asks
// for more is told to have at least those.
const maxSpans = 512

// maxClients is how many addresses are told of one row.
const maxClients = 5

// What a Summary sums by.
const (
	BySubject = "subject"
	ByPath    = "path"
	ByDay     = "day"
	ByLink    = "link"
)

// A Summary sums what was found, by one of its properties. Requests of one client and
// subject for one path are one download: what of the file they were sent is joined,
// so that a file in twelve ranges was downloaded once.
type Summary struct {
	by    string
	zone  *time.Location
	bound int
	kept  int
	rows  map[string]*sum
	rest  *sum
}

// NewSummary sums by one of the above; days are in the zone.
func NewSummary(by string, zone *time.Location) *Summary {
	return &Summary{by: by, zone: zone, bound: MaxSummed, rows: map[string]*sum{}}
}

// A sum is what a row is made of.
type sum struct {
	Row
	asked     int // allowed decisions
	downloads map[downloadKey]*download
}

type downloadKey struct{ client, subject, download, path string }

// A download is what one client was sent of one file.
type download struct {
	size    int64  // of the file; 0 until the web server tells
	spans   []span // in order, apart
	more    bool   // was sent besides, nobody knows of what part
	whole   bool   // all was sent, whatever the size
	unknown bool   // what of a request is unknown
	sent    int64
}

type span struct{ from, to int64 }

// A Row is a line of a summary.
type Row struct {
	// Key is the subject, path, day or link; empty for those without one, and in the row
	// of all that were too many.
	Key string `json:"key"`
	// Others tells that this row holds all that were too many to be told apart.
	Others bool `json:"others,omitempty"`
	// Requests were allowed, Denied were not.
	Requests int `json:"requests"`
	Denied   int `json:"denied"`
	// Deliveries are of how many the web server's account is recorded.
	Deliveries int `json:"deliveries"`
	// Downloads are files that a client got something of; Complete, Partial, Nothing and
	// Unknown are what came of all that were asked for.
	Downloads int `json:"downloads"`
	Complete  int `json:"complete"`
	Partial   int `json:"partial"`
	Nothing   int `json:"nothing"`
	Unknown   int `json:"unknown"`
	// Bytes are those of Size, that of the files, that were sent at least once; Sent are
	// all that were sent.
	Bytes int64 `json:"bytes"`
	Size  int64 `json:"size"`
	Sent  int64 `json:"sent"`
	// Clients are addresses that asked, the first few of them; MoreClients tells that
	// there are others.
	Clients     []string `json:"clients,omitempty"`
	MoreClients bool     `json:"more_clients,omitempty"`
	// First and Last are the times of the first record and of the last.
	First time.Time `json:"first"`
	Last  time.Time `json:"last"`
}

// Add adds a record that was found.
func (s *Summary) Add(r *Record) {
	row := s.row(s.key(r))
	if row.First.IsZero() || r.Time.Before(row.First) {
		row.First = r.Time
	}
	if r.Time.After(row.Last) {
		row.Last = r.Time
	}
	switch {
	case r.Client == "" || slices.Contains(row.Clients, r.Client):
	case len(row.Clients) < maxClients:
		row.Clients = append(row.Clients, r.Client)
	default:
		row.MoreClients = true
	}
	switch {
	case r.Type == TypeDelivery:
		row.Deliveries++
		s.deliver(row, r)
	case r.Decision == "allow":
		row.asked++
	default:
		row.Denied++
	}
}

func (s *Summary) key(r *Record) string {
	switch s.by {
	case BySubject:
		return r.Subject
	case ByPath:
		return strings.TrimSpace(r.Download + " " + r.Path)
	case ByLink:
		return r.Link
	}
	return r.Time.In(s.zone).Format(time.DateOnly)
}

func (s *Summary) row(key string) *sum {
	if row, ok := s.rows[key]; ok {
		return row
	}
	if s.kept >= s.bound {
		if s.rest == nil {
			s.rest = &sum{Row: Row{Others: true}}
		}
		return s.rest
	}
	s.kept++
	row := &sum{Row: Row{Key: key}}
	s.rows[key] = row
	return row
}

func (s *Summary) deliver(row *sum, r *Record) {
	if r.Method == "HEAD" { // asks for nothing of the file
		return
	}
	key := downloadKey{r.Client, r.Subject, r.Download, r.Path}
	d := row.downloads[key]
	switch {
	case d != nil:
	case s.kept >= s.bound || row.Others: // it stands for itself
		d = &download{}
		d.add(r)
		row.count(d)
		return
	default:
		s.kept++
		if row.downloads == nil {
			row.downloads = map[downloadKey]*download{}
		}
		d = &download{}
		row.downloads[key] = d
	}
	if _, size, _ := sentOf(r); size != d.size && size != 0 && d.size != 0 { // another file by now
		row.count(d)
		*d = download{}
	}
	d.add(r)
}

// sentOf is which part of a file a request was sent, and the file's size, 0 where the
// web server did not tell. It is not ok where nobody knows which.
func sentOf(r *Record) (part span, size int64, ok bool) {
	if r.Status != 206 {
		if r.Status != 200 {
			return span{}, r.Size, r.Bytes == 0
		}
		size = cmp.Or(r.Size, r.Length)
		if r.Delivery == Complete {
			size = cmp.Or(size, r.Bytes)
		}
		return span{0, min(r.Bytes, size)}, size, size > 0 || r.Bytes == 0
	}
	// RFC 9110 section 14.4: bytes FIRST-LAST/SIZE. Several ranges have none.
	text, found := strings.CutPrefix(r.Range, "bytes ")
	first, text, dash := strings.Cut(text, "-")
	last, whole, slash := strings.Cut(text, "/")
	from, err1 := strconv.ParseInt(first, 10, 64)
	to, err2 := strconv.ParseInt(last, 10, 64)
	size = r.Size
	if n, err := strconv.ParseInt(whole, 10, 64); err == nil && n > 0 {
		size = n
	}
	if !found || !dash || !slash || err1 != nil || err2 != nil || from < 0 || to < from {
		return span{}, size, r.Bytes == 0
	}
	return span{from, from + min(r.Bytes, to-from+1)}, size, true
}

func (d *download) add(r *Record) {
	part, size, ok := sentOf(r)
	d.size = cmp.Or(size, d.size)
	d.sent += r.Bytes
	d.unknown = d.unknown || r.Delivery == Unknown
	d.whole = d.whole || r.Delivery == Complete && r.Status == 200
	if !ok {
		d.more = true
		return
	}
	if part.from >= part.to {
		return
	}
	i, _ := slices.BinarySearchFunc(d.spans, part, func(s, part span) int { return cmp.Compare(s.to, part.from) })
	j := i
	for ; j < len(d.spans) && d.spans[j].from <= part.to; j++ {
		part.from, part.to = min(part.from, d.spans[j].from), max(part.to, d.spans[j].to)
	}
	if i == j && len(d.spans) >= maxSpans {
		d.more = true
		return
	}
	d.spans = slices.Replace(d.spans, i, j, part)
}

// count adds a download to its row.
func (s *sum) count(d *download) {
	got := int64(0)
	for _, p := range d.spans {
		got += p.to - p.from
	}
	s.Sent += d.sent
	s.Size += d.size
	s.Bytes += got
	switch {
	case d.whole || d.size > 0 && got >= d.size:
		s.Complete++
	case d.unknown:
		s.Unknown++
	case got > 0 || d.more:
		s.Partial++
	default:
		s.Nothing++
	}
	if got > 0 || d.more || d.whole {
		s.Downloads++
	}
}

// Rows are what was summed: days in their order, all else by the bytes that were sent,
// the most first.
func (s *Summary) Rows() []Row {
	var rows []Row
	finish := func(row *sum) {
		for _, d := range row.downloads {
			row.count(d)
		}
		row.downloads = nil
		// Without an account of deliveries there are the decisions, and a download that
		// lasts has no other.
		row.Requests = max(row.asked, row.Deliveries)
		rows = append(rows, row.Row)
	}
	for _, key := range slices.Sorted(maps.Keys(s.rows)) {
		finish(s.rows[key])
	}
	if s.by != ByDay {
		slices.SortStableFunc(rows, func(a, b Row) int { return cmp.Compare(b.Bytes, a.Bytes) })
	}
	if s.rest != nil {
		finish(s.rest)
	}
	return rows
}
