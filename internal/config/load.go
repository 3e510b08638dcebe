package config

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"net"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"securefiles/internal/loopback"
	"securefiles/internal/strictyaml"
)

// An Error is one problem, with its place.
type Error = strictyaml.Error

// Load reads a file, applies the environment (`KEY=value`, as os.Environ
// returns it) over it and checks the result. An empty file name loads the
// defaults. The error joins one *Error for each problem found.
func Load(file string, environ []string) (*Config, error) {
	c := &Config{File: file}
	text, err := strictyaml.Read(file, "configuration")
	if err != nil {
		return nil, err
	}
	doc := &strictyaml.Document{File: file}
	if len(text) > 0 {
		if err := doc.Decode(text, c); err != nil {
			return nil, err
		}
	}
	listens := c.Listen != ""
	c.fill() // before the environment, so that it can override a default download
	if doc.Overridden, err = c.applyEnvironment(environ); err != nil {
		return nil, err
	}
	c.fill()
	if err := c.checkPaths(doc); err != nil {
		return nil, err
	}
	if file != "" {
		resolve(reflect.ValueOf(c).Elem(), filepath.Dir(file))
	}
	if err := c.validate(doc); err != nil {
		return nil, err
	}
	c.doc, c.sum = doc, sha256.Sum256(text)
	if listens || doc.Overridden["listen"] != "" { // of the default, serve tells when it listens
		c.warnOfListener()
	}
	c.warn()
	return c, nil
}

// At returns an Error at a path such as `identity[1].session.url`, for a value that
// what is made of it does not accept.
func (c *Config) At(path, problem string) error {
	doc := c.doc
	if doc == nil { // it was not loaded
		doc = &strictyaml.Document{}
	}
	return doc.At(path, "%s", problem)
}

// IsDefaultRoot reports whether the root of a download is the one of the defaults, of
// which nobody has said that it is there.
func (c *Config) IsDefaultRoot(download int) bool {
	return c.Downloads[download].Root == Default().Downloads[0].Root
}

// warn tells of what may be meant, and is dangerous if it is not.
func (c *Config) warn() {
	for i, id := range c.Identity {
		if id.NginxValue == "$remote_user" {
			c.warnAt(indexed("identity", i)+".nginx_value", "$remote_user is whom the client says it is, unless auth_basic is on in every location that asks the service")
		}
	}
	if strings.HasPrefix(c.LoginURL, "http://") {
		c.warnAt("login_url", fmt.Sprintf("%s: the network between sees passwords: use https, or a path of this site", c.LoginURL))
	}
}

// warnOfListener tells who else may answer nginx.
func (c *Config) warnOfListener() {
	host, _, err := net.SplitHostPort(c.Listen)
	if strings.HasPrefix(c.Listen, UnixPrefix) || err != nil {
		return
	}
	switch {
	case !loopback.IsAddress(host):
		c.warnAt("listen", "nginx asks over the network, in clear text: whoever is between sees cookies and passwords, a proxy secret too, and answers in the service's place")
	case !slices.ContainsFunc(c.Downloads, func(d Download) bool { return d.ByNGINX() }):
		c.warnAt("listen", "any user of this machine may take the port while the service is down, and the web server then believes them: listen on a unix socket in a directory of the service's own, where the web server can ask on one; nginx's proof is not for it")
	case c.ProofSecretFile == "":
		c.warnAt("listen", "any user of this machine may take the port while the service is down, and nginx then believes them: listen on a unix socket in a directory of the service's own (unix:/run/securefiles/auth.sock), or set proof_secret_file")
	default:
		c.warnAt("listen", "proof_secret_file keeps nginx from believing whoever takes the port while the service is down, but not them from seeing cookies and passwords: listen on a unix socket in a directory of the service's own")
	}
	c.Warnings[len(c.Warnings)-1].Listen = true
}

func (c *Config) warnAt(path, problem string) {
	w := Warning{Message: path + ": " + problem}
	var at *Error
	if errors.As(c.At(path, problem), &at) {
		w.Line, w.Message = at.Line, at.Message
	}
	c.Warnings = append(c.Warnings, w)
}

// LineOf returns the line of the file that names another file; 0 where none does.
func (c *Config) LineOf(file string) int {
	line := 0
	named(reflect.ValueOf(c).Elem(), "", func(path, name string) {
		if name != file {
			return
		}
		var at *Error
		if line == 0 && errors.As(c.At(path, ""), &at) {
			line = at.Line
		}
	})
	return line
}

// named visits the values that name a file, with their paths.
func named(v reflect.Value, path string, visit func(path, file string)) {
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			field := v.Type().Field(i)
			key := field.Tag.Get("yaml")
			if key == "-" {
				continue
			}
			at := strings.TrimPrefix(path+"."+key, ".")
			if field.Tag.Get("path") == "file" {
				visit(at, v.Field(i).String())
			}
			named(v.Field(i), at, visit)
		}
	case reflect.Pointer:
		if !v.IsNil() {
			named(v.Elem(), path, visit)
		}
	case reflect.Slice:
		for i := range v.Len() {
			named(v.Index(i), indexed(path, i), visit)
		}
	}
}

// shellPath is a path that a shell would make another one of.
var shellPath = regexp.MustCompile(`^~[^/]*/|\$\{?[A-Za-z_]`)

