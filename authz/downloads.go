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
	// Names are public names of files; nil means that each is called what it is.
	Names Names
	// Listing says that directories are shown, to whom the action list is allowed.
	Listing bool
	// Archives says that a directory that is shown can be had as one file, `?zip`.
	Archives bool
	// Store has the files; nil means that they are in the web server's own directory.
	Store Locator
}

// Names says what is opened for a path that may be a name: the path itself if it is
// none. The error is of a path that may not be opened.
type Names interface {
	Object(pathguard.Path) (pathguard.Path, error)
}

// Object returns what is opened for a path that [Downloads.Find] found: what policy is
// asked about.
func (d *Download) Object(asked pathguard.Path) (pathguard.Path, error) {
	if d.Names == nil {
		return asked, nil
	}
	return d.Names.Object(asked)
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
// path that it asks for, which may be a name: see [Download.Object]. The download is
// there beside an error, if the target begins like one; the error is pathguard's.
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

// FindDir is Find for a directory, of a download that shows them; false for all else.
func (d *Downloads) FindDir(target string) (*Download, pathguard.Dir, bool) {
	for _, one := range d.list {
		if !one.Listing {
			continue
		}
		if dir, err := pathguard.ParseDir(target, one.URL); err == nil {
			return one, dir, true
		}
	}
	return nil, pathguard.Dir{}, false
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

// ErrSeveral says that a path below a download may be one of several downloads'.
var ErrSeveral = errors.New("there are several downloads: write its URL, or say which")

// Ask reads a path as people write it: a public URL path, percent-encoded but for
// blanks, a whole URL as a browser shows it, or the path below a download, as
// policies have it. The name says which download is meant in the last case; with one
// download it may be empty, with several that is ErrSeveral. Of a name it returns the
// object. A path that a request would be refused for is ErrPath.
func (d *Downloads) Ask(name, text string) (*Download, pathguard.Path, error) {
	target, whole := targetOf(text)
	one, path, err := d.Find(target)
	if errors.Is(err, pathguard.ErrOutside) {
		if whole {
			return nil, pathguard.Path{}, fmt.Errorf("path %q: %w: it is below no download: their URLs are %s", text, ErrPath, strings.Join(d.urls(), ", "))
		}
		path, err = pathguard.New(text)
	}
	if err != nil && text != "" && text[0] != '/' && !whole {
		return nil, pathguard.Path{}, fmt.Errorf("path %q: %w: %w: write %q", text, ErrPath, err, "/"+text)
	}
	if err != nil {
		return nil, pathguard.Path{}, fmt.Errorf("path %q: %w: %w", text, ErrPath, err)
	}
	if one == nil && name == "" && len(d.list) > 1 {
		return nil, pathguard.Path{}, fmt.Errorf("path %q: %w", text, ErrSeveral)
	}
	if one == nil {
		if one, err = d.Named(name); err != nil {
			return nil, pathguard.Path{}, err
		}
	}
	object, err := one.Object(path)
	if err != nil {
		return nil, pathguard.Path{}, fmt.Errorf("path %q: %w: %w", text, ErrPath, err)
	}
	return one, object, nil
}

// AskDir is Ask for a directory, which ends with a slash. Whether the download shows
// them does not matter.
func (d *Downloads) AskDir(name, text string) (*Download, pathguard.Dir, error) {
	target, whole := targetOf(text)
	fail := func(err error) (*Download, pathguard.Dir, error) {
		return nil, pathguard.Dir{}, fmt.Errorf("path %q: %w", text, err)
	}
	for _, one := range d.list {
		dir, err := pathguard.ParseDir(target, one.URL)
		switch {
		case err == nil:
			return one, dir, nil
		case !errors.Is(err, pathguard.ErrOutside):
			return fail(fmt.Errorf("%w: %w", ErrPath, err))
		}
	}
	if whole {
		return fail(fmt.Errorf("%w: it is below no download: their URLs are %s", ErrPath, strings.Join(d.urls(), ", ")))
	}
	dir, err := pathguard.NewDir(text)
	if err != nil {
		return fail(fmt.Errorf("%w: %w", ErrPath, err))
	}
	if name == "" && len(d.list) > 1 {
		return fail(ErrSeveral)
	}
	one, err := d.Named(name)
	return one, dir, err
}

// targetOf is the target of the request that a browser would make of what people
// write, and whether that is a whole URL.
func targetOf(text string) (target string, whole bool) {
	for _, scheme := range []string{"https://", "http://"} {
		if len(text) < len(scheme) || !strings.EqualFold(text[:len(scheme)], scheme) {
			continue
		}
		text, _, _ = strings.Cut(text[len(scheme):], "#")
		_, path, _ := strings.Cut(text, "/")
		text, whole = "/"+path, true
		break
	}
	return strings.ReplaceAll(text, " ", "%20"), whole
}

func (d *Downloads) urls() []string {
	var urls []string
	for _, one := range d.list {
		urls = append(urls, one.URL)
	}
	return urls
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
