package audit

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"
)

// testKey makes a key and returns what signs with it, and its public form.
func testKey(t testing.TB) (note.Signer, string) {
	t.Helper()
	private, public, err := NewKey("files.example.org")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "audit.key")
	if err := os.WriteFile(file, []byte(private+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	signer, again, err := ReadKey(file)
	if err != nil || again != public {
		t.Fatalf("%v: %q, not %q", err, again, public)
	}
	return signer, public
}

// verify follows the chain through files, and returns the problems that it finds.
func verify(t testing.TB, opts *VerifyOptions, files ...string) (Verified, []Problem) {
	t.Helper()
	var problems []Problem
	v, err := Verify(t.Context(), files, opts, func(p Problem) { problems = append(problems, p) })
	if err != nil {
		t.Fatal(err)
	}
	if v.Problems != len(problems) {
		t.Errorf("%d problems, %d are reported", v.Problems, len(problems))
	}
	return v, problems
}

// A chain goes on through restarts, rotations, crashes and full disks.
func TestAChainGoesOnWhateverComes(t *testing.T) {
	signer, public := testKey(t)
	name := filepath.Join(t.TempDir(), "audit.jsonl")
	var heads []Head
	opts := &WriterOptions{Chain: &ChainOptions{Signer: signer, Signed: func(h Head) { heads = append(heads, h) }}}
	n := 0
	write := func(w *Writer, count int) {
		t.Helper()
		for range count {
			if err := w.Write(numbered(n)); err != nil {
				t.Fatal(err)
			}
			n++
		}
	}
	files := []string{}
	for round := range 8 {
		w := openTestWriter(t, name, opts)
		write(w, 3)
		if err := w.Checkpoint(); err != nil {
			t.Fatal(err)
		}
		if err := w.Checkpoint(); err != nil { // there is nothing new
			t.Fatal(err)
		}
		write(w, 2)
		switch round % 4 {
		case 0: // killed within a line, and before its line feed
			f, err := os.OpenFile(name, os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			info, err := f.Stat()
			if err != nil {
				t.Fatal(err)
			}
			cut := int64(1 + round*20)
			if err := errors.Join(f.Truncate(info.Size()-cut), f.Close()); err != nil {
				t.Fatal(err)
			}
			if cut > 1 {
				n--
			}
			w.chain.signed = w.chain.head.Seq // it has no time to sign
		case 1: // rotated while it runs
			moved := fmt.Sprint(name, ".", round)
			if err := errors.Join(os.Rename(name, moved), w.Reopen()); err != nil {
				t.Fatal(err)
			}
			files = append(files, moved)
			write(w, 1)
		case 2: // rotated while it does not
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			moved := fmt.Sprint(name, ".", round)
			if err := os.Rename(name, moved); err != nil {
				t.Fatal(err)
			}
			files = append(files, moved)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
	}
	files = append(files, name)
	last := heads[len(heads)-1]
	for i := range heads {
		v, problems := verify(t, &VerifyOptions{Key: public, Head: &heads[i]}, files...)
		if len(problems) > 0 {
			t.Fatalf("head %d: %v", i, problems)
		}
		if v.Records != n+v.Checkpoints || v.Unchained != 0 || v.Torn != 1 || v.First.Seq != 1 || v.Signed != last.Seq || v.Last.Seq != uint64(v.Records) {
			t.Errorf("%+v of %d", v, n)
		}
	}
	// Each file stands by itself: retention removes the oldest.
	for i := range files {
		if _, problems := verify(t, &VerifyOptions{Key: public, Head: &last}, files[i:]...); len(problems) > 0 {
			t.Errorf("from %s on: %v", files[i], problems)
		}
	}
	_, other := testKey(t)
	if _, problems := verify(t, &VerifyOptions{Key: other}, files...); len(problems) == 0 || !strings.Contains(problems[0].Message, "not signed by the key") {
		t.Errorf("by another key: %v", problems)
	}
	ids := 0
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			if r, err := Parse([]byte(line)); err == nil && r.Type == TypeDecision {
				ids++
			}
		}
	}
	if ids != n {
		t.Errorf("%d records of %d", ids, n)
	}
}

// Whatever has compressed the file before, the chain goes on from its end and is
// verified through it; of a damaged one it is told, and the others are looked at.
func TestAChainGoesOnBehindACompressedFile(t *testing.T) {
	signer, public := testKey(t)
	for _, extension := range []string{".gz", ".zst"} {
		t.Run(extension, func(t *testing.T) {
			name := filepath.Join(t.TempDir(), "audit.jsonl")
			opts := &WriterOptions{Chain: &ChainOptions{Signer: signer}}
			write := func() []byte {
				t.Helper()
				w := openTestWriter(t, name, opts)
				for i := range 300 {
					if err := w.Write(numbered(i)); err != nil {
						t.Fatal(err)
					}
				}
				if err := w.Close(); err != nil {
					t.Fatal(err)
				}
				text, err := os.ReadFile(name)
				if err != nil {
					t.Fatal(err)
				}
				return text
			}
			rotated := name + ".1" + extension
			writeCompressed(t, rotated, write())
			if err := os.Remove(name); err != nil {
				t.Fatal(err)
			}
			write()
			v, problems := verify(t, &VerifyOptions{Key: public}, rotated, name)
			if len(problems) > 0 || v.Records != 600+v.Checkpoints || v.First.Seq != 1 || v.Last.Seq != uint64(v.Records) {
				t.Errorf("%+v: %v", v, problems)
			}
			whole, err := os.ReadFile(rotated)
			if err != nil {
				t.Fatal(err)
			}
			changed := bytes.Clone(whole)
			changed[len(changed)/2] ^= 0x55
			for what, text := range map[string][]byte{"cut": whole[:len(whole)-9], "changed": changed} {
				if err := os.WriteFile(rotated, text, 0o600); err != nil {
					t.Fatal(err)
				}
				_, problems := verify(t, &VerifyOptions{Key: public}, rotated, name)
				if len(problems) == 0 || !slices.ContainsFunc(problems, func(p Problem) bool { return p.File == rotated && strings.Contains(p.Message, "damaged") }) {
					t.Errorf("%s: %v", what, problems)
				}
			}
		})
	}
}

func TestAChainIsWholeAfterEachWriteThatFailsInPart(t *testing.T) {
	signer, public := testKey(t)
	for left := range 1200 {
		out := &short{left: left}
		w := openTestWriter(t, Stdout, &WriterOptions{Output: out, Chain: &ChainOptions{Signer: signer}})
		good, err := w.WriteAll(numbered(0), numbered(1))
		if (err == nil) != (good == 2) {
			t.Fatalf("%d bytes: %d, %v", left, good, err)
		}
		out.left = 1 << 20
		if err := errors.Join(w.Write(numbered(2)), w.Close()); err != nil {
			t.Fatal(err)
		}
		v := &verifier{report: func(p Problem) { t.Errorf("%d bytes: %v\n%s", left, p, out.String()) }}
		key, err := note.NewVerifier(public)
		if err != nil {
			t.Fatal(err)
		}
		v.known = note.VerifierList(key)
		if err := v.lines(t.Context(), "", &out.Buffer); err != nil {
			t.Fatal(err)
		}
		if v.Records-v.Checkpoints != good+1 {
			t.Fatalf("%d bytes: %d records, and %d were written", left, v.Records-v.Checkpoints, good+1)
		}
	}
}

// chainOf is a chain of records with checkpoints among them, as lines, and its head.
func chainOf(t testing.TB, n int, signer note.Signer) ([][]byte, Head) {
	t.Helper()
	c := &chain{ChainOptions: ChainOptions{Signer: signer}, due: true}
	var all []byte
	for i := range n {
		if c.due = i%max(100, n/100) == 0; c.due {
			line, err := c.checkpoint(nil, time.Unix(int64(i), 0))
			if err != nil {
				t.Fatal(err)
			}
			all = c.add(all, line, true)
		}
		r := numbered(i)
		r.Subject, r.Client, r.Agent = fmt.Sprint("user", i%50), "192.0.2.1", "curl/8"
		all = c.add(all, append(r.Append(nil), '\n'), false)
		c.wrote(len(all))
	}
	lines := bytes.SplitAfter(all, []byte("\n"))
	return lines[:len(lines)-1], c.head
}

// One change after another, each at random and by itself, is found, at its place, by a
// verification of the whole chain: of SECUREFILES_AUDIT_CHAIN records, changed
// SECUREFILES_AUDIT_CHANGES times.
func TestEachChangeOfAChainIsFoundAtItsPlace(t *testing.T) {
	number := func(variable string, otherwise int) int {
		if n, err := strconv.Atoi(os.Getenv(variable)); err == nil {
			return n
		}
		return otherwise
	}
	records, changes := number("SECUREFILES_AUDIT_CHAIN", 1000), number("SECUREFILES_AUDIT_CHANGES", 1000)
	signer, public := testKey(t)
	lines, head := chainOf(t, records, signer)
	key, err := note.NewVerifier(public)
	if err != nil {
		t.Fatal(err)
	}
	seed := rand.Uint64()
	random := rand.New(rand.NewPCG(seed, 0))
	look := func(lines [][]byte) []Problem {
		var problems []Problem
		v := &verifier{known: note.VerifierList(key), head: &head, report: func(p Problem) { problems = append(problems, p) }}
		text := net.Buffers(lines)
		if err := v.lines(t.Context(), "", &text); err != nil {
			t.Fatal(err)
		}
		v.end()
		return problems
	}
	if problems := look(slices.Clone(lines)); len(problems) > 0 {
		t.Fatal(problems)
	}
	found := map[string]int{}
	for range changes {
		at := random.IntN(len(lines))
		changed := slices.Clone(lines)
		var what, says string
		want := []int{at + 1} // the lines, from 1, that it may be found at
		switch random.IntN(7) {
		case 0:
			what = "a byte is changed"
			line := bytes.Clone(lines[at])
			line[random.IntN(len(line))] ^= byte(1 + random.IntN(255))
			changed[at] = line
			want = append(want, at+2) // where it is no record any more, the next tells
			if at == len(lines)-1 {
				want = append(want, 0) // or the head that was kept
			}
		case 1:
			what = "a record is removed"
			changed = slices.Delete(changed, at, at+1)
			if at == len(lines)-1 {
				want = []int{0} // by the head that was kept
			}
		case 2:
			what = "two records are swapped"
			other := (at + 1 + random.IntN(len(lines)-1)) % len(lines)
			changed[at], changed[other] = changed[other], changed[at]
			want = []int{min(at, other) + 1}
		case 3:
			what = "the end is cut off"
			changed = changed[:at]
			want, says = []int{0}, fmt.Sprintf("the chain ends with record %d,", at)
		case 4:
			what = "a record is changed, and what it says of itself"
			hashed, _, _ := cutChain(bytes.TrimSuffix(lines[at], []byte("\n")))
			before := Head{}
			if at > 0 {
				_, before, _ = cutChain(bytes.TrimSuffix(lines[at-1], []byte("\n")))
			}
			other := bytes.Replace(hashed, []byte(`"v":1`), []byte(`"v":1,"x":1`), 1)
			says := before.follow(other)
			changed[at] = append(append(bytes.Clone(other), hashMember...), strings.SplitAfter(says.String(), ":")[1]+chainEnd+"\n"...)
			want = []int{at + 2}
			if at == len(lines)-1 {
				want = []int{at + 1} // it is the head that was kept
			}
		case 5:
			what = "a record is copied to behind another"
			from := random.IntN(len(lines))
			changed = slices.Insert(changed, at+1, lines[from])
			want = []int{at + 2}
			if from == at+1 { // the copy is in its place, and the original is the copy
				want = []int{at + 3}
			}
		case 6:
			what = "the end is cut off within a record"
			changed = append(changed[:at], lines[at][:random.IntN(len(lines[at]))])
			want, says = []int{0}, fmt.Sprintf("the chain ends with record %d,", at)
		}
		problems := look(changed)
		if len(problems) == 0 || !slices.Contains(want, problems[0].Line) || !strings.Contains(problems[0].Message, says) {
			t.Fatalf("seed %d: %s at line %d: found at none of %v: %v", seed, what, at+1, want, problems[:min(len(problems), 3)])
		}
		found[what]++
	}
	t.Logf("seed %d: each of %d changes of a chain of %d records, %d lines, is found at its place by a verification of all of it: %v", seed, changes, records, len(lines), found)
}

// Who changes a record and makes the rest of the chain anew is found by the next
// checkpoint, which the key has signed; and who has the key, by a head that was kept.
func TestAChainThatWasMadeAnewIsFound(t *testing.T) {
	signer, public := testKey(t)
	lines, head := chainOf(t, 250, signer)
	text := bytes.Join(lines, nil)
	file := filepath.Join(t.TempDir(), "audit.jsonl")
	forge := func(sign note.Signer) {
		t.Helper()
		c := &chain{ChainOptions: ChainOptions{Signer: sign}}
		var out []byte
		for i, line := range bytes.SplitAfter(text, []byte("\n")) {
			if len(line) == 0 {
				continue
			}
			hashed, _, _ := cutChain(bytes.TrimSuffix(line, []byte("\n")))
			hashed = hashed[:bytes.LastIndex(hashed, []byte(seqMember))]
			bare := append(bytes.Clone(hashed), "}\n"...)
			if i == 120 {
				bare = bytes.Replace(bare, []byte("192.0.2.1"), []byte("192.0.2.9"), 1)
			}
			if sign != nil && bytes.Contains(bare, []byte(TypeCheckpoint)) {
				var err error
				if bare, err = c.checkpoint(nil, time.Unix(0, 0)); err != nil {
					t.Fatal(err)
				}
			}
			out = c.add(out, bare, false)
			c.wrote(len(out))
		}
		if err := os.WriteFile(file, out, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	forge(nil)
	if _, problems := verify(t, &VerifyOptions{Key: public}, file); len(problems) != 1 || problems[0].Line != 203 || !strings.Contains(problems[0].Message, "the chain was made anew") {
		t.Errorf("without the key: %v", problems)
	}
	forge(signer)
	if _, problems := verify(t, &VerifyOptions{Key: public}, file); len(problems) != 0 {
		t.Errorf("with the key, and without a head: %v", problems)
	}
	if _, problems := verify(t, &VerifyOptions{Key: public, Head: &head}, file); len(problems) != 1 || problems[0].Line != 253 || !strings.Contains(problems[0].Message, "another than the head") {
		t.Errorf("with the key, beside a head: %v", problems)
	}
}

func TestHeadsAreReadAsTheyAreWritten(t *testing.T) {
	h := Head{Seq: 7}.follow([]byte("x"))
	if got, err := ParseHead(h.String()); err != nil || got != h {
		t.Errorf("%v, %v", got, err)
	}
	for _, text := range []string{"", "7", "7:", "7:AAAA", "x:" + strings.SplitAfter(h.String(), ":")[1], h.String() + "x", strings.Replace(h.String(), "=", "", 1), "-" + h.String()} {
		if _, err := ParseHead(text); err == nil {
			t.Errorf("%q is read", text)
		}
	}
}

func TestKeysOfOtherKindsAreRefused(t *testing.T) {
	for _, name := range []string{"", "a b", "a+b"} {
		if _, _, err := NewKey(name); err == nil {
			t.Errorf("%q is a name", name)
		}
	}
	file := filepath.Join(t.TempDir(), "key")
	for _, text := range []string{"", "secret", "PRIVATE+KEY+a+00000000+AAAA"} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, _, err := ReadKey(file); err == nil || !strings.Contains(err.Error(), "securefiles audit key") {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func FuzzVerifierTakesWhatever(f *testing.F) {
	signer, _ := testKey(f)
	lines, _ := chainOf(f, 3, signer)
	f.Add(bytes.Join(lines, nil))
	f.Add([]byte(`,"seq":1,"hash":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="}` + "\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		n := 0
		v := &verifier{report: func(Problem) { n++ }}
		if err := v.lines(t.Context(), "", bytes.NewReader(text)); err != nil {
			t.Fatal(err)
		}
		v.end()
		if n != v.Problems {
			t.Error(n, v.Problems)
		}
	})
}

// Of files that are compressed what counts is how large they are.
func TestVerifyTellsHowFarItCame(t *testing.T) {
	signer, public := testKey(t)
	lines, head := chainOf(t, 60_200, signer)
	dir := t.TempDir()
	var files []string
	size := int64(0)
	for i, name := range []string{"audit.jsonl.2.zst", "audit.jsonl.1.gz", "audit.jsonl"} {
		file := filepath.Join(dir, name)
		third := (len(lines) + 2) / 3
		writeCompressed(t, file, bytes.Join(lines[i*third:min((i+1)*third, len(lines))], nil))
		info, err := os.Stat(file)
		if err != nil {
			t.Fatal(err)
		}
		files, size = append(files, file), size+info.Size()
	}
	var told []int64
	v, problems := verify(t, &VerifyOptions{Key: public, Head: &head, Progress: func(p Progress) {
		if p.Size != size {
			t.Errorf("%d bytes of %d, and there are %d", p.Read, p.Size, size)
		}
		told = append(told, p.Read)
	}}, files...)
	if len(problems) > 0 || v.Last != head {
		t.Error(problems)
	}
	if len(told) < 6 || !slices.IsSorted(told) || told[0] == 0 || told[0] > size/4 || told[len(told)-1] != size {
		t.Errorf("%v of %d", told, size)
	}
}
