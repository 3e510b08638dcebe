// Package secret holds texts that a request must carry: the proxy secret, the admin
// token.
//
// A [Secret] keeps a digest alone, unless its text is needed, and compares digests,
// so that the time taken tells nothing of either. It does not protect a file that
// others may read.
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
// environment. Only a digest of it is kept, but of one by which something is
// proved. A nil Secret is none.
type Secret struct {
	name   string // `proxy secret`
	file   string // empty if it is from the environment
	keep   bool
	digest atomic.Pointer[[sha256.Size]byte]
	text   atomic.Pointer[string] // where it is kept
	// generation counts the texts that it was.
	generation atomic.Uint64
}

// New returns the secret that lookup finds under the variable's name, or else one
// that is the file's once Reload has read it. It is nil where neither is
// configured.
func New(name, file, variable string, lookup func(string) (string, bool)) (*Secret, error) {
	return find(&Secret{name: name, file: file}, variable, lookup)
}

// NewKept is New for a secret whose text is needed.
func NewKept(name, file, variable string, lookup func(string) (string, bool)) (*Secret, error) {
	return find(&Secret{name: name, file: file, keep: true}, variable, lookup)
}

func find(s *Secret, variable string, lookup func(string) (string, bool)) (*Secret, error) {
	if text, ok := lookup(variable); ok {
		s.file = ""
		if err := s.set(text); err != nil {
			return nil, fmt.Errorf("%s: %w", variable, err)
		}
		return s, nil
	}
	if s.file == "" {
		return nil, nil
	}
	return s, nil
}

// Text returns the secret, of one that is kept; empty before it was read.
func (s *Secret) Text() string {
	if text := s.text.Load(); text != nil {
		return *text
	}
	return ""
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
	text, err := Read(s.name, s.file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w: make one with `openssl rand -hex 32`", err)
	case err != nil:
		return err
	}
	return s.set(text)
}

// Read returns the text of a regular file, without the end of its line. The name is what
// errors call it.
func Read(name, file string) (string, error) {
	text, err := regular.Read(file, maxSecret)
	if err != nil {
		return "", fmt.Errorf("read the %s: %w", name, err)
	}
	return strings.TrimRight(string(text), "\r\n"), nil
}

func (s *Secret) set(text string) error {
	text = strings.TrimRight(text, "\r\n")
	if len(text) < minSecret {
		return fmt.Errorf("the %s is shorter than %d bytes: make one with `openssl rand -hex 32`", s.name, minSecret)
	}
	digest := sha256.Sum256([]byte(text))
	if s.keep {
		s.text.Store(&text)
	}
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
