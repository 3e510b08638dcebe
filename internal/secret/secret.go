// Package secret holds texts that a request must carry: the proxy secret, the admin
// token.
//
// A [Secret] keeps a digest alone, and compares digests, so that the time taken
// tells nothing of either. It does not protect a file that others may read.
package secret

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"sync/atomic"

	"securefiles/internal/regular"
)

// The least length of a secret, and the most that is read of its file, in bytes.
const (
	minSecret = 32
	maxSecret = 4 << 10
)

// A Secret is a text that a request must carry, from a file or from the
// environment. Only a digest of it is kept. A nil Secret is none.
type Secret struct {
	name   string // `proxy secret`
	file   string // empty if it is from the environment
	digest atomic.Pointer[[sha256.Size]byte]
	// generation counts the texts that it was.
	generation atomic.Uint64
}

// New returns the secret that lookup finds under the variable's name, or else one
// that is the file's once Reload has read it. It is nil where neither is
// configured.
func New(name, file, variable string, lookup func(string) (string, bool)) (*Secret, error) {
	s := &Secret{name: name}
	if text, ok := lookup(variable); ok {
		if err := s.set(text); err != nil {
			return nil, fmt.Errorf("%s: %w", variable, err)
		}
		return s, nil
	}
	if file == "" {
		return nil, nil
	}
	s.file = file
	return s, nil
}

// Files returns the file, for whoever watches it.
func (s *Secret) Files() []string {
	if s == nil || s.file == "" {
		return nil
	}
	return []string{s.file}
}

// Reload reads the file again. After an error, the last secret stays.
func (s *Secret) Reload(context.Context) error {
	if s == nil || s.file == "" {
		return nil
	}
	text, err := regular.Read(s.file, maxSecret)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("read the %s: %w: make one with `openssl rand -hex 32`", s.name, err)
	case err != nil:
		return fmt.Errorf("read the %s: %w", s.name, err)
	}
	return s.set(string(text))
}

func (s *Secret) set(text string) error {
	text = strings.TrimRight(text, "\r\n")
	if len(text) < minSecret {
		return fmt.Errorf("the %s is shorter than %d bytes: make one with `openssl rand -hex 32`", s.name, minSecret)
	}
	digest := sha256.Sum256([]byte(text))
	if last := s.digest.Swap(&digest); last == nil || *last != digest {
		s.generation.Add(1)
	}
	return nil
}

// Generation counts the texts that it was, from 1; 0 is none yet.
func (s *Secret) Generation() uint64 { return s.generation.Load() }

// Forget makes every text wrong, until the file is read again.
func (s *Secret) Forget() { s.digest.Store(nil) }

// Is reports whether a text is the secret. Digests are compared, so the time
// taken tells nothing of either.
func (s *Secret) Is(text string) bool {
	want := s.digest.Load()
	got := sha256.Sum256([]byte(text))
	return want != nil && subtle.ConstantTimeCompare(got[:], want[:]) == 1
}
