package audit

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"securefiles/authz"
	"securefiles/pathguard"
)

// What a record costs besides being written.
func BenchmarkRecord(b *testing.B) {
	r := numbered(1)
	r.Version, r.Request, r.Download, r.Action, r.Subject, r.Source, r.Client = Version, testRequest, "main", "read", "alice@example.org", "session", "192.0.2.1"
	r.Groups, r.Agent = []string{"@staff", "@authenticated", "@anyone"}, "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"
	r.Method, r.Reason, r.Line, r.Generation, r.Status, r.Duration = "GET", "policy", "policy.csv:17", 3, 204, 0.000123
	line := r.Append(nil)
	told := []byte(inOrder)
	signer, _ := testKey(b)
	for name, step := range map[string]func(){
		"append": func() { line = r.Append(line[:0]) },
		"seal":   func() { h := Head{}; h.seal(nil, line) },
		"parse nginx": func() {
			if _, err := parseDelivery(told); err != nil {
				b.Fatal(err)
			}
		},
		"parse": func() {
			if _, err := Parse(line); err != nil {
				b.Fatal(err)
			}
		},
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				step()
			}
		})
	}
	for _, together := range []int{1, 32} {
		for _, chained := range []bool{false, true} {
			b.Run(fmt.Sprintf("write chained=%t, %d at a time", chained, together), func(b *testing.B) {
				opts := &WriterOptions{}
				if chained {
					opts.Chain = &ChainOptions{Signer: signer, Every: time.Hour}
				}
				w := openTestWriter(b, filepath.Join(b.TempDir(), "audit.jsonl"), opts)
				b.SetParallelism(together)
				b.ReportAllocs()
				b.RunParallel(func(pb *testing.PB) {
					mine := *r
					for pb.Next() {
						if err := w.Write(&mine); err != nil {
							b.Error(err)
							return
						}
					}
				})
			})
		}
	}
}

// A decision that is recorded, and nginx's line of it that is joined.
func BenchmarkTrail(b *testing.B) {
	signer, _ := testKey(b)
	dir := b.TempDir()
	logs := filepath.Join(dir, "delivery.log")
	trail, err := Open(filepath.Join(dir, "audit.jsonl"), &Options{
		WriterOptions: WriterOptions{Chain: &ChainOptions{Signer: signer, Every: time.Hour}}, DeliveryLog: logs,
	})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.Context())
	ended := make(chan error)
	go func() { ended <- trail.Run(ctx) }()
	f, err := os.Create(logs)
	if err != nil {
		b.Fatal(err)
	}
	path, err := pathguard.New("/project/plan.pdf")
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		n++
		out := &authz.Outcome{
			Question: &authz.Question{ID: id(n), Method: http.MethodGet, Action: "read", IP: netip.MustParseAddr("192.0.2.1"), Download: &authz.Download{Name: "main"}, Path: path,
				Header: http.Header{"User-Agent": {"Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"}}},
			Reason: authz.ReasonPolicy, Decision: authz.Decision{Effect: authz.Allow, Generation: 1, File: "policy.csv", Line: 1}, Source: "session",
			Principal: authz.Principal{Subject: "alice@example.org", Groups: []string{"@staff", "@authenticated", "@anyone"}},
		}
		if err := trail.Record(ctx, out, 204, time.Millisecond); err != nil {
			b.Fatal(err)
		}
		if _, err := f.WriteString(strings.Replace(inOrder, testRequest, id(n), 1) + "\n"); err != nil {
			b.Fatal(err)
		}
	}
	for trail.State().Awaited > 0 {
		time.Sleep(time.Millisecond)
	}
	cancel()
	if err := errors.Join(<-ended, trail.Close(), f.Close()); err != nil {
		b.Fatal(err)
	}
}
