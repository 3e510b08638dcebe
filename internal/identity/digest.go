package identity

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"sync"
)

// A digest stands for credentials where they are remembered.
type digest [sha256.Size]byte

// A secret keys digests, so that a copy of them tells nothing of what they
// stand for. It never leaves the process.
type secret struct {
	macs sync.Pool // of hash.Hash: making one costs more than a digest
}

func newSecret() *secret {
	key := make([]byte, 32)
	rand.Read(key) // never fails: it ends the process instead
	return &secret{sync.Pool{New: func() any { return hmac.New(sha256.New, key) }}}
}

// digest returns a keyed hash of the fields. Each is preceded by its length,
// so that no two lists of fields run together. Whatever an answer depended on
// is a field of the digest under which it is remembered.
func (s *secret) digest(fields ...string) (d digest) {
	mac := s.macs.Get().(hash.Hash)
	defer s.macs.Put(mac)
	mac.Reset()
	size := 0
	for _, f := range fields {
		size += 8 + len(f)
	}
	buf := make([]byte, 0, size)
	for _, f := range fields {
		buf = binary.BigEndian.AppendUint64(buf, uint64(len(f)))
		buf = append(buf, f...)
	}
	mac.Write(buf)
	mac.Sum(d[:0])
	return d
}
