package cli

import (
	"context"
	"errors"
	"log/slog"

	"securefiles/authz"
	"securefiles/internal/access"
	"securefiles/internal/config"
	"securefiles/internal/exposure"
	"securefiles/internal/identity"
	"securefiles/internal/nginx"
	"securefiles/internal/secret"
	"securefiles/policy"
)

// The Parts are what a configuration is made into, in the order of a request, but
// for what counts and what listens.
type Parts struct {
	Config    *config.Config
	Secret    *secret.Secret // nil where nginx need not send one
	Proof     *secret.Secret // by which answers are proved to nginx; nil where they are not
	Downloads *authz.Downloads
	Login     *authz.LoginPage // nil where there is none
	Sources   identity.Sources
	Policy    Policy
	Token     *secret.Secret // of the admin listener; nil where none is configured
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
		err = errors.Join(err, p.loadSecrets(ctx))
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

// Load reads what decisions depend on: sources and policy.
func (p *Parts) Load(ctx context.Context) error {
	if err := p.Sources.Load(ctx); err != nil {
		return err
	}
	return p.Policy.Open(ctx)
}

func (p *Parts) loadSecrets(ctx context.Context) error {
	var problems []error
	for _, s := range []struct {
		key    string
		secret *secret.Secret
	}{{"proxy_secret_file", p.Secret}, {"proof_secret_file", p.Proof}, {"admin_token_file", p.Token}} {
		if err := s.secret.Reload(ctx); err != nil {
			problem := err.Error()
			if advice := access.Advice(err); advice != "" {
				problem += ": " + advice
			}
			problems = append(problems, p.Config.At(s.key, problem))
		}
	}
	return errors.Join(problems...)
}

// Exposures looks at the files that decisions depend on.
func (p *Parts) Exposures() []exposure.Exposure {
	secrets := []exposure.Secret{{What: "the proxy secret", Files: p.Secret.Files()}, {What: "the proof's secret", Files: p.Proof.Files()}, {What: "the admin token", Files: p.Token.Files()}}
	trusted := []string{p.Config.File, p.Config.Policy.File, p.Config.Policy.Model}
	for _, s := range p.Sources {
		if s.Secret {
			secrets = append(secrets, exposure.Secret{What: "the secret that tokens are signed with", Files: s.Files})
		}
		trusted = append(trusted, s.Files...)
	}
	found := exposure.Find(secrets, trusted...)
	if network, path := config.Address(p.Config.Listen); network == "unix" {
		found = append(found, exposure.Socket(path)...)
	}
	return found
}
