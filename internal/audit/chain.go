package audit

import (
	"bufio"
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"

	"securefiles/internal/regular"
)

// The last members of a line in a chain: its number, and the SHA-256 of the hash of
// the line before it and of all that stands before the last member. The first line
// comes after a hash of zeros.
const (
	seqMember  = `,"seq":`
	hashMember = `,"hash":"`
	chainEnd   = `"}`
)

// hashText is how long the text of a hash is: base64 of RFC 4648 section 4.
var hashText = base64.StdEncoding.EncodedLen(sha256.Size)

// A Head is the last record of a chain: whoever has it can tell whether anything up to
// there was changed since.
type Head struct {
	// Seq is the number of the record, from 1; 0 is before the first.
	Seq  uint64
	Hash [sha256.Size]byte
}

// String returns the head as ParseHead reads it.
func (h Head) String() string {
	return strconv.FormatUint(h.Seq, 10) + ":" + base64.StdEncoding.EncodeToString(h.Hash[:])
}

// ParseHead reads a head as it stands in the log of the service.
func ParseHead(text string) (Head, error) {
	seq, hash, _ := strings.Cut(text, ":")
	var h Head
	n, err := strconv.ParseUint(seq, 10, 64)
	if err == nil {
		err = h.setHash([]byte(hash))
	}
	if err != nil {
		return Head{}, fmt.Errorf("%q is no head of a chain: it is NUMBER:HASH, as the service logs it", text)
	}
	h.Seq = n
	return h, nil
}

func (h *Head) setHash(text []byte) error {
	var sum [sha256.Size + 3]byte
	if len(text) != hashText {
		return errors.New("the hash is too long or too short")
	}
	if n, err := base64.StdEncoding.Strict().Decode(sum[:], text); err != nil || n != sha256.Size {
		return errors.New("the hash is not base64")
	}
	copy(h.Hash[:], sum[:])
	return nil
}

// follow returns the head of a line, up to its last member, that comes after h.
func (h Head) follow(line []byte) Head {
	sum := sha256.New()
	sum.Write(h.Hash[:]) //nolint:errcheck // it never fails
	sum.Write(line)      //nolint:errcheck // it never fails
	next := Head{Seq: h.Seq + 1}
	sum.Sum(next.Hash[:0])
	return next
}

// seal appends a line, an object without a line feed, with its place in the chain.
func (h *Head) seal(out, line []byte) []byte {
	start := len(out)
	out = append(out, line[:len(line)-1]...)
	out = append(out, seqMember...)
	out = strconv.AppendUint(out, h.Seq+1, 10)
	*h = h.follow(out[start:])
	out = append(out, hashMember...)
	out = base64.StdEncoding.AppendEncode(out, h.Hash[:])
	return append(out, chainEnd...)
}

// cutChain takes a line apart: what is hashed, and the head that the line says it is.
// It reports whether the line is one of a chain.
func cutChain(line []byte) (hashed []byte, says Head, ok bool) {
	end := len(line) - len(chainEnd) - hashText - len(hashMember)
	if end < 0 || string(line[len(line)-len(chainEnd):]) != chainEnd || string(line[end:end+len(hashMember)]) != hashMember {
		return nil, Head{}, false
	}
	hashed = line[:end]
	i := bytes.LastIndex(hashed, []byte(seqMember))
	if i < 0 || says.setHash(line[end+len(hashMember):len(line)-len(chainEnd)]) != nil {
		return nil, Head{}, false
	}
	seq, err := strconv.ParseUint(string(hashed[i+len(seqMember):]), 10, 64)
	if err != nil {
		return nil, Head{}, false
	}
	says.Seq = seq
	return hashed, says, true
}

// ChainOptions have records chained.
type ChainOptions struct {
	// Signer signs checkpoints.
	Signer note.Signer
	// Every is how often there is one, while there are records.
	Every time.Duration
	// Signed is told of the head of each checkpoint, once it is written, to keep it where
	// the writer of the file has no hand. It may be nil, and must not write records.
	Signed func(Head)
}

// A chain is what a writer knows of the chain of its file.
type chain struct {
	ChainOptions
	head   Head
	signed uint64 // the number of the last checkpoint
	due    bool   // a checkpoint is to be written before the next record
	next   []sealed
}

// A sealed is a line that is being written: where it ends, and the head that it makes.
type sealed struct {
	end        int
	head       Head
	checkpoint bool
}

// add appends a line with its place behind what is being written.
func (c *chain) add(out, line []byte, checkpoint bool) []byte {
	head := c.head
	if n := len(c.next); n > 0 {
		head = c.next[n-1].head
	}
	out = append(head.seal(out, line[:len(line)-1]), '\n')
	c.next = append(c.next, sealed{len(out), head, checkpoint})
	return out
}

// wrote has the chain end with the last line that is whole among the bytes that were
// written, be it without its line feed, and returns how many checkpoints there are.
func (c *chain) wrote(n int) (checkpoints uint64) {
	for _, s := range c.next {
		if s.end-1 > n {
			break
		}
		signed := c.head
		c.head = s.head
		if s.checkpoint {
			c.due, c.signed = false, s.head.Seq
			checkpoints++
			if c.Signed != nil && signed.Seq > 0 {
				c.Signed(signed)
			}
		}
	}
	c.next = c.next[:0]
	return checkpoints
}

