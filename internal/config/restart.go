package config

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
)

// RestartKeys are the keys that count when the service starts, and not when the file
// changes. They are those with the tag `restart`.
func RestartKeys() []string {
	var keys []string
	restarting(reflect.TypeFor[Config](), "", nil, func(key string, _ []int) { keys = append(keys, key) })
	return keys
}

// restarting visits the keys that need a restart, with the index of each field.
func restarting(t reflect.Type, path string, index []int, visit func(key string, index []int)) {
	for i := range t.NumField() {
		field, at := t.Field(i), append(slices.Clip(index), i)
		key := strings.TrimPrefix(path+"."+field.Tag.Get("yaml"), ".")
		switch {
		case field.Tag.Get("yaml") == "-" || !field.IsExported():
		case field.Tag.Get("restart") != "":
			visit(key, at)
		case field.Type.Kind() == reflect.Struct:
			restarting(field.Type, key, at, visit)
		}
	}
}

// Continue makes the configuration one that a running service can take over from the
// one that it has: what needs a restart stays as it is there, and Restart says what that
// is. The error is about what cannot be beside it, as a listener that other hosts reach
// and that asks for no secret any more.
func (c *Config) Continue(running *Config) error {
	c.Restart = nil
	now, was := reflect.ValueOf(c).Elem(), reflect.ValueOf(running).Elem()
	restarting(now.Type(), "", nil, func(key string, index []int) {
		if value, old := now.FieldByIndex(index), was.FieldByIndex(index); !reflect.DeepEqual(value.Interface(), old.Interface()) {
			c.needRestart(key)
			value.Set(old)
		}
	})
	// A socket that systemd passes may be reached by others, and need the secret.
	if c.ProxySecretFile == "" && running.ProxySecretFile != "" {
		c.needRestart("proxy_secret_file")
		c.ProxySecretFile = running.ProxySecretFile
	}
	// The two logs go together: beside one that stays, the other does.
	if (c.Nginx.DeliveryLog == "") != (c.Nginx.AccessLog == "") && slices.Contains(c.RestartNames(), "nginx.delivery_log") {
		c.needRestart("nginx.access_log")
		c.Nginx.AccessLog = running.Nginx.AccessLog
	}
	if c.Restart == nil {
		return nil
	}
	if err := c.validate(c.doc); err != nil {
		return fmt.Errorf("beside %s, as the service was started with, which a restart would change: %w", strings.Join(c.RestartNames(), ", "), err)
	}
	return nil
}

func (c *Config) needRestart(key string) {
	r := Restart{Key: key, Place: c.File}
	var at *Error
	if errors.As(c.At(key, ""), &at) {
		if r.Place = at.File; at.Line > 0 {
			r.Place = fmt.Sprintf("%s:%d", at.File, at.Line)
		}
	}
	c.Restart = append(c.Restart, r)
}

// A Restart is a key whose value counts after the next restart.
type Restart struct {
	Key string
	// Place is where the value stands: `FILE:LINE`, or FILE where it was left out.
	Place string
}

// RestartNames are the keys of Restart.
func (c *Config) RestartNames() []string {
	var names []string
	for _, r := range c.Restart {
		names = append(names, r.Key)
	}
	return names
}

// IsOf reports whether the configuration was read from the same text as another one.
func (c *Config) IsOf(other *Config) bool { return c.File == other.File && c.sum == other.sum }
