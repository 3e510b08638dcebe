package identity

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
)

// A digest stands for credentials where they are remembered.
type digest [sha256.Size]byte

// A secret keys digests, so that a copy of them tells nothing of what they
// stand for. It never leaves the process.
type secret [32]byte

func newSecret() *secret {
	var s secret
	rand.Read(s[:]) // never fails: it ends the process instead
	return &s
}

// digest returns a keyed hash of the fields. Each is preceded by its length,
// so that no two lists of fields run together. Whatever an answer depended on
// is a field of the digest under which it is remembered.
func (s *secret) digest(fields ...string) digest {
	mac := hmac.New(sha256.New, s[:])
	var buf []byte
	for _, f := range fields {
		buf = binary.BigEndian.AppendUint64(buf, uint64(len(f)))
		buf = append(buf, f...)
	}
	mac.Write(buf)
	return digest(mac.Sum(nil))
}
