package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"securefiles/authz"
	"securefiles/internal/access"
	"securefiles/internal/audit"
	"securefiles/internal/config"
	"securefiles/internal/exposure"
	"securefiles/internal/identity"
	"securefiles/internal/limit"
	"securefiles/internal/link"
	"securefiles/internal/names"
	"securefiles/internal/nginx"
	"securefiles/internal/page"
	"securefiles/internal/secret"
	"securefiles/internal/storage"
	"securefiles/policy"
)

// The Parts are what a configuration is made into, in the order of a request, but
// for what counts and what listens.
type Parts struct {
	Config    *config.Config
	Secret    *secret.Secret // nil where nginx need not send one
	Proof     *secret.Secret // by which answers are proved to nginx; nil where they are not
	Downloads *authz.Downloads
	Stores    []*storage.Store // of the downloads, in their order; nil for a directory
	Login     *authz.LoginPage // nil where there is none
	Sources   identity.Sources
	Keys      *link.Keys     // what links are signed with; nil where there are none
	Names     []*names.Table // of downloads that have one
	Links     *link.Links
	Template  *page.Template // what the pages of links look like; nil where there are none
	Listing   *page.Template // what the pages of listings look like; nil where there are none
	Limits    *limit.Limits  // nil where there are none
	Policy    Policy
	Token     *secret.Secret // of the admin listener; nil where none is configured
	AuditKey  *secret.Secret // by which subjects are hashed in the record; nil where they are not
	Sinks     []AuditSink
	// Direct says that the service serves the files itself; nil where nginx does.
	Direct *Direct
	// Begin is called when they are about to serve: it has the log say what they are
	// configured to.
	Begin func()
}

// An AuditSink is where the records of the audit file are sent too.
type AuditSink struct {
	Name string // syslog or postgres
	audit.Sink
}

// Queried is the outcome of whoever a query is about, as far as limits ask for it.
func (p *Parts) Queried(q authz.Query) *authz.Outcome {
	asked := &authz.Question{Method: http.MethodGet, Action: q.Action}
	asked.IP, _ = netip.ParseAddr(q.IP) // it may be unknown
	for _, d := range p.Downloads.All() {
		if d.Name == q.Domain || len(p.Downloads.All()) == 1 {
			asked.Download = d
		}
	}
	if asked.Download == nil {
		asked.Download = &authz.Download{Name: q.Domain}
	}
	return &authz.Outcome{Question: asked, Principal: q.Principal}
}

// A Policy is where the policy is, and once it is open the store that serves it.
type Policy struct {
	Files policy.Files
	policy.Options
	*policy.Store
}

// Open opens the store.
func (p *Policy) Open(ctx context.Context) (err error) {
	p.Store, err = policy.Open(ctx, p.Files, &p.Options)
	return err
}

// Follow opens the store that is to take the place of another one's: see
// policy.Store.Follow.
func (p *Policy) Follow(ctx context.Context, earlier *Policy, confirmed bool) (err error) {
	p.Store, err = earlier.Store.Follow(ctx, p.Files, &p.Options, confirmed)
	return err
}

// open makes the parts. What a secret in the environment has wrong with it stands
// in no file.
func (c *commands) open(conf *config.Config, env Env, log *slog.Logger) (*Parts, error) {
	return c.program.Open(conf, env.Lookup, log)
}

// openWithSecrets makes the parts and reads their secrets, and tells all that is
// wrong at once.
func (c *commands) openWithSecrets(ctx context.Context, conf *config.Config, env Env, log *slog.Logger) (*Parts, error) {
	p, err := c.open(conf, env, log)
	if p != nil {
		err = errors.Join(err, p.loadSecrets(ctx, nil))
	}
	return p, err
}

// Vouching are the headers that nginx sends for the sources of identity.
func (p *Parts) Vouching() []nginx.Header {
	var headers []nginx.Header
	for _, source := range p.Sources {
		for _, h := range source.Headers {
			if h.FromClient {
				headers = append(headers, nginx.FromClient(h.Name))
			} else {
				headers = append(headers, nginx.Header{Name: h.Name, Value: h.Value})
			}
		}
	}
	return headers
}

// Load reads what answers depend on: sources, keys and pages of links, and policy.
func (p *Parts) Load(ctx context.Context) error {
	if err := p.LoadSources(ctx); err != nil {
		return err
	}
	return p.Policy.Open(ctx)
}

// openPolicy reads names and policy: what is asked for, and what is said of it.
func (p *Parts) openPolicy(ctx context.Context) error {
	if err := p.loadNames(ctx); err != nil {
		return err
	}
	return p.Policy.Open(ctx)
}

func (p *Parts) loadNames(ctx context.Context) error {
	for _, table := range p.Names {
		if err := table.Reload(ctx); err != nil {
			return err
		}
	}
	return nil
}

// LoadSources is Load without the policy: sources, names and keys of links.
func (p *Parts) LoadSources(ctx context.Context) error {
	if err := p.Sources.Load(ctx); err != nil {
		return err
	}
	if err := p.loadNames(ctx); err != nil {
		return err
	}
	if err := p.loadKeys(ctx); err != nil {
		return err
	}
	if err := p.Template.Reload(ctx); err != nil {
		return err
	}
	return p.Listing.Reload(ctx)
}

func (p *Parts) loadKeys(ctx context.Context) error {
	if p.Keys == nil {
		return nil
	}
	return p.Keys.Reload(ctx)
}

// A keptSecret is one of the parts' secrets, nil where there is none.
type keptSecret struct {
	*secret.Secret
	key  string // that names its file
	what string
}

