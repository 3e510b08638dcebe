package audit

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// maxDelivery bounds a line of nginx's log, in bytes; they have some 350.
const maxDelivery = 4096

// A delivery is nginx's account of a request: a line of its log format
// securefiles_delivery.
type delivery struct {
	request  string
	ended    time.Time
	took     float64 // seconds
	head     bool
	protocol string
	status   int
	bytes    int64 // of the body
	length   int64 // that the body was to have; -1 where nginx did not tell
	sent     string
	size     int64 // of the file; 0 where nginx did not tell
	whole    bool  // all of the answer was handed to the kernel
}

// A nginxLine is a line as nginx writes it.
type nginxLine struct {
	Version    int      `json:"v"`
	Request    string   `json:"request_id"`
	Ended      float64  `json:"msec"`
	Method     string   `json:"method"`
	Protocol   string   `json:"protocol"`
	Status     string   `json:"status"`
	Body       int64    `json:"body_bytes"`
	Length     string   `json:"content_length"`
	Range      string   `json:"content_range"`
	Completion string   `json:"completion"`
	Duration   *float64 `json:"duration"`
}

// read takes apart a line that is as the snippet of this version has it written, which
// is most of what following the log takes; others are left to encoding/json.
func (l *nginxLine) read(line string) bool {
	text := func(after string) (value string) {
		if line, value = cutMember(line, after, `"`); strings.IndexByte(value, '\\') >= 0 {
			line = ""
		}
		return value
	}
	number := func(after string) (value string) {
		line, value = cutMember(line, after, ",")
		return value
	}
	l.Request = text(`{"v":1,"request_id":"`)
	ended := number(`,"msec":`)
	l.Method = text(`"method":"`)
	l.Protocol = text(`,"protocol":"`)
	l.Status = text(`,"status":"`)
	body := number(`,"body_bytes":`)
	number(`"bytes":`)
	l.Length = text(`"content_length":"`)
	l.Range = text(`,"content_range":"`)
	l.Completion = text(`,"completion":"`)
	duration, found := strings.CutPrefix(line, `,"duration":`)
	duration, ends := strings.CutSuffix(duration, "}")
	if !found || !ends {
		return false
	}
	took, err := strconv.ParseFloat(duration, 64)
	l.Duration = &took
	if err == nil {
		l.Ended, err = strconv.ParseFloat(ended, 64)
	}
	if err == nil {
		l.Body, err = strconv.ParseInt(body, 10, 64)
	}
	l.Version = 1
	return err == nil
}

// cutMember returns what stands between two texts at the beginning of a line, and the
// rest of the line; nothing is left where it does not.
func cutMember(line, after, before string) (rest, value string) {
	line, ok := strings.CutPrefix(line, after)
	if !ok {
		return "", ""
	}
	value, rest, _ = strings.Cut(line, before)
	return rest, value
}

// parseDelivery reads a line of nginx's log. What it does not know in one it passes
// over; what it knows must be as the snippet writes it.
func parseDelivery(line []byte) (*delivery, error) {
	var l nginxLine
	if !l.read(string(line)) {
		l = nginxLine{}
		if err := json.Unmarshal(line, &l); err != nil {
			return nil, fmt.Errorf("read a delivery of nginx's: %w", err)
		}
	}
	d := &delivery{request: l.Request, head: l.Method == http.MethodHead, bytes: l.Body, length: -1, whole: l.Completion == "OK"}
	wrong := func(problem string) (*delivery, error) {
		return nil, errors.New("read a delivery of nginx's: " + problem)
	}
	if l.Version != 1 {
		return wrong("it is of version " + strconv.Itoa(l.Version) + ", this reads 1: print the snippet again with `securefiles nginx --http`")
	}
	if len(l.Request) != 32 || strings.Trim(l.Request, "0123456789abcdef") != "" {
		return wrong("its request_id is none of nginx's")
	}
	var err error
	if d.status, err = strconv.Atoi(l.Status); err != nil || d.status < 0 || d.status > 999 {
		return wrong("its status is none")
	}
	if l.Body < 0 || l.Duration == nil || !(*l.Duration >= 0 && *l.Duration < 1<<40) || !(l.Ended > 0 && l.Ended < 1<<40) {
		return wrong("a number is missing or negative")
	}
	if l.Length != "" {
		if d.length, err = strconv.ParseInt(l.Length, 10, 64); err != nil || d.length < 0 {
			return wrong("its content_length is none")
		}
	}
	d.took, d.ended = *l.Duration, time.UnixMilli(int64(l.Ended*1000+0.5))
	if d.sent, d.size, err = contentRange(l.Range); err != nil {
		return wrong(err.Error())
	}
	if d.status == http.StatusOK && d.size == 0 {
		d.size = max(d.length, 0)
	}
	if version, ok := strings.CutPrefix(l.Protocol, "HTTP/"); ok {
		switch version = strings.TrimSuffix(version, ".0"); version {
		case "1":
			d.protocol = "1.0"
		case "1.1", "2", "3":
			d.protocol = version
		}
	}
	return d, nil
}

// contentRange returns a Content-Range (RFC 9110 section 14.4) and the size that it
// tells.
func contentRange(text string) (string, int64, error) {
	if text == "" {
		return "", 0, nil
	}
	rest, ok := strings.CutPrefix(text, "bytes ")
	span, size, slash := strings.Cut(rest, "/")
	of, ofOK := decimal(size)
	first, last, dash := strings.Cut(span, "-")
	from, fromOK := decimal(first)
	to, toOK := decimal(last)
	whole := dash && fromOK && toOK && from <= to && to < of
	if ok && slash && ofOK && (whole || span == "*") { // the asterisk is that of 416
		return text, of, nil
	}
	return "", 0, errors.New("its content_range is none")
}

// decimal reads digits.
func decimal(text string) (int64, bool) {
	n, err := strconv.ParseInt(text, 10, 64)
	return n, err == nil && text[0] >= '0' && text[0] <= '9'
}

// result is what came of the file, which may have come from a store.
func (d *delivery) result(stored bool) string {
	switch d.status {
	case http.StatusOK, http.StatusPartialContent, http.StatusNotModified:
	default:
		return None
	}
	switch {
	case d.whole && stored && d.length < 0 && !d.head && d.status != http.StatusNotModified:
		return Unknown // nginx calls it whole too where the store broke it off
	case d.whole && (d.head || d.status == http.StatusNotModified || d.length < 0 || d.bytes == d.length):
		return Complete
	case d.bytes > 0:
		return Aborted
	}
	return None
}

// of returns the record of the delivery of what a decision allowed, of a download whose
// files may come from a store.
func (d *delivery) of(decision *Record, stored bool) *Record {
	r := delivered(decision, d.result(stored), d.ended)
	r.Status, r.Duration, r.Protocol = d.status, d.took, d.protocol
	switch {
	case r.Archive == Part:
		if r.Delivery == Complete && !d.head {
			r.Bytes = r.Size
		}
	case r.Delivery != None: // or it is a page that was sent
		r.Bytes, r.Length, r.Range, r.Size = d.bytes, max(d.length, 0), d.sent, d.size
	}
	return r
}

// delivered returns the record of what came of a decision at a time: whose it was, and
// what was asked for.
func delivered(decision *Record, result string, at time.Time) *Record {
	r := *decision
	r.Type, r.Time, r.Delivery = TypeDelivery, at, result
	r.Decision, r.Reason, r.Line, r.Generation = "", "", "", 0
	r.Status, r.Duration, r.Range = 0, 0, ""
	return &r
}
