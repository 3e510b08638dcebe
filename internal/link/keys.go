package link

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/json"

	"securefiles/internal/regular"
)

// Limits of a file of keys.
const (
	maxKeyFile = 64 << 10
	maxKeys    = 64
	// secretBytes is how long a secret is at least (RFC 7518 section 3.2), and exactly
	// if it is made here.
	secretBytes = 32
)

// idForm is what keys and links are called.
var idForm = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)

// IsID reports whether a link could be called so.
func IsID(id string) bool { return idForm.MatchString(id) }

// Keys are the keys of a file, a JWK set (RFC 7517): secrets (`oct`, for HS256) and
// Ed25519 keys (`OKP`, for EdDSA), with or without their private half. Each has an id of
// its own, and serves its one algorithm. They are safe for concurrent use.
type Keys struct {
	file string
	set  atomic.Pointer[keySet]
}

// A keySet is one version of the keys. It does not change.
type keySet struct {
	keys       []key // in the order of the file
	generation uint64
}

// A key verifies, and signs where sign is there.
type key struct {
	id        string
	algorithm jose.SignatureAlgorithm
	verify    any // ed25519.PublicKey or a secret as []byte
	sign      any // ed25519.PrivateKey or the same secret; nil where it is not known
}

// NewKeys returns the keys of a file, which Reload reads.
func NewKeys(file string) (*Keys, error) {
	if file == "" {
		return nil, errors.New("there is no file of keys for links")
	}
	return &Keys{file: file}, nil
}

// Files are the files that the keys are in.
func (k *Keys) Files() []string { return []string{k.file} }

// Format keeps keys out of every %v, %+v and %#v.
func (k *Keys) Format(f fmt.State, _ rune) { fmt.Fprintf(f, "keys of %s", k.file) }

// Reload reads the file again. On an error, which quotes nothing of the file, what was
// read before goes on.
func (k *Keys) Reload(context.Context) error {
	text, err := regular.Read(k.file, maxKeyFile)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("read the keys of links: %w: make the first one with `securefiles link key new`", err)
	}
	if err != nil {
		return fmt.Errorf("read the keys of links: %w", err)
	}
	keys, err := parseKeys(text)
	if err != nil {
		return fmt.Errorf("read the keys of links: %s: %w", k.file, err)
	}
	k.set.Store(&keySet{keys: keys, generation: k.Generation() + 1})
	return nil
}

// Generation counts the versions that were read.
func (k *Keys) Generation() uint64 {
	if set := k.set.Load(); set != nil {
		return set.generation
	}
	return 0
}

// IDs are the keys' ids, in the order of the file.
func (k *Keys) IDs() []string {
	var ids []string
	if set := k.set.Load(); set != nil {
		for _, one := range set.keys {
			ids = append(ids, one.id)
		}
	}
	return ids
}

// parseKeys reads a JWK set, strictly: a key that cannot be used is an error.
func parseKeys(text []byte) ([]key, error) {
	var document struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(text, &document); err != nil {
		return nil, errors.New("it is no JWK set: no JSON object without duplicates that holds a list of keys; `securefiles link key new` makes one")
	}
	if len(document.Keys) == 0 || len(document.Keys) > maxKeys {
		return nil, fmt.Errorf("it holds %d keys: 1 to %d are possible; `securefiles link key new` makes one", len(document.Keys), maxKeys)
	}
	seen := map[string]bool{}
	var keys []key
	for i, raw := range document.Keys {
		one, err := parseKey(raw)
		if err == nil && seen[one.id] {
			err = errors.New("has the id (kid) of another")
		}
		if err != nil {
			return nil, fmt.Errorf("key %d %w", i+1, err)
		}
		seen[one.id] = true
		keys = append(keys, one)
	}
	return keys, nil
}

