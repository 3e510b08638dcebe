package config

import (
	"fmt"
	"regexp"
	"strings"
)

// loginPattern is a path of this site, or an absolute URL, without a fragment.
// `//host` is neither: browsers take it for another site.
var loginPattern = regexp.MustCompile(`^(?:(https?)://[A-Za-z0-9.:\[\]-]+)?(/(?:[A-Za-z0-9._~!$&()*+,;=:@%?{}-][A-Za-z0-9._~!$&()*+,;=:@%?{}/-]*)?)$`)

// nextPlace stands in a login URL for the address to return to.
const nextPlace = "{next}"

// loginURL checks where browsers are sent to log in.
func (v *validator) loginURL(c *Config) {
	if c.LoginURL == "" {
		return
	}
	m := loginPattern.FindStringSubmatch(c.LoginURL)
	if m == nil {
		v.add("login_url", "%q is neither a path of this site (/login/) nor https://HOST/PATH, without a fragment", c.LoginURL)
		return
	}
	path, _, _ := strings.Cut(m[2], "?")
	without := strings.Replace(c.LoginURL, nextPlace, "", 1)
	if strings.ContainsAny(path, "{}") || strings.ContainsAny(without, "{}") {
		v.add("login_url", "%q: {next} belongs into the query, once, and nothing else in braces: /login/?next={next}", c.LoginURL)
	}
	for i, d := range c.Downloads {
		if m[1] == "" && strings.HasPrefix(path, d.URL) {
			v.add("login_url", "%q is inside %s, %s, where nobody gets without a login", c.LoginURL, indexed("downloads", i), d.URL)
		}
	}
	if m[1] == "http" {
		c.Warnings = append(c.Warnings, fmt.Sprintf("login_url %s: the network between sees passwords: use https, or a path of this site", c.LoginURL))
	}
}
