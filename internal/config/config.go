// Package config reads securefiles.yaml: strictly, with every problem named by file,
// line, column and remedy.
//
// Load returns a Config that is complete and valid: defaults are filled in,
// environment variables applied, relative paths resolved against the file's
// directory. Only main imports this package; every other package takes what it
// needs as arguments.
//
// It knows the shape of the file, and ranges. What else a value must be stands in
// the constructor that needs it, whose error [Config.At] gives its place.
//
// config does not read the files that it names, and holds no secret.
package config

import (
	"crypto/sha256"
	"fmt"
	"time"

	"github.com/dustin/go-humanize"

	"securefiles/internal/strictyaml"
)

// Config is the whole configuration. A relative path in a field of path file
// starts from the configuration's directory. A field that needs a restart counts when
// the service starts; all others count once the file has changed.
type Config struct {
	// Listen is where nginx asks: `127.0.0.1:9180`, or `unix:/path` (mode 0660).
	Listen string `yaml:"listen" restart:"yes"`
	// ListenInsecure permits a Listen address that other hosts can reach.
	ListenInsecure bool `yaml:"listen_insecure" restart:"yes"`
	// ListenPeerUIDs, on a unix socket, are the users whose processes may
	// connect (SO_PEERCRED); empty means whoever the socket's mode lets in.
	ListenPeerUIDs []int `yaml:"listen_peer_uids" restart:"yes"`
	// ProxySecretFile holds a secret of at least 32 bytes that nginx sends as
	// X-Securefiles-Proxy-Secret; requests without it are refused.
	ProxySecretFile string `yaml:"proxy_secret_file" path:"file"`
	// Admin is where metrics and health are served.
	Admin string `yaml:"admin" restart:"yes"`
	// AdminInsecure permits an Admin address that other hosts can reach.
	AdminInsecure bool `yaml:"admin_insecure" restart:"yes"`
	// AdminTokenFile holds a token of at least 32 bytes that opens /explain
	// and /whoami on the admin listener; without one they do not exist.
	AdminTokenFile string `yaml:"admin_token_file" path:"file"`
	// ShutdownTimeout is how long requests in progress may take to end.
	ShutdownTimeout Duration `yaml:"shutdown_timeout" restart:"yes"`
	// ShutdownDelay is how long requests are still accepted after /readyz
	// has turned 503, so that whoever polls it can look away first.
	ShutdownDelay Duration `yaml:"shutdown_delay" restart:"yes"`

	// LoginURL is the page that browsers are sent to instead of 401: a path
	// of this site, or https://HOST/PATH; `{next}` in its query stands for the
	// address to return to.
	LoginURL string `yaml:"login_url"`

	// ProofSecretFile holds a secret of at least 32 bytes by which the service
	// proves to nginx that an answer is its own.
	ProofSecretFile string `yaml:"proof_secret_file" path:"file"`

	Nginx     Nginx      `yaml:"nginx"`
	Downloads []Download `yaml:"downloads"`
	Policy    Policy     `yaml:"policy"`
	Identity  []Identity `yaml:"identity"`
	Links     Links      `yaml:"links"`
	Listing   Listing    `yaml:"listing"`
	Limits    []Limit    `yaml:"limits"`
	Log       Log        `yaml:"log"`
	Audit     Audit      `yaml:"audit" restart:"yes"`
	State     State      `yaml:"state" restart:"yes"`

	// File is the file that was read; empty for the embedded defaults.
	File string `yaml:"-"`
	// Warnings are for the operator; none stops the service. What comes from the
	// environment has no line.
	Warnings []Warning `yaml:"-"`
	// Restart are the keys whose values in the file the running service has not, as
	// Continue found.
	Restart []Restart `yaml:"-"`

	doc *strictyaml.Document `yaml:"-"` // where values stand
	sum [sha256.Size]byte    `yaml:"-"` // of its text
}

