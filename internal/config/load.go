package config

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"maps"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"

	"securefiles/internal/regular"
)

// maxSize bounds a configuration file, in bytes.
const maxSize = 1 << 20

// An Error is one problem. Line and Column count from 1 and are 0 where the
// problem has no place in the file.
type Error struct {
	File         string
	Line, Column int
	Message      string
}

func (e *Error) Error() string {
	if e.Line == 0 {
		return fmt.Sprintf("%s: error: %s", e.File, e.Message)
	}
	return fmt.Sprintf("%s:%d:%d: error: %s", e.File, e.Line, e.Column, e.Message)
}

// Load reads a file, applies the environment (`KEY=value`, as os.Environ
// returns it) over it and checks the result. An empty file name loads the
// defaults. The error joins one *Error for each problem found.
func Load(file string, environ []string) (*Config, error) {
	c := &Config{File: file}
	text, err := read(file, "configuration")
	if err != nil {
		return nil, err
	}
	doc := &document{file: file}
	if len(text) > 0 {
		if err := doc.decode(text, c); err != nil {
			return nil, err
		}
	}
	c.fill() // before the environment, so that it can override a default download
	if doc.overridden, err = c.applyEnvironment(environ); err != nil {
		return nil, err
	}
	c.fill()
	if file != "" {
		resolve(reflect.ValueOf(c).Elem(), filepath.Dir(file))
	}
	if err := c.validate(doc); err != nil {
		return nil, err
	}
	c.doc = doc
	c.warn()
	return c, nil
}

// At returns an Error at a path such as `identity[1].session.url`, for a value that
// what is made of it does not accept.
func (c *Config) At(path, problem string) error {
	doc := c.doc
	if doc == nil { // it was not loaded
		doc = &document{}
	}
	return doc.at(path, "%s", problem)
}

// warn tells of what may be meant, and is dangerous if it is not.
func (c *Config) warn() {
	for i, id := range c.Identity {
		if id.NginxValue == "$remote_user" {
			c.Warnings = append(c.Warnings, indexed("identity", i)+".nginx_value: $remote_user is whom the client says it is, unless auth_basic is on in every location that asks the service")
		}
	}
	if strings.HasPrefix(c.LoginURL, "http://") {
		c.Warnings = append(c.Warnings, fmt.Sprintf("login_url %s: the network between sees passwords: use https, or a path of this site", c.LoginURL))
	}
}

// read returns the text of a file. What it is stands in errors.
func read(file, what string) ([]byte, error) {
	if file == "" {
		return nil, nil
	}
	text, err := regular.Read(file, maxSize)
	switch {
	case errors.Is(err, regular.ErrTooLarge):
		return nil, &Error{File: file, Message: fmt.Sprintf("larger than %d bytes: this is no %s", maxSize, what)}
	case err != nil:
		return nil, fmt.Errorf("read %s: %w", what, err)
	}
	return text, nil
}

// A document is the parsed file, kept to say where a value stands.
type document struct {
	file string
	root *ast.File
	keys string // where they are listed, if not in docs/configuration.md
	// overridden names the variable that a path's value comes from.
	overridden map[string]string
}

// goField is a message of the library that tells of Go.
var goField = regexp.MustCompile(`^cannot unmarshal (\S+) into Go struct field \S+ of type (\S+)$`)

func (d *document) decode(text []byte, c *Config) error {
	root, err := parser.ParseBytes(text, 0)
	if err != nil {
		return d.syntax(err)
	}
	if len(root.Docs) > 1 {
		return &Error{File: d.file, Line: root.Docs[1].Start.Position.Line, Column: 1, Message: "a second document: keep one, without ---"}
	}
	d.root = root
	err = yaml.UnmarshalWithOptions(text, c, yaml.Strict())
	if err != nil && !errors.Is(err, io.EOF) {
		return d.syntax(err)
	}
	return nil
}

// syntax turns the library's error into one line with its place.
func (d *document) syntax(err error) error {
	var ours *Error
	if errors.As(err, &ours) {
		ours.File = d.file
		return ours
	}
	var located yaml.Error
	if !errors.As(err, &located) {
		return &Error{File: d.file, Message: err.Error()}
	}
	e := &Error{File: d.file, Message: located.GetMessage()}
	if t := located.GetToken(); t != nil {
		e.Line, e.Column = t.Position.Line, t.Position.Column
	}
	if strings.HasPrefix(e.Message, "unknown field") {
		e.Message += ": see the " + cmp.Or(d.keys, "list of keys in docs/configuration.md") + ", or remove it"
	}
	if m := goField.FindStringSubmatch(e.Message); m != nil {
		e.Message = m[1] + " was used where " + m[2] + " is expected"
	}
	if _, expected, ok := strings.Cut(e.Message, " was used where "); ok {
		switch strings.TrimSuffix(expected, " is expected") {
		case "bool":
			e.Message += ": write true or false"
		case "int":
			e.Message += ": write a whole number"
		case "sequence":
			e.Message += ": write a list, each item on a line that begins with -"
		case "mapping":
			e.Message += ": write lines KEY: VALUE"
		}
	}
	return e
}

// at returns an Error at a path such as `downloads[0].url`, or at the nearest
// parent that the file holds. A value from the environment stands in no file.
func (d *document) at(path, format string, args ...any) error {
	if name, ok := d.overridden[path]; ok {
		return &Error{File: "environment", Message: name + ": " + fmt.Sprintf(format, args...)}
	}
	e := &Error{File: d.file, Message: path + ": " + fmt.Sprintf(format, args...)}
	if d.file == "" {
		e.File = "configuration"
	}
	for p := path; d.root != nil && p != ""; p = parent(p) {
		yp, err := yaml.PathString("$." + p)
		if err != nil {
			break
		}
		node, err := yp.FilterFile(d.root)
		if err != nil || node == nil {
			continue
		}
		pos := node.GetToken().Position
		e.Line, e.Column = pos.Line, pos.Column
		break
	}
	return e
}

func parent(path string) string {
	if i := strings.LastIndexAny(path, ".["); i >= 0 {
		return path[:i]
	}
	return ""
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
	delete(values, envPrefix+"CONFIG") // the --config flag
	overridden := map[string]string{}
	if err := override(reflect.ValueOf(c).Elem(), "", values, overridden); err != nil {
		return nil, err
	}
	for _, name := range slices.Sorted(maps.Keys(values)) {
		c.Warnings = append(c.Warnings, fmt.Sprintf("environment variable %s names no configuration key: it has no effect", name))
	}
	return overridden, nil
}

// ProxySecretVariable is the environment variable that may hold the proxy
// secret instead of proxy_secret_file.
const ProxySecretVariable = envPrefix + "PROXY_SECRET"

// AdminTokenVariable is the environment variable that may hold the admin token
// instead of admin_token_file.
const AdminTokenVariable = envPrefix + "ADMIN_TOKEN"

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
			if field.Tag.Get("path") != "file" {
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