// checkpoint appends a record that signs the head.
func (c *chain) checkpoint(out []byte, now time.Time) ([]byte, error) {
	text := fmt.Sprintf("%s\n%d\n%s\n", c.Signer.Name(), c.head.Seq, base64.StdEncoding.EncodeToString(c.head.Hash[:]))
	signed, err := note.Sign(&note.Note{Text: text}, c.Signer)
	if err != nil {
		return out, fmt.Errorf("sign a checkpoint: %w", err)
	}
	r := Record{Type: TypeCheckpoint, Time: now, Note: string(signed)}
	return append(r.Append(out), '\n'), nil
}

// openCheckpoint returns the head that a checkpoint signs. Without verifiers nobody
// asks who has signed it.
func openCheckpoint(text string, known note.Verifiers) (Head, error) {
	ask := known
	if ask == nil {
		ask = note.VerifierList()
	}
	n, err := note.Open([]byte(text), ask)
	var unverified *note.UnverifiedNoteError
	switch {
	case known == nil && errors.As(err, &unverified):
		n = unverified.Note
	case errors.As(err, &unverified):
		return Head{}, errors.New("it is not signed by the key")
	case err != nil:
		return Head{}, err
	}
	lines := strings.Split(n.Text, "\n")
	if len(lines) < 4 {
		return Head{}, errors.New("it is too short")
	}
	return ParseHead(lines[1] + ":" + lines[2])
}

// lastHead finds the head of the chain in a file and in those that it was rotated to,
// the newest first; the zero head where there is none.
func lastHead(name string) (Head, error) {
	found, err := (&Follower{path: name}).list()
	if err != nil {
		return Head{}, err
	}
	for i := len(found) - 1; i >= 0; i-- {
		if passedOver(found[i].name) {
			continue
		}
		head, ok, err := lastHeadOf(found[i].name)
		if err != nil {
			return Head{}, fmt.Errorf("%s: %w", found[i].name, err)
		}
		if ok {
			return head, nil
		}
	}
	return Head{}, nil
}

// lastHeadOf finds the head of the last line of a chain in a file.
func lastHeadOf(name string) (head Head, found bool, err error) {
	f, in, err := openRecords(name)
	if err != nil {
		return Head{}, false, err
	}
	defer f.Close() //nolint:errcheck // it was read
	if !compressed(name) {
		info, err := f.Stat()
		if err != nil {
			return Head{}, false, err
		}
		// The last line, or the last but a torn one.
		for behind := int64(2 * MaxLine); ; behind *= 8 {
			from := max(0, info.Size()-behind)
			if _, err := f.Seek(from, io.SeekStart); err != nil {
				return Head{}, false, err
			}
			if head, found, err = lastHeadIn(f); err != nil || found || from == 0 {
				return head, found, err
			}
		}
	}
	return lastHeadIn(in)
}

func lastHeadIn(in io.Reader) (head Head, found bool, err error) {
	for r := (&reading{buf: bufio.NewReaderSize(in, 64<<10)}); ; {
		line, err := r.next(MaxLine)
		switch {
		case errors.Is(err, bufio.ErrTooLong):
		case errors.Is(err, io.EOF):
			// Of a line that is whole but for its line feed the end is yet to be written.
			if _, says, ok := cutChain(r.partial); ok {
				head, found = says, true
			}
			return head, found, nil
		case err != nil:
			return Head{}, false, err
		default:
			if _, says, ok := cutChain(line); ok {
				head, found = says, true
			}
		}
	}
}

// NewKey makes a key that signs checkpoints, under a name without white space and
// plus, and returns its private and its public form.
func NewKey(name string) (private, public string, err error) {
	private, public, err = note.GenerateKey(rand.Reader, name)
	if err == nil {
		_, err = note.NewVerifier(public)
	}
	if err != nil {
		return "", "", fmt.Errorf("make a key: %w: a name has no white space and no plus, such as files.example.org", err)
	}
	return private, public, nil
}

// ReadKey reads the file of a key as NewKey makes it, and returns what signs with it and
// the public form.
func ReadKey(file string) (note.Signer, string, error) {
	text, err := regular.Read(file, 4096)
	if err != nil {
		return nil, "", fmt.Errorf("read the key of the chain: %w", err)
	}
	private := strings.TrimSpace(string(text))
	signer, err := note.NewSigner(private)
	if err != nil {
		return nil, "", fmt.Errorf("read the key of the chain: %s holds none: make one with `securefiles audit key`", file)
	}
	// PRIVATE+KEY+NAME+HASH+KEY, and in KEY the algorithm and the seed.
	parts := strings.SplitN(private, "+", 5)
	seed, err := base64.StdEncoding.DecodeString(parts[len(parts)-1])
	if err != nil || len(seed) != 1+ed25519.SeedSize {
		return nil, "", fmt.Errorf("read the key of the chain: %s holds one of another kind", file)
	}
	key := ed25519.NewKeyFromSeed(seed[1:])
	public, err := note.NewEd25519VerifierKey(signer.Name(), key.Public().(ed25519.PublicKey))
	return signer, public, err
}