// A Warning is about a value that works and is unsafe, or about a variable that names
// no key.
type Warning struct {
	Line    int // from 1; 0 where it stands in no file
	Message string
	Unknown bool // it is about a variable that names no key
	Listen  bool // it is about who else may answer nginx, which the service sees for itself
}

// Nginx is what `securefiles nginx` prints besides the rest.
type Nginx struct {
	// Service is where nginx finds each instance of the service, the second and
	// later ones for when the first does not answer. Left out: Listen.
	Service []string `yaml:"service"`
	// DeliveryLog is the file with what was delivered; AccessLog stands beside it
	// in each location: what the site's own access_log is.
	DeliveryLog string `yaml:"delivery_log" restart:"yes"`
	AccessLog   string `yaml:"access_log"`
	// OpenFileCache is how many files each worker of nginx keeps open, and looks after only
	// once a second, at most 1,000,000. Zero: what the server around it says.
	OpenFileCache int `yaml:"open_file_cache"`
	// ErrorPages are files that nginx serves in the place of its own, absolute, by
	// the status that they come with.
	ErrorPages map[int]string `yaml:"error_pages"`
}

// Download is one guarded URL prefix.
type Download struct {
	// Name matches [a-z][a-z0-9_]{0,31}.
	Name string `yaml:"name"`
	// URL and Internal begin and end with a slash.
	URL      string `yaml:"url"`
	Internal string `yaml:"internal"`
	// Front is the web server that serves the download: nginx, classic, apache, lighttpd or
	// caddy, as package frontend has them.
	Front string `yaml:"front"`
	// Root is the directory that nginx serves, absolute.
	Root string `yaml:"root"`
	// Storage is where objects are, in the place of Root.
	Storage *Storage `yaml:"storage"`
	// Deliver says how what is in Storage reaches the client: proxy, as an empty one is,
	// or redirect.
	Deliver string `yaml:"deliver"`
	// FollowSymlinks lets nginx follow symbolic links out of Root.
	FollowSymlinks bool `yaml:"insecure_follow_symlinks"`
	// Disposition is attachment or inline.
	Disposition string `yaml:"disposition"`
	// DenyStatus is 404 or 403.
	DenyStatus int `yaml:"deny_status"`
	// CacheControl, CSP and ReferrerPolicy are header values for what is served.
	// Without a CSP it goes by the kind of file.
	CacheControl   string `yaml:"cache_control"`
	CSP            string `yaml:"content_security_policy"`
	ReferrerPolicy string `yaml:"referrer_policy"`
	// Embed says whose pages may embed a file: same-origin, same-site or
	// cross-origin.
	Embed string `yaml:"embed"`
	// CORSOrigins are other origins whose pages may read files.
	CORSOrigins []string `yaml:"cors_origins"`
	// Compress lets nginx compress text, which then cannot be resumed.
	Compress bool `yaml:"compress"`
	// Listing shows directories, to whom list is allowed.
	Listing bool `yaml:"listing"`
	// Zip sends a directory that is shown as one file; nil does not.
	Zip *Zip `yaml:"zip"`
	// Names is a CSV file of public names and what is opened for them.
	Names string `yaml:"names" path:"file"`
}

// Zip bounds the archives of directories.
type Zip struct {
	// Entries is how many files and directories one may have, at most MaxZipEntries.
	Entries int `yaml:"entries"`
	// Bytes is how large its files may be together, `10GiB`.
	Bytes string `yaml:"bytes"`
}

// MaxZipEntries bounds Entries: so many are decided and recorded before the first byte.
const MaxZipEntries = 10_000

// Size is what Bytes says.
func (z *Zip) Size() (int64, error) {
	n, err := humanize.ParseBytes(z.Bytes)
	if err != nil || n == 0 || n > 1<<50 {
		return 0, fmt.Errorf("%q is no amount of bytes, such as 10GiB: as much as one archive may have", z.Bytes)
	}
	return int64(n), nil
}

