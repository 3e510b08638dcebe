package state

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.etcd.io/bbolt"
)

// format1 is what format 1 was when it came, line by line: later versions of the service
// read it too, or say in the changelog how to go over.
const format1 = `{"export":{"format":"1","at":"2026-11-26T12:00:00Z"}}
{"count":{"key":"day/bytes/subject:alice","full":"2026-11-26T12:30:00Z"}}
{"link":{"id":"one","subject":"alice","download":"main","path":"/a","key":"k","issued":"2026-11-26T11:00:00Z","expires":"2026-11-26T13:00:00Z","uses":2,"password":true,"made":true,"password_hash":"$2y$"}}
{"link":{"id":"seen","subject":"bob","download":"main","path":"/b/","recipient":"carol","issued":"2026-11-26T11:00:00Z","expires":"2026-11-26T13:30:00Z"}}
{"uses":{"link":"one","uses":[{"client":"192.0.2.1","last":"2026-11-26T11:30:00Z","request":"r1","short":true},{"client":"cookie","sure":true,"last":"2026-11-26T11:40:00Z","request":"r2"}],"until":"2026-11-26T13:00:00Z"}}
{"revocation":{"id":"two","before":"0001-01-01T00:00:00Z","until":"2026-11-26T13:00:00Z"}}
{"revocation":{"subject":"bob","before":"2026-11-26T11:59:00Z","until":"2026-11-26T14:00:00Z"}}
`

// keepsFormat1 checks that a store knows what format1 says.
func keepsFormat1(t *testing.T, b *bench) {
	t.Helper()
	one, seen := Link{ID: "one"}, Link{ID: "seen", Subject: "bob", Issued: noon.Add(-time.Hour)}
	for _, row := range []struct {
		link  Link
		ended bool
	}{{one, false}, {seen, true}, {Link{ID: "two", Issued: noon}, true}, {Link{ID: "new", Subject: "bob", Issued: noon}, false}} {
		if ended, err := b.IsRevoked(t.Context(), row.link); err != nil || ended != row.ended {
			t.Errorf("%s revoked: %t, %v", row.link.ID, ended, err)
		}
	}
	if hash, err := b.PasswordOf(t.Context(), "one"); err != nil || hash != "$2y$" {
		t.Errorf("password: %q, %v", hash, err)
	}
	list, err := b.Links(t.Context())
	if err != nil || len(list) != 2 || list[0].Used != 2 || !list[0].Made || list[1].Made || !list[1].Revoked || list[1].Recipient != "carol" {
		t.Errorf("%+v, %v", list, err)
	}
	for _, row := range []struct {
		use  Use
		want string
	}{
		{Use{Max: 2, Client: "other", Request: "r3"}, "false 0"},
		{Use{Max: 2, Client: "192.0.2.1", Request: "r4", Look: true}, "true 0"}, // it was cut short
		{Use{Max: 2, Client: "cookie", Sure: true, Request: "r5", Look: true}, "true 0"},
		{Use{Max: 2, Client: "cookie", Request: "r5", Look: true}, "false 0"},
	} {
		row.use.Link = "one"
		if got := b.use(row.use); got != row.want {
			t.Errorf("%+v: %s, want %s", row.use, got, row.want)
		}
	}
	q, err := b.Look(t.Context(), []Charge{{Kind: Bytes, Key: "day/bytes/subject:alice", Limit: 60, Period: time.Hour}})
	if err != nil || q[0].Remaining != 30 || q[0].Reset != 30*time.Minute {
		t.Errorf("%+v, %v", q, err)
	}
}

func (b *bench) restore(text string) int {
	b.t.Helper()
	n, err := b.transfer().Restore(b.t.Context(), Read(strings.NewReader(text)))
	if err != nil {
		b.t.Fatal(err)
	}
	return n
}

func (b *bench) export(passwords bool) string {
	b.t.Helper()
	var out bytes.Buffer
	if err := Write(&out, b.transfer().Export(b.t.Context(), passwords), noon); err != nil {
		b.t.Fatal(err)
	}
	lines := strings.SplitAfter(out.String(), "\n")
	slices.Sort(lines[1:])
	return strings.Join(lines, "")
}

func (b *bench) transfer() transferrer { return b.counter.(transferrer) }

// What is exported is restored elsewhere, after the process ended there too; once more
// changes nothing. Passwords are told to whoever asks for them alone.
func TestExportIsRestored(t *testing.T) {
	onEachKeeper(t, func(t *testing.T, b *bench) {
		if n := b.restore(format1); n != 6 {
			t.Errorf("%d entries", n)
		}
		keepsFormat1(t, b)
		b.reopen()
		keepsFormat1(t, b)
		all := b.export(true)
		b.restore(all)
		if again := b.export(true); again != all {
			t.Errorf("restored once more:\n%swas\n%s", again, all)
		}
		if without := b.export(false); strings.Contains(without, "$2y$") || strings.Replace(all, `,"password_hash":"$2y$"`, "", 1) != without {
			t.Errorf("without passwords: %s", without)
		}
		b.restore(b.export(false)) // takes no password away
		keepsFormat1(t, b)

		onEachKeeper(t, func(t *testing.T, other *bench) { // elsewhere
			other.restore(all)
			keepsFormat1(t, other)
		})
	})
}

