package identity

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/json"
	"github.com/maypok86/otter/v2"

	"securefiles/authz"
)

// sourceJWT names the source in metrics.
const sourceJWT = "jwt"

const (
	// maxTokenBytes is what nginx passes on in one header line.
	maxTokenBytes = 8192
	defaultLeeway = 30 * time.Second
	minLeeway     = time.Millisecond
	maxLeeway     = 5 * time.Minute
	// lastSecond is the end of the year 9999. What is later was not meant as a
	// date.
	lastSecond = 253402300799
)

// JWTOptions say which tokens to accept, and what they say of their bearer.
type JWTOptions struct {
	// Audiences are what `aud` may name; one of them must be there.
	Audiences []string
	// Cookie is the cookie that holds the token. Empty means the
	// Authorization header (RFC 6750). Only one place is looked at.
	Cookie string
	// Header is the header that holds the token and nothing else, as gateways send
	// it: Cf-Access-Jwt-Assertion. Beside a Cookie it must be empty.
	Header string
	// SubjectClaim is the claim with the subject; empty means `sub`. A claim
	// in an object is reached by dots, `realm_access.roles`; a claim of the
	// whole name goes first. Where it is `email`, `email_verified` must be
	// true.
	SubjectClaim string
	// GroupsClaim is the claim with the groups, without the leading `@`: a
	// list of texts, or one text. Empty means that tokens give no groups. Of a
	// token without the claim, or with null or something else there, nobody can
	// tell the groups.
	GroupsClaim string
	// GroupsOptional says that a token without the claim, or with null there, has
	// no groups. It does not count for a token that says that its groups are
	// elsewhere.
	GroupsOptional bool
	// Leeway is by how much clocks may differ, at most five minutes. Zero
	// means 30 s; less means not at all.
	Leeway time.Duration
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// A JWT accepts signed tokens of one issuer (RFC 7519) in their compact form.
// It is safe for concurrent use.
//
// `iss`, `aud` and `exp` are required and checked; `nbf` and `iat` are checked
// where they are there. The algorithm must be in the keys' allow-list and fit
// the type of the key that the token's key id names. Keys that the token
// brings or points to (jwk, jku, x5c, x5u) are not used. Encrypted and nested
// tokens, and critical headers, are refused.
//
// A token that was accepted is remembered until it expires or the keys change;
// that an issuer has revoked it before is not noticed.
type JWT struct {
	keys      *Keys
	opts      JWTOptions
	challenge string
	secret    *secret
	// remembered maps the digest of a token, and of the generation of the keys
	// that it was checked with, to what it says.
	remembered *otter.Cache[digest, verified]
}

// verified is what a token says that was accepted.
type verified struct {
	principal authz.Principal
	until     time.Time
}

// problems says which options cannot be.
func (o *JWTOptions) problems() (p problems) {
	if len(o.Audiences) == 0 || slices.Contains(o.Audiences, "") {
		p.add("audience", "is missing: without it a token for any service of the issuer would do; list what aud must name")
	}
	if o.Leeway > maxLeeway || o.Leeway > 0 && o.Leeway < minLeeway {
		p.add("leeway", "%s is out of range: %s to %s", o.Leeway, minLeeway, maxLeeway)
	}
	if err := ValidCookieName(o.Cookie); o.Cookie != "" && err != nil {
		p.add("cookie", "%q %v", o.Cookie, err)
	}
	switch err := validHeaderName(o.Header); {
	case o.Header == "" || strings.EqualFold(o.Header, "X-Forwarded-Access-Token"):
	case o.Cookie != "":
		p.add("header", "a token is in a cookie or in a header: leave one of the two out")
	case err != nil:
		p.add("header", "%q %v", o.Header, strings.Replace(err.Error(), "X-Remote-User", "X-Access-Token; leave it out for Authorization: Bearer", 1))
	}
	return p
}

// NewJWT returns an error that joins an *OptionError for each option that cannot
// be.
func NewJWT(keys *Keys, opts JWTOptions) (*JWT, error) {
	if keys == nil {
		return nil, errors.New("there are no keys")
	}
	if err := opts.problems().err(); err != nil {
		return nil, err
	}
	j := &JWT{keys: keys, opts: opts, secret: newSecret()}
	j.opts.Header = http.CanonicalHeaderKey(opts.Header)
	if opts.Cookie == "" && opts.Header == "" {
		j.challenge = `Bearer realm="` + defaultRealm + `"`
	}
	if opts.SubjectClaim == "" {
		j.opts.SubjectClaim = "sub"
	}
	if opts.Leeway == 0 {
		j.opts.Leeway = defaultLeeway
	}
	j.opts.Leeway = max(0, j.opts.Leeway)
	if opts.Now == nil {
		j.opts.Now = time.Now
	}
	var err error
	j.remembered, err = otter.New(&otter.Options[digest, verified]{MaximumSize: maxRemembered})
	if err != nil {
		return nil, fmt.Errorf("make the cache of verified tokens: %w", err)
	}
	return j, nil
}

// NewJWTSource returns a source of tokens, with all that others need to know of
// it. Sources of one issuer share its keys, so that it is asked once for all: the
// earlier ones tell which there are.
func NewJWTSource(earlier Sources, issuer KeysOptions, opts JWTOptions) (*Source, error) {
	keys, err := NewKeys(issuer)
	if err = errors.Join(err, opts.problems().err()); err != nil {
		return nil, err
	}
	s := &Source{
		Name: sourceJWT, Place: "Authorization: Bearer, issuer " + issuer.Issuer, Reads: []string{"Authorization: Bearer"}, Rule: "jwks", keys: keys,
		Authority: "the issuer " + issuer.Issuer,
	}
	if opts.Cookie != "" {
		s.Place, s.Reads = "cookie "+opts.Cookie+", issuer "+issuer.Issuer, []string{"Cookie: " + opts.Cookie}
	}
	if opts.Header != "" {
		s.Place, s.Reads = opts.Header+", issuer "+issuer.Issuer, []string{http.CanonicalHeaderKey(opts.Header)}
		s.Headers = []RequestHeader{{Name: opts.Header, FromClient: true, option: "header"}}
		s.Notes = func() ([]Note, error) {
			return []Note{{Message: "tokens in " + opts.Header + " are believed whoever brings them: the gateway that makes them must be the only way to nginx, or a token that it has given out goes on past its logout and its rules"}}, nil
		}
	}
	if i := slices.IndexFunc(earlier, func(e *Source) bool { return e.keys != nil && e.keys.SameSource(keys) }); i >= 0 {
		s.keys = earlier[i].keys
	} else {
		s.Holds, s.Reload, s.State, s.Metrics = "keys", keys.Refresh, keys.state, keys.metrics()
		s.waiting, s.resize = maxWaitingForKeys, keys.resize
		if issuer.File != "" {
			s.Files = []string{issuer.File}
			s.Secret = slices.ContainsFunc(keys.opts.Algorithms, func(a string) bool { return slices.Contains(symmetricAlgorithms, a) })
		} else {
			s.Run = keys.Run
		}
	}
	token, err := NewJWT(s.keys, opts)
	if err != nil {
		return nil, err
	}
	s.Authenticator, s.Challenge = token, token.Challenge()
	return s, nil
}

// Challenge returns the WWW-Authenticate value that asks for a token, or "" if
// the token is expected in a cookie or a header of its own.
func (j *JWT) Challenge() string { return j.challenge }

// Format keeps what is remembered out of every %v, %+v and %#v.
func (j *JWT) Format(f fmt.State, _ rune) { fmt.Fprintf(f, "jwt of %s", j.keys.opts.Issuer) }

// Authenticate checks the token. No token is authz.ErrNoCredentials; one that
// came twice or is not accepted is an *authz.CredentialsError. An
// *authz.UnavailableError says that it could not be told, because the issuer
// cannot be asked for its keys, or because the token does not say which groups its
// bearer has. A subject that is missing, not verified or none that ValidSubject
// accepts, and such a group, are authz.ErrReservedSubject too.
func (j *JWT) Authenticate(ctx context.Context, q *authz.Question) (authz.Principal, error) {
	token, err := j.token(q.Header)
	if errors.Is(err, authz.ErrNoCredentials) {
		return authz.Principal{}, authz.ErrNoCredentials
	}
	if err != nil {
		return j.refuse(err)
	}
	set := j.keys.set.Load()
	if set != nil && j.keys.fresh() {
		if v, ok := j.remembered.GetIfPresent(j.digest(set.generation, token)); ok && j.opts.Now().Before(v.until) {
			return v.principal, nil
		}
	}
	v, generation, err := j.verify(ctx, token)
	var bad badCredentials
	if errors.As(err, &bad) || errors.As(err, new(tooLarge)) {
		return j.refuse(err)
	}
	var who *unfitError
	if errors.As(err, &who) {
		who.bad.Challenge = j.invalid()
		return authz.Principal{}, who
	}
	if errors.As(err, new(*authz.UnavailableError)) {
		return authz.Principal{}, err
	}
	if err != nil {
		return authz.Principal{}, &authz.UnavailableError{Source: sourceJWT, Err: err}
	}
	j.remembered.Set(j.digest(generation, token), v)
	return v.principal, nil
}

func (j *JWT) digest(generation uint64, token string) digest {
	return j.secret.digest(strconv.FormatUint(generation, 10), token)
}

func (j *JWT) refuse(err error) (authz.Principal, error) {
	bad := refused(sourceJWT, err)
	bad.Challenge = j.invalid()
	return authz.Principal{}, bad
}

// invalid is the WWW-Authenticate value for a token that is refused.
func (j *JWT) invalid() string {
	if j.challenge == "" {
		return ""
	}
	return j.challenge + `, error="invalid_token"`
}

// token returns the token of a request.
func (j *JWT) token(h http.Header) (string, error) {
	read, name := onlyValue, j.opts.Header
	if j.opts.Cookie != "" {
		read, name = onlyCookie, j.opts.Cookie
	}
	if name != "" {
		token, err := read(h, name)
		if err == nil && token == "" {
			err = authz.ErrNoCredentials
		}
		return token, err
	}
	value, err := onlyValue(h, "Authorization")
	if err != nil {
		return "", err
	}
	return schemeValue(value, "Bearer")
}

// verify checks all that a token must be. Its error is badCredentials or tooLarge, or says that
// it could not be told.
func (j *JWT) verify(ctx context.Context, token string) (verified, uint64, error) {
	algorithm, id, err := parseTokenHeader(token)
	if err != nil {
		return verified{}, 0, err
	}
	if !slices.Contains(j.keys.opts.Algorithms, algorithm) {
		return verified{}, 0, badCredentials("the token's algorithm is not allowed")
	}
	jws, err := jose.ParseSignedCompact(token, j.keys.algorithms)
	if err != nil {
		return verified{}, 0, badCredentials("the token is malformed") // err may quote it
	}
	key, generation, err := j.keys.find(ctx, id, algorithm)
	if err != nil {
		return verified{}, 0, err
	}
	payload, err := jws.Verify(key)
	if err != nil {
		return verified{}, 0, badCredentials("the signature is not one of the issuer's key")
	}
	v, err := j.accept(payload)
	return v, generation, err
}

// parseTokenHeader reads the part of a token that says how to check it. It
// looks for itself at what the library reads in another way, or not at all.
func parseTokenHeader(token string) (algorithm, id string, err error) {
	if len(token) > maxTokenBytes {
		return "", "", tooLarge("the token is longer than 8192 bytes")
	}
	if strings.ContainsFunc(token, func(r rune) bool { return !isBase64URL(r) && r != '.' }) {
		return "", "", badCredentials("the token holds what is not base64url")
	}
	switch strings.Count(token, ".") {
	case 2:
	case 4:
		return "", "", badCredentials("the token is encrypted (JWE): only signed ones are read")
	default:
		return "", "", badCredentials("the token is not of three parts")
	}
	// Strict: a token is written in one way, spare bits included.
	var text []byte
	for i, part := range strings.Split(token, ".") {
		decoded, err := base64.RawURLEncoding.Strict().DecodeString(part)
		if err != nil {
			return "", "", badCredentials("the token is not of three parts in base64url")
		}
		if i == 0 {
			text = decoded
		}
	}
	header, err := parseObject(text)
	if err != nil {
		return "", "", badCredentials("the token's header " + err.Error())
	}
	algorithm, ok := header["alg"].(string)
	if !ok {
		return "", "", badCredentials("the token names no algorithm")
	}
	if value, there := header["kid"]; there {
		if id, ok = value.(string); !ok || id == "" {
			return "", "", badCredentials("the token's key id is not a text")
		}
	}
	// Other kinds of token than those meant for a service (RFC 8725 section
	// 3.11) have types of their own: logout+jwt, secevent+jwt, dpop+jwt.
	if value, there := header["typ"]; there {
		typ, _ := value.(string)
		typ = strings.TrimPrefix(strings.ToLower(typ), "application/")
		if typ != "jwt" && typ != "at+jwt" {
			return "", "", badCredentials("the token is of another type (typ)")
		}
	}
	for _, name := range []string{"crit", "b64", "jwk", "enc", "zip"} {
		if _, there := header[name]; there {
			return "", "", badCredentials("the token's header has " + name + ", which is not accepted")
		}
	}
	if _, there := header["cty"]; there {
		return "", "", badCredentials("the token holds another (cty)")
	}
	return algorithm, id, nil
}

func isBase64URL(r rune) bool {
	return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || r == '-' || r == '_'
}

// parseObject reads a JSON object that no two readers can understand
// differently: in UTF-8, and without a name twice. Its error is a predicate.
func parseObject(text []byte) (map[string]any, error) {
	if !utf8.Valid(text) {
		return nil, errors.New("is not UTF-8")
	}
	var object map[string]any
	if err := json.Unmarshal(text, &object); err != nil || object == nil {
		return nil, errors.New("is not a JSON object without duplicates")
	}
	return object, nil
}

// accept reads what a token claims whose signature is right. Its error is
// badCredentials, says that the token does not tell the groups, or is
// authz.ErrReservedSubject: what a token names that nobody may be.
func (j *JWT) accept(payload []byte) (verified, error) {
	claims, err := parseObject(payload)
	if err != nil {
		return verified{}, badCredentials("what the token claims " + err.Error())
	}
	if issuer, _ := claims["iss"].(string); issuer != j.keys.opts.Issuer {
		return verified{}, badCredentials("the token is of another issuer (iss)")
	}
	if !j.isAudience(claims["aud"]) {
		return verified{}, badCredentials("the token is for another audience (aud)")
	}
	until, err := j.checkTimes(claims)
	if err != nil {
		return verified{}, err
	}
	subject, ok := claim(claims, j.opts.SubjectClaim).(string)
	if !ok {
		return verified{}, unfit(sourceJWT, errors.New("the claim for the subject is missing or no text"))
	}
	if claims["email_verified"] != true && j.opts.SubjectClaim == "email" {
		return verified{}, unfit(sourceJWT, errors.New("the issuer has not verified the email (email_verified)"))
	}
	if err := validClaim(subject, authz.ValidSubject); err != nil {
		return verified{}, unfit(sourceJWT, fmt.Errorf("the subject %w", err))
	}
	groups, err := j.groups(claims)
	if errors.As(err, new(*authz.UnavailableError)) {
		return verified{}, err
	}
	if err != nil {
		return verified{}, unfit(sourceJWT, err)
	}
	return verified{authz.Principal{Subject: subject, Groups: groups, Source: sourceJWT}, until}, nil
}

// isAudience reports whether `aud`, a text or a list of texts, names this
// service.
func (j *JWT) isAudience(aud any) bool {
	list, ok := aud.([]any)
	if !ok {
		list = []any{aud}
	}
	found := false
	for _, a := range list {
		name, ok := a.(string)
		if !ok {
			return false
		}
		found = found || slices.Contains(j.opts.Audiences, name)
	}
	return found
}

// checkTimes returns when the token ends, leeway included.
func (j *JWT) checkTimes(claims map[string]any) (time.Time, error) {
	now := j.opts.Now()
	expires, err := date(claims, "exp")
	switch {
	case err != nil:
		return time.Time{}, err
	case expires.IsZero():
		return time.Time{}, badCredentials("the token does not say when it expires (exp)")
	case !now.Before(expires.Add(j.opts.Leeway)):
		return time.Time{}, badCredentials("the token has expired")
	}
	for _, name := range []string{"nbf", "iat"} {
		from, err := date(claims, name)
		if err != nil {
			return time.Time{}, err
		}
		if from.After(now.Add(j.opts.Leeway)) {
			return time.Time{}, badCredentials("the token is not valid yet (" + name + ")")
		}
	}
	return expires.Add(j.opts.Leeway), nil
}

// date returns a NumericDate (RFC 7519 section 2), or the zero Time where the
// claim is not there.
func date(claims map[string]any, name string) (time.Time, error) {
	value, there := claims[name]
	if !there {
		return time.Time{}, nil
	}
	seconds, ok := value.(float64)
	if !ok || !(seconds >= 0 && seconds <= lastSecond) {
		return time.Time{}, badCredentials("the token's " + name + " is not a date in seconds")
	}
	whole, part := math.Modf(seconds)
	return time.Unix(int64(whole), int64(part*1e9)), nil
}

// claim returns the claim at a path, or nil.
func claim(claims map[string]any, path string) any {
	value, _ := lookUp(claims, path)
	return value
}

// lookUp returns what an object has at a path, `realm_access.roles`, and
// whether it has it. A name that holds the dots itself goes first.
func lookUp(object map[string]any, path string) (any, bool) {
	if value, there := object[path]; there {
		return value, true
	}
	name, rest, found := strings.Cut(path, ".")
	inner, ok := object[name].(map[string]any)
	if !found || !ok {
		return nil, false
	}
	return lookUp(inner, rest)
}

// groups returns the token's groups. The error quotes nothing.
func (j *JWT) groups(claims map[string]any) ([]string, error) {
	if j.opts.GroupsClaim == "" {
		return nil, nil
	}
	if form := overage(claims, j.opts.GroupsClaim); form != "" {
		return nil, &authz.UnavailableError{Source: sourceJWT, Err: fmt.Errorf("nobody can tell which groups the caller has: they are too many for the token, which says so by %s; "+
			"have the issuer put fewer into it (those of this application alone), or its roles into another claim", form)}
	}
	list := claim(claims, j.opts.GroupsClaim)
	switch value := list.(type) {
	case nil:
		if j.opts.GroupsOptional {
			return nil, nil
		}
		return nil, noGroups(sourceJWT, "the token has no claim "+j.opts.GroupsClaim+", or null there")
	case string:
		list = []any{value}
	}
	values, ok := list.([]any)
	if !ok {
		return nil, &authz.UnavailableError{Source: sourceJWT, Err: fmt.Errorf("nobody can tell which groups the caller has: the claim %s is neither a list nor a text", j.opts.GroupsClaim)}
	}
	names := make([]string, 0, len(values))
	for _, v := range values {
		name, ok := v.(string)
		if !ok {
			return nil, &authz.UnavailableError{Source: sourceJWT, Err: fmt.Errorf("nobody can tell which groups the caller has: one in the claim %s is no text", j.opts.GroupsClaim)}
		}
		if err := validClaim(name, authz.ValidGroup); err != nil {
			return nil, fmt.Errorf("a group %w", err)
		}
		names = append(names, name)
	}
	return groupNames(names)
}

// overage returns how a token says that the groups of a claim are not in it, or not
// all, or "". Issuers do so for who has more than fit into a token: by a distributed
// or aggregated claim (OpenID Connect Core 1.0, section 5.6.2), and Microsoft Entra
// by `hasgroups` and `groups:src1` too.
func overage(claims map[string]any, path string) string {
	name, _, _ := strings.Cut(path, ".")
	if elsewhere, there := claims["_claim_names"]; there {
		names, ok := elsewhere.(map[string]any)
		if !ok {
			return "_claim_names"
		}
		for _, n := range []string{path, name} {
			if _, there := names[n]; there {
				return "_claim_names"
			}
		}
	}
	for claim := range claims {
		if strings.HasPrefix(claim, path+":src") {
			return path + ":src"
		}
	}
	if has, there := claims["hasgroups"]; there && has != false && path == "groups" {
		return "hasgroups"
	}
	return ""
}

// validClaim refuses what valid does, and U+FFFD: the JSON reader puts it
// where half of a surrogate pair was, so it stands for many.
func validClaim(name string, valid func(string) error) error {
	if strings.ContainsRune(name, utf8.RuneError) {
		return errors.New("is not valid UTF-8")
	}
	return valid(name)
}