// ByNGINX reports whether nginx serves the download, by what `securefiles nginx` prints: it
// tells what it sent, and holds to a rate. Other web servers do neither.
func (d *Download) ByNGINX() bool { return d.Front == DefaultFront || d.Front == "classic" }

// Unreported says by whom nobody is told what was sent, and no rate is held to; empty where
// nginx does both.
func (d *Download) Unreported() string {
	switch {
	case !d.ByNGINX():
		return "is behind front: " + d.Front
	case d.Deliver == "redirect":
		return "sends clients to its store (deliver: redirect)"
	}
	return ""
}

// Storage is a store of objects; exactly one of the fields of kind store is set.
type Storage struct {
	S3    *S3    `yaml:"s3" kind:"store"`
	Azure *Azure `yaml:"azure" kind:"store"`
	GCS   *GCS   `yaml:"gcs" kind:"store"`
	// CAFile holds the authorities that may have signed the store's certificate, as nginx
	// finds it.
	CAFile string `yaml:"ca_file"`
	// Resolver are the DNS servers that nginx asks for the store's address, again and
	// again. Left out: once, when it starts.
	Resolver []string `yaml:"resolver"`
	// InsecureHTTP permits a store without TLS on another host.
	InsecureHTTP bool `yaml:"insecure_http"`
}

// S3 is a bucket; what its values mean, package storage says.
type S3 struct {
	Bucket     string `yaml:"bucket"`
	Region     string `yaml:"region"`
	Endpoint   string `yaml:"endpoint"`
	Prefix     string `yaml:"prefix"`
	Addressing string `yaml:"addressing"`
	// CredentialsFile has the format of ~/.aws/credentials; empty means the environment,
	// or a role of AWS.
	CredentialsFile string `yaml:"credentials_file" path:"file"`
}

// Azure is a container of Azure Blob Storage; what its values mean, package storage says.
type Azure struct {
	Account   string `yaml:"account"`
	Container string `yaml:"container"`
	Endpoint  string `yaml:"endpoint"`
	Prefix    string `yaml:"prefix"`
	// CredentialsFile holds the account's key; empty means the environment.
	CredentialsFile string `yaml:"credentials_file" path:"file"`
}

// GCS is a bucket of Google Cloud Storage; what its values mean, package storage says.
type GCS struct {
	Bucket   string `yaml:"bucket"`
	Endpoint string `yaml:"endpoint"`
	Prefix   string `yaml:"prefix"`
	// CredentialsFile is the JSON file of a service account's key; empty means the one
	// that the environment names.
	CredentialsFile string `yaml:"credentials_file" path:"file"`
}

// Policy names the Casbin files.
type Policy struct {
	// Model is empty for the embedded default.
	Model string `yaml:"model" path:"file"`
	File  string `yaml:"file" path:"file"`
	// AllowShrink accepts a version that is empty or has lost over half of
	// its lines.
	AllowShrink bool `yaml:"allow_shrink"`
	// Timezone is the IANA name of the zone in which the days of the policy are;
	// empty means UTC.
	Timezone string `yaml:"timezone"`
	// RoleDepth is how many roles deep a chain is followed; Casbin's is 10.
	RoleDepth int `yaml:"role_depth"`
	// DecisionTimeout is how long a decision may take before it is given up.
	DecisionTimeout Duration `yaml:"decision_timeout"`
	// ShadowShare is the share of decisions, from 0 to 1, that stock Casbin
	// makes again in the background.
	ShadowShare float64 `yaml:"shadow_share"`
}

