package audit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/bmatcuk/doublestar/v4"
)

// A Query is what is asked of the record. What is empty asks nothing; all of what is
// not must hold.
type Query struct {
	// Request, Link, Download, Reason are as they stand in records.
	Request, Link, Download, Reason string
	// Subjects are the names of one subject, any of which it may have in records: its
	// own, and what privacy has made of it.
	Subjects []string
	// Group is one that the subject has, with or without its @.
	Group string
	// Path is a path, or a pattern of doublestar's: /a/** is all below /a, and /a.
	Path string
	// Address holds the client's.
	Address netip.Prefix
	// Since is the first moment, Until the first that is too late.
	Since, Until time.Time
	// Decision is allow or deny, of decisions; Delivery what came of it, of deliveries.
	Decision, Delivery string
}

// Validate tells of what cannot be asked.
func (q *Query) Validate() error {
	if !doublestar.ValidatePattern(q.Path) {
		return fmt.Errorf("%q is no pattern of paths: * and ** stand for anything within a folder and below it, [ ] and { } have an end, and \\ before them makes them text", q.Path)
	}
	if !q.Since.IsZero() && !q.Until.IsZero() && !q.Since.Before(q.Until) {
		return fmt.Errorf("nothing is since %s and until %s", q.Since.Format(time.RFC3339), q.Until.Format(time.RFC3339))
	}
	return nil
}

// Match reports whether a record is what is asked for.
func (q *Query) Match(r *Record) bool {
	switch {
	case r.Type != TypeDecision && r.Type != TypeDelivery,
		q.Request != "" && r.Request != q.Request,
		q.Link != "" && r.Link != q.Link,
		q.Download != "" && r.Download != q.Download,
		q.Reason != "" && r.Reason != q.Reason,
		len(q.Subjects) > 0 && !slices.Contains(q.Subjects, r.Subject),
		q.Group != "" && !hasGroup(r.Groups, q.Group),
		q.Path != "" && !q.hasPath(r.Path),
		q.Address.IsValid() && !q.hasAddress(r.Client),
		!q.Since.IsZero() && r.Time.Before(q.Since),
		!q.Until.IsZero() && !r.Time.Before(q.Until),
		q.Decision != "" && (r.Type != TypeDecision || r.Decision != q.Decision),
		q.Delivery != "" && (r.Type != TypeDelivery || r.Delivery != q.Delivery):
		return false
	}
	return true
}

func hasGroup(groups []string, group string) bool {
	name := strings.TrimPrefix(group, "@")
	return slices.ContainsFunc(groups, func(g string) bool { return g == group || strings.TrimPrefix(g, "@") == name })
}

// hasPath takes a path that has the signs of a pattern in it literally, too.
func (q *Query) hasPath(name string) bool {
	if name == q.Path {
		return true
	}
	matched, err := doublestar.Match(q.Path, name)
	return err == nil && matched
}

// hasAddress holds the prefix against an address, or against one that was shortened:
// that is in the prefix if all that it stands for is, or if the prefix is within it.
func (q *Query) hasAddress(text string) bool {
	if shortened, err := netip.ParsePrefix(text); err == nil {
		return q.Address.Overlaps(shortened)
	}
	address, err := netip.ParseAddr(text)
	return err == nil && q.Address.Contains(address.WithZone("").Unmap())
}

// A condition is what a line must hold, if its record is asked for: it is looked for
// before the line is read.
type condition struct {
	// key begins a member, `"path":"`, and one of the values follows. Without a key a
	// value stands anywhere.
	key    string
	values []string
	// sealable tells that a line whose record is sealed may hold it unseen.
	sealable bool
}

