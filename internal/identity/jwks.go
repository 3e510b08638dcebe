package identity

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/json"
)

// Limits of a set of keys.
const (
	maxKeySetBytes = 256 << 10
	maxKeys        = 64
	minRSABits     = 2048
	maxRSABits     = 4096 // the library reads no longer ones
)

// The algorithms that a token may be signed with, by what their keys are like.
var (
	asymmetricAlgorithms = []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"}
	symmetricAlgorithms  = []string{"HS256", "HS384", "HS512"}
	defaultAlgorithms    = []string{"RS256", "PS256", "ES256", "ES384", "EdDSA"}
)

// A keySet is one version of an issuer's keys. It does not change.
type keySet struct {
	keys map[string]verificationKey // by key id
	// skipped says of the other key ids why their keys are not used.
	skipped  map[string]string
	problems []string // the same, one text a key
	sum      [sha256.Size]byte
	// generation counts the versions, from 1.
	generation uint64
}

// A verificationKey is what signatures are checked with: *rsa.PublicKey,
// *ecdsa.PublicKey, ed25519.PublicKey or a secret as []byte.
type verificationKey struct {
	key any
	// algorithms are those of the allow-list that the key serves.
	algorithms []string
}

// errUnknownKey says that the issuer may have the key, in a newer version.
var errUnknownKey = badCredentials("no key of the issuer has the token's key id")

// find returns the key for a token that names this key id and algorithm. Every
// error is badCredentials.
func (s *keySet) find(id, algorithm string) (any, error) {
	key, ok := s.keys[id]
	if !ok && id == "" {
		// RFC 7515 leaves the key id out where there is no choice.
		if len(s.keys) > 1 {
			return nil, badCredentials("the token names no key id, and the issuer has several keys")
		}
		for _, only := range s.keys {
			key, ok = only, true
		}
	}
	if !ok {
		if why, known := s.skipped[id]; known {
			return nil, badCredentials("the issuer's key of this id " + why)
		}
		return nil, errUnknownKey
	}
	if !slices.Contains(key.algorithms, algorithm) {
		return nil, badCredentials("the token's algorithm is not one of its key's")
	}
	return key.key, nil
}

// parseKeySet reads a JWKS. Keys that do not sign are passed over; those that
// cannot be used are left out, each with its reason. A set without any key to
// use is an error.
func parseKeySet(text []byte, algorithms []string) (*keySet, error) {
	var document struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(text, &document); err != nil {
		return nil, errors.New("not a JWKS: no JSON object without duplicates that holds a list of keys")
	}
	if len(document.Keys) > maxKeys {
		return nil, fmt.Errorf("more than %d keys", maxKeys)
	}
	set := &keySet{keys: map[string]verificationKey{}, skipped: map[string]string{}, sum: sha256.Sum256(text)}
	seen := map[string]bool{}
	for i, raw := range document.Keys {
		id, key, why := parseKey(raw, algorithms)
		if why == notForSignatures {
			continue
		}
		if seen[id] {
			why = "is one of several of this id"
			delete(set.keys, id)
		}
		seen[id] = true
		if why != "" {
			set.skipped[id] = why
			set.problems = append(set.problems, fmt.Sprintf("key %d %s", i+1, why))
			continue
		}
		set.keys[id] = key
	}
	if len(set.keys) == 0 {
		return nil, errors.New(strings.Join(append([]string{"no key that can be used"}, set.problems...), "; "))
	}
	return set, nil
}

// notForSignatures is why parseKey passes a key over that is for encryption.
const notForSignatures = "is not for signatures"

// parseKey reads one JWK. Why it cannot be used is a predicate (`is …`) that
// quotes nothing.
func parseKey(raw json.RawMessage, algorithms []string) (id string, key verificationKey, why string) {
	var head struct {
		Type       string   `json:"kty"`
		ID         string   `json:"kid"`
		Use        string   `json:"use"`
		Operations []string `json:"key_ops"`
		Algorithm  string   `json:"alg"`
	}
	if json.Unmarshal(raw, &head) != nil {
		return "", key, "is malformed"
	}
	id = head.ID
	if head.Use != "" && head.Use != "sig" || head.Operations != nil && !slices.Contains(head.Operations, "verify") {
		return id, key, notForSignatures
	}
	var jwk jose.JSONWebKey
	if err := jwk.UnmarshalJSON(raw); errors.Is(err, jose.ErrUnsupportedKeyType) {
		return id, key, "is of a type that is not known here"
	} else if err != nil {
		return id, key, "is malformed"
	}
	switch public := jwk.Key.(type) {
	case *rsa.PublicKey:
		if bits := public.N.BitLen(); bits < minRSABits || bits > maxRSABits || public.E < 3 || public.E%2 == 0 {
			return id, key, fmt.Sprintf("is RSA with a modulus that is not of %d to %d bits, or a bad exponent", minRSABits, maxRSABits)
		}
	case *ecdsa.PublicKey, ed25519.PublicKey:
	case []byte:
		if !slices.Contains(symmetricAlgorithms, algorithms[0]) {
			return id, key, "is a secret, and only public keys are allowed"
		}
	default:
		return id, key, "is a private key: the public half belongs there"
	}
	key.key = jwk.Key
	for _, a := range algorithms {
		if fits(jwk.Key, a) && (head.Algorithm == "" || head.Algorithm == a) {
			key.algorithms = append(key.algorithms, a)
		}
	}
	if key.algorithms == nil {
		return id, key, "serves no algorithm that is allowed, by its type, curve, length or alg"
	}
	return id, key, ""
}

// fits reports whether signatures of an algorithm can be checked with the key.
func fits(key any, algorithm string) bool {
	switch key := key.(type) {
	case *rsa.PublicKey:
		return strings.HasPrefix(algorithm, "RS") || strings.HasPrefix(algorithm, "PS")
	case *ecdsa.PublicKey:
		return algorithm == "ES256" && key.Curve == elliptic.P256() ||
			algorithm == "ES384" && key.Curve == elliptic.P384() ||
			algorithm == "ES512" && key.Curve == elliptic.P521()
	case ed25519.PublicKey:
		return algorithm == "EdDSA"
	case []byte: // at least as long as the hash (RFC 7518 section 3.2)
		return algorithm == "HS256" && len(key) >= 32 || algorithm == "HS384" && len(key) >= 48 || algorithm == "HS512" && len(key) >= 64
	}
	return false
}
