package audit

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

func openTestWriter(t testing.TB, name string, opts *WriterOptions) *Writer {
	t.Helper()
	w, err := OpenWriter(name, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.Close() }) // a test may have closed it
	return w
}

func numbered(n int) *Record {
	return &Record{Type: TypeDecision, Time: time.Unix(int64(n), 0), Request: fmt.Sprint(n), Path: "/a.txt", Decision: "allow"}
}

// requests returns the requests of the records in a file, and how many lines are none.
func requests(t testing.TB, name string) (ids []string, torn int) {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	for line := range bytes.Lines(text) {
		r, err := Parse(line)
		if err != nil || line[len(line)-1] != '\n' {
			torn++
			continue
		}
		ids = append(ids, r.Request)
	}
	return ids, torn
}

func TestRecordsAreInTheFileOnceWriteReturns(t *testing.T) {
	for _, sync := range []bool{false, true} {
		t.Run(fmt.Sprint("sync ", sync), func(t *testing.T) {
			name := filepath.Join(t.TempDir(), "audit.jsonl")
			w := openTestWriter(t, name, &WriterOptions{Sync: sync})
			for i := range 3 {
				if err := w.Write(numbered(i)); err != nil {
					t.Fatal(err)
				}
				if ids, torn := requests(t, name); len(ids) != i+1 || torn != 0 || ids[i] != fmt.Sprint(i) {
					t.Fatalf("after %d: %v, %d torn", i, ids, torn)
				}
			}
			if info, err := os.Stat(name); err != nil || info.Mode() != 0o640 {
				t.Errorf("mode %v, %v", info.Mode(), err)
			}
			if s := w.State(); s.Records[TypeDecision] != 3 || s.Records[TypeDelivery] != 0 || s.Failures != 0 || s.Failing {
				t.Errorf("state %+v", s)
			}
		})
	}
}

// Under -race too: many at a time, and rotated meanwhile, as logrotate does it.
func TestConcurrentRecordsAreLinesOfTheirOwnAndSurviveRotation(t *testing.T) {
	name := filepath.Join(t.TempDir(), "audit.jsonl")
	w := openTestWriter(t, name, nil)
	const writers, each = 16, 200
	var group sync.WaitGroup
	var failed atomic.Int64
	for i := range writers {
		group.Go(func() {
			for j := range each {
				if w.Write(numbered(i*each+j)) != nil {
					failed.Add(1)
				}
			}
		})
	}
	for i := range 5 {
		if err := os.Rename(name, fmt.Sprint(name, ".", i)); err != nil {
			t.Error(err)
		}
		if err := w.Reopen(); err != nil {
			t.Error(err)
		}
	}
	group.Wait()
	seen := map[string]bool{}
	files, err := filepath.Glob(name + "*")
	if err != nil || len(files) != 6 {
		t.Fatalf("%v, %v", files, err)
	}
	for _, file := range files {
		ids, torn := requests(t, file)
		if torn > 0 {
			t.Errorf("%s: %d torn lines", file, torn)
		}
		for _, id := range ids {
			if seen[id] {
				t.Errorf("%s is there twice", id)
			}
			seen[id] = true
		}
	}
	if len(seen) != writers*each || failed.Load() != 0 || w.State().Records[TypeDecision] != writers*each {
		t.Errorf("%d records, %d failed, %+v", len(seen), failed.Load(), w.State())
	}
}

func TestALineTornByACrashIsEndedAtTheNextStart(t *testing.T) {
	name := filepath.Join(t.TempDir(), "audit.jsonl")
	if err := os.WriteFile(name, append(append(numbered(0).Append(nil), '\n'), `{"v":1,"type":"deci`...), 0o600); err != nil {
		t.Fatal(err)
	}
	w := openTestWriter(t, name, nil)
	for i := 1; i < 3; i++ {
		if err := w.Write(numbered(i)); err != nil {
			t.Fatal(err)
		}
	}
	if ids, torn := requests(t, name); fmt.Sprint(ids) != "[0 1 2]" || torn != 1 {
		t.Errorf("%v, %d torn", ids, torn)
	}
}