func (p *Parts) secrets() []keptSecret {
	return []keptSecret{
		{p.Secret, "proxy_secret_file", "the proxy secret"},
		{p.Proof, "proof_secret_file", "the proof's secret"},
		{p.Token, "admin_token_file", "the admin token"},
		{p.AuditKey, "audit.privacy.key_file", "the key of the audit's subjects"},
	}
}

// loadSecrets reads the secrets, but for those whose file and error may be passed over; nil
// passes over none.
func (p *Parts) loadSecrets(ctx context.Context, pass func(file string, err error) bool) error {
	var problems []error
	if pass == nil {
		pass = func(string, error) bool { return false }
	}
	if chain := p.Config.Audit.Chain; chain != nil {
		if _, _, err := audit.ReadKey(chain.KeyFile); err != nil && !pass(chain.KeyFile, err) {
			problems = append(problems, p.Config.At("audit.chain.key_file", err.Error()))
		}
	}
	load := func(key string, files []string, reload func(context.Context) error) {
		if err := reload(ctx); err != nil && !pass(strings.Join(files, ", "), err) {
			problem := err.Error()
			if advice := access.Advice(err); advice != "" {
				problem += ": " + advice
			}
			problems = append(problems, p.Config.At(key, problem))
		}
	}
	for _, s := range p.secrets() {
		load(s.key, s.Files(), s.Reload)
	}
	for i, s := range p.Stores {
		if s != nil && !s.Renews() { // roles are asked for theirs by AskRoles
			of := s.Files()
			if len(of) == 0 {
				of = []string{"credentials of " + p.Config.Downloads[i].Name}
			}
			load(fmt.Sprintf("downloads[%d].storage", i), of, s.Reload)
		}
	}
	return errors.Join(problems...)
}

// AskRoles asks for the credentials of stores that roles give. Whoever cannot be asked now
// is asked again by the store's Run.
func (p *Parts) AskRoles(ctx context.Context) {
	var asking sync.WaitGroup
	for _, s := range p.Stores {
		if s != nil && s.Renews() {
			asking.Go(func() { _ = s.Reload(ctx) }) // Err tells of it
		}
	}
	asking.Wait()
}

// Decisive are the files that decisions depend on, each once.
func (p *Parts) Decisive() []string {
	all := []string{p.Config.File, p.Config.Policy.File, p.Config.Policy.Model, p.Config.Links.KeysFile, p.Config.Links.Template, p.Config.Listing.Template}
	for _, s := range p.Sources {
		all = append(all, s.Files...)
	}
	for _, table := range p.Names {
		all = append(all, table.Files()...)
	}
	for _, s := range p.secrets() {
		all = append(all, s.Files()...)
	}
	for _, s := range p.Stores {
		if s != nil {
			all = append(all, s.Files()...)
		}
	}
	seen := map[string]bool{"": true}
	return slices.DeleteFunc(all, func(file string) bool {
		again := seen[file]
		seen[file] = true
		return again
	})
}

// kept are the files that the service and nginx write: the audit trail, the state, and
// nginx's logs.
func (p *Parts) kept() []string {
	access, _, _ := strings.Cut(p.Config.Nginx.AccessLog, " ") // off and syslog: are no file, and in no root
	all := []string{p.Config.Nginx.DeliveryLog, access, p.Config.State.File, p.Config.Audit.Privacy.Keys}
	all = slices.DeleteFunc(all, func(file string) bool { return !filepath.IsAbs(file) })
	if file := p.Config.Audit.File; file != "" && file != config.AuditStdout {
		all = append(all, file)
	}
	if chain := p.Config.Audit.Chain; chain != nil {
		all = append(all, chain.KeyFile)
	}
	secrets, others := p.ofServers()
	for _, s := range secrets {
		all = append(all, s.Files...)
	}
	return append(all, others...)
}

// ofServers are the files by which other servers are reached, those of the audit and Redis:
// secrets, and others.
func (p *Parts) ofServers() (secrets []exposure.Secret, others []string) {
	if a := p.Config.Audit.Postgres; a != nil {
		secrets = append(secrets, exposure.Secret{What: "the URL of the audit database, with its password", Files: []string{a.URLFile}})
	}
	if a := p.Config.Audit.Syslog; a != nil && a.CAFile != "" {
		others = append(others, a.CAFile)
	}
	if r := p.Config.State.Redis; r != nil {
		if r.PasswordFile != "" {
			secrets = append(secrets, exposure.Secret{What: "the password of Redis", Files: []string{r.PasswordFile}})
		}
		if r.CAFile != "" {
			others = append(others, r.CAFile)
		}
	}
	return secrets, others
}

// Exposures looks at the files that decisions depend on.
func (p *Parts) Exposures() []exposure.Exposure {
	var secrets []exposure.Secret
	for _, s := range p.secrets() {
		secrets = append(secrets, exposure.Secret{What: s.what, Files: s.Files()})
	}
	for _, s := range p.Sources {
		if s.Secret {
			secrets = append(secrets, exposure.Secret{What: "the secret that tokens are signed with", Files: s.Files})
		}
	}
	for _, s := range p.Stores {
		if s != nil {
			secrets = append(secrets, exposure.Secret{What: "the credentials of a store", Files: s.Files()})
		}
	}
	if p.Keys != nil {
		secrets = append(secrets, exposure.Secret{What: "what links are signed with", Files: p.Keys.Files()})
	}
	if chain := p.Config.Audit.Chain; chain != nil {
		secrets = append(secrets, exposure.Secret{What: "the key of the audit trail's chain", Files: []string{chain.KeyFile}})
	}
	servers, others := p.ofServers()
	found := exposure.Find(append(secrets, servers...), append(p.Decisive(), others...)...)
	if network, path := config.Address(p.Config.Listen); network == "unix" && p.Direct == nil {
		found = append(found, exposure.Socket(path)...)
	}
	return found
}