func (q *Query) conditions() []condition {
	var all []condition
	text := func(name string, sealable bool, end string, values ...string) {
		c := condition{key: `"` + name + `":"`, sealable: sealable}
		for _, v := range values {
			if v == "" {
				return
			}
			quoted := appendText(nil, v)
			c.values = append(c.values, string(quoted[1:len(quoted)-1])+end)
		}
		if len(c.values) > 0 {
			all = append(all, c)
		}
	}
	text("request.id", false, `"`, q.Request)
	text("link.id", false, `"`, q.Link)
	text("download", false, `"`, q.Download)
	text("reason", false, `"`, q.Reason)
	text("user.id", false, `"`, q.Subjects...)
	text("decision", false, `"`, q.Decision)
	text("delivery", false, `"`, q.Delivery)
	if name := strings.TrimPrefix(q.Group, "@"); name != "" {
		quoted := string(appendText(nil, name))
		all = append(all, condition{values: []string{quoted, `"@` + quoted[1:]}, sealable: true})
	}
	if q.Path != "" {
		fixed, pattern := doublestar.SplitPattern(q.Path)
		switch {
		case !strings.ContainsAny(q.Path, `*?[{\`):
			text("path", true, `"`, q.Path)
		case pattern == "**" && path.IsAbs(fixed) && fixed != "/": // /a/** matches /a, too
			text("path", true, "", fixed+"/")
			last := &all[len(all)-1]
			last.values = append(last.values, strings.TrimSuffix(last.values[0], "/")+`"`)
		case path.IsAbs(fixed) && fixed != "/":
			text("path", true, "", fixed+"/")
		}
	}
	// A client's address is written as it was told, and one of IPv6 can be written in
	// several ways.
	if a := q.Address; a.IsValid() && a.IsSingleIP() && a.Addr().Is4() {
		if short, err := a.Addr().Prefix(shortIPv4); err == nil {
			all = append(all, condition{key: `"client.address":"`, values: []string{a.Addr().String() + `"`, short.String() + `"`, "::ffff:"}, sealable: true})
		}
	}
	return all
}

// A Found is a record that was asked for.
type Found struct {
	*Record
	// Line is how it stands in the file, or in the database; valid until the next.
	Line []byte
	// Opened tells that the record holds what was sealed in the line.
	Opened bool
}

// A Place is a line of a file, from 1.
type Place struct {
	File string
	Line int
}

// MaxPlaces bounds the places of a Report.
const MaxPlaces = 100

// A Report is what else is to be told of a search.
type Report struct {
	// Torn are lines that are no records, the first MaxPlaces of TornLines. A crash
	// leaves one.
	Torn      []Place
	TornLines int
	// Later are lines whose format this does not know.
	Later int
	// Sealed are records that match, as far as can be told, and whose key is not there:
	// that of a subject who was erased, or in a key store that was not given.
	Sealed int
	// Files were read, in whole or in part; Skipped hold nothing of the time.
	Files, Skipped int
}

func (r *Report) torn(file string, line int) {
	if r.TornLines++; len(r.Torn) < MaxPlaces {
		r.Torn = append(r.Torn, Place{File: file, Line: line})
	}
}

// A Source is where records are looked for.
type Source interface {
	// Search calls found with each record that matches, in the order of writing, until
	// it returns an error or the context ends. The report is there beside an error.
	Search(ctx context.Context, q *Query, found func(*Found) error) (*Report, error)
}

// A sieve lets through the lines that may match, without reading them.
type sieve struct {
	parts        []sievePart
	sealed       needle
	since, until []byte // as they are written
}

type sievePart struct {
	key      needle   // empty: the values stand anywhere
	values   []needle // of a key, by their texts alone
	sealable bool
}

// A needle is a text to look for, by the byte of it that is rarest.
type needle struct {
	text []byte
	rare int
}

// newSieve makes one for a query. The sample is of what will be sieved.
func newSieve(q *Query, sample []byte) *sieve {
	s := &sieve{}
	if !q.Since.IsZero() {
		s.since = q.Since.UTC().AppendFormat(nil, TimeLayout)
	}
	if !q.Until.IsZero() {
		s.until = q.Until.UTC().Add(time.Microsecond-1).AppendFormat(nil, TimeLayout)
	}
	var often [256]int
	for _, c := range sample {
		often[c]++
	}
	needleOf := func(text string) needle {
		n := needle{text: []byte(text)}
		for i := range n.text {
			if often[n.text[i]] < often[n.text[n.rare]] {
				n.rare = i
			}
		}
		return n
	}
	s.sealed = needleOf(`"sealed":"`)
	passes := map[string]int{} // by the first value
	for _, c := range q.conditions() {
		p := sievePart{key: needleOf(c.key), sealable: c.sealable}
		for _, v := range c.values {
			p.values = append(p.values, needleOf(v))
		}
		for line := range bytes.Lines(sample) {
			if s.passes(&p, line) {
				passes[c.key+c.values[0]]++
			}
		}
		s.parts = append(s.parts, p)
	}
	// What is in the fewest lines is looked for first.
	of := func(p sievePart) int { return passes[string(p.key.text)+string(p.values[0].text)] }
	slices.SortStableFunc(s.parts, func(a, b sievePart) int { return of(a) - of(b) })
	return s
}

func (s *sieve) pass(line []byte) bool {
	for i := range s.parts {
		if !s.passes(&s.parts[i], line) {
			return false
		}
	}
	if s.since == nil && s.until == nil {
		return true
	}
	at := timeOf(line)
	return at == nil || (s.since == nil || bytes.Compare(at, s.since) >= 0) && (s.until == nil || bytes.Compare(at, s.until) < 0)
}

// passes looks for a key, which no text holds, for its quotes would be escaped there.
func (s *sieve) passes(p *sievePart, line []byte) bool {
	if len(p.key.text) == 0 {
		for i := range p.values {
			if p.values[i].in(line) >= 0 {
				return true
			}
		}
	} else if i := p.key.in(line); i >= 0 {
		rest := line[i+len(p.key.text):]
		for i := range p.values {
			if bytes.HasPrefix(rest, p.values[i].text) {
				return true
			}
		}
		return false // what is sealed has no such key
	}
	return p.sealable && s.sealed.in(line) >= 0
}

// in returns where the text begins in a line, or -1.
func (n *needle) in(line []byte) int {
	c := n.text[n.rare]
	for from := n.rare; from < len(line); {
		i := bytes.IndexByte(line[from:], c)
		if i < 0 {
			return -1
		}
		from += i + 1
		if begin := from - 1 - n.rare; bytes.HasPrefix(line[begin:], n.text) {
			return begin
		}
	}
	return -1
}

// timeOf returns the time of a record as it is written, so that times compare as
// their texts do; nil where it does not stand in its place.
func timeOf(line []byte) []byte {
	const key = `,"time":"`
	i := bytes.Index(line[:min(len(line), 64)], []byte(key))
	if i < 0 {
		return nil
	}
	at := line[i+len(key):]
	if len(at) <= len(TimeLayout) || at[len(TimeLayout)] != '"' {
		return nil
	}
	return at[:len(TimeLayout)]
}

// A sifting takes lines, and finds what was asked for among them.
type sifting struct {
	query *Query
	sieve *sieve
	open  func(*Record) (opened bool)
	found func(*Found) error
	*Report
}

// line takes one, without its line feed.
func (s *sifting) line(file string, number int, line []byte) error {
	if len(line) < 2 || line[0] != '{' || line[len(line)-1] != '}' {
		if len(line) > 0 {
			s.torn(file, number)
		}
		return nil
	}
	if !s.sieve.pass(line) {
		return nil
	}
	r, err := Parse(line)
	if err != nil {
		var later *LaterError
		if errors.As(err, &later) {
			s.Later++
		} else {
			s.torn(file, number)
		}
		return nil
	}
	f := Found{Record: r, Line: line}
	if r.Sealed != "" {
		f.Opened = s.open != nil && s.open(r)
		if !f.Opened && s.query.mayMatchSealed(r) {
			s.Sealed++
		}
	}
	if !s.query.Match(r) {
		return nil
	}
	return s.found(&f)
}

// mayMatchSealed reports whether only what is sealed keeps a record from matching.
func (q *Query) mayMatchSealed(r *Record) bool {
	rest := *q
	rest.Group, rest.Path, rest.Address = "", "", netip.Prefix{}
	return rest.Match(r)
}