// parseKey reads one JWK. Its error is a predicate, and quotes nothing.
func parseKey(raw json.RawMessage) (key, error) {
	var jwk jose.JSONWebKey
	if err := jwk.UnmarshalJSON(raw); err != nil {
		return key{}, errors.New("is no JWK of kind oct or OKP (Ed25519)")
	}
	if !idForm.MatchString(jwk.KeyID) {
		return key{}, errors.New("has no id (kid) of 1 to 64 letters, digits, - and _")
	}
	if jwk.Use != "" && jwk.Use != "sig" {
		return key{}, errors.New("is not for signatures (use)")
	}
	one := key{id: jwk.KeyID}
	switch material := jwk.Key.(type) {
	case []byte:
		if len(material) < secretBytes {
			return key{}, fmt.Errorf("is a secret of less than %d bytes", secretBytes)
		}
		one.algorithm, one.verify, one.sign = jose.HS256, material, material
	case ed25519.PrivateKey:
		one.algorithm, one.verify, one.sign = jose.EdDSA, material.Public(), material
	case ed25519.PublicKey:
		one.algorithm, one.verify = jose.EdDSA, material
	default:
		return key{}, errors.New("is of another kind: links are signed with HS256 (oct) or EdDSA (OKP, Ed25519)")
	}
	if jwk.Algorithm != "" && jwk.Algorithm != string(one.algorithm) {
		return key{}, fmt.Errorf("is of a kind that serves %s, and says another algorithm (alg)", one.algorithm)
	}
	return one, nil
}

// AddKey makes a key and adds it to a file, which is made if it does not exist, with
// mode 0640: a secret for HS256, or an Ed25519 pair for EdDSA. It returns the key's id,
// which tells when it was made.
func AddKey(file, algorithm string, now time.Time) (id string, err error) {
	made, err := newKey(algorithm, now)
	if err != nil {
		return "", fmt.Errorf("make a key: %w", err)
	}
	var document struct {
		Keys []json.RawMessage `json:"keys"`
	}
	text, err := regular.Read(file, maxKeyFile)
	if err == nil {
		if _, err := parseKeys(text); err != nil {
			return "", fmt.Errorf("add a key: %s: %w", file, err)
		}
		if err := json.Unmarshal(text, &document); err != nil {
			return "", fmt.Errorf("add a key: %s: %w", file, err)
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("add a key: %w", err)
	}
	one, err := made.MarshalJSON()
	if err != nil {
		return "", fmt.Errorf("add a key: %w", err)
	}
	document.Keys = append(document.Keys, one)
	text, err = json.MarshalIndent(document, "", "  ")
	if err == nil {
		err = replace(file, append(text, '\n'))
	}
	if err != nil {
		return "", fmt.Errorf("add a key: %w", err)
	}
	return made.KeyID, nil
}

func newKey(algorithm string, now time.Time) (made jose.JSONWebKey, err error) {
	tail, secret := make([]byte, 4), make([]byte, secretBytes)
	for _, b := range [][]byte{tail, secret} {
		if _, err := rand.Read(b); err != nil {
			return made, err
		}
	}
	made = jose.JSONWebKey{KeyID: now.UTC().Format(time.DateOnly) + "-" + base64.RawURLEncoding.EncodeToString(tail), Algorithm: algorithm, Use: "sig"}
	switch algorithm {
	case string(jose.HS256):
		made.Key = secret
	case string(jose.EdDSA):
		made.Key = ed25519.NewKeyFromSeed(secret)
	default:
		return made, fmt.Errorf("algorithm %q is neither HS256 nor EdDSA", algorithm)
	}
	return made, nil
}

// replace writes a file as a whole, in the place of another, whose owner and mode it
// gets.
func replace(file string, text []byte) (err error) {
	f, err := os.CreateTemp(filepath.Dir(file), "."+filepath.Base(file)+"-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	_, err = f.Write(text)
	mode := fs.FileMode(0o640)
	if old, statErr := os.Stat(file); statErr == nil {
		mode = old.Mode().Perm()
		owner := old.Sys().(*syscall.Stat_t)
		err = errors.Join(err, f.Chown(int(owner.Uid), int(owner.Gid)))
	}
	if err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), file)
}
