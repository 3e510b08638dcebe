package storage

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials/ec2rolecreds"
	"github.com/aws/aws-sdk-go-v2/credentials/endpointcreds"
	"github.com/aws/aws-sdk-go-v2/credentials/stscreds"
	"github.com/aws/aws-sdk-go-v2/feature/ec2/imds"
	"github.com/aws/aws-sdk-go-v2/service/sts"

	"securefiles/internal/loopback"
	"securefiles/internal/regular"
)

const (
	// askRole is how long the attempts to get a role's credentials may take together, and
	// askOnce each of them.
	askRole, askOnce = 10 * time.Second, 3 * time.Second
	// firstRetry is how long after an attempt that failed the next one is made; after
	// each twice as long, up to lastRetry.
	firstRetry, lastRetry = time.Second, 30 * time.Second
	// renewAhead is how long before their end credentials are renewed, as AWS has new
	// ones five minutes before; such that live for less, when half of that is over.
	renewAhead = 5 * time.Minute
)

// A role is what gives credentials that end by themselves. It is safe for concurrent use.
type role struct {
	name  string // for people
	unset string // what else was looked for, for people
	gives aws.CredentialsProvider
	tried chan struct{} // that there was an attempt, for run

	mu    sync.Mutex
	given *aws.Credentials // last; nil is none yet
	err   error            // of the last attempt
}

func newRole(name string, gives aws.CredentialsProvider) *role {
	return &role{name: name, gives: gives, tried: make(chan struct{}, 1)}
}

// unset says what was looked for before the instance's role.
const unset = " (the environment has neither AWS_ACCESS_KEY_ID with AWS_SECRET_ACCESS_KEY, nor AWS_WEB_IDENTITY_TOKEN_FILE, AWS_SHARED_CREDENTIALS_FILE or AWS_CONTAINER_CREDENTIALS_RELATIVE_URI or _FULL_URI)"

// roleOf returns the role that the environment names, in the order of AWS's libraries, or
// on AWS that of the instance; nil where there is none. It asks nobody.
func roleOf(lookup func(string) (string, bool), region string, onAWS bool) *role {
	get := func(name string) string { return variable(lookup, name) }
	direct := &http.Client{ // no proxy has what is on this machine
		Timeout:       askOnce,
		Transport:     &http.Transport{Proxy: nil, MaxIdleConns: 1, IdleConnTimeout: 10 * time.Second},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	switch token, relative, full := get("AWS_WEB_IDENTITY_TOKEN_FILE"), get("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"), get("AWS_CONTAINER_CREDENTIALS_FULL_URI"); {
	case token != "":
		of := sts.Options{Region: cmp.Or(get("AWS_REGION"), get("AWS_DEFAULT_REGION"), region), HTTPClient: &http.Client{Timeout: askOnce}}
		if endpoint := cmp.Or(get("AWS_ENDPOINT_URL_STS"), get("AWS_ENDPOINT_URL")); endpoint != "" {
			of.BaseEndpoint = &endpoint
		}
		arn := get("AWS_ROLE_ARN")
		return newRole(fmt.Sprintf("the role %s, by the token in %s", arn, token), stscreds.NewWebIdentityRoleProvider(sts.New(of), arn, tokenFile(token), func(o *stscreds.WebIdentityRoleOptions) {
			o.RoleSessionName = cmp.Or(get("AWS_ROLE_SESSION_NAME"), "securefiles")
		}))
	case relative != "" || full != "":
		endpoint := full
		if relative != "" {
			endpoint = "http://169.254.170.2" + relative
		}
		name := "the role of this container, by " + hostOf(endpoint)
		if err := local(endpoint); err != nil {
			return newRole(name, refusing{err})
		}
		return newRole(name, endpointcreds.New(endpoint, func(o *endpointcreds.Options) {
			o.HTTPClient, o.AuthorizationToken = asker{direct}, get("AWS_CONTAINER_AUTHORIZATION_TOKEN")
			if file := get("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"); file != "" {
				o.AuthorizationTokenProvider = tokenFile(file)
			}
		}))
	}
	endpoint := get("AWS_EC2_METADATA_SERVICE_ENDPOINT")
	if strings.EqualFold(get("AWS_EC2_METADATA_DISABLED"), "true") || !onAWS && endpoint == "" {
		return nil
	}
	endpoint = cmp.Or(endpoint, "http://169.254.169.254")
	client := imds.New(imds.Options{Endpoint: endpoint, HTTPClient: direct, EnableFallback: aws.FalseTernary, ClientEnableState: imds.ClientEnabled})
	of := newRole("the role of this instance, by "+endpoint, ec2rolecreds.New(func(o *ec2rolecreds.Options) { o.Client = client }))
	of.unset = unset
	return of
}

// renew gets new credentials, and tells whether they are others than before. After an
// error the last ones stay.
func (r *role) renew(ctx context.Context) (news bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, askRole)
	defer cancel()
	got, err := r.gives.Retrieve(ctx)
	if err == nil && !got.HasKeys() {
		err = errors.New("no key is in the answer")
	}
	if err != nil {
		err = fmt.Errorf("get credentials of %s: %w%s", r.name, err, r.unset)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	select {
	case r.tried <- struct{}{}:
	default: // that is known
	}
	if r.err = err; err != nil {
		return false, err
	}
	news = r.given == nil || r.given.AccessKeyID != got.AccessKeyID || r.given.SessionToken != got.SessionToken
	r.given = &got
	return news, nil
}

// credentials returns what was given last, if it has not ended.
func (r *role) credentials(now time.Time) (*aws.Credentials, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.given == nil && r.err == nil:
		return nil, fmt.Errorf("there are no credentials of %s yet", r.name)
	case r.given == nil:
		return nil, r.err
	case r.given.CanExpire && !now.Before(r.given.Expires):
		return nil, fmt.Errorf("the credentials of %s have ended: %w", r.name, cmp.Or(r.err, errors.New("there are no others")))
	}
	return r.given, nil
}

