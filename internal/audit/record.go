// Package audit keeps the record of what was decided, and of what the web server
// really delivered.
//
// Each record is a JSON object on a line of its own. A decision is recorded before
// its answer leaves; a delivery when the web server has told of it. Both carry the
// request id, which the web server makes and no client chooses.
//
// audit does not protect against whoever can write its file, unless records are
// chained and the heads of the chain are kept elsewhere.
package audit

import (
	"encoding/json"
	"fmt"
	"time"
)

// Version is the version of the format, which stands in each record. A reader
// refuses records of a later one.
const Version = 1

// The types of records.
const (
	// TypeDecision is what was decided about a request.
	TypeDecision = "decision"
	// TypeDelivery is what came of an allowed request: the web server's account of
	// it beside whose it was.
	TypeDelivery = "delivery"
	// TypeCheckpoint is a signed head of the chain.
	TypeCheckpoint = "checkpoint"
)

// Types returns every type, for metrics that must exist before the first record.
func Types() []string { return []string{TypeDecision, TypeDelivery, TypeCheckpoint} }

// What came of an allowed request.
const (
	// Complete: the web server handed all that was asked for to the kernel.
	Complete = "complete"
	// Aborted: it handed over a part.
	Aborted = "aborted"
	// None: it sent nothing of the file, though it was allowed.
	None = "none"
	// Unknown: it has not told, and will not any more; or it cannot tell, of what a store
	// sent without a length.
	Unknown = "unknown"
)

// What a record is of, where an archive was asked for.
const (
	Whole = "whole"
	Part  = "part"
)

// A Record is one line of an audit file. Names are those of OpenTelemetry's
// semantic conventions where it has one. What is empty is left out.
type Record struct {
	Version int    `json:"v"`
	Type    string `json:"type"`
	// Time is when the answer left, or when the request ended.
	Time time.Time `json:"time"`
	// Request is the web server's id of the request.
	Request string `json:"request.id,omitempty"`

	// Download, Path and Action are what was asked: the subpath below the download,
	// as policy was asked about it. Where the path was refused, Path is what the
	// client wrote, without its query and shortened.
	Download string `json:"download,omitempty"`
	Path     string `json:"path,omitempty"`
	Action   string `json:"action,omitempty"`
	// Subject and Groups are the principal; Source is the identity source that found
	// or refused it.
	Subject string `json:"user.id,omitempty"`
	// Sealed holds what of the subject is encrypted, where the record is erasable:
	// Subject is a random id then.
	Sealed string   `json:"sealed,omitempty"`
	Groups []string `json:"user.groups,omitempty"`
	Source string   `json:"identity.source,omitempty"`
	// Link is the id of the link that was used, and Maker who made it.
	Link  string `json:"link.id,omitempty"`
	Maker string `json:"link.maker,omitempty"`

	// Client is the client's address.
	Client   string `json:"client.address,omitempty"`
	Agent    string `json:"user_agent.original,omitempty"`
	Referrer string `json:"referrer.origin,omitempty"` // scheme, host and port, no more
	Method   string `json:"http.request.method,omitempty"`
	// Range is what was asked for (the Range header) in a decision, and what was sent
	// (Content-Range) in a delivery.
	Range string `json:"range,omitempty"`
	// Archive is Whole of a folder that was asked for as one file, and Part of each file in
	// it, by the same request.
	Archive string `json:"archive,omitempty"`

	// Decision is allow or deny, Reason the word for it, and Line the line of the policy
	// that decided (`policy.csv:17`), of the version Generation.
	Decision   string `json:"decision,omitempty"`
	Reason     string `json:"reason,omitempty"`
	Line       string `json:"policy.line,omitempty"`
	Generation uint64 `json:"policy.generation,omitempty"`

	// Status is what the client was answered.
	Status int `json:"http.response.status_code,omitempty"`
	// Duration is how long the decision took, or the request, in seconds.
	Duration float64 `json:"duration"`

	// Delivery is one of Complete, Aborted, None and Unknown; in deliveries only, like
	// all that follows.
	Delivery string `json:"delivery,omitempty"`
	// Bytes are those of the body that were sent, Length those that were to be sent,
	// and Size those of the whole file, where the web server told; of a Part, Size stands in
	// its decision too, and Bytes are those of the file if all of the archive was sent.
	Bytes    int64  `json:"http.response.body.size,omitempty"`
	Length   int64  `json:"content_length,omitempty"`
	Size     int64  `json:"file.size,omitempty"`
	Protocol string `json:"network.protocol.version,omitempty"` // 1.0, 1.1, 2, 3

	// Note is the signed note of a checkpoint.
	Note string `json:"note,omitempty"`
	// Seq counts the records of a chain, from 1, and Hash is the hash of this record
	// and of the one before it; they are the last members, where there is a chain.
	Seq  uint64 `json:"seq,omitempty"`
	Hash string `json:"hash,omitempty"`

	kept bool // it was read again after a restart, as Privacy had made it
}

