package link

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/json"

	"securefiles/authz"
	"securefiles/internal/state"
	"securefiles/pathguard"
)

// Type is the `typ` of a link's token (RFC 8725 section 3.11).
const Type = "securefiles-link+jwt"

// Claims are what a link says. What is zero is left out of the token.
type Claims struct {
	// ID (`jti`) is the link's own: 1 to 64 letters, digits, - and _.
	ID string
	// Subject (`sub`) made the link, and Groups (`groups`) are the maker's, without `@`.
	Subject string
	Groups  []string
	// Download (`aud`) and Path (`path`) are what it opens: a file, or with a final slash
	// all that is below.
	Download, Path string
	// Issued (`iat`), NotBefore (`nbf`) and Expires (`exp`) are whole seconds.
	Issued, NotBefore, Expires time.Time
	// Recipient (`recipient`) is the subject that it is for; empty means whoever has it.
	Recipient string
	// Networks (`networks`) are where it can be used; none means everywhere.
	Networks []netip.Prefix
	// Uses (`uses`) is for how many downloads it is good; zero means any number.
	Uses int
	// Filename (`filename`) is what the file is saved as.
	Filename string
	// Rate (`rate`) bounds the bytes a second of a request.
	Rate int64
	// Password (`password`) says that the link's page asks for one.
	Password bool
	// Key is the id of the key that signed it, where it was verified.
	Key string
}

// claims are Claims in JSON. Nothing else may be in a token, and nothing twice. A number
// that is there can be zero, and is refused then; no text that is there is empty.
type claims struct {
	ID        string   `json:"jti,omitempty"`
	Subject   string   `json:"sub,omitempty"`
	Groups    []string `json:"groups,omitempty"`
	Download  string   `json:"aud,omitempty"`
	Path      string   `json:"path,omitempty"`
	Issued    *int64   `json:"iat,omitempty"`
	NotBefore *int64   `json:"nbf,omitempty"`
	Expires   *int64   `json:"exp,omitempty"`
	Recipient string   `json:"recipient,omitempty"`
	Networks  []string `json:"networks,omitempty"`
	Uses      *int     `json:"uses,omitempty"`
	Filename  string   `json:"filename,omitempty"`
	Rate      *int64   `json:"rate,omitempty"`
	Password  *bool    `json:"password,omitempty"`
}

// header is the only one that a token may have.
type header struct {
	Algorithm string `json:"alg"`
	KeyID     string `json:"kid"`
	Type      string `json:"typ"`
}

// Bounds of what a link says.
const (
	maxGroups   = 64
	maxNetworks = 16
	maxUses     = 1_000_000
	maxSecond   = 253402300799 // the end of the year 9999
)

// Kept is what the state keeps of the link.
func (c *Claims) Kept() state.Link {
	return state.Link{
		ID: c.ID, Subject: c.Subject, Download: c.Download, Path: c.Path, Recipient: c.Recipient, Key: c.Key,
		Issued: c.Issued, Expires: c.Expires, Uses: c.Uses, Password: c.Password,
	}
}

// scope is what the claims bound the maker to.
func (c *Claims) scope() *authz.Scope {
	return &authz.Scope{
		ID: c.ID, Download: c.Download, Path: c.Path, Recipient: c.Recipient, Networks: c.Networks,
		Expires: c.Expires, Filename: c.Filename, Rate: c.Rate, Uses: c.Uses, Password: c.Password,
	}
}

// verify checks all that a token must be in itself; its error is an *authz.LinkError. A
// token has one spelling: it is taken apart here, byte for byte, before the library
// reads it, which is lenient.
func (s *keySet) verify(token string) (*Claims, error) {
	if len(token) > MaxToken {
		return nil, refused("", "it is longer than %d bytes", MaxToken)
	}
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return nil, refused("", "it is not of three parts")
	}
	var decoded [3][]byte
	for i, part := range parts {
		text, err := base64.RawURLEncoding.Strict().DecodeString(part)
		if err != nil || len(text) == 0 || base64.RawURLEncoding.EncodeToString(text) != part {
			return nil, refused("", "a part is not base64url in its one spelling")
		}
		decoded[i] = text
	}
	var head header
	if err := decode(decoded[0], &head, headerNames); err != nil {
		return nil, refused("", "its header %v", err)
	}
	if head.Type != Type {
		return nil, refused("", "it is of another type (typ) than %s", Type)
	}
	i := slices.IndexFunc(s.keys, func(k key) bool { return k.id == head.KeyID })
	if i < 0 {
		return nil, refused("", "there is no key of its id (kid)")
	}
	if head.Algorithm != string(s.keys[i].algorithm) {
		return nil, refused("", "its algorithm is not its key's")
	}
	jws, err := jose.ParseSignedCompact(token, []jose.SignatureAlgorithm{s.keys[i].algorithm})
	if err != nil {
		return nil, refused("", "it is malformed") // err may quote it
	}
	payload, err := jws.Verify(s.keys[i].verify)
	if err != nil || !bytes.Equal(payload, decoded[1]) {
		return nil, refused("", "its signature is not its key's")
	}
	var c claims
	if err := decode(payload, &c, claimNames); err != nil {
		return nil, refused("", "what it claims %v", err)
	}
	made, err := c.claims()
	if err != nil {
		return nil, refused("", "%v", err)
	}
	made.Key = head.KeyID
	return made, nil
}

