package audit

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func TestRequestsForPartsAreOneDownload(t *testing.T) {
	const gib = 1 << 30
	delivery := func(client, outcome string, status int, sent, length, size int64, part string) Record {
		return Record{Type: TypeDelivery, Time: newYear, Subject: "bob", Path: "/film.mp4", Client: client, Method: "GET", Delivery: outcome, Status: status, Bytes: sent, Length: length, Size: size, Range: part}
	}
	ranges := func(n int64) (all []Record) {
		for i := range n {
			from, to := i*gib/n, (i+1)*gib/n
			all = append(all, delivery("a", Complete, 206, to-from, to-from, gib, fmt.Sprintf("bytes %d-%d/%d", from, to-1, int64(gib))))
		}
		return all
	}
	for name, row := range map[string]struct {
		records []Record
		want    Row
	}{
		"twelve ranges":             {ranges(12), Row{Requests: 12, Deliveries: 12, Downloads: 1, Complete: 1, Bytes: gib, Size: gib, Sent: gib}},
		"twelve ranges but one":     {append(ranges(12)[:5], ranges(12)[6:]...), Row{Requests: 11, Deliveries: 11, Downloads: 1, Partial: 1, Bytes: gib - (gib*6/12 - gib*5/12), Size: gib, Sent: gib - (gib*6/12 - gib*5/12)}},
		"ranges in another order":   {[]Record{ranges(3)[2], ranges(3)[0], ranges(3)[1]}, Row{Requests: 3, Deliveries: 3, Downloads: 1, Complete: 1, Bytes: gib, Size: gib, Sent: gib}},
		"ranges of two clients":     {[]Record{ranges(2)[0], delivery("b", Complete, 206, 5, 5, 10, "bytes 5-9/10")}, Row{Requests: 2, Deliveries: 2, Downloads: 2, Partial: 2, Bytes: gib/2 + 5, Size: gib + 10, Sent: gib/2 + 5}},
		"the whole":                 {[]Record{delivery("a", Complete, 200, 10, 10, 0, "")}, Row{Requests: 1, Deliveries: 1, Downloads: 1, Complete: 1, Bytes: 10, Size: 10, Sent: 10}},
		"the whole, twice":          {[]Record{delivery("a", Complete, 200, 10, 10, 0, ""), delivery("a", Complete, 200, 10, 10, 10, "")}, Row{Requests: 2, Deliveries: 2, Downloads: 1, Complete: 1, Bytes: 10, Size: 10, Sent: 20}},
		"an empty file":             {[]Record{delivery("a", Complete, 200, 0, 0, 0, "")}, Row{Requests: 1, Deliveries: 1, Downloads: 1, Complete: 1}},
		"an aborted one":            {[]Record{delivery("a", Aborted, 200, 4, 10, 10, "")}, Row{Requests: 1, Deliveries: 1, Downloads: 1, Partial: 1, Bytes: 4, Size: 10, Sent: 4}},
		"aborted, and then resumed": {[]Record{delivery("a", Aborted, 200, 4, 10, 10, ""), delivery("a", Complete, 206, 6, 6, 10, "bytes 4-9/10")}, Row{Requests: 2, Deliveries: 2, Downloads: 1, Complete: 1, Bytes: 10, Size: 10, Sent: 10}},
		"an aborted range":          {[]Record{delivery("a", Aborted, 206, 2, 6, 10, "bytes 4-9/10"), delivery("a", Complete, 206, 4, 4, 10, "bytes 6-9/10")}, Row{Requests: 2, Deliveries: 2, Downloads: 1, Partial: 1, Bytes: 6, Size: 10, Sent: 6}},
		"several ranges at once":    {[]Record{delivery("a", Complete, 206, 300, 300, 0, "")}, Row{Requests: 1, Deliveries: 1, Downloads: 1, Partial: 1, Sent: 300}},
		"nothing":                   {[]Record{delivery("a", None, 404, 0, 0, 0, "")}, Row{Requests: 1, Deliveries: 1, Nothing: 1}},
		"not modified":              {[]Record{delivery("a", Complete, 304, 0, 0, 0, "")}, Row{Requests: 1, Deliveries: 1, Nothing: 1}},
		"nobody knows":              {[]Record{delivery("a", Unknown, 0, 0, 0, 0, "")}, Row{Requests: 1, Deliveries: 1, Unknown: 1}},
		"unknown, and then whole":   {[]Record{delivery("a", Unknown, 0, 0, 0, 0, ""), delivery("a", Complete, 200, 10, 10, 10, "")}, Row{Requests: 2, Deliveries: 2, Downloads: 1, Complete: 1, Bytes: 10, Size: 10, Sent: 10}},
		"a file that has changed":   {[]Record{delivery("a", Complete, 206, 5, 5, 10, "bytes 0-4/10"), delivery("a", Complete, 206, 7, 7, 12, "bytes 5-11/12")}, Row{Requests: 2, Deliveries: 2, Downloads: 2, Partial: 2, Bytes: 12, Size: 22, Sent: 12}},
		"decisions alone":           {[]Record{{Type: TypeDecision, Time: newYear, Subject: "bob", Decision: "allow"}, {Type: TypeDecision, Time: newYear, Subject: "bob", Decision: "deny"}}, Row{Requests: 1, Denied: 1}},
		"a head":                    {[]Record{{Type: TypeDelivery, Time: newYear, Subject: "bob", Method: "HEAD", Delivery: Complete, Status: 200, Length: 10}}, Row{Requests: 1, Deliveries: 1}},
		"a range that is none":      {[]Record{delivery("a", Complete, 206, 5, 5, 10, "bytes 9-4/10"), delivery("a", Complete, 206, 5, 5, 10, "bytes x")}, Row{Requests: 2, Deliveries: 2, Downloads: 1, Partial: 1, Size: 10, Sent: 10}},
	} {
		t.Run(name, func(t *testing.T) {
			s := NewSummary(BySubject, time.UTC)
			for i := range row.records {
				s.Add(&row.records[i])
			}
			row.want.Clients = s.rows["bob"].Clients
			row.want.Key, row.want.First, row.want.Last = "bob", newYear, newYear
			if diff := cmp.Diff([]Row{row.want}, s.Rows()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestSummaryIsBySubjectPathDayOrLink(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	records := []Record{
		{Subject: "bob", Download: "main", Path: "/a", Link: "l1", Time: newYear.Add(-2 * time.Hour), Bytes: 5},
		{Subject: "bob", Download: "main", Path: "/b", Time: newYear.Add(-time.Hour), Bytes: 1},
		{Subject: "eve", Download: "main", Path: "/a", Link: "l1", Time: newYear, Bytes: 3},
	}
	for by, want := range map[string][]Row{
		BySubject: {{Key: "bob", Requests: 2, Bytes: 6}, {Key: "eve", Requests: 1, Bytes: 3}},
		ByPath:    {{Key: "main /a", Requests: 2, Bytes: 8}, {Key: "main /b", Requests: 1, Bytes: 1}},
		ByDay:     {{Key: "2025-12-31", Requests: 1, Bytes: 5}, {Key: "2026-01-01", Requests: 2, Bytes: 4}},
		ByLink:    {{Key: "l1", Requests: 2, Bytes: 8}, {Key: "", Requests: 1, Bytes: 1}},
	} {
		s := NewSummary(by, berlin)
		for _, r := range records {
			r.Type, r.Delivery, r.Status, r.Length = TypeDelivery, Complete, 200, r.Bytes
			s.Add(&r)
		}
		if diff := cmp.Diff(want, s.Rows(), cmpopts.IgnoreFields(Row{}, "Deliveries", "Downloads", "Complete", "Size", "Sent", "First", "Last")); diff != "" {
			t.Errorf("%s: %s", by, diff)
		}
	}
}

// However many there are, a summary holds a bounded number of them, and says so.
func TestSummaryIsBounded(t *testing.T) {
	s := NewSummary(BySubject, time.UTC)
	s.bound = 10
	const n = 1000
	for i := range n {
		for range 2 {
			s.Add(&Record{Type: TypeDelivery, Time: newYear, Subject: fmt.Sprint("user", i), Path: "/a", Delivery: Complete, Status: 200, Bytes: 5, Length: 5})
		}
	}
	rows := s.Rows()
	if len(rows) != 6 || len(s.rows) != 5 || !rows[5].Others || rows[5].Key != "" {
		t.Fatalf("%+v", rows)
	}
	requests, bytes := 0, int64(0)
	for _, r := range rows {
		requests += r.Requests
		bytes += r.Sent
	}
	if requests != 2*n || bytes != 2*n*5 {
		t.Errorf("%d requests, %d bytes in all", requests, bytes)
	}
	// A client that asks for every other byte.
	d := &download{}
	for i := range int64(2 * maxSpans) {
		d.add(&Record{Type: TypeDelivery, Status: 206, Bytes: 1, Range: fmt.Sprintf("bytes %d-%d/1000000", 2*i, 2*i)})
	}
	if len(d.spans) != maxSpans || !d.more || d.sent != 2*maxSpans {
		t.Errorf("%d spans, %+v", len(d.spans), d)
	}
}