// checkPaths refuses what would be looked for under a name that nobody meant.
func (c *Config) checkPaths(doc *strictyaml.Document) error {
	var problems []error
	named(reflect.ValueOf(c).Elem(), "", func(path, file string) {
		if shellPath.MatchString(file) {
			problems = append(problems, doc.At(path, "%q: ~ and variables stand for themselves here: write the whole path", file))
		}
	})
	return errors.Join(problems...)
}

const envPrefix = "SECUREFILES_"

// variableName makes of a path what follows the prefix.
var variableName = strings.NewReplacer(".", "_", "[", "_", "]", "")

// applyEnvironment overrides every scalar whose variable is set. A variable
// that names no key is a warning only: Kubernetes sets such names for a
// service that happens to be called securefiles. It returns the variable of each
// path that it set.
func (c *Config) applyEnvironment(environ []string) (map[string]string, error) {
	values := map[string]string{}
	for _, kv := range environ {
		if name, value, ok := strings.Cut(kv, "="); ok && strings.HasPrefix(name, envPrefix) {
			values[name] = value
		}
	}
	delete(values, ProxySecretVariable) // a secret, read by main
	delete(values, AdminTokenVariable)
	delete(values, ProofSecretVariable)
	delete(values, envPrefix+"CONFIG") // the --config flag
	overridden := map[string]string{}
	if err := override(reflect.ValueOf(c).Elem(), "", values, overridden); err != nil {
		return nil, err
	}
	for _, name := range slices.Sorted(maps.Keys(values)) {
		c.Warnings = append(c.Warnings, Warning{Message: fmt.Sprintf("environment variable %s names no configuration key: it has no effect", name), Unknown: true})
	}
	return overridden, nil
}

// ProxySecretVariable is the environment variable that may hold the proxy
// secret instead of proxy_secret_file.
const ProxySecretVariable = envPrefix + "PROXY_SECRET"

// AdminTokenVariable is the environment variable that may hold the admin token
// instead of admin_token_file.
const AdminTokenVariable = envPrefix + "ADMIN_TOKEN"

// ProofSecretVariable is the environment variable that may hold the proof's secret
// instead of proof_secret_file.
const ProofSecretVariable = envPrefix + "PROOF_SECRET"

// override walks the configuration from a path such as `downloads[0].url` on,
// and moves the variables that it used from values to overridden.
func override(v reflect.Value, path string, values, overridden map[string]string) error {
	switch {
	case v.Kind() == reflect.Struct:
		for i := range v.NumField() {
			key := v.Type().Field(i).Tag.Get("yaml")
			if key == "-" {
				continue
			}
			if err := override(v.Field(i), strings.TrimPrefix(path+"."+key, "."), values, overridden); err != nil {
				return err
			}
		}
		return nil
	case v.Kind() == reflect.Pointer:
		if v.IsNil() {
			return nil // the file makes a source, a variable only changes it
		}
		return override(v.Elem(), path, values, overridden)
	case v.Kind() == reflect.Slice:
		for i := range v.Len() {
			if err := override(v.Index(i), indexed(path, i), values, overridden); err != nil {
				return err
			}
		}
		return nil
	}
	name := envPrefix + strings.ToUpper(variableName.Replace(path))
	text, ok := values[name]
	if !ok {
		return nil
	}
	delete(values, name)
	overridden[path] = name
	if err := set(v, text); err != nil {
		return &Error{File: "environment", Message: fmt.Sprintf("%s: %v", name, err)}
	}
	return nil
}

func set(v reflect.Value, text string) error {
	if d, ok := v.Addr().Interface().(*Duration); ok {
		parsed, err := parseDuration(text)
		*d = parsed
		return err
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(text)
	case reflect.Int:
		n, err := strconv.Atoi(text)
		if err != nil {
			return fmt.Errorf("%q is not a whole number", text)
		}
		v.SetInt(int64(n))
	case reflect.Bool:
		b, err := strconv.ParseBool(text)
		if err != nil {
			return fmt.Errorf("%q is neither true nor false", text)
		}
		v.SetBool(b)
	default:
		return fmt.Errorf("a %s cannot be set from the environment", v.Kind())
	}
	return nil
}

func parseDuration(text string) (Duration, error) {
	d, err := time.ParseDuration(text)
	if days, ok := strings.CutSuffix(text, "d"); ok {
		var n uint64
		n, err = strconv.ParseUint(days, 10, 15)
		d = time.Duration(n) * 24 * time.Hour
	}
	if err != nil || d <= 0 {
		return 0, fmt.Errorf("%q is not a positive duration such as 10s or 1m30s", text)
	}
	return Duration(d), nil
}

// resolve makes the paths of files absolute, from the configuration's directory.
func resolve(v reflect.Value, dir string) {
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			field, value := v.Type().Field(i), v.Field(i)
			if tag := field.Tag.Get("path"); tag == "" || tag == "file or stdout" && value.String() == AuditStdout {
				resolve(value, dir)
			} else if path := value.String(); path != "" && !filepath.IsAbs(path) {
				value.SetString(filepath.Join(dir, path))
			}
		}
	case reflect.Pointer:
		if !v.IsNil() {
			resolve(v.Elem(), dir)
		}
	case reflect.Slice:
		for i := range v.Len() {
			resolve(v.Index(i), dir)
		}
	}
}
