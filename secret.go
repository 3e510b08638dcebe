package main

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

// A secret is a text that a request must carry, from a file or from the
// environment. Only a digest of it is kept. A nil secret is none.
type secret struct {
	name   string // `proxy secret`
	file   string // empty if it is from the environment
	digest atomic.Pointer[[sha256.Size]byte]
}

// newSecret reads a secret: the variable's value, or else the file's. It is nil
// where neither is configured.
func newSecret(ctx context.Context, name, file, variable string, environ []string) (*secret, error) {
	s := &secret{name: name}
	if text, ok := lookup(environ, variable); ok {
		if err := s.set(text); err != nil {
			return nil, fmt.Errorf("%s: %w", variable, err)
		}
		return s, nil
	}
	if file == "" {
		return nil, nil
	}
	s.file = file
	if err := s.Reload(ctx); err != nil {
		return nil, err
	}
	return s, nil
}

// Files returns the file, for whoever watches it.
func (s *secret) Files() []string {
	if s == nil || s.file == "" {
		return nil
	}
	return []string{s.file}
}

// Reload reads the file again. After an error, the last secret stays.
func (s *secret) Reload(context.Context) error {
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

func (s *secret) set(text string) error {
	text = strings.TrimRight(text, "\r\n")
	if len(text) < minSecret {
		return fmt.Errorf("the %s is shorter than %d bytes: make one with `openssl rand -hex 32`", s.name, minSecret)
	}
	digest := sha256.Sum256([]byte(text))
	s.digest.Store(&digest)
	return nil
}

// forget makes every text wrong, until the file is read again.
func (s *secret) forget() { s.digest.Store(nil) }

// Is reports whether a text is the secret. Digests are compared, so the time
// taken tells nothing of either.
func (s *secret) Is(text string) bool {
	want := s.digest.Load()
	got := sha256.Sum256([]byte(text))
	return want != nil && subtle.ConstantTimeCompare(got[:], want[:]) == 1
}
