package audit

import (
	"encoding/json"
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

const testRequest = "0123456789abcdef0123456789abcdef"

// lineOfNginx is a line of nginx's log, as its snippet has it written, with other values
// for some members.
func lineOfNginx(t testing.TB, change string) string {
	t.Helper()
	line := map[string]any{
		"v": 1, "request_id": testRequest, "msec": 1764198000.123, "method": "GET", "protocol": "HTTP/1.1", "status": "200",
		"body_bytes": 1000, "bytes": 1500, "content_length": "1000", "content_range": "", "completion": "OK", "duration": 1.25,
	}
	if err := json.Unmarshal([]byte("{"+change+"}"), &line); err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(line)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// inOrder is a line as the snippet has it written, to the byte.
const inOrder = `{"v":1,"request_id":"` + testRequest + `","msec":1764198000.123,"method":"GET","protocol":"HTTP/2.0","status":"206",` +
	`"body_bytes":100,"bytes":1500,"content_length":"100","content_range":"bytes 0-99/1000","completion":"OK","duration":1.250}`

// The quick way reads the lines of the snippet, and says the same as the other.
func TestLinesOfTheSnippetAreReadTheQuickWay(t *testing.T) {
	var quick, slow nginxLine
	if !quick.read(inOrder) {
		t.Fatal("it is not read")
	}
	if err := json.Unmarshal([]byte(inOrder), &slow); err != nil || !reflect.DeepEqual(quick, slow) {
		t.Errorf("%v: %+v, not %+v", err, quick, slow)
	}
	template, err := os.ReadFile("../nginx/http.conf.tmpl")
	if err != nil {
		t.Fatal(err)
	}
	var format strings.Builder
	_, rest, _ := strings.Cut(string(template), "log_format securefiles_delivery escape=json")
	rest, _, _ = strings.Cut(rest, ";")
	for i, part := range strings.Split(rest, "'") {
		if i%2 == 1 {
			format.WriteString(part)
		}
	}
	variables := regexp.MustCompile(`[$][a-z_]+`).ReplaceAllString(format.String(), "0")
	if !new(nginxLine).read(variables) {
		t.Errorf("the snippet has lines written that take the slow way: %s", format.String())
	}
}

// Each row is what Debian's nginx 1.22.1 has been seen to say.
func TestWhatNginxSaysOfADelivery(t *testing.T) {
	for name, row := range map[string]struct {
		line                string
		result              string
		bytes, length, size int64
		sent                string
	}{
		"a whole file":              {``, Complete, 1000, 1000, 1000, ""},
		"an empty file":             {`"body_bytes": 0, "content_length": "0"`, Complete, 0, 0, 0, ""},
		"HEAD":                      {`"method": "HEAD", "body_bytes": 0`, Complete, 0, 1000, 1000, ""},
		"a range":                   {`"status": "206", "body_bytes": 100, "content_length": "100", "content_range": "bytes 0-99/1000"`, Complete, 100, 100, 1000, "bytes 0-99/1000"},
		"several ranges":            {`"status": "206", "body_bytes": 236, "content_length": "236"`, Complete, 236, 236, 0, ""},
		"a range that is not there": {`"status": "416", "body_bytes": 190, "content_length": "190", "content_range": "bytes */1000"`, None, 0, 0, 0, ""},
		"not modified":              {`"status": "304", "body_bytes": 0, "content_length": ""`, Complete, 0, 0, 0, ""},
		"an abort":                  {`"body_bytes": 392, "completion": ""`, Aborted, 392, 1000, 1000, ""},
		"an abort of a range":       {`"status": "206", "body_bytes": 7, "content_length": "100", "content_range": "bytes 900-999/1000", "completion": ""`, Aborted, 7, 100, 1000, "bytes 900-999/1000"},
		"an abort before anything":  {`"body_bytes": 0, "completion": ""`, None, 0, 0, 0, ""},
		"a body that is cut":        {`"body_bytes": 50`, Aborted, 50, 1000, 1000, ""},
		"compressed on its way":     {`"body_bytes": 300, "content_length": ""`, Complete, 300, 0, 0, ""},
		"a file that is not there":  {`"status": "404", "body_bytes": 150, "content_length": "150"`, None, 0, 0, 0, ""},
		"too many at a time":        {`"status": "429", "body_bytes": 150, "content_length": "150"`, None, 0, 0, 0, ""},
		"gone while nginx asked":    {`"status": "499", "body_bytes": 0, "content_length": "", "completion": ""`, None, 0, 0, 0, ""},
		"a member that is to come":  {`"zone": "a"`, Complete, 1000, 1000, 1000, ""},
	} {
		t.Run(name, func(t *testing.T) {
			d, err := parseDelivery([]byte(lineOfNginx(t, row.line)))
			if err != nil {
				t.Fatal(err)
			}
			decision := &Record{Version: Version, Type: TypeDecision, Request: testRequest, Subject: "alice", Path: "/a", Decision: "allow", Reason: "policy", Line: "p:1", Generation: 1, Status: 204, Range: "bytes=0-"}
			r := d.of(decision, false)
			if r.Delivery != row.result || r.Bytes != row.bytes || r.Length != row.length || r.Size != row.size || r.Range != row.sent {
				t.Errorf("%s: %d of %d of %d, %q", r.Delivery, r.Bytes, r.Length, r.Size, r.Range)
			}
			if r.Type != TypeDelivery || r.Subject != "alice" || r.Path != "/a" || r.Decision != "" || r.Reason != "" || r.Line != "" || r.Duration != 1.25 || r.Protocol != "1.1" ||
				!r.Time.Equal(time.UnixMilli(1764198000123)) || decision.Type != TypeDecision {
				t.Errorf("%+v", r)
			}
		})
	}
}

// nginx calls whole what a store broke off: without a length nobody knows.
func TestADeliveryFromAStoreWithoutALengthIsUnknown(t *testing.T) {
	for line, want := range map[string]string{
		``: Complete, `"content_length": ""`: Unknown, `"content_length": "", "completion": ""`: Aborted, `"content_length": "2000"`: Aborted,
		`"content_length": "", "method": "HEAD", "body_bytes": 0`: Complete, `"content_length": "", "status": "304", "body_bytes": 0`: Complete, `"content_length": "", "status": "503"`: None,
	} {
		d, err := parseDelivery([]byte(lineOfNginx(t, line)))
		if err != nil {
			t.Fatal(err)
		}
		if r := d.of(&Record{Type: TypeDecision}, true); r.Delivery != want || want == Unknown && r.Bytes != 1000 {
			t.Errorf("%s: %s, %d bytes", line, r.Delivery, r.Bytes)
		}
	}
}

func TestProtocolsOfDeliveries(t *testing.T) {
	for text, want := range map[string]string{"HTTP/1.0": "1.0", "HTTP/1.1": "1.1", "HTTP/2.0": "2", "HTTP/3.0": "3", "HTTP/1.9": "", "": "", "SPDY": ""} {
		d, err := parseDelivery([]byte(lineOfNginx(t, `"protocol": "`+text+`"`)))
		if err != nil || d.protocol != want {
			t.Errorf("%q: %q, %v", text, d.protocol, err)
		}
	}
}

func TestLinesThatAreNoDeliveryAreRefused(t *testing.T) {
	for change, want := range map[string]string{
		`"v": 2`:           "version 2",
		`"request_id": ""`: "request_id",
		`"request_id": "0123456789ABCDEF0123456789ABCDEF"`: "request_id",
		`"status": "abc"`:                         "status",
		`"status": "1000"`:                        "status",
		`"body_bytes": -1`:                        "number",
		`"duration": null`:                        "number",
		`"duration": -1`:                          "number",
		`"msec": 0`:                               "number",
		`"content_length": "-1"`:                  "content_length",
		`"content_length": "1e3"`:                 "content_length",
		`"content_range": "bytes 5-2/10"`:         "content_range",
		`"content_range": "bytes 0-9/10\u001b[m"`: "content_range",
		`"content_range": "bytes 0-10/10"`:        "content_range",
		`"body_bytes": "1"`:                       "cannot unmarshal",
	} {
		if _, err := parseDelivery([]byte(lineOfNginx(t, change))); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", change, err)
		}
	}
	for _, line := range []string{"", "{", "null", "[]", `{"v":1}`} {
		if _, err := parseDelivery([]byte(line)); err == nil {
			t.Errorf("%q is read", line)
		}
	}
}

func FuzzDeliveryIsReadOrRefused(f *testing.F) {
	f.Add(lineOfNginx(f, ""))
	f.Add(inOrder)
	f.Add(lineOfNginx(f, `"status": "206", "content_range": "bytes 0-99/1000"`))
	f.Add(lineOfNginx(f, `"content_range": "bytes */1000"`))
	f.Fuzz(func(t *testing.T, line string) {
		d, err := parseDelivery([]byte(line))
		var quick, slow nginxLine
		if quick.read(line) && json.Unmarshal([]byte(line), &slow) == nil && utf8.ValidString(line) && !reflect.DeepEqual(quick, slow) {
			t.Errorf("the quick way reads %+v, the other %+v", quick, slow)
		}
		if err != nil {
			return
		}
		r := d.of(&Record{Type: TypeDecision, Request: d.request, Time: time.Unix(1, 0)}, false)
		got, err := Parse(r.Append(nil))
		if err != nil || got.Bytes < 0 || got.Length < 0 || got.Size < 0 || got.Delivery == "" || got.Delivery == Complete && got.Bytes != got.Length && got.Length != 0 && !d.head && got.Status != 304 {
			t.Errorf("%v: %+v", err, got)
		}
	})
}