func TestAFileHasOneWriterAndIsAFile(t *testing.T) {
	name := filepath.Join(t.TempDir(), "audit.jsonl")
	w := openTestWriter(t, name, nil)
	if _, err := OpenWriter(name, nil); err == nil || !strings.Contains(err.Error(), "another service writes to it") {
		t.Errorf("a second writer: %v", err)
	}
	if err := w.Reopen(); err != nil { // the same file: it is its own
		t.Error(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	openTestWriter(t, name, nil)
	if err := w.Write(numbered(1)); err == nil {
		t.Error("written though it is closed")
	}
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]string{
		pipe: "not a regular file", t.TempDir(): "is a directory", filepath.Join(t.TempDir(), "no", "file"): "no such file or directory",
		"/dev/full": "not a regular file",
	} {
		if _, err := OpenWriter(file, nil); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "open the audit file: ") {
			t.Errorf("%s: %v", file, err)
		}
	}
}

// A writer that ends within a line: what a disk that fills up does, for certain.
type short struct {
	bytes.Buffer
	left int
}

func (s *short) Write(p []byte) (int, error) {
	n := min(len(p), s.left)
	s.left -= n
	s.Buffer.Write(p[:n])
	if n < len(p) {
		return n, syscall.ENOSPC
	}
	return n, nil
}

func TestOfABatchThatIsWrittenInPartTheWholeLinesCount(t *testing.T) {
	line := len(numbered(1).Append(nil)) + 1
	for left := range 3*line + 1 {
		out := &short{left: left}
		w := openTestWriter(t, Stdout, &WriterOptions{Output: out})
		good, err := w.WriteAll(numbered(0), numbered(1), numbered(2))
		want := (left + 1) / line // the last line feed may come later
		if good != want || (err == nil) != (good == 3) || err != nil && !errors.Is(err, syscall.ENOSPC) {
			t.Fatalf("%d bytes: %d lines, %v", left, good, err)
		}
		if s := w.State(); s.Records[TypeDecision] != uint64(good) || s.Failures != uint64(3-good) || s.Failing != (good < 3) {
			t.Fatalf("%d bytes: %+v", left, s)
		}
		out.left = 1 << 20
		if err := w.Write(numbered(7)); err != nil || w.State().Failing {
			t.Fatalf("%d bytes, and then room: %v", left, err)
		}
		lines := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
		if got, err := Parse([]byte(lines[len(lines)-1])); err != nil || got.Request != "7" || len(lines) != good+1+min((left+1)%line/2, 1) {
			t.Fatalf("%d bytes: %v in %q", left, err, lines)
		}
	}
}

type applied func(*Record) error

func (a applied) Apply(r *Record) error { return a(r) }

func TestARecordThatCannotBeTransformedIsNotWritten(t *testing.T) {
	var out bytes.Buffer
	refuse := false
	w := openTestWriter(t, Stdout, &WriterOptions{Output: &out, Transform: applied(func(r *Record) error {
		r.Path = "sealed"
		if refuse {
			return errors.New("no key")
		}
		return nil
	})})
	r := numbered(1)
	if err := w.Write(r); err != nil || r.Path != "/a.txt" || !strings.Contains(out.String(), "sealed") {
		t.Errorf("%v: %+v in %s", err, r, out.String())
	}
	refuse = true
	before := out.Len()
	if err := w.Write(r); err == nil || out.Len() != before || w.State().Failures != 1 {
		t.Errorf("%v: %s", err, out.String())
	}
}

func TestStandardOutputTakesTheFilesPlace(t *testing.T) {
	var out bytes.Buffer
	w := openTestWriter(t, Stdout, &WriterOptions{Output: &out, Sync: true})
	if err := errors.Join(w.Write(numbered(1)), w.Reopen(), w.Write(numbered(2)), w.Close()); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(out.String(), "\n"); n != 2 {
		t.Errorf("%d lines: %s", n, out.String())
	}
}

// smallDisk is a directory on a file system that holds so many bytes. Who may mount
// none runs the test again in a user namespace of its own, where it may.
func smallDisk(t *testing.T, size int) string {
	t.Helper()
	dir := t.TempDir()
	err := syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d", size))
	if err == nil {
		t.Cleanup(func() {
			if err := syscall.Unmount(dir, 0); err != nil {
				t.Error(err)
			}
		})
		return dir
	}
	if os.Getenv("SECUREFILES_TEST_NAMESPACE") != "" || !errors.Is(err, syscall.EPERM) {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), "SECUREFILES_TEST_NAMESPACE=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}, GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}},
	}
	var path *os.PathError
	out, err := cmd.CombinedOutput()
	switch {
	case errors.As(err, &path):
		t.Skipf("neither root nor user namespaces: %v", err)
	case err != nil:
		t.Fatalf("in a namespace: %v\n%s", err, out)
	}
	t.SkipNow() // it has passed there
	return ""
}

