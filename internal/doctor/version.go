package doctor

import (
	"cmp"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// A release is a version of nginx: 1.22.1.
type release [3]int

var releaseForm = regexp.MustCompile(`^([0-9]+)\.([0-9]+)\.([0-9]+)`)

func parseRelease(text string) (release, bool) {
	m := releaseForm.FindStringSubmatch(text)
	if m == nil {
		return release{}, false
	}
	var r release
	for i := range r {
		n, err := strconv.Atoi(m[i+1])
		if err != nil {
			return release{}, false
		}
		r[i] = n
	}
	return r, true
}

func (r release) before(other release) bool { return slices.Compare(r[:], other[:]) < 0 }

func (r release) String() string { return fmt.Sprintf("%d.%d.%d", r[0], r[1], r[2]) }

// A fix is something that a version of nginx mended (nginx.org, security advisories and
// changes).
type fix struct {
	// name is the CVE, by which a distribution says that it has the fix too; empty
	// for what none takes over.
	name string
	// since is the first version with it, and stable the first of the branch before.
	since, stable release
	what          string
	matters       func(*patient) bool
	note          bool // nothing has to be mended
}

func fixes() []fix {
	none := release{}
	return []fix{
		{"CVE-2019-20372", release{1, 17, 7}, none, "a request with a body can smuggle another one past error_page", func(*patient) bool { return true }, false},
		{"", release{1, 21, 1}, none, "control characters in a request line are taken", func(*patient) bool { return true }, false},
		{"", release{1, 23, 0}, none, "of several ways to log in only the first is told to clients; whoever sends a password or a token gets in all the same", func(p *patient) bool { return p.Challenges > 1 }, true},
		{"CVE-2025-23419", release{1, 27, 4}, release{1, 26, 3}, "a TLS session of another server { } stands for a client's certificate", func(p *patient) bool { return p.uses("ssl_verify_client", "") }, false},
		{"CVE-2024-31079", release{1, 27, 0}, release{1, 26, 1}, "HTTP/3 can end workers", func(p *patient) bool { return p.uses("listen", "quic") }, false},
		{"CVE-2026-27654", release{1, 29, 7}, release{1, 28, 3}, "WebDAV beside alias leads out of the directory", func(p *patient) bool { return p.uses("dav_methods", "") }, false},
		{"CVE-2026-42945", release{1, 31, 0}, release{1, 30, 1}, "a rewrite with $1 and ? can overwrite memory", func(p *patient) bool { return p.rewritesWithCaptures() }, false},
		{"CVE-2026-9256", release{1, 31, 1}, release{1, 30, 2}, "a rewrite with $1 and $2 can overwrite memory", func(p *patient) bool { return p.rewritesWithCaptures() }, false},
	}
}

// lacks reports whether a version is without the fix.
func (f fix) lacks(r release) bool {
	if f.stable != (release{}) && r[0] == f.stable[0] && r[1] == f.stable[1] {
		return r.before(f.stable)
	}
	return r.before(f.since)
}

// uses reports whether the configuration has a directive, other than off, with an
// argument.
func (p *patient) uses(name, argument string) bool {
	var has func([]directive) bool
	has = func(block []directive) bool {
		return slices.ContainsFunc(block, func(d directive) bool {
			return d.name == name && !d.is(name, "off") && (argument == "" || slices.Contains(d.args, argument)) || has(d.block)
		})
	}
	return has(p.nginx.conf)
}

// rewritesWithCaptures reports whether there is a rewrite as the two advisories describe
// them.
func (p *patient) rewritesWithCaptures() bool {
	var has func([]directive) bool
	has = func(block []directive) bool {
		return slices.ContainsFunc(block, func(d directive) bool {
			return d.name == "rewrite" && len(d.args) > 1 && strings.Contains(d.args[1], "$1") && (strings.Contains(d.args[1], "?") || strings.Contains(d.args[1], "$2")) || has(d.block)
		})
	}
	return has(p.nginx.conf)
}

// version looks whether nginx has the fixes that the configuration needs. A distribution
// mends without another version: what its package says counts too.
func (p *patient) version(context.Context) []Finding {
	var all list
	if p.nginx == nil || p.nginx.master == nil || p.nginx.version == "" {
		return nil
	}
	is, ok := parseRelease(p.nginx.version)
	if !ok {
		return nil
	}
	told := changes()
	for _, f := range fixes() {
		if !f.lacks(is) || !f.matters(p) || f.name != "" && strings.Contains(told, f.name) {
			continue
		}
		since := f.since.String()
		if f.stable != (release{}) {
			since = f.stable.String() + " and " + since
		}
		name := ""
		if f.name != "" {
			name = " (" + f.name + ")"
		}
		problem := fmt.Sprintf("nginx %s: %s%s, mended in %s", p.nginx.version, f.what, name, since)
		if f.note {
			all.add(Note, problem, "")
			continue
		}
		all.add(Warning, problem, "upgrade nginx; with a package of a distribution, see whether it has the fix all the same")
	}
	for _, variable := range p.GroupsFrom {
		for _, header := range p.headersOf(variable) {
			if is.before(joinsLines) {
				all.add(Warning, fmt.Sprintf("nginx %s hands on only the first line of %s: groups that come in a second one are lost (%s), and with them a line of the policy that denies them something", p.nginx.version, header, variable),
					"have the gateway send all groups in one line, separated by commas, and say so in a line above nginx_groups_value, # securefiles:ignore group-lines: the gateway sends one line; or upgrade nginx to "+joinsLines.String()+", which joins the lines")
			}
		}
	}
	return all
}

// joinsLines is the first version of nginx whose variable of a header holds all of its
// lines (nginx.org, changes with nginx 1.23.0).
var joinsLines = release{1, 23, 0}

// headersOf are the headers, as a client or an upstream sends them, from which the
// configuration makes a variable.
func (p *patient) headersOf(variable string) []string {
	var headers []string
	seen := map[string]bool{}
	all := slices.Concat(p.nginx.http(), p.inServers())
	var follow func(text string)
	follow = func(text string) {
		for _, m := range variableForm.FindAllStringSubmatch(text, -1) {
			name := cmp.Or(m[1], m[2])
			if seen[name] {
				continue
			}
			seen[name] = true
			for _, prefix := range []string{"http_", "upstream_http_"} {
				// These two nginx has always joined.
				if header, ok := strings.CutPrefix(name, prefix); ok && name != "http_cookie" && name != "http_x_forwarded_for" {
					headers = append(headers, http.CanonicalHeaderKey(strings.ReplaceAll(header, "_", "-")))
				}
			}
			for _, d := range all {
				switch {
				case (d.name == "set" || d.name == "auth_request_set") && len(d.args) == 2 && d.args[0] == "$"+name:
					follow(d.args[1])
				case d.name == "map" && len(d.args) == 2 && d.args[1] == "$"+name:
					follow(d.args[0])
					for _, row := range d.block {
						follow(strings.Join(row.args, " "))
					}
				}
			}
		}
	}
	follow(variable)
	return headers
}

// variableForm is a variable in a text of nginx's configuration.
var variableForm = regexp.MustCompile(`\$(?:([A-Za-z0-9_]+)|\{([A-Za-z0-9_]+)\})`)

// maxChanges bounds how much of a list of changes is read, in bytes.
const maxChanges = 4 << 20

// changes is what the package of a distribution says that it has mended; empty where there
// is no such list.
func changes() string {
	var all strings.Builder
	for _, pattern := range []string{"/usr/share/doc/nginx/changelog.Debian.gz", "/usr/share/doc/nginx-common/changelog.Debian.gz"} {
		files, _ := filepath.Glob(pattern) // the pattern is well formed
		for _, file := range files {
			f, err := os.Open(file)
			if err != nil {
				continue
			}
			if z, err := gzip.NewReader(f); err == nil {
				_, _ = io.Copy(&all, io.LimitReader(z, maxChanges)) // what there is of it
			}
			_ = f.Close() // it was only read
		}
	}
	return all.String()
}