// A restored state opens nothing that was used or revoked since, and gives nothing back.
func TestRestoreOpensNothingAgain(t *testing.T) {
	onEachKeeper(t, func(t *testing.T, b *bench) {
		use := Use{Link: "l", Max: 2, Client: "a", Request: "1"}
		day := Charge{Kind: Bytes, Key: "b", Limit: 100, Period: 100 * time.Hour, Cost: 10}
		b.use(use)
		b.reserve("1", day)
		before := b.export(true)
		use.Request = "2"
		if got := b.use(use); got != "true 0" {
			t.Error(got)
		}
		b.reserve("2", day)
		later := noon.Add(3 * time.Hour)
		if err := errors.Join(b.Revoke(t.Context(), Revocation{ID: "x", Until: later}), b.Revoke(t.Context(), Revocation{Subject: "s", Before: noon, Until: later})); err != nil {
			t.Fatal(err)
		}
		b.restore(before + `{"revocation":{"id":"x","before":"0001-01-01T00:00:00Z","until":"2026-11-26T12:00:01Z"}}` + "\n" +
			`{"uses":{"link":"l","uses":[{"client":"a","last":"2026-11-26T11:30:00Z","request":"elsewhere"}],"until":"2026-11-26T12:00:01Z"}}` + "\n")
		for i := range 2 {
			use.Request = fmt.Sprint("later", i)
			if got := b.use(use); got != "false 0" {
				t.Error(got)
			}
			if q, err := b.Look(t.Context(), []Charge{day}); err != nil || q[0].Remaining != 80 {
				t.Errorf("%+v, %v", q, err)
			}
			b.now = noon.Add(30 * time.Minute)
			b.reopen()
			for _, l := range []Link{{ID: "x"}, {ID: "y", Subject: "s", Issued: noon.Add(-time.Hour)}} {
				if ended, err := b.IsRevoked(t.Context(), l); err != nil || !ended {
					t.Errorf("%s: %t, %v", l.ID, ended, err)
				}
			}
			b.now = noon
		}
	})
}

// What is restored before a Redis that was emptied is accepted is not forgotten by it.
func TestRedisIsRestoredBeforeItIsAccepted(t *testing.T) {
	server := startRedis(t)
	r := openRedis(t, server)
	accept(t, r)
	soon := time.Now().Add(time.Hour)
	if ok, _, err := r.Use(t.Context(), one("l", "1")); err != nil || !ok {
		t.Fatal(ok, err)
	}
	if err := r.Revoke(t.Context(), Revocation{ID: "x", Until: soon}); err != nil {
		t.Fatal(err)
	}
	var all bytes.Buffer
	if err := Write(&all, r.Export(t.Context(), true), time.Now()); err != nil {
		t.Fatal(err)
	}
	server.do("FLUSHALL")
	if n, err := r.Restore(t.Context(), Read(&all)); err != nil || n != 2 {
		t.Fatal(n, err)
	}
	if _, err := r.IsRevoked(t.Context(), Link{ID: "y"}); err == nil {
		t.Error("a link is open before anybody accepted")
	}
	accept(t, r)
	if ended, err := r.IsRevoked(t.Context(), Link{ID: "x"}); err != nil || !ended {
		t.Error(ended, err)
	}
	if ok, _, err := r.Use(t.Context(), one("l", "2")); err != nil || ok {
		t.Error(ok, err)
	}
}

// A memory has counts alone: whoever restores links must not believe that they are kept.
func TestMemoryRestoresCountsAlone(t *testing.T) {
	m := NewMemory(&MemoryOptions{Now: func() time.Time { return noon }})
	if n, err := m.Restore(t.Context(), Read(strings.NewReader(format1))); n != 1 || err == nil || !strings.Contains(err.Error(), "set state.file or state.redis") {
		t.Errorf("%d, %v", n, err)
	}
	var out bytes.Buffer
	if err := Write(&out, m.Export(t.Context(), true), noon); err != nil || !strings.HasSuffix(out.String(), `{"count":{"key":"day/bytes/subject:alice","full":"2026-11-26T12:30:00Z"}}`+"\n") {
		t.Errorf("%s, %v", out.String(), err)
	}
}