// TimeLayout is how times are written: RFC 3339, in UTC, with microseconds.
const TimeLayout = "2006-01-02T15:04:05.000000Z"

// Append appends the record, without a line feed and without its place in a chain,
// which the writer of the file knows. It is one line of ASCII whatever
// the texts hold: what no terminal should be shown, and no line may hold, is escaped,
// and what is no UTF-8 is U+FFFD.
func (r *Record) Append(b []byte) []byte {
	e := encoder{b: append(b, '{')}
	e.int("v", int64(Version))
	e.text("type", r.Type)
	e.key("time")
	e.b = append(e.b, '"')
	e.b = r.Time.UTC().AppendFormat(e.b, TimeLayout)
	e.b = append(e.b, '"')
	e.text("request.id", r.Request)
	e.text("download", r.Download)
	e.text("path", r.Path)
	e.text("action", r.Action)
	e.text("user.id", r.Subject)
	e.text("sealed", r.Sealed)
	if len(r.Groups) > 0 {
		e.key("user.groups")
		for i, g := range r.Groups {
			e.b = append(e.b, "[,"[min(i, 1)])
			e.b = appendText(e.b, g)
		}
		e.b = append(e.b, ']')
	}
	e.text("identity.source", r.Source)
	e.text("link.id", r.Link)
	e.text("link.maker", r.Maker)
	e.text("client.address", r.Client)
	e.text("user_agent.original", r.Agent)
	e.text("referrer.origin", r.Referrer)
	e.text("http.request.method", r.Method)
	e.text("range", r.Range)
	e.text("archive", r.Archive)
	e.text("decision", r.Decision)
	e.text("reason", r.Reason)
	e.text("policy.line", r.Line)
	e.count("policy.generation", int64(r.Generation))
	e.count("http.response.status_code", int64(r.Status))
	if r.Type != TypeCheckpoint {
		e.key("duration")
		e.b = appendSeconds(e.b, r.Duration)
	}
	e.text("delivery", r.Delivery)
	if r.Type == TypeDelivery {
		e.int("http.response.body.size", r.Bytes)
	}
	e.count("content_length", r.Length)
	e.count("file.size", r.Size)
	e.text("network.protocol.version", r.Protocol)
	e.text("note", r.Note)
	return append(e.b, '}')
}

// A LaterError is about a record whose format is of a later version.
type LaterError struct{ Version int }

func (e *LaterError) Error() string {
	return fmt.Sprintf("read an audit record: it is of version %d, this reads version %d", e.Version, Version)
}

// Parse reads one line, as Append writes it, with or without what later minor
// changes add. Of a later version the error is a *LaterError.
func Parse(line []byte) (*Record, error) {
	r := &Record{}
	if !decode(line, r) {
		*r = Record{}
		if err := json.Unmarshal(line, r); err != nil {
			return nil, fmt.Errorf("read an audit record: %w", err)
		}
	}
	if r.Version > Version {
		return nil, &LaterError{Version: r.Version}
	}
	if r.Version != Version || r.Type == "" || r.Time.IsZero() {
		return nil, fmt.Errorf("read an audit record: it is of version %d, and type %q; this reads version %d", r.Version, r.Type, Version)
	}
	return r, nil
}