// Identity is one source; exactly one of the fields of kind source is set.
type Identity struct {
	// Groups is required (as is an empty one) or optional: what it means that
	// groups which are configured are missing.
	Groups string `yaml:"groups"`
	// Prefix stands in policies before each user and group of the source.
	Prefix string `yaml:"prefix"`

	Header       string `yaml:"header" kind:"source"`
	GroupsHeader string `yaml:"groups_header"`
	// NginxValue and NginxGroupsValue are the nginx variables that the
	// printed snippet puts into the two headers.
	NginxValue       string `yaml:"nginx_value"`
	NginxGroupsValue string `yaml:"nginx_groups_value"`

	Htpasswd string `yaml:"htpasswd" path:"file" kind:"source"`
	// Realm is what a browser's password prompt shows.
	Realm string `yaml:"realm"`
	// Remember is how long a verified password is not verified again.
	Remember Duration `yaml:"remember"`

	JWT *JWT `yaml:"jwt" kind:"source"`

	Certificate *Certificate `yaml:"certificate" kind:"source"`

	// Session asks an application.
	Session *Session `yaml:"session" kind:"source"`
}

// Certificate is a source of TLS client certificates that nginx has verified.
type Certificate struct {
	// Subject is cn, dn, email, dns or uri.
	Subject string `yaml:"subject"`
	// Groups is ou, or empty for none.
	Groups string `yaml:"groups"`
}

// JWT is a source of signed tokens. What is left out has the defaults of
// package identity.
type JWT struct {
	// Issuer is `iss`, and where discovery starts if neither JWKSURL nor
	// JWKSFile is set.
	Issuer   string `yaml:"issuer"`
	JWKSURL  string `yaml:"jwks_url"`
	JWKSFile string `yaml:"jwks_file" path:"file"`
	// InsecureHTTP permits keys to come over http from another host.
	InsecureHTTP bool `yaml:"insecure_http"`
	// Audience lists what `aud` may name.
	Audience []string `yaml:"audience"`
	// Algorithms is the allow-list; all asymmetric or all symmetric.
	Algorithms []string `yaml:"algorithms"`
	// Cookie holds the token; empty means the Authorization header.
	Cookie string `yaml:"cookie"`
	// Header holds the token and nothing else.
	Header string `yaml:"header"`
	// SubjectClaim and GroupsClaim are paths (`realm_access.roles`).
	SubjectClaim string   `yaml:"subject_claim"`
	GroupsClaim  string   `yaml:"groups_claim"`
	Leeway       Duration `yaml:"leeway"`
	// Refresh is how often keys are asked for; Timeout bounds each time. MaxStale is how
	// long the last good ones serve while the issuer cannot be asked.
	Refresh  Duration `yaml:"refresh"`
	MaxStale Duration `yaml:"max_stale"`
	Timeout  Duration `yaml:"timeout"`
}

// Links are links to files, for people without an account. Without keys there are none.
type Links struct {
	// KeysFile is a JWK set (RFC 7517): what links are signed with.
	KeysFile string `yaml:"keys_file" path:"file"`
	// MaxTTL is how long a link may last.
	MaxTTL Duration `yaml:"max_ttl"`
	// Site is where people find the downloads, `https://files.example.org`: what the
	// links that are made begin with.
	Site string `yaml:"site"`
	// Template is an html/template: what the pages of links look like.
	Template string `yaml:"template" path:"file"`
	// API lets callers make, list and end links by HTTP, at /_securefiles/links. It needs
	// State.File.
	API bool `yaml:"api"`
}

// Listing is how the directories of all downloads are shown.
type Listing struct {
	// Template is an html/template: what a page looks like.
	Template string `yaml:"template" path:"file"`
}

// State is where that is kept which limits and links count.
type State struct {
	// File is a file of the service's own. Without one, what limits count is forgotten
	// when the service ends, and no link is counted, revoked, or has a password.
	File string `yaml:"file" path:"state"`
	// Redis is a Redis or Valkey that several instances count in, in its place.
	Redis *Redis `yaml:"redis"`
	// Fail says what limits do while Redis is away: closed or local.
	Fail string `yaml:"fail"`
}

// Keeps reports whether anything is kept when the service ends.
func (s *State) Keeps() bool { return s.File != "" || s.Redis != nil }

