package storage

import (
	"cmp"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"maps"
	"strconv"
	"strings"
	"sync/atomic"
)

// GCS is a bucket of Google Cloud Storage, by the key of a service account. By HMAC keys
// it is an [S3].
type GCS struct {
	Bucket string
	// Endpoint is `https://HOST`; empty means https://storage.googleapis.com.
	Endpoint string
	// Prefix begins each name: `files/`, or empty.
	Prefix string
}

// NewGCS returns the store. Without a file of credentials, the one that
// GOOGLE_APPLICATION_CREDENTIALS names counts. Its errors are each an *OptionError.
func NewGCS(b GCS, opts *Options) (*Store, error) {
	if err := validBucket(b.Bucket); err != nil {
		return nil, err
	}
	own := deref(opts)
	if lookup := own.Lookup; own.CredentialsFile == "" && lookup != nil {
		own.CredentialsFile, _ = lookup("GOOGLE_APPLICATION_CREDENTIALS")
	}
	e, err := parseHost(cmp.Or(b.Endpoint, "https://storage.googleapis.com"), own.InsecureHTTP)
	if err != nil {
		return nil, err
	}
	base := "/" + b.Bucket + "/"
	return newStore(&gcs{endpoint: e, base: base}, e, base, b.Prefix, &own)
}

type gcs struct {
	endpoint endpoint
	base     string
	account  atomic.Pointer[serviceAccount]
}

type serviceAccount struct {
	email string
	key   *rsa.PrivateKey
}

// read reads the JSON file of a service account.
func (g *gcs) read(text []byte) error {
	var file struct {
		Email string `json:"client_email"`
		Key   string `json:"private_key"`
	}
	bad := errors.New("it is not the JSON file of a service account: make a key of one, and write its file here")
	if json.Unmarshal(text, &file) != nil || file.Email == "" {
		return bad
	}
	block, _ := pem.Decode([]byte(file.Key))
	if block == nil {
		return bad
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	key, ok := parsed.(*rsa.PrivateKey)
	if err != nil || !ok {
		return errors.New("private_key is no RSA key in PKCS #8 form")
	}
	g.account.Store(&serviceAccount{file.Email, key})
	return nil
}

func (g *gcs) variables() string { return "GOOGLE_APPLICATION_CREDENTIALS" }

// environ finds none: the environment names a file.
func (g *gcs) environ(func(string) (string, bool)) bool { return false }

// sign makes a signature of version 4 (Google, "V4 signing process with your own program").
func (g *gcs) sign(_ context.Context, r request) (string, error) {
	account := g.account.Load()
	if account == nil {
		return "", errors.New("the credentials are not read yet")
	}
	const algorithm = "GOOG4-RSA-SHA256"
	at := r.at.Format("20060102T150405Z")
	scope := at[:8] + "/auto/storage/goog4_request"
	asks := map[string]string{
		"X-Goog-Algorithm": algorithm, "X-Goog-Credential": account.email + "/" + scope, "X-Goog-Date": at,
		"X-Goog-Expires": strconv.Itoa(int(r.lifetime.Seconds())), "X-Goog-SignedHeaders": "host",
	}
	if r.headers != nil {
		asks["response-content-disposition"], asks["response-cache-control"] = r.headers.disposition, r.headers.cacheControl
	}
	host, _, _ := strings.Cut(g.endpoint.host, ":") // Google signs no port
	path := escape(g.base + r.key)
	if r.list != nil {
		path = bucketPath(g.base)
		maps.Copy(asks, r.list)
	}
	asked := query(asks)
	canonical := sha256.Sum256([]byte(strings.Join([]string{r.method, path, asked, "host:" + host + "\n", "host", "UNSIGNED-PAYLOAD"}, "\n")))
	digest := sha256.Sum256([]byte(strings.Join([]string{algorithm, at, scope, hex.EncodeToString(canonical[:])}, "\n")))
	signature, err := rsa.SignPKCS1v15(rand.Reader, account.key, crypto.SHA256, digest[:])
	if err != nil {
		return "", err
	}
	return path + "?" + asked + "&X-Goog-Signature=" + hex.EncodeToString(signature), nil
}

func (*gcs) listing(prefix, token string, most int) map[string]string {
	return likeS3(prefix, token, most)
}

func (*gcs) listed(text []byte) (*listed, error) { return listedLikeS3(text) }
