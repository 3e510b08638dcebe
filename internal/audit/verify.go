package audit

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"golang.org/x/mod/sumdb/note"
)

// VerifyOptions are what the verification of a chain can do without.
type VerifyOptions struct {
	// Key is the public form of the key that signs checkpoints; without one nobody asks
	// who has signed them.
	Key string
	// Head is one that was kept elsewhere: the chain must contain it. Nil is none.
	Head *Head
	// Progress is told now and then. It may be nil.
	Progress func(Progress)
}

// A Problem is a place where records are not what was written.
type Problem struct {
	File    string
	Line    int // from 1; 0 for the whole file
	Message string
}

func (p Problem) String() string {
	if p.Line == 0 {
		return p.File + ": " + p.Message
	}
	return fmt.Sprintf("%s:%d: %s", p.File, p.Line, p.Message)
}

// Verified is what was found of a chain.
type Verified struct {
	// Records are those of the chain, Checkpoints among them, Unchained those from before
	// there was one. Torn lines are no records: a crash leaves them.
	Records, Checkpoints, Unchained, Torn int
	// First and Last are the chain's ends. Signed is how far checkpoints reach.
	First, Last Head
	Signed      uint64
	// Problems is how many there are.
	Problems int
}

// Verify follows the chain through files, the oldest first, and reports where records
// were changed, removed, added or moved, and each file that it cannot read.
//
// It finds what was done without the key. Whoever has it can make the chain anew, which
// only a head that was kept elsewhere shows; and without a head nobody knows that
// records at the end are missing.
func Verify(ctx context.Context, files []string, opts *VerifyOptions, report func(Problem)) (Verified, error) {
	if opts == nil {
		opts = &VerifyOptions{}
	}
	v := &verifier{head: opts.Head, report: report}
	if opts.Key != "" {
		key, err := note.NewVerifier(opts.Key)
		if err != nil {
			return Verified{}, fmt.Errorf("verify the chain: %q is no public key as `securefiles audit key` prints it", opts.Key)
		}
		v.known = note.VerifierList(key)
	}
	if opts.Progress != nil {
		v.told = opts.Progress
		for _, file := range files {
			if info, err := os.Stat(file); err == nil { // or it is told of when it is read
				v.progress.Size += info.Size()
			}
		}
	}
	for _, file := range files {
		if err := v.file(ctx, file); err != nil {
			return v.Verified, fmt.Errorf("verify the chain: %w", err)
		}
	}
	v.end()
	return v.Verified, nil
}

// Rotated returns the names of a file and of what it was rotated to, the oldest first.
// A file that is not there is left out; it may be between two.
func Rotated(name string) ([]string, error) {
	found, err := (&Follower{path: name}).list()
	if err != nil {
		return nil, fmt.Errorf("find what %s was rotated to: %w", name, err)
	}
	var names []string
	for _, l := range found {
		names = append(names, l.name)
	}
	return names, nil
}

// A verifier follows a chain.
type verifier struct {
	Verified
	known  note.Verifiers
	head   *Head
	report func(Problem)

	told     func(Progress) // nil where nobody asks
	progress Progress
	tell     func() // how far it is in the file

	name string
	line int

	begun   bool
	at      Head // what the next record must come after
	last    Head // what the last line says that it is, if that is something else
	torn    Problem
	headMet bool
}

