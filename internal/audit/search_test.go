package audit

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
)

var newYear = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// search returns the lines that were found.
func search(t testing.TB, files *Files, q *Query) ([]string, *Report) {
	t.Helper()
	var lines []string
	report, err := files.Search(t.Context(), q, func(f *Found) error {
		lines = append(lines, string(f.Line))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return lines, report
}

func writeCompressed(t testing.TB, name string, text []byte) {
	t.Helper()
	var b bytes.Buffer
	var err error
	switch filepath.Ext(name) {
	case ".gz":
		w := gzip.NewWriter(&b)
		_, err = w.Write(text)
		err = errors.Join(err, w.Close())
	case ".zst":
		var w *zstd.Encoder
		if w, err = zstd.NewWriter(&b); err == nil {
			_, err = w.Write(text)
			err = errors.Join(err, w.Close())
		}
	default:
		b.Write(text)
	}
	if err == nil {
		err = os.WriteFile(name, b.Bytes(), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// draw makes records of few names, a minute apart, deliveries up to a day late.
func draw(random *rand.Rand, n int) []Record {
	one := func(texts ...string) string { return texts[random.IntN(len(texts))] }
	var all []Record
	for i := range n {
		r := Record{
			Version: Version, Type: TypeDecision, Time: newYear.Add(time.Duration(i) * time.Minute), Request: fmt.Sprint("r", random.IntN(n)),
			Download: one("main", "other"), Path: one("/a", "/a/b.pdf", "/a/[1].pdf", "/ab", "/ä/\"q\" \\x.pdf", "/a/b/c", "/\x1b[31m"), Action: "read",
			Subject: one("alice", "bob", "anonymous", "\"b", "böb", "", "bob\n"), Client: one("198.51.100.7", "2001:db8::1", "10.0.0.0/24", ""), Method: "GET",
			Link: one("", "l1", "l2"), Decision: one("allow", "deny"), Reason: one("policy", "denied"), Agent: one("", strings.Repeat("x", 2000)),
		}
		if random.IntN(2) == 0 {
			r.Groups = []string{one("@staff", "staff", "admins")}
		}
		if random.IntN(2) == 0 {
			r.Type, r.Decision, r.Reason, r.Delivery = TypeDelivery, "", "", one(Complete, Aborted, None, Unknown)
			r.Time = r.Time.Add(-time.Duration(random.IntN(1440)) * time.Minute)
		}
		all = append(all, r)
	}
	return all
}

func drawQuery(random *rand.Rand, n int) *Query {
	one := func(texts ...string) string {
		if random.IntN(3) > 0 {
			return ""
		}
		return texts[random.IntN(len(texts))]
	}
	q := &Query{
		Request: one("r1", "r2"), Link: one("l1"), Download: one("main"), Group: one("staff", "@staff", "admins"),
		Path:     one("/a", "/a/**", "/a/[1].pdf", "/a/*.pdf", "/**", "/*b/**", "/ä/**", "/{a,ab}", "/a/b/c", "/nowhere"),
		Decision: one("allow", "deny"), Delivery: one(Complete, Unknown), Reason: one("policy"),
	}
	if s := one("bob", "alice", "\"b", "böb", "bob\n"); s != "" {
		q.Subjects = []string{s, "other"}
	}
	if a := one("198.51.100.7/32", "198.51.0.0/16", "10.0.0.9/32", "2001:db8::/32", "2001:db8::1/128"); a != "" {
		q.Address = netip.MustParsePrefix(a)
	}
	if random.IntN(2) == 0 {
		q.Since = newYear.Add(time.Duration(random.IntN(n)) * time.Minute)
	}
	if random.IntN(2) == 0 {
		q.Until = q.Since.Add(time.Duration(1+random.IntN(n)) * time.Minute)
		if q.Since.IsZero() {
			q.Until = newYear.Add(time.Duration(random.IntN(n)) * time.Minute)
		}
	}
	return q
}

// What is found is what matches, whatever is looked for before a line is read, and
// whatever file is skipped or read in part.
func TestSearchFindsWhatMatches(t *testing.T) {
	dir := t.TempDir()
	random := rand.New(rand.NewPCG(7, 7))
	const n = 4_000
	records := draw(random, n)
	file := filepath.Join(dir, "audit.jsonl")
	for i, name := range []string{"audit.jsonl.3.zst", "audit.jsonl-20260102.gz", "audit-20260103.jsonl", "audit.jsonl"} {
		var text []byte
		part := records[i*n/4 : (i+1)*n/4]
		for _, r := range part {
			text = append(r.Append(text), '\n')
		}
		name = filepath.Join(dir, name)
		writeCompressed(t, name, text)
		written := newYear.Add(time.Duration((i+1)*n/4) * time.Minute)
		if err := os.Chtimes(name, written, written); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"audit.jsonl.nginx.state", "audit.jsonl.bak", "other.jsonl.1", "audit.jsonlx", "audit.jsonl.1.tmp"} {
		writeCompressed(t, filepath.Join(dir, name), []byte("no record\n"))
	}
	files, err := Rotated(file)
	if err != nil || len(files) != 4 {
		t.Fatalf("%v: %v", err, files)
	}
	lines := make([]string, n)
	for i := range records {
		lines[i] = string(records[i].Append(nil))
	}
	skipped, some := 0, 0
	for range 150 {
		q := drawQuery(random, n)
		var want []string
		for i := range records {
			if q.Match(&records[i]) {
				want = append(want, lines[i])
			}
		}
		got, report := search(t, &Files{Paths: files}, q)
		if !slices.Equal(got, want) {
			t.Fatalf("%+v: found %d, want %d", q, len(got), len(want))
		}
		if report.TornLines > 0 || report.Files+report.Skipped != 4 {
			t.Fatalf("%+v: %+v", q, report)
		}
		skipped += report.Skipped
		some += min(len(want), 1)
	}
	if skipped == 0 || some < 20 {
		t.Errorf("skipped %d files, something was found %d times: the test shows little", skipped, some)
	}
}

func TestSearchStopsWhenItsCallerDoes(t *testing.T) {
	name := generated(t, filepath.Join(t.TempDir(), "audit.jsonl"), 100, 0, newYear)
	enough := errors.New("enough")
	found := 0
	_, err := (&Files{Paths: []string{name}}).Search(t.Context(), &Query{}, func(*Found) error {
		if found++; found == 3 {
			return enough
		}
		return nil
	})
	if !errors.Is(err, enough) || found != 3 {
		t.Errorf("%v after %d", err, found)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := (&Files{Paths: []string{name}}).Search(ctx, &Query{}, func(*Found) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("canceled: %v", err)
	}
}

// A file that is damaged, or not there, does not keep the others from being searched.
func TestSearchTellsOfFilesThatItCannotRead(t *testing.T) {
	dir := t.TempDir()
	good := generated(t, filepath.Join(dir, "audit.jsonl"), 10, 0, newYear)
	text, err := os.ReadFile(good)
	if err != nil {
		t.Fatal(err)
	}
	cut := filepath.Join(dir, "audit.jsonl.1.gz")
	writeCompressed(t, cut, text)
	whole, err := os.ReadFile(cut)
	if err == nil {
		err = os.WriteFile(cut, whole[:len(whole)-20], 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	other := filepath.Join(dir, "audit.jsonl.2.xz")
	writeCompressed(t, other, []byte("?"))
	if err := os.Chtimes(other, newYear, newYear); err != nil {
		t.Fatal(err)
	}
	if listed, err := Rotated(good); err != nil || !slices.Contains(listed, other) {
		t.Errorf("%v, %v", listed, err)
	}
	found := 0
	_, err = (&Files{Paths: []string{cut, filepath.Join(dir, "missing"), dir, other, good}}).Search(t.Context(), &Query{}, func(*Found) error {
		found++
		return nil
	})
	if found < 19 || err == nil {
		t.Fatalf("%d found, %v", found, err)
	}
	for _, want := range []string{"audit.jsonl.1.gz: unexpected EOF", "missing: no such file", "is a directory", "audit.jsonl.2.xz: it is compressed, and not by gzip or zstd"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in %v", want, err)
		}
	}
	_, report := search(t, &Files{Paths: []string{other, good}}, &Query{Since: newYear.Add(time.Hour)})
	if report.Skipped != 1 || report.TornLines > 0 { // it holds nothing of the time
		t.Errorf("%+v", report)
	}
}

// A line that a crash has torn is passed over and told of, by its number: also where
// the file is not read from its beginning.
func TestTornLinesArePassedOverAndToldOf(t *testing.T) {
	name := filepath.Join(t.TempDir(), "audit.jsonl")
	var text bytes.Buffer
	if err := generate(&text, 12_000, 0, newYear); err != nil {
		t.Fatal(err)
	}
	lines := bytes.SplitAfter(bytes.TrimSuffix(text.Bytes(), []byte("\n")), []byte("\n"))
	torn := []int{2, len(lines) - 100, len(lines) - 1}
	for i, at := range torn {
		broken := [][]byte{[]byte("{\"v\":1,\"type\":\"deci\n"), []byte("{\"v\":1}\n"), bytes.Repeat([]byte("x"), MaxLine+5)}[i]
		lines[at-1] = broken
	}
	lines[len(lines)-2] = append(lines[len(lines)-2], '\n')
	if err := os.WriteFile(name, bytes.Join(lines, nil), 0o600); err != nil {
		t.Fatal(err)
	}
	_, report := search(t, &Files{Paths: []string{name}}, &Query{})
	if len(report.Torn) != 3 || report.TornLines != 3 || report.Torn[0] != (Place{name, 2}) || report.Torn[1] != (Place{name, torn[1]}) {
		t.Fatalf("%+v", report)
	}
	found, late := search(t, &Files{Paths: []string{name}}, &Query{Since: newYear.Add(3 * time.Hour)})
	if len(late.Torn) != 2 || late.Torn[0] != report.Torn[1] || late.Torn[1] != report.Torn[2] {
		t.Errorf("%+v, want the last two of %+v", late, report)
	}
	if len(found) == 0 {
		t.Error("nothing found")
	}
}

func TestRecordsOfALaterVersionAreCounted(t *testing.T) {
	name := filepath.Join(t.TempDir(), "audit.jsonl")
	writeCompressed(t, name, []byte(`{"v":2,"type":"decision","time":"2026-01-01T00:00:00.000000Z"}`+"\n"+`{"v":1,"type":"checkpoint","time":"2026-01-01T00:00:00.000000Z","note":"x"}`+"\n"))
	if found, report := search(t, &Files{Paths: []string{name}}, &Query{}); len(found) != 0 || report.Later != 1 || report.TornLines != 0 {
		t.Errorf("%d found, %+v", len(found), report)
	}
}

// A plain file is read from where the time begins.
func TestSearchReadsOfALargeFileWhatIsOfTheTime(t *testing.T) {
	name := generated(t, filepath.Join(t.TempDir(), "audit.jsonl"), 40_000, 0, newYear)
	info, err := os.Stat(name)
	if err != nil {
		t.Fatal(err)
	}
	var read int64
	files := &Files{Paths: []string{name}}
	files.Progress = func(p Progress) { read = p.Read }
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	part, err := sectionOf(f, info.Size(), &Query{Since: newYear.Add(11 * time.Hour)})
	if err != nil || part.from < info.Size()*9/10 || part.to != info.Size() {
		t.Errorf("%+v of %d, %v", part, info.Size(), err)
	}
	found, _ := search(t, files, &Query{Since: newYear.Add(11 * time.Hour), Decision: "allow"})
	if len(found) != 360 || read != info.Size() {
		t.Errorf("%d found, %d read", len(found), read)
	}
}

// What is appended is found, and what is written to the file that takes the name.
func TestFollowGoesOnWithTheFileThatTakesTheName(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "audit.jsonl")
	line := func(i int) []byte {
		r := Record{Version: Version, Type: TypeDecision, Time: newYear.Add(time.Duration(i) * time.Second), Request: fmt.Sprint(i), Decision: "allow"}
		return append(r.Append(nil), '\n')
	}
	write := func(text []byte) {
		t.Helper()
		f, err := os.OpenFile(name, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
		if err == nil {
			_, err = f.Write(text)
			err = errors.Join(err, f.Close())
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	write(line(1))
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	found := 0
	step := 0
	_, err := (&Files{Paths: []string{name}, Follow: name, Idle: func() {
		step++
		switch {
		case found == 1 && step == 1:
			write(append(line(2), line(3)[:20]...)) // a line in two parts
		case found == 2:
			write(line(3)[20:])
		case found == 3:
			write(line(4))
			if err := os.Rename(name, name+".1"); err != nil {
				t.Error(err)
			}
			write(line(5))
		case found == 5:
			cancel()
		}
	}}).Search(ctx, &Query{}, func(f *Found) error {
		found++
		if f.Request != fmt.Sprint(found) {
			t.Errorf("record %s is the %d.", f.Request, found)
		}
		return nil
	})
	if !errors.Is(err, context.Canceled) || found != 5 {
		t.Errorf("%d found: %v", found, err)
	}
}

func TestPathsAreExactOrPatterns(t *testing.T) {
	for _, row := range []struct {
		pattern, path string
		want          bool
	}{
		{"/a/b.pdf", "/a/b.pdf", true},
		{"/a/b.pdf", "/a/b.pdfx", false},
		{"/a/**", "/a/b/c", true},
		{"/a/**", "/a", true},
		{"/a/**", "/ab", false},
		{"/a/*.pdf", "/a/b.pdf", true},
		{"/a/*.pdf", "/a/b/c.pdf", false},
		{"/a/[1].pdf", "/a/[1].pdf", true},
		{"/a/[1].pdf", "/a/1.pdf", true},
	} {
		q := &Query{Path: row.pattern}
		if got := q.Match(&Record{Type: TypeDecision, Path: row.path}); got != row.want {
			t.Errorf("%s, %s: %v", row.pattern, row.path, got)
		}
	}
	if err := (&Query{Path: "/a/["}).Validate(); err == nil {
		t.Error("/a/[ is a pattern")
	}
}
