package storage

import (
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/xml"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// Azure is a container of Azure Blob Storage.
type Azure struct {
	Account, Container string
	// Endpoint is `https://HOST`, with a path where the account stands in it; empty means
	// https://ACCOUNT.blob.core.windows.net.
	Endpoint string
	// Prefix begins each name: `files/`, or empty.
	Prefix string
}

// The forms of names (Microsoft, "Naming and referencing containers").
var (
	accountForm   = regexp.MustCompile(`^[a-z0-9]{3,24}$`)
	containerForm = regexp.MustCompile(`^[a-z0-9](?:-?[a-z0-9])+$|^\$web$`)
	pathForm      = regexp.MustCompile(`^(?:/[A-Za-z0-9._~-]+)*$`)
)

// NewAzure returns the store. Its errors are each an *OptionError.
func NewAzure(c Azure, opts *Options) (*Store, error) {
	if !accountForm.MatchString(c.Account) {
		return nil, &OptionError{"account", fmt.Sprintf("%q is not the name of a storage account", c.Account)}
	}
	if !containerForm.MatchString(c.Container) || len(c.Container) > 63 {
		return nil, &OptionError{"container", fmt.Sprintf("%q is not the name of a container", c.Container)}
	}
	e, err := parseEndpoint(cmp.Or(c.Endpoint, "https://"+c.Account+".blob.core.windows.net"), deref(opts).InsecureHTTP)
	if err != nil {
		return nil, err
	}
	if !pathForm.MatchString(e.path) {
		return nil, &OptionError{"endpoint", fmt.Sprintf("%q has a path that is none", c.Endpoint)}
	}
	base := "/" + c.Container + "/"
	made, err := newStore(&azure{endpoint: e, account: c.Account, base: base}, e, escape(base), c.Prefix, opts)
	if err != nil {
		return nil, err
	}
	made.noSuffix = true
	return made, nil
}

type azure struct {
	endpoint endpoint
	account  string
	base     string
	key      atomic.Pointer[[]byte]
}

// read reads the account's key, as the portal shows it.
func (a *azure) read(text []byte) error {
	key, err := base64.StdEncoding.DecodeString(strings.TrimSpace(string(text)))
	if err != nil || len(key) == 0 {
		return errors.New("it is not the key of a storage account: write it in a line, in base64, as the portal shows it")
	}
	a.key.Store(&key)
	return nil
}

func (a *azure) variables() string { return "AZURE_STORAGE_KEY" }

func (a *azure) environ(lookup func(string) (string, bool)) bool {
	text, ok := lookup("AZURE_STORAGE_KEY")
	return ok && a.read([]byte(text)) == nil
}

// sign makes a service SAS of version 2020-12-06 (Microsoft, "Create a service SAS"): to
// read a blob, or to list the container.
func (a *azure) sign(_ context.Context, r request) (string, error) {
	key := a.key.Load()
	if key == nil {
		return "", errors.New("the credentials are not read yet")
	}
	const version = "2020-12-06"
	right, resource, path := "r", "b", a.base+r.key
	if r.list != nil {
		right, resource, path = "l", "c", bucketPath(a.base)
	}
	protocol := "https"
	if a.endpoint.scheme == "http" {
		protocol = "https,http"
	}
	end := r.at.Add(r.lifetime).Format(time.RFC3339)
	var as headers
	if r.headers != nil {
		as = *r.headers
	}
	text := strings.Join([]string{
		right, "", end, "/blob/" + a.account + path, "", "", protocol, version, resource, "", "",
		as.cacheControl, as.disposition, "", "", "",
	}, "\n")
	mac := hmac.New(sha256.New, *key)
	mac.Write([]byte(text)) // it has no error
	asks := map[string]string{
		"sv": version, "sr": resource, "sp": right, "se": end, "spr": protocol, "rscc": as.cacheControl, "rscd": as.disposition,
		"sig": base64.StdEncoding.EncodeToString(mac.Sum(nil)),
	}
	maps.Copy(asks, r.list)
	return a.endpoint.path + escape(path) + "?" + query(asks), nil
}

// listing is List Blobs.
func (*azure) listing(prefix, token string, most int) map[string]string {
	return map[string]string{"restype": "container", "comp": "list", "delimiter": "/", "prefix": prefix, "marker": token, "maxresults": strconv.Itoa(most)}
}

func (*azure) listed(text []byte) (*listed, error) {
	type name struct {
		Text    string `xml:",chardata"`
		Encoded bool   `xml:"Encoded,attr"` // where it holds what XML cannot
	}
	var said struct {
		XMLName xml.Name `xml:"EnumerationResults"`
		Blobs   *struct {
			Blob []struct {
				Name       name `xml:"Name"`
				Properties struct {
					Modified string `xml:"Last-Modified"`
					Length   *int64 `xml:"Content-Length"`
					Kind     string `xml:"ResourceType"`
				} `xml:"Properties"`
			} `xml:"Blob"`
			Prefix []struct {
				Name name `xml:"Name"`
			} `xml:"BlobPrefix"`
		} `xml:"Blobs"`
		Marker *string `xml:"NextMarker"`
	}
	if err := unmarshal(text, &said); err != nil {
		return nil, err
	}
	if said.Blobs == nil || said.Marker == nil {
		return nil, errors.New("it does not say whether there is more")
	}
	decode := func(n name) (string, error) {
		if n.Encoded {
			return url.PathUnescape(n.Text)
		}
		return n.Text, nil
	}
	found := &listed{token: *said.Marker}
	for _, b := range said.Blobs.Blob {
		key, err := decode(b.Name)
		changed, dateErr := http.ParseTime(b.Properties.Modified)
		if err != nil || dateErr != nil || b.Properties.Length == nil || *b.Properties.Length < 0 {
			return nil, errors.New("a blob has no name, date or length")
		}
		if b.Properties.Kind != "directory" { // it is a prefix too
			found.objects = append(found.objects, object{name: key, size: *b.Properties.Length, changed: changed})
		}
	}
	for _, p := range said.Blobs.Prefix {
		prefix, err := decode(p.Name)
		if err != nil {
			return nil, errors.New("a prefix is none")
		}
		found.prefixes = append(found.prefixes, prefix)
	}
	return found, nil
}
