package audit

import (
	"cmp"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"securefiles/authz"
)

// What is done with clients' addresses.
const (
	AddressesFull  = "full"
	AddressesShort = "short" // the network alone
	AddressesNone  = "none"
)

// What of an address is kept where it is shortened, in bits.
const (
	shortIPv4 = 24
	shortIPv6 = 48
)

// keyedPrefix begins a subject that was replaced by a keyed hash.
const keyedPrefix = "keyed:"

// omittable are the members that can be left out, each by what empties it.
var omittable = map[string]func(*Record){
	"user.groups":              func(r *Record) { r.Groups = nil },
	"identity.source":          func(r *Record) { r.Source = "" },
	"link.maker":               func(r *Record) { r.Maker = "" },
	"user_agent.original":      func(r *Record) { r.Agent = "" },
	"referrer.origin":          func(r *Record) { r.Referrer = "" },
	"http.request.method":      func(r *Record) { r.Method = "" },
	"policy.line":              func(r *Record) { r.Line = "" },
	"network.protocol.version": func(r *Record) { r.Protocol = "" },
}

// Omittable returns the members that can be left out, in order.
func Omittable() []string {
	var names []string
	for name := range omittable {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// PrivacyOptions say what of a person is written.
type PrivacyOptions struct {
	// Addresses is one of the above; empty means full.
	Addresses string
	// Omit are members that are left out, of Omittable.
	Omit []string
	// Key is the secret by which subjects are hashed; nil leaves them as they are. It
	// cannot be together with Keys.
	Key func() string
	// Keys hold the keys of subjects, whose records are sealed so that they can be erased;
	// nil seals nothing.
	Keys *KeyStore
}

// Privacy changes records before they are written. It is safe for concurrent use.
type Privacy struct {
	addresses string
	omit      []func(*Record)
	key       func() string
	keys      *KeyStore
}

// NewPrivacy checks the options.
func NewPrivacy(o PrivacyOptions) (*Privacy, error) {
	p := &Privacy{addresses: o.Addresses, key: o.Key, keys: o.Keys}
	if !slices.Contains([]string{"", AddressesFull, AddressesShort, AddressesNone}, o.Addresses) {
		return nil, fmt.Errorf("%q is not one of full, short, none", o.Addresses)
	}
	for _, name := range o.Omit {
		empty, ok := omittable[name]
		if !ok {
			return nil, fmt.Errorf("%q cannot be left out: these can, %s", name, strings.Join(Omittable(), ", "))
		}
		p.omit = append(p.omit, empty)
	}
	if o.Key != nil && o.Keys != nil {
		return nil, errors.New("what is erasable has a random id in the subject's place already: hash subjects, or make them erasable")
	}
	return p, nil
}

// Apply changes a record into what is to be written. After an error it must not be.
func (p *Privacy) Apply(r *Record) error {
	if r.Type != TypeDecision && r.Type != TypeDelivery {
		return nil
	}
	switch p.addresses {
	case AddressesShort:
		r.Client = shorten(r.Client)
	case AddressesNone:
		r.Client = ""
	}
	for _, empty := range p.omit {
		empty(r)
	}
	if p.key != nil {
		r.Subject, r.Maker = p.keyed(r.Subject, r.kept), p.keyed(r.Maker, r.kept)
	}
	if p.keys != nil && r.Sealed == "" {
		return p.keys.seal(r)
	}
	return nil
}

// shorten is the network of an address; empty for what is none.
func shorten(text string) string {
	if _, err := netip.ParsePrefix(text); err == nil {
		return text // it was shortened
	}
	address, err := netip.ParseAddr(text)
	if err != nil {
		return ""
	}
	address = address.Unmap().WithZone("")
	bits := shortIPv6
	if address.Is4() {
		bits = shortIPv4
	}
	network, err := address.Prefix(bits)
	if err != nil {
		return ""
	}
	return network.String()
}

func (p *Privacy) keyed(subject string, kept bool) string {
	if kept && strings.HasPrefix(subject, keyedPrefix) {
		return subject
	}
	return Keyed(p.key(), subject)
}

// Keyed is what stands in the place of a subject where subjects are hashed: its
// HMAC-SHA256 by the key, of which 16 bytes. Nobody has none.
func Keyed(key, subject string) string {
	if isNobody(subject) {
		return subject
	}
	mac := hmac.New(sha256.New, []byte(key))
	mac.Write([]byte(subject))
	return keyedPrefix + hex.EncodeToString(mac.Sum(nil)[:16])
}

func isNobody(subject string) bool { return subject == "" || subject == authz.Anonymous }

// Restore undoes what can be undone, in a record that was read again, and keeps Apply
// from doing the rest again.
func (p *Privacy) Restore(r *Record) {
	r.kept = true
	if p.keys != nil {
		p.keys.Open(r)
	}
}

// personal is what of a record is encrypted.
type personal struct {
	Subject  string   `json:"s,omitempty"`
	Path     string   `json:"p,omitempty"`
	Groups   []string `json:"g,omitempty"`
	Client   string   `json:"c,omitempty"`
	Agent    string   `json:"a,omitempty"`
	Referrer string   `json:"r,omitempty"`
	Maker    string   `json:"m,omitempty"`
}

// seal encrypts what tells of a person by the key of the subject, and puts the id of
// the key in the subject's place. Whoever has no name, has one key.
func (k *KeyStore) seal(r *Record) error {
	key, err := k.key(rowOf(r.Subject))
	if err != nil {
		return err
	}
	aead, err := key.aead()
	if err != nil {
		return err
	}
	plain, err := json.Marshal(personal{r.Subject, r.Path, r.Groups, r.Client, r.Agent, r.Referrer, r.Maker})
	if err != nil {
		return err
	}
	if !isNobody(r.Subject) {
		r.Subject = key.id
	}
	r.Path, r.Groups, r.Client, r.Agent, r.Referrer, r.Maker = "", nil, "", "", "", ""
	r.Sealed = base64.RawURLEncoding.EncodeToString(aead.Seal(nil, nil, plain, boundTo(r)))
	return nil
}

// Open decrypts what is sealed in a record. It reports whether it could: not where the
// subject was erased, or its key is in another store.
func (k *KeyStore) Open(r *Record) bool {
	if r.Sealed == "" {
		return false
	}
	key, ok := k.byID(r.Subject)
	if isNobody(r.Subject) {
		key, ok = k.find(rowOf(r.Subject))
	}
	text, err := base64.RawURLEncoding.DecodeString(r.Sealed)
	if !ok || err != nil {
		return false
	}
	aead, err := key.aead()
	if err != nil {
		return false
	}
	plain, err := aead.Open(nil, nil, text, boundTo(r))
	var s personal
	if err != nil || json.Unmarshal(plain, &s) != nil {
		return false
	}
	r.Subject, r.Path, r.Groups, r.Client, r.Agent, r.Referrer, r.Maker = s.Subject, s.Path, s.Groups, s.Client, s.Agent, s.Referrer, s.Maker
	r.Sealed = ""
	return true
}

// boundTo is what a sealed text belongs to, so that it opens in no other record.
func boundTo(r *Record) []byte { return []byte(r.Subject + "\n" + r.Type + "\n" + r.Request) }

func rowOf(subject string) string {
	if subject == "" {
		return authz.Anonymous
	}
	return subject
}

// aead is AES-256-GCM with random nonces: 2^32 records of one subject are safe.
func (k subjectKey) aead() (cipher.AEAD, error) {
	block, err := aes.NewCipher(k.secret[:])
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}

// Retention removes rotated files of records.
type Retention struct {
	// File is the one that is written to, which stays.
	File string
	// Age is how long after its last record a file is kept.
	Age time.Duration
	// Logger is told what was removed; nil means nobody.
	Logger *slog.Logger
}

// retentionEvery is how often old files are looked for.
const retentionEvery = time.Hour

// Run removes what is older, now and every hour, until the context ends.
func (r Retention) Run(ctx context.Context) error {
	log := r.Logger
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	for tick := time.NewTicker(retentionEvery); ; {
		deleted, err := r.Delete(ctx, time.Now())
		if err != nil {
			log.Error("records are kept for longer than they should be", "error", err)
		}
		if len(deleted) > 0 {
			log.Info("old records are removed", "files", deleted)
		}
		select {
		case <-ctx.Done():
			tick.Stop()
			return nil
		case <-tick.C:
		}
	}
}

// Delete removes what is older, and returns what it removed.
func (r Retention) Delete(ctx context.Context, now time.Time) ([]string, error) {
	dir, base := filepath.Split(r.File)
	entries, err := os.ReadDir(cmp.Or(dir, "."))
	if err != nil {
		return nil, fmt.Errorf("remove old records: %w", err)
	}
	var deleted []string
	var problems []error
	for _, e := range entries {
		if e.Name() == base || !rotation(base, e.Name()) {
			continue
		}
		info, err := e.Info()
		if ctx.Err() != nil || err != nil || !info.Mode().IsRegular() || now.Sub(info.ModTime()) <= r.Age {
			continue
		}
		name := dir + e.Name()
		if err := os.Remove(name); err != nil {
			problems = append(problems, fmt.Errorf("remove old records: %w", err))
			continue
		}
		deleted = append(deleted, name)
	}
	slices.Sort(deleted)
	return deleted, errors.Join(problems...)
}
