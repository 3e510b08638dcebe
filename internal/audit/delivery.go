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

// parseDelivery reads a line of nginx's log. What it does not know in one it passes
// over; what it knows must be as the snippet writes it.
func parseDelivery(line []byte) (*delivery, error) {
	var l struct {
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
	if err := json.Unmarshal(line, &l); err != nil {
		return nil, fmt.Errorf("read a delivery of nginx's: %w", err)
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
	if l.Body < 0 || l.Duration == nil || *l.Duration < 0 || l.Ended <= 0 || l.Ended > 1<<40 {
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
	var first, last, size int64
	if n, err := fmt.Sscanf(text, "bytes %d-%d/%d", &first, &last, &size); err == nil && n == 3 && first >= 0 && first <= last && last < size &&
		text == fmt.Sprintf("bytes %d-%d/%d", first, last, size) {
		return text, size, nil
	}
	if n, err := fmt.Sscanf(text, "bytes */%d", &size); err == nil && n == 1 && size >= 0 && text == fmt.Sprintf("bytes */%d", size) { // of 416
		return text, size, nil
	}
	return "", 0, errors.New("its content_range is none")
}

// result is what came of the file.
func (d *delivery) result() string {
	switch d.status {
	case http.StatusOK, http.StatusPartialContent, http.StatusNotModified:
	default:
		return None
	}
	switch {
	case d.whole && (d.head || d.status == http.StatusNotModified || d.length < 0 || d.bytes == d.length):
		return Complete
	case d.bytes > 0:
		return Aborted
	}
	return None
}

// of returns the record of the delivery of what a decision allowed.
func (d *delivery) of(decision *Record) *Record {
	r := delivered(decision, d.result(), d.ended)
	r.Status, r.Duration, r.Protocol = d.status, d.took, d.protocol
	if r.Delivery != None { // or it is a page that was sent
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
