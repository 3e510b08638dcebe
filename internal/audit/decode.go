package audit

import (
	"bytes"
	"encoding/json"
	"strconv"
)

// A decoder reads a line as Append and the chain write it. What it does not expect,
// which may be right all the same, is left to encoding/json.
type decoder struct{ rest []byte }

// decode reads a line into an empty record, and reports whether it could; the record
// is of no use otherwise.
func decode(line []byte, r *Record) bool {
	d := decoder{line}
	if !d.skip('{') {
		return false
	}
	for {
		key, ok := d.plain()
		if !ok || !d.skip(':') || !d.member(key, r) {
			return false
		}
		if !d.skip(',') {
			return d.skip('}') && len(d.rest) == 0
		}
	}
}

func (d *decoder) member(key []byte, r *Record) bool {
	switch string(key) {
	case "v":
		n, ok := d.int()
		r.Version = int(n)
		return ok
	case "type":
		return d.text(&r.Type)
	case "time":
		at, ok := d.plain()
		return ok && r.Time.UnmarshalText(at) == nil
	case "request.id":
		return d.text(&r.Request)
	case "download":
		return d.text(&r.Download)
	case "path":
		return d.text(&r.Path)
	case "action":
		return d.text(&r.Action)
	case "user.id":
		return d.text(&r.Subject)
	case "sealed":
		return d.text(&r.Sealed)
	case "user.groups":
		r.Groups = nil
		if !d.skip('[') {
			return false
		}
		for {
			var g string
			if !d.text(&g) {
				return false
			}
			r.Groups = append(r.Groups, g)
			if !d.skip(',') {
				return d.skip(']')
			}
		}
	case "identity.source":
		return d.text(&r.Source)
	case "link.id":
		return d.text(&r.Link)
	case "link.maker":
		return d.text(&r.Maker)
	case "client.address":
		return d.text(&r.Client)
	case "user_agent.original":
		return d.text(&r.Agent)
	case "referrer.origin":
		return d.text(&r.Referrer)
	case "http.request.method":
		return d.text(&r.Method)
	case "range":
		return d.text(&r.Range)
	case "archive":
		return d.text(&r.Archive)
	case "decision":
		return d.text(&r.Decision)
	case "reason":
		return d.text(&r.Reason)
	case "policy.line":
		return d.text(&r.Line)
	case "policy.generation":
		n, ok := d.int()
		r.Generation = uint64(n)
		return ok
	case "http.response.status_code":
		n, ok := d.int()
		r.Status = int(n)
		return ok
	case "duration":
		var err error
		r.Duration, err = strconv.ParseFloat(string(d.number()), 64)
		return err == nil
	case "delivery":
		return d.text(&r.Delivery)
	case "http.response.body.size":
		n, ok := d.int()
		r.Bytes = n
		return ok
	case "content_length":
		n, ok := d.int()
		r.Length = n
		return ok
	case "file.size":
		n, ok := d.int()
		r.Size = n
		return ok
	case "network.protocol.version":
		return d.text(&r.Protocol)
	case "note":
		return d.text(&r.Note)
	case "seq":
		n, ok := d.int()
		r.Seq = uint64(n)
		return ok
	case "hash":
		return d.text(&r.Hash)
	}
	return false
}

func (d *decoder) skip(c byte) bool {
	if len(d.rest) == 0 || d.rest[0] != c {
		return false
	}
	d.rest = d.rest[1:]
	return true
}

// quoted takes a string of printable ASCII, without its quotes.
func (d *decoder) quoted() (text []byte, escaped, ok bool) {
	if !d.skip('"') {
		return nil, false, false
	}
	for i := 0; i < len(d.rest); i++ {
		switch c := d.rest[i]; {
		case c == '"':
			text, d.rest = d.rest[:i], d.rest[i+1:]
			return text, escaped, true
		case c == '\\':
			escaped = true
			i++
		case c < ' ' || c > '~':
			return nil, false, false
		}
	}
	return nil, false, false
}

func (d *decoder) plain() ([]byte, bool) {
	text, escaped, ok := d.quoted()
	return text, ok && !escaped
}

func (d *decoder) text(to *string) bool {
	begin := d.rest
	text, escaped, ok := d.quoted()
	if ok && escaped {
		return json.Unmarshal(begin[:len(text)+2], to) == nil
	}
	*to = string(text)
	return ok
}

// number takes a number of digits, with a fraction or without, in the forms in which
// they are written.
func (d *decoder) number() []byte {
	i := 0
	for i < len(d.rest) && (d.rest[i] >= '0' && d.rest[i] <= '9' || d.rest[i] == '.') {
		i++
	}
	n := d.rest[:i]
	d.rest = d.rest[i:]
	if len(n) == 0 || n[0] == '.' || n[i-1] == '.' || len(n) > 1 && n[0] == '0' && n[1] != '.' {
		return nil
	}
	return n
}

// int takes a number from 0, of at most 18 digits.
func (d *decoder) int() (int64, bool) {
	n := d.number()
	if len(n) == 0 || len(n) > 18 || bytes.IndexByte(n, '.') >= 0 {
		return 0, false
	}
	value := int64(0)
	for _, c := range n {
		value = 10*value + int64(c-'0')
	}
	return value, true
}