// pause is how long from now to wait before they are renewed, unless the last attempt
// failed.
func (r *role) pause(now time.Time) (wait time.Duration, failed bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err != nil || r.given == nil {
		return 0, true
	}
	if !r.given.CanExpire {
		return renewAhead, false
	}
	left := r.given.Expires.Sub(now)
	return max(left/2, left-renewAhead, firstRetry), false
}

// variable is the value of one of the environment; empty where it is not set.
func variable(lookup func(string) (string, bool), name string) string {
	if lookup != nil {
		if value, ok := lookup(name); ok {
			return value
		}
	}
	return ""
}

// local refuses where no container is given its credentials: whoever is there would get
// the container's token, or give us keys of theirs.
func local(endpoint string) error {
	u, err := url.Parse(endpoint)
	if err != nil || u.Host == "" {
		return errors.New("AWS_CONTAINER_CREDENTIALS_FULL_URI is no URL")
	}
	host, _ := netip.ParseAddr(u.Hostname()) // else the zero address, which is none of these
	for _, known := range []string{"169.254.170.2", "169.254.170.23", "fd00:ec2::23"} {
		if host == netip.MustParseAddr(known) {
			return nil
		}
	}
	if u.Scheme == "https" || u.Scheme == "http" && loopback.IsAddress(u.Hostname()) {
		return nil
	}
	return fmt.Errorf("AWS_CONTAINER_CREDENTIALS_FULL_URI is %q: by http only this machine and the addresses of ECS and EKS are asked", hostOf(endpoint))
}

// hostOf is an endpoint as it may be logged: on ECS, whoever knows the path gets the
// credentials of the container that it was made for.
func hostOf(endpoint string) string {
	u, err := url.Parse(endpoint)
	if err != nil {
		return "what is no URL"
	}
	return (&url.URL{Scheme: u.Scheme, Host: u.Host}).String()
}

// An asker is a client whose errors can be logged.
type asker struct{ *http.Client }

// Do is http.Client's.
func (a asker) Do(r *http.Request) (*http.Response, error) {
	resp, err := a.Client.Do(r)
	var told *url.Error
	if errors.As(err, &told) {
		told.URL = hostOf(told.URL)
	}
	return resp, err
}

// refusing is what gives no credentials.
type refusing struct{ error }

func (r refusing) Retrieve(context.Context) (aws.Credentials, error) {
	return aws.Credentials{}, r.error
}

// A tokenFile holds a token of one line, which whoever runs the container renews.
type tokenFile string

// GetIdentityToken is stscreds.IdentityTokenRetriever's.
func (f tokenFile) GetIdentityToken() ([]byte, error) {
	text, err := regular.Read(string(f), maxCredentials)
	if err != nil {
		return nil, err
	}
	return bytes.TrimSpace(text), nil
}

// GetToken is endpointcreds.AuthTokenProvider's.
func (f tokenFile) GetToken() (string, error) {
	text, err := f.GetIdentityToken()
	return string(text), err
}
