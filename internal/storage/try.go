package storage

import (
	"context"
	"crypto/x509"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
)

// tried is the name of an object that hardly exists. Nobody is asked for the name of one
// that does.
const tried = "securefiles-check-online"

// maxSkew is by how much the store's clock may differ before something is said.
const maxSkew = 30 * time.Second

// A TryError says what is wrong between this machine and a store.
type TryError struct{ Problem, Remedy string }

func (e *TryError) Error() string { return e.Problem + ": " + e.Remedy }

// Try asks the store for an object that is hardly there, as a web server would, with the
// authorities of CAFile, if it is a file of this machine. Its error is a *TryError.
func (s *Store) Try(ctx context.Context) error {
	signed, err := s.signed(ctx, request{method: http.MethodGet, key: s.prefix + tried})
	if err != nil {
		return &TryError{Problem: err.Error(), Remedy: "mend the credentials"}
	}
	ask, err := http.NewRequestWithContext(ctx, http.MethodGet, s.endpoint.scheme+"://"+s.endpoint.host+signed, nil)
	if err != nil {
		return &TryError{Problem: "nothing can be asked", Remedy: "correct the endpoint"}
	}
	transport := &http.Transport{DisableKeepAlives: true}
	if config, err := s.trust(); err == nil {
		transport.TLSClientConfig = config
	}
	client := &http.Client{Transport: transport, Timeout: 10 * time.Second, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	asked := time.Now()
	resp, err := client.Do(ask)
	if err != nil {
		return s.unreachable(err)
	}
	defer resp.Body.Close()                                  //nolint:errcheck // only what it says counts
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 64<<10)) // what came of it
	var skew time.Duration
	if date, err := http.ParseTime(resp.Header.Get("Date")); err == nil {
		skew = date.Sub(asked).Round(time.Second)
	}
	return s.judge(resp.StatusCode, text, skew)
}

// unreachable says why a store does not answer. The URL, with its signature, is left out.
func (s *Store) unreachable(err error) error {
	var unknown x509.UnknownAuthorityError
	var name x509.HostnameError
	var op interface{ Unwrap() error }
	if errors.As(err, &op) {
		err = op.Unwrap()
	}
	at := s.endpoint.scheme + "://" + s.endpoint.host
	switch {
	case errors.As(err, &unknown):
		return &TryError{Problem: fmt.Sprintf("%s has a certificate of an authority that is not trusted", at), Remedy: "name a file with its authority in storage.ca_file"}
	case errors.As(err, &name):
		return &TryError{Problem: fmt.Sprintf("%s has a certificate for another name: %v", at, name), Remedy: "write the endpoint by a name of the certificate"}
	}
	return &TryError{Problem: fmt.Sprintf("%s does not answer: %v", at, err), Remedy: "correct the endpoint, or let this machine connect to it"}
}

// A storeError is what stores say.
type storeError struct {
	Code   string
	Region string
}

// judge says what an answer tells.
func (s *Store) judge(status int, text []byte, skew time.Duration) error {
	var said storeError
	if xml.Unmarshal(text, &said) != nil {
		said = storeError{}
	}
	bad := func(problem, remedy string) error {
		if said.Code != "" {
			problem += fmt.Sprintf(" (%d, %.64q)", status, said.Code)
		} else {
			problem += fmt.Sprintf(" (%d)", status)
		}
		return &TryError{Problem: problem, Remedy: remedy}
	}
	switch said.Code {
	case "NoSuchBucket", "ContainerNotFound":
		return bad("there is no such bucket or container", "correct its name, or the endpoint")
	case "InvalidAccessKeyId", "InvalidAccessKeyID", "XAdminUserNotFound": // the last one is versitygw's, with 404
		return bad("the store does not know the key", "write another one into the credentials")
	case "SignatureDoesNotMatch":
		return bad("the secret of the key is wrong, or a proxy changes what is asked", "correct it in the credentials")
	case "AuthenticationFailed":
		return bad(fmt.Sprintf("the key of the account is wrong, or the clocks differ (by %s)", skew), "write the account's key into the credentials, and set this machine's clock, by NTP")
	case "AuthorizationFailure":
		return bad("the key of the account is wrong, or the account does not let this network in", "write the account's key into the credentials, or let the network in")
	case "KeyBasedAuthenticationNotPermitted":
		return bad("the account permits no signatures by its key", "allow shared key access in the account's settings")
	case "ExpiredToken", "TokenRefreshRequired", "InvalidToken":
		return bad("the session of the credentials is over, or not known", "write new credentials")
	case "PermanentRedirect", "AuthorizationHeaderMalformed", "AuthorizationQueryParametersError", "IllegalLocationConstraintException", "TemporaryRedirect":
		remedy := "correct storage.s3.region and the endpoint"
		if said.Region != "" {
			remedy = fmt.Sprintf("write region: %.64q", said.Region)
		}
		return bad("the bucket is in another region", remedy)
	case "RequestTimeTooSkewed", "RequestExpired", "ExpiredRequest", "RequestNotYetValid":
		return bad(fmt.Sprintf("the clocks of this machine and of the store differ by %s", skew), "set this machine's clock, by NTP")
	}
	switch {
	case skew > lifetime/2 || skew < -15*time.Minute:
		return bad(fmt.Sprintf("the clock of the store is %s ahead of this machine's", skew), "set this machine's clock, by NTP")
	case status == http.StatusNotFound || status == http.StatusOK:
		if skew > maxSkew || skew < -maxSkew {
			return &TryError{Problem: fmt.Sprintf("the clock of the store is %s ahead of this machine's", skew), Remedy: "set this machine's clock, by NTP, before signatures are refused for it"}
		}
		return nil
	case status == http.StatusForbidden && said.Code == "AccessDenied":
		return &TryError{Problem: "the store refuses an object that is hardly there: it does so too where the key may read but not list", Remedy: "let it s3:ListBucket, and s3:GetObject below the prefix, and missing files are 404"}
	case status >= 300 && status < 400:
		return bad("the store sends elsewhere", "write the endpoint that it sends to, or the bucket's region")
	case status == http.StatusTooManyRequests || status >= 500:
		return bad("the store is in trouble", "try again")
	}
	return bad("the store refuses", "correct the credentials, or what they may do")
}