// fill takes all that a file system has left.
func fill(t *testing.T, name string) {
	t.Helper()
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(f, zeros{}); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("the disk is not full: %v", err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }

func TestAFullDiskFailsEachWriteUntilThereIsRoom(t *testing.T) {
	dir := smallDisk(t, 64<<10)
	name, ballast := filepath.Join(dir, "audit.jsonl"), filepath.Join(dir, "ballast")
	w := openTestWriter(t, name, nil)
	if err := w.Write(numbered(0)); err != nil {
		t.Fatal(err)
	}
	fill(t, ballast)
	written := uint64(1)
	for { // what is left of the last page
		err := w.Write(numbered(1))
		if err != nil {
			if !errors.Is(err, syscall.ENOSPC) {
				t.Error(err)
			}
			break
		}
		written++
	}
	if s := w.State(); s.Records[TypeDecision] != written || s.Failures != 1 || !s.Failing {
		t.Errorf("full, after %d: %+v", written, s)
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	if err := w.Write(numbered(2)); err != nil || w.State().Failing {
		t.Errorf("with room again: %v, %+v", err, w.State())
	}
	if ids, torn := requests(t, name); uint64(len(ids)) != written+1 || ids[written] != "2" || torn > 1 {
		t.Errorf("%d records of %d, %d torn", len(ids), written+1, torn)
	}
	if err := w.Close(); err != nil { // or it could not be unmounted
		t.Fatal(err)
	}
}

// After an error that is not want of room the file is let go, so that its disk can be
// unmounted, and opened by its name before the next record; but not made where there is
// none, as below the directory of a disk that is not mounted, unless somebody asks.
func TestAFileWhoseDiskFailedIsLetGoAndOpenedAgain(t *testing.T) {
	signer, public := testKey(t)
	name := filepath.Join(t.TempDir(), "audit.jsonl")
	w := openTestWriter(t, name, &WriterOptions{Chain: &ChainOptions{Signer: signer}})
	fails := func(why string) {
		t.Helper()
		if err := w.Write(numbered(9)); err == nil || !strings.Contains(err.Error(), why) || !w.State().Failing {
			t.Errorf("%v", err)
		}
		if w.file != nil {
			t.Error("the file is open still")
		}
	}
	disk := func() { // fails
		t.Helper()
		if err := w.file.Close(); err != nil {
			t.Fatal(err)
		}
		fails("file already closed")
	}
	write := func(i int) {
		t.Helper()
		if err := w.Write(numbered(i)); err != nil || w.State().Failing {
			t.Error(err)
		}
	}
	write(0)
	disk()
	write(1)
	disk()
	if err := os.Rename(name, name+".1"); err != nil { // it is unmounted
		t.Fatal(err)
	}
	fails("no such file")
	if _, _, _, err := w.position(); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	if err := os.Rename(name+".1", name); err != nil {
		t.Fatal(err)
	}
	write(2)
	disk()
	if err := os.Rename(name, name+".1"); err != nil { // it is rotated
		t.Fatal(err)
	}
	if err := w.Reopen(); err != nil {
		t.Error(err)
	}
	write(3)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]string{name + ".1": "0 1 2", name: "3"} {
		if ids, torn := requests(t, file); strings.Join(strings.Fields(strings.Join(ids, " ")), " ") != want || torn > 0 { // a checkpoint has no id
			t.Errorf("%s: %v, %d torn", file, ids, torn)
		}
	}
	if v, problems := verify(t, &VerifyOptions{Key: public}, name+".1", name); len(problems) > 0 || v.Records-v.Checkpoints != 4 {
		t.Error(v, problems)
	}
}

func BenchmarkWriter(b *testing.B) {
	for _, sync := range []bool{false, true} {
		for _, parallel := range []int{1, 8, 64} {
			b.Run(fmt.Sprintf("sync=%t/parallel=%d", sync, parallel), func(b *testing.B) {
				w := openTestWriter(b, filepath.Join(b.TempDir(), "audit.jsonl"), &WriterOptions{Sync: sync})
				r := numbered(1)
				r.Agent, r.Subject, r.Groups = strings.Repeat("a", 100), "alice@example.org", []string{"@staff", "@authenticated", "@anyone"}
				b.SetParallelism(parallel)
				b.ReportAllocs()
				b.RunParallel(func(pb *testing.PB) {
					for pb.Next() {
						if err := w.Write(r); err != nil {
							b.Error(err)
						}
					}
				})
			})
		}
	}
}
