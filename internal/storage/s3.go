package storage

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
)

// S3 is a bucket of Amazon S3, or of a store that speaks its protocol: MinIO, R2, Ceph,
// and Google's by HMAC keys.
type S3 struct {
	Bucket string
	// Region is part of what is signed; empty means us-east-1.
	Region string
	// Endpoint is `https://HOST`, or with a port; empty means AWS's of the region.
	Endpoint string
	// Prefix begins each key: `files/`, or empty.
	Prefix string
	// Addressing is `host` for https://BUCKET.HOST/KEY, or `path` for
	// https://HOST/BUCKET/KEY; empty means host on AWS and path elsewhere.
	Addressing string
}

// NewS3 returns the store. Its errors are each an *OptionError.
func NewS3(b S3, opts *Options) (*Store, error) {
	if err := validBucket(b.Bucket); err != nil {
		return nil, err
	}
	if b.Endpoint == "" && b.Region == "" {
		return nil, &OptionError{"region", "it is needed on AWS, such as eu-central-1; elsewhere name the endpoint"}
	}
	b.Region = cmp.Or(b.Region, "us-east-1")
	if !hostForm.MatchString(b.Region) {
		return nil, &OptionError{"region", fmt.Sprintf("%q is not a region, such as eu-central-1", b.Region)}
	}
	if b.Endpoint == "" {
		b.Endpoint = "https://s3." + b.Region + ".amazonaws.com"
		if !strings.Contains(b.Bucket, ".") { // AWS's certificate is for one label
			b.Addressing = cmp.Or(b.Addressing, "host")
		}
	}
	e, err := parseHost(b.Endpoint, deref(opts).InsecureHTTP)
	if err != nil {
		return nil, err
	}
	base := "/" + b.Bucket + "/"
	switch b.Addressing {
	case "", "path":
	case "host":
		base, e.host = "/", b.Bucket+"."+e.host
		if !hostForm.MatchString(e.host) {
			return nil, &OptionError{"addressing", fmt.Sprintf("the bucket %q cannot be part of a host's name: write path", b.Bucket)}
		}
	default:
		return nil, &OptionError{"addressing", fmt.Sprintf("%q is neither host nor path", b.Addressing)}
	}
	own := deref(opts)
	signs := &s3{endpoint: e, base: base, region: b.Region, now: own.clock()}
	if own.CredentialsFile == "" && !signs.environ(own.Lookup) {
		if variable(own.Lookup, "AWS_WEB_IDENTITY_TOKEN_FILE") == "" { // the order of AWS's libraries
			own.CredentialsFile = variable(own.Lookup, "AWS_SHARED_CREDENTIALS_FILE")
		}
		if own.CredentialsFile == "" {
			signs.role = roleOf(own.Lookup, b.Region, awsHost.MatchString(e.host))
		}
	}
	made, err := newStore(signs, e, base, b.Prefix, &own)
	if err != nil {
		return nil, err
	}
	made.role = signs.role
	return made, nil
}

// awsHost is a host of AWS's own.
var awsHost = regexp.MustCompile(`\.amazonaws\.com(?:\.cn)?$`)

type s3 struct {
	endpoint    endpoint
	base        string
	region      string
	now         func() time.Time
	role        *role // see Store
	credentials atomic.Pointer[aws.Credentials]
	signer      atomic.Pointer[signerOf]
}

// A signerOf signs by one secret: AWS's signer keeps what it derives of a secret for a
// day by the key's id alone, and would go on with it after another secret of that id.
type signerOf struct {
	secret string
	v4     *v4.Signer
}

// read reads the format of ~/.aws/credentials: the section default, or the only one.
func (s *s3) read(text []byte) error {
	sections := map[string]map[string]string{}
	var section string
	lines := bufio.NewScanner(bytes.NewReader(text))
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		key, value, found := strings.Cut(line, "=")
		switch {
		case line == "" || line[0] == '#' || line[0] == ';':
		case line[0] == '[' && line[len(line)-1] == ']':
			section = strings.TrimSpace(line[1 : len(line)-1])
			sections[section] = map[string]string{}
		case !found || sections[section] == nil:
			return fmt.Errorf("line %d is neither [SECTION] nor KEY = VALUE in a section: write it like ~/.aws/credentials", n)
		default:
			sections[section][strings.ToLower(strings.TrimSpace(key))] = strings.TrimSpace(value)
		}
	}
	if err := lines.Err(); err != nil {
		return err
	}
	found := sections["default"]
	if found == nil && len(sections) == 1 {
		found = sections[section]
	}
	if found == nil {
		return errors.New("there is no section [default]: write one, as in ~/.aws/credentials")
	}
	return s.set(found["aws_access_key_id"], found["aws_secret_access_key"], found["aws_session_token"])
}

func (s *s3) variables() string { return "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY" }

func (s *s3) environ(lookup func(string) (string, bool)) bool {
	var found [3]string
	for i, name := range []string{"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"} {
		found[i] = variable(lookup, name)
	}
	return s.set(found[0], found[1], found[2]) == nil
}

func (s *s3) set(id, key, token string) error {
	if id == "" || key == "" {
		return errors.New("aws_access_key_id or aws_secret_access_key is missing or empty")
	}
	if strings.ContainsFunc(id+key+token, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
		return errors.New("a key or token holds a byte that none has")
	}
	s.credentials.Store(&aws.Credentials{AccessKeyID: id, SecretAccessKey: key, SessionToken: token})
	return nil
}

func (s *s3) sign(ctx context.Context, r request) (string, error) {
	credentials, err := s.credentials.Load(), error(nil)
	if s.role != nil {
		credentials, err = s.role.credentials(s.now())
	}
	if err != nil {
		return "", err
	}
	if credentials == nil {
		return "", errors.New("the credentials are not read yet")
	}
	asks := url.Values{"X-Amz-Expires": {strconv.Itoa(int(r.lifetime.Seconds()))}}
	if r.headers != nil {
		asks.Set("response-content-disposition", r.headers.disposition)
		asks.Set("response-cache-control", r.headers.cacheControl)
	}
	path := s.base + r.key
	if r.list != nil {
		path = bucketPath(s.base)
		for name, value := range r.list {
			if value != "" {
				asks.Set(name, value)
			}
		}
	}
	u := &url.URL{Scheme: s.endpoint.scheme, Host: s.endpoint.host, Path: path, RawPath: escape(path), RawQuery: asks.Encode()}
	asked := (&http.Request{Method: r.method, URL: u, Host: u.Host, Header: http.Header{}}).WithContext(ctx)
	signed, _, err := s.signing(credentials.SecretAccessKey).PresignHTTP(ctx, *credentials, asked, "UNSIGNED-PAYLOAD", "s3", s.region, r.at)
	if err != nil {
		return "", err
	}
	return strings.TrimPrefix(signed, s.endpoint.scheme+"://"+s.endpoint.host), nil
}

func (s *s3) signing(secret string) *v4.Signer {
	if last := s.signer.Load(); last != nil && last.secret == secret {
		return last.v4
	}
	made := v4.NewSigner(func(o *v4.SignerOptions) {
		o.DisableURIPathEscaping = true // S3 alone signs paths that are escaped once
	})
	s.signer.Store(&signerOf{secret, made})
	return made
}

func (*s3) listing(prefix, token string, most int) map[string]string {
	return likeS3(prefix, token, most)
}

func (*s3) listed(text []byte) (*listed, error) { return listedLikeS3(text) }