func (v *verifier) file(ctx context.Context, name string) error {
	f, in, err := openRecords(name)
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // it was read
	if v.told != nil {
		begun := v.progress.Read
		v.tell = func() {
			if at, err := f.Seek(0, io.SeekCurrent); err == nil {
				v.progress.Read = begun + at
				v.told(v.progress)
			}
		}
		defer v.tell()
	}
	if err := v.lines(ctx, name, in); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

func (v *verifier) lines(ctx context.Context, name string, in io.Reader) error {
	v.name, v.line = name, 0
	var unreadable *fs.PathError
	for r := (&reading{buf: bufio.NewReaderSize(in, 256<<10)}); ; {
		line, err := r.next(MaxLine)
		v.line++
		if v.line%10_000 == 0 {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if v.tell != nil {
				v.tell()
			}
		}
		switch {
		case err == nil:
			v.record(line)
		case errors.Is(err, bufio.ErrTooLong):
			v.tear()
		case errors.Is(err, io.EOF):
			if len(r.partial) > 0 {
				v.tear()
			}
			return nil
		case compressed(name) && !errors.As(err, &unreadable):
			v.problem("the file is damaged, and cannot be read on: %v", err)
			return nil
		default:
			return err
		}
	}
}

func (v *verifier) problem(format string, args ...any) {
	v.found(Problem{File: v.name, Line: v.line, Message: fmt.Sprintf(format, args...)})
}

func (v *verifier) found(p Problem) {
	v.Problems++
	v.report(p)
}

// tear notes a line that is no record.
func (v *verifier) tear() {
	v.Torn++
	v.torn = Problem{File: v.name, Line: v.line}
}

// record looks at a line.
func (v *verifier) record(line []byte) {
	hashed, says, ok := cutChain(line)
	if !ok {
		switch _, err := Parse(line); {
		case err != nil:
			v.tear()
		case v.begun:
			v.problem("a record that is in no chain stands between those of one: it was added, or changed")
		default:
			v.Unchained++
		}
		return
	}
	v.Records++
	before := v.at
	switch {
	case !v.begun:
		v.begin(hashed, says)
	case v.comesAfter(v.at, hashed, says):
	case v.last != v.at && v.comesAfter(v.last, hashed, says): // what was told of before is over
	case says.Seq == v.at.Seq+1:
		v.problem("record %d is not what was written: it was changed, or the record before it, and what both say of themselves", says.Seq)
	case says.Seq > v.at.Seq+1:
		v.gap(says)
	case says.Seq == 1:
		v.problem("a chain begins anew behind record %d: what the first one went on with is removed, or its file was moved away while the service was not running", v.at.Seq)
	default:
		v.problem("record %d stands behind record %d: it was moved or copied here, or its number was changed", says.Seq, v.at.Seq)
		v.last = says
		return
	}
	v.at, v.last, v.torn = says, says, Problem{}
	v.meet(says)
	v.checkpoint(line, before, says)
}

// comesAfter reports whether a line follows a head.
func (v *verifier) comesAfter(h Head, hashed []byte, says Head) bool {
	return says.Seq == h.Seq+1 && h.follow(hashed) == says
}

// gap tells of records that are missing before one.
func (v *verifier) gap(says Head) {
	first, last := v.at.Seq+1, says.Seq-1
	if v.torn.Line > 0 && first == last {
		v.torn.Message = fmt.Sprintf("record %d is no record any more: it was changed", first)
		v.found(v.torn)
		return
	}
	what := fmt.Sprintf("records %d to %d are", first, last)
	if first == last {
		what = fmt.Sprintf("record %d is", first)
	}
	v.problem("%s missing before record %d: removed, or moved elsewhere", what, says.Seq)
}

// begin takes the first record of the chain, which follows nothing or a checkpoint's
// head.
func (v *verifier) begin(hashed []byte, says Head) {
	v.begun, v.First = true, says
	if v.comesAfter(Head{}, hashed, says) {
		return
	}
	r, err := Parse(append(bytes.Clone(hashed), '}'))
	if err != nil || r.Type != TypeCheckpoint {
		v.problem("the chain begins with record %d, and not with a checkpoint: what was before it is missing", says.Seq)
		return
	}
	signed, err := openCheckpoint(r.Note, v.known)
	if err != nil || !v.comesAfter(signed, hashed, says) {
		v.problem("the checkpoint that the chain begins with, record %d, is not what was written", says.Seq)
	}
}

// checkpoint looks at a record that is one.
func (v *verifier) checkpoint(line []byte, before, says Head) {
	if !bytes.Contains(line[:min(len(line), 64)], []byte(`"type":"`+TypeCheckpoint+`"`)) {
		return
	}
	v.Checkpoints++
	r, err := Parse(line)
	if err != nil {
		v.problem("the checkpoint %d cannot be read: %v", says.Seq, err)
		return
	}
	signed, err := openCheckpoint(r.Note, v.known)
	switch {
	case err != nil:
		v.problem("the checkpoint %d is not the service's: %v", says.Seq, err)
	case signed.Seq+1 != says.Seq:
		v.problem("the checkpoint %d signs record %d, and not the one before it", says.Seq, signed.Seq)
	case before.Seq == signed.Seq && before != signed:
		v.problem("the checkpoint %d signs another record %d than the one that is there: the chain was made anew up to there", says.Seq, signed.Seq)
	default:
		v.Signed = max(v.Signed, signed.Seq)
	}
}

// meet compares a record with the head that was kept.
func (v *verifier) meet(says Head) {
	if v.head == nil || v.headMet || says.Seq != v.head.Seq {
		return
	}
	v.headMet = true
	if says.Hash != v.head.Hash {
		v.problem("record %d is another than the head that was kept: the chain was made anew up to there", says.Seq)
	}
}

// end looks at where the chain ends.
func (v *verifier) end() {
	v.Last = v.at
	whole := Problem{File: v.name}
	switch {
	case v.head == nil || v.headMet || v.head.Seq == 0:
		return
	case !v.begun || v.at.Seq < v.head.Seq:
		whole.Message = fmt.Sprintf("the chain ends with record %d, and the head that was kept is record %d: what was behind is cut off", v.at.Seq, v.head.Seq)
	case v.head.Seq < v.First.Seq:
		whole.Message = fmt.Sprintf("the chain begins with record %d, behind the head that was kept, record %d: name the older files too", v.First.Seq, v.head.Seq)
	default:
		whole.Message = fmt.Sprintf("record %d, the head that was kept, is missing", v.head.Seq)
	}
	v.found(whole)
}
