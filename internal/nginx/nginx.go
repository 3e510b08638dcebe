// Package nginx prints the nginx configuration that belongs to a service's own.
//
// It comes in two halves, [WriteHTTP] and [WriteServer], to include in a
// configuration of one's own, and as a whole, [WriteComplete]. Prefixes and
// directories are printed as literals: a variable that is empty would make
// nginx serve its own prefix directory.
//
// It does not protect against a location outside the snippet that serves the
// same directory.
package nginx

import (
	"bytes"
	"embed"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"text/template"
)

// Config is what the printed configuration depends on.
type Config struct {
	// Listen is where the service listens: `127.0.0.1:9180` or `unix:/path`.
	Listen string
	// ProxySecret says that nginx must send a secret to the service, which it
	// includes from a file that the operator writes.
	ProxySecret bool
	// Login says that the service sends browsers to a login page, for which it
	// must see the Accept header.
	Login     bool
	Downloads []Download
	// Identity are the headers that carry a caller nginx has verified.
	Identity []Header
}

// Download is one guarded URL prefix.
type Download struct {
	// Name is part of the names of locations: [a-z0-9_].
	Name string
	// URL and Internal begin and end with a slash.
	URL, Internal string
	// Root is the absolute directory to serve.
	Root string
	// FollowSymlinks lets nginx follow symbolic links out of Root.
	FollowSymlinks bool
}

// Header is a request header to the service. An empty Value clears it.
type Header struct {
	Name  string
	Value string // an nginx variable, or empty
}

// FromClient is a header that carries what the client sent under its name:
// credentials, never the name of a user.
func FromClient(name string) Header {
	return Header{Name: name, Value: "$http_" + strings.ToLower(strings.ReplaceAll(name, "-", "_"))}
}

// The forms that values may have. They keep whatever nginx would read as
// syntax out of the literals.
var (
	listenForm   = regexp.MustCompile(`^(?:unix:/[A-Za-z0-9_./-]+|[A-Za-z0-9.-]+:[0-9]+|\[[0-9a-fA-F:]+\]:[0-9]+)$`)
	nameForm     = regexp.MustCompile(`^[a-z0-9_]+$`)
	prefixForm   = regexp.MustCompile(`^(?:/[A-Za-z0-9_.~-]+)+/$`)
	rootForm     = regexp.MustCompile(`^/[^\x00-\x20"'\\;{}$#]+$`)
	headerForm   = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9-]*$`)
	variableForm = regexp.MustCompile(`^\$[a-z][a-z0-9_]*$`)
)

// validate returns an error that names the first value nginx could misread.
func (c Config) validate() error {
	check := func(form *regexp.Regexp, what, value string) error {
		if !form.MatchString(value) {
			return fmt.Errorf("nginx configuration: %s %q cannot be written as a literal", what, value)
		}
		return nil
	}
	if err := check(listenForm, "listen", c.Listen); err != nil {
		return err
	}
	if len(c.Downloads) == 0 {
		return fmt.Errorf("nginx configuration: there is no download")
	}
	for _, d := range c.Downloads {
		for _, v := range []struct {
			form        *regexp.Regexp
			what, value string
		}{{nameForm, "name", d.Name}, {prefixForm, "url", d.URL}, {prefixForm, "internal", d.Internal}, {rootForm, "root", d.Root}} {
			if err := check(v.form, v.what, v.value); err != nil {
				return err
			}
		}
	}
	for i, h := range c.Identity {
		if err := check(headerForm, "header", h.Name); err != nil {
			return err
		}
		for _, other := range c.Identity[:i] {
			if strings.EqualFold(h.Name, other.Name) && h.Value != other.Value {
				return fmt.Errorf("nginx configuration: header %q has two values, %q and %q", h.Name, other.Value, h.Value)
			}
		}
		if h.Value != "" {
			if err := check(variableForm, "value of "+h.Name, h.Value); err != nil {
				return err
			}
		}
	}
	return nil
}

// A certificate is a variable that counts only once nginx has verified the
// client's certificate; $ssl_client_s_dn is set for an unverified one too.
type certificate struct{ Variable, Guarded string }

type downloadView struct{ Download }

// InternalPattern is the prefix as a regular expression.
func (d downloadView) InternalPattern() string { return regexp.QuoteMeta(d.Internal) }

// view is what the templates print.
type view struct {
	Listen       string
	ProxySecret  bool
	Login        bool
	Downloads    []downloadView
	Headers      []Header
	Certificates []certificate
}

func newView(c Config) view {
	v := view{Listen: c.Listen, ProxySecret: c.ProxySecret, Login: c.Login}
	for _, d := range c.Downloads {
		d.Root = strings.TrimSuffix(d.Root, "/")
		v.Downloads = append(v.Downloads, downloadView{d})
	}
	seen := map[string]bool{}
	for _, h := range c.Identity {
		known := func(other Header) bool { return strings.EqualFold(other.Name, h.Name) }
		if strings.EqualFold(h.Name, "Authorization") || slices.ContainsFunc(v.Headers, known) {
			continue // it is sent already
		}
		if h.Value == "" {
			h.Value = `""`
		} else if suffix, ok := strings.CutPrefix(h.Value, "$ssl_client_"); ok && suffix != "verify" {
			guarded := "$securefiles_client_" + suffix
			if !seen[guarded] {
				v.Certificates = append(v.Certificates, certificate{h.Value, guarded})
			}
			seen[guarded] = true
			h.Value = guarded
		}
		v.Headers = append(v.Headers, h)
	}
	return v
}

//go:embed *.tmpl
var templates embed.FS

func render(name string, c Config) (string, error) {
	if err := c.validate(); err != nil {
		return "", err
	}
	t, err := template.ParseFS(templates, name)
	if err != nil {
		return "", fmt.Errorf("print nginx configuration: %w", err)
	}
	var buf bytes.Buffer
	if err := t.Execute(&buf, newView(c)); err != nil {
		return "", fmt.Errorf("print nginx configuration: %w", err)
	}
	return buf.String(), nil
}

// WriteHTTP prints what belongs into http { }: the upstream, maps, and the
// format of the delivery log.
func WriteHTTP(w io.Writer, c Config) error { return write(w, "http.conf.tmpl", c) }

// WriteServer prints what belongs into server { }.
func WriteServer(w io.Writer, c Config) error { return write(w, "server.conf.tmpl", c) }

func write(w io.Writer, name string, c Config) error {
	text, err := render(name, c)
	if err != nil {
		return err
	}
	_, err = io.WriteString(w, text)
	return err
}

// WriteComplete prints a whole nginx.conf, both halves included, that runs
// unprivileged and listens on 127.0.0.1:8080. Relative paths in it start from
// nginx's -p directory.
func WriteComplete(w io.Writer, c Config) error {
	httpPart, err := render("http.conf.tmpl", c)
	if err != nil {
		return err
	}
	serverPart, err := render("server.conf.tmpl", c)
	if err != nil {
		return err
	}
	t, err := template.New("complete.conf.tmpl").Funcs(template.FuncMap{"indent": indent}).ParseFS(templates, "complete.conf.tmpl")
	if err != nil {
		return fmt.Errorf("print nginx configuration: %w", err)
	}
	return t.Execute(w, struct{ HTTP, Server string }{httpPart, serverPart})
}

// indent moves every line that is not empty four columns to the right.
func indent(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		if line != "\n" {
			b.WriteString("    ")
		}
		b.WriteString(line)
	}
	return b.String()
}
