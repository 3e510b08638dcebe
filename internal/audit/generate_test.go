package audit

import (
	"bufio"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"testing"
	"time"
)

// generate writes records of n requests, a decision and, where it is allowed, a
// delivery of each, a second apart, from a moment on. Subjects are user0 to user999,
// and once in rare requests bob asks for /project/plan.pdf.
func generate(w io.Writer, n, rare int, from time.Time) error {
	random := rand.New(rand.NewPCG(1, 2))
	out := bufio.NewWriterSize(w, 1<<20)
	var line []byte
	for i := range n {
		r := Record{
			Version: Version, Type: TypeDecision, Time: from.Add(time.Duration(i) * time.Second), Request: fmt.Sprintf("%016x%016x", random.Uint64(), random.Uint64()),
			Download: "main", Path: fmt.Sprintf("/project/%d/%d/report.pdf", random.IntN(1000), random.IntN(1000)), Action: "read",
			Subject: fmt.Sprintf("user%d", random.IntN(1000)), Groups: []string{"@staff", "@readers"}, Source: "header", Client: fmt.Sprintf("198.51.%d.%d", random.IntN(256), random.IntN(256)),
			Agent: "Mozilla/5.0 (X11; Linux x86_64; rv:133.0) Gecko/20100101 Firefox/133.0", Referrer: "https://files.example.org", Method: "GET",
			Decision: "allow", Reason: "policy", Line: "policy.csv:17", Generation: 3, Status: 204, Duration: 0.000125,
		}
		if rare > 0 && i%rare == rare-1 {
			r.Subject, r.Path = "bob", "/project/plan.pdf"
		}
		if i%10 == 9 {
			r.Decision, r.Reason, r.Status = "deny", "denied", 404
		}
		line = append(r.Append(line[:0]), '\n')
		if _, err := out.Write(line); err != nil {
			return err
		}
		if r.Decision == "deny" {
			continue
		}
		r.Type, r.Time, r.Status, r.Duration = TypeDelivery, r.Time.Add(1500*time.Millisecond), 200, 1.5
		r.Decision, r.Reason, r.Line, r.Generation = "", "", "", 0
		r.Delivery, r.Bytes, r.Length, r.Size, r.Protocol = Complete, 1<<20, 1<<20, 1<<20, "2"
		line = append(r.Append(line[:0]), '\n')
		if _, err := out.Write(line); err != nil {
			return err
		}
	}
	return out.Flush()
}

func generated(t testing.TB, name string, n, rare int, from time.Time) string {
	t.Helper()
	f, err := os.Create(name)
	if err == nil {
		err = generate(f, n, rare, from)
	}
	if err == nil {
		err = f.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return name
}
