package storage

import (
	"bytes"
	"cmp"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"encoding/binary"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"securefiles/internal/authority"
	"securefiles/pathguard"
)

const (
	// listTimeout is how long a store may take to list: nginx waits 2 s for the page.
	listTimeout = 1500 * time.Millisecond
	// maxLists is how many pages a store is asked for at a time; more wait for a turn.
	maxLists = 32
	// maxList bounds what a store answers, in bytes: of a thousand keys of a kilobyte each.
	maxList = 8 << 20
	// maxToken bounds what a store calls the next page by, and cursorBlock is what its
	// length is rounded up to, so that it does not tell how long a name is.
	maxToken    = 4 << 10
	cursorBlock = 256
)

// A listed is what a store says of a directory.
type listed struct {
	objects  []object
	prefixes []string
	token    string // of the next page; empty where there is none
}

// An object is a file or directory of a store, as fs.FileInfo has it. Directories have no
// time.
type object struct {
	name    string
	dir     bool
	size    int64
	changed time.Time
}

func (o object) Name() string       { return o.name }
func (o object) Size() int64        { return o.size }
func (o object) ModTime() time.Time { return o.changed }
func (o object) IsDir() bool        { return o.dir }
func (o object) Sys() any           { return nil }

func (o object) Mode() fs.FileMode {
	if o.dir {
		return fs.ModeDir
	}
	return 0
}

// ErrCursor says that a cursor is none of a page of this directory, or was one before the
// credentials changed: it is fs.ErrNotExist too.
var ErrCursor = fmt.Errorf("the cursor is of no page of this directory: %w", fs.ErrNotExist)

// List asks the store, once, what is in a directory: at most so many entries, sorted by
// name, as the bytes are. A cursor is empty for the first page, and else what the page
// before returned; next is empty on the last page. It is sealed: whoever has it learns
// nothing by it, and cannot make one. What the bucket does not hold at all is
// fs.ErrNotExist.
func (s *Store) List(ctx context.Context, dir pathguard.Dir, cursor string, most int) (entries []fs.FileInfo, next string, err error) {
	if dir.IsZero() {
		return nil, "", errors.New("list: there is no directory")
	}
	prefix := s.prefix + strings.TrimPrefix(dir.String(), "/")
	seal, err := s.seal(ctx)
	if err != nil {
		return nil, "", fmt.Errorf("list: %w", err)
	}
	token := ""
	if cursor != "" {
		if token, err = open(seal, cursor, prefix); err != nil {
			return nil, "", err
		}
	}
	found, err := s.ask(ctx, prefix, token, most)
	if err != nil {
		return nil, "", fmt.Errorf("list %s: %w", s.endpoint.host, err)
	}
	seen := token != "" || dir.String() == "/" // there is something, or need not be
	elsewhere := fmt.Errorf("list %s: the store answers with what is elsewhere", s.endpoint.host)
	for _, o := range found.objects {
		name, below := strings.CutPrefix(o.name, prefix)
		if below && name != "" && strings.IndexByte(name, '/') == len(name)-1 { // it stands for a directory
			found.prefixes = append(found.prefixes, o.name)
			continue
		}
		if !below || strings.Contains(name, "/") {
			return nil, "", elsewhere
		}
		seen = true
		if name != "" { // else it stands for this directory
			entries = append(entries, object{name: name, size: o.size, changed: o.changed})
		}
	}
	slices.Sort(found.prefixes)
	for _, p := range slices.Compact(found.prefixes) {
		if p == prefix { // so does this
			seen = true
			continue
		}
		name, below := strings.CutPrefix(p, prefix)
		name, slash := strings.CutSuffix(name, "/")
		if !below || !slash || strings.Contains(name, "/") {
			return nil, "", elsewhere
		}
		seen = true
		entries = append(entries, object{name: name, dir: true})
	}
	if len(entries) > most+1 { // with the one for the directory
		return nil, "", fmt.Errorf("list %s: the store answers with more than it was asked for", s.endpoint.host)
	}
	if !seen && found.token == "" {
		return nil, "", fmt.Errorf("list: %w", fs.ErrNotExist)
	}
	slices.SortFunc(entries, func(a, b fs.FileInfo) int { return cmp.Compare(a.Name(), b.Name()) })
	if found.token != "" {
		if next, err = closed(seal, found.token, prefix); err != nil {
			return nil, "", fmt.Errorf("list: %w", err)
		}
	}
	return entries, next, nil
}