func TestReadOfWhatIsNoExport(t *testing.T) {
	const first = `{"export":{"format":"1","at":"2026-11-26T12:00:00Z"}}` + "\n"
	for _, row := range []struct{ name, text, problem string }{
		{"nothing", "", "line 1: there is none"},
		{"another format", `{"export":{"format":"2","at":"2026-11-26T12:00:00Z"}}`, `line 1: it is of format "2", and this version reads 1`},
		{"no format", `{"count":{"key":"k"}}`, "line 1: an export begins with its format"},
		{"no JSON", first + "hello\n", "line 2: it is no line of an export"},
		{"an empty line", first + "\n", "line 2: it is no line of an export"},
		{"a member that nobody knows", first + `{"link":{"id":"a","expires":"2026-11-26T12:00:00Z","revoked_by":"x"}}`, `unknown field "revoked_by"`},
		{"nothing that is known", first + "{}\n", "line 2: it is not one of"},
		{"two", first + `{"count":{"key":"k"},"revocation":{"until":"2026-11-26T12:00:00Z"}}`, "line 2: it is not one of"},
		{"two on a line", first + `{"count":{"key":"k"}} {"count":{"key":"l"}}`, "something stands behind it"},
		{"a second beginning", first + first, "line 2: it is not one of"},
		{"a revocation without an end", first + `{"revocation":{"id":"a"}}`, "or its end, is missing"},
		{"a link without an id", first + `{"link":{"expires":"2026-11-26T12:00:00Z"}}`, "or its end, is missing"},
		{"a use that is none", first + `{"uses":{"link":"a","uses":[null],"until":"2026-11-26T12:00:00Z"}}`, "or its end, is missing"},
	} {
		if problem := problemOf(Read(strings.NewReader(row.text))); !strings.Contains(problem, row.problem) {
			t.Errorf("%s: %s", row.name, problem)
		}
	}
}

func problemOf(entries iter.Seq2[Entry, error]) string {
	for _, err := range entries {
		if err != nil {
			return err.Error()
		}
	}
	return "none"
}