// decode reads a JSON object that no two readers can understand differently: in UTF-8,
// with no name twice, none in other letters, and none that is not known. Its error is a
// predicate and quotes nothing.
func decode(text []byte, into any, known []string) error {
	if !utf8.Valid(text) {
		return errors.New("is not UTF-8")
	}
	var members map[string]json.RawMessage // the library refuses a name that is there twice
	if err := json.Unmarshal(text, &members); err != nil || members == nil {
		return errors.New("is no JSON object without duplicates")
	}
	for name, value := range members {
		if !slices.Contains(known, name) {
			return errors.New("holds a name that is not in docs/links.md")
		}
		if v := string(value); v == "null" || v == `""` || v[0] == '[' && strings.TrimSpace(v[1:len(v)-1]) == "" {
			return fmt.Errorf("has an empty %s: it is left out, or has a value", name)
		}
	}
	if err := json.Unmarshal(text, into); err != nil {
		return errors.New("has a value of a wrong type")
	}
	return nil
}

// What a header and a payload may hold.
var (
	headerNames = []string{"alg", "kid", "typ"}
	claimNames  = []string{"jti", "sub", "groups", "aud", "path", "iat", "nbf", "exp", "recipient", "networks", "uses", "filename", "rate", "password"}
)

// claims checks what a token says. Its error is for the operator.
func (c *claims) claims() (*Claims, error) {
	for name, missing := range map[string]bool{
		"jti": c.ID == "", "sub": c.Subject == "", "aud": c.Download == "", "path": c.Path == "", "iat": c.Issued == nil, "exp": c.Expires == nil,
	} {
		if missing {
			return nil, fmt.Errorf("the claim %s is missing", name)
		}
	}
	made := &Claims{ID: c.ID, Subject: c.Subject, Groups: c.Groups, Download: c.Download, Path: c.Path, Recipient: c.Recipient, Filename: c.Filename}
	for _, at := range []struct {
		name string
		from *int64
		to   *time.Time
	}{{"iat", c.Issued, &made.Issued}, {"nbf", c.NotBefore, &made.NotBefore}, {"exp", c.Expires, &made.Expires}} {
		if at.from == nil {
			continue
		}
		if *at.from <= 0 || *at.from > maxSecond {
			return nil, fmt.Errorf("the claim %s is no date", at.name)
		}
		*at.to = time.Unix(*at.from, 0)
	}
	for _, text := range c.Networks {
		network, err := netip.ParsePrefix(text)
		if err != nil || network != network.Masked() || network.String() != text || network.Addr().Is4In6() {
			return nil, errors.New("the claim networks holds what is no network, such as 192.0.2.0/24")
		}
		made.Networks = append(made.Networks, network)
	}
	if c.Uses != nil {
		if made.Uses = *c.Uses; made.Uses < 1 {
			return nil, errors.New("the claim uses is less than 1")
		}
	}
	if c.Rate != nil {
		if made.Rate = *c.Rate; made.Rate < 1 {
			return nil, errors.New("the claim rate is less than 1 byte a second")
		}
	}
	if c.Password != nil {
		if made.Password = *c.Password; !made.Password {
			return nil, errors.New("the claim password is not true")
		}
	}
	return made, made.Valid()
}