// Redis says where a Redis or Valkey is, and what it is trusted with.
type Redis struct {
	// Address is `unix:/path` or `host:port`; several are nodes of a Cluster, or the
	// Sentinels that know who the master of the name SentinelMaster is.
	Address        []string `yaml:"address"`
	SentinelMaster string   `yaml:"sentinel_master"`
	Username       string   `yaml:"username"`
	PasswordFile   string   `yaml:"password_file" path:"file"`
	// TLS asks for it; CAFile holds the certificates that vouch for the server, in the
	// place of the machine's.
	TLS    bool   `yaml:"tls"`
	CAFile string `yaml:"ca_file" path:"file"`
	// Prefix begins each key.
	Prefix string `yaml:"prefix"`
	// Replicas is how many have what a counted link was used for before it is answered.
	Replicas int `yaml:"replicas"`
}

// Limit bounds what anybody takes; what its values mean, package limit says.
type Limit struct {
	Name string   `yaml:"name"`
	Of   []string `yaml:"of"`
	Per  string   `yaml:"per"`
	// Requests, Bytes and Rate are amounts: `100/1m`, `10GiB/24h`, `2MiB/s`. Downloads
	// is how many at a time.
	Requests  string `yaml:"requests"`
	Downloads int    `yaml:"downloads"`
	Bytes     string `yaml:"bytes"`
	Rate      string `yaml:"rate"`
	// Mode is enforce or observe.
	Mode string `yaml:"mode"`
	// IPv6 is how many bits of an IPv6 address tell one client from another.
	IPv6 int `yaml:"ipv6"`
}

// Log says how the service logs to standard error.
type Log struct {
	// Format is text or json.
	Format string `yaml:"format" restart:"yes"`
	// Level is debug, info, warn or error.
	Level string `yaml:"level"`
}

// AuditStdout is the value of Audit.File that is standard output.
const AuditStdout = "stdout"

// Audit says where the record of decisions and deliveries is kept. Without a File
// there is none.
type Audit struct {
	// File is a path, or AuditStdout.
	File string `yaml:"file" path:"file or stdout"`
	// Durability is write, or fsync: what an answer waits for.
	Durability string `yaml:"durability"`
	// Wait is how long nginx may take to tell, in Nginx.DeliveryLog, what came of an
	// allowed request.
	Wait Duration `yaml:"wait"`
	// Chain chains the records by hash; nil does not.
	Chain *AuditChain `yaml:"chain"`
	// Privacy says what of a person is written, and for how long it is kept.
	Privacy AuditPrivacy `yaml:"privacy"`
	// Syslog and Postgres are where the records of File are sent too; nil is nowhere.
	Syslog   *AuditSyslog   `yaml:"syslog"`
	Postgres *AuditPostgres `yaml:"postgres"`
}

// AuditSyslog is a syslog server.
type AuditSyslog struct {
	// URL is unix:///PATH, tcp://HOST:PORT or tls://HOST:PORT.
	URL string `yaml:"url"`
	// CAFile holds the authorities that may have signed the certificate of a tls://
	// server, PEM; empty means those of the system.
	CAFile string `yaml:"ca_file" path:"file"`
}

// AuditPostgres is a PostgreSQL database.
type AuditPostgres struct {
	// URLFile holds the URL, with the password.
	URLFile string `yaml:"url_file" path:"file"`
}

// AuditChain is a chain of records, and its signed checkpoints.
type AuditChain struct {
	// KeyFile holds the key that signs checkpoints, as `securefiles audit key` makes it.
	KeyFile string `yaml:"key_file" path:"file"`
	// Every is how often there is a checkpoint, while there are records.
	Every Duration `yaml:"every"`
}

