package authz

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"securefiles/pathguard"
)

// A Download is a public URL prefix whose files are guarded.
type Download struct {
	// Name stands in metrics and logs, and as `dom` in policies.
	Name string
	// URL is the public prefix, with a slash at both ends.
	URL string
	// Internal is the prefix of nginx's internal location, with a slash at
	// both ends.
	Internal string
	// Disposition says whether a browser saves or shows the file.
	Disposition pathguard.Kind
	// DenyStatus is what a known, refused subject gets: 403, or 404 for
	// every other value.
	DenyStatus int
	// CacheControl is the Cache-Control value of what is served.
	CacheControl string
	// CSP is the Content-Security-Policy value of what is served; empty leaves it to
	// the front end.
	CSP string
	// ReferrerPolicy is the Referrer-Policy value of every answer; empty means
	// no-referrer.
	ReferrerPolicy string
	// SameOrigin says that pages of other origins may not embed a file.
	SameOrigin bool
}

// Downloads are the downloads of a service, at least one. None contains
// another. The zero Downloads have none.
type Downloads struct{ list []*Download }

// NewDownloads returns an error for prefixes that are none and for downloads
// that share a name or contain each other.
func NewDownloads(list ...*Download) (*Downloads, error) {
	if len(list) == 0 {
		return nil, errors.New("there is no download")
	}
	for i, d := range list {
		for _, prefix := range []string{d.URL, d.Internal} {
			if len(prefix) < 3 || prefix[0] != '/' || prefix[len(prefix)-1] != '/' {
				return nil, fmt.Errorf("download %q: prefix %q must begin and end with a slash and name something", d.Name, prefix)
			}
		}
		for _, other := range list[:i] {
			if overlap(d.URL, other.URL) || overlap(d.Internal, other.Internal) || d.Name == other.Name {
				return nil, fmt.Errorf("downloads %q and %q share a name or overlap in url or internal prefix", other.Name, d.Name)
			}
		}
	}
	return &Downloads{slices.Clone(list)}, nil
}

func overlap(a, b string) bool { return strings.HasPrefix(a, b) || strings.HasPrefix(b, a) }

// All returns the downloads in their order.
func (d *Downloads) All() []*Download { return slices.Clone(d.list) }

// Names returns their names, in the same order.
func (d *Downloads) Names() []string {
	var names []string
	for _, one := range d.list {
		names = append(names, one.Name)
	}
	return names
}

// Find returns the download that a raw request target belongs to, and the one
// path that may be opened. The download is there beside an error, if the target
// begins like one; the error is pathguard's.
func (d *Downloads) Find(target string) (*Download, pathguard.Path, error) {
	for _, one := range d.list {
		path, err := pathguard.Parse(target, one.URL)
		if errors.Is(err, pathguard.ErrOutside) {
			continue
		}
		if err != nil {
			return one, pathguard.Path{}, err
		}
		return one, path, nil
	}
	return nil, pathguard.Path{}, pathguard.ErrOutside
}

// mayMean reports whether a web server could take a target for one below a download
// that does not begin like it: it decodes, and clears away what is not canonical.
func (d *Downloads) mayMean(target string) bool {
	whole, err := pathguard.Parse(target, "/")
	if err != nil {
		return true
	}
	return slices.ContainsFunc(d.list, func(one *Download) bool { return strings.HasPrefix(whole.String()+"/", one.URL) })
}

// ErrPath says that a path is refused before policy is asked.
var ErrPath = errors.New("the path is refused before policy is asked")

// Ask reads a path as people write it: a public URL path, percent-encoded, which a
// scheme and a host may precede, as a browser shows it, or the path below a
// download, as policies have it. The name says which download is
// meant in the second case; with one download it may be empty. A path that a
// request would be refused for is ErrPath.
func (d *Downloads) Ask(name, text string) (*Download, pathguard.Path, error) {
	target, isURL := withoutHost(text)
	one, path, err := d.Find(target)
	if errors.Is(err, pathguard.ErrOutside) && !isURL {
		path, err = pathguard.New(text)
	}
	if err != nil {
		return nil, pathguard.Path{}, fmt.Errorf("path %q: %w: %w", text, ErrPath, err)
	}
	if one == nil && name == "" && len(d.list) > 1 {
		return nil, pathguard.Path{}, fmt.Errorf("path %q: say which download with --download, or write its URL", text)
	}
	if one == nil {
		if one, err = d.Named(name); err != nil {
			return nil, pathguard.Path{}, err
		}
	}
	return one, path, nil
}

// withoutHost returns what stands behind the host of a URL.
func withoutHost(text string) (target string, isURL bool) {
	scheme, rest, ok := strings.Cut(text, "://")
	if !ok || !strings.EqualFold(scheme, "http") && !strings.EqualFold(scheme, "https") {
		return text, false
	}
	_, path, _ := strings.Cut(rest, "/")
	return "/" + path, true
}

// Named returns the download of a name; of an empty one, the first.
func (d *Downloads) Named(name string) (*Download, error) {
	for _, one := range d.list {
		if one.Name == name || name == "" {
			return one, nil
		}
	}
	return nil, fmt.Errorf("there is no download %q: there are %s", name, strings.Join(d.Names(), ", "))
}