// Valid says what is wrong with the claims, or returns nil.
func (c *Claims) Valid() error {
	if !idForm.MatchString(c.ID) {
		return errors.New("the id (jti) is not of 1 to 64 letters, digits, - and _")
	}
	if err := authz.ValidSubject(c.Subject); err != nil {
		return fmt.Errorf("the maker (sub) %w", err)
	}
	if len(c.Groups) > maxGroups {
		return fmt.Errorf("there are more than %d groups", maxGroups)
	}
	for _, g := range c.Groups {
		if err := authz.ValidGroup(g); err != nil {
			return fmt.Errorf("a group %w", err)
		}
	}
	if c.Download == "" {
		return errors.New("the download (aud) is empty")
	}
	if file := strings.TrimSuffix(c.Path, "/"); c.Path != "/" {
		if _, err := pathguard.New(file); err != nil {
			return fmt.Errorf("the path: %w", err)
		}
	}
	if c.Issued.IsZero() || !c.Expires.After(c.Issued) || !c.NotBefore.IsZero() && !c.Expires.After(c.NotBefore) {
		return errors.New("it ends (exp) before it begins (iat, nbf)")
	}
	if c.Recipient != "" {
		if err := authz.ValidSubject(c.Recipient); err != nil {
			return fmt.Errorf("the recipient %w", err)
		}
	}
	if len(c.Networks) > maxNetworks {
		return fmt.Errorf("there are more than %d networks", maxNetworks)
	}
	if c.Uses < 0 || c.Uses > maxUses {
		return fmt.Errorf("the number of uses is not of 1 to %d", maxUses)
	}
	if c.Uses > 0 && strings.HasSuffix(c.Path, "/") {
		return errors.New("uses are of a file: of a directory, nobody can say what one download is")
	}
	if c.Rate < 0 {
		return errors.New("the rate is less than 1 byte a second")
	}
	if c.Filename != "" {
		if _, err := pathguard.New("/" + c.Filename); err != nil || strings.Contains(c.Filename, "/") {
			return errors.New("the file name is none: a name as a file of a download may have it, without a slash")
		}
	}
	return nil
}

// Valid returns why claims cannot be those of a link here, or nil.
func (l *Links) Valid(c *Claims) error {
	if err := c.Valid(); err != nil {
		return err
	}
	if (c.Uses > 0 || c.Rate > 0) && slices.Contains(l.opts.Unreported, c.Download) {
		return fmt.Errorf("the web server, or the store, that sends the files of download %q tells nothing of what it sends, and holds to no rate: a link there is for any number of uses, at any rate", c.Download)
	}
	return nil
}

// Sign makes a token with the key of an id, or with the last one of the file that can
// sign if the id is empty.
func (k *Keys) Sign(id string, c *Claims) (string, error) {
	if err := c.Valid(); err != nil {
		return "", fmt.Errorf("make a link: %w", err)
	}
	set := k.set.Load()
	if set == nil {
		return "", errors.New("make a link: the keys are not loaded")
	}
	var with *key
	for i := range set.keys {
		if one := &set.keys[i]; one.sign != nil && (id == "" || one.id == id) {
			with = one
		}
	}
	if with == nil {
		return "", fmt.Errorf("make a link: no key in %s can sign: it holds public halves, or none of this id", k.file)
	}
	payload, err := json.Marshal(c.written())
	if err != nil {
		return "", fmt.Errorf("make a link: %w", err)
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: with.algorithm, Key: with.sign},
		(&jose.SignerOptions{}).WithType(Type).WithHeader("kid", with.id))
	if err != nil {
		return "", fmt.Errorf("make a link: %w", err)
	}
	jws, err := signer.Sign(payload)
	if err != nil {
		return "", fmt.Errorf("make a link: %w", err)
	}
	token, err := jws.CompactSerialize()
	if err != nil {
		return "", fmt.Errorf("make a link: %w", err)
	}
	if len(token) > MaxToken {
		return "", fmt.Errorf("make a link: the token would be longer than %d bytes: leave groups or networks out", MaxToken)
	}
	return token, nil
}

func (c *Claims) written() *claims {
	w := &claims{ID: c.ID, Subject: c.Subject, Groups: c.Groups, Download: c.Download, Path: c.Path, Recipient: c.Recipient, Filename: c.Filename}
	second := func(at time.Time) *int64 {
		if at.IsZero() {
			return nil
		}
		s := at.Unix()
		return &s
	}
	w.Issued, w.NotBefore, w.Expires = second(c.Issued), second(c.NotBefore), second(c.Expires)
	for _, n := range c.Networks {
		w.Networks = append(w.Networks, n.String())
	}
	if c.Uses != 0 {
		w.Uses = &c.Uses
	}
	if c.Rate != 0 {
		w.Rate = &c.Rate
	}
	if c.Password {
		w.Password = &c.Password
	}
	return w
}
