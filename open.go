package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"

	"securefiles/authz"
	"securefiles/internal/config"
	"securefiles/internal/identity"
	"securefiles/policy"
)

// The parts are what a configuration is made into, in the order of a request,
// but for what counts and what listens. What a value of the configuration must be
// stands in the constructor of the part that needs it; here its error gets its
// place in the file.
type parts struct {
	config    *config.Config
	secret    *secret // nil where nginx need not send one
	downloads *authz.Downloads
	login     *authz.LoginPage // nil where there is none
	sources   identity.Sources
	store     *policy.Store
	token     *adminToken // nil where none is configured
}

// open makes the parts of a configuration, as the service needs them. Its error
// joins one for each problem.
func open(ctx context.Context, c *config.Config, environ []string, log *slog.Logger) (*parts, error) {
	p, err := openAround(ctx, c, environ, log)
	if err != nil {
		return nil, err
	}
	source, opts := policySource(c)
	p.store, err = policy.Open(ctx, source, opts)
	return p, err
}

// openAround is open without the policy, which `check` reads in a way of its own.
// The parts are there beside an error of *identity.LoadErrors alone: the sources
// that those name have nothing loaded.
func openAround(ctx context.Context, c *config.Config, environ []string, log *slog.Logger) (*parts, error) {
	p, err := arrange(c, log)
	problems := []error{err}
	if p.secret, err = newSecret(ctx, "proxy secret", c.ProxySecretFile, config.ProxySecretVariable, environ); err != nil {
		problems = append(problems, secretError(c, "proxy_secret_file", config.ProxySecretVariable, environ, err))
	}
	if p.token, err = newAdminToken(ctx, c, environ); err != nil {
		problems = append(problems, secretError(c, "admin_token_file", config.AdminTokenVariable, environ, err))
	}
	if err := errors.Join(problems...); err != nil {
		return p, err
	}
	return p, p.sources.Load(ctx)
}

// secretError puts what is wrong with a secret where it comes from.
func secretError(c *config.Config, key, variable string, environ []string, err error) error {
	if _, ok := lookup(environ, variable); ok {
		return &config.Error{File: "environment", Message: err.Error()}
	}
	return c.At(key, err.Error())
}

// arrange makes of a configuration what needs no file and asks nobody.
func arrange(c *config.Config, log *slog.Logger) (*parts, error) {
	p := &parts{config: c}
	var problems []error
	var err error
	if p.downloads, err = guardedDownloads(c.Downloads); err != nil {
		problems = append(problems, c.At("downloads", err.Error()))
	} else if c.LoginURL != "" {
		if p.login, err = authz.ParseLogin(c.LoginURL, p.downloads); err != nil {
			problems = append(problems, c.At("login_url", err.Error()))
		}
	}
	for i, id := range c.Identity {
		path := fmt.Sprintf("identity[%d]", i)
		source, key, err := makeSource(id, p.sources, log)
		for _, one := range unjoin(err) {
			problems = append(problems, c.At(optionPath(path, key, one), problemOf(one)))
		}
		if source != nil {
			p.sources = append(p.sources, source)
		}
	}
	if len(p.sources) == len(c.Identity) {
		for _, one := range unjoin(p.sources.Conflicts()) {
			path := "identity"
			var conflict *identity.ConflictError
			if errors.As(one, &conflict) {
				path = fmt.Sprintf("identity[%d]", conflict.Index)
				if conflict.Option != "" {
					_, key, _ := makeSource(c.Identity[conflict.Index], nil, log) // it has been made before
					path = optionPath(path, key, &identity.OptionError{Option: conflict.Option})
				}
			}
			problems = append(problems, c.At(path, problemOf(one)))
		}
	}
	return p, errors.Join(problems...)
}

// optionPath is where an option of a source stands that an error names.
func optionPath(path, key string, err error) string {
	var option *identity.OptionError
	if key != "" {
		path += "." + key
	}
	if errors.As(err, &option) && option.Option != "" {
		path += "." + option.Option
	}
	return path
}

// problemOf is what an error says without its place.
func problemOf(err error) string {
	var option *identity.OptionError
	var conflict *identity.ConflictError
	switch {
	case errors.As(err, &option):
		return option.Problem
	case errors.As(err, &conflict):
		return conflict.Problem
	}
	return err.Error()
}

// unjoin returns the errors that errors.Join made one of, in whatever depth.
func unjoin(err error) []error {
	if err == nil {
		return nil
	}
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return []error{err}
	}
	var all []error
	for _, one := range joined.Unwrap() {
		all = append(all, unjoin(one)...)
	}
	return all
}

// An exposure is a file that somebody on this machine may read or change who
// should not.
type exposure struct {
	file, rule, message string
}

// exposures looks at the files that decisions depend on.
func (p *parts) exposures() []exposure {
	var found []exposure
	hidden := func(what string, files ...string) {
		for _, file := range files {
			if mode, ok := modeOf(file); ok && mode&0o004 != 0 {
				found = append(found, exposure{file, "secret-readable", fmt.Sprintf("others may read %s: chmod o= the file", what)})
			}
		}
	}
	hidden("the proxy secret", p.secret.Files()...)
	if p.token != nil {
		hidden("the admin token", p.token.Files()...)
	}
	trusted := slices.Concat([]string{p.config.File, p.config.Policy.File, p.config.Policy.Model}, p.secret.Files())
	if p.token != nil {
		trusted = append(trusted, p.token.Files()...)
	}
	for _, s := range p.sources {
		if s.Secret {
			hidden("the secret that tokens are signed with", s.Files...)
		}
		trusted = append(trusted, s.Files...)
	}
	slices.Sort(trusted)
	seen := map[string]bool{}
	for _, file := range slices.Compact(trusted) {
		if file == "" {
			continue
		}
		if mode, ok := modeOf(file); ok && mode&0o002 != 0 {
			found = append(found, exposure{file, "world-writable", "anybody on this machine can change it: chmod o-w the file"})
		}
		for _, dir := range directoriesOf(file) {
			// In a sticky directory nobody can replace what is another's.
			if mode, ok := modeOf(dir); ok && mode&0o002 != 0 && mode&os.ModeSticky == 0 && !seen[dir] {
				seen[dir] = true
				found = append(found, exposure{file, "world-writable", fmt.Sprintf("anybody on this machine can put another file in its place: chmod o-w %s", dir)})
			}
		}
	}
	return found
}

// modeOf returns the mode of a file; what cannot be looked at is told of by
// whoever reads it.
func modeOf(file string) (os.FileMode, bool) {
	info, err := os.Stat(file)
	if err != nil {
		return 0, false
	}
	return info.Mode(), true
}

// directoriesOf returns where a file is, and where its links lead.
func directoriesOf(file string) []string {
	dirs := []string{filepath.Dir(file)}
	if target, err := filepath.EvalSymlinks(file); err == nil && filepath.Dir(target) != dirs[0] {
		dirs = append(dirs, filepath.Dir(target))
	}
	return dirs
}
