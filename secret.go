package main

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"sync/atomic"
)

// minSecret is the least length of a secret, in bytes.
const minSecret = 32

// A secret is a text that a request must carry, from a file or from the
// environment. Only a digest of it is kept. A nil secret is none.
type secret struct {
	name   string // `proxy secret`
	key    string // `proxy_secret_file`
	file   string // empty if it is from the environment
	digest atomic.Pointer[[sha256.Size]byte]
}

// newSecret reads a secret: the variable's value, or else the file's. It is nil
// where neither is configured.
func newSecret(ctx context.Context, name, key, file, variable string, environ []string) (*secret, error) {
	s := &secret{name: name, key: key}
	if text, ok := lookup(environ, variable); ok {
		return s, s.set(text)
	}
	if file == "" {
		return nil, nil
	}
	s.file = file
	return s, s.Reload(ctx)
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
	info, err := os.Stat(s.file)
	if err != nil {
		return fmt.Errorf("read %s: %w", s.key, err)
	}
	if !info.Mode().IsRegular() { // a pipe could keep it waiting for ever
		return fmt.Errorf("read %s: %s is not a regular file", s.key, s.file)
	}
	text, err := os.ReadFile(s.file)
	if err != nil {
		return fmt.Errorf("read %s: %w", s.key, err)
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

// othersRead returns the mode of a file that any user of the machine can read or
// write, or "".
func othersRead(file string) string {
	info, err := os.Stat(file)
	if err != nil || info.Mode().Perm()&0o007 == 0 { // an error is told of by whoever reads it
		return ""
	}
	return fs.FileMode(info.Mode().Perm()).String()
}