// A copy is read like an export, one that was cut off or changed is an error, and never
// the end of the process.
func TestBackupIsRead(t *testing.T) {
	b := &bench{t: t, now: noon}
	onEachKeeper(t, func(t *testing.T, other *bench) {
		if _, ok := other.counter.(*Disk); ok && b.counter == nil {
			*b = *other
			b.restore(format1)
			var many strings.Builder
			for i := range 3000 { // more than is read at a time, and more than a page
				fmt.Fprintf(&many, `{"revocation":{"id":"more%d","before":"0001-01-01T00:00:00Z","until":"2026-11-26T13:00:00Z"}}`+"\n", i)
			}
			b.restore(strings.SplitAfter(format1, "\n")[0] + many.String())
			file := filepath.Join(t.TempDir(), "copy.db")
			var copied bytes.Buffer
			if err := b.counter.(*Disk).Backup(&copied); err != nil {
				t.Fatal(err)
			}
			text := copied.Bytes()
			write := func(text []byte) {
				if err := os.WriteFile(file, text, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			write(text)
			f, err := os.Open(file)
			if err != nil || !IsBackup(f) || IsBackup(strings.NewReader(format1)) {
				t.Errorf("not told apart, %v", err)
			}
			if err := f.Close(); err != nil {
				t.Fatal(err)
			}
			read := map[Entry]int{}
			n := 0
			for e, err := range ReadBackup(file) {
				if err != nil {
					t.Fatal(err)
				}
				read[e]++
				n++
			}
			if n != 3006 || len(read) != n {
				t.Errorf("%d entries", n)
			}
			for e := range ReadBackup(file) { // whoever has enough
				_ = e
				break
			}
			for size := 0; size < len(text); size += 4096 {
				write(text[:size])
				if problem := problemOf(ReadBackup(file)); problem == "none" && size < len(text)/2 {
					t.Errorf("cut off at %d of %d: no problem", size, len(text))
				}
			}
			for i := 100; i < len(text); i += 9973 {
				changed := slices.Clone(text)
				for j := range 64 {
					changed[min(i+j, len(text)-1)] ^= 0xff
				}
				write(changed)
				_ = problemOf(ReadBackup(file)) // or not: what is not read may be anything
			}
			write(text)
			db, err := bbolt.Open(file, 0o600, nil)
			if err != nil {
				t.Fatal(err)
			}
			if problem := problemOf(ReadBackup(file)); !strings.Contains(problem, "timeout") {
				t.Errorf("open elsewhere: %s", problem)
			}
			err = db.Update(func(tx *bbolt.Tx) error { return tx.Bucket(bucketMeta).Put(keyFormat, []byte("2")) })
			if err = errors.Join(err, db.Close()); err != nil {
				t.Fatal(err)
			}
			if problem := problemOf(ReadBackup(file)); !strings.Contains(problem, `it is of format "2", and this version reads 1`) {
				t.Error(problem)
			}
		}
	})
}

// A file of another format is neither read nor changed; the one before it, with what is
// exported, is how to go back.
func TestFileOfAnotherFormatIsLeftAlone(t *testing.T) {
	file := filepath.Join(t.TempDir(), "state.db")
	d, err := OpenDisk(file, &MemoryOptions{Now: func() time.Time { return noon }})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Restore(t.Context(), Read(strings.NewReader(format1))); err != nil {
		t.Fatal(err)
	}
	err = d.db.Update(func(tx *bbolt.Tx) error { return tx.Bucket(bucketMeta).Put(keyFormat, []byte("2")) })
	if err = errors.Join(err, d.db.Close()); err != nil {
		t.Fatal(err)
	}
	was, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := OpenDisk(file, nil); err == nil || !strings.Contains(err.Error(), `it is of format "2", and this version reads 1`) {
		t.Errorf("%v", err)
	}
	if is, err := os.ReadFile(file); err != nil || !bytes.Equal(is, was) {
		t.Errorf("it was changed, %v", err)
	}
}

// What nothing is in any more is given back; all that is kept is there, for this process
// and the next, and nobody else gets the file meanwhile.
func TestCompactGivesRoomBack(t *testing.T) {
	b := newDiskBench(t)
	link := filepath.Join(t.TempDir(), "link.db")
	if err := errors.Join(b.db.Close(), os.Symlink(b.file, link)); err != nil {
		t.Fatal(err)
	}
	real := b.file
	b.file = link
	b.open()
	for i := range 2000 {
		u := &Uses{Until: noon.Add(time.Minute)}
		for j := range 20 {
			u.List = append(u.List, &OneUse{Client: "192.0.2.1", Request: fmt.Sprint(i, " ", j)})
		}
		text, err := json.Marshal(u)
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			err = b.db.Update(func(tx *bbolt.Tx) error {
				for i := range 2000 {
					if err := tx.Bucket(bucketUses).Put(fmt.Append(nil, i), text); err != nil {
						return err
					}
				}
				return nil
			})
		}
		if err != nil {
			t.Fatal(err)
		}
		b.uses[fmt.Sprint(i)] = u
	}
	if _, err := b.Restore(t.Context(), Read(strings.NewReader(format1))); err != nil {
		t.Fatal(err)
	}
	b.now = noon.Add(2 * time.Minute)
	if err := b.forgetSurely(b.forget); err != nil {
		t.Fatal(err)
	}
	before, after, err := b.Compact()
	info, err2 := os.Stat(real)
	if err = errors.Join(err, err2); err != nil || after >= before/10 || info.Size() > before/10 || info.Mode() != 0o600 {
		t.Errorf("from %d to %d, %v, %v", before, after, info, err)
	}
	if is, err := os.Lstat(link); err != nil || is.Mode().Type() != os.ModeSymlink {
		t.Errorf("the link: %v, %v", is, err)
	}
	if left, err := filepath.Glob(real + "?*"); err != nil || len(left) > 0 {
		t.Errorf("%q is left, %v", left, err)
	}
	if _, err := OpenDisk(real, nil); err == nil || !strings.Contains(err.Error(), "is open in another process") {
		t.Errorf("%v", err)
	}
	use := Use{Link: "new", Max: 1, Client: "a", Request: "1", Until: noon.Add(time.Hour)}
	if ok, _, err := b.Use(t.Context(), use); err != nil || !ok {
		t.Error(ok, err)
	}
	b.reopen()
	use.Request = "2"
	if ok, _, err := b.Use(t.Context(), use); err != nil || ok {
		t.Error(ok, err)
	}
	if ended, err := b.IsRevoked(t.Context(), Link{ID: "two"}); err != nil || !ended {
		t.Error(ended, err)
	}
}

// Whoever waits for the file while it is compacted does not get the one whose place was
// taken.
func TestCompactedFileIsNotOpenedTwice(t *testing.T) {
	b := newDiskBench(t)
	opened := func() (n int) {
		fds, err := filepath.Glob("/proc/self/fd/*")
		if err != nil {
			t.Fatal(err)
		}
		for _, fd := range fds {
			if name, err := os.Readlink(fd); err == nil && name == b.file {
				n++
			}
		}
		return n
	}
	waited := make(chan error, 1)
	go func() {
		d, err := OpenDisk(b.file, nil)
		if err == nil {
			_ = d.db.Close()
		}
		waited <- err
	}()
	for opened() < 2 && len(waited) == 0 {
		time.Sleep(time.Millisecond)
	}
	if _, _, err := b.Compact(); err != nil {
		t.Fatal(err)
	}
	if err := <-waited; err == nil || !strings.Contains(err.Error(), "is open in another process") {
		t.Errorf("%v", err)
	}
}