// TryList asks the store for the first entry of the whole.
func (s *Store) TryList(ctx context.Context) error {
	root, err := pathguard.NewDir("/")
	if err == nil {
		_, _, err = s.List(ctx, root, "", 1)
	}
	return err
}

// ask asks the store for a page.
func (s *Store) ask(ctx context.Context, prefix, token string, most int) (*listed, error) {
	ctx, cancel := context.WithTimeout(ctx, listTimeout)
	defer cancel()
	select {
	case s.turns <- struct{}{}:
		defer func() { <-s.turns }()
	case <-ctx.Done():
		return nil, fmt.Errorf("it is asked for %d pages at a time: %w", maxLists, ctx.Err())
	}
	target, err := s.signed(ctx, request{method: http.MethodGet, list: s.signer.listing(prefix, token, most)})
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.endpoint.scheme+"://"+s.endpoint.host+target, nil)
	if err != nil {
		return nil, errors.New("nothing can be asked")
	}
	req.Header.Set("Accept-Encoding", "identity")
	client, err := s.client()
	if err != nil {
		return nil, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, s.unreachable(err)
	}
	defer resp.Body.Close() //nolint:errcheck // it is read
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxList+1))
	switch {
	case err != nil:
		return nil, errors.New("the answer breaks off, or takes too long")
	case len(text) > maxList:
		return nil, fmt.Errorf("the answer is longer than %d bytes", maxList)
	case resp.StatusCode == http.StatusForbidden && bytes.Contains(text, []byte("AccessDenied")):
		return nil, errors.New("the credentials may not list: let them s3:ListBucket below the prefix, or storage.objects.list")
	case resp.StatusCode != http.StatusOK:
		if err := s.judge(resp.StatusCode, text, 0); err != nil {
			return nil, err
		}
		return nil, fmt.Errorf("the store answers %d", resp.StatusCode)
	}
	found, err := s.signer.listed(text)
	if err == nil && len(found.token) > maxToken {
		err = errors.New("what it calls the next page by is too long")
	}
	if err != nil {
		return nil, fmt.Errorf("the answer is no list: %w", err)
	}
	return found, nil
}