// AuditPrivacy says what of a person is written, and for how long it is kept.
type AuditPrivacy struct {
	// Addresses is full, short or none.
	Addresses string `yaml:"addresses"`
	// Subjects is plain, or keyed: replaced by a hash by the secret in KeyFile.
	Subjects string `yaml:"subjects"`
	KeyFile  string `yaml:"key_file" path:"file"`
	// Omit are members of records that are left out.
	Omit []string `yaml:"omit"`
	// Erasable seals what tells of a subject by a key of its own in the file Keys, so that
	// `securefiles audit erase` can destroy it. Keys without it opens what was sealed.
	Erasable bool   `yaml:"erasable"`
	Keys     string `yaml:"keys" path:"store"`
	// Retention is for how long rotated files are kept; zero is for ever.
	Retention Duration `yaml:"retention"`
}

// A Duration is a time.Duration written as `10s` or `1m30s`, or in days, `90d`.
type Duration time.Duration

// UnmarshalYAML parses the text form; its error knows the place.
func (d *Duration) UnmarshalYAML(node strictyaml.Node) error {
	v, err := parseDuration(strictyaml.Text(node))
	if err != nil {
		line, column := strictyaml.Position(node)
		return &Error{Line: line, Column: column, Message: err.Error()}
	}
	*d = v
	return nil
}

// Default values of what a download leaves out.
const (
	DefaultCacheControl   = "private, no-store"
	DefaultReferrerPolicy = "no-referrer"
	DefaultEmbed          = "same-origin"
	// DefaultCAFile is where Debian and Alpine keep the authorities that browsers know.
	DefaultCAFile = "/etc/ssl/certs/ca-certificates.crt"
	DefaultFront  = "nginx"
)

// Default returns the configuration of a service that was given none: one
// download, policy.csv in the working directory, loopback.
func Default() *Config {
	c := &Config{Policy: Policy{File: "policy.csv"}}
	c.fill()
	return c
}

// fill sets what was left out.
func (c *Config) fill() {
	def := func(s *string, value string) {
		if *s == "" {
			*s = value
		}
	}
	def(&c.Listen, "127.0.0.1:9180")
	def(&c.Admin, "127.0.0.1:9181")
	def(&c.Log.Format, "text")
	def(&c.Log.Level, "info")
	def(&c.Policy.File, "policy.csv")
	if r := c.State.Redis; r != nil {
		def(&r.Prefix, "securefiles:")
		def(&c.State.Fail, "closed")
	}
	if c.Audit.File != "" {
		def(&c.Audit.Durability, "write")
		def(&c.Audit.Privacy.Addresses, "full")
		def(&c.Audit.Privacy.Subjects, "plain")
		if c.Audit.Wait == 0 {
			c.Audit.Wait = Duration(24 * time.Hour)
		}
		if chain := c.Audit.Chain; chain != nil && chain.Every == 0 {
			chain.Every = Duration(time.Minute)
		}
	}
	if c.Policy.RoleDepth == 0 {
		c.Policy.RoleDepth = 10
	}
	if c.Policy.DecisionTimeout == 0 {
		c.Policy.DecisionTimeout = Duration(200 * time.Millisecond)
	}
	if c.Links.MaxTTL == 0 {
		c.Links.MaxTTL = Duration(7 * 24 * time.Hour)
	}
	if c.ShutdownTimeout == 0 {
		c.ShutdownTimeout = Duration(10 * time.Second)
	}
	if c.ShutdownDelay == 0 {
		c.ShutdownDelay = Duration(time.Second)
	}
	if len(c.Downloads) == 0 {
		c.Downloads = []Download{{Name: "main", URL: "/downloads/", Internal: "/protected/", Root: "/var/www/securefiles"}}
	}
	for i := range c.Limits {
		def(&c.Limits[i].Mode, "enforce")
	}
	for i := range c.Downloads {
		d := &c.Downloads[i]
		def(&d.Disposition, "attachment")
		def(&d.CacheControl, DefaultCacheControl)
		def(&d.ReferrerPolicy, DefaultReferrerPolicy)
		def(&d.Embed, DefaultEmbed)
		if d.Storage != nil {
			def(&d.Storage.CAFile, DefaultCAFile)
		}
		def(&d.Front, DefaultFront)
		if d.DenyStatus == 0 {
			d.DenyStatus = 404
		}
	}
}
