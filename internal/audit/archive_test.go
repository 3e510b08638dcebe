package audit

import (
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"securefiles/authz"
	"securefiles/pathguard"
)

// archive records that a folder was allowed as one file, and each of so many files in it.
func (j *joinTest) archive(n, files int) {
	j.t.Helper()
	dir, err := pathguard.NewDir("/d/")
	if err != nil {
		j.t.Fatal(err)
	}
	download := &authz.Download{Name: "main", Listing: true, Archives: true}
	allowed := authz.Decision{Effect: authz.Allow, Generation: 1, File: "policy.csv", Line: 1}
	who := authz.Principal{Subject: "alice"}
	whole := &authz.Outcome{Question: &authz.Question{ID: id(n), Method: http.MethodGet, Action: "list", Header: http.Header{}, Download: download, Dir: dir, Archive: dir}, Reason: authz.ReasonPolicy, Principal: who, Decision: allowed}
	var parts []*authz.Outcome
	for i := range files {
		path, err := dir.File(fmt.Sprintf("%04d", i))
		if err != nil {
			j.t.Fatal(err)
		}
		parts = append(parts, &authz.Outcome{Question: &authz.Question{ID: id(n), Method: http.MethodGet, Action: "read", Header: http.Header{}, Download: download, Path: path, Archive: dir, Size: int64(i)}, Reason: authz.ReasonPolicy, Principal: who, Decision: allowed})
	}
	if err := j.trail.Record(j.t.Context(), whole, 200, time.Millisecond); err != nil {
		j.t.Fatal(err)
	}
	for range 2 { // nginx may ask again
		if err := j.trail.RecordAll(j.t.Context(), parts, 200, time.Millisecond); err != nil {
			j.t.Fatal(err)
		}
	}
}

// of are the deliveries of a request by path: what became of it, and how many bytes of it.
func (j *joinTest) of(n int) map[string]string {
	j.t.Helper()
	text, err := os.ReadFile(j.name)
	if err != nil {
		j.t.Fatal(err)
	}
	all := map[string]string{}
	for line := range strings.Lines(string(text)) {
		if r, err := Parse([]byte(line)); err == nil && r.Type == TypeDelivery && r.Request == id(n) {
			if all[r.Path] != "" {
				j.t.Errorf("%s is delivered twice", r.Path)
			}
			all[r.Path] = fmt.Sprint(r.Archive, " ", r.Delivery, " ", r.Bytes, " of ", r.Size)
		}
	}
	return all
}

func TestAnArchiveDeliversEachFileInIt(t *testing.T) {
	j := newJoinTest(t)
	for n := range 3 {
		j.archive(n, 20)
	}
	if got := j.trail.State().Awaited; got != 63 {
		t.Errorf("%d are awaited", got)
	}
	j.deliver(0, `"status": "200", "content_length": "900", "body_bytes": 900`)
	j.deliver(1, `"status": "200", "content_length": "900", "body_bytes": 500`)
	j.deliver(2, `"status": "503", "content_length": "20", "body_bytes": 20`)
	j.eventually("all are told", j.none)
	for n, want := range [][2]string{{"whole complete 900 of 900", "part complete 7 of 7"}, {"whole aborted 500 of 900", "part aborted 0 of 7"}, {"whole none 0 of 0", "part none 0 of 7"}} {
		got := j.of(n)
		if len(got) != 21 || got["/d/"] != want[0] || got["/d/0007"] != want[1] {
			t.Errorf("%d: %v, want %v", n, got, want)
		}
	}
}

func TestAnArchiveIsAwaitedAfterARestart(t *testing.T) {
	for _, kept := range []bool{true, false} {
		j := newJoinTest(t)
		j.archive(1, 50)
		j.stop()
		if !kept {
			if err := os.Remove(j.name + ".awaited"); err != nil {
				t.Fatal(err)
			}
		}
		j.start()
		if got := j.trail.State().Awaited; got != 51 {
			t.Errorf("%d are awaited after a restart, its state kept %t", got, kept)
		}
		j.deliver(1, `"status": "200", "content_length": "900", "body_bytes": 900`)
		j.eventually("all are told", j.none)
		if got := j.of(1); len(got) != 51 || got["/d/0007"] != "part complete 7 of 7" {
			t.Errorf("%v", got)
		}
	}
}