// client is what asks the store: by the authorities of its file, if it names one, through
// no proxy, and nowhere else.
func (s *Store) client() (*http.Client, error) {
	s.asking.Lock()
	defer s.asking.Unlock()
	if s.asks != nil {
		return s.asks, nil
	}
	config, err := s.trust()
	if err != nil {
		return nil, err
	}
	s.asks = &http.Client{
		Transport:     &http.Transport{MaxIdleConnsPerHost: 8, IdleConnTimeout: time.Minute, MaxResponseHeaderBytes: 64 << 10, ForceAttemptHTTP2: true, TLSClientConfig: config},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return s.asks, nil
}

// trust is whom the store's certificate must be of.
func (s *Store) trust() (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if s.opts.CAFile == "" {
		return config, nil
	}
	var err error
	config.RootCAs, err = authority.Load(s.opts.CAFile)
	return config, err
}

// seal is what cursors are sealed with. All that have the credentials have the same one:
// it is a signature of theirs that nobody else is ever shown.
func (s *Store) seal(ctx context.Context) (cipher.AEAD, error) {
	secret, err := s.signer.sign(ctx, request{method: http.MethodGet, key: "securefiles-cursors", at: time.Unix(0, 0).UTC(), lifetime: time.Second})
	if err != nil {
		return nil, err
	}
	key := sha256.Sum256([]byte("cursors\x00" + secret))
	block, err := aes.NewCipher(key[:])
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// closed seals a token of a page below a prefix.
func closed(seal cipher.AEAD, token, prefix string) (string, error) {
	text := binary.BigEndian.AppendUint16(nil, uint16(len(token))) //nolint:gosec // at most maxToken
	text = append(text, token...)
	text = append(text, make([]byte, (cursorBlock-len(text)%cursorBlock)%cursorBlock)...)
	nonce := make([]byte, seal.NonceSize())
	if _, err := rand.Read(nonce); err != nil {
		return "", err
	}
	return base64.RawURLEncoding.EncodeToString(seal.Seal(nonce, nonce, text, []byte(prefix))), nil
}

// open opens what closed has made for the same prefix.
func open(seal cipher.AEAD, cursor, prefix string) (string, error) {
	text, err := base64.RawURLEncoding.DecodeString(cursor)
	if err != nil || len(text) < seal.NonceSize() {
		return "", ErrCursor
	}
	text, err = seal.Open(nil, text[:seal.NonceSize()], text[seal.NonceSize():], []byte(prefix))
	if err != nil || len(text) < 2 || int(binary.BigEndian.Uint16(text)) > len(text)-2 {
		return "", ErrCursor
	}
	return string(text[2 : 2+binary.BigEndian.Uint16(text)]), nil
}

// likeS3 is what S3 is asked for a page, and Google, which speaks the same there
// (Amazon S3, "ListObjectsV2"; Google, "List objects", list-type=2).
func likeS3(prefix, token string, most int) map[string]string {
	return map[string]string{"list-type": "2", "delimiter": "/", "encoding-type": "url", "prefix": prefix, "continuation-token": token, "max-keys": strconv.Itoa(most)}
}

func listedLikeS3(text []byte) (*listed, error) {
	var said struct {
		XMLName   xml.Name `xml:"ListBucketResult"`
		Encoding  string   `xml:"EncodingType"`
		Truncated *bool    `xml:"IsTruncated"`
		Token     string   `xml:"NextContinuationToken"`
		Contents  []struct {
			Key      string    `xml:"Key"`
			Size     *int64    `xml:"Size"`
			Modified time.Time `xml:"LastModified"`
		} `xml:"Contents"`
		Prefixes []struct {
			Prefix string `xml:"Prefix"`
		} `xml:"CommonPrefixes"`
	}
	if err := unmarshal(text, &said); err != nil {
		return nil, err
	}
	if said.Truncated == nil || *said.Truncated != (said.Token != "") {
		return nil, errors.New("it does not say whether there is more")
	}
	decode := func(key string) (string, error) { return key, nil }
	switch said.Encoding {
	case "":
	case "url":
		decode = url.QueryUnescape
	default:
		return nil, errors.New("its encoding is not known")
	}
	found := &listed{token: said.Token}
	for _, c := range said.Contents {
		key, err := decode(c.Key)
		if err != nil || c.Size == nil || *c.Size < 0 {
			return nil, errors.New("an object has no key or size")
		}
		found.objects = append(found.objects, object{name: key, size: *c.Size, changed: c.Modified})
	}
	for _, p := range said.Prefixes {
		prefix, err := decode(p.Prefix)
		if err != nil {
			return nil, errors.New("a prefix is none")
		}
		found.prefixes = append(found.prefixes, prefix)
	}
	return found, nil
}

// unmarshal reads one element of XML, and nothing behind it.
func unmarshal(text []byte, to any) error {
	d := xml.NewDecoder(bytes.NewReader(text))
	if err := d.Decode(to); err != nil {
		return fmt.Errorf("it cannot be read: %w", err)
	}
	for {
		token, err := d.Token()
		if err == io.EOF {
			return nil
		}
		if rest, ok := token.(xml.CharData); err != nil || !ok || len(bytes.TrimSpace(rest)) > 0 {
			return errors.New("something stands behind it")
		}
	}
}
