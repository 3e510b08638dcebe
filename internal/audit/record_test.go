package audit

import (
	"encoding/json"
	"reflect"
	"testing"
	"time"
	"unicode/utf8"
)

func TestRecordIsReadAsItWasWritten(t *testing.T) {
	at := time.Date(2026, 11, 26, 23, 0, 0, 123456000, time.UTC)
	for name, r := range map[string]Record{
		"a decision": {
			Version: Version, Type: TypeDecision, Time: at, Request: "5f0c", Download: "main", Path: "/ä/😀 \"q\".pdf", Action: "read",
			Subject: "alice", Groups: []string{"@staff", "@anyone"}, Source: "header", Link: "l1", Maker: "bob", Client: "2001:db8::1",
			Agent: "curl/8", Referrer: "https://a.example", Method: "GET", Range: "bytes=0-", Decision: "allow", Reason: "policy",
			Line: "policy.csv:17", Generation: 3, Status: 204, Duration: 0.000125,
		},
		"a delivery": {
			Version: Version, Type: TypeDelivery, Time: at, Request: "5f0c", Status: 206, Duration: 1.5, Delivery: Aborted,
			Bytes: 10, Length: 20, Size: 30, Protocol: "2", Range: "bytes 0-19/30",
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := Parse(r.Append(nil))
			if err != nil || !reflect.DeepEqual(*got, r) {
				t.Errorf("read %+v, %v\nwrote %+v", got, err, r)
			}
		})
	}
}

func FuzzRecordIsOneLineOfPrintableASCII(f *testing.F) {
	for _, text := range []string{"", "a", "\n", "\x1b[31m", "\u009b31m", "\u202e", "\xff", "\u2028", "😀", "\"\\", "\x00", "\x7f", "\xed\xa0\x80"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		line := (&Record{Type: TypeDecision, Time: time.Unix(0, 0), Path: text, Groups: []string{text, text}, Agent: text}).Append(nil)
		for _, c := range line {
			if c < ' ' || c > '~' {
				t.Fatalf("%q in %q", c, line)
			}
		}
		r, err := Parse(line)
		if err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		want := string([]rune(text))
		if utf8.ValidString(text) && r.Path != text || r.Path != want {
			t.Errorf("wrote %q, read %q", text, r.Path)
		}
		if !json.Valid(line) {
			t.Errorf("not JSON: %s", line)
		}
	})
}
